//! Any event, any work item, from the fuzzer's bytes.
//!
//! A new variant or field upstream stops the build of `codec/` and is then added here; `arbitrary`'s derive
//! cannot be had for types of another crate.

use arbitrary::{Result, Unstructured};
use duroxide::providers::WorkItem;
use duroxide::{AppErrorKind, ConfigErrorKind, ErrorDetails, Event, EventKind, PoisonMessageType};

type Bytes<'a, 'b> = &'a mut Unstructured<'b>;

/// Up to `max` values.
fn some<T>(u: Bytes<'_, '_>, max: u8, mut one: impl FnMut(Bytes<'_, '_>) -> Result<T>) -> Result<Vec<T>> {
    let count = u.int_in_range(0..=max)?;
    (0..count).map(|_| one(u)).collect()
}

/// Few texts, so that events share them; or one that is the fuzzer's own.
fn text(u: Bytes<'_, '_>) -> Result<String> {
    Ok(match u.int_in_range(0..=7_u8)? {
        0 => String::new(),
        1 => "a".into(),
        2 => "instance-1".into(),
        3 => "grün ✓".into(),
        4 => "long ".repeat(usize::from(u.arbitrary::<u8>()?)),
        _ => u.arbitrary()?,
    })
}

fn number(u: Bytes<'_, '_>) -> Result<u64> {
    Ok(match u.int_in_range(0..=5_u8)? {
        0 => u64::from(u.arbitrary::<u8>()?),
        1 => u64::MAX,
        2 => 1 << 63,
        3 => u64::from(u.arbitrary::<u16>()?),
        _ => u.arbitrary()?,
    })
}

fn maybe<T>(u: Bytes<'_, '_>, one: impl FnOnce(Bytes<'_, '_>) -> Result<T>) -> Result<Option<T>> {
    if u.arbitrary()? { Ok(Some(one(u)?)) } else { Ok(None) }
}

fn carried(u: Bytes<'_, '_>) -> Result<Vec<(String, String)>> {
    some(u, 5, |u| Ok((text(u)?, text(u)?)))
}

/// A run of events as one turn writes them, mostly of one origin.
pub fn events(u: Bytes<'_, '_>) -> Result<Vec<Event>> {
    let (instance, execution, version) = (text(u)?, number(u)?, text(u)?);
    some(u, 12, |u| {
        let mut event = Event {
            event_id: number(u)?,
            source_event_id: maybe(u, number)?,
            instance_id: instance.clone(),
            execution_id: execution,
            timestamp_ms: number(u)?,
            duroxide_version: version.clone(),
            kind: kind(u)?,
        };
        match u.int_in_range(0..=9_u8)? {
            0 => event.instance_id = text(u)?,
            1 => event.execution_id = number(u)?,
            2 => event.duroxide_version = text(u)?,
            _ => {}
        }
        Ok(event)
    })
}

fn details(u: Bytes<'_, '_>) -> Result<ErrorDetails> {
    Ok(match u.int_in_range(0..=3_u8)? {
        0 => {
            ErrorDetails::Infrastructure { operation: text(u)?, message: text(u)?, retryable: u.arbitrary()? }
        }
        1 => ErrorDetails::Configuration {
            kind: ConfigErrorKind::Nondeterminism,
            resource: text(u)?,
            message: maybe(u, text)?,
        },
        2 => ErrorDetails::Application {
            kind: match u.int_in_range(0..=3_u8)? {
                0 => AppErrorKind::ActivityFailed,
                1 => AppErrorKind::OrchestrationFailed,
                2 => AppErrorKind::Panicked,
                _ => AppErrorKind::Cancelled { reason: text(u)? },
            },
            message: text(u)?,
            retryable: u.arbitrary()?,
        },
        _ => ErrorDetails::Poison {
            attempt_count: u.arbitrary()?,
            max_attempts: u.arbitrary()?,
            message_type: poison(u)?,
            message: text(u)?,
        },
    })
}

fn poison(u: Bytes<'_, '_>) -> Result<PoisonMessageType> {
    let (instance, execution_id) = (text(u)?, number(u)?);
    Ok(match u.int_in_range(0..=2_u8)? {
        0 => PoisonMessageType::Orchestration { instance, execution_id },
        1 => PoisonMessageType::Activity {
            instance,
            execution_id,
            activity_name: text(u)?,
            activity_id: number(u)?,
        },
        _ => PoisonMessageType::FailedDeserialization { instance, execution_id, error: text(u)? },
    })
}

