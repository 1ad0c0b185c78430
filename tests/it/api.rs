//! The API as a program meets it: the table of routes, methods, permissions, and what every answer has in common.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};
use signalman::api::{openapi, routes};
use signalman::auth::permission::Permission;

use crate::harness::{Server, TestSite};

async fn ask(server: &Server, method: &str, path: &str, token: Option<&str>) -> reqwest::Response {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut request = client.request(Method::from_bytes(method.as_bytes()).unwrap(), format!("{}{path}", server.url));
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    request.send().await.expect("the server answers")
}

#[test]
fn no_address_has_a_method_twice() {
    let mut seen = BTreeSet::new();
    for route in routes::all() {
        assert!(seen.insert((route.path, route.method.name())), "{} {} twice", route.method.name(), route.path);
        assert!(!route.summary.is_empty() && !route.summary.ends_with('.'), "{}", route.summary);
    }
}

#[tokio::test]
async fn every_route_asks_for_its_token_and_refuses_what_its_query_does_not_know() {
    let site = TestSite::new();
    let server = Server::start(&site).await;
    for route in routes::all().filter(|route| route.permission != Permission::Open) {
        let path = route.path.replace(['{', '}'], "x");
        let what = format!("{} {path}", route.method.name());
        for token in [None, Some("wrong")] {
            let response = ask(&server, route.method.name(), &path, token).await;
            assert_eq!(response.status(), 401, "{what}");
            assert_eq!(response.headers()["www-authenticate"], "Bearer", "{what}");
        }
        let response = ask(&server, route.method.name(), &format!("{path}?lmit=3"), Some(&server.token)).await;
        assert_eq!(response.status(), 400, "{what}");
        let problem: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
        assert_eq!(problem["errors"][0]["field"], "lmit", "{what}: {problem}");
        let detail = problem["detail"].as_str().unwrap();
        let says = if route.query.is_empty() { "this address takes none" } else { "did you mean `limit`?" };
        assert!(detail.contains(says) || !route.query.iter().any(|parameter| parameter.name == "limit"), "{what}: {detail}");
    }
}

#[tokio::test]
async fn an_address_says_which_methods_it_has() {
    let site = TestSite::new();
    let server = Server::start(&site).await;
    for (path, allow) in [
        ("/healthz", "GET, HEAD, OPTIONS"),
        ("/api/v1/events", "GET, HEAD, OPTIONS, POST"),
        ("/api/v1/keys/a", "DELETE, GET, HEAD, OPTIONS, PUT"),
    ] {
        let response = ask(&server, "PATCH", path, Some(&server.token)).await;
        assert_eq!((response.status().as_u16(), response.headers()["allow"].to_str().unwrap()), (405, allow), "{path}");
        let response = ask(&server, "OPTIONS", path, None).await;
        assert_eq!((response.status().as_u16(), response.headers()["allow"].to_str().unwrap()), (204, allow), "{path}");
    }
    let response = ask(&server, "HEAD", "/api/v1/rules", Some(&server.token)).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.text().await.unwrap(), "", "a head has no body");
    assert_eq!(ask(&server, "HEAD", "/api/v1/rules", None).await.status(), 401);
}

/// Everything that a schema may hold is named in it: nothing else may come.
fn strict(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if fields.contains_key("properties") {
                fields.insert("additionalProperties".into(), false.into());
            }
            fields.values_mut().for_each(strict);
        }
        Value::Array(items) => items.iter_mut().for_each(strict),
        _ => {}
    }
}

fn validator(document: &Value, schema: &str) -> jsonschema::Validator {
    let mut components = document["components"].clone();
    strict(&mut components);
    let root = json!({"$ref": format!("#/components/schemas/{schema}"), "components": components});
    jsonschema::validator_for(&root).unwrap_or_else(|error| panic!("{schema}: {error}"))
}

#[test]
fn the_document_is_openapi() {
    let document = openapi::document();
    assert_eq!(document["openapi"], "3.1.0");
    assert!(document["info"]["title"].is_string() && document["info"]["version"].is_string());
    let schemas = document["components"]["schemas"].as_object().unwrap();
    for (name, schema) in schemas {
        assert!(jsonschema::meta::is_valid(schema), "{name} is no JSON Schema: {schema}");
        let _ = validator(document, name);
    }
    let mut used: BTreeSet<String> = BTreeSet::new();
    references(document, &mut used);
    for name in &used {
        let name = name.strip_prefix("#/components/schemas/").unwrap();
        assert!(schemas.contains_key(name), "there is no schema {name}");
    }
    let mut ids = BTreeSet::new();
    for route in routes::all() {
        let operation = &document["paths"][route.path][route.method.name().to_lowercase()];
        assert!(ids.insert(operation["operationId"].as_str().unwrap().to_string()), "{} twice", operation["operationId"]);
        assert!(operation["summary"].is_string() && operation["x-permission"] == route.permission.name());
        for (status, response) in operation["responses"].as_object().unwrap() {
            assert!(status.parse::<u16>().is_ok() && response["description"].is_string(), "{}: {response}", route.path);
            for (media, content) in response["content"].as_object().unwrap() {
                assert!(media.contains('/') && content.is_object(), "{}: {media}", route.path);
            }
        }
        let parameters = operation["parameters"].as_array().unwrap();
        let in_path: Vec<&str> = parameters
            .iter()
            .filter(|one| one["in"] == "path" && one["required"] == true)
            .map(|one| one["name"].as_str().unwrap())
            .collect();
        let expected: Vec<&str> = route.path.split('{').skip(1).map(|rest| rest.split('}').next().unwrap()).collect();
        assert_eq!(in_path, expected, "{}", route.path);
        let json_answer = route.media == "application/json";
        assert_eq!(route.answer.is_some(), json_answer, "{} {} needs a schema", route.method.name(), route.path);
    }
}

fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get("$ref").and_then(Value::as_str).map(ToString::to_string));
            fields.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

#[tokio::test]
async fn every_answer_is_as_its_schema_says() {
    let site = TestSite::new().file(
        "rules/r.yaml",
        "trigger: {type: core.webhook}\nwhen: <% kv.system.limit != 3 %>\nwindow: {count: 1, within: 1m, by: \"{{trigger.a}}\"}\naction: {ref: core.echo, parameters: {text: hi}}\nnotify: {channel: ops, on: [succeeded]}\n",
    );
    site.write("signalman.yaml", "listen: 127.0.0.1:0\nchat: {console: {kind: console}}\nchannels: {ops: {adapter: console, to: ops}}\n");
    let server = Server::start(&site).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let put = client.put(format!("{}/api/v1/keys/limit", server.url)).bearer_auth(&server.token).body("{\"value\": 4}");
    assert_eq!(put.send().await.unwrap().status(), 200);
    let event = server.webhook("generic", "{\"a\": 1}").await.1["events"][0]["id"].as_str().unwrap().to_string();
    server.webhook("alertmanager", json!({"version": "4", "alerts": [{"status": "odd"}]}).to_string()).await;
    let execution = server.run("core.notify", json!({"channel": "ops", "text": "hi"})).await["id"].as_str().unwrap().to_string();
    server.post(&format!("/api/v1/executions/{execution}/rerun"), &json!({"parameters": {"text": "again"}})).await;
    server.post("/api/v1/rules/default.r/disable", &Value::Null).await;
    server.post("/api/v1/hold", &json!({"reason": "a drill"})).await;
    let document = server.get("/api/v1/openapi.json").await.1;
    assert_eq!(&document, openapi::document());
    let filled = |path: &str| match path.split('{').nth(1).and_then(|rest| rest.split('}').next()) {
        None => path.to_string(),
        Some(_) => {
            let of = if path.contains("/executions/") { &execution } else { &event };
            path.replace("{id}", of)
                .replace("{event}", &event)
                .replace("{rule}", "default.r")
                .replace("{ref}", "core.notify")
                .replace("{sensor}", "core.generic")
                .replace("{name}", "limit")
        }
    };
    let mut checked = 0;
    for route in routes::all().filter(|route| route.method == routes::Method::Get) {
        let Some(schema) = route.answer else { continue };
        let path = filled(route.path);
        let (status, answer) = server.get(&path).await;
        assert_eq!(status, 200, "{path}: {answer}");
        let wrong: Vec<String> =
            validator(&document, schema).iter_errors(&answer).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(wrong.is_empty(), "GET {path} is not as src/api/schemas.yaml says of {schema}:\n{}\n{answer:#}", wrong.join("\n"));
        checked += 1;
    }
    assert!(checked >= 18, "{checked}");
    for (path, body, schema) in [
        ("/api/v1/events".to_string(), json!({"trigger": "core.webhook", "payload": {}}), "Accepted"),
        ("/api/v1/executions".into(), json!({"action": "core.echo", "parameters": {"text": "hi"}}), "Execution"),
        (format!("/api/v1/executions/{execution}/rerun"), json!({}), "Execution"),
        ("/api/v1/rules/default.r/enable".into(), Value::Null, "RuleSwitched"),
        (
            "/api/v1/rules/test".into(),
            json!({"rule": "trigger: {type: core.webhook}\naction: {ref: core.noop}\n", "since": "1h", "file": "x.yaml"}),
            "Rehearsal",
        ),
        ("/api/v1/hold".into(), json!({"reason": "a drill"}), "HoldState"),
        ("/api/v1/release".into(), Value::Null, "HoldState"),
        ("/api/v1/reload".into(), Value::Null, "Reloaded"),
    ] {
        let (status, answer) = server.post(&path, &body).await;
        assert!((200..300).contains(&status), "{path}: {answer}");
        let wrong: Vec<String> =
            validator(&document, schema).iter_errors(&answer).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(wrong.is_empty(), "POST {path}: {}\n{answer:#}", wrong.join("\n"));
    }
    for (path, status) in [
        ("/api/v1/nothing", 404),
        ("/api/v1/events?limit=0", 400),
        ("/api/v1/events/ZZZZZZ", 404),
        ("/api/v1/executions?status=runing", 400),
    ] {
        let (answered, problem) = server.get(path).await;
        assert_eq!(answered, status, "{path}: {problem}");
        let wrong: Vec<String> = validator(&document, "Problem").iter_errors(&problem).map(|error| error.to_string()).collect();
        assert!(wrong.is_empty(), "{path}: {}\n{problem:#}", wrong.join("\n"));
    }
}

