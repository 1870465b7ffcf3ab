//! A batch that is rolled back is nothing to those that neither wrote nor relied on what it wrote: renewals,
//! sweeps, depths, stale tokens, "there is nothing". And what arrived in time counts, however late the writer
//! comes to it. That memory is as if the batch had not been is checked at every step of `provider_model`.

#![cfg(feature = "duroxide")]

mod engine_support;

use std::time::Duration;

use duroxide::providers::{Provider, ProviderAdmin, ProviderError, TagFilter};
use engine_support::polled::{Hold, Polled};
use engine_support::{
    HOUR, LOCK, MILLISECOND, Place, Turn, activity, begin, bounded, completed, depths, enqueue, enqueue_work,
    fetch, fetch_work, fetch_work_as, heard, on_manual_clock, raised, routed, start, started_event,
};
use forebay::clock::ManualClock;
use forebay::{Durability, Forebay, Options};

/// Lets every batch that writes fail, or none.
fn set_writable(forebay: &Forebay, writable: bool) {
    let set = move |c: &rusqlite::Connection| c.pragma_update(None, "query_only", !writable);
    forebay.on_writer_connection(set).expect("the engine runs").expect("it is set");
}

fn assert_rolled_back<T: std::fmt::Debug>(result: Result<T, ProviderError>) {
    let error = result.expect_err("its batch cannot be written");
    assert!(error.is_retryable() && error.message.contains("rolled back"), "{error}");
}

fn assert_invalid(result: Result<(), ProviderError>) {
    let error = result.expect_err("the token is stale");
    assert!(error.message.contains("Invalid lock token") && !error.is_retryable(), "{error}");
}

#[tokio::test]
async fn what_writes_nothing_has_its_own_answer_when_its_batch_is_rolled_back() {
    for durability in [Durability::Full, Durability::Normal] {
        let place = Place::new();
        let forebay = place.open(Options::default().durability(durability));
        begin(&forebay, "order", Turn::first("order")).await;
        begin(&forebay, "other", Turn::first("other")).await;
        enqueue(&forebay, raised("order", "bell")).await;
        enqueue(&forebay, raised("other", "bell")).await;
        for id in 2..=4 {
            enqueue_work(&forebay, activity("order", id)).await;
        }
        enqueue_work(&forebay, routed("order", 5, Some("cart"), None)).await;
        let (turn, given_up) = (fetch(&forebay).await.expect("one"), fetch(&forebay).await.expect("two"));
        let (work, idle) =
            (fetch_work(&forebay).await.expect("one"), fetch_work(&forebay).await.expect("two"));
        let done = fetch_work(&forebay).await.expect("three");
        let owned = fetch_work_as(&forebay, "owner").await.expect("of a session");
        bounded(forebay.ack_work_item(&done.token, None)).await.expect("it is held");

        set_writable(&forebay, false);
        let hold = Hold::on(&forebay);
        let nobodys = TagFilter::tags(["nobody's"]);
        let written = Polled::submitted(forebay.enqueue_for_orchestrator(start("third"), None));
        let acked =
            Polled::submitted(Turn::of(1, vec![heard("order", 2, "ring")]).ack(&forebay, &turn.token));
        let renewed = [
            Polled::submitted(forebay.renew_orchestration_item_lock(&turn.token, HOUR)),
            Polled::submitted(forebay.renew_work_item_lock(&work.token, HOUR)),
            Polled::submitted(forebay.renew_work_item_lock(&owned.token, HOUR)),
            Polled::submitted(forebay.abandon_orchestration_item(&given_up.token, None, false)),
            Polled::submitted(forebay.abandon_work_item(&idle.token, None, false)),
        ];
        let sessions = Polled::submitted(forebay.renew_session_lock(&["owner"], HOUR, HOUR));
        let swept = Polled::submitted(forebay.cleanup_orphaned_sessions(HOUR));
        let counted = Polled::submitted(forebay.get_queue_depths());
        let stale = [
            Polled::submitted(forebay.ack_work_item(&done.token, Some(completed("order", 4)))),
            Polled::submitted(forebay.renew_work_item_lock(&done.token, LOCK)),
            Polled::submitted(forebay.abandon_work_item(&done.token, Some(LOCK), true)),
        ];
        let nothing = Polled::submitted(forebay.fetch_work_item(LOCK, Duration::ZERO, None, &nobodys));
        let duplicate = forebay.append_with_execution("other", 1, vec![started_event("other", 1)]);
        let duplicate = Polled::submitted(duplicate);
        let running = Polled::submitted(forebay.delete_instance("other", false));
        hold.release();

        assert_rolled_back(written.finish());
        assert_rolled_back(acked.finish());
        for renewed in renewed {
            renewed.finish().expect("it writes nothing");
        }
        assert_eq!(sessions.finish(), Ok(1));
        assert_eq!(swept.finish(), Ok(0));
        let counted = counted.finish().expect("they are counted");
        assert_eq!((counted.orchestrator_queue, counted.worker_queue), (1, 1), "what was given up, at once");
        stale.into_iter().for_each(|call| assert_invalid(call.finish()));
        assert!(nothing.finish().expect("there is nothing").is_none());
        let error = duplicate.finish().expect_err("event 1 is there");
        assert!(error.message.contains("duplicate event") && !error.is_retryable(), "{error}");
        let error = running.finish().expect_err("it runs");
        assert!(error.message.contains("still running") && !error.is_retryable(), "{error}");

        set_writable(&forebay, true);
        bounded(Turn::of(1, vec![]).ack(&forebay, &turn.token)).await.expect("it is still leased");
        assert_eq!(fetch(&forebay).await.expect("given up").item.instance, "other");
        assert_eq!(fetch_work(&forebay).await.expect("given up").attempt, 2);
        assert_eq!(depths(&forebay).await, (0, 0));
    }
}

