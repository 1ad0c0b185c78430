//! Rules: the file, compiled, and its parameters checked against the action.

use serde_json::{Map, Value};

use super::action::{name, unknown_parameter};
use super::window::{read_throttle, read_window};
use crate::document::fault::SourceFile;
use crate::document::fields::{Faults, Fields, did_you_mean};
use crate::document::node::{Content, Key, Node};
use crate::model::action::{Action, cast};
use crate::model::place::Place;
use crate::model::rule::{Criterion, DEFAULT_CEILING, DEFAULT_LATE, Mode, Notify, Operator, Outcome, Rule, Source};
use crate::rule::book::{CompiledRule, Part};
use crate::template::value::ValueTemplate;

/// The highest ceiling of a rule.
const MOST_IN_A_MINUTE: u64 = 1_000_000;

/// Reads one rule. Faults are collected; a rule comes back only if it could run.
pub fn read(source: &SourceFile, node: &Node, pack: &str, stem: &str, faults: &mut Faults) -> Option<CompiledRule> {
    let mut fields = Fields::of(source, node, "a rule", faults)?;
    let name = name(&mut fields, stem);
    fields.text("pack");
    let description = fields.text("description").unwrap_or_default();
    let enabled = fields.boolean("enabled").unwrap_or(true);
    let mode = if fields.word("mode", &["active", "shadow"]) == Some("shadow") { Mode::Shadow } else { Mode::Active };
    let backstop = fields.word("type", &["standard", "backstop"]) == Some("backstop");
    let trigger_node = fields.required("trigger");
    let trigger = trigger_node.and_then(|node| read_trigger(&mut fields, node));
    let criteria_pairs = fields.map("criteria");
    let criteria = read_criteria(&mut fields, criteria_pairs);
    let at_least = fields.node("at_least").and_then(|node| {
        let count = fields.count("at_least").and_then(|count| usize::try_from(count).ok())?;
        if count == 0 || count > criteria_pairs.len() {
            fields.fault(node, format!("`at_least` must be from 1 to {}, the number of criteria", criteria_pairs.len()));
        }
        Some(count)
    });
    let when_node = fields.node("when");
    let when = fields.text("when").zip(when_node).map(|(value, node)| Source { value, place: source.place(node.line, node.column) });
    let window_node = fields.node("window");
    let window = window_node.and_then(|node| read_window(&mut fields, node));
    let throttle_node = fields.node("throttle");
    let throttle = throttle_node.and_then(|node| read_throttle(&mut fields, node));
    let late = fields.duration("late").unwrap_or(DEFAULT_LATE);
    let ceiling = fields.node("ceiling").and_then(|node| {
        let count = fields.count("ceiling")?;
        if !(1..=MOST_IN_A_MINUTE).contains(&count) {
            fields.fault(node, format!("`ceiling` must be from 1 to {MOST_IN_A_MINUTE} executions a minute"));
        }
        u32::try_from(count).ok()
    });
    for later in ["events", "correlate", "tags", "context"] {
        fields.not_yet(later);
    }
    let action_node = fields.required("action");
    let (action, parameter_pairs) = action_node.and_then(|node| read_action(&mut fields, node)).unzip();
    let parameter_pairs: &[(Key, Node)] = parameter_pairs.unwrap_or_default();
    let notify_node = fields.node("notify");
    let notify = notify_node.and_then(|node| read_notify(&mut fields, node));
    fields.finish();
    let parameters = parameter_pairs
        .iter()
        .map(|(key, node)| (key.text.clone(), Source { value: node.value(), place: source.place(node.line, node.column) }));
    let place = action_node.map_or_else(|| source.place(node.line, node.column), |node| source.place(node.line, node.column));
    let (trigger, trigger_parameters, trigger_pairs) = trigger?;
    if (window_node.is_some() && window.is_none()) || (throttle_node.is_some() && throttle.is_none()) {
        return None; // told above
    }
    let rule = Rule {
        reference: format!("{pack}.{}", name?),
        description,
        enabled,
        mode,
        trigger,
        trigger_parameters,
        criteria: criteria?,
        at_least,
        when,
        backstop,
        window,
        throttle,
        late,
        ceiling: ceiling.unwrap_or(DEFAULT_CEILING),
        action: action?,
        parameters: parameters.collect(),
        notify,
        place,
        notify_place: notify_node.map(|node| source.place(node.line, node.column)).unwrap_or_default(),
        trigger_place: trigger_node.map(|node| source.place(node.line, node.column)).unwrap_or_default(),
    };
    let compiled = CompiledRule::compile(rule);
    compiled
        .map_err(|found| {
            for fault in found {
                let (line, column) = match fault.part {
                    Part::TriggerParameter(index) => place_of_key(&trigger_pairs[index].0),
                    Part::CriterionKey(index) => place_of_key(&criteria_pairs[index].0),
                    Part::CriterionPattern(index) => place_of_pattern(&criteria_pairs[index].1),
                    Part::When => when_node.map_or((node.line, node.column), |node| (node.line, node.column)),
                    Part::WindowBy => window_node.map_or((node.line, node.column), |node| (node.line, node.column)),
                    Part::ThrottleBy => throttle_node.map_or((node.line, node.column), |node| (node.line, node.column)),
                    Part::Parameter(index) => (parameter_pairs[index].1.line, parameter_pairs[index].1.column),
                };
                faults.push(source.fault(line, column, fault.message));
            }
        })
        .ok()
}

