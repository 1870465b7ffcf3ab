//! What readers ask, of maps.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use duroxide::INITIAL_EXECUTION_ID;
use duroxide::providers::{ExecutionInfo, InstanceInfo, PruneOptions, SystemMetrics};

use super::{Execution, Instance, Tables, no_row};
use crate::error::Error;
use crate::queue::MessageId;
use crate::rows::kv::KvRows;
use crate::rows::{BulkSelect, InstanceKey, InstanceStats, Reads, Removed, Run, Status, UNKNOWN_VERSION};

impl Reads for Tables {
    fn latest_execution(&self, id: &str) -> Result<u64, Error> {
        let latest = self.find(id).and_then(|(key, _)| self.executions(key).next_back());
        Ok(latest.map_or(INITIAL_EXECUTION_ID, |(no, _)| no))
    }

    fn history(&self, id: &str, execution: Option<u64>) -> Result<(u64, Vec<Arc<Run>>), Error> {
        let execution = execution.map_or_else(|| self.latest_execution(id), Ok)?;
        let Some((key, _)) = self.find(id) else { return Ok((execution, Vec::new())) };
        Ok((execution, self.runs(key, execution).map(|(run, _)| Arc::clone(run)).collect()))
    }

    fn custom_status(
        &self,
        id: &str,
        last_seen_version: u64,
    ) -> Result<Option<(Option<String>, u64)>, Error> {
        let found = self.find(id).map(|(_, row)| (row.custom_status.clone(), row.custom_status_version));
        Ok(found.filter(|(_, version)| *version > last_seen_version))
    }

    fn kv_value(&self, id: &str, key: &str) -> Result<Option<String>, Error> {
        Ok(self.kv_all(id)?.remove(key))
    }

