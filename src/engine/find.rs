//! Finds what a whole or short id means.

use super::{Engine, RequestError};
use crate::model::ids::{EventId, ExecutionId, SHORT_ID_CHARACTERS};
use crate::store::Page;

/// How far back a short id is looked for.
const SHORT_ID_SEARCH: usize = 20_000;

/// The event that a whole or short id means.
///
/// # Errors
/// When it is no id, or stands for none or several.
pub async fn event(engine: &Engine, text: &str) -> Result<EventId, RequestError> {
    if let Ok(id) = text.parse() {
        return Ok(id);
    }
    let recent = engine.store.events(Page { before: None, limit: search(text)? }).await?;
    one(text, "event", recent.into_iter().map(|event| event.event.id).filter(|id: &EventId| id.short().eq_ignore_ascii_case(text)))
}

/// The execution that a whole or short id means.
///
/// # Errors
/// When it is no id, or stands for none or several.
pub async fn execution(engine: &Engine, text: &str) -> Result<ExecutionId, RequestError> {
    if let Ok(id) = text.parse() {
        return Ok(id);
    }
    let recent = engine.store.executions(Page { before: None, limit: search(text)? }).await?;
    let ids = recent.into_iter().map(|execution| execution.id);
    one(text, "execution", ids.filter(|id: &ExecutionId| id.short().eq_ignore_ascii_case(text)))
}

fn search(text: &str) -> Result<usize, RequestError> {
    if text.len() == SHORT_ID_CHARACTERS {
        return Ok(SHORT_ID_SEARCH);
    }
    Err(RequestError::NotAnId(format!("`{text}` is not an id: give all 26 characters, or the last {SHORT_ID_CHARACTERS}")))
}

fn one<I: std::fmt::Display>(text: &str, what: &str, found: impl Iterator<Item = I>) -> Result<I, RequestError> {
    let mut found: Vec<I> = found.take(5).collect();
    match found.len() {
        0 => Err(RequestError::NotFound(format!("there is no recent {what} whose id ends in `{text}`; give the whole id"))),
        1 => Ok(found.remove(0)),
        _ => {
            let ids: Vec<String> = found.iter().map(ToString::to_string).collect();
            Err(RequestError::NotAnId(format!("several {what}s end in `{text}`: {}", ids.join(", "))))
        }
    }
}
