//! Every reason, each produced by the engine itself: the fixtures in `tests/fixtures/reasons` say how, one file a reason, and are examples
//! for readers as well. What a file could not say without contortions is a function here.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use futures_util::FutureExt;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use signalman::app;
use signalman::chat::{Abilities, ChatAdapter, Receipt, SendError};
use signalman::clock::{Clock, SimulatedClock};
use signalman::config::Environment;
use signalman::document::{fault::SourceFile, node};
use signalman::engine::catalog::Catalog;
use signalman::engine::conduct::{self, Command, RunnerTable};
use signalman::engine::deliver::{self, Outbox, Postman};
use signalman::engine::{Engine, EngineParts, why};
use signalman::model::duration;
use signalman::model::event::NewEvent;
use signalman::model::execution::Status;
use signalman::model::ids::{EventId, ExecutionId, IdSource, MessageId};
use signalman::model::json::RawJson;
use signalman::model::message::{Delivery, Destination, Message};
use signalman::model::principal::Principal;
use signalman::model::reason::{Reason, reference};
use signalman::model::window::{MAX_KEYS, WindowKey, WindowPart, WindowState};
use signalman::rule::book::RuleBook;
use signalman::rule::judge::{World as Around, judge};
use signalman::rule::windows::{Needed, Windows};
use signalman::runners::{ActionCall, ActionRunner, Output, RunContext, RunError};
use signalman::store::memory::MemorySpace;
use signalman::store::{Batch, Page, Store};
use signalman::tasks::Stop;
use signalman::telemetry::Metrics;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;

use crate::faults::{Failing, Fails};
use crate::harness::{Target, TestSite, World, copy_folder, eventually, memory, repository};
use crate::windows;

/// A fixture. `tests/fixtures/reasons/README.md` says what may stand in it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fixture {
    #[serde(default)]
    files: BTreeMap<String, String>,
    #[serde(rename = "do")]
    steps: Vec<Step>,
    expect: Expect,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Step {
    Send {
        #[serde(default)]
        payload: Value,
        raw: Option<String>,
        trigger: Option<String>,
        ago: Option<String>,
        #[serde(default = "once")]
        times: usize,
    },
    Post {
        path: String,
        body: Value,
    },
    Run {
        action: String,
        #[serde(default)]
        parameters: Map<String, Value>,
    },
    SwitchOff(String),
    Hold(String),
    Advance(String),
    Called,
    Cancel,
    Kill,
    StoreFails,
}

fn once() -> usize {
    1
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Expect {
    /// What a rule said of the last event.
    Verdict { rule: String, kept: bool, detail: Option<String> },
    /// How the newest execution stands, once it has the status.
    Execution { status: Status, error: Option<String> },
    /// Why no rule saw an event.
    SetAside { detail: String },
    /// What the last request was answered.
    Problem { status: u16, detail: String },
}

fn folder() -> PathBuf {
    repository().join("tests/fixtures/reasons")
}

fn read(file: &str) -> Option<Fixture> {
    let text = std::fs::read_to_string(folder().join(file)).ok()?;
    let tree = node::parse(&SourceFile::new(file, text)).unwrap_or_else(|fault| panic!("{fault}"));
    Some(serde_json::from_value(tree.value()).unwrap_or_else(|error| panic!("{file}: {error}")))
}

fn start() -> DateTime<Utc> {
    DateTime::from_timestamp(1_700_000_000, 0).unwrap()
}

/// Whether a text is what was expected; `…` stands for anything.
fn fits(expected: &str, found: &str) -> bool {
    let Some((head, rest)) = expected.split_once('…') else { return expected == found };
    let Some(mut found) = found.strip_prefix(head) else { return false };
    let mut parts: Vec<&str> = rest.split('…').collect();
    let tail = parts.pop().unwrap_or_default();
    for part in parts {
        let Some((_, after)) = found.split_once(part) else { return false };
        found = after;
    }
    found.ends_with(tail)
}

fn expect_text(what: &str, expected: Option<&str>, found: Option<&str>) -> Result<(), String> {
    let is_right = match (expected, found) {
        (Some(expected), Some(found)) => fits(expected, found),
        (expected, found) => expected == found,
    };
    if is_right { Ok(()) } else { Err(format!("{what}: expected {expected:?}, found {found:?}")) }
}

fn expect_reason(code: &str, found: impl Into<Option<Reason>>) -> Result<(), String> {
    let found = found.into().map(Reason::code);
    if found == Some(code) { Ok(()) } else { Err(format!("the reason is {found:?}")) }
}

/// The other side of a pack's requests: one address that takes a request and never answers, one that answers 500, one where nobody is.
struct Others {
    silent: String,
    called: Arc<AtomicUsize>,
    failing: Target,
    dead: String,
}

impl Others {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let silent = format!("http://{}", listener.local_addr().unwrap());
        let called = Arc::new(AtomicUsize::new(0));
        let calls = Arc::clone(&called);
        tokio::spawn(async move {
            let mut held = Vec::new();
            while let Ok((mut connection, _)) = listener.accept().await {
                let _ = connection.read(&mut [0; 1_024]).await;
                calls.fetch_add(1, Ordering::SeqCst);
                held.push(connection);
            }
        });
        let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let dead = format!("http://{}", gone.local_addr().unwrap());
        Self { silent, called, failing: Target::answering(500, "out of order").await, dead }
    }

    fn named(&self, text: &str) -> String {
        text.replace("{silent}", &self.silent).replace("{failing}", &self.failing.url).replace("{dead}", &self.dead)
    }
}

