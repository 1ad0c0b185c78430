//! The thread that writes: it takes whatever commits wait, without a timer, checks what they rely on, writes them as one batch with one
//! sync, and acknowledges.
//!
//! After a write or sync that failed it is unknown what is durable, so nothing more is written until [`Job::Revive`] has read
//! everything anew from disk.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, Utc};
use tokio::sync::{Notify, mpsc, oneshot};

use super::checked::Change;
use super::layers::{Base, Layers};
use super::record::{self, Kind};
use super::segment::View;
use super::space::Operation;
use super::upkeep::Upkeep;
use super::{CommitError, Committed, Sighting, StoreError};

/// The writing thread takes commits until their operations reach this number, then syncs.
const GROUP_OPERATIONS: usize = 512;

/// What must hold for a commit to be made.
pub struct Expectation {
    /// What is looked at.
    pub condition: Condition,
    /// What people call it.
    pub what: String,
}

/// A condition on what is stored.
pub enum Condition {
    /// The key is not there.
    Absent(Vec<u8>),
    /// The key's value begins so.
    Begins(Vec<u8>, Vec<u8>),
    /// None of the keys holds a sighting since then.
    Unseen(Vec<Vec<u8>>, DateTime<Utc>),
}

impl Expectation {
    /// The key is not there.
    #[must_use]
    pub fn absent(key: Vec<u8>, what: String) -> Self {
        Self { condition: Condition::Absent(key), what }
    }
}

/// What the writing thread is asked for.
pub enum Job {
    /// Write this.
    Commit(Commit),
    /// Let commits go on in the next database, if the present one holds anything. Answers whether there is a full one now.
    Rotate(oneshot::Sender<Result<bool, StoreError>>),
    /// Read everything anew from disk if a write has failed. Answers whether one had.
    Revive(oneshot::Sender<Result<bool, StoreError>>),
}

/// One commit.
pub struct Commit {
    /// What it writes.
    pub operations: Vec<Operation>,
    /// What it relies on.
    pub expectations: Vec<Expectation>,
    /// Who waits.
    pub reply: oneshot::Sender<Result<Committed, CommitError>>,
}

/// Why nothing can be written, if so.
#[derive(Default)]
pub struct Health {
    failure: Mutex<Option<StoreError>>,
    /// Where the free space was too little for new events when it was measured last: its bytes and one; else 0.
    low: AtomicU64,
}

/// Below this much free space, in bytes, no new events are taken, so that what runs can end.
pub const LEAST_FREE_BYTES: u64 = 16 << 20;

/// Free space is measured after so many bytes have been written.
const MEASURED_BYTES: u64 = 2 << 20;

impl Health {
    /// Measures the free space.
    pub fn measure(&self, layers: &Layers) {
        let free = layers.space.free_bytes().unwrap_or(u64::MAX);
        self.low.store(if free < LEAST_FREE_BYTES { free + 1 } else { 0 }, Ordering::Release);
    }

    /// Why no new events can be taken, if so: a failure, or too little free space.
    #[must_use]
    pub fn refusal(&self) -> Option<StoreError> {
        let low = || {
            let free = self.low.load(Ordering::Acquire).checked_sub(1)?;
            let (free, least) = (free >> 20, LEAST_FREE_BYTES >> 20);
            Some(StoreError::Unavailable(format!("the disk is full: {free} MiB are free, and events are taken from {least} MiB on")))
        };
        self.failure().or_else(low)
    }

