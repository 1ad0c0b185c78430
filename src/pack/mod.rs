//! A site's folder, read: packs, actions, triggers, sensors and rules, with all faults of all files at once.
//!
//! Start at [`load`]. Reads files; never runs anything.

mod action;
mod capabilities;
mod files;
mod kinds;
mod manifest;
pub mod rule;
mod sensor;
mod site;
mod timers;
mod trigger;
mod window;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::config::{self, Environment, SiteConfig};
use crate::document::fields::Faults;
use crate::model::action::Action;
use crate::model::pack::Pack;
use crate::model::sensor::{SensorDefinition, Trigger};
use crate::rule::book::CompiledRule;

/// The pack of files directly in the site's `rules/`.
pub const DEFAULT_PACK: &str = "default";

/// Everything a site's authors wrote, checked.
pub struct Site {
    /// The settings.
    pub config: SiteConfig,
    /// Packs by name.
    pub packs: BTreeMap<String, Arc<Pack>>,
    /// Actions by `pack.name`.
    pub actions: BTreeMap<String, Arc<Action>>,
    /// Triggers by `pack.name`.
    pub triggers: BTreeMap<String, Trigger>,
    /// Sensors, webhooks among them, and the timers that rules ask for.
    pub sensors: Vec<SensorDefinition>,
    /// Rules.
    pub rules: Vec<Arc<CompiledRule>>,
}

/// Reads a whole site. The site is complete only if [`Faults::allow`] says so.
#[must_use]
pub fn load(folder: &Path, environment: &Environment) -> (Site, Faults) {
    let mut faults = Faults::default();
    let config = config::load(folder, environment, &mut faults);
    let site = site::read(folder, config, environment, &mut faults);
    faults.0.sort_by(|a, b| a.place.cmp(&b.place));
    faults.0.dedup();
    (site, faults)
}
