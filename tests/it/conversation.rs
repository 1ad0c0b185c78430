//! Talking with the bot: what is typed, and exactly what is said; over crashes, with many people at once, and with repeats.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use chrono::DateTime;
use serde_json::{Value, json};
use signalman::clock::SimulatedClock;
use signalman::document::fault::SourceFile;
use signalman::document::node;
use signalman::engine::Engine;
use signalman::engine::converse::{Heard, Said, say};
use signalman::engine::deliver::RESULT;
use signalman::model::execution::Status;
use signalman::model::ids::MessageId;
use signalman::model::message::{Delivery, Message};
use signalman::model::principal::Principal;
use signalman::store::memory::MemorySpace;
use signalman::store::{Page, Store};

use crate::harness::{Server, Shell, Target, TestSite, World, binary, eventually, memory, repository};

fn folder() -> PathBuf {
    repository().join("tests/fixtures/conversations")
}

fn yaml(name: &str) -> Value {
    let text = std::fs::read_to_string(folder().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    node::parse(&SourceFile::new(name, text)).unwrap_or_else(|fault| panic!("{fault}")).value()
}

fn site(more: &Value) -> TestSite {
    let base = yaml("_site.yaml");
    let files = base.as_object().unwrap().iter().chain(more.as_object().into_iter().flatten());
    files.fold(TestSite::empty(), |site, (path, text)| site.file(path, text.as_str().unwrap()))
}

fn said(text: &str) -> Said {
    Said { adapter: "console".into(), channel: None, key: None, text: text.into(), by: Principal::Token("admin".into()), cause: None }
}

/// All that a line comes to, once nothing follows any more: in the order of time, edits behind an arrow.
async fn told(engine: &Engine, heard: &Heard) -> Vec<String> {
    let store = &engine.store;
    let mut messages = heard.messages.clone();
    for execution in &heard.executions {
        let ended = eventually("an execution to end", || async {
            store.execution(execution.id).await.unwrap().filter(|execution| execution.state.status.is_final())
        })
        .await;
        messages.extend(store.message(MessageId::of_execution(ended.id, RESULT, 0)).await.unwrap());
    }
    let ids: Vec<String> = heard.executions.iter().map(|execution| execution.id.short()).collect();
    for message in &messages {
        delivered(&**store, message.id).await;
    }
    let text = |message: &Message| format!("{}{}", if message.replaces.is_some() { "→ " } else { "" }, message.text);
    messages.iter().map(|message| hidden(&text(message), &ids)).collect()
}

async fn delivered(store: &dyn Store, id: MessageId) {
    eventually("a message to be delivered", || async {
        let message = store.message(id).await.unwrap()?;
        matches!(message.delivery, Delivery::Sent { .. }).then_some(())
    })
    .await;
}

fn hidden(text: &str, ids: &[String]) -> String {
    ids.iter().fold(text.to_string(), |text, id| text.replace(id.as_str(), "ID"))
}

async fn conversation(name: &str) {
    let script = yaml(name);
    let site = site(&script["site"]);
    let clock = Arc::new(SimulatedClock::at("2026-11-20T12:00:00Z".parse().unwrap()));
    let world = World::start_with_clock(&site, memory(&MemorySpace::default()), Arc::clone(&clock) as _).await.unwrap();
    let (mut wrong, mut ids) = (Vec::new(), Vec::new());
    for step in script["steps"].as_array().unwrap() {
        if let Some(wait) = step["wait"].as_str() {
            clock.advance(signalman::model::duration::parse(wait).unwrap());
            continue;
        }
        let text = |field: &str| step[field].as_str().map(ToString::to_string);
        let user = text("user").unwrap_or_else(|| "admin".into());
        let line = Said { channel: text("channel"), key: text("key"), by: Principal::Token(user), ..said(step["say"].as_str().unwrap()) };
        let heard = match say(&world.app.engine, line).await {
            Ok(heard) => heard,
            Err(error) => {
                assert_eq!(Some(error.to_string()), text("refused"), "{name}: {step}");
                continue;
            }
        };
        assert_eq!(heard.duplicate, step["again"] == true, "{name}: {step}");
        ids.extend(heard.executions.iter().map(|execution| execution.id.short()));
        let found: Vec<String> = told(&world.app.engine, &heard).await.iter().map(|text| hidden(text, &ids)).collect();
        let fits = match &step["first_line"] {
            Value::String(first) => found.len() == 1 && found[0].lines().next() == Some(first),
            _ => json!(found) == step["reply"],
        };
        if !fits {
            wrong.push(format!("said:     {}\nexpected: {}\ngot:      {}", step["say"], step["reply"], json!(found)));
        }
    }
    world.app.stop().await;
    assert!(wrong.is_empty(), "{name}:\n{}", wrong.join("\n\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_typed_and_exactly_what_is_said() {
    let mut names: Vec<String> =
        std::fs::read_dir(folder()).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name.ends_with(".yaml") && !name.starts_with('_'));
    names.sort();
    assert!(names.len() >= 5, "{names:?}");
    for name in names {
        conversation(&name).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_people_talk_at_once_and_each_is_answered_once() {
    let (site, store) = (site(&Value::Null), memory(&MemorySpace::default()));
    let world = World::start(&site, Arc::clone(&store)).await.unwrap();
    let people = (0..10).map(|person| {
        let engine = Arc::clone(&world.app.engine);
        tokio::spawn(async move {
            for turn in 0..10 {
                let by = Principal::Token(format!("p{person}"));
                let ask = Said { channel: Some("ops".into()), by: by.clone(), ..said(&format!("!deploy app{person}-{turn}")) };
                let asked = say(&engine, ask).await.unwrap();
                assert_eq!(told(&engine, &asked).await, ["Which `env`? one of prod, gray (reply, or `cancel`)"]);
                // Everybody says each line twice at the same time, as a chat system that tries again would.
                let reply = || {
                    let key = Some(format!("{person}-{turn}"));
                    say(&engine, Said { channel: Some("ops".into()), key, by: by.clone(), ..said("prod") })
                };
                let (first, second) = tokio::join!(reply(), reply());
                let (first, second) = (first.unwrap(), second.unwrap());
                assert_eq!(first.executions[0].id, second.executions[0].id);
                assert_ne!(first.duplicate, second.duplicate);
                let expected =
                    [format!("Deploying `app{person}-{turn}` to prod …"), format!("→ p{person}: `app{person}-{turn}` latest is on PROD")];
                assert_eq!(told(&engine, &first).await, expected);
            }
        })
    });
    for person in people.collect::<Vec<_>>() {
        person.await.unwrap();
    }
    assert_eq!(store.executions(Page { before: None, limit: 1_000 }).await.unwrap().len(), 100);
    assert_eq!(store.messages(Page { before: None, limit: 1_000 }).await.unwrap().len(), 300);
    world.app.stop().await;
}

/// A pack whose action asks a target, tells how far it is, and answers with what it was told.
fn asking(url: &str) -> TestSite {
    site(&Value::Null)
        .file("signalman.yaml", "listen: 127.0.0.1:0\nstore: {kind: embedded}\n")
        .file("packs/far/pack.yaml", &format!("ref: far\ncapabilities: {{http: [\"{url}\"]}}\n"))
        .file("packs/far/actions/ask.yaml", "runner_type: rhai\nidempotent: true\n")
        .file("packs/far/actions/ask.rhai", &format!("fn run(params) {{ chat.progress(\"half way\"); http.get(\"{url}/x\").json() }}\n"))
        .file("packs/far/aliases/ask.yaml", "action_ref: far.ask\nformats: [\"ask\"]\nresult: {format: \"it said {{result.word}}\"}\n")
}

/// A target that holds the first request until it is told to go on.
async fn holding() -> (Target, mpsc::Sender<()>, Arc<AtomicUsize>) {
    let (go_on, held) = mpsc::channel::<()>();
    let (held, asked) = (Mutex::new(held), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&asked);
    let target = Target::with(move |_| {
        if count.fetch_add(1, Ordering::SeqCst) == 0 {
            let _ = tokio::task::block_in_place(|| held.lock().unwrap().recv()); // the test ends it
        }
        (200, json!({"word": "yes"}).to_string())
    })
    .await;
    (target, go_on, asked)
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_crash_the_answer_still_comes_and_only_once() {
    let (target, go_on, asked) = holding().await;
    let site = asking(&target.url);
    let server = Server::start(&site).await;
    let line = json!({"text": "!ask", "key": "k1"});
    let (status, heard) = server.post("/api/v1/chat/console/messages", &line).await;
    assert_eq!(status, 202, "{heard}");
    assert_eq!(heard["messages"][0]["text"].as_str().unwrap().chars().next(), Some('⏳'), "{heard}");
    eventually("the action to be at work", || async { (asked.load(Ordering::SeqCst) > 0).then_some(()) }).await;
    server.kill();
    go_on.send(()).unwrap();
    let server = Server::start(&site).await;
    let id = heard["executions"][0]["id"].as_str().unwrap();
    let ended = server.ended(id).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    // Saying it again after the crash runs nothing.
    let (_, again) = server.post("/api/v1/chat/console/messages", &line).await;
    assert_eq!((again["duplicate"].as_bool(), again["executions"][0]["id"].as_str()), (Some(true), Some(id)), "{again}");
    let (_, executions) = server.get("/api/v1/executions").await;
    assert_eq!(executions["executions"].as_array().unwrap().len(), 1);
    let shown = eventually("the answer", || async {
        let (_, answer) = server.get("/api/v1/messages?limit=100").await;
        let messages = answer["messages"].as_array().unwrap().clone();
        let lasting: Vec<Value> = messages.into_iter().filter(|message| message["passing"] != true).collect();
        (lasting.len() == 2 && lasting.iter().all(|message| message["delivery"]["status"] == "sent")).then_some(lasting)
    })
    .await;
    // Ids of one millisecond end in a hash: they do not tell which was first.
    let answer = shown.iter().find(|message| message["replaces"] == heard["messages"][0]["id"]).unwrap_or_else(|| panic!("{shown:?}"));
    assert_eq!(answer["text"], "it said yes");
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_is_an_edit_at_most_once_a_second() {
    let (target, go_on, asked) = holding().await;
    let site = asking(&target.url);
    let clock = Arc::new(SimulatedClock::at(DateTime::from_timestamp(1_795_000_000, 0).unwrap()));
    let world = World::start_with_clock(&site, memory(&MemorySpace::default()), Arc::clone(&clock) as _).await.unwrap();
    let heard = say(&world.app.engine, said("ask")).await.unwrap();
    eventually("the action to be at work", || async { (asked.load(Ordering::SeqCst) > 0).then_some(()) }).await;
    let store = Arc::clone(&world.app.engine.store);
    let passing = || async {
        let all = store.messages(Page { before: None, limit: 100 }).await.unwrap();
        all.into_iter().filter(|message| message.passing).collect::<Vec<_>>()
    };
    assert!(passing().await.is_empty(), "nothing is edited within the first second");
    clock.advance(Duration::from_secs(1));
    let first = eventually("the first edit", || async { passing().await.pop() }).await;
    assert!(first.text.starts_with("⏳ half way · `"), "{}", first.text);
    assert_eq!(first.replaces, Some(heard.messages[0].id));
    delivered(&*store, first.id).await;
    let id = heard.executions[0].id;
    for n in 0..100 {
        world.app.engine.progress.tell(id, &format!("step {n}"));
    }
    clock.advance(Duration::from_secs(1));
    let edits = eventually("the second edit", || async { Some(passing().await).filter(|edits| edits.len() == 2) }).await;
    assert!(edits.iter().any(|edit| edit.text.starts_with("⏳ step 99")), "{edits:?}");
    go_on.send(()).unwrap();
    assert_eq!(told(&world.app.engine, &heard).await[1], "→ it said yes");
    world.app.engine.progress.tell(id, "too late");
    clock.advance(Duration::from_secs(5));
    assert_eq!(passing().await.len(), 2);
    assert_eq!(store.execution(id).await.unwrap().unwrap().state.status, Status::Succeeded);
    world.app.stop().await;
}

#[test]
fn the_words_of_the_fixtures_are_known() {
    let known: BTreeMap<&str, ()> =
        ["say", "channel", "user", "key", "wait", "reply", "first_line", "again", "refused"].into_iter().map(|word| (word, ())).collect();
    for file in std::fs::read_dir(folder()).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        if name.ends_with(".yaml") && !name.starts_with('_') {
            for step in yaml(&name)["steps"].as_array().unwrap() {
                assert!(step.as_object().unwrap().keys().all(|key| known.contains_key(key.as_str())), "{name}: {step}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_talks_by_one_line_and_by_a_pipe() {
    let shell = Shell::start(site(&Value::Null)).await;
    assert_eq!(shell.say(&["chat", "!quietly scale shop"]).out(0, &[]).out, "done for shop\n");
    shell.say(&["chat", "!break it"]).out(1, &["❌ `shop.fail` failed", "the shop is closed"]);
    shell.say(&["chat", "!nothing", "--channel", "ops"]).out(1, &["I do not know `nothing`"]);
    shell.say(&["chat", "!whoami", "--channel", "nowhere"]).err(1, &["there is no channel `nowhere`"]);
    let lines = shell.say(&["chat", "!release shop", "--output", "json"]).out(0, &[]).out;
    let messages: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((messages.len(), &messages[1]["replaces"]), (2, &messages[0]["id"]), "{lines}");
    let pipe = |input: &'static str| {
        let mut child = std::process::Command::new(binary())
            .args(["chat", "--site"])
            .arg(shell.site.path())
            .args(["--server", &shell.server.url])
            .env_remove("SIGNALMAN_TOKEN")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), input.as_bytes()).unwrap();
        crate::harness::Said::of(child.wait_with_output().unwrap())
    };
    // A question and its answer are two lines of one conversation.
    let said = pipe("!deploy checkout\n\ngray\n").out(0, &[]);
    let expected =
        ["Which `env`? one of prod, gray (reply, or `cancel`)", "Deploying `checkout` to gray …", "admin: `checkout` latest is on GRAY"];
    assert_eq!(said.out.lines().collect::<Vec<_>>(), expected);
    assert_eq!(pipe("!help status\n!break it\n!whoami\n").code, 1);
    shell.say(&["alias", "list"]).out(0, &["shop.deploy", "tracker.close", "fixes <key>", "disabled"]);
    let matched = shell.json(&["alias", "match", "!deploy shop to prod"]);
    assert_eq!((&matched["alias"], &matched["parameters"]), (&json!("shop.deploy"), &json!({"app": "shop", "env": "prod"})), "{matched}");
    shell.say(&["alias", "match", "deploy shop"]).out(1, &["needs env"]);
    let file = shell.site.path().join("packs/shop/aliases/deploy.yaml");
    let alone = shell.json(&["alias", "match", "--alias", file.to_str().unwrap(), "deploy shop version 2 to prod"]);
    assert_eq!(
        (alone["matched"].as_bool(), &alone["format"]),
        (Some(true), &json!("deploy {{app}} version {{version}} to {{env}}")),
        "{alone}"
    );
    shell.site.write("packs/shop/aliases/faulty.yaml", "action_ref: shop.scale\nformats: [\"a {{x\", \"help {{y}}\"]\nexampels: []\n");
    let file = shell.site.path().join("packs/shop/aliases/faulty.yaml");
    shell.say(&["alias", "match", "--alias", file.to_str().unwrap(), "a"]).err(2, &["faulty.yaml:2:11", "`{{` is not closed", "exampels"]);
}
