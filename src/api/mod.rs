//! The HTTP surface: JSON API, webhooks, event stream, health and metrics.
//!
//! [`server`] accepts connections, [`routes`] is the list of what there is, [`problem`] words every error.

mod actions;
mod chat;
mod events;
mod executions;
mod health;
mod keys;
mod listing;
pub mod openapi;
mod paging;
pub mod problem;
pub mod reload;
pub mod routes;
mod rules;
mod sensors;
pub mod server;
pub mod site;
mod store;
mod stream;
mod webhooks;

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::auth::Tokens;
use crate::engine::Engine;
use crate::journal::Journal;
use crate::tasks::Stop;

pub use routes::router;

/// What every handler works with.
pub struct ApiState {
    /// The engine.
    pub engine: Arc<Engine>,
    /// Takes events.
    pub journal: Arc<dyn Journal>,
    /// Who may use the API.
    pub tokens: Tokens,
    /// Webhooks without auth that other hosts may call.
    pub open_webhooks: BTreeSet<String>,
    /// Places for requests, for each webhook.
    pub webhook_places: Places,
    /// Reads the site again.
    pub reload: Arc<dyn reload::Reload>,
    /// Place for one backup, check or compaction at a time.
    pub maintenance: Arc<Semaphore>,
    /// What a client must know of the site.
    pub facts: site::SiteFacts,
    /// The largest body, in bytes.
    pub body_bytes: usize,
    /// Given when the server stops; ends streams.
    pub stop: Stop,
}

/// Places for requests to each webhook; webhooks come and go as the site is loaded again.
pub struct Places {
    each: usize,
    of: Mutex<HashMap<String, Arc<Semaphore>>>,
}

impl Places {
    /// So many for each.
    #[must_use]
    pub fn new(each: usize) -> Self {
        Self { each, of: Mutex::default() }
    }

    /// A place of a webhook that exists, if one is free.
    fn take(&self, webhook: &str) -> Option<OwnedSemaphorePermit> {
        let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        if !of.contains_key(webhook) {
            of.insert(webhook.to_string(), Arc::new(Semaphore::new(self.each)));
        }
        Arc::clone(of.get(webhook)?).try_acquire_owned().ok()
    }
}

/// The other end of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);
