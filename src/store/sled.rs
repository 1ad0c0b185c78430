//! A space on disk: each database is a small sled 0.34.
//!
//! What sled leaves open is done here (`docs/decisions/0009-chain-of-databases.md`):
//! - Its flush writes with `sync_file_range` and commits no metadata. After each flush the file is therefore synced.
//! - It never syncs the files that it keeps for pages over 128 KiB. Values are small here, so there are none; if there were, the whole
//!   disk would be synced.
//! - It panics on some kinds of damage. Every call is guarded, and a panic is an error.
//! - A crash while it is opened may leave a half-written snapshot that it takes for damage. That is removed first: it is no more than a
//!   shortcut for opening.
//! - A database that failed may never be closed, and cannot be opened a second time in one process. It is closed in the background; if
//!   that takes too long, a copy of its files takes its place.

use std::fs::{self, File};
use std::io;
use std::ops::Bound;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::StoreError;
use super::folder::{Folder, sync_folder};
use super::space::{Database, Operation, Pair, Space};
use crate::tasks;
use crate::telemetry;

/// How long to wait for databases that failed to be closed.
const PATIENCE: Duration = Duration::from_secs(2);

/// A folder of sled databases.
pub struct SledSpace {
    folder: Folder,
    closing: Arc<Closing>,
}

/// How many databases that failed are being closed.
#[derive(Default)]
struct Closing {
    count: Mutex<usize>,
    changed: Condvar,
}

impl Closing {
    fn change(&self, change: impl FnOnce(&mut usize)) {
        change(&mut self.count.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }

    /// Waits until all are closed, but not for long: one may never be.
    fn wait(&self) {
        let count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(count, PATIENCE, |count| *count > 0);
        drop(waited); // whoever opens a database sees whether it is still locked
    }
}

impl SledSpace {
    /// Opens the folder, or makes it.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Ok(Self { folder: Folder::open(path)?, closing: Arc::default() })
    }
}

impl Space for SledSpace {
    fn engine(&self) -> &'static str {
        "sled"
    }

    fn open(&self, name: &str, cache_bytes: u64) -> Result<Box<dyn Database>, StoreError> {
        let path = self.folder.database(name);
        let new = !path.exists();
        let named = |error| match error {
            StoreError::Corrupt(what) => StoreError::Corrupt(format!("database {name}: {what}")),
            other @ StoreError::Unavailable(_) => other,
        };
        let mut opened = open(&path, cache_bytes).map_err(named)?;
        if opened.is_none() {
            self.closing.wait();
            opened = open(&path, cache_bytes).map_err(named)?;
        }
        if opened.is_none() {
            take_copy(&path).map_err(|error| StoreError::Unavailable(format!("cannot copy `{}`: {error}", path.display())))?;
            opened = open(&path, cache_bytes).map_err(named)?;
        }
        let db = opened.ok_or_else(|| StoreError::Unavailable(format!("`{}` is locked", path.display())))?;
        let file = File::open(path.join("db"))
            .map_err(|error| StoreError::Unavailable(format!("cannot open the file of `{}`: {error}", path.display())))?;
        if new {
            self.folder.sync_all()?;
        }
        let unreadable = |error: io::Error| StoreError::Unavailable(format!("cannot read the folder of `{}`: {error}", path.display()));
        let large = File::open(path.join("blobs")).map_err(unreadable)?;
        let large_made = changed_at(&large).map_err(unreadable)?;
        let closing = Arc::clone(&self.closing);
        Ok(Box::new(SledDatabase { path: path.clone(), db: Some(db), closing, file, large, large_made, failed: AtomicBool::new(false) }))
    }

    fn names(&self) -> Result<Vec<String>, StoreError> {
        let mut names = self.folder.names()?;
        let halves: Vec<String> = names.iter().filter_map(|name| name.strip_suffix(".old").map(ToString::to_string)).collect();
        for name in halves {
            finish_copy(&self.folder.database(&name))
                .map_err(|error| StoreError::Unavailable(format!("cannot finish the copy of database {name}: {error}")))?;
            names = self.folder.names()?;
        }
        Ok(names)
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        self.folder.remove(name)
    }

    fn bytes(&self, name: &str) -> u64 {
        self.folder.bytes(name)
    }

    fn read_file(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.folder.read_file(name)
    }

    fn write_file(&self, name: &str, content: &[u8]) -> Result<(), StoreError> {
        self.folder.write_file(name, content)
    }

    fn note_durable(&self, sequence: u64) {
        self.folder.note_durable(sequence);
    }

    fn durable(&self) -> Result<u64, StoreError> {
        self.folder.durable()
    }

    fn probe(&self) -> Result<(), StoreError> {
        self.folder.probe()
    }

    fn free_bytes(&self) -> Option<u64> {
        self.folder.free_bytes()
    }
}

/// Opens a database; nothing if it is open already.
///
/// # Errors
/// When it cannot be opened, or is damaged.
pub(super) fn open(path: &Path, cache_bytes: u64) -> Result<Option<::sled::Db>, StoreError> {
    remove_half_snapshots(path).map_err(|error| StoreError::Unavailable(format!("cannot read `{}`: {error}", path.display())))?;
    let config = ::sled::Config::new().path(path).cache_capacity(cache_bytes).mode(::sled::Mode::HighThroughput).flush_every_ms(None);
    match telemetry::without_panic(|| config.open()) {
        Ok(Ok(db)) => Ok(Some(db)),
        Ok(Err(::sled::Error::Io(error))) if error.to_string().contains("could not acquire lock") => Ok(None),
        Ok(Err(error)) => Err(failure(&error)),
        Err(panic) => Err(StoreError::Corrupt(format!("sled panicked while opening it: {panic}"))),
    }
}

