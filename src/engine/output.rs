//! What runs says while it runs: lines that are read before the attempt has ended, and before anything of them is stored.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use super::{Engine, RequestError};
use crate::clock;
use crate::livelog::{Lines, LiveLog};
use crate::model::execution::{Execution, Status};
use crate::model::ids::ExecutionId;

/// Logs of attempts that have ended, kept for those who have read only a part of them.
const ENDED_LOGS: usize = 64;

/// How long who waits for output waits where no attempt runs.
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(200);

/// The logs of the attempts that run.
#[derive(Default)]
pub struct Outputs(Mutex<Logs>);

#[derive(Default)]
struct Logs {
    live: HashMap<ExecutionId, Attempt>,
    ended: VecDeque<(ExecutionId, Attempt)>,
}

#[derive(Clone)]
struct Attempt {
    number: u32,
    log: Arc<LiveLog>,
    is_read: bool,
}

/// A part of an execution's output.
pub struct Output {
    /// Of which attempt; zero before the first.
    pub attempt: u32,
    /// Where the execution stands.
    pub status: Status,
    /// The lines after the one that was named.
    pub lines: Lines,
}

impl Outputs {
    fn lock(&self) -> MutexGuard<'_, Logs> {
        self.0.lock().expect("no panic happens while the lock is held")
    }

    pub(super) fn begin(&self, id: ExecutionId, attempt: u32, log: Arc<LiveLog>) {
        self.lock().live.insert(id, Attempt { number: attempt, log, is_read: false });
    }

    pub(super) fn end(&self, id: ExecutionId) {
        let mut logs = self.lock();
        let Some(attempt) = logs.live.remove(&id) else { return };
        attempt.log.close();
        if attempt.is_read {
            logs.ended.push_back((id, attempt));
        }
        if logs.ended.len() > ENDED_LOGS {
            logs.ended.pop_front();
        }
    }

    /// The log of the attempt that runs, else that of the one that is being read.
    fn read(&self, id: ExecutionId, attempt: u32) -> Option<(u32, Arc<LiveLog>)> {
        let mut logs = self.lock();
        let ended = logs.ended.iter().find(|(own, ended)| *own == id && ended.number == attempt).map(|(_, ended)| ended.clone());
        let found = logs.live.get_mut(&id).map(|live| {
            live.is_read = true;
            live.clone()
        });
        found.or(ended).map(|attempt| (attempt.number, attempt.log))
    }
}

impl Engine {
    /// The output of an execution after a line of an attempt; where there is none yet, it is waited for. The lines of an attempt that has
    /// ended are those that are kept, numbered anew.
    ///
    /// # Errors
    /// When there is no such execution, or the store cannot be used.
    pub async fn output(&self, id: ExecutionId, (attempt, after): (u32, u64), wait: Duration) -> Result<Output, RequestError> {
        let live = self.outputs.read(id, attempt);
        if let Some((running, log)) = &live {
            let after = if *running == attempt { after } else { 0 };
            if log.is_open() {
                tokio::select! { () = log.more_than(after) => {} () = clock::pause(wait) => {} }
            }
            let (lines, is_open) = (log.after(after), log.is_open());
            if is_open || !lines.lines.is_empty() {
                return Ok(Output { attempt: *running, status: Status::Running, lines });
            }
        }
        let Some(Execution { state, .. }) = self.store.execution(id).await? else {
            return Err(RequestError::NotFound(format!("there is no execution {id}")));
        };
        let lines = if live.is_some() || state.attempt == attempt && after > 0 { Vec::new() } else { (1..).zip(state.log).collect() };
        if lines.is_empty() && !state.status.is_final() {
            clock::pause(wait.min(BETWEEN_ATTEMPTS)).await;
        }
        Ok(Output { attempt: state.attempt, status: state.status, lines: Lines { lines, missed: 0 } })
    }
}
