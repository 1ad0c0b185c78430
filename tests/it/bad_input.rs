//! What others get wrong, from the body of a webhook to the files of a site: it is refused with the place and the remedy, or kept and
//! explained; and nothing else suffers.

use std::os::unix::fs::symlink;

use serde_json::{Value, json};
use signalman::config::Environment;

use crate::harness::{Server, TestSite, eventually};

/// A rule that echoes every event of the generic webhook.
const ECHO: &str = "trigger: {type: core.webhook}\naction: {ref: core.echo, parameters: {text: \"{{trigger.text}}\"}}\n";

/// Both notations, which data may hold and nobody may evaluate.
const NOTATIONS: &str = "{{trigger.text}} <% 1 + 1 %> {{{now}}} ${event}";

/// A request as anybody can send it: status, content type, answer.
async fn ask(server: &Server, method: &str, path: &str, token: Option<&str>, body: &str) -> (u16, String, Value) {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut request = client.request(method.parse().unwrap(), format!("{}{path}", server.url)).body(body.to_string());
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    let response = request.send().await.unwrap_or_else(|error| panic!("{method} {path}: {error}"));
    let header = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap().to_string()).unwrap_or_default();
    let (status, kind) = (response.status().as_u16(), header("content-type"));
    let text = response.text().await.unwrap();
    (status, kind, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

/// Asserts a problem document of that status whose detail has the words.
fn assert_problem(what: &str, (status, kind, answer): (u16, String, Value), expected: u16, words: &[&str]) {
    assert_eq!((status, kind.as_str()), (expected, "application/problem+json"), "{what}: {answer}");
    assert_eq!(answer["status"], expected, "{what}: {answer}");
    let detail = answer["detail"].as_str().unwrap_or_default();
    for word in words {
        assert!(detail.contains(word), "{what}: `{word}` is missing in: {detail}");
    }
}

async fn events(server: &Server) -> Vec<Value> {
    server.get("/api/v1/events").await.1["events"].as_array().unwrap().clone()
}

#[tokio::test]
async fn a_body_that_is_no_event_is_refused_with_the_place() {
    let site = TestSite::new();
    let server = Server::start(&site).await;
    let deep = format!("{{\"a\":{}1{}}}", "[".repeat(64), "]".repeat(64));
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(1 << 20));
    let cases: &[(&str, &[u8], u16, &[&str])] = &[
        ("generic", b"{\"a\":1,", 400, &["the body is not JSON", "(line 1, column 7)"]),
        ("generic", b"{\n  \"a\": x\n}", 400, &["the body is not JSON", "(line 2, column"]),
        ("generic", b"{} {}", 400, &["the body is not JSON", "trailing", "(line 1, column 4)"]),
        ("generic", b"{\"a\":\"\xff\"}", 400, &["not UTF-8 at byte 6"]),
        ("generic", b"", 400, &["the body is not JSON"]),
        ("generic", b"\"text\"", 400, &["must be a JSON object, or an array of objects"]),
        ("generic", b"null", 400, &["must be a JSON object, or an array of objects"]),
        ("generic", deep.as_bytes(), 400, &["JSON nests deeper than 64 levels"]),
        ("generic", large.as_bytes(), 413, &["larger than 1048576 bytes", "`limits.body`"]),
        ("alertmanager", b"{\"alerts\":", 400, &["the body is not JSON", "(line 1, column 10)"]),
        ("alertmanager", b"[]", 400, &["must be a JSON object as Alertmanager posts it"]),
        ("alertmanager", b"{}", 400, &["`alerts` must be a list"]),
        ("alertmanager", b"{\"version\":\"3\",\"alerts\":[]}", 400, &["version \"3\"", "reads version \"4\""]),
    ];
    for (webhook, body, status, words) in cases {
        let shown = String::from_utf8_lossy(&body[..body.len().min(40)]).into_owned();
        let (found, answer) = server.webhook(webhook, body.to_vec()).await;
        assert_eq!(found, *status, "{webhook} {shown}: {answer}");
        for word in *words {
            assert!(answer["detail"].as_str().unwrap_or_default().contains(word), "{webhook} {shown}: `{word}` is missing in {answer}");
        }
    }
    for (header, value) in [("idempotency-key", ""), ("signalman-key", ""), ("idempotency-key", "ä"), ("signalman-key", &"k".repeat(257))]
    {
        let (status, answer) = server.webhook_with("generic", "{}", &[(header, value)]).await;
        assert_eq!(status, 400, "{header}: {value}: {answer}");
        assert!(answer["detail"].as_str().unwrap().contains(&format!("the header `{header}`")), "{answer}");
    }
    assert_eq!(events(&server).await, Vec::<Value>::new(), "nothing of it was taken");
    assert_eq!(server.webhook("generic", "{}").await.0, 202, "the next good one is");
}

