//! `pack.yaml`, and the site's settings for the pack checked against it.

use serde_json::{Map, Value, json};

use super::capabilities;
use crate::config::SiteConfig;
use crate::document::fault::SourceFile;
use crate::document::fields::{Faults, Fields, did_you_mean};
use crate::document::node::{Key, Node};
use crate::model::action::{Parameter, ParameterType, cast};
use crate::model::pack::Pack;
use crate::model::secret::Masks;
use crate::template::text::Data;

pub(super) fn read(source: &SourceFile, node: &Node, folder: &str, site: &SiteConfig, faults: &mut Faults) -> Option<Pack> {
    let mut fields = Fields::of(source, node, "a pack", faults)?;
    let reference = fields.required_text("ref")?;
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
    fields.text("author");
    let dependencies = fields.texts("dependencies");
    let schema = fields.map("config_schema");
    let (config, masks) = pack_config(&mut fields, schema, &reference, site);
    let data = Data::new(json!({"config": config}));
    let capabilities = fields.node("capabilities").map(|node| capabilities::read(source, node, &data, fields.faults)).unwrap_or_default();
    fields.finish();
    Some(Pack { reference, name, version, description, dependencies, capabilities, config, masks })
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
    let mut inner = Fields::of(fields.source, node, "a setting", fields.faults)?;
    let kind = inner.word("type", ParameterType::NAMES).and_then(ParameterType::named);
    inner.text("format");
    let parameter = Parameter {
        name: key.text.clone(),
        kind,
        description: inner.text("description").unwrap_or_default(),
        required: inner.boolean("required").unwrap_or(false),
        default: inner.node("default").map(Node::value),
        immutable: false,
        secret: inner.boolean("secret").unwrap_or(false),
        position: None,
        choices: inner.list("enum").iter().map(Node::value).collect(),
        minimum: inner.number("minimum"),
        maximum: inner.number("maximum"),
    };
    inner.finish();
    Some(parameter)
}
