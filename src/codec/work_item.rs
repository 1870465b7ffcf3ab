//! Owns the stored form of a queued [`WorkItem`].
//!
//! Invariants: those of [`mirror!`]: nothing upstream can be missing here and still compile.
//!
//! duroxide's feature `replay-version-test` adds a variant that is not here: with it enabled this file
//! does not compile, and that is meant. The feature exists to try out the runtime on messages that nothing
//! else knows; a store has no business keeping them.
//!
//! Rejected: sending `WorkItem` through bincode as it is. Its derive leaves out fields that are `None`,
//! which a format without field names writes without complaint and reads back as something else.

use duroxide::providers::WorkItem;

use super::carried::Carried;
use super::details::DetailsRecord;
use super::mirror::mirror;

// IMPORTANT: the order of the variants is the format, and so is the order of the fields in a variant.
// Append variants at the end; for any other change, raise `FORMAT_VERSION`.
mirror! {
    enum WorkItemRecord<'a> for WorkItem {
        StartOrchestration {
            instance: &'a str,
            orchestration: &'a str,
            input: &'a str,
            version: Option<&'a str>,
            parent_instance: Option<&'a str>,
            parent_id: Option<u64>,
            parent_execution_id: Option<u64>,
            execution_id: u64,
        },
        ActivityExecute {
            instance: &'a str,
            execution_id: u64,
            id: u64,
            name: &'a str,
            input: &'a str,
            session_id: Option<&'a str>,
            tag: Option<&'a str>,
        },
        ActivityCompleted { instance: &'a str, execution_id: u64, id: u64, result: &'a str },
        ActivityFailed { instance: &'a str, execution_id: u64, id: u64, details: DetailsRecord<'a> },
        TimerFired { instance: &'a str, execution_id: u64, id: u64, fire_at_ms: u64 },
        ExternalRaised { instance: &'a str, name: &'a str, data: &'a str },
        SubOrchCompleted {
            parent_instance: &'a str,
            parent_execution_id: u64,
            parent_id: u64,
            result: &'a str,
        },
        SubOrchFailed {
            parent_instance: &'a str,
            parent_execution_id: u64,
            parent_id: u64,
            details: DetailsRecord<'a>,
        },
        CancelInstance { instance: &'a str, reason: &'a str },
        ContinueAsNew {
            instance: &'a str,
            orchestration: &'a str,
            input: &'a str,
            version: Option<&'a str>,
            parent_instance: Option<&'a str>,
            parent_id: Option<u64>,
            parent_execution_id: Option<u64>,
            carry_forward_events: Carried<'a>,
            initial_custom_status: Option<&'a str>,
        },
        QueueMessage { instance: &'a str, name: &'a str, data: &'a str },
    }
}

impl WorkItemRecord<'_> {
    /// How many carried events this holds: what decoding costs beyond the bytes of the record.
    pub(super) fn carried(&self) -> usize {
        match self {
            Self::ContinueAsNew { carry_forward_events, .. } => carry_forward_events.len(),
            _ => 0,
        }
    }
}
