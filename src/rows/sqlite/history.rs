//! Table `history`: one row a run of events. Rows of one execution do not overlap.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{SqlResult, time};
use crate::rows::{InstanceKey, Run};

/// Counts events by the numbers of their rows, which may be damaged: it neither overflows nor fails, so that a
/// damaged instance can still be counted, listed and deleted.
pub(super) const EVENT_COUNT: &str = "max(CAST(total(last_event - first_event + 1) AS INTEGER), 0)";

pub(super) fn insert(
    connection: &Connection,
    key: InstanceKey,
    execution: u64,
    run: &Run,
    written_at_ms: u64,
) -> SqlResult<()> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO history (instance, execution, first_event, last_event, written_at_ms, record)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    let (first, last) = (run.first_event.cast_signed(), run.last_event.cast_signed());
    let values = params![key, execution.cast_signed(), first, last, time(written_at_ms), run.record];
    statement.execute(values)?;
    Ok(())
}

/// The rows of one execution, in order.
pub(super) fn rows(connection: &Connection, key: InstanceKey, execution: u64) -> SqlResult<Vec<Arc<Run>>> {
    let mut statement = connection.prepare_cached(
        "SELECT first_event, last_event, record FROM history
         WHERE instance = ?1 AND execution = ?2 ORDER BY first_event",
    )?;
    statement.query_map(params![key, execution.cast_signed()], run)?.collect()
}

/// A run from the columns `first_event, last_event, record`.
pub(super) fn run(row: &Row<'_>) -> SqlResult<Arc<Run>> {
    let (first_event, last_event) = event_range(row)?;
    Ok(Arc::new(Run { first_event, last_event, record: row.get(2)? }))
}

fn event_range(row: &Row<'_>) -> SqlResult<(u64, u64)> {
    Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get::<_, i64>(1)?.cast_unsigned()))
}

/// The first and last event of the last row that begins no later than `event`.
pub(super) fn last_before(
    connection: &Connection,
    key: InstanceKey,
    execution: u64,
    event: u64,
) -> SqlResult<Option<(u64, u64)>> {
    let mut statement = connection.prepare_cached(
        "SELECT first_event, last_event FROM history
         WHERE instance = ?1 AND execution = ?2 AND first_event <= ?3 ORDER BY first_event DESC LIMIT 1",
    )?;
    let values = params![key, execution.cast_signed(), event.cast_signed()];
    statement.query_row(values, event_range).optional()
}

/// The last event of an execution; 0 if it has none.
pub(super) fn last_event(connection: &Connection, key: InstanceKey, execution: u64) -> SqlResult<u64> {
    let sql = "SELECT last_event FROM history WHERE instance = ?1 AND execution = ?2
               ORDER BY first_event DESC LIMIT 1";
    let mut statement = connection.prepare_cached(sql)?;
    let last = statement.query_row(params![key, execution.cast_signed()], |row| row.get::<_, i64>(0));
    Ok(last.optional()?.map_or(0, i64::cast_unsigned))
}

/// Whether an instance has executions, and rows of history, after one that is said to be its latest.
pub(super) fn later_than(
    connection: &Connection,
    key: InstanceKey,
    execution: u64,
) -> SqlResult<(bool, bool)> {
    // The upper half of the numbers is stored as negative ones; from there on this does not tell.
    let Ok(execution) = i64::try_from(execution) else { return Ok((false, false)) };
    let sql = "SELECT EXISTS (SELECT 1 FROM executions WHERE instance = ?1 AND execution > ?2)
                   OR EXISTS (SELECT 1 FROM executions WHERE instance = ?1 AND execution < 0),
                      EXISTS (SELECT 1 FROM history WHERE instance = ?1 AND execution > ?2)
                   OR EXISTS (SELECT 1 FROM history WHERE instance = ?1 AND execution < 0)";
    let mut statement = connection.prepare_cached(sql)?;
    statement.query_row([key, execution], |row| Ok((row.get(0)?, row.get(1)?)))
}

/// The execution, other than the one that is named, under which there is a record of which this is said.
pub(super) fn strayed(
    connection: &Connection,
    key: InstanceKey,
    execution: u64,
    is_of_it: &dyn Fn(&[u8]) -> bool,
) -> SqlResult<Option<u64>> {
    let sql = "SELECT execution, record FROM history WHERE instance = ?1 AND execution != ?2";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params![key, execution.cast_signed()])?;
    while let Some(row) = rows.next()? {
        if is_of_it(row.get_ref(1)?.as_blob()?) {
            return Ok(Some(row.get::<_, i64>(0)?.cast_unsigned()));
        }
    }
    Ok(None)
}

pub(super) fn delete(connection: &Connection, key: InstanceKey, execution: u64) -> SqlResult<()> {
    let sql = "DELETE FROM history WHERE instance = ?1 AND execution = ?2";
    connection.prepare_cached(sql)?.execute(params![key, execution.cast_signed()])?;
    Ok(())
}

pub(super) fn delete_all(connection: &Connection, key: InstanceKey) -> SqlResult<()> {
    connection.prepare_cached("DELETE FROM history WHERE instance = ?1")?.execute([key])?;
    Ok(())
}
