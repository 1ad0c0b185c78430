//! What every implementation of a port must keep: one suite for each port, run over all there are.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::{Map, json};
use signalman::chat::adapters;
use signalman::journal::{AcceptError, Journal, inline};
use signalman::model::datastore::KeyEntry;
use signalman::model::event::{Accepted, Event, NewEvent, StoredEvent};
use signalman::model::execution::{Change, Execution, Request, Status};
use signalman::model::hash::Revision;
use signalman::model::ids::{EventId, IdSource, MessageId};
use signalman::model::json::RawJson;
use signalman::model::message::{Delivery, Destination, Message};
use signalman::model::principal::Principal;
use signalman::model::reason::Reason;
use signalman::sensors::webhooks;
use signalman::store::keyed::KeyedStore;
use signalman::store::layers::Sizes;
use signalman::store::memory::{MemorySpace, MemoryStore};
use signalman::store::sled::SledSpace;
use signalman::store::{Batch, CommitError, Keep, KeyChange, Limit, Page, Ruleset, Sighting, Store};

use crate::harness::{Server, TestSite, eventually};

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_700_000_000 + seconds, 0).unwrap()
}

fn event(ids: &IdSource, seconds: i64, text: &str) -> Arc<StoredEvent> {
    let event = Event {
        id: ids.event(at(seconds)),
        trigger: "t.e".into(),
        key: None,
        dedup_key: None,
        occurred_at: at(seconds),
        received_at: at(seconds),
        source: "test".into(),
        cause: None,
        depth: 0,
        payload: RawJson::of(&json!({"text": text})),
    };
    Arc::new(StoredEvent { event, ruleset: 1, verdicts: Vec::new(), more_near_misses: 0, keys: serde_json::Map::new(), set_aside: None })
}

fn execution(ids: &IdSource, seconds: i64) -> Execution {
    let request = Request {
        action: "t.a".into(),
        parameters: Map::new(),
        requested_by: Principal::Token("admin".into()),
        requested_at: at(seconds),
        event: None,
        key: None,
        rerun_of: None,
        depth: 0,
        parent: None,
        notify: None,
        idempotent: false,
        asked: None,
    };
    Execution::requested(ids.execution(at(seconds)), request, Reason::Requested)
}

fn message(ids: &IdSource, seconds: i64) -> Message {
    Message {
        id: ids.message(at(seconds)),
        channel: "ops".into(),
        destination: Destination { adapter: "console".into(), to: "ops".into() },
        text: "hello".into(),
        created_at: at(seconds),
        execution: None,
        replaces: None,
        passing: false,
        delivery: Delivery::Waiting,
    }
}

/// Opens the same store again and again, as after a restart.
trait Reopen {
    fn open(&self) -> Arc<dyn Store>;
}

impl Reopen for MemorySpace {
    fn open(&self) -> Arc<dyn Store> {
        Arc::new(MemoryStore::new(self.clone()).unwrap())
    }
}

impl Reopen for &Path {
    fn open(&self) -> Arc<dyn Store> {
        Arc::new(KeyedStore::new(SledSpace::open(self).unwrap()).unwrap())
    }
}

/// Databases that are full after one commit, so that everything is moved all the time.
struct Tiny<S>(S);

const TINY: Sizes = Sizes { recent: 1, lane: 1_000 };

impl Reopen for Tiny<MemorySpace> {
    fn open(&self) -> Arc<dyn Store> {
        Arc::new(KeyedStore::with_sizes(self.0.clone(), TINY).unwrap())
    }
}

impl Reopen for Tiny<&Path> {
    fn open(&self) -> Arc<dyn Store> {
        Arc::new(KeyedStore::with_sizes(SledSpace::open(self.0).unwrap(), TINY).unwrap())
    }
}

#[tokio::test]
async fn store_in_memory() {
    store_contract(&MemorySpace::default()).await;
    store_contract(&Tiny(MemorySpace::default())).await;
}

#[tokio::test]
async fn store_on_sled() {
    let folder = tempfile::tempdir().unwrap();
    store_contract(&folder.path()).await;
    let folder = tempfile::tempdir().unwrap();
    store_contract(&Tiny(folder.path())).await;
}

