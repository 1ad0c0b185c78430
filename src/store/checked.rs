//! A database whose damage is seen: every record carries a checksum over its key and value, large values lie in chunks, and
//! one tally says how many records there must be and what their checksums add up to.
//!
//! Engines find damage when they read it, and not always: a page that is lost takes its records with it silently. The tally
//! is written in the same batch as the records, so [`Checked::open`] finds any record that is missing, changed or back from
//! the dead. That is one pass over the database, which is small by design.
//!
//! A stored value is a tag, a CRC-32 over key, tag and body, and the body: the value itself, or the length and CRC-32 of a
//! value that lies in chunks, or nothing where a record of an older database is deleted.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use super::StoreError;
use super::record;
use super::space::{Database, Operation};

/// Values above this size, in bytes, are stored in chunks of this size: engines keep small values in their log, and some keep
/// large ones in files that they do not sync.
pub const CHUNK_BYTES: usize = 4_000;

/// Pairs read at a time when all are read.
const READ_TOGETHER: usize = 512;

/// What one scan reads at most, in bytes, and one value more.
const SCANNED_BYTES: usize = 1 << 20;

const TALLY_KEY: &[u8] = &[0];
const FIRST_KEY: &[u8] = &[1];
const CHUNKS: u8 = 0xff;

const WHOLE: u8 = 0;
const CHUNKED: u8 = 1;
const TOMBSTONE: u8 = 2;

/// Tag and checksum.
const HEAD_BYTES: usize = 5;

/// What a database holds for a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A value.
    Value(Vec<u8>),
    /// The key is deleted here, whatever an older database says.
    Tombstone,
}

/// One change.
#[derive(Clone, Debug)]
pub enum Change {
    /// Sets a key.
    Put(Vec<u8>, Vec<u8>),
    /// Says that the key is deleted, also in older databases.
    Bury(Vec<u8>),
    /// Removes the key from this database.
    Delete(Vec<u8>),
}

impl Change {
    /// The key that changes.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        match self {
            Self::Put(key, _) | Self::Bury(key) | Self::Delete(key) => key,
        }
    }
}

impl Change {
    /// Key and value, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.key().len() + if let Self::Put(_, value) = self { value.len() } else { 0 }
    }
}

/// How many records a database must have, and what their checksums add up to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Counts the writes.
    pub version: u64,
    /// Records, tombstones among them.
    pub records: u64,
    /// The sum of the records' checksums.
    pub sum: u64,
}

/// What there is of one kind of record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KindStats {
    /// Records.
    pub records: u64,
    /// What they hold: a record of events holds several.
    pub items: u64,
    /// Keys and values, in bytes.
    pub bytes: u64,
    /// The lowest key there has been, without the kind.
    #[serde(with = "hex_bytes")]
    pub first: Vec<u8>,
    /// The highest.
    #[serde(with = "hex_bytes")]
    pub last: Vec<u8>,
}

/// What a database holds, by kind.
pub type Stats = BTreeMap<u8, KindStats>;

mod hex_bytes {
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&crate::model::hash::hex(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        let byte = |at| text.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
        (0..text.len()).step_by(2).map(byte).collect::<Option<_>>().ok_or_else(|| serde::de::Error::custom("not hexadecimal"))
    }
}

/// A database whose damage is seen.
pub struct Checked {
    raw: Box<dyn Database>,
    name: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    tally: Tally,
    /// As it was when everything was last made durable.
    synced: Tally,
    stats: Stats,
}

impl Checked {
    /// Reads everything there is, and compares it with its tally.
    ///
    /// # Errors
    /// When it cannot be read, or records are missing or damaged.
    pub fn open(raw: Box<dyn Database>, name: &str) -> Result<Self, StoreError> {
        let checked = Self { raw, name: name.to_string(), state: Mutex::new(State::default()) };
        let mut damage = Vec::new();
        let state = checked.survey(&mut |text| damage.push(text))?;
        if let Some(first) = damage.first() {
            let more = if damage.len() > 1 { format!(", and {} more", damage.len() - 1) } else { String::new() };
            return Err(StoreError::Corrupt(format!("database {name}: {first}{more}")));
        }
        *checked.lock() = state;
        Ok(checked)
    }

    /// Reads everything in a database and tells what is damaged; answers what it says it must hold.
    ///
    /// # Errors
    /// When it cannot be read at all.
    pub fn survey_all(raw: Box<dyn Database>, name: &str, damage: &mut dyn FnMut(String)) -> Result<Tally, StoreError> {
        let checked = Self { raw, name: name.to_string(), state: Mutex::new(State::default()) };
        checked.survey(damage)?;
        checked.stored_tally()
    }

