//! Days of a store in seconds: what is young enough is there, what is too old is not, and the databases stay few.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::json;
use signalman::model::execution::{Change, LogLine};
use signalman::model::hash::Revision;
use signalman::model::ids::{EventId, ExecutionId, IdSource};
use signalman::model::message::Delivery;
use signalman::store::keyed::KeyedStore;
use signalman::store::layers::Sizes;
use signalman::store::memory::MemorySpace;
use signalman::store::sled::SledSpace;
use signalman::store::{Batch, Keep, Page, Ruleset, Sighting, Store};

use crate::harness::{Random, seed, times};
use crate::stock::{self, limit, seconds};

const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;

const SIZES: Sizes = Sizes { recent: 100_000, lane: 60_000 };

/// A limit by age is kept to within a share of it, and the time between two looks.
fn at_latest(age: i64) -> i64 {
    age + age / 8 + 5 * 60
}

/// What was put in: by the time that counts for its age.
struct Story {
    store: KeyedStore,
    ids: IdSource,
    random: Random,
    keep: Keep,
    now: DateTime<Utc>,
    events: BTreeMap<EventId, DateTime<Utc>>,
    executions: BTreeMap<ExecutionId, DateTime<Utc>>,
    sightings: BTreeMap<String, (DateTime<Utc>, Duration)>,
    ruleset: u64,
    /// The events of each set of rules.
    refers: BTreeMap<u64, EventId>,
    committed: u64,
    looks: u64,
    most_databases: usize,
}

impl Story {
    fn new(store: KeyedStore, seed: u64, keep: Keep) -> Self {
        Self {
            store,
            ids: IdSource::seeded(seed),
            random: Random(seed),
            keep,
            now: stock::start(),
            events: BTreeMap::new(),
            executions: BTreeMap::new(),
            sightings: BTreeMap::new(),
            ruleset: 0,
            refers: BTreeMap::new(),
            committed: 0,
            looks: 0,
            most_databases: 0,
        }
    }

    /// One commit: an event, an execution that is asked for and one that ends, a message, a sender's key.
    async fn commit(&mut self) {
        let mut batch = Batch::default();
        // Every four hours other rules.
        let wanted = u64::try_from((self.now - stock::start()).num_seconds().max(0) / (4 * HOUR)).unwrap() + 1;
        if wanted > self.ruleset {
            self.ruleset += 1;
            let revision = Revision(format!("r{}", self.ruleset));
            batch.definitions.push((revision.clone(), json!({"n": self.ruleset})));
            batch.ruleset = Some(Ruleset { number: self.ruleset, since: self.now, rules: vec![("t.r".into(), revision)] });
        }
        let text = stock::noise(&mut self.random, 200);
        let event = stock::event(&self.ids, self.now, self.ruleset, text);
        self.events.insert(event.event.id, self.now);
        self.refers.insert(self.ruleset, event.event.id);
        let execution = stock::execution(&self.ids, self.now);
        let number = self.random.below(2_000);
        let memory = Duration::from_secs(if number.is_multiple_of(2) { 86_400 } else { 31 * 86_400 });
        let key = format!("key {number}");
        batch.sightings.push(Sighting {
            key: key.clone(),
            event: event.event.id,
            seen_at: self.now,
            repeats: 0,
            body: None,
            memory,
            first: false,
        });
        self.sightings.insert(key, (self.now, memory));
        let mut message = stock::message(&self.ids, self.now, "done".into());
        batch.messages.push(message.clone());
        batch.events.push(event);
        batch.requested.push(Arc::new(execution.clone()));
        self.store.commit(&batch).await.unwrap();
        // And its end, in the next.
        let (mut execution, at) = (execution, self.now);
        let log = vec![LogLine { at, level: "info".into(), text: "a line".into() }];
        execution.change(Change::Start { at, action_revision: Revision("r".into()) }).unwrap();
        let running = execution.state.clone();
        execution.change(Change::Succeed { at, result: json!(1), log }).unwrap();
        message.delivery = Delivery::Sent { at, receipt: "r".into() };
        let states = vec![(execution.id, running), (execution.id, execution.state.clone())];
        self.store.commit(&Batch { states, deliveries: vec![message], ..Batch::default() }).await.unwrap();
        self.executions.insert(execution.id, self.now);
        self.committed += 2;
    }

