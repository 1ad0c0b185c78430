//! Rules: the file, compiled, and its parameters checked against the action.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::Site;
use super::action::{TAGS, name, read_tags, unknown_parameter};
use super::files::fault_at;
use super::kinds::{Kind, PackFile, Reading};
use super::window::{THROTTLE, WINDOW, read_throttle, read_window};
use crate::document::fault::{SourceFile, nearest};
use crate::document::fields::{Faults, Fields, did_you_mean, has};
use crate::document::form;
use crate::document::node::{Content, Key, Node};
use crate::document::shape::{Field, Holds, Shape};
use crate::model::action::{Action, cast};
use crate::model::path::item_steps;
use crate::model::place::{Place, Spot};
use crate::model::rule::{Condition, Criterion, DEFAULT_CEILING, DEFAULT_LATE, Mode, Notify, Operator, Outcome, Rule, Source};
use crate::rule::book::{CompiledRule, Part};
use crate::rule::operators::Test;
use crate::rule::operators::search::MAX_NESTED_SEARCHES;
use crate::template::value::ValueTemplate;

/// The highest ceiling of a rule.
const MOST_IN_A_MINUTE: u64 = 1_000_000;

/// Rules.
pub(super) const KIND: Kind = Kind { at_site: true, check, ..Kind::yaml("rules", "a rule", read_file) };

fn read_file(file: &PackFile, reading: &mut Reading<'_>) {
    let Some(node) = file.yaml(reading.faults) else { return };
    let Some(mut compiled) = read(&file.source, &node, &reading.pack.reference, &file.stem, reading.faults) else { return };
    compiled.rule.share(reading.names);
    reading.contents.rules.push(Arc::new(compiled));
}

/// What rules refer to is there, and what they give fits it.
fn check(site: &Site, root: &Path, faults: &mut Faults) {
    for compiled in &site.rules {
        let rule = &compiled.rule;
        let mut missing = |what: &str, place: &Place, name: &str, known: &mut dyn Iterator<Item = &String>| {
            let mut fault = fault_at(root, place, format!("rule `{}`: there is no {what} `{name}`", rule.reference));
            if let Some(nearest) = nearest(name, known.map(String::as_str)) {
                fault = fault.hint(format!("did you mean `{nearest}`?"));
            }
            faults.push(fault);
        };
        if !site.triggers.contains_key(&*rule.trigger) {
            missing("trigger", &rule.place(rule.trigger_at), &rule.trigger, &mut site.triggers.keys());
        }
        if let Some(notify) = &rule.notify
            && !site.config.channels.contains_key(&notify.value.channel)
        {
            missing("channel", &rule.place(notify.at), &notify.value.channel, &mut site.config.channels.keys());
        }
        match site.actions.get(&*rule.action) {
            None => missing("action", &rule.place(rule.action_at), &rule.action, &mut site.actions.keys()),
            Some(action) => {
                for (message, place) in check_parameters(rule, action) {
                    faults.push(fault_at(root, &place, message));
                }
            }
        }
    }
}

/// A rule over one event.
pub static RULE: Shape = Shape {
    what: "a rule",
    doc: "When this trigger, and these criteria hold, run that action with these parameters",
    fields: &[
        Field::required("trigger", Holds::Shape(&TRIGGER), "Which events are tried"),
        Field::new("criteria", Holds::Map(&Holds::Shape(&CRITERION)), "Tests on the payload; the keys are paths")
            .example("{\"trigger.values.cpu\": {\"type\": \"greaterthan\", \"pattern\": 80}}"),
        Field::new("at_least", Holds::Count(1, u64::MAX), "How many of the criteria must hold; all unless given"),
        Field::new("when", Holds::Text, "A guard: one expression that must give true").example("\"<% trigger.env == \\\"prod\\\" %>\""),
        Field::new("window", WINDOW, "How many events must hold, or for how long none may come"),
    ],
    shared: COMMON,
};

/// A rule over several events, which this version reads and does not try.
pub static CORRELATION: Shape = Shape {
    what: "a rule",
    doc: "When these events have come in this relation, run that action; not tried by this version",
    fields: &[
        Field::required("events", Holds::Map(&Holds::Shape(&EVENT)), "The events, by name"),
        Field::required("correlate", Holds::Map(&Holds::Any), "How they relate"),
    ],
    shared: COMMON,
};