/// A site on which a fixture is played.
struct Stage {
    site: TestSite,
    others: Others,
    space: MemorySpace,
    clock: SimulatedClock,
    store: Arc<Failing>,
    world: World,
    event: Option<EventId>,
    execution: Option<ExecutionId>,
    answer: Option<(u16, Value)>,
}

/// `rules/r{1..3}.yaml` is three files.
fn names(pattern: &str) -> Vec<String> {
    let range = pattern.split_once('{').and_then(|(head, rest)| Some((head, rest.split_once('}')?)));
    let Some((head, (range, tail))) = range else { return vec![pattern.to_string()] };
    let (from, to) = range.split_once("..").expect("a range is two numbers");
    let number = |text: &str| text.parse::<u32>().expect("a range is two numbers");
    (number(from)..=number(to)).map(|number| format!("{head}{number}{tail}")).collect()
}

async fn open(site: &TestSite, space: &MemorySpace, clock: &SimulatedClock) -> (Arc<Failing>, World) {
    let store = Arc::new(Failing::new(memory(space), usize::MAX, Fails::Before));
    let world = World::start_with_clock(site, Arc::clone(&store) as _, Arc::new(clock.clone())).await.expect("the world starts");
    (store, world)
}

impl Stage {
    async fn set(fixture: &Fixture) -> Self {
        let (site, others) = (windows::site(&[]), Others::start().await);
        copy_folder(&repository().join("packs/core"), &site.path().join("packs/core"));
        for (pattern, text) in &fixture.files {
            names(pattern).iter().for_each(|path| site.write(path, &others.named(text)));
        }
        let (space, clock) = (MemorySpace::default(), SimulatedClock::at(start()));
        let (store, world) = open(&site, &space, &clock).await;
        Self { site, others, space, clock, store, world, event: None, execution: None, answer: None }
    }