#[tokio::test]
async fn a_sender_must_prove_who_it_is() {
    let site = TestSite::new().file("hook.secret", "s3cret-of-hooks\n").pack(&[
        (
            "sensors/signed.yaml",
            "kind: webhook\ndecoder: generic\ntrigger: core.webhook\nauth: {hmac: {secret: {file: hook.secret}, header: X-Signature-256}}\n",
        ),
        ("sensors/tokened.yaml", "kind: webhook\ndecoder: generic\ntrigger: core.webhook\nauth: {bearer: {file: hook.secret}}\n"),
    ]);
    let server = Server::start(&site).await;
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"s3cret-of-hooks");
    let sign = |body: &str| ring::hmac::sign(&key, body.as_bytes()).as_ref().iter().map(|b| format!("{b:02x}")).collect::<String>();
    let good = sign("{}");
    let (prefixed, other) = (format!("sha256={good}"), sign("{ }"));
    let cases: &[(&str, &[(&str, &str)], u16)] = &[
        ("signed", &[("x-signature-256", &good)], 202),
        ("signed", &[("x-signature-256", &prefixed)], 202),
        ("signed", &[], 401),
        ("signed", &[("x-signature-256", "")], 401),
        ("signed", &[("x-signature-256", &other)], 401),
        ("signed", &[("x-signature-256", &good[..32])], 401),
        ("signed", &[("x-signature", &good)], 401),
        ("signed", &[("authorization", "Bearer s3cret-of-hooks")], 401),
        ("tokened", &[("authorization", "Bearer s3cret-of-hooks")], 202),
        ("tokened", &[], 401),
        ("tokened", &[("authorization", "Bearer s3cret-of-hook")], 401),
        ("tokened", &[("authorization", "Bearer ")], 401),
        ("tokened", &[("authorization", "s3cret-of-hooks")], 401),
        ("tokened", &[("authorization", "Basic s3cret-of-hooks")], 401),
    ];
    for (webhook, headers, expected) in cases {
        let (status, answer) = server.webhook_with(webhook, "{}", headers).await;
        assert_eq!(status, *expected, "{webhook} {headers:?}: {answer}");
        if status == 401 {
            let says = if *webhook == "signed" {
                "the header `X-Signature-256` must be the HMAC-SHA256 of the body"
            } else {
                "`Authorization: Bearer …`"
            };
            assert!(answer["detail"].as_str().unwrap().contains(says), "{answer}");
            assert!(!answer.to_string().contains("s3cret"), "{answer}");
        }
    }
    assert_eq!(events(&server).await.len(), 3, "only proven bodies become events");
}

#[tokio::test]
async fn addresses_methods_and_tokens() {
    let site = TestSite::new();
    let server = Server::start(&site).await;
    let token = Some(server.token.as_str());
    assert_problem("webhook", ask(&server, "POST", "/api/v1/webhooks/nope", None, "{}").await, 404, &["there is no webhook `nope`"]);
    for (method, path) in
        [("GET", "/api/v1/webhooks/generic"), ("PUT", "/api/v1/events"), ("DELETE", "/api/v1/executions"), ("POST", "/healthz")]
    {
        assert_problem(path, ask(&server, method, path, token, "").await, 405, &["not with this method"]);
    }
    assert_problem("address", ask(&server, "GET", "/api/v1/nothing", token, "").await, 404, &["nothing at this address"]);

    let without = [
        ("GET", "/metrics"),
        ("GET", "/api/v1/events"),
        ("POST", "/api/v1/events"),
        ("GET", "/api/v1/events/000000"),
        ("GET", "/api/v1/events/000000/why"),
        ("GET", "/api/v1/rules"),
        ("GET", "/api/v1/rules/default.r"),
        ("GET", "/api/v1/rules/default.r/why/000000"),
        ("GET", "/api/v1/actions"),
        ("GET", "/api/v1/packs"),
        ("GET", "/api/v1/sensors"),
        ("GET", "/api/v1/messages"),
        ("GET", "/api/v1/executions"),
        ("POST", "/api/v1/executions"),
        ("GET", "/api/v1/executions/000000"),
        ("POST", "/api/v1/executions/000000/cancel"),
        ("GET", "/api/v1/stream"),
    ];
    let nearly = &server.token[..server.token.len() - 1];
    for (method, path) in without {
        for given in [None, Some("wrong"), Some(nearly), Some("")] {
            let what = format!("{method} {path} with token {given:?}");
            assert_problem(&what, ask(&server, method, path, given, "{}").await, 401, &["Authorization: Bearer", "data/admin.token"]);
        }
    }
    for path in ["/healthz", "/readyz"] {
        assert_eq!(ask(&server, "GET", path, None, "").await.0, 200, "{path}");
    }
}

#[tokio::test]
async fn a_faulty_request_to_the_api_is_told_what_is_wrong() {
    let site = TestSite::new().file("rules/echo.yaml", ECHO).pack(&[(
        "actions/typed.yaml",
        "runner_type: noop\nparameters:\n  app: {type: string, required: true}\n  by: {type: integer, maximum: 5}\n  env: {type: string, enum: [gray, prod]}\n",
    )]);
    let server = Server::start(&site).await;
    let (events, executions) = ("/api/v1/events", "/api/v1/executions");
    let cases: &[(&str, &str, u16, &[&str])] = &[
        (events, "{\"trigger\": \"core.webhook\", \"payload\": {}", 400, &["EOF", "(line 1, column"]),
        (events, "", 400, &["(line 1, column 0)"]),
        (events, "{\"trigger\": \"core.webhook\", \"paylod\": {}}", 400, &["unknown field `paylod`", "`payload`", "(line 1, column"]),
        (events, "{\"trigger\": \"core.webhook\"}", 400, &["missing field `payload`"]),
        (events, "{\"trigger\": \"core.webhook\", \"payload\": [1]}", 400, &["`payload` must be a JSON object"]),
        (events, "{\"trigger\": 7, \"payload\": {}}", 400, &["invalid type", "(line 1, column"]),
        (events, "{\"trigger\": \"core.webhook\", \"payload\": {}, \"occurred_at\": \"yesterday\"}", 400, &["(line 1, column"]),
        (
            events,
            "{\"trigger\": \"core.webhok\", \"payload\": {}}",
            404,
            &["there is no trigger `core.webhok`", "did you mean `core.webhook`?"],
        ),
        (executions, "{\"action\": \"core.echo\", \"params\": {}}", 400, &["unknown field `params`", "`parameters`"]),
        (executions, "{\"action\": \"core.echo\", \"parameters\": [1]}", 400, &["expected a map"]),
        (executions, "{\"action\": \"core.ehco\"}", 404, &["there is no action `core.ehco`", "did you mean `core.echo`?"]),
        (executions, "{\"action\": \"core.echo\"}", 422, &["parameter `text` is required"]),
        (
            executions,
            "{\"action\": \"core.echo\", \"parameters\": {\"text\": 1.10}}",
            422,
            &["parameter `text` must be of type string", "quote it"],
        ),
    ];
    for (path, body, status, words) in cases {
        assert_problem(body, ask(&server, "POST", path, Some(&server.token), body).await, *status, words);
    }
    let all = json!({"action": "t.typed", "parameters": {"by": 9, "env": "test", "extra": 1}});
    let (status, answer) = server.post(executions, &all).await;
    let faults: Vec<&str> = answer["errors"].as_array().unwrap().iter().map(|fault| fault["detail"].as_str().unwrap()).collect();
    assert_eq!(
        (status, faults),
        (
            422,
            vec![
                "the action has no parameter `extra`; it takes app, by, env",
                "parameter `app` is required",
                "parameter `by` must be at most 5, not 9",
                "parameter `env` must be one of \"gray\", \"prod\", not \"test\"",
            ]
        )
    );
    let get = async |path: &str| ask(&server, "GET", path, Some(&server.token), "").await;
    assert_problem(
        "rule",
        get("/api/v1/rules/default.ecko").await,
        404,
        &["there is no rule `default.ecko`", "did you mean `default.echo`?"],
    );
    assert_problem("id", get("/api/v1/events/12").await, 400, &["`12` is not an id", "all 26 characters, or the last 6"]);
    assert_problem("event", get("/api/v1/events/ZZZZZZ").await, 404, &["no recent event whose id ends in `ZZZZZZ`", "give the whole id"]);
    assert_problem("execution", get("/api/v1/executions/ZZZZZZ").await, 404, &["no recent execution whose id ends in `ZZZZZZ`"]);
    assert_eq!(server.get(executions).await.1["executions"], json!([]), "nothing ran");
}

