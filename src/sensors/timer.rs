//! `timer`: an event at the times of a cron expression, every so often, or once.
//!
//! What it has dealt with is durable, so a restart neither repeats nor forgets. When it is due is decided in [`super::schedule`].

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, SecondsFormat, Utc};
use chrono_tz::Tz;
use serde_json::{Map, Value, json};

use super::schedule::{self, Cron, Due, Missed, Policy, Schedule};
use super::settings::Settings;
use super::{Built, Sensor, SensorContext, SensorError, SensorKind, SetupFault};
use crate::model::event::{Dedup, NewEvent};
use crate::model::sensor::Polling;
use crate::script::host::Surroundings;

/// The kind.
pub const KIND: SensorKind = SensorKind {
    name: "timer",
    summary: "emits an event at the times of a cron expression, every so often, or once",
    example: "{\"every\": \"30s\"}",
    script: "",
    also: &[],
    check: |polling| plan(polling).map(|_| ()),
    build,
};

/// The shortest interval.
const SHORTEST: Duration = Duration::from_millis(100);

/// The longest interval.
const LONGEST: Duration = Duration::from_secs(366 * 86_400);

/// A shorter interval is not remembered over a restart: what it missed is over, and each time would be a commit.
const REMEMBERED_FROM: Duration = Duration::from_secs(10);

/// How late a missed time may be, unless the settings say otherwise; at least, since no wake-up is exact, and at most.
const LATE: (Duration, Duration, Duration) = (Duration::from_secs(3_600), Duration::from_secs(1), Duration::from_secs(86_400));

/// How long a due time is known, so that it does not become two events when the process ends between event and state.
const MEMORY: Duration = Duration::from_secs(86_400);

/// The pause before an event that was not taken is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// What a calendar has dealt with may lie so far ahead of a clock that was set back: the same times do not come again. What is further ahead
/// is not believed, because the clock was wrong then. An interval goes on at once.
const AHEAD: chrono::Duration = chrono::Duration::days(1);

/// How often to look whether the clock was set back.
const LOOK_AGAIN: chrono::Duration = chrono::Duration::minutes(1);

struct Timer {
    schedule: Schedule,
    policy: Policy,
    /// The settings as written, and the time zone where one matters.
    settings: Map<String, Value>,
    remembered: bool,
}

fn build(polling: &Polling, _: &Arc<Surroundings>) -> Built {
    plan(polling).map(|timer| Box::new(timer) as _)
}

fn plan(polling: &Polling) -> Result<Timer, SetupFault> {
    let mut settings = Settings::of("a timer", &polling.settings);
    let cron = settings.text("cron")?;
    let every = settings.duration("every", SHORTEST, LONGEST)?;
    let interval = settings.duration("interval", SHORTEST, LONGEST)?;
    let date = settings.text("date")?;
    let zone = match settings.text("time_zone")? {
        Some(name) => {
            let zone = name.parse::<Tz>();
            Some(zone.map_err(|_| SetupFault::Setting("time_zone", format!("`{name}` is not a time zone such as Asia/Shanghai")))?)
        }
        None => None,
    };
    let missed = match settings.word("missed", &["coalesce", "each", "skip"])? {
        Some("each") => Missed::Each,
        Some("skip") => Missed::Skip,
        _ => Missed::Coalesce,
    };
    let late = settings.duration("late", LATE.1, LATE.2)?.unwrap_or(LATE.0);
    settings.finish()?;
    let own = zone.unwrap_or(polling.time_zone);
    let schedule = match (cron, every.or(interval), date) {
        (Some(text), None, None) => Schedule::Cron(Cron::parse(text, own).map_err(|message| SetupFault::Setting("cron", message))?),
        (None, Some(every), None) if zone.is_none() => Schedule::Every(every),
        (None, Some(_), None) => {
            return Err(SetupFault::Setting("time_zone", "an interval has none; it does not go by the calendar".into()));
        }
        (None, None, Some(text)) => Schedule::Date(schedule::date(text, own).map_err(|message| SetupFault::Setting("date", message))?),
        (None, None, None) => return Err(settings.fault("needs `cron`, such as \"0 3 * * mon-fri\", `every`, such as 30s, or `date`")),
        _ => return Err(settings.fault("takes one of `cron`, `every` and `date`")),
    };
    if every.is_some() && interval.is_some() {
        return Err(settings.fault("takes `every` or `interval`; they are the same"));
    }
    let remembered = !matches!(schedule, Schedule::Every(every) if every < REMEMBERED_FROM);
    Ok(Timer { policy: Policy { missed, late }, settings: shown(polling), schedule, remembered })
}

