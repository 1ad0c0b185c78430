//! Secrets and tokens: set, used, turned over, and never shown, whichever way they take.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use signalman::api::routes::{self, Method};
use signalman::auth::{Role, Tokens};
use signalman::clock::{Clock, SimulatedClock};
use signalman::config::SecretKeys;
use signalman::model::ids::IdSource;
use signalman::model::principal::Principal;
use signalman::model::seal::{Keyring, SealKey};
use signalman::model::secret::Secret;
use signalman::secrets::{SecretError, Secrets};
use signalman::store::memory::MemorySpace;

use crate::harness::{Said, Server, Shell, Target, TestSite, binary, memory};

/// Runs the command line with a text on its standard input.
fn say_with(site: &TestSite, arguments: &[&str], input: &str) -> Said {
    let mut child = Command::new(binary())
        .arg("--site")
        .arg(site.path())
        .args(arguments)
        .env_remove("SIGNALMAN_TOKEN")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes()); // a refusal comes before it reads
    Said::of(child.wait_with_output().unwrap())
}

/// Every file of a folder that holds the text, below it.
fn files_with(folder: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files_with(&path, text));
        } else if std::fs::read(&path).unwrap_or_default().windows(text.len()).any(|window| window == text.as_bytes()) {
            found.push(path.display().to_string());
        }
    }
    found
}

const HOOK: &str = "name: hook\nkind: webhook\ndecoder: generic\ntrigger: core.webhook\nauth: {bearer: {secret: hook_token}}\n";

fn with_hook() -> TestSite {
    TestSite::new().file("packs/core/sensors/hook.yaml", HOOK)
}

#[tokio::test]
async fn a_site_that_names_a_secret_gets_it_and_a_new_one_takes_effect_at_once() {
    let site = with_hook();
    let lint = Said::of(site.cli(&["lint"])).out(0, &["warning: secret `hook_token` is not checked: the store is not open"]);
    assert!(!lint.out.contains("error:"), "{}", lint.out);
    let log = Server::try_start(&site, &[]).await.err().expect("the site cannot start");
    assert!(log.contains("there is no secret `hook_token`") && log.contains("signalman secret set hook_token --offline"), "{log}");
    assert!(log.contains("hook.yaml:5"), "{log}");

    say_with(&site, &["secret", "set", "hook_token", "--offline"], "first-token-1\n").out(0, &["hook_token is set"]);
    say_with(&site, &["secret", "set", "empty", "--offline"], "").err(2, &["the value is empty"]);
    say_with(&site, &["secret", "set", "a b", "--offline"], "x").err(2, &["a secret's name has"]);
    Said::of(site.cli(&["lint", "--strict"])).out(0, &["0 errors, 0 warnings"]);
    let key = site.path().join("data/secret.key");
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);

    let shell = Shell::start(site).await;
    let server = &shell.server;
    let post = |token: &'static str| async move { server.webhook_with("hook", "{}", &[("authorization", token)]).await };
    assert_eq!(post("Bearer first-token-1").await.0, 202);
    assert_eq!(post("Bearer ").await.0, 401);
    say_with(&shell.site, &["secret", "set", "x", "--offline"], "y").err(1, &["leave out --offline"]);
    let set = |name: &str, value: &str| say_with(&shell.site, &["secret", "set", name, "--server", &shell.server.url], value);
    set("hook_token", "second-token-2\n").out(0, &["hook_token is set", "the site was read again and uses it"]);
    assert_eq!(post("Bearer first-token-1").await.0, 401, "the old one is of no use");
    assert_eq!(post("Bearer second-token-2").await.0, 202);
    set("other", "ab").err(0, &["warning: the value is shorter than 4 bytes"]);
    shell.say(&["secret", "list"]).out(0, &["hook_token", "token admin", "packs/core/sensors/hook.yaml:5", "other"]);
    shell.say(&["secret", "delete", "hook_token"]).err(1, &["is named in packs/core/sensors/hook.yaml:5"]);
    shell.say(&["secret", "delete", "nothing"]).err(1, &["there is no secret `nothing`"]);

    let before = std::fs::read_to_string(&key).unwrap();
    shell.say(&["secret", "rotate"]).out(0, &["2 secrets are sealed with key"]);
    let keys = |text: &str| text.lines().filter(|line| !line.starts_with('#')).map(ToString::to_string).collect::<Vec<_>>();
    let rotated = std::fs::read_to_string(&key).unwrap();
    assert_eq!((keys(&rotated).len(), &keys(&rotated)[1]), (2, &keys(&before)[0]));
    shell.say(&["secret", "rotate", "--forget"]).out(0, &["2 secrets"]);
    assert_eq!(keys(&std::fs::read_to_string(&key).unwrap()).len(), 1);
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    let Shell { site, server } = shell;
    server.stop();
    let shell = Shell::start(site).await;
    assert_eq!(shell.server.webhook_with("hook", "{}", &[("authorization", "Bearer second-token-2")]).await.0, 202);
    shell.say(&["secret", "delete", "hook_token", "--force"]).out(0, &["hook_token is deleted"]);
    shell.say(&["reload"]).err(2, &["there is no secret `hook_token`"]);
    assert_eq!(files_with(&shell.site.path().join("data"), "token-2"), Vec::<String>::new());
}

