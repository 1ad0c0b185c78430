//! Rules: what they are, whether they are tried, what is open of them, and what they would have done.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, Path, State};
use axum::http::Uri;
use axum::routing::on;
use serde::Deserialize;
use serde_json::{Value, json};

use super::paging::{LIMIT, moment, page_limit, query};
use super::problem::Problem;
use super::routes::{Route, get, post};
use super::webhooks::read_json;
use super::{ApiState, site};
use crate::auth::permission::Permission::{Operate, Read};
use crate::document::fault::SourceFile;
use crate::engine::catalog::Catalog;
use crate::engine::owned;
use crate::engine::rehearse::{self, Rehearsal, rehearse};
use crate::engine::switching::switch;
use crate::model::principal::Principal;
use crate::model::reason::Reason;
use crate::model::rule::Mode;
use crate::pack::DEFAULT_PACK;
use crate::rule::book::CompiledRule;
use crate::rule::describe::{held_back_by, open};
use crate::rule::switch::in_force;

pub(super) const ROUTES: &[Route] = &[
    get("/api/v1/rules", Read, "The rules, whether they are tried, and who says so", |m| on(m, list)).answers("RuleList"),
    post("/api/v1/rules/test", Operate, "Try a rule on the events that are stored; nothing is run", |m| on(m, test))
        .takes("RuleTrial")
        .answers("Rehearsal")
        .or(&[409, 422]),
    get("/api/v1/rules/{rule}", Read, "One rule", |m| on(m, show)).answers("Rule").or(&[404]),
    post("/api/v1/rules/{rule}/enable", Operate, "Switch a rule on", |m| on(m, enable)).answers("RuleSwitched").or(&[404, 409]),
    post("/api/v1/rules/{rule}/disable", Operate, "Switch a rule off", |m| on(m, disable)).answers("RuleSwitched").or(&[404, 409]),
    get("/api/v1/rules/{rule}/windows", Read, "What a rule waits for, key by key", |m| on(m, windows))
        .query(&[LIMIT])
        .answers("RuleWindows")
        .or(&[404]),
];

/// Keys that are looked at to find open ones, of the window and of the throttle each.
const MOST_KEYS: usize = 10_000;

pub(super) async fn list(State(state): State<Arc<ApiState>>) -> Json<Value> {
    let catalog = state.engine.catalog.get();
    let rules = catalog.rules.iter().map(|rule| {
        let mut shown = standing(&state, &catalog, rule);
        let rule_says = json!({
            "description": rule.rule.description, "enabled": rule.rule.enabled, "mode": rule.rule.mode, "trigger": rule.rule.trigger,
            "action": rule.rule.action, "ceiling": rule.rule.ceiling,
        });
        merge(&mut shown, rule_says);
        shown
    });
    Json(json!({"rules": rules.collect::<Vec<_>>(), "hold": site::shown(&state.engine)}))
}

pub(super) async fn show(State(state): State<Arc<ApiState>>, Path(name): Path<String>) -> Result<Json<Value>, Problem> {
    let catalog = state.engine.catalog.get();
    let rule = find(&catalog, &name)?;
    let mut shown = json!(rule.rule);
    merge(&mut shown, standing(&state, &catalog, rule));
    Ok(Json(shown))
}

pub(super) async fn enable(
    State(state): State<Arc<ApiState>>,
    Extension(by): Extension<Principal>,
    Path(name): Path<String>,
) -> Result<Json<Value>, Problem> {
    thrown(&state, &name, true, &by).await
}

pub(super) async fn disable(
    State(state): State<Arc<ApiState>>,
    Extension(by): Extension<Principal>,
    Path(name): Path<String>,
) -> Result<Json<Value>, Problem> {
    thrown(&state, &name, false, &by).await
}

async fn thrown(state: &ApiState, name: &str, on: bool, by: &Principal) -> Result<Json<Value>, Problem> {
    let (engine, rule, by) = (Arc::clone(&state.engine), name.to_string(), by.clone());
    let changed = owned(async move { switch(&engine, &rule, on, &by).await }).await??;
    let catalog = state.engine.catalog.get();
    let mut shown = standing(state, &catalog, find(&catalog, name)?);
    shown["changed"] = changed.into();
    Ok(Json(shown))
}

