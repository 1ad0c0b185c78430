//! Windows and throttles of rules.

use std::time::Duration;

use crate::document::fields::Fields;
use crate::document::node::Node;
use crate::model::duration;
use crate::model::place::Spot;
use crate::model::rule::{Source, Throttle, Window, WindowKind};
use crate::model::window::MAX_KEY_BYTES;

/// The longest span of a window or throttle; beyond that a schedule says it better.
const LONGEST: Duration = Duration::from_secs(30 * 86_400);

/// The most events that a window counts.
const MOST_EVENTS: u64 = 10_000;

/// The most keys that a window waits for by name.
const MOST_KEYS: usize = 10_000;

pub(super) fn read_window(fields: &mut Fields<'_, '_>, node: &Node) -> Option<Window> {
    let mut inner = Fields::of(fields.source, node, "`window`", fields.faults)?;
    let by = by(&mut inner);
    let (counts, waits) = (inner.node("count").is_some(), inner.node("absent_for").is_some());
    let kind = match (counts, waits) {
        (true, true) => {
            inner
                .fault_here("a window either counts (`count` and `within`) or waits for silence (`absent_for`), not both; write two rules");
            None
        }
        (false, false) => {
            inner.fault_here("a window needs `count` and `within`, or `absent_for`");
            None
        }
        (true, false) => count(&mut inner),
        (false, true) => absent(&mut inner),
    };
    if kind.is_some() {
        inner.finish();
    }
    Some(Window { kind: kind?, by })
}

fn count(inner: &mut Fields<'_, '_>) -> Option<WindowKind> {
    let count = inner.count("count");
    inner.required("within");
    let within = span(inner, "within");
    let consecutive = inner.boolean("consecutive").unwrap_or(false);
    let count = count?;
    if !(1..=MOST_EVENTS).contains(&count) {
        inner.fault_here(format!("`count` must be from 1 to {MOST_EVENTS}"));
    }
    Some(WindowKind::Count { count: u32::try_from(count).ok()?, within: within?, consecutive })
}

fn absent(inner: &mut Fields<'_, '_>) -> Option<WindowKind> {
    let after = span(inner, "absent_for");
    let keys: Vec<String> = inner.texts("keys").into_iter().map(|(key, _)| key).collect();
    if keys.len() > MOST_KEYS {
        inner.fault_here(format!("`keys` can name {MOST_KEYS} at most"));
    }
    if let Some(long) = keys.iter().find(|key| key.len() > MAX_KEY_BYTES) {
        inner.fault_here(format!("`keys`: `{long}` is longer than {MAX_KEY_BYTES} bytes"));
    }
    Some(WindowKind::Absent { after: after?, keys })
}

pub(super) fn read_throttle(fields: &mut Fields<'_, '_>, node: &Node) -> Option<Throttle> {
    let mut inner = Fields::of(fields.source, node, "`throttle`", fields.faults)?;
    inner.required("once_per");
    let once_per = span(&mut inner, "once_per");
    let by = by(&mut inner);
    inner.finish();
    Some(Throttle { once_per: once_per?, by })
}

fn by(inner: &mut Fields<'_, '_>) -> Option<Source<String>> {
    let node = inner.node("by")?;
    let at = Spot::new(node.line, node.column);
    Some(Source { value: inner.text("by")?, at })
}

fn span(inner: &mut Fields<'_, '_>, name: &'static str) -> Option<Duration> {
    let span = inner.duration(name)?;
    if span.is_zero() || span > LONGEST {
        inner.fault_here(format!("`{name}` must be more than 0 and at most {}", duration::format(LONGEST)));
        return None;
    }
    Some(span)
}
