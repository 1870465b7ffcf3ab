//! Rows that were written with their first attempt counted before it was made.
//!
//! An attempt has to be committed before anybody is given what is tried. Nearly everything that is queued is tried, and
//! soon: so a row is inserted with the first attempt in it, and the grant writes nothing. Until that is made the row says one
//! attempt too many. Memory knows better: it puts right what nobody has taken after [`AHEAD_FOR`], and all of it
//! before the database is closed. What a crash leaves is a count that is one too high, of what came in shortly before
//! and still waited, [`AHEAD_MAX`] rows of a queue at most. It is never too low.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

/// How many rows of a queue may be ahead.
const AHEAD_MAX: usize = 1024;

/// How long a row may be ahead. Shorter than the writer is idle before it moves the log into the database.
const AHEAD_FOR: Duration = Duration::from_millis(300);

/// See the module's documentation. What it does not hold is in its row as it is in memory.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// Whose first attempt is in the row and has not been made.
    unmade: HashSet<i64>,
    /// When they were inserted, oldest first; some of these are not ahead any more.
    order: VecDeque<(Duration, i64)>,
    /// What the batch at hand took from the set, and put into it (true).
    undo: Vec<(i64, bool)>,
}

impl Ahead {
    /// Whether a row that is about to be inserted, and was not tried yet, is to have its first attempt in it.
    pub(super) fn insert(&mut self, id: i64, now: Duration) -> bool {
        let has_room = self.unmade.len() < AHEAD_MAX;
        if has_room && self.unmade.insert(id) {
            self.undo.push((id, true));
            self.order.push_back((now, id));
        }
        has_room
    }

    /// Whether the row says already what is needed when its item has been tried so often. It is not ahead any more.
    pub(super) fn covers(&mut self, id: i64, attempt: u32) -> bool {
        self.forget(id) && attempt == 1
    }

    /// The row is as in memory from here on, or about to be. Whether it was ahead.
    pub(super) fn forget(&mut self, id: i64) -> bool {
        let was_ahead = self.unmade.remove(&id);
        if was_ahead {
            self.undo.push((id, false));
        }
        was_ahead
    }

    pub(super) fn committed(&mut self) {
        self.undo.clear();
    }

    /// The order of those that are ahead again is lost: they count as the oldest.
    pub(super) fn rolled_back(&mut self) {
        for (id, was_put) in std::mem::take(&mut self.undo).into_iter().rev() {
            if was_put {
                self.unmade.remove(&id);
            } else {
                self.unmade.insert(id);
                self.order.push_front((Duration::ZERO, id));
            }
        }
    }

    /// The oldest row that is to be put right, if it has been ahead for long enough; with `all` whenever it was
    /// inserted. The caller writes it.
    pub(super) fn next_due(&mut self, now: Duration, all: bool) -> Option<i64> {
        while let Some((since, id)) = self.order.front().copied() {
            let is_ahead = self.unmade.contains(&id);
            if is_ahead && !all && now.saturating_sub(since) < AHEAD_FOR {
                return None;
            }
            self.order.pop_front();
            if is_ahead {
                return Some(id);
            }
        }
        None
    }

    /// When the oldest row is to be put right.
    pub(super) fn next_deadline(&self) -> Option<Duration> {
        self.order.front().map(|(since, _)| *since + AHEAD_FOR)
    }
}
