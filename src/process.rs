//! Runs programs of this machine: never through a shell, with nothing inherited, each in a process group of its own, bounded in time and
//! output.
//!
//! A group ends as a whole. When its first process ends, what that left behind ends with it; at the deadline or the stop signal all get
//! TERM and, after [`TERM_GRACE`], KILL. A process that leaves the group (`setsid`) is out of reach.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsStr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use chrono::{DateTime, Utc};
use rustix::fs::{Access, access};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

use crate::clock::{self, Clock};
use crate::model::failure::Failure;
use crate::model::reason::Reason;
use crate::tasks::Stop;

/// Where programs are looked for by name, and what they get as `PATH` unless they are given another.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How long a process group may take to end after TERM, before KILL.
pub const TERM_GRACE: Duration = Duration::from_secs(2);

/// How long what the first process left behind may hold its output, before it is ended.
const LINGER: Duration = Duration::from_secs(1);

/// How long the end of what was killed is waited for.
const KILL_WAIT: Duration = Duration::from_secs(1);

/// Of each output, so much of its beginning and as much of its end is kept, in bytes.
pub const KEPT_BYTES: usize = 128 << 10;

/// One argument or variable is shorter than this, its end included, in bytes; the bound is the system's.
pub const MAX_ARGUMENT_BYTES: usize = 128 << 10;

/// What is read at once, in bytes.
const CHUNK_BYTES: usize = 64 << 10;

/// A program with everything that it is given.
#[derive(Clone, Debug, Default)]
pub struct Program {
    /// Its name, looked for in [`PATH`]; or its path, if there is a `/` in it, relative to the folder.
    pub name: String,
    /// Its arguments, given as they are.
    pub arguments: Vec<String>,
    /// Where it runs.
    pub folder: PathBuf,
    /// Its environment, whole; [`PATH`] is added unless given.
    pub environment: BTreeMap<String, String>,
    /// What it reads from its standard input.
    pub input: Vec<u8>,
}

/// When it must end.
#[derive(Clone, Copy)]
pub struct Bounds<'a> {
    /// Tells when the deadline has come.
    pub clock: &'a dyn Clock,
    /// The deadline.
    pub deadline: DateTime<Utc>,
    /// Given when it must stop.
    pub stop: &'a Stop,
}

/// One of the two outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Channel {
    /// The name used in logs and results.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// How the first process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By itself, with a code.
    Exited(i32),
    /// By a signal that was not ours.
    Signal(i32),
    /// It reached the deadline and was ended.
    Late,
    /// The stop signal was given and it was ended.
    Stopped,
}

/// A program that has ended.
#[derive(Debug)]
pub struct Finished {
    /// How.
    pub end: End,
    /// What it wrote to its standard output.
    pub stdout: Captured,
    /// What it wrote to its standard error.
    pub stderr: Captured,
    /// Whether it left processes behind that held its output and had to be ended.
    pub left_behind: bool,
    /// Whether it is still there, although it was killed: it hangs in the system.
    pub is_stuck: bool,
}

/// The beginning and the end of an output.
#[derive(Debug, Default)]
pub struct Captured {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    total: u64,
}

impl Captured {
    /// Adds what was read.
    pub fn push(&mut self, bytes: &[u8]) {
        self.total += bytes.len() as u64;
        let (head, rest) = bytes.split_at(bytes.len().min(KEPT_BYTES - self.head.len()));
        self.head.extend_from_slice(head);
        let rest = &rest[rest.len().saturating_sub(KEPT_BYTES)..];
        self.tail.drain(..(self.tail.len() + rest.len()).saturating_sub(KEPT_BYTES));
        self.tail.extend(rest);
    }

