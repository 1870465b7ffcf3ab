//! The file's tables, how a file is recognised, and how an older one is brought up to date.

use std::path::Path;

use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use super::reads;
use crate::codec;
use crate::error::Error;
use crate::sqlite::{ENGINE_APPLICATION_ID as APPLICATION_ID, Location, explain};

/// The newest format this build reads and writes, kept in `user_version`.
const FORMAT: i64 = 3;

/// Columns and their reasons are described in docs/design.md, "Schema".
///
/// No table is WITHOUT ROWID: SQLite reads an entry of such a table whole, however long, whenever it comes by it on the
/// way to another, so a long value would be read again and again, and one that is damaged would be in everybody's way.
const CREATE: &str = "
CREATE TABLE instances (
    key                   INTEGER PRIMARY KEY,
    id                    TEXT    NOT NULL UNIQUE,
    name                  TEXT,
    version               TEXT,
    execution             INTEGER NOT NULL,
    parent                TEXT,
    custom_status         TEXT,
    custom_status_version INTEGER NOT NULL DEFAULT 0,
    created_at_ms         INTEGER NOT NULL
) STRICT;
CREATE INDEX instances_by_parent ON instances (parent) WHERE parent IS NOT NULL;
CREATE TABLE executions (
    instance        INTEGER NOT NULL,
    execution       INTEGER NOT NULL,
    status          TEXT    NOT NULL,
    output          TEXT,
    pinned          TEXT,
    started_at_ms   INTEGER NOT NULL,
    completed_at_ms INTEGER,
    PRIMARY KEY (instance, execution)
) STRICT;
CREATE TABLE history (
    instance      INTEGER NOT NULL,
    execution     INTEGER NOT NULL,
    first_event   INTEGER NOT NULL,
    last_event    INTEGER NOT NULL,
    written_at_ms INTEGER NOT NULL,
    record        BLOB    NOT NULL,
    PRIMARY KEY (instance, execution, first_event)
) STRICT;
CREATE TABLE messages (
    id            INTEGER PRIMARY KEY,
    instance      TEXT    NOT NULL,
    kind          INTEGER NOT NULL,
    visible_at_ms INTEGER NOT NULL,
    attempt       INTEGER NOT NULL,
    record        BLOB    NOT NULL
) STRICT;
CREATE TABLE work (
    id            INTEGER PRIMARY KEY,
    instance      TEXT    NOT NULL,
    execution     INTEGER NOT NULL,
    activity      INTEGER NOT NULL,
    session       TEXT,
    tag           TEXT,
    visible_at_ms INTEGER NOT NULL,
    attempt       INTEGER NOT NULL,
    record        BLOB    NOT NULL
) STRICT;
CREATE TABLE kv (
    instance    INTEGER NOT NULL,
    key         TEXT    NOT NULL,
    base        TEXT,
    base_at_ms  INTEGER NOT NULL DEFAULT 0,
    delta_kind  INTEGER NOT NULL DEFAULT 0,
    delta       TEXT,
    delta_at_ms INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (instance, key)
) STRICT;
";

/// What a file turned out to be, before anything in it was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    Empty,
    Format(i64),
}

/// Tells whose database this is, reading only.
pub(crate) fn recognise(connection: &Connection, location: &Location) -> Result<Found, Error> {
    let Location::File(path) = location else { return Ok(Found::Empty) };
    let read = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
    let explained = |error| explain(error, path);
    let application_id = read("PRAGMA application_id").map_err(explained)?;
    let format = read("PRAGMA user_version").map_err(explained)?;
    if application_id == APPLICATION_ID {
        return match format {
            1..=FORMAT => Ok(Found::Format(format)),
            _ => Err(Error::NewerFormat { path: path.clone(), found: format, supported: FORMAT }),
        };
    }
    let objects = read("SELECT count(*) FROM sqlite_schema").map_err(explained)?;
    if application_id == 0 && objects == 0 {
        return Ok(Found::Empty);
    }
    Err(foreign(connection, path, application_id))
}

fn foreign(connection: &Connection, path: &Path, application_id: i64) -> Error {
    // Three tables that only duroxide's provider has together.
    let sql = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' \
               AND name IN ('orchestrator_queue', 'worker_queue', 'instance_locks')";
    let reference = connection.query_row(sql, [], |row| row.get::<_, i64>(0)).is_ok_and(|found| found == 3);
    let made_by = if reference {
        "duroxide's SqliteProvider".to_string()
    } else if application_id == 0 {
        "another application".to_string()
    } else {
        format!("another application (application_id {application_id:#010x})")
    };
    Error::ForeignDatabase { path: path.into(), made_by }
}

