//! Leases end exactly when they were said to, on a clock that no administrator can set; what is stale is
//! refused; and what was deleted is gone for those who still hold it.

#![cfg(feature = "duroxide")]

mod engine_support;

use std::time::Duration;

use duroxide::EventKind;
use duroxide::providers::{Provider, ProviderAdmin, ProviderError, TagFilter, WorkItem};
use engine_support::polled::uncollected;
use engine_support::{
    HOUR, LOCK, MILLISECOND, Place, START_MS, Turn, activity, begin, bounded, completed, depths, enqueue,
    enqueue_work, event, fetch, fetch_work, fetch_work_as, heard, on_manual_clock, raised, routed, timer,
};
use forebay::clock::ManualClock;
use forebay::{Forebay, Options};

const DAY_MS: u64 = 86_400_000;

fn assert_invalid(result: Result<(), ProviderError>) {
    let error = result.expect_err("the token is stale");
    assert!(error.message.contains("Invalid lock token"), "{error}");
    assert!(!error.is_retryable());
}

/// Everything that can be done with a token is refused.
async fn assert_stale(forebay: &Forebay, turn: &str, work: &str) {
    assert_invalid(bounded(Turn::of(1, vec![heard("order", 99, "late")]).ack(forebay, turn)).await);
    assert_invalid(bounded(forebay.abandon_orchestration_item(turn, None, true)).await);
    assert_invalid(bounded(forebay.renew_orchestration_item_lock(turn, HOUR)).await);
    assert_invalid(bounded(forebay.ack_work_item(work, Some(completed("order", 2)))).await);
    assert_invalid(bounded(forebay.abandon_work_item(work, None, true)).await);
    assert_invalid(bounded(forebay.renew_work_item_lock(work, HOUR)).await);
}

/// One message and one activity of an instance that runs.
async fn waiting(forebay: &Forebay) {
    begin(forebay, "order", Turn::first("order")).await;
    enqueue(forebay, raised("order", "bell")).await;
    enqueue_work(forebay, activity("order", 2)).await;
}

#[tokio::test]
async fn a_lease_is_over_at_its_deadline_and_not_before() {
    let (forebay, clock) = on_manual_clock();
    waiting(&forebay).await;
    for attempt in 1..=5 {
        let turn = fetch(&forebay).await.expect("it is free");
        let work = fetch_work(&forebay).await.expect("it is free");
        assert_eq!((turn.attempt, work.attempt), (attempt, attempt));
        clock.advance(LOCK - MILLISECOND);
        assert!(fetch(&forebay).await.is_none() && fetch_work(&forebay).await.is_none(), "still leased");
        clock.advance(MILLISECOND);
        assert_stale(&forebay, &turn.token, &work.token).await;
    }
    assert_eq!(bounded(forebay.read("order")).await.expect("it is read").len(), 1, "nobody wrote anything");
    assert_eq!(depths(&forebay).await, (1, 1));
}

#[tokio::test]
async fn the_last_moment_counts() {
    let (forebay, clock) = on_manual_clock();
    waiting(&forebay).await;
    let (turn, work) = (fetch(&forebay).await.expect("a turn"), fetch_work(&forebay).await.expect("work"));
    clock.advance(LOCK - MILLISECOND);
    let done = Turn::of(1, vec![heard("order", 2, "ring")]).ack(&forebay, &turn.token);
    bounded(done).await.expect("a millisecond is enough");
    bounded(forebay.ack_work_item(&work.token, None)).await.expect("a millisecond is enough");
}

