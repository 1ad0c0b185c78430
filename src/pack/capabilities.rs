//! `capabilities` of a pack: what it may touch. What is not named is refused at run time.

use serde_json::Value;

use crate::document::fault::SourceFile;
use crate::document::fields::{Faults, Fields};
use crate::document::node::{Content, Node};
use crate::document::shape::{Field, Holds, Shape};
use crate::model::pack::{Capabilities, KvAccess};
use crate::outbound::origin;
use crate::template::text::{Data, TextTemplate};

/// `capabilities`.
pub(super) static CAPABILITIES: Shape = Shape::new(
    "`capabilities`",
    "What the pack may touch; everything else is refused",
    &[
        Field::new("http", Holds::List(&Holds::Text), "Origins that it may call").example("[\"{{config.url}}\"]"),
        Field::new(
            "kv",
            Holds::Either(&[Holds::Word(&["read", "read_write"]), Holds::Map(&Holds::Word(&["read", "read_write"]))]),
            "Keys that it may use: its own, those that rules see (`system`), those of people (`user`), `{other: read}` of another pack",
        )
        .example("{\"own\": \"read_write\", \"system\": \"read\", \"other\": \"read\"}"),
        Field::new("chat", Holds::Boolean, "Whether it may send to chat").default("false"),
        Field::new("process", Holds::List(&Holds::Text), "Programs that it may run").example("[\"git\"]"),
        Field::new("actions", Holds::List(&Holds::Text), "Actions that its scripts may run").example("[\"core.*\"]"),
    ],
);

pub(super) fn read(source: &SourceFile, node: &Node, data: &Data, faults: &mut Faults) -> Capabilities {
    let mut capabilities = Capabilities::default();
    let Some(mut fields) = Fields::of(source, node, &CAPABILITIES, faults) else { return capabilities };
    for item in fields.list("http") {
        let Content::Scalar { value: Value::String(text), .. } = &item.content else {
            fields.fault(item, "an origin must be text such as \"http://127.0.0.1:8080\"");
            continue;
        };
        let rendered = TextTemplate::compile(text).and_then(|template| template.render(data)).map_err(|error| error.to_string());
        match rendered.and_then(|url| if url.is_empty() { Ok(None) } else { origin(&url).map(Some) }) {
            // A setting that is not given grants nothing.
            Ok(granted) => capabilities.http.extend(granted),
            Err(message) => fields.fault(item, message),
        }
    }
    if let Some(node) = fields.node("kv") {
        match &node.content {
            Content::Scalar { value: Value::String(word), .. } if word == "read" => capabilities.kv = KvAccess::Read,
            Content::Scalar { value: Value::String(word), .. } if word == "read_write" => capabilities.kv = KvAccess::ReadWrite,
            Content::Map(pairs) => {
                for (key, value) in pairs {
                    let scope = match key.text.as_str() {
                        "own" => &mut capabilities.kv,
                        "system" => &mut capabilities.kv_system,
                        "user" => &mut capabilities.kv_user,
                        pack if value.value() == "read" => {
                            capabilities.kv_read.push(pack.to_string());
                            continue;
                        }
                        _ => {
                            fields.fault(value, "the keys of another pack can only be read: `{other: read}`");
                            continue;
                        }
                    };
                    match value.value().as_str() {
                        Some("read") => *scope = KvAccess::Read,
                        Some("read_write") => *scope = KvAccess::ReadWrite,
                        _ => fields.fault(value, format!("`{}` must be read or read_write", key.text)),
                    }
                }
            }
            _ => fields.fault(
                node,
                "`kv` must be read, read_write, or a map such as {own: read_write, system: read, user: read_write, other: read}",
            ),
        }
    }
    capabilities.chat = fields.boolean("chat").unwrap_or(false);
    capabilities.process = programs(&mut fields);
    for (pattern, place) in fields.texts("actions") {
        let is_pattern = pattern.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-.*".contains(&b));
        if is_pattern && (pattern.contains('.') || pattern == "*") {
            capabilities.actions.push(pattern);
        } else {
            let message = format!("`{pattern}` is not an action: write `pack.name`, or `pack.*` for all of a pack");
            fields.faults.push(source.fault(place.line, place.column, message));
        }
    }
    fields.finish();
    capabilities
}

/// Programs by name, or by an absolute path that means that one file.
fn programs(fields: &mut Fields<'_, '_>) -> Vec<String> {
    let mut programs = Vec::new();
    for (program, place) in fields.texts("process") {
        let is_path = program.starts_with('/') && !program.ends_with('/') && !program.split('/').any(|part| part == "..");
        let is_name = !program.is_empty() && !program.contains('/') && !program.starts_with('.');
        if program.contains('\0') || !(is_path || is_name) {
            let message = format!("`{program}` is not a program: write its name, such as `git`, or its absolute path");
            fields.faults.push(fields.source.fault(place.line, place.column, message));
        } else {
            programs.push(program);
        }
    }
    programs
}
