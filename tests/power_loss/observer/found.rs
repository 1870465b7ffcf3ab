//! What is found on a disk that lost power: all of it, through the engine's own interface.

use std::collections::BTreeMap;
use std::time::Duration;

use duroxide::providers::{Provider, ProviderAdmin, SystemMetrics, WorkItem};
use duroxide::{Event, INITIAL_EXECUTION_ID};
use forebay::Forebay;
use forebay::clock::ManualClock;

use super::{APPENDED, on_one_thread, options};
use crate::disk::Disk;
use crate::engine_support::{START_MS, Turn, fetch, fetch_work};

/// Longer than any delay a load uses.
const FAR: Duration = Duration::from_secs(86_400);

pub(crate) struct Found {
    pub(crate) instances: BTreeMap<String, FoundInstance>,
    pub(crate) totals: SystemMetrics,
    pub(crate) timers: usize,
    /// What still waits.
    messages: Vec<WorkItem>,
    pub(crate) work: Vec<WorkItem>,
}

#[derive(Default)]
pub(crate) struct FoundInstance {
    pub(crate) executions: BTreeMap<u64, FoundExecution>,
    pub(crate) status: Option<(Option<String>, u64)>,
    pub(crate) count: u64,
}

#[derive(Default)]
pub(crate) struct FoundExecution {
    pub(crate) status: String,
    pub(crate) output: Option<String>,
    pub(crate) events: Vec<Event>,
}

impl FoundInstance {
    pub(crate) fn latest(&self) -> u64 {
        self.executions.keys().max().copied().unwrap_or(0)
    }

    pub(crate) fn events(&self) -> impl Iterator<Item = &Event> {
        self.executions.values().flat_map(|execution| &execution.events)
    }

    /// Whether an execution is missing that there was.
    pub(crate) fn is_pruned(&self) -> bool {
        (INITIAL_EXECUTION_ID..self.latest()).any(|no| !self.executions.contains_key(&no))
    }

    /// Checks an execution, which may be missing if it was to be pruned.
    pub(crate) fn check_in(
        &self,
        execution: u64,
        may_be_pruned: bool,
        check: impl FnOnce(&[Event]) -> Result<(), String>,
    ) -> Result<(), String> {
        match self.executions.get(&execution) {
            Some(found) => check(&found.events),
            None if may_be_pruned && execution < self.latest() => Ok(()),
            None => Err("there is no such execution".into()),
        }
    }
}

impl Found {
    /// Opens the disk and looks at everything.
    pub(crate) fn on(disk: &Disk) -> Result<Self, String> {
        let clock = ManualClock::new(START_MS);
        let forebay = options()
            .clock(clock.clone())
            .open(disk.path())
            .map_err(|error| format!("opening: {error:#}"))?;
        let integrity: rusqlite::Result<String> = forebay
            .on_writer_connection(|connection| {
                connection.query_row("PRAGMA integrity_check", [], |row| row.get(0))
            })
            .map_err(|error| format!("{error:#}"))?;
        if integrity.as_deref() != Ok("ok") {
            return Err(format!("integrity_check says {integrity:?}"));
        }
        let found = on_one_thread(Self::take(&forebay, &clock));
        forebay.close().map_err(|error| format!("closing: {error:#}"))?;
        Ok(found)
    }

    async fn take(forebay: &Forebay, clock: &ManualClock) -> Self {
        let mut instances = BTreeMap::new();
        for id in forebay.list_instances().await.expect("they are listed") {
            instances.insert(id.clone(), instance(forebay, &id).await);
        }
        let appended = appended(forebay).await;
        if !appended.executions.is_empty() {
            instances.insert(APPENDED.into(), appended);
        }
        let totals = forebay.get_system_metrics().await.expect("they are read");
        let timers = forebay.get_queue_depths().await.expect("they are counted").timer_queue;
        let mut found = Self { instances, totals, timers, messages: Vec::new(), work: Vec::new() };
        found.drain(forebay).await;
        clock.advance(FAR);
        found.drain(forebay).await;
        found
    }

    async fn drain(&mut self, forebay: &Forebay) {
        while let Some(turn) = fetch(forebay).await {
            // Acknowledged, because a leased instance is not offered again when more of it falls due.
            let mut done = Turn::starting(&turn.item.instance, turn.item.execution_id);
            done.history.clear();
            done.ack(forebay, &turn.token).await.expect("it is acknowledged");
            self.messages.extend(turn.item.messages);
        }
        while let Some(activity) = fetch_work(forebay).await {
            forebay.ack_work_item(&activity.token, None).await.expect("it is acknowledged");
            self.work.push(activity.item);
        }
    }

    /// Whether the start was taken up, or waits.
    pub(crate) fn has_start(&self, id: &str) -> bool {
        let starts =
            |item: &WorkItem| matches!(item, WorkItem::StartOrchestration { instance, .. } if instance == id);
        self.instances.contains_key(id) || self.messages.iter().any(starts)
    }

    /// Whether the event waits.
    pub(crate) fn has_raise(&self, id: &str, wanted: &str) -> bool {
        self.messages.iter().any(|item| {
            matches!(item, WorkItem::ExternalRaised { instance, data, .. } if instance == id && data == wanted)
        })
    }
}

async fn instance(forebay: &Forebay, id: &str) -> FoundInstance {
    let count = forebay.get_kv_value(id, "count").await.expect("it is read");
    let mut found = FoundInstance {
        status: forebay.get_custom_status(id, 0).await.expect("it is read"),
        count: count.and_then(|count| count.parse().ok()).unwrap_or(0),
        ..FoundInstance::default()
    };
    for execution in forebay.list_executions(id).await.expect("they are listed") {
        let info = forebay.get_execution_info(id, execution).await.expect("it is there");
        let events = forebay.read_with_execution(id, execution).await.expect("it decodes");
        assert_eq!(info.event_count, events.len(), "as many events as are counted");
        found
            .executions
            .insert(execution, FoundExecution { status: info.status, output: info.output, events });
    }
    found
}

/// The history that was appended by hand: nobody started it, so nobody lists it.
async fn appended(forebay: &Forebay) -> FoundInstance {
    let events = forebay.read_history(APPENDED).await.expect("it decodes");
    let mut found = FoundInstance::default();
    if !events.is_empty() {
        found.executions.insert(INITIAL_EXECUTION_ID, FoundExecution { events, ..FoundExecution::default() });
    }
    found
}
