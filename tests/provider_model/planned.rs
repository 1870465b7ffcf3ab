//! What a step writes: names, turns, activities and events, made from the small numbers of `op.rs` and from what
//! the model knows, so that both sides are given the same.

use duroxide::providers::{ScheduledActivityIdentifier, WorkItem};
use duroxide::{Event, EventKind};
use semver::Version;

use crate::engine_support::{START_MS, Turn, activity, completed, event, heard, id_of, started_event, timer};
use crate::model::Model;
use crate::op::{End, TurnPlan};

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

impl Model {
    /// What the turn with this token writes, if it follows the plan.
    pub(crate) fn turn(&mut self, token: usize, plan: TurnPlan) -> Turn {
        let id = self.turn_leases[token].instance.clone();
        let kept = self.instances.get(&id);
        let (mut number, latest) = kept.map_or((1, None), |kept| kept.seen.latest());
        if latest.is_some_and(|execution| execution.status == "ContinuedAsNew") {
            number += 1;
        }
        let written = kept.and_then(|kept| kept.seen.executions.get(&number));
        let mut next = written.map_or(0, |execution| execution.events.len() as u64);
        let mut turn = if next == 0 { Turn::starting(&id, number) } else { Turn::of(number, Vec::new()) };
        next += turn.history.len() as u64;
        turn.metadata.pinned_duroxide_version = plan.pin.map(|major| Version::new(major.into(), 4, 2));
        if plan.duplicate && written.is_some() {
            turn.history.push(started_event(&id, number));
        }
        let mut write = |kind| {
            next += 1;
            turn.history.push(event(&id, number, next, kind));
        };
        write(EventKind::ExternalEvent { name: "bell".into(), data: "heard".into() });
        match plan.value {
            Some(Some(value)) => write(EventKind::KeyValueSet {
                key: "value".into(),
                value: value.to_string(),
                last_updated_at_ms: START_MS,
            }),
            Some(None) => write(EventKind::KeyValueCleared { key: "value".into() }),
            None => {}
        }
        if let Some(status) = plan.status {
            write(EventKind::CustomStatusUpdated { status: Some(status.to_string()) });
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
        match plan.end {
            End::Runs => turn,
            End::Completed => turn.ending("Completed"),
            End::Failed => turn.ending("Failed"),
            End::ContinuedAsNew => {
                turn.messages.push(again(&id));
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

fn again(instance: &str) -> WorkItem {
    WorkItem::ContinueAsNew {
        instance: instance.into(),
        orchestration: "Orders".into(),
        input: "again".into(),
        version: Some("1.0.0".into()),
        parent_instance: None,
        parent_id: None,
        parent_execution_id: None,
        carry_forward_events: vec![],
        initial_custom_status: None,
    }
}
