//! The rules that are in force together, compiled and ordered by trigger.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use serde_json::Value;

use super::fields::{FieldReader, Fields};
use super::index::{Entry, Index};
use super::key::KeyMaker;
use super::operators::Test;
use super::windows::{Definition, Needed};
use crate::model::hash::{Revision, fingerprint};
use crate::model::path::{FieldPath, Root};
use crate::model::rule::{Rule, Source, WindowKind};
use crate::script::expr::Expression;
use crate::template::keys::system_keys;
use crate::template::value::{ValueTemplate, sole_expression};

/// The names that guards and parameters may use.
pub const NAMES: &[&str] = &["trigger", "event", "now", "kv", "st2kv"];

/// A rule, compiled.
#[derive(Debug)]
pub struct CompiledRule {
    /// The rule.
    pub rule: Rule,
    /// Its revision.
    pub revision: Revision,
    pub(super) equalities: Vec<(FieldPath, Value)>,
    pub(super) tests: Vec<(FieldPath, Test)>,
    pub(super) guard: Option<Expression>,
    pub(super) parameters: Vec<(String, ValueTemplate)>,
    pub(super) window: Option<Keyed>,
    pub(super) throttle: Option<Keyed>,
    /// Keys of the datastore that its patterns, guard and parameters name.
    pub(super) keys: BTreeSet<String>,
    pub(super) name: Arc<str>,
}

/// A window or throttle, and what tells its keys apart.
#[derive(Debug)]
pub(super) struct Keyed {
    pub definition: Definition,
    pub by: KeyMaker,
    pub hash: u64,
}

/// A fault of a rule's content, and the field it stands in: the key of a criterion, `when`, a parameter.
#[derive(Debug, PartialEq, Eq)]
pub struct RuleFault {
    /// The part of the rule.
    pub part: Part,
    /// What is wrong.
    pub message: String,
}

/// A part of a rule that can be faulty.
#[derive(Debug, PartialEq, Eq)]
pub enum Part {
    /// A trigger parameter, by index.
    TriggerParameter(usize),
    /// The key of a criterion, by index.
    CriterionKey(usize),
    /// The pattern of a criterion, by index.
    CriterionPattern(usize),
    /// The guard.
    When,
    /// What tells one key of the window from another.
    WindowBy,
    /// What tells one key of the throttle from another.
    ThrottleBy,
    /// A parameter of the action, by index.
    Parameter(usize),
}

impl CompiledRule {
    /// Compiles a rule.
    ///
    /// # Errors
    /// Every fault of its content.
    pub fn compile(rule: Rule) -> Result<Self, Vec<RuleFault>> {
        let mut faults = Vec::new();
        let mut note = |part, message| faults.push(RuleFault { part, message });
        let mut equalities = Vec::new();
        for (index, (field, value)) in rule.trigger_parameters.iter().enumerate() {
            match FieldPath::parse_field(field) {
                Ok(path) => equalities.push((path, value.clone())),
                Err(message) => note(Part::TriggerParameter(index), message),
            }
        }
        let mut tests = Vec::new();
        for (index, criterion) in rule.criteria.iter().enumerate() {
            match (FieldPath::parse(&criterion.key), Test::compile(criterion)) {
                (Ok(path), Ok(test)) => tests.push((path, test)),
                (path, test) => {
                    if let Err(message) = path {
                        note(Part::CriterionKey(index), message);
                    }
                    if let Err(message) = test {
                        note(Part::CriterionPattern(index), message);
                    }
                }
            }
        }
        let guard = rule.when.as_ref().and_then(|when| {
            if let Some(source) = sole_expression(&when.value) {
                Expression::compile(source, NAMES).map_err(|error| note(Part::When, error.to_string())).ok()
            } else {
                note(Part::When, "`when` must be one expression: <% … %>".into());
                None
            }
        });
        let mut parameters = Vec::new();
        for (index, (name, source)) in rule.parameters.iter().enumerate() {
            match ValueTemplate::compile(&source.value, NAMES) {
                Ok(template) => parameters.push((name.clone(), template)),
                Err(message) => note(Part::Parameter(index), message),
            }
        }
        let window = rule.window.as_ref().and_then(|window| {
            let definition = Definition::Window { kind: window.kind.clone(), late: rule.late };
            Keyed::compile(definition, window.by.as_ref()).map_err(|message| note(Part::WindowBy, message)).ok()
        });
        let throttle = rule.throttle.as_ref().and_then(|throttle| {
            let definition = Definition::Throttle(throttle.once_per);
            Keyed::compile(definition, throttle.by.as_ref()).map_err(|message| note(Part::ThrottleBy, message)).ok()
        });
        let mut keys = BTreeSet::new();
        let mut named = |part, value: &Value| match system_keys(value) {
            Ok(found) => keys.extend(found),
            Err(message) => note(part, message),
        };
        for (index, criterion) in rule.criteria.iter().enumerate() {
            named(Part::CriterionPattern(index), &criterion.pattern);
        }
        if let Some(when) = &rule.when {
            named(Part::When, &Value::from(when.value.as_str()));
        }
        for (index, (_, source)) in rule.parameters.iter().enumerate() {
            named(Part::Parameter(index), &source.value);
        }
        keys.extend(tests.iter().filter_map(|(path, _)| path.system_key().map(str::to_string)));
        if !faults.is_empty() {
            return Err(faults);
        }
        let revision = rule.revision();
        let name = rule.reference.as_str().into();
        Ok(Self { rule, revision, equalities, tests, guard, parameters, window, throttle, keys, name })
    }

