//! Events: what happened.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::model::ids::{EventId, ExecutionId};
use crate::model::json::RawJson;
use crate::model::reason::Reason;
use crate::model::verdict::StoredVerdict;

/// Events that were caused by events deeper than this are dropped as loops.
pub const MAX_DEPTH: u32 = 8;

/// What a sensor, webhook or person hands in; it has no id yet.
#[derive(Clone, Debug)]
pub struct NewEvent {
    /// The trigger, `pack.name`.
    pub trigger: String,
    /// What happened, as JSON.
    pub payload: RawJson,
    /// What the event is about: a host, an alert, a lock.
    pub key: Option<String>,
    /// How the sender tells a repeat from something new.
    pub dedup: Option<Dedup>,
    /// When it happened, if the sender says so.
    pub occurred_at: Option<DateTime<Utc>>,
    /// Where it came from, `webhook/alertmanager` or `api`.
    pub source: String,
    /// What made it happen, if that was one of our own executions.
    pub cause: Option<Cause>,
    /// Why it is kept but not evaluated, if the decoder found it faulty.
    pub rejected: Option<String>,
    /// Which event of our own that waits it is.
    pub pending: Option<EventId>,
}

/// An event of our own: durable with what made it, and evaluated soon after.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PendingEvent {
    /// What tells it from others; the event itself has another id.
    pub id: EventId,
    /// The trigger, `pack.name`.
    pub trigger: String,
    /// What happened, as JSON.
    pub payload: RawJson,
    /// What it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// When it happened.
    pub occurred_at: DateTime<Utc>,
    /// What made it happen, if one of our executions did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
}

/// How a repeat is known.
#[derive(Clone, Debug, PartialEq)]
pub struct Dedup {
    /// Equal for repeats. Scoped by the source, so two webhooks cannot collide.
    pub key: String,
    /// How long it is remembered after it was last seen.
    pub memory: std::time::Duration,
    /// Whether a repeat becomes an event of its own, with `repeat: n` in the payload.
    pub repeats: bool,
    /// Hash of the body, where the same key with another body is a mistake of the sender.
    pub body: Option<u64>,
}

/// The execution that caused an event, and how many steps led there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cause {
    /// The execution.
    pub execution: ExecutionId,
    /// Its own depth.
    pub depth: u32,
}

/// Something that happened. Immutable once it has an id.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Event {
    /// Its id; the time part is when it was received.
    pub id: EventId,
    /// The trigger, `pack.name`.
    pub trigger: String,
    /// What the event is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The sender's key for repeats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dedup_key: Option<String>,
    /// When it happened; never later than a minute after it was received.
    pub occurred_at: DateTime<Utc>,
    /// When it was received.
    pub received_at: DateTime<Utc>,
    /// Where it came from.
    pub source: String,
    /// What made it happen, if one of our own executions did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// How many of our own executions led here; zero for what comes from outside.
    #[serde(default)]
    pub depth: u32,
    /// The payload, as it came.
    pub payload: RawJson,
}

/// An event with everything that was decided from it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StoredEvent {
    /// The event.
    pub event: Event,
    /// The number of the set of rules that judged it; `0` where none did.
    pub ruleset: u64,
    /// Matches and near-misses. Everything else can be recomputed from the rule set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub verdicts: Vec<StoredVerdict>,
    /// Near-misses beyond the stored ones.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more_near_misses: u32,
    /// Keys of the datastore that rules looked at, as they were.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub keys: Map<String, Value>,
    /// Why it was not evaluated, where it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_aside: Option<SetAside>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// Why an event was kept but not evaluated.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SetAside {
    /// The reason.
    pub reason: Reason,
    /// What exactly.
    pub detail: String,
}

/// The answer to a sender, for one event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Accepted {
    /// The event's id, or the first one's if this is a duplicate.
    pub id: EventId,
    /// Its trigger.
    pub trigger: String,
    /// Whether it had been received before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub duplicate: bool,
    /// Why it was recorded but not evaluated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejected: Option<String>,
}
