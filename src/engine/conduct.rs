//! The conductor: one task that owns every execution that has not ended. It takes all that is ready (new ones, outcomes, due
//! retries, cancels), changes the states, commits them together, and only then performs: starts attempts, stops work, tells.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use super::attempt::{Attempted, attempt, next_attempt};
use super::lanes::{Lane, LaneKey, ROUNDING, places_of_one_pack};
use super::stream::Item;
use super::{Engine, notices, own};
use crate::clock;
use crate::gates::{self, CompiledPolicy, Decision, Gates, Turn};
use crate::livelog::LiveLog;
use crate::model::execution::{Change, Execution, LogLine, Status};
use crate::model::failure::Failure;
use crate::model::ids::ExecutionId;
use crate::model::principal::Principal;
use crate::model::reason::Reason;
use crate::model::secret::Masks;
use crate::runners::{ActionCall, ActionRunner, RunContext};
use crate::store::{Batch, CommitError};
use crate::tasks::{self, Stop};

/// What the conductor is told.
pub enum Command {
    /// Executions that are durable and not started.
    Requested(Vec<Arc<Execution>>),
    /// Something has changed that may let something go on.
    Look,
    /// The store works again after a failure: what is open there and unknown here was committed without anybody being told.
    Resync(Vec<Execution>),
    /// An attempt has ended.
    Ended {
        /// Whose.
        id: ExecutionId,
        /// How.
        outcome: Result<Value, Failure>,
        /// What there is of a result although it failed.
        left: Option<Value>,
        /// What it logged.
        log: Vec<LogLine>,
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

/// Changes of states that are made in one commit, about.
const STATES_TOGETHER: usize = 1_000;

/// The pause before a commit that failed is tried again.
const COMMIT_PAUSE: Duration = Duration::from_millis(500);

/// The runners of the site and how many attempts each may carry at once.
pub struct RunnerTable {
    /// Runner and number of attempts at once, by kind.
    pub runners: BTreeMap<&'static str, (Arc<dyn ActionRunner>, usize)>,
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
    /// Its place in the order of being asked for, or of being tried again.
    turn: u64,
}

struct Conductor {
    engine: Arc<Engine>,
    table: RunnerTable,
    open: HashMap<ExecutionId, Open>,
    lanes: BTreeMap<LaneKey, Lane>,
    /// Who waits for an execution.
    waiters: HashMap<ExecutionId, Vec<Waiter>>,
    due: BinaryHeap<Reverse<(DateTime<Utc>, ExecutionId)>>,
    next_turn: u64,
    gates: Gates,
    /// The policies that the gates are made of.
    policies: Arc<Vec<Arc<CompiledPolicy>>>,
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
    /// Whether there may be more to start at once.
    more: bool,
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
    let Some(gates) = remembered(&engine, &stop).await else { return };
    let mut conductor = Conductor {
        engine,
        table,
        open: HashMap::new(),
        lanes: BTreeMap::new(),
        waiters: HashMap::new(),
        due: BinaryHeap::new(),
        next_turn: 0,
        gates,
        policies: Arc::default(),
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
        conductor.follow_policies();
        conductor.take(std::mem::take(&mut ready), &mut effects);
        conductor.wake_due();
        let more = !drain.is_stopped() && conductor.start_next(&mut effects);
        conductor.mark_held(&mut effects);
        effects.batch.settings = conductor.gates.take_changes();
        if !conductor.commit_and_perform(effects).await || conductor.is_drained() {
            return;
        }
        let next_due = conductor.next_due();
        if !conductor.to_mark.is_empty() {
            continue;
        }
        if !drain.is_stopped() && (more || next_due.is_some_and(|at| at <= conductor.engine.clock.now())) {
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

/// Gates that hold nobody, with what was stored of them; nothing if the process stops before that could be read.
async fn remembered(engine: &Engine, stop: &Stop) -> Option<Gates> {
    let mut failed = false;
    loop {
        match engine.store.settings(gates::STORED).await {
            Ok(stored) => return Some(Gates::remembering(stored)),
            Err(error) => {
                if !std::mem::replace(&mut failed, true) {
                    tracing::error!("what policies remember cannot be read, trying again: {error}");
                }
                tokio::select! { () = stop.stopped() => return None, () = clock::sleep(&*engine.clock, COMMIT_PAUSE) => {} }
            }
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

    fn turn(&mut self) -> u64 {
        self.next_turn += 1;
        self.next_turn
    }

    /// Puts one among those that wait for their turn.
    fn queue(&mut self, waiter: Turn, lane: &LaneKey) {
        if lane.automatic && self.engine.hold.get().is_some() {
            self.to_mark.push_back(waiter.1);
        }
        self.lanes.entry(lane.clone()).or_default().waiting.insert(waiter);
    }

    /// When something changes by itself.
    fn next_due(&self) -> Option<DateTime<Utc>> {
        let due = self.due.peek().map(|Reverse((at, _))| *at);
        due.into_iter().chain(self.gates.next_due().and_then(DateTime::from_timestamp_millis)).min()
    }

    /// Makes the gates anew if the policies in force are others; who waited is asked again.
    fn follow_policies(&mut self) {
        let policies = Arc::clone(&self.engine.catalog.get().policies);
        if Arc::ptr_eq(&policies, &self.policies) {
            return;
        }
        let running = self.open.iter().filter(|(_, open)| matches!(open.execution.state.status, Status::Running | Status::Canceling));
        let running = running.map(|(id, open)| (*id, &open.execution.request));
        let called = self.gates.follow(&policies, running, self.engine.clock.now().timestamp_millis());
        self.policies = policies;
        self.call(called);
    }

    /// Puts those back into their lanes whom a gate holds no longer.
    fn call(&mut self, mut called: Vec<Turn>) {
        let held = self.engine.hold.get().is_some();
        while let Some(waiter) = called.pop() {
            let Some(open) = self.open.get(&waiter.1) else { continue };
            self.lanes.entry(open.lane.clone()).or_default().waiting.insert(waiter);
            if held && open.lane.automatic {
                // It cannot start now, so no place is kept for it.
                called.extend(self.gates.gone(waiter, self.engine.clock.now().timestamp_millis()));
            }
        }
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
        let turn = self.turn();
        match execution.state.next_attempt_at {
            // What a policy held is asked again.
            Some(at) if execution.state.status == Status::Delayed && !execution.state.reason.is_policy() => {
                self.due.push(Reverse((at, id)));
            }
            _ => self.queue((turn, id), &lane),
        }
        self.open.insert(id, Open { execution, stop: None, lane, turn });
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
                Command::Look => {}
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
                Command::Ended { id, outcome, left, log } => self.end(id, outcome, (left, log), effects),
                Command::Await { parent, child, reply } => self.wait(parent, child, reply),
                Command::Cancel { id, by, reply } => {
                    let answer = self.cancel(id, by, effects);
                    effects.replies.push((reply, answer));
                }
                Command::HoldChanged(reply) => {
                    let automatic = self.lanes.iter().filter(|(key, _)| key.automatic);
                    self.to_mark = automatic.flat_map(|(_, lane)| lane.waiting.iter().map(|(_, id)| *id)).collect();
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
        if after.state.status.is_final() {
            let called = self.gates.gone((open.turn, id), at.timestamp_millis());
            self.call(called);
        }
        self.record(id, effects);
        Some(after)
    }

    /// An attempt has ended: decide what follows.
    fn end(&mut self, id: ExecutionId, outcome: Result<Value, Failure>, (left, log): (Option<Value>, Vec<LogLine>), effects: &mut Effects) {
        let now = self.engine.clock.now();
        let catalog = self.engine.catalog.get();
        let Some(open) = self.open.get_mut(&id) else { return };
        open.stop = None;
        if let Some(lane) = self.lanes.get_mut(&open.lane) {
            lane.ended(open.execution.state.started_at, id, now);
        }
        let canceling = open.execution.state.status == Status::Canceling;
        let action = catalog.actions.get(&open.execution.request.action);
        let called = self.gates.ended((open.turn, id), outcome.is_err() && !canceling, now.timestamp_millis());
        let change = match outcome {
            Ok(result) => Change::Succeed { at: now, result, log },
            Err(error) if canceling => {
                // One that was given up may still run.
                let note = (error.reason == Reason::TimedOut).then_some(error.message);
                Change::Stopped { at: now, note, log }
            }
            Err(error) => match next_attempt(&open.execution, action.map(AsRef::as_ref), &error) {
                Some(pause) => {
                    let until = now + chrono::Duration::from_std(pause).unwrap_or_default();
                    self.due.push(Reverse((until, id)));
                    Change::Delay { until, error: error.message, log }
                }
                None => Change::Fail { at: now, reason: error.reason, error: error.message, result: left, log },
            },
        };
        Arc::make_mut(&mut open.execution).change(change).expect("a running execution can end, be delayed or be canceled");
        self.call(called);
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
                break;
            }
            self.due.pop();
            let turn = self.turn();
            if let Some(open) = self.open.get_mut(&id).filter(|open| open.execution.state.status == Status::Delayed) {
                open.turn = turn;
                let lane = open.lane.clone();
                self.queue((turn, id), &lane);
            }
        }
        let called = self.gates.due(now.timestamp_millis());
        self.call(called);
    }

    /// Starts what has a place, one of each lane in turn; whether there may be more to start in another round.
    fn start_next(&mut self, effects: &mut Effects) -> bool {
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
            if effects.batch.states.len() >= STATES_TOGETHER {
                return true;
            }
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
                let Some((_, id)) = lane.waiting.pop_first() else { continue };
                started = true;
                if self.start(id, now, effects) {
                    *taken += more;
                    *of_pack += more;
                    self.lanes.get_mut(key).expect("lanes are never removed").running.insert((now, id));
                }
            }
        }
        effects.more
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
            let change = Change::Fail { at: now, reason: Reason::UnknownAction, error, result: None, log: Vec::new() };
            Arc::make_mut(&mut open.execution).change(change).expect("an execution that waits can fail");
            let called = self.gates.gone((open.turn, id), now.timestamp_millis());
            self.call(called);
            self.record(id, effects);
            return false;
        };
        // Only whoever carries it out gets the secret parameters.
        let opened = match &open.execution.request.sealed {
            None => Ok(None),
            Some(_) => self.engine.secrets.parameters(id, &open.execution.request).map(Some),
        };
        let opened = match opened {
            Ok(opened) => opened,
            Err(error) => {
                let change = Change::Fail { at: now, reason: Reason::ParametersFailed, error, result: None, log: Vec::new() };
                Arc::make_mut(&mut open.execution).change(change).expect("an execution that waits can fail");
                let called = self.gates.gone((open.turn, id), now.timestamp_millis());
                self.call(called);
                self.record(id, effects);
                return false;
            }
        };
        let request = &open.execution.request;
        let (asked, mut called) = ((request.action.as_str(), &request.parameters), Vec::new());
        let decision = self.gates.ask((open.turn, id), asked, now.timestamp_millis(), &mut called);
        if let Some(change) = held(decision, now) {
            let call = ActionCall { execution: Arc::clone(&open.execution), action: Arc::clone(action), pack: Arc::clone(pack) };
            let is_told = matches!(&change, Change::Hold { until, reason, .. } if *reason == open.execution.state.reason && *until == open.execution.state.next_attempt_at);
            if !is_told {
                Arc::make_mut(&mut open.execution)
                    .change(masked(change, &call.masks()))
                    .expect("an execution that waits can be held, canceled or fail");
                self.record(id, effects);
            }
            effects.more |= !called.is_empty();
            self.call(called);
            return false;
        }
        Arc::make_mut(&mut open.execution)
            .change(Change::Start { at: now, action_revision: action.revision.clone() })
            .expect("an execution that waits can start");
        let stop = self.stop.child();
        open.stop = Some(stop.clone());
        let mut execution = Arc::clone(&open.execution);
        if let Some(parameters) = opened {
            Arc::make_mut(&mut execution).request.parameters = parameters;
        }
        let call = ActionCall { execution, action: Arc::clone(action), pack: Arc::clone(pack) };
        let (lines, attempt) = (self.engine.stream.lines(), open.execution.state.attempt);
        let log = LiveLog::new(Arc::clone(&self.engine.clock), call.masks());
        let log = Arc::new(log.telling(move |number, line| lines.tell(id, attempt, number, line)));
        self.engine.outputs.begin(id, attempt, Arc::clone(&log));
        effects.starts.push((call, RunContext::new(action.timeout, stop, log), kind));
        self.record(id, effects);
        true
    }

    /// Commits, trying again until it is durable; then performs. Answers whether to go on.
    async fn commit_and_perform(&mut self, effects: Effects) -> bool {
        let Effects { batch, mut changed, starts, stops, replies, told, closed, more: _ } = effects;
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
            if !self.open.get(&id).is_some_and(|open| matches!(open.execution.state.status, Status::Running | Status::Canceling)) {
                self.engine.outputs.end(id);
            }
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
            let id = call.execution.id;
            let Attempted { outcome, left, log } = attempt(&*runner, call, cx, &*clock).await;
            // When the process stops, the work was cut short by us: the next start decides, as after a crash.
            if stopping.is_stopped() && outcome.as_ref().is_err_and(|error| error.reason == Reason::Canceled) {
                return;
            }
            let _ = commands.send(Command::Ended { id, outcome, left, log }).await; // the conductor has gone: the next start decides
        });
    }
}

/// What becomes of an execution that may not start.
fn held(decision: Decision, now: DateTime<Utc>) -> Option<Change> {
    Some(match decision {
        Decision::Start => return None,
        Decision::Hold { reason, detail, until } => {
            Change::Hold { until: until.and_then(DateTime::from_timestamp_millis), reason, detail: Some(detail) }
        }
        Decision::Cancel { reason, detail } => Change::Refuse { at: now, reason, error: detail },
        Decision::Fail { reason, detail } => Change::Fail { at: now, reason, error: detail, result: None, log: Vec::new() },
    })
}

/// The key that a gate names may hold a secret parameter.
fn masked(mut change: Change, masks: &Masks) -> Change {
    match &mut change {
        Change::Hold { detail: Some(text), .. } | Change::Refuse { error: text, .. } | Change::Fail { error: text, .. } => masks.text(text),
        _ => {}
    }
    change
}
