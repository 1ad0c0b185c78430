//! `signalman store stat|check|compact`.

use std::io::{BufRead, BufReader};

use reqwest::Method;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::access::{ADVICE, Access, Found, Place, told};
use super::client::ApiClient;
use super::progress::{Progress, Unit};
use super::{Answer, Common, Failure, print_line, table};
use crate::app;
use crate::config::Environment;
use crate::store::{Damage, Stat};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// How much there is of what, and what it takes on disk
    #[command(after_help = "Examples:\n  signalman store stat\n  signalman store stat --databases")]
    Stat {
        /// Also every database
        #[arg(long)]
        databases: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Read everything and tell what is damaged
    #[command(after_help = "Example:\n  signalman store check")]
    Check {
        #[command(flatten)]
        place: Place,
    },
    /// Give back what space there is to give back
    #[command(after_help = "Example:\n  signalman store compact")]
    Compact {
        #[command(flatten)]
        place: Place,
    },
}

pub(super) fn run(common: &Common, command: &Command, environment: &Environment) -> Result<Answer, Failure> {
    match command {
        Command::Stat { databases, place } => stat(&Access::of(common, place, environment)?, *databases, common),
        Command::Check { place } => check(Found::of(common, place, environment)?, common),
        Command::Compact { place } => compact(&Access::of(common, place, environment)?, common),
    }
}

fn stat(access: &Access, databases: bool, common: &Common) -> Result<Answer, Failure> {
    let stat: Stat = match access {
        Access::Server(client) => understood(client.get("/api/v1/store/stat")?)?,
        Access::Folder(opened) => opened.maintenance.stat().map_err(told)?,
    };
    common.show(&stat, || print_stat(&stat, databases));
    Ok(Answer::Yes)
}

fn print_stat(stat: &Stat, databases: bool) {
    let kinds: Vec<Vec<String>> = stat
        .kinds
        .iter()
        .map(|kind| {
            vec![
                kind.kind.clone(),
                kind.count.to_string(),
                table::bytes(kind.bytes),
                table::moment(kind.oldest),
                table::moment(kind.newest),
                kind.bytes_per_day.map(table::bytes).unwrap_or_default(),
            ]
        })
        .collect();
    table::print(&["kind", "count", "bytes", "oldest", "newest", "a day"], &kinds, "nothing is stored");
    if databases {
        print_line("");
        let rows: Vec<Vec<String>> = stat
            .databases
            .iter()
            .map(|of| {
                let state = if of.sealed { "sealed" } else { "open" };
                vec![of.name.clone(), of.lane.clone(), state.into(), table::bytes(of.live_bytes), table::bytes(of.disk_bytes)]
            })
            .collect();
        table::print(&["database", "for", "state", "live", "on disk"], &rows, "no databases");
    }
    print_line("");
    let free = stat.free_bytes.map(|bytes| format!(", {} free", table::bytes(bytes))).unwrap_or_default();
    let (live, disk) = (table::bytes(stat.live_bytes), table::bytes(stat.disk_bytes));
    print_line(&format!("{live} live, {disk} on disk ({}){free}", ratio(stat)));
    print_line(&format!("{} databases, engine {}, format {}, commit {}", stat.databases.len(), stat.engine, stat.format, stat.sequence));
    if let Some(failure) = &stat.failure {
        print_line(&format!("nothing can be written: {failure}"));
    }
}

/// How many times what is live is on disk.
fn ratio(stat: &Stat) -> String {
    let tenths = (u128::from(stat.disk_bytes) * 10).checked_div(u128::from(stat.live_bytes)).unwrap_or(0);
    format!("{}.{} times", tenths / 10, tenths % 10)
}

fn check(found: Found, common: &Common) -> Result<Answer, Failure> {
    #[derive(Deserialize)]
    struct Checked {
        damage: Vec<Damage>,
    }
    let progress = Progress::new("check", Unit::Databases);
    let damage = match found {
        Found::Server(client) => follow::<Checked>(&client, "/api/v1/store/check", &progress)?.damage,
        Found::Folder(site, _lock) => app::examine(&site, &mut showing(&progress)).map_err(told)?,
    };
    drop(progress);
    common.show(&json!({"damage": damage}), || {
        for Damage { database, lane, what } in &damage {
            print_line(&format!("database {database} ({lane}): {what}"));
        }
        let said = if damage.is_empty() { "no damage".into() } else { format!("{} found; {ADVICE}", damage.len()) };
        print_line(&said);
    });
    Ok(if damage.is_empty() { Answer::Yes } else { Answer::No })
}

fn compact(access: &Access, common: &Common) -> Result<Answer, Failure> {
    #[derive(Deserialize)]
    struct Compacted {
        before: u64,
        after: u64,
    }
    let progress = Progress::new("compact", Unit::Databases);
    let Compacted { before, after } = match access {
        Access::Server(client) => follow(client, "/api/v1/store/compact", &progress)?,
        Access::Folder(opened) => {
            let bytes = || Ok(opened.maintenance.stat().map_err(told)?.disk_bytes);
            let before = bytes()?;
            opened.maintenance.compact(&mut showing(&progress)).map_err(told)?;
            Compacted { before, after: bytes()? }
        }
    };
    drop(progress);
    common.show(&json!({"before": before, "after": after}), || {
        print_line(&format!("{} on disk before, {} now", table::bytes(before), table::bytes(after)));
    });
    Ok(Answer::Yes)
}

fn showing(progress: &Progress) -> impl FnMut(u64, u64) -> bool {
    |done, of| {
        progress.show(done, of);
        true
    }
}

/// Shows the progress that a server tells, up to the result.
fn follow<T: DeserializeOwned>(client: &ApiClient, path: &str, progress: &Progress) -> Result<T, Failure> {
    let mut result = None;
    for line in BufReader::new(client.read(Method::POST, path)?).lines() {
        let line = line.map_err(|error| Failure::failed(error.to_string()))?;
        let mut line: Value = serde_json::from_str(&line).map_err(|error| not_understood(&error))?;
        if let Some(error) = line["error"].as_str() {
            return Err(Failure::failed(error));
        }
        if line.get("result").is_some() {
            result = Some(line["result"].take());
        } else {
            progress.show(line["done"].as_u64().unwrap_or(0), line["of"].as_u64().unwrap_or(0));
        }
    }
    result.map_or_else(|| Err(Failure::failed("the server's answer ended before its result; its log may say why")), understood)
}

fn understood<T: DeserializeOwned>(answer: Value) -> Result<T, Failure> {
    serde_json::from_value(answer).map_err(|error| not_understood(&error))
}

fn not_understood(error: &serde_json::Error) -> Failure {
    Failure::failed(format!("the server's answer cannot be read: {error}"))
}
