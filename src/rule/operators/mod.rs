//! The operators of criteria, with the meaning they have in `StackStorm` (`st2common/operators.py`): comparisons are
//! type-strict, a value of the wrong type is a failure and not merely a non-match.
//!
//! [`Test`] is what a criterion needs beside itself. `prepared` has the operators, `compare` what is equal and greater, `python` regular expressions
//! and wildcards, `times` times, [`search`] the criteria on items of a list.

mod compare;
mod prepared;
mod python;
pub mod search;
mod times;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

pub use self::compare::{equal, equal_seen};
use self::prepared::Form;
use self::search::Search;
use super::seen::Seen;
use crate::model::rule::{Criterion, Operator};
use crate::template::keys::system_keys;
use crate::template::value::{Scope, ValueTemplate, is_literal};

/// A command's regular expression, in Python's notation, for an engine whose time is linear: letters are either case, and a blank is a run
/// of blanks.
///
/// # Errors
/// What is wrong with it, or cannot be had in linear time.
pub fn command_regex(source: &str) -> Result<String, String> {
    python::translate_words(source)
}

/// The names that patterns may use.
pub const PATTERN_NAMES: &[&str] = &["trigger", "kv", "st2kv"];

/// What surrounds an event, for patterns that are made anew for each.
pub trait Surroundings {
    /// When the event came; times are compared with that.
    fn now(&self) -> DateTime<Utc>;

    /// What templates and expressions in patterns see: `trigger`, and the datastore as `kv` and `st2kv`.
    ///
    /// # Errors
    /// When the payload cannot be read.
    fn scope(&self) -> Result<&Scope, String>;
}

/// What a criterion needs beside its own pattern; nothing where that is compared as it stands, as most are.
#[derive(Debug, Clone)]
pub struct Test(Option<Box<Check>>);

#[derive(Debug, Clone)]
enum Check {
    /// The pattern is the same for every event.
    Fixed(Form),
    /// It is so too, and this is what it looks like without escapes.
    Escaped(Value, Form),
    /// The pattern is made for each event.
    Made(ValueTemplate),
    /// Criteria on items.
    Search(Search),
}

impl Test {
    /// Compiles a criterion's operator and pattern.
    ///
    /// # Errors
    /// When the pattern does not fit the operator.
    pub fn compile(criterion: &Criterion) -> Result<Self, String> {
        Self::compile_at(criterion, PATTERN_NAMES, 0)
    }

    fn compile_at(criterion: &Criterion, names: &[&'static str], depth: usize) -> Result<Self, String> {
        let (operator, pattern) = (criterion.operator, &criterion.pattern);
        if operator == Operator::Search {
            system_keys(pattern)?;
            return Ok(Self::of(Check::Search(Search::compile(criterion, depth)?)));
        }
        if criterion.condition.is_some() {
            return Err(format!("`condition` belongs to `search`, `{}` has none", operator.name()));
        }
        if is_literal(pattern) {
            return Ok(match Form::of(operator, pattern)? {
                Form::AsItIs => Self(None),
                form => Self::of(Check::Fixed(form)),
            });
        }
        system_keys(pattern)?;
        let template = ValueTemplate::compile_pattern(pattern, names)?;
        if let Some(pattern) = template.fixed() {
            let form = Form::of(operator, &pattern)?;
            return Ok(Self::of(Check::Escaped(pattern, form)));
        }
        // That it will be a list or an object is known already.
        let kind = match &template {
            ValueTemplate::List(_) => json!([]),
            ValueTemplate::Map(_) => json!({}),
            _ => Value::Null,
        };
        Form::of(operator, &kind)?;
        Ok(Self::of(Check::Made(template)))
    }

    fn of(check: Check) -> Self {
        Self(Some(Box::new(check)))
    }

    /// Whether the value passes the criterion from which this was compiled. A missing value is the same as null.
    ///
    /// # Errors
    /// When the operator cannot be applied to a value of that type, or the pattern cannot be made.
    pub fn holds(&self, criterion: &Criterion, value: &Seen<'_>, around: &dyn Surroundings) -> Result<bool, String> {
        let holds = |form: &Form, pattern: &Value| form.holds(criterion.operator, pattern, value, around.now());
        match self.0.as_deref() {
            None => holds(&Form::AsItIs, &criterion.pattern),
            Some(Check::Fixed(form)) => holds(form, &criterion.pattern),
            Some(Check::Escaped(pattern, form)) => holds(form, pattern),
            Some(Check::Made(template)) => {
                let pattern = template.render(around.scope()?)?;
                holds(&Form::of(criterion.operator, &pattern)?, &pattern)
            }
            Some(Check::Search(search)) => search.holds(value, around),
        }
    }
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value, reason = "cases read better so")]
mod tests {
    use super::*;
    use crate::model::rule::Condition;

