//! Decides which rules match an event. Live evaluation, `rule test`, `event why` and `rule why` all end in [`decide`].

use std::sync::{Arc, OnceLock};

use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};

use super::book::{CompiledRule, Placed, RuleBook, Shelf};
use super::fields::Fields;
use super::operators::{Surroundings, equal};
use super::seen::Seen;
use crate::model::event::Event;
use crate::model::ids::ExecutionId;
use crate::model::reason::Reason;
use crate::model::rule::Mode;
use crate::model::verdict::{CriterionVerdict, MAX_NEAR_MISSES, StoredVerdict, Verdict};
use crate::template::value::Scope;

/// What the rules say about an event.
#[derive(Debug)]
pub struct Judgement<'e> {
    /// Matches, in the order of the rules' names.
    pub matches: Vec<Match>,
    /// Near-misses and failures, at most [`MAX_NEAR_MISSES`].
    pub near_misses: Vec<StoredVerdict>,
    /// Near-misses beyond those.
    pub more_near_misses: u32,
    facts: Facts<'e>,
}

impl Judgement<'_> {
    /// The parameters of a rule's action, or why they could not be made.
    ///
    /// # Errors
    /// In words, with the place.
    pub fn parameters(&self, rule: &CompiledRule) -> Rendered {
        parameters(rule, &self.facts)
    }
}

/// A rule that matched.
#[derive(Debug)]
pub struct Match {
    /// The rule.
    pub rule: Arc<CompiledRule>,
    /// What its criteria saw, in their order.
    pub values: Vec<Value>,
}

impl Match {
    /// The verdict that is stored.
    #[must_use]
    pub fn verdict(&self, execution: Option<ExecutionId>) -> StoredVerdict {
        let (rule, revision) = (self.rule.rule.reference.clone(), self.rule.revision.clone());
        StoredVerdict { rule, revision, reason: Reason::Matched, values: self.values.clone(), execution, detail: None }
    }
}

/// What guards and templates see of an event; made only when the first of them needs it.
struct Facts<'e> {
    event: &'e Event,
    scope: OnceLock<Result<Scope, String>>,
}

impl std::fmt::Debug for Facts<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Facts").field("event", &self.event.id).finish_non_exhaustive()
    }
}

impl Surroundings for Facts<'_> {
    fn now(&self) -> DateTime<Utc> {
        self.event.received_at
    }

    fn scope(&self) -> Result<&Scope, String> {
        Facts::scope(self)
    }
}

impl<'e> Facts<'e> {
    fn new(event: &'e Event) -> Self {
        Self { event, scope: OnceLock::new() }
    }

    fn scope(&self) -> Result<&Scope, String> {
        let make = || {
            let event = self.event;
            let occurred_at = event.occurred_at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
            let about = json!({"id": event.id, "trigger": event.trigger, "key": event.key, "occurred_at": occurred_at});
            Ok(Scope::new(vec![("trigger", event.payload.value()?), ("event", about), ("now", Value::from(occurred_at))]))
        };
        self.scope.get_or_init(make).as_ref().map_err(Clone::clone)
    }
}

/// Judges an event by all rules of its trigger.
///
/// # Errors
/// When the payload cannot be read.
pub fn judge<'e>(book: &RuleBook, event: &'e Event) -> Result<Judgement<'e>, String> {
    let mut judgement = Judgement { matches: Vec::new(), near_misses: Vec::new(), more_near_misses: 0, facts: Facts::new(event) };
    let Some(shelf) = book.shelves.get(&event.trigger) else { return Ok(judgement) };
    let fields = shelf.reader.read(event.payload.text())?;
    let mut candidates = Vec::new();
    shelf.index.candidates(&fields, &mut candidates);
    for position in candidates {
        let placed = &shelf.rules[position as usize];
        let decision = decide(placed, &fields, &judgement.facts);
        let values = || test_slots(placed).map(|slot| fields.slots[slot].to_value()).collect();
        if decision.reason == Reason::Matched {
            judgement.matches.push(Match { rule: Arc::clone(&placed.rule), values: values() });
        } else if !decision.is_kept() {
        } else if judgement.near_misses.len() < MAX_NEAR_MISSES {
            judgement.near_misses.push(StoredVerdict {
                rule: placed.rule.rule.reference.clone(),
                revision: placed.rule.revision.clone(),
                reason: decision.reason,
                values: values(),
                execution: None,
                detail: decision.detail,
            });
        } else {
            judgement.more_near_misses += 1;
        }
    }
    Ok(judgement)
}

