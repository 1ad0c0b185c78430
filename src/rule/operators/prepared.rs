//! What makes a pattern whose value is known ready for its operator: once for a fixed one, for each event for one with templates.

use std::cmp::Ordering;

use chrono::{DateTime, Utc};
use regex::Regex;
use serde_json::Value;

use super::compare::{equal_seen, order};
use super::{python, times};
use crate::model::json::type_name;
use crate::model::rule::Operator;
use crate::rule::seen::Seen;

/// What an operator needs beside the pattern itself.
#[derive(Debug, Clone)]
pub(super) enum Form {
    /// Nothing.
    AsItIs,
    /// The pattern is null: nothing holds.
    Never,
    /// An expression.
    Regex(Regex),
    /// Text in lower case.
    Lower(Box<str>),
    /// Seconds.
    Seconds(f64),
}

impl Form {
    /// Makes a pattern ready.
    ///
    /// # Errors
    /// When it does not fit the operator.
    pub(super) fn of(operator: Operator, pattern: &Value) -> Result<Self, String> {
        let needs = |what: &str| Err(format!("`{}` needs {what} as its pattern, not {}", operator.name(), type_name(pattern)));
        Ok(match (operator, pattern) {
            (Operator::Exists | Operator::Nexists | Operator::Nequals, _) => Form::AsItIs,
            (_, Value::Null) => Form::Never,
            (Operator::Equals | Operator::Contains | Operator::Ncontains, _)
            | (Operator::Startswith | Operator::Endswith, Value::String(_))
            | (Operator::Greaterthan | Operator::Lessthan, Value::Number(_) | Value::Bool(_) | Value::String(_))
            | (Operator::Inside | Operator::Ninside, Value::Array(_) | Value::Object(_) | Value::String(_)) => Form::AsItIs,
            (Operator::Greaterthan | Operator::Lessthan, _) => return needs("a number or text"),
            (Operator::Inside | Operator::Ninside, _) => return needs("a list, text or an object"),
            (
                Operator::Iequals | Operator::Icontains | Operator::Incontains | Operator::Istartswith | Operator::Iendswith,
                Value::String(text),
            ) => Form::Lower(text.to_lowercase().into()),
            (Operator::Regex | Operator::Iregex | Operator::Matchregex | Operator::Matchwildcard, Value::String(text)) => {
                Form::Regex(python::compile(operator, text)?)
            }
            (Operator::TimediffLt | Operator::TimediffGt, pattern) => match seconds(pattern) {
                Some(seconds) => Form::Seconds(seconds),
                None => return needs("a number of seconds"),
            },
            _ => return needs("text"),
        })
    }

    /// Whether the value passes.
    ///
    /// # Errors
    /// When the operator cannot be applied to a value of that type.
    pub(super) fn holds(&self, operator: Operator, pattern: &Value, value: &Seen<'_>, now: DateTime<Utc>) -> Result<bool, String> {
        let verdict = match (self, value) {
            (Form::Never, _) => Some(false),
            (Form::AsItIs, _) => as_it_is(operator, pattern, value),
            (Form::Regex(regex), Seen::Text(text)) => Some(regex.is_match(text)),
            (Form::Lower(lower), Seen::Text(text)) => Some(whatever_the_case(operator, text, lower)),
            (Form::Seconds(seconds), Seen::Text(text)) => return time_difference(operator, text, *seconds, now),
            _ => None,
        };
        verdict.ok_or_else(|| format!("`{}` cannot compare {} with {}", operator.name(), value.type_name(), type_name(pattern)))
    }
}

/// None where the types do not go together.
fn as_it_is(operator: Operator, pattern: &Value, value: &Seen<'_>) -> Option<bool> {
    match operator {
        Operator::Exists => Some(!value.is_nothing()),
        Operator::Nexists => Some(value.is_nothing()),
        Operator::Equals => Some(equal_seen(value, pattern)),
        Operator::Nequals => Some(!equal_seen(value, pattern)),
        Operator::Greaterthan => order(value, pattern).map(|order| order == Ordering::Greater),
        Operator::Lessthan => order(value, pattern).map(|order| order == Ordering::Less),
        Operator::Contains => is_in(&Seen::of(pattern), value),
        Operator::Ncontains => is_in(&Seen::of(pattern), value).map(|held| !held),
        Operator::Inside => is_in(value, &Seen::of(pattern)),
        Operator::Ninside => is_in(value, &Seen::of(pattern)).map(|held| !held),
        Operator::Startswith => texts(value, pattern).map(|(text, part)| text.starts_with(part)),
        Operator::Endswith => texts(value, pattern).map(|(text, part)| text.ends_with(part)),
        _ => None,
    }
}

fn whatever_the_case(operator: Operator, text: &str, lower: &str) -> bool {
    let (bytes, part) = (text.as_bytes(), lower.as_bytes());
    match operator {
        Operator::Icontains => text.to_lowercase().contains(lower),
        Operator::Incontains => !text.to_lowercase().contains(lower),
        Operator::Iequals if text.is_ascii() => bytes.eq_ignore_ascii_case(part),
        Operator::Istartswith if text.is_ascii() => bytes.get(..part.len()).is_some_and(|head| head.eq_ignore_ascii_case(part)),
        Operator::Iendswith if text.is_ascii() => {
            bytes.len().checked_sub(part.len()).is_some_and(|from| bytes[from..].eq_ignore_ascii_case(part))
        }
        Operator::Istartswith => text.to_lowercase().starts_with(lower),
        Operator::Iendswith => text.to_lowercase().ends_with(lower),
        _ => text.to_lowercase() == lower,
    }
}

fn time_difference(operator: Operator, text: &str, seconds: f64, now: DateTime<Utc>) -> Result<bool, String> {
    let Some(then) = times::instant(text) else {
        let shown: String = text.chars().take(40).collect();
        return Err(format!("`{}` cannot read `{shown}` as a time; it reads 2026-01-02T03:04:05Z and the like", operator.name()));
    };
    let passed = (now - then).as_seconds_f64();
    Ok(if operator == Operator::TimediffLt { passed < seconds } else { passed > seconds })
}
/// Python's `part in whole`: an item of a list, a key of an object, a part of a text.
fn is_in(part: &Seen<'_>, whole: &Seen<'_>) -> Option<bool> {
    match (whole, part) {
        (Seen::Text(whole), Seen::Text(part)) => Some(whole.contains(part.as_ref())),
        (Seen::Nested(whole), part) => match (whole.as_ref(), part) {
            (Value::Array(items), part) => Some(items.iter().any(|item| equal_seen(part, item))),
            (Value::Object(map), Seen::Text(key)) => Some(map.contains_key(key.as_ref())),
            // Keys are texts; what could be one in Python and is none is not there.
            (Value::Object(_), Seen::Nested(_)) => None,
            (Value::Object(_), _) => Some(false),
            _ => None,
        },
        _ => None,
    }
}

fn texts<'a>(value: &'a Seen<'_>, pattern: &'a Value) -> Option<(&'a str, &'a str)> {
    match (value, pattern) {
        (Seen::Text(text), Value::String(part)) => Some((text, part)),
        _ => None,
    }
}

/// A number, or text that is one.
fn seconds(pattern: &Value) -> Option<f64> {
    match pattern {
        Value::Bool(flag) => Some(f64::from(u8::from(*flag))),
        Value::String(text) => text.trim().parse().ok().filter(|seconds: &f64| seconds.is_finite()),
        pattern => pattern.as_f64(),
    }
}
