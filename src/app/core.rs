//! The engine with all that it needs and nothing that others call: no address, no tokens, no housekeeping. What `signalman serve` runs behind
//! its door, `signalman pack test` runs without one.

use std::collections::{BTreeMap, HashSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use super::{Parts, StartError};
use crate::chat::{ChatAdapter, adapters};
use crate::clock::Clock;
use crate::config::SiteConfig;
use crate::engine::catalog::Catalog;
use crate::engine::conduct::{self, ATTEMPTS_AT_ONCE, RunnerTable};
use crate::engine::converse::progress;
use crate::engine::deliver::{self, Outbox};
use crate::engine::host::EngineHost;
use crate::engine::recover::{self, Recovered};
use crate::engine::supervise::Supervisor;
use crate::engine::{Engine, EngineParts, evaluate, holding, own, ruling, switching};
use crate::journal::{Journal, inline};
use crate::model::hash::Revision;
use crate::pack::Site;
use crate::runners::{self, Limits};
use crate::script::host::Surroundings;
use crate::store::{Batch, CommitError, Page, Ruleset, Store, StoreError};
use crate::tasks::{Stop, Tasks};
use crate::telemetry::Metrics;

/// Rules stored in one commit.
const DEFINITIONS_TOGETHER: usize = 256;

/// How long actions that run may go on when the process is asked to stop.
const DRAIN: Duration = Duration::from_secs(10);

/// The engine, at work.
pub struct Core {
    /// The engine.
    pub engine: Arc<Engine>,
    /// Takes events.
    pub journal: Arc<dyn Journal>,
    /// Starts and stops sensors.
    pub supervisor: Arc<Supervisor>,
    /// What the start found left open.
    pub recovered: Recovered,
    /// What runs beside.
    pub beside: Beside,
    /// How it is taken down.
    pub teardown: Teardown,
}

/// Tasks beside the way of an event; they end before evaluation does.
pub struct Beside {
    tasks: Arc<Tasks>,
    stop: Stop,
}

impl Beside {
    /// Starts another one.
    pub fn spawn<F: Future<Output = ()> + Send + 'static>(&self, name: &'static str, work: impl FnOnce(Stop) -> F) {
        self.tasks.spawn_critical(name, self.stop.clone(), work(self.stop.clone()), |_| {});
    }
}

/// What takes everything down, in the order in which it was built.
#[derive(Default)]
pub struct Teardown(Vec<(&'static str, Work)>);

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Teardown {
    /// Notes how what was built last is taken down.
    pub fn push(&mut self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        self.0.push((name, Box::pin(work)));
    }

    /// Takes everything down, the last built first.
    pub async fn run(mut self) {
        while let Some((name, work)) = self.0.pop() {
            tracing::debug!("stopping: {name}");
            work.await;
        }
    }
}

/// Builds the engine and starts it; sensors run at once.
///
/// # Errors
/// When a part cannot be started.
pub async fn start(site: Site, parts: Parts) -> Result<Core, StartError> {
    let Parts { store, clock, ids, transport, errands, origin: _ } = parts;
    let config = site.config.clone();
    let mut teardown = Teardown::default();
    let ruleset = store_rules(&*store, &site, &*clock).await?;

    let host = Arc::new(EngineHost::default());
    let surroundings = Arc::new(Surroundings {
        host: Arc::clone(&host) as _,
        clock: Arc::clone(&clock),
        http: transport,
        runtime: tokio::runtime::Handle::current(),
        errands,
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

    holding::load(&engine).await?;
    let (open, recovered) = recover::settle(&engine).await?;
    ruling::load(&engine).await?;

    // From the last consumer to the first producer, so that nothing is produced before somebody takes it.
    let (stop_delivery, delivery) = (Stop::new(), Arc::new(Tasks::new()));
    for postman in postmen {
        let work = deliver::run(Arc::clone(&engine), postman, stop_delivery.clone());
        delivery.spawn_critical("delivery", stop_delivery.clone(), work, |_| {});
    }
    teardown.push("delivery", end_tasks(stop_delivery, Arc::clone(&delivery)));

    let (drain, stop_conductor, conductor) = (Stop::new(), Stop::new(), Arc::new(Tasks::new()));
    let work = conduct::run(Arc::clone(&engine), table, open, commands, drain.clone(), stop_conductor.clone());
    conductor.spawn_critical("conductor", drain.clone(), work, mark_broken(&engine));
    teardown.push("conductor", async move {
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
    teardown.push("evaluator", end_tasks(stop_evaluator, evaluator));

    let beside = Beside { tasks: Arc::new(Tasks::new()), stop: Stop::new() };
    beside.spawn("events of our own", |stop| own::run(Arc::clone(&engine), Arc::clone(&journal), stop));
    beside.spawn("progress", |stop| progress::run(Arc::clone(&engine), stop));
    let (tasks, stop) = (Arc::clone(&beside.tasks), beside.stop.clone());
    let supervisor = Arc::new(Supervisor::new(Arc::clone(&engine), Arc::clone(&journal), surroundings, tasks, stop));
    supervisor.apply(&sensors);
    teardown.push("sensors and housekeeping", end_tasks(beside.stop.clone(), Arc::clone(&beside.tasks)));
    Ok(Core { engine, journal, supervisor, recovered, beside, teardown })
}

fn mark_broken(engine: &Arc<Engine>) -> impl FnOnce(&str) + Send + 'static {
    let engine = Arc::clone(engine);
    move |name| engine.load.set_broken(name)
}

pub(super) async fn end_tasks(stop: Stop, tasks: Arc<Tasks>) {
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
pub(super) async fn store_rules(store: &dyn Store, site: &Site, clock: &dyn Clock) -> Result<u64, StoreError> {
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
