//! Owns the values whose bytes are kept in `tests/golden/records.txt`.
//!
//! Invariants: every variant of every stored enum is here, with its optional fields both present and
//! absent; a test holds them against the lists in `variants`. The values in one sample all differ, or two
//! fields could change places in the stored form unseen. A sample never changes, and keeps its place among
//! those of its variant: its bytes are the format. New ones are added.
//!
//! Rejected: values from a seeded generator. They change with the generator, and nobody can read them.

use duroxide::providers::WorkItem;
use duroxide::{AppErrorKind, ConfigErrorKind, ErrorDetails, Event, EventKind, PoisonMessageType};

use super::variants::Variants;
use super::{DecodeError, EncodeError, decode_events, decode_work_item, encode_events, encode_work_item};

/// What one record holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Sample {
    Run(Vec<Event>),
    Item(WorkItem),
}

impl Sample {
    pub(super) fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        match self {
            Self::Run(events) => encode_events(events, usize::MAX),
            Self::Item(item) => encode_work_item(item),
        }
    }

    /// Decodes a record as what this sample is.
    pub(super) fn decode(&self, record: &[u8]) -> Result<Self, DecodeError> {
        match self {
            Self::Run(_) => {
                let mut events = Vec::new();
                decode_events(record, &mut events)?;
                Ok(Self::Run(events))
            }
            Self::Item(_) => Ok(Self::Item(decode_work_item(record)?)),
        }
    }
}

/// Every sample, by the name it has in the golden file.
pub(super) fn all() -> Vec<(String, Sample)> {
    let kinds =
        kinds().into_iter().map(|kind| (format!("event/{}", kind.name()), Sample::Run(vec![one(kind)])));
    let items = items().into_iter().map(|item| (format!("item/{}", item.name()), Sample::Item(item)));
    let runs = runs().into_iter().map(|(name, run)| (format!("run/{name}"), Sample::Run(run)));
    let mut all: Vec<_> = kinds.chain(items).chain(runs).collect();
    // Several samples of one variant are told apart by their place.
    for at in (1..all.len()).rev() {
        let place = all[..at].iter().filter(|(name, _)| *name == all[at].0).count();
        if place > 0 {
            all[at].0 = format!("{}/{place}", all[at].0);
        }
    }
    all
}