    struct World(Scope);

    impl Surroundings for World {
        fn now(&self) -> DateTime<Utc> {
            "2026-01-02T03:04:05Z".parse().unwrap()
        }

        fn scope(&self) -> Result<&Scope, String> {
            Ok(&self.0)
        }
    }

    fn world() -> World {
        let trigger = json!({"n": 2, "app": "shop", "list": [1, "a"], "nothing": null, "regex": "^s", "evil": "{{kv.system.limit}}"});
        let kv = json!({"system": {"limit": 2, "name": "shop", "a-b": "x"}});
        World(Scope::new(vec![("trigger", trigger), ("kv", kv.clone()), ("st2kv", kv)]))
    }

    fn test(operator: &str, pattern: Value, condition: Option<&str>) -> Result<(Criterion, Test), String> {
        let operator = Operator::named(operator).unwrap();
        let condition = condition.map(|name| Condition::named(name).unwrap());
        let criterion = Criterion { key: "trigger.v".into(), operator, pattern, condition };
        Test::compile(&criterion).map(|test| (criterion, test))
    }

    fn holds(operator: &str, pattern: Value, value: Option<Value>) -> Result<bool, String> {
        let value = value.as_ref().map_or(Seen::Missing, Seen::of);
        let (criterion, test) = test(operator, pattern, None)?;
        test.holds(&criterion, &value, &world())
    }

    fn search(condition: &str, pattern: Value, value: Value) -> Result<bool, String> {
        let (criterion, test) = test("search", pattern, Some(condition))?;
        test.holds(&criterion, &Seen::of(&value), &world())
    }

