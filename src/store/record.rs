//! How records are stored: keys that order by time, and one versioned envelope.
//!
//! A key is a kind (one byte) and what identifies the record; wherever that is an id, its first bytes are the time, so that
//! what is written together lies and dies together. A value is `format`, `kind`, a version number, and JSON.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::StoreError;

/// The format of stored values that this program writes. Older ones are read, newer ones refused.
pub const FORMAT: u8 = 1;

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
    /// A sender's key, by day and hash.
    Sighting = b'D',
    /// A rule by revision.
    Definition = b'd',
    /// A set of rules.
    Ruleset = b'G',
    /// A message.
    Message = b'M',
    /// A message that waits; no value.
    Waiting = b'Q',
    /// A pack's key.
    Key = b'K',
    /// A setting of the engine.
    Setting = b'S',
    /// The number of the last commit.
    Sequence = b's',
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
    [FORMAT, kind as u8, a, b, c, d]
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
        [FORMAT, found, _, _, _, _, body @ ..] if *found == kind as u8 => Ok(body),
        _ => Err(StoreError::Corrupt(format!("a {kind:?} record has a broken envelope"))),
    }
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
