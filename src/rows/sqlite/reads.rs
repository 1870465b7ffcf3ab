//! Statements that only read, many of them across tables: for readers, on a connection of their own (in memory mode the
//! writer's), and for operations that look at much before they delete.

use std::collections::HashMap;
use std::sync::Arc;

use duroxide::INITIAL_EXECUTION_ID;
use duroxide::providers::{ExecutionInfo, InstanceInfo, PruneOptions, SystemMetrics};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::history::{self, EVENT_COUNT};
use super::kv::{CLEARED, SET};
use super::{SqlResult, instances, messages, time};
use crate::error::Error;
use crate::queue::MessageId;
use crate::rows::{
    BulkSelect, InstanceKey, InstanceRows, InstanceStats, Reads, Removed, Run, Status, UNKNOWN_VERSION,
};

impl Reads for Connection {
    fn latest_execution(&self, id: &str) -> Result<u64, Error> {
        Ok(latest_execution(self, id)?)
    }

    fn history(&self, id: &str, execution: Option<u64>) -> Result<(u64, Vec<Arc<Run>>), Error> {
        Ok(history(self, id, execution)?)
    }

    fn custom_status(
        &self,
        id: &str,
        last_seen_version: u64,
    ) -> Result<Option<(Option<String>, u64)>, Error> {
        Ok(custom_status(self, id, last_seen_version)?)
    }

    fn kv_value(&self, id: &str, key: &str) -> Result<Option<String>, Error> {
        Ok(kv_value(self, id, key)?)
    }

    fn kv_all(&self, id: &str) -> Result<HashMap<String, String>, Error> {
        Ok(kv_all(self, id)?)
    }

    fn instance_stats(&self, id: &str) -> Result<Option<InstanceStats>, Error> {
        Ok(instance_stats(self, id)?)
    }

    fn list_instances(&self, status: Option<&str>) -> Result<Vec<String>, Error> {
        Ok(list_instances(self, status)?)
    }

    fn list_executions(&self, id: &str) -> Result<Vec<u64>, Error> {
        Ok(list_executions(self, id)?)
    }

    fn list_children(&self, id: &str) -> Result<Vec<String>, Error> {
        Ok(list_children(self, id)?)
    }

    fn tree(&self, root: &str) -> Result<Vec<String>, Error> {
        Ok(tree(self, root)?)
    }

    fn parent(&self, id: &str) -> Result<Option<Option<String>>, Error> {
        Ok(parent(self, id)?)
    }

    fn instance_info(&self, id: &str) -> Result<Option<InstanceInfo>, Error> {
        Ok(instance_info(self, id)?)
    }

    fn execution_info(&self, id: &str, execution: u64) -> Result<Option<ExecutionInfo>, Error> {
        Ok(execution_info(self, id, execution)?)
    }

    fn system_metrics(&self) -> Result<SystemMetrics, Error> {
        Ok(system_metrics(self)?)
    }

    fn status(&self, id: &str) -> Result<Option<Status>, Error> {
        Ok(status(self, id)?)
    }

    fn select(&self, select: BulkSelect<'_>) -> Result<Vec<(InstanceKey, Option<String>)>, Error> {
        Ok(bulk_select(self, select)?)
    }

    fn prunable(&self, key: InstanceKey, current: u64, options: &PruneOptions) -> Result<Vec<u64>, Error> {
        Ok(prunable(self, key, current, options)?)
    }

    fn removed_with(&self, key: InstanceKey, execution: Option<u64>) -> Result<Removed, Error> {
        Ok(removed_with(self, key, execution)?)
    }

    fn strayed(
        &self,
        key: InstanceKey,
        execution: u64,
        is_of_it: &dyn Fn(&[u8]) -> bool,
    ) -> Result<Option<u64>, Error> {
        Ok(history::strayed(self, key, execution, is_of_it)?)
    }

    fn message_record(&self, id: MessageId) -> Result<Vec<u8>, Error> {
        Ok(messages::record(self, id)?)
    }
}

/// The latest execution of an instance; 1 for an instance nobody has heard of.
fn latest_execution(connection: &Connection, id: &str) -> SqlResult<u64> {
    let sql = "SELECT max(e.execution) FROM instances i JOIN executions e ON e.instance = i.key
               WHERE i.id = ?1";
    let latest: Option<i64> = connection.prepare_cached(sql)?.query_row([id], |row| row.get(0))?;
    Ok(latest.map_or(INITIAL_EXECUTION_ID, i64::cast_unsigned))
}

