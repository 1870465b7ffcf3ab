//! The writer thread panics, wherever it is: every caller hears it, whoever waits is woken, closing comes back,
//! and a reopen in the same process has everything that was acknowledged.
//!
//! The panic comes out of the clock, which the writer looks at in every phase that it has: between two
//! batches, before the first operation, before and after the commit. A store that panics in any of its methods
//! is in `src/buffer/tests.rs`; here are the real ones.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use duroxide::providers::{Provider, TagFilter};
use forebay::clock::Clock;
use forebay::{Error, Forebay, Options, Writer, WriterOptions};

use crate::engine_support::polled::Polled;
use crate::engine_support::{
    HOUR, LOCK, PATIENCE, Place, START_MS, Turn, activity, begin, bounded, bounded_thread, enqueue, fetch,
    fetch_work, heard, raised, settle, start,
};

/// The machine's clock, until the writer has looked at it so many times more.
#[derive(Debug, Clone)]
struct Fuse {
    began: Instant,
    /// Looks left; 0 once it is burnt.
    left: Arc<AtomicU64>,
}

impl Fuse {
    fn new() -> Self {
        Self { began: Instant::now(), left: Arc::new(AtomicU64::new(u64::MAX)) }
    }

    /// The writer panics when it looks for the `looks`th time from now.
    fn light(&self, looks: u64) {
        self.left.store(looks, Ordering::SeqCst);
    }

    fn is_burnt(&self) -> bool {
        self.left.load(Ordering::SeqCst) == 0
    }
}

impl Clock for Fuse {
    fn monotonic(&self) -> Duration {
        let is_writer = std::thread::current().name() == Some("forebay-writer");
        if is_writer
            && self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)) == Ok(1)
        {
            panic!("the fuse is burnt (this test means it to)");
        }
        self.began.elapsed()
    }

    fn wall_ms(&self) -> u64 {
        START_MS
    }
}

/// A call that came to nothing says so, and does not ask to be repeated.
fn assert_lost(error: &duroxide::providers::ProviderError) {
    assert!(!error.is_retryable(), "{error}");
    assert!(error.message.contains("outcome unknown") || error.message.contains("failed earlier"), "{error}");
}

/// Everything that holds of an engine that has failed.
async fn assert_failed(forebay: &Forebay) {
    let error =
        bounded(forebay.enqueue_for_orchestrator(start("late"), None)).await.expect_err("it has failed");
    assert!(error.message.contains("failed earlier") && !error.is_retryable(), "{error}");
    bounded(forebay.read("order")).await.expect_err("reads are refused too");
    let closing = forebay.clone();
    let closed = bounded_thread(move || closing.close());
    assert!(matches!(closed, Err(Error::Failed { .. })), "{closed:?}");
}

/// Writes, fetches that find nothing, and the panic in one batch: it begins when all of them are there.
#[tokio::test]
async fn an_engine_whose_writer_panics_between_two_operations() {
    let place = Place::new();
    let forebay = place.open(Options::default());
    begin(&forebay, "order", Turn::first("order")).await;
    forebay.close().expect("it closes");

    let forebay = place.open(Options::default().batch_ops_max(6).commit_delay(PATIENCE));
    let tags = TagFilter::tags(["none"]);
    let turn_parked = Polled::submitted(forebay.fetch_orchestration_item(LOCK, HOUR, None));
    let work_parked = Polled::submitted(forebay.fetch_work_item(LOCK, HOUR, None, &tags));
    let writes = [
        Polled::submitted(forebay.enqueue_for_orchestrator(start("other"), None)),
        Polled::submitted(forebay.enqueue_for_worker(activity("order", 3))),
        Polled::submitted(forebay.append_with_execution("order", 1, vec![heard("order", 2, "ring")])),
    ];
    let mine = forebay.clone();
    let error = bounded_thread(move || {
        mine.on_writer_connection(|_| -> () { panic!("in the writer (this test means it to)") })
    });
    let error = error.expect_err("it panicked");
    assert!(matches!(error, Error::OutcomeUnknown { .. }), "{error}");
    for call in writes {
        let error = call.finish().expect_err("nobody knows");
        assert!(error.message.contains("outcome unknown"), "{error}");
        assert_lost(&error);
    }
    assert_lost(&turn_parked.finish().expect_err("it is woken"));
    assert_lost(&work_parked.finish().expect_err("it is woken"));
    assert_failed(&forebay).await;

    let forebay = place.open(Options::default());
    assert_eq!(bounded(forebay.read("order")).await.expect("it is read").len(), 1, "what was acknowledged");
    assert!(fetch(&forebay).await.is_none() && fetch_work(&forebay).await.is_none(), "nothing of the batch");
}

