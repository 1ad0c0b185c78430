//! Sensors, webhooks among them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use chrono_tz::Tz;
use serde_json::{Map, Value};

use super::Site;
use super::action::name;
use super::files::{fault_at, read_text, relative, stem};
use super::kinds::{Kind, PackFile, Reading};
use crate::config::{self, Reader, SECRET, warn_if_short};
use crate::document::fault::{SourceFile, nearest};
use crate::document::fields::{Faults, Fields, did_you_mean};
use crate::document::node::{Content, Node};
use crate::document::shape::{Field, Holds, Shape};
use crate::model::action::Script;
use crate::model::pack::Pack;
use crate::model::place::Place;
use crate::model::sensor::{Polling, SensorDefinition, SensorKind, WebhookAuth};
use crate::sensors::{self, SetupFault, webhooks};
use crate::template::value::{Scope, ValueTemplate};

/// Sensors.
pub(super) const KIND: Kind = Kind { check, ..Kind::yaml("sensors", "a sensor", read_file) };

const WEBHOOK_KIND: &str = "webhook";

/// A sensor that runs by itself.
pub static SENSOR: Shape = Shape {
    what: "a sensor",
    doc: "Watches one outside thing and emits events",
    fields: &[
        Field::required("kind", Holds::WordOf(kinds), "What it watches").example("\"timer\""),
        Field::new("settings", Holds::Map(&Holds::Any), "The settings of its kind; `{{config.…}}` is filled in"),
    ],
    shared: COMMON,
};

/// A webhook.
pub static WEBHOOK: Shape = Shape {
    what: "a webhook",
    doc: "A sensor that others call over HTTP",
    fields: &[
        Field::required("kind", Holds::Word(&[WEBHOOK_KIND]), "That it is a webhook"),
        Field::required("decoder", Holds::WordOf(decoders), "What turns a body into events").example("\"generic\""),
        Field::required("auth", Holds::Either(&[Holds::Word(&["none"]), Holds::Shape(&BEARER), Holds::Shape(&SIGNED)]), "Who may call")
            .example("{\"bearer\": {\"env\": \"HOOK_TOKEN\"}}"),
        Field::new("repeats", Holds::Boolean, "Whether repeats become events of their own").default("false"),
        Field::new("memory", Holds::Duration, "How long a repeat is known, 30d at most").default("\"24h\""),
    ],
    shared: COMMON,
};

const COMMON: &[Field] = &[
    Field::new("name", Holds::Text, "The file's name; may be left out").example("\"nightly\""),
    Field::new("pack", Holds::Text, "The pack; may be left out"),
    Field::new("description", Holds::Text, "For people"),
    Field::new("enabled", Holds::Boolean, "Whether it runs").default("true"),
    Field::required("trigger", Holds::Text, "The trigger of its events").example("\"core.cron\""),
];

static BEARER: Shape = Shape::new("`auth`", "A token", &[Field::required("bearer", Holds::Shape(&SECRET), "The token that callers show")]);

static SIGNED: Shape = Shape::new("`auth`", "A signature", &[Field::required("hmac", Holds::Shape(&HMAC), "How the body is signed")]);

static HMAC: Shape = Shape::new(
    "`hmac`",
    "An HMAC-SHA256 of the raw body",
    &[
        Field::required("secret", Holds::Shape(&SECRET), "The key"),
        Field::required("header", Holds::Text, "The header that holds it in hexadecimal").example("\"X-Signature-256\""),
    ],
);

fn kinds() -> Vec<&'static str> {
    sensors::KINDS.iter().map(|kind| kind.name).chain([WEBHOOK_KIND]).collect()
}

fn decoders() -> Vec<&'static str> {
    webhooks::DECODERS.iter().map(|kind| kind.name).collect()
}

fn read_file(file: &PackFile, reading: &mut Reading<'_>) {
    let Some(node) = file.yaml(reading.faults) else { return };
    let origin = Origin { pack: reading.pack, file: &file.path, reader: reading.reader, time_zone: reading.time_zone };
    let read = read(&file.source, &node, &origin, reading.faults);
    reading.contents.sensors.extend(read);
}

