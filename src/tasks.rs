//! Named, owned, joined tasks and the stop signal. Nothing else spawns.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Mutex;
use std::thread::JoinHandle as ThreadHandle;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::task::{AbortHandle, JoinHandle};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The signal to stop; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Stop(CancellationToken);

impl Stop {
    /// A signal that has not been given.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives the signal.
    pub fn stop(&self) {
        self.0.cancel();
    }

    /// Whether it has been given.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Waits for the signal.
    pub async fn stopped(&self) {
        self.0.cancelled().await;
    }

    /// A signal that is given with this one, and can be given alone.
    #[must_use]
    pub fn child(&self) -> Self {
        Self(self.0.child_token())
    }
}

/// How long a task may take to end after the stop signal before it is cut off.
pub const GRACE: Duration = Duration::from_secs(10);

/// The tasks of one owner.
#[derive(Default)]
pub struct Tasks {
    tracker: TaskTracker,
    running: Mutex<Vec<(String, AbortHandle)>>,
}

impl Tasks {
    /// No tasks yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a task that lives until its owner joins it.
    pub fn spawn(&self, name: impl Into<String>, work: impl Future<Output = ()> + Send + 'static) {
        let handle = self.tracker.spawn(work).abort_handle();
        let mut running = self.running.lock().expect("no panic happens while the lock is held");
        running.retain(|(_, handle)| !handle.is_finished());
        running.push((name.into(), handle));
    }

    /// Starts a task that must not end before the stop signal; if it does, by mistake or panic, that is told.
    pub fn spawn_critical(
        &self,
        name: &'static str,
        stop: Stop,
        work: impl Future<Output = ()> + Send + 'static,
        ended: impl FnOnce(&str) + Send + 'static,
    ) {
        self.spawn(name, async move {
            let outcome = AssertUnwindSafe(work).catch_unwind().await;
            if outcome.is_err() || !stop.is_stopped() {
                tracing::error!(task = name, "a task that everything needs has ended");
                ended(name);
            }
        });
    }

    /// Whether every task has ended within the span.
    pub async fn ended_within(&self, span: Duration) -> bool {
        self.tracker.close();
        tokio::time::timeout(span, self.tracker.wait()).await.is_ok()
    }

    /// Waits for every task; one that does not end in [`GRACE`] is cut off and named in the log.
    pub async fn join(&self) {
        if self.ended_within(GRACE).await {
            return;
        }
        for (name, handle) in self.running.lock().expect("no panic happens while the lock is held").drain(..) {
            if !handle.is_finished() {
                tracing::warn!(task = name, "a task did not end in {GRACE:?} and was cut off");
                handle.abort();
            }
        }
    }
}

/// Starts a small task that ends by itself within a bound that its caller sets (a connection, a request).
pub fn spawn_bounded<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    tokio::spawn(work)
}

/// Starts a plain, named thread.
///
/// # Errors
/// When the operating system gives none.
pub fn spawn_thread(name: &str, stack_bytes: usize, work: impl FnOnce() + Send + 'static) -> std::io::Result<ThreadHandle<()>> {
    std::thread::Builder::new().name(name.to_string()).stack_size(stack_bytes).spawn(work)
}

/// How far work in the background stands back behind everything else; as `nice` counts.
pub const BACKGROUND_NICE: i32 = 15;

/// Lets the calling thread stand back behind others, for good; as `nice` counts.
pub fn stand_back(nice: i32) {
    if let Err(error) = rustix::process::setpriority_process(None, nice) {
        tracing::debug!("the priority of this thread stays as it is: {error}");
    }
}

/// Runs long work on a thread of its own that stands back behind all others.
///
/// # Errors
/// When it panicked, or the operating system gives no thread.
pub async fn in_background<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    let (done, result) = tokio::sync::oneshot::channel();
    let work = move || {
        stand_back(BACKGROUND_NICE);
        let _ = done.send(work()); // nobody waits for it any more
    };
    spawn_thread(name, 2 << 20, work).map_err(|error| format!("no thread: {error}"))?;
    result.await.map_err(|_| "it panicked; see the log".into())
}

/// Runs work that blocks on a thread kept for such.
///
/// # Errors
/// When it panicked, or the process stops.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, tokio::task::JoinError> {
    tokio::task::spawn_blocking(work).await
}
