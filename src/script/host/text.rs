//! Texts for people and for addresses. Nothing here reads a template: data stays data.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rhai::{Array, Dynamic, ImmutableString, Module};

use super::module::function;
use super::{HostModule, MAX_ITEMS, MAX_STRING_BYTES, ScriptCall, Thrown, from_dynamic, misuse, sized};
use crate::template::text::plain;

pub(super) const MODULE: HostModule = HostModule {
    name: "text",
    summary: "Texts for people and for addresses, besides Rhai's own functions of texts. There is no `render`: data is never a template.",
    values: &[],
    functions: &[
        function("text.pad(text, width)", "Blanks behind, up to that many characters.", "text.pad(\"ab\", 4)", "\"ab  \""),
        function("text.pad_left(text, width)", "Blanks in front.", "text.pad_left(\"7\", 3)", "\"  7\""),
        function(
            "text.truncate(text, length)",
            "At most so many characters; what is cut ends in `…`.",
            "text.truncate(\"checkout\", 6)",
            "\"check…\"",
        ),
        function("text.lines(text)", "Its lines, without their ends; 10,000 at most.", "text.lines(\"a\\nb\").len()", "2"),
        function(
            "text.indent(text, count)",
            "Every line that is not empty, so many blanks further in.",
            "text.indent(\"a\\n\\nb\", 2)",
            "\"  a\\n\\n  b\"",
        ),
        function(
            "text.table(rows, columns?)",
            "Rows in columns, for a code block in chat: maps (with a head; `columns` says which, and their order), or lists. 1,000 rows, cells of \
             60 characters.",
            "text.table([#{app: \"shop\", load: 3}, #{app: \"cart\", load: 12}], [\"app\", \"load\"])",
            "\"APP   LOAD\\nshop  3\\ncart  12\"",
        ),
        function("text.slug(text)", "Lower-case letters, digits and hyphens.", "text.slug(\"Shop: Check Out!\")", "\"shop-check-out\""),
        function("text.snake(text)", "Words with underscores.", "text.snake(\"checkOut Now\")", "\"check_out_now\""),
        function("text.camel(text)", "Words run together.", "text.camel(\"check-out now\")", "\"checkOutNow\""),
        function("text.title(text)", "Words with a capital each.", "text.title(\"check-out now\")", "\"Check Out Now\""),
        function("text.base64(text)", "In Base64.", "text.base64(\"user:pass\")", "\"dXNlcjpwYXNz\""),
        function("text.from_base64(text)", "The text that stands in Base64.", "text.from_base64(\"YQ==\")", "\"a\""),
        function("text.url_encode(text)", "As a part of an address.", "text.url_encode(\"a b/c?\")", "\"a%20b%2Fc%3F\""),
        function("text.url_decode(text)", "The text that stands in a part of an address.", "text.url_decode(\"a%20b\")", "\"a b\""),
    ],
    object,
    register,
};

/// The most rows of a table, and the most characters of one of its cells.
const TABLE: (usize, usize) = (1_000, 60);

type Change = fn(&str) -> String;

#[derive(Clone)]
struct Text;

fn object(_: &Arc<ScriptCall>) -> Dynamic {
    Dynamic::from(Text)
}

fn register(module: &mut Module) {
    module.set_custom_type::<Text>("text");
    module.set_native_fn("pad", |_: &mut Text, text: ImmutableString, width: i64| {
        Ok(ImmutableString::from(format!("{text}{}", blanks(&text, width)?)))
    });
    module.set_native_fn("pad_left", |_: &mut Text, text: ImmutableString, width: i64| {
        Ok(ImmutableString::from(format!("{}{text}", blanks(&text, width)?)))
    });
    module.set_native_fn("truncate", |_: &mut Text, text: ImmutableString, length: i64| {
        Ok(ImmutableString::from(truncated(&text, count(length)?)))
    });
    module.set_native_fn("lines", |_: &mut Text, text: ImmutableString| {
        if text.lines().nth(MAX_ITEMS).is_some() {
            return Err(misuse(format!("text.lines: there are more than {MAX_ITEMS} lines")));
        }
        Ok(text.lines().map(|line| Dynamic::from(line.to_string())).collect::<Array>())
    });
    module.set_native_fn("indent", |_: &mut Text, text: ImmutableString, by: i64| {
        let blanks = " ".repeat(count(by)?.min(100));
        let lines: Vec<String> =
            text.split('\n').map(|line| if line.is_empty() { String::new() } else { format!("{blanks}{line}") }).collect();
        sized(lines.join("\n"))
    });
    module.set_native_fn("table", |_: &mut Text, rows: Array| table(&rows, None));
    module.set_native_fn("table", |_: &mut Text, rows: Array, columns: Array| table(&rows, Some(&columns)));
    let words: [(&str, Change); 4] = [("slug", slug), ("snake", snake), ("camel", camel), ("title", title)];
    for (name, change) in words {
        module.set_native_fn(name, move |_: &mut Text, text: ImmutableString| sized(change(&text)));
    }
    module.set_native_fn("base64", |_: &mut Text, text: ImmutableString| sized(STANDARD.encode(text.as_bytes())));
    module.set_native_fn("from_base64", |_: &mut Text, text: ImmutableString| {
        let bytes = STANDARD.decode(text.trim()).map_err(|error| misuse(format!("text.from_base64: {error}")))?;
        String::from_utf8(bytes).map(ImmutableString::from).map_err(|_| misuse("text.from_base64: it is not UTF-8"))
    });
    module.set_native_fn("url_encode", |_: &mut Text, text: ImmutableString| sized(url_encode(&text)));
    module.set_native_fn("url_decode", |_: &mut Text, text: ImmutableString| {
        url_decode(&text)
            .map(ImmutableString::from)
            .ok_or_else(|| misuse("text.url_decode: a `%` must be followed by two hexadecimal digits, and all of it be UTF-8"))
    });
}

