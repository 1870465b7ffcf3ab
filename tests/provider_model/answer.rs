//! What a step comes to, as both sides say it.

use std::collections::BTreeMap;
use std::ops::AddAssign;

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
    Gone(Gone),
    /// Messages and activities that nobody has leased.
    Depths(usize, usize),
    History(Vec<Event>),
    /// All that come from an instance, itself included; sorted.
    Tree(Vec<String>),
}

/// What was deleted or pruned; of how many instances.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub(crate) struct Gone {
    pub(crate) instances: u64,
    pub(crate) executions: u64,
    pub(crate) events: u64,
    pub(crate) queued: u64,
}

impl AddAssign for Gone {
    fn add_assign(&mut self, more: Self) {
        self.instances += more.instances;
        self.executions += more.executions;
        self.events += more.events;
        self.queued += more.queued;
    }
}

/// A turn as it is offered.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Offered {
    pub(crate) instance: String,
    pub(crate) execution: u64,
    pub(crate) messages: Vec<WorkItem>,
    pub(crate) attempt: u32,
    pub(crate) history: Vec<Event>,
    /// Those of the executions before, with the time of their last change.
    pub(crate) values: BTreeMap<String, (String, u64)>,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Execution {
    pub(crate) status: String,
    pub(crate) output: Option<String>,
    pub(crate) started_ms: u64,
    pub(crate) completed_ms: Option<u64>,
    pub(crate) events: Vec<Event>,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Instance {
    pub(crate) parent: Option<String>,
    pub(crate) created_ms: u64,
    /// When its latest execution was last written to.
    pub(crate) updated_ms: u64,
    pub(crate) executions: BTreeMap<u64, Execution>,
    pub(crate) values: BTreeMap<String, String>,
    /// The custom status with its version; `None` before the first.
    pub(crate) status: Option<(Option<String>, u64)>,
}

/// The children of an instance, and everybody that comes from it, itself included; both sorted.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Family {
    pub(crate) children: Vec<String>,
    pub(crate) tree: Vec<String>,
}

/// Everything that can be read.
#[derive(Debug, PartialEq)]
pub(crate) struct Look {
    /// How many nobody has leased.
    pub(crate) messages: usize,
    pub(crate) work: usize,
    pub(crate) newest_first: Vec<String>,
    /// By the status of their latest execution; the newest first.
    pub(crate) by_status: BTreeMap<&'static str, Vec<String>>,
    pub(crate) instances: BTreeMap<String, Instance>,
    /// Of those that are not there, too: their children may be.
    pub(crate) families: BTreeMap<String, Family>,
}

pub(crate) const STATUSES: [&str; 4] = ["Running", "Completed", "Failed", "ContinuedAsNew"];
