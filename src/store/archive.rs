//! A backup: one file with every record as of one commit, whatever engine and format they were kept in.
//!
//! The file is the line `signalman-backup 1`, a line of JSON that says what follows, then each record as key length, value length
//! (32 bits each, big-endian), key, value and a CRC-32 over all of these; then a key length of 0, and a last line of JSON that says how much
//! there was. A file that has been cut off lacks that line.

use std::io::{self, BufRead, Read, Write};
use std::ops::Bound;

use serde::{Deserialize, Serialize};

use super::keyed::go_on;
use super::layers::Layers;
use super::record::Kind;
use super::segment::View;
use super::space::Pair;
use super::{Progress, StoreError};

/// The first line, up to the number of the format.
const MAGIC: &str = "signalman-backup ";

/// The format of backups that this program writes and reads.
const FORMAT: u32 = 1;

/// Records read together.
const READ_TOGETHER: usize = 256;

/// The longest record that is believed: longer is damage.
const LONGEST_RECORD_BYTES: u32 = 1 << 30;

/// What a backup begins with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The version of the program that wrote it.
    pub written_by: String,
    /// The last commit in it.
    pub sequence: u64,
    /// How large it will be about, in bytes.
    pub about_bytes: u64,
}

/// What a backup ends with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Records.
    pub records: u64,
    /// Keys and values, in bytes.
    pub bytes: u64,
}

/// Writes everything in some databases that nobody changes meanwhile.
///
/// # Errors
/// When it cannot be read, or the backup cannot be written.
pub fn write(layers: &Layers, view: &View, out: &mut dyn Write, progress: &mut Progress<'_>) -> Result<Summary, StoreError> {
    let sequence = layers.get(view, &super::record::key(Kind::Sequence, b""))?;
    let sequence = sequence.map_or(Ok(0), |bytes| super::record::decode(Kind::Sequence, &bytes))?;
    let about_bytes = view.all().flat_map(|(_, segment)| segment.stats().into_values()).map(|kind| kind.bytes).sum();
    let head = Head { written_by: env!("CARGO_PKG_VERSION").into(), sequence, about_bytes };
    let mut buffered = io::BufWriter::with_capacity(256 << 10, out);
    let done = write_all(layers, view, &head, &mut buffered, progress);
    if done.is_err() {
        let _ = buffered.into_parts(); // what is in it is not worth writing any more
    }
    done
}

fn write_all(layers: &Layers, view: &View, head: &Head, out: &mut impl Write, progress: &mut Progress<'_>) -> Result<Summary, StoreError> {
    let unwritten = |error: io::Error| StoreError::Unavailable(format!("the backup cannot be written: {error}"));
    let about_bytes = head.about_bytes;
    writeln!(out, "{MAGIC}{FORMAT}\n{}", json(head)).map_err(unwritten)?;
    let mut summary = Summary::default();
    for kind in Kind::ALL.iter().filter(|kind| **kind != Kind::Base) {
        let (mut low, high) = (Bound::Included(vec![*kind as u8]), [*kind as u8 + 1]);
        loop {
            let pairs = layers.scan(view, low.as_ref().map(Vec::as_slice), Bound::Excluded(&high), false, READ_TOGETHER)?;
            for (key, value) in &pairs {
                write_record(out, key, value).map_err(unwritten)?;
                summary.records += 1;
                summary.bytes += (key.len() + value.len()) as u64;
            }
            go_on(progress, summary.bytes, about_bytes.max(summary.bytes))?;
            match pairs.into_iter().next_back() {
                Some((last, _)) => low = Bound::Excluded(last),
                None => break,
            }
        }
    }
    out.write_all(&0u32.to_be_bytes()).map_err(unwritten)?;
    writeln!(out, "{}", json(&summary)).map_err(unwritten)?;
    out.flush().map_err(unwritten)?;
    Ok(summary)
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("numbers and text have JSON")
}

fn write_record(out: &mut impl Write, key: &[u8], value: &[u8]) -> io::Result<()> {
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).map(u32::to_be_bytes).map_err(io::Error::other);
    let (keys, values) = (length(key)?, length(value)?);
    let mut hasher = crc32fast::Hasher::new();
    for part in [&keys[..], &values, key, value] {
        hasher.update(part);
        out.write_all(part)?;
    }
    out.write_all(&hasher.finalize().to_be_bytes())
}

