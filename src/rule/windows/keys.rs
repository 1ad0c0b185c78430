//! What is remembered by key, bounded, and swept a share at a time so that no sweep takes long.

use std::collections::HashMap;

use crate::model::window::MAX_KEYS;

/// A sweep looks at one of so many shares.
const SHARES: usize = 16;

#[derive(Debug)]
pub(super) struct Keys<E> {
    shares: [HashMap<Box<str>, E>; SHARES],
    len: usize,
    next: usize,
    /// Looks for room that found none; the next ones are spread out.
    in_vain: usize,
}

impl<E> Default for Keys<E> {
    fn default() -> Self {
        Self { shares: std::array::from_fn(|_| HashMap::new()), len: 0, next: 0, in_vain: 0 }
    }
}

/// Any spread will do: the bytes of a key, mixed.
fn share_of(key: &str) -> usize {
    key.bytes().fold(0usize, |mixed, byte| mixed.wrapping_mul(31).wrapping_add(usize::from(byte))) % SHARES
}

impl<E> Keys<E> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get(&self, key: &str) -> Option<&E> {
        self.shares[share_of(key)].get(key)
    }

    pub(super) fn get_mut(&mut self, key: &str) -> Option<&mut E> {
        self.shares[share_of(key)].get_mut(key)
    }

    /// Answers whether there was room.
    pub(super) fn insert(&mut self, key: &str, entry: E) -> bool {
        if self.shares[share_of(key)].contains_key(key) {
            self.shares[share_of(key)].insert(key.into(), entry);
            return true;
        }
        if self.len >= MAX_KEYS {
            return false;
        }
        self.shares[share_of(key)].insert(key.into(), entry);
        self.len += 1;
        true
    }

    /// What is remembered of a key, a new one if there is room.
    pub(super) fn entry(&mut self, key: &str, is_over: impl Fn(&E) -> bool) -> Option<&mut E>
    where
        E: Default,
    {
        let share = share_of(key);
        if !self.shares[share].contains_key(key) {
            if self.len >= MAX_KEYS && !self.has_an_old_one(share, is_over) {
                return None;
            }
            self.shares[share].insert(key.into(), E::default());
            self.len += 1;
        }
        self.shares[share].get_mut(key)
    }

    /// Makes room by one that has no meaning any more; not looked for each time, since a look takes long.
    fn has_an_old_one(&mut self, share: usize, is_over: impl Fn(&E) -> bool) -> bool {
        const LOOK_EACH: usize = 1_000;
        self.in_vain += 1;
        if self.in_vain % LOOK_EACH != 1 {
            return false;
        }
        let old = self.shares[share].iter().find(|(_, entry)| is_over(entry)).map(|(key, _)| key.clone());
        let Some(old) = old else { return false };
        self.shares[share].remove(&old);
        (self.len, self.in_vain) = (self.len - 1, 0);
        true
    }

    /// Takes out of the next share what is over.
    pub(super) fn sweep(&mut self, is_over: impl Fn(&E) -> bool) -> Vec<Box<str>> {
        let share = &mut self.shares[self.next];
        self.next = (self.next + 1) % SHARES;
        let over: Vec<Box<str>> = share.iter().filter(|(_, entry)| is_over(entry)).map(|(key, _)| key.clone()).collect();
        for key in &over {
            share.remove(key);
        }
        if share.capacity() > 64 && share.len() < share.capacity() / 4 {
            share.shrink_to_fit();
        }
        self.len -= over.len();
        over
    }

    /// Some keys, in their order as far as they are few.
    pub(super) fn first(&self, limit: usize) -> Vec<Box<str>> {
        let mut keys: Vec<Box<str>> = self.shares.iter().flat_map(HashMap::keys).take(limit.max(10_000)).cloned().collect();
        keys.sort_unstable();
        keys.truncate(limit);
        keys
    }
}
