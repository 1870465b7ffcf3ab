//! Owns the arbitrary events and work items that the property tests send through the codec.
//!
//! Invariants: every variant of every stored enum can come up, numbers come in every length a varint has,
//! and the events of a run share their origin mostly, but not always. That nothing is missing here is not
//! checked: the samples are, and they cover each variant by themselves.
//!
//! Rejected: `Arbitrary` by derive, which cannot be had for types of another crate.

use duroxide::providers::WorkItem;
use duroxide::{AppErrorKind, ConfigErrorKind, ErrorDetails, Event, EventKind, PoisonMessageType};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

fn text() -> impl Strategy<Value = String> + Clone {
    prop_oneof![8 => "\\PC{0,12}", 1 => Just("long ".repeat(60))]
}

fn maybe_text() -> impl Strategy<Value = Option<String>> {
    option::of(text())
}

fn number() -> impl Strategy<Value = u64> + Clone {
    prop_oneof![
        0..300_u64,
        65_500..65_600_u64,
        any::<u32>().prop_map(u64::from),
        any::<u64>(),
        Just(u64::MAX)
    ]
}

fn maybe_number() -> impl Strategy<Value = Option<u64>> {
    option::of(number())
}

fn carried() -> impl Strategy<Value = Vec<(String, String)>> {
    vec((text(), text()), 0..4)
}

/// Runs of up to eight events.
pub(super) fn run() -> impl Strategy<Value = Vec<Event>> {
    let origin = || (text(), number(), text());
    let event = (number(), maybe_number(), option::weighted(0.2, origin()), number(), kind());
    (origin(), vec(event, 0..8)).prop_map(|(common, events)| {
        let each = events.into_iter();
        each.map(|(event_id, source_event_id, own, timestamp_ms, kind)| {
            let (instance_id, execution_id, duroxide_version) = own.unwrap_or_else(|| common.clone());
            Event {
                event_id,
                source_event_id,
                instance_id,
                execution_id,
                timestamp_ms,
                duroxide_version,
                kind,
            }
        })
        .collect()
    })
}

fn details() -> impl Strategy<Value = ErrorDetails> {
    let application = prop_oneof![
        Just(AppErrorKind::ActivityFailed),
        Just(AppErrorKind::OrchestrationFailed),
        Just(AppErrorKind::Panicked),
        text().prop_map(|reason| AppErrorKind::Cancelled { reason }),
    ];
    let poison = prop_oneof![
        (text(), number())
            .prop_map(|(instance, execution_id)| PoisonMessageType::Orchestration { instance, execution_id }),
        (text(), number(), text(), number()).prop_map(
            |(instance, execution_id, activity_name, activity_id)| PoisonMessageType::Activity {
                instance,
                execution_id,
                activity_name,
                activity_id
            }
        ),
        (text(), number(), text()).prop_map(|(instance, execution_id, error)| {
            PoisonMessageType::FailedDeserialization { instance, execution_id, error }
        }),
    ];
    prop_oneof![
        (text(), text(), any::<bool>()).prop_map(|(operation, message, retryable)| {
            ErrorDetails::Infrastructure { operation, message, retryable }
        }),
        (text(), maybe_text()).prop_map(|(resource, message)| ErrorDetails::Configuration {
            kind: ConfigErrorKind::Nondeterminism,
            resource,
            message
        }),
        (application, text(), any::<bool>()).prop_map(|(kind, message, retryable)| {
            ErrorDetails::Application { kind, message, retryable }
        }),
        (any::<u32>(), any::<u32>(), poison, text()).prop_map(
            |(attempt_count, max_attempts, message_type, message)| ErrorDetails::Poison {
                attempt_count,
                max_attempts,
                message_type,
                message
            }
        ),
    ]
}

