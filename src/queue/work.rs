//! Activities waiting for a worker.
//!
//! Ready items lie in lanes by who may take them (nobody's session, an unclaimed session, a worker's own
//! session) and by tag; within a lane the oldest comes first (lanes.rs). A fetch looks at the heads of the lanes
//! it may take from, so what it may not take costs it nothing.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use duroxide::providers::TagFilter;

use super::lanes::{Class, Lane, Lanes};
use super::sessions::Sessions;
use super::{Body, LeaseNo, Now, Schedule, VISIBLE, WorkId};

/// Which activity it is, and who may run it: what never changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Activity {
    pub(crate) instance: Arc<str>,
    pub(crate) execution: u64,
    pub(crate) id: u64,
    pub(crate) session: Option<Arc<str>>,
    pub(crate) tag: Option<Arc<str>>,
}

/// One activity waiting to run, or running under a lease.
#[derive(Debug)]
pub(crate) struct WorkEntry {
    pub(crate) activity: Activity,
    pub(crate) schedule: Schedule,
    pub(crate) lease: Option<LeaseNo>,
    pub(crate) body: Option<Body>,
    /// The commit that scheduled it: nobody may act on it before that is durable.
    pub(crate) scheduled_in: u64,
}

/// Execution, activity, row.
type Place = (u64, u64, WorkId);

/// The items of one instance. Most have one, which needs no set of its own.
#[derive(Debug)]
enum Activities {
    One(Place),
    Many(BTreeSet<Place>),
}

impl Activities {
    fn insert(&mut self, activity: Place) {
        match self {
            Activities::One(other) => *self = Activities::Many(BTreeSet::from([*other, activity])),
            Activities::Many(activities) => {
                activities.insert(activity);
            }
        }
    }

    /// True if there are none left.
    fn remove(&mut self, activity: Place) -> bool {
        match self {
            Activities::One(one) => *one == activity,
            Activities::Many(activities) => {
                activities.remove(&activity);
                activities.is_empty()
            }
        }
    }

    fn within(&self, range: std::ops::RangeInclusive<Place>) -> Vec<WorkId> {
        match self {
            Activities::One(one) => range.contains(one).then_some(one.2).into_iter().collect(),
            Activities::Many(activities) => activities.range(range).map(|(_, _, id)| *id).collect(),
        }
    }
}

/// The activities of all instances, and the sessions they belong to.
#[derive(Debug, Default)]
pub(crate) struct Work {
    items: HashMap<WorkId, WorkEntry>,
    by_instance: HashMap<Arc<str>, Activities>,
    lanes: Lanes,
    delayed: BTreeSet<(u64, WorkId)>,
    leased: usize,
    sessions: Sessions,
}

impl Work {
    /// Adds an item. `lease` is set only when memory is rebuilt around a lease that lives on.
    pub(crate) fn push(&mut self, id: WorkId, mut item: WorkEntry, now: Now) {
        let place = (item.activity.execution, item.activity.id, id);
        match self.by_instance.entry(Arc::clone(&item.activity.instance)) {
            Entry::Occupied(mut entry) => {
                item.activity.instance = Arc::clone(entry.key());
                entry.get_mut().insert(place);
            }
            Entry::Vacant(entry) => {
                entry.insert(Activities::One(place));
            }
        }
        if let Some(session) = &mut item.activity.session {
            self.sessions.add_item(session);
        }
        self.leased += usize::from(item.lease.is_some());
        self.items.insert(id, item);
        self.list(id, now);
    }

    /// Removes an item, whoever holds it.
    pub(crate) fn remove(&mut self, id: WorkId) -> Option<WorkEntry> {
        self.unlist(id);
        let item = self.items.remove(&id)?;
        if let Some(activities) = self.by_instance.get_mut(&item.activity.instance)
            && activities.remove((item.activity.execution, item.activity.id, id))
        {
            self.by_instance.remove(&item.activity.instance);
        }
        if let Some(session) = &item.activity.session {
            // Whoever has it under a lease may be at work on it.
            self.sessions.set_tried(session, item.lease);
            self.sessions.remove_item(session);
        }
        self.leased -= usize::from(item.lease.is_some());
        Some(item)
    }

    pub(crate) fn get(&self, id: WorkId) -> Option<&WorkEntry> {
        self.items.get(&id)
    }

