//! A message to an instance that is not there delays nobody else's. One that may have overtaken the start
//! of its instance is kept for it; a queued event without an instance is dropped, as duroxide documents.

use duroxide::runtime::registry::ActivityRegistry;
use duroxide::{AppErrorKind, ErrorDetails, OrchestrationContext, OrchestrationRegistry};

use crate::support::Place;
use crate::support::host::{Host, Node};
use crate::support::probe::until;

everywhere!(
    others_go_on_behind_a_message_for_nobody,
    a_cancellation_that_overtakes_the_start,
    a_queued_event_for_nobody_is_dropped,
);
across_a_restart!(others_go_on_after_a_restart_too);

fn node() -> Node {
    let orchestrations = OrchestrationRegistry::builder()
        .register("Finish", async |_: OrchestrationContext, input: String| Ok(input))
        .register("Take", async |ctx: OrchestrationContext, _: String| Ok(ctx.dequeue_event("letters").await))
        .build();
    Node::new(orchestrations, ActivityRegistry::builder().build())
}

async fn to_nobody(host: &Host) {
    host.raise("nobody", "news", "good").await;
    host.cancel("nobody either", "no reason").await;
    host.enqueue("nobody at all", "letters", "a letter").await;
}

async fn others_go_on_behind_a_message_for_nobody(place: Place) {
    let host = Host::new(place, node()).await;

    to_nobody(&host).await;
    host.start("somebody", "Finish", "done").await;

    assert_eq!(host.output("somebody").await, "done");
    assert_eq!(host.client().list_all_instances().await.unwrap(), ["somebody"]);
    host.end().await;
}

async fn a_cancellation_that_overtakes_the_start(place: Place) {
    let host = Host::new(place, node()).await;

    host.cancel("early", "changed my mind").await;
    host.start("early", "Take", "").await;

    match host.failure("early").await {
        ErrorDetails::Application { kind: AppErrorKind::Cancelled { reason }, .. } => {
            assert_eq!(reason, "changed my mind");
        }
        other => panic!("not a cancellation: {other:?}"),
    }
    host.end().await;
}

async fn a_queued_event_for_nobody_is_dropped(place: Place) {
    let host = Host::new(place, node()).await;

    host.enqueue("later", "letters", "too early").await;
    until("the event to be dropped", async || (host.depths().await.orchestrator_queue == 0).then_some(()))
        .await;
    host.start("later", "Take", "").await;
    host.enqueue("later", "letters", "in time").await;

    assert_eq!(host.output("later").await, "in time");
    host.end().await;
}

async fn others_go_on_after_a_restart_too(place: Place) {
    let mut host = Host::new(place, node()).await;

    host.kill().await;
    to_nobody(&host).await;
    host.restart().await;
    host.start("somebody", "Finish", "done").await;

    assert_eq!(host.output("somebody").await, "done");
    host.end().await;
}
