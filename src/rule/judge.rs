//! Decides which rules match an event. Live evaluation, `rule test`, `event why` and `rule why` all end in [`decide`].

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};

use super::book::{CompiledRule, Keyed, Placed, RuleBook, Shelf};
use super::fields::Fields;
use super::operators::{Surroundings, equal};
use super::seen::Seen;
use super::windows::{Answer, Windows};
use crate::model::duration;
use crate::model::event::Event;
use crate::model::reason::Reason;
use crate::model::rule::Mode;
use crate::model::verdict::{CriterionVerdict, MAX_NEAR_MISSES, StoredVerdict, Verdict};
use crate::model::window::MAX_KEY_BYTES;
use crate::template::value::Scope;

/// What the rules say about an event.
#[derive(Debug, Default)]
pub struct Judgement {
    /// Matches, in the order of the rules' names.
    pub matches: Vec<Match>,
    /// Near-misses and failures, at most [`MAX_NEAR_MISSES`].
    pub near_misses: Vec<StoredVerdict>,
    /// Near-misses beyond those.
    pub more_near_misses: u32,
    /// Keys of the datastore that were looked at, as they were.
    pub keys: Map<String, Value>,
    /// Rules whose guard used up its budget.
    pub overruns: Vec<Arc<CompiledRule>>,
}

/// A rule that matched.
#[derive(Debug)]
pub struct Match {
    /// The rule.
    pub rule: Arc<CompiledRule>,
    /// Its verdict; the execution is filled in by whoever requests it.
    pub verdict: StoredVerdict,
    /// The parameters of the action, or why they could not be made.
    pub parameters: Rendered,
}

/// What is not in the event and counts all the same.
#[derive(Clone, Copy)]
pub struct World<'w> {
    /// The keys of the datastore.
    pub keys: &'w BTreeMap<String, Value>,
    /// Rules that are not tried, and why.
    pub off: &'w Off,
}

/// Rules that are not tried, by `pack.name`, and why.
pub type Off = BTreeMap<Arc<str>, (Reason, String)>;

/// What guards and templates see of an event; made only when the first of them needs it.
struct Facts<'e> {
    event: &'e Event,
    keys: Map<String, Value>,
    deadline: Option<DateTime<Utc>>,
    scope: OnceLock<Result<Scope, String>>,
}

impl Surroundings for Facts<'_> {
    fn now(&self) -> DateTime<Utc> {
        self.event.received_at
    }

    fn scope(&self) -> Result<&Scope, String> {
        let make = || {
            let event = self.event;
            let text = |at: DateTime<Utc>| at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
            let mut about = json!({"id": event.id, "trigger": event.trigger, "key": event.key, "occurred_at": text(event.occurred_at)});
            if let Some(deadline) = self.deadline {
                about["deadline"] = text(deadline).into();
            }
            let kv = json!({"system": self.keys});
            let now = Value::from(text(self.deadline.unwrap_or(event.occurred_at)));
            let names = [("trigger", event.payload.value()?), ("event", about), ("now", now), ("kv", kv.clone()), ("st2kv", kv)];
            Ok(Scope::new(names.into()))
        };
        self.scope.get_or_init(make).as_ref().map_err(Clone::clone)
    }
}

impl<'e> Facts<'e> {
    /// What rules that name keys see of them.
    fn new<'k>(event: &'e Event, names: impl IntoIterator<Item = &'k String>, keys: &BTreeMap<String, Value>) -> Self {
        let keys = names.into_iter().filter_map(|name| Some((name.clone(), keys.get(name)?.clone()))).collect();
        Self { event, keys, deadline: None, scope: OnceLock::new() }
    }

    fn at(&self) -> (i64, i64) {
        (self.event.occurred_at.timestamp_millis(), self.event.received_at.timestamp_millis())
    }
}

