//! Handlebars, strict and bounded: a missing name is an error, partials do not exist, output and nesting have limits.

use std::io::{self, Write};
use std::sync::{LazyLock, OnceLock};

use handlebars::template::{HelperTemplate, Parameter, TemplateElement};
use handlebars::{
    Context, Handlebars, Helper, JsonTruthy, Output, Path, PathSeg, RenderContext, RenderError, RenderErrorReason, Renderable, Template,
};
use serde_json::Value;

/// The longest source of a template.
pub const MAX_SOURCE_BYTES: usize = 64 * 1024;

/// The longest text that a template may make.
pub const MAX_OUTPUT_BYTES: usize = 256 * 1024;

/// How deep blocks may nest; the parser recurses, so this is checked before it runs.
pub const MAX_BLOCKS: usize = 32;

/// Steps that the blocks of one rendering may take: loops in loops over long lists would never end.
pub const MAX_STEPS: u64 = 1_000_000;

/// A helper in a block may look at all the data: its steps grow by one with so many bytes of it.
const BYTES_A_STEP: usize = 4_096;

/// Marks in a block that are counted instead of written: one element, one call of a helper.
const ELEMENT: char = '\u{0}';
const CALL: char = '\u{1}';

/// A template, compiled.
#[derive(Debug, Clone)]
pub struct TextTemplate {
    template: Template,
}

/// A name that a template uses, as the steps to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedPath {
    /// The steps, `["trigger", "labels", "app"]`; without `../`, `this` and `@root`.
    pub steps: Vec<String>,
    /// Whether it stands inside a block, which may see other names.
    pub in_block: bool,
}

/// A fault in a template, with its place inside it where known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateError {
    /// What is wrong.
    pub message: String,
    /// Line within the template, from one.
    pub line: Option<usize>,
    /// Column within the line, from one.
    pub column: Option<usize>,
}

impl std::fmt::Display for TemplateError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

fn fault(message: impl Into<String>) -> TemplateError {
    TemplateError { message: message.into(), line: None, column: None }
}

/// The names that a template may use, and their values.
pub struct Data {
    context: Context,
    /// About how large they are, in bytes; found out when a template has blocks.
    size: OnceLock<usize>,
}

impl Data {
    /// Takes an object whose fields are the names.
    ///
    /// # Panics
    /// Never: a `Value` is always a context.
    #[must_use]
    pub fn new(names: Value) -> Self {
        Self { context: Context::wraps(names).expect("a JSON value is always a context"), size: OnceLock::new() }
    }
}

impl TextTemplate {
    /// Compiles a template.
    ///
    /// # Errors
    /// When it is no template, too long, too deep, or uses a partial.
    pub fn compile(source: &str) -> Result<Self, TemplateError> {
        if source.len() > MAX_SOURCE_BYTES {
            return Err(fault(format!("the template is longer than {MAX_SOURCE_BYTES} bytes")));
        }
        let mut depth = 0usize;
        for tag in source.split("{{").skip(1) {
            let tag = tag.trim_start_matches(['{', '~', ' ']);
            if tag.starts_with('>') || tag.starts_with("#>") || tag.starts_with("#*") || tag.starts_with('*') {
                return Err(fault("partials and decorators do not exist here; write the text itself"));
            }
            if tag.starts_with('#') || tag.starts_with('^') {
                depth += 1;
            } else if tag.starts_with('/') {
                depth = depth.saturating_sub(1);
            }
            if depth > MAX_BLOCKS || source.matches('(').count() > 256 {
                return Err(fault(format!("blocks nest deeper than {MAX_BLOCKS} levels")));
            }
        }
        let mut template = Template::compile(source).map_err(|error| {
            let (line, column) = error.pos().map_or((None, None), |(line, column)| (Some(line), Some(column)));
            TemplateError { message: error.reason().to_string(), line, column }
        })?;
        mark_blocks(&mut template);
        Ok(Self { template })
    }

    pub(super) fn inner(&self) -> &Template {
        &self.template
    }

