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

/// A rule asks for too much.
#[must_use]
pub fn held_by_ceiling(rule: &str, ceiling: u32) -> String {
    format!(
        "⚠️ Rule `{rule}` asks for more than {ceiling} executions a minute. They are kept and start at that pace; look why it matches so often, or raise its `ceiling` · `signalman rule disable {rule}`"
    )
}

/// A rule is not tried any more.
#[must_use]
pub fn quarantined(rule: &str, event: &str) -> String {
    format!(
        "🛑 Rule `{rule}` is not tried any more: its `when` used up its budget ten times in a minute, the last time at event `{event}`. Make it simpler; a changed rule is tried again · `signalman rule enable {rule}`"
    )
}

/// A person stops what rules ask for.
#[must_use]
pub fn held(by: &str, reason: &str) -> String {
    format!(
        "⏸ Automatic executions are held by {by}: {reason}. What rules ask for is kept in order; chat, API and webhooks go on · `signalman release`"
    )
}

/// And lets go.
#[must_use]
pub fn released(by: &str) -> String {
    format!("▶️ {by} lets automatic executions go; what was held starts now, in order")
}

/// How an execution that a rule asked for ended.
#[must_use]
pub fn outcome(execution: &Execution) -> String {
    let (request, state) = (&execution.request, &execution.state);
    let by = match &request.requested_by {
        Principal::Rule(rule) => format!(" (rule `{rule}`)"),
        other @ (Principal::Token(_) | Principal::Execution(_)) => format!(" (asked for by {})", other.describe()),
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
