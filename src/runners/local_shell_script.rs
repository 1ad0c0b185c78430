//! `local-shell-script`: the script beside the action's file, started by the program that its first line names.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;

use super::command_line::{allowed, attempt, parameters, program, script_in_pack};
use super::{ActionCall, ActionRunner, RunContext, RunnerKind, ScriptFile};
use crate::model::action::Action;
use crate::model::failure::Failure;
use crate::script::host::Surroundings;

/// The kind.
pub const KIND: RunnerKind = RunnerKind {
    name: "local-shell-script",
    summary: "runs the executable script that `entry_point` names, or the `.sh` file beside the action",
    example: "name: disk\nrunner_type: local-shell-script\nparameters:\n  path: {type: string, default: /, position: 0}\n",
    script: Some(ScriptFile { extension: "sh", example: "#!/bin/sh\ndf -h \"$1\"\n", is_executable: true }),
    parameters,
    check,
    places: |_| super::PROGRAMS_AT_ONCE,
    build: |surroundings, _| Arc::new(LocalShellScript(Arc::clone(surroundings))),
};

struct LocalShellScript(Arc<Surroundings>);

fn check(action: &Action) -> Vec<(String, usize, usize)> {
    let Some(script) = &action.script else { return Vec::new() };
    let is_named = script.text.starts_with("#!");
    if is_named { Vec::new() } else { vec![("the first line must name what runs the script, such as `#!/bin/sh`".into(), 1, 1)] }
}

#[async_trait]
impl ActionRunner for LocalShellScript {
    async fn run(&self, call: ActionCall, cx: RunContext) -> Result<Value, Failure> {
        let script = script_in_pack(&call);
        allowed(&call, &script)?;
        let mut program = program(&self.0, &call, &parameters(), &script)?;
        program.name = call.pack.folder.join(&script).display().to_string();
        attempt(&self.0, &cx, &program).await
    }
}
