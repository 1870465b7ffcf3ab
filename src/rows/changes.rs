//! What a batch did to the rows of a queue, reduced to its net effect.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use super::ahead::Ahead;
use crate::queue::{Schedule, VISIBLE};

/// The net effect of a batch on one row.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change<Row> {
    Insert(Row, Schedule),
    Update(Schedule),
    Delete,
}

/// The net effect of a batch on one queue table, in row order (so inserts append).
#[derive(Debug)]
pub(crate) struct Changes<Row> {
    rows: BTreeMap<i64, Change<Row>>,
    ahead: Ahead,
}

impl<Row> Change<Row> {
    pub(crate) fn is_delete(&self) -> bool {
        matches!(self, Change::Delete)
    }
}

impl<Row> Default for Changes<Row> {
    fn default() -> Self {
        Self { rows: BTreeMap::new(), ahead: Ahead::default() }
    }
}

impl<Row> Changes<Row> {
    pub(crate) fn insert(&mut self, id: i64, row: Row, schedule: Schedule) {
        self.rows.insert(id, Change::Insert(row, schedule));
    }

    /// The row was tried once more, or an attempt was taken back.
    pub(crate) fn set_attempt(&mut self, id: i64, schedule: Schedule) {
        match self.rows.entry(id) {
            Entry::Vacant(entry) => {
                if !self.ahead.covers(id, schedule.attempt) {
                    entry.insert(Change::Update(schedule));
                }
            }
            Entry::Occupied(mut entry) => match entry.get_mut() {
                Change::Insert(_, staged) | Change::Update(staged) => *staged = schedule,
                Change::Delete => {}
            },
        }
    }

    /// The row will be visible at another time.
    pub(crate) fn reschedule(&mut self, id: i64, schedule: Schedule) {
        self.ahead.forget(id);
        self.set_attempt(id, schedule);
    }

    pub(crate) fn delete(&mut self, id: i64) {
        self.ahead.forget(id);
        match self.rows.entry(id) {
            Entry::Vacant(entry) => {
                entry.insert(Change::Delete);
            }
            Entry::Occupied(mut entry) => match entry.get() {
                // Never reached the file, and never will.
                Change::Insert(..) => {
                    entry.remove();
                }
                Change::Update(_) | Change::Delete => {
                    entry.insert(Change::Delete);
                }
            },
        }
    }

    /// These rows cannot be deleted: nothing is done to them.
    pub(crate) fn forget_deletes(&mut self, ids: &HashSet<i64>) {
        for id in ids {
            if self.rows.get(id).is_some_and(Change::is_delete) {
                self.rows.remove(id);
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The staged row, for a reader that comes before the commit.
    pub(crate) fn inserted(&self, id: i64) -> Option<&Row> {
        match self.rows.get(&id) {
            Some(Change::Insert(row, _)) => Some(row),
            _ => None,
        }
    }

    /// What is to be written; a row that is inserted for the first attempt to be made soon has it in it (ahead.rs).
    pub(crate) fn drain(&mut self, now: Duration) -> impl Iterator<Item = (i64, Change<Row>)> + use<'_, Row> {
        let ahead = &mut self.ahead;
        std::mem::take(&mut self.rows).into_iter().map(move |(id, change)| match change {
            Change::Insert(row, Schedule { visible_at_ms: VISIBLE, attempt: 0 }) if ahead.insert(id, now) => {
                (id, Change::Insert(row, Schedule { visible_at_ms: VISIBLE, attempt: 1 }))
            }
            other => (id, other),
        })
    }

    /// What was drained is in the rows.
    pub(crate) fn committed(&mut self) {
        self.ahead.committed();
    }

    /// What was drained is not, and what was staged is not to be.
    pub(crate) fn rolled_back(&mut self) {
        self.rows.clear();
        self.ahead.rolled_back();
    }

    /// Stages what makes rows say how often their items were tried, of those that have been ahead for long enough; with
    /// `all`, of all of them.
    pub(crate) fn put_attempts_right(&mut self, now: Duration, all: bool) {
        while let Some(id) = self.ahead.next_due(now, all) {
            self.set_attempt(id, Schedule { visible_at_ms: VISIBLE, attempt: 0 });
        }
    }

    /// When some row will have been ahead for long enough.
    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        self.ahead.next_deadline()
    }
}
