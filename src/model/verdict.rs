//! Verdicts: what a rule decided about an event, with the values it saw.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::model::hash::Revision;
use crate::model::ids::ExecutionId;
use crate::model::reason::Reason;

/// At most this many near-misses are stored per event; the rest are counted.
pub const MAX_NEAR_MISSES: usize = 20;

/// One criterion, the value seen, and whether it held.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CriterionVerdict {
    /// The key as written, `trigger.labels.app`.
    pub key: String,
    /// The operator's name as written.
    pub operator: String,
    /// What it was compared with.
    pub pattern: Value,
    /// The value seen; null where there was none.
    pub value: Value,
    /// Whether it held.
    pub held: bool,
    /// Why the operator could not be applied, if so.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
}

/// What one rule decided about one event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// The rule, `pack.name`.
    pub rule: String,
    /// The revision of the rule that decided.
    pub revision: Revision,
    /// Whether the rule matched.
    pub matched: bool,
    /// Why, or why not.
    pub reason: Reason,
    /// Each criterion with the value seen. All are tried, so that one look tells everything.
    pub criteria: Vec<CriterionVerdict>,
    /// More about the reason, such as the error of a guard.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub detail: Option<String>,
}

/// A match or a near-miss, as stored with its event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoredVerdict {
    /// The rule, `pack.name`.
    pub rule: String,
    /// The revision of the rule that decided.
    pub revision: Revision,
    /// Why, or why not.
    pub reason: Reason,
    /// The values of the criteria, in the rule's order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<Value>,
    /// What the match asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution: Option<ExecutionId>,
    /// More about the reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}
