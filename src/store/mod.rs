//! Port: everything that must outlive the process, written by one atomic commit.
//!
//! [`Store`] speaks in domain words, [`Maintenance`] in those of an operator. [`keyed`] carries both out over a [`space::Space`]: a folder
//! of small ordered databases. From the bottom:
//!
//! | module | what it adds |
//! |---|---|
//! | [`space`] | the port: databases with atomic writes and a sync; [`memory`] and [`sled`] are the two there are |
//! | [`checked`] | checksums, a tally that finds what is missing, large values in chunks |
//! | [`lanes`], [`manifest`] | which records live how long, and the list of databases |
//! | `segment`, `merge`, [`layers`] | one database of the list, scans over several, all read as one |
//! | [`writer`] | commits: conditions, one batch, one sync |
//! | [`upkeep`] | what is moved and dropped in the background |
//! | [`keyed`], [`encode`], [`record`] | the domain: batches to records and back |
//! | [`folder`], [`lock`] | files on disk |
//! | [`archive`], [`migrate`] | backups, and folders of older formats |
//!
//! `tests/it/contracts.rs` holds the contract that each implementation must keep.

pub mod archive;
pub mod checked;
pub mod encode;
pub mod folder;
pub mod keyed;
pub mod lanes;
pub mod layers;
pub mod lock;
pub mod manifest;
pub mod memory;
mod merge;
pub mod migrate;
pub mod record;
mod segment;
pub mod sled;
pub mod space;
pub mod upkeep;
pub mod writer;

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::model::datastore::KeyEntry;
use crate::model::event::{PendingEvent, StoredEvent};
use crate::model::execution::{Execution, State};
use crate::model::hash::Revision;
use crate::model::ids::{EventId, ExecutionId, MessageId};
use crate::model::message::Message;
use crate::model::window::{WindowChange, WindowKey, WindowState};

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
    /// Keys of the datastore; refused with [`CommitError::Conflict`] where one is not as it was.
    pub keys: Vec<KeyChange>,
    /// Rules by revision, so that old verdicts can be explained.
    pub definitions: Vec<(Revision, Value)>,
    /// A new set of rules.
    pub ruleset: Option<Ruleset>,
    /// Settings of the engine itself.
    pub settings: Vec<(String, Value)>,
    /// What windows and throttles remember from now on.
    pub windows: Vec<WindowChange>,
    /// Events of our own that are to be evaluated.
    pub pending: Vec<PendingEvent>,
    /// Those of them that are evaluated by this commit.
    pub taken: Vec<EventId>,
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
            && self.windows.is_empty()
            && self.pending.is_empty()
            && self.taken.is_empty()
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
    /// For how long the key is remembered after it was last seen.
    #[serde(skip)]
    pub memory: Duration,
    /// Whether this is the first of its key: the commit is refused if the key was seen within its memory.
    #[serde(skip)]
    pub first: bool,
}

/// A change of a key of the datastore.
#[derive(Clone, Debug)]
pub struct KeyChange {
    /// Whose key it is: `system`, a pack, `user:NAME`, or what the engine itself keeps so.
    pub scope: String,
    /// The key.
    pub name: String,
    /// What it relies on.
    pub was: Was,
    /// When what was there would have expired, or has.
    pub was_due: Option<DateTime<Utc>>,
    /// What it has from now on; `None` deletes.
    pub entry: Option<KeyEntry>,
}

/// What a key must have been for a change to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Was {
    /// Anything that has no time at which it expires.
    Anything,
    /// Not there.
    Absent,
    /// There, in this version.
    Version(u64),
}

impl KeyChange {
    /// A change that relies on what was read.
    #[must_use]
    pub fn of(scope: &str, name: &str, was: Option<&KeyEntry>, entry: Option<KeyEntry>) -> Self {
        let was_due = was.and_then(|was| was.expires_at);
        let was = was.map_or(Was::Absent, |was| Was::Version(was.version));
        Self { scope: scope.into(), name: name.into(), was, was_due, entry }
    }

    /// A change that is made whatever was there, of a key that has nothing but a value.
    #[must_use]
    pub fn plain(scope: &str, name: &str, value: Option<Value>) -> Self {
        Self { scope: scope.into(), name: name.into(), was: Was::Anything, was_due: None, entry: value.map(KeyEntry::plain) }
    }
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
    async fn sightings(&self, keys: &[(String, Duration)], now: DateTime<Utc>) -> Result<Vec<Option<Sighting>>, StoreError>;

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

    /// A key of the datastore, expired or not.
    async fn key(&self, scope: &str, name: &str) -> Result<Option<KeyEntry>, StoreError>;