/// The settings as they stand in the payload: as written, with the time zone wherever one matters.
#[must_use]
pub fn shown(polling: &Polling) -> Map<String, Value> {
    let mut shown = polling.settings.clone();
    if shown.contains_key("cron") || shown.contains_key("date") {
        shown.entry("time_zone").or_insert_with(|| polling.time_zone.name().into());
    }
    shown
}

#[async_trait]
impl Sensor for Timer {
    async fn run(self: Box<Self>, cx: SensorContext) -> Result<(), SensorError> {
        let mut until = self.begin(&cx).await?;
        loop {
            let now = cx.clock.now();
            if until - now > self.ahead() {
                tracing::warn!(sensor = cx.name, "the timer has dealt with times up to {until}, which lie ahead; it starts anew at {now}");
                until = now;
            }
            let due = self.schedule.due(until, now, self.policy);
            if !self.fire(&cx, &due, now).await {
                if cx.wait(AGAIN).await {
                    continue;
                }
                return Ok(());
            }
            if due.skipped > 0 {
                tracing::warn!(sensor = cx.name, "{} due times were missed and are left out", due.skipped);
                cx.health.skipped(due.skipped);
            }
            if due.until > until {
                until = due.until;
                self.remember(&cx, until).await;
            }
            cx.healthy();
            let Some(next) = self.schedule.next(until) else {
                cx.stop.stopped().await; // it was due once, or no date is left
                return Ok(());
            };
            if !wait_for(&cx, next).await {
                return Ok(());
            }
        }
    }
}

/// Waits until the time has come, or the clock was set back; answers whether to go on rather than stop.
async fn wait_for(cx: &SensorContext, at: DateTime<Utc>) -> bool {
    let mut now = cx.clock.now();
    while now < at {
        let before = now;
        let look = at.min(now + LOOK_AGAIN);
        tokio::select! { () = cx.stop.stopped() => return false, () = cx.clock.sleep_until(look) => {} }
        now = cx.clock.now();
        if now < before {
            break;
        }
    }
    true
}

impl Timer {
    /// How far ahead of the clock it may have dealt with times.
    fn ahead(&self) -> chrono::Duration {
        if matches!(self.schedule, Schedule::Every(_)) { chrono::Duration::zero() } else { AHEAD }
    }

    /// Up to when this schedule has been dealt with. A new one begins now.
    async fn begin(&self, cx: &SensorContext) -> Result<DateTime<Utc>, SensorError> {
        let now = cx.clock.now();
        if !self.remembered {
            return Ok(now);
        }
        let state = cx.state.load().await.map_err(SensorError)?.unwrap_or_default();
        let known = state["until"].as_str().and_then(|text| DateTime::parse_from_rfc3339(text).ok());
        if let Some(until) = known.filter(|_| state["schedule"] == Value::Object(self.settings.clone())) {
            return Ok(until.with_timezone(&Utc));
        }
        if let Schedule::Date(at) = self.schedule
            && at <= now
        {
            tracing::warn!(sensor = cx.name, "the date {at} has passed; no event is made of it");
            cx.health.skipped(1);
        }
        self.remember(cx, now).await;
        Ok(now)
    }

