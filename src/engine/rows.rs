//! Every statement the writer runs on the tables of an instance. One function a statement, no decisions.
//!
//! Ids are duroxide's `u64`, stored bit for bit in SQLite's signed integers; times saturate instead.

use std::collections::HashMap;
use std::sync::Arc;

use duroxide::providers::KvEntry;
use rusqlite::{Connection, OptionalExtension, Row, params};
use semver::Version;

use super::op::Run;
use crate::codec;
use crate::queue::InstanceRow;

/// The result of a statement, before anybody has decided what an error means for whom.
pub(crate) type SqlResult<T> = rusqlite::Result<T>;

/// A point in time for a column: SQLite's integers end where duroxide's "never" begins.
pub(crate) fn time(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

/// The rows of an instance that scheduling needs; `runnable` says only that it has a name.
pub(crate) fn instance(connection: &Connection, id: &str) -> SqlResult<Option<InstanceRow>> {
    let mut statement = connection.prepare_cached(
        "SELECT i.key, i.name, i.version, i.execution, e.pinned, e.execution IS NOT NULL,
                EXISTS (SELECT 1 FROM kv WHERE kv.instance = i.key),
                (SELECT last_event FROM history h WHERE h.instance = i.key AND h.execution = i.execution
                 ORDER BY first_event DESC LIMIT 1)
         FROM instances i LEFT JOIN executions e ON e.instance = i.key AND e.execution = i.execution
         WHERE i.id = ?1",
    )?;
    let read = |row: &Row<'_>| {
        let name: Option<String> = row.get(1)?;
        let pinned: Option<String> = row.get(4)?;
        Ok(InstanceRow {
            key: row.get(0)?,
            runnable: name.is_some(),
            name,
            version: row.get(2)?,
            execution: row.get::<_, i64>(3)?.cast_unsigned(),
            // Written by this crate from a parsed version; what does not parse pins nothing.
            pinned: pinned.and_then(|version| Version::parse(&version).ok()),
            has_execution: row.get(5)?,
            has_kv: row.get(6)?,
            last_event: Some(row.get::<_, Option<i64>>(7)?.map_or(0, i64::cast_unsigned)),
        })
    };
    statement.query_row([id], read).optional()
}

pub(crate) fn insert_instance(
    connection: &Connection,
    id: &str,
    name: Option<&(String, String)>,
    execution: u64,
    parent: Option<&str>,
    now_ms: u64,
) -> SqlResult<i64> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO instances (id, name, version, execution, parent, created_at_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    let (name, version) = name.map_or((None, None), |(name, version)| (Some(name), Some(version)));
    statement.insert(params![id, name, version, execution.cast_signed(), parent, time(now_ms)])
}

pub(crate) fn update_instance(connection: &Connection, row: &InstanceRow) -> SqlResult<()> {
    let sql = "UPDATE instances SET name = ?2, version = ?3, execution = ?4 WHERE key = ?1";
    let mut statement = connection.prepare_cached(sql)?;
    statement.execute(params![row.key, row.name, row.version, row.execution.cast_signed()])?;
    Ok(())
}

/// The parent of an instance is fixed when the instance gets its name.
pub(crate) fn set_parent(connection: &Connection, key: i64, parent: &str) -> SqlResult<()> {
    let mut statement = connection.prepare_cached("UPDATE instances SET parent = ?2 WHERE key = ?1")?;
    statement.execute(params![key, parent])?;
    Ok(())
}

/// What an acknowledged turn says about its execution.
pub(crate) struct ExecutionChange<'a> {
    pub(crate) instance: i64,
    pub(crate) execution: u64,
    pub(crate) status: Option<&'a str>,
    /// Stored with a status only: an execution of which nothing is said has none.
    pub(crate) output: Option<&'a str>,
    pub(crate) pinned: Option<&'a Version>,
    pub(crate) now_ms: u64,
}

impl ExecutionChange<'_> {
    fn completed_at(&self) -> Option<i64> {
        self.status.filter(|status| *status != RUNNING).map(|_| time(self.now_ms))
    }
}

/// The status of an execution nobody has said anything else about.
pub(crate) const RUNNING: &str = "Running";

/// Creates the execution; false if it is there already.
pub(crate) fn insert_execution(connection: &Connection, change: &ExecutionChange<'_>) -> SqlResult<bool> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO executions (instance, execution, status, output, pinned, started_at_ms, completed_at_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO NOTHING",
    )?;
    let inserted = statement.execute(params![
        change.instance,
        change.execution.cast_signed(),
        change.status.unwrap_or(RUNNING),
        change.output.filter(|_| change.status.is_some()),
        change.pinned.map(Version::to_string),
        time(change.now_ms),
        change.completed_at(),
    ])?;
    Ok(inserted > 0)
}

