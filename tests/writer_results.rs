//! What a caller of the `Writer` is given back: errors of its own type as they were, tickets that can be asked and waited for
//! with a timeout, reads and a close that block no executor's thread.

mod writer_support;

use std::error::Error as StdError;
use std::fmt;
use std::sync::mpsc;
use std::time::Duration;

use forebay::{Error, Ticket, Writer, WriterOptions, rusqlite};
use rusqlite::ErrorCode;
use tempfile::TempDir;
use writer_support::hold;

/// An error as an application has one.
#[derive(Debug)]
enum Refused {
    NoSuchAccount(i64),
    Storage(Error),
    Sql(rusqlite::Error),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl StdError for Refused {}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Refused::Storage(error)
    }
}

impl From<rusqlite::Error> for Refused {
    fn from(error: rusqlite::Error) -> Self {
        Refused::Sql(error)
    }
}

fn open(folder: &TempDir) -> Writer {
    let writer = Writer::open(folder.path().join("app.db")).unwrap();
    writer.blocking_submit(|tx| tx.execute_batch("CREATE TABLE t (n INTEGER PRIMARY KEY)")).wait().unwrap();
    writer
}

fn insert(writer: &Writer, n: i64) -> Ticket<usize> {
    writer.blocking_submit(move |tx| tx.execute("INSERT INTO t VALUES (?1)", [n]))
}

fn count(writer: &Writer) -> i64 {
    writer.blocking_read(|conn| conn.query_row("SELECT count(*) FROM t", [], |row| row.get(0))).unwrap()
}

#[test]
fn an_error_of_the_callers_own_type_comes_back_as_itself_and_undoes_its_closure_alone() {
    let folder = tempfile::tempdir().unwrap();
    let writer = open(&folder);
    let held = hold(&writer);
    let before = insert(&writer, 1);
    let own = writer.blocking_submit(|tx| -> Result<(), Refused> {
        tx.execute("INSERT INTO t VALUES (7)", [])?;
        Err(Refused::NoSuchAccount(7))
    });
    let sql = writer
        .blocking_submit(|tx| -> Result<usize, Refused> { Ok(tx.execute("INSERT INTO t VALUES (1)", [])?) });
    let boxed = writer.blocking_submit(|tx| -> Result<(), Box<dyn StdError + Send + Sync>> {
        tx.execute("INSERT INTO t VALUES (8)", [])?;
        Err("not today".into())
    });
    let after = insert(&writer, 2);
    held.release();
    assert_eq!((before.wait().unwrap(), after.wait().unwrap()), (1, 1));
    assert!(matches!(own.wait(), Err(Refused::NoSuchAccount(7))));
    assert!(matches!(
        sql.wait(),
        Err(Refused::Sql(error)) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation)
    ));
    assert_eq!(boxed.wait().unwrap_err().to_string(), "not today");
    assert_eq!(count(&writer), 2);
    writer.blocking_close().unwrap();
}

#[test]
fn forebays_own_errors_come_as_the_callers_type() {
    let folder = tempfile::tempdir().unwrap();
    let writer = open(&folder);
    let held = hold(&writer);
    let own = writer.blocking_submit(|tx| -> Result<usize, Refused> {
        tx.execute("INSERT INTO t VALUES (1)", []).map_err(Refused::Sql)
    });
    let boxed = writer.blocking_submit(|_tx| Ok::<_, Box<dyn StdError + Send + Sync>>(()));
    let costly = writer.blocking_submit(|tx| tx.execute("INSERT OR ROLLBACK INTO t VALUES (1)", []));
    held.try_release();
    // What they returned is not true any more.
    let error = own.wait().unwrap_err();
    assert!(matches!(&error, Refused::Storage(error) if error.is_retryable()), "{error}");
    let error = boxed.wait().unwrap_err();
    assert!(matches!(error.downcast_ref(), Some(Error::RolledBack { .. })), "{error}");
    assert!(matches!(costly.wait(), Err(Error::NotAllowed { .. })));

    let panicked = writer.blocking_submit(|_tx| -> Result<(), Refused> { panic!("on purpose") });
    assert!(matches!(panicked.wait(), Err(Refused::Storage(Error::Panicked { .. }))));
    writer.blocking_close().unwrap();
    let closed = writer.blocking_submit(|_tx| Ok::<_, Refused>(()));
    assert!(matches!(closed.wait(), Err(Refused::Storage(Error::Closed))));
    let read = writer.blocking_read(|_conn| Ok::<_, Refused>(()));
    assert!(matches!(read, Err(Refused::Storage(Error::Closed))));
}