    /// Opens a database that was read whole before, and has not been written to since: only the tally is compared.
    ///
    /// # Errors
    /// When it cannot be read, or does not hold what it held.
    pub fn open_known(raw: Box<dyn Database>, name: &str, tally: Tally, stats: Stats) -> Result<Self, StoreError> {
        let checked = Self { raw, name: name.to_string(), state: Mutex::new(State { tally, synced: tally, stats }) };
        if checked.stored_tally()? == tally {
            Ok(checked)
        } else {
            Err(checked.damaged("it does not hold what it held when it was closed"))
        }
    }

    fn stored_tally(&self) -> Result<Tally, StoreError> {
        match self.raw.get(TALLY_KEY)? {
            Some(bytes) => read_tally(&bytes).ok_or_else(|| self.damaged("the tally cannot be read")),
            None => Ok(Tally::default()),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no panic happens while the lock is held")
    }

    fn damaged(&self, what: &str) -> StoreError {
        StoreError::Corrupt(format!("database {}: {what}", self.name))
    }

    /// The tally as it stands.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.lock().tally
    }

    /// The tally that is known to be durable; nothing before the first sync.
    #[must_use]
    pub fn synced(&self) -> Tally {
        self.lock().synced
    }

    /// What there is.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.lock().stats.clone()
    }

    /// What there is of a kind.
    #[must_use]
    pub fn of_kind(&self, kind: u8) -> Option<KindStats> {
        self.lock().stats.get(&kind).cloned()
    }

    /// Keys and values, in bytes.
    #[must_use]
    pub fn live_bytes(&self) -> u64 {
        self.lock().stats.values().map(|kind| kind.bytes).sum()
    }

    /// Reads every record again and tells what is damaged.
    ///
    /// # Errors
    /// When it cannot be read at all.
    pub fn check(&self, damage: &mut dyn FnMut(String)) -> Result<(), StoreError> {
        self.survey(damage).map(|_| ())
    }

    fn survey(&self, damage: &mut dyn FnMut(String)) -> Result<State, StoreError> {
        let stored = self.stored_tally()?;
        let mut found = State { tally: Tally { version: stored.version, ..Tally::default() }, ..State::default() };
        let mut low = Bound::Included(FIRST_KEY.to_vec());
        loop {
            let pairs = self.raw.scan(low.as_ref().map(Vec::as_slice), Bound::Excluded(&[CHUNKS]), false, READ_TOGETHER)?;
            let Some((last, _)) = pairs.last() else { break };
            low = Bound::Excluded(last.clone());
            for (key, stored) in pairs {
                let Some(head) = Head::read(&key, &stored) else {
                    damage(format!("{} is damaged", record::name(&key)));
                    continue;
                };
                found.tally.records += 1;
                found.tally.sum = found.tally.sum.wrapping_add(u64::from(head.crc));
                match self.value(&key, &stored) {
                    Ok(Entry::Value(value)) => add(&mut found.stats, &key, &value),
                    Ok(Entry::Tombstone) => {
                        reach(&mut found.stats, &key);
                    }
                    Err(StoreError::Corrupt(text)) => damage(text),
                    Err(error) => return Err(error),
                }
            }
        }
        if found.tally != stored {
            let (is, was) = (found.tally.records, stored.records);
            damage(match is.cmp(&was) {
                std::cmp::Ordering::Less => format!("{} of {was} records are missing", was - is),
                std::cmp::Ordering::Greater => format!("there are {} records too many", is - was),
                std::cmp::Ordering::Equal => "records are not those that were written last".into(),
            });
        }
        Ok(found)
    }

    /// What there is for a key.
    ///
    /// # Errors
    /// When it cannot be read or is damaged.
    pub fn get(&self, key: &[u8]) -> Result<Option<Entry>, StoreError> {
        self.raw.get(key)?.map(|stored| self.value(key, &stored)).transpose()
    }

    /// At most the first `limit` entries between the bounds, from the low end or from the high end; fewer where they are large, none only
    /// where there are none. Both bounds are keys of records.
    ///
    /// # Errors
    /// When they cannot be read or are damaged.
    pub fn scan(&self, from: Bound<&[u8]>, to: Bound<&[u8]>, descending: bool, limit: usize) -> Result<Vec<(Vec<u8>, Entry)>, StoreError> {
        let (mut entries, mut bytes) = (Vec::new(), 0);
        for (key, stored) in self.raw.scan(from, to, descending, limit)? {
            let entry = self.value(&key, &stored)?;
            bytes += if let Entry::Value(value) = &entry { value.len() } else { 0 };
            entries.push((key, entry));
            if bytes > SCANNED_BYTES {
                break;
            }
        }
        Ok(entries)
    }

    fn value(&self, key: &[u8], stored: &[u8]) -> Result<Entry, StoreError> {
        let damaged = || self.damaged(&format!("{} is damaged", record::name(key)));
        let head = Head::read(key, stored).ok_or_else(damaged)?;
        match head.tag {
            WHOLE => Ok(Entry::Value(stored[HEAD_BYTES..].to_vec())),
            TOMBSTONE => Ok(Entry::Tombstone),
            _ => {
                let mut value = Vec::with_capacity(head.length as usize);
                for index in 0..head.chunks() {
                    value.extend(self.raw.get(&chunk_key(key, index))?.ok_or_else(damaged)?);
                }
                let whole = value.len() == head.length as usize && crc32fast::hash(&value) == head.value_crc;
                if whole { Ok(Entry::Value(value)) } else { Err(damaged()) }
            }
        }
    }

    /// Makes all the changes or none. Of several changes to one key the last counts.
    ///
    /// # Errors
    /// When they cannot be made, or what they replace is damaged.
    pub fn write(&self, changes: &[Change]) -> Result<(), StoreError> {
        let mut last: HashMap<&[u8], usize> = HashMap::with_capacity(changes.len());
        for (index, change) in changes.iter().enumerate() {
            last.insert(change.key(), index);
        }
        let mut state = self.lock();
        let mut tally = Tally { version: state.tally.version + 1, ..state.tally };
        let mut operations = Vec::with_capacity(changes.len() + 1);
        for (index, change) in changes.iter().enumerate() {
            if last[change.key()] != index {
                continue;
            }
            let old = match self.stored(&state.stats, change.key())? {
                Some(stored) => {
                    let damaged = || self.damaged(&format!("{} is damaged", record::name(change.key())));
                    Some((Head::read(change.key(), &stored).ok_or_else(damaged)?, stored))
                }
                None => None,
            };
            if let Some((head, stored)) = &old {
                tally.records -= 1;
                tally.sum = tally.sum.wrapping_sub(u64::from(head.crc));
                remove(&mut state.stats, change.key(), head, stored);
            }
            let old_chunks = old.as_ref().map_or(0, |(head, _)| head.chunks());
            let new_chunks = match change {
                Change::Delete(key) => {
                    if old.is_some() {
                        operations.push(Operation::Delete(key.clone()));
                    }
                    0
                }
                Change::Bury(key) => {
                    reach(&mut state.stats, key);
                    put(&mut operations, &mut tally, key, TOMBSTONE, b"");
                    0
                }
                Change::Put(key, value) => {
                    add(&mut state.stats, key, value);
                    put_value(&mut operations, &mut tally, key, value)
                }
            };
            operations.extend((new_chunks..old_chunks).map(|index| Operation::Delete(chunk_key(change.key(), index))));
        }
        operations.push(Operation::Put(TALLY_KEY.to_vec(), write_tally(tally)));
        state.tally = tally;
        self.raw.write(operations)
    }

    /// What is stored under a key. Most keys that are written are higher than all before, and are not looked for.
    fn stored(&self, stats: &Stats, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(kind) = stats.get(&key[0]) else { return Ok(None) };
        let within = kind.first.as_slice() <= &key[1..] && &key[1..] <= kind.last.as_slice();
        if within { self.raw.get(key) } else { Ok(None) }
    }

    /// Returns when everything written so far would survive a power cut.
    ///
    /// # Errors
    /// When that cannot be promised.
    pub fn sync(&self) -> Result<(), StoreError> {
        let tally = self.tally();
        self.raw.sync()?;
        self.lock().synced = tally;
        Ok(())
    }
}

