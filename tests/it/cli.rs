//! The command line as a person and a script meet it: words, exit codes, both forms of output.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::harness::{Said, Shell, TestSite, binary, eventually};

/// The command line with exactly these variables of ours.
fn with_environment(variables: &[(&str, &str)], arguments: &[&str]) -> Said {
    let mut command = Command::new(binary());
    command.args(arguments).env_remove("SIGNALMAN_TOKEN").env_remove("SIGNALMAN_SERVER").envs(variables.iter().copied());
    Said::of(command.output().expect("the binary runs"))
}

const RULE: &str = "description: Bring it back\ntrigger: {type: core.webhook}\ncriteria:\n  trigger.n: {type: gt, pattern: 80}\n  trigger.app: {type: exists, pattern: true}\naction:\n  ref: t.scale\n  parameters: {app: \"{{trigger.app}}\", by: \"{{trigger.n}}\"}\n";

fn site() -> TestSite {
    TestSite::new().file("rules/scale.yaml", RULE).pack(&[
        ("actions/scale.yaml", "runner_type: noop\nparameters: {app: {type: string, required: true}, by: {type: integer}}\n"),
        ("actions/fail.yaml", "runner_type: rhai\nparameters: {why: {type: string, default: no luck}}\n"),
        ("actions/fail.rhai", "fn run(params) {\n    log.warn(params.why);\n    throw params.why;\n}\n"),
        ("actions/endless.yaml", "runner_type: rhai\n"),
        ("actions/endless.rhai", "fn run(params) { loop {} }\n"),
    ])
}

#[test]
fn every_command_explains_itself() {
    let mut definition = signalman::cli::definition();
    definition.build();
    let mut paths = Vec::new();
    walk(&definition, &mut Vec::new(), &mut paths);
    assert!(paths.len() >= 15, "{paths:?}");
    for path in paths {
        let mut arguments: Vec<&str> = path.iter().map(String::as_str).collect();
        arguments.push("--help");
        let said = with_environment(&[], &arguments).out(0, &["Usage: signalman", "--site <FOLDER>", "--output"]);
        assert!(!said.out.starts_with("Usage"), "{path:?} does not say what it does:\n{}", said.out);
    }
    with_environment(&[], &["--version"]).out(0, &["signalman "]);
    with_environment(&[], &["rul"]).err(2, &["rul", "'rule'"]);
    with_environment(&[], &["event", "list", "--limt", "3"]).err(2, &["--limt", "--limit"]);
    with_environment(&[], &["event", "list", "--output", "xml"]).err(2, &["xml", "table, json"]);
    with_environment(&[], &[]).err(2, &["Usage: signalman"]);
}

fn walk(command: &clap::Command, path: &mut Vec<String>, paths: &mut Vec<Vec<String>>) {
    for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
        path.push(inner.get_name().to_string());
        assert!(inner.get_about().is_some(), "{path:?} has no about text");
        for argument in inner.get_arguments() {
            assert!(argument.get_help().is_some(), "{path:?}: {} has no help", argument.get_id());
        }
        paths.push(path.clone());
        walk(inner, path, paths);
        path.pop();
    }
}

#[test]
fn lint_answers_with_its_exit_code() {
    let site = site();
    let lint = |arguments: &[&str]| Said::of(site.cli(&[&["lint"], arguments].concat()));
    lint(&[]).out(0, &["6 packs, 8 actions, 1 rules: 0 errors, 0 warnings"]);
    assert_eq!(lint(&["--output", "json"]).out(0, &[]).json(), json!({"errors": 0, "warnings": 0, "faults": []}));
    site.write("workflows/later.yaml", "tasks: {a: {action: core.noop}}\n");
    lint(&[]).out(0, &["workflows/later.yaml: warning: workflows are not carried out by this version", "0 errors, 1 warnings"]);
    lint(&["--strict"]).out(2, &["1 warnings"]);
    site.write("rules/bad.yaml", "trigger: {type: core.webhook}\nactoin: {ref: core.noop}\n");
    lint(&[]).out(2, &["rules/bad.yaml:2:1: error: a rule has no field `actoin`", "did you mean `action`?", "2 errors, 1 warnings"]);
    let fault = lint(&["--output", "json"]).out(2, &[]).json()["faults"][1].clone();
    assert_eq!(
        (&fault["file"], &fault["line"], &fault["column"], &fault["hint"], &fault["warning"]),
        (&json!("rules/bad.yaml"), &json!(2), &json!(1), &json!("did you mean `action`?"), &json!(false)),
        "{fault}"
    );
}

