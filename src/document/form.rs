//! Checks a map by its [`Shape`] alone, where nothing reads it: what a later version carries out, and what is for people only.

use serde_json::Value;

use super::fault::SourceFile;
use super::fields::{Faults, did_you_mean};
use super::node::{Content, Node};
use super::shape::{Holds, Shape};
use crate::model::duration;

/// Tells what of a map does not fit its shape.
pub fn check(source: &SourceFile, node: &Node, shape: &'static Shape, faults: &mut Faults) {
    let Content::Map(pairs) = &node.content else {
        faults.push(source.fault(node.line, node.column, format!("{} must be a map, not {}", shape.what, node.kind())));
        return;
    };
    for field in shape.all().filter(|field| field.required && !super::fields::has(pairs, field.name)) {
        faults.push(source.fault(node.line, node.column, format!("{} needs the field `{}`", shape.what, field.name)));
    }
    for (key, value) in pairs {
        match shape.field(&key.text) {
            Some(_) if matches!(value.content, Content::Scalar { value: Value::Null, .. }) => {}
            Some(field) => holds(source, field.name, value, &field.holds, faults),
            None => {
                let fault = source.fault(key.line, key.column, format!("{} has no field `{}`", shape.what, key.text));
                faults.push(fault.hint(did_you_mean(&key.text, &shape.names())));
            }
        }
    }
}

/// Tells what of a field's value does not fit.
pub fn holds(source: &SourceFile, name: &str, node: &Node, expected: &'static Holds, faults: &mut Faults) {
    let value = node.value();
    let wrong = |words: &str| source.fault(node.line, node.column, format!("`{name}` must be {words}, not {}", node.kind()));
    match expected {
        Holds::Any => {}
        Holds::Text if value.is_string() => {}
        Holds::Text => faults.push(match &node.content {
            Content::Scalar { text, .. } => wrong("text").hint(format!("quote it: \"{text}\"")),
            _ => wrong("text"),
        }),
        Holds::Word(words) => word(source, name, node, words, faults),
        Holds::WordOf(words) => word(source, name, node, &words(), faults),
        Holds::Boolean if value.is_boolean() => {}
        Holds::Boolean => faults.push(wrong("true or false")),
        Holds::Count(least, most) => match value.as_u64() {
            Some(count) if (*least..=*most).contains(&count) => {}
            Some(_) => faults.push(source.fault(node.line, node.column, format!("`{name}` must be from {least} to {most}"))),
            None => faults.push(wrong("a whole number of at least zero")),
        },
        Holds::Number if value.is_number() => {}
        Holds::Number => faults.push(wrong("a number")),
        Holds::Duration => match &node.content {
            Content::Scalar { text, .. } => {
                if let Err(message) = duration::parse(text) {
                    faults.push(source.fault(node.line, node.column, format!("`{name}`: {message}")));
                }
            }
            _ => faults.push(wrong("a duration such as 30s")),
        },
        Holds::Size => {
            if !matches!(node.content, Content::Scalar { .. }) {
                faults.push(wrong("a size such as 1MiB"));
            }
        }
        Holds::Schema => {
            if !value.is_object() && !value.is_boolean() {
                faults.push(wrong("a JSON Schema"));
            }
        }
        Holds::List(items) => match &node.content {
            Content::List(nodes) => nodes.iter().for_each(|node| holds(source, name, node, items, faults)),
            _ => faults.push(wrong("a list")),
        },
        Holds::Map(values) => match &node.content {
            Content::Map(pairs) => pairs.iter().for_each(|(key, node)| holds(source, &key.text, node, values, faults)),
            _ => faults.push(wrong("a map")),
        },
        Holds::Shape(shape) => check(source, node, shape, faults),
        Holds::Either(forms) => either(source, name, node, forms, faults),
    }
}

/// The faults of the form that comes nearest: a map is told what of a map is wrong with it.
fn either(source: &SourceFile, name: &str, node: &Node, forms: &'static [Holds], faults: &mut Faults) {
    let tried = forms.iter().map(|form| {
        let mut found = Faults::default();
        holds(source, name, node, form, &mut found);
        let same_kind = match form {
            Holds::Map(_) | Holds::Shape(_) => matches!(node.content, Content::Map(_)),
            Holds::List(_) => matches!(node.content, Content::List(_)),
            _ => matches!(node.content, Content::Scalar { .. }),
        };
        (!same_kind, found)
    });
    let best = tried.min_by_key(|(other_kind, found)| (!found.0.is_empty(), *other_kind, found.0.len()));
    faults.0.extend(best.map(|(_, found)| found.0).unwrap_or_default());
}

fn word(source: &SourceFile, name: &str, node: &Node, words: &[&'static str], faults: &mut Faults) {
    let given = node.value();
    let text = given.as_str().unwrap_or_default();
    if !words.contains(&text) {
        let fault = source.fault(node.line, node.column, format!("`{name}` cannot be `{text}`"));
        faults.push(fault.hint(did_you_mean(text, words)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::node;
    use crate::document::shape::Field;

    static INNER: Shape =
        Shape::new("an inner one", "", &[Field::required("n", Holds::Count(1, 5), ""), Field::new("on", Holds::Boolean, "")]);
    static OUTER: Shape = Shape::new(
        "an outer one",
        "",
        &[
            Field::required("name", Holds::Text, ""),
            Field::new("all", Holds::List(&Holds::Either(&[Holds::Text, Holds::Shape(&INNER)])), ""),
            Field::new("by", Holds::Map(&Holds::Duration), ""),
        ],
    );

    #[test]
    fn everything_that_does_not_fit_is_told() {
        let source = SourceFile::new("a.yaml", "nmae: x\nall: [x, {n: 2}, {n: 9}, {m: 1}, [1]]\nby: {a: 5m, b: soon}\n");
        let (node, mut faults) = (node::parse(&source).unwrap(), Faults::default());
        check(&source, &node, &OUTER, &mut faults);
        let told: Vec<String> = faults.0.iter().map(|fault| format!("{}: {}", fault.place, fault.message)).collect();
        assert_eq!(
            told,
            [
                "a.yaml:1:1: an outer one needs the field `name`",
                "a.yaml:1:1: an outer one has no field `nmae`",
                "a.yaml:2:22: `n` must be from 1 to 5",
                "a.yaml:2:26: an inner one needs the field `n`",
                "a.yaml:2:27: an inner one has no field `m`",
                "a.yaml:2:34: `all` must be text, not a list",
                "a.yaml:3:16: `b`: `soon` is not a duration; write for example 500ms, 30s, 5m, 2h or 7d",
            ]
        );
    }
}
