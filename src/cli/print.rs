//! The one place that prints: data for programs as JSON or YAML, lines for people with or without colours.
//!
//! Control characters never get out, whatever data holds: they would steer the terminal.

use std::io::{IsTerminal, Write as _};
use std::sync::OnceLock;

use saphyr::{Scalar, ScalarStyle, Yaml, YamlEmitter};
use serde::Serialize;
use serde_json::Value;

use super::{Common, Output};
use crate::config::Environment;

/// When to colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Color {
    /// On a terminal, unless `NO_COLOR` is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

impl Color {
    /// What `--color` says, for help and errors of a command line that is yet to be read.
    pub(super) fn before_reading(arguments: &[std::ffi::OsString]) -> Self {
        let words: Vec<&str> = arguments.iter().filter_map(|argument| argument.to_str()).collect();
        let last = |word: &str| words.iter().rposition(|own| *own == word);
        let given = words.iter().rev().find_map(|word| word.strip_prefix("--color="));
        let given = given.or_else(|| words.get(last("--color")? + 1).copied());
        match given {
            Some("always") => Self::Always,
            Some("never") => Self::Never,
            _ => Self::Auto,
        }
    }
}

impl From<Color> for clap::ColorChoice {
    fn from(color: Color) -> Self {
        match color {
            Color::Auto => Self::Auto,
            Color::Always => Self::Always,
            Color::Never => Self::Never,
        }
    }
}

/// Whether output and error output are coloured. Decided once, at the start.
static COLOURED: OnceLock<(bool, bool)> = OnceLock::new();

/// Decides on colours.
pub(super) fn prepare(color: Color, environment: &Environment) {
    let set = |name: &str| environment.get(name).is_some_and(|value| !value.is_empty());
    let plain = set("NO_COLOR") || environment.get("TERM") == Some("dumb");
    let decide = |terminal: bool| match color {
        Color::Auto => terminal && !plain,
        Color::Always => true,
        Color::Never => false,
    };
    let _ = COLOURED.set((decide(std::io::stdout().is_terminal()), decide(std::io::stderr().is_terminal()))); // the first counts
}

fn coloured() -> (bool, bool) {
    COLOURED.get().copied().unwrap_or_default()
}

/// The columns of the terminal, if the output is one.
pub(super) fn terminal_width() -> Option<usize> {
    let (width, _) = terminal_size::terminal_size_of(std::io::stdout())?;
    Some(usize::from(width.0))
}

/// How a word or a mark looks on a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    Good,
    Bad,
    Waiting,
    Faint,
    Head,
}

impl Style {
    fn code(self) -> &'static str {
        match self {
            Self::Good => "32",
            Self::Bad => "31",
            Self::Waiting => "33",
            Self::Faint => "2",
            Self::Head => "1",
        }
    }

    /// The style of a word that tells how something stands, wherever it is printed.
    pub fn of(word: &str) -> Option<Self> {
        match word.split([' ', ',']).next().unwrap_or_default() {
            "succeeded" | "active" | "ok" | "running" | "✔" => Some(Self::Good),
            "failed" | "fail" | "no" | "timed_out" | "abandoned" | "quarantined" | "down" | "error" | "✘" => Some(Self::Bad),
            "delayed" | "requested" | "canceling" | "held" | "warn" | "warning" | "failing" | "shadow" | "…" | "⏸" => {
                Some(Self::Waiting)
            }
            "canceled" | "disabled" | "stopped" => Some(Self::Faint),
            _ => None,
        }
    }
}

/// A text in a style, where the output is coloured.
pub(super) fn styled(text: &str, style: Option<Style>) -> String {
    let text = printable(text);
    match style {
        Some(style) if coloured().0 => format!("\x1b[{}m{text}\x1b[0m", style.code()),
        _ => text,
    }
}

impl Common {
    /// Prints an answer: as data if that is asked for, else as the function does for people.
    pub fn show(&self, answer: &impl Serialize, people: impl FnOnce()) {
        match self.output {
            Output::Table => people(),
            Output::Json => print_json(answer),
            Output::Yaml => print_raw(&yaml(&json(answer))),
        }
    }

