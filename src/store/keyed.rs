//! The store over any ordered key space: encodes batches, checks what they rely on, and shares one sync among the commits
//! that wait at the same time.
//!
//! One thread per key space writes. It takes whatever is waiting, without a timer, and acknowledges after the sync.

use std::collections::{HashMap, HashSet};
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use super::record::{self, Kind};
use super::{Batch, CommitError, Committed, Cut, Page, Ruleset, Sighting, Store, StoreError};
use crate::model::event::StoredEvent;
use crate::model::execution::{Execution, Request, State};
use crate::model::hash::Revision;
use crate::model::ids::{EventId, ExecutionId, MessageId};
use crate::model::message::{Delivery, Message};
use crate::tasks;

/// Commits that may wait for the writing thread; more wait outside.
const WAITING_COMMITS: usize = 1_024;

/// The writing thread takes commits until their operations reach this number, then syncs.
const GROUP_OPERATIONS: usize = 512;

/// One change of a key space.
#[derive(Clone, Debug)]
pub enum Operation {
    /// Sets a key.
    Put(Vec<u8>, Vec<u8>),
    /// Removes a key.
    Delete(Vec<u8>),
}

/// A key and its value.
pub type Pair = (Vec<u8>, Vec<u8>);

/// An ordered key space with atomic writes.
pub trait Keyspace: Send + Sync + 'static {
    /// The value of a key.
    ///
    /// # Errors
    /// When it cannot be read.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// The first `limit` pairs between the bounds, from the low end or from the high end.
    ///
    /// # Errors
    /// When they cannot be read.
    fn scan(&self, from: Bound<&[u8]>, to: Bound<&[u8]>, descending: bool, limit: usize) -> Result<Vec<Pair>, StoreError>;

    /// Makes all the changes or none.
    ///
    /// # Errors
    /// When they cannot be made.
    fn write(&self, operations: Vec<Operation>) -> Result<(), StoreError>;

    /// Returns when everything written so far would survive a power cut.
    ///
    /// # Errors
    /// When that cannot be promised.
    fn sync(&self) -> Result<(), StoreError>;
}

/// What must hold for a commit to be made.
struct Expectation {
    condition: Condition,
    what: String,
}

enum Condition {
    /// The key is not there.
    Absent(Vec<u8>),
    /// The key's value begins so.
    Begins(Vec<u8>, Vec<u8>),
    /// None of the keys holds a sighting since then.
    Unseen(Vec<Vec<u8>>, DateTime<Utc>),
}

impl Expectation {
    fn absent(key: Vec<u8>, what: String) -> Self {
        Self { condition: Condition::Absent(key), what }
    }
}

struct Commit {
    operations: Vec<Operation>,
    expectations: Vec<Expectation>,
    reply: oneshot::Sender<Result<Committed, CommitError>>,
}

/// A store over a key space.
pub struct KeyedStore<K: Keyspace> {
    space: Arc<K>,
    broken: Arc<OnceLock<StoreError>>,
    commits: Option<mpsc::Sender<Commit>>,
    writer: Option<JoinHandle<()>>,
}

impl<K: Keyspace> KeyedStore<K> {
    /// Starts the writing thread.
    ///
    /// # Errors
    /// When the key space cannot be read or no thread can be started.
    pub fn new(space: K) -> Result<Self, StoreError> {
        let space = Arc::new(space);
        let sequence = match space.get(&record::key(Kind::Sequence, b""))? {
            Some(bytes) => record::decode(Kind::Sequence, &bytes)?,
            None => 0,
        };
        let (commits, waiting) = mpsc::channel(WAITING_COMMITS);
        let broken = Arc::new(OnceLock::new());
        let (thread_space, thread_broken) = (Arc::clone(&space), Arc::clone(&broken));
        let writer = tasks::spawn_thread("store-writer", 2 << 20, move || write_loop(&*thread_space, waiting, sequence, &thread_broken))
            .map_err(|error| StoreError::Unavailable(format!("no thread for the writer: {error}")))?;
        Ok(Self { space, broken, commits: Some(commits), writer: Some(writer) })
    }

    fn read<T: serde::de::DeserializeOwned>(&self, kind: Kind, rest: &[u8]) -> Result<Option<T>, StoreError> {
        self.space.get(&record::key(kind, rest))?.map(|bytes| record::decode(kind, &bytes)).transpose()
    }