#[tokio::test]
async fn keys_that_the_site_names_and_keys_that_are_gone() {
    let (one, two) = ("11".repeat(32), "22".repeat(32));
    let site = with_hook().file("key-1", &one).file("key-2", &two);
    site.write("signalman.yaml", "listen: 127.0.0.1:0\nsecret_key: {file: key-1}\n");
    say_with(&site, &["secret", "set", "hook_token", "--offline"], "a-token\n").out(0, &[]);
    assert!(!site.path().join("data/secret.key").exists());
    // The new one first, the old one behind it, until all is sealed anew.
    site.write("signalman.yaml", "listen: 127.0.0.1:0\nsecret_key: [{file: key-2}, {file: key-1}]\n");
    let shell = Shell::start(site).await;
    shell.say(&["secret", "rotate"]).out(0, &["1 secrets are sealed with key"]);
    let Shell { site, server } = shell;
    server.stop();
    site.write("signalman.yaml", "listen: 127.0.0.1:0\nsecret_key: {file: key-2}\n");
    let server = Server::start(&site).await;
    server.stop();
    site.write("signalman.yaml", "listen: 127.0.0.1:0\nsecret_key: {file: key-1}\n");
    let log = Server::try_start(&site, &[]).await.err().expect("the key does not fit");
    assert!(log.contains("secret `hook_token` cannot be opened: it is sealed with the key"), "{log}");
    site.write("signalman.yaml", "listen: 127.0.0.1:0\n");
    let log = Server::try_start(&site, &[]).await.err().expect("there is no key");
    assert!(log.contains("secret.key` is not there, and 1 secrets are sealed with its keys"), "{log}");
    site.write("signalman.yaml", "listen: 127.0.0.1:0\nsecret_key: {file: signalman.yaml}\n");
    Said::of(site.cli(&["lint"])).out(2, &["a key is 32 bytes in hexadecimal or base64"]);
}

#[tokio::test]
async fn a_rotation_that_is_cut_short_loses_nothing() {
    let (folder, ids) = (tempfile::tempdir().unwrap(), Arc::new(IdSource::seeded(1)));
    let store = memory(&MemorySpace::default());
    let open = || async { Secrets::open(&SecretKeys::File, folder.path(), &*store, &ids).await };
    let at = chrono::DateTime::from_timestamp(1_700_000_000, 0).unwrap();
    let secrets = open().await.unwrap();
    for name in ["a", "b"] {
        secrets.set(&*store, name, &Secret::new(format!("value of {name}")), "li", at).await.unwrap();
    }
    let path = folder.path().join("secret.key");
    let old = std::fs::read_to_string(&path).unwrap();
    secrets.rotate(&*store, false, "li", at).await.unwrap();
    let both = std::fs::read_to_string(&path).unwrap();
    let all = |secrets: Secrets| {
        let store = Arc::clone(&store);
        async move { secrets.values(&*store).await.map(|values| values.values().map(|value| value.reveal().to_string()).collect::<Vec<_>>()) }
    };
    let expected = ["value of a", "value of b"];
    // After the commit; and with a further key that was written before the crash, and is used by nothing.
    assert_eq!(all(open().await.unwrap()).await.unwrap(), expected);
    std::fs::write(&path, format!("{}\n{both}", SealKey::new([7; 32]).written())).unwrap();
    let secrets = open().await.unwrap();
    assert_eq!(secrets.rotate(&*store, true, "li", at).await.unwrap().0, 2);
    assert_eq!(all(open().await.unwrap()).await.unwrap(), expected);
    // The key of long ago opens nothing any more, and says so.
    std::fs::write(&path, old).unwrap();
    assert!(matches!(all(open().await.unwrap()).await, Err(SecretError::Closed { .. })));
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(open().await, Err(SecretError::KeysGone { count: 2, .. })));
    let given = SecretKeys::Given(Keyring::new(SealKey::new([1; 32]), vec![]));
    assert!(Secrets::open(&given, folder.path(), &*store, &ids).await.is_ok());
}

