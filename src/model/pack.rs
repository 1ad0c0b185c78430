//! Packs: a folder of actions, rules, sensors and triggers with capabilities.

use serde_json::{Map, Value};

use crate::model::place::Place;
use crate::model::secret::Masks;

/// A pack, checked.
#[derive(Clone, Debug)]
pub struct Pack {
    /// The folder's name and the first part of every reference.
    pub reference: String,
    /// For people.
    pub name: String,
    /// The version as written.
    pub version: String,
    /// For people.
    pub description: String,
    /// Packs that it needs, and where it says so.
    pub dependencies: Vec<(String, Place)>,
    /// What it may touch.
    pub capabilities: Capabilities,
    /// The site's settings for it, checked and complete.
    pub config: Map<String, Value>,
    /// Hides the values of those that are secret.
    pub masks: Masks,
}

impl Pack {
    /// A pack of that name with nothing in it, which may touch nothing.
    #[must_use]
    pub fn named(reference: &str) -> Self {
        Self {
            reference: reference.into(),
            name: reference.into(),
            version: String::new(),
            description: String::new(),
            dependencies: Vec::new(),
            capabilities: Capabilities::default(),
            config: Map::new(),
            masks: Masks::default(),
        }
    }
}

/// What a pack may touch. Everything else is refused at run time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Capabilities {
    /// Origins that scripts may call: `scheme://host:port`.
    pub http: Vec<String>,
    /// Access to the pack's own keys.
    pub kv: KvAccess,
    /// Packs whose keys may be read.
    pub kv_read: Vec<String>,
    /// Access to the keys that rules see.
    pub kv_system: KvAccess,
    /// Access to the keys of who asks.
    pub kv_user: KvAccess,
    /// Whether it may send to chat.
    pub chat: bool,
}

/// Access to keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KvAccess {
    /// None.
    #[default]
    None,
    /// Reading.
    Read,
    /// Reading and writing.
    ReadWrite,
}