#[tokio::test]
async fn a_renewal_counts_from_when_it_is_made() {
    let (forebay, clock) = on_manual_clock();
    waiting(&forebay).await;
    let (turn, work) = (fetch(&forebay).await.expect("a turn"), fetch_work(&forebay).await.expect("work"));
    for _ in 0..10 {
        clock.advance(LOCK - MILLISECOND);
        bounded(forebay.renew_orchestration_item_lock(&turn.token, LOCK)).await.expect("renewed");
        bounded(forebay.renew_work_item_lock(&work.token, LOCK)).await.expect("renewed");
    }
    clock.advance(LOCK - MILLISECOND);
    assert!(fetch(&forebay).await.is_none() && fetch_work(&forebay).await.is_none(), "still leased");
    // It may be shortened as well.
    bounded(forebay.renew_orchestration_item_lock(&turn.token, 2 * MILLISECOND)).await.expect("renewed");
    bounded(forebay.renew_work_item_lock(&work.token, 2 * MILLISECOND)).await.expect("renewed");
    clock.advance(2 * MILLISECOND);
    assert_stale(&forebay, &turn.token, &work.token).await;
    let (turn, work) = (fetch(&forebay).await.expect("a turn"), fetch_work(&forebay).await.expect("work"));
    assert_eq!((turn.attempt, work.attempt), (2, 2));
}

#[tokio::test]
async fn leases_for_no_time_and_for_ever() {
    let (forebay, clock) = on_manual_clock();
    waiting(&forebay).await;
    for attempt in 1..=3 {
        let fetch = forebay.fetch_orchestration_item(Duration::ZERO, Duration::ZERO, None);
        let (_, token, found) = bounded(fetch).await.expect("it works").expect("it is there");
        assert_eq!(found, attempt);
        assert_invalid(bounded(forebay.renew_orchestration_item_lock(&token, HOUR)).await);
    }
    let fetch_for_ever = forebay.fetch_orchestration_item(Duration::MAX, Duration::MAX, None);
    let (_, token, _) = bounded(fetch_for_ever).await.expect("it works").expect("it is there");
    clock.advance(Duration::from_secs(1 << 40));
    assert!(fetch(&forebay).await.is_none());
    bounded(forebay.renew_orchestration_item_lock(&token, Duration::MAX)).await.expect("renewed");
}

#[tokio::test]
async fn a_jump_of_the_wall_clock_ends_no_lease() {
    for wall_ms in [START_MS + 400 * DAY_MS, START_MS - 400 * DAY_MS, 0, u64::MAX] {
        let (forebay, clock) = on_manual_clock();
        waiting(&forebay).await;
        enqueue_work(&forebay, routed("order", 3, Some("cart"), None)).await;
        let turn = fetch(&forebay).await.expect("a turn");
        let work = fetch_work(&forebay).await.expect("an activity");
        let owned = fetch_work_as(&forebay, "owner").await.expect("an activity of a session");
        clock.set_wall_ms(wall_ms);
        assert!(fetch(&forebay).await.is_none() && fetch_work(&forebay).await.is_none(), "at {wall_ms}");
        assert_eq!(
            bounded(forebay.renew_session_lock(&["owner"], LOCK, HOUR)).await,
            Ok(1),
            "the session is still owned at {wall_ms}"
        );
        clock.advance(LOCK - MILLISECOND);
        bounded(forebay.renew_work_item_lock(&owned.token, LOCK)).await.expect("it is held");
        bounded(forebay.ack_work_item(&work.token, None)).await.expect("it is held");
        bounded(Turn::of(1, vec![]).ack(&forebay, &turn.token)).await.expect("it is held");
    }
}

#[tokio::test]
async fn a_jump_of_the_wall_clock_loses_no_timer() {
    let (forebay, clock) = on_manual_clock();
    let mut turn = Turn::first("order");
    turn.messages.extend((1..=3).map(|n| timer("order", n + 1, START_MS + n * DAY_MS)));
    begin(&forebay, "order", turn).await;
    let fired = async |expected: Option<u64>| {
        let turn = fetch(&forebay).await;
        assert_eq!(turn.as_ref().map(|turn| engine_support::id_of(&turn.item.messages[0])), expected);
        if let Some(turn) = turn {
            bounded(Turn::of(1, vec![]).ack(&forebay, &turn.token)).await.expect("it is acknowledged");
        }
    };
    fired(None).await;
    clock.set_wall_ms(START_MS - 10 * DAY_MS);
    fired(None).await;
    clock.advance(Duration::from_millis(10 * DAY_MS));
    fired(None).await;
    clock.set_wall_ms(START_MS + DAY_MS);
    fired(Some(2)).await;
    clock.set_wall_ms(START_MS);
    fired(None).await;
    clock.set_wall_ms(START_MS + 2 * DAY_MS);
    fired(Some(3)).await;
    clock.advance(Duration::from_millis(DAY_MS));
    fired(Some(4)).await;
    fired(None).await;
}

