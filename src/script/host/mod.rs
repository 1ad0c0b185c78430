//! Runs the scripts of actions and sensors: Rhai with a budget of operations and time, and the modules that a pack's capabilities allow.
//!
//! A script reaches the engine only through [`Host`]. It runs on a plain thread and may block there; [`ScriptCall::wait`] ends
//! every wait at the deadline or when the execution is canceled. One file a module, one line in [`MODULES`].
//!
//! [`compile`] reads a script and finds what is wrong with it before it runs, [`run`](run()) runs it, [`fault`] tells what went wrong.

mod actions;
mod chat;
mod check;
mod compile;
pub mod emit;
mod fault;
mod hash;
mod http;
mod json;
mod kv;
mod links;
mod log;
mod module;
mod regex;
mod run;
mod text;
mod time;

use std::future::Future;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use rhai::{Dynamic, EvalAltResult, ImmutableString, Position};
use serde_json::{Map, Value};

pub use self::compile::{ScriptCache, ScriptFault, compile};
pub use self::module::{HostModule, ScriptFunction, module, reference};
pub use self::run::{ScriptEnd, run};
use crate::clock::Clock;
use crate::model::datastore::{Changed, KeyEntry, KeyRequest, Scope};
use crate::model::execution::LogLine;
use crate::model::failure::Failure;
use crate::model::ids::ExecutionId;
use crate::model::json::MAX_DEPTH;
use crate::model::pack::Pack;
use crate::model::reason::Reason;
use crate::model::secret::Masks;
use crate::outbound::Transport;
use crate::script::expr::to_dynamic;
use crate::tasks::{Errands, Stop};

/// The most operations that one attempt may take.
pub const MAX_OPERATIONS: u64 = 50_000_000;

/// Operations after which a script stands back behind everything else: a tenth of a second of computing or less.
pub const STAND_BACK_AFTER: u64 = 500_000;

/// The deepest nesting of function calls.
pub const MAX_CALL_LEVELS: usize = 32;

/// The longest string a script may build.
pub const MAX_STRING_BYTES: usize = 1 << 20;

/// The longest array or map a script may build.
pub const MAX_ITEMS: usize = 10_000;

/// The largest result, as JSON.
pub const MAX_RESULT_BYTES: usize = 1 << 20;

/// The most lines that an execution's log keeps.
pub const MAX_LOG_LINES: usize = 100;

/// The most messages that one attempt may send.
pub const MAX_MESSAGES: u32 = 20;

/// The most calls of one attempt that leave the script: requests, keys, messages.
pub const MAX_CALLS: u32 = 10_000;

/// The most memory that one attempt may hold.
pub const MAX_HELD_BYTES: i64 = 64 << 20;

/// The longest line of an execution's log.
pub const MAX_LOG_BYTES: usize = 2_000;

/// Stack of a script's thread; [`MAX_CALL_LEVELS`] fits into it in a debug build, too.
pub const STACK_BYTES: usize = 16 << 20;

/// What scripts need from the engine.
#[async_trait]
pub trait Host: Send + Sync {
    /// A key of the datastore.
    async fn key(&self, scope: &Scope, name: &str) -> Result<Option<KeyEntry>, String>;

    /// The names of keys that begin so, after one of them.
    async fn key_names(&self, scope: &Scope, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<String>, String>;

    /// Changes a key of the datastore; durable on return.
    async fn change_key(&self, request: KeyRequest) -> Result<Changed, Failure>;

    /// Asks for the `index`-th execution of a script of that depth; durable on return. The same parent and index is the same execution.
    async fn start_action(
        &self,
        parent: ExecutionId,
        depth: u32,
        index: u32,
        action: &str,
        parameters: &Map<String, Value>,
    ) -> Result<ExecutionId, Failure>;

    /// Waits until an execution that a script asked for has ended; its result. Meanwhile the script has no place at its runner.
    async fn wait_for(&self, parent: ExecutionId, child: ExecutionId) -> Result<Value, Failure>;

    /// Puts a message into the outbox; durable on return. The same execution and index is the same message.
    async fn send_message(&self, execution: ExecutionId, index: u32, channel: &str, text: String) -> Result<(), Failure>;

    /// Tells whoever asked for the execution in chat how far it is; where nobody did, nothing happens. Only the last word counts, and
    /// it is lost in a crash.
    fn progress(&self, execution: ExecutionId, text: String) {
        let _ = (execution, text);
    }
}

/// Whose thread a script has.
pub trait Lender: Send + Sync {
    /// The script waits for another execution, so another script may run instead; false if too many wait already.
    fn lend(&self) -> bool;

