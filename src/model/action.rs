//! Actions: a named thing that can be done, with typed parameters.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::model::hash::Revision;
use crate::model::json::type_name;
use crate::model::place::Place;
use crate::model::schema::Schema;
use crate::model::secret::MASK;

/// How long an action may run unless it says otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);

/// The longest time-out that an action may ask for.
pub const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 3_600);

/// An action as its author wrote it, checked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Action {
    /// `pack.name`.
    pub reference: String,
    /// For people.
    #[serde(default)]
    pub description: String,
    /// Whether it may run.
    pub enabled: bool,
    /// How it is carried out: the name of a runner.
    pub runner: String,
    /// The parameters, in the order of the file.
    pub parameters: Vec<Parameter>,
    /// How long one attempt may run.
    #[serde(with = "crate::model::duration::text")]
    pub timeout: Duration,
    /// Whether it may run again after a crash.
    pub idempotent: bool,
    /// When and how often a failed attempt is followed by another.
    #[serde(default)]
    pub retry: Option<Retry>,
    /// What a result must be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_schema: Option<Schema>,
    /// The script that the entry point names, whole: the revision covers it.
    #[serde(default)]
    pub script: Option<Script>,
    /// The action's file.
    #[serde(skip)]
    pub place: Place,
    /// Equal for equal content; set by [`Action::sealed`].
    #[serde(skip)]
    pub revision: Revision,
}

/// The text of a script and the file it stands in.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Script {
    /// The file, relative to the site folder.
    pub file: String,
    /// The source.
    pub text: String,
}

impl Action {
    /// The action with its revision, which covers everything but the places.
    #[must_use]
    pub fn sealed(mut self) -> Self {
        self.revision = Revision::of(&self);
        self
    }

    /// The pack it belongs to.
    #[must_use]
    pub fn pack(&self) -> &str {
        self.reference.split('.').next().unwrap_or_default()
    }
}

/// Attempts of one execution.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Retry {
    /// How many more attempts after the first.
    pub count: u32,
    /// The pause before the second attempt.
    #[serde(with = "crate::model::duration::text")]
    pub delay: Duration,
    /// By how much each pause is longer than the one before.
    pub backoff: f64,
    /// After which outcomes.
    pub on: Vec<RetryOn>,
}

/// The longest pause between two attempts.
pub const MAX_RETRY_DELAY: Duration = Duration::from_secs(3_600);

impl Retry {
    /// The pause after attempt number `attempt`, counted from one; at most [`MAX_RETRY_DELAY`].
    #[must_use]
    pub fn pause_after(&self, attempt: u32) -> Duration {
        let exponent = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX);
        let seconds = self.delay.as_secs_f64() * self.backoff.powi(exponent);
        Duration::try_from_secs_f64(seconds).map_or(MAX_RETRY_DELAY, |pause| pause.min(MAX_RETRY_DELAY))
    }
}

/// An outcome after which an attempt may be followed by another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetryOn {
    /// It failed.
    Failed,
    /// It ran too long.
    TimedOut,
}

/// The type of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ParameterType {
    /// Text.
    String,
    /// A number without fraction.
    Integer,
    /// A finite number.
    Number,
    /// True or false.
    Boolean,
    /// A list.
    Array,
    /// A map.
    Object,
}

impl ParameterType {
    /// Every type, by the name used in files.
    pub const NAMES: &'static [&'static str] = &["string", "integer", "number", "boolean", "array", "object"];

    /// The type of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "string" => Self::String,
            "integer" => Self::Integer,
            "number" => Self::Number,
            "boolean" => Self::Boolean,
            "array" => Self::Array,
            "object" => Self::Object,
            _ => return None,
        })
    }

    /// The name used in files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
            Self::Array => "array",
            Self::Object => "object",
        }
    }
}

/// One typed parameter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Parameter {
    /// Its name.
    pub name: String,
    /// Its type; any if absent.
    #[serde(default)]
    pub kind: Option<ParameterType>,
    /// For people.
    #[serde(default)]
    pub description: String,
    /// Whether it must be given.
    #[serde(default)]
    pub required: bool,
    /// The value if it is not given.
    #[serde(default)]
    pub default: Option<Value>,
    /// Whether callers may not set it.
    #[serde(default)]
    pub immutable: bool,
    /// Whether it is masked wherever it is shown.
    #[serde(default)]
    pub secret: bool,
    /// The place among the positional arguments of a command line.
    #[serde(default)]
    pub position: Option<u32>,
    /// The values it may take; empty for any.
    #[serde(default)]
    pub choices: Vec<Value>,
    /// The least number.
    #[serde(default)]
    pub minimum: Option<f64>,
    /// The greatest number.
    #[serde(default)]
    pub maximum: Option<f64>,
    /// What else must hold of a value, once it is cast.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<Schema>,
}

