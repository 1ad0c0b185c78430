//! Values that must never be shown.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use aho_corasick::{AhoCorasick, MatchKind};
use base64::Engine as _;
use base64::engine::GeneralPurpose;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde_json::Value;

/// A secret: can be compared and sent, never printed.
#[derive(Clone)]
pub struct Secret(Option<String>);

impl Secret {
    /// Wraps a secret value.
    #[must_use]
    pub fn new(value: String) -> Self {
        Self(Some(value))
    }

    /// What stands for a secret that could not be looked up. Nothing is equal to it.
    #[must_use]
    pub fn unknown() -> Self {
        Self(None)
    }

    /// The value itself. Every caller is a place where a secret leaves; keep them few.
    #[must_use]
    pub fn reveal(&self) -> &str {
        self.0.as_deref().unwrap_or_default()
    }

    /// Whether `given` is the secret, in time that does not depend on where they differ.
    #[must_use]
    pub fn matches(&self, given: &str) -> bool {
        let Some(own) = &self.0 else { return false };
        // Hashing first makes both sides equally long, so not even the length of the secret shows.
        let ours = ring::digest::digest(&ring::digest::SHA256, own.as_bytes());
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
        f.write_str(MASK)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

/// What stands for a secret wherever it would be shown.
pub const MASK: &str = "********";

/// Shorter values are not masked: they would blacken ordinary text.
pub const SHORTEST_MASKED: usize = 4;

/// Secrets that must not be shown, in every form in which they may turn up: as they are, line by line, in JSON, percent-encoded, in
/// base64 wherever they stand in what was encoded. Cheap to clone.
#[derive(Clone, Default)]
pub struct Masks(Option<Arc<Forms>>);

struct Forms {
    secrets: BTreeSet<String>,
    find: AhoCorasick,
}

impl Masks {
    /// Masks of secret settings or parameters; of lists and maps every value.
    #[must_use]
    pub fn of<'v>(values: impl IntoIterator<Item = &'v Value>) -> Self {
        Self::default().and(values)
    }

    /// The same masks and more.
    ///
    /// # Panics
    /// Never: a search for so many texts can be built.
    #[must_use]
    pub fn and<'v>(&self, values: impl IntoIterator<Item = &'v Value>) -> Self {
        let mut found = Vec::new();
        for value in values {
            collect(value, &mut found);
        }
        let known = self.0.as_ref().map(|forms| &forms.secrets);
        found.retain(|secret| secret.len() >= SHORTEST_MASKED && !known.is_some_and(|known| known.contains(secret)));
        if found.is_empty() {
            return self.clone();
        }
        let secrets: BTreeSet<String> = known.into_iter().flatten().cloned().chain(found).collect();
        let forms: BTreeSet<String> = secrets.iter().flat_map(|secret| forms(secret)).collect();
        // Of forms that begin alike the longest, or the end of a secret would stay.
        let find = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(forms);
        Self(Some(Arc::new(Forms { secrets, find: find.expect("a search for so many texts can be built") })))
    }

    /// Both masks together.
    #[must_use]
    pub fn with(&self, other: &Self) -> Self {
        let Some(forms) = &other.0 else { return self.clone() };
        self.and(&forms.secrets.iter().map(|secret| Value::from(secret.as_str())).collect::<Vec<_>>())
    }

    /// Whether a text shows one of them.
    #[must_use]
    pub fn found_in(&self, text: &str) -> bool {
        self.0.as_ref().is_some_and(|forms| forms.find.is_match(text))
    }

    /// Replaces them in a text.
    pub fn text(&self, text: &mut String) {
        if let Some(forms) = self.0.as_ref().filter(|forms| forms.find.is_match(text.as_str())) {
            let mut masked = String::with_capacity(text.len());
            forms.find.replace_all_with(text, &mut masked, |_, _, into| {
                into.push_str(MASK);
                true
            });
            *text = masked;
        }
    }

