//! What is done beside the commits, a bounded step at a time: the next database is opened ahead, full ones are emptied of what
//! lives longer than their events, and those that are too old are dropped.
//!
//! Every step can be cut short anywhere. What is moved is written to its lane and synced, then taken from where it is replaced,
//! then the manifest says so; until it does, the step is done again from its beginning and comes to the same.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, PoisonError, TryLockError};

use chrono::{DateTime, Utc};

use super::checked::{Change, Checked, Entry, Stats};
use super::lanes::{self, LONG_MEMORY, Lane};
use super::layers::{Layers, Segment, View};
use super::record::{self, Kind};
use super::keyed::go_on;
use super::{Keep, Progress, StoreError, Tended};

/// Changes written to a lane in one batch; about the best size for sled.
const TOGETHER: usize = 256;

/// Records read from a full database at a time.
const READ_TOGETHER: usize = 256;

/// The upkeep of a store's databases.
#[derive(Default)]
pub struct Upkeep {
    /// Held while the list of databases or the lanes change.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    moving: Option<Moving>,
}

/// A full database that is being emptied.
struct Moving {
    source: Arc<Segment>,
    /// The last key that was read.
    upto: Vec<u8>,
    pending: BTreeMap<Lane, Vec<Change>>,
    /// The lane's database that this is written to.
    targets: BTreeMap<Lane, Arc<Segment>>,
    /// What is taken from `lasting` once the rest is durable.
    taken: Vec<Vec<u8>>,
}

impl Upkeep {
    /// Forgets what was half done, as after a start, and keeps everything as it is while `work` runs.
    /// Nothing if a step is being made right now.
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

    /// One step: reads and moves at most `budget` records. Answers whether there is more to do at once.
    ///
    /// # Errors
    /// When a database cannot be read or written.
    pub fn step(&self, layers: &Layers, now: DateTime<Utc>, keep: &Keep, budget: usize) -> Result<Tended, StoreError> {
        let mut state = self.lock();
        open_ahead(layers)?;
        let removed = drop_expired(layers, &state, now, keep)?;
        let (mut left, mut emptied) = (budget, false);
        while left > 0 && (state.moving.is_some() || layers.view().recent.len() > 1) {
            if state.moving.is_none() {
                let source = layers.view().recent.last().cloned();
                let Some(source) = source else { break };
                state.moving = Some(Moving {
                    source,
                    upto: Vec::new(),
                    pending: BTreeMap::new(),
                    targets: BTreeMap::new(),
                    taken: Vec::new(),
                });
            }
            let Some(moving) = &mut state.moving else { break };
            match moving.go_on(layers, left) {
                Ok(Moved::Some(count)) => left = left.saturating_sub(count.max(1)),
                Ok(Moved::All) => {
                    emptied = true; // what is in a lane now may be too old
                    if let Some(moved) = state.moving.take() {
                        seal_full(layers, &moved, now, keep)?;
                    }
                }
                Err(error) => {
                    state.moving = None; // it is begun again
                    return Err(error);
                }
            }
        }
        let more = emptied || state.moving.is_some() || layers.view().recent.len() > 1;
        Ok(Tended { removed, more })
    }

