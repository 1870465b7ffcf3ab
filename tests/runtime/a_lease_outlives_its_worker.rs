//! While the engine stays open, the activity of a runtime that died waits for its lease to run out and is
//! then run elsewhere; the activity of a runtime that lives keeps its lease for as long as it runs.

use std::time::{Duration, Instant};

use duroxide::runtime::registry::ActivityRegistry;
use duroxide::{ErrorDetails, OrchestrationContext, OrchestrationRegistry};

use crate::support::Place;
use crate::support::host::{Host, Node, node_of};
use crate::support::probe::{Tally, holds, with};

everywhere!(
    a_dead_workers_activity_is_taken_over,
    an_attempt_a_worker_died_in_counts,
    a_long_activity_is_not_run_twice,
);

/// The lease is two seconds, renewed after one.
const LONGER_THAN_ITS_LEASE: Duration = Duration::from_millis(2500);

fn orchestrations() -> OrchestrationRegistry {
    OrchestrationRegistry::builder()
        .register("Run", async |ctx: OrchestrationContext, what: String| {
            ctx.schedule_activity(what, "").await
        })
        .build()
}

/// Never ends on the node named "mortal"; elsewhere it answers at once.
fn node(name: &str, tally: &Tally, lease: Duration) -> Node {
    let activities = ActivityRegistry::builder()
        .register(
            "Work",
            with(tally, async |tally, ctx, _| {
                let node = node_of(ctx.worker_id()).to_string();
                tally.note(&node);
                if node == "mortal" {
                    std::future::pending::<()>().await;
                }
                Ok(node)
            }),
        )
        .build();
    Node::new(orchestrations(), activities).named(name).tuned(|options| options.worker_lock_timeout = lease)
}

async fn a_dead_workers_activity_is_taken_over(place: Place) {
    let (tally, lease) = (Tally::default(), Duration::from_secs(1));
    let mut host = Host::new(place, node("mortal", &tally, lease)).await;

    host.start("inherited", "Run", "Work").await;
    holds("the mortal at work", || tally.of("mortal") == 1).await;
    let taken = Instant::now();
    host.join(node("heir", &tally, lease)).await;
    host.kill_node(0).await;

    assert_eq!(host.output("inherited").await, "heir");
    assert!(taken.elapsed() > lease / 2, "taken over after {:?}, before its lease ran out", taken.elapsed());
    assert_eq!(tally.counts().into_values().collect::<Vec<_>>(), [1, 1]);
    host.end().await;
}

async fn an_attempt_a_worker_died_in_counts(place: Place) {
    let (tally, lease) = (Tally::default(), Duration::from_secs(1));
    let mut host = Host::new(place, node("mortal", &tally, lease)).await;

    host.start("doomed", "Run", "Work").await;
    holds("the mortal at work", || tally.of("mortal") == 1).await;
    host.join(node("heir", &tally, lease).tuned(|options| options.max_attempts = 1)).await;
    host.kill_node(0).await;

    match host.failure("doomed").await {
        ErrorDetails::Poison { attempt_count, max_attempts, .. } => {
            assert_eq!((attempt_count, max_attempts), (2, 1));
        }
        other => panic!("not poison: {other:?}"),
    }
    assert_eq!(tally.of("heir"), 0);
    host.end().await;
}

/// There is an idle worker beside it that would take it over.
async fn a_long_activity_is_not_run_twice(place: Place) {
    let tally = Tally::default();
    let activities = ActivityRegistry::builder()
        .register(
            "Work",
            with(&tally, async |tally, ctx, _| {
                tally.note("begun");
                tokio::time::sleep(LONGER_THAN_ITS_LEASE).await;
                Ok(format!("cancelled: {}", ctx.is_cancelled()))
            }),
        )
        .build();
    let host = Host::new(place, Node::new(orchestrations(), activities).renewing_each_second()).await;

    host.start("long", "Run", "Work").await;

    assert_eq!(host.output("long").await, "cancelled: false");
    assert_eq!(tally.total(), 1);
    host.end().await;
}
