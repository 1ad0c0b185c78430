//! What people and scripts ask of rules: switches, windows, rehearsals, keys; through the real binary and server.

use std::path::Path;

use serde_json::{Value, json};

use crate::harness::{Random, Said, Server, Shell, TestSite, eventually, seed};

const PLAIN: &str = "trigger: {type: core.webhook}\ncriteria:\n  trigger.n: {type: gt, pattern: 80}\naction: {ref: t.scale, parameters: {app: \"{{trigger.app}}\"}}\n";

const WINDOWED: &str = "trigger: {type: core.webhook}\ncriteria:\n  trigger.n: {type: gt, pattern: 80}\n\
    window: {count: 3, within: 5m, by: \"{{trigger.app}}\", consecutive: true}\nthrottle: {once_per: 1h, by: \"{{trigger.app}}\"}\n\
    action: {ref: t.scale, parameters: {app: \"{{trigger.app}}\"}}\n";

/// A guard that uses up its budget.
const HUNGRY: &str = "trigger: {type: core.webhook}\nwhen: \"<% [1,2,3,4,5,6,7,8].map(|x| [1,2,3,4,5,6,7,8].map(|y| [1,2,3,4,5,6,7,8].map(|z| [1,2,3,4,5,6,7,8].map(|a| [1,2,3,4,5,6,7,8].map(|b| [1,2,3,4,5,6,7,8].map(|c| 1)))))).len() > 0 %>\"\naction: {ref: core.noop}\n";

fn site() -> TestSite {
    TestSite::new().pack(&[(
        "actions/scale.yaml",
        "runner_type: noop\nparameters: {app: {type: string, required: true}, token: {type: string, secret: true}}\n",
    )])
}

/// Emits an event and answers its id.
fn emit(shell: &Shell, app: &str, n: u64) -> String {
    let emitted = shell.json(&["emit", "core.webhook", &format!("app={app}"), &format!("n:={n}")]);
    emitted["id"].as_str().unwrap().to_string()
}

fn rule_of(shell: &Shell, name: &str) -> Value {
    let listed = shell.json(&["rule", "list"]);
    listed["rules"].as_array().unwrap().iter().find(|rule| rule["ref"] == name).unwrap_or_else(|| panic!("no {name} in {listed}")).clone()
}

async fn restart(shell: Shell) -> Shell {
    let Shell { site, server } = shell;
    assert_eq!(server.stop(), Some(0));
    Shell::start(site).await
}

