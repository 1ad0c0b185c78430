//! Pack tests as their authors see them: what a failure of each kind says, time that takes no time, reports, watching, and a new pack that
//! passes its own tests.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::harness::{Said, TestSite, binary, eventually, repository};

const SCALE: &str = r#"fn run(params) {
    let app = http.get(`${config.url}/v2/apps/${params.app}`).json().app;
    let target = app.instances + params.by;
    log.info(`scaling ${params.app} from ${app.instances} to ${target}`);
    if target > 10 {
        throw "too many";
    }
    let reply = http.put(`${config.url}/v2/apps/${params.app}`, #{ json: #{ instances: target } });
    kv.set("last", target);
    chat.send("ops", `scaled ${params.app}`);
    #{ id: reply.json().id, before: app.instances, after: target }
}
"#;

/// A site with the pack `shop` and one test file.
fn shop(tests: &str) -> TestSite {
    TestSite::new()
        .file(
            "packs/shop/pack.yaml",
            "ref: shop\ndependencies: [core]\nconfig_schema: {url: {type: string, required: true}}\n\
             capabilities: {http: [\"{{config.url}}\"], kv: read_write, chat: true}\n",
        )
        .file(
            "packs/shop/actions/scale.yaml",
            "runner_type: rhai\nparameters: {app: {type: string, required: true}, by: {type: integer, default: 1}}\n",
        )
        .file("packs/shop/actions/scale.rhai", SCALE)
        .file("packs/shop/triggers/load.yaml", "description: How busy an app is\n")
        .file(
            "packs/shop/rules/busy.yaml",
            "trigger: {type: shop.load}\ncriteria: {trigger.cpu: {type: greaterthan, pattern: 80}}\n\
             action: {ref: shop.scale, parameters: {app: \"{{trigger.app}}\", by: 2}}\n",
        )
        .file(
            "packs/shop/rules/silent.yaml",
            "trigger: {type: shop.load}\nwindow: {absent_for: 3h, by: \"{{trigger.app}}\"}\nmode: shadow\n\
             action: {ref: shop.scale, parameters: {app: \"{{trigger.app}}\"}}\n",
        )
        .file("packs/shop/tests/all.yaml", &format!("config: {{url: \"http://m.test\"}}\ncases:\n{tests}"))
}

fn test(site: &TestSite, arguments: &[&str]) -> Said {
    Said::of(site.cli(&[&["pack", "test", "shop"], arguments].concat()))
}

/// What the only case, which fails, says between its first line and the one that tells how to play it again.
fn told(case: &str) -> String {
    let site = shop(case);
    let said = test(&site, &[]).out(1, &["✘ 0 cases passed, 1 failed (seed 1)", "again: signalman --site"]);
    let lines = said.out.lines().skip(1).take_while(|line| !line.starts_with("    again: ") && !line.contains("what happened:"));
    lines.map(|line| line.replace("packs/shop/tests/all.yaml", "FILE")).collect::<Vec<_>>().join("\n")
}

const HTTP: &str = "    http:
      - {expect: GET /v2/apps/a, reply: {json: {app: {instances: 3}}}}
      - {expect: PUT /v2/apps/a, json: {instances: 5}, reply: {json: {id: d1}}}
";

fn action(parameters: &str, rest: &str) -> String {
    format!("  - name: it\n    action: shop.scale\n    parameters: {parameters}\n{HTTP}{rest}")
}

#[test]
fn a_result_that_differs_is_shown_beside_the_expected_one() {
    let rest = "    succeeds: {id: d2, before: 3, after: 6, more: 1}\n    log: [scaling b]\n    attempts: 2\n    messages: [{channel: ops, text: scaled b}]\n    keys_after: {shop: {last: 6}}\n";
    assert_eq!(
        told(&action("{app: a, by: 2}", rest)),
        r#"    FILE:9: the result is another one
      - after: 6
      + after: 5
        before: 3
      - id: "d2"
      + id: "d1"
              ^
      - more: 1
      + more: is not there
    FILE:10: this line is not logged, or not in this place
      - scaling b
        scaling a from 3 to 5
    FILE:11: it took another number of attempts
      - 2
      + 1
    FILE:12: something else was said
      - "scaled b"
      + "scaled a"
                ^
    FILE:13: the keys of `shop` are others
      - last: 6
      + last: 5"#
    );
}

