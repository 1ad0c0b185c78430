//! Pack tests: the cases of `packs/NAME/tests/*.yaml`, played on the engine itself, in simulated time, without a network.
//!
//! `pack::test` reads the files, [`plan`] finds them and loads the site for them, [`stage`] is where a case is played, [`play`] plays and checks
//! it, [`report`] tells. Nothing here is part of a site that serves.

pub mod diff;
pub mod junit;
pub mod plan;
pub mod play;
pub mod report;
pub mod stage;

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use self::plan::Plan;
use self::play::play;
use self::stage::Stage;
use crate::clock::{Clock, SystemClock};
use crate::model::place::Place;
use crate::tasks;

/// Stack of a thread that plays cases.
const STACK_BYTES: usize = 8 << 20;

/// How cases are played.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// What ids are made from.
    pub seed: u64,
    /// Whether to begin no further case after one has failed.
    pub fail_fast: bool,
    /// Threads.
    pub threads: usize,
}

/// One thing that is not as expected.
#[derive(Clone, Debug)]
pub struct Problem {
    /// Where it is expected.
    pub place: Place,
    /// What is wrong.
    pub what: String,
    /// Expected and got, and what else helps.
    pub lines: Vec<String>,
}

/// What became of a case.
#[derive(Clone, Debug)]
pub struct Played {
    /// The pack.
    pub pack: String,
    /// The case.
    pub name: String,
    /// Where it is written.
    pub place: Place,
    /// What is not as expected; nothing if it passed.
    pub problems: Vec<Problem>,
    /// What executions logged, requests, and rules' verdicts, for people.
    pub story: Vec<String>,
    /// How long it took, of real time.
    pub took: Duration,
    /// What it touched.
    pub touched: Touched,
}

/// What a case touched, by reference.
#[derive(Clone, Debug, Default)]
pub struct Touched {
    /// Actions that were carried out.
    pub actions: BTreeSet<String>,
    /// Rules that were tried.
    pub tried: BTreeSet<String>,
    /// Rules that ran something.
    pub matched: BTreeSet<String>,
}

impl Played {
    /// Whether all was as expected.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.problems.is_empty()
    }
}

/// Plays all cases of a plan on several threads; the answer is in the order of the plan. With `fail_fast` it ends with the first that failed.
///
/// # Errors
/// When the operating system gives no thread.
pub fn run(plan: &Plan, options: Options) -> std::io::Result<Vec<Played>> {
    let cases: Vec<_> = plan.groups.iter().flat_map(|group| group.cases.iter().map(move |case| (group, case))).collect();
    let (next, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let played: Vec<Mutex<Option<Played>>> = cases.iter().map(|_| Mutex::new(None)).collect();
    let work = || -> std::io::Result<()> {
        let stage = Stage::new()?;
        while !over.load(Ordering::SeqCst) {
            let index = next.fetch_add(1, Ordering::SeqCst);
            let Some((group, case)) = cases.get(index) else { break };
            let began = SystemClock.now();
            let mut one = play(&stage, group, case, options.seed);
            one.took = (SystemClock.now() - began).to_std().unwrap_or_default();
            if options.fail_fast && !one.passed() {
                over.store(true, Ordering::SeqCst);
            }
            *played[index].lock().expect("no panic happens while the lock is held") = Some(one);
        }
        Ok(())
    };
    tasks::on_threads("pack-test", STACK_BYTES, options.threads.clamp(1, cases.len().max(1)), work)?;
    let mut done: Vec<Played> = played.into_iter().filter_map(|one| one.into_inner().ok().flatten()).collect();
    if options.fail_fast
        && let Some(first) = done.iter().position(|one| !one.passed())
    {
        done.truncate(first + 1);
    }
    Ok(done)
}
