//! Everything acknowledged is there after a close and an open, and after the last handle was dropped; leases
//! are free again, the attempts they were counted with are not, and tokens from before name nothing.

#![cfg(feature = "duroxide")]

mod engine_support;

use std::time::Duration;

use duroxide::EventKind;
use duroxide::providers::{Provider, ProviderAdmin, TagFilter, WorkItem};
use engine_support::{
    Fetched, HOUR, LOCK, MILLISECOND, Place, START_MS, Turn, activity, begin, bounded, completed, depths,
    enqueue, enqueue_work, event, fetch, fetch_work, fetch_work_as, fetched, id_of, raised, routed, start,
    timer,
};
use forebay::clock::ManualClock;
use forebay::{Forebay, Options};

/// The two ways in which an engine goes away.
#[derive(Debug, Clone, Copy)]
enum Gone {
    Closed,
    Dropped,
}

const WAYS: [Gone; 2] = [Gone::Closed, Gone::Dropped];

struct Scene {
    place: Place,
    clock: ManualClock,
}

impl Scene {
    fn new() -> Self {
        Self { place: Place::new(), clock: ManualClock::new(START_MS) }
    }

    fn open(&self) -> Forebay {
        self.place.open(Options::default().clock(self.clock.clone()))
    }

    fn reopen(&self, forebay: Forebay, gone: Gone) -> Forebay {
        if let Gone::Closed = gone {
            forebay.close().expect("it closes");
        }
        drop(forebay);
        self.open()
    }
}

#[tokio::test]
async fn messages_in_their_order() {
    for gone in WAYS {
        let scene = Scene::new();
        let forebay = scene.open();
        for n in 0..30 {
            enqueue(&forebay, start(&format!("order-{n}"))).await;
        }
        for n in 0..10 {
            enqueue(&forebay, raised("order-7", &format!("bell-{n}"))).await;
        }
        let forebay = scene.reopen(forebay, gone);
        assert_eq!(depths(&forebay).await, (40, 0), "{gone:?}");
        for n in 0..30 {
            let turn = fetch(&forebay).await.expect("it is there");
            assert_eq!(turn.item.instance, format!("order-{n}"));
            assert_eq!(turn.attempt, 1);
            let bells = (0..10).map(|n| raised("order-7", &format!("bell-{n}")));
            let bells: Vec<_> = if n == 7 { bells.collect() } else { Vec::new() };
            assert_eq!(turn.item.messages[1..], bells);
        }
        assert!(fetch(&forebay).await.is_none());
    }
}

/// What is enqueued after a reopen comes after what was there before.
#[tokio::test]
async fn the_order_goes_on() {
    for gone in WAYS {
        let scene = Scene::new();
        let mut forebay = scene.open();
        begin(&forebay, "order", Turn::first("order")).await;
        for round in 0..5 {
            for n in 0..4 {
                enqueue(&forebay, raised("order", &format!("{round}-{n}"))).await;
                enqueue_work(&forebay, activity("order", round * 4 + n)).await;
            }
            forebay = scene.reopen(forebay, gone);
        }
        let expected: Vec<_> =
            (0..5).flat_map(|round| (0..4).map(move |n| raised("order", &format!("{round}-{n}")))).collect();
        assert_eq!(fetch(&forebay).await.expect("it is there").item.messages, expected, "{gone:?}");
        for id in 0..20 {
            assert_eq!(id_of(&fetch_work(&forebay).await.expect("it is there").item), id);
        }
    }
}

#[tokio::test]
async fn delayed_messages_and_timers() {
    for gone in WAYS {
        let scene = Scene::new();
        let forebay = scene.open();
        let mut turn = Turn::first("order");
        turn.messages.push(timer("order", 2, START_MS + 60_000));
        turn.messages.push(timer("order", 3, START_MS + 120_000));
        begin(&forebay, "order", turn).await;
        let delayed = forebay.enqueue_for_orchestrator(start("later"), Some(Duration::from_secs(90)));
        bounded(delayed).await.expect("it is taken");
        // Put off: an abandoned activity.
        enqueue_work(&forebay, activity("order", 9)).await;
        let work = fetch_work(&forebay).await.expect("it is there");
        bounded(forebay.abandon_work_item(&work.token, Some(Duration::from_secs(30)), false))
            .await
            .expect("it is put off");

        // Time passes while nobody has the file open.
        let forebay = scene.reopen(forebay, gone);
        assert!(fetch(&forebay).await.is_none(), "nothing is due, {gone:?}");
        assert!(fetch_work(&forebay).await.is_none());
        if let Gone::Closed = gone {
            forebay.close().expect("it closes");
        }
        drop(forebay);
        scene.clock.advance(Duration::from_secs(60));
        let forebay = scene.open();
        let work = fetch_work(&forebay).await.expect("it fell due meanwhile");
        assert_eq!((id_of(&work.item), work.attempt), (9, 2));
        let turn = fetch(&forebay).await.expect("the first timer fired");
        assert_eq!(turn.item.messages, [timer("order", 2, START_MS + 60_000)]);
        bounded(Turn::of(1, vec![]).ack(&forebay, &turn.token)).await.expect("it is acknowledged");

        scene.clock.advance(Duration::from_millis(29_999));
        assert!(fetch(&forebay).await.is_none(), "not a millisecond too early");
        scene.clock.advance(MILLISECOND);
        assert_eq!(fetch(&forebay).await.expect("it is due").item.instance, "later");
        scene.clock.advance(Duration::from_secs(30));
        let turn = fetch(&forebay).await.expect("the second timer fired");
        assert_eq!(turn.item.messages, [timer("order", 3, START_MS + 120_000)]);
    }
}

