//! `kv.get(name)`, `kv.get(pack, name)`, `kv.set(name, value)`, `kv.delete(name)`: the pack's own keys, and those of packs that it may read.

use std::sync::Arc;

use rhai::{Dynamic, EvalAltResult, ImmutableString, Module};
use serde_json::Value;

use super::module::function;
use super::{HostModule, ScriptCall, from_dynamic, thrown};
use crate::model::event::Cause;
use crate::model::failure::Failure;
use crate::model::pack::KvAccess;
use crate::script::expr::to_dynamic;

pub(super) const MODULE: HostModule = HostModule {
    name: "kv",
    summary: "Keys with values that last, as the capability `kv` allows: the pack's own, and those of packs that it may read. What is set \
              is durable on return.",
    functions: &[
        function("kv.get(name)", "The value of a key of this pack, or `()`.", "kv.get(\"nobody/set/this\")", "null"),
        function("kv.get(pack, name)", "The value of another pack's key, or `()`.", "kv.get(context.action.split(\".\")[0], \"a\")", ""),
        function("kv.set(name, value)", "Sets a key.", "{ kv.set(\"scaled/shop\", #{to: 3}); kv.get(\"scaled/shop\").to }", "3"),
        function("kv.delete(name)", "Deletes a key; it need not be there.", "{ kv.delete(\"old\"); kv.get(\"old\") }", "null"),
    ],
    object,
    register,
};

/// The longest name of a key.
const MAX_NAME_BYTES: usize = 200;

/// The largest value of a key, as JSON.
const MAX_VALUE_BYTES: usize = 64 * 1024;

#[derive(Clone)]
struct Kv(Arc<ScriptCall>);

fn object(call: &Arc<ScriptCall>) -> Dynamic {
    Dynamic::from(Kv(Arc::clone(call)))
}

fn register(module: &mut Module) {
    module.set_custom_type::<Kv>("kv");
    module.set_native_fn("get", |kv: &mut Kv, name: ImmutableString| {
        let pack = kv.0.pack.reference.clone();
        get(kv, &pack, &name)
    });
    module.set_native_fn("get", |kv: &mut Kv, pack: ImmutableString, name: ImmutableString| get(kv, &pack, &name));
    module.set_native_fn("set", |kv: &mut Kv, name: ImmutableString, value: Dynamic| {
        let value = from_dynamic(&value).map_err(thrown)?;
        set(kv, &name, Some(value))
    });
    module.set_native_fn("delete", |kv: &mut Kv, name: ImmutableString| set(kv, &name, None));
}

fn get(kv: &Kv, pack: &str, name: &str) -> Result<Dynamic, Box<EvalAltResult>> {
    let call = &kv.0;
    let own = &call.pack.reference;
    let (may, line) = if pack == own {
        (call.pack.capabilities.kv != KvAccess::None, "kv: read".to_string())
    } else {
        (call.pack.capabilities.kv_read.iter().any(|other| other == pack), format!("kv: {{own: read_write, {pack}: read}}"))
    };
    if !may {
        return Err(thrown(Failure::capability(own, &format!("read the keys of `{pack}`"), &line)));
    }
    let value = call.wait(async { call.host.key(pack, name).await.map_err(Failure::engine) })?;
    Ok(value.as_ref().map_or(Dynamic::UNIT, to_dynamic))
}

fn set(kv: &Kv, name: &str, value: Option<Value>) -> Result<(), Box<EvalAltResult>> {
    let call = &kv.0;
    call.changes(if value.is_some() { "kv.set" } else { "kv.delete" })?;
    let own = &call.pack.reference;
    if call.pack.capabilities.kv != KvAccess::ReadWrite {
        return Err(thrown(Failure::capability(own, "write its keys", "kv: read_write")));
    }
    if name.is_empty() || name.len() > MAX_NAME_BYTES || name.contains('\0') {
        return Err(thrown(Failure::misuse(format!("kv: a name has 1 to {MAX_NAME_BYTES} bytes and no NUL"))));
    }
    if value.as_ref().is_some_and(|value| value.to_string().len() > MAX_VALUE_BYTES) {
        return Err(thrown(Failure::misuse(format!("kv: the value of `{name}` is larger than {MAX_VALUE_BYTES} bytes"))));
    }
    // What a sensor's script does has no execution behind it.
    let cause = call.emitted.is_none().then_some(Cause { execution: call.execution, depth: call.depth });
    call.wait(async { call.host.set_key(own, name, value, cause).await.map_err(Failure::engine) })
}
