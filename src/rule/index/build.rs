//! Lays rules out in nodes: each goes by the clause that it shares with the fewest others, and where that is not enough, on by the next.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use super::clauses::{Clause, Clauses, End, Key, Term, clauses};
use super::ranges::{Range, Ranges};
use super::{Branch, Entry, Hashed, Index, LEAF, Leaf, Need, Node, RULE, Target, step};

/// So few rules are tried rather than told apart.
const FEW: usize = 2;

/// Clauses of a rule that are used at most.
const CLAUSES: usize = 64;

/// A rule on its way through the nodes.
#[derive(Clone, Copy)]
struct Member {
    rule: u32,
    /// Its clauses that have not been used yet, as bits.
    left: u64,
    /// Whether it has gone by a clause of several terms. Once is enough: twice would make too many copies.
    spread: bool,
}

struct Builder {
    index: Index,
    /// The clauses of each rule.
    rules: Vec<Vec<Clause>>,
}

pub(super) fn build(entries: &[Entry<'_>]) -> Index {
    let all: Vec<Clauses> = entries.iter().map(clauses).collect();
    let shared = Shared::of(all.iter().flat_map(|clauses| clauses.all.iter().chain(clauses.some.iter().flat_map(|(_, some)| some))));
    let rules: Vec<Vec<Clause>> = all.into_iter().map(|clauses| conjunction(clauses, &shared)).collect();
    let mut builder = Builder { index: Index::default(), rules };
    let member = |(clauses, rule): (&Vec<_>, u32)| Member { rule, left: first_bits(clauses.len()), spread: false };
    let members = builder.rules.iter().zip(0..LEAF).map(member).collect();
    builder.node(members);
    let index = &mut builder.index;
    index.nodes.shrink_to_fit();
    index.here.shrink_to_fit();
    index.leaves.shrink_to_fit();
    index.needs.shrink_to_fit();
    index.steps.shrink_to_fit();
    builder.index
}

fn narrowed(position: usize) -> u32 {
    u32::try_from(position).ok().filter(|position| *position < LEAF).expect("there are less than a thousand million rules and terms")
}

fn first_bits(count: usize) -> u64 {
    if count >= CLAUSES { u64::MAX } else { (1 << count) - 1 }
}

/// Where some of several clauses must hold, the rarest of them stand for all, as few as may be.
fn conjunction(clauses: Clauses, shared: &Shared) -> Vec<Clause> {
    let mut all = clauses.all;
    if let Some((enough, mut some)) = clauses.some {
        some.sort_by_key(|clause| shared.rank(clause));
        all.push(some.into_iter().take(enough).flatten().collect());
    }
    all
}

/// How many rules share the terms of clauses, and name their fields.
#[derive(Default)]
struct Shared {
    terms: HashMap<Key, u32, Hashed>,
    fields: BTreeMap<u32, u32>,
}

impl Shared {
    fn of<'c>(clauses: impl Iterator<Item = &'c Clause>) -> Self {
        let mut shared = Self::default();
        for term in clauses.flatten() {
            if let Term::Value { slot, key } | Term::Affix { slot, key, .. } = term {
                *shared.terms.entry(*key).or_default() += 1;
                *shared.fields.entry(*slot).or_default() += 1;
            }
        }
        shared
    }

    /// Lower is better: values and texts by how many share them, ranges after all of those, then whether a field is there at all. Where
    /// it makes little difference, the field that most rules name: so an event is asked for few.
    fn rank(&self, clause: &Clause) -> (u8, u32, Reverse<u32>, u32) {
        let of_term = |term: &Term| match term {
            Term::Value { key, .. } | Term::Affix { key, .. } => (0, self.terms.get(key).copied().map_or(0, u64::from)),
            Term::Range { .. } => (1, 1),
            Term::Present { .. } => (2, 1),
        };
        let (kind, sum) = clause.iter().map(of_term).fold((0, 0), |(worst, sum), (kind, count)| (worst.max(kind), sum + count));
        let slot = match clause.first() {
            Some(Term::Value { slot, .. } | Term::Affix { slot, .. } | Term::Present { slot } | Term::Range { slot, .. }) => *slot,
            None => 0,
        };
        let named = self.fields.get(&slot).copied().unwrap_or(0);
        (kind, sum.checked_ilog2().unwrap_or(0) / 2, Reverse(named), slot)
    }
}

/// Rules by a beginning or end of a text: its length in bytes, and its key.
type ByAffix = BTreeMap<(usize, Key), Vec<Member>>;

/// What goes on from a node, by kind and field.
#[derive(Default)]
struct Ways {
    values: BTreeMap<u32, BTreeMap<Key, Vec<Member>>>,
    affixes: BTreeMap<(u32, End), ByAffix>,
    present: BTreeMap<u32, Vec<Member>>,
    ranges: BTreeMap<u32, Vec<(f64, f64, Member)>>,
}

