//! `signalman event list|show|why`.

use serde_json::Value;

use super::client::{ApiClient, id_part, listing};
use super::table::{self, print_next, short, text, time};
use super::{Answer, Common, Failure, hold, print_json, print_line, rule};
use crate::config::Environment;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// The newest events and what they matched
    #[command(
        after_help = "Examples:\n  signalman event list\n  signalman event list --trigger core.webhook --since 30m --limit 5 --output json"
    )]
    List {
        /// How many
        #[arg(long, default_value_t = 20)]
        limit: usize,
        /// Only of this trigger
        #[arg(long)]
        trigger: Option<String>,
        /// Only about this: the event's key
        #[arg(long)]
        key: Option<String>,
        /// Only from there, such as webhook/generic
        #[arg(long)]
        source: Option<String>,
        /// Only those that this rule matched, or nearly
        #[arg(long)]
        rule: Option<String>,
        /// Only since then: a span such as 30m, or a time, RFC 3339
        #[arg(long, value_name = "TIME")]
        since: Option<String>,
        /// Only older than this id: the last one of the page before
        #[arg(long, value_name = "ID")]
        before: Option<String>,
    },
    /// One event, whole; the last six characters of its id are enough
    #[command(after_help = "Example:\n  signalman event show 7QZK3M")]
    Show {
        /// Its id
        id: String,
    },
    /// What every rule said about an event, and why
    #[command(after_help = "Example:\n  signalman event why 7QZK3M")]
    Why {
        /// Its id
        id: String,
    },
}

pub(super) fn run(common: &Common, command: Command, environment: &Environment) -> Result<Answer, Failure> {
    let client = ApiClient::new(common, environment)?;
    match command {
        Command::List { limit, trigger, key, source, rule, since, before } => {
            let filters = [("trigger", trigger), ("key", key), ("source", source), ("rule", rule), ("since", since), ("before", before)];
            let answer = client.get(&listing("/api/v1/events", limit, filters))?;
            common.show(&answer, || {
                let rows: Vec<Vec<String>> = answer["events"].as_array().into_iter().flatten().map(row).collect();
                table::print(
                    &["id", "received", "trigger", "key", "outcome"],
                    &rows,
                    "no events yet; post one to a webhook, or try `signalman emit`",
                );
                print_next(&answer);
                hold::print_standing(&answer);
            });
        }
        Command::Show { id } => {
            let answer = client.get(&format!("/api/v1/events/{}", id_part(&id)?))?;
            common.show(&answer, || print_json(&answer));
        }
        Command::Why { id } => {
            let answer = client.get(&format!("/api/v1/events/{}/why", id_part(&id)?))?;
            common.show(&answer, || explain(&answer));
        }
    }
    Ok(Answer::Yes)
}

fn row(stored: &Value) -> Vec<String> {
    let event = &stored["event"];
    vec![short(&event["id"]), time(&event["received_at"]), text(&event["trigger"]), text(&event["key"]), outcome(stored)]
}

fn outcome(stored: &Value) -> String {
    if let Some(aside) = stored["set_aside"].as_object() {
        return format!("{}: {}", text(&aside["reason"]), text(&aside["detail"]));
    }
    let verdicts = stored["verdicts"].as_array().into_iter().flatten();
    let said: Vec<String> = verdicts.map(|verdict| format!("{} {}", text(&verdict["rule"]), text(&verdict["reason"]))).collect();
    if said.is_empty() { "no rule matched".into() } else { said.join(", ") }
}

fn explain(answer: &Value) {
    let event = &answer["event"]["event"];
    print_line(&format!("event {} of {} at {}", text(&event["id"]), text(&event["trigger"]), time(&event["received_at"])));
    if let Some(aside) = answer["set_aside"].as_object() {
        print_line(&format!("no rule saw it ({}): {}", text(&aside["reason"]), text(&aside["detail"])));
        return;
    }
    let rules: Vec<&Value> = answer["rules"].as_array().into_iter().flatten().collect();
    if rules.is_empty() {
        print_line("no rule listens to this trigger");
    }
    for one in rules {
        print_line("");
        rule::print_why(one);
    }
    if let Some(more) = answer["more"].as_object() {
        let counts: Vec<String> = more.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        print_line(&format!(
            "\nand more rules of this trigger: {}; `signalman rule why RULE {}` tells of one",
            counts.join(", "),
            text(&event["id"])
        ));
    }
    if let Some(others @ 1..) = answer["other_triggers"].as_u64() {
        print_line(&format!("\n{others} other rules listen to other triggers"));
    }
}