    /// The same for one of many that come one after the other: JSON takes one line, YAML is a document of its own.
    pub fn show_next(&self, answer: &Value, people: impl FnOnce()) {
        match self.output {
            Output::Table => people(),
            Output::Json => print_raw(&escaped(&answer.to_string())),
            Output::Yaml => print_raw(&format!("---\n{}", yaml(answer))),
        }
    }
}

/// Prints a line; a mark at its beginning is coloured. A reader that has gone ends the output quietly.
pub(crate) fn print_line(text: &str) {
    let text = printable(text);
    let start = text.len() - text.trim_start().len();
    let mark = text[start..].chars().next().filter(|mark| "✔✘…⏸".contains(*mark));
    match mark {
        Some(mark) if coloured().0 => {
            let end = start + mark.len_utf8();
            print_raw(&format!("{}{}{}", &text[..start], styled(&text[start..end], Style::of(&text[start..end])), &text[end..]));
        }
        _ => print_raw(&text),
    }
}

/// Prints a line that holds nothing but what may be printed, and colours.
pub(super) fn print_raw(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}"); // `| head` closes the pipe: that is no failure
}

/// Prints a text of our own making as it is, such as a script or a page: no data stands in it.
pub(super) fn print_raw_text(text: &str) {
    let _ = std::io::stdout().lock().write_all(text.as_bytes()); // as before
}

/// Prints a value as JSON.
pub(crate) fn print_json(value: &impl Serialize) {
    print_raw(&escaped(&serde_json::to_string_pretty(value).unwrap_or_default()));
}

/// Tells what went wrong, on the error output.
pub(super) fn print_error(message: &str) {
    let (red, plain) = if coloured().1 { ("\x1b[31m", "\x1b[0m") } else { ("", "") };
    eprintln!("{red}error:{plain} {}", printable(message));
}

/// Without control characters: data must not steer the terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c }).collect()
}

/// JSON text in which every control character is escaped; JSON itself lets some stand.
fn escaped(text: &str) -> String {
    if !text.contains(|c: char| c.is_control() && c != '\n') {
        return text.to_string();
    }
    let escape = |c: char| if c.is_control() && c != '\n' { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() };
    text.chars().map(escape).collect()
}

fn json(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

/// A value as a YAML document that reads as the same value again.
fn yaml(value: &Value) -> String {
    let mut text = String::new();
    let mut emitter = YamlEmitter::new(&mut text);
    emitter.multiline(true);
    emitter.dump(&node(value)).expect("a text can be written to, and nothing here is an alias");
    text.strip_prefix("---\n").unwrap_or(&text).trim_end_matches('\n').to_string()
}

fn node(value: &Value) -> Yaml<'_> {
    let plain = |text: String| Yaml::Representation(text.into(), ScalarStyle::Plain, None);
    match value {
        Value::Null => plain("null".into()),
        Value::Bool(value) => Yaml::Value(Scalar::Boolean(*value)),
        Value::Number(number) => plain(number.to_string()),
        Value::String(text) => scalar(text, true),
        Value::Array(items) => Yaml::Sequence(items.iter().map(node).collect()),
        Value::Object(fields) => Yaml::Mapping(fields.iter().map(|(name, value)| (scalar(name, false), node(value))).collect()),
    }
}

/// A text: as it stands where no reader could take it for something else, several lines as such, the rest in quotes.
fn scalar(text: &str, may_be_block: bool) -> Yaml<'_> {
    let is_block = || text.lines().count() > 1 && !text.contains(|c: char| c.is_control() && c != '\n') && !text.ends_with(['\n', ' ']);
    if is_plain(text) {
        Yaml::Representation(text.into(), ScalarStyle::Plain, None)
    } else if may_be_block && is_block() && !text.starts_with(['\n', ' ']) {
        Yaml::Value(Scalar::String(text.into()))
    } else {
        let quoted = escaped(&Value::from(text).to_string());
        Yaml::Representation(quoted[1..quoted.len() - 1].to_string().into(), ScalarStyle::DoubleQuoted, None)
    }
}