#[test]
fn a_request_that_is_not_expected_is_shown_beside_the_nearest_that_is() {
    assert_eq!(
        told(&action("{app: a, by: 3}", "    succeeds_with: {id: d1}\n")),
        r"    FILE:9: `shop.scale` was to succeed, and did not
      + failed (unreachable)
        packs/shop/actions/scale.rhai:8:22: PUT http://m.test/v2/apps/a: this request is not expected
             8 |     let reply = http.put(`${config.url}/v2/apps/${params.app}`, #{ json: #{ instances: target } });
               |                      ^
    FILE:8: PUT http://m.test/v2/apps/a is not expected
      the nearest is this one, PUT /v2/apps/a
        json.instances: expected 5, got 6"
    );
    assert_eq!(
        told(&action("{app: a, by: 30}", "    fails: {reason: timed_out, message: /too few/}\n")),
        r#"    FILE:9: it failed in another way
      - reason: "timed_out"
      + reason: "action_failed"
      - message: "/too few/"
      + message: "packs/shop/actions/scale.rhai:6:9: too many"
    FILE:8: PUT /v2/apps/a did not come"#
    );
}

#[test]
fn a_rule_that_ran_nothing_says_why_and_one_that_ran_something_else_shows_it() {
    let rule = |events: &str, expect: &str| told(&format!("  - name: it\n    rule: shop.busy\n    events:\n{events}    expect:\n{expect}"));
    let event = |at: &str, app: &str, cpu: u32| format!("      - {{at: {at}, trigger: shop.load, payload: {{app: {app}, cpu: {cpu}}}}}\n");
    assert_eq!(
        rule(&event("0s", "a", 70), "      - {at: 0s, runs: shop.scale, parameters: {app: a, by: 2}}\n"),
        "    FILE:8: shop.scale was not run at 0s
      shop.busy and shop.load at 0s: criteria_not_held - Too few of the criteria held.
        trigger.cpu is 70, not greaterthan 80"
    );
    let expect = "      - {at: 4s, runs: shop.scale, parameters: {app: a, by: 3}}\n      - {said: hello}\n      - {nothing_else: true}\n";
    assert_eq!(
        rule(&[event("5s", "a", 90), event("6s", "b", 90)].concat(), expect),
        r#"    FILE:9: shop.scale was not run at 4s as expected
      the nearest that ran:
      - at 4s
      + at 5s
        app: "a"
      - by: 3
      + by: 2
    FILE:10: this was not said
      - hello
    FILE:11: this ran, and nothing else was to run
      + at 6s shop.scale {"app":"b","by":2}"#
    );
}

#[test]
fn a_sensor_that_emits_something_else_shows_it() {
    let case = "  - name: it\n    sensor: core.generic\n    body: [{n: 1}, {n: 2}]\n    emits:\n      - {payload: {n: 3}}\n";
    assert_eq!(
        told(case),
        r#"    FILE:7: the event is another one
      - n: 3
      + n: 1
    FILE:7: this event is not expected
      + at 0s core.webhook {"n":2}"#
    );
}

#[test]
fn a_reply_that_differs_is_shown_beside_the_expected_one() {
    let case = "  - name: it\n    say: [\"!echo hello\", \"!echo you\"]\n    reply: [helo, /you/, more]\n";
    assert_eq!(
        told(case),
        r#"    FILE:5: something else was said
      - "helo"
      + "hello"
            ^
        @test: you
      - more"#
    );
}

#[test]
fn all_faults_of_a_test_file_are_told_at_once() {
    let site = shop(
        "  - name: a\n    acton: shop.scale\n    succeeds: {}\n  - name: a\n    action: shop.scal\n    suceeds: {}\n    fails: {reason: action_faild, message: /(/}\n\
         \x20 - name: c\n    rule: shop.bussy\n    events: [{trigger: shop.lode, payload: {}}]\n    expect: [{at: 1s, run: shop.scale}]\n\
         \x20 - name: d\n    action: shop.scale\n    http: [{expect: get /x, reply: {status: 20, body: a, json: b}}]\n",
    );
    test(&site, &[]).err(
        2,
        &[
            "packs/shop/tests/all.yaml:3:5: error: a case needs one of `action`, `rule`, `sensor` and `say`: what it tests",
            "4:5: error: a case has no field `acton`",
            "did you mean `action`?",
            "did you mean `succeeds`?",
            "did you mean `action_failed`?",
            "`/(/` is not a regular expression: unclosed group",
            "an expectation is one of `runs: ACTION`, `said: TEXT` and `nothing_else: true`",
            "`get /x` is no request",
            "`status` must be from 100 to 599, not 20",
            "`json` and `body` stand beside each other",
            "a case of an action needs `succeeds`, `succeeds_with`, `fails` or `plan`",
        ],
    );
    // What the site does not have is told once the form is right.
    let site = shop("  - name: a\n    action: shop.scal\n    succeeds: {}\n  - name: b\n    rule: shop.bussy\n    expect: []\n");
    test(&site, &[]).err(2, &["there is no action `shop.scal`", "did you mean `shop.scale`?", "did you mean `shop.busy`?"]);
    Said::of(site.cli(&["lint"])).out(2, &[]);
    test(&shop("  - name: a\n    action: shop.scale\n    succeeds: {}\n"), &["--case", "zebra"]).err(2, &["no case is named `zebra`"]);
}

#[test]
fn hours_pass_at_once_and_a_rule_in_shadow_is_tried_in_earnest() {
    let site = shop(
        "  - name: three hours\n    rule: shop.silent\n    events: [{trigger: shop.load, payload: {app: a}}]\n    until: 5h\n    expect:\n      - {at: 3h, runs: shop.scale, parameters: {app: a, by: 1}}\n      - {nothing_else: true}\n",
    );
    test(&site, &[]).out(0, &["✔ 1 cases passed, 0 failed (seed 1)"]);
}

#[test]
fn the_same_seed_tells_the_same_story() {
    let site = shop(&action("{app: a, by: 3}", "    succeeds_with: {id: d1}\n"));
    let (first, second) = (test(&site, &["--seed", "7"]).out, test(&site, &["--seed", "7"]).out);
    assert_eq!(first, second);
    assert!(first.contains("seed 7"), "{first}");
}

#[test]
fn reports_for_machines_have_every_case() {
    let passing = "  - name: \"says <hello> & 'bye'\"\n    action: core.echo\n    parameters: {text: a}\n    succeeds: {text: a}\n";
    let failing = "  - name: fails\n    action: core.echo\n    parameters: {text: a}\n    succeeds: {text: b}\n  - name: also\n    action: core.noop\n    succeeds: {x: 1}\n";
    let site = shop(&format!("{passing}{failing}"));
    let report = site.path().join("report.xml");
    let said = test(&site, &["--junit", report.to_str().unwrap(), "--output", "json"]);
    assert_eq!(said.code, 1);
    let json: Value = said.json();
    assert_eq!((&json["passed"], &json["failed"]), (&1.into(), &2.into()));
    assert_eq!(json["cases"][1]["problems"][0]["lines"][0], "  - text: \"b\"");
    let xml = std::fs::read_to_string(report).unwrap();
    for part in
        ["tests=\"3\"", "failures=\"2\"", "<testsuite name=\"shop\"", "says &lt;hello&gt; &amp; ", "the result is another one", "--case"]
    {
        assert!(xml.contains(part), "{part} is missing in\n{xml}");
    }
    let said = test(&site, &["--fail-fast", "--output", "json"]).json();
    assert_eq!((&said["failed"], &said["not_played"]), (&1.into(), &1.into()));
}

#[tokio::test]
async fn a_change_is_seen_and_only_its_pack_is_played_again() {
    let case = |expected: &str| {
        format!("cases:\n  - name: watched\n    action: core.echo\n    parameters: {{text: a}}\n    succeeds: {{text: {expected}}}\n")
    };
    let site = shop("  - name: other\n    action: core.noop\n    succeeds: {}\n")
        .file("packs/cart/pack.yaml", "ref: cart\ndependencies: [core]\n")
        .file("packs/cart/tests/all.yaml", &case("b"));
    let mut child = Command::new(binary())
        .arg("--site")
        .arg(site.path())
        .args(["pack", "test", "--watch", "cart", "shop"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines: Arc<Mutex<Vec<String>>> = Arc::default();
    let (kept, out) = (Arc::clone(&lines), child.stdout.take().unwrap());
    let reading =
        std::thread::spawn(move || BufReader::new(out).lines().map_while(Result::ok).for_each(|line| kept.lock().unwrap().push(line)));
    let said = |what: &'static str| {
        let lines = Arc::clone(&lines);
        async move {
            eventually(what, || async {
                let found = lines.lock().unwrap().iter().any(|line| line.contains(what));
                found.then_some(())
            })
            .await;
            lines.lock().unwrap().clear();
        }
    };
    said("1 failed").await;
    site.write("packs/cart/tests/all.yaml", &case("a"));
    said("✔ 1 cases passed, 0 failed").await;
    site.write("packs/cart/tests/all.yaml", &case("[a"));
    said("the tests cannot be played").await;
    child.kill().unwrap();
    child.wait().unwrap();
    reading.join().unwrap();
}

#[test]
fn a_new_pack_passes_its_own_checks_and_tests() {
    let site = TestSite::new();
    let made = Said::of(site.cli(&["pack", "new", "my-shop"]));
    let made = made.out(0, &["packs/my-shop/pack.yaml", "pack test my-shop --watch", "lint", "serve"]);
    assert!(!made.out.contains("newpack"), "{}", made.out);
    Said::of(site.cli(&["lint", "--strict"])).out(0, &["0 errors, 0 warnings"]);
    Said::of(site.cli(&["pack", "test", "my-shop"])).out(0, &["8 cases passed, 0 failed"]);
    Said::of(site.cli(&["pack", "new", "my-shop"])).err(2, &["exists already"]);
    for name in ["My", "a b", "../x", "", "default"] {
        Said::of(site.cli(&["pack", "new", name])).err(2, &["name"]);
    }
}

#[test]
fn every_pack_of_this_repository_passes_its_tests() {
    let output = Command::new(binary()).arg("--site").arg(repository()).args(["pack", "test", "--output", "json"]).output().unwrap();
    let said = Said::of(output);
    assert_eq!(said.code, 0, "{}\n{}", said.out, said.err);
    let packs: Vec<String> = said.json()["cases"].as_array().unwrap().iter().map(|case| case["pack"].as_str().unwrap().into()).collect();
    for pack in ["alertmanager", "core", "links", "prometheus"] {
        assert!(packs.iter().any(|tested| tested == pack), "{pack} has no tests");
    }
}
