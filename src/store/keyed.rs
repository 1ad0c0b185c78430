//! The store over a space of databases: the domain's words carried out with records.

use std::io::Write;
use std::ops::Bound;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde_json::Value;
use tokio::sync::{Notify, mpsc, oneshot};

use super::archive::{self, Summary};
use super::checked::Change;
use super::lanes::{self, Lane};
use super::layers::{self, Layers, Sizes};
use super::record::{self, Kind};
use super::segment::View;
use super::space::{Operation, Pair, Space};
use super::upkeep::{self, Upkeep};
use super::writer::{Commit, Condition, Expectation, Health, Job, Writer};
use super::{
    Batch, CommitError, Committed, Damage, DatabaseStat, Keep, KindStat, Limit, Maintenance, Page, Progress, Ruleset, Sighting, Stat,
    Store, StoreError, Tended, encode, manifest,
};
use crate::model::datastore::KeyEntry;
use crate::model::event::{PendingEvent, StoredEvent};
use crate::model::execution::{Execution, LogLine, Request, State};
use crate::model::hash::Revision;
use crate::model::ids::{EventId, ExecutionId, MessageId};
use crate::model::message::Message;
use crate::model::window::{WindowKey, WindowState};
use crate::tasks::{self, Errands};

/// Commits that may wait for the writing thread; more wait outside.
const WAITING_COMMITS: usize = 1_024;

/// Records that one step of the upkeep reads at most.
const STEP: usize = 4_096;

/// Records written together when a store is filled.
const FILLED_TOGETHER: usize = 256;

/// A store over a space of databases.
pub struct KeyedStore {
    inner: Arc<Inner>,
    jobs: Option<mpsc::Sender<Job>>,
    writer: Option<JoinHandle<()>>,
    errands: Errands,
}

/// What reads need; outlives the store as long as something is read.
struct Inner {
    engine: &'static str,
    layers: Arc<Layers>,
    upkeep: Arc<Upkeep>,
    health: Arc<Health>,
    rotated: Arc<Notify>,
    jobs: mpsc::WeakSender<Job>,
}

impl KeyedStore {
    /// Opens the databases and starts the writing thread.
    ///
    /// # Errors
    /// When the space cannot be used, is damaged or of a newer format, or no thread can be started.
    pub fn new(space: impl Space) -> Result<Self, StoreError> {
        Self::with_sizes(space, Sizes::default())
    }

    /// The same, with databases of another size.
    ///
    /// # Errors
    /// As [`KeyedStore::new`].
    pub fn with_sizes(space: impl Space, sizes: Sizes) -> Result<Self, StoreError> {
        let engine = space.engine();
        let layers = Arc::new(Layers::open(Arc::new(space), sizes)?);
        let sequence = layers.sequence()?;
        let (jobs, waiting) = mpsc::channel(WAITING_COMMITS);
        let (upkeep, health, rotated) = (Arc::<Upkeep>::default(), Arc::<Health>::default(), Arc::new(Notify::new()));
        let writer = Writer {
            layers: Arc::clone(&layers),
            upkeep: Arc::clone(&upkeep),
            health: Arc::clone(&health),
            rotated: Arc::clone(&rotated),
            sequence,
            written: 0,
            base: None,
        };
        let writer = tasks::spawn_thread("store-writer", 2 << 20, move || writer.run(waiting))
            .map_err(|error| StoreError::Unavailable(format!("no thread for the writer: {error}")))?;
        let inner = Arc::new(Inner { engine, layers, upkeep, health, rotated, jobs: jobs.downgrade() });
        Ok(Self { inner, jobs: Some(jobs), writer: Some(writer), errands: Errands::default() })
    }

    /// Counts what is under way on the store's threads among these errands.
    #[must_use]
    pub fn counted_in(mut self, errands: Errands) -> Self {
        self.errands = errands;
        self
    }

