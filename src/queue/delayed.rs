//! Messages that wait for their time: known by their row id, when it falls due, and a hash of whom it is for.
//!
//! There may be a million of them and none is of any use before its time, so nothing of a row is kept that can
//! be read when it falls due. A hash is enough to find those of one instance among all; whether one of them
//! really is that instance's, its row says.

use std::collections::BTreeMap;

use super::MessageId;

/// The delayed messages of all instances.
#[derive(Debug, Default)]
pub(super) struct Delayed {
    by_due: BTreeMap<(u64, MessageId), u64>,
    by_hash: BTreeMap<(u64, MessageId), u64>,
}

impl Delayed {
    /// Adds one that falls due at `due_ms`, for an instance whose id has this hash.
    pub(super) fn insert(&mut self, hash: u64, id: MessageId, due_ms: u64) {
        self.by_due.insert((due_ms, id), hash);
        self.by_hash.insert((hash, id), due_ms);
    }

    /// Adds many at once, as (hash, id, due): sorted first, the trees are built without a search.
    pub(super) fn extend(&mut self, many: &[(u64, MessageId, u64)]) {
        let mut by_due: BTreeMap<_, _> =
            many.iter().map(|&(hash, id, due_ms)| ((due_ms, id), hash)).collect();
        let mut by_hash: BTreeMap<_, _> =
            many.iter().map(|&(hash, id, due_ms)| ((hash, id), due_ms)).collect();
        self.by_due.append(&mut by_due);
        self.by_hash.append(&mut by_hash);
    }

    /// Gives back when it would have fallen due; `None` if it is not there.
    pub(super) fn remove(&mut self, hash: u64, id: MessageId) -> Option<u64> {
        let due_ms = self.by_hash.remove(&(hash, id))?;
        self.by_due.remove(&(due_ms, id));
        Some(due_ms)
    }

    /// Takes the next one that has fallen due, with the hash of its instance's id.
    pub(super) fn pop_due(&mut self, now_ms: u64) -> Option<(u64, MessageId)> {
        let entry = self.by_due.first_entry().filter(|entry| entry.key().0 <= now_ms)?;
        let ((_, id), hash) = entry.remove_entry();
        self.by_hash.remove(&(hash, id));
        Some((hash, id))
    }

    /// Every one whose instance has this hash, oldest first.
    pub(super) fn of(&self, hash: u64) -> impl Iterator<Item = MessageId> {
        self.by_hash.range((hash, MessageId::MIN)..=(hash, MessageId::MAX)).map(|((_, id), _)| *id)
    }

    /// When the next one falls due, in milliseconds of wall time.
    pub(super) fn next_due_ms(&self) -> Option<u64> {
        self.by_due.first_key_value().map(|((due_ms, _), _)| *due_ms)
    }

    pub(super) fn len(&self) -> usize {
        self.by_due.len()
    }
}
