//! What tests fill stores with: random batches, the plain model that says what must be read afterwards, and everything that can be read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::{Map, json};
use signalman::model::event::{Event, StoredEvent};
use signalman::model::execution::{Change, Execution, LogLine, Request};
use signalman::model::hash::Revision;
use signalman::model::ids::{EventId, ExecutionId, IdSource, MessageId};
use signalman::model::json::RawJson;
use signalman::model::message::{Delivery, Destination, Message};
use signalman::model::principal::Principal;
use signalman::model::reason::Reason;
use signalman::store::{Batch, Keep, KeyChange, Limit, Page, Ruleset, Sighting, Store, StoreError};

use crate::harness::Random;

/// Everything that can be read, as text by name: `event/01J…`.
pub type Content = BTreeMap<String, String>;

const PACKS: u64 = 2;
const KEYS: u64 = 6;
const SETTINGS: u64 = 3;
const DEFINITIONS: u64 = 5;
const SENDERS: u64 = 12;

const DAY: Duration = Duration::from_secs(86_400);

/// When every simulated story begins.
pub fn start() -> DateTime<Utc> {
    DateTime::from_timestamp(1_700_000_000, 0).unwrap()
}

pub fn seconds(seconds: i64) -> chrono::Duration {
    chrono::Duration::seconds(seconds)
}

pub fn limit(age_s: u64, count: Option<u64>) -> Limit {
    Limit { age: Duration::from_secs(age_s), count }
}

/// How long a sender's key is remembered: it is the same for each use of a key.
fn memory_of(sender: u64) -> Duration {
    match sender % 3 {
        0 => DAY,
        1 => 31 * DAY,
        _ => Duration::from_secs(600),
    }
}

pub fn event(ids: &IdSource, at: DateTime<Utc>, ruleset: u64, text: String) -> Arc<StoredEvent> {
    let event = Event {
        id: ids.event(at),
        trigger: "t.e".into(),
        key: None,
        dedup_key: None,
        occurred_at: at,
        received_at: at,
        source: "test".into(),
        cause: None,
        depth: 0,
        payload: RawJson::of(&json!({"text": text})),
    };
    Arc::new(StoredEvent { event, ruleset, verdicts: Vec::new(), more_near_misses: 0, keys: serde_json::Map::new(), set_aside: None })
}

pub fn execution(ids: &IdSource, at: DateTime<Utc>) -> Execution {
    let request = Request {
        action: "t.a".into(),
        parameters: Map::new(),
        requested_by: Principal::Token("admin".into()),
        requested_at: at,
        event: None,
        key: None,
        rerun_of: None,
        depth: 0,
        parent: None,
        notify: None,
        idempotent: true,
        asked: None,
    };
    Execution::requested(ids.execution(at), request, Reason::Requested)
}

pub fn message(ids: &IdSource, at: DateTime<Utc>, text: String) -> Message {
    Message {
        id: ids.message(at),
        channel: "ops".into(),
        destination: Destination { adapter: "console".into(), to: "ops".into() },
        text,
        created_at: at,
        execution: None,
        replaces: None,
        passing: false,
        delivery: Delivery::Waiting,
    }
}

/// Text that no engine can compress away.
pub fn noise(random: &mut Random, bytes: u64) -> String {
    (0..bytes).map(|_| char::from(b'a' + u8::try_from(random.below(26)).unwrap())).collect()
}

/// What must be in a store.
#[derive(Clone, Default)]
pub struct Model {
    pub content: Content,
    open: BTreeMap<ExecutionId, Execution>,
    waiting: BTreeMap<MessageId, Message>,
    sightings: BTreeMap<u64, Sighting>,
    rulesets: BTreeMap<u64, Ruleset>,
    /// To which set of rules the events that are there refer.
    refers: BTreeMap<String, u64>,
    /// Whether a move to a lane was cut short: what was moved may lie in two databases until it is done again, and counts twice so long.
    pub counts_twice: bool,
    /// How many logs have been written, and which of them was the last of an execution.
    log_writes: u64,
    logged: BTreeMap<String, u64>,
}