const COMMON: &[Field] = &[
    Field::new("name", Holds::Text, "The file's name; may be left out").example("\"scale_out_on_load\""),
    Field::new("pack", Holds::Text, "The pack; may be left out"),
    Field::new("description", Holds::Text, "For people"),
    Field::new("enabled", Holds::Boolean, "Whether it is tried").default("true"),
    Field::new("mode", Holds::Word(&["active", "shadow"]), "Whether a match runs something, or is only kept").default("\"active\""),
    Field::new("type", Holds::Word(&["standard", "backstop"]), "A backstop is tried where no other rule of the trigger matched")
        .default("\"standard\""),
    Field::new("throttle", Holds::Shape(&THROTTLE), "How far apart its executions are"),
    Field::new("late", Holds::Duration, "How late an event may come and still be counted").default("\"1m\""),
    Field::new("ceiling", Holds::Count(1, MOST_IN_A_MINUTE), "Executions a minute; what is above waits").default("1000"),
    Field::required("action", Holds::Shape(&ACTION), "What is run"),
    Field::new("notify", Holds::Shape(&NOTIFY), "Whom to tell of the outcome"),
    Field::new("tags", TAGS, "For people and tools"),
];

static TRIGGER: Shape = Shape::new(
    "`trigger`",
    "Which events are tried",
    &[
        Field::required("type", Holds::Text, "The trigger").example("\"core.webhook\""),
        Field::new("parameters", Holds::Map(&Holds::Any), "Tests for equality on fields of the payload; of a timer, its settings"),
    ],
);

static EVENT: Shape = Shape::new(
    "an event",
    "One of the events",
    &[
        Field::required("trigger", Holds::Shape(&TRIGGER), "Which events it may be"),
        Field::new("criteria", Holds::Map(&Holds::Shape(&CRITERION)), "Tests on the payload"),
    ],
);

static CRITERION: Shape = Shape::new(
    "a criterion",
    "One test on one field",
    &[
        Field::required("type", Holds::WordOf(operators), "The operator; in any case of letters").example("\"equals\""),
        Field::new("pattern", Holds::Any, "What to compare with").example("80"),
        Field::new("condition", Holds::Word(Condition::NAMES), "Of `search`: how many items must hold"),
    ],
);

static ACTION: Shape = Shape::new(
    "`action`",
    "What is run",
    &[
        Field::required("ref", Holds::Text, "The action").example("\"core.notify\""),
        Field::new("parameters", Holds::Map(&Holds::Any), "What it is given; templates and expressions are filled in"),
    ],
);

static NOTIFY: Shape = Shape::new(
    "`notify`",
    "Whom to tell of the outcome",
    &[
        Field::required("channel", Holds::Text, "A channel of the site").example("\"ops\""),
        Field::new("on", Holds::List(&Holds::Word(&["succeeded", "failed"])), "Of which outcomes").default("[\"failed\"]"),
    ],
);

fn operators() -> Vec<&'static str> {
    Operator::NAMES.to_vec()
}