    /// How many bytes came.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Whether nothing was left out.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.total == (self.head.len() + self.tail.len()) as u64
    }

    /// As text of about `most` bytes at most: beginning and end, with a line between that says how much is left out. What is not UTF-8 is
    /// replaced.
    #[must_use]
    pub fn text(&self, most: usize) -> String {
        let (front, back) = self.tail.as_slices();
        if self.is_whole() && self.total <= most as u64 {
            return String::from_utf8_lossy(&[&self.head, front, back].concat()).into_owned();
        }
        let half = most / 2;
        let head = &self.head[..self.head.len().min(half)];
        let all = [&self.head, front, back].concat();
        let tail = &all[all.len() - (all.len() - head.len()).min(half)..];
        let left_out = self.total - (head.len() + tail.len()) as u64;
        format!("{}\n[… {left_out} bytes left out …]\n{}", String::from_utf8_lossy(head), String::from_utf8_lossy(tail))
    }

    /// The last lines that are not blank, at most so many.
    #[must_use]
    pub fn last_lines(&self, most: usize) -> String {
        let text = self.text(2 * KEPT_BYTES);
        let lines: Vec<&str> = text.lines().rev().filter(|line| !line.trim().is_empty()).take(most).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

/// A program that runs. When it is dropped, its whole group is killed.
pub struct Running {
    /// The first process of the group, with its pipes.
    pub child: Child,
    group: Group,
}

/// A process group, killed when dropped.
struct Group(Pid);

impl Group {
    /// Sends a signal to all that are in it; whether there was any.
    fn signal(&self, signal: Signal) -> bool {
        kill_process_group(self.0, signal).is_ok()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The number stays taken as long as one process of the group is there, so this reaches no other.
        self.signal(Signal::KILL);
    }
}

impl Running {
    /// Ends the group: TERM, then KILL after [`TERM_GRACE`]. Answers whether the first process has gone.
    pub async fn end(&mut self) -> bool {
        self.group.signal(Signal::TERM);
        tokio::select! {
            _ = self.child.wait() => {}
            () = clock::pause(TERM_GRACE) => {}
        }
        self.group.signal(Signal::KILL);
        tokio::select! { _ = self.child.wait() => true, () = clock::pause(KILL_WAIT) => false }
    }
}

/// Starts a program with three pipes.
///
/// # Errors
/// When it cannot be started: there is no such program or folder, it may not be run, an argument is too long or holds a NUL.
pub fn spawn(program: &Program) -> Result<Running, Failure> {
    let refused = |message: String| Failure { reason: Reason::NotStarted, message, retry: false };
    check(program).map_err(refused)?;
    let path = find(&program.name, &program.folder).map_err(refused)?;
    let mut command = Command::new(&path);
    command.args(&program.arguments).current_dir(&program.folder).env_clear();
    if !program.environment.contains_key("PATH") {
        command.env("PATH", PATH);
    }
    command.envs(&program.environment).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // Without anything that would have to run between fork and exec, the system's cheap way of starting is taken.
    let child = command.process_group(0).kill_on_drop(true).spawn();
    let child = child.map_err(|error| Failure {
        reason: Reason::NotStarted,
        message: why_not(&program.name, &error),
        // Too many processes or too little memory now.
        retry: matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::OutOfMemory),
    })?;
    let number = child.id().and_then(|number| i32::try_from(number).ok()).and_then(Pid::from_raw);
    let group = Group(number.expect("a process that nobody waited for has a number"));
    Ok(Running { child, group })
}

fn why_not(name: &str, error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ArgumentListTooLong => {
            format!("the arguments of `{name}` are too long together; give what is large through `stdin` or a file")
        }
        // The program itself has been found.
        std::io::ErrorKind::NotFound => format!("`{name}` cannot be started: what its first line names after `#!` is not there"),
        _ if error.raw_os_error() == Some(rustix::io::Errno::NOEXEC.raw_os_error()) => {
            format!("`{name}` cannot be started: it is no program, and its first line does not begin with `#!`")
        }
        _ => format!("`{name}` cannot be started: {error}"),
    }
}

fn check(program: &Program) -> Result<(), String> {
    let variables =
        program.environment.iter().map(|(name, value)| (format!("variable `{name}`"), name.len() + value.len() + 1, [name, value]));
    let arguments = program.arguments.iter().enumerate();
    let arguments = arguments.map(|(index, text)| (format!("argument {} of `{}`", index + 1, program.name), text.len(), [text, text]));
    for (what, length, texts) in arguments.chain(variables) {
        if texts.iter().any(|text| text.contains('\0')) {
            return Err(format!("{what} holds a NUL, which no argument can"));
        }
        if length >= MAX_ARGUMENT_BYTES {
            return Err(format!(
                "{what} has {length} bytes; the system takes fewer than {MAX_ARGUMENT_BYTES}: give what is large through `stdin` or a file"
            ));
        }
    }
    if let Some(name) = program.environment.keys().find(|name| name.is_empty() || name.contains('=')) {
        return Err(format!("`{name}` cannot be the name of a variable"));
    }
    if program.name.is_empty() || program.name.contains('\0') {
        return Err("a program's name is missing, or holds a NUL".into());
    }
    match std::fs::metadata(&program.folder) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(format!("`{}` is not a folder, so nothing can run there", program.folder.display())),
        Err(error) => Err(format!("nothing can run in the folder `{}`: {error}", program.folder.display())),
    }
}

