//! A machine that runs duroxide on the engine under test: it starts, dies, comes back, and is asked.

use std::sync::Arc;
use std::time::Duration;

use duroxide::providers::{QueueDepths, TagFilter};
use duroxide::runtime::registry::ActivityRegistry;
use duroxide::runtime::{ObservabilityConfig, Runtime, RuntimeOptions};
use duroxide::{Client, ErrorDetails, Event, EventKind, OrchestrationRegistry, OrchestrationStatus};

use super::probe::{PATIENCE, until};
use super::{Engine, Place};

/// What one runtime is started with, each time it is started.
#[derive(Clone)]
pub(crate) struct Node {
    orchestrations: OrchestrationRegistry,
    activities: ActivityRegistry,
    options: RuntimeOptions,
}

impl Node {
    pub(crate) fn new(orchestrations: OrchestrationRegistry, activities: ActivityRegistry) -> Node {
        let options = RuntimeOptions {
            dispatcher_min_poll_interval: Duration::from_millis(5),
            // Poison and the like are expected here; RUST_LOG still turns the log on.
            observability: ObservabilityConfig { log_level: "off,off".into(), ..Default::default() },
            ..Default::default()
        };
        Node { orchestrations, activities, options }
    }

    pub(crate) fn tuned(mut self, tune: impl FnOnce(&mut RuntimeOptions)) -> Node {
        tune(&mut self.options);
        self
    }

    /// Gives this node a name, which its workers bear as the owner of sessions.
    pub(crate) fn named(self, name: &str) -> Node {
        self.tuned(|options| options.worker_node_id = Some(name.into()))
    }

    pub(crate) fn with_workers(self, count: usize) -> Node {
        self.tuned(|options| options.worker_concurrency = count)
    }

    /// Renews the lease of a running activity each second, which is when the activity learns that it is
    /// cancelled.
    pub(crate) fn renewing_each_second(self) -> Node {
        self.tuned(|options| options.worker_lock_timeout = Duration::from_secs(2))
    }

    /// Asks again soon, and for as long as it takes, for code it has not got (yet).
    pub(crate) fn awaiting_deployment(self) -> Node {
        self.tuned(|options| {
            options.unregistered_backoff.base_delay = Duration::from_millis(20);
            options.unregistered_backoff.max_delay = Duration::from_millis(20);
            options.max_attempts = 100_000;
        })
    }

    /// Takes orchestrations only.
    pub(crate) fn without_workers(self) -> Node {
        self.tuned(|options| options.worker_tag_filter = TagFilter::none())
    }

    /// Takes activities only.
    pub(crate) fn workers_only(self) -> Node {
        self.tuned(|options| options.orchestration_concurrency = 0)
    }
}

/// The name a node was given, out of the id of one of its workers.
pub(crate) fn node_of(worker_id: &str) -> &str {
    worker_id.splitn(3, '-').nth(2).unwrap()
}

pub(crate) struct Host {
    nodes: Vec<Node>,
    running: Vec<Arc<Runtime>>,
    engine: Option<Engine>,
    place: Place,
}

impl Host {
    pub(crate) async fn new(place: Place, node: Node) -> Host {
        Host::of(place, vec![node]).await
    }

    pub(crate) async fn of(place: Place, nodes: Vec<Node>) -> Host {
        let engine = Some(place.open().await);
        let mut host = Host { nodes, running: Vec::new(), engine, place };
        host.run().await;
        host
    }

