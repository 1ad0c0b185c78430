//! What a pack's folder may hold: the kinds of files, one folder each, as a list of peers.
//!
//! A kind is its own file with a [`Kind`], one line in [`KINDS`], and where it makes something, a field of [`Contents`] and of
//! [`Site`](super::Site). The walk in `site` knows none of them by name.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono_tz::Tz;

use super::{Site, action, alias, policy, rule, sensor, template, test, trigger, workflow};
use crate::chat::grammar::book::CompiledAlias;
use crate::config::Reader;
use crate::document::fault::SourceFile;
use crate::document::fields::Faults;
use crate::document::node::{self, Node};
use crate::gates::CompiledPolicy;
use crate::model::action::Action;
use crate::model::name::Names;
use crate::model::pack::Pack;
use crate::model::sensor::{SensorDefinition, Trigger};
use crate::rule::book::CompiledRule;
use crate::template::message::MessageTemplate;

/// Every kind, in the order of reading.
pub(super) const KINDS: &[&Kind] = &[
    &action::KIND,
    &trigger::KIND,
    &sensor::KIND,
    &rule::KIND,
    &policy::KIND,
    &template::KIND,
    &alias::KIND,
    &test::KIND,
    &workflow::KIND,
];

/// One kind of files.
pub(super) struct Kind {
    /// Its folder in a pack.
    pub folder: &'static str,
    /// One of them, for messages: `an action`.
    pub one: &'static str,
    /// How its files end. Two files of one name are refused, also in two folders: the file's name is the thing's name.
    pub extensions: &'static [&'static str],
    /// Whether the site's own folder of that name is read as well; what it holds belongs to the pack `default`.
    pub at_site: bool,
    /// Reads one file: what it makes goes to `contents`, what is wrong with it to `faults`.
    pub read: fn(&PackFile, &mut Reading<'_>),
    /// After all packs were read: checks that what these files refer to is there.
    pub check: fn(&Site, &Path, &mut Faults),
}

impl Kind {
    /// A kind of YAML files.
    pub const fn yaml(folder: &'static str, one: &'static str, read: fn(&PackFile, &mut Reading<'_>)) -> Self {
        Self { folder, one, extensions: &["yaml", "yml"], at_site: false, read, check: |_, _, _| {} }
    }
}

/// A file of a kind.
pub(super) struct PackFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its name without the ending: the name of the thing.
    pub stem: String,
    /// Its text.
    pub source: SourceFile,
}

impl PackFile {
    /// The file as YAML; a fault if it is none.
    pub fn yaml(&self, faults: &mut Faults) -> Option<Node> {
        node::parse(&self.source).map_err(|fault| faults.push(fault)).ok()
    }
}

/// What a file is read with.
pub(super) struct Reading<'r> {
    /// The site's folder.
    pub root: &'r Path,
    /// The pack that the file belongs to, its settings checked.
    pub pack: &'r Arc<Pack>,
    /// For secrets.
    pub reader: &'r Reader<'r>,
    /// The site's time zone.
    pub time_zone: Tz,
    /// Names that many rules bear.
    pub names: &'r mut Names,
    /// What is wrong.
    pub faults: &'r mut Faults,
    /// What was read.
    pub contents: &'r mut Contents,
}

/// What files made.
#[derive(Clone, Default)]
pub(super) struct Contents {
    pub actions: Vec<Arc<Action>>,
    pub triggers: Vec<Trigger>,
    pub sensors: Vec<SensorDefinition>,
    pub rules: Vec<Arc<CompiledRule>>,
    pub policies: Vec<Arc<CompiledPolicy>>,
    pub templates: Vec<MessageTemplate>,
    pub aliases: Vec<Arc<CompiledAlias>>,
}

impl Contents {
    /// Puts it where the site has it, by name.
    pub fn join(self, site: &mut Site) {
        site.actions.extend(self.actions.into_iter().map(|action| (action.reference.clone(), action)));
        site.triggers.extend(self.triggers.into_iter().map(|trigger| (trigger.reference.clone(), trigger)));
        site.sensors.extend(self.sensors);
        site.rules.extend(self.rules);
        site.policies.extend(self.policies);
        site.aliases.extend(self.aliases);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_kinds_share_a_folder() {
        for (index, kind) in KINDS.iter().enumerate() {
            assert!(KINDS[..index].iter().all(|other| other.folder != kind.folder), "{}", kind.folder);
            assert!(!kind.extensions.is_empty() && !kind.one.is_empty(), "{}", kind.folder);
        }
    }
}
