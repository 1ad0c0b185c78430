//! Decides which rules match an event. Live evaluation, `rule test`, `event why` and `rule why` all end in [`decide`].

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock, OnceLock};

use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};

use super::book::{CompiledRule, Keyed, Placed, RuleBook, Shelf};
use super::fields::Fields;
use super::operators::{Surroundings, equal_seen};
use super::seen::Seen;
use super::switch;
use super::windows::{Answer, Origin, Windows};
use crate::model::duration;
use crate::model::event::Event;
use crate::model::ids::ExecutionId;
use crate::model::path::{FieldPath, Step, first};
use crate::model::reason::Reason;
use crate::model::rule::Mode;
use crate::model::verdict::{CriterionVerdict, MAX_NEAR_MISSES, StoredVerdict, Verdict};
use crate::model::window::MAX_KEY_BYTES;
use crate::template::value::Scope;

/// What the rules say about an event.
pub struct Judgement<'e> {
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
        let (rule, revision) = (self.rule.rule.reference.to_string(), self.rule.revision());
        StoredVerdict { rule, revision, reason: Reason::Matched, values: self.values.clone(), execution, detail: None }
    }
}

/// What is not in the event and counts all the same.
#[derive(Clone, Copy)]
pub struct World<'w> {
    /// The keys of the datastore.
    pub keys: &'w BTreeMap<String, Value>,
    /// Rules that are not tried, and why.
    pub off: &'w Off,
}

impl World<'static> {
    /// No keys, and every rule is tried.
    #[must_use]
    pub fn empty() -> Self {
        static EMPTY: LazyLock<(BTreeMap<String, Value>, Off)> = LazyLock::new(Default::default);
        Self { keys: &EMPTY.0, off: &EMPTY.1 }
    }
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
    /// What rules that name keys see of them. A key that holds null counts as missing: a missing one is stored as null with the event,
    /// and must be missing again when somebody asks why.
    fn new<'k>(event: &'e Event, names: impl IntoIterator<Item = &'k String>, keys: &BTreeMap<String, Value>) -> Self {
        let held = |name: &String| keys.get(name).filter(|value| !value.is_null()).cloned();
        let keys = names.into_iter().filter_map(|name| Some((name.clone(), held(name)?))).collect();
        Self { event, keys, deadline: None, scope: OnceLock::new() }
    }

    /// What a path into the datastore leads to.
    fn key(&self, path: &FieldPath) -> Seen<'static> {
        let found = path.steps.first().and_then(|step| if let Step::Field(name) = step { self.keys.get(name) } else { None });
        found.and_then(|value| first(&path.steps[1..], value)).map_or(Seen::Missing, |value| Seen::owned(value.clone()))
    }

    fn at(&self) -> (i64, i64) {
        (self.event.occurred_at.timestamp_millis(), self.event.received_at.timestamp_millis())
    }
}

/// Judges an event by all rules of its trigger.
///
/// # Errors
/// When the payload cannot be read; then nothing has changed in the windows.
pub fn judge<'e>(book: &RuleBook, event: &'e Event, world: World<'_>, windows: &mut Windows) -> Result<Judgement<'e>, String> {
    let shelf = book.shelves.get(&event.trigger);
    let mut judgement = Judgement {
        matches: Vec::new(),
        near_misses: Vec::new(),
        more_near_misses: 0,
        keys: Map::new(),
        overruns: Vec::new(),
        facts: Facts::new(event, shelf.map_or(&NO_KEYS, |shelf| &shelf.keys), world.keys),
    };
    let Some(shelf) = shelf else { return Ok(judgement) };
    let fields = shelf.reader.read(event.payload.text())?;
    let candidates = shelf.candidates(&fields);
    let mut matched = false;
    for backstop in [false, true] {
        if backstop && (matched || !shelf.has_backstops) {
            break;
        }
        for placed in candidates.iter().map(|position| &shelf.rules[*position as usize]) {
            let rule = &placed.rule;
            if rule.rule.backstop != backstop || (!world.off.is_empty() && world.off.contains_key(rule.name())) {
                continue;
            }
            let facts = &judgement.facts;
            let mut decision = decide(placed, &fields, facts);
            if decision.reason == Reason::Matched {
                matched = true; // one that its window or throttle holds counts
                decision = hold_back(placed, &fields, facts, windows);
            } else if rule.counts_misses() && decision.reason != Reason::TriggerParameters {
                miss(placed, &fields, facts, windows);
            }
            if decision.exhausted {
                judgement.overruns.push(Arc::clone(rule));
            }
            for name in rule.keys() {
                let value = facts.keys.get(name).cloned().unwrap_or(Value::Null);
                if value.to_string().len() <= KEY_BYTES {
                    judgement.keys.insert(name.clone(), value);
                }
            }
            if !decision.is_kept() {
                continue;
            }
            let values = || seen(placed, &fields, facts).map(|seen| seen.to_value()).collect();
            if decision.reason == Reason::Matched {
                judgement.matches.push(Match { rule: Arc::clone(rule), values: values() });
            } else if make_room(&mut judgement.near_misses, &mut judgement.more_near_misses, decision.reason) {
                judgement.near_misses.push(StoredVerdict {
                    rule: rule.rule.reference.to_string(),
                    revision: rule.revision(),
                    reason: decision.reason,
                    values: values(),
                    execution: None,
                    detail: decision.detail,
                });
            }
        }
    }
    Ok(judgement)
}

