//! The site as a whole: what runs here, and whether automatic executions are held.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, State};
use axum::routing::on;
use serde::Deserialize;
use serde_json::{Value, json};

use super::ApiState;
use super::problem::Problem;
use super::routes::{Route, get, post};
use super::webhooks::read_json;
use crate::auth::permission::Permission::{Operate, Read};
use crate::engine::{Engine, holding, owned};
use crate::model::principal::Principal;

pub(super) const ROUTES: &[Route] = &[
    get("/api/v1/site", Read, "What runs here: version, address, time zone, and whether automatic executions are held", |m| on(m, show))
        .answers("Site"),
    get("/api/v1/hold", Read, "Whether automatic executions are held, by whom and why", |m| on(m, standing)).answers("HoldState"),
    post("/api/v1/hold", Operate, "Hold automatic executions: what rules ask for is kept in order", |m| on(m, hold))
        .takes("NewHold")
        .answers("HoldState")
        .or(&[422]),
    post("/api/v1/release", Operate, "Let automatic executions go; what was held starts, in order", |m| on(m, release))
        .answers("HoldState"),
];

/// What a client must know of a site beside its address.
#[derive(Clone, Debug)]
pub struct SiteFacts {
    /// Where people reach it; links begin with it.
    pub public_url: String,
    /// The zone of the times that people see.
    pub time_zone: String,
}

async fn show(State(state): State<Arc<ApiState>>) -> Json<Value> {
    let engine = &state.engine;
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"), "public_url": state.facts.public_url, "time_zone": state.facts.time_zone,
        "now": engine.clock.now(), "hold": engine.hold.get().as_deref(), "open_executions": engine.load.open(),
    }))
}

/// The hold in force, as lists show it too.
pub(super) fn shown(engine: &Engine) -> Value {
    json!(engine.hold.get().as_deref())
}

async fn standing(State(state): State<Arc<ApiState>>) -> Json<Value> {
    Json(json!({"hold": shown(&state.engine), "changed": false}))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewHold {
    reason: String,
}

async fn hold(State(state): State<Arc<ApiState>>, Extension(by): Extension<Principal>, body: Body) -> Result<Json<Value>, Problem> {
    let NewHold { reason } = read_json(body, state.body_bytes).await?;
    let engine = Arc::clone(&state.engine);
    let changed = owned(async move { holding::hold(&engine, &by, &reason).await }).await??;
    Ok(Json(json!({"hold": shown(&state.engine), "changed": changed})))
}

async fn release(State(state): State<Arc<ApiState>>, Extension(by): Extension<Principal>) -> Result<Json<Value>, Problem> {
    let engine = Arc::clone(&state.engine);
    let was = owned(async move { holding::release(&engine, &by).await }).await??;
    Ok(Json(json!({"hold": shown(&state.engine), "changed": was.is_some(), "was": was.as_deref()})))
}
