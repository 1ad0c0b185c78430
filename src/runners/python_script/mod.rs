//! `python-script`: the Python script beside the action's file, run by a worker that stays: one process runs one action after the other, so
//! that Python is started once and not for each.
//!
//! A pack has workers of its own, for each interpreter that it names; they are ended when they were idle for a while, when a module that they
//! imported has changed, and when an action did not end in time.

mod worker;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use self::worker::{Answer, Outcome, Question, Request, Worker};
use super::command_line::{allowed, environment, parameter};
use super::{ActionCall, ActionRunner, RunContext, RunnerKind, ScriptFile};
use crate::clock;
use crate::model::action::{Action, Parameter, ParameterType, Script};
use crate::model::datastore::{Change, If, KeyRequest};
use crate::model::event::Cause;
use crate::model::failure::Failure;
use crate::model::hash::Revision;
use crate::model::reason::Reason;
use crate::script::host::{MAX_RESULT_BYTES, Surroundings, kv};
use crate::tasks;

/// Workers of one pack and interpreter, and so how many of its actions run at once.
const WORKERS: usize = 4;

/// Attempts at once of all packs.
const PLACES: usize = 32;

/// How long a worker may be idle before it is ended.
pub const IDLE_TIME: Duration = Duration::from_secs(300);

/// How often a worker is started anew for one attempt, because the one before could not begin it.
const TRIES: usize = 3;

/// The kind.
pub const KIND: RunnerKind = RunnerKind {
    name: "python-script",
    summary: "runs `run(params)`, or a class with `run(self, …)`, of the Python script that `entry_point` names, or of the `.py` file beside the action",
    example: "name: greet\nrunner_type: python-script\nparameters:\n  who: {type: string, default: world}\n",
    script: Some(ScriptFile {
        extension: "py",
        example: "def run(params):\n    return \"hello \" + params[\"who\"]\n",
        is_executable: false,
    }),
    parameters,
    check,
    places: |_| PLACES,
    build: |surroundings, _| Arc::new(PythonScript { surroundings: Arc::clone(surroundings), pools: Mutex::default() }),
};

fn parameters() -> Vec<Parameter> {
    vec![
        Parameter {
            default: Some(json!("python3")),
            ..parameter(
                "interpreter",
                ParameterType::String,
                "The Python that runs it: a name, or a path, such as that of a virtual environment",
            )
        },
        parameter("env", ParameterType::Object, "Added to the environment"),
    ]
}

fn check(action: &Action) -> Vec<(String, usize, usize)> {
    let has_run = action.script.as_ref().is_none_or(|script| script.text.contains("run"));
    if has_run { Vec::new() } else { vec![("the script needs a function `run(params)` or a class with `run(self, …)`".into(), 0, 0)] }
}

struct PythonScript {
    surroundings: Arc<Surroundings>,
    /// By pack and interpreter.
    pools: Mutex<HashMap<(String, String), Arc<Pool>>>,
}

/// The workers of a pack.
struct Pool {
    places: Semaphore,
    idle: Mutex<Idle>,
}

#[derive(Default)]
struct Idle {
    workers: Vec<Worker>,
    /// Whether somebody looks when they have been idle for long enough.
    is_watched: bool,
}

