//! Matching parked fetches with ready work: exactly as many fetches are woken as there is work for.
//!
//! First all that fit are paired in memory, then what their grants need is loaded in one call (grants.rs). A fetch whose
//! item turns out to be unreadable is parked again, in its place, and the matching goes on.

use std::collections::BTreeMap;
use std::sync::Arc;

use duroxide::providers::DispatcherCapabilityFilter;
use semver::Version;

use super::op::{FetchTurn, FetchWork, Reply};
use super::undo::Undo;
use super::{Engine, TurnFetch, WorkFetch};
use crate::buffer::{Replies, Responder};
use crate::error::Error;
use crate::queue::{Body, InstanceNo, LeaseNo, Message, MessageId, Next, Schedule, Wants, WorkId};

/// How many instances one batch looks at for turns that fetches may not have in the end; the next one goes on at
/// once.
const LOOKS_MAX: usize = 256;

/// The pinned versions a fetch accepts: ranges, both ends included. `None` accepts everything.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Accepts(Option<Arc<[(Version, Version)]>>);

impl Accepts {
    fn new(filter: Option<&DispatcherCapabilityFilter>) -> Self {
        let ranges = |filter: &DispatcherCapabilityFilter| {
            let ranges = filter.supported_duroxide_versions.iter();
            ranges.map(|range| (range.min.clone(), range.max.clone())).collect()
        };
        Self(filter.map(ranges))
    }

    fn admits(&self, pinned: Option<&Version>) -> bool {
        match (&self.0, pinned) {
            (None, _) => true,
            // Supporting nothing means nothing, not even what is pinned to nothing.
            (Some(ranges), None) => !ranges.is_empty(),
            (Some(ranges), Some(pinned)) => ranges.iter().any(|(min, max)| min <= pinned && pinned <= max),
        }
    }

    /// Whether there is nothing it accepts.
    fn is_empty(&self) -> bool {
        self.0.as_ref().is_some_and(|ranges| ranges.is_empty())
    }
}

/// A fetch, and the instance it is to be given with the messages that are visible now.
pub(super) struct PairedTurn {
    pub(super) accepts: Accepts,
    pub(super) fetch: TurnFetch,
    pub(super) lease: LeaseNo,
    pub(super) instance: InstanceNo,
    pub(super) messages: BTreeMap<MessageId, Message>,
}

/// A fetch, and the activity it is to be given, which is under its lease already.
pub(super) struct PairedWork {
    pub(super) wants: Wants,
    pub(super) fetch: WorkFetch,
    pub(super) lease: LeaseNo,
    pub(super) id: WorkId,
    pub(super) schedule: Schedule,
    pub(super) body: Option<Body>,
    /// The commit that scheduled it.
    pub(super) scheduled_in: u64,
}

impl Engine {
    pub(super) fn park_turn(&mut self, fetch: FetchTurn, responder: Responder<Reply>) {
        // A future dropped before its fetch got here has been on the list of returns already.
        if responder.is_abandoned() {
            return;
        }
        let deadline = self.now.monotonic.saturating_add(fetch.poll_timeout);
        let FetchTurn { no, lock_timeout, filter, .. } = fetch;
        let parked = TurnFetch { no, deadline, lock_timeout, responder };
        self.turns.parked.park(no, deadline, Accepts::new(filter.as_ref()), parked);
    }

    pub(super) fn park_work(&mut self, fetch: FetchWork, responder: Responder<Reply>) {
        if responder.is_abandoned() {
            return;
        }
        let deadline = self.now.monotonic.saturating_add(fetch.poll_timeout);
        let FetchWork { no, lock_timeout, session, tags, .. } = fetch;
        let (owner, session_timeout) = session.unzip();
        let session_timeout = session_timeout.unwrap_or_default();
        let parked = WorkFetch { no, deadline, lock_timeout, session_timeout, responder };
        self.work.parked.park(no, deadline, Wants { owner, tags }, parked);
    }

    pub(super) fn match_turns(&mut self, out: &mut Replies<Reply>) {
        self.turns.looks_left = false;
        // One look for each instance that came in with this batch, and some more, so that it comes to an end.
        let mut looks = LOOKS_MAX.saturating_add(self.turns.instances.take_newly_unread());
        if self.turns.instances.take_news() {
            self.turns.parked.news();
        }
        loop {
            let paired = match self.pair_turns(&mut looks) {
                Ok(paired) => paired,
                // Nobody can tell what any of them may have.
                Err(error) => {
                    for fetch in self.turns.parked.drain() {
                        out.push_standing(fetch.responder, Err(error.clone()));
                    }
                    return;
                }
            };
            if paired.is_empty() || !self.grant_turns(paired, out) {
                return;
            }
        }
    }