/// What nobody has delayed is there at once, whatever the wall clock has been before.
#[tokio::test]
async fn a_wall_clock_set_back_delays_nothing_that_was_there() {
    for end in ["abandoned", "expired", "dropped"] {
        let (forebay, clock) = on_manual_clock();
        waiting(&forebay).await;
        if end == "dropped" {
            let turn = uncollected(&forebay, forebay.fetch_orchestration_item(LOCK, HOUR, None)).await;
            let work = forebay.fetch_work_item(LOCK, HOUR, None, &TagFilter::Any);
            let work = uncollected(&forebay, work).await;
            clock.set_wall_ms(START_MS - DAY_MS);
            drop((turn, work));
        } else {
            let turn = fetch(&forebay).await.expect("a turn");
            let work = fetch_work(&forebay).await.expect("an activity");
            clock.set_wall_ms(START_MS - DAY_MS);
            if end == "abandoned" {
                bounded(forebay.abandon_orchestration_item(&turn.token, None, false)).await.expect("it is");
                bounded(forebay.abandon_work_item(&work.token, None, false)).await.expect("it is");
            } else {
                clock.advance(LOCK);
            }
        }
        assert!(fetch(&forebay).await.is_some(), "the message has to wait for a day after it was {end}");
        assert!(
            fetch_work(&forebay).await.is_some(),
            "the activity has to wait for a day after it was {end}"
        );
    }
}

/// The same over a restart: a machine that comes up with its clock a day behind.
#[tokio::test]
async fn a_wall_clock_set_back_over_a_restart_delays_nothing_that_was_there() {
    let place = Place::new();
    let clock = ManualClock::new(START_MS);
    let forebay = place.open(Options::default().clock(clock.clone()));
    waiting(&forebay).await;
    forebay.close().expect("it closes");
    clock.set_wall_ms(START_MS - DAY_MS);
    let forebay = place.open(Options::default().clock(clock));
    assert!(fetch(&forebay).await.is_some(), "the message has to wait for a day");
    assert!(fetch_work(&forebay).await.is_some(), "the activity has to wait for a day");
}

#[tokio::test]
async fn a_stale_token_does_not_touch_the_lease_of_today() {
    let (forebay, clock) = on_manual_clock();
    waiting(&forebay).await;
    let stale_turn = fetch(&forebay).await.expect("a turn").token;
    let stale_work = fetch_work(&forebay).await.expect("an activity").token;
    clock.advance(LOCK);
    let (turn, work) = (fetch(&forebay).await.expect("a turn"), fetch_work(&forebay).await.expect("work"));
    assert_ne!((&turn.token, &work.token), (&stale_turn, &stale_work));
    assert_stale(&forebay, &stale_turn, &stale_work).await;
    // The tokens of the two queues are not each other's.
    assert_stale(&forebay, &work.token, &turn.token).await;
    for garbage in [
        "",
        "-",
        "lock_1",
        "0-0",
        "0000000000000000-1",
        &turn.token.replace('-', "_"),
        &format!("{}0", turn.token),
    ] {
        assert_stale(&forebay, garbage, garbage).await;
    }
    bounded(forebay.ack_work_item(&work.token, Some(completed("order", 2)))).await.expect("it is held");
    bounded(Turn::of(1, vec![heard("order", 2, "ring")]).ack(&forebay, &turn.token))
        .await
        .expect("it is held");
    // Used once, used up.
    assert_stale(&forebay, &turn.token, &work.token).await;
    assert_eq!(fetch(&forebay).await.expect("it is there").item.messages, [completed("order", 2)]);
}

