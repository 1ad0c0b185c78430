//! `timer`: an event every so often.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, Value, json};

use super::{Sensor, SensorContext, SensorError, SensorKind};
use crate::clock;
use crate::model::duration;
use crate::model::event::NewEvent;
use crate::model::json::RawJson;

/// The kind.
pub const KIND: SensorKind = SensorKind { name: "timer", summary: "emits an event every so often", example: "{\"every\": \"30s\"}", build };

/// The shortest interval.
const SHORTEST: Duration = Duration::from_millis(100);

struct Timer {
    every: Duration,
}

fn build(settings: &Map<String, Value>) -> Result<Box<dyn Sensor>, String> {
    if let Some(unknown) = settings.keys().find(|key| *key != "every") {
        return Err(format!("a timer has no setting `{unknown}`; this version knows `every`"));
    }
    let text = match settings.get("every") {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        _ => return Err("a timer needs `every`, such as 30s".into()),
    };
    let every = duration::parse(&text)?;
    if every < SHORTEST {
        return Err(format!("`every` must be at least {}", duration::format(SHORTEST)));
    }
    Ok(Box::new(Timer { every }))
}

#[async_trait]
impl Sensor for Timer {
    async fn run(self: Box<Self>, cx: SensorContext) -> Result<(), SensorError> {
        loop {
            tokio::select! {
                () = cx.stop.stopped() => return Ok(()),
                () = clock::sleep(&*cx.clock, self.every) => {}
            }
            let at = cx.clock.now();
            let payload =
                json!({"executed_at": at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true), "every": duration::format(self.every)});
            let event = NewEvent {
                trigger: cx.trigger.clone(),
                payload: RawJson::of(&payload),
                key: Some(cx.name.clone()),
                dedup: None,
                occurred_at: Some(at),
                source: format!("sensor/{}", cx.name),
                cause: None,
                rejected: None,
                pending: None,
            };
            cx.emit(event).await.map_err(|error| SensorError(error.to_string()))?;
        }
    }
}
