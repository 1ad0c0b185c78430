//! What is measured, each on a fresh server.

#![allow(clippy::cast_precision_loss, reason = "counts and times of a benchmark fit a double")]

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_util::future::{join_all, try_join_all};
use serde_json::{Value, json};

use super::super::Common;
use super::Arguments;
use super::load::{Connection, Timings, event};
use super::process::{BenchServer, BenchSite};

pub(super) const MIB: f64 = 1_048_576.0;

/// The pause after an answer that asks to come back later.
const BACK_OFF: Duration = Duration::from_millis(20);

/// Events in one array.
pub(super) const ARRAY: u64 = 100;

pub(super) fn rounded(number: f64) -> Value {
    json!((number * 100.0).round() / 100.0)
}

pub(super) async fn idle(common: &Common, arguments: &Arguments) -> Result<Value, String> {
    let site = BenchSite::new(&common.site, "")?;
    let mut starts = Timings::default();
    for _ in 0..5 {
        let server = BenchServer::start(&site)?;
        starts.add_us(u64::try_from(server.start.as_micros()).unwrap_or(u64::MAX));
        server.kill();
    }
    let server = BenchServer::start(&site)?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (began, cpu) = (Instant::now(), server.cpu());
    tokio::time::sleep(Duration::from_secs(arguments.seconds)).await;
    let used = server.cpu().saturating_sub(cpu).as_secs_f64() / began.elapsed().as_secs_f64();
    let program = std::env::current_exe().and_then(std::fs::metadata).map_or(0, |metadata| metadata.len());
    Ok(json!({
        "start_ms_median": rounded(starts.percentile_ms(50)),
        "resident_mib": rounded(server.memory(false) as f64 / MIB),
        "cpu_percent": rounded(used * 100.0),
        "binary_mib": rounded(program as f64 / MIB),
    }))
}

/// What a closed loop of connections did.
pub(super) struct Closed {
    pub(super) events: u64,
    refused: u64,
    timings: Timings,
    elapsed: Duration,
}

/// Every connection posts one body after the other until the time is over.
pub(super) async fn closed_loop(
    server: &BenchServer,
    connections: usize,
    seconds: u64,
    per_body: u64,
    keys: Option<&str>,
    body: impl Fn(u64) -> String,
) -> Result<Closed, String> {
    let opened = try_join_all((0..connections).map(|_| Connection::open(&server.address))).await?;
    let (next, began) = (Rc::new(Cell::new(0u64)), Instant::now());
    let until = began + Duration::from_secs(seconds);
    let body = &body;
    let loops = opened.into_iter().map(|mut connection| {
        let next = Rc::clone(&next);
        async move {
            let (mut events, mut refused, mut timings) = (0, 0, Timings::default());
            while Instant::now() < until {
                let number = next.get();
                next.set(number + per_body);
                let (text, key) = (body(number), keys.map(|prefix| format!("{prefix}{number}")));
                let start = Instant::now();
                let answer = connection.post(&text, key.as_deref()).await?;
                match answer.status {
                    202 => {
                        timings.since(start);
                        events += per_body;
                    }
                    503 => {
                        refused += 1;
                        tokio::time::sleep(BACK_OFF).await;
                    }
                    status => return Err(format!("the server answered {status}: {}", String::from_utf8_lossy(&answer.body))),
                }
            }
            Ok((events, refused, timings))
        }
    });
    let mut total = Closed { events: 0, refused: 0, timings: Timings::default(), elapsed: Duration::ZERO };
    for outcome in join_all(loops).await {
        let (events, refused, timings) = outcome?;
        total.events += events;
        total.refused += refused;
        total.timings.join(timings);
    }
    total.elapsed = began.elapsed();
    Ok(total)
}

