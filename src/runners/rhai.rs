//! `rhai`: the script beside the action's file, on a fixed pool of plain threads.
//!
//! Scripts block while they wait for other systems, so there are more threads than cores; what finds no thread waits in a bounded
//! queue, in order.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};

use super::{ActionCall, ActionRunner, Limits, Output, RunContext, RunError, RunnerKind};
use crate::model::action::Action;
use crate::model::reason::Reason;
use crate::script::host::{self, ScriptCache, ScriptCall, ScriptEnd, Surroundings};
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

/// Stack of a script's thread; [`host::MAX_CALL_LEVELS`] fits into it in a debug build, too.
const STACK_BYTES: usize = 16 << 20;

struct Job {
    call: ActionCall,
    cx: RunContext,
    reply: oneshot::Sender<ScriptEnd>,
}

struct RhaiRunner {
    jobs: mpsc::Sender<Job>,
}

fn check(action: &Action) -> Vec<(String, usize, usize)> {
    let Some(script) = &action.script else { return Vec::new() };
    match host::compile(script) {
        Ok(_) => Vec::new(),
        Err(fault) => vec![(fault.message, fault.line, fault.column)],
    }
}

fn build(surroundings: &Arc<Surroundings>, limits: Limits) -> std::io::Result<Arc<dyn ActionRunner>> {
    let (jobs, waiting) = mpsc::channel::<Job>(limits.script_threads * 2);
    let waiting = Arc::new(Mutex::new(waiting));
    let cache = Arc::new(ScriptCache::default());
    for number in 0..limits.script_threads {
        let (waiting, cache, surroundings) = (Arc::clone(&waiting), Arc::clone(&cache), Arc::clone(surroundings));
        // The threads end when the runner is dropped and its channel closes.
        tasks::spawn_thread(&format!("script-{number}"), STACK_BYTES, move || work(&waiting, &cache, &surroundings))?;
    }
    Ok(Arc::new(RhaiRunner { jobs }))
}

fn work(waiting: &Mutex<mpsc::Receiver<Job>>, cache: &ScriptCache, surroundings: &Surroundings) {
    loop {
        let job = waiting.lock().expect("no panic happens while the lock is held").blocking_recv();
        let Some(Job { call, cx, reply }) = job else { return };
        let Some(script) = call.action.script.clone() else { continue };
        let (id, depth) = (call.execution.id, call.execution.request.depth);
        let script_call = ScriptCall::new(surroundings, id, Arc::clone(&call.pack), depth, call.context(), cx.deadline, cx.stop.clone());
        let end = host::run(cache, &script, &call.execution.request.parameters, script_call);
        let _ = reply.send(end); // the engine no longer waits: it has recorded the end already
    }
}

#[async_trait]
impl ActionRunner for RhaiRunner {
    async fn run(&self, call: ActionCall, cx: RunContext) -> Result<Output, RunError> {
        let (reply, end) = oneshot::channel();
        let gone = || RunError {
            reason: Reason::RunnerPanicked,
            message: "the script's thread ended unexpectedly".into(),
            retry: false,
            log: Vec::new(),
        };
        self.jobs.send(Job { call, cx, reply }).await.map_err(|_| gone())?;
        let ScriptEnd { outcome, log } = end.await.map_err(|_| gone())?;
        match outcome {
            Ok(result) => Ok(Output { result, log }),
            Err(fault) => Err(RunError { reason: fault.reason, message: fault.message, retry: fault.retry, log }),
        }
    }
}
