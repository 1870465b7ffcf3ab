//! What ends a batch, one test for each trigger, and what a full buffer does to each kind of caller.

mod writer_support;

use std::future::Future;
use std::pin::pin;
use std::sync::mpsc;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use forebay::{Error, Writer, WriterOptions};
use tempfile::TempDir;
use writer_support::hold;

/// Far longer than any test: a batch that ends before it was ended by something else.
const FOR_EVER: Duration = Duration::from_secs(3600);

fn open(folder: &TempDir, options: WriterOptions) -> Writer {
    options.open(folder.path().join("app.db")).unwrap()
}

#[test]
fn batch_full_by_operations() {
    let folder = tempfile::tempdir().unwrap();
    // Only the third operation can end a batch.
    let writer = open(&folder, WriterOptions::default().batch_ops_max(3).commit_delay(FOR_EVER));
    let tickets: Vec<_> = (0..6).map(|n| writer.blocking_submit(move |_tx| Ok::<_, Error>(n))).collect();
    let results: Vec<i32> = tickets.into_iter().map(|ticket| ticket.wait().unwrap()).collect();
    assert_eq!(results, [0, 1, 2, 3, 4, 5]);
    assert_eq!((writer.stats().batches, writer.stats().operations), (2, 6));
}

#[test]
fn batch_full_by_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let writer = open(&folder, WriterOptions::default().batch_bytes_max(100).commit_delay(FOR_EVER));
    let tickets: Vec<_> =
        (0..4).map(|_| writer.blocking_submit_sized(50, |_tx| Ok::<_, Error>(()))).collect();
    for ticket in tickets {
        ticket.wait().unwrap();
    }
    assert_eq!((writer.stats().batches, writer.stats().operations), (2, 4));
}

#[test]
fn batch_full_by_delay() {
    let folder = tempfile::tempdir().unwrap();
    let delay = Duration::from_millis(50);
    let writer = open(&folder, WriterOptions::default().commit_delay(delay));
    // Real waiting is the point: nothing but the delay can end this batch.
    let submitted = Instant::now();
    writer.blocking_submit(|_tx| Ok::<_, Error>(())).wait().unwrap();
    assert!(submitted.elapsed() >= delay, "the batch was held open");
    assert_eq!(writer.stats().batches, 1);
}

#[test]
fn batch_full_by_close() {
    let folder = tempfile::tempdir().unwrap();
    let writer = open(&folder, WriterOptions::default().commit_delay(FOR_EVER));
    let ticket = writer.blocking_submit(|tx| tx.execute_batch("CREATE TABLE t (n)"));
    writer.blocking_close().unwrap();
    ticket.wait().unwrap();
    assert_eq!(writer.stats().batches, 1);
}

#[test]
fn without_a_delay_a_batch_gathers_while_the_writer_is_busy() {
    let folder = tempfile::tempdir().unwrap();
    let writer = open(&folder, WriterOptions::default());
    let held = hold(&writer);
    let tickets: Vec<_> = (0..20).map(|n| writer.blocking_submit(move |_tx| Ok::<_, Error>(n))).collect();
    held.release();
    for (n, ticket) in tickets.into_iter().enumerate() {
        assert_eq!(ticket.wait().unwrap(), n);
    }
    assert_eq!((writer.stats().batches, writer.stats().operations), (2, 21));
}

#[test]
fn buffer_full_refuses_try_submit() {
    let folder = tempfile::tempdir().unwrap();
    let writer = open(&folder, WriterOptions::default().buffer_ops_max(1));
    let held = hold(&writer);
    let waiting = writer.try_submit(|_tx| Ok::<_, Error>(1)).unwrap();
    let carried = "what it carries".to_owned();
    let refused = writer.try_submit(move |_tx| Ok::<_, Error>(carried)).unwrap_err();
    assert!(matches!(refused.error(), Error::Full) && refused.error().is_retryable(), "{refused}");
    held.release();
    assert_eq!(waiting.wait().unwrap(), 1);
    // The closure is not lost.
    let (closure, error) = refused.into_parts();
    assert!(matches!(error, Error::Full), "{error}");
    assert_eq!(writer.try_submit(closure).unwrap().wait().unwrap(), "what it carries");
}

/// Each form that says what a closure carries is held to the bound of the buffer in bytes.
#[test]
fn buffer_full_by_bytes() {
    const KIB: usize = 1024;
    let folder = tempfile::tempdir().unwrap();
    // Room for 64 operations of up to 4 KiB, or of 256 KiB in all.
    let writer = open(&folder, WriterOptions::default().buffer_ops_max(64));
    let held = hold(&writer);
    let submit = || writer.try_submit_sized(100 * KIB, |_tx| Ok::<_, Error>(()));
    let first = submit().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let second = runtime.block_on(writer.submit_sized(100 * KIB, |_tx| Ok::<_, Error>(())));
    assert!(
        submit().is_err_and(|refused| matches!(refused.error(), Error::Full)),
        "200 KiB wait, another 100 do not fit"
    );
    let mut context = Context::from_waker(Waker::noop());
    {
        let mut third = pin!(writer.submit_sized(100 * KIB, |_tx| Ok::<_, Error>(())));
        assert!(third.as_mut().poll(&mut context).is_pending(), "nor here");
    }
    let small = writer.try_submit_sized(KIB, |_tx| Ok::<_, Error>(())).unwrap();
    held.release();
    for ticket in [first, second, small] {
        ticket.wait().unwrap();
    }
    submit().unwrap().wait().unwrap();
    assert_eq!(writer.stats().operations, 5);
}

