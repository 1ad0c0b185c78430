//! Content hashes: the revision of a rule or action is the SHA-256 of its canonical JSON.

use serde::{Deserialize, Serialize};

/// The revision of a definition: SHA-256 of its canonical JSON, in lower-case hexadecimal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(pub String);

impl Revision {
    /// The revision of anything that serializes; object keys are sorted first, so the order of fields does not matter.
    ///
    /// # Panics
    /// When the value cannot be written as JSON, which the model types always can.
    pub fn of(definition: &impl Serialize) -> Self {
        Digest::of(definition).revision()
    }

    /// The first twelve characters, as shown to people.
    #[must_use]
    pub fn short(&self) -> &str {
        &self.0[..self.0.len().min(12)]
    }
}

/// A revision as it is calculated, which takes less room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of anything that serializes, as [`Revision::of`].
    ///
    /// # Panics
    /// When the value cannot be written as JSON, which the model types always can.
    pub fn of(definition: &impl Serialize) -> Self {
        let value = serde_json::to_value(definition).expect("model types serialize to JSON");
        let mut bytes = [0; 32];
        bytes.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, value.to_string().as_bytes()).as_ref());
        Self(bytes)
    }

    /// The same as text.
    #[must_use]
    pub fn revision(self) -> Revision {
        Revision(hex(&self.0))
    }
}

/// SHA-256 in lower-case hexadecimal.
#[must_use]
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref())
}

/// The first eight bytes of SHA-256 as a number: enough to tell two bodies apart, not to withstand forgery.
#[must_use]
pub fn fingerprint(bytes: &[u8]) -> u64 {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    let mut first = [0u8; 8];
    first.copy_from_slice(&digest.as_ref()[..8]);
    u64::from_be_bytes(first)
}

/// Bytes as lower-case hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}
