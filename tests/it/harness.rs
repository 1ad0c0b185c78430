//! What the tests stand on: sites in temporary folders, real processes, in-process worlds, and waiting without sleeping.

use std::future::Future;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use signalman::app::reload::Origin;
use signalman::app::{self, App, Parts};
use signalman::clock::{Clock, SystemClock};
use signalman::config::Environment;
use signalman::engine::{Engine, keys};
use signalman::model::datastore::{self, Changed, If, KeyRequest, Scope};
use signalman::model::ids::IdSource;
use signalman::store::Store;
use signalman::store::memory::{MemorySpace, MemoryStore};
use tempfile::TempDir;

/// How long anything may take before a test gives up and says what it waited for.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A small generator of pseudo-random numbers; the seed is printed, so that a failure can be had again.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// The seed of a test: always the same, unless `SIGNALMAN_TEST_SEED` says another. It is printed.
pub fn seed() -> u64 {
    let seed = std::env::var("SIGNALMAN_TEST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(20_261_120);
    println!("repeat with SIGNALMAN_TEST_SEED={seed}");
    seed
}

/// How often something is done: the first number every day, the second with `SIGNALMAN_LONG=1`.
pub fn times<T>(everyday: T, long: T) -> T {
    if std::env::var("SIGNALMAN_LONG").is_ok_and(|text| text == "1") { long } else { everyday }
}

/// A site in a temporary folder.
pub struct TestSite {
    folder: TempDir,
}

impl TestSite {
    /// The packs of this repository, no rules, a free port.
    pub fn new() -> Self {
        let site = Self::empty();
        copy_folder(&repository().join("packs"), &site.path().join("packs"));
        site
    }

    /// A site with nothing but settings that take a free port.
    pub fn empty() -> Self {
        let site = Self { folder: tempfile::tempdir().expect("a temporary folder can be made") };
        site.file("signalman.yaml", "listen: 127.0.0.1:0\n")
    }

    /// Writes a file into the site.
    pub fn file(self, path: &str, text: &str) -> Self {
        self.write(path, text);
        self
    }

    /// Writes a file into the site.
    pub fn write(&self, path: &str, text: &str) {
        let path = self.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a file has a folder")).expect("the folder can be made");
        std::fs::write(&path, text).expect("the file can be written");
    }

    /// Adds a pack `t` with capabilities for chat and keys, and the given files below it.
    pub fn pack(self, files: &[(&str, &str)]) -> Self {
        let site = self.file("packs/t/pack.yaml", "ref: t\ncapabilities: {chat: true, kv: read_write}\n");
        files.iter().fold(site, |site, (path, text)| site.file(&format!("packs/t/{path}"), text))
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Runs the command line on this site, without a server's help unless one runs.
    pub fn cli(&self, arguments: &[&str]) -> Output {
        Command::new(binary())
            .arg("--site")
            .arg(self.path())
            .args(arguments)
            .env_remove("SIGNALMAN_TOKEN")
            .output()
            .expect("the binary runs")
    }
}

/// The repository's root.
pub fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The folder with material shared beside the repository, where there is one.
pub fn shared() -> Option<PathBuf> {
    let folder = repository().parent()?.join("shared");
    folder.is_dir().then_some(folder)
}

pub fn binary() -> &'static str {
    env!("CARGO_BIN_EXE_signalman")
}

pub fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("the folder can be made");
    for entry in std::fs::read_dir(from).expect("the folder can be read") {
        let entry = entry.expect("the folder can be read");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), &target).expect("the file can be copied");
        }
    }
}

/// A real process that serves a site.
pub struct Server {
    child: Child,
    pub url: String,
    pub token: String,
    log: Arc<Mutex<String>>,
    client: reqwest::Client,
}

impl Server {
    /// Starts the binary on a site and waits until it listens. Keep the site: its folder goes when it is dropped.
    pub async fn start(site: &TestSite) -> Self {
        Self::try_start(site, &[]).await.unwrap_or_else(|log| panic!("the server did not start:\n{log}"))
    }