/// The page size of a new file. A commit appends every page it touched to the log, whole, and most batches
/// touch a few rows on each of a dozen pages: half of SQLite's default is nearly half the bytes
/// (docs/benchmarks.md, "What was tried").
const PAGE_BYTES: u32 = 2048;

/// Sizes the pages of a file that has none yet; must come before anything that writes the first one.
pub(crate) fn size_pages(connection: &Connection, found: Found) -> Result<(), Error> {
    // Not read back: a file that has pages keeps their size, and any size works.
    match found {
        Found::Empty => Ok(connection.pragma_update(None, "page_size", PAGE_BYTES)?),
        Found::Format(_) => Ok(()),
    }
}

/// Creates the tables of a new file, or brings an older format up to date, in one transaction.
pub(crate) fn prepare(connection: &Connection, found: Found) -> Result<(), Error> {
    if found == Found::Format(FORMAT) {
        return Ok(());
    }
    let damaged = if found == Found::Empty { Vec::new() } else { damaged_tables(connection)? };
    let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
    match found {
        Found::Empty => {
            connection.execute_batch(&format!("{CREATE} PRAGMA application_id = {APPLICATION_ID}"))?;
        }
        Found::Format(format) => {
            if format < 2 {
                bind_histories(connection)?;
            }
            give_rowids(connection, &damaged)?;
        }
    }
    connection.pragma_update(None, "user_version", FORMAT)?;
    Ok(transaction.commit()?)
}

/// The tables that had no row ids before format 3.
const WITHOUT_ROWIDS: [&str; 3] = ["executions", "history", "kv"];

/// From format 2 to 3: tables that were WITHOUT ROWID no longer are, but for those that are `damaged`: every statement
/// works on them as well, and what can be read of them can still be read.
fn give_rowids(connection: &Connection, damaged: &[&str]) -> Result<(), Error> {
    for table in WITHOUT_ROWIDS {
        let of_table = |create: &&str| create.contains(&format!("TABLE {table} "));
        let create = CREATE.split_inclusive(';').find(of_table).filter(|_| !damaged.contains(&table));
        if let Some(create) = create {
            connection.execute_batch(&format!(
                "ALTER TABLE {table} RENAME TO older; {create}
                 INSERT INTO {table} SELECT * FROM older; DROP TABLE older"
            ))?;
        }
    }
    Ok(())
}

/// Which of the tables without row ids cannot be read to their end. IMPORTANT: outside a transaction: one in which
/// SQLite has met damage can write nothing any more.
fn damaged_tables(connection: &Connection) -> Result<Vec<&'static str>, Error> {
    let mut damaged = Vec::new();
    for table in WITHOUT_ROWIDS {
        if let Err(error) = read_all(connection, table).map_err(Error::from) {
            if !error.is_damage() {
                return Err(error);
            }
            tracing::error!(
                table,
                error = format_args!("{error:#}"),
                "a table is damaged and stays as it was found"
            );
            damaged.push(table);
        }
    }
    Ok(damaged)
}

fn read_all(connection: &Connection, table: &str) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(&format!("SELECT * FROM {table}"))?;
    let columns = statement.column_count();
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        for column in 0..columns {
            row.get_ref(column)?;
        }
    }
    Ok(())
}

/// From format 1 to 2: each row of history is bound to its instance and execution.
///
/// Only a row that is intact as it is: what is damaged stays as it was found, and so does what is bound already,
/// should the file be of format 2 and its number be all that is damaged.
fn bind_histories(connection: &Connection) -> Result<(), Error> {
    // One whose id is damaged is nobody's to be bound to.
    let instances = reads::keys_and_ids(connection, "SELECT key, id FROM instances", [])?;
    let mut history =
        connection.prepare("SELECT execution, first_event, record FROM history WHERE instance = ?1")?;
    let mut update = connection.prepare(
        "UPDATE history SET record = ?4 WHERE instance = ?1 AND execution = ?2 AND first_event = ?3",
    )?;
    for (key, id) in instances {
        let Some(id) = id else { continue };
        let records = history.query_map([key], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        // One instance at a time, so that none of its rows is seen twice.
        let records = records.collect::<Result<Vec<(i64, i64, Vec<u8>)>, _>>()?;
        for (execution, first_event, mut record) in records {
            if codec::is_intact(&record) {
                codec::bind(&mut record, &id, execution.cast_unsigned());
                update.execute(params![key, execution, first_event, record])?;
            }
        }
    }
    Ok(())
}