impl Model {
    /// As a commit of the batch.
    pub fn apply(&mut self, batch: &Batch) {
        for event in &batch.events {
            self.content.insert(format!("event/{}", event.event.id), serde_json::to_string(&**event).unwrap());
            self.refers.insert(format!("event/{}", event.event.id), event.ruleset);
        }
        for execution in &batch.requested {
            self.put_execution(Execution::clone(execution));
        }
        for (id, state) in &batch.states {
            let mut execution = self.open[id].clone();
            execution.state = state.clone();
            self.put_execution(execution);
        }
        for message in batch.messages.iter().chain(&batch.deliveries) {
            self.content.insert(format!("message/{}", message.id), serde_json::to_string(message).unwrap());
            if message.delivery == Delivery::Waiting {
                self.waiting.insert(message.id, message.clone());
                self.content.insert(format!("waiting/{}", message.id), String::new());
            } else {
                self.waiting.remove(&message.id);
                self.content.remove(&format!("waiting/{}", message.id));
            }
        }
        for change in &batch.keys {
            let name = format!("key/{}/{}", change.scope, change.name);
            match change.entry.as_ref().map(|entry| &entry.value) {
                Some(value) => self.content.insert(name, value.to_string()),
                None => self.content.remove(&name),
            };
        }
        for (revision, value) in &batch.definitions {
            self.content.insert(format!("definition/{}", revision.0), value.to_string());
        }
        if let Some(ruleset) = &batch.ruleset {
            self.content.insert(format!("ruleset/{:06}", ruleset.number), serde_json::to_string(ruleset).unwrap());
            self.rulesets.insert(ruleset.number, ruleset.clone());
        }
        for (name, value) in &batch.settings {
            self.content.insert(format!("setting/{name}"), value.to_string());
        }
        for sighting in &batch.sightings {
            self.sightings.insert(sighting.key[1..].parse().unwrap(), sighting.clone());
        }
    }

    fn put_execution(&mut self, execution: Execution) {
        let id = execution.id;
        let (name, open, log) = (format!("execution/{id}"), format!("open/{id}"), format!("log/{id}"));
        let (text, lines) = execution_text(&execution);
        if lines.is_some() || execution.state.attempt > 1 {
            self.log_writes += 1;
            self.logged.insert(id.to_string(), self.log_writes);
        }
        self.content.insert(name, text);
        match lines {
            Some(lines) => self.content.insert(log, lines),
            None => self.content.remove(&log),
        };
        if execution.state.status.is_final() {
            self.content.remove(&open);
            self.open.remove(&id);
        } else {
            self.content.insert(open, String::new());
            self.open.insert(id, execution);
        }
    }

    /// Compares what was read with what must be there, and forgets what retention was right to remove. `Err` says what is wrong.
    pub fn compare(&mut self, read: &Content, now: DateTime<Utc>, keep: &Keep) -> Result<(), String> {
        let mut expected = self.content.clone();
        for (sender, sighting) in &self.sightings {
            if sighting.seen_at > now - memory_of(*sender) {
                expected.insert(format!("sighting/s{sender}"), sighting_text(sighting));
            }
        }
        for (name, value) in read {
            match expected.get(name) {
                None => return Err(format!("{name} is there and must not be: {}", short(value))),
                Some(other) if other != value => return Err(format!("{name} is {}, and must be {}", short(value), short(other))),
                Some(_) => {}
            }
        }
        let missing: Vec<String> = expected.keys().filter(|name| !read.contains_key(*name)).cloned().collect();
        for name in missing {
            if let Err(why) = self.may_be_gone(&name, read, now, keep) {
                return Err(format!("{name} is missing: {why}"));
            }
            self.content.remove(&name);
            self.refers.remove(&name);
        }
        Ok(())
    }

    /// How many logs were written after that of an execution was for the last time, whatever has become of them. One that was asked for
    /// earlier may have ended later.
    fn logs_since(&self, id: &str) -> u64 {
        self.log_writes - self.logged.get(id).copied().unwrap_or(0)
    }

