//! `signalman chat --follow`: what the bot says, live.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::Value;

use super::client::ApiClient;
use super::table::time;
use super::{Answer, Common, Failure, Output, print_line};
use crate::config::Environment;

/// The pause before a stream that broke off is opened again.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Go on showing messages as they come
    #[arg(long)]
    follow: bool,
    /// Only of this channel
    #[arg(long)]
    channel: Option<String>,
    /// How many earlier messages to show first
    #[arg(long, default_value_t = 10)]
    last: usize,
}

pub(super) fn run(common: &Common, arguments: &Arguments, environment: &Environment) -> Result<Answer, Failure> {
    let client = ApiClient::new(common, environment)?;
    let mut screen = Screen { seen: HashSet::new(), channel: arguments.channel.clone(), json: common.output == Output::Json };
    screen.catch_up(&client, arguments.last)?;
    if !arguments.follow {
        return Ok(Answer::Yes);
    }
    eprintln!("following; end with Ctrl-C");
    let mut last_id = None;
    loop {
        let mut reset = false;
        let ended = client.stream(last_id, |record| {
            reset = screen.take(record, &mut last_id);
            !reset
        });
        if reset {
            last_id = None;
            screen.catch_up(&client, 100)?;
            continue;
        }
        let why = ended.err().map_or_else(|| "the server ended the stream".to_string(), |failure| failure.message);
        eprintln!("{why}; trying again");
        // Everything since the last one seen, as soon as the server is back.
        loop {
            std::thread::sleep(PAUSE);
            if screen.catch_up(&client, 100).is_ok() {
                break;
            }
        }
        last_id = None;
    }
}

struct Screen {
    seen: HashSet<String>,
    channel: Option<String>,
    json: bool,
}

impl Screen {
    /// Shows the messages that were missed.
    fn catch_up(&mut self, client: &ApiClient, last: usize) -> Result<(), Failure> {
        if last == 0 {
            return Ok(());
        }
        let answer = client.get(&format!("/api/v1/messages?limit={last}"))?;
        for message in answer["messages"].as_array().into_iter().flatten().rev() {
            self.show(message);
        }
        Ok(())
    }

    /// Takes a record of the stream; answers whether it says to start anew.
    fn take(&mut self, record: &str, last_id: &mut Option<u64>) -> bool {
        let field = |name: &str| record.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ").map(ToString::to_string));
        match field("event").as_deref() {
            Some("reset") => return true,
            Some("message") => {
                if let Some(message) = field("data").and_then(|data| serde_json::from_str(&data).ok()) {
                    self.show(&message);
                }
            }
            _ => {}
        }
        *last_id = field("id").and_then(|id| id.parse().ok()).or(*last_id);
        false
    }

    fn show(&mut self, message: &Value) {
        let (id, channel) = (message["id"].as_str().unwrap_or_default(), message["channel"].as_str().unwrap_or_default());
        if self.channel.as_deref().is_some_and(|wanted| wanted != channel) || !self.seen.insert(id.to_string()) {
            return;
        }
        if self.json {
            print_line(&message.to_string());
            return;
        }
        let text = printable(message["text"].as_str().unwrap_or_default());
        let at = time(&message["created_at"]);
        let mut lines = text.lines();
        print_line(&format!("{} #{channel}  {}", at.get(11..).unwrap_or(&at), lines.next().unwrap_or_default()));
        for line in lines {
            print_line(&format!("             {line}"));
        }
    }
}

/// Without control characters: data must not steer the terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c }).collect()
}
