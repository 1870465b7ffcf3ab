//! A running instance keeps the version it began with when a newer one is deployed; new instances get the
//! newest, continue-as-new moves on to it, and work for a version not deployed yet waits.

use duroxide::runtime::VersionPolicy;
use duroxide::runtime::registry::ActivityRegistry;
use duroxide::{EventKind, OrchestrationContext, OrchestrationRegistry};

use crate::support::Place;
use crate::support::host::{Host, Node};
use crate::support::probe::until;

everywhere!(
    an_upgrade_leaves_running_instances_alone,
    a_version_asked_for_is_the_one_that_runs,
    continuing_moves_on_to_the_newest,
    a_version_not_deployed_is_waited_for,
);
across_a_restart!(an_upgrade_at_a_restart);

async fn greet(ctx: OrchestrationContext, name: String) -> Result<String, String> {
    let end = ctx.schedule_wait("end").await;
    Ok(format!("{name} {end} under {}", ctx.orchestration_version()))
}

async fn march(ctx: OrchestrationContext, versions: String) -> Result<String, String> {
    let versions = format!("{versions}{} ", ctx.orchestration_version());
    ctx.schedule_wait("next").await;
    if ctx.execution_id() == 3 { Ok(versions) } else { ctx.continue_as_new(versions).await }
}

fn node(orchestrations: OrchestrationRegistry) -> Node {
    Node::new(orchestrations, ActivityRegistry::builder().build()).awaiting_deployment()
}

fn first_version() -> Node {
    let registry = OrchestrationRegistry::builder().register("Greet", greet).register("March", march);
    node(registry.build())
}

fn second_version() -> Node {
    let registry = OrchestrationRegistry::builder()
        .register("Greet", greet)
        .register("March", march)
        .register_versioned("Greet", "2.0.0", greet)
        .register_versioned("March", "2.0.0", march);
    node(registry.build())
}

fn is_wait(kind: &EventKind) -> bool {
    matches!(kind, EventKind::ExternalSubscribed { .. })
}

async fn greeting_under_way(host: &Host, instance: &str) {
    host.start(instance, "Greet", instance).await;
    host.until_recorded(instance, 1, is_wait).await;
}

async fn end_greeting(host: &Host, instance: &str) -> String {
    host.until_recorded(instance, 1, is_wait).await;
    host.raise(instance, "end", "ends").await;
    host.output(instance).await
}

async fn an_upgrade_leaves_running_instances_alone(place: Place) {
    let mut host = Host::new(place, first_version()).await;

    greeting_under_way(&host, "old").await;
    host.redeploy(vec![second_version()]).await;
    host.start("new", "Greet", "new").await;

    assert_eq!(end_greeting(&host, "old").await, "old ends under 1.0.0");
    assert_eq!(end_greeting(&host, "new").await, "new ends under 2.0.0");
    for (instance, version) in [("old", "1.0.0"), ("new", "2.0.0")] {
        let info = host.client().get_instance_info(instance).await.unwrap();
        assert_eq!(info.orchestration_version, version);
    }
    host.end().await;
}

async fn a_version_asked_for_is_the_one_that_runs(place: Place) {
    let pinned = OrchestrationRegistry::builder()
        .register("Greet", greet)
        .register_versioned("Greet", "2.0.0", greet)
        .register_versioned("Greet", "3.0.0", greet)
        .set_policy("Greet", VersionPolicy::Exact("2.0.0".parse().unwrap()));
    let host = Host::new(place, node(pinned.build())).await;

    let client = host.client();
    client.start_orchestration_versioned("asked", "Greet", "1.0.0", "asked").await.unwrap();
    host.start("policy", "Greet", "policy").await;

    assert_eq!(end_greeting(&host, "asked").await, "asked ends under 1.0.0");
    assert_eq!(end_greeting(&host, "policy").await, "policy ends under 2.0.0");
    host.end().await;
}

async fn until_waiting(host: &Host, instance: &str, execution: u64) {
    until(&format!("execution {execution} waiting"), async || {
        (host.recorded(instance, execution, is_wait).await == 1).then_some(())
    })
    .await;
}

async fn continuing_moves_on_to_the_newest(place: Place) {
    let mut host = Host::new(place, first_version()).await;

    host.start("marcher", "March", "").await;
    until_waiting(&host, "marcher", 1).await;
    host.raise("marcher", "next", "").await;
    until_waiting(&host, "marcher", 2).await;
    host.redeploy(vec![second_version()]).await;
    host.raise("marcher", "next", "").await;
    until_waiting(&host, "marcher", 3).await;
    host.raise("marcher", "next", "").await;

    assert_eq!(host.output("marcher").await, "1.0.0 1.0.0 2.0.0 ");
    let info = host.client().get_instance_info("marcher").await.unwrap();
    assert_eq!((info.orchestration_version.as_str(), info.current_execution_id), ("2.0.0", 3));
    host.end().await;
}

async fn a_version_not_deployed_is_waited_for(place: Place) {
    let mut host = Host::new(place, first_version()).await;

    host.client().start_orchestration_versioned("early", "Greet", "2.0.0", "early").await.unwrap();
    greeting_under_way(&host, "beside").await;
    assert_eq!(end_greeting(&host, "beside").await, "beside ends under 1.0.0");
    assert!(host.history("early", 1).await.is_empty());
    host.redeploy(vec![second_version()]).await;

    assert_eq!(end_greeting(&host, "early").await, "early ends under 2.0.0");
    host.end().await;
}

async fn an_upgrade_at_a_restart(place: Place) {
    let mut host = Host::new(place, first_version()).await;

    greeting_under_way(&host, "old").await;
    host.restart_as(vec![second_version()]).await;

    assert_eq!(end_greeting(&host, "old").await, "old ends under 1.0.0");
    host.start("new", "Greet", "new").await;
    assert_eq!(end_greeting(&host, "new").await, "new ends under 2.0.0");
    host.end().await;
}