    /// Whether retention may have removed it.
    fn may_be_gone(&self, name: &str, read: &Content, now: DateTime<Utc>, keep: &Keep) -> Result<(), String> {
        let (kind, id) = name.split_once('/').unwrap();
        let newer = |kind: &str| {
            let (low, high) = (format!("{kind}/{id}"), format!("{kind}0"));
            read.range(low..high).count() as u64
        };
        let (limit, newer) = match kind {
            "event" => (keep.events, newer("event")),
            "log" if !read.contains_key(&format!("execution/{id}")) => return Ok(()), // that it is gone is judged by itself
            "log" => (keep.outputs, self.logs_since(id)),
            "execution" if !self.content.contains_key(&format!("open/{id}")) => (keep.executions, newer("execution")),
            // With the executions that were committed with it or later.
            "message" if !self.content.contains_key(&format!("waiting/{id}")) => (keep.executions, newer("execution")),
            "ruleset" => {
                let number: u64 = id.parse().unwrap();
                let used = self.refers.iter().any(|(event, ruleset)| *ruleset == number && read.contains_key(event));
                let last = self.rulesets.keys().last() == Some(&number);
                return if used || last { Err("it is in use".into()) } else { Ok(()) };
            }
            "definition" => {
                let named = |(number, set): (&u64, &Ruleset)| {
                    read.contains_key(&format!("ruleset/{number:06}")) && set.rules.iter().any(|(_, revision)| revision.0 == id)
                };
                return if self.rulesets.iter().any(named) { Err("a set of rules names it".into()) } else { Ok(()) };
            }
            _ => return Err("it is never removed".into()),
        };
        let newer = if self.counts_twice { 2 * newer } else { newer };
        let made = id.parse::<EventId>().unwrap().timestamp_ms();
        let age = Duration::from_millis(u64::try_from(now.timestamp_millis()).unwrap().saturating_sub(made));
        if age >= limit.age || limit.count.is_some_and(|count| newer >= count) {
            return Ok(());
        }
        Err(format!("it is {age:?} old, there are {newer} newer ones, and {limit:?} is kept"))
    }
}

fn short(text: &str) -> String {
    text.chars().take(400).collect()
}

fn execution_text(execution: &Execution) -> (String, Option<String>) {
    let mut bare = execution.clone();
    bare.state.log.clear();
    let log = (!execution.state.log.is_empty()).then(|| serde_json::to_string(&execution.state.log).unwrap());
    (serde_json::to_string(&bare).unwrap(), log)
}

fn sighting_text(sighting: &Sighting) -> String {
    serde_json::to_string(sighting).unwrap()
}

/// Everything that the port can read, in pages of a size; each listed thing is also read by itself.
pub async fn read(store: &dyn Store, now: DateTime<Utc>, limit: usize) -> Result<Content, StoreError> {
    let mut content = Content::new();
    let mut before: Option<EventId> = None;
    loop {
        let page = store.events(Page { before, limit }).await?;
        let Some(last) = page.last() else { break };
        assert!(page.len() <= limit, "a page is not longer than asked");
        let ids: Vec<EventId> = page.iter().map(|event| event.event.id).collect();
        assert!(before.into_iter().chain(ids).is_sorted_by(|a, b| a > b), "events are listed newest first");
        before = Some(last.event.id);
        for listed in page {
            let id = listed.event.id;
            let text = serde_json::to_string(&listed).unwrap();
            let single = store.event(id).await?.map(|event| serde_json::to_string(&event).unwrap());
            assert_eq!(single.as_ref(), Some(&text), "event {id} by itself, and in a list");
            content.insert(format!("event/{id}"), text);
        }
    }
    let mut before: Option<ExecutionId> = None;
    loop {
        let page = store.executions(Page { before, limit }).await?;
        let Some(last) = page.last() else { break };
        let ids: Vec<ExecutionId> = page.iter().map(|execution| execution.id).collect();
        assert!(before.into_iter().chain(ids).is_sorted_by(|a, b| a > b), "executions are listed newest first");
        before = Some(last.id);
        for listed in page {
            let (text, log) = execution_text(&listed);
            let single = store.execution(listed.id).await?.map(|execution| execution_text(&execution));
            assert_eq!(single, Some((text.clone(), log.clone())), "execution {} by itself, and in a list", listed.id);
            content.insert(format!("execution/{}", listed.id), text);
            content.extend(log.map(|log| (format!("log/{}", listed.id), log)));
        }
    }
    let open = store.open_executions().await?;
    assert!(open.iter().map(|execution| execution.id).is_sorted_by(|a, b| a < b), "open executions are listed oldest first");
    content.extend(open.iter().map(|execution| (format!("open/{}", execution.id), String::new())));
    let mut before: Option<MessageId> = None;
    loop {
        let page = store.messages(Page { before, limit }).await?;
        let Some(last) = page.last() else { break };
        before = Some(last.id);
        for listed in page {
            let text = serde_json::to_string(&listed).unwrap();
            let single = store.message(listed.id).await?.map(|message| serde_json::to_string(&message).unwrap());
            assert_eq!(single.as_ref(), Some(&text), "message {} by itself, and in a list", listed.id);
            content.insert(format!("message/{}", listed.id), text);
        }
    }
    let waiting = store.waiting_messages(None, usize::MAX).await?;
    content.extend(waiting.iter().map(|message| (format!("waiting/{}", message.id), String::new())));
    for (pack, name) in (0..PACKS).flat_map(|pack| (0..KEYS).map(move |name| (format!("p{pack}"), format!("k{name}")))) {
        let value = store.key(&pack, &name).await?;
        content.extend(value.map(|value| (format!("key/{pack}/{name}"), value.value.to_string())));
    }
    for name in (0..SETTINGS).map(|name| format!("g{name}")) {
        content.extend(store.setting(&name).await?.map(|value| (format!("setting/{name}"), value.to_string())));
    }
    for name in (0..DEFINITIONS).map(|name| format!("r{name}")) {
        content.extend(store.definition(&Revision(name.clone())).await?.map(|value| (format!("definition/{name}"), value.to_string())));
    }
    if let Some(last) = store.ruleset(None).await? {
        for number in 1..=last.number {
            let set = store.ruleset(Some(number)).await?;
            content.extend(set.map(|set| (format!("ruleset/{number:06}"), serde_json::to_string(&set).unwrap())));
        }
    }
    let asked: Vec<(String, Duration)> = (0..SENDERS).map(|sender| (format!("s{sender}"), memory_of(sender))).collect();
    for found in store.sightings(&asked, now).await?.into_iter().flatten() {
        content.insert(format!("sighting/{}", found.key), sighting_text(&found));
    }
    Ok(content)
}

