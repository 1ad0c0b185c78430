//! Python's regular expressions and shell patterns, as expressions of an engine whose time is linear in the text.
//!
//! An expression is rewritten where the two differ in meaning, so that one that compiles means what it means in Python. What cannot be had
//! in linear time is refused when it is loaded.

use regex::{Regex, RegexBuilder};

use crate::model::rule::Operator;

/// The largest compiled size of a regular expression; the engine's time is linear in the text in any case.
const REGEX_BYTES: usize = 1 << 20;

/// The longest source of a regular expression.
const MAX_SOURCE_BYTES: usize = 16 * 1024;

/// The part of an expression that an error shows, in characters.
const SHOWN: usize = 80;

/// Compiles the pattern of `regex`, `iregex`, `matchregex` or `matchwildcard`.
pub(super) fn compile(operator: Operator, source: &str) -> Result<Regex, String> {
    let shown: String = source.chars().take(SHOWN).collect();
    if source.len() > MAX_SOURCE_BYTES {
        return Err(format!("`{shown}…` is longer than {MAX_SOURCE_BYTES} bytes"));
    }
    let translated = match operator {
        Operator::Matchwildcard => Ok(wildcard(source)),
        Operator::Matchregex => translate(source, false).map(|inner| format!(r"\A(?:{inner})")),
        _ => translate(source, false),
    };
    let faulty = |what: &str| format!("`{shown}` is not a regular expression: {what}");
    let translated = translated.map_err(|what| faulty(&what))?;
    let mut builder = RegexBuilder::new(&translated);
    builder.size_limit(REGEX_BYTES).case_insensitive(operator == Operator::Iregex);
    builder.dot_matches_new_line(matches!(operator, Operator::Matchregex | Operator::Matchwildcard));
    builder.build().map_err(|error| faulty(last_line(&error.to_string())))
}

fn last_line(text: &str) -> &str {
    text.lines().last().unwrap_or(text).trim_start_matches("error: ")
}

/// The whole text by `*`, `?`, `[seq]` and `[!seq]`, as `fnmatch` has it.
fn wildcard(pattern: &str) -> String {
    let chars: Vec<char> = pattern.chars().collect();
    let (mut out, mut at) = (String::from(r"\A"), 0);
    while let Some(&c) = chars.get(at) {
        at += 1;
        match c {
            '*' if out.ends_with(".*") => {}
            '*' => out.push_str(".*"),
            '?' => out.push('.'),
            '[' => match set_end(&chars, at) {
                Some(end) => {
                    wildcard_set(&chars[at..end], &mut out);
                    at = end + 1;
                }
                None => literal('[', &mut out),
            },
            c => literal(c, &mut out),
        }
    }
    out + r"\z"
}

/// Where a set closes; `]` at its beginning belongs to it.
fn set_end(chars: &[char], start: usize) -> Option<usize> {
    let inner = start + usize::from(chars.get(start) == Some(&'!'));
    let from = inner + usize::from(chars.get(inner) == Some(&']'));
    chars.get(from..)?.iter().position(|c| *c == ']').map(|end| from + end)
}

fn wildcard_set(set: &[char], out: &mut String) {
    let (negated, set) = set.strip_prefix(&['!']).map_or((false, set), |rest| (true, rest));
    let (mut inner, mut at) = (String::new(), 0);
    while let Some(&low) = set.get(at) {
        let range = set.get(at + 2).filter(|_| set[at + 1] == '-');
        at += if range.is_some() { 3 } else { 1 };
        // A range that is upside down holds nothing.
        if range.is_none_or(|high| low <= *high) {
            literal(low, &mut inner);
        }
        if let Some(high) = range.filter(|high| low <= **high) {
            inner.push('-');
            literal(*high, &mut inner);
        }
    }
    match (inner.is_empty(), negated) {
        (true, false) => out.push_str(r"[^\s\S]"),
        (true, true) => out.push('.'),
        (false, false) => out.push_str(&format!("[{inner}]")),
        (false, true) => out.push_str(&format!("[^{inner}]")),
    }
}