#[tokio::test]
async fn tokens_have_an_end_and_are_known_after_a_restart() {
    let (folder, ids, store) = (tempfile::tempdir().unwrap(), Arc::new(IdSource::seeded(1)), memory(&MemorySpace::default()));
    let clock = Arc::new(SimulatedClock::at(chrono::DateTime::from_timestamp(1_700_000_000, 0).unwrap()));
    let open = || async { Tokens::open(&store, folder.path(), &ids, &(Arc::clone(&clock) as Arc<dyn Clock>)).await.unwrap() };
    let tokens = open().await;
    let day = Some(Duration::from_secs(86_400));
    let (ci, li) =
        (tokens.create("ci", Role::Ingest, day, "x").await.unwrap(), tokens.create("li", Role::Viewer, None, "x").await.unwrap());
    assert!(tokens.create("ci", Role::Admin, None, "x").await.is_err() && tokens.create("admin", Role::Admin, None, "x").await.is_err());
    let tokens = open().await;
    assert_eq!(tokens.principal(ci.reveal()), Some(Principal::Token("ci".into())));
    assert_eq!(tokens.role(&Principal::Token("ci".into())), Some(Role::Ingest));
    assert_eq!((tokens.principal("x"), tokens.principal("")), (None, None));
    assert_eq!(tokens.list()[1].last_used_at, Some(clock.now()));
    clock.advance(Duration::from_secs(86_399));
    assert!(tokens.principal(ci.reveal()).is_some());
    clock.advance(Duration::from_secs(1));
    assert!(tokens.principal(ci.reveal()).is_none(), "its time is over");
    assert!(tokens.principal(li.reveal()).is_some());
    tokens.revoke("li", "x").await.unwrap();
    assert!(tokens.principal(li.reveal()).is_none() && open().await.principal(li.reveal()).is_none());
    assert_eq!(tokens.role(&Principal::Token("li".into())), None);
    let stored = format!("{:?}", store.keys(":tokens", "", None, 10).await.unwrap());
    assert!(!stored.contains(ci.reveal()));
}

#[tokio::test]
async fn tokens_are_made_shown_once_and_revoked() {
    let site = TestSite::new();
    let offline = Said::of(site.cli(&["token", "create", "early", "--role", "viewer", "--offline"])).out(0, &[]).out.trim().to_string();
    let shell = Shell::start(site).await;
    let ask = |token: &str, path: &str| {
        let request = reqwest::Client::builder().no_proxy().build().unwrap().get(format!("{}{path}", shell.server.url)).bearer_auth(token);
        async move { request.send().await.unwrap().status().as_u16() }
    };
    assert_eq!((ask(&offline, "/api/v1/rules").await, ask(&offline, "/api/v1/secrets").await), (200, 403));
    let made = shell.say(&["token", "create", "ci", "--role", "operator", "--expires", "30d"]).out(0, &[]).out.trim().to_string();
    assert_eq!(ask(&made, "/api/v1/rules").await, 200);
    shell.say(&["token", "create", "ci", "--role", "viewer"]).err(2, &["there is a token `ci` already"]);
    shell.say(&["token", "create", "x", "--role", "root"]).err(2, &["it is admin, operator, viewer or ingest"]);
    let list = shell.say(&["token", "list"]).out(0, &["ci", "operator", "token admin", "early", "viewer", "the first start"]);
    assert!(!list.out.contains(&made));
    shell.say(&["token", "revoke", "ci"]).out(0, &["ci is revoked"]);
    shell.say(&["token", "revoke", "ci"]).err(1, &["there is no token `ci`"]);
    shell.say(&["token", "revoke", "admin"]).err(2, &["stop the server"]);
    assert_eq!(ask(&made, "/api/v1/rules").await, 401);
    let log = shell.server.log();
    for line in ["a token was made", "a token was revoked"] {
        assert!(log.contains(line), "{log}");
    }
    for token in [&made, &offline, &shell.server.token] {
        assert!(!log.contains(token.as_str()));
        assert_eq!(files_with(&shell.site.path().join("data/store"), token), Vec::<String>::new());
    }
}

