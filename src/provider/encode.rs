//! From duroxide's values to what the writer stores. Everything that can be refused without looking at the
//! database is refused here.

use std::sync::Arc;

use duroxide::providers::{ExecutionMetadata, ScheduledActivityIdentifier, WorkItem};
use duroxide::{Event, EventKind};

use crate::codec::{self, EncodeError};
use crate::engine::{KvChange, NewMessage, NewWork, TurnAck, Visible};
use crate::error::Error;
use crate::queue::{Activity, LeaseNo, MessageKind};
use crate::rows::{MessageRow, Run, Status, WorkRow};

/// Histories are read in the order of SQLite's integers, which are signed.
const EVENT_ID_MAX: u64 = i64::MAX as u64;

/// What an event may take beyond the limit. A message that was taken in is never refused as the event it becomes,
/// which says a little more: when, by which version, in answer to what.
const EVENT_ROOM: usize = 1024;

/// Refuses single values over the limit. A turn is never too large: its events are cut into as many records as it
/// takes, and everything else it brings is a record of its own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Encoder {
    pub(crate) record_bytes_max: usize,
}

/// What the runtime hands in for a turn.
pub(crate) struct Turn {
    pub(crate) execution: u64,
    pub(crate) history: Vec<Event>,
    pub(crate) work: Vec<WorkItem>,
    pub(crate) messages: Vec<WorkItem>,
    pub(crate) metadata: ExecutionMetadata,
    pub(crate) cancelled: Vec<ScheduledActivityIdentifier>,
}

/// The records of a turn, in its order.
pub(crate) struct TurnRecords {
    history: Vec<Arc<Run>>,
    work: Vec<Vec<u8>>,
    messages: Vec<Vec<u8>>,
}

impl Encoder {
    /// An item of the orchestrator queue.
    pub(crate) fn message(self, item: WorkItem, visible: Visible) -> Result<NewMessage, Error> {
        let record = self.work_item(&item)?;
        new_message(item, record, visible)
    }

    /// What a worker hands in for the activity it ran.
    pub(crate) fn completion(self, item: &WorkItem) -> Result<Vec<u8>, Error> {
        match item {
            WorkItem::ActivityCompleted { .. } | WorkItem::ActivityFailed { .. } => self.work_item(item),
            _ => Err(Error::invalid_input(
                "invalid completion: an activity ends with ActivityCompleted or ActivityFailed",
            )),
        }
    }

    /// An item of the worker queue.
    pub(super) fn work(self, item: WorkItem) -> Result<NewWork, Error> {
        let record = self.work_item(&item)?;
        new_work(item, record)
    }

    fn work_item(self, item: &WorkItem) -> Result<Vec<u8>, Error> {
        let what = || format!("a queued item of instance {}", instance_of(item));
        let record = codec::encode_work_item(item).map_err(|error| refused(error, what))?;
        self.check(record.len(), self.record_bytes_max, what)?;
        Ok(record)
    }

    fn check(self, bytes: usize, bytes_max: usize, what: impl FnOnce() -> String) -> Result<(), Error> {
        if bytes > bytes_max {
            return Err(Error::RecordTooLarge { what: what(), bytes, limit: self.record_bytes_max });
        }
        Ok(())
    }

    /// Events as records: one for each contiguous run of ids that fits. The runtime hands in one run in order;
    /// anything else is put in order, because histories are read in order.
    pub(super) fn history(self, events: &mut [Event]) -> Result<Vec<Arc<Run>>, Error> {
        if !events.is_sorted_by_key(Event::event_id) {
            events.sort_by_key(Event::event_id);
        }
        if events.first().is_some_and(|event| event.event_id() == 0) {
            return Err(Error::invalid_input("event id 0: the runtime numbers events from 1"));
        }
        if let Some(last) = events.last().filter(|last| last.event_id() > EVENT_ID_MAX) {
            return Err(Error::invalid_input(format!("event id {}: over {EVENT_ID_MAX}", last.event_id())));
        }
        let mut runs = Vec::new();
        for run in events.chunk_by(|before, after| before.event_id() + 1 >= after.event_id()) {
            if let Some(pair) = run.windows(2).find(|pair| pair[0].event_id() == pair[1].event_id()) {
                let id = pair[0].event_id();
                return Err(Error::duplicate_event(format!("duplicate event: id {id} twice in one turn")));
            }
            self.run(run, &mut runs)?;
        }
        Ok(runs)
    }

