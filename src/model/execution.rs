//! Executions: one run of an action. A status changes in [`Execution::change`] only.
//!
//! Legal changes of status:
//!
//! | from | to | by |
//! |---|---|---|
//! | requested | running | an attempt starts |
//! | requested | delayed | its rule has reached its ceiling; a person holds automatic executions |
//! | requested | failed, canceled | it can never start; a person cancels it |
//! | delayed | running | the pause before the next attempt is over |
//! | delayed | delayed | its pause is over, and a person holds automatic executions |
//! | delayed | canceled, failed | as for requested |
//! | running | succeeded, failed, timed_out | the attempt ends, and no other follows |
//! | running | delayed | the attempt ends, and another follows |
//! | running | canceling | a person cancels it |
//! | running | requested, abandoned | the process ended meanwhile |
//! | canceling | canceled | the work has stopped, or the process ended meanwhile |
//! | canceling | succeeded, failed, timed_out | the attempt ended before it could be stopped |

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::model::hash::Revision;
use crate::model::ids::{EventId, ExecutionId, MessageId};
use crate::model::message::Destination;
use crate::model::principal::Principal;
use crate::model::reason::Reason;
use crate::model::rule::Notify;

/// Where an execution stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Asked for and durable; not started.
    Requested,
    /// Waiting for its next attempt.
    Delayed,
    /// An attempt runs.
    Running,
    /// An attempt runs and is being stopped.
    Canceling,
    /// It did what it should.
    Succeeded,
    /// It failed.
    Failed,
    /// It ran too long and was stopped.
    TimedOut,
    /// A person stopped it.
    Canceled,
    /// The process ended while it ran, and it must not be run twice.
    Abandoned,
}

use Status::{Abandoned, Canceled, Canceling, Delayed, Failed, Requested, Running, Succeeded, TimedOut};

/// An execution that was running each time the process ended is abandoned after so many attempts: it may be the cause.
pub const MAX_RESUMES: u32 = 10;

const LEGAL: &[(Status, &[Status])] = &[
    (Requested, &[Running, Delayed, Failed, Canceled]),
    (Delayed, &[Running, Delayed, Failed, Canceled]),
    (Running, &[Succeeded, Failed, TimedOut, Delayed, Canceling, Requested, Abandoned]),
    (Canceling, &[Canceled, Succeeded, Failed, TimedOut]),
    (Succeeded, &[]),
    (Failed, &[]),
    (TimedOut, &[]),
    (Canceled, &[]),
    (Abandoned, &[]),
];

impl Status {
    /// Every status.
    pub const ALL: &'static [Self] = &[Requested, Delayed, Running, Canceling, Succeeded, Failed, TimedOut, Canceled, Abandoned];

    /// Whether nothing follows any more.
    #[must_use]
    pub fn is_final(self) -> bool {
        self.legal_next().is_empty()
    }

    /// The name used everywhere.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Requested => "requested",
            Delayed => "delayed",
            Running => "running",
            Canceling => "canceling",
            Succeeded => "succeeded",
            Failed => "failed",
            TimedOut => "timed_out",
            Canceled => "canceled",
            Abandoned => "abandoned",
        }
    }

    fn legal_next(self) -> &'static [Self] {
        LEGAL.iter().find(|(from, _)| *from == self).map_or(&[], |(_, to)| to)
    }
}

/// A change of status that the table does not allow; the state is left as it was.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("an execution cannot go from `{}` to `{}`", from.name(), to.name())]
pub struct IllegalChange {
    from: Status,
    to: Status,
}

/// What was asked for. Never changes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Request {
    /// The action, `pack.name`.
    pub action: String,
    /// Its parameters, cast and complete.
    pub parameters: Map<String, Value>,
    /// Who asked.
    pub requested_by: Principal,
    /// When.
    pub requested_at: DateTime<Utc>,
    /// The event that caused it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<EventId>,
    /// The key of that event; executions of one rule and key start in order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The execution that this one repeats, if a person asked for it again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rerun_of: Option<ExecutionId>,
    /// How many of our own executions led here.
    #[serde(default)]
    pub depth: u32,
    /// The execution whose script asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<ExecutionId>,
    /// Whom to tell about the outcome.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notify: Option<Notify>,
    /// Whether it may run again after a crash.
    #[serde(default)]
    pub idempotent: bool,
    /// How a person asked for it in chat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<Box<Asked>>,
}

