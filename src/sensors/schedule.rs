//! When a timer is due. Pure: the time is passed in.
//!
//! Calendar times are those of a time zone. One that occurs twice, when clocks are set back, counts once: the first time. One that does
//! not exist, when clocks are set forward, is the next instant that does.

use std::collections::VecDeque;
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, NaiveDateTime, TimeZone, Timelike, Utc};
use chrono_tz::Tz;

/// A due time that is missed by less than this is not late: the process was busy, or woke up a little later.
pub const ON_TIME: Duration = Duration::from_secs(60);

/// The most due times that are made up for at once.
pub const MAX_DUE: usize = 1_000;

/// When something is due.
#[derive(Clone, Debug)]
pub enum Schedule {
    /// At the times of a cron expression.
    Cron(Cron),
    /// Every so often.
    Every(Duration),
    /// Once.
    Date(DateTime<Utc>),
}

/// A cron expression in a time zone.
#[derive(Clone, Debug)]
pub struct Cron {
    /// It is due when either says so: Unix cron takes a day that fits the day of the month or the day of the week, where both are given.
    parts: Vec<cron::Schedule>,
    zone: Tz,
}

/// What becomes of due times that were missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missed {
    /// One event for all of them.
    Coalesce,
    /// An event for each.
    Each,
    /// None.
    Skip,
}

/// How late is too late.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// What becomes of what was missed.
    pub missed: Missed,
    /// What is later than this is left out.
    pub late: Duration,
}

/// What is due now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// Events to make, by the time that each was due.
    pub fires: Vec<DateTime<Utc>>,
    /// How many more due times the last of them stands for.
    pub coalesced: u64,
    /// How many were left out; no more than about a thousand are counted.
    pub skipped: u64,
    /// Everything up to here has been dealt with.
    pub until: DateTime<Utc>,
}

impl Schedule {
    /// The first due time after an instant.
    #[must_use]
    pub fn next(&self, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        match self {
            Self::Cron(cron) => cron.next(after),
            Self::Every(every) => after.checked_add_signed(chrono::Duration::from_std(*every).ok()?),
            Self::Date(at) => (*at > after).then_some(*at),
        }
    }

    /// What has come due since `until`.
    #[must_use]
    pub fn due(&self, until: DateTime<Utc>, now: DateTime<Utc>, policy: Policy) -> Due {
        let late = chrono::Duration::from_std(policy.late).unwrap_or(chrono::Duration::days(1));
        let mut due = Due { until, ..Due::default() };
        let mut in_time: VecDeque<DateTime<Utc>> = VecDeque::new();
        let mut counted = 0;
        let mut from = until;
        while let Some(at) = self.next(from).filter(|at| *at <= now) {
            (from, due.until) = (at, at);
            if now - at <= late {
                in_time.push_back(at);
            } else {
                due.skipped += 1;
                counted += 1;
                if counted >= MAX_DUE {
                    from = self.jump(from, now - late); // the rest is too late as well
                    (due.until, counted) = (from, 0);
                }
            }
            if in_time.len() > MAX_DUE {
                in_time.pop_front();
                due.skipped += 1;
            }
        }
        let Some(last) = in_time.back().copied() else { return due };
        let others = in_time.len() as u64 - 1;
        match policy.missed {
            Missed::Each => due.fires = in_time.into(),
            Missed::Coalesce => (due.fires, due.coalesced) = (vec![last], others),
            Missed::Skip if now - last <= chrono::Duration::from_std(ON_TIME).unwrap_or_default() => {
                (due.fires, due.skipped) = (vec![last], due.skipped + others);
            }
            Missed::Skip => due.skipped += others + 1,
        }
        due
    }

    /// An instant from which to go on looking, not after `to`, and of this schedule where its times depend on each other.
    fn jump(&self, from: DateTime<Utc>, to: DateTime<Utc>) -> DateTime<Utc> {
        let Self::Every(every) = self else { return (to - chrono::Duration::milliseconds(1)).max(from) };
        let step_ms = i64::try_from(every.as_millis()).unwrap_or(i64::MAX).max(1);
        let steps = (to - from).num_milliseconds().max(0) / step_ms;
        from + chrono::Duration::milliseconds(steps.saturating_sub(1).max(0).saturating_mul(step_ms))
    }
}

/// The fields of an expression, in their order.
const FIELDS: [&str; 6] = ["second", "minute", "hour", "day of the month", "month", "day of the week"];

const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];

