//! Every statement the writer runs on the rows of the two queues: load at open, flush at the end of a batch.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::rows::{SqlResult, time};
use crate::queue::{Change, Changes, MessageId, MessageKind, Schedule, WorkId};

/// The columns of a message that do not change while it waits.
pub(crate) struct MessageRow {
    pub(crate) instance: Arc<str>,
    pub(crate) kind: MessageKind,
    pub(crate) record: Vec<u8>,
}

/// The columns of an activity that do not change while it waits.
pub(crate) struct WorkRow {
    pub(crate) instance: Arc<str>,
    pub(crate) execution: u64,
    pub(crate) activity: u64,
    pub(crate) session: Option<Arc<str>>,
    pub(crate) tag: Option<Arc<str>>,
    pub(crate) record: Vec<u8>,
}

fn kind_code(kind: MessageKind) -> i64 {
    match kind {
        MessageKind::Start => 0,
        MessageKind::Event => 1,
        MessageKind::Other => 2,
    }
}

/// A code nobody wrote reads as the kind that is never dropped and starts nothing.
fn kind_of(code: i64) -> MessageKind {
    match code {
        0 => MessageKind::Start,
        1 => MessageKind::Event,
        _ => MessageKind::Other,
    }
}

/// Rows that cannot be deleted because they are damaged: found once, at the price of a batch, and left where they are
/// from then on.
pub(crate) type Undeletable = HashSet<i64>;

/// How many of them are remembered.
const UNDELETABLE_MAX: usize = 4096;

fn delete(
    connection: &Connection,
    sql: &'static str,
    id: i64,
    undeletable: &mut Undeletable,
) -> SqlResult<()> {
    if undeletable.contains(&id) {
        return Ok(());
    }
    let deleted = connection.prepare_cached(sql)?.execute([id]);
    if let Err(error) = &deleted
        && error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseCorrupt)
        && undeletable.len() < UNDELETABLE_MAX
    {
        tracing::error!(id, sql, %error, "a row cannot be deleted: it is damaged, and stays as it is");
        undeletable.insert(id);
    }
    deleted.map(|_rows| ())
}

pub(crate) fn flush_messages(
    connection: &Connection,
    changes: &mut Changes<MessageRow>,
    now: Duration,
    undeletable: &mut Undeletable,
) -> SqlResult<()> {
    for (id, change) in changes.drain(now) {
        match change {
            Change::Insert(row, schedule) => {
                let sql = "INSERT INTO messages (id, instance, kind, visible_at_ms, attempt, record)
                           VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
                connection.prepare_cached(sql)?.execute(params![
                    id,
                    row.instance,
                    kind_code(row.kind),
                    time(schedule.visible_at_ms),
                    schedule.attempt,
                    row.record,
                ])?;
            }
            Change::Update(schedule) => reschedule(connection, "messages", id, schedule)?,
            Change::Delete => delete(connection, "DELETE FROM messages WHERE id = ?1", id, undeletable)?,
        }
    }
    Ok(())
}

pub(crate) fn flush_work(
    connection: &Connection,
    changes: &mut Changes<WorkRow>,
    now: Duration,
    undeletable: &mut Undeletable,
) -> SqlResult<()> {
    for (id, change) in changes.drain(now) {
        match change {
            Change::Insert(row, schedule) => {
                let sql = "INSERT INTO work (id, instance, execution, activity, session, tag, visible_at_ms,
                           attempt, record) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
                connection.prepare_cached(sql)?.execute(params![
                    id,
                    row.instance,
                    row.execution.cast_signed(),
                    row.activity.cast_signed(),
                    row.session,
                    row.tag,
                    time(schedule.visible_at_ms),
                    schedule.attempt,
                    row.record,
                ])?;
            }
            Change::Update(schedule) => reschedule(connection, "work", id, schedule)?,
            Change::Delete => delete(connection, "DELETE FROM work WHERE id = ?1", id, undeletable)?,
        }
    }
    Ok(())
}

fn reschedule(connection: &Connection, table: &str, id: i64, schedule: Schedule) -> SqlResult<()> {
    let sql = match table {
        "work" => "UPDATE work SET visible_at_ms = ?2, attempt = ?3 WHERE id = ?1",
        _ => "UPDATE messages SET visible_at_ms = ?2, attempt = ?3 WHERE id = ?1",
    };
    let values = params![id, time(schedule.visible_at_ms), schedule.attempt];
    connection.prepare_cached(sql)?.execute(values)?;
    Ok(())
}

pub(crate) fn message_record(connection: &Connection, id: MessageId) -> SqlResult<Vec<u8>> {
    let sql = "SELECT record FROM messages WHERE id = ?1";
    connection.prepare_cached(sql)?.query_row([id], |row| row.get(0))
}

pub(crate) fn work_record(connection: &Connection, id: WorkId) -> SqlResult<Vec<u8>> {
    let sql = "SELECT record FROM work WHERE id = ?1";
    connection.prepare_cached(sql)?.query_row([id], |row| row.get(0))
}

/// The columns of a message that has fallen due: whose it is, of what kind, and how often it was tried.
pub(crate) fn message_header(
    connection: &Connection,
    id: MessageId,
) -> SqlResult<Option<(String, MessageKind, u32)>> {
    let sql = "SELECT instance, kind, attempt FROM messages WHERE id = ?1";
    let read = |row: &Row<'_>| Ok((row.get(0)?, kind_of(row.get(1)?), row.get(2)?));
    connection.prepare_cached(sql)?.query_row([id], read).optional()
}

/// Reads every waiting message, oldest first; the records stay where they are.
pub(crate) fn each_message(
    connection: &Connection,
    mut each: impl FnMut(MessageId, &str, MessageKind, Schedule),
    mut unreadable: impl FnMut(i64, rusqlite::Error) -> SqlResult<()>,
) -> SqlResult<()> {
    let sql = "SELECT id, instance, kind, visible_at_ms, attempt FROM messages ORDER BY id";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let id = row.get(0)?;
        let mut read = || {
            let instance = row.get_ref(1)?.as_str()?;
            each(id_with_room(id)?, instance, kind_of(row.get(2)?), schedule(row, 3)?);
            Ok(())
        };
        read().or_else(|error| unreadable(id, error))?;
    }
    Ok(())
}

/// Row ids are given out in order of arrival: a million a second for a hundred thousand years come to no more. A row
/// behind that was not put there, and would leave too few for what comes behind it.
pub(super) const ID_MAX: i64 = i64::MAX / 2;

fn id_with_room(id: i64) -> SqlResult<i64> {
    if id <= ID_MAX { Ok(id) } else { Err(rusqlite::Error::IntegralValueOutOfRange(0, id)) }
}

fn schedule(row: &Row<'_>, first: usize) -> SqlResult<Schedule> {
    let visible_at_ms = row.get::<_, i64>(first)?.max(0).cast_unsigned();
    Ok(Schedule { visible_at_ms, attempt: row.get(first + 1)? })
}

/// Reads every waiting activity, oldest first; the records stay where they are.
pub(crate) fn each_work(
    connection: &Connection,
    mut each: impl FnMut(WorkId, WorkRow, Schedule),
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
            let work = WorkRow {
                instance: row.get::<_, String>(1)?.into(),
                execution: row.get::<_, i64>(2)?.cast_unsigned(),
                activity: row.get::<_, i64>(3)?.cast_unsigned(),
                session: text(4)?,
                tag: text(5)?,
                record: Vec::new(),
            };
            each(id_with_room(id)?, work, schedule(row, 6)?);
            Ok(())
        };
        read().or_else(|error| unreadable(id, error))?;
    }
    Ok(())
}
