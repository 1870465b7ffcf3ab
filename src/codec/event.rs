//! Owns the stored form of a run of history [`Event`]s: one [`RunHeader`], then so many [`EventRecord`]s.
//!
//! Invariants: what the events of a turn have in common (instance, execution, duroxide version, and the
//! clock to within a few milliseconds) is stored once, from the first event; an event that differs says so
//! itself, hence every run comes back exactly, also one stamped by two versions of duroxide. Nothing
//! upstream can be missing here and still compile: see [`mirror!`], and the destructuring of `Event` below.
//!
//! duroxide's feature `replay-version-test` adds two kinds that are not here: with it enabled this file
//! does not compile, and that is meant. The feature exists to try out the runtime on events that nothing
//! else knows; a store has no business keeping them.
//!
//! Rejected: `Event` through bincode as it is, which can do neither its flattened field nor its tagged
//! enum. JSON in the record: five times the bytes. An optional override for each of the three common
//! fields: they change together or not at all, and three absent options are two bytes more an event.

use duroxide::{Event, EventKind};
use serde::{Deserialize, Serialize};

use super::carried::Carried;
use super::details::DetailsRecord;
use super::mirror::{Mirror, mirror};

// IMPORTANT: in this file the order of the fields and of the variants is the format. Append variants at
// the end of `KindRecord`; for any other change, raise `FORMAT_VERSION`.

/// What the events of one record have in common.
#[derive(Serialize, Deserialize)]
pub(super) struct RunHeader<'a> {
    #[serde(borrow)]
    pub(super) origin: Origin<'a>,
    timestamp_ms: u64,
    pub(super) events: u64,
}

/// Where an event comes from.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Origin<'a> {
    instance_id: &'a str,
    execution_id: u64,
    duroxide_version: &'a str,
}

#[derive(Serialize, Deserialize)]
pub(super) struct EventRecord<'a> {
    event_id: u64,
    source_event_id: Option<u64>,
    /// `None`: that of the run.
    #[serde(borrow)]
    origin: Option<Origin<'a>>,
    /// Against the timestamp of the run, wrapping, so that any two timestamps have a difference.
    later_ms: i64,
    #[serde(borrow)]
    kind: KindRecord<'a>,
}

mirror! {
    enum KindRecord<'a> for EventKind {
        OrchestrationStarted {
            name: &'a str,
            version: &'a str,
            input: &'a str,
            parent_instance: Option<&'a str>,
            parent_id: Option<u64>,
            parent_execution_id: Option<u64>,
            carry_forward_events: Option<Carried<'a>>,
            initial_custom_status: Option<&'a str>,
        },
        OrchestrationCompleted { output: &'a str },
        OrchestrationFailed { details: DetailsRecord<'a> },
        ActivityScheduled {
            name: &'a str,
            input: &'a str,
            session_id: Option<&'a str>,
            tag: Option<&'a str>,
        },
        ActivityCompleted { result: &'a str },
        ActivityFailed { details: DetailsRecord<'a> },
        ActivityCancelRequested { reason: &'a str },
        TimerCreated { fire_at_ms: u64 },
        TimerFired { fire_at_ms: u64 },
        ExternalSubscribed { name: &'a str },
        ExternalEvent { name: &'a str, data: &'a str },
        OrchestrationChained { name: &'a str, instance: &'a str, input: &'a str },
        SubOrchestrationScheduled { name: &'a str, instance: &'a str, input: &'a str },
        SubOrchestrationCompleted { result: &'a str },
        SubOrchestrationFailed { details: DetailsRecord<'a> },
        SubOrchestrationCancelRequested { reason: &'a str },
        OrchestrationContinuedAsNew { input: &'a str },
        OrchestrationCancelRequested { reason: &'a str },
        ExternalSubscribedCancelled { reason: &'a str },
        QueueSubscribed { name: &'a str },
        QueueEventDelivered { name: &'a str, data: &'a str },
        QueueSubscriptionCancelled { reason: &'a str },
        CustomStatusUpdated { status: Option<&'a str> },
        KeyValueSet { key: &'a str, value: &'a str, last_updated_at_ms: u64 },
        KeyValueCleared { key: &'a str },
        KeyValuesCleared,
    }
}

impl<'a> RunHeader<'a> {
    /// An empty run has a header like any other, of empty strings and zeros.
    pub(super) fn of(events: &'a [Event]) -> Self {
        let (origin, timestamp_ms) = match events.first() {
            Some(first) => (Origin::of(first), first.timestamp_ms),
            None => (Origin { instance_id: "", execution_id: 0, duroxide_version: "" }, 0),
        };
        Self { origin, timestamp_ms, events: events.len() as u64 }
    }
}

impl<'a> Origin<'a> {
    fn of(event: &'a Event) -> Self {
        Self {
            instance_id: &event.instance_id,
            execution_id: event.execution_id,
            duroxide_version: &event.duroxide_version,
        }
    }

    /// The bytes of the strings that each event gets a copy of.
    pub(super) fn string_bytes(&self) -> usize {
        self.instance_id.len() + self.duroxide_version.len()
    }
}

impl<'a> EventRecord<'a> {
    pub(super) fn of(event: &'a Event, run: &RunHeader<'a>) -> Self {
        let Event {
            event_id,
            source_event_id,
            instance_id,
            execution_id,
            timestamp_ms,
            duroxide_version,
            kind,
        } = event;
        let origin = Origin { instance_id, execution_id: *execution_id, duroxide_version };
        Self {
            event_id: *event_id,
            source_event_id: *source_event_id,
            origin: (origin != run.origin).then_some(origin),
            later_ms: timestamp_ms.wrapping_sub(run.timestamp_ms).cast_signed(),
            kind: KindRecord::of(kind),
        }
    }

    pub(super) fn into_event(self, run: &RunHeader<'_>) -> Event {
        let Self { event_id, source_event_id, origin, later_ms, kind } = self;
        let Origin { instance_id, execution_id, duroxide_version } = origin.unwrap_or(run.origin);
        Event {
            event_id,
            source_event_id,
            instance_id: instance_id.to_owned(),
            execution_id,
            timestamp_ms: run.timestamp_ms.wrapping_add_signed(later_ms),
            duroxide_version: duroxide_version.to_owned(),
            kind: kind.into_value(),
        }
    }

    /// How many carried events this holds: what decoding costs beyond the bytes of the record.
    pub(super) fn carried(&self) -> usize {
        match &self.kind {
            KindRecord::OrchestrationStarted { carry_forward_events: Some(carried), .. } => carried.len(),
            _ => 0,
        }
    }
}
