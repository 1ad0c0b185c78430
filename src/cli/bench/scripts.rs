//! How fast scripts run, on one thread, without a server.

#![allow(clippy::cast_precision_loss, reason = "counts and times of a benchmark fit a double")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde_json::{Map, Value, json};

use super::Arguments;
use super::scenarios::rounded;
use crate::clock::{Clock, SystemClock};
use crate::model::action::Script;
use crate::model::datastore::{Changed, KeyEntry, KeyRequest, Scope};
use crate::model::failure::Failure;
use crate::model::ids::{ExecutionId, IdSource};
use crate::model::pack::Pack;
use crate::outbound::network::Network;
use crate::script::host::{self, Entry, Host, Lender, ScriptAttempt, ScriptCache, ScriptCall, Surroundings};
use crate::tasks::{Errands, Stop};

/// Fifty lines of what scripts do: functions, loops, closures, texts, maps.
const SCRIPT: &str = r#"fn run(params) {
    let apps = [
        #{ id: "checkout", load: 81.5, instances: 3, env: "prod" },
        #{ id: "cart", load: 40.0, instances: 2, env: "prod" },
        #{ id: "search", load: 93.25, instances: 5, env: "gray" },
    ];
    let busy = apps.filter(|app| app.load > params.limit);
    let plan = [];
    for app in busy {
        plan.push(scaled(app, params.limit));
    }
    let total = 0;
    for step in plan {
        total += step.to - step.from;
    }
    let names = plan.map(|step| step.id);
    let text = "";
    for (name, index) in names {
        if index > 0 {
            text += ", ";
        }
        text += name;
    }
    let seen = #{};
    for app in apps {
        let known = seen[app.env] ?? 0;
        seen[app.env] = known + app.instances;
    }
    #{
        summary: `${plan.len()} apps above ${params.limit}: ${text}`,
        more: total,
        env: seen,
        level: level(total),
    }
}

fn scaled(app, limit) {
    let wanted = (app.load / limit * app.instances).ceiling().to_int();
    let to = max(wanted, app.instances + 1);
    #{ id: app.id, from: app.instances, to: to }
}

fn level(total) {
    if total > 10 {
        "high"
    } else if total > 3 {
        "middle"
    } else {
        "low"
    }
}
"#;

/// Nobody: the script asks for nothing.
struct Nobody;

fn nobody<T>() -> Result<T, Failure> {
    Err(Failure::engine("nobody is there"))
}

#[async_trait]
impl Host for Nobody {
    async fn key(&self, _: &Scope, _: &str) -> Result<Option<KeyEntry>, String> {
        Ok(None)
    }

    async fn key_names(&self, _: &Scope, _: &str, _: Option<&str>, _: usize) -> Result<Vec<String>, String> {
        Ok(Vec::new())
    }

    async fn change_key(&self, _: KeyRequest) -> Result<Changed, Failure> {
        nobody()
    }

    async fn start_action(&self, _: ExecutionId, _: u32, _: u32, _: &str, _: &Map<String, Value>) -> Result<ExecutionId, Failure> {
        nobody()
    }

    async fn wait_for(&self, _: ExecutionId, _: ExecutionId) -> Result<Value, Failure> {
        nobody()
    }

    async fn send_message(&self, _: ExecutionId, _: u32, _: &str, _: String) -> Result<(), Failure> {
        nobody()
    }
}

impl Lender for Nobody {
    fn lend(&self) -> bool {
        false
    }

    fn take_back(&self) {}

    fn stand_back(&self) {}
}

pub(super) fn scripts(arguments: &Arguments) -> Result<Value, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
    let (clock, nobody) = (Arc::new(SystemClock), Arc::new(Nobody));
    let surroundings = Surroundings {
        host: Arc::clone(&nobody) as _,
        clock: Arc::clone(&clock) as _,
        http: Arc::new(Network::new().map_err(|error| error.to_string())?),
        runtime: runtime.handle().clone(),
        errands: Errands::default(),
    };
    let (cache, pack, id) = (ScriptCache::default(), Arc::new(Pack::named("bench")), IdSource::seeded(1).execution(clock.now()));
    let script = Script { file: "bench.rhai".into(), text: SCRIPT.into() };
    let parameters = json!({"limit": 50}).as_object().cloned().unwrap_or_default();
    let once = || {
        let attempt = ScriptAttempt {
            execution: id,
            pack: Arc::clone(&pack),
            user: None,
            depth: 0,
            masks: pack.masks.clone(),
            context: Box::new(|| Value::Null),
            lender: Arc::clone(&nobody) as _,
            deadline: clock.now() + chrono::Duration::seconds(60),
            stop: Stop::new(),
        };
        host::run(&cache, &script, &parameters, ScriptCall::new(&surroundings, Entry::Run, attempt))
    };
    once().outcome.map_err(|failure| failure.message)?;
    let (began, mut runs) = (Instant::now(), 0u64);
    while began.elapsed() < Duration::from_secs(arguments.seconds) {
        for _ in 0..100 {
            once().outcome.map_err(|failure| failure.message)?;
        }
        runs += 100;
    }
    let elapsed = began.elapsed().as_secs_f64();
    Ok(json!({"lines": SCRIPT.lines().count(), "runs": runs, "runs_per_second": rounded(runs as f64 / elapsed)}))
}
