//! The conductor: one task that owns every execution that has not ended. It takes all that is ready (new ones, outcomes, due
//! retries, cancels), changes the states, commits them together, and only then performs: starts attempts, stops work, tells.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::FutureExt;
use tokio::sync::{mpsc, oneshot};

use super::stream::Item;
use super::{Engine, notices, own};
use crate::clock::{self, Clock};
use crate::model::action::{Action, RetryOn};
use crate::model::execution::{Change, Execution, Status};
use crate::model::ids::ExecutionId;
use crate::model::principal::Principal;
use crate::model::reason::Reason;
use crate::model::secret::Masks;
use crate::runners::{ActionCall, ActionRunner, Output, RunContext, RunError};
use crate::store::{Batch, CommitError};
use crate::tasks::{self, Stop};

/// What the conductor is told.
pub enum Command {
    /// Executions that are durable and not started.
    Requested(Vec<Arc<Execution>>),
    /// The store works again after a failure: what is open there and unknown here was committed without anybody being told.
    Resync(Vec<Execution>),
    /// An attempt has ended.
    Ended {
        /// Whose.
        id: ExecutionId,
        /// How.
        outcome: Result<Output, RunError>,
    },
    /// A script waits for an execution that it has asked for, and gives its place back meanwhile; answers once that has ended and this is
    /// durable, or at once with nothing if it is not open.
    Await {
        /// Whose script.
        parent: ExecutionId,
        /// What it waits for.
        child: ExecutionId,
        /// The way back.
        reply: oneshot::Sender<Option<Arc<Execution>>>,
    },
    /// Someone wants it stopped; answers with the state right after, or nothing if it is not open.
    Cancel {
        /// Which.
        id: ExecutionId,
        /// Who.
        by: String,
        /// The way back.
        reply: oneshot::Sender<Option<Execution>>,
    },
    /// A person holds automatic executions, or lets go; answers once that is so.
    HoldChanged(oneshot::Sender<()>),
}

/// Commands that are handled in one commit at most.
const COMMANDS_TOGETHER: usize = 256;

/// How long a runner may take to end after it was told to; then it is given up.
const RUNNER_GRACE: Duration = Duration::from_secs(5);

/// The pause before a commit that failed is tried again.
const COMMIT_PAUSE: Duration = Duration::from_millis(500);

/// Attempts that run at once, for runners that need no thread of their own.
pub const ATTEMPTS_AT_ONCE: usize = 256;

/// The runners of the site and how many attempts each may carry at once.
pub struct RunnerTable {
    /// Runner and number of attempts at once, by kind.
    pub runners: BTreeMap<&'static str, (Arc<dyn ActionRunner>, usize)>,
}

/// What is carried out by one runner for one action; in order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct LaneKey {
    runner: &'static str,
    pack: String,
    action: String,
    /// Whether a crash does no harm to what was started and not begun: it is simply tried again. As it was when it was asked for, so
    /// that a change of the action does not change what waits.
    idempotent: bool,
    /// Whether a rule asked for it, so that it can be held.
    automatic: bool,
}

#[derive(Default)]
struct Lane {
    waiting: VecDeque<ExecutionId>,
    /// Those that run, the oldest first.
    running: BTreeSet<(DateTime<Utc>, ExecutionId)>,
    /// Those that run, and have given their places back while they wait for others.
    lent: BTreeSet<(DateTime<Utc>, ExecutionId)>,
    /// How long its attempts take lately, in milliseconds.
    pace_ms: Option<f64>,
}

/// Idempotent attempts of this length or less are started ahead, so that the next ones are there when a thread becomes free: a start
/// must be durable first, and a commit takes longer than a short script.
const AHEAD_MS: f64 = 20.0;

/// How many times the places of a runner may be started ahead at most.
const AHEAD_AT_MOST: f64 = 8.0;

