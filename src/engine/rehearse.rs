//! Tries a rule on the events that are stored, from the oldest to the newest, as if it had been in force: through the same judgement as
//! live, with windows and throttles that begin empty. A page at a time, on a thread that stands back; nothing is changed or run.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use serde_json::{Map, Value};
use ulid::Ulid;

use super::catalog::Catalog;
use super::evaluate::nothing_yet;
use super::ruling::State;
use super::{Engine, RequestError};
use crate::document::fault::{Fault, SourceFile, nearest};
use crate::document::fields::Faults;
use crate::document::node;
use crate::model::action::{Action, bind, masked};
use crate::model::event::StoredEvent;
use crate::model::ids::{EventId, ExecutionId};
use crate::model::place::Place;
use crate::model::reason::Reason;
use crate::model::rule::{Mode, Rule};
use crate::pack;
use crate::rule::book::{CompiledRule, RuleBook};
use crate::rule::judge::{self, Known, Off, Rendered, World, explain, judge};
use crate::rule::switch;
use crate::rule::windows::{Needed, Silence};
use crate::store::{Page, StoreError};
use crate::tasks;

/// Events that are looked at, of any trigger, at most; the newest of the span.
pub const MAX_EVENTS: u64 = 1_000_000;

/// How long it may take in all.
const MAX_TIME: Duration = Duration::from_secs(600);

/// Events read together.
const PAGE: usize = 250;

/// How often what windows remember for nothing is forgotten, in the time of the events.
const SWEEP_MS: i64 = 10_000;

/// Silences asked for together.
const SILENCES_TOGETHER: usize = 1_000;

/// Compiles a rule by itself, as the loader does; a file of any name, if the rule is named in it.
///
/// # Errors
/// Everything that is wrong with it.
pub fn compile(source: &SourceFile, pack: &str) -> Result<CompiledRule, Vec<Fault>> {
    let mut faults = Faults::default();
    let node = node::parse(source).map_err(|fault| vec![fault])?;
    let file = source.path.rsplit('/').next().unwrap_or_default();
    let stem = file.rsplit_once('.').map_or(file, |(stem, _)| stem);
    let name = node.value()["name"].as_str().unwrap_or(stem).to_string();
    match pack::rule::read(source, &node, pack, &name, &mut faults) {
        Some(rule) if faults.allow() => Ok(rule),
        _ => Err(faults.0),
    }
}

/// What a rule refers to and the site does not have, and parameters that do not fit its action.
#[must_use]
pub fn misfits(catalog: &Catalog, rule: &CompiledRule, source: &SourceFile) -> Vec<Fault> {
    let rule = &rule.rule;
    let at = |place: &Place, message: String| source.fault(place.line, place.column, message);
    let missing = |what: &str, place: &Place, name: &str, known: Vec<&str>| {
        let fault = at(place, format!("rule `{}`: there is no {what} `{name}`", rule.reference));
        match nearest(name, known) {
            Some(nearest) => fault.hint(format!("did you mean `{nearest}`?")),
            None => fault,
        }
    };
    let mut faults = Vec::new();
    if !catalog.triggers.contains_key(&*rule.trigger) {
        faults.push(missing("trigger", &rule.place(rule.trigger_at), &rule.trigger, catalog.triggers.keys().map(String::as_str).collect()));
    }
    if let Some(notify) = rule.notify.as_ref().filter(|notify| !catalog.channels.contains_key(&notify.value.channel)) {
        faults.push(missing(
            "channel",
            &rule.place(notify.at),
            &notify.value.channel,
            catalog.channels.keys().map(String::as_str).collect(),
        ));
    }
    match catalog.actions.get(&*rule.action) {
        None => {
            faults.push(missing("action", &rule.place(rule.action_at), &rule.action, catalog.actions.keys().map(String::as_str).collect()));
        }
        Some(action) => {
            faults.extend(pack::rule::check_parameters(rule, action).into_iter().map(|(message, place)| at(&place, message)));
        }
    }
    faults
}

