//! `signalman rule test --since`: on what the server has stored.

use reqwest::Method;
use serde_json::{Value, json};

use super::file;
use super::test::Arguments;
use crate::cli::client::ApiClient;
use crate::cli::table::{self, short, text, time};
use crate::cli::{Answer, Common, Failure, print_line};
use crate::config::Environment;

pub(super) fn run(common: &Common, arguments: &Arguments, environment: &Environment) -> Result<Answer, Failure> {
    let body = json!({
        "rule": file::read(&arguments.rule)?, "file": arguments.rule.display().to_string(), "pack": file::pack_of(&arguments.rule),
        "since": arguments.since, "until": arguments.until, "limit": arguments.limit,
    });
    let answer = ApiClient::new(common, environment)?.wait(Method::POST, "/api/v1/rules/test", Some(&body))?;
    common.show(&answer, || print(&answer));
    Ok(if answer["matched"].as_u64() > Some(0) { Answer::Yes } else { Answer::No })
}

fn print(answer: &Value) {
    let mark = if answer["matched"] == 0 { "✘" } else { "✔" };
    print_line(&format!(
        "{mark} {}: {} {}; tried on {} events of {}, from {} to {} UTC",
        text(&answer["rule"]),
        answer["matched"],
        if answer["matched"] == 1 { "match" } else { "matches" },
        answer["tried"],
        text(&answer["trigger"]),
        time(&answer["since"]),
        time(&answer["until"]),
    ));
    if let Some(cut) = answer["cut"].as_str() {
        print_line(&format!("  not all of it: {cut}"));
    }
    print_line("");
    let row = |count: &Value| vec![text(&count["count"]), text(&count["reason"]), short(&count["event"]), text(&count["meaning"])];
    let rows: Vec<Vec<String>> = answer["reasons"].as_array().into_iter().flatten().map(row).collect();
    table::print(&["times", "reason", "last", "meaning"], &rows, "there were no events of this trigger");
    let matches: Vec<&Value> = answer["matches"].as_array().into_iter().flatten().collect();
    if !matches.is_empty() {
        print_line("");
        let rows: Vec<Vec<String>> = matches.iter().copied().map(matched).collect();
        table::print(&["event", "at", "key", "in force", "would run with"], &rows, "");
        let more = answer["matched"].as_u64().unwrap_or(0).saturating_sub(rows.len() as u64);
        if more > 0 {
            print_line(&format!("and {more} more; --limit shows up to 1000"));
        }
    }
    print_line("");
    print_line(&in_force(&answer["rule"], &answer["in_force"]));
    let keys: Vec<String> = answer["keys_as_now"].as_array().into_iter().flatten().map(text).collect();
    if !keys.is_empty() {
        print_line(&format!("what {} held then was not kept with all events; it was taken as it is now", keys.join(", ")));
    }
}

fn matched(row: &Value) -> Vec<String> {
    let then = if row["in_force"] == true { "matched" } else { "–" };
    let error = row["error"].as_str().map(|error| format!("nothing: {error}"));
    let with = error.unwrap_or_else(|| row["parameters"].to_string());
    vec![short(&row["event"]), time(&row["at"]), text(&row["key"]), then.to_string(), with]
}

/// How it compares with the rule of the name that was in force.
fn in_force(rule: &Value, then: &Value) -> String {
    let rule = text(rule);
    if then["matched"] == 0 && then["exists"] != true {
        return format!("no {rule} has been in force");
    }
    format!(
        "{rule} in force matched {}: {} as here, {} only then; {} only here",
        then["matched"], then["both"], then["only_then"], then["only_now"]
    )
}
