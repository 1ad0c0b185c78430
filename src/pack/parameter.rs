//! What a parameter of an action, or a setting of a pack, may be: its type and its JSON Schema.

use serde_json::{Map, Value};

use crate::document::fields::Fields;
use crate::document::node::{Content, Key, Node};
use crate::document::shape::{Field, Holds, Shape};
use crate::model::action::{Parameter, ParameterType, cast};
use crate::model::schema::Schema;

/// A parameter of an action.
pub(super) static PARAMETER: Shape = Shape {
    what: "a parameter",
    doc: "A typed parameter: how it is given, and what of JSON Schema holds for it",
    fields: &[
        Field::new("immutable", Holds::Boolean, "Whether callers may not set it; it needs a default").default("false"),
        Field::new("position", Holds::Count(0, 1_000), "The place among the arguments of a command line").example("0"),
    ],
    shared: VALUE,
};

/// A setting of a pack.
pub(super) static SETTING: Shape =
    Shape { what: "a setting", doc: "A setting of the pack, which the site gives", fields: &[], shared: VALUE };

/// What parameters and settings have in common.
const VALUE: &[Field] = &[
    Field::new("type", Holds::Word(ParameterType::NAMES), "What it is; anything if absent").example("\"string\""),
    Field::new("description", Holds::Text, "For people"),
    Field::new("required", Holds::Boolean, "Whether it must be given").default("false"),
    Field::new("default", Holds::Any, "The value if it is not given"),
    Field::new("secret", Holds::Boolean, "Whether it is masked wherever it is shown").default("false"),
    Field::new("enum", Holds::List(&Holds::Any), "The values it may take"),
    Field::new("minimum", Holds::Number, "The least number"),
    Field::new("maximum", Holds::Number, "The greatest number"),
    Field::new("exclusiveMinimum", Holds::Number, "The number is greater than this"),
    Field::new("exclusiveMaximum", Holds::Number, "The number is less than this"),
    Field::new("multipleOf", Holds::Number, "The number is a multiple of this"),
    Field::new("pattern", Holds::Text, "A regular expression that is found in the text"),
    Field::new("format", Holds::Text, "What the text is: `uri`, `email`, `date-time`, `ipv4` and so on").example("\"uri\""),
    Field::new("minLength", Holds::Count(0, u64::MAX), "The fewest characters"),
    Field::new("maxLength", Holds::Count(0, u64::MAX), "The most characters"),
    Field::new("items", Holds::Schema, "The schema of each item of the list"),
    Field::new("minItems", Holds::Count(0, u64::MAX), "The fewest items"),
    Field::new("maxItems", Holds::Count(0, u64::MAX), "The most items"),
    Field::new("uniqueItems", Holds::Boolean, "Whether no item may stand in the list twice"),
    Field::new("properties", Holds::Map(&Holds::Schema), "The schemas of the fields of the map"),
    Field::new("additionalProperties", Holds::Schema, "The schema of fields that `properties` does not name, or false"),
    Field::new("anyOf", Holds::List(&Holds::Schema), "Schemas of which one at least fits"),
    Field::new("oneOf", Holds::List(&Holds::Schema), "Schemas of which exactly one fits"),
    Field::new("allOf", Holds::List(&Holds::Schema), "Schemas that all fit"),
    Field::new("not", Holds::Schema, "A schema that does not fit"),
];

/// Those of them that are read on their own; the others go to the schema as they are written.
const OWN: &[&str] = &["type", "description", "required", "default", "secret", "enum", "minimum", "maximum"];

/// Reads what parameters and settings have in common; `base` is what a runner says of a parameter of that name.
pub(super) fn value(inner: &mut Fields<'_, '_>, base: Parameter) -> Parameter {
    let kind = inner.word("type").and_then(ParameterType::named);
    let choices: Vec<_> = inner.list("enum").iter().map(Node::value).collect();
    let default = inner.node("default").map(Node::value);
    Parameter {
        kind: kind.or(base.kind),
        description: inner.text("description").unwrap_or(base.description),
        required: inner.boolean("required").unwrap_or(base.required),
        default: default.or(base.default),
        secret: inner.boolean("secret").unwrap_or(base.secret),
        choices: if choices.is_empty() { base.choices } else { choices },
        minimum: inner.number("minimum").or(base.minimum),
        maximum: inner.number("maximum").or(base.maximum),
        schema: schema(inner).or(base.schema),
        ..base
    }
}

