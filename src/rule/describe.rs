//! What holds a rule back, and what is open of it, in words.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;

use super::windows::OpenWindow;
use crate::model::duration;
use crate::model::ids::EventId;
use crate::model::rule::{Rule, Source, WindowKind};
use crate::model::window::{WindowPart, WindowState};

/// What a rule has beside its criteria and its guard: window, throttle, backstop; a phrase for each.
#[must_use]
pub fn held_back_by(rule: &Rule) -> Vec<String> {
    let mut phrases = Vec::new();
    if let Some(window) = &rule.window {
        let each = each(window.by.as_ref());
        phrases.push(match &window.kind {
            WindowKind::Count { count, within, consecutive } => {
                let in_a_row = if *consecutive { " in a row" } else { "" };
                format!("{count}{in_a_row} within {}{each}", duration::format(*within))
            }
            WindowKind::Absent { after, keys } => {
                let from_the_start = if keys.is_empty() { String::new() } else { format!(", {} from the start on", keys.len()) };
                format!("nothing for {}{each}{from_the_start}", duration::format(*after))
            }
        });
    }
    if let Some(throttle) = &rule.throttle {
        phrases.push(format!("once per {}{}", duration::format(throttle.once_per), each(throttle.by.as_ref())));
    }
    if rule.backstop {
        phrases.push("backstop".into());
    }
    phrases
}

fn each(by: Option<&Source<String>>) -> String {
    by.map(|by| format!(" by {}", by.value)).unwrap_or_default()
}

/// One key of a rule for which something is under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Open {
    /// Its window or its throttle.
    pub part: WindowPart,
    /// The key; empty where there is only one.
    pub key: String,
    /// Until when.
    pub until: DateTime<Utc>,
    /// How many events count, of a window that counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub have: Option<usize>,
    /// Of how many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of: Option<u32>,
    /// The last event, of a window that waits for silence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<EventId>,
    /// What is missing.
    pub says: String,
}

/// What is under way for a key at a time, milliseconds since 1970; nothing where it only was.
#[must_use]
pub fn open(rule: &Rule, window: &OpenWindow, now: i64) -> Option<Open> {
    let open = |until: i64, says: &dyn Fn(String) -> String| {
        let until = DateTime::from_timestamp_millis(until).unwrap_or_default();
        let says = says(until.to_rfc3339_opts(SecondsFormat::Secs, true));
        Open { part: window.part, key: window.key.clone(), until, have: None, of: None, event: None, says }
    };
    match (&window.state, rule.window.as_ref().map(|window| &window.kind)) {
        (WindowState::Count { times, .. }, Some(WindowKind::Count { count, within, consecutive })) => {
            let ends = |time: &i64| time.saturating_add(millis(*within));
            let counting: Vec<i64> = times.iter().map(ends).filter(|end| *end > now).collect();
            let missing = usize::try_from(*count).ok()?.saturating_sub(counting.len());
            let (comes, or) = (if missing == 1 { "comes" } else { "come" }, if *consecutive { " or one does not hold" } else { "" });
            let says = |until| format!("{} of {count}, until {until} unless {missing} more {comes}{or}", counting.len());
            Some(Open { have: Some(counting.len()), of: Some(*count), ..open(*counting.first()?, &says) })
        }
        (WindowState::Absent { event, armed: true, .. }, _) => {
            let says = |until| format!("fires at {until} if nothing comes");
            Some(Open { event: *event, ..open(window.until?, &says) })
        }
        (WindowState::Throttle { .. }, _) => {
            let until = window.until.filter(|until| *until > now)?;
            Some(open(until, &|until| format!("throttled until {until}")))
        }
        _ => None,
    }
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}
