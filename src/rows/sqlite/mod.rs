//! Rows in SQLite: the one home of the engine's SQL, a file a table.
//!
//! `schema.rs` has the tables, how a file is recognised and how older ones are brought up to date; `reads.rs` what readers
//! ask across tables. [`SqliteRows`] is the writing connection as a [`RowStore`]; readers ask a connection of their own
//! through the same [`Reads`].
//!
//! IMPORTANT: SQLite writes nothing more in a transaction in which it has met damage. What is asked for is therefore read
//! before the batch is written, outside of any transaction: what is damaged is in the way of those alone who need it.

mod executions;
mod history;
mod instances;
mod kv;
mod messages;
mod reads;
pub(crate) mod schema;
mod work;

use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, Row};

use super::{
    Damaged, ExecutionFound, ExecutionRows, ExecutionWanted, HistoryFound, ID_MAX, InstanceFound,
    InstanceKey, KvWanted, MessageHead, Reads, RowStore, Schedule, Staged, TurnFound, TurnWanted, Waiting,
    WriteError,
};
use crate::buffer::{CommitError, CommitNo};
use crate::error::Error;
use crate::queue::{MessageId, WorkId};
use crate::sqlite::{Soon, WriteConnection};

/// The result of a statement, before anybody has decided what an error means for whom.
type SqlResult<T> = rusqlite::Result<T>;

/// A point in time for a column: SQLite's integers end where duroxide's "never" begins.
fn time(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

/// The columns `visible_at_ms, attempt`.
fn schedule(row: &Row<'_>, first: usize) -> SqlResult<Schedule> {
    let visible_at_ms = row.get::<_, i64>(first)?.max(0).cast_unsigned();
    Ok(Schedule { visible_at_ms, attempt: row.get(first + 1)? })
}

fn id_with_room(id: i64) -> SqlResult<i64> {
    if id <= ID_MAX { Ok(id) } else { Err(rusqlite::Error::IntegralValueOutOfRange(0, id)) }
}

/// The writing connection, as the engine sees it.
pub(crate) struct SqliteRows {
    connection: WriteConnection,
}

impl SqliteRows {
    pub(crate) fn new(connection: WriteConnection) -> Self {
        Self { connection }
    }

    fn connection(&self) -> &Connection {
        self.connection.connection()
    }

    fn execution(&self, wanted: &ExecutionWanted) -> SqlResult<ExecutionFound> {
        let (connection, key, execution) = (self.connection(), wanted.key, wanted.execution);
        let row = executions::find(connection, key, execution)?;
        let rows = ExecutionRows {
            exists: row.is_some(),
            pinned: row.flatten(),
            last_event: history::last_event(connection, key, execution)?,
        };
        let before =
            wanted.before.iter().map(|event| history::last_before(connection, key, execution, *event));
        Ok(ExecutionFound { rows, before: before.collect::<SqlResult<_>>()? })
    }

    fn history(&self, key: InstanceKey, execution: u64) -> SqlResult<HistoryFound> {
        let runs = history::rows(self.connection(), key, execution)?;
        let (later_execution, later_history) = history::later_than(self.connection(), key, execution)?;
        Ok(HistoryFound { runs, later_execution, later_history })
    }

    /// Everything in the order of tables and keys, deletions first.
    fn write_all(&self, staged: &mut Staged, now: Duration) -> Result<(), Unwritten> {
        let connection = self.connection();
        for key in std::mem::take(&mut staged.deleted) {
            let of = |table| move |error| Unwritten::Deleting(error, Damaged::Instance { key, table });
            executions::delete_all(connection, key).map_err(of("executions"))?;
            history::delete_all(connection, key).map_err(of("history"))?;
            kv::delete_all(connection, key).map_err(of("kv"))?;
            instances::delete(connection, key).map_err(of("instances"))?;
        }
        for (key, execution) in std::mem::take(&mut staged.pruned) {
            let of = |table| move |error| Unwritten::Deleting(error, Damaged::Instance { key, table });
            history::delete(connection, key, execution).map_err(of("history"))?;
            executions::delete(connection, key, execution).map_err(of("executions"))?;
        }
        for (key, (new, update)) in std::mem::take(&mut staged.instances) {
            match new {
                Some(new) => instances::insert(connection, key, &new, &update)?,
                None => instances::update(connection, key, &update)?,
            }
        }
        for ((key, execution), change) in std::mem::take(&mut staged.executions) {
            executions::put(connection, key, execution, &change)?;
        }
        for ((key, execution, _), staged) in std::mem::take(&mut staged.history) {
            history::insert(connection, key, execution, &staged.run, staged.written_at_ms)?;
        }
        for (key, ops) in std::mem::take(&mut staged.kv) {
            ops.iter().try_for_each(|op| kv::apply(connection, key, op))?;
        }
        for (id, change) in staged.messages.drain(now) {
            let applied = messages::apply(connection, id, &change);
            applied.map_err(|error| Unwritten::of(error, change.is_delete(), Damaged::Message(id)))?;
        }
        for (id, change) in staged.work.drain(now) {
            let applied = work::apply(connection, id, &change);
            applied.map_err(|error| Unwritten::of(error, change.is_delete(), Damaged::Work(id)))?;
        }
        Ok(())
    }
}

/// What could not be written.
enum Unwritten {
    Other(rusqlite::Error),
    /// A row that was to be deleted.
    Deleting(rusqlite::Error, Damaged),
}

impl Unwritten {
    fn of(error: rusqlite::Error, is_delete: bool, row: Damaged) -> Self {
        if is_delete { Unwritten::Deleting(error, row) } else { Unwritten::Other(error) }
    }
}

impl From<rusqlite::Error> for Unwritten {
    fn from(error: rusqlite::Error) -> Self {
        Unwritten::Other(error)
    }
}

impl From<Unwritten> for WriteError {
    fn from(unwritten: Unwritten) -> Self {
        match unwritten {
            Unwritten::Other(error) => Error::from(error).into(),
            Unwritten::Deleting(error, row) => {
                let is_damage = error.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt);
                WriteError { error: error.into(), damaged: is_damage.then_some(row) }
            }
        }
    }
}

