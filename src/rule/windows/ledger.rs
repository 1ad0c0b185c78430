//! What is remembered of one key, small.

use std::sync::Arc;

use smallvec::SmallVec;

use super::{AHEAD_MS, Answer};
use crate::model::ids::EventId;
use crate::model::window::WindowState;

/// Of a window that counts: when the newest event happened, and how much earlier those that count did, in milliseconds.
#[derive(Debug, Default)]
pub(super) struct Count {
    newest: i64,
    /// Milliseconds before the newest, the oldest first.
    before: SmallVec<[u32; 3]>,
}

impl Count {
    pub(super) fn of(times: &[i64], newest: i64) -> Self {
        let before = times.iter().map(|time| u32::try_from(newest - time).unwrap_or(u32::MAX)).collect();
        Self { newest, before }
    }

    pub(super) fn state(&self) -> WindowState {
        WindowState::Count { times: self.before.iter().map(|before| self.newest - i64::from(*before)).collect(), newest: self.newest }
    }

    pub(super) fn is_over(&self, now: i64, span: i64) -> bool {
        self.newest.saturating_add(span) < now
    }

    /// Whether an event lies too far behind the newest one.
    pub(super) fn is_late(&self, at: i64, now: i64, late: i64) -> bool {
        self.newest != 0 && self.newest <= now + AHEAD_MS && at < self.newest.saturating_sub(late)
    }

    /// Answers whether anything was counted.
    pub(super) fn clear(&mut self) -> bool {
        let counted = !self.before.is_empty();
        self.before.clear();
        counted
    }

    /// Fires on the event that makes the number full, if the newest lies less than `within` after the oldest; then it begins anew.
    pub(super) fn add(&mut self, at: i64, now: i64, count: u32, within: i64, late: i64) -> Answer {
        if self.newest > now + AHEAD_MS {
            *self = Self::default(); // the clock was ahead for a while
        }
        if self.newest != 0 && at < self.newest.saturating_sub(late) {
            return Answer::Late { behind: self.newest - at };
        }
        let later = if self.newest == 0 { 0 } else { (at - self.newest).max(0) };
        self.newest = self.newest.max(at);
        let limit = u32::try_from(within).unwrap_or(u32::MAX);
        let shift = u32::try_from(later).unwrap_or(u32::MAX);
        self.before.retain(|before| {
            *before = before.saturating_add(shift);
            *before < limit
        });
        let own = u32::try_from(self.newest - at).unwrap_or(u32::MAX);
        if own < limit {
            let place = self.before.partition_point(|before| *before >= own);
            self.before.insert(place, own);
        }
        if self.before.len() >= count as usize {
            self.before.clear();
            return Answer::Fires;
        }
        Answer::Open { have: self.before.len(), of: count }
    }
}

/// Of a window that waits for silence.
#[derive(Debug, Default)]
pub(super) struct Absent {
    pub(super) last: i64,
    pub(super) event: Option<EventId>,
    pub(super) armed: bool,
    /// Where the last event came from.
    pub(super) source: Option<Arc<str>>,
}

impl Absent {
    pub(super) fn is_over(&self, now: i64, late: i64) -> bool {
        !self.armed && self.last.saturating_add(late) < now
    }
}

/// Of a throttle.
#[derive(Debug)]
pub(super) struct Throttled {
    pub(super) fired_at: i64,
}

impl Default for Throttled {
    fn default() -> Self {
        Self { fired_at: i64::MIN }
    }
}

impl Throttled {
    pub(super) fn is_over(&self, now: i64, once_per: i64) -> bool {
        self.fired_at.saturating_add(once_per) <= now.saturating_sub(AHEAD_MS)
    }
}
