//! How every sensor does: the board that the API shows, and the times in which a sensor was down.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use serde::Serialize;
use tokio::sync::Notify;

use crate::model::sensor::{SensorDefinition, SensorKind};
use crate::telemetry::Metrics;

/// So many failures in a row, and a sensor counts as down. One that has stopped is down at once.
pub const DOWN_AFTER: u64 = 3;

/// How many outages that have ended are kept, and for how long.
const OUTAGES: (usize, chrono::Duration) = (1_000, chrono::Duration::hours(48));

/// The longest error that is kept, in characters.
const ERROR_CHARACTERS: usize = 500;

/// How a sensor does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It has been started and has said nothing yet.
    Starting,
    /// The last it said was that all is well.
    Healthy,
    /// The last it said was that something went wrong.
    Failing,
    /// It has ended and will be started again.
    Stopped,
    /// It is not enabled.
    Disabled,
}

/// What is known about a sensor.
#[derive(Clone, Debug, Serialize)]
pub struct SensorStatus {
    /// How it does.
    pub state: Standing,
    /// Since when.
    pub since: DateTime<Utc>,
    /// When its last event was taken.
    pub last_event_at: Option<DateTime<Utc>>,
    /// Events that were taken since the start of the process.
    pub events: u64,
    /// How often it has looked since then.
    pub polls: u64,
    /// How often in a row that went wrong.
    pub failures: u64,
    /// What went wrong last; kept after it is well again.
    pub last_error: Option<String>,
    /// How often it had to be started again.
    pub restarts: u64,
    /// Due times that were missed and left out.
    pub skipped: u64,
    /// Since when it is down, if it is: the first failure in the row.
    pub down_since: Option<DateTime<Utc>>,
    #[serde(skip)]
    triggers: Vec<String>,
    #[serde(skip)]
    failing_since: Option<DateTime<Utc>>,
    #[serde(skip)]
    told: bool,
}

/// A time in which a sensor of a trigger was down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outage {
    /// The sensor.
    pub sensor: String,
    /// The trigger whose events could not come.
    pub trigger: String,
    /// The first failure.
    pub from: DateTime<Utc>,
    /// When the sensor was well again.
    pub to: DateTime<Utc>,
}

/// An outage that has not been told yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Down {
    /// The first failure.
    pub since: DateTime<Utc>,
    /// What went wrong last.
    pub error: String,
    /// How often in a row.
    pub failures: u64,
}

/// How every sensor does.
pub struct Board {
    metrics: Arc<Metrics>,
    inner: Mutex<Inner>,
    down: Notify,
}

#[derive(Default)]
struct Inner {
    sensors: BTreeMap<String, SensorStatus>,
    ended: VecDeque<Outage>,
}

