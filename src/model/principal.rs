//! Who asks.

use serde::{Deserialize, Serialize};

use crate::model::ids::ExecutionId;

/// Who asks for something: a token, a rule, or a script of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Principal {
    /// The holder of a token, by the token's name.
    Token(String),
    /// A rule, by `pack.name`.
    Rule(String),
    /// An execution whose script asked for another one.
    Execution(ExecutionId),
}

impl Principal {
    /// The name of the one whose keys `kv.user` are; a rule has none.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        match self {
            Self::Token(name) => Some(name),
            Self::Rule(_) | Self::Execution(_) => None,
        }
    }

    /// In words, for people.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Token(name) => format!("token {name}"),
            Self::Rule(rule) => format!("rule {rule}"),
            Self::Execution(id) => format!("execution {}", id.short()),
        }
    }
}
