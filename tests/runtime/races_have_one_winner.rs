//! Of a race between an activity, a timer or an event, one wins and the loser leaves nothing behind: a lost
//! activity is told to stop and its late answer is dropped, a lost wait takes no later event.

use std::time::Duration;

use duroxide::runtime::registry::ActivityRegistry;
use duroxide::{Either2, EventKind, OrchestrationContext, OrchestrationRegistry};

use crate::support::Place;
use crate::support::host::{Host, Node};
use crate::support::probe::{Gate, Tally, holds, until, with};

everywhere!(work_beats_its_deadline, a_deadline_beats_its_work, a_lost_wait_takes_no_later_event,);
across_a_restart!(work_wins_after_a_restart, a_deadline_wins_after_a_restart);

const AN_HOUR: &str = "3600000";

/// Races an activity, or a wait, with a timer of as many milliseconds as the input says.
fn races() -> OrchestrationRegistry {
    OrchestrationRegistry::builder()
        .register("WorkOrDeadline", |ctx: OrchestrationContext, ms: String| async move {
            let work = ctx.schedule_activity("Work", "");
            let deadline = ctx.schedule_timer(Duration::from_millis(ms.parse().unwrap()));
            match ctx.select2(work, deadline).await {
                Either2::First(answer) => answer,
                Either2::Second(()) => Ok("too late".to_string()),
            }
        })
        .register("WaitTwice", |ctx: OrchestrationContext, ms: String| async move {
            let first = ctx.schedule_wait("news");
            let deadline = ctx.schedule_timer(Duration::from_millis(ms.parse().unwrap()));
            match ctx.select2(first, deadline).await {
                Either2::First(news) => Ok(format!("at once: {news}")),
                Either2::Second(()) => Ok(format!("at last: {}", ctx.schedule_wait("news").await)),
            }
        })
        .build()
}

async fn work_beats_its_deadline(place: Place) {
    let activities =
        ActivityRegistry::builder().register("Work", async |_, _: String| Ok("done".to_string())).build();
    let host = Host::new(place, Node::new(races(), activities)).await;

    host.start("race", "WorkOrDeadline", AN_HOUR).await;

    assert_eq!(host.output("race").await, "done");
    host.end().await;
}

async fn a_deadline_beats_its_work(place: Place) {
    let tally = Tally::default();
    let activities = ActivityRegistry::builder()
        .register(
            "Work",
            with(&tally, async |tally, ctx, _| {
                if ctx.instance_id() == "lost" {
                    tally.note("begun");
                    ctx.cancelled().await;
                    tally.note("told to stop");
                }
                Ok("done".to_string())
            }),
        )
        .build();
    let node = Node::new(races(), activities).with_workers(1).renewing_each_second();
    let host = Host::new(place, node).await;

    host.start("lost", "WorkOrDeadline", "200").await;
    assert_eq!(host.output("lost").await, "too late");

    // The only worker is free again once the lost work is told to stop, and does not try it again.
    host.start("won", "WorkOrDeadline", AN_HOUR).await;
    assert_eq!(host.output("won").await, "done");
    assert_eq!(tally.of("told to stop"), tally.of("begun"));
    assert!(
        tally.of("begun") <= 1,
        "a machine under load may not begin it in time, but never begins it twice"
    );
    assert_eq!(host.depths().await.worker_queue, 0);
    let history = host.history("lost", 1).await;
    assert!(history.iter().any(|event| matches!(event.kind, EventKind::ActivityCancelRequested { .. })));
    assert!(!history.iter().any(|event| matches!(event.kind, EventKind::ActivityCompleted { .. })));
    host.end().await;
}

async fn a_lost_wait_takes_no_later_event(place: Place) {
    let host = Host::new(place, Node::new(races(), ActivityRegistry::builder().build())).await;
    let is_wait = |kind: &EventKind| matches!(kind, EventKind::ExternalSubscribed { .. });

    host.start("patient", "WaitTwice", "30").await;
    host.until_recorded("patient", 2, is_wait).await;
    host.raise("patient", "news", "good").await;

    assert_eq!(host.output("patient").await, "at last: good");
    host.end().await;
}

async fn work_wins_after_a_restart(place: Place) {
    let (tally, gate) = (Tally::default(), Gate::shut());
    let activities = ActivityRegistry::builder()
        .register(
            "Work",
            with(&(tally.clone(), gate.clone()), async |(tally, gate), _, _| {
                tally.note("begun");
                gate.pass().await;
                Ok("done".to_string())
            }),
        )
        .build();
    let mut host = Host::new(place, Node::new(races(), activities)).await;

    host.start("race", "WorkOrDeadline", AN_HOUR).await;
    holds("the work begun", || tally.of("begun") == 1).await;
    host.restart().await;
    holds("the work begun again", || tally.of("begun") == 2).await;
    gate.open();

    assert_eq!(host.output("race").await, "done");
    host.end().await;
}

async fn a_deadline_wins_after_a_restart(place: Place) {
    let tally = Tally::default();
    let activities = ActivityRegistry::builder()
        .register(
            "Work",
            with(&tally, async |tally, ctx, _| {
                tally.note("begun");
                ctx.cancelled().await;
                tally.note("told to stop");
                Ok("an answer nobody waits for".to_string())
            }),
        )
        .build();
    let mut host = Host::new(place, Node::new(races(), activities).renewing_each_second()).await;

    host.start("race", "WorkOrDeadline", "1000").await;
    holds("the work begun", || tally.of("begun") == 1).await;
    host.restart().await;

    assert_eq!(host.output("race").await, "too late");
    // Started again or not before the deadline took it back, it does not stay with a worker.
    until("the work to be gone", async || {
        let told = tally.of("told to stop") == tally.of("begun") - 1;
        (told && host.depths().await.worker_queue == 0).then_some(())
    })
    .await;
    host.end().await;
}
