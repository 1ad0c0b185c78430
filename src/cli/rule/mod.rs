//! `signalman rule list|enable|disable|windows|test|why`.

mod file;
mod since;
mod test;

use serde_json::Value;

use super::client::{ApiClient, id_part};
use super::table::{self, text, time};
use super::{Answer, Common, Failure, hold, print_line};
use crate::config::Environment;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// The rules, whether they are tried, and who says so
    #[command(after_help = "Examples:\n  signalman rule list\n  signalman rule list --output yaml")]
    List,
    /// Switch a rule on; it stays on until its file's `enabled` changes
    #[command(after_help = "Example:\n  signalman rule enable default.alert_to_chat")]
    Enable {
        /// The rule, `pack.name`
        rule: String,
    },
    /// Switch a rule off; it stays off until its file's `enabled` changes
    #[command(after_help = "Example:\n  signalman rule disable default.alert_to_chat")]
    Disable {
        /// The rule, `pack.name`
        rule: String,
    },
    /// What a rule waits for: its open windows and throttles, key by key
    #[command(after_help = "Example:\n  signalman rule windows default.scale_out_on_load")]
    Windows {
        /// The rule, `pack.name`
        rule: String,
        /// How many
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
    /// Try a rule file: on an event file without a server, or on the events that the server has stored
    #[command(
        after_help = "Examples:\n  signalman rule test --rule rules/restart_on_alert.yaml --event event.json\n  signalman rule test --rule rules/restart_on_alert.yaml --since 24h"
    )]
    Test(test::Arguments),
    /// Why a rule matched an event, or did not
    #[command(after_help = "Example:\n  signalman rule why default.restart_on_alert 7QZK3M")]
    Why {
        /// The rule, `pack.name`
        rule: String,
        /// The event's id, or the last six characters of it
        event: String,
    },
}

pub(super) fn run(common: &Common, command: Command, environment: &Environment) -> Result<Answer, Failure> {
    match command {
        Command::List => list(common, &ApiClient::new(common, environment)?),
        Command::Enable { rule } => switch(common, &rule, "enable", environment),
        Command::Disable { rule } => switch(common, &rule, "disable", environment),
        Command::Windows { rule, limit } => windows(common, &rule, limit, environment),
        Command::Test(arguments) => test::run(common, &arguments, environment),
        Command::Why { rule, event } => {
            let path = format!("/api/v1/rules/{}/why/{}", rule_part(&rule)?, id_part(&event)?);
            let answer = ApiClient::new(common, environment)?.get(&path)?;
            common.show(&answer, || print_why(&answer));
            Ok(if answer["matched"] == true { Answer::Yes } else { Answer::No })
        }
    }
}

/// A rule's name as a part of an address.
fn rule_part(name: &str) -> Result<&str, Failure> {
    let plain = name.contains(|c: char| c.is_ascii_alphanumeric()) && id_part(name).is_ok();
    if plain {
        Ok(name)
    } else {
        Err(Failure::misuse(format!("`{name}` is not a rule's name; it is `pack.name`, such as default.restart")))
    }
}

fn list(common: &Common, client: &ApiClient) -> Result<Answer, Failure> {
    let answer = client.get("/api/v1/rules")?;
    common.show(&answer, || print_list(&answer));
    Ok(Answer::Yes)
}

fn print_list(answer: &Value) {
    let row = |rule: &Value| {
        let keys = rule["keys"]["window"].as_u64().unwrap_or(0) + rule["keys"]["throttle"].as_u64().unwrap_or(0);
        let keys = if keys == 0 { String::new() } else { keys.to_string() };
        let cells = [&rule["ref"], &rule["state"], &rule["trigger"], &rule["action"]].map(text).into_iter();
        cells.chain([phrases(&rule["held_back_by"]), keys, switched(rule), text(&rule["file"])]).collect()
    };
    let rows: Vec<Vec<String>> = answer["rules"].as_array().into_iter().flatten().map(row).collect();
    let head = ["rule", "state", "trigger", "action", "held back by", "keys", "switched", "file"];
    table::print(&head, &rows, "no rules yet; put a file into rules/");
    hold::print_standing(answer);
}

fn phrases(list: &Value) -> String {
    list.as_array().into_iter().flatten().map(text).collect::<Vec<_>>().join("; ")
}

/// Who threw the switch that counts, and when.
fn switched(rule: &Value) -> String {
    let switch = &rule["switch"];
    match switch["to"].as_str() {
        None => String::new(),
        Some(to) => format!("{to} by {} at {}", text(&switch["by"]), time(&switch["at"])),
    }
}

