//! Finds what a whole or short id means.

use super::{Engine, RequestError};
use crate::model::ids::{EventId, ExecutionId, SHORT_ID_CHARACTERS};
use crate::store::{Page, StoreError};

/// How far back a short id is looked for.
const SHORT_ID_SEARCH: usize = 20_000;

/// Entries that are read together: they are held in memory.
const READ_TOGETHER: usize = 250;

/// Entries with the same short id that are named.
const MOST_NAMED: usize = 5;

/// The event that a whole or short id means.
///
/// # Errors
/// When it is no id, or stands for none or several.
pub async fn event(engine: &Engine, text: &str) -> Result<EventId, RequestError> {
    let read = |page| async { Ok(engine.store.events(page).await?.iter().map(|event| event.event.id).collect()) };
    find(text, "event", EventId::short, read).await
}

/// The execution that a whole or short id means.
///
/// # Errors
/// When it is no id, or stands for none or several.
pub async fn execution(engine: &Engine, text: &str) -> Result<ExecutionId, RequestError> {
    let read = |page| async { Ok(engine.store.executions(page).await?.iter().map(|execution| execution.id).collect()) };
    find(text, "execution", ExecutionId::short, read).await
}

async fn find<I, F>(text: &str, what: &str, short: fn(I) -> String, read: impl Fn(Page<I>) -> F) -> Result<I, RequestError>
where
    I: std::str::FromStr + std::fmt::Display + Copy,
    F: Future<Output = Result<Vec<I>, StoreError>>,
{
    if let Ok(id) = text.parse() {
        return Ok(id);
    }
    if text.len() != SHORT_ID_CHARACTERS {
        return Err(RequestError::NotAnId(format!("`{text}` is not an id: give all 26 characters, or the last {SHORT_ID_CHARACTERS}")));
    }
    let (mut found, mut before, mut looked_at) = (Vec::new(), None, 0);
    while looked_at < SHORT_ID_SEARCH && found.len() < MOST_NAMED {
        let ids = read(Page { before, limit: READ_TOGETHER }).await?;
        looked_at += ids.len();
        before = ids.last().copied();
        let is_last = ids.len() < READ_TOGETHER;
        found.extend(ids.into_iter().filter(|id| short(*id).eq_ignore_ascii_case(text)));
        if is_last {
            break;
        }
    }
    match found[..] {
        [] => Err(RequestError::NotFound(format!("there is no recent {what} whose id ends in `{text}`; give the whole id"))),
        [one] => Ok(one),
        _ => {
            let ids: Vec<String> = found.iter().take(MOST_NAMED).map(ToString::to_string).collect();
            Err(RequestError::NotAnId(format!("several {what}s end in `{text}`: {}; give one of them whole", ids.join(", "))))
        }
    }
}
