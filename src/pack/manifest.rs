//! `pack.yaml`, and the site's settings for the pack checked against it.

use std::path::PathBuf;

use semver::VersionReq;
use serde_json::{Map, Value, json};

use super::capabilities::{self, CAPABILITIES};
use super::parameter::{SETTING, value};
use crate::config::SiteConfig;
use crate::document::fault::SourceFile;
use crate::document::fields::{Faults, Fields, did_you_mean};
use crate::document::node::{Content, Key, Node};
use crate::document::shape::{Field, Holds, Shape};
use crate::model::action::{Parameter, cast};
use crate::model::pack::{Dependency, Pack};
use crate::model::secret::Masks;
use crate::template::text::Data;

/// A pack.
pub static PACK: Shape = Shape::new(
    "a pack",
    "A folder of actions, triggers, sensors, rules and so on, with settings and capabilities",
    &[
        Field::required("ref", Holds::Text, "The folder's name, the first part of every reference").example("\"marathon\""),
        Field::new("name", Holds::Text, "For people"),
        Field::new("version", Holds::Text, "The version, as in semver; needed where others depend on one").example("\"1.0.0\""),
        Field::new("description", Holds::Text, "For people"),
        Field::new("author", Holds::Text, "For people"),
        Field::new("email", Holds::Text, "For people"),
        Field::new("keywords", Holds::List(&Holds::Text), "For people"),
        Field::new(
            "dependencies",
            Holds::List(&Holds::Either(&[Holds::Text, Holds::Map(&Holds::Text)])),
            "Packs that it needs, each with a range of versions if it matters",
        )
        .example("[\"core\", {\"links\": \">=1.2\"}]"),
        Field::new("config_schema", Holds::Map(&Holds::Shape(&SETTING)), "Its settings, by name; the site gives them"),
        Field::new("capabilities", Holds::Shape(&CAPABILITIES), "What it may touch; everything else is refused"),
    ],
);

pub(super) fn read(source: &SourceFile, node: &Node, folder: &str, site: &SiteConfig, faults: &mut Faults) -> Option<Pack> {
    let mut fields = Fields::of(source, node, &PACK, faults)?;
    let reference = fields.text("ref")?;
    if reference != folder {
        let hint = format!("rename the folder to packs/{reference}, or write `ref: {folder}`");
        let fault = source.fault(node.line, node.column, format!("`ref` is `{reference}`, but the folder is `{folder}`"));
        fields.faults.push(fault.hint(hint));
    }
    if !is_name(&reference) {
        fields.fault_here(format!("`{reference}` is not a name: use lower-case letters, digits, `_` and `-`"));
    }
    let name = fields.text("name").unwrap_or_else(|| reference.clone());
    let version = fields.text("version").unwrap_or_default();
    let description = fields.text("description").unwrap_or_default();
    for for_people in ["author", "email"] {
        fields.text(for_people);
    }
    fields.texts("keywords");
    let dependencies = dependencies(&mut fields);
    let schema = fields.map("config_schema");
    let (config, masks) = pack_config(&mut fields, schema, &reference, site);
    let data = Data::new(json!({"config": config}));
    let capabilities = fields.node("capabilities").map(|node| capabilities::read(source, node, &data, fields.faults)).unwrap_or_default();
    fields.finish();
    Some(Pack { reference, folder: PathBuf::new(), name, version, description, dependencies, capabilities, config, masks })
}

/// Whether a text can be the name of a pack, action, rule, trigger or sensor.
#[must_use]
pub fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= 100 && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-')
}

fn pack_config(fields: &mut Fields<'_, '_>, schema: &[(Key, Node)], pack: &str, site: &SiteConfig) -> (Map<String, Value>, Masks) {
    let given = site.packs.get(pack).cloned().unwrap_or_default();
    let site_file = SourceFile::new(crate::config::FILE, "");
    let (mut config, mut secrets, mut known) = (Map::new(), given.secrets.clone(), Vec::new());
    for (key, node) in schema {
        known.push(key.text.as_str());
        let Some(mut parameter) = config_parameter(fields, key, node) else { continue };
        // What came from a secret is one, whatever the schema says.
        parameter.secret |= secrets.contains(&key.text);
        if parameter.secret && !secrets.contains(&key.text) {
            secrets.push(key.text.clone());
        }
        match given.values.get(&key.text).or(parameter.default.as_ref()) {
            Some(value) if given.unchecked.contains(&key.text) => {
                config.insert(key.text.clone(), value.clone());
            }
            Some(value) => match cast(&parameter, value) {
                Ok(value) => {
                    config.insert(key.text.clone(), value);
                }
                Err(message) => {
                    let message = format!("config of pack `{pack}`: {}", message.replacen("parameter", "setting", 1));
                    fields.faults.push(site_file.fault(given.place.0, given.place.1, message));
                }
            },
            None if parameter.required => {
                let fault = site_file.fault(given.place.0, given.place.1, format!("pack `{pack}` needs the setting `{}`", key.text));
                fields.faults.push(fault.hint(format!("add it to signalman.yaml: config: {{{pack}: {{{}: …}}}}", key.text)));
            }
            None => {
                config.insert(key.text.clone(), Value::Null);
            }
        }
    }
    for name in given.values.keys().filter(|name| !known.contains(&name.as_str())) {
        let fault = site_file.fault(given.place.0, given.place.1, format!("pack `{pack}` has no setting `{name}`"));
        fields.faults.push(fault.hint(did_you_mean(name, &known)));
    }
    let masks = Masks::of(secrets.iter().filter_map(|name| config.get(name).or_else(|| given.values.get(name))));
    (config, masks)
}

fn config_parameter(fields: &mut Fields<'_, '_>, key: &Key, node: &Node) -> Option<Parameter> {
    let mut inner = Fields::of(fields.source, node, &SETTING, fields.faults)?;
    let parameter = value(&mut inner, Parameter::named(&key.text));
    inner.finish();
    Some(parameter)
}

/// What a pack needs: a name, or `{name: ">=1.2"}`.
fn dependencies(fields: &mut Fields<'_, '_>) -> Vec<Dependency> {
    let mut found = Vec::new();
    for item in fields.list("dependencies") {
        let place = fields.place(item);
        match &item.content {
            Content::Scalar { value: Value::String(name), .. } => found.push(Dependency { name: name.clone(), version: None, place }),
            Content::Map(pairs) if pairs.len() == 1 => {
                let (key, wanted) = &pairs[0];
                let Content::Scalar { text, .. } = &wanted.content else {
                    fields.fault(wanted, "a version must be text such as \">=1.2, <2\"");
                    continue;
                };
                if let (true, Ok(version)) = (wanted.value().is_string(), VersionReq::parse(text)) {
                    found.push(Dependency { name: key.text.clone(), version: Some(version), place });
                } else {
                    let fault = fields.source.fault(wanted.line, wanted.column, format!("`{text}` is no range of versions"));
                    fields.faults.push(fault.hint("write for example \">=1.2\", \"^1.2\", \"~1.2.3\" or \">=1.2, <2\", in quotes"));
                }
            }
            _ => fields.fault(item, "a dependency is the name of a pack, or the name and a range of versions: {links: \">=1.2\"}"),
        }
    }
    found
}
