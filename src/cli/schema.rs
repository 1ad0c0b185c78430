//! `signalman schema`: JSON Schemas of what people write, for editors and for tools.

use serde_json::json;

use super::print::print_json;
use super::{Answer, Common, Failure, table};
use crate::document::fields::did_you_mean;
use crate::pack::schema::{self, KINDS};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Which kind of file; without it, the kinds are listed
    kind: Option<String>,
}

pub(super) fn run(common: &Common, arguments: &Arguments) -> Result<Answer, Failure> {
    let Some(name) = &arguments.kind else {
        let listed: Vec<_> = KINDS.iter().map(|kind| json!({"kind": kind.name, "files": kind.files})).collect();
        common.show(&json!({"kinds": listed}), || {
            let rows: Vec<Vec<String>> = KINDS.iter().map(|kind| vec![kind.name.into(), kind.files.into()]).collect();
            table::print(&["kind", "files"], &rows, "");
        });
        return Ok(Answer::Yes);
    };
    let names: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
    let kind = schema::kind(name).ok_or_else(|| Failure::misuse(format!("there is no kind `{name}`; {}", did_you_mean(name, &names))))?;
    let schema = kind.schema();
    // For people as well: a schema is JSON.
    common.show(&schema, || print_json(&schema));
    Ok(Answer::Yes)
}