/// One answer for each key.
fn each<K, T>(keys: &[K], mut read: impl FnMut(&K) -> SqlResult<T>) -> Vec<Result<T, Error>> {
    keys.iter().map(|key| read(key).map_err(Error::from)).collect()
}

impl RowStore for SqliteRows {
    fn load(&mut self, waiting: Waiting<'_>) -> Result<(), Error> {
        let Waiting { message, work, damaged } = waiting;
        messages::each(self.connection(), message, |id, error| {
            damaged("messages", id, Error::damage(error)?);
            Ok(())
        })?;
        work::each(self.connection(), work, |id, error| {
            damaged("work", id, Error::damage(error)?);
            Ok(())
        })?;
        Ok(())
    }

    fn next_key(&mut self) -> Result<InstanceKey, Error> {
        Ok(instances::next_key(self.connection())?)
    }

    fn instances(&mut self, ids: &[Arc<str>]) -> Vec<Result<Option<InstanceFound>, Error>> {
        each(ids, |id| instances::find(self.connection(), id))
    }

    fn executions(&mut self, wanted: &[ExecutionWanted]) -> Vec<Result<ExecutionFound, Error>> {
        each(wanted, |wanted| self.execution(wanted))
    }

    fn turns(&mut self, wanted: &[TurnWanted]) -> Vec<TurnFound> {
        let connection = self.connection();
        let found = wanted.iter().map(|wanted| TurnFound {
            messages: each(&wanted.messages, |id| messages::record(connection, *id)),
            history: match wanted.history {
                Some((key, execution)) => self.history(key, execution).map_err(Error::from),
                None => Ok(HistoryFound::default()),
            },
            kv: match wanted.kv {
                Some((key, KvWanted::Base)) => kv::base(connection, key).map_err(Error::from),
                Some((key, KvWanted::All)) => kv::rows(connection, key).map_err(Error::from),
                None => Ok(Default::default()),
            },
        });
        found.collect()
    }

    fn message_heads(&mut self, ids: &[MessageId]) -> Vec<Result<Option<MessageHead>, Error>> {
        each(ids, |id| messages::head(self.connection(), *id))
    }

    fn work_records(&mut self, ids: &[WorkId]) -> Vec<Result<Vec<u8>, Error>> {
        each(ids, |id| work::record(self.connection(), *id))
    }

    fn reads(&self) -> &dyn Reads {
        self.connection()
    }

    #[cfg(any(test, feature = "test-hooks"))]
    fn connection(&self) -> Option<&Connection> {
        Some(self.connection.connection())
    }

    fn write(&mut self, staged: &mut Staged, now: Duration) -> Result<(), WriteError> {
        self.connection.begin()?;
        Ok(self.write_all(staged, now)?)
    }

    fn commit(&mut self, now: Duration) -> Result<(), CommitError> {
        // Whoever waits for it, or is given what it brings, makes haste (`Horizon::when`).
        self.connection.commit(now, Soon::Lazily)
    }

    fn rollback(&mut self) -> Result<(), Error> {
        self.connection.rollback()
    }

    fn rollback_at_once(&mut self) -> Result<(), Error> {
        self.connection.rollback_at_once()
    }

    fn next_commit(&self) -> CommitNo {
        self.connection.next_commit()
    }

    fn last_commit(&self) -> CommitNo {
        self.connection.last_commit()
    }

    fn maintain(&mut self, now: Duration) -> Result<(), Error> {
        self.connection.maintain(now)
    }

    fn wait(&self, now: Duration) -> Option<Duration> {
        self.connection.wait(now)
    }

    fn close(&mut self) -> Result<(), Error> {
        self.connection.close()
    }

    fn let_go(&mut self) {
        self.connection.let_go();
    }
}
