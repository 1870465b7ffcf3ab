//! Turns: what is offered to whom, and what an acknowledgement writes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use duroxide::EventKind;
use duroxide::providers::WorkItem;

use super::{Kept, Lease, Model, Waiting, put_back};
use crate::answer::{Answer, Execution, Instance, Offered};
use crate::engine_support::{START_MS, Turn, id_of};
use crate::op::{LOCK, RANGES, Set, Token, Version, members};
use crate::planned::addressee;

impl Model {
    /// The token that is so many back from the newest, if there are that many.
    pub(crate) fn turn_token(&self, token: Token) -> Option<usize> {
        self.turn_leases.len().checked_sub(1 + usize::from(token))
    }

    pub(super) fn standing_turn(&mut self, token: usize) -> Option<&mut Lease> {
        let now = self.now;
        Some(&mut self.turn_leases[token]).filter(|lease| !lease.ended && lease.deadline > now)
    }

    fn end_turn(&mut self, token: usize) -> Option<Vec<u64>> {
        let lease = self.standing_turn(token)?;
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

    /// The parent in a start, if it still waits.
    pub(crate) fn parent_named_by(&self, no: u64) -> Option<String> {
        match &self.messages.iter().find(|waiting| waiting.no == no)?.item {
            WorkItem::StartOrchestration { parent_instance, .. } => parent_instance.clone(),
            _ => None,
        }
    }

    /// What somebody who looks for a turn finds. Queued events alone, before anything has started, are lost when
    /// they would be next.
    pub(super) fn next_turn(&mut self, ranges: Option<Set>) -> Option<(String, Vec<u64>)> {
        let mut waiting: Vec<(String, Vec<u64>)> = self.visible().into_iter().collect();
        waiting.sort_by_key(|(_, visible)| visible[0]);
        for (id, visible) in waiting {
            let pin = self.instances.get(&id).map(|kept| kept.pin);
            if !can_replay(ranges, pin.unwrap_or(None)) {
                continue;
            }
            let items = || visible.iter().map(|no| &self.message(*no).item);
            let starts = |item: &WorkItem| {
                matches!(item, WorkItem::StartOrchestration { .. } | WorkItem::ContinueAsNew { .. })
            };
            if pin.is_some() || items().any(starts) {
                return Some((id, visible));
            }
            if items().all(|item| matches!(item, WorkItem::QueueMessage { .. })) {
                self.messages.retain(|waiting| !visible.contains(&waiting.no));
            }
        }
        None
    }

    pub(super) fn fetch_turn(&mut self, ranges: Option<Set>) -> Option<Box<Offered>> {
        let (id, items) = self.next_turn(ranges)?;
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
        let (now_ms, born) = (self.now_ms(), self.number());
        // The parent is who it was at first, whatever later turns say.
        let new = || Kept::new(born, turn.metadata.parent_instance_id.clone(), now_ms);
        self.instances.entry(id).or_insert_with(new).write(&turn, now_ms);
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
            let (no, to) = (self.number(), addressee(&item));
            self.messages.push(Waiting { no, to, item, attempt: 0, due });
        }
        Answer::Done
    }

    pub(crate) fn abandon_turn(&mut self, token: usize, delay_s: Option<u8>, ignore_attempt: bool) -> Answer {
        let Some(items) = self.end_turn(token) else { return Answer::Refused };
        let due = delay_s.map(|delay| self.wall + Duration::from_secs(delay.into()));
        put_back(&mut self.messages, &items, due, ignore_attempt);
        Answer::Done
    }
}

/// Any range counts. What is pinned to nothing can be replayed by everybody who can replay anything.
fn can_replay(ranges: Option<Set>, pin: Option<Version>) -> bool {
    let holds = |pin| move |no| RANGES[usize::from(no)].0 <= pin && pin <= RANGES[usize::from(no)].1;
    match (ranges, pin) {
        (None, _) => true,
        (Some(ranges), None) => ranges != 0,
        (Some(ranges), Some(pin)) => members(ranges).any(holds(pin)),
    }
}

impl Kept {
    fn new(born: u64, parent: Option<String>, created_ms: u64) -> Self {
        Self { born, seen: Instance { parent, created_ms, ..Instance::default() }, ..Self::default() }
    }

    fn write(&mut self, turn: &Turn, now_ms: u64) {
        let (number, _) = self.seen.latest();
        if number < turn.execution {
            (self.pin, self.seen.updated_ms) = (None, 0);
        }
        self.seen.updated_ms = self.seen.updated_ms.max(now_ms);
        let begun = || Execution { status: "Running".into(), started_ms: now_ms, ..Execution::default() };
        let execution = self.seen.executions.entry(turn.execution).or_insert_with(begun);
        execution.events.extend(turn.history.iter().cloned());
        if let Some(pin) = &turn.metadata.pinned_duroxide_version {
            self.pin = Some((pin.major, pin.minor, pin.patch));
        }
        if let Some(status) = &turn.metadata.status {
            execution.status.clone_from(status);
            execution.output.clone_from(&turn.metadata.output);
            execution.completed_ms = Some(now_ms);
        }
        let mut status = None;
        for event in &turn.history {
            match &event.kind {
                EventKind::KeyValueSet { key, value, last_updated_at_ms } => {
                    self.values.insert(key.clone(), (value.clone(), *last_updated_at_ms));
                }
                EventKind::KeyValueCleared { key } => drop(self.values.remove(key)),
                EventKind::KeyValuesCleared => self.values.clear(),
                EventKind::CustomStatusUpdated { status: set } => status = Some(set.clone()),
                _ => {}
            }
        }
        // One turn is one change, whatever it went through.
        if let Some(status) = status {
            let version = self.seen.status.as_ref().map_or(0, |(_, version)| *version);
            self.seen.status = Some((status, version + 1));
        }
        if turn.metadata.status.is_some() {
            self.base = self.values.clone();
        }
    }
}

impl Instance {
    /// The latest execution and its number; 1 before there is one.
    pub(crate) fn latest(&self) -> (u64, Option<&Execution>) {
        self.executions.last_key_value().map_or((1, None), |(number, execution)| (*number, Some(execution)))
    }
}