impl Lane {
    /// How many attempts one place of the runner is worth.
    fn ahead(&self, key: &LaneKey, now: DateTime<Utc>) -> f64 {
        let Some(pace) = self.pace_ms.filter(|_| key.idempotent) else { return 1.0 };
        // One that hangs says more than those before it.
        let oldest = self.running.first().map_or(0.0, |(since, _)| milliseconds(now - *since));
        (AHEAD_MS / pace.max(oldest).max(0.001)).clamp(1.0, AHEAD_AT_MOST)
    }

    /// The places that are taken, if so many attempts run.
    fn places(&self, key: &LaneKey, running: usize, now: DateTime<Utc>) -> f64 {
        #[allow(clippy::cast_precision_loss, reason = "a small number")]
        let running = running as f64;
        running / self.ahead(key, now)
    }

    fn ended(&mut self, started_at: Option<DateTime<Utc>>, id: ExecutionId, now: DateTime<Utc>) {
        let Some(started_at) = started_at else { return };
        if self.running.remove(&(started_at, id)) | self.lent.remove(&(started_at, id)) {
            let took = milliseconds(now - started_at);
            self.pace_ms = Some(self.pace_ms.map_or(took, |pace| pace * 0.9 + took * 0.1));
        }
    }
}

fn milliseconds(span: chrono::Duration) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "microseconds of an attempt fit a double")]
    let microseconds = span.num_microseconds().unwrap_or(i64::MAX) as f64;
    microseconds / 1_000.0
}

/// A script that waits for an execution.
struct Waiter {
    parent: ExecutionId,
    reply: oneshot::Sender<Option<Arc<Execution>>>,
}

/// An execution that has not ended.
struct Open {
    execution: Arc<Execution>,
    stop: Option<Stop>,
    lane: LaneKey,
}

struct Conductor {
    engine: Arc<Engine>,
    table: RunnerTable,
    open: HashMap<ExecutionId, Open>,
    lanes: BTreeMap<LaneKey, Lane>,
    /// Who waits for an execution.
    waiters: HashMap<ExecutionId, Vec<Waiter>>,
    due: BinaryHeap<Reverse<(DateTime<Utc>, ExecutionId)>>,
    commands: mpsc::Sender<Command>,
    /// Taken in by a resync; whoever asked for them may still say so.
    resynced: HashSet<ExecutionId>,
    /// Waiting, and to be marked as held.
    to_mark: VecDeque<ExecutionId>,
    drain: Stop,
    stop: Stop,
}

/// What is to be done once the commit is durable.
#[derive(Default)]
struct Effects {
    batch: Batch,
    changed: Vec<ExecutionId>,
    starts: Vec<(ActionCall, RunContext, &'static str)>,
    stops: Vec<Stop>,
    replies: Vec<(oneshot::Sender<Option<Execution>>, Option<Execution>)>,
    told: Vec<oneshot::Sender<()>>,
    closed: usize,
}

/// Runs until the stop signal; what runs then is stopped, and settled at the next start. After the drain signal nothing is started
/// any more, and it returns when nothing runs.
pub async fn run(
    engine: Arc<Engine>,
    table: RunnerTable,
    recovered: Vec<Execution>,
    mut inbox: mpsc::Receiver<Command>,
    drain: Stop,
    stop: Stop,
) {
    let _ = engine.runners.set(table.runners.iter().map(|(kind, (runner, _))| (*kind, Arc::clone(runner))).collect());
    let commands = engine.commands.clone();
    let mut conductor = Conductor {
        engine,
        table,
        open: HashMap::new(),
        lanes: BTreeMap::new(),
        waiters: HashMap::new(),
        due: BinaryHeap::new(),
        commands,
        resynced: HashSet::new(),
        to_mark: VecDeque::new(),
        drain: drain.clone(),
        stop: stop.clone(),
    };
    for execution in recovered {
        conductor.admit(Arc::new(execution));
    }
    let mut ready = Vec::with_capacity(COMMANDS_TOGETHER);
    loop {
        let mut effects = Effects::default();
        conductor.take(std::mem::take(&mut ready), &mut effects);
        conductor.wake_due();
        if !drain.is_stopped() {
            conductor.start_next(&mut effects);
        }
        conductor.mark_held(&mut effects);
        if !conductor.commit_and_perform(effects).await || conductor.is_drained() {
            return;
        }
        let next_due = conductor.due.peek().map(|Reverse((at, _))| *at);
        if !conductor.to_mark.is_empty() {
            continue;
        }
        if !drain.is_stopped() && next_due.is_some_and(|at| at <= conductor.engine.clock.now()) {
            continue;
        }
        tokio::select! {
            biased;
            () = stop.stopped() => return,
            () = drain.stopped(), if !drain.is_stopped() => {}
            count = inbox.recv_many(&mut ready, COMMANDS_TOGETHER) => if count == 0 { return },
            () = until(&conductor.engine, next_due), if !drain.is_stopped() => {}
        }
    }
}

async fn until(engine: &Engine, at: Option<DateTime<Utc>>) {
    match at {
        Some(at) => engine.clock.sleep_until(at).await,
        None => std::future::pending().await,
    }
}

impl Conductor {
    fn is_drained(&self) -> bool {
        self.drain.is_stopped() && self.lanes.values().all(|lane| lane.running.is_empty() && lane.lent.is_empty())
    }

