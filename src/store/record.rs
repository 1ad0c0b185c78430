//! How records are stored: keys that order by time, and one versioned envelope.
//!
//! A key is a kind (one byte) and what identifies the record; wherever that is an id, its first bytes are the time, so that
//! what is written together lies and dies together. A value is `format`, `kind`, a number, and JSON. The number is the version of
//! a state, the count of the events in a record of events, 1 for what was asked for together with how it ended, and else 0.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::StoreError;
use crate::model::datastore::KeyEntry;

/// The newest format of stored values. Older ones are read, newer ones refused.
pub const FORMAT: u8 = 2;

/// The format of every value but keys of the datastore that have a version.
const COMMON_FORMAT: u8 = 1;

/// The length of the envelope before the JSON.
pub const ENVELOPE_BYTES: usize = 6;

/// Records of events are packed up to this size.
pub const PACKED_BYTES: usize = 3_800;

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Events with verdicts, several packed together; the key is the first one's id.
    Events = b'E',
    /// What was asked for.
    Request = b'X',
    /// Where an execution stood when it ended.
    State = b'Y',
    /// Where an execution stands that has not ended.
    Open = b'O',
    /// A sender's key, by length of memory, day and hash.
    Sighting = b'D',
    /// What an execution logged.
    Output = b'L',
    /// A rule by revision.
    Definition = b'd',
    /// A set of rules.
    Ruleset = b'G',
    /// A message.
    Message = b'M',
    /// A message that waits; no value.
    Waiting = b'Q',
    /// A key of the datastore.
    Key = b'K',
    /// When a key of the datastore expires; no value.
    Due = b'T',
    /// A setting of the engine.
    Setting = b'S',
    /// What a window or throttle remembers of a key.
    Window = b'W',
    /// An event of our own that has not been evaluated yet.
    Pending = b'P',
    /// The number of the last commit.
    Sequence = b's',
    /// What the database before this one held when it was full.
    Base = b'b',
}

impl Kind {
    /// Every kind.
    pub const ALL: &'static [Self] = &[
        Self::Events,
        Self::Request,
        Self::State,
        Self::Open,
        Self::Output,
        Self::Sighting,
        Self::Definition,
        Self::Ruleset,
        Self::Message,
        Self::Waiting,
        Self::Key,
        Self::Due,
        Self::Setting,
        Self::Window,
        Self::Pending,
        Self::Sequence,
        Self::Base,
    ];

    /// The kind of a key.
    #[must_use]
    pub fn of(key: &[u8]) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| key.first() == Some(&(*kind as u8)))
    }

    /// What people call what is stored so.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Request => "executions",
            Self::State => "ends of executions",
            Self::Open => "open executions",
            Self::Output => "logs of executions",
            Self::Sighting => "dedup keys",
            Self::Definition => "rules by revision",
            Self::Ruleset => "rule sets",
            Self::Message => "messages",
            Self::Waiting => "messages that wait",
            Self::Key => "keys",
            Self::Due => "keys that expire",
            Self::Setting => "settings",
            Self::Window => "windows",
            Self::Pending => "events that wait",
            Self::Sequence => "commit numbers",
            Self::Base => "links between databases",
        }
    }
}

/// What a person is told of a record: its kind, and the id if it has one.
#[must_use]
pub fn name(key: &[u8]) -> String {
    let Some(kind) = Kind::of(key) else { return format!("the record {}", crate::model::hash::hex(key)) };
    match (kind, id_bytes(key)) {
        (Kind::Setting | Kind::Key, _) => {
            format!("a record of {}, `{}`", kind.title(), String::from_utf8_lossy(&key[1..]).replace('\0', "."))
        }
        (_, Ok(id)) => format!("a record of {}, {}", kind.title(), crate::model::ids::EventId::from_bytes(id)),
        _ => format!("a record of {}", kind.title()),
    }
}

/// How many things a record holds: neighbouring events share one.
#[must_use]
pub fn items(value: &[u8]) -> u64 {
    match value {
        [_, kind, a, b, c, d, ..] if *kind == Kind::Events as u8 => u64::from(u32::from_be_bytes([*a, *b, *c, *d]).max(1)),
        _ => 1,
    }
}

/// Makes a storage key.
#[must_use]
pub fn key(kind: Kind, rest: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + rest.len());
    key.push(kind as u8);
    key.extend_from_slice(rest);
    key
}

/// The envelope of a record: everything before the JSON.
#[must_use]
pub fn envelope(kind: Kind, version: u32) -> [u8; ENVELOPE_BYTES] {
    let [a, b, c, d] = version.to_be_bytes();
    // A key that has a version is more than its value; a program that does not know that must not take it for one.
    let format = if kind == Kind::Key && version > 0 { FORMAT } else { COMMON_FORMAT };
    [format, kind as u8, a, b, c, d]
}