/// A folder that is no site, with a rule and an event in it.
fn rule_test(rule: &str, event: &str, more: &[&str]) -> Said {
    let folder = tempfile::tempdir().unwrap();
    try_rule(folder.path(), rule, event, more)
}

fn try_rule(folder: &Path, rule: &str, event: &str, more: &[&str]) -> Said {
    std::fs::write(folder.join("r.yaml"), rule).unwrap();
    std::fs::write(folder.join("e.json"), event).unwrap();
    let output = Command::new(binary())
        .args(["rule", "test", "--rule", "r.yaml", "--event", "e.json"])
        .args(more)
        .current_dir(folder)
        .output()
        .expect("the binary runs");
    Said::of(output)
}

fn event(payload: &Value) -> String {
    json!({"trigger": "core.webhook", "payload": payload}).to_string()
}

const JSON: &[&str] = &["--output", "json"];

#[test]
fn a_rule_is_tried_on_an_event_without_a_site() {
    let said = rule_test(RULE, &event(&json!({"n": 90, "app": "shop"})), JSON);
    let said = said.err(0, &["warning: the action `t.scale` is not found", "--site"]);
    let criterion = |key: &str, operator: &str, pattern: Value, value: Value, held: bool, error: Value| json!({"key": key, "operator": operator, "pattern": pattern, "value": value, "held": held, "error": error});
    let there = |value: &str| criterion("trigger.app", "exists", json!(true), json!(value), true, Value::Null);
    let answer = said.json();
    assert_eq!((&answer["matched"], &answer["reason"], &answer["not_applied"]), (&json!(true), &json!("matched"), &json!([])));
    assert_eq!(answer["criteria"], json!([criterion("trigger.n", "greaterthan", json!(80), json!(90), true, Value::Null), there("shop")]));
    assert_eq!(
        (&answer["action"]["ref"], &answer["action"]["parameters"], &answer["action"]["cast"]),
        (&json!("t.scale"), &json!({"app": "shop", "by": "90"}), &json!(false)),
        "an action that is not found leaves the parameters uncast"
    );

    let answer = rule_test(RULE, &event(&json!({"n": 70, "app": "shop"})), JSON).err(1, &[]).json();
    assert_eq!((&answer["matched"], &answer["reason"], &answer["action"]), (&json!(false), &json!("criteria_not_held"), &Value::Null));
    assert_eq!(answer["criteria"][0]["held"], false);

    let answer = rule_test(RULE, &event(&json!({"n": "90", "app": "shop"})), JSON).err(1, &[]).json();
    assert_eq!((&answer["matched"], &answer["reason"]), (&json!(false), &json!("criterion_failed")));
    let error = json!("`greaterthan` cannot compare string with integer");
    assert_eq!(answer["criteria"][0], criterion("trigger.n", "greaterthan", json!(80), json!("90"), false, error));

    let other = json!({"trigger": "core.interval", "payload": {"n": 90}}).to_string();
    let answer = rule_test(RULE, &other, JSON).err(1, &[]).json();
    assert_eq!((&answer["matched"], &answer["reason"]), (&json!(false), &json!("other_trigger")));
    let disabled = format!("enabled: false\n{RULE}");
    let answer = rule_test(&disabled, &event(&json!({"n": 90, "app": "shop"})), JSON).err(1, &[]).json();
    assert_eq!(answer["reason"], "disabled");

    let people = rule_test(RULE, &event(&json!({"n": 70, "app": "shop"})), &[])
        .out(1, &["✘ default.r: criteria_not_held", "✘ trigger.n greaterthan 80, saw 70", "✔ trigger.app exists true, saw \"shop\""]);
    assert!(people.err.is_empty(), "{}", people.err);
    rule_test(RULE, &event(&json!({"n": 90, "app": "shop"})), &[])
        .out(0, &["✔ default.r: matched", "would run t.scale {\"app\":\"shop\",\"by\":\"90\"}"]);
}

