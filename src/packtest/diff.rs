//! What was expected beside what came, line by line, with the differing places marked. Pure.

use serde_json::Value;

use crate::expect::{Difference, Expected, Extent};

/// The longest value that is shown on a line, in characters.
const SHOWN: usize = 300;

/// Lines that show an expected value and what came: `-` was expected, `+` came, the rest is as expected.
#[must_use]
pub fn lines(expected: &Expected, got: &Value) -> Vec<String> {
    let differences = expected.differences(got);
    let (Value::Object(wanted), Value::Object(fields)) = (expected.written(), got) else {
        return differences.iter().flat_map(pair).collect();
    };
    let mut lines = Vec::new();
    let surplus = fields.keys().filter(|name| expected.extent() == Extent::Whole && !wanted.contains_key(*name));
    for name in wanted.keys().chain(surplus) {
        let below: Vec<&Difference> = differences.iter().filter(|one| is_below(&one.path, name)).collect();
        match fields.get(name) {
            Some(value) if below.is_empty() => lines.push(format!("    {name}: {}", compact(value))),
            _ => lines.extend(below.into_iter().flat_map(pair)),
        }
    }
    lines
}

/// Whether a path leads to a field or into it.
fn is_below(path: &str, name: &str) -> bool {
    path.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

fn pair(difference: &Difference) -> Vec<String> {
    let lead = if difference.path.is_empty() { String::new() } else { format!("{}: ", difference.path) };
    match (&difference.expected, &difference.got) {
        (Some(Value::String(expected)), Some(Value::String(got))) => texts(&lead, expected, got),
        (expected, got) => {
            let line = |sign: char, value: &Option<Value>| value.as_ref().map(|value| format!("  {sign} {lead}{}", compact(value)));
            let nothing = got.is_none().then(|| format!("  + {lead}is not there"));
            line('-', expected).into_iter().chain(line('+', got)).chain(nothing).collect()
        }
    }
}

/// Two texts under each other, with a caret where they part.
#[must_use]
pub fn texts(lead: &str, expected: &str, got: &str) -> Vec<String> {
    let (wanted, came) = (compact(&Value::from(expected)), compact(&Value::from(got)));
    let mut lines = vec![format!("  - {lead}{wanted}"), format!("  + {lead}{came}")];
    let is_regex = expected.len() > 2 && expected.starts_with('/') && expected.ends_with('/');
    let same = wanted.chars().zip(came.chars()).take_while(|(a, b)| a == b).count();
    // A caret under the first letter would say nothing.
    if same > 1 && !is_regex {
        lines.push(format!("    {}^", " ".repeat(lead.chars().count() + same)));
    }
    lines
}

/// A value on one line.
#[must_use]
pub fn compact(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= SHOWN { text } else { format!("{}…", text.chars().take(SHOWN).collect::<String>()) }
}

/// Differences as one line each.
#[must_use]
pub fn told(differences: &[Difference]) -> Vec<String> {
    let shown = |value: &Option<Value>, nothing: &str| value.as_ref().map_or(nothing.to_string(), compact);
    let line = |one: &Difference| match &one.expected {
        Some(expected) => format!("{}: expected {}, got {}", one.path, compact(expected), shown(&one.got, "nothing")),
        None => format!("{}: not expected, got {}", one.path, shown(&one.got, "nothing")),
    };
    differences.iter().map(|one| line(one).trim_start_matches(": ").to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_differs_is_marked_and_the_rest_stands_around_it() {
        let expected = json!({"id": "d1", "before": 3, "after": 5, "labels": {"app": "shop", "env": "prod"}, "why": "/slow/", "gone": 1});
        let expected = Expected::new(&expected, Extent::Whole).unwrap();
        let got = json!({"id": "d1", "before": 3, "after": 6, "labels": {"app": "shed", "env": "prod"}, "why": "fast", "extra": true});
        assert_eq!(
            lines(&expected, &got).join("\n"),
            r#"  - after: 5
  + after: 6
    before: 3
  - gone: 1
  + gone: is not there
    id: "d1"
  - labels.app: "shop"
  + labels.app: "shed"
                   ^
  - why: "/slow/"
  + why: "fast"
  + extra: true"#
        );
        assert_eq!(told(&expected.differences(&json!(7))).len(), 1);
    }
}
