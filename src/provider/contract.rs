//! `duroxide::providers::Provider`, method by method.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use duroxide::providers::{
    DispatcherCapabilityFilter, ExecutionMetadata, OrchestrationItem, Provider, ProviderAdmin, ProviderError,
    ScheduledActivityIdentifier, SessionFetchConfig, TagFilter, WorkItem,
};
use duroxide::{Event, EventKind, SystemStats};

use super::encode::{self, Encoder, Turn};
use super::{Forebay, Seen, decode, provider_error};
use crate::engine::returns::FetchGuard;
use crate::engine::{
    Abandon, FetchTurn, FetchWork, Op, Renew, Reply, TurnGrant, Visible, WorkGrant, invalid_token,
};
use crate::error::Error;
use crate::queue::{FetchNo, LeaseNo};

/// An engine that answers an operation with another operation's reply has a bug; say so instead of panicking.
fn mismatched() -> Error {
    Error::internal("the engine gave the wrong kind of answer")
}

impl Forebay {
    pub(super) fn encoder(&self) -> Encoder {
        Encoder { record_bytes_max: self.database.options.record_bytes_max }
    }

    fn next_fetch(&self) -> FetchNo {
        self.database.shared.next_fetch.fetch_add(1, Ordering::Relaxed)
    }

    fn lease(&self, token: &str) -> Result<LeaseNo, Error> {
        self.database.shared.tokens.read(token).ok_or_else(invalid_token)
    }

    pub(super) async fn done(&self, op: Op, bytes: usize) -> Result<(), Error> {
        self.submit(op, bytes).await.map(|_reply| ())
    }

    async fn fetch_turn(&self, fetch: FetchTurn) -> Result<Option<Box<TurnGrant>>, Error> {
        // Declared before the reply it guards, so it is dropped after it.
        let guard = FetchGuard::new(fetch.no, &self.database.shared.returns);
        let reply = self.submit(Op::FetchTurn(fetch), 0).await;
        guard.answered();
        match reply? {
            Reply::Turn(grant) => {
                self.saw_turn();
                Ok(grant)
            }
            _ => Err(mismatched()),
        }
    }

    fn saw_turn(&self) {
        let horizon = &self.database.horizon;
        self.database.shared.begun.saw_turn(horizon.announced(), horizon.durable());
    }

    async fn fetch_work(&self, fetch: FetchWork) -> Result<Option<Box<WorkGrant>>, Error> {
        let guard = FetchGuard::new(fetch.no, &self.database.shared.returns);
        let reply = self.submit(Op::FetchWork(fetch), 0).await;
        guard.answered();
        match reply? {
            Reply::Work(grant) => Ok(grant),
            _ => Err(mismatched()),
        }
    }

    async fn count(&self, op: Op) -> Result<usize, Error> {
        match self.submit(op, 0).await? {
            Reply::Count(count) => Ok(count),
            _ => Err(mismatched()),
        }
    }

    pub(super) async fn read_events(
        &self,
        instance: &str,
        execution: Option<u64>,
    ) -> Result<Vec<Event>, Error> {
        if let Some(refusal) = self.database.refusal() {
            return Err(refusal);
        }
        let (shared, durable) = (&self.database.shared, self.database.horizon.durable());
        if shared.begun.take(instance, durable)
            && execution.is_none()
            && let Some((execution, rows)) = shared.histories.durable(instance, durable)
        {
            return decode::events(instance, execution, &rows);
        }
        if let Some((execution, rows)) = shared.histories.get(instance, execution) {
            self.durable(Seen::Instance(instance)).await?;
            return decode::events(instance, execution, &rows);
        }
        let id = instance.to_owned();
        // Decoded where it is read: a long history is work for a blocking thread too.
        let decoded = self.read(Seen::Instance(instance), move |rows| {
            let (execution, history) = rows.history(&id, execution)?;
            Ok(decode::events(&id, execution, &history))
        });
        decoded.await?
    }

    async fn stats_of(&self, instance: &str) -> Result<Option<SystemStats>, Error> {
        let id = instance.to_owned();
        let stats = self.read(Seen::Instance(instance), move |rows| rows.instance_stats(&id)).await?;
        let Some(stats) = stats else { return Ok(None) };
        let first = decode::events(instance, stats.execution, stats.first.as_slice())?;
        let carried = first.iter().find_map(|event| match &event.kind {
            EventKind::OrchestrationStarted { carry_forward_events, .. } => carry_forward_events.as_ref(),
            _ => None,
        });
        Ok(Some(SystemStats {
            history_event_count: stats.events,
            history_size_bytes: stats.history_bytes,
            queue_pending_count: carried.map_or(0, |events| events.len() as u64),
            kv_user_key_count: stats.kv_keys,
            kv_total_value_bytes: stats.kv_bytes,
        }))
    }
}