/// So many bodies over some connections; answers how many events that were.
pub(super) async fn bodies(
    server: &BenchServer,
    connections: usize,
    count: u64,
    per_body: u64,
    body: impl Fn(u64) -> String,
) -> Result<u64, String> {
    let opened = try_join_all((0..connections).map(|_| Connection::open(&server.address))).await?;
    let next = Rc::new(Cell::new(0u64));
    let body = &body;
    let loops = opened.into_iter().map(|mut connection| {
        let next = Rc::clone(&next);
        async move {
            while next.get() < count {
                let number = next.replace(next.get() + 1) * per_body;
                loop {
                    match connection.post(&body(number), None).await?.status {
                        202 => break,
                        503 => tokio::time::sleep(BACK_OFF).await,
                        status => return Err(format!("the server answered {status}")),
                    }
                }
            }
            Ok(())
        }
    });
    try_join_all(loops).await?;
    Ok(count * per_body)
}

/// Waits until so many executions have succeeded.
pub(super) async fn drained(server: &BenchServer, executions: f64) -> Result<(), String> {
    let (mut last, mut still) = (0.0, Instant::now());
    loop {
        let succeeded = metric(server, "executions_total{status=\"succeeded\"}").await?;
        if succeeded >= executions {
            return Ok(());
        }
        if succeeded > last {
            (last, still) = (succeeded, Instant::now());
        } else if still.elapsed() > Duration::from_secs(60) {
            return Err(format!("{executions} executions were requested, {succeeded} have succeeded, and none in the last minute"));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// How long accepting takes at a fixed rate.
pub(super) async fn accepting(server: &BenchServer, arguments: &Arguments, seconds: u64) -> Result<Timings, String> {
    const CONNECTIONS: u64 = 16;
    let began = tokio::time::Instant::now();
    let gap = Duration::from_secs_f64(1.0 / arguments.rate.max(1) as f64);
    let total = arguments.rate * seconds;
    let opened = try_join_all((0..CONNECTIONS).map(|_| Connection::open(&server.address))).await?;
    let loops = opened.into_iter().enumerate().map(|(index, mut connection)| async move {
        let mut timings = Timings::default();
        for number in (index as u64..total).step_by(usize::try_from(CONNECTIONS).unwrap_or(1)) {
            tokio::time::sleep_until(began + gap * u32::try_from(number).unwrap_or(u32::MAX)).await;
            let start = Instant::now();
            let answer = connection.post(&event("idle", number), None).await?;
            if answer.status != 202 {
                return Err(format!("the server answered {}", answer.status));
            }
            timings.since(start);
        }
        Ok(timings)
    });
    let mut all = Timings::default();
    for timings in try_join_all(loops).await? {
        all.join(timings);
    }
    Ok(all)
}

/// The beginning of every Idempotency-Key, if there are to be any.
fn keys<'p>(arguments: &Arguments, prefix: &'p str) -> Option<&'p str> {
    arguments.keys.then_some(prefix)
}

pub(super) fn array(kind: &str, first: u64, length: u64) -> String {
    let events: Vec<String> = (first..first + length).map(|number| event(kind, number)).collect();
    format!("[{}]", events.join(","))
}

/// A metric of the server, or zero.
pub(super) async fn metric(server: &BenchServer, name: &str) -> Result<f64, String> {
    let answer = Connection::open(&server.address).await?.get("/metrics", &server.token).await?;
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    let value = text.lines().find_map(|line| line.strip_prefix(&format!("signalman_{name} "))).and_then(|value| value.parse().ok());
    Ok(value.unwrap_or(0.0))
}

async fn commit_ms(server: &BenchServer) -> Result<f64, String> {
    let (sum, count) = (metric(server, "commit_seconds_sum").await?, metric(server, "commit_seconds_count").await?);
    Ok(sum * 1_000.0 / count.max(1.0))
}

pub(super) async fn accept(common: &Common, arguments: &Arguments) -> Result<Value, String> {
    let site = BenchSite::new(&common.site, "")?;
    let server = BenchServer::start(&site)?;
    closed_loop(&server, arguments.connections, 1, 1, keys(arguments, "warm"), |number| event("warm", number)).await?;
    let cpu = server.cpu();
    let offset = 1 << 40;
    let mut done =
        closed_loop(&server, arguments.connections, arguments.seconds, 1, keys(arguments, "run"), |number| event("idle", offset + number))
            .await?;
    let used = server.cpu().saturating_sub(cpu);
    Ok(json!({
        "events": done.events,
        "refused": done.refused,
        "events_per_second": rounded(done.events as f64 / done.elapsed.as_secs_f64()),
        "server_cpu_us_per_event": rounded(used.as_micros() as f64 / done.events.max(1) as f64),
        "commit_ms_mean": rounded(commit_ms(&server).await?),
        "request_ms_p50": rounded(done.timings.percentile_ms(50)),
        "request_ms_p99": rounded(done.timings.percentile_ms(99)),
        "peak_resident_mib": rounded(server.memory(true) as f64 / MIB),
        "stored_mib": rounded(site.stored_bytes() as f64 / MIB),
    }))
}

pub(super) async fn arrays(common: &Common, arguments: &Arguments) -> Result<Value, String> {
    // What the first burst leaves is removed while the second is measured.
    let burst = arguments.seconds.min(10);
    let site = BenchSite::new(&common.site, &format!("retention: {{events: {}s}}", burst + 2))?;
    let server = BenchServer::start(&site)?;
    closed_loop(&server, 8, burst, ARRAY, keys(arguments, "warm"), |number| array("warm", number, ARRAY)).await?;
    let (cpu, expired) = (server.cpu(), metric(&server, "expired_records_total").await?);
    let mark = newest(&server).await?;
    let offset = 1 << 40;
    let mut done = closed_loop(&server, 8, burst, ARRAY, keys(arguments, "run"), |number| array("idle", offset + number, ARRAY)).await?;
    let used = server.cpu().saturating_sub(cpu);
    let (removed, peak) = (metric(&server, "expired_records_total").await? - expired, server.memory(true));
    let stored = site.stored_bytes();
    server.kill();
    site.settings("retention: {events: 1d}")?;
    let server = BenchServer::start(&site)?;
    let counted = count_since(&server, &mark).await?;
    if counted != done.events {
        return Err(format!("{} events were acknowledged, but {counted} are there after the restart", done.events));
    }
    Ok(json!({
        "events": done.events,
        "refused": done.refused,
        "events_per_second": rounded(done.events as f64 / done.elapsed.as_secs_f64()),
        "server_cpu_us_per_event": rounded(used.as_micros() as f64 / done.events.max(1) as f64),
        "request_ms_p50": rounded(done.timings.percentile_ms(50)),
        "request_ms_p99": rounded(done.timings.percentile_ms(99)),
        "records_removed_meanwhile": removed,
        "counted_after_kill": counted,
        "reopened_ms": rounded(server.start.as_secs_f64() * 1_000.0),
        "peak_resident_mib": rounded(peak as f64 / MIB),
        "stored_mib": rounded(stored as f64 / MIB),
    }))
}

/// The id of the newest event.
async fn newest(server: &BenchServer) -> Result<String, String> {
    let page = Connection::open(&server.address).await?.get("/api/v1/events?limit=1", &server.token).await?.json();
    page["next"].as_str().map(ToString::to_string).ok_or_else(|| "no event is there".into())
}

/// How many events are newer than the given id.
async fn count_since(server: &BenchServer, mark: &str) -> Result<u64, String> {
    let (mut connection, mut before, mut count) = (Connection::open(&server.address).await?, None::<String>, 0);
    loop {
        let part = before.as_ref().map(|id| format!("&before={id}")).unwrap_or_default();
        let page = connection.get(&format!("/api/v1/events?limit=1000{part}"), &server.token).await?.json();
        let events = page["events"].as_array().cloned().unwrap_or_default();
        let newer = events.iter().filter(|stored| stored["event"]["id"].as_str().is_some_and(|id| id > mark)).count();
        count += newer as u64;
        before = page["next"].as_str().map(ToString::to_string);
        if newer < events.len() || before.is_none() {
            return Ok(count);
        }
    }
}

pub(super) async fn executions(common: &Common, arguments: &Arguments, kind: &str) -> Result<Value, String> {
    const TOGETHER: u64 = 10;
    let site = BenchSite::new(&common.site, "")?;
    let server = BenchServer::start(&site)?;
    let began = Instant::now();
    let cpu = server.cpu();
    let connections = (arguments.connections / 4).max(1);
    let done =
        closed_loop(&server, connections, arguments.seconds, TOGETHER, keys(arguments, "run"), |number| array(kind, number, TOGETHER))
            .await?;
    let (fed, succeeded) = (began.elapsed(), done.events as f64);
    drained(&server, succeeded).await?;
    let (took, used) = (began.elapsed(), server.cpu().saturating_sub(cpu));
    Ok(json!({
        "executions": succeeded,
        "refused": done.refused,
        "executions_per_second": rounded(succeeded / took.as_secs_f64()),
        "server_cpu_us_per_execution": rounded(used.as_micros() as f64 / succeeded.max(1.0)),
        "drained_ms_after_the_last": rounded(took.saturating_sub(fed).as_secs_f64() * 1_000.0),
        "commit_ms_mean": rounded(commit_ms(&server).await?),
        "peak_resident_mib": rounded(server.memory(true) as f64 / MIB),
        "stored_mib": rounded(site.stored_bytes() as f64 / MIB),
    }))
}

pub(super) async fn latency(common: &Common, arguments: &Arguments) -> Result<Value, String> {
    let site = BenchSite::new(&common.site, "")?;
    let server = BenchServer::start(&site)?;
    closed_loop(&server, 4, 1, 1, None, |number| event("run", number)).await?;
    let sent = fixed_rate(&server, arguments).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let cpu_commit = commit_ms(&server).await?;
    let mut timings = started(&server, &sent).await?;
    if timings.len() < sent.len() {
        return Err(format!("{} events were sent, {} scripts have run", sent.len(), timings.len()));
    }
    Ok(json!({
        "events": sent.len(),
        "action_started_ms_p50": rounded(timings.percentile_ms(50)),
        "action_started_ms_p90": rounded(timings.percentile_ms(90)),
        "action_started_ms_p99": rounded(timings.percentile_ms(99)),
        "commit_ms_mean": rounded(cpu_commit),
    }))
}

/// Sends at a fixed rate, whether or not answers have come; for each event the time it was sent, in microseconds since 1970.
pub(super) async fn fixed_rate(server: &BenchServer, arguments: &Arguments) -> Result<HashMap<String, i64>, String> {
    const CONNECTIONS: u64 = 16;
    let began = tokio::time::Instant::now();
    let gap = Duration::from_secs_f64(1.0 / arguments.rate.max(1) as f64);
    let total = arguments.rate * arguments.seconds;
    let opened = try_join_all((0..CONNECTIONS).map(|_| Connection::open(&server.address))).await?;
    let loops = opened.into_iter().enumerate().map(|(index, mut connection)| async move {
        let mut sent = Vec::new();
        for number in (index as u64..total).step_by(usize::try_from(CONNECTIONS).unwrap_or(1)) {
            tokio::time::sleep_until(began + gap * u32::try_from(number).unwrap_or(u32::MAX)).await;
            let at = crate::clock::Clock::now(&crate::clock::SystemClock).timestamp_micros();
            let answer = connection.post(&event("run", number), None).await?;
            if answer.status != 202 {
                return Err(format!("the server answered {}", answer.status));
            }
            sent.push((answer.json()["events"][0]["id"].as_str().unwrap_or_default().to_string(), at));
        }
        Ok(sent)
    });
    let sent: Vec<Vec<(String, i64)>> = try_join_all(loops).await?;
    Ok(sent.into_iter().flatten().collect())
}

/// From sending to the script's own clock, for every event.
pub(super) async fn started(server: &BenchServer, sent: &HashMap<String, i64>) -> Result<Timings, String> {
    let (mut connection, mut before, mut timings) = (Connection::open(&server.address).await?, None::<String>, Timings::default());
    loop {
        let part = before.as_ref().map(|id| format!("&before={id}")).unwrap_or_default();
        let page = connection.get(&format!("/api/v1/executions?limit=1000{part}"), &server.token).await?.json();
        let executions = page["executions"].as_array().cloned().unwrap_or_default();
        for execution in &executions {
            let sent_at = execution["event"].as_str().and_then(|event| sent.get(event));
            if let (Some(sent_at), Some(at)) = (sent_at, execution["result"]["at_us"].as_i64()) {
                timings.add_us(u64::try_from(at - sent_at).unwrap_or(0));
            }
        }
        before = page["next"].as_str().map(ToString::to_string);
        if before.is_none() {
            return Ok(timings);
        }
    }
}
