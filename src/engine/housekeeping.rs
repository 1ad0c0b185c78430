//! Looks after the store: what is too old goes, a little at a time; and when the store cannot be used, new events are refused, `ops` is told
//! once, and the engine goes on by itself as soon as that is possible.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::conduct::Command;
use super::{Engine, keys, notices};
use crate::chat::words;
use crate::clock;
use crate::store::{Batch, Keep, StoreError};
use crate::tasks::{self, Stop};

/// How often to look.
const EVERY: Duration = Duration::from_secs(1);

/// Steps of the store's upkeep between two looks at most: each reads at most 4,096 records, so this bounds the work in a second.
const STEPS: usize = 32;

/// How often the sizes of the store are measured.
const MEASURE_EVERY: chrono::Duration = chrono::Duration::seconds(15);

/// A store that fails again within this span is the same incident: `ops` is not told again.
const SAME_INCIDENT: chrono::Duration = chrono::Duration::minutes(10);

/// Runs until the stop signal.
pub async fn run(engine: Arc<Engine>, keep: Keep, stop: Stop) {
    let mut watch = Watch::default();
    loop {
        tend(&engine, &keep, &stop, &mut watch).await;
        if let Err(error) = keys::sweep(&engine).await {
            tracing::debug!("expired keys are removed later: {error}");
        }
        watch.look(&engine).await;
        let wait = async {
            tokio::select! { () = engine.store.wants_tending() => {}, () = clock::sleep(&*engine.clock, EVERY) => {} }
        };
        tokio::select! { () = stop.stopped() => return, () = wait => {} }
    }
}

async fn tend(engine: &Engine, keep: &Keep, stop: &Stop, watch: &mut Watch) {
    for _ in 0..STEPS {
        match engine.store.tend(engine.clock.now(), keep).await {
            Ok(tended) => {
                engine.metrics.expired.inc_by(tended.removed);
                watch.upkeep = None;
                if !tended.more || stop.is_stopped() {
                    return;
                }
            }
            Err(error) => {
                let text = error.to_string();
                if watch.upkeep.as_ref() != Some(&text) {
                    tracing::error!("the upkeep of the store failed: {text}");
                    if matches!(error, StoreError::Corrupt(_)) {
                        tell(engine, words::store_damaged(&text)).await;
                    }
                    watch.upkeep = Some(text);
                }
                return;
            }
        }
    }
}

/// What is known of the store's health.
#[derive(Default)]
struct Watch {
    /// Why it cannot be used, if so.
    failing: Option<String>,
    told_at: Option<DateTime<Utc>>,
    measured_at: Option<DateTime<Utc>>,
    /// The last failure of the upkeep.
    upkeep: Option<String>,
}

impl Watch {
    async fn look(&mut self, engine: &Engine) {
        if let Err(error) = engine.store.health().await {
            self.fails(engine, &error).await;
            match engine.store.revive().await {
                Ok(true) => resync(engine).await,
                Ok(false) => {}
                Err(error) => tracing::debug!("the store cannot be used yet: {error}"),
            }
        }
        if engine.store.health().await.is_ok() && self.failing.take().is_some() {
            tracing::info!("the store can be used again: events are taken");
            engine.load.set_refusing(None);
        }
        let (metrics, now) = (&engine.metrics, engine.clock.now());
        metrics.store_healthy.set(i64::from(self.failing.is_none()));
        if self.measured_at.is_none_or(|at| now - at >= MEASURE_EVERY || now < at) {
            self.measured_at = Some(now);
            let maintenance = engine.store.maintenance();
            match tasks::blocking(move || maintenance.stat()).await {
                Ok(Ok(stat)) => metrics.store_sizes(stat.live_bytes, stat.disk_bytes, stat.free_bytes),
                Ok(Err(error)) => tracing::debug!("the store cannot be measured: {error}"),
                Err(error) => tracing::error!("the store cannot be measured: {error}"),
            }
        }
    }

    async fn fails(&mut self, engine: &Engine, error: &StoreError) {
        let text = error.to_string();
        if self.failing.replace(text.clone()).is_some() {
            return;
        }
        tracing::error!("events are refused: {text}");
        engine.metrics.store_failures.inc();
        engine.load.set_refusing(Some(text.clone()));
        let now = engine.clock.now();
        if self.told_at.is_some_and(|at| now - at < SAME_INCIDENT && now >= at) {
            return;
        }
        self.told_at = Some(now);
        tell(engine, words::store_failing(&text)).await;
    }
}

/// Tells `ops`, if need be without storing the message first.
async fn tell(engine: &Engine, text: String) {
    let now = engine.clock.now();
    let Some(message) = notices::to_ops(&engine.catalog.get(), engine.ids.message(now), text, now) else { return };
    let batch = Batch { messages: vec![message.clone()], ..Batch::default() };
    if let Err(error) = engine.store.commit(&batch).await {
        tracing::debug!("the message to ops is sent without being stored: {error}");
    }
    engine.outbox.wake(vec![message]);
}

/// What was committed without anybody being told is taken in.
async fn resync(engine: &Engine) {
    match engine.store.open_executions().await {
        Ok(open) => {
            let _ = engine.commands.send(Command::Resync(open)).await; // closed only when the engine stops
        }
        Err(error) => tracing::error!("what is open cannot be read; it goes on after a restart: {error}"),
    }
    engine.outbox.reread();
}
