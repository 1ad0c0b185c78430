//! Runs the scripts of actions and sensors: Rhai with a budget of operations and time, and the modules that a pack's capabilities allow.
//!
//! A script reaches the engine only through [`Host`]. It runs on a plain thread and may block there; [`ScriptCall::wait`] ends
//! every wait at the deadline or when the execution is canceled. One file a module, one line in [`MODULES`].

mod chat;
pub mod emit;
mod http;
mod json;
mod kv;
mod links;
mod log;
mod time;

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, Mutex, OnceLock};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use rhai::packages::{
    ArithmeticPackage, BasicArrayPackage, BasicIteratorPackage, BasicMapPackage, BasicMathPackage, BasicStringPackage, LogicPackage,
    MoreStringPackage, Package,
};
use rhai::{AST, Dynamic, Engine, EvalAltResult, ImmutableString, Module, Position, Shared};
use serde_json::{Map, Value};
use tikv_jemalloc_ctl::thread::{ThreadLocal, allocatedp, deallocatedp};

use crate::clock::Clock;
use crate::model::action::Script;
use crate::model::datastore::{Changed, KeyEntry, KeyRequest, Scope};
use crate::model::execution::LogLine;
use crate::model::failure::Failure;
use crate::model::ids::ExecutionId;
use crate::model::json::MAX_DEPTH;
use crate::model::pack::Pack;
use crate::model::reason::Reason;
use crate::model::secret::Masks;
use crate::outbound::{Reply, Transport};
use crate::script::expr::to_dynamic;
use crate::tasks::{Errands, Stop};

/// The most operations that one attempt may take.
pub const MAX_OPERATIONS: u64 = 50_000_000;

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

    /// Puts a message into the outbox; durable on return. The same execution and index is the same message.
    async fn send_message(&self, execution: ExecutionId, index: u32, channel: &str, text: String) -> Result<(), Failure>;

    /// Tells whoever asked for the execution in chat how far it is; where nobody did, nothing happens. Only the last word counts, and
    /// it is lost in a crash.
    fn progress(&self, execution: ExecutionId, text: String) {
        let _ = (execution, text);
    }
}

/// The function of a script that is called, and whose script it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// `fn run(params)` of an action.
    Run,
    /// `fn poll(state)` of a sensor.
    Poll,
}

impl Entry {
    fn function(self) -> (&'static str, &'static str) {
        match self {
            Self::Run => ("run", "params"),
            Self::Poll => ("poll", "state"),
        }
    }