impl Cron {
    /// Reads an expression: five fields as in Unix cron, six with seconds in front, or `@daily` and its like.
    ///
    /// # Errors
    /// When it is none, or no date fits it.
    pub fn parse(text: &str, zone: Tz) -> Result<Self, String> {
        let text = text.trim();
        let expanded = match text.to_ascii_lowercase().as_str() {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            other if other.starts_with("@every") => return Err(format!("`{text}`: write `every: …` instead of `cron`")),
            other if other.starts_with('@') => {
                return Err(format!("there is no `{text}`; known are @yearly, @monthly, @weekly, @daily and @hourly"));
            }
            _ => text,
        };
        let mut fields: Vec<&str> = expanded.split_whitespace().collect();
        if fields.len() == 5 {
            fields.insert(0, "0");
        }
        let [second, minute, hour, day, month, weekday] = fields[..] else {
            let form = "write minute, hour, day of the month, month and day of the week; seconds may stand in front";
            return Err(format!("`{text}` has {} fields; {form}", fields.len()));
        };
        let (weekday, any_weekday) = (weekdays(weekday)?, weekday.starts_with(['*', '?']));
        let any_day = day.starts_with(['*', '?']);
        for (index, field) in [second, minute, hour, day, month].into_iter().enumerate() {
            let mut alone = ["*"; 6];
            alone[index] = field;
            let wrong = |_| format!("`{field}` is not a {} in `{text}`", FIELDS[index]);
            cron::Schedule::from_str(&alone.join(" ")).map_err(wrong)?;
        }
        let part = |day: &str, weekday: &str| {
            let expression = format!("{second} {minute} {hour} {day} {month} {weekday}");
            cron::Schedule::from_str(&expression).map_err(|error| format!("`{text}` is not a schedule: {error}"))
        };
        let parts = if any_day || any_weekday { vec![part(day, &weekday)?] } else { vec![part(day, "*")?, part("*", &weekday)?] };
        let cron = Self { parts, zone };
        let first = DateTime::<Utc>::UNIX_EPOCH;
        if cron.next(first).is_none() {
            return Err(format!("`{text}` is never due: no date fits it"));
        }
        Ok(cron)
    }

    fn next(&self, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        // The times are looked for as if every day had 24 hours, and then placed in the zone. That keeps their order: what does not exist
        // falls on the first instant behind the gap, what occurs twice on its first time.
        let local = after.with_timezone(&self.zone).naive_local();
        let next =
            |part: &cron::Schedule| part.after(&local.and_utc()).find_map(|at| place(at.naive_utc(), self.zone).filter(|at| *at > after));
        self.parts.iter().filter_map(next).min()
    }
}

/// Days of the week as names: numbers are those of Unix, where 0 and 7 are Sunday.
fn weekdays(field: &str) -> Result<String, String> {
    let wrong = || format!("`{field}` is not a {}; write 0 to 7 (0 and 7 are Sunday) or sun to sat", FIELDS[5]);
    if field == "*" || field == "?" {
        return Ok("*".into());
    }
    let day = |text: &str| -> Option<usize> {
        let by_name = || DAYS.iter().position(|day| text.len() >= 3 && text.get(..3).is_some_and(|text| text.eq_ignore_ascii_case(day)));
        text.parse::<usize>().ok().filter(|day| *day <= 7).or_else(by_name)
    };
    let mut chosen = [false; 7];
    for item in field.split(',') {
        let (range, step) = item.split_once('/').map_or((item, None), |(range, step)| (range, Some(step)));
        let step = step.map_or(Some(1), |step| step.parse::<usize>().ok().filter(|step| (1..=7).contains(step))).ok_or_else(wrong)?;
        let (from, to) = match range.split_once('-') {
            _ if range == "*" => (0, 6),
            Some((from, to)) => (day(from).ok_or_else(wrong)?, day(to).ok_or_else(wrong)?),
            None => {
                let day = day(range).ok_or_else(wrong)?;
                (day, if item.contains('/') { 6 } else { day })
            }
        };
        // From Friday to Sunday goes over the end of the week.
        let to = if from > to { to + 7 } else { to };
        for day in (from..=to).step_by(step) {
            chosen[day % 7] = true;
        }
    }
    let names: Vec<&str> = DAYS.iter().zip(chosen).filter(|(_, chosen)| *chosen).map(|(day, _)| *day).collect();
    Ok(names.join(","))
}

