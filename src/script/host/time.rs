//! The time as RFC 3339 texts: now, arithmetic, formats and time zones.

use std::fmt::Write as _;
use std::sync::Arc;

use chrono::format::{Item, StrftimeItems};
use chrono::{DateTime, Duration, NaiveDateTime, SecondsFormat, TimeZone, Utc};
use chrono_tz::Tz;
use rhai::{Dynamic, ImmutableString, Module};

use super::module::function;
use super::{HostModule, ScriptCall, Thrown, misuse};
use crate::model::duration;

pub(super) const MODULE: HostModule = HostModule {
    name: "time",
    summary: "Times are RFC 3339 texts in UTC. A span is seconds, or text such as `\"5m\"`. Formats are those of strftime: `%Y-%m-%d %H:%M`.",
    values: &[],
    functions: &[
        function("time.now()", "Now.", "time.now()", ""),
        function("time.now_us()", "Now, in microseconds since 1970.", "time.now_us() > 0", "true"),
        function(
            "time.parse(text)",
            "A time with any offset, in UTC.",
            "time.parse(\"2026-11-20T10:00:00+08:00\")",
            "\"2026-11-20T02:00:00.000Z\"",
        ),
        function(
            "time.parse(text, format, zone?)",
            "A time in that format; in UTC unless a time zone or an offset (`%z`) says otherwise.",
            "time.parse(\"20.11.2026 10:00\", \"%d.%m.%Y %H:%M\", \"Asia/Shanghai\")",
            "\"2026-11-20T02:00:00.000Z\"",
        ),
        function(
            "time.format(at, format, zone?)",
            "A time in that format; in UTC unless a time zone is given.",
            "time.format(\"2026-11-20T02:00:00Z\", \"%H:%M %Z\", \"Asia/Shanghai\")",
            "\"10:00 CST\"",
        ),
        function(
            "time.add(at, span)",
            "A time that much later; earlier with negative seconds.",
            "time.add(\"2026-11-20T02:00:00Z\", \"90m\")",
            "\"2026-11-20T03:30:00.000Z\"",
        ),
        function(
            "time.seconds_between(from, to)",
            "Whole seconds from one to the other.",
            "time.seconds_between(\"2026-11-20T02:00:00Z\", \"2026-11-20T02:01:30Z\")",
            "90",
        ),
        function("time.unix_ms(at)", "Milliseconds since 1970.", "time.unix_ms(\"1970-01-01T00:00:01Z\")", "1000"),
        function(
            "time.from_unix_ms(ms)",
            "The time so many milliseconds after 1970.",
            "time.from_unix_ms(1500)",
            "\"1970-01-01T00:00:01.500Z\"",
        ),
        function("time.seconds(span)", "The seconds of a span such as `\"2h\"`.", "time.seconds(\"2h\")", "7200.0"),
        function("time.span(seconds)", "Seconds for people, in the two largest units.", "time.span(7384)", "\"2h 3m\""),
    ],
    object,
    register,
};

/// The longest format.
const MAX_FORMAT_BYTES: usize = 200;

#[derive(Clone)]
struct Time(Arc<ScriptCall>);

fn object(call: &Arc<ScriptCall>) -> Dynamic {
    Dynamic::from(Time(Arc::clone(call)))
}

fn register(module: &mut Module) {
    module.set_custom_type::<Time>("time");
    module.set_native_fn("now", |time: &mut Time| Ok(text(time.0.clock.now())));
    module.set_native_fn("now_us", |time: &mut Time| Ok(time.0.clock.now().timestamp_micros()));
    module.set_native_fn("parse", |_: &mut Time, at: ImmutableString| Ok(text(parse(&at)?)));
    module.set_native_fn("parse", |_: &mut Time, at: ImmutableString, format: ImmutableString| parse_as(&at, &format, "UTC"));
    module.set_native_fn("parse", |_: &mut Time, at: ImmutableString, format: ImmutableString, zone: ImmutableString| {
        parse_as(&at, &format, &zone)
    });
    module.set_native_fn("format", |_: &mut Time, at: ImmutableString, format: ImmutableString| format_as(&at, &format, "UTC"));
    module.set_native_fn("format", |_: &mut Time, at: ImmutableString, format: ImmutableString, zone: ImmutableString| {
        format_as(&at, &format, &zone)
    });
    module.set_native_fn("add", |_: &mut Time, at: ImmutableString, seconds: i64| {
        later(&at, Duration::try_seconds(seconds), &seconds.to_string())
    });
    module.set_native_fn("add", |_: &mut Time, at: ImmutableString, span: ImmutableString| {
        let seconds = seconds(&span)?;
        later(&at, Duration::from_std(seconds).ok(), &span)
    });
    module.set_native_fn("seconds_between", |_: &mut Time, from: ImmutableString, to: ImmutableString| {
        Ok((parse(&to)? - parse(&from)?).num_seconds())
    });
    module.set_native_fn("unix_ms", |_: &mut Time, at: ImmutableString| Ok(parse(&at)?.timestamp_millis()));
    module.set_native_fn("from_unix_ms", |_: &mut Time, ms: i64| {
        let at = DateTime::from_timestamp_millis(ms);
        at.map(text).ok_or_else(|| misuse(format!("time.from_unix_ms: {ms} is out of range")))
    });
    module.set_native_fn("seconds", |_: &mut Time, span: ImmutableString| Ok(seconds(&span)?.as_secs_f64()));
    module.set_native_fn("span", |_: &mut Time, seconds: i64| Ok(ImmutableString::from(span(seconds))));
}

