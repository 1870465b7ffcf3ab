//! The scheduling state: ready work, timers, leases, sessions, parked fetches. No I/O, and time is an
//! argument, so it can be driven a million steps a second by a property test.
//!
//! SQLite owns what must survive; everything here is rebuilt from its rows at open and after a batch that
//! was rolled back. What the rows must learn of a batch (inserted, tried once more, gone) is staged in
//! [`Changes`] as its net effect: a message inserted and leased in one batch is one INSERT with attempt 1.
//!
//! ```text
//!   turns.rs     messages → which instance can have a turn    instance.rs  one of them
//!   delayed.rs   messages before their time
//!   work.rs      activities → lanes by session owner and tag        sessions.rs  who owns a session
//!   leases.rs    tokens and their expiry      parked.rs    fetches that wait      alike.rs    in groups
//!   changes.rs   net effect on the rows
//! ```

mod alike;
mod changes;
mod delayed;
mod instance;
mod leases;
mod parked;
mod sessions;
#[cfg(test)]
mod tests;
mod turns;
mod work;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use duroxide::providers::WorkItem;

pub(crate) use alike::ParkedAlike;
pub(crate) use changes::{Change, Changes, Schedule};
pub(crate) use instance::{InstanceRow, Message, MessageKind, Standing};
pub(crate) use leases::{LeaseNo, Leases};
pub(crate) use parked::{FetchNo, Parked};
pub(crate) use turns::{InstanceNo, Next, Turns};
pub(crate) use work::{Work, WorkEntry};

/// Row ids of the two queues. They grow with arrival, so their order is the order of the queue.
pub(crate) type MessageId = i64;
/// See [`MessageId`].
pub(crate) type WorkId = i64;

/// The `visible_at_ms` of what is visible whatever the wall clock says: it was never delayed, or it has fallen
/// due. A clock that is set back afterwards must not make it wait.
pub(crate) const VISIBLE: u64 = 0;

/// The instant a batch runs at: read once a cycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Now {
    /// For leases and session locks.
    pub(crate) monotonic: Duration,
    /// For timers and delayed visibility.
    pub(crate) wall_ms: u64,
}

/// A decoded item kept beside its row, so that the common delivery neither reads nor decodes.
#[derive(Debug)]
pub(crate) struct Body {
    item: Box<WorkItem>,
    bytes: usize,
    budget: Arc<AtomicUsize>,
}

/// How many bytes of [`Body`] may be held in memory; what does not fit is read back from its row.
#[derive(Debug)]
pub(crate) struct BodyBudget {
    used: Arc<AtomicUsize>,
    bytes_max: usize,
}

impl BodyBudget {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { used: Arc::default(), bytes_max }
    }

    /// Keeps the item if there is room for its `bytes`.
    pub(crate) fn keep(&self, item: Box<WorkItem>, bytes: usize) -> Option<Body> {
        if self.used.load(Ordering::Relaxed) + bytes > self.bytes_max {
            return None;
        }
        self.used.fetch_add(bytes, Ordering::Relaxed);
        Some(Body { item, bytes, budget: Arc::clone(&self.used) })
    }
}

impl Body {
    /// Takes the item out, giving its bytes back to the budget.
    pub(crate) fn into_item(mut self) -> Box<WorkItem> {
        // A cheap stand-in: `Drop` forbids moving out.
        let stand_in = WorkItem::CancelInstance { instance: String::new(), reason: String::new() };
        std::mem::replace(&mut self.item, Box::new(stand_in))
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        self.budget.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
