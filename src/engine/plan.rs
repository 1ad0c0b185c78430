//! What an action would do, by its own account: its script's `plan` is run with the limits of an attempt, and nothing is stored or changed.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::conduct::{mask, overdue};
use super::{Engine, RequestError};
use crate::model::action::bind;
use crate::model::execution::{Execution, Request};
use crate::model::principal::Principal;
use crate::model::reason::Reason;
use crate::runners::{ActionCall, RunContext};
use crate::tasks::Stop;

/// How long a plan may take at most, whatever the action's `timeout`: somebody waits for it.
const MAX_TIME: Duration = Duration::from_secs(20);

/// Plans that are made at once; more are refused.
pub const AT_ONCE: usize = 4;

/// Runs the plan of an action with parameters: the plan, and what it logged.
///
/// # Errors
/// When there is no such action, the parameters do not fit, it has no plan, or the plan fails.
pub async fn plan(engine: &Engine, action: &str, parameters: &Map<String, Value>, by: Principal) -> Result<Value, RequestError> {
    let busy = || RequestError::Overloaded(format!("{AT_ONCE} plans are being made; try again"));
    let _place = engine.plans.try_acquire().map_err(|_| busy())?;
    let catalog = engine.catalog.get();
    let Some(found) = catalog.actions.get(action) else { return Err(RequestError::NotFound(catalog.no_action(action))) };
    let missing = || RequestError::Conflict(format!("action `{action}` has no runner"));
    let pack = catalog.packs.get(found.pack()).ok_or_else(missing)?;
    let runner = engine.runners.get().and_then(|runners| runners.get(found.runner.as_str())).ok_or_else(missing)?;
    let request = Request {
        action: action.to_string(),
        parameters: bind(&found.parameters, parameters).map_err(RequestError::Invalid)?,
        requested_by: by,
        requested_at: engine.clock.now(),
        event: None,
        key: None,
        depth: 0,
        parent: None,
        rerun_of: None,
        asked: None,
        notify: None,
        idempotent: true,
    };
    let execution = Execution::requested(engine.ids.execution(request.requested_at), request, Reason::Requested);
    let call = ActionCall { execution: Arc::new(execution), action: Arc::clone(found), pack: Arc::clone(pack) };
    let (masks, stop) = (call.masks(), Stop::new());
    // Whoever asks may go away at any moment; then the script is to stop.
    let _ends = stop.clone().stops_when_dropped();
    let cx = RunContext::new(found.timeout.min(MAX_TIME), stop);
    let mut outcome = tokio::select! {
        outcome = runner.plan(call, cx.clone()) => outcome,
        () = overdue(&*engine.clock, &cx) => return Err(RequestError::Conflict("the plan took too long and did not stop when told to".into())),
    };
    mask(&mut outcome, &masks);
    match outcome {
        Ok(output) => Ok(json!({"action": action, "plan": output.result, "log": output.log})),
        Err(error) => Err(RequestError::Conflict(error.message)),
    }
}
