//! What was typed, cast to what an action takes. The rules of casting, and three more that hold in chat only: yes and no, lists with
//! commas, and choices in any case.

use serde_json::{Map, Value};

use crate::model::action::{Action, Parameter, ParameterType, bind, cast};
use crate::model::alias::Alias;
use crate::model::secret::MASK;

/// What stands in the way of a command.
#[derive(Clone, Debug, PartialEq)]
pub enum Obstacle {
    /// Nobody said what this parameter is; the first of those that are missing.
    Missing(Box<Parameter>),
    /// A value does not fit; whatever is wrong, in the order of the parameters.
    Wrong(Vec<String>),
}

/// The parameters of an action, from what was typed.
///
/// # Errors
/// What is missing or wrong. What is wrong is told before what is missing.
pub fn parameters(alias: &Alias, action: &Action, typed: &Map<String, Value>) -> Result<Map<String, Value>, Obstacle> {
    let mut given = Map::new();
    let mut faults = Vec::new();
    for (name, value) in typed {
        if alias.immutable.contains_key(name) {
            faults.push(format!("`{name}` is fixed by the command `{}` and cannot be set", alias.reference));
            continue;
        }
        let parameter = action.parameters.iter().find(|parameter| &parameter.name == name);
        given.insert(name.clone(), parameter.map_or_else(|| value.clone(), |parameter| spoken(parameter, value)));
    }
    for (name, value) in &alias.immutable {
        let parameter = action.parameters.iter().find(|parameter| &parameter.name == name);
        given.insert(name.clone(), parameter.map_or_else(|| value.clone(), |parameter| spoken(parameter, value)));
    }
    let missing = |parameter: &&Parameter| parameter.required && parameter.default.is_none() && !given.contains_key(&parameter.name);
    let missing: Vec<&Parameter> = action.parameters.iter().filter(missing).collect();
    let known: Vec<Parameter> = action.parameters.iter().filter(|parameter| !missing.contains(parameter)).cloned().collect();
    let bound = bind(&known, &given);
    if !faults.is_empty() {
        return Err(Obstacle::Wrong(faults));
    }
    match (bound, missing.first()) {
        (Err(faults), _) => Err(Obstacle::Wrong(faults)),
        (Ok(_), Some(first)) => Err(Obstacle::Missing(Box::new((*first).clone()))),
        (Ok(bound), None) => Ok(bound),
    }
}

/// The value of a text as people type it.
#[must_use]
pub fn spoken(parameter: &Parameter, value: &Value) -> Value {
    let Value::String(text) = value else { return value.clone() };
    if let Some(choice) = parameter.choices.iter().find(|choice| crate::template::text::plain(choice).eq_ignore_ascii_case(text.trim())) {
        return choice.clone();
    }
    match parameter.kind {
        Some(ParameterType::Boolean) => match text.trim().to_lowercase().as_str() {
            "yes" | "on" | "true" => Value::Bool(true),
            "no" | "off" | "false" => Value::Bool(false),
            _ => value.clone(),
        },
        Some(ParameterType::Array) if !text.trim_start().starts_with('[') => {
            Value::Array(text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(Value::from).collect())
        }
        Some(ParameterType::Integer | ParameterType::Number) => Value::from(text.trim()),
        _ => value.clone(),
    }
}

/// Whether a text will do for a parameter.
///
/// # Errors
/// Why it will not.
pub fn fits(parameter: &Parameter, text: &str) -> Result<(), String> {
    cast(parameter, &spoken(parameter, &Value::from(text))).map(|_| ())
}

/// What a parameter takes, in words: `one of prod, gray`, `a whole number from 0`.
#[must_use]
pub fn describe(parameter: &Parameter) -> String {
    if parameter.secret && !parameter.choices.is_empty() {
        return format!("one of {} values ({MASK})", parameter.choices.len());
    }
    if !parameter.choices.is_empty() {
        let choices: Vec<String> = parameter.choices.iter().map(crate::template::text::plain).collect();
        return format!("one of {}", choices.join(", "));
    }
    let kind = match parameter.kind {
        None => "any value",
        Some(ParameterType::String) => "text",
        Some(ParameterType::Integer) => "a whole number",
        Some(ParameterType::Number) => "a number",
        Some(ParameterType::Boolean) => "yes or no",
        Some(ParameterType::Array) => "a list: a, b, c",
        Some(ParameterType::Object) => "an object: {\"a\": 1}",
    };
    match (parameter.minimum, parameter.maximum) {
        (Some(least), Some(most)) => format!("{kind} from {least} to {most}"),
        (Some(least), None) => format!("{kind}, {least} or more"),
        (None, Some(most)) => format!("{kind}, {most} or less"),
        (None, None) => kind.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn chat_takes_yes_and_lists_with_commas() {
        let parameter = |kind: &str| Parameter { kind: ParameterType::named(kind), ..Parameter::named("p") };
        for (kind, text, expected) in [
            ("boolean", "Yes", json!(true)),
            ("boolean", "off", json!(false)),
            ("boolean", "maybe", json!("maybe")),
            ("array", "a, b,c", json!(["a", "b", "c"])),
            ("array", "[1, 2]", json!("[1, 2]")),
            ("array", "a", json!(["a"])),
            ("integer", " 7 ", json!("7")),
            ("string", " x ", json!(" x ")),
        ] {
            assert_eq!(spoken(&parameter(kind), &json!(text)), expected, "{kind} {text}");
        }
        let env = Parameter { choices: vec![json!("prod"), json!(5)], ..parameter("string") };
        assert_eq!(spoken(&env, &json!("PROD")), json!("prod"));
        assert_eq!(spoken(&env, &json!("5")), json!(5));
        assert_eq!(describe(&env), "one of prod, 5");
        assert_eq!(describe(&Parameter { minimum: Some(0.0), ..parameter("integer") }), "a whole number, 0 or more");
    }
}
