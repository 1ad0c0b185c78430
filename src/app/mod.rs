//! The composition root: builds everything in one straight function, and takes it down in the reverse order.

pub mod reload;
pub mod restore;

use std::collections::{BTreeMap, HashSet};
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::api::{self, ApiState, Places};
use crate::app::reload::{Origin, Reloader};
use crate::auth::{TokenError, Tokens};
use crate::chat::{ChatAdapter, adapters};
use crate::clock::Clock;
use crate::config::{SiteConfig, StoreKind};
use crate::engine::catalog::Catalog;
use crate::engine::conduct::{self, ATTEMPTS_AT_ONCE, RunnerTable};
use crate::engine::deliver::{self, Outbox};
use crate::engine::host::EngineHost;
use crate::engine::recover::{self, Recovered};
use crate::engine::supervise::Supervisor;
use crate::engine::{Engine, EngineParts, evaluate, housekeeping, own, ruling, switching};
use crate::journal::{Journal, inline};
use crate::model::hash::Revision;
use crate::model::ids::IdSource;
use crate::outbound;
use crate::pack::Site;
use crate::runners::{self, Limits};
use crate::script::host::Surroundings;
use crate::store::keyed::KeyedStore;
use crate::store::lock::FolderLock;
use crate::store::memory::MemorySpace;
use crate::store::migrate;
use crate::store::sled::SledSpace;
use crate::store::{Batch, CommitError, Damage, Page, Progress, Ruleset, Store, StoreError};
use crate::tasks::{Stop, Tasks};
use crate::telemetry::{self, Metrics};

/// The store's folder in the data folder.
pub const STORE_FOLDER: &str = "store";

/// Rules stored in one commit.
const DEFINITIONS_TOGETHER: usize = 256;

/// How long actions that run may go on when the process is asked to stop.
const DRAIN: Duration = Duration::from_secs(10);

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

/// The parts that a test may choose.
pub struct Parts {
    /// Everything durable.
    pub store: Arc<dyn Store>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Makes ids.
    pub ids: Arc<IdSource>,
    /// Where the site was read from, so that it can be read again.
    pub origin: Option<Origin>,
}