/// SQLite's own "not authorized" says nothing. Who returns it as it is hears the reason; in an error of the caller's
/// own it stays what it is.
#[test]
fn what_a_closure_may_not_do_is_explained_where_that_can_be_seen() {
    let folder = tempfile::tempdir().unwrap();
    let writer = open(&folder);
    let plain = writer.blocking_submit(|tx| tx.execute_batch("COMMIT")).wait().unwrap_err();
    assert!(matches!(&plain, Error::NotAllowed { reason, .. } if reason.contains("commit")), "{plain}");
    let ours = writer.blocking_submit(|tx| -> Result<(), Error> { Ok(tx.execute_batch("COMMIT")?) }).wait();
    assert!(matches!(ours, Err(Error::NotAllowed { .. })), "{ours:?}");
    let own = writer.blocking_submit(|tx| -> Result<(), Refused> { Ok(tx.execute_batch("COMMIT")?) }).wait();
    assert!(matches!(own, Err(Refused::Sql(_))), "{own:?}");
    // One that has nothing to do with what was refused before it is left alone.
    let other = writer.blocking_submit(|tx| {
        let _ = tx.execute_batch("COMMIT");
        tx.execute("INSERT INTO nowhere VALUES (1)", [])
    });
    assert!(matches!(other.wait(), Err(Error::Sqlite { .. })));
    writer.blocking_close().unwrap();
}

#[test]
fn a_ticket_says_whether_it_is_done_and_a_timeout_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let writer = open(&folder);
    let held = hold(&writer);
    let ticket = insert(&writer, 1);
    assert!(!ticket.is_done());
    let ticket = ticket.wait_timeout(Duration::from_millis(10)).expect_err("the writer is held");
    let ticket = ticket.wait_timeout(Duration::ZERO).expect_err("the writer is held");
    held.release();
    let result = ticket.wait_timeout(Duration::from_secs(60)).expect("it is done by then");
    assert_eq!(result.unwrap(), 1);

    let ticket = insert(&writer, 2);
    while !ticket.is_done() {
        std::thread::yield_now();
    }
    assert_eq!(ticket.wait_timeout(Duration::ZERO).expect("it is done").unwrap(), 1);
    assert_eq!(insert(&writer, 3).wait_timeout(Duration::MAX).expect("it has no end").unwrap(), 1);

    // Waited for by reference, and once too often.
    let mut ticket = insert(&writer, 5);
    assert_eq!(pollster::block_on(&mut ticket).unwrap(), 1);
    assert!(ticket.is_done());
    assert!(matches!(ticket.wait(), Err(Error::InvalidInput { .. })));

    // It is woken, and does not only look when the time is up.
    let held = hold(&writer);
    let ticket = insert(&writer, 4);
    let waiting = std::thread::spawn(move || ticket.wait_timeout(Duration::from_secs(3600)));
    held.release();
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || tell.send(waiting.join()));
    let result = told.recv_timeout(Duration::from_secs(60)).expect("long before the time is up");
    assert_eq!(result.unwrap().expect("it is done").unwrap(), 1);

    writer.blocking_close().unwrap();
    let refused = insert(&writer, 6);
    assert!(refused.is_done());
    assert!(matches!(refused.wait_timeout(Duration::ZERO), Ok(Err(Error::Closed))));
}

#[test]
fn waiting_with_a_timeout_inside_a_closure_of_the_same_writer_says_that_it_would_wait_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let writer = open(&folder);
    let inside = writer.clone();
    let answer = writer.blocking_submit(move |_tx| {
        Ok::<_, Error>(
            insert(&inside, 1)
                .wait_timeout(Duration::from_secs(3600))
                .is_ok_and(|result| matches!(result, Err(Error::WouldDeadlock { .. }))),
        )
    });
    assert!(answer.wait().unwrap());
    writer.blocking_close().unwrap();
}