    fn run(self, mut events: &[Event], runs: &mut Vec<Arc<Run>>) -> Result<(), Error> {
        while !events.is_empty() {
            let (encoded, count) = match codec::encode_events(events, self.record_bytes_max) {
                Err(EncodeError::TooLarge { fits: 0, .. }) => (self.event(&events[0]), 1),
                Err(EncodeError::TooLarge { fits, .. }) => {
                    let encoded = codec::encode_events(&events[..fits], self.record_bytes_max);
                    (encoded.map_err(|error| refused(error, || event_name(&events[0]))), fits)
                }
                encoded => (encoded.map_err(|error| refused(error, || event_name(&events[0]))), events.len()),
            };
            let (record, (run, rest)) = (encoded?, events.split_at(count));
            if let (Some(first), Some(last)) = (run.first(), run.last()) {
                let (first_event, last_event) = (first.event_id(), last.event_id());
                runs.push(Arc::new(Run { first_event, last_event, record }));
            }
            events = rest;
        }
        Ok(())
    }

    /// One event as a record of its own, which is where the room of [`EVENT_ROOM`] counts.
    fn event(self, event: &Event) -> Result<Vec<u8>, Error> {
        let what = || event_name(event);
        let record = codec::encode_events(std::slice::from_ref(event), usize::MAX);
        let record = record.map_err(|error| refused(error, what))?;
        self.check(record.len(), self.record_bytes_max.saturating_add(EVENT_ROOM), what)?;
        Ok(record)
    }

    /// Whether an event can be stored.
    pub(super) fn takes(self, event: &Event) -> bool {
        self.event(event).is_ok()
    }

    /// The records of a turn. Refused is what can never be stored; the turn stays with the caller.
    pub(crate) fn turn(self, turn: &mut Turn) -> Result<TurnRecords, Error> {
        // These are columns of their own. The runtime's come out of events; nobody else's may reach SQLite's limit,
        // where they would take the whole batch with them.
        let ExecutionMetadata {
            output, orchestration_name, orchestration_version, parent_instance_id, ..
        } = &turn.metadata;
        let columns = [
            ("output", output),
            ("orchestration name", orchestration_name),
            ("version", orchestration_version),
            ("parent", parent_instance_id),
        ];
        for (name, value) in columns {
            let bytes = value.as_ref().map_or(0, String::len);
            let bytes_max = self.record_bytes_max.saturating_add(EVENT_ROOM);
            self.check(bytes, bytes_max, || format!("the {name} of execution {}", turn.execution))?;
        }
        Ok(TurnRecords {
            history: self.history(&mut turn.history)?,
            work: turn.work.iter().map(|item| self.work_item(item)).collect::<Result<_, _>>()?,
            messages: turn.messages.iter().map(|item| self.work_item(item)).collect::<Result<_, _>>()?,
        })
    }
}

impl Turn {
    /// What the writer stores of a turn and its records.
    pub(crate) fn ack(self, lease: LeaseNo, records: TurnRecords) -> Result<TurnAck, Error> {
        let Turn { execution, history, work, messages, metadata, cancelled } = self;
        let ExecutionMetadata {
            status,
            output,
            orchestration_name,
            orchestration_version,
            parent_instance_id,
            pinned_duroxide_version,
        } = metadata;
        let work = work.into_iter().zip(records.work);
        let messages = messages.into_iter().zip(records.messages);
        Ok(TurnAck {
            lease,
            execution,
            custom_status: custom_status(&history),
            kv: key_values(&history),
            history: records.history,
            work: work.map(|(item, record)| new_work(item, record)).collect::<Result<_, _>>()?,
            cancelled: cancelled.into_iter().map(|a| (a.instance, a.execution_id, a.activity_id)).collect(),
            messages: messages.map(|(item, record)| produced(item, record)).collect::<Result<_, _>>()?,
            status: status.as_deref().map(Status::from),
            output,
            name: orchestration_name.zip(orchestration_version),
            parent: parent_instance_id,
            pinned: pinned_duroxide_version,
        })
    }
}

fn new_message(item: WorkItem, record: Vec<u8>, visible: Visible) -> Result<NewMessage, Error> {
    let (instance, kind) = destination(&item)?;
    let row = MessageRow { instance: instance.into(), kind, record };
    Ok(NewMessage { row, visible, item: Box::new(item) })
}

/// An item of the orchestrator queue that a turn or an activity produced: timers wait until they fire.
pub(crate) fn produced(item: WorkItem, record: Vec<u8>) -> Result<NewMessage, Error> {
    let visible = match &item {
        WorkItem::TimerFired { fire_at_ms, .. } => Visible::AtMs(*fire_at_ms),
        _ => Visible::Now,
    };
    new_message(item, record, visible)
}

