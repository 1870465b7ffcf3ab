//! Somebody else holds SQLite's write lock (a backup, a shell). For less than two seconds a batch waits for it;
//! for longer its callers are told to try again, and nothing that was there is gone.

use std::path::Path;
use std::time::{Duration, Instant};

use duroxide::providers::Provider;
use forebay::{Error, Forebay, Options, Writer};
use rusqlite::Connection;

use crate::at_work::AtWork;
use crate::engine_support::polled::Polled;
use crate::engine_support::{
    HOUR, LOCK, PATIENCE, Place, Turn, assert_says, begin, bounded, bounded_thread, completed, enqueue,
    fetch, raised, settle, start, started,
};

/// Half of what a batch waits.
const SHORT: Duration = Duration::from_secs(1);

/// The foreign connection, with the lock.
fn locked(path: &Path) -> Connection {
    let foreign = Connection::open(path).expect("it opens");
    foreign.busy_timeout(PATIENCE).expect("it is set");
    foreign.execute_batch("BEGIN IMMEDIATE").expect("the lock is free");
    foreign
}

fn unlock(foreign: &Connection) {
    foreign.execute_batch("COMMIT").expect("it lets go");
}

#[tokio::test]
async fn a_lock_for_less_than_two_seconds_only_delays() {
    let place = Place::new();
    let forebay = place.open(Options::default());
    begin(&forebay, "order", Turn::first("order")).await;
    let foreign = locked(&place.path());
    let began = Instant::now();
    let delayed = Polled::submitted(forebay.enqueue_for_orchestrator(raised("order", "bell"), None));
    assert!(!delayed.is_woken_within(SHORT / 2, 1), "answered although nothing could be written");
    unlock(&foreign);
    delayed.finish().expect("it is written once the lock is free");
    assert!(began.elapsed() >= SHORT / 2);
    assert_eq!(fetch(&forebay).await.expect("it is there").item.messages, [raised("order", "bell")]);
}

/// Everyone in the batch hears the same, retryable; what was leased, parked or acknowledged before is as it was,
/// and the same calls work as soon as the lock is free.
#[tokio::test]
async fn a_lock_for_longer_is_a_retryable_error_and_nothing_is_lost() {
    let place = Place::new();
    let forebay = place.open(Options::default());
    let held = AtWork::on(&forebay).await;
    let mut parked = Polled::submitted(forebay.fetch_orchestration_item(LOCK, HOUR, None));
    settle(&forebay).await;

    let foreign = locked(&place.path());
    for _ in 0..2 {
        held.is_rolled_back(&forebay, "locked");
    }
    let read = bounded(forebay.read("order")).await.expect("reads need no lock");
    assert_eq!(read.len(), 1, "nothing of the turn is there");
    assert!(parked.poll().is_none(), "there is nothing for it");
    unlock(&foreign);

    bounded(forebay.renew_orchestration_item_lock(&held.turn.token, LOCK)).await.expect("it is still leased");
    bounded(AtWork::done().ack(&forebay, &held.turn.token)).await.expect("it is taken");
    bounded(forebay.ack_work_item(&held.work.token, Some(completed("order", 2)))).await.expect("it is taken");
    let (item, _, attempt) = parked.finish().expect("it works").expect("there is something for it");
    assert_eq!((item.instance.as_str(), attempt), ("order", 1));
    assert_eq!(item.messages, [completed("order", 2)]);
    assert_eq!(bounded(forebay.read("order")).await.expect("it is read").len(), 2);
    assert!(fetch(&forebay).await.is_none(), "what was rolled back left no trace");
    forebay.close().expect("it closes");
}

/// A grant whose attempt cannot be counted is not handed out: the fetch hears of the lock, and whoever comes next
/// has the message, with the attempts that were made. The first attempt is in the row: it needs no lock.
#[tokio::test]
async fn a_grant_that_cannot_be_counted_is_not_made() {
    let place = Place::new();
    let forebay = place.open(Options::default());
    enqueue(&forebay, start("order")).await;
    let foreign = locked(&place.path());
    let turn = fetch(&forebay).await.expect("it is there");
    assert_eq!(turn.attempt, 1);
    bounded(forebay.abandon_orchestration_item(&turn.token, None, false)).await.expect("it is put back");
    let error = Polled::new(forebay.fetch_orchestration_item(LOCK, HOUR, None)).finish();
    assert!(error.expect_err("the attempt cannot be counted").is_retryable());
    unlock(&foreign);
    assert_eq!(fetch(&forebay).await.expect("it is there").attempt, 2);
}

#[test]
fn a_writer_hears_the_same() {
    let place = Place::new();
    let writer = Writer::open(place.path()).expect("it opens");
    writer.blocking_submit(|tx| tx.execute_batch("CREATE TABLE t (n INTEGER)")).wait().expect("it is made");
    let insert = |n: i64| writer.blocking_submit(move |tx| tx.execute("INSERT INTO t VALUES (?1)", [n]));
    let foreign = locked(&place.path());
    let tickets: Vec<_> = (1..=3).map(insert).collect();
    for ticket in tickets {
        let error = bounded_thread(move || ticket.wait()).expect_err("nothing can be written");
        assert!(matches!(error, Error::RolledBack { .. }) && error.is_retryable(), "{error}");
    }
    let waiting = insert(4);
    unlock(&foreign);
    bounded_thread(move || waiting.wait()).expect("the lock is free");
    let found: i64 =
        writer.blocking_read(|c| c.query_row("SELECT sum(n) FROM t", [], |row| row.get(0))).expect("read");
    assert_eq!(found, 4);
    writer.blocking_close().expect("it closes");
}

