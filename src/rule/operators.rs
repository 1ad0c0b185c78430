//! The operators of criteria, with the meaning they have in `StackStorm` (`st2common/operators.py`): comparisons are
//! type-strict, a value of the wrong type is a failure and not merely a non-match.

use std::cmp::Ordering;

use chrono::{DateTime, Utc};
use regex::{Regex, RegexBuilder};
use serde_json::Value;

use super::seen::Seen;
use crate::model::json::type_name;
use crate::model::rule::{Criterion, Operator};
use crate::template::value::Scope;

/// The largest compiled size of a regular expression; the engine's time is linear in the text in any case.
const REGEX_BYTES: usize = 1 << 20;

/// What surrounds an event, for patterns that are made anew for each.
pub trait Surroundings {
    /// When the event came; times are compared with that.
    fn now(&self) -> DateTime<Utc>;

    /// What templates and expressions in patterns see.
    ///
    /// # Errors
    /// When the payload cannot be read.
    fn scope(&self) -> Result<&Scope, String>;
}

/// A criterion, compiled.
#[derive(Debug, Clone)]
pub struct Test {
    operator: Operator,
    pattern: Value,
    regex: Option<Regex>,
}

impl Test {
    /// Compiles a criterion's operator and pattern.
    ///
    /// # Errors
    /// When the pattern does not fit the operator.
    pub fn compile(criterion: &Criterion) -> Result<Self, String> {
        let (operator, pattern) = (criterion.operator, criterion.pattern.clone());
        let regex = match (operator, &pattern) {
            (Operator::Regex, Value::String(text)) => {
                let compiled = RegexBuilder::new(text).size_limit(REGEX_BYTES).build();
                Some(compiled.map_err(|error| format!("`{text}` is not a regular expression: {}", last_line(&error.to_string())))?)
            }
            (Operator::Regex, other) => return Err(format!("`regex` needs text as its pattern, not {}", type_name(other))),
            (Operator::Greaterthan | Operator::Lessthan, Value::Object(_) | Value::Array(_)) => {
                return Err(format!("`{}` needs a number or text as its pattern, not {}", operator.name(), type_name(&pattern)));
            }
            (Operator::Exists | Operator::Nexists | Operator::Equals | Operator::Nequals | Operator::Contains, _) => None,
            (Operator::Greaterthan | Operator::Lessthan, _) => None,
            _ => return Err(format!("`{}` is not carried out by this version", operator.name())),
        };
        Ok(Self { operator, pattern, regex })
    }

    /// Whether the value passes. A missing value is the same as null.
    ///
    /// # Errors
    /// When the operator cannot be applied to a value of that type.
    pub fn holds(&self, value: &Seen<'_>, _around: &dyn Surroundings) -> Result<bool, String> {
        let value = &value.to_value();
        let pattern = &self.pattern;
        let wrong = || Err(format!("`{}` cannot compare {} with {}", self.operator.name(), type_name(value), type_name(pattern)));
        match self.operator {
            Operator::Exists => Ok(!value.is_null()),
            Operator::Nexists => Ok(value.is_null()),
            Operator::Equals => Ok(equal(value, pattern)),
            Operator::Nequals => Ok(!equal(value, pattern)),
            Operator::Greaterthan => order(value, pattern).map_or_else(wrong, |order| Ok(order == Ordering::Greater)),
            Operator::Lessthan => order(value, pattern).map_or_else(wrong, |order| Ok(order == Ordering::Less)),
            Operator::Contains => match (value, pattern) {
                (Value::String(text), Value::String(part)) => Ok(text.contains(part.as_str())),
                (Value::Array(items), part) => Ok(items.iter().any(|item| equal(item, part))),
                (Value::Object(map), Value::String(key)) => Ok(map.contains_key(key)),
                _ => wrong(),
            },
            Operator::Regex => match (value, &self.regex) {
                (Value::String(text), Some(regex)) => Ok(regex.is_match(text)),
                _ => wrong(),
            },
            _ => wrong(),
        }
    }
}

/// Equality as in Python: `1` equals `1.0` and `true`, `"1"` equals none of them.
#[must_use]
pub fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, value)| b.get(key).is_some_and(|other| equal(value, other)))
        }
        (Value::Number(_) | Value::Bool(_), Value::Number(_) | Value::Bool(_)) => numbers(a, b) == Some(Ordering::Equal),
        _ => a == b,
    }
}

fn order(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        _ => numbers(a, b),
    }
}

