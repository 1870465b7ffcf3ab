//! A runtime takes on no more sessions than it may at a time; what it turns down for that, or cannot run, waits
//! for whoever can, and for no poll and no lock to end. Both last an hour here.

use std::time::Duration;

use duroxide::runtime::registry::ActivityRegistry;
use duroxide::{EventKind, OrchestrationContext, OrchestrationRegistry};

use crate::support::Place;
use crate::support::host::{Host, Node};
use crate::support::probe::{Tally, with};

everywhere!(more_sessions_than_slots, a_node_without_the_activity_leaves_the_session);

const HOUR: Duration = Duration::from_secs(3_600);

/// As many activities as it is told, each on a session of its own.
fn orchestrations() -> OrchestrationRegistry {
    OrchestrationRegistry::builder()
        .register("Spread", |ctx: OrchestrationContext, sessions: String| async move {
            let steps = (0..sessions.parse::<usize>().unwrap())
                .map(|n| ctx.schedule_activity_on_session("Step", n.to_string(), format!("s-{n}")))
                .collect();
            let steps: Result<Vec<String>, String> = ctx.join(steps).await.into_iter().collect();
            Ok(steps?.join(" "))
        })
        .build()
}

fn steps(tally: &Tally) -> ActivityRegistry {
    ActivityRegistry::builder()
        .register(
            "Step",
            with(tally, async |tally, _ctx, step| {
                tally.note(&step);
                // Long enough that another worker fetches meanwhile, which passes the cap.
                tokio::time::sleep(Duration::from_millis(20)).await;
                Ok(step)
            }),
        )
        .build()
}

fn node(activities: ActivityRegistry) -> Node {
    Node::new(orchestrations(), activities).tuned(|options| {
        options.dispatcher_long_poll_timeout = HOUR;
        options.session_lock_timeout = HOUR;
    })
}

/// Each worker owns its sessions by itself, so one must give up what the cap does not let it run.
async fn more_sessions_than_slots(place: Place) {
    let tally = Tally::default();
    let node = node(steps(&tally)).with_workers(2).tuned(|options| options.max_sessions_per_runtime = 1);
    let host = Host::new(place, node).await;

    host.start("spread", "Spread", "4").await;

    assert_eq!(host.output("spread").await, "0 1 2 3");
    assert_eq!(tally.total(), 4);
    host.end().await;
}

/// The node that took the session does not know the activity, and never will.
async fn a_node_without_the_activity_leaves_the_session(place: Place) {
    let tally = Tally::default();
    let old = node(ActivityRegistry::builder().build()).awaiting_deployment().named("old");
    let mut host = Host::new(place, old).await;

    host.start("spread", "Spread", "2").await;
    let is_step = |kind: &EventKind| matches!(kind, EventKind::ActivityScheduled { .. });
    host.until_recorded("spread", 2, is_step).await;
    host.join(node(steps(&tally)).named("new")).await;

    assert_eq!(host.output("spread").await, "0 1");
    host.end().await;
}
