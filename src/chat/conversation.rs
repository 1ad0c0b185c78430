//! What the bot does about a line that somebody typed. Pure: the engine carries it out.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};

use super::grammar::book::{AliasBook, Hit, Meaning};
use super::grammar::values::{self, Obstacle};
use super::grammar::{PREFIX, normalized};
use super::{help, words};
use crate::model::action::{Action, Parameter};
use crate::model::pack::Pack;

/// What can be talked about.
pub struct Topics<'t> {
    /// The commands.
    pub aliases: &'t AliasBook,
    /// What they run.
    pub actions: &'t BTreeMap<String, Arc<Action>>,
    /// Where they come from.
    pub packs: &'t BTreeMap<String, Arc<Pack>>,
}

/// A question that the bot has asked somebody.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// The alias, `pack.name`.
    pub alias: String,
    /// What was typed so far.
    pub typed: Map<String, Value>,
    /// The parameters that are missing; the first is asked for.
    pub missing: Vec<String>,
    /// When it was asked.
    pub asked_at: DateTime<Utc>,
}

/// What the bot does.
#[derive(Debug)]
pub enum Decision {
    /// The line is not for the bot.
    Ignore,
    /// It says something. `fine` is false where a command could not be carried out.
    Answer {
        /// What.
        text: String,
        /// Whether that is what was wanted.
        fine: bool,
    },
    /// It asks back.
    Ask {
        /// What is asked, kept until it is answered.
        question: Question,
        /// In words.
        text: String,
    },
    /// It runs something, several times where a text named several.
    Run {
        /// The command.
        alias: String,
        /// The parameters of each, cast and complete.
        runs: Vec<Map<String, Value>>,
    },
    /// A command of its own that needs the engine.
    Own(Own),
}

/// Commands of the bot that need the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Own {
    /// `!status [ID]`
    Status(Option<String>),
    /// `!why [ID]`
    Why(Option<String>),
    /// `!cancel ID`
    Cancel(String),
    /// `!whoami`
    Whoami,
}

/// The bot's own commands: what is typed, and what it does.
pub const OWN: &[(&str, &str)] = &[
    ("help [word]", "what I can do"),
    ("status [ID]", "how an execution does; without ID the last one that you asked for here"),
    ("why [ID]", "why an execution or event came to be, and what became of it"),
    ("cancel [ID]", "stop an execution; without ID forget what I asked you"),
    ("whoami", "who you are to me"),
];

/// Decides about a line. `direct` is a conversation with nobody else in it, where the prefix may be left out.
#[must_use]
pub fn decide(line: &str, direct: bool, question: Option<&Question>, topics: &Topics<'_>, now: DateTime<Utc>) -> Decision {
    let text = normalized(line);
    let prefixed = text.strip_prefix(PREFIX).map(str::trim_start);
    match (prefixed, question) {
        (None, Some(question)) if !text.is_empty() => reply(&text, question, topics, now),
        (None, None) if !direct || text.is_empty() => Decision::Ignore,
        (None, _) if text.is_empty() => Decision::Ignore,
        (prefixed, question) => command(prefixed.unwrap_or(&text), question.is_some(), topics, now),
    }
}

fn command(text: &str, has_question: bool, topics: &Topics<'_>, now: DateTime<Utc>) -> Decision {
    let (first, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let argument = Some(rest.trim().to_string()).filter(|rest| !rest.is_empty());
    match (first.to_lowercase().as_str(), argument) {
        ("" | "help", word) => answer(help::help(word.as_deref(), topics)),
        ("status", id) => Decision::Own(Own::Status(id)),
        ("why", id) => Decision::Own(Own::Why(id)),
        ("whoami", _) => Decision::Own(Own::Whoami),
        ("cancel", Some(id)) => Decision::Own(Own::Cancel(id)),
        ("cancel", None) if has_question => answer(words::forgotten()),
        ("cancel", None) => refusal(words::nothing_asked()),
        _ => match topics.aliases.meaning(text) {
            Meaning::One(hit) => run(&hit.alias.alias.reference, hit.typed, topics, now),
            Meaning::Ambiguous(hits) => refusal(words::ambiguous(&hits.iter().map(named).collect::<Vec<_>>())),
            Meaning::Disabled(hit) => refusal(words::disabled(&hit.format().display, &hit.alias.alias.reference)),
            Meaning::Incomplete(hit, missing) => {
                let typed = hit.typed.into_iter().next().unwrap_or_default();
                ask(Question { alias: hit.alias.alias.reference.clone(), typed, missing, asked_at: now }, None, topics)
            }
            Meaning::Unknown(near) => refusal(words::unknown(text, &near)),
        },
    }
}

fn named(hit: &Hit) -> (String, String) {
    (hit.format().display.clone(), hit.alias.alias.reference.clone())
}

/// The answer to a question of the bot.
fn reply(text: &str, question: &Question, topics: &Topics<'_>, now: DateTime<Utc>) -> Decision {
    if text.eq_ignore_ascii_case("cancel") {
        return answer(words::forgotten());
    }
    let mut question = Question { asked_at: now, ..question.clone() };
    let Some(name) = question.missing.first().cloned() else { return Decision::Ignore };
    if let Some(parameter) = parameter(&question.alias, &name, topics)
        && let Err(fault) = values::fits(&parameter, super::grammar::unquoted(text))
    {
        return ask(question, Some(&fault), topics);
    }
    question.missing.remove(0);
    question.typed.insert(name, Value::from(super::grammar::unquoted(text)));
    if question.missing.is_empty() { run(&question.alias.clone(), vec![question.typed], topics, now) } else { ask(question, None, topics) }
}

fn parameter(alias: &str, name: &str, topics: &Topics<'_>) -> Option<Parameter> {
    let action = topics.actions.get(&topics.aliases.get(alias)?.alias.action)?;
    action.parameters.iter().find(|parameter| parameter.name == name).cloned()
}

fn ask(question: Question, fault: Option<&str>, topics: &Topics<'_>) -> Decision {
    let name = question.missing.first().cloned().unwrap_or_default();
    let takes = parameter(&question.alias, &name, topics).unwrap_or_else(|| Parameter::named(&name));
    let text = words::question(&name, &values::describe(&takes), &takes.description, fault);
    Decision::Ask { question, text }
}

fn run(alias: &str, typed: Vec<Map<String, Value>>, topics: &Topics<'_>, now: DateTime<Utc>) -> Decision {
    let Some(compiled) = topics.aliases.get(alias) else { return refusal(words::gone(alias)) };
    let Some(action) = topics.actions.get(&compiled.alias.action).filter(|action| action.enabled) else {
        return refusal(words::action_disabled(&compiled.alias.action));
    };
    let mut runs = Vec::with_capacity(typed.len());
    for typed in typed {
        match values::parameters(&compiled.alias, action, &typed) {
            Ok(parameters) => runs.push(parameters),
            Err(Obstacle::Missing(parameter)) => {
                return ask(Question { alias: alias.into(), typed, missing: vec![parameter.name], asked_at: now }, None, topics);
            }
            Err(Obstacle::Wrong(faults)) => return refusal(words::wrong(&faults, &help::example(&compiled.alias))),
        }
    }
    Decision::Run { alias: alias.into(), runs }
}

fn answer(text: String) -> Decision {
    Decision::Answer { text, fine: true }
}

fn refusal(text: String) -> Decision {
    Decision::Answer { text, fine: false }
}