    /// Makes the events; answers whether all were taken.
    async fn fire(&self, cx: &SensorContext, due: &Due, now: DateTime<Utc>) -> bool {
        let last = due.fires.last();
        let event = |at: &DateTime<Utc>| self.event(cx, *at, now, if Some(at) == last { due.coalesced } else { 0 });
        if let Err(error) = cx.emit(due.fires.iter().map(event).collect()).await {
            cx.failing(error.to_string());
            return false;
        }
        true
    }

    fn event(&self, cx: &SensorContext, at: DateTime<Utc>, now: DateTime<Utc>, coalesced: u64) -> NewEvent {
        let text = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Millis, true);
        let mut payload = self.settings.clone();
        payload.insert("schedule".into(), Value::Object(self.settings.clone()));
        payload.insert("scheduled_at".into(), text(at).into());
        payload.insert("executed_at".into(), text(now).into());
        if coalesced > 0 {
            payload.insert("coalesced".into(), coalesced.into());
        }
        let key = format!("{}:{}", cx.name, text(at));
        let dedup = self.remembered.then(|| Dedup { key: format!("timer:{key}"), memory: MEMORY, repeats: false, body: None });
        NewEvent { key: Some(cx.name.clone()), occurred_at: Some(at), dedup, ..cx.event(&Value::Object(payload)) }
    }

    async fn remember(&self, cx: &SensorContext, until: DateTime<Utc>) {
        if !self.remembered {
            return;
        }
        let state = json!({"schedule": self.settings, "until": until.to_rfc3339_opts(SecondsFormat::Micros, true)});
        if let Err(error) = cx.state.save(&state).await {
            tracing::warn!(sensor = cx.name, "what the timer has dealt with cannot be saved: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::pack::Pack;

    fn check(settings: &Value) -> Result<Timer, String> {
        let settings = settings.as_object().unwrap().clone();
        let pack = Arc::new(Pack::named("t"));
        let polling = Polling { kind: "timer".into(), settings, script: None, pack, time_zone: Tz::Asia__Shanghai };
        plan(&polling).map_err(|fault| fault.to_string())
    }

    #[test]
    fn settings_are_checked() {
        for fine in [
            json!({"every": "1m"}),
            json!({"interval": 30}),
            json!({"cron": "0 3 * * mon-fri", "missed": "each", "late": "2h"}),
            json!({"date": "2027-01-01 00:00", "time_zone": "Europe/Berlin"}),
        ] {
            assert!(check(&fine).is_ok(), "{fine}");
        }
        for (wrong, says) in [
            (json!({}), "a timer needs `cron`"),
            (json!({"every": "1m", "cron": "@daily"}), "takes one of"),
            (json!({"every": "1m", "interval": "1m"}), "they are the same"),
            (json!({"every": "10ms"}), "`every`: must be from 100ms to 366d"),
            (json!({"every": "1m", "time_zone": "UTC"}), "an interval has none"),
            (json!({"every": true}), "`every`: must be a duration"),
            (json!({"cron": 5}), "`cron`: must be text, not integer"),
            (json!({"cron": "0 0 31 2 *"}), "no date fits it"),
            (json!({"cron": "@daily", "time_zone": "Mars/Olympus"}), "`Mars/Olympus` is not a time zone"),
            (json!({"cron": "@daily", "missed": "ech"}), "did you mean `each`?"),
            (json!({"cron": "@daily", "late": "2d"}), "`late`: must be from 1s to 1d"),
            (json!({"evry": "1m"}), "a timer has no setting `evry`; did you mean `every`?"),
            (json!({"every": "1m", "zone": "UTC"}), "a timer has no setting `zone`"),
        ] {
            let error = check(&wrong).err().unwrap_or_else(|| panic!("{wrong} is refused"));
            assert!(error.contains(says), "{wrong}: {error}");
        }
        assert_eq!(check(&json!({"cron": "@daily"})).unwrap().settings["time_zone"], "Asia/Shanghai");
    }
}
