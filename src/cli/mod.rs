//! The command line: one file a subcommand. All that reads or changes a running site goes through its API. Only what concerns the store
//! as a whole works on the data folder as well, when no server has it: [`access`].

mod access;
mod action;
mod alias;
mod backup;
pub mod bench;
mod chat;
mod client;
mod completions;
mod doctor;
mod emit;
mod event;
mod execution;
mod hold;
mod key;
mod lint;
mod man;
mod offline;
pub mod overview;
mod pack;
mod print;
mod progress;
mod reference;
mod reload;
mod restore;
mod rule;
mod run;
mod schema;
mod secret;
mod sensor;
mod serve;
mod store;
mod table;
mod tail;
mod token;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::config::Environment;

use print::{Color, print_error, print_raw_text};
pub(crate) use print::{print_json, print_line, printable};

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
    /// When to colour; `NO_COLOR` in the environment means never
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto, value_name = "WHEN")]
    pub color: Color,
}

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    Table,
    /// For programs
    Json,
    /// For programs and people
    Yaml,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the site: API, webhooks, sensors, rules, actions
    #[command(after_help = "Examples:\n  signalman serve\n  signalman --site /srv/site serve --listen 127.0.0.1:9000")]
    Serve(serve::Arguments),
    /// Run an action and wait for its result
    #[command(
        after_help = "Examples:\n  signalman run core.echo text=hi\n  signalman run core.notify channel=ops text=hello --output json\n  signalman run core.echo text=hi --detach"
    )]
    Run(run::Arguments),
    /// Emit an event, as a sensor would
    #[command(
        after_help = "Examples:\n  signalman emit core.webhook app=shop n:=90 --key shop\n  signalman emit core.webhook --payload '{\"app\": \"shop\"}' --dedup-key order-7"
    )]
    Emit(emit::Arguments),
    /// Check every file of the site without running anything
    #[command(after_help = "Examples:\n  signalman lint\n  signalman --site /srv/site lint --strict --output json")]
    Lint(lint::Arguments),
    /// List, show and explain events
    #[command(subcommand)]
    Event(event::Command),
    /// List and show actions: what can be done
    #[command(subcommand)]
    Action(action::Command),
    /// List, switch, test and explain rules
    #[command(subcommand)]
    Rule(rule::Command),
    /// List, show and cancel executions
    #[command(subcommand)]
    Execution(execution::Command),
    /// List the commands of chat, and try what one means
    #[command(subcommand)]
    Alias(alias::Command),
    /// Hold all automatic executions: what rules ask for is kept in order, until `release`
    #[command(after_help = "Examples:\n  signalman hold the switch in rack 4 is being replaced\n  signalman hold --show")]
    Hold(hold::Arguments),
    /// Let automatic executions go; what was held starts, in order
    #[command(after_help = "Example:\n  signalman release")]
    Release,
    /// List and change the keys of the datastore; rules see those of the system as `kv.system`
    #[command(subcommand)]
    Key(key::Command),
    /// Set, list and delete secrets, and change the key that seals them
    #[command(subcommand)]
    Secret(secret::Command),
    /// Make, list and revoke tokens for the API
    #[command(subcommand)]
    Token(token::Command),
    /// List and show sensors, and how they do
    #[command(subcommand)]
    Sensor(sensor::Command),
    /// Begin and test packs
    #[command(subcommand)]
    Pack(pack::Command),
    /// Read the site's files again, in a server that runs; faulty ones change nothing
    #[command(after_help = "Example:\n  signalman reload")]
    Reload,
    /// Print the JSON Schema of a kind of file, for editors; alone, list the kinds
    #[command(after_help = "Examples:\n  signalman schema\n  signalman schema rule > .vscode/rule.schema.json")]
    Schema(schema::Arguments),
    /// Talk with the bot, or show what it says, live
    #[command(after_help = "Examples:\n  signalman chat\n  signalman chat '!echo hello'\n  signalman chat --follow --channel ops")]
    Chat(chat::Arguments),
    /// Write everything that is stored into one file, also while the server runs
    #[command(after_help = "Examples:\n  signalman backup monday.backup\n  signalman backup - | gzip > monday.backup.gz")]
    Backup(backup::Arguments),
    /// Put what a backup holds into the data folder, while no server has it
    #[command(
        after_help = "Examples:\n  signalman restore monday.backup --replace\n  gunzip < monday.backup.gz | signalman restore - --data other"
    )]
    Restore(restore::Arguments),
    /// Show how much is stored, look for damage, give back space
    #[command(subcommand)]
    Store(store::Command),
    /// Look at everything that the site needs: files, server, clock, disk, permissions, limits
    #[command(after_help = "Examples:\n  signalman doctor\n  signalman --site /srv/site doctor --output json")]
    Doctor,
    /// Measure this machine: throughput, latency, memory
    #[command(after_help = "Examples:\n  signalman bench\n  signalman bench accept latency --seconds 30 --output json")]
    Bench(bench::Arguments),
    /// Print a script that completes commands and options in a shell
    #[command(
        after_help = "Examples:\n  signalman completions bash > ~/.local/share/bash-completion/completions/signalman\n  signalman completions zsh > ~/.zfunc/_signalman\n  signalman completions fish > ~/.config/fish/completions/signalman.fish"
    )]
    Completions(completions::Arguments),
    /// Print the manual page, or write that of every command
    #[command(after_help = "Examples:\n  signalman man | man -l -\n  signalman man --folder man1")]
    Man(man::Arguments),
    /// Print a page of the reference, generated from the code
    #[command(hide = true)]
    Reference(reference::Arguments),
}

