//! Port: what watches one outside thing and emits events. One file a kind, one line in [`KINDS`]. A sensor never decides.
//!
//! [`webhooks`] are the sensors that others call over HTTP.

pub mod timer;
pub mod webhooks;

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Map, Value};

use crate::clock::Clock;
use crate::journal::{AcceptError, Journal};
use crate::model::event::{Accepted, NewEvent};
use crate::tasks::Stop;

/// Watches until it is told to stop. Supervised: when it ends or fails, it is started again after a pause that grows.
#[async_trait]
pub trait Sensor: Send {
    /// Runs until the stop signal.
    async fn run(self: Box<Self>, cx: SensorContext) -> Result<(), SensorError>;
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
}

impl SensorContext {
    /// Emits one event; returns once it is durable.
    ///
    /// # Errors
    /// When it was not taken.
    pub async fn emit(&self, event: NewEvent) -> Result<Accepted, AcceptError> {
        let accepted = self.journal.accept(vec![event]).await?;
        accepted.into_iter().next().ok_or_else(|| AcceptError::Unavailable("the journal gave no answer".into()))
    }
}

/// Why a sensor ended.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SensorError(pub String);

/// Makes a sensor from its settings, or says what is wrong with them.
pub type SensorBuilder = fn(&Map<String, Value>) -> Result<Box<dyn Sensor>, String>;

/// A kind of sensor.
pub struct SensorKind {
    /// The name in `kind`.
    pub name: &'static str,
    /// For the reference.
    pub summary: &'static str,
    /// Settings that a test builds it with.
    pub example: &'static str,
    /// Makes it from checked settings.
    pub build: SensorBuilder,
}

/// Every kind of sensor that runs by itself.
pub const KINDS: &[&SensorKind] = &[&timer::KIND];
