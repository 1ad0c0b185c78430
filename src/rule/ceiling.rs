//! How many executions a rule may start in a minute. Pure.

use std::collections::VecDeque;

/// The span that a ceiling is for, in milliseconds.
const SPAN_MS: i64 = 60_000;

/// Executions that wait again within this span belong to what has been told already, in milliseconds.
const INCIDENT_MS: i64 = 600_000;

/// When a rule's last executions start.
#[derive(Debug, Default)]
pub struct Ceiling {
    starts: VecDeque<i64>,
    /// When the last one had to wait.
    held_at: Option<i64>,
    /// When the last one was asked for.
    asked_at: i64,
}

/// When an execution may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Now.
    Now,
    /// Then, milliseconds since 1970.
    At {
        /// When.
        time: i64,
        /// Whether it is the first for a while that has to wait, so that somebody is to be told.
        tell: bool,
    },
}

impl Ceiling {
    /// When one more may start: now, or when the span since the one so many before is over. Times are milliseconds since 1970.
    pub fn next(&mut self, limit: u32, now: i64) -> Start {
        if now.saturating_add(SPAN_MS) < self.asked_at {
            self.starts.clear(); // the clock was ahead for a while, which must not hold everything back
        }
        self.asked_at = now;
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
        self.starts.push_back(start);
        if start == now {
            return Start::Now;
        }
        let before = self.held_at.replace(now);
        Start::At { time: start, tell: before.is_none_or(|before| !(before..before + INCIDENT_MS).contains(&now)) }
    }

    /// Whether it says nothing any more.
    #[must_use]
    pub fn is_over(&self, now: i64) -> bool {
        let is_past = |at: i64, span: i64| at.saturating_add(span) < now;
        self.starts.back().is_none_or(|last| is_past(*last, SPAN_MS)) && self.held_at.is_none_or(|at| is_past(at, INCIDENT_MS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_minute_has_more_than_the_ceiling() {
        let mut ceiling = Ceiling::default();
        let starts: Vec<Start> = [0, 10, 20, 30, 40, 50].iter().map(|now| ceiling.next(2, *now)).collect();
        let at = |time, tell| Start::At { time, tell };
        let expected = [Start::Now, Start::Now, at(60_000, true), at(60_010, false), at(120_000, false), at(120_010, false)];
        assert_eq!(starts, expected);
        assert_eq!(ceiling.next(2, 400_000), Start::Now);
        assert!(!ceiling.is_over(600_000) && ceiling.is_over(600_051));
        assert_eq!([0, 1, 2].map(|ms| ceiling.next(2, 700_000 + ms)), [Start::Now, Start::Now, at(760_000, true)], "told anew");
        // A clock that was ahead for a while.
        let mut ahead = Ceiling::default();
        for now in [1_000_000_000, 1_000_000_001, 1_000_000_002, 0] {
            ahead.next(2, now);
        }
        assert_eq!([ahead.next(2, 1), ahead.next(2, 2)], [Start::Now, at(60_000, true)]);
    }
}
