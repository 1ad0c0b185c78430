//! The datastore: who wins, what is counted, when a key is over, and who may touch whose.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use signalman::clock::{Clock, SimulatedClock};
use signalman::engine::{Engine, keys};
use signalman::model::datastore::{Change, Changed, If, KeyRequest, Scope};
use signalman::model::event::NewEvent;
use signalman::model::json::RawJson;
use signalman::store::memory::MemorySpace;

use crate::harness::{Server, Shell, TestSite, World, eventually, memory};

const LIMIT_RULE: &str =
    "trigger: {type: core.webhook}\ncriteria:\n  trigger.n: {type: gt, pattern: \"{{kv.system.limit}}\"}\naction: {ref: core.noop}\n";

async fn change(engine: &Arc<Engine>, name: &str, change: Change, only: If) -> Changed {
    let request = KeyRequest { scope: Scope::System, name: name.into(), change, only, by: "a test".into(), cause: None };
    keys::change(engine, request).await.unwrap()
}

fn set(value: Value, ttl_s: u64) -> Change {
    Change::Set { value, ttl: (ttl_s > 0).then(|| Duration::from_secs(ttl_s)) }
}

async fn value(engine: &Engine, name: &str) -> Option<Value> {
    keys::get(engine, &Scope::System, name).await.unwrap().map(|entry| entry.value)
}

