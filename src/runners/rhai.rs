//! `rhai`: the script beside the action's file, on a fixed pool of plain threads.
//!
//! Scripts block while they wait for other systems, so there are more threads than cores. A script that panics takes its thread's
//! job with it, not the thread.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex};

use async_trait::async_trait;
use tokio::sync::oneshot;

use super::{ActionCall, ActionRunner, Limits, Output, RunContext, RunError, RunnerKind};
use crate::model::action::Action;
use crate::model::reason::Reason;
use crate::script::host::{self, Entry, ScriptAttempt, ScriptCache, ScriptCall, ScriptEnd, Surroundings};
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
    reply: oneshot::Sender<ScriptEnd>,
}

/// Jobs that wait for a thread. The engine bounds how many attempts are started, so this stays short.
#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
}

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
    closed: bool,
}

impl Queue {
    /// Adds a job; answers whether one more thread is wanted for it.
    fn push(&self, job: Job, most_threads: usize) -> bool {
        let mut waiting = self.waiting.lock().expect("no panic happens while the lock is held");
        waiting.jobs.push_back(job);
        let wanted = waiting.jobs.len() > waiting.idle && waiting.threads < most_threads;
        waiting.threads += usize::from(wanted);
        self.arrived.notify_one();
        wanted
    }

    /// The next job; nothing once the runner is gone.
    fn next(&self) -> Option<Job> {
        let mut waiting = self.waiting.lock().expect("no panic happens while the lock is held");
        loop {
            if let Some(job) = waiting.jobs.pop_front() {
                return Some(job);
            }
            if waiting.closed {
                return None;
            }
            waiting.idle += 1;
            waiting = self.arrived.wait(waiting).expect("no panic happens while the lock is held");
            waiting.idle -= 1;
        }
    }

    /// Notes that a wanted thread did not start; answers whether there are others.
    fn missed(&self) -> bool {
        let mut waiting = self.waiting.lock().expect("no panic happens while the lock is held");
        waiting.threads -= 1;
        waiting.threads > 0
    }

    fn close(&self) {
        let mut waiting = self.waiting.lock().expect("no panic happens while the lock is held");
        waiting.closed = true;
        waiting.jobs.clear();
        self.arrived.notify_all();
    }
}

struct RhaiRunner {
    queue: Arc<Queue>,
    cache: Arc<ScriptCache>,
    surroundings: Arc<Surroundings>,
    most_threads: usize,
}

impl RhaiRunner {
    /// Gives a job to a thread; threads are started as they are needed, and stay.
    fn give(&self, job: Job) -> std::io::Result<()> {
        if !self.queue.push(job, self.most_threads) {
            return Ok(());
        }
        let (queue, cache, surroundings) = (Arc::clone(&self.queue), Arc::clone(&self.cache), Arc::clone(&self.surroundings));
        let started = tasks::spawn_thread("script", host::STACK_BYTES, move || work(&queue, &cache, &surroundings));
        match started {
            // Another thread takes the job when it is done with its own.
            Err(error) if !self.queue.missed() => Err(error),
            _ => Ok(()),
        }
    }
}

impl Drop for RhaiRunner {
    fn drop(&mut self) {
        self.queue.close();
    }
}

fn check(action: &Action) -> Vec<(String, usize, usize)> {
    let Some(script) = &action.script else { return Vec::new() };
    match host::compile(script, Entry::Run) {
        Ok(_) => Vec::new(),
        Err(fault) => vec![(fault.message, fault.line, fault.column)],
    }
}

fn build(surroundings: &Arc<Surroundings>, limits: Limits) -> Arc<dyn ActionRunner> {
    Arc::new(RhaiRunner {
        queue: Arc::new(Queue::default()),
        cache: Arc::new(ScriptCache::default()),
        surroundings: Arc::clone(surroundings),
        most_threads: limits.script_threads,
    })
}

fn work(queue: &Queue, cache: &ScriptCache, surroundings: &Surroundings) {
    while let Some(Job { call, cx, reply }) = queue.next() {
        let Some(script) = &call.action.script else { continue };
        let asked = call.clone();
        let attempt = ScriptAttempt {
            execution: call.execution.id,
            pack: Arc::clone(&call.pack),
            user: call.execution.request.requested_by.user().map(ToString::to_string),
            depth: call.execution.request.depth,
            masks: call.masks(),
            context: Box::new(move || asked.context()),
            deadline: cx.begin(surroundings.clock.now()),
            stop: cx.stop.clone(),
        };
        let script_call = ScriptCall::new(surroundings, attempt);
        let attempt = AssertUnwindSafe(|| host::run(cache, script, &call.execution.request.parameters, script_call));
        // Without an answer the engine records the crash; the thread lives on.
        let Ok(end) = catch_unwind(attempt) else { continue };
        let _ = reply.send(end); // the engine no longer waits: it has recorded the end already
    }
}

#[async_trait]
impl ActionRunner for RhaiRunner {
    async fn run(&self, call: ActionCall, cx: RunContext) -> Result<Output, RunError> {
        let _errand = self.surroundings.errands.begin();
        let (reply, end) = oneshot::channel();
        let gone = || RunError {
            reason: Reason::RunnerPanicked,
            message: "the script's thread ended unexpectedly".into(),
            retry: false,
            log: Vec::new(),
        };
        self.give(Job { call, cx, reply }).map_err(|_| gone())?;
        let ScriptEnd { outcome, log } = end.await.map_err(|_| gone())?;
        match outcome {
            Ok(result) => Ok(Output { result, log }),
            Err(fault) => Err(RunError { reason: fault.reason, message: fault.message, retry: fault.retry, log }),
        }
    }
}
