//! `signalman completions SHELL`: a script that completes commands, options and their values.

use super::{Answer, definition, print_raw_text};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// For which shell
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

pub(super) fn run(arguments: &Arguments) -> Answer {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut definition(), "signalman", &mut script);
    print_raw_text(&String::from_utf8_lossy(&script));
    Answer::Yes
}
