//! What submitters and the writer thread share: permits, the failure latch, the counters.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::reply::cause_of;
use crate::error::{Cause, Error};
use crate::sync::{AtomicBool, OnceLock, Semaphore};

#[derive(Debug)]
pub(crate) struct Shared {
    /// Room in the buffer. Closed when the engine takes no more work, which wakes everyone who waits.
    pub(super) permits: Semaphore,
    pub(super) counters: Arc<Counters>,
    closing: AtomicBool,
    nudged: AtomicBool,
    /// The first failure; set once, never cleared.
    failure: OnceLock<Cause>,
    closed: OnceLock<Result<(), Error>>,
}

impl Shared {
    pub(super) fn new(permits: usize, counters: Arc<Counters>) -> Self {
        Self {
            permits: Semaphore::new(permits.min(Semaphore::MAX_PERMITS)),
            counters,
            closing: AtomicBool::new(false),
            nudged: AtomicBool::new(false),
            failure: OnceLock::new(),
            closed: OnceLock::new(),
        }
    }

    /// True for the first caller.
    pub(super) fn begin_close(&self) -> bool {
        self.permits.close();
        !self.closing.swap(true, Ordering::SeqCst)
    }

    /// Latches the engine as failed. The first failure wins.
    pub(super) fn latch(&self, error: &Error) {
        let _ = self.failure.set(cause_of(error));
        self.permits.close();
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.permits.is_closed()
    }

    /// Why the engine takes no work.
    pub(super) fn refusal(&self) -> Error {
        match self.failure.get() {
            Some(source) => Error::Failed { source: Arc::clone(source) },
            None => Error::Closed,
        }
    }

    pub(super) fn set_closed(&self, result: Result<(), Error>) {
        let _ = self.closed.set(result);
    }

    /// Whether the writer is done with the channel, or about to look into it for the last time.
    pub(super) fn has_ended(&self) -> bool {
        self.closed.get().is_some()
    }

    pub(super) fn closing_result(&self) -> Result<(), Error> {
        self.closed.get().cloned().unwrap_or(Ok(()))
    }

    /// True if no nudge was on its way.
    pub(super) fn arm_nudge(&self) -> bool {
        !self.nudged.swap(true, Ordering::AcqRel)
    }

    pub(super) fn disarm_nudge(&self) {
        self.nudged.store(false, Ordering::Release);
    }
}

/// Counters kept by the writer thread and the connection it writes on.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) batches: AtomicU64,
    pub(crate) operations: AtomicU64,
    pub(crate) commits: AtomicU64,
    pub(crate) bytes_written: AtomicU64,
    pub(crate) checkpoints: AtomicU64,
    pub(crate) set_aside: AtomicU64,
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64, amount: u64) {
        counter.fetch_add(amount, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> Stats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            batches: read(&self.batches),
            operations: read(&self.operations),
            commits: read(&self.commits),
            bytes_written: read(&self.bytes_written),
            checkpoints: read(&self.checkpoints),
            set_aside: read(&self.set_aside),
        }
    }
}

/// What an engine has done since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Batches the writer ran, those that wrote nothing included.
    pub batches: u64,
    /// Operations in them.
    pub operations: u64,
    /// Transactions committed.
    pub commits: u64,
    /// Bytes appended to the write-ahead log.
    pub bytes_written: u64,
    /// Checkpoints run.
    pub checkpoints: u64,
    /// Queued rows, and instances, that could not be read and were therefore set aside: they stay in the file as
    /// they are, nobody is given them, everything else goes on. Each was logged as an error. They are tried
    /// again when the database is opened again.
    pub set_aside: u64,
}
