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
    let before = server.get("/api/v1/executions").await;
    assert_eq!(server.stop(), Some(0));
    let server = Server::start(&site).await;
    assert_eq!(server.get("/api/v1/executions").await, before);
    let (_, again) = server.webhook("alertmanager", notification("firing", "no").to_string()).await;
    assert_eq!((&again["events"][0]["id"], again["events"][0]["duplicate"].as_bool()), (&event, Some(true)));
    assert_eq!(server.messages().await.len(), 1);
}
