//! Values that are stored so that only who has the key can read them.
//!
//! Each is sealed with ChaCha20-Poly1305 under a key of its own, derived from one of the site's keys and 16 random bytes, so no number of
//! values comes near a limit. What it is for (the name of a secret, the id of an execution) is bound to it: moved to another place it does
//! not open.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::hmac;
use serde::{Deserialize, Serialize};

use crate::model::hash::{hex, sha256_hex};

/// The length of a key, in bytes.
pub const KEY_BYTES: usize = 32;

/// Random bytes for each value.
pub const SALT_BYTES: usize = 16;

/// Characters of a key's name.
const NAME_CHARACTERS: usize = 8;

/// A value that only the key opens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// The name of the key.
    pub key: String,
    salt: String,
    text: String,
}

/// A key that seals and opens. It has a name that says nothing of it, so that it is known which one is needed.
#[derive(Clone, PartialEq, Eq)]
pub struct SealKey {
    name: String,
    bytes: [u8; KEY_BYTES],
}

impl SealKey {
    /// A key of such bytes.
    #[must_use]
    pub fn new(bytes: [u8; KEY_BYTES]) -> Self {
        let name = sha256_hex(&[b"signalman key name ", &bytes[..]].concat());
        Self { name: name[..NAME_CHARACTERS].to_string(), bytes }
    }

    /// Reads a key as people keep it: 32 bytes in hexadecimal or base64.
    ///
    /// # Errors
    /// What is expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let pairs = || (0..KEY_BYTES).map(|at| u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()).collect::<Option<Vec<u8>>>();
        let bytes = if text.len() == 2 * KEY_BYTES { pairs() } else { STANDARD.decode(text).ok() };
        let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self::new).ok_or_else(|| "a key is 32 bytes in hexadecimal or base64, as `openssl rand -hex 32` makes them".into())
    }

    /// The key as it is kept in a file.
    #[must_use]
    pub fn written(&self) -> String {
        hex(&self.bytes)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    fn for_salt(&self, salt: &[u8]) -> LessSafeKey {
        let derived = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &self.bytes), &[b"signalman seal 1 ", salt].concat());
        LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, derived.as_ref()).expect("a digest of 32 bytes is a key"))
    }
}

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key {}", self.name)
    }
}

/// The keys of a site: the first seals, each opens what it has sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keyring(Vec<SealKey>);

impl Keyring {
    /// Keys, the one that seals first.
    #[must_use]
    pub fn new(first: SealKey, older: Vec<SealKey>) -> Self {
        let mut keys = vec![first];
        keys.extend(older);
        Self(keys)
    }

    /// The keys, the one that seals first.
    #[must_use]
    pub fn keys(&self) -> &[SealKey] {
        &self.0
    }

    /// The name of the key that seals.
    #[must_use]
    pub fn current(&self) -> &str {
        self.0.first().map_or("", SealKey::name)
    }

    /// Seals a value for a purpose.
    ///
    /// # Panics
    /// Never: values are far smaller than what can be sealed.
    #[must_use]
    pub fn seal(&self, purpose: &str, salt: [u8; SALT_BYTES], plain: &[u8]) -> Sealed {
        let key = &self.0[0];
        let mut text = plain.to_vec();
        // The key is used once, so the nonce can be the same for all.
        let nonce = Nonce::assume_unique_for_key([0; 12]);
        key.for_salt(&salt).seal_in_place_append_tag(nonce, Aad::from(purpose), &mut text).expect("values are small");
        Sealed { key: key.name.clone(), salt: STANDARD.encode(salt), text: STANDARD.encode(text) }
    }

    /// Opens a value that was sealed for that purpose.
    ///
    /// # Errors
    /// Which key is missing, or that it is not what was sealed.
    pub fn open(&self, purpose: &str, sealed: &Sealed) -> Result<Vec<u8>, String> {
        let key = self.0.iter().find(|key| key.name == sealed.key);
        let key = key.ok_or_else(|| format!("it is sealed with the key `{}`, which is not among the keys of this site", sealed.key))?;
        let broken = || "it is not what was sealed".to_string();
        let (salt, mut text) = (STANDARD.decode(&sealed.salt).map_err(|_| broken())?, STANDARD.decode(&sealed.text).map_err(|_| broken())?);
        let nonce = Nonce::assume_unique_for_key([0; 12]);
        let plain = key.for_salt(&salt).open_in_place(nonce, Aad::from(purpose), &mut text).map_err(|_| broken())?;
        Ok(plain.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_key_opens_and_only_what_was_sealed_there() {
        let (first, second) = (SealKey::new([1; 32]), SealKey::new([2; 32]));
        let old = Keyring::new(first.clone(), vec![]);
        let sealed = old.seal("secret/a", [7; 16], b"hunter2");
        assert!(!serde_json::to_string(&sealed).unwrap().contains("hunter2"));
        let both = Keyring::new(second.clone(), vec![first]);
        assert_eq!(both.open("secret/a", &sealed).unwrap(), b"hunter2");
        assert!(both.open("secret/b", &sealed).unwrap_err().contains("not what was sealed"), "a secret cannot take another's place");
        assert!(Keyring::new(second, vec![]).open("secret/a", &sealed).unwrap_err().contains("not among the keys"));
        let changed = Sealed { text: STANDARD.encode(b"something else, long enough"), ..sealed.clone() };
        assert!(both.open("secret/a", &changed).is_err());
        assert_ne!(old.seal("secret/a", [8; 16], b"hunter2"), sealed);
        assert_eq!(both.current(), both.keys()[0].name());
    }

    #[test]
    fn keys_are_read_as_people_keep_them() {
        let key = SealKey::new(std::array::from_fn(|n| u8::try_from(n).unwrap()));
        assert_eq!(SealKey::parse(&format!("{}\n", key.written())).unwrap(), key);
        assert_eq!(SealKey::parse("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").unwrap(), key);
        for wrong in ["", "short", "zz", &"é".repeat(32)] {
            assert!(SealKey::parse(wrong).unwrap_err().contains("openssl rand -hex 32"), "{wrong}");
        }
        assert!(!format!("{key:?}").contains(&key.written()));
    }
}
