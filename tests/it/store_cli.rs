//! Backup, restore, and what an operator asks of the store: with a server and without.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::harness::{Server, TestSite, binary, eventually};

/// What a command said.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Said {
    #[track_caller]
    fn is(self, code: i32, words: &[&str]) -> Self {
        assert_eq!(self.code, Some(code), "{}{}", self.out, self.err);
        for word in words {
            assert!(self.out.contains(word) || self.err.contains(word), "`{word}` is missing in:\n{}{}", self.out, self.err);
        }
        self
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}:\n{}{}", self.out, self.err))
    }
}

fn say(site: &TestSite, arguments: &[&str]) -> Said {
    let output = site.cli(arguments);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Said { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

const RULE: &str = "trigger: {type: core.webhook}\naction: {ref: core.echo, parameters: {text: \"{{trigger.n}}\"}}\n";

fn site() -> TestSite {
    TestSite::new().file("rules/echo.yaml", RULE)
}

/// A server that the command line finds by the site's settings.
async fn serve(site: &TestSite) -> Server {
    let server = Server::start(site).await;
    site.write("signalman.yaml", &format!("listen: {}\n", server.url.trim_start_matches("http://")));
    server
}

async fn emit(server: &Server, n: usize) -> String {
    let (status, answer) = server.post("/api/v1/events", &json!({"trigger": "core.webhook", "payload": {"n": n}})).await;
    assert_eq!(status, 202, "{answer}");
    answer["id"].as_str().unwrap().to_string()
}

/// Emits so many events and waits until what follows has ended.
async fn fill(server: &Server, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for n in 0..count {
        ids.push(emit(server, n).await);
    }
    let ended = |execution: &Value| execution["status"] == "succeeded";
    eventually("the executions to end", || async {
        let executions = all(server, "executions").await;
        (executions.len() >= count && executions.values().all(ended)).then_some(())
    })
    .await;
    ids
}

/// All events or executions by their ids.
async fn all(server: &Server, what: &str) -> BTreeMap<String, Value> {
    let (status, answer) = server.get(&format!("/api/v1/{what}?limit=1000")).await;
    assert_eq!(status, 200, "{answer}");
    let id = |of: &Value| of["id"].as_str().or(of["event"]["id"].as_str()).unwrap().to_string();
    answer[what].as_array().unwrap().iter().map(|of| (id(of), of.clone())).collect()
}

fn path(folder: &tempfile::TempDir, name: &str) -> (PathBuf, String) {
    let path = folder.path().join(name);
    (path.clone(), path.display().to_string())
}

fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_a_busy_server_becomes_a_store_again() {
    let site = site();
    let server = Arc::new(serve(&site).await);
    fill(&server, 30).await;
    let (events, executions) = (all(&server, "events").await, all(&server, "executions").await);
    let stop = Arc::new(AtomicBool::new(false));
    let busy = {
        let (server, stop) = (Arc::clone(&server), Arc::clone(&stop));
        tokio::spawn(async move {
            let mut n = 1_000;
            while !stop.load(Ordering::Relaxed) {
                emit(&server, n).await;
                n += 1;
            }
        })
    };
    let folder = tempfile::tempdir().unwrap();
    let (file, name) = path(&folder, "backup");
    let said = say(&site, &["backup", &name, "--output", "json"]).is(0, &[]).json();
    stop.store(true, Ordering::Relaxed);
    busy.await.unwrap();
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(names(folder.path()), ["backup"]);
    assert!(said["records"].as_u64().unwrap() > 60 && said["bytes"].as_u64().unwrap() > 0 && said["seconds"].is_number(), "{said}");
    say(&site, &["backup", &name]).is(2, &["exists", "--force"]);
    say(&site, &["backup", &name, "--force"]).is(0, &["records", "as of commit"]);
    let output = site.cli(&["backup", "-"]);
    assert!(output.status.success() && output.stdout.starts_with(b"signalman-backup 1\n") && output.stdout.ends_with(b"}\n"));
    assert!(String::from_utf8_lossy(&output.stderr).contains("as of commit"), "{output:?}");

    let other = self::site();
    let restored = say(&other, &["restore", &name, "--output", "json"]).is(0, &[]).json();
    assert!(restored["sequence"].as_u64().unwrap() >= said["sequence"].as_u64().unwrap() && restored["replaced"].is_null(), "{restored}");
    let second = Server::start(&other).await;
    let (own_events, own_executions) = (all(&second, "events").await, all(&second, "executions").await);
    let there = all(&server, "events").await;
    for (id, event) in &events {
        assert_eq!(own_events.get(id), Some(event));
    }
    for (id, execution) in &executions {
        assert_eq!(own_executions.get(id), Some(execution));
    }
    for (id, event) in &own_events {
        assert_eq!(there.get(id).unwrap_or(event), event, "nothing was made up");
    }
    emit(&second, 7).await;
    assert_eq!(second.stop(), Some(0));
    say(&other, &["store", "check"]).is(0, &["no damage"]);
}

#[tokio::test]
async fn a_damaged_backup_is_refused_before_anything_is_touched() {
    let site = site();
    let server = serve(&site).await;
    fill(&server, 3).await;
    assert_eq!(server.stop(), Some(0));
    let folder = tempfile::tempdir().unwrap();
    let (file, name) = path(&folder, "backup");
    say(&site, &["backup", &name]).is(0, &[&name, "records", "as of commit"]);
    let whole = std::fs::read(&file).unwrap();
    let target = tempfile::tempdir().unwrap();
    let (data, data_name) = path(&target, "data");
    let restore = |content: &[u8], words: &[&str]| {
        std::fs::write(&file, content).unwrap();
        say(&site, &["restore", &name, "--data", &data_name]).is(1, words);
        assert_eq!(names(&data), ["lock"]);
    };
    for length in [whole.len() - 5, whole.len() / 2, 40] {
        restore(&whole[..length], &["the backup is damaged"]);
    }
    for at in [30, whole.len() / 3, whole.len() / 2, whole.len() - 20] {
        let mut flipped = whole.clone();
        flipped[at] ^= 4;
        restore(&flipped, &["the backup is damaged"]);
    }
    restore(&[&whole[..], b"more"].concat(), &["something follows"]);
    restore(b"", &["no backup of Signalman"]);
    restore(&[b"signalman-backup 9\n", &whole[19..]].concat(), &["format 9", "newer"]);
    say(&site, &["restore", "/nowhere/backup", "--data", &data_name]).is(1, &["`/nowhere/backup` cannot be read"]);

    // From standard input, cut off and whole.
    for (content, code) in [(&whole[..whole.len() / 2], 1), (&whole[..], 0)] {
        let mut child = Command::new(binary())
            .args(["--site", site.path().to_str().unwrap(), "restore", "-", "--data", &data_name])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(content).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(code));
        assert_eq!(names(&data).contains(&"store".to_string()), code == 0, "{:?}", names(&data));
        assert!(!names(&data).contains(&"restore.spool".to_string()));
    }
    say(&site, &["store", "stat", "--data", &data_name]).is(0, &["events"]);
}

#[tokio::test]
async fn what_is_there_is_kept() {
    let site = site();
    let server = serve(&site).await;
    fill(&server, 2).await;
    let folder = tempfile::tempdir().unwrap();
    let (_, name) = path(&folder, "backup");
    say(&site, &["backup", &name]).is(0, &[]);
    let late = emit(&server, 9).await;
    let pid = server.pid().to_string();
    say(&site, &["restore", &name]).is(1, &["in use by process", &pid, "stop that process"]);
    site.write("signalman.yaml", "listen: 127.0.0.1:1\n");
    say(&site, &["store", "stat"]).is(1, &["no answer from http://127.0.0.1:1", &pid, "--server"]);
    site.write("signalman.yaml", "listen: 127.0.0.1:0\nlisten: 7\n");
    say(&site, &["store", "stat"]).is(2, &["the settings have mistakes", "--data"]);
    site.write("signalman.yaml", "listen: 127.0.0.1:0\n");
    say(&site, &["restore", &name, "--replace"]).is(1, &["in use by process", &pid]);
    let log = Server::try_start(&site, &[]).await.err().unwrap();
    assert!(log.contains("in use by process") && log.contains(&pid), "{log}");
    assert_eq!(server.stop(), Some(0));

    let data = site.path().join("data");
    let before = names(&data);
    say(&site, &["restore", &name]).is(1, &["there is a store", "--replace", "nothing was changed"]);
    assert_eq!(names(&data), before);
    // What an earlier attempt left is cleaned up.
    std::fs::create_dir(data.join("store.restoring")).unwrap();
    std::fs::create_dir(data.join("store.restored")).unwrap();
    let said = say(&site, &["restore", &name, "--replace"]).is(0, &["the store from before is in", "admin token"]);
    let aside: Vec<String> = names(&data).into_iter().filter(|name| name.starts_with("store.")).collect();
    assert!(aside.len() == 1 && aside[0].starts_with("store.replaced-") && said.out.contains(&aside[0]), "{aside:?}\n{}", said.out);

    let server = Server::start(&site).await;
    assert!(!all(&server, "events").await.contains_key(&late));
    assert_eq!(server.stop(), Some(0));
    std::fs::rename(data.join("store"), data.join("store.other")).unwrap();
    std::fs::rename(data.join(&aside[0]), data.join("store")).unwrap();
    let server = Server::start(&site).await;
    assert!(all(&server, "events").await.contains_key(&late), "the old one is whole");
}

#[tokio::test]
async fn the_store_can_be_asked_with_a_server_and_without() {
    let site = site();
    say(&site, &["store", "stat"]).is(1, &["there is no data folder", "--data"]);
    assert!(!site.path().join("data").exists());
    let server = serve(&site).await;
    fill(&server, 20).await;
    let ask = |url: Option<&str>| {
        let with = |arguments: &[&str]| {
            let server = url.map(|url| ["--server", url]);
            say(&site, &[arguments, server.as_ref().map_or(&[], |server| &server[..])].concat())
        };
        with(&["store", "stat"])
            .is(0, &["KIND", "COUNT", "OLDEST", "A DAY", "events", "live", "on disk", "free", "databases, engine sled"]);
        with(&["store", "stat", "--databases"]).is(0, &["DATABASE", "recent", "lasting"]);
        let stat = with(&["store", "stat", "--output", "json"]).is(0, &[]).json();
        assert!(stat["live_bytes"].as_u64() > Some(0) && stat["databases"].as_array().unwrap().len() > 1, "{stat}");
        with(&["store", "check"]).is(0, &["no damage"]);
        assert_eq!(with(&["store", "check", "--output", "json"]).is(0, &[]).json(), json!({"damage": []}));
        with(&["store", "compact"]).is(0, &["on disk before", "now"]);
        let compacted = with(&["store", "compact", "--output", "json"]).is(0, &[]).json();
        assert!(compacted["before"].as_u64() > Some(0) && compacted["after"].as_u64() > Some(0), "{compacted}");
    };
    ask(Some(&server.url));
    ask(None);
    emit(&server, 1).await;
    assert_eq!(server.stop(), Some(0));
    ask(None);
    let server = Server::start(&site).await;
    assert_eq!(all(&server, "events").await.len(), 21);
}

#[tokio::test]
async fn nobody_asks_without_a_token() {
    let site = site();
    let server = serve(&site).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    for (method, path) in [("GET", "stat"), ("GET", "backup"), ("POST", "check"), ("POST", "compact")] {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let request = client.request(method, format!("{}/api/v1/store/{path}", server.url));
        assert_eq!(request.bearer_auth("wrong").send().await.unwrap().status(), 401, "{path}");
    }
    let folder = tempfile::tempdir().unwrap();
    let (_, name) = path(&folder, "backup");
    let output = Command::new(binary()).args(["--server", &server.url, "backup", &name]).env("SIGNALMAN_TOKEN", "wrong").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("token"), "{output:?}");
    assert_eq!(names(folder.path()), [""; 0]);
}