/// Lets the store do all that it would do in the background.
async fn tend(store: &dyn Store, seconds: i64, keep: Keep) {
    let mut rounds = 0;
    while store.tend(at(seconds), &keep).await.unwrap().more {
        rounds += 1;
        assert!(rounds < 1_000, "the upkeep comes to an end");
    }
}

async fn store_contract(place: &dyn Reopen) {
    let ids = IdSource::seeded(1);
    let store = place.open();
    what_is_committed_is_read(&*store, &ids).await;
    tend(&*store, 10, Keep::default()).await;
    executions_change_one_version_at_a_time(&*store, &ids).await;
    tend(&*store, 10, Keep::default()).await;
    a_refused_batch_leaves_nothing(&*store, &ids).await;
    tend(&*store, 10, Keep::default()).await;
    concurrent_commits_are_all_or_nothing(&store, &ids).await;
    tend(&*store, 10, Keep::default()).await;
    keys_change_as_they_were_read(&store).await;
    tend(&*store, 10, Keep::default()).await;
    keys_that_expire_are_found_in_their_order(&*store).await;
    tend(&*store, 10, Keep::default()).await;
    sightings_have_a_memory(&*store, &ids).await;
    tend(&*store, 10, Keep::default()).await;
    messages_wait_until_delivered(&*store, &ids).await;
    let before = (store.events(all()).await.unwrap().len(), store.executions(all()).await.unwrap().len(), store.sequence().await.unwrap());
    drop(store);
    let store = place.open();
    let after = (store.events(all()).await.unwrap().len(), store.executions(all()).await.unwrap().len(), store.sequence().await.unwrap());
    assert_eq!(before, after, "nothing is lost or gained when the store is opened again");
    old_things_expire_and_open_ones_stay(&*store, &ids).await;
}

fn all<I>() -> Page<I> {
    Page { before: None, limit: 100_000 }
}

async fn what_is_committed_is_read(store: &dyn Store, ids: &IdSource) {
    // Small ones share records, a large one has its own.
    let texts: Vec<String> = (0..40).map(|n| if n == 20 { "x".repeat(200_000) } else { format!("event {n}") }).collect();
    let events: Vec<_> = texts.iter().map(|text| event(ids, 1, text)).collect();
    let first = store.sequence().await.unwrap();
    let batch = Batch {
        events: events.clone(),
        keys: vec![KeyChange::plain("t", "k", Some(json!({"n": 1})))],
        definitions: vec![(Revision("abc".into()), json!({"rule": true}))],
        ruleset: Some(Ruleset { number: 1, since: at(0), rules: vec![("t.r".into(), Revision("abc".into()))] }),
        settings: vec![("s".into(), json!("v"))],
        ..Batch::default()
    };
    let committed = store.commit(&batch).await.unwrap();
    assert!(committed.sequence > first);
    assert_eq!(store.sequence().await.unwrap(), committed.sequence);
    for (event, text) in events.iter().zip(&texts) {
        let read = store.event(event.event.id).await.unwrap().expect("a committed event is there");
        assert_eq!(read.event.payload.value().unwrap()["text"], json!(text));
    }
    assert!(store.event(ids.event(at(1))).await.unwrap().is_none());
    let listed = store.events(all()).await.unwrap();
    let newest_first: Vec<EventId> = events.iter().rev().map(|event| event.event.id).collect();
    assert_eq!(listed.iter().map(|event| event.event.id).collect::<Vec<_>>(), newest_first);
    // Pages of every size meet without gaps, also where they cut through a shared record.
    for limit in [1, 7, 39, 40, 41] {
        let (mut paged, mut before) = (Vec::new(), None);
        loop {
            let page = store.events(Page { before, limit }).await.unwrap();
            let Some(last) = page.last() else { break };
            assert!(page.len() <= limit);
            before = Some(last.event.id);
            paged.extend(page.iter().map(|event| event.event.id));
        }
        assert_eq!(paged, newest_first, "pages of {limit}");
    }
    assert_eq!(store.key("t", "k").await.unwrap().map(|entry| entry.value), Some(json!({"n": 1})));
    assert_eq!(store.key("t", "other").await.unwrap(), None);
    store.commit(&Batch { keys: vec![KeyChange::plain("t", "k", None)], ..Batch::default() }).await.unwrap();
    assert_eq!(store.key("t", "k").await.unwrap(), None);
    assert_eq!(store.definition(&Revision("abc".into())).await.unwrap(), Some(json!({"rule": true})));
    assert_eq!(store.ruleset(None).await.unwrap().unwrap().number, 1);
    assert_eq!(store.ruleset(Some(1)).await.unwrap().unwrap().rules.len(), 1);
    assert!(store.ruleset(Some(2)).await.unwrap().is_none());
    assert_eq!(store.setting("s").await.unwrap(), Some(json!("v")));
}