/// Reads one rule. Faults are collected; a rule comes back only if it could run.
pub fn read(source: &SourceFile, node: &Node, pack: &str, stem: &str, faults: &mut Faults) -> Option<CompiledRule> {
    if matches!(&node.content, Content::Map(pairs) if has(pairs, "events") || has(pairs, "correlate")) {
        read_correlation(source, node, faults);
        return None;
    }
    let mut fields = Fields::of(source, node, &RULE, faults)?;
    let name = name(&mut fields, stem);
    fields.text("pack");
    let description = fields.text("description").unwrap_or_default();
    let enabled = fields.boolean("enabled").unwrap_or(true);
    let mode = if fields.word("mode") == Some("shadow") { Mode::Shadow } else { Mode::Active };
    let backstop = fields.word("type") == Some("backstop");
    let trigger_node = fields.node("trigger");
    let trigger = trigger_node.and_then(|node| read_trigger(&mut fields, node));
    let criteria_pairs = fields.map("criteria");
    let criteria = read_criteria(&mut fields, criteria_pairs);
    let at_least = fields.node("at_least").and_then(|node| {
        let count = fields.count("at_least").and_then(|count| usize::try_from(count).ok())?;
        if count > criteria_pairs.len() {
            fields.fault(node, format!("`at_least` must be from 1 to {}, the number of criteria", criteria_pairs.len()));
        }
        u32::try_from(count).ok()
    });
    let when_node = fields.node("when");
    let when = fields.text("when").zip(when_node).map(|(value, node)| Source { value, at: spot(node) });
    let window_node = fields.node("window");
    let window = window_node.and_then(|node| read_window(&mut fields, node));
    let throttle_node = fields.node("throttle");
    let throttle = throttle_node.and_then(|node| read_throttle(&mut fields, node));
    let late = fields.duration("late").unwrap_or(DEFAULT_LATE);
    let ceiling = fields.count("ceiling").and_then(|count| u32::try_from(count).ok());
    read_tags(&mut fields);
    let action_node = fields.node("action");
    let (action, parameter_pairs) = action_node.and_then(|node| read_action(&mut fields, node)).unzip();
    let parameter_pairs: &[(Key, Node)] = parameter_pairs.unwrap_or_default();
    let notify_node = fields.node("notify");
    let notify = notify_node.and_then(|node| Some(Source { value: read_notify(&mut fields, node)?, at: spot(node) }));
    fields.finish();
    let parameters = parameter_pairs.iter().map(|(key, node)| (key.text.as_str().into(), Source { value: node.value(), at: spot(node) }));
    // What is there is compiled even if something is missing, so that all faults are told at once.
    let complete = name.is_some()
        && trigger.is_some()
        && action.is_some()
        && criteria.len() == criteria_pairs.len()
        && window_node.is_some() == window.is_some()
        && throttle_node.is_some() == throttle.is_some();
    let (trigger, trigger_parameters, trigger_pairs) = trigger.unwrap_or_default();
    let (indices, criteria): (Vec<usize>, Vec<Criterion>) = criteria.into_iter().unzip();
    let rule = Rule {
        reference: format!("{pack}.{}", name.unwrap_or_default()).into(),
        description: description.into(),
        enabled,
        mode,
        trigger: trigger.into(),
        trigger_parameters: trigger_parameters.into(),
        criteria: criteria.into(),
        at_least,
        when: when.map(Box::new),
        backstop,
        window: window.map(Box::new),
        throttle: throttle.map(Box::new),
        late,
        ceiling: ceiling.unwrap_or(DEFAULT_CEILING),
        action: action.unwrap_or_default().into(),
        parameters: parameters.collect(),
        notify: notify.map(Box::new),
        file: Arc::clone(&source.path),
        action_at: spot(action_node.unwrap_or(node)),
        trigger_at: spot(trigger_node.unwrap_or(node)),
    };
    let compiled = CompiledRule::compile(rule);
    compiled
        .map_err(|found| {
            for fault in found {
                let (line, column) = match fault.part {
                    Part::TriggerParameter(index) => place_of_key(&trigger_pairs[index].0),
                    Part::CriterionKey(index) => place_of_key(&criteria_pairs[indices[index]].0),
                    Part::CriterionPattern(index) => place_of_pattern(&criteria_pairs[indices[index]].1),
                    Part::When => when_node.map_or((node.line, node.column), |node| (node.line, node.column)),
                    Part::WindowBy => window_node.map_or((node.line, node.column), |node| (node.line, node.column)),
                    Part::ThrottleBy => throttle_node.map_or((node.line, node.column), |node| (node.line, node.column)),
                    Part::Parameter(index) => (parameter_pairs[index].1.line, parameter_pairs[index].1.column),
                };
                faults.push(source.fault(line, column, fault.message));
            }
        })
        .ok()
        .filter(|_| complete)
}

/// The form of a rule over several events.
fn read_correlation(source: &SourceFile, node: &Node, faults: &mut Faults) {
    form::check(source, node, &CORRELATION, faults);
    let message = "rules over several events are not carried out by this version; the rule is read and never tried";
    faults.push(source.whole(message).as_warning());
}

