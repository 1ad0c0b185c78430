//! `signalman chat --follow`: what the bot says, live.

use std::collections::VecDeque;
use std::time::Duration;

use serde_json::Value;

use super::client::ApiClient;
use super::table::time;
use super::{Answer, Common, Failure, print_line};
use crate::config::Environment;

/// The pause before a stream that broke off is opened again.
const PAUSE: Duration = Duration::from_secs(1);

/// Messages that are looked for after the stream broke off.
const MISSED: usize = 1_000;

/// Shown messages that are remembered, so that a repeat is not shown again.
const REMEMBERED: usize = 2 * MISSED;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Go on showing messages as they come
    #[arg(long)]
    follow: bool,
    /// Only of this channel
    #[arg(long)]
    channel: Option<String>,
    /// How many earlier messages to show first
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(0..=1000))]
    last: u16,
}

pub(super) fn run(common: &Common, arguments: &Arguments, environment: &Environment) -> Result<Answer, Failure> {
    let client = ApiClient::new(common, environment)?;
    let mut screen = Screen { seen: VecDeque::new(), channel: arguments.channel.clone(), common: common.clone() };
    let mut after = screen.catch_up(&client, usize::from(arguments.last))?;
    if !arguments.follow {
        return Ok(Answer::Yes);
    }
    eprintln!("following; end with Ctrl-C");
    loop {
        // The list says up to which commit it is complete; the stream goes on from there, so nothing falls between them.
        let mut last_id = Some(after);
        let ended = client.stream(last_id, |record| !screen.take(record, &mut last_id));
        if let Err(failure) = ended {
            eprintln!("{}; trying again", failure.message);
        }
        after = loop {
            std::thread::sleep(PAUSE);
            if let Ok(after) = screen.catch_up(&client, MISSED) {
                break after;
            }
        };
    }
}

struct Screen {
    /// The ids shown last: the stream may repeat some.
    seen: VecDeque<String>,
    channel: Option<String>,
    common: Common,
}

impl Screen {
    /// Shows the last messages that were not shown yet; answers the number of the commit up to which that is complete.
    fn catch_up(&mut self, client: &ApiClient, last: usize) -> Result<u64, Failure> {
        let channel = self.channel.as_ref().map(|name| format!("&channel={}", crate::links::percent_encode(name, b""))).unwrap_or_default();
        let answer = client.get(&format!("/api/v1/messages?limit={}{channel}", last.max(1)))?;
        let messages = answer["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
        for message in messages.iter().take(last).rev() {
            self.show(message);
        }
        Ok(answer["sequence"].as_u64().unwrap_or(0))
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
        if self.channel.as_deref().is_some_and(|wanted| wanted != channel) || self.seen.iter().any(|seen| seen == id) {
            return;
        }
        self.seen.push_back(id.to_string());
        if self.seen.len() > REMEMBERED {
            self.seen.pop_front();
        }
        self.common.show_next(message, || Self::print(message, channel));
    }

    fn print(message: &Value, channel: &str) {
        let text = message["text"].as_str().unwrap_or_default();
        let at = time(&message["created_at"]);
        let mut lines = text.lines();
        print_line(&format!("{} #{channel}  {}", at.get(11..).unwrap_or(&at), lines.next().unwrap_or_default()));
        for line in lines {
            print_line(&format!("             {line}"));
        }
    }
}
