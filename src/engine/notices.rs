//! Which outcomes are told, and where.

use chrono::{DateTime, Utc};

use super::catalog::Catalog;
use super::converse::answers;
use crate::chat::words;
use crate::model::execution::{Execution, Status};
use crate::model::ids::MessageId;
use crate::model::message::Message;
use crate::model::principal::Principal;
use crate::model::rule::{Outcome, Rule};

/// Where failures go unless a rule says otherwise.
pub const OPS: &str = "ops";

/// A message to those who run Signalman.
#[must_use]
pub fn to_ops(catalog: &Catalog, id: MessageId, text: String, now: DateTime<Utc>) -> Option<Message> {
    to(catalog, OPS, id, text, now)
}

/// A message to where a rule's outcomes are told.
#[must_use]
pub fn to_owner(catalog: &Catalog, rule: &Rule, id: MessageId, text: String, now: DateTime<Utc>) -> Option<Message> {
    to(catalog, rule.notify.as_ref().map_or(OPS, |notify| &notify.value.channel), id, text, now)
}

fn to(catalog: &Catalog, channel: &str, id: MessageId, text: String, now: DateTime<Utc>) -> Option<Message> {
    let Some(destination) = catalog.channels.get(channel) else {
        tracing::error!("nobody can be told: the site has no channel `{channel}`");
        return None;
    };
    Some(Message::new(id, channel, destination.clone(), text, now))
}

/// The message that tells how an execution ended, if anyone is to be told.
#[must_use]
pub fn of(catalog: &Catalog, execution: &Execution, now: DateTime<Utc>) -> Option<Message> {
    if execution.request.asked.is_some() {
        return answers::result(catalog, execution, now);
    }
    let outcome = match execution.state.status {
        Status::Succeeded => Outcome::Succeeded,
        Status::Failed | Status::TimedOut | Status::Abandoned => Outcome::Failed,
        Status::Canceled | Status::Requested | Status::Delayed | Status::Running | Status::Canceling => return None,
    };
    let channel = match &execution.request.notify {
        Some(notify) if notify.on.contains(&outcome) => notify.channel.as_str(),
        // Whatever was left undone by a crash is told to somebody, even if the rule wants to hear of successes only.
        _ if execution.state.status == Status::Abandoned => OPS,
        None if outcome == Outcome::Failed && matches!(execution.request.requested_by, Principal::Rule(_)) => OPS,
        Some(_) | None => return None,
    };
    let Some(destination) = catalog.channels.get(channel) else {
        tracing::error!(execution = %execution.id, channel, "an outcome cannot be told: the site has no such channel");
        return None;
    };
    let id = MessageId::of_execution(execution.id, "outcome", execution.state.attempt);
    Some(Message { execution: Some(execution.id), ..Message::new(id, channel, destination.clone(), words::outcome(execution), now) })
}
