//! Runs one function of a script to its end, within its budget.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rhai::{Dynamic, Scope};
use serde_json::{Map, Value};
use tikv_jemalloc_ctl::thread::{ThreadLocal, allocatedp, deallocatedp};

use super::compile::{bounded_engine, has_function};
use super::fault::{broken, fault, termination};
use super::{
    EXHAUSTED, Entry, HUNGRY, LATE, MAX_HELD_BYTES, MAX_OPERATIONS, MAX_RESULT_BYTES, STAND_BACK_AFTER, STOPPED, ScriptCache, ScriptCall,
    emit, from_dynamic, names,
};
use crate::model::action::Script;
use crate::model::execution::LogLine;
use crate::model::failure::Failure;
use crate::model::reason::Reason;
use crate::outbound::Reply;
use crate::script::expr::to_dynamic;

/// How an attempt ended, with what it logged.
pub struct ScriptEnd {
    /// The result, or the fault.
    pub outcome: Result<Value, Failure>,
    /// What it logged.
    pub log: Vec<LogLine>,
}

/// Runs `run(params)` to its end, or `plan(params)` if the call is for that. Blocks: call it on a plain thread only.
pub fn run(cache: &ScriptCache, script: &Script, parameters: &Map<String, Value>, call: ScriptCall) -> ScriptEnd {
    let call = Arc::new(call);
    let given = to_dynamic(&Value::Object(parameters.clone()));
    let outcome = attempt(cache, script, given, &call).and_then(|value| bounded(result(value, &call)));
    let log = std::mem::take(&mut *call.log.lock().expect("no panic happens while the lock is held"));
    ScriptEnd { outcome, log }
}

/// How often it is looked at how much memory is held, in operations; one operation may make a text of [`super::MAX_STRING_BYTES`].
const MEMORY_EVERY: u64 = 8;

/// How often the clock and the stop signal are looked at, in operations.
const CLOCK_EVERY: u64 = 64;

/// Looks at an attempt while it runs: the deadline, the stop signal, and how much memory its thread has taken.
///
/// Rhai bounds what single operations make, but not what assignments collect; what the thread holds is the last bound.
struct Watch {
    call: Arc<ScriptCall>,
    held_before: i64,
    /// Rhai counts the operations within each call of a closure anew, so they are counted here.
    operations: AtomicU64,
}

impl Watch {
    /// Begins to watch; on the thread that will run the script.
    fn new(call: &Arc<ScriptCall>) -> Self {
        Self { call: Arc::clone(call), held_before: held_by_this_thread(), operations: AtomicU64::new(0) }
    }

    /// Why the script must end now.
    fn look(&self) -> Option<&'static str> {
        if self.call.stop.is_stopped() {
            return Some(STOPPED);
        }
        if self.call.clock.now() >= self.call.deadline {
            return Some(LATE);
        }
        self.is_hungry()
    }

    fn is_hungry(&self) -> Option<&'static str> {
        (held_by_this_thread() - self.held_before > MAX_HELD_BYTES).then_some(HUNGRY)
    }

    /// Counts an operation, and looks as often as it is worth.
    fn progress(&self) -> Option<&'static str> {
        // Only this thread counts, so there is nothing to add up.
        let operations = self.operations.load(Ordering::Relaxed) + 1;
        self.operations.store(operations, Ordering::Relaxed);
        if operations.is_multiple_of(CLOCK_EVERY) {
            if operations >= STAND_BACK_AFTER {
                self.call.lender.stand_back();
            }
            return if operations > MAX_OPERATIONS { Some(EXHAUSTED) } else { self.look() };
        }
        if operations.is_multiple_of(MEMORY_EVERY) { self.is_hungry() } else { None }
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
pub(super) fn attempt(cache: &ScriptCache, script: &Script, given: Dynamic, call: &Arc<ScriptCall>) -> Result<Dynamic, Failure> {
    let entry = call.entry;
    // A plan is asked of a script that can run.
    let ast = cache.get(script, if entry == Entry::Plan { Entry::Run } else { entry }).map_err(|faults| broken(script, &faults))?;
    if !has_function(&ast, entry) {
        let message = format!("{} has no `fn plan(params)`, so it cannot say what it would do", script.file);
        return Err(Failure::misuse(message));
    }
    let mut engine = bounded_engine();
    let watch = Watch::new(call);
    // It may have been canceled while it waited for a thread; a short script would never look.
    if let Some(token) = watch.look() {
        return Err(termination(token, entry));
    }
    engine.on_progress(move |_| watch.progress().map(|token| Dynamic::from(watch.call.end(token))));
    let printed = Arc::clone(call);
    engine.on_print(move |text| printed.log("info", text));
    let debugged = Arc::clone(call);
    engine.on_debug(move |text, _, _| debugged.log("info", text));
    let seen = Arc::clone(call);
    #[allow(deprecated, reason = "not deprecated but marked as likely to change; it is the only way to names that every function sees")]
    engine.on_var(move |name, index, cx| {
        // Most variables have a place in the scope; of the others, the script's own win.
        if index > 0 || !names().any(|known| known == name) || cx.scope().contains(name) {
            return Ok(None);
        }
        Ok(seen.named(name))
    });
    let options = rhai::CallFnOptions::new().eval_ast(false);
    emit::register(&mut engine, call);
    let returned = engine.call_fn_with_options::<Dynamic>(options, &mut Scope::new(), &ast, entry.inner_name(), (given,));
    // Some built-in functions swallow a termination, so it is asked for again.
    if let Some(token) = call.ended.get() {
        return Err(termination(token, entry));
    }
    returned.map_err(|error| fault(&error, &ast, script, entry))
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
