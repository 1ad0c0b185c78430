//! Folders of older formats.
//!
//! Format 1 was one sled database for everything, in `store/` itself. Its records are those of today, but for the keys of sightings.

use std::path::{Path, PathBuf};

use super::StoreError;
use super::folder::sync_folder;
use super::keyed::KeyedStore;
use super::lanes::SHORT_MEMORY;
use super::record::{self, Kind};
use super::sled::{self, SledSpace};
use super::space::Pair;

/// Opens the store in a folder; one of an older format is carried over first. What is half done when that is cut short is begun again.
///
/// # Errors
/// When it cannot be read or written, is damaged, or is of a newer format.
pub fn open(path: &Path) -> Result<KeyedStore, StoreError> {
    let (new, old) = (with_suffix(path, "new"), with_suffix(path, "format-1"));
    let failed = |error: std::io::Error| StoreError::Unavailable(format!("cannot carry over `{}`: {error}", path.display()));
    if is_first_format(path) {
        tracing::info!("the store in `{}` has format 1 and is carried over to format {}", path.display(), super::manifest::FORMAT);
        if new.exists() {
            std::fs::remove_dir_all(&new).map_err(failed)?;
        }
        let count = from_first_format(path, &new)?;
        std::fs::rename(path, &old).map_err(failed)?;
        sync_folder(path.parent().unwrap_or(path)).map_err(failed)?;
        std::fs::rename(&new, path).map_err(failed)?;
        tracing::info!("{count} records carried over");
    } else if !path.exists() && new.exists() && old.exists() {
        std::fs::rename(&new, path).map_err(failed)?; // cut short between the two renames
    }
    let store = KeyedStore::new(SledSpace::open(path)?)?;
    if old.exists() {
        sync_folder(path.parent().unwrap_or(path)).map_err(failed)?;
        std::fs::remove_dir_all(&old).map_err(failed)?;
    }
    Ok(store)
}

/// Whether a folder holds a store of format 1.
#[must_use]
pub fn is_first_format(path: &Path) -> bool {
    path.join("conf").is_file() && !path.join(super::manifest::FILE).exists()
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    PathBuf::from(name)
}

fn from_first_format(from: &Path, to: &Path) -> Result<u64, StoreError> {
    let db =
        sled::open(from, 16 << 20)?.ok_or_else(|| StoreError::Unavailable(format!("`{}` is open in another program", from.display())))?;
    let mut count = 0;
    let pairs = db.iter().map(|pair| {
        let (key, value) = pair.map_err(|error| StoreError::Corrupt(format!("the store of format 1: {error}")))?;
        count += 1;
        Ok(of_first_format((key.to_vec(), value.to_vec())))
    });
    KeyedStore::fill(SledSpace::open(to)?, pairs)?;
    Ok(count)
}

/// A record of format 1 as it is now.
#[must_use]
pub fn of_first_format((mut key, value): Pair) -> Pair {
    if Kind::of(&key) == Some(Kind::Sighting) {
        key.insert(1, SHORT_MEMORY);
    }
    if Kind::of(&key) == Some(Kind::Events)
        && let Ok(events) = record::decode::<Vec<serde::de::IgnoredAny>>(Kind::Events, &value)
    {
        let count = u32::try_from(events.len()).unwrap_or(u32::MAX);
        let counted = [&record::envelope(Kind::Events, count)[..], &value[record::ENVELOPE_BYTES..]].concat();
        return (key, counted);
    }
    (key, value)
}
