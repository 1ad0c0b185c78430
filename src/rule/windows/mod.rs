//! Windows and throttles: how often, how long not at all, how far apart; for each key of a rule by itself. Pure: times are those of
//! events, and what changed is asked for with [`Windows::take_changes`] so that it is committed together with what it decided.

mod keys;
mod ledger;
pub mod outages;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use keys::Keys;
use ledger::{Absent, Count, Throttled};

use crate::model::ids::EventId;
use crate::model::rule::WindowKind;
use crate::model::window::{MAX_KEY_BYTES, WindowChange, WindowKey, WindowPart, WindowState};
use outages::Outages;

/// How a window or throttle is defined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Definition {
    /// A window.
    Window {
        /// What it waits for.
        kind: WindowKind,
        /// How far behind the newest an event may lie and still count.
        late: Duration,
    },
    /// A throttle: how far apart.
    Throttle(Duration),
}

/// A rule's windows as they must be.
#[derive(Clone, Debug)]
pub struct Needed {
    /// The rule, `pack.name`.
    pub rule: Arc<str>,
    /// Its window or throttle.
    pub definition: Definition,
    /// A hash of the definition and of what tells keys apart.
    pub hash: u64,
}

impl Needed {
    /// The same, without keys that are waited for from the start on.
    #[must_use]
    pub fn without_keys(&self) -> Self {
        let mut bare = self.clone();
        if let Definition::Window { kind: WindowKind::Absent { keys, .. }, .. } = &mut bare.definition {
            keys.clear();
        }
        bare
    }
}

impl Definition {
    fn part(&self) -> WindowPart {
        match self {
            Self::Window { .. } => WindowPart::Window,
            Self::Throttle(_) => WindowPart::Throttle,
        }
    }
}

/// What a window or throttle says of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is time to run something.
    Fires,
    /// So many of so many are there.
    Open {
        /// How many.
        have: usize,
        /// Of how many.
        of: u32,
    },
    /// It waits for silence until then, milliseconds since 1970.
    Armed {
        /// When it fires if nothing comes.
        until: i64,
    },
    /// The event lies so many milliseconds behind the newest of its key.
    Late {
        /// How far.
        behind: i64,
    },
    /// Something ran already; the next may run then.
    Throttled {
        /// From when on, milliseconds since 1970.
        until: i64,
    },
    /// As many keys as can be are remembered, and this is another.
    TooManyKeys,
    /// The key is longer than [`MAX_KEY_BYTES`].
    LongKey,
}

/// Silence that has lasted long enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Silence {
    /// The rule.
    pub rule: Arc<str>,
    /// The key.
    pub key: String,
    /// When it became long enough, milliseconds since 1970.
    pub deadline: i64,
    /// The last event of the key, if there has been one.
    pub last: Option<EventId>,
}

/// One key of a rule's window, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenWindow {
    /// Its window or throttle.
    pub part: WindowPart,
    /// The key.
    pub key: String,
    /// What is remembered.
    pub state: WindowState,
    /// When it fires, or lets pass again, if nothing comes; milliseconds since 1970.
    pub until: Option<i64>,
}

/// An event may happen so much after it was received and be believed; beyond that the clock was ahead for a while.
const AHEAD_MS: i64 = 60_000;

/// What is remembered of all rules.
#[derive(Debug, Default)]
pub struct Windows {
    memories: HashMap<(Arc<str>, WindowPart), Memory>,
    /// When silence may be long enough, of which rule's which key; a look at the key tells whether it is.
    deadlines: BTreeSet<(i64, Arc<str>, Box<str>)>,
    changed: Vec<(Arc<str>, WindowPart, Box<str>)>,
    /// Of windows that are defined otherwise now, or not at all.
    forgotten: Vec<WindowKey>,
    /// Where events came from whose silence is waited for.
    sources: BTreeSet<Arc<str>>,
    /// When nothing could have come.
    pub outages: Outages,
}

/// What is remembered of one window or throttle.
#[derive(Debug)]
struct Memory {
    definition: Definition,
    hash: u64,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Count(Keys<Count>),
    Absent(Keys<Absent>),
    Throttle(Keys<Throttled>),
}

