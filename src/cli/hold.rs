//! `signalman hold REASON` and `signalman release`.

use serde_json::{Value, json};

use super::client::ApiClient;
use super::table::{text, time};
use super::{Answer, Common, Failure, print_line};
use crate::config::Environment;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Why; everybody sees it until `signalman release`
    #[arg(required_unless_present = "show", num_args = 1..)]
    reason: Vec<String>,
    /// Only show whether executions are held: exit 0 if so, 1 if not
    #[arg(long, conflicts_with = "reason")]
    show: bool,
}

pub(super) fn run(common: &Common, arguments: &Arguments, environment: &Environment) -> Result<Answer, Failure> {
    let client = ApiClient::new(common, environment)?;
    if arguments.show {
        let answer = client.get("/api/v1/hold")?;
        common.show(&answer, || print_line(&standing(&answer).unwrap_or_else(|| "nothing is held".into())));
        return Ok(if answer["hold"].is_null() { Answer::No } else { Answer::Yes });
    }
    let answer = client.post("/api/v1/hold", &json!({"reason": arguments.reason.join(" ")}))?;
    common.show(&answer, || {
        let before = if answer["changed"] == true { "" } else { "as before: " };
        print_line(&format!("{before}{}", standing(&answer).unwrap_or_default()));
    });
    Ok(Answer::Yes)
}

pub(super) fn release(common: &Common, environment: &Environment) -> Result<Answer, Failure> {
    let answer = ApiClient::new(common, environment)?.post("/api/v1/release", &Value::Null)?;
    common.show(&answer, || {
        let said =
            if answer["changed"] == true { "automatic executions start again, those that were held first" } else { "nothing was held" };
        print_line(said);
    });
    Ok(Answer::Yes)
}

/// What an answer says of a hold in force.
pub(super) fn standing(answer: &Value) -> Option<String> {
    let hold = answer["hold"].as_object()?;
    Some(format!(
        "⏸ automatic executions are held since {} by {}: {}; `signalman release` lets them go",
        time(&hold["since"]),
        text(&hold["by"]),
        text(&hold["reason"])
    ))
}

/// Shows a hold in force beside a list.
pub(super) fn print_standing(answer: &Value) {
    if let Some(standing) = standing(answer) {
        print_line(&standing);
    }
}