impl Board {
    /// Nothing on it.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, inner: Mutex::default(), down: Notify::new() }
    }

    /// How a sensor does.
    #[must_use]
    pub fn get(&self, sensor: &str) -> Option<SensorStatus> {
        self.lock().sensors.get(sensor).cloned()
    }

    /// Since when a sensor of this trigger is down, if one is.
    #[must_use]
    pub fn down_since(&self, trigger: &str) -> Option<DateTime<Utc>> {
        let inner = self.lock();
        let down = inner.sensors.values().filter(|status| status.triggers.iter().any(|own| own == trigger));
        down.filter_map(|status| status.down_since).min()
    }

    /// Since when a sensor fails, whether it counts as down yet or not.
    #[must_use]
    pub fn failing_since(&self, sensor: &str) -> Option<DateTime<Utc>> {
        let inner = self.lock();
        let status = inner.sensors.get(sensor)?;
        status.failing_since.or(status.down_since)
    }

    /// The outages that have ended: the last 1,000 of two days, oldest first.
    #[must_use]
    pub fn outages(&self) -> Vec<Outage> {
        self.lock().ended.iter().cloned().collect()
    }

    /// Puts a sensor on the board, or notes that its definition has changed. What was counted stays.
    pub(super) fn place(&self, definition: &SensorDefinition, also: &[&str], now: DateTime<Utc>) {
        let state = match (&definition.kind, definition.enabled) {
            (_, false) => Standing::Disabled,
            (SensorKind::Webhook { .. }, true) => Standing::Healthy, // it is called, and answers
            (SensorKind::Polling(_), true) => Standing::Starting,
        };
        let triggers = std::iter::once(definition.trigger.as_str()).chain(also.iter().copied()).map(String::from).collect();
        let mut inner = self.lock();
        let status = inner.sensors.entry(definition.reference.clone()).or_insert_with(|| SensorStatus::new(now));
        status.triggers = triggers;
        status.enter(state, now);
        if state == Standing::Disabled {
            status.recover();
        }
        self.show(&definition.reference, status);
    }

    /// Takes a sensor off the board. An outage ends with it.
    pub(super) fn remove(&self, sensor: &str, now: DateTime<Utc>) {
        let mut inner = self.lock();
        if let Some(mut status) = inner.sensors.remove(sensor) {
            inner.end_outage(sensor, &mut status, now);
        }
        let _ = self.metrics.sensor_up.remove_label_values(&[sensor]); // it may never have had a value
    }

    /// Notes that a sensor has been started.
    pub(super) fn started(&self, sensor: &str, again: bool, now: DateTime<Utc>) {
        self.change(sensor, |status| {
            status.restarts += u64::from(again);
            status.enter(Standing::Starting, now);
        });
    }

    /// Notes that a sensor has looked and all is well.
    pub(super) fn healthy(&self, sensor: &str, now: DateTime<Utc>) {
        let mut inner = self.lock();
        let Some(mut status) = inner.sensors.remove(sensor) else { return };
        status.polls += 1;
        if status.down_since.is_some() {
            tracing::info!(sensor, "the sensor is well again");
        }
        inner.end_outage(sensor, &mut status, now);
        status.enter(Standing::Healthy, now);
        self.show(sensor, &status);
        inner.sensors.insert(sensor.into(), status);
    }

    /// Notes that a sensor has looked and something went wrong.
    pub(super) fn failing(&self, sensor: &str, why: &str, now: DateTime<Utc>) {
        self.metrics.sensor_failures.with_label_values(&[sensor]).inc();
        self.change(sensor, |status| {
            status.polls += 1;
            if status.last_error.as_deref() != Some(why) || status.failures == 0 {
                tracing::warn!(sensor, "the sensor cannot do its work: {why}");
            }
            status.fail(Standing::Failing, why, now);
            if status.failures >= DOWN_AFTER {
                status.down_since = status.failing_since;
            }
        });
    }

    /// Notes that a sensor has ended although it should go on.
    pub(super) fn stopped(&self, sensor: &str, why: &str, now: DateTime<Utc>) {
        self.metrics.sensor_failures.with_label_values(&[sensor]).inc();
        self.change(sensor, |status| {
            status.fail(Standing::Stopped, why, now);
            status.down_since = status.failing_since;
        });
    }

    /// Counts events that were taken.
    pub(super) fn emitted(&self, sensor: &str, events: usize, now: DateTime<Utc>) {
        if events == 0 {
            return;
        }
        self.metrics.sensor_events.with_label_values(&[sensor]).inc_by(events as u64);
        self.change(sensor, |status| {
            status.events += events as u64;
            status.last_event_at = Some(now);
        });
    }

    /// Counts due times that were left out.
    pub(super) fn skipped(&self, sensor: &str, times: u64) {
        self.metrics.sensor_skipped.with_label_values(&[sensor]).inc_by(times);
        self.change(sensor, |status| status.skipped += times);
    }

    /// Waits until the sensor is down and that has not been told.
    pub(super) async fn goes_down(&self, sensor: &str) -> Down {
        loop {
            let changed = self.down.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(status) = self.get(sensor)
                && let Some(since) = status.down_since.filter(|_| !status.told)
            {
                return Down { since, error: status.last_error.unwrap_or_default(), failures: status.failures };
            }
            changed.await;
        }
    }

    /// Notes that the outage which began then has been told.
    pub(super) fn told(&self, sensor: &str, since: DateTime<Utc>) {
        self.change(sensor, |status| status.told = status.down_since == Some(since));
    }

    fn change(&self, sensor: &str, change: impl FnOnce(&mut SensorStatus)) {
        let mut inner = self.lock();
        let Some(status) = inner.sensors.get_mut(sensor) else { return };
        let was_down = status.down_since.is_some();
        change(status);
        self.show(sensor, status);
        if status.down_since.is_some() && !was_down {
            self.down.notify_waiters();
        }
    }

    fn show(&self, sensor: &str, status: &SensorStatus) {
        if status.state == Standing::Disabled {
            let _ = self.metrics.sensor_up.remove_label_values(&[sensor]); // it may never have had a value
            return;
        }
        let up = i64::from(matches!(status.state, Standing::Healthy | Standing::Starting) && status.down_since.is_none());
        self.metrics.sensor_up.with_label_values(&[sensor]).set(up);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn end_outage(&mut self, sensor: &str, status: &mut SensorStatus, now: DateTime<Utc>) {
        if let Some(from) = status.down_since {
            let outage = |trigger: &String| Outage { sensor: sensor.into(), trigger: trigger.clone(), from, to: now };
            self.ended.extend(status.triggers.iter().map(outage));
        }
        while self.ended.len() > OUTAGES.0 || self.ended.front().is_some_and(|outage| now - outage.to > OUTAGES.1) {
            self.ended.pop_front();
        }
        status.recover();
    }
}

