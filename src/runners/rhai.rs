//! `rhai`: the script beside the action's file, on a fixed pool of plain threads.
//!
//! Scripts block while they wait for other systems, so there are more threads than cores. A script that panics takes its thread's
//! job with it, not the thread. One that waits for another execution lends its thread: others are started in its stead. One that
//! computes for long stands back: its thread gets the lowest priority, which a thread cannot undo, and ends with the script.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use async_trait::async_trait;
use tokio::sync::oneshot;

use super::{ActionCall, ActionRunner, Limits, Output, RunContext, RunError, RunnerKind};
use crate::model::action::Action;
use crate::model::reason::Reason;
use crate::script::host::{self, Entry, Lender, ScriptAttempt, ScriptCache, ScriptCall, ScriptEnd, Surroundings};
use crate::tasks;

/// The kind.
pub const KIND: RunnerKind = RunnerKind {
    name: "rhai",
    summary: "runs `fn run(params)` of the script that `entry_point` names, or of the `.rhai` file beside the action",
    example: "name: hello\nrunner_type: rhai\nparameters:\n  who: {type: string, default: world}\n",
    needs_script: true,
    parameters: Vec::new,
    check,
    build,
};

struct Job {
    call: ActionCall,
    cx: RunContext,
    entry: Entry,
    reply: oneshot::Sender<ScriptEnd>,
}

/// Scripts that may wait for other executions at once; each keeps its thread.
const MAX_WAITING: usize = 256;

/// The threads and what waits for one. The engine bounds how many attempts are started, so this stays short.
struct Pool {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
    cache: ScriptCache,
    surroundings: Arc<Surroundings>,
    most_threads: usize,
}

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    /// Threads that take jobs, those that lent theirs among them.
    threads: usize,
    idle: usize,
    /// Threads whose script waits for another execution, and all such scripts.
    lent: usize,
    pausing: usize,
    closed: bool,
}

impl Waiting {
    /// Whether one more thread is wanted; if so, it is counted.
    fn wants_thread(&mut self, most: usize) -> bool {
        let wanted = self.jobs.len() > self.idle && self.threads - self.lent < most;
        self.threads += usize::from(wanted);
        wanted
    }
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().expect("no panic happens while the lock is held")
    }

    /// Gives a job to a thread; threads are started as they are needed, and stay.
    fn give(self: &Arc<Self>, job: Job) -> std::io::Result<()> {
        let wanted = {
            let mut waiting = self.lock();
            waiting.jobs.push_back(job);
            self.arrived.notify_one();
            waiting.wants_thread(self.most_threads)
        };
        if wanted { self.start_thread() } else { Ok(()) }
    }

    /// Starts a thread that has been counted.
    fn start_thread(self: &Arc<Self>) -> std::io::Result<()> {
        let pool = Arc::clone(self);
        let started = tasks::spawn_thread("script", host::STACK_BYTES, move || pool.work());
        let Err(error) = started else { return Ok(()) };
        let mut waiting = self.lock();
        waiting.threads -= 1;
        // Another thread takes the job when it is done with its own.
        if waiting.threads > waiting.lent { Ok(()) } else { Err(error) }
    }

    /// Takes one job after the other, until the runner is gone, there are too many threads, or this one has stood back.
    fn work(self: &Arc<Self>) {
        while let Some(Job { call, cx, entry, reply }) = self.next() {
            let Some(script) = &call.action.script else { continue };
            let (asked, place) = (call.clone(), Arc::new(Place { pool: Arc::clone(self), stood_back: AtomicBool::new(false) }));
            let attempt = ScriptAttempt {
                execution: call.execution.id,
                pack: Arc::clone(&call.pack),
                user: call.execution.request.requested_by.user().map(ToString::to_string),
                depth: call.execution.request.depth,
                masks: call.masks(),
                context: Box::new(move || asked.context()),
                lender: Arc::clone(&place) as _,
                deadline: cx.begin(self.surroundings.clock.now()),
                stop: cx.stop.clone(),
            };
            let script_call = ScriptCall::new(&self.surroundings, entry, attempt);
            let attempt = AssertUnwindSafe(|| host::run(&self.cache, script, &call.execution.request.parameters, script_call));
            // Without an answer the engine records the crash; the thread lives on.
            if let Ok(end) = catch_unwind(attempt) {
                let _ = reply.send(end); // the engine no longer waits: it has recorded the end already
            }
            if place.stood_back.load(Ordering::Relaxed) {
                return;
            }
        }
    }

    /// The next job; nothing once the runner is gone, or there are more threads than there should be.
    fn next(&self) -> Option<Job> {
        let mut waiting = self.lock();
        loop {
            if waiting.closed || waiting.threads - waiting.lent > self.most_threads {
                waiting.threads -= 1;
                // It may have been woken for a job, which another one is to take.
                self.arrived.notify_one();
                return None;
            }
            if let Some(job) = waiting.jobs.pop_front() {
                return Some(job);
            }
            waiting.idle += 1;
            waiting = self.arrived.wait(waiting).expect("no panic happens while the lock is held");
            waiting.idle -= 1;
        }
    }

    /// Lets another thread take jobs if one is wanted now.
    fn make_up(self: &Arc<Self>, mut waiting: MutexGuard<'_, Waiting>) {
        let wanted = waiting.wants_thread(self.most_threads);
        drop(waiting);
        self.arrived.notify_one();
        if wanted {
            let _ = self.start_thread(); // without it the job waits for a thread that becomes free
        }
    }

    fn close(&self) {
        let mut waiting = self.lock();
        waiting.closed = true;
        waiting.jobs.clear();
        self.arrived.notify_all();
    }
}

