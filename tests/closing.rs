//! Closing: whoever uses a closed engine is told so at once, whoever waits in it is answered, what was
//! submitted is done, and everyone who closes it comes back.

#![cfg(feature = "duroxide")]

mod engine_support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use duroxide::EventKind;
use duroxide::providers::{Provider, TagFilter};
use engine_support::calls::{Tokens, every_call};
use engine_support::polled::Polled;
use engine_support::{
    HOUR, LOCK, PATIENCE, Place, Turn, activity, begin, bounded, bounded_thread, enqueue, enqueue_work,
    event, fetch, fetch_work, settle, start, started,
};
use forebay::{Error, Forebay, Options};

/// An engine with a leased turn and a leased activity, and their tokens.
async fn busy(forebay: &Forebay) -> Tokens {
    begin(forebay, "order", Turn::first("order")).await;
    enqueue(forebay, start("other")).await;
    enqueue_work(forebay, activity("order", 2)).await;
    let turn = fetch(forebay).await.expect("a turn").token;
    let work = fetch_work(forebay).await.expect("an activity").token;
    Tokens { turn, work }
}

#[tokio::test]
async fn every_method_of_a_closed_engine_says_that_it_is_closed() {
    let place = Place::new();
    for forebay in [place.open(Options::default()), Forebay::in_memory().expect("it opens")] {
        let tokens = busy(&forebay).await;
        forebay.close().expect("it closes");
        let calls = every_call(&forebay, "order", &tokens);
        assert!(calls.len() >= 38, "{} calls", calls.len());
        for (method, call) in calls {
            let error = bounded(call).await.expect_err(method);
            assert!(error.message.contains("closed"), "{method}: {error}");
            assert!(!error.is_retryable(), "{method} cannot succeed on this handle");
            assert!(!error.operation.is_empty(), "{method}");
        }
        assert!(matches!(forebay.on_writer_connection(|_| ()), Err(Error::Closed)));
        forebay.close().expect("closing again answers as the first time did");
    }
}

/// The same outside of any runtime, where nothing can be handed to a blocking thread.
#[test]
fn a_closed_engine_needs_no_runtime_to_say_so() {
    let place = Place::new();
    let forebay = place.open(Options::default());
    forebay.close().expect("it closes");
    let tokens = Tokens { turn: "none".into(), work: "none".into() };
    for (method, call) in every_call(&forebay, "order", &tokens) {
        Polled::new(call).finish().expect_err(method);
    }
}

#[tokio::test]
async fn parked_fetches_are_answered() {
    let place = Place::new();
    let forebay = place.open(Options::default());
    let turns = (0..5).map(|_| Polled::submitted(forebay.fetch_orchestration_item(LOCK, HOUR, None)));
    let turns: Vec<_> = turns.collect();
    let work = (0..5).map(|_| Polled::submitted(forebay.fetch_work_item(LOCK, HOUR, None, &TagFilter::Any)));
    let work: Vec<_> = work.collect();
    settle(&forebay).await;
    let closing = forebay.clone();
    bounded_thread(move || closing.close()).expect("it closes");
    for fetch in turns {
        let error = fetch.finish().expect_err("closed");
        assert!(error.message.contains("closed") && !error.is_retryable(), "{error}");
    }
    for fetch in work {
        let error = fetch.finish().expect_err("closed");
        assert!(error.message.contains("closed") && !error.is_retryable(), "{error}");
    }
}

/// The writer is held up, so all of this waits in the buffer when the close comes.
#[tokio::test]
async fn what_was_submitted_before_the_close_is_done() {
    let place = Place::new();
    // Small batches: the close takes everything that waits, whatever the limits say.
    let forebay = place.open(Options::default().batch_ops_max(3));
    let (release, held) = mpsc::channel::<()>();
    let (entered, inside) = mpsc::channel();
    let holder = forebay.clone();
    let hold = started(move || {
        holder.on_writer_connection(move |_| {
            entered.send(()).expect("the test waits");
            held.recv().expect("the test releases");
        })
    });
    inside.recv_timeout(PATIENCE).expect("the writer is held");
    let submitted: Vec<_> = (0..50)
        .map(|n| Polled::submitted(forebay.enqueue_for_orchestrator(start(&format!("order-{n}")), None)))
        .collect();
    let closing = forebay.clone();
    let closed = started(move || closing.close());
    release.send(()).expect("the writer waits");
    closed.recv_timeout(PATIENCE).expect("the close ends").expect("it closes");
    hold.recv_timeout(PATIENCE).expect("it ends").expect("it was before the close");
    for enqueued in submitted {
        enqueued.finish().expect("submitted before the close");
    }
    let reopened = place.open(Options::default());
    for n in 0..50 {
        let turn = fetch(&reopened).await.expect("all of them are there");
        assert_eq!(turn.item.instance, format!("order-{n}"), "in order");
    }
}

