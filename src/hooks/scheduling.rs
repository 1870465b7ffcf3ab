//! The scheduling state, put together as the engine does it, without rows.

use std::sync::Arc;
use std::time::Duration;

use duroxide::providers::TagFilter;

use crate::queue::{
    Activity, FetchNo, InstanceNo, LeaseNo, Leases, Message, MessageKind, Next, Now, Parked, RowCache, Runs,
    Schedule, Turns, VISIBLE, Wants, Work, WorkEntry, WorkFetches, WorkId,
};

const NOW: Now = Now { monotonic: Duration::from_secs(1), wall_ms: 1_000 };
const DEADLINE: Duration = Duration::from_secs(60);

/// Instances without rows.
struct NoRows;

impl Runs for NoRows {
    fn is_runnable(&self) -> bool {
        false
    }

    fn pinned(&self) -> Option<&semver::Version> {
        None
    }
}

/// Both queues, their leases, and the fetches that wait.
#[derive(Default)]
pub struct Scheduling {
    turns: Turns<NoRows>,
    turn_leases: Leases<InstanceNo>,
    work: Work,
    work_leases: Leases<WorkId>,
    parked: Parked<()>,
    parked_work: WorkFetches<()>,
    next: u64,
}

impl Scheduling {
    fn next(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// A start comes in for an instance that has no rows.
    pub fn push_turn(&mut self, instance: &str) {
        let id = self.next().cast_signed();
        let no = self.turns.instance(instance);
        self.turns.set_rows(no, RowCache::Absent);
        let message = Message { visible_at_ms: VISIBLE, attempt: 0, kind: MessageKind::Start, body: None };
        self.turns.push(no, id, message, NOW);
    }

    /// A fetch waits, is matched with the oldest instance, and its lease ends.
    pub fn run_turn(&mut self) -> bool {
        let Some(fetch) = self.park() else { return false };
        let Next::Ready(no) = self.turns.next(|_pinned| true) else { return false };
        self.parked.take(fetch);
        let lease: LeaseNo = self.next();
        let messages = self.turns.lease(no, lease);
        self.turn_leases.grant(lease, DEADLINE, no);
        let ended = self.turn_leases.end(lease);
        self.turns.release(no);
        ended.is_some() && !messages.is_empty()
    }

    /// An activity comes in.
    pub fn push_work(&mut self, instance: &Arc<str>) {
        let id = self.next();
        let item = WorkEntry {
            activity: Activity { instance: Arc::clone(instance), execution: 1, id, session: None, tag: None },
            schedule: Schedule { visible_at_ms: VISIBLE, attempt: 0 },
            lease: None,
            body: None,
            scheduled_in: 0,
        };
        self.work.push(id.cast_signed(), item, NOW);
    }

    /// A fetch waits, is matched with the oldest activity, and its lease ends.
    pub fn run_work(&mut self) -> bool {
        let (fetch, wants) = (self.next(), Wants { owner: None, tags: TagFilter::DefaultOnly });
        self.parked_work.park(fetch, DEADLINE, wants, ());
        let matched = self.parked_work.next_match(&mut self.work, NOW.monotonic, |()| false);
        let Some((_, (), id)) = matched else { return false };
        let lease: LeaseNo = self.next();
        self.work.lease(id, lease, None, NOW);
        self.work_leases.grant(lease, DEADLINE, id);
        self.work_leases.end(lease);
        self.work.remove(id).is_some()
    }

    /// Parks a fetch and gives the one that has waited longest.
    fn park(&mut self) -> Option<FetchNo> {
        let no: FetchNo = self.next();
        self.parked.park(no, DEADLINE, ());
        self.parked.next_after(None).map(|(no, ())| no)
    }
}
