//! `signalman execution list|get|cancel`.

use serde_json::{Value, json};

use super::client::{ApiClient, id_part};
use super::table::{self, short, text, time};
use super::{Answer, Common, Failure, hold, print_line};
use crate::config::Environment;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// The newest executions
    #[command(after_help = "Examples:\n  signalman execution list\n  signalman execution list --status failed --limit 5")]
    List {
        /// How many
        #[arg(long, default_value_t = 20)]
        limit: usize,
        /// Only of this status
        #[arg(long)]
        status: Option<String>,
    },
    /// One execution, whole; the last six characters of its id are enough
    #[command(after_help = "Examples:\n  signalman execution get 7QZK3M\n  signalman execution get 7QZK3M --output yaml")]
    Get {
        /// Its id
        id: String,
    },
    /// Stop an execution
    #[command(after_help = "Example:\n  signalman execution cancel 7QZK3M")]
    Cancel {
        /// Its id
        id: String,
    },
}

pub(super) fn run(common: &Common, command: Command, environment: &Environment) -> Result<Answer, Failure> {
    let client = ApiClient::new(common, environment)?;
    let answer = match command {
        Command::List { limit, status } => {
            let status = status.map(|status| format!("&status={}", crate::links::percent_encode(&status, b""))).unwrap_or_default();
            client.get(&format!("/api/v1/executions?limit={limit}{status}"))?
        }
        Command::Get { id } => client.get(&format!("/api/v1/executions/{}", id_part(&id)?))?,
        Command::Cancel { id } => client.post(&format!("/api/v1/executions/{}/cancel", id_part(&id)?), &json!({}))?,
    };
    common.show(&answer, || match answer["executions"].as_array() {
        Some(executions) => {
            let rows: Vec<Vec<String>> = executions.iter().map(row).collect();
            table::print(
                &["id", "requested", "action", "status", "reason", "by"],
                &rows,
                "no executions yet; try `signalman run core.echo text=hi`",
            );
            hold::print_standing(&answer);
        }
        None => print_one(&answer),
    });
    Ok(Answer::Yes)
}

fn row(execution: &Value) -> Vec<String> {
    let by = execution["requested_by"].as_object().and_then(|by| by.iter().next());
    let by = by.map(|(kind, name)| format!("{kind} {}", text(name))).unwrap_or_default();
    vec![
        short(&execution["id"]),
        time(&execution["requested_at"]),
        text(&execution["action"]),
        text(&execution["status"]),
        text(&execution["reason"]),
        by,
    ]
}

/// Prints one execution for people.
pub(super) fn print_one(execution: &Value) {
    let fields =
        ["id", "action", "status", "reason", "attempt", "requested_at", "started_at", "ended_at", "next_attempt_at", "event", "error"];
    for field in fields.iter().filter(|field| !execution[**field].is_null()) {
        print_line(&format!("{field:<16} {}", text(&execution[*field])));
    }
    for field in ["parameters", "result"] {
        if !execution[field].is_null() {
            print_line(&format!("{field:<16} {}", serde_json::to_string_pretty(&execution[field]).unwrap_or_default()));
        }
    }
    print_log(execution);
}

/// What was logged, a line each.
pub(super) fn print_log(of: &Value) {
    for line in of["log"].as_array().into_iter().flatten() {
        print_line(&format!("log              {} {} {}", time(&line["at"]), text(&line["level"]), text(&line["text"])));
    }
}
