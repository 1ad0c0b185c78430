//! `signalman backup FILE`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use reqwest::Method;
use rustix::fs::{FlockOperation, flock};
use serde_json::json;

use super::access::{Access, Place};
use super::progress::{Progress, Unit};
use super::{Answer, Common, Failure, Output, print_line, printable, table};
use crate::clock::{Clock, SystemClock};
use crate::config::Environment;
use crate::store::StoreError;
use crate::store::archive::{Head, Reader, Summary};
use crate::store::folder::{advice, sync_folder};
use crate::store::space::Pair;
use crate::tasks;

/// Bytes after which the file is synced, so that little waits to be written when somebody else syncs.
const SYNC_BYTES: u64 = 1 << 20;

/// Pieces that wait between the reader and the writer.
const WAITING: usize = 8;

/// Bytes read at a time.
const READ_BYTES: usize = 256 << 10;

/// Stands for standard output, and standard input.
pub(super) const STANDARD: &str = "-";

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The file to write; `-` writes to standard output
    file: PathBuf,
    /// Replace the file if there is one
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    place: Place,
}

pub(super) fn run(common: &Common, arguments: &Arguments, environment: &Environment) -> Result<Answer, Failure> {
    tasks::stand_back(tasks::BACKGROUND_NICE); // a server on this machine goes first
    let standard = arguments.file.as_os_str() == STANDARD;
    if !standard {
        refuse_to_overwrite(arguments)?;
    }
    let access = Access::of(common, &arguments.place, environment)?;
    let started = SystemClock.now();
    let (head, summary) = if standard {
        copy(&access, &mut io::stdout().lock(), Path::new("standard output"))?
    } else {
        let mut partial = Partial::create(&arguments.file)?;
        let path = partial.path.clone();
        let copied =
            copy(&access, &mut partial, &path).and_then(|copied| partial.sync().map(|()| copied).map_err(|error| unwritten(&path, &error)));
        let copied = copied.inspect_err(|_| partial.remove())?;
        refuse_to_overwrite(arguments)?;
        partial.rename(&arguments.file).map_err(|error| unwritten(&arguments.file, &error))?;
        copied
    };
    let milliseconds = (SystemClock.now() - started).num_milliseconds();
    let answer = json!({
        "file": if standard { None } else { Some(arguments.file.display().to_string()) },
        "records": summary.records, "bytes": summary.bytes, "sequence": head.sequence, "seconds": seconds(milliseconds),
    });
    let (records, bytes, seconds) = (summary.records, table::bytes(summary.bytes), seconds(milliseconds));
    let text = format!("{}: {records} records, {bytes}, as of commit {}, in {seconds} s", arguments.file.display(), head.sequence);
    match (standard, common.output) {
        (true, Output::Table) => eprintln!("{}", printable(&text)),
        (true, _) => eprintln!("{}", printable(&answer.to_string())),
        (false, _) => common.show(&answer, || print_line(&text)),
    }
    Ok(Answer::Yes)
}

/// A span as seconds with one decimal.
#[allow(clippy::cast_precision_loss, reason = "a span of a backup is far below 2^52 ms")]
pub(super) fn seconds(milliseconds: i64) -> f64 {
    (milliseconds as f64 / 100.0).round() / 10.0
}

fn refuse_to_overwrite(arguments: &Arguments) -> Result<(), Failure> {
    if arguments.force || fs::symlink_metadata(&arguments.file).is_err() {
        return Ok(());
    }
    Err(Failure::misuse(format!("`{}` exists; name another file, or replace it with --force", arguments.file.display())))
}

/// Copies a backup of the store to somewhere, and verifies it on the way.
fn copy(access: &Access, out: &mut dyn Write, to: &Path) -> Result<(Head, Summary), Failure> {
    match access {
        Access::Server(client) => verify(client.read(Method::GET, "/api/v1/store/backup")?, out, to),
        Access::Folder(opened) => {
            let (pieces, taken) = sync_channel(WAITING);
            let maintenance = Arc::clone(&opened.maintenance);
            let thread = tasks::spawn_thread("backup", 2 << 20, move || {
                let mut pieces = Pieces(pieces);
                if let Err(error) = maintenance.backup(&mut pieces, &mut |_, _| true) {
                    let _ = pieces.0.send(Err(error)); // the reader may be why
                }
            });
            let thread = thread.map_err(|error| Failure::failed(format!("no thread for the backup: {error}")))?;
            let copied = verify(Taken { pieces: taken, pending: Vec::new() }, out, to);
            let _ = thread.join(); // a panic has been told, and the copy lacks its end
            copied
        }
    }
}