async fn executions_change_one_version_at_a_time(store: &dyn Store, ids: &IdSource) {
    let mut one = execution(ids, 2);
    store.commit(&Batch { requested: vec![Arc::new(one.clone())], ..Batch::default() }).await.unwrap();
    let again = store.commit(&Batch { requested: vec![Arc::new(one.clone())], ..Batch::default() }).await;
    assert!(matches!(again, Err(CommitError::Conflict { .. })), "an execution is requested once");
    assert_eq!(store.open_executions().await.unwrap().len(), 1);
    let stale = one.clone();
    one.change(Change::Start { at: at(3), action_revision: Revision("r".into()) }).unwrap();
    store.commit(&Batch { states: vec![(one.id, one.state.clone())], ..Batch::default() }).await.unwrap();
    assert_eq!(store.execution(one.id).await.unwrap().unwrap().state.status, Status::Running);
    let mut other = stale;
    other.change(Change::Cancel { at: at(3), by: "x".into() }).unwrap();
    let conflict = store.commit(&Batch { states: vec![(one.id, other.state)], ..Batch::default() }).await;
    assert!(matches!(conflict, Err(CommitError::Conflict { .. })), "a change from an old version is refused");
    // Two changes in one commit.
    let mut states = Vec::new();
    one.change(Change::Cancel { at: at(4), by: "x".into() }).unwrap();
    states.push((one.id, one.state.clone()));
    one.change(Change::Stopped { at: at(4), log: vec![] }).unwrap();
    states.push((one.id, one.state.clone()));
    store.commit(&Batch { states, ..Batch::default() }).await.unwrap();
    let read = store.execution(one.id).await.unwrap().unwrap();
    assert_eq!((read.state.status, read.state.version), (Status::Canceled, 3));
    assert!(store.open_executions().await.unwrap().is_empty());
}

async fn a_refused_batch_leaves_nothing(store: &dyn Store, ids: &IdSource) {
    let known = execution(ids, 5);
    store.commit(&Batch { requested: vec![Arc::new(known.clone())], ..Batch::default() }).await.unwrap();
    let beside = event(ids, 5, "beside");
    let batch = Batch { events: vec![Arc::clone(&beside)], requested: vec![Arc::new(known)], ..Batch::default() };
    assert!(store.commit(&batch).await.is_err());
    assert!(store.event(beside.event.id).await.unwrap().is_none(), "no part of a refused batch is written");
}

async fn concurrent_commits_are_all_or_nothing(store: &Arc<dyn Store>, ids: &IdSource) {
    // A hundred want the same key first; one wins, and only its event is there.
    let attempts: Vec<_> = (0..100).map(|n| (event(ids, 6, &format!("race {n}")), Arc::clone(store))).collect();
    let tasks = attempts.into_iter().map(|(event, store)| {
        tokio::spawn(async move {
            let sighting = Sighting {
                key: "race".into(),
                event: event.event.id,
                seen_at: at(6),
                repeats: 0,
                body: None,
                memory: Duration::from_secs(60),
                first: true,
            };
            let won =
                store.commit(&Batch { events: vec![Arc::clone(&event)], sightings: vec![sighting], ..Batch::default() }).await.is_ok();
            (event.event.id, won)
        })
    });
    let mut winners = 0;
    for task in tasks.collect::<Vec<_>>() {
        let (id, won) = task.await.unwrap();
        winners += usize::from(won);
        assert_eq!(store.event(id).await.unwrap().is_some(), won);
    }
    assert_eq!(winners, 1);
}

