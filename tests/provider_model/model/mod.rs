//! What duroxide's storage is, in the plainest form: lists that are searched from end to end. Written from the
//! contract (duroxide's provider guide, docs/design.md "Scheduling rules worth knowing"), not from the engine.
//!
//! Here: what is kept, and what every step comes to. [`turns`]: the orchestrator queue and histories.
//! [`work`]: activities and sessions. [`trees`]: parents and children, deletion, pruning.

mod trees;
mod turns;
mod work;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use duroxide::Event;
use duroxide::providers::WorkItem;

use crate::answer::{Answer, Instance, Look, STATUSES};
use crate::engine_support::START_MS;
use crate::op::{INSTANCES, LOCK, Op, SET_BACK, Version};
use crate::planned::{addressee, instance_name};

pub(crate) use trees::names;

#[derive(Clone)]
pub(crate) struct Waiting {
    no: u64,
    pub(crate) to: String,
    pub(crate) item: WorkItem,
    attempt: u32,
    due: Duration,
}

/// A lease on a turn or an activity. One that has ended stays in the list, so that tokens keep their places.
#[derive(Clone)]
pub(crate) struct Lease {
    pub(crate) instance: String,
    pub(crate) items: Vec<u64>,
    deadline: Duration,
    ended: bool,
}

#[derive(Clone)]
struct Claim {
    worker: String,
    deadline: Duration,
    last_activity: Duration,
    /// The leases granted under it, until one of them is known to have been worked under.
    untried: Option<BTreeSet<usize>>,
}

#[derive(Clone, Default)]
pub(crate) struct Kept {
    pub(crate) seen: Instance,
    /// Its place in the order of creation.
    born: u64,
    /// The version of duroxide that the latest execution is pinned to.
    pin: Option<Version>,
    /// With the time of their last change: as they are, and as executions before the present one left them.
    values: BTreeMap<String, (String, u64)>,
    base: BTreeMap<String, (String, u64)>,
}

#[derive(Clone, Default)]
pub(crate) struct Model {
    now: Duration,
    /// The wall clock, which can be set.
    wall: Duration,
    next: u64,
    messages: Vec<Waiting>,
    pub(crate) work: Vec<Waiting>,
    pub(crate) turn_leases: Vec<Lease>,
    pub(crate) work_leases: Vec<Lease>,
    claims: BTreeMap<String, Claim>,
    pub(crate) instances: BTreeMap<String, Kept>,
}

