//! Answers that wait for the disk: given when their commit is durable, by whoever makes it so, and to nobody before.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::*;

/// What has been answered by now.
fn heard(pending: &mut Pending<u32>) -> Option<Result<u32, Error>> {
    match Pin::new(pending).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => Some(answer),
        Poll::Pending => None,
    }
}

#[test]
fn an_answer_waits_for_its_commit_to_be_durable_and_others_do_not_wait_with_it() {
    let bench = Bench::new();
    let mut first = bench.submit(Op::AddDurably(1));
    while *bench.committed.lock() < 1 {
        std::thread::yield_now();
    }
    // The next batches are applied while the first is on its way to the disk.
    assert_eq!(answer(bench.submit(Op::Add(2))).unwrap(), 2);
    let mut third = bench.submit(Op::AddDurably(4));
    assert_eq!(answer(bench.submit(Op::Add(8))).unwrap(), 8);
    assert_eq!(*bench.committed.lock(), 15);
    assert!(heard(&mut first).is_none() && heard(&mut third).is_none());
    bench.horizon.reach(1);
    assert_eq!(answer(first).unwrap(), 1);
    assert!(heard(&mut third).is_none());
    bench.horizon.reach(4);
    assert_eq!(answer(third).unwrap(), 4);
    // What is durable by the time it is answered waits for nothing.
    bench.horizon.reach(100);
    assert_eq!(answer(bench.submit(Op::AddDurably(16))).unwrap(), 16);
    bench.buffer.close().unwrap();
}

#[test]
fn an_answer_of_a_batch_that_is_rolled_back_waits_for_nothing() {
    let bench = Bench::new();
    let answers = bench.one_batch(vec![Op::AddDurably(1), Op::Break(Phase::Settle, Fault::Error)]);
    assert!(matches!(answers[0], Err(Error::RolledBack { .. })), "{answers:?}");
    bench.buffer.close().unwrap();
}

#[test]
fn when_the_engine_fails_what_is_not_durable_has_an_unknown_outcome() {
    let bench = Bench::new();
    let waiting = bench.submit(Op::AddDurably(1));
    answer(bench.submit(Op::Break(Phase::Commit, Fault::Unknown))).unwrap_err();
    assert!(matches!(answer(waiting), Err(Error::OutcomeUnknown { .. })));
    assert_latched(&bench);
}

#[test]
fn a_sync_that_fails_beside_the_writer_tells_who_waits_and_wakes_the_writer() {
    let bench = Bench::new();
    let waiting = bench.submit(Op::AddDurably(1));
    let parked = bench.submit(Op::Park);
    // Nobody else submits: without the alarm the writer would not look, and so not fail.
    let (hold, held) = bench.hold();
    let broken = bench.submit(Op::Break(Phase::Tick, Fault::Panic));
    drop(hold);
    answer(held).unwrap();
    answer(broken).unwrap();
    bench.horizon.fail_beside_the_writer(&Error::invalid_input("the disk is gone"));
    let error = answer(waiting).unwrap_err();
    assert!(matches!(error, Error::OutcomeUnknown { .. }), "{error}");
    assert!(matches!(answer(parked), Err(Error::Failed { .. })));
    assert_latched(&bench);
}

#[test]
fn a_close_leaves_nobody_waiting() {
    let bench = Bench::new();
    let waiting = bench.submit(Op::AddDurably(1));
    bench.buffer.close().unwrap();
    // A store that has closed has made everything durable, and said so; this one has not.
    answer(waiting).unwrap_err();
}

#[test]
fn an_answer_that_stands_waits_for_the_disk_also_when_the_engine_fails() {
    let bench = Bench::new();
    let waiting = bench.submit(Op::AddDurably(1));
    while *bench.committed.lock() < 1 {
        std::thread::yield_now();
    }
    let answers = bench.one_batch(vec![Op::RefuseDurably, Op::Break(Phase::Commit, Fault::Unknown)]);
    assert!(matches!(answers[0], Err(Error::OutcomeUnknown { .. })), "{answers:?}");
    assert!(matches!(answer(waiting), Err(Error::OutcomeUnknown { .. })));
    assert_latched(&bench);
}
