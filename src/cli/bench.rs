//! placeholder
use super::{Answer, Common, Failure};
use crate::config::Environment;
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {}
pub(super) fn run(_: &Common, _: &Arguments, _: &Environment) -> Result<Answer, Failure> {
    Ok(Answer::Yes)
}
