//! A provider that stores nothing: the runtime's own ceiling.
//!
//! It schedules as a real one does (one turn of an instance at a time, first come first served, fetches held
//! until there is work) and keeps what the runtime must get back, the history of what runs, as clones in
//! memory. It keeps no leases, no sessions and no key-values: nothing crashes in here, and no work uses them.
//!
//! Rejected: handing histories out by move. The runtime acknowledges only what it added.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use duroxide::providers::{
    DispatcherCapabilityFilter, ExecutionMetadata, OrchestrationItem, Provider, ProviderError,
    ScheduledActivityIdentifier, SessionFetchConfig, TagFilter, WorkItem,
};
use duroxide::{Event, SystemStats};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::timeout;

/// Histories of ended instances kept for clients that ask for a status; older ones are dropped, or the
/// ceiling would be one of memory.
const ENDED_KEPT_MAX: usize = 4096;

#[derive(Default)]
struct Instance {
    name: String,
    version: String,
    execution: u64,
    history: Vec<Event>,
    messages: Vec<WorkItem>,
    /// Fetched, or waiting in `ready`.
    taken: bool,
}

#[derive(Default)]
struct State {
    instances: HashMap<Arc<str>, Instance>,
    ready: VecDeque<Arc<str>>,
    work: VecDeque<WorkItem>,
    /// What is out, by token; the messages come back when a turn is abandoned.
    turns: HashMap<u64, (Arc<str>, Vec<WorkItem>)>,
    working: HashMap<u64, WorkItem>,
    next_token: u64,
    ended: VecDeque<Arc<str>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    turn_ready: Notify,
    work_ready: Notify,
}

#[derive(Clone, Default)]
pub(crate) struct Ceiling {
    shared: Arc<Shared>,
}

/// The instance a message is for.
fn target(item: &WorkItem) -> &str {
    match item {
        WorkItem::StartOrchestration { instance, .. }
        | WorkItem::ActivityExecute { instance, .. }
        | WorkItem::ActivityCompleted { instance, .. }
        | WorkItem::ActivityFailed { instance, .. }
        | WorkItem::TimerFired { instance, .. }
        | WorkItem::ExternalRaised { instance, .. }
        | WorkItem::CancelInstance { instance, .. }
        | WorkItem::ContinueAsNew { instance, .. }
        | WorkItem::QueueMessage { instance, .. } => instance,
        WorkItem::SubOrchCompleted { parent_instance, .. }
        | WorkItem::SubOrchFailed { parent_instance, .. } => parent_instance,
    }
}

impl State {
    fn token(&mut self) -> u64 {
        self.next_token += 1;
        self.next_token
    }

    /// Returns whether an instance became ready.
    fn push(&mut self, item: WorkItem) -> bool {
        let id = match self.instances.get_key_value(target(&item)) {
            Some((id, _)) => Arc::clone(id),
            None => Arc::from(target(&item)),
        };
        let instance = self.instances.entry(Arc::clone(&id)).or_default();
        instance.messages.push(item);
        if instance.taken {
            return false;
        }
        instance.taken = true;
        self.ready.push_back(id);
        true
    }

    fn take_turn(&mut self) -> Option<(OrchestrationItem, String, u32)> {
        let id = self.ready.pop_front()?;
        let token = self.token();
        let instance = self.instances.get_mut(&id)?;
        let messages = std::mem::take(&mut instance.messages);
        if let Some(WorkItem::StartOrchestration { orchestration, version, .. }) = messages.first()
            && instance.history.is_empty()
        {
            instance.name.clone_from(orchestration);
            instance.version = version.clone().unwrap_or_else(|| "unknown".into());
            instance.execution = 1;
        }
        let item = OrchestrationItem {
            instance: id.to_string(),
            orchestration_name: instance.name.clone(),
            execution_id: instance.execution,
            version: instance.version.clone(),
            history: instance.history.clone(),
            messages: messages.clone(),
            history_error: None,
            kv_snapshot: HashMap::new(),
        };
        self.turns.insert(token, (id, messages));
        Some((item, token.to_string(), 1))
    }