/// The parameters of an action, or why they could not be made.
pub type Rendered = Result<Map<String, Value>, String>;

/// Explains what one rule says about an event, with the value that every criterion saw; and the parameters if it matches.
///
/// # Errors
/// When the payload cannot be read.
pub fn explain(rule: &Arc<CompiledRule>, event: &Event) -> Result<(Verdict, Option<Rendered>), String> {
    let verdict = |matched, reason, criteria, detail| Verdict {
        rule: rule.rule.reference.clone(),
        revision: rule.revision.clone(),
        matched,
        reason,
        criteria,
        detail,
    };
    if event.trigger != rule.rule.trigger {
        let detail = format!("the event is of `{}`, the rule listens to `{}`", event.trigger, rule.rule.trigger);
        return Ok((verdict(false, Reason::OtherTrigger, Vec::new(), Some(detail)), None));
    }
    let mut shelf = Shelf::default();
    shelf.add(Arc::clone(rule));
    let fields = shelf.reader.read(event.payload.text())?;
    let placed = &shelf.rules[0];
    let facts = Facts::new(event);
    let mut criteria = Vec::with_capacity(rule.tests.len());
    for ((criterion, (_, test)), slot) in rule.rule.criteria.iter().zip(&rule.tests).zip(test_slots(placed)) {
        let value = &fields.slots[slot];
        let (held, error) = match test.holds(value, &facts) {
            Ok(held) => (held, None),
            Err(error) => (false, Some(error)),
        };
        let (key, operator, pattern) = (criterion.key.clone(), criterion.operator.name().to_string(), criterion.pattern.clone());
        criteria.push(CriterionVerdict { key, operator, pattern, value: value.to_value(), held, error });
    }
    let mut decision = decide(placed, &fields, &facts);
    if !rule.rule.enabled {
        decision = Decision::because(Reason::Disabled);
    }
    let matched = decision.reason == Reason::Matched || decision.reason == Reason::Shadowed;
    let parameters = matched.then(|| parameters(rule, &facts));
    Ok((verdict(matched, decision.reason, criteria, decision.detail), parameters))
}

/// The reason, and more about it.
#[derive(Debug)]
struct Decision {
    reason: Reason,
    detail: Option<String>,
    /// Whether an operator failed because there was no value.
    nothing: bool,
}

impl Decision {
    fn because(reason: Reason) -> Self {
        Self { reason, detail: None, nothing: false }
    }

    /// Matches, near-misses and failures are stored; the rest can be recomputed. So can the failure of an operator that had no value:
    /// what a rule wants of one kind of event is missing in all others.
    fn is_kept(&self) -> bool {
        match self.reason {
            Reason::Matched | Reason::Shadowed | Reason::GuardNotHeld | Reason::GuardFailed => true,
            Reason::CriterionFailed => !self.nothing,
            _ => false,
        }
    }
}

/// The slots of the criteria, behind those of the trigger parameters.
fn test_slots(placed: &Placed) -> impl Iterator<Item = usize> + '_ {
    placed.slots[placed.rule.equalities.len()..].iter().copied()
}

/// The order of a rule: trigger parameters, criteria with `at_least`, guard.
fn decide(placed: &Placed, fields: &Fields<'_>, facts: &Facts<'_>) -> Decision {
    let rule = &placed.rule;
    for ((_, wanted), slot) in rule.equalities.iter().zip(&placed.slots) {
        if fields.slots[*slot] == Seen::Missing || !equal(&fields.slots[*slot].to_value(), wanted) {
            return Decision::because(Reason::TriggerParameters);
        }
    }
    if !rule.tests.is_empty() && fields.empty {
        return Decision::because(Reason::EmptyPayload);
    }
    if let Err(decision) = criteria(placed, fields, facts) {
        return decision;
    }
    if let Some(guard) = &rule.guard {
        let outcome = facts.scope().and_then(|scope| guard.evaluate(scope.names()).map_err(|error| error.to_string()));
        match outcome {
            Ok(Value::Bool(true)) => {}
            Ok(Value::Bool(false)) => return Decision::because(Reason::GuardNotHeld),
            Ok(other) => {
                let detail = Some(format!("`when` gave {other}, not true or false"));
                return Decision { detail, ..Decision::because(Reason::GuardFailed) };
            }
            Err(error) => return Decision { detail: Some(error), ..Decision::because(Reason::GuardFailed) },
        }
    }
    Decision::because(if rule.rule.mode == Mode::Shadow { Reason::Shadowed } else { Reason::Matched })
}