    /// The script goes on.
    fn take_back(&self);

    /// The script takes long: its thread stands back behind all others. May be called more than once.
    fn stand_back(&self);
}

/// The function of a script that is called, and whose script it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// `fn run(params)` of an action.
    Run,
    /// `fn plan(params)` of an action: what `run` would do. It may look, and change nothing.
    Plan,
    /// `fn poll(state)` of a sensor.
    Poll,
}

impl Entry {
    /// Every function that is called.
    const ALL: [Self; 3] = [Self::Run, Self::Plan, Self::Poll];

    /// The name that the function has once it is compiled.
    fn inner_name(self) -> &'static str {
        match self {
            Self::Run => "__run",
            Self::Plan => "__plan",
            Self::Poll => "__poll",
        }
    }

    fn function(self) -> (&'static str, &'static str) {
        match self {
            Self::Run => ("run", "params"),
            Self::Plan => ("plan", "params"),
            Self::Poll => ("poll", "state"),
        }
    }

    fn owner(self) -> &'static str {
        match self {
            Self::Run | Self::Plan => "action",
            Self::Poll => "sensor",
        }
    }
}

/// The attempt that a script makes.
pub struct ScriptAttempt {
    /// The execution; for a sensor an id of the poll.
    pub execution: ExecutionId,
    /// Its pack.
    pub pack: Arc<Pack>,
    /// Whose keys `kv.user` are; nothing where no person asks.
    pub user: Option<String>,
    /// How many of our own executions led here.
    pub depth: u32,
    /// Hides what must not be shown in its log and messages.
    pub masks: Masks,
    /// Makes `context` in the script.
    pub context: Box<dyn Fn() -> Value + Send + Sync>,
    /// Gives the script's thread to others while it waits for another execution.
    pub lender: Arc<dyn Lender>,
    /// When it must be over.
    pub deadline: DateTime<Utc>,
    /// Given when it must stop.
    pub stop: Stop,
}

/// One attempt with its surroundings, as the modules see it.
pub struct ScriptCall {
    attempt: ScriptAttempt,
    clock: Arc<dyn Clock>,
    host: Arc<dyn Host>,
    http: Arc<dyn Transport>,
    runtime: tokio::runtime::Handle,
    errands: Errands,
    log: Mutex<Vec<LogLine>>,
    requests: AtomicU32,
    messages: AtomicU32,
    calls: AtomicU32,
    children: AtomicU32,
    /// The function that runs.
    entry: Entry,
    /// `config` and `context`, as the script sees them.
    names: [OnceLock<Dynamic>; 2],
    /// What a sensor's script has emitted; nothing for an action's, which may not.
    emitted: Option<Mutex<Vec<emit::Emitted>>>,
    /// Set when the engine was told to end the script.
    ended: OnceLock<&'static str>,
}

impl std::ops::Deref for ScriptCall {
    type Target = ScriptAttempt;

    fn deref(&self) -> &ScriptAttempt {
        &self.attempt
    }
}

/// What a script needs to run, besides what the host gives.
pub struct Surroundings {
    /// The engine.
    pub host: Arc<dyn Host>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// For requests.
    pub http: Arc<dyn Transport>,
    /// Where waits are carried out.
    pub runtime: tokio::runtime::Handle,
    /// Counts what is on threads of its own.
    pub errands: Errands,
}

