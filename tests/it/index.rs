//! The index of rules: what it finds is what trying every rule finds, whatever the rules and the events are.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use signalman::model::event::Event;
use signalman::model::ids::IdSource;
use signalman::model::json::RawJson;
use signalman::model::place::Spot;
use signalman::model::rule::{Condition, Criterion, DEFAULT_CEILING, DEFAULT_LATE, Mode, Operator, Rule, Source};
use signalman::model::verdict::MAX_NEAR_MISSES;
use signalman::rule::book::{CompiledRule, RuleBook};
use signalman::rule::judge::{Known, World, explain, judge};
use signalman::rule::windows::Windows;

use crate::harness::{Random, seed, times};

const TRIGGER: &str = "t.seen";

/// Fields of payloads and rules. They are few, so that rules and events meet.
const FIELDS: &[&str] = &[
    "a",
    "b",
    "n",
    "m",
    "text",
    "inner.x",
    "inner.y",
    "list[0].x",
    "list[*].y",
    "['odd.name']",
    "inner",
    "list",
    "a[*]",
    "list[-1].x",
    "inner.*",
    ".x",
    "text[*]",
];

impl Random {
    pub fn of<'v, T>(&mut self, values: &'v [T]) -> &'v T {
        &values[self.below(values.len() as u64) as usize]
    }

    pub fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }
}

/// Numbers around the edges of what whole numbers and doubles hold, and small ones that meet each other.
fn number(random: &mut Random) -> Value {
    match random.below(8) {
        0 => json!(random.of(&[i64::MIN, i64::MIN + 1, -1, 0, i64::MAX - 1, i64::MAX])),
        1 => json!(9_007_199_254_740_990_i64 + random.below(6) as i64),
        2 => json!(u64::MAX - random.below(3)),
        3 => json!(*random.of(&[-0.0, 0.0, 0.5, 1.0, 9_007_199_254_740_992.0, 9_223_372_036_854_775_807.0, 1e300, -1e-300])),
        4 => json!(random.below(8) as f64 / 2.0),
        _ => json!(random.below(8)),
    }
}

fn text(random: &mut Random) -> String {
    let parts = ["", "w", "we", "web", "-", "-1", "db", "1", "ä", "Ä", "\"\\", "WEB"];
    (0..=random.below(3)).map(|_| *random.of(&parts)).collect()
}

pub fn scalar(random: &mut Random) -> Value {
    match random.below(8) {
        0 => Value::Null,
        1 => json!(random.one_in(2)),
        2..=4 => number(random),
        _ => json!(text(random)),
    }
}

fn value(random: &mut Random) -> Value {
    match random.below(12) {
        0 => json!([scalar(random), scalar(random)]),
        1 => json!([{"x": scalar(random), "y": scalar(random)}, {"y": scalar(random)}]),
        2 => json!({"x": scalar(random)}),
        3 => json!({}),
        _ => scalar(random),
    }
}

/// What may stand as the pattern of an operator: mostly what it takes.
fn pattern(random: &mut Random, operator: Operator) -> Value {
    match random.below(10) {
        0 => return value(random),
        1 if random.one_in(3) => return json!(random.of(&["{{trigger.a}}", "<% trigger.n %>", "<% trigger.inner.x %>"])),
        _ => {}
    }
    match operator {
        Operator::Equals | Operator::Nequals | Operator::Exists | Operator::Nexists | Operator::Contains | Operator::Ncontains => {
            scalar(random)
        }
        Operator::Greaterthan | Operator::Lessthan | Operator::TimediffGt | Operator::TimediffLt => number(random),
        Operator::Inside | Operator::Ninside => (0..random.below(5)).map(|_| scalar(random)).collect(),
        Operator::Regex | Operator::Iregex | Operator::Matchregex => json!(random.of(&["^w", "b$", "w.*1", "[0-9]", ""])),
        Operator::Matchwildcard => json!(random.of(&["*", "w*", "*1", "we?", "[dw]*", ""])),
        Operator::Search => json!({"item.x": {"type": "eq", "pattern": scalar(random)}, "item.y": {"type": "exists", "pattern": true}}),
        _ => json!(text(random)),
    }
}