    /// Takes an execution into the books: it waits for its turn or for its time.
    fn admit(&mut self, execution: Arc<Execution>) {
        let id = execution.id;
        let catalog = self.engine.catalog.get();
        // A kind that has gone with its action fails when its turn comes; any lane will do.
        let runner =
            catalog.actions.get(&execution.request.action).and_then(|action| self.table.runners.get_key_value(action.runner.as_str()));
        let action = execution.request.action.clone();
        let pack = action.split('.').next().unwrap_or_default().to_string();
        // What the script of one that runs asks for is asked for by an execution, and belongs to what runs already.
        let automatic = matches!(execution.request.requested_by, Principal::Rule(_));
        let runner = runner.map_or("", |(name, _)| *name);
        let lane = LaneKey { runner, pack, action, idempotent: execution.request.idempotent, automatic };
        match execution.state.next_attempt_at {
            Some(at) if execution.state.status == Status::Delayed => self.due.push(Reverse((at, id))),
            _ => self.wait_in(&lane, id),
        }
        self.open.insert(id, Open { execution, stop: None, lane });
    }

    /// Puts one at the end of those that wait for their turn.
    fn wait_in(&mut self, lane: &LaneKey, id: ExecutionId) {
        if lane.automatic && self.engine.hold.get().is_some() {
            self.to_mark.push_back(id);
        }
        self.lanes.entry(lane.clone()).or_default().waiting.push_back(id);
    }

    /// Says of those that a hold keeps from starting that it does.
    fn mark_held(&mut self, effects: &mut Effects) {
        if self.engine.hold.get().is_none() {
            self.to_mark.clear();
        }
        for id in self.to_mark.drain(..self.to_mark.len().min(COMMANDS_TOGETHER)).collect::<Vec<_>>() {
            let Some(open) = self.open.get_mut(&id) else { continue };
            let state = &open.execution.state;
            let waits = matches!(state.status, Status::Requested | Status::Delayed) && state.reason != Reason::Held;
            if waits && Arc::make_mut(&mut open.execution).change(Change::Held).is_ok() {
                self.record(id, effects);
            }
        }
    }

    fn take(&mut self, commands: Vec<Command>, effects: &mut Effects) {
        for command in commands {
            match command {
                Command::Requested(executions) => {
                    for execution in executions {
                        if self.resynced.remove(&execution.id) {
                            self.engine.closed(1); // counted by the resync already
                        } else {
                            self.admit(execution);
                        }
                    }
                }
                Command::Resync(executions) => {
                    for execution in executions {
                        let waits = matches!(execution.state.status, Status::Requested | Status::Delayed);
                        if waits && !self.open.contains_key(&execution.id) {
                            self.engine.opened(1);
                            self.resynced.insert(execution.id);
                            self.admit(Arc::new(execution));
                        }
                    }
                }
                Command::Ended { id, outcome } => self.end(id, outcome, effects),
                Command::Await { parent, child, reply } => self.wait(parent, child, reply),
                Command::Cancel { id, by, reply } => {
                    let answer = self.cancel(id, by, effects);
                    effects.replies.push((reply, answer));
                }
                Command::HoldChanged(reply) => {
                    let automatic = self.lanes.iter().filter(|(key, _)| key.automatic);
                    self.to_mark = automatic.flat_map(|(_, lane)| lane.waiting.iter().copied()).collect();
                    effects.told.push(reply);
                }
            }
        }
    }