#[tokio::test]
async fn a_faulty_query_is_told_what_is_wrong() {
    let site = TestSite::new();
    let server = Server::start(&site).await;
    let get = async |path: &str| ask(&server, "GET", path, Some(&server.token), "").await;
    let pages: &[(&str, &[&str])] = &[
        ("limit=0", &["`limit` must be from 1 to 1000"]),
        ("limit=1001", &["`limit` must be from 1 to 1000"]),
        ("limit=-1", &["limit"]),
        ("limit=many", &["limit"]),
        ("before=yesterday", &["`before` is not an id"]),
        ("lmit=5", &["lmit", "limit"]),
    ];
    for (query, words) in pages {
        for list in ["/api/v1/events", "/api/v1/executions", "/api/v1/messages"] {
            assert_problem(&format!("{list}?{query}"), get(&format!("{list}?{query}")).await, 400, words);
        }
    }
    assert_problem("status", get("/api/v1/executions?status=failde").await, 400, &["`failde`", "failed"]);
}

#[tokio::test]
async fn a_filter_finds_what_is_older_than_a_page() {
    let site = TestSite::new();
    let server = Server::start(&site).await;
    let (_, first) = server.post("/api/v1/events", &json!({"trigger": "core.interval", "payload": {}})).await;
    let many: Vec<Value> = (0..20).map(|n| json!({"n": n})).collect();
    server.webhook("generic", Value::from(many).to_string()).await;
    let (_, answer) = server.get("/api/v1/events?limit=5&trigger=core.interval").await;
    let found: Vec<&Value> = answer["events"].as_array().unwrap().iter().map(|stored| &stored["event"]["id"]).collect();
    assert_eq!(found, [&first["id"]], "the newest five of that trigger, not that trigger among the newest five");
}

#[tokio::test]
async fn an_array_is_taken_whole_or_not_at_all() {
    let site = TestSite::new();
    let server = Server::start(&site).await;
    let (status, answer) = server.webhook("generic", "[{\"n\":0}, 1, {\"n\":2}, null]").await;
    assert_eq!(status, 400, "{answer}");
    assert_eq!(answer["errors"], json!([{"index": 1, "detail": "must be a JSON object"}, {"index": 3, "detail": "must be a JSON object"}]));
    assert!(answer["detail"].as_str().unwrap().contains("event 1: must be a JSON object"), "{answer}");
    assert_eq!(server.webhook("generic", "[]").await.0, 400);
    assert_eq!(events(&server).await.len(), 0);
    let (status, answer) = server.webhook("generic", "[{\"n\":0}, {\"n\":1}]").await;
    assert_eq!((status, answer["events"].as_array().unwrap().len(), events(&server).await.len()), (202, 2, 2));
}

#[tokio::test]
async fn a_repeat_with_the_same_key_is_the_first_event_and_never_another() {
    let site = TestSite::new().file("rules/echo.yaml", ECHO);
    let server = Server::start(&site).await;
    let post = async |body: &'static str, key: &str| server.webhook_with("generic", body, &[("idempotency-key", key)]).await;
    let (_, first) = post("{\"text\":\"a\"}", "k").await;
    let (status, again) = post("{\"text\":\"a\"}", "k").await;
    assert_eq!((status, &again["events"][0]["id"], &again["events"][0]["duplicate"]), (202, &first["events"][0]["id"], &json!(true)));
    let (status, other) = post("{\"text\":\"b\"}", "k").await;
    assert_eq!((status, other["title"].as_str()), (422, Some("The Idempotency-Key was used before")), "{other}");
    assert!(other["detail"].as_str().unwrap().contains("`k`"), "{other}");
    let (_, array) = post("[{\"text\":\"1\"},{\"text\":\"2\"}]", "many").await;
    assert_eq!(post("[{\"text\":\"1\"},{\"text\":\"2\"}]", "many").await.1["events"][1]["id"], array["events"][1]["id"]);
    for body in [
        "[{\"text\":\"1\"},{\"text\":\"3\"}]",
        "[{\"text\":\"1\"}]",
        "[{\"text\":\"1\"},{\"text\":\"2\"},{\"text\":\"3\"}]",
        "{\"text\":\"1\"}",
    ] {
        let (status, answer) = post(body, "many").await;
        assert_eq!(status, 422, "{body} is another body: {answer}");
    }
    let (_, emitted) = server.post("/api/v1/events", &json!({"trigger": "core.webhook", "payload": {"text": "x"}, "dedup_key": "k"})).await;
    assert_eq!(emitted["duplicate"], Value::Null, "the keys of a webhook are its own");
    assert_eq!(events(&server).await.len(), 4);
    assert_eq!(server.get("/api/v1/executions").await.1["executions"].as_array().unwrap().len(), 4, "a repeat runs nothing");
}

