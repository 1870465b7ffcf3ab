//! Waiting inside of what one waits for: told so at once instead of for ever, and nothing is lost by it.

mod writer_support;

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use forebay::{Error, Ticket, Writer, WriterOptions};
use tempfile::TempDir;
use writer_support::hold;

/// A hang is a minute.
const PATIENCE: Duration = Duration::from_secs(60);

fn open(folder: &TempDir, options: WriterOptions) -> Writer {
    let writer = options.open(folder.path().join("app.db")).unwrap();
    bounded(writer.blocking_submit(|tx| tx.execute_batch("CREATE TABLE t (n INTEGER PRIMARY KEY)"))).unwrap();
    writer
}

fn within<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, was_done) = mpsc::channel();
    thread::spawn(move || done.send(work()));
    was_done.recv_timeout(PATIENCE).expect("it hangs")
}

fn bounded<T: Send + 'static>(ticket: Ticket<T>) -> Result<T, Error> {
    within(move || ticket.wait())
}

fn insert(writer: &Writer, n: i64) -> Ticket<usize> {
    writer.blocking_submit(move |tx| tx.execute("INSERT INTO t VALUES (?1)", [n]))
}

fn count(writer: &Writer) -> i64 {
    writer.blocking_read(|conn| conn.query_row("SELECT count(*) FROM t", [], |row| row.get(0))).unwrap()
}

fn assert_would_deadlock<T: std::fmt::Debug>(answer: Result<T, Error>, what: &str) {
    let error = answer.unwrap_err();
    assert!(matches!(error, Error::WouldDeadlock { .. }) && !error.is_retryable(), "{error}");
    assert!(format!("{error:#}").contains(what) && format!("{error:#}").contains("for ever"), "{error}");
}

#[test]
fn a_closure_cannot_wait_for_a_ticket_of_its_own_writer() {
    let folder = tempfile::tempdir().unwrap();
    let writer = open(&folder, WriterOptions::default());
    let inside = writer.clone();
    let answer = bounded(writer.blocking_submit(move |_tx| {
        let waited = insert(&inside, 1).wait();
        let awaited = pollster::block_on(insert(&inside, 2));
        let both = pollster::block_on(async { inside.submit(|_tx| Ok::<_, Error>(())).await.await });
        // Of its own accord a closure fails; here it goes on.
        Ok::<_, Error>((waited, awaited, both))
    }));
    let (waited, awaited, both) = answer.unwrap();
    assert_would_deadlock(waited, "ticket");
    assert_would_deadlock(awaited, "ticket");
    assert_would_deadlock(both, "ticket");
    within(move || writer.blocking_close().map(|()| drop(writer))).unwrap();
    // What was submitted was submitted.
    let writer = Writer::open(folder.path().join("app.db")).unwrap();
    assert_eq!(count(&writer), 2);
}

#[test]
fn a_ticket_made_in_a_closure_can_be_awaited_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let writer = open(&folder, WriterOptions::default());
    let inside = writer.clone();
    let ticket = bounded(writer.blocking_submit(move |_tx| Ok::<_, Error>(insert(&inside, 1)))).unwrap();
    assert_eq!(bounded(ticket).unwrap(), 1);
}

#[test]
fn a_closure_may_wait_for_another_writer() {
    let (folder, other_folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (writer, other) =
        (open(&folder, WriterOptions::default()), open(&other_folder, WriterOptions::default()));
    let elsewhere = other.clone();
    let answer = bounded(writer.blocking_submit(move |_tx| insert(&elsewhere, 1).wait()));
    assert_eq!(answer.unwrap(), 1);
    assert_eq!(count(&other), 1);
}

#[test]
fn a_closure_cannot_wait_for_room_in_its_own_buffer() {
    let folder = tempfile::tempdir().unwrap();
    let writer = open(&folder, WriterOptions::default().buffer_ops_max(1));
    let inside = writer.clone();
    let answer = bounded(writer.blocking_submit(move |_tx| {
        let fits = insert(&inside, 1);
        let blocked = insert(&inside, 2);
        let suspended = pollster::block_on(inside.submit(|_tx| Ok::<_, Error>(())));
        let refused = inside.try_submit(|_tx| Ok::<_, Error>(()));
        Ok::<_, Error>((fits, blocked, suspended, refused.map(drop).map_err(Error::from)))
    }));
    let (fits, blocked, suspended, refused) = answer.unwrap();
    assert_eq!(bounded(fits).unwrap(), 1);
    assert_would_deadlock(bounded(blocked), "buffer is full");
    assert_would_deadlock(bounded(suspended), "buffer is full");
    assert!(matches!(refused, Err(Error::Full)));
    assert_eq!(count(&writer), 1, "what did not fit was not submitted");
}

#[test]
fn a_writer_is_not_closed_from_inside() {
    let folder = tempfile::tempdir().unwrap();
    let writer = open(&folder, WriterOptions::default());
    let inside = writer.clone();
    let answer = bounded(writer.blocking_submit(move |_tx| Ok::<_, Error>(inside.blocking_close()))).unwrap();
    assert_would_deadlock(answer, "closing");
    let reading = writer.clone();
    let answer =
        within(move || reading.blocking_read(|_conn| Ok::<_, Error>(reading.blocking_close()))).unwrap();
    assert_would_deadlock(answer, "closing");
    // Nothing was closed.
    bounded(insert(&writer, 1)).unwrap();
    assert_eq!(count(&writer), 1);
    within(move || writer.blocking_close()).unwrap();
}

#[test]
fn a_database_that_is_being_closed_is_not_opened_again_from_inside() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    let writer = open(&folder, WriterOptions::default());
    let (entered, inside) = mpsc::channel();
    let (closing, is_closing) = mpsc::channel::<()>();
    let reopened = path.clone();
    let handle = writer.clone();
    let ticket = writer.blocking_submit(move |_tx| {
        entered.send(()).map_err(|_| Error::operation("the test has gone"))?;
        let _ = is_closing.recv();
        // Refused from the moment on at which the close has begun, and before that when it is full.
        while !handle
            .try_submit(|_tx| Ok::<_, Error>(()))
            .is_err_and(|refused| matches!(refused.error(), Error::Closed))
        {
            thread::yield_now();
        }
        Ok::<_, Error>(Writer::open(reopened).map(drop))
    });
    inside.recv().unwrap();
    let closer = thread::spawn(move || writer.blocking_close());
    closing.send(()).unwrap();
    assert_would_deadlock(bounded(ticket).unwrap(), "opening");
    within(move || closer.join().unwrap()).unwrap();
    Writer::open(path).unwrap();
}

#[test]
fn the_last_handle_may_go_in_a_closure() {
    let folder = tempfile::tempdir().unwrap();
    let writer = open(&folder, WriterOptions::default());
    let held = hold(&writer);
    let last = writer.clone();
    let ticket = writer.blocking_submit(move |tx| {
        tx.execute("INSERT INTO t VALUES (1)", [])?;
        drop(last);
        Ok::<_, Error>(())
    });
    drop(writer);
    within(move || held.release());
    bounded(ticket).unwrap();
    let path = folder.path().join("app.db");
    let writer = within(move || Writer::open(path)).unwrap();
    assert_eq!(count(&writer), 1);
}

#[test]
fn a_read_may_write_and_wait() {
    let folder = tempfile::tempdir().unwrap();
    let writer = open(&folder, WriterOptions::default());
    let reading = writer.clone();
    let answer = within(move || reading.blocking_read(|_conn| insert(&reading, 1).wait()));
    assert_eq!(answer.unwrap(), 1);
}