/// Makes batches.
pub struct Stock {
    pub random: Random,
    pub ids: IdSource,
    pub now: DateTime<Utc>,
    /// Bytes of the largest event but for a rare very large one.
    pub large: u64,
}

impl Stock {
    pub fn new(seed: u64) -> Self {
        Self { random: Random(seed), ids: IdSource::seeded(seed), now: start(), large: 12_000 }
    }

    fn any<T: Clone>(&mut self, of: impl Iterator<Item = T>) -> Option<T> {
        let all: Vec<T> = of.collect();
        (!all.is_empty()).then(|| all[usize::try_from(self.random.below(all.len() as u64)).unwrap()].clone())
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.random.below(n) == 0
    }

    /// A commit that must be taken.
    pub fn batch(&mut self, model: &Model) -> Batch {
        let mut batch = Batch::default();
        if self.one_in(12) || model.rulesets.is_empty() {
            let rules: Vec<(String, Revision)> =
                (0..DEFINITIONS).filter(|_| self.random.below(2) == 0).map(|n| (format!("t.r{n}"), Revision(format!("r{n}")))).collect();
            batch.definitions = rules.iter().map(|(name, revision)| (revision.clone(), json!({"rule": name}))).collect();
            let number = model.rulesets.keys().last().unwrap_or(&0) + 1;
            batch.ruleset = Some(Ruleset { number, since: self.now, rules });
        }
        let ruleset = batch.ruleset.as_ref().map_or_else(|| *model.rulesets.keys().last().unwrap(), |set| set.number);
        if !self.one_in(3) {
            for _ in 0..=self.random.below(5) {
                let bytes = if self.one_in(10) { self.random.below(self.large) } else { 20 + self.random.below(300) };
                let text = noise(&mut self.random, bytes);
                batch.events.push(event(&self.ids, self.now, ruleset, text));
            }
        }
        for _ in 0..self.random.below(3) {
            batch.requested.push(Arc::new(execution(&self.ids, self.now)));
        }
        for _ in 0..self.random.below(4) {
            let Some(mut execution) = self.any(model.open.values().cloned()) else { break };
            if batch.states.iter().any(|(id, _)| *id == execution.id) {
                continue;
            }
            for _ in 0..=self.random.below(2) {
                if !execution.state.status.is_final() && self.change(&mut execution) {
                    batch.states.push((execution.id, execution.state.clone()));
                }
            }
        }
        for _ in 0..self.random.below(2) {
            let bytes = 10 + self.random.below(200);
            let text = noise(&mut self.random, bytes);
            batch.messages.push(message(&self.ids, self.now, text));
        }
        if let Some(mut message) = self.any(model.waiting.values().cloned()).filter(|_| self.random.below(2) == 0) {
            message.delivery = match self.random.below(3) {
                0 => Delivery::Failed { at: self.now, reason: Reason::ActionFailed, detail: "gone".into() },
                _ => Delivery::Sent { at: self.now, receipt: "r".into() },
            };
            batch.deliveries.push(message);
        }
        for _ in 0..self.random.below(3) {
            let value = (!self.one_in(3)).then(|| json!(self.random.below(1_000)));
            let (pack, name) = (format!("p{}", self.random.below(PACKS)), format!("k{}", self.random.below(KEYS)));
            batch.keys.push(KeyChange::plain(&pack, &name, value));
        }
        if self.one_in(4) {
            batch.settings.push((format!("g{}", self.random.below(SETTINGS)), json!(self.random.below(1_000))));
        }
        if self.one_in(2) {
            let sender = self.random.below(SENDERS);
            let known = model.sightings.get(&sender).filter(|sighting| sighting.seen_at > self.now - memory_of(sender));
            batch.sightings.push(Sighting {
                key: format!("s{sender}"),
                event: known.map_or_else(|| self.ids.event(self.now), |known| known.event),
                seen_at: self.now,
                repeats: known.map_or(0, |known| known.repeats + 1),
                body: None,
                memory: memory_of(sender),
                first: known.is_none(),
            });
        }
        if batch.is_empty() {
            batch.settings.push(("g0".into(), json!(self.random.below(1_000))));
        }
        batch
    }

