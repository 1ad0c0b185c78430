//! Tokens: who may use the API. A token is shown once, when it is made.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, Path, State};
use axum::routing::on;
use serde::Deserialize;
use serde_json::{Value, json};

use super::ApiState;
use super::problem::Problem;
use super::routes::Method::Delete;
use super::routes::{Route, get, post, row};
use super::webhooks::read_json;
use crate::auth::Role;
use crate::auth::permission::Permission::Admin;
use crate::engine::owned;
use crate::model::duration;
use crate::model::principal::Principal;

pub(super) const ROUTES: &[Route] = &[
    get("/api/v1/tokens", Admin, "The tokens: names, roles, when they were used", |m| on(m, list)).answers("TokenPage"),
    post("/api/v1/tokens", Admin, "Make a token; the answer shows it this once", |m| on(m, create)).takes("NewToken").answers("Token"),
    row(Delete, "/api/v1/tokens/{name}", Admin, "Take a token out of use", |m| on(m, revoke)).answers("TokenRevoked").or(&[404]),
];

async fn list(State(state): State<Arc<ApiState>>) -> Json<Value> {
    Json(json!({"tokens": state.tokens.list()}))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    name: String,
    role: Role,
    #[serde(default)]
    expires: Option<String>,
}

async fn create(
    State(state): State<Arc<ApiState>>,
    Extension(principal): Extension<Principal>,
    body: Body,
) -> Result<Json<Value>, Problem> {
    let Wanted { name, role, expires } = read_json(body, state.body_bytes).await?;
    let expires = expires.map(|text| duration::parse(&text)).transpose().map_err(|fault| Problem::field("expires", fault))?;
    let (tokens, made, by) = (Arc::clone(&state.tokens), name.clone(), principal.describe());
    let token = owned(async move { tokens.create(&made, role, expires, &by).await }).await??;
    Ok(Json(json!({"name": name, "role": role, "token": token.reveal()})))
}

async fn revoke(
    State(state): State<Arc<ApiState>>,
    Extension(principal): Extension<Principal>,
    Path(name): Path<String>,
) -> Result<Json<Value>, Problem> {
    let (tokens, revoked, by) = (Arc::clone(&state.tokens), name.clone(), principal.describe());
    owned(async move { tokens.revoke(&revoked, &by).await }).await??;
    Ok(Json(json!({"name": name, "revoked": true})))
}
