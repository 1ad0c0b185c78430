//! `signalman run`.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::client::{ApiClient, id_part};
use super::{Answer, Common, Failure, execution, print_line};
use crate::config::Environment;

/// How often to look whether it has ended.
const POLL: Duration = Duration::from_millis(50);

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The action, `pack.name`
    action: String,
    /// Parameters: `name=value`, or `name:=JSON` for values that are not text
    #[arg(value_name = "NAME=VALUE")]
    parameters: Vec<String>,
    /// Do not wait for the result
    #[arg(long)]
    detach: bool,
    /// Show what it would do, by its own account, and change nothing
    #[arg(long, conflicts_with = "detach")]
    plan: bool,
}

pub(super) fn run(common: &Common, arguments: &Arguments, environment: &Environment) -> Result<Answer, Failure> {
    let parameters = parameters(&arguments.parameters)?;
    let client = ApiClient::new(common, environment)?;
    if arguments.plan {
        let path = format!("/api/v1/actions/{}/plan", id_part(&arguments.action)?);
        let planned = client.post(&path, &json!({"parameters": parameters}))?;
        common.show(&planned, || print_plan(&planned, &execution::Around::of(&client)));
        return Ok(Answer::Yes);
    }
    let seen = client.post("/api/v1/executions", &json!({"action": arguments.action, "parameters": parameters}))?;
    follow(common, &client, seen, !arguments.detach)
}

/// Waits for the end of an execution if that is wanted, and shows it.
pub(super) fn follow(common: &Common, client: &ApiClient, mut seen: Value, wait: bool) -> Result<Answer, Failure> {
    let path = format!("/api/v1/executions/{}", seen["id"].as_str().unwrap_or_default());
    let open = |seen: &Value| matches!(seen["status"].as_str(), Some("requested" | "delayed" | "running" | "canceling"));
    while wait && open(&seen) {
        std::thread::sleep(POLL);
        seen = client.get(&path)?;
    }
    common.show(&seen, || execution::print_one(&seen, &execution::Around::of(client)));
    Ok(if !wait || seen["status"] == "succeeded" { Answer::Yes } else { Answer::No })
}

fn print_plan(planned: &Value, around: &execution::Around) {
    match &planned["plan"] {
        Value::String(text) => print_line(text),
        value => print_line(&serde_json::to_string_pretty(value).unwrap_or_default()),
    }
    execution::print_log(planned, around);
}

/// Reads `name=value` and `name:=JSON`.
pub(super) fn parameters(given: &[String]) -> Result<Map<String, Value>, Failure> {
    let mut parameters = Map::new();
    for pair in given {
        let (name, value) = pair.split_once('=').ok_or_else(|| Failure::misuse(format!("`{pair}` is not name=value")))?;
        let (name, value) = match name.strip_suffix(':') {
            Some(name) => {
                let parsed = serde_json::from_str(value);
                (name, parsed.map_err(|error| Failure::misuse(format!("`{value}` for `{name}` is not JSON: {error}")))?)
            }
            None => (name, Value::from(value)),
        };
        if parameters.insert(name.to_string(), value).is_some() {
            return Err(Failure::misuse(format!("`{name}` is given twice")));
        }
    }
    Ok(parameters)
}
