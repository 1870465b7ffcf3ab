//! Work 7: transactions of one row from many threads, as an embedder of SQLite has them.
//!
//! `Writer` against what one writes without it: one transaction a row, on a connection behind a mutex or on
//! one of a pool. The third, tokio-rusqlite, is in `benches/peers-writer/`.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use forebay::{Durability, Ticket, WriterOptions};
use parking_lot::Mutex;
use rusqlite::{Connection, ErrorCode, params};

use crate::driver::figures;
use crate::driver::job::{Job, Outcome, WriterLoad};
use crate::driver::scale::file_in;
use crate::driver::subject::Problem;
use crate::plain::{self, BODY, CREATE, Done, INSERT};

/// How long a connection of the pool waits for the others before SQLite says "database is locked".
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) fn run(job: &Job, load: &WriterLoad) -> Result<Outcome, Problem> {
    let file = file_in(&job.folder);
    match job.subject.as_str() {
        "writer-full" => through_writer(&file, load, Durability::Full),
        "writer-normal" => through_writer(&file, load, Durability::Normal),
        "mutex-full" => through_mutex(&file, load, "FULL"),
        "mutex-normal" => through_mutex(&file, load, "NORMAL"),
        "pool-full" => through_pool(&file, load, "FULL"),
        "pool-normal" => through_pool(&file, load, "NORMAL"),
        other => Err(format!("no such subject: {other}").into()),
    }
}

fn through_writer(file: &Path, load: &WriterLoad, durability: Durability) -> Result<Outcome, Problem> {
    // Nothing but the durability is set: what is measured is what a user gets.
    let writer = WriterOptions::default().durability(durability).open(file)?;
    writer.blocking_submit(|tx| tx.execute_batch(CREATE)).wait()?;
    let before = writer.stats();
    let mut outcome = on_threads(load, |number, stop| {
        let mut waiting: VecDeque<(Instant, Ticket<()>)> = VecDeque::new();
        let mut done = Done::default();
        while !stop.load(Ordering::Relaxed) {
            let submitted = Instant::now();
            let ticket = writer.blocking_submit(move |tx| {
                tx.prepare_cached(INSERT)?.execute(params![number, BODY])?;
                Ok::<_, forebay::Error>(())
            });
            waiting.push_back((submitted, ticket));
            if waiting.len() >= load.in_flight_a_thread
                && let Some((submitted, ticket)) = waiting.pop_front()
            {
                ticket.wait()?;
                done.add(submitted, stop);
            }
        }
        for (submitted, ticket) in waiting {
            ticket.wait()?;
            done.add(submitted, stop);
        }
        Ok(done)
    })?;
    let after = writer.stats();
    let operations = (after.operations - before.operations) as f64;
    outcome.set(figures::OPERATIONS_A_BATCH, operations / (after.batches - before.batches) as f64);
    writer.blocking_close()?;
    Ok(outcome)
}

fn through_mutex(file: &Path, load: &WriterLoad, synchronous: &str) -> Result<Outcome, Problem> {
    let connection = plain::open(file, synchronous)?;
    connection.execute_batch(CREATE)?;
    let connection = Mutex::new(connection);
    on_threads(load, |number, stop| {
        let mut done = Done::default();
        while !stop.load(Ordering::Relaxed) {
            let submitted = Instant::now();
            plain::insert(&connection.lock(), number)?;
            done.add(submitted, stop);
        }
        Ok(done)
    })
}

/// As many connections as threads: nobody waits for one, only for SQLite's lock.
fn through_pool(file: &Path, load: &WriterLoad, synchronous: &str) -> Result<Outcome, Problem> {
    let connect = |_number| {
        let connection = plain::open(file, synchronous)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        Ok(Mutex::new(connection))
    };
    let pool: Vec<Mutex<Connection>> = (0..load.threads).map(connect).collect::<rusqlite::Result<_>>()?;
    pool.first().ok_or("no threads")?.lock().execute_batch(CREATE)?;
    let busy = AtomicU64::new(0);
    let mut outcome = on_threads(load, |number, stop| {
        // Never contended: each thread has its own.
        let connection = pool[number as usize].lock();
        let mut done = Done::default();
        while !stop.load(Ordering::Relaxed) {
            let submitted = Instant::now();
            while let Err(error) = plain::insert(&connection, number) {
                // It is the BEGIN that is refused, so there is nothing to undo before the next attempt.
                if error.sqlite_error_code() != Some(ErrorCode::DatabaseBusy) {
                    return Err(error.into());
                }
                busy.fetch_add(1, Ordering::Relaxed);
            }
            done.add(submitted, stop);
        }
        Ok(done)
    })?;
    outcome.set(plain::BUSY_ERRORS, busy.into_inner() as f64);
    Ok(outcome)
}

/// Runs `body` on as many threads as asked, tells them when to stop, and sums up what they did.
fn on_threads(
    load: &WriterLoad,
    body: impl Fn(u32, &AtomicBool) -> Result<Done, Problem> + Sync,
) -> Result<Outcome, Problem> {
    let stop = AtomicBool::new(false);
    let (body, stop) = (&body, &stop);
    thread::scope(|scope| {
        let begun = Instant::now();
        let threads: Vec<_> =
            (0..load.threads).map(|number| scope.spawn(move || body(number, stop))).collect();
        thread::sleep(Duration::from_secs_f64(load.seconds));
        stop.store(true, Ordering::Relaxed);
        let elapsed = begun.elapsed();
        let joined = threads.into_iter().map(|thread| match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        Ok(plain::outcome(joined.collect::<Result<_, Problem>>()?, elapsed))
    })
}