    #[test]
    fn the_operators_as_in_stackstorm() {
        let cases = [
            ("equals", json!("1"), Some(json!(1)), Ok(false)),
            ("eq", json!(1), Some(json!(1.0)), Ok(true)),
            ("equals", json!(true), Some(json!(1)), Ok(true)),
            ("equals", json!([1, {"a": 2}]), Some(json!([1.0, {"a": 2}])), Ok(true)),
            ("equals", json!("x"), None, Ok(false)),
            ("equals", json!(null), None, Ok(false)),
            ("nequals", json!("True"), Some(json!(true)), Ok(true)),
            ("nequals", json!(null), Some(json!(null)), Ok(false)),
            ("neq", json!("x"), None, Ok(true)),
            ("iequals", json!("ÄbC"), Some(json!("äBc")), Ok(true)),
            ("ieq", json!("abc"), Some(json!("ABD")), Ok(false)),
            ("contains", json!("rr"), Some(json!("error")), Ok(true)),
            ("contains", json!(2), Some(json!([1, 2])), Ok(true)),
            ("contains", json!([2]), Some(json!([[2.0]])), Ok(true)),
            ("contains", json!("k"), Some(json!({"k": null})), Ok(true)),
            ("contains", json!(1), Some(json!({"1": null})), Ok(false)),
            ("ncontains", json!("rr"), Some(json!("error")), Ok(false)),
            ("ncontains", json!(3), Some(json!([1, 2])), Ok(true)),
            ("ncontains", json!(null), Some(json!([1, 2])), Ok(false)),
            ("icontains", json!("NEEDLE"), Some(json!("a Needle")), Ok(true)),
            ("incontains", json!("É"), Some(json!("née")), Ok(false)),
            ("startswith", json!("ab"), Some(json!("abc")), Ok(true)),
            ("startswith", json!("AB"), Some(json!("abc")), Ok(false)),
            ("istartswith", json!("AB"), Some(json!("abc")), Ok(true)),
            ("istartswith", json!("abcd"), Some(json!("abc")), Ok(false)),
            ("istartswith", json!("É"), Some(json!("éa")), Ok(true)),
            ("endswith", json!("bc"), Some(json!("abc")), Ok(true)),
            ("iendswith", json!("BC"), Some(json!("abc")), Ok(true)),
            ("iendswith", json!("aabc"), Some(json!("abc")), Ok(false)),
            ("iendswith", json!("É"), Some(json!("aé")), Ok(true)),
            ("greaterthan", json!(80), Some(json!(80.5)), Ok(true)),
            ("gt", json!(80), Some(json!(80)), Ok(false)),
            ("gt", json!(0), Some(json!(true)), Ok(true)),
            ("lessthan", json!("b"), Some(json!("a")), Ok(true)),
            ("lt", json!(9_007_199_254_740_993_i64), Some(json!(9_007_199_254_740_992_i64)), Ok(true)),
            ("lt", json!(null), Some(json!(1)), Ok(false)),
            ("matchwildcard", json!("web-[0-9]?.*"), Some(json!("web-12.example")), Ok(true)),
            ("regex", json!("^a.c$"), Some(json!("abc")), Ok(true)),
            ("regex", json!("a.c"), Some(json!("a\nc")), Ok(false)),
            ("regex", json!("b"), Some(json!("abc")), Ok(true)),
            ("iregex", json!("B"), Some(json!("abc")), Ok(true)),
            ("matchregex", json!("b"), Some(json!("abc")), Ok(false)),
            ("matchregex", json!(".*c"), Some(json!("a\nc")), Ok(true)),
            ("timediff_gt", json!(4), Some(json!("2026-01-02T03:04:00")), Ok(true)),
            ("td_gt", json!(5), Some(json!("2026-01-02T03:04:00Z")), Ok(false)),
            ("timediff_lt", json!("5.5"), Some(json!("2026-01-02 11:04:00+08:00")), Ok(true)),
            ("td_lt", json!(0), Some(json!("2026-01-03")), Ok(true)),
            ("exists", json!(true), Some(json!(false)), Ok(true)),
            ("exists", json!(null), Some(json!(null)), Ok(false)),
            ("nexists", json!(true), None, Ok(true)),
            ("inside", json!(["a", 1]), Some(json!(true)), Ok(true)),
            ("in", json!("abc"), Some(json!("bc")), Ok(true)),
            ("in", json!({"a": 1}), Some(json!("a")), Ok(true)),
            ("in", json!(["a", null]), None, Ok(true)),
            ("inside", json!(null), Some(json!("a")), Ok(false)),
            ("ninside", json!(null), Some(json!("a")), Ok(false)),
            ("nin", json!(["a"]), Some(json!("b")), Ok(true)),
            ("nin", json!(["a"]), None, Ok(true)),
        ];
        for (operator, pattern, value, expected) in cases {
            assert_eq!(holds(operator, pattern.clone(), value.clone()), expected, "{value:?} {operator} {pattern}");
        }
    }

    #[test]
    fn wrong_types_are_failures() {
        assert_eq!(holds("gt", json!(80), Some(json!("90"))).unwrap_err(), "`greaterthan` cannot compare string with integer");
        assert_eq!(holds("gt", json!(80), None).unwrap_err(), "`greaterthan` cannot compare null with integer");
        assert_eq!(holds("in", json!("abc"), Some(json!(1))).unwrap_err(), "`inside` cannot compare integer with string");
        for operator in
            ["iequals", "icontains", "incontains", "startswith", "istartswith", "endswith", "iendswith", "regex", "matchwildcard"]
        {
            for value in [json!(1), json!(null), json!(["a"]), json!({"a": 1}), json!(true)] {
                assert!(holds(operator, json!("a"), Some(value.clone())).is_err(), "{operator} {value}");
            }
        }
        assert!(holds("contains", json!(1), Some(json!("1"))).is_err());
        assert!(holds("contains", json!("a"), None).is_err());
        assert!(holds("ncontains", json!("a"), Some(json!(1))).is_err());
        assert!(holds("contains", json!(["a"]), Some(json!({"a": 1}))).is_err());
        assert!(holds("td_lt", json!(1), Some(json!(1_700_000_000))).is_err());
        assert!(holds("td_lt", json!(1), Some(json!("yesterday"))).unwrap_err().contains("cannot read `yesterday` as a time"));
    }

