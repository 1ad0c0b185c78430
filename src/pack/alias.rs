//! Aliases: commands in chat.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::Site;
use super::action::{name, unknown_parameter};
use super::files::fault_at;
use super::kinds::{Kind, PackFile, Reading};
use crate::chat::grammar::book::{CompiledAlias, RESERVED};
use crate::chat::grammar::format::CompiledFormat;
use crate::chat::grammar::{PREFIX, normalized, split_pairs, values};
use crate::document::fault::{SourceFile, nearest};
use crate::document::fields::{Faults, Fields, did_you_mean};
use crate::document::node::{Content, Node};
use crate::document::shape::{Field, Holds, Shape};
use crate::model::alias::{Ack, Alias, Answer, Format};
use crate::model::place::Spot;
use crate::template::message::MessageTemplate;

/// Formats of one alias at most.
const MAX_FORMATS: usize = 100;

/// Aliases. Templates come before them in the list of kinds.
pub(super) const KIND: Kind = Kind { check, ..Kind::yaml("aliases", "an alias", read_file) };

/// An alias.
pub static ALIAS: Shape = Shape::new(
    "an alias",
    "A command in chat",
    &[
        Field::new("name", Holds::Text, "The file's name; may be left out").example("\"deploy\""),
        Field::new("pack", Holds::Text, "The pack; may be left out"),
        Field::new("description", Holds::Text, "For people"),
        Field::new("enabled", Holds::Boolean, "Whether it may be used").default("true"),
        Field::required("action_ref", Holds::Text, "The action that it runs").example("\"core.echo\""),
        Field::required(
            "formats",
            Holds::List(&Holds::Either(&[Holds::Text, Holds::Shape(&FORMAT)])),
            "What is typed: regular expressions with `{{parameter}}` and `{{parameter=default}}`",
        )
        .example("[\"echo {{text}}\"]"),
        Field::new("examples", Holds::List(&Holds::Text), "Whole commands, for people").example("[\"echo hello\"]"),
        Field::new("ack", Holds::Shape(&ACK), "What is said at once"),
        Field::new("result", Holds::Shape(&RESULT), "What is said when it has succeeded"),
        Field::new("immutable_parameters", Holds::Map(&Holds::Any), "Parameters that are always so"),
        Field::new("extra", Holds::Map(&Holds::Any), "For the adapters of chat systems"),
    ],
);

/// One way to type a command, with what help shows of it.
static FORMAT: Shape = Shape::new(
    "a format",
    "One way to type a command",
    &[
        Field::new("display", Holds::Text, "What help shows").example("\"cdos <name>\""),
        Field::required("representation", Holds::Either(&[Holds::Text, Holds::List(&Holds::Text)]), "What is matched"),
        Field::new("match_multiple", Holds::Boolean, "Whether it is looked for anywhere in a line, and as often as it stands there")
            .default("false"),
    ],
);

/// What is said at once.
static ACK: Shape = Shape::new(
    "`ack`",
    "What is said at once",
    &[
        Field::new("enabled", Holds::Boolean, "Whether anything is").default("true"),
        Field::new("format", Holds::Text, "A template").example("\"Looking up {{parameters.name}} …\""),
        Field::new("append_url", Holds::Boolean, "Whether the id of the execution ends it"),
        Field::new("extra", Holds::Map(&Holds::Any), "For the adapters of chat systems"),
    ],
);

/// What is said in the end.
static RESULT: Shape = Shape::new(
    "`result`",
    "What is said when it has succeeded",
    &[
        Field::new("enabled", Holds::Boolean, "Whether success is told").default("true"),
        Field::new("format", Holds::Text, "A template"),
        Field::new("template", Holds::Text, "A file of the pack's folder `templates`").example("\"cdos.hbs\""),
        Field::new("extra", Holds::Map(&Holds::Any), "For the adapters of chat systems"),
    ],
);

