//! `actions.run(action, parameters)`, `actions.start(action, parameters)`: other actions, as the capability `actions` grants them.

use std::sync::Arc;

use rhai::{Dynamic, EvalAltResult, ImmutableString, Map, Module};
use serde_json::Value;

use super::module::function;
use super::{HostModule, ScriptCall, from_dynamic, thrown};
use crate::model::failure::Failure;
use crate::model::ids::ExecutionId;
use crate::model::reason::Reason;
use crate::script::expr::to_dynamic;

pub(super) const MODULE: HostModule = HostModule {
    name: "actions",
    summary: "Other actions, as the capability `actions` grants them. Each call asks for an execution of its own, which has this one as its \
              parent; a second attempt of the script finds the executions of the first, if it asks for the same in the same order. Such \
              executions may lead to others 8 steps deep.",
    values: &[],
    functions: &[
        function(
            "actions.run(action, parameters?)",
            "Runs an action, waits for its end and gives its result; an action that does not succeed is an error. While a script waits, \
             others have its place. If it is canceled, so is what it waits for.",
            "actions.run(\"core.noop\", #{})",
            "",
        ),
        function(
            "actions.start(action, parameters?)",
            "Asks for an action, does not wait, and gives the id of the execution.",
            "actions.start(\"core.notify\", #{channel: \"ops\", text: \"started\"}).len()",
            "26",
        ),
    ],
    object,
    register,
};

#[derive(Clone)]
struct Actions(Arc<ScriptCall>);

fn object(call: &Arc<ScriptCall>) -> Dynamic {
    Dynamic::from(Actions(Arc::clone(call)))
}

fn register(module: &mut Module) {
    module.set_custom_type::<Actions>("actions");
    module.set_native_fn("run", |own: &mut Actions, action: ImmutableString| own.run(&action, Map::new()));
    module.set_native_fn("run", |own: &mut Actions, action: ImmutableString, parameters: Map| own.run(&action, parameters));
    module.set_native_fn("start", |own: &mut Actions, action: ImmutableString| started(own, &action, Map::new()));
    module.set_native_fn("start", |own: &mut Actions, action: ImmutableString, parameters: Map| started(own, &action, parameters));
}

fn started(own: &Actions, action: &str, parameters: Map) -> Result<ImmutableString, Box<EvalAltResult>> {
    Ok(own.start("actions.start", action, parameters)?.to_string().into())
}

impl Actions {
    fn start(&self, what: &str, action: &str, parameters: Map) -> Result<ExecutionId, Box<EvalAltResult>> {
        let call = &self.0;
        call.acts(what)?;
        if !call.pack.capabilities.allow_action(action) {
            return Err(thrown(Failure::capability(&call.pack.reference, &format!("run `{action}`"), &format!("actions: [\"{action}\"]"))));
        }
        let Value::Object(parameters) = from_dynamic(&Dynamic::from(parameters)).map_err(thrown)? else {
            return Err(thrown(Failure::misuse(format!("{what}: the parameters must be a map"))));
        };
        let index = call.next_child();
        call.wait(call.host.start_action(call.execution, call.depth, index, action, &parameters))
    }

    fn run(&self, action: &str, parameters: Map) -> Result<Dynamic, Box<EvalAltResult>> {
        let call = &self.0;
        let child = self.start("actions.run", action, parameters)?;
        if !call.lender.lend() {
            let message = "too many scripts wait for other actions; try again later".to_string();
            return Err(thrown(Failure { reason: Reason::Overloaded, message, retry: true }));
        }
        let ended = call.wait(call.host.wait_for(call.execution, child));
        call.lender.take_back();
        Ok(to_dynamic(&ended?))
    }
}