    /// Every name that the template uses, in the order of its text.
    #[must_use]
    pub fn paths(&self) -> Vec<NamedPath> {
        let mut found = Vec::new();
        collect(&self.template, false, &mut found);
        found
    }

    /// The steps of the name, if the template is exactly one `{{name}}`.
    #[must_use]
    pub fn sole_path(&self) -> Option<Vec<String>> {
        let [TemplateElement::Expression(tag) | TemplateElement::HtmlExpression(tag)] = self.template.elements.as_slice() else {
            return None;
        };
        let Parameter::Path(Path::Relative((segments, _))) = &tag.name else { return None };
        let plain = tag.params.is_empty() && tag.hash.is_empty() && segments.iter().all(|segment| matches!(segment, PathSeg::Named(_)));
        plain.then(|| names(segments))
    }

    /// The text.
    ///
    /// # Errors
    /// When a name is missing, a helper fails or the text is too long.
    pub fn render(&self, data: &Data) -> Result<String, TemplateError> {
        let mut output = Bounded { text: Vec::new(), steps: 0, data };
        let mut context = RenderContext::new(None);
        let rendered = self.template.render(&REGISTRY, &data.context, &mut context, &mut output);
        if output.steps > MAX_STEPS {
            return Err(fault(format!("it takes more than {MAX_STEPS} steps: loops over long lists, one in another")));
        }
        rendered.map_err(|error| describe(&error))?;
        String::from_utf8(output.text).map_err(|_| fault("the text is not UTF-8"))
    }
}

fn collect(template: &Template, in_block: bool, found: &mut Vec<NamedPath>) {
    for element in &template.elements {
        collect_element(element, in_block, found);
    }
}

fn collect_element(element: &TemplateElement, in_block: bool, found: &mut Vec<NamedPath>) {
    if let TemplateElement::Expression(tag) | TemplateElement::HtmlExpression(tag) | TemplateElement::HelperBlock(tag) = element {
        collect_tag(tag, in_block, found);
    }
}

fn collect_tag(tag: &HelperTemplate, in_block: bool, found: &mut Vec<NamedPath>) {
    for parameter in std::iter::once(&tag.name).chain(&tag.params).chain(tag.hash.values()) {
        match parameter {
            Parameter::Path(Path::Relative((segments, _))) => found.push(NamedPath { steps: names(segments), in_block }),
            Parameter::Subexpression(inner) => collect_element(inner.as_element(), in_block, found),
            _ => {}
        }
    }
    for inner in [&tag.template, &tag.inverse].into_iter().flatten() {
        collect(inner, true, found);
    }
}

fn names(segments: &[PathSeg]) -> Vec<String> {
    segments.iter().filter_map(|segment| if let PathSeg::Named(name) = segment { Some(name.clone()) } else { None }).collect()
}

fn describe(error: &RenderError) -> TemplateError {
    let message = match error.reason() {
        RenderErrorReason::MissingVariable(Some(name)) => format!("`{name}` is missing"),
        RenderErrorReason::MissingVariable(None) => "a name is missing".to_string(),
        RenderErrorReason::IOError(_) => format!("the text is longer than {MAX_OUTPUT_BYTES} bytes"),
        reason => reason.to_string(),
    };
    TemplateError { message, line: error.line_no, column: error.column_no }
}

/// Every helper that there is.
pub(super) const HELPERS: &[&str] = &[
    "json", "default", "upper", "lower", "if", "unless", "each", "with", "lookup", "len", "eq", "ne", "gt", "gte", "lt", "lte", "and",
    "or", "not", "raw", "log",
];

struct Bounded<'d> {
    text: Vec<u8>,
    steps: u64,
    data: &'d Data,
}

