//! What is expected of a value, and how what came differs from it. Pure.
//!
//! A text `/…/` is a regular expression that must be found in the text that came. Numbers are compared by their value: `5` is `5.0`. A map is
//! expected [`Extent::Whole`], or only [`Extent::Part`] of what came.

use std::fmt;

use regex::{Regex, RegexBuilder};
use serde_json::{Map, Value};

/// The largest regular expression, compiled, in bytes.
const MAX_REGEX_BYTES: usize = 1 << 20;

/// Whether maps may have more than is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// What came has these fields and no others.
    Whole,
    /// What came has these fields, at any depth; others do not matter.
    Part,
}

/// What is expected of a value.
#[derive(Clone, Debug)]
pub struct Expected {
    pattern: Pattern,
    extent: Extent,
}

#[derive(Clone, Debug)]
enum Pattern {
    Regex(Wording),
    Scalar(Value),
    List(Vec<Pattern>),
    Map(Vec<(String, Pattern)>),
}

/// One place where what came is not what was expected.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// The way to it, such as `labels.app` or `items[2]`; empty for the value itself.
    pub path: String,
    /// What was expected there; nothing where nothing was.
    pub expected: Option<Value>,
    /// What came; nothing where nothing did.
    pub got: Option<Value>,
}

impl Expected {
    /// Reads what is expected.
    ///
    /// # Errors
    /// When a regular expression in it is faulty.
    pub fn new(value: &Value, extent: Extent) -> Result<Self, String> {
        Ok(Self { pattern: pattern(value)?, extent })
    }

    /// Where a value differs; nothing if it is as expected. A field that is expected to be null may be missing.
    #[must_use]
    pub fn differences(&self, got: &Value) -> Vec<Difference> {
        let mut found = Vec::new();
        compare(&self.pattern, self.extent, got, "", &mut found);
        found
    }

    /// What is expected, as it was written.
    #[must_use]
    pub fn written(&self) -> Value {
        self.pattern.written()
    }

    /// Whether more than this may come.
    #[must_use]
    pub fn extent(&self) -> Extent {
        self.extent
    }
}

fn pattern(value: &Value) -> Result<Pattern, String> {
    Ok(match value {
        Value::String(text) => match Wording::new(text)? {
            Wording::Exact(_) => Pattern::Scalar(value.clone()),
            regex @ Wording::Regex(_) => Pattern::Regex(regex),
        },
        Value::Array(items) => Pattern::List(items.iter().map(pattern).collect::<Result<_, _>>()?),
        Value::Object(fields) => {
            Pattern::Map(fields.iter().map(|(name, value)| Ok((name.clone(), pattern(value)?))).collect::<Result<_, String>>()?)
        }
        scalar => Pattern::Scalar(scalar.clone()),
    })
}

impl Pattern {
    fn written(&self) -> Value {
        match self {
            Self::Regex(wording) => Value::from(wording.to_string()),
            Self::Scalar(value) => value.clone(),
            Self::List(items) => items.iter().map(Self::written).collect(),
            Self::Map(fields) => Value::Object(fields.iter().map(|(name, field)| (name.clone(), field.written())).collect::<Map<_, _>>()),
        }
    }
}

fn compare(pattern: &Pattern, extent: Extent, got: &Value, path: &str, found: &mut Vec<Difference>) {
    let below = |name: &str| if path.is_empty() { name.to_string() } else { format!("{path}.{name}") };
    match (pattern, got) {
        (Pattern::Regex(wording), Value::String(text)) if wording.fits(text) => {}
        (Pattern::Scalar(expected), got) if is_same(expected, got) => {}
        (Pattern::List(expected), Value::Array(items)) if expected.len() == items.len() => {
            for (index, (pattern, item)) in expected.iter().zip(items).enumerate() {
                compare(pattern, extent, item, &format!("{path}[{index}]"), found);
            }
        }
        (Pattern::Map(expected), Value::Object(fields)) => {
            for (name, pattern) in expected {
                match fields.get(name) {
                    Some(got) => compare(pattern, extent, got, &below(name), found),
                    None if matches!(pattern, Pattern::Scalar(Value::Null)) => {}
                    None => found.push(Difference { path: below(name), expected: Some(pattern.written()), got: None }),
                }
            }
            let surplus = fields.iter().filter(|(name, _)| extent == Extent::Whole && !expected.iter().any(|(known, _)| known == *name));
            found.extend(surplus.map(|(name, got)| Difference { path: below(name), expected: None, got: Some(got.clone()) }));
        }
        (pattern, got) => {
            found.push(Difference { path: path.to_string(), expected: Some(pattern.written()), got: Some(got.clone()) });
        }
    }
}

/// Whether two scalars are the same; numbers by their value.
fn is_same(expected: &Value, got: &Value) -> bool {
    match (expected, got) {
        (Value::Number(expected), Value::Number(got)) => expected == got || expected.as_f64() == got.as_f64(),
        (expected, got) => expected == got,
    }
}

/// What a text is expected to say: exactly this, or something that a regular expression finds.
#[derive(Clone, Debug)]
pub enum Wording {
    /// The text itself.
    Exact(String),
    /// Something in it.
    Regex(Regex),
}