    fn engine(&self) -> &Engine {
        self.engine.as_ref().expect("the engine is closed")
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.engine().provider())
    }

    /// Starts the nodes, once the engine is open.
    pub(crate) async fn run(&mut self) {
        for node in self.nodes.clone() {
            self.launch(node).await;
        }
    }

    async fn launch(&mut self, node: Node) {
        let provider = self.engine().provider();
        let runtime =
            Runtime::start_with_options(provider, node.activities, node.orchestrations, node.options).await;
        self.running.push(runtime);
    }

    /// Starts one more runtime beside the others.
    pub(crate) async fn join(&mut self, node: Node) {
        self.nodes.push(node.clone());
        self.launch(node).await;
    }

    /// Ends every runtime in the middle of what it does; the engine stays open.
    pub(crate) async fn kill(&mut self) {
        for runtime in self.running.drain(..) {
            runtime.shutdown(Some(0)).await;
        }
    }

    /// Ends one runtime in the middle of what it does, for good.
    pub(crate) async fn kill_node(&mut self, index: usize) {
        self.nodes.remove(index);
        self.running.remove(index).shutdown(Some(0)).await;
    }

    /// Lets every runtime finish, then starts these in their place on the same engine.
    pub(crate) async fn redeploy(&mut self, nodes: Vec<Node>) {
        for runtime in self.running.drain(..) {
            runtime.shutdown(None).await;
        }
        self.nodes = nodes;
        self.run().await;
    }

    /// Ends every runtime abruptly and closes the engine.
    pub(crate) async fn crash(&mut self) {
        self.kill().await;
        self.engine.take().expect("the engine is closed").close().await;
    }

    /// Opens the same file again; nothing runs yet.
    pub(crate) async fn reopen(&mut self) {
        assert!(matches!(self.place, Place::File(_)), "there is nothing to come back to in memory");
        self.engine = Some(self.place.open().await);
    }

    /// Dies in mid-flight, then comes back on the same file with the same registries.
    pub(crate) async fn restart(&mut self) {
        self.crash().await;
        self.reopen().await;
        self.run().await;
    }

    /// Dies in mid-flight, then comes back on the same file as these nodes.
    pub(crate) async fn restart_as(&mut self, nodes: Vec<Node>) {
        self.nodes = nodes;
        self.restart().await;
    }

    pub(crate) async fn end(mut self) {
        self.crash().await;
    }

    pub(crate) async fn start(&self, instance: &str, orchestration: &str, input: &str) {
        self.client().start_orchestration(instance, orchestration, input).await.unwrap();
    }

    pub(crate) async fn raise(&self, instance: &str, event: &str, data: &str) {
        self.client().raise_event(instance, event, data).await.unwrap();
    }

    pub(crate) async fn enqueue(&self, instance: &str, queue: &str, data: &str) {
        self.client().enqueue_event(instance, queue, data).await.unwrap();
    }

    pub(crate) async fn cancel(&self, instance: &str, reason: &str) {
        self.client().cancel_instance(instance, reason).await.unwrap();
    }

    pub(crate) async fn status(&self, instance: &str) -> OrchestrationStatus {
        self.client().get_orchestration_status(instance).await.unwrap()
    }

    pub(crate) async fn is_running(&self, instance: &str) -> bool {
        matches!(self.status(instance).await, OrchestrationStatus::Running { .. })
    }

    pub(crate) async fn depths(&self) -> QueueDepths {
        self.client().get_queue_depths().await.unwrap()
    }

    /// Waits for the instance to complete.
    pub(crate) async fn output(&self, instance: &str) -> String {
        match self.client().wait_for_orchestration(instance, PATIENCE).await {
            Ok(OrchestrationStatus::Completed { output, .. }) => output,
            other => panic!("{instance} should complete, but: {other:?}"),
        }
    }

    /// Waits for the instance to fail.
    pub(crate) async fn failure(&self, instance: &str) -> ErrorDetails {
        match self.client().wait_for_orchestration(instance, PATIENCE).await {
            Ok(OrchestrationStatus::Failed { details, .. }) => details,
            other => panic!("{instance} should fail, but: {other:?}"),
        }
    }

    /// The recorded events of one execution; none while it has not begun.
    pub(crate) async fn history(&self, instance: &str, execution: u64) -> Vec<Event> {
        self.client().read_execution_history(instance, execution).await.unwrap_or_default()
    }

    /// How many recorded events of one execution are of this kind.
    pub(crate) async fn recorded(
        &self,
        instance: &str,
        execution: u64,
        kind: fn(&EventKind) -> bool,
    ) -> usize {
        self.history(instance, execution).await.iter().filter(|event| kind(&event.kind)).count()
    }

    /// Waits until the first execution's history holds this many events of a kind.
    pub(crate) async fn until_recorded(&self, instance: &str, count: usize, kind: fn(&EventKind) -> bool) {
        until(&format!("{count} events of a kind in the history of {instance}"), async || {
            (self.recorded(instance, 1, kind).await >= count).then_some(())
        })
        .await;
    }
}