#[tokio::test]
async fn a_switch_is_thrown_shown_kept_and_overridden_by_the_file() {
    let shell = Shell::start(site().file("rules/r.yaml", PLAIN).file("rules/off.yaml", &format!("enabled: false\n{PLAIN}"))).await;
    shell.say(&["rule", "list"]).out(0, &["RULE", "STATE", "HELD BACK BY", "SWITCHED", "default.off", "disabled", "default.r", "active"]);
    assert_eq!(rule_of(&shell, "default.off")["detail"], "its file says `enabled: false`");
    assert_eq!(rule_of(&shell, "default.off")["switch"], Value::Null);

    shell.say(&["rule", "disable", "default.r"]).out(0, &["default.r is disabled: switched off by token admin at 20"]);
    shell.say(&["rule", "disable", "default.r"]).out(0, &["default.r was already disabled: switched off by token admin"]);
    assert_eq!(shell.json(&["rule", "disable", "default.r"])["changed"], false);
    shell.say(&["rule", "list"]).out(0, &["disabled", "off by token admin at 20"]);
    let refused = emit(&shell, "shop", 90);
    shell.say(&["rule", "why", "default.r", &refused]).out(1, &["✘ default.r: disabled", "switched off by token admin at"]);
    assert_eq!(shell.json(&["event", "show", &refused])["verdicts"], Value::Null);

    let enabled = shell.json(&["rule", "enable", "default.off"]);
    assert_eq!((&enabled["ref"], &enabled["changed"], &enabled["state"]), (&json!("default.off"), &json!(true), &json!("active")));
    assert_eq!((&enabled["switch"]["to"], &enabled["switch"]["by"]), (&json!("on"), &json!("token admin")));

    let shell = restart(shell).await;
    assert_eq!(rule_of(&shell, "default.r")["state"], "disabled");
    assert_eq!(rule_of(&shell, "default.off")["state"], "active");
    let matched = emit(&shell, "shop", 90);
    shell.say(&["event", "why", &matched]).out(0, &["✔ default.off: matched", "with {\"app\":\"shop\"", "✘ default.r: disabled"]);

    // Once the files say something else, that counts.
    shell.site.write("rules/r.yaml", &format!("enabled: false\n{PLAIN}"));
    shell.site.write("rules/off.yaml", PLAIN);
    let shell = restart(shell).await;
    let (r, off) = (rule_of(&shell, "default.r"), rule_of(&shell, "default.off"));
    assert_eq!((&r["state"], &r["detail"]), (&json!("disabled"), &json!("its file says `enabled: false`")));
    assert_eq!((&r["switch"], &off["state"], &off["switch"]), (&Value::Null, &json!("active"), &Value::Null));

    shell.say(&["rule", "enable", "default.rr"]).err(1, &["there is no rule `default.rr`", "did you mean `default.r`?"]);
    shell.say(&["rule", "windows", "default.of"]).err(1, &["there is no rule `default.of`", "did you mean `default.off`?"]);
    for wrong in ["..", "", "a b", "a/b"] {
        shell.say(&["rule", "disable", wrong]).err(2, &[&format!("`{wrong}` is not a rule's name"), "pack.name"]);
    }
    let (status, shown) = shell.server.get("/api/v1/rules/default.r").await;
    assert_eq!((status, &shown["state"], &shown["trigger"]), (200, &json!("disabled"), &json!("core.webhook")));
    assert_eq!(shell.server.post("/api/v1/rules/nothing/enable", &Value::Null).await.0, 404);
    assert_eq!(shell.server.get("/api/v1/rules/default.r/enable").await.0, 405);
}

#[tokio::test]
async fn a_rule_whose_guard_loops_is_in_quarantine_until_it_is_enabled() {
    let shell = Shell::start(site().file("rules/hungry.yaml", HUNGRY)).await;
    let first = emit(&shell, "shop", 1);
    for n in 2..=9 {
        emit(&shell, "shop", n);
    }
    assert_eq!(rule_of(&shell, "default.hungry")["state"], "active");
    emit(&shell, "shop", 10);
    let rule = rule_of(&shell, "default.hungry");
    assert_eq!(
        (&rule["state"], &rule["switch"]["to"], &rule["switch"]["by"]),
        (&json!("quarantined"), &json!("quarantined"), &json!("Signalman"))
    );
    shell.say(&["rule", "list"]).out(0, &["quarantined by Signalman at 20"]);
    let after = emit(&shell, "shop", 11);
    shell
        .say(&["event", "why", &after])
        .out(0, &["✘ default.hungry: quarantined · The rule's guard used up its budget", "since 20", "`signalman rule enable`"]);
    shell.say(&["rule", "why", "default.hungry", &first]).out(1, &["✘ default.hungry: guard_failed"]);

    // A rehearsal is stopped by the same budget.
    let tried =
        shell.say(&["rule", "test", "--rule", &path(&shell, "rules/hungry.yaml"), "--since", "1h", "--output", "json"]).out(1, &[]).json();
    assert_eq!((&tried["matched"], &tried["tried"]), (&json!(0), &json!(11)));
    assert_eq!(counts(&tried), [("guard_failed".to_string(), 10), ("quarantined".to_string(), 1)]);

    let shell = restart(shell).await;
    assert_eq!(rule_of(&shell, "default.hungry")["state"], "quarantined");
    shell.say(&["rule", "enable", "default.hungry"]).out(0, &["default.hungry is enabled"]);
    assert_eq!(rule_of(&shell, "default.hungry")["state"], "active");
    let again = emit(&shell, "shop", 12);
    shell.say(&["rule", "why", "default.hungry", &again]).out(1, &["guard_failed"]);
}

fn path(shell: &Shell, file: &str) -> String {
    shell.site.path().join(file).display().to_string()
}

