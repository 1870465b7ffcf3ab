//! Every statement that only reads: they run on a reading connection, or on the writer's in memory mode, and
//! inside an operation that has to look before it deletes.

use std::collections::HashMap;
use std::sync::Arc;

use duroxide::providers::{ExecutionInfo, InstanceInfo, SystemMetrics};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::op::Run;
use super::rows::{self, EVENT_COUNT, KV_CLEARED, KV_SET, SqlResult};
use crate::error::Error;

/// The latest execution of an instance; 1 for an instance nobody has heard of.
pub(crate) fn latest_execution(connection: &Connection, id: &str) -> SqlResult<u64> {
    let sql = "SELECT max(e.execution) FROM instances i JOIN executions e ON e.instance = i.key
               WHERE i.id = ?1";
    let latest: Option<i64> = connection.prepare_cached(sql)?.query_row([id], |row| row.get(0))?;
    Ok(latest.map_or(duroxide::INITIAL_EXECUTION_ID, i64::cast_unsigned))
}

/// The stored history of one execution, the latest if none is named.
pub(crate) fn history(
    connection: &Connection,
    id: &str,
    execution: Option<u64>,
) -> SqlResult<(u64, Vec<Arc<Run>>)> {
    // One snapshot for both looks; rolled back, which for a read is the same as committed.
    let transaction = connection.unchecked_transaction_if_idle()?;
    let execution = match execution {
        Some(execution) => execution,
        None => latest_execution(connection, id)?,
    };
    let history = match key(connection, id)? {
        Some(key) => rows::history(connection, key, id, execution)?,
        None => Vec::new(),
    };
    drop(transaction);
    Ok((execution, history))
}

/// Several statements on one snapshot, whether or not the connection is inside a transaction already (the
/// writer's is, in memory mode).
trait Snapshot {
    fn unchecked_transaction_if_idle(&self) -> SqlResult<Option<rusqlite::Transaction<'_>>>;
}

impl Snapshot for Connection {
    fn unchecked_transaction_if_idle(&self) -> SqlResult<Option<rusqlite::Transaction<'_>>> {
        self.is_autocommit().then(|| self.unchecked_transaction()).transpose()
    }
}

fn key(connection: &Connection, id: &str) -> SqlResult<Option<i64>> {
    let mut statement = connection.prepare_cached("SELECT key FROM instances WHERE id = ?1")?;
    statement.query_row([id], |row| row.get(0)).optional()
}

pub(crate) fn custom_status(
    connection: &Connection,
    id: &str,
    last_seen_version: u64,
) -> SqlResult<Option<(Option<String>, u64)>> {
    let sql = "SELECT custom_status, custom_status_version FROM instances
               WHERE id = ?1 AND custom_status_version > ?2";
    let mut statement = connection.prepare_cached(sql)?;
    let values = params![id, rows::time(last_seen_version)];
    statement.query_row(values, |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned()))).optional()
}

/// The value a reader sees: what the running execution did to the key, or else what came before it.
const KV_SEEN: &str = "CASE delta_kind WHEN ?2 THEN delta WHEN ?3 THEN NULL ELSE base END";

