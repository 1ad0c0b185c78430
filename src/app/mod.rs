//! The composition root: builds everything in one straight function, and takes it down in the reverse order.
//!
//! [`core`] is the engine with all that it needs; [`start`] adds what a process has that serves: a door, tokens, housekeeping, reload.

pub mod core;
pub mod reload;
pub mod restore;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use self::core::{Core, Teardown};
use crate::api::site::SiteFacts;
use crate::api::{self, ApiState, Places};
use crate::app::reload::{Origin, Reloader};
use crate::auth::{TokenError, Tokens};
use crate::clock::Clock;
use crate::config::{SiteConfig, StoreKind};
use crate::engine::recover::Recovered;
use crate::engine::supervise::Supervisor;
use crate::engine::{Engine, housekeeping};
use crate::journal::Journal;
use crate::model::ids::IdSource;
use crate::outbound::Transport;
use crate::outbound::network::Network;
use crate::pack::Site;
use crate::store::keyed::KeyedStore;
use crate::store::lock::FolderLock;
use crate::store::memory::MemorySpace;
use crate::store::migrate;
use crate::store::sled::SledSpace;
use crate::store::{Damage, Progress, Store, StoreError};
use crate::tasks::{Errands, Stop, Tasks};
use crate::telemetry;

/// The store's folder in the data folder.
pub const STORE_FOLDER: &str = "store";

/// Why the process cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The token file.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The address.
    #[error("cannot listen on {address}: {source}; is another Signalman running, or set `listen` in signalman.yaml")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What went wrong.
        source: std::io::Error,
    },
    /// Something else that the system refused.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What went wrong.
        source: std::io::Error,
    },
    /// The client for outgoing requests.
    #[error("cannot prepare outgoing requests: {0}")]
    Client(#[from] reqwest::Error),
}

/// The parts that can be chosen. `signalman serve` takes the real ones; a pack test takes a store in memory, a simulated clock, ids from a
/// seed and a scripted transport.
pub struct Parts {
    /// Everything durable.
    pub store: Arc<dyn Store>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Makes ids.
    pub ids: Arc<IdSource>,
    /// Carries requests to other systems.
    pub transport: Arc<dyn Transport>,
    /// Counts what is away on threads; the store should count in it, too.
    pub errands: Errands,
    /// Where the site was read from, so that it can be read again.
    pub origin: Option<Origin>,
}

impl Parts {
    /// These, and the network.
    ///
    /// # Errors
    /// When outgoing requests cannot be prepared.
    pub fn real(store: Arc<dyn Store>, clock: Arc<dyn Clock>, ids: Arc<IdSource>) -> Result<Self, StartError> {
        Ok(Self { store, clock, ids, transport: Arc::new(Network::new()?), errands: Errands::default(), origin: None })
    }
}

/// A running Signalman.
pub struct App {
    /// Where it listens.
    pub address: SocketAddr,
    /// The engine.
    pub engine: Arc<Engine>,
    /// Takes events.
    pub journal: Arc<dyn Journal>,
    /// Starts and stops sensors.
    pub supervisor: Arc<Supervisor>,
    /// Reads the site again.
    pub reload: Arc<Reloader>,
    /// What the start found left open.
    pub recovered: Recovered,
    teardown: Teardown,
}

/// Opens the store that the site asks for, alone.
///
/// # Errors
/// When another process has the folder, or the store cannot be opened.
pub fn open_store(config: &SiteConfig) -> Result<(Arc<dyn Store>, FolderLock), StoreError> {
    let lock = FolderLock::take(&config.data)?;
    let store = open_in(config)?;
    Ok((store, lock))
}

/// Opens the store that the site asks for; the caller holds the lock of the data folder.
///
/// # Errors
/// When the store cannot be opened.
pub fn open_in(config: &SiteConfig) -> Result<Arc<dyn Store>, StoreError> {
    Ok(match config.store {
        StoreKind::Memory => Arc::new(KeyedStore::new(MemorySpace::default())?),
        StoreKind::Embedded => {
            restore::settle(&config.data)?;
            Arc::new(migrate::open(&config.data.join(STORE_FOLDER))?)
        }
    })
}

/// Reads the whole store of a site that no server has, and tells what is damaged.
///
/// # Errors
/// When it cannot be read at all.
pub fn examine(config: &SiteConfig, progress: &mut Progress<'_>) -> Result<Vec<Damage>, StoreError> {
    let folder = config.data.join(STORE_FOLDER);
    if migrate::is_first_format(&folder) {
        return open_in(config)?.maintenance().check(progress);
    }
    KeyedStore::examine(SledSpace::open(&folder)?, progress)
}

/// Builds and starts everything.
///
/// # Errors
/// When a part cannot be started; what had been started is taken down.
pub async fn start(site: Site, parts: Parts) -> Result<App, StartError> {
    let config = site.config.clone();
    telemetry::mask_logs(site.masks());
    FolderLock::make_folder(&config.data).map_err(|source| StartError::System { what: "cannot make the data folder", source })?;
    let tokens = Tokens::open(&*parts.store, &config.data, &parts.ids).await?;
    let address = config.listen;
    let listener = TcpListener::bind(address).await.map_err(|source| StartError::Listen { address, source })?;
    let address = listener.local_addr().map_err(|source| StartError::System { what: "cannot tell the address", source })?;
    let origin = parts.origin.clone();
    let Core { engine, journal, supervisor, recovered, beside, mut teardown } = core::start(site, parts).await?;

    beside.spawn("housekeeping", |stop| housekeeping::run(Arc::clone(&engine), config.retention, stop));
    let reload = Arc::new(Reloader::new(Arc::clone(&engine), Arc::clone(&supervisor), origin));
    let (stop_server, server) = (Stop::new(), Arc::new(Tasks::new()));
    // Of a port that was chosen at the start nobody could have written the address.
    let is_written = config.public_url != format!("http://{}", config.listen);
    let public_url = if is_written { config.public_url.clone() } else { format!("http://{address}") };
    let state = ApiState {
        engine: Arc::clone(&engine),
        journal: Arc::clone(&journal),
        tokens,
        open_webhooks: config.open_webhooks.clone(),
        webhook_places: Places::new(config.limits.webhook_concurrency),
        reload: Arc::clone(&reload) as _,
        maintenance: Arc::new(Semaphore::new(1)),
        facts: SiteFacts { public_url, time_zone: config.time_zone.name().to_string() },
        body_bytes: config.limits.body_bytes,
        stop: stop_server.clone(),
    };
    server.spawn("server", api::server::serve(listener, api::router(Arc::new(state)), stop_server.clone()));
    teardown.push("server", core::end_tasks(stop_server, server));

    engine.load.set_ready();
    Ok(App { address, engine, journal, supervisor, reload, recovered, teardown })
}

impl App {
    /// Takes everything down, the last built first: no more requests, then no more evaluation, then actions end, then messages go out.
    pub async fn stop(self) {
        self.teardown.run().await;
    }
}

/// Reads a site and says what is wrong with it.
///
/// # Errors
/// The faults, as text, when the site cannot run.
pub fn load_site(folder: &Path, environment: &crate::config::Environment) -> Result<(Site, Vec<String>), Vec<String>> {
    let (site, faults) = crate::pack::load(folder, environment);
    let texts = faults.0.iter().map(ToString::to_string).collect();
    if faults.allow() { Ok((site, texts)) } else { Err(texts) }
}
