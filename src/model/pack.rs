//! Packs: a folder of actions, rules, sensors and triggers with capabilities.

use semver::VersionReq;
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
    /// Packs that it needs.
    pub dependencies: Vec<Dependency>,
    /// What it may touch.
    pub capabilities: Capabilities,
    /// The site's settings for it, checked and complete.
    pub config: Map<String, Value>,
    /// Hides the values of those that are secret.
    pub masks: Masks,
}

/// A pack that another needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Dependency {
    /// Its name.
    pub name: String,
    /// Which versions will do; any if absent.
    pub version: Option<VersionReq>,
    /// Where it is asked for.
    pub place: Place,
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
    /// Programs that its scripts may run: a name, found in the usual folders, or an absolute path.
    pub process: Vec<String>,
    /// Actions that its scripts may run: `pack.name`, with `*` for any part of a name.
    pub actions: Vec<String>,
}

impl Capabilities {
    /// Whether scripts may run that action.
    #[must_use]
    pub fn allow_action(&self, action: &str) -> bool {
        self.actions.iter().any(|pattern| fits(pattern, action))
    }
}

/// Whether a name fits a pattern in which `*` stands for any text.
fn fits(pattern: &str, name: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut left) = name.strip_prefix(start) else { return false };
    let (middle, end) = rest.rsplit_once('*').map_or((None, rest), |(middle, end)| (Some(middle), end));
    for part in middle.into_iter().flat_map(|middle| middle.split('*')) {
        let Some(found) = left.find(part) else { return false };
        left = &left[found + part.len()..];
    }
    left.ends_with(end)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_grants_what_it_says_and_no_more() {
        for (pattern, name, granted) in [
            ("core.notify", "core.notify", true),
            ("core.notify", "core.notify2", false),
            ("core.*", "core.notify", true),
            ("core.*", "corex.notify", false),
            ("*", "any.thing", true),
            ("*.get", "shop.get", true),
            ("*.get", "shop.getter", false),
            ("a*b*c", "a.b.c", true),
            ("a*b*c", "a.c", false),
            ("ab*ba", "aba", false),
        ] {
            let capabilities = Capabilities { actions: vec![pattern.into()], ..Capabilities::default() };
            assert_eq!(capabilities.allow_action(name), granted, "{pattern} {name}");
        }
    }
}
