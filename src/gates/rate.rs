//! `rate`: so many start within a span, wherever the span begins. The times of the last starts are stored with each start.

use std::collections::VecDeque;

use serde_json::{Value, json};

use super::{Free, Gate};
use crate::model::ids::ExecutionId;
use crate::model::reason::Reason;

pub(super) struct Rate {
    pub limit: usize,
    pub per_ms: i64,
    /// The oldest first, in milliseconds.
    pub starts: VecDeque<i64>,
}

impl Rate {
    fn forget(&mut self, now: i64) {
        while self.starts.front().is_some_and(|first| first.saturating_add(self.per_ms) <= now) {
            self.starts.pop_front();
        }
    }
}

impl Gate for Rate {
    fn free(&mut self, now: i64) -> Free {
        self.forget(now);
        Free { places: self.limit.saturating_sub(self.starts.len()), next: self.starts.front().map(|first| first + self.per_ms) }
    }

    fn why(&mut self, now: i64) -> (Reason, String) {
        self.forget(now);
        let span = crate::model::duration::format(std::time::Duration::from_millis(self.per_ms.unsigned_abs()));
        (Reason::RateReached, format!("{} of {} have started within {span}", self.starts.len(), self.limit))
    }

    fn started(&mut self, _: ExecutionId, now: i64) -> bool {
        // A clock that has gone back does not make starts later than they were.
        let last = self.starts.back().copied().unwrap_or(now);
        self.starts.push_back(now.max(last));
        true
    }

    fn ended(&mut self, _: ExecutionId, _: bool, _: i64) -> bool {
        false
    }

    fn is_empty(&mut self, now: i64) -> bool {
        self.forget(now);
        self.starts.is_empty()
    }

    fn over(&self) -> Option<i64> {
        self.starts.back().map(|last| last + self.per_ms)
    }

    /// The first time, and how much later each further one is: short for many.
    fn stored(&self) -> Option<Value> {
        let mut before = 0;
        let steps: Vec<i64> = self.starts.iter().map(|at| at - std::mem::replace(&mut before, *at)).collect();
        Some(json!({"starts": steps}))
    }

    fn restore(&mut self, stored: &Value) {
        let steps = stored["starts"].as_array().into_iter().flatten().filter_map(Value::as_i64);
        self.starts = steps.scan(0, |at, step| Some(std::mem::replace(at, *at + step) + step)).collect();
    }
}