/// Whether a near-miss is kept. The first that held is in any case, since it is why backstops are not tried.
fn make_room(kept: &mut Vec<StoredVerdict>, more: &mut u32, reason: Reason) -> bool {
    if kept.len() < MAX_NEAR_MISSES {
        return true;
    }
    *more += 1;
    let is_first = reason.passed_guard() && !kept.iter().any(|kept| kept.reason.passed_guard());
    if is_first {
        kept.pop();
    }
    is_first
}

/// The longest value of a key that is kept with an event, in bytes of JSON.
const KEY_BYTES: usize = 4 << 10;

/// What the rules of a trigger that nobody listens to name.
const NO_KEYS: BTreeSet<String> = BTreeSet::new();

/// What a rule runs that has waited for silence long enough: the parameters of its action, or nothing if its throttle holds it. `last` is
/// the last event of the key; without one its payload is empty.
pub fn silence(
    rule: &Arc<CompiledRule>,
    last: &Event,
    deadline: DateTime<Utc>,
    world: World<'_>,
    windows: &mut Windows,
) -> Option<Rendered> {
    let mut facts = Facts::new(last, rule.keys(), world.keys);
    facts.deadline = Some(deadline);
    if let Some(throttle) = rule.throttle.as_deref() {
        let shelf = Shelf::of([Arc::clone(rule)]);
        let read = shelf.reader.read(last.payload.text());
        let key = read.and_then(|fields| key(throttle, &shelf.rules[0], &fields, &facts, true));
        let at = deadline.timestamp_millis();
        match key {
            Ok(key) if windows.pass(rule.name(), &key, at, at) != Answer::Fires => return None,
            Ok(_) => {}
            Err(error) => return Some(Err(format!("the key of the throttle: {error}"))),
        }
    }
    Some(parameters(rule, &facts))
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

impl Known<'static> {
    /// What is known when a rule is tried on an event that never came.
    #[must_use]
    pub fn rehearsal(rule: &CompiledRule, event: &Event, keys: BTreeMap<String, Value>) -> Self {
        let off = switch::off(&rule.rule, &rule.revision(), &[], event.received_at);
        Self { keys, off, stored: None, is_past: false, another_matched: false }
    }
}

