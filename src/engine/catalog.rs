//! What the site's authors wrote, as the engine uses it; swapped as a whole.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use chrono::{DateTime, Utc};

use super::switching::Switches;
use crate::chat::grammar::book::AliasBook;
use crate::document::fault::nearest;
use crate::model::action::Action;
use crate::model::message::Destination;
use crate::model::pack::Pack;
use crate::model::sensor::{SensorDefinition, Trigger};
use crate::pack::Site;
use crate::rule::book::RuleBook;
use crate::rule::judge::Off;
use crate::rule::switch::{self, Switch};

/// Everything that can be referred to by name.
#[derive(Clone)]
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
    pub rules: Arc<RuleBook>,
    /// Rules that are not tried, and why.
    pub off: Arc<Off>,
    /// What people and the engine have switched on and off.
    pub switches: Arc<Switches>,
    /// The number under which the rules are stored.
    pub ruleset: u64,
    /// Commands of chat.
    pub aliases: Arc<AliasBook>,
    /// Channels.
    pub channels: BTreeMap<String, Destination>,
}

impl Catalog {
    /// The catalog of a checked site at a time, whose rules are stored as set number `ruleset`.
    #[must_use]
    pub fn of(site: Site, ruleset: u64, switches: Arc<Switches>, now: DateTime<Utc>) -> Self {
        let rules = RuleBook::new(site.rules);
        let none = Vec::new();
        let off = rules.iter().filter_map(|rule| {
            let switches = switches.get(&*rule.rule.reference).unwrap_or(&none);
            Some((Arc::clone(rule.rule.reference.shared()), switch::off(&rule.rule, &rule.revision(), switches, now)?))
        });
        Self {
            off: Arc::new(off.collect()),
            switches,
            packs: site.packs,
            actions: site.actions,
            triggers: site.triggers,
            sensors: site.sensors,
            rules: Arc::new(rules),
            ruleset,
            aliases: Arc::new(AliasBook::new(site.aliases)),
            channels: site.config.channels,
        }
    }

    /// The same with the switches of another catalog that were thrown later.
    #[must_use]
    pub fn with_switches_of(&self, other: &Self, now: DateTime<Utc>) -> Self {
        let last = |switches: &Switches, rule: &str| switches.get(rule).and_then(|history| history.last()).map(|last| last.at);
        let newer = other.switches.iter().filter(|(rule, _)| last(&other.switches, rule) > last(&self.switches, rule));
        newer.fold(self.clone(), |catalog, (rule, history)| catalog.switched(rule, history.clone(), now))
    }

    /// The same after a rule was switched.
    #[must_use]
    pub fn switched(&self, reference: &str, history: Vec<Switch>, now: DateTime<Utc>) -> Self {
        let (mut off, mut switches) = (Off::clone(&self.off), Switches::clone(&self.switches));
        off.remove(reference);
        if let Some(rule) = self.rules.get(reference)
            && let Some(why) = switch::off(&rule.rule, &rule.revision(), &history, now)
        {
            off.insert(reference.into(), why);
        }
        switches.insert(reference.to_string(), history);
        Self { off: Arc::new(off), switches: Arc::new(switches), ..self.clone() }
    }

    /// Says that there is no such action, and which was probably meant.
    #[must_use]
    pub fn no_action(&self, name: &str) -> String {
        no("action", name, self.actions.keys().map(String::as_str))
    }

    /// Says that there is no such trigger, and which was probably meant.
    #[must_use]
    pub fn no_trigger(&self, name: &str) -> String {
        no("trigger", name, self.triggers.keys().map(String::as_str))
    }

    /// Says that there is no such sensor, and which was probably meant.
    #[must_use]
    pub fn no_sensor(&self, name: &str) -> String {
        no("sensor", name, self.sensors.iter().map(|sensor| sensor.reference.as_str()))
    }

    /// Says that there is no such channel, and which was probably meant.
    #[must_use]
    pub fn no_channel(&self, name: &str) -> String {
        no("channel", name, self.channels.keys().map(String::as_str))
    }

    /// Says that there is no such rule, and which was probably meant.
    #[must_use]
    pub fn no_rule(&self, name: &str) -> String {
        no("rule", name, self.rules.iter().map(|rule| &*rule.rule.reference))
    }
}

fn no<'n>(what: &str, name: &str, known: impl Iterator<Item = &'n str>) -> String {
    match nearest(name, known) {
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

    /// Puts another catalog in its place.
    pub fn update(&self, change: impl FnOnce(&Catalog) -> Catalog) {
        let mut place = self.0.write().expect("no panic happens while the lock is held");
        *place = Arc::new(change(&place));
    }

    /// The catalog now; whoever has it keeps it, even when another takes its place.
    #[must_use]
    pub fn get(&self) -> Arc<Catalog> {
        Arc::clone(&self.0.read().expect("no panic happens while the lock is held"))
    }
}