/// Changes what the turn says something about, and nothing else.
pub(crate) fn update_execution(connection: &Connection, change: &ExecutionChange<'_>) -> SqlResult<()> {
    let (instance, execution) = (change.instance, change.execution.cast_signed());
    if let Some(pinned) = change.pinned {
        let sql = "UPDATE executions SET pinned = ?3 WHERE instance = ?1 AND execution = ?2";
        connection.prepare_cached(sql)?.execute(params![instance, execution, pinned.to_string()])?;
    }
    if let Some(status) = change.status {
        let sql = "UPDATE executions SET status = ?3, output = ?4, completed_at_ms = ?5
                   WHERE instance = ?1 AND execution = ?2";
        let mut statement = connection.prepare_cached(sql)?;
        statement.execute(params![instance, execution, status, change.output, change.completed_at()])?;
    }
    Ok(())
}

/// The events already stored that a run would collide with.
pub(crate) fn overlapping(
    connection: &Connection,
    instance: i64,
    execution: u64,
    run: &Run,
) -> SqlResult<Option<(u64, u64)>> {
    // Rows never overlap, so only the last one that starts before the run ends can reach into it.
    let mut statement = connection.prepare_cached(
        "SELECT first_event, last_event FROM history
         WHERE instance = ?1 AND execution = ?2 AND first_event <= ?3 ORDER BY first_event DESC LIMIT 1",
    )?;
    let last = params![instance, execution.cast_signed(), run.last_event.cast_signed()];
    let found = statement.query_row(last, event_range).optional()?;
    Ok(found.filter(|(_, last)| *last >= run.first_event))
}

fn event_range(row: &Row<'_>) -> SqlResult<(u64, u64)> {
    Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get::<_, i64>(1)?.cast_unsigned()))
}

pub(crate) fn insert_history(
    connection: &Connection,
    instance: i64,
    id: &str,
    execution: u64,
    run: &Run,
    now_ms: u64,
) -> SqlResult<()> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO history (instance, execution, first_event, last_event, written_at_ms, record)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    let (first, last) = (run.first_event.cast_signed(), run.last_event.cast_signed());
    let mut record = run.record.clone();
    codec::tie(&mut record, id, execution);
    statement.execute(params![instance, execution.cast_signed(), first, last, time(now_ms), record])?;
    Ok(())
}

pub(crate) fn has_history(connection: &Connection, instance: i64, execution: u64) -> SqlResult<bool> {
    let sql = "SELECT 1 FROM history WHERE instance = ?1 AND execution = ?2";
    connection.prepare_cached(sql)?.exists(params![instance, execution.cast_signed()])
}

pub(crate) fn history(
    connection: &Connection,
    instance: i64,
    id: &str,
    execution: u64,
) -> SqlResult<Vec<Arc<Run>>> {
    let mut statement = connection.prepare_cached(
        "SELECT first_event, last_event, record FROM history
         WHERE instance = ?1 AND execution = ?2 ORDER BY first_event",
    )?;
    let rows =
        statement.query_map(params![instance, execution.cast_signed()], |row| run(row, id, execution))?;
    rows.collect()
}

/// Whether an instance has executions, and rows of history, after one that is said to be its latest.
pub(crate) fn later_than(connection: &Connection, instance: i64, execution: u64) -> SqlResult<(bool, bool)> {
    // The upper half of the numbers is stored as negative ones; from there on this does not tell.
    let Ok(execution) = i64::try_from(execution) else { return Ok((false, false)) };
    let later = |table| {
        format!(
            "(EXISTS (SELECT 1 FROM {table} WHERE instance = ?1 AND execution > ?2)
              OR EXISTS (SELECT 1 FROM {table} WHERE instance = ?1 AND execution < 0))"
        )
    };
    let sql = format!("SELECT {}, {}", later("executions"), later("history"));
    let mut statement = connection.prepare_cached(&sql)?;
    statement.query_row([instance, execution], |row| Ok((row.get(0)?, row.get(1)?)))
}

/// The execution under which there is a row that by its record belongs to the one that is named.
pub(crate) fn strayed(
    connection: &Connection,
    instance: i64,
    id: &str,
    execution: u64,
) -> SqlResult<Option<u64>> {
    let sql = "SELECT execution, record FROM history WHERE instance = ?1 AND execution != ?2";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params![instance, execution.cast_signed()])?;
    while let Some(row) = rows.next()? {
        let mut record: Vec<u8> = row.get(1)?;
        codec::tie(&mut record, id, execution);
        if codec::is_intact(&record) {
            return Ok(Some(row.get::<_, i64>(0)?.cast_unsigned()));
        }
    }
    Ok(None)
}

/// A run from the columns `first_event, last_event, record` of a row of the history that is named.
pub(crate) fn run(row: &Row<'_>, id: &str, execution: u64) -> SqlResult<Arc<Run>> {
    let (first_event, last_event) = event_range(row)?;
    let mut record: Vec<u8> = row.get(2)?;
    codec::tie(&mut record, id, execution);
    Ok(Arc::new(Run { first_event, last_event, record }))
}

pub(crate) fn set_custom_status(
    connection: &Connection,
    instance: i64,
    status: Option<&str>,
) -> SqlResult<()> {
    let sql = "UPDATE instances SET custom_status = ?2, custom_status_version = custom_status_version + 1
               WHERE key = ?1";
    connection.prepare_cached(sql)?.execute(params![instance, status])?;
    Ok(())
}

