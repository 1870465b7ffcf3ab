//! Parked fetches, grouped by what they accept: one look answers for all that are alike.
//!
//! A group for which a look found nothing is not looked at again before there is news, whoever joins it. So what
//! a batch costs does not depend on how many fetches wait, and they are served first come first served still.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{FetchNo, Parked};

/// The fetches parked at one queue. `K` says what a fetch accepts: those with an equal one are alike.
#[derive(Debug)]
pub(crate) struct ParkedAlike<K, F> {
    fetches: Parked<(FetchNo, K, F)>,
    groups: BTreeMap<K, BTreeSet<FetchNo>>,
    /// Groups that may be in for something, by the first fetch of each.
    hopeful: BTreeMap<FetchNo, K>,
}

impl<K: Ord, F> Default for ParkedAlike<K, F> {
    fn default() -> Self {
        Self { fetches: Parked::default(), groups: BTreeMap::new(), hopeful: BTreeMap::new() }
    }
}

impl<K: Ord + Clone, F> ParkedAlike<K, F> {
    pub(crate) fn park(&mut self, no: FetchNo, deadline: Duration, accepts: K, fetch: F) {
        let group = self.groups.entry(accepts.clone()).or_default();
        let hopeful = match group.first() {
            None => true,
            Some(first) => no < *first && self.hopeful.remove(first).is_some(),
        };
        group.insert(no);
        if hopeful {
            self.hopeful.insert(no, accepts.clone());
        }
        self.fetches.park(no, deadline, (no, accepts, fetch));
    }

    pub(crate) fn take(&mut self, no: FetchNo) -> Option<F> {
        let (no, accepts, fetch) = self.fetches.take(no)?;
        self.leave(no, &accepts);
        Some(fetch)
    }

    /// The fetch has left the list: its group goes on with the next one.
    fn leave(&mut self, no: FetchNo, accepts: &K) {
        let Some(group) = self.groups.get_mut(accepts) else { return };
        group.remove(&no);
        let next = group.first().copied();
        if next.is_none() {
            self.groups.remove(accepts);
        }
        if let Some(accepts) = self.hopeful.remove(&no)
            && let Some(next) = next
        {
            self.hopeful.insert(next, accepts);
        }
    }

    /// The first fetch after `no` (or the very first) of those that are first in a group to be looked at, with
    /// what it accepts.
    pub(crate) fn next_hopeful(&self, no: Option<FetchNo>) -> Option<(FetchNo, &K)> {
        let mut after = match no {
            None => self.hopeful.range(..),
            Some(no) => self.hopeful.range(no + 1..),
        };
        after.next().map(|(no, accepts)| (*no, accepts))
    }

    /// There is nothing for the group that `no` is the first of.
    pub(crate) fn found_nothing(&mut self, no: FetchNo) {
        self.hopeful.remove(&no);
    }

    /// There is something that there was not when a group was last looked at.
    pub(crate) fn news(&mut self) {
        for (accepts, group) in &self.groups {
            if let Some(first) = group.first() {
                self.hopeful.entry(*first).or_insert_with(|| accepts.clone());
            }
        }
    }

    /// See [`Parked::pop_unserved`].
    pub(crate) fn pop_unserved(&mut self, now: Duration, hold: bool) -> Option<F> {
        let (no, accepts, fetch) = self.fetches.pop_unserved(now, hold)?;
        self.leave(no, &accepts);
        Some(fetch)
    }

    /// See [`Parked::holds`].
    pub(crate) fn holds(&self) -> bool {
        self.fetches.holds()
    }

    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        self.fetches.next_deadline()
    }

    pub(crate) fn len(&self) -> usize {
        self.fetches.len()
    }

    pub(crate) fn drain(&mut self) -> impl Iterator<Item = F> + use<K, F> {
        self.groups.clear();
        self.hopeful.clear();
        self.fetches.drain().map(|(.., fetch)| fetch)
    }
}