fn read_file(file: &PackFile, reading: &mut Reading<'_>) {
    let Some(node) = file.yaml(reading.faults) else { return };
    let templates: &[MessageTemplate] = &reading.contents.templates;
    if let Some(alias) = read(&file.source, &node, &reading.pack.reference, &file.stem, templates, reading.faults) {
        reading.contents.aliases.push(Arc::new(alias));
    }
}

/// Reads an alias. `templates` are those of its pack.
pub fn read(
    source: &SourceFile,
    node: &Node,
    pack: &str,
    stem: &str,
    templates: &[MessageTemplate],
    faults: &mut Faults,
) -> Option<CompiledAlias> {
    let before = faults.0.len();
    let mut fields = Fields::of(source, node, &ALIAS, faults)?;
    let name = name(&mut fields, stem);
    fields.text("pack");
    let description = fields.text("description").unwrap_or_default();
    let enabled = fields.boolean("enabled").unwrap_or(true);
    let action_at = fields.node("action_ref").map(|node| Spot::new(node.line, node.column)).unwrap_or_default();
    let action = fields.text("action_ref");
    let formats = formats(&mut fields);
    let examples = fields.texts("examples");
    let ack_node = fields.node("ack");
    let ack = ack_node.and_then(|node| read_ack(&mut fields, node)).unwrap_or_default();
    let ack_template = ack.format.as_ref().and_then(|text| inline(&mut fields, ack_node, "ack", text));
    let result_node = fields.node("result");
    let result = result_node.and_then(|node| read_answer(&mut fields, node)).unwrap_or_default();
    let result_template = match (&result.format, &result.template) {
        (Some(text), _) => inline(&mut fields, result_node, "result", text),
        (None, Some(file)) => named(&mut fields, result_node, file, templates),
        (None, None) => None,
    };
    let immutable = immutable(&mut fields);
    let extra = adapters(&mut fields);
    fields.finish();
    let alias = Alias {
        reference: format!("{pack}.{}", name?),
        description,
        enabled,
        action: action?,
        formats,
        examples: examples.iter().map(|(text, _)| text.clone()).collect(),
        ack,
        result,
        immutable,
        extra,
        place: source.place(node.line, node.column),
        action_at,
    };
    let spots: Vec<Spot> = alias.formats.iter().map(|format| format.at).collect();
    let compiled = match CompiledAlias::compile(alias, ack_template, result_template) {
        Ok(compiled) => compiled,
        Err(wrong) => {
            for (format, _, message) in wrong {
                let spot = spots.get(format).copied().unwrap_or_default();
                faults.push(source.fault(spot.line as usize, spot.column as usize, message));
            }
            return None;
        }
    };
    check_formats(&compiled, source, faults);
    for (example, place) in &examples {
        if !is_example(&compiled, example) {
            let message = format!("the example `{example}` fits none of the formats");
            faults.push(source.fault(place.line, place.column, message).as_warning());
        }
    }
    faults.0[before..].iter().all(|fault| fault.warning).then_some(compiled)
}

fn is_example(compiled: &CompiledAlias, example: &str) -> bool {
    let text = normalized(example);
    let text = text.strip_prefix(PREFIX).unwrap_or(&text).trim_start();
    let fits = |(format, _): &(CompiledFormat, usize)| format.parse(split_pairs(text).0).or_else(|| format.parse(text)).is_some();
    compiled.formats.iter().any(fits)
}

