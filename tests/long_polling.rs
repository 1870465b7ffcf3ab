//! A fetch that finds nothing waits in the engine and is woken by whatever makes work available to it; as
//! many fetches are woken as there is work, first come first served. Time is moved by hand.

#![cfg(feature = "duroxide")]

mod engine_support;

use std::time::Duration;

use duroxide::providers::{DispatcherCapabilityFilter, OrchestrationItem, Provider, SemverRange, TagFilter};
use duroxide::providers::{ProviderError, SessionFetchConfig, WorkItem};
use engine_support::polled::Polled;
use engine_support::{
    Fetched, Granted, HOUR, LOCK, MILLISECOND, START_MS, Turn, activity, begin, bounded, completed, enqueue,
    enqueue_work, fetch, fetch_work, fetch_work_as, fetched, id_of, on_manual_clock, raised, routed, session,
    settle, start, timer,
};
use forebay::Forebay;
use forebay::clock::ManualClock;
use semver::Version;

type Waiting<'a, T> = Polled<'a, Granted<T>>;

fn park<'a>(forebay: &'a Forebay) -> Waiting<'a, OrchestrationItem> {
    Polled::submitted(forebay.fetch_orchestration_item(LOCK, HOUR, None))
}

fn park_work<'a>(forebay: &'a Forebay, tags: &'a TagFilter) -> Waiting<'a, WorkItem> {
    Polled::submitted(forebay.fetch_work_item(LOCK, HOUR, None, tags))
}

fn park_in_session<'a>(forebay: &'a Forebay, session: &'a SessionFetchConfig) -> Waiting<'a, WorkItem> {
    Polled::submitted(forebay.fetch_work_item(LOCK, HOUR, Some(session), &TagFilter::Any))
}

/// The fetch has its answer, and has been woken for it.
fn woken<T>(waiting: &mut Waiting<'_, T>) -> Fetched<T> {
    waiting.wait_for_wake(1);
    fetched(waiting.poll().expect("an answer")).expect("an item")
}

/// The fetch still waits, once the writer has done everything it knows of.
async fn still_waits<T>(forebay: &Forebay, waiting: &mut Waiting<'_, T>) {
    settle(forebay).await;
    assert!(waiting.poll().is_none(), "the fetch has been answered");
    assert_eq!(waiting.wakes(), 0, "the fetch has been woken for nothing");
}

#[tokio::test]
async fn by_an_enqueue() {
    let (forebay, _clock) = on_manual_clock();
    let (mut turn, mut work) = (park(&forebay), park_work(&forebay, &TagFilter::Any));
    still_waits(&forebay, &mut turn).await;
    enqueue(&forebay, start("order")).await;
    assert_eq!(woken(&mut turn).item.instance, "order");
    still_waits(&forebay, &mut work).await;
    enqueue_work(&forebay, activity("order", 2)).await;
    assert_eq!(woken(&mut work).attempt, 1);
}

/// An acknowledged turn and an acknowledged activity make work too.
#[tokio::test]
async fn by_an_acknowledgement() {
    let (forebay, _clock) = on_manual_clock();
    enqueue(&forebay, start("order")).await;
    let first = fetch(&forebay).await.expect("it is there");
    let (mut turn, mut work) = (park(&forebay), park_work(&forebay, &TagFilter::Any));
    let mut ack = Turn::first("order");
    ack.work.push(activity("order", 2));
    bounded(ack.ack(&forebay, &first.token)).await.expect("it is acknowledged");
    let token = woken(&mut work).token;
    still_waits(&forebay, &mut turn).await;
    bounded(forebay.ack_work_item(&token, Some(completed("order", 2)))).await.expect("it is acknowledged");
    assert_eq!(woken(&mut turn).item.messages, [completed("order", 2)]);
}

