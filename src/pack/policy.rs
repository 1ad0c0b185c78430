//! Policies: limits laid on an action.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::Site;
use super::action::name;
use super::files::fault_at;
use super::kinds::{Kind, PackFile, Reading};
use crate::document::fault::{SourceFile, nearest};
use crate::document::fields::{Faults, Fields};
use crate::document::node::Node;
use crate::gates::CompiledPolicy;
use crate::model::duration;
use crate::model::policy::{Limit, MAX_AT_ONCE, MAX_COUNTED, MAX_SPAN, OnReached, Policy};

/// Policies.
pub(super) const KIND: Kind = Kind { check, ..Kind::yaml("policies", "a policy", read_file) };

/// The types of policies.
const TYPES: &[&str] = &["concurrency", "rate", "circuit_breaker"];

/// The shortest span.
const SHORTEST: Duration = Duration::from_millis(100);

fn read_file(file: &PackFile, reading: &mut Reading<'_>) {
    let Some(node) = file.yaml(reading.faults) else { return };
    let Some(policy) = read(&file.source, &node, &reading.pack.reference, &file.stem, reading.faults) else { return };
    match CompiledPolicy::new(policy) {
        Ok(policy) => reading.contents.policies.push(Arc::new(policy)),
        Err(message) => reading.faults.push(file.source.fault(node.line, node.column, format!("`by`: {message}"))),
    }
}

fn read(source: &SourceFile, node: &Node, pack: &str, stem: &str, faults: &mut Faults) -> Option<Policy> {
    let mut fields = Fields::of(source, node, "a policy", faults)?;
    let name = name(&mut fields, stem);
    let description = fields.text("description").unwrap_or_default();
    let enabled = fields.boolean("enabled").unwrap_or(true);
    let resource = fields.required_text("resource_ref");
    fields.required("policy_type");
    let kind = fields.word("policy_type", TYPES);
    let parameters = fields.required("parameters");
    let limits = parameters.and_then(|node| read_parameters(&mut fields, node, kind?));
    fields.finish();
    let (limit, by, action) = limits?;
    let place = source.place(node.line, node.column);
    Some(Policy { reference: format!("{pack}.{}", name?), description, enabled, resource: resource?, limit, by, action, place })
}

fn read_parameters(fields: &mut Fields<'_, '_>, node: &Node, kind: &str) -> Option<(Limit, Option<String>, OnReached)> {
    let mut inner = Fields::of(fields.source, node, "`parameters`", fields.faults)?;
    let by = inner.text("by");
    let action = match inner.word("action", &["delay", "cancel"]) {
        Some("cancel") => OnReached::Cancel,
        _ => OnReached::Delay,
    };
    let limit = match kind {
        "concurrency" => number(&mut inner, "threshold", MAX_AT_ONCE).map(|threshold| Limit::Concurrency { threshold }),
        "rate" => {
            // `threshold` is what StackStorm's policies call it.
            let named = if inner.node("limit").is_none() && inner.node("threshold").is_some() { "threshold" } else { "limit" };
            let (limit, per) = (number(&mut inner, named, MAX_COUNTED), span(&mut inner, "per"));
            limit.zip(per).map(|(limit, per)| Limit::Rate { limit, per })
        }
        _ => {
            let failures = number(&mut inner, "failures", MAX_COUNTED);
            let spans = (span(&mut inner, "within"), span(&mut inner, "open_for"));
            failures.and_then(|failures| Some(Limit::CircuitBreaker { failures, within: spans.0?, open_for: spans.1? }))
        }
    };
    inner.finish();
    Some((limit?, by, action))
}

fn number(fields: &mut Fields<'_, '_>, name: &'static str, most: u64) -> Option<u32> {
    fields.required(name);
    let number = fields.count(name)?;
    if number == 0 || number > most {
        fields.fault_here(format!("`{name}` must be from 1 to {most}"));
        return None;
    }
    u32::try_from(number).ok()
}

fn span(fields: &mut Fields<'_, '_>, name: &'static str) -> Option<Duration> {
    fields.required(name);
    let span = fields.duration(name)?;
    if span < SHORTEST || span > MAX_SPAN {
        fields.fault_here(format!("`{name}` must be from {} to {}", duration::format(SHORTEST), duration::format(MAX_SPAN)));
        return None;
    }
    Some(span)
}

fn check(site: &Site, root: &Path, faults: &mut Faults) {
    for compiled in &site.policies {
        let policy = &compiled.policy;
        if site.actions.contains_key(&policy.resource) {
            continue;
        }
        let message = format!("`resource_ref`: there is no action `{}`", policy.resource);
        let mut fault = fault_at(root, &policy.place, message);
        if let Some(nearest) = nearest(&policy.resource, site.actions.keys().map(String::as_str)) {
            fault = fault.hint(format!("did you mean `{nearest}`?"));
        }
        faults.push(fault);
    }
}
