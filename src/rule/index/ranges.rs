//! Rules by ranges of numbers: an interval tree without pointers.

use super::Target;

/// Ranges, sorted by their low ends. Each part of the list is a tree: its root is in the middle, and knows how high the part reaches.
#[derive(Debug)]
pub(super) struct Ranges(Box<[Range]>);

/// Both ends belong to it. Rounding a whole number to a double keeps the order, so closed ends miss nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Range {
    pub low: f64,
    pub high: f64,
    /// The highest end in the part of which this is the root.
    reach: f64,
    target: Target,
}

impl Range {
    pub fn new(low: f64, high: f64, target: Target) -> Self {
        Self { low, high, reach: high, target }
    }
}

impl Ranges {
    pub fn new(mut ranges: Vec<Range>) -> Self {
        ranges.sort_by(|a, b| a.low.total_cmp(&b.low).then(a.high.total_cmp(&b.high)));
        reach(&mut ranges);
        Self(ranges.into())
    }

    /// Gives the rules in whose range the number lies.
    pub fn around(&self, number: f64, give: &mut impl FnMut(Target)) {
        around(&self.0, number, give);
    }

    /// Every rule.
    pub fn all(&self) -> impl Iterator<Item = Target> + '_ {
        self.0.iter().map(|range| range.target)
    }
}

fn reach(part: &mut [Range]) -> f64 {
    let middle = part.len() / 2;
    let (left, rest) = part.split_at_mut(middle);
    let Some((root, right)) = rest.split_first_mut() else { return f64::NEG_INFINITY };
    root.reach = root.high.max(reach(left)).max(reach(right));
    root.reach
}

fn around(mut part: &[Range], number: f64, give: &mut impl FnMut(Target)) {
    while let Some(root) = part.get(part.len() / 2) {
        if root.reach < number {
            return;
        }
        let (left, rest) = part.split_at(part.len() / 2);
        if root.low > number {
            part = left;
            continue;
        }
        around(left, number, give);
        if root.high >= number {
            give(root.target);
        }
        part = &rest[1..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_finds_what_a_list_finds() {
        let ends = [f64::NEG_INFINITY, -3.0, -0.0, 0.0, 1.0, 1.5, 2.0, 9_007_199_254_740_992.0, f64::INFINITY];
        let mut ranges: Vec<(f64, f64)> = ends.iter().flat_map(|low| ends.map(|high| (*low, high))).collect();
        while !ranges.is_empty() {
            let numbered = ranges.iter().zip(0u32..);
            let tree = Ranges::new(numbered.clone().map(|((low, high), rule)| Range::new(*low, *high, Target(rule))).collect());
            for number in ends.iter().flat_map(|end| [*end, end + 0.25]) {
                let mut found = Vec::new();
                tree.around(number, &mut |target| found.push(target.0));
                found.sort_unstable();
                let expected: Vec<u32> =
                    numbered.clone().filter(|((low, high), _)| *low <= number && number <= *high).map(|(_, rule)| rule).collect();
                assert_eq!(found, expected, "{number} in {ranges:?}");
            }
            ranges.truncate(ranges.len() * 2 / 3);
        }
    }
}
