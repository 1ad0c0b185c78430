//! What a criterion sees of a payload: scalars as they stand in its text, without a copy of them.

use std::borrow::Cow;

use serde_json::{Number, Value};

use crate::model::json::type_name;

/// A value that a path led to.
#[derive(Clone, Debug, PartialEq)]
pub enum Seen<'p> {
    /// The path leads nowhere.
    Missing,
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A whole number beyond [`i64::MAX`].
    Uint(u64),
    /// Any other number.
    Float(f64),
    /// Text.
    Text(Cow<'p, str>),
    /// A list or an object.
    Nested(Cow<'p, Value>),
}

impl<'p> Seen<'p> {
    /// A value that has been read already.
    #[must_use]
    pub fn of(value: &'p Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(flag) => Self::Bool(*flag),
            Value::Number(number) => Self::of_number(number),
            Value::String(text) => Self::Text(Cow::Borrowed(text)),
            nested => Self::Nested(Cow::Borrowed(nested)),
        }
    }

    /// A number that has been read already.
    #[must_use]
    pub fn of_number(number: &Number) -> Self {
        match (number.as_i64(), number.as_u64()) {
            (Some(whole), _) => Self::Int(whole),
            (None, Some(whole)) => Self::Uint(whole),
            (None, None) => Self::Float(number.as_f64().unwrap_or(f64::NAN)),
        }
    }

    /// A value that belongs to nobody else.
    #[must_use]
    pub fn owned(value: Value) -> Self {
        match value {
            Value::String(text) => Self::Text(Cow::Owned(text)),
            nested @ (Value::Array(_) | Value::Object(_)) => Self::Nested(Cow::Owned(nested)),
            Value::Null => Self::Null,
            Value::Bool(flag) => Self::Bool(flag),
            Value::Number(number) => Self::of_number(&number),
        }
    }

    /// Whether there is nothing to compare: a missing field is the same as null.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        matches!(self, Self::Missing | Self::Null)
    }

    /// The value by itself; null where it is missing.
    #[must_use]
    pub fn to_value(&self) -> Value {
        match self {
            Self::Missing | Self::Null => Value::Null,
            Self::Bool(flag) => Value::Bool(*flag),
            Self::Int(whole) => Value::from(*whole),
            Self::Uint(whole) => Value::from(*whole),
            Self::Float(number) => Value::from(*number),
            Self::Text(text) => Value::from(text.as_ref()),
            Self::Nested(value) => Value::clone(value),
        }
    }

    /// The name of its type, in the words of JSON Schema.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Missing | Self::Null => "null",
            Self::Bool(_) => "boolean",
            Self::Int(_) | Self::Uint(_) => "integer",
            Self::Float(_) => "number",
            Self::Text(_) => "string",
            Self::Nested(value) => type_name(value),
        }
    }
}
