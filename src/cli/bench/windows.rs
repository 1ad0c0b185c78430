//! How fast events are counted in a window of a million keys, in this process and on one core: from the text of a payload to what is to be
//! committed of the window; and how much memory a key takes.

#![allow(clippy::cast_precision_loss, reason = "counts and times of a benchmark fit a double")]

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::Arguments;
use super::banks;
use super::rules::{RUNS, held, rates};
use super::scenarios::{MIB, rounded};
use crate::model::event::Event;
use crate::model::ids::IdSource;
use crate::rule::book::{CompiledRule, RuleBook};
use crate::rule::judge::{World, judge};
use crate::rule::windows::{Needed, Origin, Windows};

/// Keys that the window remembers.
const KEYS: u64 = 1_000_000;

/// Different events; they come round again, for keys all over the window.
const EVENTS: u64 = 100_000;

/// Events whose changes are taken together, as the evaluator does.
const TOGETHER: usize = 256;

pub(super) fn windows(arguments: &Arguments) -> Result<Value, String> {
    let rule = CompiledRule::compile(banks::counting()).map_err(|faults| format!("the rule is faulty: {faults:?}"))?;
    let needed: Vec<Needed> = rule.needed().collect();
    let name = std::sync::Arc::clone(&needed[0].rule);
    let book = RuleBook::new([rule]);
    let ids = IdSource::seeded(1);
    let start = DateTime::from_timestamp(1_772_359_200, 0).unwrap_or_default();
    let before = held();
    let mut windows = Windows::default();
    windows.fit(&needed, start.timestamp_millis());
    for key in 0..KEYS {
        windows.hold(
            &name,
            &host(key),
            start.timestamp_millis(),
            start.timestamp_millis(),
            Origin { id: ids.event(start), source: "bench" },
        );
        if key % 4_096 == 0 {
            windows.take_changes();
        }
    }
    windows.take_changes();
    let bytes = held().saturating_sub(before);
    let mut events: Vec<Event> = (0..EVENTS).map(|number| banks::of_host(&ids, &host(number * (KEYS / EVENTS)), start)).collect();
    let (mut fired, mut at) = (0, start);
    let rates = rates(Duration::from_secs(arguments.seconds) / RUNS / 2, || {
        at += chrono::Duration::seconds(1);
        fired += round(&book, &mut events, at, &mut windows)?;
        Ok(events.len())
    })?;
    Ok(json!({
        "events_per_second": rates[rates.len() / 2].round(),
        "events_per_second_min": rates[0].round(),
        "events_per_second_max": rates[rates.len() - 1].round(),
        "keys": windows.len(),
        "fired": fired,
        "mib": rounded(bytes as f64 / MIB),
        "bytes_per_key": bytes / KEYS,
    }))
}

fn host(number: u64) -> String {
    format!("host-{number:07}")
}

/// Judges each event once, as having come at a time; answers how many fired.
fn round(book: &RuleBook, events: &mut [Event], at: DateTime<Utc>, windows: &mut Windows) -> Result<usize, String> {
    let mut fired = 0;
    for batch in events.chunks_mut(TOGETHER) {
        for event in batch {
            (event.occurred_at, event.received_at) = (at, at);
            fired += judge(book, event, World::empty(), windows)?.matches.len();
        }
        std::hint::black_box(windows.take_changes());
    }
    Ok(fired)
}
