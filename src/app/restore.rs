//! Puts a restored store into the place of the one that is there.
//!
//! The new one is filled in `store.restoring`. When it is complete and durable that becomes `store.restored`; then the old one steps aside
//! to `store.replaced-…`, and the new one into its place. A crash before the old one has stepped aside leaves the old one, and after that
//! [`settle`], at the next start, ends what was begun.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::STORE_FOLDER;
use crate::store::folder::{advice, sync_folder};
use crate::store::keyed::KeyedStore;
use crate::store::sled::SledSpace;
use crate::store::space::Pair;
use crate::store::{Store, StoreError};

/// Where a store is filled.
const FILLING: &str = "store.restoring";

/// A store that is complete, and not yet in its place.
const COMPLETE: &str = "store.restored";

/// What stepped aside, followed by a number.
const REPLACED: &str = "store.replaced-";

/// What is left of a store of the first format while it is carried over.
const CARRIED_OVER: &str = "store.format-1";

/// Ends, or takes back, a restore that was cut short. The caller holds the lock of the data folder.
///
/// # Errors
/// When the data folder cannot be read or written.
pub fn settle(data: &Path) -> Result<(), StoreError> {
    let failed = |error: io::Error| failed("settle a restore in", data, &error);
    remove(&data.join(FILLING)).map_err(failed)?;
    let (complete, store) = (data.join(COMPLETE), data.join(STORE_FOLDER));
    if !complete.exists() {
        return Ok(());
    }
    if store.exists() {
        tracing::warn!("a restore was cut short; the store is the one from before");
        return remove(&complete).map_err(failed);
    }
    tracing::warn!("a restore was cut short when all was ready; the store is the restored one");
    fs::rename(&complete, &store).and_then(|()| sync_folder(data)).map_err(failed)
}

/// Whether there is a store, of whatever format.
#[must_use]
pub fn is_there(data: &Path) -> bool {
    data.join(STORE_FOLDER).exists() || data.join(CARRIED_OVER).exists()
}

/// Whether there is a store already that would be replaced.
///
/// # Errors
/// When the data folder cannot be read, or a store of an older format is half carried over.
pub fn is_taken(data: &Path) -> Result<bool, StoreError> {
    if data.join(CARRIED_OVER).exists() {
        return Err(StoreError::Unavailable(format!(
            "`{}` shows that a store of an older format has not been carried over to its end; let `signalman store stat` do that first",
            data.join(CARRIED_OVER).display()
        )));
    }
    match fs::read_dir(data.join(STORE_FOLDER)) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(failed("read the store in", data, &error)),
    }
}

/// Fills a new store with records, up to a commit, and puts it into place. Answers where the one from before is now, if there was one;
/// `number` tells it from others.
///
/// # Errors
/// When a record cannot be had or the store cannot be written; then the one from before is in its place.
pub fn replace(
    data: &Path,
    records: impl Iterator<Item = Result<Pair, StoreError>>,
    sequence: u64,
    mut number: i64,
) -> Result<Option<PathBuf>, StoreError> {
    let (filling, complete, store) = (data.join(FILLING), data.join(COMPLETE), data.join(STORE_FOLDER));
    if let Err(error) = fill(&filling, records, sequence) {
        let _ = remove(&filling); // the next start removes it as well
        return Err(error);
    }
    let failed = |error: io::Error| failed("put the restored store into", data, &error);
    File::open(data).and_then(|folder| Ok(rustix::fs::syncfs(folder)?)).map_err(failed)?;
    fs::rename(&filling, &complete).and_then(|()| sync_folder(data)).map_err(failed)?;
    let mut replaced = None;
    if is_taken(data)? {
        let mut aside = data.join(format!("{REPLACED}{number}"));
        while aside.exists() {
            number += 1;
            aside = data.join(format!("{REPLACED}{number}"));
        }
        fs::rename(&store, &aside).map_err(failed)?;
        replaced = Some(aside);
    }
    fs::rename(&complete, &store).and_then(|()| sync_folder(data)).map_err(failed)?;
    Ok(replaced)
}

fn fill(folder: &Path, records: impl Iterator<Item = Result<Pair, StoreError>>, sequence: u64) -> Result<(), StoreError> {
    KeyedStore::fill(SledSpace::open(folder)?, records)?;
    let found = KeyedStore::new(SledSpace::open(folder)?)?.maintenance().stat()?.sequence;
    if found != sequence {
        return Err(StoreError::Corrupt(format!("the backup says it ends with commit {sequence}, and its records with commit {found}")));
    }
    Ok(())
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn failed(what: &str, data: &Path, error: &io::Error) -> StoreError {
    StoreError::Unavailable(format!("cannot {what} `{}`: {error}{}", data.display(), advice(error)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails at once")]
mod tests {
    use super::*;

    fn names(data: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(data).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_was_cut_short_is_settled() {
        let cases: &[(&[&str], &[&str], &str)] = &[
            (&["store", FILLING], &["store"], "store"),
            (&[FILLING], &[], ""),
            (&["store", COMPLETE], &["store"], "store"),
            (&[COMPLETE], &["store"], COMPLETE),
            (&[COMPLETE, "store.replaced-7"], &["store", "store.replaced-7"], COMPLETE),
        ];
        for (before, after, whose) in cases {
            let data = tempfile::tempdir().unwrap();
            for name in *before {
                fs::create_dir(data.path().join(name)).unwrap();
                fs::write(data.path().join(name).join("name"), name).unwrap();
            }
            settle(data.path()).unwrap();
            assert_eq!(names(data.path()), *after, "{before:?}");
            assert_eq!(fs::read_to_string(data.path().join("store/name")).unwrap_or_default(), *whose, "{before:?}");
            settle(data.path()).unwrap();
            assert_eq!(names(data.path()), *after, "{before:?}, again");
        }
    }
}
