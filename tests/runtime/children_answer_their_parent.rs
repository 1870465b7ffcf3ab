//! A sub-orchestration's result or failure reaches the parent that waits for it, at any depth and across a
//! restart of both; a detached one runs for itself.

use duroxide::runtime::registry::ActivityRegistry;
use duroxide::{EventKind, OrchestrationContext, OrchestrationRegistry};

use crate::support::Place;
use crate::support::host::{Host, Node};
use crate::support::probe::{Gate, Tally, holds, until, with};

everywhere!(
    a_result_reaches_the_parent,
    a_failing_child_is_an_error_to_its_parent,
    children_have_children,
    many_children_answer_one_parent,
    a_detached_one_runs_for_itself,
);
across_a_restart!(a_parent_whose_child_still_runs, a_child_that_ended_before_its_parent_knew);

fn family(activities: ActivityRegistry) -> Node {
    let orchestrations = OrchestrationRegistry::builder()
        .register("Parent", |ctx: OrchestrationContext, input: String| async move {
            let own = ctx.schedule_activity("Work", "parent").await?;
            let answer = ctx.schedule_sub_orchestration_with_id("Child", "the-child", input).await;
            Ok(format!("{own}, {}", answer.unwrap_or_else(|error| format!("sorry: {error}"))))
        })
        .register("Child", |ctx: OrchestrationContext, input: String| async move {
            if input == "fail" {
                return Err("I cannot".to_string());
            }
            ctx.schedule_activity("Work", input).await
        })
        .register("Descend", |ctx: OrchestrationContext, depth: String| async move {
            match depth.parse::<usize>().unwrap() {
                0 => Ok(ctx.instance_id()),
                depth => ctx.schedule_sub_orchestration("Descend", (depth - 1).to_string()).await,
            }
        })
        .register("ManyChildren", |ctx: OrchestrationContext, count: String| async move {
            let children = (0..count.parse::<usize>().unwrap())
                .map(|n| ctx.schedule_sub_orchestration("Child", format!("child {n}")))
                .collect();
            let answers: Result<Vec<String>, String> = ctx.join(children).await.into_iter().collect();
            Ok(answers?.join(", "))
        })
        .register("Detach", |ctx: OrchestrationContext, instance: String| async move {
            ctx.schedule_orchestration("Child", instance, "detached");
            Ok("gone".to_string())
        })
        .build();
    Node::new(orchestrations, activities)
}

fn counted(tally: &Tally) -> ActivityRegistry {
    ActivityRegistry::builder()
        .register("Work", with(tally, async |tally, _, who| Ok(format!("{who}:{}", tally.note(&who)))))
        .build()
}

async fn a_result_reaches_the_parent(place: Place) {
    let host = Host::new(place, family(counted(&Tally::default()))).await;

    host.start("the-parent", "Parent", "child").await;

    assert_eq!(host.output("the-parent").await, "parent:1, child:1");
    assert_eq!(host.output("the-child").await, "child:1");
    let info = host.client().get_instance_info("the-child").await.unwrap();
    assert_eq!(info.parent_instance_id.as_deref(), Some("the-parent"));
    host.end().await;
}

async fn a_failing_child_is_an_error_to_its_parent(place: Place) {
    let host = Host::new(place, family(counted(&Tally::default()))).await;

    host.start("the-parent", "Parent", "fail").await;

    assert_eq!(host.output("the-parent").await, "parent:1, sorry: I cannot");
    assert_eq!(host.failure("the-child").await.display_message(), "I cannot");
    host.end().await;
}

async fn children_have_children(place: Place) {
    let host = Host::new(place, family(counted(&Tally::default()))).await;

    host.start("root", "Descend", "3").await;

    let leaf = "root::sub::2::sub::2::sub::2";
    assert_eq!(host.output("root").await, leaf);
    let mut all = host.client().get_instance_tree("root").await.unwrap().all_ids;
    all.sort();
    assert_eq!(all, ["root", "root::sub::2", "root::sub::2::sub::2", leaf]);
    host.end().await;
}

async fn many_children_answer_one_parent(place: Place) {
    let tally = Tally::default();
    let host = Host::new(place, family(counted(&tally))).await;

    host.start("big", "ManyChildren", "8").await;

    let expected: Vec<_> = (0..8).map(|n| format!("child {n}:1")).collect();
    assert_eq!(host.output("big").await, expected.join(", "));
    host.end().await;
}

async fn a_detached_one_runs_for_itself(place: Place) {
    let host = Host::new(place, family(counted(&Tally::default()))).await;

    host.start("origin", "Detach", "on-its-own").await;

    assert_eq!(host.output("origin").await, "gone");
    assert_eq!(host.output("on-its-own").await, "detached:1");
    let info = host.client().get_instance_info("on-its-own").await.unwrap();
    assert_eq!(info.parent_instance_id, None);
    host.end().await;
}

async fn a_parent_whose_child_still_runs(place: Place) {
    let (tally, gate) = (Tally::default(), Gate::shut());
    let activities = ActivityRegistry::builder()
        .register(
            "Work",
            with(&(tally.clone(), gate.clone()), async |(tally, gate), _, who| {
                let run = tally.note(&who);
                if who == "child" {
                    gate.pass().await;
                }
                Ok(format!("{who}:{run}"))
            }),
        )
        .build();
    let mut host = Host::new(place, family(activities)).await;

    host.start("the-parent", "Parent", "child").await;
    holds("the child at work", || tally.of("child") == 1).await;
    host.restart().await;
    assert!(host.is_running("the-parent").await);
    gate.open();

    assert_eq!(host.output("the-parent").await, "parent:1, child:2");
    assert_eq!(tally.of("parent"), 1, "what the parent had done is not repeated");
    let is_child = |kind: &EventKind| matches!(kind, EventKind::SubOrchestrationScheduled { .. });
    assert_eq!(host.recorded("the-parent", 1, is_child).await, 1);
    host.end().await;
}

/// The child's end and the word to its parent are one commit; here the parent's half is still queued, for a
/// version of the parent that is missing until after the restart.
async fn a_child_that_ended_before_its_parent_knew(place: Place) {
    let tally = Tally::default();
    let whole = family(counted(&tally)).awaiting_deployment();
    let only_child = Node::new(
        OrchestrationRegistry::builder()
            .register("Child", |ctx: OrchestrationContext, who: String| async move {
                ctx.schedule_activity("Work", who).await
            })
            .build(),
        counted(&tally),
    )
    .awaiting_deployment();
    let mut host = Host::new(place, whole.clone().without_workers()).await;

    host.start("the-parent", "ManyChildren", "1").await;
    host.until_recorded("the-parent::sub::2", 1, |kind| matches!(kind, EventKind::ActivityScheduled { .. }))
        .await;
    host.redeploy(vec![only_child]).await;
    assert_eq!(host.output("the-parent::sub::2").await, "child 0:1");
    assert!(host.is_running("the-parent").await);
    host.restart_as(vec![whole]).await;

    until("the parent to be told", async || {
        let told = |kind: &EventKind| matches!(kind, EventKind::SubOrchestrationCompleted { .. });
        (host.recorded("the-parent", 1, told).await == 1).then_some(())
    })
    .await;
    assert_eq!(host.output("the-parent").await, "child 0:1");
    assert_eq!(tally.total(), 1);
    host.end().await;
}
