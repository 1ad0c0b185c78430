//! Policies: limits laid on an action.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::Site;
use super::action::{TAGS, name, read_tags};
use super::files::fault_at;
use super::kinds::{Kind, PackFile, Reading};
use crate::document::fault::{SourceFile, nearest};
use crate::document::fields::{Faults, Fields};
use crate::document::node::Node;
use crate::document::shape::{Field, Holds, Shape};
use crate::gates::CompiledPolicy;
use crate::model::duration;
use crate::model::policy::{Limit, MAX_AT_ONCE, MAX_COUNTED, MAX_SPAN, OnReached, Policy};

/// Policies.
pub(super) const KIND: Kind = Kind { check, ..Kind::yaml("policies", "a policy", read_file) };

/// The shortest span.
const SHORTEST: Duration = Duration::from_millis(100);

/// A policy.
pub static POLICY: Shape = Shape::new(
    "a policy",
    "A limit laid on an action",
    &[
        Field::new("name", Holds::Text, "The file's name; may be left out").example("\"one_deploy_per_app\""),
        Field::new("pack", Holds::Text, "The pack; may be left out"),
        Field::new("description", Holds::Text, "For people"),
        Field::new("enabled", Holds::Boolean, "Whether it counts").default("true"),
        Field::required("resource_ref", Holds::Text, "The action").example("\"marathon.scale\""),
        Field::required("policy_type", Holds::Word(&["concurrency", "rate", "circuit_breaker"]), "What it limits")
            .example("\"concurrency\""),
        Field::required(
            "parameters",
            Holds::Either(&[Holds::Shape(&CONCURRENCY), Holds::Shape(&RATE), Holds::Shape(&CIRCUIT_BREAKER)]),
            "How much",
        )
        .example("{\"threshold\": 1}"),
        Field::new("tags", TAGS, "For people and tools"),
    ],
);

const BY: Field = Field::new("by", Holds::Text, "Tells keys apart: a template over `parameters`; one key for all unless given");
const ACTION: Field =
    Field::new("action", Holds::Word(&["delay", "cancel"]), "What becomes of what may not start now").default("\"delay\"");

static CONCURRENCY: Shape = Shape::new(
    "`parameters`",
    "How many run at once",
    &[Field::required("threshold", Holds::Count(1, MAX_AT_ONCE), "So many at most").example("1"), BY, ACTION],
);

static RATE: Shape = Shape::new(
    "`parameters`",
    "How many start within a span",
    &[
        Field::new("limit", Holds::Count(1, MAX_COUNTED), "So many at most").example("10"),
        Field::new("threshold", Holds::Count(1, MAX_COUNTED), "The same as `limit`"),
        Field::required("per", Holds::Duration, "The span, 100ms to 1d").example("\"1m\""),
        BY,
        ACTION,
    ],
);

static CIRCUIT_BREAKER: Shape = Shape::new(
    "`parameters`",
    "Whether any starts after too many have failed",
    &[
        Field::required("failures", Holds::Count(1, MAX_COUNTED), "So many failed attempts").example("5"),
        Field::required("within", Holds::Duration, "If they happen within this span, 100ms to 1d").example("\"1m\""),
        Field::required("open_for", Holds::Duration, "For how long none starts then, 100ms to 1d").example("\"5m\""),
        BY,
        ACTION,
    ],
);

fn read_file(file: &PackFile, reading: &mut Reading<'_>) {
    let Some(node) = file.yaml(reading.faults) else { return };
    let Some(policy) = read(&file.source, &node, &reading.pack.reference, &file.stem, reading.faults) else { return };
    match CompiledPolicy::new(policy) {
        Ok(policy) => reading.contents.policies.push(Arc::new(policy)),
        Err(message) => reading.faults.push(file.source.fault(node.line, node.column, format!("`by`: {message}"))),
    }
}

fn read(source: &SourceFile, node: &Node, pack: &str, stem: &str, faults: &mut Faults) -> Option<Policy> {
    let mut fields = Fields::of(source, node, &POLICY, faults)?;
    let name = name(&mut fields, stem);
    fields.text("pack");
    read_tags(&mut fields);
    let description = fields.text("description").unwrap_or_default();
    let enabled = fields.boolean("enabled").unwrap_or(true);
    let resource = fields.text("resource_ref");
    let kind = fields.word("policy_type");
    let parameters = fields.node("parameters");
    let limits = parameters.and_then(|node| read_parameters(&mut fields, node, kind?));
    fields.finish();
    let (limit, by, action) = limits?;
    let place = source.place(node.line, node.column);
    Some(Policy { reference: format!("{pack}.{}", name?), description, enabled, resource: resource?, limit, by, action, place })
}

fn read_parameters(fields: &mut Fields<'_, '_>, node: &Node, kind: &str) -> Option<(Limit, Option<String>, OnReached)> {
    let shape = match kind {
        "concurrency" => &CONCURRENCY,
        "rate" => &RATE,
        _ => &CIRCUIT_BREAKER,
    };
    let mut inner = Fields::of(fields.source, node, shape, fields.faults)?;
    let by = inner.text("by");
    let action = match inner.word("action") {
        Some("cancel") => OnReached::Cancel,
        _ => OnReached::Delay,
    };
    let limit = match kind {
        "concurrency" => number(&mut inner, "threshold").map(|threshold| Limit::Concurrency { threshold }),
        "rate" => {
            // `threshold` is what StackStorm's policies call it.
            let (limit, threshold, per) = (number(&mut inner, "limit"), number(&mut inner, "threshold"), span(&mut inner, "per"));
            if inner.has("limit") == inner.has("threshold") {
                inner.fault_here("`parameters` of a rate need `limit`, or `threshold`, which means the same");
            }
            limit.or(threshold).zip(per).map(|(limit, per)| Limit::Rate { limit, per })
        }
        _ => {
            let failures = number(&mut inner, "failures");
            let spans = (span(&mut inner, "within"), span(&mut inner, "open_for"));
            failures.and_then(|failures| Some(Limit::CircuitBreaker { failures, within: spans.0?, open_for: spans.1? }))
        }
    };
    inner.finish();
    Some((limit?, by, action))
}

fn number(fields: &mut Fields<'_, '_>, name: &'static str) -> Option<u32> {
    fields.count(name).and_then(|number| u32::try_from(number).ok())
}

fn span(fields: &mut Fields<'_, '_>, name: &'static str) -> Option<Duration> {
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