/// The thread that a script has.
struct Place {
    pool: Arc<Pool>,
    stood_back: AtomicBool,
}

impl Lender for Place {
    fn lend(&self) -> bool {
        let mut waiting = self.pool.lock();
        if waiting.pausing == MAX_WAITING {
            return false;
        }
        waiting.pausing += 1;
        if !self.stood_back.load(Ordering::Relaxed) {
            waiting.lent += 1;
            self.pool.make_up(waiting);
        }
        true
    }

    fn take_back(&self) {
        let mut waiting = self.pool.lock();
        waiting.pausing -= 1;
        waiting.lent -= usize::from(!self.stood_back.load(Ordering::Relaxed));
    }

    fn stand_back(&self) {
        if self.stood_back.swap(true, Ordering::Relaxed) {
            return;
        }
        let mut waiting = self.pool.lock();
        waiting.threads -= 1;
        // Before this thread gives up its priority: a new one would inherit that.
        self.pool.make_up(waiting);
        tasks::stand_back(STAND_BACK_NICE);
    }
}

/// How far a script that takes long stands back behind all other work, as `nice` counts: it gets what nobody else wants.
const STAND_BACK_NICE: i32 = 19;

struct RhaiRunner(Arc<Pool>);

impl Drop for RhaiRunner {
    fn drop(&mut self) {
        self.0.close();
    }
}

fn check(action: &Action) -> Vec<(String, usize, usize)> {
    let Some(script) = &action.script else { return Vec::new() };
    let faults = host::compile(script, Entry::Run).err().unwrap_or_default();
    faults.into_iter().map(|fault| (fault.message, fault.line, fault.column)).collect()
}

fn build(surroundings: &Arc<Surroundings>, limits: Limits) -> Arc<dyn ActionRunner> {
    Arc::new(RhaiRunner(Arc::new(Pool {
        waiting: Mutex::default(),
        arrived: Condvar::new(),
        cache: ScriptCache::default(),
        surroundings: Arc::clone(surroundings),
        most_threads: limits.script_threads,
    })))
}

impl RhaiRunner {
    async fn call(&self, entry: Entry, call: ActionCall, cx: RunContext) -> Result<Output, RunError> {
        let _errand = self.0.surroundings.errands.begin();
        let (reply, end) = oneshot::channel();
        let gone = || RunError {
            reason: Reason::RunnerPanicked,
            message: "the script's thread ended unexpectedly".into(),
            retry: false,
            log: Vec::new(),
        };
        self.0.give(Job { call, cx, entry, reply }).map_err(|_| gone())?;
        let ScriptEnd { outcome, log } = end.await.map_err(|_| gone())?;
        match outcome {
            Ok(result) => Ok(Output { result, log }),
            Err(fault) => Err(RunError { reason: fault.reason, message: fault.message, retry: fault.retry, log }),
        }
    }
}

#[async_trait]
impl ActionRunner for RhaiRunner {
    async fn run(&self, call: ActionCall, cx: RunContext) -> Result<Output, RunError> {
        self.call(Entry::Run, call, cx).await
    }

    async fn plan(&self, call: ActionCall, cx: RunContext) -> Result<Output, RunError> {
        self.call(Entry::Plan, call, cx).await
    }
}
