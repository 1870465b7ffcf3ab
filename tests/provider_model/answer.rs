//! What a step comes to, as both sides say it.

use std::collections::BTreeMap;

use duroxide::Event;
use duroxide::providers::WorkItem;

#[derive(Debug, PartialEq)]
pub(crate) enum Answer {
    Done,
    Refused,
    Turn(Option<Box<Offered>>),
    /// With its attempt.
    Work(Option<(WorkItem, u32)>),
    Count(usize),
    Deleted {
        executions: u64,
        events: u64,
        queued: u64,
    },
    /// Messages and activities that nobody has leased.
    Depths(usize, usize),
}

/// A turn as it is offered.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Offered {
    pub(crate) instance: String,
    pub(crate) execution: u64,
    pub(crate) messages: Vec<WorkItem>,
    pub(crate) attempt: u32,
    pub(crate) history: Vec<Event>,
    /// Those of the executions before.
    pub(crate) values: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Execution {
    /// The major version of duroxide it is pinned to; not to be read, so it stays the model's.
    pub(crate) pinned: Option<u8>,
    pub(crate) status: String,
    pub(crate) output: Option<String>,
    pub(crate) events: Vec<Event>,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Instance {
    pub(crate) executions: BTreeMap<u64, Execution>,
    pub(crate) values: BTreeMap<String, String>,
    /// The custom status with its version; `None` before the first.
    pub(crate) status: Option<(Option<String>, u64)>,
}

/// Everything that can be read.
#[derive(Debug, PartialEq)]
pub(crate) struct Look {
    /// How many nobody has leased.
    pub(crate) messages: usize,
    pub(crate) work: usize,
    /// By the status of their latest execution.
    pub(crate) running: Vec<String>,
    pub(crate) completed: u64,
    pub(crate) failed: u64,
    pub(crate) instances: BTreeMap<String, Instance>,
}
