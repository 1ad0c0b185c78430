//! Reading a map field by field: what is unknown, missing or of the wrong type is a fault with its place.

use std::time::Duration;

use serde_json::{Map, Value};

use super::fault::{Fault, SourceFile, nearest};
use super::node::{Content, Key, Node};
use super::shape::{Holds, Shape};
use crate::model::duration;
use crate::model::place::Place;

/// All faults of a site or file.
#[derive(Debug, Default)]
pub struct Faults(pub Vec<Fault>);

impl Faults {
    /// Whether nothing but warnings was found.
    #[must_use]
    pub fn allow(&self) -> bool {
        self.0.iter().all(|fault| fault.warning)
    }

    /// Adds a fault.
    pub fn push(&mut self, fault: Fault) {
        self.0.push(fault);
    }
}

/// A map that is being read by its [`Shape`]. Call [`Fields::finish`] at the end: it reports the fields that nobody asked for.
///
/// A debug build stops where a reader asks for a field that the shape does not have, or does not ask for one that it has: what is read and
/// what its JSON Schema says are the same.
pub struct Fields<'n, 'f> {
    /// The file.
    pub source: &'n SourceFile,
    /// All faults so far.
    pub faults: &'f mut Faults,
    shape: &'static Shape,
    line: usize,
    column: usize,
    pairs: &'n [(Key, Node)],
    known: Vec<&'static str>,
}

impl<'n, 'f> Fields<'n, 'f> {
    /// Starts reading a map; anything else is a fault, and so is each field that must be there and is not.
    pub fn of(source: &'n SourceFile, node: &'n Node, shape: &'static Shape, faults: &'f mut Faults) -> Option<Self> {
        let Content::Map(pairs) = &node.content else {
            faults.push(source.fault(node.line, node.column, format!("{} must be a map, not {}", shape.what, node.kind())));
            return None;
        };
        let mut fields = Self { source, faults, shape, line: node.line, column: node.column, pairs, known: Vec::new() };
        for field in shape.all().filter(|field| field.required) {
            if !fields.has(field.name) {
                fields.fault_here(format!("{} needs the field `{}`", shape.what, field.name));
            }
        }
        Some(fields)
    }

