//! The bot's own commands, as far as they need the engine.

use super::super::{Engine, RequestError, find, why};
use super::Said;
use crate::chat::conversation::Own;
use crate::chat::words;
use crate::model::execution::Execution;
use crate::model::ids::ExecutionId;

/// Rules that `why` tells of one event.
const MOST_RULES: usize = 10;

/// What is answered, and whether that is what was wanted.
pub(super) async fn carry_out(
    engine: &Engine,
    said: &Said,
    user: &str,
    channel: &str,
    own: Own,
    last: Option<ExecutionId>,
) -> (String, bool) {
    let answer = match own {
        Own::Whoami => Ok(words::whoami(user, &said.by, &said.adapter, channel)),
        Own::Status(id) => status(engine, id, last).await,
        Own::Why(id) => why(engine, id, last).await,
        Own::Cancel(id) => cancel(engine, &id, said).await,
    };
    match answer {
        Ok(text) => (text, true),
        Err(error) => (words::refused(&error.to_string()), false),
    }
}

async fn execution(engine: &Engine, id: ExecutionId) -> Result<Execution, RequestError> {
    engine.store.execution(id).await?.ok_or_else(|| RequestError::NotFound(format!("there is no execution {id}")))
}

async fn meant(engine: &Engine, id: Option<String>, last: Option<ExecutionId>) -> Result<ExecutionId, RequestError> {
    match (id, last) {
        (Some(id), _) => find::execution(engine, &id).await,
        (None, Some(last)) => Ok(last),
        (None, None) => Err(RequestError::NotFound(words::no_last())),
    }
}

async fn status(engine: &Engine, id: Option<String>, last: Option<ExecutionId>) -> Result<String, RequestError> {
    let id = meant(engine, id, last).await?;
    Ok(words::status(&execution(engine, id).await?))
}

async fn why(engine: &Engine, id: Option<String>, last: Option<ExecutionId>) -> Result<String, RequestError> {
    let Some(id) = id else {
        let id = meant(engine, None, last).await?;
        return Ok(words::why_execution(&execution(engine, id).await?));
    };
    match find::execution(engine, &id).await {
        Ok(found) => match engine.store.execution(found).await? {
            Some(execution) => Ok(words::why_execution(&execution)),
            None => event(engine, &id).await,
        },
        // What is no execution may be an event.
        Err(RequestError::NotFound(_)) => event(engine, &id).await,
        Err(error) => Err(error),
    }
}

async fn event(engine: &Engine, id: &str) -> Result<String, RequestError> {
    let id = find::event(engine, id).await.map_err(|error| match error {
        RequestError::NotFound(_) => RequestError::NotFound(format!("there is no recent execution or event `{id}`")),
        other => other,
    })?;
    let answer = why::event(engine, id).await?;
    let told = |rule: &why::RuleAnswer| (rule.verdict.rule.clone(), rule.verdict.reason.code(), rule.meaning);
    let rules: Vec<_> = answer.rules.iter().take(MOST_RULES).map(told).collect();
    let more = answer.rules.len().saturating_sub(MOST_RULES) + answer.more.values().sum::<usize>();
    Ok(words::why_event(&id.short(), &answer.event.event.trigger, &rules, more))
}

async fn cancel(engine: &Engine, id: &str, said: &Said) -> Result<String, RequestError> {
    let id = find::execution(engine, id).await?;
    Ok(words::status(&engine.cancel(id, said.by.clone()).await?))
}
