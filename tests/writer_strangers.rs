//! What belongs to the caller runs where it happens to be dropped or woken: on the writer's thread, on a task, in a
//! function called while a database is opened. None of it may hang, or end, a writer that others use.

mod writer_support;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use forebay::{Error, Writer, WriterOptions};
use tempfile::TempDir;
use writer_support::hold;

const PATIENCE: Duration = Duration::from_secs(60);

fn open(folder: &TempDir, options: WriterOptions) -> Writer {
    let writer = options.open(folder.path().join("app.db")).unwrap();
    writer.blocking_submit(|tx| tx.execute_batch("CREATE TABLE t (n INTEGER PRIMARY KEY)")).wait().unwrap();
    writer
}

fn within<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, was_done) = std::sync::mpsc::channel();
    std::thread::spawn(move || done.send(work()));
    was_done.recv_timeout(PATIENCE).expect("it hangs, or has panicked")
}

fn insert(writer: &Writer, n: i64) -> Result<usize, Error> {
    writer.blocking_submit(move |tx| tx.execute("INSERT INTO t VALUES (?1)", [n])).wait()
}

/// Panics when it is dropped, but not while another panic is on its way.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        assert!(std::thread::panicking(), "the bomb");
    }
}

struct Odd<T>(T);

impl<T> std::fmt::Debug for Odd<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("odd")
    }
}

impl<T> std::fmt::Display for Odd<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("odd")
    }
}

impl<T> std::error::Error for Odd<T> {}

/// A task of tokio that has used up its share is told "pending" by its channels until it yields; one that blocks never does.
#[test]
fn a_task_may_wait_as_often_as_it_likes() {
    within(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            // One at a time in the buffer: waiting for room blocks, too.
            let options = WriterOptions::default().buffer_ops_max(1).batch_ops_max(1);
            let writer = open(&folder, options);
            for n in 0..300 {
                insert(&writer, n).unwrap();
                let tickets: Vec<_> =
                    (0..2).map(|_| writer.blocking_submit(|_| Ok::<_, Error>(()))).collect();
                tickets.into_iter().for_each(|ticket| ticket.wait().unwrap());
                writer.blocking_read(|_| Ok::<_, Error>(())).unwrap();
            }
        });
    });
}

#[test]
fn an_error_that_panics_when_it_is_dropped_harms_nobody() {
    within(|| {
        let folder = tempfile::tempdir().unwrap();
        let writer = open(&folder, WriterOptions::default());
        drop(writer.blocking_submit(|_| Err::<(), _>(Error::operation(Odd(Bomb)))));
        insert(&writer, 1).unwrap();
        // In a batch that is rolled back, its place is taken by another error.
        let held = hold(&writer);
        let odd = writer.blocking_submit(|_| Err::<(), _>(Error::operation(Odd(Bomb))));
        let costly = writer.blocking_submit(|tx| {
            tx.execute("INSERT OR ROLLBACK INTO t VALUES (1)", [])?;
            Ok::<_, Error>(())
        });
        held.try_release();
        // It is dropped where it belongs, by who waits for it.
        let waited = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| odd.wait()));
        waited.expect_err("the bomb");
        assert!(matches!(costly.wait(), Err(Error::NotAllowed { .. })));
        insert(&writer, 2).unwrap();
        writer.blocking_close().unwrap();
    });
}

#[test]
fn a_waker_that_panics_harms_nobody() {
    struct Panics;
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("the waker");
        }
    }
    within(|| {
        let folder = tempfile::tempdir().unwrap();
        let writer = open(&folder, WriterOptions::default());
        let held = hold(&writer);
        let waker = Waker::from(Arc::new(Panics));
        let mut ticket = pin!(writer.blocking_submit(|_| Ok::<_, Error>(())));
        assert!(ticket.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        held.release();
        insert(&writer, 1).unwrap();
        writer.blocking_close().unwrap();
    });
}

/// Waits for the writer that drops it.
struct Waits(Writer, std::sync::mpsc::Sender<Result<(), Error>>);

impl Drop for Waits {
    fn drop(&mut self) {
        let _ = self.1.send(self.0.blocking_submit(|_| Ok::<_, Error>(())).wait());
        let _ = self.1.send(self.0.blocking_close());
    }
}

