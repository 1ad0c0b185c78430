//! Scripts that mean harm, or were written badly: each ends with a reason and a place, and nobody else notices.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use chrono::DateTime;
use serde_json::{Value, json};

use crate::harness::{Server, Target, TestSite, eventually};

/// An action of pack `t`: its name, the rest of its metadata, its script.
type Action<'a> = (&'a str, &'a str, &'a str);

/// Adds actions that scripts carry out, to the pack of that name.
fn actions(site: TestSite, pack: &str, actions: &[Action<'_>]) -> TestSite {
    actions.iter().fold(site, |site, (name, metadata, script)| {
        let metadata = format!("runner_type: rhai\n{metadata}");
        site.file(&format!("packs/{pack}/actions/{name}.yaml"), &metadata).file(&format!("packs/{pack}/actions/{name}.rhai"), script)
    })
}

fn text<'v>(execution: &'v Value, field: &str) -> &'v str {
    execution[field].as_str().unwrap_or_default()
}

/// Asks for an execution and does not wait for it.
async fn request(server: &Server, action: &str) -> String {
    let (status, execution) = server.post("/api/v1/executions", &json!({"action": action})).await;
    assert_eq!(status, 202, "{execution}");
    execution["id"].as_str().unwrap().to_string()
}

async fn is_running(server: &Server, id: &str) {
    eventually("the execution to run", || async {
        (server.get(&format!("/api/v1/executions/{id}")).await.1["status"] == "running").then_some(())
    })
    .await;
}

/// An address at which a connection is taken and nothing is ever answered.
fn silent() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    (listener, url)
}

/// An address at which nobody listens.
fn dead() -> String {
    silent().1
}

