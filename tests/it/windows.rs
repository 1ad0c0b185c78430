//! Windows, throttles and what else rules remember: over failures at any commit, kills, restarts and outages, nothing counts twice or not
//! at all.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use signalman::clock::{Clock, SimulatedClock};
use signalman::model::datastore::Scope;
use signalman::model::event::{Dedup, NewEvent};
use signalman::model::execution::{Execution, Status};
use signalman::model::json::RawJson;
use signalman::model::reason::Reason;
use signalman::store::memory::MemorySpace;
use signalman::store::{Page, Store};

use crate::faults::{Failing, Fails};
use crate::harness::{Random, Server, TestSite, World, eventually, memory, seed, set_key, times};

/// A site with trigger `t.e`, an action `t.noop` that does nothing, and the triggers of our own events.
pub fn site(rules: &[(&str, &str)]) -> TestSite {
    let site = TestSite::empty()
        .file("packs/t/pack.yaml", "ref: t\n")
        .file("packs/t/triggers/e.yaml", "name: e\n")
        .file("packs/t/actions/noop.yaml", "runner_type: noop\nidempotent: true\nparameters: {n: {}, key: {}, text: {}}\n")
        .file("packs/core/pack.yaml", "ref: core\n")
        .file("packs/core/triggers/execution_finished.yaml", "name: execution_finished\n")
        .file("packs/core/triggers/key_changed.yaml", "name: key_changed\n")
        .file("packs/core/triggers/rule_quarantined.yaml", "name: rule_quarantined\n");
    rules.iter().fold(site, |site, (name, text)| site.file(&format!("rules/{name}.yaml"), text))
}

fn event(number: u64, payload: &Value, at: Option<DateTime<Utc>>) -> NewEvent {
    NewEvent {
        trigger: "t.e".into(),
        payload: RawJson::of(payload),
        key: None,
        dedup: Some(Dedup { key: format!("e{number}"), memory: Duration::from_secs(86_400), repeats: false, body: None }),
        occurred_at: at,
        source: "test".into(),
        cause: None,
        rejected: None,
        pending: None,
    }
}

async fn executions(store: &dyn Store) -> Vec<Execution> {
    let mut found = store.executions(Page { before: None, limit: 10_000 }).await.unwrap();
    found.reverse();
    found
}

/// The numbers of the events that ran something, in order.
async fn fired(store: &dyn Store) -> Vec<u64> {
    let mut numbers: Vec<u64> = executions(store).await.iter().filter_map(|execution| execution.request.parameters["n"].as_u64()).collect();
    numbers.sort_unstable();
    numbers
}

const COUNTED: &str = "trigger: {type: t.e}\nwindow: {count: 3, within: 1h, by: \"{{trigger.key}}\"}\n\
    throttle: {once_per: 1ms, by: \"{{trigger.key}}\"}\naction: {ref: t.noop, parameters: {n: <% trigger.n %>}}\n";

