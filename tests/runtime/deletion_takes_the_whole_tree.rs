//! Deleting an instance removes all of it and of its descendants, and nothing else; running ones only by
//! force. What is deleted stays deleted, and its name can be used again.

use duroxide::providers::InstanceFilter;
use duroxide::runtime::registry::ActivityRegistry;
use duroxide::{ClientError, EventKind, OrchestrationContext, OrchestrationRegistry, OrchestrationStatus};

use crate::support::Place;
use crate::support::host::{Host, Node};
use crate::support::probe::{Gate, Tally, holds, now_ms, with};

everywhere!(
    a_tree_goes_as_one,
    a_running_one_goes_by_force_alone,
    a_child_goes_with_its_root_alone,
    work_of_a_deleted_one_comes_to_nothing,
    many_go_by_filter,
    a_name_can_be_used_again,
);
across_a_restart!(what_was_deleted_stays_deleted);

fn orchestrations() -> OrchestrationRegistry {
    OrchestrationRegistry::builder()
        .register("Descend", |ctx: OrchestrationContext, depth: String| async move {
            ctx.set_kv_value("depth", depth.clone());
            match depth.parse::<usize>().unwrap() {
                0 => Ok("bottom".to_string()),
                depth => ctx.schedule_sub_orchestration("Descend", (depth - 1).to_string()).await,
            }
        })
        .register("Finish", async |_: OrchestrationContext, input: String| Ok(input))
        .register("Fail", async |_: OrchestrationContext, input: String| Err(input))
        .register("Wait", async |ctx: OrchestrationContext, _: String| Ok(ctx.schedule_wait("end").await))
        .register("Work", async |ctx: OrchestrationContext, input: String| {
            ctx.schedule_activity("Work", input).await
        })
        .build()
}

fn node() -> Node {
    Node::new(orchestrations(), ActivityRegistry::builder().build())
}

async fn all(host: &Host) -> Vec<String> {
    let mut all = host.client().list_all_instances().await.unwrap();
    all.sort();
    all
}

async fn waiting(host: &Host, instance: &str) {
    host.start(instance, "Wait", "").await;
    host.until_recorded(instance, 1, |kind| matches!(kind, EventKind::ExternalSubscribed { .. })).await;
}

async fn a_tree_goes_as_one(place: Place) {
    let host = Host::new(place, node()).await;
    let client = host.client();
    host.start("root", "Descend", "2").await;
    host.start("other", "Descend", "0").await;
    host.output("root").await;
    host.output("other").await;
    let mut events = 0;
    for instance in client.get_instance_tree("root").await.unwrap().all_ids {
        events += host.history(&instance, 1).await.len() as u64;
    }

    let deleted = client.delete_instance("root", false).await.unwrap();

    assert_eq!((deleted.instances_deleted, deleted.executions_deleted), (3, 3));
    assert_eq!(deleted.events_deleted, events);
    assert_eq!(all(&host).await, ["other"]);
    assert_eq!(host.status("root").await, OrchestrationStatus::NotFound);
    assert!(host.history("root::sub::3", 1).await.is_empty());
    assert!(client.get_kv_all_values("root").await.unwrap().is_empty());
    assert_eq!(client.get_kv_value("other", "depth").await.unwrap().as_deref(), Some("0"));
    let again = client.delete_instance("root", false).await;
    assert!(matches!(again, Err(ClientError::InstanceNotFound { .. })), "{again:?}");
    host.end().await;
}

async fn a_running_one_goes_by_force_alone(place: Place) {
    let host = Host::new(place, node()).await;
    let client = host.client();
    waiting(&host, "patient").await;

    let refused = client.delete_instance("patient", false).await;
    assert!(matches!(refused, Err(ClientError::InstanceStillRunning { .. })), "{refused:?}");
    assert!(host.is_running("patient").await);

    assert_eq!(client.delete_instance("patient", true).await.unwrap().instances_deleted, 1);
    assert!(all(&host).await.is_empty());
    host.end().await;
}

async fn a_child_goes_with_its_root_alone(place: Place) {
    let host = Host::new(place, node()).await;
    let client = host.client();
    host.start("root", "Descend", "1").await;
    host.output("root").await;

    for force in [false, true] {
        let refused = client.delete_instance("root::sub::3", force).await;
        assert!(matches!(refused, Err(ClientError::CannotDeleteSubOrchestration { .. })), "{refused:?}");
    }
    assert_eq!(all(&host).await, ["root", "root::sub::3"]);
    host.end().await;
}

