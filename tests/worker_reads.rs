//! What the worker of a runtime reads before it starts an activity, and that nobody else is given the same.

#![cfg(feature = "duroxide")]

mod engine_support;

use duroxide::providers::{Provider, TagFilter, WorkItem};
use engine_support::{HOUR, LOCK, Place, Turn, activity, begin, bounded, enqueue, fetch, heard, raised};
use forebay::{Forebay, Options};

/// As duroxide's worker does it: in one task, nothing between the two.
async fn fetch_and_read(forebay: Forebay) -> Vec<u64> {
    let fetched = bounded(forebay.fetch_work_item(LOCK, HOUR, None, &TagFilter::Any)).await;
    let (item, ..) = fetched.expect("it works").expect("an activity");
    let WorkItem::ActivityExecute { instance, .. } = item else { panic!("{item:?} is no activity") };
    let events = bounded(forebay.read(&instance)).await.expect("it is read");
    events.iter().map(|event| event.event_id).collect()
}

/// One activity waits; the turn behind the one that scheduled it has just been acknowledged.
async fn prepared(forebay: &Forebay) -> (String, Turn) {
    let mut first = Turn::first("order");
    first.work.push(activity("order", 2));
    begin(forebay, "order", first).await;
    enqueue(forebay, raised("order", "bell")).await;
    let turn = fetch(forebay).await.expect("a turn");
    (turn.token, Turn::of(1, vec![heard("order", 2, "bell")]))
}

#[tokio::test]
async fn a_worker_is_given_at_least_what_scheduled_its_activity() {
    let place = Place::new();
    let forebay = place.open(Options::default());
    let (token, second) = prepared(&forebay).await;
    bounded(second.ack(&forebay, &token)).await.expect("it is acknowledged");
    let read = tokio::spawn(fetch_and_read(forebay.clone())).await.expect("it does not panic");
    assert!(read == [1] || read == [1, 2], "{read:?}");
    let read = bounded(forebay.read("order")).await.expect("it is read");
    assert_eq!(read.len(), 2, "anybody else is given all there is");
}

/// Formerly the history that it read lacked the turn, until that was on the disk.
#[tokio::test]
async fn a_task_that_works_on_turns_reads_what_it_wrote() {
    for _ in 0..20 {
        let place = Place::new();
        let forebay = place.open(Options::default());
        let (token, second) = prepared(&forebay).await;
        let by_hand = async move {
            bounded(second.ack(&forebay, &token)).await.expect("it is acknowledged");
            fetch_and_read(forebay).await
        };
        assert_eq!(tokio::spawn(by_hand).await.expect("it does not panic"), [1, 2]);
    }
}

#[tokio::test]
async fn only_the_next_thing_that_is_asked_for_is_the_workers() {
    for _ in 0..20 {
        let place = Place::new();
        let forebay = place.open(Options::default());
        let (token, second) = prepared(&forebay).await;
        let reads = async move {
            let fetched = bounded(forebay.fetch_work_item(LOCK, HOUR, None, &TagFilter::Any)).await;
            fetched.expect("it works").expect("an activity");
            // By somebody else, who is heard of before the read.
            let acknowledged = async { second.ack(&forebay, &token).await };
            bounded(acknowledged).await.expect("it is acknowledged");
            bounded(forebay.read("order")).await.expect("it is read").len()
        };
        assert_eq!(tokio::spawn(reads).await.expect("it does not panic"), 2);
    }
}
