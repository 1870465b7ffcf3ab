//! Activities: who may have which, and the sessions that bind them to workers.

use std::collections::BTreeSet;

use duroxide::providers::WorkItem;

use super::{Claim, Lease, Model, Waiting};
use crate::answer::Answer;
use crate::op::{IDLE, LOCK, Set, TAGS, Tags, Token, members};
use crate::planned::{tag_name, worker_name};

impl Model {
    pub(crate) fn work_token(&self, token: Token) -> Option<usize> {
        self.work_leases.len().checked_sub(1 + usize::from(token))
    }

    pub(super) fn standing_work(&mut self, token: usize) -> Option<&mut Lease> {
        let now = self.now;
        Some(&mut self.work_leases[token]).filter(|lease| !lease.ended && lease.deadline > now)
    }

    pub(super) fn end_work(&mut self, token: usize) -> Option<Vec<u64>> {
        let lease = self.standing_work(token)?;
        lease.ended = true;
        Some(lease.items.clone())
    }

    /// The oldest activity this worker may have.
    fn pick_work(&self, worker: Option<u8>, tags: Tags) -> Option<u64> {
        let leased = Self::leased(&self.work_leases, self.now);
        let may = |waiting: &&Waiting| {
            let session = session_of(&waiting.item);
            let owner = session.as_ref().and_then(|session| self.owner(session));
            let in_session = match (&session, worker) {
                (None, _) => true,
                (Some(_), None) => false,
                (Some(_), Some(worker)) => owner.is_none_or(|owner| owner == worker_name(worker)),
            };
            waiting.due <= self.wall
                && !leased.contains(&waiting.no)
                && in_session
                && fits(&waiting.item, tags)
        };
        self.work.iter().find(may).map(|waiting| waiting.no)
    }

    fn owner(&self, session: &str) -> Option<String> {
        let claim = self.claims.get(session).filter(|claim| claim.deadline > self.now)?;
        Some(claim.worker.clone())
    }

    pub(super) fn fetch_work(&mut self, worker: Option<u8>, tags: Tags) -> Option<(WorkItem, u32)> {
        let no = self.pick_work(worker, tags)?;
        let (now, deadline) = (self.now, self.now + LOCK);
        let waiting = self.work.iter_mut().find(|waiting| waiting.no == no)?;
        waiting.attempt += 1;
        let waiting = waiting.clone();
        if let (Some(session), Some(worker)) = (session_of(&waiting.item), worker) {
            let mut untried = match self.owner(&session) {
                Some(_) => self.claims[&session].untried.clone(),
                None => Some(BTreeSet::new()),
            };
            if let Some(untried) = &mut untried {
                untried.insert(self.work_leases.len());
            }
            let claim = Claim { worker: worker_name(worker), deadline, last_activity: now, untried };
            self.claims.insert(session, claim);
        }
        self.work_leases.push(Lease { instance: waiting.to, items: vec![no], deadline, ended: false });
        Some((waiting.item, waiting.attempt))
    }

    /// A fetch whose receiver went away takes nothing, and claims nothing it did not have; what it had is
    /// extended.
    pub(super) fn drop_work_fetch(&mut self, worker: Option<u8>) {
        let Some(no) = self.pick_work(worker, Tags::Any) else { return };
        let (now, deadline) = (self.now, self.now + LOCK);
        let session = self.work.iter().find(|waiting| waiting.no == no).and_then(|w| session_of(&w.item));
        let Some(session) = session else { return };
        match self.owner(&session) {
            Some(worker) => {
                let untried = self.claims[&session].untried.clone();
                self.claims.insert(session, Claim { worker, deadline, last_activity: now, untried });
            }
            None => drop(self.claims.remove(&session)),
        }
    }

    /// The claim, if it stands, of the session that the activity of a lease is in.
    fn claim_of(&mut self, token: usize) -> Option<&mut Claim> {
        let (now, no) = (self.now, self.work_leases[token].items[0]);
        let waiting = self.work.iter().find(|waiting| waiting.no == no)?;
        self.claims.get_mut(&session_of(&waiting.item)?).filter(|claim| claim.deadline > now)
    }

    pub(super) fn touch_session_of(&mut self, token: usize) {
        let now = self.now;
        if let Some(claim) = self.claim_of(token) {
            claim.last_activity = now;
            claim.untried = claim.untried.take().filter(|untried| !untried.contains(&token));
        }
    }

    /// The last grant to be given back under a claim that nobody has worked under takes the claim along.
    pub(super) fn unclaim_session_of(&mut self, token: usize) {
        let Some(untried) = self.claim_of(token).and_then(|claim| claim.untried.as_mut()) else { return };
        if untried.remove(&token) && untried.is_empty() {
            let no = self.work_leases[token].items[0];
            let session = self.work.iter().find(|waiting| waiting.no == no).and_then(|w| session_of(&w.item));
            session.and_then(|session| self.claims.remove(&session));
        }
    }

    pub(crate) fn ack_work(&mut self, token: usize, completion: Option<WorkItem>) -> Answer {
        let Some(items) = self.end_work(token) else { return Answer::Refused };
        self.touch_session_of(token);
        self.work.retain(|waiting| waiting.no != items[0]);
        if let Some(item) = completion {
            self.enqueue(item, None);
        }
        Answer::Done
    }

    pub(super) fn renew_sessions(&mut self, workers: Set) -> usize {
        let (now, workers) = (self.now, members(workers).map(worker_name).collect::<BTreeSet<_>>());
        let mut renewed = 0;
        for claim in self.claims.values_mut() {
            if workers.contains(&claim.worker) && claim.deadline > now && claim.last_activity + IDLE > now {
                claim.deadline = now + LOCK;
                claim.untried = None;
                renewed += 1;
            }
        }
        renewed
    }

    pub(super) fn sweep_sessions(&mut self) -> usize {
        let busy: BTreeSet<String> =
            self.work.iter().filter_map(|waiting| session_of(&waiting.item)).collect();
        let before = self.claims.len();
        let now = self.now;
        self.claims.retain(|session, claim| claim.deadline > now || busy.contains(session));
        before - self.claims.len()
    }
}

fn session_of(item: &WorkItem) -> Option<String> {
    let WorkItem::ActivityExecute { session_id, .. } = item else { return None };
    session_id.clone()
}

fn fits(item: &WorkItem, tags: Tags) -> bool {
    let WorkItem::ActivityExecute { tag, .. } = item else { return false };
    let is_one_of = |wanted: Set| {
        let tag = tag.as_deref();
        (0..TAGS).any(|no| tag == Some(tag_name(no).as_str()) && wanted & (1 << no) != 0)
    };
    match tags {
        Tags::DefaultOnly => tag.is_none(),
        Tags::Only(wanted) => is_one_of(wanted),
        Tags::DefaultAnd(wanted) => tag.is_none() || is_one_of(wanted),
        Tags::Any => true,
        Tags::None => false,
    }
}
