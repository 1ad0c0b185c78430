//! How a line typed in chat becomes a command with parameters. Pure.
//!
//! [`format`] compiles what the author of an alias wrote, [`book`] finds the alias that a line means, [`values`] casts what was typed.
//! Here: the line itself, and the pairs `name=value` at its end.

pub mod book;
pub mod format;
pub mod values;

use serde_json::{Map, Value};

/// The longest line that is read as a command, in bytes.
pub const MAX_COMMAND_BYTES: usize = 4_000;

/// Pairs at the end of a command, at most.
const MAX_PAIRS: usize = 64;

/// What stands before a command in a channel.
pub const PREFIX: char = '!';

/// A line as it is matched: without outer blanks, with plain quotes, and without characters that nobody sees.
#[must_use]
pub fn normalized(line: &str) -> String {
    let plain = line.chars().filter_map(|c| match c {
        '“' | '”' | '„' | '‟' | '″' => Some('"'),
        '‘' | '’' | '‚' | '‛' | '′' => Some('\''),
        '\u{200b}' | '\u{2060}' | '\u{feff}' => None,
        c if c.is_control() && !c.is_whitespace() => None,
        c => Some(c),
    });
    plain.collect::<String>().trim().to_string()
}

/// A value without the quotes around it.
#[must_use]
pub fn unquoted(value: &str) -> &str {
    let value = value.trim();
    for quote in ['"', '\''] {
        if let Some(inner) = value.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote))
            && !inner.contains(quote)
        {
            return inner;
        }
    }
    value
}

/// A command without the pairs `name=value` at its end, and these; a later one of a name wins.
#[must_use]
pub fn split_pairs(command: &str) -> (&str, Map<String, Value>) {
    let mut at = 0;
    loop {
        let start = at + (command[at..].len() - command[at..].trim_start().len());
        if start == command.len() {
            return (command.trim_end(), Map::new());
        }
        match pairs(&command[start..]) {
            Ok(pairs) => return (command[..at].trim_end(), pairs),
            // What stands before that place cannot be the beginning of the pairs; where nothing was read, a word is passed over.
            Err(0) => at = start + command[start..].find(char::is_whitespace).unwrap_or(command.len() - start),
            Err(read) => at = start + read,
        }
    }
}

/// Reads nothing but pairs, or says after how many bytes there was something else.
fn pairs(text: &str) -> Result<Map<String, Value>, usize> {
    let (mut found, mut at) = (Map::new(), 0);
    loop {
        let rest = &text[at..];
        let name_end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        let value = rest[name_end..].strip_prefix('=').filter(|_| name_end > 0 && found.len() < MAX_PAIRS);
        let length = value.and_then(value_end).ok_or(at)?;
        let start = at + name_end + 1;
        found.insert(rest[..name_end].to_string(), Value::from(unquoted(&text[start..start + length])));
        at = start + length;
        let after = text[at..].trim_start();
        if after.is_empty() {
            return Ok(found);
        }
        if after.len() == text.len() - at {
            return Err(at); // something is glued to the value
        }
        at = text.len() - after.len();
    }
}

/// Where a value ends: `"…"`, `'…'`, `{…}` with its braces, or a word.
fn value_end(text: &str) -> Option<usize> {
    let first = text.chars().next()?;
    match first {
        '"' | '\'' => text[1..].find(first).map(|end| end + 2),
        '{' => {
            let mut depth = 0usize;
            text.char_indices().find_map(|(index, c)| {
                match c {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    _ => {}
                }
                (depth == 0).then_some(index + 1)
            })
        }
        c if c.is_whitespace() => None,
        // A quote in it is the end of something that was quoted before.
        _ => Some(text.find(char::is_whitespace).unwrap_or(text.len())).filter(|end| !text[..*end].contains('"')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pairs_are_cut_off_the_end() {
        for (command, body, expected) in [
            ("a=foobar1", "", json!({"a": "foobar1"})),
            ("foo a=\"x y\" b='z'", "foo", json!({"a": "x y", "b": "z"})),
            ("foo a={\"k\": {\"n\": 1}} b=2", "foo", json!({"a": "{\"k\": {\"n\": 1}}", "b": "2"})),
            ("run a=1 on host", "run a=1 on host", json!({})),
            ("run a=1 on b=2", "run a=1 on", json!({"b": "2"})),
            ("get http://x/?q=1", "get http://x/?q=1", json!({})),
            ("say \"x a=1\" b=2", "say \"x a=1\"", json!({"b": "2"})),
            ("a=1 a=2", "", json!({"a": "2"})),
            ("a= b", "a= b", json!({})),
            ("a=\"\"", "", json!({"a": ""})),
            ("a=\"open", "a=\"open", json!({})),
            ("a={open", "a={open", json!({})),
            ("é=1", "é=1", json!({})),
            ("", "", json!({})),
            ("x", "x", json!({})),
        ] {
            let (found, pairs) = split_pairs(command);
            assert_eq!((found, json!(pairs)), (body, expected), "{command}");
        }
    }

    #[test]
    fn hostile_lines_take_linear_time() {
        for line in ["a=1 ".repeat(1_000), "a={".repeat(1_300), "\"".repeat(4_000), " = ".repeat(1_000), format!("{}x", "k=v ".repeat(900))]
        {
            let line = normalized(&line);
            let (body, pairs) = split_pairs(&line);
            assert!(body.len() <= line.len() && pairs.len() <= MAX_PAIRS);
        }
    }

    #[test]
    fn quotes_of_word_processors_are_plain_ones() {
        assert_eq!(normalized("  say “hello\u{200b}” ‘x’\u{0} "), "say \"hello\" 'x'");
        assert_eq!(unquoted("\"a\" and \"b\""), "\"a\" and \"b\"");
        assert_eq!(unquoted(" 'it' "), "it");
    }
}
