//! `rhai`: the script beside the sensor's file, called again and again. It looks at something and emits events; what it returns is given to
//! the next call.
//!
//! The state is saved after the events were taken: if the process ends in between, the same events are emitted once more.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::settings::Settings;
use super::{Built, Sensor, SensorContext, SensorError, SensorKind, SetupFault};
use crate::model::action::Script;
use crate::model::event::NewEvent;
use crate::model::ids::ExecutionId;
use crate::model::pack::Pack;
use crate::model::sensor::Polling;
use crate::script::host::emit::{PollEnd, poll};
use crate::script::host::{self, Entry, Lender, STACK_BYTES, ScriptAttempt, ScriptCache, Surroundings};
use crate::tasks;

/// The kind.
pub const KIND: SensorKind = SensorKind {
    name: "rhai",
    summary: "calls `fn poll(state)` of the script beside the file, which emits events",
    example: r#"{"every": "1s"}"#,
    script: "fn poll(state) {\n    emit(#{n: 1});\n    state\n}\n",
    also: &[],
    check: |polling| plan(polling).map(|_| ()),
    build,
};

/// The shortest and the longest pause between two polls.
const EVERY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(86_400));

/// How long a poll may take unless the settings say otherwise; at least, and at most.
const TIMEOUT: (Duration, Duration, Duration) = (Duration::from_secs(30), Duration::from_millis(100), Duration::from_secs(600));

struct Scripted {
    plan: Plan,
    pack: Arc<Pack>,
    cache: Arc<ScriptCache>,
    surroundings: Arc<Surroundings>,
}

struct Plan {
    every: Duration,
    timeout: Duration,
    script: Script,
}

fn plan(polling: &Polling) -> Result<Plan, SetupFault> {
    let mut settings = Settings::of("a rhai sensor", &polling.settings);
    let every = settings.duration("every", EVERY.0, EVERY.1)?;
    let timeout = settings.duration("timeout", TIMEOUT.1, TIMEOUT.2)?.unwrap_or(TIMEOUT.0);
    settings.finish()?;
    let every = every.ok_or_else(|| settings.fault("needs `every`, such as 30s"))?;
    let script = polling.script.clone().ok_or_else(|| settings.fault("needs a script of the same name beside its file"))?;
    host::compile(&script, Entry::Poll).map_err(SetupFault::Script)?;
    Ok(Plan { every, timeout, script })
}

fn build(polling: &Polling, surroundings: &Arc<Surroundings>) -> Built {
    let (plan, pack) = (plan(polling)?, Arc::clone(&polling.pack));
    Ok(Box::new(Scripted { plan, pack, cache: Arc::default(), surroundings: Arc::clone(surroundings) }))
}

#[async_trait]
impl Sensor for Scripted {
    async fn run(self: Box<Self>, cx: SensorContext) -> Result<(), SensorError> {
        let mut state = cx.state.load().await.map_err(SensorError)?.unwrap_or_default();
        loop {
            let started = cx.clock.now();
            match self.poll(&cx, &state).await {
                Ok(new) => {
                    state = new;
                    cx.healthy();
                }
                Err(_) if cx.stop.is_stopped() => return Ok(()),
                Err(why) => cx.failing(why),
            }
            let next = started + chrono::Duration::from_std(self.plan.every).unwrap_or(chrono::Duration::days(1));
            tokio::select! { () = cx.stop.stopped() => return Ok(()), () = cx.clock.sleep_until(next) => {} }
        }
    }
}

/// How far a poll that takes long stands back behind all other work, as `nice` counts.
const STAND_BACK_NICE: i32 = 19;

/// A sensor's script has a thread of its own; there is nothing to give away.
struct OwnThread;

impl Lender for OwnThread {
    fn lend(&self) -> bool {
        true
    }

    fn take_back(&self) {}

    fn stand_back(&self) {
        tasks::stand_back(STAND_BACK_NICE);
    }
}

impl Scripted {
    /// One call; the new state, once it and the events are durable.
    async fn poll(&self, cx: &SensorContext, state: &Value) -> Result<Value, String> {
        let PollEnd { outcome, log } = self.call(cx, state).await?;
        for line in log {
            match line.level.as_str() {
                "error" => tracing::error!(sensor = cx.name, "{}", line.text),
                "warn" => tracing::warn!(sensor = cx.name, "{}", line.text),
                _ => tracing::info!(sensor = cx.name, "{}", line.text),
            }
        }
        let (new, emitted) = outcome.map_err(|failure| self.masked(failure.message))?;
        let events = emitted.into_iter().map(|one| NewEvent { key: one.key, occurred_at: one.occurred_at, ..cx.event(&one.payload) });
        cx.emit(events.collect()).await.map_err(|error| error.to_string())?;
        if new != *state {
            cx.state.save(&new).await?;
        }
        Ok(new)
    }

    fn masked(&self, mut text: String) -> String {
        self.pack.masks.text(&mut text);
        text
    }

    /// Runs the script on a thread of its own: it may block there, and the thread ends with it.
    async fn call(&self, cx: &SensorContext, state: &Value) -> Result<PollEnd, String> {
        let _errand = self.surroundings.errands.begin();
        let now = cx.clock.now();
        let about = json!({"sensor": cx.name, "trigger": cx.trigger});
        let attempt = ScriptAttempt {
            execution: ExecutionId::of_poll(&cx.name, now),
            pack: Arc::clone(&self.pack),
            user: None,
            depth: 0,
            masks: self.pack.masks.clone(),
            context: Box::new(move || about.clone()),
            deadline: now + chrono::Duration::from_std(self.plan.timeout).unwrap_or(chrono::Duration::days(1)),
            stop: cx.stop.clone(),
            lender: Arc::new(OwnThread),
        };
        let (cache, surroundings) = (Arc::clone(&self.cache), Arc::clone(&self.surroundings));
        let (script, state) = (self.plan.script.clone(), state.clone());
        let (done, end) = oneshot::channel();
        let work = move || {
            let _ = done.send(poll(&cache, &script, &state, &surroundings, attempt)); // nobody waits for it any more
        };
        tasks::spawn_thread("sensor", STACK_BYTES, work).map_err(|error| format!("no thread for the script: {error}"))?;
        end.await.map_err(|_| "the script's thread ended unexpectedly; see the log".to_string())
    }
}