fn entry(value: i64, version: u64, expires: Option<i64>) -> KeyEntry {
    KeyEntry { version, changed_at: Some(at(1)), changed_by: "li".into(), expires_at: expires.map(at), ..KeyEntry::plain(json!(value)) }
}

async fn change_key(store: &dyn Store, change: KeyChange) -> bool {
    match store.commit(&Batch { keys: vec![change], ..Batch::default() }).await {
        Ok(_) => true,
        Err(CommitError::Conflict { what }) => {
            assert!(what.starts_with("key "), "{what}");
            false
        }
        Err(error) => panic!("{error}"),
    }
}

async fn keys_change_as_they_were_read(store: &Arc<dyn Store>) {
    let (first, second) = (entry(1, 7, None), entry(2, 9, None));
    assert!(change_key(&**store, KeyChange::of("c", "k", None, Some(first.clone()))).await);
    assert!(!change_key(&**store, KeyChange::of("c", "k", None, Some(second.clone()))).await, "it is there already");
    assert!(!change_key(&**store, KeyChange::of("c", "k", Some(&second), Some(second.clone()))).await, "it has another version");
    assert_eq!(store.key("c", "k").await.unwrap(), Some(first.clone()), "what was refused left nothing");
    assert!(change_key(&**store, KeyChange::of("c", "k", Some(&first), Some(second.clone()))).await);
    assert!(!change_key(&**store, KeyChange::of("c", "k", Some(&first), None)).await, "it was changed since it was read");
    assert!(change_key(&**store, KeyChange::of("c", "k", Some(&second), None)).await);
    assert_eq!(store.key("c", "k").await.unwrap(), None);
    // What an older version wrote has no version, and is changed as it was read all the same.
    assert!(change_key(&**store, KeyChange::plain("c", "old", Some(json!([1])))).await);
    let old = store.key("c", "old").await.unwrap().unwrap();
    assert_eq!(old, KeyEntry::plain(json!([1])));
    assert!(change_key(&**store, KeyChange::of("c", "old", Some(&old), Some(entry(3, 11, None)))).await);
    assert!(!change_key(&**store, KeyChange::of("c", "old", Some(&old), Some(entry(4, 12, None)))).await);

    // Of a hundred who want it one wins.
    let races = (0..100).map(|n| {
        let store = Arc::clone(store);
        tokio::spawn(async move { change_key(&*store, KeyChange::of("c", "race", None, Some(entry(n, 20, None)))).await })
    });
    let mut winners = 0;
    for race in races.collect::<Vec<_>>() {
        winners += usize::from(race.await.unwrap());
    }
    assert_eq!(winners, 1);
    // Those who count read and change until they win; none is lost.
    let counts = (0..8).map(|_| {
        let store = Arc::clone(store);
        tokio::spawn(async move {
            let mut counted = 0;
            while counted < 10 {
                let read = store.key("c", "count").await.unwrap();
                let (value, version) = read.as_ref().map_or((0, 0), |read| (read.value.as_i64().unwrap(), read.version));
                counted += u32::from(
                    change_key(&*store, KeyChange::of("c", "count", read.as_ref(), Some(entry(value + 1, version + 1, None)))).await,
                );
            }
        })
    });
    for count in counts.collect::<Vec<_>>() {
        count.await.unwrap();
    }
    assert_eq!(store.key("c", "count").await.unwrap().unwrap().value, json!(80));
    let names = |prefix: &'static str, after: Option<&'static str>| async move {
        let found = store.keys("c", prefix, after, 10).await.unwrap();
        found.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
    };
    assert_eq!(names("", None).await, ["count", "old", "race"]);
    assert_eq!(names("o", None).await, ["old"]);
    assert_eq!(names("o", Some("a")).await, ["old"], "a name before all that begin so");
    assert_eq!(names("", Some("old")).await, ["race"]);
    assert_eq!(names("o", Some("old")).await, Vec::<String>::new());
}

