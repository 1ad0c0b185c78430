//! When nothing could have come: we were not there, took nothing, or the sensor that had told was down. Silence then is no silence: the
//! deadlines of windows move by that time.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Outages that are remembered of one source, at most; the oldest are forgotten.
const MOST: usize = 64;

/// Outages, by where events come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outages {
    /// Of everything.
    #[serde(default)]
    all: Times,
    /// Of one source, such as a sensor.
    #[serde(default)]
    sources: BTreeMap<String, Times>,
}

/// From when to when, milliseconds since 1970, in order and apart from each other; and since when it lasts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Times {
    #[serde(default)]
    ended: Vec<(i64, i64)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    since: Option<i64>,
}

impl Times {
    fn begin(&mut self, at: i64) -> bool {
        let begins = self.since.is_none();
        self.since.get_or_insert(at);
        begins
    }

    fn end(&mut self, at: i64) -> bool {
        let Some(since) = self.since.take() else { return false };
        if at > since {
            self.ended.push((since, at));
            if self.ended.len() > MOST {
                self.ended.remove(0);
            }
        }
        true
    }
}

impl Outages {
    /// Nothing can come from a source, or from any, from now on. Answers whether that is new.
    pub fn begin(&mut self, source: Option<&str>, at: i64) -> bool {
        self.times(source).begin(at)
    }

    /// Something can come again. Answers whether that is new.
    pub fn end(&mut self, source: Option<&str>, at: i64) -> bool {
        self.times(source).end(at)
    }

    /// Whether nothing can come from a source now.
    #[must_use]
    pub fn is_out(&self, source: Option<&str>) -> bool {
        self.all.since.is_some() || source.and_then(|source| self.sources.get(source)).is_some_and(|times| times.since.is_some())
    }

    /// Moves a deadline that is waited for since `from` by the outages in between.
    #[must_use]
    pub fn extend(&self, source: Option<&str>, from: i64, deadline: i64) -> i64 {
        let mut spans: Vec<(i64, i64)> = self.all.ended.clone();
        if let Some(own) = source.and_then(|source| self.sources.get(source)) {
            spans.extend_from_slice(&own.ended);
        }
        spans.sort_unstable();
        let (mut moved, mut upto) = (deadline, from);
        for (begin, end) in spans {
            // What two outages share counts once.
            let begin = begin.max(upto);
            if begin < moved && end > begin {
                moved = moved.saturating_add(end - begin);
                upto = end;
            }
        }
        moved
    }

    fn times(&mut self, source: Option<&str>) -> &mut Times {
        match source {
            None => &mut self.all,
            Some(source) => self.sources.entry(source.to_string()).or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_moves_by_the_outages_in_between() {
        let mut outages = Outages::default();
        assert_eq!(outages.extend(Some("t"), 0, 600), 600);
        outages.begin(None, 100);
        assert!(outages.is_out(Some("t")));
        outages.end(None, 400);
        assert_eq!(outages.extend(Some("t"), 0, 600), 900);
        assert_eq!(outages.extend(Some("t"), 200, 800), 1_000, "what lies before the wait does not count");
        assert_eq!(outages.extend(Some("t"), 500, 1_100), 1_100);
        // Of one trigger, overlapping the other.
        outages.begin(Some("t"), 300);
        outages.end(Some("t"), 500);
        assert_eq!(outages.extend(Some("t"), 0, 600), 1_000);
        assert_eq!(outages.extend(Some("u"), 0, 600), 900);
        // One that begins in the time won by another.
        outages.begin(Some("u"), 850);
        assert!(outages.is_out(Some("u")) && !outages.is_out(Some("t")));
        outages.end(Some("u"), 950);
        assert_eq!(outages.extend(Some("u"), 0, 600), 1_000);
    }
}
