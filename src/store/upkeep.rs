//! What is done beside the commits, a bounded step at a time: the next database is opened ahead, full ones are settled, and what is
//! too old is dropped.
//!
//! A full database is *settled*: what may still change, or is looked up by a key without a time, moves to its lane at once, and the rest
//! is never written to again. When the first of its kinds is too old the database *expires*: what is kept longer moves to its lane, and the
//! database is dropped as a whole.
//!
//! Every step can be cut short anywhere. What is moved is written to its lane and synced, then taken from where it is replaced, then the
//! manifest says so; until it does, the step is done again from its beginning and comes to the same.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, Mutex, PoisonError, TryLockError};

use chrono::{DateTime, Utc};

use super::checked::{Change, Checked, Entry, Stats};
use super::keyed::go_on;
use super::lanes::{self, LONG_MEMORY, Lane};
use super::layers::Layers;
use super::record::{self, Kind};
use super::segment::{Segment, View};
use super::{Keep, Limit, Progress, StoreError, Tended};

/// Changes written to a lane in one batch; about the best size for sled.
const TOGETHER: usize = 256;

/// Bytes written to a lane in one batch, from which on it is written.
const BYTES_TOGETHER: usize = 1 << 20;

/// Records read at a time.
const READ_TOGETHER: usize = 256;

/// Databases that wait to be settled at most: each is open. Where none can be, since one is damaged, commits stay in the newest.
const MOST_RECENT: usize = 8;

/// What is moved as soon as a database is full. Messages are only looked at: a newer version of one that waited replaces it.
const SETTLED: &[Kind] = &[
    Kind::Sighting,
    Kind::Message,
    Kind::Open,
    Kind::Waiting,
    Kind::Key,
    Kind::Due,
    Kind::Setting,
    Kind::Window,
    Kind::Pending,
    Kind::Definition,
    Kind::Ruleset,
    Kind::Sequence,
];

/// What is moved, where it is kept longer, when a database expires.
pub(super) const EXPIRED: &[Kind] = &[Kind::Events, Kind::Output, Kind::Request, Kind::State, Kind::Message];

/// The upkeep of a store's databases.
#[derive(Default)]
pub struct Upkeep {
    /// Held while the list of databases or the lanes change.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    moving: Option<Moving>,
    /// Databases that are damaged; they stay where they are, and others are not kept by them.
    damaged: BTreeSet<u64>,
}