fn counts(tried: &Value) -> Vec<(String, u64)> {
    let count = |one: &Value| (one["reason"].as_str().unwrap().to_string(), one["count"].as_u64().unwrap());
    tried["reasons"].as_array().unwrap().iter().map(count).collect()
}

#[tokio::test]
async fn open_windows_say_what_is_missing() {
    let waiting = "trigger: {type: core.webhook}\nwindow: {absent_for: 2h, by: \"{{trigger.app}}\"}\naction: {ref: core.noop}\n";
    let shell = Shell::start(site().file("rules/r.yaml", WINDOWED).file("rules/plain.yaml", PLAIN).file("rules/quiet.yaml", waiting)).await;
    shell
        .say(&["rule", "list"])
        .out(0, &["3 in a row within 5m by {{trigger.app}}; once per 1h by {{trigger.app}}", "nothing for 2h by {{trigger.app}}"]);
    shell.say(&["rule", "windows", "default.plain"]).out(0, &["default.plain has no window and no throttle"]);
    let none = shell.json(&["rule", "windows", "default.plain"]);
    assert_eq!((&none["windows"], &none["has_windows"]), (&json!([]), &json!(false)));
    shell.say(&["rule", "windows", "default.r"]).out(0, &["default.r (active): 3 in a row within 5m", "nothing is open"]);

    emit(&shell, "shop", 90);
    let second = emit(&shell, "shop", 91);
    emit(&shell, "cart", 92);
    shell.say(&["rule", "windows", "default.r"]).out(
        0,
        &[
            "window  cart  1 of 3, until 20",
            "unless 2 more come or one does not hold",
            "window  shop  2 of 3, until 20",
            "unless 1 more comes",
        ],
    );
    let open = shell.json(&["rule", "windows", "default.r"]);
    let shop = &open["windows"][1];
    assert_eq!((&shop["part"], &shop["key"], &shop["have"], &shop["of"]), (&json!("window"), &json!("shop"), &json!(2), &json!(3)));
    assert_eq!((&open["keys"], &open["more"]), (&json!({"window": 2, "throttle": 0}), &json!(0)));
    let one = shell.say(&["rule", "windows", "default.r", "--limit", "1"]).out(0, &["cart", "and 1 more"]);
    assert!(!one.out.contains("shop  "), "{}", one.out);
    shell.say(&["rule", "windows", "default.r", "--limit", "0"]).err(2, &["`limit` must be from 1 to 1000"]);
    shell
        .say(&["rule", "why", "default.r", &second])
        .out(1, &["… default.r: window_open · The event counts", "2 of 3 events of `shop`", "`signalman rule windows`"]);

    emit(&shell, "shop", 93);
    shell.say(&["rule", "windows", "default.r"]).out(0, &["window    cart  1 of 3", "throttle  shop  throttled until 20"]);
    emit(&shell, "shop", 7);
    for n in [94, 95] {
        emit(&shell, "shop", n);
    }
    let held = emit(&shell, "shop", 96);
    shell
        .say(&["event", "why", &held])
        .out(0, &["… default.r: throttled", "not again before 20", "of `shop`", "… default.quiet: window_armed"]);
    let quiet = shell.say(&["rule", "windows", "default.quiet"]).out(0, &["shop  fires at 20", "if nothing comes"]);
    assert!(quiet.out.contains("cart  fires at"), "{}", quiet.out);
    assert_eq!(shell.json(&["rule", "windows", "default.quiet"])["windows"][1]["event"], held);

    let shell = restart(shell).await;
    shell.say(&["rule", "windows", "default.r"]).out(0, &["window    cart  1 of 3", "throttle  shop  throttled until 20"]);
}

