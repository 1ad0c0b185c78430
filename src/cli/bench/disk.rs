//! What concerns the store: durable commits, what the folder takes, neighbours on the disk, backups.

#![allow(clippy::cast_precision_loss, reason = "counts and times of a benchmark fit a double")]

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::super::Common;
use super::Arguments;
use super::load::{Connection, Timings, event};
use super::process::{BenchServer, BenchSite};
use super::scenarios::{self, ARRAY, MIB, array, closed_loop, metric, rounded};
use crate::clock::{Clock, SystemClock};
use crate::model::event::{Event, StoredEvent};
use crate::model::ids::IdSource;
use crate::model::json::RawJson;
use crate::store::{Batch, Stat, Store, migrate};
use crate::tasks;

/// Durable commits of one event of about 300 bytes, straight to the store: from one task and from 64.
pub(super) fn commits(common: &Common, arguments: &Arguments) -> Result<Value, String> {
    let folder = common.site.join("data").join(format!("bench-commits-{}", std::process::id()));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|error| error.to_string())?;
    let mut figures = serde_json::Map::new();
    for writers in [1, 64] {
        let _ = fs::remove_dir_all(&folder); // usually there is none
        fs::create_dir_all(&folder).map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
        let store: Arc<dyn Store> = Arc::new(migrate::open(&folder.join("store")).map_err(|error| error.to_string())?);
        let (count, mut timings) = runtime.block_on(committing(&store, writers, Duration::from_secs(arguments.seconds)))?;
        figures.insert(format!("commits_per_second_{writers}"), rounded(count as f64 / arguments.seconds as f64));
        figures.insert(format!("commit_ms_p50_{writers}"), rounded(timings.percentile_ms(50)));
        figures.insert(format!("commit_ms_p99_{writers}"), rounded(timings.percentile_ms(99)));
    }
    let _ = fs::remove_dir_all(&folder); // what is left lies in the data folder and says what it is
    Ok(Value::Object(figures))
}

async fn committing(store: &Arc<dyn Store>, writers: usize, span: Duration) -> Result<(u64, Timings), String> {
    let (ids, count, until) = (Arc::new(IdSource::system()), Arc::new(AtomicU64::new(0)), Instant::now() + span);
    let upkeep = {
        let store = Arc::clone(store);
        tasks::spawn_bounded(async move {
            while Instant::now() < until {
                let more = store.tend(SystemClock.now(), &crate::store::Keep::default()).await.is_ok_and(|tended| tended.more);
                if !more {
                    crate::clock::pause(Duration::from_millis(50)).await;
                }
            }
        })
    };
    let loops: Vec<_> = (0..writers)
        .map(|_| {
            let (store, ids, count) = (Arc::clone(store), Arc::clone(&ids), Arc::clone(&count));
            tasks::spawn_bounded(async move {
                let mut timings = Timings::default();
                while Instant::now() < until {
                    let batch = Batch { events: vec![stored(&ids)], ..Batch::default() };
                    let start = Instant::now();
                    store.commit(&batch).await.map_err(|error| error.to_string())?;
                    timings.since(start);
                    count.fetch_add(1, Ordering::Relaxed);
                }
                Ok::<_, String>(timings)
            })
        })
        .collect();
    let mut timings = Timings::default();
    for task in loops {
        timings.join(task.await.map_err(|error| error.to_string())??);
    }
    upkeep.await.map_err(|error| error.to_string())?;
    Ok((count.load(Ordering::Relaxed), timings))
}

fn stored(ids: &IdSource) -> Arc<StoredEvent> {
    let now = SystemClock.now();
    let event = Event {
        id: ids.event(now),
        trigger: "bench.event".into(),
        key: None,
        dedup_key: None,
        occurred_at: now,
        received_at: now,
        source: "bench".into(),
        cause: None,
        depth: 0,
        payload: RawJson::of(&json!({"text": "unlock latency above the limit for three polls in a row"})),
    };
    Arc::new(StoredEvent { event, ruleset: 1, verdicts: Vec::new(), more_near_misses: 0, keys: serde_json::Map::new(), set_aside: None })
}