/// Formats: each a text, or a map with `display` and `representation`.
fn formats(fields: &mut Fields<'_, '_>) -> Vec<Format> {
    let mut formats = Vec::new();
    for node in fields.list("formats") {
        let at = Spot::new(node.line, node.column);
        match &node.content {
            Content::Scalar { value: Value::String(text), .. } => {
                formats.push(Format { display: shown(text), representation: vec![text.clone()], match_multiple: false, at });
            }
            Content::Map(_) => {
                let Some(mut inner) = Fields::of(fields.source, node, &FORMAT, fields.faults) else { continue };
                let display = inner.text("display");
                let one = inner.node("representation").filter(|node| matches!(node.content, Content::Scalar { .. }));
                let representation = match one {
                    Some(_) => inner.text("representation").into_iter().collect(),
                    None => inner.texts("representation").into_iter().map(|(text, _)| text).collect::<Vec<_>>(),
                };
                let match_multiple = inner.boolean("match_multiple").unwrap_or(false);
                if representation.is_empty() {
                    inner.fault_here("`representation` must have at least one format");
                }
                inner.finish();
                let display = display.or_else(|| representation.first().map(|text| shown(text))).unwrap_or_default();
                formats.push(Format { display, representation, match_multiple, at });
            }
            _ => fields.fault(node, format!("a format must be text, or a map with `display` and `representation`, not {}", node.kind())),
        }
    }
    if formats.len() > MAX_FORMATS {
        fields.fault_here(format!("an alias has at most {MAX_FORMATS} formats"));
    }
    formats
}

/// A format as help shows it: `cdos <name>`, `scale <app> [by=1]`.
fn shown(format: &str) -> String {
    let Ok(compiled) = CompiledFormat::compile(format, false) else { return format.to_string() };
    let (mut text, mut rest) = (String::new(), format);
    for capture in &compiled.captures {
        let Some((before, after)) = rest.split_once("{{") else { break };
        text.push_str(before);
        match &capture.default {
            None => text.push_str(&format!("<{}>", capture.name)),
            Some(default) => text.push_str(&format!("[{}={default}]", capture.name)),
        }
        let inner = after.find(capture.default.as_deref().unwrap_or("}}")).unwrap_or(0);
        rest = after[inner..].split_once("}}").map_or("", |(_, rest)| rest.trim_start_matches('}'));
    }
    text + rest
}

fn check_formats(compiled: &CompiledAlias, source: &SourceFile, faults: &mut Faults) {
    for (format, index) in &compiled.formats {
        let at = compiled.alias.formats[*index].at;
        let mut fault = |message: String, hint: &str| {
            faults.push(source.fault(at.line as usize, at.column as usize, message).hint(hint));
        };
        if let Some(first) = format.first.as_deref().filter(|first| RESERVED.contains(first)) {
            fault(format!("`{first}` begins a command of the bot itself"), "begin with another word, such as the name of the pack");
        }
        if format.words == 0 && format.captures.is_empty() {
            fault("a format needs a word or a parameter".into(), "write what people type, as in `restart {{app}}`");
        }
        for capture in &format.captures {
            if capture.default.as_ref().is_some_and(|default| default.contains("{{") || default.contains("<%")) {
                fault(
                    format!("the default of `{}` is never a template: formats are not rendered", capture.name),
                    "give the action's parameter a default, or write a fixed value",
                );
            }
        }
    }
}

fn read_ack(fields: &mut Fields<'_, '_>, node: &Node) -> Option<Ack> {
    let mut inner = Fields::of(fields.source, node, &ACK, fields.faults)?;
    let ack = Ack {
        enabled: inner.boolean("enabled").unwrap_or(true),
        format: inner.text("format"),
        append_url: inner.boolean("append_url"),
        extra: adapters(&mut inner),
    };
    inner.finish();
    Some(ack)
}

fn read_answer(fields: &mut Fields<'_, '_>, node: &Node) -> Option<Answer> {
    let mut inner = Fields::of(fields.source, node, &RESULT, fields.faults)?;
    let answer = Answer {
        enabled: inner.boolean("enabled").unwrap_or(true),
        format: inner.text("format"),
        template: inner.text("template"),
        extra: adapters(&mut inner),
    };
    if answer.format.is_some() && answer.template.is_some() {
        inner.fault_here("`result` has `format` or `template`, not both");
    }
    inner.finish();
    Some(answer)
}

