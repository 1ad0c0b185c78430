//! Reading the site again while it runs: all of the new is read, checked and put together first; then it takes the place of the old at once.
//! A faulty site changes nothing.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;

use super::core::store_rules;
use crate::api::reload::{Reload, ReloadError, Reloaded};
use crate::config::{Environment, SiteConfig};
use crate::engine::Engine;
use crate::engine::catalog::Catalog;
use crate::engine::supervise::Supervisor;
use crate::engine::switching;
use crate::pack::{self, Site};
use crate::tasks;
use crate::telemetry;

/// Where a site was read from.
#[derive(Clone)]
pub struct Origin {
    /// Its folder.
    pub folder: PathBuf,
    /// What it may ask the environment for.
    pub environment: Environment,
    /// Its settings when the process started, as they were written.
    pub config: SiteConfig,
}

/// Reads a site again.
pub struct Reloader {
    engine: Arc<Engine>,
    supervisor: Arc<Supervisor>,
    origin: Option<Origin>,
}

impl Reloader {
    pub(super) fn new(engine: Arc<Engine>, supervisor: Arc<Supervisor>, origin: Option<Origin>) -> Self {
        Self { engine, supervisor, origin }
    }

    /// Reads and checks the site; answers what was found, with the warnings.
    async fn read(&self) -> Result<(Site, Vec<String>), ReloadError> {
        let origin = self.origin.clone().ok_or_else(|| ReloadError::Unavailable("this site was not read from a folder".into()))?;
        let started = origin.config.clone();
        let read = tasks::blocking(move || pack::load(&origin.folder, &origin.environment)).await;
        let (site, faults) = read.map_err(|error| ReloadError::Unavailable(error.to_string()))?;
        let mut texts: Vec<String> = faults.0.iter().map(ToString::to_string).collect();
        if !faults.allow() {
            return Err(ReloadError::Faulty(texts));
        }
        texts.extend(needs_restart(&started, &site.config));
        Ok((site, texts))
    }
}

#[async_trait]
impl Reload for Reloader {
    async fn reload(&self) -> Result<Reloaded, ReloadError> {
        let engine = &self.engine;
        let _alone = engine.ruling.changing_rules.lock().await;
        let (site, warnings) = match self.read().await {
            Ok(read) => read,
            Err(error) => {
                tracing::error!("the site was not loaded again, and runs on as it was: {error}");
                return Err(error);
            }
        };
        let ruleset =
            store_rules(&*engine.store, &site, &*engine.clock).await.map_err(|error| ReloadError::Unavailable(error.to_string()))?;
        let now = engine.clock.now();
        let switches = switching::follow_files(&*engine.store, &site.rules, &engine.catalog.get().switches, now).await;
        let switches = Arc::new(switches.map_err(|error| ReloadError::Unavailable(error.to_string()))?);
        telemetry::mask_logs(site.masks());
        let built = tasks::blocking(move || Catalog::of(site, ruleset, switches, now)).await;
        let catalog = built.map_err(|error| ReloadError::Unavailable(error.to_string()))?;
        let sensors = catalog.sensors.clone();
        let reloaded = Reloaded {
            packs: catalog.packs.len(),
            actions: catalog.actions.len(),
            rules: catalog.rules.iter().count(),
            sensors: sensors.len(),
            changed: ruleset != engine.catalog.get().ruleset,
            warnings,
        };
        // A rule may have been sent into quarantine since.
        engine.catalog.update(|before| catalog.with_switches_of(before, now));
        self.supervisor.apply(&sensors);
        for warning in &reloaded.warnings {
            tracing::warn!("{warning}");
        }
        tracing::info!(packs = reloaded.packs, rules = reloaded.rules, "the site was loaded again");
        Ok(reloaded)
    }
}

/// Settings that a running process cannot change.
fn needs_restart(started: &SiteConfig, now: &SiteConfig) -> Vec<String> {
    let differs = [
        ("listen", started.listen != now.listen),
        ("data", started.data != now.data),
        ("store", started.store != now.store),
        ("chat", started.chat != now.chat),
        ("retention", started.retention != now.retention),
        ("limits", started.limits != now.limits),
        ("outbound", started.local_names != now.local_names),
        ("open_webhooks", started.open_webhooks != now.open_webhooks),
    ];
    let differing = differs.into_iter().filter(|(_, differs)| *differs);
    differing.map(|(name, _)| format!("signalman.yaml: warning: `{name}` takes effect after a restart")).collect()
}