#[tokio::test]
async fn a_folder_of_a_newer_program_is_left_alone() {
    let site = site();
    assert_eq!(serve(&site).await.stop(), Some(0));
    let file = site.path().join("data/store/manifest");
    let text = std::fs::read_to_string(&file).unwrap();
    let (json, _) = text.trim_end().rsplit_once('\n').unwrap();
    let mut manifest: Value = serde_json::from_str(json).unwrap();
    (manifest["format"], manifest["written_by"]) = (json!(99), json!("99.1"));
    let json = manifest.to_string();
    let newer = format!("{json}\n{:08x}\n", crc32fast::hash(json.as_bytes()));
    std::fs::write(&file, &newer).unwrap();
    let words = ["the data folder has format 99, written by Signalman 99.1", "Start the newer program again"];
    let log = Server::try_start(&site, &[]).await.err().unwrap();
    assert!(words.iter().all(|word| log.contains(word)), "{log}");
    for command in ["stat", "check"] {
        say(&site, &["store", command]).is(1, &words);
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), newer);
}

#[tokio::test]
async fn damage_is_named() {
    let site = site();
    let server = serve(&site).await;
    fill(&server, 40).await;
    assert_eq!(server.stop(), Some(0));
    say(&site, &["store", "check"]).is(0, &["no damage"]);
    let databases = site.path().join("data/store/db");
    let files = names(&databases).into_iter().map(|name| databases.join(name).join("db"));
    let fullest = files.max_by_key(|file| std::fs::read(file).unwrap().iter().filter(|byte| **byte != 0).count()).unwrap();
    let mut content = std::fs::read(&fullest).unwrap();
    let last = content.iter().rposition(|byte| *byte != 0).unwrap();
    content[last / 4..last * 3 / 4].iter_mut().for_each(|byte| *byte ^= 0x55);
    std::fs::write(&fullest, content).unwrap();
    let said = say(&site, &["store", "check"]).is(1, &["signalman restore FILE --replace"]);
    assert!(format!("{}{}", said.out, said.err).contains(fullest.parent().unwrap().file_name().unwrap().to_str().unwrap()), "{said:?}");
}

