//! The machine's clock is set by somebody who does not tell: nothing that waits for a time waits longer than
//! the second after which the engine looks for itself. (What a jump does to leases is in `leases.rs`.)

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use duroxide::providers::Provider;
use forebay::Options;
use forebay::clock::Clock;

use crate::engine_support::polled::Polled;
use crate::engine_support::{
    HOUR, LOCK, Place, START_MS, Turn, activity, begin, bounded, enqueue_work, fetch, fetch_work, settle,
    timer,
};

const DAY_MS: u64 = 86_400_000;

/// The machine's clocks, of which the wall clock can be set behind the engine's back.
#[derive(Debug, Clone)]
struct SetClock {
    began: Instant,
    wall_ms: Arc<AtomicU64>,
}

impl SetClock {
    fn new() -> Self {
        Self { began: Instant::now(), wall_ms: Arc::new(AtomicU64::new(START_MS)) }
    }

    fn set(&self, wall_ms: u64) {
        self.wall_ms.store(wall_ms, Ordering::SeqCst);
    }
}

impl Clock for SetClock {
    fn monotonic(&self) -> Duration {
        self.began.elapsed()
    }

    fn wall_ms(&self) -> u64 {
        self.wall_ms.load(Ordering::SeqCst)
    }
}

/// Timers and activities put off are there as soon as the clock says so, for fetches that were parked before.
#[tokio::test]
async fn a_clock_set_forward_in_silence_makes_what_is_due_visible() {
    let place = Place::new();
    let clock = SetClock::new();
    let forebay = place.open(Options::default().clock(clock.clone()));
    let mut turn = Turn::first("order");
    turn.messages.push(timer("order", 2, START_MS + DAY_MS));
    begin(&forebay, "order", turn).await;
    enqueue_work(&forebay, activity("order", 3)).await;
    let work = fetch_work(&forebay).await.expect("an activity");
    let put_off = forebay.abandon_work_item(&work.token, Some(Duration::from_millis(DAY_MS)), false);
    bounded(put_off).await.expect("it is put off");
    let tags = duroxide::providers::TagFilter::Any;
    let turn = Polled::submitted(forebay.fetch_orchestration_item(LOCK, HOUR, None));
    let work = Polled::submitted(forebay.fetch_work_item(LOCK, HOUR, None, &tags));
    settle(&forebay).await;
    clock.set(START_MS + DAY_MS);
    let (turn, _, _) = turn.finish().expect("it works").expect("the timer is due");
    assert_eq!(turn.messages, [timer("order", 2, START_MS + DAY_MS)]);
    let (_, _, attempt) = work.finish().expect("it works").expect("the activity is due");
    assert_eq!(attempt, 2);
}

/// A clock set back takes nothing away, and time that passes brings what is due.
#[tokio::test]
async fn a_clock_set_back_in_silence_keeps_leases_and_timers() {
    let place = Place::new();
    let clock = SetClock::new();
    let forebay = place.open(Options::default().clock(clock.clone()));
    let mut turn = Turn::first("order");
    turn.messages.push(timer("order", 2, START_MS + 1));
    begin(&forebay, "order", turn).await;
    enqueue_work(&forebay, activity("order", 3)).await;
    let work = fetch_work(&forebay).await.expect("an activity");
    clock.set(START_MS - 400 * DAY_MS);
    assert!(fetch(&forebay).await.is_none() && fetch_work(&forebay).await.is_none(), "leased, and not due");
    bounded(forebay.ack_work_item(&work.token, None)).await.expect("it is held");
    let turn = Polled::submitted(forebay.fetch_orchestration_item(LOCK, HOUR, None));
    settle(&forebay).await;
    clock.set(START_MS + 1);
    turn.finish().expect("it works").expect("the timer is due");
}