fn numbers(a: &Value, b: &Value) -> Option<Ordering> {
    let whole = |value: &Value| match value {
        Value::Bool(flag) => Some(i128::from(*flag)),
        value => value.as_i64().map(i128::from).or_else(|| value.as_u64().map(i128::from)),
    };
    if let (Some(a), Some(b)) = (whole(a), whole(b)) {
        Some(a.cmp(&b))
    } else {
        let float = |value: &Value| value.as_f64().or_else(|| value.as_bool().map(|flag| f64::from(u8::from(flag))));
        float(a)?.partial_cmp(&float(b)?)
    }
}

fn last_line(text: &str) -> &str {
    text.lines().last().unwrap_or(text).trim_start_matches("error: ")
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value, reason = "cases read better so")]
mod tests {
    use super::*;
    use serde_json::json;

    struct Nothing;

    impl Surroundings for Nothing {
        fn now(&self) -> DateTime<Utc> {
            DateTime::UNIX_EPOCH
        }

        fn scope(&self) -> Result<&Scope, String> {
            Err("there is no event".into())
        }
    }

    fn holds(operator: &str, pattern: Value, value: Option<Value>) -> Result<bool, String> {
        let operator = Operator::named(operator).unwrap();
        let value = value.as_ref().map_or(Seen::Missing, Seen::of);
        Test::compile(&Criterion { key: "trigger.v".into(), operator, pattern, condition: None })?.holds(&value, &Nothing)
    }

    #[test]
    fn the_operators_as_in_stackstorm() {
        let cases = [
            ("equals", json!("1"), Some(json!(1)), Ok(false)),
            ("eq", json!(1), Some(json!(1.0)), Ok(true)),
            ("equals", json!(true), Some(json!(1)), Ok(true)),
            ("equals", json!([1, {"a": 2}]), Some(json!([1.0, {"a": 2}])), Ok(true)),
            ("equals", json!("x"), None, Ok(false)),
            ("nequals", json!("True"), Some(json!(true)), Ok(true)),
            ("neq", json!("x"), None, Ok(true)),
            ("contains", json!("rr"), Some(json!("error")), Ok(true)),
            ("contains", json!(2), Some(json!([1, 2])), Ok(true)),
            ("contains", json!("k"), Some(json!({"k": null})), Ok(true)),
            ("greaterthan", json!(80), Some(json!(80.5)), Ok(true)),
            ("gt", json!(80), Some(json!(80)), Ok(false)),
            ("lessthan", json!("b"), Some(json!("a")), Ok(true)),
            ("lt", json!(9_007_199_254_740_993_i64), Some(json!(9_007_199_254_740_992_i64)), Ok(true)),
            ("regex", json!("^a.c$"), Some(json!("abc")), Ok(true)),
            ("regex", json!("a.c"), Some(json!("a\nc")), Ok(false)),
            ("regex", json!("b"), Some(json!("abc")), Ok(true)),
            ("exists", json!(true), Some(json!(false)), Ok(true)),
            ("exists", json!(true), Some(json!(null)), Ok(false)),
            ("nexists", json!(true), None, Ok(true)),
        ];
        for (operator, pattern, value, expected) in cases {
            assert_eq!(holds(operator, pattern.clone(), value.clone()), expected, "{value:?} {operator} {pattern}");
        }
    }

    #[test]
    fn wrong_types_are_failures() {
        assert_eq!(holds("gt", json!(80), Some(json!("90"))).unwrap_err(), "`greaterthan` cannot compare string with integer");
        assert_eq!(holds("gt", json!(80), None).unwrap_err(), "`greaterthan` cannot compare null with integer");
        assert!(holds("regex", json!("a"), Some(json!(1))).is_err());
        assert!(holds("contains", json!(1), Some(json!("1"))).is_err());
    }

    #[test]
    fn patterns_are_checked_when_loading() {
        assert!(holds("regex", json!("(a"), None).unwrap_err().contains("is not a regular expression"));
        assert!(holds("regex", json!(1), None).unwrap_err().contains("needs text"));
        assert!(holds("regex", json!("a{1000}{1000}{1000}"), None).is_err());
        assert!(holds("lt", json!([1]), None).is_err());
    }

    #[test]
    fn a_regular_expression_that_would_explode_elsewhere_takes_linear_time() {
        let text = "a".repeat(100_000) + "!";
        assert_eq!(holds("regex", json!("^(a+)+$"), Some(json!(text))), Ok(false));
    }
}
