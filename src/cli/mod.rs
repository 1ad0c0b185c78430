//! The command line: one file a subcommand. All that reads or changes a running site goes through its API. Only what concerns the store
//! as a whole works on the data folder as well, when no server has it: [`access`].

mod access;
mod backup;
pub mod bench;
mod chat;
mod client;
mod emit;
mod event;
mod execution;
mod key;
mod lint;
mod progress;
mod reference;
mod reload;
mod restore;
mod rule;
mod run;
mod sensor;
mod serve;
mod store;
mod table;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

use crate::config::Environment;

/// What a command answers with: `0` yes or done, `1` no or failed, `2` misuse or invalid input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Yes, or done.
    Yes,
    /// No, or failed.
    No,
    /// Misuse or invalid input.
    Misuse,
}

impl From<Answer> for ExitCode {
    fn from(answer: Answer) -> Self {
        Self::from(match answer {
            Answer::Yes => 0,
            Answer::No => 1,
            Answer::Misuse => 2,
        })
    }
}

/// Why a command could not answer.
#[derive(Debug)]
pub struct Failure {
    /// What the process answers.
    pub answer: Answer,
    /// What the person is told.
    pub message: String,
}

impl Failure {
    /// The input is wrong.
    pub fn misuse(message: impl Into<String>) -> Self {
        Self { answer: Answer::Misuse, message: message.into() }
    }

    /// It did not work.
    pub fn failed(message: impl Into<String>) -> Self {
        Self { answer: Answer::No, message: message.into() }
    }
}

/// Event-driven `ChatOps` automation: sensors watch, rules decide, packs act.
///
/// Start with `signalman serve` in a site's folder; this repository is one. Then, in a second terminal, `signalman chat --follow`.
#[derive(Debug, Parser)]
#[command(name = "signalman", version, propagate_version = true, max_term_width = 100)]
struct Arguments {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

/// Options that every command takes.
#[derive(Clone, Debug, clap::Args)]
pub struct Common {
    /// The site's folder: signalman.yaml, packs/, rules/
    #[arg(long, global = true, default_value = ".", value_name = "FOLDER")]
    pub site: PathBuf,
    /// The server to talk to; by default the one of the site. The token is read from `SIGNALMAN_TOKEN`, else from the site's data/admin.token
    #[arg(long, global = true, value_name = "URL")]
    pub server: Option<String>,
    /// How to print the answer
    #[arg(long, global = true, value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    Table,
    /// For programs
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the site: API, webhooks, sensors, rules, actions
    Serve(serve::Arguments),
    /// Run an action and wait for its result
    Run(run::Arguments),
    /// Emit an event, as a sensor would
    Emit(emit::Arguments),
    /// Check every file of the site without running anything
    Lint(lint::Arguments),
    /// List, show and explain events
    #[command(subcommand)]
    Event(event::Command),
    /// List, switch, test and explain rules
    #[command(subcommand)]
    Rule(rule::Command),
    /// List, show and cancel executions
    #[command(subcommand)]
    Execution(execution::Command),
    /// List and change the keys that rules see as `kv.system`
    #[command(subcommand)]
    Key(key::Command),
    /// List and show sensors, and how they do
    #[command(subcommand)]
    Sensor(sensor::Command),
    /// Read the site's files again, in a server that runs; faulty ones change nothing
    Reload,
    /// Show what the bot says, live
    Chat(chat::Arguments),
    /// Write everything that is stored into one file, also while the server runs
    Backup(backup::Arguments),
    /// Put what a backup holds into the data folder, while no server has it
    Restore(restore::Arguments),
    /// Show how much is stored, look for damage, give back space
    #[command(subcommand)]
    Store(store::Command),
    /// Measure this machine: throughput, latency, memory
    Bench(bench::Arguments),
    /// Print a page of the reference, generated from the code
    #[command(hide = true)]
    Reference(reference::Arguments),
}

/// Runs a command line.
#[must_use]
pub fn main(arguments: Vec<std::ffi::OsString>, environment: &Environment) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            let answer = if error.use_stderr() { Answer::Misuse } else { Answer::Yes };
            let _ = error.print(); // a closed output: nobody reads it
            return answer.into();
        }
    };
    crate::telemetry::log_panics();
    let common = &arguments.common;
    let outcome = match arguments.command {
        Command::Serve(arguments) => serve::run(common, &arguments, environment),
        Command::Run(arguments) => run::run(common, &arguments, environment),
        Command::Emit(arguments) => emit::run(common, &arguments, environment),
        Command::Lint(arguments) => lint::run(common, &arguments, environment),
        Command::Event(command) => event::run(common, command, environment),
        Command::Rule(command) => rule::run(common, command, environment),
        Command::Execution(command) => execution::run(common, command, environment),
        Command::Key(command) => key::run(common, command, environment),
        Command::Sensor(command) => sensor::run(common, command, environment),
        Command::Reload => reload::run(common, environment),
        Command::Chat(arguments) => chat::run(common, &arguments, environment),
        Command::Backup(arguments) => backup::run(common, &arguments, environment),
        Command::Restore(arguments) => restore::run(common, &arguments, environment),
        Command::Store(command) => store::run(common, &command, environment),
        Command::Bench(arguments) => bench::run(common, &arguments, environment),
        Command::Reference(arguments) => Ok(reference::run(&arguments)),
    };
    match outcome {
        Ok(answer) => answer.into(),
        Err(failure) => {
            let (red, plain) = if std::io::stderr().is_terminal() { ("\x1b[31m", "\x1b[0m") } else { ("", "") };
            eprintln!("{red}error:{plain} {}", printable(&failure.message));
            failure.answer.into()
        }
    }
}

/// The command line's definition, for the reference and for completions.
#[must_use]
pub fn definition() -> clap::Command {
    <Arguments as clap::CommandFactory>::command()
}

/// Prints a line; a reader that has gone ends the output quietly.
pub(crate) fn print_line(text: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stdout().lock(), "{}", printable(text)); // `| head` closes the pipe: that is no failure
}

/// Without control characters: data must not steer the terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c }).collect()
}

/// Prints a value as JSON.
pub(crate) fn print_json(value: &impl serde::Serialize) {
    print_line(&serde_json::to_string_pretty(value).unwrap_or_default());
}
