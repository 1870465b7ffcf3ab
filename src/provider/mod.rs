//! duroxide's storage: the handle, and the path of a call from the runtime to the engine.
//!
//! Values are encoded and decoded here, on the caller's thread; the writer thread only moves bytes.

mod admin;
mod begun;
mod contract;
mod decode;
mod encode;
mod too_large;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use begun::Begun;
use duroxide::providers::ProviderError;
#[cfg(feature = "test-hooks")]
pub(crate) use encode::{Encoder, Turn, produced};
use parking_lot::Mutex;
#[cfg(feature = "test-hooks")]
use rusqlite::Connection;

use crate::buffer::Stats;
use crate::clock::Clock;
use crate::database::{Database, Opening};
use crate::engine::returns::Returns;
use crate::engine::{self, Changed, Engine, Histories, Op, Reply, Submitted, Tokens};
use crate::error::Error;
use crate::options::Options;
use crate::rows::Reads;
use crate::sqlite::Readers;

/// duroxide's storage on one SQLite file, or in memory.
///
/// A handle is cheap to clone and all clones share one engine; so do two opens of the same file in one
/// process. Hand it to duroxide as an `Arc<dyn Provider>`.
///
/// Every method of the provider returns when what it wrote is committed. At
/// [`Durability::Full`](crate::Durability::Full) a client's calls, reads, and fetches of activities return when what they
/// tell is on the disk as well; the runtime's own acknowledgements and fetches of turns wait for that only with
/// [`Options::sync_acks`]. (The read with which duroxide's worker begins an activity does not wait: it is given what is
/// on the disk.)
///
/// Futures may be dropped at any await: a write that was submitted still completes, once, and a fetch leaves nothing
/// behind. A full buffer suspends a call; nothing blocks an executor thread, except [`Forebay::open`],
/// [`Forebay::close`] and dropping the last handle. Reads run on threads of the engine's own; one that looks up a single
/// row (the status of an instance, a key-value) runs at once where a connection is free, which takes microseconds unless
/// its page has to come from the disk.
///
/// A whole program. Before the file is closed, here to be opened again, the runtime is shut down:
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
///
/// use duroxide::runtime::Runtime;
/// use duroxide::runtime::registry::ActivityRegistry;
/// use duroxide::{ActivityContext, Client, OrchestrationContext, OrchestrationRegistry, OrchestrationStatus};
/// use forebay::Forebay;
///
/// #[tokio::main]
/// async fn main() -> Result<(), Box<dyn std::error::Error>> {
///     let path = "app.db";
///     # let folder = tempfile::tempdir()?;
///     # let path = &folder.path().join(path);
///     let activities = ActivityRegistry::builder()
///         .register("greet", |_: ActivityContext, name: String| async move { Ok(format!("Hello, {name}!")) })
///         .build();
///     let orchestrations = OrchestrationRegistry::builder()
///         .register("hello", |context: OrchestrationContext, name: String| async move {
///             context.schedule_activity("greet", name).await
///         })
///         .build();
///
///     let store = Arc::new(Forebay::open(path)?);
///     let runtime = Runtime::start_with_store(store.clone(), activities, orchestrations).await;
///     let client = Client::new(store.clone());
///     client.start_orchestration("order 1", "hello", "world").await?; // on the disk now
///     client.wait_for_orchestration("order 1", Duration::from_secs(30)).await?;
///     runtime.shutdown(None).await;
///     store.close()?;
///
///     // Later, or in another process: everything is there.
///     let store = Arc::new(Forebay::open(path)?);
///     let status = Client::new(store.clone()).get_orchestration_status("order 1").await?;
///     assert!(matches!(status, OrchestrationStatus::Completed { output, .. } if output == "Hello, world!"));
///     store.close()?;
///     Ok(())
/// }
/// ```
#[derive(Clone)]
pub struct Forebay {
    database: Arc<Database<Engine, Shared>>,
}

/// What handles share with the engine besides its buffer.
pub(crate) struct Shared {
    returns: Arc<Returns>,
    histories: Arc<Histories>,
    changed: Arc<Changed>,
    begun: Begun,
    tokens: Tokens,
    next_fetch: AtomicU64,
    /// The engine's own.
    clock: Arc<dyn Clock>,
}

