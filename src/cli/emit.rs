//! `signalman emit`.

use std::io::Read;

use serde_json::{Value, json};

use super::client::ApiClient;
use super::{Answer, Common, Failure, print_line, run};
use crate::config::Environment;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The trigger, `pack.name`
    trigger: String,
    /// Fields of the payload: `name=value`, or `name:=JSON`
    #[arg(value_name = "NAME=VALUE")]
    fields: Vec<String>,
    /// The payload as JSON, or `-` to read it from the input
    #[arg(long, conflicts_with = "fields", value_name = "JSON")]
    payload: Option<String>,
    /// What the event is about
    #[arg(long)]
    key: Option<String>,
    /// A repeat with the same key is not a second event
    #[arg(long)]
    dedup_key: Option<String>,
}

pub(super) fn run(common: &Common, arguments: &Arguments, environment: &Environment) -> Result<Answer, Failure> {
    let payload = match arguments.payload.as_deref() {
        None => Value::Object(run::parameters(&arguments.fields)?),
        Some(text) => {
            let text = if text == "-" { input()? } else { text.to_string() };
            serde_json::from_str(&text).map_err(|error| Failure::misuse(format!("the payload is not JSON: {error}")))?
        }
    };
    let body = json!({"trigger": arguments.trigger, "payload": payload, "key": arguments.key, "dedup_key": arguments.dedup_key});
    let accepted = ApiClient::new(common, environment)?.post("/api/v1/events", &body)?;
    common.show(&accepted, || {
        let duplicate = if accepted["duplicate"] == true { " (a repeat of an earlier one)" } else { "" };
        print_line(&format!("event {}{duplicate}", accepted["id"].as_str().unwrap_or_default()));
    });
    Ok(Answer::Yes)
}

fn input() -> Result<String, Failure> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).map_err(|error| Failure::misuse(format!("the input cannot be read: {error}")))?;
    Ok(text)
}
