//! A fetch dropped at any of its awaits leaves nothing behind: no lease, no attempt, no place in the line.
//! What it had been granted is at once there for the next one, at the front.

#![cfg(feature = "duroxide")]

mod engine_support;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use duroxide::providers::{Provider, ProviderError, TagFilter};
use engine_support::polled::{Hold, Polled, uncollected};
use engine_support::{
    Granted, HOUR, LOCK, PATIENCE, Place, START_MS, Turn, activity, begin, bounded, bounded_thread, depths,
    enqueue, enqueue_work, fetch, fetch_work, fetch_work_as, fetched, id_of, on_manual_clock, raised, routed,
    session, settle, start, started,
};
use forebay::clock::ManualClock;
use forebay::{Forebay, Options};

const ANY: TagFilter = TagFilter::Any;

/// How far a fetch gets before it is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dropped {
    Unpolled,
    Submitted,
    /// The writer has granted it something, if there was anything.
    Answered,
}

const STAGES: [Dropped; 3] = [Dropped::Unpolled, Dropped::Submitted, Dropped::Answered];

async fn drop_fetches(forebay: &Forebay, stage: Dropped) {
    let turn = || forebay.fetch_orchestration_item(LOCK, HOUR, None);
    let work = || forebay.fetch_work_item(LOCK, HOUR, None, &ANY);
    match stage {
        Dropped::Unpolled => drop((turn(), work())),
        Dropped::Submitted => {
            poll_once(turn(), async |token| forebay.abandon_orchestration_item(&token, None, true).await)
                .await;
            poll_once(work(), async |token| forebay.abandon_work_item(&token, None, true).await).await;
        }
        Dropped::Answered => drop((uncollected(forebay, turn()).await, uncollected(forebay, work()).await)),
    }
}

/// Polls a fetch once and drops it. It may happen to be answered at once; then it is put back.
async fn poll_once<T>(
    fetch: impl Future<Output = Granted<T>> + Send,
    put_back: impl AsyncFnOnce(String) -> Result<(), ProviderError>,
) {
    let answer = Polled::new(fetch).poll();
    if let Some(granted) = answer.and_then(fetched) {
        assert_eq!(granted.attempt, 1);
        bounded(put_back(granted.token)).await.expect("it is put back");
    }
}

#[tokio::test]
async fn what_it_was_granted_is_at_the_front_again() {
    for stage in STAGES {
        for rounds in [1, 2, 5] {
            let (forebay, _clock) = on_manual_clock();
            for n in 0..3 {
                enqueue(&forebay, start(&format!("order-{n}"))).await;
                enqueue_work(&forebay, activity("order", n)).await;
            }
            for _ in 0..rounds {
                drop_fetches(&forebay, stage).await;
            }
            for n in 0..3 {
                let turn = fetch(&forebay).await.expect("it is there");
                let work = fetch_work(&forebay).await.expect("it is there");
                assert_eq!((turn.item.instance, turn.attempt), (format!("order-{n}"), 1), "{stage:?}");
                assert_eq!((id_of(&work.item), work.attempt), (n, 1), "{stage:?}");
            }
        }
    }
}

#[tokio::test]
async fn what_comes_later_goes_to_the_next_one() {
    for stage in STAGES {
        let (forebay, _clock) = on_manual_clock();
        for _ in 0..4 {
            drop_fetches(&forebay, stage).await;
        }
        let mut turn = Polled::submitted(forebay.fetch_orchestration_item(LOCK, HOUR, None));
        let mut work = Polled::submitted(forebay.fetch_work_item(LOCK, HOUR, None, &ANY));
        for _ in 0..4 {
            drop_fetches(&forebay, stage).await;
        }
        enqueue(&forebay, start("order")).await;
        enqueue_work(&forebay, activity("order", 2)).await;
        turn.wait_for_wake(1);
        work.wait_for_wake(1);
        let (_, _, attempt) = turn.poll().expect("an answer").expect("it works").expect("an item");
        assert_eq!(attempt, 1, "{stage:?}");
        let (_, _, attempt) = work.poll().expect("an answer").expect("it works").expect("an item");
        assert_eq!(attempt, 1, "{stage:?}");
    }
}

