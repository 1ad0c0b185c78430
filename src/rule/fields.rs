//! Reads from the bytes of a payload the fields that some rule names, in one pass, and nothing else.
//!
//! The whole text is still checked to be JSON. Where a key stands twice, the last one counts, as everywhere else.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::seen::Seen;
use crate::model::json;
use crate::model::path::{FieldPath, Step, first};

/// Which fields to read, and into which slots.
#[derive(Debug, Default)]
pub struct FieldReader {
    root: Branch,
    paths: Vec<FieldPath>,
}

/// What was read: one slot for each path, and whether the payload holds anything at all.
#[derive(Debug)]
pub struct Fields<'p> {
    /// The first value of each path.
    pub slots: Vec<Seen<'p>>,
    /// Whether the payload is null, or an empty object, list or text.
    pub empty: bool,
}

#[derive(Debug, Default)]
struct Branch {
    /// Paths below here that need the whole value: they end here, or go on through a list.
    whole: Vec<(usize, Vec<Step>)>,
    children: Vec<(String, Branch)>,
}

impl FieldReader {
    /// The slot of a path; equal paths share one.
    pub fn slot(&mut self, path: &FieldPath) -> usize {
        if let Some(slot) = self.paths.iter().position(|known| known == path) {
            return slot;
        }
        let slot = self.paths.len();
        self.paths.push(path.clone());
        let names: Vec<&String> =
            path.steps.iter().map_while(|step| if let Step::Field(name) = step { Some(name) } else { None }).collect();
        let mut branch = &mut self.root;
        for name in &names {
            let index = branch.children.iter().position(|(child, _)| child == *name).unwrap_or_else(|| {
                branch.children.push(((*name).clone(), Branch::default()));
                branch.children.len() - 1
            });
            branch = &mut branch.children[index].1;
        }
        branch.whole.push((slot, path.steps[names.len()..].to_vec()));
        slot
    }

    /// Reads the fields.
    ///
    /// # Errors
    /// When the text is not JSON, or a wanted number does not fit.
    pub fn read<'p>(&self, payload: &'p str) -> Result<Fields<'p>, String> {
        let mut fields = Fields { slots: vec![Seen::Missing; self.paths.len()], empty: true };
        let mut deserializer = serde_json::Deserializer::from_str(payload);
        let seed = Reading { branch: &self.root, slots: &mut fields.slots };
        fields.empty = seed.deserialize(&mut deserializer).map_err(|error| json::describe(&error))?;
        deserializer.end().map_err(|error| json::describe(&error))?;
        Ok(fields)
    }
}

struct Reading<'a, 'p> {
    branch: &'a Branch,
    slots: &'a mut Vec<Seen<'p>>,
}

impl Branch {
    fn fill(&self, value: &Value, slots: &mut [Seen<'_>]) {
        for (slot, rest) in &self.whole {
            slots[*slot] = first(rest, value).map_or(Seen::Missing, |found| owned(found));
        }
        for (name, child) in &self.children {
            if let Some(inner) = value.get(name) {
                child.fill(inner, slots);
            }
        }
    }

    fn clear(&self, slots: &mut [Seen<'_>]) {
        for (slot, _) in &self.whole {
            slots[*slot] = Seen::Missing;
        }
        for (_, child) in &self.children {
            child.clear(slots);
        }
    }
}

/// A value that outlives what it was found in.
fn owned<'p>(value: &Value) -> Seen<'p> {
    match Seen::of(value) {
        Seen::Text(text) => Seen::Text(Cow::Owned(text.into_owned())),
        Seen::Nested(value) => Seen::Nested(Cow::Owned(value.into_owned())),
        Seen::Missing => Seen::Missing,
        Seen::Null => Seen::Null,
        Seen::Bool(flag) => Seen::Bool(flag),
        Seen::Int(whole) => Seen::Int(whole),
        Seen::Uint(whole) => Seen::Uint(whole),
        Seen::Float(number) => Seen::Float(number),
    }
}

impl<'de> DeserializeSeed<'de> for Reading<'_, 'de> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        if self.branch.whole.is_empty() {
            return deserializer.deserialize_any(self);
        }
        let value: Value = serde::Deserialize::deserialize(deserializer)?;
        self.branch.fill(&value, self.slots);
        Ok(match &value {
            Value::Null => true,
            Value::Object(map) => map.is_empty(),
            Value::Array(items) => items.is_empty(),
            Value::String(text) => text.is_empty(),
            _ => false,
        })
    }
}

