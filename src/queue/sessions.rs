//! Sessions: which worker owns a session, and until when. Only in memory, like every lease.
//!
//! A session is known while it has items or a claim. A claim that has run out is kept, without an owner,
//! until [`Sessions::sweep`]: duroxide counts what it sweeps.
//!
//! A claim comes with a grant. Until somebody shows that they work on the session (a renewal, an
//! acknowledgement, a lease that ran its course) the claim is only as good as the grants made under it: when
//! the last of them is given back, it goes too.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::{LeaseNo, WorkId};

/// The place of a session in memory, free for another one once it is forgotten.
type SessionNo = usize;

#[derive(Debug)]
struct Session {
    id: Arc<str>,
    claim: Option<Claim>,
    /// Items of this session that nobody has leased and that are visible.
    ready: BTreeSet<WorkId>,
    /// All its items, leased and delayed ones included.
    items: usize,
}

#[derive(Debug)]
struct Claim {
    owner: Arc<str>,
    deadline: Duration,
    last_activity: Duration,
    expired: bool,
    /// The leases granted under the claim, as long as none of them is known to have been worked on.
    untried: Option<BTreeSet<LeaseNo>>,
}

/// All sessions.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    numbers: HashMap<Arc<str>, SessionNo>,
    places: Vec<Option<Session>>,
    free: Vec<SessionNo>,
    by_deadline: BTreeSet<(Duration, SessionNo)>,
    by_owner: HashMap<Arc<str>, BTreeSet<SessionNo>>,
    /// Those whose claim has run out and that have no items.
    left_over: BTreeSet<SessionNo>,
}

impl Sessions {
    fn get(&self, session: &str) -> Option<&Session> {
        self.places.get(*self.numbers.get(session)?)?.as_ref()
    }

    fn get_mut(&mut self, session: &str) -> Option<(SessionNo, &mut Session)> {
        let no = *self.numbers.get(session)?;
        Some((no, self.places.get_mut(no)?.as_mut()?))
    }

    fn at(&mut self, no: SessionNo) -> Option<&mut Session> {
        self.places.get_mut(no)?.as_mut()
    }

    fn known(&mut self, session: &Arc<str>) -> SessionNo {
        if let Some(no) = self.numbers.get(session) {
            return *no;
        }
        let new = Session { id: Arc::clone(session), claim: None, ready: BTreeSet::new(), items: 0 };
        let no = match self.free.pop() {
            Some(no) => no,
            None => {
                self.places.push(None);
                self.places.len() - 1
            }
        };
        self.places[no] = Some(new);
        self.numbers.insert(Arc::clone(session), no);
        no
    }

    fn forget(&mut self, no: SessionNo) {
        if let Some(session) = self.places.get_mut(no).and_then(Option::take) {
            self.numbers.remove(&session.id);
            self.free.push(no);
        }
    }

    fn disown(&mut self, owner: &str, no: SessionNo) {
        if let Some(owned) = self.by_owner.get_mut(owner) {
            owned.remove(&no);
            if owned.is_empty() {
                self.by_owner.remove(owner);
            }
        }
    }

    /// The worker that owns the session now.
    pub(super) fn owner(&self, session: &str) -> Option<Arc<str>> {
        let claim = self.get(session)?.claim.as_ref()?;
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
        let no = self.known(session);
        let Some(entry) = self.at(no) else { return };
        let before = entry.claim.take();
        let (mut untried, until) = (Some(BTreeSet::new()), before.as_ref().map(|claim| claim.deadline));
        let extended = before.filter(|claim| !claim.expired && claim.owner == *owner);
        let is_new = extended.is_none();
        if let Some(claim) = extended {
            untried = claim.untried;
        }
        if let Some(untried) = &mut untried {
            untried.insert(lease);
        }
        let owner = Arc::clone(owner);
        entry.claim =
            Some(Claim { owner: Arc::clone(&owner), deadline, last_activity: now, expired: false, untried });
        if let Some(until) = until {
            self.by_deadline.remove(&(until, no));
        }
        self.by_deadline.insert((deadline, no));
        if is_new {
            self.left_over.remove(&no);
            self.by_owner.entry(owner).or_default().insert(no);
        }
    }

