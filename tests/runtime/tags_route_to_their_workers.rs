//! An activity with a tag runs only where the tag is served, one without only where the untagged are; what
//! nobody serves waits, through restarts, until somebody does.

use duroxide::providers::TagFilter;
use duroxide::runtime::registry::ActivityRegistry;
use duroxide::{OrchestrationContext, OrchestrationRegistry};

use crate::support::Place;
use crate::support::host::{Host, Node, node_of};
use crate::support::probe::until;

everywhere!(
    each_tag_goes_to_its_node,
    a_node_may_serve_a_tag_and_the_untagged,
    a_tag_nobody_serves_waits_for_a_node,
);
across_a_restart!(a_tag_nobody_served_before_the_restart);

/// Runs an activity under every tag of its input at once (`-` for none), and tells which node ran each.
fn node(name: &str, serves: TagFilter) -> Node {
    let orchestrations = OrchestrationRegistry::builder()
        .register("Spread", |ctx: OrchestrationContext, tags: String| async move {
            let work = tags
                .split(' ')
                .map(|tag| match tag {
                    "-" => ctx.schedule_activity("Where", ""),
                    tag => ctx.schedule_activity("Where", "").with_tag(tag),
                })
                .collect();
            let places: Result<Vec<String>, String> = ctx.join(work).await.into_iter().collect();
            Ok(places?.join(" "))
        })
        .build();
    let activities = ActivityRegistry::builder()
        .register("Where", async |ctx: duroxide::ActivityContext, _: String| {
            Ok(format!("{}@{}", ctx.tag().unwrap_or("-"), node_of(ctx.worker_id())))
        })
        .build();
    Node::new(orchestrations, activities).named(name).tuned(|options| options.worker_tag_filter = serves)
}

async fn each_tag_goes_to_its_node(place: Place) {
    let nodes = vec![
        node("plain", TagFilter::default_only()),
        node("graphics", TagFilter::tags(["gpu"])),
        node("storage", TagFilter::tags(["disk", "tape"])),
    ];
    let host = Host::of(place, nodes).await;

    host.start("spread", "Spread", "gpu - disk tape - gpu").await;

    let expected = "gpu@graphics -@plain disk@storage tape@storage -@plain gpu@graphics";
    assert_eq!(host.output("spread").await, expected);
    host.end().await;
}

async fn a_node_may_serve_a_tag_and_the_untagged(place: Place) {
    let nodes = vec![
        node("orchestrator", TagFilter::none()),
        node("both", TagFilter::default_and(["gpu"])),
        node("tape", TagFilter::tags(["tape"])),
    ];
    let host = Host::of(place, nodes).await;

    host.start("spread", "Spread", "- gpu tape gpu -").await;

    assert_eq!(host.output("spread").await, "-@both gpu@both tape@tape gpu@both -@both");
    host.end().await;
}

/// Waits until all but the tape's activity is done, and the tape's alone is queued.
async fn only_the_tape_is_left(host: &Host, instance: &str, others: usize) {
    host.until_recorded(instance, others, |kind| {
        matches!(kind, duroxide::EventKind::ActivityCompleted { .. })
    })
    .await;
    until("the tape's activity alone", async || (host.depths().await.worker_queue == 1).then_some(())).await;
    assert!(host.is_running(instance).await);
}

async fn a_tag_nobody_serves_waits_for_a_node(place: Place) {
    let mut host = Host::new(place, node("plain", TagFilter::default_only())).await;

    host.start("spread", "Spread", "tape - - -").await;
    only_the_tape_is_left(&host, "spread", 3).await;
    host.join(node("latecomer", TagFilter::any())).await;

    assert_eq!(host.output("spread").await, "tape@latecomer -@plain -@plain -@plain");
    host.end().await;
}

async fn a_tag_nobody_served_before_the_restart(place: Place) {
    let plain = node("plain", TagFilter::default_only());
    let mut host = Host::new(place, plain.clone()).await;

    host.start("spread", "Spread", "tape -").await;
    only_the_tape_is_left(&host, "spread", 1).await;
    host.restart_as(vec![plain, node("latecomer", TagFilter::tags(["tape"]))]).await;

    assert_eq!(host.output("spread").await, "tape@latecomer -@plain");
    host.end().await;
}