    /// The last failure, unless it has been mended.
    #[must_use]
    pub fn failure(&self) -> Option<StoreError> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes a failure; the first one stays.
    pub fn fail(&self, error: &StoreError) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        if failure.is_none() {
            tracing::error!("the store takes no more writes until it can be opened again: {error}");
            *failure = Some(error.clone());
        }
    }

    fn mend(&self) {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// The state of the writing thread.
pub struct Writer {
    /// The databases.
    pub layers: Arc<Layers>,
    /// What is done beside.
    pub upkeep: Arc<Upkeep>,
    /// Why nothing can be written.
    pub health: Arc<Health>,
    /// Told when commits go on in the next database.
    pub rotated: Arc<Notify>,
    /// The number of the last commit.
    pub sequence: u64,
    /// Bytes since the free space was measured.
    pub written: u64,
    /// The first record of a database that commits have just begun to use.
    pub base: Option<Base>,
}

impl Writer {
    /// Works until nobody can ask any more.
    pub fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        let mut put_back = None;
        while let Some(job) = put_back.take().or_else(|| jobs.blocking_recv()) {
            let first = match job {
                Job::Commit(commit) => commit,
                Job::Rotate(reply) => {
                    let rotated = self.guarded(Self::rotate);
                    let _ = reply.send(rotated); // nobody waits any more: nothing to tell
                    continue;
                }
                Job::Revive(reply) => {
                    let revived = catch_unwind(AssertUnwindSafe(|| self.revive())).unwrap_or_else(|_| Err(panicked()));
                    let _ = reply.send(revived);
                    continue;
                }
            };
            let mut operations = first.operations.len();
            let mut group = vec![first];
            while operations < GROUP_OPERATIONS {
                match jobs.try_recv() {
                    Ok(Job::Commit(next)) => {
                        operations += next.operations.len();
                        group.push(next);
                    }
                    Ok(other) => {
                        put_back = Some(other);
                        break;
                    }
                    Err(_) => break,
                }
            }
            if let Some(error) = self.health.failure() {
                for commit in group {
                    let _ = commit.reply.send(Err(error.clone().into()));
                }
                continue;
            }
            let _ = self.guarded(|writer| writer.write(group)); // each commit has been answered, and the failure noted
        }
        let _ = catch_unwind(AssertUnwindSafe(|| self.layers.space.note_durable(self.sequence))); // the note may be old
    }

    /// Runs something that must not fail half way; a failure or panic closes the store for writes.
    fn guarded<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, StoreError>) -> Result<T, StoreError> {
        if let Some(error) = self.health.failure() {
            return Err(error);
        }
        let done = catch_unwind(AssertUnwindSafe(|| work(self))).unwrap_or_else(|_| Err(panicked()));
        if let Err(error) = &done {
            self.health.fail(error);
        }
        done
    }

    fn revive(&mut self) -> Result<bool, StoreError> {
        if self.health.failure().is_none() {
            return Ok(false);
        }
        self.layers.space.probe()?;
        let (layers, upkeep) = (Arc::clone(&self.layers), Arc::clone(&self.upkeep));
        let busy = || StoreError::Unavailable("the upkeep has not ended yet".into());
        upkeep.restarted(|| layers.reopen()).ok_or_else(busy)??;
        self.sequence = self.layers.sequence()?;
        self.base = None;
        self.health.mend();
        tracing::info!(sequence = self.sequence, "the store works again");
        Ok(true)
    }

    fn rotate(&mut self) -> Result<bool, StoreError> {
        let view = self.layers.view();
        if self.layers.database(&view.recent[0])?.tally().records == 0 {
            return Ok(view.recent.len() > 1); // it has just been done
        }
        let base = self.layers.rotate()?;
        let rotated = base.is_some();
        self.base = base.or(self.base.take());
        self.rotated.notify_one();
        Ok(rotated)
    }

    /// Writes a group of commits with one sync and answers each. An error means that it is unknown what is durable.
    fn write(&mut self, group: Vec<Commit>) -> Result<(), StoreError> {
        let view = self.layers.view();
        let last_that_looks = group.iter().rposition(|commit| !commit.expectations.is_empty()).unwrap_or(0);
        // What earlier commits of the group write, as later ones must see it; most groups are one commit and need none of it.
        let mut overlay: HashMap<Vec<u8>, Option<Vec<u8>>> = HashMap::new();
        let (mut changes, mut replies) = (Vec::new(), Vec::with_capacity(group.len()));
        for (index, commit) in group.into_iter().enumerate() {
            match unmet(&self.layers, &view, &overlay, &commit.expectations) {
                Ok(None) => {}
                Ok(Some(what)) => {
                    let _ = commit.reply.send(Err(CommitError::Conflict { what }));
                    continue;
                }
                Err(error) => {
                    let _ = commit.reply.send(Err(error.into()));
                    continue;
                }
            }
            if index < last_that_looks {
                for operation in &commit.operations {
                    match operation {
                        Operation::Put(key, value) => overlay.insert(key.clone(), Some(value.clone())),
                        Operation::Delete(key) => overlay.insert(key.clone(), None),
                    };
                }
            }
            for operation in commit.operations {
                changes.push(match operation {
                    Operation::Put(key, value) => Change::Put(key, value),
                    Operation::Delete(key) => match self.layers.removal(&view, key) {
                        Ok(change) => change,
                        Err(error) => {
                            self.health.fail(&error);
                            return refuse(replies, commit.reply, error);
                        }
                    },
                });
            }
            replies.push((commit.reply, self.sequence + 1 + replies.len() as u64));
        }
        let Some((_, sequence)) = replies.last() else { return Ok(()) };
        let sequence = *sequence;
        changes.push(Change::Put(record::key(Kind::Sequence, b""), record::encode(Kind::Sequence, 0, &sequence)));
        if let Some(base) = self.base.take() {
            changes.push(Change::Put(record::key(Kind::Base, b""), record::encode(Kind::Base, 0, &base)));
        }
        let newest = &view.recent[0];
        let outcome = self.layers.database(newest).and_then(|database| {
            database.write(&changes)?;
            database.sync()?;
            Ok(database.live_bytes())
        });
        // Before anybody is told: who hears of the failure must find the store failed.
        if let Err(error) = &outcome {
            self.health.fail(error);
        }
        for (reply, sequence) in replies {
            let _ = reply.send(outcome.as_ref().map(|_| Committed { sequence }).map_err(|error| error.clone().into()));
        }
        let bytes = outcome?;
        self.sequence = sequence;
        self.layers.space.note_durable(sequence);
        self.written += changes.iter().map(|change| change.bytes() as u64).sum::<u64>();
        if self.written >= MEASURED_BYTES {
            self.written = 0;
            self.health.measure(&self.layers);
        }
        if bytes >= self.layers.sizes.recent {
            self.rotate()?;
        }
        Ok(())
    }
}