#[test]
fn a_rule_is_tried_at_a_given_time() {
    let rule = "trigger: {type: core.webhook}\nwhen: <% now == \"2026-11-20T07:00:00.000Z\" %>\naction: {ref: core.echo, parameters: {text: \"{{event.occurred_at}} {{now}}\"}}\n";
    let at = |time: &str| rule_test(rule, &event(&json!({"a": 1})), &["--now", time, "--output", "json"]);
    let answer = at("2026-11-20T07:00:00Z").err(0, &[]).json();
    assert_eq!(answer["action"]["parameters"]["text"], "2026-11-20T07:00:00.000Z 2026-11-20T07:00:00.000Z");
    assert_eq!(at("2026-11-20T15:00:00+08:00").err(0, &[]).json()["matched"], true, "any zone");
    assert_eq!(at("2026-11-20T07:00:01Z").err(1, &[]).json()["reason"], "guard_not_held");
    at("yesterday").err(2, &["'yesterday'", "--now"]);
}

#[test]
fn what_the_loader_would_refuse_is_no_rule_to_try() {
    let good = event(&json!({"n": 90, "app": "shop"}));
    let cases: &[(&str, &str, &[&str])] = &[
        ("trigger: {type: core.webhook\n", &good, &["the rule cannot be loaded", "r.yaml:", "not valid YAML"]),
        (
            "trigger: {type: core.webhook}\nactoin: {}\n",
            &good,
            &["r.yaml:2:1: error: a rule has no field `actoin`", "did you mean `action`?", "needs the field `action`"],
        ),
        (
            "trigger: {type: core.webhook}\ncriteria:\n  trigger.n: {type: equal, pattern: 1}\naction: {ref: a.b}\n",
            &good,
            &["r.yaml:3:21: error: there is no operator `equal`", "did you mean `equals`?"],
        ),
        ("trigger: {type: core.webhook}\nwhen: <% triger.n %>\naction: {ref: a.b}\n", &good, &["r.yaml:2:7: error:", "triger"]),
        (
            "trigger: {type: core.webhook}\nwindow: {count: 3, absent_for: 5m}\naction: {ref: a.b}\n",
            &good,
            &["r.yaml:2:9: error: a window either counts (`count` and `within`) or waits for silence (`absent_for`), not both"],
        ),
        (RULE, "{\"trigger\": \"core.webhook\",}", &["`e.json`: not JSON", "(line 1, column"]),
        (RULE, "[1]", &["`e.json`: must be an object with `trigger` and `payload`"]),
        (RULE, "{\"payload\": {}}", &["`e.json`: `trigger` must be text"]),
        (RULE, "{\"trigger\": \"core.webhook\"}", &["`e.json`: `payload` is missing"]),
        (RULE, "{\"trigger\": \"core.webhook\", \"payload\": {}, \"triger\": 1}", &["`e.json`: has no field `triger`"]),
        (RULE, "{\"trigger\": \"core.webhook\", \"payload\": {\"n\": 1e999}}", &["`e.json`", "the number `1e999` is out of range"]),
    ];
    for (rule, event, words) in cases {
        let said = rule_test(rule, event, JSON).err(2, words);
        assert_eq!(said.out, "", "{rule}{event}");
    }
    with_environment(&[], &["rule", "test", "--rule", "/nowhere.yaml", "--event", "/nowhere.json"])
        .err(2, &["`/nowhere.yaml` cannot be read"]);
}

#[test]
fn what_the_api_would_refuse_is_no_event_to_try() {
    for payload in ["[1]", "7", "\"text\""] {
        let event = format!("{{\"trigger\": \"core.webhook\", \"payload\": {payload}}}");
        rule_test(RULE, &event, JSON).err(2, &["`e.json`", "`payload` must be a JSON object"]);
    }
}

#[test]
fn a_rule_of_a_site_is_tried_with_the_action_it_names() {
    let site = site();
    let good = event(&json!({"n": 90, "app": "shop"}));
    let rules = site.path().join("rules");
    let answer = try_rule(&rules, RULE, &good, JSON).err(0, &[]);
    assert_eq!(
        (answer.err.as_str(), &answer.json()["action"]),
        ("", &json!({"ref": "t.scale", "parameters": {"app": "shop", "by": 90}, "cast": true, "error": null}))
    );
    let outside = tempfile::tempdir().unwrap();
    let answer = try_rule(outside.path(), RULE, &good, &["--output", "json", "--site", site.path().to_str().unwrap()]).err(0, &[]).json();
    assert_eq!(answer["action"]["parameters"], json!({"app": "shop", "by": 90}));

    let answer = try_rule(&rules, RULE, &event(&json!({"n": 90.5, "app": "shop"})), JSON).err(0, &[]).json();
    assert_eq!(answer["action"]["cast"], false);
    assert!(answer["action"]["error"].as_str().unwrap().contains("parameter `by` must be of type integer"), "{answer}");
}

