//! YAML as a tree in which every value and every key knows its place.

use saphyr::Scalar;
use saphyr_parser::{Event, Parser, ScalarStyle, Span};
use serde_json::{Map, Value};

use super::fault::{Fault, SourceFile};

/// A file may hold at most this many nodes, aliases counted as often as they are used.
pub const MAX_NODES: usize = 200_000;

/// A file may nest at most this deep.
pub const MAX_DEPTH: usize = 64;

/// A file may be at most this large.
pub const MAX_BYTES: u64 = 1024 * 1024;

/// A value and its place.
#[derive(Clone, Debug)]
pub struct Node {
    /// Line, from one.
    pub line: usize,
    /// Column, from one.
    pub column: usize,
    /// The value.
    pub content: Content,
}

/// The value of a node.
#[derive(Clone, Debug)]
pub enum Content {
    /// Null, true, false, a number or text.
    Scalar {
        /// The value by YAML's core schema.
        value: Value,
        /// The text as written.
        text: String,
    },
    /// A list.
    List(Vec<Node>),
    /// A map, in the order of the file.
    Map(Vec<(Key, Node)>),
}

/// The key of a map and its place.
#[derive(Clone, Debug)]
pub struct Key {
    /// The key.
    pub text: String,
    /// Line, from one.
    pub line: usize,
    /// Column, from one.
    pub column: usize,
}

impl Node {
    /// The value as JSON; numbers that JSON does not have become their text.
    #[must_use]
    pub fn value(&self) -> Value {
        match &self.content {
            Content::Scalar { value, .. } => value.clone(),
            Content::List(items) => Value::Array(items.iter().map(Self::value).collect()),
            Content::Map(pairs) => Value::Object(pairs.iter().map(|(key, node)| (key.text.clone(), node.value())).collect::<Map<_, _>>()),
        }
    }

    /// What it is, in words.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match &self.content {
            Content::Scalar { value: Value::Null, .. } => "nothing",
            Content::Scalar { value: Value::Bool(_), .. } => "a boolean",
            Content::Scalar { value: Value::Number(_), .. } => "a number",
            Content::Scalar { .. } => "text",
            Content::List(_) => "a list",
            Content::Map(_) => "a map",
        }
    }
}

/// Reads the one document of a file.
///
/// # Errors
/// When it is no YAML, holds several documents, repeats a key, or is larger than the limits.
pub fn parse(source: &SourceFile) -> Result<Node, Fault> {
    let mut reader = Reader { source, parser: Parser::new_from_str(&source.text), anchors: Vec::new(), nodes: 0 };
    loop {
        let (event, span) = reader.next()?;
        match event {
            Event::StreamStart | Event::DocumentStart(_) | Event::Nothing => {}
            Event::StreamEnd => return Err(source.whole("the file is empty")),
            event => {
                let node = reader.node(event, span, 0)?;
                reader.end()?;
                return Ok(node);
            }
        }
    }
}

struct Reader<'s> {
    source: &'s SourceFile,
    parser: Parser<'s, saphyr_parser::StrInput<'s>>,
    anchors: Vec<(usize, Node)>,
    nodes: usize,
}

