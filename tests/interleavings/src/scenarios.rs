//! What is checked. Each is run under thousands of schedules; a caller that is never answered, a waiter that is
//! never woken, or a close that never ends is a deadlock, which the checker reports.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use shuttle::thread::{JoinHandle, spawn};

use crate::error::Error;
use crate::ledger::{Bench, Fault, Op};
use crate::options::Options;
use crate::sync::block_on;

pub(crate) const ALL: &[(&str, fn())] = &[
    ("a full buffer lets everybody in, one after the other", full_buffer),
    ("large operations and small ones share the room", large_and_small),
    ("a dropped waiter leaves its place to the next", dropped_waiter),
    ("close completes what was submitted before it", close_drains),
    ("close wakes whoever waits for room", close_wakes_waiters),
    ("everybody who closes comes back when it is closed", two_close),
    ("close from the writer's own thread", close_from_the_writer),
    ("dropping the last handle ends the writer", dropping_handles),
    ("a nudge is not lost", nudges),
    ("a nudge is not lost while submissions come", nudges_among_submissions),
    ("a batch held open takes more and ends", held_open),
    ("a batch that is rolled back says so and the next goes on", rolled_back),
    ("a failure latches and reaches everybody", failure_latches),
    ("a panic of the writer latches and reaches everybody", panic_latches),
    ("a failure while others close", failure_while_closing),
    ("what nobody waits for is done all the same", nobody_waits),
    ("an answer waits for its commit to be durable", durably),
    ("what is shown is durable", shown),
    ("a sync that fails reaches everybody and latches first", sync_fails),
];

/// The rest of the numbers, each on a thread of its own.
fn on_threads<T: Send + 'static>(
    bench: &Bench,
    numbers: impl IntoIterator<Item = u64>,
    each: impl Fn(&Bench, u64) -> T + Copy + Send + 'static,
) -> Vec<JoinHandle<T>> {
    let start = |number| {
        let bench = bench.clone();
        spawn(move || each(&bench, number))
    };
    numbers.into_iter().map(start).collect()
}

fn joined<T>(threads: Vec<JoinHandle<T>>) -> Vec<T> {
    threads.into_iter().map(|thread| thread.join().expect("it does not panic")).collect()
}

fn full_buffer() {
    let bench = Bench::with_room(1);
    let threads = on_threads(&bench, [10, 20, 30], |bench, number| {
        bench.add(number).unwrap();
        bench.add(number + 1).unwrap();
    });
    joined(threads);
    bench.close().unwrap();
}

fn large_and_small() {
    let bench = Bench::with_room(3);
    let threads = on_threads(&bench, [1, 2, 3, 4], |bench, number| {
        let bytes = if number % 2 == 0 { 1 << 20 } else { 0 };
        let answer = bench.buffer.submit_blocking(Op::Add(number), bytes).and_then(block_on);
        bench.believe(number, &answer);
        answer.unwrap();
    });
    joined(threads);
    // All the room is there again.
    bench.buffer.try_submit(Op::Add(5), 1 << 20).and_then(block_on).unwrap();
    bench.close().unwrap();
}

fn dropped_waiter() {
    let bench = Bench::with_room(1);
    let threads = on_threads(&bench, [1, 2, 3], |bench, number| {
        if number == 2 {
            // Polled once, perhaps in line by now, and dropped.
            let mut submit = pin!(bench.buffer.submit(Op::Add(number), 0));
            return match submit.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(pending) => pending.and_then(block_on).is_ok(),
                Poll::Pending => false,
            };
        }
        bench.add(number).is_ok()
    });
    let submitted = joined(threads);
    assert_eq!([submitted[0], submitted[2]], [true, true]);
    bench.add(4).unwrap();
    bench.close().unwrap();
    assert_eq!(bench.has_committed(2), submitted[1], "dropped before it was ready means not submitted");
}

fn close_drains() {
    let bench = Bench::with_room(4);
    let before: Vec<_> = [1, 2, 3].map(|number| bench.submit(Op::Add(number)).unwrap()).into();
    let parked = bench.submit(Op::Park(9)).unwrap();
    let late = on_threads(&bench, [7, 8], |bench, number| bench.add(number));
    bench.close().unwrap();
    for (number, pending) in (1..).zip(before) {
        let answer = block_on(pending);
        bench.believe(number, &answer);
        answer.unwrap();
    }
    assert!(matches!(block_on(parked), Err(Error::Closed)));
    for answer in joined(late) {
        assert!(matches!(answer, Ok(_) | Err(Error::Closed)), "{answer:?}");
    }
    assert!(matches!(bench.add(6), Err(Error::Closed)));
}