    fn newest(&self, kind: Kind, before: Option<[u8; 16]>, limit: usize) -> Result<Vec<Pair>, StoreError> {
        let low = record::key(kind, b"");
        let high = record::key(kind, &before.unwrap_or([0xff; 16]));
        let upper = if before.is_some() { Bound::Excluded(high.as_slice()) } else { Bound::Included(high.as_slice()) };
        self.space.scan(Bound::Included(&low), upper, true, limit)
    }

    /// Adds what removes a record and all that belongs to it; answers whether it may go.
    fn remove(&self, kind: Kind, key: Vec<u8>, operations: &mut Vec<Operation>) -> Result<bool, StoreError> {
        let related = match kind {
            Kind::Request => Some((Kind::Open, Some(Kind::State))),
            Kind::Message => Some((Kind::Waiting, None)),
            _ => None,
        };
        if let Some((open, also)) = related {
            let id = record::id_bytes(&key)?;
            if self.space.get(&record::key(open, &id))?.is_some() {
                return Ok(false); // it has not ended; it is kept however old it is
            }
            operations.extend(also.map(|kind| Operation::Delete(record::key(kind, &id))));
        }
        operations.push(Operation::Delete(key));
        Ok(true)
    }

    /// The execution; nothing if it has been removed meanwhile.
    fn whole_execution(&self, id: [u8; 16], request: &[u8]) -> Result<Option<Execution>, StoreError> {
        let request: Request = record::decode(Kind::Request, request)?;
        // An end may be committed between the two reads, so what has ended is looked for last.
        let state: Option<State> = self.read(Kind::Open, &id)?.map_or_else(|| self.read(Kind::State, &id), |state| Ok(Some(state)))?;
        let Some(state) = state else {
            let removed = self.space.get(&record::key(Kind::Request, &id))?.is_none();
            let id = ExecutionId::from_bytes(id);
            return if removed { Ok(None) } else { Err(StoreError::Corrupt(format!("execution {id} has no state"))) };
        };
        Ok(Some(Execution { id: ExecutionId::from_bytes(id), request, state }))
    }
}

impl<K: Keyspace> Drop for KeyedStore<K> {
    fn drop(&mut self) {
        drop(self.commits.take());
        if self.broken.get().is_some() {
            // Closing a store that cannot write may wait for ever; what was acknowledged is on disk already.
            std::mem::forget(Arc::clone(&self.space));
        }
        if let Some(writer) = self.writer.take() {
            let _ = writer.join(); // a panic of the writer has been logged, and every waiting commit was told
        }
    }
}

fn write_loop<K: Keyspace>(space: &K, mut waiting: mpsc::Receiver<Commit>, mut sequence: u64, broken: &OnceLock<StoreError>) {
    while let Some(first) = waiting.blocking_recv() {
        let mut group = vec![first];
        let mut operations = group[0].operations.len();
        while operations < GROUP_OPERATIONS {
            let Ok(next) = waiting.try_recv() else { break };
            operations += next.operations.len();
            group.push(next);
        }
        if let Some(error) = broken.get() {
            for commit in group {
                let _ = commit.reply.send(Err(error.clone().into())); // nobody waits any more: nothing to tell
            }
            continue;
        }
        let written = catch_unwind(AssertUnwindSafe(|| write_group(space, group, &mut sequence)));
        let panicked = || Err(StoreError::Unavailable("the writer panicked; see the log".into()));
        if let Err(error) = written.unwrap_or_else(|_| panicked()) {
            tracing::error!("the store failed and takes no more writes until a restart: {error}");
            let _ = broken.set(error); // only this thread sets it, and only once
        }
    }
}

