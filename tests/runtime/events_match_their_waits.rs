//! An event raised goes to the wait of its name, the first to the first; a wait outlives a restart, and an
//! event raised while nothing runs is not lost.

use duroxide::runtime::registry::ActivityRegistry;
use duroxide::{EventKind, OrchestrationContext, OrchestrationRegistry};

use crate::support::Place;
use crate::support::host::{Host, Node};

everywhere!(
    the_first_event_goes_to_the_first_wait,
    events_go_by_their_names,
    events_of_many_senders_all_arrive,
    an_event_reaches_its_instance_alone,
);
across_a_restart!(a_wait_under_way, an_event_raised_while_nothing_runs);

fn waiting() -> Node {
    let orchestrations = OrchestrationRegistry::builder()
        .register("InTurn", |ctx: OrchestrationContext, _: String| async move {
            let first = ctx.schedule_wait("word").await;
            let second = ctx.schedule_wait("word").await;
            Ok(format!("{first} {second}"))
        })
        .register("ByName", |ctx: OrchestrationContext, _: String| async move {
            let (red, blue) = ctx.join2(ctx.schedule_wait("red"), ctx.schedule_wait("blue")).await;
            Ok(format!("red={red} blue={blue}"))
        })
        .register("Many", |ctx: OrchestrationContext, count: String| async move {
            let waits = (0..count.parse().unwrap()).map(|_| ctx.schedule_wait("word")).collect();
            let mut words = ctx.join::<String, _>(waits).await;
            words.sort();
            Ok(words.join(" "))
        })
        .build();
    Node::new(orchestrations, ActivityRegistry::builder().build())
}

fn is_wait(kind: &EventKind) -> bool {
    matches!(kind, EventKind::ExternalSubscribed { .. })
}

async fn the_first_event_goes_to_the_first_wait(place: Place) {
    let host = Host::new(place, waiting()).await;

    host.start("turns", "InTurn", "").await;
    host.until_recorded("turns", 1, is_wait).await;
    host.raise("turns", "word", "one").await;
    host.until_recorded("turns", 2, is_wait).await;
    host.raise("turns", "word", "two").await;

    assert_eq!(host.output("turns").await, "one two");
    host.end().await;
}

async fn events_go_by_their_names(place: Place) {
    let host = Host::new(place, waiting()).await;

    host.start("colours", "ByName", "").await;
    host.until_recorded("colours", 2, is_wait).await;
    host.raise("colours", "blue", "sky").await;
    host.raise("colours", "red", "rose").await;

    assert_eq!(host.output("colours").await, "red=rose blue=sky");
    host.end().await;
}

async fn events_of_many_senders_all_arrive(place: Place) {
    let host = Host::new(place, waiting()).await;

    host.start("many", "Many", "20").await;
    host.until_recorded("many", 20, is_wait).await;
    let senders: Vec<_> = (0..4)
        .map(|sender| {
            let client = host.client();
            tokio::spawn(async move {
                for word in 0..5 {
                    client.raise_event("many", "word", format!("{sender}{word}")).await.unwrap();
                }
            })
        })
        .collect();
    for sender in senders {
        sender.await.unwrap();
    }

    let expected: Vec<_> =
        (0..4).flat_map(|sender| (0..5).map(move |word| format!("{sender}{word}"))).collect();
    assert_eq!(host.output("many").await, expected.join(" "));
    host.end().await;
}

async fn an_event_reaches_its_instance_alone(place: Place) {
    let host = Host::new(place, waiting()).await;

    for instance in ["this", "that"] {
        host.start(instance, "Many", "1").await;
        host.until_recorded(instance, 1, is_wait).await;
    }
    host.raise("this", "word", "hello").await;

    assert_eq!(host.output("this").await, "hello");
    assert!(host.is_running("that").await);
    host.end().await;
}

async fn a_wait_under_way(place: Place) {
    let mut host = Host::new(place, waiting()).await;

    host.start("turns", "InTurn", "").await;
    host.until_recorded("turns", 1, is_wait).await;
    host.raise("turns", "word", "before").await;
    host.until_recorded("turns", 2, is_wait).await;
    host.restart().await;
    host.raise("turns", "word", "after").await;

    assert_eq!(host.output("turns").await, "before after");
    assert_eq!(host.recorded("turns", 1, is_wait).await, 2, "a wait is not recorded twice");
    host.end().await;
}

async fn an_event_raised_while_nothing_runs(place: Place) {
    let mut host = Host::new(place, waiting()).await;

    host.start("colours", "ByName", "").await;
    host.until_recorded("colours", 2, is_wait).await;
    host.kill().await;
    host.raise("colours", "red", "early").await;
    host.crash().await;
    host.reopen().await;
    host.raise("colours", "blue", "late").await;
    host.run().await;

    assert_eq!(host.output("colours").await, "red=early blue=late");
    host.end().await;
}
