//! `signalman bench`: starts a server of its own on a site of its own, loads it from this process, and prints what it measured.
//!
//! [`process`] runs and watches the server, [`load`] makes the load, [`scenarios`] and [`disk`] are what is measured. [`rules`], [`windows`] and [`aliases`] need no
//! server.

pub mod aliases;
pub mod banks;
mod commands;
mod disk;
mod load;
mod process;
mod rules;
mod scenarios;
mod scripts;
mod windows;

use serde_json::{Value, json};

use super::{Answer, Common, Failure, Output, print_line};
use crate::config::Environment;

/// Measures with the load generator on the same machine as the server: on few cores both share them.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// What to measure
    #[arg(value_enum, default_values_t = [Scenario::Idle, Scenario::Accept, Scenario::Arrays, Scenario::Executions, Scenario::Once, Scenario::Latency])]
    scenarios: Vec<Scenario>,
    /// How long each scenario runs
    #[arg(long, default_value_t = 10, value_name = "SECONDS")]
    seconds: u64,
    /// Connections for `accept` and `executions`
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Events a second for `latency`
    #[arg(long, default_value_t = 500)]
    rate: u64,
    /// Give every event an Idempotency-Key, so that each is looked up and remembered
    #[arg(long)]
    keys: bool,
    /// Events for `keep`
    #[arg(long, default_value_t = 10_000_000)]
    events: u64,
    /// Seconds of rest before the data folder is measured in `keep`
    #[arg(long, default_value_t = 60)]
    settle: u64,
}

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Scenario {
    /// Memory and processor of a server that does nothing, and its start
    Idle,
    /// Durable events, one a request
    Accept,
    /// Durable events in arrays of 100 while retention removes older ones; counted after a restart
    Arrays,
    /// Event, rule, script, recorded result; the action is idempotent
    Executions,
    /// The same with an action that is not idempotent: no attempt is started ahead of the threads
    Once,
    /// From sending an event to the first line of its script, at a fixed rate
    Latency,
    /// Durable commits straight to the store, from one task and from 64
    Commits,
    /// What the data folder takes when `--events` have come, 100,000 are kept, and their executions ten times longer
    Keep,
    /// `latency` beside somebody who writes bursts of a gigabyte to the same disk
    Neighbour,
    /// A backup of a gigabyte while events come in
    Backup,
    /// The command line: how long each verb takes that asks a server
    Cli,
    /// Events judged by banks of up to 100,000 rules, without a server
    Rules,
    /// Events counted in a window of a million keys, without a server
    Windows,
    /// Commands of chat among up to 10,000 aliases, without a server
    Commands,
    /// A script of fifty lines on one thread, without a server
    Scripts,
}

impl Scenario {
    fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Accept => "accept",
            Self::Arrays => "arrays",
            Self::Executions => "executions",
            Self::Once => "once",
            Self::Latency => "latency",
            Self::Commits => "commits",
            Self::Keep => "keep",
            Self::Neighbour => "neighbour",
            Self::Backup => "backup",
            Self::Cli => "cli",
            Self::Rules => "rules",
            Self::Windows => "windows",
            Self::Commands => "commands",
            Self::Scripts => "scripts",
        }
    }
}

pub(super) fn run(common: &Common, arguments: &Arguments, _: &Environment) -> Result<Answer, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::failed(format!("cannot start the load generator: {error}")))?;
    let mut all = serde_json::Map::new();
    for scenario in &arguments.scenarios {
        eprintln!("{} …", scenario.name());
        let figures = match scenario {
            Scenario::Commits => disk::commits(common, arguments),
            Scenario::Cli => commands::commands(common),
            Scenario::Rules => rules::rules(arguments),
            Scenario::Windows => windows::windows(arguments),
            Scenario::Commands => aliases::measure(arguments),
            Scenario::Scripts => scripts::scripts(arguments),
            served => runtime.block_on(async {
                match served {
                    Scenario::Idle => scenarios::idle(common, arguments).await,
                    Scenario::Accept => scenarios::accept(common, arguments).await,
                    Scenario::Arrays => scenarios::arrays(common, arguments).await,
                    Scenario::Executions => scenarios::executions(common, arguments, "run").await,
                    Scenario::Once => scenarios::executions(common, arguments, "once").await,
                    Scenario::Latency => scenarios::latency(common, arguments).await,
                    Scenario::Keep => disk::keep(common, arguments).await,
                    Scenario::Neighbour => disk::neighbour(common, arguments).await,
                    Scenario::Backup => disk::backup(common, arguments).await,
                    Scenario::Cli | Scenario::Commits | Scenario::Rules | Scenario::Windows | Scenario::Commands | Scenario::Scripts => {
                        Ok(Value::Null)
                    }
                }
            }),
        };
        let figures = figures.map_err(|error| Failure::failed(format!("{}: {error}", scenario.name())))?;
        show(common, scenario.name(), figures, &mut all);
    }
    let machine = json!({"cores": std::thread::available_parallelism().map_or(1, std::num::NonZero::get)});
    // For people each scenario has been shown when it was done.
    common.show(&json!({"machine": machine, "version": env!("CARGO_PKG_VERSION"), "figures": all}), || {});
    Ok(Answer::Yes)
}

fn show(common: &Common, scenario: &str, figures: Value, all: &mut serde_json::Map<String, Value>) {
    if common.output == Output::Table {
        print_figures(scenario, &figures);
    }
    all.insert(scenario.to_string(), figures);
}

fn print_figures(scenario: &str, figures: &Value) {
    print_line(scenario);
    for (name, value) in figures.as_object().into_iter().flatten() {
        let shown = match value.as_f64() {
            Some(number) if number.fract() != 0.0 => format!("{number:.2}"),
            _ => value.to_string(),
        };
        print_line(&format!("  {name:<28} {shown}"));
    }
}