/// The messages keep their order among those that came while the dropped fetch held them.
#[tokio::test]
async fn messages_that_came_meanwhile_stay_behind() {
    let (forebay, _clock) = on_manual_clock();
    begin(&forebay, "order", Turn::first("order")).await;
    enqueue(&forebay, raised("order", "first")).await;
    let granted = uncollected(&forebay, forebay.fetch_orchestration_item(LOCK, HOUR, None)).await;
    enqueue(&forebay, raised("order", "second")).await;
    drop(granted);
    let turn = fetch(&forebay).await.expect("it is there");
    assert_eq!(turn.item.messages, [raised("order", "first"), raised("order", "second")]);
    assert_eq!(turn.attempt, 1);
}

/// Attempts that were counted before stay counted.
#[tokio::test]
async fn only_its_own_attempt_is_taken_back() {
    let place = Place::new();
    let clock = ManualClock::new(START_MS);
    let open = || place.open(Options::default().clock(clock.clone()));
    let mut forebay = open();
    enqueue(&forebay, start("order")).await;
    enqueue_work(&forebay, activity("order", 2)).await;
    for attempt in 1..=3 {
        drop_fetches(&forebay, Dropped::Answered).await;
        assert_eq!(fetch(&forebay).await.map(|turn| turn.attempt), Some(attempt));
        assert_eq!(fetch_work(&forebay).await.map(|work| work.attempt), Some(attempt));
        clock.advance(LOCK);
        drop_fetches(&forebay, Dropped::Answered).await;
        // In the rows as well.
        settle(&forebay).await;
        forebay.close().expect("it closes");
        forebay = open();
    }
}

/// A worker that never got the activity does not own its session either.
#[tokio::test]
async fn a_session_it_claimed_is_free_again() {
    let (forebay, _clock) = on_manual_clock();
    enqueue_work(&forebay, routed("order", 2, Some("cart"), None)).await;
    let gone = session("gone", HOUR);
    let granted = uncollected(&forebay, forebay.fetch_work_item(LOCK, HOUR, Some(&gone), &ANY)).await;
    drop(granted);
    let work = fetch_work_as(&forebay, "other").await.expect("nobody owns the session");
    assert_eq!(work.attempt, 1);
}

/// A session that its worker owned before stays with it.
#[tokio::test]
async fn a_session_it_owned_before_stays_its_own() {
    let (forebay, _clock) = on_manual_clock();
    for id in 2..5 {
        enqueue_work(&forebay, routed("order", id, Some("cart"), None)).await;
    }
    assert!(fetch_work_as(&forebay, "owner").await.is_some());
    let owner = session("owner", LOCK);
    let granted = uncollected(&forebay, forebay.fetch_work_item(LOCK, HOUR, Some(&owner), &ANY)).await;
    drop(granted);
    assert!(fetch_work_as(&forebay, "other").await.is_none(), "it still has an activity of it");
    let work = fetch_work_as(&forebay, "owner").await.expect("it is there");
    assert_eq!((id_of(&work.item), work.attempt), (3, 1));
}

/// With the buffer full the fetch waits for room; dropped there, it was never in the engine.
#[tokio::test]
async fn while_it_waits_for_room() {
    let place = Place::new();
    let forebay = place.open(Options::default().buffer_ops_max(1));
    enqueue(&forebay, start("order")).await;
    for round in 0..50 {
        // With the writer held, one of them is in the buffer and the others wait for room.
        let hold = Hold::on(&forebay);
        let fetches: Vec<_> =
            (0..8).map(|_| Polled::submitted(forebay.fetch_orchestration_item(LOCK, HOUR, None))).collect();
        if round % 2 == 0 {
            drop(fetches);
            hold.release();
        } else {
            hold.release();
            drop(fetches);
        }
        assert_eq!(depths(&forebay).await.0, 1, "it is in no lease");
    }
    assert_eq!(fetch(&forebay).await.map(|turn| turn.attempt), Some(1));
}