#[test]
fn what_is_dropped_on_the_writers_thread_cannot_wait_for_it() {
    within(|| {
        let folder = tempfile::tempdir().unwrap();
        let writer = open(&folder, WriterOptions::default());
        insert(&writer, 1).unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        // A closure that is not run, because the one before it has lost the batch.
        let held = hold(&writer);
        let costly = writer.blocking_submit(|tx| {
            tx.execute("INSERT OR ROLLBACK INTO t VALUES (1)", [])?;
            Ok::<_, Error>(())
        });
        let waits = Waits(writer.clone(), tell.clone());
        let unrun = writer.blocking_submit(move |_| {
            let _waits = &waits;
            Ok::<_, Error>(())
        });
        held.try_release();
        costly.wait().unwrap_err();
        unrun.wait().unwrap_err();
        // And the payload of a panic.
        let waits = Waits(writer.clone(), tell);
        let panics = writer
            .blocking_submit(move |_| -> Result<(), Error> { std::panic::resume_unwind(Box::new(waits)) });
        assert!(matches!(panics.wait(), Err(Error::Panicked { .. })));
        for answer in told {
            assert!(matches!(answer, Err(Error::WouldDeadlock { .. })), "{answer:?}");
        }
        insert(&writer, 2).unwrap();
        writer.blocking_close().unwrap();
    });
}

#[test]
fn on_open_cannot_open_what_is_being_opened() {
    within(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.db");
        let again = path.clone();
        let options = WriterOptions::default().on_open(move |_| Writer::open(&again).map(drop));
        let error = options.open(&path).expect_err("it is told");
        let error = format!("{error:?}");
        assert!(error.contains("WouldDeadlock"), "{error}");
        Writer::open(&path).unwrap().blocking_close().unwrap();
    });
}

#[test]
fn a_read_leaves_no_pragma_and_no_row_behind() {
    let folder = tempfile::tempdir().unwrap();
    let writer = open(&folder, WriterOptions::default().readers(1));
    let like = |c: &rusqlite::Connection| c.query_row("SELECT 'A' LIKE 'a'", [], |row| row.get::<_, bool>(0));
    writer
        .blocking_read(|c| c.execute_batch("PRAGMA case_sensitive_like = ON; PRAGMA cache_size = 1"))
        .unwrap();
    assert!(writer.blocking_read(like).unwrap(), "the pragma of another read is in force");
    let cache = |c: &rusqlite::Connection| c.query_row("PRAGMA cache_size", [], |row| row.get::<_, i64>(0));
    assert_ne!(writer.blocking_read(cache).unwrap(), 1);
    let past = "PRAGMA query_only = OFF; INSERT INTO t VALUES (7); PRAGMA query_only = ON";
    let error = writer.blocking_read(|c| c.execute_batch(past)).expect_err("a read writes nothing");
    assert!(format!("{error:#}").contains("readonly"), "{error}");
    // Pragmas that report cost no connection.
    writer.blocking_read(|c| c.query_row("PRAGMA table_info(t)", [], |row| row.get::<_, i64>(0))).unwrap();
    writer.blocking_close().unwrap();
}

/// Also those of a database that is new.
#[cfg(target_os = "linux")]
#[test]
fn a_removed_log_is_noticed_in_a_database_that_was_just_made() {
    for name in ["app.db-wal", "app.db-shm"] {
        let folder = tempfile::tempdir().unwrap();
        let writer = open(&folder, WriterOptions::default());
        (0..10).for_each(|n| assert_eq!(insert(&writer, n).unwrap(), 1));
        std::fs::remove_file(folder.path().join(name)).unwrap();
        let acknowledged = (10..).take_while(|n| {
            // The look is at most every 100 ms of work.
            std::thread::sleep(Duration::from_millis(1));
            assert!(*n < 5_000, "{name}: nobody notices");
            insert(&writer, *n).is_ok()
        });
        let acknowledged = 10 + acknowledged.count() as i64;
        writer.blocking_close().expect_err("it has failed");
        drop(writer);
        if name == "app.db-wal" {
            let found = rusqlite::Connection::open(folder.path().join("app.db")).unwrap();
            let found: i64 = found.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
            assert!(found >= acknowledged, "{found} of {acknowledged}");
        }
    }
}

/// Formerly SQLite, interrupted before it asked the authorizer, was taken for a connection without one.
#[test]
fn an_interrupt_at_any_time_costs_a_batch_at_worst() {
    within(|| {
        let folder = tempfile::tempdir().unwrap();
        let writer = open(&folder, WriterOptions::default());
        let handle = writer.blocking_submit(|tx| Ok::<_, Error>(tx.get_interrupt_handle())).wait().unwrap();
        let done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let over = std::sync::Arc::clone(&done);
        let interrupter = std::thread::spawn(move || {
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                handle.interrupt();
                std::thread::yield_now();
            }
        });
        let mut written = 0;
        for n in 0..3_000 {
            match insert(&writer, n) {
                Ok(_) => written += 1,
                Err(Error::RolledBack { .. }) => {}
                Err(Error::Sqlite { source, .. }) => {
                    assert_eq!(source.sqlite_error_code(), Some(rusqlite::ErrorCode::OperationInterrupted));
                }
                Err(other) => panic!("{other}"),
            }
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        interrupter.join().unwrap();
        let found: i64 =
            writer.blocking_read(|c| c.query_row("SELECT count(*) FROM t", [], |row| row.get(0))).unwrap();
        assert_eq!(found, written);
        writer.blocking_close().unwrap();
    });
}
