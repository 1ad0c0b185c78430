//! Port: chat systems. [`words`] has every sentence the bot says; [`adapters`] carry messages and never word one.

pub mod adapters;
pub mod conversation;
pub mod grammar;
pub mod help;
pub mod words;

use async_trait::async_trait;

use crate::model::ids::MessageId;
use crate::model::message::{Destination, Message};
use crate::model::reason::Reason;

/// Carries messages to one chat system.
#[async_trait]
pub trait ChatAdapter: Send + Sync {
    /// Delivers a message. `key` is equal for every attempt at one message, for systems that can tell repeats.
    async fn send(&self, to: &Destination, message: &Message, key: MessageId) -> Result<Receipt, SendError>;

    /// Puts another text in the place of a message that was taken; called only where [`Abilities::edits`] says so. `key` is that of the
    /// edit. A refusal for good makes the text a message of its own.
    async fn edit(&self, to: &Destination, taken: &Receipt, message: &Message, key: MessageId) -> Result<Receipt, SendError> {
        let _ = (to, taken, message, key);
        Err(SendError { reason: Reason::ChatUnavailable, detail: "messages cannot be edited there".into(), retry: false })
    }

    /// What the system can do.
    fn abilities(&self) -> Abilities;
}

/// What a chat system can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abilities {
    /// Whether a repeat of a message with the same key is dropped by the system itself.
    pub deduplicates: bool,
    /// Whether the text of a message can be changed afterwards.
    pub edits: bool,
    /// Whether Markdown is shown as such.
    pub markdown: bool,
}

/// How the chat system calls a message that it took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt(pub String);

/// Why a message was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct SendError {
    /// The reason.
    pub reason: Reason,
    /// What exactly.
    pub detail: String,
    /// Whether to try again.
    pub retry: bool,
}

/// A kind of chat system.
pub struct AdapterKind {
    /// The name in `kind`.
    pub name: &'static str,
    /// For the reference.
    pub summary: &'static str,
    /// Makes the adapter.
    pub build: fn(&str) -> std::sync::Arc<dyn ChatAdapter>,
}