/// Answers one request with the head of a stream and some bytes, then keeps the connection as it is until it is told to end.
fn half_a_server(bytes: Vec<u8>) -> (String, std::sync::mpsc::Sender<()>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (end, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = [0; 4096];
        let _ = stream.read(&mut head).unwrap();
        write!(stream, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n", bytes.len()).unwrap();
        stream.write_all(&bytes).unwrap();
        stream.write_all(b"\r\n").unwrap();
        let _ = ended.recv();
    });
    (url, end)
}

#[tokio::test]
async fn a_backup_that_is_cut_short_is_no_backup() {
    let site = site();
    let server = serve(&site).await;
    fill(&server, 5).await;
    let folder = tempfile::tempdir().unwrap();
    let (file, name) = path(&folder, "backup");
    say(&site, &["backup", &name]).is(0, &[]);
    let whole = std::fs::read(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    let token = server.token.clone();
    let start = |url: &str| {
        let mut command = Command::new(binary());
        command.args(["--server", url, "backup", &name]).env("SIGNALMAN_TOKEN", &token).stderr(Stdio::piped()).spawn().unwrap()
    };

    // The machine stops in the middle.
    let (url, _end) = half_a_server(whole[..whole.len() / 2].to_vec());
    let mut child = start(&url);
    let partial = folder.path().join("backup.partial");
    let half = || std::fs::metadata(&partial).is_ok_and(|meta| meta.len() > 0);
    eventually("the half backup", || async { half().then_some(()) }).await;
    say(&site, &["backup", &name]).is(1, &["another backup is being written"]);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(names(folder.path()), ["backup.partial"]);

    // The server breaks off, also when all that matters has arrived.
    for length in [whole.len() / 2, whole.len()] {
        let (url, end) = half_a_server(whole[..length].to_vec());
        let child = start(&url);
        drop(end);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&output.stderr).contains("broke off"), "{output:?}");
        assert_eq!(names(folder.path()), [""; 0]);
    }
    std::fs::write(&partial, vec![7; whole.len() * 2]).unwrap();
    say(&site, &["backup", &name]).is(0, &[]);
    assert_eq!(names(folder.path()), ["backup"]);
}

