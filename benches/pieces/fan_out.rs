//! What duroxide hands to its provider for one fan-out of 5: the work of the harness, as values.

use duroxide::providers::{ExecutionMetadata, WorkItem};
use duroxide::{Event, EventKind};

pub(crate) const ACTIVITIES: u64 = 5;
const NOW_MS: u64 = 1_767_225_600_000;
const VERSION: &str = "0.1.32";

/// One instance.
pub(crate) struct FanOut {
    instance: String,
}

impl FanOut {
    pub(crate) fn numbered(number: u64) -> Self {
        Self { instance: format!("load-{}-{}", number % 64, number / 64) }
    }

    fn event(&self, event_id: u64, source_event_id: Option<u64>, kind: EventKind) -> Event {
        Event {
            event_id,
            source_event_id,
            instance_id: self.instance.clone(),
            execution_id: 1,
            timestamp_ms: NOW_MS + event_id,
            duroxide_version: VERSION.into(),
            kind,
        }
    }

    pub(crate) fn start(&self) -> WorkItem {
        WorkItem::StartOrchestration {
            instance: self.instance.clone(),
            orchestration: "FanoutOrchestration".into(),
            input: "5".into(),
            version: Some("1.0.0".into()),
            parent_instance: None,
            parent_id: None,
            parent_execution_id: None,
            execution_id: 1,
        }
    }

    /// Started, five activities scheduled.
    pub(crate) fn first_turn(&self) -> Vec<Event> {
        let started = EventKind::OrchestrationStarted {
            name: "FanoutOrchestration".into(),
            version: "1.0.0".into(),
            input: "5".into(),
            parent_instance: None,
            parent_id: None,
            parent_execution_id: None,
            carry_forward_events: None,
            initial_custom_status: None,
        };
        let scheduled = |id: u64| {
            let kind = EventKind::ActivityScheduled {
                name: "Nothing".into(),
                input: format!("task-{id}"),
                session_id: None,
                tag: None,
            };
            self.event(id, None, kind)
        };
        let ids = 2..2 + ACTIVITIES;
        std::iter::once(self.event(1, None, started)).chain(ids.map(scheduled)).collect()
    }

    pub(crate) fn activities(&self) -> Vec<WorkItem> {
        let activity = |id: u64| WorkItem::ActivityExecute {
            instance: self.instance.clone(),
            execution_id: 1,
            id,
            name: "Nothing".into(),
            input: format!("task-{id}"),
            session_id: None,
            tag: None,
        };
        (2..2 + ACTIVITIES).map(activity).collect()
    }

    pub(crate) fn completions(&self) -> Vec<WorkItem> {
        let completed = |id: u64| WorkItem::ActivityCompleted {
            instance: self.instance.clone(),
            execution_id: 1,
            id,
            result: format!("done: task-{id}"),
        };
        (2..2 + ACTIVITIES).map(completed).collect()
    }

    /// Five activities completed, and with them the orchestration.
    pub(crate) fn last_turn(&self) -> Vec<Event> {
        let first = 2 + ACTIVITIES;
        let completed = |id: u64| {
            let kind = EventKind::ActivityCompleted { result: format!("done: task-{}", id - ACTIVITIES) };
            self.event(id, Some(id - ACTIVITIES), kind)
        };
        let end = EventKind::OrchestrationCompleted { output: "5 tasks".into() };
        let mut events: Vec<Event> = (first..first + ACTIVITIES).map(completed).collect();
        events.push(self.event(first + ACTIVITIES, None, end));
        events
    }

    pub(crate) fn first_metadata(&self) -> ExecutionMetadata {
        ExecutionMetadata {
            orchestration_name: Some("FanoutOrchestration".into()),
            orchestration_version: Some("1.0.0".into()),
            pinned_duroxide_version: semver::Version::parse(VERSION).ok(),
            ..ExecutionMetadata::default()
        }
    }

    pub(crate) fn last_metadata(&self) -> ExecutionMetadata {
        ExecutionMetadata {
            status: Some("Completed".into()),
            output: Some("5 tasks".into()),
            orchestration_name: Some("FanoutOrchestration".into()),
            orchestration_version: Some("1.0.0".into()),
            ..ExecutionMetadata::default()
        }
    }
}
