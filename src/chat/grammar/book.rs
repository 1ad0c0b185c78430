//! All aliases of a site: which one a command means. Pure.
//!
//! Every format is kept under one of the words that a command must have to match it, the rarest; those without such a word are tried
//! always. What is left is tried from the most specific on.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use serde_json::{Map, Value};

use super::format::{CompiledFormat, spaced};
use super::{MAX_COMMAND_BYTES, PREFIX, split_pairs};
use crate::document::fault::nearest;
use crate::model::alias::{Alias, Format};
use crate::template::message::MessageTemplate;

/// Words that begin the bot's own commands, and those that will.
pub const RESERVED: &[&str] = &["help", "status", "cancel", "why", "whoami", "rerun", "approve", "deny"];

/// Candidates that are named when it is not clear what was meant.
pub const MOST_NAMED: usize = 5;

/// Formats that are looked at to find out what is missing from a command.
const MOST_COMPLETED: usize = 5;

/// An alias with everything compiled.
#[derive(Debug)]
pub struct CompiledAlias {
    /// As it was written.
    pub alias: Alias,
    /// What is matched, and the format that it belongs to.
    pub formats: Vec<(CompiledFormat, usize)>,
    /// What is said at once.
    pub ack: Option<MessageTemplate>,
    /// What is said in the end.
    pub result: Option<MessageTemplate>,
}

impl CompiledAlias {
    /// Compiles the formats of an alias.
    ///
    /// # Errors
    /// What is wrong, with the numbers of format and representation.
    pub fn compile(
        alias: Alias,
        ack: Option<MessageTemplate>,
        result: Option<MessageTemplate>,
    ) -> Result<Self, Vec<(usize, usize, String)>> {
        let (mut formats, mut faults) = (Vec::new(), Vec::new());
        for (index, format) in alias.formats.iter().enumerate() {
            for (of_format, text) in format.representation.iter().enumerate() {
                match CompiledFormat::compile(text, format.match_multiple) {
                    Ok(compiled) => formats.push((compiled, index)),
                    Err(message) => faults.push((index, of_format, message)),
                }
            }
        }
        if faults.is_empty() { Ok(Self { alias, formats, ack, result }) } else { Err(faults) }
    }

    /// The display of a format as help shows it.
    fn format_of(&self, representation: usize) -> &Format {
        &self.alias.formats[self.formats[representation].1]
    }
}

/// A command that was understood.
#[derive(Clone, Debug)]
pub struct Hit {
    /// The alias.
    pub alias: Arc<CompiledAlias>,
    /// Which of its representations fits, in order.
    pub representation: usize,
    /// What was typed, as text; more than one where a format may stand several times in a text.
    pub typed: Vec<Map<String, Value>>,
}

impl Hit {
    /// The format that fits.
    #[must_use]
    pub fn format(&self) -> &Format {
        self.alias.format_of(self.representation)
    }

    /// What was matched, as its author wrote it.
    #[must_use]
    pub fn source(&self) -> &str {
        let (_, of) = self.alias.formats[self.representation];
        let first = self.alias.formats.iter().position(|(_, format)| *format == of).unwrap_or(0);
        &self.alias.alias.formats[of].representation[self.representation - first]
    }
}

/// What a command means.
#[derive(Clone, Debug)]
pub enum Meaning {
    /// This.
    One(Hit),
    /// One of these; they fit equally well.
    Ambiguous(Vec<Hit>),
    /// This, but it is switched off.
    Disabled(Hit),
    /// The beginning of this: what was typed so far, and the parameters that are missing.
    Incomplete(Hit, Vec<String>),
    /// Nothing; whole commands or formats that come near.
    Unknown(Vec<String>),
}

type Place = (u32, u32);

/// Formats by a word that a command must have.
#[derive(Debug, Default)]
struct Index {
    by_word: HashMap<Box<str>, Vec<Place>>,
    always: Vec<Place>,
}

/// All aliases.
#[derive(Debug, Default)]
pub struct AliasBook {
    aliases: Vec<Arc<CompiledAlias>>,
    ordinary: Index,
    anywhere: Index,
    off: Index,
    /// What begins with a word; the bot's own commands have no formats.
    first_words: BTreeMap<Box<str>, Vec<Place>>,
}