impl Forebay {
    /// Opens the file at `path` with the default [`Options`], creating it if it is missing or empty.
    ///
    /// # Errors
    /// See [`Options::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        Options::default().open(path)
    }

    /// Opens a database in memory with the default [`Options`].
    ///
    /// # Errors
    /// See [`Options::in_memory`].
    pub fn in_memory() -> Result<Self, Error> {
        Options::default().in_memory()
    }

    /// Completes what was submitted, answers every parked fetch with [`Error::Closed`], checkpoints, and
    /// releases the file. Blocks until that is done. Other handles of the same engine are closed with it;
    /// closing again answers as the first time did. Dropping the last handle does the same.
    ///
    /// # Errors
    /// [`Error::Failed`] if the engine had failed, or the failure of its last commit, sync or checkpoint. What was answered is
    /// then still what [`Durability`](crate::Durability) says: at `Full`, what anybody outside was told is on the disk.
    /// What had not waited for the disk (at `Normal`, everything) is committed, and the newest of it may be missing when
    /// the file is opened again. A file that was removed or replaced is gone with what was in it.
    pub fn close(&self) -> Result<(), Error> {
        self.database.close()
    }

    /// What the engine has done since it was opened. Never blocks.
    pub fn stats(&self) -> Stats {
        self.database.stats()
    }

    /// Runs `with` on the writer's connection, between two batches.
    ///
    /// # Errors
    /// [`Error::Closed`] and [`Error::Failed`].
    #[cfg(feature = "test-hooks")]
    #[doc(hidden)]
    pub fn on_writer_connection<T: Send + 'static>(
        &self,
        with: impl FnOnce(&Connection) -> T + Send + 'static,
    ) -> Result<T, Error> {
        self.on_store(|store| store.connection().map(with))?.ok_or(Error::Closed)
    }

    /// Runs `with` on the writer thread, between two batches.
    ///
    /// # Errors
    /// [`Error::Closed`] and [`Error::Failed`].
    #[cfg(feature = "test-hooks")]
    #[doc(hidden)]
    pub fn on_writer_thread<T: Send + 'static>(
        &self,
        with: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        self.on_store(|_store| with())
    }

    /// Runs `with` on the rows behind the engine's back, between two batches.
    #[cfg(feature = "test-hooks")]
    pub(crate) fn on_store<T: Send + 'static>(
        &self,
        with: impl FnOnce(&mut dyn crate::rows::RowStore) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let answer = Arc::new(Mutex::new(None));
        let slot = Arc::clone(&answer);
        let op = Op::OnStore(Box::new(move |store| *slot.lock() = Some(with(store))));
        crate::sync::block_on(self.submit(op, 0))?;
        // Whatever was done to the rows, what is read next comes from them.
        self.database.shared.histories.clear();
        answer.lock().take().ok_or(Error::Closed)
    }

    async fn submit(&self, op: Op, bytes: usize) -> Result<Reply, Error> {
        let shared = &self.database.shared;
        shared.begun.forget();
        let at = shared.clock.monotonic();
        self.database.buffer()?.submit(Submitted { at, op }, bytes).await?.await
    }

    /// Runs a read that may take long on a thread of the readers' own: whoever awaits it may hold the last thread of
    /// its runtime.
    async fn read<T: Send + 'static>(
        &self,
        seen: Seen<'_>,
        read: impl FnOnce(&dyn Reads) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let Some(readers) = &self.database.readers else { return self.read_through_writer(read).await };
        if let Some(refusal) = self.database.refusal() {
            return Err(refusal);
        }
        let result = readers.run(move |connection| read(connection)).await.and_then(|result| result);
        self.durable(seen).await.and(result.map_err(|error| name_damage(error, seen)))
    }

    /// Waits until what a read may have seen is on the disk.
    async fn durable(&self, seen: Seen<'_>) -> Result<(), Error> {
        let horizon = &self.database.horizon;
        let no = match seen {
            Seen::Anything => horizon.announced(),
            Seen::Instance(instance) => self.database.shared.changed.last(instance),
        };
        horizon.reached(no).await
    }

    /// Runs a read of one row: at once, if a connection is free, which is cheaper than any hand-over.
    async fn read_point<T: Send + 'static>(
        &self,
        seen: Seen<'_>,
        read: impl FnOnce(&dyn Reads) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let Some(readers) = &self.database.readers else { return self.read_through_writer(read).await };
        if let Some(refusal) = self.database.refusal() {
            return Err(refusal);
        }
        let result = match readers.with_idle(move |connection| read(connection)) {
            Ok(result) => result,
            Err(read) => readers.run(read).await,
        };
        let result = result.and_then(|result| result);
        self.durable(seen).await.and(result.map_err(|error| name_damage(error, seen)))
    }

    async fn read_through_writer<T: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn Reads) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (op, answer) = read_op(read);
        self.submit(op, 0).await?;
        let answered = answer.lock().take();
        answered.ok_or(Error::Closed)?
    }
}