impl Wording {
    /// Reads `/…/` as a regular expression, anything else as the text itself.
    ///
    /// # Errors
    /// When the regular expression is faulty.
    pub fn new(text: &str) -> Result<Self, String> {
        let inner = text.strip_prefix('/').and_then(|rest| rest.strip_suffix('/')).filter(|inner| !inner.is_empty());
        let Some(inner) = inner else { return Ok(Self::Exact(text.to_string())) };
        let compiled = RegexBuilder::new(inner).size_limit(MAX_REGEX_BYTES).build();
        compiled.map(Self::Regex).map_err(|error| format!("`{text}` is not a regular expression: {}", last_line(&error.to_string())))
    }

    /// The same, where `<id>` stands for the id of anything, whole or as people see it.
    ///
    /// # Errors
    /// When the regular expression is faulty.
    pub fn with_ids(text: &str) -> Result<Self, String> {
        match Self::new(text)? {
            Self::Exact(text) if text.contains("<id>") => {
                let pattern = text.split("<id>").map(regex::escape).collect::<Vec<_>>().join("[0-9A-HJKMNP-TV-Z]{6,26}");
                Self::new(&format!("/^{pattern}$/"))
            }
            wording => Ok(wording),
        }
    }

    /// Whether a text is as expected.
    #[must_use]
    pub fn fits(&self, text: &str) -> bool {
        match self {
            Self::Exact(expected) => expected == text,
            Self::Regex(regex) => regex.is_match(text),
        }
    }
}

impl fmt::Display for Wording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(text) => f.write_str(text),
            Self::Regex(regex) => write!(f, "/{regex}/"),
        }
    }
}

/// What a regular expression's error says in the end; before that it draws a picture.
fn last_line(error: &str) -> &str {
    error.lines().last().unwrap_or(error).trim_start_matches("error: ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn differences(expected: &Value, extent: Extent, got: &Value) -> Vec<String> {
        let found = Expected::new(expected, extent).unwrap().differences(got);
        let shown = |value: Option<Value>| value.map_or("nothing".into(), |value| value.to_string());
        found.into_iter().map(|one| format!("{}: {} / {}", one.path, shown(one.expected), shown(one.got))).collect()
    }

    #[test]
    fn what_differs_is_named_by_its_path() {
        let got = json!({"app": "shop", "n": 5.0, "labels": {"env": "prod", "team": "a"}, "items": [1, {"x": "deploy-17"}]});
        for (expected, whole, part) in [
            (got.clone(), vec![], vec![]),
            (json!({"app": "shop", "n": 5, "labels": {"env": "/^pr/", "team": "a"}, "items": [1, {"x": r"/\d+$/"}]}), vec![], vec![]),
            (
                json!({"n": 5}),
                vec![
                    "app: nothing / \"shop\"",
                    "items: nothing / [1,{\"x\":\"deploy-17\"}]",
                    "labels: nothing / {\"env\":\"prod\",\"team\":\"a\"}",
                ],
                vec![],
            ),
            (
                json!({"labels": {"env": "test"}, "gone": null}),
                vec![
                    "labels.env: \"test\" / \"prod\"",
                    "labels.team: nothing / \"a\"",
                    "app: nothing / \"shop\"",
                    "items: nothing / [1,{\"x\":\"deploy-17\"}]",
                    "n: nothing / 5.0",
                ],
                vec!["labels.env: \"test\" / \"prod\""],
            ),
            (
                json!({"zone": 1}),
                vec![
                    "zone: 1 / nothing",
                    "app: nothing / \"shop\"",
                    "items: nothing / [1,{\"x\":\"deploy-17\"}]",
                    "labels: nothing / {\"env\":\"prod\",\"team\":\"a\"}",
                    "n: nothing / 5.0",
                ],
                vec!["zone: 1 / nothing"],
            ),
        ] {
            assert_eq!(differences(&expected, Extent::Whole, &got), whole, "{expected}");
            assert_eq!(differences(&expected, Extent::Part, &got), part, "{expected}");
        }
        assert_eq!(differences(&json!([1, {"x": "b"}]), Extent::Part, &json!([1, {"x": "a"}])), ["[1].x: \"b\" / \"a\""]);
        assert_eq!(differences(&json!([1]), Extent::Part, &json!([1, 2])), [": [1] / [1,2]"]);
        assert_eq!(differences(&json!("1"), Extent::Whole, &json!(1)), [": \"1\" / 1"]);
    }

    #[test]
    fn a_text_between_slashes_is_a_regular_expression() {
        assert!(Wording::new("/ends$/").unwrap().fits("it ends"));
        assert!(!Wording::new("ends").unwrap().fits("it ends"));
        assert!(Wording::new("/shop/checkout").unwrap().fits("/shop/checkout"));
        assert!(Wording::new("//").unwrap().fits("//"));
        let told = Wording::with_ids("`<id>` runs (a.b)").unwrap();
        assert!(told.fits("`01ABCZ` runs (a.b)") && !told.fits("`01ABCZ` runs (a-b)") && !told.fits("`abc` runs (a.b)"));
        let error = Wording::new("/(/").unwrap_err();
        assert_eq!(error, "`/(/` is not a regular expression: unclosed group");
    }
}