/// Events that come in all the time, the newest of which are kept, and their executions ten times longer.
pub(super) async fn keep(common: &Common, arguments: &Arguments) -> Result<Value, String> {
    const KEPT: u64 = 100_000;
    // What is asked for is carried out before more comes, so that memory is that of the store and not of a backlog.
    const BODIES: u64 = 200;
    let settings = format!("retention: {{events: {{age: 7d, count: {KEPT}}}, executions: {{age: 30d, count: {KEPT}}}}}");
    let site = BenchSite::new(&common.site, &settings)?;
    let server = BenchServer::start(&site)?;
    let peak = Peak::watch(&site);
    let (mut sent, began) = (0, Instant::now());
    while sent < arguments.events {
        let bodies = ((arguments.events - sent) / ARRAY).min(BODIES);
        // One event in ten asks for an execution, so as many executions are kept as events, and ten times longer.
        let body = |number: u64| {
            let kind = |number: u64| if number.is_multiple_of(10) { "run" } else { "idle" };
            let events: Vec<String> = (number..number + ARRAY).map(|number| event(kind(number), number)).collect();
            format!("[{}]", events.join(","))
        };
        let offset = sent;
        sent += scenarios::bodies(&server, 8, bodies, ARRAY, |number| body(offset + number)).await?;
        scenarios::drained(&server, (sent / 10) as f64).await?;
    }
    let fed = began.elapsed();
    let peak_bytes = peak.most();
    let memory = server.memory(true);
    crate::clock::pause(Duration::from_secs(arguments.settle)).await;
    let stat: Stat = serde_json::from_value(stat(&server).await?).map_err(|error| error.to_string())?;
    let (disk, live) = (site.disk_bytes(), stat.live_bytes);
    let count = |kind: &str| stat.kinds.iter().find(|found| found.kind == kind).map_or(0, |found| found.count);
    server.kill();
    let server = BenchServer::start(&site)?;
    Ok(json!({
        "events": sent,
        "events_per_second": rounded(sent as f64 / fed.as_secs_f64()),
        "events_kept": count("events"),
        "executions_kept": count("executions"),
        "live_mib": rounded(live as f64 / MIB),
        "disk_mib": rounded(disk as f64 / MIB),
        "disk_to_live": rounded(disk as f64 / live as f64),
        "peak_disk_mib": rounded(peak_bytes as f64 / MIB),
        "peak_to_live": rounded(peak_bytes as f64 / live as f64),
        "peak_resident_mib": rounded(memory as f64 / MIB),
        "reopened_ms": rounded(server.start.as_secs_f64() * 1_000.0),
    }))
}

async fn stat(server: &BenchServer) -> Result<Value, String> {
    Ok(Connection::open(&server.address).await?.get("/api/v1/store/stat", &server.token).await?.json())
}

