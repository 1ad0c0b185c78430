//! Actions: what can be done, and how to ask for it.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::routing::on;
use serde_json::{Value, json};

use super::ApiState;
use super::problem::Problem;
use super::routes::{Route, get};
use crate::auth::permission::Permission::Read;
use crate::model::action::{Action, Parameter, ParameterType};
use crate::model::duration;
use crate::model::pack::{Capabilities, KvAccess};
use crate::model::secret::MASK;

pub(super) const ROUTES: &[Route] = &[
    get("/api/v1/actions", Read, "What can be done", |m| on(m, list)).answers("ActionList"),
    get("/api/v1/actions/{ref}", Read, "One action: parameters, runner, what its pack may touch, and an example call", |m| on(m, show))
        .answers("Action")
        .or(&[404]),
];

async fn list(State(state): State<Arc<ApiState>>) -> Json<Value> {
    let catalog = state.engine.catalog.get();
    let actions: Vec<Value> = catalog.actions.values().map(|action| brief(action)).collect();
    Json(json!({"actions": actions}))
}

async fn show(State(state): State<Arc<ApiState>>, Path(name): Path<String>) -> Result<Json<Value>, Problem> {
    let catalog = state.engine.catalog.get();
    let action = catalog.actions.get(&name).ok_or_else(|| Problem::not_found(catalog.no_action(&name)))?;
    let mut shown = brief(action);
    shown["pack"] = action.pack().into();
    shown["timeout"] = duration::format(action.timeout).into();
    shown["retry"] = json!(action.retry);
    shown["capabilities"] = catalog.packs.get(action.pack()).map_or(Value::Null, |pack| capabilities(&pack.capabilities));
    shown["example"] = example(action).into();
    Ok(Json(shown))
}

fn brief(action: &Action) -> Value {
    json!({
        "ref": action.reference, "description": action.description, "enabled": action.enabled, "runner_type": action.runner,
        "parameters": action.parameters.iter().map(parameter).collect::<Vec<_>>(), "idempotent": action.idempotent,
        "revision": action.revision, "file": &*action.place.file,
    })
}

/// A parameter as its author wrote it; what is secret is masked.
pub(super) fn parameter(parameter: &Parameter) -> Value {
    let default = if parameter.secret { parameter.default.as_ref().map(|_| json!(MASK)) } else { parameter.default.clone() };
    json!({
        "name": parameter.name, "type": parameter.kind, "description": parameter.description, "required": parameter.required,
        "default": default, "choices": parameter.choices, "minimum": parameter.minimum, "maximum": parameter.maximum,
        "position": parameter.position, "immutable": parameter.immutable, "secret": parameter.secret,
    })
}

fn capabilities(may: &Capabilities) -> Value {
    let kv = match may.kv {
        KvAccess::None => "none",
        KvAccess::Read => "read",
        KvAccess::ReadWrite => "read_write",
    };
    json!({"http": may.http, "kv": kv, "kv_read": may.kv_read, "chat": may.chat})
}

/// A command line that calls the action: with what it needs, else with the first parameter that a caller may set.
fn example(action: &Action) -> String {
    let open: Vec<&Parameter> = action.parameters.iter().filter(|parameter| !parameter.immutable).collect();
    let needed = |parameter: &&Parameter| parameter.required && parameter.default.is_none();
    let mut given: Vec<&Parameter> = open.iter().copied().filter(needed).collect();
    if given.is_empty() {
        given.extend(open.first());
    }
    let mut words = vec![format!("signalman run {}", action.reference)];
    words.extend(given.into_iter().map(argument));
    words.join(" ")
}

fn argument(parameter: &Parameter) -> String {
    let value = parameter.default.as_ref().filter(|_| !parameter.secret).or(parameter.choices.first()).cloned();
    let value = value.unwrap_or_else(|| match parameter.kind {
        Some(ParameterType::Integer | ParameterType::Number) => {
            json!(parameter.minimum.filter(|least| least.fract() == 0.0).unwrap_or(1.0).trunc())
        }
        Some(ParameterType::Boolean) => json!(true),
        Some(ParameterType::Array) => json!([]),
        Some(ParameterType::Object) => json!({}),
        Some(ParameterType::String) | None => json!(parameter.name.to_uppercase()),
    });
    match value {
        Value::String(text) => format!("{}={}", parameter.name, quoted(&text)),
        // A whole number is written as one, whatever it was kept as.
        Value::Number(number) if number.as_f64().is_some_and(|number| number.fract() == 0.0) => {
            format!("{}={:.0}", parameter.name, number.as_f64().unwrap_or_default())
        }
        value => format!("{}:={}", parameter.name, quoted(&value.to_string())),
    }
}

/// A word as a shell takes it.
fn quoted(text: &str) -> String {
    let plain = !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || "_-./:@%+,".contains(c));
    if plain { text.to_string() } else { format!("'{}'", text.replace('\'', "'\\''")) }
}
