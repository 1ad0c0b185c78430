//! A disk that fails at its first, second, … n-th operation, once or for good: what was acknowledged is there afterwards, whole.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard};

use signalman::store::keyed::KeyedStore;
use signalman::store::layers::Sizes;
use signalman::store::space::{Database, Operation, Pair, Space};
use signalman::store::{CommitError, Keep, Store, StoreError};

use crate::harness::{Random, seed, times};
use crate::stock::{self, Model, Stock, limit, seconds};

/// What happens at the operation whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// It fails, and the next one works.
    Once,
    /// It fails, and so does everything until [`Disk::power_on`].
    PowerCut,
}

/// A disk that can fail. Clones share it.
#[derive(Clone)]
struct Disk(Arc<Mutex<State>>);

struct State {
    random: Random,
    /// Operations so far, and the one that fails.
    done: u64,
    fails_at: Option<(u64, Fault)>,
    cut: bool,
    databases: BTreeMap<String, Arc<Mutex<Data>>>,
    /// Removed, which a power cut may undo.
    removed: HashMap<String, Arc<Mutex<Data>>>,
    files: BTreeMap<String, Vec<u8>>,
    /// The note as it is, and one that has reached the disk.
    note: u64,
    stable_note: u64,
}

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// A database: what is durable, and what has been written since, batch by batch.
#[derive(Clone, Default)]
struct Data {
    durable: Map,
    unsynced: Vec<Vec<Operation>>,
    live: Map,
    /// Whether somebody has it open, and has not closed it in good order.
    open: bool,
    failed: bool,
}

fn apply(map: &mut Map, operations: &[Operation]) {
    for operation in operations {
        match operation {
            Operation::Put(key, value) => map.insert(key.clone(), value.clone()),
            Operation::Delete(key) => map.remove(key),
        };
    }
}

impl Data {
    /// As the files are found: what was not synced is there up to some batch.
    fn found(&self, random: &mut Random, durable: bool) -> Self {
        let kept = usize::try_from(random.below(self.unsynced.len() as u64 + 1)).unwrap();
        let mut found = Self { durable: self.durable.clone(), ..Self::default() };
        found.live = found.durable.clone();
        for batch in &self.unsynced[..kept] {
            apply(&mut found.live, batch);
        }
        if durable {
            found.durable = found.live.clone();
        } else {
            found.unsynced = self.unsynced[..kept].to_vec();
        }
        found
    }
}

fn failure() -> StoreError {
    StoreError::Unavailable("the disk failed, as the test told it".into())
}

impl State {
    /// Counts an operation; `Err` says that it fails, and whether it takes effect all the same.
    fn operate(&mut self) -> Result<(), bool> {
        if self.cut {
            return Err(false);
        }
        self.done += 1;
        match self.fails_at {
            Some((at, fault)) if at == self.done => {
                self.cut = fault == Fault::PowerCut;
                Err(self.random.below(2) == 0)
            }
            _ => Ok(()),
        }
    }
}

impl Disk {
    fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            random: Random(seed),
            done: 0,
            fails_at: None,
            cut: false,
            databases: BTreeMap::new(),
            removed: HashMap::new(),
            files: BTreeMap::new(),
            note: 0,
            stable_note: 0,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// The machine starts again: of what was volatile some is there.
    fn power_on(&self) {
        let mut guard = self.lock();
        let state = &mut *guard;
        (state.cut, state.fails_at) = (false, None);
        for (name, data) in std::mem::take(&mut state.removed) {
            if state.random.below(2) == 0 {
                state.databases.entry(name).or_insert(data);
            }
        }
        let State { databases, random, .. } = state;
        for data in databases.values_mut() {
            let found = data.lock().unwrap().found(random, true);
            *data = Arc::new(Mutex::new(found));
        }
        if state.random.below(2) == 0 {
            state.note = state.stable_note;
        }
    }
}

