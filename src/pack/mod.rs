//! A site's folder, read: packs, actions, triggers, sensors and rules, with all faults of all files at once.
//!
//! Start at [`load`]. Reads files; never runs anything.

mod action;
pub mod alias;
mod capabilities;
mod dependencies;
pub mod files;
mod kinds;
mod manifest;
mod parameter;
mod policy;
pub mod rule;
pub mod schema;
mod sensor;
mod site;
mod template;
pub mod test;
mod timers;
mod trigger;
mod workflow;
mod window;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use crate::chat::grammar::book::CompiledAlias;
use crate::config::{self, Environment, SiteConfig};
use crate::document::fault::SourceFile;
use crate::document::fields::Faults;
use crate::document::node;
use crate::gates::CompiledPolicy;
use crate::model::action::Action;
use crate::model::pack::Pack;
use crate::model::secret::Masks;
use crate::model::sensor::{SensorDefinition, SensorKind, Trigger, WebhookAuth};
use crate::rule::book::CompiledRule;

pub use manifest::is_name;

/// The pack of files directly in the site's `rules/`.
pub const DEFAULT_PACK: &str = "default";

/// Everything a site's authors wrote, checked.
#[derive(Clone)]
pub struct Site {
    /// The settings.
    pub config: SiteConfig,
    /// Packs by name.
    pub packs: BTreeMap<String, Arc<Pack>>,
    /// Actions by `pack.name`.
    pub actions: BTreeMap<String, Arc<Action>>,
    /// Triggers by `pack.name`.
    pub triggers: BTreeMap<String, Trigger>,
    /// Sensors, webhooks among them, and the timers that rules ask for.
    pub sensors: Vec<SensorDefinition>,
    /// Rules.
    pub rules: Vec<Arc<CompiledRule>>,
    /// Policies.
    pub policies: Vec<Arc<CompiledPolicy>>,
    /// Commands of chat.
    pub aliases: Vec<Arc<CompiledAlias>>,
}

impl Site {
    /// Hides every secret that the site's settings and webhooks name.
    #[must_use]
    pub fn masks(&self) -> Masks {
        let mut masks = self.packs.values().fold(self.config.masks(), |masks, pack| masks.with(&pack.masks));
        for sensor in &self.sensors {
            if let SensorKind::Webhook { auth: WebhookAuth::Bearer(secret) | WebhookAuth::Hmac { secret, .. }, .. } = &sensor.kind {
                masks = masks.and([&Value::from(secret.reveal())]);
            }
        }
        masks
    }
}

/// Reads a whole site. The site is complete only if [`Faults::allow`] says so.
#[must_use]
pub fn load(folder: &Path, environment: &Environment) -> (Site, Faults) {
    load_with(folder, environment, |_| {})
}

/// The same with other settings than those that `signalman.yaml` gives.
#[must_use]
pub fn load_with(folder: &Path, environment: &Environment, change: impl FnOnce(&mut SiteConfig)) -> (Site, Faults) {
    let mut faults = Faults::default();
    let mut config = config::load(folder, environment, &mut faults);
    change(&mut config);
    let site = site::read(folder, config, environment, &mut faults);
    let masks = site.masks();
    for fault in &mut faults.0 {
        masks.text(&mut fault.message);
        fault.hint.iter_mut().for_each(|hint| masks.text(hint));
    }
    faults.0.sort_by(|a, b| a.place.cmp(&b.place));
    faults.0.dedup();
    (site, faults)
}

/// Reads the file of one alias, without its site; templates that it names are looked for where its pack has them.
///
/// # Errors
/// Everything that is wrong with it.
pub fn read_alias(file: &Path) -> Result<CompiledAlias, Vec<String>> {
    let mut faults = Faults::default();
    let folder = file.parent().unwrap_or(Path::new(""));
    let pack_folder = folder.parent().filter(|_| folder.ends_with("aliases")).unwrap_or(folder);
    let mut templates = Vec::new();
    for path in files::files(&pack_folder.join("templates"), &["hbs"]) {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        // One that is faulty is missing; it is told if the alias names it.
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        templates.extend(template::compile(&SourceFile::new(name.clone(), text), &name, &mut Faults::default()));
    }
    let shown = file.display().to_string();
    let text = std::fs::read_to_string(file).map_err(|error| vec![format!("{shown}: cannot be read: {error}")])?;
    let source = SourceFile::new(shown, text);
    let pack = pack_folder.file_name().map_or_else(|| DEFAULT_PACK.into(), |name| name.to_string_lossy().into_owned());
    let read = match node::parse(&source) {
        Ok(node) => alias::read(&source, &node, &pack, &files::stem(file), &templates, &mut faults),
        Err(fault) => {
            faults.push(fault);
            None
        }
    };
    read.filter(|_| faults.allow()).ok_or_else(|| faults.0.iter().map(ToString::to_string).collect())
}
