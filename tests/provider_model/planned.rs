//! What a step writes: names, turns, activities and events, made from the small numbers of `op.rs` and from what
//! the model knows, so that both sides are given the same.

use duroxide::providers::{ScheduledActivityIdentifier, WorkItem};
use duroxide::{Event, EventKind};
use semver::Version;

use crate::engine_support::{
    Turn, activity, completed, continued, event, heard, id_of, start, started_event, timer,
};
use crate::model::Model;
use crate::op::{Change, End, PINS, TurnPlan};

pub(crate) fn instance_name(no: u8) -> String {
    format!("order {no}")
}

pub(crate) fn session_name(no: u8) -> String {
    format!("session {no}")
}

pub(crate) fn worker_name(no: u8) -> String {
    format!("worker {no}")
}

pub(crate) fn tag_name(no: u8) -> String {
    format!("tag {no}")
}

pub(crate) fn key_name(no: u8) -> String {
    format!("key {no}")
}

/// The start of an instance by its parent, or by nobody.
pub(crate) fn start_by(parent: Option<&str>, id: &str) -> WorkItem {
    let mut item = start(id);
    if let WorkItem::StartOrchestration { parent_instance, parent_id, parent_execution_id, .. } = &mut item {
        *parent_instance = parent.map(Into::into);
        (*parent_id, *parent_execution_id) = (parent.map(|_| 1), parent.map(|_| 1));
    }
    item
}

/// Whose queue a message goes to.
pub(crate) fn addressee(item: &WorkItem) -> String {
    match item {
        WorkItem::StartOrchestration { instance, .. }
        | WorkItem::ContinueAsNew { instance, .. }
        | WorkItem::ActivityCompleted { instance, .. }
        | WorkItem::TimerFired { instance, .. }
        | WorkItem::ExternalRaised { instance, .. }
        | WorkItem::QueueMessage { instance, .. } => instance.clone(),
        WorkItem::SubOrchCompleted { parent_instance, .. } => parent_instance.clone(),
        other => panic!("{other:?} is not sent here"),
    }
}

impl Model {
    /// What the turn with this token writes, if it follows the plan.
    pub(crate) fn turn(&mut self, token: usize, plan: TurnPlan) -> Turn {
        let id = self.turn_leases[token].instance.clone();
        // Every start that it hears of may name another one.
        let parent = self.turn_leases[token].items.iter().find_map(|no| self.parent_named_by(*no));
        let kept = self.instances.get(&id);
        let (mut number, latest) = kept.map_or((1, None), |kept| kept.seen.latest());
        if latest.is_some_and(|execution| execution.status == "ContinuedAsNew" || plan.skips) {
            number += 1;
        }
        let reports_to = kept.map_or(&parent, |kept| &kept.seen.parent).clone();
        let written = kept.and_then(|kept| kept.seen.executions.get(&number));
        let mut next = written.map_or(0, |execution| execution.events.len() as u64);
        let mut turn = if next == 0 { Turn::starting(&id, number) } else { Turn::of(number, Vec::new()) };
        next += turn.history.len() as u64;
        turn.metadata.parent_instance_id = parent;
        turn.metadata.pinned_duroxide_version = plan.pin.map(|no| {
            let (major, minor, patch) = PINS[usize::from(no)];
            Version::new(major, minor, patch)
        });
        if plan.duplicate && written.is_some() {
            turn.history.push(started_event(&id, number));
        }
        let mut write = |kind| {
            next += 1;
            turn.history.push(event(&id, number, next, kind));
        };
        write(EventKind::ExternalEvent { name: "bell".into(), data: "heard".into() });
        match plan.value {
            Some(Change::Set(key, value)) => write(EventKind::KeyValueSet {
                key: key_name(key),
                value: "x".repeat(value.into()),
                last_updated_at_ms: self.now_ms(),
            }),
            Some(Change::Clear(key)) => write(EventKind::KeyValueCleared { key: key_name(key) }),
            Some(Change::ClearAll) => write(EventKind::KeyValuesCleared),
            None => {}
        }
        for status in plan.statuses.into_iter().flatten() {
            write(EventKind::CustomStatusUpdated { status: status.map(|status| status.to_string()) });
        }
        if let Some((session, tag)) = plan.activity {
            turn.work.push(self.activity(&id, session, tag));
        }
        if let Some(after_s) = plan.timer_s {
            let fire_at_ms = self.now_ms() + 1000 * u64::from(after_s);
            let no = self.number();
            turn.messages.push(timer(&id, no, fire_at_ms));
        }
        if plan.cancels {
            let oldest = self.work.iter().find(|waiting| waiting.to == id);
            turn.cancelled.extend(oldest.map(|waiting| ScheduledActivityIdentifier {
                instance: id.clone(),
                execution_id: 1,
                activity_id: id_of(&waiting.item),
            }));
        }
        // Greater numbers only, so nobody comes from itself.
        if let Some(child) = plan.child.map(instance_name).filter(|child| *child > id) {
            turn.messages.push(start_by(Some(&id), &child));
        }
        match plan.end {
            End::Runs => turn,
            End::Completed => {
                turn.messages.extend(reports_to.map(|parent_instance| WorkItem::SubOrchCompleted {
                    parent_instance,
                    parent_execution_id: 1,
                    parent_id: 1,
                    result: "done".into(),
                }));
                turn.ending("Completed")
            }
            End::Failed => turn.ending("Failed"),
            End::ContinuedAsNew => {
                turn.messages.push(continued(&id, "again"));
                turn.ending("ContinuedAsNew")
            }
        }
    }

    pub(crate) fn activity(&mut self, instance: &str, session: Option<u8>, tag: Option<u8>) -> WorkItem {
        let mut item = activity(instance, self.number());
        if let WorkItem::ActivityExecute { session_id, tag: tagged, .. } = &mut item {
            *session_id = session.map(session_name);
            *tagged = tag.map(tag_name);
        }
        item
    }

    /// The next event somebody may add by hand, to an instance that is there.
    pub(crate) fn by_hand(&self, instance: u8, duplicate: bool) -> Option<(u64, Event)> {
        let id = instance_name(instance);
        let (number, latest) = self.instances.get(&id)?.seen.latest();
        let next = latest?.events.len() as u64 + 1;
        let mut added = heard(&id, if duplicate { 1 } else { next }, "by hand");
        added.execution_id = number;
        Some((number, added))
    }

    /// What the activity with this token produces.
    pub(crate) fn completion(&self, token: usize) -> WorkItem {
        completed(&self.work_leases[token].instance, self.work_leases[token].items[0])
    }
}
