//! Deletion takes children that have not begun, and bulk operations come to an end when they are done in portions.

#![cfg(feature = "duroxide")]

mod engine_support;

use duroxide::EventKind;
use duroxide::providers::{InstanceFilter, Provider, ProviderAdmin, PruneOptions, WorkItem};
use engine_support::{Place, Turn, begin, bounded, completed, depths, enqueue, event, fetch, start};
use forebay::{Forebay, Options};

const CHILD: &str = "parent::sub::2";

fn child_start(child: &str) -> WorkItem {
    let WorkItem::StartOrchestration { instance, orchestration, input, version, execution_id, .. } =
        start(child)
    else {
        unreachable!("start() makes starts")
    };
    WorkItem::StartOrchestration {
        instance,
        orchestration,
        input,
        version,
        parent_instance: Some("parent".into()),
        parent_id: Some(2),
        parent_execution_id: Some(1),
        execution_id,
    }
}

fn scheduled(child: &str) -> EventKind {
    EventKind::SubOrchestrationScheduled { name: "Orders".into(), instance: child.into(), input: "{}".into() }
}

/// A parent that has scheduled a child, by the runtime's own name for it, which is not started yet.
fn scheduling() -> Turn {
    let mut turn = Turn::first("parent");
    turn.history.push(event("parent", 1, 2, scheduled("sub::2")));
    turn.messages.push(child_start(CHILD));
    turn
}

async fn tree(forebay: &Forebay) -> Vec<String> {
    bounded(forebay.get_instance_tree("parent")).await.expect("it is read").all_ids
}

/// Waiting in the queue, after a reopening too; or in somebody's hands.
#[tokio::test]
async fn a_child_that_has_not_begun_goes_with_its_parent() {
    for (reopened, leased) in [(false, false), (true, false), (false, true), (true, true)] {
        let place = Place::new();
        let mut forebay = place.open(Options::default());
        begin(&forebay, "parent", scheduling()).await;
        if reopened {
            forebay.close().expect("it closes");
            forebay = place.open(Options::default());
        }
        let turn = if leased { Some(fetch(&forebay).await.expect("the start is there")) } else { None };
        assert_eq!(tree(&forebay).await, ["parent", CHILD]);

        let alone = bounded(forebay.delete_instances_atomic(&["parent".into()], true)).await;
        let refusal = alone.expect_err("it would leave a child behind");
        assert!(refusal.message.contains(CHILD), "{refusal}");
        let gone = bounded(forebay.delete_instance("parent", true)).await.expect("it goes");
        assert_eq!((gone.instances_deleted, gone.queue_messages_deleted), (1, 1));

        assert!(fetch(&forebay).await.is_none());
        assert_eq!(depths(&forebay).await, (0, 0));
        if let Some(turn) = turn {
            let late = bounded(Turn::first(CHILD).ack(&forebay, &turn.token)).await;
            late.expect_err("nobody brings it back");
        }
        assert!(bounded(forebay.list_instances()).await.expect("it is read").is_empty());
        forebay.close().expect("it closes");
        assert!(fetch(&place.open(Options::default())).await.is_none());
    }
}

/// As with any child that runs: the tree of a finished parent stays, unless by force.
#[tokio::test]
async fn a_child_that_has_not_begun_counts_as_running() {
    let forebay = Forebay::in_memory().expect("memory opens");
    begin(&forebay, "parent", scheduling().ending("Completed")).await;
    let refusal = bounded(forebay.delete_instance("parent", false)).await.expect_err("its child will run");
    assert!(refusal.message.contains("still running") && refusal.message.contains(CHILD), "{refusal}");

    // It does not keep its place under the limit of a bulk deletion.
    begin_beside(&forebay, "other").await;
    let one = InstanceFilter { limit: Some(1), ..InstanceFilter::default() };
    let gone = bounded(forebay.delete_instance_bulk(one.clone())).await.expect("it works");
    assert_eq!(gone.instances_deleted, 1);
    assert_eq!(bounded(forebay.list_instances()).await.expect("it is read"), ["parent"]);

    let turn = fetch(&forebay).await.expect("the start is there");
    let mut first = Turn::first(CHILD).ending("Completed");
    first.metadata.parent_instance_id = Some("parent".into());
    bounded(first.ack(&forebay, &turn.token)).await.expect("it runs");
    assert_eq!(tree(&forebay).await, ["parent", CHILD]);
    let gone = bounded(forebay.delete_instance_bulk(one)).await.expect("it works");
    assert_eq!(gone.instances_deleted, 2);
}