/// duroxide takes any error of a renewal for a cancellation.
#[tokio::test]
async fn a_renewal_does_not_hear_of_a_cancellation_that_was_rolled_back() {
    let place = Place::new();
    let forebay = place.open(Options::default());
    begin(&forebay, "order", Turn::first("order")).await;
    enqueue(&forebay, raised("order", "bell")).await;
    enqueue_work(&forebay, activity("order", 2)).await;
    let (turn, work) = (fetch(&forebay).await.expect("a turn"), fetch_work(&forebay).await.expect("work"));
    let mut cancelling = Turn::of(1, vec![heard("order", 2, "ring")]);
    cancelling.cancelled.push(duroxide::providers::ScheduledActivityIdentifier {
        instance: "order".into(),
        execution_id: 1,
        activity_id: 2,
    });

    set_writable(&forebay, false);
    let hold = Hold::on(&forebay);
    let cancelled = Polled::submitted(cancelling.clone().ack(&forebay, &turn.token));
    let deleted = Polled::submitted(forebay.delete_instance("order", true));
    let renewed = Polled::submitted(forebay.renew_work_item_lock(&work.token, LOCK));
    hold.release();
    assert_rolled_back(cancelled.finish());
    assert_rolled_back(deleted.finish());
    renewed.finish().expect("nothing was cancelled");
    set_writable(&forebay, true);
    bounded(forebay.renew_work_item_lock(&work.token, LOCK)).await.expect("nothing was cancelled");
    bounded(cancelling.ack(&forebay, &turn.token)).await.expect("it is held");
    assert_invalid(bounded(forebay.renew_work_item_lock(&work.token, LOCK)).await);
}

/// The first version left it parked until its own time was up, although there was something for it.
#[tokio::test]
async fn a_fetch_whose_batch_was_rolled_back_does_not_stay_parked_beside_ready_work() {
    let place = Place::new();
    // At `Normal` a fetch shares the batch of what came with it.
    let forebay = place.open(Options::default().durability(Durability::Normal));
    enqueue(&forebay, start("order")).await;
    enqueue_work(&forebay, activity("order", 2)).await;
    // A first attempt is counted ahead, and would write nothing.
    let token = fetch(&forebay).await.expect("a turn").token;
    bounded(forebay.abandon_orchestration_item(&token, None, false)).await.expect("put back");
    let token = fetch_work(&forebay).await.expect("work").token;
    bounded(forebay.abandon_work_item(&token, None, false)).await.expect("put back");
    set_writable(&forebay, false);
    let hold = Hold::on(&forebay);
    let turn = Polled::submitted(forebay.fetch_orchestration_item(LOCK, HOUR, None));
    let work = Polled::submitted(forebay.fetch_work_item(LOCK, HOUR, None, &TagFilter::Any));
    // Fails before anything is matched.
    let append = forebay.append_with_execution("order", 1, vec![started_event("order", 1)]);
    let append = Polled::submitted(append);
    hold.release();
    assert_rolled_back(append.finish());
    // Nothing can be granted either; but they are told.
    assert_rolled_back(turn.finish());
    assert_rolled_back(work.finish());
    set_writable(&forebay, true);
    assert_eq!(fetch(&forebay).await.expect("it is there").attempt, 2);
    assert_eq!(fetch_work(&forebay).await.expect("it is there").attempt, 2);
}

/// A turn and an activity in the hands of the test, on a clock of the test's.
async fn held(options: Options) -> (Forebay, ManualClock, String, String) {
    let clock = ManualClock::new(engine_support::START_MS);
    let forebay = options.clock(clock.clone()).in_memory().expect("it opens");
    begin(&forebay, "order", Turn::first("order")).await;
    enqueue(&forebay, raised("order", "bell")).await;
    enqueue_work(&forebay, activity("order", 2)).await;
    let (turn, work) = (fetch(&forebay).await.expect("a turn"), fetch_work(&forebay).await.expect("work"));
    (forebay, clock, turn.token, work.token)
}

