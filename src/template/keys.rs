//! Which keys of the datastore the templates and expressions of a value name, found without running them.
//!
//! A key must be named: what is loaded before an event is judged is known from the rules alone.

use std::collections::BTreeSet;

use serde_json::Value;

use super::text::TextTemplate;

/// How deep text with expressions in it may nest in an expression.
const MAX_NESTED_TEXT: usize = 16;

/// The keys of the datastore that a value names: `kv.system.x`, `kv.system["x"]`, in either notation, and the same with `st2kv`.
///
/// # Errors
/// When a key is not named but computed, or a template is none.
pub fn system_keys(value: &Value) -> Result<BTreeSet<String>, String> {
    let mut keys = BTreeSet::new();
    gather(value, &mut keys)?;
    Ok(keys)
}

fn gather(value: &Value, keys: &mut BTreeSet<String>) -> Result<(), String> {
    match value {
        Value::String(text) => {
            if text.replace("\\{{", "").contains("{{") {
                in_template(text, keys)?;
            }
            text.replace("<%%", "")
                .split("<%")
                .skip(1)
                .try_for_each(|rest| in_expression(rest.split("%>").next().unwrap_or_default(), keys))
        }
        Value::Array(items) => items.iter().try_for_each(|item| gather(item, keys)),
        Value::Object(map) => map.values().try_for_each(|value| gather(value, keys)),
        _ => Ok(()),
    }
}

fn computed(root: &str) -> String {
    format!(
        "`{root}` must be followed by the name of a key, as in `{root}.system.limit`: a key of the datastore must be named, it cannot be \
         computed or be all of them"
    )
}

fn in_template(text: &str, keys: &mut BTreeSet<String>) -> Result<(), String> {
    for path in TextTemplate::compile(text).map_err(|error| format!("in the template: {error}"))?.paths() {
        match path.steps.as_slice() {
            [root, system, name, ..] if is_root(root) && system == "system" => {
                // `.['x']` is how those write it who come from the other notation.
                keys.insert(name.trim_matches(['\'', '"']).to_string());
            }
            [root, ..] if is_root(root) => return Err(computed(root)),
            _ => {}
        }
    }
    Ok(())
}

fn is_root(name: &str) -> bool {
    name == "kv" || name == "st2kv"
}

/// A piece of an expression, as far as names matter.
#[derive(Debug, PartialEq)]
enum Token {
    Name(String),
    Text(String),
    Sign(char),
}

fn in_expression(source: &str, keys: &mut BTreeSet<String>) -> Result<(), String> {
    let mut tokens = Vec::new();
    tokenize(&source.chars().collect::<Vec<_>>(), 0, &mut tokens)?;
    for (at, token) in tokens.iter().enumerate() {
        let Token::Name(root) = token else { continue };
        if !is_root(root) || is_field(&tokens[..at]) || is_map_key(&tokens[at + 1..]) {
            continue;
        }
        let named = member(&tokens[at + 1..]).filter(|(name, _)| *name == "system").and_then(|(_, rest)| member(rest));
        match named {
            Some((name, rest)) if rest.first() != Some(&Token::Sign('(')) => keys.insert(name.to_string()),
            _ => return Err(computed(root)),
        };
    }
    Ok(())
}

/// Whether a name that follows these tokens is a field of something else.
fn is_field(before: &[Token]) -> bool {
    matches!(before, [.., Token::Sign('.')]) && !matches!(before, [.., Token::Sign('.'), Token::Sign('.')])
}

/// Whether a name that these tokens follow is a key of an object: `#{kv: 1}`.
fn is_map_key(after: &[Token]) -> bool {
    after.first() == Some(&Token::Sign(':')) && after.get(1) != Some(&Token::Sign(':'))
}

/// The name after `.`, `?.`, or between `[` and `]`, and what follows.
fn member(tokens: &[Token]) -> Option<(&str, &[Token])> {
    let tokens = if tokens.first() == Some(&Token::Sign('?')) { &tokens[1..] } else { tokens };
    match tokens {
        [Token::Sign('.'), Token::Name(name), rest @ ..] | [Token::Sign('['), Token::Text(name), Token::Sign(']'), rest @ ..] => {
            Some((name, rest))
        }
        _ => None,
    }
}

fn tokenize(chars: &[char], nested: usize, tokens: &mut Vec<Token>) -> Result<(), String> {
    let mut at = 0;
    while let Some(&c) = chars.get(at) {
        match c {
            '"' | '\'' => {
                let (text, end) = quoted(chars, at);
                tokens.push(Token::Text(text));
                at = end;
            }
            '`' => at = interpolated(chars, at + 1, nested, tokens)?,
            '/' if chars.get(at + 1) == Some(&'/') => at += chars[at..].iter().take_while(|c| **c != '\n').count(),
            '/' if chars.get(at + 1) == Some(&'*') => at = after_comment(chars, at),
            c if c.is_alphabetic() || c == '_' => {
                let name: String = chars[at..].iter().take_while(|c| c.is_alphanumeric() || **c == '_').collect();
                at += name.chars().count();
                tokens.push(Token::Name(name));
            }
            c => {
                if !c.is_whitespace() {
                    tokens.push(Token::Sign(c));
                }
                at += 1;
            }
        }
    }
    Ok(())
}

/// The text of a quoted string, and where it ends.
fn quoted(chars: &[char], start: usize) -> (String, usize) {
    let (mut text, mut at) = (String::new(), start + 1);
    while let Some(&c) = chars.get(at) {
        at += 1;
        match c {
            '\\' => {
                text.extend(chars.get(at));
                at += 1;
            }
            c if c == chars[start] => break,
            c => text.push(c),
        }
    }
    (text, at)
}

