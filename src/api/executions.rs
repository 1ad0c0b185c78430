//! Executions. Secret parameters are masked wherever they are shown.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, Path, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::routing::on;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::paging::{BEFORE, Entry, LIMIT, PageQuery, SINCE, execution_id, size};
use super::problem::Problem;
use super::routes::{Parameter, Route, get, post};
use super::webhooks::read_json;
use super::{ApiState, site};
use crate::auth::permission::Permission::{Operate, Read};
use crate::document::fault::nearest;
use crate::engine::ingest::cause;
use crate::engine::{Engine, owned, plan};
use crate::model::action::masked;
use crate::model::execution::{Execution, Status};
use crate::model::ids::ExecutionId;
use crate::model::principal::Principal;

const STATUS: Parameter = Parameter { name: "status", kind: "string", summary: "Only of this status" };
const ACTION: Parameter = Parameter { name: "action", kind: "string", summary: "Only of this action" };
const RULE: Parameter = Parameter { name: "rule", kind: "string", summary: "Only those that this rule asked for" };

pub(super) const ROUTES: &[Route] = &[
    get("/api/v1/executions", Read, "The newest executions", |m| on(m, list))
        .query(&[LIMIT, BEFORE, SINCE, STATUS, ACTION, RULE])
        .answers("ExecutionPage"),
    post("/api/v1/executions", Operate, "Run an action", |m| on(m, request))
        .takes("NewExecution")
        .accepts("Execution")
        .or(&[404, 409, 422]),
    get("/api/v1/executions/{id}", Read, "One execution", |m| on(m, show)).answers("Execution").or(&[404]),
    post("/api/v1/executions/{id}/rerun", Operate, "Run it again, as an execution of its own", |m| on(m, rerun))
        .takes("Rerun")
        .accepts("Execution")
        .or(&[404, 409, 422]),
    post("/api/v1/actions/{action}/plan", Operate, "What an action would do, by its own account; nothing is changed", |m| on(m, plan))
        .takes("PlanRequest")
        .answers("Plan")
        .or(&[404, 409, 422]),
    post("/api/v1/executions/{id}/cancel", Operate, "Stop an execution", |m| on(m, cancel)).accepts("Execution").or(&[404, 409]),
];

impl Entry for Execution {
    type Id = ExecutionId;

    fn id(&self) -> ExecutionId {
        self.id
    }

    fn made_at_ms(&self) -> u64 {
        self.id.timestamp_ms()
    }

    fn weight(&self) -> usize {
        let parameters: usize = self.request.parameters.values().map(size).sum();
        let log: usize = self.state.log.iter().map(|line| line.text.len() + 60).sum();
        let result = self.state.result.as_ref().map_or(0, size);
        600 + parameters + result + log + self.state.error.as_ref().map_or(0, String::len)
    }
}

/// An execution as it may be shown.
pub(super) fn shown(engine: &Engine, execution: &Execution) -> Value {
    let mut value = json!(execution);
    if let Some(action) = engine.catalog.get().actions.get(&execution.request.action) {
        value["parameters"] = Value::Object(masked(&action.parameters, &execution.request.parameters));
    }
    value
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Requested {
    action: String,
    #[serde(default)]
    parameters: Map<String, Value>,
}

pub(super) async fn request(
    State(state): State<Arc<ApiState>>,
    Extension(principal): Extension<Principal>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let requested: Requested = read_json(body, state.body_bytes).await?;
    let (engine, cause) = (Arc::clone(&state.engine), cause(&headers));
    let asked = owned(async move { engine.request(&requested.action, &requested.parameters, principal, cause).await });
    let execution = asked.await??;
    Ok((StatusCode::ACCEPTED, Json(shown(&state.engine, &execution))))
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Rerun {
    parameters: Map<String, Value>,
}

async fn rerun(
    State(state): State<Arc<ApiState>>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let id = execution_id(&state, &id).await?;
    let Rerun { parameters } = read_json(body, state.body_bytes).await?;
    let (engine, cause) = (Arc::clone(&state.engine), cause(&headers));
    let execution = owned(async move { engine.rerun(id, parameters, principal, cause).await }).await??;
    Ok((StatusCode::ACCEPTED, Json(shown(&state.engine, &execution))))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Planned {
    #[serde(default)]
    parameters: Map<String, Value>,
}

pub(super) async fn plan(
    State(state): State<Arc<ApiState>>,
    Extension(principal): Extension<Principal>,
    Path(action): Path<String>,
    body: Body,
) -> Result<Json<Value>, Problem> {
    let planned: Planned = read_json(body, state.body_bytes).await?;
    Ok(Json(plan::plan(&state.engine, &action, &planned.parameters, principal).await?))
}

pub(super) async fn list(State(state): State<Arc<ApiState>>, uri: Uri) -> Result<Json<Value>, Problem> {
    let query = PageQuery::of(&uri)?;
    if let Some(status) = query.status.as_ref().filter(|status| !Status::ALL.iter().any(|known| known.name() == status.as_str())) {
        let known: Vec<&str> = Status::ALL.iter().map(|status| status.name()).collect();
        let hint = nearest(status, known.iter().copied()).map(|nearest| format!("did you mean `{nearest}`? ")).unwrap_or_default();
        return Err(Problem::field("status", format!("there is no status `{status}`; {hint}known are {}", known.join(", "))));
    }
    let asked_by = |execution: &Execution, rule: &String| matches!(&execution.request.requested_by, Principal::Rule(by) if by == rule);
    let wanted = |execution: &Execution| {
        query.status.as_ref().is_none_or(|status| execution.state.status.name() == status)
            && query.action.as_ref().is_none_or(|action| execution.request.action == *action)
            && query.rule.as_ref().is_none_or(|rule| asked_by(execution, rule))
    };
    let (executions, next) = query.collect(state.engine.clock.now(), |page| state.engine.store.executions(page), wanted).await?;
    let shown: Vec<Value> = executions.iter().map(|execution| shown(&state.engine, execution)).collect();
    Ok(Json(json!({"executions": shown, "next": next, "hold": site::shown(&state.engine)})))
}

pub(super) async fn show(State(state): State<Arc<ApiState>>, Path(id): Path<String>) -> Result<Json<Value>, Problem> {
    let id = execution_id(&state, &id).await?;
    let execution = state.engine.store.execution(id).await?;
    execution
        .map(|execution| Json(shown(&state.engine, &execution)))
        .ok_or_else(|| Problem::not_found(format!("there is no execution {id}")))
}

pub(super) async fn cancel(
    State(state): State<Arc<ApiState>>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<String>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let id = execution_id(&state, &id).await?;
    let execution = state.engine.cancel(id, principal).await?;
    Ok((StatusCode::ACCEPTED, Json(shown(&state.engine, &execution))))
}
