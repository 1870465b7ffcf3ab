//! Runs [`WriterOptions::on_open`](crate::WriterOptions::on_open) on a connection, and makes sure that what is promised
//! still holds.

use std::panic::{AssertUnwindSafe, catch_unwind};

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::{Location, Settings, has_temporary_objects, read_pragma, set_pragma};
use crate::error::Error;
use crate::options::OnOpen;

/// What durability, or who may write, depends on.
const WATCHED: &[&str] = &["journal_mode", "synchronous", "wal_autocheckpoint", "locking_mode", "query_only"];

/// The connection is `query_only` meanwhile, the writing one too: nothing is written before it is known whose file
/// this is, and readers could not do the same.
pub(super) fn run(
    connection: &Connection,
    location: &Location,
    on_open: Option<&OnOpen>,
) -> Result<(), Error> {
    let Some(on_open) = on_open else { return Ok(()) };
    let writes = read_pragma(connection, "query_only")? == "0";
    if writes {
        set_pragma(connection, "query_only", "ON", "1")?;
    }
    let before = watched(connection)?;
    match catch_unwind(AssertUnwindSafe(|| on_open.call(connection))) {
        Ok(outcome) => outcome.map_err(|source| {
            let path = match location {
                Location::File(path) => Some(path.clone()),
                Location::Memory => None,
            };
            Error::OnOpen { path, source }
        })?,
        Err(panic) => {
            // Dropping a stranger's payload may panic again.
            std::mem::forget(panic);
            return refused("it panicked (the message is on stderr)".into());
        }
    }
    if has_temporary_objects(connection)? {
        return refused(
            "it left temporary tables, views or triggers, which would stand before those of the file".into(),
        );
    }
    if !connection.is_autocommit() {
        return refused("it left a transaction open".into());
    }
    for ((name, before), (_, after)) in before.iter().zip(watched(connection)?) {
        if *before != after {
            return refused(format!("it changed {name} from {before} to {after}, which is forebay's to set"));
        }
    }
    // The wait for foreign locks, the statement cache and callbacks are ours; limits and configuration stay.
    Settings::of(connection).restore(connection);
    // What was prepared here was not authorized, and closures would find it in the cache.
    connection.flush_prepared_statement_cache();
    if writes { set_pragma(connection, "query_only", "OFF", "0") } else { Ok(()) }
}

fn refused(reason: String) -> Result<(), Error> {
    Err(Error::InvalidOption { option: "on_open", reason })
}

fn watched(connection: &Connection) -> Result<Vec<(String, String)>, Error> {
    let mut found = Vec::new();
    for pragma in WATCHED {
        found.push((format!("PRAGMA {pragma}"), read_pragma(connection, pragma)?));
    }
    for config in [DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, DbConfig::SQLITE_DBCONFIG_RESET_DATABASE] {
        found.push((format!("{config:?}"), connection.db_config(config)?.to_string()));
    }
    let mut statement =
        connection.prepare("SELECT group_concat(name) FROM pragma_database_list WHERE name <> 'temp'")?;
    found.push(("the attached databases".into(), statement.query_row([], |row| row.get(0))?));
    Ok(found)
}
