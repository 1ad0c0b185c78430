//! The hold: a person stops all automatic executions. What rules ask for is kept, in order, and starts on release; chat, API and webhooks
//! go on as ever. It is durable and outlives a restart.

use std::sync::{Arc, PoisonError, RwLock};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::conduct::Command;
use super::{ANSWER_TIME, Engine, RequestError, notices};
use crate::chat::words;
use crate::clock;
use crate::model::principal::Principal;
use crate::store::{Batch, StoreError};

/// The setting that holds it.
const SETTING: &str = "hold";

/// The longest reason that is taken, in bytes.
const MAX_REASON_BYTES: usize = 1_000;

/// A hold that is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Since when.
    pub since: DateTime<Utc>,
    /// Who holds.
    pub by: String,
    /// Why, in that person's words.
    pub reason: String,
}

/// The hold in force, if there is one.
#[derive(Default)]
pub struct HoldCell {
    hold: RwLock<Option<Arc<Hold>>>,
    /// One after the other: what is stored is what is in force.
    changing: tokio::sync::Mutex<()>,
}

impl HoldCell {
    /// The hold in force.
    #[must_use]
    pub fn get(&self) -> Option<Arc<Hold>> {
        self.hold.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, hold: Option<Hold>) {
        *self.hold.write().unwrap_or_else(PoisonError::into_inner) = hold.map(Arc::new);
    }
}

/// Reads what was in force when the process ended.
///
/// # Errors
/// When it cannot be read.
pub async fn load(engine: &Engine) -> Result<(), StoreError> {
    let stored = engine.store.setting(SETTING).await?.unwrap_or_default();
    let damaged = |error: serde_json::Error| StoreError::Corrupt(format!("the hold cannot be read: {error}"));
    let hold: Option<Hold> = serde_json::from_value(stored).map_err(damaged)?;
    if let Some(hold) = &hold {
        tracing::warn!("{}", words::held(&hold.by, &hold.reason));
    }
    engine.hold.set(hold);
    Ok(())
}

/// Holds. On return nothing automatic starts any more. Answers whether that changed anything: a hold in force stays as it is.
///
/// # Errors
/// When the reason is missing or too long, or it cannot be stored.
pub async fn hold(engine: &Engine, by: &Principal, reason: &str) -> Result<bool, RequestError> {
    let reason = reason.trim();
    if reason.is_empty() || reason.len() > MAX_REASON_BYTES {
        return Err(RequestError::Invalid(vec![format!("`reason` must say why, in at most {MAX_REASON_BYTES} bytes")]));
    }
    let _alone = engine.hold.changing.lock().await;
    if engine.hold.get().is_some() {
        return Ok(false);
    }
    let hold = Hold { since: engine.clock.now(), by: by.describe(), reason: reason.to_string() };
    let text = words::held(&hold.by, &hold.reason);
    change(engine, Some(hold), text).await?;
    Ok(true)
}

/// Lets go: what was held starts, in order. Answers the hold that was in force.
///
/// # Errors
/// When it cannot be stored.
pub async fn release(engine: &Engine, by: &Principal) -> Result<Option<Arc<Hold>>, RequestError> {
    let _alone = engine.hold.changing.lock().await;
    let Some(held) = engine.hold.get() else { return Ok(None) };
    change(engine, None, words::released(&by.describe())).await?;
    Ok(Some(held))
}

async fn change(engine: &Engine, to: Option<Hold>, text: String) -> Result<(), RequestError> {
    let now = engine.clock.now();
    tracing::warn!("{text}");
    let message = notices::to_ops(&engine.catalog.get(), engine.ids.message(now), text, now);
    let batch = Batch {
        settings: vec![(SETTING.into(), to.as_ref().map_or(Value::Null, |hold| json!(hold)))],
        messages: message.into_iter().collect(),
        ..Batch::default()
    };
    engine.store.commit(&batch).await?;
    engine.hold.set(to);
    engine.outbox.wake(batch.messages);
    let (reply, done) = oneshot::channel();
    // Gone only when the engine stops; then nothing starts either.
    if engine.commands.send(Command::HoldChanged(reply)).await.is_ok() {
        tokio::select! {
            _ = done => {}
            () = clock::sleep(&*engine.clock, ANSWER_TIME) => {} // the store takes no changes now, so nothing starts
        }
    }
    Ok(())
}