impl ScriptCall {
    /// A new attempt.
    #[must_use]
    pub fn new(surroundings: &Surroundings, entry: Entry, attempt: ScriptAttempt) -> Self {
        Self {
            attempt,
            clock: Arc::clone(&surroundings.clock),
            host: Arc::clone(&surroundings.host),
            http: Arc::clone(&surroundings.http),
            runtime: surroundings.runtime.clone(),
            errands: surroundings.errands.clone(),
            log: Mutex::new(Vec::new()),
            requests: AtomicU32::new(0),
            messages: AtomicU32::new(0),
            calls: AtomicU32::new(0),
            children: AtomicU32::new(0),
            entry,
            names: [const { OnceLock::new() }; 2],
            emitted: (entry == Entry::Poll).then(Mutex::default),
            ended: OnceLock::new(),
        }
    }

    /// Waits for work on the async side, until the deadline at most.
    fn wait<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Box<EvalAltResult>> {
        if self.calls.fetch_add(1, Ordering::Relaxed) >= MAX_CALLS {
            return Err(thrown(Failure { reason: Reason::BudgetExceeded, message: format!("more than {MAX_CALLS} calls"), retry: false }));
        }
        let outcome = self.runtime.block_on(self.errands.resting(async {
            tokio::select! {
                outcome = work => outcome.map_err(Interruption::Fault),
                () = self.stop.stopped() => Err(Interruption::Stopped),
                () = self.clock.sleep_until(self.deadline) => Err(Interruption::Late),
            }
        }));
        outcome.map_err(|interruption| match interruption {
            Interruption::Fault(fault) => thrown(fault),
            // Terminations cannot be caught by the script.
            Interruption::Stopped => terminated(self.end(STOPPED)),
            Interruption::Late => terminated(self.end(LATE)),
        })
    }

    /// What a name that every function sees stands for.
    fn named(self: &Arc<Self>, name: &str) -> Option<Dynamic> {
        let [config, context] = &self.names;
        Some(match name {
            "config" => config.get_or_init(|| to_dynamic(&Value::Object(self.pack.config.clone()))).clone(),
            "context" => context.get_or_init(|| to_dynamic(&(self.context)())).clone(),
            name => (module(name)?.object)(self),
        })
    }

    /// Refuses what would change something while a plan is made, and what only an action does in a sensor's script.
    fn acts(&self, what: &str) -> Result<(), Box<EvalAltResult>> {
        match self.entry {
            Entry::Run => Ok(()),
            Entry::Plan => Err(thrown(Failure::misuse(format!("{what} would change something; `plan` may only look")))),
            Entry::Poll => {
                Err(thrown(Failure::misuse(format!("{what}: a sensor only looks; emit an event, and let a rule decide what is done"))))
            }
        }
    }

    /// The same, of what a sensor's script may do as well.
    fn changes(&self, what: &str) -> Result<(), Box<EvalAltResult>> {
        if self.entry == Entry::Poll { Ok(()) } else { self.acts(what) }
    }

    /// Ends the script if its time is over or it is to stop: for loops of ours that Rhai does not see.
    fn look(&self) -> Result<(), Box<EvalAltResult>> {
        if self.stop.is_stopped() {
            return Err(terminated(self.end(STOPPED)));
        }
        if self.clock.now() >= self.deadline { Err(terminated(self.end(LATE))) } else { Ok(()) }
    }

