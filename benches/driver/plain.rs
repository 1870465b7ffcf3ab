//! Work 7, as every subject does it: the table, its row, and SQLite as one writes it without `Writer`.
//!
//! Included by the harness and by `forebay-peers-writer`, which have another rusqlite each, but not by
//! `forebay-peers`, which has none: that is why it is not in `driver/mod.rs`.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, params};

use crate::driver::figures;
use crate::driver::job::Outcome;

pub(crate) const CREATE: &str =
    "CREATE TABLE samples (n INTEGER PRIMARY KEY, thread INTEGER NOT NULL, body TEXT NOT NULL)";
pub(crate) const INSERT: &str = "INSERT INTO samples (thread, body) VALUES (?1, ?2)";
pub(crate) const BODY: &str =
    "a line of some hundred characters, as a log, a queue or a sensor has them; nothing special, no index";

/// Transactions that SQLite refused because others held its lock beyond the busy timeout; they were retried.
pub(crate) const BUSY_ERRORS: &str = "busy_errors";

/// As long as the engine lets its log grow, in pages of 4 KiB.
const CHECKPOINT_PAGES: i64 = 8192;

/// Opens a connection as the engine's is: a log of the same length, the same cache.
pub(crate) fn open(file: &Path, synchronous: &str) -> rusqlite::Result<Connection> {
    let connection = Connection::open(file)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    configure(&connection, synchronous)?;
    Ok(connection)
}

/// What of [`open`] is the connection's alone and not the file's.
pub(crate) fn configure(connection: &Connection, synchronous: &str) -> rusqlite::Result<()> {
    connection.set_prepared_statement_cache_capacity(64);
    connection.pragma_update(None, "synchronous", synchronous)?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    connection.pragma_update(None, "cache_size", -64 * 1024)?;
    // SQLite 3.54 prepares a query with `column = ?` anew whenever its parameters are bound again after
    // `sqlite3_clear_bindings`, which rusqlite calls for every cached statement: 25 us a query. Stable plans
    // are not prepared anew.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map(|_on| ())
}

/// One row in one IMMEDIATE transaction; every statement from the cache, in favour of who calls it.
pub(crate) fn insert(connection: &Connection, number: u32) -> rusqlite::Result<()> {
    connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
    connection.prepare_cached(INSERT)?.execute(params![number, BODY])?;
    connection.prepare_cached("COMMIT")?.execute([]).map(|_rows| ())
}

/// What one thread or task has done.
#[derive(Default)]
pub(crate) struct Done {
    latencies: Vec<Duration>,
    in_time: usize,
}

impl Done {
    /// A transaction is done. One that ends after the measurement has a latency but is no part of the rate:
    /// a pool may need seconds for its last ones, in which nobody else does anything.
    pub(crate) fn add(&mut self, submitted: Instant, stop: &AtomicBool) {
        self.latencies.push(submitted.elapsed());
        self.in_time += usize::from(!stop.load(Ordering::Relaxed));
    }
}

/// Sums up what all of them did in `elapsed`.
pub(crate) fn outcome(done: Vec<Done>, elapsed: Duration) -> Outcome {
    let in_time: usize = done.iter().map(|done| done.in_time).sum();
    let mut latencies: Vec<Duration> = done.into_iter().flat_map(|done| done.latencies).collect();
    let mut outcome = Outcome::default();
    outcome.set(figures::COMPLETED, latencies.len() as f64);
    outcome.set(figures::THROUGHPUT, in_time as f64 / elapsed.as_secs_f64());
    figures::set_latencies(&mut outcome, &mut latencies);
    outcome
}
