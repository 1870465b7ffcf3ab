//! Table `instances`: one row an instance, found by its id or, from the tables of what it owns, by its key.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{SqlResult, history, time};
use crate::rows::{
    ExecutionRows, ID_MAX, Identity, InstanceFound, InstanceKey, InstanceRows, InstanceUpdate, NewInstance,
};

/// The key after all those given out. What damage has made of a key counts for nothing.
pub(super) fn next_key(connection: &Connection) -> SqlResult<InstanceKey> {
    let sql = "SELECT max(key) FROM instances WHERE key <= ?1";
    let last: Option<i64> = connection.prepare_cached(sql)?.query_row([ID_MAX], |row| row.get(0))?;
    Ok(last.map_or(1, |last| last.max(0) + 1))
}

/// What memory keeps of an instance.
pub(super) fn find(connection: &Connection, id: &str) -> SqlResult<Option<InstanceFound>> {
    let mut statement = connection.prepare_cached(
        "SELECT i.key, i.name, i.version, i.execution, e.pinned, e.execution IS NOT NULL,
                EXISTS (SELECT 1 FROM kv WHERE kv.instance = i.key),
                (SELECT last_event FROM history h WHERE h.instance = i.key AND h.execution = i.execution
                 ORDER BY first_event DESC LIMIT 1)
         FROM instances i LEFT JOIN executions e ON e.instance = i.key AND e.execution = i.execution
         WHERE i.id = ?1",
    )?;
    let read = |row: &Row<'_>| {
        let (name, version): (Option<String>, Option<String>) = (row.get(1)?, row.get(2)?);
        Ok(InstanceRows {
            key: row.get(0)?,
            identity: match name {
                Some(name) => Identity::Named { name, version },
                None => Identity::Unnamed { is_started: false },
            },
            execution: row.get::<_, i64>(3)?.cast_unsigned(),
            latest: ExecutionRows {
                exists: row.get(5)?,
                pinned: super::executions::pinned(row.get(4)?),
                last_event: row.get::<_, Option<i64>>(7)?.map_or(0, i64::cast_unsigned),
            },
            may_have_kv: row.get(6)?,
        })
    };
    let Some(rows) = statement.query_row([id], read).optional()? else { return Ok(None) };
    let history = match rows.identity {
        Identity::Named { .. } => Vec::new(),
        Identity::Unnamed { .. } => history::rows(connection, rows.key, rows.execution)?,
    };
    Ok(Some(InstanceFound { rows, history }))
}

pub(super) fn insert(
    connection: &Connection,
    key: InstanceKey,
    new: &NewInstance,
    update: &InstanceUpdate,
) -> SqlResult<()> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO instances (key, id, name, version, execution, parent, custom_status,
                                custom_status_version, created_at_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?;
    let (name, version) = update.named.as_ref().map(|(name, version)| (name, version)).unzip();
    statement.execute(params![
        key,
        new.id,
        name,
        version.and_then(Option::as_ref),
        update.execution.unwrap_or(new.execution).cast_signed(),
        update.parent,
        update.custom_status.as_ref().and_then(Option::as_ref),
        update.custom_status_versions,
        time(new.created_at_ms),
    ])?;
    Ok(())
}

pub(super) fn update(connection: &Connection, key: InstanceKey, update: &InstanceUpdate) -> SqlResult<()> {
    if update.named.is_some() || update.execution.is_some() || update.parent.is_some() {
        let sql = "UPDATE instances
                   SET name = coalesce(?2, name), version = CASE WHEN ?2 IS NULL THEN version ELSE ?3 END,
                       execution = coalesce(?4, execution), parent = coalesce(?5, parent)
                   WHERE key = ?1";
        let (name, version) = update.named.as_ref().map(|(name, version)| (name, version)).unzip();
        connection.prepare_cached(sql)?.execute(params![
            key,
            name,
            version.and_then(Option::as_ref),
            update.execution.map(u64::cast_signed),
            update.parent,
        ])?;
    }
    if let Some(status) = &update.custom_status {
        let sql = "UPDATE instances
                   SET custom_status = ?2, custom_status_version = custom_status_version + ?3
                   WHERE key = ?1";
        connection.prepare_cached(sql)?.execute(params![key, status, update.custom_status_versions])?;
    }
    Ok(())
}

pub(super) fn delete(connection: &Connection, key: InstanceKey) -> SqlResult<()> {
    connection.prepare_cached("DELETE FROM instances WHERE key = ?1")?.execute([key])?;
    Ok(())
}
