//! What is said to whoever asked for an execution: that it was heard, and how it ended. A template that fails never loses an answer.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::super::catalog::Catalog;
use super::super::deliver::RESULT;
use crate::chat::grammar::book::CompiledAlias;
use crate::chat::words;
use crate::model::action::{Action, masked};
use crate::model::execution::{Execution, Status};
use crate::model::ids::MessageId;
use crate::model::message::Message;
use crate::template::message::MessageTemplate;
use crate::template::text::Data;

/// What is said at once.
#[must_use]
pub fn acknowledgement(compiled: &CompiledAlias, action: &Action, execution: &Execution) -> String {
    let id = execution.id.short();
    let (text, is_own) = match &compiled.ack {
        None => (words::heard(&action.reference, &id), true),
        Some(template) => match template.render(&names(action, execution)) {
            Ok(text) => (text, false),
            Err(error) => (format!("{}\n{}", words::heard(&action.reference, &id), words::template_failed(&template.name, &error)), true),
        },
    };
    if compiled.alias.ack.append_url == Some(true) && !is_own { format!("{text} · `{id}`") } else { text }
}

/// The message that tells how an execution ended to whoever asked for it, if it is to be told.
#[must_use]
pub fn result(catalog: &Catalog, execution: &Execution, now: DateTime<Utc>) -> Option<Message> {
    let asked = execution.request.asked.as_deref().filter(|_| execution.state.status.is_final())?;
    let compiled = catalog.aliases.get(&asked.alias);
    let succeeded = execution.state.status == Status::Succeeded;
    if succeeded && compiled.is_some_and(|compiled| !compiled.alias.result.enabled) {
        return None;
    }
    let template = compiled.and_then(|compiled| compiled.result.as_ref()).filter(|_| succeeded);
    let action = catalog.actions.get(&execution.request.action);
    let text = template.map_or_else(|| words::result(execution), |template| rendered(template, action.map(AsRef::as_ref), execution));
    let id = MessageId::of_execution(execution.id, RESULT, 0);
    let message = Message::new(id, &asked.channel, asked.destination.clone(), text, now);
    Some(Message { execution: Some(execution.id), replaces: asked.acknowledged, ..message })
}

fn rendered(template: &MessageTemplate, action: Option<&Action>, execution: &Execution) -> String {
    let Some(action) = action else { return words::result(execution) };
    match template.render(&names(action, execution)) {
        Ok(text) if text.is_empty() => words::result(execution),
        Ok(text) => text,
        Err(error) => format!("{}\n{}", words::result(execution), words::template_failed(&template.name, &error)),
    }
}

/// What templates of messages see.
fn names(action: &Action, execution: &Execution) -> Data {
    let (request, state) = (&execution.request, &execution.state);
    let (user, channel) = request.asked.as_ref().map(|asked| (asked.user.clone(), asked.channel.clone())).unwrap_or_default();
    let duration = state.ended_at.zip(state.started_at).map(|(ended, started)| (ended - started).num_milliseconds());
    Data::new(json!({
        "execution": {
            "id": execution.id,
            "short": execution.id.short(),
            "action": request.action,
            "status": state.status.name(),
            "attempt": state.attempt,
            "error": state.error,
            "requested_by": request.requested_by.describe(),
            "requested_at": request.requested_at,
            "started_at": state.started_at,
            "ended_at": state.ended_at,
            "duration_ms": duration,
        },
        "parameters": Value::Object(masked(&action.parameters, &request.parameters)),
        "result": state.result,
        "user": user,
        "channel": channel,
    }))
}
