//! One format of an alias, compiled: a regular expression in Python's notation with `{{parameter}}` and `{{parameter=default}}` in it.
//!
//! Words match in either case, a blank is a run of blanks, the expression must fit the whole command unless it has anchors of its own.
//! Time is linear in the command.

use std::sync::OnceLock;

use regex::{Captures, Regex, RegexBuilder};
use serde_json::{Map, Value};

use super::unquoted;
use crate::rule::operators::command_regex;

/// The longest format, in bytes.
pub const MAX_FORMAT_BYTES: usize = 2_000;

/// Captures of one format at most.
pub const MAX_CAPTURES: usize = 32;

/// The largest compiled size of a format.
const REGEX_BYTES: usize = 1 << 20;

/// Times that a format that may stand several times in a text is looked for.
pub const MAX_HITS: usize = 20;

/// What a parameter is written as: in quotes, in braces, or as few characters as will do.
const VALUE: &str = r#""[^"]*"|'[^']*'|\{.*?\}|\S.*?"#;

/// Captures are single characters of no meaning while the expression around them is rewritten: from these on.
const PLAIN: u32 = 0xE000;
const AFTER_BLANK: u32 = 0xE100;
const BEFORE_BLANK: u32 = 0xE200;
const LAST: u32 = 0xE2FF;

/// A parameter that a format names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capture {
    /// The parameter.
    pub name: String,
    /// What it is if it is not typed; required if absent.
    pub default: Option<String>,
}

/// A compiled format.
#[derive(Debug)]
pub struct CompiledFormat {
    pattern: String,
    regex: OnceLock<Option<Regex>>,
    /// The parameters that it names, in the order of the text; groups of the expression among them.
    pub captures: Vec<Capture>,
    /// How many fixed words it has.
    pub words: usize,
    /// The words that a command must have to match, in lower case.
    pub required: Vec<String>,
    /// The first word, if that is fixed.
    pub first: Option<String>,
    /// The words before the first parameter, in lower case, with one blank between two; if they are nothing but words.
    pub lead: Option<String>,
}

impl CompiledFormat {
    /// Compiles a format. With `anywhere` it need not fit the whole command.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn compile(source: &str, anywhere: bool) -> Result<Self, String> {
        let source = source.trim();
        if source.len() > MAX_FORMAT_BYTES {
            return Err(format!("a format has at most {MAX_FORMAT_BYTES} bytes"));
        }
        if source.chars().any(|c| (PLAIN..=LAST).contains(&u32::from(c))) {
            return Err("a format cannot hold characters for private use".into());
        }
        let (raw, mut captures) = cut_captures(source)?;
        let mut inner = command_regex(&raw)?;
        for (index, capture) in captures.iter().enumerate() {
            let (name, index) = (&capture.name, u32::try_from(index).unwrap_or_default());
            let group = format!("(?P<{name}>{VALUE})");
            inner =
                inner.replace(&placeholder(PLAIN + index), &if capture.default.is_some() { format!("{group}?") } else { group.clone() });
            inner = inner.replace(&placeholder(AFTER_BLANK + index), &format!("(?:\\s+{group})?"));
            inner = inner.replace(&placeholder(BEFORE_BLANK + index), &format!("(?:{group}\\s+)?"));
        }
        let (starts, ends) = anchors(&raw);
        let (start, end) = (if starts || anywhere { "" } else { r"\A" }, if ends || anywhere { "" } else { r"\s*\z" });
        let pattern = format!("{start}(?:{inner}){end}");
        let regex = build(&pattern).map_err(|error| last_line(&error))?;
        let named: Vec<&str> = regex.capture_names().flatten().collect();
        if let Some(lost) = captures.iter().find(|capture| !named.contains(&capture.name.as_str())) {
            return Err(format!("`{{{{{}}}}}` cannot stand inside `[…]`", lost.name));
        }
        for name in named {
            if !captures.iter().any(|capture| capture.name == name) {
                captures.push(Capture { name: name.into(), default: None });
            }
        }
        let Words { count, required, first } = words(&raw, anywhere);
        let lead = source.split("{{").next().unwrap_or_default();
        let lead = lead.chars().all(|c| is_plain(c) || c.is_whitespace()).then(|| spaced(lead));
        // Kept as text until it is first needed: a site may have very many, and uses few.
        Ok(Self { pattern, regex: OnceLock::new(), captures, words: count, required, first, lead })
    }

    fn regex(&self) -> Option<&Regex> {
        self.regex.get_or_init(|| build(&self.pattern).ok()).as_ref()
    }

    /// What a command says, if it fits: parameters as text.
    #[must_use]
    pub fn parse(&self, command: &str) -> Option<Map<String, Value>> {
        self.regex()?.captures(command).map(|found| self.values(&found))
    }

    /// What a text says each time that the format stands in it; [`MAX_HITS`] at most.
    #[must_use]
    pub fn parse_all(&self, text: &str) -> Vec<Map<String, Value>> {
        let Some(regex) = self.regex() else { return Vec::new() };
        regex.captures_iter(text).take(MAX_HITS).map(|found| self.values(&found)).collect()
    }

    fn values(&self, found: &Captures<'_>) -> Map<String, Value> {
        let value = |capture: &Capture| {
            let typed = found.name(&capture.name).map(|typed| unquoted(typed.as_str()).to_string());
            Some((capture.name.clone(), Value::from(typed.or_else(|| capture.default.clone())?)))
        };
        self.captures.iter().filter_map(value).collect()
    }
}

