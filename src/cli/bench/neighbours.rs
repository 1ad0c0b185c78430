//! What a pack notices of others that take all they can: one that never ends, one that is hungry, one that asks the engine without end.

#![allow(clippy::cast_precision_loss, reason = "counts and times of a benchmark fit a double")]

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::super::Common;
use super::Arguments;
use super::load::event;
use super::process::{BenchServer, BenchSite};
use super::scenarios::{ARRAY, array, bodies, closed_loop, drained, fixed_rate, rounded, started};

/// The greedy packs, each with the script of its only action.
const GREEDY: &[(&str, &str)] = &[
    ("endless", "fn run(params) {\n    loop {}\n}\n"),
    (
        "hungry",
        "fn run(params) {\n    let kept = [];\n    loop {\n        let text = \"x\";\n        text.pad(500000, \"x\");\n        kept.push(text);\n        \
         if kept.len() > 80 { kept = []; }\n    }\n}\n",
    ),
    ("chatty", "fn run(params) {\n    loop {\n        kv.set(\"n\", params.n);\n        log.info(\"again\");\n    }\n}\n"),
];

/// Events a second while the latency is measured; the victim must not be what fills the machine.
const RATE: u64 = 50;

pub(super) async fn neighbours(common: &Common, arguments: &Arguments) -> Result<Value, String> {
    let (alone, beside) = (victim(common, arguments, false).await?, victim(common, arguments, true).await?);
    Ok(json!({
        "alone_executions_per_second": rounded(alone.0),
        "beside_executions_per_second": rounded(beside.0),
        "throughput_lost_percent": rounded((1.0 - beside.0 / alone.0) * 100.0),
        "alone_action_started_ms_p50": rounded(alone.1),
        "beside_action_started_ms_p50": rounded(beside.1),
    }))
}

/// Executions a second of a short action, and the median time from an event to its script, in milliseconds.
async fn victim(common: &Common, arguments: &Arguments, beside: bool) -> Result<(f64, f64), String> {
    let site = BenchSite::new(&common.site, "")?;
    for (name, script) in GREEDY {
        site.write(&format!("packs/{name}/pack.yaml"), &format!("ref: {name}\ncapabilities: {{kv: read_write}}\n"))?;
        site.write(&format!("packs/{name}/actions/work.yaml"), "runner_type: rhai\ntimeout: 10m\nparameters: {n: {type: integer}}\n")?;
        site.write(&format!("packs/{name}/actions/work.rhai"), script)?;
        let rule = format!(
            "name: bench_{name}\ntrigger: {{type: bench.event}}\nceiling: 1000000\ncriteria:\n  trigger.kind: {{type: equals, pattern: {name}}}\n\
             action: {{ref: {name}.work, parameters: {{n: \"<% trigger.n %>\"}}}}\nnotify: {{channel: ops, on: [succeeded]}}\n"
        );
        site.write(&format!("rules/bench_{name}.yaml"), &rule)?;
    }
    let server = BenchServer::start(&site)?;
    if beside {
        for (name, _) in GREEDY {
            bodies(&server, 1, 10, ARRAY, |number| array(name, number, ARRAY)).await?;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let began = Instant::now();
    let done = closed_loop(&server, 16, arguments.seconds, 10, None, |number| array("run", number, 10)).await?;
    drained(&server, done.events as f64).await?;
    let rate = done.events as f64 / began.elapsed().as_secs_f64();
    let slow = Arguments { rate: RATE, ..arguments.clone() };
    closed_loop(&server, 1, 1, 1, None, |number| event("run", number)).await?;
    let sent = fixed_rate(&server, &slow).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    Ok((rate, started(&server, &sent).await?.percentile_ms(50)))
}
