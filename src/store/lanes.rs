//! Which records live how long, and so in which databases. Pure.
//!
//! A commit is written to one database, the newest of the *recent* ones. When that is full, what may still change moves to the
//! *lane* of its lifetime; what never changes stays and *ages*. When the first of its kinds is too old, what is kept longer moves
//! to its lane, and the database is dropped. A lane is a chain of databases too: the oldest is dropped, never emptied record by record.

use chrono::{DateTime, Duration, Utc};
use serde::{Deserialize, Serialize};

use super::checked::Stats;
use super::record::Kind;
use super::{Keep, Limit};

/// A lifetime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lane {
    /// Commits, as they came.
    Recent,
    /// What never changes of the commits of a while ago.
    Aged,
    /// Events and verdicts that are kept longer than what came with them.
    Events,
    /// What executions logged.
    Outputs,
    /// Executions that have ended, and messages that do not wait.
    Executions,
    /// What is kept until it is deleted or replaced, and all that is open.
    Lasting,
    /// Senders' keys with a memory of up to a day.
    SeenDay,
    /// Senders' keys with a longer memory.
    SeenLong,
}

impl Lane {
    /// Every lane that ages.
    pub const AGEING: &'static [Self] = &[Self::Events, Self::Outputs, Self::Executions, Self::SeenDay, Self::SeenLong];

    /// The name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Recent => "recent",
            Self::Aged => "aged",
            Self::Events => "events",
            Self::Outputs => "outputs",
            Self::Executions => "executions",
            Self::Lasting => "lasting",
            Self::SeenDay => "seen-day",
            Self::SeenLong => "seen-long",
        }
    }

    /// Where records of a key, or of a whole kind, may lie, below the recent databases: the first that has it counts.
    #[must_use]
    pub fn of(key: &[u8]) -> &'static [Self] {
        match Kind::of(key) {
            Some(Kind::Events) => &[Self::Aged, Self::Events],
            Some(Kind::Output) => &[Self::Aged, Self::Outputs],
            // What is taken from `lasting` has been written elsewhere before.
            Some(Kind::Request | Kind::Message) => &[Self::Lasting, Self::Aged, Self::Executions],
            // In a lane it is part of what was asked for.
            Some(Kind::State) => &[Self::Aged],
            Some(Kind::Sighting) => match key.get(1) {
                Some(&LONG_MEMORY) => &[Self::SeenLong],
                Some(_) => &[Self::SeenDay],
                None => &[Self::SeenDay, Self::SeenLong],
            },
            Some(Kind::Base) => &[],
            _ => &[Self::Lasting],
        }
    }

    /// How long and how many are kept; nothing for what does not age.
    #[must_use]
    pub fn limit(self, keep: &Keep) -> Option<Limit> {
        match self {
            Self::Recent | Self::Aged | Self::Lasting => None,
            Self::Events => Some(keep.events),
            Self::Outputs => Some(keep.outputs),
            Self::Executions => Some(keep.executions),
            Self::SeenDay => Some(Limit { age: DAY, count: None }),
            Self::SeenLong => Some(Limit { age: LONGEST_MEMORY, count: None }),
        }
    }

    /// What lies in it, and ages.
    #[must_use]
    pub fn kinds(self) -> &'static [Kind] {
        match self {
            Self::Events => &[Kind::Events],
            Self::Outputs => &[Kind::Output],
            Self::Executions => &[Kind::Request, Kind::State, Kind::Message],
            Self::SeenDay | Self::SeenLong => &[Kind::Sighting],
            Self::Recent | Self::Aged | Self::Lasting => &[],
        }
    }

    /// What a database holds of it.
    #[must_use]
    pub fn part(self, stats: &Stats) -> Stats {
        let of_kind = |kind: &Kind| stats.get_key_value(&(*kind as u8)).map(|(kind, stats)| (*kind, stats.clone()));
        self.kinds().iter().filter_map(of_kind).collect()
    }

    /// The kind whose records a limit by number counts.
    #[must_use]
    pub fn counted(self) -> Kind {
        match self {
            Self::Events | Self::Aged | Self::Recent => Kind::Events,
            Self::Outputs => Kind::Output,
            Self::Executions | Self::Lasting => Kind::Request,
            Self::SeenDay | Self::SeenLong => Kind::Sighting,
        }
    }
}

