//! Sensors and triggers, as their authors wrote them.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::model::place::Place;
use crate::model::secret::Secret;

/// The named type of an event.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Trigger {
    /// `pack.name`.
    pub reference: String,
    /// For people.
    pub description: String,
    /// The JSON Schema of the payload, for people and for tools.
    pub payload_schema: Value,
}

/// What watches one outside thing and emits events.
#[derive(Clone, Debug)]
pub struct SensorDefinition {
    /// `pack.name`.
    pub reference: String,
    /// For people.
    pub description: String,
    /// Whether it runs.
    pub enabled: bool,
    /// The trigger of its events.
    pub trigger: String,
    /// The kind, and what belongs to it.
    pub kind: SensorKind,
    /// Where it is written.
    pub place: Place,
}

/// The kinds of sensors.
#[derive(Clone, Debug)]
pub enum SensorKind {
    /// Called by others over HTTP, at `/api/v1/webhooks/{name}`.
    Webhook {
        /// The name in the URL; unique in the site.
        name: String,
        /// The decoder.
        decoder: String,
        /// Who may call.
        auth: WebhookAuth,
        /// Whether repeats become events of their own.
        repeats: bool,
        /// How long a repeat is known.
        memory: std::time::Duration,
    },
    /// Runs by itself: the name of a kind in `sensors`, with its settings.
    Polling {
        /// The kind.
        kind: String,
        /// Its settings.
        settings: Map<String, Value>,
    },
}

/// Who may call a webhook.
#[derive(Clone, Debug)]
pub enum WebhookAuth {
    /// Loopback peers, or anyone if the site lists the webhook in `open_webhooks`.
    None,
    /// `Authorization: Bearer …`.
    Bearer(Secret),
    /// HMAC-SHA256 of the raw body in a header, in hexadecimal, with or without `sha256=`.
    Hmac {
        /// The key.
        secret: Secret,
        /// The header's name.
        header: String,
    },
}