fn alert(name: &str, starts_at: &str) -> Value {
    json!({"status": "firing", "labels": {"alertname": name}, "annotations": {}, "startsAt": starts_at, "fingerprint": format!("f-{name}")})
}

#[tokio::test]
async fn a_faulty_alert_is_kept_and_explained_and_its_neighbours_are_taken() {
    let rule = "trigger: {type: alertmanager.alert}\naction: {ref: core.echo, parameters: {text: \"{{trigger.labels.alertname}}\"}}\n";
    let site = TestSite::new().file("rules/told.yaml", rule);
    let server = Server::start(&site).await;
    let good = "2026-11-20T07:22:45Z";
    let body = json!({"version": "4", "groupKey": "g", "status": "firing", "truncatedAlerts": 3, "alerts": [alert("A", good), alert("B", "yesterday"), alert("C", good)]});
    let (status, answer) = server.webhook("alertmanager", body.to_string()).await;
    assert_eq!((status, &answer["truncated"]), (202, &json!(3)), "{answer}");
    let rejected: Vec<&Value> = answer["events"].as_array().unwrap().iter().map(|event| &event["rejected"]).collect();
    assert_eq!(rejected, [&Value::Null, &json!("`startsAt` is not a time: `yesterday`"), &Value::Null]);
    let texts = eventually("both neighbours' actions", || async {
        let (_, answer) = server.get("/api/v1/executions").await;
        let mut texts: Vec<Value> =
            answer["executions"].as_array().unwrap().iter().map(|execution| execution["result"]["text"].clone()).collect();
        texts.sort_by_key(ToString::to_string);
        (texts.len() == 2 && texts.iter().all(Value::is_string)).then_some(texts)
    })
    .await;
    assert_eq!(texts, ["A", "C"], "no rule saw the faulty one");

    let faulty = answer["events"][1]["id"].as_str().unwrap();
    let (_, shown) = server.get(&format!("/api/v1/events/{faulty}")).await;
    assert_eq!(shown["set_aside"], json!({"reason": "rejected", "detail": "`startsAt` is not a time: `yesterday`"}));
    assert_eq!(shown["event"]["payload"]["truncatedAlerts"], 3);
    let listed = site.cli(&["event", "list", "--server", &server.url]);
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.lines().any(|line| line.contains("rejected: `startsAt` is not a time: `yesterday`")), "{listed}");
    let why = site.cli(&["event", "why", &faulty[20..], "--server", &server.url]);
    assert!(String::from_utf8_lossy(&why.stdout).contains("no rule saw it (rejected): `startsAt` is not a time"), "{why:?}");

    let (_, good) = server.get(&format!("/api/v1/events/{}", answer["events"][0]["id"].as_str().unwrap())).await;
    assert_eq!(good["event"]["payload"]["truncatedAlerts"], 3, "a rule can see that alerts were left out");
    assert!(server.log().contains("truncated=3"), "{}", server.log());
}

#[tokio::test]
async fn a_number_that_no_value_can_hold_is_the_fault_of_one_alert() {
    let site = TestSite::new();
    let server = Server::start(&site).await;
    let text = json!({"version": "4", "alerts": [alert("D", "2026-11-20T07:22:45Z"), {"status": "firing", "x": 1}]}).to_string();
    let (status, answer) = server.webhook("alertmanager", text.replace("\"x\":1", "\"x\":1e999")).await;
    assert_eq!((status, answer["events"].as_array().map(Vec::len)), (202, Some(2)), "{answer}");
}

#[tokio::test]
async fn repeats_become_events_where_the_sensor_says_so() {
    let sensor = "kind: webhook\ndecoder: alertmanager\ntrigger: alertmanager.alert\nauth: none\nrepeats: true\n";
    let site = TestSite::new().pack(&[("sensors/every.yaml", sensor)]);
    let server = Server::start(&site).await;
    let body = json!({"version": "4", "groupKey": "g", "alerts": [alert("A", "2026-11-20T07:22:45Z")]}).to_string();
    let mut repeats = Vec::new();
    for _ in 0..3 {
        let (status, answer) = server.webhook("every", body.clone()).await;
        assert_eq!((status, &answer["events"][0]["duplicate"]), (202, &Value::Null));
        let (_, event) = server.get(&format!("/api/v1/events/{}", answer["events"][0]["id"].as_str().unwrap())).await;
        repeats.push(event["event"]["payload"]["repeat"].clone());
    }
    assert_eq!(repeats, [Value::Null, json!(1), json!(2)]);
}

#[tokio::test]
async fn a_payload_that_cannot_be_judged_is_set_aside_and_later_ones_are_not() {
    let rule = "trigger: {type: core.webhook}\ncriteria:\n  trigger.n: {type: gt, pattern: 1}\naction: {ref: core.echo, parameters: {text: \"{{trigger.n}}\"}}\n";
    let site = TestSite::new().file("rules/big.yaml", rule);
    let server = Server::start(&site).await;
    let (status, answer) = server.webhook("generic", "{\"n\": 1e999}").await;
    assert_eq!((status, answer["detail"].as_str()), (400, Some("the number `1e999` is out of range")), "{answer}");
    // Where a key stands twice, the last one counts, for criteria as for templates.
    let (_, answer) = server.webhook("generic", "{\"n\": 0, \"n\": 7}").await;
    let twice = answer["events"][0]["id"].as_str().unwrap().to_string();
    let (_, answer) = server.webhook("generic", "{\"n\": 7, \"n\": 0}").await;
    let not = answer["events"][0]["id"].as_str().unwrap().to_string();

    let (status, listed) = server.get("/api/v1/events").await;
    assert_eq!((status, listed["events"].as_array().map(Vec::len)), (200, Some(2)));
    let (_, why) = server.get(&format!("/api/v1/rules/default.big/why/{twice}")).await;
    assert_eq!((&why["matched"], &why["parameters"]["text"]), (&json!(true), &json!("7")), "{why}");
    let (_, why) = server.get(&format!("/api/v1/rules/default.big/why/{not}")).await;
    assert_eq!((&why["matched"], &why["criteria"][0]["value"]), (&json!(false), &json!(0)), "{why}");
}

