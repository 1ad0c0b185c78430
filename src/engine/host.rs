//! What scripts reach of the engine.

use std::sync::{Arc, OnceLock, Weak};

use async_trait::async_trait;
use serde_json::{Map, Value};

use super::{Engine, RequestError, children, keys, owned};
use crate::model::datastore::{Changed, KeyEntry, KeyRequest, Scope};
use crate::model::failure::Failure;
use crate::model::ids::{ExecutionId, MessageId};
use crate::model::message::Message;
use crate::model::reason::Reason;
use crate::script::host::Host;
use crate::store::{Batch, CommitError};

/// Runners are made before the engine that they serve, so the engine is put in afterwards.
#[derive(Default)]
pub struct EngineHost {
    engine: OnceLock<Weak<Engine>>,
}

impl EngineHost {
    /// Puts the engine in; once.
    pub fn set(&self, engine: &Arc<Engine>) {
        let _ = self.engine.set(Arc::downgrade(engine)); // a second engine would be a mistake in the composition root
    }

    fn engine(&self) -> Result<Arc<Engine>, String> {
        self.engine.get().and_then(Weak::upgrade).ok_or_else(|| "the engine is stopping".to_string())
    }
}

#[async_trait]
impl Host for EngineHost {
    async fn key(&self, scope: &Scope, name: &str) -> Result<Option<KeyEntry>, String> {
        keys::get(&*self.engine()?, scope, name).await.map_err(|error| error.to_string())
    }

    async fn key_names(&self, scope: &Scope, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<String>, String> {
        let (engine, mut names, mut after) = (self.engine()?, Vec::new(), after.map(ToString::to_string));
        loop {
            let wanted = limit - names.len();
            let (found, more) = keys::list(&engine, scope, prefix, after.as_deref(), wanted).await.map_err(|error| error.to_string())?;
            names.extend(found.into_iter().map(|(name, _)| name));
            if !more || names.len() >= limit {
                return Ok(names);
            }
            after = names.last().cloned();
        }
    }

    async fn change_key(&self, request: KeyRequest) -> Result<Changed, Failure> {
        let engine = self.engine().map_err(Failure::engine)?;
        keys::change(&engine, request).await.map_err(|error| match error {
            RequestError::Store(error) => Failure::engine(error.to_string()),
            RequestError::Conflict(_) => Failure { retry: true, ..Failure::misuse(format!("kv: {error}")) },
            error => Failure::misuse(format!("kv: {error}")),
        })
    }

    async fn start_action(
        &self,
        parent: ExecutionId,
        depth: u32,
        index: u32,
        action: &str,
        parameters: &Map<String, Value>,
    ) -> Result<ExecutionId, Failure> {
        let engine = self.engine().map_err(Failure::engine)?;
        let (action, parameters) = (action.to_string(), parameters.clone());
        // Whoever waits may be ended at any moment; what is committed is handed over all the same.
        let asked = owned(async move { children::start(&engine, parent, depth, index, &action, &parameters).await });
        asked.await.unwrap_or_else(|error| Err(Failure::engine(error.to_string())))
    }

    async fn wait_for(&self, parent: ExecutionId, child: ExecutionId) -> Result<Value, Failure> {
        let engine = self.engine().map_err(Failure::engine)?;
        children::wait(&engine, parent, child).await
    }

    async fn send_message(&self, execution: ExecutionId, index: u32, channel: &str, text: String) -> Result<(), Failure> {
        let engine = self.engine().map_err(Failure::engine)?;
        let catalog = engine.catalog.get();
        let Some(destination) = catalog.channels.get(channel) else {
            let known: Vec<&str> = catalog.channels.keys().map(String::as_str).collect();
            let message = format!("the site has no channel `{channel}`; it has {}", known.join(", "));
            return Err(Failure { reason: Reason::UnknownChannel, message, retry: false });
        };
        let id = MessageId::of_execution(execution, "script", index);
        let message = Message { execution: Some(execution), ..Message::new(id, channel, destination.clone(), text, engine.clock.now()) };
        match engine.store.commit(&Batch { messages: vec![message.clone()], ..Batch::default() }).await {
            Ok(_) => {
                engine.outbox.wake(vec![message]);
                Ok(())
            }
            // An earlier attempt of this execution has sent it.
            Err(CommitError::Conflict { .. }) => Ok(()),
            Err(CommitError::Store(error)) => Err(Failure::engine(error.to_string())),
        }
    }

    fn progress(&self, execution: ExecutionId, text: String) {
        if let Ok(engine) = self.engine() {
            engine.progress.tell(execution, &text);
        }
    }
}
