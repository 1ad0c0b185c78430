//! The thin shell: takes events, has them judged, commits, performs.
//!
//! The way of an event: [`ingest`] → [`evaluate`] (one commit: event, verdicts, executions) → [`conduct`] (one commit: starts and
//! outcomes) → a runner → [`conduct`] again → [`deliver`]. [`recover`] picks up what a crash left. [`why`] explains, [`rehearse`] tries a
//! rule on what has come.

pub mod board;
pub mod catalog;
pub mod children;
pub mod conduct;
pub mod converse;
pub mod deliver;
pub mod evaluate;
pub mod find;
pub mod holding;
pub mod host;
pub mod housekeeping;
pub mod ingest;
pub mod keys;
pub mod notices;
pub mod own;
pub mod plan;
pub mod recover;
pub mod rehearse;
pub mod ruling;
pub mod stream;
pub mod supervise;
pub mod switching;
pub mod why;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use serde_json::{Map, Value};
use tokio::sync::{Notify, Semaphore, mpsc};

use crate::clock::{self, Clock};
use crate::engine::board::Board;
use crate::engine::catalog::{Catalog, CatalogCell};
use crate::engine::conduct::Command;
use crate::engine::converse::Conversations;
use crate::engine::converse::progress::Progress;
use crate::engine::deliver::Outbox;
use crate::engine::holding::HoldCell;
use crate::engine::ruling::Ruling;
use crate::engine::stream::Stream;
use crate::journal::AcceptError;
use crate::model::action::bind;
use crate::model::event::{Cause, MAX_DEPTH};
use crate::model::execution::{Execution, Request};
use crate::model::ids::{ExecutionId, IdSource};
use crate::model::principal::Principal;
use crate::model::reason::Reason;
use crate::runners::ActionRunner;
use crate::store::{Batch, CommitError, Store, StoreError};
use crate::telemetry::Metrics;

/// What every part of the engine works with.
pub struct Engine {
    /// Everything durable.
    pub store: Arc<dyn Store>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Makes ids.
    pub ids: Arc<IdSource>,
    /// What the site's authors wrote.
    pub catalog: CatalogCell,
    /// What happens, for those who watch.
    pub stream: Stream,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Messages on their way.
    pub outbox: Outbox,
    /// Executions that have not ended, and how many there may be.
    pub load: Load,
    /// What the rules remember.
    pub ruling: Ruling,
    /// Told when an event of our own waits in the store.
    pub own_events: Notify,
    /// What is being talked about.
    pub conversations: Conversations,
    /// How far executions are that somebody asked for.
    pub progress: Progress,
    /// How every sensor does.
    pub sensors: Board,
    /// Whether automatic executions are held.
    pub hold: HoldCell,
    commands: mpsc::Sender<Command>,
    /// Places for plans.
    plans: Semaphore,
    runners: OnceLock<BTreeMap<&'static str, Arc<dyn ActionRunner>>>,
}

/// What an engine is made of.
pub struct EngineParts {
    /// Everything durable.
    pub store: Arc<dyn Store>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Makes ids.
    pub ids: Arc<IdSource>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Messages on their way.
    pub outbox: Outbox,
}

/// How much is under way, and whether more can be taken.
pub struct Load {
    open: AtomicUsize,
    limit: usize,
    ready: AtomicBool,
    broken: OnceLock<String>,
    refusing: Mutex<Option<String>>,
    refuses: AtomicBool,
}

impl Load {
    /// Nothing under way; not ready.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            open: AtomicUsize::new(0),
            limit,
            ready: AtomicBool::new(false),
            broken: OnceLock::new(),
            refusing: Mutex::default(),
            refuses: AtomicBool::new(false),
        }
    }

    /// Executions that have not ended.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Whether more can be taken.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.open() < self.limit && self.broken.get().is_none() && !self.refuses.load(Ordering::Acquire)
    }

    /// Why there is no room.
    #[must_use]
    pub fn full(&self) -> AcceptError {
        if let Some(broken) = self.broken.get() {
            return AcceptError::Unavailable(broken.clone());
        }
        let refusing = self.refusing.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let busy = || AcceptError::Overloaded(format!("{} executions have not ended; try again later", self.open()));
        refusing.map_or_else(busy, AcceptError::Unavailable)
    }

    /// Notes why nothing new is taken for now, or that it is again.
    pub fn set_refusing(&self, why: Option<String>) {
        self.refuses.store(why.is_some(), Ordering::Release);
        *self.refusing.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    /// Notes that a part that everything needs has ended by mistake: from now on nothing is taken, and the process says it is not ready.
    pub fn set_broken(&self, what: &str) {
        let _ = self.broken.set(format!("{what} has ended unexpectedly; see the log, and restart")); // the first is told
    }

    /// The part that has ended by mistake.
    #[must_use]
    pub fn broken(&self) -> Option<&str> {
        self.broken.get().map(String::as_str)
    }

    /// Whether what a crash left has been picked up.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    pub(crate) fn set_ready(&self) {
        self.ready.store(true, Ordering::Release);
    }

    fn opened(&self, count: usize) {
        self.open.fetch_add(count, Ordering::Relaxed);
    }

    fn closed(&self, count: usize) {
        self.open.fetch_sub(count, Ordering::Relaxed);
    }
}