#[tokio::test]
async fn data_is_never_a_template_or_an_expression() {
    let rule = "trigger: {type: core.webhook}\naction:\n  ref: t.keep\n  parameters:\n    text: \"{{trigger.text}}\"\n    value: <% trigger %>\n    key: <% event.key %>\n";
    let action = "runner_type: rhai\nparameters:\n  text: {type: string}\n  value: {}\n  key: {}\n";
    let script = "fn run(params) { chat.send(\"ops\", params.text); log.info(params.text); params }";
    let site = TestSite::new().file("rules/keep.yaml", rule).pack(&[("actions/keep.yaml", action), ("actions/keep.rhai", script)]);
    let server = Server::start(&site).await;
    let payload = json!({"text": NOTATIONS, NOTATIONS: [NOTATIONS, {"a": NOTATIONS}]});
    let (_, hooked) =
        server.webhook_with("generic", payload.to_string(), &[("signalman-key", NOTATIONS), ("idempotency-key", NOTATIONS)]).await;
    let (_, emitted) = server
        .post("/api/v1/events", &json!({"trigger": "core.webhook", "payload": payload, "key": NOTATIONS, "dedup_key": NOTATIONS}))
        .await;
    for id in [&hooked["events"][0]["id"], &emitted["id"]] {
        let id = id.as_str().unwrap();
        let (_, event) = server.get(&format!("/api/v1/events/{id}")).await;
        assert_eq!((&event["event"]["payload"], &event["event"]["key"]), (&payload, &json!(NOTATIONS)));
        assert!(event["event"]["dedup_key"].as_str().unwrap().ends_with(NOTATIONS), "{event}");
        let (_, why) = server.get(&format!("/api/v1/events/{id}/why")).await;
        let execution = server.ended(why["rules"][0]["execution"]["id"].as_str().unwrap()).await;
        assert_eq!(execution["result"], json!({"text": NOTATIONS, "value": payload, "key": NOTATIONS}), "{execution}");
        assert_eq!(execution["log"][0]["text"], NOTATIONS);
    }
    let given = json!({"text": NOTATIONS, "value": {NOTATIONS: NOTATIONS}, "key": [NOTATIONS]});
    assert_eq!(server.run("t.keep", given.clone()).await["result"], given, "parameters of a caller");
    let messages = server.messages().await;
    assert_eq!(messages, vec![("ops".to_string(), NOTATIONS.to_string()); 3]);
}

#[tokio::test]
async fn a_rule_that_triggers_itself_ends_at_depth_eight() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let own = format!("http://127.0.0.1:{port}");
    let request = format!(
        "runner_type: http-request\nparameters:\n  url: {{default: \"{own}/api/v1/webhooks/generic\", immutable: true}}\n  method: {{default: POST, immutable: true}}\n  body: {{default: {{by: http-request}}, immutable: true}}\n"
    );
    let script = format!("fn run(params) {{ http.post(\"{own}/api/v1/webhooks/script\", #{{ json: #{{ by: \"script\" }} }}); }}");
    // A script that denies its descent.
    let liar = format!(
        "fn run(params) {{ http.post(\"{own}/api/v1/webhooks/liar\", #{{ json: #{{}}, headers: #{{ \"Signalman-Cause\": \"x\", \"idempotency-key\": context.execution }} }}); }}"
    );
    let (rule, sensor) = (
        |name: &str| format!("trigger: {{type: t.{name}}}\naction: {{ref: t.{name}}}\n"),
        |name: &str| format!("kind: webhook\ndecoder: generic\ntrigger: t.{name}\nauth: none\n"),
    );
    let site = TestSite::new()
        .file("signalman.yaml", &format!("listen: 127.0.0.1:{port}\n"))
        .pack(&[("actions/generic.yaml", &request)])
        .file("packs/t/pack.yaml", &format!("ref: t\ncapabilities: {{http: [\"{own}\"]}}\n"))
        .file("rules/generic.yaml", "trigger: {type: core.webhook}\naction: {ref: t.generic}\n");
    for (name, script) in [("script", &script), ("liar", &liar)] {
        site.write(&format!("packs/t/actions/{name}.yaml"), "runner_type: rhai\n");
        site.write(&format!("packs/t/actions/{name}.rhai"), script);
        site.write(&format!("packs/t/triggers/{name}.yaml"), "description: own\n");
        site.write(&format!("packs/t/sensors/{name}.yaml"), &sensor(name));
        site.write(&format!("rules/{name}.yaml"), &rule(name));
    }
    let server = Server::start(&site).await;
    for (webhook, trigger) in [("generic", "core.webhook"), ("script", "t.script"), ("liar", "t.liar")] {
        server.webhook(webhook, "{}").await;
        let chain = eventually(&format!("the end of the loop of {webhook}"), || async {
            let events = server.get("/api/v1/events?limit=1000").await.1["events"].as_array().unwrap().clone();
            let chain: Vec<Value> = events.into_iter().filter(|stored| stored["event"]["trigger"] == trigger).collect();
            (chain.len() > 40 || chain.iter().any(|stored| !stored["set_aside"].is_null())).then_some(chain)
        })
        .await;
        assert_eq!(chain[0]["set_aside"]["reason"], "loop", "{webhook} went on: {} events", chain.len());
        assert!(chain[0]["set_aside"]["detail"].as_str().unwrap().contains("at depth 9"), "{}", chain[0]);
        let depths: Vec<u64> = chain.iter().rev().map(|stored| stored["event"]["depth"].as_u64().unwrap()).collect();
        assert_eq!(depths, (0..=9).collect::<Vec<u64>>(), "{webhook}");
    }
    let (_, answer) = server.get("/api/v1/executions?limit=1000").await;
    assert_eq!(answer["executions"].as_array().unwrap().len(), 27, "nothing ran for what was dropped");
}