impl Output for Bounded<'_> {
    fn write(&mut self, text: &str) -> io::Result<()> {
        if text.starts_with([ELEMENT, CALL]) {
            let call = || 1 + self.data.size.get_or_init(|| size(self.data.context.data())) / BYTES_A_STEP;
            let steps: usize = text.chars().map(|mark| if mark == CALL { call() } else { 1 }).sum();
            self.steps += steps as u64;
            return if self.steps > MAX_STEPS { Err(io::Error::other("too many steps")) } else { Ok(()) };
        }
        if self.text.len() + text.len() > MAX_OUTPUT_BYTES {
            return Err(io::Error::other("too long"));
        }
        self.text.write_all(text.as_bytes())
    }
}

/// About how large a value is, in bytes.
fn size(value: &Value) -> usize {
    8 + match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(size).sum(),
        Value::Object(map) => map.iter().map(|(name, value)| name.len() + size(value)).sum(),
        _ => 0,
    }
}

/// Puts marks before all that stands in blocks, so that what loops do is counted.
fn mark_blocks(template: &mut Template) {
    for element in &mut template.elements {
        if let TemplateElement::HelperBlock(tag) = element {
            for inner in [&mut tag.template, &mut tag.inverse].into_iter().flatten() {
                mark(inner);
                mark_blocks(inner);
            }
        }
    }
}

fn mark(template: &mut Template) {
    let marks = |element: &TemplateElement| match element {
        TemplateElement::Expression(tag) | TemplateElement::HtmlExpression(tag) | TemplateElement::HelperBlock(tag) => {
            format!("{ELEMENT}{}", CALL.to_string().repeat(calls(tag)))
        }
        _ => ELEMENT.to_string(),
    };
    let Some(place) = template.mapping.first().cloned() else {
        return; // nothing stands in it
    };
    let elements = std::mem::take(&mut template.elements);
    let places = std::mem::take(&mut template.mapping);
    for (index, element) in elements.into_iter().enumerate() {
        let place = places.get(index).unwrap_or(&place);
        template.elements.extend([TemplateElement::RawString(marks(&element)), element]);
        template.mapping.extend([place.clone(), place.clone()]);
    }
}

/// How many helpers a tag calls.
fn calls(tag: &HelperTemplate) -> usize {
    let inner = tag.params.iter().chain(tag.hash.values()).map(|parameter| match parameter {
        Parameter::Subexpression(inner) => match inner.as_element() {
            TemplateElement::Expression(tag) => calls(tag),
            _ => 0,
        },
        _ => 0,
    });
    usize::from(!tag.params.is_empty()) + inner.sum::<usize>()
}

static REGISTRY: LazyLock<Handlebars<'static>> = LazyLock::new(|| {
    let mut registry = Handlebars::new();
    registry.register_escape_fn(handlebars::no_escape);
    registry.set_strict_mode(true);
    registry.register_helper(
        "json",
        Box::new(|h: &Helper<'_>, _: &Handlebars<'_>, _: &Context, _: &mut RenderContext<'_, '_>, out: &mut dyn Output| {
            Ok(out.write(&argument(h, 0)?.to_string())?)
        }),
    );
    registry.register_helper(
        "default",
        Box::new(|h: &Helper<'_>, _: &Handlebars<'_>, _: &Context, _: &mut RenderContext<'_, '_>, out: &mut dyn Output| {
            let given =
                h.param(0).filter(|param| !param.is_value_missing() && param.value().is_truthy(false)).map(|param| param.value().clone());
            let value = given.map_or_else(|| argument(h, 1), Ok)?;
            Ok(out.write(&plain(&value))?)
        }),
    );
    for (name, change) in [("upper", str::to_uppercase as fn(&str) -> String), ("lower", str::to_lowercase)] {
        registry.register_helper(
            name,
            Box::new(move |h: &Helper<'_>, _: &Handlebars<'_>, _: &Context, _: &mut RenderContext<'_, '_>, out: &mut dyn Output| {
                Ok(out.write(&change(&plain(&argument(h, 0)?)))?)
            }),
        );
    }
    registry
});

