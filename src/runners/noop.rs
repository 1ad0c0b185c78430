//! `noop`: does nothing and returns its parameters. For trying out rules.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;

use super::{ActionCall, ActionRunner, RunContext, RunnerKind};
use crate::model::failure::Failure;

/// The kind.
pub const KIND: RunnerKind = RunnerKind {
    name: "noop",
    summary: "does nothing and returns its parameters",
    example: "name: noop\nrunner_type: noop\nparameters:\n  text: {type: string}\n",
    script: None,
    parameters: Vec::new,
    check: |_| Vec::new(),
    places: |_| super::ATTEMPTS_AT_ONCE,
    build: |_, _| Arc::new(Noop),
};

struct Noop;

#[async_trait]
impl ActionRunner for Noop {
    async fn run(&self, call: ActionCall, _cx: RunContext) -> Result<Value, Failure> {
        Ok(Value::Object(call.execution.request.parameters.clone()))
    }
}