/// Faults of one site: the files, and what must be said about them.
type SiteCase<'c> = (&'c str, &'c [(&'c str, &'c str)], &'c [&'c str]);

#[test]
fn a_faulty_site_is_refused_with_the_place_and_the_remedy() {
    const LISTENS: &str = "trigger: {type: core.webhook}\n";
    const RUNS: &str = "action: {ref: core.echo, parameters: {text: hi}}\n";
    let rule = |middle: &str| format!("{LISTENS}{middle}{RUNS}");
    let with = |parameters: &str| format!("{LISTENS}action:\n  ref: core.echo\n  parameters:\n    {parameters}\n");
    let (typo, twice, wrong) = (rule("enabeld: true\n"), rule("enabled: true\nenabled: false\n"), rule("enabled: perhaps\n"));
    let operator = rule("criteria:\n  trigger.a: {type: equal, pattern: 1}\n");
    let regex = rule("criteria:\n  trigger.a: {type: regex, pattern: \"(a\"}\n");
    let key = rule("criteria:\n  labels.a: {type: equals, pattern: 1}\n");
    let no_pattern = rule("criteria:\n  trigger.a: {type: equals}\n");
    let at_least = rule("at_least: 2\ncriteria:\n  trigger.a: {type: exists, pattern: true}\n");
    let (guard, no_guard) = (rule("when: <% trigger.a == %>\n"), rule("when: trigger.a == 1\n"));
    let unknown_name = rule("when: <% triger.a == 1 %>\n");
    let cut = rule("when: <% trigger.a == \"x\" # y %>\n");
    let notify = rule("notify: {channel: opps}\n");
    let named = rule("name: other\n");
    let (template, open_block) = (with("text: \"{{trigger.a\""), with("text: \"{{#if trigger.a}}x\""));
    let (expression, both) = (with("text: \"<% trigger.a + %>\""), with("text: \"{{trigger.a}} <% 1 %>\""));
    let flow_cut = format!("{LISTENS}action: {{ref: core.echo, parameters: {{text: <% max(1, 2) %>}}}}\n");
    let (number, unknown, none) = (with("text: 1.10"), with("txet: hi"), format!("{LISTENS}action: {{ref: core.echo}}\n"));
    let windowed = rule("window: {count: 3}\n");
    let windows = rule("window: {}\nthrottle: {once_per: 90d}\nceiling: 0\n");
    let keyed = rule("window: {count: 0, within: 5m, by: \"{{triger.a}}\"}\n");
    let correlated = rule("correlate: {within: 5m}\n");
    let big = format!("# {}\n{LISTENS}{RUNS}", "x".repeat(1 << 20));
    let cases: &[SiteCase<'_>] = &[
        ("broken YAML", &[("rules/r.yaml", "trigger: {type: core.webhook\naction: x\n")], &["rules/r.yaml:", "error: not valid YAML"]),
        ("a tab", &[("rules/r.yaml", "trigger:\n\ttype: core.webhook\n")], &["rules/r.yaml:2:", "error: not valid YAML"]),
        ("a list", &[("rules/r.yaml", "- a\n")], &["rules/r.yaml:1:1: error: a rule must be a map, not a list"]),
        ("empty", &[("rules/r.yaml", "\n")], &["rules/r.yaml: error: the file is empty"]),
        ("too large", &[("rules/r.yaml", &big)], &["rules/r.yaml: error: is larger than 1048576 bytes"]),
        (
            "unknown field",
            &[("rules/r.yaml", &typo)],
            &["rules/r.yaml:2:1: error: a rule has no field `enabeld`", "   2 | enabeld: true", "did you mean `enabled`?"],
        ),
        (
            "duplicate key",
            &[("rules/r.yaml", &twice)],
            &["rules/r.yaml:3:1: error: `enabled` stands here a second time; the first is in line 2"],
        ),
        ("wrong type", &[("rules/r.yaml", &wrong)], &["rules/r.yaml:2:10: error: `enabled` must be true or false, not text"]),
        ("no trigger", &[("rules/r.yaml", RUNS)], &["rules/r.yaml:1:1: error: a rule needs the field `trigger`"]),
        (
            "other name",
            &[("rules/r.yaml", &named)],
            &["rules/r.yaml:2:7: error: `name` is `other`, but the file is `r.yaml`", "make both equal"],
        ),
        (
            "unknown operator",
            &[("rules/r.yaml", &operator)],
            &["rules/r.yaml:3:21: error: there is no operator `equal`", "did you mean `equals`?"],
        ),
        ("bad regex", &[("rules/r.yaml", &regex)], &["rules/r.yaml:3:37: error: `(a` is not a regular expression: unclosed group"]),
        ("bad key", &[("rules/r.yaml", &key)], &["rules/r.yaml:3:3: error: `labels.a` must start with `trigger.`"]),
        ("no pattern", &[("rules/r.yaml", &no_pattern)], &["rules/r.yaml:3:14: error: a criterion needs the field `pattern`"]),
        ("at_least", &[("rules/r.yaml", &at_least)], &["rules/r.yaml:2:11: error: `at_least` must be from 1 to 1"]),
        ("bad guard", &[("rules/r.yaml", &guard)], &["rules/r.yaml:2:7: error: "]),
        ("no expression", &[("rules/r.yaml", &no_guard)], &["rules/r.yaml:2:7: error: `when` must be one expression: <% … %>"]),
        ("unknown name", &[("rules/r.yaml", &unknown_name)], &["rules/r.yaml:2:7: error: ", "triger"]),
        (
            "cut by a comment",
            &[("rules/r.yaml", &cut)],
            &["rules/r.yaml:2:7: error: the expression `<% trigger.a == \"x\"` was cut short by YAML", "quote it"],
        ),
        ("cut by a comma", &[("rules/r.yaml", &flow_cut)], &["rules/r.yaml:2:", "must be quoted"]),
        ("bad template", &[("rules/r.yaml", &template)], &["rules/r.yaml:5:11: error: in the template: "]),
        ("open block", &[("rules/r.yaml", &open_block)], &["rules/r.yaml:5:11: error: in the template: "]),
        ("bad expression", &[("rules/r.yaml", &expression)], &["rules/r.yaml:5:11: error: in the expression, at character "]),
        ("both notations", &[("rules/r.yaml", &both)], &["rules/r.yaml:5:11: error: ", "cannot stand in one string"]),
        (
            "number for text",
            &[("rules/r.yaml", &number)],
            &["rules/r.yaml:5:11: error: parameter `text` must be of type string", "quote it: \"1.1"],
        ),
        (
            "unknown parameter",
            &[("rules/r.yaml", &unknown)],
            &["rules/r.yaml:5:", "error: action `core.echo` has no parameter `txet`; did you mean `text`?"],
        ),
        ("missing parameter", &[("rules/r.yaml", &none)], &["rules/r.yaml:2:9: error: action `core.echo` needs the parameter `text`"]),
        ("later", &[("rules/r.yaml", &correlated)], &["rules/r.yaml:1:1: error: a rule needs the field `events`"]),
        ("half a window", &[("rules/r.yaml", &windowed)], &["rules/r.yaml:2:9: error: `window` needs the field `within`"]),
        (
            "windows that cannot be",
            &[("rules/r.yaml", &windows)],
            &[
                "rules/r.yaml:2:9: error: a window needs `count` and `within`, or `absent_for`",
                "rules/r.yaml:3:11: error: `once_per` must be more than 0 and at most 30d",
                "rules/r.yaml:4:10: error: `ceiling` must be from 1 to 1000000, not 0",
            ],
        ),
        ("a window of nothing", &[("rules/r.yaml", &keyed)], &["rules/r.yaml:2:17: error: `count` must be from 1 to 10000"]),
        (
            "unknown action",
            &[("rules/r.yaml", "trigger: {type: core.webhook}\naction: {ref: core.ecko}\n")],
            &["rules/r.yaml:2:9: error: rule `default.r`: there is no action `core.ecko`", "did you mean `core.echo`?"],
        ),
        (
            "unknown trigger",
            &[("rules/r.yaml", "trigger: {type: core.webhok}\naction: {ref: core.noop}\n")],
            &["rules/r.yaml:1:", "error: rule `default.r`: there is no trigger `core.webhok`", "did you mean `core.webhook`?"],
        ),
        (
            "unknown channel",
            &[("rules/r.yaml", &notify)],
            &["rules/r.yaml:2:", "error: rule `default.r`: there is no channel `opps`", "did you mean `ops`?"],
        ),
        (
            "two of one name",
            &[("rules/r.yaml", &rule("")), ("rules/sub/r.yaml", &rule(""))],
            &["rules/sub/r.yaml: error: there is a rule `default.r` already, in rules/r.yaml", "rename one of the files"],
        ),
        (
            "two actions of one name",
            &[("packs/core/actions/a.yaml", "runner_type: noop\n"), ("packs/core/actions/sub/a.yaml", "runner_type: noop\n")],
            &["packs/core/actions/sub/a.yaml", "there is an action `core.a` already, in packs/core/actions/a.yaml"],
        ),
        (
            "no script",
            &[("packs/core/actions/a.yaml", "runner_type: rhai\n")],
            &["packs/core/actions/a.yaml:1:1: error: the script `packs/core/actions/a.rhai` cannot be read"],
        ),
        (
            "broken script",
            &[("packs/core/actions/a.yaml", "runner_type: rhai\n"), ("packs/core/actions/a.rhai", "fn run(params) {\n    let x = ;\n}\n")],
            &["packs/core/actions/a.rhai:2:13: error: ", "   2 |     let x = ;"],
        ),
        (
            "no run",
            &[("packs/core/actions/a.yaml", "runner_type: rhai\n"), ("packs/core/actions/a.rhai", "fn rum(params) { 1 }\n")],
            &["packs/core/actions/a.rhai: error: the script needs a function `fn run(params)`"],
        ),
        (
            "unknown runner",
            &[("packs/core/actions/a.yaml", "runner_type: rhia\n")],
            &["packs/core/actions/a.yaml:1:14: error: ", "`rhia`", "did you mean `rhai`?"],
        ),
        (
            "unknown type",
            &[("packs/core/actions/a.yaml", "runner_type: noop\nparameters:\n  n: {type: int}\n")],
            &["packs/core/actions/a.yaml:3:13: error: ", "`int`", "integer"],
        ),
        (
            "a secret in the file",
            &[("packs/core/sensors/a.yaml", "kind: webhook\ndecoder: generic\ntrigger: core.webhook\nauth: {bearer: hunter2}\n")],
            &[
                "packs/core/sensors/a.yaml:4:16: error: a secret is never written into a file: use {secret: NAME}, {env: NAME} or {file: PATH}",
            ],
        ),
        (
            "no secret file",
            &[(
                "packs/core/sensors/a.yaml",
                "kind: webhook\ndecoder: generic\ntrigger: core.webhook\nauth: {hmac: {secret: {file: nope}, header: X-S}}\n",
            )],
            &["packs/core/sensors/a.yaml:4:23: error: the secret file `nope` cannot be read"],
        ),
        (
            "a webhook twice",
            &[("packs/links/sensors/generic.yaml", "kind: webhook\ndecoder: generic\ntrigger: core.webhook\nauth: none\n")],
            &["error: the webhook `generic` exists already, in packs/"],
        ),
        (
            "capabilities",
            &[("packs/t/pack.yaml", "ref: t\ncapabilities:\n  htpp: [\"http://a\"]\n  http: [a.example]\n")],
            &[
                "packs/t/pack.yaml:3:3: error: `capabilities` has no field `htpp`",
                "did you mean `http`?",
                "packs/t/pack.yaml:4:10: error: `a.example` is not an address",
            ],
        ),
        ("no pack.yaml", &[("packs/t/actions/a.yaml", "runner_type: noop\n")], &["packs/t/pack.yaml: error: cannot be read"]),
        (
            "no such dependency",
            &[("packs/t/pack.yaml", "ref: t\ndependencies: [coer]\n")],
            &["packs/t/pack.yaml:2:", "there is no pack `coer`", "did you mean `core`?"],
        ),
        (
            "config of no pack",
            &[("signalman.yaml", "config:\n  lniks: {grafana_url: \"http://g\"}\n")],
            &["signalman.yaml:2:", "there is no pack `lniks`", "did you mean `links`?"],
        ),
        (
            "unknown setting",
            &[("signalman.yaml", "config:\n  links: {grafana_ulr: \"http://g\"}\n")],
            &["signalman.yaml:2:", "pack `links` has no setting `grafana_ulr`", "did you mean `grafana_url`?"],
        ),
        (
            "open webhook",
            &[("signalman.yaml", "open_webhooks: [genric]\n")],
            &["signalman.yaml:1:", "there is no webhook `genric`", "did you mean `generic`?"],
        ),
    ];
    let mut wrong = Vec::new();
    for (name, files, words) in cases {
        let site = TestSite::new();
        for (path, text) in *files {
            site.write(path, text);
        }
        let (_, faults) = signalman::pack::load(site.path(), &Environment::default());
        let said = faults.0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        if faults.allow() {
            wrong.push(format!("{name}: the site could run:\n{said}"));
        }
        for word in words.iter().filter(|word| !said.contains(**word)) {
            wrong.push(format!("{name}: `{word}` is missing in:\n{}", said.chars().take(600).collect::<String>()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_link_that_leads_out_of_the_site_is_refused() {
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("a.rhai"), "fn run(params) { 1 }").unwrap();
    std::fs::write(outside.path().join("r.yaml"), "trigger: {type: core.webhook}\naction: {ref: core.noop}\n").unwrap();
    let site = TestSite::new().pack(&[
        ("actions/a.yaml", "runner_type: rhai\n"),
        ("actions/b.yaml", "runner_type: rhai\nentry_point: ../../../../../../../../../../etc/hostname\n"),
    ]);
    std::fs::create_dir(site.path().join("rules")).unwrap();
    symlink(outside.path().join("a.rhai"), site.path().join("packs/t/actions/a.rhai")).unwrap();
    symlink(outside.path().join("r.yaml"), site.path().join("rules/r.yaml")).unwrap();
    let said = String::from_utf8(site.cli(&["lint"]).stdout).unwrap();
    for words in [
        "packs/t/actions/a.yaml:1:1: error: the script `packs/t/actions/a.rhai` leads out of the site folder",
        "packs/t/actions/b.yaml:1:1: error: the script `packs/t/actions/../",
        "rules/r.yaml: error: leads out of the site folder",
        ": 3 errors",
    ] {
        assert!(said.contains(words), "`{words}` is missing in:\n{said}");
    }
}

#[tokio::test]
async fn every_fault_of_every_file_is_told_at_once_and_serve_refuses_with_the_same_text() {
    let site = TestSite::new()
        .file("signalman.yaml", "listen: here\nlimits: {bdoy: 1MiB}\n")
        .file("rules/a.yaml", "trigger: {type: core.webhok}\naction: {ref: core.ecko}\nenabeld: true\n")
        .file("rules/b.yaml", "a: [\n")
        .pack(&[("actions/a.yaml", "runner_type: rhai\ntimeout: soon\n"), ("actions/a.rhai", "fn run(params) { 1 + }\n")]);
    let lint = site.cli(&["lint", "--output", "json"]);
    let answer: Value = serde_json::from_slice(&lint.stdout).unwrap();
    let places: Vec<String> =
        answer["faults"].as_array().unwrap().iter().map(|fault| format!("{}:{}", fault["file"].as_str().unwrap(), fault["line"])).collect();
    for place in
        ["signalman.yaml:1", "signalman.yaml:2", "rules/a.yaml:3", "rules/b.yaml:", "packs/t/actions/a.yaml:2", "packs/t/actions/a.rhai:1"]
    {
        assert!(places.iter().any(|found| found.starts_with(place)), "{place} is missing in {places:?}");
    }
    let text = site.cli(&["lint"]);
    let told = String::from_utf8(text.stdout).unwrap();
    let serve = site.cli(&["serve"]);
    let refused = String::from_utf8(serve.stderr).unwrap();
    assert_eq!((text.status.code(), serve.status.code()), (Some(2), Some(2)));
    assert!(refused.contains("cannot run:"), "{refused}");
    let faults: Vec<&str> = told.trim_end().split("\n\n").collect();
    assert!(faults.len() > 5, "{told}");
    for fault in &faults[..faults.len() - 1] {
        assert!(refused.contains(fault.trim()), "serve does not say:\n{fault}\nbut:\n{refused}");
    }
    assert!(!site.path().join("data").exists(), "nothing was begun");
}

#[tokio::test]
async fn a_data_folder_belongs_to_one_process() {
    let site = TestSite::new();
    let server = Server::start(&site).await;
    let second = site.cli(&["serve"]);
    let said = String::from_utf8(second.stderr).unwrap();
    assert_eq!(second.status.code(), Some(1), "{said}");
    for words in ["data` is in use by process ", &server.pid().to_string(), "stop that process, or give this one another `data` folder"] {
        assert!(said.contains(words), "`{words}` is missing in:\n{said}");
    }
    assert_eq!(server.webhook("generic", "{}").await.0, 202, "the first goes on");
}

#[test]
fn a_data_folder_that_cannot_be_is_told_plainly() {
    let site = TestSite::new().file("data", "a file, not a folder");
    let output = site.cli(&["serve"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("error: ") && said.contains("/data") && said.contains("folder"), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    let missing = site.cli(&["--site", "/nowhere/at/all", "lint"]);
    assert_eq!(missing.status.code(), Some(2), "{missing:?}");
}
