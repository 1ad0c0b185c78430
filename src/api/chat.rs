//! Talking with the bot, and the commands that it knows.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::on;
use serde::Deserialize;
use serde_json::{Value, json};

use super::ApiState;
use super::actions::parameter;
use super::executions::shown;
use super::problem::Problem;
use super::routes::{Route, get, post};
use super::webhooks::read_json;
use crate::auth::permission::Permission::{Operate, Read};
use crate::chat::conversation::OWN;
use crate::chat::grammar::PREFIX;
use crate::engine::converse::{Heard, Said, say};
use crate::engine::ingest::cause;
use crate::model::principal::Principal;

pub(super) const ROUTES: &[Route] = &[
    post("/api/v1/chat/{adapter}/messages", Operate, "Say a line to the bot, as if it were typed in chat", |m| on(m, hear))
        .takes("Said")
        .accepts("Heard")
        .or(&[404, 409, 422, 503]),
    get("/api/v1/aliases", Read, "The commands of chat, with the parameters of their actions", |m| on(m, aliases)).answers("AliasList"),
];

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    text: String,
    #[serde(default)]
    channel: Option<String>,
    #[serde(default)]
    key: Option<String>,
}

/// Hears a line, and answers with what the bot says and does at once.
pub(super) async fn hear(
    State(state): State<Arc<ApiState>>,
    Extension(principal): Extension<Principal>,
    Path(adapter): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let Line { text, channel, key } = read_json(body, state.body_bytes).await?;
    let said = Said { adapter, channel, key, text, by: principal, cause: cause(&headers) };
    let Heard { id, channel, heard, fine, duplicate, messages, executions } = say(&state.engine, said).await?;
    let executions: Vec<Value> = executions.iter().map(|execution| shown(&state.engine, execution)).collect();
    let answer = json!({
        "id": id, "channel": channel, "heard": heard, "fine": fine, "duplicate": duplicate, "messages": messages, "executions": executions,
    });
    Ok((StatusCode::ACCEPTED, Json(answer)))
}

/// The commands that there are.
pub(super) async fn aliases(State(state): State<Arc<ApiState>>) -> Json<Value> {
    let catalog = state.engine.catalog.get();
    let aliases = catalog.aliases.aliases().iter().map(|compiled| {
        let alias = &compiled.alias;
        let action = catalog.actions.get(&alias.action);
        json!({
            "ref": alias.reference, "description": alias.description, "enabled": alias.enabled, "action_ref": alias.action,
            "formats": alias.formats, "examples": alias.examples, "immutable_parameters": alias.immutable, "file": &*alias.place.file,
            "parameters": action.map_or_else(Vec::new, |action| action.parameters.iter().map(parameter).collect()),
        })
    });
    let own = OWN.iter().map(|(format, description)| json!({"format": format, "description": description}));
    Json(json!({"aliases": aliases.collect::<Vec<_>>(), "own": own.collect::<Vec<_>>(), "prefix": PREFIX}))
}