    async fn play(&mut self, step: &Step) {
        match step {
            Step::Send { payload, raw, trigger, ago, times } => {
                let payload = match raw {
                    Some(raw) => RawJson::from_raw(serde_json::value::RawValue::from_string(raw.clone()).unwrap()),
                    None => RawJson::of(payload),
                };
                for _ in 0..*times {
                    let ago = ago.as_deref().map(|ago| duration::parse(ago).unwrap());
                    let event = event(trigger.as_deref().unwrap_or("t.e"), payload.clone(), ago.map(|ago| self.clock.now() - ago));
                    self.event = Some(self.world.app.journal.accept(vec![event]).await.expect("the event is taken")[0].id);
                }
            }
            Step::Post { path, body } => {
                let client = reqwest::Client::builder().no_proxy().build().unwrap();
                let response = client.post(format!("http://{}{path}", self.world.app.address)).body(body.to_string()).send().await.unwrap();
                self.answer = Some((response.status().as_u16(), serde_json::from_str(&response.text().await.unwrap()).unwrap()));
            }
            Step::Run { action, parameters } => {
                let asked = self.world.app.engine.request(action, parameters, Principal::Token("li".into()), None).await;
                self.execution = Some(asked.expect("the action is taken").id);
            }
            Step::SwitchOff(rule) => {
                let by = Principal::Token("li".into());
                signalman::engine::switching::switch(&self.world.app.engine, rule, false, &by).await.unwrap();
            }
            Step::Hold(reason) => {
                let by = Principal::Token("li".into());
                signalman::engine::holding::hold(&self.world.app.engine, &by, reason).await.unwrap();
            }
            Step::Advance(span) => self.clock.advance(duration::parse(span).unwrap()),
            Step::Called => {
                let called = Arc::clone(&self.others.called);
                eventually("the silent address to be called", || async { (called.load(Ordering::SeqCst) > 0).then_some(()) }).await;
            }
            Step::Cancel => {
                let id = self.execution.expect("something was run");
                self.world.app.engine.cancel(id, Principal::Token("li".into())).await.unwrap();
            }
            Step::Kill => {
                self.store.fail().await; // what the process still does comes to nothing
                (self.store, self.world) = open(&self.site, &self.space, &self.clock).await;
            }
            Step::StoreFails => self.store.fail().await,
        }
    }

    async fn look(&self, code: &str, expect: &Expect) -> Result<(), String> {
        match expect {
            Expect::Verdict { rule, kept, detail } => {
                let id = self.event.expect("an event was sent");
                let answer = why::rule(&self.world.app.engine, rule, id).await.map_err(|error| error.to_string())?;
                expect_reason(code, answer.verdict.reason)?;
                expect_text("the detail", detail.as_deref(), answer.verdict.detail.as_deref())?;
                let event = self.store.event(id).await.unwrap().unwrap();
                let stored: Vec<_> = event.verdicts.iter().filter(|verdict| verdict.rule == *rule).collect();
                let is_right = if *kept { stored.len() == 1 && stored[0].reason.code() == code } else { stored.is_empty() };
                if is_right { Ok(()) } else { Err(format!("stored with the event: {stored:?}")) }
            }
            Expect::Execution { status, error } => {
                let found = eventually(&format!("{code}: an execution that is {}", status.name()), || async {
                    let page = Page { before: None, limit: 1_000 };
                    let found = self.store.executions(page).await.unwrap();
                    found.into_iter().find(|one| one.state.status == *status)
                })
                .await;
                expect_reason(code, found.state.reason)?;
                let error = error.as_ref().map(|error| self.others.named(error));
                expect_text("the error", error.as_deref(), found.state.error.as_deref())
            }
            Expect::SetAside { detail } => {
                let aside = eventually(&format!("{code}: an event that is set aside"), || async {
                    let events = self.store.events(Page { before: None, limit: 1_000 }).await.unwrap();
                    events.into_iter().find_map(|event| event.set_aside)
                })
                .await;
                expect_reason(code, aside.reason)?;
                expect_text("the detail", Some(detail), Some(&aside.detail))
            }
            Expect::Problem { status, detail } => {
                let (found, problem) = self.answer.clone().expect("something was posted");
                if (found, problem["reason"].as_str()) != (*status, Some(code)) {
                    return Err(format!("the answer is {found} {problem}"));
                }
                expect_text("the detail", Some(detail), problem["detail"].as_str())
            }
        }
    }
}

async fn play(code: &'static str, fixture: Fixture) -> Result<(), String> {
    let mut stage = Stage::set(&fixture).await;
    for step in &fixture.steps {
        stage.play(step).await;
    }
    stage.look(code, &fixture.expect).await
}