/// A read that takes long is waited for, by everyone who closes.
#[test]
fn closing_from_many_threads_during_a_long_read() {
    let place = Place::new();
    let forebay = place.open(Options::default().readers(1));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        // Long enough to read and decode for all the closers to find the read under way.
        for turn in 0..4 {
            let kind = |n| EventKind::ExternalEvent { name: format!("bell-{n}"), data: "x".repeat(64) };
            let events = (1..=20_000).map(|n| event("long", 1, turn * 20_000 + n, kind(n))).collect();
            bounded(forebay.append_with_execution("long", 1, events)).await.expect("it is appended");
        }
    });
    let (reader, reading) = (forebay.clone(), Arc::new(AtomicUsize::new(0)));
    let started_reading = Arc::clone(&reading);
    let read = started(move || {
        // It runs on a thread of the readers' own, from its first poll on.
        let mut read = Polled::new(reader.read("long"));
        let first = read.poll();
        started_reading.store(1, Ordering::SeqCst);
        first.unwrap_or_else(|| read.finish()).map(|events| events.len())
    });
    while reading.load(Ordering::SeqCst) == 0 {
        std::thread::yield_now();
    }
    // The read is under way: real waiting, a small part of what it takes.
    std::thread::sleep(Duration::from_millis(20));
    let closers: Vec<_> =
        (0..4).map(|_| forebay.clone()).map(|forebay| started(move || forebay.close())).collect();
    let deadline = Instant::now() + PATIENCE / 2;
    let wait =
        |closer: &mpsc::Receiver<_>| closer.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    let closed: Vec<_> = closers.iter().map(wait).collect();
    assert!(closed.iter().all(Result::is_ok), "closers that never came back: {closed:?}");
    match read.recv_timeout(PATIENCE).expect("the read ends") {
        Ok(events) => assert_eq!(events, 80_000),
        Err(error) => assert!(error.message.contains("closed"), "{error}"),
    }
}

/// Open, use, close or drop, from many threads at once: a handle works or says that it is closed, nobody
/// hangs, and what was acknowledged is there.
#[tokio::test]
async fn opening_races_with_closing() {
    const THREADS: usize = 6;
    const ROUNDS: usize = 40;
    let place = Place::new();
    let acknowledged = Arc::new(AtomicUsize::new(0));
    let workers: Vec<_> = (0..THREADS)
        .map(|thread| {
            let (path, acknowledged) = (place.path(), Arc::clone(&acknowledged));
            started(move || {
                for round in 0..ROUNDS {
                    let forebay = Forebay::open(&path).expect("the open waits for the close");
                    let item = start(&format!("order-{thread}-{round}"));
                    match Polled::new(forebay.enqueue_for_orchestrator(item, None)).finish() {
                        Ok(()) => {
                            acknowledged.fetch_add(1, Ordering::SeqCst);
                        }
                        Err(error) => assert!(error.message.contains("closed"), "{error}"),
                    }
                    if (thread + round) % 3 == 0 {
                        forebay.close().expect("it closes");
                    }
                }
            })
        })
        .collect();
    for worker in workers {
        worker.recv_timeout(PATIENCE).expect("nobody hangs and nobody fails");
    }
    let forebay = place.open(Options::default());
    let mut found = 0;
    while let Some(turn) = fetch(&forebay).await {
        assert_eq!(turn.item.messages.len(), 1, "{} was enqueued once", turn.item.instance);
        found += 1;
    }
    assert_eq!(found, acknowledged.load(Ordering::SeqCst));
}

/// Everyone who opens while somebody closes gets the next engine, all of them the same one, and keeps it until
/// the last of them has it.
#[test]
fn whoever_opens_during_a_close_shares_the_next_engine() {
    const THREADS: usize = 6;
    let place = Place::new();
    for round in 0..100 {
        let first = place.open(Options::default());
        let barrier = Arc::new(Barrier::new(THREADS + 1));
        let openers: Vec<_> = (0..THREADS)
            .map(|_| {
                let (path, barrier) = (place.path(), Arc::clone(&barrier));
                started(move || {
                    barrier.wait();
                    Forebay::open(path).expect("the open waits for the close")
                })
            })
            .collect();
        barrier.wait();
        if round % 2 == 0 {
            first.close().expect("it closes");
        }
        drop(first);
        let opened: Vec<_> = openers.iter().map(|opener| opener.recv_timeout(PATIENCE)).collect();
        let handles: Vec<_> = opened.into_iter().map(|handle| handle.expect("an open that ends")).collect();
        // Those that were there before the close have been closed with it; the others share one engine.
        let open: Vec<_> =
            handles.iter().filter(|handle| handle.on_writer_connection(|_| ()).is_ok()).collect();
        let stats: Vec<_> = open.iter().map(|handle| handle.stats().operations).collect();
        assert!(
            stats.iter().all(|operations| *operations == open.len() as u64),
            "several engines: {stats:?}"
        );
    }
}