pub(crate) fn kv_value(connection: &Connection, id: &str, name: &str) -> SqlResult<Option<String>> {
    let sql = format!(
        "SELECT {KV_SEEN} FROM kv WHERE key = ?4 AND instance = (SELECT key FROM instances WHERE id = ?1)"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let found = statement.query_row(params![id, KV_SET, KV_CLEARED, name], |row| row.get(0)).optional()?;
    Ok(found.flatten())
}

pub(crate) fn kv_all(connection: &Connection, id: &str) -> SqlResult<HashMap<String, String>> {
    let sql = format!(
        "SELECT key, {KV_SEEN} AS seen FROM kv
         WHERE instance = (SELECT key FROM instances WHERE id = ?1) AND seen IS NOT NULL"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let rows = statement.query_map(params![id, KV_SET, KV_CLEARED], |row| Ok((row.get(0)?, row.get(1)?)))?;
    rows.collect()
}

/// What `get_instance_stats` needs; the first record holds the events carried over from an execution before.
pub(crate) struct InstanceStats {
    pub(crate) events: u64,
    pub(crate) history_bytes: u64,
    pub(crate) kv_keys: u64,
    pub(crate) kv_bytes: u64,
    pub(crate) execution: u64,
    pub(crate) first: Option<Arc<Run>>,
}

pub(crate) fn instance_stats(connection: &Connection, id: &str) -> SqlResult<Option<InstanceStats>> {
    let transaction = connection.unchecked_transaction_if_idle()?;
    let Some(row) = rows::instance(connection, id)?.filter(|row| row.name.is_some()) else { return Ok(None) };
    let of = params![row.key, row.execution.cast_signed()];
    let sql = format!(
        "SELECT {EVENT_COUNT}, coalesce(sum(length(record)), 0)
         FROM history WHERE instance = ?1 AND execution = ?2"
    );
    let (events, history_bytes) = connection.prepare_cached(&sql)?.query_row(of, two_counts)?;
    let sql = "SELECT first_event, last_event, record FROM history
               WHERE instance = ?1 AND execution = ?2 AND first_event = 1";
    let first = connection
        .prepare_cached(sql)?
        .query_row(of, |stored| rows::run(stored, id, row.execution))
        .optional()?;
    let sql = format!(
        "SELECT count(*), coalesce(sum(length(CAST(seen AS BLOB))), 0)
         FROM (SELECT {KV_SEEN} AS seen FROM kv WHERE instance = ?1) WHERE seen IS NOT NULL"
    );
    let values = params![row.key, KV_SET, KV_CLEARED];
    let (kv_keys, kv_bytes) = connection.prepare_cached(&sql)?.query_row(values, two_counts)?;
    drop(transaction);
    Ok(Some(InstanceStats { events, history_bytes, kv_keys, kv_bytes, execution: row.execution, first }))
}

fn two_counts(row: &Row<'_>) -> SqlResult<(u64, u64)> {
    Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get::<_, i64>(1)?.cast_unsigned()))
}

/// Instances, newest first, all or those whose current execution has a status.
pub(crate) fn list_instances(connection: &Connection, status: Option<&str>) -> SqlResult<Vec<String>> {
    let ids = match status {
        None => {
            let sql = "SELECT key, id FROM instances WHERE name IS NOT NULL ORDER BY key DESC";
            keys_and_ids(connection, sql, [])?
        }
        Some(status) => {
            let sql = "SELECT i.key, i.id FROM instances i
                       JOIN executions e ON e.instance = i.key AND e.execution = i.execution
                       WHERE e.status = ?1 AND i.name IS NOT NULL ORDER BY i.key DESC";
            keys_and_ids(connection, sql, [status])?
        }
    };
    Ok(ids.into_iter().filter_map(|(_, id)| id).collect())
}

/// Instances from the columns `key, id`. One whose id is damaged is in nobody's way: it is logged, and has none.
pub(super) fn keys_and_ids<P: rusqlite::Params>(
    connection: &Connection,
    sql: &str,
    values: P,
) -> SqlResult<Vec<(i64, Option<String>)>> {
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map(values, |row| {
        let key: i64 = row.get(0)?;
        let id = match row.get(1) {
            Ok(id) => Some(id),
            Err(error) => {
                let error = Error::damage(error)?;
                tracing::error!(key, %error, "an instance is passed by: its id is damaged");
                None
            }
        };
        Ok((key, id))
    })?;
    rows.collect()
}

pub(crate) fn list_executions(connection: &Connection, id: &str) -> SqlResult<Vec<u64>> {
    let sql = "SELECT e.execution FROM instances i JOIN executions e ON e.instance = i.key
               WHERE i.id = ?1 ORDER BY e.execution";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map([id], |row| Ok(row.get::<_, i64>(0)?.cast_unsigned()))?;
    rows.collect()
}

pub(crate) fn list_children(connection: &Connection, id: &str) -> SqlResult<Vec<String>> {
    strings(connection, "SELECT id FROM instances WHERE parent = ?1 ORDER BY key", [id])
}

/// An instance and all its descendants, the root first.
pub(crate) fn tree(connection: &Connection, root: &str) -> SqlResult<Vec<String>> {
    let sql = "WITH RECURSIVE tree (id) AS (
                   SELECT ?1 UNION SELECT i.id FROM tree JOIN instances i ON i.parent = tree.id
               ) SELECT id FROM tree";
    strings(connection, sql, [root])
}