type Teardown = Pin<Box<dyn Future<Output = ()> + Send>>;

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
    teardown: Vec<(&'static str, Teardown)>,
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
    let Parts { store, clock, ids, origin } = parts;
    let config = site.config.clone();
    telemetry::mask_logs(site.masks());
    let mut teardown: Vec<(&'static str, Teardown)> = Vec::new();
    let tasks = Arc::new(Tasks::new());

    FolderLock::make_folder(&config.data).map_err(|source| StartError::System { what: "cannot make the data folder", source })?;
    let tokens = Tokens::open(&*store, &config.data, &ids).await?;
    let ruleset = store_rules(&*store, &site, &*clock).await?;

    let host = Arc::new(EngineHost::default());
    let surroundings = Arc::new(Surroundings {
        host: Arc::clone(&host) as _,
        clock: Arc::clone(&clock),
        http: outbound::client()?,
        runtime: tokio::runtime::Handle::current(),
    });
    let table = runner_table(&surroundings, &config);
    let (outbox, postmen) = Outbox::new(chat_adapters(&config));
    let metrics = Arc::new(Metrics::new());
    let switches = switching::load(&*store).await?;
    let switches = Arc::new(switching::follow_files(&*store, &site.rules, &switches, clock.now()).await?);
    let catalog = Catalog::of(site, ruleset, switches, clock.now());
    let sensors = catalog.sensors.clone();
    let sequence = store.sequence().await?;
    // The clock may have gone back since the last run; ids must not.
    if let Some(newest) = store.events(Page { before: None, limit: 1 }).await?.first() {
        ids.continue_after(newest.event.id);
    }
    let parts = EngineParts { store, clock, ids, metrics, outbox };
    let (engine, commands) = Engine::new(parts, catalog, config.limits.open_executions, sequence);
    host.set(&engine);

    let address = config.listen;
    let listener = TcpListener::bind(address).await.map_err(|source| StartError::Listen { address, source })?;
    let address = listener.local_addr().map_err(|source| StartError::System { what: "cannot tell the address", source })?;
    let (open, recovered) = recover::settle(&engine).await?;
    ruling::load(&engine).await?;

    // From the last consumer to the first producer, so that nothing is produced before somebody takes it.
    let (stop_delivery, delivery) = (Stop::new(), Arc::new(Tasks::new()));
    for postman in postmen {
        let work = deliver::run(Arc::clone(&engine), postman, stop_delivery.clone());
        delivery.spawn_critical("delivery", stop_delivery.clone(), work, |_| {});
    }
    push(&mut teardown, "delivery", end_tasks(stop_delivery, Arc::clone(&delivery)));

    let (drain, stop_conductor, conductor) = (Stop::new(), Stop::new(), Arc::new(Tasks::new()));
    let work = conduct::run(Arc::clone(&engine), table, open, commands, drain.clone(), stop_conductor.clone());
    conductor.spawn_critical("conductor", drain.clone(), work, mark_broken(&engine));
    push(&mut teardown, "conductor", async move {
        drain.stop();
        if !conductor.ended_within(DRAIN).await {
            tracing::warn!("actions still run after {DRAIN:?} and are stopped; the next start settles them");
        }
        stop_conductor.stop();
        conductor.join().await;
    });

    let (journal, deliveries) = inline::channel();
    let journal: Arc<dyn Journal> = Arc::new(journal);
    let (stop_evaluator, evaluator) = (Stop::new(), Arc::new(Tasks::new()));
    let work = evaluate::run(Arc::clone(&engine), deliveries, stop_evaluator.clone());
    evaluator.spawn_critical("evaluator", stop_evaluator.clone(), work, mark_broken(&engine));
    push(&mut teardown, "evaluator", end_tasks(stop_evaluator, evaluator));

    let stop_background = Stop::new();
    let work = housekeeping::run(Arc::clone(&engine), config.retention, stop_background.clone());
    tasks.spawn_critical("housekeeping", stop_background.clone(), work, |_| {});
    let work = own::run(Arc::clone(&engine), Arc::clone(&journal), stop_background.clone());
    tasks.spawn_critical("events of our own", stop_background.clone(), work, |_| {});
    let (tasks_of_sensors, stop) = (Arc::clone(&tasks), stop_background.clone());
    let supervisor = Arc::new(Supervisor::new(Arc::clone(&engine), Arc::clone(&journal), surroundings, tasks_of_sensors, stop));
    supervisor.apply(&sensors);
    let reload = Arc::new(Reloader::new(Arc::clone(&engine), Arc::clone(&supervisor), origin));
    push(&mut teardown, "sensors and housekeeping", end_tasks(stop_background, tasks));

    let (stop_server, server) = (Stop::new(), Arc::new(Tasks::new()));
    let state = ApiState {
        engine: Arc::clone(&engine),
        journal: Arc::clone(&journal),
        tokens,
        open_webhooks: config.open_webhooks.clone(),
        webhook_places: Places::new(config.limits.webhook_concurrency),
        reload: Arc::clone(&reload) as _,
        maintenance: Arc::new(Semaphore::new(1)),
        body_bytes: config.limits.body_bytes,
        stop: stop_server.clone(),
    };
    server.spawn("server", api::server::serve(listener, api::router(Arc::new(state)), stop_server.clone()));
    push(&mut teardown, "server", end_tasks(stop_server, server));

    engine.load.set_ready();
    Ok(App { address, engine, journal, supervisor, reload, recovered, teardown })
}

impl App {
    /// Takes everything down, the last built first: no more requests, then no more evaluation, then actions end, then messages go out.
    pub async fn stop(mut self) {
        while let Some((name, teardown)) = self.teardown.pop() {
            tracing::debug!("stopping: {name}");
            teardown.await;
        }
    }
}

fn push(teardown: &mut Vec<(&'static str, Teardown)>, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
    teardown.push((name, Box::pin(work)));
}

fn mark_broken(engine: &Arc<Engine>) -> impl FnOnce(&str) + Send + 'static {
    let engine = Arc::clone(engine);
    move |name| engine.load.set_broken(name)
}

async fn end_tasks(stop: Stop, tasks: Arc<Tasks>) {
    stop.stop();
    tasks.join().await;
}

fn runner_table(surroundings: &Arc<Surroundings>, config: &SiteConfig) -> RunnerTable {
    let limits = Limits { script_threads: config.limits.script_threads };
    let mut runners = BTreeMap::new();
    for kind in runners::KINDS {
        let runner = (kind.build)(surroundings, limits);
        let places = if kind.needs_script { limits.script_threads } else { ATTEMPTS_AT_ONCE };
        runners.insert(kind.name, (runner, places));
    }
    RunnerTable { runners }
}

fn chat_adapters(config: &SiteConfig) -> BTreeMap<String, Arc<dyn ChatAdapter>> {
    let built = config.chat.iter().filter_map(|(name, kind)| Some((name.clone(), (adapters::kind(kind)?.build)(name))));
    built.collect()
}

/// Stores the rules if they differ from those stored last; the number of their set.
async fn store_rules(store: &dyn Store, site: &Site, clock: &dyn Clock) -> Result<u64, StoreError> {
    let mut rules: Vec<_> = site.rules.iter().map(|rule| (rule.rule.reference.to_string(), rule.revision())).collect();
    rules.sort();
    let last = store.ruleset(None).await?;
    if let Some(last) = last.as_ref().filter(|last| last.rules == rules) {
        return Ok(last.number);
    }
    let number = last.as_ref().map_or(0, |last| last.number) + 1;
    // A rule that is in the last set is stored; many are stored a few at a time, so that other commits are not held up.
    let known: HashSet<&Revision> = last.iter().flat_map(|last| &last.rules).map(|(_, revision)| revision).collect();
    let new: Vec<_> = site.rules.iter().filter(|rule| !known.contains(&rule.revision())).collect();
    for rules in new.chunks(DEFINITIONS_TOGETHER) {
        let definitions = rules.iter().map(|rule| (rule.revision(), serde_json::json!(rule.rule))).collect();
        store_batch(store, &Batch { definitions, ..Batch::default() }).await?;
    }
    let batch = Batch { ruleset: Some(Ruleset { number, since: clock.now(), rules }), ..Batch::default() };
    store_batch(store, &batch).await?;
    Ok(number)
}

async fn store_batch(store: &dyn Store, batch: &Batch) -> Result<(), StoreError> {
    match store.commit(batch).await {
        Ok(_) => Ok(()),
        Err(CommitError::Store(error)) => Err(error),
        Err(CommitError::Conflict { what }) => Err(StoreError::Unavailable(format!("{what} was stored by another process"))),
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