#[tokio::test]
async fn a_rehearsal_finds_what_live_evaluation_found() {
    let shell = Shell::start(site().file("rules/r.yaml", WINDOWED)).await;
    let mut random = Random(seed());
    let begin = chrono::Utc::now() - chrono::Duration::hours(5);
    for step in 0..150u64 {
        let app = ["shop", "cart", "pay"][random.below(3) as usize];
        let at = begin + chrono::Duration::seconds((step * 100 + random.below(300)) as i64);
        let payload = json!({"app": app, "n": 70 + random.below(100)});
        let event = json!({"trigger": "core.webhook", "payload": payload, "occurred_at": at, "key": app});
        let (status, said) = shell.server.post("/api/v1/events", &event).await;
        assert_eq!(status, 202, "{said}");
        if step % 10 == 0 {
            shell.server.post("/api/v1/events", &json!({"trigger": "core.interval", "payload": {"n": 1}})).await;
        }
    }
    let (_, live) = shell.server.get("/api/v1/executions?limit=1000").await;
    let mut live: Vec<&Value> = live["executions"].as_array().unwrap().iter().map(|execution| &execution["event"]).collect();
    live.reverse();
    assert!(live.len() >= 3, "{live:?}");

    let since = |more: &[&str]| shell.say(&[&["rule", "test", "--rule", &path(&shell, "rules/r.yaml"), "--since", "6h"], more].concat());
    let tried = since(&["--output", "json", "--limit", "1000"]).out(0, &[]).json();
    let found: Vec<&Value> = tried["matches"].as_array().unwrap().iter().map(|matched| &matched["event"]).collect();
    assert_eq!(found, live);
    assert_eq!((&tried["tried"], &tried["scanned"], &tried["cut"]), (&json!(150), &json!(165), &Value::Null));
    assert_eq!(tried["in_force"], json!({"exists": true, "matched": live.len(), "both": live.len(), "only_then": 0, "only_now": 0}));
    let counts = counts(&tried);
    assert_eq!(counts.iter().map(|(_, count)| count).sum::<u64>(), 150, "{counts:?}");
    assert!(["matched", "window_open", "criteria_not_held"].iter().all(|reason| counts.iter().any(|(own, _)| own == reason)), "{counts:?}");
    let first = &tried["matches"][0];
    assert_eq!((&first["reason"], &first["in_force"], &first["error"]), (&json!("matched"), &json!(true), &Value::Null));
    assert_eq!(first["parameters"]["app"], first["key"]);

    let text = format!("✔ default.r: {} matches; tried on 150 events of core.webhook, from 20", live.len());
    let people =
        since(&["--limit", "1"]).out(0, &[&text, "TIMES", "criteria_not_held", "IN FORCE", &format!("and {} more", live.len() - 1)]);
    assert!(
        people.out.contains(&format!("default.r in force matched {n}: {n} as here, 0 only then; 0 only here", n = live.len())),
        "{}",
        people.out
    );

    // Another rule of the name: in shadow, without a window, stricter.
    let other = "name: r\nmode: shadow\ntrigger: {type: core.webhook}\ncriteria: {trigger.n: {type: gt, pattern: 160}}\naction: {ref: t.scale, parameters: {app: \"{{trigger.app}}\", token: secret-text}}\n";
    shell.site.write("draft.yaml", other);
    let draft = shell.say(&["rule", "test", "--rule", &path(&shell, "draft.yaml"), "--since", "6h", "--output", "json"]).out(0, &[]);
    assert!(!draft.out.contains("secret-text"), "{}", draft.out);
    let (draft, n) = (draft.json(), live.len() as u64);
    let of = |name: &str| draft["in_force"][name].as_u64().unwrap();
    assert_eq!((of("matched"), of("both") + of("only_then"), of("both") + of("only_now")), (n, n, draft["matched"].as_u64().unwrap()));
    assert!(of("only_now") > 0, "{draft}");

    // Only a part of the time: the events came just now, whatever their sender says.
    let past = shell.say(&["rule", "test", "--rule", &path(&shell, "rules/r.yaml"), "--since", "6h", "--until", "5h"]);
    past.out(1, &["✘ default.r: 0 matches; tried on 0 events", "there were no events of this trigger", "default.r in force matched 0"]);
    let name = draft_named(&shell, "brand_new");
    shell.say(&["rule", "test", "--rule", &name, "--since", "2026-01-01T00:00:00Z"]).out(0, &["no default.brand_new has been in force"]);
}

fn draft_named(shell: &Shell, name: &str) -> String {
    shell.site.write(&format!("{name}.yaml"), PLAIN);
    path(shell, &format!("{name}.yaml"))
}