impl Pool {
    fn new() -> Self {
        Self { places: Semaphore::new(WORKERS), idle: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().expect("no panic happens while the lock is held")
    }

    /// The worker that was used last; one that has another revision of the script is ended.
    fn take(&self, script: &Script, revision: &Revision) -> Option<Worker> {
        let mut idle = self.lock();
        while let Some(mut worker) = idle.workers.pop() {
            if worker.fits(&script.file, revision) {
                return Some(worker);
            }
        }
        None
    }

    fn give_back(self: &Arc<Self>, mut worker: Worker, surroundings: &Arc<Surroundings>) {
        worker.idle_since = surroundings.clock.now();
        let mut idle = self.lock();
        idle.workers.push(worker);
        if !std::mem::replace(&mut idle.is_watched, true) {
            let (pool, surroundings) = (Arc::downgrade(self), Arc::clone(surroundings));
            tasks::spawn_bounded(async move {
                loop {
                    clock::sleep(&*surroundings.clock, IDLE_TIME / 4).await;
                    // The pool is there as long as the runner is.
                    let Some(pool) = pool.upgrade() else { return };
                    if !pool.end_idle(&surroundings) {
                        return;
                    }
                }
            });
        }
    }

    /// Ends the workers that have been idle for long; whether there are any left to watch.
    fn end_idle(&self, surroundings: &Surroundings) -> bool {
        let now = surroundings.clock.now();
        let mut idle = self.lock();
        idle.workers.retain(|worker| (now - worker.idle_since).to_std().is_ok_and(|span| span < IDLE_TIME));
        idle.is_watched = !idle.workers.is_empty();
        idle.is_watched
    }
}

#[async_trait]
impl ActionRunner for PythonScript {
    async fn run(&self, call: ActionCall, cx: RunContext) -> Result<Value, Failure> {
        let _errand = self.surroundings.errands.begin();
        let interpreter = call.execution.request.parameters.get("interpreter").and_then(Value::as_str).unwrap_or_default();
        allowed(&call, interpreter)?;
        let pool = self.pool(&call.pack.reference, interpreter);
        let _place = tokio::select! {
            place = pool.places.acquire() => place.expect("the places of a pool are never closed"),
            () = cx.stop.stopped() => return Err(stopped()),
        };
        let deadline = cx.begin(self.surroundings.clock.now());
        let Some(script) = &call.action.script else { return Err(Failure::misuse("the action has no script")) };
        let request = self.request(&call, script);
        let asked = Asked { surroundings: &self.surroundings, call: &call };
        let mut died = String::new();
        for _ in 0..TRIES {
            let revision = &call.action.revision;
            let mut worker = match pool.take(script, revision) {
                Some(worker) => worker,
                None => Worker::start(interpreter, call.pack.folder.clone(), self.surroundings.clock.now())?,
            };
            let outcome = tokio::select! {
                outcome = worker.attempt(&request, revision, &cx.log, &asked) => Ok(outcome),
                () = cx.stop.stopped() => Err(stopped()),
                () = self.surroundings.clock.sleep_until(deadline) => Err(late(&script.file)),
            };
            match outcome {
                Ok(Outcome::Answered(answer)) => {
                    if !answer.retire {
                        pool.give_back(worker, &self.surroundings);
                    }
                    return result(answer, &cx);
                }
                Ok(Outcome::NotBegun) => died = "could not begin".into(),
                Ok(Outcome::Died(how)) => return Err(gone(&script.file, &how)),
                Err(mut failure) => {
                    if !worker.end().await {
                        failure.message.push_str("; its worker hangs in the system and could not be killed");
                    }
                    cx.log.flush();
                    return Err(failure);
                }
            }
        }
        Err(gone(&script.file, &died))
    }
}

fn stopped() -> Failure {
    Failure { reason: Reason::Canceled, message: "the script was stopped".into(), retry: false }
}

fn late(file: &str) -> Failure {
    Failure { reason: Reason::TimedOut, message: format!("{file}: the script ran longer than the action's `timeout`"), retry: true }
}

fn gone(file: &str, how: &str) -> Failure {
    let message = format!("{file}: the Python worker {how} while it ran the script; see the log");
    Failure { reason: Reason::ActionFailed, message, retry: true }
}

fn result(answer: Answer, cx: &RunContext) -> Result<Value, Failure> {
    if let Some(message) = answer.error {
        let reason = match (answer.broken, answer.too_large) {
            (true, _) => Reason::ScriptBroken,
            (_, true) => Reason::OutputTooLarge,
            _ => Reason::ActionFailed,
        };
        return Err(Failure { reason, message, retry: answer.again });
    }
    if answer.succeeded {
        return Ok(answer.result);
    }
    let message = format!("the script says that it failed: {}", crate::template::text::plain(&answer.result));
    cx.leave(answer.result);
    Err(Failure { reason: Reason::ActionFailed, message, retry: true })
}

impl PythonScript {
    fn pool(&self, pack: &str, interpreter: &str) -> Arc<Pool> {
        let mut pools = self.pools.lock().expect("no panic happens while the lock is held");
        Arc::clone(pools.entry((pack.to_string(), interpreter.to_string())).or_insert_with(|| Arc::new(Pool::new())))
    }

    fn request<'a>(&self, call: &'a ActionCall, script: &'a Script) -> Request<'a> {
        let inside = Path::new(&script.file).strip_prefix(Path::new("packs").join(&call.pack.reference)).unwrap_or(Path::new(&script.file));
        let path = call.pack.folder.join(inside);
        let beside = path.parent().map_or_else(PathBuf::new, Path::to_path_buf);
        let added = call.execution.request.parameters.get("env").and_then(Value::as_object);
        let own = parameters();
        let mut context = call.context();
        // The runner's own parameters are not the script's.
        context["runner"] = json!(KIND.name);
        let mut params = call.execution.request.parameters.clone();
        params.retain(|name, _| !own.iter().any(|parameter| parameter.name == *name));
        Request {
            file: &script.file,
            path,
            module: format!("signalman_action_{}", script.file.replace(|c: char| !c.is_ascii_alphanumeric(), "_")),
            source: &script.text,
            folder: call.pack.folder.clone(),
            folders: vec![call.pack.folder.join("lib"), beside],
            params,
            config: &call.pack.config,
            context,
            env: environment(&self.surroundings, call, added),
            mark: format!("{}-{}", call.execution.id, call.execution.state.attempt),
            limit: MAX_RESULT_BYTES,
        }
    }
}

/// Answers what a script asks of the engine, within the capabilities of its pack.
struct Asked<'a> {
    surroundings: &'a Surroundings,
    call: &'a ActionCall,
}

impl Asked<'_> {
    async fn answer(&self, question: Question) -> Result<Value, String> {
        let pack = &self.call.pack;
        let Value::String(name) = &question.name else { return Err("the name of a key is text".into()) };
        let host = &self.surroundings.host;
        let told = |failure: Failure| failure.message;
        if question.ask == "get" {
            let scope = match question.pack.filter(|owner| *owner != pack.reference) {
                Some(owner) => kv::others(pack, &owner).map_err(told)?,
                None => kv::own(pack, false).map_err(told)?,
            };
            return Ok(host.key(&scope, name).await?.map(|entry| entry.value).unwrap_or_default());
        }
        let change = if question.ask == "set" { Change::Set { value: question.value, ttl: None } } else { Change::Delete };
        let scope = kv::own(pack, true).map_err(told)?;
        kv::no_secret(name, &change, &self.call.masks()).map_err(told)?;
        let execution = &self.call.execution;
        let request = KeyRequest {
            scope,
            name: name.clone(),
            change,
            only: If::Always,
            by: format!("{} ({})", self.call.action.reference, execution.id.short()),
            cause: Some(Cause { execution: execution.id, depth: execution.request.depth }),
        };
        host.change_key(request).await.map_err(told)?;
        Ok(Value::Null)
    }
}
