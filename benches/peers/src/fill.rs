//! Fills a file of `SqliteProvider` with finished instances and pending timers, by copying rows.

use std::path::Path;
use std::str::FromStr;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{Connection, Row};

use crate::driver::scale::{Copied, FINISHED, Filling, SLEEPING};
use crate::driver::subject::Problem;

pub(crate) async fn fill(file: &Path, filling: &Filling) -> Result<(), Problem> {
    let options = SqliteConnectOptions::from_str(&format!("sqlite:{}", file.display()))?;
    let mut connection = SqliteConnection::connect_with(&options).await?;
    for (template, count) in [(FINISHED, filling.finished), (SLEEPING, filling.timers)] {
        if count == 0 {
            continue;
        }
        for copied in tables(template) {
            let columns = sqlx::query("SELECT name FROM pragma_table_info(?1)")
                .bind(copied.table)
                .fetch_all(&mut connection)
                .await?;
            let columns = columns.iter().map(|row| row.try_get(0)).collect::<Result<Vec<String>, _>>()?;
            for sql in copied.statements(&columns, count) {
                sqlx::query(&sql).execute(&mut connection).await?;
            }
        }
    }
    sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut connection).await?;
    connection.close().await?;
    Ok(())
}

/// Where an instance has rows. A finished one has none in the queue.
fn tables(template: &str) -> Vec<Copied> {
    let of = |table, replaced| Copied { table, template: format!("instance_id = '{template}'"), replaced };
    let id = || ("instance_id", format!("'{template}-' || n.i"));
    vec![
        of("instances", vec![id()]),
        of("executions", vec![id()]),
        of("history", vec![id()]),
        of("orchestrator_queue", vec![id(), ("id", "NULL".into())]),
    ]
}
