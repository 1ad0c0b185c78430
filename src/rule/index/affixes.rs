//! The beginnings, or the ends, that rules look for in the text of one field.

use std::cmp::Ordering;

use super::clauses::Key;

/// Which end of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum End {
    /// Its beginning.
    Front,
    /// Its end.
    Back,
}

/// Texts in the order of their bytes, read from the end that is looked for.
#[derive(Debug)]
pub(super) struct Affixes {
    end: End,
    sorted: Box<[Affix]>,
}

#[derive(Debug)]
struct Affix {
    text: Box<str>,
    key: Key,
    /// The longest other one that this one begins with.
    shorter: Option<u32>,
}

impl Affixes {
    pub fn new(end: End, mut texts: Vec<(&str, Key)>) -> Self {
        texts.sort_by(|(a, _), (b, _)| order(end, a, b));
        texts.dedup_by(|(a, _), (b, _)| a == b);
        let mut sorted: Vec<Affix> = Vec::with_capacity(texts.len());
        for (text, key) in texts {
            // Whatever it begins with stands before it, and all between begins with that too.
            let mut shorter = sorted.len().checked_sub(1);
            while let Some(index) = shorter.filter(|index| !fits(end, text, &sorted[*index].text)) {
                shorter = sorted[index].shorter.map(|index| index as usize);
            }
            let shorter = shorter.map(|index| u32::try_from(index).expect("there are less texts than rules"));
            sorted.push(Affix { text: text.into(), key, shorter });
        }
        Self { end, sorted: sorted.into() }
    }

    /// The keys of those that the text has at that end.
    pub fn of(&self, text: &str) -> impl Iterator<Item = Key> + '_ {
        let behind = self.sorted.partition_point(|affix| order(self.end, &affix.text, text) != Ordering::Greater);
        let shorter = |affix: &&Affix| affix.shorter.map(|index| &self.sorted[index as usize]);
        let mut nearest = behind.checked_sub(1).map(|index| &self.sorted[index]);
        while let Some(affix) = nearest.filter(|affix| !fits(self.end, text, &affix.text)) {
            nearest = shorter(&affix);
        }
        std::iter::successors(nearest, shorter).map(|affix| affix.key)
    }
}

fn order(end: End, a: &str, b: &str) -> Ordering {
    match end {
        End::Front => a.cmp(b),
        End::Back => a.bytes().rev().cmp(b.bytes().rev()),
    }
}

fn fits(end: End, text: &str, affix: &str) -> bool {
    match end {
        End::Front => text.starts_with(affix),
        End::Back => text.ends_with(affix),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_beginning_and_end_is_found() {
        let texts = ["", "a", "ab", "abc", "b", "ba", "web-", "web-1", "web-12", "ä", "äb", "-1", "12", "2"];
        let keyed = || texts.iter().copied().zip(0u64..);
        for end in [End::Front, End::Back] {
            let affixes = Affixes::new(end, keyed().chain([("ab", 2)]).collect());
            for text in texts.iter().copied().chain(["abcd", "web-123", "web-2", "x", "äbc", "xä", "zzz"]) {
                let mut found: Vec<Key> = affixes.of(text).collect();
                found.sort_unstable();
                let expected: Vec<Key> = keyed().filter(|(affix, _)| fits(end, text, affix)).map(|(_, key)| key).collect();
                assert_eq!(found, expected, "{text} {end:?}");
            }
        }
    }
}
