//! Keeps sensors running. One that ends or fails is started again, after a pause that grows while it keeps failing; none waits for another.
//!
//! [`Supervisor::apply`] is told which sensors there shall be, at the start and whenever the site changes. Each has a task of its own, in
//! which it is run, and in which its outages are told as events of [`DOWN_TRIGGER`].

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use serde_json::{Value, json};

use super::Engine;
use super::board::Down;
use crate::clock;
use crate::journal::{AcceptError, Journal};
use crate::model::event::{Accepted, NewEvent};
use crate::model::json::RawJson;
use crate::model::sensor::{Polling, SensorDefinition, SensorKind};
use crate::script::host::Surroundings;
use crate::sensors::{self, SensorContext, SensorHealth, SensorState};
use crate::store::{Batch, KeyChange};
use crate::tasks::{GRACE, Stop, Tasks};

/// The trigger of the event that tells an outage of a sensor.
pub const DOWN_TRIGGER: &str = "core.sensor_down";

/// The first pause.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// A sensor that ran this long is well again.
const WELL_AFTER: chrono::Duration = chrono::Duration::minutes(1);

/// The pause before an outage that could not be told is told again.
const TELL_AGAIN: Duration = Duration::from_secs(5);

/// Starts and stops sensors.
pub struct Supervisor {
    parts: Arc<Parts>,
    tasks: Arc<Tasks>,
    stop: Stop,
    sensors: Mutex<Sensors>,
}

#[derive(Default)]
struct Sensors {
    running: BTreeMap<String, Running>,
    /// Removed ones that have not ended yet.
    leaving: BTreeMap<String, Ended>,
}

/// What every sensor's task works with.
struct Parts {
    engine: Arc<Engine>,
    journal: Arc<dyn Journal>,
    surroundings: Arc<Surroundings>,
}

/// A sensor on the board.
struct Running {
    definition: SensorDefinition,
    stop: Stop,
    /// Given when its task has ended, however it did.
    ended: Ended,
}

/// A signal that a task has ended.
type Ended = Stop;

/// Gives a signal when it is dropped.
struct EndedGuard(Ended);

impl Drop for EndedGuard {
    fn drop(&mut self) {
        self.0.stop();
    }
}

impl Supervisor {
    /// Nothing running yet. `stop` ends everything; the caller joins `tasks`.
    #[must_use]
    pub fn new(engine: Arc<Engine>, journal: Arc<dyn Journal>, surroundings: Arc<Surroundings>, tasks: Arc<Tasks>, stop: Stop) -> Self {
        Self { parts: Arc::new(Parts { engine, journal, surroundings }), tasks, stop, sensors: Mutex::default() }
    }

    /// Makes the sensors that run those of the definitions: stops what is not there any more, starts what is new, restarts what has changed,
    /// and leaves alone what is equal. Returns at once; a changed one starts when the one before has ended.
    ///
    /// Webhooks are called, not run: they only stand on the board, and who calls finds them in the catalog.
    pub fn apply(&self, definitions: &[SensorDefinition]) {
        let (board, now) = (&self.parts.engine.sensors, self.parts.engine.clock.now());
        let mut sensors = self.sensors.lock().unwrap_or_else(PoisonError::into_inner);
        let Sensors { running, leaving } = &mut *sensors;
        leaving.retain(|_, ended| !ended.is_stopped());
        running.retain(|reference, old| {
            let stays = definitions.iter().any(|definition| definition.reference == *reference);
            if !stays {
                old.stop.stop();
                leaving.insert(reference.clone(), old.ended.clone());
                board.remove(reference, now);
            }
            stays
        });
        for definition in definitions {
            let before = match running.get(&definition.reference) {
                Some(old) if old.definition.runs_like(definition) => continue,
                Some(old) => {
                    old.stop.stop();
                    Some(old.ended.clone())
                }
                None => leaving.remove(&definition.reference),
            };
            board.place(definition, also(definition), now);
            let new = self.start(definition.clone(), before);
            running.insert(definition.reference.clone(), new);
        }
    }

    fn start(&self, definition: SensorDefinition, before: Option<Ended>) -> Running {
        let (stop, ended) = (self.stop.child(), Stop::new());
        let running = Running { definition: definition.clone(), stop: stop.clone(), ended: ended.clone() };
        let guard = EndedGuard(ended);
        let (SensorKind::Polling(polling), true) = (definition.kind.clone(), definition.enabled) else { return running };
        let parts = Arc::clone(&self.parts);
        let work = async move {
            let _guard = guard;
            if let Some(before) = before {
                before.stopped().await; // both have one state
            }
            let sensor = definition.reference.clone();
            let keep_running = parts.keep_running(&definition, &polling, &stop);
            tokio::select! { () = keep_running => {}, () = parts.tell_outages(&sensor, &definition.trigger) => {} }
        };
        self.tasks.spawn(format!("sensor {}", running.definition.reference), work);
        running
    }
}

fn also(definition: &SensorDefinition) -> &'static [&'static str] {
    let SensorKind::Polling(polling) = &definition.kind else { return &[] };
    sensors::kind(&polling.kind).map_or(&[], |kind| kind.also)
}