fn spot(node: &Node) -> Spot {
    Spot::new(node.line, node.column)
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
    let mut inner = Fields::of(fields.source, node, &TRIGGER, fields.faults)?;
    let trigger = inner.text("type");
    let pairs = inner.map("parameters");
    inner.finish();
    let parameters = pairs.iter().map(|(key, node)| (key.text.clone(), node.value())).collect();
    Some((trigger?, parameters, pairs))
}

/// The criteria that could be read, each with its position in the file.
fn read_criteria(fields: &mut Fields<'_, '_>, pairs: &[(Key, Node)]) -> Vec<(usize, Criterion)> {
    let mut criteria = Vec::with_capacity(pairs.len());
    for (index, (key, node)) in pairs.iter().enumerate() {
        criteria.extend(read_criterion(fields, key, node, 0).map(|criterion| (index, criterion)));
    }
    criteria
}

/// Reads one criterion, also those inside `search`; `depth` counts the searches around it.
fn read_criterion(fields: &mut Fields<'_, '_>, key: &Key, node: &Node, depth: usize) -> Option<Criterion> {
    let mut inner = Fields::of(fields.source, node, &CRITERION, fields.faults)?;
    let type_node = inner.node("type");
    let operator = inner.text("type").zip(type_node).and_then(|(named, node)| {
        let found = Operator::named(&named);
        if found.is_none() {
            let fault = inner.source.fault(node.line, node.column, format!("there is no operator `{named}`"));
            inner.faults.push(fault.hint(did_you_mean(&named, Operator::NAMES)));
        }
        found
    });
    let pattern = inner.node("pattern");
    let condition = read_condition(&mut inner, operator);
    inner.finish();
    let operator = operator?;
    let pattern = read_pattern(fields, node, operator, pattern, depth)?;
    Some(Criterion { key: key.text.as_str().into(), operator, pattern, condition: condition.ok()? })
}

/// What was read is faulty, and has been told.
struct Faulty;

/// The condition, which `search` must have and nothing else may.
fn read_condition(inner: &mut Fields<'_, '_>, operator: Option<Operator>) -> Result<Option<Condition>, Faulty> {
    let node = inner.node("condition");
    match (operator.ok_or(Faulty)?, node) {
        (Operator::Search, Some(_)) => inner.word("condition").map(Condition::named).ok_or(Faulty),
        (Operator::Search, None) => {
            inner.fault_here(format!("`search` needs the field `condition`: one of {}", Condition::NAMES.join(", ")));
            Err(Faulty)
        }
        (other, Some(node)) => {
            inner.fault(node, format!("`condition` belongs to `search`, `{}` has none; remove the field", other.name()));
            Err(Faulty)
        }
        (_, None) => Ok(None),
    }
}

fn read_pattern(fields: &mut Fields<'_, '_>, node: &Node, operator: Operator, pattern: Option<&Node>, depth: usize) -> Option<Value> {
    match (operator, pattern) {
        (Operator::Search, Some(pattern)) => read_item_criteria(fields, pattern, depth),
        (_, Some(pattern)) => numbers_fit(fields, pattern).then(|| pattern.value()),
        (Operator::Exists | Operator::Nexists, None) => Some(Value::Null),
        (_, None) => {
            let (line, column) = place_of_pattern(node);
            let message = if (line, column) == (node.line, node.column) {
                "a criterion needs the field `pattern`".to_string()
            } else {
                format!("the pattern of `{}` is null, with which nothing holds", operator.name())
            };
            let fault = fields.source.fault(line, column, message);
            fields
                .faults
                .push(fault.hint("write what to compare with; `exists` and `nexists` test for null and missing, and need no pattern"));
            None
        }
    }
}