    /// Rewrites every database but the newest, so that each takes the least room. Tells how many of how many are done.
    ///
    /// # Errors
    /// When a database cannot be read or written; what has been rewritten until then stays so.
    pub fn compact(&self, layers: &Layers, progress: &mut Progress<'_>) -> Result<(), StoreError> {
        let _state = self.lock();
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
    if layers.next().is_some() {
        return Ok(());
    }
    let next = layers.create(layers.free_number())?;
    layers.write_manifest(&layers.view(), Some(&next))?;
    layers.set_next(next);
    Ok(())
}

enum Moved {
    Some(usize),
    All,
}

impl Moving {
    fn go_on(&mut self, layers: &Layers, limit: usize) -> Result<Moved, StoreError> {
        let source = layers.database(&self.source)?;
        let lasting = lasting(layers)?;
        let from = if self.upto.is_empty() { Bound::Included(&[0x02][..]) } else { Bound::Excluded(self.upto.as_slice()) };
        let read = source.scan(from, Bound::Excluded(&[0xff]), false, READ_TOGETHER.min(limit.max(1)))?;
        let Some((last, _)) = read.last() else {
            drop(source);
            self.finish(layers)?;
            return Ok(Moved::All);
        };
        let count = read.len();
        self.upto.clone_from(last);
        for (key, entry) in read {
            if Kind::of(&key) == Some(Kind::Events) {
                self.upto = vec![Kind::Events as u8 + 1]; // they stay: on behind them
                break;
            }
            self.route(&source, &lasting, key, entry)?;
        }
        if self.pending.values().map(Vec::len).sum::<usize>() >= TOGETHER {
            self.write(layers)?;
        }
        Ok(Moved::Some(count))
    }