/// Runs a command line.
#[must_use]
pub fn main(arguments: Vec<std::ffi::OsString>, environment: &Environment) -> ExitCode {
    if arguments.len() <= 1 {
        eprintln!("{}", overview::text());
        return Answer::Misuse.into();
    }
    let color = Color::before_reading(&arguments);
    let read = definition().color(color.into()).try_get_matches_from(arguments);
    let arguments = match read.and_then(|matches| Arguments::from_arg_matches(&matches)) {
        Ok(arguments) => arguments,
        Err(error) => {
            let answer = if error.use_stderr() { Answer::Misuse } else { Answer::Yes };
            let _ = error.print(); // a closed output: nobody reads it
            return answer.into();
        }
    };
    crate::telemetry::log_panics();
    let common = &arguments.common;
    print::prepare(common.color, environment);
    let outcome = match arguments.command {
        Command::Serve(arguments) => serve::run(common, &arguments, environment),
        Command::Run(arguments) => run::run(common, &arguments, environment),
        Command::Emit(arguments) => emit::run(common, &arguments, environment),
        Command::Lint(arguments) => lint::run(common, &arguments, environment),
        Command::Event(command) => event::run(common, command, environment),
        Command::Action(command) => action::run(common, command, environment),
        Command::Rule(command) => rule::run(common, command, environment),
        Command::Execution(command) => execution::run(common, command, environment),
        Command::Alias(command) => alias::run(common, command, environment),
        Command::Hold(arguments) => hold::run(common, &arguments, environment),
        Command::Release => hold::release(common, environment),
        Command::Key(command) => key::run(common, command, environment),
        Command::Secret(command) => secret::run(common, &command, environment),
        Command::Token(command) => token::run(common, &command, environment),
        Command::Sensor(command) => sensor::run(common, command, environment),
        Command::Pack(command) => pack::run(common, &command),
        Command::Schema(arguments) => schema::run(common, &arguments),
        Command::Reload => reload::run(common, environment),
        Command::Chat(arguments) => chat::run(common, &arguments, environment),
        Command::Backup(arguments) => backup::run(common, &arguments, environment),
        Command::Restore(arguments) => restore::run(common, &arguments, environment),
        Command::Store(command) => store::run(common, &command, environment),
        Command::Doctor => doctor::run(common, environment),
        Command::Completions(arguments) => Ok(completions::run(&arguments)),
        Command::Man(arguments) => man::run(&arguments),
        Command::Bench(arguments) => bench::run(common, &arguments, environment),
        Command::Reference(arguments) => Ok(reference::run(&arguments)),
    };
    match outcome {
        Ok(answer) => answer.into(),
        Err(failure) => {
            print_error(&failure.message);
            failure.answer.into()
        }
    }
}

/// The command line's definition, for the reference and for completions.
#[must_use]
pub fn definition() -> clap::Command {
    Arguments::command()
}
