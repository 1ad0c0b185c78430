//! Power cuts: a file system on a loop device is shut down at random moments without writing its journal, while a store writes to it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::json;
use signalman::model::execution::{Change, Execution};
use signalman::model::hash::Revision;
use signalman::model::ids::{EventId, ExecutionId, IdSource};
use signalman::store::keyed::KeyedStore;
use signalman::store::layers::Sizes;
use signalman::store::sled::SledSpace;
use signalman::store::{Batch, CommitError, Keep, KeyChange, Store};

use crate::harness::{PATIENCE, Random, seed, times};
use crate::image::Image;
use crate::stock;

/// Where the writing process finds the mounted file system; only the parent sets it.
const WRITES_TO: &str = "SIGNALMAN_TEST_POWER_FOLDER";

const SIZES: Sizes = Sizes { recent: 60_000, lane: 40_000 };

fn keep() -> Keep {
    // By number, so that databases expire all the time; 400 of each is more than one round writes between two looks.
    let limit = stock::limit(1_000_000, Some(400));
    Keep { events: limit, executions: limit, outputs: limit }
}

/// The writing process. It is this test program once more, told by the environment; otherwise it has nothing to do.
#[tokio::test]
async fn writer_under_power_cuts() {
    let Ok(folder) = std::env::var(WRITES_TO) else { return };
    let folder = Path::new(&folder);
    let seed = seed();
    let mut random = Random(seed);
    let store = KeyedStore::with_sizes(SledSpace::open(&folder.join("store")).unwrap(), SIZES).unwrap();
    // Ids go on where the last round ended: its rounds count the hours.
    let ids = IdSource::seeded(seed);
    let mut now = stock::start() + stock::seconds(i64::try_from(seed % 1_000_000).unwrap() * 3_600);
    let mut keys: Vec<String> = Vec::new();
    let mut requested: Option<Execution> = None;
    for number in 0_u64.. {
        now += stock::seconds(1);
        let mut batch = Batch::default();
        let mut lines = Vec::new();
        let bytes = if random.below(8) == 0 { 200_000 } else { 300 };
        let event = stock::event(&ids, now, 1, stock::noise(&mut random, bytes));
        lines.push(format!("event {} {}", event.event.id, crc(event.event.payload.text())));
        batch.events.push(event);
        // Some of what the commit before asked for starts, so that both are written on.
        if let Some(mut execution) = requested.take().filter(|_| random.below(2) == 0) {
            execution.change(Change::Start { at: now, action_revision: Revision("r".into()) }).unwrap();
            batch.states.push((execution.id, execution.state.clone()));
            lines.push(format!("execution {} {}", execution.id, execution.state.version));
        }
        let execution = stock::execution(&ids, now);
        batch.requested.push(std::sync::Arc::new(execution.clone()));
        lines.push(format!("execution {} {}", execution.id, execution.state.version));
        requested = Some(execution);
        // Some rounds delete more than others.
        let deletes = seed.is_multiple_of(3);
        for n in 0..random.below(4) {
            let name = format!("k{seed}-{number}-{n}");
            batch.keys.push(KeyChange::plain("p", &name, Some(json!(number))));
            lines.push(format!("set {name} {number}"));
            keys.push(name);
        }
        for _ in 0..random.below(if deletes { 6 } else { 3 }) {
            if keys.len() > 5 {
                let name = keys.swap_remove(usize::try_from(random.below(keys.len() as u64 - 4)).unwrap());
                batch.keys.push(KeyChange::plain("p", &name, None));
                lines.push(format!("delete {name}"));
            }
        }
        println!("\ntry {}", lines.join(";"));
        let sure = match store.commit(&batch).await {
            Err(error @ CommitError::Conflict { .. }) => panic!("{error}"),
            done => done.is_ok(),
        };
        // Only if this succeeds had the cut not begun when the commit was acknowledged.
        let probed = File::create(folder.join("probe")).and_then(|mut file| {
            file.write_all(&number.to_be_bytes())?;
            file.sync_all()
        });
        if !sure || probed.is_err() {
            return;
        }
        println!("\nack {}", lines.join(";"));
        if number % 5 == 4 {
            for _ in 0..3 {
                match store.tend(now, &keep()).await {
                    Ok(tended) if tended.more => {}
                    Ok(_) => break,
                    Err(_) => return,
                }
            }
        }
    }
}

fn crc(text: &str) -> u32 {
    crc32fast::hash(text.as_bytes())
}

/// What was acknowledged, over all rounds.
#[derive(Default)]
struct Acknowledged {
    events: BTreeMap<EventId, u32>,
    executions: BTreeMap<ExecutionId, u32>,
    keys: BTreeMap<String, Option<u64>>,
    records: u64,
    /// The commit that was asked for last, unless it was acknowledged: whether it was made is not known.
    trying: Option<String>,
    /// How many of those were found made.
    made: u64,
}

