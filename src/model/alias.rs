//! Aliases: commands in chat, as their author wrote them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::model::place::{Place, Spot};

/// A command in chat: what is typed, which action that runs, and how it is answered.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Alias {
    /// `pack.name`.
    pub reference: String,
    /// For people.
    #[serde(default)]
    pub description: String,
    /// Whether it may be used.
    pub enabled: bool,
    /// The action, `pack.name`.
    #[serde(rename = "action_ref")]
    pub action: String,
    /// What is typed.
    pub formats: Vec<Format>,
    /// Whole commands, for people.
    #[serde(default)]
    pub examples: Vec<String>,
    /// What is said when it was heard.
    #[serde(default)]
    pub ack: Ack,
    /// What is said when it has succeeded.
    #[serde(default)]
    pub result: Answer,
    /// Parameters that are always so; who types the command cannot set them.
    #[serde(default, rename = "immutable_parameters")]
    pub immutable: Map<String, Value>,
    /// For the adapters of chat systems, by their kind; never read by the engine.
    #[serde(default)]
    pub extra: BTreeMap<String, Value>,
    /// The alias's file.
    #[serde(skip)]
    pub place: Place,
    /// Where it names its action.
    #[serde(skip)]
    pub action_at: Spot,
}

impl Alias {
    /// A place in the alias's file.
    #[must_use]
    pub fn at(&self, spot: Spot) -> Place {
        Place { file: self.place.file.clone(), line: spot.line as usize, column: spot.column as usize }
    }

    /// The pack it belongs to.
    #[must_use]
    pub fn pack(&self) -> &str {
        self.reference.split('.').next().unwrap_or_default()
    }
}

/// One way to type a command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Format {
    /// What help shows.
    pub display: String,
    /// What is matched: each a regular expression with `{{parameter}}` and `{{parameter=default}}` in it.
    pub representation: Vec<String>,
    /// Whether it is looked for anywhere in a text, and as often as it stands there.
    #[serde(default)]
    pub match_multiple: bool,
    /// Where it stands.
    #[serde(skip)]
    pub at: Spot,
}

/// What is said at once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ack {
    /// Whether anything is.
    pub enabled: bool,
    /// The source of the template; a plain sentence if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// Whether the short id of the execution ends it; absent: only the plain sentence has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub append_url: Option<bool>,
    /// For the adapters of chat systems.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub extra: BTreeMap<String, Value>,
}

impl Default for Ack {
    fn default() -> Self {
        Self { enabled: true, format: None, append_url: None, extra: BTreeMap::new() }
    }
}

/// What is said in the end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// Whether success is told; failures always are.
    pub enabled: bool,
    /// The source of the template; a plain sentence if absent, unless `template` names a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// A file of the pack's folder `templates`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// For the adapters of chat systems.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub extra: BTreeMap<String, Value>,
}

impl Default for Answer {
    fn default() -> Self {
        Self { enabled: true, format: None, template: None, extra: BTreeMap::new() }
    }
}
