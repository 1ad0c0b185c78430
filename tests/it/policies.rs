//! Policies through the engine: what runs at once, what waits and why, in which order it goes on, and what a restart remembers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::DateTime;
use serde_json::{Value, json};
use signalman::app;
use signalman::clock::{Clock, SimulatedClock};
use signalman::config::Environment;
use signalman::engine::catalog::Catalog;
use signalman::engine::conduct::{self, RunnerTable};
use signalman::engine::deliver::Outbox;
use signalman::engine::{Engine, EngineParts, recover};
use signalman::model::execution::{Execution, Status};
use signalman::model::failure::Failure;
use signalman::model::ids::IdSource;
use signalman::model::principal::Principal;
use signalman::model::reason::Reason;
use signalman::runners::{ActionCall, ActionRunner, RunContext};
use signalman::secrets::Secrets;
use signalman::store::memory::MemorySpace;
use signalman::store::{Page, Store};
use signalman::tasks::Stop;
use signalman::telemetry::Metrics;
use tokio::sync::watch;

use crate::harness::{Server, TestSite, eventually, memory};

/// Attempts that go on until the test lets them end: those whose number is in the list.
#[derive(Clone)]
struct Held(watch::Sender<Vec<u64>>);

#[async_trait]
impl ActionRunner for Held {
    async fn run(&self, call: ActionCall, cx: RunContext) -> Result<Value, Failure> {
        let _ = cx.begin(call.execution.request.requested_at);
        let number = call.execution.request.parameters["n"].as_u64().unwrap();
        let mut ended = self.0.subscribe();
        tokio::select! {
            _ = ended.wait_for(|ended| ended.contains(&number)) => {}
            () = cx.stop.stopped() => return Err(Failure { reason: Reason::Canceled, message: "stopped".into(), retry: false }),
        }
        if call.execution.request.parameters["fails"] == true { Err(Failure::misuse("it failed")) } else { Ok(json!(number)) }
    }
}

/// An engine whose runner is [`Held`].
struct Stage {
    engine: Arc<Engine>,
    store: Arc<dyn Store>,
    held: Held,
    stop: Stop,
    conductor: tokio::task::JoinHandle<()>,
}

const ACTION: &str = "runner_type: noop\nidempotent: true\ntimeout: 24h\nparameters:\n  app: {type: string, default: a}\n  n: {type: integer}\n  fails: {type: boolean, default: false}\n";

fn site(policies: &[(&str, &str)]) -> TestSite {
    let site = TestSite::empty().pack(&[("actions/work.yaml", ACTION)]);
    policies
        .iter()
        .fold(site, |site, (name, text)| site.file(&format!("packs/t/policies/{name}.yaml"), &format!("resource_ref: t.work\n{text}")))
}

impl Stage {
    async fn start(site: &TestSite, space: &MemorySpace, clock: &SimulatedClock) -> Self {
        let (loaded, _) = app::load_site(site.path(), &Environment::default()).unwrap_or_else(|faults| panic!("{}", faults.join("\n")));
        let store = memory(space);
        let (outbox, _) = Outbox::new(BTreeMap::new());
        let parts = EngineParts {
            store: Arc::clone(&store),
            clock: Arc::new(clock.clone()),
            ids: Arc::new(IdSource::system()),
            metrics: Arc::new(Metrics::new()),
            outbox,
            secrets: Arc::new(Secrets::passing(&Arc::new(IdSource::system()))),
        };
        let (engine, commands) = Engine::new(parts, Catalog::of(loaded, 0, Arc::default(), clock.now()), 1_000, 0);
        let (open, _) = recover::settle(&engine).await.unwrap();
        let held = Held(watch::Sender::new(Vec::new()));
        let table = RunnerTable { runners: BTreeMap::from([("noop", (Arc::new(held.clone()) as Arc<dyn ActionRunner>, 100))]) };
        let stop = Stop::new();
        let conductor = tokio::spawn(conduct::run(Arc::clone(&engine), table, open, commands, Stop::new(), stop.clone()));
        Self { engine, store, held, stop, conductor }
    }

    async fn ask(&self, n: u64, app: &str) {
        let parameters = json!({"n": n, "app": app, "fails": n >= 100});
        self.engine.request("t.work", parameters.as_object().unwrap(), Principal::Token("li".into()), None).await.unwrap();
    }

    fn end(&self, n: u64) {
        self.held.0.send_modify(|ended| ended.push(n));
    }

    async fn all(&self) -> BTreeMap<u64, Execution> {
        let all = self.store.executions(Page { before: None, limit: 1_000 }).await.unwrap();
        all.into_iter().map(|one| (one.request.parameters["n"].as_u64().unwrap(), one)).collect()
    }

