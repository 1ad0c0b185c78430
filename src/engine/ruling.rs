//! What the rules remember while the process runs: windows, ceilings, keys of the datastore, guards that used up their budget.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::Engine;
use super::board::Board;
use super::catalog::Catalog;
use super::keys::Lines;
use crate::model::datastore::{KeyEntry, SYSTEM};
use crate::model::window::{WindowChange, WindowKey};
use crate::rule::ceiling::Ceiling;
use crate::rule::windows::outages::Outages;
use crate::rule::windows::{Needed, OpenWindow, Windows};
use crate::store::{Batch, Page, Store, StoreError};

/// The setting that tells when nothing could have come, and when the process was last known to be there.
const ALIVE: &str = "alive";

/// Records read together.
const TOGETHER: usize = 10_000;

/// A guard that uses up its budget so often in a minute sends its rule into quarantine.
const OVERRUNS: usize = 10;

/// What the rules remember.
#[derive(Default)]
pub struct Ruling {
    state: Mutex<State>,
    keys: RwLock<Known>,
    /// Waited in while a key is changed, so that all see the changes in the order of their commits.
    pub(super) key_lines: Lines,
    /// Held while a rule is switched, or the rules are replaced.
    pub changing_rules: tokio::sync::Mutex<()>,
    /// Held while a rule is tried on stored events.
    pub(super) rehearsing: tokio::sync::Mutex<()>,
}

/// What the evaluator works with.
pub(super) struct State {
    pub windows: Windows,
    pub ceilings: HashMap<String, Ceiling>,
    overruns: HashMap<String, VecDeque<i64>>,
    /// The set of rules that the windows fit.
    fits: Option<u64>,
    /// Whether what is remembered may differ from what is stored.
    stale: bool,
    was_out: bool,
}

impl Default for State {
    fn default() -> Self {
        let (windows, ceilings, overruns) = Default::default();
        Self { windows, ceilings, overruns, fits: None, stale: true, was_out: false }
    }
}

/// The keys that rules see, and when some of them expire.
#[derive(Default)]
struct Known {
    values: Arc<BTreeMap<String, Value>>,
    due: BTreeSet<(DateTime<Utc>, String)>,
    due_of: HashMap<String, DateTime<Utc>>,
}

impl Known {
    fn is_due(&self, now: DateTime<Utc>) -> bool {
        self.due.first().is_some_and(|(at, _)| *at <= now)
    }

    fn expire(&mut self, now: DateTime<Utc>) {
        while self.is_due(now)
            && let Some((_, name)) = self.due.pop_first()
        {
            self.note(&name, None);
        }
    }

    fn note(&mut self, name: &str, entry: Option<&KeyEntry>) {
        if let Some(at) = self.due_of.remove(name) {
            self.due.remove(&(at, name.to_string()));
        }
        if let Some(at) = entry.and_then(|entry| entry.expires_at) {
            self.due.insert((at, name.to_string()));
            self.due_of.insert(name.to_string(), at);
        }
        let values = Arc::make_mut(&mut self.values); // copied only where somebody holds it right now
        match entry {
            Some(entry) => values.insert(name.to_string(), entry.value.clone()),
            None => values.remove(name),
        };
    }
}

impl Ruling {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The keys of the datastore that rules see at a time.
    #[must_use]
    pub fn keys(&self, now: DateTime<Utc>) -> Arc<BTreeMap<String, Value>> {
        let known = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        if !known.is_due(now) {
            return Arc::clone(&known.values);
        }
        drop(known);
        let mut known = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        known.expire(now);
        Arc::clone(&known.values)
    }

    /// What is remembered of a rule's keys, at most so many of its window and as many of its throttle.
    #[must_use]
    pub fn open_windows(&self, rule: &str, limit: usize) -> Vec<OpenWindow> {
        self.state().windows.of_rule(rule, limit)
    }

    /// How many keys of a rule are remembered, in its window and in its throttle.
    #[must_use]
    pub fn remembered(&self, rule: &str) -> (usize, usize) {
        self.state().windows.count_of(rule)
    }

    pub(super) fn note_key(&self, name: &str, entry: Option<&KeyEntry>) {
        self.keys.write().unwrap_or_else(PoisonError::into_inner).note(name, entry);
    }

    /// What is remembered may differ from what is stored: it is read anew before it is used.
    pub(super) fn set_stale(&self) {
        self.state().stale = true;
    }
}

/// Reads the keys of the datastore that rules see.
async fn load_keys(store: &dyn Store) -> Result<Known, StoreError> {
    let (mut known, mut after) = (Known::default(), None);
    loop {
        let page = store.keys(SYSTEM, "", after.as_deref(), TOGETHER).await?;
        let Some((last, _)) = page.last() else { return Ok(known) };
        after = Some(last.clone());
        for (name, entry) in &page {
            known.note(name, Some(entry));
        }
    }
}

