//! `Provider`, handed on call by call to the engine; what the engine has answered is told to the parent before
//! the runtime hears of it.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use duroxide::providers::{
    DispatcherCapabilityFilter, ExecutionMetadata, OrchestrationItem, Provider, ProviderAdmin, ProviderError,
    ScheduledActivityIdentifier, SessionFetchConfig, TagFilter, WorkItem,
};
use duroxide::{Event, SystemStats};
use forebay::Forebay;

use crate::manner::Manner;
use crate::orders::{HELD_TURN, HELD_WORK, number};
use crate::report::{Activity, Report, Turn};

pub(crate) struct Reporting {
    engine: Forebay,
    manner: Manner,
    /// The activities that are out, by their token.
    out: Mutex<HashMap<String, Activity>>,
}

impl Reporting {
    pub(crate) fn on(engine: Forebay, manner: Manner) -> Arc<dyn Provider> {
        Arc::new(Self { engine, manner, out: Mutex::default() })
    }

    /// Makes a call, and tells of it when it has succeeded.
    async fn told(
        &self,
        report: Option<Report>,
        call: impl Future<Output = Result<(), ProviderError>>,
    ) -> Result<(), ProviderError> {
        let tell = || report.iter().for_each(Report::tell);
        if self.manner.lies_about(report.as_ref()) {
            tell();
            return std::future::pending().await;
        }
        let result = call.await;
        if result.is_ok() {
            tell();
        }
        result
    }

    /// Whether what belongs to this instance stays in hand, where `held` is the order whose things do.
    fn holds(&self, instance: Option<&String>, held: u64) -> bool {
        self.manner == Manner::Holds && instance.and_then(|id| number(id)) == Some(held)
    }
}

/// The same in every run of this binary.
pub(crate) fn hash_of(value: &impl std::fmt::Debug) -> u64 {
    let mut hasher = DefaultHasher::new();
    format!("{value:?}").hash(&mut hasher);
    hasher.finish()
}

/// The events of a turn, if it has any.
pub(crate) fn turn_of(history: &[Event]) -> Option<Turn> {
    let (first, last) = (history.first()?, history.last()?);
    Some(Turn {
        instance: first.instance_id.clone(),
        execution: first.execution_id,
        first_event: first.event_id,
        last_event: last.event_id,
        hash: hash_of(&history),
    })
}

pub(crate) fn activity_of(item: &WorkItem) -> Activity {
    match item {
        WorkItem::ActivityExecute { instance, execution_id, id, .. } => {
            Activity { instance: instance.clone(), execution: *execution_id, id: *id }
        }
        other => panic!("{other:?} is no activity"),
    }
}

#[async_trait]
impl Provider for Reporting {
    fn name(&self) -> &str {
        self.engine.name()
    }

    fn version(&self) -> &str {
        self.engine.version()
    }

    async fn fetch_orchestration_item(
        &self,
        lock_timeout: Duration,
        poll_timeout: Duration,
        filter: Option<&DispatcherCapabilityFilter>,
    ) -> Result<Option<(OrchestrationItem, String, u32)>, ProviderError> {
        let fetched = self.engine.fetch_orchestration_item(lock_timeout, poll_timeout, filter).await?;
        if let Some((item, _, attempt)) = &fetched {
            let messages = item.messages.iter().map(hash_of).collect();
            let instance = item.instance.clone();
            Report::TurnGranted { instance, attempt: *attempt, messages }.tell();
        }
        Ok(fetched)
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
        let turn = turn_of(&history);
        if let Some(turn) = &turn {
            Report::Offer(turn.clone()).tell();
        }
        if self.holds(turn.as_ref().map(|turn| &turn.instance), HELD_TURN) {
            return std::future::pending().await;
        }
        let acked = self.engine.ack_orchestration_item(
            token,
            execution_id,
            history,
            worker_items,
            orchestrator_items,
            metadata,
            cancelled,
        );
        self.told(turn.map(Report::Turn), acked).await
    }

    async fn abandon_orchestration_item(
        &self,
        token: &str,
        delay: Option<Duration>,
        ignore_attempt: bool,
    ) -> Result<(), ProviderError> {
        self.engine.abandon_orchestration_item(token, delay, ignore_attempt).await
    }

