//! Holding automatic executions: nothing that a rule asks for starts, everything else goes on, and release gives all of it back in order.

use std::sync::Arc;

use serde_json::{Value, json};
use signalman::engine::holding;
use signalman::model::execution::{Execution, Status};
use signalman::model::principal::Principal;
use signalman::model::reason::Reason;
use signalman::store::Page;
use signalman::store::memory::MemorySpace;

use crate::harness::{Shell, TestSite, World, eventually, memory};

/// A rule that says the number of each event; one script at a time, so that messages come in the order of the starts.
fn site() -> TestSite {
    TestSite::new()
        .file("signalman.yaml", "listen: 127.0.0.1:0\nlimits: {script_threads: 1}\nchat: {console: {kind: console}}\nchannels: {ops: {adapter: console, to: ops}}\n")
        .file("rules/say.yaml", "trigger: {type: core.webhook}\naction: {ref: t.say, parameters: {text: \"<% `n ${trigger.n}` %>\"}}\n")
        .pack(&[
            ("actions/say.yaml", "runner_type: rhai\nparameters: {text: {type: string, required: true}}\n"),
            ("actions/say.rhai", "fn run(params) { chat.send(\"ops\", params.text); }\n"),
        ])
}

async fn said(server: &crate::harness::Server) -> Vec<String> {
    server.messages().await.into_iter().map(|(_, text)| text).filter(|text| text.starts_with("n ")).collect()
}

async fn emit(server: &crate::harness::Server, n: u32) {
    let (status, answer) = server.webhook("generic", json!({"n": n}).to_string()).await;
    assert_eq!(status, 202, "webhooks stay live: {answer}");
}

#[tokio::test]
async fn a_hold_stops_what_rules_ask_for_and_nothing_else_and_outlives_a_crash() {
    let shell = Shell::start(site()).await;
    emit(&shell.server, 0).await;
    eventually("the first to be said", || async { (said(&shell.server).await == ["n 0"]).then_some(()) }).await;
    shell.say(&["hold"]).err(2, &["REASON"]);
    shell.say(&["hold", "--show"]).out(1, &["nothing is held"]);
    shell
        .say(&["hold", "rack", "4", "is", "rewired"])
        .out(0, &["⏸ automatic executions are held since", "by token admin: rack 4 is rewired"]);
    shell.say(&["hold", "again"]).out(0, &["as before: ", "rack 4 is rewired"]);
    for n in 1..=5 {
        emit(&shell.server, n).await;
    }
    // What a person asks for starts as ever.
    shell.say(&["run", "t.say", "text=by hand"]).out(0, &["succeeded"]);
    let held = |executions: &Value| executions["executions"].as_array().unwrap().iter().filter(|one| one["reason"] == "held").count();
    eventually("five to be held", || async { (held(&shell.json(&["execution", "list"])) == 5).then_some(()) }).await;
    for list in [&["execution", "list"][..], &["event", "list"], &["rule", "list"]] {
        shell.say(list).out(0, &["held since", "rack 4 is rewired", "`signalman release`"]);
        assert_eq!(shell.json(list)["hold"]["reason"], "rack 4 is rewired", "{list:?}");
    }
    let (status, ready) = shell.server.get("/readyz").await;
    assert!(status == 200 && ready.as_str().unwrap().contains("held since"), "{ready}");
    let told = shell.server.messages().await;
    assert!(told.iter().any(|(channel, text)| channel == "ops" && text.contains("held by token admin: rack 4 is rewired")), "{told:?}");

    let Shell { site, server } = shell;
    server.kill();
    let shell = Shell::start(site).await;
    shell.say(&["hold", "--show"]).out(0, &["rack 4 is rewired"]);
    emit(&shell.server, 6).await;
    eventually("the sixth to be held", || async { (held(&shell.json(&["execution", "list"])) == 6).then_some(()) }).await;
    assert_eq!(said(&shell.server).await, ["n 0"]);
    shell.say(&["release"]).out(0, &["automatic executions start again"]);
    let expected: Vec<String> = (0..=6).map(|n| format!("n {n}")).collect();
    eventually("all to be said", || async { (said(&shell.server).await.len() == expected.len()).then_some(()) }).await;
    assert_eq!(said(&shell.server).await, expected, "in order");
    shell.say(&["release"]).out(0, &["nothing was held"]);
    shell.say(&["hold", "--show"]).out(1, &[]);
    assert_eq!(shell.json(&["execution", "list"])["hold"], Value::Null);
}

#[tokio::test]
async fn when_the_hold_answers_nothing_automatic_starts_any_more() {
    let (site, store) = (site(), memory(&MemorySpace::default()));
    let world = World::start(&site, Arc::clone(&store)).await.unwrap();
    let engine = &world.app.engine;
    let by = Principal::Token("li".into());
    let url = format!("http://{}/api/v1/webhooks/generic", world.app.address);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let executions = || async { store.executions(Page { before: None, limit: 1_000 }).await.unwrap() };
    // Whatever had begun when the hold answered ends; the others wait, each with its reason.
    for round in 0..10 {
        let body: Vec<Value> = (0..20).map(|n| json!({"n": round * 100 + n})).collect();
        client.post(&url).body(Value::from(body).to_string()).send().await.unwrap();
        assert!(holding::hold(engine, &by, "a drill").await.unwrap());
        let begun = |all: &[Execution]| all.iter().filter(|one| one.state.attempt > 0).count();
        let at_once = begun(&executions().await);
        eventually("the rest to be marked", || async {
            let all = executions().await;
            assert_eq!(begun(&all), at_once, "one started although executions are held");
            let open = |one: &&Execution| one.state.attempt == 0;
            all.iter().filter(open).all(|one| one.state.status == Status::Delayed && one.state.reason == Reason::Held).then_some(())
        })
        .await;
        assert!(holding::release(engine, &by).await.unwrap().is_some());
        eventually("all to end", || async { executions().await.iter().all(|one| one.state.status == Status::Succeeded).then_some(()) })
            .await;
        assert_eq!(executions().await.len(), 20 * (round + 1));
    }
    world.app.stop().await;
}