/// Which of so many events must run something: every third of its key.
fn must_fire(count: u64) -> Vec<u64> {
    let mut seen: BTreeMap<u64, u64> = BTreeMap::new();
    let mut full = |n: u64| {
        let count = seen.entry(n % 2).or_default();
        *count += 1;
        count.is_multiple_of(3)
    };
    (0..count).filter(|n| full(*n)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_at_any_commit_counts_no_event_twice_or_not_at_all() {
    const EVENTS: u64 = 14;
    let base = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
    for fails in [Fails::Before, Fails::After] {
        for budget in 0..40 {
            let (site, space) = (site(&[("counted", COUNTED)]), MemorySpace::default());
            let failing = Arc::new(Failing::new(memory(&space), budget, fails));
            let (mut number, mut failed) = (0, true);
            if let Ok(world) = World::start(&site, failing.clone()).await {
                while number < EVENTS {
                    let payload = json!({"n": number, "key": number % 2});
                    let at = base + chrono::Duration::seconds(i64::try_from(number).unwrap());
                    if world.app.journal.accept(vec![event(number, &payload, Some(at))]).await.is_err() {
                        break;
                    }
                    number += 1;
                }
                failed = number < EVENTS;
                failing.fail().await; // as a kill: what still runs there writes nothing any more
            }
            let store = memory(&space);
            let world = World::start(&site, Arc::clone(&store)).await.expect("it starts again");
            // The sender repeats what it has no answer for, and one before that.
            for number in number.saturating_sub(1)..EVENTS {
                let payload = json!({"n": number, "key": number % 2});
                let at = base + chrono::Duration::seconds(i64::try_from(number).unwrap());
                world.app.journal.accept(vec![event(number, &payload, Some(at))]).await.expect("everything is taken now");
            }
            assert_eq!(fired(&*store).await, must_fire(EVENTS), "{fails:?} {budget} commits, event {number} had no answer");
            world.app.stop().await;
            if !failed {
                println!("{fails:?}: a failure at each of {budget} commits");
                assert!(budget >= 10, "the story has fewer commits than it should: {budget}");
                break;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_moment_a_window_counts_each_event_once() {
    let (mut random, kills) = (Random(seed()), times(12, 100));
    let rule = COUNTED.replace("t.e", "core.webhook");
    let site = TestSite::new()
        .file("packs/t/pack.yaml", "ref: t\n")
        .file("packs/t/actions/noop.yaml", "runner_type: noop\nidempotent: true\nparameters: {n: {}}\n")
        .file("rules/counted.yaml", &rule);
    let next = Arc::new(AtomicU64::new(0));
    for kill in 0..=kills {
        let server = Server::start(&site).await;
        let (url, sent) = (server.url.clone(), Arc::clone(&next));
        let last = kill == kills;
        let sender = tokio::spawn(async move {
            let client = reqwest::Client::builder().no_proxy().build().unwrap();
            loop {
                let number = sent.load(Ordering::SeqCst);
                let request = client
                    .post(format!("{url}/api/v1/webhooks/generic"))
                    .header("idempotency-key", number.to_string())
                    .body(json!({"n": number, "key": number % 2}).to_string());
                let Ok(answer) = request.send().await else { return };
                assert_eq!(answer.status(), 202);
                if answer.text().await.is_err() {
                    return;
                }
                sent.fetch_add(1, Ordering::SeqCst);
                if last {
                    return;
                }
            }
        });
        if last {
            sender.await.unwrap();
            let count = next.load(Ordering::SeqCst);
            let must = must_fire(count);
            let found = eventually("all executions", || async {
                let (mut numbers, mut before) = (Vec::new(), String::new());
                loop {
                    let (_, page) = server.get(&format!("/api/v1/executions?limit=1000{before}")).await;
                    numbers.extend(page["executions"].as_array().unwrap().iter().filter_map(|one| one["parameters"]["n"].as_u64()));
                    let Some(next) = page["next"].as_str() else { break };
                    before = format!("&before={next}");
                }
                numbers.sort_unstable();
                (numbers.len() >= must.len()).then_some(numbers)
            })
            .await;
            assert_eq!(found, must, "{kills} kills, {count} events");
            println!("{kills} kills, {count} events counted, {} times full", must.len());
            return;
        }
        let enough = next.load(Ordering::SeqCst) + random.below(60);
        eventually("some events to be taken", || async { (next.load(Ordering::SeqCst) >= enough).then_some(()) }).await;
        server.kill();
        sender.await.unwrap();
    }
}

/// A world whose time stands still until it is moved.
struct Still {
    world: World,
    store: Arc<dyn Store>,
    number: AtomicU64,
}

impl Still {
    async fn start(site: &TestSite, space: &MemorySpace, clock: SimulatedClock) -> Self {
        let store = memory(space);
        let world = World::start_with_clock(site, Arc::clone(&store), Arc::new(clock)).await.unwrap();
        Self { world, store, number: AtomicU64::new(clock_number()) }
    }

    async fn send(&self, payload: Value) -> Vec<Reason> {
        let number = self.number.fetch_add(1, Ordering::SeqCst);
        let accepted = self.world.app.journal.accept(vec![event(number, &payload, None)]).await.unwrap();
        let stored = self.store.event(accepted[0].id).await.unwrap().unwrap();
        stored.verdicts.iter().map(|verdict| verdict.reason).collect()
    }

    /// So many executions are there.
    async fn has(&self, count: usize) -> Vec<Execution> {
        eventually("the executions", || async {
            let found = executions(&*self.store).await;
            (found.len() >= count).then_some(found)
        })
        .await
    }
}

/// Numbers of events never repeat, also over restarts.
fn clock_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1_000_000, Ordering::SeqCst)
}

fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(minutes * 60)
}

const SILENT: &str = "trigger: {type: t.e}\nwindow: {absent_for: 10m, by: \"{{trigger.key}}\"}\n\
    action: {ref: t.noop, parameters: {n: <% trigger.n %>, text: \"{{event.deadline}}\"}}\n";

#[tokio::test(flavor = "multi_thread")]
async fn silence_runs_something_once_and_our_own_outage_is_no_silence() {
    let start = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
    let (site, space, clock) = (site(&[("silent", SILENT)]), MemorySpace::default(), SimulatedClock::at(start));
    let still = Still::start(&site, &space, clock.clone()).await;
    assert_eq!(still.send(json!({"key": "a", "n": 1})).await, [Reason::WindowArmed]);
    clock.advance(minutes(4));
    still.send(json!({"key": "a", "n": 2})).await;
    clock.advance(minutes(9));
    assert!(executions(&*still.store).await.is_empty());
    clock.advance(minutes(1));
    let found = still.has(1).await;
    assert_eq!((&found[0].request.parameters["n"], found[0].state.reason), (&json!(2), found[0].state.reason));
    assert_eq!(found[0].request.parameters["text"], json!("2023-11-14T22:27:20.000Z"));
    clock.advance(minutes(6));
    still.send(json!({"key": "a", "n": 3})).await;
    // Something else makes sure that the process was last known to be there at this time.
    clock.advance(Duration::from_secs(11));
    eventually("that it is noted", || async {
        let alive = still.store.setting("alive").await.unwrap()?;
        (alive["at"].as_i64()? >= clock.now().timestamp_millis()).then_some(())
    })
    .await;
    still.world.app.stop().await;
    clock.advance(minutes(60));
    let again = Still::start(&site, &space, clock.clone()).await;
    clock.advance(minutes(9));
    tokio::task::yield_now().await;
    assert_eq!(executions(&*again.store).await.len(), 1, "an hour of ours is no silence of theirs");
    clock.advance(minutes(1));
    let found = again.has(2).await;
    assert_eq!(found[1].request.parameters["n"], json!(3));
    again.world.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silence_is_told_once_whatever_comes_late_and_knows_the_event_before_it_is_durable() {
    let start = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
    let (site, space, clock) = (site(&[("silent", SILENT)]), MemorySpace::default(), SimulatedClock::at(start));
    let still = Still::start(&site, &space, clock.clone()).await;
    // Long due when it comes.
    let at = |n: u64, ago: i64| event(clock_number(), &json!({"key": "a", "n": n}), Some(start - chrono::Duration::minutes(ago)));
    still.world.app.journal.accept(vec![at(1, 11)]).await.unwrap();
    clock.advance(Duration::from_millis(1));
    assert_eq!(still.has(1).await[0].request.parameters["n"], json!(1), "its payload is known");
    // The same again, and one that is older: neither is news.
    for (n, ago) in [(2, 11), (3, 11), (4, 12)] {
        let accepted = still.world.app.journal.accept(vec![at(n, ago)]).await.unwrap();
        let stored = still.store.event(accepted[0].id).await.unwrap().unwrap();
        assert_eq!(stored.verdicts[0].reason, Reason::Late, "event {n}");
    }
    clock.advance(minutes(30));
    assert_eq!(still.send(json!({"key": "b", "n": 5})).await, [Reason::WindowArmed]);
    assert_eq!(executions(&*still.store).await.len(), 1);
    still.world.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loop_through_the_datastore_ends_too() {
    let rule = "trigger: {type: core.key_changed, parameters: {scope: loops}}\naction: {ref: loops.count}\n";
    let site = site(&[("again", rule)])
        .file("packs/loops/pack.yaml", "ref: loops\ncapabilities: {kv: read_write}\n")
        .file("packs/loops/actions/count.yaml", "runner_type: rhai\n")
        .file("packs/loops/actions/count.rhai", "fn run(params) { kv.set(\"n\", (kv.get(\"n\") ?? 0) + 1); }");
    let (space, clock) = (MemorySpace::default(), SimulatedClock::at(DateTime::from_timestamp(1_700_000_000, 0).unwrap()));
    let still = Still::start(&site, &space, clock).await;
    set_key(&still.world.app.engine, Scope::Pack("loops".into()), "n", Some(json!(0))).await;
    eventually("the chain to end", || async {
        let events = still.store.events(Page { before: None, limit: 100 }).await.unwrap();
        events.iter().any(|event| event.set_aside.as_ref().is_some_and(|aside| aside.reason == Reason::Loop)).then_some(())
    })
    .await;
    assert_eq!(executions(&*still.store).await.len(), 9);
    still.world.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_throttle_holds_silences_and_a_rule_that_is_off_waits_anew() {
    let rule = SILENT.replace("by: \"{{trigger.key}}\"}\n", "by: \"{{trigger.key}}\"}\nthrottle: {once_per: 1h}\n");
    let named = "trigger: {type: t.e}\nwindow: {absent_for: 10m, keys: [x], by: \"{{trigger.key}}\"}\naction: {ref: t.noop, parameters: {text: x}}\n";
    let start = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
    let (site, space, clock) = (site(&[("silent", &rule), ("named", named)]), MemorySpace::default(), SimulatedClock::at(start));
    let still = Still::start(&site, &space, clock.clone()).await;
    let engine = Arc::clone(&still.world.app.engine);
    let by = signalman::model::principal::Principal::Token("t".into());
    assert!(signalman::engine::switching::switch(&engine, "default.named", false, &by).await.unwrap());
    assert!(!signalman::engine::switching::switch(&engine, "default.named", false, &by).await.unwrap(), "it is off already");
    still.send(json!({"key": "a", "n": 1})).await;
    still.send(json!({"key": "b", "n": 2})).await;
    clock.advance(minutes(10));
    assert_eq!(still.has(1).await.len(), 1, "the throttle has one key for both");
    let throttled = || engine.metrics.verdicts.with_label_values(&["throttled"]).get();
    eventually("the other to be held", || async { (throttled() == 1).then_some(()) }).await;
    assert!(signalman::engine::switching::switch(&engine, "default.named", true, &by).await.unwrap());
    clock.advance(minutes(10));
    let texts = still.has(2).await;
    assert_eq!(texts[1].request.parameters["text"], json!("x"), "{texts:?}");
    still.world.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn above_its_ceiling_a_rules_executions_wait_and_its_owner_is_told_once() {
    let rule = "trigger: {type: t.e}\nceiling: 2\naction: {ref: t.noop, parameters: {n: <% trigger.n %>}}\n";
    let start = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
    let (site, space, clock) = (site(&[("busy", rule)]), MemorySpace::default(), SimulatedClock::at(start));
    let still = Still::start(&site, &space, clock.clone()).await;
    for n in 0..5 {
        still.send(json!({"n": n})).await;
    }
    let ended = |count: usize| {
        let store = Arc::clone(&still.store);
        eventually("executions to end", move || {
            let store = Arc::clone(&store);
            async move {
                let found = executions(&*store).await;
                let ended = found.iter().filter(|execution| execution.state.status == Status::Succeeded).count();
                (ended >= count).then_some((ended, found))
            }
        })
    };
    let (done, all) = ended(2).await;
    assert_eq!((done, all.len()), (2, 5));
    let waiting: Vec<Reason> = all.iter().filter(|one| one.state.status == Status::Delayed).map(|one| one.state.reason).collect();
    assert_eq!(waiting, [Reason::HeldByCeiling; 3]);
    clock.advance(minutes(1));
    assert_eq!(ended(4).await.0, 4);
    clock.advance(minutes(1));
    assert_eq!(ended(5).await.0, 5);
    let messages = still.store.messages(Page { before: None, limit: 100 }).await.unwrap();
    let told: Vec<&str> =
        messages.iter().map(|message| message.text.as_str()).filter(|text| text.contains("more than 2 executions")).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    still.world.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guard_that_loops_sends_its_rule_into_quarantine_until_it_is_changed() {
    let hungry = "[1,2,3,4,5,6,7,8].map(|x| [1,2,3,4,5,6,7,8].map(|y| [1,2,3,4,5,6,7,8].map(|z| [1,2,3,4,5,6,7,8].map(|a| [1,2,3,4,5,6,7,8].map(|b| [1,2,3,4,5,6,7,8].map(|c| 1)))))).len() > 0";
    let rule = format!("trigger: {{type: t.e}}\nwhen: \"<% {hungry} %>\"\naction: {{ref: t.noop}}\n");
    let told = "trigger: {type: core.rule_quarantined}\naction: {ref: t.noop, parameters: {text: \"{{trigger.rule}}\"}}\n";
    let start = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
    let (site, space, clock) = (site(&[("hungry", &rule), ("told", told)]), MemorySpace::default(), SimulatedClock::at(start));
    let still = Still::start(&site, &space, clock.clone()).await;
    for _ in 0..10 {
        assert_eq!(still.send(json!({"n": 1})).await, [Reason::GuardFailed]);
    }
    assert_eq!(still.send(json!({"n": 1})).await, [] as [Reason; 0], "it is not tried any more");
    assert_eq!(still.has(1).await[0].request.parameters["text"], json!("default.hungry"));
    let messages = still.store.messages(Page { before: None, limit: 100 }).await.unwrap();
    assert_eq!(messages.iter().filter(|message| message.text.contains("is not tried any more")).count(), 1);
    still.world.app.stop().await;
    let again = Still::start(&site, &space, clock.clone()).await;
    assert_eq!(again.send(json!({"n": 1})).await, [] as [Reason; 0], "also after a restart");
    again.world.app.stop().await;
    site.write("rules/hungry.yaml", "trigger: {type: t.e}\nwhen: <% trigger.n == 1 %>\naction: {ref: t.noop}\n");
    let mended = Still::start(&site, &space, clock).await;
    assert_eq!(mended.send(json!({"n": 1})).await, [Reason::Matched]);
    mended.world.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ends_of_executions_and_changes_of_keys_are_events_and_loops_end() {
    let ran = "trigger: {type: t.e}\nwhen: <% kv.system.wanted == 7 %>\naction: {ref: t.noop, parameters: {n: <% trigger.n %>}}\n";
    let after = "trigger: {type: core.execution_finished, parameters: {action: t.noop, status: succeeded}}\n\
        action: {ref: t.noop, parameters: {text: after}}\n";
    let changed = "trigger: {type: core.key_changed}\ncriteria: {trigger.name: {type: equals, pattern: wanted}}\n\
        action: {ref: t.noop, parameters: {text: \"{{trigger.value}}\"}}\n";
    let start = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
    let (space, clock) = (MemorySpace::default(), SimulatedClock::at(start));
    let quiet = site(&[("ran", ran), ("changed", changed)]);
    let still = Still::start(&quiet, &space, clock.clone()).await;
    assert_eq!(still.send(json!({"n": 1})).await, [Reason::GuardNotHeld], "there is no such key");
    set_key(&still.world.app.engine, Scope::System, "wanted", Some(json!(7))).await;
    assert_eq!(still.has(1).await[0].request.parameters["text"], json!("7"));
    assert_eq!(still.send(json!({"n": 1})).await, [Reason::Matched]);
    still.has(2).await;
    still.world.app.stop().await;
    // A rule that listens to the end of what it runs ends at depth eight.
    let loops = site(&[("ran", ran), ("after", after)]);
    let still = Still::start(&loops, &space, clock).await;
    assert_eq!(still.send(json!({"n": 2})).await, [Reason::Matched], "the key is still there");
    eventually("the chain to end", || async {
        let events = still.store.events(Page { before: None, limit: 100 }).await.unwrap();
        events.iter().any(|event| event.set_aside.as_ref().is_some_and(|aside| aside.reason == Reason::Loop)).then_some(())
    })
    .await;
    let after =
        executions(&*still.store).await.into_iter().filter(|one| one.request.parameters.get("text") == Some(&json!("after"))).count();
    assert_eq!(after, 8);
    assert!(still.store.pending_events(10).await.unwrap().is_empty());
    still.world.app.stop().await;
}
