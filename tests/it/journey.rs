//! The main job, as a person meets it: an alert comes in, a message with links and an action come out.

use serde_json::{Value, json};

use crate::harness::{Server, Target, TestSite, copy_folder, eventually, repository};

/// The sample site of this repository, with another scheduler to ask for restarts.
fn sample(restart_url: &str) -> TestSite {
    let site = TestSite::new();
    copy_folder(&repository().join("rules"), &site.path().join("rules"));
    let settings = std::fs::read_to_string(repository().join("signalman.yaml")).unwrap();
    let settings = settings.replace("127.0.0.1:8420\npublic", "127.0.0.1:0\npublic");
    let settings = settings.replace("http://127.0.0.1:8420/api/v1/webhooks/generic", restart_url);
    site.file("signalman.yaml", &settings)
}

fn notification(status: &str, restart: &str) -> Value {
    json!({
        "version": "4", "groupKey": "{}:{alertname=\"InstanceDown\"}", "receiver": "signalman", "status": status, "truncatedAlerts": 0,
        "groupLabels": {}, "commonLabels": {}, "commonAnnotations": {}, "externalURL": "http://am.example:9093",
        "alerts": [{
            "status": status,
            "labels": {"alertname": "InstanceDown", "app": "bike-unlock", "severity": "page", "restart": restart},
            "annotations": {"summary": "bike-unlock is down {{trigger.secret}} <% 1 %>"},
            "startsAt": "2026-11-20T07:22:45.77Z",
            "endsAt": if status == "resolved" { "2026-11-20T07:30:00Z" } else { "0001-01-01T00:00:00Z" },
            "generatorURL": "http://prometheus.example/graph?g0.expr=up%20%3D%3D%200", "fingerprint": "56ade48dd73c750a"
        }]
    })
}

#[tokio::test]
async fn an_alert_becomes_a_message_with_links_and_an_action() {
    let scheduler = Target::answering(200, "{}").await;
    let site = sample(&format!("{}/restarts", scheduler.url));
    let server = Server::start(&site).await;
    let (status, answer) = server.webhook("alertmanager", notification("firing", "auto").to_string()).await;
    assert_eq!(status, 202, "{answer}");
    let event = answer["events"][0]["id"].as_str().unwrap().to_string();

    let messages = eventually("both messages", || async {
        let messages = server.messages().await;
        (messages.len() == 2).then_some(messages)
    })
    .await;
    let alert = &messages.iter().find(|(channel, _)| channel == "alerts").expect("a message about the alert").1;
    let lines: Vec<&str> = alert.lines().collect();
    assert_eq!(lines[0], "🔥 InstanceDown firing · page · bike-unlock");
    assert_eq!(lines[1], "bike-unlock is down {{trigger.secret}} <% 1 %>", "data is never a template");
    assert!(lines[2].contains("[Kibana](http://127.0.0.1:5601/app/discover#/?_g="), "{alert}");
    assert!(lines[2].contains("[Grafana](http://127.0.0.1:3000/d/app-overview?var-app=bike-unlock&from=1795158465770&to="), "{alert}");
    assert!(lines[2].contains("[Query](http://prometheus.example/graph?g0.expr=up%20%3D%3D%200)"), "{alert}");
    let told = &messages.iter().find(|(channel, _)| channel == "ops").expect("a message about the restart").1;
    assert!(told.starts_with("✅ `alertmanager.restart` succeeded (rule `default.restart_on_alert`)"), "{told}");

    let asked = scheduler.received();
    assert_eq!(asked.len(), 1);
    assert_eq!((asked[0].method.as_str(), asked[0].path.as_str()), ("POST", "/restarts"));
    let body: Value = serde_json::from_str(&asked[0].body).unwrap();
    assert_eq!(body, json!({"restart": "bike-unlock", "why": "InstanceDown since 2026-11-20T07:22:45.77Z"}));
    assert!(asked[0].header("idempotency-key").unwrap().ends_with("-0"));

    // Alertmanager sends again every few minutes: still the same firing.
    let (status, again) = server.webhook("alertmanager", notification("firing", "auto").to_string()).await;
    assert_eq!(
        (status, again["events"][0]["duplicate"].as_bool(), again["events"][0]["id"].as_str()),
        (202, Some(true), Some(event.as_str()))
    );

    let (_, why) = server.get(&format!("/api/v1/events/{event}/why")).await;
    let said: Vec<(&str, &str)> =
        why["rules"].as_array().unwrap().iter().map(|rule| (rule["rule"].as_str().unwrap(), rule["reason"].as_str().unwrap())).collect();
    assert_eq!(said, [("default.alert_to_chat", "matched"), ("default.restart_on_alert", "matched")]);

    let (_, answer) = server.webhook("alertmanager", notification("resolved", "auto").to_string()).await;
    let resolved = answer["events"][0]["id"].as_str().unwrap().to_string();
    eventually("the message about the resolve", || async {
        let messages = server.messages().await;
        messages.iter().any(|(channel, text)| channel == "alerts" && text.starts_with("✅ InstanceDown resolved")).then_some(())
    })
    .await;
    let (_, why) = server.get(&format!("/api/v1/rules/default.restart_on_alert/why/{resolved}")).await;
    assert_eq!((why["matched"].as_bool(), why["reason"].as_str()), (Some(false), Some("criteria_not_held")));
    assert_eq!(
        why["criteria"][0],
        json!({"key": "trigger.status", "operator": "equals", "pattern": "firing", "value": "resolved", "held": false})
    );
    assert_eq!(scheduler.received().len(), 1, "a resolve restarts nothing");
}

