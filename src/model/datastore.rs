//! The datastore: names with values, each in a scope. Rules see those of the system, packs have their own, and so have people.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::model::event::Cause;

/// The scope of the keys that rules see as `kv.system`.
pub const SYSTEM: &str = "system";

/// The longest name of a key of the system, in bytes.
pub const MAX_SYSTEM_NAME_BYTES: usize = 128;

/// The longest name of any other key, in bytes.
pub const MAX_NAME_BYTES: usize = 200;

/// The longest name of a person or token that has keys, in bytes.
pub const MAX_USER_BYTES: usize = 100;

/// The largest value, in bytes of JSON.
pub const MAX_VALUE_BYTES: usize = 64 << 10;

/// The longest time for which a key may be kept, where it says one.
pub const MAX_TTL: Duration = Duration::from_secs(3_650 * 86_400);

/// Whose keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Of the site as a whole; rules see them.
    System,
    /// Of a pack.
    Pack(String),
    /// Of who asks.
    User(String),
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System => f.write_str(SYSTEM),
            Self::Pack(name) => f.write_str(name),
            // No pack's name holds a colon.
            Self::User(name) => write!(f, "user:{name}"),
        }
    }
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let plain = |name: &str| !name.is_empty() && name.len() <= MAX_USER_BYTES && !name.chars().any(char::is_control);
        let is_pack =
            |name: &str| plain(name) && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-');
        match text.split_once(':') {
            None if text == SYSTEM => Ok(Self::System),
            Some(("user", name)) if plain(name) => Ok(Self::User(name.into())),
            None if is_pack(text) && text != "user" => Ok(Self::Pack(text.into())),
            _ => Err(format!("`{text}` is not a scope: it is system, the name of a pack, or user:NAME")),
        }
    }
}

/// What a key has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KeyEntry {
    /// Its value.
    pub value: Value,
    /// Grows with every change of the key, also over a deletion; zero for what an older version wrote.
    pub version: u64,
    /// When it was changed last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_at: Option<DateTime<Utc>>,
    /// Who changed it, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub changed_by: String,
    /// From when on it is as if it had been deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<DateTime<Utc>>,
}

impl KeyEntry {
    /// A value of which nothing else is known.
    #[must_use]
    pub fn plain(value: Value) -> Self {
        Self { value, version: 0, changed_at: None, changed_by: String::new(), expires_at: None }
    }

    /// Whether its time is over.
    #[must_use]
    pub fn has_expired(&self, now: DateTime<Utc>) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }
}

/// What is to become of a key.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// It has this value, for so long if that is said.
    Set {
        /// The value.
        value: Value,
        /// For how long.
        ttl: Option<Duration>,
    },
    /// It is gone.
    Delete,
    /// It is so much more; one that is not there counts from zero.
    Increment {
        /// How much.
        by: i64,
        /// For how long, from when it is made; one that is there keeps its time.
        ttl: Option<Duration>,
    },
}

/// On which condition a key is changed.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum If {
    /// None.
    #[default]
    Always,
    /// It is not there.
    Absent,
    /// It is there, in this version.
    Version(u64),
    /// It has this value.
    Value(Value),
}

impl If {
    /// Whether it holds for what is there.
    #[must_use]
    pub fn holds(&self, entry: Option<&KeyEntry>) -> bool {
        match self {
            Self::Always => true,
            Self::Absent => entry.is_none(),
            Self::Version(version) => entry.is_some_and(|entry| entry.version == *version),
            Self::Value(value) => entry.is_some_and(|entry| entry.value == *value),
        }
    }
}

/// A key that is to be changed.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyRequest {
    /// Whose key.
    pub scope: Scope,
    /// Its name.
    pub name: String,
    /// What is to become of it.
    pub change: Change,
    /// On which condition.
    pub only: If,
    /// Who asks, for people.
    pub by: String,
    /// The execution that asks, if one does.
    pub cause: Option<Cause>,
}

/// What became of a change.
#[derive(Clone, Debug, PartialEq)]
pub enum Changed {
    /// It was made.
    Done {
        /// What was there before.
        before: Option<KeyEntry>,
        /// What is there now.
        after: Option<KeyEntry>,
    },
    /// Its condition did not hold: somebody else was faster.
    Lost {
        /// What is there.
        entry: Option<KeyEntry>,
    },
}

/// Whether a key may be named so.
///
/// # Errors
/// Why not, in words.
pub fn check_name(scope: &Scope, name: &str) -> Result<(), String> {
    let (most, allowed) = match scope {
        Scope::System => (MAX_SYSTEM_NAME_BYTES, "letters, digits, `_`, `.` and `-`"),
        Scope::Pack(_) | Scope::User(_) => (MAX_NAME_BYTES, "bytes without control characters"),
    };
    let plain = |c: char| if *scope == Scope::System { c.is_ascii_alphanumeric() || "_.-".contains(c) } else { !c.is_control() };
    if name.chars().all(plain) && !name.bytes().all(|byte| byte == b'.') && name.len() <= most {
        return Ok(());
    }
    let shown: String = name.chars().take(most).collect();
    Err(format!("`{shown}` is not a name for a key: it has 1 to {most} {allowed}"))
}

/// Whether a key may have the value.
///
/// # Errors
/// Why not, in words.
pub fn check_value(name: &str, value: &Value) -> Result<(), String> {
    let bytes = value.to_string().len();
    if bytes > MAX_VALUE_BYTES {
        return Err(format!("the value of `{name}` has {bytes} bytes as JSON, and {MAX_VALUE_BYTES} are allowed"));
    }
    Ok(())
}

/// Whether a key may be kept for so long.
///
/// # Errors
/// Why not, in words.
pub fn check_ttl(ttl: Duration) -> Result<(), String> {
    if ttl < Duration::from_millis(1) || ttl > MAX_TTL {
        return Err("`ttl` must be from 1ms to 3650d".into());
    }
    Ok(())
}

/// The value after an increment.
///
/// # Errors
/// When there is something else than a whole number, or the sum is too large.
pub fn incremented(name: &str, before: Option<&Value>, by: i64) -> Result<Value, String> {
    let number = match before {
        None => 0,
        Some(value) => value.as_i64().ok_or_else(|| format!("key `{name}` is not a whole number, so it cannot be incremented"))?,
    };
    let sum = number.checked_add(by).ok_or_else(|| format!("key `{name}` is {number}, and {by} more is larger than a number may be"))?;
    Ok(Value::from(sum))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_written_and_read() {
        for text in ["system", "marathon", "user:li", "user:token ci"] {
            assert_eq!(text.parse::<Scope>().unwrap().to_string(), text);
        }
        for wrong in ["", "user", "user:", "Marathon", "sensor:a.b", ":secrets", "a b", "user:a\0b"] {
            assert!(wrong.parse::<Scope>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_and_sums_have_bounds() {
        let pack = Scope::Pack("p".into());
        for (scope, name, fits) in [
            (&Scope::System, "max_cpu-1.2", true),
            (&Scope::System, "a b", false),
            (&Scope::System, "..", false),
            (&pack, "app/a b", true),
            (&pack, "", false),
            (&pack, "a\nb", false),
        ] {
            assert_eq!(check_name(scope, name).is_ok(), fits, "{name:?}");
        }
        assert_eq!(incremented("n", None, 2), Ok(Value::from(2)));
        assert_eq!(incremented("n", Some(&Value::from(5)), -7), Ok(Value::from(-2)));
        assert!(incremented("n", Some(&Value::from(i64::MAX)), 1).is_err());
        assert!(incremented("n", Some(&Value::from("5")), 1).is_err());
    }
}