/// A text in lower case, with one blank between two words.
pub(super) fn spaced(text: &str) -> String {
    text.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ")
}

fn build(pattern: &str) -> Result<Regex, String> {
    RegexBuilder::new(pattern).size_limit(REGEX_BYTES).dot_matches_new_line(true).build().map_err(|error| error.to_string())
}

fn last_line(text: &str) -> String {
    format!("it is not a regular expression: {}", text.lines().last().unwrap_or(text).trim_start_matches("error: "))
}

/// A capture's character as the translator writes it.
fn placeholder(code: u32) -> String {
    format!(r"\x{{{code:x}}}")
}

/// Replaces every `{{…}}` by one character; the blank beside one that may be left out is left out with it.
fn cut_captures(source: &str) -> Result<(String, Vec<Capture>), String> {
    let chars: Vec<char> = source.chars().collect();
    let (mut raw, mut captures, mut at) = (String::new(), Vec::<Capture>::new(), 0);
    while at < chars.len() {
        if chars[at] == '\\' {
            raw.extend(chars.iter().skip(at).take(2));
            at += 2;
            continue;
        }
        if chars[at] != '{' || chars.get(at + 1) != Some(&'{') {
            raw.push(chars[at]);
            at += 1;
            continue;
        }
        let (capture, end) = read_capture(&chars, at + 2)?;
        at = end;
        if captures.len() == MAX_CAPTURES {
            return Err(format!("a format names at most {MAX_CAPTURES} parameters"));
        }
        if captures.iter().any(|other| other.name == capture.name) {
            return Err(format!("`{{{{{}}}}}` stands here twice", capture.name));
        }
        let kept = raw.trim_end().len();
        let optional = capture.default.is_some();
        let leads = raw[..kept].chars().all(|c| (BEFORE_BLANK..=LAST).contains(&u32::from(c)));
        let base = if optional && leads && chars.get(at).is_some_and(|c| c.is_whitespace()) {
            at += chars[at..].iter().take_while(|c| c.is_whitespace()).count();
            BEFORE_BLANK
        } else if optional && kept < raw.len() {
            raw.truncate(kept);
            AFTER_BLANK
        } else {
            PLAIN
        };
        let index = u32::try_from(captures.len()).unwrap_or_default();
        raw.extend(char::from_u32(base + index));
        captures.push(capture);
    }
    Ok((raw, captures))
}