    async fn tend(&self) {
        let mut rounds = 0;
        while self.store.tend(self.now, &self.keep).await.unwrap().more {
            rounds += 1;
            assert!(rounds < 1_000, "the upkeep comes to an end");
        }
    }

    /// Lets time pass, with a commit every so many seconds and a step of the upkeep each minute.
    async fn pass(&mut self, span: i64, every: i64) {
        let end = self.now + seconds(span);
        let mut tended = self.now;
        while self.now < end {
            self.commit().await;
            self.now += seconds(every);
            if self.now - tended >= seconds(60) {
                tended = self.now;
                self.tend().await;
            }
        }
        self.tend().await;
    }

    /// Everything within the limits is there; what is far beyond is not.
    async fn look(&mut self, exactly: bool) {
        self.looks += 1;
        let ages = |kept: &stock::AgeOrCount, newest_first: usize, at: DateTime<Utc>| {
            let age = (self.now - at).num_seconds();
            (kept.must_have(age, newest_first), kept.must_not_have(age, newest_first))
        };
        let events = self.store.events(Page { before: None, limit: usize::MAX }).await.unwrap();
        let there: std::collections::BTreeSet<EventId> = events.iter().map(|event| event.event.id).collect();
        let kept = stock::AgeOrCount::of(self.keep.events, at_latest);
        for (index, (id, at)) in self.events.iter().rev().enumerate() {
            let (must, must_not) = ages(&kept, index, *at);
            assert!(!must || there.contains(id), "{}: event {id} of {at} is missing", self.now);
            assert!(!must_not || !exactly || !there.contains(id), "{}: event {id} of {at} is still there", self.now);
        }
        let executions = self.store.executions(Page { before: None, limit: usize::MAX }).await.unwrap();
        let there: BTreeMap<ExecutionId, bool> =
            executions.iter().map(|execution| (execution.id, !execution.state.log.is_empty())).collect();
        let (kept, outputs) = (stock::AgeOrCount::of(self.keep.executions, at_latest), stock::AgeOrCount::of(self.keep.outputs, at_latest));
        for (index, (id, at)) in self.executions.iter().rev().enumerate() {
            let (must, must_not) = ages(&kept, index, *at);
            assert!(!must || there.contains_key(id), "{}: execution {id} of {at} is missing", self.now);
            assert!(!must_not || !exactly || !there.contains_key(id), "{}: execution {id} of {at} is still there", self.now);
            let (must, must_not) = ages(&outputs, index, *at);
            let log = there.get(id).copied();
            assert!(!must || log != Some(false), "{}: the log of {id} of {at} is missing", self.now);
            assert!(!must_not || !exactly || log != Some(true), "{}: the log of {id} of {at} is still there", self.now);
        }
        let messages = self.store.messages(Page { before: None, limit: usize::MAX }).await.unwrap().len();
        assert!(messages <= executions.len() + 300, "{}: {messages} messages with {} executions", self.now, executions.len());
        assert!(self.store.open_executions().await.unwrap().is_empty());
        let asked: Vec<(String, Duration)> = self.sightings.iter().map(|(key, (_, memory))| (key.clone(), *memory)).collect();
        let found = self.store.sightings(&asked, self.now).await.unwrap();
        for ((key, (at, memory)), found) in self.sightings.iter().zip(found) {
            let within = *at > self.now - chrono::Duration::from_std(*memory).unwrap();
            assert!(!within || !exactly || found.is_some(), "{}: {key}, seen at {at}, is forgotten before {memory:?}", self.now);
        }
        let stored: std::collections::BTreeSet<u64> = events.iter().map(|event| event.ruleset).collect();
        for number in stored {
            let set = self.store.ruleset(Some(number)).await.unwrap().expect("the rules of an event that is there");
            for (_, revision) in set.rules {
                assert!(self.store.definition(&revision).await.unwrap().is_some(), "{revision:?} explains events that are there");
            }
        }
        let maintenance = self.store.maintenance();
        let stat = tokio::task::spawn_blocking(move || maintenance.stat().unwrap()).await.unwrap();
        self.most_databases = self.most_databases.max(stat.databases.len());
        let most = 60 + usize::try_from(stat.live_bytes).unwrap() / 40_000;
        assert!(stat.databases.len() <= most, "{}: too many databases: {:#?}", self.now, stat.databases);
    }

