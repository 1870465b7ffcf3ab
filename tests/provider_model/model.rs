//! What duroxide's storage is, in the plainest form: lists that are searched from end to end. Written from the
//! contract (duroxide's provider guide, docs/design.md "Scheduling rules worth knowing"), not from the engine.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use duroxide::providers::WorkItem;
use duroxide::{Event, EventKind};

use crate::answer::{Answer, Execution, Instance, Look, Offered};
use crate::engine_support::{START_MS, Turn, id_of};
use crate::op::{IDLE, LOCK, Op, SET_BACK, Tags, Token};
use crate::planned::{instance_name, tag_name, worker_name};

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
}

#[derive(Clone, Default)]
pub(crate) struct Kept {
    pub(crate) seen: Instance,
    /// The values that executions before the present one left behind.
    base: BTreeMap<String, String>,
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

    /// The token that is so many back from the newest, if there are that many.
    pub(crate) fn turn_token(&self, token: Token) -> Option<usize> {
        self.turn_leases.len().checked_sub(1 + usize::from(token))
    }

    pub(crate) fn work_token(&self, token: Token) -> Option<usize> {
        self.work_leases.len().checked_sub(1 + usize::from(token))
    }

    pub(crate) fn exists(&self, instance: u8) -> bool {
        self.instances.contains_key(&instance_name(instance))
    }

    pub(crate) fn enqueue(&mut self, to: &str, item: WorkItem, delay_s: Option<u8>) {
        let due = delay_s.map_or(Duration::ZERO, |delay| self.wall + Duration::from_secs(delay.into()));
        let no = self.number();
        self.messages.push(Waiting { no, to: to.into(), item, attempt: 0, due });
    }

    pub(crate) fn enqueue_work(&mut self, item: WorkItem) {
        let WorkItem::ActivityExecute { instance, .. } = &item else { panic!("no activity") };
        let (no, to) = (self.number(), instance.clone());
        self.work.push(Waiting { no, to, item, attempt: 0, due: Duration::ZERO });
    }

    /// Everything that needs no other argument than the step itself.
    pub(crate) fn apply(&mut self, op: Op) -> Answer {
        match op {
            Op::FetchTurn { major } => Answer::Turn(self.fetch_turn(major)),
            Op::DropTurn => {
                self.drop_lost_events();
                Answer::Done
            }
            Op::AbandonTurn { token, delay_s, ignore_attempt } => match self.turn_token(token) {
                Some(token) => self.abandon_turn(token, delay_s, ignore_attempt),
                None => Answer::Refused,
            },
            Op::AbandonWork { token, delay_s, ignore_attempt } => {
                let Some(items) = self.work_token(token).and_then(|token| self.end_work(token)) else {
                    return Answer::Refused;
                };
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
                let lease = self.work_token(token).and_then(|token| self.standing_work(token));
                let Some(lease) = lease else { return Answer::Refused };
                lease.deadline = deadline;
                let no = lease.items[0];
                self.touch_session_of(no);
                Answer::Done
            }
            Op::FetchWork { worker, tags } => Answer::Work(self.fetch_work(worker, tags)),
            Op::DropWork { worker } => {
                self.drop_work_fetch(worker);
                Answer::Done
            }
            Op::RenewSessions { worker } => {
                let (now, worker) = (self.now, worker_name(worker));
                let mut renewed = 0;
                for claim in self.claims.values_mut() {
                    if claim.worker == worker && claim.deadline > now && claim.last_activity + IDLE > now {
                        claim.deadline = now + LOCK;
                        renewed += 1;
                    }
                }
                Answer::Count(renewed)
            }
            Op::SweepSessions => {
                let busy: BTreeSet<String> =
                    self.work.iter().filter_map(|waiting| session_of(&waiting.item)).collect();
                let before = self.claims.len();
                let now = self.now;
                self.claims.retain(|session, claim| claim.deadline > now || busy.contains(session));
                Answer::Count(before - self.claims.len())
            }
            Op::Delete { instance, force } => self.delete(&instance_name(instance), force),
            Op::Prune { instance, keep_last } => self.prune(&instance_name(instance), keep_last),
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
            Op::DeleteBulk { instances } => self.delete_bulk(instances),
            Op::PruneBulk { instances, keep_last } => {
                let mut total = (0, 0);
                for id in (0..instances).map(instance_name) {
                    if let Answer::Deleted { executions, events, .. } = self.prune(&id, keep_last) {
                        total = (total.0 + executions, total.1 + events);
                    }
                }
                Answer::Deleted { executions: total.0, events: total.1, queued: 0 }
            }
            Op::Reopen => {
                self.turn_leases.iter_mut().chain(&mut self.work_leases).for_each(|lease| lease.ended = true);
                self.claims.clear();
                Answer::Done
            }
            other => panic!("{other:?} has an argument of its own"),
        }
    }