/// The end of a comment, which may hold others.
fn after_comment(chars: &[char], start: usize) -> usize {
    let (mut open, mut at) = (0usize, start);
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => (open, at) = (open + 1, at + 2),
            ('*', Some('/')) => (open, at) = (open - 1, at + 2),
            _ => at += 1,
        }
        if open == 0 {
            break;
        }
    }
    at
}

/// The expressions inside text between backquotes, and where it ends.
fn interpolated(chars: &[char], start: usize, nested: usize, tokens: &mut Vec<Token>) -> Result<usize, String> {
    if nested == MAX_NESTED_TEXT {
        return Err(format!("text with expressions in it nests deeper than {MAX_NESTED_TEXT} levels"));
    }
    let mut at = start;
    while let Some(&c) = chars.get(at) {
        match c {
            '`' if chars.get(at + 1) == Some(&'`') => at += 2,
            '`' => return Ok(at + 1),
            '$' if chars.get(at + 1) == Some(&'{') => {
                let end = closing_brace(chars, at + 2);
                tokens.push(Token::Sign('`'));
                tokenize(&chars[at + 2..end], nested + 1, tokens)?;
                tokens.push(Token::Sign('`'));
                at = end + 1;
            }
            _ => at += 1,
        }
    }
    Ok(at)
}

/// Where the brace closes that was opened before `start`; braces in text do not count.
fn closing_brace(chars: &[char], start: usize) -> usize {
    let (mut open, mut at, mut in_text) = (1usize, start, Vec::new());
    while let Some(&c) = chars.get(at) {
        match (c, in_text.last().copied()) {
            ('\\', Some('"' | '\'')) => at += 1,
            (c, Some(quote)) if c == quote => _ = in_text.pop(),
            ('$', Some('`')) if chars.get(at + 1) == Some(&'{') => {
                in_text.push('{');
                at += 1;
            }
            ('}', Some('{')) => _ = in_text.pop(),
            ('"' | '\'' | '`', None | Some('{')) => in_text.push(c),
            ('{', Some('{')) => in_text.push('{'),
            ('{', None) => open += 1,
            ('}', None) => open -= 1,
            _ => {}
        }
        if open == 0 {
            return at;
        }
        at += 1;
    }
    chars.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn keys(value: &Value) -> Result<String, String> {
        system_keys(value).map(|keys| keys.into_iter().collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn keys_are_found_in_both_notations() {
        for (value, expected) in [
            (json!("{{kv.system.a}} {{ st2kv.system.b }} kv.system.c \\{{kv.system.d}}"), "a b"),
            (json!("{{#if trigger.x}}{{upper kv.system.[a-b]}}{{else}}{{@root.kv.system.c.deep}}{{/if}}"), "a-b c"),
            (json!("{{default kv.system.a (json st2kv.system.b)}}"), "a b"),
            (json!("<% kv.system.a + st2kv.system[\"b.c\"] + kv['system']['d'] %>"), "a b.c d"),
            (json!("<% kv?.system?.a ?? kv . system . b.len() %> and <% kv.system.c %>"), "a b c"),
            (json!("<% `x ${kv.system.a + `${kv.system.b} }`} kv.system.c` + \"kv.system.d\" %>"), "a b"),
            (json!("<% trigger.kv.x + #{kv: kv.system.a}.kv // kv\n %>"), "a"),
            (json!("<% /* kv /* kv */ kv */ kv.system.a %> <%% kv"), "a"),
            (json!({"n": [1, null, {"x": "<% kv.system.a %>"}], "y": "{{kv.system.b}}", "{{kv.system.c}}": 1}), "a b"),
            (json!("{{trigger.kv}} <%% kv.system"), ""),
        ] {
            assert_eq!(keys(&value).as_deref(), Ok(expected), "{value}");
        }
    }

    #[test]
    fn a_key_that_is_not_named_is_refused() {
        for source in [
            "<% kv.system[trigger.x] %>",
            "<% kv.system[\"a\" + trigger.x] %>",
            "<% kv.system %>",
            "<% kv.system.keys() %>",
            "<% kv[\"sys\" + \"tem\"].a %>",
            "<% st2kv.user.a %>",
            "<% \"a\" in kv.system %>",
            "<% `${kv}` %>",
            "<% (0..kv) %>",
            "{{kv.system}}",
            "{{lookup kv.system trigger.x}}",
            "{{#with kv}}{{system.a}}{{/with}}",
            "{{#each st2kv.system}}{{this}}{{/each}}",
        ] {
            let fault = keys(&json!([source])).unwrap_err();
            assert!(fault.contains("a key of the datastore must be named"), "{source}: {fault}");
        }
        assert!(keys(&json!("{{kv.system.a")).unwrap_err().starts_with("in the template"));
    }

    #[test]
    fn hostile_expressions_end() {
        let deep = format!("<% {}1{} %>", "`${".repeat(5_000), "}`".repeat(5_000));
        assert!(keys(&json!(deep)).unwrap_err().contains("nests deeper"));
        for piece in ["`", "${", "\"", "'", "\\", "/*", "*/", "}", "{", "kv", ".", "["] {
            for other in ["`", "${", "}", "kv.system", "\"", "é"] {
                let _ = keys(&json!(format!("<% {} %>", format!("{piece}{other}").repeat(50))));
            }
        }
    }
}