impl Kind {
    fn of(definition: &Definition) -> Self {
        match definition {
            Definition::Window { kind: WindowKind::Count { .. }, .. } => Self::Count(Keys::default()),
            Definition::Window { kind: WindowKind::Absent { .. }, .. } => Self::Absent(Keys::default()),
            Definition::Throttle(_) => Self::Throttle(Keys::default()),
        }
    }
}

/// What is forgotten of windows that are defined otherwise now, at most in one commit.
const FORGOTTEN_TOGETHER: usize = 10_000;

/// Which event, and where it came from.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'e> {
    /// The event.
    pub id: EventId,
    /// Its source, such as `sensor/core.nightly`.
    pub source: &'e str,
}

/// One text for all that are equal.
fn interned(known: &mut BTreeSet<Arc<str>>, text: &str) -> Arc<str> {
    if let Some(known) = known.get(text) {
        return Arc::clone(known);
    }
    let new: Arc<str> = text.into();
    known.insert(Arc::clone(&new));
    new
}

/// Milliseconds of a span.
fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

impl Windows {
    /// Fits what is remembered to the rules that are in force: what is defined otherwise now begins anew, keys that are waited for from
    /// the start on are waited for from `now` on, the rest stays.
    pub fn fit(&mut self, needed: &[Needed], now: i64) {
        let wanted: HashMap<(Arc<str>, WindowPart), &Needed> =
            needed.iter().map(|one| ((Arc::clone(&one.rule), one.definition.part()), one)).collect();
        let is_gone = |place: &(Arc<str>, WindowPart), memory: &Memory| wanted.get(place).is_none_or(|one| one.hash != memory.hash);
        let gone: HashMap<_, _> = self.memories.extract_if(|place, memory| is_gone(place, memory)).collect();
        if !gone.is_empty() {
            self.deadlines.retain(|(_, rule, _)| !gone.contains_key(&(Arc::clone(rule), WindowPart::Window)));
            self.changed.retain(|(rule, part, _)| !gone.contains_key(&(Arc::clone(rule), *part)));
        }
        for ((rule, part), memory) in gone {
            // What was stored of it must not come back when it is defined so again.
            let of = |key: Box<str>| WindowKey { rule: rule.to_string(), part, definition: memory.hash, key: key.into() };
            self.forgotten.extend(memory.keys(usize::MAX).into_iter().map(of));
        }
        for (place, one) in wanted {
            let memory = self.memories.entry(place.clone()).or_insert_with(|| Memory {
                definition: one.definition.clone(),
                hash: one.hash,
                kind: Kind::of(&one.definition),
            });
            memory.definition = one.definition.clone();
            let Definition::Window { kind: WindowKind::Absent { after, keys }, .. } = &one.definition else { continue };
            let Kind::Absent(known) = &mut memory.kind else { continue };
            for key in keys {
                if known.get(key).is_none() && known.insert(key, Absent { last: now, event: None, armed: true, source: None }) {
                    self.deadlines.insert((now.saturating_add(millis(*after)), Arc::clone(&one.rule), key.as_str().into()));
                    self.changed.push((place.0.clone(), place.1, key.as_str().into()));
                }
            }
        }
    }

    /// Takes in what was stored; answers whether a rule in force remembers it, else it can be removed.
    pub fn restore(&mut self, of: &WindowKey, state: &WindowState) -> bool {
        let rule: Arc<str> = of.rule.as_str().into();
        let Some(memory) = self.memories.get_mut(&(Arc::clone(&rule), of.part)).filter(|memory| memory.hash == of.definition) else {
            return false;
        };
        match (&mut memory.kind, state) {
            (Kind::Count(keys), WindowState::Count { times, newest }) => keys.insert(&of.key, Count::of(times, *newest)),
            (Kind::Absent(keys), WindowState::Absent { last, event, armed, source }) => {
                if let Definition::Window { kind: WindowKind::Absent { after, .. }, .. } = &memory.definition
                    && *armed
                {
                    self.deadlines.insert((last.saturating_add(millis(*after)), rule, of.key.as_str().into()));
                }
                let source = source.as_deref().map(|source| interned(&mut self.sources, source));
                keys.insert(&of.key, Absent { last: *last, event: *event, armed: *armed, source })
            }
            (Kind::Throttle(keys), WindowState::Throttle { fired_at }) => keys.insert(&of.key, Throttled { fired_at: *fired_at }),
            _ => false,
        }
    }