fn close_wakes_waiters() {
    let bench = Bench::with_room(1);
    let threads = on_threads(&bench, [1, 2, 3], |bench, number| bench.add(number));
    bench.close().unwrap();
    for answer in joined(threads) {
        assert!(matches!(answer, Ok(_) | Err(Error::Closed)), "{answer:?}");
    }
}

fn two_close() {
    let bench = Bench::with_room(2);
    let pending = bench.submit(Op::Add(1)).unwrap();
    let threads = on_threads(&bench, [1, 2, 3], |bench, _| bench.close().unwrap());
    assert_eq!(block_on(pending).unwrap(), 1);
    joined(threads);
    assert!(matches!(bench.add(2), Err(Error::Closed)));
}

fn close_from_the_writer() {
    let bench = Bench::with_room(2);
    let inside = on_threads(&bench, [1], |bench, _| {
        let closing = bench.submit(Op::Close(bench.buffer.clone())).and_then(block_on);
        assert!(matches!(closing, Ok(0) | Err(Error::Closed)), "{closing:?}");
    });
    let outside = on_threads(&bench, [2], |bench, number| {
        let _ = bench.add(number);
        bench.close().unwrap();
    });
    joined(inside);
    joined(outside);
    bench.close().unwrap();
}

fn dropping_handles() {
    let bench = Bench::with_room(2);
    let world = std::sync::Arc::clone(&bench.world);
    let pending = bench.submit(Op::Add(1)).unwrap();
    let threads = on_threads(&bench, [2, 3], |bench, number| bench.add(number).unwrap());
    drop(bench);
    block_on(pending).unwrap();
    joined(threads);
    // The writer goes by itself: the checker would report it as stuck.
    while !world.is_closed.load(std::sync::atomic::Ordering::SeqCst) {
        shuttle::thread::yield_now();
    }
}

fn nudges() {
    // Looked at by itself never, or only after two hours, which never come.
    let bench = Bench::waiting(Options::default(), Some(Duration::from_secs(7200)));
    let parked = [1, 2, 3].map(|number| bench.submit(Op::Park(number)).unwrap());
    let bringing = on_threads(&bench, [1, 2, 3], |bench, number| bench.bring(number));
    for (number, pending) in (1..).zip(parked) {
        let answer = block_on(pending);
        bench.believe(number, &answer);
        answer.unwrap();
    }
    joined(bringing);
    bench.close().unwrap();
}

fn nudges_among_submissions() {
    let bench = Bench::with_room(1);
    let parked = on_threads(&bench, [1, 2], |bench, number| {
        let answer = bench.submit(Op::Park(number)).and_then(block_on);
        bench.believe(number, &answer);
        answer.unwrap();
    });
    let bringing = on_threads(&bench, [1, 2], |bench, number| bench.bring(number));
    let adding = on_threads(&bench, [11, 12], |bench, number| bench.add(number).unwrap());
    joined(parked);
    joined(bringing);
    joined(adding);
    bench.close().unwrap();
}

fn held_open() {
    let options = Options::default().commit_delay(Duration::from_millis(1)).batch_ops_max(2);
    let bench = Bench::waiting(options, Some(Duration::from_millis(1)));
    let threads = on_threads(&bench, [1, 2, 3], |bench, number| bench.add(number));
    let first = bench.add(4);
    assert!(first.is_ok());
    bench.close().unwrap();
    for answer in joined(threads) {
        assert!(matches!(answer, Ok(_) | Err(Error::Closed)), "{answer:?}");
    }
}

fn rolled_back() {
    let bench = Bench::with_room(2);
    let threads = on_threads(&bench, [1, 2, 3], |bench, number| {
        let op = if number == 2 { Op::Fail(Fault::RolledBack, number) } else { Op::Add(number) };
        let answer = bench.submit(op).and_then(block_on);
        bench.believe(number, &answer);
        match answer {
            Ok(_) => assert_ne!(number, 2),
            Err(error) => assert!(matches!(error, Error::RolledBack { .. }), "{error}"),
        }
    });
    joined(threads);
    bench.add(4).unwrap();
    bench.close().unwrap();
}