    /// Fills an empty space with records, in the order of their kinds, and closes it: a backup, or what an older format held.
    ///
    /// # Errors
    /// When a record cannot be had or written.
    pub fn fill(space: impl Space, records: impl Iterator<Item = Result<Pair, StoreError>>) -> Result<(), StoreError> {
        let layers = Layers::open(Arc::new(space), Sizes::default())?;
        let upkeep = Upkeep::default();
        let mut changes: Vec<Change> = Vec::new();
        let mut records = records.peekable();
        while let Some(record) = records.next() {
            let (key, value) = record?;
            changes.push(Change::Put(key, value));
            if changes.len() < FILLED_TOGETHER && records.peek().is_some() {
                continue;
            }
            let newest = layers.database(&layers.view().recent[0])?;
            newest.write(&std::mem::take(&mut changes))?;
            if newest.live_bytes() >= layers.sizes.recent {
                newest.sync()?;
                upkeep::open_ahead(&layers)?;
                layers.rotate()?;
                drop(newest);
                // Nothing is dropped: what is too old goes when the store is used.
                while upkeep.step(&layers, DateTime::UNIX_EPOCH, &Keep::default(), STEP)?.more {}
            }
        }
        layers.database(&layers.view().recent[0])?.sync()?;
        layers.space.note_durable(layers.sequence()?);
        Ok(())
    }

    /// Reads everything in a space that nobody uses, each database by itself, and tells what is damaged. Where [`KeyedStore::new`] stops at
    /// the first damage, this goes on.
    ///
    /// # Errors
    /// When the list of databases cannot be read, or the progress is not wanted any more.
    pub fn examine(space: impl Space, progress: &mut Progress<'_>) -> Result<Vec<Damage>, StoreError> {
        let mut damage = layers::examine(&space, progress)?;
        if damage.is_empty() {
            // What only shows in all of them together.
            if let Err(StoreError::Corrupt(what)) = Layers::look(Arc::new(space), Sizes::default()) {
                damage.push(Damage { database: "all".into(), lane: "all".into(), what });
            }
        }
        Ok(damage)
    }

    /// Asks the writing thread for something.
    async fn request<T>(&self, job: impl FnOnce(oneshot::Sender<T>) -> Job) -> Result<T, StoreError> {
        let _errand = self.errands.begin();
        let gone = || StoreError::Unavailable("the writer has ended".into());
        let (reply, answer) = oneshot::channel();
        let jobs = self.jobs.as_ref().expect("the sender is taken only when the store is dropped");
        jobs.send(job(reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())
    }

    /// Reads that may have to open a database are not made on the threads that serve everyone.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let _errand = self.errands.begin();
        let inner = Arc::clone(&self.inner);
        tasks::blocking(move || work(&inner)).await.map_err(|error| StoreError::Unavailable(format!("a read was cut off: {error}")))?
    }
}

impl Drop for KeyedStore {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(writer) = self.writer.take() {
            let _ = writer.join(); // a panic of the writer has been logged, and every waiting commit was told
        }
    }
}