    /// Notes why the script is ended; what it returns afterwards does not count.
    fn end(&self, token: &'static str) -> &'static str {
        self.ended.get_or_init(|| token)
    }

    /// Replaces what must not be shown; before anything is cut, or the beginning of a secret would stay.
    fn masked(&self, text: &str) -> String {
        let mut text = text.to_string();
        self.masks.text(&mut text);
        text
    }

    fn log(&self, level: &str, text: &str) {
        let mut lines = self.log.lock().expect("no panic happens while the lock is held");
        if lines.len() < MAX_LOG_LINES {
            let mut text = self.masked(text);
            if text.len() > MAX_LOG_BYTES {
                let end = (0..=MAX_LOG_BYTES).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
                text.truncate(end);
                text.push('…');
            }
            lines.push(LogLine { at: self.clock.now(), level: level.into(), text });
        } else if lines.len() == MAX_LOG_LINES {
            lines.push(LogLine {
                at: self.clock.now(),
                level: "warn".into(),
                text: format!("more than {MAX_LOG_LINES} lines; the rest is not kept"),
            });
        }
    }

    fn next_request(&self) -> u32 {
        self.requests.fetch_add(1, Ordering::Relaxed)
    }

    fn next_child(&self) -> u32 {
        self.children.fetch_add(1, Ordering::Relaxed)
    }

    fn next_message(&self) -> Result<u32, Failure> {
        let index = self.messages.fetch_add(1, Ordering::Relaxed);
        let message = format!("more than {MAX_MESSAGES} messages");
        if index < MAX_MESSAGES { Ok(index) } else { Err(Failure { reason: Reason::BudgetExceeded, message, retry: false }) }
    }
}

enum Interruption {
    Fault(Failure),
    Stopped,
    Late,
}

const STOPPED: &str = "stopped";
const LATE: &str = "late";
const HUNGRY: &str = "hungry";
const EXHAUSTED: &str = "exhausted";

#[allow(clippy::unnecessary_box_returns, reason = "the form in which Rhai takes errors")]
fn terminated(token: &'static str) -> Box<EvalAltResult> {
    Box::new(EvalAltResult::ErrorTerminated(token.into(), Position::NONE))
}

/// A fault as an exception that the script may catch.
#[allow(clippy::unnecessary_box_returns, reason = "the form in which Rhai takes errors")]
fn thrown(fault: Failure) -> Box<EvalAltResult> {
    Box::new(EvalAltResult::ErrorRuntime(Dynamic::from(fault), Position::NONE))
}

/// An error as Rhai takes it.
type Thrown = Box<EvalAltResult>;

/// A mistake of the script's author, as an exception that the script may catch.
#[allow(clippy::unnecessary_box_returns, reason = "the form in which Rhai takes errors")]
fn misuse(message: impl Into<String>) -> Thrown {
    thrown(Failure::misuse(message))
}

/// A value that a script returned, as JSON.
fn from_dynamic(value: &Dynamic) -> Result<Value, Failure> {
    if !is_shallow(value, MAX_DEPTH) {
        return Err(Failure::misuse(format!("a value is nested deeper than {MAX_DEPTH} levels")));
    }
    rhai::serde::from_dynamic(value).map_err(|_| {
        let name = value.type_name().rsplit("::").next().unwrap_or_default().to_lowercase();
        Failure::misuse(format!("a value of type {name} has no JSON"))
    })
}

/// Whether a value nests at most so deep.
fn is_shallow(value: &Dynamic, levels: usize) -> bool {
    if let Ok(items) = value.as_array_ref() {
        return levels > 0 && items.iter().all(|item| is_shallow(item, levels - 1));
    }
    if let Ok(map) = value.as_map_ref() {
        return levels > 0 && map.values().all(|item| is_shallow(item, levels - 1));
    }
    true
}

/// Every module, in the order of the authors' guide.
pub const MODULES: &[HostModule] = &[
    http::MODULE,
    kv::MODULE,
    log::MODULE,
    chat::MODULE,
    actions::MODULE,
    links::MODULE,
    time::MODULE,
    json::MODULE,
    text::MODULE,
    regex::MODULE,
    hash::MODULE,
];

/// The names that every function of a script sees besides the modules.
const NAMES: [&str; 2] = ["config", "context"];

/// The names that scripts see besides their own.
pub fn names() -> impl Iterator<Item = &'static str> {
    NAMES.into_iter().chain(MODULES.iter().map(|module| module.name))
}

/// A text that was made by a module, if a script may have one of that size.
fn sized(text: String) -> Result<ImmutableString, Box<EvalAltResult>> {
    if text.len() > MAX_STRING_BYTES {
        return Err(Box::new(EvalAltResult::ErrorDataTooLarge("Length of string".into(), Position::NONE)));
    }
    Ok(text.into())
}