#[test]
fn what_the_loader_of_the_site_would_refuse_is_no_rule_to_try() {
    let site = site();
    let (good, rules) = (event(&json!({"n": 90, "app": "shop"})), site.path().join("rules"));
    let unknown = RULE.replace("by:", "bye:");
    try_rule(&rules, &unknown, &good, JSON).err(2, &["r.yaml:8:", "action `t.scale` has no parameter `bye`", "did you mean `by`?"]);
}

#[tokio::test]
async fn events_and_why() {
    let shell = Shell::start(site()).await;
    shell.say(&["event", "list"]).out(0, &["no events yet; post one to a webhook, or try `signalman emit`"]);
    shell.say(&["execution", "list"]).out(0, &["no executions yet; try `signalman run core.echo text=hi`"]);
    let matched = shell.say(&["emit", "core.webhook", "app=shop", "n:=90", "--key", "shop-1"]).out(0, &["event "]).out;
    let matched = matched.trim().rsplit(' ').next().unwrap().to_string();
    let not = shell.json(&["emit", "core.webhook", "--payload", "{\"app\": \"shop\", \"n\": 7}"])["id"].as_str().unwrap().to_string();
    let short = |id: &str| id[20..].to_string();

    let listed = shell.say(&["event", "list"]).out(0, &["ID", "RECEIVED", "TRIGGER", "KEY", "OUTCOME"]).out;
    let line = |id: &str| listed.lines().find(|line| line.starts_with(&short(id))).unwrap_or_else(|| panic!("{listed}")).to_string();
    assert!(line(&matched).contains("core.webhook  shop-1  default.scale matched"), "{listed}");
    assert!(line(&not).ends_with("no rule matched"), "{listed}");
    assert_eq!(shell.json(&["event", "list", "--limit", "1"])["events"][0]["event"]["id"], not.as_str());
    assert_eq!(shell.json(&["event", "list", "--before", &not])["events"][0]["event"]["id"], matched.as_str());

    assert_eq!(shell.say(&["event", "show", &short(&matched)]).out(0, &[]).json()["event"]["payload"], json!({"app": "shop", "n": 90}));
    assert_eq!(shell.json(&["event", "show", &short(&matched).to_lowercase()])["event"]["id"], matched.as_str());
    shell
        .say(&["event", "why", &short(&matched)])
        .out(0, &["✔ default.scale: matched", "✔ trigger.n greaterthan 80, saw 90", "ran execution "]);
    shell
        .say(&["event", "why", &short(&not)])
        .out(0, &["✘ default.scale: criteria_not_held", "✘ trigger.n greaterthan 80, saw 7", "→ Look at the values"]);
    assert_eq!(shell.json(&["event", "why", &not])["rules"][0]["criteria"][0]["value"], 7);

    shell.say(&["rule", "list"]).out(0, &["default.scale", "active", "core.webhook", "t.scale", "rules/scale.yaml"]);
    assert_eq!(shell.json(&["rule", "list"])["rules"][0]["ref"], "default.scale");
    shell.say(&["rule", "why", "default.scale", &short(&matched)]).out(0, &["✔ default.scale: matched"]);
    shell.say(&["rule", "why", "default.scale", &short(&not)]).out(1, &["✘ default.scale: criteria_not_held"]);
    assert_eq!(shell.json(&["rule", "why", "default.scale", &not])["reason"], "criteria_not_held");
    shell.say(&["rule", "why", "default.scael", &matched]).err(1, &["there is no rule `default.scael`", "did you mean `default.scale`?"]);
    shell.say(&["event", "show", "ZZZZZZ"]).err(1, &["no recent event whose id ends in `ZZZZZZ`", "give the whole id"]);
    shell.say(&["event", "list", "--limit", "0"]).err(2, &["`limit` must be from 1 to 1000"]);

    let first = shell.json(&["emit", "core.webhook", "n:=1", "--dedup-key", "d"])["id"].as_str().unwrap().to_string();
    shell.say(&["emit", "core.webhook", "n:=1", "--dedup-key", "d"]).out(0, &[&format!("event {first} (a repeat of an earlier one)")]);
    shell.say(&["emit", "core.webhook", "n:=2", "--dedup-key", "d"]).err(2, &["`d`", "another body"]);
    shell.say(&["emit", "core.webhok", "a=1"]).err(1, &["there is no trigger `core.webhok`", "did you mean `core.webhook`?"]);
    shell.say(&["emit", "core.webhook", "--payload", "{"]).err(2, &["the payload is not JSON"]);
    shell.say(&["emit", "core.webhook", "--payload", "[1]"]).err(2, &["`payload` must be a JSON object"]);
}

