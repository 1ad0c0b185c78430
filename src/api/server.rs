//! Accepts connections and carries HTTP/1.1 on them, with a bound on how many there are and how long a client may dawdle.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;
use tower_service::Service;

use super::Peer;
use crate::clock;
use crate::tasks::Stop;

/// Connections at once; more wait in the system's queue.
const CONNECTIONS: usize = 8_192;

/// How long a client may take to send the head of a request, and how long a connection may be idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// How long requests may take to end when the server stops.
const FINISH: Duration = Duration::from_secs(5);

/// Serves until the stop signal, then lets requests end.
pub async fn serve(listener: TcpListener, router: Router, stop: Stop) {
    let (places, connections) = (Arc::new(Semaphore::new(CONNECTIONS)), TaskTracker::new());
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { break };
        let (stream, peer) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Usually no file handles left; the next ones may be.
                    tracing::warn!("a connection cannot be accepted: {error}");
                    clock::pause(Duration::from_millis(100)).await;
                    continue;
                }
            },
            () = stop.stopped() => break,
        };
        let (router, stop) = (router.clone(), stop.clone());
        connections.spawn(async move {
            connection(stream, peer, router, stop).await;
            drop(place);
        });
    }
    connections.close();
    if tokio::time::timeout(FINISH, connections.wait()).await.is_err() {
        tracing::warn!("requests did not end in {FINISH:?} and are cut off");
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, router: Router, stop: Stop) {
    let _ = stream.set_nodelay(true); // a connection that has gone already; the next line will notice
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let mut router = router.clone();
        async move {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(Peer(peer));
            match router.call(request).await {
                Ok(response) => Ok::<_, Infallible>(response),
                Err(never) => match never {},
            }
        }
    });
    let connection =
        http1::Builder::new().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.stopped() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, "a connection broke off: {error}");
    }
}
