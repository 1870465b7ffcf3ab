//! Decoded items kept beside their rows, so that the common delivery neither reads nor decodes; and how much
//! memory they may take.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use duroxide::providers::WorkItem;
use duroxide::{AppErrorKind, ErrorDetails, PoisonMessageType};

/// What an allocation takes beside what it holds, roughly: allocators keep a header and round up.
const ALLOCATION_BYTES: usize = 16;

/// A decoded item in memory.
#[derive(Debug)]
pub(crate) struct Body {
    item: Box<WorkItem>,
    _held: Held,
}

/// A share of a [`BodyBudget`], given back when it is dropped.
#[derive(Debug)]
struct Held {
    bytes: usize,
    budget: Arc<AtomicUsize>,
}

/// How many bytes of [`Body`] may be held in memory; what does not fit is read back from its row.
#[derive(Debug)]
pub(crate) struct BodyBudget {
    used: Arc<AtomicUsize>,
    bytes_max: usize,
}

impl BodyBudget {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { used: Arc::default(), bytes_max }
    }

    /// Keeps the item if there is room for it.
    pub(crate) fn keep(&self, item: Box<WorkItem>) -> Option<Body> {
        let bytes = held_bytes(&item);
        if self.used.load(Ordering::Relaxed) + bytes > self.bytes_max {
            return None;
        }
        self.used.fetch_add(bytes, Ordering::Relaxed);
        Some(Body { item, _held: Held { bytes, budget: Arc::clone(&self.used) } })
    }
}

impl Body {
    /// Takes the item out, giving its bytes back to the budget.
    pub(crate) fn into_item(self) -> Box<WorkItem> {
        self.item
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// What the item really takes, not what its record is long: a number in a record is often one byte.
fn held_bytes(item: &WorkItem) -> usize {
    size_of::<Body>() + ALLOCATION_BYTES + size_of::<WorkItem>() + within_item(item)
}

fn within_item(item: &WorkItem) -> usize {
    match item {
        WorkItem::StartOrchestration { instance, orchestration, input, version, parent_instance, .. } => {
            text(instance) + text(orchestration) + text(input) + optional(version) + optional(parent_instance)
        }
        WorkItem::ActivityExecute { instance, name, input, session_id, tag, .. } => {
            text(instance) + text(name) + text(input) + optional(session_id) + optional(tag)
        }
        WorkItem::ActivityCompleted { instance, result, .. } => text(instance) + text(result),
        WorkItem::ActivityFailed { instance, details, .. } => text(instance) + within_details(details),
        WorkItem::TimerFired { instance, .. } => text(instance),
        WorkItem::ExternalRaised { instance, name, data }
        | WorkItem::QueueMessage { instance, name, data } => text(instance) + text(name) + text(data),
        WorkItem::SubOrchCompleted { parent_instance, result, .. } => text(parent_instance) + text(result),
        WorkItem::SubOrchFailed { parent_instance, details, .. } => {
            text(parent_instance) + within_details(details)
        }
        WorkItem::CancelInstance { instance, reason } => text(instance) + text(reason),
        WorkItem::ContinueAsNew {
            instance,
            orchestration,
            input,
            version,
            parent_instance,
            carry_forward_events,
            initial_custom_status,
            ..
        } => {
            let pairs = carry_forward_events.capacity() * size_of::<(String, String)>();
            let carried: usize =
                carry_forward_events.iter().map(|(name, data)| text(name) + text(data)).sum();
            let carried = ALLOCATION_BYTES + pairs + carried;
            let parent = optional(parent_instance) + optional(initial_custom_status);
            text(instance) + text(orchestration) + text(input) + optional(version) + parent + carried
        }
    }
}

fn within_details(details: &ErrorDetails) -> usize {
    match details {
        ErrorDetails::Infrastructure { operation, message, .. } => text(operation) + text(message),
        ErrorDetails::Configuration { resource, message, .. } => text(resource) + optional(message),
        ErrorDetails::Application { kind, message, .. } => {
            let reason = match kind {
                AppErrorKind::Cancelled { reason } => text(reason),
                AppErrorKind::ActivityFailed | AppErrorKind::OrchestrationFailed | AppErrorKind::Panicked => {
                    0
                }
            };
            text(message) + reason
        }
        ErrorDetails::Poison { message_type, message, .. } => {
            let within = match message_type {
                PoisonMessageType::Orchestration { instance, .. } => text(instance),
                PoisonMessageType::Activity { instance, activity_name, .. } => {
                    text(instance) + text(activity_name)
                }
                PoisonMessageType::FailedDeserialization { instance, error, .. } => {
                    text(instance) + text(error)
                }
            };
            text(message) + within
        }
    }
}

fn text(text: &String) -> usize {
    if text.capacity() == 0 { 0 } else { ALLOCATION_BYTES + text.capacity() }
}

fn optional(optional: &Option<String>) -> usize {
    optional.as_ref().map_or(0, text)
}