/// Writes a group of commits with one sync and answers each. An error means that it is unknown what is durable.
fn write_group<K: Keyspace>(space: &K, group: Vec<Commit>, sequence: &mut u64) -> Result<(), StoreError> {
    let last_that_looks = group.iter().rposition(|commit| !commit.expectations.is_empty()).unwrap_or(0);
    // What earlier commits of the group write, as later ones must see it; most groups are one commit and need none of it.
    let mut overlay: HashMap<Vec<u8>, Option<Vec<u8>>> = HashMap::new();
    let (mut all, mut replies) = (Vec::new(), Vec::with_capacity(group.len()));
    for (index, commit) in group.into_iter().enumerate() {
        match unmet(space, &overlay, &commit.expectations) {
            Ok(None) => {}
            Ok(Some(what)) => {
                let _ = commit.reply.send(Err(CommitError::Conflict { what }));
                continue;
            }
            Err(error) => {
                let _ = commit.reply.send(Err(error.into()));
                continue;
            }
        }
        if index < last_that_looks {
            for operation in &commit.operations {
                match operation {
                    Operation::Put(key, value) => {
                        overlay.insert(key.clone(), Some(value.clone()));
                    }
                    Operation::Delete(key) => {
                        overlay.insert(key.clone(), None);
                    }
                }
            }
        }
        all.extend(commit.operations);
        *sequence += 1;
        replies.push((commit.reply, *sequence));
    }
    if replies.is_empty() {
        return Ok(());
    }
    all.push(Operation::Put(record::key(Kind::Sequence, b""), record::encode(Kind::Sequence, 0, &*sequence)));
    let outcome = space.write(all).and_then(|()| space.sync());
    for (reply, sequence) in replies {
        let _ = reply.send(outcome.clone().map(|()| Committed { sequence }).map_err(CommitError::from));
    }
    outcome
}

fn unmet<K: Keyspace>(
    space: &K,
    overlay: &HashMap<Vec<u8>, Option<Vec<u8>>>,
    expectations: &[Expectation],
) -> Result<Option<String>, StoreError> {
    let current = |key: &Vec<u8>| match overlay.get(key) {
        Some(value) => Ok(value.clone()),
        None => space.get(key),
    };
    for expectation in expectations {
        let met = match &expectation.condition {
            Condition::Absent(key) => current(key)?.is_none(),
            Condition::Begins(key, begins) => current(key)?.is_some_and(|value| value.starts_with(begins)),
            Condition::Unseen(keys, since) => {
                let mut seen = false;
                for key in keys {
                    let sighting: Option<Sighting> = current(key)?.map(|bytes| record::decode(Kind::Sighting, &bytes)).transpose()?;
                    seen |= sighting.is_some_and(|sighting| sighting.seen_at > *since);
                }
                !seen
            }
        };
        if !met {
            return Ok(Some(expectation.what.clone()));
        }
    }
    Ok(None)
}

/// Sightings are kept in one range a day, so that old ones are removed as a whole.
const SIGHTING_DAY_S: i64 = 86_400;

/// For so long around midnight a sighting may stand in the range of the other day.
const MIDNIGHT: Duration = Duration::from_secs(60);

fn sighting_key(day: u32, key: &str) -> Vec<u8> {
    let digest = ring::digest::digest(&ring::digest::SHA256, key.as_bytes());
    let mut rest = day.to_be_bytes().to_vec();
    rest.extend_from_slice(&digest.as_ref()[..16]);
    record::key(Kind::Sighting, &rest)
}

fn day_of(at: DateTime<Utc>) -> u32 {
    u32::try_from(at.timestamp().div_euclid(SIGHTING_DAY_S)).unwrap_or(0)
}

fn before(at: DateTime<Utc>, span: Duration) -> DateTime<Utc> {
    chrono::Duration::from_std(span).ok().and_then(|span| at.checked_sub_signed(span)).unwrap_or(DateTime::UNIX_EPOCH)
}

/// The ranges that may hold a sighting since a time, the newest first. Shortly before midnight tomorrow's is one of them: the clock may
/// have gone back over midnight.
fn days(since: DateTime<Utc>, now: DateTime<Utc>) -> impl Iterator<Item = u32> {
    let soon = chrono::Duration::from_std(MIDNIGHT).ok().and_then(|span| now.checked_add_signed(span)).unwrap_or(now);
    (day_of(since)..=day_of(soon)).rev()
}

fn key_name(pack: &str, name: &str) -> Vec<u8> {
    format!("{pack}\0{name}").into_bytes()
}