impl Builder {
    fn target(&mut self, members: Vec<Member>) -> Target {
        if let [one] = members[..] { self.leaf(one) } else { Target(self.node(members)) }
    }

    /// A rule, with what it needs besides what led to it.
    fn leaf(&mut self, member: Member) -> Target {
        let first = self.index.needs.len();
        for (bit, clause) in self.rules[member.rule as usize].iter().take(CLAUSES).enumerate() {
            match clause[..] {
                _ if member.left & (1 << bit) == 0 => {}
                [Term::Value { slot, key }] => self.index.needs.push(Need::Value { slot, key }),
                [Term::Range { slot, low, high }] => self.index.needs.push(Need::Range { slot, low, high }),
                _ => {}
            }
        }
        let count = self.index.needs.len() - first;
        if count == 0 {
            return Target(RULE | member.rule);
        }
        let number = narrowed(self.index.leaves.len());
        self.index.leaves.push(Leaf { rule: member.rule, first: narrowed(first), count: narrowed(count) });
        Target(LEAF | number)
    }

    fn node(&mut self, members: Vec<Member>) -> u32 {
        let number = narrowed(self.index.nodes.len());
        self.index.nodes.push(Node::default());
        let (mut here, ways) = self.ways(members);
        let branches = self.branches(number, ways, &mut here);
        let first = narrowed(self.index.here.len());
        let count = narrowed(here.len());
        for member in here {
            let leaf = self.leaf(member);
            self.index.here.push(leaf);
        }
        self.index.nodes[number as usize] = Node { first, count, branches };
        number
    }

    /// The rules that stay, and where the others go.
    fn ways(&self, members: Vec<Member>) -> (Vec<Member>, Ways) {
        let mut ways = Ways::default();
        if members.len() <= FEW {
            return (members, ways);
        }
        let mut here = Vec::new();
        let left = |member: &Member| {
            let member = *member;
            let clauses = self.rules[member.rule as usize].iter().take(CLAUSES).enumerate();
            clauses.filter(move |(bit, clause)| member.left & (1 << bit) != 0 && !(member.spread && clause.len() > 1))
        };
        let shared = Shared::of(members.iter().flat_map(left).map(|(_, clause)| clause));
        for member in members {
            let Some((bit, clause)) = left(&member).min_by_key(|(_, clause)| shared.rank(clause)) else {
                here.push(member);
                continue;
            };
            let next = Member { left: member.left & !(1 << bit), spread: member.spread || clause.len() > 1, ..member };
            for term in clause {
                match *term {
                    Term::Value { slot, key } => ways.values.entry(slot).or_default().entry(key).or_default().push(next),
                    Term::Affix { slot, end, length, key } => {
                        ways.affixes.entry((slot, end)).or_default().entry((length, key)).or_default().push(next);
                    }
                    Term::Present { slot } => ways.present.entry(slot).or_default().push(next),
                    Term::Range { slot, low, high } => ways.ranges.entry(slot).or_default().push((low, high, next)),
                }
            }
        }
        (here, ways)
    }

    fn branches(&mut self, number: u32, ways: Ways, here: &mut Vec<Member>) -> Box<[Branch]> {
        let mut branches = Vec::new();
        for (slot, by_key) in ways.values {
            for (key, members) in by_key {
                self.lead(number, key, members, here);
            }
            branches.push(Branch::Value { slot });
        }
        for ((slot, end), by_text) in ways.affixes {
            let mut lengths: Vec<usize> = by_text.keys().map(|(length, _)| *length).collect();
            lengths.dedup();
            let all = by_text.into_iter().filter_map(|((_, key), members)| self.lead(number, key, members, here)).collect();
            branches.push(Branch::Affix { slot, end, lengths: lengths.into(), all });
        }
        for (slot, members) in ways.present {
            let target = self.target(members);
            branches.push(Branch::Present { slot, target });
        }
        for (slot, ranges) in ways.ranges {
            let ranges = ranges.into_iter().map(|(low, high, member)| Range::new(low, high, self.leaf(member))).collect();
            branches.push(Branch::Range { slot, ranges: Ranges::new(ranges) });
        }
        branches.into()
    }

    /// Leads from a node to rules. Those whose place is taken, as two hashes are the same, stay at the node.
    fn lead(&mut self, number: u32, key: Key, members: Vec<Member>, here: &mut Vec<Member>) -> Option<Target> {
        let step = step(number, key);
        if self.index.steps.contains_key(&step) {
            here.extend(members);
            return None;
        }
        // Taken before what is below is laid out.
        self.index.steps.insert(step, Target(0));
        let target = self.target(members);
        self.index.steps.insert(step, target);
        Some(target)
    }
}