/// Messages that arrive during a turn wait for its end and then wake a fetch.
#[tokio::test]
async fn by_the_end_of_a_turn() {
    let (forebay, _clock) = on_manual_clock();
    enqueue(&forebay, start("order")).await;
    let first = fetch(&forebay).await.expect("it is there");
    let mut next = park(&forebay);
    enqueue(&forebay, raised("order", "bell")).await;
    still_waits(&forebay, &mut next).await;
    bounded(Turn::first("order").ack(&forebay, &first.token)).await.expect("it is acknowledged");
    assert_eq!(woken(&mut next).item.messages, [raised("order", "bell")]);
}

#[tokio::test]
async fn by_a_timer_that_falls_due() {
    let (forebay, clock) = on_manual_clock();
    let mut turn = Turn::first("order");
    turn.messages.push(timer("order", 2, START_MS + 5_000));
    begin(&forebay, "order", turn).await;
    let mut next = park(&forebay);
    clock.advance(Duration::from_millis(4_999));
    still_waits(&forebay, &mut next).await;
    clock.advance(MILLISECOND);
    assert_eq!(woken(&mut next).item.messages, [timer("order", 2, START_MS + 5_000)]);
}

#[tokio::test]
async fn by_a_delay_that_is_over() {
    let (forebay, clock) = on_manual_clock();
    let delay = Some(Duration::from_secs(5));
    bounded(forebay.enqueue_for_orchestrator(start("order"), delay)).await.expect("it is taken");
    let mut next = park(&forebay);
    clock.advance(Duration::from_millis(4_999));
    still_waits(&forebay, &mut next).await;
    clock.advance(MILLISECOND);
    assert_eq!(woken(&mut next).item.instance, "order");
}

#[tokio::test]
async fn by_a_lease_that_runs_out() {
    let (forebay, clock) = on_manual_clock();
    enqueue(&forebay, start("order")).await;
    enqueue_work(&forebay, activity("order", 2)).await;
    fetch(&forebay).await.expect("it is there");
    fetch_work(&forebay).await.expect("it is there");
    let (mut turn, mut work) = (park(&forebay), park_work(&forebay, &TagFilter::Any));
    clock.advance(LOCK - MILLISECOND);
    still_waits(&forebay, &mut turn).await;
    still_waits(&forebay, &mut work).await;
    clock.advance(MILLISECOND);
    assert_eq!(woken(&mut turn).attempt, 2);
    assert_eq!(woken(&mut work).attempt, 2);
}

#[tokio::test]
async fn by_an_abandon() {
    let (forebay, clock) = on_manual_clock();
    enqueue(&forebay, start("order")).await;
    enqueue_work(&forebay, activity("order", 2)).await;
    for delay in [None, Some(Duration::from_secs(1))] {
        let turn = fetch(&forebay).await.expect("it is there").token;
        let work = fetch_work(&forebay).await.expect("it is there").token;
        let (mut next_turn, mut next_work) = (park(&forebay), park_work(&forebay, &TagFilter::Any));
        bounded(forebay.abandon_orchestration_item(&turn, delay, true)).await.expect("abandoned");
        bounded(forebay.abandon_work_item(&work, delay, true)).await.expect("abandoned");
        if let Some(delay) = delay {
            still_waits(&forebay, &mut next_turn).await;
            still_waits(&forebay, &mut next_work).await;
            clock.advance(delay);
        }
        let (turn, work) = (woken(&mut next_turn), woken(&mut next_work));
        assert_eq!((turn.attempt, work.attempt), (1, 1), "neither counted");
        bounded(forebay.abandon_orchestration_item(&turn.token, None, true)).await.expect("abandoned");
        bounded(forebay.abandon_work_item(&work.token, None, true)).await.expect("abandoned");
    }
}

