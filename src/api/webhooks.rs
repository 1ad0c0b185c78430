//! `POST /api/v1/webhooks/{name}`.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, Path, State};
use axum::http::header::CONTENT_LENGTH;
use axum::http::{HeaderMap, Response, StatusCode};
use axum::response::IntoResponse;
use axum::routing::on;
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::problem::Problem;
use super::routes::{Route, post};
use super::{ApiState, Peer};
use crate::auth::permission::Permission::Open;
use crate::engine::ingest::{self, Taken};
use crate::model::event::Accepted;
use crate::model::json::{check, describe};
use crate::model::sensor::{SensorDefinition, SensorKind};

pub(super) const ROUTES: &[Route] =
    &[post("/api/v1/webhooks/{name}", Open, "Hand in what another system says; it proves who it is as the webhook's `auth` says", |m| {
        on(m, take)
    })
    .takes("Anything")
    .accepts("Taken")
    .or(&[401, 404, 408, 413, 422])];

/// A body of so many times the limit is refused before it is read.
const FAR_TOO_LARGE: u64 = 16;

/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(15);

pub(super) async fn take(
    State(state): State<Arc<ApiState>>,
    Extension(Peer(peer)): Extension<Peer>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response<Body> {
    let answer = match handle(&state, peer, &name, &headers, body).await {
        Ok(taken) => accepted(&taken),
        Err(problem) => problem.into_response(),
    };
    // Only names of the site become labels: others are the sender's to choose.
    let catalog = state.engine.catalog.get();
    let own = |sensor: &SensorDefinition| matches!(&sensor.kind, SensorKind::Webhook { name: own, .. } if *own == name);
    let label = if catalog.sensors.iter().any(own) { name.as_str() } else { "unknown" };
    state.engine.metrics.webhooks.with_label_values(&[label, answer.status().as_str()]).inc();
    answer
}

async fn handle(state: &ApiState, peer: std::net::SocketAddr, name: &str, headers: &HeaderMap, body: Body) -> Result<Taken, Problem> {
    let admitted = ingest::admit(&state.engine, state.open_webhooks.contains(name), name, peer, headers)?;
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()).and_then(|text| text.parse::<u64>().ok());
    // One that is only somewhat too large is read as far as it may be, so that its sender gets to see the answer.
    if length.is_some_and(|length| length > FAR_TOO_LARGE * state.body_bytes as u64) {
        return Err(Problem::too_large(state.body_bytes));
    }
    // Places of its own for every webhook: one whose senders dawdle or flood leaves the others theirs.
    let Some(_place) = state.webhook_places.take(name) else {
        return Err(Problem::overloaded("too many requests to this webhook at once; the site's `limits.webhook_concurrency` sets this"));
    };
    let body = read(body, state.body_bytes).await?;
    Ok(ingest::webhook(&state.engine, &*state.journal, admitted, headers, &body).await?)
}

/// Reads a body up to the limit.
pub(super) async fn read(body: Body, limit: usize) -> Result<Bytes, Problem> {
    let read = tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, limit).collect()).await.map_err(|_| Problem::too_slow())?;
    match read {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.downcast_ref::<LengthLimitError>().is_some() => Err(Problem::too_large(limit)),
        Err(error) => Err(Problem::invalid(format!("the body broke off: {error}"))),
    }
}

/// Reads a body as JSON of a known form.
pub(super) async fn read_json<T: DeserializeOwned>(body: Body, limit: usize) -> Result<T, Problem> {
    let body = read(body, limit).await?;
    let not_text = |error: std::str::Utf8Error| Problem::invalid(format!("the body is not UTF-8 at byte {}", error.valid_up_to()));
    let text = std::str::from_utf8(&body).map_err(not_text)?;
    check(text).map_err(Problem::invalid)?;
    serde_json::from_str(text).map_err(|error| Problem::invalid(describe(&error)))
}

/// The answer to a sender.
#[derive(Serialize)]
struct Answer<'t> {
    events: &'t [Accepted],
    #[serde(skip_serializing_if = "is_zero")]
    truncated: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn accepted(taken: &Taken) -> Response<Body> {
    (StatusCode::ACCEPTED, Json(Answer { events: &taken.events, truncated: taken.truncated })).into_response()
}
