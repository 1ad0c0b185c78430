//! The rules that are in force together, compiled and ordered by trigger.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, OnceLock};

use foldhash::fast::FixedState;
use serde_json::Value;

use super::fields::{FieldReader, Fields};
use super::index::{Entry, Index};
use super::key::KeyMaker;
use super::operators::Test;
use super::windows::{Definition, Needed};
use crate::model::hash::{Digest, Revision, fingerprint};
use crate::model::name::Name;
use crate::model::path::{FieldPath, Root};
use crate::model::rule::{Rule, Source, WindowKind};
use crate::script::expr::Expression;
use crate::template::keys::system_keys;
use crate::template::value::{ValueTemplate, is_literal, sole_expression};

/// The names that guards and parameters may use.
pub const NAMES: &[&str] = &["trigger", "event", "now", "kv", "st2kv"];

/// A rule, compiled.
#[derive(Debug)]
pub struct CompiledRule {
    /// The rule.
    pub rule: Rule,
    digest: Digest,
    pub(super) tests: Box<[Test]>,
    pub(super) guard: Option<Box<Expression>>,
    /// The parameters of its action, compiled when they are first needed: most rules match seldom.
    parameters: OnceLock<Box<Templates>>,
    pub(super) window: Option<Box<Keyed>>,
    pub(super) throttle: Option<Box<Keyed>>,
    /// Keys of the datastore that its patterns, guard and parameters name.
    #[allow(clippy::box_collection, reason = "hardly a rule has any, and there are very many rules")]
    keys: Option<Box<BTreeSet<String>>>,
}