/// The log moves into the database although somebody holds the lock, and a close does not wait for ever.
#[tokio::test]
async fn a_checkpoint_and_a_close_under_a_foreign_lock_lose_nothing() {
    let place = Place::new();
    let forebay = place.open(Options::default().wal_bytes_max(16 << 10));
    begin(&forebay, "order", Turn::first("order")).await;
    let foreign = locked(&place.path());
    let checkpoints = forebay.stats().checkpoints;
    let began = Instant::now();
    while forebay.stats().checkpoints == checkpoints {
        assert!(began.elapsed() < PATIENCE, "no checkpoint although the engine is idle");
        std::thread::yield_now();
    }
    let error = Polled::new(forebay.enqueue_for_orchestrator(start("other"), None)).finish();
    assert!(error.expect_err("nothing can be written").is_retryable(), "the checkpoint broke nothing");
    unlock(&foreign);
    // Enough for the log to pass its limit again and again, with the lock taken and let go in between.
    for n in 0..30 {
        foreign.execute_batch("BEGIN IMMEDIATE").expect("the lock is free");
        let enqueued =
            Polled::submitted(forebay.enqueue_for_orchestrator(start(&format!("order {n}")), None));
        unlock(&foreign);
        enqueued.finish().expect("it is written");
    }
    foreign.execute_batch("BEGIN IMMEDIATE").expect("the lock is free");
    let closing = forebay.clone();
    bounded_thread(move || closing.close()).expect("it closes: the log keeps what is not in the database");
    unlock(&foreign);
    drop(foreign);
    let forebay = place.open(Options::default());
    for n in 0..30 {
        assert_eq!(fetch(&forebay).await.expect("it is there").item.instance, format!("order {n}"));
    }
    assert_eq!(bounded(forebay.read("order")).await.expect("it is read").len(), 1);
}

/// A reader that stays keeps the log from being moved, but nobody from writing.
#[tokio::test]
async fn a_foreign_reader_delays_a_checkpoint_and_nothing_else() {
    let place = Place::new();
    let forebay = place.open(Options::default().wal_bytes_max(16 << 10));
    let foreign = Connection::open(place.path()).expect("it opens");
    foreign.execute_batch("BEGIN; SELECT count(*) FROM instances").expect("it reads");
    for n in 0..50 {
        enqueue(&forebay, start(&format!("order {n}"))).await;
    }
    let closing = forebay.clone();
    bounded_thread(move || closing.close()).expect("it closes");
    drop(foreign);
    let forebay = place.open(Options::default());
    for n in 0..50 {
        assert_eq!(fetch(&forebay).await.expect("it is there").item.instance, format!("order {n}"));
    }
}

/// Opening waits for the lock if it has to write, and says what is in the way if that takes too long. The first
/// version did not wait: SQLite answers a change of the journal mode at once.
#[tokio::test]
async fn a_file_that_is_locked_while_it_is_opened() {
    let place = Place::new();
    let foreign = locked(&place.path());
    let (path, began) = (place.path(), Instant::now());
    let error = bounded_thread(move || Forebay::open(path)).expect_err("a schema has to be made");
    assert_says(&error, &["locked", &place.path().display().to_string()]);
    assert!(began.elapsed() >= SHORT, "it did not wait");
    let path = place.path();
    let opening = started(move || Forebay::open(path));
    assert!(opening.recv_timeout(SHORT / 2).is_err(), "it does not wait");
    unlock(&foreign);
    let forebay = opening.recv_timeout(PATIENCE).expect("in time").expect("the lock is free");
    enqueue(&forebay, start("order")).await;
    forebay.close().expect("it closes");

    // One that has its schema has nothing to write.
    foreign.execute_batch("BEGIN IMMEDIATE").expect("the lock is free");
    let path = place.path();
    let forebay = bounded_thread(move || Forebay::open(path)).expect("nothing has to be written");
    unlock(&foreign);
    assert_eq!(fetch(&forebay).await.expect("it is there").item.instance, "order");
}

/// The embedder's own file, not in WAL mode yet, with somebody at work in it.
#[test]
fn a_writer_waits_for_the_lock_when_it_opens_too() {
    let place = Place::new();
    let foreign = locked(&place.path());
    let path = place.path();
    let opening = started(move || Writer::open(path));
    assert!(opening.recv_timeout(SHORT / 2).is_err(), "it does not wait");
    foreign.execute_batch("CREATE TABLE t (n INTEGER); COMMIT").expect("it lets go");
    let writer = opening.recv_timeout(PATIENCE).expect("in time").expect("the lock is free");
    writer
        .blocking_submit(|tx| tx.execute("INSERT INTO t VALUES (1)", []))
        .wait()
        .expect("the table is there");
    writer.blocking_close().expect("it closes");
}
