//! `signalman key list|get|set|delete`: the keys that rules see as `kv.system.NAME`.

use reqwest::Method;
use serde_json::{Value, json};

use super::client::ApiClient;
use super::table::{self, text};
use super::{Answer, Common, Failure, print_line};
use crate::config::Environment;
use crate::engine::keys::{check_name, check_value};
use crate::links::percent_encode;
use crate::model::json::RawJson;

/// So much of a value is shown in a list.
const SHOWN_CHARACTERS: usize = 60;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// The keys and their values, by name
    #[command(after_help = "Examples:\n  signalman key list\n  signalman key list --limit 5 --after maintenance")]
    List {
        /// How many
        #[arg(long, default_value_t = 50)]
        limit: usize,
        /// Only those after this one
        #[arg(long, value_name = "NAME")]
        after: Option<String>,
    },
    /// The value of a key; text as it stands, anything else as JSON
    #[command(after_help = "Example:\n  signalman key get maintenance")]
    Get {
        /// The key
        name: String,
    },
    /// Give a key a value: text, or JSON with --json
    #[command(after_help = "Examples:\n  signalman key set maintenance yes\n  signalman key set limit 80 --json")]
    Set {
        /// The key: letters, digits, `_`, `.` and `-`
        name: String,
        /// The value
        #[arg(allow_hyphen_values = true)]
        value: String,
        /// The value is JSON: a number, true, a list, an object
        #[arg(long)]
        json: bool,
    },
    /// Delete a key
    #[command(after_help = "Example:\n  signalman key delete maintenance")]
    Delete {
        /// The key
        name: String,
    },
}

pub(super) fn run(common: &Common, command: Command, environment: &Environment) -> Result<Answer, Failure> {
    let answer = match &command {
        Command::List { limit, after } => {
            let after = after.as_ref().map(|after| format!("&after={}", percent_encode(after, b""))).unwrap_or_default();
            ApiClient::new(common, environment)?.get(&format!("/api/v1/keys?limit={limit}{after}"))?
        }
        Command::Get { name } => ApiClient::new(common, environment)?.get(&path(name)?)?,
        Command::Set { name, value, json } => {
            let value = if *json { parse(value)? } else { Value::from(value.as_str()) };
            check_value(name, &value).map_err(Failure::misuse)?;
            let path = path(name)?;
            ApiClient::new(common, environment)?.call(Method::PUT, &path, Some(&json!({"value": value})))?
        }
        Command::Delete { name } => ApiClient::new(common, environment)?.call(Method::DELETE, &path(name)?, None)?,
    };
    common.show(&answer, || match command {
        Command::List { .. } => list(&answer),
        Command::Get { .. } => print_line(&text(&answer["value"])),
        Command::Set { name, .. } => print_line(&format!("{name} is {}", if answer["new"] == true { "new" } else { "changed" })),
        Command::Delete { name } => print_line(&format!("{name} is deleted")),
    });
    Ok(Answer::Yes)
}

fn path(name: &str) -> Result<String, Failure> {
    check_name(name).map_err(Failure::misuse)?;
    Ok(format!("/api/v1/keys/{name}"))
}

fn parse(text: &str) -> Result<Value, Failure> {
    let value = RawJson::parse(text).and_then(|raw| raw.value());
    value.map_err(|error| Failure::misuse(format!("the value is not JSON: {error}; without --json it is text")))
}

fn list(answer: &Value) {
    let row = |key: &Value| {
        let value = key["value"].to_string();
        let mut shown: String = value.chars().take(SHOWN_CHARACTERS).collect();
        if shown.len() < value.len() {
            shown.push('…');
        }
        vec![text(&key["name"]), shown]
    };
    let rows: Vec<Vec<String>> = answer["keys"].as_array().into_iter().flatten().map(row).collect();
    table::print(&["key", "value"], &rows, "no keys; set one with `signalman key set NAME VALUE`");
    if let Some(next) = answer["next"].as_str() {
        print_line(&format!("there are {} in all; go on with --after {next}", answer["count"]));
    }
}
