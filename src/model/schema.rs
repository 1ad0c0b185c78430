//! JSON Schemas that authors write: for parameters, settings, payloads and results.
//!
//! The dialect is 2020-12. Patterns run in linear time; references lead only to places in the schema itself.

use std::fmt;
use std::sync::Arc;

use jsonschema::{Draft, PatternOptions, Validator};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

/// Faults that are told of one value; the rest is counted.
const TOLD: usize = 5;

/// The longest form of a value that is shown in a fault, in characters.
const SHOWN: usize = 200;

/// The most memory of one compiled pattern, in bytes.
const PATTERN_BYTES: usize = 1024 * 1024;

/// A JSON Schema, compiled once.
#[derive(Clone)]
pub struct Schema {
    written: Arc<Value>,
    compiled: Arc<Validator>,
}

impl Schema {
    /// Compiles a schema.
    ///
    /// # Errors
    /// What is wrong with it and where: a JSON pointer into the schema, and a sentence.
    pub fn compile(written: Value) -> Result<Self, (String, String)> {
        if let Err(error) = jsonschema::draft202012::meta::validate(&written) {
            return Err((error.instance_path().to_string(), error.to_string()));
        }
        let patterns = PatternOptions::regex().size_limit(PATTERN_BYTES);
        let options = jsonschema::options().with_draft(Draft::Draft202012).with_pattern_options(patterns).should_validate_formats(true);
        let compiled = options.build(&written).map_err(|error| (error.schema_path().to_string(), error.to_string()))?;
        Ok(Self { written: Arc::new(written), compiled: Arc::new(compiled) })
    }

    /// The schema as its author wrote it.
    #[must_use]
    pub fn written(&self) -> &Value {
        &self.written
    }

    /// Whether a value fits.
    #[must_use]
    pub fn fits(&self, value: &Value) -> bool {
        self.compiled.is_valid(value)
    }

    /// What of a value does not fit: where, as `a.b[0]`, and what.
    ///
    /// # Errors
    /// Up to five faults, in one line.
    pub fn check(&self, value: &Value) -> Result<(), String> {
        self.told(value, |error| error.to_string())
    }

    /// The same without showing what the value holds.
    ///
    /// # Errors
    /// Up to five faults, in one line.
    pub fn check_secret(&self, value: &Value) -> Result<(), String> {
        self.told(value, |error| error.masked_with(crate::model::secret::MASK).to_string())
    }

    fn told(&self, value: &Value, tell: impl Fn(&jsonschema::ValidationError<'_>) -> String) -> Result<(), String> {
        if self.fits(value) {
            return Ok(());
        }
        let mut faults = self.compiled.iter_errors(value);
        let mut told: Vec<String> =
            faults.by_ref().take(TOLD).map(|error| at(&error.instance_path().to_string(), &short(&tell(&error)))).collect();
        let more = faults.count();
        told.sort();
        if more > 0 {
            told.push(format!("and {more} more"));
        }
        Err(told.join("; "))
    }
}

fn short(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

/// A fault with the place as people write it: `/a/0/b` is `a[0].b`.
fn at(pointer: &str, message: &str) -> String {
    let mut path = String::new();
    for step in pointer.split('/').skip(1) {
        let step = step.replace("~1", "/").replace("~0", "~");
        if step.bytes().all(|byte| byte.is_ascii_digit()) && !step.is_empty() {
            path.push_str(&format!("[{step}]"));
        } else {
            path.push_str(if path.is_empty() { "" } else { "." });
            path.push_str(&step);
        }
    }
    if path.is_empty() { message.to_string() } else { format!("`{path}`: {message}") }
}

impl PartialEq for Schema {
    fn eq(&self, other: &Self) -> bool {
        self.written == other.written
    }
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Schema({})", self.written)
    }
}

impl Serialize for Schema {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.written.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Schema {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = Value::deserialize(deserializer)?;
        Self::compile(written).map_err(|(place, message)| serde::de::Error::custom(format!("{place}: {message}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_does_not_fit_is_told_with_its_place() {
        let schema = json!({"type": "object", "properties": {"app": {"type": "string"}, "ports": {"type": "array", "items": {"type": "integer", "maximum": 65535}}}, "required": ["app"]});
        let schema = Schema::compile(schema).unwrap();
        assert_eq!(schema.check(&json!({"app": "a", "ports": [80]})), Ok(()));
        assert_eq!(
            schema.check(&json!({"ports": [80, "x", 70000]})).unwrap_err(),
            "\"app\" is a required property; `ports[1]`: \"x\" is not of type \"integer\"; `ports[2]`: 70000 is greater than the maximum of 65535"
        );
        assert!(!schema.check_secret(&json!({"app": 12345})).unwrap_err().contains("12345"));
    }

    #[test]
    fn a_faulty_schema_is_told_and_outside_references_are_refused() {
        let faulty = |schema| Schema::compile(schema).unwrap_err();
        assert_eq!(faulty(json!({"properties": {"a": {"type": "strin"}}})).0, "/properties/a/type");
        assert!(faulty(json!({"pattern": "("})).1.contains('('));
        assert!(Schema::compile(json!({"$ref": "http://127.0.0.1:1/schema.json"})).is_err());
        assert!(Schema::compile(json!({"$ref": "file:///etc/passwd"})).is_err());
        assert!(Schema::compile(json!({"$defs": {"a": {"type": "string"}}, "$ref": "#/$defs/a"})).is_ok());
    }

    #[test]
    fn formats_and_patterns_count_and_end_soon() {
        let fits = |schema: Value, value: Value| Schema::compile(schema).unwrap().fits(&value);
        assert!(fits(json!({"format": "uri"}), json!("http://a/b")) && !fits(json!({"format": "uri"}), json!("no uri")));
        let evil = "a".repeat(100_000);
        assert!(!fits(json!({"pattern": "^(a+)+$"}), json!(format!("{evil}b"))));
    }
}
