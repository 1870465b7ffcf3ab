//! Connections that only read: `query_only`, no checkpoints, short transactions.

use std::path::PathBuf;

use parking_lot::{Condvar, Mutex};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::{explain, has_temporary_objects, on_open, prepare_for_work, read_pragma, set_pragma};
use crate::error::Error;
use crate::options::OnOpen;

/// A bounded set of reading connections to one file, opened when first needed.
pub(crate) struct ReaderPool {
    path: PathBuf,
    connections_max: usize,
    on_open: Option<OnOpen>,
    state: Mutex<State>,
    returned: Condvar,
}

#[derive(Default)]
struct State {
    idle: Vec<Connection>,
    open: usize,
    closed: bool,
}

impl ReaderPool {
    pub(crate) fn new(path: PathBuf, connections_max: usize, on_open: Option<OnOpen>) -> Self {
        Self { path, connections_max, on_open, state: Mutex::default(), returned: Condvar::new() }
    }

    /// Runs `read` on a connection, waiting for one if all are busy.
    pub(crate) fn with<T>(&self, read: impl FnOnce(&Connection) -> T) -> Result<T, Error> {
        let connection = self.take()?;
        // Given back even if `read` panics.
        let lent = Lent { pool: self, connection: Some(connection) };
        Ok(match &lent.connection {
            Some(connection) => read(connection),
            None => return Err(Error::Closed),
        })
    }

    /// Runs `read` only if that needs no waiting and no opening; gives it back otherwise.
    pub(crate) fn with_idle<T, F: FnOnce(&Connection) -> T>(&self, read: F) -> Result<T, F> {
        let mut state = self.state.lock();
        let Some(connection) = (!state.closed).then(|| state.idle.pop()).flatten() else { return Err(read) };
        drop(state);
        let lent = Lent { pool: self, connection: Some(connection) };
        match &lent.connection {
            Some(connection) => Ok(read(connection)),
            None => Err(read),
        }
    }

    fn take(&self) -> Result<Connection, Error> {
        let mut state = self.state.lock();
        loop {
            if state.closed {
                return Err(Error::Closed);
            }
            if let Some(connection) = state.idle.pop() {
                return Ok(connection);
            }
            if state.open < self.connections_max {
                state.open += 1;
                break;
            }
            self.returned.wait(&mut state);
        }
        drop(state);
        self.open().inspect_err(|_| {
            self.state.lock().open -= 1;
            // Whoever waits for a connection may have this one's place; all who close wait for it to be gone.
            self.returned.notify_all();
        })
    }

    fn open(&self) -> Result<Connection, Error> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX
            | OpenFlags::SQLITE_OPEN_EXRESCODE;
        let connection =
            Connection::open_with_flags(&self.path, flags).map_err(|e| explain(e, &self.path))?;
        prepare_for_work(&connection)?;
        set_pragma(&connection, "wal_autocheckpoint", "0", "0")?;
        // Nor when it is the last one to close: after a failure nothing may touch the file.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        set_pragma(&connection, "query_only", "ON", "1")?;
        set_pragma(&connection, "trusted_schema", "OFF", "0")?;
        on_open::run(&connection, self.on_open.as_ref())?;
        Ok(connection)
    }

    fn give_back(&self, connection: Connection) {
        let usable = is_as_lent(&connection);
        let mut state = self.state.lock();
        if state.closed || !usable {
            state.open -= 1;
        } else {
            state.idle.push(connection);
        }
        if state.closed {
            // Everyone who closes waits for this, not only the next.
            self.returned.notify_all();
        } else {
            self.returned.notify_one();
        }
    }

    /// Refuses further reads, closes the idle connections, and waits for those that are reading.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.open -= state.idle.len();
        state.idle.clear();
        self.returned.notify_all();
        while state.open > 0 {
            self.returned.wait(&mut state);
        }
    }
}

/// Whether the next one may have it. A read that left a transaction open would pin the log for ever; one that switched
/// `query_only` off, attached a database or made temporary objects would have the next one write, or read something
/// else.
fn is_as_lent(connection: &Connection) -> bool {
    connection.is_autocommit()
        && connection.db_name(2).is_err()
        && read_pragma(connection, "query_only").is_ok_and(|value| value == "1")
        && has_temporary_objects(connection).is_ok_and(|has| !has)
}

struct Lent<'a> {
    pool: &'a ReaderPool,
    connection: Option<Connection>,
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.pool.give_back(connection);
        }
    }
}
