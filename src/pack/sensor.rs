//! Triggers and sensors, webhooks among them.

use std::path::Path;
use std::sync::Arc;

use chrono_tz::Tz;
use serde_json::{Map, Value};

use super::action::name;
use super::site::{read_text, relative, stem};
use crate::config::{Reader, warn_if_short};
use crate::document::fault::SourceFile;
use crate::document::fields::{Faults, Fields};
use crate::document::node::{Content, Node};
use crate::model::action::Script;
use crate::model::pack::Pack;
use crate::model::sensor::{Polling, SensorDefinition, SensorKind, Trigger, WebhookAuth};
use crate::sensors::{self, SetupFault, webhooks};
use crate::template::value::{Scope, ValueTemplate};

pub(super) fn read_trigger(source: &SourceFile, node: &Node, pack: &str, stem: &str, faults: &mut Faults) -> Option<Trigger> {
    let mut fields = Fields::of(source, node, "a trigger", faults)?;
    let name = name(&mut fields, stem);
    let description = fields.text("description").unwrap_or_default();
    if let Some(node) = fields.node("durability")
        && fields.word("durability", &["journal", "volatile"]) == Some("volatile")
    {
        fields.fault(node, "volatile triggers are not carried out by this version; remove the line, and every event is kept");
    }
    let payload_schema = Value::Object(fields.object("payload_schema"));
    fields.finish();
    Some(Trigger { reference: format!("{pack}.{}", name?), description, payload_schema })
}

/// Where a sensor comes from.
pub(super) struct Origin<'o> {
    /// Its pack.
    pub pack: &'o Arc<Pack>,
    /// Its file.
    pub file: &'o Path,
    /// For secrets, and for the site's folder.
    pub reader: &'o Reader<'o>,
    /// The site's time zone.
    pub time_zone: Tz,
}

pub(super) fn read(source: &SourceFile, node: &Node, origin: &Origin<'_>, faults: &mut Faults) -> Option<SensorDefinition> {
    let mut fields = Fields::of(source, node, "a sensor", faults)?;
    let (pack, stem) = (origin.pack, stem(origin.file));
    let name = name(&mut fields, &stem);
    let description = fields.text("description").unwrap_or_default();
    let enabled = fields.boolean("enabled").unwrap_or(true);
    let trigger = fields.required_text("trigger");
    let kinds: Vec<&'static str> = std::iter::once("webhook").chain(sensors::KINDS.iter().map(|kind| kind.name)).collect();
    fields.required("kind");
    let kind = match fields.word("kind", &kinds) {
        Some("webhook") => webhook(&mut fields, &stem, origin.reader),
        Some(kind) => polling(&mut fields, kind, origin),
        None => None,
    };
    if kind.is_some() {
        fields.finish();
    }
    let place = source.place(node.line, node.column);
    Some(SensorDefinition {
        reference: format!("{}.{}", pack.reference, name?),
        description,
        enabled,
        trigger: trigger?,
        kind: kind?,
        place,
    })
}

fn webhook(fields: &mut Fields<'_, '_>, stem: &str, reader: &Reader<'_>) -> Option<SensorKind> {
    fields.required("decoder");
    let names: Vec<&'static str> = webhooks::DECODERS.iter().map(|kind| kind.name).collect();
    let decoder = fields.word("decoder", &names);
    let repeats = fields.boolean("repeats").unwrap_or(false);
    let memory = fields.duration("memory").unwrap_or(webhooks::DEFAULT_MEMORY);
    if memory > std::time::Duration::from_secs(30 * 86_400) {
        fields.fault_here("`memory` must be at most 30d");
    }
    let auth = fields.required("auth").map(|node| auth(fields, node, reader));
    Some(SensorKind::Webhook { name: stem.to_string(), decoder: decoder?.to_string(), auth: auth??, repeats, memory })
}

