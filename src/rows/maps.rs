//! Rows in plain maps, for tests: what SQLite does and this does not is a bug in one of them.
//!
//! There is no SQL, no file, no damage and no disk in it, so a test that is about the engine alone is over in
//! milliseconds. What is written is kept aside until it is committed.

mod reads;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use semver::Version;

use super::kv::KvRows;
use super::{
    Change, ExecutionChange, ExecutionFound, ExecutionRows, ExecutionWanted, HistoryFound, Identity,
    InstanceFound, InstanceKey, InstanceRows, MessageHead, MessageRow, Reads, RowStore, Run, Schedule,
    Staged, Status, TurnFound, TurnWanted, Waiting, WorkRow, WriteError,
};
use crate::buffer::{CommitError, CommitNo};
use crate::error::Error;
use crate::queue::{MessageId, WorkId};

/// A row of `instances`.
#[derive(Debug, Clone)]
struct Instance {
    id: Arc<str>,
    name: Option<String>,
    version: Option<String>,
    execution: u64,
    parent: Option<String>,
    custom_status: Option<String>,
    custom_status_version: u64,
    created_at_ms: u64,
}

/// A row of `executions`.
#[derive(Debug, Clone)]
struct Execution {
    status: Status,
    output: Option<String>,
    pinned: Option<Version>,
    started_at_ms: u64,
    completed_at_ms: Option<u64>,
}

#[derive(Debug, Default)]
struct Tables {
    instances: BTreeMap<InstanceKey, Instance>,
    by_id: HashMap<Arc<str>, InstanceKey>,
    executions: BTreeMap<(InstanceKey, u64), Execution>,
    /// With the time at which each was written.
    history: BTreeMap<(InstanceKey, u64, u64), (Arc<Run>, u64)>,
    kv: BTreeMap<InstanceKey, KvRows>,
    messages: BTreeMap<MessageId, (MessageRow, Schedule)>,
    work: BTreeMap<WorkId, (WorkRow, Schedule)>,
}

/// One write, as it will be when it is committed.
struct Written {
    staged: Staged,
    messages: Vec<(MessageId, Change<MessageRow>)>,
    work: Vec<(WorkId, Change<WorkRow>)>,
}

/// What is left when an engine over maps is closed, and found by the next one: what a file is to SQLite.
#[derive(Clone, Default)]
pub(crate) struct Kept {
    tables: Arc<Mutex<Tables>>,
    refuses_writes: Arc<AtomicBool>,
}

impl Kept {
    /// From here on no batch can be written; or every one can be again.
    pub(crate) fn refuse_writes(&self, refuse: bool) {
        self.refuses_writes.store(refuse, Ordering::SeqCst);
    }
}

/// See the module's documentation.
pub(crate) struct Maps {
    tables: Tables,
    written: Vec<Written>,
    kept: Kept,
}

impl Maps {
    /// Takes what is kept; it is put back when this is dropped.
    pub(crate) fn open(kept: &Kept) -> Self {
        let tables = std::mem::take(&mut *kept.tables.lock());
        Self { tables, written: Vec::new(), kept: kept.clone() }
    }
}

/// What tests do behind the engine's back.
impl Maps {
    /// Damages the history of an instance; tells how many rows that was.
    pub(crate) fn corrupt_history(&mut self, instance: &str) -> usize {
        let Some(key) = self.tables.by_id.get(instance).copied() else { return 0 };
        let of_it = self.tables.history.iter_mut().filter(|((of, ..), _)| *of == key);
        of_it
            .map(|(_, (run, _))| {
                *run = Arc::new(Run { record: b"\x01\xde\xad\xbe\xef\x00".to_vec(), ..Run::clone(run) });
            })
            .count()
    }

    /// How often the message of an instance was tried that was tried most often.
    pub(crate) fn attempts(&self, instance: &str) -> u32 {
        let of_it = self.tables.messages.values().filter(|(row, _)| *row.instance == *instance);
        of_it.map(|(_, schedule)| schedule.attempt).max().unwrap_or(0)
    }
}

impl Drop for Maps {
    fn drop(&mut self) {
        *self.kept.tables.lock() = std::mem::take(&mut self.tables);
    }
}

fn queued<R>(rows: &mut BTreeMap<i64, (R, Schedule)>, changes: Vec<(i64, Change<R>)>) {
    for (id, change) in changes {
        match change {
            Change::Insert(row, schedule) => {
                assert!(rows.insert(id, (row, schedule)).is_none(), "row {id} is inserted twice");
            }
            Change::Update(schedule) => {
                if let Some((_, current)) = rows.get_mut(&id) {
                    *current = schedule;
                }
            }
            Change::Delete => {
                rows.remove(&id);
            }
        }
    }
}

