//! `Provider`, handed on call by call to a subject, with an [`Observer`] looking on.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use duroxide::providers::{
    DispatcherCapabilityFilter, ExecutionMetadata, OrchestrationItem, Provider, ProviderAdmin, ProviderError,
    ScheduledActivityIdentifier, SessionFetchConfig, TagFilter, WorkItem,
};
use duroxide::{Event, SystemStats};

use super::observe::{Observer, Turn};

pub(crate) struct Observed {
    subject: Arc<dyn Provider>,
    observer: Arc<Observer>,
}

impl Observed {
    pub(crate) fn around(subject: Arc<dyn Provider>, observer: &Arc<Observer>) -> Arc<dyn Provider> {
        Arc::new(Self { subject, observer: Arc::clone(observer) })
    }
}

/// Hands a call on and counts its error.
macro_rules! pass {
    ($self:ident, $call:ident($($argument:expr),*)) => {
        $self.observer.count($self.subject.$call($($argument),*).await)
    };
}

#[async_trait]
impl Provider for Observed {
    fn name(&self) -> &str {
        self.subject.name()
    }

    fn version(&self) -> &str {
        self.subject.version()
    }

    async fn fetch_orchestration_item(
        &self,
        lock_timeout: Duration,
        poll_timeout: Duration,
        filter: Option<&DispatcherCapabilityFilter>,
    ) -> Result<Option<(OrchestrationItem, String, u32)>, ProviderError> {
        pass!(self, fetch_orchestration_item(lock_timeout, poll_timeout, filter))
    }

    async fn ack_orchestration_item(
        &self,
        token: &str,
        execution_id: u64,
        history: Vec<Event>,
        worker_items: Vec<WorkItem>,
        orchestrator_items: Vec<WorkItem>,
        metadata: ExecutionMetadata,
        cancelled: Vec<ScheduledActivityIdentifier>,
    ) -> Result<(), ProviderError> {
        let turn = Turn::new(&history, metadata.status.as_deref());
        let acked = self.subject.ack_orchestration_item(
            token,
            execution_id,
            history,
            worker_items,
            orchestrator_items,
            metadata,
            cancelled,
        );
        let result = self.observer.count(acked.await);
        if result.is_ok() {
            let (subject, observer) = (Arc::clone(&self.subject), Arc::clone(&self.observer));
            match turn.ends() {
                // An end is one when somebody can see it: a reader, which may be told later than the runtime is.
                Some(instance) => drop(tokio::spawn(async move {
                    let _ = subject.get_custom_status(&instance, 0).await;
                    turn.announce(&observer);
                })),
                None => turn.announce(&observer),
            }
        }
        result
    }

    async fn abandon_orchestration_item(
        &self,
        token: &str,
        delay: Option<Duration>,
        ignore_attempt: bool,
    ) -> Result<(), ProviderError> {
        pass!(self, abandon_orchestration_item(token, delay, ignore_attempt))
    }

    async fn renew_orchestration_item_lock(
        &self,
        token: &str,
        extend_for: Duration,
    ) -> Result<(), ProviderError> {
        pass!(self, renew_orchestration_item_lock(token, extend_for))
    }

    async fn enqueue_for_orchestrator(
        &self,
        item: WorkItem,
        delay: Option<Duration>,
    ) -> Result<(), ProviderError> {
        if let WorkItem::StartOrchestration { instance, .. } = &item {
            self.observer.submitting(instance);
        }
        pass!(self, enqueue_for_orchestrator(item, delay))
    }

    async fn enqueue_for_worker(&self, item: WorkItem) -> Result<(), ProviderError> {
        pass!(self, enqueue_for_worker(item))
    }

    async fn fetch_work_item(
        &self,
        lock_timeout: Duration,
        poll_timeout: Duration,
        session: Option<&SessionFetchConfig>,
        tags: &TagFilter,
    ) -> Result<Option<(WorkItem, String, u32)>, ProviderError> {
        pass!(self, fetch_work_item(lock_timeout, poll_timeout, session, tags))
    }

    async fn ack_work_item(&self, token: &str, completion: Option<WorkItem>) -> Result<(), ProviderError> {
        pass!(self, ack_work_item(token, completion))
    }

    async fn abandon_work_item(
        &self,
        token: &str,
        delay: Option<Duration>,
        ignore_attempt: bool,
    ) -> Result<(), ProviderError> {
        pass!(self, abandon_work_item(token, delay, ignore_attempt))
    }

    async fn renew_work_item_lock(&self, token: &str, extend_for: Duration) -> Result<(), ProviderError> {
        pass!(self, renew_work_item_lock(token, extend_for))
    }

    async fn renew_session_lock(
        &self,
        owners: &[&str],
        extend_for: Duration,
        idle_timeout: Duration,
    ) -> Result<usize, ProviderError> {
        pass!(self, renew_session_lock(owners, extend_for, idle_timeout))
    }

    async fn cleanup_orphaned_sessions(&self, idle_timeout: Duration) -> Result<usize, ProviderError> {
        pass!(self, cleanup_orphaned_sessions(idle_timeout))
    }

    async fn read(&self, instance: &str) -> Result<Vec<Event>, ProviderError> {
        pass!(self, read(instance))
    }

    async fn read_with_execution(
        &self,
        instance: &str,
        execution_id: u64,
    ) -> Result<Vec<Event>, ProviderError> {
        pass!(self, read_with_execution(instance, execution_id))
    }

    async fn append_with_execution(
        &self,
        instance: &str,
        execution_id: u64,
        events: Vec<Event>,
    ) -> Result<(), ProviderError> {
        pass!(self, append_with_execution(instance, execution_id, events))
    }

    async fn get_custom_status(
        &self,
        instance: &str,
        last_seen: u64,
    ) -> Result<Option<(Option<String>, u64)>, ProviderError> {
        pass!(self, get_custom_status(instance, last_seen))
    }

    async fn get_kv_value(&self, instance: &str, key: &str) -> Result<Option<String>, ProviderError> {
        pass!(self, get_kv_value(instance, key))
    }

    async fn get_kv_all_values(&self, instance: &str) -> Result<HashMap<String, String>, ProviderError> {
        pass!(self, get_kv_all_values(instance))
    }

    async fn get_instance_stats(&self, instance: &str) -> Result<Option<SystemStats>, ProviderError> {
        pass!(self, get_instance_stats(instance))
    }

    fn as_management_capability(&self) -> Option<&dyn ProviderAdmin> {
        self.subject.as_management_capability()
    }
}
