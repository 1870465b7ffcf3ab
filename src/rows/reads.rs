//! What readers ask, and what an operation looks at that deletes: whatever is committed.

use std::collections::HashMap;
use std::sync::Arc;

use duroxide::providers::{ExecutionInfo, InstanceInfo, PruneOptions, SystemMetrics};

use super::{InstanceKey, Run, Status};
use crate::error::Error;
use crate::queue::MessageId;

/// What duroxide shows for an instance whose version nobody has resolved yet.
pub(crate) const UNKNOWN_VERSION: &str = "unknown";

/// What `get_instance_stats` needs; the first record holds the events carried over from an execution before.
#[derive(Debug)]
pub(crate) struct InstanceStats {
    pub(crate) events: u64,
    pub(crate) history_bytes: u64,
    pub(crate) kv_keys: u64,
    pub(crate) kv_bytes: u64,
    pub(crate) execution: u64,
    pub(crate) first: Option<Arc<Run>>,
}

/// What goes with an instance or an execution that is deleted.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Removed {
    pub(crate) executions: u64,
    pub(crate) events: u64,
}

/// Which instances a bulk operation may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BulkSelect<'a> {
    /// Roots of trees of which no member runs, alone.
    pub(crate) finished_trees: bool,
    /// This one alone.
    pub(crate) id: Option<&'a str>,
    /// Those whose latest execution was completed before.
    pub(crate) completed_before_ms: Option<u64>,
    /// Those with a greater key.
    pub(crate) after: InstanceKey,
    /// As many.
    pub(crate) limit: u32,
}

/// See the module's documentation. Each call sees one state of all rows.
pub(crate) trait Reads {
    /// The latest execution of an instance; 1 for an instance nobody has heard of.
    fn latest_execution(&self, id: &str) -> Result<u64, Error>;

    /// The stored history of one execution, the latest if none is named.
    fn history(&self, id: &str, execution: Option<u64>) -> Result<(u64, Vec<Arc<Run>>), Error>;

    /// The custom status and its version, if that is newer.
    fn custom_status(&self, id: &str, last_seen_version: u64)
    -> Result<Option<(Option<String>, u64)>, Error>;

    fn kv_value(&self, id: &str, key: &str) -> Result<Option<String>, Error>;

    fn kv_all(&self, id: &str) -> Result<HashMap<String, String>, Error>;

    fn instance_stats(&self, id: &str) -> Result<Option<InstanceStats>, Error>;

    /// Instances, newest first: all, or those whose latest execution has a status.
    fn list_instances(&self, status: Option<&str>) -> Result<Vec<String>, Error>;

    fn list_executions(&self, id: &str) -> Result<Vec<u64>, Error>;

    fn list_children(&self, id: &str) -> Result<Vec<String>, Error>;

    /// An instance and all its descendants, the root first.
    fn tree(&self, root: &str) -> Result<Vec<String>, Error>;

    /// The parent of an instance; the outer `None` if there is no such instance.
    fn parent(&self, id: &str) -> Result<Option<Option<String>>, Error>;

    fn instance_info(&self, id: &str) -> Result<Option<InstanceInfo>, Error>;

    fn execution_info(&self, id: &str, execution: u64) -> Result<Option<ExecutionInfo>, Error>;

    fn system_metrics(&self) -> Result<SystemMetrics, Error>;

    /// The status of the latest execution.
    fn status(&self, id: &str) -> Result<Option<Status>, Error>;

    /// Instances for a bulk operation, in the order of their keys. One whose id is damaged has none.
    fn select(&self, select: BulkSelect<'_>) -> Result<Vec<(InstanceKey, Option<String>)>, Error>;

    /// Executions that may go: never the current one, never one that runs, never the `keep_last` newest.
    fn prunable(&self, key: InstanceKey, current: u64, options: &PruneOptions) -> Result<Vec<u64>, Error>;

    /// What goes with an instance, or with one execution of it.
    fn removed_with(&self, key: InstanceKey, execution: Option<u64>) -> Result<Removed, Error>;

    /// The execution, other than the one that is named, under which there is a record of which this is said.
    fn strayed(
        &self,
        key: InstanceKey,
        execution: u64,
        is_of_it: &dyn Fn(&[u8]) -> bool,
    ) -> Result<Option<u64>, Error>;

    /// The record of a message.
    fn message_record(&self, id: MessageId) -> Result<Vec<u8>, Error>;
}
