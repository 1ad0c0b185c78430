//! Regular expressions whose cost has a bound: time is linear in the text, and whatever looks at many places looks at the deadline, too.
//!
//! The `regex` crate never backtracks, but an expression with very many states costs as many steps for each byte. So each expression is
//! also a lazily built automaton, which takes one step a byte, and gives up where it would have to be rebuilt all the time. Where it
//! gives up, only short texts are searched.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};

use regex::{Regex, RegexBuilder};
use regex_automata::hybrid::regex::{Cache, Regex as Lazy};
use regex_automata::{Input, hybrid::dfa, nfa::thompson};
use rhai::{Array, Dynamic, ImmutableString, Map, Module};

use super::module::function;
use super::{HostModule, MAX_ITEMS, MAX_STRING_BYTES, ScriptCall, Thrown, misuse, thrown};
use crate::model::failure::Failure;
use crate::model::reason::Reason;

pub(super) const MODULE: HostModule = HostModule {
    name: "regex",
    summary: "Regular expressions in the syntax of Rust's `regex`: no look-around and no back-references. `(?i)` in front ignores case, `(?m)` \
              lets `^` and `$` stand for lines. In Rhai, text between backticks needs no doubled backslash.",
    values: &[],
    functions: &[
        function(
            "regex.matches(pattern, text)",
            "Whether it occurs anywhere in the text.",
            "regex.matches(`^shop-\\d+$`, \"shop-7\")",
            "true",
        ),
        function("regex.find(pattern, text)", "The first place that matches, or `()`.", "regex.find(`\\d+`, \"a 12 b 7\")", "\"12\""),
        function(
            "regex.find_all(pattern, text)",
            "Every place that matches; 10,000 at most.",
            "regex.find_all(`\\d+`, \"a 12 b 7\")",
            "[\"12\",\"7\"]",
        ),
        function(
            "regex.captures(pattern, text)",
            "The groups of the first place that matches, by number and name, or `()`. A group that took no part is `()`.",
            "regex.captures(`(?<app>\\w+)-(\\d+)`, \"shop-7\")",
            "{\"0\":\"shop-7\",\"1\":\"shop\",\"2\":\"7\",\"app\":\"shop\"}",
        ),
        function(
            "regex.replace(pattern, text, by)",
            "Replaces every place; `$1` and `${name}` stand for groups, `$$` for a dollar.",
            "regex.replace(`(\\w+)@(\\w+)`, \"a@b\", \"$2.$1\")",
            "\"b.a\"",
        ),
        function(
            "regex.split(pattern, text)",
            "What stands between the places that match; 10,000 pieces at most.",
            "regex.split(`\\s*,\\s*`, \"a , b,c\")",
            "[\"a\",\"b\",\"c\"]",
        ),
        function("regex.escape(text)", "A pattern that matches exactly this text.", "regex.escape(\"1.5\")", "\"1\\\\.5\""),
    ],
    object,
    register,
};

/// The longest pattern.
const MAX_PATTERN_BYTES: usize = 4 << 10;

/// The largest compiled pattern.
const MAX_COMPILED_BYTES: usize = 512 << 10;

/// Memory of one automaton while it searches.
const CACHE_BYTES: usize = 1 << 20;

/// The longest text that is searched where the automaton gives up.
const MAX_COSTLY_BYTES: usize = 4 << 10;

/// Patterns that are kept compiled; with more of them all are compiled anew.
const KEPT: usize = 256;

struct Compiled {
    plain: Regex,
    lazy: Option<(Lazy, Mutex<Cache>)>,
}

static COMPILED: LazyLock<Mutex<HashMap<String, Arc<Compiled>>>> = LazyLock::new(Mutex::default);

#[derive(Clone)]
struct Expressions(Arc<ScriptCall>);

fn object(call: &Arc<ScriptCall>) -> Dynamic {
    Dynamic::from(Expressions(Arc::clone(call)))
}

fn register(module: &mut Module) {
    module.set_custom_type::<Expressions>("regex");
    module.set_native_fn("matches", |_: &mut Expressions, pattern: ImmutableString, text: ImmutableString| {
        Ok(compiled(&pattern)?.find(&text, 0)?.is_some())
    });
    module.set_native_fn("find", |_: &mut Expressions, pattern: ImmutableString, text: ImmutableString| {
        Ok(compiled(&pattern)?.find(&text, 0)?.map_or(Dynamic::UNIT, |(from, to)| Dynamic::from(text[from..to].to_string())))
    });
    module.set_native_fn("find_all", |own: &mut Expressions, pattern: ImmutableString, text: ImmutableString| {
        let mut found = Array::new();
        own.each(&*compiled(&pattern)?, &text, |from, to| few(&mut found, &text[from..to]))?;
        Ok(found)
    });
    module.set_native_fn("captures", |_: &mut Expressions, pattern: ImmutableString, text: ImmutableString| {
        let expression = compiled(&pattern)?;
        Ok(if expression.find(&text, 0)?.is_some() { groups(&expression.plain, &text) } else { Dynamic::UNIT })
    });
    module.set_native_fn("replace", |own: &mut Expressions, pattern: ImmutableString, text: ImmutableString, by: ImmutableString| {
        own.replace(&*compiled(&pattern)?, &text, &by)
    });
    module.set_native_fn("split", |own: &mut Expressions, pattern: ImmutableString, text: ImmutableString| {
        let (mut pieces, mut last) = (Array::new(), 0);
        own.each(&*compiled(&pattern)?, &text, |from, to| {
            few(&mut pieces, &text[last..from])?;
            last = to;
            Ok(())
        })?;
        few(&mut pieces, &text[last..])?;
        Ok(pieces)
    });
    module.set_native_fn("escape", |_: &mut Expressions, text: ImmutableString| Ok(ImmutableString::from(regex::escape(&text))));
}

