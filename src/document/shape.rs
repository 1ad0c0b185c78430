//! What a map in a file may hold: one description of its fields, by which it is read and from which its JSON Schema is made, so that the
//! two cannot differ.
//!
//! A [`Shape`] is data. [`Fields`](super::fields::Fields) reads by it: it tells a field that is missing or unknown, and a debug build
//! stops where a reader asks for a field that is not described, or leaves one out. [`Shape::schema`] writes it as JSON Schema 2020-12.

use serde_json::{Map, Value, json};

/// What a map may hold.
#[derive(Debug)]
pub struct Shape {
    /// What it is, for messages: `a rule`.
    pub what: &'static str,
    /// What it is for, in a sentence.
    pub doc: &'static str,
    /// Its own fields, in the order in which people write them.
    pub fields: &'static [Field],
    /// Fields that it shares with other shapes.
    pub shared: &'static [Field],
}

/// A field of a map.
#[derive(Debug)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub holds: Holds,
    /// What it means, in a sentence.
    pub doc: &'static str,
    /// Whether it must be there.
    pub required: bool,
    /// What counts if it is not there, as JSON.
    pub default: Option<&'static str>,
    /// A value that is right, as JSON.
    pub example: Option<&'static str>,
}

/// What a field holds.
#[derive(Debug)]
pub enum Holds {
    /// Anything.
    Any,
    /// Text; a number must be quoted.
    Text,
    /// One of these words.
    Word(&'static [&'static str]),
    /// One of the words of a list that is kept elsewhere.
    WordOf(fn() -> Vec<&'static str>),
    /// True or false.
    Boolean,
    /// A whole number from the first to the second.
    Count(u64, u64),
    /// Any number.
    Number,
    /// `30s`, or a number of seconds.
    Duration,
    /// A size such as `1MiB`, or a number of bytes.
    Size,
    /// A JSON Schema.
    Schema,
    /// A list.
    List(&'static Holds),
    /// A map whose keys are names that the author chooses.
    Map(&'static Holds),
    /// A map of that shape.
    Shape(&'static Shape),
    /// One of several.
    Either(&'static [Holds]),
}

impl Field {
    /// A field that may be left out.
    #[must_use]
    pub const fn new(name: &'static str, holds: Holds, doc: &'static str) -> Self {
        Self { name, holds, doc, required: false, default: None, example: None }
    }

    /// A field that must be there.
    #[must_use]
    pub const fn required(name: &'static str, holds: Holds, doc: &'static str) -> Self {
        Self { name, holds, doc, required: true, default: None, example: None }
    }

    /// What counts if it is not there, as JSON.
    #[must_use]
    pub const fn default(self, value: &'static str) -> Self {
        Self { default: Some(value), ..self }
    }

    /// A value that is right, as JSON.
    #[must_use]
    pub const fn example(self, value: &'static str) -> Self {
        Self { example: Some(value), ..self }
    }

    fn schema(&self) -> Value {
        let mut schema = self.holds.schema();
        if let Value::Object(map) = &mut schema {
            map.insert("description".into(), self.doc.into());
            map.extend(self.default.map(|value| ("default".to_string(), parsed(value))));
            map.extend(self.example.map(|value| ("examples".to_string(), json!([parsed(value)]))));
        }
        schema
    }
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).expect("a test reads every default and example")
}

impl Shape {
    /// A shape that shares no field.
    #[must_use]
    pub const fn new(what: &'static str, doc: &'static str, fields: &'static [Field]) -> Self {
        Self { what, doc, fields, shared: &[] }
    }

    /// Every field.
    pub fn all(&self) -> impl Iterator<Item = &'static Field> + use<> {
        self.fields.iter().chain(self.shared)
    }

    /// A field by name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&'static Field> {
        self.all().find(|field| field.name == name)
    }

    /// The names of its fields.
    #[must_use]
    pub fn names(&self) -> Vec<&'static str> {
        self.all().map(|field| field.name).collect()
    }

    /// The description as JSON Schema.
    #[must_use]
    pub fn schema(&self) -> Value {
        let properties: Map<String, Value> = self.all().map(|field| (field.name.to_string(), field.schema())).collect();
        let required: Vec<&str> = self.all().filter(|field| field.required).map(|field| field.name).collect();
        let mut schema = json!({"type": "object", "description": self.doc, "properties": properties, "additionalProperties": false});
        if !required.is_empty() {
            schema["required"] = json!(required);
        }
        schema
    }
}

/// The form of a duration.
const DURATION: &str = "^[0-9]+(\\.[0-9]+)?(ms|s|m|h|d)?$";

/// The form of a size.
const SIZE: &str = "^[0-9]+(B|KiB|MiB)?$";

impl Holds {
    fn schema(&self) -> Value {
        match self {
            Self::Any => json!({}),
            Self::Text => json!({"type": "string"}),
            Self::Word(words) => json!({"enum": words}),
            Self::WordOf(words) => json!({"enum": words()}),
            Self::Boolean => json!({"type": "boolean"}),
            Self::Count(least, most) => {
                let mut schema = json!({"type": "integer", "minimum": least});
                if *most < u64::MAX {
                    schema["maximum"] = json!(most);
                }
                schema
            }
            Self::Number => json!({"type": "number"}),
            Self::Duration => json!({"anyOf": [{"type": "string", "pattern": DURATION}, {"type": "number", "minimum": 0}]}),
            Self::Size => json!({"anyOf": [{"type": "string", "pattern": SIZE}, {"type": "integer", "minimum": 1}]}),
            Self::Schema => json!({"type": ["object", "boolean"]}),
            Self::List(items) => json!({"type": "array", "items": items.schema()}),
            Self::Map(values) => json!({"type": "object", "additionalProperties": values.schema()}),
            Self::Shape(shape) => shape.schema(),
            Self::Either(forms) => json!({"anyOf": forms.iter().map(Self::schema).collect::<Vec<_>>()}),
        }
    }
}