#[tokio::test]
async fn by_a_session_lock_that_runs_out() {
    let (forebay, clock) = on_manual_clock();
    enqueue_work(&forebay, routed("order", 2, Some("cart"), None)).await;
    enqueue_work(&forebay, routed("order", 3, Some("cart"), None)).await;
    let owned = fetch_work_as(&forebay, "owner").await.expect("it is there");
    // The activity is done, the session is still claimed.
    bounded(forebay.ack_work_item(&owned.token, None)).await.expect("it is acknowledged");
    let other = session("other", LOCK);
    let mut waiting = park_in_session(&forebay, &other);
    clock.advance(LOCK - MILLISECOND);
    still_waits(&forebay, &mut waiting).await;
    clock.advance(MILLISECOND);
    assert_eq!(id_of(&woken(&mut waiting).item), 3);
}

/// A worker that does not do what it was given gives up the session that came with it.
#[tokio::test]
async fn by_an_abandon_that_gives_up_the_session() {
    let (forebay, _clock) = on_manual_clock();
    enqueue_work(&forebay, routed("order", 2, Some("cart"), None)).await;
    let other = session("other", LOCK);
    for (ignore_attempt, attempt) in [(true, 1), (false, 2)] {
        let full = fetch_work_as(&forebay, "full").await.expect("it is there");
        let mut waiting = park_in_session(&forebay, &other);
        still_waits(&forebay, &mut waiting).await;
        bounded(forebay.abandon_work_item(&full.token, None, ignore_attempt)).await.expect("abandoned");
        let granted = woken(&mut waiting);
        assert_eq!((id_of(&granted.item), granted.attempt), (2, attempt));
        bounded(forebay.abandon_work_item(&granted.token, None, true)).await.expect("abandoned");
    }
}

/// One that has been at work on the session keeps it.
#[tokio::test]
async fn not_by_an_abandon_of_a_session_that_has_been_worked_on() {
    let (forebay, clock) = on_manual_clock();
    for (id, cart) in [(2, "renewed"), (3, "renewed"), (4, "acknowledged"), (5, "acknowledged")] {
        enqueue_work(&forebay, routed("order", id, Some(cart), None)).await;
    }
    let mut tokens = Vec::new();
    for _ in 0..4 {
        tokens.push(fetch_work_as(&forebay, "owner").await.expect("it is there").token);
    }
    bounded(forebay.renew_work_item_lock(&tokens[0], LOCK)).await.expect("renewed");
    bounded(forebay.ack_work_item(&tokens[2], None)).await.expect("it is acknowledged");
    let other = session("other", LOCK);
    let mut waiting = park_in_session(&forebay, &other);
    for token in [&tokens[0], &tokens[1], &tokens[3]] {
        bounded(forebay.abandon_work_item(token, None, true)).await.expect("abandoned");
        still_waits(&forebay, &mut waiting).await;
    }
    clock.advance(LOCK);
    assert_eq!(id_of(&woken(&mut waiting).item), 2, "until the session's lock runs out");
}

fn supporting(min: Version, max: Version) -> DispatcherCapabilityFilter {
    DispatcherCapabilityFilter { supported_duroxide_versions: vec![SemverRange::new(min, max)] }
}

#[tokio::test]
async fn by_a_compatible_instance_only() {
    let (forebay, _clock) = on_manual_clock();
    for (instance, minor) in [("old", 1), ("new", 2)] {
        let mut turn = Turn::first(instance);
        turn.metadata.pinned_duroxide_version = Some(Version::new(0, minor, 0));
        begin(&forebay, instance, turn).await;
    }
    let only_new = supporting(Version::new(0, 2, 0), Version::new(0, 2, 9));
    let only_old = supporting(Version::new(0, 1, 0), Version::new(0, 1, 99));
    let mut new = Polled::submitted(forebay.fetch_orchestration_item(LOCK, HOUR, Some(&only_new)));
    let mut old = Polled::submitted(forebay.fetch_orchestration_item(LOCK, HOUR, Some(&only_old)));
    enqueue(&forebay, raised("old", "bell")).await;
    assert_eq!(woken(&mut old).item.instance, "old");
    still_waits(&forebay, &mut new).await;
    enqueue(&forebay, raised("new", "bell")).await;
    assert_eq!(woken(&mut new).item.instance, "new");
}