/// `kv.delta_kind`: what the running execution did to a key. Folded into `base` when the execution ends.
pub(crate) const KV_UNTOUCHED: i64 = 0;
pub(crate) const KV_SET: i64 = 1;
pub(crate) const KV_CLEARED: i64 = 2;

pub(crate) fn kv_set(
    connection: &Connection,
    instance: i64,
    key: &str,
    value: &str,
    at_ms: u64,
) -> SqlResult<()> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO kv (instance, key, delta_kind, delta, delta_at_ms) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT DO UPDATE SET delta_kind = ?3, delta = ?4, delta_at_ms = ?5",
    )?;
    statement.execute(params![instance, key, KV_SET, value, time(at_ms)])?;
    Ok(())
}

/// Clears one key, or all of them.
pub(crate) fn kv_clear(
    connection: &Connection,
    instance: i64,
    key: Option<&str>,
    now_ms: u64,
) -> SqlResult<()> {
    let mut statement = connection.prepare_cached(
        "UPDATE kv SET delta_kind = ?3, delta = NULL, delta_at_ms = ?4
         WHERE instance = ?1 AND key = coalesce(?2, key)",
    )?;
    statement.execute(params![instance, key, KV_CLEARED, time(now_ms)])?;
    Ok(())
}

/// The execution has ended: what it did to the key-values becomes the base of the next one.
pub(crate) fn kv_fold(connection: &Connection, instance: i64) -> SqlResult<()> {
    let sql = "UPDATE kv SET base = delta, base_at_ms = delta_at_ms, delta_kind = ?2, delta = NULL
               WHERE instance = ?1 AND delta_kind = ?3";
    connection.prepare_cached(sql)?.execute(params![instance, KV_UNTOUCHED, KV_SET])?;
    let sql = "DELETE FROM kv WHERE instance = ?1 AND delta_kind = ?2";
    connection.prepare_cached(sql)?.execute(params![instance, KV_CLEARED])?;
    Ok(())
}

/// What executions before the running one left behind.
pub(crate) fn kv_base(connection: &Connection, instance: i64) -> SqlResult<HashMap<String, KvEntry>> {
    let sql = "SELECT key, base, base_at_ms FROM kv WHERE instance = ?1 AND base IS NOT NULL";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map([instance], |row| {
        let last_updated_at_ms = row.get::<_, i64>(2)?.cast_unsigned();
        Ok((row.get(0)?, KvEntry { value: row.get(1)?, last_updated_at_ms }))
    })?;
    rows.collect()
}

/// Counts events by the numbers of their rows, which may be damaged: it neither overflows nor fails, so that a
/// damaged instance can still be counted, listed and deleted.
pub(super) const EVENT_COUNT: &str = "max(CAST(total(last_event - first_event + 1) AS INTEGER), 0)";

/// What deleting an instance or an execution took away.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Removed {
    pub(crate) executions: u64,
    pub(crate) events: u64,
}

/// What could not be deleted: a row of which table, and why.
pub(crate) type Undeleted = (&'static str, rusqlite::Error);

pub(crate) fn delete_instance(connection: &Connection, key: i64) -> Result<Removed, Undeleted> {
    let sql = format!("SELECT {EVENT_COUNT} FROM history WHERE instance = ?1");
    let events = count(connection, &sql, [key])?;
    let mut changed = [0; 4];
    let statements = [
        ("executions", "DELETE FROM executions WHERE instance = ?1"),
        ("history", "DELETE FROM history WHERE instance = ?1"),
        ("kv", "DELETE FROM kv WHERE instance = ?1"),
        ("instances", "DELETE FROM instances WHERE key = ?1"),
    ];
    for ((table, sql), changed) in statements.into_iter().zip(&mut changed) {
        *changed = delete(connection, table, sql, [key])?;
    }
    Ok(Removed { executions: changed[0], events })
}

pub(crate) fn delete_execution(
    connection: &Connection,
    key: i64,
    execution: u64,
) -> Result<Removed, Undeleted> {
    let of = params![key, execution.cast_signed()];
    let sql = format!("SELECT {EVENT_COUNT} FROM history WHERE instance = ?1 AND execution = ?2");
    let events = count(connection, &sql, of)?;
    let sql = "DELETE FROM history WHERE instance = ?1 AND execution = ?2";
    delete(connection, "history", sql, of)?;
    let sql = "DELETE FROM executions WHERE instance = ?1 AND execution = ?2";
    Ok(Removed { executions: delete(connection, "executions", sql, of)?, events })
}

fn count(connection: &Connection, sql: &str, of: impl rusqlite::Params) -> Result<u64, Undeleted> {
    let counted = connection
        .prepare_cached(sql)
        .and_then(|mut statement| statement.query_row(of, |row| row.get::<_, i64>(0)));
    counted.map(i64::cast_unsigned).map_err(|error| ("history", error))
}

fn delete(
    connection: &Connection,
    table: &'static str,
    sql: &str,
    of: impl rusqlite::Params,
) -> Result<u64, Undeleted> {
    let deleted = connection.prepare_cached(sql).and_then(|mut statement| statement.execute(of));
    deleted.map(|rows| rows as u64).map_err(|error| (table, error))
}