#[tokio::test]
async fn what_arrives_in_time_counts_although_the_writer_was_busy() {
    for batch_ops_max in [1, 2, 100] {
        let (forebay, clock, turn, work) = held(Options::default().batch_ops_max(batch_ops_max)).await;
        clock.advance(LOCK - MILLISECOND);
        let hold = Hold::on(&forebay);
        let before: Vec<_> = (0..5)
            .map(|n| Polled::submitted(forebay.enqueue_for_orchestrator(start(&format!("{n}")), None)))
            .collect();
        let renewed = Polled::submitted(forebay.renew_work_item_lock(&work, 3 * LOCK));
        let acked = Polled::submitted(Turn::of(1, vec![heard("order", 2, "ring")]).ack(&forebay, &turn));
        clock.advance(LOCK);
        hold.release();
        renewed.finish().expect("it came in time");
        acked.finish().expect("it came in time");
        before.into_iter().for_each(|call| call.finish().expect("it is taken"));
        assert!(fetch_work(&forebay).await.is_none(), "it is held");
        bounded(forebay.ack_work_item(&work, None)).await.expect("it is held");
    }
}

#[tokio::test]
async fn what_arrives_too_late_does_not_count_although_nobody_else_has_come() {
    let (forebay, clock, turn, work) = held(Options::default()).await;
    let hold = Hold::on(&forebay);
    clock.advance(LOCK);
    let late = [
        Polled::submitted(forebay.renew_work_item_lock(&work, LOCK)),
        Polled::submitted(forebay.renew_orchestration_item_lock(&turn, LOCK)),
        Polled::submitted(forebay.ack_work_item(&work, Some(completed("order", 2)))),
        Polled::submitted(forebay.abandon_work_item(&work, None, true)),
        Polled::submitted(Turn::of(1, vec![heard("order", 2, "ring")]).ack(&forebay, &turn)),
        Polled::submitted(forebay.abandon_orchestration_item(&turn, None, true)),
    ];
    hold.release();
    late.into_iter().for_each(|call| assert_invalid(call.finish()));
    assert_eq!(fetch(&forebay).await.expect("it is free").attempt, 2);
    assert_eq!(fetch_work(&forebay).await.expect("it is free").attempt, 2);
}

/// What is visible from the start stays so, whatever the clock does before it is given back.
#[tokio::test]
async fn no_delay_is_no_delay_when_the_clock_is_set_back() {
    let (forebay, clock) = on_manual_clock();
    begin(&forebay, "order", Turn::first("order")).await;
    bounded(forebay.enqueue_for_orchestrator(raised("order", "bell"), Some(Duration::ZERO)))
        .await
        .expect("taken");
    enqueue_work(&forebay, activity("order", 2)).await;
    enqueue(&forebay, engine_support::timer("order", 3, engine_support::START_MS)).await;
    for _ in 0..3 {
        let (turn, work) =
            (fetch(&forebay).await.expect("a turn"), fetch_work(&forebay).await.expect("work"));
        assert_eq!(turn.item.messages.len(), 2, "both are visible");
        clock.set_wall_ms(engine_support::START_MS - 1_000_000);
        bounded(forebay.abandon_orchestration_item(&turn.token, Some(Duration::ZERO), false))
            .await
            .expect("held");
        bounded(forebay.abandon_work_item(&work.token, Some(Duration::ZERO), false)).await.expect("held");
        clock.set_wall_ms(engine_support::START_MS - 2_000_000);
    }
}

/// What is counted ahead in a row is put right by a close, also after batches that were rolled back.
#[tokio::test]
async fn attempts_are_exact_after_a_close_whatever_was_rolled_back() {
    for what in ["a grant", "a deletion", "a grant that is taken back, twice"] {
        let mut given = 0;
        let place = Place::new();
        let forebay = place.open(Options::default());
        begin(&forebay, "order", Turn::first("order")).await;
        enqueue(&forebay, raised("order", "bell")).await;
        enqueue_work(&forebay, activity("order", 2)).await;
        set_writable(&forebay, false);
        let hold = Hold::on(&forebay);
        let written = Polled::submitted(forebay.enqueue_for_orchestrator(start("third"), None));
        match what {
            "a deletion" => {
                let deleted = Polled::submitted(forebay.delete_instance("order", true));
                hold.release();
                deleted.finish().expect_err("nothing can be written");
            }
            _ => {
                let turn = Polled::submitted(forebay.fetch_orchestration_item(LOCK, HOUR, None));
                let work = Polled::submitted(forebay.fetch_work_item(LOCK, HOUR, None, &TagFilter::Any));
                if what != "a grant" {
                    drop((turn, work));
                    hold.release();
                } else {
                    hold.release();
                    // What they were granted beside it needs no write: they are served by the next batch.
                    assert_eq!(turn.finish().expect("it works").expect("a turn").2, 1);
                    assert_eq!(work.finish().expect("it works").expect("an activity").2, 1);
                    given = 1;
                }
            }
        }
        assert_rolled_back(written.finish());
        assert_rolled_back(bounded(forebay.enqueue_for_orchestrator(start("third"), None)).await);
        set_writable(&forebay, true);
        forebay.close().expect("it closes");
        let forebay = place.open(Options::default());
        assert_eq!(fetch(&forebay).await.expect("it is there").attempt, given + 1, "{what}");
        assert_eq!(fetch_work(&forebay).await.expect("it is there").attempt, given + 1, "{what}");
    }
}