#[tokio::test]
async fn a_stop_and_a_start_change_nothing() {
    let site = sample("http://127.0.0.1:9/");
    let server = Server::start(&site).await;
    let (_, answer) = server.webhook("alertmanager", notification("firing", "no").to_string()).await;
    let event = answer["events"][0]["id"].clone();
    eventually("the message", || async { (server.messages().await.len() == 1).then_some(()) }).await;
    let (_, listed) = server.get("/api/v1/executions").await;
    server.ended(listed["executions"][0]["id"].as_str().unwrap()).await;
    let before = server.get("/api/v1/executions").await;
    assert_eq!(server.stop(), Some(0));
    let server = Server::start(&site).await;
    assert_eq!(server.get("/api/v1/executions").await, before);
    let (_, again) = server.webhook("alertmanager", notification("firing", "no").to_string()).await;
    assert_eq!((&again["events"][0]["id"], again["events"][0]["duplicate"].as_bool()), (&event, Some(true)));
    assert_eq!(server.messages().await.len(), 1);
}

/// Reads records of the event stream until one is wanted; answers it, and the id of the last record that had one.
async fn read_stream(server: &Server, after: Option<u64>, wanted: impl Fn(&str, &Value) -> bool) -> (String, Value, Option<u64>) {
    let mut request =
        reqwest::Client::builder().no_proxy().build().unwrap().get(format!("{}/api/v1/stream", server.url)).bearer_auth(&server.token);
    if let Some(after) = after {
        request = request.header("last-event-id", after);
    }
    let mut response = request.send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let (mut pending, mut last) = (String::new(), None);
    let reading = async {
        loop {
            pending.push_str(std::str::from_utf8(&response.chunk().await.unwrap().expect("the stream goes on")).unwrap());
            while let Some((record, rest)) = pending.split_once("\n\n").map(|(record, rest)| (record.to_string(), rest.to_string())) {
                pending = rest;
                let field = |name: &str| record.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().to_string();
                last = field("id: ").parse().ok().or(last);
                let (kind, data) = (field("event: "), serde_json::from_str(&field("data: ")).unwrap_or_default());
                if wanted(&kind, &data) {
                    return (kind, data);
                }
            }
        }
    };
    let (kind, data) = tokio::time::timeout(crate::harness::PATIENCE, reading).await.expect("the record comes");
    (kind, data, last)
}