/// What is tried, and on what.
pub struct Asked {
    /// The rule.
    pub rule: CompiledRule,
    /// On events that came then or later.
    pub since: DateTime<Utc>,
    /// And before then.
    pub until: DateTime<Utc>,
    /// Matches that are shown, at most.
    pub limit: usize,
}

/// What a rule would have done.
#[derive(Debug, Serialize)]
pub struct Rehearsal {
    /// The rule, `pack.name`.
    pub rule: String,
    /// Its trigger.
    pub trigger: String,
    /// On events that came then or later.
    pub since: DateTime<Utc>,
    /// And before then.
    pub until: DateTime<Utc>,
    /// Events that were looked at, of any trigger.
    pub scanned: u64,
    /// Events of its trigger that it was tried on.
    pub tried: u64,
    /// What was left out, if not everything was looked at.
    pub cut: Option<String>,
    /// How often it would have run something.
    pub matched: u64,
    /// How often it said what.
    pub reasons: Vec<Count>,
    /// The first matches.
    pub matches: Vec<Matched>,
    /// What the rule of that name did that was in force.
    pub in_force: InForce,
    /// Keys of the datastore that the rule names, and that some events were not judged by then: it saw what they hold now.
    pub keys_as_now: Vec<String>,
}

/// How often a rule said something.
#[derive(Debug, Serialize)]
pub struct Count {
    /// The reason.
    pub reason: Reason,
    /// What it means.
    pub meaning: &'static str,
    /// How often.
    pub count: u64,
    /// The last event of which it said so.
    pub event: Option<EventId>,
}

/// A match.
#[derive(Debug, Serialize)]
pub struct Matched {
    /// The event; for silence the last one, if there was one.
    pub event: Option<EventId>,
    /// When it came; for silence when that was long enough.
    pub at: DateTime<Utc>,
    /// What the event is about, or the key for which nothing came.
    pub key: Option<String>,
    /// Matched, or silent.
    pub reason: Reason,
    /// The parameters of the action.
    pub parameters: Option<Map<String, Value>>,
    /// Why the action could not be asked for.
    pub error: Option<String>,
    /// Whether the rule that was in force matched, too.
    pub in_force: bool,
}

/// What the rule of the name that was in force did with the same events.
#[derive(Debug, Default, Serialize)]
pub struct InForce {
    /// Whether there is a rule of the name now.
    pub exists: bool,
    /// How often it matched, silences that only it saw aside.
    pub matched: u64,
    /// Matches of both.
    pub both: u64,
    /// Matches of the one that was in force alone.
    pub only_then: u64,
    /// Matches of the one that is tried alone.
    pub only_now: u64,
}

/// Tries a rule.
///
/// # Errors
/// When another is being tried, or the store cannot be read.
pub async fn rehearse(engine: &Engine, asked: Asked) -> Result<Rehearsal, RequestError> {
    let busy = || RequestError::Conflict("another rule is being tried on stored events; wait for its end".into());
    let _alone = engine.ruling.rehearsing.try_lock().map_err(|_| busy())?;
    let ends = engine.clock.now() + MAX_TIME;
    let trail = Trail::find(engine, &asked, ends).await?;
    let mut stage = Box::new(Stage::new(engine, asked, &trail));
    let mut in_time = true;
    for before in trail.pages.iter().rev() {
        in_time = engine.clock.now() < ends;
        if !in_time {
            let upto = stage.now.to_rfc3339_opts(SecondsFormat::Secs, true);
            stage.answer.cut = Some(format!("it took longer than {MAX_TIME:?}; events after {upto} were not tried"));
            break;
        }
        let mut page = engine.store.events(Page { before: Some(*before), limit: PAGE }).await?;
        page.reverse();
        stage = on_stage(stage, move |stage| page.iter().for_each(|event| stage.see(event))).await?;
        stage.silences_in_force(engine).await?;
    }
    if in_time {
        let until = stage.answer.until;
        stage = on_stage(stage, move |stage| stage.silent_until(until)).await?;
        stage.silences_in_force(engine).await?;
    }
    Ok(stage.ended())
}

