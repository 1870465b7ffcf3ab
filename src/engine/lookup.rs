//! What an operation needs to know of rows that memory does not.
//!
//! The runtime's own operations are about instances at work, whose rows are known. For the others everything is asked for
//! before the first operation of a batch is applied, in one call for each kind. An operation that finds less than it needs
//! (its instance was forgotten meanwhile, or written to by one before it) asks by itself: nothing of the batch has been
//! written, so that is as good, only slower.

use std::collections::HashMap;
use std::sync::Arc;

use duroxide::EventKind;

use super::op::Op;
use super::undo::Undo;
use super::{Engine, Stop};
use crate::codec;
use crate::error::Error;
use crate::queue::{InstanceNo, RowCache, Runs};
use crate::rows::{ExecutionFound, ExecutionWanted, Identity, InstanceFound, InstanceKey, InstanceRows, Run};

impl Runs for InstanceRows {
    fn is_runnable(&self) -> bool {
        !matches!(self.identity, Identity::Unnamed { is_started: false })
    }

    fn pinned(&self) -> Option<&semver::Version> {
        self.latest.pinned.as_ref()
    }
}

/// The answers, until they are used.
#[derive(Default)]
pub(super) struct Prefetched {
    instances: HashMap<Arc<str>, Result<Option<InstanceFound>, Error>>,
    executions: HashMap<(InstanceKey, u64, Vec<u64>), Result<ExecutionFound, Error>>,
}

impl Prefetched {
    pub(super) fn clear(&mut self) {
        self.instances.clear();
        self.executions.clear();
    }
}

/// What an operation appends to the history of an instance.
struct Appended<'a> {
    /// `None` if memory does not know the instance.
    no: Option<InstanceNo>,
    id: &'a str,
    execution: u64,
    runs: &'a [Arc<Run>],
}

/// What has to be asked about an execution before these runs are appended to it; `None` if memory knows that they come
/// after all there is, as the runtime's do.
pub(super) fn wanted(rows: &InstanceRows, execution: u64, runs: &[Arc<Run>]) -> Option<ExecutionWanted> {
    let is_latest = execution == rows.execution;
    let behind = |run: &&Arc<Run>| !(is_latest && run.first_event > rows.latest.last_event);
    let before: Vec<u64> = runs.iter().filter(behind).map(|run| run.last_event).collect();
    let is_needed = !is_latest || !before.is_empty();
    is_needed.then_some(ExecutionWanted { key: rows.key, execution, before })
}

