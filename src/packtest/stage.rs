//! Where a case is played: the engine without its door, a store in memory, a simulated clock that jumps, requests that never leave.
//!
//! One thread, one runtime. The clock moves on when nothing can happen any more before it does: no task is ready, and nothing is away on
//! another thread. So a case takes as long as its work, whatever time passes in it, and goes the same way every time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;

use crate::app::core::{self, Core};
use crate::app::{Parts, StartError};
use crate::clock::{Clock, SimulatedClock};
use crate::model::ids::IdSource;
use crate::outbound::scripted::{Exchange, Scripted};
use crate::pack::Site;
use crate::secrets::Secrets;
use crate::store::memory::{MemorySpace, MemoryStore};
use crate::tasks::Errands;

/// How long work on another thread or in another process may take, of real time.
const AWAY: Duration = Duration::from_secs(60);

/// How often the clock may jump in one case.
const MAX_JUMPS: u32 = 500_000;

/// A runtime that tells when it has nothing to do.
pub struct Stage {
    runtime: Runtime,
    idle: Arc<Idle>,
}

#[derive(Default)]
struct Idle {
    asked: AtomicBool,
    reached: Notify,
}

impl Stage {
    /// A runtime on the calling thread.
    ///
    /// # Errors
    /// When the operating system gives none.
    pub fn new() -> std::io::Result<Self> {
        let idle = Arc::<Idle>::default();
        let told = Arc::clone(&idle);
        let tell = move || {
            if told.asked.swap(false, Ordering::SeqCst) {
                told.reached.notify_waiters();
            }
        };
        let runtime = Builder::new_current_thread().enable_all().on_thread_park(tell).build()?;
        Ok(Self { runtime, idle })
    }

    /// Plays to the end.
    pub fn play<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// Starts the engine for a case. Call it within [`Stage::play`].
    ///
    /// # Errors
    /// When a part cannot be started.
    pub async fn start(&self, site: Site, seed: u64, now: DateTime<Utc>, requests: Requests) -> Result<World, StartError> {
        let (clock, errands) = (SimulatedClock::at(now), Errands::default());
        let scripted = Arc::new(Scripted::new(Arc::new(clock.clone()), requests.exchanges, requests.in_order));
        let store = MemoryStore::new(MemorySpace::default())?.counted_in(errands.clone());
        let ids = Arc::new(IdSource::seeded(seed));
        let parts = Parts {
            store: Arc::new(store),
            clock: Arc::new(clock.clone()),
            secrets: Arc::new(Secrets::passing(&ids)),
            ids,
            transport: Arc::clone(&scripted) as _,
            errands: errands.clone(),
            origin: None,
        };
        let core = core::start(site, parts).await?;
        Ok(World { core, clock, scripted, start: now, errands, idle: Arc::clone(&self.idle), jumps: 0 })
    }
}

/// The requests of a case.
pub struct Requests {
    /// Each with its reply.
    pub exchanges: Vec<Exchange>,
    /// Whether they come in this order.
    pub in_order: bool,
}

/// An engine at work in simulated time.
pub struct World {
    /// The engine.
    pub core: Core,
    /// Its requests.
    pub scripted: Arc<Scripted>,
    /// When the case began.
    pub start: DateTime<Utc>,
    clock: SimulatedClock,
    errands: Errands,
    idle: Arc<Idle>,
    jumps: u32,
}

/// Why a case could not be played to its end.
#[derive(Debug, thiserror::Error)]
pub enum Stuck {
    /// Something on another thread does not end.
    #[error("something ran for more than {AWAY:?} of real time: a script that computes, or a program")]
    Away,
    /// There is no end to it.
    #[error("the clock jumped {MAX_JUMPS} times and there was no end")]
    Endless,
}

impl World {
    /// How long after the beginning a time is.
    #[must_use]
    pub fn since_start(&self, at: DateTime<Utc>) -> Duration {
        (at - self.start).to_std().unwrap_or_default()
    }

    /// Goes on until nothing more can happen before the clock moves.
    ///
    /// # Errors
    /// When something on another thread does not end.
    pub async fn rest(&self) -> Result<(), Stuck> {
        loop {
            let (_, begun) = self.errands.count();
            let reached = self.idle.reached.notified();
            tokio::pin!(reached);
            reached.as_mut().enable();
            self.idle.asked.store(true, Ordering::SeqCst);
            reached.await;
            match self.errands.count() {
                (0, now) if now == begun => return Ok(()),
                (0, _) => {}
                _ => tokio::time::timeout(AWAY, self.errands.all_back()).await.map_err(|_| Stuck::Away)?,
            }
        }
    }

    /// Lets the clock jump, from one awaited time to the next, until the span after the beginning is over.
    ///
    /// # Errors
    /// As [`World::jump`].
    pub async fn until(&mut self, span: Duration) -> Result<(), Stuck> {
        let end = self.start + span;
        self.rest().await?;
        while self.clock.now() < end {
            self.jump(end).await?;
        }
        Ok(())
    }

    /// Moves the clock to the next awaited time, or to `end` if that comes first, and lets happen what happens then.
    ///
    /// # Errors
    /// When something does not end.
    pub async fn jump(&mut self, end: DateTime<Utc>) -> Result<(), Stuck> {
        self.jumps += 1;
        if self.jumps > MAX_JUMPS {
            return Err(Stuck::Endless);
        }
        self.clock.advance_to(self.clock.next_awaited().map_or(end, |next| next.min(end)));
        self.rest().await
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }
}
