//! Fills a forebay file with finished instances and pending timers, by copying rows.

use std::path::Path;

use rusqlite::Connection;

use crate::driver::scale::{Copied, FINISHED, Filling, SLEEPING};
use crate::driver::subject::Problem;

pub(crate) fn fill(file: &Path, filling: &Filling) -> Result<(), Problem> {
    let mut connection = Connection::open(file)?;
    let transaction = connection.transaction()?;
    for (template, count) in [(FINISHED, filling.finished), (SLEEPING, filling.timers)] {
        if count == 0 {
            continue;
        }
        let (key, next_key, next_message) = transaction.query_row(
            "SELECT (SELECT key FROM instances WHERE id = ?1), (SELECT max(key) FROM instances),
             (SELECT ifnull(max(id), 0) FROM messages)",
            [template],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )?;
        for copied in tables(template, key, next_key, next_message) {
            for sql in copied.statements(&columns(&transaction, copied.table)?, count) {
                transaction.execute_batch(&sql)?;
            }
        }
    }
    transaction.commit()?;
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    connection.close().map_err(|(_, error)| error)?;
    Ok(())
}

fn columns(connection: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare("SELECT name FROM pragma_table_info(?1)")?;
    let names = statement.query_map([table], |row| row.get(0))?;
    names.collect()
}

/// Where an instance has rows. A finished one has none in the queue.
fn tables(template: &str, key: i64, next_key: i64, next_message: i64) -> Vec<Copied> {
    let by_key = |table| Copied {
        table,
        template: format!("instance = {key}"),
        replaced: vec![("instance", format!("{next_key} + n.i"))],
    };
    let id = format!("'{template}-' || n.i");
    vec![
        Copied {
            table: "instances",
            template: format!("key = {key}"),
            replaced: vec![("key", format!("{next_key} + n.i")), ("id", id.clone())],
        },
        by_key("executions"),
        by_key("history"),
        Copied {
            table: "messages",
            template: format!("instance = '{template}'"),
            replaced: vec![("id", format!("{next_message} + n.i")), ("instance", id)],
        },
    ]
}