impl Model {
    pub(crate) fn now_ms(&self) -> u64 {
        START_MS + self.wall.as_millis() as u64
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub(crate) fn enqueue(&mut self, item: WorkItem, delay_s: Option<u8>) {
        let due = delay_s.map_or(Duration::ZERO, |delay| self.wall + Duration::from_secs(delay.into()));
        let (no, to) = (self.number(), addressee(&item));
        self.messages.push(Waiting { no, to, item, attempt: 0, due });
    }

    pub(crate) fn enqueue_work(&mut self, item: WorkItem) {
        let WorkItem::ActivityExecute { instance, .. } = &item else { panic!("no activity") };
        let (no, to) = (self.number(), instance.clone());
        self.work.push(Waiting { no, to, item, attempt: 0, due: Duration::ZERO });
    }

    /// Everything that needs no other argument than the step itself.
    pub(crate) fn apply(&mut self, op: Op) -> Answer {
        match op {
            Op::FetchTurn { ranges } => Answer::Turn(self.fetch_turn(ranges)),
            Op::DropTurn => {
                self.next_turn(None);
                Answer::Done
            }
            Op::AbandonTurn { token, delay_s, ignore_attempt } => match self.turn_token(token) {
                Some(token) => self.abandon_turn(token, delay_s, ignore_attempt),
                None => Answer::Refused,
            },
            Op::AbandonWork { token, delay_s, ignore_attempt } => {
                let Some(token) = self.work_token(token) else { return Answer::Refused };
                let Some(items) = self.end_work(token) else { return Answer::Refused };
                self.unclaim_session_of(token);
                let due = delay_s.map(|delay| self.wall + Duration::from_secs(delay.into()));
                put_back(&mut self.work, &items, due, ignore_attempt);
                Answer::Done
            }
            Op::RenewTurn { token } => {
                let deadline = self.now + LOCK;
                let lease = self.turn_token(token).and_then(|token| self.standing_turn(token));
                lease.map_or(Answer::Refused, |lease| {
                    lease.deadline = deadline;
                    Answer::Done
                })
            }
            Op::RenewWork { token } => {
                let deadline = self.now + LOCK;
                let Some(token) = self.work_token(token) else { return Answer::Refused };
                let Some(lease) = self.standing_work(token) else { return Answer::Refused };
                lease.deadline = deadline;
                self.touch_session_of(token);
                Answer::Done
            }
            Op::FetchWork { worker, tags } => Answer::Work(self.fetch_work(worker, tags)),
            Op::DropWork { worker } => {
                self.drop_work_fetch(worker);
                Answer::Done
            }
            Op::RenewSessions { workers } => Answer::Count(self.renew_sessions(workers)),
            Op::SweepSessions => Answer::Count(self.sweep_sessions()),
            Op::Delete { instance, force } => self.delete(&instance_name(instance), force),
            Op::DeleteThese { ids, force } => self.delete_these(&names(ids), force),
            Op::DeleteBulk(which) => Answer::Gone(self.delete_bulk(which)),
            Op::Prune { instance, keep } => self.prune(&instance_name(instance), keep),
            Op::PruneBulk(which, keep) => Answer::Gone(self.prune_bulk(which, keep)),
            Op::Advance(step) => {
                self.now += step;
                self.wall += step;
                self.fall_due();
                Answer::Done
            }
            Op::SetBack => {
                self.wall = self.wall.saturating_sub(SET_BACK);
                Answer::Done
            }
            Op::Reopen => {
                self.turn_leases.iter_mut().chain(&mut self.work_leases).for_each(|lease| lease.ended = true);
                self.claims.clear();
                Answer::Done
            }
            other => panic!("{other:?} has an argument of its own"),
        }
    }

    /// To an instance that is there.
    pub(crate) fn append(&mut self, execution: u64, added: Event) -> Answer {
        let now_ms = self.now_ms();
        let Some(kept) = self.instances.get_mut(&added.instance_id) else { panic!("{added:?} to nobody") };
        let events = &mut kept.seen.executions.entry(execution).or_default().events;
        if events.iter().any(|known| known.event_id == added.event_id) {
            return Answer::Refused;
        }
        events.push(added);
        kept.seen.updated_ms = kept.seen.updated_ms.max(now_ms);
        Answer::Done
    }

    fn leased(leases: &[Lease], now: Duration) -> BTreeSet<u64> {
        let standing = leases.iter().filter(|lease| !lease.ended && lease.deadline > now);
        standing.flat_map(|lease| lease.items.iter().copied()).collect()
    }

    /// What has fallen due stays so, wherever the wall clock is set afterwards.
    fn fall_due(&mut self) {
        for waiting in self.messages.iter_mut().chain(&mut self.work) {
            if waiting.due <= self.wall {
                waiting.due = Duration::ZERO;
            }
        }
    }

    pub(crate) fn depths(&self) -> (usize, usize) {
        let unleased = |waiting: &[Waiting], leases: &[Lease]| {
            let leased = Self::leased(leases, self.now);
            waiting.iter().filter(|waiting| !leased.contains(&waiting.no)).count()
        };
        (unleased(&self.messages, &self.turn_leases), unleased(&self.work, &self.work_leases))
    }

    fn newest_first(&self) -> Vec<String> {
        let mut ids: Vec<String> = self.instances.keys().cloned().collect();
        ids.sort_by_key(|id| std::cmp::Reverse(self.instances[id].born));
        ids
    }

    pub(crate) fn history(&self, id: &str) -> Vec<Event> {
        let latest = self.instances.get(id).and_then(|kept| kept.seen.latest().1);
        latest.map_or_else(Vec::new, |latest| latest.events.clone())
    }

    pub(crate) fn look(&self) -> Look {
        let (messages, work) = self.depths();
        let newest_first = self.newest_first();
        let with = |status: &&'static str| {
            let is = |id: &&String| self.instances[*id].seen.latest().1.is_some_and(|e| e.status == *status);
            (*status, newest_first.iter().filter(is).cloned().collect())
        };
        let by_status = STATUSES.iter().map(with).collect();
        let shown = |kept: &Kept| {
            let values = kept.values.iter().map(|(key, (value, _))| (key.clone(), value.clone())).collect();
            Instance { values, ..kept.seen.clone() }
        };
        let instances = self.instances.iter().map(|(id, kept)| (id.clone(), shown(kept))).collect();
        let everybody = (0..=INSTANCES).map(instance_name);
        let families = everybody.map(|id| (id.clone(), self.family(&id))).collect();
        Look { messages, work, newest_first, by_status, instances, families }
    }
}

fn put_back(waiting: &mut [Waiting], items: &[u64], due: Option<Duration>, ignore_attempt: bool) {
    for waiting in waiting.iter_mut().filter(|waiting| items.contains(&waiting.no)) {
        waiting.due = due.unwrap_or(waiting.due);
        waiting.attempt -= u32::from(ignore_attempt);
    }
}
