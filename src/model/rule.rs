//! Rules: when this trigger, and these criteria hold, run that action with these parameters.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::model::duration;
use crate::model::hash::Revision;
use crate::model::name::{Name, Names};
use crate::model::place::{Place, Spot};

/// A rule as its author wrote it, checked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Rule {
    /// `pack.name`.
    pub reference: Name,
    /// For people.
    #[serde(default)]
    pub description: Box<str>,
    /// Whether it is tried at all.
    pub enabled: bool,
    /// Whether a match runs something.
    pub mode: Mode,
    /// The trigger, `pack.name`.
    pub trigger: Name,
    /// Payload fields that must equal these values.
    #[serde(default)]
    pub trigger_parameters: Box<[(String, Value)]>,
    /// The criteria, in the order of the file.
    pub criteria: Box<[Criterion]>,
    /// How many of the criteria must hold; all if absent.
    #[serde(default)]
    pub at_least: Option<u32>,
    /// The guard: an expression that must be true.
    #[serde(default)]
    pub when: Option<Box<Source<String>>>,
    /// Whether it is tried only where no other rule of its trigger matched.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub backstop: bool,
    /// How often, or for how long not at all, it must hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Box<Window>>,
    /// How far apart its executions are at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttle: Option<Box<Throttle>>,
    /// How far behind the newest event of its key an event may lie and still count in its window.
    #[serde(default = "default_late", skip_serializing_if = "is_default_late", with = "duration::text")]
    pub late: Duration,
    /// Executions in a minute at most.
    #[serde(default = "default_ceiling", skip_serializing_if = "is_default_ceiling")]
    pub ceiling: u32,
    /// The action, `pack.name`.
    pub action: Name,
    /// Its parameters, with templates and expressions.
    pub parameters: Box<[(Name, Source<Value>)]>,
    /// Whom to tell about the outcome.
    #[serde(default)]
    pub notify: Option<Box<Source<Notify>>>,
    /// Its file, relative to the site folder; empty where there is none.
    #[serde(skip, default = "no_file")]
    pub file: Arc<str>,
    /// Where its action stands in the file.
    #[serde(skip)]
    pub action_at: Spot,
    /// Where its trigger stands.
    #[serde(skip)]
    pub trigger_at: Spot,
}

impl Rule {
    /// The revision: equal for equal content, wherever it stands.
    #[must_use]
    pub fn revision(&self) -> Revision {
        Revision::of(self)
    }

    /// A place in its file.
    #[must_use]
    pub fn place(&self, at: Spot) -> Place {
        Place { file: Arc::clone(&self.file), line: at.line as usize, column: at.column as usize }
    }

    /// How many of the criteria must hold.
    #[must_use]
    pub fn needed(&self) -> usize {
        self.at_least.map_or(self.criteria.len(), |count| count as usize)
    }

    /// Shares with others the names that rules have in common.
    pub fn share(&mut self, names: &mut Names) {
        let of_criteria = self.criteria.iter_mut().map(|criterion| &mut criterion.key);
        let of_parameters = self.parameters.iter_mut().map(|(name, _)| name);
        for name in of_criteria.chain(of_parameters).chain([&mut self.trigger, &mut self.action]) {
            names.share(name);
        }
    }
}

fn no_file() -> Arc<str> {
    Arc::default()
}

/// What an author wrote, and where.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Source<T> {
    /// The text or value.
    pub value: T,
    /// Where in the rule's file, for errors; not part of the revision.
    #[serde(skip)]
    pub at: Spot,
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
    pub key: Name,
    /// The operator.
    pub operator: Operator,
    /// What to compare with; may hold templates and expressions. For `search` the criteria on the items, by key.
    pub pattern: Value,
    /// Which items of a list must pass which criteria; of `search` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<Condition>,
}

/// Which items of a list must pass which criteria of a `search`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// Some item passes all.
    Any,
    /// Every item passes all.
    All,
    /// Some item passes one.
    Any2any,
    /// Every item passes one.
    All2any,
}