fn encode(batch: &Batch) -> (Vec<Operation>, Vec<Expectation>) {
    let (mut operations, mut expectations) = (Vec::new(), Vec::new());
    let mut put = |kind, rest: &[u8], version, value: Vec<u8>| {
        operations.push(Operation::Put(record::key(kind, rest), record_bytes(kind, version, &value)));
    };
    pack_events(&batch.events, &mut put);
    for execution in &batch.requested {
        let id = execution.id.to_bytes();
        put(Kind::Request, &id, 0, json(&execution.request));
        put(state_kind(&execution.state), &id, execution.state.version, json(&execution.state));
        expectations.push(Expectation::absent(record::key(Kind::Request, &id), format!("execution {}", execution.id)));
    }
    for (revision, definition) in &batch.definitions {
        put(Kind::Definition, revision.0.as_bytes(), 0, json(definition));
    }
    if let Some(ruleset) = &batch.ruleset {
        put(Kind::Ruleset, &ruleset.number.to_be_bytes(), 0, json(ruleset));
        let key = record::key(Kind::Ruleset, &ruleset.number.to_be_bytes());
        expectations.push(Expectation::absent(key, format!("rule set {}", ruleset.number)));
    }
    for (name, value) in &batch.settings {
        put(Kind::Setting, name.as_bytes(), 0, json(value));
    }
    for message in &batch.messages {
        let id = message.id.to_bytes();
        put(Kind::Message, &id, 0, json(message));
        put(Kind::Waiting, &id, 0, b"null".to_vec());
        expectations.push(Expectation::absent(record::key(Kind::Message, &id), format!("message {}", message.id)));
    }
    for message in &batch.deliveries {
        put(Kind::Message, &message.id.to_bytes(), 0, json(message));
    }
    let mut changed = HashSet::new();
    for (id, state) in &batch.states {
        put(state_kind(state), &id.to_bytes(), state.version, json(state));
        if !changed.insert(id) {
            continue; // it changes twice in this commit: only the first change meets what is stored
        }
        let begins = record::envelope(Kind::Open, state.version.wrapping_sub(1)).to_vec();
        let condition = Condition::Begins(record::key(Kind::Open, &id.to_bytes()), begins);
        expectations.push(Expectation { condition, what: format!("execution {id}") });
    }
    for sighting in &batch.sightings {
        let key = sighting_key(day_of(sighting.seen_at), &sighting.key);
        if let Some(memory) = sighting.first {
            let since = before(sighting.seen_at, memory);
            // Who asks has looked at earlier days already, and nobody writes there any more, but for a moment after midnight.
            let moment_ago = before(sighting.seen_at, MIDNIGHT).max(since);
            let keys = (day_of(moment_ago)..=day_of(sighting.seen_at)).map(|day| sighting_key(day, &sighting.key)).collect();
            expectations.push(Expectation { condition: Condition::Unseen(keys, since), what: format!("dedup key {}", sighting.key) });
        }
        operations.push(Operation::Put(key, record::encode(Kind::Sighting, 0, sighting)));
    }
    for change in &batch.keys {
        let key = record::key(Kind::Key, &key_name(&change.pack, &change.name));
        operations.push(match &change.value {
            Some(value) => Operation::Put(key, record::encode(Kind::Key, 0, value)),
            None => Operation::Delete(key),
        });
    }
    for (id, _) in batch.states.iter().filter(|(_, state)| state.status.is_final()) {
        operations.push(Operation::Delete(record::key(Kind::Open, &id.to_bytes())));
    }
    for message in batch.deliveries.iter().filter(|message| message.delivery != Delivery::Waiting) {
        operations.push(Operation::Delete(record::key(Kind::Waiting, &message.id.to_bytes())));
    }
    (operations, expectations)
}

/// Where a state is kept: what is open lies apart, so that it is found at a start without reading all.
fn state_kind(state: &State) -> Kind {
    if state.status.is_final() { Kind::State } else { Kind::Open }
}

fn json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("model types serialize to JSON")
}

fn record_bytes(kind: Kind, version: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(record::ENVELOPE_BYTES + body.len());
    bytes.extend_from_slice(&record::envelope(kind, version));
    bytes.extend_from_slice(body);
    bytes
}

/// Writes neighbouring events into shared records: an array of a hundred costs a tenth of the operations.
fn pack_events(events: &[Arc<StoredEvent>], put: &mut impl FnMut(Kind, &[u8], u32, Vec<u8>)) {
    let mut first: Option<EventId> = None;
    let mut body: Vec<u8> = Vec::new();
    for event in events {
        let encoded = json(event.as_ref());
        if let Some(id) = first.filter(|_| body.len() + encoded.len() > record::PACKED_BYTES) {
            body.push(b']');
            put(Kind::Events, &id.to_bytes(), 0, std::mem::take(&mut body));
            first = None;
        }
        body.push(if first.is_none() { b'[' } else { b',' });
        first.get_or_insert(event.event.id);
        body.extend_from_slice(&encoded);
    }
    if let Some(id) = first {
        body.push(b']');
        put(Kind::Events, &id.to_bytes(), 0, body);
    }
}

