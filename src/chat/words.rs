//! Every sentence the bot says. Pure.

use crate::model::execution::{Execution, Status};
use crate::model::principal::Principal;

/// The store cannot be used.
#[must_use]
pub fn store_failing(why: &str) -> String {
    format!(
        "🛑 New events are refused: {why}. Nothing that was accepted is lost, senders are told to try again, and Signalman goes on by itself when this is mended · `/readyz`"
    )
}

/// Some of what is stored is damaged, and the rest goes on.
#[must_use]
pub fn store_damaged(what: &str) -> String {
    format!("⚠️ {what}. What it holds cannot be read or removed; everything else goes on · `signalman store check`")
}

/// How an execution that a rule asked for ended.
#[must_use]
pub fn outcome(execution: &Execution) -> String {
    let (request, state) = (&execution.request, &execution.state);
    let by = match &request.requested_by {
        Principal::Rule(rule) => format!(" (rule `{rule}`)"),
        token @ Principal::Token(_) => format!(" (asked for by {})", token.describe()),
    };
    let id = execution.id.short();
    let action = &request.action;
    let error = state.error.as_deref().unwrap_or("no more is known");
    let attempts = if state.attempt > 1 { format!(" after {} attempts", state.attempt) } else { String::new() };
    match state.status {
        Status::Succeeded => format!("✅ `{action}` succeeded{attempts}{by} · `{id}`"),
        Status::Abandoned => format!("⚠️ `{action}` was abandoned{by}: {error}. It is not run again by itself · `{id}`"),
        Status::TimedOut => format!("❌ `{action}` timed out{attempts}{by}: {error} · `{id}`"),
        Status::Canceled => format!("⏹ `{action}` was canceled{by}: {error} · `{id}`"),
        Status::Failed => format!("❌ `{action}` failed{attempts}{by}: {error} · `{id}`"),
        Status::Requested | Status::Delayed | Status::Running | Status::Canceling => {
            format!("`{action}` is {}{by} · `{id}`", state.status.name())
        }
    }
}