fn put_value(operations: &mut Vec<Operation>, tally: &mut Tally, key: &[u8], value: &[u8]) -> u32 {
    if value.len() + HEAD_BYTES <= CHUNK_BYTES {
        put(operations, tally, key, WHOLE, value);
        return 0;
    }
    let length = u32::try_from(value.len()).expect("no value is larger than the largest body that is taken");
    let mut body = length.to_be_bytes().to_vec();
    body.extend_from_slice(&crc32fast::hash(value).to_be_bytes());
    put(operations, tally, key, CHUNKED, &body);
    let mut index = 0;
    for chunk in value.chunks(CHUNK_BYTES) {
        operations.push(Operation::Put(chunk_key(key, index), chunk.to_vec()));
        index += 1;
    }
    index
}

fn put(operations: &mut Vec<Operation>, tally: &mut Tally, key: &[u8], tag: u8, body: &[u8]) {
    let crc = checksum(key, tag, body);
    tally.records += 1;
    tally.sum = tally.sum.wrapping_add(u64::from(crc));
    let mut stored = Vec::with_capacity(HEAD_BYTES + body.len());
    stored.push(tag);
    stored.extend_from_slice(&crc.to_be_bytes());
    stored.extend_from_slice(body);
    operations.push(Operation::Put(key.to_vec(), stored));
}

