//! The options of a [`Writer`]: those of every engine, without what only duroxide's storage has.

use std::error::Error as StdError;
use std::path::Path;
#[cfg(any(test, feature = "test-util"))]
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;

use super::Writer;
#[cfg(any(test, feature = "test-util"))]
use crate::clock::Clock;
use crate::error::Error;
use crate::options::{Durability, OnOpen, Options, shared_setters};

/// Options of a [`Writer`], with chainable setters.
///
/// ```
/// use std::time::Duration;
///
/// use forebay::{Durability, WriterOptions};
///
/// # fn main() -> Result<(), forebay::Error> {
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("ledger.db");
/// let writer = WriterOptions::default()
///     .durability(Durability::Normal)
///     .wait_for_owner(Duration::from_secs(10))
///     .open(path)?;
/// # writer.blocking_close()
/// # }
/// ```
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct WriterOptions {
    /// Of every engine. Nothing in a writer looks at what there is no setter for.
    options: Options,
}

impl WriterOptions {
    shared_setters!();

    /// How many `query_only` connections serve reads beside the writer. Default: 2. From 1 to 256. The first eight are opened
    /// with the database, further ones when they are needed. Each [`Writer::read`] that is awaited starts one more thread
    /// for itself and those after it, up to as many as there may be connections.
    pub fn readers(mut self, connections: usize) -> Self {
        self.options.readers = connections;
        self
    }

    /// Opens a writer on the file at `path`, creating it if it is missing. It is put into WAL mode; nothing else in it is
    /// touched. Blocks on file I/O. Where this process has a writer on it already, this is a handle of the same one, and
    /// the options have to be the same.
    ///
    /// # Errors
    /// Every error of the opening group of [`Error`]; the file is left as it was, and one that was not there is not there
    /// ([`Error`] says what may be left all the same). A file of duroxide's storage is refused: its rows are scheduled
    /// in memory, and nobody else may write them.
    pub fn open(self, path: impl AsRef<Path>) -> Result<Writer, Error> {
        Writer::open_with(path.as_ref(), self.options)
    }

    fn settings(&mut self) -> &mut Options {
        &mut self.options
    }

    /// For what takes a store without its writer.
    #[cfg(all(feature = "test-hooks", feature = "duroxide"))]
    pub(crate) fn engine(&self) -> &Options {
        &self.options
    }
}