    /// Decides where a record belongs from now on.
    fn route(&mut self, source: &Checked, lasting: &Checked, key: Vec<u8>, entry: Entry) -> Result<(), StoreError> {
        let Some(kind) = Kind::of(&key) else {
            return Err(StoreError::Corrupt(format!("{} is of no kind that this version knows", record::name(&key))));
        };
        let Entry::Value(value) = entry else {
            self.put(Lane::Lasting, Change::Delete(key));
            return Ok(());
        };
        let sibling = |kind: Kind| record::key(kind, &key[1..]);
        match kind {
            Kind::Events | Kind::Base => {}
            Kind::Sighting => {
                let lane = if key.get(1) == Some(&LONG_MEMORY) { Lane::SeenLong } else { Lane::SeenDay };
                self.put(lane, Change::Put(key, value));
            }
            Kind::Output => self.put(Lane::Outputs, Change::Put(key, value)),
            Kind::Request => {
                let ended = matches!(source.get(&sibling(Kind::State))?, Some(Entry::Value(_)));
                self.put(if ended { Lane::Executions } else { Lane::Lasting }, Change::Put(key, value));
            }
            Kind::State => {
                let request = sibling(Kind::Request);
                if source.get(&request)?.is_none()
                    && let Some(Entry::Value(asked)) = lasting.get(&request)?
                {
                    self.put(Lane::Executions, Change::Put(request.clone(), asked));
                    self.taken.push(request);
                }
                self.put(Lane::Executions, Change::Put(key, value));
            }
            Kind::Message => {
                let waiting = match source.get(&sibling(Kind::Waiting))? {
                    Some(Entry::Value(_)) => true,
                    Some(Entry::Tombstone) => false,
                    None => lasting.get(&sibling(Kind::Waiting))?.is_some(),
                };
                if waiting {
                    self.put(Lane::Lasting, Change::Put(key, value));
                } else {
                    self.taken.push(key.clone());
                    self.put(Lane::Executions, Change::Put(key, value));
                }
            }
            Kind::Open | Kind::Definition | Kind::Ruleset | Kind::Waiting | Kind::Key | Kind::Setting | Kind::Sequence => {
                self.put(Lane::Lasting, Change::Put(key, value));
            }
        }
        Ok(())
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
    fn finish(&mut self, layers: &Layers) -> Result<(), StoreError> {
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
        let source = Arc::clone(&self.source);
        layers.seal(&source)?;
        // A database without a single event has nothing left to keep.
        let empty = !source.stats().contains_key(&(Kind::Events as u8));
        layers.flip(|view| {
            view.recent.retain(|segment| segment.number != source.number);
            if !empty {
                view.lanes.entry(Lane::Events).or_default().insert(0, Arc::clone(&source));
            }
        })?;
        if empty {
            discard(layers, &source)?;
        }
        Ok(())
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
    let new = layers.create(layers.free_number())?;
    layers.flip(|view| view.lanes.entry(lane).or_default().insert(0, Arc::clone(&new)))?;
    Ok(new)
}

/// Seals what has been written to and is large or old enough, so that it can be dropped as a whole later.
fn seal_full(layers: &Layers, moved: &Moving, now: DateTime<Utc>, keep: &Keep) -> Result<(), StoreError> {
    for (lane, segment) in &moved.targets {
        let Some(limit) = lane.limit(keep) else { continue };
        let database = layers.database(segment)?;
        let full = is_full(*lane, &database.stats(), layers.sizes.lane, limit.count) || lanes::is_old(&database.stats(), limit.age, now);
        drop(database);
        if full {
            layers.seal(segment)?;
            layers.flip(|_| {})?;
        }
    }
    Ok(())
}

/// Whether a database has its size; where a number is kept, an eighth of it.
fn is_full(lane: Lane, stats: &Stats, bytes: u64, count: Option<u64>) -> bool {
    let items = stats.get(&(lane.counted() as u8)).map_or(0, |kind| kind.items);
    stats.values().map(|kind| kind.bytes).sum::<u64>() >= bytes || count.is_some_and(|count| items >= (count / 8).max(1))
}

/// Drops what is older than what is kept, or more. Answers how many records that were.
fn drop_expired(layers: &Layers, state: &State, now: DateTime<Utc>, keep: &Keep) -> Result<u64, StoreError> {
    let mut removed = 0;
    for lane in Lane::AGEING {
        let Some(limit) = lane.limit(keep) else { continue };
        loop {
            let view = layers.view();
            let Some(oldest) = view.lane(*lane).last().cloned() else { break };
            // What is being written to is neither old nor spare.
            if state.moving.as_ref().is_some_and(|moving| moving.targets.contains_key(lane)) && !oldest.is_sealed() {
                break;
            }
            let stats = oldest.stats();
            let total = count(&view, *lane);
            let own = stats.get(&(lane.counted() as u8)).map_or(0, |kind| kind.items);
            let spare = limit.count.is_some_and(|count| total - own.min(total) >= count);
            if !spare && !lanes::is_expired(&stats, limit.age, now) {
                break;
            }
            layers.flip(|view| {
                if let Some(segments) = view.lanes.get_mut(lane) {
                    segments.retain(|segment| segment.number != oldest.number);
                }
            })?;
            discard(layers, &oldest)?;
            removed += stats.iter().filter(|(kind, _)| **kind != Kind::State as u8).map(|(_, kind)| kind.items).sum::<u64>();
        }
    }
    Ok(removed)
}

/// How many there are of what a lane's limit counts, those not moved yet included.
fn count(view: &View, lane: Lane) -> u64 {
    let recent = view.recent.iter().chain(view.lane(lane));
    recent.map(|segment| segment.stats().get(&(lane.counted() as u8)).map_or(0, |kind| kind.items)).sum()
}

/// Removes a database that no list names any more.
fn discard(layers: &Layers, segment: &Arc<Segment>) -> Result<(), StoreError> {
    layers.forget(segment);
    layers.space.remove(&segment.name())
}

/// Copies a database, in the order of its keys, and lets the copy take its place.
fn rewrite(layers: &Layers, lane: Lane, segment: &Arc<Segment>) -> Result<(), StoreError> {
    let source = layers.database(segment)?;
    let copy = layers.create(layers.free_number())?;
    let target = layers.database(&copy)?;
    let mut from = vec![0x01];
    loop {
        let read = source.scan(Bound::Excluded(&from), Bound::Excluded(&[0xff]), false, READ_TOGETHER)?;
        let Some((last, _)) = read.last() else { break };
        from.clone_from(last);
        let changes: Vec<Change> = read
            .into_iter()
            .map(|(key, entry)| match entry {
                Entry::Value(value) => Change::Put(key, value),
                Entry::Tombstone => Change::Bury(key),
            })
            .collect();
        target.write(&changes)?;
    }
    target.sync()?;
    drop((source, target));
    if segment.is_sealed() {
        layers.seal(&copy)?;
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