#[allow(clippy::unnecessary_box_returns, reason = "the form in which Rhai takes errors")]
fn too_large(message: String) -> Thrown {
    thrown(Failure { reason: Reason::BudgetExceeded, message, retry: false })
}

fn few(list: &mut Array, text: &str) -> Result<(), Thrown> {
    if list.len() == MAX_ITEMS {
        return Err(too_large(format!("regex: more than {MAX_ITEMS} places match")));
    }
    list.push(Dynamic::from(text.to_string()));
    Ok(())
}

fn compiled(pattern: &str) -> Result<Arc<Compiled>, Thrown> {
    if let Some(found) = COMPILED.lock().expect("no panic happens while the lock is held").get(pattern) {
        return Ok(Arc::clone(found));
    }
    let new = Arc::new(Compiled::new(pattern).map_err(|what| misuse(format!("regex: {what}")))?);
    let mut kept = COMPILED.lock().expect("no panic happens while the lock is held");
    if kept.len() >= KEPT {
        kept.clear();
    }
    kept.insert(pattern.to_string(), Arc::clone(&new));
    Ok(new)
}

impl Compiled {
    fn new(pattern: &str) -> Result<Self, String> {
        let shown: String = pattern.chars().take(80).collect();
        if pattern.len() > MAX_PATTERN_BYTES {
            return Err(format!("`{shown}…` is longer than {MAX_PATTERN_BYTES} bytes"));
        }
        let plain = RegexBuilder::new(pattern).size_limit(MAX_COMPILED_BYTES).build().map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => format!("`{shown}` is too large; repeat less"),
            error => {
                let text = error.to_string();
                format!("`{shown}` is not a regular expression: {}", text.lines().last().unwrap_or_default().trim_start_matches("error: "))
            }
        })?;
        // What has no lazy automaton (a word boundary of Unicode, for one) is searched in short texts only.
        let search = dfa::Config::new()
            .cache_capacity(CACHE_BYTES)
            .unicode_word_boundary(true)
            .minimum_cache_clear_count(Some(3))
            .minimum_bytes_per_state(Some(10));
        let lazy = Lazy::builder().dfa(search).thompson(thompson::Config::new().nfa_size_limit(Some(MAX_COMPILED_BYTES))).build(pattern);
        let lazy = lazy.ok().map(|lazy| {
            let cache = lazy.create_cache();
            (lazy, Mutex::new(cache))
        });
        Ok(Self { plain, lazy })
    }

    /// The next place from there on.
    fn find(&self, text: &str, at: usize) -> Result<Option<(usize, usize)>, Thrown> {
        if let Some((lazy, cache)) = &self.lazy {
            let mut cache = cache.lock().expect("no panic happens while the lock is held");
            if let Ok(found) = lazy.try_search(&mut cache, &Input::new(text).range(at..)) {
                return Ok(found.map(|found| (found.start(), found.end())));
            }
        }
        if text.len() > MAX_COSTLY_BYTES {
            return Err(too_large(format!(
                "regex: this expression costs too much for a text of {} bytes; make it simpler, or search {MAX_COSTLY_BYTES} bytes at a time",
                text.len()
            )));
        }
        Ok(self.plain.find_at(text, at).map(|found| (found.start(), found.end())))
    }
}

impl Expressions {
    /// Every place that matches, one after the other. There may be as many as there are bytes, so the deadline is looked at.
    fn each(&self, expression: &Compiled, text: &str, mut take: impl FnMut(usize, usize) -> Result<(), Thrown>) -> Result<(), Thrown> {
        let (mut at, mut last) = (0, None);
        while at <= text.len()
            && let Some((from, to)) = expression.find(text, at)?
        {
            self.0.look()?;
            let next = |place: usize| place + text[place..].chars().next().map_or(1, char::len_utf8);
            // An empty match right behind another one is not one more.
            if from == to && last == Some(to) {
                at = next(to);
                continue;
            }
            take(from, to)?;
            last = Some(to);
            at = if from == to { next(to) } else { to };
        }
        Ok(())
    }

    fn replace(&self, expression: &Compiled, text: &str, by: &str) -> Result<ImmutableString, Thrown> {
        let (mut written, mut last) = (String::new(), 0);
        let bounded = |written: &str| {
            if written.len() > MAX_STRING_BYTES {
                Err(too_large(format!("regex.replace: more than {MAX_STRING_BYTES} bytes")))
            } else {
                Ok(())
            }
        };
        self.each(expression, text, |from, to| {
            written.push_str(&text[last..from]);
            if by.contains('$') {
                if let Some(groups) = expression.plain.captures_at(text, from) {
                    groups.expand(by, &mut written);
                }
            } else {
                written.push_str(by);
            }
            last = to;
            bounded(&written)
        })?;
        written.push_str(&text[last..]);
        bounded(&written)?;
        Ok(written.into())
    }
}

fn groups(expression: &Regex, text: &str) -> Dynamic {
    let Some(found) = expression.captures(text) else { return Dynamic::UNIT };
    let mut groups = Map::new();
    for (index, name) in expression.capture_names().enumerate() {
        let value = found.get(index).map_or(Dynamic::UNIT, |group| Dynamic::from(group.as_str().to_string()));
        if let Some(name) = name {
            groups.insert(name.into(), value.clone());
        }
        groups.insert(index.to_string().into(), value);
    }
    Dynamic::from(groups)
}
