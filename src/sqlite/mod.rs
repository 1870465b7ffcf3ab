//! SQLite connections: how they are opened, and what is checked before anything is trusted.
//!
//! One connection writes and checkpoints ([`WriteConnection`]); a few `query_only` ones read
//! ([`ReaderPool`]). IMPORTANT: only the writing connection ever checkpoints. SQLite up to 3.51.2 can lose
//! acknowledged commits when one connection writes while another checkpoints, and even with the fixed
//! versions required here there is no reason to let two connections contend for it.

mod control;
mod file_control;
mod held_file;
mod identity;
mod log_file;
mod log_sync;
mod on_open;
mod owner;
mod path;
mod readers;
mod recover;
mod registry;
mod room;
mod settings;
mod undo;
mod write;

use std::ffi::c_int;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub(crate) use control::{Control, SAVEPOINT};
pub(crate) use log_sync::Soon;
pub(crate) use owner::FileOwner;
pub(crate) use path::prepare_path;
pub(crate) use readers::{ReaderPool, Readers};
pub(crate) use registry::{AnyEngine, Registration, join_or_open};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, ffi};
pub(crate) use settings::{PRAGMAS_ASKING, Settings};
pub(crate) use write::WriteConnection;

use crate::error::Error;
use crate::options::Options;

/// The first SQLite without the WAL-reset bug.
const SQLITE_VERSION_MIN: (i32, &str) = (3_051_003, "3.51.3");

/// "fbay", in the header of every file the orchestration engine made (`PRAGMA application_id` shows it).
pub(crate) const ENGINE_APPLICATION_ID: i64 = 0x6662_6179;

/// How long a statement waits for a foreign process that holds SQLite's write lock (a backup, a shell).
/// After that the batch is rolled back and its callers get a retryable error.
pub(crate) const FOREIGN_LOCK_WAIT: Duration = Duration::from_secs(2);

/// Statements kept prepared on each connection; the engine uses some forty.
const STATEMENTS_CACHED: usize = 64;

/// Where a database lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Location {
    File(PathBuf),
    Memory,
}

/// Refuses a SQLite that can lose acknowledged commits.
pub(crate) fn check_library(version_number: i32, version: &str) -> Result<(), Error> {
    let (oldest, required) = SQLITE_VERSION_MIN;
    if version_number < oldest {
        return Err(Error::SqliteTooOld { found: version.into(), required });
    }
    Ok(())
}

/// How long opening waits for a foreign process that holds SQLite's own lock. It may come after a wait for an owner.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    until: Instant,
}

impl Patience {
    /// For an open that began at `began`.
    pub(crate) fn of(options: &Options, began: Instant) -> Self {
        let most = Duration::from_millis(c_int::MAX.unsigned_abs().into());
        let longest = began + options.wait_for_owner.min(most);
        Self { until: longest.max(Instant::now() + FOREIGN_LOCK_WAIT) }
    }

    #[cfg(test)]
    pub(crate) fn none() -> Self {
        Self { until: Instant::now() }
    }

    fn left(self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    /// Has the connection's statements wait for what is left.
    fn give_to(self, connection: &Connection) -> Result<(), Error> {
        Ok(connection.busy_timeout(self.left())?)
    }
}

/// How often the journal mode is tried again to be changed, for which SQLite itself does not wait.
const TRY_AGAIN: Duration = Duration::from_millis(20);

/// Opens the connection that will write, without changing the file: whose database it is has to be known
/// before the first pragma that writes.
pub(crate) fn open_unchanged(location: &Location, patience: Patience) -> Result<Connection, Error> {
    check_library(rusqlite::version_number(), rusqlite::version())?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_EXRESCODE;
    let connection = match location {
        Location::Memory => Connection::open_in_memory_with_flags(flags)?,
        Location::File(path) => Connection::open_with_flags(path, flags).map_err(|e| explain(e, path))?,
    };
    prepare_for_work(&connection)?;
    patience.give_to(&connection)?;
    // Closing a connection moves the log into the database: not a log that was there before it is known
    // whose it is. (Where there was none, closing removes what opening made.)
    let has_log = matches!(location, Location::File(path) if path::beside(path, "-wal").exists());
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, has_log)?;
    if let Location::File(path) = location {
        // Reads the header: a file that is no database says so here.
        let schema_version = connection.query_row("PRAGMA schema_version", [], |row| row.get::<_, i64>(0));
        schema_version.map_err(|e| explain(e, path))?;
    }
    Ok(connection)
}

