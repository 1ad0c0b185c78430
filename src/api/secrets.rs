//! Secrets: what there is, and how one gets a value. No address answers with a value.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, Path, State};
use axum::http::Uri;
use axum::routing::on;
use serde::Deserialize;
use serde_json::{Value, json};

use super::ApiState;
use super::paging::query;
use super::problem::Problem;
use super::routes::Method::{Delete, Put};
use super::routes::{Parameter, Route, get, post, row};
use super::webhooks::read_json;
use crate::auth::permission::Permission::Admin;
use crate::engine::owned;
use crate::model::principal::Principal;
use crate::model::secret::Secret;

pub(super) const ROUTES: &[Route] = &[
    get("/api/v1/secrets", Admin, "The names of secrets, who set them when, and where the site names them", |m| on(m, list))
        .answers("SecretPage"),
    row(Put, "/api/v1/secrets/{name}", Admin, "Give a secret a value; what names it is read again", |m| on(m, set))
        .takes("SecretValue")
        .answers("SecretSet"),
    row(Delete, "/api/v1/secrets/{name}", Admin, "Delete a secret that nothing names", |m| on(m, delete))
        .query(&[Parameter { name: "force", kind: "boolean", summary: "Also if a file of the site names it" }])
        .answers("SecretDeleted")
        .or(&[404, 409]),
    post("/api/v1/secret-key/rotate", Admin, "Seal all secrets anew under a new key", |m| on(m, rotate))
        .takes("SecretRotation")
        .answers("SecretRotated")
        .or(&[409]),
];

async fn list(State(state): State<Arc<ApiState>>) -> Result<Json<Value>, Problem> {
    let engine = &state.engine;
    let (found, wanted) = (engine.secrets.list(&*engine.store).await?, state.reload.wanted_secrets());
    let shown = found.iter().map(|about| {
        let mut shown = json!(about);
        shown["used_in"] = json!(wanted.get(&about.name).cloned().unwrap_or_default());
        shown
    });
    Ok(Json(json!({"secrets": shown.collect::<Vec<_>>()})))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    value: String,
}

async fn set(
    State(state): State<Arc<ApiState>>,
    Extension(principal): Extension<Principal>,
    Path(name): Path<String>,
    body: Body,
) -> Result<Json<Value>, Problem> {
    let Given { value } = read_json(body, state.body_bytes).await?;
    let (value, by) = (Secret::new(value), principal.describe());
    let answer = owned(async move {
        let engine = &state.engine;
        let about = engine.secrets.set(&*engine.store, &name, &value, &by, engine.clock.now()).await?;
        let mut answer = json!(about);
        if state.reload.wanted_secrets().contains_key(&name) {
            match state.reload.reload().await {
                Ok(reloaded) => answer["reloaded"] = json!(reloaded),
                Err(error) => answer["fault"] = json!(error.to_string()),
            }
        }
        Ok::<_, Problem>(answer)
    });
    Ok(Json(answer.await??))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DeleteQuery {
    #[serde(default)]
    force: bool,
}

async fn delete(
    State(state): State<Arc<ApiState>>,
    Extension(principal): Extension<Principal>,
    Path(name): Path<String>,
    uri: Uri,
) -> Result<Json<Value>, Problem> {
    let DeleteQuery { force } = query(&uri)?;
    if let Some(places) = state.reload.wanted_secrets().get(&name).filter(|_| !force) {
        let places: Vec<&str> = places.iter().map(String::as_str).collect();
        return Err(Problem::busy(format!("secret `{name}` is named in {}; take it out there first, or use force", places.join(", "))));
    }
    let (engine, by, secret) = (Arc::clone(&state.engine), principal.describe(), name.clone());
    owned(async move { engine.secrets.delete(&*engine.store, &secret, &by).await }).await??;
    Ok(Json(json!({"name": name, "deleted": true})))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rotation {
    #[serde(default)]
    forget: bool,
}

async fn rotate(
    State(state): State<Arc<ApiState>>,
    Extension(principal): Extension<Principal>,
    body: Body,
) -> Result<Json<Value>, Problem> {
    let Rotation { forget } = read_json(body, state.body_bytes).await?;
    let (engine, by) = (Arc::clone(&state.engine), principal.describe());
    let rotated = owned(async move { engine.secrets.rotate(&*engine.store, forget, &by, engine.clock.now()).await });
    let (count, key) = rotated.await??;
    Ok(Json(json!({"secrets": count, "key": key, "forgotten": forget})))
}