/// The file of a program.
///
/// # Errors
/// When there is none, or it may not be run.
pub fn find(name: &str, folder: &Path) -> Result<PathBuf, String> {
    if name.contains('/') {
        let path = folder.join(name);
        return match std::fs::metadata(&path) {
            Err(error) => Err(format!("there is no program `{name}`: {error}")),
            Ok(metadata) if !metadata.is_file() => Err(format!("`{name}` is not a file")),
            Ok(_) if access(&path, Access::EXEC_OK).is_err() => {
                Err(format!("`{name}` may not be run; allow it with `chmod +x {}`", path.display()))
            }
            Ok(_) => Ok(path),
        };
    }
    let mut refused = None;
    for folder in PATH.split(':') {
        let path = Path::new(folder).join(OsStr::new(name));
        if !path.is_file() {
            continue;
        }
        if access(&path, Access::EXEC_OK).is_ok() {
            return Ok(path);
        }
        refused = Some(format!("`{}` may not be run by this user", path.display()));
    }
    Err(refused.unwrap_or_else(|| format!("there is no program `{name}` in {PATH}; install it, or give its whole path")))
}

/// Runs a program to its end; `take` gets its output while it runs, in pieces as they come. A running program may fail in every way and
/// still is a [`Finished`]; how is said there.
///
/// # Errors
/// When it cannot be started.
pub async fn run(program: &Program, bounds: Bounds<'_>, take: &(dyn Fn(Channel, &[u8]) + Sync)) -> Result<Finished, Failure> {
    let mut running = spawn(program)?;
    let (mut stdout, mut stderr) = (Captured::default(), Captured::default());
    let (stdin, out, err) = (running.child.stdin.take(), running.child.stdout.take(), running.child.stderr.take());
    let feeding = async {
        // One that does not read its input, or has ended, does not get all of it.
        if let Some(mut stdin) = stdin {
            let _ = stdin.write_all(&program.input).await;
        }
    };
    let reading = async {
        tokio::join!(drain(out, Channel::Stdout, &mut stdout, take), drain(err, Channel::Stderr, &mut stderr, take));
    };
    let (mut is_drained, mut is_fed, mut is_stuck) = (false, false, false);
    let end = {
        tokio::pin!(reading);
        tokio::pin!(feeding);
        let end = loop {
            tokio::select! {
                status = running.child.wait() => break ended(&status),
                () = &mut reading, if !is_drained => is_drained = true,
                () = &mut feeding, if !is_fed => is_fed = true,
                () = bounds.stop.stopped() => break End::Stopped,
                () = bounds.clock.sleep_until(bounds.deadline) => break End::Late,
            }
        };
        if matches!(end, End::Late | End::Stopped) {
            // What it says while it ends is still read.
            let reader = async {
                if !is_drained {
                    (&mut reading).await;
                    is_drained = true;
                }
                std::future::pending::<()>().await;
            };
            tokio::select! { gone = running.end() => is_stuck = !gone, () = reader => {} }
        } else if !is_drained {
            tokio::select! { () = &mut reading => is_drained = true, () = clock::pause(LINGER) => {} }
        }
        running.group.signal(Signal::KILL);
        if !is_drained {
            // Only a process that has left the group can hold the pipes any longer.
            tokio::select! { () = &mut reading => {}, () = clock::pause(LINGER) => {} }
        }
        end
    };
    let left_behind = !is_drained && !is_stuck && matches!(end, End::Exited(_) | End::Signal(_));
    Ok(Finished { end, stdout, stderr, left_behind, is_stuck })
}

fn ended(status: &std::io::Result<ExitStatus>) -> End {
    // Waiting for a child of one's own fails only if somebody else has waited for it.
    let Ok(status) = status else { return End::Exited(-1) };
    status.code().map_or_else(|| End::Signal(status.signal().unwrap_or(0)), End::Exited)
}

async fn drain(from: Option<impl AsyncRead + Unpin>, channel: Channel, captured: &mut Captured, take: &(dyn Fn(Channel, &[u8]) + Sync)) {
    let Some(mut from) = from else { return };
    let mut chunk = Vec::with_capacity(4 << 10);
    loop {
        chunk.clear();
        match from.read_buf(&mut chunk).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {
                captured.push(&chunk);
                take(channel, &chunk);
                // One that writes much gets more room.
                if chunk.len() == chunk.capacity() && chunk.capacity() < CHUNK_BYTES {
                    chunk.reserve_exact(CHUNK_BYTES);
                }
            }
        }
    }
}
