//! Actions: the metadata file and the script beside it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::files::{read_text, relative, stem};
use super::kinds::{Kind, PackFile, Reading};
use super::manifest::is_name;
use super::parameter::{PARAMETER, parameter, read_schema};
use crate::document::fault::SourceFile;
use crate::document::fields::{Faults, Fields, did_you_mean};
use crate::document::form;
use crate::document::node::{Content, Node};
use crate::document::shape::{Field, Holds, Shape};
use crate::model::action::{Action, DEFAULT_TIMEOUT, MAX_TIMEOUT, Parameter, Retry, RetryOn, Script};
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

/// An action.
pub static ACTION: Shape = Shape::new(
    "an action",
    "A named thing that can be done: typed parameters, and a runner that does it",
    &[
        Field::new("name", Holds::Text, "The file's name; may be left out").example("\"scale\""),
        Field::new("pack", Holds::Text, "The pack; may be left out"),
        Field::new("description", Holds::Text, "For people"),
        Field::new("enabled", Holds::Boolean, "Whether it may run").default("true"),
        Field::required("runner_type", Holds::WordOf(runners::names), "How it is carried out").example("\"rhai\""),
        Field::new("entry_point", Holds::Text, "Another script than the one beside the file"),
        Field::new("parameters", Holds::Map(&Holds::Shape(&PARAMETER)), "The parameters, by name"),
        Field::new("timeout", Holds::Duration, "How long one attempt may take, 24h at most").default("\"60s\""),
        Field::new("idempotent", Holds::Boolean, "Whether it may run again after a crash").default("false"),
        Field::new("retry", Holds::Shape(&RETRY), "Further attempts"),
        Field::new("output_schema", Holds::Schema, "What a result must be"),
        Field::new("tags", TAGS, "For people and tools"),
    ],
);

/// Tags: `[{name: team, value: shop}]`, `[shop]` or `{team: shop}`.
pub(super) const TAGS: Holds = Holds::Either(&[Holds::List(&Holds::Either(&[Holds::Text, Holds::Shape(&TAG)])), Holds::Map(&Holds::Any)]);

static TAG: Shape =
    Shape::new("a tag", "A tag", &[Field::required("name", Holds::Text, "Its name"), Field::new("value", Holds::Any, "Its value")]);

static RETRY: Shape = Shape::new(
    "`retry`",
    "Further attempts of one execution",
    &[
        Field::required("count", Holds::Count(0, MAX_RETRIES), "How many after the first").example("3"),
        Field::new("delay", Holds::Duration, "The pause before the second attempt").default("\"1s\""),
        Field::new("backoff", Holds::Number, "By how much each pause is longer than the one before; 1 to 10").default("1"),
        Field::new("on", Holds::List(&Holds::Word(&["failed", "timed_out"])), "After which outcomes; both unless given"),
    ],
);

fn read(source: &SourceFile, node: &Node, pack: &str, root: &Path, file: &Path, faults: &mut Faults) -> Option<Action> {
    let mut fields = Fields::of(source, node, &ACTION, faults)?;
    let name = name(&mut fields, &stem(file));
    let description = fields.text("description").unwrap_or_default();
    let enabled = fields.boolean("enabled").unwrap_or(true);
    fields.text("pack");
    let runner = fields.word("runner_type").and_then(runners::kind);
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
    let output_schema = read_schema(&mut fields, "output_schema");
    read_tags(&mut fields);
    positions(&mut fields, &parameters);
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
    let action =
        Action { reference, description, enabled, runner, parameters, timeout, idempotent, retry, output_schema, script, place, revision };
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

/// Tags are for people and tools: only their form is checked.
pub(super) fn read_tags(fields: &mut Fields<'_, '_>) {
    if let Some(node) = fields.node("tags") {
        form::holds(fields.source, "tags", node, &TAGS, fields.faults);
    }
}

/// No two parameters have one position.
fn positions(fields: &mut Fields<'_, '_>, parameters: &[Parameter]) {
    let mut taken = BTreeMap::new();
    for parameter in parameters {
        let Some(position) = parameter.position else { continue };
        if let Some(first) = taken.insert(position, &parameter.name) {
            let message = format!("`{}` and `{first}` have the same `position`, {position}", parameter.name);
            match fields.node("parameters").and_then(|node| find(node, &parameter.name)) {
                Some(node) => fields.fault(node, message),
                None => fields.fault_here(message),
            }
        }
    }
}

fn find<'n>(node: &'n Node, name: &str) -> Option<&'n Node> {
    let Content::Map(pairs) = &node.content else { return None };
    pairs.iter().find(|(key, _)| key.text == name).map(|(_, node)| node)
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
    let mut inner = Fields::of(fields.source, node, &RETRY, fields.faults)?;
    let count = inner.count("count");
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
    Some(Retry { count: u32::try_from(count?).unwrap_or(u32::MAX), delay, backoff, on })
}

/// The nearest parameter of an action.
pub(super) fn unknown_parameter(name: &str, action: &Action) -> String {
    let known: Vec<&str> = action.parameters.iter().map(|parameter| parameter.name.as_str()).collect();
    format!("action `{}` has no parameter `{name}`; {}", action.reference, did_you_mean(name, &known))
}
