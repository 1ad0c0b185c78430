//! Lays rules out in nodes: each goes by the clause that it shares with the fewest others, and where that is not enough, on by the next.

use std::collections::{BTreeMap, HashMap};

use super::affixes::{Affixes, End};
use super::clauses::{Clause, Clauses, Key, Term, clauses};
use super::ranges::{Range, Ranges};
use super::{Branch, Entry, Hashed, Index, Node, RULE, Target, step};

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

struct Builder<'r> {
    index: Index,
    /// The clauses of each rule.
    rules: Vec<Vec<Clause<'r>>>,
    /// Where in the index the texts of a field are.
    affixes: HashMap<(u32, End), u32>,
}

pub(super) fn build(entries: &[Entry<'_>]) -> Index {
    let all: Vec<Clauses<'_>> = entries.iter().map(clauses).collect();
    let shared = Shared::of(all.iter().flat_map(|clauses| clauses.all.iter().chain(clauses.some.iter().flat_map(|(_, some)| some))));
    let rules: Vec<Vec<Clause<'_>>> = all.into_iter().map(|clauses| conjunction(clauses, &shared)).collect();
    let mut builder = Builder { index: Index::default(), affixes: HashMap::new(), rules };
    builder.affixes();
    let member = |(clauses, rule): (&Vec<_>, u32)| Member { rule, left: first_bits(clauses.len()), spread: false };
    let members = builder.rules.iter().zip(0..RULE).map(member).collect();
    builder.node(members);
    let index = &mut builder.index;
    index.nodes.shrink_to_fit();
    index.rules.shrink_to_fit();
    index.steps.shrink_to_fit();
    builder.index
}

fn first_bits(count: usize) -> u64 {
    if count >= CLAUSES { u64::MAX } else { (1 << count) - 1 }
}

/// Where some of several clauses must hold, the rarest of them stand for all, as few as may be.
fn conjunction<'r>(clauses: Clauses<'r>, shared: &Shared) -> Vec<Clause<'r>> {
    let mut all = clauses.all;
    if let Some((enough, mut some)) = clauses.some {
        some.sort_by_key(|clause| shared.rank(clause));
        all.push(some.into_iter().take(enough).flatten().collect());
    }
    all
}

/// How many rules share the terms of clauses.
struct Shared(HashMap<Key, u32, Hashed>);

impl Shared {
    fn of<'c, 'r: 'c>(clauses: impl Iterator<Item = &'c Clause<'r>>) -> Self {
        let mut counts = HashMap::default();
        for term in clauses.flatten() {
            if let Term::Value { key, .. } | Term::Affix { key, .. } = term {
                *counts.entry(*key).or_default() += 1;
            }
        }
        Self(counts)
    }

    /// Lower is better: values and texts by how many share them, ranges after all of those, then whether a field is there at all.
    fn rank(&self, clause: &Clause<'_>) -> (u8, u64) {
        let of_term = |term: &Term<'_>| match term {
            Term::Value { key, .. } | Term::Affix { key, .. } => (0, self.0.get(key).copied().map_or(0, u64::from)),
            Term::Range { .. } => (1, 1),
            Term::Present { .. } => (2, 1),
        };
        clause.iter().map(of_term).fold((0, 0), |(worst, sum), (kind, count)| (worst.max(kind), sum + count))
    }
}

type ByText<'r> = BTreeMap<&'r str, (Key, Vec<Member>)>;

/// What goes on from a node, by kind and field.
#[derive(Default)]
struct Ways<'r> {
    values: BTreeMap<u32, BTreeMap<Key, Vec<Member>>>,
    affixes: BTreeMap<(u32, End), ByText<'r>>,
    present: BTreeMap<u32, Vec<Member>>,
    ranges: BTreeMap<u32, Vec<Range>>,
}

impl<'r> Builder<'r> {
    fn affixes(&mut self) {
        let mut texts: BTreeMap<(u32, End), Vec<(&'r str, Key)>> = BTreeMap::new();
        for term in self.rules.iter().flatten().flatten() {
            if let Term::Affix { slot, end, text, key } = term {
                texts.entry((*slot, *end)).or_default().push((text, *key));
            }
        }
        for ((slot, end), texts) in texts {
            let position = u32::try_from(self.index.affixes.len()).expect("there are less lists than fields");
            self.affixes.insert((slot, end), position);
            self.index.affixes.push(Affixes::new(end, texts));
        }
    }

    fn target(&mut self, members: Vec<Member>) -> Target {
        if let [one] = members[..] { Target(RULE | one.rule) } else { Target(self.node(members)) }
    }

    fn node(&mut self, members: Vec<Member>) -> u32 {
        let number = u32::try_from(self.index.nodes.len()).expect("there are less nodes than clauses");
        self.index.nodes.push(Node::default());
        let (mut here, ways) = self.ways(members);
        let branches = self.branches(number, ways, &mut here);
        let first = u32::try_from(self.index.rules.len()).expect("there are less rules here than terms");
        let count = u32::try_from(here.len()).expect("there are less rules here than rules");
        self.index.rules.extend(here);
        self.index.nodes[number as usize] = Node { first, count, branches };
        number
    }

    /// The rules that stay, and where the others go.
    fn ways(&self, members: Vec<Member>) -> (Vec<u32>, Ways<'r>) {
        let mut ways = Ways::default();
        if members.len() <= FEW {
            return (members.iter().map(|member| member.rule).collect(), ways);
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
                here.push(member.rule);
                continue;
            };
            let next = Member { left: member.left & !(1 << bit), spread: member.spread || clause.len() > 1, ..member };
            for term in clause {
                match *term {
                    Term::Value { slot, key } => ways.values.entry(slot).or_default().entry(key).or_default().push(next),
                    Term::Affix { slot, end, text, key } => {
                        ways.affixes.entry((slot, end)).or_default().entry(text).or_insert((key, Vec::new())).1.push(next);
                    }
                    Term::Present { slot } => ways.present.entry(slot).or_default().push(next),
                    Term::Range { slot, low, high } => ways.ranges.entry(slot).or_default().push(Range::new(low, high, member.rule)),
                }
            }
        }
        (here, ways)
    }

    fn branches(&mut self, number: u32, ways: Ways<'r>, here: &mut Vec<u32>) -> Box<[Branch]> {
        let mut branches = Vec::new();
        for (slot, by_key) in ways.values {
            for (key, members) in by_key {
                self.lead(number, key, members, here);
            }
            branches.push(Branch::Value { slot });
        }
        for ((slot, end), by_text) in ways.affixes {
            let all = by_text.into_values().filter_map(|(key, members)| self.lead(number, key, members, here)).collect();
            branches.push(Branch::Affix { slot, affixes: self.affixes[&(slot, end)], all });
        }
        for (slot, members) in ways.present {
            let target = self.target(members);
            branches.push(Branch::Present { slot, target });
        }
        branches.extend(ways.ranges.into_iter().map(|(slot, ranges)| Branch::Range { slot, ranges: Ranges::new(ranges) }));
        branches.into()
    }

    /// Leads from a node to rules. Those whose place is taken, as two hashes are the same, stay at the node.
    fn lead(&mut self, number: u32, key: Key, members: Vec<Member>, here: &mut Vec<u32>) -> Option<Target> {
        let step = step(number, key);
        if self.index.steps.contains_key(&step) {
            here.extend(members.iter().map(|member| member.rule));
            return None;
        }
        // Taken before what is below is laid out.
        self.index.steps.insert(step, Target(0));
        let target = self.target(members);
        self.index.steps.insert(step, target);
        Some(target)
    }
}
