//! An execution goes on only where its duroxide version can be replayed: a runtime of an older range does
//! not take it, not even to put it back, and is not held up by it.

use duroxide::providers::{SemverRange, current_build_version};
use duroxide::runtime::registry::ActivityRegistry;
use duroxide::{EventKind, OrchestrationContext, OrchestrationRegistry};

use crate::support::Place;
use crate::support::host::{Host, Node};

everywhere!(an_old_runtime_passes_over_a_new_execution);
across_a_restart!(an_old_runtime_passes_over_it_after_a_restart);

fn current() -> Node {
    let orchestrations = OrchestrationRegistry::builder()
        .register("Finish", async |_: OrchestrationContext, input: String| Ok(input))
        .register("Wait", async |ctx: OrchestrationContext, _: String| Ok(ctx.schedule_wait("end").await))
        .build();
    // One attempt: had the old runtime taken the execution even once, this one would find it poisoned.
    Node::new(orchestrations, ActivityRegistry::builder().build()).tuned(|options| options.max_attempts = 1)
}

/// Replays nothing newer than the very first version.
fn old() -> Node {
    let mut oldest = current_build_version();
    (oldest.major, oldest.minor, oldest.patch) = (0, 0, 1);
    let range = SemverRange::new(oldest.clone(), oldest);
    current().tuned(|options| options.supported_replay_versions = Some(range))
}

fn is_event(kind: &EventKind) -> bool {
    matches!(kind, EventKind::ExternalEvent { .. })
}

async fn waiting(host: &Host) {
    host.start("new", "Wait", "").await;
    host.until_recorded("new", 1, |kind| matches!(kind, EventKind::ExternalSubscribed { .. })).await;
}

/// An instance without a history has no version yet and is anyone's. It comes after the event, so the old
/// runtime has been at the queue, and past the event, when it is done.
async fn passed_over(host: &mut Host) {
    host.raise("new", "end", "ended").await;
    host.start("fresh", "Finish", "done").await;
    assert_eq!(host.output("fresh").await, "done");
    assert!(host.is_running("new").await);
    assert_eq!(host.recorded("new", 1, is_event).await, 0);
    host.join(current()).await;
    assert_eq!(host.output("new").await, "ended");
}

async fn an_old_runtime_passes_over_a_new_execution(place: Place) {
    let mut host = Host::new(place, current()).await;
    waiting(&host).await;

    host.redeploy(vec![old()]).await;

    passed_over(&mut host).await;
    host.end().await;
}

async fn an_old_runtime_passes_over_it_after_a_restart(place: Place) {
    let mut host = Host::new(place, current()).await;
    waiting(&host).await;

    host.restart_as(vec![old()]).await;

    passed_over(&mut host).await;
    host.end().await;
}