#[tokio::test]
async fn silence_is_found_in_a_rehearsal() {
    let quiet = "trigger: {type: core.webhook}\nwindow: {absent_for: 300ms, by: \"{{trigger.app}}\"}\naction: {ref: t.scale, parameters: {app: \"{{trigger.app}}\"}}\n";
    let shell = Shell::start(site().file("rules/quiet.yaml", quiet)).await;
    let last = emit(&shell, "shop", 1);
    eventually("the silence to be told", || async {
        let (_, executions) = shell.server.get("/api/v1/executions").await;
        (executions["executions"][0]["parameters"]["app"] == "shop").then_some(())
    })
    .await;
    let tried = shell.json(&["rule", "test", "--rule", &path(&shell, "rules/quiet.yaml"), "--since", "1h"]);
    let matched = &tried["matches"][0];
    assert_eq!((&matched["reason"], &matched["event"], &matched["key"]), (&json!("silent"), &json!(last), &json!("shop")), "{tried}");
    assert_eq!((&matched["parameters"]["app"], &matched["in_force"]), (&json!("shop"), &json!(true)), "{tried}");
    assert_eq!(counts(&tried), [("window_armed".to_string(), 1), ("silent".to_string(), 1)]);
    assert_eq!(tried["in_force"], json!({"exists": true, "matched": 1, "both": 1, "only_then": 0, "only_now": 0}));
}

#[tokio::test]
async fn what_cannot_be_rehearsed_is_told() {
    let shell = Shell::start(site()).await;
    let since = |rule: &str, more: &[&str]| {
        shell.site.write("draft.yaml", rule);
        shell.say(&[&["rule", "test", "--rule", &path(&shell, "draft.yaml"), "--since"], more].concat())
    };
    let faulty = "trigger: {type: core.webhok}\nactoin: {}\ncriteria:\n  trigger.n: {type: equal, pattern: 1}\naction: {ref: core.noop}\n";
    since(faulty, &["24h"])
        .err(2, &["draft.yaml:2:1: error: a rule has no field `actoin`", "draft.yaml:4:21: error: there is no operator `equal`"]);
    let misfit = "trigger: {type: core.webhok}\naction: {ref: t.scale, parameters: {ap: x}}\nnotify: {channel: opps}\n";
    since(misfit, &["24h"]).err(
        2,
        &["draft.yaml:1:", "there is no trigger `core.webhok`", "did you mean `core.webhook`?", "no parameter `ap`", "no channel `opps`"],
    );
    since("trigger: {type: core.webhook}\naction: {ref: t.scael}\n", &["24h"])
        .err(2, &["there is no action `t.scael`", "did you mean `t.scale`?"]);
    since(PLAIN, &["yesterday"]).err(2, &["`since`: `yesterday` is neither a duration such as"]);
    since(PLAIN, &["1h", "--until", "soon"]).err(2, &["`until`: `soon` is neither a duration"]);
    since(PLAIN, &["1h", "--until", "2h"]).err(2, &["`since`", "must lie before `until`"]);
    since(PLAIN, &["1h", "--limit", "0"]).err(2, &["`limit` must be from 1 to 1000"]);
    since(PLAIN, &["1h", "--event", "e.json"]).err(2, &["--event", "cannot be used with"]);
    since(PLAIN, &["1h", "--keys", "k.json"]).err(2, &["--keys", "cannot be used with"]);
    shell.say(&["rule", "test", "--rule", "r.yaml"]).err(2, &["--event"]);
    shell.say(&["rule", "test", "--rule", "r.yaml", "--event", "e.json", "--until", "1h"]).err(2, &["--until", "cannot be used with"]);
    since(&format!("enabled: false\n{PLAIN}"), &["1h"]).out(1, &["there were no events"]);

    let (status, problem) = shell.server.post("/api/v1/rules/test", &json!({"rule": faulty, "since": "1h"})).await;
    assert_eq!((status, problem["errors"].as_array().unwrap().len()), (422, 2), "{problem}");
    assert_eq!((&problem["errors"][1]["line"], &problem["title"]), (&json!(2), &json!("The rule cannot be loaded")), "{problem}");
    assert_eq!(shell.server.post("/api/v1/rules/test", &json!({"rule": PLAIN})).await.0, 400);
    assert_eq!(shell.server.post("/api/v1/rules/test", &json!({"rule": PLAIN, "since": "1h", "pack": "nix"})).await.0, 400);
}