impl Parts {
    async fn keep_running(&self, definition: &SensorDefinition, polling: &Polling, stop: &Stop) {
        let (engine, sensor) = (&self.engine, definition.reference.as_str());
        let (mut pause, mut again) = (FIRST_PAUSE, false);
        while !stop.is_stopped() {
            let started = engine.clock.now();
            engine.sensors.started(sensor, again, started);
            let outcome = tokio::select! {
                outcome = self.run(definition, polling, stop) => outcome,
                () = overdue(engine, stop) => {
                    tracing::warn!(sensor, "the sensor did not end in {GRACE:?} and was cut off");
                    return;
                }
            };
            if stop.is_stopped() {
                return;
            }
            let (why, now) = (outcome.err().unwrap_or_else(|| "it ended by itself".into()), engine.clock.now());
            if now - started > WELL_AFTER {
                pause = FIRST_PAUSE;
            }
            tracing::warn!(sensor, "a sensor stopped and starts again in {pause:?}: {why}");
            engine.metrics.sensor_restarts.with_label_values(&[sensor]).inc();
            engine.sensors.stopped(sensor, &why, now);
            tokio::select! { () = stop.stopped() => return, () = clock::sleep(&*engine.clock, pause) => {} }
            (pause, again) = ((pause * 2).min(LONGEST_PAUSE), true);
        }
    }

    async fn run(&self, definition: &SensorDefinition, polling: &Polling, stop: &Stop) -> Result<(), String> {
        let kind = sensors::kind(&polling.kind).ok_or_else(|| format!("there is no kind `{}`", polling.kind))?;
        let sensor = (kind.build)(polling, &self.surroundings).map_err(|fault| fault.to_string())?;
        let own = Arc::new(Own { engine: Arc::clone(&self.engine), sensor: definition.reference.clone(), kind: kind.name });
        let cx = SensorContext {
            name: definition.reference.clone(),
            trigger: definition.trigger.clone(),
            clock: Arc::clone(&self.engine.clock),
            stop: stop.clone(),
            journal: Arc::new(Gate { engine: Arc::clone(&self.engine), journal: Arc::clone(&self.journal) }),
            state: Arc::clone(&own) as _,
            health: own,
        };
        let outcome = AssertUnwindSafe(sensor.run(cx)).catch_unwind().await;
        outcome.map_err(|_| "it panicked".to_string())?.map_err(|error| error.to_string())
    }

    /// Emits an event for each outage of a sensor, once.
    async fn tell_outages(&self, sensor: &str, trigger: &str) {
        loop {
            let down = self.engine.sensors.goes_down(sensor).await;
            tracing::error!(sensor, "the sensor is down since {}: {}", down.since, down.error);
            let event = down_event(sensor, trigger, &down);
            // A site without the pack `core` has nobody who could listen.
            if self.engine.catalog.get().triggers.contains_key(DOWN_TRIGGER) && self.journal.accept(vec![event]).await.is_err() {
                clock::sleep(&*self.engine.clock, TELL_AGAIN).await;
            } else {
                self.engine.sensors.told(sensor, down.since);
            }
        }
    }
}

fn down_event(sensor: &str, trigger: &str, down: &Down) -> NewEvent {
    let since = down.since.to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
    let payload = json!({"sensor": sensor, "trigger": trigger, "error": down.error, "since": since, "failures": down.failures});
    NewEvent {
        trigger: DOWN_TRIGGER.into(),
        payload: RawJson::of(&payload),
        key: Some(sensor.into()),
        dedup: None,
        occurred_at: None,
        source: "engine/sensors".into(),
        cause: None,
        rejected: None,
        pending: None,
    }
}

/// Returns when a sensor that was told to stop has had its time.
async fn overdue(engine: &Engine, stop: &Stop) {
    stop.stopped().await;
    clock::sleep(&*engine.clock, GRACE).await;
}

/// What one sensor has of the engine.
struct Own {
    engine: Arc<Engine>,
    sensor: String,
    /// Names the key: one kind does not read the state of another that had the name before.
    kind: &'static str,
}

impl Own {
    /// Keys of a sensor lie beside those of packs; no pack's name holds a colon.
    fn key_space(&self) -> String {
        format!("sensor:{}", self.sensor)
    }
}

#[async_trait]
impl SensorState for Own {
    async fn load(&self) -> Result<Option<Value>, String> {
        let entry = self.engine.store.key(&self.key_space(), self.kind).await.map_err(|error| error.to_string())?;
        Ok(entry.map(|entry| entry.value))
    }

    async fn save(&self, state: &Value) -> Result<(), String> {
        let change = KeyChange::plain(&self.key_space(), self.kind, Some(state.clone()));
        let batch = Batch { keys: vec![change], ..Batch::default() };
        self.engine.store.commit(&batch).await.map(|_| ()).map_err(|error| error.to_string())
    }
}

impl SensorHealth for Own {
    fn healthy(&self) {
        self.engine.sensors.healthy(&self.sensor, self.engine.clock.now());
    }

    fn failing(&self, why: &str) {
        self.engine.sensors.failing(&self.sensor, why, self.engine.clock.now());
    }

    fn emitted(&self, events: usize) {
        self.engine.sensors.emitted(&self.sensor, events, self.engine.clock.now());
    }

    fn skipped(&self, times: u64) {
        self.engine.sensors.skipped(&self.sensor, times);
    }
}

/// The journal as sensors see it: like the webhooks, it takes nothing while too much is under way.
struct Gate {
    engine: Arc<Engine>,
    journal: Arc<dyn Journal>,
}

#[async_trait]
impl Journal for Gate {
    async fn accept(&self, events: Vec<NewEvent>) -> Result<Vec<Accepted>, AcceptError> {
        if !self.engine.load.has_room() {
            return Err(self.engine.load.full());
        }
        self.journal.accept(events).await
    }
}