/// What every connection has in common.
fn prepare_for_work(connection: &Connection) -> Result<(), Error> {
    connection.busy_timeout(FOREIGN_LOCK_WAIT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
    // One plan a statement. Without it SQLite looks at bound values and compiles a cached statement anew
    // when they change, which took a fifth of the writer's time.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(())
}

/// Has SQLite open all of its files, also those of a database that is new: later their paths may lead elsewhere.
fn open_all_files(connection: &Connection) -> Result<(), Error> {
    Ok(connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_row| Ok(()))?)
}

/// Sets the pragmas a writing connection runs with, and reads every one of them back. Opens the reading connections on
/// the way: what may refuse comes before what changes the file.
pub(crate) fn configure_writer(
    connection: &Connection,
    location: &Location,
    options: &Options,
    readers: Option<&ReaderPool>,
    patience: Patience,
) -> Result<(), Error> {
    let cache_kib = -i64::try_from(options.cache_bytes / 1024).unwrap_or(i64::MAX);
    set_pragma(connection, "cache_size", &cache_kib.to_string(), &cache_kib.to_string())?;
    set_pragma(connection, "temp_store", "MEMORY", "2")?;
    set_pragma(connection, "trusted_schema", "OFF", "0")?;
    on_open::run(connection, location, options.on_open.as_ref())?;
    readers.map_or(Ok(()), ReaderPool::fill)?;
    patience.give_to(connection)?;
    set_journal(connection, location, options, patience).inspect_err(|_error| {
        // IMPORTANT: before the connection that writes, which then removes the log that it made.
        readers.inspect(|readers| readers.empty());
    })?;
    Ok(connection.busy_timeout(FOREIGN_LOCK_WAIT)?)
}

/// How commits get to the disk.
fn set_journal(
    connection: &Connection,
    location: &Location,
    options: &Options,
    patience: Patience,
) -> Result<(), Error> {
    match location {
        // Nothing here outlives the process; the journal is still needed to roll a batch back.
        Location::Memory => {
            set_pragma(connection, "journal_mode", "MEMORY", "memory")?;
            set_pragma(connection, "synchronous", "OFF", "0")
        }
        Location::File(path) => {
            set_wal(connection, patience).map_err(|e| explain_error(e, path))?;
            recover::rewrite_log(connection).map_err(|e| explain_error(e, path))?;
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
            set_pragma(connection, "wal_autocheckpoint", "0", "0")?;
            // The log is overwritten in place after a checkpoint; it is cut back only when it outgrew this.
            let limit = i64::try_from(options.wal_bytes_max.saturating_mul(2)).unwrap_or(i64::MAX);
            set_pragma(connection, "journal_size_limit", &limit.to_string(), &limit.to_string())?;
            // Also at `Full`: commits do not wait for the disk, those who are told of them do (log_sync.rs). Checkpoints
            // sync what they rely on all the same.
            set_pragma(connection, "synchronous", "NORMAL", "1")
        }
    }
}

/// Changes the journal mode, for which nobody else may be in the file. Beginning a transaction waits for foreign locks,
/// changing the mode does not; and in between somebody may come.
fn set_wal(connection: &Connection, patience: Patience) -> Result<(), Error> {
    loop {
        if read_pragma(connection, "journal_mode")? != "wal" {
            connection.execute_batch("BEGIN EXCLUSIVE; COMMIT")?;
        }
        match set_pragma(connection, "journal_mode", "WAL", "wal") {
            Err(error)
                if error.sqlite_code() == Some(ErrorCode::DatabaseBusy) && !patience.left().is_zero() =>
            {
                std::thread::sleep(TRY_AGAIN)
            }
            outcome => return outcome,
        }
    }
}

/// Writes a pragma and reads it back: SQLite ignores a value it does not know without a word.
pub(crate) fn set_pragma(
    connection: &Connection,
    pragma: &'static str,
    value: &str,
    reads_back_as: &str,
) -> Result<(), Error> {
    // IMPORTANT: to its end. A pragma that writes (`journal_mode`) commits in its last step, after the row that
    // says that it was taken; rusqlite's `pragma_update` takes one step and drops the statement.
    let mut statement = connection.prepare(&format!("PRAGMA {pragma} = {value}"))?;
    let mut rows = statement.query([])?;
    while rows.next()?.is_some() {}
    let found = read_pragma(connection, pragma)?;
    if found.eq_ignore_ascii_case(reads_back_as) {
        Ok(())
    } else {
        Err(Error::PragmaNotTaken { pragma, asked: value.into(), found })
    }
}

