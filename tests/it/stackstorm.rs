//! Criteria as `StackStorm` has them: its own test cases through our loader and our rules, and what differs on purpose, case by case.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use signalman::document::fault::SourceFile;
use signalman::document::fields::Faults;
use signalman::document::node;
use signalman::model::event::Event;
use signalman::model::ids::IdSource;
use signalman::model::json::RawJson;
use signalman::model::path::FieldPath;
use signalman::model::rule::{Condition, Criterion, Operator};
use signalman::pack::rule;
use signalman::rule::book::CompiledRule;
use signalman::rule::judge::{Known, explain};
use signalman::rule::operators::{Surroundings, Test};
use signalman::rule::seen::Seen;
use signalman::template::value::Scope;

use crate::harness::{repository, shared};

/// What a case comes to.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Outcome {
    Held,
    NotHeld,
    /// Tried, and could not be applied: the rule does not match, and the cause is kept.
    Failed,
    /// Refused by the loader.
    Refused,
}
use Outcome::{Failed, Held, NotHeld, Refused};

/// A case in which we differ on purpose.
struct Difference {
    /// The name of the test that the case comes from.
    case: &'static str,
    /// Which criterion of it: a part of the JSON of the criteria, or of operator and pattern.
    of: &'static str,
    /// What it comes to here.
    ours: Outcome,
    /// Why.
    reason: &'static str,
}

const fn differs(case: &'static str, of: &'static str, ours: Outcome, reason: &'static str) -> Difference {
    Difference { case, of, ours, reason }
}

/// Every case with another outcome. The page of the reference has the same list.
const DIFFERENCES: &[Difference] = &[
    differs(
        "FilterTest.test_criteria_pattern_references_a_datastore_item",
        "inexistent_value",
        Failed,
        "a missing key of the datastore is an error with its name, not empty text",
    ),
    differs("FilterTest.test_equals_operator_fail_criteria", "{% for", Refused, "Jinja does not exist; the loader says so"),
    differs("FilterTest.test_equals_operator_pass_criteria", "{% for", Refused, "Jinja does not exist; the loader says so"),
    differs("FilterTest.test_equals_operator_pass_criteria", "'%s' %", Refused, "Jinja does not exist; the loader says so"),
    differs(
        "RuleMatcherTestCase.test_get_matching_rules",
        "{\"k1\"",
        Refused,
        "a key that leads nowhere is a mistake, and told when it is loaded",
    ),
];

/// The data, where it is here.
fn cases(file: &str) -> Option<Vec<Value>> {
    let Some(shared) = shared() else {
        println!("SKIPPED: the folder with StackStorm's cases is not here");
        return None;
    };
    let path = shared.join("compat").join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    Some(serde_json::from_str(&text).unwrap())
}

struct World {
    now: DateTime<Utc>,
    scope: Scope,
}

impl World {
    fn new(payload: &Value, datastore: &Value) -> Self {
        let kv = json!({"system": datastore});
        let scope = Scope::new(vec![("trigger", payload.clone()), ("kv", kv.clone()), ("st2kv", kv)]);
        Self { now: "2026-01-02T03:04:05Z".parse().unwrap(), scope }
    }
}

impl Surroundings for World {
    fn now(&self) -> DateTime<Utc> {
        self.now
    }

    fn scope(&self) -> Result<&Scope, String> {
        Ok(&self.scope)
    }
}

/// A rule with these criteria, through the loader, or what is wrong with it.
fn load(text: &str) -> Result<CompiledRule, String> {
    let source = SourceFile::new("rules/r.yaml", text);
    let node = node::parse(&source).map_err(|fault| fault.to_string())?;
    let mut faults = Faults::default();
    let rule = rule::read(&source, &node, "default", "r", &mut faults);
    let told: Vec<String> = faults.0.iter().map(ToString::to_string).collect();
    assert_eq!(rule.is_none(), !told.is_empty(), "{told:?}");
    rule.ok_or_else(|| told.join("\n"))
}

/// JSON is YAML.
fn rule_of(criteria: &Value, enabled: bool) -> String {
    json!({"enabled": enabled, "trigger": {"type": "t.e"}, "criteria": criteria, "action": {"ref": "core.noop"}}).to_string()
}