fn remove_half_snapshots(path: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_string_lossy().ends_with(".generating") {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Puts a copy of a database's files into its place.
fn take_copy(path: &Path) -> io::Result<()> {
    let (new, old) = (path.with_extension("new"), path.with_extension("old"));
    for left in [&new, &old] {
        match fs::remove_dir_all(left) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    if let Err(error) = copy_folder(path, &new) {
        let _ = fs::remove_dir_all(&new); // it must not take the room that is needed
        return Err(error);
    }
    let parent = path.parent().unwrap_or(path);
    fs::rename(path, &old)?;
    sync_folder(parent)?;
    fs::rename(&new, path)?;
    sync_folder(parent)?;
    fs::remove_dir_all(&old)
}

/// A crash between the two renames of [`take_copy`] leaves the copy beside the place that it was made for.
fn finish_copy(path: &Path) -> io::Result<()> {
    let (new, old) = (path.with_extension("new"), path.with_extension("old"));
    if !path.exists() && new.exists() && old.exists() {
        fs::rename(&new, path)?;
        sync_folder(path.parent().unwrap_or(path))?;
        fs::remove_dir_all(&old)?;
    }
    Ok(())
}

fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
            File::open(&target)?.sync_all()?;
        }
    }
    sync_folder(to)
}

/// When a name in a folder changed last.
fn changed_at(folder: &File) -> io::Result<(i64, i64)> {
    let meta = folder.metadata()?;
    Ok((meta.mtime(), meta.mtime_nsec()))
}

struct SledDatabase {
    path: PathBuf,
    /// Always there until it is dropped.
    db: Option<::sled::Db>,
    closing: Arc<Closing>,
    file: File,
    /// Where sled keeps pages that are too large for its log; and when that folder was made.
    large: File,
    large_made: (i64, i64),
    failed: AtomicBool,
}

impl SledDatabase {
    /// Calls sled; a panic is damage.
    fn guarded<T>(&self, work: impl FnOnce(&::sled::Db) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let db = self.db.as_ref().expect("it is taken only when this is dropped");
        match telemetry::without_panic(|| work(db)) {
            Ok(done) => done,
            Err(panic) => {
                self.failed.store(true, Ordering::Release);
                Err(StoreError::Corrupt(format!("sled panicked: {panic}")))
            }
        }
    }

    fn noted<T>(&self, done: Result<T, StoreError>) -> Result<T, StoreError> {
        done.map_err(|error| {
            self.failed.store(true, Ordering::Release);
            match error {
                StoreError::Unavailable(what) => StoreError::Unavailable(format!("{what} (`{}`)", self.path.display())),
                damaged @ StoreError::Corrupt(_) => damaged,
            }
        })
    }
}

impl Drop for SledDatabase {
    fn drop(&mut self) {
        let Some(db) = self.db.take() else { return };
        let close = move || {
            if let Err(panic) = telemetry::without_panic(|| drop(db)) {
                tracing::warn!("sled panicked while a database was closed: {panic}");
            }
        };
        if !self.failed.load(Ordering::Acquire) {
            return close();
        }
        // Closing one that failed may wait for ever. What was acknowledged is on disk, so nobody waits for it for long.
        self.closing.change(|count| *count += 1);
        let closing = Arc::clone(&self.closing);
        let work = move || {
            close();
            closing.change(|count| *count -= 1);
        };
        if let Err(error) = tasks::spawn_thread("sled-closing", 1 << 20, work) {
            tracing::warn!("a database that failed stays open: {error}");
        }
    }
}

fn failure(error: &::sled::Error) -> StoreError {
    match error {
        ::sled::Error::Corruption { .. } => StoreError::Corrupt(format!("sled: {error}")),
        // sled keeps no more than the kind of an error of the disk.
        ::sled::Error::Io(error) => StoreError::Unavailable(format!("the disk says: {}{}", error.kind(), super::folder::advice(error))),
        error => StoreError::Unavailable(format!("sled: {error}")),
    }
}

impl Database for SledDatabase {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.guarded(|db| Ok(db.get(key).map_err(|error| failure(&error))?.map(|value| value.to_vec())))
    }

    fn scan(&self, from: Bound<&[u8]>, to: Bound<&[u8]>, descending: bool, limit: usize) -> Result<Vec<Pair>, StoreError> {
        let owned = |pair: Result<(::sled::IVec, ::sled::IVec), ::sled::Error>| {
            pair.map(|(key, value)| (key.to_vec(), value.to_vec())).map_err(|error| failure(&error))
        };
        self.guarded(|db| {
            let range = db.range::<&[u8], _>((from, to));
            if descending { range.rev().take(limit).map(owned).collect() } else { range.take(limit).map(owned).collect() }
        })
    }

    fn write(&self, operations: Vec<Operation>) -> Result<(), StoreError> {
        let mut batch = ::sled::Batch::default();
        for operation in operations {
            match operation {
                Operation::Put(key, value) => batch.insert(key, value),
                Operation::Delete(key) => batch.remove(key),
            }
        }
        self.noted(self.guarded(|db| db.apply_batch(batch).map_err(|error| failure(&error))))
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.noted(self.guarded(|db| {
            db.flush().map_err(|error| failure(&error))?;
            let unsynced = |error: io::Error| StoreError::Unavailable(format!("the disk could not be synced: {error}"));
            self.file.sync_data().map_err(unsynced)?;
            if changed_at(&self.large).map_err(unsynced)? != self.large_made {
                rustix::fs::syncfs(&self.file).map_err(|error| unsynced(error.into()))?;
            }
            Ok(())
        }))
    }
}
