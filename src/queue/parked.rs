//! Fetches that found nothing and wait, first come first served.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Numbers fetches in the order they were made.
pub(crate) type FetchNo = u64;

/// The fetches parked at one queue.
#[derive(Debug)]
pub(crate) struct Parked<F> {
    waiting: BTreeMap<FetchNo, (Duration, F)>,
    by_deadline: BTreeSet<(Duration, FetchNo)>,
}

impl<F> Default for Parked<F> {
    fn default() -> Self {
        Self { waiting: BTreeMap::new(), by_deadline: BTreeSet::new() }
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
        Some(fetch)
    }

    /// The first fetch parked after `no` (or the very first), to walk them in order while some are taken.
    pub(crate) fn next_after(&self, no: Option<FetchNo>) -> Option<(FetchNo, &F)> {
        let mut after = match no {
            None => self.waiting.range(..),
            Some(no) => self.waiting.range(no + 1..),
        };
        after.next().map(|(no, (_, fetch))| (*no, fetch))
    }

    /// Takes the next fetch whose time is up.
    pub(crate) fn pop_expired(&mut self, now: Duration) -> Option<F> {
        let &(deadline, no) = self.by_deadline.first()?;
        if deadline > now {
            return None;
        }
        self.take(no)
    }

    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        self.by_deadline.first().map(|(deadline, _)| *deadline)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(crate) fn drain(&mut self) -> impl Iterator<Item = F> + use<F> {
        self.by_deadline.clear();
        std::mem::take(&mut self.waiting).into_values().map(|(_, fetch)| fetch)
    }
}
