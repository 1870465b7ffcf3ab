//! Sessions: which worker owns a session, and until when. Only in memory, like every lease.
//!
//! A session is known while it has items or a claim. A claim that has run out is kept, without an owner,
//! until [`Sessions::sweep`]: duroxide counts what it sweeps.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::{LeaseNo, WorkId};

#[derive(Debug, Default)]
struct Session {
    claim: Option<Claim>,
    /// Items of this session that nobody has leased and that are visible.
    ready: BTreeSet<WorkId>,
    /// All its items, leased and delayed ones included.
    items: usize,
}

#[derive(Debug, Clone)]
struct Claim {
    owner: Arc<str>,
    deadline: Duration,
    last_activity: Duration,
    expired: bool,
    /// The lease that came with the claim, until it is extended.
    claimed_with: Option<LeaseNo>,
}

/// All sessions.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    sessions: HashMap<Arc<str>, Session>,
    by_deadline: BTreeSet<(Duration, Arc<str>)>,
}

impl Sessions {
    /// The worker that owns the session now.
    pub(super) fn owner(&self, session: &str) -> Option<Arc<str>> {
        let claim = self.sessions.get(session)?.claim.as_ref()?;
        (!claim.expired).then(|| Arc::clone(&claim.owner))
    }

    /// Gives a session, new or ownerless, to a worker, or extends what it owns already.
    pub(super) fn claim(
        &mut self,
        session: &Arc<str>,
        owner: &Arc<str>,
        deadline: Duration,
        now: Duration,
        lease: LeaseNo,
    ) {
        let claimed_with = self.owner(session).is_none().then_some(lease);
        let owner = Arc::clone(owner);
        let claim = Claim { owner, deadline, last_activity: now, expired: false, claimed_with };
        let entry = self.sessions.entry(Arc::clone(session)).or_default();
        if let Some(before) = entry.claim.replace(claim) {
            self.by_deadline.remove(&(before.deadline, Arc::clone(session)));
        }
        self.by_deadline.insert((deadline, Arc::clone(session)));
    }

    /// The grant that claimed a session never reached its worker: the session is nobody's again. Returns who
    /// is not its owner any more; `None` if the claim was there before, or has been extended since.
    pub(super) fn unclaim(&mut self, session: &Arc<str>, lease: LeaseNo) -> Option<Arc<str>> {
        let entry = self.sessions.get_mut(session)?;
        let claim = entry.claim.take_if(|claim| claim.claimed_with == Some(lease))?;
        self.by_deadline.remove(&(claim.deadline, Arc::clone(session)));
        Some(claim.owner)
    }

    /// Notes that work on the session went on, if anybody still owns it.
    pub(super) fn touch(&mut self, session: &str, now: Duration) {
        if let Some(claim) = self.sessions.get_mut(session).and_then(|session| session.claim.as_mut())
            && !claim.expired
        {
            claim.last_activity = now;
        }
    }

    /// Extends the sessions of `owners` in which something happened within `idle_timeout`; returns how many.
    pub(super) fn renew(
        &mut self,
        owners: &[String],
        deadline: Duration,
        idle_timeout: Duration,
        now: Duration,
    ) -> usize {
        let mut renewed = 0;
        for (id, session) in &mut self.sessions {
            let Some(claim) = session.claim.as_mut().filter(|claim| !claim.expired) else { continue };
            let idle = claim.last_activity.saturating_add(idle_timeout) <= now;
            if idle || !owners.iter().any(|owner| **owner == *claim.owner) {
                continue;
            }
            self.by_deadline.remove(&(claim.deadline, Arc::clone(id)));
            claim.claimed_with = None;
            claim.deadline = deadline;
            self.by_deadline.insert((deadline, Arc::clone(id)));
            renewed += 1;
        }
        renewed
    }

    /// The next session whose claim has run out, with its former owner.
    pub(super) fn pop_expired(&mut self, now: Duration) -> Option<(Arc<str>, Arc<str>)> {
        if self.by_deadline.first()?.0 > now {
            return None;
        }
        let (_, id) = self.by_deadline.pop_first()?;
        let claim = self.sessions.get_mut(&id)?.claim.as_mut()?;
        claim.expired = true;
        Some((id, Arc::clone(&claim.owner)))
    }

    pub(super) fn next_deadline(&self) -> Option<Duration> {
        self.by_deadline.first().map(|(deadline, _)| *deadline)
    }

    /// Removes claims that have run out and have no items left; returns how many.
    pub(super) fn sweep(&mut self) -> usize {
        let before = self.sessions.len();
        self.sessions.retain(|_, session| {
            session.items > 0 || session.claim.as_ref().is_some_and(|claim| !claim.expired)
        });
        before - self.sessions.len()
    }

    pub(super) fn add_item(&mut self, session: &Arc<str>) {
        self.sessions.entry(Arc::clone(session)).or_default().items += 1;
    }

    pub(super) fn remove_item(&mut self, session: &str) {
        if let Some(entry) = self.sessions.get_mut(session) {
            entry.items -= 1;
            if entry.items == 0 && entry.claim.is_none() {
                self.sessions.remove(session);
            }
        }
    }

    pub(super) fn set_ready(&mut self, session: &str, item: WorkId, ready: bool) {
        if let Some(session) = self.sessions.get_mut(session) {
            if ready {
                session.ready.insert(item);
            } else {
                session.ready.remove(&item);
            }
        }
    }

    pub(super) fn ready_items(&self, session: &str) -> Vec<WorkId> {
        self.sessions.get(session).map_or_else(Vec::new, |session| session.ready.iter().copied().collect())
    }
}
