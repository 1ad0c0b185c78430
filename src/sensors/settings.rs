//! Reading a sensor's settings one by one: what is unknown, missing or of the wrong type is a fault that names the setting.

use std::time::Duration;

use serde_json::{Map, Value};

use super::SetupFault;
use crate::document::fields::did_you_mean;
use crate::model::duration;
use crate::model::json::type_name;

/// Settings that are being read. Call [`Settings::finish`] when all have been asked for.
pub struct Settings<'s> {
    what: &'static str,
    values: &'s Map<String, Value>,
    known: Vec<&'static str>,
}

impl<'s> Settings<'s> {
    /// Starts reading; `what` they belong to, for messages: `a timer`.
    #[must_use]
    pub fn of(what: &'static str, values: &'s Map<String, Value>) -> Self {
        Self { what, values, known: Vec::new() }
    }

    /// A value, if it is there and not null.
    pub fn value(&mut self, name: &'static str) -> Option<&'s Value> {
        self.known.push(name);
        self.values.get(name).filter(|value| !value.is_null())
    }

    /// Text.
    ///
    /// # Errors
    /// When it is something else.
    pub fn text(&mut self, name: &'static str) -> Result<Option<&'s str>, SetupFault> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(wrong(name, "text", other)),
        }
    }

    /// A duration within bounds; a bare number is seconds.
    ///
    /// # Errors
    /// When it is none, or out of bounds.
    pub fn duration(&mut self, name: &'static str, least: Duration, most: Duration) -> Result<Option<Duration>, SetupFault> {
        let span = match self.value(name) {
            None => return Ok(None),
            Some(Value::String(text)) => duration::parse(text),
            Some(Value::Number(number)) => duration::parse(&number.to_string()),
            Some(other) => return Err(wrong(name, "a duration such as 30s", other)),
        };
        let span = span.map_err(|message| SetupFault::Setting(name, message))?;
        if span < least || span > most {
            let bounds = format!("must be from {} to {}", duration::format(least), duration::format(most));
            return Err(SetupFault::Setting(name, bounds));
        }
        Ok(Some(span))
    }

    /// A whole number within bounds.
    ///
    /// # Errors
    /// When it is none, or out of bounds.
    pub fn count(&mut self, name: &'static str, least: usize, most: usize) -> Result<Option<usize>, SetupFault> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let count = value.as_u64().and_then(|count| usize::try_from(count).ok()).filter(|count| (least..=most).contains(count));
        count.map(Some).ok_or_else(|| SetupFault::Setting(name, format!("must be a whole number from {least} to {most}")))
    }

    /// One of a list of words.
    ///
    /// # Errors
    /// When it is none of them.
    pub fn word(&mut self, name: &'static str, words: &[&'static str]) -> Result<Option<&'static str>, SetupFault> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let found = words.iter().find(|word| **word == text).copied();
        found.map(Some).ok_or_else(|| SetupFault::Setting(name, format!("cannot be `{text}`; {}", did_you_mean(text, words))))
    }

    /// A map.
    ///
    /// # Errors
    /// When it is something else.
    pub fn map(&mut self, name: &'static str) -> Result<Option<&'s Map<String, Value>>, SetupFault> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(map)),
            Some(other) => Err(wrong(name, "a map", other)),
        }
    }

    /// A list of texts.
    ///
    /// # Errors
    /// When it is something else.
    pub fn texts(&mut self, name: &'static str) -> Result<Option<Vec<String>>, SetupFault> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let items = value.as_array().ok_or_else(|| wrong(name, "a list of texts", value))?;
        let text = |item: &Value| item.as_str().map(String::from).ok_or_else(|| wrong(name, "a list of texts", item));
        items.iter().map(text).collect::<Result<_, _>>().map(Some)
    }

    /// A fault of these settings as a whole.
    #[must_use]
    pub fn fault(&self, message: &str) -> SetupFault {
        SetupFault::Setting("", format!("{} {message}", self.what))
    }

    /// Refuses what nobody asked for.
    ///
    /// # Errors
    /// When there is such a setting; names the first.
    pub fn finish(&self) -> Result<(), SetupFault> {
        let Some(unknown) = self.values.keys().find(|name| !self.known.contains(&name.as_str())) else { return Ok(()) };
        let message = format!("{} has no setting `{unknown}`; {}", self.what, did_you_mean(unknown, &self.known));
        Err(SetupFault::Unknown(unknown.clone(), message))
    }
}

/// A setting of the wrong type.
#[must_use]
pub fn wrong(name: &'static str, expected: &str, value: &Value) -> SetupFault {
    SetupFault::Setting(name, format!("must be {expected}, not {}", type_name(value)))
}
