//! Group commit for anyone who embeds SQLite: closures in, one transaction per batch, a result for each.

mod guard;
mod inside;
mod objections;
mod store;
mod ticket;

use std::path::Path;
use std::sync::Arc;
use std::thread::ThreadId;

use parking_lot::Mutex;
use rusqlite::{Connection, Transaction};
pub(crate) use store::{ClosureStore, Operation};
pub use ticket::Ticket;

use crate::buffer::{Pending, Stats};
use crate::database::{Database, Opening};
use crate::error::Error;
use crate::options::Options;
use crate::sqlite::{Readers, Settings};
use crate::sync::block_on;

/// A group-commit writer on the embedder's own SQLite file.
///
/// Any number of threads or tasks submit closures; one thread runs them, many in one IMMEDIATE transaction,
/// each in a savepoint of its own. A closure that fails or panics undoes itself alone. A handle is cheap to
/// clone, all clones and all opens of the same file in one process share one writer.
///
/// ```
/// use forebay::{Options, Writer};
///
/// # fn main() -> Result<(), forebay::Error> {
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("app.db");
/// let writer = Writer::open(path, Options::default())?;
/// writer.submit(|tx| Ok(tx.execute_batch("CREATE TABLE t (n INTEGER)")?)).wait()?;
/// let ticket = writer.submit(|tx| {
///     tx.execute("INSERT INTO t VALUES (?1)", [42])?;
///     Ok(tx.last_insert_rowid())
/// });
/// let id = ticket.wait()?; // or ticket.await: committed, and on the disk
/// assert_eq!(id, 1);
/// let count = writer.read(|conn| Ok(conn.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0))?))?;
/// assert_eq!(count, 1);
/// writer.close()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Writer {
    database: Arc<Database<ClosureStore, ()>>,
}

impl Writer {
    /// Opens the file at `path`, creating it if it is missing. It is put into WAL mode; nothing else in it
    /// is touched. Blocks on file I/O.
    ///
    /// # Errors
    /// Every error of the opening group of [`Error`]. A file made by the orchestration engine is refused:
    /// its rows are scheduled in memory, and nobody else may write them.
    pub fn open(path: impl AsRef<Path>, options: Options) -> Result<Self, Error> {
        let store = |opening: Opening<'_>| Ok((ClosureStore::open(opening)?, ()));
        let opened = Database::open_file(path.as_ref(), options, "a Writer", Readers::Strange, store);
        Ok(Self { database: opened? })
    }

    /// Submits a closure; blocks the calling thread while the buffer is full (see
    /// [`Options::buffer_ops_max`]), so async callers use [`Self::submit_async`].
    ///
    /// The closure runs at most once, on the writer thread, in arrival order. It may return any error of
    /// its own through [`Error::operation`]. What would break the batch for its neighbours (commit,
    /// rollback, attach, pragmas that set something) is refused with an error that says why. Dropping the ticket
    /// does not cancel the write.
    ///
    /// Inside a closure of the same writer it does not block: while the buffer is full the ticket resolves with
    /// [`Error::WouldDeadlock`], and nothing was submitted. Nor can a closure wait for the ticket; see [`Ticket`].
    pub fn submit<T, F>(&self, operation: F) -> Ticket<T>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T, Error> + Send + 'static,
    {
        self.submit_sized(size_of::<F>(), operation)
    }

    /// As [`Self::submit`], for a closure that carries `bytes` on the heap: they count towards
    /// [`Options::batch_bytes_max`] and the bound of the buffer.
    pub fn submit_sized<T, F>(&self, bytes: usize, operation: F) -> Ticket<T>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T, Error> + Send + 'static,
    {
        let (operation, value) = prepare(operation);
        let submitted = if self.is_on_writer_thread() {
            self.submit_inside(operation, bytes)
        } else {
            self.database.buffer().and_then(|buffer| buffer.submit_blocking(operation, bytes))
        };
        self.ticket(submitted, value)
    }

    /// Submits a closure only if there is room right now.
    ///
    /// # Errors
    /// [`Error::Full`] if there is not, [`Error::Closed`] or [`Error::Failed`] if there never will be;
    /// nothing was submitted.
    pub fn try_submit<T, F>(&self, operation: F) -> Result<Ticket<T>, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T, Error> + Send + 'static,
    {
        self.try_submit_sized(size_of::<F>(), operation)
    }

    /// As [`Self::try_submit`], for a closure that carries `bytes` on the heap (see [`Self::submit_sized`]).
    ///
    /// # Errors
    /// As [`Self::try_submit`].
    pub fn try_submit_sized<T, F>(&self, bytes: usize, operation: F) -> Result<Ticket<T>, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T, Error> + Send + 'static,
    {
        let (operation, value) = prepare(operation);
        let submitted = self.database.buffer()?.try_submit(operation, bytes)?;
        Ok(self.ticket(Ok(submitted), value))
    }

    /// Submits a closure, suspending the calling task while the buffer is full; never blocks a thread, and
    /// needs no particular runtime. Dropping this future before it gives the ticket submits nothing.
    pub async fn submit_async<T, F>(&self, operation: F) -> Ticket<T>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T, Error> + Send + 'static,
    {
        self.submit_async_sized(size_of::<F>(), operation).await
    }