impl AliasBook {
    /// Makes the book.
    #[must_use]
    pub fn new(aliases: impl IntoIterator<Item = Arc<CompiledAlias>>) -> Self {
        let mut aliases: Vec<Arc<CompiledAlias>> = aliases.into_iter().collect();
        aliases.sort_by(|a, b| a.alias.reference.cmp(&b.alias.reference));
        let mut frequency: HashMap<&str, usize> = HashMap::new();
        for (format, _) in aliases.iter().flat_map(|alias| &alias.formats) {
            for word in &format.required {
                *frequency.entry(word).or_default() += 1;
            }
        }
        let (mut ordinary, mut anywhere, mut off) = (Index::default(), Index::default(), Index::default());
        let mut first_words: BTreeMap<Box<str>, Vec<Place>> = RESERVED[..5].iter().map(|word| ((*word).into(), Vec::new())).collect();
        for (number, alias) in aliases.iter().enumerate() {
            for (representation, (format, of)) in alias.formats.iter().enumerate() {
                let index = match (alias.alias.enabled, alias.alias.formats[*of].match_multiple) {
                    (false, _) => &mut off,
                    (true, false) => &mut ordinary,
                    (true, true) => &mut anywhere,
                };
                let place = (number_of(number), number_of(representation));
                match format.required.iter().min_by_key(|word| frequency[word.as_str()]) {
                    Some(word) => index.by_word.entry(word.as_str().into()).or_default().push(place),
                    None => index.always.push(place),
                }
                if let Some(first) = format.first.as_deref().filter(|_| alias.alias.enabled) {
                    first_words.entry(first.into()).or_default().push(place);
                }
            }
        }
        Self { aliases, ordinary, anywhere, off, first_words }
    }

    /// Every alias, in the order of names.
    #[must_use]
    pub fn aliases(&self) -> &[Arc<CompiledAlias>] {
        &self.aliases
    }

    /// The alias of that name.
    #[must_use]
    pub fn get(&self, reference: &str) -> Option<&Arc<CompiledAlias>> {
        self.aliases.binary_search_by(|alias| alias.alias.reference.as_str().cmp(reference)).ok().map(|index| &self.aliases[index])
    }

    /// What a command means; it is normalized, and without the prefix.
    #[must_use]
    pub fn meaning(&self, command: &str) -> Meaning {
        if command.len() > MAX_COMMAND_BYTES {
            return Meaning::Unknown(Vec::new());
        }
        let (body, pairs) = split_pairs(command);
        // A pair may also be what somebody wants to say: `echo a=b`.
        let whole = (!pairs.is_empty()).then(|| (command, Map::new()));
        let readings: Vec<(&str, Map<String, Value>)> = std::iter::once((body, pairs)).chain(whole).collect();
        for (index, anywhere) in [(&self.ordinary, false), (&self.anywhere, true)] {
            for (text, pairs) in &readings {
                let mut best = self.best(index, text, pairs, anywhere);
                match best.len() {
                    0 => {}
                    1 => return Meaning::One(best.remove(0)),
                    _ => return Meaning::Ambiguous(best),
                }
            }
        }
        for (text, pairs) in &readings {
            if let Some(hit) = self.best(&self.off, text, pairs, false).into_iter().next() {
                return Meaning::Disabled(hit);
            }
        }
        self.incomplete(&readings[0].0.to_lowercase(), readings[0].0, &readings[0].1).unwrap_or_else(|| Meaning::Unknown(self.near(body)))
    }

    /// The formats that fit best: most fixed words, then fewest captures; one for each alias.
    fn best(&self, index: &Index, text: &str, pairs: &Map<String, Value>, anywhere: bool) -> Vec<Hit> {
        let mut places = candidates(index, text);
        places.sort_by_key(|place| (self.specificity(*place), *place));
        let mut best: Vec<Hit> = Vec::new();
        let mut found: Option<(Reverse<usize>, usize)> = None;
        for place in places {
            if found.is_some_and(|found| found != self.specificity(place)) {
                break;
            }
            let alias = &self.aliases[place.0 as usize];
            if best.iter().any(|hit| Arc::ptr_eq(&hit.alias, alias)) {
                continue;
            }
            let format = &alias.formats[place.1 as usize].0;
            let typed = if anywhere { format.parse_all(text) } else { format.parse(text).into_iter().collect() };
            if !typed.is_empty() {
                found = Some(self.specificity(place));
                let typed = typed.into_iter().map(|typed| typed.into_iter().chain(pairs.clone()).collect()).collect();
                best.push(Hit { alias: Arc::clone(alias), representation: place.1 as usize, typed });
            }
        }
        best
    }

    fn specificity(&self, (alias, representation): Place) -> (Reverse<usize>, usize) {
        let format = &self.aliases[alias as usize].formats[representation as usize].0;
        (Reverse(format.words), format.captures.len())
    }

