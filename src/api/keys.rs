//! The keys of the datastore that rules see as `kv.system.NAME`.

use std::ops::Bound;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::Uri;
use axum::routing::on;
use serde::Deserialize;
use serde_json::{Value, json};

use super::ApiState;
use super::listing::{LIMIT, page_limit, query};
use super::problem::Problem;
use super::routes::Method::{Delete, Put};
use super::routes::{Parameter, Route, get, row};
use super::webhooks::read_json;
use crate::auth::permission::Permission::{Operate, Read};
use crate::engine::{keys, owned};

pub(super) const ROUTES: &[Route] = &[
    get("/api/v1/keys", Read, "The keys that rules see as `kv.system`, by name", |m| on(m, list))
        .query(&[LIMIT, Parameter { name: "after", kind: "string", summary: "Only those after this one" }])
        .answers("KeyPage"),
    get("/api/v1/keys/{name}", Read, "The value of a key", |m| on(m, show)).answers("Key").or(&[404]),
    row(Put, "/api/v1/keys/{name}", Operate, "Give a key a value", |m| on(m, set)).takes("KeyValue").answers("KeySet"),
    row(Delete, "/api/v1/keys/{name}", Operate, "Delete a key", |m| on(m, delete)).answers("KeyDeleted").or(&[404]),
];

/// A page with so many bytes of values takes no further key.
const PAGE_BYTES: usize = 1 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyQuery {
    limit: Option<usize>,
    after: Option<String>,
}

/// Keys by their names, after one of them.
pub(super) async fn list(State(state): State<Arc<ApiState>>, uri: Uri) -> Result<Json<Value>, Problem> {
    let query: KeyQuery = query(&uri)?;
    let limit = page_limit(query.limit)?;
    let known = state.engine.ruling.keys();
    let from = query.after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    let mut rest = known.range::<str, _>((from, Bound::Unbounded)).peekable();
    let (mut page, mut bytes, mut last) = (Vec::new(), 0, None);
    while page.len() < limit
        && bytes < PAGE_BYTES
        && let Some((name, value)) = rest.next()
    {
        bytes += value.to_string().len();
        page.push(json!({"name": name, "value": value}));
        last = Some(name);
    }
    let next = rest.peek().and(last);
    Ok(Json(json!({"keys": page, "next": next, "count": known.len()})))
}

pub(super) async fn show(State(state): State<Arc<ApiState>>, Path(name): Path<String>) -> Result<Json<Value>, Problem> {
    keys::check_name(&name).map_err(Problem::invalid)?;
    let value = keys::get(&state.engine, &name)?;
    Ok(Json(json!({"name": name, "value": value})))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    value: Value,
}

pub(super) async fn set(State(state): State<Arc<ApiState>>, Path(name): Path<String>, body: Body) -> Result<Json<Value>, Problem> {
    keys::check_name(&name).map_err(Problem::invalid)?;
    let Given { value } = read_json(body, state.body_bytes).await?;
    keys::check_value(&name, &value).map_err(Problem::invalid)?;
    let (engine, key, given) = (Arc::clone(&state.engine), name.clone(), value.clone());
    let is_new = owned(async move { keys::set(&engine, &key, given).await }).await??;
    Ok(Json(json!({"name": name, "value": value, "new": is_new})))
}

pub(super) async fn delete(State(state): State<Arc<ApiState>>, Path(name): Path<String>) -> Result<Json<Value>, Problem> {
    keys::check_name(&name).map_err(Problem::invalid)?;
    let (engine, key) = (Arc::clone(&state.engine), name.clone());
    owned(async move { keys::delete(&engine, &key).await }).await??;
    Ok(Json(json!({"name": name, "deleted": true})))
}