fn criteria(placed: &Placed, fields: &Fields<'_>, facts: &Facts<'_>) -> Result<(), Decision> {
    let rule = &placed.rule;
    let needed = rule.rule.at_least.unwrap_or(rule.tests.len());
    let (mut held, mut left, mut failure, mut nothing) = (0usize, rule.tests.len(), None, false);
    for ((criterion, (_, test)), slot) in rule.rule.criteria.iter().zip(&rule.tests).zip(test_slots(placed)) {
        left -= 1;
        match test.holds(&fields.slots[slot], facts) {
            Ok(true) => held += 1,
            Ok(false) if rule.rule.at_least.is_none() => return Err(Decision::because(Reason::CriteriaNotHeld)),
            Ok(false) => {}
            Err(error) => {
                failure = failure.or_else(|| Some(format!("{}: {error}", criterion.key)));
                nothing |= fields.slots[slot].is_nothing();
            }
        }
        if held + left < needed && failure.is_none() {
            return Err(Decision::because(Reason::CriteriaNotHeld));
        }
    }
    if held >= needed {
        return Ok(());
    }
    let reason = if failure.is_some() && rule.rule.at_least.is_none() { Reason::CriterionFailed } else { Reason::CriteriaNotHeld };
    Err(Decision { reason, detail: failure, nothing })
}