async fn on_stage(mut stage: Box<Stage>, work: impl FnOnce(&mut Stage) + Send + 'static) -> Result<Box<Stage>, StoreError> {
    let done = tasks::in_background("rule-test", move || {
        work(&mut stage);
        stage
    });
    done.await.map_err(|error| StoreError::Unavailable(format!("the rule could not be tried: {error}")))
}

/// Where the events of a trigger lie. The store is read from the newest on, so the way back is noted first.
struct Trail {
    /// Before which event each page begins that has some; the newest page first.
    pages: Vec<EventId>,
    /// The oldest event that is looked at.
    oldest: EventId,
    scanned: u64,
    cut: Option<String>,
}

impl Trail {
    async fn find(engine: &Engine, asked: &Asked, ends: DateTime<Utc>) -> Result<Self, StoreError> {
        let oldest = at(asked.since);
        let mut trail = Self { pages: Vec::new(), oldest, scanned: 0, cut: None };
        let mut before = at(asked.until);
        loop {
            let page = engine.store.events(Page { before: Some(before), limit: PAGE }).await?;
            let inside = page.iter().take_while(|stored| stored.event.id >= oldest);
            let (mut count, mut has_some) = (0, false);
            for stored in inside {
                count += 1;
                has_some |= *stored.event.trigger == *asked.rule.rule.trigger;
            }
            trail.scanned += count as u64;
            if has_some {
                trail.pages.push(before);
            }
            let Some(last) = page.last().filter(|_| count == PAGE) else { return Ok(trail) };
            before = last.event.id;
            let in_time = engine.clock.now() < ends - MAX_TIME / 2;
            if trail.scanned >= MAX_EVENTS || !in_time {
                let why = if in_time { format!("{MAX_EVENTS} events are looked at") } else { "it takes long".to_string() };
                let from = last.event.received_at.to_rfc3339_opts(SecondsFormat::Secs, true);
                trail.oldest = before;
                trail.cut = Some(format!("{why}; those before {from} were left out"));
                return Ok(trail);
            }
        }
    }
}

/// The least id of a time.
fn at(time: DateTime<Utc>) -> EventId {
    EventId(Ulid::from_parts(u64::try_from(time.timestamp_millis()).unwrap_or(0), 0))
}

/// A rule alone with its windows, and what has been found so far.
struct Stage {
    book: RuleBook,
    rule: Arc<CompiledRule>,
    action: Option<Arc<Action>>,
    off: Off,
    state: State,
    keys: Arc<BTreeMap<String, Value>>,
    oldest: EventId,
    limit: usize,
    now: DateTime<Utc>,
    last: Option<EventId>,
    sweep_at: i64,
    counts: HashMap<Reason, (u64, Option<EventId>)>,
    /// Silences of which it is not known yet whether the rule in force saw them, and where they stand among the matches.
    silences: Vec<(Silence, Option<usize>)>,
    answer: Rehearsal,
}

impl Stage {
    fn new(engine: &Engine, asked: Asked, trail: &Trail) -> Self {
        let Asked { mut rule, since, until, limit } = asked;
        let catalog = engine.catalog.get();
        let now = engine.clock.now();
        let off = switch::off(&rule.rule, &rule.revision(), &[], now);
        if rule.rule.mode == Mode::Shadow
            && let Ok(active) = CompiledRule::compile(Rule { mode: Mode::Active, ..rule.rule.clone() })
        {
            rule = active; // what a rule in shadow would do is what is asked
        }
        let reference = rule.rule.reference.to_string();
        let answer = Rehearsal {
            rule: reference.clone(),
            trigger: rule.rule.trigger.to_string(),
            since,
            until,
            scanned: trail.scanned,
            tried: 0,
            cut: trail.cut.clone(),
            matched: 0,
            reasons: Vec::new(),
            matches: Vec::new(),
            in_force: InForce { exists: catalog.rules.get(&reference).is_some(), ..InForce::default() },
            keys_as_now: Vec::new(),
        };
        let mut state = State::default();
        state.windows.outages = engine.ruling.state().windows.outages.clone();
        state.windows.outages.end(None, now.timestamp_millis());
        state.windows.outages.end(Some(&rule.rule.trigger), now.timestamp_millis());
        state.windows.fit(&rule.needed().collect::<Vec<Needed>>(), since.timestamp_millis());
        let book = RuleBook::new([rule]);
        let rule = Arc::clone(book.get(&reference).expect("it was put into the book"));
        Self {
            action: catalog.actions.get(&*rule.rule.action).cloned(),
            off: off.map(|why| (reference.as_str().into(), why)).into_iter().collect(),
            keys: engine.ruling.keys(now),
            oldest: trail.oldest,
            sweep_at: since.timestamp_millis(),
            now: since,
            last: None,
            counts: HashMap::new(),
            silences: Vec::new(),
            book,
            rule,
            state,
            limit,
            answer,
        }
    }