/// Its activity is running and another is queued when the instance is deleted under them.
async fn work_of_a_deleted_one_comes_to_nothing(place: Place) {
    let (tally, gate) = (Tally::default(), Gate::shut());
    let activities = ActivityRegistry::builder()
        .register(
            "Work",
            with(&(tally.clone(), gate.clone()), async |(tally, gate), _, who| {
                tally.note(&who);
                gate.pass().await;
                Ok(who)
            }),
        )
        .build();
    let host = Host::new(place, Node::new(orchestrations(), activities).with_workers(1)).await;
    let client = host.client();

    for instance in ["running", "queued", "spared"] {
        host.start(instance, "Work", instance).await;
        host.until_recorded(instance, 1, |kind| matches!(kind, EventKind::ActivityScheduled { .. })).await;
    }
    holds("the first at work", || tally.of("running") == 1).await;
    client.delete_instance("running", true).await.unwrap();
    let deleted = client.delete_instance("queued", true).await.unwrap();
    assert_eq!(deleted.queue_messages_deleted, 1);
    gate.open();

    assert_eq!(host.output("spared").await, "spared");
    assert_eq!(tally.of("queued"), 0);
    assert_eq!(all(&host).await, ["spared"]);
    host.end().await;
}

async fn many_go_by_filter(place: Place) {
    let host = Host::new(place, node()).await;
    let client = host.client();
    for n in 0..3 {
        host.start(&format!("done-{n}"), "Finish", "").await;
        host.output(&format!("done-{n}")).await;
    }
    host.start("failed", "Fail", "").await;
    host.failure("failed").await;
    host.start("root", "Descend", "1").await;
    host.output("root").await;
    waiting(&host, "patient").await;

    let named = |names: &[&str]| InstanceFilter {
        instance_ids: Some(names.iter().map(|name| name.to_string()).collect()),
        ..Default::default()
    };
    let nothing = client.delete_instance_bulk(named(&[])).await.unwrap();
    assert_eq!(nothing.instances_deleted, 0);
    let two = client.delete_instance_bulk(named(&["done-0", "failed", "patient", "nobody"])).await.unwrap();
    assert_eq!((two.instances_deleted, two.executions_deleted), (2, 2), "the running one is passed over");
    assert_eq!(all(&host).await, ["done-1", "done-2", "patient", "root", "root::sub::3"]);

    let long_ago = InstanceFilter { completed_before: Some(now_ms() - 3_600_000), ..Default::default() };
    assert_eq!(client.delete_instance_bulk(long_ago).await.unwrap().instances_deleted, 0);
    let one = InstanceFilter { limit: Some(1), ..named(&["done-1", "done-2"]) };
    assert_eq!(client.delete_instance_bulk(one).await.unwrap().instances_deleted, 1);
    let all_over = InstanceFilter { completed_before: Some(now_ms() + 3_600_000), ..Default::default() };
    assert_eq!(
        client.delete_instance_bulk(all_over).await.unwrap().instances_deleted,
        3,
        "a root and its child"
    );
    assert_eq!(all(&host).await, ["patient"]);
    host.end().await;
}

async fn a_name_can_be_used_again(place: Place) {
    let host = Host::new(place, node()).await;

    host.start("name", "Descend", "0").await;
    assert_eq!(host.output("name").await, "bottom");
    host.client().delete_instance("name", false).await.unwrap();
    host.start("name", "Finish", "second life").await;

    assert_eq!(host.output("name").await, "second life");
    assert_eq!(host.history("name", 1).await.len(), 2);
    assert!(host.client().get_kv_all_values("name").await.unwrap().is_empty());
    host.end().await;
}

async fn what_was_deleted_stays_deleted(place: Place) {
    let mut host = Host::new(place, node()).await;
    host.start("root", "Descend", "1").await;
    host.output("root").await;
    waiting(&host, "patient").await;
    waiting(&host, "spared").await;

    host.client().delete_instance("root", false).await.unwrap();
    host.client().delete_instance("patient", true).await.unwrap();
    host.restart().await;

    assert_eq!(all(&host).await, ["spared"]);
    host.raise("spared", "end", "to you").await;
    assert_eq!(host.output("spared").await, "to you");
    assert_eq!(all(&host).await, ["spared"]);
    host.end().await;
}
