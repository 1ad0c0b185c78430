//! Executions that scripts ask for: asked for once however often the script is tried, and waited for without a place.
//!
//! A script that waits for another execution gives its place at the runner back ([`super::conduct`] starts others meanwhile) and takes
//! it again when it goes on. Chains of such scripts end at [`MAX_DEPTH`], so what is waited for always finds a place.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::sync::oneshot;

use super::conduct::Command;
use super::{Asked, Engine, RequestError};
use crate::clock;
use crate::model::event::MAX_DEPTH;
use crate::model::execution::{Execution, Status};
use crate::model::failure::Failure;
use crate::model::ids::ExecutionId;
use crate::model::principal::Principal;
use crate::model::reason::Reason;

/// How often an execution is looked for that is neither open nor ended: it is being handed over.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Asks for the `index`-th execution of a script; durable on return. If an earlier attempt has asked for it, it is that one.
///
/// # Errors
/// When there is no such action, the parameters do not fit, the chain is too long, or nothing more can be taken.
pub async fn start(
    engine: &Engine,
    parent: ExecutionId,
    depth: u32,
    index: u32,
    action: &str,
    parameters: &Map<String, Value>,
) -> Result<ExecutionId, Failure> {
    let id = ExecutionId::of_parent(parent, index);
    if depth >= MAX_DEPTH {
        let message = format!("refused as a loop: executions ask for each other more than {MAX_DEPTH} steps deep");
        return Err(Failure { reason: Reason::Loop, message, retry: false });
    }
    if let Some(asked) = engine.store.execution(id).await.map_err(|error| Failure::engine(error.to_string()))? {
        return same(&asked, action);
    }
    let asked = Asked { id, by: Principal::Execution(parent), depth: depth + 1, parent: Some(parent), rerun_of: None };
    match engine.ask(action, parameters, asked).await {
        Ok(execution) => Ok(execution.id),
        Err(error) => Err(failure(&error)),
    }
}

/// An earlier attempt may have asked for something else, if the script does not do the same each time.
fn same(asked: &Execution, action: &str) -> Result<ExecutionId, Failure> {
    if asked.request.action == action {
        return Ok(asked.id);
    }
    let was = &asked.request.action;
    Err(Failure::misuse(format!(
        "an earlier attempt asked for `{was}` at this point, and this one for `{action}`; a script that is tried again must ask for the same in the same order"
    )))
}

fn failure(error: &RequestError) -> Failure {
    let message = error.to_string();
    match error {
        RequestError::NotFound(_) => Failure { reason: Reason::UnknownAction, message, retry: false },
        RequestError::Invalid(_) => Failure { reason: Reason::ParametersFailed, message, retry: false },
        RequestError::Conflict(_) | RequestError::NotAnId(_) => Failure::misuse(message),
        RequestError::Overloaded(_) => Failure { reason: Reason::Overloaded, message, retry: true },
        RequestError::Store(_) => Failure::engine(message),
    }
}

/// Waits until an execution that a script has asked for has ended. Meanwhile the script has no place, and if it is canceled, so is what
/// it waits for.
///
/// # Errors
/// When it did not succeed, or the store cannot be read.
pub async fn wait(engine: &Engine, parent: ExecutionId, child: ExecutionId) -> Result<Value, Failure> {
    let stopping = || Failure::engine("the engine is stopping");
    loop {
        let (reply, answer) = oneshot::channel();
        engine.commands.send(Command::Await { parent, child, reply }).await.map_err(|_| stopping())?;
        let ended = match answer.await.map_err(|_| stopping())? {
            Some(ended) => Some(ended),
            None => engine.store.execution(child).await.map_err(|error| Failure::engine(error.to_string()))?.map(Arc::new),
        };
        match ended {
            Some(ended) if ended.state.status.is_final() => return result(&ended),
            Some(_) => clock::sleep(&*engine.clock, LOOK_AGAIN).await,
            None => return Err(Failure::misuse(format!("there is no execution {child}"))),
        }
    }
}

/// What a script gets of an execution that has ended; its failure is the script's, unless that is caught.
fn result(ended: &Execution) -> Result<Value, Failure> {
    let state = &ended.state;
    if state.status == Status::Succeeded {
        return Ok(state.result.clone().unwrap_or_default());
    }
    let why = state.error.as_deref().unwrap_or(state.reason.meaning());
    let message = format!("{} ({}) {}: {why}", ended.request.action, ended.id.short(), state.status.name().replace('_', " "));
    // Another attempt of the script would find the same execution.
    Err(Failure { reason: Reason::ActionFailed, message, retry: false })
}
