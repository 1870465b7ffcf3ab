//! From duroxide's values to what the writer stores. Everything that can be refused without looking at the
//! database is refused here.

use std::sync::Arc;

use duroxide::providers::{ExecutionMetadata, ScheduledActivityIdentifier, WorkItem};
use duroxide::{Event, EventKind};

use crate::codec;
use crate::engine::{KvChange, NewMessage, NewWork, Run, TurnAck, Visible};
use crate::error::Error;
use crate::queue::{LeaseNo, MessageKind};

/// Histories are read in the order of SQLite's integers, which are signed.
const EVENT_ID_MAX: u64 = i64::MAX as u64;

/// Refuses records over the limit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Encoder {
    pub(crate) record_bytes_max: usize,
}

impl Encoder {
    /// An item of the orchestrator queue.
    pub(crate) fn message(self, item: WorkItem, visible: Visible) -> Result<NewMessage, Error> {
        let (instance, kind) = destination(&item)?;
        let instance = instance.to_owned();
        let record = self.work_item(&item, &instance)?;
        Ok(NewMessage { instance, kind, visible, record, item: Box::new(item) })
    }

    /// An item of the orchestrator queue that a turn or an activity produced: timers wait until they fire.
    pub(super) fn produced(self, item: WorkItem) -> Result<NewMessage, Error> {
        let visible = match &item {
            WorkItem::TimerFired { fire_at_ms, .. } => Visible::AtMs(*fire_at_ms),
            _ => Visible::Now,
        };
        self.message(item, visible)
    }

    /// What a worker hands in for the activity it ran.
    pub(crate) fn completion(self, item: WorkItem) -> Result<NewMessage, Error> {
        match &item {
            WorkItem::ActivityCompleted { .. } | WorkItem::ActivityFailed { .. } => self.produced(item),
            _ => Err(Error::refused(
                "invalid completion: an activity ends with ActivityCompleted or ActivityFailed",
            )),
        }
    }

    /// An item of the worker queue.
    pub(super) fn work(self, item: WorkItem) -> Result<NewWork, Error> {
        let WorkItem::ActivityExecute { instance, execution_id, id, session_id, tag, .. } = &item else {
            return Err(Error::refused("invalid work item: only ActivityExecute goes to the worker queue"));
        };
        let record = self.work_item(&item, instance)?;
        Ok(NewWork {
            instance: instance.clone(),
            execution: *execution_id,
            activity: *id,
            session: session_id.clone(),
            tag: tag.clone(),
            record,
            item: Box::new(item),
        })
    }

    fn work_item(self, item: &WorkItem, instance: &str) -> Result<Vec<u8>, Error> {
        let record = codec::encode_work_item(item).map_err(|e| Error::refused(e.to_string()))?;
        self.check(&record, || format!("a queued item of instance {instance}"))?;
        Ok(record)
    }

    fn check(self, record: &[u8], what: impl FnOnce() -> String) -> Result<(), Error> {
        if record.len() > self.record_bytes_max {
            let (bytes, limit) = (record.len(), self.record_bytes_max);
            return Err(Error::RecordTooLarge { what: what(), bytes, limit });
        }
        Ok(())
    }

    /// Events as records, one for each contiguous run of ids. The runtime hands in one run in order; anything
    /// else is put in order, because histories are read in order.
    pub(super) fn history(self, mut events: Vec<Event>) -> Result<Vec<Arc<Run>>, Error> {
        if !events.is_sorted_by_key(Event::event_id) {
            events.sort_by_key(Event::event_id);
        }
        if events.first().is_some_and(|event| event.event_id() == 0) {
            return Err(Error::refused("event id 0: the runtime numbers events from 1"));
        }
        if let Some(last) = events.last().filter(|last| last.event_id() > EVENT_ID_MAX) {
            return Err(Error::refused(format!("event id {}: over {EVENT_ID_MAX}", last.event_id())));
        }
        let mut runs = Vec::new();
        for run in events.chunk_by(|before, after| before.event_id() + 1 >= after.event_id()) {
            if let Some(pair) = run.windows(2).find(|pair| pair[0].event_id() == pair[1].event_id()) {
                let id = pair[0].event_id();
                return Err(Error::refused(format!("duplicate event: id {id} twice in one turn")));
            }
            self.run(run, &mut runs)?;
        }
        Ok(runs)
    }

    fn run(self, events: &[Event], runs: &mut Vec<Arc<Run>>) -> Result<(), Error> {
        let (Some(first), Some(last)) = (events.first(), events.last()) else { return Ok(()) };
        let record = codec::encode_events(events).map_err(|e| Error::refused(e.to_string()))?;
        let run = Run { first_event: first.event_id(), last_event: last.event_id(), record };
        let fits = self
            .check(&run.record, || format!("event {} of instance {}", run.first_event, first.instance_id));
        match fits {
            Ok(()) => runs.push(Arc::new(run)),
            // Too large together; a single event over the limit is the caller's to hear of.
            Err(_too_large) if events.len() > 1 => {
                let (head, tail) = events.split_at(events.len() / 2);
                self.run(head, runs)?;
                self.run(tail, runs)?;
            }
            Err(too_large) => return Err(too_large),
        }
        Ok(())
    }

    #[allow(clippy::too_many_arguments)] // duroxide's own list
    pub(crate) fn turn(
        self,
        lease: LeaseNo,
        execution: u64,
        history: Vec<Event>,
        work: Vec<WorkItem>,
        messages: Vec<WorkItem>,
        metadata: ExecutionMetadata,
        cancelled: Vec<ScheduledActivityIdentifier>,
    ) -> Result<TurnAck, Error> {
        let ExecutionMetadata {
            status,
            output,
            orchestration_name,
            orchestration_version,
            parent_instance_id,
            pinned_duroxide_version,
        } = metadata;
        Ok(TurnAck {
            lease,
            execution,
            custom_status: custom_status(&history),
            kv: key_values(&history),
            history: self.history(history)?,
            work: work.into_iter().map(|item| self.work(item)).collect::<Result<_, _>>()?,
            cancelled: cancelled.into_iter().map(|a| (a.instance, a.execution_id, a.activity_id)).collect(),
            messages: messages.into_iter().map(|item| self.produced(item)).collect::<Result<_, _>>()?,
            status,
            output,
            name: orchestration_name.zip(orchestration_version),
            parent: parent_instance_id,
            pinned: pinned_duroxide_version,
        })
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
            Err(Error::refused("invalid work item: ActivityExecute goes to the worker queue"))
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
    let work: usize = ack.work.iter().map(|work| work.record.len()).sum();
    let messages: usize = ack.messages.iter().map(|message| message.record.len()).sum();
    history + work + messages
}
