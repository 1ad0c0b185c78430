//! Which rules are not tried: those that their file, a person, or the engine itself has switched off. Pure.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::model::hash::Revision;
use crate::model::reason::Reason;
use crate::model::rule::Rule;

/// A switch that was thrown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Switch {
    /// When.
    pub at: DateTime<Utc>,
    /// By whom.
    pub by: String,
    /// Which way.
    pub to: Position,
    /// What the rule's file said then; once it says something else, that counts.
    pub file_enabled: bool,
    /// The rule's revision then; a rule that has been changed is not in quarantine any more.
    pub revision: Revision,
}

/// A position of a rule's switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Position {
    /// It is tried.
    On,
    /// It is not tried.
    Off,
    /// It is not tried, since its guard used up its budget too often.
    Quarantined,
    /// What its file says counts again, since that has been changed.
    File,
}

/// Switches that are remembered of one rule, at most.
pub const MOST_SWITCHES: usize = 100;

/// The switch that counts at a time, if one does.
#[must_use]
pub fn in_force<'s>(enabled: bool, revision: &Revision, switches: &'s [Switch], at: DateTime<Utc>) -> Option<&'s Switch> {
    let last = switches.iter().rev().find(|switch| switch.at <= at)?;
    let counts = match last.to {
        Position::On | Position::Off => last.file_enabled == enabled,
        Position::Quarantined => last.revision == *revision,
        Position::File => false,
    };
    counts.then_some(last)
}

/// Whether a person's switch has been overtaken by the rule's file: once it is, it stays so, whatever the file says later.
#[must_use]
pub fn is_overtaken(enabled: bool, switches: &[Switch]) -> bool {
    switches.last().is_some_and(|last| matches!(last.to, Position::On | Position::Off) && last.file_enabled != enabled)
}

/// Why a rule is not tried at a time, if so, and more about it.
#[must_use]
pub fn off(rule: &Rule, revision: &Revision, switches: &[Switch], at: DateTime<Utc>) -> Option<(Reason, String)> {
    let when = |switch: &Switch| switch.at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    match in_force(rule.enabled, revision, switches, at) {
        Some(switch) if switch.to == Position::On => None,
        Some(switch) if switch.to == Position::Off => {
            Some((Reason::Disabled, format!("switched off by {} at {}", switch.by, when(switch))))
        }
        Some(switch) => Some((Reason::Quarantined, format!("since {}", when(switch)))),
        None if rule.enabled => None,
        None => Some((Reason::Disabled, "its file says `enabled: false`".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_switch_counts_until_the_file_says_something_else_and_quarantine_until_the_rule_changes() {
        let at = |s| DateTime::from_timestamp(s, 0).unwrap();
        let revision = |name: &str| Revision(name.into());
        let switch = |s, to, file_enabled| Switch { at: at(s), by: "li".into(), to, file_enabled, revision: revision("a") };
        let switches = [switch(10, Position::Off, true), switch(20, Position::On, true), switch(30, Position::Quarantined, true)];
        let position = |enabled, name, s| in_force(enabled, &revision(name), &switches, at(s)).map(|switch| switch.to);
        assert_eq!(position(true, "a", 9), None);
        assert_eq!(position(true, "a", 10), Some(Position::Off));
        assert_eq!(position(false, "b", 10), None, "the file has been changed");
        assert_eq!(position(true, "b", 25), Some(Position::On));
        assert_eq!(position(true, "a", 30), Some(Position::Quarantined));
        assert_eq!(position(true, "b", 30), None);
        let file = [&switches[..1], &[switch(15, Position::File, false)]].concat();
        assert_eq!(in_force(true, &revision("a"), &file, at(16)), None, "not again when the file says what it said then");
        assert!(is_overtaken(false, &switches[..1]) && !is_overtaken(true, &switches[..1]) && !is_overtaken(true, &file));
    }
}
