//! How lists are paged: newest first, by cursor, bounded in entries and in bytes; and how short ids are found.

use std::ops::ControlFlow;

use axum::extract::Query;
use axum::http::Uri;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::ApiState;
use super::problem::Problem;
use super::routes::Parameter;
use crate::engine::find;
use crate::model::duration;
use crate::model::ids::{EventId, ExecutionId};
use crate::store::{Page, StoreError};

/// How many entries a page may have.
pub(super) const LIMIT: Parameter = Parameter { name: "limit", kind: "integer", summary: "How many at most: 1 to 1000, 50 unless given" };

/// Where a page begins.
pub(super) const BEFORE: Parameter =
    Parameter { name: "before", kind: "string", summary: "Only what is older than this id: the `next` of the page before" };

/// How far a list goes back.
pub(super) const SINCE: Parameter = Parameter {
    name: "since",
    kind: "string",
    summary: "Only what came since then: a span such as `30m`, or a time such as `2026-11-20T07:00:00Z`",
};

/// The most entries of one page.
const MAX_PAGE: usize = 1_000;

/// Entries of a page unless asked otherwise.
const DEFAULT_PAGE: usize = 50;

/// A page of so many bytes takes no further entry.
const PAGE_BYTES: usize = 4 << 20;

/// Entries are read from the store in pieces of about so many bytes.
const PIECE_BYTES: usize = 1 << 20;

/// Entries of the first piece, and the most of a further one.
const PIECE: (usize, usize) = (8, 512);

/// Entries that are looked at for one page of a filtered list.
const MAX_SCAN: usize = 50_000;

/// Which part of a list. Each route takes those that its row in the table names.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct PageQuery {
    limit: Option<usize>,
    before: Option<String>,
    since: Option<String>,
    pub trigger: Option<String>,
    pub key: Option<String>,
    pub source: Option<String>,
    pub status: Option<String>,
    pub action: Option<String>,
    pub rule: Option<String>,
    pub channel: Option<String>,
}

/// An entry of a list.
pub(super) trait Entry {
    /// Its id, by which it is paged.
    type Id: std::str::FromStr + Copy;

    /// Its id.
    fn id(&self) -> Self::Id;

    /// When the id was made, in milliseconds.
    fn made_at_ms(&self) -> u64;

    /// About how many bytes it takes as JSON.
    fn weight(&self) -> usize;
}

impl PageQuery {
    /// Reads the query of an address.
    pub(super) fn of(uri: &Uri) -> Result<Self, Problem> {
        query(uri)
    }

    /// Collects the entries that are wanted, newest first. Answers them, and where the next page begins.
    pub(super) async fn collect<T: Entry, F: Future<Output = Result<Vec<T>, StoreError>>>(
        &self,
        now: DateTime<Utc>,
        fetch: impl FnMut(Page<T::Id>) -> F,
        wanted: impl Fn(&T) -> bool,
    ) -> Result<(Vec<T>, Option<T::Id>), Problem> {
        let limit = page_limit(self.limit)?;
        let before = self.before.as_deref().map(str::parse).transpose();
        let before = before.map_err(|_| Problem::field("before", "`before` is not an id: give all 26 characters"))?;
        let since = self.since.as_deref().map(|since| moment("since", since, now)).transpose()?;
        let since = since.map_or(0, |since| u64::try_from(since.timestamp_millis()).unwrap_or(0));
        let (mut found, mut bytes, mut is_old) = (Vec::new(), 0, false);
        let next = scan(before, MAX_SCAN, fetch, |entry: T| {
            if entry.made_at_ms() < since {
                is_old = true;
                return ControlFlow::Break(());
            }
            if wanted(&entry) {
                bytes += entry.weight();
                found.push(entry);
            }
            if found.len() == limit || bytes >= PAGE_BYTES { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let next = next.await?;
        Ok((found, next.filter(|_| !is_old)))
    }
}

/// Hands out entries, newest first, until it is told to stop or has handed out so many. Answers the id of the last one if there may be more.
async fn scan<T: Entry, F: Future<Output = Result<Vec<T>, StoreError>>>(
    mut before: Option<T::Id>,
    most: usize,
    mut fetch: impl FnMut(Page<T::Id>) -> F,
    mut take: impl FnMut(T) -> ControlFlow<()>,
) -> Result<Option<T::Id>, StoreError> {
    let (mut scanned, mut piece) = (0, PIECE.0);
    while scanned < most {
        let entries = fetch(Page { before, limit: piece }).await?;
        let (count, is_last) = (entries.len(), entries.len() < piece);
        let mut weight = 1;
        for (index, entry) in entries.into_iter().enumerate() {
            before = Some(entry.id());
            weight += entry.weight();
            if take(entry).is_break() {
                return Ok(before.filter(|_| !is_last || index + 1 < count));
            }
        }
        if is_last {
            return Ok(None);
        }
        scanned += count;
        // Small ones are read many at a time; of large ones not more than are wanted in memory.
        piece = (PIECE_BYTES * count / weight).clamp(1, PIECE.1.min(piece * 4));
    }
    Ok(before)
}

/// How many entries a page has.
pub(super) fn page_limit(limit: Option<usize>) -> Result<usize, Problem> {
    match limit.unwrap_or(DEFAULT_PAGE) {
        limit @ 1..=MAX_PAGE => Ok(limit),
        _ => Err(Problem::field("limit", format!("`limit` must be from 1 to {MAX_PAGE}"))),
    }
}

/// The query of an address, as a known form.
pub(super) fn query<T: DeserializeOwned>(uri: &Uri) -> Result<T, Problem> {
    Ok(Query::<T>::try_from_uri(uri).map_err(|error| Problem::invalid(error.body_text()))?.0)
}

/// A time, or how long ago.
pub(super) fn moment(field: &str, text: &str, now: DateTime<Utc>) -> Result<DateTime<Utc>, Problem> {
    let ago = || now.checked_sub_signed(chrono::Duration::from_std(duration::parse(text).ok()?).ok()?);
    let time = ago().or_else(|| Some(DateTime::parse_from_rfc3339(text).ok()?.to_utc()));
    time.ok_or_else(|| {
        let what = format!("`{field}`: `{text}` is neither a duration such as 30m, 24h or 7d nor a time such as 2026-11-20T07:00:00Z");
        Problem::field(field, what)
    })
}

/// Finds the event that a whole or short id means.
pub(super) async fn event_id(state: &ApiState, text: &str) -> Result<EventId, Problem> {
    Ok(find::event(&state.engine, text).await?)
}

/// Finds the execution that a whole or short id means.
pub(super) async fn execution_id(state: &ApiState, text: &str) -> Result<ExecutionId, Problem> {
    Ok(find::execution(&state.engine, text).await?)
}

/// About how many bytes a value takes as JSON.
pub(super) fn size(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) => 5,
        Value::Number(_) => 8,
        Value::String(text) => text.len() + 3,
        Value::Array(items) => items.iter().map(|item| size(item) + 1).sum::<usize>() + 2,
        Value::Object(fields) => fields.iter().map(|(name, value)| name.len() + 4 + size(value)).sum::<usize>() + 2,
    }
}
