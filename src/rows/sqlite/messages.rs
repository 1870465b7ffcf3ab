//! Table `messages`: the orchestrator queue, in the order of arrival.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{SqlResult, id_with_room, schedule, time};
use crate::queue::{MessageId, MessageKind};
use crate::rows::{Change, MessageHead, MessageRow, Schedule};

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

pub(super) fn apply(connection: &Connection, id: MessageId, change: &Change<MessageRow>) -> SqlResult<()> {
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
        Change::Update(schedule) => {
            let sql = "UPDATE messages SET visible_at_ms = ?2, attempt = ?3 WHERE id = ?1";
            let values = params![id, time(schedule.visible_at_ms), schedule.attempt];
            connection.prepare_cached(sql)?.execute(values)?;
        }
        Change::Delete => {
            connection.prepare_cached("DELETE FROM messages WHERE id = ?1")?.execute([id])?;
        }
    }
    Ok(())
}

pub(super) fn record(connection: &Connection, id: MessageId) -> SqlResult<Vec<u8>> {
    let sql = "SELECT record FROM messages WHERE id = ?1";
    connection.prepare_cached(sql)?.query_row([id], |row| row.get(0))
}

pub(super) fn head(connection: &Connection, id: MessageId) -> SqlResult<Option<MessageHead>> {
    let sql = "SELECT instance, kind, attempt FROM messages WHERE id = ?1";
    let read = |row: &Row<'_>| {
        Ok(MessageHead { instance: row.get(0)?, kind: kind_of(row.get(1)?), attempt: row.get(2)? })
    };
    connection.prepare_cached(sql)?.query_row([id], read).optional()
}

/// Reads every waiting message, oldest first; the records stay where they are.
pub(super) fn each(
    connection: &Connection,
    each: &mut dyn FnMut(MessageId, &str, MessageKind, Schedule),
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
