//! `generic`: any JSON object is an event; an array of objects is as many events, all taken or none.
//!
//! The sender may give `Idempotency-Key` (a repeat is not a second event; another body under it is refused) and
//! `Signalman-Key` (what the event is about).

use axum::http::HeaderMap;
use serde_json::value::RawValue;

use super::{Decoded, DecoderKind, Hook, Rejected, WebhookDecoder, text};
use crate::model::event::{Dedup, NewEvent};
use crate::model::hash::fingerprint;
use crate::model::json::{self, RawJson};

/// The kind.
pub const KIND: DecoderKind = DecoderKind {
    name: "generic",
    summary: "any JSON object is an event, an array of objects as many",
    example: "{\"hello\": \"world\"}",
    decoder: &Generic,
};

/// The most events in one array.
pub const MAX_EVENTS: usize = 10_000;

struct Generic;

impl WebhookDecoder for Generic {
    fn decode(&self, hook: &Hook<'_>, headers: &HeaderMap, body: &[u8]) -> Result<Decoded, Rejected> {
        let text = text(body)?;
        json::check(text).map_err(Rejected::whole)?;
        let idempotency_key = header(headers, "idempotency-key")?;
        let key = header(headers, "signalman-key")?;
        let source = hook.source();
        let whole = fingerprint(body);
        let event = |payload: Box<RawValue>, index: Option<usize>| NewEvent {
            trigger: hook.trigger.to_string(),
            dedup: idempotency_key.as_ref().map(|given| Dedup {
                // The index stands before the sender's key, so that no key can be made to look like an element of another.
                // The first one stands for the request: an object where an array was is another body.
                key: format!("{source}:{}:{given}", index.unwrap_or_default()),
                memory: hook.memory,
                repeats: false,
                // Of the whole body: an array with one more element is another body.
                body: Some(whole),
            }),
            payload: RawJson::from_raw(payload),
            key: key.clone(),
            occurred_at: None,
            source: source.clone(),
            cause: None,
            rejected: None,
            pending: None,
        };
        let trimmed = text.trim_start();
        let bad_json = |error: serde_json::Error| Rejected::whole(format!("the body is not JSON: {}", json::describe(&error)));
        if !trimmed.starts_with('[') {
            let payload: Box<RawValue> = serde_json::from_str(text).map_err(bad_json)?;
            if !payload.get().starts_with('{') {
                return Err(Rejected::whole("the body must be a JSON object, or an array of objects"));
            }
            return Ok(Decoded { events: vec![event(payload, None)], truncated: 0 });
        }
        let items: Vec<Box<RawValue>> = serde_json::from_str(text).map_err(bad_json)?;
        if items.is_empty() {
            return Err(Rejected::whole("the array is empty"));
        }
        if items.len() > MAX_EVENTS {
            return Err(Rejected::whole(format!("the array holds {} events; at most {MAX_EVENTS} are taken at once", items.len())));
        }
        let wrong = items.iter().enumerate().filter(|(_, item)| !item.get().starts_with('{'));
        let faults: Vec<_> = wrong.map(|(index, _)| (Some(index), "must be a JSON object".to_string())).collect();
        if !faults.is_empty() {
            return Err(Rejected { faults });
        }
        let events = items.into_iter().enumerate().map(|(index, item)| event(item, Some(index))).collect();
        Ok(Decoded { events, truncated: 0 })
    }
}

/// The longest key that a sender may give.
const MAX_KEY_BYTES: usize = 256;

fn header(headers: &HeaderMap, name: &str) -> Result<Option<String>, Rejected> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let text = value.to_str().map_err(|_| Rejected::whole(format!("the header `{name}` is not plain text")))?;
    if text.is_empty() || text.len() > MAX_KEY_BYTES {
        return Err(Rejected::whole(format!("the header `{name}` must have 1 to {MAX_KEY_BYTES} characters")));
    }
    Ok(Some(text.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(body: &[u8], headers: &[(&'static str, &'static str)]) -> Result<Decoded, Rejected> {
        let hook = Hook { name: "generic", trigger: "core.webhook", repeats: false, memory: super::super::DEFAULT_MEMORY };
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        Generic.decode(&hook, &headers, body)
    }

    #[test]
    fn an_object_and_an_array() {
        let one = decode(b" {\"a\": 1} ", &[("idempotency-key", "k"), ("signalman-key", "host-1")]).unwrap().events.remove(0);
        assert_eq!((one.payload.text(), one.key.as_deref()), ("{\"a\": 1}", Some("host-1")));
        assert_eq!(one.dedup.unwrap().key, "webhook/generic:0:k");
        let many = decode(b"[{\"a\":1},{\"a\":2}]", &[("idempotency-key", "k")]).unwrap().events;
        assert_eq!(many[1].dedup.as_ref().unwrap().key, "webhook/generic:1:k");
    }

    #[test]
    fn what_is_wrong_is_told() {
        let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
        for (body, says) in [
            (&b"{\"a\":1"[..], "the body is not JSON: EOF while parsing an object (line 1, column 6)"),
            (b"\"text\"", "must be a JSON object"),
            (b"", "the body is not JSON"),
            (b"[]", "the array is empty"),
            (b"{\"a\":\"\xff\"}", "not UTF-8 at byte 6"),
            (deep.as_bytes(), "nests deeper"),
        ] {
            let rejected = decode(body, &[]).unwrap_err();
            assert!(rejected.faults[0].1.contains(says), "{rejected:?}");
        }
        let rejected = decode(b"[{}, 1, {}, null]", &[]).unwrap_err();
        assert_eq!(rejected.faults.iter().map(|fault| fault.0).collect::<Vec<_>>(), [Some(1), Some(3)]);
    }
}