    async fn renew_orchestration_item_lock(
        &self,
        token: &str,
        extend_for: Duration,
    ) -> Result<(), ProviderError> {
        self.engine.renew_orchestration_item_lock(token, extend_for).await
    }

    async fn enqueue_for_orchestrator(
        &self,
        item: WorkItem,
        delay: Option<Duration>,
    ) -> Result<(), ProviderError> {
        let report = match &item {
            WorkItem::StartOrchestration { instance, .. } => Some(Report::Start(instance.clone())),
            WorkItem::QueueMessage { instance, data, .. } => {
                Some(Report::Letter(instance.clone(), data.clone()))
            }
            _ => None,
        };
        self.told(report, self.engine.enqueue_for_orchestrator(item, delay)).await
    }

    async fn enqueue_for_worker(&self, item: WorkItem) -> Result<(), ProviderError> {
        self.engine.enqueue_for_worker(item).await
    }

    async fn fetch_work_item(
        &self,
        lock_timeout: Duration,
        poll_timeout: Duration,
        session: Option<&SessionFetchConfig>,
        tags: &TagFilter,
    ) -> Result<Option<(WorkItem, String, u32)>, ProviderError> {
        let fetched = self.engine.fetch_work_item(lock_timeout, poll_timeout, session, tags).await?;
        if let Some((item, token, attempt)) = &fetched {
            let activity = activity_of(item);
            self.out.lock().expect("not poisoned").insert(token.clone(), activity.clone());
            Report::WorkGranted { activity, attempt: *attempt }.tell();
        }
        Ok(fetched)
    }

    async fn ack_work_item(&self, token: &str, completion: Option<WorkItem>) -> Result<(), ProviderError> {
        let activity = self.out.lock().expect("not poisoned").remove(token);
        if self.holds(activity.as_ref().map(|activity| &activity.instance), HELD_WORK) {
            return std::future::pending().await;
        }
        self.told(activity.map(Report::Done), self.engine.ack_work_item(token, completion)).await
    }

    async fn abandon_work_item(
        &self,
        token: &str,
        delay: Option<Duration>,
        ignore_attempt: bool,
    ) -> Result<(), ProviderError> {
        self.engine.abandon_work_item(token, delay, ignore_attempt).await
    }

    async fn renew_work_item_lock(&self, token: &str, extend_for: Duration) -> Result<(), ProviderError> {
        self.engine.renew_work_item_lock(token, extend_for).await
    }

    async fn renew_session_lock(
        &self,
        owners: &[&str],
        extend_for: Duration,
        idle_timeout: Duration,
    ) -> Result<usize, ProviderError> {
        self.engine.renew_session_lock(owners, extend_for, idle_timeout).await
    }

    async fn cleanup_orphaned_sessions(&self, idle_timeout: Duration) -> Result<usize, ProviderError> {
        self.engine.cleanup_orphaned_sessions(idle_timeout).await
    }

    async fn read(&self, instance: &str) -> Result<Vec<Event>, ProviderError> {
        self.engine.read(instance).await
    }

    async fn read_with_execution(
        &self,
        instance: &str,
        execution_id: u64,
    ) -> Result<Vec<Event>, ProviderError> {
        self.engine.read_with_execution(instance, execution_id).await
    }

    async fn append_with_execution(
        &self,
        instance: &str,
        execution_id: u64,
        events: Vec<Event>,
    ) -> Result<(), ProviderError> {
        self.engine.append_with_execution(instance, execution_id, events).await
    }

    async fn get_custom_status(
        &self,
        instance: &str,
        last_seen: u64,
    ) -> Result<Option<(Option<String>, u64)>, ProviderError> {
        self.engine.get_custom_status(instance, last_seen).await
    }

    async fn get_kv_value(&self, instance: &str, key: &str) -> Result<Option<String>, ProviderError> {
        self.engine.get_kv_value(instance, key).await
    }

    async fn get_kv_all_values(&self, instance: &str) -> Result<HashMap<String, String>, ProviderError> {
        self.engine.get_kv_all_values(instance).await
    }

    async fn get_instance_stats(&self, instance: &str) -> Result<Option<SystemStats>, ProviderError> {
        self.engine.get_instance_stats(instance).await
    }

    fn as_management_capability(&self) -> Option<&dyn ProviderAdmin> {
        self.engine.as_management_capability()
    }
}
