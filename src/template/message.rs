//! Templates of messages: acknowledgements, results, notices. A template as in [`super::text`] whose names are known beforehand, so that a
//! misspelled one is found when it is loaded.

use handlebars::template::{HelperTemplate, Parameter, Template, TemplateElement};
use handlebars::{Path, PathSeg};

use super::text::{Data, HELPERS, TemplateError, TextTemplate};
use crate::document::fault::nearest;

/// The names that a template of a message may use.
pub const NAMES: &[&str] = &["execution", "parameters", "result", "user", "channel"];

/// Helpers that have a block.
const BLOCKS: &[&str] = &["if", "unless", "each", "with", "eq", "ne", "gt", "gte", "lt", "lte", "and", "or", "not"];

/// A template of a message.
#[derive(Debug, Clone)]
pub struct MessageTemplate {
    /// What messages about it call it: `cdos.hbs`, or `ack`.
    pub name: String,
    template: TextTemplate,
}

impl MessageTemplate {
    /// Compiles a template.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn compile(name: &str, source: &str) -> Result<Self, Vec<TemplateError>> {
        let template = TextTemplate::compile(source).map_err(|error| vec![error])?;
        let mut faults = Vec::new();
        look(template.inner(), false, &mut faults);
        if faults.is_empty() { Ok(Self { name: name.into(), template }) } else { Err(faults) }
    }

    /// The text, without blank lines at its end.
    ///
    /// # Errors
    /// When a name is missing, a helper fails or the text is too long.
    pub fn render(&self, data: &Data) -> Result<String, TemplateError> {
        self.template.render(data).map(|text| text.trim_end().to_string())
    }
}

fn look(template: &Template, in_block: bool, faults: &mut Vec<TemplateError>) {
    for (index, element) in template.elements.iter().enumerate() {
        let place = template.mapping.get(index).map(|mapping| (mapping.0, mapping.1));
        let mut fault = |message: String| {
            let (line, column) = place.unzip();
            faults.push(TemplateError { message, line, column });
        };
        match element {
            TemplateElement::HelperBlock(tag) => {
                if let Some(name) = sole_name(&tag.name)
                    && !BLOCKS.contains(&name.as_str())
                {
                    fault(unknown("block", &name, BLOCKS));
                }
                look_at_parameters(tag, in_block, &mut fault);
                for inner in [&tag.template, &tag.inverse].into_iter().flatten() {
                    look(inner, true, faults);
                }
            }
            TemplateElement::Expression(tag) | TemplateElement::HtmlExpression(tag) => look_at_tag(tag, in_block, &mut fault),
            _ => {}
        }
    }
}

fn look_at_tag(tag: &HelperTemplate, in_block: bool, fault: &mut impl FnMut(String)) {
    let is_call = !tag.params.is_empty() || !tag.hash.is_empty();
    match sole_name(&tag.name) {
        Some(name) if is_call && !callable().contains(&name.as_str()) => fault(unknown("helper", &name, callable())),
        Some(name) if !is_call && HELPERS.contains(&name.as_str()) => {
            fault(format!("`{name}` is a helper, not a value: write `this.{name}` for a field of that name"));
        }
        _ if !is_call => look_at_path(&tag.name, in_block, fault),
        _ => {}
    }
    look_at_parameters(tag, in_block, fault);
}

/// The helpers that may be called: neither to the log of the process, nor to show a template raw.
fn callable() -> &'static [&'static str] {
    HELPERS.strip_suffix(&["raw", "log"]).unwrap_or(HELPERS)
}

fn look_at_parameters(tag: &HelperTemplate, in_block: bool, fault: &mut impl FnMut(String)) {
    for parameter in tag.params.iter().chain(tag.hash.values()) {
        match parameter {
            Parameter::Subexpression(inner) => {
                if let TemplateElement::Expression(tag) | TemplateElement::HtmlExpression(tag) = inner.as_element() {
                    look_at_tag(tag, in_block, fault);
                }
            }
            path => look_at_path(path, in_block, fault),
        }
    }
}

/// Outside of blocks, a name must be one of those that there are; a block may see the fields of what it goes through.
fn look_at_path(path: &Parameter, in_block: bool, fault: &mut impl FnMut(String)) {
    let Parameter::Path(Path::Relative((segments, _))) = path else { return };
    if let (false, Some(PathSeg::Named(first))) = (in_block, segments.first())
        && !NAMES.contains(&first.as_str())
    {
        fault(unknown("name", first, NAMES));
    }
}

/// The name, if a parameter is nothing but one.
fn sole_name(parameter: &Parameter) -> Option<String> {
    match parameter {
        Parameter::Name(name) => Some(name.clone()),
        // `this.name` has one segment, too, and is no name.
        Parameter::Path(Path::Relative((segments, written))) => match segments.as_slice() {
            [PathSeg::Named(name)] if name == written => Some(name.clone()),
            _ => None,
        },
        _ => None,
    }
}

fn unknown(what: &str, name: &str, known: &[&str]) -> String {
    match nearest(name, known.iter().copied()) {
        Some(near) => format!("there is no {what} `{name}` here; did you mean `{near}`?"),
        None => format!("there is no {what} `{name}` here; there are {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(source: &str) -> Result<String, String> {
        let data = Data::new(json!({
            "execution": {"id": "X", "status": "succeeded"}, "parameters": {"app": "shop"},
            "result": {"raw": 1, "rows": [{"name": "a", "len": 2}, {"name": "b", "len": 3}]}, "user": "li", "channel": "ops",
        }));
        let faults = |faults: Vec<TemplateError>| {
            faults
                .iter()
                .map(|fault| format!("{}:{} {fault}", fault.line.unwrap_or(0), fault.column.unwrap_or(0)))
                .collect::<Vec<_>>()
                .join("; ")
        };
        MessageTemplate::compile("t", source).map_err(faults)?.render(&data).map_err(|error| error.to_string())
    }

    #[test]
    fn names_are_known_when_a_template_is_loaded() {
        assert_eq!(check("{{user}}: {{#each result.rows}}{{name}}={{this.len}} {{/each}}\n\n").unwrap(), "li: a=2 b=3");
        assert_eq!(check("{{result.raw}} {{#if (eq execution.status \"succeeded\")}}✅{{/if}}").unwrap(), "1 ✅");
        for (source, part) in [
            ("a\n{{usr}}", "2:1 there is no name `usr` here; did you mean `user`?"),
            ("{{raw}}", "`raw` is a helper, not a value: write `this.raw`"),
            ("{{#each result.rows}}{{len}}{{/each}}", "write `this.len`"),
            ("{{log}}", "`log` is a helper"),
            ("{{uper user}}", "there is no helper `uper` here; did you mean `upper`?"),
            ("{{#eech result.rows}}x{{/eech}}", "there is no block `eech` here; did you mean `each`?"),
            ("{{upper (lwer user)}}", "did you mean `lower`?"),
            ("{{upper usr}} {{json parms}}", "did you mean `user`?"),
            ("{{result.rwos}}", "`result.rwos` is missing"),
        ] {
            let error = check(source).unwrap_err();
            assert!(error.contains(part), "{source}: {error}");
        }
    }
}
