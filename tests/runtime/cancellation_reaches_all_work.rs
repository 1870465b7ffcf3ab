//! Cancelling an orchestration ends it and its children, tells their running activities, and takes back the
//! activities nobody has begun; what is over already stays as it is.

use std::time::Duration;

use duroxide::runtime::registry::ActivityRegistry;
use duroxide::{AppErrorKind, ErrorDetails, EventKind, OrchestrationContext, OrchestrationRegistry};

use crate::support::Place;
use crate::support::host::{Host, Node};
use crate::support::probe::{Gate, Tally, holds, until, with};

everywhere!(
    a_child_and_both_their_activities_are_told,
    work_not_begun_is_never_begun,
    a_wait_and_a_timer_end_at_once,
    what_is_over_stays_as_it_is,
);
across_a_restart!(a_cancellation_nobody_has_seen, activities_of_a_cancelled_one);

fn orchestrations() -> OrchestrationRegistry {
    OrchestrationRegistry::builder()
        .register("Outer", |ctx: OrchestrationContext, _: String| async move {
            let work = ctx.schedule_activity("Hold", "outer");
            let child = ctx.schedule_sub_orchestration_with_id("Inner", "inner", "");
            let (work, child) = ctx.join2(work, child).await;
            Ok(format!("{work:?} {child:?}"))
        })
        .register("Inner", |ctx: OrchestrationContext, _: String| async move {
            ctx.schedule_activity("Hold", "inner").await
        })
        .register("Wide", |ctx: OrchestrationContext, width: String| async move {
            let work = (0..width.parse::<usize>().unwrap())
                .map(|n| ctx.schedule_activity("Hold", n.to_string()))
                .collect();
            Ok(ctx.join(work).await.len().to_string())
        })
        .register("Quick", async |ctx: OrchestrationContext, _: String| {
            ctx.schedule_activity("Quick", "").await
        })
        .register("Wait", async |ctx: OrchestrationContext, _: String| Ok(ctx.schedule_wait("never").await))
        .register("Sleep", |ctx: OrchestrationContext, _: String| async move {
            ctx.schedule_timer(Duration::from_secs(3600)).await;
            Ok("awake".to_string())
        })
        .build()
}

/// `Hold` keeps its worker until it is told to stop.
fn holding(tally: &Tally) -> Node {
    let activities = ActivityRegistry::builder()
        .register(
            "Hold",
            with(tally, async |tally, ctx, who| {
                tally.note(&format!("{who} begun"));
                ctx.cancelled().await;
                tally.note(&format!("{who} told"));
                Ok(who)
            }),
        )
        .register("Quick", async |_, _: String| Ok("quick".to_string()))
        .build();
    Node::new(orchestrations(), activities).with_workers(2).renewing_each_second()
}

fn assert_cancelled(details: ErrorDetails, expected: Option<&str>) {
    match details {
        ErrorDetails::Application { kind: AppErrorKind::Cancelled { reason }, .. } => {
            assert!(expected.is_none_or(|expected| reason == expected), "{reason}");
        }
        other => panic!("not a cancellation: {other:?}"),
    }
}

async fn a_child_and_both_their_activities_are_told(place: Place) {
    let tally = Tally::default();
    let host = Host::new(place, holding(&tally)).await;

    host.start("outer", "Outer", "").await;
    holds("both at work", || tally.of("outer begun") + tally.of("inner begun") == 2).await;
    host.cancel("outer", "enough").await;

    assert_cancelled(host.failure("outer").await, Some("enough"));
    assert_cancelled(host.failure("inner").await, None);
    holds("both told to stop", || tally.of("outer told") + tally.of("inner told") == 2).await;
    assert_eq!(host.depths().await.worker_queue, 0);

    // Both workers are free, and neither activity is tried again.
    host.start("next", "Quick", "").await;
    assert_eq!(host.output("next").await, "quick");
    assert_eq!(tally.total(), 4);
    host.end().await;
}

async fn work_not_begun_is_never_begun(place: Place) {
    let tally = Tally::default();
    let host = Host::new(place, holding(&tally).with_workers(1)).await;

    host.start("wide", "Wide", "3").await;
    holds("the first at work", || tally.total() == 1).await;
    assert_eq!(host.depths().await.worker_queue, 2);
    host.cancel("wide", "enough").await;
    assert_cancelled(host.failure("wide").await, Some("enough"));
    assert_eq!(host.depths().await.worker_queue, 0, "what was queued is taken back");
    holds("the first told to stop", || tally.total() == 2).await;

    host.start("next", "Quick", "").await;
    assert_eq!(host.output("next").await, "quick");
    assert_eq!(tally.total(), 2, "{:?}", tally.counts());
    host.end().await;
}

async fn a_wait_and_a_timer_end_at_once(place: Place) {
    let host = Host::new(place, holding(&Tally::default())).await;

    for (instance, orchestration) in [("waiting", "Wait"), ("sleeping", "Sleep")] {
        host.start(instance, orchestration, "").await;
        let begun = |kind: &EventKind| {
            matches!(kind, EventKind::ExternalSubscribed { .. } | EventKind::TimerCreated { .. })
        };
        host.until_recorded(instance, 1, begun).await;
        host.cancel(instance, "enough").await;
        assert_cancelled(host.failure(instance).await, Some("enough"));
    }
    host.end().await;
}

async fn what_is_over_stays_as_it_is(place: Place) {
    let host = Host::new(place, holding(&Tally::default())).await;

    host.start("done", "Quick", "").await;
    host.output("done").await;
    let history = host.history("done", 1).await;
    host.cancel("done", "too late").await;
    until("the cancellation taken note of", async || {
        (host.depths().await.orchestrator_queue == 0).then_some(())
    })
    .await;
    host.start("next", "Quick", "").await;
    host.output("next").await;

    assert_eq!(host.output("done").await, "quick");
    assert_eq!(host.history("done", 1).await, history);
    host.end().await;
}

async fn a_cancellation_nobody_has_seen(place: Place) {
    let (tally, gate) = (Tally::default(), Gate::shut());
    let activities = ActivityRegistry::builder()
        .register(
            "Hold",
            with(&(tally.clone(), gate.clone()), async |(tally, gate), _, who| {
                tally.note(&who);
                gate.pass().await;
                Ok(who)
            }),
        )
        .build();
    let mut host = Host::new(place, Node::new(orchestrations(), activities)).await;

    host.start("outer", "Outer", "").await;
    holds("both at work", || tally.total() == 2).await;
    host.kill().await;
    host.cancel("outer", "before the restart").await;
    host.restart().await;

    assert_cancelled(host.failure("outer").await, Some("before the restart"));
    assert_cancelled(host.failure("inner").await, None);
    gate.open();
    host.end().await;
}

/// The runtime ends while activities of a cancelled orchestration still run: they are not begun again.
async fn activities_of_a_cancelled_one(place: Place) {
    let tally = Tally::default();
    let mut host = Host::new(place, holding(&tally)).await;

    host.start("outer", "Outer", "").await;
    holds("both at work", || tally.of("outer begun") + tally.of("inner begun") == 2).await;
    host.cancel("outer", "enough").await;
    host.failure("outer").await;
    host.failure("inner").await;
    host.restart().await;

    host.start("next", "Quick", "").await;
    assert_eq!(host.output("next").await, "quick");
    assert_eq!(host.depths().await.worker_queue, 0);
    assert_eq!(tally.of("outer begun") + tally.of("inner begun"), 2);
    host.end().await;
}
