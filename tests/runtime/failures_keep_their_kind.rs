//! However an orchestration fails, the client is told what kind of failure it was, and is told the same
//! after a restart.

use duroxide::runtime::registry::ActivityRegistry;
use duroxide::{
    AppErrorKind, ConfigErrorKind, ErrorDetails, EventKind, OrchestrationContext, OrchestrationRegistry,
};

use crate::support::Place;
use crate::support::host::{Host, Node};

everywhere!(an_error_of_its_own, an_activity_that_panics, an_orchestration_that_panics, code_that_changed);
across_a_restart!(failures_are_told_again);

fn orchestrations(event: &'static str) -> OrchestrationRegistry {
    OrchestrationRegistry::builder()
        .register("Fail", async |_: OrchestrationContext, error: String| Err(error))
        .register("Panic", async |_: OrchestrationContext, message: String| panic!("{message}"))
        .register("Run", async |ctx: OrchestrationContext, what: String| {
            ctx.schedule_activity(what, "").await
        })
        .register("Change", move |ctx: OrchestrationContext, _: String| async move {
            ctx.schedule_wait(event).await;
            ctx.schedule_wait("end").await;
            Ok("unchanged".to_string())
        })
        .build()
}

fn node(event: &'static str) -> Node {
    let activities = ActivityRegistry::builder()
        .register("Fail", async |_, _: String| Err("the activity's error".to_string()))
        .register("Panic", async |_, _: String| panic!("the activity's panic"))
        .build();
    Node::new(orchestrations(event), activities)
}

fn application(details: ErrorDetails) -> (AppErrorKind, String) {
    match details {
        ErrorDetails::Application { kind, message, .. } => (kind, message),
        other => panic!("not the application's: {other:?}"),
    }
}

async fn an_error_of_its_own(place: Place) {
    let host = Host::new(place, node("")).await;

    host.start("own", "Fail", "its own error").await;
    host.start("activity's", "Run", "Fail").await;

    let (kind, message) = application(host.failure("own").await);
    assert_eq!((kind, message.as_str()), (AppErrorKind::OrchestrationFailed, "its own error"));
    let (kind, message) = application(host.failure("activity's").await);
    assert_eq!((kind, message.as_str()), (AppErrorKind::OrchestrationFailed, "the activity's error"));
    let failed = host.history("activity's", 1).await.into_iter().find_map(|event| match event.kind {
        EventKind::ActivityFailed { details } => Some(details),
        _ => None,
    });
    let (kind, message) = application(failed.unwrap());
    assert_eq!((kind, message.as_str()), (AppErrorKind::ActivityFailed, "the activity's error"));
    host.end().await;
}

async fn an_activity_that_panics(place: Place) {
    let host = Host::new(place, node("")).await;

    host.start("shaken", "Run", "Panic").await;

    let (_, message) = application(host.failure("shaken").await);
    assert!(message.contains("panic"), "{message}");
    host.start("next", "Run", "Fail").await;
    assert_eq!(host.failure("next").await.display_message(), "the activity's error");
    host.end().await;
}

async fn an_orchestration_that_panics(place: Place) {
    let host = Host::new(place, node("")).await;

    host.start("shaken", "Panic", "its own panic").await;

    let (kind, message) = application(host.failure("shaken").await);
    assert_eq!(kind, AppErrorKind::Panicked);
    assert!(message.contains("its own panic"), "{message}");
    host.end().await;
}

async fn changed(host: &mut Host) -> ErrorDetails {
    host.start("changed", "Change", "").await;
    host.until_recorded("changed", 1, |kind| matches!(kind, EventKind::ExternalSubscribed { .. })).await;
    host.redeploy(vec![node("another event")]).await;
    host.raise("changed", "an event", "").await;
    host.failure("changed").await
}

async fn code_that_changed(place: Place) {
    let mut host = Host::new(place, node("an event")).await;

    match changed(&mut host).await {
        ErrorDetails::Configuration { kind: ConfigErrorKind::Nondeterminism, .. } => {}
        other => panic!("not told apart from other failures: {other:?}"),
    }
    host.end().await;
}

async fn failures_are_told_again(place: Place) {
    let mut host = Host::new(place, node("an event")).await;
    host.start("own", "Fail", "its own error").await;
    host.start("panicked", "Panic", "its own panic").await;
    let before = [changed(&mut host).await, host.failure("own").await, host.failure("panicked").await];

    host.restart().await;

    let after = [host.failure("changed").await, host.failure("own").await, host.failure("panicked").await];
    assert_eq!(after, before);
    host.end().await;
}
