//! `signalman doctor`: looks at everything that a site needs, and says what to do where something is wrong.

use std::fs;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use chrono::{DateTime, Utc};
use rustix::process::{Resource, getrlimit};
use serde::Serialize;
use serde_json::{Value, json};

use super::client::ApiClient;
use super::{Answer, Common, Failure, table};
use crate::auth::TOKEN_FILE;
use crate::clock::{Clock, SystemClock};
use crate::config::{Environment, SiteConfig};
use crate::pack::{self, Site};

/// How long another system may take to answer.
const REACH: Duration = Duration::from_secs(3);

/// Origins that are tried; the rest is counted.
const MOST_ORIGINS: usize = 50;

/// By how much two clocks may differ.
const SKEW_MS: i64 = 2_000;

/// Free space below which something must be done, and should be.
const FREE: (u64, u64) = (16 << 20, 1 << 30);

/// What is written to see how fast the disk is, how often, and from which median on it is slow.
const DISK: (usize, usize, i64) = (256 << 10, 5, 100);

/// Open files below which a busy site comes to its limit: connections and databases.
const OPEN_FILES: u64 = 10_000;

/// Folders that can be watched, below which a change may go unseen.
const WATCHES: u64 = 8_192;

/// How something stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Standing {
    Ok,
    Warn,
    Fail,
}

use Standing::{Fail, Ok as Good, Warn};

/// What a look at one thing found.
#[derive(Debug, Serialize)]
struct Finding {
    check: &'static str,
    result: Standing,
    says: String,
    #[serde(rename = "do")]
    remedy: Option<String>,
}

fn good(check: &'static str, says: impl Into<String>) -> Finding {
    Finding { check, result: Good, says: says.into(), remedy: None }
}

fn bad(check: &'static str, result: Standing, says: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding { check, result, says: says.into(), remedy: Some(remedy.into()) }
}

pub(super) fn run(common: &Common, environment: &Environment) -> Result<Answer, Failure> {
    if !common.site.is_dir() {
        return Err(Failure::misuse(format!("`{}` is not a folder", common.site.display())));
    }
    let (site, faults) = pack::load(&common.site, environment);
    let mut found = vec![files(&site, faults.0.iter().filter(|fault| !fault.warning).count(), faults.0.len())];
    found.extend(server(common, environment, &site.config));
    found.extend(folder(&site.config.data));
    found.extend(origins(&site));
    found.extend(programs(&site, environment));
    found.extend(limits());
    found.push(zone(&site.config));
    let worst = |result: Standing| found.iter().filter(|finding| finding.result == result).count();
    let (warned, failed) = (worst(Warn), worst(Fail));
    common.show(&json!({"failed": failed, "warned": warned, "checks": found}), || {
        let row = |finding: &Finding| {
            let word = json!(finding.result).as_str().unwrap_or_default().to_string();
            let remedy = finding.remedy.as_ref().map(|remedy| format!(" → {remedy}")).unwrap_or_default();
            vec![finding.check.to_string(), word, format!("{}{remedy}", finding.says)]
        };
        table::print(&["check", "result", "what was found"], &found.iter().map(row).collect::<Vec<_>>(), "");
    });
    Ok(if failed == 0 { Answer::Yes } else { Answer::No })
}

fn files(site: &Site, errors: usize, all: usize) -> Finding {
    let counts = format!("{} packs, {} actions, {} rules", site.packs.len(), site.actions.len(), site.rules.len());
    match (errors, all) {
        (0, 0) => good("files", counts),
        (0, warnings) => bad("files", Warn, format!("{counts}: {warnings} warnings"), "`signalman lint` shows them"),
        (errors, _) => bad("files", Fail, format!("{counts}: {errors} errors"), "`signalman lint` shows them with their places"),
    }
}