fn try_rule(folder: &Path, rule: &str, keys: Option<&str>, more: &[&str]) -> Said {
    std::fs::write(folder.join("r.yaml"), rule).unwrap();
    std::fs::write(folder.join("e.json"), json!({"trigger": "core.webhook", "payload": {"n": 90, "app": "shop"}}).to_string()).unwrap();
    let mut command = std::process::Command::new(crate::harness::binary());
    command.args(["rule", "test", "--rule", "r.yaml", "--event", "e.json"]).args(more).current_dir(folder);
    if let Some(keys) = keys {
        std::fs::write(folder.join("k.json"), keys).unwrap();
        command.args(["--keys", "k.json"]);
    }
    Said::of(command.output().unwrap())
}

#[test]
fn the_fields_of_a_trial_stand_in_their_order_and_keys_come_from_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let said = try_rule(folder.path(), WINDOWED, Some("{\"limit\": 80}"), &["--output", "json"]).err(0, &["is not found"]);
    let order = [
        "matched",
        "reason",
        "criteria",
        "key",
        "operator",
        "pattern",
        "value",
        "held",
        "error",
        "action",
        "ref",
        "parameters",
        "cast",
        "error",
        "detail",
        "not_applied",
        "keys_missing",
    ];
    let mut rest = said.out.as_str();
    for field in order {
        let place = rest.find(&format!("\"{field}\":")).unwrap_or_else(|| panic!("`{field}` is not in its place:\n{}", said.out));
        rest = &rest[place + field.len()..];
    }
    let answer = said.json();
    assert_eq!((&answer["not_applied"], &answer["keys_missing"]), (&json!(["window", "throttle"]), &json!([])));
    try_rule(folder.path(), WINDOWED, None, &[]).out(0, &["✔ default.r: matched", "not applied to a single event: window, throttle"]);
    let keyed = "trigger: {type: core.webhook}\ncriteria:\n  trigger.n: {type: gt, pattern: \"{{kv.system.limit}}\"}\naction: {ref: t.scale, parameters: {app: \"{{kv.system.name}}\"}}\n";
    let held = try_rule(folder.path(), keyed, Some("{\"limit\": 80, \"name\": \"shop\"}"), &["--output", "json"]).err(0, &[]).json();
    assert_eq!((&held["criteria"][0]["held"], &held["action"]["parameters"]), (&json!(true), &json!({"app": "shop"})));
    try_rule(folder.path(), keyed, Some("{\"limit\": 95}"), &[]).out(1, &["criteria_not_held", "kv.system.name has no value here"]);
    try_rule(folder.path(), keyed, None, &[]).out(
        1,
        &["✘ default.r: criterion_failed", "kv.system.limit has no value here; give it one in the file of --keys", "kv.system.name has no"],
    );
    let missing = try_rule(folder.path(), keyed, None, &["--output", "json"]).err(1, &[]).json();
    assert_eq!((&missing["criteria"][0]["held"], &missing["keys_missing"]), (&json!(false), &json!(["limit", "name"])));
    assert!(missing["criteria"][0]["error"].as_str().unwrap().contains("limit"), "{missing}");
    let late = try_rule(folder.path(), keyed, Some("{\"limit\": 80}"), &["--output", "json"]).err(0, &[]).json();
    assert!(late["action"]["error"].as_str().unwrap().contains("name"), "{late}");

    for (keys, words) in [
        ("[1]", &["`k.json`: must be an object of keys"][..]),
        ("{\"a\": 1,}", &["`k.json`: not JSON", "line 1"]),
        ("{\"a b\": 1}", &["`k.json`: `a b` is not a name for a key"]),
    ] {
        try_rule(folder.path(), WINDOWED, Some(keys), &[]).err(2, words);
    }
    try_rule(folder.path(), WINDOWED, None, &["--keys", "nowhere.json"]).err(2, &["`nowhere.json` cannot be read"]);
}