fn switch(common: &Common, rule: &str, verb: &str, environment: &Environment) -> Result<Answer, Failure> {
    let path = format!("/api/v1/rules/{}/{verb}", rule_part(rule)?);
    let answer = ApiClient::new(common, environment)?.post(&path, &Value::Null)?;
    common.show(&answer, || {
        let already = if answer["changed"] == true { "is" } else { "was already" };
        print_line(&format!("{} {already} {verb}d{}", text(&answer["ref"]), standing(&answer)));
    });
    Ok(Answer::Yes)
}

/// More about the state of a rule, where there is more.
fn standing(rule: &Value) -> String {
    match (rule["detail"].as_str(), rule["state"] == "shadow") {
        (Some(detail), _) => format!(": {detail}"),
        (None, true) => "; it is in shadow mode and runs nothing".into(),
        (None, false) => String::new(),
    }
}

fn windows(common: &Common, rule: &str, limit: usize, environment: &Environment) -> Result<Answer, Failure> {
    let path = format!("/api/v1/rules/{}/windows?limit={limit}", rule_part(rule)?);
    let answer = ApiClient::new(common, environment)?.get(&path)?;
    common.show(&answer, || print_windows(&answer));
    Ok(Answer::Yes)
}

fn print_windows(answer: &Value) {
    if answer["has_windows"] != true {
        print_line(&format!("{} has no window and no throttle: every event that holds counts by itself", text(&answer["ref"])));
        return;
    }
    print_line(&format!("{} ({}): {}", text(&answer["ref"]), text(&answer["state"]), phrases(&answer["held_back_by"])));
    let key = |open: &Value| if open["key"] == "" { "(all)".to_string() } else { text(&open["key"]) };
    let row = |open: &Value| vec![text(&open["part"]), key(open), text(&open["says"])];
    let rows: Vec<Vec<String>> = answer["windows"].as_array().into_iter().flatten().map(row).collect();
    table::print(&["part", "key", "what is missing"], &rows, "nothing is open");
    if let Some(more @ 1..) = answer["more"].as_u64() {
        print_line(&format!("and {more} more; --limit shows up to 1000"));
    }
}

/// Reasons of rules that hold, and wait.
const WAITS: &[&str] = &["window_open", "window_armed", "throttled"];

/// Prints what one rule said, for people.
pub(super) fn print_why(answer: &Value) {
    let waits = answer["reason"].as_str().is_some_and(|reason| WAITS.contains(&reason));
    let mark = if answer["matched"] == true {
        "✔"
    } else if waits {
        "…"
    } else {
        "✘"
    };
    print_line(&format!("{mark} {}: {} · {}", text(&answer["rule"]), text(&answer["reason"]), text(&answer["meaning"])));
    if !answer["detail"].is_null() {
        print_line(&format!("    {}", text(&answer["detail"])));
    }
    for criterion in answer["criteria"].as_array().into_iter().flatten() {
        let mark = if criterion["held"] == true { "✔" } else { "✘" };
        let error = criterion["error"].as_str().map(|error| format!(" ({error})")).unwrap_or_default();
        let (key, operator) = (text(&criterion["key"]), text(&criterion["operator"]));
        print_line(&format!("    {mark} {key} {operator} {}, saw {}{error}", criterion["pattern"], criterion["value"]));
    }
    if let Some(execution) = answer["execution"].as_object() {
        let error = execution.get("error").and_then(Value::as_str).map(|error| format!(": {error}")).unwrap_or_default();
        print_line(&format!("    ran execution {} · {}{error}", text(&execution["id"]), text(&execution["status"])));
    }
    if let Some(parameters) = answer["parameters"].as_object() {
        print_line(&format!("    with {}", Value::from(parameters.clone())));
    }
    if answer["matched"] != true && answer["remedy"] != "Nothing to do." {
        print_line(&format!("    → {}", text(&answer["remedy"])));
    }
    let keys: Vec<String> = answer["keys_as_now"].as_array().into_iter().flatten().map(text).collect();
    if !keys.is_empty() {
        print_line(&format!("    what {} held then was not kept; this is by what is there now", keys.join(", ")));
    }
    if answer["changed_since"] == true {
        print_line("    the rule has been changed or removed since; this is by the rule as it was");
    }
    if answer["new_since"] == true {
        print_line("    the rule did not exist then; this is by the rule as it is");
    }
}
