//! Port: everything that must outlive the process, written by one atomic commit.
//!
//! [`Store`] speaks in domain words. [`keyed`] carries it out over any ordered key space; [`memory`] and [`sled`] are
//! the two there are. `tests/it/contracts.rs` holds the contract that each must keep.

pub mod keyed;
pub mod lock;
pub mod memory;
pub mod record;
pub mod sled;

use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::model::event::StoredEvent;
use crate::model::execution::{Execution, State};
use crate::model::hash::Revision;
use crate::model::ids::{EventId, ExecutionId, MessageId};
use crate::model::message::Message;

/// What one commit writes: all of it, or nothing.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Events with their verdicts.
    pub events: Vec<Arc<StoredEvent>>,
    /// What is remembered about the senders' keys.
    pub sightings: Vec<Sighting>,
    /// Executions asked for; refused with [`CommitError::Conflict`] if one of the id exists.
    pub requested: Vec<Arc<Execution>>,
    /// New states of executions; refused with [`CommitError::Conflict`] unless the stored version is one less.
    pub states: Vec<(ExecutionId, State)>,
    /// Messages for the outbox; refused with [`CommitError::Conflict`] if one of the id exists.
    pub messages: Vec<Message>,
    /// Messages whose delivery has changed.
    pub deliveries: Vec<Message>,
    /// Keys of packs.
    pub keys: Vec<KeyChange>,
    /// Rules by revision, so that old verdicts can be explained.
    pub definitions: Vec<(Revision, Value)>,
    /// A new set of rules.
    pub ruleset: Option<Ruleset>,
    /// Settings of the engine itself.
    pub settings: Vec<(String, Value)>,
}

impl Batch {
    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
            && self.sightings.is_empty()
            && self.requested.is_empty()
            && self.states.is_empty()
            && self.messages.is_empty()
            && self.deliveries.is_empty()
            && self.keys.is_empty()
            && self.definitions.is_empty()
            && self.ruleset.is_none()
            && self.settings.is_empty()
    }
}

/// What is remembered about a sender's key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sighting {
    /// The key, scoped by its source.
    #[serde(skip)]
    pub key: String,
    /// The event that it first made.
    pub event: EventId,
    /// When it was last seen.
    pub seen_at: DateTime<Utc>,
    /// How often it came again.
    #[serde(default)]
    pub repeats: u32,
    /// Hash of the first body, where another body under the same key is a mistake.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<u64>,
    /// Set where this is the first of its key: the commit is refused if the key was seen within this memory.
    #[serde(skip)]
    pub first: Option<std::time::Duration>,
}

/// A change of a pack's key.
#[derive(Clone, Debug)]
pub struct KeyChange {
    /// The pack that owns the key.
    pub pack: String,
    /// The key.
    pub name: String,
    /// The new value; `None` deletes.
    pub value: Option<Value>,
}

/// The rules that were in force together.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ruleset {
    /// Counts up from one.
    pub number: u64,
    /// Since when.
    pub since: DateTime<Utc>,
    /// Every rule and its revision.
    pub rules: Vec<(String, Revision)>,
}

/// A commit that is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Counts every commit, over restarts.
    pub sequence: u64,
}

/// Why a commit was not made. Nothing of the batch has been written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CommitError {
    /// Something the batch relied on has changed.
    #[error("`{what}` has changed meanwhile")]
    Conflict {
        /// The record.
        what: String,
    },
    /// The store cannot write.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why the store cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// It may work again later.
    #[error("the store cannot be used: {0}")]
    Unavailable(String),
    /// What was read makes no sense.
    #[error("the store is damaged: {0}")]
    Corrupt(String),
}

/// A page of a list, newest first.
#[derive(Clone, Debug)]
pub struct Page<I> {
    /// Only what is older than this.
    pub before: Option<I>,
    /// At most so many.
    pub limit: usize,
}

/// What happens between opening and closing is up to the implementation; after a crash every acknowledged commit is there, whole,
/// and none of a commit that was not acknowledged is there in part.
#[async_trait]
pub trait Store: Send + Sync {
    /// The only write. Returns once the batch is durable.
    async fn commit(&self, batch: &Batch) -> Result<Committed, CommitError>;

    /// Whether commits can be made, as far as is known without making one.
    async fn health(&self) -> Result<(), StoreError>;

    /// The number of the last commit.
    async fn sequence(&self) -> Result<u64, StoreError>;

    /// What is remembered about senders' keys at a time: for each key the sighting, if it is within its memory.
    async fn sightings(&self, keys: &[(String, std::time::Duration)], now: DateTime<Utc>) -> Result<Vec<Option<Sighting>>, StoreError>;

    /// One event.
    async fn event(&self, id: EventId) -> Result<Option<StoredEvent>, StoreError>;

    /// Events, newest first.
    async fn events(&self, page: Page<EventId>) -> Result<Vec<StoredEvent>, StoreError>;

    /// One execution.
    async fn execution(&self, id: ExecutionId) -> Result<Option<Execution>, StoreError>;

    /// Executions, newest first.
    async fn executions(&self, page: Page<ExecutionId>) -> Result<Vec<Execution>, StoreError>;

    /// Executions that have not ended, oldest first.
    async fn open_executions(&self) -> Result<Vec<Execution>, StoreError>;

    /// One message.
    async fn message(&self, id: MessageId) -> Result<Option<Message>, StoreError>;

    /// Messages, newest first.
    async fn messages(&self, page: Page<MessageId>) -> Result<Vec<Message>, StoreError>;

    /// Messages that wait for delivery, of one adapter or of all, oldest first.
    async fn waiting_messages(&self, adapter: Option<&str>, limit: usize) -> Result<Vec<Message>, StoreError>;

    /// A pack's key.
    async fn key(&self, pack: &str, name: &str) -> Result<Option<Value>, StoreError>;

    /// A rule by its revision.
    async fn definition(&self, revision: &Revision) -> Result<Option<Value>, StoreError>;

    /// A set of rules by its number, or the last one.
    async fn ruleset(&self, number: Option<u64>) -> Result<Option<Ruleset>, StoreError>;

    /// A setting of the engine itself.
    async fn setting(&self, name: &str) -> Result<Option<Value>, StoreError>;

    /// Removes what is older than the cut: at most `limit` records. Returns how many were removed; fewer than `limit` means done.
    async fn expire(&self, cut: Cut, limit: usize) -> Result<usize, StoreError>;
}

/// Up to when records are removed.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// Events received before.
    pub events: DateTime<Utc>,
    /// Executions requested before, once they have ended; and messages once delivered.
    pub executions: DateTime<Utc>,
    /// Senders' keys last seen before.
    pub sightings: DateTime<Utc>,
}