#[tokio::test]
async fn keys_are_set_shown_and_deleted() {
    let shell = Shell::start(site()).await;
    shell.say(&["key", "list"]).out(0, &["no keys; set one with `signalman key set NAME VALUE`"]);
    shell.say(&["key", "get", "limit"]).err(1, &["there is no key `limit`"]);
    shell.say(&["key", "set", "limit", "80"]).out(0, &["limit is new"]);
    assert_eq!(shell.say(&["key", "get", "limit"]).out(0, &[]).out, "80\n");
    let limit = shell.json(&["key", "get", "limit"]);
    assert_eq!(
        (&limit["value"], &limit["scope"], &limit["changed_by"]),
        (&json!("80"), &json!("system"), &json!("token admin")),
        "{limit}"
    );
    shell.say(&["key", "set", "limit", "{\"cpu\": 80, \"at\": [1, null]}", "--json"]).out(0, &["limit is changed"]);
    assert_eq!(shell.json(&["key", "get", "limit"])["value"], json!({"cpu": 80, "at": [1, null]}));
    shell.say(&["key", "set", "low", "-5", "--json"]).out(0, &["low is new"]);
    let low = shell.json(&["key", "set", "low", "-6", "--json"]);
    assert_eq!((&low["value"], &low["new"]), (&json!(-6), &json!(false)), "{low}");
    shell.say(&["key", "get", "limt"]).err(1, &["there is no key `limt`", "did you mean `limit`?"]);
    shell.say(&["key", "list"]).out(0, &["KEY    VALUE", "limit  {\"", "low    -6", "token admin"]);

    let page = shell.json(&["key", "list", "--limit", "1"]);
    assert_eq!((&page["keys"][0]["name"], &page["next"]), (&json!("limit"), &json!("limit")));
    shell.say(&["key", "list", "--limit", "1"]).out(0, &["there are more; go on with --after limit"]);
    let page = shell.json(&["key", "list", "--after", "limit"]);
    assert_eq!((&page["keys"][0]["name"], &page["next"]), (&json!("low"), &Value::Null));
    shell.say(&["key", "list", "--limit", "1001"]).err(2, &["`limit` must be from 1 to 1000"]);

    let shell = restart(shell).await;
    assert_eq!(shell.json(&["key", "get", "low"])["value"], -6);
    shell.say(&["key", "delete", "low"]).out(0, &["low is deleted"]);
    shell.say(&["key", "delete", "low"]).err(1, &["there is no key `low`"]);
    shell.say(&["key", "get", "low"]).err(1, &["there is no key `low`"]);

    for wrong in ["a b", "..", ".", "", "a/b", "ä", &"k".repeat(129)] {
        shell
            .say(&["key", "set", wrong, "1"])
            .err(2, &[&format!("`{}` is not a name for a key", &wrong.chars().take(128).collect::<String>()), "1 to 128"]);
        shell.say(&["key", "get", wrong]).err(2, &["is not a name for a key"]);
    }
    shell.say(&["key", "set", &"k".repeat(128), "1"]).out(0, &["is new"]);
    shell
        .say(&["key", "set", "big", &"x".repeat((64 << 10) - 1)])
        .err(2, &["the value of `big` has 65537 bytes as JSON, and 65536 are allowed"]);
    shell.say(&["key", "set", "big", &"x".repeat((64 << 10) - 2)]).out(0, &["big is new"]);
    shell.say(&["key", "set", "a", "{", "--json"]).err(2, &["the value is not JSON", "without --json it is text"]);

    assert_eq!(put(&shell, "a%20b", json!({"value": 1})).await, 400);
    assert_eq!(put(&shell, "a", json!({"value": "x".repeat(64 << 10)})).await, 400);
    assert_eq!(put(&shell, "a", json!({"valu": 1})).await, 400);
    assert_eq!(put(&shell, "a", json!({})).await, 400);
    assert_eq!(put(&shell, "a", json!({"value": null})).await, 200);
    assert_eq!(shell.server.get("/api/v1/keys/nothing").await.0, 404);
    let open = reqwest::Client::builder().no_proxy().build().unwrap();
    for request in
        [open.get(format!("{}/api/v1/keys", shell.server.url)), open.post(format!("{}/api/v1/rules/default.r/disable", shell.server.url))]
    {
        assert_eq!(request.send().await.unwrap().status(), 401);
    }
}