fn event(payload: &Value) -> Event {
    let at = World::new(payload, &json!({})).now;
    Event {
        id: IdSource::seeded(1).event(at),
        trigger: "t.e".into(),
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

/// What a whole rule says, by the loader and the judge.
fn judged(criteria: &Value, enabled: bool, payload: &Value) -> Outcome {
    let Ok(rule) = load(&rule_of(criteria, enabled)) else { return Refused };
    let (rule, event) = (Arc::new(rule), event(payload));
    let (verdict, _) = explain(&rule, &event, &Known::rehearsal(&rule, &event, BTreeMap::new())).unwrap();
    match (verdict.matched, verdict.criteria.iter().any(|criterion| criterion.error.is_some())) {
        (true, _) => Held,
        (false, true) => Failed,
        (false, false) => NotHeld,
    }
}

/// What the criteria say one by one, with these keys in the datastore.
fn tested(criteria: &Value, payload: &Value, datastore: &Value) -> Outcome {
    let world = World::new(payload, datastore);
    let mut all = Held;
    for (key, written) in criteria.as_object().unwrap() {
        let operator = Operator::named(written["type"].as_str().unwrap()).unwrap();
        let criterion = Criterion { key: key.as_str().into(), operator, pattern: written["pattern"].clone(), condition: None };
        let (Ok(path), Ok(test)) = (FieldPath::parse(key), Test::compile(&criterion)) else { return Refused };
        match test.holds(&criterion, &path.first(payload).map_or(Seen::Missing, Seen::of), &world) {
            Ok(true) => {}
            Ok(false) => all = NotHeld,
            Err(_) => return Failed,
        }
    }
    all
}

/// Compares outcomes with what is asserted there, but for the differences, each of which must occur.
fn compare(found: impl IntoIterator<Item = (String, String, bool, Outcome)>, expected_cases: usize, differences: &[&Difference]) {
    let (mut count, mut wrong, mut seen) = (0, Vec::new(), BTreeSet::new());
    for (case, of, expected, ours) in found {
        count += 1;
        let difference = differences.iter().position(|known| case.ends_with(known.case) && of.contains(known.of));
        let wanted = match difference {
            Some(known) => {
                seen.insert(known);
                differences[known].ours
            }
            None if expected => Held,
            None => NotHeld,
        };
        if ours != wanted {
            wrong.push(format!("{case}: {of}: {ours:?}, not {wanted:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!((count, seen.len()), (expected_cases, differences.len()), "every case and every difference is met");
}

#[test]
fn whole_rules_decide_as_stackstorms() {
    let Some(cases) = cases("st2_rule_filters.json") else { return };
    let found = cases.iter().map(|case| {
        let (criteria, payload) = (&case["criteria"], &case["payload"]);
        let text = criteria.to_string();
        let ours = if text.contains("st2kv") {
            load(&rule_of(criteria, true)).unwrap();
            tested(criteria, payload, case.get("datastore_system").unwrap_or(&json!({})))
        } else {
            judged(criteria, case.get("enabled") != Some(&json!(false)), payload)
        };
        (case["source"].as_str().unwrap().to_string(), text, case["expect"] == true, ours)
    });
    compare(found, 41, &DIFFERENCES.iter().collect::<Vec<_>>());
}

#[test]
fn operators_decide_as_stackstorms() {
    let Some(cases) = cases("st2_operators.json") else { return };
    let mut failures = BTreeMap::new();
    let found: Vec<_> = cases
        .iter()
        .map(|case| {
            let (name, pattern) = (case["operator"].as_str().unwrap(), &case["pattern"]);
            let value = if case["value"] == "$NOW" { json!("2026-01-02T03:04:05.000001+00:00") } else { case["value"].clone() };
            let note = case["note"].as_str().unwrap();
            let source = note.split(':').next().unwrap().to_string();
            let ours = operate(name, &value, pattern, case["condition"].as_str());
            if case["expect"] == "error" {
                failures.insert(source.clone(), ours);
            }
            // A null pattern is refused by the loader where it could never hold; the operator itself answers as there.
            if pattern.is_null() && !matches!(Operator::named(name), Some(Operator::Exists | Operator::Nexists) | None) {
                let refused = load(&rule_of(&json!({"trigger.v": {"type": name, "pattern": null}}), true)).unwrap_err();
                assert!(refused.contains("is null, with which nothing holds"), "{refused}");
            }
            (source, format!("{name} {pattern}"), case["expect"] == true, if case["expect"] == "error" { NotHeld } else { ours })
        })
        .collect();
    compare(found, 154, &[]);
    let expected = ["GetOperatorsTest.test_get_operator_with_nonexistent_operator", "SearchOperatorTest.test_search_with_weird_condition"];
    assert_eq!(failures, expected.map(|case| (case.to_string(), Refused)).into());
}

fn operate(name: &str, value: &Value, pattern: &Value, condition: Option<&str>) -> Outcome {
    let Some(operator) = Operator::named(name) else { return Refused };
    let condition = match condition.map(Condition::named) {
        Some(None) => return Refused,
        known => known.flatten(),
    };
    let criterion = Criterion { key: "trigger.v".into(), operator, pattern: pattern.clone(), condition };
    let Ok(test) = Test::compile(&criterion) else { return Refused };
    let payload = json!({"v": value});
    let direct = match test.holds(&criterion, &Seen::of(value), &World::new(&payload, &json!({}))) {
        Ok(true) => Held,
        Ok(false) => NotHeld,
        Err(_) => Failed,
    };
    // The same through the loader and the judge, where the loader takes it.
    let mut written = json!({"type": name, "pattern": pattern});
    if let Some(condition) = condition {
        written["condition"] = json!(condition.name());
    }
    let whole = judged(&json!({"trigger.v": written}), true, &payload);
    assert!(whole == direct || (whole == Refused && pattern.is_null()), "{name} {pattern} {value}: {whole:?}, {direct:?}");
    direct
}

#[test]
fn the_page_has_every_operator_and_every_difference() {
    let page = std::fs::read_to_string(repository().join("docs/reference/stackstorm-compatibility.md")).unwrap();
    for name in Operator::NAMES {
        assert!(page.contains(&format!("`{name}`")), "{name} is not on the page");
    }
    for difference in DIFFERENCES {
        let row = page.lines().find(|line| line.contains(difference.case) && line.contains(difference.of));
        let row = row.unwrap_or_else(|| panic!("{} ({}) is not on the page", difference.case, difference.of));
        assert!(row.contains(difference.reason), "the page has another reason: {row}");
    }
    let listed = page.lines().filter(|line| line.starts_with("| `") && line.contains("TestCase.") | line.contains("FilterTest.")).count();
    assert_eq!(listed, DIFFERENCES.len(), "the page lists what is no difference");
}

#[test]
fn faulty_criteria_are_told_with_their_place() {
    let with = |criteria: &str| format!("trigger: {{type: t.e}}\naction: {{ref: core.noop}}\ncriteria:\n{criteria}");
    let search = |inner: &str| with(&format!("  trigger.l:\n    type: search\n    condition: any\n    pattern:\n{inner}"));
    for (text, told) in [
        (
            with("  trigger.a: {type: search, pattern: {}}\n"),
            &["r.yaml:4:14: error: `search` needs the field `condition`: one of any, all"][..],
        ),
        (
            with("  trigger.a: {type: search, condition: al, pattern: {}}\n"),
            &["r.yaml:4:40: error: `condition` cannot be `al`", "did you mean `all`?"],
        ),
        (
            with("  trigger.a: {type: eq, condition: any, pattern: 1}\n"),
            &["r.yaml:4:36: error: `condition` belongs to `search`, `equals` has none"],
        ),
        (
            with("  trigger.a: {type: search, condition: any, pattern: [1]}\n"),
            &["r.yaml:4:54: error: `search` needs criteria", "item.name:"],
        ),
        (
            with("  trigger.a: {type: equals, pattern: null}\n"),
            &["r.yaml:4:38: error: the pattern of `equals` is null, with which nothing holds", "`exists` and `nexists` test for null"],
        ),
        (with("  trigger.a: {type: gt}\n"), &["r.yaml:4:14: error: a criterion needs the field `pattern`", "`exists` and `nexists`"]),
        (
            with("  trigger.a: {type: gt, pattern: 99999999999999999999}\n"),
            &["r.yaml:4:34: error: the whole number 99999999999999999999 has more than 63 bits", "quote it"],
        ),
        (with("  trigger.a: {type: in, pattern: [1, -99999999999999999999]}\n"), &["r.yaml:4:38: error: the whole number -9999"]),
        (
            with("  trigger.a: {type: regex, pattern: \"a(?!b)\"}\n"),
            &["r.yaml:4:37: error: ", "negative look-ahead (`(?!`)", "trigger.a#2"],
        ),
        (
            with("  trigger.a: {type: eq, pattern: \"{{event.id}}\"}\n"),
            &["r.yaml:4:34: error: in the template: `event.id` is not known here"],
        ),
        (with("  trigger.a: {type: eq, pattern: \"<% kv.system[trigger.b] %>\"}\n"), &["r.yaml:4:34: error: ", "must be named"]),
        (with("  trigger.a b: {type: eq, pattern: 1}\n"), &["r.yaml:4:3: error: `trigger.a b` is not a path", "quote it"]),
        (
            with("  trigger.a: {type: eq, pattern: 1}\n  trigger.a: {type: gt, pattern: 1}\n"),
            &["r.yaml:5:3: error: `trigger.a` stands here a second time"],
        ),
        (search("      item.a: {type: is, pattern: 1}\n"), &["r.yaml:8:22: error: there is no operator `is`"]),
        (search("      itm.a: {type: eq, pattern: 1}\n"), &["r.yaml:8:7: error: `itm.a` must start with `item.`"]),
        (search("      item.a: {type: regex, pattern: \"(\"}\n"), &["r.yaml:8:38: error: `(` is not a regular expression"]),
        (
            search("      item.a: {type: eq, pattern: \"{{trigger.a}}\"}\n"),
            &["r.yaml:8:35: error: in the template: `trigger.a` is not known here"],
        ),
        (
            search("      item.a: {type: eq, patern: 1}\n"),
            &["has no field `patern`", "r.yaml:8:15: error: a criterion needs the field `pattern`"],
        ),
        (
            search("      item.a: {type: eq}\n      item.b: {type: search, pattern: {}}\n"),
            &["r.yaml:8:15: error: a criterion needs the field `pattern`", "r.yaml:9:15: error: `search` needs the field `condition`"],
        ),
    ] {
        let error = load(&text).unwrap_err();
        assert!(told.iter().all(|part| error.contains(part)), "{text}\n{error}");
    }
}

#[test]
fn what_a_search_may_hold_is_kept_as_written() {
    let text = "trigger: {type: t.e}\naction: {ref: core.noop}\ncriteria:\n  trigger.l:\n    type: search\n    condition: all2any\n    pattern:\n      item.a#1: {type: nexists}\n      item.l: {type: search, condition: any, pattern: {item: {type: gt, pattern: \"{{kv.system.x}}\"}}}\n";
    let rule = load(text).unwrap();
    let criterion = &rule.rule.criteria[0];
    let inner = json!({"type": "search", "condition": "any", "pattern": {"item": {"type": "greaterthan", "pattern": "{{kv.system.x}}"}}});
    assert_eq!(
        (&criterion.pattern, criterion.condition),
        (&json!({"item.a#1": {"type": "nexists"}, "item.l": inner}), Some(Condition::All2any))
    );
    assert_eq!(rule.keys().iter().collect::<Vec<_>>(), ["x"]);
}

/// A case of an alias that comes to something else here, and why. The page of the reference has the same list.
const ALIAS_DIFFERENCES: &[(&str, &str, &str)] = &[(
    "skip {{d=test1}} more skip {{e=test1}}.",
    "skip more skip",
    "`.` is any character, and none is left: commands are not padded with blanks, so that `^x$` fits",
)];

/// Formats as `StackStorm` reads them: its own cases through our grammar.
#[test]
fn aliases_are_read_as_stackstorm_reads_them() {
    use signalman::chat::grammar::format::CompiledFormat;
    use signalman::chat::grammar::{normalized, split_pairs, values};
    use signalman::model::action::{Parameter, ParameterType};

    let Some(cases) = cases("st2_alias_formats.json") else { return };
    let (mut wrong, mut met) = (Vec::new(), BTreeSet::new());
    for case in &cases {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
        let (format, input) = (text(&case["format"]), normalized(&text(&case["input"])));
        let multiple = case["match_multiple"] == true;
        let found = if case["format"].is_null() {
            case["expect"].clone()
        } else {
            let compiled = CompiledFormat::compile(&format, multiple).unwrap_or_else(|error| panic!("{format}: {error}"));
            let (body, pairs) = split_pairs(&input);
            if multiple {
                json!(compiled.parse_all(body))
            } else {
                compiled
                    .parse(body)
                    .map_or(json!("error"), |found| json!(found.into_iter().chain(pairs).collect::<serde_json::Map<_, _>>()))
            }
        };
        let mut fits = found == case["expect"];
        if let (Some(expected), Some(found)) = (case["extra"]["final_parameters"].as_object(), found.as_object()) {
            let kind = |name: &str| ParameterType::named(case["extra"]["param_types"][name].as_str().unwrap_or("string"));
            let immutable = case["extra"]["immutable_parameters"].as_object().cloned().unwrap_or_default();
            let all = found.iter().chain(&immutable).map(|(name, value)| {
                let parameter = Parameter { kind: kind(name), ..Parameter::named(name) };
                (name.clone(), values::spoken(&parameter, value))
            });
            fits &= json!(all.collect::<serde_json::Map<_, _>>()) == json!(expected);
        } else if case["extra"]["final_parameters"] == "error" {
            let immutable = case["extra"]["immutable_parameters"].as_object().unwrap();
            fits &= immutable.keys().any(|name| found.get(name).is_some());
        }
        let known = ALIAS_DIFFERENCES.iter().position(|(own, said, _)| *own == format && *said == input);
        let is_template = case["extra"]["immutable_parameters"].to_string().contains("{{");
        match known {
            Some(index) if !fits => {
                met.insert(index);
            }
            // Immutable parameters are fixed values here; the loader says so.
            _ if is_template && !fits => {}
            _ if fits => {}
            _ => wrong.push(format!("{format:?} / {input:?}: {found}, expected {}", case["expect"])),
        }
    }
    assert_eq!(cases.len(), 65);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(met.len(), ALIAS_DIFFERENCES.len(), "a difference that is none any more");
}