#[tokio::test]
async fn what_is_no_id_or_address_is_told() {
    let shell = Shell::start(site()).await;
    for wrong in ["12", "a b", "a/b", "a?b", "a#b", "../rules", ""] {
        let refused =
            [&["event", "show", wrong][..], &["event", "why", wrong], &["execution", "get", wrong], &["execution", "cancel", wrong]];
        for command in refused {
            shell.say(command).err(2, &[&format!("`{wrong}` is not an id"), "the last 6"]);
        }
    }
    let token = [("SIGNALMAN_TOKEN", "t")];
    with_environment(&token, &["event", "list", "--server", "nonsense"]).err(2, &["`nonsense` is not an address"]);
}

#[tokio::test]
async fn running_actions() {
    let shell = Shell::start(site()).await;
    let done = shell.say(&["run", "t.scale", "app=shop", "by:=2"]).out(0, &["action           t.scale", "status           succeeded"]);
    assert!(done.out.contains("\"by\": 2"), "{}", done.out);
    assert_eq!(shell.json(&["run", "t.scale", "app=a=b", "by=3"])["result"], json!({"app": "a=b", "by": 3}));
    let failed = shell.say(&["run", "t.fail", "--output", "json"]).out(1, &[]).json();
    assert_eq!((&failed["status"], &failed["reason"]), (&json!("failed"), &json!("action_failed")));
    let id = failed["id"].as_str().unwrap();
    shell
        .say(&["run", "t.fail", "why=bad luck"])
        .out(1, &["status           failed", "packs/t/actions/fail.rhai:3:5: bad luck", "warn bad luck"]);
    shell.say(&["run", "t.scael"]).err(1, &["there is no action `t.scael`", "did you mean `t.scale`?"]);
    shell.say(&["run", "t.scale"]).err(2, &["parameter `app` is required"]);
    shell
        .say(&["run", "t.scale", "app:=7", "by=x"])
        .err(2, &["parameter `app` must be of type string", "quote it", "parameter `by` must be of type integer"]);
    shell.say(&["run", "t.scale", "app"]).err(2, &["`app` is not name=value"]);
    shell.say(&["run", "t.scale", "app:=shop"]).err(2, &["`shop` for `app` is not JSON"]);
    shell.say(&["run", "t.scale", "app=a", "app=b"]).err(2, &["`app` is given twice"]);

    let listed = shell.say(&["execution", "list"]).out(0, &["ID", "STATUS", "REASON", "token admin"]).out;
    assert!(listed.lines().any(|line| line.starts_with(&id[20..]) && line.contains("t.fail   failed")), "{listed}");
    shell.say(&["execution", "list", "--status", "failed"]).out(0, &["t.fail"]);
    assert_eq!(shell.json(&["execution", "list", "--status", "failed"])["executions"].as_array().unwrap().len(), 2);
    shell.say(&["execution", "get", &id[20..]]).out(0, &[id, "fail.rhai:3:5: no luck"]);
    assert_eq!(shell.json(&["execution", "get", &id[20..]])["id"], id);
    shell.say(&["execution", "get", "ZZZZZZ"]).err(1, &["no recent execution whose id ends in `ZZZZZZ`"]);
    shell.say(&["execution", "cancel", &id[20..]]).err(1, &["has ended: failed"]);

    let endless = shell.say(&["run", "t.endless", "--detach", "--output", "json"]).out(0, &[]).json()["id"].as_str().unwrap().to_string();
    shell.say(&["execution", "cancel", &endless[20..]]).out(0, &[&endless]);
    let ended = shell.server.ended(&endless).await;
    assert_eq!((&ended["status"], &ended["error"]), (&json!("canceled"), &json!("canceled by token admin")));
}

