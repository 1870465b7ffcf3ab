//! What is stored, row by row, and the seam between the engine and whoever keeps the rows.
//!
//! The engine decides in memory. What it does not know it asks for, many keys in one call, before anything of the batch
//! is written; every row that changes it *stages*; and it tells the store of a whole batch at once
//! ([`RowStore::write`]), by table and key. Nothing reads in the middle of a write. So a store may be a file beside the
//! process or a server across a network.
//!
//! ```text
//!   engine/ ── keys ──► RowStore ──► rows          before the operations of a batch, and before its grants
//!           ── Staged ─► RowStore::write, commit   once
//!   readers ── Reads                               what was committed, on a connection of their own
//! ```
//!
//! Stores: [`sqlite`], and for tests `maps` (no SQL). What one does and the other does not is a bug in one of them.

mod ahead;
mod changes;
mod kv;
#[cfg(any(test, feature = "test-hooks"))]
pub(crate) mod maps;
mod reads;
pub(crate) mod sqlite;
mod staged;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

pub(crate) use changes::{Change, Changes};
pub(crate) use kv::{KvBase, KvOp};
pub(crate) use reads::{BulkSelect, InstanceStats, Reads, Removed, UNKNOWN_VERSION};
use semver::Version;
pub(crate) use staged::{ExecutionChange, InstanceUpdate, NewInstance, Staged};

use crate::buffer::{CommitError, CommitNo};
use crate::error::Error;
pub(crate) use crate::queue::Schedule;
use crate::queue::{Activity, MessageId, MessageKind, WorkId};

/// Numbers the instances of a store, in the order in which they got their first row; never used twice.
pub(crate) type InstanceKey = i64;

/// Row ids and keys are given out in order: a million a second for a hundred thousand years come to no more. A row behind
/// that was not put there, and would leave too few for what comes behind it.
pub(crate) const ID_MAX: i64 = i64::MAX / 2;

/// A contiguous run of events, encoded as one record: one row of history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) first_event: u64,
    pub(crate) last_event: u64,
    /// As it is stored: bound to its instance and execution (`codec::bind`).
    pub(crate) record: Vec<u8>,
}

/// How far an execution has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Status {
    Running,
    Completed,
    Failed,
    ContinuedAsNew,
    /// duroxide knows no other; whoever drives the provider by hand may.
    Other(Box<str>),
}

impl Status {
    pub(crate) fn as_str(&self) -> &str {
        match self {
            Status::Running => "Running",
            Status::Completed => "Completed",
            Status::Failed => "Failed",
            Status::ContinuedAsNew => "ContinuedAsNew",
            Status::Other(other) => other,
        }
    }

    /// Whether the execution ends with it, so that its key-values become the base of the next one.
    pub(crate) fn is_end(&self) -> bool {
        matches!(self, Status::Completed | Status::Failed | Status::ContinuedAsNew)
    }
}

impl From<&str> for Status {
    fn from(text: &str) -> Self {
        match text {
            "Running" => Status::Running,
            "Completed" => Status::Completed,
            "Failed" => Status::Failed,
            "ContinuedAsNew" => Status::ContinuedAsNew,
            other => Status::Other(other.into()),
        }
    }
}

/// What an instance is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Identity {
    Named {
        name: String,
        version: Option<String>,
    },
    /// It has nothing but history appended by hand so far.
    Unnamed {
        /// A start is in that history, so that a turn can run on it.
        is_started: bool,
    },
}

/// What memory keeps of the rows of an instance: as much as an operation and a grant need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InstanceRows {
    pub(crate) key: InstanceKey,
    pub(crate) identity: Identity,
    /// The latest.
    pub(crate) execution: u64,
    /// The rows of that one.
    pub(crate) latest: ExecutionRows,
    /// Whether there may be key-values.
    pub(crate) may_have_kv: bool,
}

