//! Keys of criteria: the part of `JSONPath` that rules use.
//!
//! `trigger.labels.app`, `trigger.headers['X-Y']`, `trigger.list[0].a`, `trigger.list[-1]`, `trigger.list[*].a`, `trigger.list[1:3]`,
//! `trigger.labels.*`, `trigger..name`. Only the first match counts, as in `StackStorm`. Text from the first `#` on is dropped, so that
//! one field can be tested twice.

use serde_json::Value;

/// The longest key, in bytes.
pub const MAX_KEY_BYTES: usize = 1_024;

/// The most steps of a key.
pub const MAX_STEPS: usize = 64;

/// The most `..` of a key: each one walks the whole payload for every place that the one before found.
pub const MAX_DESCENTS: usize = 2;

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// A field of an object.
    Field(String),
    /// An element of a list, from zero; below zero from its end.
    Index(i64),
    /// `[a:b]`: elements of a list from `a` to before `b`. What is no list counts as a list of one, as in `StackStorm`; `[*]` is the whole.
    Slice(Option<i64>, Option<i64>),
    /// `.*`: every field of an object, in the order of their names.
    AnyField,
    /// `..`: the value itself and all that is in it, outer before inner.
    Descend,
}

/// What a path starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Root {
    /// The payload of the event.
    Trigger,
    /// The datastore; the first step is the name of a key.
    System,
}

/// Where to look in a payload, or in the datastore.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FieldPath {
    /// What it starts from.
    pub root: Root,
    /// The steps below the root.
    pub steps: Vec<Step>,
}

impl FieldPath {
    /// Reads a key that starts with `trigger` or `system`.
    ///
    /// # Errors
    /// When it does not, is no path, or is too long.
    pub fn parse(key: &str) -> Result<Self, String> {
        let text = bounded(key)?;
        let (root, rest) = match (text.strip_prefix("trigger"), text.strip_prefix("system")) {
            (Some(rest), _) => (Root::Trigger, rest),
            (None, Some(rest)) => (Root::System, rest),
            (None, None) => return Err(format!("`{key}` must start with `trigger.` (the payload) or `system.` (the datastore)")),
        };
        let steps = steps(rest).map_err(|what| no_path(key, &what))?;
        if root == Root::System && !matches!(steps.first(), Some(Step::Field(_))) {
            return Err(no_path(key, "`system.` must be followed by the name of a key of the datastore"));
        }
        Ok(Self { root, steps })
    }

    /// Reads the path of a payload field without the leading `trigger`, as in a rule's trigger parameters.
    ///
    /// # Errors
    /// When it is no path.
    pub fn parse_field(field: &str) -> Result<Self, String> {
        Self::parse(&format!("trigger.{field}"))
    }

    /// The key of the datastore that the path leads into.
    #[must_use]
    pub fn system_key(&self) -> Option<&str> {
        match (self.root, self.steps.first()) {
            (Root::System, Some(Step::Field(name))) => Some(name),
            _ => None,
        }
    }

    /// The first value that the path leads to; the root is the payload, or an object with the keys of the datastore.
    #[must_use]
    pub fn first<'v>(&self, root: &'v Value) -> Option<&'v Value> {
        first(&self.steps, root)
    }
}

/// Reads the key of a criterion inside `search`: it starts with `item`.
///
/// # Errors
/// When it does not, is no path, or is too long.
pub fn item_steps(key: &str) -> Result<Vec<Step>, String> {
    let rest =
        bounded(key)?.strip_prefix("item").ok_or_else(|| format!("`{key}` must start with `item.`, as every key inside `search`"))?;
    steps(rest).map_err(|what| no_path(key, &what))
}

/// Follows steps to the first value they lead to.
#[must_use]
pub fn first<'v>(steps: &[Step], value: &'v Value) -> Option<&'v Value> {
    let Some((step, rest)) = steps.split_first() else { return Some(value) };
    match (step, value) {
        (Step::Field(name), Value::Object(map)) => first(rest, map.get(name)?),
        (Step::Index(index), Value::Array(list)) => first(rest, list.get(position(*index, list.len())?)?),
        (Step::Slice(from, to), Value::Array(list)) => slice(list, *from, *to).iter().find_map(|inner| first(rest, inner)),
        (Step::Slice(from, to), one) => slice(std::slice::from_ref(one), *from, *to).first().and_then(|inner| first(rest, inner)),
        (Step::AnyField, Value::Object(map)) => map.values().find_map(|inner| first(rest, inner)),
        (Step::Descend, value) => first(rest, value).or_else(|| match value {
            Value::Array(list) => list.iter().find_map(|inner| first(steps, inner)),
            Value::Object(map) => map.values().find_map(|inner| first(steps, inner)),
            _ => None,
        }),
        _ => None,
    }
}

/// A place in a list, counted from its end if below zero.
fn position(index: i64, length: usize) -> Option<usize> {
    if index < 0 { length.checked_sub(usize::try_from(index.unsigned_abs()).ok()?) } else { usize::try_from(index).ok() }
}

