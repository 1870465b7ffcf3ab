//! A durable timer fires once, never early, and whether or not anything ran in the meantime.

use std::time::Duration;

use duroxide::runtime::registry::ActivityRegistry;
use duroxide::{Event, EventKind, OrchestrationContext, OrchestrationRegistry};

use crate::support::Place;
use crate::support::host::{Host, Node};
use crate::support::probe::{Tally, now_ms, until, with};

everywhere!(
    a_timer_fires_once_and_not_early,
    a_short_timer_does_not_wait_for_a_long_one,
    timers_of_one_instance_all_fire,
);
across_a_restart!(a_timer_due_while_closed, a_timer_not_yet_due_when_reopened);

/// Runs an activity, sleeps as many milliseconds as the input says, and runs it again.
fn sleeper(tally: &Tally) -> Node {
    let orchestrations = OrchestrationRegistry::builder()
        .register("Sleep", |ctx: OrchestrationContext, ms: String| async move {
            let before = ctx.schedule_activity("Tick", "before").await?;
            ctx.schedule_timer(Duration::from_millis(ms.parse().unwrap())).await;
            let after = ctx.schedule_activity("Tick", "after").await?;
            Ok(format!("{before} {after}"))
        })
        .register("SleepMuch", |ctx: OrchestrationContext, _: String| async move {
            let naps = (0..10).map(|n| ctx.schedule_timer(Duration::from_millis(n * 5))).collect();
            Ok(ctx.join(naps).await.len().to_string())
        })
        .build();
    let activities = ActivityRegistry::builder()
        .register("Tick", with(tally, async |tally, _, tick| Ok(format!("{tick}:{}", tally.note(&tick)))))
        .build();
    Node::new(orchestrations, activities)
}

fn is_timer(kind: &EventKind) -> bool {
    matches!(kind, EventKind::TimerCreated { .. })
}

/// Every timer of a history has fired exactly once, not before it was due.
fn assert_all_fired_on_time(history: &[Event]) {
    for created in history.iter().filter(|event| is_timer(&event.kind)) {
        let EventKind::TimerCreated { fire_at_ms: due } = created.kind else { unreachable!() };
        let fired: Vec<_> = history
            .iter()
            .filter(|event| matches!(event.kind, EventKind::TimerFired { .. }))
            .filter(|event| event.source_event_id == Some(created.event_id))
            .collect();
        assert_eq!(fired.len(), 1, "{history:#?}");
        assert!(fired[0].timestamp_ms >= due, "due at {due}, fired at {}", fired[0].timestamp_ms);
    }
}

async fn a_timer_fires_once_and_not_early(place: Place) {
    let host = Host::new(place, sleeper(&Tally::default())).await;

    host.start("nap", "Sleep", "40").await;

    assert_eq!(host.output("nap").await, "before:1 after:1");
    assert_all_fired_on_time(&host.history("nap", 1).await);
    host.end().await;
}

async fn a_short_timer_does_not_wait_for_a_long_one(place: Place) {
    let host = Host::new(place, sleeper(&Tally::default())).await;

    host.start("long", "Sleep", "3600000").await;
    host.until_recorded("long", 1, is_timer).await;
    host.start("short", "Sleep", "30").await;

    assert_eq!(host.output("short").await, "before:2 after:1");
    assert!(host.is_running("long").await);
    host.end().await;
}

async fn timers_of_one_instance_all_fire(place: Place) {
    let host = Host::new(place, sleeper(&Tally::default())).await;

    host.start("naps", "SleepMuch", "").await;

    assert_eq!(host.output("naps").await, "10");
    assert_all_fired_on_time(&host.history("naps", 1).await);
    host.end().await;
}

async fn due_of(host: &Host, instance: &str) -> u64 {
    let history = host.history(instance, 1).await;
    let due = history.iter().find_map(|event| match event.kind {
        EventKind::TimerCreated { fire_at_ms } => Some(fire_at_ms),
        _ => None,
    });
    due.unwrap()
}

async fn a_timer_due_while_closed(place: Place) {
    let tally = Tally::default();
    let mut host = Host::new(place, sleeper(&tally)).await;

    host.start("nap", "Sleep", "300").await;
    host.until_recorded("nap", 1, is_timer).await;
    let due = due_of(&host, "nap").await;
    host.crash().await;
    until("the timer to be due", async || (now_ms() > due).then_some(())).await;
    host.reopen().await;
    host.run().await;

    assert_eq!(
        host.output("nap").await,
        "before:1 after:1",
        "what was done before the timer is not repeated"
    );
    assert_all_fired_on_time(&host.history("nap", 1).await);
    host.end().await;
}

async fn a_timer_not_yet_due_when_reopened(place: Place) {
    let tally = Tally::default();
    let mut host = Host::new(place, sleeper(&tally)).await;

    host.start("nap", "Sleep", "1500").await;
    host.until_recorded("nap", 1, is_timer).await;
    host.restart().await;

    assert_eq!(host.output("nap").await, "before:1 after:1");
    assert_all_fired_on_time(&host.history("nap", 1).await);
    host.end().await;
}
