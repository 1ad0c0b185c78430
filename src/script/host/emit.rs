//! Sensors in Rhai: `fn poll(state)` is called, and what it emits is collected. `emit(payload)` or
//! `emit(payload, #{key: "…", occurred_at: "…"})`.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use rhai::{Dynamic, Engine, EvalAltResult, Map};
use serde_json::Value;

use super::run::attempt;
use super::{Entry, MAX_RESULT_BYTES, ScriptAttempt, ScriptCache, ScriptCall, Surroundings, from_dynamic, thrown};
use crate::model::action::Script;
use crate::model::execution::LogLine;
use crate::model::failure::Failure;
use crate::model::reason::Reason;
use crate::script::expr::to_dynamic;

/// The most events of one poll.
pub const MAX_EVENTS: usize = 1_000;

/// The largest state, as JSON.
pub const MAX_STATE_BYTES: usize = 64 << 10;

/// The longest key of an event.
const MAX_KEY_BYTES: usize = 256;

/// An event that a script has emitted.
#[derive(Clone, Debug, PartialEq)]
pub struct Emitted {
    /// What happened: an object.
    pub payload: Value,
    /// What it is about.
    pub key: Option<String>,
    /// When it happened.
    pub occurred_at: Option<DateTime<Utc>>,
}

/// How a poll ended, with what it logged.
pub struct PollEnd {
    /// The new state and the events, or the fault.
    pub outcome: Result<(Value, Vec<Emitted>), Failure>,
    /// What it logged.
    pub log: Vec<LogLine>,
}

/// Runs `poll(state)` to its end. Blocks: call it on a plain thread only.
pub fn poll(cache: &ScriptCache, script: &Script, state: &Value, surroundings: &Surroundings, about: ScriptAttempt) -> PollEnd {
    let call = Arc::new(ScriptCall::new(surroundings, Entry::Poll, about));
    let outcome = attempt(cache, script, to_dynamic(state), &call).and_then(|value| Ok((new_state(&value)?, taken(&call))));
    let log = std::mem::take(&mut *call.log.lock().expect("no panic happens while the lock is held"));
    PollEnd { outcome, log }
}

fn new_state(value: &Dynamic) -> Result<Value, Failure> {
    let state = from_dynamic(value).map_err(|failure| Failure::misuse(format!("the state that `poll` returned: {}", failure.message)))?;
    let bytes = state.to_string().len();
    if bytes > MAX_STATE_BYTES {
        let message = format!("the state that `poll` returned has {bytes} bytes; at most {MAX_STATE_BYTES} are kept");
        return Err(Failure { reason: Reason::OutputTooLarge, message, retry: false });
    }
    Ok(state)
}

fn taken(call: &ScriptCall) -> Vec<Emitted> {
    let emitted =
        call.emitted.as_ref().map(|emitted| std::mem::take(&mut *emitted.lock().expect("no panic happens while the lock is held")));
    emitted.unwrap_or_default()
}

/// Gives a sensor's script its `emit`. An action has none: it is to act, not to report.
pub(super) fn register(engine: &mut Engine, call: &Arc<ScriptCall>) {
    if call.emitted.is_none() {
        return;
    }
    let own = Arc::clone(call);
    engine.register_fn("emit", move |payload: Dynamic| emit(&own, &payload, &Map::new()));
    let own = Arc::clone(call);
    engine.register_fn("emit", move |payload: Dynamic, options: Map| emit(&own, &payload, &options));
}

fn emit(call: &ScriptCall, payload: &Dynamic, options: &Map) -> Result<(), Box<EvalAltResult>> {
    let event = event(call, payload, options).map_err(thrown)?;
    let Some(emitted) = &call.emitted else { return Ok(()) };
    let mut emitted = emitted.lock().expect("no panic happens while the lock is held");
    if emitted.len() >= MAX_EVENTS {
        let message = format!("emit: more than {MAX_EVENTS} events in one poll; keep the rest in the state");
        return Err(thrown(Failure { reason: Reason::BudgetExceeded, message, retry: false }));
    }
    emitted.push(event);
    Ok(())
}

fn event(call: &ScriptCall, payload: &Dynamic, options: &Map) -> Result<Emitted, Failure> {
    let mut payload = from_dynamic(payload)?;
    if !payload.is_object() {
        return Err(Failure::misuse("emit: the payload must be a map, such as #{name: \"x\"}"));
    }
    if payload.to_string().len() > MAX_RESULT_BYTES {
        return Err(Failure::misuse(format!("emit: the payload is larger than {MAX_RESULT_BYTES} bytes")));
    }
    call.masks.value(&mut payload);
    let mut event = Emitted { payload, key: None, occurred_at: None };
    for (name, value) in options {
        let text = value.clone().into_string();
        match (name.as_str(), text) {
            ("key", Ok(key)) if key.len() <= MAX_KEY_BYTES => event.key = Some(call.masked(&key)),
            ("key", _) => return Err(Failure::misuse(format!("emit: `key` must be text of at most {MAX_KEY_BYTES} bytes"))),
            ("occurred_at", Ok(text)) => match DateTime::parse_from_rfc3339(&text) {
                Ok(at) => event.occurred_at = Some(at.with_timezone(&Utc)),
                Err(_) => return Err(Failure::misuse(format!("emit: `occurred_at` must be a time such as time.now(), not `{text}`"))),
            },
            ("occurred_at", Err(kind)) => return Err(Failure::misuse(format!("emit: `occurred_at` must be text, not {kind}"))),
            (other, _) => return Err(Failure::misuse(format!("emit has no option `{other}`; it takes key and occurred_at"))),
        }
    }
    Ok(event)
}