    #[test]
    fn patterns_are_checked_when_loading() {
        for (operator, pattern, cause) in [
            ("regex", json!("(a"), "is not a regular expression"),
            ("regex", json!(1), "`regex` needs text as its pattern, not integer"),
            ("regex", json!("a{1000}{1000}{1000}"), "exceeds size limit"),
            ("regex", json!("a(?=b)"), "look-ahead"),
            ("matchwildcard", json!(["{{trigger.n}}"]), "needs text as its pattern, not array"),
            ("lt", json!([1]), "needs a number or text"),
            ("gt", json!({"a": "<% 1 %>"}), "needs a number or text as its pattern, not object"),
            ("in", json!(5), "needs a list, text or an object"),
            ("td_lt", json!("soon"), "needs a number of seconds"),
            ("td_lt", json!("inf"), "needs a number of seconds"),
            ("startswith", json!(true), "needs text"),
            ("equals", json!("{{event.id}}"), "`event.id` is not known here"),
            ("equals", json!("<% item.a %>"), "in the expression"),
            ("equals", json!("<% kv.system[trigger.x] %>"), "must be named"),
        ] {
            let error = holds(operator, pattern.clone(), None).unwrap_err();
            assert!(error.contains(cause), "{operator} {pattern}: {error}");
        }
        assert!(test("equals", json!(1), Some("any")).unwrap_err().contains("`condition` belongs to `search`"));
    }

    #[test]
    fn patterns_are_made_for_each_event() {
        for (operator, pattern, value, expected) in [
            ("equals", json!("{{trigger.n}}"), json!(2), true),
            ("equals", json!("{{ kv.system.limit }}"), json!(2), true),
            ("equals", json!("{{st2kv.system.name}}"), json!("shop"), true),
            ("equals", json!("{{kv.system.[a-b]}}-{{trigger.n}}"), json!("x-2"), true),
            ("gt", json!("<% kv.system.limit * 10 %>"), json!(21), true),
            ("in", json!("{{trigger.list}}"), json!("a"), true),
            ("in", json!(["b", "{{trigger.app}}"]), json!("shop"), true),
            ("regex", json!("{{trigger.regex}}"), json!("shop"), true),
            ("equals", json!("{{trigger.nothing}}"), json!(null), false),
            ("nequals", json!("{{trigger.nothing}}"), json!(null), false),
            ("equals", json!("{{trigger.evil}}"), json!("{{kv.system.limit}}"), true),
            ("equals", json!("\\{{trigger.n}}"), json!("{{trigger.n}}"), true),
            ("equals", json!("<%% 1 %>"), json!("<% 1 %>"), true),
        ] {
            assert_eq!(holds(operator, pattern.clone(), Some(value.clone())), Ok(expected), "{value} {operator} {pattern}");
        }
        assert_eq!(
            holds("equals", json!("{{kv.system.none}}"), Some(json!(1))).unwrap_err(),
            "in the template: `kv.system.none` is missing"
        );
        assert_eq!(holds("regex", json!("{{trigger.n}}"), Some(json!("2"))).unwrap_err(), "`regex` needs text as its pattern, not integer");
    }

