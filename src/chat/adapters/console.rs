//! `console`: the terminal chat. A delivered message is in the store and on the event stream, where `signalman chat --follow` shows it.

use std::sync::Arc;

use async_trait::async_trait;

use crate::chat::{Abilities, AdapterKind, ChatAdapter, Receipt, SendError};
use crate::model::ids::MessageId;
use crate::model::message::{Destination, Message};

/// The kind.
pub const KIND: AdapterKind =
    AdapterKind { name: "console", summary: "the terminal: `signalman chat --follow`", build: |_| Arc::new(Console) };

/// How much of a message's first line is logged.
const LOGGED_CHARACTERS: usize = 200;

struct Console;

#[async_trait]
impl ChatAdapter for Console {
    async fn send(&self, to: &Destination, message: &Message, key: MessageId) -> Result<Receipt, SendError> {
        tracing::info!(channel = to.to, id = %key, "{}", message.text.lines().next().unwrap_or_default().chars().take(LOGGED_CHARACTERS).collect::<String>());
        Ok(Receipt(key.to_string()))
    }

    async fn edit(&self, _: &Destination, taken: &Receipt, _: &Message, _: MessageId) -> Result<Receipt, SendError> {
        Ok(taken.clone()) // who watches gets the edit with the id of the message that it changes
    }

    fn abilities(&self) -> Abilities {
        // The store drops a second message of one id, so a repeat never shows.
        Abilities { deduplicates: true, edits: true, markdown: false }
    }
}
