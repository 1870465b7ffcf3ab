//! Pruning removes old executions by number or age, never the current one; the instance goes on.

use duroxide::providers::{InstanceFilter, PruneOptions};
use duroxide::runtime::registry::ActivityRegistry;
use duroxide::{EventKind, OrchestrationContext, OrchestrationRegistry};

use crate::support::Place;
use crate::support::host::{Host, Node};
use crate::support::probe::{now_ms, until};

everywhere!(the_last_few_are_kept, only_the_old_are_taken, many_instances_at_once, nobody_is_not_found);
across_a_restart!(what_was_pruned_stays_pruned);

/// Continues until its fifth execution, which waits to be told to end.
fn node() -> Node {
    let orchestrations = OrchestrationRegistry::builder()
        .register("Five", |ctx: OrchestrationContext, trail: String| async move {
            let trail = format!("{trail}{}", ctx.execution_id());
            ctx.set_kv_value("trail", trail.clone());
            if ctx.execution_id() < 5 {
                return ctx.continue_as_new(trail).await;
            }
            ctx.schedule_wait("end").await;
            Ok(trail)
        })
        .build();
    Node::new(orchestrations, ActivityRegistry::builder().build())
}

async fn in_its_fifth(host: &Host, instance: &str) {
    host.start(instance, "Five", "").await;
    until("the fifth execution waiting", async || {
        let waits = |kind: &EventKind| matches!(kind, EventKind::ExternalSubscribed { .. });
        (host.recorded(instance, 5, waits).await == 1).then_some(())
    })
    .await;
}

async fn executions(host: &Host, instance: &str) -> Vec<u64> {
    host.client().list_executions(instance).await.unwrap()
}

fn keep_last(count: u32) -> PruneOptions {
    PruneOptions { keep_last: Some(count), ..Default::default() }
}

async fn the_last_few_are_kept(place: Place) {
    let host = Host::new(place, node()).await;
    let client = host.client();
    in_its_fifth(&host, "five").await;
    let events = host.history("five", 1).await.len() + host.history("five", 2).await.len();

    let pruned = client.prune_executions("five", keep_last(3)).await.unwrap();
    assert_eq!((pruned.instances_processed, pruned.executions_deleted), (1, 2));
    assert_eq!(pruned.events_deleted, events as u64);
    assert_eq!(executions(&host, "five").await, [3, 4, 5]);
    assert!(host.history("five", 1).await.is_empty());

    let pruned = client.prune_executions("five", keep_last(0)).await.unwrap();
    assert_eq!(pruned.executions_deleted, 2);
    assert_eq!(executions(&host, "five").await, [5], "the current one is never taken");
    host.raise("five", "end", "").await;
    assert_eq!(host.output("five").await, "12345");
    assert_eq!(client.prune_executions("five", keep_last(1)).await.unwrap().executions_deleted, 0);
    assert_eq!(client.get_kv_value("five", "trail").await.unwrap().as_deref(), Some("12345"));
    host.end().await;
}

async fn only_the_old_are_taken(place: Place) {
    let host = Host::new(place, node()).await;
    let client = host.client();
    in_its_fifth(&host, "five").await;
    let before = |ms: u64| PruneOptions { completed_before: Some(ms), ..Default::default() };

    let pruned = client.prune_executions("five", before(now_ms() - 3_600_000)).await.unwrap();
    assert_eq!(pruned.executions_deleted, 0);
    let both = PruneOptions { keep_last: Some(4), ..before(now_ms() + 3_600_000) };
    assert_eq!(client.prune_executions("five", both).await.unwrap().executions_deleted, 1);
    let pruned = client.prune_executions("five", before(now_ms() + 3_600_000)).await.unwrap();
    assert_eq!(pruned.executions_deleted, 3);
    assert_eq!(executions(&host, "five").await, [5]);
    host.end().await;
}

async fn many_instances_at_once(place: Place) {
    let host = Host::new(place, node()).await;
    let client = host.client();
    for instance in ["a", "b", "c"] {
        in_its_fifth(&host, instance).await;
    }
    let some = InstanceFilter { instance_ids: Some(vec!["a".into(), "b".into()]), ..Default::default() };

    let pruned = client.prune_executions_bulk(some, keep_last(2)).await.unwrap();
    assert_eq!((pruned.instances_processed, pruned.executions_deleted), (2, 6));
    assert_eq!(executions(&host, "a").await, [4, 5]);
    assert_eq!(executions(&host, "c").await, [1, 2, 3, 4, 5]);
    let pruned = client.prune_executions_bulk(InstanceFilter::default(), keep_last(1)).await.unwrap();
    assert_eq!((pruned.instances_processed, pruned.executions_deleted), (3, 6));
    host.end().await;
}

async fn nobody_is_not_found(place: Place) {
    let host = Host::new(place, node()).await;

    let error = host.client().prune_executions("nobody", keep_last(1)).await.unwrap_err();

    assert!(error.to_string().contains("not found"), "{error}");
    host.end().await;
}

async fn what_was_pruned_stays_pruned(place: Place) {
    let mut host = Host::new(place, node()).await;
    in_its_fifth(&host, "five").await;

    host.client().prune_executions("five", keep_last(2)).await.unwrap();
    host.restart().await;

    assert_eq!(executions(&host, "five").await, [4, 5]);
    host.raise("five", "end", "").await;
    assert_eq!(host.output("five").await, "12345");
    host.end().await;
}