#[tokio::test]
async fn a_watcher_that_comes_back_misses_nothing_or_is_told_to_start_anew() {
    let site = sample("http://127.0.0.1:9/");
    let server = Server::start(&site).await;
    let is_message = |kind: &str, _: &Value| kind == "message";
    let (first, ()) = tokio::join!(read_stream(&server, None, is_message), async {
        eventually("the watcher to get a message", || async {
            server.post("/api/v1/executions", &json!({"action": "core.notify", "parameters": {"channel": "ops", "text": "first"}})).await;
            // Until the watcher is there, messages go by; one is enough.
            (server.messages().await.len() > 3).then_some(())
        })
        .await;
    });
    let seen = first.2.expect("what the watcher got had an id");
    assert_eq!(first.1["text"], "first");
    let ended = server.run("core.notify", json!({"channel": "ops", "text": "while away"})).await;
    assert_eq!(ended["status"], "succeeded");
    let (_, message, _) = read_stream(&server, Some(seen), |kind, data| kind == "message" && data["text"] == "while away").await;
    assert_eq!(message["channel"], "ops");
    server.kill();
    let server = Server::start(&site).await;
    let (kind, _, _) = read_stream(&server, Some(seen), |_, _| true).await;
    assert_eq!(kind, "reset", "what was before the restart is not kept, and the watcher is told");
}

#[tokio::test]
async fn too_much_is_answered_503_and_taken_later() {
    let site = TestSite::new()
        .file("signalman.yaml", "listen: 127.0.0.1:0\nlimits: {open_executions: 2}\n")
        .pack(&[("actions/wait.yaml", "runner_type: rhai\ntimeout: 60s\n"), ("actions/wait.rhai", "fn run(params) { loop {} }")])
        .file("rules/wait.yaml", "trigger: {type: core.webhook}\naction: {ref: t.wait}\n");
    let server = Server::start(&site).await;
    for n in 0..2 {
        assert_eq!(server.webhook("generic", format!("{{\"n\": {n}}}")).await.0, 202);
    }
    let response = reqwest::Client::builder()
        .no_proxy()
        .build()
        .unwrap()
        .post(format!("{}/api/v1/webhooks/generic", server.url))
        .body("{\"n\": 2}")
        .send()
        .await
        .unwrap();
    assert_eq!((response.status().as_u16(), response.headers()["retry-after"].to_str().unwrap()), (503, "1"));
    let problem: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
    assert_eq!(
        (problem["reason"].as_str(), problem["detail"].as_str()),
        (Some("overloaded"), Some("2 executions have not ended; try again later"))
    );
    let (_, running) = server.get("/api/v1/executions").await;
    for execution in running["executions"].as_array().unwrap() {
        let id = execution["id"].as_str().unwrap();
        server.post(&format!("/api/v1/executions/{id}/cancel"), &json!({})).await;
        assert_eq!(server.ended(id).await["status"], "canceled");
    }
    assert_eq!(server.webhook("generic", "{\"n\": 2}").await.0, 202, "there is room again");
}

#[tokio::test]
async fn what_was_requested_and_not_begun_starts_after_a_crash_in_its_order() {
    let site = TestSite::new()
        .file("signalman.yaml", "listen: 127.0.0.1:0\nlimits: {script_threads: 2}\n")
        .pack(&[
            ("actions/slow.yaml", "runner_type: rhai\ntimeout: 60s\nparameters: {n: {type: integer}}\n"),
            ("actions/slow.rhai", "fn run(params) { if params.n < 1 { loop {} } chat.send(\"ops\", `did ${params.n}`); }"),
            ("actions/quick.yaml", "runner_type: rhai\n"),
            ("actions/quick.rhai", "fn run(params) { 1 }"),
        ])
        .file("rules/slow.yaml", "trigger: {type: core.webhook}\naction: {ref: t.slow, parameters: {n: <% trigger.n %>}}\n");
    let server = Server::start(&site).await;
    for _ in 0..20 {
        // Quick ones must not make the pack's slow ones start ahead of the threads.
        assert_eq!(server.run("t.quick", json!({})).await["status"], "succeeded");
    }
    let events: Vec<Value> = (0..30).map(|n| json!({"n": n})).collect();
    assert_eq!(server.webhook_with("generic", json!(events).to_string(), &[("signalman-key", "one")]).await.0, 202);
    eventually("the first one to run", || async {
        let (_, listed) = server.get("/api/v1/executions?status=running").await;
        listed["executions"].as_array().is_some_and(|running| !running.is_empty()).then_some(())
    })
    .await;
    server.kill();
    let server = Server::start(&site).await;
    let said = eventually("all that had not begun to be done", || async {
        let said: Vec<String> = server.messages().await.into_iter().map(|(_, text)| text).filter(|text| text.starts_with("did ")).collect();
        (said.len() == 29).then_some(said)
    })
    .await;
    let abandoned = server.get("/api/v1/executions?status=abandoned").await.1;
    assert_eq!(abandoned["executions"].as_array().unwrap().len(), 1, "only what had begun is abandoned: {abandoned}");
    let expected: Vec<String> = (1..30).map(|n| format!("did {n}")).collect();
    let mut sorted = said.clone();
    sorted.sort_by_key(|text| text[4..].parse::<u32>().unwrap());
    assert_eq!(sorted, expected, "each one once");
    let (_, listed) = server.get("/api/v1/executions?limit=100").await;
    let mut started: Vec<(String, u64)> = listed["executions"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|execution| execution["action"] == "t.slow" && execution["status"] == "succeeded")
        .map(|execution| (execution["started_at"].as_str().unwrap().to_string(), execution["parameters"]["n"].as_u64().unwrap()))
        .collect();
    started.sort();
    let order: Vec<u64> = started.into_iter().map(|(_, n)| n).collect();
    assert_eq!(order, (1..30).collect::<Vec<u64>>(), "they start in the order of their events");
}