/// Judges an event by all rules of its trigger.
///
/// # Errors
/// When the payload cannot be read; then nothing has changed in the windows.
pub fn judge(book: &RuleBook, event: &Event, world: World<'_>, windows: &mut Windows) -> Result<Judgement, String> {
    let mut judgement = Judgement::default();
    let Some(shelf) = book.shelves.get(&event.trigger) else { return Ok(judgement) };
    let fields = shelf.reader.read(event.payload.text())?;
    let facts = Facts::new(event, &shelf.keys, world.keys);
    let candidates = shelf.candidates(&fields);
    let mut matched = false;
    for backstop in [false, true] {
        if backstop && (matched || !shelf.has_backstops) {
            break;
        }
        for placed in candidates.iter().map(|position| &shelf.rules[*position as usize]) {
            let rule = &placed.rule;
            if rule.rule.backstop != backstop || (!world.off.is_empty() && world.off.contains_key(&rule.name)) {
                continue;
            }
            let mut decision = decide(placed, &fields, &facts);
            if decision.reason == Reason::Matched {
                matched = true; // one that its window or throttle holds counts
                decision = hold_back(placed, &fields, &facts, windows);
            } else if rule.counts_misses() && decision.reason != Reason::TriggerParameters {
                miss(placed, &fields, &facts, windows);
            }
            if decision.exhausted {
                judgement.overruns.push(Arc::clone(rule));
            }
            if !decision.is_kept() {
                continue;
            }
            for name in &rule.keys {
                judgement.keys.insert(name.clone(), facts.keys.get(name).cloned().unwrap_or(Value::Null));
            }
            let verdict = StoredVerdict {
                rule: rule.rule.reference.clone(),
                revision: rule.revision.clone(),
                reason: decision.reason,
                values: test_slots(placed).map(|slot| fields.slots[slot].to_value()).collect(),
                execution: None,
                detail: decision.detail,
            };
            if decision.reason == Reason::Matched {
                let parameters = parameters(rule, &facts);
                judgement.matches.push(Match { rule: Arc::clone(rule), verdict, parameters });
            } else if judgement.near_misses.len() < MAX_NEAR_MISSES {
                judgement.near_misses.push(verdict);
            } else {
                judgement.more_near_misses += 1;
            }
        }
    }
    Ok(judgement)
}

/// A rule that has waited for silence long enough: `last` is the last event of the key; without one `trigger` is empty.
#[must_use]
pub fn silence(rule: &Arc<CompiledRule>, last: &Event, deadline: DateTime<Utc>, world: World<'_>) -> Match {
    let mut facts = Facts::new(last, &rule.keys, world.keys);
    facts.deadline = Some(deadline);
    let verdict = StoredVerdict {
        rule: rule.rule.reference.clone(),
        revision: rule.revision.clone(),
        reason: Reason::Silent,
        values: Vec::new(),
        execution: None,
        detail: None,
    };
    Match { rule: Arc::clone(rule), verdict, parameters: parameters(rule, &facts) }
}

/// The parameters of an action, or why they could not be made.
pub type Rendered = Result<Map<String, Value>, String>;

/// What is known of an event when a rule's verdict is explained.
#[derive(Default)]
pub struct Known<'k> {
    /// The keys of the datastore.
    pub keys: BTreeMap<String, Value>,
    /// What was stored of the rule's verdict. Windows and throttles cannot be asked afterwards.
    pub stored: Option<&'k StoredVerdict>,
    /// Whether windows and throttles decided at all; they do not in a rehearsal.
    pub is_past: bool,
    /// Whether another rule of the trigger matched, where that is known.
    pub another_matched: bool,
    /// Why the rule was not tried, if it was not.
    pub off: Option<(Reason, String)>,
}

/// Explains what one rule says about an event, with the value that every criterion saw; and the parameters if it matches.
///
/// # Errors
/// When the payload cannot be read.
pub fn explain(rule: &Arc<CompiledRule>, event: &Event, known: &Known<'_>) -> Result<(Verdict, Option<Rendered>), String> {
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
    let shelf = Shelf::of([Arc::clone(rule)]);
    let fields = shelf.reader.read(event.payload.text())?;
    let placed = &shelf.rules[0];
    let facts = Facts::new(event, &rule.keys, &known.keys);
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
    let decision = match &known.off {
        Some((reason, detail)) => Decision { detail: Some(detail.clone()).filter(|detail| !detail.is_empty()), ..(*reason).into() },
        None if known.another_matched && rule.rule.backstop => Reason::BackstopNotNeeded.into(),
        None => match (decide(placed, &fields, &facts), known.stored) {
            (Decision { reason: Reason::Matched, .. }, Some(stored)) => Decision { detail: stored.detail.clone(), ..stored.reason.into() },
            (Decision { reason: Reason::Matched, .. }, None) if known.is_past && rule.holds_back() => Reason::NotKept.into(),
            (Decision { reason: Reason::Matched, .. }, None) if rule.rule.mode == Mode::Shadow => Reason::Shadowed.into(),
            (decision, _) => decision,
        },
    };
    let matched = matches!(decision.reason, Reason::Matched | Reason::Shadowed);
    let parameters = matched.then(|| parameters(rule, &facts));
    Ok((verdict(matched, decision.reason, criteria, decision.detail), parameters))
}

