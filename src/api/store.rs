//! What an operator asks of the store. It takes its time, so it runs on a thread of its own, one at a time, and what it says is streamed:
//! a backup as it is, the others as lines of JSON, `{"done":1,"of":9}` and at the end `{"result":…}` or `{"error":"…"}`.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::Response;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::IntoResponse;
use axum::routing::on;
use bytes::Bytes;
use futures_util::stream;
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::ApiState;
use super::problem::Problem;
use super::routes::{Route, get, post};
use crate::auth::permission::Permission::{Admin, Read};
use crate::clock;
use crate::store::{Maintenance, Stat, StoreError};
use crate::tasks::{self, Stop};

pub(super) const ROUTES: &[Route] = &[
    get("/api/v1/store/stat", Read, "How much is stored, and what it takes on disk", |m| on(m, stat)).answers("StoreStat"),
    post("/api/v1/store/check", Admin, "Read everything and tell what is damaged; lines of JSON", |m| on(m, check))
        .sends("application/x-ndjson")
        .or(&[409]),
    post("/api/v1/store/compact", Admin, "Give back space; lines of JSON", |m| on(m, compact)).sends("application/x-ndjson").or(&[409]),
    get("/api/v1/store/backup", Admin, "Everything that is stored, as one file", |m| on(m, backup))
        .sends("application/octet-stream")
        .or(&[409]),
];

/// Pieces that wait for the client.
const WAITING: usize = 8;

/// For how long a client may take nothing: databases are not tidied up meanwhile.
const PATIENCE: Duration = Duration::from_secs(60);

/// The pause after each part of a backup, so that commits find processor and disk free: it takes about 70 MiB a second.
const PAUSE_PER_KIBIBYTE: Duration = Duration::from_micros(8);

/// Progress is told when another such part is done.
const PARTS: u64 = 200;

/// The piece after the last one. Where it is missing, the work did not come to its end.
const END: Bytes = Bytes::new();

type Piece = Result<Bytes, StoreError>;

/// How much there is of what.
pub(super) async fn stat(State(state): State<Arc<ApiState>>) -> Result<Json<Stat>, Problem> {
    let maintenance = state.engine.store.maintenance();
    let stat = tasks::blocking(move || maintenance.stat()).await;
    Ok(Json(stat.map_err(|error| Problem::unavailable(format!("it was cut off: {error}")))??))
}

/// Everything as of one commit.
pub(super) async fn backup(State(state): State<Arc<ApiState>>) -> Result<Response<Body>, Problem> {
    let started = start(&state, |maintenance, client| {
        maintenance.backup(client, &mut |_, _| true)?;
        Ok(())
    });
    started.await.map(|body| ([(CONTENT_TYPE, "application/octet-stream"), (CACHE_CONTROL, "no-store")], body).into_response())
}

/// Reads everything.
pub(super) async fn check(State(state): State<Arc<ApiState>>) -> Result<Response<Body>, Problem> {
    lines(&state, |maintenance, progress| Ok(json!({"damage": maintenance.check(progress)?}))).await
}

/// Gives back space.
pub(super) async fn compact(State(state): State<Arc<ApiState>>) -> Result<Response<Body>, Problem> {
    lines(&state, |maintenance, progress| {
        let before = maintenance.stat()?.disk_bytes;
        maintenance.compact(progress)?;
        Ok(json!({"before": before, "after": maintenance.stat()?.disk_bytes}))
    })
    .await
}

/// Streams progress and the result as lines.
async fn lines(
    state: &ApiState,
    work: impl FnOnce(&dyn Maintenance, &mut dyn FnMut(u64, u64) -> bool) -> Result<Value, StoreError> + Send + 'static,
) -> Result<Response<Body>, Problem> {
    let started = start(state, |maintenance, client| {
        let mut told = None;
        let done = work(maintenance, &mut |done, of| {
            let part = done.saturating_mul(PARTS).checked_div(of);
            if told == Some(part) {
                return !client.stop.is_stopped();
            }
            told = Some(part);
            client.say(&json!({"done": done, "of": of})).is_ok()
        });
        let last = done.map_or_else(|error| json!({"error": error.to_string()}), |result| json!({"result": result}));
        let _ = client.say(&last); // a client that has gone does not want it
        Ok(())
    });
    started.await.map(|body| ([(CONTENT_TYPE, "application/x-ndjson"), (CACHE_CONTROL, "no-store")], body).into_response())
}

/// Starts work that writes to the client, and answers with the body. What fails before it has written anything is a problem; what fails
/// later breaks the body off, so that nobody takes it for whole.
async fn start(
    state: &ApiState,
    work: impl FnOnce(&dyn Maintenance, &mut Client) -> Result<(), StoreError> + Send + 'static,
) -> Result<Body, Problem> {
    let Ok(place) = Arc::clone(&state.maintenance).try_acquire_owned() else {
        return Err(Problem::busy("another backup, check or compaction is running; wait for its end"));
    };
    let (pieces, mut taken) = mpsc::channel(WAITING);
    let mut client = Client { pieces, runtime: Handle::current(), stop: state.stop.clone() };
    let maintenance = state.engine.store.maintenance();
    let _running = tasks::spawn_bounded(run(maintenance, move |maintenance| {
        let done = work(maintenance, &mut client);
        drop(place); // before the end is told: whoever has waited for it may ask for the next
        if let Err(error) = &done {
            tracing::warn!("what was asked of the store did not come to its end: {error}");
        }
        let _ = client.send(done.map(|()| END)); // the client may be why
    }));
    let first = match taken.recv().await {
        Some(Err(error)) => return Err(error.into()),
        first => first,
    };
    let rest = stream::unfold((first, taken), |(first, mut taken)| async move {
        let piece = if first.is_some() { first } else { taken.recv().await };
        match piece.unwrap_or_else(|| Err(StoreError::Unavailable("it was cut off".into()))) {
            Ok(piece) if piece.is_empty() => None,
            piece => Some((piece, (None, taken))),
        }
    });
    Ok(Body::from_stream(rest))
}

async fn run(maintenance: Arc<dyn Maintenance>, work: impl FnOnce(&dyn Maintenance) + Send + 'static) {
    if let Err(error) = tasks::in_background("store-maintenance", move || work(&*maintenance)).await {
        tracing::error!("what was asked of the store was cut off: {error}");
    }
}

/// The other end of the body, for a thread that blocks.
struct Client {
    pieces: mpsc::Sender<Piece>,
    runtime: Handle,
    stop: Stop,
}

impl Client {
    fn send(&self, piece: Piece) -> io::Result<()> {
        self.runtime.block_on(async {
            tokio::select! {
                biased;
                () = self.stop.stopped() => Err(io::Error::other("the server stops")),
                sent = tokio::time::timeout(PATIENCE, self.pieces.send(piece)) => match sent {
                    Ok(sent) => sent.map_err(|_| io::Error::other("the client has gone")),
                    Err(_) => Err(io::Error::other(format!("the client took nothing for {PATIENCE:?}"))),
                },
            }
        })
    }

    fn say(&self, value: &Value) -> io::Result<()> {
        self.send(Ok(Bytes::from(format!("{value}\n"))))
    }
}

impl Write for Client {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !bytes.is_empty() {
            self.send(Ok(Bytes::copy_from_slice(bytes)))?;
            let kibibytes = u32::try_from(bytes.len() >> 10).unwrap_or(u32::MAX);
            self.runtime.block_on(clock::pause(PAUSE_PER_KIBIBYTE * kibibytes));
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
