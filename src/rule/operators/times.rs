//! Times in payloads, as those that `dateutil` reads of the forms of ISO 8601.

use chrono::{DateTime, FixedOffset, NaiveDate, NaiveTime, TimeZone, Utc};

/// Reads `2026-01-02`, `2026-01-02T03:04`, `2026-01-02 03:04:05.678`, with or without a zone (`Z`, `UTC`, `+08:00`, `+0800`, `+08`); without
/// one it is UTC.
pub(super) fn instant(text: &str) -> Option<DateTime<Utc>> {
    let (day, rest) = text.trim().split_at_checked(10)?;
    if !day.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let day = NaiveDate::parse_from_str(day, "%Y-%m-%d").ok()?;
    let (clock, zone) = match rest.strip_prefix(['T', 't', ' ']) {
        Some(rest) => rest.split_at(rest.find(['Z', 'z', 'U', '+', '-', ' ']).unwrap_or(rest.len())),
        None if rest.is_empty() => ("00:00", ""),
        None => return None,
    };
    let clock = clock.replacen(',', ".", 1);
    let clock = NaiveTime::parse_from_str(&clock, "%H:%M:%S%.f").or_else(|_| NaiveTime::parse_from_str(&clock, "%H:%M")).ok()?;
    Some(offset(zone.trim())?.from_local_datetime(&day.and_time(clock)).single()?.to_utc())
}

fn offset(zone: &str) -> Option<FixedOffset> {
    if zone.is_empty() || ["z", "utc"].iter().any(|utc| zone.eq_ignore_ascii_case(utc)) {
        return FixedOffset::east_opt(0);
    }
    let (sign, digits) = match zone.split_at_checked(1)? {
        ("+", digits) => (1, digits),
        ("-", digits) => (-1, digits),
        _ => return None,
    };
    let (hours, minutes) = match digits.len() {
        2 => (digits, "0"),
        4 => digits.split_at_checked(2)?,
        5 => digits.split_once(':')?,
        _ => return None,
    };
    let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<i32>().ok()).flatten();
    let (hours, minutes) = (number(hours)?, number(minutes).filter(|minutes| *minutes < 60)?);
    FixedOffset::east_opt(sign * (hours * 3_600 + minutes * 60))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_that_are_read() {
        for (text, expected) in [
            ("2014-07-01T00:01:01.000000", "2014-07-01T00:01:01Z"),
            ("2014-07-01", "2014-07-01T00:00:00Z"),
            ("2014-07-01 00:01", "2014-07-01T00:01:00Z"),
            (" 2014-07-01T00:01:01.25Z ", "2014-07-01T00:01:01.250Z"),
            ("2014-07-01T00:01:01,25Z", "2014-07-01T00:01:01.250Z"),
            ("2014-07-01T08:01:01+08:00", "2014-07-01T00:01:01Z"),
            ("2014-07-01 08:01:01 +0800", "2014-07-01T00:01:01Z"),
            ("2014-06-30T19:31:01-0430", "2014-07-01T00:01:01Z"),
            ("2014-07-01T02:01:01+02", "2014-07-01T00:01:01Z"),
            ("2014-07-01 00:01:01 UTC", "2014-07-01T00:01:01Z"),
        ] {
            assert_eq!(instant(text), Some(expected.parse().unwrap()), "{text}");
        }
        for text in [
            "",
            "now",
            "2014",
            "2014-07",
            "2014-13-01",
            "+2014-7-01",
            "2014-07-01X00:01",
            "2014-07-01T25:01",
            "2014-07-01T00:01+8",
            "2014-07-01T00:01 CET",
            "2014-07-01T00:01+99:00",
            "2014-07-01T00:01+00:60",
            "2014-07-0é",
            "2014-07-01T00:01+é0",
            "1404172861",
        ] {
            assert_eq!(instant(text), None, "{text}");
        }
    }
}