#[tokio::test]
async fn a_forced_delete_takes_what_is_leased() {
    let (forebay, clock) = on_manual_clock();
    waiting(&forebay).await;
    let (turn, work) = (fetch(&forebay).await.expect("a turn"), fetch_work(&forebay).await.expect("work"));
    enqueue(&forebay, raised("order", "during the turn")).await;
    let timed = timer("order", 9, START_MS + DAY_MS);
    bounded(forebay.enqueue_for_orchestrator(timed, Some(HOUR))).await.expect("it is taken");

    let error = bounded(forebay.delete_instance("order", false)).await.expect_err("it runs");
    assert!(error.message.contains("still running") && error.message.contains("force"), "{error}");
    bounded(forebay.renew_work_item_lock(&work.token, LOCK)).await.expect("the refusal left no trace");

    let deleted = bounded(forebay.delete_instance("order", true)).await.expect("it is deleted");
    assert_eq!((deleted.instances_deleted, deleted.events_deleted), (1, 1));
    assert_eq!(deleted.queue_messages_deleted, 4, "two leased, one that waited, one delayed");
    assert_stale(&forebay, &turn.token, &work.token).await;
    clock.advance(Duration::from_millis(2 * DAY_MS));
    assert!(fetch(&forebay).await.is_none() && fetch_work(&forebay).await.is_none());
    assert_eq!(depths(&forebay).await, (0, 0));
    assert_eq!(bounded(forebay.read("order")).await, Ok(vec![]));
}

/// Deleted and made again under the same id: nothing of the first reaches the second.
#[tokio::test]
async fn an_instance_deleted_and_made_again_starts_anew() {
    let place = Place::new();
    let clock = ManualClock::new(START_MS);
    let forebay = place.open(Options::default().clock(clock.clone()));
    let mut first = Turn::first("order");
    first.messages.push(timer("order", 5, START_MS + 1_000));
    first.work.push(activity("order", 2));
    let set =
        |key: &str| EventKind::KeyValueSet { key: key.into(), value: "1".into(), last_updated_at_ms: 1 };
    first.history.push(event("order", 1, 2, set("old")));
    first.history.push(event("order", 1, 3, EventKind::CustomStatusUpdated { status: Some("old".into()) }));
    first.metadata.pinned_duroxide_version = Some(semver::Version::new(9, 9, 9));
    begin(&forebay, "order", first).await;
    enqueue(&forebay, raised("order", "bell")).await;
    let (turn, work) = (fetch(&forebay).await.expect("a turn"), fetch_work(&forebay).await.expect("work"));
    bounded(forebay.delete_instance("order", true)).await.expect("it is deleted");

    begin(&forebay, "order", Turn::first("order")).await;
    assert_stale(&forebay, &turn.token, &work.token).await;
    assert_eq!(bounded(forebay.get_custom_status("order", 0)).await, Ok(None));
    assert_eq!(bounded(forebay.get_kv_value("order", "old")).await, Ok(None));
    assert_eq!(bounded(forebay.read("order")).await.expect("it is read").len(), 1);
    clock.advance(HOUR);
    assert!(fetch(&forebay).await.is_none() && fetch_work(&forebay).await.is_none(), "nothing of the first");
    enqueue(&forebay, raised("order", "bell")).await;
    let WorkItem::ExternalRaised { name, .. } = &fetch(&forebay).await.expect("it runs").item.messages[0]
    else {
        panic!("another message")
    };
    assert_eq!(name, "bell");

    forebay.close().expect("it closes");
    let forebay = place.open(Options::default().clock(clock));
    assert_eq!(fetch(&forebay).await.expect("it is there").item.messages, [raised("order", "bell")]);
    assert!(fetch(&forebay).await.is_none() && fetch_work(&forebay).await.is_none());
}
