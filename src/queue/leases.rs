//! Leases: who may finish what, until when. Only in memory: a restart frees every one of them.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

/// The number inside a lock token. Never used twice by one engine.
pub(crate) type LeaseNo = u64;

/// The leases of one queue, with what each of them holds.
#[derive(Debug)]
pub(crate) struct Leases<T> {
    held: HashMap<LeaseNo, (Duration, T)>,
    by_deadline: BTreeSet<(Duration, LeaseNo)>,
}

impl<T> Default for Leases<T> {
    fn default() -> Self {
        Self { held: HashMap::new(), by_deadline: BTreeSet::new() }
    }
}

impl<T> Leases<T> {
    /// A lease is over at its deadline, not after it.
    pub(crate) fn grant(&mut self, no: LeaseNo, deadline: Duration, what: T) {
        self.held.insert(no, (deadline, what));
        self.by_deadline.insert((deadline, no));
    }

    pub(crate) fn get(&self, no: LeaseNo) -> Option<&T> {
        self.held.get(&no).map(|(_, what)| what)
    }

    pub(crate) fn get_mut(&mut self, no: LeaseNo) -> Option<&mut T> {
        self.held.get_mut(&no).map(|(_, what)| what)
    }

    /// Whether a lease was held at an instant: it is not over, or ran out later than that.
    pub(crate) fn is_held(&self, no: LeaseNo, at: Duration) -> bool {
        self.held.get(&no).is_some_and(|(deadline, _)| *deadline > at)
    }

    /// Moves the deadline; false if there is no such lease.
    pub(crate) fn renew(&mut self, no: LeaseNo, deadline: Duration) -> bool {
        let Some((held_until, _)) = self.held.get_mut(&no) else { return false };
        self.by_deadline.remove(&(*held_until, no));
        *held_until = deadline;
        self.by_deadline.insert((deadline, no));
        true
    }

    /// Ends a lease, giving back its deadline and what it held.
    pub(crate) fn end(&mut self, no: LeaseNo) -> Option<(Duration, T)> {
        let (deadline, what) = self.held.remove(&no)?;
        self.by_deadline.remove(&(deadline, no));
        Some((deadline, what))
    }

    /// What is held by leases that have run out and have not been ended yet.
    pub(crate) fn expired(&self, now: Duration) -> impl Iterator<Item = &T> {
        let over = self.by_deadline.iter().take_while(move |(deadline, _)| *deadline <= now);
        over.filter_map(|(_, no)| self.get(*no))
    }

    /// Ends the next lease that has run out.
    pub(crate) fn pop_expired(&mut self, now: Duration) -> Option<(LeaseNo, T)> {
        let &(deadline, no) = self.by_deadline.first()?;
        if deadline > now {
            return None;
        }
        self.end(no).map(|(_, what)| (no, what))
    }

    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        self.by_deadline.first().map(|(deadline, _)| *deadline)
    }
}