/// How a person asked for an execution in chat, and where the answer goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// The alias, `pack.name`.
    pub alias: String,
    /// The channel where it was asked: the site's name for it.
    pub channel: String,
    /// Where that is.
    pub destination: Destination,
    /// The person, as the chat calls them.
    pub user: String,
    /// The acknowledgement, which the answer takes the place of; none where the alias has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged: Option<MessageId>,
}

/// Where it stands.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    /// Grows by one with every change.
    pub version: u32,
    /// The status.
    pub status: Status,
    /// Why it has that status.
    pub reason: Reason,
    /// The number of the current or last attempt; zero before the first.
    pub attempt: u32,
    /// When the current or last attempt started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<DateTime<Utc>>,
    /// When the next attempt is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt_at: Option<DateTime<Utc>>,
    /// The revision of the action that the last attempt ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action_revision: Option<Revision>,
    /// What the action returned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
    /// What went wrong, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What the script logged in the last attempt.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<LogLine>,
}

/// A line that a script logged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogLine {
    /// When.
    pub at: DateTime<Utc>,
    /// `info`, `warn` or `error`.
    pub level: String,
    /// What.
    pub text: String,
}

/// One run of an action.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Execution {
    /// Its id.
    pub id: ExecutionId,
    /// What was asked for.
    #[serde(flatten)]
    pub request: Request,
    /// Where it stands.
    #[serde(flatten)]
    pub state: State,
}

/// What changes together with the status.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the fields are those of `State` by name")]
pub enum Change {
    /// An attempt starts.
    Start { at: DateTime<Utc>, action_revision: Revision },
    /// It ended well.
    Succeed { at: DateTime<Utc>, result: Value, log: Vec<LogLine> },
    /// It ended badly; `timed_out` tells which way.
    Fail { at: DateTime<Utc>, reason: Reason, error: String, log: Vec<LogLine> },
    /// The attempt ended badly and another is due.
    Delay { until: DateTime<Utc>, error: String, log: Vec<LogLine> },
    /// It waits for its turn.
    Hold { until: DateTime<Utc> },
    /// It waits until a person lets go of automatic executions.
    Held,
    /// A person wants it stopped.
    Cancel { at: DateTime<Utc>, by: String },
    /// The work has stopped.
    Stopped { at: DateTime<Utc>, log: Vec<LogLine> },
    /// The process ended while it ran.
    Interrupted { at: DateTime<Utc> },
}

impl Execution {
    /// A new execution, not started.
    #[must_use]
    pub fn requested(id: ExecutionId, request: Request, reason: Reason) -> Self {
        let state = State {
            version: 0,
            status: Requested,
            reason,
            attempt: 0,
            started_at: None,
            ended_at: None,
            next_attempt_at: None,
            action_revision: None,
            result: None,
            error: None,
            log: Vec::new(),
        };
        Self { id, request, state }
    }

