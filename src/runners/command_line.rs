//! What the runners of programs share: how parameters become arguments and environment, and how the end of a program becomes a result.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{ActionCall, RunContext};
use crate::model::action::{Parameter, ParameterType};
use crate::model::failure::Failure;
use crate::model::json::RawJson;
use crate::model::reason::Reason;
use crate::process::{self, Bounds, End, Finished, MAX_ARGUMENT_BYTES, Program};
use crate::script::host::{MAX_RESULT_BYTES, Surroundings};
use crate::template::text::plain;

/// Lines of the error output that a failure shows.
const SHOWN_LINES: usize = 10;

/// The parameters that every runner of programs has.
pub(super) fn parameters() -> Vec<Parameter> {
    vec![
        parameter("cwd", ParameterType::String, "Where it runs; relative to the pack's folder, which it is unless given"),
        parameter("env", ParameterType::Object, "Added to the environment"),
        parameter("stdin", ParameterType::String, "What it reads from its standard input"),
        Parameter {
            default: Some(json!("--")),
            ..parameter("kwarg_op", ParameterType::String, "What stands before the name of an argument that has one")
        },
    ]
}

/// A parameter of a runner.
pub(super) fn parameter(name: &str, kind: ParameterType, description: &str) -> Parameter {
    Parameter { kind: Some(kind), description: description.into(), ..Parameter::named(name) }
}

/// Refuses a program that the pack's capabilities do not name.
pub(super) fn allowed(call: &ActionCall, program: &str) -> Result<(), Failure> {
    let pack = &call.pack;
    if pack.capabilities.process.iter().any(|named| named == program) {
        return Ok(());
    }
    Err(Failure::capability(&pack.reference, &format!("run `{program}`"), &format!("process: [{}]", json!(program))))
}

/// The program of a call, with everything but the first arguments: those that follow from the action's own parameters, the folder, the
/// environment and the input. `own` are the parameters of the runner, which are no arguments.
pub(super) fn program(surroundings: &Surroundings, call: &ActionCall, own: &[Parameter], name: &str) -> Result<Program, Failure> {
    let given = &call.execution.request.parameters;
    let text = |name: &str| given.get(name).and_then(Value::as_str).unwrap_or_default();
    Ok(Program {
        name: name.to_string(),
        arguments: arguments(call, own, text("kwarg_op"))?,
        folder: call.pack.folder.join(text("cwd")),
        environment: environment(surroundings, call, given.get("env").and_then(Value::as_object)),
        input: text("stdin").as_bytes().to_vec(),
    })
}

/// Named arguments, then positional ones in the order of their positions.
fn arguments(call: &ActionCall, own: &[Parameter], kwarg_op: &str) -> Result<Vec<String>, Failure> {
    let declared = call.action.parameters.iter().filter(|parameter| !own.iter().any(|own| own.name == parameter.name));
    let (mut positional, named): (Vec<&Parameter>, Vec<&Parameter>) = declared.partition(|parameter| parameter.position.is_some());
    positional.sort_by_key(|parameter| parameter.position);
    let given = &call.execution.request.parameters;
    let named = named
        .into_iter()
        .filter_map(|parameter| Some((parameter, named_argument(kwarg_op, &parameter.name, given.get(&parameter.name)?)?)));
    let positional =
        positional.into_iter().map(|parameter| (parameter, given.get(&parameter.name).map(positional_argument).unwrap_or_default()));
    named.chain(positional).map(|(parameter, text)| fits(&format!("parameter `{}`", parameter.name), text)).collect()
}

/// An argument that the system takes.
pub(super) fn fits(what: &str, text: String) -> Result<String, Failure> {
    let refused = |message| Err(Failure { reason: Reason::NotStarted, message, retry: false });
    if text.len() >= MAX_ARGUMENT_BYTES {
        return refused(format!(
            "{what} has {} bytes, and one argument of a program has fewer than {MAX_ARGUMENT_BYTES}: give it through `stdin` or a file",
            text.len()
        ));
    }
    if text.contains('\0') { refused(format!("{what} holds a NUL, which no argument can")) } else { Ok(text) }
}

/// `--name=value`; a true boolean is the name alone, and what is false, null or empty is left out.
fn named_argument(kwarg_op: &str, name: &str, value: &Value) -> Option<String> {
    match value {
        Value::Null | Value::Bool(false) => None,
        Value::Bool(true) => Some(format!("{kwarg_op}{name}")),
        Value::String(text) if text.is_empty() => None,
        value => Some(format!("{kwarg_op}{name}={}", positional_argument(value))),
    }
}

