//! All activities of one session run with the node that holds the session, even while another node is idle;
//! other sessions and other work go elsewhere. A session's hold ends with the process, its work does not.

use std::collections::BTreeSet;

use duroxide::runtime::registry::ActivityRegistry;
use duroxide::{EventKind, OrchestrationContext, OrchestrationRegistry};

use crate::support::Place;
use crate::support::host::{Host, Node, node_of};
use crate::support::probe::{Gate, Tally, holds, until, with};

everywhere!(
    an_idle_node_leaves_the_session_alone,
    two_sessions_have_an_owner_each,
    a_session_goes_on_in_the_next_execution,
);
across_a_restart!(a_session_with_work_queued);

/// `Pinned` runs `width` activities on one session; its neighbour runs outside of it, or on another.
fn orchestrations() -> OrchestrationRegistry {
    OrchestrationRegistry::builder()
        .register("Pinned", |ctx: OrchestrationContext, width: String| async move {
            let first = ctx.schedule_activity_on_session("Step", "first", "s").await?;
            let steps = (0..width.parse::<usize>().unwrap())
                .map(|n| ctx.schedule_activity_on_session("Step", n.to_string(), "s"))
                .collect();
            let rest: Result<Vec<String>, String> = ctx.join(steps).await.into_iter().collect();
            Ok(format!("{first} {}", rest?.join(" ")))
        })
        .register("Neighbour", |ctx: OrchestrationContext, session: String| async move {
            match session.as_str() {
                "" => ctx.schedule_activity("Step", "neighbour").await,
                session => ctx.schedule_activity_on_session("Step", "neighbour", session).await,
            }
        })
        .register("Continued", |ctx: OrchestrationContext, owners: String| async move {
            let owner = ctx.schedule_activity_on_session("Step", "continued", "s").await?;
            let owners = format!("{owners}{owner} ");
            if ctx.execution_id() == 4 { Ok(owners) } else { ctx.continue_as_new(owners).await }
        })
        .build()
}

fn nodes(activities: &ActivityRegistry) -> Vec<Node> {
    let node = Node::new(orchestrations(), activities.clone()).with_workers(1);
    ["left", "right"].map(|name| node.clone().named(name)).into()
}

/// Steps answer with the name of their node. The numbered ones do not end before the neighbour has run.
fn steps_that_wait_for_the_neighbour(tally: &Tally, neighbour_ran: &Gate) -> ActivityRegistry {
    ActivityRegistry::builder()
        .register(
            "Step",
            with(&(tally.clone(), neighbour_ran.clone()), async |(tally, neighbour_ran), ctx, step| {
                tally.note(&step);
                match step.as_str() {
                    "neighbour" => neighbour_ran.open(),
                    "first" | "continued" => {}
                    _ => neighbour_ran.pass().await,
                }
                Ok(node_of(ctx.worker_id()).to_string())
            }),
        )
        .build()
}

/// The owner is held up in the session's second step, the session's other steps are queued before the
/// neighbour, and only the other node is left to run it: it must pass over the session's steps to get there.
async fn beside_a_held_session(place: Place, neighbours_session: &str) {
    let (tally, neighbour_ran) = (Tally::default(), Gate::shut());
    let host = Host::of(place, nodes(&steps_that_wait_for_the_neighbour(&tally, &neighbour_ran))).await;

    host.start("pinned", "Pinned", "4").await;
    holds("the owner held up in the session", || tally.total() == 2).await;
    host.start("beside", "Neighbour", neighbours_session).await;

    let other = host.output("beside").await;
    let owners = host.output("pinned").await;
    let owners: BTreeSet<_> = owners.split(' ').collect();
    assert_eq!(owners.len(), 1, "{owners:?}");
    assert!(!owners.contains(other.as_str()), "{owners:?} was held up, yet {other} ran the neighbour");
    assert_eq!(tally.total(), 6);
    host.end().await;
}

async fn an_idle_node_leaves_the_session_alone(place: Place) {
    beside_a_held_session(place, "").await;
}

async fn two_sessions_have_an_owner_each(place: Place) {
    beside_a_held_session(place, "another").await;
}

async fn a_session_goes_on_in_the_next_execution(place: Place) {
    let activities = steps_that_wait_for_the_neighbour(&Tally::default(), &Gate::shut());
    let host = Host::of(place, nodes(&activities)).await;

    host.start("continued", "Continued", "").await;

    let owners = host.output("continued").await;
    assert_eq!(owners.split_whitespace().count(), 4);
    assert_eq!(owners.split_whitespace().collect::<BTreeSet<_>>().len(), 1, "{owners}");
    host.end().await;
}

/// The node that held the session is gone after the restart; the first to take one of the session's steps
/// holds it from then on, and must not wait for the old hold to run out.
async fn a_session_with_work_queued(place: Place) {
    let (tally, gate) = (Tally::default(), Gate::shut());
    let activities = ActivityRegistry::builder()
        .register(
            "Step",
            with(&(tally.clone(), gate.clone()), async |(tally, gate), ctx, step| {
                tally.note(&step);
                if step != "first" {
                    gate.pass().await;
                }
                Ok(node_of(ctx.worker_id()).to_string())
            }),
        )
        .build();
    let node = Node::new(orchestrations(), activities.clone()).with_workers(1);
    let mut host = Host::new(place, node.named("gone")).await;

    host.start("pinned", "Pinned", "4").await;
    let is_step = |kind: &EventKind| matches!(kind, EventKind::ActivityScheduled { .. });
    host.until_recorded("pinned", 5, is_step).await;
    holds("the owner held up in the session", || tally.total() == 2).await;
    host.restart_as(nodes(&activities)).await;
    until("the session taken again", async || (tally.total() == 3).then_some(())).await;
    gate.open();

    let owners = host.output("pinned").await;
    let owners: Vec<_> = owners.split(' ').collect();
    assert_eq!(owners[0], "gone", "what was done is not repeated");
    assert_eq!(tally.of("first"), 1);
    assert_eq!(owners[1..].iter().collect::<BTreeSet<_>>().len(), 1, "{owners:?}");
    assert_ne!(owners[1], "gone");
    assert_eq!(tally.total(), 6, "one step was cut off and run again: {:?}", tally.counts());
    host.end().await;
}
