//! Owns the stored form of [`ErrorDetails`] and of the enums inside it.
//!
//! Invariants: those of [`mirror!`]: nothing upstream can be missing here and still compile.
//!
//! Rejected: sending the upstream types through bincode as they are. These four happen to survive it
//! today, but then derive attributes that are not ours would decide our bytes.

use duroxide::{AppErrorKind, ConfigErrorKind, ErrorDetails, PoisonMessageType};

use super::mirror::mirror;

// IMPORTANT: in every table of this file the order of the variants is the format, and so is the order of
// the fields in a variant. Append variants at the end; for any other change, raise `FORMAT_VERSION`.

mirror! {
    enum DetailsRecord<'a> for ErrorDetails {
        Infrastructure { operation: &'a str, message: &'a str, retryable: bool },
        Configuration { kind: ConfigErrorRecord, resource: &'a str, message: Option<&'a str> },
        Application { kind: AppErrorRecord<'a>, message: &'a str, retryable: bool },
        Poison {
            attempt_count: u32,
            max_attempts: u32,
            message_type: PoisonRecord<'a>,
            message: &'a str,
        },
    }
}

mirror! {
    enum PoisonRecord<'a> for PoisonMessageType {
        Orchestration { instance: &'a str, execution_id: u64 },
        Activity { instance: &'a str, execution_id: u64, activity_name: &'a str, activity_id: u64 },
        FailedDeserialization { instance: &'a str, execution_id: u64, error: &'a str },
    }
}

mirror! {
    enum ConfigErrorRecord for ConfigErrorKind {
        Nondeterminism,
    }
}

mirror! {
    enum AppErrorRecord<'a> for AppErrorKind {
        ActivityFailed,
        OrchestrationFailed,
        Panicked,
        Cancelled { reason: &'a str },
    }
}