    /// Waits until the executions stand like this, such as `running delayed`, by their numbers.
    async fn stand(&self, expected: &str) {
        let found = std::sync::Mutex::new(String::new());
        let wait = eventually("", || async {
            let all = self.all().await;
            *found.lock().unwrap() = all.values().map(|one| one.state.status.name()).collect::<Vec<_>>().join(" ");
            (*found.lock().unwrap() == expected).then_some(())
        });
        if tokio::time::timeout(Duration::from_secs(20), wait).await.is_err() {
            panic!("expected {expected}\n   found {}", found.lock().unwrap());
        }
    }

    async fn kill(self) {
        self.stop.stop();
        self.conductor.await.unwrap();
    }
}

fn clock() -> SimulatedClock {
    SimulatedClock::at(DateTime::from_timestamp(1_700_000_000, 0).unwrap())
}

#[tokio::test]
async fn one_at_a_time_for_each_key_in_order_and_after_a_restart() {
    let site = site(&[("one", "policy_type: concurrency\nparameters: {threshold: 1, by: \"{{parameters.app}}\"}\n")]);
    let (space, clock) = (MemorySpace::default(), clock());
    let stage = Stage::start(&site, &space, &clock).await;
    for (n, app) in [(1, "a"), (2, "a"), (3, "a"), (4, "b")] {
        stage.ask(n, app).await;
    }
    stage.stand("running delayed delayed running").await;
    let all = stage.all().await;
    assert_eq!(all[&2].state.reason, Reason::ConcurrencyReached);
    assert_eq!(all[&2].state.error.as_deref(), Some("policy `t.one` for `a`: 1 of 1 run"));
    assert_eq!(all[&3].state.error.as_deref(), Some("policy `t.one` for `a`: 1 of 1 run, 1 wait before it"));
    stage.end(1);
    stage.stand("succeeded running delayed running").await;
    assert_eq!(stage.all().await[&2].state.error, None, "why it was held is over");
    // What ran is tried again, as the action is idempotent; the one that waited still waits.
    stage.kill().await;
    let stage = Stage::start(&site, &space, &clock).await;
    stage.stand("succeeded running delayed running").await;
    // One that waits is canceled; the next comes in its place.
    stage.ask(5, "a").await;
    stage.stand("succeeded running delayed running delayed").await;
    let id = stage.all().await[&3].id;
    stage.engine.cancel(id, Principal::Token("li".into())).await.unwrap();
    stage.end(2);
    stage.stand("succeeded succeeded canceled running running").await;
    for n in [4, 5] {
        stage.end(n);
    }
    stage.stand("succeeded succeeded canceled succeeded succeeded").await;
    stage.kill().await;
}

#[tokio::test]
async fn a_rate_is_kept_over_a_restart() {
    let site = site(&[("slow", "policy_type: rate\nparameters: {threshold: 2, per: 1m}\n")]);
    let (space, clock) = (MemorySpace::default(), clock());
    let stage = Stage::start(&site, &space, &clock).await;
    for n in 1..=2 {
        stage.ask(n, "a").await;
        stage.end(n);
        stage.stand(["succeeded", "succeeded succeeded"][n as usize - 1]).await;
        clock.advance(Duration::from_secs(10));
    }
    stage.ask(3, "a").await;
    stage.stand("succeeded succeeded delayed").await;
    let held = stage.all().await[&3].state.clone();
    assert_eq!((held.reason, held.next_attempt_at), (Reason::RateReached, DateTime::from_timestamp(1_700_000_060, 0)));
    stage.kill().await;
    clock.advance(Duration::from_secs(39));
    let stage = Stage::start(&site, &space, &clock).await;
    for n in [3, 4, 5] {
        stage.end(n);
    }
    stage.ask(4, "a").await;
    stage.ask(5, "a").await;
    stage.stand("succeeded succeeded delayed delayed delayed").await;
    clock.advance(Duration::from_secs(1));
    stage.stand("succeeded succeeded succeeded delayed delayed").await;
    clock.advance(Duration::from_secs(10));
    stage.stand("succeeded succeeded succeeded succeeded delayed").await;
    clock.advance(Duration::from_secs(50));
    stage.stand("succeeded succeeded succeeded succeeded succeeded").await;
    assert_eq!(stage.store.settings("policy/").await.unwrap().len(), 1, "what is remembered, for one key");
    clock.advance(Duration::from_secs(61));
    stage.ask(6, "a").await;
    stage.end(6);
    stage.stand("succeeded succeeded succeeded succeeded succeeded succeeded").await;
    clock.advance(Duration::from_secs(61));
    eventually("nothing to be remembered", || async { stage.store.settings("policy/").await.unwrap().is_empty().then_some(()) }).await;
    stage.kill().await;
}

