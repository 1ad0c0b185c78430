//! Answers “why?” and “why not?” for any rule and event, by the rule as it was when the event came.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value};

use super::{Engine, RequestError};
use crate::model::action::masked;
use crate::model::event::{SetAside, StoredEvent};
use crate::model::execution::Status;
use crate::model::hash::Revision;
use crate::model::ids::{EventId, ExecutionId};
use crate::model::reason::Reason;
use crate::model::rule::Rule;
use crate::model::verdict::Verdict;
use crate::rule::book::CompiledRule;
use crate::rule::judge::{Known, explain};
use crate::rule::switch;

/// What one rule said about an event, and what became of it.
#[derive(Debug, Serialize)]
pub struct RuleAnswer {
    /// The verdict, with every criterion.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// What the reason means.
    pub meaning: &'static str,
    /// What to do about it.
    pub remedy: &'static str,
    /// What it ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execution: Option<ExecutionAnswer>,
    /// The parameters it made, or why it could not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameters: Option<Map<String, Value>>,
    /// Whether the rule has been changed since; the answer is by the rule as it was.
    pub changed_since: bool,
    /// Whether the rule did not exist then; the answer is by the rule as it is.
    pub new_since: bool,
    /// Keys of the datastore that the rule names and that the event was not judged by: the answer is by what they hold now.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub keys_as_now: Vec<String>,
}

