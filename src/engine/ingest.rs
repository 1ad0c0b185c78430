//! The door: who may post to a webhook, and what its body means. What passes goes to the journal.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;

use super::Engine;
use super::catalog::Catalog;
use crate::journal::{AcceptError, Journal};
use crate::model::event::{Accepted, Cause, NewEvent};
use crate::model::secret::constant_time_eq;
use crate::model::sensor::{SensorDefinition, SensorKind, WebhookAuth};
use crate::outbound::CAUSE_HEADER;
use crate::sensors::webhooks::{self, Hook, Rejected};

/// What a webhook answers.
#[derive(Debug)]
pub struct Taken {
    /// Its events, in the order of the body.
    pub events: Vec<Accepted>,
    /// What the sender left out.
    pub truncated: u64,
}

/// Why a webhook took nothing.
#[derive(Debug)]
pub enum Refused {
    /// There is no such webhook.
    Unknown(String),
    /// The sender did not prove who it is; says what is expected.
    Unauthorized(String),
    /// The body is wrong.
    Rejected(Rejected),
    /// It cannot be taken now.
    Accept(AcceptError),
}

/// A webhook whose sender has shown, as far as the head of a request can, that it may call.
pub struct Admitted {
    catalog: Arc<Catalog>,
    sensor: usize,
}

/// Looks a webhook up and checks what can be checked before the body is read.
///
/// # Errors
/// When there is no such webhook, or the sender may not call it.
pub fn admit(engine: &Engine, open: bool, name: &str, peer: SocketAddr, headers: &HeaderMap) -> Result<Admitted, Refused> {
    let catalog = engine.catalog.get();
    let named = |sensor: &SensorDefinition| sensor.enabled && matches!(&sensor.kind, SensorKind::Webhook { name: own, .. } if own == name);
    let sensor = catalog.sensors.iter().position(named).ok_or_else(|| Refused::Unknown(format!("there is no webhook `{name}`")))?;
    if let SensorKind::Webhook { auth, .. } = &catalog.sensors[sensor].kind {
        check_head(auth, peer, open, headers).map_err(Refused::Unauthorized)?;
    }
    Ok(Admitted { catalog, sensor })
}

/// Takes the body of a webhook.
///
/// # Errors
/// When nothing of it was taken.
pub async fn webhook(
    engine: &Engine,
    journal: &dyn Journal,
    admitted: Admitted,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Taken, Refused> {
    let Admitted { catalog, sensor } = admitted;
    let SensorDefinition { reference, trigger, kind: SensorKind::Webhook { name, decoder, auth, repeats, memory }, .. } =
        &catalog.sensors[sensor]
    else {
        return Err(Refused::Unknown("this sensor is no webhook".into()));
    };
    check_body(auth, headers, body).map_err(Refused::Unauthorized)?;
    if !engine.load.has_room() {
        return Err(Refused::Accept(engine.load.full()));
    }
    let kind = webhooks::decoder(decoder).ok_or_else(|| Refused::Unknown(format!("there is no decoder `{decoder}`")))?;
    let hook = Hook { name, trigger, repeats: *repeats, memory: *memory };
    let mut decoded = kind.decoder.decode(&hook, headers, body).map_err(Refused::Rejected)?;
    if decoded.truncated > 0 {
        engine.metrics.truncated_alerts.inc_by(decoded.truncated);
        tracing::warn!(webhook = name, truncated = decoded.truncated, "the sender left something out of its notification");
    }
    if let Some(cause) = cause(headers) {
        for event in &mut decoded.events {
            event.cause = Some(cause.clone());
        }
    }
    if decoded.events.is_empty() {
        return Ok(Taken { events: Vec::new(), truncated: decoded.truncated });
    }
    let events = journal.accept(decoded.events).await.map_err(Refused::Accept)?;
    let new = events.iter().filter(|event| !event.duplicate).count();
    engine.sensors.emitted(reference, new, engine.clock.now());
    Ok(Taken { events, truncated: decoded.truncated })
}

/// Takes an event that a token holder emits.
///
/// # Errors
/// When the trigger does not exist or nothing can be taken now.
pub async fn emit(engine: &Engine, journal: &dyn Journal, event: NewEvent) -> Result<Accepted, Refused> {
    let catalog = engine.catalog.get();
    if !catalog.triggers.contains_key(&event.trigger) {
        return Err(Refused::Unknown(catalog.no_trigger(&event.trigger)));
    }
    if !engine.load.has_room() {
        return Err(Refused::Accept(engine.load.full()));
    }
    let accepted = journal.accept(vec![event]).await.map_err(Refused::Accept)?;
    accepted.into_iter().next().ok_or_else(|| Refused::Accept(AcceptError::Unavailable("the journal gave no answer".into())))
}

/// What the head of a request shows.
fn check_head(auth: &WebhookAuth, peer: SocketAddr, open: bool, headers: &HeaderMap) -> Result<(), String> {
    match auth {
        WebhookAuth::None if open || peer.ip().to_canonical().is_loopback() => Ok(()),
        WebhookAuth::None => {
            Err("this webhook takes calls from this machine only; list it in `open_webhooks` to open it, or give it `auth`".into())
        }
        WebhookAuth::Bearer(secret) => {
            let given = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(bearer);
            let known = given.is_some_and(|given| secret.matches(given));
            if known { Ok(()) } else { Err("`Authorization: Bearer …` with this webhook's token is needed".into()) }
        }
        WebhookAuth::Hmac { header, .. } if headers.contains_key(header) => Ok(()),
        WebhookAuth::Hmac { header, .. } => Err(needs_hmac(header)),
    }
}

/// What only the body shows.
fn check_body(auth: &WebhookAuth, headers: &HeaderMap, body: &[u8]) -> Result<(), String> {
    let WebhookAuth::Hmac { secret, header } = auth else { return Ok(()) };
    let given = headers.get(header).and_then(|value| value.to_str().ok()).ok_or_else(|| needs_hmac(header))?;
    let given = given.strip_prefix("sha256=").unwrap_or(given).to_ascii_lowercase();
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret.reveal().as_bytes());
    let expected = crate::model::hash::hex(ring::hmac::sign(&key, body).as_ref());
    if constant_time_eq(expected.as_bytes(), given.as_bytes()) { Ok(()) } else { Err(needs_hmac(header)) }
}