    /// The one alias of whose format the command is the beginning, up to a parameter.
    fn incomplete(&self, lower: &str, text: &str, pairs: &Map<String, Value>) -> Option<Meaning> {
        let first = lower.split_whitespace().next()?;
        let mut found: Vec<(Hit, Vec<String>)> = Vec::new();
        let typed = spaced(text);
        let leads = |place: &&Place| {
            let lead = self.aliases[place.0 as usize].formats[place.1 as usize].0.lead.as_deref();
            let rest = lead.filter(|lead| !lead.is_empty()).and_then(|lead| typed.strip_prefix(lead));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
        };
        for place in self.first_words.get(first).into_iter().flatten().filter(leads).take(MOST_COMPLETED) {
            let alias = &self.aliases[place.0 as usize];
            let mut hit = Hit { alias: Arc::clone(alias), representation: place.1 as usize, typed: Vec::new() };
            if let Some((typed, missing)) = begins(hit.source(), text) {
                let missing: Vec<String> = missing.into_iter().filter(|name| !pairs.contains_key(name)).collect();
                hit.typed = vec![typed.into_iter().chain(pairs.clone()).collect()];
                if !missing.is_empty() {
                    found.push((hit, missing));
                }
            }
        }
        // Several formats of one alias are one question: that of the shortest.
        found.sort_by_key(|(hit, _)| hit.alias.formats[hit.representation].0.captures.len());
        let (first, missing) = found.first().cloned()?;
        let is_one = found.iter().all(|(hit, _)| Arc::ptr_eq(&hit.alias, &first.alias));
        is_one.then_some(Meaning::Incomplete(first, missing))
    }

