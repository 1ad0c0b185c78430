//! `POST /api/v1/webhooks/{name}`.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, Path, State};
use axum::http::{HeaderMap, Response, StatusCode};
use axum::response::IntoResponse;
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::Serialize;

use super::problem::Problem;
use super::{ApiState, Peer};
use crate::engine::ingest::{self, Taken};
use crate::model::event::Accepted;
use crate::model::sensor::{SensorDefinition, SensorKind};

/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

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
    let Ok(_place) = state.webhook_places.try_acquire() else {
        return Err(Problem::overloaded("too many requests to webhooks at once; the site's `limits.webhook_concurrency` sets this"));
    };
    let body = read(body, state.body_bytes).await?;
    let open = |name: &str| state.open_webhooks.contains(name);
    Ok(ingest::webhook(&state.engine, &*state.journal, &open, name, peer, headers, &body).await?)
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