    /// As [`Self::submit_async`], for a closure that carries `bytes` on the heap (see [`Self::submit_sized`]).
    pub async fn submit_async_sized<T, F>(&self, bytes: usize, operation: F) -> Ticket<T>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T, Error> + Send + 'static,
    {
        let (operation, value) = prepare(operation);
        let submitted = if self.is_on_writer_thread() {
            self.submit_inside(operation, bytes)
        } else {
            match self.database.buffer() {
                Ok(buffer) => buffer.submit(operation, bytes).await,
                Err(error) => Err(error),
            }
        };
        self.ticket(submitted, value)
    }

    /// Runs `read` on a read-only connection, on the calling thread; blocks while all [`Options::readers`] are busy, and
    /// while the writer starts its log over. It sees every write whose ticket has resolved, and at
    /// [`Durability::Full`](crate::Durability::Full) returns when all that it may have seen is on the disk. Keep it short: a
    /// read in progress keeps the write-ahead log from being reused. When the log has grown to one and a half times
    /// [`Options::wal_bytes_max`], the read is interrupted; one that cannot be (it waits for something else with a
    /// statement open) has writes refused with [`Error::RolledBack`] until it ends.
    ///
    /// A read inside a read never waits. Inside a closure, read through
    /// its transaction: this does not see the batch, and the batch would wait for whoever has the connections.
    ///
    /// # Errors
    /// Whatever `read` returns; [`Error::ReadInterrupted`]; [`Error::WouldDeadlock`] inside a read while all
    /// connections are busy; [`Error::Closed`] and [`Error::Failed`].
    pub fn read<T>(&self, read: impl FnOnce(&Connection) -> Result<T, Error>) -> Result<T, Error> {
        if let Some(refusal) = self.database.refusal() {
            return Err(refusal);
        }
        let read = |connection: &Connection| {
            let _inside = inside::enter_read(self.writer_thread());
            // The next one is lent the same connection.
            let _restored = Restored { settings: Settings::of(connection), connection };
            read(connection)
        };
        let result = match &self.database.readers {
            Some(readers) => readers.with(read),
            // A writer is always on a file.
            None => Err(Error::Closed),
        };
        // It may have seen anything that is committed.
        let horizon = &self.database.horizon;
        block_on(horizon.reached(horizon.announced())).and(result)
    }

    /// Completes what was submitted, checkpoints, and releases the file. Blocks until that is done. All
    /// handles are closed with it; closing again answers as the first time did. Dropping the last handle
    /// does the same.
    ///
    /// # Errors
    /// [`Error::Failed`] if the writer had failed, or the failure of the last sync or checkpoint. What was answered is
    /// then still what [`Durability`](crate::Durability) says: at `Full`, on the disk. At `Normal` it is committed, and the
    /// newest of it may be missing when the file is opened again. A file that was removed or replaced is gone with what
    /// was in it. [`Error::WouldDeadlock`] inside a closure or a [`Self::read`] of this writer, which it would have to
    /// wait for: nothing was closed.
    pub fn close(&self) -> Result<(), Error> {
        if self.is_on_writer_thread() || inside::is_reading(self.writer_thread()) {
            return Err(inside::would_deadlock(
                "closing a writer inside one of its own closures or reads",
                "close it after the closure or the read has returned",
            ));
        }
        self.database.close()
    }

    /// Submits on the writer thread, where nobody may wait for room: only this thread makes any.
    fn submit_inside(&self, operation: Operation, bytes: usize) -> Result<Pending<()>, Error> {
        let submitted = self.database.buffer().and_then(|buffer| buffer.try_submit(operation, bytes));
        submitted.map_err(|error| match error {
            Error::Full => inside::would_deadlock(
                "submitting inside a closure of the same writer while the buffer is full",
                "do the work in this transaction, or submit it when the closure has returned",
            ),
            other => other,
        })
    }

    fn ticket<T>(&self, submitted: Result<Pending<()>, Error>, value: Value<T>) -> Ticket<T> {
        Ticket::new(submitted, value, self.writer_thread())
    }

    fn writer_thread(&self) -> ThreadId {
        self.database.writer_thread()
    }

    fn is_on_writer_thread(&self) -> bool {
        inside::is_writer_thread(self.writer_thread())
    }

    /// What the writer has done since it was opened. Never blocks.
    pub fn stats(&self) -> Stats {
        self.database.stats()
    }
}

/// Puts a connection's settings back when it is dropped, also by a panic.
struct Restored<'a> {
    settings: Settings,
    connection: &'a Connection,
}

impl Drop for Restored<'_> {
    fn drop(&mut self) {
        self.settings.restore(self.connection);
    }
}

/// Where a closure leaves its value.
type Value<T> = Arc<Mutex<Option<T>>>;

/// A closure as the writer thread runs it, and where its value will be.
fn prepare<T, F>(operation: F) -> (Operation, Value<T>)
where
    T: Send + 'static,
    F: FnOnce(&Transaction<'_>) -> Result<T, Error> + Send + 'static,
{
    let value = Arc::new(Mutex::new(None));
    let slot = Arc::clone(&value);
    let operation: Operation = Box::new(move |transaction| {
        *slot.lock() = Some(operation(transaction)?);
        Ok(())
    });
    (operation, value)
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Writer").field(&self.database).finish()
    }
}
