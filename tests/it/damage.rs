//! Files are cut, flipped, zeroed and removed at random: the store says so, or everything is there.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use signalman::store::keyed::KeyedStore;
use signalman::store::layers::Sizes;
use signalman::store::sled::SledSpace;
use signalman::store::{Keep, Store, StoreError};

use crate::harness::{PATIENCE, Random, copy_folder, seed, times};
use crate::stock::{self, Content, Model, Stock, limit, seconds};

const SIZES: Sizes = Sizes { recent: 60_000, lane: 30_000 };

/// What came of a damage.
#[derive(Default, Debug)]
struct Outcomes {
    refused: u64,
    told_by_check: u64,
    told_by_reads: u64,
    intact: u64,
}

/// A store with databases in every lane, left as it is after a close, or as a kill leaves it.
async fn fill(seed: u64, killed: bool) -> (tempfile::TempDir, Content, chrono::DateTime<chrono::Utc>) {
    let folder = tempfile::tempdir().unwrap();
    let keep = Keep { events: limit(4_000, None), executions: limit(20_000, None), outputs: limit(20_000, None) };
    let store = KeyedStore::with_sizes(SledSpace::open(folder.path()).unwrap(), SIZES).unwrap();
    let (mut stock, mut model) = (Stock::new(seed), Model::default());
    for round in 0..90 {
        stock.now += seconds(60);
        let batch = stock.batch(&model);
        store.commit(&batch).await.unwrap();
        model.apply(&batch);
        if round % 4 == 0 && round < 85 {
            while store.tend(stock.now, &keep).await.unwrap().more {}
        }
    }
    let content = stock::read(&store, stock.now, 100).await.unwrap();
    let maintenance = store.maintenance();
    let stat = tokio::task::spawn_blocking(move || maintenance.stat().unwrap()).await.unwrap();
    let mut lanes: Vec<&str> = stat.databases.iter().map(|database| database.lane.as_str()).collect();
    lanes.dedup();
    println!("{} databases: {}; {} things to read", stat.databases.len(), lanes.join(", "), content.len());
    for lane in ["recent", "aged", "lasting", "outputs", "executions", "seen-day", "seen-long"] {
        assert!(lanes.contains(&lane), "nothing lies in {lane}: {lanes:?}");
    }
    if killed {
        let copy = tempfile::tempdir().unwrap();
        copy_folder(folder.path(), copy.path());
        return (copy, content, stock.now);
    }
    drop(store);
    (folder, content, stock.now)
}

fn files(folder: &Path, found: &mut Vec<(PathBuf, u64)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else {
            let bytes = fs::metadata(&path).unwrap().len();
            found.push((path, bytes));
        }
    }
    found.sort();
}

/// Damages one file; answers what was done.
fn damage(folder: &Path, random: &mut Random) -> String {
    let mut found = Vec::new();
    files(folder, &mut found);
    // By size, but so that small files have their turn.
    let weight = |bytes: u64| bytes / 64 + 200;
    let mut at = random.below(found.iter().map(|(_, bytes)| weight(*bytes)).sum());
    let chosen = found.iter().find(|(_, bytes)| {
        let here = at < weight(*bytes);
        at = at.saturating_sub(weight(*bytes));
        here
    });
    let (path, bytes) = chosen.unwrap_or(&found[0]);
    let name = path.strip_prefix(folder).unwrap().display().to_string();
    let mut content = fs::read(path).unwrap();
    // Mostly where something is: the files of sled have much room in them.
    let written = content.clone();
    let place = |random: &mut Random| {
        let mut at = 0;
        for _ in 0..200 {
            at = usize::try_from(random.below((*bytes).max(1))).unwrap();
            if written.get(at).is_some_and(|byte| *byte != 0) {
                break;
            }
        }
        at
    };
    match random.below(8) {
        0 => {
            fs::remove_file(path).unwrap();
            format!("{name} removed")
        }
        1 | 2 => {
            let length = place(random);
            content.truncate(length);
            fs::write(path, content).unwrap();
            format!("{name} cut to {length} of {bytes} bytes")
        }
        3 => {
            let from = place(random) / 4_096 * 4_096;
            let to = (from + 4_096).min(content.len());
            content[from..to].fill(0);
            fs::write(path, content).unwrap();
            format!("{name} zeroed from {from} to {to} of {bytes}")
        }
        _ => {
            let flips = 1 + random.below(8);
            let mut places = Vec::new();
            for _ in 0..flips {
                let at = place(random);
                if let Some(byte) = content.get_mut(at) {
                    *byte ^= u8::try_from(1 + random.below(255)).unwrap();
                    places.push(at);
                }
            }
            fs::write(path, content).unwrap();
            format!("{name} flipped at {places:?} of {bytes}")
        }
    }
}