fn kind(u: Bytes<'_, '_>) -> Result<EventKind> {
    use EventKind::*;
    Ok(match u.int_in_range(0..=25_u8)? {
        0 => OrchestrationStarted {
            name: text(u)?,
            version: text(u)?,
            input: text(u)?,
            parent_instance: maybe(u, text)?,
            parent_id: maybe(u, number)?,
            parent_execution_id: maybe(u, number)?,
            carry_forward_events: maybe(u, carried)?,
            initial_custom_status: maybe(u, text)?,
        },
        1 => OrchestrationCompleted { output: text(u)? },
        2 => OrchestrationFailed { details: details(u)? },
        3 => ActivityScheduled {
            name: text(u)?,
            input: text(u)?,
            session_id: maybe(u, text)?,
            tag: maybe(u, text)?,
        },
        4 => ActivityCompleted { result: text(u)? },
        5 => ActivityFailed { details: details(u)? },
        6 => ActivityCancelRequested { reason: text(u)? },
        7 => TimerCreated { fire_at_ms: number(u)? },
        8 => TimerFired { fire_at_ms: number(u)? },
        9 => ExternalSubscribed { name: text(u)? },
        10 => ExternalEvent { name: text(u)?, data: text(u)? },
        11 => OrchestrationChained { name: text(u)?, instance: text(u)?, input: text(u)? },
        12 => SubOrchestrationScheduled { name: text(u)?, instance: text(u)?, input: text(u)? },
        13 => SubOrchestrationCompleted { result: text(u)? },
        14 => SubOrchestrationFailed { details: details(u)? },
        15 => SubOrchestrationCancelRequested { reason: text(u)? },
        16 => OrchestrationContinuedAsNew { input: text(u)? },
        17 => OrchestrationCancelRequested { reason: text(u)? },
        18 => ExternalSubscribedCancelled { reason: text(u)? },
        19 => QueueSubscribed { name: text(u)? },
        20 => QueueEventDelivered { name: text(u)?, data: text(u)? },
        21 => QueueSubscriptionCancelled { reason: text(u)? },
        22 => CustomStatusUpdated { status: maybe(u, text)? },
        23 => KeyValueSet { key: text(u)?, value: text(u)?, last_updated_at_ms: number(u)? },
        24 => KeyValueCleared { key: text(u)? },
        _ => KeyValuesCleared,
    })
}

/// Any work item.
pub fn item(u: Bytes<'_, '_>) -> Result<WorkItem> {
    use WorkItem::*;
    Ok(match u.int_in_range(0..=10_u8)? {
        0 => StartOrchestration {
            instance: text(u)?,
            orchestration: text(u)?,
            input: text(u)?,
            version: maybe(u, text)?,
            parent_instance: maybe(u, text)?,
            parent_id: maybe(u, number)?,
            parent_execution_id: maybe(u, number)?,
            execution_id: number(u)?,
        },
        1 => ActivityExecute {
            instance: text(u)?,
            execution_id: number(u)?,
            id: number(u)?,
            name: text(u)?,
            input: text(u)?,
            session_id: maybe(u, text)?,
            tag: maybe(u, text)?,
        },
        2 => ActivityCompleted {
            instance: text(u)?,
            execution_id: number(u)?,
            id: number(u)?,
            result: text(u)?,
        },
        3 => ActivityFailed {
            instance: text(u)?,
            execution_id: number(u)?,
            id: number(u)?,
            details: details(u)?,
        },
        4 => TimerFired {
            instance: text(u)?,
            execution_id: number(u)?,
            id: number(u)?,
            fire_at_ms: number(u)?,
        },
        5 => ExternalRaised { instance: text(u)?, name: text(u)?, data: text(u)? },
        6 => SubOrchCompleted {
            parent_instance: text(u)?,
            parent_execution_id: number(u)?,
            parent_id: number(u)?,
            result: text(u)?,
        },
        7 => SubOrchFailed {
            parent_instance: text(u)?,
            parent_execution_id: number(u)?,
            parent_id: number(u)?,
            details: details(u)?,
        },
        8 => CancelInstance { instance: text(u)?, reason: text(u)? },
        9 => ContinueAsNew {
            instance: text(u)?,
            orchestration: text(u)?,
            input: text(u)?,
            version: maybe(u, text)?,
            parent_instance: maybe(u, text)?,
            parent_id: maybe(u, number)?,
            parent_execution_id: maybe(u, number)?,
            carry_forward_events: carried(u)?,
            initial_custom_status: maybe(u, text)?,
        },
        _ => QueueMessage { instance: text(u)?, name: text(u)?, data: text(u)? },
    })
}
