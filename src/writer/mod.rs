//! Group commit for anyone who embeds SQLite: closures in, one transaction per batch, a result for each.

mod guard;
mod store;
mod ticket;

use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use rusqlite::{Connection, Transaction};
pub(crate) use store::{ClosureStore, Operation};
pub use ticket::Ticket;

use crate::buffer::Stats;
use crate::database::{Database, Opening};
use crate::error::Error;
use crate::options::Options;

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
/// let id = ticket.wait()?; // or ticket.await: durable now
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
        Ok(Self { database: Database::open_file(path.as_ref(), options, "a Writer", store)? })
    }

    /// Submits a closure; blocks the calling thread while the buffer is full (see
    /// [`Options::buffer_ops_max`]), so async callers use [`Self::submit_async`].
    ///
    /// The closure runs at most once, on the writer thread, in arrival order. It may return any error of
    /// its own through [`Error::operation`]. What would break the batch for its neighbours (commit,
    /// rollback, attach, certain pragmas) is refused with an error that says why. Dropping the ticket does
    /// not cancel the write.
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
        let submitted = self.database.buffer().and_then(|buffer| buffer.submit_blocking(operation, bytes));
        Ticket::new(submitted, value)
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
        let bytes = size_of::<F>();
        let (operation, value) = prepare(operation);
        Ok(Ticket::new(Ok(self.database.buffer()?.try_submit(operation, bytes)?), value))
    }

    /// Submits a closure, suspending the calling task while the buffer is full; never blocks a thread, and
    /// needs no particular runtime. Dropping this future before it gives the ticket submits nothing.
    pub async fn submit_async<T, F>(&self, operation: F) -> Ticket<T>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T, Error> + Send + 'static,
    {
        let bytes = size_of::<F>();
        let (operation, value) = prepare(operation);
        let submitted = match self.database.buffer() {
            Ok(buffer) => buffer.submit(operation, bytes).await,
            Err(error) => Err(error),
        };
        Ticket::new(submitted, value)
    }

    /// Runs `read` on a `query_only` connection, on the calling thread; blocks while all
    /// [`Options::readers`] are busy. It sees every write whose ticket has resolved. Keep it short: a read
    /// in progress keeps the write-ahead log from being reused.
    ///
    /// # Errors
    /// Whatever `read` returns; [`Error::Closed`] and [`Error::Failed`].
    pub fn read<T>(&self, read: impl FnOnce(&Connection) -> Result<T, Error>) -> Result<T, Error> {
        if let Some(refusal) = self.database.refusal() {
            return Err(refusal);
        }
        match &self.database.readers {
            Some(readers) => readers.with(read)?,
            // A writer is always on a file.
            None => Err(Error::Closed),
        }
    }

    /// Completes what was submitted, checkpoints, and releases the file. Blocks until that is done. All
    /// handles are closed with it; closing again answers as the first time did. Dropping the last handle
    /// does the same.
    ///
    /// # Errors
    /// [`Error::Failed`] if the writer had failed, or the failure of the last checkpoint; what was
    /// acknowledged is durable either way.
    pub fn close(&self) -> Result<(), Error> {
        self.database.close()
    }

    /// What the writer has done since it was opened. Never blocks.
    pub fn stats(&self) -> Stats {
        self.database.stats()
    }
}

/// A closure as the writer thread runs it, and where its value will be.
fn prepare<T, F>(operation: F) -> (Operation, Arc<Mutex<Option<T>>>)
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
