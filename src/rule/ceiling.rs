//! How many executions a rule may start in a minute. Pure.

use std::collections::VecDeque;

/// The span that a ceiling is for, in milliseconds.
const SPAN_MS: i64 = 60_000;

/// When a rule's last executions start.
#[derive(Debug, Default)]
pub struct Ceiling {
    starts: VecDeque<i64>,
    /// Whether it has been told that executions wait.
    pub told: bool,
}

impl Ceiling {
    /// When one more may start: now, or when the span since the one so many before is over. Times are milliseconds since 1970.
    pub fn next(&mut self, limit: u32, now: i64) -> i64 {
        // A clock that was ahead for a while must not hold everything back.
        let limit = (limit as usize).max(1);
        while self.starts.len() > limit {
            self.starts.pop_front();
        }
        let start = if self.starts.len() < limit {
            now
        } else {
            let oldest = self.starts.pop_front().unwrap_or(now);
            now.max(oldest.saturating_add(SPAN_MS))
        };
        if start == now {
            self.told = false;
        }
        self.starts.push_back(start);
        start
    }

    /// Whether it says nothing any more.
    #[must_use]
    pub fn is_over(&self, now: i64) -> bool {
        self.starts.back().is_none_or(|last| last.saturating_add(SPAN_MS) < now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_minute_has_more_than_the_ceiling() {
        let mut ceiling = Ceiling::default();
        let starts: Vec<i64> = [0, 10, 20, 30, 40, 50].iter().map(|now| ceiling.next(2, *now)).collect();
        assert_eq!(starts, [0, 10, 60_000, 60_010, 120_000, 120_010]);
        assert_eq!(ceiling.next(2, 400_000), 400_000);
        assert!(!ceiling.is_over(460_000) && ceiling.is_over(460_001));
        for start in starts {
            assert!(ceiling.next(3, start + 1_000_000) >= start);
        }
    }
}