    /// Takes the fetches that can be served, each with an instance that is under its lease from here on.
    fn pair_turns(&mut self, looks: &mut usize) -> Result<Vec<PairedTurn>, Error> {
        let (mut paired, mut walked) = (Vec::new(), None);
        while self.turns.instances.has_candidates()
            && let Some((no, accepts)) = self.turns.parked.next_hopeful(walked)
        {
            if accepts.is_empty() {
                self.turns.parked.found_nothing(no);
                continue;
            }
            match self.turns.instances.next(|pinned| accepts.admits(pinned)) {
                Next::Nothing => self.turns.parked.found_nothing(no),
                Next::Ready(instance) => {
                    let accepts = accepts.clone();
                    if let Some(fetch) = self.turns.parked.take(no)
                        && !fetch.responder.is_abandoned()
                    {
                        let lease = self.new_lease();
                        let messages = self.turns.instances.lease(instance, lease);
                        paired.push(PairedTurn { accepts, fetch, lease, instance, messages });
                    }
                }
                Next::Orphaned(instance) => self.drop_orphans(instance),
                Next::Unread(_) if *looks == 0 => {
                    self.turns.looks_left = true;
                    walked = Some(no);
                }
                Next::Unread(_) => {
                    // As many as there are fetches that may want one.
                    let many = self.turns.parked.len().min(*looks);
                    let looked_at = match self.look_at_oldest(many) {
                        Ok(looked_at) => looked_at,
                        // What is paired already goes back: it is granted by the next batch.
                        Err(error) if paired.is_empty() => return Err(error),
                        Err(_) => {
                            self.turns.looks_left = true;
                            return Ok(paired);
                        }
                    };
                    *looks -= looked_at;
                }
            }
        }
        Ok(paired)
    }

    /// Looks at the rows of the oldest instances that nobody has looked at, and tells how many. An error is for whoever
    /// might have had the oldest.
    fn look_at_oldest(&mut self, many: usize) -> Result<usize, Error> {
        let numbers = self.turns.instances.oldest_unread(many);
        let ids: Vec<Arc<str>> =
            numbers.iter().filter_map(|no| self.turns.instances.id(*no).cloned()).collect();
        let found = self.store.instances(&ids);
        for (place, ((no, id), found)) in numbers.iter().zip(&ids).zip(found).enumerate() {
            match found {
                Ok(found) => {
                    self.learn_found(*no, id, found);
                }
                Err(error) if place == 0 || error.is_damage() => {
                    if let Some(error) = self.hold_back_turn(*no, error) {
                        return Err(error);
                    }
                }
                // It is looked at again when it is the oldest.
                Err(_) => {}
            }
        }
        Ok(numbers.len())
    }

    /// Drops queued events that came before their instance started and would be next.
    fn drop_orphans(&mut self, no: InstanceNo) {
        let Some(instance) = self.turns.instances.id(no).cloned() else { return };
        let messages = self.turns.instances.take_visible(no);
        tracing::warn!(
            %instance,
            messages = messages.len(),
            "dropping queued events for an instance that has not started"
        );
        for id in messages.keys() {
            self.staged.messages.delete(*id);
        }
        self.batch.undo.push(Undo::Dropped { instance: no, id: instance, messages });
    }

    pub(super) fn match_work(&mut self, out: &mut Replies<Reply>) {
        loop {
            let mut paired = Vec::new();
            let gone = |fetch: &WorkFetch| fetch.responder.is_abandoned();
            while let Some((wants, fetch, id)) =
                self.work.parked.next_match(&mut self.work.items, self.now.monotonic, gone)
            {
                let lease = self.new_lease();
                let session_until = self.now.monotonic.saturating_add(fetch.session_timeout);
                let session = wants.owner.as_ref().map(|owner| (owner, session_until));
                let scheduled_in = self.work.items.get(id).map_or(0, |entry| entry.scheduled_in);
                let Some((schedule, body)) = self.work.items.lease(id, lease, session, self.now) else {
                    break;
                };
                paired.push(PairedWork { wants, fetch, lease, id, schedule, body, scheduled_in });
            }
            if paired.is_empty() || !self.grant_work(paired, out) {
                return;
            }
        }
    }

    /// Parks a fetch again, in its place among the others.
    pub(super) fn park_turn_again(&mut self, accepts: Accepts, fetch: TurnFetch) {
        self.turns.parked.park(fetch.no, fetch.deadline, accepts, fetch);
    }

    pub(super) fn park_work_again(&mut self, wants: Wants, fetch: WorkFetch) {
        self.work.parked.park(fetch.no, fetch.deadline, wants, fetch);
    }

    pub(super) fn new_lease(&mut self) -> LeaseNo {
        let lease = self.next_lease;
        self.next_lease += 1;
        lease
    }
}
