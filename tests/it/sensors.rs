//! Sensors: the contract of every kind, timers over restarts, scripts, Prometheus and what stands in its place, supervision and the board.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use signalman::app::load_site;
use signalman::clock::SimulatedClock;
use signalman::config::Environment;
use signalman::engine::board::Standing;
use signalman::engine::host::EngineHost;
use signalman::journal::inline::{self, Delivery};
use signalman::model::action::Script;
use signalman::model::event::{Accepted, NewEvent, StoredEvent};
use signalman::model::ids::IdSource;
use signalman::model::pack::Pack;
use signalman::model::sensor::{Polling, SensorDefinition};
use signalman::outbound::network::Network;
use signalman::script::host::Surroundings;
use signalman::sensors::{self, SensorContext, SensorHealth, SensorKind, SensorState};
use signalman::store::memory::MemorySpace;
use signalman::store::{Page, Store};
use signalman::tasks::{Errands, Stop};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::harness::{Server, Target, TestSite, World, eventually, memory};

fn at(text: &str) -> DateTime<Utc> {
    DateTime::parse_from_rfc3339(text).unwrap().with_timezone(&Utc)
}

/// What a sensor has remembered and said.
#[derive(Default)]
struct Notes {
    state: Mutex<Option<Value>>,
    said: Mutex<Vec<String>>,
}

impl Notes {
    fn said(&self) -> Vec<String> {
        self.said.lock().unwrap().clone()
    }
}

#[async_trait]
impl SensorState for Notes {
    async fn load(&self) -> Result<Option<Value>, String> {
        Ok(self.state.lock().unwrap().clone())
    }

    async fn save(&self, state: &Value) -> Result<(), String> {
        *self.state.lock().unwrap() = Some(state.clone());
        Ok(())
    }
}

impl SensorHealth for Notes {
    fn healthy(&self) {
        self.said.lock().unwrap().push("healthy".into());
    }

    fn failing(&self, why: &str) {
        self.said.lock().unwrap().push(why.into());
    }

    fn emitted(&self, _: usize) {}

    fn skipped(&self, times: u64) {
        self.said.lock().unwrap().push(format!("skipped {times}"));
    }
}

/// One sensor by itself: a simulated clock, a journal that the test answers, notes in memory.
struct Rig {
    clock: SimulatedClock,
    stop: Stop,
    deliveries: mpsc::Receiver<Delivery>,
    notes: Arc<Notes>,
    running: tokio::task::JoinHandle<()>,
}

fn surroundings(clock: &SimulatedClock) -> Arc<Surroundings> {
    Arc::new(Surroundings {
        host: Arc::new(EngineHost::default()),
        clock: Arc::new(clock.clone()),
        http: Arc::new(Network::new().unwrap()),
        runtime: tokio::runtime::Handle::current(),
        errands: Errands::default(),
    })
}

fn polling(kind: &SensorKind, settings: Value, script: &str) -> Polling {
    let script = (!kind.script.is_empty()).then(|| Script { file: "packs/t/sensors/s.rhai".into(), text: script.into() });
    let settings = settings.as_object().unwrap().clone();
    Polling { kind: kind.name.into(), settings, script, pack: Arc::new(Pack::named("t")), time_zone: chrono_tz::Tz::UTC }
}

impl Rig {
    fn start(polling: &Polling, notes: Arc<Notes>) -> Self {
        let clock = SimulatedClock::at(at("2026-11-20T12:00:00Z"));
        let (journal, deliveries) = inline::channel();
        let (stop, kind) = (Stop::new(), sensors::kind(&polling.kind).unwrap());
        let cx = SensorContext {
            name: "t.s".into(),
            trigger: "t.e".into(),
            clock: Arc::new(clock.clone()),
            stop: stop.clone(),
            journal: Arc::new(journal),
            state: Arc::clone(&notes) as _,
            health: Arc::clone(&notes) as _,
        };
        let sensor = (kind.build)(polling, &surroundings(&clock)).unwrap_or_else(|fault| panic!("{fault}"));
        let running = tokio::spawn(async move { sensor.run(cx).await.unwrap_or_else(|error| panic!("{error}")) });
        Self { clock, stop, deliveries, notes, running }
    }

    /// The next events, taken; the clock goes on by `step` while there are none.
    async fn next(&mut self, step: Duration) -> Vec<NewEvent> {
        let Delivery { events, reply } = self.delivery(step).await;
        let ids = IdSource::seeded(1);
        let accepted = |event: &NewEvent| Accepted {
            id: ids.event(at("2026-11-20T12:00:00Z")),
            trigger: event.trigger.clone(),
            duplicate: false,
            rejected: None,
        };
        reply.send(Ok(events.iter().map(accepted).collect())).unwrap();
        events
    }

    async fn delivery(&mut self, step: Duration) -> Delivery {
        loop {
            match tokio::time::timeout(Duration::from_millis(200), self.deliveries.recv()).await {
                Ok(delivery) => return delivery.expect("the sensor holds the journal"),
                Err(_) => self.clock.advance(step),
            }
        }
    }

