//! Who asks.

use serde::{Deserialize, Serialize};

/// Who asks for something: a token, a rule, or the engine itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Principal {
    /// The holder of a token, by the token's name.
    Token(String),
    /// A rule, by `pack.name`.
    Rule(String),
}

impl Principal {
    /// The name of the one whose keys `kv.user` are; a rule has none.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        match self {
            Self::Token(name) => Some(name),
            Self::Rule(_) => None,
        }
    }

    /// In words, for people.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Token(name) => format!("token {name}"),
            Self::Rule(rule) => format!("rule {rule}"),
        }
    }
}