#[tokio::test]
async fn a_flood_of_one_sender_does_not_hold_up_another() {
    let site = TestSite::new();
    let server = Server::start(&site).await;
    let alerts = |from: usize| {
        let alerts: Vec<Value> = (from..from + 5_000).map(|n| json!({"status": "firing", "labels": {"alertname": format!("a{n}")}, "startsAt": "2026-11-20T07:22:45Z", "fingerprint": format!("{n:016x}")})).collect();
        json!({"version": "4", "groupKey": "g", "alerts": alerts}).to_string()
    };
    let (first, second) = (alerts(0), alerts(5_000));
    let (a, b, other) = tokio::join!(
        server.webhook("alertmanager", first.clone()),
        server.webhook("alertmanager", second),
        server.webhook("generic", "{\"n\": 1}")
    );
    assert_eq!((a.0, b.0, other.0), (202, 202, 202), "{other:?}");
    let (_, again) = server.webhook("alertmanager", first).await;
    let events = again["events"].as_array().unwrap();
    assert!(events.len() == 5_000 && events.iter().all(|event| event["duplicate"] == true), "each is known again");
    let (status, refused) = server
        .webhook(
            "alertmanager",
            json!({"version": "4", "commonAnnotations": {"text": "x".repeat(300_000)}, "alerts": vec![json!({}); 1_000]}).to_string(),
        )
        .await;
    assert_eq!(status, 400, "{refused}");
    assert!(refused["detail"].as_str().unwrap().contains("set max_alerts in Alertmanager"), "{refused}");
}

#[tokio::test]
async fn a_rule_that_triggers_itself_through_the_api_ends_as_well() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("http://127.0.0.1:{port}");
    let site = TestSite::new()
        .file("signalman.yaml", &format!("listen: 127.0.0.1:{port}\n"))
        .file("packs/t/pack.yaml", &format!("ref: t\ncapabilities: {{http: [\"{url}\"]}}\n"))
        .file("packs/t/actions/again.yaml", "runner_type: rhai\nparameters: {token: {type: string, secret: true}}\n")
        .file(
            "packs/t/actions/again.rhai",
            &format!(
                "fn run(params) {{ http.post(\"{url}/api/v1/events\", #{{headers: #{{authorization: `Bearer ${{params.token}}`}}, json: #{{trigger: \"core.webhook\", payload: #{{token: params.token}}}}}}); }}"
            ),
        )
        .file("rules/again.yaml", "trigger: {type: core.webhook}\naction: {ref: t.again, parameters: {token: \"{{trigger.token}}\"}}\n");
    let server = Server::start(&site).await;
    let token = server.token.clone();
    assert_eq!(server.webhook("generic", json!({"token": token}).to_string()).await.0, 202);
    let dropped = eventually("the loop to be cut", || async {
        let (_, listed) = server.get("/api/v1/events?limit=100").await;
        let events = listed["events"].as_array().unwrap().clone();
        events.iter().any(|event| event["set_aside"]["reason"] == "loop").then_some(events.len())
    })
    .await;
    assert_eq!(dropped, 10, "the first, eight that follow, and the one that is dropped");
}
