//! What comes back from callers that went away: parked fetches that nobody waits for any more, and grants
//! that were on their way when their future was dropped.
//!
//! Dropping a future cannot wait for room in the buffer, so these go past it, through a list of their own.
//! Grants are counted until their receiver has them, because until then they may come back.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use crate::queue::{FetchNo, LeaseNo};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Return {
    Fetch(FetchNo),
    Turn(LeaseNo),
    Work(LeaseNo),
}

/// The list, and how to make the writer look at it.
#[derive(Default)]
pub(crate) struct Returns {
    list: Mutex<Vec<Return>>,
    nudge: OnceLock<Box<dyn Fn() + Send + Sync>>,
    turns_on_their_way: AtomicUsize,
    work_on_its_way: AtomicUsize,
    /// Whether the writer wants to know when a grant has arrived.
    report_receipts: AtomicBool,
}

impl Returns {
    /// False if that has been said before.
    pub(crate) fn on_arrival(&self, nudge: impl Fn() + Send + Sync + 'static) -> bool {
        self.nudge.set(Box::new(nudge)).is_ok()
    }

    pub(crate) fn turns_on_their_way(&self) -> bool {
        self.turns_on_their_way.load(Ordering::Acquire) > 0
    }

    pub(crate) fn work_on_its_way(&self) -> bool {
        self.work_on_its_way.load(Ordering::Acquire) > 0
    }

    pub(crate) fn report_receipts(&self, report: bool) {
        self.report_receipts.store(report, Ordering::Release);
    }

    fn on_its_way(&self, what: Return) -> Option<&AtomicUsize> {
        match what {
            Return::Turn(_) => Some(&self.turns_on_their_way),
            Return::Work(_) => Some(&self.work_on_its_way),
            Return::Fetch(_) => None,
        }
    }

    pub(crate) fn push(&self, what: Return) {
        self.list.lock().push(what);
        self.nudge();
    }

    /// Makes the writer look at its store again; false before there is a writer.
    pub(crate) fn nudge(&self) -> bool {
        let Some(nudge) = self.nudge.get() else { return false };
        nudge();
        true
    }

    pub(crate) fn take(&self) -> Vec<Return> {
        std::mem::take(&mut *self.list.lock())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.list.lock().is_empty()
    }
}

/// Takes a grant back unless its receiver kept it.
pub(crate) struct LeaseGuard {
    what: Return,
    returns: Arc<Returns>,
    kept: bool,
}

impl LeaseGuard {
    pub(crate) fn new(what: Return, returns: Arc<Returns>) -> Self {
        if let Some(on_its_way) = returns.on_its_way(what) {
            on_its_way.fetch_add(1, Ordering::AcqRel);
        }
        Self { what, returns, kept: false }
    }

    /// The grant has reached its caller, who answers for it from here on. Returns the lease's number.
    pub(crate) fn keep(mut self) -> LeaseNo {
        self.kept = true;
        match self.what {
            Return::Turn(lease) | Return::Work(lease) | Return::Fetch(lease) => lease,
        }
    }
}

impl Drop for LeaseGuard {
    fn drop(&mut self) {
        if !self.kept {
            // Before it counts as arrived: who waits for it must find it.
            self.returns.push(self.what);
        }
        if let Some(on_its_way) = self.returns.on_its_way(self.what) {
            on_its_way.fetch_sub(1, Ordering::AcqRel);
        }
        if self.returns.report_receipts.load(Ordering::Acquire) {
            self.returns.nudge();
        }
    }
}

/// Takes a parked fetch back when its future is dropped before it was answered.
pub(crate) struct FetchGuard<'a> {
    no: FetchNo,
    returns: &'a Returns,
    answered: bool,
}

impl<'a> FetchGuard<'a> {
    pub(crate) fn new(no: FetchNo, returns: &'a Returns) -> Self {
        Self { no, returns, answered: false }
    }

    pub(crate) fn answered(mut self) {
        self.answered = true;
    }
}

impl Drop for FetchGuard<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.returns.push(Return::Fetch(self.no));
        }
    }
}