/// A grant may lie uncollected for as long as its task does not run. Meanwhile those who do not want to wait
/// are told that there is nothing.
#[tokio::test]
async fn a_grant_that_nobody_has_collected_yet() {
    let forebay = Forebay::in_memory().expect("it opens");
    enqueue(&forebay, start("order")).await;
    enqueue_work(&forebay, activity("order", 2)).await;
    let turn = uncollected(&forebay, forebay.fetch_orchestration_item(LOCK, HOUR, None)).await;
    let work = uncollected(&forebay, forebay.fetch_work_item(LOCK, HOUR, None, &ANY)).await;
    assert!(fetch(&forebay).await.is_none() && fetch_work(&forebay).await.is_none());
    assert_eq!(fetched(turn.finish()).map(|turn| turn.attempt), Some(1));
    assert_eq!(fetched(work.finish()).map(|work| work.attempt), Some(1));
}

/// One in a line of fetches is dropped: the others move up.
#[tokio::test]
async fn from_the_middle_of_the_line() {
    let (forebay, _clock) = on_manual_clock();
    let mut line: Vec<_> =
        (0..6).map(|_| Some(Polled::submitted(forebay.fetch_work_item(LOCK, HOUR, None, &ANY)))).collect();
    settle(&forebay).await;
    for n in [0, 2, 3] {
        line[n] = None;
    }
    for (id, place) in [(10, 1), (11, 4), (12, 5)] {
        enqueue_work(&forebay, activity("order", id)).await;
        let waiting = line[place].as_mut().expect("it still waits");
        waiting.wait_for_wake(1);
        let (item, ..) = waiting.poll().expect("an answer").expect("it works").expect("an item");
        assert_eq!(id_of(&item), id);
    }
}

/// A number that is different every time, below `limit`.
fn roll(seed: &mut u64, limit: u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*seed >> 33) % limit
}

/// Polls, or does not, until interest is lost: at once, after a while of spinning, or just when the fetch was
/// woken, for room in the buffer or for its answer.
fn poll_until_interest_is_lost<T>(fetch: &mut Polled<'_, T>, seed: &mut u64) -> Option<T> {
    for wakes in 1..=3 {
        if let Some(answer) = fetch.poll() {
            return Some(answer);
        }
        match roll(seed, 8) {
            0 => return None,
            1 => (0..roll(seed, 3000)).for_each(|_| std::hint::spin_loop()),
            _ => {
                fetch.is_woken_within(Duration::from_millis(5), wakes);
            }
        }
        if roll(seed, 4) == 0 {
            return None;
        }
    }
    None
}

/// The id of what is fetched, and its attempt.
async fn fetch_one(forebay: &Forebay, turns: bool, poll_timeout: Duration) -> Option<(String, u32)> {
    if turns {
        let turn = fetched(forebay.fetch_orchestration_item(HOUR, poll_timeout, None).await)?;
        Some((turn.item.instance, turn.attempt))
    } else {
        let work = fetched(forebay.fetch_work_item(HOUR, poll_timeout, None, &ANY).await)?;
        Some((id_of(&work.item).to_string(), work.attempt))
    }
}