fn criterion(random: &mut Random) -> Criterion {
    let operators =
        [Operator::Equals, Operator::Inside, Operator::Greaterthan, Operator::Lessthan, Operator::Startswith, Operator::Endswith];
    let operator = if random.one_in(2) { *random.of(&operators) } else { *random.of(Operator::ALL) };
    let (field, tag) = (*random.of(FIELDS), if random.one_in(4) { "#again" } else { "" });
    let dot = if field.starts_with('[') { "" } else { "." };
    let condition =
        (operator == Operator::Search).then(|| *random.of(&[Condition::Any, Condition::All, Condition::Any2any, Condition::All2any]));
    Criterion { key: format!("trigger{dot}{field}{tag}").into(), operator, pattern: pattern(random, operator), condition }
}

/// A rule that can be compiled. What no version carries out yet is left out.
pub fn rule(random: &mut Random, number: usize) -> Rule {
    loop {
        let mut criteria: Vec<Criterion> = (0..random.below(5)).map(|_| criterion(random)).collect();
        if random.one_in(4) {
            // Two ends of one field.
            let (low, high) = (json!(random.below(6)), json!(random.below(10)));
            let limit = |operator, pattern, tag| Criterion { key: format!("trigger.n#{tag}").into(), operator, pattern, condition: None };
            criteria.extend([limit(Operator::Greaterthan, low, 1), limit(Operator::Lessthan, high, 2)]);
        }
        let at_least = (!criteria.is_empty() && random.one_in(3)).then(|| 1 + random.below(criteria.len() as u64) as u32);
        let guards = ["<% trigger.n == 1 %>", "<% true %>", "<% trigger.inner.x.y %>", "<% 7 %>"];
        let rule = Rule {
            reference: format!("t.r{number:04}").into(),
            description: "".into(),
            enabled: true,
            mode: if random.one_in(8) { Mode::Shadow } else { Mode::Active },
            trigger: TRIGGER.into(),
            trigger_parameters: (0..random.below(8) / 6).map(|_| ((*random.of(&["a", "b", "inner.x"])).into(), value(random))).collect(),
            criteria: criteria.into(),
            at_least,
            when: random.one_in(6).then(|| Box::new(Source { value: (*random.of(&guards)).into(), at: Spot::default() })),
            backstop: false,
            window: None,
            throttle: None,
            late: DEFAULT_LATE,
            ceiling: DEFAULT_CEILING,
            action: "core.noop".into(),
            parameters: [].into(),
            notify: None,
            file: "".into(),
            action_at: Spot::default(),
            trigger_at: Spot::default(),
        };
        if CompiledRule::compile(rule.clone()).is_ok() {
            return rule;
        }
    }
}

/// Text, because a payload may have a key twice.
pub fn payload(random: &mut Random, edge: &Value) -> String {
    let mut fields: Vec<(&str, String)> = Vec::new();
    for name in ["a", "b", "n", "m", "text", "odd.name", "unread", "inner", "list"] {
        if random.one_in(4) {
            continue;
        }
        for _ in 0..1 + random.below(9) / 8 {
            let value = match name {
                _ if random.one_in(10) => value(random),
                "inner" => json!({"x": scalar(random), "y": value(random)}),
                "list" => json!([{"x": scalar(random)}, {"y": scalar(random)}]),
                "text" => json!(text(random)),
                "n" | "m" if random.one_in(3) => edge.clone(),
                "n" | "m" => number(random),
                _ => scalar(random),
            };
            fields.push((name, value.to_string()));
        }
    }
    let fields: Vec<String> = fields.iter().map(|(name, value)| format!("{}: {value}", json!(name))).collect();
    match random.below(40) {
        0 => value(random).to_string(),
        _ => format!("{{{}}}", fields.join(", ")),
    }
}

fn event(ids: &IdSource, payload: &str) -> Event {
    let at = chrono::DateTime::from_timestamp_millis(1_700_000_000_000).unwrap();
    Event {
        id: ids.event(at),
        trigger: TRIGGER.into(),
        key: None,
        dedup_key: None,
        occurred_at: at,
        received_at: at,
        source: "test".into(),
        cause: None,
        depth: 0,
        payload: RawJson::parse(payload).unwrap(),
    }
}

fn compiled(rules: &[Rule]) -> Vec<CompiledRule> {
    rules.iter().map(|rule| CompiledRule::compile(rule.clone()).unwrap()).collect()
}