/// The server of the site, its version and clock; or the port that it would take.
fn server(common: &Common, environment: &Environment, config: &SiteConfig) -> Vec<Finding> {
    let client = match ApiClient::of(common, environment, config) {
        Ok(client) => client,
        Err(failure) => return vec![port(config, &failure.message)],
    };
    let before = SystemClock.now();
    let site = match client.get("/api/v1/site") {
        Ok(site) => site,
        Err(failure) => return vec![port(config, &failure.message)],
    };
    let half = (SystemClock.now() - before) / 2;
    let version = site["version"].as_str().unwrap_or_default();
    let own = env!("CARGO_PKG_VERSION");
    let mut found = vec![if version == own {
        good("server", format!("it answers, version {version}"))
    } else {
        bad(
            "server",
            Warn,
            format!("it runs version {version}, this is {own}"),
            "restart it with this version, or use its own command line",
        )
    }];
    if let Some(now) = site["now"].as_str().and_then(|text| text.parse::<DateTime<Utc>>().ok()) {
        let skew = (now - (before + half)).num_milliseconds();
        found.push(if skew.abs() <= SKEW_MS {
            good("clock of the server", format!("{} ms from ours", skew.abs()))
        } else {
            bad("clock of the server", Warn, format!("{skew} ms from ours"), "let both machines take their time from NTP")
        });
    }
    if let Value::Object(hold) = &site["hold"] {
        let (by, why) = (table::text(&hold["by"]), table::text(&hold["reason"]));
        found.push(bad("hold", Warn, format!("automatic executions are held by {by}: {why}"), "`signalman release` lets them go"));
    }
    found
}

/// What of the address, where no server of ours answers.
fn port(config: &SiteConfig, why: &str) -> Finding {
    match TcpListener::bind(config.listen) {
        Ok(_) => good("server", format!("none runs; {} is free", config.listen)),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            let says = format!("{} is taken, and what is there does not answer us: {why}", config.listen);
            bad("server", Fail, says, "stop what has the port, or set `listen` in signalman.yaml; of a server of ours set SIGNALMAN_TOKEN")
        }
        Err(error) => bad("server", Fail, format!("cannot listen on {}: {error}", config.listen), "set `listen` in signalman.yaml"),
    }
}

/// The data folder: permissions, space, speed, and whether the clock has gone back since it was written.
fn folder(data: &Path) -> Vec<Finding> {
    let Ok(about) = fs::metadata(data) else {
        return vec![good("data folder", format!("`{}` is not there yet; the first start makes it", data.display()))];
    };
    let mut found = Vec::new();
    let mode = about.permissions().mode() & 0o777;
    found.push(if is_open_to_others(mode) {
        bad("data folder", Warn, format!("others may read `{}` ({mode:o})", data.display()), format!("chmod 700 {}", data.display()))
    } else {
        good("data folder", format!("`{}` is for its owner only", data.display()))
    });
    found.extend(private_files(data));
    found.push(space(data));
    found.push(match disk_ms(data) {
        Ok(median) if median < DISK.2 => good("disk speed", format!("{median} ms to write 256 KiB durably")),
        Ok(median) => bad(
            "disk speed",
            Warn,
            format!("{median} ms to write 256 KiB durably"),
            "every acknowledgement waits for the disk; use a faster one",
        ),
        Err(error) => {
            bad("disk speed", Fail, format!("cannot write to `{}`: {error}", data.display()), "let the user of the server own the folder")
        }
    });
    let now = SystemClock.now();
    let newest = entries(data).into_iter().filter_map(|entry| entry.metadata().ok()?.modified().ok()).max().map(DateTime::<Utc>::from);
    found.push(match newest {
        Some(newest) if newest > now + chrono::Duration::milliseconds(SKEW_MS) => bad(
            "clock",
            Fail,
            format!("it is {now}, and the data folder was written at {newest}"),
            "the clock has gone back: set it, by NTP",
        ),
        _ => good("clock", format!("{}", now.format("%Y-%m-%d %H:%M:%S UTC"))),
    });
    found
}

fn is_open_to_others(mode: u32) -> bool {
    mode & 0o077 != 0
}

fn entries(folder: &Path) -> Vec<fs::DirEntry> {
    fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok).collect()
}

/// Files that nobody else may read.
fn private_files(data: &Path) -> Vec<Finding> {
    let secret = |name: &str| name == TOKEN_FILE || [".key", ".token", ".secret"].iter().any(|end| name.ends_with(end));
    let mut open = Vec::new();
    for entry in entries(data) {
        let name = entry.file_name().to_string_lossy().into_owned();
        if secret(&name) && entry.metadata().is_ok_and(|about| is_open_to_others(about.permissions().mode())) {
            open.push(entry.path().display().to_string());
        }
    }
    if open.is_empty() {
        return vec![good("secret files", "nobody else may read tokens and keys")];
    }
    vec![bad(
        "secret files",
        Fail,
        format!("others may read {}", open.join(", ")),
        format!("chmod 600 {}; then make new ones", open.join(" ")),
    )]
}

