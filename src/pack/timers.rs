//! Timers that rules ask for: `trigger: {type: core.cron, parameters: {cron: "0 3 * * mon-fri"}}` needs no sensor's file.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::Site;
use super::files::fault_at;
use crate::document::fields::Faults;
use crate::model::hash::Revision;
use crate::model::pack::Pack;
use crate::model::place::Place;
use crate::model::sensor::{Polling, SensorDefinition, SensorKind};
use crate::rule::book::CompiledRule;
use crate::sensors::timer;

/// The triggers of timers, and the settings of which one says when.
const TRIGGERS: [(&str, &[&str]); 3] = [("core.cron", &["cron"]), ("core.interval", &["every", "interval"]), ("core.date", &["date"])];

/// How many characters of the hash tell two timers of a trigger apart.
const NAME_CHARACTERS: usize = 8;

/// What a rule asks of a timer.
struct Asked {
    rule: String,
    trigger: &'static str,
    when: &'static [&'static str],
    parameters: Map<String, Value>,
    place: Place,
}

fn asked(compiled: &CompiledRule) -> Option<Asked> {
    let rule = &compiled.rule;
    let (trigger, when) = TRIGGERS.into_iter().find(|(trigger, _)| *trigger == &*rule.trigger)?;
    let parameters: Map<String, Value> = rule.trigger_parameters.iter().cloned().collect();
    let asks = rule.enabled && !parameters.is_empty();
    asks.then(|| Asked { rule: rule.reference.to_string(), trigger, when, parameters, place: rule.place(rule.trigger_at) })
}

/// Adds a timer for each trigger with parameters that enabled rules listen to, unless a sensor of the site emits such events already. Rules
/// with equal parameters share one.
pub(super) fn add(site: &mut Site, root: &Path, faults: &mut Faults) {
    let pack = site.packs.get("core").cloned().unwrap_or_else(|| Arc::new(Pack::named("core")));
    let mut added: Vec<(Asked, Vec<String>, SensorDefinition)> = Vec::new();
    for asked in site.rules.iter().filter_map(|rule| asked(rule)) {
        if site.sensors.iter().any(|sensor| serves(sensor, &asked)) {
            continue;
        }
        if let Some((_, rules, _)) =
            added.iter_mut().find(|(other, ..)| other.trigger == asked.trigger && other.parameters == asked.parameters)
        {
            rules.push(asked.rule);
            continue;
        }
        let polling = Polling {
            kind: timer::KIND.name.into(),
            settings: asked.parameters.clone(),
            script: None,
            pack: Arc::clone(&pack),
            time_zone: site.config.time_zone,
        };
        let fault = if asked.when.iter().any(|name| asked.parameters.contains_key(*name)) {
            (timer::KIND.check)(&polling).err().map(|fault| fault.to_string())
        } else {
            Some(format!("a timer of `{}` needs `{}`", asked.trigger, asked.when[0]))
        };
        if let Some(message) = fault {
            let message = format!("rule `{}`: the parameters of its trigger are no timer: {message}", asked.rule);
            let fault = fault_at(root, &asked.place, message);
            faults.push(fault.hint("`parameters` of core.cron, core.interval and core.date are the settings of a timer"));
            continue;
        }
        let definition = definition(&asked, polling);
        added.push((asked, Vec::new(), definition));
    }
    for (index, (one, ..)) in added.iter().enumerate() {
        let wider = |(at, (other, ..)): (usize, &(Asked, _, _))| {
            at != index && other.trigger == one.trigger && holds(&other.parameters, &one.parameters)
        };
        if let Some((_, (other, ..))) = added.iter().enumerate().find(|(at, entry)| wider((*at, entry))) {
            let message = format!(
                "rule `{}` also gets the events of the timer of rule `{}`, which has the same parameters and more",
                one.rule, other.rule
            );
            let fault = fault_at(root, &one.place, message)
                .hint("`parameters` are tests for equality: name what tells the two apart, such as `time_zone`");
            faults.push(fault.as_warning());
        }
    }
    for (asked, others, mut definition) in added {
        let rules: Vec<&str> = std::iter::once(asked.rule.as_str()).chain(others.iter().map(String::as_str)).collect();
        definition.description = format!("{}, for {}", definition.description, rules.join(", "));
        site.sensors.push(definition);
    }
}

/// Whether a sensor of the site emits what the rule listens to.
fn serves(sensor: &SensorDefinition, asked: &Asked) -> bool {
    let SensorKind::Polling(polling) = &sensor.kind else { return false };
    let same = sensor.enabled && sensor.trigger == asked.trigger && polling.kind == timer::KIND.name;
    same && holds(&timer::shown(polling), &asked.parameters)
}

/// Whether one map has all that the other has.
fn holds(one: &Map<String, Value>, other: &Map<String, Value>) -> bool {
    other.iter().all(|(name, value)| one.get(name) == Some(value))
}

fn definition(asked: &Asked, polling: Polling) -> SensorDefinition {
    // The name follows from the parameters, so that the timer keeps its state when rules come and go.
    let hash = Revision::of(&asked.parameters).0;
    let name: String = hash.chars().take(NAME_CHARACTERS).collect();
    let settings: Vec<String> =
        asked.parameters.iter().map(|(name, value)| format!("{name} {}", crate::template::text::plain(value))).collect();
    SensorDefinition {
        reference: format!("{}-{name}", asked.trigger),
        description: settings.join(", "),
        enabled: true,
        trigger: asked.trigger.into(),
        kind: SensorKind::Polling(polling),
        place: asked.place.clone(),
    }
}
