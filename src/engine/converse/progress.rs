//! How far executions are that somebody asked for: their acknowledgement is edited, at most once a second each, and less often when it
//! takes long. What ends within a second is never told in between.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, Utc};
use tokio::sync::Notify;

use super::super::Engine;
use crate::chat::words;
use crate::model::execution::Execution;
use crate::model::ids::ExecutionId;
use crate::model::message::Message;
use crate::store::Batch;
use crate::tasks::Stop;

/// How far apart the edits of one message are at least.
const PAUSE: chrono::Duration = chrono::Duration::seconds(1);

/// After so many edits of a message they are further apart.
const QUICK_EDITS: u32 = 60;

/// How far apart they are then.
const LONG_PAUSE: chrono::Duration = chrono::Duration::seconds(15);

/// The longest word of a script about how far it is, in characters.
const MAX_TOLD: usize = 500;

/// Edits in one commit.
const TOGETHER: usize = 128;

/// What is to be told of executions that have not ended.
#[derive(Default)]
pub struct Progress {
    entries: Mutex<HashMap<ExecutionId, Entry>>,
    changed: Notify,
}

struct Entry {
    execution: Arc<Execution>,
    told: Option<String>,
    /// What was said last; nothing is said twice.
    said: Option<String>,
    not_before: DateTime<Utc>,
    edits: u32,
}

impl Progress {
    /// Notes where an execution stands now; one that nobody asked for in chat, or that was not acknowledged, is not told.
    pub fn note(&self, execution: &Arc<Execution>) {
        let Some(asked) = &execution.request.asked else { return };
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if execution.state.status.is_final() || asked.acknowledged.is_none() {
            entries.remove(&execution.id);
            return;
        }
        let first = || Entry {
            execution: Arc::clone(execution),
            told: None,
            said: None,
            not_before: execution.request.requested_at + PAUSE,
            edits: 0,
        };
        let entry = entries.entry(execution.id).or_insert_with(first);
        entry.execution = Arc::clone(execution);
        drop(entries);
        self.changed.notify_one();
    }

    /// Notes what a script says about how far it is.
    pub fn tell(&self, id: ExecutionId, text: &str) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = entries.get_mut(&id) {
            entry.told = Some(text.chars().take(MAX_TOLD).collect());
            drop(entries);
            self.changed.notify_one();
        }
    }

    /// The edits that are due, and when the next one is.
    fn due(&self, engine: &Engine, now: DateTime<Utc>) -> (Vec<Message>, Option<DateTime<Utc>>) {
        let (mut due, mut next) = (Vec::new(), None::<DateTime<Utc>>);
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        for entry in entries.values_mut() {
            let Some(asked) = entry.execution.request.asked.as_deref() else { continue };
            let text = words::progress(&entry.execution, entry.told.as_deref());
            if entry.said.as_ref() == Some(&text) {
                continue;
            }
            if entry.not_before > now || due.len() == TOGETHER {
                next = Some(next.map_or(entry.not_before, |next| next.min(entry.not_before)).max(now));
                continue;
            }
            entry.edits += 1;
            entry.not_before = now + if entry.edits < QUICK_EDITS { PAUSE } else { LONG_PAUSE };
            entry.said = Some(text.clone());
            let message = Message::new(engine.ids.message(now), &asked.channel, asked.destination.clone(), text, now);
            due.push(Message { execution: Some(entry.execution.id), replaces: asked.acknowledged, passing: true, ..message });
        }
        (due, next)
    }
}

/// Edits until the stop signal.
pub async fn run(engine: Arc<Engine>, stop: Stop) {
    loop {
        let (due, next) = engine.progress.due(&engine, engine.clock.now());
        if !due.is_empty() {
            match engine.store.commit(&Batch { messages: due.clone(), ..Batch::default() }).await {
                Ok(_) => engine.outbox.wake(due),
                // The end is told in any case.
                Err(error) => tracing::debug!("how far executions are is not told: {error}"),
            }
        }
        let until = async {
            match next {
                Some(next) => engine.clock.sleep_until(next).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.stopped() => return,
            () = engine.progress.changed.notified() => {}
            () = until => {}
        }
    }
}