/// Reads a backup.
pub struct Reader<R> {
    source: R,
    /// What it begins with.
    pub head: Head,
    read: Summary,
    ended: bool,
}

impl<R: BufRead> Reader<R> {
    /// Reads the beginning.
    ///
    /// # Errors
    /// When it is no backup, or one of a newer format.
    pub fn new(mut source: R) -> Result<Self, StoreError> {
        let first = line(&mut source)?;
        let Some(format) = first.strip_prefix(MAGIC) else {
            return Err(StoreError::Corrupt("this is no backup of Signalman: it does not begin with `signalman-backup`".into()));
        };
        match format.trim().parse::<u32>() {
            Ok(FORMAT) => {}
            Ok(newer) if newer > FORMAT => {
                return Err(StoreError::Unavailable(format!(
                    "the backup has format {newer}, and this program reads up to {FORMAT}; restore it with the program that made it, or a newer one"
                )));
            }
            _ => return Err(damaged("its first line names no format")),
        }
        let head = serde_json::from_str(&line(&mut source)?).map_err(|error| damaged(&format!("its second line: {error}")))?;
        Ok(Self { source, head, read: Summary::default(), ended: false })
    }

    /// The next record; nothing after the last one.
    ///
    /// # Errors
    /// When the backup is damaged or cut off.
    pub fn next_record(&mut self) -> Result<Option<Pair>, StoreError> {
        if self.ended {
            return Ok(None);
        }
        let mut lengths = [0; 8];
        self.fill(&mut lengths[..4])?;
        if lengths[..4] == [0; 4] {
            return self.end().map(|()| None);
        }
        self.fill(&mut lengths[4..])?;
        let length = |at: usize| u32::from_be_bytes(lengths[at..at + 4].try_into().expect("four of eight bytes"));
        let (keys, values) = (length(0), length(4));
        if keys > LONGEST_RECORD_BYTES || values > LONGEST_RECORD_BYTES {
            return Err(self.damaged_here());
        }
        // Read as it comes: a length that is damage must not take its memory.
        let mut body = Vec::new();
        let wanted = u64::from(keys) + u64::from(values);
        let got = self.source.by_ref().take(wanted).read_to_end(&mut body).map_err(|error| unreadable(&error))?;
        let mut crc = [0; 4];
        if got as u64 != wanted {
            return Err(cut_off());
        }
        self.fill(&mut crc)?;
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&lengths);
        hasher.update(&body);
        if hasher.finalize().to_be_bytes() != crc {
            return Err(self.damaged_here());
        }
        let value = body.split_off(keys as usize);
        self.read.records += 1;
        self.read.bytes += wanted;
        Ok(Some((body, value)))
    }

    /// How much has been read.
    #[must_use]
    pub fn read(&self) -> Summary {
        self.read
    }

    fn end(&mut self) -> Result<(), StoreError> {
        let text = line(&mut self.source)?;
        let summary: Summary = serde_json::from_str(&text).map_err(|_| cut_off())?;
        if summary != self.read {
            return Err(damaged(&format!("it says it has {} records and has {}", summary.records, self.read.records)));
        }
        self.ended = true;
        Ok(())
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), StoreError> {
        self.source
            .read_exact(bytes)
            .map_err(|error| if error.kind() == io::ErrorKind::UnexpectedEof { cut_off() } else { unreadable(&error) })
    }

    fn damaged_here(&self) -> StoreError {
        damaged(&format!("record {} does not have its checksum", self.read.records + 1))
    }
}

fn line(source: &mut impl BufRead) -> Result<String, StoreError> {
    let mut text = Vec::new();
    source.by_ref().take(64 << 10).read_until(b'\n', &mut text).map_err(|error| unreadable(&error))?;
    String::from_utf8(text).map_err(|_| StoreError::Corrupt("this is no backup of Signalman".into()))
}

fn unreadable(error: &io::Error) -> StoreError {
    StoreError::Unavailable(format!("the backup cannot be read: {error}"))
}

fn cut_off() -> StoreError {
    damaged("it is cut off; whatever wrote it did not finish")
}

fn damaged(what: &str) -> StoreError {
    StoreError::Corrupt(format!("the backup is damaged: {what}"))
}
