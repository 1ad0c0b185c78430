//! Random stories of a store beside a plain model of it: after every step both say the same.

use std::io::{BufReader, Cursor};
use std::path::Path;
use std::sync::Arc;

use signalman::model::ids::IdSource;
use signalman::store::archive;
use signalman::store::keyed::KeyedStore;
use signalman::store::layers::Sizes;
use signalman::store::memory::MemorySpace;
use signalman::store::sled::SledSpace;
use signalman::store::{Batch, CommitError, Keep, Maintenance, Page, Store, StoreError};
use signalman::tasks::Stop;

use crate::harness::{Random, seed, times};
use crate::stock::{self, Model, Stock, limit, seconds};

/// Where a story takes place.
enum Place {
    Memory(MemorySpace),
    Sled(tempfile::TempDir),
}

impl Place {
    fn open(&self, sizes: Sizes) -> Result<KeyedStore, StoreError> {
        match self {
            Self::Memory(space) => KeyedStore::with_sizes(space.clone(), sizes),
            Self::Sled(folder) => KeyedStore::with_sizes(SledSpace::open(folder.path())?, sizes),
        }
    }
}

/// What happened.
#[derive(Default, Debug)]
struct Counts {
    stories: u64,
    commits: u64,
    conflicts: u64,
    tends: u64,
    removed: u64,
    reopened: u64,
    compacted: u64,
    restored: u64,
    compared: u64,
}

async fn blocking<T: Send + 'static>(
    store: &KeyedStore,
    work: impl FnOnce(Arc<dyn Maintenance>) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, String> {
    let maintenance = store.maintenance();
    tokio::task::spawn_blocking(move || work(maintenance)).await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}

/// One story of so many steps. `Err` says what went wrong at which step.
async fn story(seed: u64, steps: u64, on_disk: bool, counts: &mut Counts) -> Result<(), String> {
    let mut random = Random(seed);
    let sizes = Sizes { recent: 1 + random.below(12_000), lane: 1 + random.below(12_000) };
    let folder = || Place::Sled(tempfile::tempdir().unwrap());
    let mut place = if on_disk { folder() } else { Place::Memory(MemorySpace::default()) };
    let mut store = place.open(sizes).map_err(|error| error.to_string())?;
    let (mut stock, mut model) = (Stock::new(seed), Model::default());
    let any_limit = |random: &mut Random| {
        let count = (random.below(3) == 0).then(|| 5 + random.below(60));
        limit(300 + random.below(20_000), count)
    };
    let mut keep = Keep { events: any_limit(&mut random), executions: any_limit(&mut random), outputs: any_limit(&mut random) };
    let (mut sequence, mut unfinished) = (0, false);
    for step in 0..steps {
        let at = |what: String| format!("step {step}, {what}");
        stock.now += seconds(i64::try_from(random.below(100)).unwrap());
        match random.below(20) {
            0..=10 => {
                let batch = stock.batch(&model);
                let committed = store.commit(&batch).await.map_err(|error| at(format!("commit: {error}")))?;
                model.apply(&batch);
                if committed.sequence <= sequence {
                    return Err(at(format!("commit {} after commit {sequence}", committed.sequence)));
                }
                sequence = committed.sequence;
                counts.commits += 1;
            }
            11..=12 => {
                let Some(batch) = stock.conflict(&model) else { continue };
                match store.commit(&batch).await {
                    Err(CommitError::Conflict { .. }) => counts.conflicts += 1,
                    other => return Err(at(format!("a conflict was not seen: {other:?}"))),
                }
            }
            13..=16 => {
                stock.now += seconds(i64::try_from(random.below(2_000)).unwrap());
                let mut rounds = 0;
                loop {
                    let tended = store.tend(stock.now, &keep).await.map_err(|error| at(format!("tend: {error}")))?;
                    counts.removed += tended.removed;
                    unfinished = tended.more;
                    rounds += 1;
                    if !tended.more || random.below(10) == 0 {
                        break;
                    }
                    if rounds > 1_000 {
                        return Err(at("the upkeep does not end".into()));
                    }
                }
                counts.tends += 1;
            }
            17 => {
                model.counts_twice |= unfinished;
                drop(store);
                store = place.open(sizes).map_err(|error| at(format!("reopen: {error}")))?;
                counts.reopened += 1;
            }
            18 if random.below(3) == 0 => {
                keep = Keep { events: any_limit(&mut random), executions: any_limit(&mut random), outputs: any_limit(&mut random) };
            }
            18 => {
                model.counts_twice |= unfinished;
                blocking(&store, |maintenance| maintenance.compact(&mut |_, _| true)).await.map_err(at)?;
                counts.compacted += 1;
            }
            _ => {
                let written = blocking(&store, |maintenance| {
                    let mut bytes = Vec::new();
                    maintenance.backup(&mut bytes, &mut |_, _| true).map(|_| bytes)
                });
                let bytes = written.await.map_err(at)?;
                drop(store);
                place = Place::Memory(MemorySpace::default());
                if on_disk {
                    place = folder();
                }
                restore(&bytes, &place).map_err(|error| at(format!("restore: {error}")))?;
                store = place.open(sizes).map_err(|error| at(format!("open what was restored: {error}")))?;
                counts.restored += 1;
            }
        }
        let found = store.sequence().await.map_err(|error| at(error.to_string()))?;
        if found < sequence {
            return Err(at(format!("the last commit is {found}, and {sequence} was acknowledged")));
        }
        sequence = found;
        let page = [1, 7, 1_000][usize::try_from(random.below(3)).unwrap()];
        let read = stock::read(&store, stock.now, page).await.map_err(|error| at(format!("read: {error}")))?;
        model.compare(&read, stock.now, &keep).map_err(|wrong| at(format!("pages of {page}: {wrong}")))?;
        counts.compared += 1;
    }
    let damage = blocking(&store, |maintenance| maintenance.check(&mut |_, _| true)).await?;
    if !damage.is_empty() {
        return Err(format!("check found {damage:?}"));
    }
    counts.stories += 1;
    Ok(())
}