/// Answers whether the value is empty.
impl<'de> Visitor<'de> for Reading<'_, 'de> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        let (mut empty, mut seen) = (true, 0u64);
        while let Some(wanted) = map.next_key_seed(KeyOf(&self.branch.children))? {
            empty = false;
            let Some(index) = wanted else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let child = &self.branch.children[index].1;
            let bit = 1u64 << (index % 64);
            if seen & bit != 0 {
                child.clear(self.slots);
            }
            seen |= bit;
            map.next_value_seed(Reading { branch: child, slots: self.slots })?;
        }
        Ok(empty)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<bool, A::Error> {
        let mut empty = true;
        while items.next_element::<IgnoredAny>()?.is_some() {
            empty = false;
        }
        Ok(empty)
    }

    fn visit_str<E>(self, text: &str) -> Result<bool, E> {
        Ok(text.is_empty())
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(true)
    }

    fn visit_bool<E>(self, _: bool) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_i64<E>(self, _: i64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_u64<E>(self, _: u64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_f64<E>(self, _: f64) -> Result<bool, E> {
        Ok(false)
    }
}

/// Finds the child of a key without making a string of it.
struct KeyOf<'a>(&'a [(String, Branch)]);

impl<'de> DeserializeSeed<'de> for KeyOf<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<usize>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeyOf<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Option<usize>, E> {
        Ok(self.0.iter().position(|(name, _)| name == key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reading_by_pass_and_by_value_agree() {
        let paths = ["trigger.a.b", "trigger.a", "trigger.list[0].n", "trigger.list[*].m", "trigger['x.y']", "trigger.z.z", "trigger"];
        let payloads = [
            json!({"a": {"b": 1, "c": [1]}, "list": [{"n": 1}, {"m": 2}], "x.y": "t", "z": 5}),
            json!({"a": 1, "list": {"n": 1}}),
            json!([]),
            json!(null),
            json!("text"),
            json!({}),
        ];
        for count in 1..=paths.len() {
            let mut reader = FieldReader::default();
            let wanted: Vec<FieldPath> = paths[..count].iter().map(|path| FieldPath::parse(path).unwrap()).collect();
            let slots: Vec<usize> = wanted.iter().map(|path| reader.slot(path)).collect();
            for payload in &payloads {
                let text = payload.to_string();
                let fields = reader.read(&text).unwrap();
                for (path, slot) in wanted.iter().zip(&slots) {
                    let expected = path.first(payload).map_or(Seen::Missing, Seen::of);
                    assert_eq!(fields.slots[*slot], expected, "{path:?} in {payload}");
                }
                assert_eq!(fields.empty, [json!([]), json!(null), json!({})].contains(payload), "{payload}");
            }
        }
    }

    #[test]
    fn the_last_of_equal_keys_counts_and_bad_json_is_refused() {
        let mut reader = FieldReader::default();
        let slot = reader.slot(&FieldPath::parse("trigger.a.b").unwrap());
        assert_eq!(reader.read(r#"{"a":{"b":1},"a":{"b":2}}"#).unwrap().slots[slot], Seen::Int(2));
        assert_eq!(reader.read(r#"{"a":{"b":1},"a":{}}"#).unwrap().slots[slot], Seen::Missing);
        assert!(reader.read(r#"{"a":{"b":1}} x"#).is_err());
        assert!(reader.read(r#"{"a":{"b":1},"c":tru}"#).is_err());
    }
}
