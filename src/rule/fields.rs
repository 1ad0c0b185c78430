//! Reads from the bytes of a payload the fields that some rule names, in one pass, and nothing else.
//!
//! The whole text is still checked to be JSON. Where a key stands twice, the last one counts, as everywhere else.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use foldhash::fast::FixedState;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::seen::Seen;
use crate::model::json;
use crate::model::path::{FieldPath, Step, first};

/// So many names are compared one by one; more are hashed.
const COMPARED: usize = 8;

/// Which fields to read, and into which slots.
#[derive(Debug, Default)]
pub struct FieldReader {
    root: Branch,
    slots: HashMap<FieldPath, usize, FixedState>,
}

/// What was read: one slot for each path, and whether the payload holds anything at all.
#[derive(Debug)]
pub struct Fields<'p> {
    /// The first value of each path.
    pub slots: Vec<Seen<'p>>,
    /// Whether the payload is null, or an empty object, list or text.
    pub empty: bool,
}

/// A place in the payload, and what is wanted from there on.
#[derive(Debug, Default)]
struct Branch {
    /// The slot of the path that ends here.
    end: Option<usize>,
    /// Paths that go on through a list, or through any field.
    beyond: Vec<(usize, Vec<Step>)>,
    children: Children,
}

#[derive(Debug, Default)]
struct Children {
    list: Vec<(Box<str>, Branch)>,
    /// The position of each, where they are many.
    by_name: HashMap<Box<str>, usize, FixedState>,
}

impl Children {
    fn position(&self, name: &str) -> Option<usize> {
        if self.by_name.is_empty() { self.list.iter().position(|(known, _)| **known == *name) } else { self.by_name.get(name).copied() }
    }

    fn grow(&mut self, name: &str) -> &mut Branch {
        let index = self.position(name).unwrap_or_else(|| {
            let index = self.list.len();
            self.list.push((name.into(), Branch::default()));
            if self.list.len() > COMPARED {
                let new = if self.by_name.is_empty() { 0 } else { index };
                self.by_name.extend((new..=index).map(|index| (self.list[index].0.clone(), index)));
            }
            index
        });
        &mut self.list[index].1
    }
}

impl FieldReader {
    /// The slot of a path; equal paths share one.
    pub fn slot(&mut self, path: &FieldPath) -> usize {
        if let Some(slot) = self.slots.get(path) {
            return *slot;
        }
        let slot = self.slots.len();
        self.slots.insert(path.clone(), slot);
        let mut branch = &mut self.root;
        for (index, step) in path.steps.iter().enumerate() {
            let Step::Field(name) = step else {
                branch.beyond.push((slot, path.steps[index..].to_vec()));
                return slot;
            };
            branch = branch.children.grow(name);
        }
        branch.end = Some(slot);
        slot
    }

    /// Reads the fields.
    ///
    /// # Errors
    /// When the text is not JSON, or a wanted number does not fit.
    pub fn read<'p>(&self, payload: &'p str) -> Result<Fields<'p>, String> {
        let mut fields = Fields { slots: vec![Seen::Missing; self.slots.len()], empty: true };
        let mut deserializer = serde_json::Deserializer::from_str(payload);
        let seed = Reading { branch: &self.root, slots: &mut fields.slots };
        fields.empty = seed.deserialize(&mut deserializer).map_err(|error| json::describe(&error))?;
        deserializer.end().map_err(|error| json::describe(&error))?;
        Ok(fields)
    }
}

struct Reading<'a, 'p> {
    branch: &'a Branch,
    slots: &'a mut [Seen<'p>],
}

impl Branch {
    /// Whether what stands here is needed as a whole.
    fn is_whole(&self) -> bool {
        self.end.is_some() || !self.beyond.is_empty()
    }