/// What a turn with five activities writes, for measuring too.
pub(super) fn seven_events() -> Vec<Event> {
    let scheduled = (0..5).map(|n| EventKind::ActivityScheduled {
        name: s("ChargeCard"),
        input: format!(r#"{{"order":4711,"line":{n}}}"#),
        session_id: None,
        tag: None,
    });
    let first = EventKind::ActivityCompleted { result: s(r#"{"ok":true}"#) };
    let last = EventKind::TimerCreated { fire_at_ms: NOW_MS + 30_000 };
    let kinds = std::iter::once(first).chain(scheduled).chain([last]);
    kinds.zip(8..).map(|(kind, event_id)| Event { event_id, source_event_id: None, ..one(kind) }).collect()
}

const NOW_MS: u64 = 1_767_225_600_000;

fn s(text: &str) -> String {
    text.to_owned()
}

fn one(kind: EventKind) -> Event {
    Event {
        event_id: 7,
        source_event_id: Some(3),
        instance_id: s("order-42"),
        execution_id: 1,
        timestamp_ms: NOW_MS,
        duroxide_version: s("0.1.32"),
        kind,
    }
}

fn runs() -> Vec<(&'static str, Vec<Event>)> {
    let plain = || one(EventKind::KeyValuesCleared);
    let edge = Event { event_id: u64::MAX, execution_id: u64::MAX, timestamp_ms: u64::MAX, ..plain() };
    let two = [plain(), Event { event_id: 8, timestamp_ms: NOW_MS + 2, ..plain() }];
    let with = |change: fn(&mut Event)| {
        let mut run = two.to_vec();
        run.iter_mut().skip(1).for_each(change);
        run
    };
    vec![
        ("empty", vec![]),
        ("seven-events", seven_events()),
        ("other-version", with(|event| event.duroxide_version = s("0.1.31"))),
        ("other-instance", with(|event| event.instance_id = s("order-43"))),
        ("other-execution", with(|event| event.execution_id = 2)),
        ("clock-went-back", with(|event| event.timestamp_ms = NOW_MS - 5_000)),
        ("no-source", with(|event| event.source_event_id = None)),
        (
            "edge-numbers",
            vec![edge.clone(), Event { timestamp_ms: 0, source_event_id: Some(u64::MAX), ..edge }],
        ),
        ("empty-strings", vec![Event { instance_id: s(""), duroxide_version: s(""), ..plain() }]),
        ("long-string", vec![one(EventKind::OrchestrationCompleted { output: "x".repeat(300) })]),
    ]
}

fn carried() -> Vec<(String, String)> {
    vec![(s("approval"), s("yes")), (s(""), s("grün ✓"))]
}

pub(super) fn details() -> Vec<ErrorDetails> {
    let application = |kind| ErrorDetails::Application { kind, message: s("card refused"), retryable: true };
    let poison = |message_type| ErrorDetails::Poison {
        attempt_count: 11,
        max_attempts: 10,
        message_type,
        message: s("{}"),
    };
    let configuration = |message| ErrorDetails::Configuration {
        kind: ConfigErrorKind::Nondeterminism,
        resource: s("Checkout"),
        message,
    };
    vec![
        ErrorDetails::Infrastructure { operation: s("ack"), message: s("disk full"), retryable: false },
        configuration(Some(s("schedule mismatch"))),
        configuration(None),
        application(AppErrorKind::ActivityFailed),
        application(AppErrorKind::OrchestrationFailed),
        application(AppErrorKind::Panicked),
        application(AppErrorKind::Cancelled { reason: s("by hand") }),
        poison(PoisonMessageType::Orchestration { instance: s("order-42"), execution_id: 2 }),
        poison(PoisonMessageType::Activity {
            instance: s("order-42"),
            execution_id: 2,
            activity_name: s("ChargeCard"),
            activity_id: 9,
        }),
        poison(PoisonMessageType::FailedDeserialization {
            instance: s("order-42"),
            execution_id: 2,
            error: s("unknown kind"),
        }),
    ]
}

pub(super) fn kinds() -> Vec<EventKind> {
    use EventKind::*;
    let started =
        |parent: Option<&str>, id, carry_forward_events, status: Option<&str>| OrchestrationStarted {
            name: s("Checkout"),
            version: s("1.0.0"),
            input: s(r#"{"total":10}"#),
            parent_instance: parent.map(s),
            parent_id: id,
            parent_execution_id: id.map(|id| id + 1),
            carry_forward_events,
            initial_custom_status: status.map(s),
        };
    let scheduled = |session_id: Option<&str>, tag: Option<&str>| ActivityScheduled {
        name: s("ChargeCard"),
        input: s("10"),
        session_id: session_id.map(s),
        tag: tag.map(s),
    };
    let mut kinds = vec![
        started(Some("parent-1"), Some(5), Some(carried()), Some("paying")),
        started(None, None, None, None),
        started(None, None, Some(vec![]), None),
        OrchestrationCompleted { output: s("done") },
        scheduled(Some("session-1"), Some("gpu")),
        scheduled(None, None),
        ActivityCompleted { result: s("ok") },
        ActivityCancelRequested { reason: s("race") },
        TimerCreated { fire_at_ms: NOW_MS },
        TimerFired { fire_at_ms: NOW_MS },
        ExternalSubscribed { name: s("approval") },
        ExternalEvent { name: s("approval"), data: s("yes") },
        OrchestrationChained { name: s("Mail"), instance: s("mail-1"), input: s("hi") },
        SubOrchestrationScheduled { name: s("Pay"), instance: s("sub::5"), input: s("10") },
        SubOrchestrationCompleted { result: s("paid") },
        SubOrchestrationCancelRequested { reason: s("orphan") },
        OrchestrationContinuedAsNew { input: s("next") },
        OrchestrationCancelRequested { reason: s("by hand") },
        ExternalSubscribedCancelled { reason: s("race") },
        QueueSubscribed { name: s("inbox") },
        QueueEventDelivered { name: s("inbox"), data: s("letter") },
        QueueSubscriptionCancelled { reason: s("race") },
        CustomStatusUpdated { status: Some(s("paying")) },
        CustomStatusUpdated { status: None },
        KeyValueSet { key: s("colour"), value: s("grün"), last_updated_at_ms: NOW_MS },
        KeyValueCleared { key: s("colour") },
        KeyValuesCleared,
    ];
    for details in details() {
        kinds.push(OrchestrationFailed { details: details.clone() });
        kinds.push(ActivityFailed { details: details.clone() });
        kinds.push(SubOrchestrationFailed { details });
    }
    kinds
}

pub(super) fn items() -> Vec<WorkItem> {
    use WorkItem::*;
    let instance = || s("order-42");
    let start = |text: Option<&str>, number| StartOrchestration {
        instance: instance(),
        orchestration: s("Checkout"),
        input: s("10"),
        version: text.map(s),
        parent_instance: text.map(|text| format!("{text}-parent")),
        parent_id: number,
        parent_execution_id: number.map(|number| number + 1),
        execution_id: 1,
    };
    let execute = |session_id: Option<&str>, tag: Option<&str>| ActivityExecute {
        instance: instance(),
        execution_id: 1,
        id: 2,
        name: s("ChargeCard"),
        input: s("10"),
        session_id: session_id.map(s),
        tag: tag.map(s),
    };
    let again = |text: Option<&str>, number, carry_forward_events| ContinueAsNew {
        instance: instance(),
        orchestration: s("Checkout"),
        input: s("next"),
        version: text.map(s),
        parent_instance: text.map(|text| format!("{text}-parent")),
        parent_id: number,
        parent_execution_id: number.map(|number| number + 1),
        carry_forward_events,
        initial_custom_status: text.map(|text| format!("{text}-status")),
    };
    let mut items = vec![
        start(Some("1.0.0"), Some(4)),
        start(None, None),
        execute(Some("session-1"), Some("gpu")),
        execute(None, None),
        ActivityCompleted { instance: instance(), execution_id: 1, id: 2, result: s("ok") },
        TimerFired { instance: instance(), execution_id: 1, id: 2, fire_at_ms: NOW_MS },
        ExternalRaised { instance: instance(), name: s("approval"), data: s("yes") },
        SubOrchCompleted {
            parent_instance: instance(),
            parent_execution_id: 1,
            parent_id: 5,
            result: s("paid"),
        },
        CancelInstance { instance: instance(), reason: s("by hand") },
        again(Some("1.0.0"), Some(4), carried()),
        again(None, None, vec![]),
        QueueMessage { instance: instance(), name: s("inbox"), data: s("letter") },
    ];
    for details in details() {
        items.push(ActivityFailed { instance: instance(), execution_id: 1, id: 2, details: details.clone() });
        items.push(SubOrchFailed {
            parent_instance: instance(),
            parent_execution_id: 1,
            parent_id: 5,
            details,
        });
    }
    items
}