#[tokio::test]
async fn leases_are_free_and_their_attempts_are_counted() {
    for gone in WAYS {
        let scene = Scene::new();
        let mut forebay = scene.open();
        begin(&forebay, "order", Turn::first("order")).await;
        enqueue(&forebay, raised("order", "bell")).await;
        enqueue_work(&forebay, activity("order", 2)).await;
        let mut stale: Vec<(String, String)> = Vec::new();
        for attempt in 1..=4 {
            let turn = fetch(&forebay).await.expect("its lease is free");
            let work = fetch_work(&forebay).await.expect("its lease is free");
            assert_eq!((turn.attempt, work.attempt), (attempt, attempt), "{gone:?}");
            assert!(fetch(&forebay).await.is_none() && fetch_work(&forebay).await.is_none());
            for (turn, work) in &stale {
                assert_stale(&forebay, turn, work).await;
            }
            stale.push((turn.token, work.token));
            forebay = scene.reopen(forebay, gone);
        }
    }
}

/// Tokens of an engine that is gone do nothing to what is leased now.
async fn assert_stale(forebay: &Forebay, turn: &str, work: &str) {
    let refusals = [
        bounded(Turn::of(1, vec![]).ack(forebay, turn)).await,
        bounded(forebay.abandon_orchestration_item(turn, None, false)).await,
        bounded(forebay.renew_orchestration_item_lock(turn, HOUR)).await,
        bounded(forebay.ack_work_item(work, Some(completed("order", 2)))).await,
        bounded(forebay.abandon_work_item(work, None, false)).await,
        bounded(forebay.renew_work_item_lock(work, HOUR)).await,
    ];
    for refusal in refusals {
        let error = refusal.expect_err("it is stale");
        assert!(error.message.contains("Invalid lock token") && !error.is_retryable(), "{error}");
    }
}

#[tokio::test]
async fn activities_keep_their_session_and_tag() {
    for gone in WAYS {
        let scene = Scene::new();
        let forebay = scene.open();
        enqueue_work(&forebay, routed("order", 1, Some("cart"), None)).await;
        enqueue_work(&forebay, routed("order", 2, None, Some("gpu"))).await;
        enqueue_work(&forebay, routed("order", 3, Some("cart"), Some("gpu"))).await;
        // Claims the session: that is forgotten, the session of the items is not.
        assert!(fetch_work_as(&forebay, "first").await.is_some());

        let forebay = scene.reopen(forebay, gone);
        let tagged = TagFilter::tags(["gpu"]);
        let alone = bounded(forebay.fetch_work_item(LOCK, Duration::ZERO, None, &tagged)).await;
        assert_eq!(fetched(alone).map(|work| work.item), Some(routed("order", 2, None, Some("gpu"))));
        assert!(fetch_work(&forebay).await.is_none(), "the others belong to a session, {gone:?}");
        let work = fetch_work_as(&forebay, "second").await.expect("nobody owns the session");
        assert_eq!((work.item, work.attempt), (routed("order", 1, Some("cart"), None), 2));
        assert!(fetch_work_as(&forebay, "first").await.is_none(), "the session has a new owner");
        let work = fetch_work_as(&forebay, "second").await.expect("it is the owner");
        assert_eq!((work.item, work.attempt), (routed("order", 3, Some("cart"), Some("gpu")), 1));
    }
}

fn set(instance: &str, execution: u64, id: u64, key: &str, value: &str) -> duroxide::Event {
    let kind =
        EventKind::KeyValueSet { key: key.into(), value: value.into(), last_updated_at_ms: START_MS + id };
    event(instance, execution, id, kind)
}

fn status(instance: &str, execution: u64, id: u64, status: Option<&str>) -> duroxide::Event {
    event(instance, execution, id, EventKind::CustomStatusUpdated { status: status.map(Into::into) })
}

