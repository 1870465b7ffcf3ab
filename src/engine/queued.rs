//! Every statement the writer runs on the rows of the two queues: load at open, flush at the end of a batch.

use std::sync::Arc;

use rusqlite::{Connection, Row, params};

use super::rows::{SqlResult, time};
use crate::queue::{Change, Changes, MessageId, MessageKind, Schedule, WorkId};

/// The columns of a message that do not change while it waits.
#[derive(Debug, Clone)]
pub(crate) struct MessageRow {
    pub(crate) instance: Arc<str>,
    pub(crate) kind: MessageKind,
    pub(crate) record: Vec<u8>,
}

/// The columns of an activity that do not change while it waits.
#[derive(Debug, Clone)]
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

pub(crate) fn flush_messages(connection: &Connection, changes: &mut Changes<MessageRow>) -> SqlResult<()> {
    for (id, change) in changes.drain() {
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
            Change::Delete => {
                connection.prepare_cached("DELETE FROM messages WHERE id = ?1")?.execute([id])?;
            }
        }
    }
    Ok(())
}

pub(crate) fn flush_work(connection: &Connection, changes: &mut Changes<WorkRow>) -> SqlResult<()> {
    for (id, change) in changes.drain() {
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
            Change::Delete => {
                connection.prepare_cached("DELETE FROM work WHERE id = ?1")?.execute([id])?;
            }
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

pub(crate) fn message(connection: &Connection, id: MessageId) -> SqlResult<MessageRow> {
    let sql = "SELECT instance, kind, record FROM messages WHERE id = ?1";
    connection.prepare_cached(sql)?.query_row([id], |row| {
        let instance = row.get_ref(0)?.as_str()?.into();
        Ok(MessageRow { instance, kind: kind_of(row.get(1)?), record: row.get(2)? })
    })
}

pub(crate) fn work(connection: &Connection, id: WorkId) -> SqlResult<WorkRow> {
    let sql = "SELECT instance, execution, activity, session, tag, record FROM work WHERE id = ?1";
    connection
        .prepare_cached(sql)?
        .query_row([id], |row| Ok(WorkRow { record: row.get(5)?, ..work_columns(row, 0)? }))
}

/// The columns but the record, from the one with this number on.
fn work_columns(row: &Row<'_>, from: usize) -> SqlResult<WorkRow> {
    let text = |column| row.get::<_, Option<String>>(column).map(|text| text.map(Arc::from));
    Ok(WorkRow {
        instance: row.get_ref(from)?.as_str()?.into(),
        execution: row.get::<_, i64>(from + 1)?.cast_unsigned(),
        activity: row.get::<_, i64>(from + 2)?.cast_unsigned(),
        session: text(from + 3)?,
        tag: text(from + 4)?,
        record: Vec::new(),
    })
}

/// Reads every waiting message, oldest first; the records stay where they are.
pub(crate) fn each_message(
    connection: &Connection,
    mut each: impl FnMut(MessageId, &str, MessageKind, Schedule),
) -> SqlResult<()> {
    let sql = "SELECT id, instance, kind, visible_at_ms, attempt FROM messages ORDER BY id";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let instance = row.get_ref(1)?.as_str()?;
        let schedule =
            Schedule { visible_at_ms: row.get::<_, i64>(3)?.max(0).cast_unsigned(), attempt: row.get(4)? };
        each(row.get(0)?, instance, kind_of(row.get(2)?), schedule);
    }
    Ok(())
}

/// Reads every waiting activity, oldest first; the records stay where they are.
pub(crate) fn each_work(
    connection: &Connection,
    mut each: impl FnMut(WorkId, WorkRow, Schedule),
) -> SqlResult<()> {
    let sql = "SELECT id, instance, execution, activity, session, tag, visible_at_ms, attempt
               FROM work ORDER BY id";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let work = work_columns(row, 1)?;
        let schedule =
            Schedule { visible_at_ms: row.get::<_, i64>(6)?.max(0).cast_unsigned(), attempt: row.get(7)? };
        each(row.get(0)?, work, schedule);
    }
    Ok(())
}
