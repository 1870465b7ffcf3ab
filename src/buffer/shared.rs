//! What submitters and the writer thread share: permits, the failure latch, the end.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::reply::cause_of;
use super::stats::Counters;
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
