//! Removes what is older than the site keeps, a little at a time.

use std::sync::Arc;
use std::time::Duration;

use super::Engine;
use crate::clock;
use crate::config::Retention;
use crate::store::Cut;
use crate::tasks::Stop;

/// How often to look.
const EVERY: Duration = Duration::from_secs(1);

/// Records removed in one commit at most, so that nothing else waits long.
const TOGETHER: usize = 256;

/// Senders' keys are forgotten after the longest memory that a webhook may ask for.
const SIGHTINGS_KEPT: chrono::Duration = chrono::Duration::days(31);

/// Runs until the stop signal.
pub async fn run(engine: Arc<Engine>, retention: Retention, stop: Stop) {
    let span = |kept: Duration| chrono::Duration::from_std(kept).unwrap_or(chrono::Duration::days(36_500));
    loop {
        let now = engine.clock.now();
        let cut =
            Cut { events: now - span(retention.events), executions: now - span(retention.executions), sightings: now - SIGHTINGS_KEPT };
        loop {
            match engine.store.expire(cut, TOGETHER).await {
                Ok(removed) => {
                    engine.metrics.expired.inc_by(removed as u64);
                    if removed < TOGETHER || stop.is_stopped() {
                        break;
                    }
                }
                Err(error) => {
                    tracing::warn!("old records cannot be removed, trying again: {error}");
                    break;
                }
            }
        }
        tokio::select! { () = stop.stopped() => return, () = clock::sleep(&*engine.clock, EVERY) => {} }
    }
}