    /// A legal change, if the one that came up is.
    fn change(&mut self, execution: &mut Execution) -> bool {
        let (at, lines) = (self.now, self.random.below(3));
        let mut log: Vec<LogLine> = (0..lines).map(|n| LogLine { at, level: "info".into(), text: format!("line {n}") }).collect();
        if execution.state.attempt <= 1 && log.is_empty() {
            log.clone_from(&execution.state.log); // what a first attempt has logged stays
        }
        let change = match self.random.below(7) {
            0..=2 => Change::Start { at, action_revision: Revision("r".into()) },
            3 => Change::Succeed { at, result: json!(noise(&mut self.random, 30)), log },
            4 => Change::Fail { at, reason: Reason::ActionFailed, error: "it failed".into(), log },
            5 => Change::Delay { until: at, error: "later".into(), log },
            _ => Change::Cancel { at, by: "somebody".into() },
        };
        execution.change(change).is_ok()
    }

    /// A commit that must be refused, whole: something in it relies on what is not so.
    pub fn conflict(&mut self, model: &Model) -> Option<Batch> {
        let mut batch = self.batch(model);
        let now = self.now;
        match self.random.below(4) {
            0 => batch.requested.push(Arc::new(self.any(model.open.values().cloned())?)),
            1 => {
                let execution = self.any(model.open.values().cloned())?;
                batch.states.retain(|(id, _)| *id != execution.id);
                let mut state = execution.state.clone();
                state.version += 2; // as if another change had come between
                batch.states.push((execution.id, state));
            }
            2 => batch.messages.push(self.any(model.waiting.values().cloned())?),
            _ => {
                let seen = self.any(model.sightings.values().cloned())?;
                let today = |at: DateTime<Utc>| at.timestamp().div_euclid(86_400);
                let within = seen.seen_at > now - seen.memory && today(seen.seen_at) == today(now);
                batch.sightings = within.then(|| vec![Sighting { seen_at: now, first: true, ..seen }])?;
            }
        }
        Some(batch)
    }
}

/// What a limit says of a single thing.
pub struct AgeOrCount {
    limit: Limit,
    at_latest: i64,
}

impl AgeOrCount {
    pub fn of(limit: Limit, at_latest: fn(i64) -> i64) -> Self {
        Self { limit, at_latest: at_latest(i64::try_from(limit.age.as_secs()).unwrap()) }
    }

    /// Whether it must be there, by its age in seconds and how many newer ones there are.
    pub fn must_have(&self, age: i64, newer: usize) -> bool {
        (0..i64::try_from(self.limit.age.as_secs()).unwrap()).contains(&age) && self.limit.count.is_none_or(|count| (newer as u64) < count)
    }

    /// Whether it must be gone.
    pub fn must_not_have(&self, age: i64, newer: usize) -> bool {
        age > self.at_latest || self.limit.count.is_some_and(|count| newer as u64 > count + count / 4 + 20)
    }
}
