//! One open database: the buffer in front of its writer, the connections that read, and how both are opened,
//! joined by a second open in this process, and closed. Shared by [`Forebay`](crate::Forebay) and
//! [`Writer`](crate::Writer), which differ in their store alone.

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use crate::buffer::{Buffer, Counters, Horizon, Stats, Store};
use crate::error::Error;
use crate::fork::Origin;
use crate::options::Options;
use crate::sqlite::{self, AnyEngine, FileOwner, Location, Patience, ReaderPool, Readers, Registration};

/// What a store holds on to besides its connection, and drops after it: when both are gone, the next open
/// goes ahead.
#[derive(Clone)]
pub(crate) enum Held {
    File {
        owner: Arc<FileOwner>,
        #[expect(dead_code, reason = "held, not read")]
        registration: Arc<Registration>,
    },
    Memory,
}

impl Held {
    /// `None` in memory.
    pub(crate) fn owner(&self) -> Option<&Arc<FileOwner>> {
        match self {
            Held::File { owner, .. } => Some(owner),
            Held::Memory => None,
        }
    }
}

/// See the module's documentation. `X` is what handles share with the store besides the buffer.
pub(crate) struct Database<S: Store, X> {
    /// See [`Self::buffer`].
    buffer: Buffer<S>,
    origin: Origin,
    /// `None` in memory mode, where reads go through the writer.
    pub(crate) readers: Option<Arc<ReaderPool>>,
    pub(crate) horizon: Arc<Horizon>,
    pub(crate) options: Options,
    pub(crate) shared: X,
}

/// What a store is opened with.
pub(crate) struct Opening<'a> {
    pub(crate) location: &'a Location,
    pub(crate) options: &'a Options,
    pub(crate) counters: Arc<Counters>,
    /// `None` in memory mode.
    pub(crate) readers: Option<Arc<ReaderPool>>,
    pub(crate) horizon: Arc<Horizon>,
    pub(crate) patience: Patience,
    pub(crate) held: Held,
}