/// The parent of an instance; the outer `None` if there is no such instance.
pub(crate) fn parent(connection: &Connection, id: &str) -> SqlResult<Option<Option<String>>> {
    let sql = "SELECT parent FROM instances WHERE id = ?1 AND name IS NOT NULL";
    connection.prepare_cached(sql)?.query_row([id], |row| row.get(0)).optional()
}

pub(crate) fn instance_info(connection: &Connection, id: &str) -> SqlResult<Option<InstanceInfo>> {
    // The newest history row of the current execution tells when it was last written to.
    let mut statement = connection.prepare_cached(
        "SELECT i.id, i.name, i.version, i.execution, e.status, e.output, i.created_at_ms, i.parent,
                coalesce((SELECT max(h.written_at_ms) FROM history h
                          WHERE h.instance = i.key AND h.execution = i.execution),
                         e.completed_at_ms, i.created_at_ms)
         FROM instances i LEFT JOIN executions e ON e.instance = i.key AND e.execution = i.execution
         WHERE i.id = ?1 AND i.name IS NOT NULL",
    )?;
    let read = |row: &Row<'_>| {
        Ok(InstanceInfo {
            instance_id: row.get(0)?,
            orchestration_name: row.get(1)?,
            orchestration_version: row.get::<_, Option<String>>(2)?.unwrap_or_else(|| UNKNOWN_VERSION.into()),
            current_execution_id: row.get::<_, i64>(3)?.cast_unsigned(),
            status: row.get::<_, Option<String>>(4)?.unwrap_or_else(|| "Unknown".into()),
            output: row.get(5)?,
            created_at: row.get::<_, i64>(6)?.cast_unsigned(),
            parent_instance_id: row.get(7)?,
            updated_at: row.get::<_, i64>(8)?.cast_unsigned(),
        })
    };
    statement.query_row([id], read).optional()
}

/// What duroxide shows for an instance whose version nobody has resolved yet.
pub(crate) const UNKNOWN_VERSION: &str = "unknown";

pub(crate) fn execution_info(
    connection: &Connection,
    id: &str,
    execution: u64,
) -> SqlResult<Option<ExecutionInfo>> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT e.status, e.output, e.started_at_ms, e.completed_at_ms,
                (SELECT {EVENT_COUNT} FROM history h
                 WHERE h.instance = e.instance AND h.execution = e.execution)
         FROM instances i JOIN executions e ON e.instance = i.key
         WHERE i.id = ?1 AND e.execution = ?2",
    ))?;
    let read = |row: &Row<'_>| {
        Ok(ExecutionInfo {
            execution_id: execution,
            status: row.get(0)?,
            output: row.get(1)?,
            started_at: row.get::<_, i64>(2)?.cast_unsigned(),
            completed_at: row.get::<_, Option<i64>>(3)?.map(i64::cast_unsigned),
            event_count: row.get::<_, i64>(4)?.cast_unsigned() as usize,
        })
    };
    statement.query_row(params![id, execution.cast_signed()], read).optional()
}

pub(crate) fn system_metrics(connection: &Connection) -> SqlResult<SystemMetrics> {
    let transaction = connection.unchecked_transaction_if_idle()?;
    let sql = "SELECT count(*),
                      coalesce(sum(e.status = 'Running'), 0),
                      coalesce(sum(e.status = 'Completed'), 0),
                      coalesce(sum(e.status = 'Failed'), 0)
               FROM instances i LEFT JOIN executions e ON e.instance = i.key AND e.execution = i.execution
               WHERE i.name IS NOT NULL";
    let mut metrics = connection.query_row(sql, [], |row| {
        let count = |column| row.get::<_, i64>(column).map(i64::cast_unsigned);
        Ok(SystemMetrics {
            total_instances: count(0)?,
            running_instances: count(1)?,
            completed_instances: count(2)?,
            failed_instances: count(3)?,
            ..SystemMetrics::default()
        })
    })?;
    let count = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).map(i64::cast_unsigned);
    metrics.total_executions = count("SELECT count(*) FROM executions")?;
    metrics.total_events = count(&format!("SELECT {EVENT_COUNT} FROM history"))?;
    drop(transaction);
    Ok(metrics)
}

fn strings<P: rusqlite::Params>(connection: &Connection, sql: &str, values: P) -> SqlResult<Vec<String>> {
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map(values, |row| row.get(0))?;
    rows.collect()
}
