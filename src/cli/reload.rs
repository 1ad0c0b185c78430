//! `signalman reload`.

use serde_json::{Value, json};

use super::client::ApiClient;
use super::table::text;
use super::{Answer, Common, Failure, print_line};
use crate::config::Environment;

pub(super) fn run(common: &Common, environment: &Environment) -> Result<Answer, Failure> {
    let answer = ApiClient::new(common, environment)?.post("/api/v1/reload", &json!({}))?;
    common.show(&answer, || print(&answer));
    Ok(Answer::Yes)
}

fn print(answer: &Value) {
    for warning in answer["warnings"].as_array().into_iter().flatten() {
        print_line(&text(warning));
    }
    let changed = if answer["changed"] == true { "" } else { "; no rule is another than before" };
    let (packs, actions, rules) = (text(&answer["packs"]), text(&answer["actions"]), text(&answer["rules"]));
    print_line(&format!("the site runs as its files say: {packs} packs, {actions} actions, {rules} rules{changed}"));
}
