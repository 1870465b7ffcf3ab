//! What a batch does to the rows: its net effect, by table and key.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use semver::Version;

use super::{Changes, InstanceKey, KvOp, MessageRow, Run, Status, WorkRow};

/// A new row of `instances`.
#[derive(Debug)]
pub(crate) struct NewInstance {
    pub(crate) id: Arc<str>,
    pub(crate) execution: u64,
    pub(crate) created_at_ms: u64,
}

/// What changes of a row of `instances`.
#[derive(Debug, Default)]
pub(crate) struct InstanceUpdate {
    /// Name and version.
    pub(crate) named: Option<(String, Option<String>)>,
    /// Fixed when the instance gets its name.
    pub(crate) parent: Option<String>,
    pub(crate) execution: Option<u64>,
    pub(crate) custom_status: Option<Option<String>>,
    /// How often the custom status was set.
    pub(crate) custom_status_versions: u32,
}

impl InstanceUpdate {
    fn merge(&mut self, later: InstanceUpdate) {
        self.named = later.named.or(self.named.take());
        self.parent = later.parent.or(self.parent.take());
        self.execution = later.execution.or(self.execution);
        self.custom_status = later.custom_status.or(self.custom_status.take());
        self.custom_status_versions += later.custom_status_versions;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.named.is_none()
            && self.parent.is_none()
            && self.execution.is_none()
            && self.custom_status.is_none()
    }
}

/// What is said of an execution. It gets its row if it has none, and of one that is there only that is changed.
#[derive(Debug)]
pub(crate) struct ExecutionChange {
    /// Whether there is a row already.
    pub(crate) exists: bool,
    pub(crate) status: Option<Status>,
    /// Stored with a status only: an execution of which nothing is said has none.
    pub(crate) output: Option<String>,
    pub(crate) pinned: Option<Version>,
    pub(crate) now_ms: u64,
}

impl ExecutionChange {
    pub(crate) fn completed_at_ms(&self) -> Option<u64> {
        self.status.as_ref().filter(|status| **status != Status::Running).map(|_| self.now_ms)
    }

    fn merge(&mut self, later: ExecutionChange) {
        if later.status.is_some() {
            (self.status, self.output) = (later.status, later.output);
        }
        self.pinned = later.pinned.or(self.pinned.take());
        self.now_ms = later.now_ms;
    }
}

/// A row of `history` that is new.
#[derive(Debug)]
pub(crate) struct StagedRun {
    pub(crate) run: Arc<Run>,
    pub(crate) written_at_ms: u64,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Staged {
    /// Instances that go with everything they own.
    pub(crate) deleted: Vec<InstanceKey>,
    /// Executions that go with their history.
    pub(crate) pruned: Vec<(InstanceKey, u64)>,
    pub(crate) instances: BTreeMap<InstanceKey, (Option<NewInstance>, InstanceUpdate)>,
    pub(crate) executions: BTreeMap<(InstanceKey, u64), ExecutionChange>,
    /// By first event.
    pub(crate) history: BTreeMap<(InstanceKey, u64, u64), StagedRun>,
    pub(crate) kv: BTreeMap<InstanceKey, Vec<KvOp>>,
    pub(crate) messages: Changes<MessageRow>,
    pub(crate) work: Changes<WorkRow>,
}

impl Staged {
    pub(crate) fn is_empty(&self) -> bool {
        self.deleted.is_empty()
            && self.pruned.is_empty()
            && self.instances.is_empty()
            && self.executions.is_empty()
            && self.history.is_empty()
            && self.kv.is_empty()
            && self.messages.is_empty()
            && self.work.is_empty()
    }

    pub(crate) fn insert_instance(&mut self, key: InstanceKey, instance: NewInstance) {
        self.instances.insert(key, (Some(instance), InstanceUpdate::default()));
    }

    pub(crate) fn update_instance(&mut self, key: InstanceKey, update: InstanceUpdate) {
        if !update.is_empty() {
            self.instances.entry(key).or_default().1.merge(update);
        }
    }

    pub(crate) fn put_execution(&mut self, key: InstanceKey, execution: u64, change: ExecutionChange) {
        match self.executions.entry((key, execution)) {
            Entry::Vacant(entry) => {
                // Nothing is said of a row that is there.
                if !change.exists || change.status.is_some() || change.pinned.is_some() {
                    entry.insert(change);
                }
            }
            Entry::Occupied(mut entry) => entry.get_mut().merge(change),
        }
    }

    pub(crate) fn append(&mut self, key: InstanceKey, execution: u64, run: Arc<Run>, written_at_ms: u64) {
        self.history.insert((key, execution, run.first_event), StagedRun { run, written_at_ms });
    }

    /// What is staged of one history, in the order of its events.
    pub(crate) fn history_of(
        &self,
        key: InstanceKey,
        execution: u64,
    ) -> impl DoubleEndedIterator<Item = &Arc<Run>> {
        let of_it = (key, execution, u64::MIN)..=(key, execution, u64::MAX);
        self.history.range(of_it).map(|(_, staged)| &staged.run)
    }

    /// Whether changes of the key-values of an instance are staged.
    pub(crate) fn has_kv(&self, key: InstanceKey) -> bool {
        self.kv.contains_key(&key)
    }

    /// Takes all of it but the rows of the queues.
    pub(crate) fn take_rows(&mut self) -> Self {
        let (messages, work) = (std::mem::take(&mut self.messages), std::mem::take(&mut self.work));
        std::mem::replace(self, Self { messages, work, ..Self::default() })
    }

    /// What was staged is written, and committed.
    pub(crate) fn committed(&mut self) {
        self.messages.committed();
        self.work.committed();
    }

    /// Nothing of it is to be.
    pub(crate) fn rolled_back(&mut self) {
        self.messages.rolled_back();
        self.work.rolled_back();
        drop(self.take_rows());
    }
}
