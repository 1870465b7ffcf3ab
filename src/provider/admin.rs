//! `duroxide::providers::ProviderAdmin`, method by method.

use async_trait::async_trait;
use duroxide::Event;
use duroxide::providers::{
    DeleteInstanceResult, ExecutionInfo, InstanceFilter, InstanceInfo, InstanceTree, ProviderAdmin,
    ProviderError, PruneOptions, PruneResult, QueueDepths, SystemMetrics,
};

use super::contract::named;
use super::{Forebay, Seen, provider_error};
use crate::engine::{Op, Reply};
use crate::error::Error;
use crate::rows::Reads;

impl Forebay {
    async fn delete(&self, op: Op) -> Result<DeleteInstanceResult, Error> {
        match self.submit(op, 0).await? {
            Reply::Deleted(result) => Ok(result),
            _ => Ok(DeleteInstanceResult::default()),
        }
    }

    async fn prune(&self, op: Op) -> Result<PruneResult, Error> {
        match self.submit(op, 0).await? {
            Reply::Pruned(result) => Ok(result),
            _ => Ok(PruneResult::default()),
        }
    }
}

#[async_trait]
impl ProviderAdmin for Forebay {
    async fn list_instances(&self) -> Result<Vec<String>, ProviderError> {
        named!("list_instances", self.read(Seen::Anything, |rows| rows.list_instances(None)).await)
    }

    async fn list_instances_by_status(&self, status: &str) -> Result<Vec<String>, ProviderError> {
        let status = status.to_owned();
        named!("list_instances_by_status", {
            self.read(Seen::Anything, move |rows| rows.list_instances(Some(&status))).await
        })
    }

    async fn list_executions(&self, instance: &str) -> Result<Vec<u64>, ProviderError> {
        let id = instance.to_owned();
        named!(
            "list_executions",
            self.read(Seen::Instance(instance), move |rows| rows.list_executions(&id)).await
        )
    }

    async fn read_history_with_execution_id(
        &self,
        instance: &str,
        execution_id: u64,
    ) -> Result<Vec<Event>, ProviderError> {
        named!("read_history_with_execution_id", self.read_events(instance, Some(execution_id)).await)
    }

    async fn read_history(&self, instance: &str) -> Result<Vec<Event>, ProviderError> {
        named!("read_history", self.read_events(instance, None).await)
    }

    async fn latest_execution_id(&self, instance: &str) -> Result<u64, ProviderError> {
        let id = instance.to_owned();
        named!("latest_execution_id", {
            self.read_point(Seen::Instance(instance), move |rows| rows.latest_execution(&id)).await
        })
    }

    async fn get_instance_info(&self, instance: &str) -> Result<InstanceInfo, ProviderError> {
        let id = instance.to_owned();
        named!("get_instance_info", {
            let info = self.read_point(Seen::Instance(instance), move |rows| rows.instance_info(&id)).await?;
            info.ok_or_else(|| Error::not_found(format_args!("instance {instance}")))
        })
    }

    async fn get_execution_info(
        &self,
        instance: &str,
        execution_id: u64,
    ) -> Result<ExecutionInfo, ProviderError> {
        let id = instance.to_owned();
        named!("get_execution_info", {
            let read = move |rows: &dyn Reads| rows.execution_info(&id, execution_id);
            let info = self.read(Seen::Instance(instance), read).await?;
            info.ok_or_else(|| {
                Error::not_found(format_args!("execution {execution_id} of instance {instance}"))
            })
        })
    }

    async fn get_system_metrics(&self) -> Result<SystemMetrics, ProviderError> {
        named!("get_system_metrics", self.read(Seen::Anything, |rows| rows.system_metrics()).await)
    }

    async fn get_queue_depths(&self) -> Result<QueueDepths, ProviderError> {
        named!("get_queue_depths", {
            match self.submit(Op::QueueDepths, 0).await? {
                Reply::Depths(depths) => Ok(depths),
                _ => Ok(QueueDepths::default()),
            }
        })
    }

    async fn list_children(&self, instance_id: &str) -> Result<Vec<String>, ProviderError> {
        let id = instance_id.to_owned();
        named!("list_children", self.read(Seen::Anything, move |rows| rows.list_children(&id)).await)
    }

    async fn get_parent_id(&self, instance_id: &str) -> Result<Option<String>, ProviderError> {
        let id = instance_id.to_owned();
        named!("get_parent_id", {
            let parent = self.read_point(Seen::Instance(instance_id), move |rows| rows.parent(&id)).await?;
            parent.ok_or_else(|| Error::not_found(format_args!("instance {instance_id}")))
        })
    }

    // Through the writer: which starts still wait is known there. `list_children` shows the instances there are.
    async fn get_instance_tree(&self, instance_id: &str) -> Result<InstanceTree, ProviderError> {
        let root = instance_id.to_owned();
        named!("get_instance_tree", {
            let all_ids = match self.submit(Op::Tree { root }, 0).await? {
                Reply::Ids(ids) => ids,
                _ => Vec::new(),
            };
            Ok(InstanceTree { root_id: instance_id.to_owned(), all_ids })
        })
    }

    async fn delete_instances_atomic(
        &self,
        ids: &[String],
        force: bool,
    ) -> Result<DeleteInstanceResult, ProviderError> {
        named!("delete_instances_atomic", self.delete(Op::Delete { ids: ids.to_vec(), force }).await)
    }

    async fn delete_instance_bulk(
        &self,
        filter: InstanceFilter,
    ) -> Result<DeleteInstanceResult, ProviderError> {
        named!("delete_instance_bulk", self.delete(Op::DeleteBulk(filter)).await)
    }

    async fn prune_executions(
        &self,
        instance_id: &str,
        options: PruneOptions,
    ) -> Result<PruneResult, ProviderError> {
        named!("prune_executions", self.prune(Op::Prune { id: instance_id.to_owned(), options }).await)
    }

    async fn prune_executions_bulk(
        &self,
        filter: InstanceFilter,
        options: PruneOptions,
    ) -> Result<PruneResult, ProviderError> {
        named!("prune_executions_bulk", self.prune(Op::PruneBulk { filter, options }).await)
    }
}
