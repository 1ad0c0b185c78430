//! Programs through the engine, beside how many the machine starts when nothing else is done.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::super::Common;
use super::Arguments;
use super::scenarios::{executions, rounded};
use crate::tasks;

pub(super) async fn shell(common: &Common, arguments: &Arguments) -> Result<Value, String> {
    let before = spawns_per_second(arguments.seconds)?;
    let mut figures = executions(common, arguments, "shell").await?;
    let after = spawns_per_second(arguments.seconds)?;
    let bare = f64::midpoint(before, after);
    let reached = figures["executions_per_second"].as_f64().unwrap_or_default();
    figures["bare_spawns_per_second"] = rounded(bare);
    figures["share_of_bare_percent"] = rounded(100.0 * reached / bare);
    Ok(figures)
}

/// How many programs that do nothing are started and waited for, by a thread for each core.
fn spawns_per_second(seconds: u64) -> Result<f64, String> {
    let began = Instant::now();
    let until = began + Duration::from_secs(seconds);
    let (sender, counts) = std::sync::mpsc::channel();
    for _ in 0..std::thread::available_parallelism().map_or(1, std::num::NonZero::get) {
        let sender = sender.clone();
        let work = move || {
            let mut count = 0u32;
            while Instant::now() < until {
                let started = Command::new("/bin/true").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
                count += u32::from(started.is_ok_and(|status| status.success()));
            }
            let _ = sender.send(count); // who waits is there until all have ended
        };
        tasks::spawn_thread("spawns", 1 << 20, work).map_err(|error| format!("no thread: {error}"))?;
    }
    drop(sender);
    let total: u32 = counts.iter().sum();
    if total == 0 { Err("/bin/true cannot be run".into()) } else { Ok(f64::from(total) / began.elapsed().as_secs_f64()) }
}