    /// Tries the rule on one event.
    fn see(&mut self, stored: &StoredEvent) {
        let event = &stored.event;
        let is_new = event.id >= self.oldest && self.last.is_none_or(|last| event.id > last);
        if *event.trigger != *self.rule.rule.trigger || stored.set_aside.is_some() || !is_new {
            return;
        }
        self.silent_until(event.received_at);
        (self.last, self.answer.tried) = (Some(event.id), self.answer.tried + 1);
        let name = &self.rule.rule.reference;
        let own = stored.verdicts.iter().find(|verdict| verdict.rule == **name);
        let matched_then = own.is_some_and(|verdict| matches!(verdict.reason, Reason::Matched | Reason::Shadowed));
        let another = stored.verdicts.iter().any(|verdict| verdict.rule != **name && verdict.reason.passed_guard());
        let reason = if self.rule.rule.backstop && another { Reason::BackstopNotNeeded } else { self.judge(stored, matched_then) };
        self.count(reason, Some(event.id));
        self.compare(reason == Reason::Matched, matched_then);
    }

    fn judge(&mut self, stored: &StoredEvent, matched_then: bool) -> Reason {
        let event = &stored.event;
        let keys = self.keys_of(stored);
        let world = World { keys: &keys, off: &self.off };
        let Ok(mut judgement) = judge(&self.book, event, world, &mut self.state.windows) else { return Reason::EvaluationFailed };
        if !judgement.overruns.is_empty() && self.state.overrun(&self.rule.rule.reference, event.received_at.timestamp_millis()) {
            self.off.insert(Arc::clone(self.rule.rule.reference.shared()), (Reason::Quarantined, String::new()));
        }
        if !judgement.matches.is_empty() {
            let (rule, at, key) = (Arc::clone(&self.rule), event.received_at, event.key.clone());
            self.show(Some(event.id), at, key, Reason::Matched, || judgement.parameters(&rule), matched_then);
            return Reason::Matched;
        }
        if let Some(near) = judgement.near_misses.pop() {
            return near.reason;
        }
        let known = Known { keys, off: self.off.values().next().cloned(), ..Known::default() };
        explain(&self.rule, event, &known).map_or(Reason::EvaluationFailed, |(verdict, _)| verdict.reason)
    }

    /// The keys that the rule names: as they were when the event came, where that was kept.
    fn keys_of(&mut self, stored: &StoredEvent) -> BTreeMap<String, Value> {
        let mut keys = BTreeMap::new();
        for name in self.rule.keys() {
            let value = if let Some(then) = stored.keys.get(name) {
                Some(then).filter(|then| !then.is_null()) // one that was not there
            } else {
                if !self.answer.keys_as_now.contains(name) {
                    self.answer.keys_as_now.push(name.clone());
                }
                self.keys.get(name)
            };
            keys.extend(value.map(|value| (name.clone(), value.clone())));
        }
        keys
    }

