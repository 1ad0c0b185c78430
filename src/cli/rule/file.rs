//! The files that a rule is tried with: the rule, the event, the keys of the datastore.

use std::collections::BTreeMap;
use std::path::Path;

use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::cli::Failure;
use crate::document::fault::{Fault, SourceFile};
use crate::engine::rehearse;
use crate::model::datastore::{Scope, check_name};
use crate::model::event::Event;
use crate::model::ids::IdSource;
use crate::model::json::RawJson;
use crate::pack::DEFAULT_PACK;
use crate::rule::book::CompiledRule;

pub(super) fn read(file: &Path) -> Result<String, Failure> {
    let bytes = std::fs::read(file).map_err(|error| Failure::misuse(format!("`{}` cannot be read: {error}", file.display())))?;
    String::from_utf8(bytes)
        .map_err(|error| Failure::misuse(format!("`{}` is not UTF-8 at byte {}", file.display(), error.utf8_error().valid_up_to())))
}

pub(super) fn rule(file: &Path) -> Result<CompiledRule, Failure> {
    let source = SourceFile::new(file.display().to_string(), read(file)?);
    rehearse::compile(&source, &pack_of(file)).map_err(|faults| {
        let faults: Vec<String> = faults.iter().map(Fault::to_string).collect();
        refused(&faults.join("\n"))
    })
}

/// What the loader would refuse.
pub(super) fn refused(faults: &str) -> Failure {
    Failure::misuse(format!("the rule cannot be loaded:\n{faults}"))
}

/// The pack that a rule file belongs to: `packs/NAME/rules/…`.
pub(super) fn pack_of(file: &Path) -> String {
    let pack = || {
        let file = file.canonicalize().ok()?;
        let folder = file.ancestors().skip(1).find(|folder| folder.join("pack.yaml").is_file())?;
        Some(folder.file_name()?.to_string_lossy().into_owned())
    };
    pack().unwrap_or_else(|| DEFAULT_PACK.to_string())
}

/// The keys that the rule sees as `kv.system`.
pub(super) fn keys(file: &Path) -> Result<BTreeMap<String, Value>, Failure> {
    let wrong = |what: &str| Failure::misuse(format!("`{}`: {what}", file.display()));
    let raw = RawJson::parse(&read(file)?).map_err(|error| wrong(&format!("not JSON: {error}")))?;
    let Value::Object(keys) = raw.value().map_err(|error| wrong(&error))? else {
        return Err(wrong("must be an object of keys and their values, such as {\"limit\": 80}"));
    };
    for name in keys.keys() {
        check_name(&Scope::System, name).map_err(|error| wrong(&error))?;
    }
    Ok(keys.into_iter().collect())
}

pub(super) fn event(file: &Path, now: DateTime<Utc>) -> Result<Event, Failure> {
    let wrong = |what: &str| Failure::misuse(format!("`{}`: {what}", file.display()));
    let raw = RawJson::parse(&read(file)?).map_err(|error| wrong(&format!("not JSON: {error}")))?;
    let value = raw.value().map_err(|error| wrong(&error))?;
    let Value::Object(fields) = value else { return Err(wrong("must be an object with `trigger` and `payload`")) };
    if let Some(unknown) = fields.keys().find(|key| !["trigger", "payload", "key", "occurred_at", "id"].contains(&key.as_str())) {
        return Err(wrong(&format!("has no field `{unknown}`; it holds `trigger` and `payload`, and may hold `key`")));
    }
    let trigger = fields.get("trigger").and_then(Value::as_str).ok_or_else(|| wrong("`trigger` must be text such as \"pack.name\""))?;
    let payload = fields.get("payload").ok_or_else(|| wrong("`payload` is missing"))?;
    if !payload.is_object() {
        return Err(wrong("`payload` must be a JSON object"));
    }
    let occurred_at = match fields.get("occurred_at") {
        None | Some(Value::Null) => now,
        Some(Value::String(text)) => {
            DateTime::parse_from_rfc3339(text).map_err(|_| wrong("`occurred_at` must be an RFC 3339 time"))?.to_utc()
        }
        Some(_) => return Err(wrong("`occurred_at` must be an RFC 3339 time")),
    };
    Ok(Event {
        id: IdSource::seeded(0).event(now),
        trigger: trigger.to_string(),
        key: fields.get("key").and_then(Value::as_str).map(ToString::to_string),
        dedup_key: None,
        occurred_at,
        received_at: now,
        source: "test".into(),
        cause: None,
        depth: 0,
        payload: RawJson::of(payload),
    })
}
