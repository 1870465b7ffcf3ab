//! Group commit for anyone who embeds SQLite: closures in, one transaction per batch, a result for each.
//!
//! [`Writer`], [`Ticket`] and [`WriterOptions`] are in the crate's root as well.
//!
//! # What a closure may do
//!
//! Everything a transaction may: read, write, create tables, prepare cached statements, use savepoints of its own, ask
//! pragmas that report. It shares its transaction with others, so it may not end it (`COMMIT`, `ROLLBACK`), attach files,
//! set pragmas, or leave temporary tables behind: that is [`Error::NotAllowed`]. `ON CONFLICT ROLLBACK` and `RAISE(ROLLBACK)`
//! are what SQLite lets nobody refuse: they undo the whole batch. It runs on the writer thread, and everybody waits for it:
//! it should touch rows and return. `docs/embedding.md` in the repository has the whole list.
//!
//! # What a closure may return
//!
//! Any value, and any error that is [`ClosureError`]: `rusqlite::Error`, [`Error`], `anyhow::Error`, an enum of one's own.

mod error;
mod guard;
mod inside;
mod objections;
mod options;
mod store;
mod ticket;

use std::any::Any;
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, ThreadId};

pub use error::{ClosureError, TrySubmitError};
pub use options::WriterOptions;
use rusqlite::{Connection, Transaction};
use store::Failed;
pub(crate) use store::{ClosureStore, Operation};
use ticket::Slot;
pub use ticket::Ticket;

use crate::buffer::{Pending, Stats};
use crate::database::{Database, Opening};
use crate::error::Error;
use crate::options::Options;
use crate::sqlite::{Readers, Settings};
use crate::sync::{block_on, oneshot};

