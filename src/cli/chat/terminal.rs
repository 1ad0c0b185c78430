//! The chat in a terminal: a line that can be edited, with history and completion, below what is said.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rustyline::completion::{Completer, Pair};
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::Validator;
use rustyline::{Config, Context, Editor, ExternalPrinter, Helper};
use serde_json::json;

use super::super::client::ApiClient;
use super::super::print::{Style, print_raw, styled};
use super::super::{Answer, Common, Failure};
use super::screen::Screen;
use super::words::Vocabulary;
use super::{Arguments, watch};
use crate::config::Environment;
use crate::tasks;

/// Lines of the history that are kept.
const HISTORY: usize = 1_000;

/// The stack of the thread that watches.
const STACK_BYTES: usize = 1 << 20;

const PROMPT: &str = "> ";

struct Typing(Arc<Mutex<Vocabulary>>);

impl Completer for Typing {
    type Candidate = Pair;

    fn complete(&self, line: &str, at: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let (start, words) = self.0.lock().unwrap_or_else(PoisonError::into_inner).complete(&line[..at]);
        let pair = |word: String| Pair { replacement: format!("{word} "), display: word };
        Ok((start, words.into_iter().map(pair).collect()))
    }
}

impl Hinter for Typing {
    type Hint = String;

    fn hint(&self, line: &str, at: usize, _: &Context<'_>) -> Option<String> {
        let at_end = at == line.len();
        at_end.then(|| self.0.lock().unwrap_or_else(PoisonError::into_inner).hint(line)).flatten()
    }
}

impl Highlighter for Typing {
    fn highlight_hint<'h>(&self, hint: &'h str) -> std::borrow::Cow<'h, str> {
        styled(hint, Some(Style::Faint)).into()
    }
}

impl Validator for Typing {}

impl Helper for Typing {}

pub(super) fn run(common: &Common, client: &ApiClient, arguments: &Arguments, environment: &Environment) -> Result<Answer, Failure> {
    let failed = |error: ReadlineError| Failure::failed(format!("the terminal cannot be used: {error}"));
    let vocabulary = Arc::new(Mutex::new(Vocabulary::of(&client.get("/api/v1/aliases")?)));
    let config = Config::builder().max_history_size(HISTORY).map_err(failed)?.history_ignore_space(true).auto_add_history(true).build();
    let mut editor: Editor<Typing, FileHistory> = Editor::with_config(config).map_err(failed)?;
    editor.set_helper(Some(Typing(Arc::clone(&vocabulary))));
    let history = history(environment);
    if let Some(file) = &history {
        let _ = editor.load_history(file); // a history that cannot be read is none
    }
    let own = match &arguments.channel {
        Some(channel) => channel.clone(),
        None => format!("@{}", whoami(client)?),
    };
    print_raw(&styled("Type a command, as `!help`; Tab completes, Ctrl-D ends.", Some(Style::Faint)));
    let mut printer = editor.create_external_printer().map_err(failed)?;
    let seen = Arc::clone(&vocabulary);
    let out = Box::new(move |text: String| {
        seen.lock().unwrap_or_else(PoisonError::into_inner).see(&text);
        let _ = printer.print(text); // the terminal has gone
    });
    let mut screen = Screen::of_talk(common, &own, arguments.follow, true, out);
    let after = screen.skip_past(client)?;
    let screen = Arc::new(Mutex::new(screen));
    let (watcher, shown) = (ApiClient::new(common, environment)?, Arc::clone(&screen));
    let watching = tasks::spawn_thread("chat", STACK_BYTES, move || watch(&watcher, &shown, after));
    watching.map_err(|error| Failure::failed(format!("cannot watch what is said: {error}")))?;
    loop {
        match editor.readline(PROMPT) {
            Ok(line) => {
                with(&screen, |screen| screen.typed(&format!("{PROMPT}{line}")));
                if line.trim().is_empty() {
                    continue;
                }
                let said = client.post("/api/v1/chat/console/messages", &json!({"text": line, "channel": arguments.channel}));
                if let Err(failure) = said {
                    with(&screen, |screen| screen.note(&failure.message));
                }
            }
            Err(ReadlineError::Interrupted) => {
                with(&screen, |screen| {
                    screen.typed(PROMPT);
                    screen.note("What runs in the server goes on; `!cancel ID` stops it. Ctrl-D ends the chat.");
                });
            }
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(failed(error)),
        }
        if let Some(file) = &history {
            let _ = editor.save_history(file); // it is only a comfort
        }
    }
    Ok(Answer::Yes)
}

fn with(screen: &Mutex<Screen>, act: impl FnOnce(&mut Screen)) {
    act(&mut screen.lock().unwrap_or_else(PoisonError::into_inner));
}

/// What the bot calls whoever has the token.
fn whoami(client: &ApiClient) -> Result<String, Failure> {
    // A line of nothing is not heard, and still tells where it was said.
    let heard = client.post("/api/v1/chat/console/messages", &json!({"text": ""}))?;
    Ok(heard["channel"].as_str().unwrap_or_default().trim_start_matches('@').to_string())
}

/// The file of the history: for nobody else to read, since secrets may have been typed.
fn history(environment: &Environment) -> Option<PathBuf> {
    let state = environment.get("XDG_STATE_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
    let state = state.or_else(|| Some(PathBuf::from(environment.get("HOME")?).join(".local/state")))?;
    let file = state.join("signalman/chat_history");
    std::fs::create_dir_all(file.parent()?).ok()?;
    OpenOptions::new().append(true).create(true).mode(0o600).open(&file).ok()?;
    Some(file)
}