/// On the only thread of a runtime, whose other task has to get on meanwhile.
#[test]
fn a_read_and_a_close_that_are_awaited_block_no_thread_of_the_runtime() {
    let folder = tempfile::tempdir().unwrap();
    let writer = open(&folder);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        insert(&writer, 1).wait().unwrap();
        let (go, wait) = mpsc::channel::<()>();
        let reading = tokio::spawn({
            let writer = writer.clone();
            async move {
                let sum = move |conn: &rusqlite::Connection| {
                    wait.recv().map_err(|_| Error::operation("the other task has not got on"))?;
                    Ok::<i64, Error>(conn.query_row("SELECT sum(n) FROM t", [], |row| row.get(0))?)
                };
                writer.read(sum).await
            }
        });
        tokio::task::yield_now().await;
        go.send(()).unwrap();
        assert_eq!(reading.await.unwrap().unwrap(), 1);

        let held = hold(&writer);
        let last = insert(&writer, 2);
        let closing = tokio::spawn({
            let writer = writer.clone();
            async move { writer.close().await }
        });
        tokio::task::yield_now().await;
        held.release();
        closing.await.unwrap().unwrap();
        assert_eq!(last.await.unwrap(), 1, "what was submitted before is done");
        writer.close().await.unwrap();
    });
    assert_eq!(count(&open_again(&folder)), 2);
}

fn open_again(folder: &TempDir) -> Writer {
    Writer::open(folder.path().join("app.db")).unwrap()
}

/// A close that nobody waits for any more goes on.
#[test]
fn a_close_that_is_dropped_is_done_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let writer = open(&folder);
    let held = hold(&writer);
    {
        let mut closing = Box::pin(writer.close());
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(closing.as_mut().poll(&mut context).is_pending());
    }
    held.release();
    writer.blocking_close().unwrap();
    drop(writer);
    open_again(&folder).blocking_close().unwrap();
}

#[test]
fn a_close_that_is_awaited_inside_says_that_it_would_wait_for_itself() {
    let folder = tempfile::tempdir().unwrap();
    let writer = open(&folder);
    let inside = writer.clone();
    let closure = writer.blocking_submit(move |_tx| Ok::<_, Error>(pollster::block_on(inside.close())));
    assert!(matches!(closure.wait().unwrap(), Err(Error::WouldDeadlock { .. })));
    let inside = writer.clone();
    let read = writer.read(move |_conn| pollster::block_on(inside.close()));
    assert!(matches!(pollster::block_on(read), Err(Error::WouldDeadlock { .. })));
    assert_eq!(count(&writer), 0, "nothing was closed");
    writer.blocking_close().unwrap();
}

/// All connections may be those of reads that wait for one of these.
#[test]
fn a_read_that_is_awaited_inside_a_read_goes_on_or_says_that_it_would_wait_for_itself() {
    fn nested(writer: &Writer, levels: usize) -> Result<usize, Error> {
        let inside = writer.clone();
        pollster::block_on(writer.read(move |_conn| match levels {
            1 => Ok(1),
            _ => nested(&inside, levels - 1).map(|levels| levels + 1),
        }))
    }
    let folder = tempfile::tempdir().unwrap();
    let writer = WriterOptions::default().readers(2).open(folder.path().join("app.db")).unwrap();
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let _ = tell.send((nested(&writer, 2), nested(&writer, 3), nested(&writer, 2)));
    });
    let (two, three, again) = told.recv_timeout(Duration::from_secs(60)).expect("none waits for itself");
    assert!(matches!((two, again), (Ok(2), Ok(2))));
    assert!(matches!(three, Err(Error::WouldDeadlock { .. })));
}

#[test]
fn a_read_that_panics_does_so_where_it_is_awaited_and_harms_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let writer = open(&folder);
    let read = std::panic::AssertUnwindSafe(|| {
        pollster::block_on(writer.read(|_conn| -> Result<(), Error> { panic!("on purpose") }))
    });
    let panic = std::panic::catch_unwind(read).unwrap_err();
    assert_eq!(panic.downcast_ref(), Some(&"on purpose"));
    assert_eq!(count(&writer), 0);
    writer.blocking_close().unwrap();
}