impl Inner {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.layers.get(&self.layers.view(), key)
    }

    fn read<T: serde::de::DeserializeOwned>(&self, kind: Kind, rest: &[u8]) -> Result<Option<T>, StoreError> {
        self.get(&record::key(kind, rest))?.map(|bytes| record::decode(kind, &bytes)).transpose()
    }

    fn newest(&self, kind: Kind, before: Option<[u8; 16]>, limit: usize) -> Result<Vec<Pair>, StoreError> {
        let low = record::key(kind, b"");
        let high = record::key(kind, &before.unwrap_or([0xff; 16]));
        let upper = if before.is_some() { Bound::Excluded(high.as_slice()) } else { Bound::Included(high.as_slice()) };
        self.layers.scan(&self.layers.view(), Bound::Included(&low), upper, true, limit)
    }

    /// Records of one kind, from the low end or from the high end.
    fn of_kind(&self, kind: Kind, descending: bool, limit: usize) -> Result<Vec<Pair>, StoreError> {
        let (low, high) = ([kind as u8], [kind as u8 + 1]);
        self.layers.scan(&self.layers.view(), Bound::Included(&low), Bound::Excluded(&high), descending, limit)
    }

    /// Records of one kind whose keys go on so, after one of them, in their order.
    fn after(&self, kind: Kind, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<Pair>, StoreError> {
        let low = record::key(kind, after.unwrap_or(prefix));
        let lower = if after.is_some() { Bound::Excluded(low.as_slice()) } else { Bound::Included(low.as_slice()) };
        let high = [&record::key(kind, prefix)[..], &[0xff; 32]].concat();
        self.layers.scan(&self.layers.view(), lower, Bound::Excluded(&high), false, limit)
    }

    /// The same, for keys that are text: what follows the prefix, and the value.
    fn named(&self, kind: Kind, prefix: &[u8]) -> Result<Vec<(String, Value)>, StoreError> {
        let pairs = self.after(kind, prefix, None, usize::MAX)?;
        let read = |(key, bytes): &Pair| {
            let name = String::from_utf8_lossy(&key[1 + prefix.len()..]).into_owned();
            Ok((name, record::decode(kind, bytes)?))
        };
        pairs.iter().map(read).collect()
    }

    /// The execution; nothing if it has been removed meanwhile.
    fn whole_execution(&self, id: [u8; 16], request: &[u8]) -> Result<Option<Execution>, StoreError> {
        let (request, mut state): (Request, Option<State>) = record::decode_request(request)?;
        // An end may be committed between the two reads, so what has ended is looked for last.
        if state.is_none() {
            state = self.read(Kind::Open, &id)?;
        }
        if state.is_none() {
            state = self.read(Kind::State, &id)?;
        }
        let Some(mut state) = state else {
            // It may have been moved, or removed, since its request was read.
            return match self.get(&record::key(Kind::Request, &id))? {
                Some(moved) if record::decode_request::<Request, State>(&moved)?.1.is_some() => self.whole_execution(id, &moved),
                Some(_) => Err(StoreError::Corrupt(format!("execution {} has no state", ExecutionId::from_bytes(id)))),
                None => Ok(None),
            };
        };
        if let Some(log) = self.read::<Vec<LogLine>>(Kind::Output, &id)? {
            state.log = log;
        }
        Ok(Some(Execution { id: ExecutionId::from_bytes(id), request, state }))
    }

    fn event(&self, id: EventId) -> Result<Option<StoredEvent>, StoreError> {
        let (low, high) = (record::key(Kind::Events, b""), record::key(Kind::Events, &id.to_bytes()));
        let found = self.layers.scan(&self.layers.view(), Bound::Included(&low), Bound::Included(&high), true, 1)?;
        let Some((_, bytes)) = found.first() else { return Ok(None) };
        let events: Vec<StoredEvent> = record::decode(Kind::Events, bytes)?;
        Ok(events.into_iter().find(|event| event.event.id == id))
    }

    fn events(&self, page: &Page<EventId>) -> Result<Vec<StoredEvent>, StoreError> {
        let mut listed = Vec::new();
        let mut before = page.before;
        while listed.len() < page.limit {
            // A record may begin before the page and end in it, so the bound is compared again for each event.
            let pairs = self.newest(Kind::Events, before.map(EventId::to_bytes), page.limit.min(16))?;
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

    fn execution(&self, id: ExecutionId) -> Result<Option<Execution>, StoreError> {
        let id = id.to_bytes();
        let request = self.get(&record::key(Kind::Request, &id))?;
        request.map_or(Ok(None), |request| self.whole_execution(id, &request))
    }

    fn executions(&self, page: &Page<ExecutionId>) -> Result<Vec<Execution>, StoreError> {
        let pairs = self.newest(Kind::Request, page.before.map(ExecutionId::to_bytes), page.limit)?;
        let read = pairs.iter().map(|(key, request)| self.whole_execution(record::id_bytes(key)?, request));
        read.filter_map(Result::transpose).collect()
    }

    fn open_executions(&self) -> Result<Vec<Execution>, StoreError> {
        let pairs = self.of_kind(Kind::Open, false, usize::MAX)?;
        let mut open = Vec::with_capacity(pairs.len());
        for (key, _) in pairs {
            let id = record::id_bytes(&key)?;
            let request = self.get(&record::key(Kind::Request, &id))?;
            let missing = || StoreError::Corrupt(format!("open execution {} has no request", ExecutionId::from_bytes(id)));
            let execution = self.whole_execution(id, &request.ok_or_else(missing)?)?;
            open.extend(execution.filter(|execution| !execution.state.status.is_final()));
        }
        Ok(open)
    }

    fn waiting_messages(&self, adapter: Option<&str>, limit: usize) -> Result<Vec<Message>, StoreError> {
        let mut waiting = Vec::new();
        for (key, _) in self.of_kind(Kind::Waiting, false, usize::MAX)? {
            let message = self.read::<Message>(Kind::Message, &record::id_bytes(&key)?)?;
            waiting.extend(message.filter(|message| adapter.is_none_or(|adapter| message.destination.adapter == adapter)));
            if waiting.len() >= limit {
                break;
            }
        }
        Ok(waiting)
    }

    /// A step of the upkeep. A database that cannot be written any more closes the store, as a failed commit does.
    fn step(&self, now: DateTime<Utc>, keep: &Keep) -> Result<Tended, StoreError> {
        if self.health.failure().is_some() {
            return Ok(Tended::default());
        }
        let done = self.upkeep.step(&self.layers, now, keep, STEP);
        if let Err(error @ StoreError::Unavailable(_)) = &done {
            self.health.fail(error);
        }
        done
    }

    /// Whether the newest database has been written to for so long, or holds so much, that what is in it could not be dropped in time.
    fn is_due(&self, now: DateTime<Utc>, keep: &Keep) -> bool {
        let Some(newest) = self.layers.view().recent.first().cloned() else { return false };
        let stats = newest.stats();
        let since = newest.since(stats.is_empty(), now);
        let is_due = |lane: &Lane| {
            let Some(limit) = lane.limit(keep).filter(|_| !lane.part(&stats).is_empty()) else { return false };
            upkeep::is_share(&stats, *lane, limit, now) || lanes::is_long_ago(since, limit.age, now)
        };
        lanes::OF_AGED.iter().any(is_due)
    }

    /// What removes the rules that nothing refers to any more: no set in force when the oldest record that is left was made.
    #[allow(clippy::type_complexity, reason = "a commit's two parts")]
    fn unused_rules(&self) -> Result<Option<(Vec<Operation>, Vec<Expectation>)>, StoreError> {
        let Some(oldest) = self.oldest_that_refers()? else { return Ok(None) };
        let sets = self.of_kind(Kind::Ruleset, false, usize::MAX)?;
        let sets: Vec<Ruleset> = sets.iter().map(|(_, bytes)| record::decode(Kind::Ruleset, bytes)).collect::<Result<_, _>>()?;
        let unused = sets.windows(2).take_while(|pair| pair[1].since < oldest).count();
        let (unused, used) = sets.split_at(unused);
        let (Some(_), Some(last)) = (unused.first(), used.last()) else { return Ok(None) };
        let needed: std::collections::HashSet<&Revision> = used.iter().flat_map(|set| &set.rules).map(|(_, revision)| revision).collect();
        let mut operations: Vec<Operation> =
            unused.iter().map(|set| Operation::Delete(record::key(Kind::Ruleset, &set.number.to_be_bytes()))).collect();
        let mut gone: Vec<&Revision> = unused.iter().flat_map(|set| &set.rules).map(|(_, revision)| revision).collect();
        gone.retain(|revision| !needed.contains(revision));
        gone.sort_by(|a, b| a.0.cmp(&b.0));
        gone.dedup();
        operations.extend(gone.into_iter().map(|revision| Operation::Delete(record::key(Kind::Definition, revision.0.as_bytes()))));
        // A newer set may name one of them again.
        let next = record::key(Kind::Ruleset, &(last.number + 1).to_be_bytes());
        Ok(Some((operations, vec![Expectation { condition: Condition::Absent(next), what: "the set of rules".into() }])))
    }

    /// When the oldest event or execution that is left was made; rules in force since then may be asked for.
    fn oldest_that_refers(&self) -> Result<Option<DateTime<Utc>>, StoreError> {
        let view = self.layers.view();
        let ageing = view.all().filter(|(lane, _)| *lane != Lane::Lasting).filter_map(|(_, segment)| {
            let stats = segment.stats();
            [Lane::Events, Lane::Executions].iter().filter_map(|lane| lanes::oldest(&lane.part(&stats))).min()
        });
        let ageing = ageing.min();
        // What is open may be older than all of that.
        let open = self.of_kind(Kind::Open, false, 1)?;
        let open = open.first().map(|(key, _)| record::id_bytes(key).map(|id| EventId::from_bytes(id).timestamp_ms())).transpose()?;
        let open = open.and_then(|ms| DateTime::from_timestamp_millis(i64::try_from(ms).ok()?));
        Ok([ageing, open].into_iter().flatten().min())
    }

    /// Runs something over all databases but the newest, which takes the commits meanwhile, while nothing is moved or dropped.
    fn settled<T>(&self, work: impl FnOnce(&View) -> Result<T, StoreError>) -> Result<T, StoreError> {
        if let Some(failure) = self.health.failure() {
            return Err(failure);
        }
        self.upkeep.paused(|| {
            upkeep::open_ahead(&self.layers)?;
            let gone = || StoreError::Unavailable("the writer has ended".into());
            let (reply, answer) = oneshot::channel();
            let jobs = self.jobs.upgrade().ok_or_else(gone)?;
            jobs.blocking_send(Job::Rotate(reply)).map_err(|_| gone())?;
            drop(jobs);
            answer.blocking_recv().map_err(|_| gone())??;
            let mut view = View::clone(&self.layers.view());
            view.recent.remove(0);
            work(&view)
        })
    }
}

impl Maintenance for Inner {
    fn stat(&self) -> Result<Stat, StoreError> {
        let view = self.layers.view();
        let mut kinds: std::collections::BTreeMap<u8, KindStat> = std::collections::BTreeMap::new();
        let mut databases = Vec::new();
        for (lane, segment) in view.all() {
            let mut live_bytes = 0;
            for (kind, stats) in segment.stats() {
                // What has been moved from a settled database is counted where it is now.
                let Some(name) = Kind::of(&[kind]).filter(|kind| lane != Lane::Aged || upkeep::EXPIRED.contains(kind)) else { continue };
                live_bytes += stats.bytes;
                let of_kind = std::collections::BTreeMap::from([(kind, stats.clone())]);
                let (oldest, newest) = (lanes::oldest(&of_kind), lanes::newest(&of_kind));
                let sum = kinds.entry(kind).or_insert_with(|| KindStat {
                    kind: name.title().into(),
                    count: 0,
                    bytes: 0,
                    oldest: None,
                    newest: None,
                    bytes_per_day: None,
                });
                sum.count += stats.items;
                sum.bytes += stats.bytes;
                sum.oldest = [sum.oldest, oldest].into_iter().flatten().min();
                sum.newest = sum.newest.max(newest);
            }
            databases.push(DatabaseStat {
                name: segment.name(),
                lane: lane.name().into(),
                sealed: segment.is_sealed(),
                live_bytes,
                disk_bytes: self.layers.space.bytes(&segment.name()),
            });
        }
        for kind in kinds.values_mut() {
            let span = kind.oldest.zip(kind.newest).map_or(0, |(oldest, newest)| (newest - oldest).num_seconds());
            let per_day = |span: u64| u128::from(kind.bytes) * 86_400 / u128::from(span);
            kind.bytes_per_day = u64::try_from(span).ok().filter(|span| *span >= 60).and_then(|span| u64::try_from(per_day(span)).ok());
        }
        Ok(Stat {
            engine: self.engine.into(),
            format: manifest::FORMAT,
            sequence: self.layers.sequence()?,
            failure: self.health.failure().map(|error| error.to_string()),
            live_bytes: databases.iter().map(|database| database.live_bytes).sum(),
            disk_bytes: databases.iter().map(|database| database.disk_bytes).sum(),
            free_bytes: self.layers.space.free_bytes(),
            kinds: kinds.into_values().filter(|kind| kind.count > 0).collect(),
            databases,
        })
    }

    fn check(&self, progress: &mut Progress<'_>) -> Result<Vec<Damage>, StoreError> {
        self.settled(|view| {
            let count = view.all().count() as u64;
            let mut damage = Vec::new();
            for (done, (lane, segment)) in (0..).zip(view.all()) {
                go_on(progress, done, count)?;
                let mut found = |what: String| damage.push(Damage::of(&segment.name(), lane, &what));
                match self.layers.database(segment).and_then(|database| database.check(&mut found)) {
                    Ok(()) => {}
                    Err(StoreError::Corrupt(what) | StoreError::Unavailable(what)) => found(what),
                }
            }
            go_on(progress, count, count)?;
            Ok(damage)
        })
    }

    fn compact(&self, progress: &mut Progress<'_>) -> Result<(), StoreError> {
        if let Some(failure) = self.health.failure() {
            return Err(failure);
        }
        // What is full is settled first, and nothing is removed: that needs the time.
        let forever = Limit { age: Duration::MAX, count: None };
        let keep = Keep { events: forever, executions: forever, outputs: forever };
        self.settled(|_| Ok(()))?;
        while self.upkeep.step(&self.layers, DateTime::UNIX_EPOCH, &keep, STEP)?.more {}
        self.upkeep.compact(&self.layers, progress)
    }

    fn backup(&self, out: &mut dyn Write, progress: &mut Progress<'_>) -> Result<Summary, StoreError> {
        // A store that fails must be able to start anew, so nobody's slow backup may be in its way.
        let mut progress = |done, of| self.health.failure().is_none() && progress(done, of);
        self.settled(|view| archive::write(&self.layers, view, out, &mut progress))
    }
}

/// Tells how far it is.
pub(super) fn go_on(progress: &mut Progress<'_>, done: u64, of: u64) -> Result<(), StoreError> {
    if progress(done, of) { Ok(()) } else { Err(StoreError::Unavailable("stopped, as asked".into())) }
}

#[async_trait]
impl Store for KeyedStore {
    async fn commit(&self, batch: &Batch) -> Result<Committed, CommitError> {
        if let Some(refusal) = self.inner.health.refusal().filter(|_| !batch.events.is_empty()) {
            return Err(refusal.into());
        }
        let (operations, expectations) = encode::encode(batch);
        self.request(|reply| Job::Commit(Commit { operations, expectations, reply })).await?
    }

    async fn health(&self) -> Result<(), StoreError> {
        self.inner.health.measure(&self.inner.layers);
        self.inner.health.refusal().map_or(Ok(()), Err)
    }

    async fn sequence(&self) -> Result<u64, StoreError> {
        self.inner.layers.sequence()
    }

    async fn sightings(&self, keys: &[(String, Duration)], now: DateTime<Utc>) -> Result<Vec<Option<Sighting>>, StoreError> {
        let mut found = Vec::with_capacity(keys.len());
        for (key, memory) in keys {
            let since = encode::before(now, *memory);
            let mut latest: Option<Sighting> = None;
            for place in encode::sighting_keys(key, since, now) {
                let Some(bytes) = self.inner.get(&place)? else { continue };
                let read: Sighting = record::decode(Kind::Sighting, &bytes)?;
                if read.seen_at > latest.as_ref().map_or(since, |latest| latest.seen_at) {
                    latest = Some(Sighting { key: key.clone(), memory: *memory, ..read });
                }
            }
            found.push(latest);
        }
        Ok(found)
    }

    async fn event(&self, id: EventId) -> Result<Option<StoredEvent>, StoreError> {
        self.blocking(move |inner| inner.event(id)).await
    }

    async fn events(&self, page: Page<EventId>) -> Result<Vec<StoredEvent>, StoreError> {
        self.blocking(move |inner| inner.events(&page)).await
    }

    async fn execution(&self, id: ExecutionId) -> Result<Option<Execution>, StoreError> {
        self.blocking(move |inner| inner.execution(id)).await
    }

    async fn executions(&self, page: Page<ExecutionId>) -> Result<Vec<Execution>, StoreError> {
        self.blocking(move |inner| inner.executions(&page)).await
    }

    async fn open_executions(&self) -> Result<Vec<Execution>, StoreError> {
        self.blocking(Inner::open_executions).await
    }

    async fn message(&self, id: MessageId) -> Result<Option<Message>, StoreError> {
        self.blocking(move |inner| inner.read(Kind::Message, &id.to_bytes())).await
    }

    async fn messages(&self, page: Page<MessageId>) -> Result<Vec<Message>, StoreError> {
        self.blocking(move |inner| {
            let pairs = inner.newest(Kind::Message, page.before.map(MessageId::to_bytes), page.limit)?;
            pairs.iter().map(|(_, bytes)| record::decode(Kind::Message, bytes)).collect()
        })
        .await
    }

    async fn waiting_messages(&self, adapter: Option<&str>, limit: usize) -> Result<Vec<Message>, StoreError> {
        let adapter = adapter.map(str::to_string);
        self.blocking(move |inner| inner.waiting_messages(adapter.as_deref(), limit)).await
    }

    async fn key(&self, scope: &str, name: &str) -> Result<Option<KeyEntry>, StoreError> {
        self.inner.get(&record::key(Kind::Key, &encode::key_name(scope, name)))?.map(|bytes| record::decode_entry(&bytes)).transpose()
    }

    async fn keys(&self, scope: &str, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<(String, KeyEntry)>, StoreError> {
        let (scope_bytes, prefix) = (scope.len() + 1, encode::key_name(scope, prefix));
        // What comes before all that begins so is no place to go on from.
        let after = after.map(|after| encode::key_name(scope, after)).filter(|after| *after >= prefix);
        self.blocking(move |inner| {
            let pairs = inner.after(Kind::Key, &prefix, after.as_deref(), limit)?;
            let name = |key: &[u8]| String::from_utf8_lossy(&key[1 + scope_bytes..]).into_owned();
            pairs.iter().map(|(key, bytes)| Ok((name(key), record::decode_entry(bytes)?))).collect()
        })
        .await
    }

    async fn expired_keys(&self, now: DateTime<Utc>, limit: usize) -> Result<Vec<(DateTime<Utc>, String, String)>, StoreError> {
        self.blocking(move |inner| {
            let low = [Kind::Due as u8];
            let high = [&record::key(Kind::Due, &encode::due_time(now))[..], &[0xff]].concat();
            let pairs = inner.layers.scan(&inner.layers.view(), Bound::Included(&low), Bound::Included(&high), false, limit)?;
            Ok(pairs.iter().filter_map(|(key, _)| encode::of_due_key(key)).collect())
        })
        .await
    }

    async fn windows(&self, after: Option<&WindowKey>, limit: usize) -> Result<Vec<(WindowKey, WindowState)>, StoreError> {
        let after = after.map(encode::window_key);
        self.blocking(move |inner| {
            let pairs = inner.after(Kind::Window, b"", after.as_ref().map(|after| &after[..]), limit)?;
            pairs.iter().map(|(_, bytes)| record::decode(Kind::Window, bytes)).collect()
        })
        .await
    }

    async fn pending_events(&self, limit: usize) -> Result<Vec<PendingEvent>, StoreError> {
        self.blocking(move |inner| {
            let pairs = inner.of_kind(Kind::Pending, false, limit)?;
            pairs.iter().map(|(_, bytes)| record::decode(Kind::Pending, bytes)).collect()
        })
        .await
    }

    async fn definition(&self, revision: &Revision) -> Result<Option<Value>, StoreError> {
        self.inner.read(Kind::Definition, revision.0.as_bytes())
    }

    async fn ruleset(&self, number: Option<u64>) -> Result<Option<Ruleset>, StoreError> {
        if let Some(number) = number {
            return self.inner.read(Kind::Ruleset, &number.to_be_bytes());
        }
        let last = self.inner.of_kind(Kind::Ruleset, true, 1)?;
        last.first().map(|(_, bytes)| record::decode(Kind::Ruleset, bytes)).transpose()
    }

    async fn setting(&self, name: &str) -> Result<Option<Value>, StoreError> {
        self.inner.read(Kind::Setting, name.as_bytes())
    }

    async fn settings(&self, prefix: &str) -> Result<Vec<(String, Value)>, StoreError> {
        let prefix = prefix.as_bytes().to_vec();
        self.blocking(move |inner| {
            let of_prefix = inner.named(Kind::Setting, &prefix)?;
            Ok(of_prefix.into_iter().map(|(rest, value)| (format!("{}{rest}", String::from_utf8_lossy(&prefix)), value)).collect())
        })
        .await
    }

    async fn tend(&self, now: DateTime<Utc>, keep: &Keep) -> Result<Tended, StoreError> {
        let keep = *keep;
        let mut tended = self.blocking(move |inner| inner.step(now, &keep)).await?;
        if self.inner.is_due(now, &keep) {
            tended.more |= self.request(Job::Rotate).await??;
        }
        if tended.removed > 0 {
            let found = self.blocking(Inner::unused_rules).await?;
            if let Some((operations, expectations)) = found {
                // A new set of rules meanwhile: it is tried again when something is removed the next time.
                let _ = self.request(|reply| Job::Commit(Commit { operations, expectations, reply })).await?;
            }
        }
        Ok(tended)
    }

    async fn wants_tending(&self) {
        self.inner.rotated.notified().await;
    }

    async fn revive(&self) -> Result<bool, StoreError> {
        if self.inner.health.failure().is_none() {
            return Ok(false);
        }
        self.request(Job::Revive).await?
    }

    fn maintenance(&self) -> Arc<dyn Maintenance> {
        Arc::clone(&self.inner) as _
    }
}
