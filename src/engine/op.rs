//! What callers submit to the engine and what they hear. Encoded on the caller's thread, so the writer only
//! moves bytes.

use std::sync::Arc;
use std::time::Duration;

use duroxide::providers::{
    DeleteInstanceResult, DispatcherCapabilityFilter, InstanceFilter, PruneOptions, PruneResult, QueueDepths,
    TagFilter, WorkItem,
};
use semver::Version;

use super::returns::LeaseGuard;
use crate::error::Error;
use crate::queue::{FetchNo, LeaseNo};
use crate::rows::{KvBase, MessageRow, Reads, Run, Status, WorkRow};

/// An operation on its way to the writer.
pub(crate) struct Submitted {
    /// When it was submitted, by the engine's monotonic clock: a lease that was held then is held.
    pub(crate) at: Duration,
    pub(crate) op: Op,
}

/// One operation, in the order in which it reaches the writer.
pub(crate) enum Op {
    FetchTurn(FetchTurn),
    AckTurn(Box<TurnAck>),
    AbandonTurn(Abandon),
    RenewTurn(Renew),
    FetchWork(FetchWork),
    AckWork {
        lease: LeaseNo,
        completion: Option<NewMessage>,
    },
    AbandonWork(Abandon),
    RenewWork(Renew),
    RenewSessions {
        owners: Vec<String>,
        extend_for: Duration,
        idle_timeout: Duration,
    },
    SweepSessions,
    EnqueueMessage(NewMessage),
    EnqueueWork(NewWork),
    AppendHistory {
        instance: String,
        execution: u64,
        runs: Vec<Arc<Run>>,
    },
    Delete {
        ids: Vec<String>,
        force: bool,
    },
    DeleteBulk(InstanceFilter),
    Prune {
        id: String,
        options: PruneOptions,
    },
    PruneBulk {
        filter: InstanceFilter,
        options: PruneOptions,
    },
    QueueDepths,
    /// An instance with all that comes from it, also what waits to be started.
    Tree {
        root: String,
    },
    /// A read in memory mode, where there is no second connection. It answers through its own closure.
    Read(ReadRows),
    /// Whatever a test does to the rows behind the engine's back.
    #[cfg(feature = "test-hooks")]
    OnStore(OnStore),
}

/// A read of what is committed, on the writer thread.
pub(crate) type ReadRows = Box<dyn FnOnce(&dyn Reads) + Send>;

/// See [`Op::OnStore`].
#[cfg(feature = "test-hooks")]
pub(crate) type OnStore = Box<dyn FnOnce(&mut dyn crate::rows::RowStore) + Send>;

/// The answer to an operation; which one belongs to which is fixed by the engine.
pub(crate) enum Reply {
    Done,
    Turn(Option<Box<TurnGrant>>),
    Work(Option<Box<WorkGrant>>),
    Count(usize),
    Deleted(DeleteInstanceResult),
    Pruned(PruneResult),
    Depths(QueueDepths),
    Ids(Vec<String>),
}

pub(crate) struct FetchTurn {
    pub(crate) no: FetchNo,
    pub(crate) lock_timeout: Duration,
    pub(crate) poll_timeout: Duration,
    pub(crate) filter: Option<DispatcherCapabilityFilter>,
}

pub(crate) struct FetchWork {
    pub(crate) no: FetchNo,
    pub(crate) lock_timeout: Duration,
    pub(crate) poll_timeout: Duration,
    /// The worker's session identity and how long a claim holds; `None` takes no part in sessions.
    pub(crate) session: Option<(Arc<str>, Duration)>,
    pub(crate) tags: TagFilter,
}

pub(crate) struct Abandon {
    pub(crate) lease: LeaseNo,
    pub(crate) delay: Option<Duration>,
    pub(crate) ignore_attempt: bool,
}

pub(crate) struct Renew {
    pub(crate) lease: LeaseNo,
    pub(crate) extend_for: Duration,
}

/// When a new message becomes visible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Visible {
    Now,
    After(Duration),
    AtMs(u64),
}

pub(crate) struct NewMessage {
    pub(crate) row: MessageRow,
    pub(crate) visible: Visible,
    pub(crate) item: Box<WorkItem>,
}

pub(crate) struct NewWork {
    pub(crate) row: WorkRow,
    pub(crate) item: Box<WorkItem>,
}

/// A change of one instance's key-values, in the order in which the turn made it.
pub(crate) enum KvChange {
    Set { key: String, value: String, at_ms: u64 },
    Clear { key: String },
    ClearAll,
}

impl KvChange {
    /// The text it carries.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            KvChange::Set { key, value, .. } => key.len() + value.len(),
            KvChange::Clear { key } => key.len(),
            KvChange::ClearAll => 0,
        }
    }
}

/// Everything one acknowledged turn writes, all or nothing.
pub(crate) struct TurnAck {
    pub(crate) lease: LeaseNo,
    pub(crate) execution: u64,
    pub(crate) history: Vec<Arc<Run>>,
    /// The last custom status the turn set; `Some(None)` clears it.
    pub(crate) custom_status: Option<Option<String>>,
    pub(crate) kv: Vec<KvChange>,
    pub(crate) work: Vec<NewWork>,
    pub(crate) cancelled: Vec<(String, u64, u64)>,
    pub(crate) messages: Vec<NewMessage>,
    pub(crate) status: Option<Status>,
    pub(crate) output: Option<String>,
    /// Name and version; duroxide sends both or neither.
    pub(crate) name: Option<(String, String)>,
    pub(crate) parent: Option<String>,
    pub(crate) pinned: Option<Version>,
}

/// A queued item on its way to a caller: as it was submitted; or the record of its row, with the other columns as
/// they were believed when it was granted.
pub(crate) enum GrantBody<R> {
    Item(Box<WorkItem>),
    Row { id: i64, row: R },
}

/// A leased instance with all that its turn needs; decoded on the caller's thread.
pub(crate) struct TurnGrant {
    pub(crate) instance: Arc<str>,
    /// `None` where there is no row yet: the start among the messages, or the history, knows the name.
    pub(crate) name: Option<String>,
    pub(crate) version: Option<String>,
    pub(crate) execution: u64,
    /// Bound to the instance and execution. An error if the rows of the history, or of the key-values, are damaged.
    pub(crate) history: Result<Vec<Arc<Run>>, Error>,
    pub(crate) messages: Vec<GrantBody<MessageRow>>,
    pub(crate) kv: KvBase,
    pub(crate) attempt: u32,
    pub(crate) guard: LeaseGuard,
}

/// A leased activity.
pub(crate) struct WorkGrant {
    pub(crate) body: GrantBody<WorkRow>,
    pub(crate) attempt: u32,
    pub(crate) guard: LeaseGuard,
}