/// The number in the envelope of a key of the datastore: zero if there is nothing but its value.
#[must_use]
pub fn key_number(version: u64) -> u32 {
    let [.., a, b, c, d] = version.to_be_bytes();
    if version == 0 { 0 } else { u32::from_be_bytes([a, b, c, d]).max(1) }
}

/// Writes a key of the datastore.
#[must_use]
pub fn encode_entry(entry: &KeyEntry) -> Vec<u8> {
    match key_number(entry.version) {
        0 => encode(Kind::Key, 0, &entry.value),
        number => encode(Kind::Key, number, entry),
    }
}

/// Reads a key of the datastore.
///
/// # Errors
/// [`StoreError::Corrupt`] when it cannot be read.
pub fn decode_entry(bytes: &[u8]) -> Result<KeyEntry, StoreError> {
    match bytes.get(2..ENVELOPE_BYTES) {
        Some([0, 0, 0, 0]) => decode(Kind::Key, bytes).map(KeyEntry::plain),
        _ => decode(Kind::Key, bytes),
    }
}

/// Writes a record.
///
/// # Panics
/// When the value has no JSON, which the model's types always have.
pub fn encode(kind: Kind, version: u32, value: &impl Serialize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(512);
    bytes.extend_from_slice(&envelope(kind, version));
    serde_json::to_writer(&mut bytes, value).expect("model types serialize to JSON");
    bytes
}

/// Reads a record.
///
/// # Errors
/// [`StoreError::Corrupt`] when the envelope or the JSON is not what the kind needs.
pub fn decode<T: DeserializeOwned>(kind: Kind, bytes: &[u8]) -> Result<T, StoreError> {
    let body = open(kind, bytes)?;
    serde_json::from_slice(body).map_err(|error| StoreError::Corrupt(format!("a {kind:?} record cannot be read: {error}")))
}

fn open(kind: Kind, bytes: &[u8]) -> Result<&[u8], StoreError> {
    match bytes {
        [format, ..] if *format > FORMAT => Err(StoreError::Corrupt(format!(
            "a {kind:?} record has format {format}, and this program reads up to {FORMAT}; use the program that wrote it, or a newer one"
        ))),
        [COMMON_FORMAT..=FORMAT, found, _, _, _, _, body @ ..] if *found == kind as u8 => Ok(body),
        _ => Err(StoreError::Corrupt(format!("a {kind:?} record has a broken envelope"))),
    }
}

/// The number of a record of what was asked for that says how it ended as well.
const WITH_STATE: u32 = 1;

/// Whether a record of what was asked for says how it ended as well.
#[must_use]
pub fn has_state(request: &[u8]) -> bool {
    request.get(2..ENVELOPE_BYTES) == Some(&WITH_STATE.to_be_bytes())
}

/// What was asked for and how it ended, as one record; that is how executions are kept once they have ended.
#[must_use]
pub fn with_state(request: &[u8], state: &[u8]) -> Vec<u8> {
    if has_state(request) {
        return request.to_vec();
    }
    let (Some(asked), Some(ended)) = (request.get(ENVELOPE_BYTES..), state.get(ENVELOPE_BYTES..)) else { return request.to_vec() };
    [&envelope(Kind::Request, WITH_STATE)[..], b"[", asked, b",", ended, b"]"].concat()
}

/// What was asked for, and how it ended where the record says so.
///
/// # Errors
/// [`StoreError::Corrupt`] when it cannot be read.
pub fn decode_request<R: DeserializeOwned, S: DeserializeOwned>(bytes: &[u8]) -> Result<(R, Option<S>), StoreError> {
    if has_state(bytes) {
        let (request, state) = decode(Kind::Request, bytes)?;
        return Ok((request, Some(state)));
    }
    Ok((decode(Kind::Request, bytes)?, None))
}

/// The sixteen bytes at the end of a key.
///
/// # Errors
/// [`StoreError::Corrupt`] when the key is not a kind and sixteen bytes.
pub fn id_bytes(key: &[u8]) -> Result<[u8; 16], StoreError> {
    key.get(1..).and_then(|rest| rest.try_into().ok()).ok_or_else(|| StoreError::Corrupt("a key is not a kind and an id".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_what_is_not_ours_is_refused() {
        let bytes = encode(Kind::Setting, 7, &"x");
        assert_eq!(decode::<String>(Kind::Setting, &bytes).unwrap(), "x");
        let mut newer = bytes.clone();
        newer[0] = FORMAT + 1;
        assert!(decode::<String>(Kind::Setting, &newer).unwrap_err().to_string().contains("or a newer one"));
        for broken in [&bytes[..3], &bytes[..8], b"", &encode(Kind::Key, 0, &"x")[..]] {
            assert!(matches!(decode::<String>(Kind::Setting, broken), Err(StoreError::Corrupt(_))));
        }
    }
}
