//! One process per data folder.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::StoreError;

/// Held as long as the process uses the folder.
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Makes the folder, for its owner only: what is stored is as confidential as what the events hold.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn make_folder(folder: &Path) -> std::io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)
    }

    /// Takes the folder, or names the process that has it.
    ///
    /// # Errors
    /// When another process has it, or the lock file cannot be written.
    pub fn take(folder: &Path) -> Result<Self, StoreError> {
        Self::try_take(folder)?.map_err(|holder| {
            StoreError::Unavailable(format!(
                "the data folder `{}` is in use by process {holder}; stop that process, or give this one another `data` folder",
                folder.display(),
            ))
        })
    }

    /// Takes the folder, or answers with the process that has it.
    ///
    /// # Errors
    /// When the lock file cannot be read or written.
    pub fn try_take(folder: &Path) -> Result<Result<Self, String>, StoreError> {
        let path = folder.join("lock");
        let failed = |what: &str, error: std::io::Error| StoreError::Unavailable(format!("cannot {what} `{}`: {error}", path.display()));
        Self::make_folder(folder).map_err(|error| failed("make the folder of", error))?;
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(|error| failed("open", error))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                file.read_to_string(&mut holder).map_err(|error| failed("read", error))?;
                return Ok(Err(holder.trim().to_string()));
            }
            Err(error) => return Err(failed("lock", error.into())),
        }
        file.set_len(0).and_then(|()| file.rewind()).map_err(|error| failed("write", error))?;
        writeln!(file, "{}", std::process::id()).map_err(|error| failed("write", error))?;
        Ok(Ok(Self { _file: file }))
    }
}