/// Ten wait, three are needed: the three that came first.
#[tokio::test]
async fn as_many_as_there_is_work_in_the_order_in_which_they_came() {
    let (forebay, _clock) = on_manual_clock();
    let mut turns: Vec<_> = (0..10).map(|_| park(&forebay)).collect();
    let mut work: Vec<_> = (0..10).map(|_| park_work(&forebay, &TagFilter::Any)).collect();
    for n in 0..3 {
        enqueue(&forebay, start(&format!("order-{n}"))).await;
        enqueue_work(&forebay, activity("order", n)).await;
    }
    for n in 0..3 {
        assert_eq!(woken(&mut turns[n]).item.instance, format!("order-{n}"));
        assert_eq!(id_of(&woken(&mut work[n]).item), n as u64);
    }
    for n in 3..10 {
        still_waits(&forebay, &mut turns[n]).await;
        still_waits(&forebay, &mut work[n]).await;
    }
    // In one batch as well: all seven at once.
    let items = (3..10).map(|n| activity("order", n));
    let mut ack = Turn::first("order-0");
    ack.work.extend(items);
    let token = {
        enqueue(&forebay, start("order-9")).await;
        woken(&mut turns[3]).token
    };
    bounded(ack.ack(&forebay, &token)).await.expect("it is acknowledged");
    for (n, waiting) in work.iter_mut().enumerate().skip(3) {
        assert_eq!(id_of(&woken(waiting).item), n as u64);
    }
}

/// Work that the first in the line cannot take goes to the first one that can.
#[tokio::test]
async fn a_fetch_that_cannot_take_it_holds_up_nobody() {
    let (forebay, _clock) = on_manual_clock();
    let (untagged, gpu, both, none) = (
        TagFilter::DefaultOnly,
        TagFilter::tags(["gpu"]),
        TagFilter::default_and(["gpu", "arm"]),
        TagFilter::None,
    );
    let mut nothing = park_work(&forebay, &none);
    let mut default = park_work(&forebay, &untagged);
    let mut tagged = park_work(&forebay, &gpu);
    let mut either = park_work(&forebay, &both);
    enqueue_work(&forebay, routed("order", 1, None, Some("tpu"))).await;
    for waiting in [&mut nothing, &mut default, &mut tagged, &mut either] {
        still_waits(&forebay, waiting).await;
    }
    enqueue_work(&forebay, routed("order", 2, None, Some("arm"))).await;
    assert_eq!(id_of(&woken(&mut either).item), 2);
    enqueue_work(&forebay, routed("order", 3, None, Some("gpu"))).await;
    assert_eq!(id_of(&woken(&mut tagged).item), 3);
    enqueue_work(&forebay, routed("order", 4, None, None)).await;
    assert_eq!(id_of(&woken(&mut default).item), 4);
    still_waits(&forebay, &mut nothing).await;
    let any = fetch_work(&forebay).await.expect("it is still there");
    assert_eq!(id_of(&any.item), 1, "what nobody else wanted");
}

#[tokio::test]
async fn a_poll_timeout_is_answered_with_nothing() {
    let (forebay, clock) = on_manual_clock();
    let mut turn = Polled::submitted(forebay.fetch_orchestration_item(LOCK, Duration::from_secs(5), None));
    let tags = TagFilter::Any;
    let mut work = Polled::submitted(forebay.fetch_work_item(LOCK, Duration::from_secs(7), None, &tags));
    // They count from when the writer sees them.
    settle(&forebay).await;
    clock.advance(Duration::from_millis(4_999));
    still_waits(&forebay, &mut turn).await;
    clock.advance(MILLISECOND);
    turn.wait_for_wake(1);
    assert!(matches!(turn.poll(), Some(Ok(None))));
    still_waits(&forebay, &mut work).await;
    clock.advance(Duration::from_secs(2));
    work.wait_for_wake(1);
    assert!(matches!(work.poll(), Some(Ok(None))));
    // The wall clock alone times nothing out.
    let mut turn = Polled::submitted(forebay.fetch_orchestration_item(LOCK, Duration::from_secs(5), None));
    clock.set_wall_ms(START_MS + 1_000_000);
    still_waits(&forebay, &mut turn).await;
    drop(turn);
    // Gone from the line: what comes now is for the next one.
    enqueue(&forebay, start("order")).await;
    assert_eq!(fetch(&forebay).await.map(|turn| turn.attempt), Some(1));
}