fn argument(helper: &Helper<'_>, index: usize) -> Result<Value, RenderError> {
    match helper.param(index) {
        Some(param) if param.is_value_missing() => Err(RenderErrorReason::MissingVariable(param.relative_path().cloned()).into()),
        Some(param) => Ok(param.value().clone()),
        None => Err(RenderErrorReason::Other(format!("`{}` needs {} argument(s)", helper.name(), index + 1)).into()),
    }
}

/// A value as text: text itself, everything else as JSON, null as nothing.
#[must_use]
pub fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn render(source: &str) -> Result<String, String> {
        let data =
            Data::new(json!({"trigger": {"labels": {"app": "shop", "evil": "{{trigger.secret}} <% 1 %> <b>"}, "n": 1, "list": [1, 2]}}));
        TextTemplate::compile(source).map_err(|error| format!("compile: {error}"))?.render(&data).map_err(|error| error.to_string())
    }

    #[test]
    fn text_is_made_from_names() {
        assert_eq!(render("app {{trigger.labels.app}} n={{trigger.n}}").unwrap(), "app shop n=1");
        assert_eq!(
            render("{{json trigger.list}} {{upper trigger.labels.app}} {{default trigger.labels.zone \"-\"}}").unwrap(),
            "[1,2] SHOP -"
        );
        assert_eq!(render("\\{{literal}}").unwrap(), "{{literal}}");
    }

    #[test]
    fn data_is_never_a_template() {
        assert_eq!(render("{{trigger.labels.evil}}").unwrap(), "{{trigger.secret}} <% 1 %> <b>");
    }

    #[test]
    fn faults_name_what_is_missing() {
        assert_eq!(render("{{trigger.labels.zone}}").unwrap_err(), "`trigger.labels.zone` is missing");
        assert!(render("{{#if trigger.n}}x").unwrap_err().starts_with("compile: "));
        assert!(render("{{> other}}").unwrap_err().contains("partials"));
    }

    #[test]
    fn the_names_of_a_template_are_known() {
        let paths = |source: &str| {
            let found = TextTemplate::compile(source).unwrap().paths();
            found.iter().map(|path| format!("{}{}", path.steps.join("/"), if path.in_block { "+" } else { "" })).collect::<Vec<_>>()
        };
        assert_eq!(paths("a {{trigger.a.[x y].0}} {{{kv.b}}} {{! kv.c }} \\{{d}}"), ["trigger/a/x y/0", "kv/b"]);
        assert_eq!(paths("{{#if kv.a}}{{upper kv.b}}{{else}}{{../kv.c}}{{/if}}"), ["kv/a", "kv/b+", "kv/c+"]);
        assert_eq!(paths("{{default (lookup kv.a trigger.b) kv.c}}{{@root.kv.d}}"), ["kv/a", "trigger/b", "kv/c", "kv/d"]);
        let sole = |source: &str| TextTemplate::compile(source).unwrap().sole_path().map(|steps| steps.join("/"));
        assert_eq!(sole("{{ trigger.a.[0] }}").as_deref(), Some("trigger/a/0"));
        for text in [
            "{{upper trigger.a}}",
            "{{trigger.a}} ",
            "{{trigger.a}}{{trigger.b}}",
            "{{#if trigger.a}}{{trigger.a}}{{/if}}",
            "\\{{trigger.a}}",
        ] {
            assert_eq!(sole(text), None, "{text}");
        }
    }

    #[test]
    fn hostile_templates_end() {
        let nested = format!("{}x{}", "{{#if trigger.n}}".repeat(2_000), "{{/if}}".repeat(2_000));
        assert!(render(&nested).unwrap_err().contains("nest deeper"));
        let many = format!("{}{}{}", "{{#each @root.trigger.list}}".repeat(20), "x".repeat(100), "{{/each}}".repeat(20));
        assert!(render(&many).unwrap_err().contains("longer than"));
        assert!(render(&format!("{{{{json {}1{}}}}}", "(json ".repeat(4_000), ")".repeat(4_000))).is_err());
        assert!(render("{{#*inline \"a\"}}{{> a}}{{/inline}}{{> a}}").is_err());
    }
}
