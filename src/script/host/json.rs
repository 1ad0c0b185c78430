//! `json.parse(text)`, `json.text(value)`.

use std::sync::Arc;

use rhai::{Dynamic, ImmutableString, Module};
use serde_json::Value;

use super::{HostModule, ScriptCall, from_dynamic, thrown};
use crate::model::failure::Failure;
use crate::model::json::RawJson;
use crate::script::expr::to_dynamic;

pub(super) const MODULE: HostModule = HostModule { name: "json", object, register };

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
    module.set_native_fn("text", |_: &mut Json, value: Dynamic| {
        let value = from_dynamic(&value).map_err(thrown)?;
        Ok(ImmutableString::from(value.to_string()))
    });
}
