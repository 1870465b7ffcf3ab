//! The scheduling state: ready work, timers, leases, sessions, parked fetches. No I/O, and time is an
//! argument, so it can be driven a million steps a second by a property test.
//!
//! The rows own what must survive; everything here is built from them at open. What the rows must learn of a batch is
//! staged elsewhere (`rows/`): this knows of no table.
//!
//! ```text
//!   turns.rs     messages → which instance can have a turn    instance.rs  one of them
//!   delayed.rs   messages before their time
//!   work.rs      activities: which are ready, leased, delayed       sessions.rs  who owns a session
//!   lanes.rs     the ready ones by session owner and tag            bodies.rs    items kept beside their rows
//!   parked.rs    fetches that wait      alike.rs  for turns, in groups      work_fetches.rs  for activities
//!   leases.rs    tokens and their expiry
//! ```

mod alike;
mod bodies;
mod delayed;
mod instance;
mod lanes;
mod leases;
mod parked;
mod sessions;
#[cfg(test)]
mod tests;
mod turns;
mod work;
mod work_fetches;

use std::time::Duration;

pub(crate) use alike::ParkedAlike;
pub(crate) use bodies::{Body, BodyBudget};
pub(crate) use instance::{Message, MessageKind, RowCache, Runs};
pub(crate) use leases::{LeaseNo, Leases};
pub(crate) use parked::{FetchNo, Parked};
pub(crate) use turns::{InstanceNo, Next, Turns};
pub(crate) use work::{Activity, Work, WorkEntry};
pub(crate) use work_fetches::{Wants, WorkFetches};

/// Row ids of the two queues. They grow with arrival, so their order is the order of the queue.
pub(crate) type MessageId = i64;
/// See [`MessageId`].
pub(crate) type WorkId = i64;

/// The `visible_at_ms` of what is visible whatever the wall clock says: it was never delayed, or it has fallen
/// due. A clock that is set back afterwards must not make it wait.
pub(crate) const VISIBLE: u64 = 0;

/// What of a queued item changes while it waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Schedule {
    /// Milliseconds of wall time, or [`VISIBLE`].
    pub(crate) visible_at_ms: u64,
    /// How often it has been given to somebody.
    pub(crate) attempt: u32,
}

/// The instant a batch runs at: read once a cycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Now {
    /// For leases and session locks.
    pub(crate) monotonic: Duration,
    /// For timers and delayed visibility.
    pub(crate) wall_ms: u64,
}
