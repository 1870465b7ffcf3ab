//! Every figure of [`forebay::Stats`] that tells an operator how busy a `Writer` is.

mod writer_support;

use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

use forebay::stats::Times;
use forebay::{Durability, Error, Writer, WriterOptions};
use tempfile::TempDir;
use writer_support::hold;

fn open(folder: &TempDir, options: WriterOptions) -> Writer {
    let writer = options.open(folder.path().join("app.db")).unwrap();
    writer.blocking_submit(|tx| tx.execute_batch("CREATE TABLE t (n INTEGER PRIMARY KEY)")).wait().unwrap();
    writer
}

fn insert(writer: &Writer, n: i64) -> forebay::Ticket<usize> {
    writer.blocking_submit(move |tx| tx.execute("INSERT INTO t VALUES (?1)", [n]))
}

#[test]
fn how_many_operations_wait_now() {
    let folder = tempfile::tempdir().unwrap();
    let writer = open(&folder, WriterOptions::default());
    let held = hold(&writer);
    assert_eq!(writer.stats().waiting, 0, "the one that is running does not wait");
    let tickets: Vec<_> = (0..3).map(|n| insert(&writer, n)).collect();
    assert_eq!(writer.stats().waiting, 3);
    held.release();
    for ticket in tickets {
        ticket.wait().unwrap();
    }
    assert_eq!(writer.stats().waiting, 0);
}

#[test]
fn how_many_waited_for_room_and_for_how_long() {
    const PAUSE: Duration = Duration::from_millis(20);
    let folder = tempfile::tempdir().unwrap();
    let writer = open(&folder, WriterOptions::default().buffer_ops_max(1));
    let held = hold(&writer);
    let first = insert(&writer, 1);
    assert!(writer.try_submit(|_tx| Ok::<_, Error>(())).is_err());
    assert_eq!(writer.stats().room_waits, Times::default(), "who does not wait is not counted");
    {
        let mut given_up = pin!(writer.submit(|_tx| Ok::<_, Error>(())));
        assert!(given_up.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        std::thread::sleep(PAUSE);
    }
    let waits = writer.stats().room_waits;
    assert!(waits.count == 1 && waits.total >= PAUSE && waits.max == waits.total, "{waits}");
    assert_eq!(waits.mean(), waits.total);
    std::thread::scope(|scope| {
        let second = scope.spawn(|| insert(&writer, 2).wait());
        std::thread::sleep(PAUSE);
        held.release();
        second.join().unwrap().unwrap();
    });
    first.wait().unwrap();
    let waits = writer.stats().room_waits;
    assert!(waits.count >= 1 && waits.max <= waits.total, "{waits}");
}

#[test]
fn how_many_batches_were_rolled_back() {
    let folder = tempfile::tempdir().unwrap();
    let writer = open(&folder, WriterOptions::default());
    insert(&writer, 1).wait().unwrap();
    // One that fails by itself costs no batch.
    insert(&writer, 1).wait().unwrap_err();
    let before = writer.stats();
    assert_eq!(before.rolled_back, 0);
    writer.blocking_submit(|tx| tx.execute("INSERT OR ROLLBACK INTO t VALUES (1)", [])).wait().unwrap_err();
    let after = writer.stats();
    assert_eq!((after.rolled_back, after.commits), (1, before.commits));
}

#[test]
fn how_long_commits_and_syncs_took() {
    for durability in [Durability::Full, Durability::Normal] {
        let folder = tempfile::tempdir().unwrap();
        let writer = open(&folder, WriterOptions::default().durability(durability));
        for n in 0..20 {
            insert(&writer, n).wait().unwrap();
        }
        let stats = writer.stats();
        let commits = stats.commit_times;
        assert_eq!(commits.count, stats.commits, "{stats}");
        assert!(commits.count >= 21 && commits.max > Duration::ZERO, "{stats}");
        assert!(commits.mean() <= commits.max && commits.max <= commits.total, "{stats}");
        let syncs = stats.sync_times;
        match durability {
            // Each of them was waited for.
            Durability::Full => assert!(syncs.count >= 21 && syncs.max > Duration::ZERO, "{stats}"),
            Durability::Normal => assert_eq!(syncs, Times::default(), "so little is left to the checkpoint"),
        }
        assert!(syncs.max <= syncs.total, "{stats}");
    }
}

#[test]
fn they_stay_readable_when_the_writer_is_closed_and_when_it_has_failed() {
    let folder = tempfile::tempdir().unwrap();
    let writer = open(&folder, WriterOptions::default());
    insert(&writer, 1).wait().unwrap();
    let before = writer.stats();
    writer.blocking_close().unwrap();
    insert(&writer, 2).wait().unwrap_err();
    let after = writer.stats();
    assert_eq!((after.operations, after.commits, after.waiting), (before.operations, before.commits, 0));

    let writer = Writer::open(folder.path().join("app.db")).unwrap();
    insert(&writer, 2).wait().unwrap();
    // Nobody knows any more what is in the file.
    let path = folder.path().join("app.db");
    std::fs::remove_file(&path).unwrap();
    let failed = loop {
        match insert(&writer, 3).wait() {
            Err(error @ (Error::OutcomeUnknown { .. } | Error::Failed { .. })) => break error,
            _ => std::thread::sleep(Duration::from_millis(10)),
        }
    };
    let stats = writer.stats();
    assert!(stats.commits >= 1 && stats.waiting == 0, "{failed}: {stats}");
    // Each is named, for a log.
    for part in ["operations", "waiting", "commits", "rolled back", "syncs", "waits for room", "set aside"] {
        assert!(stats.to_string().contains(part), "{stats}");
    }
}