    fn take_work(&mut self) -> Option<(WorkItem, String, u32)> {
        let item = self.work.pop_front()?;
        let token = self.token();
        self.working.insert(token, item.clone());
        Some((item, token.to_string(), 1))
    }

    fn end_turn(&mut self, token: &str) -> Option<(Arc<str>, Vec<WorkItem>)> {
        self.turns.remove(&token.parse().ok()?)
    }

    fn end_work(&mut self, token: &str) -> Option<WorkItem> {
        self.working.remove(&token.parse().ok()?)
    }

    fn keep_ended(&mut self, id: Arc<str>) {
        self.ended.push_back(id);
        if self.ended.len() > ENDED_KEPT_MAX
            && let Some(oldest) = self.ended.pop_front()
        {
            self.instances.remove(&oldest);
        }
    }
}

fn unknown(operation: &str) -> ProviderError {
    ProviderError::permanent(operation, "unknown token")
}

impl Ceiling {
    fn push(&self, item: WorkItem) {
        if self.shared.state.lock().push(item) {
            self.shared.turn_ready.notify_one();
        }
    }

    /// Pushes now, or when it is due.
    fn push_after(&self, item: WorkItem, delay: Duration) {
        if delay.is_zero() {
            return self.push(item);
        }
        let later = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            later.push(item);
        });
    }

    /// Holds a fetch until `take` has something.
    async fn wait_for<T>(
        &self,
        ready: &Notify,
        poll: Duration,
        take: impl Fn(&mut State) -> Option<T>,
    ) -> Option<T> {
        let held = async {
            loop {
                let notified = ready.notified();
                tokio::pin!(notified);
                // Before looking: a wake-up between the look and the wait would be lost. One that comes
                // although the look found something is passed on when `notified` is dropped.
                notified.as_mut().enable();
                if let Some(found) = take(&mut self.shared.state.lock()) {
                    return found;
                }
                notified.await;
            }
        };
        timeout(poll, held).await.ok()
    }
}

/// How long until a timer is due; zero for everything else.
fn due_in(item: &WorkItem) -> Duration {
    let WorkItem::TimerFired { fire_at_ms, .. } = item else { return Duration::ZERO };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Duration::from_millis(*fire_at_ms).saturating_sub(now)
}

#[async_trait]
impl Provider for Ceiling {
    async fn fetch_orchestration_item(
        &self,
        _lock_timeout: Duration,
        poll_timeout: Duration,
        _filter: Option<&DispatcherCapabilityFilter>,
    ) -> Result<Option<(OrchestrationItem, String, u32)>, ProviderError> {
        Ok(self.wait_for(&self.shared.turn_ready, poll_timeout, State::take_turn).await)
    }

    async fn ack_orchestration_item(
        &self,
        token: &str,
        execution_id: u64,
        history: Vec<Event>,
        worker_items: Vec<WorkItem>,
        orchestrator_items: Vec<WorkItem>,
        metadata: ExecutionMetadata,
        _cancelled: Vec<ScheduledActivityIdentifier>,
    ) -> Result<(), ProviderError> {
        let new_work = worker_items.len();
        let again = {
            let mut state = self.shared.state.lock();
            let (id, _messages) = state.end_turn(token).ok_or_else(|| unknown("ack_orchestration_item"))?;
            state.work.extend(worker_items);
            let Some(instance) = state.instances.get_mut(&id) else { return Ok(()) };
            if instance.execution != execution_id {
                instance.execution = execution_id;
                instance.history.clear();
            }
            instance.history.extend(history);
            if let Some(name) = metadata.orchestration_name {
                instance.name = name;
            }
            if let Some(version) = metadata.orchestration_version {
                instance.version = version;
            }
            let again = !instance.messages.is_empty();
            instance.taken = again;
            if again {
                state.ready.push_back(Arc::clone(&id));
            }
            if matches!(metadata.status.as_deref(), Some("Completed" | "Failed")) {
                state.keep_ended(id);
            }
            again
        };
        if again {
            self.shared.turn_ready.notify_one();
        }
        for _ in 0..new_work {
            self.shared.work_ready.notify_one();
        }
        for item in orchestrator_items {
            let delay = due_in(&item);
            self.push_after(item, delay);
        }
        Ok(())
    }

