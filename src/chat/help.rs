//! What the bot says about its commands, made from the aliases. Pure.

use super::conversation::{OWN, Topics};
use super::grammar::PREFIX;
use super::grammar::book::{CompiledAlias, MOST_NAMED};
use super::grammar::values;
use crate::model::action::Parameter;
use crate::model::alias::Alias;
use crate::model::secret::MASK;
use crate::template::text::plain;

/// Commands that one answer lists.
const MOST_LISTED: usize = 60;

/// Commands that are explained whole.
const MOST_EXPLAINED: usize = 3;

/// An answer to `help`, about all commands or those that a word stands in.
#[must_use]
pub fn help(word: Option<&str>, topics: &Topics<'_>) -> String {
    let Some(word) = word else { return overview(topics) };
    let word = word.trim_start_matches(PREFIX);
    let lower = word.to_lowercase();
    if let Some((format, what)) = OWN.iter().find(|(format, _)| format.split(' ').next() == Some(lower.as_str())) {
        return format!("`{PREFIX}{format}` {what}");
    }
    let enabled = || topics.aliases.aliases().iter().filter(|alias| alias.alias.enabled);
    let mut found: Vec<_> = match enabled().find(|alias| alias.alias.reference == lower) {
        Some(one) => vec![one],
        None => enabled().filter(|alias| is_about(alias, &lower)).collect(),
    };
    // What begins with the word comes first.
    found.sort_by_key(|alias| !alias.formats.iter().any(|(format, _)| format.first.as_deref() == Some(lower.as_str())));
    match found.as_slice() {
        [] => format!("No command has to do with `{word}`; `{PREFIX}help` lists all."),
        few if few.len() <= MOST_EXPLAINED => {
            let explained: Vec<String> = few.iter().map(|alias| explain(alias, topics)).collect();
            explained.join("\n\n")
        }
        many => {
            let mut lines: Vec<String> = many.iter().take(MOST_LISTED).map(|alias| line(&alias.alias)).collect();
            if many.len() > MOST_LISTED {
                lines.push(format!("… and {} more", many.len() - MOST_LISTED));
            }
            lines.join("\n")
        }
    }
}

/// A whole command, for people who did not get it right.
#[must_use]
pub fn example(alias: &Alias) -> String {
    let example = alias.examples.first().or_else(|| alias.formats.first().map(|format| &format.display));
    example.map(|text| format!("{PREFIX}{}", text.trim_start_matches(PREFIX))).unwrap_or_default()
}

fn is_about(alias: &CompiledAlias, word: &str) -> bool {
    let begins = |text: &str| text.to_lowercase().split_whitespace().any(|own| own == word);
    alias.alias.pack() == word
        || alias.alias.reference.split('.').nth(1) == Some(word)
        || alias.alias.formats.iter().any(|format| begins(&format.display) || format.representation.iter().any(|text| begins(text)))
}

fn overview(topics: &Topics<'_>) -> String {
    let enabled: Vec<_> = topics.aliases.aliases().iter().filter(|alias| alias.alias.enabled).collect();
    let mut lines = Vec::new();
    let mut pack = "";
    let is_long = enabled.len() > MOST_LISTED;
    for alias in &enabled {
        let own = alias.alias.pack();
        if own != pack {
            pack = own;
            let count = enabled.iter().filter(|other| other.alias.pack() == own).count();
            let about = topics.packs.get(own).map(|pack| pack.description.as_str()).filter(|about| !about.is_empty());
            let commands = if is_long { format!(" · {count} commands, `{PREFIX}help {own}`") } else { String::new() };
            lines.push(format!("{own}{}{commands}", about.map(|about| format!(" — {about}")).unwrap_or_default()));
        }
        if !is_long {
            lines.push(format!("  {}", line(&alias.alias)));
        }
    }
    if enabled.is_empty() {
        lines.push("No pack of this site has commands.".into());
    }
    let own: Vec<String> = OWN.iter().map(|(format, _)| format!("`{PREFIX}{format}`")).collect();
    lines.push(format!("I also know {}.", own.join(", ")));
    lines.join("\n")
}

fn line(alias: &Alias) -> String {
    let mut formats: Vec<String> = alias.formats.iter().take(MOST_NAMED).map(|format| format!("`{PREFIX}{}`", format.display)).collect();
    if alias.formats.len() > MOST_NAMED {
        formats.push("…".into());
    }
    let about = if alias.description.is_empty() { String::new() } else { format!(" {}", alias.description) };
    format!("{}{about}", formats.join(" or "))
}

fn explain(compiled: &CompiledAlias, topics: &Topics<'_>) -> String {
    let alias = &compiled.alias;
    let mut lines = vec![line(alias)];
    if let Some(action) = topics.actions.get(&alias.action) {
        lines.push(format!("runs `{}`{}", alias.action, if action.enabled { "" } else { ", which is switched off" }));
        let open = |parameter: &&Parameter| !parameter.immutable && !alias.immutable.contains_key(&parameter.name);
        lines.extend(action.parameters.iter().filter(open).map(|parameter| explain_parameter(compiled, parameter)));
    }
    if !alias.examples.is_empty() {
        let examples: Vec<String> = alias.examples.iter().map(|text| format!("`{PREFIX}{}`", text.trim_start_matches(PREFIX))).collect();
        lines.push(format!("for example {}", examples.join(", ")));
    }
    lines.join("\n")
}

fn explain_parameter(compiled: &CompiledAlias, parameter: &Parameter) -> String {
    let captures = compiled.formats.iter().flat_map(|(format, _)| &format.captures);
    let own: Vec<_> = captures.filter(|capture| capture.name == parameter.name).collect();
    let by_format = own.iter().find_map(|capture| capture.default.clone());
    let default = by_format.or_else(|| parameter.default.as_ref().map(plain));
    let default = match default {
        Some(_) if parameter.secret => Some(MASK.to_string()),
        default => default,
    };
    let need = match default {
        Some(default) => format!(", {default} unless given"),
        None if parameter.required => String::new(),
        None => ", may be left out".into(),
    };
    // What no format names can still be said as a pair at the end.
    let how = if own.is_empty() { format!(" (`{}=…` at the end)", parameter.name) } else { String::new() };
    let about = if parameter.description.is_empty() { String::new() } else { format!(" · {}", parameter.description) };
    format!("  `{}`: {}{need}{how}{about}", parameter.name, values::describe(parameter))
}
