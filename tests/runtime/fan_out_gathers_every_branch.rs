//! A fan-out waits for all of its branches and gathers their results in order, each branch run once. After
//! a restart only branches whose completion had not been acknowledged run again.

use std::sync::Arc;

use duroxide::runtime::registry::ActivityRegistry;
use duroxide::{EventKind, OrchestrationContext, OrchestrationRegistry};
use tokio::sync::Barrier;

use crate::support::Place;
use crate::support::host::{Host, Node};
use crate::support::probe::{Gate, Tally, holds, until, with};

everywhere!(
    branches_run_once_and_gather_in_order,
    a_failing_branch_leaves_the_others_standing,
    two_nodes_share_one_fan_out,
);
across_a_restart!(a_fan_out_half_done, a_completion_nobody_has_replayed, branches_nobody_has_taken);

/// Schedules as many branches as its input says, and joins what they answer.
fn fan() -> OrchestrationRegistry {
    OrchestrationRegistry::builder()
        .register("Fan", |ctx: OrchestrationContext, width: String| async move {
            let width: usize = width.parse().unwrap();
            let branches = (0..width).map(|n| ctx.schedule_activity("Branch", n.to_string())).collect();
            let answers = ctx.join(branches).await.into_iter();
            Ok(answers.map(|answer| answer.unwrap_or_else(|error| error)).collect::<Vec<_>>().join(" "))
        })
        .build()
}

fn is_completion(kind: &EventKind) -> bool {
    matches!(kind, EventKind::ActivityCompleted { .. })
}

async fn branches_run_once_and_gather_in_order(place: Place) {
    let tally = Tally::default();
    let activities = ActivityRegistry::builder()
        .register("Branch", with(&tally, async |tally, _, n| Ok(format!("{n}:{}", tally.note(&n)))))
        .build();
    let host = Host::new(place, Node::new(fan(), activities)).await;

    host.start("wide", "Fan", "20").await;

    let expected: Vec<_> = (0..20).map(|n| format!("{n}:1")).collect();
    assert_eq!(host.output("wide").await, expected.join(" "));
    assert_eq!(tally.total(), 20);
    assert_eq!(host.recorded("wide", 1, is_completion).await, 20);
    host.end().await;
}

async fn a_failing_branch_leaves_the_others_standing(place: Place) {
    let activities = ActivityRegistry::builder()
        .register("Branch", async |_, n: String| if n == "1" { Err("no".to_string()) } else { Ok(n) })
        .build();
    let host = Host::new(place, Node::new(fan(), activities)).await;

    host.start("mixed", "Fan", "3").await;

    assert_eq!(host.output("mixed").await, "0 no 2");
    let failed = |kind: &EventKind| matches!(kind, EventKind::ActivityFailed { .. });
    assert_eq!(host.recorded("mixed", 1, failed).await, 1);
    assert_eq!(host.recorded("mixed", 1, is_completion).await, 2);
    host.end().await;
}

/// No branch ends before all four have begun, which takes both workers of both nodes at once.
async fn two_nodes_share_one_fan_out(place: Place) {
    let activities = ActivityRegistry::builder()
        .register(
            "Branch",
            with(&Arc::new(Barrier::new(4)), async |all, _, n| {
                all.wait().await;
                Ok(n)
            }),
        )
        .build();
    let node = Node::new(fan(), activities).with_workers(2);
    let host = Host::of(place, vec![node.clone(), node]).await;

    host.start("shared", "Fan", "4").await;

    assert_eq!(host.output("shared").await, "0 1 2 3");
    host.end().await;
}

async fn a_fan_out_half_done(place: Place) {
    let (tally, gate) = (Tally::default(), Gate::shut());
    let activities = ActivityRegistry::builder()
        .register(
            "Branch",
            with(&(tally.clone(), gate.clone()), async |(tally, gate), _, n| {
                tally.note(&n);
                if n.parse::<usize>().unwrap() >= 3 {
                    gate.pass().await;
                }
                Ok(n)
            }),
        )
        .build();
    let mut host = Host::new(place, Node::new(fan(), activities).with_workers(2)).await;

    host.start("half", "Fan", "6").await;
    host.until_recorded("half", 3, is_completion).await;
    holds("both workers in a gated branch", || tally.total() == 5).await;
    host.restart().await;
    gate.open();

    assert_eq!(host.output("half").await, "0 1 2 3 4 5");
    let runs: Vec<_> = tally.counts().into_values().collect();
    assert_eq!(runs, [1, 1, 1, 2, 2, 1], "three were done, two were cut off, one had not begun");
    host.end().await;
}

/// The worker acknowledges while no orchestration dispatcher is left to take note of it.
async fn a_completion_nobody_has_replayed(place: Place) {
    let (tally, gate) = (Tally::default(), Gate::shut());
    let activities = ActivityRegistry::builder()
        .register(
            "Branch",
            with(&(tally.clone(), gate.clone()), async |(tally, gate), _, n| {
                tally.note(&n);
                gate.pass().await;
                Ok(n)
            }),
        )
        .build();
    let node = Node::new(fan(), activities);
    let nodes = vec![node.clone().without_workers(), node.clone().workers_only()];
    let mut host = Host::of(place, nodes).await;

    host.start("unseen", "Fan", "2").await;
    holds("both branches begun", || tally.total() == 2).await;
    host.kill_node(0).await;
    gate.open();
    until("both completions queued", async || (host.depths().await.orchestrator_queue == 2).then_some(()))
        .await;
    assert_eq!(host.recorded("unseen", 1, is_completion).await, 0);
    host.restart_as(vec![node]).await;

    assert_eq!(host.output("unseen").await, "0 1");
    assert_eq!(tally.total(), 2, "an acknowledged branch is not run again");
    host.end().await;
}

async fn branches_nobody_has_taken(place: Place) {
    let tally = Tally::default();
    let activities = ActivityRegistry::builder()
        .register("Branch", with(&tally, async |tally, _, n| Ok(format!("{n}:{}", tally.note(&n)))))
        .build();
    let node = Node::new(fan(), activities);
    let mut host = Host::new(place, node.clone().without_workers()).await;

    host.start("waiting", "Fan", "3").await;
    until("three branches queued", async || (host.depths().await.worker_queue == 3).then_some(())).await;
    host.restart_as(vec![node]).await;

    assert_eq!(host.output("waiting").await, "0:1 1:1 2:1");
    host.end().await;
}
