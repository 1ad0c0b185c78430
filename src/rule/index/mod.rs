//! Finds the rules of a trigger that are worth a try, from the fields of an event. Pure.
//!
//! What it finds is every rule whose verdict would be kept, and perhaps more: each is tried in full afterwards. Its cost grows with the
//! event, not with the number of rules.
//!
//! [`clauses`] says what must be so for a rule to be worth a try: some of these values, texts or numbers must stand in those fields. The
//! rules lie in a tree of nodes ([`build`]). A node holds the rules that need nothing more, and leads to others by what an event has:
//! the value of a field, the beginning or end of its text, that it is there at all. Rules that need a number in some range
//! lie at the node itself, in a tree of intervals ([`ranges`]). What else a rule needs stands beside it, so that few are tried in vain.

mod build;
mod clauses;
mod ranges;

use std::collections::HashMap;

use serde_json::Value;

use self::clauses::{End, Key};
use self::ranges::Ranges;
use super::fields::Fields;
use super::seen::Seen;
use crate::model::rule::Criterion;

/// What the index knows of a rule.
pub struct Entry<'r> {
    /// Fields that must equal values, by slot; all of them, always.
    pub equalities: Vec<(u32, &'r Value)>,
    /// The criteria, by slot.
    pub criteria: Vec<(u32, &'r Criterion)>,
    /// How many of the criteria must hold. Zero where the rule must be tried whatever they say, as one that counts what does not hold.
    pub needed: usize,
}

/// The rules of one trigger, by what they look for.
#[derive(Debug, Default)]
pub struct Index {
    /// The first one is where the search begins.
    nodes: Vec<Node>,
    /// Where a value leads from a node, by [`step`].
    steps: HashMap<Key, Target, Hashed>,
    /// The rules that lie at the nodes themselves, one node after the other.
    here: Vec<Target>,
    leaves: Vec<Leaf>,
    needs: Vec<Need>,
}

/// A place in the search.
#[derive(Debug, Default)]
struct Node {
    first: u32,
    count: u32,
    branches: Box<[Branch]>,
}

/// A way on from a node.
#[derive(Debug)]
enum Branch {
    /// By the value of a field.
    Value { slot: u32 },
    /// By the beginning or end of its text, of any of these lengths in bytes. A value that is no text is a failure that is told, so it
    /// leads to all of them.
    Affix { slot: u32, end: End, lengths: Box<[usize]>, all: Box<[Target]> },
    /// If it is there.
    Present { slot: u32, target: Target },
    /// Rules by the number that it is; all of them if it is something else.
    Range { slot: u32, ranges: Ranges },
}

/// What a way leads to: a node, a rule, or a leaf.
#[derive(Clone, Copy, Debug)]
struct Target(u32);

/// The bit of a [`Target`] that is a rule.
const RULE: u32 = 1 << 31;

/// The bit of a [`Target`] that is a leaf.
const LEAF: u32 = 1 << 30;

/// A rule that needs more than what led to it.
#[derive(Debug)]
struct Leaf {
    rule: u32,
    first: u32,
    count: u32,
}

/// What a rule needs besides.
#[derive(Debug)]
enum Need {
    /// A value in a field.
    Value { slot: u32, key: Key },
    /// A number in a range, both ends included, or no number.
    Range { slot: u32, low: f64, high: f64 },
}

impl Need {
    fn is_met(&self, fields: &Fields<'_>) -> bool {
        match self {
            Self::Value { slot, key } => clauses::key_of(*slot, &fields.slots[*slot as usize]) == Some(*key),
            Self::Range { slot, low, high } => {
                let seen = &fields.slots[*slot as usize];
                !seen.is_nothing() && clauses::number_of(seen).is_none_or(|number| *low <= number && number <= *high)
            }
        }
    }
}

/// Keys are hashes already.
type Hashed = std::hash::BuildHasherDefault<AsItIs>;

#[derive(Default)]
struct AsItIs(u64);

impl std::hash::Hasher for AsItIs {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |hash, byte| hash.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// The key under which a node leads on by what an event has.
fn step(node: u32, key: Key) -> Key {
    key ^ u64::from(node).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Index {
    /// Puts rules together; each is known by its position.
    #[must_use]
    pub fn build(entries: &[Entry<'_>]) -> Self {
        build::build(entries)
    }

    /// Finds every one of so many rules, always.
    #[must_use]
    pub fn of_all(rules: usize) -> Self {
        let count = u32::try_from(rules).expect("there are less than two thousand million rules");
        let root = Node { first: 0, count, branches: Box::default() };
        Self { nodes: vec![root], here: (0..count).map(|rule| Target(RULE | rule)).collect(), ..Self::default() }
    }

    /// The positions of the rules that are worth a try, ascending, each once.
    pub fn candidates(&self, fields: &Fields<'_>, found: &mut Vec<u32>) {
        found.clear();
        if !self.nodes.is_empty() {
            self.visit(0, fields, found);
        }
        if found.len() > 1 {
            found.sort_unstable();
            found.dedup();
        }
    }

    fn follow(&self, target: Target, fields: &Fields<'_>, found: &mut Vec<u32>) {
        if target.0 & RULE != 0 {
            found.push(target.0 & !RULE);
        } else if target.0 & LEAF != 0 {
            let leaf = &self.leaves[(target.0 & !LEAF) as usize];
            if self.needs[leaf.first as usize..][..leaf.count as usize].iter().all(|need| need.is_met(fields)) {
                found.push(leaf.rule);
            }
        } else {
            self.visit(target.0, fields, found);
        }
    }

    fn visit(&self, number: u32, fields: &Fields<'_>, found: &mut Vec<u32>) {
        let node = &self.nodes[number as usize];
        for target in &self.here[node.first as usize..][..node.count as usize] {
            self.follow(*target, fields, found);
        }
        let by = |key: Key, found: &mut Vec<u32>| {
            if let Some(target) = self.steps.get(&step(number, key)) {
                self.follow(*target, fields, found);
            }
        };
        for branch in &node.branches {
            match branch {
                Branch::Value { slot } => {
                    if let Some(key) = clauses::key_of(*slot, &fields.slots[*slot as usize]) {
                        by(key, found);
                    }
                }
                Branch::Affix { slot, end, lengths, all } => match &fields.slots[*slot as usize] {
                    Seen::Text(text) => {
                        for length in lengths.iter().take_while(|length| **length <= text.len()) {
                            by(clauses::key_of_affix(*slot, *end, *length, text.as_bytes()), found);
                        }
                    }
                    Seen::Missing | Seen::Null => {}
                    _ => all.iter().for_each(|target| self.follow(*target, fields, found)),
                },
                Branch::Present { slot, target } => {
                    if !fields.slots[*slot as usize].is_nothing() {
                        self.follow(*target, fields, found);
                    }
                }
                Branch::Range { slot, ranges } => match &fields.slots[*slot as usize] {
                    Seen::Missing | Seen::Null => {}
                    seen => match clauses::number_of(seen) {
                        Some(number) => ranges.around(number, &mut |target| self.follow(target, fields, found)),
                        None => ranges.all().for_each(|target| self.follow(target, fields, found)),
                    },
                },
            }
        }
    }
}