/// Nothing of the group has been written yet: all who wait are told why nothing will be.
fn refuse(
    replies: Vec<(oneshot::Sender<Result<Committed, CommitError>>, u64)>,
    last: oneshot::Sender<Result<Committed, CommitError>>,
    error: StoreError,
) -> Result<(), StoreError> {
    for reply in replies.into_iter().map(|(reply, _)| reply).chain([last]) {
        let _ = reply.send(Err(error.clone().into()));
    }
    Err(error)
}

fn panicked() -> StoreError {
    StoreError::Unavailable("the writer panicked; see the log".into())
}

fn unmet(
    layers: &Layers,
    view: &View,
    overlay: &HashMap<Vec<u8>, Option<Vec<u8>>>,
    expectations: &[Expectation],
) -> Result<Option<String>, StoreError> {
    let current = |key: &Vec<u8>| match overlay.get(key) {
        Some(value) => Ok(value.clone()),
        None => layers.get(view, key),
    };
    for expectation in expectations {
        let met = match &expectation.condition {
            Condition::Absent(key) => current(key)?.is_none(),
            Condition::Begins(key, begins) => current(key)?.is_some_and(|value| value.starts_with(begins)),
            Condition::Unseen(keys, since) => {
                let mut seen = false;
                for key in keys {
                    let sighting: Option<Sighting> = current(key)?.map(|bytes| record::decode(Kind::Sighting, &bytes)).transpose()?;
                    seen |= sighting.is_some_and(|sighting| sighting.seen_at > *since);
                }
                !seen
            }
        };
        if !met {
            return Ok(Some(expectation.what.clone()));
        }
    }
    Ok(None)
}