impl Engine {
    /// Asks for what the operations of a batch need.
    pub(super) fn prefetch<'a>(&mut self, ops: impl Iterator<Item = &'a Op> + Clone) {
        let mut ids: Vec<Arc<str>> = ops.clone().filter_map(|op| self.unknown_instance_of(op)).collect();
        if !ids.is_empty() {
            ids.sort_unstable();
            ids.dedup();
            let found = self.store.instances(&ids);
            self.batch.prefetched.instances.extend(ids.into_iter().zip(found));
        }
        let executions: Vec<ExecutionWanted> = ops.filter_map(|op| self.unknown_execution_of(op)).collect();
        if !executions.is_empty() {
            let found = self.store.executions(&executions);
            let keys = executions.into_iter().map(|wanted| (wanted.key, wanted.execution, wanted.before));
            self.batch.prefetched.executions.extend(keys.zip(found));
        }
    }

    /// What an operation appends, and to what; `None` if it appends nothing.
    fn appends<'a>(&'a self, op: &'a Op) -> Option<Appended<'a>> {
        match op {
            Op::AckTurn(ack) => {
                let no = self.turns.leases.get(ack.lease)?.instance;
                let id = self.turns.instances.id(no)?;
                Some(Appended { no: Some(no), id, execution: ack.execution, runs: &ack.history })
            }
            Op::AppendHistory { instance, execution, runs } => {
                let no = self.turns.instances.find(instance);
                Some(Appended { no, id: instance, execution: *execution, runs })
            }
            _ => None,
        }
    }

    /// The instance that an operation appends to, if its rows are unknown.
    fn unknown_instance_of(&self, op: &Op) -> Option<Arc<str>> {
        let Appended { no, id, .. } = self.appends(op)?;
        let is_known = no.is_some_and(|no| !matches!(self.turns.instances.rows(no), RowCache::Unread));
        (!is_known).then(|| id.into())
    }

    fn unknown_execution_of(&self, op: &Op) -> Option<ExecutionWanted> {
        let Appended { no, id, execution, runs } = self.appends(op)?;
        if let Some(RowCache::Present(rows)) = no.map(|no| self.turns.instances.rows(no)) {
            return wanted(rows, execution, runs);
        }
        match self.batch.prefetched.instances.get(id) {
            Some(Ok(Some(found))) => wanted(&found.rows, execution, runs),
            _ => None,
        }
    }

    /// The rows of an instance, asked for once and then kept up to date.
    pub(super) fn rows_of(&mut self, no: InstanceNo) -> Result<Option<Arc<InstanceRows>>, Stop> {
        match self.turns.instances.rows(no) {
            RowCache::Present(rows) => return Ok(Some(Arc::clone(rows))),
            RowCache::Absent => return Ok(None),
            RowCache::Unread => {}
        }
        let Some(id) = self.turns.instances.id(no).cloned() else { return Ok(None) };
        let found = match self.batch.prefetched.instances.remove(&id) {
            Some(found) => found,
            None => self.find_instance(&id),
        };
        let found = found.map_err(|error| unread(error, || format!("the rows of instance {id}")))?;
        Ok(self.learn_found(no, &id, found))
    }

    /// Asks for the rows of one instance.
    pub(super) fn find_instance(&mut self, id: &Arc<str>) -> Result<Option<InstanceFound>, Error> {
        self.store.instances(std::slice::from_ref(id)).pop().unwrap_or(Ok(None))
    }

    /// What there is of an execution: committed, and staged.
    pub(super) fn execution_of(&mut self, wanted: ExecutionWanted) -> Result<ExecutionFound, Error> {
        let asked = (wanted.key, wanted.execution, wanted.before);
        let found = match self.batch.prefetched.executions.remove(&asked) {
            Some(found) => found,
            None => {
                let (key, execution, before) = asked.clone();
                let wanted = ExecutionWanted { key, execution, before };
                self.store.executions(&[wanted]).pop().unwrap_or_else(|| Ok(ExecutionFound::default()))
            }
        };
        let (key, execution, before) = asked;
        let mut found = found?;
        let range = |run: &Arc<Run>| (run.first_event, run.last_event);
        for (event, found) in before.iter().zip(&mut found.before) {
            let staged = self.staged.history_of(key, execution);
            let last = staged.map(range).take_while(|(first, _)| first <= event).last();
            *found = (*found).max(last);
        }
        if let Some(last) = self.staged.history_of(key, execution).next_back() {
            found.rows.last_event = found.rows.last_event.max(last.last_event);
        }
        if let Some(change) = self.staged.executions.get(&(key, execution)) {
            found.rows.exists = true;
            found.rows.pinned = change.pinned.clone().or(found.rows.pinned);
        }
        Ok(found)
    }

    /// What was found of an instance is known from here on.
    pub(super) fn learn_found(
        &mut self,
        no: InstanceNo,
        id: &str,
        found: Option<InstanceFound>,
    ) -> Option<Arc<InstanceRows>> {
        let rows = found.map(|found| {
            let mut rows = found.rows;
            if let Identity::Unnamed { is_started } = &mut rows.identity {
                *is_started = starts(&found.history, id, rows.execution);
            }
            Arc::new(rows)
        });
        self.learn(no, rows.clone().map_or(RowCache::Absent, RowCache::Present));
        rows
    }

    /// What an instance's rows are from here on; forgotten if the batch is rolled back.
    pub(super) fn learn(&mut self, instance: InstanceNo, rows: RowCache<Arc<InstanceRows>>) {
        self.turns.instances.set_rows(instance, rows);
        self.batch.undo.push(Undo::Learned { instance });
    }

    /// The key of an instance that gets its first row.
    pub(super) fn new_key(&mut self) -> Result<InstanceKey, Stop> {
        let key = match self.next_key {
            Some(key) => key,
            None => self.store.next_key().map_err(|error| unread(error, || "the instances".to_owned()))?,
        };
        self.next_key = Some(key + 1);
        Ok(key)
    }
}

/// Whether there is a start in a history that was appended by hand: the one case in which the writer decodes events.
/// What does not decode starts nothing.
pub(super) fn starts(history: &[Arc<Run>], id: &str, execution: u64) -> bool {
    let mut events = Vec::new();
    let decoded = history
        .iter()
        .try_for_each(|run| codec::decode_bound_events(&run.record, id, execution, &mut events));
    decoded.is_ok() && events.iter().any(|event| matches!(event.kind, EventKind::OrchestrationStarted { .. }))
}

/// What it means for an operation that something it depends on could not be read: it has touched nothing yet.
pub(super) fn unread(error: Error, record: impl FnOnce() -> String) -> Stop {
    let error = if error.is_damage() {
        Error::Corrupt { record: record(), source: Arc::new(error) }
    } else {
        Error::RolledBack { source: Arc::new(error) }
    };
    Stop::Refused { error, stands: true }
}
