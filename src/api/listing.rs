//! What the site has: actions, packs, messages; and how lists are paged.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::Uri;
use axum::routing::on;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::ApiState;
use super::problem::Problem;
use super::routes::{Parameter, Route, get};
use crate::auth::permission::Permission::Read;
use crate::engine::find;
use crate::model::ids::{EventId, ExecutionId};
use crate::model::message::Message;
use crate::store::{Page, StoreError};

/// How many entries a page may have.
pub(super) const LIMIT: Parameter = Parameter { name: "limit", kind: "integer", summary: "How many at most: 1 to 1000, 50 unless given" };

/// Where a page begins.
pub(super) const BEFORE: Parameter =
    Parameter { name: "before", kind: "string", summary: "Only what is older than this id: the `next` of the page before" };

pub(super) const ROUTES: &[Route] = &[
    get("/api/v1/actions", Read, "What can be done", |m| on(m, actions)).answers("ActionList"),
    get("/api/v1/packs", Read, "The packs", |m| on(m, packs)).answers("PackList"),
    get("/api/v1/messages", Read, "What the bot said, the newest first", |m| on(m, messages))
        .query(&[LIMIT, BEFORE, Parameter { name: "channel", kind: "string", summary: "Only of this channel" }])
        .answers("MessagePage"),
];

/// The most entries of one page.
const MAX_PAGE: usize = 1_000;

/// Entries of a page unless asked otherwise.
const DEFAULT_PAGE: usize = 50;

/// Entries that are looked at for one page of a filtered list.
const MAX_SCAN: usize = 50_000;

/// Which part of a list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PageQuery {
    limit: Option<usize>,
    before: Option<String>,
    pub trigger: Option<String>,
    pub status: Option<String>,
    pub channel: Option<String>,
}

impl PageQuery {
    /// Reads the query of an address.
    pub(super) fn of(uri: &Uri) -> Result<Self, Problem> {
        query(uri)
    }

    /// Collects the entries that are wanted, newest first. Answers them, and where the next page begins.
    pub(super) async fn collect<T, I, F>(
        &self,
        mut fetch: impl FnMut(Page<I>) -> F,
        id: impl Fn(&T) -> I,
        wanted: impl Fn(&T) -> bool,
    ) -> Result<(Vec<T>, Option<I>), Problem>
    where
        I: std::str::FromStr + Copy,
        F: Future<Output = Result<Vec<T>, StoreError>>,
    {
        let limit = page_limit(self.limit)?;
        let before = self.before.as_deref().map(str::parse).transpose();
        let mut before = before.map_err(|_| Problem::invalid("`before` is not an id: give all 26 characters"))?;
        let (mut found, mut scanned) = (Vec::new(), 0);
        while found.len() < limit && scanned < MAX_SCAN {
            let page = fetch(Page { before, limit }).await?;
            let (count, full) = (page.len(), page.len() == limit);
            scanned += count;
            let mut looked_at = 0;
            for entry in page {
                looked_at += 1;
                before = Some(id(&entry));
                if wanted(&entry) {
                    found.push(entry);
                }
                if found.len() == limit {
                    break;
                }
            }
            if !full {
                if looked_at == count {
                    before = None; // there is nothing older
                }
                break;
            }
        }
        Ok((found, before))
    }
}

/// How many entries a page has.
pub(super) fn page_limit(limit: Option<usize>) -> Result<usize, Problem> {
    match limit.unwrap_or(DEFAULT_PAGE) {
        limit @ 1..=MAX_PAGE => Ok(limit),
        _ => Err(Problem::invalid(format!("`limit` must be from 1 to {MAX_PAGE}"))),
    }
}

/// The query of an address, as a known form.
pub(super) fn query<T: DeserializeOwned>(uri: &Uri) -> Result<T, Problem> {
    Ok(Query::<T>::try_from_uri(uri).map_err(|error| Problem::invalid(error.body_text()))?.0)
}

/// Finds the event that a whole or short id means.
pub(super) async fn event_id(state: &ApiState, text: &str) -> Result<EventId, Problem> {
    Ok(find::event(&state.engine, text).await?)
}

/// Finds the execution that a whole or short id means.
pub(super) async fn execution_id(state: &ApiState, text: &str) -> Result<ExecutionId, Problem> {
    Ok(find::execution(&state.engine, text).await?)
}

pub(super) async fn actions(State(state): State<Arc<ApiState>>) -> Json<Value> {
    let catalog = state.engine.catalog.get();
    let actions = catalog.actions.values().map(|action| {
        json!({
            "ref": action.reference, "description": action.description, "enabled": action.enabled, "runner_type": action.runner,
            "parameters": action.parameters, "idempotent": action.idempotent, "revision": action.revision, "file": &*action.place.file,
        })
    });
    Json(json!({"actions": actions.collect::<Vec<_>>()}))
}

pub(super) async fn packs(State(state): State<Arc<ApiState>>) -> Json<Value> {
    let catalog = state.engine.catalog.get();
    let packs = catalog
        .packs
        .values()
        .map(|pack| json!({"ref": pack.reference, "name": pack.name, "version": pack.version, "description": pack.description}));
    Json(json!({"packs": packs.collect::<Vec<_>>()}))
}

pub(super) async fn messages(State(state): State<Arc<ApiState>>, uri: Uri) -> Result<Json<Value>, Problem> {
    let query = PageQuery::of(&uri)?;
    // Read first: whoever goes on with the stream from here misses nothing.
    let sequence = state.engine.store.sequence().await?;
    let wanted = |message: &Message| query.channel.as_ref().is_none_or(|channel| &message.channel == channel);
    let (messages, next) = query.collect(|page| state.engine.store.messages(page), |message| message.id, wanted).await?;
    Ok(Json(json!({"messages": messages, "next": next, "sequence": sequence})))
}