/// What became of an execution.
#[derive(Debug, Serialize)]
pub struct ExecutionAnswer {
    /// Its id.
    pub id: ExecutionId,
    /// Its status.
    pub status: Status,
    /// Why.
    pub reason: Reason,
    /// What went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Rules whose answers are given for one event, at most; the rest are counted, and each can be asked for by itself.
pub const MOST_TOLD: usize = 100;

/// What all rules said about an event.
#[derive(Debug, Serialize)]
pub struct EventAnswer {
    /// The event.
    pub event: StoredEvent,
    /// Why no rule saw it, if so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub set_aside: Option<SetAside>,
    /// Answers of the rules of its trigger: what matched, then what came close; at most [`MOST_TOLD`].
    pub rules: Vec<RuleAnswer>,
    /// How many more there were, by reason.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub more: BTreeMap<&'static str, usize>,
    /// How many other rules there were, for other triggers.
    pub other_triggers: usize,
}

/// Explains what every rule said about an event.
///
/// # Errors
/// When there is no such event, or the store cannot be read.
pub async fn event(engine: &Engine, id: EventId) -> Result<EventAnswer, RequestError> {
    let event = engine.store.event(id).await?.ok_or_else(|| no_event(id))?;
    let mut rules = Vec::new();
    let mut other_triggers = 0;
    if event.set_aside.is_none() {
        for (name, revision) in engine.store.ruleset(Some(event.ruleset)).await?.map(|set| set.rules).unwrap_or_default() {
            let compiled = compiled(engine, &name, &revision).await?;
            if *compiled.rule.trigger == event.event.trigger {
                rules.push(answer(engine, &event, &compiled, false).await?);
            } else {
                other_triggers += 1;
            }
        }
        // What matched first, then what came close.
        let is_stored = |answer: &RuleAnswer| event.verdicts.iter().any(|stored| stored.rule == answer.verdict.rule);
        let order = |answer: &RuleAnswer| (!answer.verdict.matched, !answer.verdict.reason.passed_guard(), !is_stored(answer));
        rules.sort_by_cached_key(order);
    }
    let mut more = BTreeMap::new();
    for answer in rules.split_off(rules.len().min(MOST_TOLD)) {
        *more.entry(answer.verdict.reason.code()).or_default() += 1;
    }
    Ok(EventAnswer { set_aside: event.set_aside.clone(), event, rules, more, other_triggers })
}

/// Explains what one rule said about an event.
///
/// # Errors
/// When there is no such rule or event, or the store cannot be read.
pub async fn rule(engine: &Engine, reference: &str, id: EventId) -> Result<RuleAnswer, RequestError> {
    let event = engine.store.event(id).await?.ok_or_else(|| no_event(id))?;
    if let Some(aside) = &event.set_aside {
        return Err(RequestError::Conflict(format!("no rule saw this event ({}): {}", aside.reason, aside.detail)));
    }
    let set = engine.store.ruleset(Some(event.ruleset)).await?.map(|set| set.rules).unwrap_or_default();
    if let Some((name, revision)) = set.iter().find(|(name, _)| name == reference) {
        let compiled = compiled(engine, name, revision).await?;
        return answer(engine, &event, &compiled, false).await;
    }
    let catalog = engine.catalog.get();
    let Some(current) = catalog.rules.get(reference) else { return Err(RequestError::NotFound(catalog.no_rule(reference))) };
    answer(engine, &event, current, true).await
}

fn no_event(id: EventId) -> RequestError {
    RequestError::NotFound(format!("there is no event {id}; it may be older than the site keeps events"))
}

/// A rule as it was.
async fn compiled(engine: &Engine, name: &str, revision: &Revision) -> Result<Arc<CompiledRule>, RequestError> {
    if let Some(current) = engine.catalog.get().rules.get(name).filter(|current| current.revision() == *revision) {
        return Ok(Arc::clone(current));
    }
    let gone = || RequestError::NotFound(format!("revision {} of the rule is not in the store any more", revision.short()));
    let definition = engine.store.definition(revision).await?.ok_or_else(gone)?;
    let rule: Rule = serde_json::from_value(definition).map_err(|_| gone())?;
    CompiledRule::compile(rule).map(Arc::new).map_err(|_| gone())
}

/// Whether a rule held that is no backstop, so that this one, which is, was not tried.
async fn another_held(engine: &Engine, event: &StoredEvent, rule: &CompiledRule) -> Result<bool, RequestError> {
    for held in event.verdicts.iter().filter(|verdict| rule.rule.backstop && verdict.reason.passed_guard()) {
        if !compiled(engine, &held.rule, &held.revision).await?.rule.backstop {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn answer(engine: &Engine, event: &StoredEvent, rule: &Arc<CompiledRule>, new_since: bool) -> Result<RuleAnswer, RequestError> {
    let catalog = engine.catalog.get();
    let reference = &rule.rule.reference;
    let stored = event.verdicts.iter().find(|stored| stored.rule == **reference && stored.revision == rule.revision());
    let now = engine.ruling.keys(engine.clock.now());
    // Null: it was not there.
    let known =
        |name: &String| Some((name.clone(), event.keys.get(name).or_else(|| now.get(name)).filter(|value| !value.is_null())?.clone()));
    let keys = rule.keys().iter().filter_map(known).collect();
    let switches = catalog.switches.get(&**reference).map_or(&[][..], Vec::as_slice);
    let known = Known {
        keys,
        stored,
        is_past: !new_since,
        another_matched: stored.is_none() && another_held(engine, event, rule).await?,
        off: if stored.is_some() { None } else { switch::off(&rule.rule, &rule.revision(), switches, event.event.received_at) },
    };
    let (verdict, parameters) = explain(rule, &event.event, &known).map_err(RequestError::Conflict)?;
    let execution = match stored.and_then(|stored| stored.execution) {
        Some(id) => engine.store.execution(id).await?.map(|execution| ExecutionAnswer {
            id,
            status: execution.state.status,
            reason: execution.state.reason,
            error: execution.state.error,
        }),
        None => None,
    };
    let current = catalog.rules.get(&verdict.rule).map(|current| current.revision());
    let (parameters, detail) = match parameters {
        Some(Ok(parameters)) => {
            let declared = catalog.actions.get(&*rule.rule.action).map_or(&[][..], |action| &action.parameters);
            (Some(masked(declared, &parameters)), verdict.detail.clone())
        }
        Some(Err(fault)) => (None, Some(fault)),
        None => (None, verdict.detail.clone()),
    };
    Ok(RuleAnswer {
        meaning: verdict.reason.meaning(),
        remedy: verdict.reason.remedy(),
        changed_since: !new_since && current.as_ref() != Some(&verdict.revision),
        new_since,
        keys_as_now: rule.keys().iter().filter(|name| !event.keys.contains_key(*name)).cloned().collect(),
        execution,
        parameters,
        verdict: Verdict { detail, ..verdict },
    })
}
