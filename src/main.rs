//! Parses the command line and answers with an exit code; nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    signalman::cli::main(std::env::args_os().collect(), &signalman::config::Environment::of_process())
}