/// The kept verdicts: matches, near-misses, and how many more.
fn verdicts(book: &RuleBook, event: &Event) -> Value {
    let judgement = judge(book, event, World::empty(), &mut Windows::default()).unwrap();
    let matches: Vec<_> = judgement.matches.iter().map(|matched| matched.verdict(None)).collect();
    json!({"matches": matches, "near": judgement.near_misses, "more": judgement.more_near_misses})
}

/// Some rules of their own for each round, of few kinds or many, and events that are made to meet them.
#[test]
fn the_index_finds_what_trying_every_rule_finds() {
    let mut random = Random(seed());
    let ids = IdSource::seeded(random.0);
    let (mut matches, mut near) = (0, 0);
    for _ in 0..times(30, 300) {
        let rules: Vec<Rule> = (0..1 + random.below(200) as usize).map(|number| rule(&mut random, number)).collect();
        let (indexed, plain) = (RuleBook::new(compiled(&rules)), RuleBook::unindexed(compiled(&rules)));
        for _ in 0..50 {
            let edge = random.of(&rules).criteria.first().map_or(Value::Null, |criterion| criterion.pattern.clone());
            let text = payload(&mut random, &edge);
            let event = event(&ids, &text);
            let (found, expected) = (verdicts(&indexed, &event), verdicts(&plain, &event));
            if found != expected {
                blame(&rules, &event, &found, &expected);
            }
            matches += expected["matches"].as_array().unwrap().len();
            near += expected["near"].as_array().unwrap().len();
        }
    }
    assert!(matches > 1_000 && near > 1_000, "rules and events do not meet: {matches} matches, {near} near-misses");
}

/// Says which rules they are.
fn blame(rules: &[Rule], event: &Event, found: &Value, expected: &Value) -> ! {
    let verdicts = |all: &Value| [&all["matches"], &all["near"]].map(|some| some.as_array().unwrap().clone()).concat();
    let differs = |verdict: &&Value| !verdicts(found).contains(verdict) || !verdicts(expected).contains(verdict);
    let names: Vec<Value> =
        verdicts(found).iter().chain(&verdicts(expected)).filter(differs).map(|verdict| verdict["rule"].clone()).collect();
    let blamed: Vec<&Rule> = rules.iter().filter(|rule| names.contains(&json!(rule.reference))).collect();
    panic!("payload {}\nfound {found:#}\nexpected {expected:#}\nrules {blamed:#?}", event.payload.text());
}

/// What is kept has the reason that is told when somebody asks.
#[test]
fn kept_verdicts_are_explained_by_the_same_reasons() {
    let mut random = Random(seed() + 1);
    let ids = IdSource::seeded(random.0);
    for _ in 0..times(10, 200) {
        let rules: Vec<Rule> = (0..MAX_NEAR_MISSES).map(|number| rule(&mut random, number)).collect();
        let book = RuleBook::new(compiled(&rules));
        for _ in 0..20 {
            let event = event(&ids, &payload(&mut random, &Value::Null));
            let judgement = judge(&book, &event, World::empty(), &mut Windows::default()).unwrap();
            let kept = judgement.matches.iter().map(|matched| matched.verdict(None)).chain(judgement.near_misses);
            let kept: Map<String, Value> = kept.map(|verdict| (verdict.rule.clone(), json!(verdict))).collect();
            for rule in book.iter() {
                told(rule, &event, kept.get(&*rule.rule.reference));
            }
        }
    }
}

fn told(rule: &Arc<CompiledRule>, event: &Event, kept: Option<&Value>) {
    let (verdict, _) = explain(rule, event, &Known::default()).unwrap();
    let about = || format!("{} of {:#?}", event.payload.text(), rule.rule);
    let values: Vec<&Value> = verdict.criteria.iter().map(|criterion| &criterion.value).collect();
    if let Some(kept) = kept {
        assert_eq!(kept["reason"], json!(verdict.reason), "{}", about());
        assert_eq!(kept.get("detail"), verdict.detail.as_ref().map(|detail| json!(detail)).as_ref(), "{}", about());
        assert_eq!(kept.get("values").cloned().unwrap_or(json!([])), json!(values), "{}", about());
        return;
    }
    let failed_on_nothing = verdict.criteria.iter().any(|criterion| criterion.error.is_some() && criterion.value.is_null());
    let told = verdict.reason.code();
    let dropped =
        ["criteria_not_held", "trigger_parameters", "empty_payload"].contains(&told) || told == "criterion_failed" && failed_on_nothing;
    assert!(dropped, "{told} is not kept: {}", about());
}