    /// What it says after a poll that emits nothing.
    async fn says(&self, count: usize) -> String {
        eventually("the sensor to say something", || async { self.notes.said().get(count).cloned() }).await
    }

    async fn end(self) {
        self.stop.stop();
        drop(self.deliveries);
        self.running.await.unwrap();
    }
}

fn payloads(events: &[NewEvent]) -> Vec<Value> {
    events.iter().map(|event| event.payload.value().unwrap()).collect()
}

const VECTOR: &str =
    r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{"app":"shop"},"value":[1795159527.657,"1"]}]}}"#;

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_keeps_the_contract() {
    let prometheus = Target::answering(200, VECTOR).await;
    for kind in sensors::KINDS {
        let mut settings: Value = serde_json::from_str(kind.example).unwrap_or_else(|error| panic!("{}: {error}", kind.name));
        if settings["url"].is_string() {
            settings["url"] = json!(prometheus.url);
        }
        let wrong = polling(kind, json!({"no_such_setting": 1}), kind.script);
        assert!((kind.check)(&wrong).is_err(), "{} refuses unknown settings", kind.name);
        assert!((kind.check)(&polling(kind, json!({}), kind.script)).is_err(), "{} says what it needs", kind.name);
        let good = polling(kind, settings, kind.script);
        assert_eq!((kind.check)(&good), Ok(()), "{}", kind.name);
        let mut rig = Rig::start(&good, Arc::default());
        let events = rig.next(Duration::from_secs(1)).await;
        assert_eq!((events[0].trigger.as_str(), events[0].source.as_str()), ("t.e", "sensor/t.s"), "{}", kind.name);
        eventually("the sensor to say that all is well", || async { rig.notes.said().contains(&"healthy".to_string()).then_some(()) })
            .await;
        // An answer that never comes must not keep it from stopping for long: the engine drops the delivery when it goes.
        let unanswered = rig.delivery(Duration::from_secs(30)).await;
        rig.stop.stop();
        drop(unanswered);
        rig.end().await;
        assert!(kind.also.iter().all(|trigger| trigger.contains('.')) && !kind.summary.is_empty());
    }
}

// Timers

