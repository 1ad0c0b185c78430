//! The file that holds the site's keys: one a line, the one that seals first. Replaced as a whole, so that there is always one that is
//! complete.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::model::seal::{Keyring, SealKey};

/// The file's name in the data folder.
pub const KEY_FILE: &str = "secret.key";

/// Reads the keys; nothing if there is no file.
pub(super) fn read(path: &Path) -> io::Result<Option<Keyring>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let keys = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).map(SealKey::parse);
    let mut keys = keys.collect::<Result<Vec<_>, _>>().map_err(io::Error::other)?.into_iter();
    let first = keys.next().ok_or_else(|| io::Error::other("it holds no key"))?;
    Ok(Some(Keyring::new(first, keys.collect())))
}

/// Writes the keys; durable on return, and the file from before is there until then.
pub(super) fn write(path: &Path, keyring: &Keyring) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let beside = path.with_extension("key.new");
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    writeln!(
        file,
        "# The first key seals; the others open what was sealed before. Without them no secret can be read. Keep a copy elsewhere."
    )?;
    for key in keyring.keys() {
        writeln!(file, "{}", key.written())?;
    }
    file.sync_all()?;
    fs::rename(&beside, path)?;
    fs::File::open(folder)?.sync_all()
}