/// Writes a character that stands for itself, in a set or outside.
fn literal(c: char, out: &mut String) {
    if c.is_alphanumeric() || c == '_' {
        out.push(c);
    } else {
        out.push_str(&format!(r"\x{{{:x}}}", u32::from(c)));
    }
}

/// Writes the regular expression of a command as it is typed in chat anew: letters are either case, and a blank is a run of blanks.
///
/// # Errors
/// What is wrong with it.
pub(super) fn translate_words(source: &str) -> Result<String, String> {
    translate(source, true).map_err(|what| match what.split_once(INSTEAD) {
        Some((construct, _)) => format!("{construct}{INSTEAD}"), // what to do instead is told to rules only
        None => what,
    })
}

/// Writes a letter in both cases.
fn either_case(c: char, out: &mut String) {
    let (mut lower, mut upper) = (c.to_lowercase(), c.to_uppercase());
    match (lower.next(), lower.next(), upper.next(), upper.next()) {
        (Some(lower), None, Some(upper), None) if lower != upper => out.extend(['[', lower, upper, ']']),
        _ => literal(c, out),
    }
}

/// Writes a regular expression of Python anew.
fn translate(source: &str, words: bool) -> Result<String, String> {
    let mut translator =
        Translator { chars: source.chars().collect(), at: 0, out: String::new(), flags: Flags::default(), outer: Vec::new(), words };
    while let Some(c) = translator.next() {
        translator.take(c)?;
    }
    Ok(translator.out)
}

/// The flags that change how the rest is read.
#[derive(Clone, Copy, Default)]
struct Flags {
    multi_line: bool,
    verbose: bool,
}

struct Translator {
    chars: Vec<char>,
    at: usize,
    out: String,
    flags: Flags,
    /// The flags outside of each open group.
    outer: Vec<Flags>,
    /// Whether letters are either case, and a blank is a run of blanks; not so in sets.
    words: bool,
}

/// A character or a class in a set.
enum Atom {
    Char(char),
    Class(String),
}

const INSTEAD: &str = "which takes more than linear time and does not exist here";

