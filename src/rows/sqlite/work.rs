//! Table `work`: the worker queue, in the order of arrival.

use std::sync::Arc;

use rusqlite::{Connection, params};

use super::{SqlResult, id_with_room, schedule, time};
use crate::queue::{Activity, WorkId};
use crate::rows::{Change, Schedule, WorkRow};

pub(super) fn apply(connection: &Connection, id: WorkId, change: &Change<WorkRow>) -> SqlResult<()> {
    match change {
        Change::Insert(row, schedule) => {
            let activity = &row.activity;
            let sql = "INSERT INTO work (id, instance, execution, activity, session, tag, visible_at_ms,
                       attempt, record) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
            connection.prepare_cached(sql)?.execute(params![
                id,
                activity.instance,
                activity.execution.cast_signed(),
                activity.id.cast_signed(),
                activity.session,
                activity.tag,
                time(schedule.visible_at_ms),
                schedule.attempt,
                row.record,
            ])?;
        }
        Change::Update(schedule) => {
            let sql = "UPDATE work SET visible_at_ms = ?2, attempt = ?3 WHERE id = ?1";
            let values = params![id, time(schedule.visible_at_ms), schedule.attempt];
            connection.prepare_cached(sql)?.execute(values)?;
        }
        Change::Delete => {
            connection.prepare_cached("DELETE FROM work WHERE id = ?1")?.execute([id])?;
        }
    }
    Ok(())
}

pub(super) fn record(connection: &Connection, id: WorkId) -> SqlResult<Vec<u8>> {
    let sql = "SELECT record FROM work WHERE id = ?1";
    connection.prepare_cached(sql)?.query_row([id], |row| row.get(0))
}

/// Reads every waiting activity, oldest first; the records stay where they are.
pub(super) fn each(
    connection: &Connection,
    each: &mut dyn FnMut(WorkId, WorkRow, Schedule),
    mut unreadable: impl FnMut(i64, rusqlite::Error) -> SqlResult<()>,
) -> SqlResult<()> {
    let sql = "SELECT id, instance, execution, activity, session, tag, visible_at_ms, attempt
               FROM work ORDER BY id";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let id = row.get(0)?;
        let mut read = || {
            let text = |column| row.get::<_, Option<String>>(column).map(|text| text.map(Arc::from));
            let activity = Activity {
                instance: row.get::<_, String>(1)?.into(),
                execution: row.get::<_, i64>(2)?.cast_unsigned(),
                id: row.get::<_, i64>(3)?.cast_unsigned(),
                session: text(4)?,
                tag: text(5)?,
            };
            let work = WorkRow { activity, record: Vec::new() };
            each(id_with_room(id)?, work, schedule(row, 6)?);
            Ok(())
        };
        read().or_else(|error| unreadable(id, error))?;
    }
    Ok(())
}
