//! Recorded and computed examples: what other systems really send, and what older versions really stored.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use signalman::links::{grafana, kibana, rison};
use signalman::model::event::{Event, StoredEvent};
use signalman::model::execution::{Change, Execution, Request};
use signalman::model::hash::{Revision, hex};
use signalman::model::ids::IdSource;
use signalman::model::json::RawJson;
use signalman::model::message::{Delivery, Destination, Message};
use signalman::model::principal::Principal;
use signalman::model::reason::Reason;
use signalman::sensors::webhooks::{self, Hook};
use signalman::store::archive::Reader;
use signalman::store::keyed::KeyedStore;
use signalman::store::memory::{MemorySpace, MemoryStore};
use signalman::store::migrate;
use signalman::store::{Batch, KeyChange, Page, Ruleset, Sighting, Store};

use crate::harness::{repository, shared};

fn fixture(path: &str) -> String {
    let path = repository().join("tests/fixtures").join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn rison_as_the_reference_writes_it() {
    let examples: Vec<Value> = serde_json::from_str(&fixture("rison.json")).unwrap();
    for example in &examples {
        assert_eq!(rison::encode(&example["json"]), example["rison"].as_str().unwrap(), "{}", example["json"]);
    }
    assert!(examples.len() > 30);
}

#[test]
fn what_alertmanager_really_posts() {
    let cases = [
        ("firing_minimal", &["firing"][..], 0),
        ("firing_truncated", &["firing"], 1),
        ("firing_two", &["firing", "firing"], 0),
        ("mixed_firing_resolved", &["firing", "resolved"], 0),
        ("mixed_other", &["firing", "resolved"], 0),
        ("resolved", &["resolved"], 0),
    ];
    let decoder = webhooks::decoder("alertmanager").unwrap().decoder;
    let hook = Hook { name: "am", trigger: "alertmanager.alert", repeats: false, memory: webhooks::DEFAULT_MEMORY };
    let mut keys = std::collections::BTreeMap::new();
    for (name, statuses, truncated) in cases {
        let decoded =
            decoder.decode(&hook, &axum::http::HeaderMap::new(), fixture(&format!("alertmanager/{name}.json")).as_bytes()).unwrap();
        assert_eq!(decoded.truncated, truncated, "{name}");
        let found: Vec<String> =
            decoded.events.iter().map(|event| event.payload.value().unwrap()["status"].as_str().unwrap().to_string()).collect();
        assert_eq!(found, statuses, "{name}");
        for event in decoded.events {
            assert!(event.rejected.is_none(), "{name}: {:?}", event.rejected);
            *keys.entry(event.dedup.unwrap().key).or_insert(0) += 1;
        }
    }
    // The same firing stands in several of these notifications, and is one event.
    assert_eq!(keys.values().max(), Some(&4), "{keys:?}");
}

#[test]
fn links_as_they_are_found_in_the_wild() {
    let Some(shared) = shared() else {
        println!("SKIPPED: the folder with public samples is not here");
        return;
    };
    let read =
        |path: &str| -> Value { serde_json::from_str(&std::fs::read_to_string(shared.join("payloads").join(path)).unwrap()).unwrap() };
    let decode = |url: &str| {
        url.replace("%27", "'").replace("%28", "(").replace("%29", ")").replace("%20", " ").replace("%22", "\"").replace("%2F", "/")
    };
    let known = read("kibana/links.json");
    let options = json!({"url": "http://localhost:5601", "version": 4, "index": "logstash-*", "from": "2015-09-19T06:31:44Z", "to": "2015-09-23T18:31:44Z"});
    let ours = kibana::discover(options.as_object().unwrap()).unwrap();
    let theirs = known["v4_share_link_from_kibana_functional_test"].as_str().unwrap();
    assert_eq!(decode(ours.split_once('#').unwrap().1), theirs.split_once('#').unwrap().1);
    let options = json!({"url": "https://kibana.example.com", "version": "8.15", "index": "logs*", "from": "2025-05-09T18:02:40.258Z", "to": "2025-05-10T02:05:46.064Z", "columns": ["log.message"], "query": "example.name : \"backend\""});
    let ours = kibana::discover(options.as_object().unwrap()).unwrap();
    // Theirs refreshes itself every minute; ours stands still.
    let theirs = decode(known["v8_data_view"].as_str().unwrap()).replace("value:60000", "value:0");
    assert_eq!(decode(&ours), theirs);
    let known = read("grafana/links.json");
    let options = json!({"url": "https://grafana.example.com", "uid": "cIBgcSjkk", "slug": "production-overview", "org": 1, "variables": {"app": "bike-unlock", "host": "*"}, "from": "now-1h", "to": "now", "panel": 3});
    assert_eq!(grafana::dashboard(options.as_object().unwrap()).unwrap(), known["v5_plus"].as_str().unwrap());
}

/// One record of every kind, always the same.
async fn write_every_kind(store: &dyn Store) {
    let (ids, at) = (IdSource::seeded(1), chrono::DateTime::from_timestamp(1_700_000_000, 0).unwrap());
    let request = Request {
        action: "t.a".into(),
        parameters: Map::from_iter([("n".to_string(), json!(1))]),
        requested_by: Principal::Rule("t.r".into()),
        requested_at: at,
        event: Some(ids.event(at)),
        key: Some("k".into()),
        rerun_of: None,
        depth: 1,
        parent: None,
        notify: None,
        idempotent: true,
        asked: None,
    };
    let event = Event {
        id: ids.event(at),
        trigger: "t.e".into(),
        key: Some("k".into()),
        dedup_key: Some("d".into()),
        occurred_at: at,
        received_at: at,
        source: "webhook/generic".into(),
        cause: None,
        depth: 0,
        payload: RawJson::parse("{\"text\": \"as it came\"}").unwrap(),
    };
    let open = Execution::requested(ids.execution(at), request.clone(), Reason::Matched);
    let mut ended = Execution::requested(ids.execution(at), request, Reason::Matched);
    ended.change(Change::Fail { at, reason: Reason::UnknownAction, error: "gone".into(), log: vec![] }).unwrap();
    let message = Message {
        id: ids.message(at),
        channel: "ops".into(),
        destination: Destination { adapter: "console".into(), to: "ops".into() },
        text: "hello".into(),
        created_at: at,
        execution: Some(open.id),
        replaces: None,
        passing: false,
        delivery: Delivery::Waiting,
    };
    let batch = Batch {
        events: vec![Arc::new(StoredEvent {
            event: event.clone(),
            ruleset: 1,
            verdicts: vec![],
            more_near_misses: 0,
            keys: serde_json::Map::new(),
            set_aside: None,
        })],
        sightings: vec![Sighting {
            key: "d".into(),
            event: event.id,
            seen_at: at,
            repeats: 2,
            body: Some(7),
            memory: std::time::Duration::from_secs(60),
            first: false,
        }],
        requested: vec![Arc::new(open), Arc::new(ended)],
        messages: vec![message],
        keys: vec![KeyChange::plain("t", "k", Some(json!([1])))],
        definitions: vec![(Revision("abc".into()), json!({"reference": "t.r"}))],
        ruleset: Some(Ruleset { number: 1, since: at, rules: vec![("t.r".into(), Revision("abc".into()))] }),
        settings: vec![("s".into(), json!("v"))],
        ..Batch::default()
    };
    store.commit(&batch).await.unwrap();
}

/// The store of the format that this program writes, as it was when the format was introduced: keys and records in hexadecimal.
async fn dumped() -> String {
    let space = MemorySpace::default();
    let store = MemoryStore::new(space.clone()).unwrap();
    write_every_kind(&store).await;
    let mut backup = Vec::new();
    let maintenance = store.maintenance();
    let backup = tokio::task::spawn_blocking(move || {
        maintenance.backup(&mut backup, &mut |_, _| true).unwrap();
        backup
    });
    let mut reader = Reader::new(std::io::Cursor::new(backup.await.unwrap())).unwrap();
    let mut lines = String::new();
    while let Some((key, value)) = reader.next_record().unwrap() {
        let line = json!({"key": hex(&key), "value": String::from_utf8_lossy(&value)});
        lines.push_str(&format!("{line}\n"));
    }
    lines
}

fn pairs(text: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
    let unhex = |text: &str| (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect::<Vec<u8>>();
    let pair = |line: &str| {
        let pair: Value = serde_json::from_str(line).unwrap();
        (unhex(pair["key"].as_str().unwrap()), pair["value"].as_str().unwrap().as_bytes().to_vec())
    };
    text.lines().map(pair).collect()
}

async fn every_kind_is_read(space: MemorySpace) {
    let store = KeyedStore::new(space).unwrap();
    let events = store.events(Page { before: None, limit: 10 }).await.unwrap();
    assert_eq!(events[0].event.payload.text(), "{\"text\": \"as it came\"}");
    assert_eq!(store.executions(Page { before: None, limit: 10 }).await.unwrap().len(), 2);
    assert_eq!(store.open_executions().await.unwrap().len(), 1);
    assert_eq!(store.waiting_messages(None, 10).await.unwrap()[0].text, "hello");
    assert_eq!(store.messages(Page { before: None, limit: 10 }).await.unwrap().len(), 1);
    let at = chrono::DateTime::from_timestamp(1_700_000_010, 0).unwrap();
    let seen = store.sightings(&[("d".into(), std::time::Duration::from_secs(60))], at).await.unwrap();
    assert_eq!(seen[0].as_ref().map(|sighting| sighting.repeats), Some(2));
    assert_eq!(store.key("t", "k").await.unwrap().map(|entry| entry.value), Some(json!([1])));
    assert_eq!(store.ruleset(None).await.unwrap().unwrap().rules.len(), 1);
    assert!(store.definition(&Revision("abc".into())).await.unwrap().is_some());
    assert_eq!(store.setting("s").await.unwrap(), Some(json!("v")));
    assert_eq!(store.sequence().await.unwrap(), 1);
}

#[tokio::test]
async fn what_format_1_stored_is_still_read() {
    let space = MemorySpace::default();
    let records = pairs(&fixture("store-format-1.jsonl")).into_iter().map(|pair| Ok(migrate::of_first_format(pair)));
    KeyedStore::fill(space.clone(), records).unwrap();
    every_kind_is_read(space).await;
}

#[tokio::test]
async fn what_format_2_stored_is_still_read() {
    let path = repository().join("tests/fixtures/store-format-2.jsonl");
    if !path.exists() {
        std::fs::write(&path, dumped().await).unwrap();
        panic!("the fixture was missing and has been written; look at it and run again");
    }
    let space = MemorySpace::default();
    KeyedStore::fill(space.clone(), pairs(&fixture("store-format-2.jsonl")).into_iter().map(Ok)).unwrap();
    every_kind_is_read(space).await;
}

/// A folder as an older version left it when it was killed, and what its API had answered.
#[tokio::test]
async fn a_folder_of_format_1_is_carried_over() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    std::fs::create_dir(&store).unwrap();
    for file in ["db", "conf"] {
        std::fs::copy(repository().join("tests/fixtures/store-format-1").join(file), store.join(file)).unwrap();
    }
    let expected: Value = serde_json::from_str(&fixture("store-format-1/expected.json")).unwrap();
    for start in ["the first start", "the next start"] {
        let store = migrate::open(&store).unwrap();
        let events = store.events(Page { before: None, limit: 1_000 }).await.unwrap();
        let executions = store.executions(Page { before: None, limit: 1_000 }).await.unwrap();
        let messages = store.messages(Page { before: None, limit: 1_000 }).await.unwrap();
        assert_eq!(json!(events), expected["events"], "{start}");
        let ids = |list: &Value| list.as_array().unwrap().iter().map(|one| one["id"].clone()).collect::<Vec<_>>();
        let states: Vec<Value> = executions.iter().map(|one| json!({"id": one.id, "status": one.state.status})).collect();
        let expected_states: Vec<Value> =
            expected["executions"].as_array().unwrap().iter().map(|one| json!({"id": one["id"], "status": one["status"]})).collect();
        assert_eq!(states, expected_states, "{start}");
        assert_eq!(ids(&json!(messages)), ids(&expected["messages"]), "{start}");
        let key = "webhook/generic:0:big-1";
        let at = events[0].event.received_at + chrono::Duration::hours(1);
        let seen = store.sightings(&[(key.into(), std::time::Duration::from_secs(86_400))], at).await.unwrap();
        assert_eq!(
            seen[0].as_ref().map(|sighting| sighting.event),
            Some(events[0].event.id),
            "{start}: senders' keys are still remembered"
        );
    }
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["store"], "nothing of the old folder is left");
}