    /// Keys of the datastore that it names.
    #[must_use]
    pub fn keys(&self) -> &BTreeSet<String> {
        &self.keys
    }

    /// What is to be remembered of it.
    pub fn needed(&self) -> impl Iterator<Item = Needed> {
        let trigger: Arc<str> = self.rule.trigger.as_str().into();
        self.window.iter().chain(&self.throttle).map(move |keyed| Needed {
            rule: Arc::clone(&self.name),
            trigger: Arc::clone(&trigger),
            definition: keyed.definition.clone(),
            hash: keyed.hash,
        })
    }

    /// Whether a window or throttle can stop it.
    pub(super) fn holds_back(&self) -> bool {
        self.window.is_some() || self.throttle.is_some()
    }

    /// Whether events of a key that do not hold matter to it.
    pub(super) fn counts_misses(&self) -> bool {
        let consecutive =
            |keyed: &Keyed| matches!(keyed.definition, Definition::Window { kind: WindowKind::Count { consecutive: true, .. }, .. });
        self.window.as_ref().is_some_and(consecutive)
    }

    /// Every path that the rule reads without its guard and templates: trigger parameters, criteria, keys of window and throttle.
    fn paths(&self) -> impl Iterator<Item = &FieldPath> {
        let keyed = self.window.iter().chain(&self.throttle).flat_map(|keyed| keyed.by.paths());
        self.equalities.iter().map(|(path, _)| path).chain(self.tests.iter().map(|(path, _)| path)).chain(keyed)
    }
}

impl Keyed {
    fn compile(definition: Definition, by: Option<&Source<String>>) -> Result<Self, String> {
        let source = by.map_or("", |by| by.value.as_str());
        let hash = fingerprint(format!("{definition:?} {source:?}").as_bytes());
        Ok(Self { definition, by: KeyMaker::compile(by.map(|by| by.value.as_str()), NAMES)?, hash })
    }
}

/// A rule among others of its trigger, with the slots of its paths.
#[derive(Debug)]
pub(super) struct Placed {
    pub rule: Arc<CompiledRule>,
    pub slots: Vec<usize>,
}

/// The rules of one trigger and the fields that they read.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    pub reader: FieldReader,
    pub rules: Vec<Placed>,
    pub has_backstops: bool,
    /// Keys of the datastore that some rule names.
    pub keys: BTreeSet<String>,
    index: Index,
}

