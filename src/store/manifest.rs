//! The list of databases, replaced as a whole: what it does not name does not exist.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::StoreError;
use super::checked::{Stats, Tally};
use super::lanes::Lane;

/// The format of the folder that this program writes: 1 was one database for everything.
pub const FORMAT: u32 = 2;

/// The name of the file.
pub const FILE: &str = "manifest";

/// The list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The format of the folder.
    pub format: u32,
    /// The version of the program that wrote it, for people.
    pub written_by: String,
    /// Every database.
    pub databases: Vec<Entry>,
}

/// One database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its name: a number that counts up.
    pub name: u64,
    /// What it is for.
    pub lane: Lane,
    /// When it was sealed: nothing is written there any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed_at: Option<DateTime<Utc>>,
    /// What it must hold at least; exactly, when it is sealed.
    pub tally: Tally,
    /// What it held when this was written.
    pub stats: Stats,
}

impl Manifest {
    /// A list of databases, written by this program.
    #[must_use]
    pub fn of(databases: Vec<Entry>) -> Self {
        Self { format: FORMAT, written_by: env!("CARGO_PKG_VERSION").to_string(), databases }
    }

    /// The file: one line of JSON, and its CRC-32.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut text = serde_json::to_string(self).expect("a manifest has JSON");
        let crc = crc32fast::hash(text.as_bytes());
        text.push_str(&format!("\n{crc:08x}\n"));
        text.into_bytes()
    }

    /// Reads the file.
    ///
    /// # Errors
    /// When it is damaged, or of a newer format.
    pub fn read(bytes: &[u8]) -> Result<Self, StoreError> {
        /// The part that every format has.
        #[derive(Deserialize)]
        struct Head {
            format: u32,
            #[serde(default)]
            written_by: String,
        }
        let damaged = |what: &str| StoreError::Corrupt(format!("its file `{FILE}` {what}"));
        let text = std::str::from_utf8(bytes).map_err(|_| damaged("is not text"))?;
        let (json, crc) = text.trim_end().rsplit_once('\n').ok_or_else(|| damaged("is cut off"))?;
        if crc != format!("{:08x}", crc32fast::hash(json.as_bytes())) {
            return Err(damaged("does not have the checksum that it was written with"));
        }
        let Head { format, written_by } = serde_json::from_str(json).map_err(|error| damaged(&format!("cannot be read: {error}")))?;
        if format > FORMAT {
            return Err(StoreError::Unavailable(format!(
                "the data folder has format {format}, written by Signalman {written_by}; this is Signalman {}, which reads formats up to {FORMAT}. Start the newer program again, or restore a backup that was made with this one",
                env!("CARGO_PKG_VERSION")
            )));
        }
        serde_json::from_str(json).map_err(|error| damaged(&format!("cannot be read: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_what_it_wrote_and_refuses_the_rest() {
        let entry = Entry { name: 3, lane: Lane::Lasting, sealed_at: None, tally: Tally::default(), stats: Stats::new() };
        let manifest = Manifest::of(vec![entry]);
        let bytes = manifest.to_bytes();
        assert_eq!(Manifest::read(&bytes).unwrap(), manifest);
        for at in 0..bytes.len() - 1 {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            assert!(Manifest::read(&flipped).is_err(), "byte {at}");
            assert!(Manifest::read(&bytes[..at]).is_err(), "cut at {at}");
        }
        let newer = Manifest { format: FORMAT + 1, written_by: "9.9".into(), ..manifest };
        let error = Manifest::read(&newer.to_bytes()).unwrap_err().to_string();
        assert!(error.contains("9.9") && error.contains("newer program"), "{error}");
    }
}