impl Space for Disk {
    fn engine(&self) -> &'static str {
        "test"
    }

    fn open(&self, name: &str, _cache_bytes: u64) -> Result<Box<dyn Database>, StoreError> {
        let mut guard = self.lock();
        // One that is only opened is only read for it.
        if guard.cut || !guard.databases.contains_key(name) {
            guard.operate().map_err(|_| failure())?;
        }
        let state = &mut *guard;
        let data = state.databases.entry(name.to_string()).or_default();
        if data.lock().unwrap().open {
            // It cannot be opened twice: a copy of the files takes its place.
            let found = data.lock().unwrap().found(&mut state.random, false);
            *data = Arc::new(Mutex::new(found));
        }
        data.lock().unwrap().open = true;
        Ok(Box::new(Handle { disk: self.clone(), data: Arc::clone(data) }))
    }

    fn names(&self) -> Result<Vec<String>, StoreError> {
        Ok(self.lock().databases.keys().cloned().collect())
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        let mut state = self.lock();
        let done = state.operate();
        if done != Err(false)
            && let Some(data) = state.databases.remove(name)
        {
            state.removed.insert(name.to_string(), data);
        }
        done.map_err(|_| failure())
    }

    fn bytes(&self, _name: &str) -> u64 {
        0
    }

    fn read_file(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.lock().files.get(name).cloned())
    }

    fn write_file(&self, name: &str, content: &[u8]) -> Result<(), StoreError> {
        let mut state = self.lock();
        let done = state.operate();
        if done != Err(false) {
            state.files.insert(name.to_string(), content.to_vec());
            state.stable_note = state.note; // the journal of the file system took it along
        }
        done.map_err(|_| failure())
    }

    fn note_durable(&self, sequence: u64) {
        let mut state = self.lock();
        if !state.cut {
            state.note = sequence;
        }
    }

    fn durable(&self) -> Result<u64, StoreError> {
        Ok(self.lock().note)
    }

    fn probe(&self) -> Result<(), StoreError> {
        self.lock().operate().map_err(|_| failure())
    }

    fn free_bytes(&self) -> Option<u64> {
        None
    }
}

/// An open database.
struct Handle {
    disk: Disk,
    data: Arc<Mutex<Data>>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        let cut = self.disk.lock().cut;
        let mut data = self.data.lock().unwrap();
        if !cut && !data.failed {
            data.open = false; // closed in good order; it is all in its files, if not durable
        }
    }
}

impl Database for Handle {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.data.lock().unwrap().live.get(key).cloned())
    }

    fn scan(&self, from: Bound<&[u8]>, to: Bound<&[u8]>, descending: bool, limit: usize) -> Result<Vec<Pair>, StoreError> {
        let data = self.data.lock().unwrap();
        let range = data.live.range::<[u8], _>((from, to)).map(|(key, value)| (key.clone(), value.clone()));
        Ok(if descending { range.rev().take(limit).collect() } else { range.take(limit).collect() })
    }

    fn write(&self, operations: Vec<Operation>) -> Result<(), StoreError> {
        let done = self.disk.lock().operate();
        let mut data = self.data.lock().unwrap();
        if data.failed {
            return Err(StoreError::Unavailable("written to after it failed".into()));
        }
        if done != Err(false) {
            apply(&mut data.live, &operations);
            data.unsynced.push(operations);
        }
        data.failed = done.is_err();
        done.map_err(|_| failure())
    }

    fn sync(&self) -> Result<(), StoreError> {
        let done = self.disk.lock().operate();
        let mut data = self.data.lock().unwrap();
        if data.failed {
            return Err(StoreError::Unavailable("synced after it failed".into()));
        }
        if done != Err(false) {
            data.durable = data.live.clone();
            data.unsynced.clear();
        }
        data.failed = done.is_err();
        done.map_err(|_| failure())
    }
}

const SIZES: Sizes = Sizes { recent: 2_500, lane: 1_500 };

fn keep() -> Keep {
    Keep { events: limit(2_500, None), executions: limit(4_000, Some(12)), outputs: limit(1_800, None) }
}

/// What became of the batch whose commit was not acknowledged: compares with and without it.
async fn settle(store: &KeyedStore, stock: &Stock, model: &mut Model, unsure: Option<&signalman::store::Batch>) -> Result<(), String> {
    let read = stock::read(store, stock.now, 50).await.map_err(|error| format!("read: {error}"))?;
    let Some(batch) = unsure else { return model.compare(&read, stock.now, &keep()) };
    let mut with = model.clone();
    with.apply(batch);
    match (with.compare(&read, stock.now, &keep()), model.compare(&read, stock.now, &keep())) {
        (Ok(()), _) => *model = with,
        (Err(_), Ok(())) => {}
        (Err(with), Err(without)) => return Err(format!("neither with the last commit ({with}) nor without it ({without})")),
    }
    Ok(())
}