impl<'s> Reader<'s> {
    fn next(&mut self) -> Result<(Event<'s>, Span), Fault> {
        match self.parser.next() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => {
                let (line, column) = (error.marker().line(), error.marker().col() + 1);
                let fault = self.source.fault(line, column, format!("not valid YAML: {}", error.info()));
                let cut = fault.line.as_deref().is_some_and(|line| line.contains("<%"));
                Err(if cut {
                    fault.hint("an expression that holds `#`, `, ` or `: `, or stands inside { }, must be quoted")
                } else {
                    fault
                })
            }
            None => Err(self.source.whole("the file ends too early")),
        }
    }

    fn end(&mut self) -> Result<(), Fault> {
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::DocumentEnd => {}
                Event::StreamEnd => return Ok(()),
                _ => {
                    let message = "a file holds one document; a second one starts here";
                    return Err(self.source.fault(span.start.line(), span.start.col() + 1, message));
                }
            }
        }
    }

    fn node(&mut self, event: Event<'s>, span: Span, depth: usize) -> Result<Node, Fault> {
        let (line, column) = (span.start.line(), span.start.col() + 1);
        self.count(1, line, column)?;
        if depth > MAX_DEPTH {
            return Err(self.source.fault(line, column, format!("nested deeper than {MAX_DEPTH} levels")));
        }
        let (content, anchor) = match event {
            Event::Alias(id) => {
                let found = self.anchors.iter().rev().find(|(anchor, _)| *anchor == id).map(|(_, node)| node.clone());
                let node = found.ok_or_else(|| self.source.fault(line, column, "an alias to an anchor that is not complete"))?;
                self.count(size(&node), line, column)?;
                return Ok(Node { line, column, content: node.content });
            }
            Event::Scalar(text, style, anchor, tag) => {
                let scalar = Scalar::parse_from_cow_and_metadata(text.clone(), style, tag.as_ref());
                let scalar = scalar.ok_or_else(|| self.source.fault(line, column, format!("`{text}` does not fit its tag")))?;
                let value = to_json(scalar, &text);
                let cut = style == ScalarStyle::Plain && text.contains("<%") && !text.contains("%>");
                if cut {
                    let fault = self.source.fault(line, column, format!("the expression `{text}` was cut short by YAML"));
                    return Err(fault.hint("quote it: an expression that holds `#`, `, ` or `: `, or stands inside { }, must be quoted"));
                }
                (Content::Scalar { value, text: text.into_owned() }, anchor)
            }
            Event::SequenceStart(anchor, _) => (Content::List(self.list(depth)?), anchor),
            Event::MappingStart(anchor, _) => (Content::Map(self.map(depth)?), anchor),
            _ => return Err(self.source.fault(line, column, "not valid YAML here")),
        };
        let node = Node { line, column, content };
        if anchor != 0 {
            self.anchors.push((anchor, node.clone()));
        }
        Ok(node)
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Node>, Fault> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(items),
                (event, span) => items.push(self.node(event, span, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Vec<(Key, Node)>, Fault> {
        let mut pairs: Vec<(Key, Node)> = Vec::new();
        loop {
            let (event, span) = self.next()?;
            let (line, column) = (span.start.line(), span.start.col() + 1);
            let text = match event {
                Event::MappingEnd => return Ok(pairs),
                Event::Scalar(text, ..) => text.into_owned(),
                _ => return Err(self.source.fault(line, column, "a key must be plain text")),
            };
            if let Some((first, _)) = pairs.iter().find(|(key, _)| key.text == text) {
                let message = format!("`{text}` stands here a second time; the first is in line {}", first.line);
                return Err(self.source.fault(line, column, message));
            }
            let (event, span) = self.next()?;
            let node = self.node(event, span, depth + 1)?;
            pairs.push((Key { text, line, column }, node));
        }
    }

    fn count(&mut self, nodes: usize, line: usize, column: usize) -> Result<(), Fault> {
        self.nodes += nodes;
        if self.nodes > MAX_NODES {
            return Err(self.source.fault(line, column, format!("the file holds more than {MAX_NODES} values")));
        }
        Ok(())
    }
}

fn size(node: &Node) -> usize {
    1 + match &node.content {
        Content::Scalar { .. } => 0,
        Content::List(items) => items.iter().map(size).sum(),
        Content::Map(pairs) => pairs.iter().map(|(_, node)| size(node)).sum(),
    }
}

fn to_json(scalar: Scalar<'_>, text: &str) -> Value {
    match scalar {
        Scalar::Null => Value::Null,
        Scalar::Boolean(value) => Value::Bool(value),
        Scalar::Integer(value) => Value::from(value),
        Scalar::FloatingPoint(value) => serde_json::Number::from_f64(value.into_inner()).map_or_else(|| Value::from(text), Value::Number),
        Scalar::String(value) => Value::from(value.into_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(text: &str) -> Result<Value, String> {
        parse(&SourceFile::new("a.yaml", text)).map(|node| node.value()).map_err(|fault| fault.to_string())
    }

    #[test]
    fn the_core_schema_anchors_and_expressions() {
        let text = "a: &x {n: 1, t: 'yes', f: 1.5, z: ~}\nb: *x\nc: <% trigger.a > 1 %>\nd: yes\ne: 2016.12.29.006\n";
        let x = json!({"n": 1, "t": "yes", "f": 1.5, "z": null});
        assert_eq!(read(text).unwrap(), json!({"a": x, "b": x, "c": "<% trigger.a > 1 %>", "d": "yes", "e": "2016.12.29.006"}));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        for (text, says) in [
            ("a: 1\na: 2\n", "a.yaml:2:1: error: `a` stands here a second time; the first is in line 1"),
            ("a: [1, 2\n", "a.yaml:"),
            ("a: 1\n---\nb: 2\n", "a second one starts here"),
            ("", "the file is empty"),
            ("a: {p: <% f(1, 2) %>}\n", "must be quoted"),
            ("[a]: 1\n", "a key must be plain text"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(says), "{text:?}: {error}");
        }
    }

    #[test]
    fn bombs_are_refused() {
        let mut laughs = String::from("a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n");
        for i in 1..9 {
            let one = format!("*a{}", i - 1);
            laughs.push_str(&format!("a{i}: &a{i} [{}]\n", vec![one; 10].join(", ")));
        }
        assert!(read(&laughs).unwrap_err().contains("more than 200000 values"));
        assert!(read(&format!("{}1{}", "[".repeat(100), "]".repeat(100))).unwrap_err().contains("nested deeper"));
    }
}
