//! `signalman lint`.

use serde_json::json;

use super::{Answer, Common, Failure, print_line};
use crate::config::Environment;
use crate::pack;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Treat warnings as errors
    #[arg(long)]
    strict: bool,
}

pub(super) fn run(common: &Common, arguments: &Arguments, environment: &Environment) -> Result<Answer, Failure> {
    if !common.site.is_dir() {
        return Err(Failure::misuse(format!("`{}` is not a folder", common.site.display())));
    }
    let (site, faults) = pack::load(&common.site, environment);
    let errors = faults.0.iter().filter(|fault| !fault.warning).count();
    let warnings = faults.0.len() - errors;
    let listed = faults.0.iter().map(|fault| {
        json!({
            "file": &*fault.place.file, "line": fault.place.line, "column": fault.place.column,
            "message": fault.message, "hint": fault.hint, "warning": fault.warning,
        })
    });
    let answer = json!({"errors": errors, "warnings": warnings, "faults": listed.collect::<Vec<_>>()});
    common.show(&answer, || {
        for fault in &faults.0 {
            print_line(&format!("{fault}\n"));
        }
        let found = format!("{} packs, {} actions, {} rules", site.packs.len(), site.actions.len(), site.rules.len());
        print_line(&format!("{found}: {errors} errors, {warnings} warnings"));
    });
    let fine = errors == 0 && (warnings == 0 || !arguments.strict);
    Ok(if fine { Answer::Yes } else { Answer::Misuse })
}