fn needs_hmac(header: &str) -> String {
    format!("the header `{header}` must be the HMAC-SHA256 of the body, in hexadecimal")
}

/// The token in an `Authorization` header.
#[must_use]
pub fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The execution that sent the request, if one of ours did.
#[must_use]
pub fn cause(headers: &HeaderMap) -> Option<Cause> {
    let text = headers.get(CAUSE_HEADER)?.to_str().ok()?;
    let (execution, depth) = text.split_once(' ')?;
    Some(Cause { execution: execution.parse().ok()?, depth: depth.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::secret::Secret;

    fn check(auth: &WebhookAuth, peer: &str, open: bool, headers: &[(&'static str, &str)]) -> bool {
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        check_head(auth, peer.parse().unwrap(), open, &headers).and_then(|()| check_body(auth, &headers, b"Hello, World!")).is_ok()
    }

    #[test]
    fn none_is_for_loopback_unless_opened() {
        assert!(check(&WebhookAuth::None, "127.0.0.1:5", false, &[]));
        assert!(check(&WebhookAuth::None, "[::1]:5", false, &[]));
        assert!(check(&WebhookAuth::None, "[::ffff:127.0.0.1]:5", false, &[]));
        assert!(!check(&WebhookAuth::None, "192.0.2.1:5", false, &[]));
        assert!(check(&WebhookAuth::None, "192.0.2.1:5", true, &[]));
    }

    #[test]
    fn bearer_and_hmac() {
        let bearer = WebhookAuth::Bearer(Secret::new("s3cret".into()));
        assert!(check(&bearer, "192.0.2.1:5", false, &[("authorization", "Bearer s3cret")]));
        for wrong in ["Bearer s3cre", "Basic s3cret", "s3cret", "Bearer "] {
            assert!(!check(&bearer, "127.0.0.1:5", true, &[("authorization", wrong)]), "{wrong}");
        }
        // The published example of GitHub's documentation, computed again.
        let hmac = WebhookAuth::Hmac { secret: Secret::new("It's a Secret to Everybody".into()), header: "x-hub-signature-256".into() };
        let good = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        assert!(check(&hmac, "192.0.2.1:5", false, &[("x-hub-signature-256", &format!("sha256={good}"))]));
        assert!(check(&hmac, "192.0.2.1:5", false, &[("x-hub-signature-256", good)]));
        assert!(!check(&hmac, "127.0.0.1:5", true, &[("x-hub-signature-256", &good.replace('7', "8"))]));
        assert!(!check(&hmac, "127.0.0.1:5", true, &[]));
    }
}
