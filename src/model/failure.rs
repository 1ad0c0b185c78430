//! Why something could not be done: a reason, words, and whether trying again makes sense.

use crate::model::reason::Reason;

/// A failure on the way to the outside, or of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The reason that the execution will have.
    pub reason: Reason,
    /// For people.
    pub message: String,
    /// Whether another attempt could go better.
    pub retry: bool,
}

impl Failure {
    /// The caller did something that can never work.
    #[must_use]
    pub fn misuse(message: impl Into<String>) -> Self {
        Self { reason: Reason::ActionFailed, message: message.into(), retry: false }
    }

    /// The pack may not do that; `line` is what to add to its `pack.yaml`.
    #[must_use]
    pub fn capability(pack: &str, what: &str, line: &str) -> Self {
        let message = format!("pack `{pack}` may not {what}; to allow it, add `{line}` under `capabilities` in packs/{pack}/pack.yaml");
        Self { reason: Reason::CapabilityMissing, message, retry: false }
    }

    /// The engine could not do what was asked.
    #[must_use]
    pub fn engine(message: impl Into<String>) -> Self {
        Self { reason: Reason::StoreUnavailable, message: message.into(), retry: true }
    }
}