    /// A script waits for an execution: its place is free until that has ended.
    fn wait(&mut self, parent: ExecutionId, child: ExecutionId, reply: oneshot::Sender<Option<Arc<Execution>>>) {
        if !self.open.contains_key(&child) {
            let _ = reply.send(None); // the script has been ended meanwhile
            return;
        }
        self.lend(parent, true);
        self.waiters.entry(child).or_default().push(Waiter { parent, reply });
    }

    /// Moves a running execution between those that have a place and those that have lent theirs.
    fn lend(&mut self, id: ExecutionId, lend: bool) {
        let Some(open) = self.open.get(&id) else { return };
        let (Some(lane), Some(at)) = (self.lanes.get_mut(&open.lane), open.execution.state.started_at) else { return };
        let (from, to) = if lend { (&mut lane.running, &mut lane.lent) } else { (&mut lane.lent, &mut lane.running) };
        if from.remove(&(at, id)) {
            to.insert((at, id));
        }
    }

    /// An execution has ended, and that is durable: whoever waits goes on.
    fn tell_waiters(&mut self, ended: &Arc<Execution>) {
        for waiter in self.waiters.remove(&ended.id).unwrap_or_default() {
            self.lend(waiter.parent, false);
            let _ = waiter.reply.send(Some(Arc::clone(ended))); // it has been ended meanwhile
        }
    }

    fn cancel(&mut self, id: ExecutionId, by: String, effects: &mut Effects) -> Option<Execution> {
        let waits_for: Vec<ExecutionId> = self
            .waiters
            .iter()
            .filter(|(_, waiters)| waiters.iter().any(|waiter| waiter.parent == id && !waiter.reply.is_closed()))
            .map(|(child, _)| *child)
            .collect();
        for child in waits_for {
            self.cancel(child, by.clone(), effects);
        }
        let at = self.engine.clock.now();
        let open = self.open.get_mut(&id)?;
        if open.execution.state.status == Status::Canceling {
            return Some(Execution::clone(&open.execution));
        }
        Arc::make_mut(&mut open.execution).change(Change::Cancel { at, by }).ok()?;
        effects.stops.extend(open.stop.clone());
        let after = Execution::clone(&open.execution);
        self.record(id, effects);
        Some(after)
    }

    /// An attempt has ended: decide what follows.
    fn end(&mut self, id: ExecutionId, outcome: Result<Output, RunError>, effects: &mut Effects) {
        let now = self.engine.clock.now();
        let catalog = self.engine.catalog.get();
        let Some(open) = self.open.get_mut(&id) else { return };
        open.stop = None;
        if let Some(lane) = self.lanes.get_mut(&open.lane) {
            lane.ended(open.execution.state.started_at, id, now);
        }
        let canceling = open.execution.state.status == Status::Canceling;
        let action = catalog.actions.get(&open.execution.request.action);
        let change = match outcome {
            Ok(Output { result, log }) => Change::Succeed { at: now, result, log },
            Err(error) if canceling => Change::Stopped { at: now, log: error.log },
            Err(error) => match next_attempt(&open.execution, action.map(AsRef::as_ref), &error) {
                Some(pause) => {
                    let until = now + chrono::Duration::from_std(pause).unwrap_or_default();
                    self.due.push(Reverse((until, id)));
                    Change::Delay { until, error: error.message, log: error.log }
                }
                None => Change::Fail { at: now, reason: error.reason, error: error.message, log: error.log },
            },
        };
        Arc::make_mut(&mut open.execution).change(change).expect("a running execution can end, be delayed or be canceled");
        self.record(id, effects);
    }

