//! Port: how an action is carried out. One file a runner, one line in [`KINDS`].
//!
//! A runner makes one attempt. It says whether another could go better; it never makes one itself, and never writes to the store.

mod command_line;
pub mod http_request;
pub mod local_shell_cmd;
pub mod local_shell_script;
pub mod noop;
pub mod python_script;
pub mod rhai;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::livelog::LiveLog;
use crate::model::action::{Action, Parameter};
use crate::model::execution::Execution;
use crate::model::failure::Failure;
use crate::model::pack::Pack;
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
    /// Where it logs; can be read while it runs.
    pub log: Arc<LiveLog>,
    began: Arc<OnceLock<DateTime<Utc>>>,
    left: Arc<OnceLock<Value>>,
}

impl RunContext {
    /// The bounds of an attempt that has not begun.
    #[must_use]
    pub fn new(timeout: Duration, stop: Stop, log: Arc<LiveLog>) -> Self {
        Self { timeout, stop, log, began: Arc::default(), left: Arc::default() }
    }

    /// Notes that the work begins now; the runner calls it once. Answers when it must be over.
    #[must_use]
    pub fn begin(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        let began = *self.began.get_or_init(|| now);
        began + chrono::Duration::from_std(self.timeout).unwrap_or(chrono::Duration::days(1))
    }

    /// Leaves what there is of a result although the attempt fails.
    pub fn leave(&self, result: Value) {
        let _ = self.left.set(result); // the first is kept
    }

    /// What was left by an attempt that failed.
    #[must_use]
    pub fn left(&self) -> Option<Value> {
        self.left.get().cloned()
    }

    /// When the work began, if it has.
    #[must_use]
    pub fn began(&self) -> Option<DateTime<Utc>> {
        self.began.get().copied()
    }
}

/// Carries out actions of one kind. `tests/it/contracts.rs` holds what each must keep: it ends soon after the stop signal or the
/// deadline, and its result has a bound.
#[async_trait]
pub trait ActionRunner: Send + Sync {
    /// Makes one attempt; what it returned. What it logs goes to `cx.log`.
    async fn run(&self, call: ActionCall, cx: RunContext) -> Result<Value, Failure>;

    /// Says what an attempt would do, and changes nothing; the execution of the call is not stored.
    async fn plan(&self, call: ActionCall, _: RunContext) -> Result<Value, Failure> {
        let message = format!("`{}` cannot say what it would do: its runner `{}` has no plans", call.action.reference, call.action.runner);
        Err(Failure::misuse(message))
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
    /// The script that the action needs, if it needs one.
    pub script: Option<ScriptFile>,
    /// The parameters that every action of this kind has.
    pub parameters: fn() -> Vec<Parameter>,
    /// Checks an action when it is loaded; each fault with its line and column in the script, or zero.
    pub check: fn(&Action) -> Vec<(String, usize, usize)>,
    /// How many attempts it carries at once.
    pub places: fn(Limits) -> usize,
    /// Makes the runner.
    pub build: fn(&Arc<Surroundings>, Limits) -> Arc<dyn ActionRunner>,
}

/// The script of an action: the file that `entry_point` names, or the one of the action's name with this extension.
#[derive(Clone, Copy, Debug)]
pub struct ScriptFile {
    /// The extension, without a dot.
    pub extension: &'static str,
    /// The text of one for the example action.
    pub example: &'static str,
    /// Whether the file must be one that may be run.
    pub is_executable: bool,
}

/// Attempts that run at once, for runners that need no thread or process of their own.
pub const ATTEMPTS_AT_ONCE: usize = 256;

/// Programs that run at once, for each runner of programs.
pub const PROGRAMS_AT_ONCE: usize = 64;

/// How much may run at once.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Threads for scripts.
    pub script_threads: usize,
}

/// Every kind of runner.
pub const KINDS: &[&RunnerKind] =
    &[&rhai::KIND, &http_request::KIND, &local_shell_cmd::KIND, &local_shell_script::KIND, &python_script::KIND, &noop::KIND];

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