/// At every look at the clock in turn, through many batches, an idle time and a checkpoint.
#[tokio::test]
async fn an_engine_whose_writer_panics_anywhere() {
    for looks in 1..=40 {
        let place = Place::new();
        let fuse = Fuse::new();
        let forebay = place.open(Options::default().wal_bytes_max(16 << 10).clock(fuse.clone()));
        begin(&forebay, "order", Turn::first("order")).await;
        let tags = TagFilter::tags(["none"]);
        let parked = Polled::submitted(forebay.fetch_work_item(LOCK, HOUR, None, &tags));
        settle(&forebay).await;
        fuse.light(looks);
        // Each is acknowledged before the next is submitted.
        let mut acknowledged = 0;
        let mut last = None;
        while last.is_none() {
            let event = heard("order", acknowledged + 2, "ring");
            match bounded(forebay.append_with_execution("order", 1, vec![event])).await {
                Ok(()) => acknowledged += 1,
                Err(error) => last = Some(error),
            }
        }
        assert!(fuse.is_burnt());
        assert_lost(&last.expect("it ended"));
        assert_lost(&parked.finish().expect_err("it is woken"));
        assert_failed(&forebay).await;

        let forebay = place.open(Options::default());
        let found = bounded(forebay.read("order")).await.expect("it is read").len() as u64 - 1;
        // The one whose outcome was unknown may be there.
        assert!(found == acknowledged || found == acknowledged + 1, "{found} of {acknowledged} at {looks}");
        enqueue(&forebay, raised("order", "bell")).await;
        assert!(fetch(&forebay).await.is_some(), "it runs");
    }
}

/// The same for closures.
#[test]
fn a_writer_whose_thread_panics_anywhere() {
    for looks in 1..=40 {
        let place = Place::new();
        let fuse = Fuse::new();
        let options = WriterOptions::default().wal_bytes_max(16 << 10).clock(fuse.clone());
        let writer = options.open(place.path()).expect("opens");
        writer
            .blocking_submit(|tx| tx.execute_batch("CREATE TABLE t (n INTEGER)"))
            .wait()
            .expect("it is made");
        fuse.light(looks);
        let mut acknowledged = 0;
        let error = loop {
            let insert =
                |n: i64| writer.blocking_submit(move |tx| tx.execute("INSERT INTO t VALUES (?1), (?1)", [n]));
            let (one, other) = (insert(acknowledged), insert(acknowledged + 1));
            let waited = bounded_thread(move || (one.wait(), other.wait()));
            match waited {
                (Ok(2), Ok(2)) => acknowledged += 2,
                (Ok(2), Err(error)) => {
                    acknowledged += 1;
                    break error;
                }
                (Err(error), Err(_)) => break error,
                other => panic!("{other:?}"),
            }
        };
        assert!(fuse.is_burnt());
        assert!(matches!(error, Error::OutcomeUnknown { .. } | Error::Failed { .. }), "{error}");
        let refused = writer.blocking_submit(|_| Ok::<_, Error>(())).wait().expect_err("it has failed");
        assert!(matches!(refused, Error::Failed { .. }), "{refused}");
        assert!(matches!(writer.blocking_read(|_| Ok::<_, Error>(())), Err(Error::Failed { .. })));
        let closing = writer.clone();
        assert!(matches!(bounded_thread(move || closing.blocking_close()), Err(Error::Failed { .. })));

        let writer = Writer::open(place.path()).expect("it opens again");
        let count =
            |c: &rusqlite::Connection| c.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0));
        let found = writer.blocking_read(count).expect("it is read");
        let whole = [0, 2, 4].map(|more| acknowledged * 2 + more);
        assert!(whole.contains(&found), "{found} rows of {acknowledged} closures at {looks}");
        writer.blocking_submit(|tx| tx.execute("INSERT INTO t VALUES (7)", [])).wait().expect("it works");
    }
}
