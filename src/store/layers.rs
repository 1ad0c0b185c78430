//! The databases of a store, read as one: the newest that has a key counts.
//!
//! [`View`] is the list of them at one time. Whoever reads takes one and keeps it; the writer and the upkeep replace it as a whole.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::checked::{Change, Checked, Entry, Stats, Tally};
use super::keyed::go_on;
use super::lanes::Lane;
use super::manifest::{self, Manifest};
use super::merge::{Cursor, best};
use super::record::{self, Kind};
use super::segment::{Sealed, Segment, View, close, lock, name};
use super::space::{Pair, Space};
use super::{Damage, Progress, StoreError};

/// Sealed databases that are held open for reading, the one read last first.
const HELD_OPEN: usize = 2;

/// Memory for the cache of a database that commits go to, in bytes.
const HOT_BYTES: u64 = 8 << 20;

/// Memory for the cache of any other.
const COLD_BYTES: u64 = 2 << 20;

/// Entries that a scan reads from one database at a time.
const READ_TOGETHER: usize = 128;

/// Whether a folder is one of ours: a number of eight digits, perhaps with what a copy that was cut short ends in.
fn is_ours(name: &str) -> bool {
    let number = name.strip_suffix(".new").or_else(|| name.strip_suffix(".old")).unwrap_or(name);
    number.len() == 8 && number.bytes().all(|byte| byte.is_ascii_digit())
}

/// How large databases become.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Keys and values of a recent database, in bytes.
    pub recent: u64,
    /// Keys and values of a database of a lane, in bytes.
    pub lane: u64,
}

impl Default for Sizes {
    /// Some tens of thousands of events in one database: small enough to be read whole in a tenth of a second.
    fn default() -> Self {
        Self { recent: 32 << 20, lane: 32 << 20 }
    }
}

/// Memory for the cache of a database.
fn cache_bytes(lane: Lane) -> u64 {
    if matches!(lane, Lane::Recent | Lane::Lasting) { HOT_BYTES } else { COLD_BYTES }
}

/// The first record of a database: what the one before it held when it was full.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// The database before.
    pub before: u64,
    /// What it held.
    pub tally: Tally,
}

/// The databases of a store.
pub struct Layers {
    /// Where they lie.
    pub space: Arc<dyn Space>,
    /// How large they become.
    pub sizes: Sizes,
    view: RwLock<Arc<View>>,
    /// The recent database that comes next, opened ahead.
    next: Mutex<Option<Arc<Segment>>>,
    held: Mutex<VecDeque<Arc<Segment>>>,
    /// The highest number that a database has had.
    numbers: AtomicU64,
    /// Held shared by scans, and alone while records that have been copied to a lane are taken from another.
    pub moving: RwLock<()>,
}

impl Layers {
    /// Opens what the space holds, or begins anew in an empty one.
    ///
    /// # Errors
    /// When it cannot be used, is damaged, or is of a newer format.
    pub fn open(space: Arc<dyn Space>, sizes: Sizes) -> Result<Self, StoreError> {
        let layers = Self::new(space, sizes);
        layers.reopen()?;
        Ok(layers)
    }

    fn new(space: Arc<dyn Space>, sizes: Sizes) -> Self {
        Self {
            space,
            sizes,
            view: RwLock::default(),
            next: Mutex::default(),
            held: Mutex::default(),
            numbers: AtomicU64::default(),
            moving: RwLock::default(),
        }
    }

    /// Opens all that the list names and looks whether it fits together; removes nothing.
    ///
    /// # Errors
    /// As [`Layers::open`].
    pub fn look(space: Arc<dyn Space>, sizes: Sizes) -> Result<(), StoreError> {
        Self::new(space, sizes).load()
    }

    /// Reads everything anew from disk, as after a start.
    ///
    /// # Errors
    /// As [`Layers::open`].
    pub fn reopen(&self) -> Result<(), StoreError> {
        self.load()?;
        self.sweep()
    }