/// A group-commit writer on the embedder's own SQLite file.
///
/// Any number of threads or tasks submit closures; one thread runs them, many in one IMMEDIATE transaction,
/// each in a savepoint of its own. A closure that fails or panics undoes itself alone. A handle is cheap to
/// clone, all clones and all opens of the same file in one process share one writer.
///
/// Each method has a name for those who await and one for those who block a thread, as in tokio: [`submit`](Self::submit) and
/// [`blocking_submit`](Self::blocking_submit), [`read`](Self::read) and [`blocking_read`](Self::blocking_read),
/// [`close`](Self::close) and [`blocking_close`](Self::blocking_close).
///
/// ```
/// use forebay::Writer;
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), forebay::Error> {
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("app.db");
/// let writer = Writer::open(path)?;
/// writer.submit(|tx| tx.execute_batch("CREATE TABLE t (n INTEGER)")).await.await?;
///
/// let ticket = writer.submit(|tx| -> Result<_, forebay::Error> {
///     tx.execute("INSERT INTO t VALUES (?1)", [42])?;
///     Ok(tx.last_insert_rowid())
/// });
/// let ticket = ticket.await; // there was room: it is in the buffer
/// let id = ticket.await?; // it is committed, and on the disk
/// assert_eq!(id, 1);
///
/// let count: i64 = writer.read(|conn| conn.query_row("SELECT count(*) FROM t", [], |row| row.get(0))).await?;
/// assert_eq!(count, 1);
/// writer.close().await
/// # }
/// ```
#[derive(Clone)]
pub struct Writer {
    database: Arc<Database<ClosureStore, ()>>,
}

impl Writer {
    /// Opens the file at `path` with the default [`WriterOptions`], creating it if it is missing.
    ///
    /// # Errors
    /// See [`WriterOptions::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        WriterOptions::default().open(path)
    }

    fn open_with(path: &Path, options: Options) -> Result<Self, Error> {
        let store = |opening: Opening<'_>| Ok((ClosureStore::open(opening)?, ()));
        let opened = Database::open_file(path, options, "a Writer", Readers::Strange, store);
        Ok(Self { database: opened? })
    }

    /// Submits a closure. Suspends the calling task while the buffer is full (see [`WriterOptions::buffer_ops_max`]); never
    /// blocks a thread, and needs no particular runtime. Dropping this future before it gives the ticket submits
    /// nothing; dropping the ticket does not cancel the write. The result is what the [`Ticket`] resolves with.
    ///
    /// The closure runs at most once, on the writer thread, in arrival order, in a savepoint of its own. An error that it
    /// returns, of [any type that forebay's own turn into](ClosureError), undoes what it did and comes back as it was. What
    /// would break the batch for its neighbours (commit, rollback, attach, pragmas that set something) is refused with
    /// an error that says why: [`Error::NotAllowed`]. (A closure with an error type of its own is given SQLite's "not authorized"
    /// there, and the reason is in the log.)
    ///
    /// Inside a closure of the same writer it does not wait: while the buffer is full the ticket resolves with
    /// [`Error::WouldDeadlock`], and nothing was submitted. Nor can a closure wait for the ticket; see [`Ticket`].
    pub async fn submit<T, E, F>(&self, closure: F) -> Ticket<T, E::Returned>
    where
        T: Send + 'static,
        E: ClosureError,
        F: FnOnce(&Transaction<'_>) -> Result<T, E> + Send + 'static,
    {
        self.submit_sized(size_of::<F>(), closure).await
    }

    /// As [`Self::submit`], for a closure that carries `bytes` on the heap: they count towards
    /// [`WriterOptions::batch_bytes_max`] and the bound of the buffer.
    pub async fn submit_sized<T, E, F>(&self, bytes: usize, closure: F) -> Ticket<T, E::Returned>
    where
        T: Send + 'static,
        E: ClosureError,
        F: FnOnce(&Transaction<'_>) -> Result<T, E> + Send + 'static,
    {
        let (operation, result) = prepare(closure);
        let submitted = if self.is_on_writer_thread() {
            self.submit_inside(operation, bytes)
        } else {
            match self.database.buffer() {
                Ok(buffer) => buffer.submit(operation, bytes).await,
                Err(error) => Err(error),
            }
        };
        self.ticket(submitted, result)
    }

    /// As [`Self::submit`], but blocks the calling thread while the buffer is full.
    pub fn blocking_submit<T, E, F>(&self, closure: F) -> Ticket<T, E::Returned>
    where
        T: Send + 'static,
        E: ClosureError,
        F: FnOnce(&Transaction<'_>) -> Result<T, E> + Send + 'static,
    {
        self.blocking_submit_sized(size_of::<F>(), closure)
    }

    /// As [`Self::blocking_submit`], for a closure that carries `bytes` on the heap (see [`Self::submit_sized`]).
    pub fn blocking_submit_sized<T, E, F>(&self, bytes: usize, closure: F) -> Ticket<T, E::Returned>
    where
        T: Send + 'static,
        E: ClosureError,
        F: FnOnce(&Transaction<'_>) -> Result<T, E> + Send + 'static,
    {
        let (operation, result) = prepare(closure);
        let submitted = if self.is_on_writer_thread() {
            self.submit_inside(operation, bytes)
        } else {
            self.database.buffer().and_then(|buffer| buffer.submit_blocking(operation, bytes))
        };
        self.ticket(submitted, result)
    }

    /// As [`Self::submit`], but only if there is room right now. Never waits.
    ///
    /// ```
    /// # fn main() -> Result<(), forebay::Error> {
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let writer = forebay::Writer::open(folder.path().join("app.db"))?;
    /// # writer.blocking_submit(|tx| tx.execute_batch("CREATE TABLE t (n INTEGER)")).wait()?;
    /// let ticket = match writer.try_submit(|tx| tx.execute("INSERT INTO t VALUES (42)", [])) {
    ///     Ok(ticket) => ticket,
    ///     Err(refused) if refused.error().is_retryable() => writer.blocking_submit(refused.into_inner()),
    ///     Err(refused) => return Err(refused.into()),
    /// };
    /// assert_eq!(ticket.wait()?, 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The closure, with [`Error::Full`] if there is no room, [`Error::Closed`], [`Error::Failed`] or [`Error::Forked`] if
    /// there never will be. Nothing was submitted.
    pub fn try_submit<T, E, F>(&self, closure: F) -> Result<Ticket<T, E::Returned>, TrySubmitError<F>>
    where
        T: Send + 'static,
        E: ClosureError,
        F: FnOnce(&Transaction<'_>) -> Result<T, E> + Send + 'static,
    {
        self.try_submit_sized(size_of::<F>(), closure)
    }

    /// As [`Self::try_submit`], for a closure that carries `bytes` on the heap (see [`Self::submit_sized`]).
    ///
    /// # Errors
    /// As [`Self::try_submit`].
    pub fn try_submit_sized<T, E, F>(
        &self,
        bytes: usize,
        closure: F,
    ) -> Result<Ticket<T, E::Returned>, TrySubmitError<F>>
    where
        T: Send + 'static,
        E: ClosureError,
        F: FnOnce(&Transaction<'_>) -> Result<T, E> + Send + 'static,
    {
        let buffer = match self.database.buffer() {
            Ok(buffer) => buffer,
            Err(error) => return Err(TrySubmitError::new(closure, error)),
        };
        let result = Slot::default();
        let its_own = Arc::clone(&result);
        match buffer.try_submit_made(closure, bytes, |closure| operation(closure, its_own)) {
            Ok(submitted) => Ok(self.ticket(Ok(submitted), result)),
            Err((closure, error)) => Err(TrySubmitError::new(closure, error)),
        }
    }

    /// Runs `read` on a read-only connection, on a thread of the writer's own; suspends the calling task until that is done,
    /// and needs no particular runtime. A future that is dropped before the read has begun does not run it.
    ///
    /// It sees every write whose ticket has resolved, and at [`Durability::Full`](crate::Durability::Full) returns when all that
    /// it may have seen is on the disk. It waits while all [`WriterOptions::readers`] are busy, and while the writer
    /// starts its log over. Keep it short: a read in progress keeps the write-ahead log from being reused. When the log
    /// has grown to one and a half times [`WriterOptions::wal_bytes_max`], the read is interrupted; one that cannot be (it
    /// waits for something else with a statement open) has writes refused with [`Error::RolledBack`] until it ends.
    ///
    /// A read inside a read never waits, and runs on the thread that it is asked for on. Inside a closure, read through its
    /// transaction: this does not see the batch, and the batch would wait for whoever has the connections.
    ///
    /// ```
    /// # async fn count(writer: forebay::Writer) -> Result<i64, forebay::Error> {
    /// writer.read(|conn| conn.query_row("SELECT count(*) FROM t", [], |row| row.get(0))).await
    /// # }
    /// ```
    ///
    /// # Errors
    /// What `read` returns, [as a closure that writes](ClosureError); [`Error::ReadInterrupted`], in place of whatever an
    /// interrupted read has returned; [`Error::WouldDeadlock`] inside a read while all connections are busy;
    /// [`Error::Closed`], [`Error::Failed`] and [`Error::Forked`]; [`Error::OutcomeUnknown`] if what was read may not be on
    /// the disk.
    ///
    /// # Panics
    /// If `read` does.
    pub async fn read<T, E, F>(&self, read: F) -> Result<T, E::Returned>
    where
        T: Send + 'static,
        E: ClosureError,
        F: FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    {
        let readers = self.database.readers()?;
        let writer = self.writer_thread();
        let read = move |connection: &Connection| run_read(writer, connection, read);
        // The outer read's thread is blocked in any case, and the others may all be waiting for one like it.
        let outcome = if inside::is_reading(writer) { readers.with(read) } else { readers.run(read).await };
        let durable = self.durable().await;
        durable?;
        outcome?
    }

    /// As [`Self::read`], but on the calling thread, which it blocks. `read` may borrow.
    ///
    /// # Errors
    /// As [`Self::read`].
    ///
    /// # Panics
    /// If `read` does.
    pub fn blocking_read<T, E: ClosureError>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, E>,
    ) -> Result<T, E::Returned> {
        let readers = self.database.readers()?;
        let writer = self.writer_thread();
        let outcome = readers.with(|connection| run_read(writer, connection, read));
        let durable = block_on(self.durable());
        durable?;
        outcome?
    }

    /// Waits until everything that a read may have seen is on the disk.
    async fn durable(&self) -> Result<(), Error> {
        let horizon = &self.database.horizon;
        horizon.reached(horizon.announced()).await
    }

    /// Completes what was submitted, checkpoints, and releases the file; suspends the calling task until that is done, which
    /// a thread of its own does: it blocks none of a runtime's. All handles are closed with it; closing again answers as the
    /// first time did. Dropping the last handle does the same, and blocks the thread that drops it. Once it was
    /// polled it goes on by itself, also if this future is dropped.
    ///
    /// # Errors
    /// [`Error::Failed`] if the writer had failed, or the failure of the last sync or checkpoint. What was answered is
    /// then still what [`Durability`](crate::Durability) says: at `Full`, on the disk. At `Normal` it is committed, and the
    /// newest of it may be missing when the file is opened again. A file that was removed or replaced is gone with what
    /// was in it. [`Error::WouldDeadlock`] inside a closure or a read of this writer, which it would have to
    /// wait for: nothing was closed. [`Error::Io`] if no thread could be started: nothing was closed.
    pub async fn close(&self) -> Result<(), Error> {
        self.check_outside()?;
        let (tell, told) = oneshot::channel();
        let database = Arc::clone(&self.database);
        thread::Builder::new()
            .name("forebay-close".into())
            .spawn(move || {
                let _ = tell.send(database.close());
            })
            .map_err(|error| Error::io("starting a thread that closes the database", error))?;
        told.await.unwrap_or_else(|_panicked| Err(Error::internal("the thread that closes has panicked")))
    }

    /// As [`Self::close`], but on the calling thread, which it blocks.
    ///
    /// # Errors
    /// As [`Self::close`].
    pub fn blocking_close(&self) -> Result<(), Error> {
        self.check_outside()?;
        self.database.close()
    }

    /// Refuses to close it on a thread that is in the middle of its work.
    fn check_outside(&self) -> Result<(), Error> {
        if self.is_on_writer_thread() || inside::is_reading(self.writer_thread()) {
            return Err(inside::would_deadlock(
                "closing a writer inside one of its own closures or reads",
                "close it after the closure or the read has returned",
            ));
        }
        Ok(())
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

    fn ticket<T, E>(&self, submitted: Result<Pending<()>, Error>, result: Slot<T, E>) -> Ticket<T, E> {
        Ticket::new(submitted, result, self.writer_thread())
    }

    fn writer_thread(&self) -> ThreadId {
        self.database.writer_thread()
    }

    fn is_on_writer_thread(&self) -> bool {
        inside::is_writer_thread(self.writer_thread())
    }

    /// What the writer has done since it was opened. Never blocks; also when it is closed, or has failed.
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

/// A read by somebody else's code, after which the connection is as it was.
fn run_read<T, E: ClosureError>(
    writer: ThreadId,
    connection: &Connection,
    read: impl FnOnce(&Connection) -> Result<T, E>,
) -> Result<T, E::Returned> {
    let _inside = inside::enter_read(writer);
    // The next one is lent the same connection.
    let _restored = Restored { settings: Settings::of(connection), connection };
    read(connection).map_err(E::into_returned)
}

/// A closure as the writer thread runs it, and where its result will be.
fn prepare<T, E, F>(closure: F) -> (Operation, Slot<T, E::Returned>)
where
    T: Send + 'static,
    E: ClosureError,
    F: FnOnce(&Transaction<'_>) -> Result<T, E> + Send + 'static,
{
    let result = Slot::default();
    (operation(closure, Arc::clone(&result)), result)
}

/// A closure as the writer thread runs it, which leaves its result in `slot`.
pub(crate) fn operation<T, E, F>(closure: F, slot: Slot<T, E::Returned>) -> Operation
where
    T: Send + 'static,
    E: ClosureError,
    F: FnOnce(&Transaction<'_>) -> Result<T, E> + Send + 'static,
{
    Box::new(move |transaction| {
        let result = closure(transaction).map_err(E::into_returned);
        if let Err(error) = &result
            && let Some(error) = (error as &dyn Any).downcast_ref::<Error>()
            && guard::is_denied(error)
        {
            // There is more to say about it than it says.
            return Err(Failed::With(error.clone()));
        }
        let failed = result.is_err();
        *slot.lock() = Some(result);
        if failed { Err(Failed::ByItself) } else { Ok(()) }
    })
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Writer").field(&self.database).finish()
    }
}