/// Explains what one rule says about an event, with the value that every criterion saw; and the parameters if it matches.
///
/// # Errors
/// When the payload cannot be read.
pub fn explain(rule: &Arc<CompiledRule>, event: &Event, known: &Known<'_>) -> Result<(Verdict, Option<Rendered>), String> {
    let verdict = |matched, reason, criteria, detail| Verdict {
        rule: rule.rule.reference.to_string(),
        revision: rule.revision(),
        matched,
        reason,
        criteria,
        detail,
    };
    if event.trigger != *rule.rule.trigger {
        let detail = format!("the event is of `{}`, the rule listens to `{}`", event.trigger, rule.rule.trigger);
        return Ok((verdict(false, Reason::OtherTrigger, Vec::new(), Some(detail)), None));
    }
    let shelf = Shelf::of([Arc::clone(rule)]);
    let fields = shelf.reader.read(event.payload.text())?;
    let placed = &shelf.rules[0];
    let facts = Facts::new(event, rule.keys(), &known.keys);
    let mut criteria = Vec::with_capacity(rule.tests.len());
    for ((criterion, test), value) in rule.rule.criteria.iter().zip(&rule.tests).zip(seen(placed, &fields, &facts)) {
        let (held, error) = match test.holds(criterion, &value, &facts) {
            Ok(held) => (held, None),
            Err(error) => (false, Some(error)),
        };
        let (key, operator, pattern) = (criterion.key.to_string(), criterion.operator.name().to_string(), criterion.pattern.clone());
        criteria.push(CriterionVerdict { key, operator, pattern, value: value.to_value(), held, error });
    }
    let decision = match &known.off {
        Some((reason, detail)) => Decision { detail: Some(detail.clone()).filter(|detail| !detail.is_empty()), ..(*reason).into() },
        None if known.another_matched && rule.rule.backstop && known.stored.is_none() => Reason::BackstopNotNeeded.into(),
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
    /// Whether an operator failed because there was no value.
    nothing: bool,
}

impl From<Reason> for Decision {
    fn from(reason: Reason) -> Self {
        Self { reason, detail: None, exhausted: false, nothing: false }
    }
}

impl Decision {
    fn because(reason: Reason, detail: impl Into<String>) -> Self {
        Self { detail: Some(detail.into()), ..reason.into() }
    }

    /// Matches, near-misses and failures are stored; the rest can be recomputed. So can the failure of an operator that had no value:
    /// what a rule wants of one kind of event is missing in all others.
    fn is_kept(&self) -> bool {
        match self.reason {
            Reason::GuardNotHeld | Reason::GuardFailed => true,
            Reason::CriterionFailed => !self.nothing,
            reason => reason.passed_guard(),
        }
    }
}

/// What the criteria see; their slots lie behind those of the trigger parameters.
fn seen<'f, 'p: 'f>(placed: &'f Placed, fields: &'f Fields<'p>, facts: &'f Facts<'_>) -> impl Iterator<Item = Cow<'f, Seen<'p>>> {
    let rule = &placed.rule;
    let slots = placed.slots[rule.rule.trigger_parameters.len()..].iter().take(rule.tests.len());
    slots.enumerate().map(|(criterion, slot)| match fields.slots.get(*slot as usize) {
        Some(seen) => Cow::Borrowed(seen),
        None => Cow::Owned(facts.key(&rule.path(criterion))),
    })
}

/// The slots of the keys of its window and its throttle.
fn key_slots(placed: &Placed, of_throttle: bool) -> &[u32] {
    let rule = &placed.rule;
    let slots = &placed.slots[rule.rule.trigger_parameters.len() + rule.tests.len()..];
    let of_window = rule.window.as_ref().map_or(0, |window| window.by.paths().count());
    if of_throttle { &slots[of_window..] } else { &slots[..of_window] }
}