/// A worker that has as many sessions as it may asks without one, and its next fetch may be with one: it is
/// told so as soon as a provider that is polled would.
#[tokio::test]
async fn a_fetch_without_a_session_does_not_wait_beside_a_sessions_work() {
    let (forebay, clock) = on_manual_clock();
    let poll = Duration::from_millis(100);
    let (any, gpu) = (TagFilter::Any, TagFilter::tags(["gpu"]));
    let told_nothing = |waiting: &mut Waiting<'_, WorkItem>| {
        waiting.wait_for_wake(1);
        assert!(matches!(waiting.poll(), Some(Ok(None))));
    };
    // Which is there already; of a session that nobody owns, or somebody.
    enqueue_work(&forebay, routed("order", 2, Some("cart"), None)).await;
    enqueue_work(&forebay, routed("order", 3, Some("cart"), None)).await;
    let mut tagged = park_work(&forebay, &gpu);
    for _ in 0..2 {
        let mut outside = park_work(&forebay, &any);
        still_waits(&forebay, &mut outside).await;
        clock.advance(poll - MILLISECOND);
        still_waits(&forebay, &mut outside).await;
        clock.advance(MILLISECOND);
        told_nothing(&mut outside);
        fetch_work_as(&forebay, "owner").await.expect("it is there");
    }
    // Which arrives; or comes back later.
    let mut outside = park_work(&forebay, &any);
    clock.advance(Duration::from_secs(1));
    still_waits(&forebay, &mut outside).await;
    enqueue_work(&forebay, routed("order", 4, Some("cart"), None)).await;
    clock.advance(poll);
    told_nothing(&mut outside);
    let owned = fetch_work_as(&forebay, "owner").await.expect("it is there");
    bounded(forebay.abandon_work_item(&owned.token, Some(poll), true)).await.expect("abandoned");
    let mut outside = park_work(&forebay, &any);
    clock.advance(poll);
    still_waits(&forebay, &mut outside).await;
    clock.advance(poll);
    told_nothing(&mut outside);
    still_waits(&forebay, &mut tagged).await;
}

/// Work and the end of the wait in the same instant: the work wins.
#[tokio::test]
async fn work_that_falls_due_with_the_poll_timeout_is_delivered() {
    let (forebay, clock) = on_manual_clock();
    let delay = Duration::from_secs(5);
    bounded(forebay.enqueue_for_orchestrator(start("order"), Some(delay))).await.expect("it is taken");
    let mut turn = Polled::submitted(forebay.fetch_orchestration_item(LOCK, delay, None));
    still_waits(&forebay, &mut turn).await;
    clock.advance(delay);
    assert_eq!(woken(&mut turn).item.instance, "order");
}

#[tokio::test]
async fn a_close_answers_them_all() {
    let (forebay, _clock): (Forebay, ManualClock) = on_manual_clock();
    let tags = TagFilter::Any;
    let turns: Vec<_> = (0..10).map(|_| park(&forebay)).collect();
    let work: Vec<_> = (0..10).map(|_| park_work(&forebay, &tags)).collect();
    forebay.close().expect("it closes");
    let closed = |error: ProviderError| assert!(error.message.contains("closed"), "{error}");
    turns.into_iter().for_each(|fetch| closed(fetch.finish().expect_err("closed")));
    work.into_iter().for_each(|fetch| closed(fetch.finish().expect_err("closed")));
}
