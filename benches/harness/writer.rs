//! Work 7: transactions of one row from many threads, as an embedder of SQLite has them.
//!
//! `Writer` against what one writes without it: a connection behind a mutex, one transaction a row.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use forebay::{Durability, Ticket, Writer};
use parking_lot::Mutex;
use rusqlite::{Connection, params};

use crate::driver::figures;
use crate::driver::job::{Job, Outcome, WriterLoad};
use crate::driver::scale::file_in;
use crate::driver::subject::Problem;
use crate::raw;
use crate::subjects::options;

const CREATE: &str =
    "CREATE TABLE samples (n INTEGER PRIMARY KEY, thread INTEGER NOT NULL, body TEXT NOT NULL)";
const INSERT: &str = "INSERT INTO samples (thread, body) VALUES (?1, ?2)";
const BODY: &str =
    "a line of some hundred characters, as a log, a queue or a sensor has them; nothing special, no index";

pub(crate) fn run(job: &Job, load: &WriterLoad) -> Result<Outcome, Problem> {
    let file = file_in(&job.folder);
    match job.subject.as_str() {
        "writer-full" => through_writer(&file, load, Durability::Full),
        "writer-normal" => through_writer(&file, load, Durability::Normal),
        "mutex-full" => through_mutex(&file, load, "FULL"),
        "mutex-normal" => through_mutex(&file, load, "NORMAL"),
        other => Err(format!("no such subject: {other}").into()),
    }
}

fn through_writer(file: &Path, load: &WriterLoad, durability: Durability) -> Result<Outcome, Problem> {
    let writer = Writer::open(file, options(durability))?;
    writer.submit(|tx| Ok(tx.execute_batch(CREATE)?)).wait()?;
    let before = writer.stats();
    let mut outcome = on_threads(load, |number, stop| {
        let mut waiting: VecDeque<(Instant, Ticket<()>)> = VecDeque::new();
        let mut latencies = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let submitted = Instant::now();
            let ticket = writer.submit(move |tx| {
                tx.prepare_cached(INSERT)?.execute(params![number, BODY])?;
                Ok(())
            });
            waiting.push_back((submitted, ticket));
            if waiting.len() >= load.in_flight_a_thread
                && let Some((submitted, ticket)) = waiting.pop_front()
            {
                ticket.wait()?;
                latencies.push(submitted.elapsed());
            }
        }
        for (submitted, ticket) in waiting {
            ticket.wait()?;
            latencies.push(submitted.elapsed());
        }
        Ok(latencies)
    })?;
    let after = writer.stats();
    let operations = (after.operations - before.operations) as f64;
    outcome.set(figures::OPERATIONS_A_BATCH, operations / (after.batches - before.batches) as f64);
    writer.close()?;
    Ok(outcome)
}

fn through_mutex(file: &Path, load: &WriterLoad, synchronous: &str) -> Result<Outcome, Problem> {
    let connection = Connection::open(file)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    raw::configure(&connection, synchronous)?;
    connection.execute_batch(CREATE)?;
    let connection = Mutex::new(connection);
    on_threads(load, |number, stop| {
        let mut latencies = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let submitted = Instant::now();
            connection.lock().prepare_cached(INSERT)?.execute(params![number, BODY])?;
            latencies.push(submitted.elapsed());
        }
        Ok(latencies)
    })
}

/// Runs `body` on as many threads as asked, tells them when to stop, and counts what they return: the
/// latency of every transaction that was done.
fn on_threads(
    load: &WriterLoad,
    body: impl Fn(u32, &AtomicBool) -> Result<Vec<Duration>, Problem> + Sync,
) -> Result<Outcome, Problem> {
    let stop = Arc::new(AtomicBool::new(false));
    let begun = Instant::now();
    let latencies: Result<Vec<Vec<Duration>>, Problem> = thread::scope(|scope| {
        let (body, stop) = (&body, &stop);
        let threads: Vec<_> =
            (0..load.threads).map(|number| scope.spawn(move || body(number, stop))).collect();
        thread::sleep(Duration::from_secs_f64(load.seconds));
        stop.store(true, Ordering::Relaxed);
        let joined = threads.into_iter().map(|thread| match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        joined.collect()
    });
    let elapsed = begun.elapsed();
    let mut latencies = latencies?.concat();
    let mut outcome = Outcome::default();
    outcome.set(figures::COMPLETED, latencies.len() as f64);
    outcome.set(figures::THROUGHPUT, latencies.len() as f64 / elapsed.as_secs_f64());
    figures::set_latencies(&mut outcome, &mut latencies);
    Ok(outcome)
}