    /// The keys of a scope whose names begin so, expired or not, in their order, after one of them.
    async fn keys(&self, scope: &str, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<(String, KeyEntry)>, StoreError>;

    /// Keys that have expired at a time and are still stored, the first to expire first: when, scope, name.
    async fn expired_keys(&self, now: DateTime<Utc>, limit: usize) -> Result<Vec<(DateTime<Utc>, String, String)>, StoreError>;

    /// What windows and throttles remember, in the order of the store, after one of them.
    async fn windows(&self, after: Option<&WindowKey>, limit: usize) -> Result<Vec<(WindowKey, WindowState)>, StoreError>;

    /// Events of our own that have not been evaluated yet, oldest first.
    async fn pending_events(&self, limit: usize) -> Result<Vec<PendingEvent>, StoreError>;

    /// A rule by its revision.
    async fn definition(&self, revision: &Revision) -> Result<Option<Value>, StoreError>;

    /// A set of rules by its number, or the last one.
    async fn ruleset(&self, number: Option<u64>) -> Result<Option<Ruleset>, StoreError>;

    /// A setting of the engine itself.
    async fn setting(&self, name: &str) -> Result<Option<Value>, StoreError>;

    /// Every setting of the engine whose name begins so.
    async fn settings(&self, prefix: &str) -> Result<Vec<(String, Value)>, StoreError>;

    /// Does a bounded step of what is done beside commits: removes what is older or more than what is kept. Call it about every second,
    /// again at once as long as there is more to do, and when [`Store::wants_tending`] returns.
    async fn tend(&self, now: DateTime<Utc>, keep: &Keep) -> Result<Tended, StoreError>;

    /// Returns when there is reason not to wait with [`Store::tend`].
    async fn wants_tending(&self);

    /// If a write has failed: reads everything anew from disk and goes on, when that is possible again. Answers whether it did. Commits that
    /// were refused because of the failure may have been made all the same.
    async fn revive(&self) -> Result<bool, StoreError>;

    /// What an operator may ask of it.
    fn maintenance(&self) -> Arc<dyn Maintenance>;
}

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Events with their verdicts.
    pub events: Limit,
    /// Executions, once they have ended; and messages once they do not wait any more.
    pub executions: Limit,
    /// What executions logged.
    pub outputs: Limit,
}

/// How much is kept of one kind: what exceeds one of the two is removed, a little later and in larger pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// For how long.
    pub age: Duration,
    /// How many of those written last: what an execution logged counts from its last change of state, which writes it again, and each counts
    /// that lies in a database of its own; so does what belongs to an execution that is gone. What was being moved when the process
    /// ended counts twice until it is moved.
    pub count: Option<u64>,
}

impl Default for Keep {
    fn default() -> Self {
        let days = |days: u64| Limit { age: Duration::from_secs(days * 86_400), count: None };
        Self { events: days(7), executions: days(30), outputs: days(7) }
    }
}

/// What a step has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tended {
    /// Records removed.
    pub removed: u64,
    /// Whether there is more to do at once.
    pub more: bool,
}

/// What an operator may ask of a store. Everything here takes its time and blocks the thread; commits go on meanwhile.
pub trait Maintenance: Send + Sync {
    /// How much there is of what.
    ///
    /// # Errors
    /// When that cannot be read.
    fn stat(&self) -> Result<Stat, StoreError>;

    /// Reads everything and tells what is damaged.
    ///
    /// # Errors
    /// When it cannot be read at all, or the progress is not wanted any more.
    fn check(&self, progress: &mut Progress<'_>) -> Result<Vec<Damage>, StoreError>;

    /// Gives back what space there is to give back.
    ///
    /// # Errors
    /// When it cannot be read or written.
    fn compact(&self, progress: &mut Progress<'_>) -> Result<(), StoreError>;

    /// Writes everything as of one commit.
    ///
    /// # Errors
    /// When it cannot be read, or the backup cannot be written.
    fn backup(&self, out: &mut dyn Write, progress: &mut Progress<'_>) -> Result<archive::Summary, StoreError>;
}

/// Is told how much of how much is done; answers whether to go on.
pub type Progress<'p> = dyn FnMut(u64, u64) -> bool + 'p;

/// Damage that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damage {
    /// The database.
    pub database: String,
    /// What it is for.
    pub lane: String,
    /// What is wrong.
    pub what: String,
}

impl Damage {
    /// Damage of a database; its name need not stand in the text as well.
    #[must_use]
    pub fn of(database: &str, lane: lanes::Lane, what: &str) -> Self {
        let what = what.strip_prefix(&format!("database {database}: ")).unwrap_or(what);
        Self { database: database.into(), lane: lane.name().into(), what: what.into() }
    }
}

/// How much there is of what.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Stat {
    /// The engine that keeps it.
    pub engine: String,
    /// The format of the folder.
    pub format: u32,
    /// The number of the last commit.
    pub sequence: u64,
    /// Why nothing can be written, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// Keys and values that can be read, in bytes.
    pub live_bytes: u64,
    /// What the databases take on disk, in bytes.
    pub disk_bytes: u64,
    /// What is free on that disk, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free_bytes: Option<u64>,
    /// By kind.
    pub kinds: Vec<KindStat>,
    /// By database, the newest first.
    pub databases: Vec<DatabaseStat>,
}

/// What there is of one kind.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KindStat {
    /// What it is.
    pub kind: String,
    /// How many.
    pub count: u64,
    /// Keys and values, in bytes.
    pub bytes: u64,
    /// When the oldest was made, where the kind has a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest: Option<DateTime<Utc>>,
    /// When the newest was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest: Option<DateTime<Utc>>,
    /// How much has come in a day, in bytes, between the oldest and the newest; absent where they are less than a minute apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_day: Option<u64>,
}

/// One database.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DatabaseStat {
    /// Its folder.
    pub name: String,
    /// What it is for.
    pub lane: String,
    /// Whether nothing is written there any more.
    pub sealed: bool,
    /// Keys and values, in bytes.
    pub live_bytes: u64,
    /// What it takes on disk, in bytes.
    pub disk_bytes: u64,
}
