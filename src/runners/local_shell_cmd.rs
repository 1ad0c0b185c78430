//! `local-shell-cmd`: a program of this machine. What it is given arrives as it is; nothing goes through a shell unless the action asks.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;

use super::command_line::{allowed, attempt, fits, parameter, parameters as common, positional_argument, program};
use super::{ActionCall, ActionRunner, RunContext, RunnerKind};
use crate::model::action::{Action, Parameter, ParameterType};
use crate::model::failure::Failure;
use crate::script::host::Surroundings;

/// The kind.
pub const KIND: RunnerKind = RunnerKind {
    name: "local-shell-cmd",
    summary: "runs the program `cmd` with `args`; through a shell only with `shell: true`",
    example: "name: uptime\nrunner_type: local-shell-cmd\nparameters:\n  cmd: {default: uptime, immutable: true}\n",
    script: None,
    parameters,
    check,
    places: |_| super::PROGRAMS_AT_ONCE,
    build: |surroundings, _| Arc::new(LocalShellCmd(Arc::clone(surroundings))),
};

struct LocalShellCmd(Arc<Surroundings>);

fn parameters() -> Vec<Parameter> {
    let own = [
        Parameter {
            required: true,
            ..parameter("cmd", ParameterType::String, "The program: a name, or a path; with `shell`, a command line")
        },
        parameter("args", ParameterType::Array, "Its first arguments"),
        parameter("shell", ParameterType::Boolean, "Whether `sh -c` runs `cmd`; the arguments are `$1`, `$2` and so on"),
    ];
    own.into_iter().chain(common()).collect()
}

fn check(action: &Action) -> Vec<(String, usize, usize)> {
    let parameter = |name: &str| action.parameters.iter().find(|parameter| parameter.name == name);
    let is_fixed = parameter("cmd").is_some_and(|cmd| cmd.immutable);
    let text = parameter("cmd").and_then(|cmd| cmd.default.as_ref()).and_then(Value::as_str).unwrap_or_default();
    let in_shell = parameter("shell").and_then(|shell| shell.default.as_ref()) == Some(&Value::Bool(true));
    if is_fixed && !in_shell && text.contains(char::is_whitespace) && !text.contains('/') {
        let (program, rest) = text.split_once(char::is_whitespace).unwrap_or_default();
        let message = format!(
            "`cmd` is one program, and there is none named `{text}`; write `cmd: {{default: {program}}}` with `args: {{default: [{}]}}`, or add `shell: {{default: true}}`",
            rest.split_whitespace().collect::<Vec<_>>().join(", ")
        );
        return vec![(message, 0, 0)];
    }
    Vec::new()
}

#[async_trait]
impl ActionRunner for LocalShellCmd {
    async fn run(&self, call: ActionCall, cx: RunContext) -> Result<Value, Failure> {
        let given = &call.execution.request.parameters;
        let cmd = given.get("cmd").and_then(Value::as_str).unwrap_or_default();
        let in_shell = given.get("shell") == Some(&Value::Bool(true));
        let name = if in_shell { "sh" } else { cmd };
        allowed(&call, name)?;
        let mut program = program(&self.0, &call, &parameters(), name)?;
        let mut arguments = Vec::new();
        if in_shell {
            arguments.extend(["-c".to_string(), fits("`cmd`", cmd.into())?, call.action.reference.clone()]);
        }
        for (index, argument) in given.get("args").and_then(Value::as_array).into_iter().flatten().enumerate() {
            arguments.push(fits(&format!("`args[{index}]`"), positional_argument(argument))?);
        }
        arguments.append(&mut program.arguments);
        program.arguments = arguments;
        attempt(&self.0, &cx, &program).await
    }
}
