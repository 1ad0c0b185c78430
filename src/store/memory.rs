//! A space in memory: for tests, rehearsals and `rule test`. Nothing outlives the process.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use super::StoreError;
use super::keyed::KeyedStore;
use super::space::{Database, Operation, Pair, Space};

/// A space in memory. Clones share it, so that a store can be “restarted” over what it held.
#[derive(Clone, Default)]
pub struct MemorySpace {
    content: Arc<Mutex<Content>>,
}

#[derive(Default)]
struct Content {
    databases: BTreeMap<String, MemoryDatabase>,
    files: BTreeMap<String, Vec<u8>>,
    durable: u64,
}

/// A store in memory.
pub type MemoryStore = KeyedStore;

/// A database in memory.
#[derive(Clone, Default)]
struct MemoryDatabase {
    map: Arc<RwLock<BTreeMap<Vec<u8>, Vec<u8>>>>,
}

impl MemorySpace {
    fn lock(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Space for MemorySpace {
    fn engine(&self) -> &'static str {
        "memory"
    }

    fn open(&self, name: &str, _cache_bytes: u64) -> Result<Box<dyn Database>, StoreError> {
        Ok(Box::new(self.lock().databases.entry(name.to_string()).or_default().clone()))
    }

    fn names(&self) -> Result<Vec<String>, StoreError> {
        Ok(self.lock().databases.keys().cloned().collect())
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        self.lock().databases.remove(name);
        Ok(())
    }

    fn bytes(&self, name: &str) -> u64 {
        let database = self.lock().databases.get(name).cloned().unwrap_or_default();
        let map = database.map.read().unwrap_or_else(PoisonError::into_inner);
        map.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum()
    }

    fn read_file(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.lock().files.get(name).cloned())
    }

    fn write_file(&self, name: &str, content: &[u8]) -> Result<(), StoreError> {
        self.lock().files.insert(name.to_string(), content.to_vec());
        Ok(())
    }

    fn note_durable(&self, sequence: u64) {
        self.lock().durable = sequence;
    }

    fn durable(&self) -> Result<u64, StoreError> {
        Ok(self.lock().durable)
    }

    fn probe(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn free_bytes(&self) -> Option<u64> {
        None
    }
}

impl Database for MemoryDatabase {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.map.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned())
    }

    fn scan(&self, from: Bound<&[u8]>, to: Bound<&[u8]>, descending: bool, limit: usize) -> Result<Vec<Pair>, StoreError> {
        let map = self.map.read().unwrap_or_else(PoisonError::into_inner);
        let range = map.range::<[u8], _>((from, to)).map(|(key, value)| (key.clone(), value.clone()));
        Ok(if descending { range.rev().take(limit).collect() } else { range.take(limit).collect() })
    }

    fn write(&self, operations: Vec<Operation>) -> Result<(), StoreError> {
        let mut map = self.map.write().unwrap_or_else(PoisonError::into_inner);
        for operation in operations {
            match operation {
                Operation::Put(key, value) => map.insert(key, value),
                Operation::Delete(key) => map.remove(&key),
            };
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
