//! Port: what watches one outside thing and emits events. One file or folder a kind, one line in [`KINDS`]. A sensor never decides.
//!
//! [`webhooks`] are the sensors that others call over HTTP. What a sensor reaches of the engine is its [`SensorContext`].

pub mod prometheus;
pub mod rhai;
pub mod schedule;
pub mod settings;
pub mod timer;
pub mod webhooks;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;

use crate::clock::{self, Clock};
use crate::journal::{AcceptError, Journal};
use crate::model::event::{Accepted, NewEvent};
use crate::model::json::RawJson;
use crate::model::sensor::Polling;
use crate::script::host::{ScriptFault, Surroundings};
use crate::tasks::Stop;

/// Events that go to the journal together.
const EVENTS_AT_ONCE: usize = 1_000;

/// Watches until it is told to stop. Supervised: when it ends or fails, it is started again after a pause that grows.
#[async_trait]
pub trait Sensor: Send {
    /// Runs until the stop signal.
    async fn run(self: Box<Self>, cx: SensorContext) -> Result<(), SensorError>;
}

/// What a sensor remembers over restarts: one JSON value.
#[async_trait]
pub trait SensorState: Send + Sync {
    /// What was saved last.
    async fn load(&self) -> Result<Option<Value>, String>;

    /// Saves; durable on return.
    async fn save(&self, state: &Value) -> Result<(), String>;
}

/// Where a sensor says how it does.
pub trait SensorHealth: Send + Sync {
    /// It has looked, and all is well.
    fn healthy(&self);

    /// It has looked, and something went wrong.
    fn failing(&self, why: &str);

    /// So many events were taken.
    fn emitted(&self, events: usize);

    /// So many due times were missed and left out.
    fn skipped(&self, times: u64);
}

/// What a sensor works with.
pub struct SensorContext {
    /// Its name, `pack.name`.
    pub name: String,
    /// The trigger of its events.
    pub trigger: String,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Given when it must end.
    pub stop: Stop,
    /// Takes the events.
    pub journal: Arc<dyn Journal>,
    /// What it remembers.
    pub state: Arc<dyn SensorState>,
    /// Where it says how it does.
    pub health: Arc<dyn SensorHealth>,
}

impl SensorContext {
    /// An event of this sensor, with nothing but its payload.
    #[must_use]
    pub fn event(&self, payload: &Value) -> NewEvent {
        NewEvent {
            trigger: self.trigger.clone(),
            payload: RawJson::of(payload),
            key: None,
            dedup: None,
            occurred_at: None,
            source: format!("sensor/{}", self.name),
            cause: None,
            rejected: None,
            pending: None,
        }
    }

    /// Emits events; returns once they are durable. They go in groups of 1,000: where there are more, the first may be taken and the rest not.
    ///
    /// # Errors
    /// When some were not taken.
    pub async fn emit(&self, events: Vec<NewEvent>) -> Result<Vec<Accepted>, AcceptError> {
        let (mut accepted, mut left) = (Vec::with_capacity(events.len()), events);
        while !left.is_empty() {
            let rest = left.split_off(left.len().min(EVENTS_AT_ONCE));
            let taken = self.journal.accept(left).await?;
            self.health.emitted(taken.iter().filter(|event| !event.duplicate).count());
            accepted.extend(taken);
            left = rest;
        }
        Ok(accepted)
    }

    /// Says that all is well.
    pub fn healthy(&self) {
        self.health.healthy();
    }

    /// Says what went wrong. After three times in a row the sensor counts as down.
    pub fn failing(&self, why: impl AsRef<str>) {
        self.health.failing(why.as_ref());
    }

    /// Waits; answers whether to go on rather than stop.
    pub async fn wait(&self, span: Duration) -> bool {
        tokio::select! { () = self.stop.stopped() => false, () = clock::sleep(&*self.clock, span) => true }
    }
}

/// Why a sensor ended.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SensorError(pub String);

/// What is wrong with a sensor's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetupFault {
    /// One of its settings, by name; an empty name stands for all of them.
    Setting(&'static str, String),
    /// The setting of this name is not known.
    Unknown(String, String),
    /// The script: everything that is wrong with it.
    Script(Vec<ScriptFault>),
}

impl std::fmt::Display for SetupFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Setting("", message) | Self::Unknown(_, message) => f.write_str(message),
            Self::Setting(name, message) => write!(f, "`{name}`: {message}"),
            Self::Script(faults) => f.write_str(&faults.iter().map(|fault| fault.message.as_str()).collect::<Vec<_>>().join("; ")),
        }
    }
}

/// A sensor that is ready to run.
pub type Built = Result<Box<dyn Sensor>, SetupFault>;

/// A kind of sensor.
pub struct SensorKind {
    /// The name in `kind`.
    pub name: &'static str,
    /// For the reference.
    pub summary: &'static str,
    /// Settings that a test builds it with.
    pub example: &'static str,
    /// A script that a test builds it with; empty for kinds that have none.
    pub script: &'static str,
    /// Triggers of which it emits events besides its own.
    pub also: &'static [&'static str],
    /// Checks everything when the site is loaded.
    pub check: fn(&Polling) -> Result<(), SetupFault>,
    /// Makes it from what was checked.
    pub build: fn(&Polling, &Arc<Surroundings>) -> Built,
}

/// Every kind of sensor that runs by itself.
pub const KINDS: &[&SensorKind] = &[&timer::KIND, &prometheus::KIND, &rhai::KIND];

/// The kind of that name.
#[must_use]
pub fn kind(name: &str) -> Option<&'static SensorKind> {
    KINDS.iter().find(|kind| kind.name == name).copied()
}
