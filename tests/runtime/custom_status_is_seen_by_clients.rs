//! A custom status is seen by a waiting client, each change under a higher version, and stays with the
//! instance when it continues, ends, or comes back after a restart.

use std::time::Duration;

use duroxide::runtime::registry::ActivityRegistry;
use duroxide::{OrchestrationContext, OrchestrationRegistry, OrchestrationStatus};

use crate::support::Place;
use crate::support::host::{Host, Node};
use crate::support::probe::PATIENCE;

everywhere!(
    a_client_follows_every_change,
    a_status_taken_back_is_a_change,
    a_status_goes_on_in_the_next_execution,
);
across_a_restart!(a_status_set_before_the_restart);

fn reporting() -> Node {
    let orchestrations = OrchestrationRegistry::builder()
        // Shows what it is told, "" to show nothing, until it is told to end.
        .register("Show", |ctx: OrchestrationContext, _: String| async move {
            loop {
                match ctx.dequeue_event("told").await.as_str() {
                    "end" => return Ok(format!("{:?}", ctx.get_custom_status())),
                    "" => ctx.reset_custom_status(),
                    status => ctx.set_custom_status(status),
                }
            }
        })
        .register("Continue", |ctx: OrchestrationContext, _: String| async move {
            if ctx.execution_id() == 1 {
                ctx.set_custom_status("set by the first");
                return ctx.continue_as_new("").await;
            }
            ctx.schedule_wait("end").await;
            Ok(format!("{:?}", ctx.get_custom_status()))
        })
        .build();
    Node::new(orchestrations, ActivityRegistry::builder().build())
}

/// The custom status and its version, whatever else the instance is up to.
fn shown(status: OrchestrationStatus) -> (Option<String>, u64) {
    match status {
        OrchestrationStatus::Running { custom_status, custom_status_version }
        | OrchestrationStatus::Completed { custom_status, custom_status_version, .. }
        | OrchestrationStatus::Failed { custom_status, custom_status_version, .. } => {
            (custom_status, custom_status_version)
        }
        OrchestrationStatus::NotFound => panic!("no such instance"),
    }
}

/// Waits for the first change after `version`.
async fn next_shown(host: &Host, instance: &str, version: u64) -> (Option<String>, u64) {
    let poll = Duration::from_millis(5);
    shown(host.client().wait_for_status_change(instance, version, poll, PATIENCE).await.unwrap())
}

async fn a_client_follows_every_change(place: Place) {
    let host = Host::new(place, reporting()).await;

    host.start("reporter", "Show", "").await;
    let mut seen = 0;
    for status in ["begun", "half done", "all but done"] {
        host.enqueue("reporter", "told", status).await;
        let (now, version) = next_shown(&host, "reporter", seen).await;
        assert_eq!(now.as_deref(), Some(status));
        assert!(version > seen, "{version} comes after {seen}");
        seen = version;
    }
    host.enqueue("reporter", "told", "end").await;

    assert_eq!(host.output("reporter").await, r#"Some("all but done")"#);
    assert_eq!(shown(host.status("reporter").await), (Some("all but done".to_string()), seen));
    host.end().await;
}

async fn a_status_taken_back_is_a_change(place: Place) {
    let host = Host::new(place, reporting()).await;

    host.start("reporter", "Show", "").await;
    host.enqueue("reporter", "told", "begun").await;
    let (_, seen) = next_shown(&host, "reporter", 0).await;
    host.enqueue("reporter", "told", "").await;
    let (now, version) = next_shown(&host, "reporter", seen).await;
    assert_eq!(now, None);
    assert!(version > seen);
    host.enqueue("reporter", "told", "end").await;

    assert_eq!(host.output("reporter").await, "None");
    host.end().await;
}

async fn a_status_goes_on_in_the_next_execution(place: Place) {
    let host = Host::new(place, reporting()).await;

    host.start("traveller", "Continue", "").await;
    let (now, _) = next_shown(&host, "traveller", 0).await;
    assert_eq!(now.as_deref(), Some("set by the first"));
    crate::support::probe::until("the second execution's wait", async || {
        let waits =
            |kind: &duroxide::EventKind| matches!(kind, duroxide::EventKind::ExternalSubscribed { .. });
        (host.recorded("traveller", 2, waits).await == 1).then_some(())
    })
    .await;
    host.raise("traveller", "end", "").await;

    assert_eq!(host.output("traveller").await, r#"Some("set by the first")"#);
    assert_eq!(shown(host.status("traveller").await).0.as_deref(), Some("set by the first"));
    host.end().await;
}

async fn a_status_set_before_the_restart(place: Place) {
    let mut host = Host::new(place, reporting()).await;

    host.start("reporter", "Show", "").await;
    host.enqueue("reporter", "told", "before").await;
    let before = next_shown(&host, "reporter", 0).await;
    host.crash().await;
    host.reopen().await;
    assert_eq!(shown(host.status("reporter").await), before, "a client alone sees it");

    host.run().await;
    host.enqueue("reporter", "told", "after").await;
    let (now, version) = next_shown(&host, "reporter", before.1).await;
    assert_eq!(now.as_deref(), Some("after"));
    assert!(version > before.1, "versions go on where they were");
    host.enqueue("reporter", "told", "end").await;
    assert_eq!(host.output("reporter").await, r#"Some("after")"#);
    host.end().await;
}