/// How long a person waits for the conductor at most.
const ANSWER_TIME: std::time::Duration = std::time::Duration::from_secs(5);

/// Commands that may wait for the conductor.
pub const WAITING_COMMANDS: usize = 4_096;

/// Why a request of a person or token was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// What was given is wrong.
    #[error("{}", .0.join("; "))]
    Invalid(Vec<String>),
    /// It is no id, or stands for several.
    #[error("{0}")]
    NotAnId(String),
    /// It cannot be done now.
    #[error("{0}")]
    Conflict(String),
    /// Too much is under way.
    #[error("{0}")]
    Overloaded(String),
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<CommitError> for RequestError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Conflict { .. } => Self::Conflict(error.to_string()),
            CommitError::Store(error) => Self::Store(error),
        }
    }
}

/// Who asks for an execution, and how it came to that.
struct Asked {
    id: ExecutionId,
    by: Principal,
    depth: u32,
    parent: Option<ExecutionId>,
    rerun_of: Option<ExecutionId>,
}

/// Runs what must not be left half done when whoever waits for it goes away, as a client whose connection breaks.
///
/// # Errors
/// When it panicked, or the process ends.
pub async fn owned<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> Result<T, StoreError> {
    crate::tasks::spawn_bounded(work).await.map_err(|error| StoreError::Unavailable(format!("it was cut off: {error}")))
}

impl Engine {
    /// Puts the parts together; the receiver is for [`conduct::run`]. `sequence` is the number of the last commit.
    #[must_use]
    pub fn new(parts: EngineParts, catalog: Catalog, open_limit: usize, sequence: u64) -> (Arc<Self>, mpsc::Receiver<Command>) {
        let EngineParts { store, clock, ids, metrics, outbox } = parts;
        let (commands, inbox) = mpsc::channel(WAITING_COMMANDS);
        let engine = Self {
            store,
            clock,
            ids,
            catalog: CatalogCell::new(catalog),
            stream: Stream::new(sequence),
            sensors: Board::new(Arc::clone(&metrics)),
            metrics,
            outbox,
            load: Load::new(open_limit),
            ruling: Ruling::default(),
            own_events: Notify::new(),
            conversations: Conversations::default(),
            progress: Progress::default(),
            hold: HoldCell::default(),
            commands,
            plans: Semaphore::new(plan::AT_ONCE),
            runners: OnceLock::new(),
        };
        (Arc::new(engine), inbox)
    }

    /// Requests an execution for a person or token; durable on return.
    ///
    /// # Errors
    /// When there is no such action, the parameters do not fit, or nothing more can be taken.
    pub async fn request(
        &self,
        action: &str,
        parameters: &Map<String, Value>,
        by: Principal,
        cause: Option<Cause>,
    ) -> Result<Execution, RequestError> {
        let asked = self.asked(by, cause.as_ref(), None)?;
        self.ask(action, parameters, asked).await
    }

    /// Requests what an execution did once more, with some parameters changed; of an id of its own.
    ///
    /// # Errors
    /// As for [`Engine::request`], and when there is no such execution.
    pub async fn rerun(
        &self,
        id: ExecutionId,
        changed: Map<String, Value>,
        by: Principal,
        cause: Option<Cause>,
    ) -> Result<Execution, RequestError> {
        let Some(execution) = self.store.execution(id).await? else {
            return Err(RequestError::NotFound(format!("there is no execution {id}")));
        };
        let catalog = self.catalog.get();
        let action = catalog.actions.get(&execution.request.action);
        // What callers may not set stands in the record, and the action fills it in again.
        let fixed = |name: &str| action.is_some_and(|action| action.parameters.iter().any(|own| own.immutable && own.name == name));
        let mut parameters: Map<String, Value> = execution.request.parameters.into_iter().filter(|(name, _)| !fixed(name)).collect();
        parameters.extend(changed);
        let asked = self.asked(by, cause.as_ref(), Some(id))?;
        self.ask(&execution.request.action, &parameters, asked).await
    }

