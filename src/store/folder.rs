//! The small files of a store on disk, and what every engine on disk needs of its folder.
//!
//! ```text
//! store/manifest        the list of databases
//! store/durable         the number of a commit that is known to be durable
//! store/db/00000002/    one database
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::StoreError;
use super::lock::FolderLock;

/// What a probe writes.
const PROBE_BYTES: usize = 256 << 10;

const DURABLE_FILE: &str = "durable";

/// A folder of databases.
pub struct Folder {
    path: PathBuf,
    durable: File,
}

impl Folder {
    /// Opens it, or makes it, for its owner only.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let failed = |what: &str, path: &Path, error: &io::Error| {
            StoreError::Unavailable(format!("cannot {what} `{}`: {error}{}", path.display(), advice(error)))
        };
        let databases = path.join("db");
        FolderLock::make_folder(&databases).map_err(|error| failed("make the folder", &databases, &error))?;
        let file = path.join(DURABLE_FILE);
        let durable = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&file);
        let durable = durable.map_err(|error| failed("write", &file, &error))?;
        Ok(Self { path: path.to_path_buf(), durable })
    }

    /// The folder of a database.
    #[must_use]
    pub fn database(&self, name: &str) -> PathBuf {
        self.path.join("db").join(name)
    }

    /// Makes everything in it durable, also the names of its files.
    ///
    /// # Errors
    /// When that cannot be promised.
    pub fn sync_all(&self) -> Result<(), StoreError> {
        rustix::fs::syncfs(&self.durable).map_err(|error| self.failed("sync the disk of", &error.into()))
    }

    fn failed(&self, what: &str, error: &io::Error) -> StoreError {
        StoreError::Unavailable(format!("cannot {what} `{}`: {error}{}", self.path.display(), advice(error)))
    }

    /// See [`super::space::Space::names`].
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn names(&self) -> Result<Vec<String>, StoreError> {
        let read = || -> io::Result<Vec<String>> {
            let entries = fs::read_dir(self.path.join("db"))?;
            entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
        };
        read().map_err(|error| self.failed("read", &error))
    }

    /// See [`super::space::Space::remove`].
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove(&self, name: &str) -> Result<(), StoreError> {
        let path = self.database(name);
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.failed("remove a database of", &error)),
            _ => Ok(()),
        }
    }

    /// See [`super::space::Space::bytes`].
    #[must_use]
    pub fn bytes(&self, name: &str) -> u64 {
        disk_bytes(&self.database(name))
    }

    /// See [`super::space::Space::read_file`].
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn read_file(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        match fs::read(self.path.join(name)) {
            Ok(content) => Ok(Some(content)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.failed("read a file of", &error)),
        }
    }

    /// See [`super::space::Space::write_file`].
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_file(&self, name: &str, content: &[u8]) -> Result<(), StoreError> {
        replace_file(&self.path.join(name), content).map_err(|error| self.failed("write a file of", &error))
    }

    /// See [`super::space::Space::note_durable`]. A note that cannot be written stays an older one, which is allowed.
    pub fn note_durable(&self, sequence: u64) {
        let mut note = sequence.to_be_bytes().to_vec();
        note.extend_from_slice(&crc32fast::hash(&sequence.to_be_bytes()).to_be_bytes());
        if let Err(error) = self.durable.write_all_at(&note, 0) {
            tracing::debug!("the note of what is durable stays as it was: {error}");
        }
    }

    /// See [`super::space::Space::durable`]. A note that is damaged says nothing.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn durable(&self) -> Result<u64, StoreError> {
        let mut note = [0; 12];
        match self.durable.read_exact_at(&mut note, 0) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
            other => other.map_err(|error| self.failed("read a file of", &error))?,
        }
        let (number, crc) = note.split_at(8);
        if crc32fast::hash(number).to_be_bytes() != crc {
            tracing::warn!("`{}` is damaged; it is written anew", self.path.join(DURABLE_FILE).display());
            return Ok(0);
        }
        Ok(u64::from_be_bytes(number.try_into().expect("eight of twelve bytes")))
    }

    /// See [`super::space::Space::probe`].
    ///
    /// # Errors
    /// When nothing can be written.
    pub fn probe(&self) -> Result<(), StoreError> {
        let path = self.path.join("probe");
        let written = File::create(&path).and_then(|mut file| {
            file.write_all(&vec![0x5a; PROBE_BYTES])?;
            file.sync_all()
        });
        let removed = fs::remove_file(&path);
        written.and(removed).map_err(|error| self.failed("write to", &error))
    }

    /// See [`super::space::Space::free_bytes`].
    #[must_use]
    pub fn free_bytes(&self) -> Option<u64> {
        let disk = rustix::fs::fstatvfs(&self.durable).ok()?;
        Some(disk.f_bavail * disk.f_frsize)
    }
}

/// What a person can do about an error of the disk.
#[must_use]
pub fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "; make room there",
        io::ErrorKind::ReadOnlyFilesystem => "; mount that disk for writing",
        io::ErrorKind::PermissionDenied => "; give the user that runs Signalman the right to write there",
        _ => "",
    }
}

/// Replaces a file as a whole, durably.
///
/// # Errors
/// When it cannot be written.
pub fn replace_file(path: &Path, content: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    sync_folder(path.parent().unwrap_or(Path::new(".")))
}

/// Makes the names in a folder durable.
///
/// # Errors
/// When that cannot be promised.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// What a folder takes on disk.
fn disk_bytes(path: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(path) else { return 0 };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => disk_bytes(&entry.path()),
        Ok(meta) => meta.blocks() * 512,
        Err(_) => 0, // it has just been removed
    });
    sizes.sum()
}
