//! The queues of the conductor: one for each runner and action, so that one slow action or pack leaves room for others.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};

use crate::gates::Turn;
use crate::model::ids::ExecutionId;

/// What is carried out by one runner for one action; in order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LaneKey {
    pub runner: &'static str,
    pub pack: String,
    pub action: String,
    /// Whether a crash does no harm to what was started and not begun: it is simply tried again. As it was when it was asked for, so
    /// that a change of the action does not change what waits.
    pub idempotent: bool,
    /// Whether a rule asked for it, so that it can be held.
    pub automatic: bool,
}

#[derive(Default)]
pub(super) struct Lane {
    /// Those that wait for a place, in the order of their turns.
    pub waiting: BTreeSet<Turn>,
    /// Those that run, the oldest first.
    pub running: BTreeSet<(DateTime<Utc>, ExecutionId)>,
    /// Those that run, and have given their places back while they wait for others.
    pub lent: BTreeSet<(DateTime<Utc>, ExecutionId)>,
    /// How long its attempts take lately, in milliseconds.
    pub pace_ms: Option<f64>,
}

/// Idempotent attempts of this length or less are started ahead, so that the next ones are there when a thread becomes free: a start
/// must be durable first, and a commit takes longer than a short script.
const AHEAD_MS: f64 = 20.0;

/// How many times the places of a runner may be started ahead at most.
const AHEAD_AT_MOST: f64 = 8.0;

impl Lane {
    /// How many attempts one place of the runner is worth.
    pub(super) fn ahead(&self, key: &LaneKey, now: DateTime<Utc>) -> f64 {
        let Some(pace) = self.pace_ms.filter(|_| key.idempotent) else { return 1.0 };
        // One that hangs says more than those before it.
        let oldest = self.running.first().map_or(0.0, |(since, _)| milliseconds(now - *since));
        (AHEAD_MS / pace.max(oldest).max(0.001)).clamp(1.0, AHEAD_AT_MOST)
    }

    /// The places that are taken, if so many attempts run.
    pub(super) fn places(&self, key: &LaneKey, running: usize, now: DateTime<Utc>) -> f64 {
        #[allow(clippy::cast_precision_loss, reason = "a small number")]
        let running = running as f64;
        running / self.ahead(key, now)
    }

    pub(super) fn ended(&mut self, started_at: Option<DateTime<Utc>>, id: ExecutionId, now: DateTime<Utc>) {
        let Some(started_at) = started_at else { return };
        if self.running.remove(&(started_at, id)) | self.lent.remove(&(started_at, id)) {
            let took = milliseconds(now - started_at);
            self.pace_ms = Some(self.pace_ms.map_or(took, |pace| pace * 0.9 + took * 0.1));
        }
    }
}

fn milliseconds(span: chrono::Duration) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "microseconds of an attempt fit a double")]
    let microseconds = span.num_microseconds().unwrap_or(i64::MAX) as f64;
    microseconds / 1_000.0
}

/// Shares of places are added up as floating-point numbers.
pub(super) const ROUNDING: f64 = 1e-6;

/// Of the places that others have not taken, a pack gets three quarters; at least one is kept for the next pack. So however many packs take
/// all they can, the next one finds a place, as long as there is one for each.
pub(super) fn places_of_one_pack(left: f64) -> f64 {
    if left > 1.0 { left - (left / 4.0).floor().max(1.0) } else { left }
}

#[cfg(test)]
mod tests {
    use super::places_of_one_pack;

    #[test]
    fn packs_that_take_all_they_can_leave_something_to_the_next() {
        let (mut left, mut shares) = (32.0, Vec::new());
        while left > 0.0 {
            let share = places_of_one_pack(left);
            shares.push(share);
            left -= share;
        }
        assert_eq!(format!("{shares:?}"), "[24.0, 6.0, 1.0, 1.0]");
        assert_eq!(format!("{:?}", [1.0, 2.0, 4.0].map(places_of_one_pack)), "[1.0, 1.0, 3.0]");
    }
}
