//! `json.parse(text)`, `json.text(value)`, `json.pretty(value)`, `json.path(value, path)`.

use std::sync::Arc;

use rhai::{Dynamic, ImmutableString, Module};
use serde_json::Value;

use super::module::function;
use super::{HostModule, ScriptCall, from_dynamic, sized, thrown};
use crate::model::failure::Failure;
use crate::model::json::RawJson;
use crate::model::path::FieldPath;
use crate::script::expr::to_dynamic;

pub(super) const MODULE: HostModule = HostModule {
    name: "json",
    summary: "JSON as text, and paths into values.",
    values: &[],
    functions: &[
        function(
            "json.parse(text)",
            "The value of a JSON text; nested 64 deep at most.",
            "json.parse(\"{\\\"a\\\": [1, 2]}\").a.len()",
            "2",
        ),
        function("json.text(value)", "A value as JSON on one line.", "json.text(#{a: [1, ()]})", "\"{\\\"a\\\":[1,null]}\""),
        function("json.pretty(value)", "A value as JSON for people.", "json.pretty([1])", "\"[\\n  1\\n]\""),
        function(
            "json.path(value, path)",
            "What a path leads to, or `()`: `a.b`, `a['x-y']`, `list[0]`, `list[-1]`, `list[*].name`, `..name`. The first value counts.",
            "json.path(#{apps: [#{id: \"a\"}, #{id: \"b\"}]}, \"apps[-1].id\")",
            "\"b\"",
        ),
    ],
    object,
    register,
};

#[derive(Clone)]
struct Json;

fn object(_: &Arc<ScriptCall>) -> Dynamic {
    Dynamic::from(Json)
}

fn register(module: &mut Module) {
    module.set_custom_type::<Json>("json");
    module.set_native_fn("parse", |_: &mut Json, text: ImmutableString| {
        let parsed: Result<Value, String> = RawJson::parse(&text).and_then(|raw| raw.value());
        let value = parsed.map_err(|error| thrown(Failure::misuse(format!("json.parse: {error}"))))?;
        Ok(to_dynamic(&value))
    });
    module.set_native_fn("text", |_: &mut Json, value: Dynamic| sized(from_dynamic(&value).map_err(thrown)?.to_string()));
    module.set_native_fn("pretty", |_: &mut Json, value: Dynamic| {
        let value = from_dynamic(&value).map_err(thrown)?;
        sized(serde_json::to_string_pretty(&value).unwrap_or_default())
    });
    module.set_native_fn("path", |_: &mut Json, value: Dynamic, path: ImmutableString| {
        let value = from_dynamic(&value).map_err(thrown)?;
        let path = FieldPath::parse_field(&path).map_err(|error| thrown(Failure::misuse(format!("json.path: {error}"))))?;
        Ok(path.first(&value).map_or(Dynamic::UNIT, to_dynamic))
    });
}
