//! A key space on disk: sled 0.34, made durable.
//!
//! sled's own flush writes with `sync_file_range` and never syncs the files of large values, so a power cut loses what it
//! acknowledged. After each flush the whole filesystem is therefore synced (`docs/decisions/0002-sled-and-syncfs.md`).

use std::fs::File;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use super::StoreError;
use super::keyed::{KeyedStore, Keyspace, Operation, Pair};

/// Memory that sled may use for its cache of pages.
const CACHE_BYTES: u64 = 32 << 20;

/// A key space on disk.
pub struct SledSpace {
    db: ::sled::Db,
    /// Any file of the filesystem; `syncfs` needs one.
    folder: File,
}

/// A store on disk.
pub type SledStore = KeyedStore<SledSpace>;

impl SledSpace {
    /// Opens the folder, or makes it.
    ///
    /// # Errors
    /// When it cannot be read or written, or is damaged; says what to do.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        std::fs::create_dir_all(path)
            .map_err(|error| StoreError::Unavailable(format!("cannot make the folder `{}`: {error}", path.display())))?;
        let config = ::sled::Config::new().path(path).cache_capacity(CACHE_BYTES).mode(::sled::Mode::HighThroughput).flush_every_ms(None);
        // sled panics on some kinds of damage instead of returning an error.
        let opened = catch_unwind(AssertUnwindSafe(|| config.open())).map_err(|_| damaged(path, "sled panicked while reading it"))?;
        let db = opened.map_err(|error| match error {
            ::sled::Error::Corruption { .. } => damaged(path, &error.to_string()),
            error => StoreError::Unavailable(format!("cannot open the store in `{}`: {error}", path.display())),
        })?;
        let folder =
            File::open(path).map_err(|error| StoreError::Unavailable(format!("cannot open the folder `{}`: {error}", path.display())))?;
        Ok(Self { db, folder })
    }
}

fn damaged(path: &Path, what: &str) -> StoreError {
    StoreError::Corrupt(format!("{what}; move the folder `{}` aside, then restore a copy of it or start with an empty one", path.display()))
}

#[allow(clippy::needless_pass_by_value, reason = "used as `map_err(unavailable)`")]
fn unavailable(error: ::sled::Error) -> StoreError {
    match error {
        ::sled::Error::Corruption { .. } => StoreError::Corrupt(error.to_string()),
        error => StoreError::Unavailable(error.to_string()),
    }
}

impl Keyspace for SledSpace {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.db.get(key).map_err(unavailable)?.map(|value| value.to_vec()))
    }

    fn scan(&self, from: Bound<&[u8]>, to: Bound<&[u8]>, descending: bool, limit: usize) -> Result<Vec<Pair>, StoreError> {
        let owned = |pair: Result<(::sled::IVec, ::sled::IVec), ::sled::Error>| {
            pair.map(|(key, value)| (key.to_vec(), value.to_vec())).map_err(unavailable)
        };
        let range = self.db.range::<&[u8], _>((from, to));
        if descending { range.rev().take(limit).map(owned).collect() } else { range.take(limit).map(owned).collect() }
    }

    fn write(&self, operations: Vec<Operation>) -> Result<(), StoreError> {
        let mut batch = ::sled::Batch::default();
        for operation in operations {
            match operation {
                Operation::Put(key, value) => batch.insert(key, value),
                Operation::Delete(key) => batch.remove(key),
            }
        }
        self.db.apply_batch(batch).map_err(unavailable)
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.db.flush().map_err(unavailable)?;
        rustix::fs::syncfs(&self.folder).map_err(|error| StoreError::Unavailable(format!("the disk could not be synced: {error}")))
    }
}