/// Opens, checks and reads a damaged store. `Err` is what must not be.
async fn look(folder: &Path, content: &Content, now: chrono::DateTime<chrono::Utc>, outcomes: &mut Outcomes) -> Result<(), String> {
    let opened = SledSpace::open(folder).and_then(|space| KeyedStore::with_sizes(space, SIZES));
    let store = match opened {
        Ok(store) => store,
        Err(error) => {
            let text = error.to_string();
            if !["database", "manifest", "commits are missing", "sled", "/db/"].iter().any(|what| text.contains(what)) {
                return Err(format!("the refusal does not say what is damaged: {text}"));
            }
            outcomes.refused += 1;
            return Ok(());
        }
    };
    let maintenance = store.maintenance();
    let checked = tokio::task::spawn_blocking(move || maintenance.check(&mut |_, _| true)).await.map_err(|error| error.to_string())?;
    let told = match &checked {
        Ok(damage) => !damage.is_empty(),
        Err(StoreError::Corrupt(_) | StoreError::Unavailable(_)) => true,
    };
    match stock::read(&store, now, 100).await {
        Err(_) => outcomes.told_by_reads += 1,
        Ok(read) => {
            if let Some((name, value)) = read.iter().find(|(name, value)| content.get(*name) != Some(value)) {
                return Err(format!("{name} was read as {value}, and is {:?}; check: {checked:?}", content.get(name)));
            }
            let missing: Vec<&String> = content.keys().filter(|name| !read.contains_key(*name)).collect();
            match (missing.as_slice(), told) {
                ([], false) => outcomes.intact += 1,
                (_, true) => outcomes.told_by_check += 1,
                _ => return Err(format!("{} things are missing, and nobody says so: {missing:?}", missing.len())),
            }
        }
    }
    Ok(())
}

async fn damages(number: u64, killed: bool) {
    let seed = seed();
    let (original, content, now) = fill(seed, killed).await;
    let (mut random, mut outcomes) = (Random(seed), Outcomes::default());
    // Nothing may hang: a thread watches that each look comes to its end.
    let (looks, watched) = mpsc::channel::<String>();
    let watch = std::thread::spawn(move || {
        let mut last = String::from("the first look");
        loop {
            match watched.recv_timeout(PATIENCE) {
                Ok(next) => last = next,
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    eprintln!("SIGNALMAN_TEST_SEED={seed}: hangs: {last}");
                    std::process::abort();
                }
            }
        }
    });
    let copy = tempfile::tempdir().unwrap();
    copy_folder(original.path(), copy.path());
    let undamaged = KeyedStore::with_sizes(SledSpace::open(copy.path()).unwrap(), SIZES).unwrap();
    assert_eq!(stock::read(&undamaged, now, 100).await.unwrap(), content, "a copy without damage is whole");
    drop(undamaged);
    for number in 0..number {
        let copy = tempfile::tempdir().unwrap();
        copy_folder(original.path(), copy.path());
        let what = damage(copy.path(), &mut random);
        looks.send(what.clone()).unwrap();
        if let Err(wrong) = look(copy.path(), &content, now, &mut outcomes).await {
            panic!("SIGNALMAN_TEST_SEED={seed}, damage {number}, {what}: {wrong}");
        }
    }
    drop(looks);
    watch.join().unwrap();
    println!("{number} damages, killed before: {killed}: {outcomes:?}");
    assert!(outcomes.refused + outcomes.told_by_check + outcomes.told_by_reads > 0, "nothing was hit: {outcomes:?}");
}

#[tokio::test]
async fn damage_of_a_closed_store_is_told() {
    damages(times(20, 200), false).await;
}

#[tokio::test]
async fn damage_of_a_killed_store_is_told() {
    damages(times(20, 200), true).await;
}

/// Everything under a folder: paths and contents.
fn tree(folder: &Path) -> std::collections::BTreeMap<std::path::PathBuf, Vec<u8>> {
    let mut found = std::collections::BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            found.insert(entry.path(), Vec::new());
            found.extend(tree(&entry.path()));
        } else {
            found.insert(entry.path(), fs::read(entry.path()).unwrap());
        }
    }
    found
}

#[tokio::test]
async fn a_list_that_is_old_or_missing_costs_no_database() {
    let (original, content, now) = fill(seed(), false).await;
    let folder = original.path();
    let manifest = folder.join("manifest");
    let good = fs::read(&manifest).unwrap();
    let names = |folder: &Path| tree(&folder.join("db")).into_keys().filter(|path| path.is_dir()).collect::<Vec<_>>();
    let all = names(folder);
    // The list as it was when there was hardly anything.
    let early = tempfile::tempdir().unwrap();
    drop(KeyedStore::with_sizes(SledSpace::open(early.path()).unwrap(), SIZES).unwrap());
    let old = fs::read(early.path().join("manifest")).unwrap();
    fs::create_dir(folder.join("db/mine")).unwrap();
    for wrong in [Some(old), None] {
        match &wrong {
            Some(bytes) => fs::write(&manifest, bytes).unwrap(),
            None => fs::remove_file(&manifest).unwrap(),
        }
        for _ in 0..2 {
            let refused = KeyedStore::with_sizes(SledSpace::open(folder).unwrap(), SIZES).err();
            assert!(matches!(refused, Some(StoreError::Corrupt(_))), "{refused:?}");
            let _ = KeyedStore::examine(SledSpace::open(folder).unwrap(), &mut |_, _| true); // it may say what it likes
            assert!(all.iter().all(|path| path.is_dir()), "every database is still there");
        }
    }
    fs::write(&manifest, good).unwrap();
    let store = KeyedStore::with_sizes(SledSpace::open(folder).unwrap(), SIZES).unwrap();
    assert_eq!(stock::read(&store, now, 100).await.unwrap(), content, "with its list everything is back");
    assert!(folder.join("db/mine").is_dir(), "what is not ours is left alone");
}
