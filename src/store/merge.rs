//! Scans over several databases at once: each has a cursor, and the first key of all comes next.

use std::collections::VecDeque;
use std::ops::Bound;
use std::sync::Arc;

use super::StoreError;
use super::checked::Entry;
use super::layers::Layers;
use super::segment::Segment;

/// The place of a scan in one database.
pub(super) struct Cursor<'v> {
    segment: &'v Arc<Segment>,
    from: Bound<Vec<u8>>,
    to: Bound<Vec<u8>>,
    pub(super) read: VecDeque<(Vec<u8>, Entry)>,
    /// No key that is still to be read comes before this one.
    reaches: Option<Vec<u8>>,
    ended: bool,
}

impl<'v> Cursor<'v> {
    /// Nothing if the database holds nothing there.
    pub(super) fn new(segment: &'v Arc<Segment>, kind: u8, from: Bound<&[u8]>, to: Bound<&[u8]>, descending: bool) -> Option<Self> {
        let mut reaches = None;
        if let Ok(range) = segment.range(kind) {
            let range = range?;
            let (first, last) = ([&[kind], range.first.as_slice()].concat(), [&[kind], range.last.as_slice()].concat());
            let below = |bound: Bound<&[u8]>| matches!(bound, Bound::Included(b) | Bound::Excluded(b) if last.as_slice() < b);
            let above = |bound: Bound<&[u8]>| matches!(bound, Bound::Included(b) | Bound::Excluded(b) if first.as_slice() > b);
            if below(from) || above(to) {
                return None;
            }
            reaches = Some(if descending { last } else { first });
        }
        let owned = |bound: Bound<&[u8]>| bound.map(<[u8]>::to_vec);
        Some(Self { segment, from: owned(from), to: owned(to), read: VecDeque::new(), reaches, ended: false })
    }

    pub(super) fn fill(&mut self, layers: &Layers, descending: bool, limit: usize) -> Result<(), StoreError> {
        let Some(database) = layers.readable(self.segment)? else {
            self.ended = true;
            return Ok(());
        };
        let (from, to) = (self.from.as_ref().map(Vec::as_slice), self.to.as_ref().map(Vec::as_slice));
        let read = database.scan(from, to, descending, limit)?;
        self.ended = read.is_empty();
        if let Some((last, _)) = read.last() {
            let next = Bound::Excluded(last.clone());
            if descending {
                self.to = next;
            } else {
                self.from = next;
            }
            self.reaches = Some(last.clone());
        }
        self.read = read.into();
        Ok(())
    }

    fn head(&self) -> Head<'_> {
        match (self.read.front(), &self.reaches) {
            (Some((key, _)), _) => Head::Next(key),
            (None, _) if self.ended => Head::None,
            (None, Some(reaches)) => Head::NotBefore(reaches),
            (None, None) => Head::Unknown,
        }
    }
}

/// What comes next in one database.
enum Head<'c> {
    /// This key.
    Next(&'c [u8]),
    /// Nothing before this key.
    NotBefore(&'c [u8]),
    /// Any key.
    Unknown,
    /// Nothing.
    None,
}

/// The cursor whose turn it is: of the unread ones that may come first, else the first key; of equal keys the newest database's.
pub(super) fn best(cursors: &[Cursor<'_>], descending: bool) -> Option<usize> {
    let mut best: Option<(usize, &[u8], bool)> = None;
    for (index, cursor) in cursors.iter().enumerate() {
        let (key, unread) = match cursor.head() {
            Head::None => continue,
            Head::Unknown => return Some(index),
            Head::NotBefore(key) => (key, true),
            Head::Next(key) => (key, false),
        };
        let better = match best {
            None => true,
            // Of equal ones the unread is read first, so that a newer database can be told from an older.
            Some((_, other, read)) => {
                let sooner = if descending { key > other } else { key < other };
                sooner || (key == other && unread && read)
            }
        };
        if better {
            best = Some((index, key, !unread));
        }
    }
    best.map(|(index, ..)| index)
}
