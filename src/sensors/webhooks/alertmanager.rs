//! `alertmanager`: the webhook of Prometheus Alertmanager, version 4 of its payload, one event for each alert.
//!
//! The payload of an event is the alert with `receiver`, `groupKey`, `groupLabels`, `commonLabels`, `commonAnnotations`,
//! `externalURL` and `truncatedAlerts` of its group. One firing is one event, however often Alertmanager repeats it: the key of a
//! repeat is group, fingerprint, start and status, and its memory slides. With `repeats: true` a repeat is an event with `repeat: n`.
//!
//! Source of the format: Alertmanager `template/template.go`, `notify/webhook`.

use std::collections::BTreeMap;

use axum::http::HeaderMap;
use chrono::{DateTime, Utc};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::{Decoded, DecoderKind, Hook, Rejected, WebhookDecoder, text};
use crate::model::event::{Dedup, NewEvent};
use crate::model::hash::sha256_hex;
use crate::model::json::{RawJson, check_depth, check_readable, describe, type_name};

/// The kind.
pub const KIND: DecoderKind = DecoderKind {
    name: "alertmanager",
    summary: "Prometheus Alertmanager, one event for each alert",
    example: "{\"version\": \"4\", \"groupKey\": \"{}:{}\", \"status\": \"firing\", \"alerts\": [{\"status\": \"firing\", \"labels\": {\"alertname\": \"Down\"}, \"startsAt\": \"2026-11-20T07:22:45Z\"}]}",
    decoder: &Alertmanager,
};

/// Fields of the group that every alert's payload repeats.
const GROUP_FIELDS: &[&str] =
    &["receiver", "groupKey", "groupLabels", "commonLabels", "commonAnnotations", "externalURL", "truncatedAlerts"];

/// The most bytes that the events of one notification may repeat of their group.
pub const MAX_EXPANDED_BYTES: usize = 16 << 20;

/// The most alerts in one notification.
pub const MAX_ALERTS: usize = 10_000;

struct Alertmanager;

impl WebhookDecoder for Alertmanager {
    fn decode(&self, hook: &Hook<'_>, _: &HeaderMap, body: &[u8]) -> Result<Decoded, Rejected> {
        let not_json = |error: String| Rejected::whole(format!("the body is not JSON: {error}"));
        let text = text(body)?;
        check_depth(body).map_err(not_json)?;
        let raw: Box<RawValue> = serde_json::from_str(text).map_err(|error| not_json(describe(&error)))?;
        if !raw.get().starts_with('{') {
            return Err(Rejected::whole("the body must be a JSON object as Alertmanager posts it"));
        }
        // Each alert is read by itself: what no value can hold (1e999) is the fault of one alert, not of its neighbours.
        let mut fields: BTreeMap<String, Box<RawValue>> = serde_json::from_str(raw.get()).map_err(|error| not_json(describe(&error)))?;
        let alerts = fields.remove("alerts").and_then(|alerts| serde_json::from_str::<Vec<Box<RawValue>>>(alerts.get()).ok());
        let mut group = Map::new();
        for (name, raw) in fields {
            group.insert(name, RawJson::from_raw(raw).value().map_err(Rejected::whole)?);
        }
        match group.get("version") {
            None | Some(Value::Null) => {}
            Some(Value::String(version)) if version == "4" => {}
            Some(other) => {
                return Err(Rejected::whole(format!("version {other} of the payload is not known; `alertmanager` reads version \"4\"")));
            }
        }
        let Some(alerts) = alerts else {
            return Err(Rejected::whole("`alerts` must be a list; is this posted by Alertmanager?"));
        };
        if alerts.len() > MAX_ALERTS {
            return Err(Rejected::whole(format!("the group holds {} alerts; at most {MAX_ALERTS} are taken at once", alerts.len())));
        }
        // Every event carries what its group says, so a large group of large words would become a flood.
        let shared: usize = GROUP_FIELDS.iter().filter_map(|field| group.get(*field)).map(|value| value.to_string().len()).sum();
        if shared.saturating_mul(alerts.len()) > MAX_EXPANDED_BYTES {
            let message = format!(
                "{} alerts with {shared} bytes of group labels and annotations each are more than {MAX_EXPANDED_BYTES} bytes",
                alerts.len()
            );
            return Err(Rejected::whole(format!("{message}; set max_alerts in Alertmanager, or shorten what they share")));
        }
        let truncated = group.get("truncatedAlerts").and_then(Value::as_u64).unwrap_or(0);
        let events = alerts.into_iter().map(|alert| event(hook, &group, &alert)).collect();
        Ok(Decoded { events, truncated })
    }
}

