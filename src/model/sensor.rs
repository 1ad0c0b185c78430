//! Sensors and triggers, as their authors wrote them.

use std::sync::Arc;

use chrono_tz::Tz;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::model::action::Script;
use crate::model::pack::Pack;
use crate::model::place::Place;
use crate::model::schema::Schema;
use crate::model::secret::Secret;

/// The named type of an event.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Trigger {
    /// `pack.name`.
    pub reference: String,
    /// For people.
    pub description: String,
    /// What a payload must be.
    #[serde(default)]
    pub payload_schema: Option<Schema>,
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
    /// Runs by itself.
    Polling(Polling),
}

/// A sensor that runs by itself: the name of a kind in `sensors`, with all that it is made from.
#[derive(Clone)]
pub struct Polling {
    /// The kind.
    pub kind: String,
    /// Its settings. They may hold secrets of the pack's settings.
    pub settings: Map<String, Value>,
    /// The script beside the file, for kinds that have one.
    pub script: Option<Script>,
    /// The pack that it belongs to.
    pub pack: Arc<Pack>,
    /// The time zone of the site.
    pub time_zone: Tz,
}

impl std::fmt::Debug for Polling {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without the settings: a secret may have been filled in.
        f.debug_struct("Polling").field("kind", &self.kind).field("pack", &self.pack.reference).finish_non_exhaustive()
    }
}

impl SensorDefinition {
    /// Whether a sensor that runs by this definition need not be touched when the other takes its place.
    #[must_use]
    pub fn runs_like(&self, other: &Self) -> bool {
        let same = self.reference == other.reference && self.trigger == other.trigger && self.enabled == other.enabled;
        same && match (&self.kind, &other.kind) {
            (SensorKind::Polling(own), SensorKind::Polling(other)) => {
                let parts = own.kind == other.kind && own.settings == other.settings && own.time_zone == other.time_zone;
                let text = |polling: &Polling| polling.script.as_ref().map(|script| (script.file.clone(), script.text.clone()));
                let (pack, others) = (&own.pack, &other.pack);
                let same_pack = pack.capabilities == others.capabilities && pack.config == others.config;
                parts && text(own) == text(other) && same_pack && pack.masks == others.masks
            }
            // A webhook runs by being called, and is looked up then.
            (SensorKind::Webhook { .. }, SensorKind::Webhook { .. }) => true,
            _ => false,
        }
    }
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
