//! A queued event waits until its instance takes it, in order, however often everything restarts between.

use std::time::Duration;

use duroxide::runtime::registry::ActivityRegistry;
use duroxide::{Either2, EventKind, OrchestrationContext, OrchestrationRegistry};

use crate::support::Place;
use crate::support::host::{Host, Node};

everywhere!(
    events_queue_up_before_anyone_takes_them,
    each_queue_keeps_its_own_order,
    a_lost_take_swallows_nothing,
);
across_a_restart!(an_event_delivered_but_not_taken, an_event_queued_while_nothing_runs);

fn takers() -> Node {
    let orchestrations = OrchestrationRegistry::builder()
        .register("TakeThree", |ctx: OrchestrationContext, _: String| async move {
            ctx.schedule_wait("go").await;
            let mut taken = Vec::new();
            for _ in 0..3 {
                taken.push(ctx.dequeue_event("inbox").await);
            }
            Ok(taken.join(" "))
        })
        .register("TakeCrosswise", |ctx: OrchestrationContext, _: String| async move {
            ctx.schedule_wait("go").await;
            let mut taken = Vec::new();
            for queue in ["right", "left", "right", "left"] {
                taken.push(ctx.dequeue_event(queue).await);
            }
            Ok(taken.join(" "))
        })
        .register("TakeInTime", |ctx: OrchestrationContext, _: String| async move {
            let hurried = ctx.dequeue_event("inbox");
            let nap = ctx.schedule_timer(Duration::from_millis(30));
            match ctx.select2(hurried, nap).await {
                Either2::First(event) => Ok(format!("at once: {event}")),
                Either2::Second(()) => Ok(format!("at last: {}", ctx.dequeue_event("inbox").await)),
            }
        })
        .build();
    Node::new(orchestrations, ActivityRegistry::builder().build())
}

fn is_wait(kind: &EventKind) -> bool {
    matches!(kind, EventKind::ExternalSubscribed { .. })
}

fn is_delivery(kind: &EventKind) -> bool {
    matches!(kind, EventKind::QueueEventDelivered { .. })
}

async fn events_queue_up_before_anyone_takes_them(place: Place) {
    let host = Host::new(place, takers()).await;

    host.start("busy", "TakeThree", "").await;
    for letter in ["a", "b", "c"] {
        host.enqueue("busy", "inbox", letter).await;
    }
    host.until_recorded("busy", 3, is_delivery).await;
    host.raise("busy", "go", "").await;

    assert_eq!(host.output("busy").await, "a b c");
    host.end().await;
}

async fn each_queue_keeps_its_own_order(place: Place) {
    let host = Host::new(place, takers()).await;

    host.start("cross", "TakeCrosswise", "").await;
    for number in ["1", "2"] {
        host.enqueue("cross", "left", &format!("l{number}")).await;
        host.enqueue("cross", "right", &format!("r{number}")).await;
    }
    host.until_recorded("cross", 4, is_delivery).await;
    host.raise("cross", "go", "").await;

    assert_eq!(host.output("cross").await, "r1 l1 r2 l2");
    host.end().await;
}

async fn a_lost_take_swallows_nothing(place: Place) {
    let host = Host::new(place, takers()).await;
    let is_take = |kind: &EventKind| matches!(kind, EventKind::QueueSubscribed { .. });

    host.start("slow", "TakeInTime", "").await;
    host.until_recorded("slow", 2, is_take).await;
    host.enqueue("slow", "inbox", "letter").await;

    assert_eq!(host.output("slow").await, "at last: letter");
    host.end().await;
}

async fn an_event_delivered_but_not_taken(place: Place) {
    let mut host = Host::new(place, takers()).await;

    host.start("busy", "TakeThree", "").await;
    host.until_recorded("busy", 1, is_wait).await;
    host.enqueue("busy", "inbox", "a").await;
    host.until_recorded("busy", 1, is_delivery).await;
    host.restart().await;
    host.enqueue("busy", "inbox", "b").await;
    host.until_recorded("busy", 2, is_delivery).await;
    host.restart().await;
    host.enqueue("busy", "inbox", "c").await;
    host.raise("busy", "go", "").await;

    assert_eq!(host.output("busy").await, "a b c");
    assert_eq!(host.recorded("busy", 1, is_delivery).await, 3, "each is delivered once");
    host.end().await;
}

async fn an_event_queued_while_nothing_runs(place: Place) {
    let mut host = Host::new(place, takers()).await;

    host.start("busy", "TakeThree", "").await;
    host.until_recorded("busy", 1, is_wait).await;
    host.kill().await;
    for letter in ["a", "b", "c"] {
        host.enqueue("busy", "inbox", letter).await;
    }
    host.restart().await;
    host.raise("busy", "go", "").await;

    assert_eq!(host.output("busy").await, "a b c");
    host.end().await;
}
