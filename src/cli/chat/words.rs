//! What can be typed next: words of commands, choices of parameters, and ids that were seen.

use std::collections::{BTreeSet, VecDeque};

use serde_json::Value;

/// Ids that are offered.
const IDS: usize = 20;

/// What there is to complete with.
#[derive(Debug, Default)]
pub(super) struct Vocabulary {
    formats: Vec<Vec<Token>>,
    ids: VecDeque<String>,
}

#[derive(Debug)]
enum Token {
    Word(String),
    /// A parameter, and what it may be.
    Parameter(String, Vec<String>),
}

impl Vocabulary {
    /// Reads what the server knows.
    pub fn of(answer: &Value) -> Self {
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let text = crate::template::text::plain;
        let mut formats = Vec::new();
        for alias in list(&answer["aliases"]).iter().filter(|alias| alias["enabled"] == true) {
            let choices = |name: &str| {
                let parameters = list(&alias["parameters"]);
                let parameter = parameters.iter().find(|parameter| parameter["name"] == name)?;
                let choices: Vec<String> = list(&parameter["choices"]).iter().map(text).collect();
                let is_boolean = choices.is_empty() && parameter["type"] == "boolean";
                Some(if is_boolean { vec!["yes".into(), "no".into()] } else { choices })
            };
            for format in list(&alias["formats"]) {
                let display = text(&format["display"]);
                let token = |word: &str| match word.strip_prefix(['<', '[']).map(|rest| rest.trim_end_matches(['>', ']'])) {
                    Some(name) => {
                        let name = name.split('=').next().unwrap_or(name);
                        Token::Parameter(name.into(), choices(name).unwrap_or_default())
                    }
                    None => Token::Word(word.into()),
                };
                formats.push(display.split_whitespace().map(token).collect());
            }
        }
        for own in list(&answer["own"]) {
            let format = text(&own["format"]);
            let mut words = format.split_whitespace();
            let first = words.next().unwrap_or_default().to_string();
            let rest = words.map(|word| Token::Parameter(word.trim_matches(['[', ']']).into(), Vec::new()));
            formats.push(std::iter::once(Token::Word(first)).chain(rest).collect());
        }
        Self { formats, ids: VecDeque::new() }
    }

    /// Remembers the ids that stand in a text.
    pub fn see(&mut self, text: &str) {
        let is_id = |word: &&str| word.len() == 6 && word.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_uppercase());
        for id in text.split('`').filter(is_id) {
            if !self.ids.iter().any(|known| known == id) {
                self.ids.push_front(id.into());
                self.ids.truncate(IDS);
            }
        }
    }

    /// What the last word of a line may become, and where that word begins.
    pub fn complete(&self, line: &str) -> (usize, Vec<String>) {
        let start = line.rfind(char::is_whitespace).map_or(0, |at| at + 1);
        let (before, last) = line.split_at(start);
        let (bang, last) = last.strip_prefix('!').filter(|_| start == 0).map_or(("", last), |rest| ("!", rest));
        let before = before.trim_start_matches('!');
        let words: Vec<&str> = before.split_whitespace().collect();
        let mut found = BTreeSet::new();
        for format in self.formats.iter().filter(|format| begins(format, &words)) {
            match format.get(words.len()) {
                Some(Token::Word(word)) => {
                    found.insert(word.clone());
                }
                Some(Token::Parameter(name, _)) if name == "ID" => found.extend(self.ids.iter().cloned()),
                Some(Token::Parameter(name, _)) if name == "word" => found.extend(self.first_words()),
                Some(Token::Parameter(_, choices)) => found.extend(choices.iter().cloned()),
                None => {}
            }
        }
        let lower = last.to_lowercase();
        let fits = found.into_iter().filter(|word| word.to_lowercase().starts_with(&lower)).map(|word| format!("{bang}{word}"));
        (start, fits.collect())
    }

    fn first_words(&self) -> impl Iterator<Item = String> {
        self.formats.iter().filter_map(|format| match format.first() {
            Some(Token::Word(word)) => Some(word.clone()),
            _ => None,
        })
    }

    /// What is still missing after a line that ends in a blank, of the first format that fits.
    pub fn hint(&self, line: &str) -> Option<String> {
        let words: Vec<&str> = line.trim_start_matches('!').split_whitespace().collect();
        if words.is_empty() || !line.ends_with(' ') {
            return None;
        }
        let format = self.formats.iter().find(|format| format.len() > words.len() && begins(format, &words))?;
        let rest: Vec<String> = format[words.len()..]
            .iter()
            .map(|token| match token {
                Token::Word(word) => word.clone(),
                Token::Parameter(name, _) => format!("<{name}>"),
            })
            .collect();
        Some(rest.join(" "))
    }
}

fn begins(format: &[Token], words: &[&str]) -> bool {
    format.len() >= words.len()
        && format.iter().zip(words).all(|(token, word)| match token {
            Token::Word(fixed) => fixed.eq_ignore_ascii_case(word),
            Token::Parameter(..) => true,
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn words_choices_and_ids_are_offered() {
        let mut vocabulary = Vocabulary::of(&json!({
            "aliases": [
                {"enabled": true, "formats": [{"display": "deploy <app> to <env>"}], "parameters": [{"name": "env", "choices": ["prod", "gray"]}]},
                {"enabled": true, "formats": [{"display": "dry <on>"}], "parameters": [{"name": "on", "type": "boolean", "choices": []}]},
                {"enabled": false, "formats": [{"display": "delete all"}]},
            ],
            "own": [{"format": "status [ID]"}, {"format": "help [word]"}],
        }));
        vocabulary.see("✅ `t.x` succeeded · `9DDTQC`");
        for (line, start, words) in [
            ("!d", 0, &["!deploy", "!dry"][..]),
            ("de", 0, &["deploy"]),
            ("!deploy shop ", 13, &["to"]),
            ("!deploy shop to p", 16, &["prod"]),
            ("dry ", 4, &["no", "yes"]),
            ("!status ", 8, &["9DDTQC"]),
            ("help dr", 5, &["dry"]),
            ("nothing ", 8, &[]),
        ] {
            assert_eq!(vocabulary.complete(line), (start, words.iter().map(|word| (*word).to_string()).collect()), "{line}");
        }
        assert_eq!(vocabulary.hint("!deploy shop ").as_deref(), Some("to <env>"));
        assert_eq!(vocabulary.hint("!deploy"), None);
    }
}