impl Parameter {
    /// A parameter of any type that may be left out.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self {
            name: name.into(),
            kind: None,
            description: String::new(),
            required: false,
            default: None,
            immutable: false,
            secret: false,
            position: None,
            choices: Vec::new(),
            minimum: None,
            maximum: None,
            schema: None,
        }
    }
}

/// Checks what a caller gives against the declared parameters, casts it, and fills in defaults.
///
/// Nothing is coerced but text into the declared type; the table stands in the authors' guide.
///
/// # Errors
/// Every fault at once, each naming its parameter.
pub fn bind(parameters: &[Parameter], given: &Map<String, Value>) -> Result<Map<String, Value>, Vec<String>> {
    let (mut bound, mut faults) = (Map::new(), Vec::new());
    for name in given.keys() {
        if !parameters.iter().any(|parameter| &parameter.name == name) {
            let known: Vec<&str> = parameters.iter().map(|parameter| parameter.name.as_str()).collect();
            let known = if known.is_empty() { "it takes none".to_string() } else { format!("it takes {}", known.join(", ")) };
            faults.push(format!("the action has no parameter `{name}`; {known}"));
        }
    }
    for parameter in parameters {
        match (given.get(&parameter.name), &parameter.default) {
            (Some(_), _) if parameter.immutable => faults.push(format!("parameter `{}` cannot be set by a caller", parameter.name)),
            (Some(value), _) => match cast(parameter, value) {
                Ok(value) => {
                    bound.insert(parameter.name.clone(), value);
                }
                Err(fault) => faults.push(fault),
            },
            (None, Some(default)) => {
                bound.insert(parameter.name.clone(), default.clone());
            }
            (None, None) if parameter.required => faults.push(format!("parameter `{}` is required", parameter.name)),
            (None, None) => {}
        }
    }
    if faults.is_empty() { Ok(bound) } else { Err(faults) }
}

/// Casts one value to the parameter's type and checks its bounds.
///
/// # Errors
/// When it does not fit, naming parameter, type and value.
pub fn cast(parameter: &Parameter, value: &Value) -> Result<Value, String> {
    let name = &parameter.name;
    let shown = if parameter.secret { MASK.to_string() } else { value.to_string() };
    let Some(kind) = parameter.kind else {
        bounds(parameter, value, &shown)?;
        return Ok(value.clone());
    };
    if value.is_null() {
        return if parameter.required { Err(format!("parameter `{name}` must not be null")) } else { Ok(Value::Null) };
    }
    let wrong = || format!("parameter `{name}` must be of type {}, not {} {shown}", kind.name(), type_name(value));
    let cast = match (kind, value) {
        (ParameterType::String, Value::String(_))
        | (ParameterType::Boolean, Value::Bool(_))
        | (ParameterType::Number, Value::Number(_))
        | (ParameterType::Array, Value::Array(_))
        | (ParameterType::Object, Value::Object(_)) => value.clone(),
        (ParameterType::String, Value::Number(_)) => {
            return Err(format!("parameter `{name}` must be of type string, but {shown} is a number; quote it: \"{shown}\""));
        }
        (ParameterType::Integer, Value::Number(number)) => whole(number).ok_or_else(wrong)?,
        (ParameterType::Integer, Value::String(text)) => {
            let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
            let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            let number = text.strip_prefix('+').unwrap_or(text).parse::<i64>().ok().filter(|_| plain);
            number.map(Value::from).ok_or_else(wrong)?
        }
        (ParameterType::Number, Value::String(text)) => {
            let decimal = text.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
            let number = text.parse::<f64>().ok().filter(|n| decimal && n.is_finite());
            number.and_then(serde_json::Number::from_f64).map(Value::Number).ok_or_else(wrong)?
        }
        (ParameterType::Boolean, Value::String(text)) if text == "true" => Value::Bool(true),
        (ParameterType::Boolean, Value::String(text)) if text == "false" => Value::Bool(false),
        (ParameterType::Array | ParameterType::Object, Value::String(text)) => {
            let parsed: Value = serde_json::from_str(text).map_err(|_| wrong())?;
            if type_name(&parsed) != kind.name() {
                return Err(wrong());
            }
            parsed
        }
        _ => return Err(wrong()),
    };
    bounds(parameter, &cast, &shown)?;
    Ok(cast)
}

fn whole(number: &serde_json::Number) -> Option<Value> {
    if number.is_i64() || number.is_u64() {
        return Some(Value::Number(number.clone()));
    }
    #[allow(clippy::cast_possible_truncation, reason = "the range is checked before")]
    number.as_f64().filter(|n| n.fract() == 0.0 && n.abs() < 9e15).map(|n| Value::from(n as i64))
}

