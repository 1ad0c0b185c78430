//! Values with templates and expressions in them: the parameters of a rule's action, the patterns of its criteria.

use std::sync::OnceLock;

use serde_json::{Map, Value};

use super::text::{Data, TemplateError, TextTemplate, plain};
use crate::script::expr::{Expression, ExpressionError, Names};

/// A value that may hold templates and expressions, compiled.
#[derive(Debug, Clone)]
pub enum ValueTemplate {
    /// Neither.
    Fixed(Value),
    /// `{{ … }}`: text.
    Text(TextTemplate),
    /// Exactly one `{{name}}` in a pattern: keeps the type of what the steps lead to.
    Path(Vec<String>),
    /// Exactly one `<% … %>`: keeps the type of its value.
    Expression(Expression),
    /// `<% … %>` among other text: text.
    Mixed(Vec<Part>),
    /// A list of such values.
    List(Vec<ValueTemplate>),
    /// A map of such values.
    Map(Vec<(String, ValueTemplate)>),
}

/// A piece of text with expressions.
#[derive(Debug, Clone)]
pub enum Part {
    /// As it stands.
    Literal(String),
    /// Replaced by its value.
    Expression(Expression),
}

/// What expressions and templates see.
pub struct Scope {
    values: Vec<(&'static str, Value)>,
    data: OnceLock<Data>,
    names: OnceLock<Names>,
}

impl Scope {
    /// The same names for both notations; each form is made when it is first needed.
    #[must_use]
    pub fn new(values: Vec<(&'static str, Value)>) -> Self {
        Self { values, data: OnceLock::new(), names: OnceLock::new() }
    }

    /// The value of one of the names.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&Value> {
        self.values.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// For `{{ }}`.
    #[must_use]
    pub fn data(&self) -> &Data {
        let object = || self.values.iter().map(|(name, value)| ((*name).to_string(), value.clone())).collect::<Map<_, _>>();
        self.data.get_or_init(|| Data::new(Value::Object(object())))
    }

    /// For `<% %>`.
    #[must_use]
    pub fn names(&self) -> &Names {
        self.names.get_or_init(|| self.values.iter().fold(Names::new(), |scope, (name, value)| scope.with(name, value)))
    }
}

impl ValueTemplate {
    /// Compiles every string inside a value.
    ///
    /// # Errors
    /// The first fault, in words.
    pub fn compile(value: &Value, names: &[&'static str]) -> Result<Self, String> {
        Self::compile_by(value, &|text| compile_text(text, names))
    }

    /// Compiles every string inside the pattern of a criterion: exactly one `{{name}}` keeps the type of its value, and only the given
    /// names exist in either notation.
    ///
    /// # Errors
    /// The first fault, in words.
    pub fn compile_pattern(value: &Value, names: &[&'static str]) -> Result<Self, String> {
        Self::compile_by(value, &|text| compile_pattern_text(text, names))
    }

    fn compile_by(value: &Value, text: &dyn Fn(&str) -> Result<Self, String>) -> Result<Self, String> {
        Ok(match value {
            Value::String(source) => text(source)?,
            Value::Array(items) => Self::List(items.iter().map(|item| Self::compile_by(item, text)).collect::<Result<_, _>>()?),
            Value::Object(map) => {
                let compiled = map.iter().map(|(key, value)| Ok((key.clone(), Self::compile_by(value, text)?)));
                Self::Map(compiled.collect::<Result<_, String>>()?)
            }
            fixed => Self::Fixed(fixed.clone()),
        })
    }

    /// The value, if it is the same for every event.
    #[must_use]
    pub fn fixed(&self) -> Option<Value> {
        match self {
            Self::Fixed(value) => Some(value.clone()),
            Self::List(items) => items.iter().map(Self::fixed).collect::<Option<_>>().map(Value::Array),
            Self::Map(pairs) => {
                let fixed = pairs.iter().map(|(key, value)| Some((key.clone(), value.fixed()?)));
                fixed.collect::<Option<_>>().map(Value::Object)
            }
            Self::Text(_) | Self::Path(_) | Self::Expression(_) | Self::Mixed(_) => None,
        }
    }

    /// The value.
    ///
    /// # Errors
    /// The first fault, in words.
    pub fn render(&self, scope: &Scope) -> Result<Value, String> {
        Ok(match self {
            Self::Fixed(value) => value.clone(),
            Self::Text(template) => Value::String(template.render(scope.data()).map_err(|error| template_fault(&error))?),
            Self::Path(steps) => follow(steps, scope).ok_or_else(|| format!("{TEMPLATE}`{}` is missing", steps.join(".")))?.clone(),
            Self::Expression(expression) => expression.evaluate(scope.names()).map_err(|error| expression_fault(&error))?,
            Self::Mixed(parts) => {
                let mut text = String::new();
                for part in parts {
                    match part {
                        Part::Literal(literal) => text.push_str(literal),
                        Part::Expression(expression) => {
                            text.push_str(&plain(&expression.evaluate(scope.names()).map_err(|error| expression_fault(&error))?));
                        }
                    }
                }
                Value::String(text)
            }
            Self::List(items) => Value::Array(items.iter().map(|item| item.render(scope)).collect::<Result<_, _>>()?),
            Self::Map(pairs) => {
                let rendered = pairs.iter().map(|(key, value)| Ok((key.clone(), value.render(scope)?)));
                Value::Object(rendered.collect::<Result<_, String>>()?)
            }
        })
    }
}

/// Where the steps of a template's name lead.
fn follow<'s>(steps: &[String], scope: &'s Scope) -> Option<&'s Value> {
    let (name, rest) = steps.split_first()?;
    rest.iter().try_fold(scope.value(name)?, |value, step| match value {
        Value::Object(map) => map.get(step),
        Value::Array(list) => list.get(step.parse::<usize>().ok()?),
        _ => None,
    })
}

/// Whether there is neither template nor expression anywhere in a value, nor anything that looks like one.
#[must_use]
pub fn is_literal(value: &Value) -> bool {
    match value {
        Value::String(text) => !["{{", "<%", "{%"].iter().any(|sign| text.contains(sign)),
        Value::Array(items) => items.iter().all(is_literal),
        Value::Object(map) => map.values().all(is_literal),
        _ => true,
    }
}

/// The source inside `<% … %>`, if the text is exactly one expression.
#[must_use]
pub fn sole_expression(text: &str) -> Option<&str> {
    let inner = text.trim().strip_prefix("<%")?.strip_suffix("%>")?;
    (!inner.starts_with('%') && !inner.contains("<%") && !inner.contains("%>")).then(|| inner.trim())
}

fn compile_text(text: &str, names: &[&'static str]) -> Result<ValueTemplate, String> {
    let has_expression = text.replace("<%%", "").contains("<%");
    let has_template = text.replace("\\{{", "").contains("{{");
    match (has_expression, has_template) {
        (true, true) => Err("`{{ }}` and `<% %>` cannot stand in one string; use one of them".to_string()),
        (false, true) => Ok(ValueTemplate::Text(TextTemplate::compile(text).map_err(|error| template_fault(&error))?)),
        (false, false) => Ok(ValueTemplate::Fixed(Value::from(text.replace("<%%", "<%").replace("\\{{", "{{")))),
        (true, false) => match sole_expression(text) {
            Some(source) => {
                let expression = Expression::compile(source, names).map_err(|error| expression_fault(&error))?;
                Ok(ValueTemplate::Expression(expression))
            }
            None => Ok(ValueTemplate::Mixed(parts(text, names)?)),
        },
    }
}

fn compile_pattern_text(text: &str, names: &[&'static str]) -> Result<ValueTemplate, String> {
    if text.contains("{%") && text.contains("%}") {
        return Err("Jinja's `{% … %}` does not exist here; write one expression, `<% … %>`".to_string());
    }
    // Blanks around one template or expression are no part of a pattern.
    let compiled = compile_text(text.trim(), names).map_err(|fault| match fault.strip_prefix(TEMPLATE) {
        Some(_) => format!("{fault}; `{{{{ }}}}` takes a path such as trigger.a.b, for anything else write `<% … %>`"),
        None => fault,
    })?;
    if let ValueTemplate::Text(template) = &compiled {
        let foreign = |steps: &[String]| !steps.first().is_some_and(|first| names.contains(&first.as_str()));
        if let Some(path) = template.paths().iter().find(|path| !path.in_block && foreign(&path.steps)) {
            return Err(format!("{TEMPLATE}`{}` is not known here; there are {}", path.steps.join("."), names.join(", ")));
        }
        if let Some(steps) = template.sole_path() {
            return Ok(ValueTemplate::Path(steps));
        }
    }
    match compiled {
        ValueTemplate::Expression(expression) => Ok(ValueTemplate::Expression(expression)),
        _ => compile_text(text, names),
    }
}

fn parts(text: &str, names: &[&'static str]) -> Result<Vec<Part>, String> {
    let (mut parts, mut rest, mut literal) = (Vec::new(), text, String::new());
    while let Some(start) = rest.find("<%") {
        literal.push_str(&rest[..start]);
        rest = &rest[start + 2..];
        if let Some(after) = rest.strip_prefix('%') {
            literal.push_str("<%");
            rest = after;
            continue;
        }
        let end = rest.find("%>").ok_or("an expression is not closed with `%>`")?;
        let expression = Expression::compile(rest[..end].trim(), names).map_err(|error| expression_fault(&error))?;
        parts.push(Part::Literal(std::mem::take(&mut literal)));
        parts.push(Part::Expression(expression));
        rest = &rest[end + 2..];
    }
    literal.push_str(rest);
    parts.push(Part::Literal(literal));
    Ok(parts)
}

/// How a fault of a template begins.
const TEMPLATE: &str = "in the template: ";

fn template_fault(error: &TemplateError) -> String {
    format!("{TEMPLATE}{error}")
}

fn expression_fault(error: &ExpressionError) -> String {
    match (error.line, error.column) {
        (Some(1) | None, Some(column)) => format!("in the expression, at character {column}: {error}"),
        (Some(line), Some(column)) => format!("in the expression, line {line}, character {column}: {error}"),
        _ => format!("in the expression: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn render(value: &Value) -> Result<Value, String> {
        let scope = Scope::new(vec![("trigger", json!({"n": 2, "app": "shop", "evil": "<% 1 + 1 %> {{trigger.n}}"}))]);
        ValueTemplate::compile(value, &["trigger"])?.render(&scope)
    }

    #[test]
    fn one_expression_keeps_its_type_and_text_is_text() {
        let given = json!({"a": "<% trigger.n + 1 %>", "b": ["{{trigger.n}}", 7, null], "c": "n=<% trigger.n %>!", "d": "<%% \\{{x"});
        assert_eq!(render(&given).unwrap(), json!({"a": 3, "b": ["2", 7, null], "c": "n=2!", "d": "<% {{x"}));
    }

    #[test]
    fn data_is_never_an_expression() {
        assert_eq!(render(&json!("<% trigger.evil %>")).unwrap(), json!("<% 1 + 1 %> {{trigger.n}}"));
        assert_eq!(render(&json!("{{trigger.evil}}")).unwrap(), json!("<% 1 + 1 %> {{trigger.n}}"));
    }

    #[test]
    fn a_pattern_keeps_types_and_knows_what_is_fixed() {
        let scope = Scope::new(vec![("trigger", json!({"n": 2, "list": [1, {"a b": null}]})), ("kv", json!({"system": {"x": "v"}}))]);
        let compile = |value: Value| ValueTemplate::compile_pattern(&value, &["trigger", "kv"]);
        for (pattern, expected) in [
            (json!("{{trigger.n}}"), json!(2)),
            (json!(" {{ trigger.list }}\n"), json!([1, {"a b": null}])),
            (json!("{{trigger.list.[1].[a b]}}"), json!(null)),
            (json!("{{kv.system.x}}"), json!("v")),
            (json!("n{{trigger.n}} "), json!("n2 ")),
            (json!(["{{trigger.n}}", {"k": "<% trigger.n + 1 %>"}, true]), json!([2, {"k": 3}, true])),
        ] {
            let template = compile(pattern.clone()).unwrap();
            assert_eq!((template.fixed(), template.render(&scope)), (None, Ok(expected)), "{pattern}");
        }
        assert_eq!(compile(json!([" a ", {"b": "\\{{c}} <%% d"}])).unwrap().fixed(), Some(json!([" a ", {"b": "{{c}} <% d"}])));
        assert_eq!(
            compile(json!("{{trigger.zone.x}}")).unwrap().render(&scope).unwrap_err(),
            "in the template: `trigger.zone.x` is missing"
        );
        for (pattern, cause) in [
            ("{{event.id}}", "`event.id` is not known here; there are trigger, kv"),
            ("<% event.id %>", "in the expression"),
            ("{% if trigger.n %}1{% endif %}", "Jinja's"),
            ("{{trigger.n | upper}}", "for anything else write `<% … %>`"),
            ("{{trigger.n}} <% 1 %>", "cannot stand in one string"),
        ] {
            let fault = compile(json!(pattern)).unwrap_err();
            assert!(fault.contains(cause), "{pattern}: {fault}");
        }
    }

    #[test]
    fn faults_say_where() {
        assert!(render(&json!("{{trigger.n}} <% 1 %>")).unwrap_err().contains("cannot stand in one string"));
        assert!(render(&json!("<% 1 + %>")).unwrap_err().starts_with("in the expression"));
        assert!(render(&json!("a <% 1")).unwrap_err().contains("not closed"));
        assert_eq!(render(&json!("{{trigger.zone}}")).unwrap_err(), "in the template: `trigger.zone` is missing");
    }
}