    /// Removes what a stop left half done: databases that the list does not name. Only once all that it names has been found whole, and only
    /// what has a name of ours.
    fn sweep(&self) -> Result<(), StoreError> {
        let (view, next) = (self.view(), self.next());
        let named: Vec<String> = view.all().map(|(_, segment)| segment).chain(next.iter()).map(|segment| segment.name()).collect();
        for left in self.space.names()?.iter().filter(|name| is_ours(name) && !named.contains(name)) {
            tracing::info!(database = left, "removing what a stop left half done");
            self.space.remove(left)?;
        }
        Ok(())
    }

    fn load(&self) -> Result<(), StoreError> {
        // What is open is let go first: an engine may not open a database twice.
        lock(&self.held).clear();
        let next = lock(&self.next).take();
        for segment in self.view().all().map(|(_, segment)| segment).chain(next.iter()) {
            *lock(&segment.database) = None;
        }
        let (view, next) = match self.space.read_file(manifest::FILE)? {
            Some(bytes) => self.read(&Manifest::read(&bytes)?)?,
            None => self.begin()?,
        };
        let numbers = view.all().map(|(_, segment)| segment.number).chain(next.iter().map(|next| next.number));
        self.numbers.fetch_max(numbers.max().unwrap_or(0), Ordering::Relaxed);
        *lock(&self.next) = next;
        self.publish(view);
        let (durable, sequence) = (self.space.durable()?, self.sequence()?);
        if durable > sequence {
            return Err(StoreError::Corrupt(format!(
                "the last {} commits are missing: commit {durable} was durable, and {sequence} is the last one found",
                durable - sequence
            )));
        }
        Ok(())
    }