const LEAK: &str = r#"fn run(params) {
    let known = [config.by_env, config.by_file, config.by_secret, params.token];
    for secret in known {
        log.info(secret); print(secret); log.warn(#{deep: [secret]});
        chat.send("ops", `the secret is ${secret}`);
        try { kv.set("leak", #{text: secret}); log.error("it was kept"); } catch (e) { log.error(e.message); }
        try { http.post(`${config.url}/?q=${secret}`, #{ json: #{ token: secret } }); } catch (e) { log.error(e.message); }
    }
    if params.how == "throw" { throw `failed with ${params.token} and ${config.by_secret}`; }
    if params.how == "http" { return http.get(`${config.url}/echo?q=${params.token}`, #{ headers: #{ "x-token": config.by_secret } }); }
    #{ plain: known, text: `${params.token}|${config.by_secret}`, key: #{}, how: params.how }
}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_secret_is_nowhere_to_be_seen() {
    // Each is of another kind: with quotes, with signs that are escaped, with lines.
    let planted = ["env-5ecret-\"quoted\"", "file-5ecret/+ %x", "store-5ecret-ä\nsecond-5ecret-line", "given-5ecret-&=?"];
    let target = Target::with(|request| (500, format!("{} {} {:?}", request.path, request.body, request.headers))).await;
    let config = format!(
        "listen: 127.0.0.1:0\nconfig:\n  t: {{url: \"{}\", by_env: {{env: PLANTED}}, by_file: {{file: planted}}, by_secret: {{secret: planted}}}}\n",
        target.url
    );
    let site = TestSite::new()
        .file("planted", planted[1])
        .file("packs/t/pack.yaml", "ref: t\nconfig_schema:\n  url: {type: string}\n  by_env: {type: string}\n  by_file: {type: string}\n  by_secret: {type: string}\ncapabilities: {chat: true, kv: read_write, http: [\"{{config.url}}\"]}\n")
        .file("packs/t/actions/leak.yaml", "name: leak\nrunner_type: rhai\nretry: {count: 1, delay: 10ms}\nparameters:\n  token: {type: string, secret: true}\n  how: {type: string, default: \"return\"}\n")
        .file("packs/t/actions/leak.rhai", LEAK)
        .file("packs/t/actions/ask.yaml", "name: ask\nrunner_type: http-request\nparameters:\n  token: {type: string, secret: true}\n")
        .file("packs/core/sensors/hook.yaml", "name: hook\nkind: webhook\ndecoder: generic\ntrigger: core.webhook\nauth: {bearer: {secret: planted_hook}}\n")
        .file("rules/leak.yaml", "trigger: {type: core.webhook}\naction: {ref: t.leak, parameters: {token: \"{{trigger.text}}\"}}\n");
    site.write("signalman.yaml", &config);
    let file = site.path().join("value");
    std::fs::write(&file, planted[2]).unwrap();
    Said::of(site.cli(&["secret", "set", "planted", "--offline", "--file", file.to_str().unwrap()])).out(0, &[]);
    std::fs::remove_file(&file).unwrap();
    say_with(&site, &["secret", "set", "planted_hook", "--offline"], "hook-5ecret-1").out(0, &[]);
    let server = Server::with_environment(&site, &[("PLANTED", planted[0])]).await;
    let wrong = server.webhook_with("hook", "{}", &[("authorization", "Bearer wrong-5ecret-x")]).await;
    assert_eq!(wrong.0, 401);
    assert_eq!(server.webhook_with("hook", "{\"text\": 1}", &[("authorization", "Bearer hook-5ecret-1")]).await.0, 202);
    for how in ["return", "throw", "http"] {
        let run = server.run("t.leak", json!({"token": planted[3], "how": how})).await;
        assert_eq!(run["parameters"]["token"], "********", "{run}");
    }
    server.run("t.ask", json!({"token": planted[3], "url": format!("{}/?t=given-5ecret-%26%3D%3F", target.url)})).await;
    let (status, refused) = server.post("/api/v1/executions", &json!({"action": "t.leak", "parameters": {"token": "********"}})).await;
    assert_eq!(status, 422, "stars are no value: {refused}");
    // A rerun knows them without being told.
    let (_, page) = server.get("/api/v1/executions?action=t.ask").await;
    let asked = target.received().len();
    let id = page["executions"][0]["id"].as_str().unwrap();
    let (status, again) = server.post(&format!("/api/v1/executions/{id}/rerun"), &json!({})).await;
    assert_eq!(status, 202, "{again}");
    server.ended(again["id"].as_str().unwrap()).await;
    assert!(target.received()[asked..].iter().any(|request| request.path.contains("given-5ecret-%26%3D%3F")));
    // The secrets did reach the other side.
    assert!(target.received().iter().any(|request| request.body.contains("given-5ecret-&=?")));
    assert!(target.received().iter().any(|request| request.body.contains("second-5ecret-line")));
    let mut sinks: Vec<(String, String)> = vec![("the log".into(), server.log())];
    let ids = |path: &'static str, list: &'static str| {
        let server = &server;
        async move {
            let (_, page) = server.get(path).await;
            page[list]
                .as_array()
                .cloned()
                .unwrap_or_default()
                .iter()
                .map(|one| one["id"].as_str().unwrap_or_default().to_string())
                .collect::<Vec<_>>()
        }
    };
    let (executions, events) = (ids("/api/v1/executions", "executions").await, ids("/api/v1/events", "events").await);
    for route in
        routes::all().filter(|route| route.method == Method::Get && !["/api/v1/stream", "/api/v1/store/backup"].contains(&route.path))
    {
        let wanted: Vec<String> = match route.path {
            path if path.contains("executions/{id}") => executions.iter().map(|id| path.replace("{id}", id)).collect(),
            path if path.contains("events/{id}") => events.iter().map(|id| path.replace("{id}", id)).collect(),
            path if path.contains("{rule}") => {
                events.iter().map(|id| path.replace("{rule}", "default.leak").replace("{event}", id)).collect()
            }
            path => vec![path.replace("{sensor}", "core.hook").replace(['{', '}'], "")],
        };
        for path in wanted {
            sinks.push((format!("GET {path}"), server.get(&path).await.1.to_string()));
        }
    }
    for arguments in [
        &["execution", "list"][..],
        &["event", "list"],
        &["secret", "list"],
        &["token", "list"],
        &["lint"],
        &["key", "list", "--scope", "t"],
        &["rule", "list"],
        &["chat"],
    ] {
        let said = Said::of(site.cli(&[arguments, &["--server", &server.url, "--output", "json"]].concat()));
        sinks.push((format!("signalman {}", arguments.join(" ")), format!("{}{}", said.out, said.err)));
    }
    let backup = site.path().join("all.backup");
    Said::of(site.cli(&["backup", backup.to_str().unwrap(), "--server", &server.url])).out(0, &[]);
    server.stop();
    let shown = |(name, text): &(String, String)| {
        let lines = text.lines().filter(|line| line.contains("5ecret") || line.contains("5ECRET"));
        lines.map(|line| format!("{name} shows {line}")).collect::<Vec<_>>()
    };
    assert_eq!(sinks.iter().flat_map(shown).collect::<Vec<_>>(), Vec::<String>::new());
    std::fs::remove_file(site.path().join("planted")).unwrap();
    for part in ["-5ecret", "5ecret-line", &STANDARD.encode("env-5ecret-")[..12], "%22quoted%22"] {
        assert_eq!(files_with(site.path(), part), Vec::<String>::new(), "`{part}` lies on disk");
    }
}
