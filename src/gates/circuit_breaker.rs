//! `circuit_breaker`: after so many failures within a span nothing starts for a while, then one is tried; if it succeeds all may start
//! again. The failures and the end of the while are stored with the attempt that failed.

use std::collections::{HashSet, VecDeque};

use serde_json::{Value, json};

use super::{Free, Gate};
use crate::model::ids::ExecutionId;
use crate::model::reason::Reason;

pub(super) struct CircuitBreaker {
    pub failures: usize,
    pub within_ms: i64,
    pub open_ms: i64,
    /// When the last attempts failed, the oldest first.
    pub failed: VecDeque<i64>,
    /// Until when nothing starts; it stays until one that was tried has succeeded.
    pub open_until: Option<i64>,
    /// Those that run since the while is over.
    pub tried: HashSet<ExecutionId>,
}

impl CircuitBreaker {
    fn forget(&mut self, now: i64) {
        while self.failed.front().is_some_and(|first| first.saturating_add(self.within_ms) <= now) {
            self.failed.pop_front();
        }
    }
}

impl Gate for CircuitBreaker {
    fn free(&mut self, now: i64) -> Free {
        match self.open_until {
            None => Free { places: usize::MAX, next: None },
            Some(until) if now < until => Free { places: 0, next: Some(until) },
            Some(_) => Free { places: 1 - self.tried.len().min(1), next: None },
        }
    }

    fn why(&mut self, now: i64) -> (Reason, String) {
        let detail = match self.open_until {
            Some(until) if now < until => format!("{} have failed; nothing starts for now", self.failures),
            _ => "one is tried first, after many have failed".to_string(),
        };
        (Reason::CircuitOpen, detail)
    }

    fn started(&mut self, id: ExecutionId, _: i64) -> bool {
        if self.open_until.is_some() {
            self.tried.insert(id);
        }
        false
    }

    fn ended(&mut self, id: ExecutionId, failed: bool, now: i64) -> bool {
        let was_tried = self.tried.remove(&id);
        if !failed {
            // One that ran before it opened says nothing.
            if was_tried {
                self.open_until = None;
                self.failed.clear();
            }
            return was_tried;
        }
        self.forget(now);
        self.failed.push_back(now);
        while self.failed.len() > self.failures {
            self.failed.pop_front();
        }
        if was_tried || (self.open_until.is_none() && self.failed.len() >= self.failures) {
            self.open_until = Some(now + self.open_ms);
        }
        true
    }

    fn is_empty(&mut self, now: i64) -> bool {
        self.forget(now);
        self.failed.is_empty() && self.open_until.is_none()
    }

    fn over(&self) -> Option<i64> {
        self.failed.back().map(|last| last + self.within_ms).filter(|_| self.open_until.is_none())
    }

    fn stored(&self) -> Option<Value> {
        Some(json!({"failed": self.failed, "open_until": self.open_until}))
    }

    fn restore(&mut self, stored: &Value) {
        self.failed = stored["failed"].as_array().into_iter().flatten().filter_map(Value::as_i64).collect();
        self.open_until = stored["open_until"].as_i64();
    }
}
