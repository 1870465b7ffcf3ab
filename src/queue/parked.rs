//! Fetches that found nothing and wait, first come first served.
//!
//! "Nothing" is said only when it is true: while a grant is on its way to its receiver it may still come back,
//! because the receiver's future may have been dropped meanwhile. A fetch whose time is up is then held for a
//! moment, and can still be served; for how long is the caller's to say.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Numbers fetches in the order they were made.
pub(crate) type FetchNo = u64;

/// The fetches parked at one queue.
#[derive(Debug)]
pub(crate) struct Parked<F> {
    waiting: BTreeMap<FetchNo, (Duration, F)>,
    /// Those whose time is not up yet.
    by_deadline: BTreeSet<(Duration, FetchNo)>,
    /// Those whose time is up and that are held.
    held: BTreeSet<FetchNo>,
}

impl<F> Default for Parked<F> {
    fn default() -> Self {
        Self { waiting: BTreeMap::new(), by_deadline: BTreeSet::new(), held: BTreeSet::new() }
    }
}

impl<F> Parked<F> {
    pub(crate) fn park(&mut self, no: FetchNo, deadline: Duration, fetch: F) {
        self.waiting.insert(no, (deadline, fetch));
        self.by_deadline.insert((deadline, no));
    }

    pub(crate) fn take(&mut self, no: FetchNo) -> Option<F> {
        let (deadline, fetch) = self.waiting.remove(&no)?;
        self.by_deadline.remove(&(deadline, no));
        self.held.remove(&no);
        Some(fetch)
    }

    /// The first fetch parked after `no` (or the very first), to walk them in order while some are taken.
    #[cfg(any(test, feature = "test-hooks"))]
    pub(crate) fn next_after(&self, no: Option<FetchNo>) -> Option<(FetchNo, &F)> {
        let mut after = match no {
            None => self.waiting.range(..),
            Some(no) => self.waiting.range(no + 1..),
        };
        after.next().map(|(no, (_, fetch))| (*no, fetch))
    }

    pub(crate) fn get(&self, no: FetchNo) -> Option<&F> {
        self.waiting.get(&no).map(|(_, fetch)| fetch)
    }

    #[cfg(test)]
    pub(super) fn deadline(&self, no: FetchNo) -> Option<Duration> {
        self.waiting.get(&no).map(|(deadline, _)| *deadline)
    }

    /// Has the fetch wait no longer than until `deadline`.
    pub(crate) fn hurry(&mut self, no: FetchNo, deadline: Duration) {
        if let Some((waits_until, _)) = self.waiting.get_mut(&no)
            && *waits_until > deadline
            && self.by_deadline.remove(&(*waits_until, no))
        {
            *waits_until = deadline;
            self.by_deadline.insert((deadline, no));
        }
    }

    /// Takes the next fetch that is to be told that there is nothing; `hold` keeps it for now instead.
    pub(crate) fn pop_unserved(&mut self, now: Duration, hold: bool) -> Option<F> {
        let no = self.next_unserved(now, hold)?;
        self.take(no)
    }

    /// The fetch that [`pop_unserved`](Self::pop_unserved) takes.
    pub(crate) fn next_unserved(&mut self, now: Duration, hold: bool) -> Option<FetchNo> {
        while let Some(&(deadline, no)) = self.by_deadline.first()
            && deadline <= now
        {
            self.by_deadline.pop_first();
            self.held.insert(no);
        }
        self.held.first().filter(|_| !hold).copied()
    }

    /// Whether some are held.
    pub(crate) fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        self.by_deadline.first().map(|(deadline, _)| *deadline)
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(crate) fn drain(&mut self) -> impl Iterator<Item = F> + use<F> {
        self.by_deadline.clear();
        self.held.clear();
        std::mem::take(&mut self.waiting).into_values().map(|(_, fetch)| fetch)
    }
}
