//! The storage's ceiling: the rows forebay writes for one fan-out of 5, on one thread, without an engine.
//!
//! The statements are those of `src/engine/` at their net effect: a message that comes with its attempt
//! counted, is worked on and goes is one INSERT and one DELETE. Two turns an orchestration, which is the
//! fewest there can be. Records are bytes of the usual length; nothing is encoded.
//!
//! The schema is that of the file forebay makes, so this cannot drift from it unnoticed.

use std::path::Path;
use std::time::{Duration, Instant};

use forebay::Durability;
use rusqlite::{Connection, params};

use crate::driver::figures;
use crate::driver::job::{Job, Outcome, Rows};
use crate::driver::scale::file_in;
use crate::driver::subject::Problem;
use crate::plain;
use crate::subjects::options;

/// Lengths of the records of this work, as forebay stores them: averages of a file that was cut off in mid-run.
const START_BYTES: usize = 59;
const ACTIVITY_BYTES: usize = 40;
const COMPLETION_BYTES: usize = 37;
const FIRST_TURN_BYTES: usize = 217;
const LAST_TURN_BYTES: usize = 191;

const RECORD: [u8; 256] = [0x5a; 256];

const ACTIVITIES: i64 = 5;

pub(crate) fn run(job: &Job, rows: &Rows) -> Result<Outcome, Problem> {
    let (durability, synchronous) = match job.subject.as_str() {
        "raw-full" => (Durability::Full, "FULL"),
        "raw-normal" => (Durability::Normal, "NORMAL"),
        other => return Err(format!("no such subject: {other}").into()),
    };
    let file = file_in(&job.folder);
    options(durability).open(&file)?.close()?;
    let connection = open(&file, synchronous)?;

    let begun = Instant::now();
    let deadline = begun + Duration::from_secs_f64(rows.seconds);
    let mut done: i64 = 0;
    while Instant::now() < deadline {
        connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        for _ in 0..rows.orchestrations_a_transaction {
            done += 1;
            orchestration(&connection, done)?;
        }
        connection.prepare_cached("COMMIT")?.execute([])?;
    }
    let mut outcome = Outcome::default();
    outcome.set(figures::THROUGHPUT, done as f64 / begun.elapsed().as_secs_f64());
    outcome.set(figures::COMPLETED, done as f64);
    Ok(outcome)
}

fn open(file: &Path, synchronous: &str) -> Result<Connection, Problem> {
    let connection = Connection::open(file)?;
    plain::configure(&connection, synchronous)?;
    Ok(connection)
}

fn orchestration(connection: &Connection, number: i64) -> rusqlite::Result<()> {
    let id = format!("load-{}-{}", number % 64, number / 64);
    // Six messages and five activities each; the ids only have to be unique.
    let (message, work) = (number * 6, number * 5);

    insert_message(connection, message, &id, 0, START_BYTES)?;
    let known = connection
        .prepare_cached(
            "SELECT i.key, i.name, i.version, i.execution, e.pinned, e.execution IS NOT NULL
             FROM instances i LEFT JOIN executions e ON e.instance = i.key AND e.execution = i.execution
             WHERE i.id = ?1",
        )?
        .exists([&id])?;
    debug_assert!(!known);

    delete(connection, "messages", message)?;
    let key = connection
        .prepare_cached(
            "INSERT INTO instances (id, name, version, execution, parent, created_at_ms)
             VALUES (?1, 'FanoutOrchestration', '1.0.0', 1, NULL, ?2)",
        )?
        .insert(params![id, number])?;
    connection
        .prepare_cached(
            "INSERT INTO executions (instance, execution, status, output, pinned, started_at_ms,
             completed_at_ms) VALUES (?1, 1, 'Running', NULL, '0.1.32', ?2, NULL) ON CONFLICT DO NOTHING",
        )?
        .execute([key, number])?;
    insert_history(connection, key, 1, 6, FIRST_TURN_BYTES)?;
    for activity in 0..ACTIVITIES {
        connection
            .prepare_cached(
                "INSERT INTO work (id, instance, execution, activity, session, tag, visible_at_ms, attempt,
                 record) VALUES (?1, ?2, 1, ?3, NULL, NULL, ?4, 1, ?5)",
            )?
            .execute(params![work + activity, id, activity, number, record(ACTIVITY_BYTES)])?;
    }
    for activity in 0..ACTIVITIES {
        delete(connection, "work", work + activity)?;
        insert_message(connection, message + 1 + activity, &id, 1, COMPLETION_BYTES)?;
    }

    connection
        .prepare_cached(
            "SELECT first_event, last_event FROM history
             WHERE instance = ?1 AND execution = 1 AND first_event <= 12 ORDER BY first_event DESC LIMIT 1",
        )?
        .exists([key])?;
    for activity in 0..ACTIVITIES {
        delete(connection, "messages", message + 1 + activity)?;
    }
    connection
        .prepare_cached(
            "UPDATE executions SET status = 'Completed', output = 'Completed 5 tasks (5 succeeded)',
             completed_at_ms = ?2 WHERE instance = ?1 AND execution = 1",
        )?
        .execute([key, number])?;
    insert_history(connection, key, 7, 12, LAST_TURN_BYTES)?;
    connection
        .prepare_cached(
            "UPDATE kv SET base = delta, base_at_ms = delta_at_ms, delta_kind = 0, delta = NULL
             WHERE instance = ?1 AND delta_kind = 1",
        )?
        .execute([key])?;
    connection.prepare_cached("DELETE FROM kv WHERE instance = ?1 AND delta_kind = 2")?.execute([key])?;
    Ok(())
}

fn record(bytes: usize) -> &'static [u8] {
    &RECORD[..bytes]
}

fn insert_message(
    connection: &Connection,
    id: i64,
    instance: &str,
    kind: i64,
    bytes: usize,
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO messages (id, instance, kind, visible_at_ms, attempt, record)
         VALUES (?1, ?2, ?3, ?4, 1, ?5)",
    )?;
    statement.execute(params![id, instance, kind, id, record(bytes)])?;
    Ok(())
}

fn insert_history(
    connection: &Connection,
    key: i64,
    first: i64,
    last: i64,
    bytes: usize,
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO history (instance, execution, first_event, last_event, written_at_ms, record)
         VALUES (?1, 1, ?2, ?3, ?1, ?4)",
    )?;
    statement.execute(params![key, first, last, record(bytes)])?;
    Ok(())
}

fn delete(connection: &Connection, table: &str, id: i64) -> rusqlite::Result<()> {
    let sql = match table {
        "work" => "DELETE FROM work WHERE id = ?1",
        _ => "DELETE FROM messages WHERE id = ?1",
    };
    connection.prepare_cached(sql)?.execute([id])?;
    Ok(())
}
