//! The parts of the engine's memory. Each is changed by the operations of a batch and put back by `undo.rs`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::changed::Changed;
use super::grants::Granted;
use super::histories::{Histories, HistoryChange};
use super::lookup::Prefetched;
use super::matching::Accepts;
use super::op::Reply;
use super::returns::Returns;
use super::undo::Undo;
use super::unreadable::{Suspect, Undeletable};
use crate::buffer::{Counters, Horizon, Responder};
use crate::clock::Clock;
use crate::database::Held;
use crate::error::Error;
use crate::queue::{
    FetchNo, InstanceNo, Leases, Message, MessageId, ParkedAlike, Turns, Work, WorkFetches, WorkId,
};
use crate::rows::InstanceRows;

/// What an unfinished turn holds.
pub(super) struct TurnLease {
    pub(super) instance: InstanceNo,
    pub(super) messages: BTreeMap<MessageId, Message>,
}

/// A fetch that waits for a turn.
pub(super) struct TurnFetch {
    pub(super) no: FetchNo,
    pub(super) deadline: Duration,
    pub(super) lock_timeout: Duration,
    pub(super) responder: Responder<Reply>,
}

/// A fetch that waits for an activity.
pub(super) struct WorkFetch {
    pub(super) no: FetchNo,
    pub(super) deadline: Duration,
    pub(super) lock_timeout: Duration,
    /// How long a session that comes with the grant is claimed for.
    pub(super) session_timeout: Duration,
    pub(super) responder: Responder<Reply>,
}

/// Messages, the instances they are for, and who runs a turn or waits for one. A message is visible, delayed, or in one
/// lease.
pub(super) struct TurnQueue {
    pub(super) instances: Turns<Arc<InstanceRows>>,
    pub(super) leases: Leases<TurnLease>,
    pub(super) parked: ParkedAlike<Accepts, TurnFetch>,
    /// Some instances have to be looked at before every parked fetch has what it may have, or has nothing.
    pub(super) looks_left: bool,
    /// The row id of the next message.
    pub(super) next_id: MessageId,
}

impl Default for TurnQueue {
    fn default() -> Self {
        Self {
            instances: Turns::default(),
            leases: Leases::default(),
            parked: ParkedAlike::default(),
            looks_left: false,
            next_id: 1,
        }
    }
}

/// Activities, and who runs one or waits for one. A lease names an activity that names the lease.
pub(super) struct WorkQueue {
    pub(super) items: Work,
    pub(super) leases: Leases<WorkId>,
    pub(super) parked: WorkFetches<WorkFetch>,
    /// The row id of the next activity.
    pub(super) next_id: WorkId,
}

impl Default for WorkQueue {
    fn default() -> Self {
        Self { items: Work::default(), leases: Leases::default(), parked: WorkFetches::default(), next_id: 1 }
    }
}

/// The batch at hand. Nothing of it is left when it is committed or rolled back.
#[derive(Default)]
pub(super) struct Batch {
    /// When the operation at hand was submitted.
    pub(super) at: Duration,
    /// Whether the batch was full: then no lease is over that an operation still waiting could have renewed.
    pub(super) is_behind: bool,
    /// Whether it had operations.
    pub(super) has_operations: bool,
    /// What was asked for before its operations.
    pub(super) prefetched: Prefetched,
    pub(super) granted: Vec<Granted>,
    /// Whether a part of it has been written already.
    pub(super) has_written: bool,
    /// How to put memory back.
    pub(super) undo: Vec<Undo>,
    /// What the histories in memory learn when it is committed.
    pub(super) history_changes: Vec<HistoryChange>,
}

/// What is known of rows that cannot be read, or cannot be deleted.
#[derive(Default)]
pub(super) struct Damage {
    /// Histories, with the execution: they are not read again.
    pub(super) histories: HashMap<Arc<str>, (u64, Error)>,
    pub(super) undeletable: Undeletable,
    /// What could not be read when it was to be granted, and how often, but may be the next time.
    pub(super) suspects: HashMap<Suspect, u32>,
}

/// What the engine shares with its handles.
pub(crate) struct Shared {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) returns: Arc<Returns>,
    pub(crate) histories: Arc<Histories>,
    pub(crate) changed: Arc<Changed>,
    pub(crate) horizon: Arc<Horizon>,
    pub(crate) counters: Arc<Counters>,
    /// Dropping it lets the next open go ahead.
    #[expect(dead_code, reason = "held, not read")]
    pub(crate) held: Held,
}