fn event(hook: &Hook<'_>, group: &Map<String, Value>, raw: &RawValue) -> NewEvent {
    let read = check_readable(raw.get()).and_then(|()| serde_json::from_str::<Value>(raw.get()).map_err(|error| describe(&error)));
    let (alert, fault) = match read {
        Ok(alert) => (alert, None),
        Err(fault) => (Value::from(raw.get()), Some(fault)),
    };
    let identity = fault.map_or_else(|| identify(&alert), Err);
    let mut payload = match alert {
        Value::Object(fields) => fields,
        other => Map::from_iter([("alert".to_string(), other)]),
    };
    for field in GROUP_FIELDS {
        if let Some(value) = group.get(*field) {
            payload.entry(*field).or_insert_with(|| value.clone());
        }
    }
    let group_key = group.get("groupKey").and_then(Value::as_str).unwrap_or_default();
    let event = NewEvent {
        trigger: hook.trigger.to_string(),
        payload: RawJson::of(&Value::Object(payload)),
        key: None,
        dedup: None,
        occurred_at: None,
        source: hook.source(),
        cause: None,
        rejected: None,
        pending: None,
    };
    match identity {
        Err(fault) => NewEvent { rejected: Some(fault), ..event },
        Ok(Identity { fingerprint, status, starts_at, occurred_at }) => {
            let key = format!("{}:{group_key}:{fingerprint}:{starts_at}:{status}", hook.source());
            let dedup = Dedup { key, memory: hook.memory, repeats: hook.repeats, body: None };
            NewEvent { key: Some(fingerprint), dedup: Some(dedup), occurred_at, ..event }
        }
    }
}

struct Identity {
    fingerprint: String,
    status: String,
    starts_at: String,
    occurred_at: Option<DateTime<Utc>>,
}

