//! The site is read again while it runs: all of it or nothing, and nobody waits for it.

use serde_json::{Value, json};

use crate::harness::{Server, TestSite, eventually};

const RULE: &str =
    "trigger: {type: core.webhook}\ncriteria: {trigger.n: {type: equals, pattern: 1}}\naction: {ref: core.echo, parameters: {text: old}}\n";

async fn ran(server: &Server) -> Vec<Value> {
    let (_, answer) = server.get("/api/v1/executions").await;
    answer["executions"].as_array().unwrap().iter().map(|one| one["parameters"]["text"].clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_files_say_takes_the_place_of_what_ran_and_a_faulty_edit_changes_nothing() {
    let site = TestSite::new().file("rules/r.yaml", RULE);
    let server = Server::start(&site).await;
    server.webhook("generic", json!({"n": 1}).to_string()).await;
    assert_eq!(ran(&server).await, ["old"]);
    site.write("rules/r.yaml", &RULE.replace("old", "new"));
    let (status, answer) = server.post("/api/v1/reload", &json!({})).await;
    assert_eq!((status, &answer["changed"]), (200, &json!(true)), "{answer}");
    server.webhook("generic", json!({"n": 1}).to_string()).await;
    assert_eq!(ran(&server).await, ["new", "old"]);
    // A faulty one is told with all its faults, and the site runs on.
    site.write("rules/r.yaml", &RULE.replace("equals", "equal"));
    site.write("rules/other.yaml", "trigger: {type: core.webhok}\naction: {ref: core.echo}\n");
    let (status, problem) = server.post("/api/v1/reload", &json!({})).await;
    assert_eq!(status, 422);
    let detail = problem["detail"].as_str().unwrap();
    for part in [
        "runs on as it was",
        "rules/r.yaml:2:",
        "there is no operator `equal`",
        "did you mean `core.webhook`?",
        "needs the parameter `text`",
    ] {
        assert!(detail.contains(part), "{part} is missing in {detail}");
    }
    server.webhook("generic", json!({"n": 1}).to_string()).await;
    assert_eq!(ran(&server).await, ["new", "new", "old"]);
    // Two rules of one name are no rule.
    site.write("rules/r.yaml", RULE);
    site.write("rules/other.yaml", "trigger: {type: core.webhook}\naction: {ref: core.noop}\n");
    site.write("rules/sub/r.yaml", RULE);
    let said = site.cli(&["reload", "--server", &server.url]);
    assert_eq!(said.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&said.stderr).contains("there is a rule `default.r` already"), "{said:?}");
    std::fs::remove_file(site.path().join("rules/sub/r.yaml")).unwrap();
    let said = site.cli(&["reload", "--server", &server.url]);
    assert_eq!(said.status.code(), Some(0), "{said:?}");
    assert!(String::from_utf8_lossy(&said.stdout).contains("the site runs as its files say"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sensors_and_webhooks_come_and_go_and_windows_stay() {
    let counted = "trigger: {type: core.webhook}\nwindow: {count: 2, within: 1h}\naction: {ref: core.echo, parameters: {text: counted}}\n";
    let site = TestSite::new().file("rules/counted.yaml", counted);
    let server = Server::start(&site).await;
    server.webhook("generic", "{\"n\": 1}").await;
    assert_eq!(server.webhook("second", "{\"n\": 1}").await.0, 404);
    site.write("packs/t/pack.yaml", "ref: t\n");
    site.write("packs/t/sensors/second.yaml", "kind: webhook\ndecoder: generic\ntrigger: core.webhook\nauth: none\n");
    site.write("packs/t/sensors/often.yaml", "kind: timer\ntrigger: t.tick\nsettings: {every: 100ms}\n");
    site.write("packs/t/triggers/tick.yaml", "name: tick\n");
    site.write(
        "rules/many.yaml",
        "trigger: {type: t.tick}\naction: {ref: core.echo, parameters: {text: ticked}}\nthrottle: {once_per: 1h}\n",
    );
    let (status, answer) = server.post("/api/v1/reload", &json!({})).await;
    assert_eq!(status, 200, "{answer}");
    // What was counted before counts on.
    assert_eq!(server.webhook("second", "{\"n\": 2}").await.0, 202);
    eventually("both to run", || async {
        let ran = ran(&server).await;
        (ran.contains(&json!("counted")) && ran.contains(&json!("ticked"))).then_some(())
    })
    .await;
    std::fs::remove_file(site.path().join("packs/t/sensors/second.yaml")).unwrap();
    server.post("/api/v1/reload", &json!({})).await;
    assert_eq!(server.webhook("second", "{\"n\": 1}").await.0, 404);
    site.write("signalman.yaml", "listen: 127.0.0.1:0\nretention: {events: 1d}\nchannels: {ops: {adapter: console, to: ops}}\n");
    let (_, answer) = server.post("/api/v1/reload", &json!({})).await;
    assert!(answer["warnings"].to_string().contains("`retention` takes effect after a restart"), "{answer}");
}