fn find<'c>(catalog: &'c Catalog, name: &str) -> Result<&'c Arc<CompiledRule>, Problem> {
    catalog.rules.get(name).ok_or_else(|| Problem::not_found(catalog.no_rule(name)))
}

/// How a rule stands: whether it is tried, who says so, what holds it back.
fn standing(state: &ApiState, catalog: &Catalog, rule: &CompiledRule) -> Value {
    let reference = &*rule.rule.reference;
    let off = catalog.off.get(reference);
    let word = match (off, rule.rule.mode) {
        (Some((Reason::Quarantined, _)), _) => "quarantined",
        (Some(_), _) => "disabled",
        (None, Mode::Shadow) => "shadow",
        (None, Mode::Active) => "active",
    };
    let switches = catalog.switches.get(reference).map_or(&[][..], Vec::as_slice);
    let counts = in_force(rule.rule.enabled, &rule.revision(), switches, state.engine.clock.now());
    let (window, throttle) = state.engine.ruling.remembered(reference);
    json!({
        "ref": reference, "state": word, "detail": off.map(|(_, detail)| detail), "switch": counts, "held_back_by": held_back_by(&rule.rule),
        "backstop": rule.rule.backstop, "keys": {"window": window, "throttle": throttle}, "revision": rule.revision(),
        "file": &*rule.rule.file,
    })
}

fn merge(into: &mut Value, from: Value) {
    if let (Value::Object(into), Value::Object(from)) = (into, from) {
        into.extend(from);
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WindowQuery {
    limit: Option<usize>,
}

pub(super) async fn windows(State(state): State<Arc<ApiState>>, Path(name): Path<String>, uri: Uri) -> Result<Json<Value>, Problem> {
    let limit = page_limit(query::<WindowQuery>(&uri)?.limit)?;
    let catalog = state.engine.catalog.get();
    let rule = find(&catalog, &name)?;
    let now = state.engine.clock.now().timestamp_millis();
    let known = state.engine.ruling.open_windows(&name, MOST_KEYS);
    let mut under_way: Vec<_> = known.iter().filter_map(|window| open(&rule.rule, window, now)).collect();
    let more = under_way.len().saturating_sub(limit);
    under_way.truncate(limit);
    let mut shown = standing(&state, &catalog, rule);
    merge(
        &mut shown,
        json!({"windows": under_way, "more": more, "has_windows": rule.rule.window.is_some() || rule.rule.throttle.is_some()}),
    );
    Ok(Json(shown))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tried {
    /// The text of the rule's file.
    rule: String,
    /// Its name, for faults; and for a rule that is not named in it.
    #[serde(default)]
    file: Option<String>,
    #[serde(default)]
    pack: Option<String>,
    since: String,
    #[serde(default)]
    until: Option<String>,
    #[serde(default)]
    limit: Option<usize>,
}

pub(super) async fn test(State(state): State<Arc<ApiState>>, body: Body) -> Result<Json<Rehearsal>, Problem> {
    const REFUSED: &str = "The rule cannot be loaded";
    let tried: Tried = read_json(body, state.body_bytes).await?;
    let now = state.engine.clock.now();
    let since = moment("since", &tried.since, now)?;
    let until = tried.until.as_ref().map_or(Ok(now), |until| moment("until", until, now))?;
    if since >= until {
        return Err(Problem::invalid(format!("`since` ({since}) must lie before `until` ({until})")));
    }
    let limit = page_limit(tried.limit)?;
    let source = SourceFile::new(tried.file.unwrap_or_else(|| "rule.yaml".into()), tried.rule);
    let pack = tried.pack.as_deref().unwrap_or(DEFAULT_PACK);
    let catalog = state.engine.catalog.get();
    if !catalog.packs.contains_key(pack) {
        return Err(Problem::invalid(format!("there is no pack `{pack}`")));
    }
    let rule = rehearse::compile(&source, pack).map_err(|faults| Problem::faulty(REFUSED, &faults))?;
    let misfits = rehearse::misfits(&catalog, &rule, &source);
    if !misfits.is_empty() {
        return Err(Problem::faulty(REFUSED, &misfits));
    }
    Ok(Json(rehearse(&state.engine, rehearse::Asked { rule, since, until, limit }).await?))
}
