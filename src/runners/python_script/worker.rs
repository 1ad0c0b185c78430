//! One Python process that runs one action after the other. `harness.py` is the other end.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout};

use super::Asked;
use crate::clock;
use crate::livelog::LiveLog;
use crate::model::failure::Failure;
use crate::model::hash::Revision;
use crate::process::{self, Channel, Program, Running};

/// What the process runs.
const HARNESS: &str = include_str!("harness.py");

/// The longest answer, in bytes; a result is shorter.
const MAX_ANSWER_BYTES: usize = 4 << 20;

/// How long the last output of an attempt is waited for, after its answer.
const LAST_OUTPUT: Duration = Duration::from_secs(1);

/// How long a process that has closed its pipes may take to end.
const END_TIME: Duration = Duration::from_secs(1);

/// What the worker is to run.
#[derive(Serialize)]
pub(super) struct Request<'a> {
    /// The script as it is called in messages.
    pub file: &'a str,
    /// Where it lies.
    pub path: PathBuf,
    /// The name of its module.
    pub module: String,
    /// Its text.
    pub source: &'a str,
    /// The pack's folder, where it runs.
    pub folder: PathBuf,
    /// Where it may import from.
    pub folders: Vec<PathBuf>,
    /// The parameters.
    pub params: Map<String, Value>,
    /// The settings of the pack.
    pub config: &'a Map<String, Value>,
    /// What is known of the execution.
    pub context: Value,
    /// Added to the environment.
    pub env: BTreeMap<String, String>,
    /// Ends the output of the attempt.
    pub mark: String,
    /// The longest result.
    pub limit: usize,
}

/// What the worker says.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Said {
    Began(#[allow(dead_code, reason = "always true")] bool),
    Stale(#[allow(dead_code, reason = "always true")] bool),
    Done(Answer),
    #[serde(untagged)]
    Log {
        log: String,
        text: String,
    },
    #[serde(untagged)]
    Ask(Question),
}

/// What a script asks of the engine.
#[derive(Deserialize)]
pub(super) struct Question {
    /// `get`, `set` or `delete`.
    pub ask: String,
    /// The key.
    pub name: Value,
    /// Its new value.
    #[serde(default)]
    pub value: Value,
    /// Whose key.
    #[serde(default)]
    pub pack: Option<String>,
}

/// How an attempt ended.
#[derive(Default, Deserialize)]
pub(super) struct Answer {
    /// Whether it says that it succeeded; where it does not, what it returned is why.
    #[serde(default)]
    pub succeeded: bool,
    /// What it returned.
    #[serde(default)]
    pub result: Value,
    /// What went wrong.
    #[serde(default)]
    pub error: Option<String>,
    /// Whether another attempt could go better.
    #[serde(default)]
    pub again: bool,
    /// Whether the script cannot be run at all.
    #[serde(default)]
    pub broken: bool,
    /// Whether the result is too large.
    #[serde(default)]
    pub too_large: bool,
    /// Whether the worker must not be used any more.
    #[serde(default)]
    pub retire: bool,
}

/// What became of a request.
pub(super) enum Outcome {
    /// It was answered.
    Answered(Answer),
    /// The worker did not begin it: it has ended while it was idle, or a module that it had imported has changed.
    NotBegun,
    /// The worker ended in the middle of it.
    Died(String),
}

/// A Python process.
pub(super) struct Worker {
    running: Running,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
    output: ChildStderr,
    /// The part of an answer that has come.
    partial: Vec<u8>,
    /// The scripts that it has loaded.
    loaded: HashMap<String, Revision>,
    /// Since when it is idle.
    pub idle_since: DateTime<Utc>,
}

impl Worker {
    /// Starts one.
    pub(super) fn start(interpreter: &str, folder: PathBuf, now: DateTime<Utc>) -> Result<Self, Failure> {
        // Isolated: no variables, no folder of the user, nothing from where it runs. Packages that are installed for the interpreter stay
        // visible, so that one of a virtual environment can be named.
        let arguments = ["-I", "-B", "-X", "utf8", "-c", HARNESS].map(String::from).to_vec();
        let environment = BTreeMap::from([("LANG".to_string(), "C.UTF-8".to_string())]);
        let program = Program { name: interpreter.into(), arguments, folder, environment, input: Vec::new() };
        let mut running = process::spawn(&program)?;
        let child = &mut running.child;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(requests), Some(answers), Some(output)) = pipes else { unreachable!("a program is started with three pipes") };
        let answers = BufReader::with_capacity(32 << 10, answers);
        Ok(Self { running, requests, answers, output, partial: Vec::new(), loaded: HashMap::new(), idle_since: now })
    }

    /// Whether it can still be used for a script of this revision.
    pub(super) fn fits(&mut self, file: &str, revision: &Revision) -> bool {
        let is_same = self.loaded.get(file).is_none_or(|loaded| loaded == revision);
        is_same && matches!(self.running.child.try_wait(), Ok(None))
    }

    /// Ends it.
    pub(super) async fn end(mut self) -> bool {
        self.running.end().await
    }

    /// Has a request carried out; `asked` answers what the script asks meanwhile.
    pub(super) async fn attempt(&mut self, request: &Request<'_>, revision: &Revision, log: &Arc<LiveLog>, asked: &Asked<'_>) -> Outcome {
        let mut line = serde_json::to_vec(request).expect("a request is JSON");
        line.push(b'\n');
        let (mut sent, mut has_begun) = (0, false);
        let mut chunk = Vec::with_capacity(16 << 10);
        let mut output = Printed::new(&request.mark);
        let done = loop {
            chunk.clear();
            tokio::select! {
                // What it says is read while it is still being told: a large request and much output would wait for each other.
                written = self.requests.write(&line[sent..]), if sent < line.len() => match written {
                    Ok(count) => sent += count,
                    Err(_) => sent = line.len(), // it has gone, as its answers will show
                },
                read = self.output.read_buf(&mut chunk), if !output.is_over => match read {
                    Ok(count) if count > 0 => output.take(&chunk, log),
                    _ => output.is_over = true, // it closed its error output, and can go on; what it says there is lost
                },
                said = next(&mut self.answers, &mut self.partial) => match said {
                    Some(said) => match self.hear(&said, &mut has_begun, log, asked).await {
                        Heard::Go => {}
                        Heard::Done(done) => break Ok(done),
                        Heard::Stale => return Outcome::NotBegun,
                    },
                    None => break Err(()),
                },
            }
        };
        let is_complete = tokio::select! { () = output.rest(&mut self.output, log) => true, () = clock::pause(LAST_OUTPUT) => false };
        log.flush();
        match done {
            Ok(done) => {
                self.loaded.insert(request.file.to_string(), revision.clone());
                Outcome::Answered(Answer { retire: done.retire || !is_complete, ..done })
            }
            Err(()) if !has_begun => match self.exit().await {
                // Python itself, or the harness, says why it cannot run.
                Some(status) if !self.has_served() && !status.success() => Outcome::Died(how(status)),
                _ => Outcome::NotBegun,
            },
            Err(()) => Outcome::Died(self.exit().await.map_or_else(|| "closed its pipes".to_string(), how)),
        }
    }

    fn has_served(&self) -> bool {
        !self.loaded.is_empty()
    }

    async fn exit(&mut self) -> Option<ExitStatus> {
        tokio::select! { status = self.running.child.wait() => status.ok(), () = clock::pause(END_TIME) => None }
    }

    async fn hear(&mut self, said: &[u8], has_begun: &mut bool, log: &Arc<LiveLog>, asked: &Asked<'_>) -> Heard {
        match serde_json::from_slice(said) {
            Ok(Said::Began(_)) => *has_begun = true,
            Ok(Said::Stale(_)) => return Heard::Stale,
            Ok(Said::Done(done)) => return Heard::Done(done),
            Ok(Said::Log { log: level, text }) => text.lines().for_each(|line| log.line(&level, line)),
            Ok(Said::Ask(question)) => {
                let reply = match asked.answer(question).await {
                    Ok(value) => serde_json::json!({"value": value}),
                    Err(error) => serde_json::json!({"error": error}),
                };
                let mut line = reply.to_string().into_bytes();
                line.push(b'\n');
                let _ = self.requests.write_all(&line).await; // if it has gone, its answers end
            }
            Err(error) => {
                let error = format!("the script wrote into the pipe of its worker: {error}");
                return Heard::Done(Answer { error: Some(error), retire: true, ..Answer::default() });
            }
        }
        Heard::Go
    }
}

