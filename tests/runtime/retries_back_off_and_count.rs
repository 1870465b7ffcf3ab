//! A retried activity is tried as often as its policy says, with its back-off between, and goes on counting
//! where it was after a restart.

use std::time::Duration;

use duroxide::runtime::registry::ActivityRegistry;
use duroxide::{BackoffStrategy, Event, EventKind, OrchestrationContext, OrchestrationRegistry, RetryPolicy};

use crate::support::Place;
use crate::support::host::{Host, Node};
use crate::support::probe::{Tally, with};

everywhere!(it_is_tried_until_it_succeeds, it_gives_up_with_the_last_error, a_try_out_of_time_is_not_retried);
across_a_restart!(a_back_off_under_way);

/// Four tries, as many milliseconds apart as the input says.
fn retrying(activities: ActivityRegistry) -> Node {
    let orchestrations = OrchestrationRegistry::builder()
        .register("Retry", |ctx: OrchestrationContext, ms: String| async move {
            let delay = Duration::from_millis(ms.parse().unwrap());
            let policy = RetryPolicy::new(4).with_backoff(BackoffStrategy::Fixed { delay });
            ctx.schedule_activity_with_retry("Try", "", policy).await
        })
        .register("Hurry", |ctx: OrchestrationContext, _: String| async move {
            let policy = RetryPolicy::new(4).with_timeout(Duration::from_millis(40));
            ctx.schedule_activity_with_retry("Try", "", policy).await
        })
        .build();
    Node::new(orchestrations, activities)
}

/// Fails this often, each time with its number.
fn failing(times: usize, tally: &Tally) -> ActivityRegistry {
    ActivityRegistry::builder()
        .register(
            "Try",
            with(&(tally.clone(), times), async |(tally, times), _, _| match tally.note("try") {
                number if number <= times => Err(format!("failure {number}")),
                number => Ok(format!("success {number}")),
            }),
        )
        .build()
}

fn count(history: &[Event], kind: fn(&EventKind) -> bool) -> usize {
    history.iter().filter(|event| kind(&event.kind)).count()
}

fn is_failure(kind: &EventKind) -> bool {
    matches!(kind, EventKind::ActivityFailed { .. })
}

fn is_timer(kind: &EventKind) -> bool {
    matches!(kind, EventKind::TimerCreated { .. })
}

async fn it_is_tried_until_it_succeeds(place: Place) {
    let tally = Tally::default();
    let host = Host::new(place, retrying(failing(2, &tally))).await;

    host.start("stubborn", "Retry", "20").await;

    assert_eq!(host.output("stubborn").await, "success 3");
    assert_eq!(tally.total(), 3);
    let history = host.history("stubborn", 1).await;
    assert_eq!(count(&history, is_failure), 2);
    assert_eq!(count(&history, is_timer), 2);
    host.end().await;
}

async fn it_gives_up_with_the_last_error(place: Place) {
    let tally = Tally::default();
    let host = Host::new(place, retrying(failing(9, &tally))).await;

    host.start("hopeless", "Retry", "5").await;

    assert_eq!(host.failure("hopeless").await.display_message(), "failure 4");
    assert_eq!(tally.total(), 4);
    let history = host.history("hopeless", 1).await;
    assert_eq!(count(&history, is_failure), 4);
    assert_eq!(count(&history, is_timer), 3, "no back-off after the last try");
    host.end().await;
}

async fn a_try_out_of_time_is_not_retried(place: Place) {
    let activities = ActivityRegistry::builder()
        .register("Try", async |_, _: String| std::future::pending().await)
        .build();
    let host = Host::new(place, retrying(activities)).await;

    host.start("slow", "Hurry", "").await;

    let error = host.failure("slow").await.display_message();
    assert!(error.contains("timed out"), "{error}");
    let tries = |kind: &EventKind| matches!(kind, EventKind::ActivityScheduled { .. });
    assert_eq!(host.recorded("slow", 1, tries).await, 1);
    assert_eq!(host.depths().await.worker_queue, 0);
    host.end().await;
}

async fn a_back_off_under_way(place: Place) {
    let tally = Tally::default();
    let mut host = Host::new(place, retrying(failing(2, &tally))).await;

    host.start("stubborn", "Retry", "600").await;
    host.until_recorded("stubborn", 1, is_timer).await;
    host.restart().await;

    assert_eq!(host.output("stubborn").await, "success 3");
    assert_eq!(tally.total(), 3, "the tries before the restart count, and are not repeated");
    let history = host.history("stubborn", 1).await;
    assert_eq!(count(&history, is_failure), 2);
    assert_eq!(count(&history, is_timer), 2);
    host.end().await;
}
