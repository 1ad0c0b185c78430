//! Sensors, and how they do.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::routing::on;
use serde_json::{Value, json};

use super::ApiState;
use super::problem::Problem;
use super::routes::{Route, get};
use crate::auth::permission::Permission::Read;
use crate::model::sensor::{SensorDefinition, SensorKind};

pub(super) const ROUTES: &[Route] = &[
    get("/api/v1/sensors", Read, "The sensors, and how they do", |m| on(m, list)).answers("SensorList"),
    get("/api/v1/sensors/{sensor}", Read, "One sensor", |m| on(m, show)).answers("Sensor").or(&[404]),
];

pub(super) async fn list(State(state): State<Arc<ApiState>>) -> Json<Value> {
    let catalog = state.engine.catalog.get();
    let sensors: Vec<Value> = catalog.sensors.iter().map(|sensor| shown(&state, sensor)).collect();
    Json(json!({"sensors": sensors}))
}

pub(super) async fn show(State(state): State<Arc<ApiState>>, Path(name): Path<String>) -> Result<Json<Value>, Problem> {
    let catalog = state.engine.catalog.get();
    let sensor = catalog.sensors.iter().find(|sensor| sensor.reference == name);
    sensor.map(|sensor| Json(shown(&state, sensor))).ok_or_else(|| Problem::not_found(catalog.no_sensor(&name)))
}

/// A sensor without its settings: a secret may have been filled in there.
fn shown(state: &ApiState, sensor: &SensorDefinition) -> Value {
    let (kind, path) = match &sensor.kind {
        SensorKind::Webhook { name, .. } => ("webhook", Some(format!("/api/v1/webhooks/{name}"))),
        SensorKind::Polling(polling) => (polling.kind.as_str(), None),
    };
    let mut shown = json!({
        "ref": sensor.reference, "description": sensor.description, "enabled": sensor.enabled, "kind": kind, "path": path,
        "trigger": sensor.trigger, "file": &*sensor.place.file,
    });
    if let (Some(shown), Some(Value::Object(status))) =
        (shown.as_object_mut(), state.engine.sensors.get(&sensor.reference).map(|status| json!(status)))
    {
        shown.extend(status);
    }
    shown
}
