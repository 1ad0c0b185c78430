//! `signalman sensor list|show`.

use serde_json::Value;

use super::client::ApiClient;
use super::table::{self, text, time};
use super::{Answer, Common, Failure, print_json};
use crate::config::Environment;

/// How much of the last error stands in the list, in characters.
const ERROR_CHARACTERS: usize = 100;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Every sensor and how it does
    #[command(after_help = "Example:\n  signalman sensor list")]
    List,
    /// One sensor, whole
    #[command(after_help = "Example:\n  signalman sensor show alertmanager.alertmanager")]
    Show {
        /// Its name, `pack.name`
        sensor: String,
    },
}

pub(super) fn run(common: &Common, command: Command, environment: &Environment) -> Result<Answer, Failure> {
    let client = ApiClient::new(common, environment)?;
    match command {
        Command::List => {
            let answer = client.get("/api/v1/sensors")?;
            common.show(&answer, || {
                let rows: Vec<Vec<String>> = answer["sensors"].as_array().into_iter().flatten().map(row).collect();
                let head = ["sensor", "kind", "trigger", "state", "since", "events", "last event", "error"];
                table::print(&head, &rows, "the site has no sensors");
            });
        }
        Command::Show { sensor } => {
            let answer = client.get(&format!("/api/v1/sensors/{}", crate::links::percent_encode(&sensor, b"")))?;
            common.show(&answer, || print_json(&answer));
        }
    }
    Ok(Answer::Yes)
}

fn row(sensor: &Value) -> Vec<String> {
    let down = sensor["down_since"].is_string();
    let state = if down { format!("{}, down", text(&sensor["state"])) } else { text(&sensor["state"]) };
    // What went wrong before it was well again is not news.
    let error = if sensor["failures"].as_u64() == Some(0) { String::new() } else { text(&sensor["last_error"]) };
    vec![
        text(&sensor["ref"]),
        text(&sensor["kind"]),
        text(&sensor["trigger"]),
        state,
        time(&sensor["since"]),
        text(&sensor["events"]),
        time(&sensor["last_event_at"]),
        error.replace('\n', " ").chars().take(ERROR_CHARACTERS).collect(),
    ]
}