enum Heard {
    Go,
    Stale,
    Done(Answer),
}

fn how(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with code {code}"),
        (None, signal) => format!("was ended by signal {}", signal.unwrap_or_default()),
    }
}

/// The next line that the worker says; what has come of it stays in `partial` when the wait is given up.
async fn next(answers: &mut BufReader<ChildStdout>, partial: &mut Vec<u8>) -> Option<Vec<u8>> {
    loop {
        let available = answers.fill_buf().await.ok()?;
        if available.is_empty() || partial.len() > MAX_ANSWER_BYTES {
            return None;
        }
        let end = available.iter().position(|byte| *byte == b'\n');
        let count = end.map_or(available.len(), |end| end + 1);
        partial.extend_from_slice(&available[..count]);
        answers.consume(count);
        if end.is_some() {
            return Some(std::mem::take(partial));
        }
    }
}

/// The output of one attempt, up to its mark.
struct Printed {
    mark: Vec<u8>,
    /// The last bytes, which may be the beginning of the mark.
    held: Vec<u8>,
    is_over: bool,
}

impl Printed {
    fn new(mark: &str) -> Self {
        Self { mark: format!("\0{mark}\n").into_bytes(), held: Vec::new(), is_over: false }
    }

    fn take(&mut self, bytes: &[u8], log: &LiveLog) {
        self.held.extend_from_slice(bytes);
        let mut from = 0;
        while let Some(at) = self.held[from..].iter().position(|byte| *byte == 0).map(|at| from + at) {
            let rest = &self.held[at..];
            if rest.starts_with(&self.mark) {
                log.text(Channel::Stdout.name(), &self.held[..at]);
                self.held.clear();
                self.is_over = true;
                return;
            }
            if self.mark.starts_with(rest) {
                from = at;
                break;
            }
            from = at + 1;
        }
        // From here on it may be the beginning of the mark.
        let keep = if self.held.get(from) == Some(&0) { from } else { self.held.len() };
        log.text(Channel::Stdout.name(), &self.held[..keep]);
        self.held.drain(..keep);
    }

    /// Reads up to the mark.
    async fn rest(&mut self, from: &mut ChildStderr, log: &LiveLog) {
        let mut chunk = Vec::with_capacity(16 << 10);
        while !self.is_over {
            chunk.clear();
            match from.read_buf(&mut chunk).await {
                Ok(count) if count > 0 => self.take(&chunk, log),
                _ => break,
            }
        }
        if !self.held.is_empty() {
            log.text(Channel::Stdout.name(), &std::mem::take(&mut self.held));
        }
    }
}
