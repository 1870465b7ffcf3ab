//! What takes its runtime down with it, or never finds its code, is tried as often as allowed and then fails
//! as poison. Attempts are counted before they are made, so a death in the middle of one counts.

use std::time::Duration;

use duroxide::runtime::registry::ActivityRegistry;
use duroxide::{ErrorDetails, OrchestrationContext, OrchestrationRegistry, PoisonMessageType};

use crate::support::Place;
use crate::support::host::{Host, Node};
use crate::support::probe::{Tally, holds, with};

everywhere!(an_activity_nobody_knows, an_orchestration_nobody_knows, a_child_nobody_knows_poisons_its_parent);
across_a_restart!(an_activity_that_kills_its_process);

fn orchestrations() -> OrchestrationRegistry {
    OrchestrationRegistry::builder()
        .register("Run", async |ctx: OrchestrationContext, what: String| {
            ctx.schedule_activity(what, "").await
        })
        .register("Delegate", async |ctx: OrchestrationContext, what: String| {
            ctx.schedule_sub_orchestration_with_id(what, "the-child", "").await
        })
        .build()
}

fn trying(attempts: u32, activities: ActivityRegistry) -> Node {
    Node::new(orchestrations(), activities).tuned(|options| {
        options.max_attempts = attempts;
        options.unregistered_backoff.base_delay = Duration::from_millis(5);
    })
}

fn nothing() -> ActivityRegistry {
    ActivityRegistry::builder().build()
}

/// Asserts that it is poison, found at the first attempt beyond the limit, and says what is poisoned.
fn poison(details: ErrorDetails, limit: u32) -> PoisonMessageType {
    match details {
        ErrorDetails::Poison { attempt_count, max_attempts, message_type, .. } => {
            assert_eq!((attempt_count, max_attempts), (limit + 1, limit));
            message_type
        }
        other => panic!("not poison: {other:?}"),
    }
}

async fn an_activity_nobody_knows(place: Place) {
    let host = Host::new(place, trying(3, nothing())).await;

    host.start("lost", "Run", "NoSuchActivity").await;

    match poison(host.failure("lost").await, 3) {
        PoisonMessageType::Activity { instance, execution_id, activity_name, .. } => {
            assert_eq!((instance.as_str(), execution_id), ("lost", 1));
            assert_eq!(activity_name, "NoSuchActivity");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(host.depths().await.worker_queue, 0);
    host.end().await;
}

async fn an_orchestration_nobody_knows(place: Place) {
    let host = Host::new(place, trying(3, nothing())).await;

    host.start("lost", "NoSuchOrchestration", "input").await;

    let expected = PoisonMessageType::Orchestration { instance: "lost".to_string(), execution_id: 1 };
    assert_eq!(poison(host.failure("lost").await, 3), expected);
    let info = host.client().get_instance_info("lost").await.unwrap();
    assert_eq!((info.status.as_str(), info.orchestration_name.as_str()), ("Failed", "NoSuchOrchestration"));
    host.end().await;
}

async fn a_child_nobody_knows_poisons_its_parent(place: Place) {
    let host = Host::new(place, trying(2, nothing())).await;

    host.start("the-parent", "Delegate", "NoSuchOrchestration").await;

    let expected = PoisonMessageType::Orchestration { instance: "the-child".to_string(), execution_id: 1 };
    assert_eq!(poison(host.failure("the-parent").await, 2), expected);
    assert_eq!(poison(host.failure("the-child").await, 2), expected);
    host.end().await;
}

async fn an_activity_that_kills_its_process(place: Place) {
    let tally = Tally::default();
    let activities = ActivityRegistry::builder()
        .register(
            "Deadly",
            with(&tally, async |tally, _, _| {
                tally.note("attempt");
                std::future::pending().await
            }),
        )
        .register("Harmless", async |_, _: String| Ok("fine".to_string()))
        .build();
    let mut host = Host::new(place, trying(2, activities)).await;

    host.start("doomed", "Run", "Deadly").await;
    for attempt in 1..=2 {
        holds("the next attempt", || tally.total() == attempt).await;
        host.restart().await;
    }

    match poison(host.failure("doomed").await, 2) {
        PoisonMessageType::Activity { instance, activity_name, .. } => {
            assert_eq!((instance.as_str(), activity_name.as_str()), ("doomed", "Deadly"));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(tally.total(), 2, "not tried once more");
    host.start("spared", "Run", "Harmless").await;
    assert_eq!(host.output("spared").await, "fine");
    host.end().await;
}
