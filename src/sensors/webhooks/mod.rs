//! Webhooks: the bodies that other systems post, as events. One decoder a file, one line in [`DECODERS`].

pub mod alertmanager;
pub mod generic;

use std::time::Duration;

use axum::http::HeaderMap;

use crate::model::event::NewEvent;

/// How long a sender's key is remembered unless the sensor says otherwise.
pub const DEFAULT_MEMORY: Duration = Duration::from_secs(24 * 3_600);

/// What a decoder knows about the webhook.
pub struct Hook<'h> {
    /// The webhook's name.
    pub name: &'h str,
    /// The trigger of its events.
    pub trigger: &'h str,
    /// Whether repeats become events of their own.
    pub repeats: bool,
    /// How long a key is remembered.
    pub memory: Duration,
}

impl Hook<'_> {
    /// The source of the webhook's events; it scopes their keys, too.
    #[must_use]
    pub fn source(&self) -> String {
        format!("webhook/{}", self.name)
    }
}

/// A body that was understood.
#[derive(Debug)]
pub struct Decoded {
    /// Its events.
    pub events: Vec<NewEvent>,
    /// What the sender left out, for log, metrics and answer.
    pub truncated: u64,
}

/// A body that was not understood: nothing was taken.
#[derive(Debug, PartialEq, Eq)]
pub struct Rejected {
    /// What is wrong, each with its index in an array if it has one.
    pub faults: Vec<(Option<usize>, String)>,
}

impl Rejected {
    /// One fault of the whole body.
    #[must_use]
    pub fn whole(message: impl Into<String>) -> Self {
        Self { faults: vec![(None, message.into())] }
    }
}

/// Turns a body into events. Knows the sender's format, and nothing of the engine.
pub trait WebhookDecoder: Send + Sync {
    /// Decodes a body that has passed the webhook's check of who sends it.
    ///
    /// # Errors
    /// When the body is not of the format.
    fn decode(&self, hook: &Hook<'_>, headers: &HeaderMap, body: &[u8]) -> Result<Decoded, Rejected>;
}

/// A decoder and its name.
pub struct DecoderKind {
    /// The name in `decoder`.
    pub name: &'static str,
    /// For the reference.
    pub summary: &'static str,
    /// A body that it takes; a test decodes it.
    pub example: &'static str,
    /// The decoder.
    pub decoder: &'static dyn WebhookDecoder,
}

/// Every decoder.
pub const DECODERS: &[&DecoderKind] = &[&generic::KIND, &alertmanager::KIND];

/// The decoder of that name.
#[must_use]
pub fn decoder(name: &str) -> Option<&'static DecoderKind> {
    DECODERS.iter().find(|kind| kind.name == name).copied()
}

/// The body as text.
///
/// # Errors
/// When it is not UTF-8, with the place.
pub fn text(body: &[u8]) -> Result<&str, Rejected> {
    std::str::from_utf8(body).map_err(|error| Rejected::whole(format!("the body is not UTF-8 at byte {}", error.valid_up_to())))
}
