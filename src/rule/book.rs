//! The rules that are in force together, compiled and ordered by trigger.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde_json::Value;

use super::fields::FieldReader;
use super::index::{Entry, Index};
use super::operators::Test;
use crate::model::hash::Revision;
use crate::model::path::FieldPath;
use crate::model::rule::Rule;
use crate::script::expr::Expression;
use crate::template::value::{ValueTemplate, sole_expression};

/// The names that guards and parameters may use.
pub const NAMES: &[&str] = &["trigger", "event", "now"];

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
        if !faults.is_empty() {
            return Err(faults);
        }
        let revision = rule.revision();
        Ok(Self { rule, revision, equalities, tests, guard, parameters })
    }

    /// Every path that the rule reads before its guard.
    fn paths(&self) -> impl Iterator<Item = &FieldPath> {
        self.equalities.iter().map(|(path, _)| path).chain(self.tests.iter().map(|(path, _)| path))
    }
}

/// A rule among others of its trigger, with the slots of its paths.
#[derive(Debug)]
pub(super) struct Placed {
    pub rule: Arc<CompiledRule>,
    pub slots: Vec<usize>,
}

impl Placed {
    fn entry(&self) -> Entry<'_> {
        let rule = &self.rule;
        let (of_equalities, of_tests) = self.slots.split_at(rule.equalities.len());
        Entry {
            equalities: of_equalities.iter().copied().zip(rule.equalities.iter().map(|(_, value)| value)).collect(),
            criteria: of_tests.iter().copied().zip(&rule.rule.criteria).collect(),
            needed: rule.rule.at_least.unwrap_or(rule.tests.len()),
        }
    }
}

/// The rules of one trigger and the fields that they read.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    pub reader: FieldReader,
    pub rules: Vec<Placed>,
    pub index: Index,
}

impl Shelf {
    pub(super) fn add(&mut self, rule: Arc<CompiledRule>) {
        let slots = rule.paths().map(|path| self.reader.slot(path)).collect();
        self.rules.push(Placed { rule, slots });
    }

    fn build_index(&mut self) {
        let entries: Vec<Entry<'_>> = self.rules.iter().map(Placed::entry).collect();
        self.index = Index::build(&entries);
    }
}

/// The rules that are in force together.
#[derive(Debug, Default)]
pub struct RuleBook {
    pub(super) shelves: HashMap<String, Shelf>,
    rules: BTreeMap<String, Arc<CompiledRule>>,
}

impl RuleBook {
    /// Puts rules together. Those that are not enabled are known, but not tried.
    #[must_use]
    pub fn new(rules: impl IntoIterator<Item = CompiledRule>) -> Self {
        let mut book = Self::shelved(rules);
        for shelf in book.shelves.values_mut() {
            shelf.build_index();
        }
        book
    }

    /// The same without an index: every rule of a trigger is tried for each of its events. To compare with.
    #[must_use]
    pub fn unindexed(rules: impl IntoIterator<Item = CompiledRule>) -> Self {
        let mut book = Self::shelved(rules);
        for shelf in book.shelves.values_mut() {
            shelf.index = Index::of_all(shelf.rules.len());
        }
        book
    }

    fn shelved(rules: impl IntoIterator<Item = CompiledRule>) -> Self {
        let mut book = Self::default();
        for rule in rules {
            book.rules.insert(rule.rule.reference.clone(), Arc::new(rule));
        }
        for rule in book.rules.values().filter(|rule| rule.rule.enabled) {
            book.shelves.entry(rule.rule.trigger.clone()).or_default().add(Arc::clone(rule));
        }
        book
    }

    /// A rule by `pack.name`.
    #[must_use]
    pub fn get(&self, reference: &str) -> Option<&Arc<CompiledRule>> {
        self.rules.get(reference)
    }

    /// Every rule, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<CompiledRule>> {
        self.rules.values()
    }
}