    /// Time passes without events.
    fn silent_until(&mut self, now: DateTime<Utc>) {
        self.now = now;
        let ms = now.timestamp_millis();
        loop {
            let found = self.state.windows.silences(ms, SILENCES_TOGETHER);
            let is_last = found.len() < SILENCES_TOGETHER;
            for silence in found {
                if !self.off.is_empty() {
                    continue;
                }
                let deadline = DateTime::from_timestamp_millis(silence.deadline).unwrap_or(now);
                self.count(Reason::Silent, silence.last);
                let place = self.answer.matches.len();
                let (last, key) = (silence.last, Some(silence.key.clone()));
                self.show(last, deadline, key, Reason::Silent, || Ok(Map::new()), false); // they are made below
                self.silences.push((silence, Some(place).filter(|place| *place < self.answer.matches.len())));
            }
            if is_last {
                break;
            }
        }
        if ms >= self.sweep_at {
            self.sweep_at = ms + SWEEP_MS;
            self.state.windows.sweep(ms);
            self.state.windows.take_changes(); // nothing of this is stored
        }
    }

    /// Looks up whether the rule in force saw the same silences, and makes the parameters of those that are shown.
    async fn silences_in_force(&mut self, engine: &Engine) -> Result<(), StoreError> {
        for (silence, place) in std::mem::take(&mut self.silences) {
            let deadline = DateTime::from_timestamp_millis(silence.deadline).unwrap_or(self.now);
            let id = ExecutionId::of_silence(&silence.rule, &silence.key, silence.last, deadline);
            let then = engine.store.execution(id).await?.is_some();
            self.compare(true, then);
            let Some(place) = place else { continue };
            let last = match silence.last {
                Some(id) => engine.store.event(id).await?.map(|stored| stored.event),
                None => None,
            };
            let last = last.unwrap_or_else(|| nothing_yet(&self.rule, &silence.key, deadline));
            let world = World { keys: &self.keys, off: &self.off };
            let made = judge::silence(&self.rule, &last, deadline, world, &mut self.state.windows);
            let (parameters, error) = self.bound(made.unwrap_or_else(|| Err("its throttle holds it".into())));
            let shown = &mut self.answer.matches[place];
            (shown.parameters, shown.error, shown.in_force) = (parameters, error, then);
        }
        Ok(())
    }

    fn show(
        &mut self,
        event: Option<EventId>,
        at: DateTime<Utc>,
        key: Option<String>,
        reason: Reason,
        make: impl FnOnce() -> Rendered,
        in_force: bool,
    ) {
        self.answer.matched += 1;
        if self.answer.matches.len() < self.limit {
            let (parameters, error) = self.bound(make());
            self.answer.matches.push(Matched { event, at, key, reason, parameters, error, in_force });
        }
    }

    /// The parameters as the action would get them, without secrets; or what is wrong with them.
    fn bound(&self, made: Rendered) -> (Option<Map<String, Value>>, Option<String>) {
        let declared = self.action.as_ref().map_or(&[][..], |action| &action.parameters);
        match made.map(|given| (bind(declared, &given), given)) {
            Err(error) => (None, Some(error)),
            Ok((Ok(bound), _)) => (Some(masked(declared, &bound)), None),
            Ok((Err(faults), given)) => (Some(masked(declared, &given)), Some(faults.join("; "))),
        }
    }

    fn count(&mut self, reason: Reason, event: Option<EventId>) {
        let (count, last) = self.counts.entry(reason).or_default();
        (*count, *last) = (*count + 1, event);
    }

    fn compare(&mut self, now: bool, then: bool) {
        let in_force = &mut self.answer.in_force;
        in_force.matched += u64::from(then);
        match (now, then) {
            (true, true) => in_force.both += 1,
            (true, false) => in_force.only_now += 1,
            (false, true) => in_force.only_then += 1,
            (false, false) => {}
        }
    }

    fn ended(self) -> Rehearsal {
        let count = |reason: &Reason| {
            let (count, event) = self.counts.get(reason)?;
            Some(Count { reason: *reason, meaning: reason.meaning(), count: *count, event: *event })
        };
        let reasons = Reason::ALL.iter().filter_map(count).collect();
        Rehearsal { reasons, ..self.answer }
    }
}