/// Reads what stands between `{{` and `}}`, and where it ends.
fn read_capture(chars: &[char], start: usize) -> Result<(Capture, usize), String> {
    let blanks = |at: usize| at + chars[at.min(chars.len())..].iter().take_while(|c| c.is_whitespace()).count();
    let open = || "`{{` is not closed by `}}`".to_string();
    let begin = blanks(start);
    let length = chars[begin.min(chars.len())..].iter().take_while(|c| !c.is_whitespace() && !['=', '}', '{'].contains(*c)).count();
    let name: String = chars[begin..begin + length].iter().collect();
    let is_name = name.chars().next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !is_name {
        return Err(format!("`{{{{{name}}}}}` names no parameter: use letters, digits and `_`"));
    }
    let mut at = blanks(begin + length);
    let mut default = None;
    if chars.get(at) == Some(&'=') {
        at = blanks(at + 1);
        let from = at;
        at = default_end(chars, at).ok_or_else(open)?;
        let text: String = chars[from..at].iter().collect();
        default = Some(unquoted(&text).to_string());
        at = blanks(at);
    }
    match (chars.get(at), chars.get(at + 1)) {
        (Some('}'), Some('}')) => Ok((Capture { name, default }, at + 2)),
        (None, _) | (_, None) => Err(open()),
        _ => Err(format!("after `{{{{{name}` there must be `=` and a default, or `}}}}`")),
    }
}

/// Where a default ends: in quotes, in braces, or before `}}`.
fn default_end(chars: &[char], at: usize) -> Option<usize> {
    match chars.get(at)? {
        quote @ ('"' | '\'') => chars[at + 1..].iter().position(|c| c == quote).map(|length| at + length + 2),
        '{' => {
            let mut depth = 0usize;
            chars[at..].iter().enumerate().find_map(|(index, c)| {
                depth = match c {
                    '{' => depth + 1,
                    '}' => depth - 1,
                    _ => depth,
                };
                (depth == 0).then_some(at + index + 1)
            })
        }
        _ => chars[at..].windows(2).position(|pair| pair == ['}', '}']).map(|length| at + length),
    }
}

/// Whether an expression says itself where it begins and ends.
fn anchors(raw: &str) -> (bool, bool) {
    let (mut starts, mut ends, mut in_set) = (false, false, false);
    let mut chars = raw.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('A') => starts = true,
                Some('Z' | 'z') => ends = true,
                _ => {}
            },
            '[' => in_set = true,
            ']' => in_set = false,
            '^' if !in_set => starts = true,
            '$' if !in_set => ends = true,
            _ => {}
        }
    }
    (starts, ends)
}

struct Words {
    count: usize,
    required: Vec<String>,
    first: Option<String>,
}

/// A group while its words are counted.
#[derive(Default)]
struct Group {
    words: usize,
    /// The fewest words of the alternatives before.
    fewest: Option<usize>,
}

impl Group {
    fn close(&mut self) -> usize {
        self.fewest.take().map_or(self.words, |fewest| fewest.min(self.words))
    }
}

/// Characters that stand for themselves in an expression, and may be part of a word.
fn is_plain(c: char) -> bool {
    c.is_alphanumeric() || "_-/:'\"#@!,=&%~;<>".contains(c)
}

