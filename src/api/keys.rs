//! The keys of the datastore, of every scope. What changes one can be made to depend on what it is: `If-Match` with the version of its
//! `ETag`, `If-None-Match: *` for a new one; whoever was slower is answered 412 and told what is there.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, Path, State};
use axum::http::header::{ETAG, IF_MATCH, IF_NONE_MATCH};
use axum::http::{HeaderMap, Response, Uri};
use axum::response::IntoResponse;
use axum::routing::on;
use serde::Deserialize;
use serde_json::{Value, json};

use super::ApiState;
use super::paging::{LIMIT, page_limit, query};
use super::problem::Problem;
use super::routes::Method::{Delete, Put};
use super::routes::{Parameter, Route, get, post, row};
use super::webhooks::read_json;
use crate::auth::permission::Permission::{Operate, Read};
use crate::engine::{RequestError, keys};
use crate::model::datastore::{Change, Changed, If, KeyEntry, KeyRequest, Scope};
use crate::model::duration;
use crate::model::principal::Principal;

const SCOPE: Parameter = Parameter { name: "scope", kind: "string", summary: "Whose keys: system unless said, a pack, or user:NAME" };

pub(super) const ROUTES: &[Route] = &[
    get("/api/v1/keys", Read, "The keys of a scope, by name", |m| on(m, list))
        .query(&[
            SCOPE,
            Parameter { name: "prefix", kind: "string", summary: "Only those whose names begin so" },
            LIMIT,
            Parameter { name: "after", kind: "string", summary: "Only those after this one" },
        ])
        .answers("KeyPage"),
    get("/api/v1/keys/{name}", Read, "A key with its value and version", |m| on(m, show)).query(&[SCOPE]).answers("Key").or(&[404]),
    row(Put, "/api/v1/keys/{name}", Operate, "Give a key a value", |m| on(m, set))
        .query(&[SCOPE])
        .takes("KeyValue")
        .answers("KeySet")
        .or(&[409, 412]),
    row(Delete, "/api/v1/keys/{name}", Operate, "Delete a key", |m| on(m, delete)).query(&[SCOPE]).answers("KeyDeleted").or(&[404, 412]),
    post("/api/v1/keys/{name}/increment", Operate, "Add to a key that is a whole number", |m| on(m, increment))
        .query(&[SCOPE])
        .takes("KeyIncrement")
        .answers("Key")
        .or(&[409]),
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyQuery {
    scope: Option<String>,
    prefix: Option<String>,
    limit: Option<usize>,
    after: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScopeQuery {
    scope: Option<String>,
}

fn scope(given: Option<&str>) -> Result<Scope, Problem> {
    given.map_or(Ok(Scope::System), |text| text.parse().map_err(|fault| Problem::field("scope", fault)))
}

fn scope_of(uri: &Uri) -> Result<Scope, Problem> {
    let ScopeQuery { scope: given } = query(uri)?;
    scope(given.as_deref())
}

fn shown(scope: &Scope, name: &str, entry: &KeyEntry) -> Value {
    let mut shown = json!(entry);
    shown["scope"] = json!(scope.to_string());
    shown["name"] = json!(name);
    shown
}

/// The answer with the version of the key.
fn tagged(entry: &KeyEntry, body: Value) -> Response<Body> {
    ([(ETAG, format!("\"{}\"", entry.version))], Json(body)).into_response()
}

async fn list(State(state): State<Arc<ApiState>>, uri: Uri) -> Result<Json<Value>, Problem> {
    let query: KeyQuery = query(&uri)?;
    let (scope, limit) = (scope(query.scope.as_deref())?, page_limit(query.limit)?);
    let prefix = query.prefix.unwrap_or_default();
    let (found, more) = keys::list(&state.engine, &scope, &prefix, query.after.as_deref(), limit).await?;
    let next = found.last().filter(|_| more).map(|(name, _)| name);
    let page: Vec<Value> = found.iter().map(|(name, entry)| shown(&scope, name, entry)).collect();
    Ok(Json(json!({"keys": page, "next": next})))
}

async fn show(State(state): State<Arc<ApiState>>, Path(name): Path<String>, uri: Uri) -> Result<Response<Body>, Problem> {
    let scope = scope_of(&uri)?;
    match keys::get(&state.engine, &scope, &name).await? {
        Some(entry) => Ok(tagged(&entry, shown(&scope, &name, &entry))),
        None => Err(keys::missing(&state.engine, &scope, &name).await.into()),
    }
}

/// The condition in the head of a request.
fn condition(headers: &HeaderMap) -> Result<If, Problem> {
    let text = |value: &axum::http::HeaderValue| value.to_str().unwrap_or_default().trim().to_string();
    match (headers.get(IF_MATCH).map(text), headers.get(IF_NONE_MATCH).map(text)) {
        (None, None) => Ok(If::Always),
        (None, Some(any)) if any == "*" => Ok(If::Absent),
        (Some(tag), None) => {
            let version = tag.trim_matches('"').parse();
            version.map(If::Version).map_err(|_| Problem::invalid("`If-Match` must be the version in the key's `ETag`, such as \"17\""))
        }
        _ => Err(Problem::invalid("a condition is `If-Match` with a version, or `If-None-Match: *`")),
    }
}

fn time(ttl: Option<String>) -> Result<Option<Duration>, Problem> {
    ttl.map(|text| duration::parse(&text)).transpose().map_err(|fault| Problem::field("ttl", fault))
}

/// Makes the change; of what lost against another one the problem tells what is there.
async fn change(state: &ApiState, request: KeyRequest) -> Result<(Option<KeyEntry>, Option<KeyEntry>), Problem> {
    let name = request.name.clone();
    let changed = keys::change(&state.engine, request).await.map_err(|error| match error {
        RequestError::Invalid(faults) => Problem::invalid(faults.join("; ")),
        error => error.into(),
    })?;
    match changed {
        Changed::Done { before, after } => Ok((before, after)),
        Changed::Lost { entry } => Err(Problem::precondition(match entry {
            Some(entry) => format!("key `{name}` has version {}, changed by {}", entry.version, entry.changed_by),
            None => format!("there is no key `{name}`"),
        })),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    value: Value,
    #[serde(default)]
    ttl: Option<String>,
}

async fn set(
    State(state): State<Arc<ApiState>>,
    Extension(principal): Extension<Principal>,
    Path(name): Path<String>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response<Body>, Problem> {
    let (scope, only) = (scope_of(&uri)?, condition(&headers)?);
    let Given { value, ttl } = read_json(body, state.body_bytes).await?;
    let by = principal.describe();
    let request =
        KeyRequest { scope: scope.clone(), name: name.clone(), change: Change::Set { value, ttl: time(ttl)? }, only, by, cause: None };
    let (before, after) = change(&state, request).await?;
    let entry = after.unwrap_or_else(|| KeyEntry::plain(Value::Null));
    let mut answer = shown(&scope, &name, &entry);
    answer["new"] = json!(before.is_none());
    Ok(tagged(&entry, answer))
}

async fn delete(
    State(state): State<Arc<ApiState>>,
    Extension(principal): Extension<Principal>,
    Path(name): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Json<Value>, Problem> {
    let (scope, only) = (scope_of(&uri)?, condition(&headers)?);
    let by = principal.describe();
    let request = KeyRequest { scope: scope.clone(), name: name.clone(), change: Change::Delete, only, by, cause: None };
    match change(&state, request).await? {
        (None, _) => Err(keys::missing(&state.engine, &scope, &name).await.into()),
        _ => Ok(Json(json!({"scope": scope.to_string(), "name": name, "deleted": true}))),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct More {
    #[serde(default = "one")]
    by: i64,
    #[serde(default)]
    ttl: Option<String>,
}

fn one() -> i64 {
    1
}

async fn increment(
    State(state): State<Arc<ApiState>>,
    Extension(principal): Extension<Principal>,
    Path(name): Path<String>,
    uri: Uri,
    body: Body,
) -> Result<Response<Body>, Problem> {
    let scope = scope_of(&uri)?;
    let More { by, ttl } = read_json(body, state.body_bytes).await?;
    let (change_by, only) = (Change::Increment { by, ttl: time(ttl)? }, If::Always);
    let request = KeyRequest { scope: scope.clone(), name: name.clone(), change: change_by, only, by: principal.describe(), cause: None };
    let (_, after) = change(&state, request).await?;
    let entry = after.unwrap_or_else(|| KeyEntry::plain(Value::Null));
    Ok(tagged(&entry, shown(&scope, &name, &entry)))
}
