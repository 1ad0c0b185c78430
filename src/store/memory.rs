//! A key space in memory: for tests, rehearsals and `rule test`. Nothing outlives the process.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, RwLock};

use super::StoreError;
use super::keyed::{KeyedStore, Keyspace, Operation, Pair};

/// A key space in memory. Clones share it, so that a store can be “restarted” over what it held.
#[derive(Clone, Default)]
pub struct MemorySpace {
    map: Arc<RwLock<BTreeMap<Vec<u8>, Vec<u8>>>>,
}

/// A store in memory.
pub type MemoryStore = KeyedStore<MemorySpace>;

impl Keyspace for MemorySpace {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.map.read().expect("no panic happens while the lock is held").get(key).cloned())
    }

    fn scan(&self, from: Bound<&[u8]>, to: Bound<&[u8]>, descending: bool, limit: usize) -> Result<Vec<Pair>, StoreError> {
        let map = self.map.read().expect("no panic happens while the lock is held");
        let range = map.range::<[u8], _>((from, to)).map(|(key, value)| (key.clone(), value.clone()));
        Ok(if descending { range.rev().take(limit).collect() } else { range.take(limit).collect() })
    }

    fn write(&self, operations: Vec<Operation>) -> Result<(), StoreError> {
        let mut map = self.map.write().expect("no panic happens while the lock is held");
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