/// What somebody else starts under that name first is not the parent's.
#[tokio::test]
async fn a_start_of_the_same_name_stays() {
    let forebay = Forebay::in_memory().expect("memory opens");
    enqueue(&forebay, start("parent")).await;
    let turn = fetch(&forebay).await.expect("it is there");
    enqueue(&forebay, start("shared")).await;
    let mut ack = Turn::first("parent");
    ack.history.push(event("parent", 1, 2, scheduled("shared")));
    ack.messages.push(child_start("shared"));
    bounded(ack.ack(&forebay, &turn.token)).await.expect("it is written");
    assert_eq!(tree(&forebay).await, ["parent"]);
    bounded(forebay.delete_instance("parent", true)).await.expect("it goes");
    assert_eq!(fetch(&forebay).await.expect("it stays").item.instance, "shared");
}

/// Begins and ends an instance while another waits to be started.
async fn begin_beside(forebay: &Forebay, instance: &str) {
    let waiting = fetch(forebay).await.expect("the one that waits");
    begin(forebay, instance, Turn::first(instance).ending("Completed")).await;
    bounded(forebay.abandon_orchestration_item(&waiting.token, None, true)).await.expect("it goes back");
}

/// An instance with nothing to prune is processed, and does not keep its place under the limit.
#[tokio::test]
async fn pruning_in_portions_reaches_everybody() {
    let forebay = Forebay::in_memory().expect("memory opens");
    // More than one page of those that have nothing to prune come first.
    for n in 0..300 {
        let id = format!("single-{n}");
        begin(&forebay, &id, Turn::first(&id).ending("Completed")).await;
    }
    for id in ["a", "b", "c"] {
        let mut first = Turn::first(id).ending("ContinuedAsNew");
        first.messages.push(engine_support::continued(id, "{}"));
        begin(&forebay, id, first).await;
        let next = fetch(&forebay).await.expect("the next execution");
        bounded(Turn::starting(id, 2).ack(&forebay, &next.token)).await.expect("it is written");
    }
    let keep = PruneOptions { keep_last: Some(1), ..PruneOptions::default() };
    let mut pruned = Vec::new();
    for _ in 0..3 {
        let filter = InstanceFilter { limit: Some(2), ..InstanceFilter::default() };
        let result = bounded(forebay.prune_executions_bulk(filter, keep.clone())).await.expect("it works");
        pruned.push((result.instances_processed, result.executions_deleted));
    }
    assert_eq!(pruned, [(302, 2), (303, 1), (303, 0)]);
    let named = InstanceFilter {
        instance_ids: Some(vec!["single-1".into(), "c".into(), "nobody".into()]),
        limit: Some(1),
        ..InstanceFilter::default()
    };
    let result = bounded(forebay.prune_executions_bulk(named, keep)).await.expect("it works");
    assert_eq!((result.instances_processed, result.executions_deleted), (2, 0));
}

/// An output belongs to a status.
#[tokio::test]
async fn an_output_without_a_status_is_not_stored() {
    let forebay = Forebay::in_memory().expect("memory opens");
    let mut first = Turn::first("order");
    first.metadata.output = Some("too early".into());
    begin(&forebay, "order", first).await;
    let output = async || bounded(forebay.get_instance_info("order")).await.expect("it is there").output;
    assert_eq!(output().await, None);
    enqueue(&forebay, completed("order", 2)).await;
    let turn = fetch(&forebay).await.expect("it is there");
    let mut second = Turn::of(1, vec![]);
    second.metadata.output = Some("still too early".into());
    bounded(second.ack(&forebay, &turn.token)).await.expect("it is written");
    assert_eq!(output().await, None);
    let info = bounded(forebay.get_execution_info("order", 1)).await.expect("it is there");
    assert_eq!((info.status.as_str(), info.output), ("Running", None));
}

/// Nothing is written, so no commit takes the number that a reader could wait for.
#[tokio::test]
async fn who_reads_what_was_not_there_to_be_deleted_does_not_wait() {
    let place = Place::new();
    let forebay = place.open(Options::default());
    let deleted = bounded(forebay.delete_instances_atomic(&["nobody".into()], true)).await.expect("it works");
    assert_eq!(deleted.instances_deleted, 0);
    assert!(bounded(forebay.read("nobody")).await.expect("it is read").is_empty());
    assert_eq!(bounded(forebay.get_custom_status("nobody", 0)).await.expect("it is read"), None);
    forebay.close().expect("it closes");
}