/// The reason, and more about it.
#[derive(Debug)]
struct Decision {
    reason: Reason,
    detail: Option<String>,
    /// Whether a guard used up its budget.
    exhausted: bool,
}

impl From<Reason> for Decision {
    fn from(reason: Reason) -> Self {
        Self { reason, detail: None, exhausted: false }
    }
}

impl Decision {
    fn because(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: Some(detail.into()), exhausted: false }
    }

    /// Matches, near-misses and failures are stored; the rest can be recomputed.
    fn is_kept(&self) -> bool {
        self.reason.passed_guard() || matches!(self.reason, Reason::GuardNotHeld | Reason::GuardFailed | Reason::CriterionFailed)
    }
}

/// The slots of the criteria, behind those of the trigger parameters.
fn test_slots(placed: &Placed) -> impl Iterator<Item = usize> + '_ {
    let before = placed.rule.equalities.len();
    placed.slots[before..before + placed.rule.tests.len()].iter().copied()
}

/// The slots of the keys of its window and its throttle.
fn key_slots(placed: &Placed, of_throttle: bool) -> &[usize] {
    let rule = &placed.rule;
    let slots = &placed.slots[rule.equalities.len() + rule.tests.len()..];
    let of_window = rule.window.as_ref().map_or(0, |window| window.by.paths().count());
    if of_throttle { &slots[of_window..] } else { &slots[..of_window] }
}

/// What a rule says of an event before its window and throttle: trigger parameters, criteria with `at_least`, guard.
fn decide(placed: &Placed, fields: &Fields<'_>, facts: &Facts<'_>) -> Decision {
    let rule = &placed.rule;
    for ((_, wanted), slot) in rule.equalities.iter().zip(&placed.slots) {
        if fields.slots[*slot] == Seen::Missing || !equal(&fields.slots[*slot].to_value(), wanted) {
            return Reason::TriggerParameters.into();
        }
    }
    if !rule.tests.is_empty() && fields.empty {
        return Reason::EmptyPayload.into();
    }
    if let Err(decision) = criteria(placed, fields, facts) {
        return decision;
    }
    if let Some(guard) = &rule.guard {
        let scope = match facts.scope() {
            Ok(scope) => scope,
            Err(error) => return Decision::because(Reason::GuardFailed, error),
        };
        match guard.evaluate(scope.names()) {
            Ok(Value::Bool(true)) => {}
            Ok(Value::Bool(false)) => return Reason::GuardNotHeld.into(),
            Ok(other) => return Decision::because(Reason::GuardFailed, format!("`when` gave {other}, not true or false")),
            Err(error) => {
                return Decision { exhausted: error.exhausted, ..Decision::because(Reason::GuardFailed, error.to_string()) };
            }
        }
    }
    Reason::Matched.into()
}

fn criteria(placed: &Placed, fields: &Fields<'_>, facts: &Facts<'_>) -> Result<(), Decision> {
    let rule = &placed.rule;
    let needed = rule.rule.at_least.unwrap_or(rule.tests.len());
    let (mut held, mut left, mut failure) = (0usize, rule.tests.len(), None);
    for ((criterion, (_, test)), slot) in rule.rule.criteria.iter().zip(&rule.tests).zip(test_slots(placed)) {
        left -= 1;
        match test.holds(&fields.slots[slot], facts) {
            Ok(true) => held += 1,
            Ok(false) if rule.rule.at_least.is_none() => return Err(Reason::CriteriaNotHeld.into()),
            Ok(false) => {}
            Err(error) => failure = failure.or_else(|| Some(format!("{}: {error}", criterion.key))),
        }
        if held + left < needed && failure.is_none() {
            return Err(Reason::CriteriaNotHeld.into());
        }
    }
    if held >= needed {
        return Ok(());
    }
    let reason = if failure.is_some() && rule.rule.at_least.is_none() { Reason::CriterionFailed } else { Reason::CriteriaNotHeld };
    Err(Decision { detail: failure, ..reason.into() })
}