/// The lanes that take over from a database that expires.
pub const OF_AGED: &[Lane] = &[Lane::Events, Lane::Outputs, Lane::Executions];

/// A day, the memory of senders' keys by default.
pub const DAY: std::time::Duration = std::time::Duration::from_secs(86_400);

/// The longest memory of senders' keys that a source may ask for.
pub const LONGEST_MEMORY: std::time::Duration = std::time::Duration::from_secs(31 * 86_400);

/// The second byte of a sighting's key: remembered up to a day.
pub const SHORT_MEMORY: u8 = 0;

/// The second byte of a sighting's key: remembered longer.
pub const LONG_MEMORY: u8 = 1;

/// The spans that sightings are kept in.
pub const SIGHTING_DAY_S: i64 = 86_400;

/// When the newest of the records was made, as their keys tell.
#[must_use]
pub fn newest(stats: &Stats) -> Option<DateTime<Utc>> {
    stats.iter().filter_map(|(kind, stats)| time_of(*kind, &stats.last, true)).max()
}

/// When the oldest of the records was made, as their keys tell.
#[must_use]
pub fn oldest(stats: &Stats) -> Option<DateTime<Utc>> {
    stats.iter().filter_map(|(kind, stats)| time_of(*kind, &stats.first, false)).min()
}

/// The time in a key; of a day its end or its beginning.
fn time_of(kind: u8, rest: &[u8], end: bool) -> Option<DateTime<Utc>> {
    match Kind::of(&[kind])? {
        Kind::Events | Kind::Request | Kind::State | Kind::Message | Kind::Output => {
            let mut bytes = [0; 8];
            bytes[2..].copy_from_slice(rest.get(..6)?);
            DateTime::from_timestamp_millis(i64::try_from(u64::from_be_bytes(bytes)).ok()?)
        }
        Kind::Sighting => {
            let day = i64::from(u32::from_be_bytes(rest.get(1..5)?.try_into().ok()?)) + i64::from(end);
            DateTime::from_timestamp(day * SIGHTING_DAY_S, 0)
        }
        _ => None,
    }
}

/// A database takes at most one of so many shares of what is kept, so that it can be dropped in time: what is kept is at most so much
/// too old, or too many.
pub const SHARES: u64 = 8;

/// Whether a database has been written to for long enough.
#[must_use]
pub fn is_old(stats: &Stats, age: std::time::Duration, now: DateTime<Utc>) -> bool {
    // Of a day its end: before that, what comes belongs with what is there.
    let oldest = stats.iter().filter_map(|(kind, stats)| time_of(*kind, &stats.first, true)).min();
    oldest.is_some_and(|oldest| is_long_ago(oldest, age, now))
}

/// Whether a share of what is kept has passed since.
#[must_use]
pub fn is_long_ago(since: DateTime<Utc>, age: std::time::Duration, now: DateTime<Utc>) -> bool {
    let span = Duration::from_std(age / u32::try_from(SHARES).unwrap_or(1)).unwrap_or(Duration::MAX);
    now - since > span
}

/// Whether all of a database is older than what is kept. One without any time is not. Where the clock was ahead for a while, keys are dated
/// later than the database was sealed; then that counts, unless it was filled from a backup, at no time.
#[must_use]
pub fn is_expired(stats: &Stats, sealed_at: Option<DateTime<Utc>>, age: std::time::Duration, now: DateTime<Utc>) -> bool {
    let age = Duration::from_std(age).unwrap_or(Duration::MAX);
    let sealed_at = sealed_at.filter(|at| *at > DateTime::UNIX_EPOCH);
    let newest = newest(stats).map(|newest| sealed_at.map_or(newest, |at| newest.min(at)));
    newest.is_some_and(|newest| now.checked_sub_signed(age).is_some_and(|cut| newest < cut))
}