#[tokio::test]
async fn chat_shows_messages_as_they_come() {
    let shell = Shell::start(site()).await;
    assert_eq!(shell.say(&["chat"]).out(0, &[]).out, "");
    shell.server.run("core.notify", json!({"channel": "ops", "text": "first\nsecond line"})).await;
    shell.say(&["chat"]).out(0, &["#ops  first\n             second line\n"]);
    assert_eq!(shell.say(&["chat", "--channel", "other"]).out(0, &[]).out, "");
    assert_eq!(shell.json(&["chat"])["text"], "first\nsecond line");

    let mut follower = Command::new(binary())
        .arg("--site")
        .arg(shell.site.path())
        .args(["chat", "--follow", "--server", &shell.server.url])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let shown = Arc::new(Mutex::new(Vec::new()));
    let (kept, output) = (Arc::clone(&shown), follower.stdout.take().unwrap());
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            kept.lock().unwrap().push(line);
        }
    });
    let is_shown = |text: &str| shown.lock().unwrap().iter().filter(|line| line.ends_with(text)).count();
    eventually("the earlier message", || async { (is_shown("#ops  first") == 1).then_some(()) }).await;
    // The stream opens a moment after that; what is said from then on is shown at once.
    let mut number = 0;
    eventually("a live message", || {
        number += 1;
        let text = format!("live {number}");
        let (server, is_shown) = (&shell.server, &is_shown);
        async move {
            server.run("core.notify", json!({"channel": "ops", "text": text})).await;
            (is_shown(&text) == 1).then_some(())
        }
    })
    .await;
    follower.kill().unwrap();
    follower.wait().unwrap();
    reader.join().unwrap();
    assert_eq!(is_shown("#ops  first"), 1, "nothing is shown twice");
}

#[tokio::test]
async fn data_does_not_steer_the_terminal() {
    let shell = Shell::start(site()).await;
    let evil = "a\u{1b}]0;owned\u{7}\u{1b}[2J\u{9b}31m\r\u{8}b";
    shell.server.run("core.notify", json!({"channel": "ops", "text": evil})).await;
    let event = json!({"trigger": "core.webhook", "payload": {"app": evil, "n": evil}, "key": evil});
    let id = shell.server.post("/api/v1/events", &event).await.1["id"].as_str().unwrap().to_string();
    let alert = json!({"version": "4", "alerts": [{"status": evil}]});
    let rejected = shell.server.webhook("alertmanager", alert.to_string()).await.1["events"][0]["id"].as_str().unwrap().to_string();
    let failed = shell.server.run("t.fail", json!({"why": evil})).await["id"].as_str().unwrap().to_string();
    let commands: &[&[&str]] = &[
        &["chat"],
        &["event", "list"],
        &["event", "why", &id],
        &["event", "why", &rejected],
        &["rule", "why", "default.scale", &id],
        &["execution", "list"],
        &["execution", "get", &failed],
        &["run", "t.fail", &format!("why={evil}")],
        &["run", &format!("t.{evil}")],
    ];
    let mut raw = Vec::new();
    for command in commands {
        let said = shell.say(command);
        let text = format!("{}{}", said.out, said.err);
        assert!(!text.is_empty(), "{command:?}");
        if let Some(found) = text.chars().find(|c| c.is_control() && *c != '\n') {
            raw.push(format!("{command:?} prints {found:?}"));
        }
    }
    assert!(raw.is_empty(), "{}", raw.join("\n"));
}

#[tokio::test]
async fn without_a_server_the_message_says_what_to_do() {
    let site = site();
    for command in
        [&["event", "list"][..], &["execution", "list"], &["rule", "list"], &["chat"], &["run", "core.noop"], &["emit", "core.webhook"]]
    {
        Said::of(site.cli(command)).err(1, &["error: no token", "set SIGNALMAN_TOKEN"]);
        let dead = [command, &["--server", "http://127.0.0.1:1"]].concat();
        with_environment(&[("SIGNALMAN_TOKEN", "t")], &dead)
            .err(1, &["no answer from http://127.0.0.1:1", "start it with `signalman serve`, or name another with --server"]);
    }
    let shell = Shell::start(site).await;
    let (url, token) = (shell.server.url.as_str(), shell.server.token.as_str());
    with_environment(&[("SIGNALMAN_TOKEN", token)], &["event", "list", "--server", url]).out(0, &["no events yet"]);
    with_environment(&[("SIGNALMAN_TOKEN", token), ("SIGNALMAN_SERVER", url)], &["event", "list"]).out(0, &["no events yet"]);
    with_environment(&[("SIGNALMAN_TOKEN", token)], &["event", "list", "--server", &format!("{url}/")]).out(0, &["no events yet"]);
    let wrong = with_environment(&[("SIGNALMAN_TOKEN", "wr0ng-t0ken")], &["event", "list", "--server", url]).err(1, &["a token is needed"]);
    assert!(!wrong.err.contains("wr0ng-t0ken"), "{}", wrong.err);
}
