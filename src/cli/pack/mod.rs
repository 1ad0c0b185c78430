//! `signalman pack`: what the authors of packs do.

mod new;
mod test;
mod watch;

use super::{Answer, Common, Failure};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Write a small pack that is complete, checked and tested, to be changed into what is wanted
    #[command(after_help = "Examples:\n  signalman pack new shop\n  signalman --site /srv/site pack new shop")]
    New(new::Arguments),
    /// Play the tests of packs on the engine itself, in simulated time and without a network
    #[command(
        after_help = "Examples:\n  signalman pack test\n  signalman pack test packs/core --case echo\n  signalman pack test core --fail-fast --output json\n  signalman pack test --junit report.xml"
    )]
    Test(test::Arguments),
}

pub(super) fn run(common: &Common, command: &Command) -> Result<Answer, Failure> {
    match command {
        Command::New(arguments) => new::run(common, arguments),
        Command::Test(arguments) => test::run(common, arguments),
    }
}
