//! `log.info(text)`, `log.warn(text)`, `log.error(text)`: the execution's own log.

use std::sync::Arc;

use rhai::{Dynamic, Module};

use super::{HostModule, ScriptCall};

pub(super) const MODULE: HostModule = HostModule { name: "log", object, register };

#[derive(Clone)]
struct Log(Arc<ScriptCall>);

fn object(call: &Arc<ScriptCall>) -> Dynamic {
    Dynamic::from(Log(Arc::clone(call)))
}

fn register(module: &mut Module) {
    module.set_custom_type::<Log>("log");
    for level in ["info", "warn", "error"] {
        module.set_native_fn(level, move |log: &mut Log, value: Dynamic| {
            log.0.log(level, &value.to_string());
            Ok(())
        });
    }
}