    /// Replaces them in every text and number of a value, keys included.
    pub fn value(&self, value: &mut Value) {
        if self.0.is_none() {
            return;
        }
        match value {
            Value::String(text) => self.text(text),
            Value::Number(number) if self.found_in(&number.to_string()) => *value = Value::from(MASK),
            Value::Array(items) => items.iter_mut().for_each(|item| self.value(item)),
            Value::Object(map) => {
                let pairs = std::mem::take(map).into_iter().map(|(mut key, mut value)| {
                    self.text(&mut key);
                    self.value(&mut value);
                    (key, value)
                });
                *map = pairs.collect();
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
}

impl PartialEq for Masks {
    fn eq(&self, other: &Self) -> bool {
        let secrets = |masks: &Self| masks.0.as_ref().map(|forms| forms.secrets.clone());
        secrets(self) == secrets(other)
    }
}

impl fmt::Debug for Masks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

fn collect(value: &Value, into: &mut Vec<String>) {
    match value {
        Value::String(text) => into.push(text.clone()),
        Value::Number(number) => into.push(number.to_string()),
        Value::Array(items) => items.iter().for_each(|item| collect(item, into)),
        Value::Object(map) => map.values().for_each(|item| collect(item, into)),
        Value::Null | Value::Bool(_) => {}
    }
}

/// The forms in which a secret may turn up: the whole, its lines, and the whole as one line, which addresses make of it.
fn forms(secret: &str) -> Vec<String> {
    let mut parts: BTreeSet<String> = secret.lines().map(|line| line.trim().to_string()).collect();
    parts.extend([secret.to_string(), secret.replace(['\n', '\r', '\t'], "")]);
    parts.iter().filter(|part| part.len() >= SHORTEST_MASKED).flat_map(|part| written(part)).collect()
}

/// The ways in which a text may be written.
fn written(secret: &str) -> Vec<String> {
    let mut forms = vec![secret.to_string()];
    let quoted = |text: &str| {
        let quoted = Value::from(text).to_string();
        quoted[1..quoted.len() - 1].to_string()
    };
    // As a text in JSON, and that as a text in JSON again; as others write it, without a letter beyond ASCII.
    let json = quoted(secret);
    forms.extend([quoted(&json), ascii(&json), json]);
    for (kept, space) in PERCENT {
        forms.extend([percent(secret, kept, space, false), percent(secret, kept, space, true)]);
    }
    for alphabet in [&STANDARD, &URL_SAFE] {
        forms.extend((0..3).map(|before| inside_base64(alphabet, secret.as_bytes(), before)));
        let whole = alphabet.encode(secret);
        forms.extend([whole.trim_end_matches('=').to_string(), whole]);
    }
    forms.retain(|form| form.len() >= SHORTEST_MASKED);
    forms
}

/// What is left as it is beside letters and digits, and what a space becomes, where others percent-encode: RFC 3986, forms, Python,
/// JavaScript, parts of a path, a query.
const PERCENT: &[(&[u8], &str)] = &[
    (b"-._~", "%20"),
    (b"*-._", "+"),
    (b"-._~", "+"),
    (b"-._~!*'()", "%20"),
    (b"-._~!*'()$&+,;=:@|\\[]^", "%20"),
    (b"-._~!*()$&+,;=:@|\\[]^/?%`{}", "%20"),
];

fn percent(text: &str, kept: &[u8], space: &str, lower: bool) -> String {
    let escape = |byte: u8| match byte {
        b' ' => space.to_string(),
        byte if byte.is_ascii_alphanumeric() || kept.contains(&byte) => char::from(byte).to_string(),
        byte if lower => format!("%{byte:02x}"),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}

/// JSON without a letter beyond ASCII.
fn ascii(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        if c.is_ascii() {
            text.push(c);
        } else {
            c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| text.push_str(&format!("\\u{unit:04x}")));
        }
    }
    text
}

/// The characters of base64 that bytes alone decide, if so many others stand before them.
fn inside_base64(alphabet: &GeneralPurpose, bytes: &[u8], before: usize) -> String {
    let encoded = alphabet.encode([&vec![0; before][..], bytes].concat());
    let (first, end) = ((before * 8).div_ceil(6), (before + bytes.len()) * 8 / 6);
    encoded.get(first..end).unwrap_or_default().to_string()
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

    #[test]
    fn a_secret_is_masked_in_every_form() {
        let secret = "pä ss/wo\"rd?+%~";
        let masks = Masks::of(&[serde_json::json!({"deep": [secret, 271_828]})]);
        let basic = |user: &str| STANDARD.encode(format!("{user}:{secret}"));
        let url = reqwest::Url::parse_with_params("http://h/", [("q", secret)]).unwrap().to_string();
        let mut path = reqwest::Url::parse("http://h/").unwrap();
        path.path_segments_mut().unwrap().push(secret);
        let nested = serde_json::json!({"body": serde_json::json!({"token": secret}).to_string()}).to_string();
        let python = r#"{"token": "p\u00e4 ss/wo\"rd?+%~"}"#;
        let texts = [
            secret.to_string(),
            basic("u"),
            basic("us"),
            basic("use"),
            URL_SAFE.encode(secret),
            url,
            path.to_string(),
            nested,
            python.into(),
        ];
        for text in texts {
            let mut masked = format!("before {text} after");
            masks.text(&mut masked);
            assert!(masked.contains(MASK), "{text} is not masked");
            assert!(!masked.contains("ss/wo") && !masked.contains("ss%2Fwo") && !masked.contains("c3Mvd2"), "{text} is left in {masked}");
        }
        let mut value = serde_json::json!({"pin": 271_828, "other": 1, secret: [secret]});
        masks.value(&mut value);
        assert_eq!(value, serde_json::json!({"pin": MASK, "other": 1, MASK: [MASK]}));
        let mut nothing = "ordinary text".to_string();
        masks.text(&mut nothing);
        assert_eq!(nothing, "ordinary text");
    }

    #[test]
    fn lines_are_masked_one_by_one_and_short_secrets_not_at_all() {
        let masks = Masks::of(&[serde_json::json!("first line\nsecond line\nx\n"), serde_json::json!("abc")]);
        let mut text = "abc\n  second line\nx".to_string();
        masks.text(&mut text);
        assert_eq!(text, "abc\n  ********\nx");
        let more = masks.with(&Masks::of(&[serde_json::json!("another")]));
        let mut text = "another first line".to_string();
        more.text(&mut text);
        assert_eq!(text, "******** ********");
    }
}