fn checksum(key: &[u8], tag: u8, body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(&[tag]);
    hasher.update(body);
    hasher.finalize()
}

/// Chunks lie behind all records; the length tells the keys of two records apart.
fn chunk_key(key: &[u8], index: u32) -> Vec<u8> {
    let length = u16::try_from(key.len()).unwrap_or(u16::MAX);
    let mut chunk = Vec::with_capacity(key.len() + 7);
    chunk.push(CHUNKS);
    chunk.extend_from_slice(&length.to_be_bytes());
    chunk.extend_from_slice(key);
    chunk.extend_from_slice(&index.to_be_bytes());
    chunk
}

/// The head of a stored value.
struct Head {
    tag: u8,
    crc: u32,
    /// Of a value in chunks.
    length: u32,
    value_crc: u32,
}

impl Head {
    fn read(key: &[u8], stored: &[u8]) -> Option<Self> {
        let (head, body) = stored.split_at_checked(HEAD_BYTES)?;
        let crc = u32::from_be_bytes(head[1..].try_into().ok()?);
        let tag = head[0];
        if checksum(key, tag, body) != crc {
            return None;
        }
        let (length, value_crc) = match (tag, body.split_at_checked(4)) {
            (WHOLE, _) => (0, 0),
            (TOMBSTONE, _) if body.is_empty() => (0, 0),
            (CHUNKED, Some((length, value_crc))) => {
                (u32::from_be_bytes(length.try_into().ok()?), u32::from_be_bytes(value_crc.try_into().ok()?))
            }
            _ => return None,
        };
        Some(Self { tag, crc, length, value_crc })
    }

    fn chunks(&self) -> u32 {
        self.length.div_ceil(u32::try_from(CHUNK_BYTES).expect("a chunk is small"))
    }
}

fn write_tally(tally: Tally) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(28);
    for part in [tally.version, tally.records, tally.sum] {
        bytes.extend_from_slice(&part.to_be_bytes());
    }
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_be_bytes());
    bytes
}

fn read_tally(bytes: &[u8]) -> Option<Tally> {
    let (numbers, crc) = bytes.split_at_checked(24)?;
    (crc == crc32fast::hash(numbers).to_be_bytes()).then_some(())?;
    let number = |at: usize| Some(u64::from_be_bytes(numbers.get(at..at + 8)?.try_into().ok()?));
    Some(Tally { version: number(0)?, records: number(8)?, sum: number(16)? })
}

fn add(stats: &mut Stats, key: &[u8], value: &[u8]) {
    let kind = reach(stats, key);
    kind.records += 1;
    kind.items += record::items(value);
    kind.bytes += (key.len() + value.len()) as u64;
}

/// Widens the range of the key's kind.
fn reach<'s>(stats: &'s mut Stats, key: &[u8]) -> &'s mut KindStats {
    let rest = &key[1..];
    let kind = stats.entry(key[0]).or_insert_with(|| KindStats { first: rest.to_vec(), last: rest.to_vec(), ..KindStats::default() });
    if rest < kind.first.as_slice() {
        kind.first = rest.to_vec();
    }
    if rest > kind.last.as_slice() {
        kind.last = rest.to_vec();
    }
    kind
}

fn remove(stats: &mut Stats, key: &[u8], head: &Head, stored: &[u8]) {
    let Some(kind) = stats.get_mut(&key[0]).filter(|_| head.tag != TOMBSTONE) else { return };
    let length = if head.tag == WHOLE { stored.len() - HEAD_BYTES } else { head.length as usize };
    kind.records -= 1;
    kind.items = kind.items.saturating_sub(if head.tag == WHOLE { record::items(&stored[HEAD_BYTES..]) } else { 1 });
    kind.bytes = kind.bytes.saturating_sub((key.len() + length) as u64);
}