    /// A grant came back from a worker that did not use it. If it was the last under a claim that nobody is
    /// known to work on, the session is nobody's again: returns who is not its owner any more.
    pub(super) fn unclaim(&mut self, session: &Arc<str>, lease: LeaseNo) -> Option<Arc<str>> {
        let (no, entry) = self.get_mut(session)?;
        let untried = entry.claim.as_mut().filter(|claim| !claim.expired)?.untried.as_mut()?;
        if !untried.remove(&lease) || !untried.is_empty() {
            return None;
        }
        let claim = entry.claim.take()?;
        if entry.items == 0 {
            self.forget(no);
        }
        self.by_deadline.remove(&(claim.deadline, no));
        self.disown(&claim.owner, no);
        Some(claim.owner)
    }

    /// The worker that was granted this lease may have gone to work: the claim it was granted under stays.
    pub(super) fn set_tried(&mut self, session: &str, lease: Option<LeaseNo>) {
        if let Some(lease) = lease
            && let Some((_, entry)) = self.get_mut(session)
            && let Some(claim) = &mut entry.claim
            && claim.untried.as_ref().is_some_and(|untried| untried.contains(&lease))
        {
            claim.untried = None;
        }
    }

    /// Notes that work on the session went on, if anybody still owns it.
    pub(super) fn touch(&mut self, session: &str, now: Duration) {
        if let Some((_, entry)) = self.get_mut(session)
            && let Some(claim) = &mut entry.claim
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
        let owners: BTreeSet<&str> = owners.iter().map(String::as_str).collect();
        let mut renewed = BTreeSet::new();
        for no in owners.into_iter().filter_map(|owner| self.by_owner.get(owner)).flatten() {
            let Some(session) = self.places.get_mut(*no).and_then(Option::as_mut) else { continue };
            let Some(claim) = &mut session.claim else { continue };
            if claim.last_activity.saturating_add(idle_timeout) <= now {
                continue;
            }
            self.by_deadline.remove(&(claim.deadline, *no));
            claim.untried = None;
            claim.deadline = deadline;
            renewed.insert((deadline, *no));
        }
        let count = renewed.len();
        // Merging two sets walks both of them.
        if count > self.by_deadline.len() / 16 {
            self.by_deadline.append(&mut renewed);
        } else {
            self.by_deadline.extend(renewed);
        }
        count
    }

    /// The next session whose claim has run out, with its former owner.
    pub(super) fn pop_expired(&mut self, now: Duration) -> Option<(Arc<str>, Arc<str>)> {
        if self.by_deadline.first()?.0 > now {
            return None;
        }
        let (_, no) = self.by_deadline.pop_first()?;
        let session = self.at(no)?;
        let claim = session.claim.as_mut()?;
        claim.expired = true;
        let (id, owner, items) = (Arc::clone(&session.id), Arc::clone(&claim.owner), session.items);
        if items == 0 {
            self.left_over.insert(no);
        }
        self.disown(&owner, no);
        Some((id, owner))
    }

    pub(super) fn next_deadline(&self) -> Option<Duration> {
        self.by_deadline.first().map(|(deadline, _)| *deadline)
    }

    /// Removes claims that have run out and have no items left; returns how many.
    pub(super) fn sweep(&mut self) -> usize {
        let left_over = std::mem::take(&mut self.left_over);
        for no in &left_over {
            self.forget(*no);
        }
        left_over.len()
    }

    /// Counts an item of the session, and has it share the session's id.
    pub(super) fn add_item(&mut self, session: &mut Arc<str>) {
        let no = self.known(session);
        self.left_over.remove(&no);
        if let Some(entry) = self.at(no) {
            entry.items += 1;
            *session = Arc::clone(&entry.id);
        }
    }

    pub(super) fn remove_item(&mut self, session: &str) {
        let Some((no, entry)) = self.get_mut(session) else { return };
        entry.items -= 1;
        if entry.items > 0 {
            return;
        }
        match &entry.claim {
            None => self.forget(no),
            Some(claim) if claim.expired => {
                self.left_over.insert(no);
            }
            Some(_) => {}
        }
    }

    pub(super) fn set_ready(&mut self, session: &str, item: WorkId, ready: bool) {
        if let Some((_, session)) = self.get_mut(session) {
            if ready {
                session.ready.insert(item);
            } else {
                session.ready.remove(&item);
            }
        }
    }

    pub(super) fn ready_items(&self, session: &str) -> Vec<WorkId> {
        self.get(session).map_or_else(Vec::new, |session| session.ready.iter().copied().collect())
    }
}
