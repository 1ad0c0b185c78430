//! Named, owned, joined tasks and the stop signal. Nothing else spawns.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::JoinHandle as ThreadHandle;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinHandle};
use tokio_util::sync::{CancellationToken, DropGuard};
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

    /// Gives the signal when what is answered is dropped.
    #[must_use]
    pub fn stops_when_dropped(self) -> DropGuard {
        self.0.drop_guard()
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

/// Counts work that has left the async tasks, for a thread or another process. Who moves a simulated clock on by itself must wait until all
/// of it is back: such work takes no simulated time, and nobody else sees that it is under way. Cheap to clone; clones count together.
#[derive(Clone, Debug, Default)]
pub struct Errands(Arc<Away>);

#[derive(Debug, Default)]
struct Away {
    out: AtomicUsize,
    /// Counts every begin, so that it is seen when something was away in between.
    begun: AtomicU64,
    back: Notify,
}

/// One errand; it is over when this is dropped.
#[derive(Debug)]
pub struct Errand(Arc<Away>);

impl Errands {
    /// Begins an errand. Begin it before the work is handed over, and end it after the result has been taken.
    #[must_use]
    pub fn begin(&self) -> Errand {
        self.0.leave();
        Errand(Arc::clone(&self.0))
    }

    /// Awaits something from within an errand, as a thread does that blocks on the async side: meanwhile the errand does not count. It counts
    /// again from the moment at which it is woken, not only when its thread goes on.
    pub fn resting<F: Future>(&self, work: F) -> Resting<F> {
        let rest = Rest { away: Arc::clone(&self.0), stage: AtomicU8::new(WORKING), waker: Mutex::default() };
        Resting { work: Box::pin(work), rest: Arc::new(rest) }
    }

    /// How much is away, and how often anything has begun to be.
    #[must_use]
    pub fn count(&self) -> (usize, u64) {
        (self.0.out.load(Ordering::SeqCst), self.0.begun.load(Ordering::SeqCst))
    }

    /// Waits until nothing is away.
    pub async fn all_back(&self) {
        loop {
            let back = self.0.back.notified();
            tokio::pin!(back);
            back.as_mut().enable();
            if self.count().0 == 0 {
                return;
            }
            back.await;
        }
    }
}

impl Away {
    fn leave(&self) {
        self.out.fetch_add(1, Ordering::SeqCst);
        self.begun.fetch_add(1, Ordering::SeqCst);
    }

    fn come_back(&self) {
        if self.out.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.back.notify_waiters();
        }
    }
}

impl Drop for Errand {
    fn drop(&mut self) {
        self.0.come_back();
    }
}

/// What an errand awaits; see [`Errands::resting`].
pub struct Resting<F> {
    work: Pin<Box<F>>,
    rest: Arc<Rest>,
}

/// Stages of a rest: its thread works; it rests, and the errand does not count; it has been woken, and will work again.
const WORKING: u8 = 0;
const RESTING: u8 = 1;
const WOKEN: u8 = 2;

struct Rest {
    away: Arc<Away>,
    stage: AtomicU8,
    waker: Mutex<Option<Waker>>,
}

impl Rest {
    fn enter(&self, stage: u8) {
        if self.stage.swap(stage, Ordering::SeqCst) == RESTING {
            self.away.leave();
        }
    }

    fn waker(&self) -> MutexGuard<'_, Option<Waker>> {
        self.waker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Rest {
    fn wake(self: Arc<Self>) {
        self.enter(WOKEN);
        let waker = self.waker().clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<F: Future> Future for Resting<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let rest = Arc::clone(&self.rest);
        *rest.waker() = Some(cx.waker().clone());
        rest.enter(WORKING);
        let polled = self.work.as_mut().poll(&mut Context::from_waker(&Waker::from(Arc::clone(&rest))));
        // One that has been woken meanwhile is polled again soon, and goes on to count.
        if polled.is_pending() && rest.stage.compare_exchange(WORKING, RESTING, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
            rest.away.come_back();
        }
        polled
    }
}

impl<F> Drop for Resting<F> {
    fn drop(&mut self) {
        self.rest.enter(WORKING);
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

/// Runs the same work on so many named threads and waits for all of them; the first error of any.
///
/// # Errors
/// When the operating system gives no thread, or the work failed.
pub fn on_threads(name: &str, stack_bytes: usize, threads: usize, work: impl Fn() -> std::io::Result<()> + Sync) -> std::io::Result<()> {
    std::thread::scope(|scope| {
        let start = || std::thread::Builder::new().name(name.to_string()).stack_size(stack_bytes).spawn_scoped(scope, &work);
        let running: Vec<_> = (0..threads).map(|_| start()).collect::<std::io::Result<_>>()?;
        let panicked = |_| std::io::Error::other("a thread panicked; see the log");
        running.into_iter().try_for_each(|thread| thread.join().map_err(panicked)?)
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_errand_counts_until_it_rests_and_again_when_it_is_woken() {
        let errands = Errands::default();
        let errand = errands.begin();
        let (wake, woken) = tokio::sync::oneshot::channel::<()>();
        let mut resting = Box::pin(errands.resting(woken));
        assert!(futures_util::poll!(resting.as_mut()).is_pending());
        assert_eq!(errands.count(), (0, 1));
        wake.send(()).unwrap();
        assert_eq!(errands.count(), (1, 2), "before anybody polls again");
        assert!(futures_util::poll!(resting.as_mut()).is_ready());
        drop(resting);
        drop(errand);
        errands.all_back().await;
        assert_eq!(errands.count(), (0, 2));
    }

    #[tokio::test]
    async fn a_rest_that_is_given_up_counts_as_work_again() {
        let errands = Errands::default();
        let _errand = errands.begin();
        let mut resting = Box::pin(errands.resting(std::future::pending::<()>()));
        assert!(futures_util::poll!(resting.as_mut()).is_pending());
        assert_eq!(errands.count().0, 0);
        drop(resting);
        assert_eq!(errands.count().0, 1);
    }
}