impl InstanceRows {
    /// Whether a turn has given it a name: until then management does not know it.
    pub(crate) fn is_named(&self) -> bool {
        matches!(self.identity, Identity::Named { .. })
    }
}

/// What memory keeps of the rows of an execution.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ExecutionRows {
    /// Whether it has a row of its own.
    pub(crate) exists: bool,
    /// The duroxide version it is pinned to.
    pub(crate) pinned: Option<Version>,
    /// The last event of its history; 0 if there is none.
    pub(crate) last_event: u64,
}

/// An instance as it was found.
#[derive(Debug)]
pub(crate) struct InstanceFound {
    pub(crate) rows: InstanceRows,
    /// The history of the latest execution of an instance without a name, which tells whether it was started by hand.
    pub(crate) history: Vec<Arc<Run>>,
}

/// What is asked about one execution of an instance.
#[derive(Debug, Clone)]
pub(crate) struct ExecutionWanted {
    pub(crate) key: InstanceKey,
    pub(crate) execution: u64,
    /// For each of these the last row of history that begins no later.
    pub(crate) before: Vec<u64>,
}

/// The answer: its rows, and the first and last event of each row that was asked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct ExecutionFound {
    pub(crate) rows: ExecutionRows,
    pub(crate) before: Vec<Option<(u64, u64)>>,
}

/// What a turn needs, and memory does not have.
#[derive(Debug, Default)]
pub(crate) struct TurnWanted {
    /// Messages whose records are wanted.
    pub(crate) messages: Vec<MessageId>,
    /// The instance and execution whose history is wanted.
    pub(crate) history: Option<(InstanceKey, u64)>,
    /// The instance whose key-values are wanted: what earlier executions left behind, or with the deltas, too.
    pub(crate) kv: Option<(InstanceKey, KvWanted)>,
}

impl TurnWanted {
    pub(crate) fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.history.is_none() && self.kv.is_none()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KvWanted {
    Base,
    All,
}

/// The answer, each part on its own: one that is damaged is in the way of no other.
#[derive(Debug)]
pub(crate) struct TurnFound {
    pub(crate) messages: Vec<Result<Vec<u8>, Error>>,
    pub(crate) history: Result<HistoryFound, Error>,
    pub(crate) kv: Result<kv::KvRows, Error>,
}

impl TurnFound {
    /// The answer to nothing.
    pub(crate) fn empty() -> Self {
        Self { messages: Vec::new(), history: Ok(HistoryFound::default()), kv: Ok(kv::KvRows::default()) }
    }
}

/// A history, and what lies beside it.
#[derive(Debug, Default)]
pub(crate) struct HistoryFound {
    pub(crate) runs: Vec<Arc<Run>>,
    /// Whether there is an execution after the one that was asked for.
    pub(crate) later_execution: bool,
    /// Whether there is history of such an execution.
    pub(crate) later_history: bool,
}

/// The columns of a message that do not change while it waits.
#[derive(Debug, Clone)]
pub(crate) struct MessageRow {
    pub(crate) instance: Arc<str>,
    pub(crate) kind: MessageKind,
    pub(crate) record: Vec<u8>,
}

/// The columns of an activity that do not change while it waits.
#[derive(Debug, Clone)]
pub(crate) struct WorkRow {
    pub(crate) activity: Activity,
    pub(crate) record: Vec<u8>,
}

/// The columns of a message that has fallen due: whose it is, of what kind, and how often it was tried.
#[derive(Debug)]
pub(crate) struct MessageHead {
    pub(crate) instance: String,
    pub(crate) kind: MessageKind,
    pub(crate) attempt: u32,
}

/// Who hears of the rows of a queue when a database is opened.
pub(crate) struct Waiting<'a> {
    pub(crate) message: &'a mut dyn FnMut(MessageId, &str, MessageKind, Schedule),
    /// The row comes without its record.
    pub(crate) work: &'a mut dyn FnMut(WorkId, WorkRow, Schedule),
    /// A row that is damaged: its table, its id, what is wrong.
    pub(crate) damaged: &'a mut dyn FnMut(&'static str, i64, Error),
}