#[tokio::test]
async fn every_script_ends_with_a_reason_and_its_place() {
    // Name, script, reason, words of the error. What ends by time is given little of it.
    let cases: &[(&str, &str, &str, &[&str])] = &[
        ("loop", "fn run(params) {\n    loop {}\n}", "budget_exceeded", &["loop.rhai", "more than 50000000 operations"]),
        (
            "late_catcher",
            "fn run(params) { while true { try { loop { let x = [1]; } } catch { } } }",
            "timed_out",
            &["longer than the action's `timeout`"],
        ),
        (
            "late_thrower",
            "fn run(params) { while true { try { throw 1; } catch { } } }",
            "timed_out",
            &["longer than the action's `timeout`"],
        ),
        (
            "late_sort",
            "fn run(params) {\n    let a = [];\n    for i in 0..5000 { a.push(i); }\n    a.sort(|x, y| { loop { let x = [1]; } });\n}",
            "timed_out",
            &["`timeout`"],
        ),
        ("late_print", "fn run(params) { loop { print(\"flood\"); } }", "timed_out", &["`timeout`"]),
        ("late_log", "fn run(params) { loop { log.info(\"flood\"); } }", "timed_out", &["`timeout`"]),
        (
            "recursion",
            "fn f(n) {\n    f(n + 1)\n}\nfn run(params) {\n    f(0)\n}",
            "budget_exceeded",
            &["recursion.rhai", "deeper than 32 levels"],
        ),
        ("mutual", "fn f() { g() }\nfn g() { f() }\nfn run(params) { f() }", "budget_exceeded", &["deeper than 32 levels"]),
        ("closure", "fn run(params) { let f = |g| g.call(g); f.call(f) }", "budget_exceeded", &["deeper than 32 levels"]),
        ("double", "fn run(params) { let s = \"x\"; loop { s += s; } }", "budget_exceeded", &["too large", "string"]),
        ("pad", "fn run(params) { let s = \"x\"; s.pad(100000000, \"x\"); }", "budget_exceeded", &["too large", "string"]),
        ("array", "fn run(params) { let a = []; loop { a.push(1); } }", "budget_exceeded", &["too large", "array"]),
        ("array_double", "fn run(params) { let a = [1]; loop { a += a; } }", "budget_exceeded", &["too large", "array"]),
        ("array_pad", "fn run(params) { let a = []; a.pad(1000000000, 1); }", "budget_exceeded", &["too large", "array"]),
        ("nested", "fn run(params) { let a = [1]; loop { a = [a, a]; } }", "budget_exceeded", &["too large", "array"]),
        (
            "blob",
            "fn run(params) {\n    blob(1000000000)\n}",
            "action_failed",
            &["blob.rhai:2:5: ", "not found: blob", "   2 |     blob(1000000000)"],
        ),
        ("interpolation", "fn run(params) { let s = `${while true {}}`; s }", "budget_exceeded", &["more than 50000000 operations"]),
        ("retain", "fn run(params) { let a = [1, 2]; a.retain(|x| { loop {} }); }", "budget_exceeded", &["more than 50000000 operations"]),
        ("late_filter", "fn run(params) { [1].filter(|x| { loop { let y = [x]; } }) }", "timed_out", &["`timeout`"]),
        (
            "range",
            "fn run(params) { for i in 0..4611686018427387904 { let x = i; } }",
            "budget_exceeded",
            &["more than 50000000 operations"],
        ),
        (
            "map_keys",
            "fn run(params) { let m = #{}; let i = 0; loop { m[`k${i}`] = 1; i += 1; } }",
            "budget_exceeded",
            &["more than 64 MiB of memory"],
        ),
        ("map_nest", "fn run(params) { let m = #{a: 1}; loop { m = #{a: m, b: m}; } }", "budget_exceeded", &["too large", "map"]),
        ("regex_size", "fn run(params) { regex.matches(`(a{1000}){1000}`, \"a\") }", "action_failed", &["is too large; repeat less"]),
        (
            "regex_cost",
            "fn run(params) { let s = \"\"; s.pad(1000000, \"a\"); loop { regex.split(`(a*)*b|(x+x+)+y|a{9000}`, s); } }",
            "budget_exceeded",
            &["this expression costs too much for a text of 1000000 bytes"],
        ),
        ("sleep", "fn run(params) { sleep(3600); }", "action_failed", &["sleep.rhai:1:18: ", "not found: sleep"]),
        ("timestamp", "fn run(params) { timestamp() }", "action_failed", &["timestamp.rhai:1:18: ", "not found: timestamp"]),
        (
            "throw_text",
            "fn run(params) {\n    throw \"no luck\";\n}",
            "action_failed",
            &["throw_text.rhai:2:5: no luck", "   2 |     throw"],
        ),
        ("throw_map", "fn run(params) { throw #{ code: 7 }; }", "action_failed", &["throw_map.rhai:1:18: {\"code\":7}"]),
        (
            "throw_far",
            "fn f() {\n    g()\n}\nfn g() {\n    throw \"deep\"\n}\nfn run(params) { f() }",
            "action_failed",
            &["throw_far.rhai:5:5: deep"],
        ),
        ("zero", "fn run(params) { let a = 0;\n    1 / a }", "action_failed", &["zero.rhai:2:7: Division by zero"]),
        ("overflow", "fn run(params) { 9223372036854775807 + 1 }", "action_failed", &["overflow.rhai:1:38: ", "overflow"]),
        ("function", "fn run(params) { nope(1) }", "action_failed", &["function.rhai:1:18: Function not found: nope"]),
        ("index", "fn run(params) { let a = [1]; a[5] }", "action_failed", &["index.rhai:1:33: ", "index 5 out of bounds"]),
        (
            "huge",
            "fn run(params) { let s = \"\"; s.pad(600000, \"\\\"\"); s }",
            "output_too_large",
            &["the result is larger than 1048576 bytes"],
        ),
        (
            "channel",
            "fn run(params) { chat.send(\"nowhere\", \"x\"); }",
            "unknown_channel",
            &["channel.rhai:1:", "no channel `nowhere`", "it has ops"],
        ),
        (
            "scheme",
            "fn run(params) { http.get(\"file:///etc/passwd\") }",
            "action_failed",
            &["scheme.rhai:1:", "is not an http or https address"],
        ),
        (
            "http",
            "fn run(params) { http.get(\"http://127.0.0.1:9/\") }",
            "capability_missing",
            &[
                "http.rhai:1:",
                "pack `t` may not call http://127.0.0.1:9",
                "add `http: [\"http://127.0.0.1:9\"]` under `capabilities` in packs/t/pack.yaml",
            ],
        ),
        (
            "user",
            "fn run(params) { http.get(\"http://127.0.0.1:8@127.0.0.1:9/\") }",
            "capability_missing",
            &["may not call http://127.0.0.1:9;"],
        ),
        (
            "other_keys",
            "fn run(params) { kv.get(\"core\", \"x\") }",
            "capability_missing",
            &["other_keys.rhai:1:", "may not read the keys of `core`", "add `kv: {own: read_write, core: read}`"],
        ),
        (
            "long_key",
            "fn run(params) { let s = \"\"; s.pad(300, \"x\"); kv.set(s, 1); }",
            "action_failed",
            &["long_key.rhai:1:", "1 to 200 bytes"],
        ),
        (
            "large_key",
            "fn run(params) { let s = \"\"; s.pad(70000, \"x\"); kv.set(\"s\", s); }",
            "action_failed",
            &["large_key.rhai:1:", "65536 are allowed"],
        ),
        ("bad_json", "fn run(params) { json.parse(\"{\") }", "action_failed", &["bad_json.rhai:1:", "json.parse: EOF"]),
    ];
    let metadata = |name: &str| if name.starts_with("late") { "timeout: 300ms\n" } else { "" };
    let site =
        cases.iter().fold(TestSite::new().pack(&[]), |site, (name, script, ..)| actions(site, "t", &[(name, metadata(name), script)]));
    let server = Server::start(&site).await;
    let mut ids = Vec::new();
    for (name, ..) in cases {
        ids.push(request(&server, &format!("t.{name}")).await);
    }
    let told = server.run("core.notify", json!({"channel": "ops", "text": "still here"})).await;
    assert_eq!(told["status"], "succeeded", "another pack works meanwhile");
    let mut wrong = Vec::new();
    for ((name, _, reason, words), id) in cases.iter().zip(ids) {
        let execution = server.ended(&id).await;
        let (status, error) = (if *reason == "timed_out" { "timed_out" } else { "failed" }, text(&execution, "error"));
        if (text(&execution, "status"), text(&execution, "reason")) != (status, *reason) {
            wrong.push(format!("{name}: {} {} instead of {status} {reason}: {error}", execution["status"], execution["reason"]));
        }
        for word in words.iter().filter(|word| !error.contains(**word)) {
            wrong.push(format!("{name}: `{word}` is missing in: {error}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(server.run("core.notify", json!({"channel": "ops", "text": "as before"})).await["status"], "succeeded");
    assert!(!server.log().contains("panicked"), "{}", server.log());
}

#[tokio::test]
async fn what_uses_up_its_budget_is_told_with_its_place() {
    let cases = [
        ("loop", "fn run(params) {\n    let n = 0;\n    loop {}\n}", "loop.rhai: more than"),
        ("recursion", "fn f(n) {\n    f(n + 1)\n}\nfn run(params) {\n    f(0)\n}", "recursion.rhai"),
        (
            "double",
            "fn run(params) {\n    let s = \"x\";\n    loop {\n        s += s;\n    }\n}",
            "double.rhai: too large: Length of string",
        ),
        ("array", "fn run(params) {\n    let a = [];\n    loop { a.push(1); }\n}", "array.rhai: too large: Size of array"),
        ("throw_nothing", "fn run(params) {\n    throw;\n}", "throw_nothing.rhai:2:5: the script threw"),
    ];
    let site = cases.iter().fold(TestSite::new().pack(&[]), |site, (name, script, _)| actions(site, "t", &[(name, "", script)]));
    let server = Server::start(&site).await;
    let mut wrong = Vec::new();
    for (name, _, place) in cases {
        let execution = server.run(&format!("t.{name}"), json!({})).await;
        if !text(&execution, "error").contains(&format!("packs/t/actions/{place}")) {
            wrong.push(format!("`{place}` is missing in: {}", execution["error"]));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn scripts_that_would_break_the_parser_are_refused_when_they_are_loaded() {
    let wrap = |before: &str, count: usize, after: &str| format!("fn run(params) {{\n{}1{}\n}}", before.repeat(count), after.repeat(count));
    let cases = [
        ("parentheses", wrap("(", 5_000, ")"), "complexity"),
        ("sum", wrap("1 + ", 20_000, ""), "complexity"),
        ("arrays", wrap("[", 5_000, "]"), "complexity"),
        ("maps", wrap("#{a: ", 5_000, "}"), "complexity"),
        ("blocks", wrap("{", 5_000, "}"), "complexity"),
        ("calls", wrap("f(", 5_000, ")"), "complexity"),
        ("ifs", wrap("if true {", 5_000, "}"), "complexity"),
        ("elses", wrap("if params.a == 1 { 2 } else ", 20_000, ""), "complexity"),
        ("nots", wrap("!", 20_000, ""), "complexity"),
        ("dots", format!("fn run(params) {{\nparams{}\n}}", ".a".repeat(20_000)), "complexity"),
        ("templates", wrap("`${", 2_000, "}`"), "complexity"),
        ("eval", "fn run(params) {\neval(\"1\")\n}".to_string(), "'eval' is disabled"),
        ("import", "fn run(params) {\nimport \"os\" as os;\n}".to_string(), "'import'"),
        ("top", "let x = ;\nfn run(params) {}".to_string(), ""),
    ];
    let site = cases.iter().fold(TestSite::new().pack(&[]), |site, (name, script, _)| actions(site, "t", &[(name, "", script)]));
    let lint = site.cli(&["lint"]);
    let said = String::from_utf8(lint.stdout).unwrap();
    assert_eq!(lint.status.code(), Some(2), "{said}");
    for (name, _, words) in &cases {
        let line = if *name == "top" { 1 } else { 2 };
        let place = format!("packs/t/actions/{name}.rhai:{line}:");
        let fault = said.lines().find(|line| line.starts_with(&place)).unwrap_or_else(|| panic!("{place} is missing"));
        assert!(fault.contains(": error: ") && fault.contains(words), "{fault}");
    }
    assert!(said.contains(&format!("{} errors", cases.len())), "one fault each");
}

#[tokio::test]
async fn long_output_is_bounded() {
    let flood = "fn run(params) { let s = \"\"; s.pad(100000, \"x\"); for i in 0..500 { log.warn(s); print(s); } 1 }";
    let throw = "fn run(params) { let s = \"\"; s.pad(1000000, \"x\"); throw s; }";
    let say = "fn run(params) { let s = \"\"; s.pad(100000, \"x\"); chat.send(\"ops\", s); }";
    let site = actions(TestSite::new().pack(&[]), "t", &[("flood", "", flood), ("say", "", say), ("throw", "", throw)]);
    let server = Server::start(&site).await;
    let execution = server.run("t.flood", json!({})).await;
    let log = execution["log"].as_array().unwrap();
    assert_eq!((text(&execution, "status"), log.len()), ("succeeded", 101));
    assert!(log.iter().all(|line| text(line, "text").len() < 2_010));
    assert_eq!(text(&log[100], "text"), "more than 100 lines; the rest is not kept");
    let thrown = server.run("t.throw", json!({})).await;
    assert!(text(&thrown, "error").len() < 20_000, "an error of {} bytes", text(&thrown, "error").len());
    server.run("t.say", json!({})).await;
    let message = server.messages().await.remove(0).1;
    assert!(message.len() < 17_000 && message.ends_with("more bytes were cut)"), "{}", message.len());
}

#[tokio::test]
async fn a_deep_value_is_refused_before_it_harms() {
    let nest = |n: usize, then: &str| format!("fn run(params) {{ let a = []; for i in 0..{n} {{ a = [a]; }} {then} }}");
    let cases = [
        ("result", nest(200, "a"), "succeeded"),
        ("key", nest(200, "kv.set(\"k\", a);"), "action_failed"),
        ("deepest", nest(3_000, "a"), "succeeded"),
    ];
    let site = cases.iter().fold(TestSite::new().pack(&[]), |site, (name, script, _)| actions(site, "t", &[(name, "", script)]));
    let mut server = Server::start(&site).await;
    let mut wrong = Vec::new();
    for (name, _, reason) in &cases {
        let id = request(&server, &format!("t.{name}")).await;
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let (url, token) = (format!("{}/api/v1/executions/{id}", server.url), server.token.clone());
        let ended = eventually("its end, one way or the other", || async {
            let Ok(response) = client.get(&url).bearer_auth(&token).send().await else { return Some(Err("the server died".to_string())) };
            if response.status() != 200 {
                return Some(Err(response.text().await.unwrap_or_default()));
            }
            let execution: Value = serde_json::from_str(&response.text().await.unwrap_or_default()).unwrap_or_default();
            ["failed", "succeeded"].contains(&text(&execution, "status")).then_some(Ok(execution))
        })
        .await;
        match ended {
            Ok(execution) if text(&execution, "reason") == *reason => {
                // What was done is done: a result that has no JSON is left out, and the log says so.
                assert!(format!("{} {}", execution["error"], execution["log"]).contains("deep"), "{name}: {execution}");
                assert!(execution["result"].is_null(), "{name}: {execution}");
            }
            Ok(execution) => wrong.push(format!("{name}: {} {}", execution["status"], execution["reason"])),
            Err(what) => {
                wrong.push(format!("{name}: {what}"));
                drop(server);
                std::fs::remove_dir_all(site.path().join("data")).unwrap();
                server = Server::start(&site).await;
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(server.get("/api/v1/executions").await.0, 200);
}

/// The most memory that the server has used, in MiB.
fn peak_memory(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

#[tokio::test]
async fn one_script_cannot_take_all_memory() {
    let variables: String = (0..400).map(|n| format!("let v{n} = s + \"{n}\"; ")).collect();
    let start = "let s = \"\"; s.pad(1000000, \"x\");";
    let cases = [
        ("pushes", format!("{start} let a = []; for i in 0..400 {{ a.push(s + i); }}")),
        ("variables", format!("{start} {variables}")),
        ("map_index", format!("{start} let m = #{{}}; for i in 0..400 {{ m[`k${{i}}`] = s + i; }}")),
        ("array_index", format!("{start} let a = []; a.pad(400, 0); for i in 0..400 {{ a[i] = s + i; }}")),
        ("replace", "let s = \"\"; s.pad(600, \"a\"); let t = \"\"; t.pad(1000000, \"b\"); s.replace(\"a\", t);".to_string()),
    ];
    let mut wrong = Vec::new();
    let site = cases.iter().fold(TestSite::new().pack(&[]), |site, (name, script)| {
        actions(site, "t", &[(name, "timeout: 20s\n", &format!("fn run(params) {{ {script} }}"))])
    });
    let server = Server::start(&site).await;
    for (name, _) in &cases {
        let before = peak_memory(&server);
        let execution = server.run(&format!("t.{name}"), json!({})).await;
        let grown = peak_memory(&server).saturating_sub(before); // the system counts it in steps
        if text(&execution, "reason") != "budget_exceeded" || grown > 256 {
            wrong.push(format!("{name}: {} {}, took {grown} MiB more", execution["status"], execution["reason"]));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn a_script_of_slow_steps_ends_soon_after_its_timeout() {
    let slow = "fn run(params) { let s = \"\"; s.pad(500000, \"a\"); loop { let t = s; t.replace(\"a\", \"bb\"); } }";
    let site = actions(TestSite::new().pack(&[]), "t", &[("slow", "timeout: 200ms\n", slow)]);
    let server = Server::start(&site).await;
    let execution = server.run("t.slow", json!({})).await;
    assert_eq!(text(&execution, "status"), "timed_out");
    let at = |field: &str| DateTime::parse_from_rfc3339(text(&execution, field)).unwrap();
    let took = at("ended_at") - at("started_at");
    assert!(took < chrono::Duration::seconds(10), "a timeout of 200 ms took {took}");
}

#[tokio::test]
async fn the_outside_is_reached_only_as_granted() {
    let allowed = Target::answering(200, "{\"ok\": true}").await;
    let forbidden = Target::answering(200, "secret of another system").await;
    let (_silent, slow) = silent();
    let (nobody, redirector) = (dead(), redirecting(&forbidden.url));
    let get = |url: &str| format!("fn run(params) {{ http.get(\"{url}\") }}");
    let headers = format!(
        "fn run(params) {{ http.post(\"{}/mine\", #{{ body: \"x\", headers: #{{ \"Idempotency-Key\": \"mine\", \"Signalman-Cause\": \"none 0\" }} }}); }}",
        allowed.url
    );
    let caught = format!(
        "fn run(params) {{ try {{ http.get(\"{}\") }} catch (fault) {{ return `${{fault.reason}}: ${{fault.message}}`; }} }}",
        forbidden.url
    );
    let site = TestSite::new().pack(&[]).file(
        "packs/t/pack.yaml",
        &format!("ref: t\ncapabilities: {{http: [\"{}\", \"{redirector}\", \"{nobody}\", \"{slow}\"]}}\n", allowed.url),
    );
    let site = actions(
        site,
        "t",
        &[
            ("allowed", "", &format!("fn run(params) {{ http.get(\"{}/a?b=1\").json().ok }}", allowed.url)),
            ("other", "", &get(&forbidden.url)),
            ("caught", "", &caught),
            ("redirected", "", &get(&format!("{redirector}/go"))),
            ("dead", "", &get(&nobody)),
            ("slow", "timeout: 300ms\n", &get(&slow)),
            ("headers", "", &headers),
            ("option", "", &format!("fn run(params) {{ http.get(\"{}\", #{{ timeout: 5 }}) }}", allowed.url)),
            ("chat", "", "fn run(params) { chat.send(\"ops\", \"x\") }"),
            ("read", "", "fn run(params) { kv.get(\"x\") }"),
            ("write", "", "fn run(params) { kv.set(\"x\", 1) }"),
        ],
    )
    .file(
        "packs/t/actions/direct.yaml",
        &format!("runner_type: http-request\nparameters: {{url: {{default: \"{}/\", immutable: true}}}}\n", forbidden.url),
    );
    let server = Server::start(&site).await;
    assert_eq!(server.run("t.allowed", json!({})).await["result"], true);
    let add = |line: &str| format!("add `{line}` under `capabilities` in packs/t/pack.yaml");
    let grant = add(&format!("http: [\"{}\"]", forbidden.url));
    let cases: &[(&str, &str, &str, &[&str])] = &[
        ("other", "failed", "capability_missing", &["other.rhai:1:", &grant]),
        ("direct", "failed", "capability_missing", &[&grant]),
        ("redirected", "failed", "refused_by_target", &["redirected.rhai:1:", "/go answered 302"]),
        ("dead", "failed", "unreachable", &["dead.rhai:1:", &format!("GET {nobody}"), "refused"]),
        ("slow", "timed_out", "timed_out", &["`timeout`"]),
        ("option", "failed", "action_failed", &["http has no option `timeout`; it takes headers, query, json, body, expect"]),
        ("chat", "failed", "capability_missing", &["chat.rhai:1:", "may not send to chat", &add("chat: true")]),
        ("read", "failed", "capability_missing", &["read.rhai:1:", &add("kv: read")]),
        ("write", "failed", "capability_missing", &["write.rhai:1:", &add("kv: read_write")]),
    ];
    for (name, status, reason, words) in cases {
        let execution = server.run(&format!("t.{name}"), json!({})).await;
        assert_eq!((text(&execution, "status"), text(&execution, "reason")), (*status, *reason), "{name}: {}", execution["error"]);
        for word in *words {
            assert!(text(&execution, "error").contains(word), "{name}: `{word}` is missing in: {}", execution["error"]);
        }
    }
    let caught = server.run("t.caught", json!({})).await;
    assert!(text(&caught, "result").starts_with("capability_missing: pack `t` may not call"), "{caught}");
    assert_eq!(forbidden.received().len(), 0, "nobody was led astray");
    assert_eq!(server.messages().await, []);

    let id = text(&server.run("t.headers", json!({})).await, "id").to_string();
    let sent = allowed.received().into_iter().find(|request| request.path == "/mine").unwrap();
    assert_eq!(sent.header("signalman-cause"), Some(format!("{id} 0").as_str()), "a script cannot deny what it caused");
}

/// An address that sends everybody on to another.
fn redirecting(to: &str) -> String {
    let (listener, url) = silent();
    let answer = format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    url
}

/// A site with few threads for scripts, and pack `t` that may call a target which never answers.
fn crowded(threads: usize, slow: &str) -> TestSite {
    let settings = format!("listen: 127.0.0.1:0\nlimits: {{script_threads: {threads}}}\n");
    let site = TestSite::new().file("signalman.yaml", &settings).pack(&[]);
    let site = site.file("packs/t/pack.yaml", &format!("ref: t\ncapabilities: {{http: [\"{slow}\"]}}\n"));
    actions(
        site,
        "t",
        &[
            ("endless", "", "fn run(params) { loop { try { let s = \"\"; s.pad(100000, \"x\"); } catch { } } }"),
            ("waiting", "", &format!("fn run(params) {{ loop {{ try {{ http.get(\"{slow}\") }} catch {{ }} }} }}")),
            ("quick", "", "fn run(params) { 1 }"),
        ],
    )
}

#[tokio::test]
async fn a_canceled_script_gives_its_thread_back() {
    let (_silent, slow) = silent();
    // A third thread is kept for other packs.
    let site = crowded(3, &slow);
    let server = Server::start(&site).await;
    let filled = [request(&server, "t.endless").await, request(&server, "t.waiting").await];
    for id in &filled {
        is_running(&server, id).await;
    }
    let next = [request(&server, "t.quick").await, request(&server, "t.endless").await];
    let (_, waiting) = server.get(&format!("/api/v1/executions/{}", next[0])).await;
    assert_eq!(waiting["status"], "requested", "both threads are taken");
    let (status, canceled) = server.post(&format!("/api/v1/executions/{}/cancel", next[1]), &json!({})).await;
    assert_eq!((status, &canceled["status"], &canceled["attempt"]), (202, &json!("canceled"), &json!(0)), "what waits is canceled at once");
    let started = std::time::Instant::now();
    for id in &filled {
        let (status, canceled) = server.post(&format!("/api/v1/executions/{id}/cancel"), &json!({})).await;
        assert_eq!((status, &canceled["status"]), (202, &json!("canceling")), "{canceled}");
        let ended = server.ended(id).await;
        assert_eq!(
            (text(&ended, "status"), text(&ended, "reason"), text(&ended, "error")),
            ("canceled", "canceled", "canceled by token admin")
        );
    }
    assert!(started.elapsed() < Duration::from_secs(20), "it took {:?}, and its timeout is longer", started.elapsed());
    assert_eq!(server.ended(&next[0]).await["status"], "succeeded", "what waited runs now");
    let again = [request(&server, "t.waiting").await, request(&server, "t.waiting").await];
    for id in &again {
        is_running(&server, id).await;
    }
}

#[tokio::test]
async fn one_pack_leaves_threads_for_others() {
    for threads in [4, 2] {
        let (_silent, slow) = silent();
        let site = crowded(threads, &slow);
        let server = Server::start(&site).await;
        let mut ids = Vec::new();
        for _ in 0..threads * 2 {
            ids.push(request(&server, "t.waiting").await);
        }
        is_running(&server, &ids[0]).await;
        let (_, told) =
            server.post("/api/v1/executions", &json!({"action": "core.notify", "parameters": {"channel": "ops", "text": "here"}})).await;
        let path = format!("/api/v1/executions/{}", text(&told, "id"));
        let mut asked = 0;
        let status = eventually("another pack's action", || {
            asked += 1;
            let (server, path) = (&server, &path);
            async move {
                let status = server.get(path).await.1["status"].clone();
                (status == "succeeded" || asked > 100).then_some(status)
            }
        })
        .await;
        assert_eq!(status, "succeeded", "with {threads} threads, one pack takes them all");
    }
}

#[tokio::test]
async fn a_failed_attempt_is_followed_by_another_where_that_makes_sense() {
    let failures = std::sync::atomic::AtomicUsize::new(0);
    let target = Target::with(move |request| {
        let count = failures.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        if request.path == "/bad" {
            (400, "no".into())
        } else if count < 2 {
            (503, "later".into())
        } else {
            (200, "{}".into())
        }
    })
    .await;
    let post = |path: &str| {
        format!(
            "fn run(params) {{ log.info(`attempt ${{context.attempt}}`); http.post(\"{}{path}\", #{{ json: 1 }}); http.put(\"{}{path}\"); context.attempt }}",
            target.url, target.url
        )
    };
    let retry = "retry: {count: 2, delay: 0s}\n";
    let site = TestSite::new()
        .pack(&[])
        .file("packs/t/pack.yaml", &format!("ref: t\ncapabilities: {{http: [\"{}\"], kv: read_write}}\n", target.url));
    let count = "fn run(params) { kv.set(\"n\", (kv.get(\"n\") ?? 0) + 1); throw `time ${kv.get(\"n\")}`; }";
    let site = actions(
        site,
        "t",
        &[
            ("flaky", retry, &post("/flaky")),
            ("bad", retry, &post("/bad")),
            ("thrown", retry, count),
            ("once", "retry: {count: 2, delay: 0s, on: [timed_out]}\n", "fn run(params) { throw \"no\"; }"),
            ("refused", retry, "fn run(params) { chat.send(\"ops\", \"x\"); }"),
            ("broken", retry, "fn run(params) { nope() }"),
            ("late", "timeout: 100ms\nretry: {count: 1, delay: 0s}\n", "fn run(params) { loop { let s = \"\"; s.pad(100000, \"x\"); } }"),
        ],
    );
    let server = Server::start(&site).await;
    let execution = server.run("t.flaky", json!({})).await;
    assert_eq!(
        (text(&execution, "status"), &execution["attempt"], &execution["result"]),
        ("succeeded", &json!(3), &json!(3)),
        "{execution}"
    );
    assert_eq!(execution["log"].as_array().unwrap().len(), 1, "the log is that of the last attempt");
    let keys: Vec<String> = target.received().iter().map(|request| request.header("idempotency-key").unwrap().to_string()).collect();
    let id = text(&execution, "id");
    assert_eq!(keys, [format!("{id}-0"), format!("{id}-0"), format!("{id}-0"), format!("{id}-1")], "equal on every attempt");
    let cases = [
        ("bad", "refused_by_target", 1, "answered 400: no"),
        ("thrown", "action_failed", 3, "time 3"),
        ("once", "action_failed", 1, "no"),
        ("refused", "capability_missing", 1, "`chat: true`"),
        ("broken", "action_failed", 1, "not found: nope"),
        ("late", "timed_out", 2, "`timeout`"),
    ];
    for (name, reason, attempts, words) in cases {
        let execution = server.run(&format!("t.{name}"), json!({})).await;
        assert_eq!((text(&execution, "reason"), &execution["attempt"]), (reason, &json!(attempts)), "{name}: {execution}");
        assert!(text(&execution, "error").contains(words), "{name}: {execution}");
    }
}

const SECRET: &str = "k9-Zx7Qw2Rt5-secret-end";

/// Everything that the site shows of what ran: API, messages, log, answers to why.
async fn shown(server: &Server) -> String {
    let mut shown = server.log();
    for path in
        ["/api/v1/executions?limit=1000", "/api/v1/messages?limit=1000", "/api/v1/events?limit=1000", "/api/v1/packs", "/api/v1/actions"]
    {
        shown.push_str(&server.get(path).await.1.to_string());
    }
    shown
}

fn assert_hidden(what: &str, shown: &str, part: &str) {
    let around = shown.find(part).map(|at| shown[at.saturating_sub(300)..].chars().take(400).collect::<String>());
    assert_eq!(around, None, "{what} is shown");
}

/// A site whose pack `t` has a secret setting and may call the target.
fn with_secret(target: &Target) -> TestSite {
    let pack = format!(
        "ref: t\nconfig_schema: {{token: {{type: string, secret: true}}}}\ncapabilities: {{http: [\"{}\"], chat: true, kv: read_write}}\n",
        target.url
    );
    TestSite::new()
        .file("t.secret", &format!("{SECRET}\n"))
        .file("signalman.yaml", "listen: 127.0.0.1:0\nconfig: {t: {token: {file: t.secret}}}\n")
        .file("packs/t/pack.yaml", &pack)
}

#[tokio::test]
async fn a_secret_setting_is_sent_and_never_shown() {
    let target = Target::with(|request| (400, format!("you said {}", request.header("authorization").unwrap_or_default()))).await;
    let send = format!(
        "fn run(params) {{ http.post(\"{}/?t=\" + config.token, #{{ headers: #{{ authorization: config.token }} }}) }}",
        target.url
    );
    let site = actions(
        with_secret(&target),
        "t",
        &[
            ("log", "", "fn run(params) { log.info(config.token); print(config); debug(config.token); log.warn([config.token]); 1 }"),
            ("text", "", "fn run(params) { throw \"with \" + config.token; }"),
            ("map", "", "fn run(params) { throw #{ t: [config.token] }; }"),
            ("value", "", "fn run(params) { let m = #{ t: [config.token], c: config }; m[config.token] = 1; m }"),
            ("say", "", "fn run(params) { chat.send(\"ops\", `token ${config.token}`); chat.send(config.token, \"x\"); }"),
            ("send", "", &send),
            ("function", "", "fn run(params) { params.call_it(config.token) }"),
        ],
    );
    let server = Server::start(&site).await;
    for name in ["log", "text", "map", "value", "say", "send", "function"] {
        let execution = server.run(&format!("t.{name}"), json!({})).await;
        assert_hidden(name, &execution.to_string(), SECRET);
    }
    assert_hidden("the secret", &shown(&server).await, SECRET);
    assert_eq!(server.messages().await, [("ops".to_string(), "token ********".to_string())]);
    assert_eq!(target.received()[0].header("authorization"), Some(SECRET), "it can be sent");
}

#[tokio::test]
async fn a_part_of_a_secret_that_a_limit_cut_off_is_not_shown() {
    let target = Target::with(|request| (400, format!("{}{}", "y".repeat(485), request.header("authorization").unwrap_or_default()))).await;
    let send = format!("fn run(params) {{ http.post(\"{}\", #{{ headers: #{{ authorization: config.token }} }}) }}", target.url);
    let log = "fn run(params) { let s = \"\"; s.pad(1985, \"y\"); log.info(s + config.token); }";
    let say = "fn run(params) { let s = \"\"; s.pad(16370, \"y\"); chat.send(\"ops\", s + config.token); }";
    let site = actions(with_secret(&target), "t", &[("log", "", log), ("say", "", say), ("send", "", &send)]);
    let server = Server::start(&site).await;
    for name in ["log", "say", "send"] {
        server.run(&format!("t.{name}"), json!({})).await;
    }
    assert_hidden("the beginning of the secret", &shown(&server).await, &SECRET[..10]);
}

#[tokio::test]
async fn a_secret_parameter_is_masked_wherever_it_would_be_shown() {
    let parameters = "parameters: {token: {type: string, secret: true}, n: {type: integer}}\n";
    let site = actions(
        TestSite::new().pack(&[]),
        "t",
        &[
            ("fine", parameters, "fn run(params) { 1 }"),
            ("rude", parameters, "fn run(params) { log.info(params.token); chat.send(\"ops\", params.token); throw params.token; }"),
        ],
    )
    .file("packs/t/actions/echo.yaml", &format!("runner_type: noop\n{parameters}"))
    .file("rules/give.yaml", "trigger: {type: core.webhook}\naction: {ref: t.fine, parameters: {token: \"k9-{{trigger.rest}}\"}}\n");
    let server = Server::start(&site).await;
    let given = json!({"token": SECRET});
    let (status, asked) = server.post("/api/v1/executions", &json!({"action": "t.fine", "parameters": given})).await;
    assert_eq!((status, &asked["parameters"]["token"]), (202, &json!("********")));
    assert_eq!(server.ended(text(&asked, "id")).await["parameters"]["token"], "********");
    let (_, refused) = server.post("/api/v1/executions", &json!({"action": "t.fine", "parameters": {"token": SECRET, "n": "x"}})).await;
    assert_hidden("the parameter, refused,", &refused.to_string(), SECRET);
    let (_, answer) = server.webhook("generic", json!({"rest": &SECRET[3..]}).to_string()).await;
    let (_, why) = server.get(&format!("/api/v1/events/{}/why", text(&answer["events"][0], "id"))).await;
    let mut wrong = Vec::new();
    if why["rules"][0]["parameters"].to_string().contains(SECRET) {
        wrong.push(format!("why: {}", why["rules"][0]["parameters"]));
    }
    for name in ["rude", "echo"] {
        let execution = server.run(&format!("t.{name}"), given.clone()).await;
        for field in ["parameters", "result", "error", "log"] {
            if execution[field].to_string().contains(SECRET) {
                wrong.push(format!("{name}: {field}: {}", execution[field]));
            }
        }
    }
    for (_, message) in server.messages().await {
        if message.contains(SECRET) {
            wrong.push(format!("chat: {message}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn a_wrong_use_of_a_module_is_told_in_the_words_of_authors() {
    let cases = [
        ("number", "fn run(params) { http.get(7) }", "number.rhai:1:"),
        ("module", "fn run(params) { kv.set(\"k\", kv); }", "has no JSON"),
        ("pointer", "fn run(params) { kv.set(\"k\", |x| x + 1); }", "has no JSON"),
        ("reply", "fn run(params) { time.add(1, 2) }", "reply.rhai:1:"),
    ];
    let site = cases.iter().fold(TestSite::new().pack(&[]), |site, (name, script, _)| actions(site, "t", &[(name, "", script)]));
    let server = Server::start(&site).await;
    let mut wrong = Vec::new();
    for (name, _, words) in cases {
        let execution = server.run(&format!("t.{name}"), json!({})).await;
        let error = text(&execution, "error");
        assert!(error.contains(words), "{name}: {error}");
        if error.contains("signalman::") || error.contains("ImmutableString") {
            wrong.push(format!("{name}: {error}"));
        }
    }
    assert!(wrong.is_empty(), "names of Rust types:\n{}", wrong.join("\n"));
}

/// Templates of messages: each ends in a clear error with its place, or in a text with bounds.
#[test]
fn hostile_templates_end_and_say_why() {
    use signalman::document::{fault::SourceFile, node};
    use signalman::template::message::MessageTemplate;
    use signalman::template::text::{Data, TemplateError};

    let path = crate::harness::repository().join("tests/fixtures/templates/hostile.yaml");
    let source = SourceFile::new("hostile.yaml", std::fs::read_to_string(path).unwrap());
    let cases = node::parse(&source).unwrap_or_else(|fault| panic!("{fault}")).value();
    let rows: Vec<Value> = (0..10_000).map(|n| json!({"n": n})).collect();
    let data = Data::new(json!({
        "execution": {"id": "X"}, "parameters": {}, "result": {"rows": rows}, "user": "<b>li</b> {{x}}", "channel": "ops",
    }));
    let told = |error: &TemplateError| format!("{}:{} {error}", error.line.unwrap_or(0), error.column.unwrap_or(0));
    let mut wrong = Vec::new();
    for case in cases.as_array().unwrap() {
        let source = match case["repeat"].as_str() {
            Some(part) => part.repeat(usize::try_from(case["times"].as_u64().unwrap()).unwrap()),
            None => case["source"].as_str().unwrap().to_string(),
        };
        let came = MessageTemplate::compile("t", &source)
            .map_err(|errors| errors.iter().map(told).collect::<Vec<_>>().join("; "))
            .and_then(|template| template.render(&data).map_err(|error| told(&error)));
        let fits = match (&came, case["error"].as_str(), case["text"].as_str(), case["at_most"].as_u64()) {
            (Err(error), Some(part), _, _) => error.contains(part),
            (Ok(text), _, Some(expected), _) => text == expected,
            (Ok(text), _, None, Some(most)) => text.len() as u64 <= most,
            _ => false,
        };
        if !fits {
            let shown: String = format!("{came:?}").chars().take(300).collect();
            wrong.push(format!("{}: {shown}", case["name"]));
        }
    }
    assert!(cases.as_array().unwrap().len() >= 25);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
