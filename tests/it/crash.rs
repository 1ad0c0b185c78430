//! kill -9 at random moments under load, again and again, on one data folder; then everything is counted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Random, Server, Target, TestSite, eventually, seed, times};

/// Senders at once.
const SENDERS: usize = 4;

fn site(target: &str) -> TestSite {
    let script = format!("fn run(params) {{ http.post(\"{target}\", #{{json: params}}); }}");
    let action = |idempotent: bool| {
        format!("runner_type: rhai\nidempotent: {idempotent}\nparameters: {{n: {{type: integer}}, how: {{type: string}}}}\n")
    };
    let rule = |how: &str| {
        format!(
            "trigger: {{type: core.webhook}}\ncriteria: {{trigger.n: {{type: exists, pattern: true}}}}\naction: {{ref: t.{how}, parameters: {{n: <% trigger.n %>, how: {how}}}}}\n"
        )
    };
    TestSite::new()
        .file("packs/t/pack.yaml", &format!("ref: t\ncapabilities: {{http: [\"{target}\"]}}\n"))
        .file("packs/t/actions/once.yaml", &action(false))
        .file("packs/t/actions/once.rhai", &script)
        .file("packs/t/actions/again.yaml", &action(true))
        .file("packs/t/actions/again.rhai", &script)
        .file("rules/once.yaml", &rule("once"))
        .file("rules/again.yaml", &rule("again"))
}

/// What the target was asked: for each (action, number) the idempotency keys, one entry a request.
type Asked = Arc<Mutex<BTreeMap<(String, u64), Vec<String>>>>;

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_moment_nothing_acknowledged_is_lost_and_nothing_is_done_twice() {
    let (mut random, kills) = (Random(seed()), times(60, 500));
    let asked: Asked = Arc::default();
    let counting = Arc::clone(&asked);
    let target = Target::with(move |request| {
        let body: Value = serde_json::from_str(&request.body).unwrap();
        let key = request.header("idempotency-key").expect("a POST carries a key").to_string();
        let what = (body["how"].as_str().unwrap().to_string(), body["n"].as_u64().unwrap());
        counting.lock().unwrap().entry(what).or_default().push(key);
        (200, String::new())
    })
    .await;
    let site = site(&target.url);
    let next = Arc::new(AtomicU64::new(0));
    let acknowledged: Arc<Mutex<BTreeMap<u64, String>>> = Arc::default();
    let mut unsure: Vec<u64> = Vec::new();
    for _ in 0..kills {
        let server = Server::start(&site).await;
        // First what had no answer: it may have been taken or not.
        let repeats = std::mem::take(&mut unsure);
        let stop = Arc::new(AtomicBool::new(false));
        let senders: Vec<_> = (0..SENDERS)
            .map(|index| {
                let mine: Vec<u64> = repeats.iter().copied().skip(index).step_by(SENDERS).collect();
                tokio::spawn(send(server.url.clone(), mine, Arc::clone(&next), Arc::clone(&acknowledged), Arc::clone(&stop)))
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(5 + random.below(200))).await;
        server.kill();
        stop.store(true, Ordering::SeqCst);
        for sender in senders {
            unsure.extend(sender.await.unwrap());
        }
    }
    let server = Server::start(&site).await;
    let executions = all_ended(&server).await;
    let acknowledged = acknowledged.lock().unwrap().clone();
    check(&executions, &acknowledged, &asked.lock().unwrap());
    let abandoned: Vec<&Value> = executions.iter().filter(|execution| execution["status"] == "abandoned").collect();
    let said = server.messages().await;
    for execution in &abandoned {
        let short = &execution["id"].as_str().unwrap()[20..];
        let told = said.iter().any(|(channel, text)| channel == "ops" && text.contains("was abandoned") && text.contains(short));
        assert!(told, "nobody was told that {execution} was abandoned");
    }
    println!(
        "{kills} kills: {} events acknowledged, {} executions, {} abandoned and told",
        acknowledged.len(),
        executions.len(),
        abandoned.len()
    );
    assert!(acknowledged.len() > kills, "there was hardly any load: {}", acknowledged.len());
}

/// Posts one event after the other until the server has gone; answers the numbers that got no answer.
async fn send(
    url: String,
    repeats: Vec<u64>,
    next: Arc<AtomicU64>,
    acknowledged: Arc<Mutex<BTreeMap<u64, String>>>,
    stop: Arc<AtomicBool>,
) -> Vec<u64> {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut repeats = repeats.into_iter();
    let mut without_answer = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        let number = repeats.next().unwrap_or_else(|| next.fetch_add(1, Ordering::SeqCst));
        let request = client
            .post(format!("{url}/api/v1/webhooks/generic"))
            .header("idempotency-key", number.to_string())
            .body(json!({"n": number}).to_string());
        let answer = async { request.send().await?.text().await };
        match answer.await.map(|text| serde_json::from_str::<Value>(&text).unwrap_or_default()) {
            Ok(answer) if answer["events"].is_array() => {
                let id = answer["events"][0]["id"].as_str().unwrap().to_string();
                acknowledged.lock().unwrap().insert(number, id);
            }
            Ok(refused) => panic!("refused: {refused}"),
            Err(_) => {
                without_answer.push(number);
                break;
            }
        }
    }
    without_answer.extend(repeats);
    without_answer
}

