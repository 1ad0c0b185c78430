//! Messages to chat: committed to the outbox first, delivered afterwards.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::model::ids::{ExecutionId, MessageId};
use crate::model::reason::Reason;

/// The longest text of a message, in bytes; longer ones are cut with a note.
pub const MAX_TEXT_BYTES: usize = 16 * 1024;

/// Where a message goes: an adapter of the site, and a place in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Destination {
    /// The name of the adapter in `chat`.
    pub adapter: String,
    /// The place in that chat system: a channel's name or id.
    pub to: String,
}

/// A message on its way.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Message {
    /// Its id; the idempotency key towards the chat system.
    pub id: MessageId,
    /// The site's name for the channel.
    pub channel: String,
    /// Where that is.
    pub destination: Destination,
    /// What it says, in Markdown.
    pub text: String,
    /// When it was asked for.
    pub created_at: DateTime<Utc>,
    /// The execution that it came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution: Option<ExecutionId>,
    /// The message whose text this one takes the place of: an edit is a message of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<MessageId>,
    /// Whether it only tells how far something is: it is left out where messages cannot be edited, and where the end is known.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub passing: bool,
    /// Whether it has been delivered.
    pub delivery: Delivery,
}

impl Message {
    /// A message that waits, says something new, and comes from no execution.
    #[must_use]
    pub fn new(id: MessageId, channel: &str, destination: Destination, text: String, created_at: DateTime<Utc>) -> Self {
        Self {
            id,
            channel: channel.into(),
            destination,
            text: bounded(text),
            created_at,
            execution: None,
            replaces: None,
            passing: false,
            delivery: Delivery::Waiting,
        }
    }
}

/// Where the delivery of a message stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum Delivery {
    /// In the outbox.
    Waiting,
    /// Delivered.
    Sent {
        /// When.
        at: DateTime<Utc>,
        /// How the chat system calls it.
        receipt: String,
    },
    /// Not shown: it only told how far something was, and that was not of use any more.
    LeftOut {
        /// When.
        at: DateTime<Utc>,
    },
    /// Given up.
    Failed {
        /// When.
        at: DateTime<Utc>,
        /// Why.
        reason: Reason,
        /// What exactly.
        detail: String,
    },
}

/// Cuts a text to [`MAX_TEXT_BYTES`] at a character, with a note.
#[must_use]
pub fn bounded(mut text: String) -> String {
    if text.len() > MAX_TEXT_BYTES {
        let mut end = MAX_TEXT_BYTES;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let cut = text.len() - end;
        text.truncate(end);
        text.push_str(&format!("\n… ({cut} more bytes were cut)"));
    }
    text
}