    fn owner(self) -> &'static str {
        match self {
            Self::Run => "action",
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
    pub fn new(surroundings: &Surroundings, attempt: ScriptAttempt) -> Self {
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
            emitted: None,
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

#[allow(clippy::unnecessary_box_returns, reason = "the form in which Rhai takes errors")]
fn terminated(token: &'static str) -> Box<EvalAltResult> {
    Box::new(EvalAltResult::ErrorTerminated(token.into(), Position::NONE))
}

/// A fault as an exception that the script may catch.
#[allow(clippy::unnecessary_box_returns, reason = "the form in which Rhai takes errors")]
fn thrown(fault: Failure) -> Box<EvalAltResult> {
    Box::new(EvalAltResult::ErrorRuntime(Dynamic::from(fault), Position::NONE))
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

/// How a module comes into a script: its name, its object for one call, its functions.
struct HostModule {
    name: &'static str,
    object: fn(&Arc<ScriptCall>) -> Dynamic,
    register: fn(&mut Module),
}

/// Every module, in the order of the authors' guide.
const MODULES: &[HostModule] = &[http::MODULE, kv::MODULE, log::MODULE, chat::MODULE, links::MODULE, time::MODULE, json::MODULE];

/// The names that scripts see besides their own.
#[must_use]
pub fn module_names() -> Vec<&'static str> {
    MODULES.iter().map(|module| module.name).collect()
}

static PACKAGES: LazyLock<Vec<Shared<Module>>> = LazyLock::new(|| {
    let mut functions = Module::new();
    for module in MODULES {
        (module.register)(&mut functions);
    }
    functions.set_native_fn("replace", |text: &mut ImmutableString, find: ImmutableString, by: ImmutableString| {
        // The built-in one makes the whole text before anything looks at its size.
        let found = text.matches(find.as_str()).count();
        let grown = text.len() - found * find.len() + found * by.len();
        if grown > MAX_STRING_BYTES {
            return Err(Box::new(EvalAltResult::ErrorDataTooLarge("Length of string".into(), Position::NONE)));
        }
        *text = text.replace(find.as_str(), by.as_str()).into();
        Ok(())
    });
    functions.set_native_fn("to_string", |fault: &mut Failure| Ok(fault.message.clone()));
    functions.set_native_fn("to_debug", |fault: &mut Failure| Ok(fault.message.clone()));
    rhai::FuncRegistration::new_getter("message").set_into_module(&mut functions, |fault: &mut Failure| fault.message.clone());
    rhai::FuncRegistration::new_getter("reason").set_into_module(&mut functions, |fault: &mut Failure| fault.reason.code().to_string());
    vec![
        // Chosen one by one: the core package has `sleep`, which no deadline ends.
        ArithmeticPackage::new().as_shared_module(),
        LogicPackage::new().as_shared_module(),
        BasicMathPackage::new().as_shared_module(),
        BasicStringPackage::new().as_shared_module(),
        MoreStringPackage::new().as_shared_module(),
        BasicArrayPackage::new().as_shared_module(),
        BasicMapPackage::new().as_shared_module(),
        BasicIteratorPackage::new().as_shared_module(),
        Shared::new(functions),
    ]
});

fn bounded_engine() -> Engine {
    let mut engine = Engine::new_raw();
    for package in PACKAGES.iter() {
        engine.register_global_module(Shared::clone(package));
    }
    engine
        .set_max_operations(MAX_OPERATIONS)
        .set_max_call_levels(MAX_CALL_LEVELS)
        .set_max_expr_depths(64, 32)
        .set_max_string_size(MAX_STRING_BYTES)
        .set_max_array_size(MAX_ITEMS)
        .set_max_map_size(MAX_ITEMS)
        .set_max_modules(0)
        .set_max_variables(1_000)
        .disable_symbol("eval")
        .disable_symbol("import");
    engine
}

/// A fault of a script, with its place in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptFault {
    /// What is wrong.
    pub message: String,
    /// Line, from one; zero where unknown.
    pub line: usize,
    /// Column, from one.
    pub column: usize,
}

/// Compiles a script and sees that it has the function that will be called.
///
/// # Errors
/// When it does not compile, or has no such function.
pub fn compile(script: &Script, entry: Entry) -> Result<AST, ScriptFault> {
    let ast = bounded_engine().compile(&script.text).map_err(|error| ScriptFault {
        message: error.err_type().to_string(),
        line: error.position().line().unwrap_or(0),
        column: error.position().position().unwrap_or(0),
    })?;
    let (name, parameter) = entry.function();
    if !ast.iter_functions().any(|function| function.name == name && function.params.len() == 1) {
        return Err(ScriptFault { message: format!("the script needs a function `fn {name}({parameter})`"), line: 0, column: 0 });
    }
    Ok(ast)
}

/// Compiled scripts, by file; one whose text has changed is compiled again.
#[derive(Default)]
pub struct ScriptCache {
    compiled: Mutex<HashMap<String, (String, Arc<AST>)>>,
}

impl ScriptCache {
    fn get(&self, script: &Script, entry: Entry) -> Result<Arc<AST>, ScriptFault> {
        if let Some((text, ast)) = self.compiled.lock().expect("no panic happens while the lock is held").get(&script.file)
            && *text == script.text
        {
            return Ok(Arc::clone(ast));
        }
        let ast = Arc::new(compile(script, entry)?);
        let mut compiled = self.compiled.lock().expect("no panic happens while the lock is held");
        compiled.insert(script.file.clone(), (script.text.clone(), Arc::clone(&ast)));
        Ok(ast)
    }
}

/// How an attempt ended, with what it logged.
pub struct ScriptEnd {
    /// The result, or the fault.
    pub outcome: Result<Value, Failure>,
    /// What it logged.
    pub log: Vec<LogLine>,
}

/// Runs `run(params)` to its end. Blocks: call it on a plain thread only.
pub fn run(cache: &ScriptCache, script: &Script, parameters: &Map<String, Value>, call: ScriptCall) -> ScriptEnd {
    let call = Arc::new(call);
    let given = to_dynamic(&Value::Object(parameters.clone()));
    let outcome = attempt(cache, script, Entry::Run, given, &call).and_then(|value| bounded(result(value, &call)));
    let log = std::mem::take(&mut *call.log.lock().expect("no panic happens while the lock is held"));
    ScriptEnd { outcome, log }
}

/// How often the clock and the stop signal are looked at, in operations.
const CHECK_EVERY: u64 = 8;

/// Looks at an attempt while it runs: the deadline, the stop signal, and how much memory its thread has taken.
///
/// Rhai bounds what single operations make, but not what assignments collect; what the thread holds is the last bound.
struct Watch {
    call: Arc<ScriptCall>,
    held_before: i64,
}

impl Watch {
    /// Begins to watch; on the thread that will run the script.
    fn new(call: &Arc<ScriptCall>) -> Self {
        Self { call: Arc::clone(call), held_before: held_by_this_thread() }
    }

    /// Why the script must end now.
    fn look(&self) -> Option<&'static str> {
        if self.call.stop.is_stopped() {
            return Some(STOPPED);
        }
        if self.call.clock.now() >= self.call.deadline {
            return Some(LATE);
        }
        (held_by_this_thread() - self.held_before > MAX_HELD_BYTES).then_some(HUNGRY)
    }
}

thread_local! {
    static TAKEN: Option<(ThreadLocal<u64>, ThreadLocal<u64>)> = Some((allocatedp::read().ok()?, deallocatedp::read().ok()?));
}

/// What this thread has allocated and not freed, in bytes, as jemalloc counts it; zero where the program has another allocator.
fn held_by_this_thread() -> i64 {
    TAKEN.with(|counters| {
        counters.as_ref().map_or(0, |(taken, freed)| i64::try_from(taken.get()).unwrap_or(0) - i64::try_from(freed.get()).unwrap_or(0))
    })
}

/// Calls the function of a script; what it returned.
fn attempt(cache: &ScriptCache, script: &Script, entry: Entry, given: Dynamic, call: &Arc<ScriptCall>) -> Result<Dynamic, Failure> {
    let ast = cache.get(script, entry).map_err(|fault| Failure {
        reason: Reason::ScriptBroken,
        message: format!("{}:{}:{}: {}", script.file, fault.line, fault.column, fault.message),
        retry: false,
    })?;
    let mut engine = bounded_engine();
    let watch = Watch::new(call);
    // It may have been canceled while it waited for a thread; a short script would never look.
    if let Some(token) = watch.look() {
        return Err(termination(token, entry));
    }
    engine.on_progress(move |operations| {
        if !operations.is_multiple_of(CHECK_EVERY) {
            return None;
        }
        watch.look().map(|token| Dynamic::from(watch.call.end(token)))
    });
    let printed = Arc::clone(call);
    engine.on_print(move |text| printed.log("info", text));
    let debugged = Arc::clone(call);
    engine.on_debug(move |text, _, _| debugged.log("info", text));
    let seen = Arc::clone(call);
    #[allow(deprecated, reason = "not deprecated but marked as likely to change; it is the only way to names that every function sees")]
    engine.on_var(move |name, _, cx| {
        if cx.scope().contains(name) {
            return Ok(None); // the script's own variable of that name
        }
        Ok(match name {
            "config" => Some(to_dynamic(&Value::Object(seen.pack.config.clone()))),
            "context" => Some(to_dynamic(&(seen.context)())),
            name => MODULES.iter().find(|module| module.name == name).map(|module| (module.object)(&seen)),
        })
    });
    let options = rhai::CallFnOptions::new().eval_ast(false);
    emit::register(&mut engine, call);
    let returned = engine.call_fn_with_options::<Dynamic>(options, &mut rhai::Scope::new(), &ast, entry.function().0, (given,));
    // Some built-in functions swallow a termination, so it is asked for again.
    if let Some(token) = call.ended.get() {
        return Err(termination(token, entry));
    }
    returned.map_err(|error| fault(&error, script, entry))
}

fn bounded(value: Value) -> Result<Value, Failure> {
    if value.to_string().len() > MAX_RESULT_BYTES {
        let message = format!("the result is larger than {MAX_RESULT_BYTES} bytes");
        return Err(Failure { reason: Reason::OutputTooLarge, message, retry: false });
    }
    Ok(value)
}

/// The result as JSON. What was done is done: a value that has no JSON is left out, and the log says so.
fn result(value: Dynamic, call: &ScriptCall) -> Value {
    if let Some(reply) = value.clone().try_cast::<Reply>() {
        let text = reply.text();
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        return serde_json::json!({"status": reply.status, "body": body});
    }
    from_dynamic(&value.flatten()).unwrap_or_else(|failure| {
        call.log("warn", &format!("the result is left out: {}", failure.message));
        Value::Null
    })
}

fn termination(token: &str, entry: Entry) -> Failure {
    let (reason, message, retry) = match token {
        STOPPED => (Reason::Canceled, "the script was stopped".to_string(), false),
        HUNGRY => (Reason::BudgetExceeded, format!("the script held more than {} MiB of memory", MAX_HELD_BYTES >> 20), false),
        _ => (Reason::TimedOut, format!("the script ran longer than the {}'s `timeout`", entry.owner()), true),
    };
    Failure { reason, message, retry }
}

/// What went wrong in a script, with the innermost place and its line.
fn fault(error: &EvalAltResult, script: &Script, entry: Entry) -> Failure {
    let (mut inner, mut position) = (error, error.position());
    while let EvalAltResult::ErrorInFunctionCall(_, _, next, _) = inner {
        inner = next;
        if !inner.position().is_none() {
            position = inner.position();
        }
    }
    let (reason, what, retry) = match inner {
        EvalAltResult::ErrorTerminated(token, _) => return termination(&token.to_string(), entry),
        EvalAltResult::ErrorTooManyOperations(_) => (Reason::BudgetExceeded, format!("more than {MAX_OPERATIONS} operations"), false),
        EvalAltResult::ErrorStackOverflow(_) => {
            (Reason::BudgetExceeded, format!("functions call each other deeper than {MAX_CALL_LEVELS} levels"), false)
        }
        EvalAltResult::ErrorDataTooLarge(what, _) => (Reason::BudgetExceeded, format!("too large: {what}"), false),
        EvalAltResult::ErrorRuntime(value, _) => match value.clone().try_cast::<Failure>() {
            Some(fault) => (fault.reason, fault.message, fault.retry),
            None if value.is_unit() || value.clone().into_string().is_ok_and(|text| text.is_empty()) => {
                (Reason::ActionFailed, "the script threw nothing; throw a text that says why".to_string(), true)
            }
            None => (
                Reason::ActionFailed,
                from_dynamic(value).map_or_else(|_| value.to_string(), |json| crate::template::text::plain(&json)),
                true,
            ),
        },
        other => {
            let text = other.to_string();
            let text = text.split(" (line ").next().unwrap_or(&text).replace("&str | ImmutableString | String", "string");
            (Reason::ActionFailed, text, false)
        }
    };
    let mut message = format!("{}: {what}", script.file);
    if let Some(line) = position.line() {
        message = format!("{}:{line}:{}: {what}", script.file, position.position().unwrap_or(0));
        if let Some(source) = script.text.lines().nth(line - 1) {
            message.push_str(&format!("\n  {line:>4} | {}", source.chars().take(160).collect::<String>()));
        }
    }
    Failure { reason, message, retry }
}
