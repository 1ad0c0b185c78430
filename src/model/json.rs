//! Raw JSON text that is known to be valid, and small questions about it.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// How deep a payload may nest; deeper ones are refused at the door.
pub const MAX_DEPTH: usize = 64;

/// Valid JSON kept as the bytes it came in; parsed only where a value is needed.
#[derive(Clone, Debug)]
pub struct RawJson(Arc<RawValue>);

impl Serialize for RawJson {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.as_ref().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for RawJson {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Box::<RawValue>::deserialize(deserializer).map(Self::from_raw)
    }
}

impl RawJson {
    /// Takes ownership of text that has been parsed as JSON already.
    #[must_use]
    pub fn from_raw(raw: Box<RawValue>) -> Self {
        Self(raw.into())
    }

    /// Checks that the text is JSON, not deeper than [`MAX_DEPTH`], and holds no number that a double cannot.
    ///
    /// # Errors
    /// With line and column when it is not.
    pub fn parse(text: &str) -> Result<Self, String> {
        check(text)?;
        serde_json::from_str::<Box<RawValue>>(text).map(Self::from_raw).map_err(|error| describe(&error))
    }

    /// The JSON of a value.
    ///
    /// # Panics
    /// Never: a `Value` always has JSON.
    #[must_use]
    pub fn of(value: &serde_json::Value) -> Self {
        Self::from_raw(RawValue::from_string(value.to_string()).expect("a value writes valid JSON"))
    }

    /// The text as it came.
    #[must_use]
    pub fn text(&self) -> &str {
        self.0.get()
    }

    /// The parsed value.
    ///
    /// # Errors
    /// When a number does not fit (`1e999`): such text is JSON, but has no value.
    pub fn value(&self) -> Result<serde_json::Value, String> {
        serde_json::from_str(self.text()).map_err(|error| describe(&error))
    }
}

impl PartialEq for RawJson {
    fn eq(&self, other: &Self) -> bool {
        self.text() == other.text()
    }
}

/// A JSON error in our words: what and where.
#[must_use]
pub fn describe(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let what = text.split(" at line ").next().unwrap_or(&text);
    format!("{what} (line {}, column {})", error.line(), error.column())
}

/// Refuses text that nests deeper than [`MAX_DEPTH`], without recursion and before anything is parsed.
///
/// # Errors
/// When it does.
pub fn check_depth(text: &[u8]) -> Result<(), String> {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for byte in text {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Err(format!("JSON nests deeper than {MAX_DEPTH} levels"));
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

/// What every text from outside must pass before it is parsed: [`check_depth`] and [`check_readable`].
///
/// # Errors
/// What either of them says.
pub fn check(text: &str) -> Result<(), String> {
    check_depth(text.as_bytes())?;
    check_readable(text)
}

/// Refuses what is JSON and yet no program can read: numbers beyond the range of a double (`1e999`) and halves of characters (`\ud800`).
///
/// # Errors
/// When there is one; names it.
pub fn check_readable(text: &str) -> Result<(), String> {
    let bytes = text.as_bytes();
    let (mut at, mut in_string) = (0, false);
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if in_string && bytes.get(at + 1) == Some(&b'u') => {
                at += surrogate_pair(text, at)?;
                continue;
            }
            b'\\' if in_string => at += 1,
            b'"' => in_string = !in_string,
            b'0'..=b'9' if !in_string => {
                let length = bytes[at..].iter().take_while(|b| b.is_ascii_digit() || b"+-.eE".contains(b)).count();
                let number = &text[at..at + length];
                let risky = length > 300 || number.contains(['e', 'E']);
                if risky && !number.parse::<f64>().is_ok_and(f64::is_finite) {
                    let shown: String = number.chars().take(20).collect();
                    return Err(format!("the number `{shown}` is out of range"));
                }
                at += length;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    Ok(())
}

/// The length of the escape at this place; one half of a pair of surrogates is no character.
fn surrogate_pair(text: &str, at: usize) -> Result<usize, String> {
    let unit = |at: usize| {
        text.get(at..at + 6).filter(|escape| escape.starts_with("\\u")).and_then(|escape| u16::from_str_radix(&escape[2..], 16).ok())
    };
    match unit(at) {
        Some(0xd800..=0xdbff) if matches!(unit(at + 6), Some(0xdc00..=0xdfff)) => Ok(12),
        Some(0xd800..=0xdfff) => Err(format!("`{}` is half of a character", &text[at..at + 6])),
        _ => Ok(6.min(text.len() - at)),
    }
}

/// The name of a value's type, in the words of JSON Schema.
#[must_use]
pub fn type_name(value: &serde_json::Value) -> &'static str {
    use serde_json::Value;
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_is_bounded_and_brackets_in_strings_do_not_count() {
        let deep = |n: usize| format!("{}1{}", "[".repeat(n), "]".repeat(n));
        assert!(RawJson::parse(&deep(MAX_DEPTH)).is_ok());
        assert_eq!(RawJson::parse(&deep(MAX_DEPTH + 1)).unwrap_err(), "JSON nests deeper than 64 levels");
        assert!(RawJson::parse(&format!("\"{}\\\"[\"", "[".repeat(500))).is_ok());
    }

    #[test]
    fn numbers_that_no_double_holds_are_refused() {
        for fine in ["[1e300, -1.5E-9, 123456789012345678901234567890]", "\"1e999 \\\" 1e999\"", "{\"true\": true}"] {
            assert_eq!(check_readable(fine), Ok(()), "{fine}");
        }
        assert_eq!(check_readable("{\"n\": -1e999}").unwrap_err(), "the number `1e999` is out of range");
        assert!(check_readable(&"9".repeat(400)).is_err());
        assert_eq!(check_readable("\"\\ud83d\\ude00 \\u00e9\""), Ok(()));
        assert_eq!(check_readable("{\"x\": \"\\ud800\"}").unwrap_err(), "`\\ud800` is half of a character");
        assert!(check_readable("\"\\udc00\"").is_err());
    }

    #[test]
    fn errors_have_a_place() {
        assert_eq!(RawJson::parse("{\"a\":1,}").unwrap_err(), "key must be a string (line 1, column 8)");
    }
}