/// What a read depends on. Whoever reads may show it, so it waits until that is on the disk.
#[derive(Clone, Copy)]
enum Seen<'a> {
    Anything,
    /// The rows of one instance.
    Instance(&'a str),
}

/// Damage that SQLite has met, with what was read.
fn name_damage(error: Error, seen: Seen<'_>) -> Error {
    if !matches!(error, Error::Sqlite { .. }) || !error.is_damage() {
        return error;
    }
    let record = match seen {
        Seen::Anything => "what was to be read".to_owned(),
        Seen::Instance(instance) => format!("instance {instance}"),
    };
    Error::Corrupt { record, source: Arc::new(error) }
}

/// A read as an operation, and where its answer will be.
fn read_op<T: Send + 'static>(
    read: impl FnOnce(&dyn Reads) -> T + Send + 'static,
) -> (Op, Arc<Mutex<Option<T>>>) {
    let answer = Arc::new(Mutex::new(None));
    let slot = Arc::clone(&answer);
    (Op::Read(Box::new(move |rows| *slot.lock() = Some(read(rows)))), answer)
}

impl std::fmt::Debug for Forebay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Forebay").field(&self.database).finish()
    }
}

pub(crate) fn open_file(path: &Path, options: Options) -> Result<Forebay, Error> {
    Ok(started(Database::open_file(path, options, "duroxide's storage", Readers::Own, open_engine)?))
}

pub(crate) fn open_memory(options: Options) -> Result<Forebay, Error> {
    Ok(started(Database::open_memory(options, open_engine)?))
}

/// Over maps instead of SQLite.
#[cfg(feature = "test-hooks")]
pub(crate) fn open_maps(kept: &crate::rows::maps::Kept, options: Options) -> Result<Forebay, Error> {
    let open = |opening: Opening<'_>| {
        let (shared, with_engine) = shared(&opening);
        let store = Box::new(crate::rows::maps::Maps::open(kept));
        Ok((Engine::over(store, opening.options.sync_acks, with_engine)?, shared))
    };
    Ok(started(Database::open_memory(options, open)?))
}

/// An engine on SQLite.
pub(crate) fn open_engine(opening: Opening<'_>) -> Result<(Engine, Shared), Error> {
    let (shared, with_engine) = shared(&opening);
    Ok((Engine::open(opening, with_engine)?, shared))
}

/// What the handles and the engine have in common.
fn shared(opening: &Opening<'_>) -> (Shared, engine::Shared) {
    let clock = opening.options.clock_or_system();
    let shared = Shared {
        returns: Arc::default(),
        histories: Arc::default(),
        changed: Arc::default(),
        begun: Begun::default(),
        tokens: Tokens::new(),
        next_fetch: AtomicU64::new(0),
        clock,
    };
    let with_engine = engine::Shared {
        clock: Arc::clone(&shared.clock),
        returns: Arc::clone(&shared.returns),
        histories: Arc::clone(&shared.histories),
        changed: Arc::clone(&shared.changed),
        horizon: Arc::clone(&opening.horizon),
        counters: Arc::clone(&opening.counters),
        held: opening.held.clone(),
    };
    (shared, with_engine)
}

/// Connects what wakes the writer beside the channel: dropped futures, and a clock moved by hand. A second
/// open of the same file finds that done.
fn started(database: Arc<Database<Engine, Shared>>) -> Forebay {
    let returns = &database.shared.returns;
    if let Ok(buffer) = database.buffer().cloned()
        && returns.on_arrival(move || buffer.nudge())
        && let Some(clock) = &database.options.clock
    {
        let returns = Arc::downgrade(returns);
        clock.on_jump(Box::new(move || returns.upgrade().is_some_and(|returns| returns.nudge())));
    }
    Forebay { database }
}

/// The one place where an error becomes duroxide's, with its retry class.
fn provider_error(operation: &str, error: &Error) -> ProviderError {
    // The message is all that duroxide hands on: the causes are in it.
    let message = format!("{error:#}");
    if error.is_retryable() {
        ProviderError::retryable(operation, message)
    } else {
        ProviderError::permanent(operation, message)
    }
}
