//! Whether the process lives and does its work, and what it counts.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{Response, StatusCode};
use axum::response::IntoResponse;
use axum::routing::on;

use super::ApiState;
use super::routes::{Route, get};
use crate::auth::permission::Permission;

pub(super) const ROUTES: &[Route] = &[
    get("/healthz", Permission::Open, "Whether the process answers", |m| on(m, alive)).sends("text/plain"),
    get("/readyz", Permission::Open, "Whether it does its work; if not, 503 and what is missing", |m| on(m, ready)).sends("text/plain"),
    get("/metrics", Permission::Read, "Counts, for Prometheus", |m| on(m, metrics)).sends("text/plain"),
];

async fn alive() -> &'static str {
    "ok\n"
}

/// Whether this process does its work: 200, or 503 with what is missing.
async fn ready(State(state): State<Arc<ApiState>>) -> Response<Body> {
    if !state.engine.load.is_ready() {
        return (StatusCode::SERVICE_UNAVAILABLE, "starting: what was left open is being picked up\n").into_response();
    }
    if let Some(broken) = state.engine.load.broken() {
        return (StatusCode::SERVICE_UNAVAILABLE, format!("{broken}\n")).into_response();
    }
    match state.engine.store.health().await {
        Ok(()) => match state.engine.hold.get() {
            None => "ready\n".into_response(),
            Some(hold) => {
                format!("ready; automatic executions are held since {} by {}: {}\n", hold.since, hold.by, hold.reason).into_response()
            }
        },
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response(),
    }
}

async fn metrics(State(state): State<Arc<ApiState>>) -> Response<Body> {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], state.engine.metrics.text()).into_response()
}
