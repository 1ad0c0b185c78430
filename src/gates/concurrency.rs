//! `concurrency`: so many run at once. Nothing of it is stored: what runs is known, also after a restart.

use std::collections::HashSet;

use super::{Free, Gate};
use crate::model::ids::ExecutionId;
use crate::model::reason::Reason;

pub(super) struct Concurrency {
    pub threshold: usize,
    pub running: HashSet<ExecutionId>,
}

impl Gate for Concurrency {
    fn free(&mut self, _: i64) -> Free {
        Free { places: self.threshold.saturating_sub(self.running.len()), next: None }
    }

    fn why(&mut self, _: i64) -> (Reason, String) {
        (Reason::ConcurrencyReached, format!("{} of {} run", self.running.len(), self.threshold))
    }

    fn started(&mut self, id: ExecutionId, _: i64) -> bool {
        self.running.insert(id);
        false
    }

    fn runs(&mut self, id: ExecutionId) {
        self.running.insert(id);
    }

    fn ended(&mut self, id: ExecutionId, _: bool, _: i64) -> bool {
        self.running.remove(&id);
        false
    }

    fn is_empty(&mut self, _: i64) -> bool {
        self.running.is_empty()
    }
}