pub(crate) fn read_pragma(connection: &Connection, pragma: &str) -> Result<String, Error> {
    use rusqlite::types::ValueRef;
    Ok(connection.pragma_query_value(None, pragma, |row| {
        Ok(match row.get_ref(0)? {
            ValueRef::Integer(number) => number.to_string(),
            ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
            _other => String::new(),
        })
    })?)
}

/// Whether foreign keys would keep the open transaction from committing.
pub(crate) fn has_unresolved_foreign_keys(connection: &Connection) -> bool {
    status(connection, ffi::SQLITE_DBSTATUS_DEFERRED_FKS, false) != 0
}

/// Whether there are temporary tables, views or triggers, which are found before those of the file.
pub(crate) fn has_temporary_objects(connection: &Connection) -> Result<bool, Error> {
    Ok(connection.prepare_cached("SELECT 1 FROM sqlite_temp_schema")?.exists([])?)
}

/// Pages written since this was last asked; in WAL mode that is frames appended to the log.
pub(crate) fn pages_written(connection: &Connection) -> u64 {
    u64::try_from(status(connection, ffi::SQLITE_DBSTATUS_CACHE_WRITE, true)).unwrap_or(0)
}

/// Whether the last call on this connection met a full disk.
#[allow(unsafe_code)]
pub(crate) fn met_a_full_disk(connection: &Connection) -> bool {
    // SAFETY: the handle is valid for as long as the connection is borrowed; the call reads an integer of it.
    let code = unsafe { ffi::sqlite3_errcode(connection.handle()) };
    code == ffi::SQLITE_FULL
}

/// Whether the last call failed because of a constraint, the commit hook's refusal aside.
#[allow(unsafe_code)]
pub(crate) fn last_failed_by_constraint(connection: &Connection) -> bool {
    // SAFETY: the handle is valid for as long as the connection is borrowed; the call reads an integer of it.
    let code = unsafe { ffi::sqlite3_extended_errcode(connection.handle()) };
    code & 0xff == ffi::SQLITE_CONSTRAINT && code != ffi::SQLITE_CONSTRAINT_COMMITHOOK
}

/// One of a connection's own counters; 0 if SQLite does not know it.
#[allow(unsafe_code)]
fn status(connection: &Connection, counter: c_int, reset: bool) -> c_int {
    let (mut current, mut highest) = (0, 0);
    // SAFETY: the handle is valid for as long as the connection is borrowed, and the connection is used by
    // this thread alone (it is not `Sync`). SQLite writes two integers through the pointers, both of which
    // live until the call returns, and keeps neither. rusqlite has no safe form of this call.
    let status = unsafe {
        let handle = connection.handle();
        ffi::sqlite3_db_status(handle, counter, &raw mut current, &raw mut highest, c_int::from(reset))
    };
    if status == ffi::SQLITE_OK { current } else { 0 }
}

/// Turns what SQLite says while a file is being opened into an error that names the file.
pub(crate) fn explain(error: rusqlite::Error, path: &Path) -> Error {
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            Error::NotADatabase { path: path.into() }
        }
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => Error::ReadOnly { path: path.into() },
        Some(ErrorCode::DatabaseBusy) => {
            Error::Locked { path: path.into(), source: std::sync::Arc::new(error) }
        }
        Some(ErrorCode::CannotOpen) => {
            Error::Io { doing: format!("opening {}", path.display()), source: std::sync::Arc::new(error) }
        }
        _ => error.into(),
    }
}

/// The same for an error that has been wrapped already.
pub(crate) fn explain_error(error: Error, path: &Path) -> Error {
    match error {
        Error::Sqlite { source } => match std::sync::Arc::try_unwrap(source) {
            Ok(source) => explain(source, path),
            Err(source) => Error::Sqlite { source },
        },
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_sqlite_is_refused_by_version() {
        let error = check_library(3_051_002, "3.51.2").unwrap_err();
        assert!(matches!(&error, Error::SqliteTooOld { found, .. } if found == "3.51.2"));
        assert!(error.to_string().contains("3.51.3"), "{error}");
        assert!(check_library(3_051_003, "3.51.3").is_ok());
    }

    #[test]
    fn a_pragma_that_does_not_take_is_an_error() {
        let connection = open_unchanged(&Location::Memory, Patience::none()).unwrap();
        // What the reference provider does: SQLite reads the unknown word as NORMAL.
        let error = set_pragma(&connection, "synchronous", "WAL", "wal").unwrap_err();
        assert!(matches!(error, Error::PragmaNotTaken { pragma: "synchronous", .. }), "{error}");
    }
}