#[tokio::test]
async fn a_client_that_takes_nothing_delays_neither_the_stop_nor_others_for_ever() {
    let site = TestSite::new();
    let server = serve(&site).await;
    for n in 0..24 {
        let event = json!({"trigger": "core.webhook", "payload": {"n": n, "text": "x".repeat(900_000)}});
        let (status, answer) = server.post("/api/v1/events", &event).await;
        assert_eq!(status, 202, "{answer}");
    }
    let request = format!("GET /api/v1/store/backup HTTP/1.1\r\nhost: s\r\nauthorization: Bearer {}\r\n\r\n", server.token);
    let stall = || {
        let mut stream = TcpStream::connect(server.url.trim_start_matches("http://")).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut some = [0; 1000];
        let count = stream.read(&mut some).unwrap();
        assert!(String::from_utf8_lossy(&some[..count]).starts_with("HTTP/1.1 200"));
        stream
    };
    let first = stall();
    say(&site, &["store", "check"]).is(1, &["another backup, check or compaction is running"]);
    emit(&server, 1).await;
    drop(first);
    eventually("the place", || async { (say(&site, &["store", "check"]).code == Some(0)).then_some(()) }).await;
    let mut second = stall();
    assert_eq!(server.stop(), Some(0));
    let mut rest = Vec::new();
    let _ = second.read_to_end(&mut rest); // it may end with a reset, which takes what has not been read with it
    assert!(!rest.ends_with(b"0\r\n\r\n"), "the body breaks off, so that nobody takes it for whole");
}
