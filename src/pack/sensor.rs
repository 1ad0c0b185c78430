//! Triggers and sensors, webhooks among them.

use serde_json::{Map, Value};

use super::action::name;
use crate::config::Reader;
use crate::document::fault::SourceFile;
use crate::document::fields::{Faults, Fields};
use crate::document::node::{Content, Node};
use crate::model::pack::Pack;
use crate::model::sensor::{SensorDefinition, SensorKind, Trigger, WebhookAuth};
use crate::sensors::{self, webhooks};
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

pub(super) fn read(
    source: &SourceFile,
    node: &Node,
    pack: &Pack,
    stem: &str,
    reader: &Reader<'_>,
    faults: &mut Faults,
) -> Option<SensorDefinition> {
    let mut fields = Fields::of(source, node, "a sensor", faults)?;
    let name = name(&mut fields, stem);
    let description = fields.text("description").unwrap_or_default();
    let enabled = fields.boolean("enabled").unwrap_or(true);
    let trigger = fields.required_text("trigger");
    let kinds: Vec<&'static str> = std::iter::once("webhook").chain(sensors::KINDS.iter().map(|kind| kind.name)).collect();
    fields.required("kind");
    let kind = match fields.word("kind", &kinds) {
        Some("webhook") => webhook(&mut fields, stem, reader),
        Some(kind) => polling(&mut fields, kind, pack),
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
        Some(Ok(secret)) => return Some(secret),
        Some(Err(message)) => fields.fault(node, message),
        None => fields.fault(node, "a secret is never written into a file: use {env: NAME} or {file: PATH}"),
    }
    None
}

fn polling(fields: &mut Fields<'_, '_>, kind: &'static str, pack: &Pack) -> Option<SensorKind> {
    let node = fields.node("settings");
    let written = node.map_or(Value::Object(Map::new()), Node::value);
    let scope = Scope::new(vec![("config", Value::Object(pack.config.clone()))]);
    let rendered = ValueTemplate::compile(&written, &[]).and_then(|template| template.render(&scope));
    let fault = match rendered {
        Ok(Value::Object(settings)) => {
            let known = sensors::KINDS.iter().find(|known| known.name == kind)?;
            match (known.build)(&settings) {
                Ok(_) => return Some(SensorKind::Polling { kind: kind.to_string(), settings }),
                Err(message) => message,
            }
        }
        Ok(_) => "`settings` must be a map".to_string(),
        Err(message) => message,
    };
    match node {
        Some(node) => fields.fault(node, fault),
        None => fields.fault_here(fault),
    }
    None
}