    /// An event of a key holds. `at` is when it happened, `now` when it came, both milliseconds since 1970.
    pub fn hold(&mut self, rule: &Arc<str>, key: &str, at: i64, now: i64, event: Origin<'_>) -> Answer {
        let place = (Arc::clone(rule), WindowPart::Window);
        let Some(memory) = self.memories.get_mut(&place) else { return Answer::Fires };
        if key.len() > MAX_KEY_BYTES {
            return Answer::LongKey;
        }
        let Definition::Window { kind, late } = &memory.definition else { return Answer::Fires };
        let answer = match (kind, &mut memory.kind) {
            (WindowKind::Count { count, within, .. }, Kind::Count(keys)) => {
                let Some(entry) = keys.entry(key, |entry| entry.is_over(now, millis(*within))) else { return Answer::TooManyKeys };
                entry.add(at, now, *count, millis(*within), millis(*late))
            }
            (WindowKind::Absent { after, .. }, Kind::Absent(keys)) => {
                let Some(entry) = keys.entry(key, |entry| entry.is_over(now, millis(*late))) else { return Answer::TooManyKeys };
                let before = entry.armed.then(|| entry.last.saturating_add(millis(*after)));
                let is_known = entry.event.is_some() && entry.last <= now + AHEAD_MS;
                // The silence after an event is told once, so only a newer one is waited for again.
                if is_known && (at < entry.last.saturating_sub(millis(*late)) || (!entry.armed && at <= entry.last)) {
                    return Answer::Late { behind: entry.last - at };
                }
                entry.last = if entry.last > now + AHEAD_MS || !entry.armed { at } else { entry.last.max(at) };
                (entry.event, entry.armed) = (Some(event.id), true);
                entry.source = Some(interned(&mut self.sources, event.source));
                let until = entry.last.saturating_add(millis(*after));
                if before != Some(until) {
                    if let Some(before) = before {
                        self.deadlines.remove(&(before, Arc::clone(rule), key.into()));
                    }
                    self.deadlines.insert((until, Arc::clone(rule), key.into()));
                }
                Answer::Armed { until: self.outages.extend(entry.source.as_deref(), until - millis(*after), until) }
            }
            _ => return Answer::Fires,
        };
        if !matches!(answer, Answer::Late { .. }) {
            self.changed.push((place.0, place.1, key.into()));
        }
        answer
    }

    /// An event of a key does not hold: where every one must, the count begins anew. One that is too late does not count here either.
    pub fn miss(&mut self, rule: &Arc<str>, key: &str, at: i64, now: i64) {
        let place = (Arc::clone(rule), WindowPart::Window);
        if let Some(Memory { kind: Kind::Count(keys), definition: Definition::Window { late, .. }, .. }) = self.memories.get_mut(&place)
            && let Some(entry) = keys.get_mut(key)
            && !entry.is_late(at, now, millis(*late))
            && entry.clear()
        {
            self.changed.push((place.0, place.1, key.into()));
        }
    }

    /// Whether something may run now, and notes that it does.
    pub fn pass(&mut self, rule: &Arc<str>, key: &str, at: i64, now: i64) -> Answer {
        let place = (Arc::clone(rule), WindowPart::Throttle);
        let Some(Memory { definition: Definition::Throttle(once_per), kind: Kind::Throttle(keys), .. }) = self.memories.get_mut(&place)
        else {
            return Answer::Fires;
        };
        if key.len() > MAX_KEY_BYTES {
            return Answer::LongKey;
        }
        let once_per = millis(*once_per);
        if let Some(known) = keys.get(key)
            && known.fired_at <= now + AHEAD_MS
            && at < known.fired_at.saturating_add(once_per)
        {
            return Answer::Throttled { until: known.fired_at.saturating_add(once_per) };
        }
        let Some(entry) = keys.entry(key, |entry| entry.is_over(now, once_per)) else { return Answer::TooManyKeys };
        entry.fired_at = at;
        self.changed.push((place.0, place.1, key.into()));
        Answer::Fires
    }