/// The stored history of one execution, the latest if none is named.
fn history(connection: &Connection, id: &str, execution: Option<u64>) -> SqlResult<(u64, Vec<Arc<Run>>)> {
    // One snapshot for both looks; rolled back, which for a read is the same as committed.
    let transaction = connection.unchecked_transaction_if_idle()?;
    let execution = match execution {
        Some(execution) => execution,
        None => latest_execution(connection, id)?,
    };
    let history = match key(connection, id)? {
        Some(key) => history::rows(connection, key, execution)?,
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

fn custom_status(
    connection: &Connection,
    id: &str,
    last_seen_version: u64,
) -> SqlResult<Option<(Option<String>, u64)>> {
    let sql = "SELECT custom_status, custom_status_version FROM instances
               WHERE id = ?1 AND custom_status_version > ?2";
    let mut statement = connection.prepare_cached(sql)?;
    let values = params![id, time(last_seen_version)];
    statement.query_row(values, |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned()))).optional()
}

/// The value a reader sees: what the running execution did to the key, or else what came before it.
const KV_SEEN: &str = "CASE delta_kind WHEN ?2 THEN delta WHEN ?3 THEN NULL ELSE base END";

fn kv_value(connection: &Connection, id: &str, name: &str) -> SqlResult<Option<String>> {
    let sql = format!(
        "SELECT {KV_SEEN} FROM kv WHERE key = ?4 AND instance = (SELECT key FROM instances WHERE id = ?1)"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let found = statement.query_row(params![id, SET, CLEARED, name], |row| row.get(0)).optional()?;
    Ok(found.flatten())
}

fn kv_all(connection: &Connection, id: &str) -> SqlResult<HashMap<String, String>> {
    let sql = format!(
        "SELECT key, {KV_SEEN} AS seen FROM kv
         WHERE instance = (SELECT key FROM instances WHERE id = ?1) AND seen IS NOT NULL"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let rows = statement.query_map(params![id, SET, CLEARED], |row| Ok((row.get(0)?, row.get(1)?)))?;
    rows.collect()
}

fn instance_stats(connection: &Connection, id: &str) -> SqlResult<Option<InstanceStats>> {
    let transaction = connection.unchecked_transaction_if_idle()?;
    let row = instances::find(connection, id)?.map(|found| found.rows);
    let Some(row) = row.filter(InstanceRows::is_named) else { return Ok(None) };
    let of = params![row.key, row.execution.cast_signed()];
    let sql = format!(
        "SELECT {EVENT_COUNT}, coalesce(sum(length(record)), 0)
         FROM history WHERE instance = ?1 AND execution = ?2"
    );
    let (events, history_bytes) = connection.prepare_cached(&sql)?.query_row(of, two_counts)?;
    let sql = "SELECT first_event, last_event, record FROM history
               WHERE instance = ?1 AND execution = ?2 AND first_event = 1";
    let first = connection.prepare_cached(sql)?.query_row(of, history::run).optional()?;
    let sql = format!(
        "SELECT count(*), coalesce(sum(length(CAST(seen AS BLOB))), 0)
         FROM (SELECT {KV_SEEN} AS seen FROM kv WHERE instance = ?1) WHERE seen IS NOT NULL"
    );
    let values = params![row.key, SET, CLEARED];
    let (kv_keys, kv_bytes) = connection.prepare_cached(&sql)?.query_row(values, two_counts)?;
    drop(transaction);
    Ok(Some(InstanceStats { events, history_bytes, kv_keys, kv_bytes, execution: row.execution, first }))
}

fn two_counts(row: &Row<'_>) -> SqlResult<(u64, u64)> {
    Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get::<_, i64>(1)?.cast_unsigned()))
}

/// Instances, newest first, all or those whose current execution has a status.
fn list_instances(connection: &Connection, status: Option<&str>) -> SqlResult<Vec<String>> {
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
                tracing::error!(
                    key,
                    error = format_args!("{error:#}"),
                    "an instance is passed by: its id is damaged"
                );
                None
            }
        };
        Ok((key, id))
    })?;
    rows.collect()
}

fn list_executions(connection: &Connection, id: &str) -> SqlResult<Vec<u64>> {
    let sql = "SELECT e.execution FROM instances i JOIN executions e ON e.instance = i.key
               WHERE i.id = ?1 ORDER BY e.execution";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map([id], |row| Ok(row.get::<_, i64>(0)?.cast_unsigned()))?;
    rows.collect()
}

fn list_children(connection: &Connection, id: &str) -> SqlResult<Vec<String>> {
    strings(connection, "SELECT id FROM instances WHERE parent = ?1 ORDER BY key", [id])
}