fn auth(fields: &mut Fields<'_, '_>, node: &Node, reader: &Reader<'_>) -> Option<WebhookAuth> {
    if matches!(&node.content, Content::Scalar { value: Value::String(word), .. } if word == "none") {
        return Some(WebhookAuth::None);
    }
    let forms = "`auth` must be none, {bearer: {env: NAME}} or {hmac: {secret: {env: NAME}, header: X-Signature-256}}";
    let Content::Map(pairs) = &node.content else {
        fields.fault(node, forms);
        return None;
    };
    match pairs.as_slice() {
        [(key, value)] if key.text == "bearer" => secret(fields, value, reader).map(WebhookAuth::Bearer),
        [(key, value)] if key.text == "hmac" => {
            let mut inner = Fields::of(fields.source, value, "`hmac`", fields.faults)?;
            let (secret_node, header) = (inner.required("secret"), inner.required_text("header"));
            inner.finish();
            let header = header?;
            if header.parse::<axum::http::HeaderName>().is_err() {
                fields.fault(value, format!("`{header}` is not a header's name"));
                return None;
            }
            Some(WebhookAuth::Hmac { secret: secret(fields, secret_node?, reader)?, header })
        }
        _ => {
            fields.fault(node, forms);
            None
        }
    }
}

fn secret(fields: &mut Fields<'_, '_>, node: &Node, reader: &Reader<'_>) -> Option<crate::model::secret::Secret> {
    match reader.secret(node) {
        Some(Ok(secret)) if secret.reveal().is_empty() => fields.fault(node, "the secret is empty"),
        Some(Ok(secret)) => {
            warn_if_short(fields, node, &secret);
            return Some(secret);
        }
        Some(Err(message)) => fields.fault(node, message),
        None => fields.fault(node, "a secret is never written into a file: use {env: NAME} or {file: PATH}"),
    }
    None
}

fn polling(fields: &mut Fields<'_, '_>, kind: &'static str, origin: &Origin<'_>) -> Option<SensorKind> {
    let node = fields.node("settings");
    let written = node.map_or(Value::Object(Map::new()), Node::value);
    let scope = Scope::new(vec![("config", Value::Object(origin.pack.config.clone()))]);
    let rendered = ValueTemplate::compile(&written, &[]).and_then(|template| template.render(&scope));
    let kind = sensors::kind(kind)?;
    let script = if kind.script.is_empty() { None } else { script(fields, origin) };
    if !kind.script.is_empty() && script.is_none() {
        return None; // told already
    }
    let fault = match rendered {
        Ok(Value::Object(settings)) => {
            let polling = Polling { kind: kind.name.into(), settings, script, pack: Arc::clone(origin.pack), time_zone: origin.time_zone };
            match (kind.check)(&polling) {
                Ok(()) => return Some(SensorKind::Polling(polling)),
                Err(SetupFault::Script(fault)) => {
                    let file = polling.script.map(|script| SourceFile::new(script.file, script.text.as_str()))?;
                    fields.faults.push(file.fault(fault.line, fault.column, fault.message));
                    return None;
                }
                Err(fault) => fault,
            }
        }
        Ok(_) => SetupFault::Setting("", "`settings` must be a map".into()),
        Err(message) => SetupFault::Setting("", message),
    };
    let (line, column) = match (node, &fault) {
        (None, _) => {
            fields.fault_here(fault.to_string());
            return None;
        }
        (Some(node), SetupFault::Setting(name, _)) => place_of(node, name, false),
        (Some(node), SetupFault::Unknown(name, _)) => place_of(node, name, true),
        (Some(node), SetupFault::Script(_)) => (node.line, node.column),
    };
    fields.faults.push(fields.source.fault(line, column, fault.to_string()));
    None
}

/// Where a setting stands: its value, or its key.
fn place_of(settings: &Node, name: &str, key: bool) -> (usize, usize) {
    let Content::Map(pairs) = &settings.content else { return (settings.line, settings.column) };
    match pairs.iter().find(|(key, _)| key.text == name) {
        Some((found, _)) if key => (found.line, found.column),
        Some((_, value)) => (value.line, value.column),
        None => (settings.line, settings.column),
    }
}

/// The script beside the file.
fn script(fields: &mut Fields<'_, '_>, origin: &Origin<'_>) -> Option<Script> {
    let (root, path) = (origin.reader.site, origin.file.with_extension("rhai"));
    match read_text(root, &path) {
        Ok(text) => Some(Script { file: relative(root, &path), text }),
        Err(message) => {
            fields.fault_here(format!("the script `{}` {message}", relative(root, &path)));
            None
        }
    }
}
