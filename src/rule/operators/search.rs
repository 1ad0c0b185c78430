//! `search`: criteria on the items of a list.

use std::sync::OnceLock;

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::{Surroundings, Test};
use crate::model::json::type_name;
use crate::model::path::{Step, first, item_steps};
use crate::model::rule::{Condition, Criterion, Operator};
use crate::rule::seen::Seen;
use crate::template::value::Scope;

/// How deep `search` may stand in `search`.
pub const MAX_NESTED_SEARCHES: usize = 4;

/// The most criteria of one `search`.
pub const MAX_ITEM_CRITERIA: usize = 100;

/// The most items that one `search` looks at.
pub const MAX_ITEMS: usize = 10_000;

/// The names that patterns inside `search` may use.
const ITEM_NAMES: &[&str] = &["item", "kv", "st2kv"];

/// A `search`, compiled.
#[derive(Debug, Clone)]
pub(super) struct Search {
    condition: Condition,
    criteria: Vec<(Vec<Step>, Criterion, Test)>,
}

impl Test {
    /// Compiles a criterion on an item, as it stands inside `search`. Its key is not looked at.
    ///
    /// # Errors
    /// When the pattern does not fit the operator.
    pub fn compile_item(criterion: &Criterion) -> Result<Self, String> {
        Self::compile_at(criterion, ITEM_NAMES, 1)
    }
}

impl Search {
    /// Compiles the criteria inside; `depth` counts the searches around this one.
    pub(super) fn compile(criterion: &Criterion, depth: usize) -> Result<Self, String> {
        let condition =
            criterion.condition.ok_or_else(|| format!("`search` needs a `condition`: one of {}", Condition::NAMES.join(", ")))?;
        if depth >= MAX_NESTED_SEARCHES {
            return Err(format!("`search` stands more than {MAX_NESTED_SEARCHES} deep in itself"));
        }
        let Value::Object(inner) = &criterion.pattern else {
            let given = type_name(&criterion.pattern);
            return Err(format!("`search` needs criteria on `item.…` as its pattern, by key, not {given}"));
        };
        if inner.len() > MAX_ITEM_CRITERIA {
            return Err(format!("`search` has more than {MAX_ITEM_CRITERIA} criteria"));
        }
        let compile = |(key, written): (&String, &Value)| {
            let compiled = read(key, written).and_then(|criterion| {
                let (steps, test) = (item_steps(key)?, Test::compile_at(&criterion, ITEM_NAMES, depth + 1)?);
                Ok((steps, criterion, test))
            });
            compiled.map_err(|fault| format!("{key}: {fault}"))
        };
        Ok(Self { condition, criteria: inner.iter().map(compile).collect::<Result<_, _>>()? })
    }

    /// Whether enough items pass enough criteria. A criterion that could not be applied counts as one that does not hold; if the whole does
    /// not hold, the first such failure is the answer.
    pub(super) fn holds(&self, value: &Seen<'_>, around: &dyn Surroundings) -> Result<bool, String> {
        let items = match value {
            Seen::Nested(nested) => match nested.as_ref() {
                Value::Array(items) => items.as_slice(),
                one => std::slice::from_ref(one),
            },
            other => return Err(format!("`search` needs a list or an object, not {}", other.type_name())),
        };
        if items.len() > MAX_ITEMS {
            return Err(format!("`search` looks at {MAX_ITEMS} items at most, here are {}", items.len()));
        }
        let mut failure = None;
        let mut passes = |item: &Value| self.passes(item, around, &mut failure);
        let held = match self.condition {
            Condition::Any | Condition::Any2any => items.iter().any(&mut passes),
            Condition::All | Condition::All2any => items.iter().all(&mut passes),
        };
        match failure {
            Some(failure) if !held => Err(failure),
            _ => Ok(held),
        }
    }

    /// Whether an item passes all criteria, or one, as the condition asks.
    fn passes(&self, item: &Value, around: &dyn Surroundings, failure: &mut Option<String>) -> bool {
        let around = Inside { around, item, scope: OnceLock::new() };
        let mut holds = |(steps, criterion, test): &(Vec<Step>, Criterion, Test)| {
            let value = first(steps, item).map_or(Seen::Missing, Seen::of);
            test.holds(criterion, &value, &around).unwrap_or_else(|fault| {
                failure.get_or_insert(fault);
                false
            })
        };
        match self.condition {
            Condition::Any | Condition::All => self.criteria.iter().all(&mut holds),
            Condition::Any2any | Condition::All2any => self.criteria.iter().any(&mut holds),
        }
    }
}

/// Reads a criterion as the loader writes it down.
fn read(key: &str, written: &Value) -> Result<Criterion, String> {
    let name = |field: &str| written.get(field).and_then(Value::as_str);
    let named = name("type").ok_or("a criterion needs the field `type`")?;
    let operator = Operator::named(named).ok_or_else(|| format!("there is no operator `{named}`"))?;
    let condition = name("condition").map(|name| Condition::named(name).ok_or_else(|| format!("there is no condition `{name}`")));
    Ok(Criterion {
        key: key.into(),
        operator,
        pattern: written.get("pattern").cloned().unwrap_or_default(),
        condition: condition.transpose()?,
    })
}

/// What patterns inside see: the item and the datastore, made only when the first of them needs it.
struct Inside<'a> {
    around: &'a dyn Surroundings,
    item: &'a Value,
    scope: OnceLock<Result<Scope, String>>,
}

impl Surroundings for Inside<'_> {
    fn now(&self) -> DateTime<Utc> {
        self.around.now()
    }

    fn scope(&self) -> Result<&Scope, String> {
        let make = || {
            let outer = self.around.scope()?;
            let kept = ["kv", "st2kv"].into_iter().filter_map(|name| Some((name, outer.value(name)?.clone())));
            Ok(Scope::new(kept.chain([("item", self.item.clone())]).collect()))
        };
        self.scope.get_or_init(make).as_ref().map_err(Clone::clone)
    }
}