#[test]
fn buffer_full_blocks_submit_until_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let writer = open(&folder, WriterOptions::default().buffer_ops_max(1));
    let held = hold(&writer);
    let waiting = writer.try_submit(|_tx| Ok::<_, Error>(())).unwrap();
    let (submitted, was_submitted) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(|| {
            let ticket = writer.blocking_submit(|_tx| Ok::<_, Error>(()));
            submitted.send(()).unwrap();
            ticket.wait().unwrap();
        });
        // It cannot get in as long as the writer is held: an answer here is a failure, silence is not proof.
        assert!(was_submitted.recv_timeout(Duration::from_millis(50)).is_err(), "there was no room");
        held.release();
        was_submitted.recv_timeout(Duration::from_secs(20)).expect("there is room again");
        waiting.wait().unwrap();
    });
}

#[test]
fn buffer_full_suspends_an_async_caller_without_blocking_its_thread() {
    let folder = tempfile::tempdir().unwrap();
    let writer = open(&folder, WriterOptions::default().buffer_ops_max(1));
    let held = hold(&writer);
    let waiting = writer.try_submit(|_tx| Ok::<_, Error>(1)).unwrap();

    // One thread, polling by hand: were it blocked, nothing below would ever run.
    let mut context = Context::from_waker(Waker::noop());
    let mut submitting = pin!(writer.submit(|_tx| Ok::<_, Error>(2)));
    assert!(submitting.as_mut().poll(&mut context).is_pending());
    {
        // Dropped before there was room: never submitted.
        let mut dropped = Box::pin(writer.submit(|_tx| -> Result<(), Error> { panic!("never run") }));
        assert!(dropped.as_mut().poll(&mut context).is_pending());
    }
    held.release();
    assert_eq!(waiting.wait().unwrap(), 1);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let value = runtime.block_on(async { submitting.await.await });
    assert_eq!(value.unwrap(), 2);
    assert_eq!(writer.stats().operations, 3);
}

#[test]
fn an_async_caller_on_a_one_thread_runtime_does_not_block_its_neighbours() {
    let folder = tempfile::tempdir().unwrap();
    let writer = open(&folder, WriterOptions::default().buffer_ops_max(1));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let held = hold(&writer);
        let waiting = writer.try_submit(|_tx| Ok::<_, Error>(())).unwrap();
        let mut submitting = Box::pin(writer.submit(|_tx| Ok::<_, Error>(())));
        let first_poll = std::future::poll_fn(|cx| Poll::Ready(submitting.as_mut().poll(cx).is_pending()));
        assert!(first_poll.await);
        // The neighbour is the one who lets the writer go on.
        let neighbour = tokio::spawn(async move { held.release() });
        submitting.await.await.unwrap();
        neighbour.await.unwrap();
        waiting.await.unwrap();
    });
}

#[test]
fn after_close_every_call_is_refused_and_nothing_hangs() {
    let folder = tempfile::tempdir().unwrap();
    let writer = open(&folder, WriterOptions::default());
    let other = writer.clone();
    writer.blocking_close().unwrap();
    assert!(matches!(other.blocking_submit(|_tx| Ok::<_, Error>(())).wait(), Err(Error::Closed)));
    let refused = other.try_submit(|_tx| Ok::<_, Error>(())).map(drop).map_err(Error::from);
    assert!(matches!(refused, Err(Error::Closed)));
    assert!(matches!(other.blocking_read(|_conn| Ok::<_, Error>(())), Err(Error::Closed)));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let ticket = runtime.block_on(other.submit(|_tx| Ok::<_, Error>(())));
    assert!(matches!(runtime.block_on(ticket), Err(Error::Closed)));
    other.blocking_close().unwrap();
    runtime.block_on(other.close()).unwrap();
    // Released: it opens again.
    open(&folder, WriterOptions::default()).blocking_close().unwrap();
}

#[test]
fn a_dropped_ticket_does_not_cancel_its_write() {
    let folder = tempfile::tempdir().unwrap();
    let writer = open(&folder, WriterOptions::default());
    drop(writer.blocking_submit(|tx| tx.execute_batch("CREATE TABLE t (n)")));
    drop(writer);
    let writer = open(&folder, WriterOptions::default());
    let tables = "SELECT count(*) FROM sqlite_schema WHERE name = 't'";
    let count = writer.blocking_read(|conn| conn.query_row(tables, [], |row| row.get::<_, i64>(0))).unwrap();
    assert_eq!(count, 1);
}
