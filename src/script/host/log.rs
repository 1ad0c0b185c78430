//! `log.info(text)`, `log.warn(text)`, `log.error(text)`: the execution's own log.

use std::sync::Arc;

use rhai::{Dynamic, Module};

use super::module::function;
use super::{HostModule, ScriptCall};

pub(super) const MODULE: HostModule = HostModule {
    name: "log",
    summary: "Lines in the execution's log: 100 of 2,000 bytes are kept. `print` does the same as `log.info`.",
    values: &[],
    functions: &[
        function("log.info(value)", "Something worth knowing.", "log.info(`scaled ${params.len()}`)", "null"),
        function("log.warn(value)", "Something to look at.", "log.warn(#{left: 2})", "null"),
        function("log.error(value)", "Something that went wrong.", "log.error(\"no such app\")", "null"),
    ],
    object,
    register,
};

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