/// Compiles a template that stands in the file itself. Its lines are not those of the file, so the field is pointed at.
fn inline(fields: &mut Fields<'_, '_>, node: Option<&Node>, what: &str, text: &str) -> Option<MessageTemplate> {
    match MessageTemplate::compile(what, text) {
        Ok(template) => Some(template),
        Err(errors) => {
            if let Some(node) = node {
                for error in errors {
                    let place = error.line.map(|line| format!("line {line} of the template: ")).unwrap_or_default();
                    fields.fault(node, format!("`{what}`: {place}{error}"));
                }
            }
            None
        }
    }
}

fn named(fields: &mut Fields<'_, '_>, node: Option<&Node>, file: &str, templates: &[MessageTemplate]) -> Option<MessageTemplate> {
    let found = templates.iter().find(|template| template.name == file).cloned();
    if let (None, Some(node)) = (&found, node) {
        let known: Vec<&str> = templates.iter().map(|template| template.name.as_str()).collect();
        let fault = fields.source.fault(node.line, node.column, format!("the pack has no template `templates/{file}` that can be used"));
        fields.faults.push(fault.hint(if known.is_empty() { "make that file".into() } else { did_you_mean(file, &known) }));
    }
    found
}

fn immutable(fields: &mut Fields<'_, '_>) -> Map<String, Value> {
    for (key, node) in fields.map("immutable_parameters") {
        let text = node.value().to_string();
        if text.contains("{{") || text.contains("<%") {
            fields.fault(node, format!("`{}` must be a fixed value: templates are not rendered here", key.text));
        }
    }
    fields.object("immutable_parameters")
}

fn adapters(fields: &mut Fields<'_, '_>) -> BTreeMap<String, Value> {
    fields.object("extra").into_iter().collect()
}

/// What aliases refer to is there, and what they give fits it.
fn check(site: &Site, root: &Path, faults: &mut Faults) {
    for compiled in &site.aliases {
        let alias = &compiled.alias;
        let Some(action) = site.actions.get(&alias.action) else {
            let fault =
                fault_at(root, &alias.at(alias.action_at), format!("alias `{}`: there is no action `{}`", alias.reference, alias.action));
            let near = nearest(&alias.action, site.actions.keys().map(String::as_str));
            faults.push(near.map(|near| format!("did you mean `{near}`?")).into_iter().fold(fault, crate::document::fault::Fault::hint));
            continue;
        };
        for (format, index) in &compiled.formats {
            let place = alias.at(alias.formats[*index].at);
            for capture in &format.captures {
                let parameter = action.parameters.iter().find(|parameter| parameter.name == capture.name);
                let wrong = match parameter {
                    None => Some(unknown_parameter(&capture.name, action)),
                    Some(parameter) if parameter.immutable => {
                        Some(format!("parameter `{}` of action `{}` is immutable and cannot be typed", capture.name, action.reference))
                    }
                    Some(_) if alias.immutable.contains_key(&capture.name) => {
                        Some(format!("`{}` is fixed by `immutable_parameters` and cannot be typed as well", capture.name))
                    }
                    Some(parameter) => capture.default.as_ref().and_then(|default| {
                        values::fits(parameter, default).err().map(|message| format!("the default does not fit: {message}"))
                    }),
                };
                faults.0.extend(wrong.map(|message| fault_at(root, &place, message)));
            }
        }
        for (name, value) in &alias.immutable {
            let wrong = match action.parameters.iter().find(|parameter| &parameter.name == name) {
                None => Some(unknown_parameter(name, action)),
                Some(parameter) if parameter.immutable => Some(format!("parameter `{name}` of action `{}` is immutable", action.reference)),
                Some(parameter) => crate::model::action::cast(parameter, &values::spoken(parameter, value)).err(),
            };
            faults.0.extend(wrong.map(|message| fault_at(root, &alias.at(alias.action_at), format!("`immutable_parameters`: {message}"))));
        }
    }
}
