//! `signalman reload`.

use super::client::ApiClient;
use super::table::text;
use super::{Answer, Common, Failure, Output, print_json, print_line};
use crate::config::Environment;

pub(super) fn run(common: &Common, environment: &Environment) -> Result<Answer, Failure> {
    let answer = ApiClient::new(common, environment)?.post("/api/v1/reload", &serde_json::json!({}))?;
    if common.output == Output::Json {
        print_json(&answer);
        return Ok(Answer::Yes);
    }
    for warning in answer["warnings"].as_array().into_iter().flatten() {
        print_line(&text(warning));
    }
    let changed = if answer["changed"] == true { "" } else { "; no rule is another than before" };
    let (packs, actions, rules) = (text(&answer["packs"]), text(&answer["actions"]), text(&answer["rules"]));
    print_line(&format!("the site runs as its files say: {packs} packs, {actions} actions, {rules} rules{changed}"));
    Ok(Answer::Yes)
}
