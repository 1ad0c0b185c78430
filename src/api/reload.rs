//! Reading the site again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use axum::Json;
use axum::extract::State;
use axum::routing::on;
use serde::Serialize;

use super::ApiState;
use super::problem::Problem;
use super::routes::{Route, post};
use crate::auth::permission::Permission::Admin;
use crate::engine::owned;

pub(super) const ROUTES: &[Route] =
    &[post("/api/v1/reload", Admin, "Read the site's files again; faulty ones change nothing", |m| on(m, reload))
        .answers("Reloaded")
        .or(&[422])];

/// Port: what reads the site again while it runs.
#[async_trait]
pub trait Reload: Send + Sync {
    /// Reads, checks and puts together all of the new; then it takes the place of the old.
    ///
    /// # Errors
    /// When it is faulty or cannot be stored; then nothing has changed.
    async fn reload(&self) -> Result<Reloaded, ReloadError>;

    /// The secrets that the site names, and where: file and line.
    fn wanted_secrets(&self) -> BTreeMap<String, BTreeSet<String>>;
}

/// What runs now.
#[derive(Debug, Serialize)]
pub struct Reloaded {
    /// How many packs there are.
    pub packs: usize,
    /// How many actions.
    pub actions: usize,
    /// How many rules.
    pub rules: usize,
    /// How many sensors, webhooks among them.
    pub sensors: usize,
    /// Whether any rule is another than before.
    pub changed: bool,
    /// What was found and does not stop it, and what takes effect after a restart.
    pub warnings: Vec<String>,
}

/// Why the site runs on as it was.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// Its files are faulty: all faults.
    #[error("{}", .0.join("\n\n"))]
    Faulty(Vec<String>),
    /// It cannot be done now.
    #[error("{0}")]
    Unavailable(String),
}

pub(super) async fn reload(State(state): State<Arc<ApiState>>) -> Result<Json<Reloaded>, Problem> {
    let reload = Arc::clone(&state.reload);
    match owned(async move { reload.reload().await }).await? {
        Ok(reloaded) => Ok(Json(reloaded)),
        Err(ReloadError::Faulty(faults)) => Err(Problem::faulty_site(&faults)),
        Err(ReloadError::Unavailable(detail)) => Err(Problem::unavailable(detail)),
    }
}