#[derive(Debug)]
struct Templates(Box<[ValueTemplate]>);

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
        for (index, (field, _)) in rule.trigger_parameters.iter().enumerate() {
            if let Err(message) = FieldPath::parse_field(field) {
                note(Part::TriggerParameter(index), message);
            }
        }
        let (mut tests, mut keys) = (Vec::new(), BTreeSet::new());
        for (index, criterion) in rule.criteria.iter().enumerate() {
            match (FieldPath::parse(&criterion.key), Test::compile(criterion)) {
                (Ok(path), Ok(test)) => {
                    keys.extend(path.system_key().map(str::to_string));
                    tests.push(test);
                }
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
        for (index, (_, source)) in rule.parameters.iter().enumerate() {
            if !is_plain(&source.value)
                && let Err(message) = ValueTemplate::compile(&source.value, NAMES)
            {
                note(Part::Parameter(index), message);
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
        let mut named = |part, value: &Value| match mentions_keys(value).then(|| system_keys(value)).transpose() {
            Ok(found) => keys.extend(found.unwrap_or_default()),
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
        let keyed = [(Part::WindowBy, rule.window.as_ref().and_then(|window| window.by.as_ref()))];
        for (part, by) in keyed.into_iter().chain([(Part::ThrottleBy, rule.throttle.as_ref().and_then(|throttle| throttle.by.as_ref()))]) {
            named(part, &by.map_or(Value::Null, |by| Value::from(by.value.as_str())));
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        Ok(Self {
            digest: Digest::of(&rule),
            rule,
            tests: tests.into(),
            guard: guard.map(Box::new),
            parameters: OnceLock::new(),
            window: window.map(Box::new),
            throttle: throttle.map(Box::new),
            keys: (!keys.is_empty()).then(|| Box::new(keys)),
        })
    }

    /// Its revision.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.digest.revision()
    }

    pub(super) fn name(&self) -> &Arc<str> {
        self.rule.reference.shared()
    }

    /// The parameters of its action, compiled.
    pub(super) fn parameters(&self) -> &[ValueTemplate] {
        let compiled = |(_, source): &(Name, Source<Value>)| {
            ValueTemplate::compile(&source.value, NAMES).expect("it was checked when the rule was read")
        };
        &self.parameters.get_or_init(|| Box::new(Templates(self.rule.parameters.iter().map(compiled).collect()))).0
    }

    /// The path of a criterion, by index.
    pub(super) fn path(&self, criterion: usize) -> FieldPath {
        FieldPath::parse(&self.rule.criteria[criterion].key).expect("it was a path when the rule was read")
    }

    /// Keys of the datastore that it names.
    #[must_use]
    pub fn keys(&self) -> &BTreeSet<String> {
        static NONE: BTreeSet<String> = BTreeSet::new();
        self.keys.as_deref().unwrap_or(&NONE)
    }

    /// What is to be remembered of it.
    pub fn needed(&self) -> impl Iterator<Item = Needed> {
        self.window.iter().chain(&self.throttle).map(move |keyed| Needed {
            rule: Arc::clone(self.name()),
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
        self.window.as_deref().is_some_and(consecutive)
    }

    /// Every path that the rule reads without its guard and templates: trigger parameters, criteria, keys of window and throttle.
    fn paths(&self) -> impl Iterator<Item = FieldPath> {
        let of_parameter = |(field, _): &(String, Value)| FieldPath::parse_field(field).expect("it was a path when the rule was read");
        let keyed = self.window.iter().chain(&self.throttle).flat_map(|keyed| keyed.by.paths().cloned());
        let criteria = (0..self.tests.len()).map(|criterion| self.path(criterion));
        self.rule.trigger_parameters.iter().map(of_parameter).chain(criteria).chain(keyed)
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
    pub slots: Box<[u32]>,
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
            let of = |path: FieldPath| {
                if path.root == Root::System { OF_DATASTORE } else { narrowed(shelf.reader.slot(&path)) }
            };
            let slots = rule.paths().map(of).collect();
            shelf.has_backstops |= rule.rule.backstop;
            shelf.keys.extend(rule.keys().iter().cloned());
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
        let (of_equalities, others) = self.slots.split_at(rule.rule.trigger_parameters.len());
        let of_tests = others.iter().copied().zip(&rule.rule.criteria);
        // What an event cannot show may hold.
        let criteria: Vec<_> = of_tests.filter(|(slot, criterion)| *slot != OF_DATASTORE && is_literal(&criterion.pattern)).collect();
        let unknown = rule.tests.len() - criteria.len();
        let needed = if rule.counts_misses() { 0 } else { rule.rule.needed().saturating_sub(unknown) };
        let equalities = of_equalities.iter().copied().zip(rule.rule.trigger_parameters.iter().map(|(_, value)| value)).collect();
        Entry { equalities, criteria, needed }
    }
}

/// Stands for the slot of what is not in the payload.
const OF_DATASTORE: u32 = u32::MAX;

fn narrowed(slot: usize) -> u32 {
    u32::try_from(slot).expect("there are less than four thousand million fields")
}

/// Whether a parameter is without fault at a glance: names of fields are all that stands between its braces. Reading templates takes
/// longer than all else about a rule, and most are like this.
fn is_plain(value: &Value) -> bool {
    match value {
        Value::String(text) => is_plain_text(text),
        Value::Array(items) => items.iter().all(is_plain),
        Value::Object(map) => map.values().all(is_plain),
        _ => true,
    }
}

fn is_plain_text(text: &str) -> bool {
    let is_name = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    let is_field = |path: &str| path.split_once('.').is_some_and(|(root, rest)| root == "trigger" && rest.split('.').all(is_name));
    let is_tag = |tag: &str| tag.split_once("}}").is_some_and(|(path, text)| is_field(path) && !text.contains("}}"));
    text.len() <= MAX_PLAIN_BYTES && !text.contains("<%") && !text.contains('\\') && text.split("{{").skip(1).all(is_tag)
}

/// Longer text is looked at properly.
const MAX_PLAIN_BYTES: usize = 1_000;

/// Whether it is worth a look for keys of the datastore: every name of theirs begins with `kv` or `st2kv`.
fn mentions_keys(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains("kv"),
        Value::Array(items) => items.iter().any(mentions_keys),
        Value::Object(map) => map.values().any(mentions_keys),
        _ => false,
    }
}

/// The rules that are in force together.
#[derive(Debug, Default)]
pub struct RuleBook {
    pub(super) shelves: HashMap<String, Shelf, FixedState>,
    /// By name.
    rules: Vec<Arc<CompiledRule>>,
}

impl RuleBook {
    /// Puts rules together. Which of them are not to be tried is said to [`super::judge::judge`] each time.
    #[must_use]
    pub fn new<R: Into<Arc<CompiledRule>>>(rules: impl IntoIterator<Item = R>) -> Self {
        let mut book = Self::unindexed(rules);
        book.shelves = book.shelves.into_iter().map(|(trigger, shelf)| (trigger, shelf.indexed())).collect();
        book
    }

    /// The same without an index: every rule of a trigger is tried for each of its events. To compare with.
    #[must_use]
    pub fn unindexed<R: Into<Arc<CompiledRule>>>(rules: impl IntoIterator<Item = R>) -> Self {
        let mut rules: Vec<Arc<CompiledRule>> = rules.into_iter().map(Into::into).collect();
        rules.sort_by(|a, b| a.rule.reference.cmp(&b.rule.reference));
        debug_assert!(rules.is_sorted_by(|a, b| a.rule.reference < b.rule.reference), "no two rules have one name");
        let mut book = Self { rules, shelves: HashMap::default() };
        let mut by_trigger: HashMap<&str, Vec<Arc<CompiledRule>>> = HashMap::new();
        for rule in &book.rules {
            by_trigger.entry(&rule.rule.trigger).or_default().push(Arc::clone(rule));
        }
        book.shelves = by_trigger.into_iter().map(|(trigger, rules)| (trigger.to_string(), Shelf::of(rules))).collect();
        book
    }

    /// A rule by `pack.name`.
    #[must_use]
    pub fn get(&self, reference: &str) -> Option<&Arc<CompiledRule>> {
        let found = self.rules.binary_search_by(|rule| (*rule.rule.reference).cmp(reference)).ok()?;
        self.rules.get(found)
    }

    /// Whether a rule listens to a trigger.
    #[must_use]
    pub fn has_listeners(&self, trigger: &str) -> bool {
        self.shelves.contains_key(trigger)
    }

    /// Every rule, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<CompiledRule>> {
        self.rules.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_plain_compiles() {
        let names = ["a", "if", "else", "each", "this", "as", "lookup", "true", "null", "a_1", "log", "len", "not"];
        for name in names {
            for text in [format!("{{{{trigger.{name}}}}}"), format!("é {{{{trigger.{name}.b}}}} }} {{ {{{{trigger.b.{name}}}}}")] {
                assert!(is_plain(&json!([text])), "{text}");
                assert!(ValueTemplate::compile(&json!(text), NAMES).is_ok(), "{text}");
            }
        }
        for text in [
            "{{#if trigger.a}}",
            "{{trigger.a",
            "{{{trigger.a}}}",
            "{{kv.system.a}}",
            "{{trigger}}",
            "{{trigger.a b}}",
            "\\{{trigger.a}}",
            "<% 1 %>",
            "{{trigger.0}}",
            "{{trigger.a}} }}",
        ] {
            assert!(!is_plain(&json!({"text": text})), "{text}");
        }
    }
}