#[tokio::test]
async fn a_circuit_stays_open_over_a_restart_and_tries_one() {
    let site = site(&[("breaker", "policy_type: circuit_breaker\nparameters: {failures: 2, within: 1m, open_for: 5m}\n")]);
    let (space, clock) = (MemorySpace::default(), clock());
    let stage = Stage::start(&site, &space, &clock).await;
    for n in [100, 101] {
        stage.ask(n, "a").await;
        stage.end(n);
    }
    stage.stand("failed failed").await;
    stage.kill().await;
    let stage = Stage::start(&site, &space, &clock).await;
    for n in [102, 103] {
        stage.ask(n, "a").await;
    }
    stage.stand("failed failed delayed delayed").await;
    assert_eq!(stage.all().await[&102].state.reason, Reason::CircuitOpen);
    clock.advance(Duration::from_secs(300));
    stage.stand("failed failed running delayed").await;
    stage.end(102);
    stage.stand("failed failed failed delayed").await;
    clock.advance(Duration::from_secs(300));
    stage.stand("failed failed failed running").await;
    stage.ask(104, "a").await;
    stage.stand("failed failed failed running delayed").await;
    stage.kill().await;
}

#[tokio::test]
async fn what_waits_goes_on_when_its_policy_goes() {
    let wait = "#!/bin/sh\nwhile [ ! -e \"$1\" ]; do sleep 0.05; done\n";
    let site = TestSite::empty()
        .file("packs/t/pack.yaml", "ref: t\ncapabilities: {process: [actions/wait.sh]}\n")
        .file("packs/t/actions/wait.yaml", "runner_type: local-shell-script\nparameters: {path: {type: string, position: 0}}\n")
        .file("packs/t/actions/wait.sh", wait)
        .file("packs/t/policies/one.yaml", "resource_ref: t.wait\npolicy_type: concurrency\nparameters: {threshold: 1}\n");
    site.allow_to_run("packs/t/actions/wait.sh");
    let flag = site.path().join("go");
    let server = Server::start(&site).await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        let asked = json!({"action": "t.wait", "parameters": {"path": flag}});
        ids.push(server.post("/api/v1/executions", &asked).await.1["id"].as_str().unwrap().to_string());
    }
    let status = |id: &str| {
        let (server, path) = (&server, format!("/api/v1/executions/{id}"));
        async move { server.get(&path).await.1["status"].as_str().unwrap_or_default().to_string() }
    };
    eventually("the third to wait", || async { (status(&ids[2]).await == "delayed").then_some(()) }).await;
    site.write("packs/t/policies/one.yaml", "resource_ref: t.wait\npolicy_type: concurrency\nparameters: {threshold: 2}\n");
    assert_eq!(server.post("/api/v1/reload", &json!({})).await.0, 200);
    eventually("the second to run", || async { (status(&ids[1]).await == "running").then_some(()) }).await;
    assert_eq!(status(&ids[2]).await, "delayed");
    std::fs::remove_file(site.path().join("packs/t/policies/one.yaml")).unwrap();
    assert_eq!(server.post("/api/v1/reload", &json!({})).await.0, 200);
    eventually("the third to run", || async { (status(&ids[2]).await == "running").then_some(()) }).await;
    std::fs::write(&flag, "").unwrap();
    for id in &ids {
        assert_eq!(server.ended(id).await["status"], Status::Succeeded.name());
    }
}

#[test]
fn faults_of_policies_are_told_with_their_place() {
    let site = site(&[
        ("a", "policy_type: action.concurrency\nparameters: {threshold: 1}\n"),
        ("b", "policy_type: concurrency\nparameters: {threshold: 0, by: \"{{trigger.app}}\"}\n"),
        ("c", "policy_type: rate\nparameters: {limit: 5, per: 2d}\n"),
        ("d", "policy_type: circuit_breaker\nparameters: {failures: 3, within: 1m}\n"),
        ("e", "policy_type: concurrency\nparameters: {threshold: 1, by: \"{{trigger.app}}\"}\n"),
    ])
    .file("packs/t/policies/f.yaml", "resource_ref: t.worc\npolicy_type: concurrency\nparameters: {threshold: 1, acton: delay}\n");
    let output = site.cli(&["lint"]);
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    for words in [
        "packs/t/policies/a.yaml:2:",
        "known are: concurrency, rate, circuit_breaker",
        "`threshold` must be from 1 to 100000",
        "`per` must be from 100ms to 1d",
        "`open_for`",
        "`by`: ",
        "there is no action `t.worc`",
        "did you mean `t.work`?",
        "did you mean `action`?",
    ] {
        assert!(said.contains(words), "`{words}` is missing in:\n{said}");
    }
}