/// Threads that fetch and lose interest at any moment, the one between grant and receipt included, against
/// others that enqueue: everything is received once, at its first attempt.
fn lose_interest(forebay: &Forebay, turns: bool) {
    const ITEMS: usize = 400;
    const THREADS: u64 = 6;
    let received = Arc::new(Mutex::new(BTreeSet::new()));
    let dropped = Arc::new(AtomicUsize::new(0));
    let fetchers: Vec<_> = (0..THREADS)
        .map(|thread| {
            let (forebay, received, dropped) = (forebay.clone(), Arc::clone(&received), Arc::clone(&dropped));
            started(move || {
                let mut seed = thread * 977 + u64::from(turns);
                let deadline = Instant::now() + Duration::from_secs(3);
                while received.lock().expect("not poisoned").len() < ITEMS && Instant::now() < deadline {
                    let mut fetch = Polled::new(fetch_one(&forebay, turns, HOUR));
                    match poll_until_interest_is_lost(&mut fetch, &mut seed) {
                        None => {
                            dropped.fetch_add(1, Ordering::Relaxed);
                        }
                        Some(answer) => {
                            let (id, attempt) = answer.expect("it waits for an hour");
                            assert_eq!(attempt, 1, "{id} was counted for somebody who never got it");
                            assert!(received.lock().expect("not poisoned").insert(id), "received twice");
                        }
                    }
                }
            })
        })
        .collect();
    for n in 0..ITEMS {
        if turns {
            Polled::new(forebay.enqueue_for_orchestrator(start(&format!("order-{n}")), None)).finish()
        } else {
            Polled::new(forebay.enqueue_for_worker(activity("order", n as u64))).finish()
        }
        .expect("it is taken");
    }
    for fetcher in fetchers {
        fetcher.recv_timeout(PATIENCE).expect("nobody hangs and nobody fails");
    }
    // On a busy machine they may have been at it for too long: the rest is for somebody who means it.
    let mut received = received.lock().expect("not poisoned").clone();
    while received.len() < ITEMS {
        let (id, attempt) = Polled::new(fetch_one(forebay, turns, LOCK)).finish().expect("the rest is there");
        assert_eq!(attempt, 1, "{id} was counted for somebody who never got it");
        assert!(received.insert(id), "received twice");
    }
    assert!(
        Polled::new(fetch_one(forebay, turns, Duration::ZERO)).finish().is_none(),
        "there is one too many"
    );
    assert!(dropped.load(Ordering::Relaxed) > 0, "nobody lost interest");
}

#[test]
fn between_grant_and_receipt_of_turns() {
    lose_interest(&Forebay::in_memory().expect("it opens"), true);
    let place = Place::new();
    lose_interest(&place.open(Options::default().buffer_ops_max(3)), true);
}

#[test]
fn between_grant_and_receipt_of_activities() {
    lose_interest(&Forebay::in_memory().expect("it opens"), false);
    let place = Place::new();
    lose_interest(&place.open(Options::default().buffer_ops_max(3)), false);
}

/// The same as executors do it: by dropping tasks.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn tasks_that_are_aborted() {
    let place = Place::new();
    let forebay = place.open(Options::default());
    for n in 0..40 {
        enqueue_work(&forebay, activity("order", n)).await;
    }
    for round in 0..60 {
        let tasks: Vec<_> = (0..10)
            .map(|_| {
                let forebay = forebay.clone();
                tokio::spawn(async move {
                    // Keeps what it is granted only if the test lets it live.
                    let work = forebay.fetch_work_item(HOUR, HOUR, None, &ANY).await;
                    let (_, token, attempt) = work.expect("it works").expect("an item");
                    (token, attempt)
                })
            })
            .collect();
        for _ in 0..round % 7 {
            tokio::task::yield_now().await;
        }
        for task in &tasks {
            task.abort();
        }
        for task in tasks {
            if let Ok((token, attempt)) = task.await {
                assert_eq!(attempt, 1);
                bounded(forebay.abandon_work_item(&token, None, true)).await.expect("it is held");
            }
        }
    }
    assert_eq!(depths(&forebay).await.1, 40, "nothing is leased");
    let mut ids = Vec::new();
    while let Some(work) = fetch_work(&forebay).await {
        assert_eq!(work.attempt, 1);
        ids.push(id_of(&work.item));
    }
    assert_eq!(ids, (0..40).collect::<Vec<_>>(), "all of them, in their order");
    bounded_thread(move || forebay.close()).expect("it closes");
}