async fn keys_that_expire_are_found_in_their_order(store: &dyn Store) {
    let expired = |seconds: i64, limit: usize| async move {
        store.expired_keys(at(seconds), limit).await.unwrap().into_iter().map(|(_, _, name)| name).collect::<Vec<_>>()
    };
    let entries =
        [("late", entry(1, 1, Some(50))), ("soon", entry(2, 2, Some(20))), ("later", entry(3, 3, Some(60))), ("never", entry(4, 4, None))];
    for (name, entry) in &entries {
        assert!(change_key(store, KeyChange::of("e", name, None, Some(entry.clone()))).await);
    }
    tend(store, 10, Keep::default()).await;
    assert_eq!(expired(19, 10).await, Vec::<String>::new());
    assert_eq!(expired(20, 10).await, ["soon"], "from that moment on");
    assert_eq!(expired(60, 10).await, ["soon", "late", "later"]);
    assert_eq!(expired(60, 2).await, ["soon", "late"]);
    assert_eq!(store.expired_keys(at(20), 1).await.unwrap(), [(at(20), "e".to_string(), "soon".to_string())]);
    // Another time, none, and gone: each takes the time before with it.
    assert!(change_key(store, KeyChange::of("e", "soon", Some(&entries[1].1), Some(entry(2, 5, Some(70))))).await);
    assert!(change_key(store, KeyChange::of("e", "late", Some(&entries[0].1), Some(entry(1, 6, None)))).await);
    assert!(change_key(store, KeyChange::of("e", "later", Some(&entries[2].1), None)).await);
    tend(store, 10, Keep::default()).await;
    assert_eq!(expired(69, 10).await, Vec::<String>::new());
    assert_eq!(expired(70, 10).await, ["soon"]);
    assert!(change_key(store, KeyChange::of("e", "soon", Some(&entry(2, 5, Some(70))), None)).await);
    assert_eq!(expired(70, 10).await, Vec::<String>::new());
}

async fn sightings_have_a_memory(store: &dyn Store, ids: &IdSource) {
    let (day, id) = (Duration::from_secs(86_400), ids.event(at(7)));
    let seen = |seconds: i64, memory: Duration, first| Sighting {
        key: "k".into(),
        event: id,
        seen_at: at(seconds),
        repeats: 0,
        body: Some(7),
        memory,
        first,
    };
    store.commit(&Batch { sightings: vec![seen(0, day, true)], ..Batch::default() }).await.unwrap();
    let short = Duration::from_secs(5);
    let early = store.commit(&Batch { sightings: vec![seen(4, short, true)], ..Batch::default() }).await;
    assert!(matches!(early, Err(CommitError::Conflict { .. })), "what is remembered is not new");
    store
        .commit(&Batch { sightings: vec![seen(5, short, true)], ..Batch::default() })
        .await
        .expect("what is forgotten is new, also on the same day");
    store.commit(&Batch { sightings: vec![seen(0, day, false)], ..Batch::default() }).await.unwrap();
    let look = |memory: Duration, seconds: i64| async move {
        let found = store.sightings(&[("other".into(), memory), ("k".into(), memory)], at(seconds)).await.unwrap();
        assert_eq!(found[0], None);
        found[1].as_ref().map(|sighting| sighting.seen_at)
    };
    assert_eq!(look(day, 10).await, Some(at(0)));
    assert_eq!(look(day, 86_399).await, Some(at(0)));
    assert_eq!(look(day, 86_400).await, None, "memory has an end");
    tend(store, 10, Keep::default()).await;
    store.commit(&Batch { sightings: vec![seen(80_000, day, false)], ..Batch::default() }).await.unwrap();
    assert_eq!(look(day, 160_000).await, Some(at(80_000)), "memory slides");
    assert_eq!(look(Duration::from_secs(60), 80_030).await, Some(at(80_000)));
    assert_eq!(look(Duration::from_secs(60), 80_061).await, None);
    let month = Duration::from_secs(30 * 86_400);
    store.commit(&Batch { sightings: vec![seen(90_000, month, false)], ..Batch::default() }).await.unwrap();
    tend(store, 29 * 86_400, Keep::default()).await;
    assert_eq!(look(month, 29 * 86_400).await, Some(at(90_000)), "a long memory does not end with the events");
    assert_eq!(look(day, 29 * 86_400).await, None);
}