/// Why a batch could not be written. What was written of it is rolled back by the caller.
#[derive(Debug)]
pub(crate) struct WriteError {
    pub(crate) error: Error,
    /// The row that is in the way, if it is damaged.
    pub(crate) damaged: Option<Damaged>,
}

impl From<Error> for WriteError {
    fn from(error: Error) -> Self {
        Self { error, damaged: None }
    }
}

/// A row that cannot be deleted because it is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Damaged {
    Message(MessageId),
    Work(WorkId),
    /// A row of this table of the instance.
    Instance {
        key: InstanceKey,
        table: &'static str,
    },
}

/// Who keeps the rows. The writer thread is the only caller.
///
/// What is read is committed: the engine adds what it has staged. Every answer has one entry for each key that was asked
/// for, in that order; an entry is an error by itself.
pub(crate) trait RowStore: Send {
    /// Everything that waits in the queues, oldest first.
    fn load(&mut self, waiting: Waiting<'_>) -> Result<(), Error>;

    /// The key that comes after all those given out.
    fn next_key(&mut self) -> Result<InstanceKey, Error>;

    /// The rows of instances, by id; `None` where there are none.
    fn instances(&mut self, ids: &[Arc<str>]) -> Vec<Result<Option<InstanceFound>, Error>>;

    /// What there is of executions.
    fn executions(&mut self, wanted: &[ExecutionWanted]) -> Vec<Result<ExecutionFound, Error>>;

    /// What turns need.
    fn turns(&mut self, wanted: &[TurnWanted]) -> Vec<TurnFound>;

    /// The heads of messages; `None` where there is no such row.
    fn message_heads(&mut self, ids: &[MessageId]) -> Vec<Result<Option<MessageHead>, Error>>;

    /// The records of activities.
    fn work_records(&mut self, ids: &[WorkId]) -> Vec<Result<Vec<u8>, Error>>;

    /// What is committed, for operations that look at much before they delete, and in memory for everybody.
    fn reads(&self) -> &dyn Reads;

    /// SQLite's connection, if there is one.
    #[cfg(any(test, feature = "test-hooks"))]
    fn connection(&self) -> Option<&rusqlite::Connection> {
        None
    }

    /// The maps, if they are what keeps the rows.
    #[cfg(any(test, feature = "test-hooks"))]
    fn maps(&mut self) -> Option<&mut maps::Maps> {
        None
    }

    /// Writes what is staged, all of it, into the open transaction of the batch, which is opened if it is not open yet. On
    /// an error the batch is to be [rolled back](Self::rollback).
    fn write(&mut self, staged: &mut Staged, now: Duration) -> Result<(), WriteError>;

    /// Commits what was written; succeeds at once if nothing was.
    fn commit(&mut self, now: Duration) -> Result<(), CommitError>;

    /// Undoes what was written since the last commit.
    fn rollback(&mut self) -> Result<(), Error>;

    /// The same without a wait for room on a disk that is full.
    fn rollback_at_once(&mut self) -> Result<(), Error>;

    /// The number of the commit that the batch at hand makes; 0 where nobody waits for the disk.
    fn next_commit(&self) -> CommitNo;

    /// The number of the last commit, or of the last batch that was rolled back.
    fn last_commit(&self) -> CommitNo;

    /// Upkeep between batches. An error latches the engine.
    fn maintain(&mut self, now: Duration) -> Result<(), Error>;

    /// How long until [`Self::maintain`] has something to do although nothing is submitted.
    fn wait(&self, now: Duration) -> Option<Duration>;

    /// The last call on a store that has not failed.
    fn close(&mut self) -> Result<(), Error>;

    /// The last call on one that has: lets go without touching anything.
    fn let_go(&mut self);
}