    fn fill(&self, value: Value, slots: &mut [Seen<'_>]) {
        self.below(&value, slots);
        if let Some(slot) = self.end {
            slots[slot] = Seen::owned(value);
        }
    }

    fn below(&self, value: &Value, slots: &mut [Seen<'_>]) {
        for (slot, rest) in &self.beyond {
            slots[*slot] = first(rest, value).map_or(Seen::Missing, |found| Seen::owned(found.clone()));
        }
        for (name, child) in &self.children.list {
            let Some(inner) = value.get(&**name) else { continue };
            child.below(inner, slots);
            if let Some(slot) = child.end {
                slots[slot] = Seen::owned(inner.clone());
            }
        }
    }

    fn clear(&self, slots: &mut [Seen<'_>]) {
        for slot in self.end.iter().chain(self.beyond.iter().map(|(slot, _)| slot)) {
            slots[*slot] = Seen::Missing;
        }
        for (_, child) in &self.children.list {
            child.clear(slots);
        }
    }
}

impl<'p> Reading<'_, 'p> {
    fn scalar(self, value: Seen<'p>) {
        if !self.branch.beyond.is_empty() {
            self.branch.below(&value.to_value(), self.slots);
        }
        if let Some(slot) = self.branch.end {
            self.slots[slot] = value;
        }
    }
}

impl<'de> DeserializeSeed<'de> for Reading<'_, 'de> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// Answers whether the value is empty.
impl<'de> Visitor<'de> for Reading<'_, 'de> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        if self.branch.is_whole() {
            let value = Value::deserialize(MapAccessDeserializer::new(map))?;
            let empty = value.as_object().is_some_and(serde_json::Map::is_empty);
            self.branch.fill(value, self.slots);
            return Ok(empty);
        }
        // Children that share a bit are cleared more often than they need; what is cleared is read right afterwards.
        let (mut empty, mut seen) = (true, 0u64);
        while let Some(wanted) = map.next_key_seed(KeyOf(&self.branch.children))? {
            empty = false;
            let Some(index) = wanted else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let child = &self.branch.children.list[index].1;
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
        if self.branch.is_whole() {
            let value = Value::deserialize(SeqAccessDeserializer::new(items))?;
            let empty = value.as_array().is_some_and(Vec::is_empty);
            self.branch.fill(value, self.slots);
            return Ok(empty);
        }
        let mut empty = true;
        while items.next_element::<IgnoredAny>()?.is_some() {
            empty = false;
        }
        Ok(empty)
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<bool, E> {
        self.scalar(Seen::Text(Cow::Borrowed(text)));
        Ok(text.is_empty())
    }

    fn visit_str<E>(self, text: &str) -> Result<bool, E> {
        if self.branch.is_whole() {
            self.scalar(Seen::Text(Cow::Owned(text.to_string())));
        }
        Ok(text.is_empty())
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        self.scalar(Seen::Null);
        Ok(true)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<bool, E> {
        self.scalar(Seen::Bool(flag));
        Ok(false)
    }

    fn visit_i64<E>(self, whole: i64) -> Result<bool, E> {
        self.scalar(Seen::Int(whole));
        Ok(false)
    }

    fn visit_u64<E>(self, whole: u64) -> Result<bool, E> {
        self.scalar(i64::try_from(whole).map_or(Seen::Uint(whole), Seen::Int));
        Ok(false)
    }

    fn visit_f64<E>(self, number: f64) -> Result<bool, E> {
        self.scalar(Seen::Float(number));
        Ok(false)
    }
}

/// Finds the child of a key without making a string of it.
struct KeyOf<'a>(&'a Children);

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
        Ok(self.0.position(key))
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
    fn many_names_are_found_as_few_are() {
        let mut reader = FieldReader::default();
        let slots: Vec<usize> = (0..200).map(|n| reader.slot(&FieldPath::parse(&format!("trigger.f{n}")).unwrap())).collect();
        let fields: Vec<String> = (0..200).rev().map(|n| format!("\"f{n}\": {n}, \"g{n}\": []")).collect();
        let text = format!("{{{}, \"f0\": \"\\u0061\", \"f64\": null}}", fields.join(","));
        let fields = reader.read(&text).unwrap();
        assert_eq!(fields.slots[slots[0]], Seen::Text("a".into()));
        assert_eq!(fields.slots[slots[64]], Seen::Null);
        for n in (1..200).filter(|n| *n != 64) {
            assert_eq!(fields.slots[slots[n]], Seen::Int(i64::try_from(n).unwrap()));
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
