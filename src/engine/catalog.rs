//! What the site's authors wrote, as the engine uses it; swapped as a whole.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use crate::document::fault::nearest;
use crate::model::action::Action;
use crate::model::message::Destination;
use crate::model::pack::Pack;
use crate::model::sensor::{SensorDefinition, Trigger};
use crate::pack::Site;
use crate::rule::book::RuleBook;

/// Everything that can be referred to by name.
pub struct Catalog {
    /// Packs.
    pub packs: BTreeMap<String, Arc<Pack>>,
    /// Actions.
    pub actions: BTreeMap<String, Arc<Action>>,
    /// Triggers.
    pub triggers: BTreeMap<String, Trigger>,
    /// Sensors, webhooks among them.
    pub sensors: Vec<SensorDefinition>,
    /// Rules.
    pub rules: RuleBook,
    /// The number under which the rules are stored.
    pub ruleset: u64,
    /// Channels.
    pub channels: BTreeMap<String, Destination>,
}

impl Catalog {
    /// The catalog of a checked site, whose rules are stored as set number `ruleset`.
    #[must_use]
    pub fn of(site: Site, ruleset: u64) -> Self {
        Self {
            packs: site.packs,
            actions: site.actions,
            triggers: site.triggers,
            sensors: site.sensors,
            rules: RuleBook::new(site.rules),
            ruleset,
            channels: site.config.channels,
        }
    }

    /// Says that there is no such action, and which was probably meant.
    #[must_use]
    pub fn no_action(&self, name: &str) -> String {
        no("action", name, self.actions.keys())
    }

    /// Says that there is no such trigger, and which was probably meant.
    #[must_use]
    pub fn no_trigger(&self, name: &str) -> String {
        no("trigger", name, self.triggers.keys())
    }

    /// Says that there is no such sensor, and which was probably meant.
    #[must_use]
    pub fn no_sensor(&self, name: &str) -> String {
        no("sensor", name, self.sensors.iter().map(|sensor| &sensor.reference))
    }

    /// Says that there is no such rule, and which was probably meant.
    #[must_use]
    pub fn no_rule(&self, name: &str) -> String {
        let names: Vec<&String> = self.rules.iter().map(|rule| &rule.rule.reference).collect();
        no("rule", name, names.into_iter())
    }
}

fn no<'n>(what: &str, name: &str, known: impl Iterator<Item = &'n String>) -> String {
    match nearest(name, known.map(String::as_str)) {
        Some(nearest) => format!("there is no {what} `{name}`; did you mean `{nearest}`?"),
        None => format!("there is no {what} `{name}`"),
    }
}

/// The catalog in force.
pub struct CatalogCell(RwLock<Arc<Catalog>>);

impl CatalogCell {
    pub(super) fn new(catalog: Catalog) -> Self {
        Self(RwLock::new(Arc::new(catalog)))
    }

    /// The catalog now; whoever has it keeps it, even when another takes its place.
    #[must_use]
    pub fn get(&self) -> Arc<Catalog> {
        Arc::clone(&self.0.read().expect("no panic happens while the lock is held"))
    }
}