impl SensorStatus {
    fn new(now: DateTime<Utc>) -> Self {
        Self {
            state: Standing::Starting,
            since: now,
            last_event_at: None,
            events: 0,
            polls: 0,
            failures: 0,
            last_error: None,
            restarts: 0,
            skipped: 0,
            down_since: None,
            triggers: Vec::new(),
            failing_since: None,
            told: false,
        }
    }

    fn enter(&mut self, state: Standing, now: DateTime<Utc>) {
        if self.state != state {
            (self.state, self.since) = (state, now);
        }
    }

    fn fail(&mut self, state: Standing, why: &str, now: DateTime<Utc>) {
        self.enter(state, now);
        self.failures += 1;
        self.failing_since.get_or_insert(now);
        self.last_error = Some(why.chars().take(ERROR_CHARACTERS).collect());
    }

    fn recover(&mut self) {
        (self.failures, self.failing_since, self.down_since, self.told) = (0, None, None, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::pack::Pack;
    use crate::model::place::Place;
    use crate::model::sensor::Polling;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_700_000_000 + seconds, 0).unwrap()
    }

    fn board() -> Board {
        let board = Board::new(Arc::new(Metrics::new()));
        let polling = Polling {
            kind: "timer".into(),
            settings: serde_json::Map::new(),
            script: None,
            pack: Arc::new(Pack::named("t")),
            time_zone: chrono_tz::Tz::UTC,
        };
        let definition = SensorDefinition {
            reference: "t.s".into(),
            description: String::new(),
            enabled: true,
            trigger: "t.e".into(),
            kind: SensorKind::Polling(polling),
            place: Place::default(),
        };
        board.place(&definition, &["t.absent"], at(0));
        board
    }

    #[test]
    fn three_failures_in_a_row_are_an_outage_and_one_success_ends_it() {
        let board = board();
        for seconds in [1, 2] {
            board.failing("t.s", "no answer", at(seconds));
        }
        board.healthy("t.s", at(3));
        for seconds in [4, 5] {
            board.failing("t.s", "no answer", at(seconds));
            assert_eq!(board.down_since("t.e"), None, "two are not three");
        }
        board.failing("t.s", "no answer", at(6));
        assert_eq!((board.down_since("t.e"), board.down_since("t.absent"), board.down_since("t.x")), (Some(at(4)), Some(at(4)), None));
        board.healthy("t.s", at(9));
        assert_eq!(board.down_since("t.e"), None);
        let outage = |trigger: &str| Outage { sensor: "t.s".into(), trigger: trigger.into(), from: at(4), to: at(9) };
        assert_eq!(board.outages(), [outage("t.e"), outage("t.absent")]);
        let status = board.get("t.s").unwrap();
        assert_eq!((status.state, status.since, status.polls, status.failures), (Standing::Healthy, at(9), 7, 0));
        assert_eq!(status.last_error.as_deref(), Some("no answer"));
    }

    #[test]
    fn one_that_stops_is_down_until_it_is_well_again() {
        let board = board();
        board.stopped("t.s", "it panicked", at(1));
        board.started("t.s", true, at(2));
        assert_eq!(board.down_since("t.e"), Some(at(1)), "to be started again is not to be well");
        board.healthy("t.s", at(3));
        assert_eq!((board.down_since("t.e"), board.get("t.s").unwrap().restarts), (None, 1));
        board.stopped("t.s", "it panicked", at(10));
        board.remove("t.s", at(12));
        assert_eq!(board.outages().last().unwrap().to, at(12));
        assert!(board.get("t.s").is_none());
    }

    #[test]
    fn old_outages_are_forgotten() {
        let board = board();
        for day in 0..5 {
            board.stopped("t.s", "x", at(day * 86_400));
            board.healthy("t.s", at(day * 86_400 + 1));
        }
        assert_eq!(board.outages().len(), 6, "of two days, for two triggers");
        for n in 0..2_000 {
            board.stopped("t.s", "x", at(400_000 + n));
            board.healthy("t.s", at(400_000 + n));
        }
        assert_eq!(board.outages().len(), 1_000);
    }
}