    async fn abandon_orchestration_item(
        &self,
        token: &str,
        delay: Option<Duration>,
        _ignore_attempt: bool,
    ) -> Result<(), ProviderError> {
        let messages = {
            let mut state = self.shared.state.lock();
            let (id, messages) =
                state.end_turn(token).ok_or_else(|| unknown("abandon_orchestration_item"))?;
            if let Some(instance) = state.instances.get_mut(&id) {
                instance.taken = false;
            }
            messages
        };
        for item in messages {
            self.push_after(item, delay.unwrap_or_default());
        }
        Ok(())
    }

    async fn read(&self, instance: &str) -> Result<Vec<Event>, ProviderError> {
        let state = self.shared.state.lock();
        Ok(state.instances.get(instance).map(|instance| instance.history.clone()).unwrap_or_default())
    }

    async fn read_with_execution(
        &self,
        instance: &str,
        _execution: u64,
    ) -> Result<Vec<Event>, ProviderError> {
        self.read(instance).await
    }

    async fn append_with_execution(
        &self,
        instance: &str,
        _execution: u64,
        events: Vec<Event>,
    ) -> Result<(), ProviderError> {
        let mut state = self.shared.state.lock();
        state.instances.entry(instance.into()).or_default().history.extend(events);
        Ok(())
    }

    async fn enqueue_for_worker(&self, item: WorkItem) -> Result<(), ProviderError> {
        self.shared.state.lock().work.push_back(item);
        self.shared.work_ready.notify_one();
        Ok(())
    }

    async fn fetch_work_item(
        &self,
        _lock_timeout: Duration,
        poll_timeout: Duration,
        _session: Option<&SessionFetchConfig>,
        _tags: &TagFilter,
    ) -> Result<Option<(WorkItem, String, u32)>, ProviderError> {
        Ok(self.wait_for(&self.shared.work_ready, poll_timeout, State::take_work).await)
    }

    async fn ack_work_item(&self, token: &str, completion: Option<WorkItem>) -> Result<(), ProviderError> {
        self.shared.state.lock().end_work(token).ok_or_else(|| unknown("ack_work_item"))?;
        if let Some(completion) = completion {
            self.push(completion);
        }
        Ok(())
    }

    async fn abandon_work_item(
        &self,
        token: &str,
        _delay: Option<Duration>,
        _ignore_attempt: bool,
    ) -> Result<(), ProviderError> {
        let item = self.shared.state.lock().end_work(token).ok_or_else(|| unknown("abandon_work_item"))?;
        self.enqueue_for_worker(item).await
    }

    async fn renew_work_item_lock(&self, _token: &str, _extend_for: Duration) -> Result<(), ProviderError> {
        Ok(())
    }

    async fn renew_orchestration_item_lock(
        &self,
        _token: &str,
        _extend_for: Duration,
    ) -> Result<(), ProviderError> {
        Ok(())
    }

    async fn renew_session_lock(
        &self,
        _owners: &[&str],
        _extend_for: Duration,
        _idle_timeout: Duration,
    ) -> Result<usize, ProviderError> {
        Ok(0)
    }

    async fn cleanup_orphaned_sessions(&self, _idle_timeout: Duration) -> Result<usize, ProviderError> {
        Ok(0)
    }

    async fn enqueue_for_orchestrator(
        &self,
        item: WorkItem,
        delay: Option<Duration>,
    ) -> Result<(), ProviderError> {
        self.push_after(item, delay.unwrap_or_default());
        Ok(())
    }

    async fn get_custom_status(
        &self,
        _instance: &str,
        _last_seen: u64,
    ) -> Result<Option<(Option<String>, u64)>, ProviderError> {
        Ok(None)
    }

    async fn get_kv_value(&self, _instance: &str, _key: &str) -> Result<Option<String>, ProviderError> {
        Ok(None)
    }

    async fn get_kv_all_values(&self, _instance: &str) -> Result<HashMap<String, String>, ProviderError> {
        Ok(HashMap::new())
    }

    async fn get_instance_stats(&self, _instance: &str) -> Result<Option<SystemStats>, ProviderError> {
        Ok(None)
    }
}
