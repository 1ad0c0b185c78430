//! The list of what there is, and who may use it.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{Response, StatusCode};
use axum::middleware::{self, Next};
use axum::response::IntoResponse;
use axum::routing::{get, post};

use super::problem::Problem;
use super::{ApiState, events, executions, keys, listing, reload, rules, sensors, store, stream, webhooks};
use crate::engine::ingest::bearer;

/// The router of everything that is served.
pub fn router(state: Arc<ApiState>) -> Router {
    let with_token = Router::new()
        .route("/metrics", get(metrics))
        .route("/api/v1/events", get(events::list).post(events::emit))
        .route("/api/v1/events/{id}", get(events::show))
        .route("/api/v1/events/{id}/why", get(events::why))
        .route("/api/v1/rules", get(rules::list))
        .route("/api/v1/rules/test", post(rules::test))
        .route("/api/v1/rules/{rule}", get(rules::show))
        .route("/api/v1/rules/{rule}/enable", post(rules::enable))
        .route("/api/v1/rules/{rule}/disable", post(rules::disable))
        .route("/api/v1/rules/{rule}/windows", get(rules::windows))
        .route("/api/v1/rules/{rule}/why/{event}", get(events::rule_why))
        .route("/api/v1/reload", post(reload::reload))
        .route("/api/v1/actions", get(listing::actions))
        .route("/api/v1/packs", get(listing::packs))
        .route("/api/v1/sensors", get(sensors::list))
        .route("/api/v1/sensors/{sensor}", get(sensors::show))
        .route("/api/v1/messages", get(listing::messages))
        .route("/api/v1/keys", get(keys::list))
        .route("/api/v1/keys/{name}", get(keys::show).put(keys::set).delete(keys::delete))
        .route("/api/v1/executions", get(executions::list).post(executions::request))
        .route("/api/v1/executions/{id}", get(executions::show))
        .route("/api/v1/executions/{id}/cancel", post(executions::cancel))
        .route("/api/v1/stream", get(stream::watch))
        .route("/api/v1/store/stat", get(store::stat))
        .route("/api/v1/store/check", post(store::check))
        .route("/api/v1/store/compact", post(store::compact))
        .route("/api/v1/store/backup", get(store::backup))
        .route_layer(middleware::from_fn_with_state(Arc::clone(&state), need_token));
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/api/v1/webhooks/{name}", post(webhooks::take))
        .merge(with_token)
        .fallback(|| async { Problem::not_found("there is nothing at this address") })
        .method_not_allowed_fallback(|| async { Problem::method_not_allowed() })
        .with_state(state)
}

/// Lets a request with a good token pass, and says whose it is.
async fn need_token(State(state): State<Arc<ApiState>>, mut request: Request, next: Next) -> Response<Body> {
    let given = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(bearer);
    match given.and_then(|token| state.tokens.principal(token)) {
        Some(principal) => {
            request.extensions_mut().insert(principal);
            next.run(request).await
        }
        None => {
            Problem::unauthorized("`Authorization: Bearer …` with a token is needed; the first one is in data/admin.token").into_response()
        }
    }
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
        Ok(()) => "ready\n".into_response(),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response(),
    }
}

async fn metrics(State(state): State<Arc<ApiState>>) -> Response<Body> {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], state.engine.metrics.text()).into_response()
}
