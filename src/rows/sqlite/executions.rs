//! Table `executions`: one row an execution of an instance.

use rusqlite::{Connection, OptionalExtension, params};
use semver::Version;

use super::{SqlResult, time};
use crate::rows::{ExecutionChange, InstanceKey, Status};

/// Written by this crate from a version that was parsed; what does not parse pins nothing.
pub(super) fn pinned(text: Option<String>) -> Option<Version> {
    text.and_then(|text| Version::parse(&text).ok())
}

/// What an execution is pinned to; the outer `None` if it has no row.
pub(super) fn find(
    connection: &Connection,
    key: InstanceKey,
    execution: u64,
) -> SqlResult<Option<Option<Version>>> {
    let sql = "SELECT pinned FROM executions WHERE instance = ?1 AND execution = ?2";
    let mut statement = connection.prepare_cached(sql)?;
    let found = statement.query_row(params![key, execution.cast_signed()], |row| row.get(0)).optional()?;
    Ok(found.map(pinned))
}

pub(super) fn put(
    connection: &Connection,
    key: InstanceKey,
    execution: u64,
    change: &ExecutionChange,
) -> SqlResult<()> {
    if change.exists || !insert(connection, key, execution, change)? {
        update(connection, key, execution, change)?;
    }
    Ok(())
}

/// False if it is there already.
fn insert(
    connection: &Connection,
    key: InstanceKey,
    execution: u64,
    change: &ExecutionChange,
) -> SqlResult<bool> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO executions (instance, execution, status, output, pinned, started_at_ms, completed_at_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO NOTHING",
    )?;
    let inserted = statement.execute(params![
        key,
        execution.cast_signed(),
        change.status.as_ref().unwrap_or(&Status::Running).as_str(),
        change.output.as_deref().filter(|_| change.status.is_some()),
        change.pinned.as_ref().map(Version::to_string),
        time(change.now_ms),
        change.completed_at_ms().map(time),
    ])?;
    Ok(inserted > 0)
}

/// Changes what is said, and nothing else.
fn update(
    connection: &Connection,
    key: InstanceKey,
    execution: u64,
    change: &ExecutionChange,
) -> SqlResult<()> {
    let execution = execution.cast_signed();
    if let Some(pinned) = &change.pinned {
        let sql = "UPDATE executions SET pinned = ?3 WHERE instance = ?1 AND execution = ?2";
        connection.prepare_cached(sql)?.execute(params![key, execution, pinned.to_string()])?;
    }
    if let Some(status) = &change.status {
        let sql = "UPDATE executions SET status = ?3, output = ?4, completed_at_ms = ?5
                   WHERE instance = ?1 AND execution = ?2";
        let completed_at_ms = change.completed_at_ms().map(time);
        let values = params![key, execution, status.as_str(), change.output, completed_at_ms];
        connection.prepare_cached(sql)?.execute(values)?;
    }
    Ok(())
}

pub(super) fn delete(connection: &Connection, key: InstanceKey, execution: u64) -> SqlResult<()> {
    let sql = "DELETE FROM executions WHERE instance = ?1 AND execution = ?2";
    connection.prepare_cached(sql)?.execute(params![key, execution.cast_signed()])?;
    Ok(())
}

pub(super) fn delete_all(connection: &Connection, key: InstanceKey) -> SqlResult<()> {
    connection.prepare_cached("DELETE FROM executions WHERE instance = ?1")?.execute([key])?;
    Ok(())
}