    /// Puts the execution's state into the commit; what has ended leaves the books.
    fn record(&mut self, id: ExecutionId, effects: &mut Effects) {
        let Some(open) = self.open.get(&id) else { return };
        self.engine.progress.note(&open.execution);
        effects.batch.states.push((id, open.execution.state.clone()));
        effects.changed.push(id);
        if open.execution.state.status.is_final() {
            effects.closed += 1;
            let catalog = self.engine.catalog.get();
            effects.batch.messages.extend(notices::of(&catalog, &open.execution, self.engine.clock.now()));
            effects.batch.pending.extend(own::finished(&self.engine, &catalog, &open.execution));
        }
    }

    /// Puts those whose pause is over back into their lanes.
    fn wake_due(&mut self) {
        let now = self.engine.clock.now();
        while let Some(Reverse((at, id))) = self.due.peek().copied() {
            if at > now {
                return;
            }
            self.due.pop();
            if let Some(open) = self.open.get(&id).filter(|open| open.execution.state.status == Status::Delayed) {
                let lane = open.lane.clone();
                self.wait_in(&lane, id);
            }
        }
    }

    /// Starts what has a place, one of each lane in turn.
    fn start_next(&mut self, effects: &mut Effects) {
        let now = self.engine.clock.now();
        let mut taken: HashMap<&'static str, f64> = HashMap::new();
        let mut of_pack: HashMap<(&'static str, String), f64> = HashMap::new();
        for (key, lane) in self.lanes.iter().filter(|(_, lane)| !lane.running.is_empty()) {
            let places = lane.places(key, lane.running.len(), now);
            *taken.entry(key.runner).or_default() += places;
            *of_pack.entry((key.runner, key.pack.clone())).or_default() += places;
        }
        let held = self.engine.hold.get().is_some();
        let may_start = |key: &LaneKey, lane: &Lane| !(lane.waiting.is_empty() || held && key.automatic);
        let lanes: Vec<LaneKey> = self.lanes.iter().filter(|(key, lane)| may_start(key, lane)).map(|(key, _)| key.clone()).collect();
        let mut started = true;
        while std::mem::take(&mut started) && effects.starts.len() < COMMANDS_TOGETHER {
            for key in &lanes {
                #[allow(clippy::cast_precision_loss, reason = "a small number")]
                let all = self.table.runners.get(key.runner).map_or(f64::MAX, |(_, places)| *places as f64);
                let taken = taken.entry(key.runner).or_default();
                let of_pack = of_pack.entry((key.runner, key.pack.clone())).or_default();
                let lane = self.lanes.get_mut(key).expect("lanes are never removed");
                let more = lane.places(key, lane.running.len() + 1, now) - lane.places(key, lane.running.len(), now);
                let own = places_of_one_pack(all - (*taken - *of_pack));
                if *taken + more > all + ROUNDING || *of_pack + more > own + ROUNDING {
                    continue;
                }
                let Some(id) = lane.waiting.pop_front() else { continue };
                started = true;
                if self.start(id, now, effects) {
                    *taken += more;
                    *of_pack += more;
                    self.lanes.get_mut(key).expect("lanes are never removed").running.insert((now, id));
                }
            }
        }
    }

    /// Marks one as running, or as failed if it cannot; answers whether it runs.
    fn start(&mut self, id: ExecutionId, now: DateTime<Utc>, effects: &mut Effects) -> bool {
        let catalog = self.engine.catalog.get();
        let Some(open) = self.open.get_mut(&id).filter(|open| matches!(open.execution.state.status, Status::Requested | Status::Delayed))
        else {
            return false; // canceled while it waited
        };
        let action = catalog.actions.get(&open.execution.request.action).filter(|action| action.enabled);
        let pack = action.and_then(|action| catalog.packs.get(action.pack()));
        let runner = action.and_then(|action| self.table.runners.get_key_value(action.runner.as_str()));
        let (Some(action), Some(pack), Some((kind, _))) = (action, pack, runner) else {
            let name = &open.execution.request.action;
            let known = catalog.actions.contains_key(name);
            let error = if known { format!("action `{name}` is not enabled") } else { catalog.no_action(name) };
            let change = Change::Fail { at: now, reason: Reason::UnknownAction, error, log: Vec::new() };
            Arc::make_mut(&mut open.execution).change(change).expect("an execution that waits can fail");
            self.record(id, effects);
            return false;
        };
        Arc::make_mut(&mut open.execution)
            .change(Change::Start { at: now, action_revision: action.revision.clone() })
            .expect("an execution that waits can start");
        let stop = self.stop.child();
        open.stop = Some(stop.clone());
        let call = ActionCall { execution: Arc::clone(&open.execution), action: Arc::clone(action), pack: Arc::clone(pack) };
        effects.starts.push((call, RunContext::new(action.timeout, stop), kind));
        self.record(id, effects);
        true
    }

    /// Commits, trying again until it is durable; then performs. Answers whether to go on.
    async fn commit_and_perform(&mut self, effects: Effects) -> bool {
        let Effects { batch, mut changed, starts, stops, replies, told, closed } = effects;
        let messages = batch.messages.clone();
        let has_events = !batch.pending.is_empty();
        if !batch.is_empty() {
            let Some(sequence) = self.commit(&batch).await else { return false };
            let mut seen = HashSet::new();
            changed.retain(|id| seen.insert(*id)); // one may change twice in a round
            let items = changed.iter().filter_map(|id| self.open.get(id)).map(|open| Item::Execution(Arc::clone(&open.execution)));
            self.engine.stream.publish(sequence, items.collect());
        }
        for id in changed {
            let ended = self.open.get(&id).map(|open| open.execution.state.status).filter(|status| status.is_final());
            if let Some(status) = ended {
                if let Some(open) = self.open.remove(&id) {
                    self.tell_waiters(&open.execution);
                }
                self.engine.metrics.executions.with_label_values(&[status.name()]).inc();
            }
        }
        self.engine.closed(closed);
        for stop in stops {
            stop.stop();
        }
        for (call, cx, kind) in starts {
            self.perform(call, cx, kind);
        }
        for (reply, answer) in replies {
            let _ = reply.send(answer); // whoever asked has gone
        }
        for told in told {
            let _ = told.send(()); // as before
        }
        self.engine.outbox.wake(messages);
        if has_events {
            self.engine.own_events.notify_one();
        }
        true
    }

    async fn commit(&self, batch: &Batch) -> Option<u64> {
        let mut failed = false;
        loop {
            match self.engine.store.commit(batch).await {
                Ok(committed) => return Some(committed.sequence),
                // A commit that failed may have been made all the same, as is seen when the store works again.
                Err(CommitError::Conflict { .. }) if failed && self.is_stored(batch).await => {
                    return self.engine.store.sequence().await.ok();
                }
                Err(CommitError::Conflict { what }) => {
                    // Only this task changes open executions; another process has the store.
                    tracing::error!("{what} was changed by another process; this one stops conducting");
                    return None;
                }
                Err(CommitError::Store(error)) => {
                    if !std::mem::replace(&mut failed, true) {
                        tracing::error!("states of executions cannot be committed, trying again: {error}");
                    }
                    tokio::select! {
                        () = self.stop.stopped() => return None,
                        () = clock::sleep(&*self.engine.clock, COMMIT_PAUSE) => {}
                    }
                }
            }
        }
    }

    /// Whether the states of a batch are those that are stored.
    async fn is_stored(&self, batch: &Batch) -> bool {
        let last: HashMap<ExecutionId, u32> = batch.states.iter().map(|(id, state)| (*id, state.version)).collect();
        for (id, version) in last {
            match self.engine.store.execution(id).await {
                Ok(Some(stored)) if stored.state.version == version => {}
                _ => return false,
            }
        }
        true
    }

    fn perform(&self, call: ActionCall, cx: RunContext, kind: &'static str) {
        let Some((runner, _)) = self.table.runners.get(kind) else { return };
        let (runner, commands, clock) = (Arc::clone(runner), self.commands.clone(), Arc::clone(&self.engine.clock));
        let stopping = self.stop.clone();
        tasks::spawn_bounded(async move {
            let (id, masks) = (call.execution.id, call.masks());
            let watched = cx.clone();
            let attempt = AssertUnwindSafe(runner.run(call, cx)).catch_unwind();
            let mut outcome = tokio::select! {
                outcome = attempt => outcome.unwrap_or_else(|_| Err(lost(Reason::RunnerPanicked, "the runner crashed; see the log"))),
                () = overdue(&*clock, &watched) => Err(lost(Reason::TimedOut, "the action ran longer than its `timeout` and did not stop when told to")),
            };
            mask(&mut outcome, &masks);
            // When the process stops, the work was cut short by us: the next start decides, as after a crash.
            if stopping.is_stopped() && outcome.as_ref().is_err_and(|error| error.reason == Reason::Canceled) {
                return;
            }
            let _ = commands.send(Command::Ended { id, outcome }).await; // the conductor has gone: the next start decides
        });
    }
}

/// Shares of places are added up as floating-point numbers.
const ROUNDING: f64 = 1e-6;

/// Of the places that others have not taken, a pack gets three quarters; at least one is kept for the next pack. So however many packs take
/// all they can, the next one finds a place, as long as there is one for each.
fn places_of_one_pack(left: f64) -> f64 {
    if left > 1.0 { left - (left / 4.0).floor().max(1.0) } else { left }
}

/// The longest error that is kept, in bytes.
const MAX_ERROR_BYTES: usize = 4_000;

/// Replaces secrets wherever the outcome shows them, and cuts what is too long.
pub(super) fn mask(outcome: &mut Result<Output, RunError>, masks: &Masks) {
    let log = match outcome {
        Ok(output) => {
            masks.value(&mut output.result);
            &mut output.log
        }
        Err(error) => {
            masks.text(&mut error.message);
            if error.message.len() > MAX_ERROR_BYTES {
                let end = (0..=MAX_ERROR_BYTES).rev().find(|end| error.message.is_char_boundary(*end)).unwrap_or(0);
                error.message.truncate(end);
                error.message.push('…');
            }
            &mut error.log
        }
    };
    for line in log {
        masks.text(&mut line.text);
    }
}

/// Returns when a runner that has begun should have ended long ago.
pub(super) async fn overdue(clock: &dyn Clock, cx: &RunContext) {
    let patience = cx.timeout + RUNNER_GRACE;
    while cx.began().is_none() {
        clock::sleep(clock, patience).await;
    }
    let span = chrono::Duration::from_std(patience).unwrap_or(chrono::Duration::days(2));
    clock.sleep_until(cx.began().unwrap_or_default() + span).await;
}

fn lost(reason: Reason, message: &str) -> RunError {
    RunError { reason, message: message.into(), retry: true, log: Vec::new() }
}

/// The pause before the next attempt, if the action's `retry` and the runner both want one.
fn next_attempt(execution: &Execution, action: Option<&Action>, error: &RunError) -> Option<Duration> {
    let retry = action?.retry.as_ref()?;
    let outcome = if error.reason == Reason::TimedOut { RetryOn::TimedOut } else { RetryOn::Failed };
    let wanted = error.retry && retry.on.contains(&outcome) && execution.state.attempt <= retry.count;
    wanted.then(|| retry.pause_after(execution.state.attempt))
}

#[cfg(test)]
mod tests {
    use super::places_of_one_pack;

    #[test]
    fn packs_that_take_all_they_can_leave_something_to_the_next() {
        let (mut left, mut shares) = (32.0, Vec::new());
        while left > 0.0 {
            let share = places_of_one_pack(left);
            shares.push(share);
            left -= share;
        }
        assert_eq!(format!("{shares:?}"), "[24.0, 6.0, 1.0, 1.0]");
        assert_eq!(format!("{:?}", [1.0, 2.0, 4.0].map(places_of_one_pack)), "[1.0, 1.0, 3.0]");
    }
}