/// The fixed words of an expression whose captures have been cut: how many at least, and which must stand in a command between blanks.
fn words(raw: &str, anywhere: bool) -> Words {
    let raw = raw.strip_prefix('^').unwrap_or(raw);
    let raw = raw.strip_prefix(r"\s*").unwrap_or(raw);
    let raw = raw.strip_suffix('$').unwrap_or(raw);
    let raw = raw.strip_suffix(r"\s*").unwrap_or(raw);
    let chars: Vec<char> = raw.chars().collect();
    let (mut groups, mut required, mut at) = (vec![Group::default()], Vec::new(), 0);
    let (mut has_alternatives, mut first, mut after_blank) = (false, None, !anywhere);
    while let Some(&c) = chars.get(at) {
        let is_capture = (PLAIN..=LAST).contains(&u32::from(c));
        if c.is_whitespace() || is_capture || "()|".contains(c) {
            at += 1;
            let blank = c.is_whitespace() && !chars.get(at).is_some_and(|next| "?*{+".contains(*next));
            after_blank = blank || (BEFORE_BLANK..=LAST).contains(&u32::from(c));
            match c {
                '(' => {
                    groups.push(Group::default());
                    if chars.get(at) == Some(&'?') {
                        let length = chars[at..].iter().position(|c| ":>)".contains(*c)).unwrap_or(0);
                        at += length + usize::from(chars.get(at + length) != Some(&')'));
                    }
                }
                '|' => {
                    has_alternatives |= groups.len() == 1;
                    if let Some(group) = groups.last_mut() {
                        group.fewest = Some(group.close());
                        group.words = 0;
                    }
                }
                ')' if groups.len() > 1 => {
                    let inner = groups.pop().map_or(0, |mut group| group.close());
                    let is_optional = chars.get(at).is_some_and(|next| "?*".contains(*next));
                    if let Some(outer) = groups.last_mut() {
                        outer.words += if is_optional { 0 } else { inner };
                    }
                }
                _ => {}
            }
            continue;
        }
        let (start, mut plain, mut has_letters) = (at, true, false);
        while let Some(&c) =
            chars.get(at).filter(|c| !c.is_whitespace() && !"()|".contains(**c) && !(PLAIN..=LAST).contains(&u32::from(**c)))
        {
            plain &= is_plain(c);
            has_letters |= c.is_alphanumeric();
            at += 1;
            if c == '\\' {
                at += 1;
            } else if c == '[' {
                at += chars[at..].iter().skip(1).position(|c| *c == ']').map_or(0, |length| length + 2);
            }
        }
        let at_end = at.min(chars.len());
        let word: String = chars[start..at_end].iter().collect();
        if !has_letters {
            after_blank = false;
            continue;
        }
        if let Some(group) = groups.last_mut() {
            group.words += 1;
        }
        let before_blank = match chars.get(at_end) {
            None => !anywhere,
            Some(c) if c.is_whitespace() => {
                let next = chars[at_end..].iter().find(|c| !c.is_whitespace());
                !next.is_some_and(|next| "?*{+".contains(*next))
            }
            Some(c) => (AFTER_BLANK..BEFORE_BLANK).contains(&u32::from(*c)),
        };
        if plain && after_blank && before_blank && groups.len() == 1 {
            if start == 0 {
                first = Some(word.to_lowercase());
            }
            required.push(word.to_lowercase());
        }
        after_blank = false;
    }
    if has_alternatives {
        required.clear();
        first = None;
    }
    let count = groups.into_iter().map(|mut group| group.close()).sum();
    Words { count, required, first }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(format: &str, command: &str) -> Option<Value> {
        CompiledFormat::compile(format, false).unwrap_or_else(|error| panic!("{format}: {error}")).parse(command).map(Value::Object)
    }

    #[test]
    fn commands_are_read_by_their_format() {
        for (format, command, expected) in [
            ("cdos {{name}}", "cdos Checkout-7F", json!({"name": "Checkout-7F"})),
            ("cdos {{name}}", "CDOS   checkout ", json!({"name": "checkout"})),
            ("cdos {{name}} in {{env}}", "cdos a b in c", json!({"name": "a b", "env": "c"})),
            ("cdos {{name}} in {{env}}", "cdos a in b in c", json!({"name": "a", "env": "b in c"})),
            ("scale {{app}} by {{by=1}}", "scale x by", json!({"app": "x", "by": "1"})),
            ("say {{text}}", "say \"a\" and \"b\"", json!({"text": "\"a\" and \"b\""})),
            ("say {{text}}", "say  'two  blanks'", json!({"text": "two  blanks"})),
            ("say {{text}}", "say a\nb", json!({"text": "a\nb"})),
            ("{{n}} more", "3 more", json!({"n": "3"})),
            ("{{n=1}} more", "more", json!({"n": "1"})),
            ("{{a=1}} {{b=2}} x", "7 x", json!({"a": "7", "b": "2"})),
            ("(?:restart|reboot) {{app}}", "Reboot shop", json!({"app": "shop"})),
            ("colou?r {{x}}", "color red", json!({"x": "red"})),
            ("ticket (?P<key>[A-Z]+-[0-9]+)", "ticket ABC-1", json!({"key": "ABC-1"})),
            ("straße {{x}}", "STRAßE y", json!({"x": "y"})),
            ("{{x}}ms", "10ms", json!({"x": "10"})),
            ("set {{a={\"k\": 1}}}", "set", json!({"a": "{\"k\": 1}"})),
            ("^ping$", "ping", json!({})),
        ] {
            assert_eq!(parse(format, command), Some(expected), "{format} / {command}");
        }
        for (format, command) in [
            ("cdos {{name}}", "cdos"),
            ("cdos {{name}}", "cdos  "),
            ("cdos {{name}}", "acdos x"),
            ("a {{x}} b", "a   b"),
            ("ticket (?P<key>[A-Z]+-[0-9]+)", "ticket abc-1"),
            ("ping", "ping pong"),
            ("", "x"),
        ] {
            assert_eq!(parse(format, command), None, "{format} / {command}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (format, part) in [
            ("a {{x", "`{{` is not closed"),
            ("a {{x=\"1}}", "`{{` is not closed"),
            ("a {{x y}}", "there must be `=`"),
            ("a {{1x}}", "names no parameter"),
            ("a {{}}", "names no parameter"),
            ("a {{x}} {{x}}", "stands here twice"),
            ("a [{{x}}]", "inside `[…]`"),
            ("a (b", "unclosed group"),
            ("a (?=b)", "look-ahead"),
            (r"(a) \1", "back-reference"),
            ("a\u{e000}", "private use"),
            ("(a{1000}){1000}", "size limit"),
        ] {
            let error = CompiledFormat::compile(format, false).unwrap_err();
            assert!(error.contains(part), "{format}: {error}");
        }
        assert!(CompiledFormat::compile(&"a".repeat(3_000), false).is_err());
    }

    #[test]
    fn fixed_words_are_counted_and_the_required_ones_found() {
        for (format, count, required, first) in [
            ("cdos {{name}} in {{env}}", 2, &["cdos", "in"][..], Some("cdos")),
            ("Deploy {{app}} {{v=1}} to {{env}}", 2, &["deploy", "to"], Some("deploy")),
            ("{{n=1}} more", 1, &["more"], None),
            ("{{x}}ms", 1, &[], None),
            ("re-run it's {{x}}", 2, &["re-run", "it's"], Some("re-run")),
            ("(?:restart|re start) {{app}} now", 2, &["now"], None),
            ("(?:please )?go {{x}}", 1, &[], None),
            ("a b|c", 1, &[], None),
            ("colou?r {{x}}", 1, &[], None),
            ("foo ?bar", 2, &[], None),
            (r"^\s*foo (?P<key>[A-Z][A-Z0-9]+-[0-9]+) bar\s*$", 2, &["foo", "bar"], Some("foo")),
            ("acl {{a=1}}", 1, &["acl"], Some("acl")),
            ("foo {{a=1}}bar", 2, &["foo"], Some("foo")),
            ("", 0, &[], None),
        ] {
            let compiled = CompiledFormat::compile(format, false).unwrap();
            let found = (compiled.words, compiled.required.iter().map(String::as_str).collect::<Vec<_>>(), compiled.first.as_deref());
            assert_eq!(found, (count, required.to_vec(), first), "{format}");
        }
        let anywhere = CompiledFormat::compile(r"(?:\b|^)duplicate of (?P<key>[A-Z]+-[0-9]+)", true).unwrap();
        assert_eq!(anywhere.required, ["of"]);
    }
}
