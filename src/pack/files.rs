//! The files of a site's folder: what there is, and its text.

use std::path::{Path, PathBuf};

use crate::document::fault::{Fault, SourceFile};
use crate::document::fields::Faults;
use crate::document::node::{self, Node};
use crate::model::place::Place;

/// How deep folders below that of a kind may nest.
const MAX_FOLDER_DEPTH: usize = 8;

/// A fault at a place in a file that was read before.
pub(super) fn fault_at(root: &Path, place: &Place, message: String) -> Fault {
    let text = std::fs::read_to_string(root.join(&*place.file)).unwrap_or_default();
    SourceFile::new(place.file.clone(), text).fault(place.line, place.column, message)
}

/// Reads and parses a YAML file of a site; what is wrong goes to `faults`.
pub fn open(root: &Path, file: &Path, faults: &mut Faults) -> Option<(SourceFile, Node)> {
    let path = relative(root, file);
    let text = match read_text(root, file) {
        Ok(text) => text,
        Err(message) => {
            faults.push(SourceFile::new(path, "").whole(message));
            return None;
        }
    };
    let source = SourceFile::new(path, text);
    match node::parse(&source) {
        Ok(node) => Some((source, node)),
        Err(fault) => {
            faults.push(fault);
            None
        }
    }
}

/// The text of a file inside the site. A link that leads out of the site is refused.
pub(super) fn read_text(root: &Path, file: &Path) -> Result<String, String> {
    let inside = |path: &Path| Some(path.canonicalize().ok()?.starts_with(root.canonicalize().ok()?));
    match std::fs::metadata(file) {
        Err(error) => return Err(format!("cannot be read: {error}")),
        Ok(metadata) if metadata.len() > node::MAX_BYTES => return Err(format!("is larger than {} bytes", node::MAX_BYTES)),
        Ok(_) if inside(file) != Some(true) => return Err("leads out of the site folder".into()),
        Ok(_) => {}
    }
    let bytes = std::fs::read(file).map_err(|error| format!("cannot be read: {error}"))?;
    String::from_utf8(bytes).map_err(|error| format!("is not UTF-8 at byte {}", error.utf8_error().valid_up_to()))
}

/// A path as people write it: from the site folder on.
pub(super) fn relative(root: &Path, file: &Path) -> String {
    file.strip_prefix(root).unwrap_or(file).display().to_string()
}

/// The name of a file without its ending.
pub(super) fn stem(file: &Path) -> String {
    file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The last part of a path.
#[must_use]
pub fn file_name(folder: &Path) -> String {
    folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The folders in a folder, in the order of names.
#[must_use]
pub fn folders(folder: &Path) -> Vec<PathBuf> {
    entries(folder).into_iter().filter(|path| path.is_dir()).collect()
}

/// The files in a folder and those below it that end so, in the order of names.
#[must_use]
pub fn files(folder: &Path, extensions: &[&str]) -> Vec<PathBuf> {
    let mut files = Vec::new();
    collect(folder, extensions, 0, &mut files);
    files
}

fn collect(folder: &Path, extensions: &[&str], depth: usize, files: &mut Vec<PathBuf>) {
    for path in entries(folder) {
        if path.is_dir() && depth < MAX_FOLDER_DEPTH {
            collect(&path, extensions, depth + 1, files);
        } else if path.extension().is_some_and(|extension| extensions.iter().any(|one| extension == *one)) {
            files.push(path);
        }
    }
}

/// What a folder holds, in the order of names; a folder that is not there holds nothing.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(read) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = read.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| !file_name(path).starts_with('.'));
    paths.sort();
    paths
}
