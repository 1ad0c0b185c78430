//! Port: how an action is carried out. One file a runner, one line in [`KINDS`].
//!
//! A runner makes one attempt. It says whether another could go better; it never makes one itself, and never writes to the store.

pub mod http_request;
pub mod noop;
pub mod rhai;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::model::action::{Action, Parameter};
use crate::model::execution::{Execution, LogLine};
use crate::model::pack::Pack;
use crate::model::reason::Reason;
use crate::model::secret::Masks;
use crate::script::host::Surroundings;
use crate::tasks::Stop;

/// One attempt that is to be made.
#[derive(Clone)]
pub struct ActionCall {
    /// The execution, with its parameters.
    pub execution: Arc<Execution>,
    /// The action.
    pub action: Arc<Action>,
    /// The pack that the action belongs to.
    pub pack: Arc<Pack>,
}

impl ActionCall {
    /// What a script sees as `context`.
    #[must_use]
    pub fn context(&self) -> Value {
        let execution = &self.execution;
        json!({
            "execution": execution.id,
            "attempt": execution.state.attempt,
            "action": execution.request.action,
            "event": execution.request.event,
            "key": execution.request.key,
            "requested_by": execution.request.requested_by.describe(),
        })
    }
}

impl ActionCall {
    /// Hides what must not be shown: the secrets among the pack's settings and among the parameters.
    #[must_use]
    pub fn masks(&self) -> Masks {
        let secret = self.action.parameters.iter().filter(|parameter| parameter.secret);
        self.pack.masks.and(secret.filter_map(|parameter| self.execution.request.parameters.get(&parameter.name)))
    }
}

/// The bounds of an attempt.
#[derive(Clone)]
pub struct RunContext {
    /// How long it may take from when it begins.
    pub timeout: Duration,
    /// Given when it must stop.
    pub stop: Stop,
    began: Arc<OnceLock<DateTime<Utc>>>,
}

impl RunContext {
    /// The bounds of an attempt that has not begun.
    #[must_use]
    pub fn new(timeout: Duration, stop: Stop) -> Self {
        Self { timeout, stop, began: Arc::new(OnceLock::new()) }
    }

    /// Notes that the work begins now; the runner calls it once. Answers when it must be over.
    #[must_use]
    pub fn begin(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        let began = *self.began.get_or_init(|| now);
        began + chrono::Duration::from_std(self.timeout).unwrap_or(chrono::Duration::days(1))
    }

    /// When the work began, if it has.
    #[must_use]
    pub fn began(&self) -> Option<DateTime<Utc>> {
        self.began.get().copied()
    }
}

/// What an attempt returned.
#[derive(Debug)]
pub struct Output {
    /// The result.
    pub result: Value,
    /// What it logged.
    pub log: Vec<LogLine>,
}

/// Why an attempt failed.
#[derive(Debug)]
pub struct RunError {
    /// The reason.
    pub reason: Reason,
    /// For people.
    pub message: String,
    /// Whether another attempt could go better.
    pub retry: bool,
    /// What it logged.
    pub log: Vec<LogLine>,
}

/// Carries out actions of one kind. `tests/it/contracts.rs` holds what each must keep: it ends soon after the stop signal or the
/// deadline, and its result has a bound.
#[async_trait]
pub trait ActionRunner: Send + Sync {
    /// Makes one attempt.
    async fn run(&self, call: ActionCall, cx: RunContext) -> Result<Output, RunError>;

    /// Says what an attempt would do, and changes nothing; the execution of the call is not stored.
    async fn plan(&self, call: ActionCall, _: RunContext) -> Result<Output, RunError> {
        let message = format!("`{}` cannot say what it would do: its runner `{}` has no plans", call.action.reference, call.action.runner);
        Err(RunError { reason: Reason::ActionFailed, message, retry: false, log: Vec::new() })
    }
}

/// A kind of runner.
pub struct RunnerKind {
    /// The name in `runner_type`.
    pub name: &'static str,
    /// For `--help` and the reference.
    pub summary: &'static str,
    /// A complete action file; a test loads and runs it.
    pub example: &'static str,
    /// Whether the action needs a script as its entry point.
    pub needs_script: bool,
    /// The parameters that every action of this kind has.
    pub parameters: fn() -> Vec<Parameter>,
    /// Checks an action when it is loaded; each fault with its line and column in the script, or zero.
    pub check: fn(&Action) -> Vec<(String, usize, usize)>,
    /// Makes the runner.
    pub build: fn(&Arc<Surroundings>, Limits) -> Arc<dyn ActionRunner>,
}

/// How much may run at once.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Threads for scripts.
    pub script_threads: usize,
}

/// Every kind of runner.
pub const KINDS: &[&RunnerKind] = &[&rhai::KIND, &http_request::KIND, &noop::KIND];

/// The kind of that name.
#[must_use]
pub fn kind(name: &str) -> Option<&'static RunnerKind> {
    KINDS.iter().find(|kind| kind.name == name).copied()
}

/// Every name.
#[must_use]
pub fn names() -> Vec<&'static str> {
    KINDS.iter().map(|kind| kind.name).collect()
}
