//! `signalman restore FILE`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Seek};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::access::Place;
use super::backup::{self, STANDARD, told};
use super::progress::{Progress, Unit};
use super::{Answer, Common, Failure, print_line, table};
use crate::app::{STORE_FOLDER, restore};
use crate::auth::TOKEN_FILE;
use crate::clock::{Clock, SystemClock};
use crate::config::{Environment, StoreKind};
use crate::store::archive::Reader;
use crate::store::folder::advice;
use crate::store::lock::FolderLock;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The backup; `-` reads it from standard input
    file: PathBuf,
    /// Put it into the place of the store that is there; that one is kept beside it
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    place: Place,
}

pub(super) fn run(common: &Common, arguments: &Arguments, environment: &Environment) -> Result<Answer, Failure> {
    if common.server.is_some() {
        return Err(Failure::misuse("a backup is restored into a data folder while no server has it; leave --server out"));
    }
    let site = arguments.place.settings(common, environment)?;
    if site.store == StoreKind::Memory {
        return Err(Failure::misuse("this site keeps its state in memory (`store` in signalman.yaml); a backup needs a store on disk"));
    }
    let standard = arguments.file.as_os_str() == STANDARD;
    // Opened before anything is made, so that a wrong name leaves no trace.
    let file = if standard { None } else { Some(File::open(&arguments.file).map_err(|error| unreadable(&arguments.file, &error))?) };
    let data = site.data;
    let _lock = FolderLock::take(&data).map_err(told)?;
    restore::settle(&data).map_err(told)?;
    if restore::is_taken(&data).map_err(told)? && !arguments.replace {
        return Err(Failure::failed(format!(
            "there is a store in `{}` already, and nothing was changed; give --replace to put the backup into its place and keep it beside, or another folder with --data",
            data.join(STORE_FOLDER).display()
        )));
    }
    let started = SystemClock.now();
    let mut file = file.map_or_else(|| spool(&data), Ok)?;
    file.rewind().map_err(|error| unreadable(&arguments.file, &error))?;
    let (head, summary) = backup::read("verify", &file, |_| Ok(()))?;
    file.rewind().map_err(|error| unreadable(&arguments.file, &error))?;
    let replaced = fill(&data, &file, started.timestamp(), head.sequence)?;
    let seconds = backup::seconds((SystemClock.now() - started).num_milliseconds());
    let store = data.join(STORE_FOLDER);
    let answer = json!({
        "store": store.display().to_string(), "replaced": replaced.as_ref().map(|path| path.display().to_string()),
        "records": summary.records, "bytes": summary.bytes, "sequence": head.sequence, "seconds": seconds,
    });
    common.show(&answer, || {
        let (records, bytes) = (summary.records, table::bytes(summary.bytes));
        print_line(&format!("{}: {records} records, {bytes}, as of commit {}, in {seconds} s", store.display(), head.sequence));
        if let Some(replaced) = replaced {
            print_line(&format!("the store from before is in {}; remove it when you do not need it any more", replaced.display()));
        }
        let token = data.join(TOKEN_FILE);
        print_line(&format!("the next start writes a new admin token to {}, unless the token of the backup is there", token.display()));
    });
    Ok(Answer::Yes)
}

/// Copies standard input into a file that has no name any more, so that nothing is left of it.
fn spool(data: &Path) -> Result<File, Failure> {
    let path = data.join("restore.spool");
    let failed = |error: io::Error| Failure::failed(format!("cannot write `{}`: {error}{}", path.display(), advice(&error)));
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&path).map_err(failed)?;
    fs::remove_file(&path).map_err(failed)?;
    io::copy(&mut io::stdin().lock(), &mut file).map_err(failed)?;
    Ok(file)
}

fn fill(data: &Path, mut file: &File, number: i64, sequence: u64) -> Result<Option<PathBuf>, Failure> {
    let progress = Progress::new("restore", Unit::Bytes);
    let mut reader = Reader::new(BufReader::with_capacity(256 << 10, file.by_ref())).map_err(told)?;
    let records = std::iter::from_fn(|| {
        let next = reader.next_record().transpose();
        progress.show(reader.read().bytes, reader.head.about_bytes.max(reader.read().bytes));
        next
    });
    restore::replace(data, records, sequence, number).map_err(told)
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    Failure::failed(format!("`{}` cannot be read: {error}", path.display()))
}
