//! Random mixes of succeeding, failing, panicking, slow and dropped submissions from many threads: the file
//! holds exactly what the successful ones wrote, in the order in which each thread submitted them, and every
//! ticket resolves once, with the result of its own closure.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use forebay::{Error, Writer, WriterOptions};
use proptest::collection::vec;
use proptest::prelude::*;

#[derive(Debug, Clone, Copy)]
enum Kind {
    Succeeds,
    /// Writes its row first, then fails: the row must not stay.
    Fails,
    Panics,
    BreaksAConstraint,
    TriesToCommit,
    /// Keeps the writer busy, so that others gather behind it.
    Slow,
}

#[derive(Debug, Clone, Copy)]
struct Step {
    kind: Kind,
    /// Whether anybody waits for the ticket.
    dropped: bool,
    /// Which of the three ways in it takes.
    entrance: u8,
}

fn step() -> impl Strategy<Value = Step> {
    let kind = prop_oneof![
        6 => Just(Kind::Succeeds),
        2 => Just(Kind::Fails),
        1 => Just(Kind::Panics),
        1 => Just(Kind::BreaksAConstraint),
        1 => Just(Kind::TriesToCommit),
        1 => Just(Kind::Slow),
    ];
    (kind, prop::bool::weighted(0.2), 0u8..3).prop_map(|(kind, dropped, entrance)| Step {
        kind,
        dropped,
        entrance,
    })
}

fn run(
    tx: &rusqlite::Transaction<'_>,
    kind: Kind,
    thread: u32,
    n: u32,
    ran: &AtomicU32,
) -> Result<u32, Error> {
    ran.fetch_add(1, Ordering::SeqCst);
    tx.execute("INSERT INTO t (thread, n) VALUES (?1, ?2)", [thread, n])?;
    match kind {
        Kind::Succeeds => Ok(n),
        Kind::Slow => {
            thread::sleep(Duration::from_millis(1));
            Ok(n)
        }
        Kind::Fails => Err(Error::operation("refused")),
        Kind::Panics => std::panic::resume_unwind(Box::new("quietly")),
        Kind::BreaksAConstraint => tx
            .execute("INSERT INTO t (thread, n) VALUES (?1, ?2)", [thread, n])
            .map(|_rows| n)
            .map_err(Error::from),
        Kind::TriesToCommit => tx.execute("COMMIT", []).map(|_rows| n).map_err(Error::from),
    }
}

fn succeeds(kind: Kind) -> bool {
    matches!(kind, Kind::Succeeds | Kind::Slow)
}

fn is_expected(kind: Kind, n: u32, result: &Result<u32, Error>) -> bool {
    match (kind, result) {
        (Kind::Succeeds | Kind::Slow, Ok(value)) => *value == n,
        (Kind::Fails, Err(Error::Operation { .. }))
        | (Kind::Panics, Err(Error::Panicked { .. }))
        | (Kind::BreaksAConstraint, Err(Error::Sqlite { .. }))
        | (Kind::TriesToCommit, Err(Error::NotAllowed { .. })) => true,
        _ => false,
    }
}

/// Submits the steps of one thread, then waits for the tickets it kept. Returns the first wrong result.
fn submit_all(writer: &Writer, thread: u32, steps: &[Step], ran: &Arc<AtomicU32>) -> Option<String> {
    let mut kept = Vec::new();
    for (n, step) in (0..).zip(steps.iter().copied()) {
        let ran = Arc::clone(ran);
        let operation = move |tx: &rusqlite::Transaction<'_>| run(tx, step.kind, thread, n, &ran);
        let ticket = match step.entrance {
            0 => writer.blocking_submit(operation),
            1 => pollster::block_on(writer.submit(operation)),
            _ => match writer.try_submit(operation) {
                Ok(ticket) => ticket,
                Err(refused) if matches!(refused.error(), Error::Full) => {
                    writer.blocking_submit(refused.into_inner())
                }
                Err(other) => return Some(format!("try_submit: {other}")),
            },
        };
        if !step.dropped {
            kept.push((n, step.kind, ticket));
        }
    }
    kept.into_iter().find_map(|(n, kind, ticket)| {
        let result = ticket.wait();
        (!is_expected(kind, n, &result)).then(|| format!("thread {thread} step {n} {kind:?}: {result:?}"))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_file_holds_the_successful_ones_in_order(
        threads in vec(vec(step(), 0..40), 1..8),
        batch_ops_max in 1usize..20,
        buffer_ops_max in 1usize..20,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let options = WriterOptions::default().batch_ops_max(batch_ops_max).buffer_ops_max(buffer_ops_max);
        let writer = options.open(folder.path().join("app.db")).unwrap();
        let sql = "CREATE TABLE t (id INTEGER PRIMARY KEY, thread INTEGER, n INTEGER, UNIQUE (thread, n))";
        writer.blocking_submit(move |tx| tx.execute_batch(sql)).wait().unwrap();

        let ran = Arc::new(AtomicU32::new(0));
        let wrong: Vec<String> = thread::scope(|scope| {
            let running: Vec<_> = (0..)
                .zip(&threads)
                .map(|(thread, steps)| {
                    let (writer, ran) = (&writer, &ran);
                    scope.spawn(move || submit_all(writer, thread, steps, ran))
                })
                .collect();
            running.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
        });
        prop_assert!(wrong.is_empty(), "{:?}", wrong);

        // Dropped tickets too: closing completes what was submitted.
        writer.blocking_close().unwrap();
        let submitted: usize = threads.iter().map(Vec::len).sum();
        prop_assert_eq!(ran.load(Ordering::SeqCst) as usize, submitted, "each closure runs exactly once");
        let connection = rusqlite::Connection::open(folder.path().join("app.db")).unwrap();
        for (thread, steps) in (0u32..).zip(&threads) {
            let mut statement = connection.prepare("SELECT n FROM t WHERE thread = ?1 ORDER BY id").unwrap();
            let rows = statement.query_map([thread], |row| row.get(0)).unwrap();
            let found: Vec<u32> = rows.map(Result::unwrap).collect();
            let expected: Vec<u32> = (0..)
                .zip(steps)
                .filter(|(_, step)| succeeds(step.kind))
                .map(|(n, _)| n)
                .collect();
            prop_assert_eq!(found, expected, "thread {}", thread);
        }
    }
}