/// The criteria inside `search`, written down by key.
fn read_item_criteria(fields: &mut Fields<'_, '_>, pattern: &Node, depth: usize) -> Option<Value> {
    let Content::Map(pairs) = &pattern.content else {
        let fault =
            fields.source.fault(pattern.line, pattern.column, format!("`search` needs criteria as its pattern, not {}", pattern.kind()));
        fields.faults.push(fault.hint("write them as `item.name: {type: …, pattern: …}`"));
        return None;
    };
    if depth + 1 > MAX_NESTED_SEARCHES {
        fields.fault(pattern, format!("`search` stands more than {MAX_NESTED_SEARCHES} deep in itself"));
        return None;
    }
    let mut written = Map::new();
    for (key, node) in pairs {
        if let Err(message) = item_steps(&key.text) {
            fields.faults.push(fields.source.fault(key.line, key.column, message));
            continue;
        }
        let Some(criterion) = read_criterion(fields, key, node, depth + 1) else { continue };
        // What is wrong with those of a search inside has been told where it stands.
        let compiled = if criterion.operator == Operator::Search { Ok(()) } else { Test::compile_item(&criterion).map(|_| ()) };
        match compiled {
            Ok(()) => {
                let mut fields = Map::from_iter([("type".to_string(), Value::from(criterion.operator.name()))]);
                fields.extend((!criterion.pattern.is_null()).then(|| ("pattern".to_string(), criterion.pattern)));
                fields.extend(criterion.condition.map(|condition| ("condition".to_string(), Value::from(condition.name()))));
                written.insert(key.text.clone(), Value::Object(fields));
            }
            Err(message) => {
                let (line, column) = place_of_pattern(node);
                fields.faults.push(fields.source.fault(line, column, message));
            }
        }
    }
    (written.len() == pairs.len()).then_some(Value::Object(written))
}

/// Whether every whole number in a pattern is kept exactly; one that is not is a fault.
fn numbers_fit(fields: &mut Fields<'_, '_>, node: &Node) -> bool {
    match &node.content {
        Content::Scalar { value: Value::Number(number), text }
            if number.is_f64() && text.trim_start_matches(['+', '-']).bytes().all(|b| b.is_ascii_digit()) =>
        {
            let fault = fields.source.fault(node.line, node.column, format!("the whole number {text} has more than 63 bits"));
            fields.faults.push(fault.hint(format!("quote it if it is text: \"{text}\"; write {text}.0 if it need not be exact")));
            false
        }
        Content::Scalar { .. } => true,
        // Not lazily: every fault is told.
        Content::List(items) => items.iter().filter(|item| !numbers_fit(fields, item)).count() == 0,
        Content::Map(pairs) => pairs.iter().filter(|(_, item)| !numbers_fit(fields, item)).count() == 0,
    }
}

fn read_action<'n>(fields: &mut Fields<'n, '_>, node: &'n Node) -> Option<(String, &'n [(Key, Node)])> {
    let mut inner = Fields::of(fields.source, node, &ACTION, fields.faults)?;
    let reference = inner.text("ref");
    let parameters = inner.map("parameters");
    inner.finish();
    Some((reference?, parameters))
}

fn read_notify(fields: &mut Fields<'_, '_>, node: &Node) -> Option<Notify> {
    let mut inner = Fields::of(fields.source, node, &NOTIFY, fields.faults)?;
    let channel = inner.text("channel");
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
        let Some(parameter) = action.parameters.iter().find(|parameter| *parameter.name == **name) else {
            faults.push((unknown_parameter(name, action), rule.place(source.at)));
            continue;
        };
        if parameter.immutable {
            faults.push((format!("parameter `{name}` of `{}` cannot be set by a rule", action.reference), rule.place(source.at)));
        }
        if let Ok(ValueTemplate::Fixed(value)) = ValueTemplate::compile(&source.value, crate::rule::book::NAMES)
            && let Err(message) = cast(parameter, &value)
        {
            faults.push((message, rule.place(source.at)));
        }
    }
    let given: Map<String, Value> = rule.parameters.iter().map(|(name, _)| (name.to_string(), Value::Null)).collect();
    for parameter in action.parameters.iter().filter(|parameter| parameter.required && parameter.default.is_none()) {
        if !given.contains_key(&parameter.name) {
            let message = format!("action `{}` needs the parameter `{}`", action.reference, parameter.name);
            faults.push((message, rule.place(rule.action_at)));
        }
    }
    faults
}
