//! One attempt: its runner is given up if it does not end, and what comes back is masked and cut before anybody sees it.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use serde_json::Value;

use crate::clock::{self, Clock};
use crate::model::action::{Action, RetryOn};
use crate::model::execution::{Execution, LogLine};
use crate::model::failure::Failure;
use crate::model::reason::Reason;
use crate::model::secret::Masks;
use crate::runners::{ActionCall, ActionRunner, RunContext};

/// How long a runner may take to end after it was told to; then it is given up.
const RUNNER_GRACE: Duration = Duration::from_secs(5);

/// What came of an attempt.
pub(super) struct Attempted {
    /// How it ended.
    pub outcome: Result<Value, Failure>,
    /// What there is of a result although it failed.
    pub left: Option<Value>,
    /// What it logged.
    pub log: Vec<LogLine>,
}

/// Makes an attempt.
pub(super) async fn attempt(runner: &dyn ActionRunner, call: ActionCall, cx: RunContext, clock: &dyn Clock) -> Attempted {
    let (masks, watched) = (call.masks(), cx.clone());
    let attempt = AssertUnwindSafe(runner.run(call, cx)).catch_unwind();
    let mut outcome = tokio::select! {
        outcome = attempt => outcome.unwrap_or_else(|_| Err(lost(Reason::RunnerPanicked, "the runner crashed; see the log"))),
        () = overdue(clock, &watched) => Err(lost(Reason::TimedOut, "the action ran longer than its `timeout` and did not stop when told to")),
        () = unstopped(clock, &watched) => Err(lost(Reason::TimedOut, "it did not end when told to and was given up; it may still run")),
    };
    mask(&mut outcome, &masks);
    let mut left = watched.left();
    if let Some(left) = &mut left {
        masks.value(left);
    }
    Attempted { outcome, left, log: watched.log.kept() }
}

/// The longest error that is kept, in bytes.
const MAX_ERROR_BYTES: usize = 4_000;

/// Replaces secrets wherever the outcome shows them, and cuts what is too long.
pub(super) fn mask(outcome: &mut Result<Value, Failure>, masks: &Masks) {
    match outcome {
        Ok(result) => masks.value(result),
        Err(error) => {
            masks.text(&mut error.message);
            if error.message.len() > MAX_ERROR_BYTES {
                let end = (0..=MAX_ERROR_BYTES).rev().find(|end| error.message.is_char_boundary(*end)).unwrap_or(0);
                error.message.truncate(end);
                error.message.push('…');
            }
        }
    }
}

/// Returns when a runner that has begun should have ended long ago.
pub(super) async fn overdue(clock: &dyn Clock, cx: &RunContext) {
    let patience = cx.timeout + RUNNER_GRACE;
    while cx.began().is_none() {
        clock::sleep(clock, patience).await;
    }
    let span = chrono::Duration::from_std(patience).unwrap_or(chrono::Duration::days(2));
    clock.sleep_until(cx.began().unwrap_or_default() + span).await;
}

/// Returns when a runner that was told to stop should have ended long ago.
async fn unstopped(clock: &dyn Clock, cx: &RunContext) {
    cx.stop.stopped().await;
    clock::sleep(clock, RUNNER_GRACE).await;
}

fn lost(reason: Reason, message: &str) -> Failure {
    Failure { reason, message: message.into(), retry: true }
}

/// The pause before the next attempt, if the action's `retry` and the runner both want one.
pub(super) fn next_attempt(execution: &Execution, action: Option<&Action>, error: &Failure) -> Option<Duration> {
    let retry = action?.retry.as_ref()?;
    let outcome = if error.reason == Reason::TimedOut { RetryOn::TimedOut } else { RetryOn::Failed };
    let wanted = error.retry && retry.on.contains(&outcome) && execution.state.attempt <= retry.count;
    wanted.then(|| retry.pause_after(execution.state.attempt))
}