fn restore(bytes: &[u8], place: &Place) -> Result<(), StoreError> {
    let mut reader = archive::Reader::new(BufReader::new(Cursor::new(bytes)))?;
    let records = std::iter::from_fn(|| reader.next_record().transpose());
    match place {
        Place::Memory(space) => KeyedStore::fill(space.clone(), records),
        Place::Sled(folder) => KeyedStore::fill(SledSpace::open(folder.path() as &Path)?, records),
    }
}

/// Tells stories; of one that fails, how short it can be and still fail.
async fn stories(number: u64, steps: u64, on_disk: bool) {
    let first = seed();
    let mut counts = Counts::default();
    for seed in (0..number).map(|n| first.wrapping_add(n)) {
        if let Err(mut wrong) = story(seed, steps, on_disk, &mut counts).await {
            let (mut fails, mut passes) = (steps, 0);
            while passes + 1 < fails {
                let half = u64::midpoint(fails, passes);
                match story(seed, half, on_disk, &mut Counts::default()).await {
                    Err(earlier) => (fails, wrong) = (half, earlier),
                    Ok(()) => passes = half,
                }
            }
            panic!("SIGNALMAN_TEST_SEED={seed}, within {fails} steps: {wrong}");
        }
    }
    println!("{counts:?}");
    assert!(counts.removed > 0 && counts.conflicts > 0 && counts.restored > 0, "the stories are about something: {counts:?}");
}

#[tokio::test]
async fn a_store_in_memory_does_what_its_model_does() {
    stories(times(4, 200), 120, false).await;
}

#[tokio::test]
async fn a_store_on_sled_does_what_its_model_does() {
    stories(times(1, 40), 100, true).await;
}

#[tokio::test]
async fn a_large_backup_is_restored_whole_and_stays() {
    const EVENTS: usize = 400;
    let (ids, now) = (IdSource::seeded(seed()), stock::start());
    let store = KeyedStore::new(MemorySpace::default()).unwrap();
    for _ in 0..EVENTS / 20 {
        let events = (0..20).map(|_| stock::event(&ids, now, 1, "x".repeat(200_000))).collect();
        store.commit(&Batch { events, ..Batch::default() }).await.unwrap();
        while store.tend(now, &Keep::default()).await.unwrap().more {}
    }
    let bytes = blocking(&store, |maintenance| {
        let mut bytes = Vec::new();
        maintenance.backup(&mut bytes, &mut |_, _| true).map(|_| bytes)
    });
    let bytes = bytes.await.unwrap();
    let space = MemorySpace::default();
    restore(&bytes, &Place::Memory(space.clone())).unwrap();
    let restored = KeyedStore::new(space).unwrap();
    let count = |events: Vec<_>| events.len();
    assert_eq!(count(restored.events(all()).await.unwrap()), EVENTS);
    while restored.tend(now, &Keep::default()).await.unwrap().more {}
    assert_eq!(count(restored.events(all()).await.unwrap()), EVENTS, "the upkeep dropped what was restored, and is young");
    println!("{EVENTS} events in a backup of {} MiB", bytes.len() >> 20);
}

fn all<I>() -> Page<I> {
    Page { before: None, limit: usize::MAX }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn commits_while_the_upkeep_works_are_there_after_a_restart() {
    let sizes = Sizes { recent: 1, lane: 500 };
    let keep = Keep::default();
    let (ids, now) = (IdSource::seeded(seed()), stock::start());
    let (mut space, rounds, commits) = (MemorySpace::default(), times(24, 400), 150);
    let mut expected = Vec::new();
    for round in 0..rounds {
        if round % 6 == 0 {
            (space, expected) = Default::default();
        }
        let opened = KeyedStore::with_sizes(space.clone(), sizes).unwrap_or_else(|error| panic!("round {round}: {error}"));
        let store = Arc::new(opened);
        let ended = Stop::new();
        let upkeep = tokio::spawn({
            let (store, ended) = (Arc::clone(&store), ended.clone());
            async move {
                while !ended.is_stopped() {
                    store.tend(now, &keep).await.unwrap();
                }
            }
        });
        for _ in 0..commits {
            let event = stock::event(&ids, now, 1, "a".into());
            expected.push(event.event.id);
            store.commit(&Batch { events: vec![event], ..Batch::default() }).await.unwrap();
        }
        ended.stop();
        upkeep.await.unwrap();
        // As a kill: the list of databases on disk is what counts.
        drop(store);
        let store = KeyedStore::with_sizes(space.clone(), sizes).unwrap_or_else(|error| panic!("after round {round}: {error}"));
        while store.tend(now, &keep).await.unwrap().more {}
        let mut found: Vec<_> = store.events(all()).await.unwrap().iter().map(|event| event.event.id).collect();
        found.reverse();
        assert!(found == expected, "round {round}: {} of {} events are there", found.len(), expected.len());
        blocking(&store, |maintenance| maintenance.compact(&mut |_, _| true)).await.unwrap();
    }
    println!("{rounds} restarts, {} commits beside the upkeep", rounds * commits);
}