    /// The number of the last commit.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn sequence(&self) -> Result<u64, StoreError> {
        let stored = self.get(&self.view(), &record::key(Kind::Sequence, b""))?;
        stored.map_or(Ok(0), |bytes| record::decode(Kind::Sequence, &bytes))
    }

    fn begin(&self) -> Result<(View, Option<Arc<Segment>>), StoreError> {
        // A first start that was cut short leaves databases without a record; anything else is not ours to throw away.
        let missing = || StoreError::Corrupt(format!("its file `{}` is missing", manifest::FILE));
        if self.space.durable()? > 0 {
            return Err(missing());
        }
        for name in self.space.names()?.iter().filter(|name| is_ours(name)) {
            if Checked::open(self.space.open(name, COLD_BYTES)?, name)?.tally() != Tally::default() {
                return Err(missing());
            }
        }
        let lasting = self.create(1, Lane::Lasting)?;
        let recent = self.create(2, Lane::Recent)?;
        let view = View { recent: vec![recent], lanes: BTreeMap::from([(Lane::Lasting, vec![lasting])]) };
        self.write_manifest(&view, None)?;
        Ok((view, None))
    }

    fn read(&self, manifest: &Manifest) -> Result<(View, Option<Arc<Segment>>), StoreError> {
        let there = self.space.names()?;
        for entry in &manifest.databases {
            if !there.contains(&name(entry.name)) {
                return Err(StoreError::Corrupt(format!("database {} is missing", name(entry.name))));
            }
        }
        let mut view = View::default();
        for entry in &manifest.databases {
            let segment = if let Some(at) = entry.sealed_at {
                Segment::new(entry.name, Some(Sealed { at, tally: entry.tally, stats: entry.stats.clone(), is_known: false }), None)
            } else {
                let database = self.open_database(entry.name, cache_bytes(entry.lane))?;
                if database.tally().version < entry.tally.version {
                    return Err(StoreError::Corrupt(format!("database {}: the last writes are missing", name(entry.name))));
                }
                // What was found may lie in the system's memory only, and is built upon from here.
                database.sync()?;
                Segment::new(entry.name, None, Some(database))
            };
            match entry.lane {
                Lane::Recent => view.recent.push(segment),
                lane => view.lanes.entry(lane).or_default().push(segment),
            }
        }
        let is_empty = |segment: &Arc<Segment>| self.database(segment).map(|database| database.tally() == Tally::default());
        let next = if view.recent.len() > 1 && is_empty(&view.recent[0])? { Some(view.recent.remove(0)) } else { None };
        for pair in view.recent.windows(2) {
            let (newer, older) = (self.database(&pair[0])?, self.database(&pair[1])?);
            let Some(Entry::Value(base)) = newer.get(&record::key(Kind::Base, b""))? else { continue };
            let base: Base = record::decode(Kind::Base, &base)?;
            if base.before == pair[1].number && base.tally != older.tally() {
                return Err(StoreError::Corrupt(format!("database {}: the last writes are missing", pair[1].name())));
            }
        }
        Ok((view, next))
    }

    fn open_database(&self, number: u64, cache_bytes: u64) -> Result<Checked, StoreError> {
        Checked::open(self.space.open(&name(number), cache_bytes)?, &name(number))
    }

    /// Makes an empty database. It does not exist until a manifest names it.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn create(&self, number: u64, lane: Lane) -> Result<Arc<Segment>, StoreError> {
        self.space.remove(&name(number))?;
        let database = self.open_database(number, cache_bytes(lane))?;
        database.sync()?;
        Ok(Segment::new(number, None, Some(database)))
    }

    /// A number that no database has had since the last start.
    #[must_use]
    pub fn free_number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Changes the list of databases, first on disk and then here.
    ///
    /// # Errors
    /// When it cannot be written; then nothing has changed.
    pub fn flip(&self, change: impl Fn(&mut View)) -> Result<(), StoreError> {
        // In this order, so that a database the writer begins to use meanwhile is in one of the two.
        let next = self.next();
        let mut view = View::clone(&self.view());
        change(&mut view);
        self.write_manifest(&view, next.as_ref())?;
        self.change(change);
        Ok(())
    }

    /// Writes down a list of databases, durably.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_manifest(&self, view: &View, next: Option<&Arc<Segment>>) -> Result<(), StoreError> {
        let mut databases = Vec::new();
        let next = next.filter(|next| view.recent.iter().all(|segment| segment.number != next.number));
        for (lane, segment) in next.map(|next| (Lane::Recent, next)).into_iter().chain(view.all()) {
            let sealed = segment.sealed();
            let sealed_at = sealed.as_ref().map(|sealed| sealed.at);
            let (tally, stats) = match sealed {
                Some(sealed) => (sealed.tally, sealed.stats),
                // What commits go on writing to is not counted here.
                None if lane == Lane::Recent => (Tally::default(), Stats::new()),
                None => {
                    let database = self.database(segment)?;
                    (database.synced(), database.stats())
                }
            };
            databases.push(manifest::Entry { name: segment.number, lane, sealed_at, tally, stats });
        }
        self.space.write_file(manifest::FILE, &Manifest::of(databases).to_bytes())
    }

    /// The databases as they are now.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn publish(&self, view: View) {
        *self.view.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(view);
    }

    /// The writer and the upkeep may change the list at the same time.
    fn change(&self, change: impl FnOnce(&mut View)) {
        let mut view = self.view.write().unwrap_or_else(PoisonError::into_inner);
        let mut changed = View::clone(&view);
        change(&mut changed);
        *view = Arc::new(changed);
    }

    /// The recent database that comes next, if it has been opened ahead.
    #[must_use]
    pub fn next(&self) -> Option<Arc<Segment>> {
        lock(&self.next).clone()
    }

    /// Puts the recent database that comes next into its place.
    pub fn set_next(&self, segment: Arc<Segment>) {
        *lock(&self.next) = Some(segment);
    }

    /// Lets commits go on in the next recent database, if there is one. Answers what its first record must be.
    ///
    /// # Errors
    /// When the full database cannot be asked what it holds.
    pub fn rotate(&self) -> Result<Option<Base>, StoreError> {
        let full = Arc::clone(&self.view().recent[0]);
        let tally = self.database(&full)?.tally();
        // Held until it is in the list: whoever finds no next one finds it there.
        let mut place = lock(&self.next);
        let Some(next) = place.take() else { return Ok(None) };
        self.change(|view| view.recent.insert(0, next));
        drop(place);
        Ok(Some(Base { before: full.number, tally }))
    }

    /// Says that nothing will be written to a database any more, and closes it, unless somebody reads it.
    ///
    /// # Errors
    /// When it cannot be asked what it holds.
    pub fn seal(&self, segment: &Arc<Segment>, at: DateTime<Utc>) -> Result<(), StoreError> {
        let database = self.database(segment)?;
        *lock(&segment.sealed) = Some(Sealed { at, tally: database.tally(), stats: database.stats(), is_known: true });
        drop(database);
        if !close(segment) {
            self.hold(segment);
        }
        Ok(())
    }

    /// The database of a segment; a sealed one is opened, and closed when others have been read since.
    ///
    /// # Errors
    /// When it cannot be opened, or is damaged.
    pub fn database(&self, segment: &Arc<Segment>) -> Result<Arc<Checked>, StoreError> {
        let mut database = lock(&segment.database);
        if let Some(open) = &*database {
            return Ok(Arc::clone(open));
        }
        if segment.gone.load(Ordering::Acquire) {
            return Err(StoreError::Unavailable(format!("database {} has been dropped", segment.name())));
        }
        let opened = Arc::new(self.open_sealed(segment)?);
        *database = Some(Arc::clone(&opened));
        drop(database);
        self.hold(segment);
        Ok(opened)
    }

    /// The first time after a start it is read whole.
    fn open_sealed(&self, segment: &Segment) -> Result<Checked, StoreError> {
        let Some(Sealed { tally, stats, is_known, .. }) = segment.sealed() else { return self.open_database(segment.number, COLD_BYTES) };
        if is_known {
            return Checked::open_known(self.space.open(&segment.name(), COLD_BYTES)?, &segment.name(), tally, stats);
        }
        let opened = self.open_database(segment.number, COLD_BYTES)?;
        if opened.tally() != tally {
            return Err(StoreError::Corrupt(format!("database {}: it does not hold what it held when it was closed", segment.name())));
        }
        if let Some(sealed) = &mut *lock(&segment.sealed) {
            sealed.is_known = true;
        }
        Ok(opened)
    }

    /// Notes that a sealed database is open, and closes the one that has been for longest.
    fn hold(&self, segment: &Arc<Segment>) {
        let mut held = lock(&self.held);
        held.push_back(Arc::clone(segment));
        let mut spare = held.len().saturating_sub(HELD_OPEN);
        held.retain(|segment| {
            if spare == 0 {
                return true;
            }
            spare -= 1;
            !close(segment)
        });
    }

    /// Lets go of a database that no list names any more. Who has taken the list before reads on, if it was open; if it was not, it is
    /// empty to them: what was there is too old, or has been moved.
    pub fn forget(&self, segment: &Arc<Segment>) {
        segment.gone.store(true, Ordering::Release);
        lock(&self.held).retain(|held| !Arc::ptr_eq(held, segment));
    }

    /// The database of a segment of a list that may be old.
    pub(super) fn readable(&self, segment: &Arc<Segment>) -> Result<Option<Arc<Checked>>, StoreError> {
        match self.database(segment) {
            Ok(database) => Ok(Some(database)),
            Err(_) if segment.gone.load(Ordering::Acquire) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The value of a key.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn get(&self, view: &View, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        for segment in view.holders(key).filter(|segment| segment.may_hold(key)) {
            let Some(database) = self.readable(segment)? else { continue };
            match database.get(key)? {
                Some(Entry::Value(value)) => return Ok(Some(value)),
                Some(Entry::Tombstone) => return Ok(None),
                None => {}
            }
        }
        Ok(None)
    }

    /// Whether a database of a lane has a key.
    ///
    /// # Errors
    /// When that cannot be read.
    pub fn lane_has(&self, lane: Lane, key: &[u8]) -> Result<bool, StoreError> {
        for segment in self.view().lane(lane).iter().filter(|segment| segment.may_hold(key)) {
            if self.readable(segment)?.map_or(Ok(None), |database| database.get(key))?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// How a key is removed by a commit: buried, if an older database has it.
    ///
    /// # Errors
    /// When that cannot be read.
    pub fn removal(&self, view: &View, key: Vec<u8>) -> Result<Change, StoreError> {
        for segment in view.holders(&key).skip(1).filter(|segment| segment.may_hold(&key)) {
            let Some(database) = self.readable(segment)? else { continue };
            match database.get(&key)? {
                Some(Entry::Value(_)) => return Ok(Change::Bury(key)),
                Some(Entry::Tombstone) => break,
                None => {}
            }
        }
        Ok(Change::Delete(key))
    }

    /// The first `limit` pairs of one kind between the bounds, from the low end or from the high end. Both bounds are keys of that kind.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn scan(&self, view: &View, from: Bound<&[u8]>, to: Bound<&[u8]>, descending: bool, limit: usize) -> Result<Vec<Pair>, StoreError> {
        let _still = self.moving.read().unwrap_or_else(PoisonError::into_inner);
        let (Bound::Included(any) | Bound::Excluded(any)) = from else { return Ok(Vec::new()) };
        let mut cursors: Vec<Cursor<'_>> = Vec::new();
        for segment in view.holders(&any[..1]) {
            cursors.extend(Cursor::new(segment, any[0], from, to, descending));
        }
        let mut found: Vec<Pair> = Vec::new();
        while found.len() < limit {
            let Some(best) = best(&cursors, descending) else { break };
            if cursors[best].read.is_empty() {
                cursors[best].fill(self, descending, limit.clamp(2, READ_TOGETHER))?;
                continue;
            }
            let Some((key, entry)) = cursors[best].read.pop_front() else { continue };
            for cursor in &mut cursors {
                if cursor.read.front().is_some_and(|(other, _)| *other == key) {
                    cursor.read.pop_front(); // an older one
                }
            }
            if let Entry::Value(value) = entry {
                found.push((key, value));
            }
        }
        Ok(found)
    }
}

/// Reads every database of a space by itself and tells what is damaged.
///
/// # Errors
/// When the list of databases cannot be read, or the progress is not wanted any more.
pub fn examine(space: &dyn Space, progress: &mut Progress<'_>) -> Result<Vec<Damage>, StoreError> {
    let Some(bytes) = space.read_file(manifest::FILE)? else { return Ok(Vec::new()) };
    let (manifest, there) = (Manifest::read(&bytes)?, space.names()?);
    let count = manifest.databases.len() as u64;
    let mut damage = Vec::new();
    for (done, entry) in (0..).zip(&manifest.databases) {
        go_on(progress, done, count)?;
        let name = name(entry.name);
        let mut found = |what: String| damage.push(Damage::of(&name, entry.lane, &what));
        if !there.contains(&name) {
            found("it is missing".into());
            continue;
        }
        match space.open(&name, COLD_BYTES).and_then(|raw| Checked::survey_all(raw, &name, &mut found)) {
            Ok(tally) if entry.sealed_at.is_some() && tally != entry.tally => {
                found("it does not hold what it held when it was closed".into());
            }
            Ok(tally) if tally.version < entry.tally.version => found("the last writes are missing".into()),
            Ok(_) => {}
            Err(StoreError::Corrupt(what) | StoreError::Unavailable(what)) => found(what),
        }
    }
    go_on(progress, count, count)?;
    Ok(damage)
}