impl<S: Store, X: Send + Sync + 'static> Database<S, X> {
    /// Opens the file, or joins whoever has it open in this process. `store` opens the store itself; `kind`
    /// is how an error calls it, `readers` whose code reads.
    pub(crate) fn open_file(
        path: &Path,
        options: Options,
        kind: &str,
        readers: Readers,
        store: impl FnOnce(Opening<'_>) -> Result<(S, X), Error>,
    ) -> Result<Arc<Self>, Error> {
        let began = Instant::now();
        options.check()?;
        let path = sqlite::prepare_path(path)?;
        let join = |engine| Self::join(engine, &path, &options, kind);
        sqlite::join_or_open(&path, join, |registration| {
            let owner = Arc::new(FileOwner::acquire(&path, options.wait_for_owner)?);
            let held = Held::File { owner: Arc::clone(&owner), registration: Arc::new(registration) };
            // Held also while what a failed open has made is removed again.
            let _held = held.clone();
            let patience = Patience::of(&options, began);
            let started =
                Self::start(Location::File(path.clone()), options.clone(), held, patience, readers, store);
            started.inspect_err(|_error| owner.undo())
        })
    }

    pub(crate) fn open_memory(
        options: Options,
        store: impl FnOnce(Opening<'_>) -> Result<(S, X), Error>,
    ) -> Result<Arc<Self>, Error> {
        options.check_in_memory()?;
        let patience = Patience::of(&options, Instant::now());
        Self::start(Location::Memory, options, Held::Memory, patience, Readers::Own, store)
    }

    /// `None` if what was found is closing.
    fn join(
        engine: Arc<AnyEngine>,
        path: &Path,
        asked: &Options,
        kind: &str,
    ) -> Option<Result<Arc<Self>, Error>> {
        let differ = |differences| Some(Err(Error::OptionsDiffer { path: path.into(), differences }));
        let Ok(open) = engine.downcast::<Self>() else {
            return differ(format!("it is open as another kind of store, asked for as {kind}"));
        };
        // One that has failed has let go of the file, or is about to, as one that is closing.
        if open.buffer.refusal().is_some() {
            // Which its own thread would have to do.
            if open.buffer.writer_thread() == thread::current().id() {
                let what = "opening a database inside one of its closures while it is being closed";
                return Some(Err(Error::WouldDeadlock {
                    what,
                    instead: "open it when the closure has returned",
                }));
            }
            return None;
        }
        let differences = open.options.differences(asked);
        if differences.is_empty() { Some(Ok(open)) } else { differ(differences) }
    }

    fn start(
        location: Location,
        options: Options,
        held: Held,
        patience: Patience,
        readers: Readers,
        store: impl FnOnce(Opening<'_>) -> Result<(S, X), Error>,
    ) -> Result<Arc<Self>, Error> {
        let counters = Arc::new(Counters::default());
        let horizon = Arc::new(Horizon::default());
        let readers = match &location {
            Location::File(path) => {
                let (max, on_open) = (options.readers, options.on_open.clone());
                Some(Arc::new(ReaderPool::new(path.clone(), readers, max, on_open)))
            }
            Location::Memory => None,
        };
        let opening = Opening {
            location: &location,
            options: &options,
            counters: Arc::clone(&counters),
            readers: readers.clone(),
            horizon: Arc::clone(&horizon),
            patience,
            held,
        };
        let (store, shared) = store(opening).map_err(|error| match &location {
            Location::File(path) => sqlite::explain_error(error, path),
            Location::Memory => error,
        })?;
        if let Some(readers) = &readers {
            readers.open_files()?;
        }
        let buffer = Buffer::start("forebay-writer", &options, counters, Arc::clone(&horizon), store)?;
        Ok(Arc::new(Self { buffer, origin: Origin::here(), readers, horizon, options, shared }))
    }
}

impl<S: Store, X> Database<S, X> {
    /// What takes operations.
    ///
    /// # Errors
    /// [`Error::Forked`] in any process but the one that opened it: nobody there would answer.
    pub(crate) fn buffer(&self) -> Result<&Buffer<S>, Error> {
        self.origin.check()?;
        Ok(&self.buffer)
    }

    /// Why it takes no work; `None` while it does.
    pub(crate) fn refusal(&self) -> Option<Error> {
        self.origin.check().err().or_else(|| self.buffer.refusal())
    }

    /// What reads, while it takes work.
    ///
    /// # Errors
    /// [`Self::refusal`]. Not to be called in memory, where there is nothing that reads.
    pub(crate) fn readers(&self) -> Result<&Arc<ReaderPool>, Error> {
        match (self.refusal(), &self.readers) {
            (Some(refusal), _) => Err(refusal),
            (None, Some(readers)) => Ok(readers),
            (None, None) => Err(Error::internal("nothing reads beside the writer in memory")),
        }
    }

    /// The thread that answers, in the process it was opened in.
    pub(crate) fn writer_thread(&self) -> thread::ThreadId {
        self.buffer.writer_thread()
    }

    /// Never blocks, and works in any process.
    pub(crate) fn stats(&self) -> Stats {
        self.buffer.stats()
    }

    /// IMPORTANT: the readers first, so that the connection that writes is the last one and leaves no log.
    pub(crate) fn close(&self) -> Result<(), Error> {
        self.origin.check()?;
        if let Some(readers) = &self.readers {
            readers.close()?;
        }
        self.buffer.close()
    }
}

impl<S: Store, X> Drop for Database<S, X> {
    fn drop(&mut self) {
        if !self.origin.is_here() {
            // IMPORTANT: nothing of it may be closed in a fork: not SQLite's connections, which share locks and memory with the
            // ones of the process they belong to, nor a thread that is not there. The last of each is kept for good.
            std::mem::forget(self.buffer.clone());
            std::mem::forget(self.readers.clone());
            return;
        }
        if let Err(error) = self.close() {
            tracing::warn!(error = format_args!("{error:#}"), "closing on the drop of the last handle");
        }
    }
}

impl<S: Store, X> std::fmt::Debug for Database<S, X> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database")
            .field("options", &self.options)
            .field("stats", &self.buffer.stats())
            .finish_non_exhaustive()
    }
}
