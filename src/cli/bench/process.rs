//! A server of our own, on a site of our own, and what the system says about it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What the site adds to the packs and rules of the sample site.
const FILES: &[(&str, &str)] = &[
    ("packs/bench/pack.yaml", "ref: bench\nname: Bench\ncapabilities: {process: [python3, \"true\"]}\n"),
    ("packs/bench/triggers/event.yaml", "name: event\n"),
    ("packs/bench/sensors/bench.yaml", "name: bench\nkind: webhook\ndecoder: generic\ntrigger: bench.event\nauth: none\n"),
    (
        "packs/bench/actions/work.yaml",
        "name: work\nrunner_type: rhai\nidempotent: true\nparameters:\n  n: {type: integer, required: true}\n",
    ),
    ("packs/bench/actions/work.rhai", "fn run(params) {\n    #{ at_us: time.now_us(), n: params.n }\n}\n"),
    (
        "packs/bench/actions/once.yaml",
        "name: once\nrunner_type: rhai\nentry_point: work.rhai\nparameters:\n  n: {type: integer, required: true}\n",
    ),
    (
        "packs/bench/actions/python.yaml",
        "name: python\nrunner_type: python-script\nidempotent: true\nparameters:\n  n: {type: integer, required: true}\n",
    ),
    ("packs/bench/actions/python.py", "def run(params):\n    return params[\"n\"]\n"),
    (
        "packs/bench/actions/shell.yaml",
        "name: shell\nrunner_type: local-shell-cmd\nidempotent: true\nparameters:\n  cmd: {default: \"true\", immutable: true}\n  n: {type: integer, required: true}\n",
    ),
    (
        "rules/bench_programs.yaml",
        "name: bench_programs\ntrigger: {type: bench.event}\nceiling: 1000000\ncriteria:\n  trigger.kind: {type: equals, pattern: python}\n\
         action: {ref: bench.python, parameters: {n: \"<% trigger.n %>\"}}\n",
    ),
    (
        "rules/bench_shell.yaml",
        "name: bench_shell\ntrigger: {type: bench.event}\nceiling: 1000000\ncriteria:\n  trigger.kind: {type: equals, pattern: shell}\n\
         action: {ref: bench.shell, parameters: {n: \"<% trigger.n %>\"}}\n",
    ),
    (
        "rules/bench_once.yaml",
        "name: bench_once\ntrigger: {type: bench.event}\nceiling: 1000000\ncriteria:\n  trigger.kind: {type: equals, pattern: once}\n\
         action: {ref: bench.once, parameters: {n: \"<% trigger.n %>\"}}\n",
    ),
    (
        "rules/bench_work.yaml",
        "name: bench_work\ntrigger: {type: bench.event}\nceiling: 1000000\ncriteria:\n  trigger.kind: {type: equals, pattern: run}\n\
         action: {ref: bench.work, parameters: {n: \"<% trigger.n %>\"}}\n",
    ),
];

/// A site for one scenario. Removed when dropped.
pub(super) struct BenchSite {
    folder: PathBuf,
}

impl BenchSite {
    /// Makes a site beside the data of the given one, with its packs and rules.
    pub(super) fn new(site: &Path, settings: &str) -> Result<Self, String> {
        let folder = site.join("data").join(format!("bench-{}", std::process::id()));
        let made = Self { folder };
        let _ = fs::remove_dir_all(&made.folder); // usually there is none
        for part in ["packs", "rules"] {
            if site.join(part).is_dir() {
                copy(&site.join(part), &made.folder.join(part)).map_err(|error| format!("cannot copy {part}: {error}"))?;
            }
        }
        for (path, text) in FILES {
            made.write(path, text)?;
        }
        made.settings(settings)?;
        Ok(made)
    }

    /// Writes the settings.
    pub(super) fn settings(&self, settings: &str) -> Result<(), String> {
        let own = fs::read_to_string(self.folder.join("../../signalman.yaml")).unwrap_or_default();
        // The site's own settings for its packs and channels, with another address and our limits.
        let kept: Vec<&str> = own.lines().skip_while(|line| !line.starts_with("config:")).collect();
        self.write("signalman.yaml", &format!("listen: 127.0.0.1:0\n{settings}\n{}\n", kept.join("\n")))
    }