fn space(data: &Path) -> Finding {
    let free = rustix::fs::statvfs(data).map(|about| about.f_bavail.saturating_mul(about.f_frsize));
    match free {
        Ok(free) if free < FREE.0 => bad("disk space", Fail, format!("{} free", table::bytes(free)), "make room: no events are taken now"),
        Ok(free) if free < FREE.1 => bad("disk space", Warn, format!("{} free", table::bytes(free)), "make room, or shorten `retention`"),
        Ok(free) => good("disk space", format!("{} free", table::bytes(free))),
        Err(error) => bad("disk space", Warn, format!("cannot be told: {error}"), "see `df`"),
    }
}

/// The median time of a durable write, in milliseconds.
fn disk_ms(data: &Path) -> std::io::Result<i64> {
    let path = data.join(format!("doctor.{}.tmp", std::process::id()));
    let block = vec![0u8; DISK.0];
    let written = (|| {
        let mut file = fs::File::create(&path)?;
        let mut times = Vec::new();
        for _ in 0..DISK.1 {
            let from = SystemClock.now();
            file.write_all(&block)?;
            file.sync_data()?;
            times.push((SystemClock.now() - from).num_milliseconds());
        }
        times.sort_unstable();
        Ok(times[DISK.1 / 2])
    })();
    let _ = fs::remove_file(&path); // it may never have been made
    written
}

/// Whether what packs may call can be reached.
fn origins(site: &Site) -> Vec<Finding> {
    let mut all: Vec<(&str, &str)> = Vec::new();
    for pack in site.packs.values() {
        all.extend(pack.capabilities.http.iter().map(|origin| (pack.reference.as_str(), origin.as_str())));
    }
    let mut silent = Vec::new();
    for (pack, origin) in all.iter().take(MOST_ORIGINS) {
        if let Err(why) = reach(origin) {
            silent.push(bad(
                "reach",
                Warn,
                format!("{origin}, which pack {pack} may call: {why}"),
                "see whether it is up, and the pack's `config` right",
            ));
        }
    }
    if silent.is_empty() && !all.is_empty() {
        silent.push(good("reach", format!("{} of {} origins of capabilities answer", all.len().min(MOST_ORIGINS), all.len())));
    }
    silent
}

fn reach(origin: &str) -> Result<(), String> {
    let url = reqwest::Url::parse(origin).map_err(|error| error.to_string())?;
    let (host, port) = (url.host_str().ok_or("it names no host")?, url.port_or_known_default().ok_or("it names no port")?);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let addresses = (host, port).to_socket_addrs().map_err(|error| error.to_string())?;
    let mut why = "it has no address".to_string();
    for address in addresses.take(3) {
        match TcpStream::connect_timeout(&address, REACH) {
            Ok(_) => return Ok(()),
            Err(error) => why = error.to_string(),
        }
    }
    Err(why)
}

/// Programs that actions need.
fn programs(site: &Site, environment: &Environment) -> Vec<Finding> {
    let needs_python = site.actions.values().any(|action| action.runner == "python-script");
    let path = environment.get("PATH").unwrap_or_default();
    let is_there = |program: &str| path.split(':').any(|folder| Path::new(folder).join(program).is_file());
    match (needs_python, is_there("python3")) {
        (_, true) => vec![good("python3", "it is in PATH")],
        (true, false) => vec![bad("python3", Fail, "actions need it, and it is not in PATH", "install python3")],
        (false, false) => Vec::new(),
    }
}

/// What the system allows one process.
fn limits() -> Vec<Finding> {
    let mut found = Vec::new();
    let open = getrlimit(Resource::Nofile).current;
    found.push(match open {
        Some(open) if open < OPEN_FILES => bad(
            "open files",
            Warn,
            format!("{open} at once"),
            format!("raise the limit to {OPEN_FILES} or more: `LimitNOFILE=` of the unit, or `ulimit -n`"),
        ),
        Some(open) => good("open files", format!("{open} at once")),
        None => good("open files", "no limit"),
    });
    let watches = fs::read_to_string("/proc/sys/fs/inotify/max_user_watches").ok().and_then(|text| text.trim().parse::<u64>().ok());
    if let Some(watches) = watches {
        found.push(if watches < WATCHES {
            bad("watched folders", Warn, format!("{watches} at once"), format!("sysctl fs.inotify.max_user_watches={WATCHES}"))
        } else {
            good("watched folders", format!("{watches} at once"))
        });
    }
    found
}

fn zone(config: &SiteConfig) -> Finding {
    let now = SystemClock.now().with_timezone(&config.time_zone);
    good("time zone", format!("{}: it is {} for people", config.time_zone.name(), now.format("%Y-%m-%d %H:%M")))
}