/// What makes an alert this alert; or why it is none.
fn identify(alert: &Value) -> Result<Identity, String> {
    let Value::Object(fields) = alert else { return Err(format!("an alert must be an object, not {}", type_name(alert))) };
    let text = |name: &str| match fields.get(name) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(other) => Err(format!("`{name}` must be text, not {}", type_name(other))),
        None => Err(format!("`{name}` is missing")),
    };
    let status = text("status")?;
    if status != "firing" && status != "resolved" {
        return Err(format!("`status` must be firing or resolved, not `{status}`"));
    }
    let labels = match fields.get("labels") {
        Some(Value::Object(labels)) if labels.values().all(Value::is_string) => labels,
        Some(_) => return Err("`labels` must be a map of texts".into()),
        None => return Err("`labels` is missing".into()),
    };
    if fields.get("annotations").is_some_and(|annotations| !annotations.is_object()) {
        return Err("`annotations` must be a map".into());
    }
    let starts_at = text("startsAt")?;
    let time = |text: &str| DateTime::parse_from_rfc3339(text).map(|at| at.with_timezone(&Utc));
    let started = time(&starts_at).map_err(|_| format!("`startsAt` is not a time: `{starts_at}`"))?;
    // A firing alert ends in year one; only a resolved one has an end.
    let ended = fields.get("endsAt").and_then(Value::as_str).and_then(|text| time(text).ok());
    let occurred_at = if status == "resolved" { ended.or(Some(started)) } else { Some(started) };
    let fingerprint = match fields.get("fingerprint") {
        Some(Value::String(text)) if !text.is_empty() => text.clone(),
        _ => sha256_hex(Value::Object(labels.clone()).to_string().as_bytes())[..16].to_string(),
    };
    Ok(Identity { fingerprint, status, starts_at, occurred_at })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn decode(body: &Value) -> Result<Decoded, Rejected> {
        let hook = Hook { name: "am", trigger: "alertmanager.alert", repeats: false, memory: super::super::DEFAULT_MEMORY };
        Alertmanager.decode(&hook, &HeaderMap::new(), body.to_string().as_bytes())
    }

    fn alert(status: &str) -> Value {
        json!({"status": status, "labels": {"alertname": "Down"}, "annotations": {}, "startsAt": "2026-11-20T07:22:45.77Z", "endsAt": "2026-11-20T07:28:59Z", "fingerprint": "56ade48dd73c750a"})
    }

    #[test]
    fn each_alert_is_an_event_with_its_group() {
        let group = json!({"version": "4", "groupKey": "{}:{a=\"b\"}", "receiver": "ops", "status": "firing", "truncatedAlerts": 3, "alerts": [alert("firing"), alert("resolved")]});
        let decoded = decode(&group).unwrap();
        assert_eq!(decoded.truncated, 3);
        let payload = decoded.events[0].payload.value().unwrap();
        assert_eq!(
            (&payload["receiver"], &payload["truncatedAlerts"], &payload["labels"]["alertname"]),
            (&json!("ops"), &json!(3), &json!("Down"))
        );
        let keys: Vec<&str> = decoded.events.iter().map(|event| event.dedup.as_ref().unwrap().key.as_str()).collect();
        assert_eq!(keys[0], "webhook/am:{}:{a=\"b\"}:56ade48dd73c750a:2026-11-20T07:22:45.77Z:firing");
        assert_ne!(keys[0], keys[1]);
        assert_eq!(decoded.events[1].occurred_at.unwrap().to_rfc3339(), "2026-11-20T07:28:59+00:00");
    }

    #[test]
    fn a_faulty_alert_is_recorded_and_its_neighbours_are_taken() {
        let mut broken = alert("firing");
        broken["startsAt"] = json!("yesterday");
        let decoded = decode(&json!({"alerts": [broken, alert("firing"), 7, {"status": "open"}]})).unwrap();
        let faults: Vec<Option<&str>> = decoded.events.iter().map(|event| event.rejected.as_deref()).collect();
        assert_eq!(
            faults,
            [
                Some("`startsAt` is not a time: `yesterday`"),
                None,
                Some("an alert must be an object, not integer"),
                Some("`status` must be firing or resolved, not `open`"),
            ]
        );
    }

    #[test]
    fn a_missing_fingerprint_is_computed_and_newer_fields_are_kept() {
        let mut plain = alert("firing");
        plain.as_object_mut().unwrap().remove("fingerprint");
        plain["someNewField"] = json!({"x": 1});
        let event = decode(&json!({"alerts": [plain], "notification_reason": "first notification"})).unwrap().events.remove(0);
        assert_eq!(event.key.unwrap().len(), 16);
        assert_eq!(event.payload.value().unwrap()["someNewField"]["x"], 1);
    }

    #[test]
    fn other_bodies_are_refused() {
        for (body, says) in [
            (json!([]), "must be a JSON object"),
            (json!({"version": "1", "alerts": []}), "version \"1\""),
            (json!({"alerts": {}}), "`alerts` must be a list"),
            (json!({}), "`alerts` must be a list"),
        ] {
            assert!(decode(&body).unwrap_err().faults[0].1.contains(says), "{body}");
        }
    }
}
