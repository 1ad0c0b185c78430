//! `signalman execution list|get|rerun|cancel`.

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde_json::{Value, json};

use super::client::{ApiClient, id_part, listing};
use super::table::{self, print_next, short, text, time};
use super::{Answer, Common, Failure, hold, print_line, run};
use crate::config::Environment;
use crate::model::reason::Reason;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// The newest executions
    #[command(
        after_help = "Examples:\n  signalman execution list\n  signalman execution list --status failed --since 24h --limit 5\n  signalman execution list --rule default.restart_on_alert --output json"
    )]
    List {
        /// How many
        #[arg(long, default_value_t = 20)]
        limit: usize,
        /// Only of this status
        #[arg(long)]
        status: Option<String>,
        /// Only of this action
        #[arg(long)]
        action: Option<String>,
        /// Only those that this rule asked for
        #[arg(long)]
        rule: Option<String>,
        /// Only since then: a span such as 30m, or a time, RFC 3339
        #[arg(long, value_name = "TIME")]
        since: Option<String>,
        /// Only older than this id: the last one of the page before
        #[arg(long, value_name = "ID")]
        before: Option<String>,
    },
    /// One execution, whole; the last six characters of its id are enough
    #[command(after_help = "Examples:\n  signalman execution get 7QZK3M\n  signalman execution get 7QZK3M --output yaml")]
    Get {
        /// Its id
        id: String,
    },
    /// Run it again with the same parameters, or some of them changed; the new one has an id of its own
    #[command(after_help = "Examples:\n  signalman execution rerun 7QZK3M\n  signalman execution rerun 7QZK3M text=again --wait")]
    Rerun {
        /// Its id
        id: String,
        /// Parameters that are to differ: `name=value`, or `name:=JSON` for values that are not text
        #[arg(value_name = "NAME=VALUE")]
        parameters: Vec<String>,
        /// Wait for the result; the exit code then tells whether it succeeded
        #[arg(long)]
        wait: bool,
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
    match command {
        Command::List { limit, status, action, rule, since, before } => {
            let filters = [("status", status), ("action", action), ("rule", rule), ("since", since), ("before", before)];
            let answer = client.get(&listing("/api/v1/executions", limit, filters))?;
            common.show(&answer, || print_list(&answer));
        }
        Command::Get { id } => {
            let answer = client.get(&format!("/api/v1/executions/{}", id_part(&id)?))?;
            common.show(&answer, || print_one(&answer, &Around::of(&client)));
        }
        Command::Rerun { id, parameters, wait } => {
            let (id, parameters) = (id_part(&id)?, run::parameters(&parameters)?);
            let seen = client.post(&format!("/api/v1/executions/{id}/rerun"), &json!({"parameters": parameters}))?;
            return run::follow(common, &client, seen, wait);
        }
        Command::Cancel { id } => {
            let answer = client.post(&format!("/api/v1/executions/{}/cancel", id_part(&id)?), &json!({}))?;
            common.show(&answer, || print_one(&answer, &Around::of(&client)));
        }
    }
    Ok(Answer::Yes)
}

fn print_list(answer: &Value) {
    let rows: Vec<Vec<String>> = answer["executions"].as_array().into_iter().flatten().map(row).collect();
    let none = "no executions yet; try `signalman run core.echo text=hi`";
    table::print(&["id", "requested", "action", "status", "reason", "by"], &rows, none);
    print_next(answer);
    hold::print_standing(answer);
}

fn row(execution: &Value) -> Vec<String> {
    vec![
        short(&execution["id"]),
        time(&execution["requested_at"]),
        text(&execution["action"]),
        text(&execution["status"]),
        text(&execution["reason"]),
        asked_by(execution),
    ]
}

fn asked_by(execution: &Value) -> String {
    let by = execution["requested_by"].as_object().and_then(|by| by.iter().next());
    by.map(|(kind, name)| format!("{kind} {}", text(name))).unwrap_or_default()
}

/// What a site says that an execution is shown with.
pub(super) struct Around {
    zone: Tz,
    public_url: String,
}

impl Around {
    /// Asks the server; one that does not say it leaves times in UTC.
    pub fn of(client: &ApiClient) -> Self {
        let site = client.get("/api/v1/site").unwrap_or_default();
        Self {
            zone: site["time_zone"].as_str().and_then(|zone| zone.parse().ok()).unwrap_or(Tz::UTC),
            public_url: text(&site["public_url"]),
        }
    }

    /// A time as people of the site read it.
    fn time(&self, value: &Value) -> String {
        let time = value.as_str().and_then(|text| DateTime::parse_from_rfc3339(text).ok());
        time.map(|time| time.with_timezone(&self.zone).format("%Y-%m-%d %H:%M:%S %Z").to_string()).unwrap_or_default()
    }
}

/// Prints one execution for people.
pub(super) fn print_one(execution: &Value, around: &Around) {
    let line = |name: &str, value: String| {
        if !value.is_empty() {
            print_line(&format!("{name:<16} {value}"));
        }
    };
    for field in ["id", "action", "status"] {
        line(field, text(&execution[field]));
    }
    line("reason", reason(&execution["reason"]));
    line("attempt", text(&execution["attempt"]));
    line("asked for by", asked_by(execution));
    line("event", text(&execution["event"]));
    line("key", text(&execution["key"]));
    line("parent", text(&execution["parent"]));
    line("rerun of", text(&execution["rerun_of"]));
    for (name, field) in
        [("requested", "requested_at"), ("started", "started_at"), ("ended", "ended_at"), ("next attempt", "next_attempt_at")]
    {
        line(name, around.time(&execution[field]));
    }
    line("took", took(execution));
    line("error", text(&execution["error"]));
    for field in ["parameters", "result"] {
        if !execution[field].is_null() {
            line(field, serde_json::to_string_pretty(&execution[field]).unwrap_or_default());
        }
    }
    print_log(execution, around);
    if !around.public_url.is_empty() {
        line("link", format!("{}/api/v1/executions/{}", around.public_url, text(&execution["id"])));
    }
    if let Some(event) = execution["event"].as_str() {
        print_line(&format!("why: `signalman event why {}`", short(&event.into())));
    }
}

/// A reason with what it means.
fn reason(value: &Value) -> String {
    let known = value.as_str().and_then(|code| Reason::ALL.iter().find(|reason| reason.code() == code));
    known.map_or_else(|| text(value), |reason| format!("{reason} · {}", reason.meaning()))
}

/// How long the last attempt took, or has taken.
fn took(execution: &Value) -> String {
    let at = |field: &str| execution[field].as_str().and_then(|text| text.parse::<DateTime<Utc>>().ok());
    let (Some(from), Some(to)) = (at("started_at"), at("ended_at")) else { return String::new() };
    let milliseconds = (to - from).num_milliseconds();
    if milliseconds < 0 {
        return String::new(); // it waits for another attempt, or the clock went back
    }
    match milliseconds {
        0..10_000 => format!("{milliseconds} ms"),
        _ => format!("{} s", milliseconds / 1_000),
    }
}

/// What was logged, a line each, with the time of day.
pub(super) fn print_log(of: &Value, around: &Around) {
    for entry in of["log"].as_array().into_iter().flatten() {
        let at = around.time(&entry["at"]);
        print_line(&format!("{:<16} {} {} {}", "log", at.get(11..19).unwrap_or(&at), text(&entry["level"]), text(&entry["text"])));
    }
}