#[tokio::test]
async fn rules_see_the_keys_as_they_are_and_a_rehearsal_as_they_were() {
    let rule = "trigger: {type: core.webhook}\ncriteria:\n  trigger.n: {type: gt, pattern: \"{{kv.system.limit}}\"}\naction: {ref: t.scale, parameters: {app: \"{{trigger.app}}-{{kv.system.limit}}\"}}\n";
    let shell = Shell::start(site().file("rules/keyed.yaml", rule)).await;
    let before = emit(&shell, "shop", 90);
    shell.say(&["rule", "why", "default.keyed", &before]).out(1, &["criterion_failed", "limit"]);
    shell.say(&["key", "set", "limit", "80", "--json"]).out(0, &[]);
    let matched = emit(&shell, "shop", 90);
    shell.say(&["rule", "why", "default.keyed", &matched]).out(0, &["matched", "with {\"app\":\"shop-80\""]);
    let below = emit(&shell, "shop", 70);
    shell.say(&["key", "set", "limit", "60", "--json"]).out(0, &[]);
    shell.say(&["rule", "why", "default.keyed", &matched]).out(0, &["with {\"app\":\"shop-80\""]);
    let why = shell.say(&["rule", "why", "default.keyed", &below]).out(1, &["criteria_not_held"]);
    assert!(!why.out.contains("was not kept"), "{}", why.out);
    shell.say(&["key", "set", "limit", "75", "--json"]).out(0, &[]);

    let tried = shell.json(&["rule", "test", "--rule", &path(&shell, "rules/keyed.yaml"), "--since", "1h"]);
    assert_eq!(tried["matches"][0]["parameters"]["app"], "shop-80", "{tried}");
    assert_eq!(counts(&tried), [("matched".to_string(), 1), ("criteria_not_held".to_string(), 1), ("criterion_failed".to_string(), 1)]);
    assert_eq!((&tried["keys_as_now"], &tried["in_force"]["both"], &tried["in_force"]["only_now"]), (&json!([]), &json!(1), &json!(0)));

    // What no rule looked at then was not kept.
    shell.say(&["key", "set", "other", "60", "--json"]).out(0, &[]);
    shell.site.write("draft.yaml", &rule.replace("kv.system.limit", "kv.system.other"));
    let draft = path(&shell, "draft.yaml");
    shell
        .say(&["rule", "test", "--rule", &draft, "--since", "1h"])
        .out(0, &["3 matches", "what other held then was not kept with all events"]);
    shell.site.write("rules/draft.yaml", &std::fs::read_to_string(&draft).unwrap());
    let shell = restart(shell).await;
    shell
        .say(&["rule", "why", "default.draft", &below])
        .out(0, &["matched", "what other held then was not kept; this is by what is there now", "the rule did not exist then"]);
}

async fn put(shell: &Shell, name: &str, body: Value) -> u16 {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = client.put(format!("{}/api/v1/keys/{name}", shell.server.url)).bearer_auth(&shell.server.token).body(body.to_string());
    request.send().await.unwrap().status().as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_very_many_rules_the_nearest_are_told_and_the_rest_is_counted() {
    let rule = |n: usize| {
        format!("trigger: {{type: core.webhook}}\ncriteria: {{trigger.n: {{type: equals, pattern: {n}}}}}\naction: {{ref: core.noop}}\n")
    };
    let many = (0..150).fold(TestSite::new(), |site, n| site.file(&format!("rules/r{n}.yaml"), &rule(n)));
    let server = Server::start(&many).await;
    let (_, taken) = server.webhook("generic", "{\"n\": 149}").await;
    let id = taken["events"][0]["id"].as_str().unwrap().to_string();
    let (_, why) = server.get(&format!("/api/v1/events/{id}/why")).await;
    let rules = why["rules"].as_array().unwrap();
    assert_eq!((rules.len(), &rules[0]["rule"], &why["more"]), (100, &json!("default.r149"), &json!({"criteria_not_held": 50})));
    let said = many.cli(&["event", "why", &id, "--server", &server.url]);
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.contains("and more rules of this trigger: 50 criteria_not_held"), "{said}");
}