fn webhook(payload: Value) -> NewEvent {
    NewEvent {
        trigger: "core.webhook".into(),
        payload: RawJson::of(&payload),
        key: None,
        dedup: None,
        occurred_at: None,
        source: "test".into(),
        cause: None,
        rejected: None,
        pending: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_over_at_its_time_and_rules_know() {
    let told =
        "trigger: {type: core.key_changed}\naction: {ref: core.echo, parameters: {text: \"{{trigger.name}} {{trigger.expired}}\"}}\n";
    let site = TestSite::new()
        .file("packs/core/actions/echo.yaml", "name: echo\nrunner_type: noop\nparameters: {text: {type: string}}\n")
        .file("rules/limit.yaml", LIMIT_RULE)
        .file("rules/told.yaml", told);
    let (space, clock) = (MemorySpace::default(), Arc::new(SimulatedClock::at("2026-11-20T10:00:00Z".parse().unwrap())));
    let world = World::start_with_clock(&site, memory(&space), Arc::clone(&clock) as _).await.unwrap();
    let (engine, journal) = (Arc::clone(&world.app.engine), Arc::clone(&world.app.journal));
    let matched = |n: u32| {
        let (engine, journal) = (Arc::clone(&engine), Arc::clone(&journal));
        async move {
            let id = journal.accept(vec![webhook(json!({"n": n}))]).await.unwrap()[0].id;
            let event = engine.store.event(id).await.unwrap().unwrap();
            event.verdicts.iter().find(|verdict| verdict.rule == "default.limit").unwrap().reason.code()
        }
    };
    change(&engine, "limit", set(json!(80), 60), If::Always).await;
    assert_eq!(matched(90).await, "matched");
    clock.advance(Duration::from_millis(59_999));
    assert_eq!((matched(90).await, value(&engine, "limit").await), ("matched", Some(json!(80))));
    clock.advance(Duration::from_millis(1));
    assert_eq!((matched(90).await, value(&engine, "limit").await), ("criterion_failed", None), "exactly at its time");
    eventually("the key to be removed", || async {
        clock.advance(Duration::from_secs(1));
        engine.store.key("system", "limit").await.unwrap().is_none().then_some(())
    })
    .await;
    eventually("the rule to be told once", || async {
        let executions = engine.store.executions(signalman::store::Page { before: None, limit: 100 }).await.unwrap();
        let texts = executions.iter().filter_map(|execution| execution.request.parameters.get("text")?.as_str());
        let ended = texts.filter(|text| *text == "limit true").count();
        assert!(ended < 2);
        (ended == 1).then_some(())
    })
    .await;
    // Set again, it counts from then on; without a time it stays, also over a restart.
    change(&engine, "limit", set(json!(80), 60), If::Always).await;
    clock.advance(Duration::from_secs(30));
    change(&engine, "limit", set(json!(85), 0), If::Always).await;
    change(&engine, "short", set(json!(1), 10), If::Always).await;
    clock.advance(Duration::from_secs(5));
    drop(engine);
    world.app.stop().await;
    let world = World::start_with_clock(&site, memory(&space), Arc::clone(&clock) as _).await.unwrap();
    let engine = Arc::clone(&world.app.engine);
    assert_eq!(engine.ruling.keys(clock.now()).len(), 2);
    clock.advance(Duration::from_secs(5));
    assert_eq!(engine.ruling.keys(clock.now()).keys().collect::<Vec<_>>(), ["limit"]);
    world.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_many_wins_and_no_count_is_lost() {
    let world = World::start(&TestSite::new(), memory(&MemorySpace::default())).await.unwrap();
    let engine = Arc::clone(&world.app.engine);
    let tasks = (0..40).map(|n| {
        let engine = Arc::clone(&engine);
        tokio::spawn(async move {
            for _ in 0..5 {
                change(&engine, "count", Change::Increment { by: 2, ttl: None }, If::Always).await;
            }
            matches!(change(&engine, "lead", set(json!(n), 0), If::Absent).await, Changed::Done { .. })
        })
    });
    let mut winners = 0;
    for task in tasks.collect::<Vec<_>>() {
        winners += u32::from(task.await.unwrap());
    }
    assert_eq!((winners, value(&engine, "count").await), (1, Some(json!(400))));
    // A version does not come back when a key is deleted and made anew.
    let version =
        |changed: Changed| if let Changed::Done { after: Some(entry), .. } = changed { entry.version } else { panic!("{changed:?}") };
    let first = version(change(&engine, "k", set(json!(1), 0), If::Always).await);
    change(&engine, "k", Change::Delete, If::Version(first)).await;
    let second = version(change(&engine, "k", set(json!(1), 0), If::Absent).await);
    assert!(second > first);
    let lost = change(&engine, "k", set(json!(2), 0), If::Version(first)).await;
    assert!(matches!(lost, Changed::Lost { entry: Some(entry) } if entry.version == second));
    // A time is set by the first count only.
    let soon = Change::Increment { by: 1, ttl: Some(Duration::from_secs(60)) };
    let expires = |changed: Changed| if let Changed::Done { after: Some(entry), .. } = changed { entry.expires_at } else { None };
    let until = expires(change(&engine, "rate", soon.clone(), If::Always).await);
    assert!(until.is_some());
    assert_eq!(expires(change(&engine, "rate", soon, If::Always).await), until);
    world.app.stop().await;
}

const SCRIPT: &str = r#"fn run(params) {
    let first = kv.set("a", #{n: 1}, #{ttl: "1h"});
    let entry = kv.entry("a");
    let stale = kv.set("a", 2, #{if_version: entry.version + 1});
    let won = kv.compare_and_set("lock", (), "me");
    let lost = kv.compare_and_set("lock", (), "you");
    let taken = kv.compare_and_set("lock", "me", "you", #{ttl: 60});
    let n = kv.increment("n", 5); let m = kv.increment("n"); let low = kv.increment("n", -10, #{ttl: "1m"});
    let gone = [kv.delete("lock"), kv.delete("lock")];
    let names = kv.list(); let some = kv.list("a");
    let seen = kv.system.get("limit");
    kv.user.set("mine", context.requested_by);
    #{first: first, expires: entry.expires_at != (), by: entry.changed_by, stale: stale, won: won, lost: lost, taken: taken,
      n: [n, m, low], gone: gone, names: names, some: some, seen: seen, mine: kv.user.get("mine"), other: kv.get("core", "x")}
}
"#;

fn with_kv(capabilities: &str) -> TestSite {
    TestSite::new()
        .file("packs/t/pack.yaml", &format!("ref: t\ncapabilities: {{{capabilities}}}\n"))
        .file("packs/t/actions/all.yaml", "name: all\nrunner_type: rhai\n")
        .file("packs/t/actions/all.rhai", SCRIPT)
}

#[tokio::test]
async fn scripts_have_their_keys_and_those_that_they_may() {
    let shell = Shell::start(with_kv("kv: {own: read_write, system: read, user: read_write, core: read}")).await;
    shell.say(&["key", "set", "limit", "80", "--json"]).out(0, &["limit is new"]);
    let run = shell.server.run("t.all", json!({})).await;
    let result = &run["result"];
    let by = format!("t.all ({})", &run["id"].as_str().unwrap()[20..]);
    assert_eq!(
        *result,
        json!({"first": true, "expires": true, "by": by, "stale": false, "won": true, "lost": false, "taken": true, "n": [5, 6, -4],
            "gone": [true, false], "names": ["a", "n"], "some": ["a"], "seen": 80, "mine": "token admin", "other": null}),
        "{run}"
    );
    let shown = shell.json(&["key", "list", "--scope", "t"]);
    assert_eq!(shown["keys"][1]["value"], json!(-4), "{shown}");
    assert_eq!(shell.say(&["key", "get", "mine", "--scope", "user:admin"]).out(0, &[]).out, "token admin\n");

    let refuse = |pack: &'static str, line: &'static str| async move {
        let site = with_kv(pack);
        let server = Server::start(&site).await;
        let run = server.run("t.all", json!({})).await;
        assert_eq!(run["reason"], "capability_missing", "{run}");
        assert!(run["error"].as_str().unwrap().contains(line), "{run}");
    };
    refuse("chat: true", "kv: read_write").await;
    refuse("kv: read_write", "kv: {own: read_write, system: read}").await;
    refuse("kv: {own: read_write, system: read}", "kv: {own: read_write, user: read_write}").await;
    refuse("kv: {own: read_write, system: read, user: read_write}", "kv: {own: read_write, core: read}").await;
}

#[tokio::test]
async fn the_api_tells_versions_and_who_won() {
    let site = TestSite::new(); // its folder goes when it is dropped
    let server = Server::start(&site).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let put = |name: &str, value: Value, header: Option<(&'static str, String)>| {
        let mut request = client.put(format!("{}/api/v1/keys/{name}", server.url)).bearer_auth(&server.token).body(value.to_string());
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        async move {
            let response = request.send().await.unwrap();
            let tag = response.headers().get("etag").map(|tag| tag.to_str().unwrap().to_string());
            (response.status().as_u16(), tag, serde_json::from_str::<Value>(&response.text().await.unwrap()).unwrap())
        }
    };
    let (status, first, _) = put("k", json!({"value": 1}), Some(("if-none-match", "*".into()))).await;
    assert_eq!(status, 200);
    let (status, _, problem) = put("k", json!({"value": 2}), Some(("if-none-match", "*".into()))).await;
    assert_eq!(status, 412);
    assert!(problem["detail"].as_str().unwrap().contains("changed by token admin"), "{problem}");
    let (status, second, _) = put("k", json!({"value": 2, "ttl": "1h"}), Some(("if-match", first.clone().unwrap()))).await;
    assert_eq!(status, 200);
    assert_ne!(first, second);
    assert_eq!(put("k", json!({"value": 3}), Some(("if-match", first.unwrap()))).await.0, 412);
    assert_eq!(put("k", json!({"value": 3, "ttl": "soon"}), None).await.0, 400);
    assert_eq!(put("a%2Fb", json!({"value": 3}), None).await.0, 400, "rules could not name it");
    assert_eq!(put("a%2Fb?scope=p", json!({"value": 3}), None).await.0, 200);
    assert_eq!(put("k?scope=sensor:a.b", json!({"value": 3}), None).await.0, 400);
    let (_, entry) = server.get("/api/v1/keys/a%2Fb?scope=p").await;
    assert_eq!((&entry["name"], &entry["scope"], &entry["value"]), (&json!("a/b"), &json!("p"), &json!(3)));
    let (status, counted) = server.post("/api/v1/keys/n/increment", &json!({"by": 3})).await;
    assert_eq!((status, &counted["value"]), (200, &json!(3)));
    let (status, problem) = server.post("/api/v1/keys/a%2Fb%2Fc/increment?scope=p", &json!({})).await;
    assert_eq!((status, &problem["value"]), (200, &json!(1)));
    put("text", json!({"value": "x"}), None).await;
    let (status, problem) = server.post("/api/v1/keys/text/increment", &json!({})).await;
    assert_eq!(status, 400);
    assert!(problem["detail"].as_str().unwrap().contains("not a whole number"), "{problem}");
}

#[tokio::test]
async fn the_command_line_knows_scopes_times_and_versions() {
    let shell = Shell::start(TestSite::new()).await;
    shell.say(&["key", "set", "limit", "5", "--ttl", "1h"]).out(0, &["limit is new, until 20"]);
    shell.say(&["key", "set", "limit", "6", "--if-absent"]).err(1, &["key `limit` has version", "changed by token admin"]);
    let version = shell.json(&["key", "get", "limit"])["version"].to_string();
    shell.say(&["key", "set", "limit", "6", "--if-version", &version]).out(0, &["limit is changed"]);
    shell.say(&["key", "delete", "limit", "--if-version", &version]).err(1, &["key `limit` has version"]);
    assert_eq!(shell.say(&["key", "increment", "n", "-3", "--ttl", "5m"]).out(0, &[]).out, "-3\n");
    assert_eq!(shell.say(&["key", "increment", "n"]).out(0, &[]).out, "-2\n");
    shell.say(&["key", "increment", "limit"]).err(2, &["not a whole number"]);
    shell.say(&["key", "set", "a b/c", "1", "--scope", "t"]).out(0, &["a b/c is new"]);
    shell.say(&["key", "list", "a", "--scope", "t"]).out(0, &["a b/c", "token admin"]);
    shell.say(&["key", "list", "b", "--scope", "t"]).out(0, &["no keys"]);
    shell.say(&["key", "get", "a", "--scope", "t"]).err(1, &["there is no key `a` in scope `t`"]);
    shell.say(&["key", "list", "--scope", "Some Pack"]).err(2, &["is not a scope: it is system, the name of a pack, or user:NAME"]);
}
