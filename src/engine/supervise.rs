//! Keeps sensors running: one that ends or fails is started again, after a pause that grows while it keeps failing.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use serde_json::{Map, Value};

use super::Engine;
use crate::clock;
use crate::journal::Journal;
use crate::model::sensor::{SensorDefinition, SensorKind};
use crate::sensors::{self, SensorContext};
use crate::tasks::Stop;

/// The first pause.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// A sensor that ran this long is well again.
const WELL_AFTER: chrono::Duration = chrono::Duration::minutes(1);

/// Runs one sensor until the stop signal. Webhooks run by being called, and end at once.
pub async fn run(engine: Arc<Engine>, definition: SensorDefinition, journal: Arc<dyn Journal>, stop: Stop) {
    let SensorKind::Polling { kind, settings } = &definition.kind else { return };
    let mut pause = FIRST_PAUSE;
    loop {
        let started = engine.clock.now();
        let outcome = attempt(&engine, &definition, kind, settings, &journal, &stop).await;
        if stop.is_stopped() {
            return;
        }
        let why = outcome.err().unwrap_or_else(|| "it ended by itself".into());
        if engine.clock.now() - started > WELL_AFTER {
            pause = FIRST_PAUSE;
        }
        tracing::warn!(sensor = definition.reference, "a sensor stopped and starts again in {pause:?}: {why}");
        engine.metrics.sensor_restarts.with_label_values(&[&definition.reference]).inc();
        tokio::select! { () = stop.stopped() => return, () = clock::sleep(&*engine.clock, pause) => {} }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn attempt(
    engine: &Engine,
    definition: &SensorDefinition,
    kind: &str,
    settings: &Map<String, Value>,
    journal: &Arc<dyn Journal>,
    stop: &Stop,
) -> Result<(), String> {
    let kind = sensors::KINDS.iter().find(|known| known.name == kind).ok_or_else(|| format!("there is no kind `{kind}`"))?;
    let sensor = (kind.build)(settings)?;
    let cx = SensorContext {
        name: definition.reference.clone(),
        trigger: definition.trigger.clone(),
        clock: Arc::clone(&engine.clock),
        stop: stop.clone(),
        journal: Arc::clone(journal),
    };
    let outcome = AssertUnwindSafe(sensor.run(cx)).catch_unwind().await;
    outcome.map_err(|_| "it panicked".to_string())?.map_err(|error| error.to_string())
}