/// Reads what rules remember: at a start, and before a process that could not write for a while goes on.
///
/// # Errors
/// When the store cannot be read.
pub async fn load(engine: &Engine) -> Result<(), StoreError> {
    let keys = load_keys(&*engine.store).await?;
    *engine.ruling.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
    let alive = engine.store.setting(ALIVE).await?;
    let now = engine.clock.now().timestamp_millis();
    let mut outages: Outages = alive.as_ref().and_then(|alive| serde_json::from_value(alive["outages"].clone()).ok()).unwrap_or_default();
    // It was there when the newest event came, too.
    let newest =
        engine.store.events(Page { before: None, limit: 1 }).await?.first().map(|event| event.event.received_at.timestamp_millis());
    let known = alive.as_ref().and_then(|alive| alive["at"].as_i64());
    if let Some(last) = known.max(newest).filter(|last| *last < now) {
        outages.begin(None, last);
        outages.end(None, now);
    }
    engine.ruling.state().windows.outages = outages;
    match prepare(engine, &engine.catalog.get()).await {
        Err(StoreError::Unavailable(why)) => tracing::warn!("what rules remember is read later: {why}"),
        other => other?,
    }
    Ok(())
}

/// Makes sure that what is remembered is what is stored, and fits the rules in force.
pub(super) async fn prepare(engine: &Engine, catalog: &Catalog) -> Result<(), StoreError> {
    let (unsure, fits) = {
        let known = engine.ruling.state();
        (known.stale, known.fits == Some(catalog.ruleset))
    };
    if !unsure && fits {
        return Ok(());
    }
    let needed: Vec<Needed> = catalog.rules.iter().flat_map(|rule| rule.needed()).collect();
    let now = engine.clock.now().timestamp_millis();
    if !unsure {
        let mut state = engine.ruling.state();
        state.windows.fit(&needed, now);
        state.fits = Some(catalog.ruleset);
        return Ok(());
    }
    engine.store.health().await?;
    let outages = engine.ruling.state().windows.outages.clone();
    // Keys that are waited for from the start on are made up only if nothing is stored of them, so what is stored comes first.
    let (mut read, mut gone): (Windows, Vec<WindowChange>) = Default::default();
    let unnamed: Vec<Needed> = needed.iter().map(Needed::without_keys).collect();
    read.fit(&unnamed, now);
    let mut after: Option<WindowKey> = None;
    loop {
        let page = engine.store.windows(after.as_ref(), TOGETHER).await?;
        let Some((last, _)) = page.last() else { break };
        after = Some(last.clone());
        for (of, state) in page {
            if !read.restore(&of, &state) {
                gone.push(WindowChange { of, state: None });
            }
        }
    }
    read.fit(&needed, now);
    read.outages = outages;
    for changes in gone.chunks(TOGETHER) {
        let batch = Batch { windows: changes.to_vec(), ..Batch::default() };
        if let Err(error) = engine.store.commit(&batch).await {
            tracing::warn!("what rules that are gone remember stays for now: {error}");
            break;
        }
    }
    let mut state = engine.ruling.state();
    (state.windows, state.fits, state.stale) = (read, Some(catalog.ruleset), false);
    Ok(())
}

impl State {
    /// Notes that a guard used up its budget; answers whether that was once too often.
    pub(super) fn overrun(&mut self, rule: &str, now: i64) -> bool {
        let times = self.overruns.entry(rule.to_string()).or_default();
        times.push_back(now);
        while times.front().is_some_and(|first| first.saturating_add(60_000) <= now || *first > now) {
            times.pop_front();
        }
        let too_often = times.len() >= OVERRUNS;
        if too_often {
            self.overruns.remove(rule);
        }
        too_often
    }

    /// What is done every second: what has no meaning any more is forgotten, and it is noted whether anything could come.
    pub(super) fn tick(&mut self, is_out: bool, sensors: &Board, now: DateTime<Utc>) {
        self.look_at(sensors, now);
        let now = now.timestamp_millis();
        self.windows.sweep(now);
        self.ceilings.retain(|_, ceiling| !ceiling.is_over(now));
        if is_out != self.was_out {
            self.was_out = is_out;
            if is_out {
                self.windows.outages.begin(None, now)
            } else {
                self.windows.outages.end(None, now)
            };
        }
    }

    /// Notes which of the sensors whose silence is waited for cannot tell anything now.
    pub(super) fn look_at(&mut self, sensors: &Board, now: DateTime<Utc>) {
        let names = self.windows.sources().iter().filter(|source| source.starts_with("sensor/"));
        for source in names.cloned().collect::<Vec<_>>() {
            match sensors.failing_since(&source["sensor/".len()..]) {
                Some(since) => self.windows.outages.begin(Some(&source), since.timestamp_millis()),
                None => self.windows.outages.end(Some(&source), now.timestamp_millis()),
            };
        }
    }

    /// What changed in the windows, to be committed with what it decided. Nothing while it may differ from what is stored.
    pub(super) fn take_changes(&mut self) -> Vec<WindowChange> {
        if self.stale { Vec::new() } else { self.windows.take_changes() }
    }

    /// What is stored from time to time so that a restart knows for how long nothing could come.
    pub(super) fn alive(&self, now: DateTime<Utc>) -> (String, Value) {
        (ALIVE.into(), serde_json::json!({"at": now.timestamp_millis(), "outages": self.windows.outages}))
    }
}
