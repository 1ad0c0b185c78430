//! `http-request`: one request, described by parameters.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Map, Value, json};

use super::{ActionCall, ActionRunner, Output, RunContext, RunError, RunnerKind};
use crate::model::action::{Action, Parameter, ParameterType};
use crate::model::failure::Failure;
use crate::model::json::RawJson;
use crate::model::reason::Reason;
use crate::outbound::{Outbound, send};
use crate::script::host::Surroundings;

const METHODS: &[&str] = &["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];

/// The kind.
pub const KIND: RunnerKind = RunnerKind {
    name: "http-request",
    summary: "sends one HTTP request; succeeds on 200 to 299 unless `expect` says otherwise",
    example: "name: ping\nrunner_type: http-request\nparameters:\n  url: {default: \"http://127.0.0.1:9/\", immutable: true}\n",
    needs_script: false,
    parameters,
    check: |_: &Action| Vec::new(),
    build: |surroundings, _| Arc::new(HttpRequest(Arc::clone(surroundings))),
};

struct HttpRequest(Arc<Surroundings>);

fn parameters() -> Vec<Parameter> {
    let parameter = |name: &str, kind, description: &str| Parameter {
        kind,
        description: description.into(),
        required: name == "url",
        ..Parameter::named(name)
    };
    let mut method = parameter("method", Some(ParameterType::String), "The method");
    method.default = Some(json!("GET"));
    method.choices = METHODS.iter().map(|name| json!(name)).collect();
    vec![
        parameter("url", Some(ParameterType::String), "The address"),
        method,
        parameter("headers", Some(ParameterType::Object), "Headers"),
        parameter("query", Some(ParameterType::Object), "Added to the address"),
        parameter("body", None, "The body: text as it is, anything else as JSON"),
        parameter("expect", Some(ParameterType::Array), "The statuses that are no error"),
    ]
}

#[async_trait]
impl ActionRunner for HttpRequest {
    async fn run(&self, call: ActionCall, cx: RunContext) -> Result<Output, RunError> {
        let failed = |fault: Failure| RunError { reason: fault.reason, message: fault.message, retry: fault.retry, log: Vec::new() };
        let deadline = cx.begin(self.0.clock.now());
        let request = outbound(&call).map_err(failed)?;
        let reply = tokio::select! {
            reply = send(&*self.0.http, &call.pack, request) => reply.map_err(failed)?,
            () = cx.stop.stopped() => return Err(ended(Reason::Canceled, "the request was stopped", false)),
            () = self.0.clock.sleep_until(deadline) => return Err(ended(Reason::TimedOut, "the request took longer than the action's `timeout`", true)),
        };
        let text = reply.text();
        let body = RawJson::parse(&text).and_then(|raw| raw.value()).unwrap_or(Value::String(text));
        let result = json!({"status_code": reply.status, "headers": reply.headers, "body": body});
        if result.to_string().len() > crate::script::host::MAX_RESULT_BYTES {
            return Err(ended(Reason::OutputTooLarge, "the reply is larger than a result may be", false));
        }
        Ok(Output { result, log: Vec::new() })
    }
}

fn ended(reason: Reason, message: &str, retry: bool) -> RunError {
    RunError { reason, message: message.into(), retry, log: Vec::new() }
}

fn outbound(call: &ActionCall) -> Result<Outbound, Failure> {
    let parameters = &call.execution.request.parameters;
    let text = |name: &str| parameters.get(name).and_then(Value::as_str).unwrap_or_default();
    let method =
        METHODS.iter().find(|method| **method == text("method")).ok_or_else(|| Failure::misuse("`method` is not one that is known"))?;
    let mut outbound = Outbound::new(method, text("url"), call.execution.id, call.execution.request.depth);
    outbound.masks = call.masks();
    let object = |name: &str| parameters.get(name).and_then(Value::as_object).cloned().unwrap_or_else(Map::new);
    outbound.headers = object("headers");
    outbound.query = object("query");
    match parameters.get("body") {
        None | Some(Value::Null) => {}
        Some(Value::String(text)) => outbound.body = Some(text.clone().into_bytes()),
        Some(value) => outbound.set_json(value),
    }
    if let Some(Value::Array(statuses)) = parameters.get("expect") {
        outbound.expect = statuses.iter().filter_map(Value::as_u64).filter_map(|status| u16::try_from(status).ok()).collect();
    }
    if *method != "GET" && *method != "HEAD" {
        outbound.number = Some(0);
    }
    Ok(outbound)
}