fn place_of_key(key: &Key) -> (usize, usize) {
    (key.line, key.column)
}

fn place_of_pattern(criterion: &Node) -> (usize, usize) {
    let Content::Map(pairs) = &criterion.content else { return (criterion.line, criterion.column) };
    let pattern = pairs.iter().find(|(key, _)| key.text == "pattern");
    pattern.map_or((criterion.line, criterion.column), |(_, node)| (node.line, node.column))
}

type TriggerParts<'n> = (String, Vec<(String, Value)>, &'n [(Key, Node)]);

fn read_trigger<'n>(fields: &mut Fields<'n, '_>, node: &'n Node) -> Option<TriggerParts<'n>> {
    let mut inner = Fields::of(fields.source, node, "`trigger`", fields.faults)?;
    let trigger = inner.required_text("type");
    let pairs = inner.map("parameters");
    inner.finish();
    let parameters = pairs.iter().map(|(key, node)| (key.text.clone(), node.value())).collect();
    Some((trigger?, parameters, pairs))
}

fn read_criteria(fields: &mut Fields<'_, '_>, pairs: &[(Key, Node)]) -> Option<Vec<Criterion>> {
    let mut criteria = Vec::with_capacity(pairs.len());
    for (key, node) in pairs {
        let Some(mut inner) = Fields::of(fields.source, node, "a criterion", fields.faults) else { continue };
        let named = inner.required_text("type");
        let type_place = inner.node("type").map_or((node.line, node.column), |node| (node.line, node.column));
        let pattern = inner.required("pattern");
        inner.not_yet("condition");
        inner.finish();
        let Some(named) = named else { continue };
        let Some(operator) = Operator::named(&named) else {
            let fault = fields.source.fault(type_place.0, type_place.1, format!("there is no operator `{named}`"));
            fields.faults.push(fault.hint(did_you_mean(&named, Operator::NAMES)));
            continue;
        };
        let Some(pattern) = pattern else { continue };
        let value = pattern.value();
        if value.as_str().is_some_and(|text| text.contains("{{") || text.contains("<%")) {
            fields.fault(pattern, "templates in patterns are not carried out by this version; compare in `when` instead");
            continue;
        }
        criteria.push(Criterion { key: key.text.clone(), operator, pattern: value, condition: None });
    }
    (criteria.len() == pairs.len()).then_some(criteria)
}

fn read_action<'n>(fields: &mut Fields<'n, '_>, node: &'n Node) -> Option<(String, &'n [(Key, Node)])> {
    let mut inner = Fields::of(fields.source, node, "`action`", fields.faults)?;
    let reference = inner.required_text("ref");
    let parameters = inner.map("parameters");
    inner.finish();
    Some((reference?, parameters))
}

fn read_notify(fields: &mut Fields<'_, '_>, node: &Node) -> Option<Notify> {
    let mut inner = Fields::of(fields.source, node, "`notify`", fields.faults)?;
    let channel = inner.required_text("channel");
    let mut on = Vec::new();
    for (word, place) in inner.texts("on") {
        match word.as_str() {
            "succeeded" => on.push(Outcome::Succeeded),
            "failed" => on.push(Outcome::Failed),
            _ => {
                let fault = inner.source.fault(place.line, place.column, format!("`on` can hold succeeded and failed, not `{word}`"));
                inner.faults.push(fault);
            }
        }
    }
    if on.is_empty() {
        on.push(Outcome::Failed);
    }
    inner.finish();
    Some(Notify { channel: channel?, on })
}

/// What is wrong with a rule's parameters as far as the action tells before any event comes: unknown and missing ones, and fixed
/// values of the wrong type.
#[must_use]
pub fn check_parameters(rule: &Rule, action: &Action) -> Vec<(String, Place)> {
    let mut faults = Vec::new();
    for (name, source) in &rule.parameters {
        let Some(parameter) = action.parameters.iter().find(|parameter| &parameter.name == name) else {
            faults.push((unknown_parameter(name, action), source.place.clone()));
            continue;
        };
        if parameter.immutable {
            faults.push((format!("parameter `{name}` of `{}` cannot be set by a rule", action.reference), source.place.clone()));
        }
        if let Ok(ValueTemplate::Fixed(value)) = ValueTemplate::compile(&source.value, crate::rule::book::NAMES)
            && let Err(message) = cast(parameter, &value)
        {
            faults.push((message, source.place.clone()));
        }
    }
    let given: Map<String, Value> = rule.parameters.iter().map(|(name, _)| (name.clone(), Value::Null)).collect();
    for parameter in action.parameters.iter().filter(|parameter| parameter.required && parameter.default.is_none()) {
        if !given.contains_key(&parameter.name) {
            let message = format!("action `{}` needs the parameter `{}`", action.reference, parameter.name);
            faults.push((message, rule.place.clone()));
        }
    }
    faults
}
