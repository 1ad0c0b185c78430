//! Windows and throttles of rules.

use std::time::Duration;

use crate::document::fields::{Fields, has};
use crate::document::node::{Content, Node};
use crate::document::shape::{Field, Holds, Shape};
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

/// A window, in one of its two forms.
pub(super) const WINDOW: Holds = Holds::Either(&[Holds::Shape(&COUNT), Holds::Shape(&ABSENT)]);

const BY: Field = Field::new("by", Holds::Text, "What tells one key from another").example("\"{{trigger.app}}\"");

static COUNT: Shape = Shape::new(
    "`window`",
    "How many events of a key must hold within a span",
    &[
        Field::required("count", Holds::Count(1, MOST_EVENTS), "How many").example("3"),
        Field::required("within", Holds::Duration, "Within which span, 30d at most").example("\"5m\""),
        Field::new("consecutive", Holds::Boolean, "Whether an event of the key that does not hold begins anew").default("false"),
        BY,
    ],
);

static ABSENT: Shape = Shape::new(
    "`window`",
    "How long no event of a key may come",
    &[
        Field::required("absent_for", Holds::Duration, "How long, 30d at most").example("\"10m\""),
        Field::new("keys", Holds::List(&Holds::Text), "Keys that are waited for before their first event"),
        BY,
    ],
);

/// A throttle.
pub(super) static THROTTLE: Shape = Shape::new(
    "`throttle`",
    "How far apart the executions of a key are at least",
    &[Field::required("once_per", Holds::Duration, "How far, 30d at most").example("\"15m\""), BY],
);

pub(super) fn read_window(fields: &mut Fields<'_, '_>, node: &Node) -> Option<Window> {
    let Content::Map(pairs) = &node.content else {
        fields.fault(node, format!("`window` must be a map, not {}", node.kind()));
        return None;
    };
    let (counts, waits) = (has(pairs, "count"), has(pairs, "absent_for"));
    if counts && waits {
        let message = "a window either counts (`count` and `within`) or waits for silence (`absent_for`), not both; write two rules";
        fields.fault(node, message);
        return None;
    }
    if !counts && !waits && !has(pairs, "within") {
        fields.fault(node, "a window needs `count` and `within`, or `absent_for`");
        return None;
    }
    let mut inner = Fields::of(fields.source, node, if waits { &ABSENT } else { &COUNT }, fields.faults)?;
    let by = by(&mut inner);
    let kind = if waits { absent(&mut inner) } else { count(&mut inner) };
    inner.finish();
    Some(Window { kind: kind?, by })
}

fn count(inner: &mut Fields<'_, '_>) -> Option<WindowKind> {
    let count = inner.count("count");
    let within = span(inner, "within");
    let consecutive = inner.boolean("consecutive").unwrap_or(false);
    let count = count?;
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
    let mut inner = Fields::of(fields.source, node, &THROTTLE, fields.faults)?;
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
