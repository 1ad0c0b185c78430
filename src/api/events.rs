//! Events, and why.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, Path, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::routing::on;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::paging::{BEFORE, Entry, LIMIT, PageQuery, SINCE, event_id, size};
use super::problem::Problem;
use super::routes::{Parameter, Route, get, post};
use super::webhooks::read_json;
use super::{ApiState, site};
use crate::auth::permission::Permission::{Ingest, Read};
use crate::engine::{ingest, why};
use crate::model::event::{Accepted, Dedup, NewEvent, StoredEvent};
use crate::model::hash::fingerprint;
use crate::model::ids::EventId;
use crate::model::json::RawJson;
use crate::model::principal::Principal;
use crate::sensors::webhooks::DEFAULT_MEMORY;

const TRIGGER: Parameter = Parameter { name: "trigger", kind: "string", summary: "Only of this trigger" };
const KEY: Parameter = Parameter { name: "key", kind: "string", summary: "Only about this: the event's key" };
const SOURCE: Parameter = Parameter { name: "source", kind: "string", summary: "Only from there, such as `webhook/generic`" };
const RULE: Parameter = Parameter { name: "rule", kind: "string", summary: "Only those that this rule matched, or nearly" };

pub(super) const ROUTES: &[Route] = &[
    get("/api/v1/events", Read, "The newest events, with what the rules said", |m| on(m, list))
        .query(&[LIMIT, BEFORE, SINCE, TRIGGER, KEY, SOURCE, RULE])
        .answers("EventPage"),
    post("/api/v1/events", Ingest, "Hand in an event, as a sensor would", |m| on(m, emit))
        .takes("NewEvent")
        .accepts("Accepted")
        .or(&[404, 422]),
    get("/api/v1/events/{id}", Read, "One event", |m| on(m, show)).answers("Event").or(&[404]),
    get("/api/v1/events/{id}/why", Read, "What every rule said about an event, and why", |m| on(m, why)).answers("EventWhy").or(&[404]),
    get("/api/v1/rules/{rule}/why/{event}", Read, "What one rule said about an event, and why", |m| on(m, rule_why))
        .answers("RuleWhy")
        .or(&[404]),
];

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Emitted {
    trigger: String,
    payload: RawJson,
    #[serde(default)]
    key: Option<String>,
    #[serde(default)]
    dedup_key: Option<String>,
    #[serde(default)]
    occurred_at: Option<chrono::DateTime<chrono::Utc>>,
}

pub(super) async fn emit(
    State(state): State<Arc<ApiState>>,
    Extension(principal): Extension<Principal>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<Accepted>), Problem> {
    let emitted: Emitted = read_json(body, state.body_bytes).await?;
    if !emitted.payload.text().starts_with('{') {
        return Err(Problem::invalid("`payload` must be a JSON object"));
    }
    let dedup = emitted.dedup_key.map(|key| Dedup {
        key: format!("api:{}:{key}", emitted.trigger),
        memory: DEFAULT_MEMORY,
        repeats: false,
        body: Some(fingerprint(emitted.payload.text().as_bytes())),
    });
    let event = NewEvent {
        trigger: emitted.trigger,
        payload: emitted.payload,
        key: emitted.key,
        dedup,
        occurred_at: emitted.occurred_at,
        source: format!("api/{}", principal.describe().replace(' ', "/")),
        cause: ingest::cause(&headers),
        rejected: None,
        pending: None,
    };
    let accepted = ingest::emit(&state.engine, &*state.journal, event).await?;
    Ok((StatusCode::ACCEPTED, Json(accepted)))
}

impl Entry for StoredEvent {
    type Id = EventId;

    fn id(&self) -> EventId {
        self.event.id
    }

    fn made_at_ms(&self) -> u64 {
        self.event.id.timestamp_ms()
    }

    fn weight(&self) -> usize {
        let verdicts: usize = self.verdicts.iter().map(|verdict| 200 + verdict.values.iter().map(size).sum::<usize>()).sum();
        300 + self.event.payload.text().len() + verdicts + self.keys.values().map(size).sum::<usize>()
    }
}

/// A page of events. Payloads go out as the text that came in: a number that no value can hold must not get in the way.
#[derive(Debug, Serialize)]
pub(super) struct EventPage {
    events: Vec<StoredEvent>,
    next: Option<EventId>,
    hold: Value,
}

pub(super) async fn list(State(state): State<Arc<ApiState>>, uri: Uri) -> Result<Json<EventPage>, Problem> {
    let query = PageQuery::of(&uri)?;
    let is = |filter: &Option<String>, own: Option<&str>| filter.as_deref().is_none_or(|wanted| own == Some(wanted));
    let wanted = |stored: &StoredEvent| {
        let event = &stored.event;
        is(&query.trigger, Some(&event.trigger))
            && is(&query.key, event.key.as_deref())
            && is(&query.source, Some(&event.source))
            && query.rule.as_ref().is_none_or(|rule| stored.verdicts.iter().any(|verdict| verdict.rule == *rule))
    };
    let (events, next) = query.collect(state.engine.clock.now(), |page| state.engine.store.events(page), wanted).await?;
    Ok(Json(EventPage { events, next, hold: site::shown(&state.engine) }))
}

pub(super) async fn show(State(state): State<Arc<ApiState>>, Path(id): Path<String>) -> Result<Json<StoredEvent>, Problem> {
    let id = event_id(&state, &id).await?;
    let event = state.engine.store.event(id).await?;
    event.map(Json).ok_or_else(|| Problem::not_found(format!("there is no event {id}; it may be older than the site keeps events")))
}

pub(super) async fn why(State(state): State<Arc<ApiState>>, Path(id): Path<String>) -> Result<Json<why::EventAnswer>, Problem> {
    let id = event_id(&state, &id).await?;
    Ok(Json(why::event(&state.engine, id).await?))
}

pub(super) async fn rule_why(
    State(state): State<Arc<ApiState>>,
    Path((rule, event)): Path<(String, String)>,
) -> Result<Json<why::RuleAnswer>, Problem> {
    let id = event_id(&state, &event).await?;
    Ok(Json(why::rule(&state.engine, &rule, id).await?))
}