    /// The items of one activity (more than one only if it was enqueued twice by hand).
    pub(crate) fn of_activity(&self, instance: &str, execution: u64, activity: u64) -> Vec<WorkId> {
        self.within(instance, (execution, activity, WorkId::MIN)..=(execution, activity, WorkId::MAX))
    }

    pub(crate) fn of_instance(&self, instance: &str) -> Vec<WorkId> {
        self.within(instance, (u64::MIN, u64::MIN, WorkId::MIN)..=(u64::MAX, u64::MAX, WorkId::MAX))
    }

    fn within(&self, instance: &str, range: std::ops::RangeInclusive<Place>) -> Vec<WorkId> {
        self.by_instance.get(instance).map_or_else(Vec::new, |activities| activities.within(range))
    }

    /// The oldest item that a worker may take: one without a session, and, for a worker that takes part in
    /// sessions, one of a session that is its own or nobody's.
    pub(crate) fn pick(&self, owner: Option<&str>, tags: &TagFilter) -> Option<WorkId> {
        self.lanes.pick(owner, tags)
    }

    /// Whether an item is ready whose tag fits and that only a worker that takes part in sessions may have.
    pub(super) fn waits_in_session(&self, tags: &TagFilter) -> bool {
        self.lanes.waits_in_session(tags)
    }

    pub(super) fn has(&self, class: &Class) -> bool {
        self.lanes.has(class)
    }

    /// The classes that got ready items since this was asked last.
    pub(super) fn take_got_items(&mut self) -> Vec<Class> {
        self.lanes.take_got_items()
    }

    #[cfg(test)]
    pub(super) fn has_ready(&self) -> bool {
        !self.lanes.is_empty()
    }

    /// Leases an item for one more attempt and returns its new schedule and its body. `session` is the
    /// owner that the item's session, if it has one, is claimed for, and until when.
    pub(crate) fn lease(
        &mut self,
        id: WorkId,
        lease: LeaseNo,
        session: Option<(&Arc<str>, Duration)>,
        now: Now,
    ) -> Option<(Schedule, Option<Body>)> {
        self.unlist(id);
        let item = self.items.get_mut(&id)?;
        item.lease = Some(lease);
        item.schedule.attempt = item.schedule.attempt.saturating_add(1);
        self.leased += 1;
        let leased = (item.schedule, item.body.take());
        if let (Some(session), Some((owner, deadline))) = (item.activity.session.clone(), session) {
            let before = self.sessions.owner(&session);
            self.sessions.claim(&session, owner, deadline, now.monotonic, lease);
            if before.as_ref() != Some(owner) {
                self.relist_session(&session, before.as_ref(), now);
            }
        }
        Some(leased)
    }

    /// Ends the lease of an item and makes it available at `visible_at_ms`, an attempt less if it is not to
    /// count. Its worker may have been at work on it. Returns the new schedule.
    pub(crate) fn release(
        &mut self,
        id: WorkId,
        visible_at_ms: Option<u64>,
        ignore_attempt: bool,
        now: Now,
    ) -> Option<Schedule> {
        let item = self.items.get(&id)?;
        if let Some(session) = &item.activity.session {
            self.sessions.set_tried(session, item.lease);
        }
        self.end_lease(id, visible_at_ms, ignore_attempt, now)
    }

    fn end_lease(
        &mut self,
        id: WorkId,
        visible_at_ms: Option<u64>,
        ignore_attempt: bool,
        now: Now,
    ) -> Option<Schedule> {
        let item = self.items.get_mut(&id)?;
        self.leased -= usize::from(item.lease.take().is_some());
        if let Some(visible_at_ms) = visible_at_ms {
            item.schedule.visible_at_ms = visible_at_ms;
        }
        if ignore_attempt {
            item.schedule.attempt = item.schedule.attempt.saturating_sub(1);
        }
        let schedule = item.schedule;
        self.list(id, now);
        Some(schedule)
    }

    /// As [`release`](Self::release), for a grant that its worker gives back. If nobody has gone to work on
    /// the item's session since it was claimed, it is nobody's again: whoever cannot run the item would
    /// otherwise keep it from those who can.
    pub(crate) fn give_back(
        &mut self,
        id: WorkId,
        visible_at_ms: Option<u64>,
        ignore_attempt: bool,
        now: Now,
    ) -> Option<Schedule> {
        let item = self.items.get(&id)?;
        let (session, lease) = (item.activity.session.clone(), item.lease);
        let schedule = self.end_lease(id, visible_at_ms, ignore_attempt, now);
        if let (Some(session), Some(lease)) = (session, lease)
            && let Some(owner) = self.sessions.unclaim(&session, lease)
        {
            self.relist_session(&session, Some(&owner), now);
        }
        schedule
    }