fn slice(list: &[Value], from: Option<i64>, to: Option<i64>) -> &[Value] {
    let place = |index: i64| match position(index, list.len()) {
        Some(place) => place.min(list.len()),
        None if index < 0 => 0,
        None => list.len(),
    };
    list.get(from.map_or(0, place)..to.map_or(list.len(), place)).unwrap_or_default()
}

fn bounded(key: &str) -> Result<&str, String> {
    if key.len() > MAX_KEY_BYTES {
        return Err(format!("the key is longer than {MAX_KEY_BYTES} bytes"));
    }
    Ok(key.split('#').next().unwrap_or_default().trim())
}

fn no_path(key: &str, what: &str) -> String {
    let cut = if key.contains('#') { " (text from the first `#` on is dropped)" } else { "" };
    format!("`{key}` is not a path: {what}{cut}")
}

fn steps(mut rest: &str) -> Result<Vec<Step>, String> {
    let mut steps = Vec::new();
    while !rest.is_empty() {
        let after = if let Some(after) = rest.strip_prefix("..") {
            steps.push(Step::Descend);
            after
        } else if let Some(after) = rest.strip_prefix('.') {
            after
        } else if rest.starts_with('[') {
            rest
        } else {
            return Err(format!("expected `.` or `[` before `{rest}`"));
        };
        let (step, left) = if let Some(inner) = after.strip_prefix('[') { bracket(inner)? } else { name(after)? };
        steps.push(step);
        rest = left;
    }
    if steps.len() > MAX_STEPS {
        return Err(format!("it has more than {MAX_STEPS} steps"));
    }
    if steps.iter().filter(|step| **step == Step::Descend).count() > MAX_DESCENTS {
        return Err(format!("it has more than {MAX_DESCENTS} times `..`"));
    }
    Ok(steps)
}

/// A step after `.`: a name, a quoted one, or `*`.
fn name(after: &str) -> Result<(Step, &str), String> {
    if after.starts_with(['\'', '"']) {
        let (name, rest) = quoted(after)?;
        return Ok((Step::Field(name), rest));
    }
    let end = after.find(['.', '[']).unwrap_or(after.len());
    let name = after[..end].trim();
    let step = match name {
        "" => return Err("a name is missing after `.`".into()),
        "*" => Step::AnyField,
        _ => match name.chars().find(|c| c.is_whitespace() || "|&,()'\"`*]".contains(*c)) {
            Some(found) => {
                return Err(format!(
                    "the name `{name}` holds `{found}`: quote it, as in ['{}']; unions, filters and functions of JSONPath do not exist here",
                    name.replace('\'', "\\'")
                ));
            }
            None => Step::Field(name.to_string()),
        },
    };
    Ok((step, &after[end..]))
}

/// A step after `[`.
fn bracket(after: &str) -> Result<(Step, &str), String> {
    if after.starts_with(['\'', '"']) {
        let (name, rest) = quoted(after)?;
        return Ok((Step::Field(name), rest.strip_prefix(']').ok_or("`]` is missing")?));
    }
    let end = after.find(']').ok_or("`]` is missing")?;
    let inner = after[..end].trim();
    let faulty = || format!("`[{inner}]` is neither an index, `[*]`, `[from:to]` nor a quoted name");
    let bound = |text: &str| match text.trim() {
        "" => Ok(None),
        number => number.parse().map(Some).map_err(|_| faulty()),
    };
    let step = match (inner, inner.split_once(':')) {
        ("*", _) => Step::Slice(None, None),
        (_, Some((from, to))) => Step::Slice(bound(from)?, bound(to)?),
        (number, None) => Step::Index(number.parse().map_err(|_| faulty())?),
    };
    Ok((step, &after[end + 1..]))
}

