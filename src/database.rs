//! One open database: the buffer in front of its writer, the connections that read, and how both are opened,
//! joined by a second open in this process, and closed. Shared by [`Forebay`](crate::Forebay) and
//! [`Writer`](crate::Writer), which differ in their store alone.

use std::path::Path;
use std::sync::Arc;
use std::thread;

use crate::buffer::{Buffer, Counters, Store};
use crate::error::Error;
use crate::options::Options;
use crate::sqlite::{self, AnyEngine, FileOwner, Location, ReaderPool, Registration};

/// What a store holds on to besides its connection, and drops after it: when both are gone, the next open
/// goes ahead.
#[expect(dead_code, reason = "held, not read")]
pub(crate) enum Held {
    File { owner: FileOwner, registration: Registration },
    Memory,
}

/// See the module's documentation. `X` is what handles share with the store besides the buffer.
pub(crate) struct Database<S: Store, X> {
    pub(crate) buffer: Buffer<S>,
    /// `None` in memory mode, where reads go through the writer.
    pub(crate) readers: Option<Arc<ReaderPool>>,
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
    pub(crate) held: Held,
}

impl<S: Store, X: Send + Sync + 'static> Database<S, X> {
    /// Opens the file, or joins whoever has it open in this process. `store` opens the store itself; `kind`
    /// is how an error calls it.
    pub(crate) fn open_file(
        path: &Path,
        options: Options,
        kind: &str,
        store: impl FnOnce(Opening<'_>) -> Result<(S, X), Error>,
    ) -> Result<Arc<Self>, Error> {
        options.check()?;
        let path = sqlite::prepare_path(path)?;
        let join = |engine| Self::join(engine, &path, &options, kind);
        sqlite::join_or_open(&path, join, |registration| {
            let owner = FileOwner::acquire(&path)?;
            let held = Held::File { owner, registration };
            Self::start(Location::File(path.clone()), options.clone(), held, store)
        })
    }

    pub(crate) fn open_memory(
        options: Options,
        store: impl FnOnce(Opening<'_>) -> Result<(S, X), Error>,
    ) -> Result<Arc<Self>, Error> {
        options.check()?;
        Self::start(Location::Memory, options, Held::Memory, store)
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
        store: impl FnOnce(Opening<'_>) -> Result<(S, X), Error>,
    ) -> Result<Arc<Self>, Error> {
        let counters = Arc::new(Counters::default());
        let readers = match &location {
            Location::File(path) => {
                Some(Arc::new(ReaderPool::new(path.clone(), options.readers, options.on_open.clone())))
            }
            Location::Memory => None,
        };
        let opening = Opening {
            location: &location,
            options: &options,
            counters: Arc::clone(&counters),
            readers: readers.clone(),
            held,
        };
        let (store, shared) = store(opening).map_err(|error| match &location {
            Location::File(path) => sqlite::explain_error(error, path),
            Location::Memory => error,
        })?;
        let buffer = Buffer::start("forebay-writer", &options, counters, store)?;
        Ok(Arc::new(Self { buffer, readers, options, shared }))
    }
}

impl<S: Store, X> Database<S, X> {
    /// IMPORTANT: the readers first, so that the connection that writes is the last one and leaves no log.
    pub(crate) fn close(&self) -> Result<(), Error> {
        if let Some(readers) = &self.readers {
            readers.close()?;
        }
        self.buffer.close()
    }
}

impl<S: Store, X> Drop for Database<S, X> {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::warn!(%error, "closing on the drop of the last handle");
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
