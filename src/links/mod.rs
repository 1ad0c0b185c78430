//! Links that work: Kibana Discover of four generations, Grafana old and new, Zipkin. Pure.
//!
//! Every link is safe inside chat: quotes, parentheses and blanks are percent-encoded, because clients cut links there.

pub mod grafana;
pub mod kibana;
pub mod rison;
pub mod zipkin;

use chrono::DateTime;
use serde_json::{Map, Value};

/// Percent-encodes everything but letters, digits and `-_.~`, and what is in `also`.
#[must_use]
pub fn percent_encode(text: &str, also: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) || also.contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// A link in Markdown; the text cannot end it early.
#[must_use]
pub fn markdown(text: &str, url: &str) -> String {
    let text = text.replace('\\', "\\\\").replace('[', "\\[").replace(']', "\\]");
    format!("[{text}]({})", url.replace('(', "%28").replace(')', "%29").replace(' ', "%20"))
}

/// The options of a link, with errors that name the option.
pub(crate) struct Options<'o> {
    kind: &'static str,
    map: &'o Map<String, Value>,
}

impl<'o> Options<'o> {
    pub(crate) fn new(kind: &'static str, map: &'o Map<String, Value>, known: &[&str]) -> Result<Self, String> {
        if let Some(unknown) = map.keys().find(|key| !known.contains(&key.as_str())) {
            return Err(format!("links.{kind} has no option `{unknown}`; it takes {}", known.join(", ")));
        }
        Ok(Self { kind, map })
    }

    pub(crate) fn text(&self, name: &str) -> Result<Option<String>, String> {
        match self.map.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(Value::Number(number)) => Ok(Some(number.to_string())),
            Some(other) => Err(format!("links.{}: `{name}` must be text, not {other}", self.kind)),
        }
    }

    pub(crate) fn required(&self, name: &str) -> Result<String, String> {
        self.text(name)?.ok_or_else(|| format!("links.{} needs `{name}`", self.kind))
    }

    /// The base address, checked to be http or https, without a slash at the end.
    pub(crate) fn base(&self) -> Result<String, String> {
        let url = self.required("url")?;
        if !url.starts_with("http://") && !url.starts_with("https://") {
            return Err(format!("links.{}: `url` must start with http:// or https://, not `{url}`", self.kind));
        }
        Ok(url.trim_end_matches('/').to_string())
    }

    pub(crate) fn value(&self, name: &str) -> Option<&'o Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    /// A time: RFC 3339, or relative to now (`now-1h`).
    pub(crate) fn time(&self, name: &str, otherwise: &str) -> Result<Time, String> {
        let text = self.text(name)?.unwrap_or_else(|| otherwise.to_string());
        Time::parse(&text).map_err(|error| format!("links.{}: `{name}`: {error}", self.kind))
    }
}

/// One end of a range of time.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Time {
    /// `now`, `now-1h`, `now/d`.
    Relative(String),
    /// A moment, in milliseconds since 1970.
    At(i64),
}

impl Time {
    fn parse(text: &str) -> Result<Self, String> {
        let relative = text.strip_prefix("now").is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-/".contains(&b)));
        if relative {
            return Ok(Self::Relative(text.to_string()));
        }
        let at = DateTime::parse_from_rfc3339(text).map_err(|_| format!("`{text}` is neither RFC 3339 nor relative such as now-1h"))?;
        Ok(Self::At(at.timestamp_millis()))
    }

    /// As RFC 3339 in UTC with milliseconds, or relative.
    pub(crate) fn iso(&self) -> String {
        match self {
            Self::Relative(text) => text.clone(),
            Self::At(ms) => DateTime::from_timestamp_millis(*ms).unwrap_or_default().to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
        }
    }

    /// As milliseconds, or relative.
    pub(crate) fn ms(&self) -> String {
        match self {
            Self::Relative(text) => text.clone(),
            Self::At(ms) => ms.to_string(),
        }
    }
}
