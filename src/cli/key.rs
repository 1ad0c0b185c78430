//! `signalman key list|get|set|delete|increment`: the keys of the datastore; those of scope `system` are what rules see as `kv.system`.

use reqwest::Method;
use serde_json::{Value, json};

use super::client::ApiClient;
use super::table::{self, text};
use super::{Answer, Common, Failure, print_line};
use crate::config::Environment;
use crate::links::percent_encode;
use crate::model::datastore::{Scope, check_name, check_value};
use crate::model::json::RawJson;

/// So much of a value is shown in a list.
const SHOWN_CHARACTERS: usize = 60;

/// Whose keys.
#[derive(Debug, clap::Args)]
pub(super) struct Of {
    /// Whose keys: system, a pack, or user:NAME
    #[arg(long, default_value = "system", value_name = "SCOPE")]
    scope: Scope,
}

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// The keys and their values, by name
    #[command(
        after_help = "Examples:\n  signalman key list\n  signalman key list --limit 5 --after maintenance\n  signalman key list app/ --scope marathon"
    )]
    List {
        /// Only those whose names begin so
        #[arg(default_value = "")]
        prefix: String,
        /// How many
        #[arg(long, default_value_t = 50)]
        limit: usize,
        /// Only those after this one
        #[arg(long, value_name = "NAME")]
        after: Option<String>,
        #[command(flatten)]
        of: Of,
    },
    /// The value of a key; text as it stands, anything else as JSON
    #[command(after_help = "Example:\n  signalman key get maintenance")]
    Get {
        /// The key
        name: String,
        #[command(flatten)]
        of: Of,
    },
    /// Give a key a value: text, or JSON with --json
    #[command(
        after_help = "Examples:\n  signalman key set maintenance yes\n  signalman key set limit 80 --json\n  signalman key set quiet true --json --ttl 2h\n  signalman key set leader me --if-absent"
    )]
    Set {
        /// The key; one of the system has letters, digits, `_`, `.` and `-`
        name: String,
        /// The value
        #[arg(allow_hyphen_values = true)]
        value: String,
        /// The value is JSON: a number, true, a list, an object
        #[arg(long)]
        json: bool,
        /// Keep it for so long: 30s, 5m, 2h, 7d; then it is as if it had been deleted
        #[arg(long, value_name = "SPAN")]
        ttl: Option<String>,
        /// Only if the key is in this version; `get --output json` shows it
        #[arg(long, value_name = "N", conflicts_with = "if_absent")]
        if_version: Option<u64>,
        /// Only if there is no such key
        #[arg(long)]
        if_absent: bool,
        #[command(flatten)]
        of: Of,
    },
    /// Delete a key
    #[command(after_help = "Example:\n  signalman key delete maintenance")]
    Delete {
        /// The key
        name: String,
        /// Only if the key is in this version
        #[arg(long, value_name = "N")]
        if_version: Option<u64>,
        #[command(flatten)]
        of: Of,
    },
    /// Add to a key that is a whole number; one that is not there counts from zero
    #[command(after_help = "Examples:\n  signalman key increment restarts\n  signalman key increment budget -5 --scope marathon --ttl 1h")]
    Increment {
        /// The key
        name: String,
        /// How much
        #[arg(default_value_t = 1, allow_hyphen_values = true)]
        by: i64,
        /// Keep it for so long, if it is new
        #[arg(long, value_name = "SPAN")]
        ttl: Option<String>,
        #[command(flatten)]
        of: Of,
    },
}

pub(super) fn run(common: &Common, command: Command, environment: &Environment) -> Result<Answer, Failure> {
    let client = || ApiClient::new(common, environment);
    let answer = match &command {
        Command::List { prefix, limit, after, of } => {
            let after = after.as_ref().map(|after| format!("&after={}", percent_encode(after, b""))).unwrap_or_default();
            let prefix = if prefix.is_empty() { String::new() } else { format!("&prefix={}", percent_encode(prefix, b"")) };
            client()?.get(&format!("/api/v1/keys?scope={}&limit={limit}{prefix}{after}", of.scope()))?
        }
        Command::Get { name, of } => client()?.get(&of.path(name, "")?)?,
        Command::Set { name, value, json, ttl, if_version, if_absent, of } => {
            let value = if *json { parse(value)? } else { Value::from(value.as_str()) };
            check_value(name, &value).map_err(Failure::misuse)?;
            let path = of.path(name, "")?;
            let absent = if_absent.then_some(("if-none-match", "*".to_string()));
            let condition: Vec<_> = version(*if_version).into_iter().chain(absent).collect();
            client()?.call_with(Method::PUT, &path, Some(&json!({"value": value, "ttl": ttl})), &condition)?
        }
        Command::Delete { name, if_version, of } => {
            let path = of.path(name, "")?;
            client()?.call_with(Method::DELETE, &path, None, version(*if_version).as_slice())?
        }
        Command::Increment { name, by, ttl, of } => {
            let path = of.path(name, "/increment")?;
            client()?.post(&path, &json!({"by": by, "ttl": ttl}))?
        }
    };
    common.show(&answer, || match command {
        Command::List { .. } => list(&answer),
        Command::Get { .. } | Command::Increment { .. } => print_line(&text(&answer["value"])),
        Command::Set { name, .. } => {
            let until = answer["expires_at"].as_str().map(|until| format!(", until {until}")).unwrap_or_default();
            print_line(&format!("{name} is {}{until}", if answer["new"] == true { "new" } else { "changed" }));
        }
        Command::Delete { name, .. } => print_line(&format!("{name} is deleted")),
    });
    Ok(Answer::Yes)
}

fn version(version: Option<u64>) -> Option<(&'static str, String)> {
    version.map(|version| ("if-match", format!("\"{version}\"")))
}

impl Of {
    fn scope(&self) -> String {
        percent_encode(&self.scope.to_string(), b"")
    }

    fn path(&self, name: &str, what: &str) -> Result<String, Failure> {
        check_name(&self.scope, name).map_err(Failure::misuse)?;
        Ok(format!("/api/v1/keys/{}{what}?scope={}", percent_encode(name, b""), self.scope()))
    }
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
        let time = |field: &str| key[field].as_str().map(|time| time.get(..19).unwrap_or(time).replace('T', " ")).unwrap_or_default();
        vec![text(&key["name"]), shown, key["version"].to_string(), time("changed_at"), text(&key["changed_by"]), time("expires_at")]
    };
    let rows: Vec<Vec<String>> = answer["keys"].as_array().into_iter().flatten().map(row).collect();
    let head = ["key", "value", "version", "changed", "by", "expires"];
    table::print(&head, &rows, "no keys; set one with `signalman key set NAME VALUE`");
    if let Some(next) = answer["next"].as_str() {
        print_line(&format!("there are more; go on with --after {next}"));
    }
}
