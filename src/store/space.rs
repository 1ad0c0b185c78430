//! Port: where databases lie. A [`Space`] is a folder of small ordered databases, and the few small files beside them.
//!
//! What the store needs of an engine is little: atomic writes, ordered reads, and a sync that can be believed. Everything
//! else (checksums, large values, lifetimes) is done once, above.

use std::ops::Bound;

use super::StoreError;

/// One change of a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Sets a key.
    Put(Vec<u8>, Vec<u8>),
    /// Removes a key.
    Delete(Vec<u8>),
}

/// A key and its value.
pub type Pair = (Vec<u8>, Vec<u8>);

/// An ordered database with atomic writes. Keys are at most a few hundred bytes, values at most [`super::checked::CHUNK_BYTES`].
pub trait Database: Send + Sync {
    /// The value of a key.
    ///
    /// # Errors
    /// When it cannot be read.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// The first `limit` pairs between the bounds, from the low end or from the high end.
    ///
    /// # Errors
    /// When they cannot be read.
    fn scan(&self, from: Bound<&[u8]>, to: Bound<&[u8]>, descending: bool, limit: usize) -> Result<Vec<Pair>, StoreError>;

    /// Makes all the changes or none; they are seen at once, and durable after [`Database::sync`].
    ///
    /// # Errors
    /// When they cannot be made. Nothing more can be written until the database is opened again.
    fn write(&self, operations: Vec<Operation>) -> Result<(), StoreError>;

    /// Returns when everything written so far would survive a power cut.
    ///
    /// # Errors
    /// When that cannot be promised. Nothing more can be written until the database is opened again.
    fn sync(&self) -> Result<(), StoreError>;
}

/// A folder of databases. One process has it at a time.
pub trait Space: Send + Sync + 'static {
    /// The name of the engine.
    fn engine(&self) -> &'static str;

    /// Opens a database, or makes it; it may hold so much of it in memory. A database that failed is opened anew, as it is on disk.
    ///
    /// # Errors
    /// When it cannot be read or written, or is damaged.
    fn open(&self, name: &str, cache_bytes: u64) -> Result<Box<dyn Database>, StoreError>;

    /// The databases there are, whether or not anything refers to them.
    ///
    /// # Errors
    /// When that cannot be told.
    fn names(&self) -> Result<Vec<String>, StoreError>;

    /// Removes a database; one that is still open lives on for those who have it.
    ///
    /// # Errors
    /// When it cannot be removed.
    fn remove(&self, name: &str) -> Result<(), StoreError>;

    /// What a database takes on disk, in bytes.
    fn bytes(&self, name: &str) -> u64;

    /// A small file.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    fn read_file(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError>;

    /// Replaces a small file as a whole, durably.
    ///
    /// # Errors
    /// When it cannot be written.
    fn write_file(&self, name: &str, content: &[u8]) -> Result<(), StoreError>;

    /// Notes that everything up to this commit is durable. Cheap, and written to disk some time: after a crash the note may be
    /// older than what is durable, never newer.
    fn note_durable(&self, sequence: u64);

    /// The last note that reached the disk; 0 if there is none.
    ///
    /// # Errors
    /// When it cannot be read.
    fn durable(&self) -> Result<u64, StoreError>;

    /// Whether a few hundred kilobytes can be written and synced.
    ///
    /// # Errors
    /// When they cannot.
    fn probe(&self) -> Result<(), StoreError>;

    /// What is free on the disk, in bytes, where there is one.
    fn free_bytes(&self) -> Option<u64>;
}