    #[test]
    fn a_search_passes_by_its_condition() {
        let two = json!({"item.n#1": {"type": "gt", "pattern": 1}, "item.n#2": {"type": "lt", "pattern": 5}});
        let list = |numbers: &[i64]| json!(numbers.iter().map(|n| json!({"n": n})).collect::<Vec<_>>());
        for (value, any, all, any2any, all2any) in [
            (list(&[2, 3]), true, true, true, true),
            (list(&[0, 3]), true, false, true, true),
            (list(&[0, 9]), false, false, true, true),
            (list(&[]), false, true, false, true),
            (json!({"n": 3}), true, true, true, true),
        ] {
            let found = ["any", "all", "any2any", "all2any"].map(|condition| search(condition, two.clone(), value.clone()).unwrap());
            assert_eq!(found, [any, all, any2any, all2any], "{value}");
        }
        let found = ["any", "all", "any2any", "all2any"].map(|condition| search(condition, json!({}), json!([1])).unwrap());
        assert_eq!(found, [true, true, false, false]);
        assert_eq!(
            search("any", two.clone(), json!(vec![1; 10_001])).unwrap_err(),
            "`search` looks at 10000 items at most, here are 10001"
        );
        assert_eq!(search("any", two.clone(), json!(null)).unwrap_err(), "`search` needs a list or an object, not null");
        assert_eq!(test("search", two.clone(), None).unwrap_err(), "`search` needs a `condition`: one of any, all, any2any, all2any");
    }

    #[test]
    fn criteria_of_a_search_that_fail_count_as_not_held() {
        let above = json!({"item.n": {"type": "gt", "pattern": 1}});
        assert_eq!(search("any", above.clone(), json!([{"n": "x"}, {"n": 2}])), Ok(true));
        assert_eq!(
            search("any", above.clone(), json!([{"n": "x"}, {"m": 2}])).unwrap_err(),
            "`greaterthan` cannot compare string with integer"
        );
        assert_eq!(search("all", above, json!([{"n": 2}, "text"])).unwrap_err(), "`greaterthan` cannot compare null with integer");
    }

    #[test]
    fn a_search_sees_the_item_and_the_datastore_and_may_nest() {
        let same =
            json!({"item.a": {"type": "equals", "pattern": "{{item.b}}"}, "item.limit": {"type": "lt", "pattern": "{{kv.system.limit}}"}});
        assert_eq!(search("any", same, json!([{"a": 1, "b": 2, "limit": 1}, {"a": 2, "b": 2, "limit": 1}])), Ok(true));
        let inner = |pattern: Value| json!({"item.list": {"type": "search", "condition": "any", "pattern": pattern}});
        let deep = inner(json!({"item": {"type": "eq", "pattern": "<% st2kv.system.limit %>"}}));
        assert_eq!(search("all", deep, json!([{"list": [1, 2]}, {"list": [2]}])), Ok(true));
        let nested = |levels: usize| (0..levels).fold(json!({"item": {"type": "exists"}}), |pattern, _| inner(pattern));
        assert!(test("search", nested(3), Some("any")).is_ok());
        assert!(test("search", nested(4), Some("any")).unwrap_err().contains("more than 4 deep"));
        for (pattern, cause) in [
            (json!({"item.a": {"type": "eq", "pattern": "{{trigger.n}}"}}), "item.a: in the template: `trigger.n` is not known here"),
            (json!({"trigger.a": {"type": "eq", "pattern": 1}}), "must start with `item.`"),
            (json!({"item.a": {"type": "is", "pattern": 1}}), "there is no operator `is`"),
            (json!({"item.a": {"pattern": 1}}), "needs the field `type`"),
            (json!({"item.a": 5}), "needs the field `type`"),
            (json!({"item.a": {"type": "regex", "pattern": "("}}), "is not a regular expression"),
            (json!([]), "by key, not array"),
        ] {
            let error = test("search", pattern.clone(), Some("any")).unwrap_err();
            assert!(error.contains(cause), "{pattern}: {error}");
        }
    }

    #[test]
    fn a_megabyte_of_text_is_compared_in_linear_time() {
        let text = json!("aé".repeat(350_000));
        for (operator, pattern, expected) in [
            ("regex", json!("^(a+)+$"), false),
            ("iequals", text.clone(), true),
            ("icontains", json!("ÉAÉAb"), false),
            ("iendswith", json!("É"), true),
            ("contains", json!(format!("{}b", "aé".repeat(1_000))), false),
            ("matchwildcard", json!("*a*a*a*a*b"), false),
        ] {
            assert_eq!(holds(operator, pattern, Some(text.clone())), Ok(expected), "{operator}");
        }
    }
}