/// What the window and the throttle of a rule say of an event that holds, and what they remember of it from now on.
fn hold_back(placed: &Placed, fields: &Fields<'_>, facts: &Facts<'_>, windows: &mut Windows) -> Decision {
    let rule = &placed.rule;
    let (at, now) = facts.at();
    let steps = [(rule.window.as_ref(), false), (rule.throttle.as_ref(), true)];
    for (keyed, is_throttle) in steps.into_iter().filter_map(|(keyed, is_throttle)| Some((keyed?, is_throttle))) {
        let key = match key(keyed, placed, fields, facts, is_throttle) {
            Ok(key) => key,
            Err(error) => return Decision::because(Reason::KeyFailed, error),
        };
        let answer =
            if is_throttle { windows.pass(&rule.name, &key, at, now) } else { windows.hold(&rule.name, &key, at, now, facts.event.id) };
        if answer != Answer::Fires {
            return held(&answer, &key);
        }
    }
    if rule.rule.mode == Mode::Shadow { Reason::Shadowed.into() } else { Reason::Matched.into() }
}

fn miss(placed: &Placed, fields: &Fields<'_>, facts: &Facts<'_>, windows: &mut Windows) {
    if let Some(window) = &placed.rule.window
        && let Ok(key) = key(window, placed, fields, facts, false)
    {
        windows.miss(&placed.rule.name, &key);
    }
}

fn key(keyed: &Keyed, placed: &Placed, fields: &Fields<'_>, facts: &Facts<'_>, of_throttle: bool) -> Result<String, String> {
    let seen = key_slots(placed, of_throttle).iter().map(|slot| &fields.slots[*slot]);
    keyed.by.make(seen, || facts.scope())
}

/// What a window or throttle says, in words.
fn held(answer: &Answer, key: &str) -> Decision {
    let of = |text: String| if key.is_empty() { text } else { format!("{text} of `{key}`") };
    let time = |ms: i64| DateTime::from_timestamp_millis(ms).unwrap_or_default().to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    match answer {
        Answer::Fires => Reason::Matched.into(),
        Answer::Open { have, of: wanted } => Decision::because(Reason::WindowOpen, of(format!("{have} of {wanted} events"))),
        Answer::Armed { until } => {
            Decision::because(Reason::WindowArmed, of(format!("it fires at {} unless something comes", time(*until))))
        }
        Answer::Late { behind } => {
            let behind = std::time::Duration::from_millis(u64::try_from(*behind).unwrap_or(0));
            Decision::because(Reason::Late, of(format!("{} behind the newest event", duration::format(behind))))
        }
        Answer::Throttled { until } => Decision::because(Reason::Throttled, of(format!("not again before {}", time(*until)))),
        Answer::TooManyKeys => Decision::because(Reason::TooManyKeys, format!("there is no room for `{key}`")),
        Answer::LongKey => {
            Decision::because(Reason::KeyFailed, format!("the key has {} bytes, and {MAX_KEY_BYTES} are allowed", key.len()))
        }
    }
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
        let (keys, off, mut windows) = (BTreeMap::new(), Off::new(), Windows::default());
        let live = judge(&book, &event, World { keys: &keys, off: &off }, &mut windows).unwrap();
        let (verdict, _) = explain(book.get("default.r").unwrap(), &event, &Known::default()).unwrap();
        match (live.matches.first(), live.near_misses.first()) {
            (Some(matched), _) => assert_eq!(matched.verdict.reason, verdict.reason),
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
    fn a_missing_name_in_a_parameter_is_told_with_its_place() {
        let book = RuleBook::new([CompiledRule::compile(rule(&[], None, None)).unwrap()]);
        let (keys, off, mut windows) = (BTreeMap::new(), Off::new(), Windows::default());
        let judgement = judge(&book, &event(&json!({"n": 1})), World { keys: &keys, off: &off }, &mut windows).unwrap();
        let fault = judgement.matches[0].parameters.as_ref().unwrap_err();
        assert_eq!(fault, "r.yaml: parameter `app`: in the template: `trigger.app` is missing");
    }

    #[test]
    fn a_guard_that_loops_is_stopped_by_its_budget() {
        let hungry = "<% [1,2,3,4,5,6,7,8].map(|x| [1,2,3,4,5,6,7,8].map(|y| [1,2,3,4,5,6,7,8].map(|z| [1,2,3,4,5,6,7,8].map(|a| [1,2,3,4,5,6,7,8].map(|b| [1,2,3,4,5,6,7,8].map(|c| 1)))))).len() > 0 %>";
        assert_eq!(reason(rule(&[], None, Some(hungry)), &json!({"a": 1})), Reason::GuardFailed);
    }
}