async fn messages_wait_until_delivered(store: &dyn Store, ids: &IdSource) {
    let mut one = message(ids, 8);
    store.commit(&Batch { messages: vec![one.clone()], ..Batch::default() }).await.unwrap();
    let again = store.commit(&Batch { messages: vec![one.clone()], ..Batch::default() }).await;
    assert!(matches!(again, Err(CommitError::Conflict { .. })), "a message is put into the outbox once");
    assert_eq!(store.waiting_messages(None, 100).await.unwrap().len(), 1);
    one.delivery = Delivery::Sent { at: at(9), receipt: "r".into() };
    store.commit(&Batch { deliveries: vec![one.clone()], ..Batch::default() }).await.unwrap();
    assert!(store.waiting_messages(None, 100).await.unwrap().is_empty());
    assert_eq!(store.message(one.id).await.unwrap().unwrap().delivery, one.delivery);
    assert_eq!(store.messages(Page { before: None::<MessageId>, limit: 10 }).await.unwrap().len(), 1);
}

async fn old_things_expire_and_open_ones_stay(store: &dyn Store, ids: &IdSource) {
    let limit = |seconds| Limit { age: Duration::from_secs(seconds), count: None };
    let keep = Keep { events: limit(50_000), executions: limit(50_000), outputs: limit(50_000) };
    // What is old is not in one database with what is new.
    tend(store, 50_000, keep).await;
    let new = event(ids, 5_000_000, "new");
    store.commit(&Batch { events: vec![Arc::clone(&new)], ..Batch::default() }).await.unwrap();
    let open: Vec<_> = store.open_executions().await.unwrap().iter().map(|execution| execution.id).collect();
    assert_eq!(open.len(), 1);
    tend(store, 5_000_001, keep).await;
    let left: Vec<_> = store.events(all()).await.unwrap().iter().map(|event| event.event.id).collect();
    assert_eq!(left, [new.event.id]);
    let left: Vec<_> = store.executions(all()).await.unwrap().iter().map(|execution| execution.id).collect();
    assert_eq!(left, open, "what has not ended is kept however old it is");
    let maintenance = store.maintenance();
    let stat = tokio::task::spawn_blocking(move || maintenance.stat().unwrap()).await.unwrap();
    assert!(store.messages(Page { before: None::<MessageId>, limit: 10 }).await.unwrap().is_empty(), "{stat:#?}");
    // Once it has ended, it goes like the others.
    let mut last = store.execution(open[0]).await.unwrap().unwrap();
    last.change(Change::Cancel { at: at(5_000_002), by: "x".into() }).unwrap();
    store.commit(&Batch { states: vec![(last.id, last.state)], ..Batch::default() }).await.unwrap();
    tend(store, 5_100_000, keep).await;
    assert!(store.executions(all()).await.unwrap().is_empty());
    assert_eq!(store.setting("s").await.unwrap(), Some(json!("v")), "what has no age stays");
}