/// Names the operation in the error of whatever it did.
macro_rules! named {
    ($operation:literal, $result:expr) => {{
        let result: Result<_, Error> = async { $result }.await;
        result.map_err(|error| provider_error($operation, &error))
    }};
}
pub(super) use named;

#[async_trait]
impl Provider for Forebay {
    fn name(&self) -> &str {
        "forebay"
    }

    fn version(&self) -> &str {
        env!("CARGO_PKG_VERSION")
    }

    async fn fetch_orchestration_item(
        &self,
        lock_timeout: Duration,
        poll_timeout: Duration,
        filter: Option<&DispatcherCapabilityFilter>,
    ) -> Result<Option<(OrchestrationItem, String, u32)>, ProviderError> {
        named!("fetch_orchestration_item", {
            let fetch =
                FetchTurn { no: self.next_fetch(), lock_timeout, poll_timeout, filter: filter.cloned() };
            let grant = self.fetch_turn(fetch).await?;
            Ok(grant.map(|grant| {
                let (item, lease, attempt) = decode::turn(*grant);
                (item, self.database.shared.tokens.write(lease), attempt)
            }))
        })
    }

    async fn ack_orchestration_item(
        &self,
        lock_token: &str,
        execution_id: u64,
        history_delta: Vec<Event>,
        worker_items: Vec<WorkItem>,
        orchestrator_items: Vec<WorkItem>,
        metadata: ExecutionMetadata,
        cancelled_activities: Vec<ScheduledActivityIdentifier>,
    ) -> Result<(), ProviderError> {
        named!("ack_orchestration_item", {
            let lease = self.lease(lock_token)?;
            let turn = Turn {
                execution: execution_id,
                history: history_delta,
                work: worker_items,
                messages: orchestrator_items,
                metadata,
                cancelled: cancelled_activities,
            };
            let (ack, refusal) = self.turn(lease, turn).await?;
            let bytes = encode::turn_bytes(&ack);
            self.done(Op::AckTurn(Box::new(ack)), bytes).await?;
            self.saw_turn();
            refusal.map_or(Ok(()), Err)
        })
    }

    async fn abandon_orchestration_item(
        &self,
        lock_token: &str,
        delay: Option<Duration>,
        ignore_attempt: bool,
    ) -> Result<(), ProviderError> {
        named!("abandon_orchestration_item", {
            let abandon = Abandon { lease: self.lease(lock_token)?, delay, ignore_attempt };
            self.done(Op::AbandonTurn(abandon), 0).await
        })
    }

    async fn read(&self, instance: &str) -> Result<Vec<Event>, ProviderError> {
        named!("read", self.read_events(instance, None).await)
    }

    async fn read_with_execution(
        &self,
        instance: &str,
        execution_id: u64,
    ) -> Result<Vec<Event>, ProviderError> {
        named!("read_with_execution", self.read_events(instance, Some(execution_id)).await)
    }

    async fn append_with_execution(
        &self,
        instance: &str,
        execution_id: u64,
        new_events: Vec<Event>,
    ) -> Result<(), ProviderError> {
        named!("append_with_execution", {
            let mut events = new_events;
            let runs = self.encoder().history(&mut events)?;
            let bytes = runs.iter().map(|run| run.record.len()).sum();
            let op = Op::AppendHistory { instance: instance.into(), execution: execution_id, runs };
            self.done(op, bytes).await
        })
    }

    async fn enqueue_for_worker(&self, item: WorkItem) -> Result<(), ProviderError> {
        named!("enqueue_for_worker", {
            let work = self.encoder().work(item)?;
            let bytes = work.row.record.len();
            self.done(Op::EnqueueWork(work), bytes).await
        })
    }

