//! What is shown of messages. On a terminal an edit changes what stands there; elsewhere the text that lasts is written below.

use std::collections::{HashSet, VecDeque};

use serde_json::Value;
use unicode_width::UnicodeWidthChar;

use super::super::client::ApiClient;
use super::super::print::{Style, print_raw, printable, styled};
use super::super::table::time;
use super::super::{Common, Output};
use super::MISSED;

/// Shown messages that are remembered, so that a repeat is not shown again.
const REMEMBERED: usize = 2 * MISSED;

/// Messages whose place on the terminal is known.
const BLOCKS: usize = 50;

/// Where text goes: to the output, or above the line that is being typed.
pub(super) type Out = Box<dyn FnMut(String) + Send>;

/// A message on the terminal, or a line that was typed.
struct Block {
    id: String,
    text: String,
}

pub(super) struct Screen {
    common: Common,
    /// The ids shown last: the stream may repeat some.
    seen: VecDeque<String>,
    /// Only this channel.
    channel: Option<String>,
    /// The conversation with the bot, whose messages need no head.
    own: Option<String>,
    /// Whether what stands there can be changed.
    live: bool,
    blocks: VecDeque<Block>,
    /// Messages that have been replaced by what lasts.
    ended: HashSet<String>,
    out: Out,
}

impl Screen {
    /// Lines one below the other.
    pub fn plain(common: &Common, channel: Option<String>) -> Self {
        Self {
            common: common.clone(),
            seen: VecDeque::new(),
            channel,
            own: None,
            live: false,
            blocks: VecDeque::new(),
            ended: HashSet::new(),
            out: Box::new(|text| print_raw(&text)),
        }
    }

    /// A conversation in a channel; with `all`, other channels are shown as well.
    pub fn of_talk(common: &Common, own: &str, all: bool, live: bool, out: Out) -> Self {
        let channel = (!all).then(|| own.to_string());
        Self { own: Some(own.into()), live, out, ..Self::plain(common, channel) }
    }

    /// Shows the last messages that were not shown yet; answers the number of the commit up to which that is complete.
    pub fn catch_up(&mut self, client: &ApiClient, last: usize) -> Result<u64, super::Failure> {
        let channel = self.channel.as_ref().map(|name| format!("&channel={}", crate::links::percent_encode(name, b""))).unwrap_or_default();
        let answer = client.get(&format!("/api/v1/messages?limit={}{channel}", last.max(1)))?;
        let messages = answer["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
        for message in messages.iter().take(last).rev() {
            self.show(message);
        }
        Ok(answer["sequence"].as_u64().unwrap_or(0))
    }

    /// Leaves out what was said before; answers the number of the commit up to which that is complete.
    pub fn skip_past(&mut self, client: &ApiClient) -> Result<u64, super::Failure> {
        let answer = client.get(&format!("/api/v1/messages?limit={MISSED}"))?;
        let messages = answer["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
        self.seen.extend(messages.iter().rev().filter_map(|message| Some(message["id"].as_str()?.to_string())));
        Ok(answer["sequence"].as_u64().unwrap_or(0))
    }

    /// Takes a record of the stream; answers whether it says to start anew.
    pub fn take(&mut self, record: &str, last_id: &mut Option<u64>) -> bool {
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

    /// Shows a message, once.
    pub fn show(&mut self, message: &Value) {
        let field = |name: &str| message[name].as_str().unwrap_or_default();
        let (id, channel) = (field("id"), field("channel"));
        let is_other = self.channel.as_deref().is_some_and(|wanted| wanted != channel);
        if is_other || message["delivery"]["status"] == "left_out" || self.seen.iter().any(|seen| seen == id) {
            return;
        }
        self.seen.push_back(id.to_string());
        if self.seen.len() > REMEMBERED {
            self.seen.pop_front();
        }
        if self.common.output != Output::Table {
            self.common.show_next(message, || {});
            return;
        }
        let replaced = message["replaces"].as_str().map(ToString::to_string);
        let passing = message["passing"] == true;
        if let Some(replaced) = &replaced {
            let is_late = self.ended.contains(replaced);
            if !passing {
                self.ended.insert(replaced.clone());
            }
            if passing && (is_late || !self.live) {
                return; // of no use where nothing can be changed, or when the end is known
            }
        }
        let text = self.worded(message, channel);
        match replaced.and_then(|replaced| self.blocks.iter().position(|block| block.id == replaced)) {
            Some(index) if self.live && self.rewrite(index, &text) => {}
            _ => self.append(id, text),
        }
    }

    /// A line that somebody typed, which has taken place on the terminal.
    pub fn typed(&mut self, line: &str) {
        self.push(String::new(), line.to_string());
    }

    /// Something that is no message.
    pub fn note(&mut self, text: &str) {
        if self.own.is_none() {
            eprintln!("{}", printable(text)); // what is read by others holds messages only
            return;
        }
        self.append("", styled(text, Some(Style::Faint)));
    }

    fn append(&mut self, id: &str, text: String) {
        self.push(id.to_string(), text.clone());
        (self.out)(text);
    }

    fn push(&mut self, id: String, text: String) {
        self.blocks.push_back(Block { id, text });
        if self.blocks.len() > BLOCKS {
            self.blocks.pop_front();
        }
    }

    /// Writes everything from a message on anew, if that still stands on the terminal.
    fn rewrite(&mut self, index: usize, text: &str) -> bool {
        let size = terminal_size::terminal_size_of(std::io::stdout());
        let (width, height) = size.map_or((80, 24), |(width, height)| (usize::from(width.0).max(1), usize::from(height.0)));
        let rows: usize = self.blocks.iter().skip(index).map(|block| rows(&block.text, width)).sum();
        if rows + 2 > height {
            return false;
        }
        self.blocks[index].text = text.to_string();
        let below: Vec<&str> = self.blocks.iter().skip(index).map(|block| block.text.as_str()).collect();
        (self.out)(format!("\x1b[{rows}A\r\x1b[J{}", below.join("\n")));
        true
    }

    fn worded(&self, message: &Value, channel: &str) -> String {
        let text = printable(message["text"].as_str().unwrap_or_default());
        if self.own.as_deref() == Some(channel) {
            return text;
        }
        let at = time(&message["created_at"]);
        let mut lines = text.lines();
        let first = format!("{} #{channel}  {}", at.get(11..).unwrap_or(&at), lines.next().unwrap_or_default());
        lines.fold(first, |text, line| format!("{text}\n             {line}"))
    }
}

/// How many rows a text takes; wide characters count twice.
fn rows(text: &str, width: usize) -> usize {
    let columns = |line: &str| {
        let (mut columns, mut in_escape) = (0usize, false);
        for c in line.chars() {
            match c {
                '\x1b' => in_escape = true,
                'm' if in_escape => in_escape = false,
                _ if in_escape => {}
                c => columns += c.width().unwrap_or(0),
            }
        }
        columns
    };
    text.split('\n').map(|line| columns(line).div_ceil(width).max(1)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_counted_as_a_terminal_does() {
        assert_eq!(rows("", 10), 1);
        assert_eq!(rows("a\nb", 10), 2);
        assert_eq!(rows(&"x".repeat(21), 10), 3);
        assert_eq!(rows("\x1b[2mabc\x1b[0m", 3), 1);
        assert_eq!(rows("日本日", 4), 2);
        assert_eq!(rows("⏳ … ·", 6), 1);
    }
}
