//! `signalman alias`: the commands of chat.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};

use super::client::ApiClient;
use super::{Answer, Common, Failure, Output, print_json, print_line, table};
use crate::app;
use crate::chat::grammar::book::{AliasBook, CompiledAlias, Hit, Meaning};
use crate::chat::grammar::{PREFIX, normalized};
use crate::config::Environment;
use crate::pack;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List the commands of chat
    #[command(after_help = "Example:\n  signalman alias list")]
    List,
    /// Say which alias a command means, and what its parameters are; needs no server. Exit code 0 matched, 1 not, 2 a faulty file
    #[command(
        after_help = "Examples:\n  signalman alias match '!echo hello'\n  signalman alias match --alias packs/core/aliases/echo.yaml 'echo hello' --output json"
    )]
    Match(Match),
}

#[derive(Debug, clap::Args)]
pub(super) struct Match {
    /// Match against this file alone instead of the whole site
    #[arg(long, value_name = "FILE")]
    alias: Option<PathBuf>,
    /// The command, with or without `!`
    text: String,
}

pub(super) fn run(common: &Common, command: Command, environment: &Environment) -> Result<Answer, Failure> {
    match command {
        Command::List => list(common, environment),
        Command::Match(arguments) => matches(common, &arguments, environment),
    }
}

fn list(common: &Common, environment: &Environment) -> Result<Answer, Failure> {
    let answer = ApiClient::new(common, environment)?.get("/api/v1/aliases")?;
    if common.output != Output::Table {
        print_json(&answer);
        return Ok(Answer::Yes);
    }
    let aliases = answer["aliases"].as_array().map(Vec::as_slice).unwrap_or_default();
    let row = |alias: &Value| {
        let formats = alias["formats"].as_array().map(Vec::as_slice).unwrap_or_default();
        let shown: Vec<String> = formats.iter().map(|format| table::text(&format["display"])).collect();
        let state = if alias["enabled"] == true { "" } else { "disabled" };
        vec![table::text(&alias["ref"]), table::text(&alias["action_ref"]), state.into(), shown.join(" | ")]
    };
    let rows: Vec<Vec<String>> = aliases.iter().map(row).collect();
    table::print(&["alias", "action", "state", "formats"], &rows, "no aliases");
    Ok(Answer::Yes)
}

fn matches(common: &Common, arguments: &Match, environment: &Environment) -> Result<Answer, Failure> {
    let book = if let Some(file) = &arguments.alias {
        AliasBook::new([Arc::new(read(file)?)])
    } else {
        let (site, _) = app::load_site(&common.site, environment).map_err(|faults| Failure::misuse(faults.join("\n\n")))?;
        AliasBook::new(site.aliases)
    };
    let text = normalized(&arguments.text);
    let told = told(&book.meaning(text.strip_prefix(PREFIX).map_or(text.as_str(), str::trim_start)));
    if common.output == Output::Table {
        print_table(&told);
    } else {
        print_json(&told);
    }
    Ok(if told["matched"] == true { Answer::Yes } else { Answer::No })
}

fn read(file: &Path) -> Result<CompiledAlias, Failure> {
    pack::read_alias(file).map_err(|faults| Failure::misuse(faults.join("\n\n")))
}

fn told(meaning: &Meaning) -> Value {
    let no = |error: String| json!({"matched": false, "alias": null, "format": null, "parameters": {}, "error": error});
    let named = |hit: &Hit| format!("`{}` ({})", hit.format().display, hit.alias.alias.reference);
    match meaning {
        Meaning::One(hit) => {
            let alias = &hit.alias.alias;
            let mut all: Vec<_> = hit.typed.clone();
            for typed in &mut all {
                if let Some(name) = alias.immutable.keys().find(|name| typed.contains_key(*name)) {
                    return no(format!("`{name}` is fixed by the alias and cannot be set"));
                }
                typed.extend(alias.immutable.clone());
            }
            let parameters = if hit.format().match_multiple { json!(all) } else { json!(all.first()) };
            json!({"matched": true, "alias": alias.reference, "format": hit.source(), "parameters": parameters, "error": null})
        }
        Meaning::Ambiguous(hits) => {
            no(format!("several aliases fit equally well: {}", hits.iter().map(named).collect::<Vec<_>>().join(", ")))
        }
        Meaning::Disabled(hit) => no(format!("{} is disabled", named(hit))),
        Meaning::Incomplete(hit, missing) => no(format!("{} needs {}", named(hit), missing.join(", "))),
        Meaning::Unknown(near) if near.is_empty() => no("no format fits".into()),
        Meaning::Unknown(near) => no(format!("no format fits; near are {}", near.join(", "))),
    }
}

fn print_table(told: &Value) {
    if told["matched"] != true {
        print_line(&format!("✘ {}", table::text(&told["error"])));
        return;
    }
    print_line(&format!("✔ {} by `{}`", table::text(&told["alias"]), table::text(&told["format"])));
    let sets = match &told["parameters"] {
        Value::Array(sets) => sets.clone(),
        one => vec![one.clone()],
    };
    for set in sets {
        print_line(&format!("    {set}"));
    }
}