fn text(at: DateTime<Utc>) -> ImmutableString {
    at.to_rfc3339_opts(SecondsFormat::Millis, true).into()
}

fn parse(text: &str) -> Result<DateTime<Utc>, Thrown> {
    let parsed = DateTime::parse_from_rfc3339(text).map(|at| at.with_timezone(&Utc));
    parsed.map_err(|_| misuse(format!("time: `{text}` is not an RFC 3339 time such as 2026-11-20T08:30:00Z")))
}

fn seconds(span: &str) -> Result<std::time::Duration, Thrown> {
    duration::parse(span).map_err(|error| misuse(format!("time: {error}")))
}

fn later(at: &str, span: Option<Duration>, shown: &str) -> Result<ImmutableString, Thrown> {
    let from = parse(at)?;
    let moved = span.and_then(|span| from.checked_add_signed(span));
    moved.map(text).ok_or_else(|| misuse(format!("time.add: {shown} from `{at}` is out of range")))
}

fn zone(name: &str) -> Result<Tz, Thrown> {
    name.parse().map_err(|_| misuse(format!("time: `{name}` is not a time zone such as Asia/Shanghai")))
}

/// A format that can be used; writing a time with another would panic.
fn checked(format: &str) -> Result<Vec<Item<'_>>, Thrown> {
    let items: Vec<Item<'_>> = StrftimeItems::new(format).collect();
    if format.len() > MAX_FORMAT_BYTES || items.iter().any(|item| matches!(item, Item::Error)) {
        return Err(misuse(format!("time: `{format}` is not a format such as %Y-%m-%d %H:%M, of at most {MAX_FORMAT_BYTES} bytes")));
    }
    Ok(items)
}

fn format_as(at: &str, format: &str, name: &str) -> Result<ImmutableString, Thrown> {
    let (items, at) = (checked(format)?, parse(at)?.with_timezone(&zone(name)?));
    let mut written = String::new();
    write!(written, "{}", at.format_with_items(items.iter()))
        .map_err(|_| misuse(format!("time: `{format}` asks for what a time does not have")))?;
    Ok(written.into())
}

fn parse_as(at: &str, format: &str, name: &str) -> Result<ImmutableString, Thrown> {
    checked(format)?;
    let zone = zone(name)?;
    if let Ok(whole) = DateTime::parse_from_str(at, format) {
        return Ok(text(whole.with_timezone(&Utc)));
    }
    let local = NaiveDateTime::parse_from_str(at, format)
        .or_else(|_| chrono::NaiveDate::parse_from_str(at, format).map(|day| day.and_time(chrono::NaiveTime::MIN)))
        .map_err(|_| misuse(format!("time: `{at}` is not a time in the format `{format}`")))?;
    // Of a time that occurs twice the first; one that does not occur is a mistake.
    let found = zone.from_local_datetime(&local).earliest();
    found
        .map(|at| text(at.with_timezone(&Utc)))
        .ok_or_else(|| misuse(format!("time: there was no {at} in {name}: clocks were set forward")))
}

fn span(seconds: i64) -> String {
    let sign = if seconds < 0 { "-" } else { "" };
    let mut rest = seconds.unsigned_abs();
    let mut parts = Vec::new();
    for (size, unit) in [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")] {
        if rest >= size && parts.len() < 2 {
            parts.push(format!("{}{unit}", rest / size));
        }
        rest %= size;
    }
    if parts.is_empty() { "0s".into() } else { format!("{sign}{}", parts.join(" ")) }
}
