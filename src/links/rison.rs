//! Rison, the notation inside Kibana's addresses.

use serde_json::Value;

/// A value in Rison; the keys of objects are sorted.
#[must_use]
pub fn encode(value: &Value) -> String {
    match value {
        Value::Null => "!n".into(),
        Value::Bool(true) => "!t".into(),
        Value::Bool(false) => "!f".into(),
        Value::Number(number) => number.to_string().replace("e+", "e"),
        Value::String(text) => string(text),
        Value::Array(items) => format!("!({})", items.iter().map(encode).collect::<Vec<_>>().join(",")),
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort();
            let pairs: Vec<String> = keys.into_iter().map(|key| format!("{}:{}", string(key), encode(&map[key]))).collect();
            format!("({})", pairs.join(","))
        }
    }
}

fn string(text: &str) -> String {
    let starts_plain = !text.starts_with(|c: char| c == '-' || c.is_ascii_digit());
    let plain = !text.is_empty() && starts_plain && !text.contains(|c: char| " '!:(),*@$".contains(c));
    if plain { text.to_string() } else { format!("'{}'", text.replace('!', "!!").replace('\'', "!'")) }
}