fn timer(settings: Value) -> Polling {
    polling(&sensors::timer::KIND, settings, "")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timer_says_when_it_was_due_and_by_which_settings() {
    let mut rig = Rig::start(&timer(json!({"cron": "*/30 * * * *", "missed": "each"})), Arc::default());
    let events = rig.next(Duration::from_secs(900)).await;
    let settings = json!({"cron": "*/30 * * * *", "missed": "each", "time_zone": "UTC"});
    let mut expected = settings.clone();
    for (name, value) in
        [("schedule", settings), ("scheduled_at", json!("2026-11-20T12:30:00.000Z")), ("executed_at", json!("2026-11-20T12:30:00.000Z"))]
    {
        expected[name] = value;
    }
    assert_eq!(payloads(&events), [expected]);
    assert_eq!((events[0].occurred_at, events[0].key.as_deref()), (Some(at("2026-11-20T12:30:00Z")), Some("t.s")));
    assert!(events[0].dedup.is_some(), "the same due time is one event");
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_not_taken_is_tried_again() {
    let mut rig = Rig::start(&timer(json!({"every": "1m"})), Arc::default());
    let refused = rig.delivery(Duration::from_secs(60)).await;
    let due = refused.events[0].occurred_at;
    let error = signalman::journal::AcceptError::Overloaded("too much".into());
    refused.reply.send(Err(error)).unwrap();
    let events = rig.next(Duration::from_secs(1)).await;
    assert_eq!(events[0].occurred_at, due);
    assert!(rig.notes.said().contains(&"too much".to_string()));
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timer_remembers_over_restarts() {
    let notes: Arc<Notes> = Arc::default();
    let hourly = timer(json!({"every": "1h", "late": "3h"}));
    let rig = Rig::start(&hourly, Arc::clone(&notes));
    rig.says(0).await;
    rig.end().await;
    // As if it had been started the evening before: 09:00, 10:00, 11:00 and 12:00 are in time, what was before is not.
    let state = |until: &str| json!({"schedule": {"every": "1h", "late": "3h"}, "until": until});
    *notes.state.lock().unwrap() = Some(state("2026-11-19T20:00:00.000000Z"));
    let mut rig = Rig::start(&hourly, Arc::clone(&notes));
    let events = rig.next(Duration::ZERO).await;
    let payload = &payloads(&events)[0];
    assert_eq!((events.len(), &payload["scheduled_at"], &payload["coalesced"]), (1, &json!("2026-11-20T12:00:00.000Z"), &json!(3)));
    eventually("the state to be saved", || async {
        (*notes.state.lock().unwrap() == Some(state("2026-11-20T12:00:00.000000Z"))).then_some(())
    })
    .await;
    assert_eq!(notes.said()[1], "skipped 12");
    rig.end().await;
    // Another schedule under the same name begins anew; a state from the future is not believed.
    for (settings, until, due) in [
        (json!({"every": "2h"}), "2026-11-19T20:00:00Z", "2026-11-20T14:00:00Z"),
        (json!({"every": "1h", "late": "3h"}), "2026-11-20T13:30:00Z", "2026-11-20T13:00:00Z"),
        (json!({"every": "1h", "late": "3h"}), "2099-01-01T00:00:00Z", "2026-11-20T13:00:00Z"),
    ] {
        *notes.state.lock().unwrap() = Some(state(until));
        let said = notes.said().len();
        let mut rig = Rig::start(&timer(settings), Arc::clone(&notes));
        rig.says(said).await;
        let events = rig.next(Duration::from_secs(3_600)).await;
        assert_eq!(events[0].occurred_at, Some(at(due)));
        rig.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_date_is_due_once_and_one_that_has_passed_is_not() {
    let mut rig = Rig::start(&timer(json!({"date": "2026-11-20 13:00", "time_zone": "UTC"})), Arc::default());
    let events = rig.next(Duration::from_secs(600)).await;
    assert_eq!(payloads(&events)[0]["date"], "2026-11-20 13:00");
    rig.says(1).await;
    rig.clock.advance(Duration::from_secs(86_400));
    assert!(tokio::time::timeout(Duration::from_millis(100), rig.deliveries.recv()).await.is_err(), "once");
    rig.end().await;
    let rig = Rig::start(&timer(json!({"date": "2026-11-20T11:00:00Z"})), Arc::default());
    assert_eq!((rig.says(0).await, rig.says(1).await), ("skipped 1".into(), "healthy".into()));
    rig.end().await;
}

const NIGHTLY: &str =
    "trigger: {type: core.cron, parameters: {cron: \"0 3 * * mon-fri\", time_zone: Asia/Shanghai}}\naction: {ref: core.noop}\n";

fn faults(site: &TestSite) -> String {
    load_site(site.path(), &Environment::default()).map_or_else(|faults| faults.join("\n"), |(_, warnings)| warnings.join("\n"))
}

fn sensors_of(site: &TestSite) -> Vec<SensorDefinition> {
    let (site, _) = load_site(site.path(), &Environment::default()).unwrap_or_else(|faults| panic!("{}", faults.join("\n")));
    site.sensors.into_iter().filter(|sensor| sensor.trigger.starts_with("core.") && sensor.reference != "core.generic").collect()
}

#[test]
fn rules_with_equal_parameters_share_one_timer() {
    let every = "trigger: {type: core.interval, parameters: {every: 1m}}\naction: {ref: core.noop}\n";
    let site = TestSite::new()
        .file("rules/a.yaml", NIGHTLY)
        .file("rules/b.yaml", NIGHTLY)
        .file("rules/c.yaml", every)
        .file("rules/off.yaml", &format!("enabled: false\n{}", every.replace("1m", "2m")))
        .file("rules/any.yaml", "trigger: {type: core.cron}\naction: {ref: core.noop}\n");
    let found: Vec<(String, String)> = sensors_of(&site).into_iter().map(|sensor| (sensor.trigger, sensor.description)).collect();
    let cron = ("core.cron".to_string(), "cron 0 3 * * mon-fri, time_zone Asia/Shanghai, for default.a, default.b".to_string());
    assert_eq!(found, [cron, ("core.interval".into(), "every 1m, for default.c".into())]);
    // A sensor of the site that emits the same serves as well.
    let site = site.file("packs/core/sensors/minutely.yaml", "kind: timer\ntrigger: core.interval\nsettings: {every: 1m, missed: skip}\n");
    assert_eq!(sensors_of(&site).iter().map(|sensor| sensor.reference.as_str()).collect::<Vec<_>>()[0], "core.minutely");
    assert_eq!(sensors_of(&site).len(), 2);
}

#[test]
fn parameters_that_are_no_timer_are_faults_of_the_rule() {
    for (trigger, says) in [
        ("core.cron, parameters: {cron: 61 * * * *}", "no timer: `cron`: `61` is not a minute"),
        ("core.cron, parameters: {corn: '@daily'}", "a timer of `core.cron` needs `cron`"),
        ("core.cron, parameters: {cron: '@daily', tz: UTC}", "a timer has no setting `tz`"),
        ("core.cron, parameters: {cron: '@daily', time_zone: Mars/Olympus}", "`Mars/Olympus` is not a time zone"),
        ("core.cron, parameters: {cron: 0 0 31 2 *}", "never due: no date fits it"),
        ("core.interval, parameters: {every: often}", "`often` is not a duration"),
        ("core.date, parameters: {date: tomorrow}", "`tomorrow` is not a time"),
    ] {
        let site = TestSite::new().file("rules/a.yaml", &format!("trigger: {{type: {trigger}}}\naction: {{ref: core.noop}}\n"));
        let told = faults(&site);
        assert!(told.contains("rules/a.yaml:1:10: error: rule `default.a`") && told.contains(says), "{trigger}: {told}");
    }
    let site = TestSite::new().file("rules/a.yaml", NIGHTLY).file("rules/b.yaml", &NIGHTLY.replace(", time_zone: Asia/Shanghai", ""));
    let told = faults(&site);
    assert!(told.contains("rules/b.yaml:1:10: warning: rule `default.b` also gets the events of the timer of rule `default.a`"), "{told}");
}

#[test]
fn faults_of_sensors_have_their_place() {
    for (file, says) in [
        (
            "kind: timer\ntrigger: core.cron\nsettings: {cron: 0 3 * * 9}\n",
            "packs/t/sensors/s.yaml:3:18: error: `cron`: `9` is not a day of the week",
        ),
        (
            "kind: timer\ntrigger: core.cron\nsettings:\n  crn: x\n",
            "packs/t/sensors/s.yaml:4:3: error: a timer has no setting `crn`; did you mean `cron`?",
        ),
        ("kind: timer\ntrigger: core.cron\n", "packs/t/sensors/s.yaml:1:1: error: a timer needs `cron`"),
        ("kind: rhai\ntrigger: t.e\nsettings: {every: 5s}\n", "packs/t/sensors/s.rhai:2:13: error: "),
        (
            "kind: prometheus\ntrigger: t.e\nsettings: {every: 5s, url: x, queries: {a: b}}\n",
            "packs/t/sensors/s.yaml:3:28: error: `url`: `x` is not an address",
        ),
    ] {
        let site = TestSite::new().pack(&[
            ("sensors/s.yaml", file),
            ("sensors/s.rhai", "fn poll(state) {\n    let x = ;\n}\n"),
            ("triggers/e.yaml", "name: e\n"),
        ]);
        let told = faults(&site);
        assert!(told.contains(says), "{says}\n{told}");
    }
    let site = TestSite::new().pack(&[("sensors/s.yaml", "kind: rhai\ntrigger: core.webhook\nsettings: {every: 5s}\n")]);
    assert!(faults(&site).contains("the script `packs/t/sensors/s.rhai` cannot be read"), "{}", faults(&site));
    let site = site.file("packs/t/sensors/s.rhai", "fn run(params) { }\n");
    assert!(faults(&site).contains("the script needs a function `fn poll(state)`"));
    let prometheus = "kind: prometheus\ntrigger: t.e\nsettings: {every: 5s, url: \"http://p\", queries: {a: b}}\n";
    let site = TestSite::empty().pack(&[("sensors/s.yaml", prometheus), ("triggers/e.yaml", "name: e\n")]);
    assert!(faults(&site).contains("there is no trigger `prometheus.absent`"), "{}", faults(&site));
}

async fn events(store: &dyn Store, trigger: &str) -> Vec<StoredEvent> {
    let mut events = store.events(Page { before: None, limit: 10_000 }).await.unwrap();
    events.retain(|event| event.event.trigger == trigger);
    events.reverse();
    events
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_runs_by_its_own_timer_also_after_the_process_was_down() {
    let rule = "trigger: {type: core.cron, parameters: {cron: \"0 * * * *\", late: 4h}}\naction: {ref: core.noop}\n";
    let site = TestSite::new()
        .file("rules/hourly.yaml", rule)
        .file("rules/quarter.yaml", &rule.replace("0 *", "*/15 *"))
        .file("rules/any.yaml", "trigger: {type: core.cron}\naction: {ref: core.noop}\n");
    let (space, clock) = (MemorySpace::default(), SimulatedClock::at(at("2026-11-20T11:50:00Z")));
    let world = World::start_with_clock(&site, memory(&space), Arc::new(clock.clone())).await.unwrap();
    let engine = Arc::clone(&world.app.engine);
    let timers: Vec<String> = sensors_of(&site).into_iter().map(|sensor| sensor.reference).collect();
    eventually("the timers to have begun", || async {
        timers.iter().all(|timer| engine.sensors.get(timer).is_some_and(|status| status.state == Standing::Healthy)).then_some(())
    })
    .await;
    clock.advance(Duration::from_secs(601));
    let matched = |store: Arc<dyn Store>, rule: &'static str| async move {
        let events = events(&*store, "core.cron").await;
        let of = |event: &StoredEvent| event.verdicts.iter().any(|verdict| verdict.rule == rule);
        events.into_iter().filter(of).collect::<Vec<_>>()
    };
    eventually("both timers", || async {
        let both = (
            matched(Arc::clone(&engine.store), "default.hourly").await.len(),
            matched(Arc::clone(&engine.store), "default.quarter").await.len(),
        );
        (both == (1, 1)).then_some(())
    })
    .await;
    assert_eq!(matched(Arc::clone(&engine.store), "default.any").await.len(), 2, "without parameters, the events of all timers");
    drop(engine);
    world.app.stop().await;
    // Down from 12:00 to 14:40.
    clock.advance(Duration::from_secs(2 * 3_600 + 40 * 60));
    let world = World::start_with_clock(&site, memory(&space), Arc::new(clock.clone())).await.unwrap();
    let store = Arc::clone(&world.app.engine.store);
    let hourly = eventually("one event for what was missed", || async {
        let events = matched(Arc::clone(&store), "default.hourly").await;
        (events.len() == 2).then_some(events)
    })
    .await;
    let payload = hourly[1].event.payload.value().unwrap();
    assert_eq!((&payload["scheduled_at"], &payload["coalesced"]), (&json!("2026-11-20T14:00:00.000Z"), &json!(1)), "13:00 and 14:00");
    drop(store);
    world.app.stop().await;
}

// Scripts

fn script(settings: Value, text: &str) -> Polling {
    polling(&sensors::rhai::KIND, settings, text)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_emits_and_keeps_its_state() {
    let text = r#"
        fn poll(state) {
            let n = (state?.n ?? 0) + 1;
            emit(#{n: n, sensor: context.sensor});
            emit(#{n: -n}, #{key: `k${n}`, occurred_at: "2026-11-20T08:00:00Z"});
            #{n: n}
        }"#;
    let notes: Arc<Notes> = Arc::default();
    let mut rig = Rig::start(&script(json!({"every": "10s"}), text), Arc::clone(&notes));
    let events = rig.next(Duration::ZERO).await;
    assert_eq!(payloads(&events), [json!({"n": 1, "sensor": "t.s"}), json!({"n": -1})]);
    assert_eq!((events[1].key.as_deref(), events[1].occurred_at), (Some("k1"), Some(at("2026-11-20T08:00:00Z"))));
    eventually("the state", || async { (*notes.state.lock().unwrap() == Some(json!({"n": 1}))).then_some(()) }).await;
    // What was not taken is emitted again, from the same state.
    drop(rig.delivery(Duration::from_secs(10)).await);
    assert_eq!(payloads(&rig.next(Duration::from_secs(10)).await)[0]["n"], 2);
    rig.end().await;
    let mut rig = Rig::start(&script(json!({"every": "10s"}), text), notes);
    assert_eq!(payloads(&rig.next(Duration::ZERO).await)[0]["n"], 3, "after a restart");
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scripts_keep_to_their_limits() {
    for (body, says) in [
        ("for n in 0..1001 { emit(#{n: n}); }", "emit: more than 1000 events in one poll"),
        ("emit(5);", "emit: the payload must be a map"),
        ("emit(#{}, #{key: 5});", "emit: `key` must be text"),
        ("emit(#{}, #{when: 5});", "emit has no option `when`; it takes key and occurred_at"),
        ("emit(#{}, #{occurred_at: \"noon\"});", "emit: `occurred_at` must be a time such as time.now(), not `noon`"),
        ("let t = \"x\"; t.pad(70000, \"x\"); return t;", "the state that `poll` returned has 70002 bytes; at most 65536 are kept"),
        ("return || 5;", "the state that `poll` returned: a value of type fn has no JSON"),
        ("loop { }", "more than 50000000 operations"),
        ("throw \"no answer\";", "packs/t/sensors/s.rhai:2:1: no answer"),
        ("http.get(\"http://127.0.0.1:1/\");", "pack `t` may not call http://127.0.0.1:1"),
        ("kv.get(\"k\");", "pack `t` may not"),
        ("chat.send(\"ops\", \"hi\");", "pack `t` may not send to chat"),
    ] {
        let rig = Rig::start(&script(json!({"every": "1s"}), &format!("fn poll(state) {{\n{body}\n}}\n")), Arc::default());
        let said = rig.says(0).await;
        assert!(said.contains(says), "{body}: {said}");
        assert!(rig.notes.state.lock().unwrap().is_none(), "{body}");
        rig.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_tells_no_secrets_and_says_nothing_in_chat() {
    let mut polling = script(
        json!({"every": "1s"}),
        "fn poll(state) {\nif state == () { emit(#{t: config.token}, #{key: config.token}); return 1; }\nif state == 1 { throw config.token; }\n}\n",
    );
    let mut pack = Pack::named("t");
    pack.capabilities.chat = true;
    pack.config.insert("token".into(), json!("hunter2"));
    pack.masks = signalman::model::secret::Masks::of(pack.config.get("token"));
    polling.pack = Arc::new(pack);
    assert!(!format!("{polling:?}").contains("hunter2"));
    let mut rig = Rig::start(&polling, Arc::default());
    let events = rig.next(Duration::ZERO).await;
    assert_eq!((payloads(&events)[0]["t"].as_str(), events[0].key.as_deref()), (Some("********"), Some("********")));
    rig.says(0).await;
    rig.clock.advance(Duration::from_secs(1));
    assert!(rig.says(1).await.contains("throw config.token; }") && rig.says(1).await.contains("********"));
    rig.end().await;
    let mut chatty = script(json!({"every": "1s"}), "fn poll(state) { chat.send(\"ops\", \"hi\"); }\n");
    chatty.pack = Arc::clone(&polling.pack);
    let rig = Rig::start(&chatty, Arc::default());
    assert!(rig.says(0).await.contains("a sensor only looks; emit an event"));
    rig.end().await;
}

// Prometheus

fn prometheus(url: &str, more: Value) -> Polling {
    let mut settings = json!({"url": url, "every": "10s", "name": "load", "join": ["app"], "queries": {"cpu": "cpu", "qps": "qps"}});
    settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    polling(&sensors::prometheus::KIND, settings, "")
}

/// A vector as Prometheus answers it: labels and value of each series.
fn vector(series: &[(Value, &str)]) -> String {
    let result: Vec<Value> = series.iter().map(|(labels, value)| json!({"metric": labels, "value": [1_795_176_000.5, value]})).collect();
    json!({"status": "success", "data": {"resultType": "vector", "result": result}}).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_are_joined_and_absences_told_once() {
    // Which apps there are; a query for `cpu` has one of them only.
    let apps = Arc::new(Mutex::new(vec!["shop", "blog"]));
    let now = Arc::clone(&apps);
    let target = Target::with(move |request| {
        let apps = now.lock().unwrap().clone();
        let shop = |value| if apps.contains(&"shop") { vector(&[(json!({"app": "shop", "pod": "1"}), value)]) } else { vector(&[]) };
        (
            200,
            if request.body.contains("query=cpu") {
                shop("NaN")
            } else {
                vector(&apps.iter().map(|app| (json!({"app": app}), "5")).collect::<Vec<_>>())
            },
        )
    })
    .await;
    let notes: Arc<Notes> = Arc::default();
    let sensor = prometheus(&target.url, json!({"bearer": "t0ken"}));
    let mut rig = Rig::start(&sensor, Arc::clone(&notes));
    let step = Duration::from_secs(10);
    let events = rig.next(step).await;
    let at = "2026-11-20T12:00:00.500Z";
    let blog = json!({"query": "load", "labels": {"app": "blog"}, "values": {"qps": 5.0}, "at": at});
    let shop = json!({"query": "load", "labels": {"app": "shop"}, "values": {"qps": 5.0}, "special": {"cpu": "NaN"}, "at": at});
    assert_eq!(payloads(&events), [blog, shop]);
    assert_eq!(events[1].key.as_deref(), Some("load{app=\"shop\"}"));
    let request = &target.received()[0];
    assert_eq!(
        (request.method.as_str(), request.path.as_str(), request.header("authorization")),
        ("POST", "/api/v1/query", Some("Bearer t0ken"))
    );
    assert!(request.body.starts_with("query=") && request.body.ends_with("&timeout=10s"), "{}", request.body);
    assert_eq!(request.header("signalman-cause"), None);
    let absent = |events: &[NewEvent]| {
        let absent = events.iter().filter(|event| event.trigger == "prometheus.absent");
        absent.map(|event| event.payload.value().unwrap()["labels"]["app"].as_str().unwrap().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(absent(&rig.next(step).await), Vec::<String>::new());
    apps.lock().unwrap().retain(|app| *app != "shop");
    let gone = loop {
        let events = rig.next(step).await;
        if !absent(&events).is_empty() {
            break events;
        }
    };
    assert_eq!((absent(&gone), gone.len()), (vec!["shop".to_string()], 2));
    assert!(gone[1].dedup.is_some() && payloads(&gone)[1]["last_seen"].is_string());
    assert_eq!(absent(&rig.next(step).await), Vec::<String>::new(), "once");
    rig.end().await;
    // A restart does not tell it again, and knows what was there.
    apps.lock().unwrap().clear();
    let mut rig = Rig::start(&sensor, Arc::clone(&notes));
    assert_eq!(absent(&rig.next(step).await), ["blog"]);
    apps.lock().unwrap().push("shop");
    assert_eq!(absent(&rig.next(step).await), Vec::<String>::new(), "it came back");
    apps.lock().unwrap().clear();
    assert_eq!(absent(&rig.next(step).await), ["shop"], "and went again");
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_fails_leaves_the_others() {
    let bad = r#"{"status":"error","errorType":"bad_data","error":"parse error"}"#;
    for (status, body, says) in [
        (400, bad.to_string(), "query `cpu` Prometheus says bad_data (400): parse error"),
        (200, "<html>Log in</html>".to_string(), "query `cpu` answered with something that Prometheus does not"),
        (302, String::new(), "query `cpu` answered 302"),
        (401, "no entry for t0ken".to_string(), "query `cpu` answered 401: no entry for ********"),
        (200, "x".repeat(33 << 20), "the reply is larger than 33554432 bytes"),
        (
            200,
            vector(&[(json!({"app": "shop", "pod": "1"}), "1"), (json!({"app": "shop", "pod": "2"}), "2")]),
            "query `cpu` has two series for {app=\"shop\"}: ",
        ),
        (
            200,
            vector(&[(json!({"app": "a"}), "1"), (json!({"app": "b"}), "2"), (json!({"app": "c"}), "3")]),
            "query `cpu` has 3 series, more than `max_series`, 2",
        ),
    ] {
        let target = Target::with(move |request| {
            if request.path.contains("query=cpu") { (status, body.clone()) } else { (200, vector(&[(json!({"app": "shop"}), "5")])) }
        })
        .await;
        let sensor = prometheus(&target.url, json!({"bearer": "t0ken", "method": "get", "max_series": 2}));
        let notes: Arc<Notes> = Arc::default();
        // What was there before is not called absent while a query fails.
        *notes.state.lock().unwrap() = Some(
            json!({"asked": {"queries": [["cpu", "cpu"], ["qps", "qps"]], "join": ["app"]}, "present": [{"app": "old"}], "version": 1}),
        );
        let mut rig = Rig::start(&sensor, notes);
        let events = rig.next(Duration::ZERO).await;
        assert_eq!((events.len(), &payloads(&events)[0]["values"]), (1, &json!({"qps": 5.0})), "{says}");
        let said = rig.says(0).await;
        assert!(said.contains(says), "{says}: {said}");
        rig.end().await;
    }
    let rig = Rig::start(&prometheus("http://127.0.0.1:1", json!({})), Arc::default());
    assert!(rig.says(0).await.contains("queries `cpu`, `qps` failed: POST http://127.0.0.1:1/api/v1/query: "));
    rig.end().await;
}

// Supervision

/// Accepts connections and says nothing, until it is told to answer.
async fn dumb(answers: Arc<AtomicBool>) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((mut connection, _)) = listener.accept().await {
            if !answers.load(Ordering::SeqCst) {
                held.push(connection);
                continue;
            }
            tokio::spawn(async move {
                let _ = connection.read(&mut [0; 4_096]).await;
                let reply = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{VECTOR}", VECTOR.len());
                let _ = connection.write_all(reply.as_bytes()).await;
            });
        }
    });
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_never_answers_delays_no_other_and_its_outage_is_told_once() {
    let (answers, lively) = (Arc::new(AtomicBool::new(false)), Target::answering(200, VECTOR).await);
    let silent = dumb(Arc::clone(&answers)).await;
    let sensor = |url: &str, trigger: &str, timeout: &str| {
        format!("kind: prometheus\ntrigger: {trigger}\nsettings: {{url: \"{url}\", every: 1s, timeout: {timeout}, queries: {{up: up}}}}\n")
    };
    let rule = "trigger: {type: core.sensor_down}\naction: {ref: core.echo, parameters: {text: \"{{trigger.sensor}}\"}}\n";
    let site = TestSite::new()
        .pack(&[
            ("triggers/slow.yaml", "name: slow\n"),
            ("triggers/quick.yaml", "name: quick\n"),
            ("sensors/slow.yaml", &sensor(&silent, "t.slow", "500ms")),
            ("sensors/quick.yaml", &sensor(&lively.url, "t.quick", "1m")),
            // One that fails in its own way all the time, and one that never comes to an end by itself.
            ("sensors/broken.yaml", "kind: rhai\ntrigger: t.quick\nsettings: {every: 1s}\n"),
            ("sensors/broken.rhai", "fn poll(state) { throw \"broken\"; }\n"),
            ("sensors/endless.yaml", "kind: rhai\ntrigger: t.quick\nsettings: {every: 1s, timeout: 300ms}\n"),
            ("sensors/endless.rhai", "fn poll(state) { loop { } }\n"),
        ])
        .file("rules/down.yaml", rule);
    let world = World::start(&site, memory(&MemorySpace::default())).await.unwrap();
    let engine = Arc::clone(&world.app.engine);
    let down = || async {
        let events = events(&*engine.store, "core.sensor_down").await;
        events.into_iter().filter(|event| event.event.key.as_deref() == Some("t.slow")).collect::<Vec<_>>()
    };
    let told = eventually("the outage to be told", || async { down().await.pop() }).await;
    let payload = told.event.payload.value().unwrap();
    assert_eq!((&payload["sensor"], &payload["trigger"], &payload["failures"]), (&json!("t.slow"), &json!("t.slow"), &json!(3)));
    assert!(payload["error"].as_str().unwrap().starts_with(&format!("query `up` got no answer from {silent} within 500ms")), "{payload}");
    assert_eq!(told.verdicts[0].rule, "default.down");
    let since = engine.sensors.down_since("t.slow").expect("it is down");
    assert_eq!(engine.sensors.down_since("prometheus.absent"), Some(since), "it cannot tell absences either");
    let quick = engine.sensors.get("t.quick").unwrap();
    assert!(quick.state == Standing::Healthy && quick.events >= 2 && quick.failures == 0, "{quick:?}");
    answers.store(true, Ordering::SeqCst);
    let outage =
        eventually("the end of the outage", || async { engine.sensors.outages().into_iter().find(|outage| outage.trigger == "t.slow") })
            .await;
    assert!(outage.from == since && outage.to > since);
    let status = engine.sensors.get("t.slow").unwrap();
    assert!(status.state == Standing::Healthy && status.down_since.is_none() && status.last_error.is_some(), "{status:?}");
    assert_eq!(down().await.len(), 1, "told once");
    let metrics = engine.metrics.text();
    for line in [
        "signalman_sensor_up{sensor=\"t.slow\"} 1",
        "signalman_sensor_up{sensor=\"t.broken\"} 0",
        "signalman_sensor_failures_total{sensor=\"t.slow\"}",
    ] {
        assert!(metrics.contains(line), "{line}");
    }
    drop(engine);
    world.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_set_of_sensors_touches_only_what_has_changed() {
    let timer = |every: &str| format!("kind: timer\ntrigger: core.interval\nsettings: {{every: {every}}}\n");
    let site = TestSite::new().pack(&[
        ("sensors/same.yaml", &timer("1s")),
        ("sensors/changed.yaml", &timer("1s")),
        ("sensors/removed.yaml", &timer("1s")),
    ]);
    let clock = SimulatedClock::at(at("2026-11-20T12:00:00Z"));
    let world = World::start_with_clock(&site, memory(&MemorySpace::default()), Arc::new(clock.clone())).await.unwrap();
    let board = &world.app.engine.sensors;
    let events = |sensor: &'static str| board.get(sensor).map_or(0, |status| status.events);
    let healthy = |sensor: &'static str| board.get(sensor).is_some_and(|status| status.state == Standing::Healthy);
    eventually("all to run", || async { ["t.same", "t.changed", "t.removed"].into_iter().all(healthy).then_some(()) }).await;
    clock.advance(Duration::from_secs(1));
    eventually("events", || async { (events("t.same") == 1 && events("t.changed") == 1).then_some(()) }).await;

    std::fs::remove_file(site.path().join("packs/t/sensors/removed.yaml")).unwrap();
    let site = site.file("packs/t/sensors/changed.yaml", &timer("2s")).file("packs/t/sensors/new.yaml", &timer("1s"));
    let (loaded, _) = load_site(site.path(), &Environment::default()).unwrap();
    world.app.supervisor.apply(&loaded.sensors);
    assert!(board.get("t.removed").is_none());
    eventually("the new ones to run", || async { (healthy("t.changed") && healthy("t.new")).then_some(()) }).await;
    assert_eq!(board.get("t.same").unwrap().since, at("2026-11-20T12:00:00Z"), "untouched");
    assert_eq!(board.get("t.changed").unwrap().since, at("2026-11-20T12:00:01Z"), "restarted");
    clock.advance(Duration::from_secs(1));
    eventually("events", || async { (events("t.same") == 2 && events("t.new") == 1).then_some(()) }).await;
    assert_eq!(events("t.changed"), 1);
    clock.advance(Duration::from_secs(1));
    eventually("an event of the changed one", || async { (events("t.changed") == 2).then_some(()) }).await;

    // Removed and put back at once, and switched off.
    let site = site.file("packs/t/sensors/new.yaml", &format!("enabled: false\n{}", timer("1s")));
    let (loaded, _) = load_site(site.path(), &Environment::default()).unwrap();
    world.app.supervisor.apply(&[]);
    assert!(board.get("t.same").is_none());
    world.app.supervisor.apply(&loaded.sensors);
    eventually("it to run again", || async { healthy("t.same").then_some(()) }).await;
    assert_eq!(board.get("t.new").unwrap().state, Standing::Disabled);
    assert!(
        !world.app.engine.metrics.text().contains("signalman_sensor_up{sensor=\"t.new\"}"),
        "what is switched off is neither up nor down"
    );
    assert_eq!(board.get("core.generic").unwrap().state, Standing::Healthy, "a webhook is called, and answers");
    world.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_board_is_shown_by_api_and_command_line() {
    let site = TestSite::new().pack(&[
        ("triggers/e.yaml", "name: e\n"),
        ("sensors/ok.yaml", "description: Counts\nkind: rhai\ntrigger: t.e\nsettings: {every: 1s}\n"),
        ("sensors/ok.rhai", "fn poll(state) { emit(#{n: 1}); state }\n"),
        ("sensors/bad.yaml", "kind: rhai\ntrigger: t.e\nsettings: {every: 1s}\n"),
        ("sensors/bad.rhai", "fn poll(state) { throw \"no answer\"; }\n"),
    ]);
    let server = Server::start(&site).await;
    server.webhook("generic", "{\"a\": 1}").await;
    let show = |name: &'static str| {
        let server = &server;
        async move { server.get(&format!("/api/v1/sensors/{name}")).await }
    };
    eventually("both to have looked", || async {
        let (ok, bad) = (show("t.ok").await.1, show("t.bad").await.1);
        (ok["events"].as_u64() >= Some(1) && bad["down_since"].is_string()).then_some(())
    })
    .await;
    let (_, bad) = show("t.bad").await;
    assert_eq!((&bad["state"], &bad["trigger"], &bad["kind"]), (&json!("failing"), &json!("t.e"), &json!("rhai")));
    assert!(bad["failures"].as_u64() >= Some(3) && bad["last_error"].as_str().unwrap().contains("no answer"), "{bad}");
    let (status, generic) = show("core.generic").await;
    assert_eq!((status, &generic["state"], &generic["events"]), (200, &json!("healthy"), &json!(1)));
    let (status, problem) = show("t.okk").await;
    assert_eq!((status, problem["detail"].as_str()), (404, Some("there is no sensor `t.okk`; did you mean `t.ok`?")));
    let text = |arguments: &[&str]| String::from_utf8(site.cli(arguments).stdout).unwrap();
    let table = text(&["--server", &server.url, "sensor", "list"]);
    assert!(table.lines().any(|line| line.starts_with("t.bad") && line.contains("failing, down") && line.contains("no answer")), "{table}");
    assert!(table.lines().any(|line| line.starts_with("prometheus.app_load") && line.contains("disabled")), "{table}");
    let listed: Value = serde_json::from_str(&text(&["--server", &server.url, "--output", "json", "sensor", "list"])).unwrap();
    assert!(listed["sensors"].as_array().unwrap().iter().any(|sensor| sensor["ref"] == "t.ok" && sensor["description"] == "Counts"));
    assert!(text(&["--server", &server.url, "sensor", "show", "t.ok"]).contains("\"polls\""));
}
