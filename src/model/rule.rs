//! Rules: when this trigger, and these criteria hold, run that action with these parameters.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::model::hash::Revision;
use crate::model::place::Place;

/// A rule as its author wrote it, checked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Rule {
    /// `pack.name`.
    pub reference: String,
    /// For people.
    #[serde(default)]
    pub description: String,
    /// Whether it is tried at all.
    pub enabled: bool,
    /// Whether a match runs something.
    pub mode: Mode,
    /// The trigger, `pack.name`.
    pub trigger: String,
    /// Payload fields that must equal these values.
    #[serde(default)]
    pub trigger_parameters: Vec<(String, Value)>,
    /// The criteria, in the order of the file.
    pub criteria: Vec<Criterion>,
    /// How many of the criteria must hold; all if absent.
    #[serde(default)]
    pub at_least: Option<usize>,
    /// The guard: an expression that must be true.
    #[serde(default)]
    pub when: Option<Source<String>>,
    /// The action, `pack.name`.
    pub action: String,
    /// Its parameters, with templates and expressions.
    pub parameters: Vec<(String, Source<Value>)>,
    /// Whom to tell about the outcome.
    #[serde(default)]
    pub notify: Option<Notify>,
    /// Where its action stands.
    #[serde(skip)]
    pub place: Place,
    /// Where its trigger stands.
    #[serde(skip)]
    pub trigger_place: Place,
    /// Where its notice stands.
    #[serde(skip)]
    pub notify_place: Place,
}

impl Rule {
    /// The revision: equal for equal content, wherever it stands.
    #[must_use]
    pub fn revision(&self) -> Revision {
        Revision::of(self)
    }
}

/// What an author wrote, and where.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Source<T> {
    /// The text or value.
    pub value: T,
    /// The place, for errors; not part of the revision.
    #[serde(skip)]
    pub place: Place,
}

/// Whether a match runs something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// The action is requested.
    Active,
    /// The verdict is kept, nothing runs.
    Shadow,
}

/// One test on one field of the payload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Criterion {
    /// The key as written.
    pub key: String,
    /// The operator.
    pub operator: Operator,
    /// What to compare with.
    pub pattern: Value,
}

/// Whom to tell about the outcome of what a rule ran.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Notify {
    /// The name of the channel.
    pub channel: String,
    /// For which outcomes.
    pub on: Vec<Outcome>,
}

/// How an execution ended, as far as notices care.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It did what it should.
    Succeeded,
    /// It failed, timed out or was abandoned.
    Failed,
}

macro_rules! operators {
    ($($name:ident: $canonical:literal $(| $alias:literal)*, $meaning:literal;)*) => {
        /// How a value is compared. Names and meaning are those of `StackStorm` (`st2common/operators.py`).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "lowercase")]
        pub enum Operator { $(#[doc = $meaning] $name,)* }

        impl Operator {
            /// Every operator.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Every name that a rule may use.
            pub const NAMES: &'static [&'static str] = &[$($canonical, $($alias,)*)*];

            /// The operator of that name.
            #[must_use]
            pub fn named(name: &str) -> Option<Self> {
                match name { $($canonical $(| $alias)* => Some(Self::$name),)* _ => None }
            }

            /// The name shown to people.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $canonical,)* }
            }
        }
    };
}

operators! {
    Equals: "equals" | "eq", "The value equals the pattern; types are not converted.";
    Nequals: "nequals" | "neq", "The value differs from the pattern, or is missing.";
    Contains: "contains", "The text, list or object holds the pattern.";
    Greaterthan: "greaterthan" | "gt", "The value is greater.";
    Lessthan: "lessthan" | "lt", "The value is less.";
    Regex: "regex", "The regular expression is found in the text.";
    Exists: "exists", "The value is there and not null.";
    Nexists: "nexists", "The value is missing or null.";
}