#[async_trait]
impl<K: Keyspace> Store for KeyedStore<K> {
    async fn commit(&self, batch: &Batch) -> Result<Committed, CommitError> {
        let (operations, expectations) = encode(batch);
        let gone = || CommitError::Store(StoreError::Unavailable("the writer has ended".into()));
        let (reply, answer) = oneshot::channel();
        let commits = self.commits.as_ref().expect("the sender is taken only when the store is dropped");
        commits.send(Commit { operations, expectations, reply }).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    async fn health(&self) -> Result<(), StoreError> {
        self.broken.get().map_or(Ok(()), |error| Err(error.clone()))
    }

    async fn sequence(&self) -> Result<u64, StoreError> {
        Ok(self.read(Kind::Sequence, b"")?.unwrap_or(0))
    }

    async fn sightings(&self, keys: &[(String, Duration)], now: DateTime<Utc>) -> Result<Vec<Option<Sighting>>, StoreError> {
        let mut found = Vec::with_capacity(keys.len());
        for (key, memory) in keys {
            let since = before(now, *memory);
            let mut sighting = None;
            for day in days(since, now) {
                if let Some(bytes) = self.space.get(&sighting_key(day, key))? {
                    let read: Sighting = record::decode(Kind::Sighting, &bytes)?;
                    sighting = (read.seen_at > since).then(|| Sighting { key: key.clone(), first: None, ..read });
                    break;
                }
            }
            found.push(sighting);
        }
        Ok(found)
    }

    async fn event(&self, id: EventId) -> Result<Option<StoredEvent>, StoreError> {
        let (low, high) = (record::key(Kind::Events, b""), record::key(Kind::Events, &id.to_bytes()));
        let found = self.space.scan(Bound::Included(&low), Bound::Included(&high), true, 1)?;
        let Some((_, bytes)) = found.first() else { return Ok(None) };
        let events: Vec<StoredEvent> = record::decode(Kind::Events, bytes)?;
        Ok(events.into_iter().find(|event| event.event.id == id))
    }

    async fn events(&self, page: Page<EventId>) -> Result<Vec<StoredEvent>, StoreError> {
        let mut listed = Vec::new();
        let mut before = page.before;
        while listed.len() < page.limit {
            // A record may begin before the page and end in it, so the bound is compared again for each event.
            let pairs = self.newest(Kind::Events, before.map(EventId::to_bytes), 16)?;
            let Some((last, _)) = pairs.last() else { break };
            before = Some(EventId::from_bytes(record::id_bytes(last)?));
            for (_, bytes) in pairs {
                let events: Vec<StoredEvent> = record::decode(Kind::Events, &bytes)?;
                let in_page = |event: &StoredEvent| page.before.is_none_or(|bound| event.event.id < bound);
                listed.extend(events.into_iter().rev().filter(in_page));
            }
        }
        listed.truncate(page.limit);
        Ok(listed)
    }

    async fn execution(&self, id: ExecutionId) -> Result<Option<Execution>, StoreError> {
        let id = id.to_bytes();
        let request = self.space.get(&record::key(Kind::Request, &id))?;
        request.map_or(Ok(None), |request| self.whole_execution(id, &request))
    }

    async fn executions(&self, page: Page<ExecutionId>) -> Result<Vec<Execution>, StoreError> {
        let pairs = self.newest(Kind::Request, page.before.map(ExecutionId::to_bytes), page.limit)?;
        let read = pairs.iter().map(|(key, request)| self.whole_execution(record::id_bytes(key)?, request));
        read.filter_map(Result::transpose).collect()
    }

    async fn open_executions(&self) -> Result<Vec<Execution>, StoreError> {
        let (low, high) = (record::key(Kind::Open, b""), record::key(Kind::Open, &[0xff; 16]));
        let pairs = self.space.scan(Bound::Included(&low), Bound::Included(&high), false, usize::MAX)?;
        let mut open = Vec::with_capacity(pairs.len());
        for (key, _) in pairs {
            let id = record::id_bytes(&key)?;
            let request = self.space.get(&record::key(Kind::Request, &id))?;
            let missing = || StoreError::Corrupt(format!("open execution {} has no request", ExecutionId::from_bytes(id)));
            open.extend(self.whole_execution(id, &request.ok_or_else(missing)?)?);
        }
        Ok(open)
    }

    async fn message(&self, id: MessageId) -> Result<Option<Message>, StoreError> {
        self.read(Kind::Message, &id.to_bytes())
    }

    async fn messages(&self, page: Page<MessageId>) -> Result<Vec<Message>, StoreError> {
        let pairs = self.newest(Kind::Message, page.before.map(MessageId::to_bytes), page.limit)?;
        pairs.iter().map(|(_, bytes)| record::decode(Kind::Message, bytes)).collect()
    }

    async fn waiting_messages(&self, adapter: Option<&str>, limit: usize) -> Result<Vec<Message>, StoreError> {
        let (low, high) = (record::key(Kind::Waiting, b""), record::key(Kind::Waiting, &[0xff; 16]));
        let pairs = self.space.scan(Bound::Included(&low), Bound::Included(&high), false, usize::MAX)?;
        let mut waiting = Vec::new();
        for (key, _) in pairs {
            let message = self.read::<Message>(Kind::Message, &record::id_bytes(&key)?)?;
            waiting.extend(message.filter(|message| adapter.is_none_or(|adapter| message.destination.adapter == adapter)));
            if waiting.len() >= limit {
                break;
            }
        }
        Ok(waiting)
    }

    async fn key(&self, pack: &str, name: &str) -> Result<Option<Value>, StoreError> {
        self.read(Kind::Key, &key_name(pack, name))
    }

    async fn definition(&self, revision: &Revision) -> Result<Option<Value>, StoreError> {
        self.read(Kind::Definition, revision.0.as_bytes())
    }

    async fn ruleset(&self, number: Option<u64>) -> Result<Option<Ruleset>, StoreError> {
        if let Some(number) = number {
            return self.read(Kind::Ruleset, &number.to_be_bytes());
        }
        let (low, high) = (record::key(Kind::Ruleset, b""), record::key(Kind::Ruleset, &[0xff; 8]));
        let last = self.space.scan(Bound::Included(&low), Bound::Included(&high), true, 1)?;
        last.first().map(|(_, bytes)| record::decode(Kind::Ruleset, bytes)).transpose()
    }

    async fn setting(&self, name: &str) -> Result<Option<Value>, StoreError> {
        self.read(Kind::Setting, name.as_bytes())
    }

    async fn expire(&self, cut: Cut, limit: usize) -> Result<usize, StoreError> {
        let mut operations = Vec::new();
        let mut removed = 0;
        let time_prefix = |at: DateTime<Utc>| u64::try_from(at.timestamp_millis()).unwrap_or(0).to_be_bytes()[2..].to_vec();
        let ranges = [
            (Kind::Events, time_prefix(cut.events)),
            (Kind::Request, time_prefix(cut.executions)),
            (Kind::Message, time_prefix(cut.executions)),
            (Kind::Sighting, day_of(cut.sightings).to_be_bytes().to_vec()),
        ];
        for (kind, upto) in ranges {
            let (mut low, high) = (record::key(kind, b""), record::key(kind, &upto));
            // What has not ended is passed over, so the scan goes on behind it.
            while removed < limit {
                let pairs = self.space.scan(Bound::Excluded(&low), Bound::Excluded(&high), false, limit - removed)?;
                let Some((last, _)) = pairs.last() else { break };
                low.clone_from(last);
                for (key, _) in pairs {
                    removed += usize::from(self.remove(kind, key, &mut operations)?);
                }
            }
        }
        if removed > 0 {
            let gone = || StoreError::Unavailable("the writer has ended".into());
            let (reply, answer) = oneshot::channel();
            let commits = self.commits.as_ref().expect("the sender is taken only when the store is dropped");
            commits.send(Commit { operations, expectations: Vec::new(), reply }).await.map_err(|_| gone())?;
            match answer.await.map_err(|_| gone())? {
                Err(CommitError::Store(error)) => return Err(error),
                Err(CommitError::Conflict { .. }) | Ok(_) => {}
            }
        }
        Ok(removed)
    }
}
