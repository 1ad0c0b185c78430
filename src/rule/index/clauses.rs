//! What must be so for a rule to be worth a try.
//!
//! A rule is worth a try if each of its clauses has a term that is so. Terms may be wider than the criterion they stand for, never
//! narrower: a value of the wrong type is a failure that is told, so it counts as well. Only where there is no value at all, an operator
//! that needs one says nothing that is kept.

use std::hash::{BuildHasher, Hasher};

use foldhash::fast::FixedState;
use serde_json::Value;

use super::Entry;
use crate::model::rule::{Criterion, Operator};
use crate::rule::seen::Seen;
use crate::template::value::is_literal;

/// A hash of a field and a value, or a beginning, or an end. That two of them share one costs a needless try.
pub(super) type Key = u64;

/// Which end of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum End {
    /// Its beginning.
    Front,
    /// Its end.
    Back,
}

/// Something that may be so of an event.
#[derive(Clone, Copy, Debug)]
pub(super) enum Term {
    /// The field has the value.
    Value { slot: u32, key: Key },
    /// Its text begins or ends so, or it is no text.
    Affix { slot: u32, end: End, length: usize, key: Key },
    /// It is there.
    Present { slot: u32 },
    /// It is a number between these, both included, or no number.
    Range { slot: u32, low: f64, high: f64 },
}

/// Terms of which one at least must be so.
pub(super) type Clause = Vec<Term>;

/// What must be so for a rule to be worth a try.
#[derive(Debug, Default)]
pub(super) struct Clauses {
    /// Each of these.
    pub all: Vec<Clause>,
    /// And so many of these, in any case.
    pub some: Option<(usize, Vec<Clause>)>,
}

/// Reads them from a rule.
pub(super) fn clauses(entry: &Entry<'_>) -> Clauses {
    let mut all: Vec<Clause> = entry.equalities.iter().map(|(slot, value)| vec![equal(*slot, value)]).collect();
    let mut of_criteria = entry.criteria.iter().map(|(slot, criterion)| of_criterion(*slot, criterion));
    if entry.needed == 0 {
        return Clauses { all, some: None };
    }
    if entry.needed < entry.criteria.len() {
        // Where so many hold, one at least of any so many others holds: as many as may fail, and one more.
        let (criteria, enough) = (entry.criteria.len(), entry.criteria.len() - entry.needed + 1);
        let known: Vec<Clause> = of_criteria.by_ref().flatten().collect();
        debug_assert!(known.len() <= criteria, "a criterion is one clause");
        let some = (known.len() >= enough).then_some((enough, known));
        return Clauses { all, some };
    }
    for clause in of_criteria.flatten() {
        narrow(&mut all, clause);
    }
    Clauses { all, some: None }
}

/// Adds a clause. Two ranges of one field are one.
fn narrow(all: &mut Vec<Clause>, clause: Clause) {
    if let [Term::Range { slot, low, high }] = clause[..] {
        for known in all.iter_mut() {
            if let [Term::Range { slot: same, low: from, high: to }] = &mut known[..]
                && *same == slot
            {
                (*from, *to) = (from.max(low), to.min(high));
                return;
            }
        }
    }
    all.push(clause);
}

/// Nothing, where the operator may hold whatever the value is, or its pattern is made anew for each event.
fn of_criterion(slot: u32, criterion: &Criterion) -> Option<Clause> {
    let pattern = Some(&criterion.pattern).filter(|pattern| is_literal(pattern));
    let present = || Some(vec![Term::Present { slot }]);
    match (criterion.operator, pattern) {
        (Operator::Equals, Some(pattern)) => Some(vec![equal(slot, pattern)]),
        (Operator::Inside, Some(Value::Array(items))) => Some(members(slot, items)),
        (Operator::Greaterthan, Some(Value::Number(number))) => Some(vec![range(slot, number.as_f64()?, f64::INFINITY)]),
        (Operator::Lessthan, Some(Value::Number(number))) => Some(vec![range(slot, f64::NEG_INFINITY, number.as_f64()?)]),
        (Operator::Startswith, Some(Value::String(text))) => Some(vec![affix(slot, End::Front, text)]),
        (Operator::Endswith, Some(Value::String(text))) => Some(vec![affix(slot, End::Back, text)]),
        (
            Operator::Equals
            | Operator::Inside
            | Operator::Nequals
            | Operator::Nexists
            | Operator::Ninside
            | Operator::Ncontains
            | Operator::Incontains,
            _,
        ) => None,
        _ => present(),
    }
}

fn equal(slot: u32, value: &Value) -> Term {
    key_of(slot, &Seen::of(value)).map_or(Term::Present { slot }, |key| Term::Value { slot, key })
}

fn members(slot: u32, items: &[Value]) -> Clause {
    let mut terms: Clause = items.iter().map(|item| equal(slot, item)).collect();
    if let Some(present) = terms.iter().find(|term| matches!(term, Term::Present { .. })).copied() {
        // A list or an object among them: anything may be equal to that, except nothing.
        terms.retain(|term| matches!(term, Term::Value { key, .. } if Some(*key) == key_of(slot, &Seen::Null)));
        terms.push(present);
    }
    terms.sort_by_key(|term| if let Term::Value { key, .. } = term { *key } else { 0 });
    terms.dedup_by_key(|term| if let Term::Value { key, .. } = term { *key } else { 0 });
    terms
}

fn range(slot: u32, low: f64, high: f64) -> Term {
    Term::Range { slot, low, high }
}

fn affix(slot: u32, end: End, text: &str) -> Term {
    Term::Affix { slot, end, length: text.len(), key: key_of_affix(slot, end, text.len(), text.as_bytes()) }
}

const NULL: u64 = 0;
const NUMBER: u64 = 1;
const TEXT: u64 = 2;
const FRONT: u64 = 3;
const BACK: u64 = 4;

fn hash(slot: u32, kind: u64, content: impl FnOnce(&mut foldhash::fast::FoldHasher<'_>)) -> Key {
    let mut hasher = FixedState::default().build_hasher();
    hasher.write_u64(u64::from(slot) << 8 | kind);
    content(&mut hasher);
    hasher.finish()
}

/// The key of a value. Values that are equal share one, as `1`, `1.0` and `true`; nothing is null. Lists and objects have none.
pub(super) fn key_of(slot: u32, seen: &Seen<'_>) -> Option<Key> {
    Some(match seen {
        Seen::Missing | Seen::Null => hash(slot, NULL, |_| ()),
        Seen::Text(text) => hash(slot, TEXT, |hasher| hasher.write(text.as_bytes())),
        Seen::Nested(_) => return None,
        number => {
            let number = number_of(number)?;
            hash(slot, NUMBER, |hasher| hasher.write_u64((number + 0.0).to_bits()))
        }
    })
}

/// The key of so many bytes at one end of a text.
pub(super) fn key_of_affix(slot: u32, end: End, length: usize, text: &[u8]) -> Key {
    match end {
        End::Front => hash(slot, FRONT, |hasher| hasher.write(&text[..length])),
        End::Back => hash(slot, BACK, |hasher| hasher.write(&text[text.len() - length..])),
    }
}

/// A number as a double, the nearest one if it is not exact.
#[allow(clippy::cast_precision_loss, reason = "rounding keeps the order, and equal numbers equal")]
pub(super) fn number_of(seen: &Seen<'_>) -> Option<f64> {
    match seen {
        Seen::Bool(flag) => Some(f64::from(u8::from(*flag))),
        Seen::Int(whole) => Some(*whole as f64),
        Seen::Uint(whole) => Some(*whole as f64),
        Seen::Float(number) => Some(*number),
        _ => None,
    }
}