/// Text as it is, booleans as 1 and 0, arrays joined by commas, objects as JSON.
pub(super) fn positional_argument(value: &Value) -> String {
    match value {
        Value::Bool(true) => "1".into(),
        Value::Bool(false) => "0".into(),
        Value::Null => String::new(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(","),
        value => plain(value),
    }
}

/// What the program is told about its execution, the pack's settings, and what the action adds.
pub(super) fn environment(surroundings: &Surroundings, call: &ActionCall, added: Option<&Map<String, Value>>) -> BTreeMap<String, String> {
    let mut environment = BTreeMap::from(
        [
            ("LANG", "C.UTF-8"),
            ("SIGNALMAN_PACK", &call.pack.reference),
            ("SIGNALMAN_ACTION", &call.action.reference),
            ("SIGNALMAN_EXECUTION", &call.execution.id.to_string()),
            ("SIGNALMAN_ATTEMPT", &call.execution.state.attempt.to_string()),
            ("SIGNALMAN_API_URL", &surroundings.api_url),
        ]
        .map(|(name, value)| (name.to_string(), value.to_string())),
    );
    for (name, value) in call.pack.config.iter().filter(|(_, value)| !value.is_null()) {
        environment.insert(format!("SIGNALMAN_CONFIG_{}", name.to_uppercase()), plain(value));
    }
    for (name, value) in added.into_iter().flatten() {
        environment.insert(name.clone(), plain(value));
    }
    environment
}

/// Runs the program and makes the result of how it ended.
pub(super) async fn attempt(surroundings: &Surroundings, cx: &RunContext, program: &Program) -> Result<Value, Failure> {
    let (clock, _errand) = (&*surroundings.clock, surroundings.errands.begin());
    let bounds = Bounds { clock, deadline: cx.begin(clock.now()), stop: &cx.stop };
    let finished = process::run(program, bounds, &|channel, bytes| cx.log.text(channel.name(), bytes)).await?;
    cx.log.flush();
    if finished.left_behind {
        cx.log.line("warn", "it left processes behind that held its output; they were ended");
    }
    let result = result(&finished);
    let Some(failure) = failure(&program.name, &finished) else { return Ok(result) };
    cx.leave(result);
    Err(failure)
}

/// Why it failed, if it did.
fn failure(name: &str, finished: &Finished) -> Option<Failure> {
    let (reason, mut message, retry) = match finished.end {
        End::Exited(0) => return None,
        End::Exited(code) => (Reason::ActionFailed, format!("`{name}` ended with code {code}"), true),
        End::Signal(signal) => (Reason::ActionFailed, format!("`{name}` was ended by signal {signal}"), true),
        End::Late => (Reason::TimedOut, format!("`{name}` ran longer than the action's `timeout` and was ended"), true),
        End::Stopped => (Reason::Canceled, format!("`{name}` was ended"), false),
    };
    if finished.is_stuck {
        message.push_str("; it hangs in the system and could not be killed");
    }
    let said = finished.stderr.last_lines(SHOWN_LINES);
    if !said.is_empty() {
        message.push_str(":\n");
        message.push_str(&said);
    }
    Some(Failure { reason, message, retry })
}

/// `return_code`, `stdout`, `stderr`, `succeeded`, `failed`; what was written is cut in its middle until all of it fits a result.
fn result(finished: &Finished) -> Value {
    let code = match finished.end {
        End::Exited(code) => code,
        End::Signal(signal) => 128 + signal,
        End::Late | End::Stopped => -9,
    };
    let mut most = 2 * process::KEPT_BYTES;
    loop {
        let stdout = finished.stdout.text(most);
        let stdout = if finished.stdout.is_whole() { parsed(stdout) } else { Value::String(stdout) };
        let succeeded = finished.end == End::Exited(0);
        let result = json!({"return_code": code, "stdout": stdout, "stderr": finished.stderr.text(most), "succeeded": succeeded, "failed": !succeeded});
        // Control characters take six bytes each as JSON.
        if most <= 1_024 || result.to_string().len() < MAX_RESULT_BYTES {
            return result;
        }
        most /= 2;
    }
}

/// As JSON, if it is; a number whose digits would change is text, so that a version such as 1.10 stays what it is.
fn parsed(text: String) -> Value {
    match RawJson::parse(&text).and_then(|raw| raw.value()) {
        Ok(Value::Number(number)) if number.to_string() != text.trim() => Value::String(text),
        Ok(value) => value,
        Err(_) => Value::String(text),
    }
}

/// The action's script, relative to the folder of its pack.
pub(super) fn script_in_pack(call: &ActionCall) -> String {
    let file = call.action.script.as_ref().map(|script| script.file.as_str()).unwrap_or_default();
    file.strip_prefix(&format!("packs/{}/", call.pack.reference)).unwrap_or(file).to_string()
}