fn new_work(item: WorkItem, record: Vec<u8>) -> Result<NewWork, Error> {
    let WorkItem::ActivityExecute { instance, execution_id, id, session_id, tag, .. } = &item else {
        return Err(Error::invalid_input("invalid work item: only ActivityExecute goes to the worker queue"));
    };
    let activity = Activity {
        instance: instance.as_str().into(),
        execution: *execution_id,
        id: *id,
        session: session_id.as_deref().map(Arc::from),
        tag: tag.as_deref().map(Arc::from),
    };
    Ok(NewWork { row: WorkRow { activity, record }, item: Box::new(item) })
}

/// The codec refuses what takes too much memory, whatever the option says.
fn refused(error: EncodeError, what: impl FnOnce() -> String) -> Error {
    match error {
        EncodeError::TooLarge { bytes, bytes_max, .. } => {
            Error::RecordTooLarge { what: what(), bytes, limit: bytes_max }
        }
        other => Error::invalid_input(format!("{}: {other}", what())),
    }
}

fn event_name(event: &Event) -> String {
    let (id, instance) = (event.event_id(), &event.instance_id);
    match &event.kind {
        EventKind::OrchestrationStarted { .. } => format!("event {id} of instance {instance} (its input)"),
        EventKind::OrchestrationCompleted { .. } => format!("event {id} of instance {instance} (its output)"),
        EventKind::OrchestrationFailed { .. } => format!("event {id} of instance {instance} (its error)"),
        EventKind::ActivityScheduled { name, .. }
        | EventKind::SubOrchestrationScheduled { name, .. }
        | EventKind::OrchestrationChained { name, .. } => {
            format!("event {id} of instance {instance} (the input of {name})")
        }
        EventKind::KeyValueSet { key, .. } => {
            format!("event {id} of instance {instance} (the value of {key})")
        }
        _ => format!("event {id} of instance {instance}"),
    }
}

fn instance_of(item: &WorkItem) -> &str {
    match item {
        WorkItem::ActivityExecute { instance, .. } => instance,
        // What else there is goes to the orchestrator queue, all of it.
        other => destination(other).map_or("", |(instance, _)| instance),
    }
}

/// The instance a message belongs to, and what it means for that instance.
pub(super) fn destination(item: &WorkItem) -> Result<(&str, MessageKind), Error> {
    match item {
        WorkItem::StartOrchestration { instance, .. } | WorkItem::ContinueAsNew { instance, .. } => {
            Ok((instance, MessageKind::Start))
        }
        WorkItem::QueueMessage { instance, .. } => Ok((instance, MessageKind::Event)),
        WorkItem::ActivityCompleted { instance, .. }
        | WorkItem::ActivityFailed { instance, .. }
        | WorkItem::TimerFired { instance, .. }
        | WorkItem::ExternalRaised { instance, .. }
        | WorkItem::CancelInstance { instance, .. } => Ok((instance, MessageKind::Other)),
        WorkItem::SubOrchCompleted { parent_instance, .. }
        | WorkItem::SubOrchFailed { parent_instance, .. } => Ok((parent_instance, MessageKind::Other)),
        WorkItem::ActivityExecute { .. } => {
            Err(Error::invalid_input("invalid work item: ActivityExecute goes to the worker queue"))
        }
    }
}

/// The last custom status a turn set. Together with the key-values the only thing a provider reads out of
/// events, because duroxide has no other way to say it.
fn custom_status(history: &[Event]) -> Option<Option<String>> {
    history.iter().rev().find_map(|event| match &event.kind {
        EventKind::CustomStatusUpdated { status } => Some(status.clone()),
        _ => None,
    })
}

fn key_values(history: &[Event]) -> Vec<KvChange> {
    let changes = history.iter().filter_map(|event| match &event.kind {
        EventKind::KeyValueSet { key, value, last_updated_at_ms } => {
            Some(KvChange::Set { key: key.clone(), value: value.clone(), at_ms: *last_updated_at_ms })
        }
        EventKind::KeyValueCleared { key } => Some(KvChange::Clear { key: key.clone() }),
        EventKind::KeyValuesCleared => Some(KvChange::ClearAll),
        _ => None,
    });
    changes.collect()
}

/// The bytes an operation carries, for the limits of buffer and batch.
pub(super) fn turn_bytes(ack: &TurnAck) -> usize {
    let history: usize = ack.history.iter().map(|run| run.record.len()).sum();
    let work: usize = ack.work.iter().map(|work| work.row.record.len()).sum();
    let messages: usize = ack.messages.iter().map(|message| message.row.record.len()).sum();
    let kv: usize = ack.kv.iter().map(KvChange::bytes).sum();
    let status = ack.custom_status.iter().flatten().map(String::len).sum::<usize>();
    history + work + messages + kv + status + ack.output.as_ref().map_or(0, String::len)
}