/// Watches how large a site's data becomes.
struct Peak {
    most: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Peak {
    fn watch(site: &BenchSite) -> Self {
        let watched = Self { most: Arc::default(), stop: Arc::default() };
        let (most, stop, site) = (Arc::clone(&watched.most), Arc::clone(&watched.stop), site.view());
        tasks::spawn_bounded(async move {
            while !stop.load(Ordering::Relaxed) {
                most.fetch_max(site.disk_bytes(), Ordering::Relaxed);
                crate::clock::pause(Duration::from_millis(100)).await;
            }
        });
        watched
    }

    fn most(&self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.most.load(Ordering::Relaxed)
    }
}

/// From accepting an event to its action beside somebody who writes bursts of a gigabyte to the same disk.
pub(super) async fn neighbour(common: &Common, arguments: &Arguments) -> Result<Value, String> {
    let path = common.site.join("data").join(format!("bench-neighbour-{}", std::process::id()));
    let stop = Arc::new(AtomicBool::new(false));
    let bursts = Arc::new(Mutex::new(Vec::new()));
    let thread = {
        let (path, stop, bursts) = (path.clone(), Arc::clone(&stop), Arc::clone(&bursts));
        tasks::spawn_thread("bench-neighbour", 1 << 18, move || write_bursts(&path, &stop, &bursts))
    };
    let thread = thread.map_err(|error| format!("no neighbour: {error}"))?;
    let figures = scenarios::latency(common, arguments).await;
    stop.store(true, Ordering::Relaxed);
    let _ = thread.join(); // what it wrote is counted
    let _ = fs::remove_file(&path);
    let mut figures = figures?;
    figures["gigabytes_written_beside"] = json!(bursts.lock().unwrap_or_else(PoisonError::into_inner).len());
    Ok(figures)
}

fn write_bursts(path: &Path, stop: &AtomicBool, bursts: &Mutex<Vec<Duration>>) {
    let block = vec![0x5a; 1 << 20];
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        let written = File::create(path).and_then(|mut file| {
            for _ in 0..1_024 {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                file.write_all(&block)?;
            }
            Ok(())
        });
        if written.is_err() {
            return;
        }
        bursts.lock().unwrap_or_else(PoisonError::into_inner).push(began.elapsed());
        // A burst every five seconds at most.
        while began.elapsed() < Duration::from_secs(5) && !stop.load(Ordering::Relaxed) {
            std::thread::park_timeout(Duration::from_millis(100));
        }
    }
}

/// A backup of about a gigabyte while events come in at a fixed rate.
pub(super) async fn backup(common: &Common, arguments: &Arguments) -> Result<Value, String> {
    const GIB: f64 = 1_073_741_824.0;
    let site = BenchSite::new(&common.site, "")?;
    let server = BenchServer::start(&site)?;
    let mut number = 0;
    while (metric(&server, "store_bytes{of=\"live\"}").await?) < GIB {
        closed_loop(&server, 8, 3, ARRAY, None, |index| array("idle", number + index, ARRAY)).await?;
        number += 1 << 32;
        crate::clock::pause(Duration::from_secs(1)).await;
    }
    crate::clock::pause(Duration::from_secs(20)).await;
    let mut usual = scenarios::accepting(&server, arguments, arguments.seconds).await?;
    let file = site.folder().join("backup");
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let began = Instant::now();
    let mut child = std::process::Command::new(program)
        .arg("--site")
        .arg(site.folder())
        .args(["--server", &format!("http://{}", server.address), "backup"])
        .arg(&file)
        .env("SIGNALMAN_TOKEN", &server.token)
        .stdout(std::process::Stdio::null())
        .spawn()
        .map_err(|error| format!("cannot start the backup: {error}"))?;
    let (mut during, mut took) = (Timings::default(), None);
    while took.is_none() {
        during.join(scenarios::accepting(&server, arguments, 1).await?);
        if let Some(status) = child.try_wait().map_err(|error| error.to_string())? {
            took = Some(began.elapsed());
            if !status.success() {
                return Err(format!("the backup ended with {status}"));
            }
        }
    }
    let bytes = fs::metadata(&file).map_err(|error| error.to_string())?.len();
    let (before, beside) = (usual.percentile_ms(99), during.percentile_ms(99));
    Ok(json!({
        "backup_mib": rounded(bytes as f64 / MIB),
        "backup_seconds": rounded(took.unwrap_or_default().as_secs_f64()),
        "accept_ms_p50_usual": rounded(usual.percentile_ms(50)),
        "accept_ms_p99_usual": rounded(before),
        "accept_ms_p50_beside": rounded(during.percentile_ms(50)),
        "accept_ms_p99_beside": rounded(beside),
        "p99_ratio": rounded(beside / before.max(0.001)),
    }))
}
