//! Policies: limits laid on an action, wherever it is asked for.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::hash::Revision;
use crate::model::place::Place;

/// The most executions that a policy lets run at once.
pub const MAX_AT_ONCE: u64 = 100_000;

/// The most starts, or failures, that a policy counts; each is remembered.
pub const MAX_COUNTED: u64 = 1_000;

/// The longest span that a policy looks back, or ahead.
pub const MAX_SPAN: Duration = Duration::from_secs(86_400);

/// The longest key of a policy, in bytes.
pub const MAX_KEY_BYTES: usize = 256;

/// Keys that one policy remembers at once; an execution of a further one is canceled.
pub const MAX_KEYS: usize = 100_000;

/// A limit laid on an action.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Policy {
    /// `pack.name`.
    pub reference: String,
    /// For people.
    #[serde(default)]
    pub description: String,
    /// Whether it counts.
    pub enabled: bool,
    /// The action, `pack.name`.
    pub resource: String,
    /// What it limits.
    pub limit: Limit,
    /// What tells one key from another, a template over `parameters`; one key for all if absent.
    #[serde(default)]
    pub by: Option<String>,
    /// What becomes of an execution that it stops.
    pub action: OnReached,
    /// The policy's file.
    #[serde(skip)]
    pub place: Place,
}

impl Policy {
    /// Equal for policies that count alike; what is remembered of one that counts otherwise means nothing.
    #[must_use]
    pub fn definition(&self) -> Revision {
        Revision::of(&(&self.resource, self.limit, &self.by))
    }
}

/// What a policy limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// How many run at once.
    Concurrency {
        /// So many at most.
        threshold: u32,
    },
    /// How many start within a span, wherever it begins.
    Rate {
        /// So many at most.
        limit: u32,
        /// The span.
        #[serde(with = "crate::model::duration::text")]
        per: Duration,
    },
    /// Whether any run after too many have failed.
    CircuitBreaker {
        /// So many failures open it.
        failures: u32,
        /// If they happen within this span.
        #[serde(with = "crate::model::duration::text")]
        within: Duration,
        /// For how long nothing starts then; after that one is tried.
        #[serde(with = "crate::model::duration::text")]
        open_for: Duration,
    },
}

/// What becomes of an execution that may not start now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnReached {
    /// It waits for its turn.
    Delay,
    /// It is canceled.
    Cancel,
}