impl Condition {
    /// Every name that a rule may use.
    pub const NAMES: &'static [&'static str] = &["any", "all", "any2any", "all2any"];

    /// The condition of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "any" => Self::Any,
            "all" => Self::All,
            "any2any" => Self::Any2any,
            "all2any" => Self::All2any,
            _ => return None,
        })
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::All => "all",
            Self::Any2any => "any2any",
            Self::All2any => "all2any",
        }
    }
}

/// An event so far behind the newest of its key does not count, unless the rule says otherwise.
pub const DEFAULT_LATE: Duration = Duration::from_secs(60);

/// Executions of a rule in a minute at most, unless it says otherwise.
pub const DEFAULT_CEILING: u32 = 1_000;

fn default_late() -> Duration {
    DEFAULT_LATE
}

fn is_default_late(late: &Duration) -> bool {
    *late == DEFAULT_LATE
}

fn default_ceiling() -> u32 {
    DEFAULT_CEILING
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_default_ceiling(ceiling: &u32) -> bool {
    *ceiling == DEFAULT_CEILING
}

/// How often, or for how long not at all, a rule must hold before it runs something; for each key by itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Window {
    /// What is waited for.
    #[serde(flatten)]
    pub kind: WindowKind,
    /// What tells one key from another; without it there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Source<String>>,
}

/// What a window waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WindowKind {
    /// So many events that hold.
    Count {
        /// How many.
        count: u32,
        /// The newest less than so much later than the oldest.
        #[serde(with = "duration::text")]
        within: Duration,
        /// Whether one that does not hold begins anew.
        consecutive: bool,
    },
    /// No event for so long.
    Absent {
        /// For how long.
        #[serde(with = "duration::text")]
        after: Duration,
        /// Keys that are waited for from the start on.
        keys: Vec<String>,
    },
}

/// How far apart the executions of a rule are at least; for each key by itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Throttle {
    /// How far.
    #[serde(with = "duration::text")]
    pub once_per: Duration,
    /// What tells one key from another; without it there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Source<String>>,
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
        #[serde(rename_all = "snake_case")]
        pub enum Operator { $(#[doc = $meaning] $name,)* }

        impl Operator {
            /// Every operator.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Every name that a rule may use.
            pub const NAMES: &'static [&'static str] = &[$($canonical, $($alias,)*)*];

            /// The operator of that name, whatever its case.
            #[must_use]
            pub fn named(name: &str) -> Option<Self> {
                match name.to_ascii_lowercase().as_str() { $($canonical $(| $alias)* => Some(Self::$name),)* _ => None }
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
    Iequals: "iequals" | "ieq", "The texts are equal, whatever the case of their letters.";
    Contains: "contains", "The text, list or object holds the pattern.";
    Ncontains: "ncontains", "The text, list or object does not hold the pattern.";
    Icontains: "icontains", "The text holds the pattern, whatever the case.";
    Incontains: "incontains", "The text does not hold the pattern, whatever the case.";
    Startswith: "startswith", "The text begins with the pattern.";
    Istartswith: "istartswith", "The text begins with the pattern, whatever the case.";
    Endswith: "endswith", "The text ends with the pattern.";
    Iendswith: "iendswith", "The text ends with the pattern, whatever the case.";
    Greaterthan: "greaterthan" | "gt", "The value is greater.";
    Lessthan: "lessthan" | "lt", "The value is less.";
    Matchwildcard: "matchwildcard", "The whole text fits the pattern of a shell: `*`, `?`, `[seq]`, `[!seq]`.";
    Regex: "regex", "The regular expression is found in the text.";
    Iregex: "iregex", "The regular expression is found in the text, whatever the case.";
    Matchregex: "matchregex", "The regular expression fits at the beginning of the text; `.` fits a new line too.";
    TimediffLt: "timediff_lt" | "td_lt", "The time lies fewer seconds back than the pattern.";
    TimediffGt: "timediff_gt" | "td_gt", "The time lies more seconds back than the pattern.";
    Exists: "exists", "The value is there and not null.";
    Nexists: "nexists", "The value is missing or null.";
    Inside: "inside" | "in", "The value is one of the pattern's items, or a part of its text.";
    Ninside: "ninside" | "nin", "The value is none of the pattern's items, and no part of its text.";
    Search: "search", "Items of the list pass criteria of their own.";
}