/// The keywords that our own casting does not know, as a schema.
fn schema(inner: &mut Fields<'_, '_>) -> Option<Schema> {
    let mut written = Map::new();
    let mut places = Vec::new();
    for field in VALUE.iter().filter(|field| !OWN.contains(&field.name)) {
        if let Some(node) = inner.node(field.name) {
            written.insert(field.name.into(), node.value());
            places.push((field.name, node));
        }
    }
    if written.is_empty() {
        return None;
    }
    let at = |pointer: &str| places.iter().find(|(name, _)| pointer.split('/').nth(1) == Some(name)).map_or(places[0].1, |(_, node)| node);
    Schema::compile(Value::Object(written)).map_err(|(pointer, message)| inner.fault(within(at(&pointer), &pointer, 2), message)).ok()
}

/// The node that a JSON pointer leads to, or the last on the way; `skip` parts of the pointer are behind already.
pub(super) fn within<'n>(node: &'n Node, pointer: &str, skip: usize) -> &'n Node {
    pointer.split('/').skip(skip).fold(node, |node, step| match &node.content {
        Content::Map(pairs) => pairs.iter().find(|(key, _)| key.text == step).map_or(node, |(_, inner)| inner),
        Content::List(items) => step.parse().ok().and_then(|index: usize| items.get(index)).unwrap_or(node),
        Content::Scalar { .. } => node,
    })
}

/// Reads a JSON Schema.
pub(super) fn read_schema(fields: &mut Fields<'_, '_>, name: &'static str) -> Option<Schema> {
    let node = fields.node(name)?;
    if !matches!(node.content, Content::Map(_)) {
        fields.fault(node, format!("`{name}` must be a JSON Schema, a map, not {}", node.kind()));
        return None;
    }
    let compiled = Schema::compile(node.value());
    compiled.map_err(|(pointer, message)| fields.fault(within(node, &pointer, 1), format!("`{name}` is no JSON Schema: {message}"))).ok()
}

/// Reads a parameter of an action.
pub(super) fn parameter(fields: &mut Fields<'_, '_>, key: &Key, node: &Node, base: Option<Parameter>) -> Option<Parameter> {
    if !key.text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') || key.text.is_empty() {
        let fault = fields.source.fault(key.line, key.column, format!("`{}` is not a parameter's name", key.text));
        fields.faults.push(fault.hint("use letters, digits and `_`"));
    }
    let inherited = base.is_some();
    let mut inner = Fields::of(fields.source, node, &PARAMETER, fields.faults)?;
    if inherited {
        only_what_may_be_overridden(&mut inner, key, node);
    }
    let base = base.unwrap_or_else(|| Parameter::named(&key.text));
    let mut parameter = value(&mut inner, base);
    parameter.immutable = inner.boolean("immutable").unwrap_or(parameter.immutable);
    parameter.position = inner.count("position").and_then(|position| u32::try_from(position).ok()).or(parameter.position);
    if let Some(node) = inner.node("default") {
        let default = node.value();
        let text = default.as_str().unwrap_or_default();
        if text.contains("{{") || text.contains("<%") {
            inner.fault(node, "templates in defaults are not carried out by this version");
        } else if let Err(message) = cast(&parameter, &default) {
            inner.fault(node, format!("the default does not fit: {message}"));
        }
    }
    if parameter.immutable && parameter.default.is_none() {
        inner.fault_here(format!("`{}` is immutable and needs a default", key.text));
    }
    inner.finish();
    Some(parameter)
}

/// What an action may say anew of a parameter of its runner.
const OVERRIDES: &[&str] = &["default", "description", "enum", "immutable", "required"];

fn only_what_may_be_overridden(inner: &mut Fields<'_, '_>, key: &Key, node: &Node) {
    let Content::Map(pairs) = &node.content else { return };
    for (field, _) in pairs.iter().filter(|(field, _)| PARAMETER.field(&field.text).is_some() && !OVERRIDES.contains(&field.text.as_str()))
    {
        let message = format!("`{}` of the runner's parameter `{}` cannot be changed", field.text, key.text);
        let fault = inner.source.fault(field.line, field.column, message);
        inner.faults.push(fault.hint(format!("an action may change {} of it", OVERRIDES.join(", "))));
    }
}
