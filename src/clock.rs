//! The only place that reads the time.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::Notify;

/// What tells the time and waits.
pub trait Clock: Send + Sync {
    /// The time now.
    fn now(&self) -> DateTime<Utc>;

    /// Waits until the time has come; at once if it has passed.
    fn sleep_until(&self, at: DateTime<Utc>) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

/// Waits for a span of the clock's time.
pub async fn sleep(clock: &dyn Clock, span: Duration) {
    let span = chrono::Duration::from_std(span).unwrap_or(chrono::Duration::MAX);
    let until = clock.now().checked_add_signed(span).unwrap_or(DateTime::<Utc>::MAX_UTC);
    clock.sleep_until(until).await;
}

/// A short wait of the network's own pace, such as between two heartbeats; nothing is decided by it, so it is never simulated.
pub async fn pause(span: Duration) {
    tokio::time::sleep(span).await;
}

/// The computer's clock.
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }

    fn sleep_until(&self, at: DateTime<Utc>) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            // In steps of a minute at most, so that a clock that is set takes effect.
            while let Ok(left) = (at - self.now()).to_std() {
                if left.is_zero() {
                    break;
                }
                tokio::time::sleep(left.min(Duration::from_secs(60))).await;
            }
        })
    }
}

/// A clock that stands still until it is moved; for simulations and tests.
#[derive(Clone)]
pub struct SimulatedClock {
    hands: Arc<Mutex<Hands>>,
    moved: Arc<Notify>,
}

struct Hands {
    now: DateTime<Utc>,
    /// Until when somebody waits, and how many.
    awaited: BTreeMap<DateTime<Utc>, usize>,
}

impl SimulatedClock {
    /// A clock that stands at `now`.
    #[must_use]
    pub fn at(now: DateTime<Utc>) -> Self {
        Self { hands: Arc::new(Mutex::new(Hands { now, awaited: BTreeMap::new() })), moved: Arc::new(Notify::new()) }
    }

    fn hands(&self) -> MutexGuard<'_, Hands> {
        self.hands.lock().expect("no panic happens while the lock is held")
    }

    /// The next time for which somebody waits.
    #[must_use]
    pub fn next_awaited(&self) -> Option<DateTime<Utc>> {
        self.hands().awaited.keys().next().copied()
    }

    /// Moves the clock on to a time and wakes whoever waits; a time that has passed changes nothing.
    pub fn advance_to(&self, at: DateTime<Utc>) {
        let mut hands = self.hands();
        hands.now = hands.now.max(at);
        drop(hands);
        self.moved.notify_waiters();
    }

    /// Moves the clock on and wakes whoever waits.
    ///
    /// # Panics
    /// When the time would leave the range of dates.
    pub fn advance(&self, span: Duration) {
        let span = chrono::Duration::from_std(span).expect("a simulated span fits a date");
        let at = self.now() + span;
        self.advance_to(at);
    }
}

impl Clock for SimulatedClock {
    fn now(&self) -> DateTime<Utc> {
        self.hands().now
    }

    fn sleep_until(&self, at: DateTime<Utc>) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            let _awaited = Awaited::note(self, at);
            loop {
                let moved = self.moved.notified();
                tokio::pin!(moved);
                moved.as_mut().enable();
                if self.now() >= at {
                    return;
                }
                moved.await;
            }
        })
    }
}

/// Somebody waits for a time, until this is dropped.
struct Awaited<'c> {
    clock: &'c SimulatedClock,
    at: DateTime<Utc>,
}

impl<'c> Awaited<'c> {
    fn note(clock: &'c SimulatedClock, at: DateTime<Utc>) -> Self {
        *clock.hands().awaited.entry(at).or_default() += 1;
        Self { clock, at }
    }
}

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        let mut hands = self.clock.hands();
        if let Some(count) = hands.awaited.get_mut(&self.at) {
            *count -= 1;
            if *count == 0 {
                hands.awaited.remove(&self.at);
            }
        }
    }
}