fn event(trigger: &str, payload: RawJson, occurred_at: Option<DateTime<Utc>>) -> NewEvent {
    NewEvent {
        trigger: trigger.into(),
        payload,
        key: None,
        dedup: None,
        occurred_at,
        source: "test".into(),
        cause: None,
        rejected: None,
        pending: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_reason_is_produced_by_its_fixture() {
    let (mut wrong, mut played) = (Vec::new(), 0);
    for reason in Reason::ALL {
        let (code, file) = (reason.code(), format!("{}.yaml", reason.code()));
        let outcome = match read(&file) {
            Some(fixture) => {
                played += 1;
                // One that panics does not hide the others.
                let played = AssertUnwindSafe(play(code, fixture)).catch_unwind().await;
                played.unwrap_or_else(|_| Err("the fixture cannot be played; see above".into()))
            }
            None => by_hand(*reason).await,
        };
        wrong.extend(outcome.err().map(|error| format!("{code}: {error}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    println!("{} reasons, {played} of them by fixtures", Reason::ALL.len());
}

#[test]
fn the_reference_names_the_fixtures_that_there_are() {
    let page = reference();
    let mut files: Vec<String> =
        std::fs::read_dir(folder()).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    files.retain(|file| file != "README.md");
    for file in &files {
        let code = file.strip_suffix(".yaml").unwrap_or_default();
        assert!(Reason::ALL.iter().any(|reason| reason.code() == code), "{file} is of no reason");
        assert!(page.contains(&format!("tests/fixtures/reasons/{file}")), "{file} is not in the reference");
    }
    assert_eq!(page.matches(".yaml)").count(), files.len(), "the reference names files that there are not");
}

/// What takes a part that is broken on purpose, or a million keys.
async fn by_hand(reason: Reason) -> Result<(), String> {
    match reason {
        Reason::TooManyKeys => too_many_keys(),
        Reason::ScriptBroken => script_broken().await,
        Reason::RunnerPanicked => runner_panicked().await,
        Reason::ChatUnavailable => chat_unavailable().await,
        other => Err(format!("there is neither tests/fixtures/reasons/{other}.yaml nor a function for it here")),
    }
}

/// A window that remembers all the keys it can.
fn too_many_keys() -> Result<(), String> {
    let site = windows::site(&[(
        "many",
        "trigger: {type: t.e}\nwindow: {count: 2, within: 10m, by: \"{{trigger.host}}\"}\naction: {ref: t.noop}\n",
    )]);
    let (loaded, _) = app::load_site(site.path(), &Environment::default()).unwrap();
    let book = RuleBook::new(loaded.rules);
    let now = start().timestamp_millis();
    let needed: Vec<Needed> = book.iter().flat_map(|rule| rule.needed()).collect();
    let mut full = Windows::default();
    full.fit(&needed, now);
    let state = WindowState::Count { times: vec![now], newest: now };
    for key in 0..MAX_KEYS {
        let (rule, definition) = ("default.many".to_string(), needed[0].hash);
        assert!(full.restore(&WindowKey { rule, part: WindowPart::Window, key: key.to_string(), definition }, &state));
    }
    let event = signalman::model::event::Event {
        id: IdSource::seeded(1).event(start()),
        trigger: "t.e".into(),
        key: None,
        dedup_key: None,
        occurred_at: start(),
        received_at: start(),
        source: "test".into(),
        cause: None,
        depth: 0,
        payload: RawJson::of(&json!({"host": "one more"})),
    };
    let judgement = judge(&book, &event, Around::empty(), &mut full)?;
    let verdict = judgement.near_misses.first().ok_or("there is no verdict")?;
    expect_reason("too_many_keys", verdict.reason)?;
    expect_text("the detail", Some("there is no room for `one more`"), verdict.detail.as_deref())
}

/// A script that was changed behind the loader's back; the loader itself refuses it.
async fn script_broken() -> Result<(), String> {
    let site = windows::site(&[])
        .file("packs/t/actions/hello.yaml", "runner_type: rhai\n")
        .file("packs/t/actions/hello.rhai", "fn run(params) { 1 }\n");
    let (mut loaded, _) = app::load_site(site.path(), &Environment::default()).unwrap();
    let action = Arc::make_mut(loaded.actions.get_mut("t.hello").unwrap());
    let script = action.script.as_mut().unwrap();
    script.text = "fn run(params) { 1 +".into();
    let store = memory(&MemorySpace::default());
    let clock = Arc::new(SimulatedClock::at(start()));
    let parts = app::Parts::real(Arc::clone(&store), clock, Arc::new(IdSource::seeded(1))).unwrap();
    let app = app::start(loaded, parts).await.unwrap();
    app.engine.request("t.hello", &Map::new(), Principal::Token("li".into()), None).await.unwrap();
    let ended = ended(&*store).await;
    app.stop().await;
    expect_reason("script_broken", ended.0)?;
    expect_text("the error", Some("packs/t/actions/hello.rhai:1:…"), ended.1.as_deref())
}

/// The reason and the error of the only execution, once it has ended.
async fn ended(store: &dyn Store) -> (Reason, Option<String>) {
    eventually("the execution to end", || async {
        let found = store.executions(Page { before: None, limit: 1 }).await.unwrap().pop()?;
        found.state.status.is_final().then_some((found.state.reason, found.state.error))
    })
    .await
}

/// An engine without the parts around it, so that one of them can be another one.
fn bare(site: &TestSite, chat: &Arc<dyn ChatAdapter>) -> (Arc<Engine>, mpsc::Receiver<Command>, Vec<Postman>) {
    let (loaded, _) = app::load_site(site.path(), &Environment::default()).unwrap();
    let (outbox, postmen) = Outbox::new(BTreeMap::from([("console".to_string(), Arc::clone(chat))]));
    let clock = SimulatedClock::at(start());
    let parts = EngineParts {
        store: memory(&MemorySpace::default()),
        clock: Arc::new(clock.clone()),
        ids: Arc::new(IdSource::seeded(1)),
        metrics: Arc::new(Metrics::new()),
        outbox,
    };
    let (engine, commands) = Engine::new(parts, Catalog::of(loaded, 0, Arc::default(), clock.now()), 10, 0);
    (engine, commands, postmen)
}

struct Panics;

#[async_trait]
impl ActionRunner for Panics {
    async fn run(&self, _: ActionCall, _: RunContext) -> Result<Output, RunError> {
        panic!("a fault of ours, made for this test")
    }
}

async fn runner_panicked() -> Result<(), String> {
    let (engine, commands, _) = bare(&windows::site(&[]), &(Arc::new(Down) as _));
    let table = RunnerTable { runners: BTreeMap::from([("noop", (Arc::new(Panics) as Arc<dyn ActionRunner>, 1))]) };
    let (drain, stop) = (Stop::new(), Stop::new());
    let conductor = tokio::spawn(conduct::run(Arc::clone(&engine), table, Vec::new(), commands, drain.clone(), stop.clone()));
    engine.request("t.noop", &Map::new(), Principal::Token("li".into()), None).await.unwrap();
    let ended = ended(&*engine.store).await;
    drain.stop();
    stop.stop();
    conductor.await.unwrap();
    expect_reason("runner_panicked", ended.0)?;
    expect_text("the error", Some("the runner crashed; see the log"), ended.1.as_deref())
}

/// A chat system that is down.
struct Down;

#[async_trait]
impl ChatAdapter for Down {
    async fn send(&self, _: &Destination, _: &Message, _: MessageId) -> Result<Receipt, SendError> {
        Err(SendError { reason: Reason::ChatUnavailable, detail: "nobody answers".into(), retry: true })
    }

    fn abilities(&self) -> Abilities {
        Abilities { deduplicates: true, edits: false, markdown: false }
    }
}

/// A message waits while the chat is down, and is given up after a day.
async fn chat_unavailable() -> Result<(), String> {
    let (engine, _commands, postmen) = bare(&windows::site(&[]), &(Arc::new(Down) as _));
    let created_at = start() - chrono::Duration::days(1);
    let message = Message {
        id: engine.ids.message(created_at),
        channel: "ops".into(),
        destination: Destination { adapter: "console".into(), to: "ops".into() },
        text: "hello".into(),
        created_at,
        execution: None,
        replaces: None,
        passing: false,
        delivery: Delivery::Waiting,
    };
    engine.store.commit(&Batch { messages: vec![message.clone()], ..Batch::default() }).await.unwrap();
    let stop = Stop::new();
    let delivery: Vec<_> =
        postmen.into_iter().map(|postman| tokio::spawn(deliver::run(Arc::clone(&engine), postman, stop.clone()))).collect();
    let (reason, detail) = eventually("the message to be given up", || async {
        match engine.store.message(message.id).await.unwrap()?.delivery {
            Delivery::Failed { reason, detail, .. } => Some((reason, detail)),
            Delivery::Waiting | Delivery::Sent { .. } | Delivery::LeftOut { .. } => None,
        }
    })
    .await;
    stop.stop();
    for task in delivery {
        task.await.unwrap();
    }
    expect_reason("chat_unavailable", reason)?;
    expect_text("the detail", Some("nobody answers"), Some(&detail))
}
