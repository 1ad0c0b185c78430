//! Equality and order as in Python: numbers by their value whatever their type, true as one, text by its characters.

use std::cmp::Ordering;

use serde_json::Value;

use crate::rule::seen::Seen;

/// Equality as in Python: `1` equals `1.0` and `true`, `"1"` equals none of them.
#[must_use]
pub fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, value)| b.get(key).is_some_and(|other| equal(value, other)))
        }
        (Value::Number(_) | Value::Bool(_), Value::Number(_) | Value::Bool(_)) => equals_number(Number::of(a), Number::of(b)),
        _ => a == b,
    }
}

/// The same for what a criterion sees; what is missing equals null.
#[must_use]
pub fn equal_seen(value: &Seen<'_>, pattern: &Value) -> bool {
    match (value, pattern) {
        (Seen::Missing | Seen::Null, Value::Null) => true,
        (Seen::Text(text), Value::String(other)) => text == other,
        (Seen::Nested(value), other) => equal(value, other),
        (value, other) => equals_number(Number::of_seen(value), Number::of(other)),
    }
}

/// The order of two numbers or two texts; nothing else has one.
pub(super) fn order(value: &Seen<'_>, pattern: &Value) -> Option<Ordering> {
    match (value, pattern) {
        (Seen::Text(text), Value::String(other)) => Some(text.as_ref().cmp(other)),
        (value, other) => Number::of_seen(value)?.order(Number::of(other)?),
    }
}

fn equals_number(a: Option<Number>, b: Option<Number>) -> bool {
    a.zip(b).and_then(|(a, b)| a.order(b)) == Some(Ordering::Equal)
}

/// A number, or a truth value as one.
#[derive(Clone, Copy)]
enum Number {
    Whole(i128),
    Float(f64),
}

impl Number {
    fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Bool(flag) => Some(Self::Whole(i128::from(*flag))),
            Value::Number(number) => {
                let whole = number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from));
                whole.map(Self::Whole).or_else(|| number.as_f64().map(Self::Float))
            }
            _ => None,
        }
    }

    fn of_seen(value: &Seen<'_>) -> Option<Self> {
        match value {
            Seen::Bool(flag) => Some(Self::Whole(i128::from(*flag))),
            Seen::Int(whole) => Some(Self::Whole(i128::from(*whole))),
            Seen::Uint(whole) => Some(Self::Whole(i128::from(*whole))),
            Seen::Float(number) => Some(Self::Float(*number)),
            _ => None,
        }
    }

    fn order(self, other: Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Whole(a), Self::Whole(b)) => Some(a.cmp(&b)),
            (Self::Float(a), Self::Float(b)) => a.partial_cmp(&b),
            (Self::Whole(a), Self::Float(b)) => whole_with_float(a, b),
            (Self::Float(a), Self::Whole(b)) => whole_with_float(b, a).map(Ordering::reverse),
        }
    }
}

/// Exact: a whole number is not rounded to the nearest double first.
fn whole_with_float(whole: i128, float: f64) -> Option<Ordering> {
    // Whole numbers here have 64 bits, so a double beyond these is beyond all of them.
    const BEYOND: f64 = 36_893_488_147_419_103_232.0;
    if float.is_nan() {
        return None;
    }
    if float.abs() >= BEYOND {
        return Some(if float > 0.0 { Ordering::Less } else { Ordering::Greater });
    }
    #[allow(clippy::cast_possible_truncation, reason = "without its fraction, and below 2^65, it fits")]
    let truncated = float.trunc() as i128;
    Some(whole.cmp(&truncated).then_with(|| 0.0_f64.total_cmp(&(float.fract() + 0.0))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    #[allow(clippy::cast_precision_loss, reason = "it is what is looked at")]
    fn values_are_equal_as_in_python() {
        let big = 9_007_199_254_740_993_i64;
        for (a, b, same) in [
            (json!(1), json!(1.0), true),
            (json!(1), json!(true), true),
            (json!(0.0), json!(false), true),
            (json!(-0.0), json!(0), true),
            (json!("1"), json!(1), false),
            (json!(null), json!(false), false),
            (json!(null), json!(null), true),
            (json!(""), json!(null), false),
            (json!(u64::MAX), json!(u64::MAX), true),
            (json!(u64::MAX), json!(u64::MAX as f64), false),
            (json!(big), json!(big as f64), false),
            (json!(big - 1), json!(big as f64), true),
            (json!(i64::MIN), json!(i64::MIN as f64), true),
            (json!([1, [true]]), json!([1.0, [1]]), true),
            (json!([1]), json!([1, 2]), false),
            (json!({"a": 1, "b": {}}), json!({"b": {}, "a": 1.0}), true),
            (json!({"a": null}), json!({}), false),
            (json!([]), json!({}), false),
        ] {
            assert_eq!(equal(&a, &b), same, "{a} and {b}");
            assert_eq!(equal(&b, &a), same, "{b} and {a}");
            assert_eq!(equal_seen(&Seen::of(&a), &b), same, "{a} seen and {b}");
        }
        assert!(equal_seen(&Seen::Missing, &json!(null)));
    }

    #[test]
    fn numbers_have_an_exact_order() {
        let cases = [
            (json!(9_007_199_254_740_993_i64), json!(9_007_199_254_740_992.0), Some(Ordering::Greater)),
            (json!(-1), json!(-1.5), Some(Ordering::Greater)),
            (json!(-2), json!(-1.5), Some(Ordering::Less)),
            (json!(1), json!(1.5), Some(Ordering::Less)),
            (json!(u64::MAX), json!(1e300), Some(Ordering::Less)),
            (json!(i64::MIN), json!(-1e300), Some(Ordering::Greater)),
            (json!(true), json!(0.5), Some(Ordering::Greater)),
            (json!("B"), json!("a"), Some(Ordering::Less)),
            (json!("é"), json!("z"), Some(Ordering::Greater)),
            (json!("1"), json!(1), None),
            (json!(null), json!(1), None),
            (json!([1]), json!([2]), None),
        ];
        for (a, b, expected) in cases {
            assert_eq!(order(&Seen::of(&a), &b), expected, "{a} and {b}");
            assert_eq!(order(&Seen::of(&b), &a), expected.map(Ordering::reverse), "{b} and {a}");
        }
    }
}