/// Every execution, once none is open.
async fn all_ended(server: &Server) -> Vec<Value> {
    eventually("every execution to end", || async {
        let (mut executions, mut before) = (Vec::new(), String::new());
        loop {
            let (_, page) = server.get(&format!("/api/v1/executions?limit=1000{before}")).await;
            let part = page["executions"].as_array().cloned().unwrap_or_default();
            executions.extend(part);
            let Some(next) = page["next"].as_str() else { break };
            before = format!("&before={next}");
        }
        let ended =
            executions.iter().all(|execution| ["succeeded", "failed", "abandoned"].contains(&execution["status"].as_str().unwrap()));
        ended.then_some(executions)
    })
    .await
}

fn check(executions: &[Value], acknowledged: &BTreeMap<u64, String>, asked: &BTreeMap<(String, u64), Vec<String>>) {
    let mut by_event: BTreeMap<String, Vec<&Value>> = BTreeMap::new();
    for execution in executions {
        by_event.entry(execution["event"].as_str().unwrap().to_string()).or_default().push(execution);
    }
    for (number, event) in acknowledged {
        let found = by_event.get(event).unwrap_or_else(|| panic!("event {event} (n = {number}) was acknowledged and ran nothing"));
        let actions: BTreeSet<&str> = found.iter().map(|execution| execution["action"].as_str().unwrap()).collect();
        assert_eq!((found.len(), actions.len()), (2, 2), "event {event} has not exactly one execution per rule: {found:?}");
    }
    for (event, found) in &by_event {
        assert_eq!(found.len(), 2, "event {event}: {found:?}");
    }
    let mut numbers = BTreeSet::new();
    for execution in executions {
        let (action, number) =
            (execution["action"].as_str().unwrap().trim_start_matches("t."), execution["parameters"]["n"].as_u64().unwrap());
        assert!(numbers.insert((action.to_string(), number)), "n = {number} was requested twice for {action}");
        let keys = asked.get(&(action.to_string(), number)).cloned().unwrap_or_default();
        let status = execution["status"].as_str().unwrap();
        let distinct: BTreeSet<&String> = keys.iter().collect();
        assert!(distinct.len() <= 1, "n = {number}: the attempts carry different keys: {keys:?}");
        match action {
            "once" => {
                assert!(keys.len() <= 1, "n = {number} was done twice: {execution}");
                assert!(status == "abandoned" || keys.len() == 1, "n = {number}: {execution}");
            }
            _ => assert!(status == "succeeded" && !keys.is_empty(), "n = {number} was not done: {execution}"),
        }
    }
}
