//! `signalman action list|show`.

use serde_json::Value;

use super::client::ApiClient;
use super::table::{self, text};
use super::{Answer, Common, Failure, print_line};
use crate::config::Environment;
use crate::links::percent_encode;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// What can be done
    #[command(after_help = "Examples:\n  signalman action list\n  signalman action list --pack core --output json")]
    List {
        /// Only of this pack
        #[arg(long)]
        pack: Option<String>,
    },
    /// One action: its parameters, what its pack may touch, and how to call it
    #[command(after_help = "Example:\n  signalman action show core.notify")]
    Show {
        /// The action, `pack.name`
        action: String,
    },
}

pub(super) fn run(common: &Common, command: Command, environment: &Environment) -> Result<Answer, Failure> {
    let client = ApiClient::new(common, environment)?;
    match command {
        Command::List { pack } => {
            let mut answer = client.get("/api/v1/actions")?;
            if let (Some(pack), Some(actions)) = (&pack, answer["actions"].as_array_mut()) {
                let prefix = format!("{pack}.");
                actions.retain(|action| action["ref"].as_str().is_some_and(|name| name.starts_with(&prefix)));
            }
            common.show(&answer, || {
                let rows: Vec<Vec<String>> = answer["actions"].as_array().into_iter().flatten().map(row).collect();
                table::print(&["action", "runner", "parameters", "description"], &rows, "no actions; put a pack into packs/");
            });
        }
        Command::Show { action } => {
            let answer = client.get(&format!("/api/v1/actions/{}", percent_encode(&action, b"")))?;
            common.show(&answer, || print(&answer));
        }
    }
    Ok(Answer::Yes)
}

fn row(action: &Value) -> Vec<String> {
    let names = action["parameters"].as_array().into_iter().flatten().filter(|parameter| parameter["immutable"] != true);
    let names: Vec<String> =
        names.map(|parameter| format!("{}{}", text(&parameter["name"]), if parameter["required"] == true { "" } else { "?" })).collect();
    let name = if action["enabled"] == true { text(&action["ref"]) } else { format!("{} (off)", text(&action["ref"])) };
    vec![name, text(&action["runner_type"]), names.join(" "), text(&action["description"])]
}

fn print(action: &Value) {
    print_line(&format!("{}: {}", text(&action["ref"]), text(&action["description"])));
    let again = if action["idempotent"] == true { "runs again after a crash" } else { "is not run again after a crash" };
    print_line(&format!(
        "runner {}, timeout {}, {again}; {}",
        text(&action["runner_type"]),
        text(&action["timeout"]),
        text(&action["file"])
    ));
    if action["enabled"] != true {
        print_line("it is not enabled");
    }
    print_line("");
    let rows: Vec<Vec<String>> = action["parameters"].as_array().into_iter().flatten().map(parameter).collect();
    table::print(&["parameter", "type", "", "default", "description"], &rows, "it takes no parameters");
    print_line("");
    let may = &action["capabilities"];
    let list = |field: &str| may[field].as_array().into_iter().flatten().map(text).collect::<Vec<_>>().join(", ");
    let mut allowed: Vec<String> = Vec::new();
    for (field, word) in [("http", "call"), ("kv_read", "read keys of"), ("process", "run"), ("actions", "run actions")] {
        let names = list(field);
        if !names.is_empty() {
            allowed.push(format!("{word} {names}"));
        }
    }
    match may["kv"].as_str() {
        Some("read") => allowed.push("read its keys".into()),
        Some("read_write") => allowed.push("read and change its keys".into()),
        _ => {}
    }
    if may["chat"] == true {
        allowed.push("send to chat".into());
    }
    let allowed = if allowed.is_empty() { "nothing outside".into() } else { allowed.join("; ") };
    print_line(&format!("its pack may: {allowed}"));
    print_line(&format!("try it: {}", text(&action["example"])));
}

fn parameter(parameter: &Value) -> Vec<String> {
    let kind = parameter["type"].as_str().unwrap_or("any").to_string();
    let marks = [("required", "required"), ("immutable", "fixed"), ("secret", "secret")];
    let marks: Vec<&str> = marks.iter().filter(|(field, _)| parameter[*field] == true).map(|(_, mark)| *mark).collect();
    let default = if parameter["default"].is_null() { String::new() } else { parameter["default"].to_string() };
    let mut says = text(&parameter["description"]);
    let mut add = |text: String| says = if says.is_empty() { text } else { format!("{says}; {text}") };
    if let Some(choices @ [_, ..]) = parameter["choices"].as_array().map(Vec::as_slice) {
        add(format!("one of {}", choices.iter().map(text).collect::<Vec<_>>().join(", ")));
    }
    match (parameter["minimum"].as_f64(), parameter["maximum"].as_f64()) {
        (Some(least), Some(most)) => add(format!("{least} to {most}")),
        (Some(least), None) => add(format!("at least {least}")),
        (None, Some(most)) => add(format!("at most {most}")),
        (None, None) => {}
    }
    vec![text(&parameter["name"]), kind, marks.join(" "), default, says]
}