    /// When the next silence may have lasted long enough.
    #[must_use]
    pub fn next_deadline(&self) -> Option<i64> {
        self.deadlines.first().map(|(deadline, _, _)| *deadline)
    }

    /// Where events came from whose silence is waited for.
    #[must_use]
    pub fn sources(&self) -> &BTreeSet<Arc<str>> {
        &self.sources
    }

    /// Whether some key is waited for.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        !self.deadlines.is_empty()
    }

    /// Silences that have lasted long enough at a time; at most so many. They are not waited for any more.
    pub fn silences(&mut self, now: i64, limit: usize) -> Vec<Silence> {
        let mut found = Vec::new();
        let mut later = Vec::new();
        while found.len() < limit
            && let Some((_, rule, key)) = self.deadlines.first().filter(|(deadline, _, _)| *deadline <= now).cloned()
        {
            self.deadlines.pop_first();
            let place = (Arc::clone(&rule), WindowPart::Window);
            let Some(Memory {
                definition: Definition::Window { kind: WindowKind::Absent { after, .. }, .. },
                kind: Kind::Absent(keys),
                ..
            }) = self.memories.get_mut(&place)
            else {
                continue;
            };
            let Some(entry) = keys.get_mut(&key).filter(|entry| entry.armed) else { continue };
            if self.outages.is_out(entry.source.as_deref()) {
                later.push((now + 1_000, rule, key)); // nothing can come now: it is looked at again
                continue;
            }
            let due = self.outages.extend(entry.source.as_deref(), entry.last, entry.last.saturating_add(millis(*after)));
            if due > now {
                later.push((due, rule, key));
                continue;
            }
            entry.armed = false;
            self.changed.push((place.0, place.1, key.clone()));
            found.push(Silence { rule, key: key.into(), deadline: due, last: entry.event });
        }
        self.deadlines.extend(later);
        found
    }

    /// Whether anything has changed since that was asked for last.
    #[must_use]
    pub fn has_changes(&self) -> bool {
        !self.changed.is_empty() || !self.forgotten.is_empty()
    }

    /// A silence could not be told now: it is told a little later.
    pub fn tell_later(&mut self, silence: &Silence, now: i64) {
        let place = (Arc::clone(&silence.rule), WindowPart::Window);
        if let Some(Memory { kind: Kind::Absent(keys), .. }) = self.memories.get_mut(&place)
            && let Some(entry) = keys.get_mut(&silence.key)
        {
            entry.armed = true;
            self.deadlines.insert((now + 1_000, place.0, silence.key.as_str().into()));
        }
    }

    /// A silence is not to be told: the wait for the key begins anew.
    pub fn wait_again(&mut self, silence: &Silence, now: i64) {
        let place = (Arc::clone(&silence.rule), WindowPart::Window);
        if let Some(Memory {
            definition: Definition::Window { kind: WindowKind::Absent { after, .. }, .. }, kind: Kind::Absent(keys), ..
        }) = self.memories.get_mut(&place)
            && let Some(entry) = keys.get_mut(&silence.key)
        {
            (entry.last, entry.armed) = (now, true);
            self.deadlines.insert((now.saturating_add(millis(*after)), place.0, silence.key.as_str().into()));
        }
    }

    /// What has changed since this was asked for last, as it is now.
    pub fn take_changes(&mut self) -> Vec<WindowChange> {
        let spare = self.forgotten.len().saturating_sub(FORGOTTEN_TOGETHER);
        let forgotten = self.forgotten.split_off(spare).into_iter().map(|of| WindowChange { of, state: None });
        let mut changed = std::mem::take(&mut self.changed);
        changed.sort_unstable();
        changed.dedup();
        changed
            .into_iter()
            .filter_map(|(rule, part, key)| {
                let memory = self.memories.get(&(Arc::clone(&rule), part))?;
                let state = memory.state(&key);
                Some(WindowChange { of: WindowKey { rule: rule.to_string(), part, definition: memory.hash, key: key.into() }, state })
            })
            .chain(forgotten)
            .collect()
    }

    /// Forgets a share of what has no meaning any more at a time: a sixteenth of each memory, another one each time.
    pub fn sweep(&mut self, now: i64) {
        for ((rule, part), memory) in &mut self.memories {
            let over: Vec<Box<str>> = match (&memory.definition, &mut memory.kind) {
                (Definition::Window { kind: WindowKind::Count { within, .. }, late }, Kind::Count(keys)) => {
                    let span = millis(*within).max(millis(*late));
                    keys.sweep(|entry| entry.is_over(now, span))
                }
                (Definition::Window { kind: WindowKind::Absent { keys: named, .. }, late }, Kind::Absent(keys)) => {
                    let mut over = keys.sweep(|entry| entry.is_over(now, millis(*late)));
                    // Those that are named must not be waited for anew after a restart.
                    for key in named {
                        if let Some(at) = over.iter().position(|gone| **gone == **key) {
                            over.swap_remove(at);
                            keys.insert(key, Absent { last: now, event: None, armed: false, source: None });
                        }
                    }
                    over
                }
                (Definition::Throttle(once_per), Kind::Throttle(keys)) => keys.sweep(|entry| entry.is_over(now, millis(*once_per))),
                _ => Vec::new(),
            };
            self.changed.extend(over.into_iter().map(|key| (Arc::clone(rule), *part, key)));
        }
    }

    /// The keys of a rule, at most so many of its window and as many of its throttle.
    #[must_use]
    pub fn of_rule(&self, rule: &str, limit: usize) -> Vec<OpenWindow> {
        let rule: Arc<str> = rule.into();
        let mut found = Vec::new();
        for part in [WindowPart::Window, WindowPart::Throttle] {
            let Some(memory) = self.memories.get(&(Arc::clone(&rule), part)) else { continue };
            for key in memory.keys(limit) {
                let Some(state) = memory.state(&key) else { continue };
                let until = self.until(memory, &state);
                found.push(OpenWindow { part, key: key.into(), state, until });
            }
        }
        found
    }

    /// How many keys of a rule are remembered, in its window and in its throttle.
    #[must_use]
    pub fn count_of(&self, rule: &str) -> (usize, usize) {
        let rule: Arc<str> = rule.into();
        let of = |part| self.memories.get(&(Arc::clone(&rule), part)).map_or(0, Memory::len);
        (of(WindowPart::Window), of(WindowPart::Throttle))
    }

    /// How many keys are remembered of all rules.
    #[must_use]
    pub fn len(&self) -> usize {
        self.memories.values().map(Memory::len).sum()
    }

    /// Whether nothing is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn until(&self, memory: &Memory, state: &WindowState) -> Option<i64> {
        match (&memory.definition, state) {
            (Definition::Window { kind: WindowKind::Count { within, .. }, .. }, WindowState::Count { times, .. }) => {
                Some(times.first()?.saturating_add(millis(*within)))
            }
            (Definition::Window { kind: WindowKind::Absent { after, .. }, .. }, WindowState::Absent { last, armed: true, source, .. }) => {
                Some(self.outages.extend(source.as_deref(), *last, last.saturating_add(millis(*after))))
            }
            (Definition::Throttle(once_per), WindowState::Throttle { fired_at }) => Some(fired_at.saturating_add(millis(*once_per))),
            _ => None,
        }
    }
}

impl Memory {
    fn len(&self) -> usize {
        match &self.kind {
            Kind::Count(keys) => keys.len(),
            Kind::Absent(keys) => keys.len(),
            Kind::Throttle(keys) => keys.len(),
        }
    }

    fn keys(&self, limit: usize) -> Vec<Box<str>> {
        match &self.kind {
            Kind::Count(keys) => keys.first(limit),
            Kind::Absent(keys) => keys.first(limit),
            Kind::Throttle(keys) => keys.first(limit),
        }
    }

    fn state(&self, key: &str) -> Option<WindowState> {
        Some(match &self.kind {
            Kind::Count(keys) => keys.get(key)?.state(),
            Kind::Absent(keys) => {
                let Absent { last, event, armed, source } = keys.get(key)?;
                WindowState::Absent { last: *last, event: *event, armed: *armed, source: source.as_deref().map(ToString::to_string) }
            }
            Kind::Throttle(keys) => WindowState::Throttle { fired_at: keys.get(key)?.fired_at },
        })
    }
}

#[cfg(test)]
mod tests;
