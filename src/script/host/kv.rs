//! `kv.get(name)`, `kv.get(pack, name)`, `kv.set(name, value)`, `kv.delete(name)`: the pack's own keys, and those of packs that it may read.

use std::sync::Arc;

use rhai::{Dynamic, EvalAltResult, ImmutableString, Module};
use serde_json::Value;

use super::{HostModule, ScriptCall, from_dynamic, thrown};
use crate::model::event::Cause;
use crate::model::failure::Failure;
use crate::model::pack::{KvAccess, Pack};
use crate::script::expr::to_dynamic;

pub(super) const MODULE: HostModule = HostModule { name: "kv", object, register };

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
    may_read(&call.pack, pack).map_err(thrown)?;
    let value = call.wait(async { call.host.key(pack, name).await.map_err(Failure::engine) })?;
    Ok(value.as_ref().map_or(Dynamic::UNIT, to_dynamic))
}

fn set(kv: &Kv, name: &str, value: Option<Value>) -> Result<(), Box<EvalAltResult>> {
    let call = &kv.0;
    let own = &call.pack.reference;
    may_write(&call.pack, name, value.as_ref()).map_err(thrown)?;
    // What a sensor's script does has no execution behind it.
    let cause = call.emitted.is_none().then_some(Cause { execution: call.execution, depth: call.depth });
    call.wait(async { call.host.set_key(own, name, value, cause).await.map_err(Failure::engine) })
}

/// Whether a pack may read the keys of another, or its own.
///
/// # Errors
/// When its capabilities do not say so.
pub fn may_read(pack: &Pack, owner: &str) -> Result<(), Failure> {
    let (may, line) = if owner == pack.reference {
        (pack.capabilities.kv != KvAccess::None, "kv: read".to_string())
    } else {
        (pack.capabilities.kv_read.iter().any(|other| other == owner), format!("kv: {{own: read_write, {owner}: read}}"))
    };
    if may { Ok(()) } else { Err(Failure::capability(&pack.reference, &format!("read the keys of `{owner}`"), &line)) }
}

/// Whether a pack may set one of its keys to a value, or delete it.
///
/// # Errors
/// When its capabilities do not say so, or name or value are not such as a key may have.
pub fn may_write(pack: &Pack, name: &str, value: Option<&Value>) -> Result<(), Failure> {
    if pack.capabilities.kv != KvAccess::ReadWrite {
        return Err(Failure::capability(&pack.reference, "write its keys", "kv: read_write"));
    }
    if name.is_empty() || name.len() > MAX_NAME_BYTES || name.contains('\0') {
        return Err(Failure::misuse(format!("kv: a name has 1 to {MAX_NAME_BYTES} bytes and no NUL")));
    }
    if value.is_some_and(|value| value.to_string().len() > MAX_VALUE_BYTES) {
        return Err(Failure::misuse(format!("kv: the value of `{name}` is larger than {MAX_VALUE_BYTES} bytes")));
    }
    Ok(())
}