/// Whether a text means itself in every version of YAML: no number, date, truth or nothing looks like it.
fn is_plain(text: &str) -> bool {
    const WORDS: &[&str] = &["true", "false", "yes", "no", "on", "off", "y", "n", "null", "nan", "inf"];
    text.starts_with(|c: char| c.is_alphabetic() || c == '/')
        && !text.ends_with(' ')
        && text.chars().all(|c| c.is_alphanumeric() || " _./@+-".contains(c))
        && !WORDS.contains(&text.to_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::document::fault::SourceFile;
    use crate::document::node;

    fn read_again(text: &str) -> Value {
        node::parse(&SourceFile::new("yaml", text)).unwrap_or_else(|fault| panic!("{fault}\n{text}")).value()
    }

    #[test]
    fn yaml_reads_as_the_same_value_again() {
        let texts = [
            "",
            " ",
            "a",
            "a b",
            " a",
            "a ",
            "1",
            "1.10",
            "0x1f",
            "0o7",
            "0b1",
            "1_000",
            "1e3",
            ".5",
            "-1",
            "+1",
            ".inf",
            "nan",
            "~",
            "null",
            "Null",
            "yes",
            "No",
            "on",
            "off",
            "y",
            "true",
            "2026-11-20",
            "2026-11-20T07:00:00Z",
            "12:30",
            "01K4",
            "a: b",
            "a:b",
            "a #b",
            "#a",
            "- a",
            "-",
            "?",
            "[a]",
            "{a}",
            "a,b",
            "*a",
            "&a",
            "!a",
            "|",
            ">",
            "%a",
            "@a",
            "`a`",
            "'a'",
            "\"a\"",
            "a\\b",
            "---",
            "...",
            "<<",
            "=",
            "a\nb",
            "a\n\nb",
            "a\n  b\n c",
            "\na",
            "a\n",
            "a\n\n",
            " a\nb",
            "a \nb",
            "a\tb",
            "\ta",
            "a\r\nb",
            "a\u{1b}[2Jb",
            "\u{7f}",
            "\u{85}",
            "\u{9b}31m",
            "\u{2028}",
            "\u{feff}a",
            "服务",
            "服务: a",
            "é",
            "😀",
            "{{ a }}",
            "<% a %>",
            "---\na",
            "a\n---\nb",
            "#a\nb",
        ];
        for text in texts {
            for value in [json!(text), json!([text]), json!({"k": text}), json!({text: [{text: text}]}), json!([[text, [text]], {}])] {
                let printed = yaml(&value);
                assert_eq!(read_again(&printed), value, "{text:?} as\n{printed}");
                assert!(!printed.contains(|c: char| c.is_control() && c != '\n'), "{printed:?}");
            }
        }
        let value = json!({"n": [0, -1, i64::MAX, i64::MIN, 1.5, 1e300, -0.001], "b": [true, false, null], "e": [[], {}, [[]], [{}]]});
        assert_eq!(read_again(&yaml(&value)), value);
        assert_eq!(yaml(&json!(u64::MAX)), u64::MAX.to_string(), "to the last digit, whatever a reader makes of it");
    }

    #[test]
    fn what_looks_like_something_else_is_quoted() {
        let value = json!({"version": "1.10", "on": "yes", "id": "01K4", "name": "core.echo", "text": "two\nlines"});
        assert_eq!(yaml(&value), "id: \"01K4\"\nname: core.echo\n\"on\": \"yes\"\ntext: |-\n  two\n  lines\nversion: \"1.10\"");
    }

    #[test]
    fn json_keeps_what_it_escapes() {
        let text = escaped(&serde_json::to_string_pretty(&json!({"a": "\u{7f}\u{9b}\u{1b}"})).unwrap());
        assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), json!({"a": "\u{7f}\u{9b}\u{1b}"}));
    }
}