    /// Who asks, unless that would be a loop.
    fn asked(&self, by: Principal, cause: Option<&Cause>, rerun_of: Option<ExecutionId>) -> Result<Asked, RequestError> {
        let depth = cause.map_or(0, |cause| cause.depth.saturating_add(1));
        if depth > MAX_DEPTH {
            return Err(RequestError::Conflict(format!("refused as a loop: executions cause each other more than {MAX_DEPTH} steps deep")));
        }
        Ok(Asked { id: self.ids.execution(self.clock.now()), by, depth, parent: None, rerun_of })
    }

    async fn ask(&self, action: &str, parameters: &Map<String, Value>, asked: Asked) -> Result<Execution, RequestError> {
        let catalog = self.catalog.get();
        let Some(found) = catalog.actions.get(action) else { return Err(RequestError::NotFound(catalog.no_action(action))) };
        if !found.enabled {
            return Err(RequestError::Conflict(format!("action `{action}` is not enabled")));
        }
        let parameters = bind(&found.parameters, parameters).map_err(RequestError::Invalid)?;
        if !self.load.has_room() {
            return Err(match self.load.full() {
                AcceptError::Unavailable(why) => RequestError::Store(StoreError::Unavailable(why)),
                busy => RequestError::Overloaded(busy.to_string()),
            });
        }
        let now = self.clock.now();
        let request = Request {
            action: action.to_string(),
            parameters,
            requested_by: asked.by,
            requested_at: now,
            event: None,
            key: None,
            rerun_of: asked.rerun_of,
            depth: asked.depth,
            parent: asked.parent,
            notify: None,
            idempotent: found.idempotent,
            asked: None,
        };
        let execution = Arc::new(Execution::requested(asked.id, request, Reason::Requested));
        let batch = Batch { requested: vec![Arc::clone(&execution)], ..Batch::default() };
        let committed = self.store.commit(&batch).await?;
        self.stream.publish(committed.sequence, vec![stream::Item::Execution(Arc::clone(&execution))]);
        self.hand_over(vec![Arc::clone(&execution)]).await;
        Ok((*execution).clone())
    }

    /// Asks for an execution to be stopped. Returns its state right after.
    ///
    /// # Errors
    /// When it does not exist or has ended.
    pub async fn cancel(&self, id: ExecutionId, by: Principal) -> Result<Execution, RequestError> {
        let (reply, answer) = tokio::sync::oneshot::channel();
        let stopping = || RequestError::Conflict("the engine is stopping".into());
        self.commands.send(Command::Cancel { id, by: by.describe(), reply }).await.map_err(|_| stopping())?;
        let answer = tokio::select! {
            answer = answer => answer.map_err(|_| stopping())?,
            () = clock::sleep(&*self.clock, ANSWER_TIME) => return Err(RequestError::Overloaded("the store takes no changes now; see /readyz".into())),
        };
        if let Some(execution) = answer {
            return Ok(execution);
        }
        match self.store.execution(id).await? {
            Some(execution) if !execution.state.status.is_final() => {
                Err(RequestError::Conflict(format!("execution {} is being handed over; try again", id.short())))
            }
            Some(execution) => {
                Err(RequestError::Conflict(format!("execution {} has ended: {}", id.short(), execution.state.status.name())))
            }
            None => Err(RequestError::NotFound(format!("there is no execution {id}"))),
        }
    }

    fn opened(&self, count: usize) {
        self.load.opened(count);
        self.metrics.open_executions.add(i64::try_from(count).unwrap_or(0));
    }

    fn closed(&self, count: usize) {
        self.load.closed(count);
        self.metrics.open_executions.sub(i64::try_from(count).unwrap_or(0));
    }

    /// Gives committed executions to the conductor.
    async fn hand_over(&self, executions: Vec<Arc<Execution>>) {
        self.opened(executions.len());
        // Closed only when the engine stops; they are durable and start after the next start.
        let _ = self.commands.send(Command::Requested(executions)).await;
    }
}