    /// Writes a file of the site.
    pub(super) fn write(&self, path: &str, text: &str) -> Result<(), String> {
        let path = self.folder.join(path);
        let written = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(&path, text));
        written.map_err(|error| format!("cannot write {}: {error}", path.display()))
    }

    /// Where it lies.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Looks at what it takes on disk, also while it is in use elsewhere.
    pub(super) fn view(&self) -> View {
        View(self.folder.join("data"))
    }

    /// What is stored takes so much on disk, in bytes.
    pub(super) fn disk_bytes(&self) -> u64 {
        self.view().disk_bytes()
    }

    /// The size of what is stored, in bytes.
    pub(super) fn stored_bytes(&self) -> u64 {
        size(&self.folder.join("data"))
    }
}

/// A data folder from outside.
pub(super) struct View(PathBuf);

impl View {
    pub(super) fn disk_bytes(&self) -> u64 {
        blocks(&self.0)
    }
}

fn blocks(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.metadata().map_or(0, |meta| if meta.is_dir() { blocks(&entry.path()) } else { meta.blocks() * 512 })).sum()
}

impl Drop for BenchSite {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder); // what is left lies in the data folder and says what it is
    }
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

fn size(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.metadata().map_or(0, |metadata| if metadata.is_dir() { size(&entry.path()) } else { metadata.len() })).sum()
}

/// A running server.
pub(super) struct BenchServer {
    child: Child,
    /// `127.0.0.1:port`.
    pub(super) address: String,
    /// The admin token.
    pub(super) token: String,
    /// From the start of the process to its first line of being ready.
    pub(super) start: Duration,
}

impl BenchServer {
    /// Starts this program's `serve` on the site.
    pub(super) fn start(site: &BenchSite) -> Result<Self, String> {
        let program = std::env::current_exe().map_err(|error| format!("cannot find this program: {error}"))?;
        let began = Instant::now();
        let mut child = Command::new(program)
            .args(["serve", "--log", "info", "--site"])
            .arg(&site.folder)
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| format!("cannot start the server: {error}"))?;
        let mut lines = BufReader::new(child.stderr.take().ok_or("the server has no error output")?).lines();
        let mut log = String::new();
        let address = loop {
            match lines.next() {
                Some(Ok(line)) => {
                    if let Some((_, address)) = line.split_once("listening on http://") {
                        break address.trim().to_string();
                    }
                    log.push_str(&line);
                    log.push('\n');
                }
                _ => return Err(format!("the server did not start:\n{log}")),
            }
        };
        let start = began.elapsed();
        // Its log must be read, or it would block once the pipe is full.
        let drain = crate::tasks::spawn_thread("bench-log", 1 << 18, move || for _ in lines.map_while(Result::ok) {});
        drain.map_err(|error| format!("cannot read the server's log: {error}"))?;
        let token = fs::read_to_string(site.folder.join("data/admin.token")).map_err(|error| format!("no token: {error}"))?;
        Ok(Self { child, address, token: token.trim().to_string(), start })
    }

    /// Processor time used so far.
    pub(super) fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        // The name in brackets may hold blanks; the fields are counted from behind it.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks: u64 = [11, 12].iter().filter_map(|index| fields.get(*index)?.parse::<u64>().ok()).sum();
        Duration::from_millis(ticks * 1_000 / rustix::param::clock_ticks_per_second().max(1))
    }

    /// Resident memory, in bytes: now, or the most it ever was.
    pub(super) fn memory(&self, peak: bool) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let name = if peak { "VmHWM:" } else { "VmRSS:" };
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1_024
    }

    /// As a power switch.
    pub(super) fn kill(mut self) {
        let _ = self.child.kill(); // it has ended already
        let _ = self.child.wait();
    }
}

impl Drop for BenchServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