/// An instance and all its descendants, the root first.
fn tree(connection: &Connection, root: &str) -> SqlResult<Vec<String>> {
    let sql = "WITH RECURSIVE tree (id) AS (
                   SELECT ?1 UNION SELECT i.id FROM tree JOIN instances i ON i.parent = tree.id
               ) SELECT id FROM tree";
    strings(connection, sql, [root])
}

/// The parent of an instance; the outer `None` if there is no such instance.
fn parent(connection: &Connection, id: &str) -> SqlResult<Option<Option<String>>> {
    let sql = "SELECT parent FROM instances WHERE id = ?1 AND name IS NOT NULL";
    connection.prepare_cached(sql)?.query_row([id], |row| row.get(0)).optional()
}

fn instance_info(connection: &Connection, id: &str) -> SqlResult<Option<InstanceInfo>> {
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

fn execution_info(connection: &Connection, id: &str, execution: u64) -> SqlResult<Option<ExecutionInfo>> {
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

fn system_metrics(connection: &Connection) -> SqlResult<SystemMetrics> {
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

fn status(connection: &Connection, id: &str) -> SqlResult<Option<Status>> {
    let sql = "SELECT e.status FROM instances i
               JOIN executions e ON e.instance = i.key AND e.execution = i.execution WHERE i.id = ?1";
    let mut statement = connection.prepare_cached(sql)?;
    statement.query_row([id], |row| Ok(Status::from(row.get_ref(0)?.as_str()?))).optional()
}

/// A root of a tree of which no member runs.
const FINISHED_TREE: &str = "
    AND i.parent IS NULL AND e.status IN ('Completed', 'Failed', 'ContinuedAsNew')
    AND NOT EXISTS (
        WITH RECURSIVE tree (id) AS (
            SELECT i.id UNION SELECT child.id FROM tree JOIN instances child ON child.parent = tree.id
        )
        SELECT 1 FROM tree JOIN instances member ON member.id = tree.id
        JOIN executions current ON current.instance = member.key AND current.execution = member.execution
        WHERE current.status = 'Running')";

fn bulk_select(
    connection: &Connection,
    select: BulkSelect<'_>,
) -> SqlResult<Vec<(InstanceKey, Option<String>)>> {
    let sql = format!(
        "SELECT i.key, i.id FROM instances i
         LEFT JOIN executions e ON e.instance = i.key AND e.execution = i.execution
         WHERE i.name IS NOT NULL {} {}
           AND (?2 IS NULL OR e.completed_at_ms < ?2) AND i.key > ?3 ORDER BY i.key LIMIT ?4",
        if select.id.is_some() { "AND i.id = ?1" } else { "AND ?1 IS NULL" },
        if select.finished_trees { FINISHED_TREE } else { "" },
    );
    let before = select.completed_before_ms.map(time);
    keys_and_ids(connection, &sql, params![select.id, before, select.after, select.limit])
}

fn prunable(
    connection: &Connection,
    key: InstanceKey,
    current: u64,
    options: &PruneOptions,
) -> SqlResult<Vec<u64>> {
    let mut statement = connection.prepare_cached(
        "SELECT execution FROM executions
         WHERE instance = ?1 AND execution != ?2 AND status != 'Running'
           AND (?3 IS NULL OR completed_at_ms < ?3)
           AND execution NOT IN (SELECT execution FROM executions WHERE instance = ?1
                                 ORDER BY execution DESC LIMIT ?4)
         ORDER BY execution",
    )?;
    let before = options.completed_before.map(time);
    let values = params![key, current.cast_signed(), before, options.keep_last.unwrap_or(0)];
    let rows = statement.query_map(values, |row| Ok(row.get::<_, i64>(0)?.cast_unsigned()))?;
    rows.collect()
}

fn removed_with(connection: &Connection, key: InstanceKey, execution: Option<u64>) -> SqlResult<Removed> {
    let count = |what: &str, table: &str| {
        let sql = format!("SELECT {what} FROM {table} WHERE instance = ?1");
        let counted = match execution {
            None => connection.prepare_cached(&sql)?.query_row([key], |row| row.get::<_, i64>(0)),
            Some(execution) => {
                let sql = format!("{sql} AND execution = ?2");
                let values = params![key, execution.cast_signed()];
                connection.prepare_cached(&sql)?.query_row(values, |row| row.get(0))
            }
        };
        counted.map(i64::cast_unsigned)
    };
    Ok(Removed { executions: count("count(*)", "executions")?, events: count(EVENT_COUNT, "history")? })
}
