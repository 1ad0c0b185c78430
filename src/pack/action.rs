//! Actions: the metadata file and the script beside it.

use std::path::Path;
use std::sync::Arc;

use super::files::{read_text, relative, stem};
use super::kinds::{Kind, PackFile, Reading};
use super::manifest::is_name;
use crate::document::fault::SourceFile;
use crate::document::fields::{Faults, Fields, did_you_mean};
use crate::document::node::{Key, Node};
use crate::model::action::{Action, DEFAULT_TIMEOUT, MAX_TIMEOUT, Parameter, ParameterType, Retry, RetryOn, Script, cast};
use crate::runners::{self, RunnerKind};

/// The most further attempts that an action may ask for.
const MAX_RETRIES: u64 = 100;

/// Actions.
pub(super) const KIND: Kind = Kind::yaml("actions", "an action", read_file);

fn read_file(file: &PackFile, reading: &mut Reading<'_>) {
    let Some(node) = file.yaml(reading.faults) else { return };
    let action = read(&file.source, &node, &reading.pack.reference, reading.root, &file.path, reading.faults);
    reading.contents.actions.extend(action.map(Arc::new));
}

fn read(source: &SourceFile, node: &Node, pack: &str, root: &Path, file: &Path, faults: &mut Faults) -> Option<Action> {
    let mut fields = Fields::of(source, node, "an action", faults)?;
    let name = name(&mut fields, &stem(file));
    let description = fields.text("description").unwrap_or_default();
    let enabled = fields.boolean("enabled").unwrap_or(true);
    fields.required("runner_type");
    let runner = fields.word("runner_type", &runners::names()).and_then(runners::kind);
    let mut parameters = runner.map(|kind| (kind.parameters)()).unwrap_or_default();
    for (key, node) in fields.map("parameters") {
        let inherited = parameters.iter().position(|parameter| parameter.name == key.text);
        let base = inherited.map(|index| parameters[index].clone());
        let Some(parameter) = parameter(&mut fields, key, node, base) else { continue };
        match inherited {
            Some(index) => parameters[index] = parameter,
            None => parameters.push(parameter),
        }
    }
    let timeout = fields.duration("timeout").unwrap_or(DEFAULT_TIMEOUT);
    if timeout.is_zero() || timeout > MAX_TIMEOUT {
        fields.fault_here("`timeout` must be more than zero and at most 24h");
    }
    let idempotent = fields.boolean("idempotent").unwrap_or(false);
    let retry = fields.node("retry").and_then(|node| retry(&mut fields, node));
    fields.object("output_schema"); // for people and tools in this version
    fields.list("tags");
    fields.not_yet("notify");
    let entry_point = fields.text("entry_point");
    let script = match runner {
        Some(kind) if kind.needs_script => script(&mut fields, entry_point.as_deref(), root, file),
        Some(_) if entry_point.is_some() => {
            fields.fault_here("this runner has no `entry_point`");
            None
        }
        _ => None,
    };
    fields.finish();
    let place = source.place(node.line, node.column);
    let kind = runner?;
    let reference = format!("{pack}.{}", name?);
    let runner = kind.name.to_string();
    let revision = crate::model::hash::Revision::default();
    let action = Action { reference, description, enabled, runner, parameters, timeout, idempotent, retry, script, place, revision };
    check(kind, &action, source, faults);
    Some(action.sealed())
}

/// The file's name is the thing's name; where the file says it as well, both must agree.
pub(super) fn name(fields: &mut Fields<'_, '_>, stem: &str) -> Option<String> {
    if let Some(node) = fields.node("name")
        && let Some(name) = fields.text("name")
        && name != stem
    {
        let fault = fields.source.fault(node.line, node.column, format!("`name` is `{name}`, but the file is `{stem}.yaml`"));
        fields.faults.push(fault.hint("the file's name is the thing's name; make both equal"));
    }
    if !is_name(stem) {
        fields.fault_here(format!("`{stem}` is not a name: use lower-case letters, digits, `_` and `-`"));
        return None;
    }
    Some(stem.to_string())
}

fn check(kind: &RunnerKind, action: &Action, source: &SourceFile, faults: &mut Faults) {
    for (message, line, column) in (kind.check)(action) {
        faults.push(match &action.script {
            Some(script) => SourceFile::new(script.file.clone(), script.text.as_str()).fault(line, column, message),
            None => source.whole(message),
        });
    }
}