impl Translator {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.peek(0);
        self.at += usize::from(next.is_some());
        next
    }

    fn rest_starts_with(&self, text: &str) -> bool {
        text.chars().enumerate().all(|(ahead, c)| self.peek(ahead) == Some(c))
    }

    fn take(&mut self, c: char) -> Result<(), String> {
        match c {
            '\\' => return self.escape(),
            '[' => return self.set(),
            '(' => return self.group(),
            ')' => {
                self.flags = self.outer.pop().unwrap_or(self.flags);
                self.out.push(')');
            }
            // The end, or before a new line that is the last character.
            '$' if !self.flags.multi_line => self.out.push_str(r"(?:\n?\z)"),
            '*' | '+' | '?' => {
                self.out.push(c);
                return self.after_repetition();
            }
            '{' => return self.braces(),
            '#' if self.flags.verbose => while self.next().is_some_and(|c| c != '\n') {},
            c if self.flags.verbose && c.is_whitespace() => {}
            '.' | '^' | '$' | '|' => self.out.push(c),
            c if self.words && c.is_whitespace() => {
                while self.peek(0).is_some_and(char::is_whitespace) {
                    self.next();
                }
                self.out.push_str(r"(?:\s+)");
            }
            c if self.words => either_case(c, &mut self.out),
            c => literal(c, &mut self.out),
        }
        Ok(())
    }

    fn after_repetition(&mut self) -> Result<(), String> {
        match self.peek(0) {
            Some('+') => Err(format!("it uses a possessive repetition (`++`, `*+`), {INSTEAD}; leave out the second `+`")),
            Some('?') => {
                let lazy = self.next();
                self.out.extend(lazy);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// `{2}`, `{2,}`, `{,5}`, `{2,5}`; anything else is text.
    fn braces(&mut self) -> Result<(), String> {
        let inner: String = self.chars[self.at..].iter().take_while(|c| c.is_ascii_digit() || **c == ',').collect();
        let bounds = match inner.split_once(',') {
            Some((low, high)) if !high.contains(',') => Some(format!("{{{},{high}}}", if low.is_empty() { "0" } else { low })),
            None if !inner.is_empty() => Some(format!("{{{inner}}}")),
            _ => None,
        };
        if let Some(bounds) = bounds.filter(|_| self.peek(inner.len()) == Some('}')) {
            self.at += inner.len() + 1;
            self.out.push_str(&bounds);
            return self.after_repetition();
        }
        literal('{', &mut self.out);
        Ok(())
    }

    fn group(&mut self) -> Result<(), String> {
        let unavailable = |construct: &str, what: &str, instead: &str| Err(format!("it uses {what} (`{construct}`), {INSTEAD}; {instead}"));
        let two = "test one field twice, as `trigger.a#1` and `trigger.a#2`, or compare in `when`";
        for (construct, what, instead) in [
            ("?=", "look-ahead", two),
            ("?!", "negative look-ahead", two),
            ("?<=", "look-behind", two),
            ("?<!", "negative look-behind", two),
            ("?P=", "a back-reference", "compare in `when`"),
            ("?>", "an atomic group", "write `(?:…)`"),
            ("?(", "a conditional group", "write the alternatives with `|`"),
        ] {
            if self.rest_starts_with(construct) {
                return unavailable(&format!("({construct}"), what, instead);
            }
        }
        if self.rest_starts_with("?#") {
            while self.next().is_some_and(|c| c != ')') {}
            return Ok(());
        }
        if self.rest_starts_with("?P<") || self.rest_starts_with("?<") {
            self.outer.push(self.flags);
            self.out.push('(');
            while let Some(c) = self.next() {
                self.out.push(c);
                if c == '>' {
                    break;
                }
            }
            return Ok(());
        }
        if self.peek(0) == Some('?') {
            return self.flags();
        }
        self.outer.push(self.flags);
        self.out.push('(');
        Ok(())
    }

    /// `(?i)`, `(?i-s:`, `(?:`.
    fn flags(&mut self) -> Result<(), String> {
        self.next();
        let (before, mut on, mut off, mut adds) = (self.flags, String::new(), String::new(), true);
        let end = loop {
            match self.next() {
                Some(end @ (')' | ':')) => break end,
                Some('-') => adds = false,
                Some('x') => self.flags.verbose = adds,
                Some('u') => {}
                Some(flag @ ('i' | 'm' | 's')) => {
                    if flag == 'm' {
                        self.flags.multi_line = adds;
                    }
                    if adds { on.push(flag) } else { off.push(flag) }
                }
                Some(flag) => return Err(format!("`(?{flag}` is not known here; the flags are i, m, s and x")),
                None => return Err("a group is not closed".into()),
            }
        };
        let off = if off.is_empty() { off } else { format!("-{off}") };
        if end == ':' {
            self.outer.push(before);
            self.out.push_str(&format!("(?{on}{off}:"));
        } else if !on.is_empty() || !off.is_empty() {
            self.out.push_str(&format!("(?{on}{off})"));
        }
        Ok(())
    }

    fn escape(&mut self) -> Result<(), String> {
        let Some(c) = self.next() else { return Err("it ends with `\\`".into()) };
        match c {
            'Z' => self.out.push_str(r"\z"),
            'A' | 'b' | 'B' | 'z' => self.out.extend(['\\', c]),
            '1'..='9' if self.octal(c, 2).is_none() => {
                return Err(format!("it uses a back-reference (`\\{c}`), {INSTEAD}; compare in `when`"));
            }
            c => match self.escaped(c)? {
                Atom::Char(c) => literal(c, &mut self.out),
                Atom::Class(class) => self.out.push_str(&class),
            },
        }
        Ok(())
    }

    /// What `\` and this character stand for, in a set or outside.
    fn escaped(&mut self, c: char) -> Result<Atom, String> {
        let faulty = |c| format!("`\\{c}` is no escape that exists here");
        Ok(Atom::Char(match c {
            'd' | 'D' | 'w' | 'W' | 's' | 'S' => return Ok(Atom::Class(format!("\\{c}"))),
            'p' | 'P' => return self.property(c),
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'f' => '\u{c}',
            'v' => '\u{b}',
            'a' => '\u{7}',
            'x' => self.hexadecimal(2).ok_or_else(|| faulty(c))?,
            'u' => self.hexadecimal(4).ok_or_else(|| faulty(c))?,
            'U' => self.hexadecimal(8).ok_or_else(|| faulty(c))?,
            '0'..='9' => {
                let (value, length) = self.octal(c, 0).ok_or_else(|| faulty(c))?;
                self.at += length;
                value
            }
            c if c.is_ascii_alphabetic() => return Err(faulty(c)),
            c => c,
        }))
    }

    fn hexadecimal(&mut self, digits: usize) -> Option<char> {
        let text: String = self.chars.get(self.at..self.at + digits)?.iter().collect();
        let found = text.bytes().all(|b| b.is_ascii_hexdigit()).then(|| u32::from_str_radix(&text, 16).ok()).flatten()?;
        self.at += digits;
        char::from_u32(found)
    }

    /// The character of up to three octal digits of which the first has been read, and how many more there are, at least so many.
    fn octal(&self, first: char, at_least: usize) -> Option<(char, usize)> {
        let more: String = self.chars[self.at..].iter().take(2).take_while(|c| ('0'..='7').contains(*c)).collect();
        let value = u32::from_str_radix(&format!("{first}{more}"), 8).ok().filter(|value| *value <= 0o377)?;
        (more.len() >= at_least).then_some((char::from_u32(value)?, more.len()))
    }

    /// `\p{Greek}`: not Python's, but does no harm.
    fn property(&mut self, c: char) -> Result<Atom, String> {
        let length = self.chars[self.at..].iter().position(|c| *c == '}').filter(|_| self.peek(0) == Some('{'));
        let length = length.ok_or_else(|| format!("`\\{c}` needs the name of a property, as in `\\{c}{{Greek}}`"))?;
        let name: String = self.chars[self.at..=self.at + length].iter().collect();
        self.at += length + 1;
        Ok(Atom::Class(format!("\\{c}{name}")))
    }

    /// `[…]`: in Python `[`, `&&`, `~~` and `--` are characters in it.
    fn set(&mut self) -> Result<(), String> {
        self.out.push('[');
        if self.peek(0) == Some('^') {
            let negation = self.next();
            self.out.extend(negation);
        }
        let mut first = true;
        loop {
            let low = match self.next() {
                None => return Err("a character class is not closed".into()),
                Some(']') if !first => break,
                Some(c) => self.atom(c)?,
            };
            first = false;
            let is_range = self.peek(0) == Some('-') && self.peek(1).is_some_and(|c| c != ']');
            match low {
                Atom::Char(low) if is_range => {
                    self.next();
                    let high = self.next().unwrap_or(']');
                    let Atom::Char(high) = self.atom(high)? else { return Err(format!("the range from `{low}` ends with a class")) };
                    if low > high {
                        return Err(format!("the range from `{low}` to `{high}` is upside down"));
                    }
                    literal(low, &mut self.out);
                    self.out.push('-');
                    literal(high, &mut self.out);
                }
                Atom::Char(c) => literal(c, &mut self.out),
                Atom::Class(class) => self.out.push_str(&class),
            }
        }
        self.out.push(']');
        Ok(())
    }

    fn atom(&mut self, c: char) -> Result<Atom, String> {
        match (c, self.peek(0)) {
            ('\\', Some('b')) => {
                self.next();
                Ok(Atom::Char('\u{8}'))
            }
            ('\\', Some(c)) => {
                self.next();
                self.escaped(c)
            }
            ('\\', None) => Err("a character class is not closed".into()),
            (c, _) => Ok(Atom::Char(c)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(operator: Operator, cases: &[(&str, &str, bool)]) {
        for (pattern, text, expected) in cases {
            let regex = compile(operator, pattern).unwrap_or_else(|error| panic!("{pattern}: {error}"));
            assert_eq!(regex.is_match(text), *expected, "{} {pattern:?} in {text:?} ({regex})", operator.name());
        }
    }

    // What Python 3.11 answers to each.
    #[test]
    fn regular_expressions_mean_what_they_mean_in_python() {
        check(
            Operator::Regex,
            &[
                ("a$", "a\n", true),
                ("a$", "a\n\n", false),
                ("^a", "b\na", false),
                ("(?m)^a$", "b\na\nc", true),
                ("(?m:^a$)", "b\na\nc", true),
                ("(?m:b)$", "b\nc", false),
                (r"a\Z", "a\n", false),
                (r"\Aa", "ba", false),
                ("(?P<n>a)(?:b)", "ab", true),
                ("a.c", "a\nc", false),
                ("(?s)a.c", "a\nc", true),
                ("(?s:a.)b.", "a\nb\n", false),
                ("(?i)AB", "ab", true),
                ("a(?i:B)c", "aBC", false),
                ("(?x) a b # $ ( [\n c", "abc", true),
                (r"(?x)a\ b[ ]c", "a b c", true),
                ("a(?# comment )b", "ab", true),
                ("a{2}", "aa", true),
                ("^a{,2}$", "aaa", false),
                ("^a{,}$", "aaa", true),
                ("a{", "a{", true),
                ("{}", "{}", true),
                ("a{x}", "a{x}", true),
                ("a{1,2,3}", "a{1,2,3}", true),
                ("a}]", "a}]", true),
                ("[]a]", "]", true),
                ("[^]a]", "]", false),
                ("[[a]", "[", true),
                ("[[:alpha:]", "h", true),
                ("[[:alpha:]", "z", false),
                ("[a&&b]", "&", true),
                ("[a~~b]", "~", true),
                ("[+--]", ",", true),
                ("[a-]", "-", true),
                ("[-a]", "-", true),
                (r"[\w-]", "-", true),
                (r"[\b]", "\u{8}", true),
                (r"[\]\\]", "\\", true),
                (r"[\x41-\u0043]", "B", true),
                (r"\x41\u00e9\U0001f600", "Aé😀", true),
                (r"\0", "\0", true),
                (r"\101\07", "A\u{7}", true),
                (r"\<b\>", "<b>", true),
                (r"\<b\>", "b", false),
                (r"\-\/\'\_\é\#\&", "-/'_é#&", true),
                (r"\d", "٣", true),
                (r"\bé\b", "x é y", true),
                (r"\b{start}", "a{start}", true),
                ("a|b$", "b\n", true),
                ("a+?b*?c??", "a", true),
                ("日本", "今日本", true),
                ("", "", true),
            ],
        );
        check(Operator::Iregex, &[("straSSE", "STRASSE", true), ("É", "é", true), ("v1$", "V1_foo", false)]);
        check(
            Operator::Matchregex,
            &[
                ("a|b", "ab", true),
                ("b|a", "cab", false),
                (".b", "\nb", true),
                ("v1$", "v1", true),
                ("b", "a\nb", false),
                ("(?x)a # b", "a", true),
            ],
        );
    }

    #[test]
    fn what_is_not_available_is_named_with_what_to_do() {
        for (pattern, construct, instead) in [
            ("a(?=b)", "look-ahead (`(?=`)", "trigger.a#1"),
            ("^(?!b)", "negative look-ahead (`(?!`)", "when"),
            ("(?<=a)b", "look-behind (`(?<=`)", "when"),
            ("(?<!a)b", "negative look-behind (`(?<!`)", "when"),
            (r"(a)\1", "back-reference (`\\1`)", "when"),
            ("(?P<a>.)(?P=a)", "back-reference (`(?P=`)", "when"),
            ("(?>a)", "atomic group (`(?>`)", "(?:…)"),
            ("(a)?(?(1)b|c)", "conditional group (`(?(`)", "`|`"),
            ("a++", "possessive repetition", "leave out"),
            ("a{2}+", "possessive repetition", "leave out"),
            ("(?a)b", "`(?a` is not known here", "the flags are"),
        ] {
            let error = compile(Operator::Regex, pattern).unwrap_err();
            assert!(error.starts_with(&format!("`{pattern}` is not a regular expression: ")), "{error}");
            assert!(error.contains(construct) && error.contains(instead), "{pattern}: {error}");
        }
        for (pattern, what) in [
            ("(a", "unclosed group"),
            ("a)", "unopened group"),
            ("[a", "a character class is not closed"),
            ("[z-a]", "upside down"),
            (r"[a-\d]", "ends with a class"),
            (r"\q", "`\\q` is no escape"),
            (r"\x4", "`\\x` is no escape"),
            (r"\ud800", "`\\u` is no escape"),
            ("a\\", "ends with `\\`"),
            (r"\p", "needs the name of a property"),
            ("*a", "missing expression"),
            ("(?", "a group is not closed"),
        ] {
            let error = compile(Operator::Regex, pattern).unwrap_err();
            assert!(error.contains(what), "{pattern}: {error}");
        }
    }

    // What Python's fnmatchcase answers to each.
    #[test]
    fn wildcards_mean_what_they_mean_in_a_shell() {
        check(
            Operator::Matchwildcard,
            &[
                ("b*r", "bar", true),
                ("b?r", "bar", true),
                ("foo", "test foo test", false),
                ("*foo*", "test foo\n test", true),
                ("B*", "bar", false),
                ("a.c", "abc", false),
                ("a\n", "a", false),
                ("a", "a\n", false),
                ("[ab]c", "bc", true),
                ("[!ab]c", "bc", false),
                ("[!ab]c", "xc", true),
                ("[a-c]", "b", true),
                ("[c-a]", "b", false),
                ("[!c-a]", "b", true),
                ("[]]", "]", true),
                ("[!]]", "]", false),
                ("[a-]", "-", true),
                ("[-a]", "-", true),
                ("[a-b-c]", "-", true),
                ("[a-b-c]", "c", true),
                ("[^a]", "^", true),
                ("[\\d]", "\\", true),
                ("[", "[", true),
                ("a[b", "a[b", true),
                ("[!", "[!", true),
                ("[]", "[]", true),
                ("?", "日", true),
                ("", "", true),
                ("", "a", false),
            ],
        );
    }

    #[test]
    fn no_expression_makes_the_translator_panic() {
        let pieces = [
            "(", ")", "[", "]", "?", "P", "<", ">", "=", "!", ":", "#", "\\", "{", "}", ",", "2", "x", "u", "i", "-", "^", "$", "*", "+",
            "|", "é", "\n", "b",
        ];
        let mut state = 11u64;
        for _ in 0..3_000 {
            let mut pattern = String::new();
            for _ in 0..state % 12 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407) & (u64::MAX >> 1);
                pattern.push_str(pieces[usize::try_from(state >> 33).unwrap() % pieces.len()]);
            }
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407) & (u64::MAX >> 1);
            for operator in [Operator::Regex, Operator::Matchregex, Operator::Matchwildcard] {
                let compiled = compile(operator, &pattern);
                assert!(compiled.is_ok() || operator != Operator::Matchwildcard, "{pattern:?}: {compiled:?}");
            }
        }
    }

    #[test]
    fn bombs_are_refused_and_hostile_text_takes_linear_time() {
        for bomb in [
            "a{1000}{1000}{1000}".to_string(),
            format!("{}a{}", "(".repeat(5_000), ")".repeat(5_000)),
            "(?:".repeat(5_000),
            "[".repeat(16_000),
            r"\w{500}".repeat(50),
            "a".repeat(20_000),
        ] {
            assert!(compile(Operator::Regex, &bomb).is_err());
        }
        let text = "a".repeat(1_000_000);
        check(
            Operator::Regex,
            &[("^(a+)+$", &format!("{text}!"), false), ("(a|a)*b", &text, false), ("(a*)*(a*)*c$", &text, false), ("a$", &text, true)],
        );
        check(
            Operator::Matchwildcard,
            &[("*a*a*a*a*b", &text, false), (&"*a".repeat(200), &text, true), (&format!("{}b", "*".repeat(10_000)), &text, false)],
        );
    }
}