fn parameters(rule: &CompiledRule, facts: &Facts<'_>) -> Result<Map<String, Value>, String> {
    let scope = facts.scope()?;
    let mut rendered = Map::new();
    for ((name, template), (_, source)) in rule.parameters.iter().zip(&rule.rule.parameters) {
        let value = template.render(scope).map_err(|error| format!("{}: parameter `{name}`: {error}", source.place))?;
        rendered.insert(name.clone(), value);
    }
    Ok(rendered)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::IdSource;
    use crate::model::json::RawJson;
    use crate::model::place::Place;
    use crate::model::rule::{Criterion, DEFAULT_CEILING, DEFAULT_LATE, Operator, Rule, Source};

    fn rule(criteria: &[(&str, Operator, Value)], at_least: Option<usize>, when: Option<&str>) -> Rule {
        let criteria = criteria.iter().map(|(key, operator, pattern)| Criterion {
            key: (*key).into(),
            operator: *operator,
            pattern: pattern.clone(),
            condition: None,
        });
        Rule {
            reference: "default.r".into(),
            description: String::new(),
            enabled: true,
            mode: Mode::Active,
            trigger: "core.webhook".into(),
            trigger_parameters: Vec::new(),
            criteria: criteria.collect(),
            at_least,
            backstop: false,
            window: None,
            throttle: None,
            late: DEFAULT_LATE,
            ceiling: DEFAULT_CEILING,
            when: when.map(|when| Source { value: when.into(), place: Place::default() }),
            action: "core.noop".into(),
            parameters: vec![("app".into(), Source { value: json!("{{trigger.app}}"), place: Place::file("r.yaml") })],
            notify: None,
            place: Place::default(),
            trigger_place: Place::default(),
            notify_place: Place::default(),
        }
    }

    fn event(payload: &Value) -> Event {
        let at = chrono::DateTime::from_timestamp_millis(1_700_000_000_000).unwrap();
        Event {
            id: IdSource::seeded(1).event(at),
            trigger: "core.webhook".into(),
            key: None,
            dedup_key: None,
            occurred_at: at,
            received_at: at,
            source: "test".into(),
            cause: None,
            depth: 0,
            payload: RawJson::of(payload),
        }
    }

    /// What live evaluation and explanation say; they must agree.
    fn reason(rule: Rule, payload: &Value) -> Reason {
        let event = event(payload);
        let book = RuleBook::new([CompiledRule::compile(rule).unwrap()]);
        let live = judge(&book, &event).unwrap();
        let (verdict, _) = explain(book.get("default.r").unwrap(), &event).unwrap();
        match (live.matches.first(), live.near_misses.first()) {
            (Some(_), _) => assert_eq!(verdict.reason, Reason::Matched),
            (_, Some(near)) => assert_eq!((near.reason, &near.detail), (verdict.reason, &verdict.detail)),
            _ => assert!(!verdict.matched),
        }
        verdict.reason
    }

    #[test]
    fn each_stage_leaves_its_reason() {
        let high = |key: &'static str| (key, Operator::Greaterthan, json!(80));
        let two = [high("trigger.cpu"), high("trigger.mem")];
        assert_eq!(reason(rule(&two, None, None), &json!({"cpu": 81, "mem": 90, "app": "a"})), Reason::Matched);
        assert_eq!(reason(rule(&two, None, None), &json!({"cpu": 81, "mem": 9})), Reason::CriteriaNotHeld);
        assert_eq!(reason(rule(&two, None, None), &json!({"cpu": "81", "mem": 90})), Reason::CriterionFailed);
        assert_eq!(reason(rule(&two, None, None), &json!({"cpu": "81", "mem": 9})), Reason::CriteriaNotHeld);
        assert_eq!(reason(rule(&two, Some(1), None), &json!({"cpu": "81", "mem": 90, "app": "a"})), Reason::Matched);
        assert_eq!(reason(rule(&two, Some(1), None), &json!({"cpu": "81", "mem": 9})), Reason::CriteriaNotHeld);
        assert_eq!(reason(rule(&two, None, None), &json!({})), Reason::EmptyPayload);
        assert_eq!(reason(rule(&[], None, None), &json!({"app": 1})), Reason::Matched);
        let guarded = |when: &str| rule(&[], None, Some(when));
        assert_eq!(reason(guarded("<% trigger.env == \"prod\" %>"), &json!({"env": "gray"})), Reason::GuardNotHeld);
        assert_eq!(reason(guarded("<% trigger.a.b.c %>"), &json!({"env": "gray"})), Reason::GuardFailed);
        assert_eq!(reason(guarded("<% 1 %>"), &json!({"env": "gray"})), Reason::GuardFailed);
    }

    #[test]
    fn what_failed_for_want_of_a_value_is_explained_but_not_kept() {
        let high = rule(&[("trigger.cpu", Operator::Greaterthan, json!(80))], None, None);
        for (payload, kept) in [(json!({"mem": 1}), 0), (json!({"cpu": null}), 0), (json!({"cpu": "81"}), 1)] {
            assert_eq!(reason(high.clone(), &payload), Reason::CriterionFailed);
            let book = RuleBook::new([CompiledRule::compile(high.clone()).unwrap()]);
            assert_eq!(judge(&book, &event(&payload)).unwrap().near_misses.len(), kept, "{payload}");
        }
    }

    #[test]
    fn a_missing_name_in_a_parameter_is_told_with_its_place() {
        let book = RuleBook::new([CompiledRule::compile(rule(&[], None, None)).unwrap()]);
        let event = event(&json!({"n": 1}));
        let judgement = judge(&book, &event).unwrap();
        let fault = judgement.parameters(&judgement.matches[0].rule).unwrap_err();
        assert_eq!(fault, "r.yaml: parameter `app`: in the template: `trigger.app` is missing");
    }

    #[test]
    fn a_guard_that_loops_is_stopped_by_its_budget() {
        let hungry = "<% [1,2,3,4,5,6,7,8].map(|x| [1,2,3,4,5,6,7,8].map(|y| [1,2,3,4,5,6,7,8].map(|z| [1,2,3,4,5,6,7,8].map(|a| [1,2,3,4,5,6,7,8].map(|b| [1,2,3,4,5,6,7,8].map(|c| 1)))))).len() > 0 %>";
        assert_eq!(reason(rule(&[], None, Some(hungry)), &json!({"a": 1})), Reason::GuardFailed);
    }
}
