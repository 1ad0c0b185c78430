//! After a start: what a crash or stop left open goes on, is tried again, or is abandoned and told.

use super::{Engine, notices, own};
use crate::model::execution::{Change, Execution, Status};
use crate::model::message::Delivery;
use crate::model::reason::Reason;
use crate::store::{Batch, CommitError, StoreError};

/// Records handled in one commit at most.
const TOGETHER: usize = 500;

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Not started yet, or waiting for another attempt.
    pub waiting: usize,
    /// Were running and are tried again.
    pub resumed: usize,
    /// Were running and must not be tried again.
    pub abandoned: usize,
    /// Were being canceled.
    pub canceled: usize,
}

/// Reads what is open, settles what was running, and returns what goes on.
///
/// # Errors
/// When the store cannot be used.
pub async fn settle(engine: &Engine) -> Result<(Vec<Execution>, Recovered), StoreError> {
    let catalog = engine.catalog.get();
    let mut open = engine.store.open_executions().await?;
    // Ids of one millisecond end in a hash; the order in which events came is that of the events' ids.
    open.sort_by_key(|execution| (execution.request.event.map_or(execution.id.0, |event| event.0), execution.id));
    let mut found = Recovered::default();
    let (mut batch, mut settled) = (Batch::default(), 0);
    for execution in &mut open {
        if !matches!(execution.state.status, Status::Running | Status::Canceling) {
            found.waiting += 1;
            continue;
        }
        let now = engine.clock.now();
        execution.change(Change::Interrupted { at: now }).expect("what runs can be interrupted");
        match execution.state.status {
            Status::Abandoned => found.abandoned += 1,
            Status::Canceled => found.canceled += 1,
            _ => found.resumed += 1,
        }
        batch.messages.extend(notices::of(&catalog, execution, now));
        batch.pending.extend(own::finished(engine, &catalog, execution));
        batch.states.push((execution.id, execution.state.clone()));
        if execution.state.status.is_final() {
            engine.metrics.executions.with_label_values(&[execution.state.status.name()]).inc();
        }
        settled += 1;
        if settled % TOGETHER == 0 {
            commit(engine, std::mem::take(&mut batch)).await?;
        }
    }
    commit(engine, batch).await?;
    give_up_messages(engine).await?;
    open.retain(|execution| !execution.state.status.is_final());
    engine.opened(open.len());
    Ok((open, found))
}

/// Messages for a chat system that the site no longer has would wait for ever: they are given up, and that is recorded.
async fn give_up_messages(engine: &Engine) -> Result<(), StoreError> {
    let waiting = engine.store.waiting_messages(None, usize::MAX).await?;
    let (at, mut batch) = (engine.clock.now(), Batch::default());
    for mut message in waiting.into_iter().filter(|message| !engine.outbox.has(&message.destination.adapter)) {
        let detail = format!("the site has no chat system `{}` any more", message.destination.adapter);
        tracing::error!(message = %message.id, "given up: {detail}");
        message.delivery = Delivery::Failed { at, reason: Reason::UnknownChannel, detail };
        batch.deliveries.push(message);
    }
    commit(engine, batch).await
}

async fn commit(engine: &Engine, batch: Batch) -> Result<(), StoreError> {
    if batch.is_empty() {
        return Ok(());
    }
    match engine.store.commit(&batch).await {
        Ok(_) => Ok(()),
        Err(CommitError::Store(error)) => Err(error),
        Err(CommitError::Conflict { what }) => Err(StoreError::Unavailable(format!("{what} was changed by another process"))),
    }
}
