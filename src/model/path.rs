//! Keys of criteria: the part of `JSONPath` that rules use.
//!
//! `trigger.labels.app`, `trigger.headers['X-Y']`, `trigger.list[0].a`, `trigger.list[*].a`. Only the first match
//! counts, as in `StackStorm`. Text from the first `#` on is dropped, so that one field can be tested twice.

use serde_json::Value;

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// A field of an object.
    Field(String),
    /// An element of an array, from zero.
    Index(usize),
    /// Every element of an array, or every field of an object.
    Any,
}

/// Where to look in a payload.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FieldPath {
    /// The steps below the payload.
    pub steps: Vec<Step>,
}

impl FieldPath {
    /// Reads a key that starts with `trigger`.
    ///
    /// # Errors
    /// When it does not, or is no path.
    pub fn parse(key: &str) -> Result<Self, String> {
        let text = key.split('#').next().unwrap_or_default().trim();
        let rest = text.strip_prefix("trigger").ok_or_else(|| format!("`{key}` must start with `trigger.`"))?;
        let steps = steps(rest).map_err(|what| format!("`{key}` is not a path: {what}"))?;
        Ok(Self { steps })
    }

    /// Reads the path of a payload field without the leading `trigger`, as in a rule's trigger parameters.
    ///
    /// # Errors
    /// When it is no path.
    pub fn parse_field(field: &str) -> Result<Self, String> {
        Self::parse(&format!("trigger.{field}"))
    }

    /// The key of the datastore that it leads to, if it does.
    #[must_use]
    pub fn system_key(&self) -> Option<String> {
        None
    }

    /// The first value that the path leads to.
    #[must_use]
    pub fn first<'v>(&self, payload: &'v Value) -> Option<&'v Value> {
        first(&self.steps, payload)
    }
}

/// Follows steps to the first value they lead to.
#[must_use]
pub fn first<'v>(steps: &[Step], value: &'v Value) -> Option<&'v Value> {
    let Some((step, rest)) = steps.split_first() else { return Some(value) };
    match (step, value) {
        (Step::Field(name), Value::Object(map)) => map.get(name).and_then(|inner| first(rest, inner)),
        (Step::Index(index), Value::Array(list)) => list.get(*index).and_then(|inner| first(rest, inner)),
        (Step::Any, Value::Array(list)) => list.iter().find_map(|inner| first(rest, inner)),
        (Step::Any, Value::Object(map)) => map.values().find_map(|inner| first(rest, inner)),
        _ => None,
    }
}

fn steps(mut rest: &str) -> Result<Vec<Step>, String> {
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(['.', '[']).unwrap_or(after.len());
            let name = after[..end].trim();
            match name {
                "" => return Err("a name is missing after `.`".into()),
                "*" => steps.push(Step::Any),
                _ => steps.push(Step::Field(name.to_string())),
            }
            rest = &after[end..];
        } else if let Some(after) = rest.strip_prefix('[') {
            let (step, after) = bracket(after)?;
            steps.push(step);
            rest = after;
        } else {
            return Err(format!("expected `.` or `[` before `{rest}`"));
        }
    }
    Ok(steps)
}

fn bracket(after: &str) -> Result<(Step, &str), String> {
    if let Some(quote) = after.chars().next().filter(|c| *c == '\'' || *c == '"') {
        let inner = &after[1..];
        let end = inner.find(quote).ok_or("a quote is not closed")?;
        let rest = inner[end + 1..].strip_prefix(']').ok_or("`]` is missing")?;
        return Ok((Step::Field(inner[..end].to_string()), rest));
    }
    let end = after.find(']').ok_or("`]` is missing")?;
    let step = match after[..end].trim() {
        "*" => Step::Any,
        number => Step::Index(number.parse().map_err(|_| format!("`[{number}]` is neither an index, `[*]` nor a quoted name"))?),
    };
    Ok((step, &after[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_first_match_counts() {
        let payload = json!({"a": {"b": 1, "x.y": 2}, "list": [{"n": 1}, {"m": 5}], "X-Y": 3});
        for (key, expected) in [
            ("trigger.a.b", json!(1)),
            ("trigger.a.b#1", json!(1)),
            ("trigger.a['x.y']", json!(2)),
            ("trigger[\"X-Y\"]", json!(3)),
            ("trigger.list[0].n", json!(1)),
            ("trigger.list[*].m", json!(5)),
            ("trigger", payload.clone()),
        ] {
            assert_eq!(FieldPath::parse(key).unwrap().first(&payload), Some(&expected), "{key}");
        }
        for missing in ["trigger.z", "trigger.a.b.c", "trigger.list[7]", "trigger.list.n"] {
            assert_eq!(FieldPath::parse(missing).unwrap().first(&payload), None, "{missing}");
        }
    }

    #[test]
    fn what_is_no_path_is_refused_with_the_cause() {
        for (key, cause) in [
            ("labels.app", "must start with `trigger.`"),
            ("trigger.", "a name is missing"),
            ("trigger..a", "a name is missing"),
            ("trigger.a[x]", "neither an index"),
            ("trigger.a['x]", "quote is not closed"),
            ("trigger.a[0", "`]` is missing"),
            ("triggers.a", "expected `.` or `[`"),
        ] {
            let error = FieldPath::parse(key).unwrap_err();
            assert!(error.contains(cause), "{key}: {error}");
        }
    }
}