impl Tables {
    fn commit(&mut self, written: Written) {
        let Written { staged, messages, work } = written;
        for key in staged.deleted {
            if let Some(instance) = self.instances.remove(&key) {
                self.by_id.remove(&instance.id);
            }
            self.executions.retain(|(of, _), _| *of != key);
            self.history.retain(|(of, ..), _| *of != key);
            self.kv.remove(&key);
        }
        for execution in staged.pruned {
            self.executions.remove(&execution);
            self.history.retain(|(key, of, _), _| (*key, *of) != execution);
        }
        for (key, (new, update)) in staged.instances {
            if let Some(new) = new {
                assert!(self.by_id.insert(Arc::clone(&new.id), key).is_none(), "{} has a row", new.id);
                let instance = Instance {
                    id: new.id,
                    name: None,
                    version: None,
                    execution: new.execution,
                    parent: None,
                    custom_status: None,
                    custom_status_version: 0,
                    created_at_ms: new.created_at_ms,
                };
                self.instances.insert(key, instance);
            }
            let Some(instance) = self.instances.get_mut(&key) else { continue };
            if let Some((name, version)) = update.named {
                (instance.name, instance.version) = (Some(name), version);
            }
            instance.parent = update.parent.or(instance.parent.take());
            instance.execution = update.execution.unwrap_or(instance.execution);
            instance.custom_status = update.custom_status.unwrap_or(instance.custom_status.take());
            instance.custom_status_version += u64::from(update.custom_status_versions);
        }
        for (of, change) in staged.executions {
            self.put_execution(of, change);
        }
        for (of, staged) in staged.history {
            let row = (staged.run, staged.written_at_ms);
            assert!(self.history.insert(of, row).is_none(), "events of {of:?} are written twice");
        }
        for (key, ops) in staged.kv {
            let rows = self.kv.entry(key).or_default();
            ops.iter().for_each(|op| rows.apply(op));
        }
        queued(&mut self.messages, messages);
        queued(&mut self.work, work);
    }

    fn put_execution(&mut self, of: (InstanceKey, u64), change: ExecutionChange) {
        let completed_at_ms = change.completed_at_ms();
        let execution = self.executions.entry(of).or_insert_with(|| Execution {
            status: Status::Running,
            output: None,
            pinned: None,
            started_at_ms: change.now_ms,
            completed_at_ms: None,
        });
        execution.pinned = change.pinned.or(execution.pinned.take());
        if let Some(status) = change.status {
            (execution.status, execution.output) = (status, change.output);
            execution.completed_at_ms = completed_at_ms;
        }
    }

    fn find(&self, id: &str) -> Option<(InstanceKey, &Instance)> {
        let key = *self.by_id.get(id)?;
        Some((key, self.instances.get(&key)?))
    }

    fn named(&self, id: &str) -> Option<(InstanceKey, &Instance)> {
        self.find(id).filter(|(_, instance)| instance.name.is_some())
    }

    fn latest(&self, key: InstanceKey, instance: &Instance) -> Option<&Execution> {
        self.executions.get(&(key, instance.execution))
    }

    fn runs(&self, key: InstanceKey, execution: u64) -> impl DoubleEndedIterator<Item = &(Arc<Run>, u64)> {
        self.history.range((key, execution, 0)..=(key, execution, u64::MAX)).map(|(_, row)| row)
    }

    fn executions(&self, key: InstanceKey) -> impl DoubleEndedIterator<Item = (u64, &Execution)> {
        self.executions.range((key, 0)..=(key, u64::MAX)).map(|((_, no), execution)| (*no, execution))
    }

    fn events(&self, key: InstanceKey, execution: Option<u64>) -> u64 {
        let of_it = |of: &(InstanceKey, u64, u64)| of.0 == key && execution.is_none_or(|no| no == of.1);
        let rows = self.history.iter().filter(|(of, _)| of_it(of));
        rows.map(|(_, (run, _))| run.last_event - run.first_event + 1).sum()
    }

    fn execution_rows(&self, key: InstanceKey, execution: u64) -> ExecutionRows {
        let row = self.executions.get(&(key, execution));
        ExecutionRows {
            exists: row.is_some(),
            pinned: row.and_then(|row| row.pinned.clone()),
            last_event: self.runs(key, execution).next_back().map_or(0, |(run, _)| run.last_event),
        }
    }

    fn found(&self, id: &str) -> Option<InstanceFound> {
        let (key, instance) = self.find(id)?;
        let (identity, history) = match &instance.name {
            Some(name) => {
                (Identity::Named { name: name.clone(), version: instance.version.clone() }, Vec::new())
            }
            None => {
                let history = self.runs(key, instance.execution).map(|(run, _)| Arc::clone(run));
                (Identity::Unnamed { is_started: false }, history.collect())
            }
        };
        let rows = InstanceRows {
            key,
            identity,
            execution: instance.execution,
            latest: self.execution_rows(key, instance.execution),
            may_have_kv: self.kv.get(&key).is_some_and(|kv| !kv.0.is_empty()),
        };
        Some(InstanceFound { rows, history })
    }

    /// An instance and its descendants, by key.
    fn below(&self, root: InstanceKey) -> BTreeSet<InstanceKey> {
        let mut found = BTreeSet::from([root]);
        let mut next = vec![root];
        while let Some(parent) = next.pop() {
            let parent = self.instances.get(&parent).map(|instance| &*instance.id);
            for (key, instance) in &self.instances {
                if instance.parent.as_deref() == parent && found.insert(*key) {
                    next.push(*key);
                }
            }
        }
        found
    }