#[tokio::test]
async fn every_answer_names_its_request_and_a_problem_which_one_had_it() {
    let site = TestSite::new();
    let server = Server::start(&site).await;
    let response = ask(&server, "GET", "/api/v1/rules", Some(&server.token)).await;
    assert_eq!(response.headers()["x-request-id"].len(), 26);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = client.get(format!("{}/api/v1/nothing", server.url)).header("x-request-id", "mine-7");
    let response = request.send().await.unwrap();
    assert_eq!(response.headers()["x-request-id"], "mine-7");
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let problem: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
    assert_eq!(
        (&problem["instance"], &problem["type"]),
        (&json!("urn:signalman:request:mine-7"), &json!("urn:signalman:problem:not-found"))
    );
    let request = client.get(format!("{}/healthz", server.url)).header("x-request-id", "no spaces, please");
    assert_eq!(request.send().await.unwrap().headers()["x-request-id"].len(), 26, "one that is not plain is not taken");
}

#[tokio::test]
async fn a_page_of_large_events_ends_before_it_is_large() {
    let site = TestSite::new();
    let server = Server::start(&site).await;
    let text = "x".repeat(900_000);
    let mut sent = Vec::new();
    for n in 0..12 {
        let body = json!({"n": n, "text": text}).to_string();
        sent.push(server.webhook("generic", body).await.1["events"][0]["id"].as_str().unwrap().to_string());
    }
    let (mut seen, mut before, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let (status, page) = server.get(&format!("/api/v1/events?limit=1000{before}")).await;
        assert_eq!(status, 200);
        let events = page["events"].as_array().unwrap();
        assert!((1..=5).contains(&events.len()), "{} events in a page", events.len());
        seen.extend(events.iter().map(|event| event["event"]["id"].as_str().unwrap().to_string()));
        pages += 1;
        match page["next"].as_str() {
            Some(next) => before = format!("&before={next}"),
            None => break,
        }
    }
    seen.reverse();
    assert_eq!(seen, sent, "each once");
    assert!(pages >= 3, "{pages}");
    let (_, few) = server.get("/api/v1/events?limit=1000&since=2000-01-01T00:00:00Z&key=none").await;
    assert_eq!((few["events"].as_array().unwrap().len(), &few["next"]), (0, &Value::Null));
    assert_eq!(server.get("/api/v1/events?since=yesterday").await.0, 400);
}

#[tokio::test]
async fn lists_are_filtered() {
    let site = TestSite::new().file("rules/r.yaml", "trigger: {type: core.webhook}\naction: {ref: core.echo, parameters: {text: hi}}\n");
    let server = Server::start(&site).await;
    for n in 0..3 {
        server.post("/api/v1/events", &json!({"trigger": "core.webhook", "payload": {"n": n}, "key": format!("k{n}")})).await;
    }
    server.run("core.noop", json!({})).await;
    let count = |answer: &Value, list: &str| answer[list].as_array().unwrap_or_else(|| panic!("{answer}")).len();
    for (path, list, expected) in [
        ("/api/v1/events?key=k1", "events", 1),
        ("/api/v1/events?rule=default.r", "events", 3),
        ("/api/v1/events?source=webhook/generic", "events", 0),
        ("/api/v1/events?since=1h&trigger=core.webhook", "events", 3),
        ("/api/v1/executions?rule=default.r", "executions", 3),
        ("/api/v1/executions?action=core.noop", "executions", 1),
        ("/api/v1/executions?action=core.noop&rule=default.r", "executions", 0),
        ("/api/v1/executions?status=succeeded&action=core.noop", "executions", 1),
    ] {
        let (status, answer) = server.get(path).await;
        assert_eq!((status, count(&answer, list)), (200, expected), "{path}");
        assert_eq!(answer["next"], Value::Null, "{path}");
    }
    let (_, page) = server.get("/api/v1/executions?limit=2").await;
    let (_, rest) = server.get(&format!("/api/v1/executions?limit=2&before={}", page["next"].as_str().unwrap())).await;
    assert_eq!((count(&page, "executions"), count(&rest, "executions")), (2, 2));
}
