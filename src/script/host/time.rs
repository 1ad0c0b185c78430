//! `time.now()`, `time.now_us()` (microseconds since 1970) and arithmetic on RFC 3339 texts: `time.add(at, seconds)`, `time.seconds_between(a, b)`, `time.unix_ms(at)`.

use std::sync::Arc;

use chrono::{DateTime, Duration, SecondsFormat, Utc};
use rhai::{Dynamic, EvalAltResult, ImmutableString, Module};

use super::{HostModule, ScriptCall, thrown};
use crate::model::failure::Failure;

pub(super) const MODULE: HostModule = HostModule { name: "time", object, register };

#[derive(Clone)]
struct Time(Arc<ScriptCall>);

fn object(call: &Arc<ScriptCall>) -> Dynamic {
    Dynamic::from(Time(Arc::clone(call)))
}

fn register(module: &mut Module) {
    module.set_custom_type::<Time>("time");
    module.set_native_fn("now", |time: &mut Time| Ok(text(time.0.clock.now())));
    module.set_native_fn("now_us", |time: &mut Time| Ok(time.0.clock.now().timestamp_micros()));
    module.set_native_fn("add", |_: &mut Time, at: ImmutableString, seconds: i64| {
        let span = Duration::try_seconds(seconds);
        let moved = span.and_then(|span| parse(&at).map(|at| at.checked_add_signed(span)).transpose());
        match moved {
            Some(Ok(moved)) => Ok(text(moved)),
            Some(Err(error)) => Err(error),
            None => Err(thrown(Failure::misuse(format!("time.add: {seconds} seconds from `{at}` is out of range")))),
        }
    });
    module.set_native_fn("seconds_between", |_: &mut Time, from: ImmutableString, to: ImmutableString| {
        Ok((parse(&to)? - parse(&from)?).num_seconds())
    });
    module.set_native_fn("unix_ms", |_: &mut Time, at: ImmutableString| Ok(parse(&at)?.timestamp_millis()));
}

fn text(at: DateTime<Utc>) -> ImmutableString {
    at.to_rfc3339_opts(SecondsFormat::Millis, true).into()
}

fn parse(text: &str) -> Result<DateTime<Utc>, Box<EvalAltResult>> {
    let parsed = DateTime::parse_from_rfc3339(text).map(|at| at.with_timezone(&Utc));
    parsed.map_err(|_| thrown(Failure::misuse(format!("time: `{text}` is not an RFC 3339 time such as 2026-11-20T08:30:00Z"))))
}