fn bounds(parameter: &Parameter, value: &Value, shown: &str) -> Result<(), String> {
    let name = &parameter.name;
    if !parameter.choices.is_empty() && !parameter.choices.contains(value) {
        let choices: Vec<String> = parameter.choices.iter().map(ToString::to_string).collect();
        return Err(format!("parameter `{name}` must be one of {}, not {shown}", choices.join(", ")));
    }
    if let Some(number) = value.as_f64() {
        if let Some(least) = parameter.minimum.filter(|least| number < *least) {
            return Err(format!("parameter `{name}` must be at least {least}, not {shown}"));
        }
        if let Some(most) = parameter.maximum.filter(|most| number > *most) {
            return Err(format!("parameter `{name}` must be at most {most}, not {shown}"));
        }
    }
    if let Some(schema) = &parameter.schema {
        let checked = if parameter.secret { schema.check_secret(value) } else { schema.check(value) };
        checked.map_err(|fault| format!("parameter `{name}`: {fault}"))?;
    }
    Ok(())
}

/// The parameters as they may be shown: secret ones are masked.
#[must_use]
pub fn masked(parameters: &[Parameter], values: &Map<String, Value>) -> Map<String, Value> {
    let secret = |name: &str| parameters.iter().any(|parameter| parameter.secret && parameter.name == name);
    values.iter().map(|(name, value)| (name.clone(), if secret(name) { Value::from(MASK) } else { value.clone() })).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parameter(name: &str, kind: &str) -> Parameter {
        Parameter { kind: ParameterType::named(kind), ..Parameter::named(name) }
    }

    #[test]
    fn the_casting_table() {
        let fits = [
            ("string", json!("1.10"), json!("1.10")),
            ("integer", json!("+7"), json!(7)),
            ("integer", json!("-7"), json!(-7)),
            ("integer", json!(3.0), json!(3)),
            ("number", json!("2.5"), json!(2.5)),
            ("number", json!(2), json!(2)),
            ("boolean", json!("true"), json!(true)),
            ("array", json!("[1, 2]"), json!([1, 2])),
            ("object", json!("{\"a\": 1}"), json!({"a": 1})),
            ("string", json!(null), json!(null)),
        ];
        for (kind, given, expected) in fits {
            assert_eq!(cast(&parameter("p", kind), &given).as_ref(), Ok(&expected), "{kind} {given}");
        }
        let refused = [
            ("string", json!(1.1)),
            ("string", json!(true)),
            ("integer", json!("1.0")),
            ("integer", json!(1.5)),
            ("integer", json!("")),
            ("integer", json!("0x10")),
            ("integer", json!("99999999999999999999")),
            ("number", json!("inf")),
            ("number", json!("NaN")),
            ("boolean", json!("yes")),
            ("boolean", json!(1)),
            ("array", json!("a,b")),
            ("object", json!("[1]")),
            ("array", json!({})),
        ];
        for (kind, given) in refused {
            assert!(cast(&parameter("p", kind), &given).is_err(), "{kind} {given} must be refused");
        }
        assert_eq!(
            cast(&parameter("tag", "string"), &json!(1.1)).unwrap_err(),
            "parameter `tag` must be of type string, but 1.1 is a number; quote it: \"1.1\""
        );
    }

    #[test]
    fn every_fault_is_told_at_once_and_secrets_are_not_shown() {
        let mut app = parameter("app", "string");
        app.required = true;
        let mut by = parameter("by", "integer");
        by.maximum = Some(5.0);
        let mut token = parameter("token", "integer");
        token.secret = true;
        let given = json!({"by": 9, "token": "hunter2", "extra": 1});
        let faults = bind(&[app, by, token], given.as_object().unwrap()).unwrap_err();
        assert_eq!(
            faults,
            [
                "the action has no parameter `extra`; it takes app, by, token",
                "parameter `app` is required",
                "parameter `by` must be at most 5, not 9",
                "parameter `token` must be of type integer, not string ********",
            ]
        );
    }

    #[test]
    fn pauses_grow_and_are_bounded() {
        let retry = Retry { count: 9, delay: Duration::from_secs(2), backoff: 2.0, on: vec![RetryOn::Failed] };
        let pauses: Vec<u64> = (1..=4).map(|attempt| retry.pause_after(attempt).as_secs()).collect();
        assert_eq!(pauses, [2, 4, 8, 16]);
        assert_eq!(retry.pause_after(4_000_000_000), MAX_RETRY_DELAY);
    }
}