    /// A grant came back from a receiver that is gone: as if it had never been made.
    pub(crate) fn take_back(&mut self, id: WorkId, lease: LeaseNo, now: Now) -> Option<Schedule> {
        self.items.get(&id).filter(|item| item.lease == Some(lease))?;
        self.give_back(id, None, true, now)
    }

    /// Work went on under this item's lease: its session is not idle.
    pub(crate) fn touch_session(&mut self, id: WorkId, now: Now) {
        if let Some(item) = self.items.get(&id)
            && let Some(session) = &item.activity.session
        {
            self.sessions.set_tried(session, item.lease);
            self.sessions.touch(session, now.monotonic);
        }
    }

    pub(crate) fn renew_sessions(
        &mut self,
        owners: &[String],
        extend_for: Duration,
        idle_timeout: Duration,
        now: Now,
    ) -> usize {
        let deadline = now.monotonic.saturating_add(extend_for);
        self.sessions.renew(owners, deadline, idle_timeout, now.monotonic)
    }

    pub(crate) fn sweep_sessions(&mut self) -> usize {
        self.sessions.sweep()
    }

    /// Makes visible what has fallen due, and frees the sessions whose owner let them run out.
    pub(crate) fn promote(&mut self, now: Now) {
        while let Some(&(due_ms, id)) = self.delayed.first()
            && due_ms <= now.wall_ms
        {
            self.delayed.pop_first();
            if let Some(item) = self.items.get_mut(&id) {
                item.schedule.visible_at_ms = VISIBLE;
            }
            self.list(id, now);
        }
        while let Some((session, owner)) = self.sessions.pop_expired(now.monotonic) {
            self.relist_session(&session, Some(&owner), now);
        }
    }

    pub(crate) fn next_due_ms(&self) -> Option<u64> {
        self.delayed.first().map(|(due_ms, _)| *due_ms)
    }

    pub(crate) fn next_session_deadline(&self) -> Option<Duration> {
        self.sessions.next_deadline()
    }

    /// Items that nobody has leased, visible or not.
    pub(crate) fn unleased(&self) -> usize {
        self.items.len() - self.leased
    }

    fn lane_of(&self, item: &WorkEntry) -> Lane {
        match &item.activity.session {
            None => Lane::NoSession,
            Some(session) => self.sessions.owner(session).map_or(Lane::Unclaimed, Lane::OwnedBy),
        }
    }

    /// Puts an item that is in no list where it belongs: its lane, the timers, or nowhere under a lease.
    fn list(&mut self, id: WorkId, now: Now) {
        let Some(item) = self.items.get(&id).filter(|item| item.lease.is_none()) else { return };
        if item.schedule.visible_at_ms > now.wall_ms {
            self.delayed.insert((item.schedule.visible_at_ms, id));
            return;
        }
        let (lane, tag, session) =
            (self.lane_of(item), item.activity.tag.clone(), item.activity.session.clone());
        self.lanes.insert(lane, &tag, id);
        if let Some(session) = session {
            self.sessions.set_ready(&session, id, true);
        }
    }

    fn unlist(&mut self, id: WorkId) {
        let Some(item) = self.items.get(&id) else { return };
        if self.delayed.remove(&(item.schedule.visible_at_ms, id)) {
            return;
        }
        let (lane, tag, session) =
            (self.lane_of(item), item.activity.tag.clone(), item.activity.session.clone());
        self.lanes.remove(&lane, &tag, id);
        if let Some(session) = session {
            self.sessions.set_ready(&session, id, false);
        }
    }

    /// Moves the ready items of a session from its former owner's lane to the present one's.
    fn relist_session(&mut self, session: &Arc<str>, before: Option<&Arc<str>>, now: Now) {
        let from = before.map_or(Lane::Unclaimed, |owner| Lane::OwnedBy(Arc::clone(owner)));
        for id in self.sessions.ready_items(session) {
            let Some(tag) = self.items.get(&id).map(|item| item.activity.tag.clone()) else { continue };
            self.lanes.remove(&from, &tag, id);
            self.list(id, now);
        }
    }
}
