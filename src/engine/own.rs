//! Events of our own: durable in the commit of what made them, and handed to the journal soon after; an event that waits when the process
//! ends is handed in after the next start. Made only where a rule listens.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::Engine;
use super::catalog::Catalog;
use crate::clock;
use crate::journal::Journal;
use crate::model::datastore::KeyEntry;
use crate::model::event::{Cause, NewEvent, PendingEvent};
use crate::model::execution::Execution;
use crate::model::json::RawJson;
use crate::model::principal::Principal;
use crate::tasks::Stop;

/// An execution has ended.
pub const EXECUTION_FINISHED: &str = "core.execution_finished";

/// A key of the datastore has changed.
pub const KEY_CHANGED: &str = "core.key_changed";

/// A rule's guard used up its budget too often.
pub const RULE_QUARANTINED: &str = "core.rule_quarantined";

/// Events handed in together.
const TOGETHER: usize = 256;

/// The pause before events that could not be handed in are tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// The longest result that the event of an execution's end carries, in bytes of JSON; a longer one is left out.
const RESULT_BYTES: usize = 64 << 10;

/// Runs until the stop signal.
pub async fn run(engine: Arc<Engine>, journal: Arc<dyn Journal>, stop: Stop) {
    loop {
        match hand_in(&engine, &*journal).await {
            Ok(0) => tokio::select! { () = stop.stopped() => return, () = engine.own_events.notified() => {} },
            Ok(_) => {}
            Err(error) => {
                tracing::debug!("events of our own wait: {error}");
                tokio::select! { () = stop.stopped() => return, () = clock::sleep(&*engine.clock, PAUSE) => {} }
            }
        }
    }
}

async fn hand_in(engine: &Engine, journal: &dyn Journal) -> Result<usize, String> {
    let waiting = engine.store.pending_events(TOGETHER).await.map_err(|error| error.to_string())?;
    let count = waiting.len();
    if count > 0 {
        journal.accept(waiting.into_iter().map(new_event).collect()).await.map_err(|error| error.to_string())?;
    }
    Ok(count)
}

fn new_event(pending: PendingEvent) -> NewEvent {
    NewEvent {
        trigger: pending.trigger,
        payload: pending.payload,
        key: pending.key,
        dedup: None,
        occurred_at: Some(pending.occurred_at),
        source: "engine".into(),
        cause: pending.cause,
        rejected: None,
        pending: Some(pending.id),
    }
}

fn event(engine: &Engine, trigger: &str, key: &str, payload: &Value, at: DateTime<Utc>, cause: Option<Cause>) -> PendingEvent {
    PendingEvent {
        id: engine.ids.event(at),
        trigger: trigger.into(),
        payload: RawJson::of(payload),
        key: Some(key.into()),
        occurred_at: at,
        cause,
    }
}

/// The event of an execution's end, if it has ended and a rule listens.
#[must_use]
pub fn finished(engine: &Engine, catalog: &Catalog, execution: &Execution) -> Option<PendingEvent> {
    let (request, state) = (&execution.request, &execution.state);
    if !state.status.is_final() || !catalog.rules.has_listeners(EXECUTION_FINISHED) {
        return None;
    }
    let rule = if let Principal::Rule(rule) = &request.requested_by { Some(rule) } else { None };
    let result = state.result.as_ref().filter(|result| result.to_string().len() <= RESULT_BYTES);
    let pack = request.action.split('.').next();
    let payload = json!({
        "execution": execution.id, "action": request.action, "pack": pack, "status": state.status, "reason": state.reason,
        "rule": rule, "event": request.event, "key": request.key, "attempt": state.attempt, "error": state.error, "result": result,
        "requested_at": request.requested_at, "started_at": state.started_at, "ended_at": state.ended_at,
    });
    let cause = Cause { execution: execution.id, depth: request.depth };
    Some(event(engine, EXECUTION_FINISHED, &request.action, &payload, state.ended_at.unwrap_or(request.requested_at), Some(cause)))
}

/// The event of a key's change, if a rule listens.
#[must_use]
pub fn key_changed(
    engine: &Engine,
    pack: &str,
    name: &str,
    [before, after]: [Option<&KeyEntry>; 2],
    cause: Option<Cause>,
) -> Option<PendingEvent> {
    let (now, [before_value, value]) = (engine.clock.now(), [before, after].map(|entry| entry.map(|entry| &entry.value)));
    if before_value == value || !engine.catalog.get().rules.has_listeners(KEY_CHANGED) {
        return None;
    }
    let expired = before.filter(|entry| after.is_none() && entry.has_expired(now));
    let payload = json!({"scope": pack, "name": name, "before": before_value, "value": value, "deleted": value.is_none(), "expired": expired.is_some()});
    // It was over when its time was over, also where that is noticed later.
    let at = expired.and_then(|entry| entry.expires_at).unwrap_or(now);
    Some(event(engine, KEY_CHANGED, &format!("{pack}.{name}"), &payload, at, cause))
}

/// The event of a rule's quarantine, if a rule listens.
#[must_use]
pub fn quarantined(engine: &Engine, catalog: &Catalog, rule: &str, at: DateTime<Utc>) -> Option<PendingEvent> {
    if !catalog.rules.has_listeners(RULE_QUARANTINED) {
        return None;
    }
    Some(event(engine, RULE_QUARANTINED, rule, &json!({"rule": rule, "at": at}), at, None))
}