/// What a rule says of an event before its window and throttle: trigger parameters, criteria with `at_least`, guard.
fn decide(placed: &Placed, fields: &Fields<'_>, facts: &Facts<'_>) -> Decision {
    let rule = &placed.rule;
    for (index, slot) in placed.slots[..rule.rule.trigger_parameters.len()].iter().enumerate() {
        let seen = &fields.slots[*slot as usize];
        if *seen == Seen::Missing || !equal_seen(seen, &rule.rule.trigger_parameters[index].1) {
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
    let (at_least, needed) = (rule.rule.at_least, rule.rule.needed());
    let (mut held, mut left, mut failure, mut nothing) = (0usize, rule.tests.len(), None, false);
    for ((criterion, test), value) in rule.rule.criteria.iter().zip(&rule.tests).zip(seen(placed, fields, facts)) {
        left -= 1;
        match test.holds(criterion, &value, facts) {
            Ok(true) => held += 1,
            Ok(false) if at_least.is_none() => return Err(Reason::CriteriaNotHeld.into()),
            Ok(false) => {}
            Err(error) => {
                failure = failure.or_else(|| Some(format!("{}: {error}", criterion.key)));
                nothing |= value.is_nothing();
            }
        }
        if held + left < needed && failure.is_none() {
            return Err(Reason::CriteriaNotHeld.into());
        }
    }
    if held >= needed {
        return Ok(());
    }
    let reason = if failure.is_some() && at_least.is_none() { Reason::CriterionFailed } else { Reason::CriteriaNotHeld };
    Err(Decision { detail: failure, nothing, ..reason.into() })
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
        let answer = if is_throttle {
            windows.pass(rule.name(), &key, at, now)
        } else {
            windows.hold(rule.name(), &key, at, now, Origin { id: facts.event.id, source: &facts.event.source })
        };
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
        let (at, now) = facts.at();
        windows.miss(placed.rule.name(), &key, at, now);
    }
}

fn key(keyed: &Keyed, placed: &Placed, fields: &Fields<'_>, facts: &Facts<'_>, of_throttle: bool) -> Result<String, String> {
    let seen = key_slots(placed, of_throttle).iter().map(|slot| &fields.slots[*slot as usize]);
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
    for (template, (name, source)) in rule.parameters().iter().zip(&rule.rule.parameters) {
        let value = template.render(scope).map_err(|error| format!("{}: parameter `{name}`: {error}", rule.rule.place(source.at)))?;
        rendered.insert(name.to_string(), value);
    }
    Ok(rendered)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::IdSource;
    use crate::model::json::RawJson;
    use crate::model::place::Spot;
    use crate::model::rule::{Criterion, DEFAULT_CEILING, DEFAULT_LATE, Operator, Rule, Source};

    fn rule(criteria: &[(&str, Operator, Value)], at_least: Option<u32>, when: Option<&str>) -> Rule {
        let criteria = criteria.iter().map(|(key, operator, pattern)| Criterion {
            key: (*key).into(),
            operator: *operator,
            pattern: pattern.clone(),
            condition: None,
        });
        Rule {
            reference: "default.r".into(),
            description: "".into(),
            enabled: true,
            mode: Mode::Active,
            trigger: "core.webhook".into(),
            trigger_parameters: [].into(),
            criteria: criteria.collect(),
            at_least,
            backstop: false,
            window: None,
            throttle: None,
            late: DEFAULT_LATE,
            ceiling: DEFAULT_CEILING,
            when: when.map(|when| Box::new(Source { value: when.into(), at: Spot::default() })),
            action: "core.noop".into(),
            parameters: [("app".into(), Source { value: json!("{{trigger.app}}"), at: Spot::default() })].into(),
            notify: None,
            file: "r.yaml".into(),
            action_at: Spot::default(),
            trigger_at: Spot::default(),
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
        let live = judge(&book, &event, World::empty(), &mut Windows::default()).unwrap();
        let (verdict, _) = explain(book.get("default.r").unwrap(), &event, &Known::default()).unwrap();
        match (live.matches.first(), live.near_misses.first()) {
            (Some(matched), _) => assert_eq!(matched.verdict(None).reason, verdict.reason),
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
        let event = event(&json!({"n": 1}));
        let judgement = judge(&book, &event, World::empty(), &mut Windows::default()).unwrap();
        let fault = judgement.parameters(&judgement.matches[0].rule).unwrap_err();
        assert_eq!(fault, "r.yaml: parameter `app`: in the template: `trigger.app` is missing");
    }

    #[test]
    fn a_guard_that_loops_is_stopped_by_its_budget() {
        let hungry = "<% [1,2,3,4,5,6,7,8].map(|x| [1,2,3,4,5,6,7,8].map(|y| [1,2,3,4,5,6,7,8].map(|z| [1,2,3,4,5,6,7,8].map(|a| [1,2,3,4,5,6,7,8].map(|b| [1,2,3,4,5,6,7,8].map(|c| 1)))))).len() > 0 %>";
        assert_eq!(reason(rule(&[], None, Some(hungry)), &json!({"a": 1})), Reason::GuardFailed);
    }
}