/// A local time as an instant.
fn place(local: NaiveDateTime, zone: Tz) -> Option<DateTime<Utc>> {
    let at = |local: &NaiveDateTime| zone.from_local_datetime(local).earliest().map(|at| at.with_timezone(&Utc));
    if let Some(found) = at(&local) {
        return Some(found);
    }
    // Clocks change at whole minutes; the longest that any zone ever left out is a day.
    let minute = local.with_second(0)?;
    (1..=26 * 60).find_map(|minutes| at(&(minute + chrono::Duration::minutes(minutes))))
}

/// Reads one time: RFC 3339, or a local time such as `2027-01-31 18:00`.
///
/// # Errors
/// When it is neither.
pub fn date(text: &str, zone: Tz) -> Result<DateTime<Utc>, String> {
    if let Ok(at) = DateTime::parse_from_rfc3339(text) {
        return Ok(at.with_timezone(&Utc));
    }
    let forms = ["%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"];
    let local = forms.iter().find_map(|form| NaiveDateTime::parse_from_str(text, form).ok());
    let found = local.and_then(|local| place(local, zone));
    found.ok_or_else(|| format!("`{text}` is not a time such as 2027-01-31T18:00:00Z, or 2027-01-31 18:00 in the time zone"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        DateTime::parse_from_rfc3339(text).unwrap().with_timezone(&Utc)
    }

    /// The next due times of an expression, in its zone.
    fn upcoming(expression: &str, zone: Tz, after: &str, count: usize) -> Vec<String> {
        let cron = Cron::parse(expression, zone).unwrap_or_else(|error| panic!("{error}"));
        let (mut from, mut found) = (at(after), Vec::new());
        for _ in 0..count {
            let Some(next) = cron.next(from) else { break };
            assert!(next > from, "{expression}: time goes on");
            let form = if next.second() == 0 { "%a %m-%d %H:%M%:z" } else { "%a %m-%d %H:%M:%S%:z" };
            found.push(next.with_timezone(&zone).format(form).to_string());
            from = next;
        }
        found
    }

    #[test]
    fn expressions_mean_what_unix_cron_means() {
        // 2026-11-20 is a Friday.
        let cases: &[(&str, &[&str])] = &[
            ("*/15 * * * *", &["Fri 11-20 12:15+00:00", "Fri 11-20 12:30+00:00"]),
            ("0 3 * * mon-fri", &["Mon 11-23 03:00+00:00", "Tue 11-24 03:00+00:00"]),
            ("0 3 * * 1-5", &["Mon 11-23 03:00+00:00", "Tue 11-24 03:00+00:00"]),
            ("0 3 * * 0", &["Sun 11-22 03:00+00:00", "Sun 11-29 03:00+00:00"]),
            ("0 3 * * 7", &["Sun 11-22 03:00+00:00", "Sun 11-29 03:00+00:00"]),
            ("0 3 * * fri-sun", &["Sat 11-21 03:00+00:00", "Sun 11-22 03:00+00:00", "Fri 11-27 03:00+00:00"]),
            ("0 3 * * 5-7", &["Sat 11-21 03:00+00:00", "Sun 11-22 03:00+00:00", "Fri 11-27 03:00+00:00"]),
            ("0 3 * * */3", &["Sat 11-21 03:00+00:00", "Sun 11-22 03:00+00:00", "Wed 11-25 03:00+00:00"]),
            ("0 3 * * SUN,Wednesday", &["Sun 11-22 03:00+00:00", "Wed 11-25 03:00+00:00"]),
            ("0,30 12-13 * * *", &["Fri 11-20 12:30+00:00", "Fri 11-20 13:00+00:00", "Fri 11-20 13:30+00:00", "Sat 11-21 12:00+00:00"]),
            ("0 8-18/5 * * *", &["Fri 11-20 13:00+00:00", "Fri 11-20 18:00+00:00", "Sat 11-21 08:00+00:00"]),
            ("0 0 1 jan,JUL *", &["Fri 01-01 00:00+00:00", "Thu 07-01 00:00+00:00"]),
            // Both days given: either will do.
            ("0 0 1 * mon", &["Mon 11-23 00:00+00:00", "Mon 11-30 00:00+00:00", "Tue 12-01 00:00+00:00", "Mon 12-07 00:00+00:00"]),
            ("0 0 29 2 *", &["Tue 02-29 00:00+00:00"]),
            ("30 0 12 * * *", &["Fri 11-20 12:00:30+00:00", "Sat 11-21 12:00:30+00:00"]),
            ("@hourly", &["Fri 11-20 13:00+00:00"]),
            ("@daily", &["Sat 11-21 00:00+00:00"]),
            ("@weekly", &["Sun 11-22 00:00+00:00"]),
            ("@monthly", &["Tue 12-01 00:00+00:00"]),
            ("@yearly", &["Fri 01-01 00:00+00:00"]),
        ];
        for (expression, expected) in cases {
            assert_eq!(upcoming(expression, Tz::UTC, "2026-11-20T12:00:00Z", expected.len()), *expected, "{expression}");
        }
    }

    #[test]
    fn the_day_is_that_of_the_zone() {
        let shanghai = upcoming("0 3 * * mon-fri", Tz::Asia__Shanghai, "2026-11-20T12:00:00Z", 2);
        assert_eq!(shanghai, ["Mon 11-23 03:00+08:00", "Tue 11-24 03:00+08:00"]);
        assert_eq!(upcoming("30 0 1 * *", Tz::Asia__Shanghai, "2026-11-30T16:00:00Z", 1), ["Tue 12-01 00:30+08:00"]);
        // Half an hour, and a day that was left out.
        assert_eq!(upcoming("0 0 * * *", Tz::Asia__Kolkata, "2026-11-20T12:00:00Z", 1), ["Sat 11-21 00:00+05:30"]);
        let apia = upcoming("0 12 * * *", Tz::Pacific__Apia, "2011-12-29T00:00:00Z", 3);
        assert_eq!(apia, ["Thu 12-29 12:00-10:00", "Sat 12-31 00:00+14:00", "Sat 12-31 12:00+14:00"]);
    }

    #[test]
    fn clocks_that_are_set_forward_or_back() {
        let berlin = Tz::Europe__Berlin;
        // 2026-03-29: from 02:00 to 03:00 there is no time.
        assert_eq!(
            upcoming("30 2 * * *", berlin, "2026-03-28T00:00:00Z", 3),
            ["Sat 03-28 02:30+01:00", "Sun 03-29 03:00+02:00", "Mon 03-30 02:30+02:00"]
        );
        assert_eq!(
            upcoming("*/30 * * * *", berlin, "2026-03-29T00:00:00Z", 3),
            ["Sun 03-29 01:30+01:00", "Sun 03-29 03:00+02:00", "Sun 03-29 03:30+02:00"]
        );
        assert_eq!(upcoming("0 2,3 * * *", berlin, "2026-03-29T00:00:00Z", 2), ["Sun 03-29 03:00+02:00", "Mon 03-30 02:00+02:00"]);
        // A gap at midnight, and one of half an hour.
        assert_eq!(upcoming("0 0 * * *", Tz::Africa__Cairo, "2026-04-23T12:00:00Z", 2), ["Fri 04-24 01:00+03:00", "Sat 04-25 00:00+03:00"]);
        assert_eq!(upcoming("15 2 * * *", Tz::Australia__Lord_Howe, "2026-10-03T12:00:00Z", 1), ["Sun 10-04 02:30+11:00"]);
        // 2026-10-25: 02:00 to 03:00 is there twice.
        assert_eq!(
            upcoming("30 2 * * *", berlin, "2026-10-24T00:00:00Z", 3),
            ["Sat 10-24 02:30+02:00", "Sun 10-25 02:30+02:00", "Mon 10-26 02:30+01:00"]
        );
        assert_eq!(
            upcoming("0 * * * *", berlin, "2026-10-24T23:00:00Z", 3),
            ["Sun 10-25 02:00+02:00", "Sun 10-25 03:00+01:00", "Sun 10-25 04:00+01:00"]
        );
        // Asked in the middle of the second time: the first has been.
        assert_eq!(upcoming("30 2 * * *", berlin, "2026-10-25T01:10:00Z", 1), ["Mon 10-26 02:30+01:00"]);
    }

    #[test]
    fn what_is_no_schedule_is_refused_with_the_reason() {
        for (expression, says) in [
            ("0 0 31 2 *", "no date fits it"),
            ("61 * * * *", "`61` is not a minute"),
            ("* 24 * * *", "`24` is not a hour"),
            ("0 0 0 * *", "`0` is not a day of the month"),
            ("0 0 * 13 *", "`13` is not a month"),
            ("0 0 * * 8", "`8` is not a day of the week"),
            ("0 0 * * mun", "`mun` is not a day of the week"),
            ("0 0 * * 1/0", "is not a day of the week"),
            ("0 0 L * *", "`L` is not a day of the month"),
            ("* * * *", "has 4 fields"),
            ("", "has 0 fields"),
            ("0 0 0 * * * 2027", "has 7 fields"),
            ("@reboot", "there is no `@reboot`"),
            ("@every 5m", "write `every: …`"),
        ] {
            let error = Cron::parse(expression, Tz::UTC).expect_err(expression);
            assert!(error.contains(says), "{expression}: {error}");
        }
    }

    #[test]
    fn what_was_missed() {
        let hourly = || Schedule::Cron(Cron::parse("0 * * * *", Tz::UTC).unwrap());
        let minutely = || Schedule::Every(Duration::from_secs(60));
        let hour = Duration::from_secs(3_600);
        let check = |schedule: Schedule, missed, late, until: &str, now: &str| {
            let due = schedule.due(at(until), at(now), Policy { missed, late });
            let fires: Vec<String> = due.fires.iter().map(|at| at.format("%d %H:%M").to_string()).collect();
            (fires.join(" "), due.coalesced, due.skipped, due.until.format("%d %H:%M").to_string())
        };
        let of = |fires: &str, coalesced, skipped, until: &str| (fires.to_string(), coalesced, skipped, until.to_string());
        let since = "2026-11-20T00:00:00Z";
        // On time.
        assert_eq!(check(hourly(), Missed::Skip, hour, since, "2026-11-20T01:00:01Z"), of("20 01:00", 0, 0, "20 01:00"));
        assert_eq!(check(hourly(), Missed::Coalesce, hour, since, "2026-11-20T00:59:59Z"), of("", 0, 0, "20 00:00"));
        // Three hours away.
        assert_eq!(check(hourly(), Missed::Coalesce, hour, since, "2026-11-20T03:10:00Z"), of("20 03:00", 0, 2, "20 03:00"));
        assert_eq!(check(hourly(), Missed::Coalesce, 4 * hour, since, "2026-11-20T03:10:00Z"), of("20 03:00", 2, 0, "20 03:00"));
        assert_eq!(
            check(hourly(), Missed::Each, 4 * hour, since, "2026-11-20T03:10:00Z"),
            of("20 01:00 20 02:00 20 03:00", 0, 0, "20 03:00")
        );
        assert_eq!(check(hourly(), Missed::Skip, hour, since, "2026-11-20T03:10:00Z"), of("", 0, 3, "20 03:00"));
        // Exactly as late as may be, and a little more.
        let daily = || Schedule::Cron(Cron::parse("0 3 * * *", Tz::UTC).unwrap());
        assert_eq!(check(daily(), Missed::Coalesce, hour, since, "2026-11-20T04:00:00Z"), of("20 03:00", 0, 0, "20 03:00"));
        assert_eq!(check(daily(), Missed::Coalesce, hour, since, "2026-11-20T04:00:01Z"), of("", 0, 1, "20 03:00"));
        // An interval keeps its beat.
        assert_eq!(check(minutely(), Missed::Coalesce, hour, since, "2026-11-20T00:10:30Z"), of("20 00:10", 9, 0, "20 00:10"));
        // A month away: the count has an end, the work too, the beat stays.
        let (fires, _, skipped, until) = check(minutely(), Missed::Coalesce, hour, since, "2026-12-20T00:10:30Z");
        assert_eq!((fires.as_str(), until.as_str()), ("20 00:10", "20 00:10"));
        assert!((1_000..1_100).contains(&skipped), "{skipped}");
        let secondly = Schedule::Every(Duration::from_millis(100));
        let due = secondly.due(at(since), at("2026-11-20T00:30:00Z"), Policy { missed: Missed::Each, late: hour });
        assert_eq!((due.fires.len(), due.until), (MAX_DUE, at("2026-11-20T00:30:00Z")));
        // Once.
        let once = || Schedule::Date(at("2026-11-20T08:00:00Z"));
        assert_eq!(check(once(), Missed::Coalesce, hour, since, "2026-11-20T08:30:00Z"), of("20 08:00", 0, 0, "20 08:00"));
        assert_eq!(once().next(at("2026-11-20T08:00:00Z")), None);
    }

    #[test]
    fn dates() {
        let berlin = Tz::Europe__Berlin;
        assert_eq!(date("2026-12-24T18:00:00+01:00", Tz::UTC).unwrap(), at("2026-12-24T17:00:00Z"));
        assert_eq!(date("2026-12-24 18:00", berlin).unwrap(), at("2026-12-24T17:00:00Z"));
        assert_eq!(date("2026-03-29T02:30:00", berlin).unwrap(), at("2026-03-29T01:00:00Z"));
        assert!(date("tomorrow", berlin).unwrap_err().contains("is not a time such as"));
    }
}