fn count(number: i64) -> Result<usize, Thrown> {
    usize::try_from(number).map_err(|_| misuse(format!("text: {number} is below zero")))
}

fn blanks(text: &str, width: i64) -> Result<String, Thrown> {
    let missing = count(width)?.saturating_sub(text.chars().count());
    if missing + text.len() > MAX_STRING_BYTES {
        return Err(misuse(format!("text.pad: {width} is more than a text may have")));
    }
    Ok(" ".repeat(missing))
}

fn truncated(text: &str, length: usize) -> String {
    match text.char_indices().nth(length) {
        None => text.to_string(),
        Some(_) if length == 0 => String::new(),
        Some(_) => format!("{}…", text.chars().take(length - 1).collect::<String>()),
    }
}

/// The words of a name: they end at what is no letter or digit, and before a capital that follows a small letter.
fn words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut small) = (Vec::new(), String::new(), false);
    for c in text.chars() {
        if !c.is_alphanumeric() || (c.is_uppercase() && small) {
            words.extend((!word.is_empty()).then(|| std::mem::take(&mut word)));
        }
        if c.is_alphanumeric() {
            word.extend(c.to_lowercase());
        }
        small = c.is_lowercase();
    }
    words.extend((!word.is_empty()).then_some(word));
    words
}

fn capital(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

fn slug(text: &str) -> String {
    let plain: String = text.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { ' ' }).collect();
    plain.split_whitespace().collect::<Vec<_>>().join("-")
}

fn snake(text: &str) -> String {
    words(text).join("_")
}

fn camel(text: &str) -> String {
    words(text).iter().enumerate().map(|(index, word)| if index == 0 { word.clone() } else { capital(word) }).collect()
}

fn title(text: &str) -> String {
    words(text).iter().map(|word| capital(word)).collect::<Vec<_>>().join(" ")
}

fn url_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

fn url_decode(text: &str) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'%' {
            bytes.push(if first == b'+' { b' ' } else { first });
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        let digits = std::str::from_utf8(digits).ok().filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

fn table(rows: &Array, columns: Option<&Array>) -> Result<ImmutableString, Thrown> {
    if rows.len() > TABLE.0 {
        return Err(misuse(format!("text.table: there are more than {} rows", TABLE.0)));
    }
    let is_of_maps = rows.iter().any(Dynamic::is_map);
    let mut names: Vec<String> = columns.into_iter().flatten().map(ToString::to_string).collect();
    if columns.is_none() && is_of_maps {
        let all =
            rows.iter().filter_map(|row| row.as_map_ref().ok()).flat_map(|map| map.keys().map(ToString::to_string).collect::<Vec<_>>());
        for name in all {
            if !names.contains(&name) && names.len() < 100 {
                names.push(name);
            }
        }
    }
    let mut cells: Vec<Vec<String>> = Vec::new();
    if !names.is_empty() {
        cells.push(names.iter().map(|name| cell(&Dynamic::from(name.to_uppercase()))).collect());
    }
    for row in rows {
        if let Ok(map) = row.as_map_ref() {
            cells.push(names.iter().map(|name| map.get(name.as_str()).map(cell).unwrap_or_default()).collect());
        } else if let Ok(list) = row.as_array_ref() {
            cells.push(list.iter().take(100).map(cell).collect());
        } else {
            return Err(misuse("text.table: a row must be a map or a list"));
        }
    }
    let count = cells.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> =
        (0..count).map(|index| cells.iter().filter_map(|row| Some(row.get(index)?.chars().count())).max().unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let padded = row.iter().zip(&widths).map(|(text, width)| format!("{text}{}", " ".repeat(width - text.chars().count())));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_string()
    };
    sized(cells.iter().map(line).collect::<Vec<_>>().join("\n"))
}

/// A value as one cell: on one line, and not too long.
fn cell(value: &Dynamic) -> String {
    let shown = if value.is_unit() {
        String::new()
    } else {
        from_dynamic(value).map_or_else(|_| value.type_name().to_string(), |json| plain(&json))
    };
    let shown: String = shown.chars().take(TABLE.1 * 2).map(|c| if c.is_control() { ' ' } else { c }).collect();
    truncated(&shown, TABLE.1)
}