    fn is_finished_tree(&self, key: InstanceKey, root: &Instance) -> bool {
        let is_running = |key: &InstanceKey| {
            let latest = self.instances.get(key).and_then(|instance| self.latest(*key, instance));
            latest.is_some_and(|latest| latest.status == Status::Running)
        };
        root.parent.is_none()
            && self.latest(key, root).is_some_and(|latest| latest.status.is_end())
            && !self.below(key).iter().any(is_running)
    }
}

/// The engine asks only for what it has been told of.
fn no_row(table: &str, id: i64) -> Error {
    Error::internal(format!("there is no row {id} in {table}"))
}

impl RowStore for Maps {
    fn load(&mut self, waiting: Waiting<'_>) -> Result<(), Error> {
        for (id, (row, schedule)) in &self.tables.messages {
            (waiting.message)(*id, &row.instance, row.kind, *schedule);
        }
        for (id, (row, schedule)) in &self.tables.work {
            (waiting.work)(*id, WorkRow { record: Vec::new(), ..row.clone() }, *schedule);
        }
        Ok(())
    }

    fn next_key(&mut self) -> Result<InstanceKey, Error> {
        Ok(self.tables.instances.last_key_value().map_or(1, |(key, _)| key + 1))
    }

    fn instances(&mut self, ids: &[Arc<str>]) -> Vec<Result<Option<InstanceFound>, Error>> {
        ids.iter().map(|id| Ok(self.tables.found(id))).collect()
    }

    fn executions(&mut self, wanted: &[ExecutionWanted]) -> Vec<Result<ExecutionFound, Error>> {
        let found = wanted.iter().map(|wanted| {
            let before = |event: &u64| {
                let runs = self.tables.runs(wanted.key, wanted.execution).map(|(run, _)| run);
                let last = runs.rev().find(|run| run.first_event <= *event);
                last.map(|run| (run.first_event, run.last_event))
            };
            Ok(ExecutionFound {
                rows: self.tables.execution_rows(wanted.key, wanted.execution),
                before: wanted.before.iter().map(before).collect(),
            })
        });
        found.collect()
    }

    fn turns(&mut self, wanted: &[TurnWanted]) -> Vec<TurnFound> {
        let tables = &self.tables;
        let found = wanted.iter().map(|wanted| TurnFound {
            messages: wanted.messages.iter().map(|id| tables.message_record(*id)).collect(),
            history: Ok(wanted.history.map_or_else(HistoryFound::default, |(key, execution)| HistoryFound {
                runs: tables.runs(key, execution).map(|(run, _)| Arc::clone(run)).collect(),
                later_execution: tables.executions(key).any(|(no, _)| no > execution),
                later_history: tables.history.keys().any(|(of, no, _)| *of == key && *no > execution),
            })),
            kv: Ok(wanted.kv.and_then(|(key, _)| tables.kv.get(&key).cloned()).unwrap_or_default()),
        });
        found.collect()
    }

    fn message_heads(&mut self, ids: &[MessageId]) -> Vec<Result<Option<MessageHead>, Error>> {
        let head = |id| {
            let (row, schedule) = self.tables.messages.get(id)?;
            let (instance, attempt) = (row.instance.to_string(), schedule.attempt);
            Some(MessageHead { instance, kind: row.kind, attempt })
        };
        ids.iter().map(|id| Ok(head(id))).collect()
    }

    fn work_records(&mut self, ids: &[WorkId]) -> Vec<Result<Vec<u8>, Error>> {
        let record = |id: &WorkId| {
            let row = self.tables.work.get(id).ok_or_else(|| no_row("work", *id))?;
            Ok(row.0.record.clone())
        };
        ids.iter().map(record).collect()
    }

    fn reads(&self) -> &dyn Reads {
        &self.tables
    }

    fn maps(&mut self) -> Option<&mut Maps> {
        Some(self)
    }

    fn write(&mut self, staged: &mut Staged, now: Duration) -> Result<(), WriteError> {
        if self.kept.refuses_writes.load(Ordering::SeqCst) {
            return Err(Error::internal("writes are refused").into());
        }
        let (messages, work) = (staged.messages.drain(now).collect(), staged.work.drain(now).collect());
        self.written.push(Written { staged: staged.take_rows(), messages, work });
        Ok(())
    }

    fn commit(&mut self, _now: Duration) -> Result<(), CommitError> {
        for written in std::mem::take(&mut self.written) {
            self.tables.commit(written);
        }
        Ok(())
    }

    fn rollback(&mut self) -> Result<(), Error> {
        self.rollback_at_once()
    }

    fn rollback_at_once(&mut self) -> Result<(), Error> {
        self.written.clear();
        Ok(())
    }

    fn next_commit(&self) -> CommitNo {
        0
    }

    fn last_commit(&self) -> CommitNo {
        0
    }

    fn maintain(&mut self, _now: Duration) -> Result<(), Error> {
        Ok(())
    }

    fn wait(&self, _now: Duration) -> Option<Duration> {
        None
    }

    fn close(&mut self) -> Result<(), Error> {
        Ok(())
    }

    fn let_go(&mut self) {}
}
