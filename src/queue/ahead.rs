//! Rows that were written with their first attempt counted before it was made.
//!
//! An attempt has to be committed before anybody is given what is tried. Nearly everything that is queued is tried, most of
//! it soon: so a row is inserted with the first attempt in it, and the grant writes nothing. While it has not been made the
//! row says one attempt too many; memory knows better, and puts it right before it ends. What is left after a crash is a count
//! that is one too high, of items that waited then, [`AHEAD_MAX`] of a queue at most. It is never too low.

use std::collections::HashMap;

/// How many rows of a queue may be ahead: how many are put right when the database is closed.
const AHEAD_MAX: usize = 1024;

/// See the module's documentation. What it does not hold is in its row as it is in memory.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// Whether the attempt has been made.
    rows: HashMap<i64, bool>,
    /// Inserted by the batch at hand.
    inserted: Vec<i64>,
    /// Whose attempt the batch at hand has taken back.
    taken_back: Vec<i64>,
}

impl Ahead {
    /// Whether a row that is about to be inserted, and was not tried yet, is to have its first attempt in it.
    pub(super) fn insert(&mut self, id: i64) -> bool {
        let has_room = self.rows.len() < AHEAD_MAX;
        if has_room {
            self.rows.insert(id, false);
            self.inserted.push(id);
        }
        has_room
    }

    /// Whether the row says what is needed already, when its item has been tried so often.
    pub(super) fn covers(&mut self, id: i64, attempt: u32) -> bool {
        let Some(is_made) = self.rows.get_mut(&id) else { return false };
        match attempt {
            0 => {
                *is_made = false;
                self.taken_back.push(id);
            }
            1 => *is_made = true,
            _ => self.forget(id),
        }
        attempt <= 1
    }

    /// The row is about to be written, or deleted.
    pub(super) fn forget(&mut self, id: i64) {
        self.rows.remove(&id);
    }

    pub(super) fn committed(&mut self) {
        self.inserted.clear();
        self.taken_back.clear();
    }

    pub(super) fn rolled_back(&mut self) {
        for id in self.inserted.drain(..) {
            self.rows.remove(&id);
        }
        for id in self.taken_back.drain(..) {
            // Whatever it was: one too many is harmless.
            self.rows.remove(&id);
        }
    }

    /// The rows whose attempt has not been made, oldest first; they are as in memory from here on.
    pub(super) fn take_unmade(&mut self) -> Vec<i64> {
        let rows = std::mem::take(&mut self.rows);
        let mut unmade: Vec<_> = rows.into_iter().filter(|(_, is_made)| !is_made).map(|(id, _)| id).collect();
        unmade.sort_unstable();
        unmade
    }
}
