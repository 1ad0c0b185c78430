//! `GET /api/v1/stream`: server-sent events, resumable by `Last-Event-ID`.
//!
//! Kinds: `event`, `execution`, `message`, and `reset` when what was missed is no longer kept: then list anew. The id is the number of
//! the commit, on its last item, so that a watcher that was cut off in the middle gets the whole commit again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, Response};
use axum::response::IntoResponse;
use axum::routing::on;
use bytes::Bytes;
use futures_util::stream;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::ApiState;
use super::executions::shown;
use super::problem::Problem;
use super::routes::{Route, get};
use crate::auth::permission::Permission::Read;
use crate::clock;
use crate::engine::Engine;
use crate::engine::stream::{Commit, Item};

pub(super) const ROUTES: &[Route] =
    &[get("/api/v1/stream", Read, "What happens, as server-sent events; resumable by `Last-Event-ID`", |m| on(m, watch))
        .sends("text/event-stream")];

/// How often an idle stream shows that it lives.
const HEARTBEAT: Duration = Duration::from_secs(15);

struct Watcher {
    state: Arc<ApiState>,
    missed: VecDeque<Commit>,
    live: broadcast::Receiver<Commit>,
    reset: bool,
}

pub(super) async fn watch(State(state): State<Arc<ApiState>>, headers: HeaderMap) -> Result<Response<Body>, Problem> {
    let after = match headers.get("last-event-id") {
        None => None,
        Some(value) => Some(
            value.to_str().ok().and_then(|text| text.parse().ok()).ok_or_else(|| Problem::invalid("`Last-Event-ID` must be a number"))?,
        ),
    };
    // A number that is yet to come is of another store: whoever has it must start anew.
    let current = state.engine.store.sequence().await?;
    let watch = state.engine.stream.watch(after.map(|after| if after > current { 0 } else { after }));
    let reset = watch.missed.is_none();
    let missed = watch.missed.unwrap_or_default().into();
    let watcher = Watcher { state, missed, live: watch.live, reset };
    let body = Body::from_stream(stream::unfold(watcher, next));
    Ok(([(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-store")], body).into_response())
}

async fn next(mut watcher: Watcher) -> Option<(Result<Bytes, std::convert::Infallible>, Watcher)> {
    if std::mem::take(&mut watcher.reset) {
        return Some((Ok(Bytes::from_static(b"event: reset\ndata: {}\n\n")), watcher));
    }
    loop {
        if let Some(commit) = watcher.missed.pop_front() {
            let text = render(&watcher.state.engine, &commit);
            return Some((Ok(Bytes::from(text)), watcher));
        }
        let stop = watcher.state.stop.clone();
        tokio::select! {
            received = watcher.live.recv() => match received {
                Ok(commit) => watcher.missed.push_back(commit),
                Err(RecvError::Lagged(_)) => return Some((Ok(Bytes::from_static(b"event: reset\ndata: {}\n\n")), watcher)),
                Err(RecvError::Closed) => return None,
            },
            () = stop.stopped() => return None,
            () = clock::pause(HEARTBEAT) => return Some((Ok(Bytes::from_static(b": alive\n\n")), watcher)),
        }
    }
}

fn render(engine: &Engine, commit: &Commit) -> String {
    let mut text = String::new();
    for (index, item) in commit.items.iter().enumerate() {
        let (kind, data) = match item {
            Item::Event(event) => ("event", serde_json::to_string(event.as_ref()).unwrap_or_default()),
            Item::Execution(execution) => ("execution", shown(engine, execution).to_string()),
            Item::Message(message) => ("message", serde_json::to_string(message.as_ref()).unwrap_or_default()),
        };
        if index + 1 == commit.items.len() {
            text.push_str(&format!("id: {}\n", commit.sequence));
        }
        text.push_str(&format!("event: {kind}\ndata: {data}\n\n"));
    }
    text
}