/// An instance with three executions, key-values from all of them, a custom status and a child.
async fn long_lived(forebay: &Forebay) {
    let mut first = Turn::first("order").ending("ContinuedAsNew");
    first.history.extend([set("order", 1, 2, "kept", "1"), set("order", 1, 3, "cleared", "1")]);
    first.history.push(set("order", 1, 4, "changed", "1"));
    first.history.push(status("order", 1, 5, Some("packing")));
    first.metadata.pinned_duroxide_version = Some(semver::Version::new(0, 1, 30));
    begin(forebay, "order", first).await;
    for execution in 2..=3 {
        let again = WorkItem::ContinueAsNew {
            instance: "order".into(),
            orchestration: "Orders".into(),
            input: execution.to_string(),
            version: Some("1.0.0".into()),
            parent_instance: None,
            parent_id: None,
            parent_execution_id: None,
            carry_forward_events: vec![("bell".into(), "ring".into())],
            initial_custom_status: None,
        };
        enqueue(forebay, again).await;
        let turn = fetch(forebay).await.expect("it goes on");
        let mut next = Turn::starting("order", execution);
        next.history.push(set("order", execution, 2, "changed", &execution.to_string()));
        if execution == 2 {
            next = next.ending("ContinuedAsNew");
        } else {
            let kind = EventKind::KeyValueCleared { key: "cleared".into() };
            next.history.push(event("order", execution, 3, kind));
            next.history.push(status("order", execution, 4, Some("sent")));
        }
        bounded(next.ack(forebay, &turn.token)).await.expect("it is acknowledged");
    }
    let mut child = Turn::first("parcel").ending("Completed");
    child.metadata.parent_instance_id = Some("order".into());
    begin(forebay, "parcel", child).await;
    let mut grandchild = Turn::first("label");
    grandchild.metadata.parent_instance_id = Some("parcel".into());
    begin(forebay, "label", grandchild).await;
}

/// Everything that can be read of an instance, as text.
async fn portrait(forebay: &Forebay) -> String {
    let mut lines = vec![
        format!("{:?}", bounded(forebay.list_instances()).await),
        format!("{:?}", bounded(forebay.list_instances_by_status("Running")).await),
        format!("{:?}", bounded(forebay.get_system_metrics()).await),
    ];
    for id in ["order", "parcel", "label"] {
        lines.push(format!("{:?}", bounded(forebay.get_instance_info(id)).await));
        lines.push(format!("{:?}", bounded(forebay.get_parent_id(id)).await));
        lines.push(format!("{:?}", bounded(forebay.list_children(id)).await));
        lines.push(format!("{:?}", bounded(forebay.get_instance_tree(id)).await));
        lines.push(format!("{:?}", bounded(forebay.get_custom_status(id, 0)).await));
        let mut values: Vec<_> =
            bounded(forebay.get_kv_all_values(id)).await.expect("they are read").into_iter().collect();
        values.sort();
        lines.push(format!("{values:?}"));
        lines.push(format!("{:?}", bounded(forebay.get_instance_stats(id)).await));
        let executions = bounded(forebay.list_executions(id)).await.expect("they are read");
        lines.push(format!("{executions:?}"));
        for execution in executions {
            lines.push(format!("{:?}", bounded(forebay.get_execution_info(id, execution)).await));
            lines.push(format!("{:?}", bounded(forebay.read_with_execution(id, execution)).await));
        }
        lines.push(format!("{:?}", bounded(forebay.read(id)).await));
    }
    lines.join("\n")
}

#[tokio::test]
async fn instances_with_all_they_own() {
    for gone in WAYS {
        let scene = Scene::new();
        let forebay = scene.open();
        long_lived(&forebay).await;
        let before = portrait(&forebay).await;
        assert!(!before.contains("Err("), "{before}");
        assert!(before.contains("Ok(Some((Some(\"sent\"), 2)))"), "status and version: {before}");
        assert!(before.contains(r#"[("changed", "3"), ("kept", "1")]"#), "base and delta: {before}");
        assert!(before.contains(r#"all_ids: ["order", "parcel", "label"]"#), "parent links: {before}");

        let forebay = scene.reopen(forebay, gone);
        assert_eq!(portrait(&forebay).await, before, "{gone:?}");

        // A turn sees the key-values from before its execution, and what it did itself is still to be folded.
        enqueue(&forebay, raised("order", "bell")).await;
        let Fetched { item, token, .. } = fetch(&forebay).await.expect("it is there");
        assert_eq!((item.execution_id, item.history.len()), (3, 4));
        let mut base: Vec<_> = item.kv_snapshot.iter().map(|(key, entry)| (&**key, &*entry.value)).collect();
        base.sort_unstable();
        assert_eq!(base, [("changed", "2"), ("cleared", "1"), ("kept", "1")]);
        let forebay = scene.reopen(forebay, gone);
        assert_stale(&forebay, &token, &token).await;
        let turn = fetch(&forebay).await.expect("it is free again");
        let mut last = Turn::of(3, vec![]).ending("Completed");
        last.history.push(status("order", 3, 5, None));
        bounded(last.ack(&forebay, &turn.token)).await.expect("it is acknowledged");
        let forebay = scene.reopen(forebay, gone);
        let values = bounded(forebay.get_kv_all_values("order")).await.expect("they are read");
        assert_eq!(values.len(), 2, "the cleared key is gone for good: {values:?}");
        assert_eq!(bounded(forebay.get_custom_status("order", 2)).await, Ok(Some((None, 3))));
    }
}