#[tokio::test]
async fn journal_inline() {
    let (journal, mut deliveries) = inline::channel();
    let consumer = tokio::spawn(async move {
        let (ids, mut seen) = (IdSource::seeded(3), Vec::new());
        while let Some(delivery) = deliveries.recv().await {
            let accepted: Vec<Accepted> = delivery
                .events
                .iter()
                .map(|event| {
                    seen.push(event.payload.text().to_string());
                    Accepted { id: ids.event(at(1)), trigger: event.trigger.clone(), duplicate: false, rejected: None }
                })
                .collect();
            let _ = delivery.reply.send(Ok(accepted));
        }
        seen
    });
    let new = |n: usize| NewEvent {
        trigger: "t.e".into(),
        payload: RawJson::of(&json!(n)),
        key: None,
        dedup: None,
        occurred_at: None,
        source: "test".into(),
        cause: None,
        rejected: None,
        pending: None,
    };
    let mut last = None;
    for n in 0..100 {
        let accepted = journal.accept(vec![new(n)]).await.unwrap();
        assert!(last < Some(accepted[0].id), "ids of one sender grow");
        last = Some(accepted[0].id);
    }
    drop(journal);
    let seen = consumer.await.unwrap();
    assert_eq!(seen, (0..100).map(|n| n.to_string()).collect::<Vec<_>>(), "the order of one sender is kept");

    // Nobody takes anything: what does not fit is refused at once instead of piling up.
    let (journal, deliveries) = inline::channel();
    let waiting: Vec<_> = (0..inline::WAITING_DELIVERIES)
        .map(|n| {
            tokio::spawn({
                let (journal, event) = (journal.clone(), new(n));
                async move { journal.accept(vec![event]).await }
            })
        })
        .collect();
    eventually("the journal to be full", || async { (deliveries.len() == inline::WAITING_DELIVERIES).then_some(()) }).await;
    assert!(matches!(journal.accept(vec![new(0)]).await, Err(AcceptError::Overloaded(_))));
    drop(deliveries);
    for task in waiting {
        assert!(matches!(task.await.unwrap(), Err(AcceptError::Unavailable(_))), "a sender is told when the engine goes");
    }
}

#[test]
fn decoders_read_their_examples_and_refuse_the_rest() {
    for kind in webhooks::DECODERS {
        let hook = webhooks::Hook { name: "h", trigger: "t.e", repeats: false, memory: Duration::from_secs(60) };
        let decoded = kind.decoder.decode(&hook, &axum::http::HeaderMap::new(), kind.example.as_bytes());
        let decoded = decoded.unwrap_or_else(|rejected| panic!("{}: {rejected:?}", kind.name));
        assert!(!decoded.events.is_empty());
        for event in decoded.events {
            assert_eq!((event.trigger.as_str(), event.source.as_str()), ("t.e", "webhook/h"), "{}", kind.name);
            assert!(event.rejected.is_none(), "{}", kind.name);
        }
        for bad in [&b""[..], b"{", b"\xff", b"7", b"null"] {
            assert!(kind.decoder.decode(&hook, &axum::http::HeaderMap::new(), bad).is_err(), "{} takes {bad:?}", kind.name);
        }
    }
}

#[tokio::test]
async fn adapters_deliver_and_give_a_receipt() {
    let ids = IdSource::seeded(4);
    for kind in adapters::KINDS {
        let adapter = (kind.build)("name");
        let message = message(&ids, 1);
        let first = adapter.send(&message.destination, &message, message.id).await.unwrap();
        let second = adapter.send(&message.destination, &message, message.id).await.unwrap();
        assert!(!first.0.is_empty(), "{}", kind.name);
        if adapter.abilities().deduplicates {
            assert_eq!(first, second, "{}: a repeat is the same message", kind.name);
        }
    }
}

#[tokio::test]
async fn runners_carry_out_their_examples() {
    let actions: Vec<(String, String)> =
        signalman::runners::KINDS.iter().map(|kind| (format!("actions/{}.yaml", name(kind.example)), kind.example.to_string())).collect();
    let mut files: Vec<(&str, &str)> = actions.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    files.push(("actions/hello.rhai", "fn run(params) { `hello ${params.who}` }"));
    let site = TestSite::empty().pack(&files);
    let server = Server::start(&site).await;
    for kind in signalman::runners::KINDS {
        let ended = server.run(&format!("t.{}", name(kind.example)), json!({})).await;
        assert!(["succeeded", "failed"].contains(&ended["status"].as_str().unwrap()), "{}: {ended}", kind.name);
        let refused =
            server.post("/api/v1/executions", &json!({"action": format!("t.{}", name(kind.example)), "parameters": {"no_such": 1}})).await;
        assert_eq!(refused.0, 422, "{}: unknown parameters are refused: {}", kind.name, refused.1);
    }
}

fn name(example: &str) -> String {
    example.lines().find_map(|line| line.strip_prefix("name: ")).expect("an example has a name").to_string()
}
