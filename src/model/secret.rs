//! Values that must never be shown.

use std::fmt;

/// A secret: can be compared and sent, never printed.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret value.
    #[must_use]
    pub fn new(value: String) -> Self {
        Self(value)
    }

    /// The value itself. Every caller is a place where a secret leaves; keep them few.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether `given` is the secret, in time that does not depend on where they differ.
    #[must_use]
    pub fn matches(&self, given: &str) -> bool {
        // Hashing first makes both sides equally long, so not even the length of the secret shows.
        let ours = ring::digest::digest(&ring::digest::SHA256, self.0.as_bytes());
        let theirs = ring::digest::digest(&ring::digest::SHA256, given.as_bytes());
        constant_time_eq(ours.as_ref(), theirs.as_ref())
    }
}

/// Compares two byte strings in time that depends on their lengths only.
#[must_use]
pub fn constant_time_eq(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0u8, |different, (x, y)| different | (x ^ y)) == 0
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("********")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("********")
    }
}

/// Shorter values are not masked: they would blacken ordinary text.
pub const SHORTEST_MASKED: usize = 4;

/// A secret setting or parameter as the text that must not be shown; nothing if it is too short to be told from ordinary text.
#[must_use]
pub fn maskable(value: &serde_json::Value) -> Option<String> {
    let text = match value {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Number(number) => number.to_string(),
        _ => return None,
    };
    (text.len() >= SHORTEST_MASKED).then_some(text)
}

/// Replaces secrets in a text.
pub fn mask_text(text: &mut String, secrets: &[&str]) {
    for secret in secrets {
        if text.contains(secret) {
            *text = text.replace(secret, "********");
        }
    }
}

/// Replaces secrets in every text of a value, keys included.
pub fn mask_value(value: &mut serde_json::Value, secrets: &[&str]) {
    use serde_json::Value;
    match value {
        Value::String(text) => mask_text(text, secrets),
        Value::Array(items) => items.iter_mut().for_each(|item| mask_value(item, secrets)),
        Value::Object(map) => {
            let pairs = std::mem::take(map).into_iter().map(|(mut key, mut value)| {
                mask_text(&mut key, secrets);
                mask_value(&mut value, secrets);
                (key, value)
            });
            *map = pairs.collect();
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_printed() {
        let secret = Secret::new("hunter2".into());
        assert_eq!(format!("{secret} {secret:?}"), "******** ********");
        assert!(secret.matches("hunter2"));
        assert!(!secret.matches("hunter") && !secret.matches(""));
    }
}
