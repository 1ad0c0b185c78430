//! Saying lines and waiting for the answers: one from the command line, or those of a pipe.

use std::io::{BufRead, IsTerminal};
use std::time::Duration;

use serde_json::{Value, json};

use super::super::client::ApiClient;
use super::super::print::print_raw;
use super::super::{Answer, Common, Failure, Output};
use super::screen::Screen;

/// Pauses between two looks at what runs: the first, and the longest.
const LOOK: Duration = Duration::from_millis(20);
const LONGEST_LOOK: Duration = Duration::from_millis(500);

/// Messages that are looked through for the answers.
const LOOKED_AT: usize = 200;

/// Says one line.
pub(super) fn one(common: &Common, client: &ApiClient, channel: Option<&str>, text: &str) -> Result<Answer, Failure> {
    let fine = say(common, client, &mut None, channel, text)?;
    Ok(if fine { Answer::Yes } else { Answer::No })
}

/// Says every line that comes, one after the other; answers whether all went well. Where no line comes, the last messages are shown, and
/// there is no answer.
pub(super) fn pipe(common: &Common, client: &ApiClient, channel: Option<&str>) -> Result<Option<bool>, Failure> {
    let (mut fine, mut screen) = (None, None);
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(|error| Failure::misuse(format!("the input cannot be read: {error}")))?;
        if !line.trim().is_empty() {
            let well = say(common, client, &mut screen, channel, &line)?;
            fine = Some(fine.unwrap_or(true) && well);
        }
    }
    if fine.is_none() {
        Screen::plain(common, channel.map(ToString::to_string)).catch_up(client, 10)?;
    }
    Ok(fine)
}

/// Says a line, shows what is answered, and waits for the end of what it runs. Answers whether all went well.
fn say(common: &Common, client: &ApiClient, screen: &mut Option<Screen>, channel: Option<&str>, text: &str) -> Result<bool, Failure> {
    let heard = client.post("/api/v1/chat/console/messages", &json!({"text": text, "channel": channel}))?;
    let own = heard["channel"].as_str().unwrap_or_default();
    let live = std::io::stdout().is_terminal() && common.output == Output::Table;
    let screen = screen.get_or_insert_with(|| Screen::of_talk(common, own, false, live, Box::new(|text| print_raw(&text))));
    for message in heard["messages"].as_array().into_iter().flatten() {
        screen.show(message);
    }
    let mut fine = heard["fine"] != false;
    for execution in heard["executions"].as_array().into_iter().flatten() {
        fine &= ended(client, screen, own, execution["id"].as_str().unwrap_or_default())?;
    }
    Ok(fine)
}

/// Waits until an execution has ended and shows what was said about it; answers whether it succeeded.
fn ended(client: &ApiClient, screen: &mut Screen, channel: &str, id: &str) -> Result<bool, Failure> {
    let mut pause = LOOK;
    loop {
        let execution = client.get(&format!("/api/v1/executions/{id}"))?;
        let status = execution["status"].as_str().unwrap_or_default();
        let open = matches!(status, "requested" | "delayed" | "running" | "canceling");
        if !open || pause == LONGEST_LOOK {
            show(client, screen, channel, id)?;
        }
        if !open {
            return Ok(status == "succeeded");
        }
        if client.is_interrupted_within(pause) {
            screen.note(&format!("the command goes on in the server; `signalman execution cancel {id}` stops it"));
            return Ok(false);
        }
        pause = (pause * 2).min(LONGEST_LOOK);
    }
}

fn show(client: &ApiClient, screen: &mut Screen, channel: &str, id: &str) -> Result<(), Failure> {
    let channel = crate::links::percent_encode(channel, b"");
    let answer = client.get(&format!("/api/v1/messages?limit={LOOKED_AT}&channel={channel}"))?;
    let messages = answer["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut own: Vec<&Value> = messages.iter().rev().filter(|message| message["execution"].as_str() == Some(id)).collect();
    // Ids of one execution do not tell which was first.
    own.sort_by_key(|message| (message["created_at"].as_str().unwrap_or_default().to_string(), message["replaces"].is_string()));
    for message in own {
        screen.show(message);
    }
    Ok(())
}