    pub(crate) fn append(&mut self, execution: u64, added: Event) -> Answer {
        let kept = self.instances.entry(added.instance_id.clone()).or_default();
        let events = &mut kept.seen.executions.entry(execution).or_default().events;
        if events.iter().any(|known| known.event_id == added.event_id) {
            return Answer::Refused;
        }
        events.push(added);
        Answer::Done
    }

    fn leased(leases: &[Lease], now: Duration) -> BTreeSet<u64> {
        let standing = leases.iter().filter(|lease| !lease.ended && lease.deadline > now);
        standing.flat_map(|lease| lease.items.iter().copied()).collect()
    }

    fn standing_turn(&mut self, token: usize) -> Option<&mut Lease> {
        let now = self.now;
        Some(&mut self.turn_leases[token]).filter(|lease| !lease.ended && lease.deadline > now)
    }

    fn standing_work(&mut self, token: usize) -> Option<&mut Lease> {
        let now = self.now;
        Some(&mut self.work_leases[token]).filter(|lease| !lease.ended && lease.deadline > now)
    }

    fn end_turn(&mut self, token: usize) -> Option<Vec<u64>> {
        let lease = self.standing_turn(token)?;
        lease.ended = true;
        Some(lease.items.clone())
    }

    fn end_work(&mut self, token: usize) -> Option<Vec<u64>> {
        let lease = self.standing_work(token)?;
        lease.ended = true;
        Some(lease.items.clone())
    }

    /// The visible messages of every instance that nobody works on, oldest first.
    fn visible(&self) -> BTreeMap<String, Vec<u64>> {
        let mut visible: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        let busy = |id: &str| {
            let mut leases = self.turn_leases.iter();
            leases.any(|lease| !lease.ended && lease.deadline > self.now && lease.instance == id)
        };
        for waiting in self.messages.iter().filter(|waiting| waiting.due <= self.wall && !busy(&waiting.to)) {
            visible.entry(waiting.to.clone()).or_default().push(waiting.no);
        }
        visible
    }

    fn message(&self, no: u64) -> &Waiting {
        self.messages.iter().find(|waiting| waiting.no == no).expect("it is in the list")
    }

    /// Queued events alone, before anything has started, are lost when somebody looks for a turn.
    fn drop_lost_events(&mut self) {
        for (id, visible) in self.visible() {
            let all_events =
                visible.iter().all(|no| matches!(self.message(*no).item, WorkItem::QueueMessage { .. }));
            if all_events && !self.instances.contains_key(&id) {
                self.messages.retain(|waiting| !visible.contains(&waiting.no));
            }
        }
    }

    /// What has fallen due stays so, wherever the wall clock is set afterwards.
    fn fall_due(&mut self) {
        for waiting in self.messages.iter_mut().chain(&mut self.work) {
            if waiting.due <= self.wall {
                waiting.due = Duration::ZERO;
            }
        }
    }