impl Shelf {
    pub(super) fn of(rules: impl IntoIterator<Item = Arc<CompiledRule>>) -> Self {
        let mut shelf = Self::default();
        for rule in rules {
            let of = |path: &FieldPath| if path.root == Root::System { OF_DATASTORE } else { shelf.reader.slot(path) };
            let slots = rule.paths().map(of).collect();
            shelf.has_backstops |= rule.rule.backstop;
            shelf.keys.extend(rule.keys.iter().cloned());
            shelf.rules.push(Placed { rule, slots });
        }
        shelf.index = Index::of_all(shelf.rules.len());
        shelf
    }

    fn indexed(mut self) -> Self {
        let entries: Vec<Entry<'_>> = self.rules.iter().map(Placed::entry).collect();
        self.index = Index::build(&entries);
        self
    }

    /// The positions of the rules that are worth a try.
    pub(super) fn candidates(&self, fields: &Fields<'_>) -> Vec<u32> {
        let mut found = Vec::new();
        self.index.candidates(fields, &mut found);
        found
    }
}

impl Placed {
    fn entry(&self) -> Entry<'_> {
        let rule = &self.rule;
        let (of_equalities, others) = self.slots.split_at(rule.equalities.len());
        let of_tests = others.iter().copied().zip(&rule.rule.criteria);
        // What an event cannot show may hold.
        let criteria: Vec<_> = of_tests.filter(|(slot, criterion)| *slot != OF_DATASTORE && !has_template(&criterion.pattern)).collect();
        let unknown = rule.tests.len() - criteria.len();
        let needed = if rule.counts_misses() { 0 } else { rule.rule.at_least.unwrap_or(rule.tests.len()).saturating_sub(unknown) };
        let equalities = of_equalities.iter().copied().zip(rule.equalities.iter().map(|(_, value)| value)).collect();
        Entry { equalities, criteria, needed }
    }
}

/// Stands for the slot of what is not in the payload.
const OF_DATASTORE: usize = usize::MAX;

fn has_template(pattern: &Value) -> bool {
    match pattern {
        Value::String(text) => text.contains("{{") || text.contains("<%"),
        Value::Array(items) => items.iter().any(has_template),
        Value::Object(map) => map.values().any(has_template),
        _ => false,
    }
}

/// The rules that are in force together.
#[derive(Debug, Default)]
pub struct RuleBook {
    pub(super) shelves: HashMap<String, Shelf>,
    rules: BTreeMap<String, Arc<CompiledRule>>,
}

impl RuleBook {
    /// Puts rules together. Which of them are not to be tried is said to [`super::judge::judge`] each time.
    #[must_use]
    pub fn new(rules: impl IntoIterator<Item = CompiledRule>) -> Self {
        let mut book = Self::unindexed(rules);
        book.shelves = book.shelves.into_iter().map(|(trigger, shelf)| (trigger, shelf.indexed())).collect();
        book
    }

    /// The same without an index: every rule of a trigger is tried for each of its events. To compare with.
    #[must_use]
    pub fn unindexed(rules: impl IntoIterator<Item = CompiledRule>) -> Self {
        let mut book = Self::default();
        for rule in rules {
            book.rules.insert(rule.rule.reference.clone(), Arc::new(rule));
        }
        let mut by_trigger: HashMap<&str, Vec<Arc<CompiledRule>>> = HashMap::new();
        for rule in book.rules.values() {
            by_trigger.entry(&rule.rule.trigger).or_default().push(Arc::clone(rule));
        }
        book.shelves = by_trigger.into_iter().map(|(trigger, rules)| (trigger.to_string(), Shelf::of(rules))).collect();
        book
    }

    /// A rule by `pack.name`.
    #[must_use]
    pub fn get(&self, reference: &str) -> Option<&Arc<CompiledRule>> {
        self.rules.get(reference)
    }

    /// Whether a rule listens to a trigger.
    #[must_use]
    pub fn has_listeners(&self, trigger: &str) -> bool {
        self.shelves.contains_key(trigger)
    }

    /// Every rule, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<CompiledRule>> {
        self.rules.values()
    }
}
