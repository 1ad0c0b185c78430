//! `signalman execution list|get|tail|cancel`.

use serde_json::{Value, json};

use super::client::{ApiClient, id_part};
use super::table::{self, short, text, time};
use super::{Answer, Common, Failure, Output, hold, print_line};
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
    /// Show what an execution says while it runs, until it ends
    #[command(visible_alias = "output", after_help = "Example:\n  signalman execution tail 7QZK3M")]
    Tail {
        /// Its id; the last six characters are enough
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
        Command::Tail { id } => return tail(common, &client, id_part(&id)?),
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

/// Seconds for which the server holds its answer where there is nothing to tell.
const HELD: u64 = 20;

/// Prints every line as it comes; the answer is whether the execution has succeeded.
fn tail(common: &Common, client: &ApiClient, id: &str) -> Result<Answer, Failure> {
    let (mut attempt, mut next) = (0, 0);
    loop {
        let said = client.get(&format!("/api/v1/executions/{id}/output?attempt={attempt}&after={next}&wait={HELD}"))?;
        let now = said["attempt"].as_u64().unwrap_or_default();
        if now != attempt && now > 1 && common.output == Output::Table {
            eprintln!("attempt {now}");
        }
        (attempt, next) = (now, said["next"].as_u64().unwrap_or_default());
        let mut last = None;
        for line in said["lines"].as_array().into_iter().flatten() {
            let number = line["number"].as_u64().unwrap_or_default();
            common.show_next(line, || {
                // Between the beginning and the end something may not be kept any more.
                if let Some(left_out) = last.map(|last| number - last - 1).filter(|left_out| *left_out > 0) {
                    eprintln!("… {left_out} lines are not shown …");
                }
                print_line(&text(&line["text"]));
            });
            last = Some(number);
        }
        if said["ended"] == true {
            if common.output == Output::Table {
                eprintln!("{}", text(&said["status"]));
            }
            return Ok(if said["status"] == "succeeded" { Answer::Yes } else { Answer::No });
        }
    }
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