    /// Starts it with more arguments; the log if it ends instead of listening.
    pub async fn try_start(site: &TestSite, arguments: &[&str]) -> Result<Self, String> {
        let mut child = Command::new(binary())
            .arg("--site")
            .arg(site.path())
            .arg("serve")
            .args(arguments)
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("the binary runs");
        let stderr = child.stderr.take().expect("the error output is piped");
        let log = Arc::new(Mutex::new(String::new()));
        let (found, address) = tokio::sync::oneshot::channel();
        let kept = Arc::clone(&log);
        std::thread::spawn(move || {
            let mut found = Some(found);
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if let Some((_, url)) = line.split_once("listening on ")
                    && let Some(found) = found.take()
                {
                    let _ = found.send(url.trim().to_string());
                }
                let mut kept = kept.lock().unwrap();
                kept.push_str(&line);
                kept.push('\n');
            }
        });
        let Ok(Ok(url)) = tokio::time::timeout(PATIENCE, address).await else {
            let _ = child.kill();
            let _ = child.wait();
            return Err(log.lock().unwrap().clone());
        };
        let token = std::fs::read_to_string(site.path().join("data/admin.token")).expect("the first start writes the token");
        Ok(Self { child, url, token: token.trim().to_string(), log, client: reqwest::Client::builder().no_proxy().build().unwrap() })
    }

    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// As a power switch: SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().expect("the process can be killed");
        self.child.wait().expect("the process can be waited for");
    }

    /// As an operator: SIGTERM, and wait. Answers the exit code.
    pub fn stop(mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("the process can be signalled");
        self.child.wait().expect("the process can be waited for").code()
    }

    /// Posts to a webhook; status and answer.
    pub async fn webhook(&self, name: &str, body: impl Into<reqwest::Body>) -> (u16, Value) {
        self.webhook_with(name, body, &[]).await
    }

    pub async fn webhook_with(&self, name: &str, body: impl Into<reqwest::Body>, headers: &[(&str, &str)]) -> (u16, Value) {
        let mut request = self.client.post(format!("{}/api/v1/webhooks/{name}", self.url)).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        answer(request).await
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        answer(self.client.get(format!("{}{path}", self.url)).bearer_auth(&self.token)).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        answer(self.client.post(format!("{}{path}", self.url)).bearer_auth(&self.token).body(body.to_string())).await
    }

    /// Runs an action and waits for its end.
    pub async fn run(&self, action: &str, parameters: Value) -> Value {
        let (status, execution) = self.post("/api/v1/executions", &serde_json::json!({"action": action, "parameters": parameters})).await;
        assert_eq!(status, 202, "{execution}");
        self.ended(execution["id"].as_str().unwrap()).await
    }

    /// The execution, once it has ended.
    pub async fn ended(&self, id: &str) -> Value {
        eventually(&format!("execution {id} to end"), || async {
            let (_, execution) = self.get(&format!("/api/v1/executions/{id}")).await;
            let open = ["requested", "delayed", "running", "canceling"].contains(&execution["status"].as_str().unwrap_or_default());
            (!open).then_some(execution)
        })
        .await
    }

    /// Every message so far, oldest first: channel and text.
    pub async fn messages(&self) -> Vec<(String, String)> {
        let (mut messages, mut before) = (Vec::new(), String::new());
        loop {
            let (_, answer) = self.get(&format!("/api/v1/messages?limit=1000{before}")).await;
            let page = answer["messages"].as_array().cloned().unwrap_or_default();
            let Some(last) = page.last() else { break };
            before = format!("&before={}", last["id"].as_str().unwrap());
            messages.extend(page);
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
        messages.iter().rev().map(|message| (text(&message["channel"]), text(&message["text"]))).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn answer(request: reqwest::RequestBuilder) -> (u16, Value) {
    let response = request.send().await.expect("the server answers");
    let status = response.status().as_u16();
    let text = response.text().await.expect("the answer arrives");
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

/// Asks again and again until there is an answer. The only place in the tests that lets real time pass.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let started = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(started.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// An engine in this process, over a store that outlives it.
pub struct World {
    pub app: App,
}

impl World {
    /// Starts the site in this process on the given store.
    pub async fn start(site: &TestSite, store: Arc<dyn Store>) -> Result<Self, String> {
        Self::start_with_clock(site, store, Arc::new(SystemClock)).await
    }

    pub async fn start_with_clock(site: &TestSite, store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Result<Self, String> {
        let (loaded, _) = app::load_site(site.path(), &Environment::default()).unwrap_or_else(|faults| panic!("{}", faults.join("\n")));
        let origin = Origin { folder: site.path().to_path_buf(), environment: Environment::default(), config: loaded.config.clone() };
        let parts = Parts::real(store, clock, Arc::new(IdSource::system())).map_err(|error| error.to_string())?;
        let parts = Parts { origin: Some(origin), ..parts };
        let app = app::start(loaded, parts).await.map_err(|error| error.to_string())?;
        Ok(Self { app })
    }
}

/// Gives a key a value, or deletes it.
pub async fn set_key(engine: &Arc<Engine>, scope: Scope, name: &str, value: Option<Value>) -> Changed {
    let change = value.map_or(datastore::Change::Delete, |value| datastore::Change::Set { value, ttl: None });
    let request = KeyRequest { scope, name: name.into(), change, only: If::Always, by: "a test".into(), cause: None };
    keys::change(engine, request).await.expect("the key can be changed")
}

/// A store in memory over a space that can be opened again.
pub fn memory(space: &MemorySpace) -> Arc<dyn Store> {
    Arc::new(MemoryStore::new(space.clone()).expect("a memory store opens"))
}

/// A small HTTP server that keeps what it was asked, and answers as it is told.
pub struct Target {
    pub url: String,
    pub requests: Arc<Mutex<Vec<Received>>>,
    _stop: tokio_util::sync::DropGuard,
}

/// A request that a [`Target`] got.
#[derive(Clone, Debug)]
pub struct Received {
    pub method: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Received {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }
}

impl Target {
    /// Answers every request with a status and a body.
    pub async fn answering(status: u16, body: &'static str) -> Self {
        Self::with(move |_| (status, body.to_string())).await
    }

    /// Answers as the function says.
    pub async fn with(reply: impl Fn(&Received) -> (u16, String) + Send + Sync + 'static) -> Self {
        Self::replying(move |request| {
            let (status, body) = reply(request);
            (status, Vec::new(), body)
        })
        .await
    }

    /// The same, with headers.
    pub async fn replying(reply: impl Fn(&Received) -> (u16, Vec<(&'static str, String)>, String) + Send + Sync + 'static) -> Self {
        let requests: Arc<Mutex<Vec<Received>>> = Arc::default();
        let (kept, reply) = (Arc::clone(&requests), Arc::new(reply));
        let handler = move |request: axum::extract::Request| {
            let (kept, reply) = (Arc::clone(&kept), Arc::clone(&reply));
            async move {
                let (head, body) = request.into_parts();
                let body = axum::body::to_bytes(body, 1 << 24).await.unwrap_or_default();
                let text = |value: &axum::http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
                let received = Received {
                    method: head.method.to_string(),
                    path: head.uri.to_string(),
                    headers: head.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect(),
                    body: String::from_utf8_lossy(&body).into_owned(),
                };
                let (status, headers, body) = reply(&received);
                kept.lock().unwrap().push(received);
                let response = headers
                    .into_iter()
                    .fold(axum::http::Response::builder().status(status), |response, (name, value)| response.header(name, value));
                response.body(axum::body::Body::from(body)).unwrap()
            }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().unwrap());
        let stop = tokio_util::sync::CancellationToken::new();
        let stopped = stop.clone();
        tokio::spawn(async move {
            let serve = axum::serve(listener, axum::Router::new().fallback(handler));
            let _ = serve.with_graceful_shutdown(async move { stopped.cancelled().await }).await;
        });
        Self { url, requests, _stop: stop.drop_guard() }
    }

    pub fn received(&self) -> Vec<Received> {
        self.requests.lock().unwrap().clone()
    }
}

/// A command line's end: exit code, output, error output.
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Said {
    pub fn of(output: std::process::Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("the output is UTF-8");
        Self { code: output.status.code().expect("the process ends by itself"), out: text(output.stdout), err: text(output.stderr) }
    }

    /// Asserts the exit code and words of the output.
    pub fn out(self, code: i32, words: &[&str]) -> Self {
        self.has(code, words, true)
    }

    /// Asserts the exit code and words of the error output.
    pub fn err(self, code: i32, words: &[&str]) -> Self {
        self.has(code, words, false)
    }

    fn has(self, code: i32, words: &[&str], out: bool) -> Self {
        assert_eq!(self.code, code, "exit code\n{}\n{}", self.out, self.err);
        for word in words {
            assert!(if out { &self.out } else { &self.err }.contains(word), "`{word}` is missing in:\n{}\n{}", self.out, self.err);
        }
        self
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}:\n{}\n{}", self.out, self.err))
    }
}

/// A site with its server.
pub struct Shell {
    pub site: TestSite,
    pub server: Server,
}

impl Shell {
    pub async fn start(site: TestSite) -> Self {
        let server = Server::start(&site).await;
        Self { site, server }
    }

    pub fn say(&self, arguments: &[&str]) -> Said {
        Said::of(self.site.cli(&[arguments, &["--server", &self.server.url]].concat()))
    }

    pub fn json(&self, arguments: &[&str]) -> Value {
        self.say(&[arguments, &["--output", "json"]].concat()).json()
    }
}