    /// The only function that changes a status.
    ///
    /// # Errors
    /// When the table at the top of this file does not allow the change.
    pub fn change(&mut self, change: Change) -> Result<(), IllegalChange> {
        let mut next = self.state.clone();
        next.version += 1;
        next.next_attempt_at = None;
        match change {
            Change::Start { at, action_revision } => {
                next.status = Running;
                next.attempt += 1;
                next.started_at = Some(at);
                next.action_revision = Some(action_revision);
            }
            Change::Succeed { at, result, log } => {
                next.status = Succeeded;
                next.reason = Reason::Succeeded;
                next.ended_at = Some(at);
                next.result = Some(result);
                next.error = None;
                next.log = log;
            }
            Change::Fail { at, reason, error, log } => {
                next.status = if reason == Reason::TimedOut { TimedOut } else { Failed };
                next.reason = reason;
                next.ended_at = Some(at);
                next.error = Some(error);
                next.log = log;
            }
            Change::Delay { until, error, log } => {
                next.status = Delayed;
                next.reason = Reason::Retried;
                next.next_attempt_at = Some(until);
                next.error = Some(error);
                next.log = log;
            }
            Change::Hold { until } => {
                next.status = Delayed;
                next.reason = Reason::HeldByCeiling;
                next.next_attempt_at = Some(until);
            }
            Change::Held => {
                next.status = Delayed;
                next.reason = Reason::Held;
            }
            Change::Cancel { at, by } => {
                next.reason = Reason::Canceled;
                next.error = Some(format!("canceled by {by}"));
                if self.state.status == Running {
                    next.status = Canceling;
                } else {
                    next.status = Canceled;
                    next.ended_at = Some(at);
                }
            }
            Change::Stopped { at, log } => {
                next.status = Canceled;
                next.reason = Reason::Canceled;
                next.ended_at = Some(at);
                next.log = log;
            }
            Change::Interrupted { at } => match self.state.status {
                Canceling => {
                    next.status = Canceled;
                    next.ended_at = Some(at);
                }
                _ if self.request.idempotent && self.state.attempt < MAX_RESUMES => {
                    next.status = Requested;
                    next.reason = Reason::Resumed;
                }
                _ => {
                    next.status = Abandoned;
                    next.reason = Reason::Abandoned;
                    next.ended_at = Some(at);
                    next.error = Some("the process ended while it ran; see whether it took effect".into());
                }
            },
        }
        if !self.state.status.legal_next().contains(&next.status) {
            return Err(IllegalChange { from: self.state.status, to: next.status });
        }
        self.state = next;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::IdSource;

    fn execution(idempotent: bool) -> Execution {
        let at = DateTime::from_timestamp_millis(1_000).unwrap();
        let request = Request {
            action: "core.noop".into(),
            parameters: Map::new(),
            requested_by: Principal::Token("admin".into()),
            requested_at: at,
            event: None,
            key: None,
            rerun_of: None,
            depth: 0,
            parent: None,
            notify: None,
            idempotent,
            asked: None,
        };
        Execution::requested(IdSource::seeded(1).execution(at), request, Reason::Requested)
    }

    fn at() -> DateTime<Utc> {
        DateTime::from_timestamp_millis(2_000).unwrap()
    }

    fn start() -> Change {
        Change::Start { at: at(), action_revision: Revision("r".into()) }
    }

    #[test]
    fn the_table_names_every_status_once() {
        let from: Vec<Status> = LEGAL.iter().map(|(from, _)| *from).collect();
        assert_eq!(from, Status::ALL);
        for status in Status::ALL {
            assert_eq!(serde_json::to_value(status).unwrap(), status.name());
        }
    }

    #[test]
    fn nothing_follows_an_end() {
        let mut execution = execution(false);
        execution.change(start()).unwrap();
        execution.change(Change::Succeed { at: at(), result: Value::Null, log: vec![] }).unwrap();
        let before = execution.state.version;
        assert!(execution.change(start()).is_err());
        assert!(execution.change(Change::Cancel { at: at(), by: "a".into() }).is_err());
        assert!(execution.change(Change::Interrupted { at: at() }).is_err());
        assert_eq!(execution.state.version, before, "a refused change leaves the state as it was");
    }

    #[test]
    fn an_interrupted_run_is_resumed_only_when_idempotent() {
        for (idempotent, status) in [(true, Requested), (false, Abandoned)] {
            let mut execution = execution(idempotent);
            execution.change(start()).unwrap();
            execution.change(Change::Interrupted { at: at() }).unwrap();
            assert_eq!(execution.state.status, status);
            assert_eq!(execution.state.attempt, 1);
        }
    }

    #[test]
    fn cancel_waits_for_the_work_to_stop_and_is_final_when_nothing_runs() {
        let mut waiting = execution(false);
        waiting.change(Change::Cancel { at: at(), by: "li".into() }).unwrap();
        assert_eq!(waiting.state.status, Canceled);
        let mut running = execution(false);
        running.change(start()).unwrap();
        running.change(Change::Cancel { at: at(), by: "li".into() }).unwrap();
        assert_eq!(running.state.status, Canceling);
        running.change(Change::Stopped { at: at(), log: vec![] }).unwrap();
        assert_eq!((running.state.status, running.state.error.as_deref()), (Canceled, Some("canceled by li")));
    }
}
