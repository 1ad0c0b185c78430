//! How long the verbs of the command line take that ask a running server: the whole process, from its start to its end.

use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::{Value, json};

use super::process::{BenchServer, BenchSite};
use crate::cli::Common;

/// How often each verb is run; the median is told.
const TIMES: usize = 21;

/// The verbs, each with what it is given.
const VERBS: &[&[&str]] = &[
    &["event", "list"],
    &["execution", "list"],
    &["execution", "get"],
    &["rule", "list"],
    &["action", "list"],
    &["action", "show", "core.echo"],
    &["sensor", "list"],
    &["key", "list"],
    &["hold", "--show"],
    &["chat"],
    &["emit", "core.webhook", "n:=1"],
    &["run", "core.echo", "text=hi", "--detach"],
    &["lint"],
    &["--help"],
];

/// Medians in milliseconds, by verb.
pub(super) fn commands(common: &Common) -> Result<Value, String> {
    let site = BenchSite::new(&common.site, "")?;
    let server = BenchServer::start(&site)?;
    let program = std::env::current_exe().map_err(|error| format!("cannot find this program: {error}"))?;
    let run = |words: &[&str]| {
        let mut command = Command::new(&program);
        command.args(words).arg("--site").arg(site.folder()).args(["--server", &format!("http://{}", server.address)]);
        command.env("SIGNALMAN_TOKEN", &server.token).stderr(Stdio::null()).stdin(Stdio::null());
        command.output().map_err(|error| format!("{words:?} cannot be run: {error}"))
    };
    let made = run(&["run", "core.echo", "text=hi", "--output", "json"])?;
    let made: Value = serde_json::from_slice(&made.stdout).map_err(|error| format!("`run` answered no JSON: {error}"))?;
    let id = made["id"].as_str().unwrap_or_default().to_string();
    let mut figures = serde_json::Map::new();
    for verb in VERBS {
        let words: Vec<&str> = verb.iter().copied().chain((*verb == ["execution", "get"]).then_some(id.as_str())).collect();
        let mut times = Vec::with_capacity(TIMES);
        for _ in 0..TIMES {
            let from = Instant::now();
            let output = run(&words)?;
            if output.status.code() == Some(2) {
                return Err(format!("{words:?} is misuse"));
            }
            times.push(from.elapsed());
        }
        times.sort_unstable();
        figures.insert(format!("{} (ms)", verb.join(" ")), json!(times[TIMES / 2].as_secs_f64() * 1_000.0));
    }
    Ok(Value::Object(figures))
}
