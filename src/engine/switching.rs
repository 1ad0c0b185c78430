//! Rules are switched on and off by people, and off by the engine; the switches are durable and outlive a restart.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::catalog::Catalog;
use super::{Engine, RequestError, notices, own};
use crate::chat::words;
use crate::model::event::Event;
use crate::model::principal::Principal;
use crate::model::reason::Reason;
use crate::rule::book::CompiledRule;
use crate::rule::switch::{MOST_SWITCHES, Position, Switch, is_overtaken};
use crate::store::{Batch, Store, StoreError};

/// How the settings are named that hold the switches.
const PREFIX: &str = "switch/";

/// The switches of all rules.
pub type Switches = BTreeMap<String, Vec<Switch>>;

/// Reads the switches.
///
/// # Errors
/// When they cannot be read.
pub async fn load(store: &dyn Store) -> Result<Switches, StoreError> {
    let damaged = |error: serde_json::Error| StoreError::Corrupt(format!("the switches of a rule cannot be read: {error}"));
    let stored = store.settings(PREFIX).await?;
    stored
        .into_iter()
        .map(|(name, value)| Ok((name[PREFIX.len()..].to_string(), serde_json::from_value(value).map_err(damaged)?)))
        .collect()
}

/// Lets the files count again that say something else than when a person threw the switch.
///
/// # Errors
/// When that cannot be stored.
pub async fn follow_files(
    store: &dyn Store,
    rules: &[Arc<CompiledRule>],
    switches: &Switches,
    now: DateTime<Utc>,
) -> Result<Switches, StoreError> {
    let (mut followed, mut batch) = (switches.clone(), Batch::default());
    for rule in rules {
        let Some(history) = followed.get_mut(&rule.rule.reference[..]).filter(|history| is_overtaken(rule.rule.enabled, history)) else {
            continue;
        };
        add(history, thrown(rule, Position::File, "its file".into(), now));
        batch.settings.push((format!("{PREFIX}{}", rule.rule.reference), json!(history)));
    }
    if !batch.is_empty() {
        store.commit(&batch).await.map_err(|error| StoreError::Unavailable(error.to_string()))?;
    }
    Ok(followed)
}

/// Switches a rule on or off. Answers whether that changed anything.
///
/// # Errors
/// When there is no such rule, or it cannot be stored.
pub async fn switch(engine: &Engine, reference: &str, on: bool, by: &Principal) -> Result<bool, RequestError> {
    let _alone = engine.ruling.changing_rules.lock().await;
    let catalog = engine.catalog.get();
    let Some(rule) = catalog.rules.get(reference) else { return Err(RequestError::NotFound(catalog.no_rule(reference))) };
    let to = if on { Position::On } else { Position::Off };
    let is_there = match catalog.off.get(reference) {
        None => on,
        // One in quarantine can be switched off all the same: then it stays off when it is changed.
        Some((reason, _)) => !on && *reason == Reason::Disabled,
    };
    if is_there {
        return Ok(false);
    }
    let thrown = thrown(rule, to, by.describe(), engine.clock.now());
    let history = with(&catalog, rule, &thrown);
    let setting = (format!("{PREFIX}{reference}"), json!(history));
    engine.store.commit(&Batch { settings: vec![setting], ..Batch::default() }).await?;
    engine.catalog.update(|catalog| catalog.switched(reference, history.clone(), engine.clock.now()));
    tracing::info!(rule = reference, by = by.describe(), "a rule was switched {}", if on { "on" } else { "off" });
    Ok(true)
}

/// Takes a rule out of service whose guard used up its budget too often; what is to be stored goes into the batch. Once that is durable,
/// [`take_effect`] says so.
pub(super) fn quarantine(engine: &Engine, rule: &CompiledRule, event: &Event, batch: &mut Batch) {
    let (reference, at) = (&rule.rule.reference, event.received_at);
    let catalog = engine.catalog.get();
    let setting = format!("{PREFIX}{reference}");
    if catalog.off.contains_key(&reference[..]) || batch.settings.iter().any(|(name, _)| *name == setting) {
        return;
    }
    let history = with(&catalog, rule, &thrown(rule, Position::Quarantined, "Signalman".into(), at));
    let text = words::quarantined(reference, &event.id.short());
    tracing::error!(rule = &**reference, "{text}");
    batch.settings.push((setting, json!(history)));
    batch.messages.extend(notices::to_owner(&catalog, &rule.rule, engine.ids.message(at), text, at));
    batch.pending.extend(own::quarantined(engine, &catalog, reference, at));
}

/// Lets the switches of a commit that is durable take effect.
pub(super) fn take_effect(engine: &Engine, settings: &[(String, Value)]) {
    let now = engine.clock.now();
    for (name, value) in settings {
        if let Some(reference) = name.strip_prefix(PREFIX)
            && let Ok(history) = serde_json::from_value::<Vec<Switch>>(value.clone())
        {
            engine.catalog.update(|catalog| catalog.switched(reference, history.clone(), now));
        }
    }
}

fn thrown(rule: &CompiledRule, to: Position, by: String, at: DateTime<Utc>) -> Switch {
    Switch { at, by, to, file_enabled: rule.rule.enabled, revision: rule.revision() }
}

fn with(catalog: &Arc<Catalog>, rule: &CompiledRule, thrown: &Switch) -> Vec<Switch> {
    let mut history = catalog.switches.get(&*rule.rule.reference).cloned().unwrap_or_default();
    add(&mut history, thrown.clone());
    history
}

fn add(history: &mut Vec<Switch>, thrown: Switch) {
    history.push(thrown);
    let spare = history.len().saturating_sub(MOST_SWITCHES);
    history.drain(..spare);
}