fn verify(source: impl Read, out: &mut dyn Write, to: &Path) -> Result<(Head, Summary), Failure> {
    let mut tee = Tee { source, out, failure: None, to };
    let read = read("backup", &mut tee, |_| Ok(()));
    match (tee.failure.take(), read) {
        (Some(failure), _) => Err(failure),
        (None, read) => {
            let read = read?;
            tee.out.flush().map_err(|error| unwritten(to, &error))?;
            Ok(read)
        }
    }
}

/// Reads a backup to its end and hands each record on; nothing may follow.
pub(super) fn read(
    what: &'static str,
    source: impl Read,
    mut take: impl FnMut(Pair) -> Result<(), StoreError>,
) -> Result<(Head, Summary), Failure> {
    let progress = Progress::new(what, Unit::Bytes);
    let mut source = BufReader::with_capacity(READ_BYTES, source);
    let mut read = || -> Result<(Head, Summary), StoreError> {
        let mut reader = Reader::new(&mut source)?;
        while let Some(pair) = reader.next_record()? {
            take(pair)?;
            progress.show(reader.read().bytes, reader.head.about_bytes.max(reader.read().bytes));
        }
        Ok((reader.head.clone(), reader.read()))
    };
    let done = read().map_err(told)?;
    match source.read(&mut [0]) {
        Ok(0) => Ok(done),
        Ok(_) => Err(Failure::failed("the backup is damaged: something follows after its end")),
        Err(error) => Err(Failure::failed(format!("the backup cannot be read to its end: {error}"))),
    }
}

/// What is wrong with a backup; it is not the store that is damaged.
pub(super) fn told(error: StoreError) -> Failure {
    match error {
        StoreError::Corrupt(what) => Failure::failed(what),
        StoreError::Unavailable(_) => Failure::failed(error.to_string()),
    }
}

fn unwritten(path: &Path, error: &io::Error) -> Failure {
    Failure::failed(format!("cannot write `{}`: {error}{}", path.display(), advice(error)))
}

/// Writes what is read, and keeps the first failure as it is to be told.
struct Tee<'o, S> {
    source: S,
    out: &'o mut dyn Write,
    to: &'o Path,
    failure: Option<Failure>,
}

impl<S: Read> Read for Tee<'_, S> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = match self.source.read(into) {
            Ok(count) => count,
            Err(error) => {
                self.failure = Some(Failure::failed(format!("there is no backup: {error}")));
                return Err(error);
            }
        };
        if let Err(error) = self.out.write_all(&into[..count]) {
            self.failure = Some(unwritten(self.to, &error));
            return Err(error);
        }
        Ok(count)
    }
}

/// The end that a thread writes to.
struct Pieces(SyncSender<Result<Vec<u8>, StoreError>>);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send(Ok(bytes.to_vec())).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The end that is read.
struct Taken {
    pieces: Receiver<Result<Vec<u8>, StoreError>>,
    pending: Vec<u8>,
}

impl Read for Taken {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.pending.is_empty() {
            match self.pieces.recv() {
                Ok(Ok(piece)) => self.pending = piece,
                Ok(Err(error)) => return Err(io::Error::other(error)),
                Err(_) => return Ok(0),
            }
        }
        let count = into.len().min(self.pending.len());
        into[..count].copy_from_slice(&self.pending[..count]);
        self.pending.drain(..count);
        Ok(count)
    }
}

/// A file that is not whole yet: it stands beside its place, and only its owner may read it.
struct Partial {
    path: PathBuf,
    file: File,
    unsynced: u64,
}

impl Partial {
    fn create(target: &Path) -> Result<Self, Failure> {
        let mut path = target.as_os_str().to_owned();
        path.push(".partial");
        let path = PathBuf::from(path);
        let failed = |error: io::Error| unwritten(&path, &error);
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(failed)?;
        let locked = flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
        // Between the two calls another backup may have given the file its name.
        let same = || fs::metadata(&path).is_ok_and(|there| file.metadata().is_ok_and(|own| there.ino() == own.ino()));
        if !locked || !same() {
            return Err(Failure::failed(format!(
                "another backup is being written to `{}`; wait for it, or name another file",
                path.display()
            )));
        }
        // One that a crash has left may be longer, and of other permissions.
        file.set_permissions(fs::Permissions::from_mode(0o600)).and_then(|()| file.set_len(0)).map_err(failed)?;
        Ok(Self { file, unsynced: 0, path })
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_all()
    }

    fn remove(&self) {
        let _ = fs::remove_file(&self.path); // the next backup replaces it
    }

    fn rename(self, target: &Path) -> io::Result<()> {
        fs::rename(&self.path, target)?;
        let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        sync_folder(folder)
    }
}

impl Write for Partial {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.unsynced += count as u64;
        if self.unsynced >= SYNC_BYTES {
            self.file.sync_data()?;
            self.unsynced = 0;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
