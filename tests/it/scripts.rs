//! What scripts can call: every function of every module by its example, and what each module refuses.

use serde_json::{Value, json};
use signalman::script::host::MODULES;

use crate::harness::{Server, Shell, Target, TestSite, eventually};

/// Adds an action of pack `t` that a script carries out.
fn action(site: TestSite, name: &str, script: &str) -> TestSite {
    site.file(&format!("packs/t/actions/{name}.yaml"), "runner_type: rhai\n").file(&format!("packs/t/actions/{name}.rhai"), script)
}

/// A site whose pack `t` may do what is said, with the address of a target.
fn site(capabilities: &str, url: &str) -> TestSite {
    let pack = format!("ref: t\nconfig_schema: {{url: {{type: string}}}}\ncapabilities: {capabilities}\n");
    TestSite::new()
        .file("packs/t/pack.yaml", &pack)
        .file("signalman.yaml", &format!("listen: 127.0.0.1:0\nconfig: {{t: {{url: \"{url}\"}}}}\n"))
}

#[tokio::test]
async fn every_function_does_what_its_example_says() {
    let target = Target::answering(200, "{\"ok\": true}").await;
    let may = "{http: [\"{{config.url}}\"], kv: read_write, chat: true, process: [echo, cat], actions: [\"core.*\"]}";
    let mut site = site(may, &target.url);
    let mut examples = Vec::new();
    for module in MODULES {
        for (index, function) in module.functions.iter().enumerate() {
            let name = format!("{}_{index}", module.name);
            site = action(site, &name, &format!("fn run(params) {{\n    {}\n}}", function.example));
            examples.push((name, function));
        }
    }
    let server = Server::start(&site).await;
    let mut wrong = Vec::new();
    for (name, function) in examples {
        let execution = server.run(&format!("t.{name}"), json!({})).await;
        let gave = execution["result"].clone();
        let expected = if function.gives.is_empty() { Ok(gave.clone()) } else { serde_json::from_str::<Value>(function.gives) };
        if execution["status"] != "succeeded" || expected.as_ref().ok() != Some(&gave) {
            wrong.push(format!("{}: {} {} gave {gave}, {expected:?} is said", function.signature, execution["status"], execution["error"]));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn functions_say_what_they_are() {
    for module in MODULES {
        for function in module.functions {
            assert!(function.signature.starts_with(&format!("{}.{}(", module.name, function.name())), "{}", function.signature);
            assert!(function.summary.ends_with('.') && !function.example.is_empty(), "{}", function.signature);
        }
    }
}

#[test]
fn every_fault_of_every_script_is_found_when_the_site_is_read() {
    let site = action(site("{}", "http://127.0.0.1:9"), "first", "fn run(params) {\n    htpp.get(config.url);\n    http.gt(confg.url)\n}");
    let site = action(site, "second", "fn run(params) {\n    let x = ;\n}");
    let said = String::from_utf8(site.cli(&["lint"]).stdout).unwrap();
    let expected = "\
packs/t/actions/first.rhai:2:5: error: there is no variable `htpp`; did you mean `http`?
     2 |     htpp.get(config.url);
       |     ^

packs/t/actions/first.rhai:3:10: error: `http` has no function `gt`; did you mean `get`?
     3 |     http.gt(confg.url)
       |          ^

packs/t/actions/first.rhai:3:13: error: there is no variable `confg`; did you mean `config`?
     3 |     http.gt(confg.url)
       |             ^

packs/t/actions/second.rhai:2:13: error: ";
    assert!(said.starts_with(expected), "{said}");
}

#[tokio::test]
async fn an_error_tells_the_place_and_the_calls_that_led_there() {
    let script = "fn run(params) {\n    [1].map(|x| remember(x))\n}\nfn remember(x) {\n    kv.set(\"a\", x);\n}\n";
    let server_site = action(site("{}", "http://127.0.0.1:9"), "far", script);
    let server_site = action(server_site, "arguments", "fn run(params) {\n    hash.sha256(1)\n}");
    let server_site = action(server_site, "near", "fn run(params) {\n    rember(1)\n}\nfn remember(x) {}");
    let server = Server::start(&server_site).await;
    let error = |execution: Value| execution["error"].as_str().unwrap_or_default().to_string();
    assert_eq!(
        error(server.run("t.far", json!({})).await),
        "packs/t/actions/far.rhai:5:8: pack `t` may not write its keys; to allow it, add `kv: read_write` under `capabilities` in \
         packs/t/pack.yaml\n     5 |     kv.set(\"a\", x);\n       |        ^\n       = in `remember`, called at 2:17\n       = in a closure, \
         called at 2:9\n       = in `map`, called at 2:9"
    );
    assert_eq!(
        error(server.run("t.arguments", json!({})).await),
        "packs/t/actions/arguments.rhai:2:10: Function not found: sha256 (hash, i64); it is called as `hash.sha256(text)`\n     2 |     \
         hash.sha256(1)\n       |          ^"
    );
    assert_eq!(
        error(server.run("t.near", json!({})).await),
        "packs/t/actions/near.rhai:2:5: Function not found: rember (i64); did you mean `remember`?\n     2 |     rember(1)\n       |     ^"
    );
}

/// A site with an action `wait` that waits for a silent target, and others that run actions.
fn family(threads: usize, url: &str, scripts: &[(&str, &str, &str)]) -> TestSite {
    let site = site("{http: [\"{{config.url}}\"], kv: read_write, actions: [\"t.*\", core.noop]}", url);
    let settings = format!("listen: 127.0.0.1:0\nlimits: {{script_threads: {threads}}}\nconfig: {{t: {{url: \"{url}\"}}}}\n");
    scripts.iter().fold(site.file("signalman.yaml", &settings), |site, (name, metadata, script)| {
        site.file(&format!("packs/t/actions/{name}.yaml"), &format!("runner_type: rhai\n{metadata}"))
            .file(&format!("packs/t/actions/{name}.rhai"), script)
    })
}

#[tokio::test]
async fn a_script_runs_other_actions_once_however_often_it_is_tried() {
    let scripts = [
        (
            "child",
            "parameters: {by: {type: integer}}\n",
            "fn run(params) { let n = (kv.get(\"n\") ?? 0) + params.by; kv.set(\"n\", n); n }",
        ),
        (
            "parent",
            "retry: {count: 1, delay: 1ms}\n",
            "fn run(params) {\n let first = actions.run(\"t.child\", #{by: 2});\n let id = actions.start(\"core.noop\");\n if context.attempt == 1 { \
             throw \"again\"; }\n [first, actions.run(\"t.child\", #{by: 3}), id]\n}",
        ),
        ("fails", "", "fn run(params) { throw \"no luck\" }"),
        ("asks", "", "fn run(params) { actions.run(\"t.fails\") }"),
        ("catches", "", "fn run(params) { try { actions.run(\"t.fails\") } catch (e) { return e.message.contains(\"no luck\"); } }"),
        ("circle", "", "fn run(params) { actions.run(\"t.circle\") }"),
        ("wrong", "", "fn run(params) { actions.run(\"t.child\", #{buy: 1}) }"),
        ("unknown", "", "fn run(params) { actions.run(\"t.chidl\") }"),
        ("beyond", "", "fn run(params) { actions.run(\"core.notify\", #{channel: \"ops\", text: \"x\"}) }"),
    ];
    let site = family(4, "http://127.0.0.1:9", &scripts);
    let server = Server::start(&site).await;
    let parent = server.run("t.parent", json!({})).await;
    assert_eq!((&parent["result"][0], &parent["result"][1], &parent["attempt"]), (&json!(2), &json!(5), &json!(2)), "{parent}");
    let (_, all) = server.get("/api/v1/executions?limit=1000").await;
    let all = all["executions"].as_array().unwrap();
    let children: Vec<&Value> = all.iter().filter(|execution| execution["parent"] == parent["id"]).collect();
    assert_eq!(children.len(), 3, "{children:#?}");
    assert!(children.iter().all(|child| child["depth"] == 1 && child["requested_by"] == json!({"execution": parent["id"]})));
    let error = |execution: Value| execution["error"].as_str().unwrap_or_default().to_string();
    let asks = error(server.run("t.asks", json!({})).await);
    assert!(
        asks.starts_with("packs/t/actions/asks.rhai:1:26: t.fails (")
            && asks.contains(") failed: packs/t/actions/fails.rhai:1:18: no luck"),
        "{asks}"
    );
    assert_eq!(server.run("t.catches", json!({})).await["result"], true);
    let circle = error(server.run("t.circle", json!({})).await);
    assert!(circle.contains("refused as a loop"), "{circle}");
    for (action, reason, words) in [
        ("wrong", "parameters_failed", "the action has no parameter `buy`; it takes by"),
        ("unknown", "unknown_action", "did you mean `t.child`?"),
        (
            "beyond",
            "capability_missing",
            "pack `t` may not run `core.notify`; to allow it, add `actions: [\"core.notify\"]` under `capabilities` in packs/t/pack.yaml",
        ),
    ] {
        let execution = server.run(&format!("t.{action}"), json!({})).await;
        assert_eq!(execution["reason"], reason, "{execution}");
        assert!(execution["error"].as_str().unwrap().contains(words), "{execution}");
    }
}

#[tokio::test]
async fn scripts_that_wait_for_others_keep_nobody_from_running() {
    let scripts = [
        ("leaf", "", "fn run(params) { 1 }"),
        ("middle", "", "fn run(params) { actions.run(\"t.leaf\") + actions.run(\"t.leaf\") }"),
        ("top", "", "fn run(params) { actions.run(\"t.middle\") + 1 }"),
    ];
    let site = family(2, "http://127.0.0.1:9", &scripts);
    let server = Server::start(&site).await;
    let mut ids = Vec::new();
    for _ in 0..20 {
        let (status, execution) = server.post("/api/v1/executions", &json!({"action": "t.top"})).await;
        assert_eq!(status, 202, "{execution}");
        ids.push(execution["id"].as_str().unwrap().to_string());
    }
    for id in ids {
        assert_eq!(server.ended(&id).await["result"], 3);
    }
}

#[tokio::test]
async fn canceling_a_script_cancels_what_it_waits_for() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let scripts = [("hangs", "", "fn run(params) { http.get(config.url) }"), ("parent", "", "fn run(params) { actions.run(\"t.hangs\") }")];
    let site = family(2, &url, &scripts);
    let server = Server::start(&site).await;
    let (status, parent) = server.post("/api/v1/executions", &json!({"action": "t.parent"})).await;
    assert_eq!(status, 202, "{parent}");
    let id = parent["id"].as_str().unwrap();
    let child = eventually("the child to run", || async {
        let (_, all) = server.get("/api/v1/executions").await;
        let child =
            all["executions"].as_array().unwrap().iter().find(|child| child["parent"] == parent["id"] && child["status"] == "running");
        child.map(|child| child["id"].as_str().unwrap().to_string())
    })
    .await;
    let (status, _) = server.post(&format!("/api/v1/executions/{id}/cancel"), &json!({})).await;
    assert_eq!(status, 202);
    assert_eq!(server.ended(id).await["status"], "canceled");
    assert_eq!(server.ended(&child).await["status"], "canceled");
}

/// What a script is refused, and the words in which it is told: snapshots of whole messages.
#[tokio::test]
async fn no_trick_leads_past_a_capability() {
    let evil = Target::answering(200, "{}").await;
    let evil_url = evil.url.clone();
    let granted = Target::replying(move |request| match request.path.as_str() {
        "/far" => (302, vec![("location", format!("{evil_url}/secret"))], String::new()),
        "/user" => (302, vec![("location", format!("http://127.0.0.1@{}/", evil_url.trim_start_matches("http://")))], String::new()),
        "/near" => (302, vec![("location", "/here".to_string())], String::new()),
        "/circle" => (302, vec![("location", "/circle".to_string())], String::new()),
        _ => (200, Vec::new(), "\"here\"".to_string()),
    })
    .await;
    let line = |capability: &str| format!("; to allow it, add `{capability}` under `capabilities` in packs/t/pack.yaml");
    let (at, far) = (granted.url.clone(), evil.url.clone());
    let host = |url: &str| url.trim_start_matches("http://").to_string();
    let http = |what: &str, origin: &str| format!("pack `t` may not {what} {origin}{}", line(&format!("http: [\"{origin}\"]")));
    let cases: Vec<(&str, String, String)> = vec![
        ("follows", "http.get(config.url + \"/near\", #{follow: true}).json()".into(), String::new()),
        (
            "not_followed",
            "http.get(config.url + \"/near\")".into(),
            format!("GET {at}/near answered 302: ; it leads to /here, and redirects are followed with `follow: true` only"),
        ),
        ("far", "http.get(config.url + \"/far\", #{follow: true})".into(), http("follow a redirect to", &far)),
        ("user", "http.get(config.url + \"/user\", #{follow: true})".into(), http("follow a redirect to", &far)),
        (
            "circle",
            "http.get(config.url + \"/circle\", #{follow: true})".into(),
            format!("GET {at}/circle was redirected more than 5 times"),
        ),
        ("post", "http.post(config.url, #{follow: true})".into(), "http: `follow` must be true or false, and is for GET and HEAD".into()),
        ("userinfo", format!("http.get(\"http://{}@{}/\")", host(&at), host(&far)), http("call", &far)),
        ("number", "http.get(\"http://2130706433:1/\")".into(), http("call", "http://127.0.0.1:1")),
        ("backslash", format!("http.get(\"http://{}\\\\@{}/\")", host(&far), host(&at)), http("call", &far)),
        ("unicode", "http.get(\"http://ｅｘａｍｐｌｅ.test/\")".into(), http("call", "http://example.test:80")),
        ("cyrillic", "http.get(\"http://gооgle.test/\")".into(), http("call", "http://xn--ggle-55da.test:80")),
        ("file", "http.get(\"file:///etc/passwd\")".into(), "http: `file:///etc/passwd` is not an http or https address".into()),
        (
            "socket",
            "http.get(\"http+unix://%2Frun%2Fdocker.sock/info\")".into(),
            "http: `http+unix://%2Frun%2Fdocker.sock/info` is not an http or https address".into(),
        ),
        (
            "keys",
            "kv.get(\"core\", \"x\")".into(),
            format!("pack `t` may not read the keys of `core`{}", line("kv: {own: read_write, core: read}")),
        ),
        (
            "action",
            "actions.run(\"links.alert\")".into(),
            format!("pack `t` may not run `links.alert`{}", line("actions: [\"links.alert\"]")),
        ),
        ("chat", "chat.send(\"ops\", \"x\")".into(), format!("pack `t` may not send to chat{}", line("chat: true"))),
    ];
    let mut site = site("{http: [\"{{config.url}}\"], actions: [\"core.*\"], process: [echo, sh]}", &granted.url);
    for (name, call, _) in &cases {
        site = action(site, name, &format!("fn run(params) {{\n    {call}\n}}"));
    }
    let server = Server::start(&site).await;
    let mut wrong = Vec::new();
    for (name, _, message) in &cases {
        let execution = server.run(&format!("t.{name}"), json!({})).await;
        let error = execution["error"].as_str().unwrap_or_default();
        let told = error.lines().next().unwrap_or_default().split_once(": ").map_or("", |(_, told)| told);
        if told != message {
            wrong.push(format!("{name}: {told}\n    instead of: {message}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(evil.received().is_empty(), "nothing got through: {:?}", evil.received());
}

#[test]
fn a_script_stays_inside_the_site() {
    let site =
        site("{}", "http://127.0.0.1:9").file("packs/t/actions/a.yaml", "runner_type: rhai\nentry_point: ../../../../etc/hostname\n");
    std::fs::write(site.path().join("outside.rhai"), "fn run(params) {}").unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("b.rhai"), "fn run(params) {}").unwrap();
    let site = site.file("packs/t/actions/b.yaml", "runner_type: rhai\n");
    std::os::unix::fs::symlink(folder.path().join("b.rhai"), site.path().join("packs/t/actions/b.rhai")).unwrap();
    let said = String::from_utf8(site.cli(&["lint"]).stdout).unwrap();
    assert!(said.contains("the script `packs/t/actions/b.rhai` leads out of the site folder"), "{said}");
    assert!(
        said.lines().any(|line| line.contains("a.yaml") && line.contains("the script `packs/t/actions/../../../../etc/hostname`")),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_says_what_would_be_done_and_changes_nothing() {
    let target = Target::answering(200, "{\"instances\": 3}").await;
    let plan = "fn run(params) { kv.set(\"ran\", 1); }\nfn plan(params) {\n    let now = http.get(config.url).json().instances;\n    \
                log.info(\"looked\");\n    `${params.app}: ${now} → ${now + params.by}`\n}";
    let mut site = site("{http: [\"{{config.url}}\"], kv: read_write, chat: true, process: [echo], actions: [\"*\"]}", &target.url)
        .file("packs/t/actions/scale.yaml", "runner_type: rhai\nparameters: {app: {type: string, required: true}, by: {type: integer}}\n")
        .file("packs/t/actions/scale.rhai", plan);
    let refused = [
        ("post", "http.post(config.url)", "http.post would change something; `plan` may only look"),
        ("key", "kv.set(\"a\", 1)", "kv.set would change something"),
        ("say", "chat.send(\"ops\", \"x\")", "chat.send would change something"),
        ("other", "actions.run(\"core.noop\")", "actions.run would change something"),
    ];
    for (name, call, _) in refused {
        site = action(site, name, &format!("fn run(params) {{}}\nfn plan(params) {{ {call} }}"));
    }
    let site = action(site, "none", "fn run(params) {}");
    let shell = Shell::start(site).await;
    shell.say(&["run", "--plan", "t.scale", "app=shop", "by:=2"]).out(0, &["shop: 3 → 5", "looked"]);
    shell.say(&["run", "--plan", "t.scale", "by:=2"]).err(2, &["app"]);
    for (name, _, words) in refused {
        shell.say(&["run", "--plan", &format!("t.{name}")]).err(1, &[words]);
    }
    shell.say(&["run", "--plan", "t.none"]).err(1, &["has no `fn plan(params)`"]);
    shell.say(&["run", "--plan", "core.echo", "text=x"]).err(1, &["its runner `noop` has no plans"]);
    assert_eq!(shell.server.get("/api/v1/executions").await.1["executions"], json!([]), "nothing was run");
    assert!(target.received().iter().all(|request| request.method == "GET"));
}
