//! What a `&Connection` lets anybody change besides rows, and how it is put back: limits, configuration, the wait for
//! foreign locks, callbacks, the size of the statement cache, statements that were never finished.
//!
//! Rows are undone by savepoints; this is for what no savepoint knows of. It runs after every closure of a
//! [`Writer`](crate::Writer), so it asks SQLite's C interface, which takes some tens of nanoseconds a setting, and no SQL.
//! Functions, collations and modules are left alone: SQLite tells nobody that one was added.

use std::ffi::c_int;
use std::ptr;

use rusqlite::{Connection, ffi};

use super::{FOREIGN_LOCK_WAIT, STATEMENTS_CACHED};

/// Pragmas that take an argument and report, or check, all the same.
pub(crate) const PRAGMAS_ASKING: &[&str] = &[
    "foreign_key_check",
    "foreign_key_list",
    "index_info",
    "index_list",
    "index_xinfo",
    "integrity_check",
    "quick_check",
    "table_info",
    "table_list",
    "table_xinfo",
];

/// Limits that SQLite has or may have; one it does not know reads as -1.
const LIMITS: usize = 16;

/// The boolean configurations: all from `ENABLE_FKEY` to `ENABLE_COMMENTS`.
const CONFIGURATIONS: std::ops::RangeInclusive<c_int> =
    ffi::SQLITE_DBCONFIG_ENABLE_FKEY..=ffi::SQLITE_DBCONFIG_ENABLE_COMMENTS;
const CONFIGURATIONS_COUNT: usize = 21;

/// The settings of one connection, as they are to be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    limits: [c_int; LIMITS],
    configurations: [c_int; CONFIGURATIONS_COUNT],
}

impl Settings {
    pub(crate) fn of(connection: &Connection) -> Self {
        let mut limits = [-1; LIMITS];
        for (id, limit) in (0..).zip(&mut limits) {
            *limit = set_limit(connection, id, -1);
        }
        let mut configurations = [-1; CONFIGURATIONS_COUNT];
        for (id, value) in CONFIGURATIONS.zip(&mut configurations) {
            *value = set_configuration(connection, id, -1);
        }
        Self { limits, configurations }
    }

    /// Puts everything back that somebody with a `&Connection` may have changed.
    pub(crate) fn restore(&self, connection: &Connection) {
        for (id, limit) in (0..).zip(self.limits) {
            if limit >= 0 {
                set_limit(connection, id, limit);
            }
        }
        for (id, value) in CONFIGURATIONS.zip(self.configurations) {
            if value >= 0 && set_configuration(connection, id, -1) != value {
                set_configuration(connection, id, value);
            }
        }
        connection.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
        remove_callbacks(connection);
        reset_unfinished(connection);
    }
}

/// Sets a limit unless `value` is negative, and tells what it was.
#[allow(unsafe_code)]
fn set_limit(connection: &Connection, id: c_int, value: c_int) -> c_int {
    // SAFETY: the handle is valid while the connection is borrowed, and used by this thread alone (`Connection` is
    // not `Sync`). SQLite takes any id, and answers -1 to one it does not know.
    unsafe { ffi::sqlite3_limit(connection.handle(), id, value) }
}

/// Sets a configuration unless `value` is negative, and tells what it is now; -1 if SQLite does not know it.
#[allow(unsafe_code)]
fn set_configuration(connection: &Connection, id: c_int, value: c_int) -> c_int {
    let mut now: c_int = -1;
    // SAFETY: as for `set_limit`. Every id in `CONFIGURATIONS` takes an `int` and a pointer to one, which SQLite
    // writes through before it returns, and does not keep.
    let status = unsafe { ffi::sqlite3_db_config(connection.handle(), id, value, &raw mut now) };
    if status == ffi::SQLITE_OK { now } else { -1 }
}

/// Callbacks that rusqlite up to 0.40, or features of it, lets anybody set; none of them is used here.
#[allow(unsafe_code)]
fn remove_callbacks(connection: &Connection) {
    let wait_ms = c_int::try_from(FOREIGN_LOCK_WAIT.as_millis()).unwrap_or(c_int::MAX);
    // SAFETY: as for `set_limit`. All of these replace a callback by none (the wait for a lock by SQLite's own), so
    // that nothing they are given is called or kept. rusqlite owns the closures it had registered and frees them with
    // the connection, whether or not they are still registered.
    unsafe {
        let handle = connection.handle();
        ffi::sqlite3_busy_timeout(handle, wait_ms);
        ffi::sqlite3_progress_handler(handle, 0, None, ptr::null_mut());
        ffi::sqlite3_update_hook(handle, None, ptr::null_mut());
        ffi::sqlite3_wal_hook(handle, None, ptr::null_mut());
        ffi::sqlite3_trace_v2(handle, 0, None, ptr::null_mut());
    }
}

/// A statement that was begun and forgotten would keep the transaction from ending, or the log from being reused.
#[allow(unsafe_code)]
fn reset_unfinished(connection: &Connection) {
    // SAFETY: as for `set_limit`. SQLite walks its own list of the connection's statements, so each pointer is a
    // statement that has not been finalized. None is running: this is called while nobody is inside the connection.
    // A statement that somebody could still step is borrowed from the connection, and such borrows have ended with
    // the closure; one that was forgotten is reset and stays valid.
    unsafe {
        let handle = connection.handle();
        let mut statement = ffi::sqlite3_next_stmt(handle, ptr::null_mut());
        while !statement.is_null() {
            if ffi::sqlite3_stmt_busy(statement) != 0 {
                ffi::sqlite3_reset(statement);
            }
            statement = ffi::sqlite3_next_stmt(handle, statement);
        }
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::config::DbConfig;

    use super::*;
    use crate::sqlite::{Location, Patience, open_unchanged};

    #[test]
    fn what_was_changed_is_put_back() {
        let connection = open_unchanged(&Location::Memory, Patience::none()).unwrap();
        let settings = Settings::of(&connection);
        assert!(
            settings.limits[0] > 0 && settings.configurations.iter().all(|value| *value >= 0),
            "{settings:?}"
        );
        set_limit(&connection, 0, 100);
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false).unwrap();
        assert_ne!(Settings::of(&connection), settings);
        settings.restore(&connection);
        assert_eq!(Settings::of(&connection), settings);
    }
}