fn failure_latches() {
    latches(Fault::Unknown);
}

fn panic_latches() {
    latches(Fault::Panic);
}

fn latches(fault: Fault) {
    let bench = Bench::with_room(1);
    let parked = bench.submit(Op::Park(9)).unwrap();
    let fail = bench.clone();
    let failing = spawn(move || {
        let answer = fail.submit(Op::Fail(fault, 1)).and_then(block_on);
        assert!(matches!(answer, Err(Error::OutcomeUnknown { .. })), "{answer:?}");
        // Latched before anybody hears of it.
        assert!(fail.buffer.refusal().is_some());
        let refused = fail.add(100);
        assert!(matches!(refused, Err(Error::Failed { .. })), "{refused:?}");
    });
    let threads = on_threads(&bench, [2, 3], |bench, number| {
        let answer = bench.add(number);
        let known = matches!(answer, Ok(_) | Err(Error::OutcomeUnknown { .. } | Error::Failed { .. }));
        assert!(known, "{answer:?}");
    });
    let parked = block_on(parked);
    assert!(matches!(parked, Err(Error::Failed { .. })), "{parked:?}");
    joined(vec![failing]);
    joined(threads);
    let closed = bench.close();
    assert!(matches!(closed, Err(Error::Failed { .. })), "{closed:?}");
    assert!(bench.buffer.refusal().is_some());
}

fn failure_while_closing() {
    let bench = Bench::with_room(2);
    let failing = on_threads(&bench, [1], |bench, number| {
        let answer = bench.submit(Op::Fail(Fault::Unknown, number)).and_then(block_on);
        assert!(matches!(answer, Err(Error::OutcomeUnknown { .. } | Error::Closed)), "{answer:?}");
        matches!(answer, Err(Error::OutcomeUnknown { .. }))
    });
    let closing = on_threads(&bench, [2, 3], |bench, _| bench.close());
    let adding = on_threads(&bench, [4], |bench, number| bench.add(number));
    let failed = joined(failing)[0];
    for closed in joined(closing) {
        assert_eq!(matches!(closed, Err(Error::Failed { .. })), failed, "{closed:?}");
    }
    for answer in joined(adding) {
        assert!(!matches!(answer, Err(Error::RolledBack { .. })), "{answer:?}");
    }
}

fn nobody_waits() {
    let bench = Bench::with_room(2);
    let gone = bench.submit(Op::Add(1)).unwrap();
    let dropping = spawn(move || drop(gone));
    bench.add(2).unwrap();
    dropping.join().unwrap();
    bench.close().unwrap();
    assert!(bench.has_committed(1), "nobody waits for it, and it is done all the same");
}

fn durably() {
    let bench = Bench::syncing(Options::default().buffer_ops_max(3).batch_ops_max(2), None);
    let threads = on_threads(&bench, [10, 20, 30], |bench, number| {
        bench.add_durably(number).unwrap();
        bench.add(number + 1).unwrap();
    });
    joined(threads);
    bench.close().unwrap();
}

fn shown() {
    let bench = Bench::syncing(Options::default().buffer_ops_max(3).batch_ops_max(2), None);
    let threads = on_threads(&bench, [10, 20], |bench, number| {
        bench.add(number).unwrap();
        bench.read().unwrap();
        bench.add_durably(number + 1).unwrap();
    });
    joined(threads);
    bench.close().unwrap();
}

fn sync_fails() {
    let bench = Bench::syncing(Options::default().buffer_ops_max(3).batch_ops_max(2), Some(2));
    let threads = on_threads(&bench, [10, 20, 30], |bench, number| {
        if let Err(error) = bench.add_durably(number) {
            assert!(matches!(error, Error::OutcomeUnknown { .. } | Error::Failed { .. }), "{error}");
            // Whoever has heard of it finds the engine latched.
            let next = bench.add_durably(number + 1);
            assert!(matches!(next, Err(Error::Failed { .. })), "{next:?}");
        }
    });
    joined(threads);
    let _ = bench.close();
}