/// Tells a story while the disk fails at one operation. Answers the operations there were, and the commits acknowledged.
async fn story(seed: u64, commits: u64, fails_at: Option<(u64, Fault)>) -> Result<(u64, u64), String> {
    let disk = Disk::new(seed ^ fails_at.map_or(0, |(at, _)| at));
    disk.lock().fails_at = fails_at;
    let (mut stock, mut model) = (Stock::new(seed), Model::default());
    model.counts_twice = fails_at.is_some();
    stock.large = 5_000;
    let mut store = None;
    let mut acknowledged = 0;
    let mut round = 0;
    while round < commits {
        let open = match store.take() {
            Some(open) => open,
            None => match KeyedStore::with_sizes(disk.clone(), SIZES) {
                Ok(open) => open,
                Err(StoreError::Unavailable(_)) if has_failed(&disk) => {
                    disk.power_on();
                    KeyedStore::with_sizes(disk.clone(), SIZES).map_err(|error| format!("open after a failed open: {error}"))?
                }
                Err(error) => return Err(format!("open: {error}")),
            },
        };
        round += 1;
        stock.now += seconds(40);
        let batch = stock.batch(&model);
        let mut unsure = None;
        match open.commit(&batch).await {
            Ok(_) => {
                model.apply(&batch);
                acknowledged += 1;
            }
            Err(CommitError::Store(_)) => unsure = Some(batch),
            Err(error) => return Err(format!("round {round}: {error}")),
        }
        let mut failed = unsure.is_some();
        stock.now += seconds(100);
        for _ in 0..40 {
            match open.tend(stock.now, &keep()).await {
                Ok(tended) if tended.more => {}
                Ok(_) => break,
                Err(StoreError::Unavailable(_)) => {
                    failed = true;
                    break;
                }
                Err(error) => return Err(format!("round {round}: tend: {error}")),
            }
        }
        if round % 7 == 5 && !failed {
            let maintenance = open.maintenance();
            let ran = tokio::task::spawn_blocking(move || {
                maintenance.backup(&mut Vec::new(), &mut |_, _| true)?;
                maintenance.compact(&mut |_, _| true)
            });
            match ran.await.map_err(|error| error.to_string())? {
                Ok(()) => {}
                Err(StoreError::Unavailable(_)) => failed = true,
                Err(error) => return Err(format!("round {round}: upkeep: {error}")),
            }
        }
        failed |= open.health().await.is_err();
        let at = |wrong: String| format!("round {round}: {wrong}");
        if failed && disk.lock().cut {
            drop(open);
            disk.power_on();
            let again = KeyedStore::with_sizes(disk.clone(), SIZES).map_err(|error| at(format!("after the power cut: {error}")))?;
            settle(&again, &stock, &mut model, unsure.as_ref()).await.map_err(at)?;
            store = Some(again);
            continue;
        }
        if failed && open.health().await.is_err() {
            for tries in 0.. {
                match open.revive().await {
                    Ok(true) => break,
                    Err(StoreError::Unavailable(_)) if tries < 3 => {}
                    other => return Err(at(format!("revive: {other:?}"))),
                }
            }
        }
        settle(&open, &stock, &mut model, unsure.as_ref()).await.map_err(at)?;
        store = (round % 11 != 10).then_some(open); // now and then it is closed and opened again
    }
    drop(store);
    disk.power_on(); // whatever has not failed until here need not
    let store = KeyedStore::with_sizes(disk.clone(), SIZES).map_err(|error| format!("open in the end: {error}"))?;
    settle(&store, &stock, &mut model, None).await.map_err(|wrong| format!("in the end: {wrong}"))?;
    let maintenance = store.maintenance();
    let damage = tokio::task::spawn_blocking(move || maintenance.check(&mut |_, _| true)).await.unwrap();
    match damage {
        Ok(damage) if damage.is_empty() => Ok((disk_done(&disk), acknowledged)),
        other => Err(format!("check: {other:?}")),
    }
}

fn has_failed(disk: &Disk) -> bool {
    let state = disk.lock();
    state.fails_at.is_some_and(|(at, _)| state.done >= at)
}

fn disk_done(disk: &Disk) -> u64 {
    disk.lock().done
}

async fn every_step(fault: Fault) {
    let (seed, commits) = (seed(), times(9, 24));
    let (operations, _) = story(seed, commits, None).await.expect("without a fault all is well");
    let (mut tried, mut acknowledged, mut wrong) = (0, 0, Vec::new());
    for at in 1..=operations {
        match story(seed, commits, Some((at, fault))).await {
            Ok((_, more)) => acknowledged += more,
            Err(text) => wrong.push(format!("{fault:?} at operation {at} of {operations}: {text}")),
        }
        tried += 1;
    }
    println!("{fault:?}: {tried} operations were made to fail, {acknowledged} commits acknowledged, {} stories went wrong", wrong.len());
    assert!(wrong.is_empty(), "SIGNALMAN_TEST_SEED={seed}\n{}", wrong[..wrong.len().min(10)].join("\n"));
}

#[tokio::test]
async fn power_cut_at_any_operation_loses_nothing_acknowledged() {
    every_step(Fault::PowerCut).await;
}

#[tokio::test]
async fn a_failure_of_any_operation_can_be_revived() {
    every_step(Fault::Once).await;
}