    fn kv_all(&self, id: &str) -> Result<HashMap<String, String>, Error> {
        let rows = self.find(id).and_then(|(key, _)| self.kv.get(&key));
        let seen = rows.into_iter().flat_map(KvRows::seen);
        Ok(seen.map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn instance_stats(&self, id: &str) -> Result<Option<InstanceStats>, Error> {
        let Some((key, instance)) = self.named(id) else { return Ok(None) };
        let kv = self.kv_all(id)?;
        let runs = || self.runs(key, instance.execution).map(|(run, _)| run);
        Ok(Some(InstanceStats {
            events: self.events(key, Some(instance.execution)),
            history_bytes: runs().map(|run| run.record.len() as u64).sum(),
            kv_keys: kv.len() as u64,
            kv_bytes: kv.values().map(|value| value.len() as u64).sum(),
            execution: instance.execution,
            first: runs().find(|run| run.first_event == 1).cloned(),
        }))
    }

    fn list_instances(&self, status: Option<&str>) -> Result<Vec<String>, Error> {
        let has_status = |key: InstanceKey, instance: &Instance| {
            let latest = || self.latest(key, instance).map(|latest| latest.status.as_str());
            status.is_none() || latest() == status
        };
        let named = self.instances.iter().rev().filter(|(_, instance)| instance.name.is_some());
        let listed = named.filter(|(key, instance)| has_status(**key, instance));
        Ok(listed.map(|(_, instance)| instance.id.to_string()).collect())
    }

    fn list_executions(&self, id: &str) -> Result<Vec<u64>, Error> {
        let Some((key, _)) = self.find(id) else { return Ok(Vec::new()) };
        Ok(self.executions(key).map(|(no, _)| no).collect())
    }

    fn list_children(&self, id: &str) -> Result<Vec<String>, Error> {
        let children = self.instances.values().filter(|instance| instance.parent.as_deref() == Some(id));
        Ok(children.map(|instance| instance.id.to_string()).collect())
    }

    fn tree(&self, root: &str) -> Result<Vec<String>, Error> {
        let mut tree = vec![root.to_owned()];
        let mut at = 0;
        while let Some(id) = tree.get(at).cloned() {
            for child in self.list_children(&id)? {
                if !tree.contains(&child) {
                    tree.push(child);
                }
            }
            at += 1;
        }
        Ok(tree)
    }

    fn parent(&self, id: &str) -> Result<Option<Option<String>>, Error> {
        Ok(self.named(id).map(|(_, instance)| instance.parent.clone()))
    }

    fn instance_info(&self, id: &str) -> Result<Option<InstanceInfo>, Error> {
        let Some((key, instance)) = self.named(id) else { return Ok(None) };
        let latest = self.latest(key, instance);
        let written = self.runs(key, instance.execution).map(|(_, at_ms)| *at_ms).max();
        Ok(Some(InstanceInfo {
            instance_id: id.to_owned(),
            orchestration_name: instance.name.clone().unwrap_or_default(),
            orchestration_version: instance.version.clone().unwrap_or_else(|| UNKNOWN_VERSION.into()),
            current_execution_id: instance.execution,
            status: latest.map_or("Unknown", |latest| latest.status.as_str()).to_owned(),
            output: latest.and_then(|latest| latest.output.clone()),
            created_at: instance.created_at_ms,
            updated_at: written
                .or_else(|| latest.and_then(|latest| latest.completed_at_ms))
                .unwrap_or(instance.created_at_ms),
            parent_instance_id: instance.parent.clone(),
        }))
    }

    fn execution_info(&self, id: &str, execution: u64) -> Result<Option<ExecutionInfo>, Error> {
        let Some((key, _)) = self.find(id) else { return Ok(None) };
        let Some(row) = self.executions.get(&(key, execution)) else { return Ok(None) };
        Ok(Some(ExecutionInfo {
            execution_id: execution,
            status: row.status.as_str().to_owned(),
            output: row.output.clone(),
            started_at: row.started_at_ms,
            completed_at: row.completed_at_ms,
            event_count: usize::try_from(self.events(key, Some(execution))).unwrap_or(usize::MAX),
        }))
    }

    fn system_metrics(&self) -> Result<SystemMetrics, Error> {
        let count = |status: Option<Status>| {
            let named = self.instances.iter().filter(|(_, instance)| instance.name.is_some());
            let latest = named.filter(|(key, instance)| {
                let latest = self.latest(**key, instance).map(|latest| &latest.status);
                status.is_none() || latest == status.as_ref()
            });
            latest.count() as u64
        };
        Ok(SystemMetrics {
            total_instances: count(None),
            running_instances: count(Some(Status::Running)),
            completed_instances: count(Some(Status::Completed)),
            failed_instances: count(Some(Status::Failed)),
            total_executions: self.executions.len() as u64,
            total_events: self.instances.keys().map(|key| self.events(*key, None)).sum(),
        })
    }

    fn status(&self, id: &str) -> Result<Option<Status>, Error> {
        let latest = self.find(id).and_then(|(key, instance)| self.latest(key, instance));
        Ok(latest.map(|latest| latest.status.clone()))
    }

    fn select(&self, select: BulkSelect<'_>) -> Result<Vec<(InstanceKey, Option<String>)>, Error> {
        let is_before = |key: InstanceKey, instance: &Instance| {
            let completed = self.latest(key, instance).and_then(|latest| latest.completed_at_ms);
            let before = |limit_ms| completed.is_some_and(|at_ms| at_ms < limit_ms);
            select.completed_before_ms.is_none_or(before)
        };
        let after = self.instances.iter().filter(|(key, instance)| {
            **key > select.after
                && instance.name.is_some()
                && select.id.is_none_or(|id| id == &*instance.id)
                && is_before(**key, instance)
                && (!select.finished_trees || self.is_finished_tree(**key, instance))
        });
        let limit = usize::try_from(select.limit).unwrap_or(usize::MAX);
        Ok(after.take(limit).map(|(key, instance)| (*key, Some(instance.id.to_string()))).collect())
    }

    fn prunable(&self, key: InstanceKey, current: u64, options: &PruneOptions) -> Result<Vec<u64>, Error> {
        let keep = options.keep_last.and_then(|keep| usize::try_from(keep).ok()).unwrap_or(0);
        let kept: BTreeSet<u64> = self.executions(key).rev().take(keep).map(|(no, _)| no).collect();
        let may_go = |no: u64, execution: &Execution| {
            let before = |limit_ms| execution.completed_at_ms.is_some_and(|at_ms| at_ms < limit_ms);
            no != current
                && execution.status != Status::Running
                && options.completed_before.is_none_or(before)
                && !kept.contains(&no)
        };
        let prunable = self.executions(key).filter(|(no, execution)| may_go(*no, execution));
        Ok(prunable.map(|(no, _)| no).collect())
    }

    fn removed_with(&self, key: InstanceKey, execution: Option<u64>) -> Result<Removed, Error> {
        let executions = self.executions(key).filter(|(no, _)| execution.is_none_or(|of| of == *no));
        Ok(Removed { executions: executions.count() as u64, events: self.events(key, execution) })
    }

    fn strayed(
        &self,
        key: InstanceKey,
        execution: u64,
        is_of_it: &dyn Fn(&[u8]) -> bool,
    ) -> Result<Option<u64>, Error> {
        let others = self.history.iter().filter(|((of, no, _), _)| *of == key && *no != execution);
        let mut strayed = others.filter(|(_, (run, _))| is_of_it(&run.record));
        Ok(strayed.next().map(|((_, no, _), _)| *no))
    }

    fn message_record(&self, id: MessageId) -> Result<Vec<u8>, Error> {
        self.messages.get(&id).map(|(row, _)| row.record.clone()).ok_or_else(|| no_row("messages", id))
    }
}
