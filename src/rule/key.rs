//! What tells one key of a window or throttle from another: `by`. Nearly always it is a field or two of the payload, and then nothing
//! else of the payload is read.

use serde_json::Value;

use super::seen::Seen;
use crate::model::path::FieldPath;
use crate::template::text::plain;
use crate::template::value::{Scope, ValueTemplate};

/// Makes keys.
#[derive(Debug)]
pub(super) enum KeyMaker {
    /// Text with fields in it.
    Fields(Vec<Part>),
    /// Anything else.
    Template(ValueTemplate),
}

/// A piece of a key.
#[derive(Debug, PartialEq)]
pub(super) enum Part {
    /// As it stands.
    Literal(String),
    /// A field, and what it is called.
    Field(FieldPath, String),
}

impl KeyMaker {
    pub(super) fn compile(by: Option<&str>, names: &[&'static str]) -> Result<Self, String> {
        let Some(by) = by else { return Ok(Self::Fields(Vec::new())) };
        let template = ValueTemplate::compile(&Value::from(by), names)?;
        Ok(parts(by).map_or(Self::Template(template), Self::Fields))
    }

    pub(super) fn paths(&self) -> impl Iterator<Item = &FieldPath> {
        let parts = if let Self::Fields(parts) = self { parts.as_slice() } else { &[] };
        parts.iter().filter_map(|part| if let Part::Field(path, _) = part { Some(path) } else { None })
    }

    /// The key; `fields` are what its paths lead to, in their order.
    pub(super) fn make<'f, 'p: 'f>(
        &self,
        mut fields: impl Iterator<Item = &'f Seen<'p>>,
        scope: impl Fn() -> Result<&'f Scope, String>,
    ) -> Result<String, String> {
        match self {
            Self::Fields(parts) => {
                let mut key = String::new();
                for part in parts {
                    match part {
                        Part::Literal(text) => key.push_str(text),
                        Part::Field(_, name) => match fields.next() {
                            None | Some(Seen::Missing | Seen::Null) => return Err(format!("`{name}` is missing")),
                            Some(Seen::Nested(_)) => return Err(format!("`{name}` is a list or an object, and a key is text")),
                            Some(Seen::Text(text)) => key.push_str(text),
                            Some(other) => key.push_str(&plain(&other.to_value())),
                        },
                    }
                }
                Ok(key)
            }
            Self::Template(template) => match template.render(scope()?)? {
                Value::Null => Err("`by` gave nothing".into()),
                nested @ (Value::Array(_) | Value::Object(_)) => Err(format!("`by` gave {nested}, and a key is text")),
                value => Ok(plain(&value)),
            },
        }
    }
}

/// The pieces of a template that holds nothing but text and fields of the payload.
fn parts(source: &str) -> Option<Vec<Part>> {
    if source.contains("<%") || source.contains("\\{{") || source.contains("{{{") {
        return None;
    }
    let (mut parts, mut rest) = (Vec::new(), source);
    while let Some((literal, after)) = rest.split_once("{{") {
        let (tag, after) = after.split_once("}}")?;
        let name = tag.trim();
        let is_plain = |step: &str| !step.is_empty() && step.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
        let mut steps = name.split('.');
        if steps.next() != Some("trigger") || !name.contains('.') || !steps.all(is_plain) {
            return None;
        }
        // A number is a place in a list to a template, and a name to a path.
        if name.split('.').any(|step| step.starts_with(|c: char| c.is_ascii_digit())) {
            return None;
        }
        if !literal.is_empty() {
            parts.push(Part::Literal(literal.to_string()));
        }
        parts.push(Part::Field(FieldPath::parse(name).ok()?, name.to_string()));
        rest = after;
    }
    if !rest.is_empty() {
        parts.push(Part::Literal(rest.to_string()));
    }
    Some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::fields::FieldReader;
    use serde_json::json;

    fn make(by: &str, payload: &Value) -> Result<String, String> {
        let maker = KeyMaker::compile(Some(by), &["trigger"]).unwrap();
        let mut reader = FieldReader::default();
        let slots: Vec<usize> = maker.paths().map(|path| reader.slot(path)).collect();
        let text = payload.to_string();
        let fields = reader.read(&text).unwrap();
        let scope = Scope::new(vec![("trigger", payload.clone())]);
        maker.make(slots.iter().map(|slot| &fields.slots[*slot]), || Ok(&scope))
    }

    #[test]
    fn fields_and_templates_give_the_same() {
        let payload = json!({"labels": {"app": "shop", "zone-a": 7}, "ok": true, "n": 1.5, "none": null, "list": [1]});
        for by in ["{{trigger.labels.app}}", "{{ trigger.labels.app }}/{{trigger.labels.zone-a}}!", "x", "{{trigger.ok}} {{trigger.n}}"] {
            let template = ValueTemplate::compile(&Value::from(by), &["trigger"]).unwrap();
            let text = template.render(&Scope::new(vec![("trigger", payload.clone())])).unwrap();
            assert!(parts(by).is_some(), "{by}");
            assert_eq!(Value::from(make(by, &payload).unwrap()), text, "{by}");
        }
        assert_eq!(make("<% trigger.n * 2.0 %>", &payload).unwrap(), "3.0");
        assert_eq!(make("{{trigger.labels.zone}}", &payload).unwrap_err(), "`trigger.labels.zone` is missing");
        assert_eq!(make("{{trigger.none}}", &payload).unwrap_err(), "`trigger.none` is missing");
        assert_eq!(make("<% trigger.none %>", &payload).unwrap_err(), "`by` gave nothing");
        assert!(make("{{trigger.list}}", &payload).unwrap_err().contains("a key is text"));
        assert!(make("<% trigger.list %>", &payload).unwrap_err().contains("a key is text"));
        for other in ["{{upper trigger.labels.app}}", "{{trigger.list.[0]}}", "{{#if trigger.ok}}a{{/if}}", "\\{{x", "{{event.id}}"] {
            assert!(parts(other).is_none(), "{other}");
        }
    }
}
