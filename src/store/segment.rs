//! One database of the list, open or closed, and the list itself.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};

use super::checked::{Checked, KindStats, Stats, Tally};
use super::lanes::Lane;

/// One database.
pub struct Segment {
    /// Its number; the higher, the newer.
    pub number: u64,
    pub(super) sealed: Mutex<Option<Sealed>>,
    /// Since when there is something in it, as far as the upkeep has seen.
    since: Mutex<Option<DateTime<Utc>>>,
    pub(super) database: Mutex<Option<Arc<Checked>>>,
    /// Whether no list names it any more.
    pub(super) gone: AtomicBool,
}

/// What is known of a database that nothing is written to any more.
#[derive(Clone, Debug)]
pub(super) struct Sealed {
    pub at: DateTime<Utc>,
    pub tally: Tally,
    pub stats: Stats,
    /// Whether it has been read whole since the start.
    pub is_known: bool,
}

impl Segment {
    pub(super) fn new(number: u64, sealed: Option<Sealed>, database: Option<Checked>) -> Arc<Self> {
        Arc::new(Self {
            number,
            sealed: Mutex::new(sealed),
            since: Mutex::default(),
            database: Mutex::new(database.map(Arc::new)),
            gone: AtomicBool::new(false),
        })
    }

    pub(super) fn sealed(&self) -> Option<Sealed> {
        lock(&self.sealed).clone()
    }

    /// When it was sealed.
    #[must_use]
    pub fn sealed_at(&self) -> Option<DateTime<Utc>> {
        lock(&self.sealed).as_ref().map(|sealed| sealed.at)
    }

    /// Since when there is something in it, as far as it was asked before; an empty one has nothing yet.
    #[must_use]
    pub fn since(&self, is_empty: bool, now: DateTime<Utc>) -> DateTime<Utc> {
        let mut since = lock(&self.since);
        let at = since.filter(|at| !is_empty && *at <= now).unwrap_or(now);
        *since = Some(at);
        at
    }

    /// Whether nothing is written there any more.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        lock(&self.sealed).is_some()
    }

    /// What it holds.
    #[must_use]
    pub fn stats(&self) -> Stats {
        if let Some(sealed) = self.sealed() {
            return sealed.stats;
        }
        lock(&self.database).as_ref().map(|database| database.stats()).unwrap_or_default()
    }

    /// How many things of a kind it holds.
    #[must_use]
    pub fn items(&self, kind: u8) -> u64 {
        if let Some(Sealed { stats, .. }) = &*lock(&self.sealed) {
            return stats.get(&kind).map_or(0, |kind| kind.items);
        }
        lock(&self.database).as_ref().map_or(0, |database| database.of_kind(kind).map_or(0, |kind| kind.items))
    }

    /// Whether it has ever held a record of a kind, a tombstone included.
    #[must_use]
    pub fn may_have(&self, kind: u8) -> bool {
        match &*lock(&self.sealed) {
            Some(sealed) => sealed.stats.contains_key(&kind),
            None => lock(&self.database).as_ref().is_none_or(|database| database.of_kind(kind).is_some()),
        }
    }

    /// The name of its folder.
    #[must_use]
    pub fn name(&self) -> String {
        name(self.number)
    }

    /// What a sealed one holds of a kind; `Err` where that is not known.
    pub(super) fn range(&self, kind: u8) -> Result<Option<KindStats>, ()> {
        match &*lock(&self.sealed) {
            Some(sealed) => Ok(sealed.stats.get(&kind).cloned()),
            None => Err(()),
        }
    }

    pub(super) fn may_hold(&self, key: &[u8]) -> bool {
        match &*lock(&self.sealed) {
            Some(sealed) => {
                sealed.stats.get(&key[0]).is_some_and(|kind| kind.first.as_slice() <= &key[1..] && &key[1..] <= kind.last.as_slice())
            }
            None => true,
        }
    }
}

/// The folder of a number.
#[must_use]
pub fn name(number: u64) -> String {
    format!("{number:08}")
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The databases at one time.
#[derive(Clone, Default)]
pub struct View {
    /// Commits as they came, the newest database first; commits go there.
    pub recent: Vec<Arc<Segment>>,
    /// What has been moved, the newest database first.
    pub lanes: BTreeMap<Lane, Vec<Arc<Segment>>>,
}

impl View {
    /// The databases of a lane, the newest first.
    #[must_use]
    pub fn lane(&self, lane: Lane) -> &[Arc<Segment>] {
        if lane == Lane::Recent { &self.recent } else { self.lanes.get(&lane).map_or(&[], Vec::as_slice) }
    }

    /// Where a key may lie; what comes first counts.
    pub(super) fn holders<'v>(&'v self, key: &[u8]) -> impl Iterator<Item = &'v Arc<Segment>> + use<'v> {
        let lanes: &'static [Lane] = Lane::of(key);
        self.recent.iter().chain(lanes.iter().flat_map(|lane| self.lane(*lane)))
    }

    /// Every database with its lane.
    pub fn all(&self) -> impl Iterator<Item = (Lane, &Arc<Segment>)> {
        let recent = self.recent.iter().map(|segment| (Lane::Recent, segment));
        recent.chain(self.lanes.iter().flat_map(|(lane, segments)| segments.iter().map(|segment| (*lane, segment))))
    }
}

/// Closes a database unless somebody reads it; answers whether it is closed.
pub(super) fn close(segment: &Arc<Segment>) -> bool {
    let mut database = lock(&segment.database);
    if database.as_ref().is_some_and(|open| Arc::strong_count(open) > 1) {
        return false;
    }
    *database = None;
    true
}
