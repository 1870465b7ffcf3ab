//! Key-values belong to the instance: its orchestration sets and clears them, clients and other instances
//! read them while it runs and after it ended, and they outlive its executions and a restart.

use std::collections::HashMap;

use duroxide::runtime::registry::ActivityRegistry;
use duroxide::{EventKind, OrchestrationContext, OrchestrationRegistry};

use crate::support::Place;
use crate::support::host::{Host, Node};
use crate::support::probe::{PATIENCE, until};

everywhere!(
    clients_follow_every_set_and_clear,
    values_go_on_in_the_next_execution,
    values_outlive_their_orchestration,
    one_instance_reads_another,
    what_a_failing_turn_set_is_kept,
);
across_a_restart!(values_set_before_the_restart);

fn keepers() -> Node {
    let orchestrations = OrchestrationRegistry::builder()
        // Obeys "set key value", "clear key", "clear", "fail" and "end", one turn each.
        .register("Obey", |ctx: OrchestrationContext, _: String| async move {
            loop {
                let order = ctx.dequeue_event("orders").await;
                let words: Vec<_> = order.split(' ').collect();
                match words[..] {
                    ["set", key, value] => ctx.set_kv_value(key, value),
                    ["clear", key] => ctx.clear_kv_value(key),
                    ["clear"] => ctx.clear_all_kv_values(),
                    ["fail"] => return Err("as told".to_string()),
                    ["end"] => return Ok(ctx.get_kv_all_keys().join(" ")),
                    _ => unreachable!("{order}"),
                }
            }
        })
        .register("Accumulate", |ctx: OrchestrationContext, _: String| async move {
            let execution = ctx.execution_id();
            let sum = ctx.get_kv_value_typed::<u64>("sum")?.unwrap_or(0) + execution;
            ctx.set_kv_value_typed("sum", &sum);
            ctx.set_kv_value(format!("seen by {execution}"), "yes");
            if execution == 3 {
                ctx.clear_kv_value("seen by 2");
            }
            if execution == 4 { Ok(sum.to_string()) } else { ctx.continue_as_new("").await }
        })
        .register("Ask", |ctx: OrchestrationContext, whom: String| async move {
            let there = ctx.get_kv_value_from_instance(whom.clone(), "colour").await?;
            let nowhere = ctx.get_kv_value_from_instance(whom, "no such key").await?;
            Ok(format!("{there:?} {nowhere:?}"))
        })
        .register("SetAndFail", |ctx: OrchestrationContext, _: String| async move {
            ctx.set_kv_value("reason", "left behind");
            Err("failed".to_string())
        })
        .build();
    Node::new(orchestrations, ActivityRegistry::builder().build())
}

fn map<const N: usize>(pairs: [(&str, &str); N]) -> HashMap<String, String> {
    pairs.into_iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

async fn until_values<const N: usize>(host: &Host, instance: &str, expected: [(&str, &str); N]) {
    let expected = map(expected);
    until(&format!("{expected:?}"), async || {
        (host.client().get_kv_all_values(instance).await.unwrap() == expected).then_some(())
    })
    .await;
}

async fn order(host: &Host, orders: &[&str]) {
    for order in orders {
        host.enqueue("keeper", "orders", order).await;
    }
}

async fn clients_follow_every_set_and_clear(place: Place) {
    let host = Host::new(place, keepers()).await;

    host.start("keeper", "Obey", "").await;
    order(&host, &["set colour red", "set size 3"]).await;
    until_values(&host, "keeper", [("colour", "red"), ("size", "3")]).await;
    order(&host, &["set colour blue"]).await;
    until_values(&host, "keeper", [("colour", "blue"), ("size", "3")]).await;
    order(&host, &["clear size"]).await;
    until_values(&host, "keeper", [("colour", "blue")]).await;
    assert_eq!(host.client().get_kv_value("keeper", "size").await.unwrap(), None);
    order(&host, &["clear", "set shape round"]).await;
    until_values(&host, "keeper", [("shape", "round")]).await;
    order(&host, &["set shape square", "set last word", "end"]).await;

    assert_eq!(host.output("keeper").await, "last shape");
    host.end().await;
}

async fn values_go_on_in_the_next_execution(place: Place) {
    let host = Host::new(place, keepers()).await;

    host.start("adder", "Accumulate", "").await;

    assert_eq!(host.output("adder").await, "10");
    let values = host.client().get_kv_all_values("adder").await.unwrap();
    let expected = map([("sum", "10"), ("seen by 1", "yes"), ("seen by 3", "yes"), ("seen by 4", "yes")]);
    assert_eq!(values, expected);
    assert_eq!(host.client().get_kv_value_typed::<u64>("adder", "sum").await.unwrap(), Some(10));
    host.end().await;
}

async fn values_outlive_their_orchestration(place: Place) {
    let host = Host::new(place, keepers()).await;

    host.start("keeper", "Obey", "").await;
    order(&host, &["set colour red", "set gone soon", "clear gone", "fail"]).await;
    host.failure("keeper").await;

    assert_eq!(host.client().get_kv_all_values("keeper").await.unwrap(), map([("colour", "red")]));
    assert_eq!(host.client().get_kv_all_values("no such instance").await.unwrap(), map([]));
    host.end().await;
}

async fn one_instance_reads_another(place: Place) {
    let host = Host::new(place, keepers()).await;

    host.start("keeper", "Obey", "").await;
    order(&host, &["set colour red"]).await;
    let seen = host.client().wait_for_kv_value("keeper", "colour", PATIENCE).await.unwrap();
    assert_eq!(seen, "red");
    host.start("curious", "Ask", "keeper").await;

    assert_eq!(host.output("curious").await, r#"Some("red") None"#);
    host.end().await;
}

async fn what_a_failing_turn_set_is_kept(place: Place) {
    let host = Host::new(place, keepers()).await;

    host.start("unlucky", "SetAndFail", "").await;
    host.failure("unlucky").await;

    let value = host.client().get_kv_value("unlucky", "reason").await.unwrap();
    assert_eq!(value.as_deref(), Some("left behind"));
    host.end().await;
}

async fn values_set_before_the_restart(place: Place) {
    let mut host = Host::new(place, keepers()).await;

    host.start("adder", "Accumulate", "").await;
    host.output("adder").await;
    host.start("keeper", "Obey", "").await;
    order(&host, &["set colour red", "set size 3", "clear size"]).await;
    until("the orders obeyed", async || {
        let cleared = |kind: &EventKind| matches!(kind, EventKind::KeyValueCleared { .. });
        (host.recorded("keeper", 1, cleared).await == 1).then_some(())
    })
    .await;
    let sums = host.client().get_kv_all_values("adder").await.unwrap();
    host.crash().await;
    host.reopen().await;

    // Before anything runs: a client alone reads what there was.
    assert_eq!(host.client().get_kv_all_values("keeper").await.unwrap(), map([("colour", "red")]));
    assert_eq!(host.client().get_kv_all_values("adder").await.unwrap(), sums);

    // And the orchestration finds it again.
    host.run().await;
    order(&host, &["set size 4", "end"]).await;
    assert_eq!(host.output("keeper").await, "colour size");
    let values = host.client().get_kv_all_values("keeper").await.unwrap();
    assert_eq!(values, map([("colour", "red"), ("size", "4")]));
    host.end().await;
}
