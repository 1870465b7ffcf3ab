//! What a turn of the load through the provider makes of its messages, from the turn alone: the part of a runtime.

use duroxide::providers::{OrchestrationItem, ScheduledActivityIdentifier, WorkItem};
use duroxide::{Event, EventKind};

use crate::engine_support::{START_MS, Turn, continued, event, start, timer};

const HOUR_MS: u64 = 3_600_000;

/// A turn in the making.
struct Making {
    instance: String,
    turn: Turn,
    /// What the execution has, without this turn.
    history: Vec<Event>,
    next_id: u64,
}

/// The turn that answers what was fetched.
pub(crate) fn turn_of(item: &OrchestrationItem) -> Turn {
    let mut making = Making::begin(item);
    let is_over = making.history.iter().any(|event| ends(&event.kind));
    if !is_over && making.next_id > 1 {
        item.messages.iter().for_each(|message| making.take(message));
        making.show();
    }
    making.turn
}

/// What an activity of these loads is told; nobody else is told the same.
pub(crate) fn input_of(instance: &str, execution: u64, id: u64) -> String {
    format!("{instance}, {execution}, {id}")
}

fn ends(kind: &EventKind) -> bool {
    matches!(kind, EventKind::OrchestrationCompleted { .. } | EventKind::OrchestrationContinuedAsNew { .. })
}

impl Making {
    fn begin(item: &OrchestrationItem) -> Self {
        let begins = |kind: fn(&WorkItem) -> bool| item.messages.iter().any(kind);
        let starts = begins(|item| matches!(item, WorkItem::StartOrchestration { .. }));
        let goes_on = begins(|item| matches!(item, WorkItem::ContinueAsNew { .. }));
        let instance = item.instance.clone();
        let mut making = match (starts, goes_on) {
            (false, false) => {
                let next_id = item.history.last().map_or(1, |event| event.event_id + 1);
                let turn = Turn::of(item.execution_id, Vec::new());
                return Self { instance, turn, history: item.history.clone(), next_id };
            }
            (true, _) => {
                Self { turn: Turn::starting(&instance, 1), instance, history: Vec::new(), next_id: 2 }
            }
            (false, true) => {
                let turn = Turn::starting(&instance, item.execution_id + 1);
                Self { turn, instance, history: Vec::new(), next_id: 2 }
            }
        };
        making.set_out();
        making
    }

    fn push(&mut self, kind: EventKind) -> u64 {
        self.push_about(None, kind)
    }

    fn push_about(&mut self, source: Option<u64>, kind: EventKind) -> u64 {
        let id = self.next_id;
        let event = Event::with_event_id(id, &self.instance, self.turn.execution, source, kind);
        self.turn.history.push(event);
        self.next_id += 1;
        id
    }

    /// The first turn of an execution.
    fn set_out(&mut self) {
        if let Some((parent, _)) = self.instance.clone().split_once('/') {
            self.turn.metadata.parent_instance_id = Some(parent.into());
            return self.complete();
        }
        self.schedule();
        self.schedule();
        let fire_at_ms = START_MS + HOUR_MS;
        let id = self.push(EventKind::TimerCreated { fire_at_ms });
        self.turn.messages.push(timer(&self.instance, id, fire_at_ms));
        if self.instance.starts_with('p') {
            let child = format!("{}/child", self.instance);
            self.turn.messages.push(start(&child));
            let (name, input) = ("Orders".into(), "{}".into());
            self.push(EventKind::SubOrchestrationScheduled { name, instance: child, input });
        }
    }

    fn schedule(&mut self) {
        let (execution, id) = (self.turn.execution, self.next_id);
        let (name, input) = ("Charge".to_owned(), input_of(&self.instance, execution, id));
        self.push(EventKind::ActivityScheduled {
            name: name.clone(),
            input: input.clone(),
            session_id: None,
            tag: None,
        });
        let (instance, execution_id) = (self.instance.clone(), execution);
        let item = WorkItem::ActivityExecute {
            instance,
            execution_id,
            id,
            name,
            input,
            session_id: None,
            tag: None,
        };
        self.turn.work.push(item);
    }

    fn take(&mut self, message: &WorkItem) {
        match message {
            WorkItem::ExternalRaised { name, data, .. } => {
                self.push(EventKind::ExternalEvent { name: name.clone(), data: data.clone() });
                match name.as_str() {
                    "next" => self.go_on(),
                    "end" => self.complete(),
                    "cancel" => self.cancel(),
                    _ => self.schedule(),
                }
            }
            WorkItem::ActivityCompleted { execution_id, id, result, .. }
                if *execution_id == self.turn.execution =>
            {
                self.push_about(Some(*id), EventKind::ActivityCompleted { result: result.clone() });
            }
            _ => {}
        }
    }

    fn go_on(&mut self) {
        self.push(EventKind::OrchestrationContinuedAsNew { input: "2".into() });
        self.turn.messages.push(continued(&self.instance, "2"));
        self.turn = self.turn.clone().ending("ContinuedAsNew");
    }

    fn complete(&mut self) {
        self.push(EventKind::OrchestrationCompleted { output: "completed".into() });
        self.turn = self.turn.clone().ending("Completed");
    }

    /// Cancels the first activity that has not answered.
    fn cancel(&mut self) {
        let has_answered = |id: u64| {
            let answers = |event: &Event| event.source_event_id == Some(id);
            self.history.iter().chain(&self.turn.history).any(answers)
        };
        let scheduled =
            self.history.iter().filter(|event| matches!(event.kind, EventKind::ActivityScheduled { .. }));
        let open = scheduled.map(|event| event.event_id).find(|id| !has_answered(*id));
        let Some(activity_id) = open else { return };
        self.push_about(Some(activity_id), EventKind::ActivityCancelRequested { reason: "no more".into() });
        let (instance, execution_id) = (self.instance.clone(), self.turn.execution);
        self.turn.cancelled.push(ScheduledActivityIdentifier { instance, execution_id, activity_id });
    }

    /// What readers see of the turn beside its history: a number that only rises.
    fn show(&mut self) {
        if self.turn.history.iter().any(|event| ends(&event.kind)) {
            return;
        }
        let value = (self.turn.execution * 1000 + self.next_id).to_string();
        let status = EventKind::CustomStatusUpdated { status: Some(value.clone()) };
        self.push(status);
        self.push(EventKind::KeyValueSet { key: "count".into(), value, last_updated_at_ms: START_MS });
    }
}

/// What is appended to a history by hand.
pub(crate) fn by_hand(instance: &str, id: u64) -> Event {
    event(instance, 1, id, EventKind::ExternalEvent { name: "note".into(), data: format!("{id}") })
}