/// A name between two equal quotes; `\` keeps the character after it.
fn quoted(text: &str) -> Result<(String, &str), String> {
    let mut chars = text.char_indices();
    let quote = chars.next().map(|(_, quote)| quote);
    let mut name = String::new();
    while let Some((at, found)) = chars.next() {
        match found {
            '\\' => name.extend(chars.next().map(|(_, kept)| kept)),
            found if Some(found) == quote => return Ok((name, &text[at + 1..])),
            found => name.push(found),
        }
    }
    Err("a quote is not closed".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_first_match_counts() {
        let payload =
            json!({"a": {"b": 1, "x.y": 2, "it's": 4}, "list": [{"n": 1}, {"m": 5}, {"m": 6, "deep": {"n": 7}}], "X-Y": 3, "x y": 8});
        for (key, expected) in [
            ("trigger.a.b", json!(1)),
            ("trigger.a.b#1", json!(1)),
            ("trigger.a['x.y']", json!(2)),
            ("trigger.a.\"x.y\"", json!(2)),
            ("trigger[\"X-Y\"]", json!(3)),
            ("trigger.X-Y", json!(3)),
            ("trigger.'x y'", json!(8)),
            ("trigger.a['it\\'s']", json!(4)),
            ("trigger.list[0].n", json!(1)),
            ("trigger.list.[0].n", json!(1)),
            ("trigger.list[-2].m", json!(5)),
            ("trigger.list[*].m", json!(5)),
            ("trigger.list[2:].m", json!(6)),
            ("trigger.list[:-1].m", json!(5)),
            ("trigger.list[-99:99].m", json!(5)),
            ("trigger.a[*].b", json!(1)),
            ("trigger.a[0:1].b", json!(1)),
            ("trigger.a.*", json!(1)),
            ("trigger.*.b", json!(1)),
            ("trigger..m", json!(5)),
            ("trigger.list..deep.n", json!(7)),
            ("trigger.list..deep..n", json!(7)),
            ("trigger..['x.y']", json!(2)),
            ("trigger", payload.clone()),
        ] {
            assert_eq!(FieldPath::parse(key).unwrap().first(&payload), Some(&expected), "{key}");
        }
        for missing in [
            "trigger.z",
            "trigger.a.b.c",
            "trigger.list[7]",
            "trigger.list[-4]",
            "trigger.list.n",
            "trigger.list.*",
            "trigger.a[0]",
            "trigger.list[2:1]",
            "trigger.list[9:].m",
            "trigger.a[1:].b",
            "trigger..zz",
        ] {
            assert_eq!(FieldPath::parse(missing).unwrap().first(&payload), None, "{missing}");
        }
    }

    #[test]
    fn a_path_has_a_root() {
        let path = FieldPath::parse("system.limit.cpu#x").unwrap();
        assert_eq!((path.root, path.system_key()), (Root::System, Some("limit")));
        assert_eq!(path.first(&json!({"limit": {"cpu": 80}})), Some(&json!(80)));
        assert_eq!(FieldPath::parse("trigger.system").unwrap().system_key(), None);
        assert_eq!(first(&item_steps("item.a#2").unwrap(), &json!({"a": 1})), Some(&json!(1)));
        assert_eq!(first(&item_steps("item").unwrap(), &json!(5)), Some(&json!(5)));
        assert!(item_steps("trigger.a").unwrap_err().contains("must start with `item.`"));
    }

    #[test]
    fn what_is_no_path_is_refused_with_the_cause() {
        for (key, cause) in [
            ("labels.app", "must start with `trigger.`"),
            ("$.trigger.a", "must start with `trigger.`"),
            ("trigger.", "a name is missing"),
            ("trigger...a", "a name is missing"),
            ("trigger.a..", "a name is missing"),
            ("trigger.a[x]", "neither an index"),
            ("trigger.a[1:x]", "neither an index"),
            ("trigger.a[99999999999999999999]", "neither an index"),
            ("trigger.a['x]", "quote is not closed"),
            ("trigger.a['x#y']", "from the first `#` on is dropped"),
            ("trigger.a['x'", "`]` is missing"),
            ("trigger.a[0", "`]` is missing"),
            ("triggers.a", "expected `.` or `[`"),
            ("trigger.x y", "quote it, as in ['x y']"),
            ("trigger.a|b", "quote it, as in ['a|b']"),
            ("system", "must be followed by the name of a key"),
            ("system.*", "must be followed by the name of a key"),
            ("system..a", "must be followed by the name of a key"),
            ("trigger..a..b..c", "more than 2 times `..`"),
        ] {
            let error = FieldPath::parse(key).unwrap_err();
            assert!(error.contains(cause), "{key}: {error}");
        }
        assert!(FieldPath::parse(&format!("trigger{}", "[0]".repeat(65))).unwrap_err().contains("more than 64 steps"));
        assert!(FieldPath::parse(&format!("trigger.{}", "a".repeat(1_100))).unwrap_err().contains("longer than 1024 bytes"));
    }

    #[test]
    fn no_key_makes_the_reader_panic() {
        let pieces =
            ["trigger", "system", "item", ".", "..", "[", "]", "'", "\"", "*", ":", "-1", "9", "é", "\\", "#", " ", "a", "|", "日"];
        let mut state = 7usize;
        for _ in 0..20_000 {
            let mut key = String::from(if state.is_multiple_of(3) { "" } else { "trigger" });
            for _ in 0..state % 9 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                key.push_str(pieces[(state >> 33) % pieces.len()]);
            }
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >>= 1;
            let _ = item_steps(&key);
            if let Ok(path) = FieldPath::parse(&key) {
                let _ = path.first(&json!({"a": [[1, {"a": 2}], "é"], "9": {"日": []}}));
            }
        }
    }

    #[test]
    fn the_deepest_path_and_the_deepest_payload() {
        let mut payload = json!(1);
        for _ in 0..64 {
            payload = json!([payload]);
        }
        assert_eq!(FieldPath::parse(&format!("trigger{}", "[*]".repeat(64))).unwrap().first(&payload), Some(&json!(1)));
        assert_eq!(FieldPath::parse("trigger..a..b").unwrap().first(&payload), None);
    }
}