    fn report(&self, what: &str) {
        println!("{what}: {} commits, {} looks, at most {} databases", self.committed, self.looks, self.most_databases);
    }
}

fn by_age() -> Keep {
    Keep { events: limit(3_600, None), executions: limit(36_000, None), outputs: limit(7_200, None) }
}

fn by_count() -> Keep {
    let day = 10 * 86_400;
    Keep { events: limit(day, Some(200)), executions: limit(day, Some(600)), outputs: limit(day, Some(300)) }
}

/// A day and a bit, with a look each hour.
async fn a_day(mut story: Story, every: i64, what: &str) {
    for _ in 0..26 {
        story.pass(HOUR, every).await;
        story.look(true).await;
    }
    story.report(what);
}

fn memory() -> KeyedStore {
    KeyedStore::with_sizes(MemorySpace::default(), SIZES).unwrap()
}

#[tokio::test]
async fn a_day_by_age() {
    a_day(Story::new(memory(), seed(), by_age()), times(120, 5), "a day by age, in memory").await;
}

#[tokio::test]
async fn a_day_by_number() {
    a_day(Story::new(memory(), seed(), by_count()), times(120, 5), "a day by number, in memory").await;
}

#[tokio::test]
async fn a_day_by_age_on_sled() {
    let folder = tempfile::tempdir().unwrap();
    let store = KeyedStore::with_sizes(SledSpace::open(folder.path()).unwrap(), SIZES).unwrap();
    a_day(Story::new(store, seed(), by_age()), times(1_200, 20), "a day by age, on sled").await;
}

#[tokio::test]
async fn rules_that_nothing_needs_any_more_are_removed() {
    let mut story = Story::new(memory(), seed(), by_age());
    story.pass(9 * HOUR, 120).await;
    assert!(story.store.definition(&Revision("r1".into())).await.unwrap().is_some());
    story.pass(41 * DAY, 8 * HOUR).await; // also the longest memory of senders' keys is over
    story.look(false).await;
    let first = story.store.ruleset(Some(1)).await.unwrap();
    assert!(first.is_none(), "the first rules are still there after a month: {first:?}");
    assert!(story.store.definition(&Revision("r1".into())).await.unwrap().is_none());
    story.report("rules");
}

#[tokio::test]
async fn a_clock_that_jumps_does_not_stop_retention() {
    let mut story = Story::new(memory(), seed(), by_age());
    for jump in [0, DAY, -DAY, -DAY, DAY] {
        story.now += seconds(jump);
        // What came before may have grown old meanwhile, as far as the clock tells.
        (story.events, story.executions) = Default::default();
        story.pass(4 * HOUR, 60).await;
        story.look(false).await;
    }
    // A day and a half after the last jump all is as it should be.
    story.pass(36 * HOUR, 120).await;
    let there = story.store.events(Page { before: None, limit: usize::MAX }).await.unwrap();
    let limit = story.now - seconds(at_latest(HOUR));
    let left = there.iter().filter(|event| event.event.received_at < limit).count();
    assert_eq!(left, 0, "{left} of {} events are too old", there.len());
    story.look(false).await;
    story.report("a clock that jumps");
}