fn script(fields: &mut Fields<'_, '_>, entry_point: Option<&str>, root: &Path, file: &Path) -> Option<Script> {
    let path = match entry_point {
        Some(name) => file.with_file_name(name),
        None => file.with_extension("rhai"),
    };
    match read_text(root, &path) {
        Ok(text) => Some(Script { file: relative(root, &path), text }),
        Err(message) => {
            fields.fault_here(format!("the script `{}` {message}", relative(root, &path)));
            None
        }
    }
}

fn retry(fields: &mut Fields<'_, '_>, node: &Node) -> Option<Retry> {
    let mut inner = Fields::of(fields.source, node, "`retry`", fields.faults)?;
    inner.required("count");
    let count = inner.count("count")?;
    if count > MAX_RETRIES {
        inner.fault_here(format!("`count` must be at most {MAX_RETRIES}"));
    }
    let delay = inner.duration("delay").unwrap_or(std::time::Duration::from_secs(1));
    let backoff = inner.number("backoff").unwrap_or(1.0);
    if !(1.0..=10.0).contains(&backoff) {
        inner.fault_here("`backoff` must be from 1 to 10");
    }
    let mut on = Vec::new();
    for (word, _) in inner.texts("on") {
        match word.as_str() {
            "failed" => on.push(RetryOn::Failed),
            "timed_out" => on.push(RetryOn::TimedOut),
            _ => inner.fault_here(format!("`on` can hold failed and timed_out, not `{word}`")),
        }
    }
    if on.is_empty() {
        on = vec![RetryOn::Failed, RetryOn::TimedOut];
    }
    inner.finish();
    Some(Retry { count: u32::try_from(count).unwrap_or(u32::MAX), delay, backoff, on })
}

fn parameter(fields: &mut Fields<'_, '_>, key: &Key, node: &Node, base: Option<Parameter>) -> Option<Parameter> {
    if !key.text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') || key.text.is_empty() {
        let fault = fields.source.fault(key.line, key.column, format!("`{}` is not a parameter's name", key.text));
        fields.faults.push(fault.hint("use letters, digits and `_`"));
    }
    let inherited = base.is_some();
    let base = base.unwrap_or_else(|| Parameter::named(&key.text));
    let mut inner = Fields::of(fields.source, node, "a parameter", fields.faults)?;
    let kind = inner.word("type", ParameterType::NAMES).and_then(ParameterType::named);
    if inherited && kind.is_some() && kind != base.kind {
        inner.fault_here(format!("the type of the runner's parameter `{}` cannot be changed", key.text));
    }
    let choices: Vec<_> = inner.list("enum").iter().map(Node::value).collect();
    let default = inner.node("default");
    let parameter = Parameter {
        name: key.text.clone(),
        kind: kind.or(base.kind),
        description: inner.text("description").unwrap_or(base.description),
        required: inner.boolean("required").unwrap_or(base.required),
        default: default.map(Node::value).or(base.default),
        immutable: inner.boolean("immutable").unwrap_or(base.immutable),
        secret: inner.boolean("secret").unwrap_or(base.secret),
        position: inner.count("position").and_then(|position| u32::try_from(position).ok()).or(base.position),
        choices: if choices.is_empty() { base.choices } else { choices },
        minimum: inner.number("minimum").or(base.minimum),
        maximum: inner.number("maximum").or(base.maximum),
    };
    for later in ["items", "properties", "pattern", "format", "minLength", "maxLength"] {
        inner.not_yet(later);
    }
    if let Some(node) = default {
        let value = node.value();
        let text = value.as_str().unwrap_or_default();
        if text.contains("{{") || text.contains("<%") {
            inner.fault(node, "templates in defaults are not carried out by this version");
        } else if let Err(message) = cast(&parameter, &value) {
            inner.fault(node, format!("the default does not fit: {message}"));
        }
    }
    if parameter.immutable && parameter.default.is_none() {
        inner.fault_here(format!("`{}` is immutable and needs a default", key.text));
    }
    inner.finish();
    Some(parameter)
}

/// The nearest parameter of an action.
pub(super) fn unknown_parameter(name: &str, action: &Action) -> String {
    let known: Vec<&str> = action.parameters.iter().map(|parameter| parameter.name.as_str()).collect();
    format!("action `{}` has no parameter `{name}`; {}", action.reference, did_you_mean(name, &known))
}
