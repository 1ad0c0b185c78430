//! What scripts can call: every function of every module by its example, and what each module refuses.

use serde_json::{Value, json};
use signalman::script::host::MODULES;

use crate::harness::{Server, Target, TestSite};

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
