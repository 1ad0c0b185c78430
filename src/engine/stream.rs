//! What happens, for those who watch: live, and for a while afterwards.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use serde::Serialize;
use tokio::sync::broadcast;

use crate::model::event::StoredEvent;
use crate::model::execution::{Execution, LogLine};
use crate::model::ids::ExecutionId;
use crate::model::message::Message;

/// How many changes are kept for watchers that come back.
pub const KEPT_ITEMS: usize = 4_096;

/// Commits of different parts of the engine are handed out up to so much out of order; a watcher that comes back gets these again.
const OUT_OF_ORDER: u64 = 64;

/// How many commits a watcher may lag behind before it must start anew.
const LAG: usize = 1_024;

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Item {
    /// An event was accepted.
    Event(Arc<StoredEvent>),
    /// An execution was requested or has changed.
    Execution(Arc<Execution>),
    /// A message was delivered.
    Message(Arc<Message>),
}

/// What one commit changed.
#[derive(Clone, Debug)]
pub struct Commit {
    /// Its number.
    pub sequence: u64,
    /// What changed.
    pub items: Arc<Vec<Item>>,
}

/// A line of the output of what runs. It belongs to no commit.
#[derive(Clone, Debug, Serialize)]
pub struct OutputLine {
    /// Of which execution.
    pub execution: ExecutionId,
    /// Of which of its attempts.
    pub attempt: u32,
    /// Counts the lines of the attempt, from one.
    pub number: u64,
    /// The line.
    #[serde(flatten)]
    pub line: LogLine,
}

/// Hands out lines of output to those who watch; to nobody it costs nothing.
#[derive(Clone)]
pub struct LineSender(broadcast::Sender<OutputLine>);

impl LineSender {
    /// Hands out a line.
    pub fn tell(&self, execution: ExecutionId, attempt: u32, number: u64, line: &LogLine) {
        if self.0.receiver_count() > 0 {
            let _ = self.0.send(OutputLine { execution, attempt, number, line: line.clone() }); // they have gone meanwhile
        }
    }
}

/// Hands out commits.
pub struct Stream {
    lines: broadcast::Sender<OutputLine>,
    sender: broadcast::Sender<Commit>,
    kept: Mutex<Kept>,
}

/// The last commits, and since which one they are complete.
struct Kept {
    commits: VecDeque<Commit>,
    items: usize,
    complete_since: u64,
}

/// A watcher's end: what it missed, then what comes.
pub struct Watch {
    /// What was missed since the commit that the watcher named; `None` if that is too long ago and it must start anew.
    pub missed: Option<Vec<Commit>>,
    /// What comes.
    pub live: broadcast::Receiver<Commit>,
}

impl Stream {
    /// Nothing kept yet: whoever has seen the commit numbered `since` has missed nothing.
    pub(super) fn new(since: u64) -> Self {
        let kept = Kept { commits: VecDeque::new(), items: 0, complete_since: since };
        Self { lines: broadcast::channel(LAG).0, sender: broadcast::channel(LAG).0, kept: Mutex::new(kept) }
    }

    /// Hands out what a commit changed. Commits of different parts of the engine may come slightly out of order.
    pub fn publish(&self, sequence: u64, items: Vec<Item>) {
        if items.is_empty() {
            return;
        }
        let commit = Commit { sequence, items: Arc::new(items) };
        let mut kept = self.kept.lock().expect("no panic happens while the lock is held");
        kept.items += commit.items.len();
        kept.commits.push_back(commit.clone());
        while kept.items > KEPT_ITEMS
            && let Some(oldest) = kept.commits.pop_front()
        {
            kept.items -= oldest.items.len();
            kept.complete_since = kept.complete_since.max(oldest.sequence);
        }
        let _ = self.sender.send(commit); // nobody watches: nothing to tell
    }

    /// Where lines of output are told.
    #[must_use]
    pub fn lines(&self) -> LineSender {
        LineSender(self.lines.clone())
    }

    /// Begins to watch lines of output; who is too slow misses some.
    #[must_use]
    pub fn watch_lines(&self) -> broadcast::Receiver<OutputLine> {
        self.lines.subscribe()
    }

    /// Begins to watch, after the commit numbered `after` if one is named.
    #[must_use]
    pub fn watch(&self, after: Option<u64>) -> Watch {
        let kept = self.kept.lock().expect("no panic happens while the lock is held");
        let live = self.sender.subscribe();
        let missed = match after {
            None => Some(Vec::new()),
            Some(after) if after >= kept.complete_since => {
                let from = after.saturating_sub(OUT_OF_ORDER);
                Some(kept.commits.iter().filter(|commit| commit.sequence > from).cloned().collect())
            }
            Some(_) => None,
        };
        Watch { missed, live }
    }
}