impl Acknowledged {
    fn note(&mut self, line: &str) {
        let Some(line) = line.strip_prefix("ack ") else {
            self.trying = line.strip_prefix("try ").map(str::to_string);
            return;
        };
        self.trying = None;
        for part in line.split(';') {
            let words: Vec<&str> = part.split(' ').collect();
            match words.as_slice() {
                ["event", id, crc] => drop(self.events.insert(id.parse().unwrap(), crc.parse().unwrap())),
                ["execution", id, version] => drop(self.executions.insert(id.parse().unwrap(), version.parse().unwrap())),
                ["set", name, value] => drop(self.keys.insert((*name).into(), Some(value.parse().unwrap()))),
                ["delete", name] => drop(self.keys.insert((*name).into(), None)),
                other => panic!("the writer said {other:?}"),
            }
            self.records += 1;
        }
    }

    /// Compares with what is there.
    async fn compare(&mut self, folder: &Path) -> Vec<String> {
        let mut lost = Vec::new();
        let store = match SledSpace::open(folder).and_then(|space| KeyedStore::with_sizes(space, SIZES)) {
            Ok(store) => store,
            Err(error) => return vec![format!("the store does not open: {error}")],
        };
        if let Some(trying) = self.trying.take() {
            // Its event tells; then all of it must be there.
            let id = trying.split(' ').nth(1).unwrap().parse().unwrap();
            if matches!(store.event(id).await, Ok(Some(_))) {
                self.note(&format!("ack {trying}"));
                self.made += 1;
            }
        }
        // At least so many of the newest are kept.
        for (id, crc_then) in self.events.iter().rev().take(400) {
            match store.event(*id).await {
                Ok(Some(event)) if crc(event.event.payload.text()) == *crc_then => {}
                other => lost.push(format!("event {id}: {:?}", other.map(|event| event.is_some()))),
            }
        }
        for (id, version) in &self.executions {
            match store.execution(*id).await {
                Ok(Some(execution)) if execution.state.version == *version => {}
                other => lost.push(format!("execution {id}: {other:?}")),
            }
        }
        let open = store.open_executions().await;
        match open {
            Ok(open) if open.len() == self.executions.len() => {}
            other => lost.push(format!("{:?} open executions instead of {}", other.map(|open| open.len()), self.executions.len())),
        }
        for (name, value) in &self.keys {
            match store.key("p", name).await {
                Ok(found) if found.as_ref().map(|entry| entry.value.clone()) == value.map(|value| json!(value)) => {}
                other => lost.push(format!("key {name}, {value:?}: {other:?}")),
            }
        }
        let maintenance = store.maintenance();
        match tokio::task::spawn_blocking(move || maintenance.check(&mut |_, _| true)).await.unwrap() {
            Ok(damage) if damage.is_empty() => {}
            other => lost.push(format!("check: {other:?}")),
        }
        lost
    }
}

#[tokio::test]
async fn power_cuts_lose_nothing_acknowledged() {
    let seed = seed();
    let image = match Image::new(400).and_then(|image| image.can_be_cut().map(|()| image)) {
        Ok(image) => image,
        Err(why) => {
            println!("SKIPPED: no file system can be made and cut here: {why}");
            return;
        }
    };
    let (mut random, mut acknowledged, mut cuts) = (Random(seed), Acknowledged::default(), 0);
    for round in 0..times(6, 60) {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "power::writer_under_power_cuts", "--nocapture"])
            .env(WRITES_TO, image.path("mounted"))
            .env("SIGNALMAN_TEST_SEED", (seed / 1_000_000 * 1_000_000 + round).to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (lines, said) = mpsc::channel();
        let output = child.stdout.take().unwrap();
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if line.starts_with("ack ") || line.starts_with("try ") {
                    let _ = lines.send(line);
                }
            }
        });
        // After some acknowledgements, and a moment that is anywhere between two.
        let before = 3 + random.below(60);
        let mut got = 0;
        while got < before {
            match said.recv_timeout(PATIENCE) {
                Ok(line) => {
                    got += u64::from(line.starts_with("ack "));
                    acknowledged.note(&line);
                }
                Err(error) => {
                    let _ = child.kill();
                    let output = child.wait_with_output().unwrap();
                    panic!("round {round}: the writer wrote nothing: {error}; {}", String::from_utf8_lossy(&output.stderr));
                }
            }
        }
        let moment = Duration::from_micros(random.below(20_000));
        let _ = said.recv_timeout(moment).map(|line| acknowledged.note(&line));
        image.cut().unwrap();
        cuts += 1;
        let _ = child.kill();
        child.wait().unwrap();
        reader.join().unwrap();
        while let Ok(line) = said.try_recv() {
            acknowledged.note(&line);
        }
        image.unmount().unwrap();
        image.mount().unwrap();
        let lost = acknowledged.compare(&Path::new(&image.path("mounted")).join("store")).await;
        assert!(lost.is_empty(), "SIGNALMAN_TEST_SEED={seed}, cut {cuts}: {} lost: {}", lost.len(), lost[..lost.len().min(10)].join("\n"));
    }
    let Acknowledged { records, made, .. } = acknowledged;
    println!("{cuts} power cuts: {records} records acknowledged, lost 0; {made} commits without an answer were made, whole");
}
