//! Parses the command line and answers with an exit code; nothing else.

use std::process::ExitCode;

/// Many small short-lived values cross threads here; this allocator saves a fifth of the processor time
/// (`docs/decisions/0007-allocator.md`), and counts what each script holds.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    signalman::cli::main(std::env::args_os().collect(), &signalman::config::Environment::of_process())
}