fn kind() -> impl Strategy<Value = EventKind> {
    use EventKind::*;
    let started = (
        (text(), text(), text()),
        (maybe_text(), maybe_number(), maybe_number()),
        (option::of(carried()), maybe_text()),
    );
    prop_oneof![
        started.prop_map(
            |((name, version, input), parent, (carry_forward_events, initial_custom_status))| {
                let (parent_instance, parent_id, parent_execution_id) = parent;
                OrchestrationStarted {
                    name,
                    version,
                    input,
                    parent_instance,
                    parent_id,
                    parent_execution_id,
                    carry_forward_events,
                    initial_custom_status,
                }
            }
        ),
        text().prop_map(|output| OrchestrationCompleted { output }),
        details().prop_map(|details| OrchestrationFailed { details }),
        (text(), text(), maybe_text(), maybe_text()).prop_map(|(name, input, session_id, tag)| {
            ActivityScheduled { name, input, session_id, tag }
        }),
        text().prop_map(|result| ActivityCompleted { result }),
        details().prop_map(|details| ActivityFailed { details }),
        text().prop_map(|reason| ActivityCancelRequested { reason }),
        number().prop_map(|fire_at_ms| TimerCreated { fire_at_ms }),
        number().prop_map(|fire_at_ms| TimerFired { fire_at_ms }),
        text().prop_map(|name| ExternalSubscribed { name }),
        (text(), text()).prop_map(|(name, data)| ExternalEvent { name, data }),
        (text(), text(), text()).prop_map(|(name, instance, input)| OrchestrationChained {
            name,
            instance,
            input
        }),
        (text(), text(), text()).prop_map(|(name, instance, input)| SubOrchestrationScheduled {
            name,
            instance,
            input
        }),
        text().prop_map(|result| SubOrchestrationCompleted { result }),
        details().prop_map(|details| SubOrchestrationFailed { details }),
        text().prop_map(|reason| SubOrchestrationCancelRequested { reason }),
        text().prop_map(|input| OrchestrationContinuedAsNew { input }),
        text().prop_map(|reason| OrchestrationCancelRequested { reason }),
        text().prop_map(|reason| ExternalSubscribedCancelled { reason }),
        text().prop_map(|name| QueueSubscribed { name }),
        (text(), text()).prop_map(|(name, data)| QueueEventDelivered { name, data }),
        text().prop_map(|reason| QueueSubscriptionCancelled { reason }),
        maybe_text().prop_map(|status| CustomStatusUpdated { status }),
        (text(), text(), number()).prop_map(|(key, value, last_updated_at_ms)| KeyValueSet {
            key,
            value,
            last_updated_at_ms
        }),
        text().prop_map(|key| KeyValueCleared { key }),
        Just(KeyValuesCleared),
    ]
}

pub(super) fn item() -> impl Strategy<Value = WorkItem> {
    use WorkItem::*;
    let parent = || (maybe_text(), maybe_number(), maybe_number());
    let place = || (text(), number(), number());
    prop_oneof![
        ((text(), text(), text()), maybe_text(), parent(), number()).prop_map(
            |((instance, orchestration, input), version, parent, execution_id)| {
                let (parent_instance, parent_id, parent_execution_id) = parent;
                StartOrchestration {
                    instance,
                    orchestration,
                    input,
                    version,
                    parent_instance,
                    parent_id,
                    parent_execution_id,
                    execution_id,
                }
            }
        ),
        (place(), text(), text(), maybe_text(), maybe_text()).prop_map(
            |(place, name, input, session_id, tag)| {
                let (instance, execution_id, id) = place;
                ActivityExecute { instance, execution_id, id, name, input, session_id, tag }
            }
        ),
        (place(), text()).prop_map(|((instance, execution_id, id), result)| ActivityCompleted {
            instance,
            execution_id,
            id,
            result
        }),
        (place(), details()).prop_map(|((instance, execution_id, id), details)| ActivityFailed {
            instance,
            execution_id,
            id,
            details
        }),
        (place(), number()).prop_map(|((instance, execution_id, id), fire_at_ms)| TimerFired {
            instance,
            execution_id,
            id,
            fire_at_ms
        }),
        (text(), text(), text()).prop_map(|(instance, name, data)| ExternalRaised { instance, name, data }),
        (place(), text()).prop_map(|((parent_instance, parent_execution_id, parent_id), result)| {
            SubOrchCompleted { parent_instance, parent_execution_id, parent_id, result }
        }),
        (place(), details()).prop_map(|((parent_instance, parent_execution_id, parent_id), details)| {
            SubOrchFailed { parent_instance, parent_execution_id, parent_id, details }
        }),
        (text(), text()).prop_map(|(instance, reason)| CancelInstance { instance, reason }),
        ((text(), text(), text()), maybe_text(), parent(), carried(), maybe_text()).prop_map(
            |((instance, orchestration, input), version, parent, carry_forward_events, status)| {
                let (parent_instance, parent_id, parent_execution_id) = parent;
                ContinueAsNew {
                    instance,
                    orchestration,
                    input,
                    version,
                    parent_instance,
                    parent_id,
                    parent_execution_id,
                    carry_forward_events,
                    initial_custom_status: status,
                }
            }
        ),
        (text(), text(), text()).prop_map(|(instance, name, data)| QueueMessage { instance, name, data }),
    ]
}