impl Upkeep {
    /// Forgets what was half done, as after a start, and keeps everything as it is while `work` runs. Nothing if a step is being made
    /// right now.
    pub fn restarted<T>(&self, work: impl FnOnce() -> T) -> Option<T> {
        let mut state = match self.state.try_lock() {
            Ok(state) => state,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        *state = State::default();
        Some(work())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps every database but the newest as it is while `work` runs.
    pub fn paused<T>(&self, work: impl FnOnce() -> T) -> T {
        let _state = self.lock();
        work()
    }

    /// One step: reads and moves at most `budget` records, or a few more. Answers whether there is more to do at once.
    ///
    /// # Errors
    /// When a database cannot be read or written.
    pub fn step(&self, layers: &Layers, now: DateTime<Utc>, keep: &Keep, budget: usize) -> Result<Tended, StoreError> {
        // A backup or check keeps everything as it is; the step is made after it.
        let mut state = match self.state.try_lock() {
            Ok(state) => state,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Ok(Tended::default()),
        };
        open_ahead(layers)?;
        let (mut left, mut tended) = (budget, Tended::default());
        while left > 0 {
            left = left.saturating_sub(1);
            if state.moving.is_none() {
                state.moving = begin(layers, &state.damaged, now, keep);
            }
            let Some(moving) = &mut state.moving else {
                let dropped = drop_oldest(layers, now, keep)?;
                tended.removed += dropped.unwrap_or(0);
                match dropped {
                    Some(_) => continue,
                    None => return Ok(tended),
                }
            };
            match moving.go_on(layers, left, now) {
                Ok(Moved::Some(count)) => left = left.saturating_sub(count),
                Ok(Moved::All { removed }) => {
                    tended.removed += removed;
                    if let Some(moved) = state.moving.take() {
                        seal_full(layers, &moved, now, keep)?;
                    }
                }
                Err(error) => {
                    // It is begun again, unless it is damaged and nothing waits for it.
                    let stopped = state.moving.take().filter(|moving| !matches!(moving.stage, Stage::Settles));
                    if let (StoreError::Corrupt(_), Some(stopped)) = (&error, stopped) {
                        state.damaged.insert(stopped.source.number);
                    }
                    return Err(error);
                }
            }
        }
        Ok(Tended { more: true, ..tended })
    }

    /// Rewrites every database but the newest, and keeps what takes less room so. Tells how many of how many are done.
    ///
    /// # Errors
    /// When a database cannot be read or written; what has been rewritten until then stays so.
    pub fn compact(&self, layers: &Layers, progress: &mut Progress<'_>) -> Result<(), StoreError> {
        let mut state = self.lock();
        state.moving = None; // it is begun again, with the databases as they are then
        let all: Vec<(Lane, Arc<Segment>)> = {
            let view = layers.view();
            view.all().filter(|(lane, _)| *lane != Lane::Recent).map(|(lane, segment)| (lane, Arc::clone(segment))).collect()
        };
        let count = all.len() as u64;
        for (done, (lane, segment)) in (0..).zip(&all) {
            go_on(progress, done, count)?;
            rewrite(layers, *lane, segment)?;
        }
        go_on(progress, count, count)
    }
}

/// The next recent database is opened before it is needed, so that no commit waits for that.
pub(super) fn open_ahead(layers: &Layers) -> Result<(), StoreError> {
    if layers.next().is_some() || layers.view().recent.len() >= MOST_RECENT {
        return Ok(());
    }
    let next = layers.create(layers.free_number(), Lane::Recent)?;
    layers.write_manifest(&layers.view(), Some(&next))?;
    layers.set_next(next);
    Ok(())
}

/// The database whose turn it is to be settled, or to expire; the oldest first.
fn begin(layers: &Layers, damaged: &BTreeSet<u64>, now: DateTime<Utc>, keep: &Keep) -> Option<Moving> {
    let view = layers.view();
    let of = |source: &Arc<Segment>, stage| Moving {
        source: Arc::clone(source),
        stage,
        kind: 0,
        upto: None,
        pending: BTreeMap::new(),
        targets: BTreeMap::new(),
        taken: Vec::new(),
        removed: 0,
    };
    if let [_, .., full] = view.recent.as_slice() {
        return Some(of(full, Stage::Settles));
    }
    let too_old = |segment: &Arc<Segment>| -> Vec<Lane> {
        lanes::OF_AGED.iter().copied().filter(|lane| is_too_old(&view, segment, *lane, now, keep)).collect()
    };
    // Nearly always it is the oldest that is due; not where the clock was ahead for a while. The oldest goes first even so: a newer one
    // holds later versions of what it has.
    let aged: Vec<&Arc<Segment>> = view.lane(Lane::Aged).iter().filter(|segment| !damaged.contains(&segment.number)).collect();
    let oldest = *aged.last().filter(|_| aged.iter().any(|segment| !too_old(segment).is_empty()))?;
    Some(of(oldest, Stage::Expires { too_old: too_old(oldest) }))
}

/// Whether what a database holds for a lane is too old, or more than is kept.
fn is_too_old(view: &View, segment: &Segment, lane: Lane, now: DateTime<Utc>, keep: &Keep) -> bool {
    let Some(limit) = lane.limit(keep) else { return false };
    let stats = segment.stats();
    let own = stats.get(&(lane.counted() as u8)).map_or(0, |kind| kind.items);
    let spare = own > 0 && limit.count.is_some_and(|count| newer(view, segment, lane) >= count);
    spare || lanes::is_expired(&lane.part(&stats), segment.sealed_at(), limit.age, now)
}

/// How many there are of what a lane's limit counts in all databases that are newer than one.
fn newer(view: &View, than: &Segment, lane: Lane) -> u64 {
    let holders = view.recent.iter().chain(view.lane(Lane::Aged)).chain(view.lane(lane));
    holders.take_while(|segment| segment.number != than.number).map(|segment| segment.items(lane.counted() as u8)).sum()
}

#[derive(Clone, Debug)]
enum Stage {
    /// It is full: what may still change moves.
    Settles,
    /// Some of it is too old: what is kept longer moves, and it is dropped.
    Expires { too_old: Vec<Lane> },
}

enum Moved {
    Some(usize),
    All { removed: u64 },
}

/// A database that is being settled, or that expires.
struct Moving {
    source: Arc<Segment>,
    stage: Stage,
    /// Which of the stage's kinds is being read.
    kind: usize,
    /// The last key of it that was read.
    upto: Option<Vec<u8>>,
    pending: BTreeMap<Lane, Vec<Change>>,
    /// The lanes' databases that this is written to.
    targets: BTreeMap<Lane, Arc<Segment>>,
    /// What is taken from `lasting` once the rest is durable.
    taken: Vec<Vec<u8>>,
    removed: u64,
}

impl Moving {
    fn kinds(&self) -> &'static [Kind] {
        if matches!(self.stage, Stage::Settles) { SETTLED } else { EXPIRED }
    }

    /// Whether records of a kind need not be read.
    fn skips(&self, layers: &Layers, kind: Kind, lasting: &Checked) -> bool {
        match &self.stage {
            Stage::Settles => kind == Kind::Message && lasting.of_kind(Kind::Message as u8).is_none(),
            // What is open or waits is kept in any case.
            Stage::Expires { too_old } => match kind {
                Kind::Events => too_old.contains(&Lane::Events),
                // An earlier version in the lane must not come back.
                Kind::Output => too_old.contains(&Lane::Outputs) && layers.view().lane(Lane::Outputs).is_empty(),
                _ => false,
            },
        }
    }

    fn go_on(&mut self, layers: &Layers, limit: usize, now: DateTime<Utc>) -> Result<Moved, StoreError> {
        let source = layers.database(&self.source)?;
        let lasting = lasting(layers)?;
        let Some(kind) = self.kinds().get(self.kind).copied() else {
            drop((source, lasting));
            return self.finish(layers, now);
        };
        let (low, high) = ([kind as u8], [kind as u8 + 1]);
        let from = self.upto.as_ref().map_or(Bound::Included(&low[..]), |upto| Bound::Excluded(upto.as_slice()));
        let skipped = !self.source.may_have(kind as u8) || self.skips(layers, kind, &lasting);
        let read = if skipped { Vec::new() } else { source.scan(from, Bound::Excluded(&high), false, READ_TOGETHER.min(limit.max(1)))? };
        let count = read.len();
        if let Some((last, _)) = read.last() {
            self.upto = Some(last.clone());
        } else {
            (self.kind, self.upto) = (self.kind + 1, None);
        }
        for (key, entry) in read {
            self.route(layers, &source, &lasting, kind, key, entry)?;
        }
        let bytes: usize = self.pending.values().flatten().map(Change::bytes).sum();
        if self.pending.values().map(Vec::len).sum::<usize>() >= TOGETHER || bytes >= BYTES_TOGETHER {
            self.write(layers)?;
        }
        Ok(Moved::Some(count))
    }

    /// Decides where a record belongs from now on.
    fn route(
        &mut self,
        layers: &Layers,
        source: &Checked,
        lasting: &Checked,
        kind: Kind,
        key: Vec<u8>,
        entry: Entry,
    ) -> Result<(), StoreError> {
        let settles = matches!(self.stage, Stage::Settles);
        let Entry::Value(value) = entry else {
            if settles {
                self.put(Lane::Lasting, Change::Delete(key));
            }
            return Ok(());
        };
        let sibling = |kind: Kind| record::key(kind, &key[1..]);
        // A later version goes its own way, perhaps sooner; what it replaced must not come back then.
        if !settles && matches!(kind, Kind::Output | Kind::Message) && layers.get(&layers.view(), &key)?.as_ref() != Some(&value) {
            return Ok(());
        }
        match kind {
            Kind::Events => self.put(Lane::Events, Change::Put(key, value)),
            Kind::Output => {
                let dropped = matches!(&self.stage, Stage::Expires { too_old } if too_old.contains(&Lane::Outputs));
                if !dropped || layers.lane_has(Lane::Outputs, &key)? {
                    self.put(Lane::Outputs, Change::Put(key, value));
                }
            }
            Kind::Sighting => {
                let lane = if key.get(1) == Some(&LONG_MEMORY) { Lane::SeenLong } else { Lane::SeenDay };
                self.put(lane, Change::Put(key, value));
            }
            // A backup has it as one record, and perhaps its end once more.
            Kind::Request if record::has_state(&value) => self.end(key, &value, b""),
            Kind::Request => match ended(layers, source, &sibling(Kind::State))? {
                Some(state) => self.end(key, &value, &state),
                None => self.put(Lane::Lasting, Change::Put(key, value)),
            },
            Kind::State => {
                let request = sibling(Kind::Request);
                if let Some(Entry::Value(asked)) = lasting.get(&request)? {
                    self.taken.push(request.clone());
                    self.end(request, &asked, &value);
                }
            }
            Kind::Message if settles => {
                if lasting.get(&key)?.is_some() {
                    self.taken.push(key);
                }
            }
            Kind::Message => {
                if layers.get(&layers.view(), &sibling(Kind::Waiting))?.is_some() {
                    self.put(Lane::Lasting, Change::Put(key, value));
                } else if self.keeps_executions() {
                    self.put(Lane::Executions, Change::Put(key, value));
                }
            }
            Kind::Base => {}
            _ => self.put(Lane::Lasting, Change::Put(key, value)),
        }
        Ok(())
    }

    /// An execution that has ended is one record from now on.
    fn end(&mut self, key: Vec<u8>, request: &[u8], state: &[u8]) {
        if self.keeps_executions() {
            self.put(Lane::Executions, Change::Put(key, record::with_state(request, state)));
        } else {
            self.removed += 1;
        }
    }

    fn keeps_executions(&self) -> bool {
        !matches!(&self.stage, Stage::Expires { too_old } if too_old.contains(&Lane::Executions))
    }

    fn put(&mut self, lane: Lane, change: Change) {
        self.pending.entry(lane).or_default().push(change);
    }

    fn write(&mut self, layers: &Layers) -> Result<(), StoreError> {
        for (lane, changes) in std::mem::take(&mut self.pending) {
            let target = match self.targets.get(&lane) {
                Some(target) => Arc::clone(target),
                None => current(layers, lane)?,
            };
            layers.database(&target)?.write(&changes)?;
            self.targets.insert(lane, target);
        }
        Ok(())
    }

    /// Everything has been written: makes it durable, takes it from where it is replaced, and lets go of the source.
    fn finish(&mut self, layers: &Layers, now: DateTime<Utc>) -> Result<Moved, StoreError> {
        self.write(layers)?;
        for target in self.targets.values() {
            layers.database(target)?.sync()?;
        }
        if !self.taken.is_empty() {
            let lasting = lasting(layers)?;
            for keys in self.taken.chunks(TOGETHER) {
                let changes: Vec<Change> = keys.iter().cloned().map(Change::Delete).collect();
                let _alone = layers.moving.write().unwrap_or_else(PoisonError::into_inner);
                lasting.write(&changes)?;
            }
            lasting.sync()?;
        }
        let source = &self.source;
        match &self.stage {
            Stage::Settles => {
                layers.seal(source, now)?;
                let stays = EXPIRED.iter().any(|kind| source.may_have(*kind as u8));
                layers.flip(|view| {
                    view.recent.retain(|segment| segment.number != source.number);
                    if stays {
                        view.lanes.entry(Lane::Aged).or_default().insert(0, Arc::clone(source));
                    }
                })?;
                if !stays {
                    discard(layers, source)?;
                }
            }
            Stage::Expires { too_old } => {
                let gone = |lane: &Lane| if *lane == Lane::Executions { 0 } else { source.items(lane.counted() as u8) };
                self.removed += too_old.iter().map(gone).sum::<u64>();
                remove(layers, Lane::Aged, source)?;
            }
        }
        Ok(Moved::All { removed: self.removed })
    }
}

/// How an execution ended, if it has.
fn ended(layers: &Layers, source: &Checked, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
    match source.get(key)? {
        Some(Entry::Value(state)) => Ok(Some(state)),
        _ => layers.get(&layers.view(), key),
    }
}

fn lasting(layers: &Layers) -> Result<Arc<Checked>, StoreError> {
    let view = layers.view();
    let segment = view.lane(Lane::Lasting).first().ok_or_else(|| StoreError::Corrupt("there is no database of what lasts".into()))?;
    layers.database(segment)
}

/// The database of a lane that is written to; a new one, if the last is sealed.
fn current(layers: &Layers, lane: Lane) -> Result<Arc<Segment>, StoreError> {
    if let Some(last) = layers.view().lane(lane).first().filter(|segment| !segment.is_sealed()) {
        return Ok(Arc::clone(last));
    }
    let new = layers.create(layers.free_number(), lane)?;
    layers.flip(|view| view.lanes.entry(lane).or_default().insert(0, Arc::clone(&new)))?;
    Ok(new)
}

/// Seals what has been written to and is large or old enough, so that it can be dropped as a whole later.
fn seal_full(layers: &Layers, moved: &Moving, now: DateTime<Utc>, keep: &Keep) -> Result<(), StoreError> {
    for (lane, segment) in &moved.targets {
        let Some(limit) = lane.limit(keep) else { continue };
        let stats = segment.stats();
        let bytes: u64 = stats.values().map(|kind| kind.bytes).sum();
        if bytes >= layers.sizes.lane || is_share(&stats, *lane, limit, now) {
            layers.seal(segment, now)?;
            layers.flip(|_| {})?;
        }
    }
    Ok(())
}

/// Whether what is there is a good share of what is kept, so that more in one database could not be dropped in time.
pub(super) fn is_share(stats: &Stats, lane: Lane, limit: Limit, now: DateTime<Utc>) -> bool {
    let own = stats.get(&(lane.counted() as u8)).map_or(0, |kind| kind.items);
    let enough = limit.count.is_some_and(|count| own >= (count / lanes::SHARES).max(1));
    enough || lanes::is_old(&lane.part(stats), limit.age, now)
}

/// Drops the oldest database of a lane if it is too old, or more than is kept. Answers how many records that were; nothing if there is none.
fn drop_oldest(layers: &Layers, now: DateTime<Utc>, keep: &Keep) -> Result<Option<u64>, StoreError> {
    let view = layers.view();
    for lane in Lane::AGEING {
        // Only ever the oldest: a newer one may hold a later version of what it has.
        let oldest = view.lane(*lane).last().filter(|segment| is_too_old(&view, segment, *lane, now, keep));
        if let Some(oldest) = oldest {
            remove(layers, *lane, oldest)?;
            return Ok(Some(oldest.items(lane.counted() as u8)));
        }
    }
    Ok(None)
}

/// Takes a database from the list, and then away.
fn remove(layers: &Layers, lane: Lane, segment: &Arc<Segment>) -> Result<(), StoreError> {
    layers.flip(|view| {
        if let Some(segments) = view.lanes.get_mut(&lane) {
            segments.retain(|other| other.number != segment.number);
        }
    })?;
    discard(layers, segment)
}

/// Removes a database that no list names any more.
fn discard(layers: &Layers, segment: &Arc<Segment>) -> Result<(), StoreError> {
    layers.forget(segment);
    layers.space.remove(&segment.name())
}

/// Copies a database, in the order of its keys, and lets the copy take its place.
fn rewrite(layers: &Layers, lane: Lane, segment: &Arc<Segment>) -> Result<(), StoreError> {
    let source = layers.database(segment)?;
    let copy = layers.create(layers.free_number(), lane)?;
    let target = layers.database(&copy)?;
    for kind in Kind::ALL {
        let (mut from, high) = (Bound::Included(vec![*kind as u8]), [*kind as u8 + 1]);
        // What has been moved from a settled database need not be copied.
        while lane != Lane::Aged || EXPIRED.contains(kind) {
            let read = source.scan(from.as_ref().map(Vec::as_slice), Bound::Excluded(&high), false, READ_TOGETHER)?;
            let Some((last, _)) = read.last() else { break };
            from = Bound::Excluded(last.clone());
            let changes: Vec<Change> = read
                .into_iter()
                .map(|(key, entry)| match entry {
                    Entry::Value(value) => Change::Put(key, value),
                    Entry::Tombstone => Change::Bury(key),
                })
                .collect();
            target.write(&changes)?;
        }
    }
    target.sync()?;
    drop((source, target));
    // Only what gains an eighth is worth the change.
    if layers.space.bytes(&copy.name()) >= layers.space.bytes(&segment.name()) / 8 * 7 {
        return discard(layers, &copy);
    }
    if let Some(at) = segment.sealed_at() {
        layers.seal(&copy, at)?;
    }
    layers.flip(|view| {
        for place in view.lanes.get_mut(&lane).into_iter().flatten() {
            if place.number == segment.number {
                *place = Arc::clone(&copy);
            }
        }
    })?;
    discard(layers, segment)
}