/// Every trigger of a sensor is there, and every webhook has a name of its own.
fn check(site: &Site, root: &Path, faults: &mut Faults) {
    let mut webhooks: BTreeMap<&str, &Place> = BTreeMap::new();
    for sensor in &site.sensors {
        let mut triggers = vec![sensor.trigger.as_str()];
        if let SensorKind::Polling(polling) = &sensor.kind {
            triggers.extend(sensors::kind(&polling.kind).map_or(&[] as &[&str], |kind| kind.also));
        }
        for trigger in triggers.into_iter().filter(|trigger| !site.triggers.contains_key(*trigger)) {
            let mut fault = fault_at(root, &sensor.place, format!("there is no trigger `{trigger}`"));
            if let Some(nearest) = nearest(trigger, site.triggers.keys().map(String::as_str)) {
                fault = fault.hint(format!("did you mean `{nearest}`?"));
            }
            faults.push(fault);
        }
        if let SensorKind::Webhook { name, .. } = &sensor.kind
            && let Some(first) = webhooks.insert(name, &sensor.place)
        {
            faults.push(fault_at(root, &sensor.place, format!("the webhook `{name}` exists already, in {}", first.file)));
        }
    }
    let names: Vec<&str> = webhooks.keys().copied().collect();
    for (name, line, column) in site.config.open_webhooks_at.iter().filter(|(name, ..)| !names.contains(&name.as_str())) {
        let place = Place { file: config::FILE.into(), line: *line, column: *column };
        let fault = fault_at(root, &place, format!("`open_webhooks`: there is no webhook `{name}`"));
        faults.push(fault.hint(did_you_mean(name, &names)));
    }
}

/// Where a sensor comes from.
struct Origin<'o> {
    /// Its pack.
    pub pack: &'o Arc<Pack>,
    /// Its file.
    pub file: &'o Path,
    /// For secrets, and for the site's folder.
    pub reader: &'o Reader<'o>,
    /// The site's time zone.
    pub time_zone: Tz,
}

fn read(source: &SourceFile, node: &Node, origin: &Origin<'_>, faults: &mut Faults) -> Option<SensorDefinition> {
    let Content::Map(pairs) = &node.content else {
        faults.push(source.fault(node.line, node.column, format!("a sensor must be a map, not {}", node.kind())));
        return None;
    };
    let is_webhook = pairs.iter().any(|(key, node)| key.text == "kind" && node.value() == WEBHOOK_KIND);
    let mut fields = Fields::of(source, node, if is_webhook { &WEBHOOK } else { &SENSOR }, faults)?;
    let (pack, stem) = (origin.pack, stem(origin.file));
    let name = name(&mut fields, &stem);
    fields.text("pack");
    let description = fields.text("description").unwrap_or_default();
    let enabled = fields.boolean("enabled").unwrap_or(true);
    let trigger = fields.text("trigger");
    let kind = fields.word("kind");
    let kind = if is_webhook { webhook(&mut fields, &stem, origin.reader) } else { polling(&mut fields, kind, origin) };
    fields.finish();
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
    let decoder = fields.word("decoder");
    let repeats = fields.boolean("repeats").unwrap_or(false);
    let memory = fields.duration("memory").unwrap_or(webhooks::DEFAULT_MEMORY);
    if memory > std::time::Duration::from_secs(30 * 86_400) {
        fields.fault_here("`memory` must be at most 30d");
    }
    let auth = fields.node("auth").map(|node| auth(fields, node, reader));
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
            let mut inner = Fields::of(fields.source, value, &HMAC, fields.faults)?;
            let (secret_node, header) = (inner.node("secret"), inner.text("header"));
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

fn polling(fields: &mut Fields<'_, '_>, kind: Option<&'static str>, origin: &Origin<'_>) -> Option<SensorKind> {
    let node = fields.node("settings");
    let written = node.map_or(Value::Object(Map::new()), Node::value);
    let scope = Scope::new(vec![("config", Value::Object(origin.pack.config.clone()))]);
    let rendered = ValueTemplate::compile(&written, &[]).and_then(|template| template.render(&scope));
    let kind = kind.and_then(sensors::kind)?;
    let script = if kind.script.is_empty() { None } else { script(fields, origin) };
    if !kind.script.is_empty() && script.is_none() {
        return None; // told already
    }
    let fault = match rendered {
        Ok(Value::Object(settings)) => {
            let polling = Polling { kind: kind.name.into(), settings, script, pack: Arc::clone(origin.pack), time_zone: origin.time_zone };
            match (kind.check)(&polling) {
                Ok(()) => return Some(SensorKind::Polling(polling)),
                Err(SetupFault::Script(found)) => {
                    let file = polling.script.map(|script| SourceFile::new(script.file, script.text.as_str()))?;
                    for fault in found {
                        fields.faults.push(file.fault(fault.line, fault.column, fault.message));
                    }
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
