//! `signalman chat`: talking with the bot in a terminal, in a pipe, or by one line; or only watching what it says.

mod screen;
mod talk;
mod terminal;
mod words;

use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use self::screen::Screen;
use super::client::ApiClient;
use super::{Answer, Common, Failure, Output};
use crate::config::Environment;

/// The pause before a stream that broke off is opened again.
const PAUSE: Duration = Duration::from_secs(1);

/// Messages that are looked for after the stream broke off.
const MISSED: usize = 1_000;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Say this line and wait for the answer. Without it, lines are read: from the terminal, or from a pipe. Exit code 1 if a command failed
    text: Option<String>,
    /// Show messages as they come, of all channels, instead of talking; with a terminal chat, beside it
    #[arg(long)]
    follow: bool,
    /// Talk in this channel of the site instead of with the bot alone; with --follow, show only this one
    #[arg(long)]
    channel: Option<String>,
    /// How many earlier messages to show first, when messages are shown
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(0..=1000))]
    last: u16,
    /// Take commands from the terminal as well, with --follow
    #[arg(long, requires = "follow")]
    talk: bool,
}

pub(super) fn run(common: &Common, arguments: &Arguments, environment: &Environment) -> Result<Answer, Failure> {
    let client = ApiClient::new(common, environment)?;
    let at_terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal() && common.output == Output::Table;
    if let Some(text) = &arguments.text {
        return talk::one(common, &client, arguments.channel.as_deref(), text);
    }
    if at_terminal && (!arguments.follow || arguments.talk) {
        return terminal::run(common, &client, arguments, environment);
    }
    if !arguments.follow && talk::pipe(common, &client, arguments.channel.as_deref())?.is_some_and(|fine| !fine) {
        return Ok(Answer::No);
    }
    if arguments.follow { follow(common, &client, arguments) } else { Ok(Answer::Yes) }
}

/// Shows what is said until the process is ended.
fn follow(common: &Common, client: &ApiClient, arguments: &Arguments) -> Result<Answer, Failure> {
    let mut screen = Screen::plain(common, arguments.channel.clone());
    let after = screen.catch_up(client, usize::from(arguments.last))?;
    eprintln!("following; end with Ctrl-C");
    watch(client, &Mutex::new(screen), after);
    Ok(Answer::Yes)
}

/// Hands what happens to the screen, and starts anew where the stream breaks off; until the process is ended.
fn watch(client: &ApiClient, screen: &Mutex<Screen>, mut after: u64) {
    let screen = || screen.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        // The list says up to which commit it is complete; the stream goes on from there, so nothing falls between them.
        let mut last_id = Some(after);
        let ended = client.stream(last_id, |record| !screen().take(record, &mut last_id));
        if let Err(failure) = ended {
            screen().note(&format!("{}; trying again", failure.message));
        }
        after = loop {
            std::thread::sleep(PAUSE);
            if let Ok(after) = screen().catch_up(client, MISSED) {
                break after;
            }
        };
    }
}