    async fn fetch_work_item(
        &self,
        lock_timeout: Duration,
        poll_timeout: Duration,
        session: Option<&SessionFetchConfig>,
        tag_filter: &TagFilter,
    ) -> Result<Option<(WorkItem, String, u32)>, ProviderError> {
        named!("fetch_work_item", {
            let fetch = FetchWork {
                no: self.next_fetch(),
                lock_timeout,
                poll_timeout,
                session: session.map(|session| (session.owner_id.as_str().into(), session.lock_timeout)),
                tags: tag_filter.clone(),
            };
            let Some(grant) = self.fetch_work(fetch).await? else { return Ok(None) };
            let WorkGrant { body, attempt, guard } = *grant;
            // The lease stays out even if the item does not decode: it is not offered again before the
            // lease runs out, so a broken row cannot keep the queue busy with itself.
            let lease = guard.keep();
            let item = decode::item(body)?;
            if let WorkItem::ActivityExecute { instance, .. } = &item {
                self.database.shared.begun.note(instance);
            }
            Ok(Some((item, self.database.shared.tokens.write(lease), attempt)))
        })
    }

    async fn ack_work_item(&self, token: &str, completion: Option<WorkItem>) -> Result<(), ProviderError> {
        named!("ack_work_item", {
            let lease = self.lease(token)?;
            let (completion, refusal) = match completion {
                Some(item) => {
                    let (message, refusal) = self.completion(item).await?;
                    (Some(message), refusal)
                }
                None => (None, None),
            };
            let bytes = completion.as_ref().map_or(0, |message| message.row.record.len());
            self.done(Op::AckWork { lease, completion }, bytes).await?;
            refusal.map_or(Ok(()), Err)
        })
    }

    async fn renew_work_item_lock(&self, token: &str, extend_for: Duration) -> Result<(), ProviderError> {
        named!("renew_work_item_lock", {
            self.done(Op::RenewWork(Renew { lease: self.lease(token)?, extend_for }), 0).await
        })
    }

    async fn renew_session_lock(
        &self,
        owner_ids: &[&str],
        extend_for: Duration,
        idle_timeout: Duration,
    ) -> Result<usize, ProviderError> {
        named!("renew_session_lock", {
            let owners = owner_ids.iter().map(ToString::to_string).collect();
            self.count(Op::RenewSessions { owners, extend_for, idle_timeout }).await
        })
    }

    async fn cleanup_orphaned_sessions(&self, _idle_timeout: Duration) -> Result<usize, ProviderError> {
        named!("cleanup_orphaned_sessions", self.count(Op::SweepSessions).await)
    }

    async fn abandon_work_item(
        &self,
        token: &str,
        delay: Option<Duration>,
        ignore_attempt: bool,
    ) -> Result<(), ProviderError> {
        named!("abandon_work_item", {
            let abandon = Abandon { lease: self.lease(token)?, delay, ignore_attempt };
            self.done(Op::AbandonWork(abandon), 0).await
        })
    }

    async fn renew_orchestration_item_lock(
        &self,
        token: &str,
        extend_for: Duration,
    ) -> Result<(), ProviderError> {
        named!("renew_orchestration_item_lock", {
            self.done(Op::RenewTurn(Renew { lease: self.lease(token)?, extend_for }), 0).await
        })
    }

    async fn enqueue_for_orchestrator(
        &self,
        item: WorkItem,
        delay: Option<Duration>,
    ) -> Result<(), ProviderError> {
        named!("enqueue_for_orchestrator", {
            let visible = delay.map_or(Visible::Now, Visible::After);
            let message = self.encoder().message(item, visible)?;
            let bytes = message.row.record.len();
            self.done(Op::EnqueueMessage(message), bytes).await
        })
    }

    fn as_management_capability(&self) -> Option<&dyn ProviderAdmin> {
        Some(self)
    }

    async fn get_custom_status(
        &self,
        instance: &str,
        last_seen_version: u64,
    ) -> Result<Option<(Option<String>, u64)>, ProviderError> {
        let id = instance.to_owned();
        named!("get_custom_status", {
            self.read_point(Seen::Instance(instance), move |rows| rows.custom_status(&id, last_seen_version))
                .await
        })
    }

    async fn get_kv_value(&self, instance: &str, key: &str) -> Result<Option<String>, ProviderError> {
        let (id, key) = (instance.to_owned(), key.to_owned());
        named!("get_kv_value", {
            self.read_point(Seen::Instance(instance), move |rows| rows.kv_value(&id, &key)).await
        })
    }

    async fn get_kv_all_values(&self, instance: &str) -> Result<HashMap<String, String>, ProviderError> {
        let id = instance.to_owned();
        named!("get_kv_all_values", {
            self.read_point(Seen::Instance(instance), move |rows| rows.kv_all(&id)).await
        })
    }

    async fn get_instance_stats(&self, instance: &str) -> Result<Option<SystemStats>, ProviderError> {
        named!("get_instance_stats", self.stats_of(instance).await)
    }
}
