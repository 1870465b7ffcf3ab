//! The database file is removed, or replaced, while it is open. SQLite goes on with the file it holds, which
//! nobody will ever open again; the engine looks whether its path still names it (before a checkpoint, at close,
//! and every 100 ms while it is busy), and fails instead of acknowledging what is as good as gone.
//!
//! What was acknowledged up to that look is lost with the file: nobody can promise otherwise.

use std::fs;

use duroxide::providers::Provider;
use forebay::clock::ManualClock;
use forebay::{Error, Forebay, Options, WriterOptions};

use crate::engine_support::polled::Polled;
use crate::engine_support::{
    HOUR, LOCK, MILLISECOND, Place, START_MS, Turn, assert_says, begin, bounded, bounded_thread, enqueue,
    fetch, settle, start,
};

#[derive(Debug, Clone, Copy)]
enum Fate {
    Removed,
    Replaced,
}

const FATES: [(Fate, &str); 2] = [(Fate::Removed, "was removed"), (Fate::Replaced, "was replaced")];

fn befall(place: &Place, fate: Fate) {
    match fate {
        Fate::Removed => fs::remove_file(place.path()).expect("it is removed"),
        Fate::Replaced => {
            fs::write(place.file("other.db"), "").expect("it is written");
            fs::rename(place.file("other.db"), place.path()).expect("it is replaced");
        }
    }
}

fn close(forebay: &Forebay) -> Result<(), Error> {
    let forebay = forebay.clone();
    bounded_thread(move || forebay.close())
}

/// The next commit says so, once the last look is 100 ms old; everyone who waits is woken.
#[tokio::test]
async fn a_busy_engine_whose_file_is_gone_fails() {
    for (fate, says) in FATES {
        let place = Place::new();
        let clock = ManualClock::new(START_MS);
        let forebay = place.open(Options::default().clock(clock.clone()));
        begin(&forebay, "order", Turn::first("order")).await;
        let parked = Polled::submitted(forebay.fetch_orchestration_item(LOCK, HOUR, None));
        settle(&forebay).await;
        befall(&place, fate);
        clock.advance(100 * MILLISECOND);
        let call = forebay.enqueue_for_orchestrator(start("other"), None);
        let error = bounded(call).await.expect_err("it would be in a file that nobody can open");
        assert!(error.message.contains(says) && !error.is_retryable(), "{error}");
        assert!(parked.finish().expect_err("it is woken").message.contains(says));
        bounded(forebay.read("order")).await.expect_err("reads are refused too");
        assert!(matches!(close(&forebay), Err(Error::Failed { .. })));
    }
}

/// An idle one notices when it is about to checkpoint, with no call made.
#[tokio::test]
async fn an_idle_engine_whose_file_is_gone_fails() {
    for (fate, says) in FATES {
        let place = Place::new();
        let forebay = place.open(Options::default());
        begin(&forebay, "order", Turn::first("order")).await;
        let parked = Polled::submitted(forebay.fetch_orchestration_item(LOCK, HOUR, None));
        befall(&place, fate);
        let error = parked.finish().expect_err("it is woken");
        assert!(error.message.contains(says), "{error}");
        assert!(matches!(close(&forebay), Err(Error::Failed { .. })));
    }
}

/// Closing says so too, and leaves the log that lies beside a file that is not ours alone.
#[tokio::test]
async fn closing_tells_that_the_file_is_gone() {
    for (fate, says) in FATES {
        let place = Place::new();
        let clock = ManualClock::new(START_MS);
        let forebay = place.open(Options::default().clock(clock));
        begin(&forebay, "order", Turn::first("order")).await;
        befall(&place, fate);
        assert_says(&close(&forebay).expect_err("it is gone"), &[says, &place.path().display().to_string()]);
        assert!(place.wal_bytes() > 0, "the log was removed");
    }
}

#[test]
fn a_writer_whose_file_is_gone_fails() {
    for (fate, says) in FATES {
        let place = Place::new();
        let clock = ManualClock::new(START_MS);
        let writer = WriterOptions::default().clock(clock.clone()).open(place.path()).expect("it opens");
        let create = |tx: &rusqlite::Transaction<'_>| tx.execute_batch("CREATE TABLE t (n INTEGER)");
        writer.blocking_submit(create).wait().expect("it is made");
        befall(&place, fate);
        clock.advance(100 * MILLISECOND);
        let error = writer.blocking_submit(|tx| tx.execute("INSERT INTO t VALUES (1)", [])).wait();
        let error = error.expect_err("it would be in a file that nobody can open");
        assert!(matches!(error, Error::OutcomeUnknown { .. }), "{error}");
        let source = std::error::Error::source(&error).and_then(|source| source.downcast_ref());
        assert!(matches!(source, Some(Error::Gone { .. })), "{error:?}");
        let closed = writer.blocking_close().expect_err("it has failed");
        assert!(matches!(closed, Error::Failed { .. }), "{closed}");
        for error in [error, closed] {
            assert_says(&error, &[says, "gone from that path", "put the file back before opening it again"]);
            // Which would make an empty one, or take the other one.
            assert!(!format!("{error:#}").contains("reopen"), "{error}");
        }
    }
}

/// All of its files removed: a new database can be opened at the same path in the same process, and is empty.
#[tokio::test]
async fn a_new_database_can_take_the_place_of_one_that_is_gone() {
    let place = Place::new();
    let forebay = place.open(Options::default());
    begin(&forebay, "order", Turn::first("order")).await;
    for name in ["app.db", "app.db-wal", "app.db-shm"] {
        fs::remove_file(place.file(name)).expect("it is removed");
    }
    close(&forebay).expect_err("it is gone");
    let forebay = place.open(Options::default());
    assert_eq!(bounded(forebay.read("order")).await, Ok(vec![]), "a new one");
    enqueue(&forebay, start("other")).await;
    close(&forebay).expect("it closes");
    let forebay = place.open(Options::default());
    assert_eq!(fetch(&forebay).await.expect("it is there").item.instance, "other");
}

/// The log alone removed: what was committed is moved into the database, and the engine refuses all further work.
/// (Should the process die before it looks, the log is gone, and what it held.)
#[tokio::test]
async fn a_log_that_is_removed_is_moved_into_the_database_and_the_engine_fails() {
    let place = Place::new();
    let clock = ManualClock::new(START_MS);
    let forebay = place.open(Options::default().clock(clock.clone()));
    begin(&forebay, "order", Turn::first("order")).await;
    bounded(forebay.read("order")).await.expect("a reader has the log open");
    enqueue(&forebay, start("other")).await;
    fs::remove_file(place.file("app.db-wal")).expect("it is removed");
    clock.advance(100 * MILLISECOND);
    let error = bounded(forebay.enqueue_for_orchestrator(start("late"), None)).await;
    let error = error.expect_err("it would be in a log that nobody can open");
    assert!(
        error.message.contains("outcome unknown") && error.message.contains("-wal was removed"),
        "{error}"
    );
    close(&forebay).expect_err("it has failed");
    let forebay = place.open(Options::default());
    assert_eq!(bounded(forebay.read("order")).await.expect("it is read").len(), 1);
    assert_eq!(fetch(&forebay).await.expect("it is there").item.instance, "other");
}