    fn fetch_turn(&mut self, major: Option<u8>) -> Option<Box<Offered>> {
        self.drop_lost_events();
        let starts = |no: &u64| {
            matches!(
                self.message(*no).item,
                WorkItem::StartOrchestration { .. } | WorkItem::ContinueAsNew { .. }
            )
        };
        let mut ready: Vec<(String, Vec<u64>)> = self.visible().into_iter().collect();
        ready.retain(|(id, visible)| match self.instances.get(id) {
            Some(kept) => {
                let pinned = kept.seen.latest().1.and_then(|latest| latest.pinned);
                major.is_none() || pinned.is_none() || pinned == major
            }
            None => visible.iter().any(starts),
        });
        let (id, items) = ready.into_iter().min_by_key(|(_, visible)| visible[0])?;
        let mut attempt = 0;
        for waiting in self.messages.iter_mut().filter(|waiting| items.contains(&waiting.no)) {
            waiting.attempt += 1;
            attempt = attempt.max(waiting.attempt);
        }
        let messages = items.iter().map(|no| self.message(*no).item.clone()).collect();
        let kept = self.instances.get(&id).cloned().unwrap_or_default();
        let (execution, latest) = kept.seen.latest();
        let history = latest.map_or_else(Vec::new, |latest| latest.events.clone());
        self.turn_leases.push(Lease { instance: id.clone(), items, deadline: self.now + LOCK, ended: false });
        Some(Box::new(Offered { instance: id, execution, messages, attempt, history, values: kept.base }))
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

    fn fetch_work(&mut self, worker: Option<u8>, tags: Tags) -> Option<(WorkItem, u32)> {
        let no = self.pick_work(worker, tags)?;
        let (now, deadline) = (self.now, self.now + LOCK);
        let waiting = self.work.iter_mut().find(|waiting| waiting.no == no)?;
        waiting.attempt += 1;
        let waiting = waiting.clone();
        if let (Some(session), Some(worker)) = (session_of(&waiting.item), worker) {
            let claim = Claim { worker: worker_name(worker), deadline, last_activity: now };
            self.claims.insert(session, claim);
        }
        self.work_leases.push(Lease { instance: waiting.to, items: vec![no], deadline, ended: false });
        Some((waiting.item, waiting.attempt))
    }

    /// A fetch whose receiver went away takes nothing, and claims nothing it did not have; what it had is
    /// extended.
    fn drop_work_fetch(&mut self, worker: Option<u8>) {
        let Some(no) = self.pick_work(worker, Tags::Any) else { return };
        let (now, deadline) = (self.now, self.now + LOCK);
        let session = self.work.iter().find(|waiting| waiting.no == no).and_then(|w| session_of(&w.item));
        let Some(session) = session else { return };
        match self.owner(&session) {
            Some(worker) => {
                self.claims.insert(session, Claim { worker, deadline, last_activity: now });
            }
            None => drop(self.claims.remove(&session)),
        }
    }

    fn touch_session_of(&mut self, no: u64) {
        let now = self.now;
        let session = self.work.iter().find(|waiting| waiting.no == no).and_then(|w| session_of(&w.item));
        if let Some(claim) = session.and_then(|session| self.claims.get_mut(&session))
            && claim.deadline > now
        {
            claim.last_activity = now;
        }
    }

    pub(crate) fn ack_work(&mut self, token: usize, completion: Option<WorkItem>) -> Answer {
        let Some(items) = self.end_work(token) else { return Answer::Refused };
        self.touch_session_of(items[0]);
        self.work.retain(|waiting| waiting.no != items[0]);
        if let Some(item) = completion {
            let to = self.work_leases[token].instance.clone();
            self.enqueue(&to, item, None);
        }
        Answer::Done
    }

    pub(crate) fn ack_turn(&mut self, token: usize, turn: Turn) -> Answer {
        let id = self.turn_leases[token].instance.clone();
        if self.standing_turn(token).is_none() {
            return Answer::Refused;
        }
        let mut ids = BTreeSet::new();
        let written = self.instances.get(&id).and_then(|kept| kept.seen.executions.get(&turn.execution));
        ids.extend(written.into_iter().flat_map(|execution| &execution.events).map(|event| event.event_id));
        if !turn.history.iter().all(|event| ids.insert(event.event_id)) {
            return Answer::Refused;
        }
        let items = self.end_turn(token).expect("it stands");
        self.messages.retain(|waiting| !items.contains(&waiting.no));
        let kept = self.instances.entry(id.clone()).or_default();
        kept.seen.write(&turn);
        if turn.metadata.status.is_some() {
            kept.base = kept.seen.values.clone();
        }
        for item in turn.work {
            self.enqueue_work(item);
        }
        for cancelled in &turn.cancelled {
            self.work.retain(|w| w.to != cancelled.instance || id_of(&w.item) != cancelled.activity_id);
            let left: BTreeSet<u64> = self.work.iter().map(|waiting| waiting.no).collect();
            for lease in &mut self.work_leases {
                lease.ended |= !left.contains(&lease.items[0]);
            }
        }
        for item in turn.messages {
            let due = match &item {
                WorkItem::TimerFired { fire_at_ms, .. } => Duration::from_millis(fire_at_ms - START_MS),
                _ => Duration::ZERO,
            };
            let no = self.number();
            self.messages.push(Waiting { no, to: id.clone(), item, attempt: 0, due });
        }
        Answer::Done
    }

    pub(crate) fn abandon_turn(&mut self, token: usize, delay_s: Option<u8>, ignore_attempt: bool) -> Answer {
        let Some(items) = self.end_turn(token) else { return Answer::Refused };
        let due = delay_s.map(|delay| self.wall + Duration::from_secs(delay.into()));
        put_back(&mut self.messages, &items, due, ignore_attempt);
        Answer::Done
    }

    pub(crate) fn depths(&self) -> Answer {
        let look = self.look();
        Answer::Depths(look.messages, look.work)
    }

    fn delete(&mut self, id: &str, force: bool) -> Answer {
        let (_, latest) = self.instances[id].seen.latest();
        if !force && latest.is_some_and(|latest| latest.status == "Running") {
            return Answer::Refused;
        }
        self.delete_whatever(id)
    }

    pub(crate) fn delete_whatever(&mut self, id: &str) -> Answer {
        let gone = self.instances.get(id).cloned().unwrap_or_default().seen.executions;
        let executions = gone.len() as u64;
        let events = gone.values().map(|execution| execution.events.len() as u64).sum();
        let before = self.messages.len() + self.work.len();
        self.instances.remove(id);
        self.messages.retain(|waiting| waiting.to != id);
        self.work.retain(|waiting| waiting.to != id);
        for lease in self.turn_leases.iter_mut().chain(&mut self.work_leases) {
            lease.ended |= lease.instance == id;
        }
        let queued = (before - self.messages.len() - self.work.len()) as u64;
        Answer::Deleted { executions, events, queued }
    }

    /// Of the finished ones.
    fn delete_bulk(&mut self, instances: u8) -> Answer {
        let (mut executions, mut events, mut queued) = (0, 0, 0);
        for id in (0..instances).map(instance_name) {
            let latest = self.instances.get(&id).and_then(|kept| kept.seen.latest().1);
            if latest.is_none_or(|latest| latest.status == "Running") {
                continue;
            }
            if let Answer::Deleted { executions: e, events: v, queued: q } = self.delete_whatever(&id) {
                (executions, events, queued) = (executions + e, events + v, queued + q);
            }
        }
        Answer::Deleted { executions, events, queued }
    }

    fn prune(&mut self, id: &str, keep_last: u8) -> Answer {
        let Some(kept) = self.instances.get_mut(id) else { return Answer::Refused };
        let kept_numbers: Vec<u64> =
            kept.seen.executions.keys().rev().take(usize::from(keep_last.max(1))).copied().collect();
        let (mut executions, mut events) = (0, 0);
        kept.seen.executions.retain(|number, execution| {
            let stays = kept_numbers.contains(number);
            if !stays {
                executions += 1;
                events += execution.events.len() as u64;
            }
            stays
        });
        Answer::Deleted { executions, events, queued: 0 }
    }

    pub(crate) fn look(&self) -> Look {
        let unleased = |waiting: &[Waiting], leases: &[Lease]| {
            let leased = Self::leased(leases, self.now);
            waiting.iter().filter(|waiting| !leased.contains(&waiting.no)).count()
        };
        let mut instances = BTreeMap::new();
        let mut by_status: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (id, kept) in &self.instances {
            let mut seen = kept.seen.clone();
            let status = seen.latest().1.map(|latest| latest.status.clone()).unwrap_or_default();
            by_status.entry(status).or_default().push(id.clone());
            seen.executions.values_mut().for_each(|execution| execution.pinned = None);
            instances.insert(id.clone(), seen);
        }
        let count = |status: &str| by_status.get(status).map_or(0, Vec::len) as u64;
        Look {
            completed: count("Completed"),
            failed: count("Failed"),
            running: by_status.get("Running").cloned().unwrap_or_default(),
            messages: unleased(&self.messages, &self.turn_leases),
            work: unleased(&self.work, &self.work_leases),
            instances,
        }
    }
}

fn put_back(waiting: &mut [Waiting], items: &[u64], due: Option<Duration>, ignore_attempt: bool) {
    for waiting in waiting.iter_mut().filter(|waiting| items.contains(&waiting.no)) {
        waiting.due = due.unwrap_or(waiting.due);
        waiting.attempt -= u32::from(ignore_attempt);
    }
}

fn session_of(item: &WorkItem) -> Option<String> {
    let WorkItem::ActivityExecute { session_id, .. } = item else { return None };
    session_id.clone()
}

fn fits(item: &WorkItem, tags: Tags) -> bool {
    let WorkItem::ActivityExecute { tag, .. } = item else { return false };
    let is = |wanted: u8| tag.as_deref() == Some(tag_name(wanted).as_str());
    match tags {
        Tags::DefaultOnly => tag.is_none(),
        Tags::Only(wanted) => is(wanted),
        Tags::DefaultAnd(wanted) => tag.is_none() || is(wanted),
        Tags::Any => true,
        Tags::None => false,
    }
}

impl Execution {
    fn started() -> Self {
        Self { status: "Running".into(), ..Self::default() }
    }
}

impl Instance {
    /// The latest execution and its number; 1 before there is one.
    pub(crate) fn latest(&self) -> (u64, Option<&Execution>) {
        self.executions.last_key_value().map_or((1, None), |(number, execution)| (*number, Some(execution)))
    }

    fn write(&mut self, turn: &Turn) {
        let execution = self.executions.entry(turn.execution).or_insert_with(Execution::started);
        execution.events.extend(turn.history.iter().cloned());
        if let Some(pinned) = &turn.metadata.pinned_duroxide_version {
            execution.pinned = Some(pinned.major as u8);
        }
        if let Some(status) = &turn.metadata.status {
            execution.status.clone_from(status);
            execution.output.clone_from(&turn.metadata.output);
        }
        for event in &turn.history {
            match &event.kind {
                EventKind::KeyValueSet { key, value, .. } => {
                    self.values.insert(key.clone(), value.clone());
                }
                EventKind::KeyValueCleared { key } => drop(self.values.remove(key)),
                EventKind::CustomStatusUpdated { status } => {
                    let version = self.status.as_ref().map_or(0, |(_, version)| *version);
                    self.status = Some((status.clone(), version + 1));
                }
                _ => {}
            }
        }
    }
}