    /// Whether a field is there and not null. Not a reading of it: see [`Fields::node`].
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        has(self.pairs, name)
    }

    /// The node of a field, if it is there and not null.
    pub fn node(&mut self, name: &'static str) -> Option<&'n Node> {
        debug_assert!(self.shape.field(name).is_some(), "`{name}` is not described in the shape of {}", self.shape.what);
        self.known.push(name);
        let (_, node) = self.pairs.iter().find(|(key, _)| key.text == name)?;
        (!matches!(node.content, Content::Scalar { value: Value::Null, .. })).then_some(node)
    }

    /// Text. A number is refused with the advice to quote it.
    pub fn text(&mut self, name: &'static str) -> Option<String> {
        let node = self.node(name)?;
        self.as_text(name, node)
    }

    fn as_text(&mut self, name: &str, node: &Node) -> Option<String> {
        match &node.content {
            Content::Scalar { value: Value::String(text), .. } => Some(text.clone()),
            Content::Scalar { value: Value::Number(_) | Value::Bool(_), text } => {
                let fault = self.source.fault(node.line, node.column, format!("`{name}` must be text, not {}", node.kind()));
                self.faults.push(fault.hint(format!("quote it: \"{text}\"")));
                None
            }
            _ => {
                self.wrong(node, name, "text");
                None
            }
        }
    }

    /// One of the words that the shape names.
    pub fn word(&mut self, name: &'static str) -> Option<&'static str> {
        let node = self.node(name)?;
        let text = self.as_text(name, node)?;
        let words = match &self.shape.field(name)?.holds {
            Holds::Word(words) => words.to_vec(),
            Holds::WordOf(words) => words(),
            _ => unreachable!("`{name}` of {} is no word", self.shape.what),
        };
        let found = words.iter().find(|word| **word == text).copied();
        if found.is_none() {
            let fault = self.source.fault(node.line, node.column, format!("`{name}` cannot be `{text}`"));
            self.faults.push(fault.hint(did_you_mean(&text, &words)));
        }
        found
    }

    /// True or false.
    pub fn boolean(&mut self, name: &'static str) -> Option<bool> {
        let node = self.node(name)?;
        let value = node.value().as_bool();
        if value.is_none() {
            self.wrong(node, name, "true or false");
        }
        value
    }

    /// A whole number within the bounds that the shape names.
    pub fn count(&mut self, name: &'static str) -> Option<u64> {
        let node = self.node(name)?;
        let (least, most) = match self.shape.field(name).map(|field| &field.holds) {
            Some(Holds::Count(least, most)) => (*least, *most),
            _ => (0, u64::MAX),
        };
        match node.value().as_u64() {
            Some(count) if (least..=most).contains(&count) => return Some(count),
            Some(count) if most < u64::MAX => self.fault(node, format!("`{name}` must be from {least} to {most}, not {count}")),
            Some(count) => self.fault(node, format!("`{name}` must be at least {least}, not {count}")),
            None => self.wrong(node, name, "a whole number of at least zero"),
        }
        None
    }

    /// Any number.
    pub fn number(&mut self, name: &'static str) -> Option<f64> {
        let node = self.node(name)?;
        let value = node.value().as_f64();
        if value.is_none() {
            self.wrong(node, name, "a number");
        }
        value
    }

    /// A duration: `30s`, or a bare number of seconds.
    pub fn duration(&mut self, name: &'static str) -> Option<Duration> {
        let node = self.node(name)?;
        let Content::Scalar { text, .. } = &node.content else {
            self.wrong(node, name, "a duration such as 30s");
            return None;
        };
        match duration::parse(text) {
            Ok(duration) => Some(duration),
            Err(message) => {
                self.faults.push(self.source.fault(node.line, node.column, format!("`{name}`: {message}")));
                None
            }
        }
    }

    /// A list of nodes.
    pub fn list(&mut self, name: &'static str) -> &'n [Node] {
        let Some(node) = self.node(name) else { return &[] };
        if let Content::List(items) = &node.content {
            return items;
        }
        self.wrong(node, name, "a list");
        &[]
    }

    /// A list of texts.
    pub fn texts(&mut self, name: &'static str) -> Vec<(String, Place)> {
        let items = self.list(name);
        items.iter().filter_map(|item| Some((self.as_text(name, item)?, self.source.place(item.line, item.column)))).collect()
    }

    /// A map of nodes.
    pub fn map(&mut self, name: &'static str) -> &'n [(Key, Node)] {
        let Some(node) = self.node(name) else { return &[] };
        if let Content::Map(pairs) = &node.content {
            return pairs;
        }
        self.wrong(node, name, "a map");
        &[]
    }

    /// A map of any values.
    pub fn object(&mut self, name: &'static str) -> Map<String, Value> {
        self.map(name).iter().map(|(key, node)| (key.text.clone(), node.value())).collect()
    }

    /// The place of a node in this file.
    #[must_use]
    pub fn place(&self, node: &Node) -> Place {
        self.source.place(node.line, node.column)
    }

    /// A fault at a node.
    pub fn fault(&mut self, node: &Node, message: impl Into<String>) {
        self.faults.push(self.source.fault(node.line, node.column, message));
    }

    /// A fault at the map itself.
    pub fn fault_here(&mut self, message: impl Into<String>) {
        self.faults.push(self.source.fault(self.line, self.column, message));
    }

    /// Reports every field that the shape does not have.
    pub fn finish(self) {
        let known = self.shape.names();
        debug_assert!(
            known.iter().all(|name| self.known.contains(name)),
            "{}: {known:?} are described, {:?} read",
            self.shape.what,
            self.known
        );
        for (key, _) in self.pairs.iter().filter(|(key, _)| !known.contains(&key.text.as_str())) {
            let fault = self.source.fault(key.line, key.column, format!("{} has no field `{}`", self.shape.what, key.text));
            self.faults.push(fault.hint(did_you_mean(&key.text, &known)));
        }
    }

    fn wrong(&mut self, node: &Node, name: &str, expected: &str) {
        let message = format!("`{name}` must be {expected}, not {}", node.kind());
        self.faults.push(self.source.fault(node.line, node.column, message));
    }
}

/// Whether a map has a field that is not null: to choose the shape by which it is read.
#[must_use]
pub fn has(pairs: &[(Key, Node)], name: &str) -> bool {
    pairs.iter().any(|(key, node)| key.text == name && !matches!(node.content, Content::Scalar { value: Value::Null, .. }))
}

/// “did you mean …?”, or the list of what there is.
#[must_use]
pub fn did_you_mean(given: &str, known: &[&str]) -> String {
    match nearest(given, known.iter().copied()) {
        Some(name) => format!("did you mean `{name}`?"),
        None => format!("known are: {}", known.join(", ")),
    }
}