    /// Commands that may have been meant.
    fn near(&self, text: &str) -> Vec<String> {
        let (first, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let lower = first.to_lowercase();
        if !self.first_words.contains_key(lower.as_str()) {
            let bag = letters(&lower);
            let far = u32::try_from(2 * (lower.chars().count() / 3).max(1)).unwrap_or(u32::MAX);
            // Counting letters is much faster than comparing words, and there may be very many.
            let similar = self.first_words.keys().filter(|word| (letters(word) ^ bag).count_ones() <= far);
            let Some(word) = nearest(&lower, similar.map(|word| &**word)) else { return Vec::new() };
            let command = format!("{word} {rest}").trim().to_string();
            if !RESERVED.contains(&word) && !candidates(&self.ordinary, &command).iter().any(|place| self.fits(*place, &command)) {
                return self.displays(word);
            }
            return vec![format!("{PREFIX}{command}")];
        }
        self.displays(&lower)
    }

    fn fits(&self, (alias, representation): Place, text: &str) -> bool {
        self.aliases[alias as usize].formats[representation as usize].0.parse(split_pairs(text).0).is_some()
    }

    /// The formats that begin with a word, as help shows them.
    fn displays(&self, word: &str) -> Vec<String> {
        let mut found: Vec<String> = Vec::new();
        for (alias, representation) in self.first_words.get(word).into_iter().flatten() {
            let shown = format!("{PREFIX}{}", self.aliases[*alias as usize].format_of(*representation as usize).display);
            if !found.contains(&shown) {
                found.push(shown);
            }
            if found.len() == MOST_NAMED {
                break;
            }
        }
        found
    }
}

fn number_of(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

fn candidates(index: &Index, text: &str) -> Vec<Place> {
    let mut places = index.always.clone();
    if !index.by_word.is_empty() {
        let lower = text.to_lowercase();
        let words: BTreeSet<&str> = lower.split_whitespace().collect();
        places.extend(words.into_iter().filter_map(|word| index.by_word.get(word)).flatten());
    }
    places
}

/// Which letters a word has.
fn letters(word: &str) -> u64 {
    word.chars().fold(0, |bag, c| bag | 1 << (u32::from(c) % 64))
}

/// If a command is a format that was cut off before one of its parameters: what it says, and the parameters that are missing. Only
/// formats of words and parameters are looked at.
fn begins(source: &str, text: &str) -> Option<(Map<String, Value>, Vec<String>)> {
    let starts: Vec<usize> = source.match_indices("{{").map(|(at, _)| at).collect();
    for (number, at) in starts.iter().enumerate().rev() {
        // Words before the parameter may be missing as well: `deploy shop`, of `deploy {{app}} to {{env}}`.
        let from = number.checked_sub(1).map_or(0, |before| starts[before]);
        let until = source[from..*at].find("}}").map_or(*at, |end| from + end + 2);
        for end in [*at, until] {
            let cut = source[..end].trim_end();
            if cut.is_empty() {
                continue;
            }
            let Ok(format) = CompiledFormat::compile(cut, false) else { return None };
            if let Some(typed) = format.parse(text) {
                let whole = CompiledFormat::compile(source, false).ok()?;
                let missing = whole.captures.into_iter().filter(|capture| capture.default.is_none());
                let missing: Vec<String> = missing.map(|capture| capture.name).filter(|name| !typed.contains_key(name)).collect();
                return (!missing.is_empty()).then_some((typed, missing));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::alias::{Ack, Answer};
    use crate::model::place::{Place, Spot};

    pub(super) fn alias(name: &str, formats: &[&str], multiple: bool) -> Arc<CompiledAlias> {
        let format = |text: &&str| Format {
            display: (*text).into(),
            representation: vec![(*text).into()],
            match_multiple: multiple,
            at: Spot::default(),
        };
        let alias = Alias {
            reference: format!("t.{name}"),
            description: String::new(),
            enabled: true,
            action: format!("t.{name}"),
            formats: formats.iter().map(format).collect(),
            examples: Vec::new(),
            ack: Ack::default(),
            result: Answer::default(),
            immutable: Map::new(),
            extra: std::collections::BTreeMap::new(),
            place: Place::default(),
            action_at: Spot::default(),
        };
        Arc::new(CompiledAlias::compile(alias, None, None).unwrap())
    }

    fn told(meaning: &Meaning) -> String {
        let hit = |hit: &Hit| format!("{} {}", hit.alias.alias.reference, hit.format().display);
        match meaning {
            Meaning::One(one) => format!("{} {}", hit(one), serde_json::to_string(&one.typed).unwrap()),
            Meaning::Ambiguous(hits) => format!("one of {}", hits.iter().map(hit).collect::<Vec<_>>().join(", ")),
            Meaning::Disabled(one) => format!("off {}", hit(one)),
            Meaning::Incomplete(one, missing) => {
                format!("{} needs {} {}", hit(one), missing.join(" "), serde_json::to_string(&one.typed).unwrap())
            }
            Meaning::Unknown(near) => format!("near {}", near.join(", ")),
        }
    }

    #[test]
    fn the_most_specific_alias_is_meant() {
        let mut off = Arc::into_inner(alias("off", &["sleep {{n}}"], false)).unwrap();
        off.alias.enabled = false;
        let book = AliasBook::new([
            alias("cdos", &["cdos {{name}}", "cdos {{name}} in {{env}}"], false),
            alias("any", &["cdos {{x}} {{y}}"], false),
            alias("one", &["tie {{x}} now"], false),
            alias("two", &["tie {{y}} now"], false),
            alias("echo", &["echo {{text}}"], false),
            alias("deploy", &["deploy {{app}} to {{env}}"], false),
            alias("fixes", &[r"fixes (?P<key>[A-Z]+-\d+)"], true),
            Arc::new(off),
        ]);
        for (command, expected) in [
            ("cdos a in b", r#"t.cdos cdos {{name}} in {{env}} [{"env":"b","name":"a"}]"#),
            ("CDOS a", r#"t.cdos cdos {{name}} [{"name":"a"}]"#),
            ("cdos a b", r#"t.cdos cdos {{name}} [{"name":"a b"}]"#),
            ("cdos a env=c", r#"t.cdos cdos {{name}} [{"env":"c","name":"a"}]"#),
            ("tie x now", "one of t.one tie {{x}} now, t.two tie {{y}} now"),
            ("echo a=b", r#"t.echo echo {{text}} [{"text":"a=b"}]"#),
            ("this fixes AB-1 and fixes CD-2", r#"t.fixes fixes (?P<key>[A-Z]+-\d+) [{"key":"AB-1"},{"key":"CD-2"}]"#),
            ("sleep 5", "off t.off sleep {{n}}"),
            ("deploy", "t.deploy deploy {{app}} to {{env}} needs app env [{}]"),
            ("deploy shop", r#"t.deploy deploy {{app}} to {{env}} needs env [{"app":"shop"}]"#),
            ("deploy shop to", r#"t.deploy deploy {{app}} to {{env}} needs env [{"app":"shop"}]"#),
            ("cods a", "near !cdos a"),
            ("hlep", "near !help"),
            ("dploy shop", "near !deploy {{app}} to {{env}}"),
            ("tie x", "near !tie {{x}} now, !tie {{y}} now"),
            ("completely else", "near "),
        ] {
            assert_eq!(told(&book.meaning(command)), expected, "{command}");
        }
    }

    #[test]
    fn the_index_changes_no_meaning() {
        let formats = ["a {{x}}", "a {{x}} b", "{{x}} b", "(?:a|b) {{x}}", "a {{x=1}} c", "{{x}}", "a b {{y}}", "b|c {{x}}", "a ?b"];
        let aliases: Vec<_> = formats.iter().enumerate().map(|(n, format)| alias(&format!("n{n}"), &[format], false)).collect();
        let book = AliasBook::new(aliases.clone());
        let words = ["a", "b", "c", "ab", "x"];
        for number in 0..5usize.pow(4) {
            let command: Vec<&str> = (0..4u32).map(|place| words[number / 5usize.pow(place) % 5]).collect();
            let command = command.join(" ");
            let all = aliases.iter().filter(|alias| alias.formats[0].0.parse(&command).is_some()).count();
            let indexed = candidates(&book.ordinary, &command);
            let found = indexed.iter().filter(|place| book.fits(**place, &command)).count();
            assert_eq!(found, all, "{command}");
        }
    }
}
