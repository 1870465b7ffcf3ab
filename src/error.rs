//! The one error type, and what each error says about the data.
//!
//! Errors are `Clone`, because one failed commit is the answer to every caller of its batch; causes are kept
//! behind an `Arc` and stay reachable through [`std::error::Error::source`]. Nothing here is ever matched by
//! its text.

use std::error::Error as StdError;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// A cause kept for [`StdError::source`].
pub type Cause = Arc<dyn StdError + Send + Sync>;

/// What went wrong, named so that the way out is clear.
///
/// Three groups, in this order:
///
/// - **errors of opening**, from [`MissingFolder`](Error::MissingFolder) to [`Io`](Error::Io): nothing was changed (see
///   below);
/// - **errors of one operation**, from [`Full`](Error::Full) to [`Panicked`](Error::Panicked): it left no trace, and its
///   neighbours in the batch are untouched;
/// - **errors of a whole batch or of the engine**: [`RolledBack`](Error::RolledBack), which can be tried again,
///   [`OutcomeUnknown`](Error::OutcomeUnknown) and [`Failed`](Error::Failed), after which the database has to be opened
///   again.
///
/// `docs/embedding.md` in the repository, "What to do about an error", says of each whether it happened and whether to try
/// again.
///
/// What can refuse an open comes before anything is changed: the options, the path, whose file it is, and
/// [`Options::on_open`](crate::Options::on_open) on the writing connection and on the reading ones that are opened with it.
/// What the open had made by then is removed again: the database if there was none (one that was empty is empty
/// again), the `-lock`, `-wal` and `-shm`. This may be left all the same:
///
/// - a `-shm` beside a log that was there;
/// - a file that did not exist, or was empty, and that another process has opened or written meanwhile;
/// - a database in an older format of forebay's that was brought up to date before something else failed;
/// - after an I/O error, what that error kept from being removed.
///
/// A rollback journal that a crash has left is rolled back by whoever looks at the database, as ever with SQLite.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Error {
    /// The folder that should hold the database does not exist.
    MissingFolder {
        /// The missing folder.
        folder: PathBuf,
    },
    /// What should be the folder of the database is something else.
    NotAFolder {
        /// What the path takes for a folder.
        folder: PathBuf,
    },
    /// The file is there but is not a SQLite database, or is too damaged to be read as one.
    NotADatabase {
        /// The file.
        path: PathBuf,
    },
    /// The file is a SQLite database that somebody else made.
    ForeignDatabase {
        /// The file.
        path: PathBuf,
        /// Who seems to have made it.
        made_by: String,
    },
    /// The file was written by a newer forebay.
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// The format version found in the file.
        found: i64,
        /// The newest format version this build reads.
        supported: i64,
    },
    /// The file, or the folder it lives in, may not be written.
    ReadOnly {
        /// The file.
        path: PathBuf,
    },
    /// What was given is not a path but another library's way to name a database (`sqlite:app.db`,
    /// `:memory:`). A file of such a name is written `./sqlite:app.db`.
    NotAPath {
        /// What was given.
        given: PathBuf,
        /// The path that was probably meant; `None` for a database in memory.
        meant: Option<String>,
    },
    /// The path names something that cannot hold a database: a directory, a named pipe, a socket, a device, nothing at
    /// all.
    NotAFile {
        /// The path.
        path: PathBuf,
        /// What it names.
        kind: &'static str,
    },
    /// The path, or its last part, is longer than SQLite and the file system take.
    PathTooLong {
        /// The path, made absolute.
        path: PathBuf,
        /// How long it, or its last part, is in bytes.
        bytes: usize,
        /// How long that may be.
        limit: usize,
    },
    /// The file has more than one name (hard links). SQLite keeps its log beside the name it was given, so two
    /// that open it by two names lose each other's writes.
    HardLinked {
        /// The file, by the name that was given.
        path: PathBuf,
        /// How many names it has.
        links: u64,
    },
    /// This process has the file open under another path (a folder that was renamed since, a bind mount).
    OpenUnderAnotherName {
        /// The path that was given.
        path: PathBuf,
        /// The path it is open under.
        open: PathBuf,
    },
    /// The `-lock` file beside the database may not be written by this process.
    LockNotWritable {
        /// The `-lock` file.
        lock: PathBuf,
        /// The cause.
        source: Cause,
    },
    /// Another process has the database open.
    OwnedByProcess {
        /// The database.
        path: PathBuf,
        /// The process id its owner wrote beside it. `None` if it could not be read, or if that process has
        /// ended: then one that it forked holds what it had.
        pid: Option<u32>,
    },
    /// Somebody else holds SQLite's own lock on the file: a shell in a transaction, a backup,
    /// `PRAGMA locking_mode = EXCLUSIVE`. It was waited for, for two seconds or for as long as
    /// [`wait_for_owner`](crate::Options::wait_for_owner) says, whichever is longer.
    Locked {
        /// The database.
        path: PathBuf,
        /// SQLite's own error.
        source: Cause,
    },
    /// This process has the database open with other options, or as another kind of store.
    OptionsDiffer {
        /// The database.
        path: PathBuf,
        /// The options that differ, as `name: open with, asked for`.
        differences: String,
    },
    /// The path is on a network file system, where SQLite's write-ahead log is not safe.
    NetworkFileSystem {
        /// The database.
        path: PathBuf,
        /// The kind of file system.
        kind: String,
    },
    /// The linked SQLite can lose commits (the WAL-reset bug, fixed in 3.51.3).
    SqliteTooOld {
        /// The version that is linked.
        found: String,
        /// The oldest safe version.
        required: &'static str,
    },
    /// A setting was written to SQLite and did not take.
    PragmaNotTaken {
        /// The pragma.
        pragma: &'static str,
        /// The value asked for.
        asked: String,
        /// The value in force.
        found: String,
    },
    /// An option has a value that cannot work.
    InvalidOption {
        /// The option.
        option: &'static str,
        /// Why the value cannot work.
        reason: String,
    },
    /// What was given to [`Options::on_open`](crate::Options::on_open) has returned an error.
    OnOpen {
        /// The database it was called for; `None` in memory.
        path: Option<PathBuf>,
        /// What it returned, an [`Error`].
        source: Cause,
    },
    /// The database was removed, or replaced by another file, while it was open. What is stored is gone from its path: it is
    /// in the file that was there, if that still has a name.
    Gone {
        /// The path.
        path: PathBuf,
        /// Whether another file is there now.
        replaced: bool,
    },
    /// An operating system call failed.
    Io {
        /// What was being done.
        doing: String,
        /// The cause.
        source: Cause,
    },

    /// The buffer is full: as many operations wait as
    /// [`buffer_ops_max`](crate::Options::buffer_ops_max) allows. Nothing was submitted.
    Full,
    /// The engine was closed. Nothing was submitted.
    Closed,
    /// This process is a fork of the one that opened the database. Its handles do not work here, and the database
    /// cannot be opened here either for as long as this process runs: SQLite's connections cannot be carried across a fork.
    Forked {
        /// The process that opened it.
        pid: u32,
    },
    /// The call would have waited for the very thing it was made inside of, and so for ever. It did nothing.
    WouldDeadlock {
        /// What was called, and where.
        what: &'static str,
        /// What to do instead.
        instead: &'static str,
    },
    /// The read was interrupted: the write-ahead log had reached its bound and cannot be reused while a read
    /// that began before is running. Keep reads short, or raise
    /// [`wal_bytes_max`](crate::Options::wal_bytes_max).
    ReadInterrupted {
        /// How long it had been running.
        ran: std::time::Duration,
    },
    /// One value is larger than the engine stores. Nothing was written of it; an acknowledgement stored the failure
    /// of what produced it instead (see [`record_bytes_max`](crate::Options::record_bytes_max)).
    RecordTooLarge {
        /// What was too large.
        what: String,
        /// Its size in bytes.
        bytes: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// A stored record does not decode. It is still in the file, untouched.
    Corrupt {
        /// Which record: instance, execution and events, or queue and row.
        record: String,
        /// What is wrong with it.
        source: Cause,
    },
    /// The operation was refused and left no trace: an unknown or expired lock token, a duplicate event.
    Refused {
        /// Why.
        reason: String,
    },
    /// SQLite refused the operation, which left no trace.
    Sqlite {
        /// The cause.
        source: Arc<rusqlite::Error>,
    },

    /// A closure given to a [`Writer`](crate::Writer) returned this error of its own. It left no trace.
    Operation {
        /// The closure's error.
        source: Cause,
    },
    /// A closure given to a [`Writer`](crate::Writer) panicked. It left no trace.
    Panicked {
        /// The panic's message.
        message: String,
    },

    /// The batch could not be written and was rolled back for certain. Nothing in it happened; try again.
    RolledBack {
        /// The cause.
        source: Cause,
    },
    /// Nobody can tell what became of the write: its commit failed, or the sync that was to bring it to the disk; or the
    /// file was removed or replaced, or the writer thread panicked. It may or may not be in the file. The engine refuses
    /// all further work with [`Error::Failed`]: open the database again and look. (To a read it says that what was read
    /// may not be on the disk.)
    OutcomeUnknown {
        /// The cause.
        source: Cause,
    },
    /// The engine failed earlier and refuses all work until the database is opened again. This operation was
    /// not attempted.
    Failed {
        /// That earlier failure.
        source: Cause,
    },
}

impl Error {
    /// Whether the same call may succeed if made again on the same handle.
    ///
    /// True for [`Error::RolledBack`], [`Error::Full`] and [`Error::ReadInterrupted`], and of the errors of opening for
    /// [`Error::Locked`]. False for everything else, in particular for [`Error::OutcomeUnknown`]: a blind retry could do
    /// the work twice.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Error::RolledBack { .. } | Error::Full | Error::ReadInterrupted { .. } | Error::Locked { .. }
        )
    }

    /// Wraps an error of the embedder's own, for a closure given to a [`Writer`](crate::Writer) to return.
    ///
    /// ```
    /// let refused = forebay::Error::operation("the account is closed");
    /// assert_eq!(refused.to_string(), "the account is closed");
    /// ```
    pub fn operation(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Error::Operation { source: Arc::from(error.into()) }
    }

    /// The code of SQLite's own error, if it is one.
    pub(crate) fn sqlite_code(&self) -> Option<rusqlite::ErrorCode> {
        let Error::Sqlite { source } = self else { return None };
        source.sqlite_error_code()
    }

    /// Whether it says that what is stored is damaged, so that trying again would end the same way.
    #[cfg_attr(not(feature = "duroxide"), expect(dead_code, reason = "the engine's"))]
    pub(crate) fn is_damage(&self) -> bool {
        use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
        match self {
            Error::Corrupt { .. } => true,
            Error::Sqlite { source } => {
                matches!(source.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase))
                    || matches!(
                        source.as_ref(),
                        rusqlite::Error::FromSqlConversionFailure(..)
                            | rusqlite::Error::IntegralValueOutOfRange(..)
                            | rusqlite::Error::InvalidColumnType(..)
                            | rusqlite::Error::Utf8Error(..)
                    )
            }
            _ => false,
        }
    }

    /// The error if it is [damage](Self::is_damage), or SQLite's own back.
    #[cfg(feature = "duroxide")]
    pub(crate) fn damage(error: rusqlite::Error) -> Result<Error, rusqlite::Error> {
        let error = Error::from(error);
        match error {
            Error::Sqlite { source } if !(Error::Sqlite { source: Arc::clone(&source) }).is_damage() => {
                Err(Arc::try_unwrap(source).unwrap_or(rusqlite::Error::InvalidQuery))
            }
            damage => Ok(damage),
        }
    }

    pub(crate) fn io(doing: impl Into<String>, source: std::io::Error) -> Self {
        Error::Io { doing: doing.into(), source: Arc::new(source) }
    }

    pub(crate) fn refused(reason: impl Into<String>) -> Self {
        Error::Refused { reason: reason.into() }
    }
}

impl From<rusqlite::Error> for Error {
    fn from(source: rusqlite::Error) -> Self {
        Error::Sqlite { source: Arc::new(source) }
    }
}

impl From<Box<dyn StdError + Send + Sync>> for Error {
    fn from(source: Box<dyn StdError + Send + Sync>) -> Self {
        Error::operation(source)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::MissingFolder { folder } => {
                write!(f, "the folder {} does not exist: create it, or open another path", folder.display())
            }
            Error::NotAFolder { folder } => write!(
                f,
                "{} is not a folder, so that no database can be in it: open another path",
                folder.display()
            ),
            Error::NotADatabase { path } => write!(
                f,
                "{} is not a SQLite database, or it is damaged: open another path, or restore the file from a backup",
                path.display()
            ),
            Error::ForeignDatabase { path, made_by } => write!(
                f,
                "{} was made by {made_by}: forebay does not convert it; open a new path beside it",
                path.display()
            ),
            Error::NewerFormat { path, found, supported } => write!(
                f,
                "{} has format {found}, this build reads up to {supported}: use a newer forebay",
                path.display()
            ),
            Error::ReadOnly { path } => {
                write!(f, "{} cannot be written: check the permissions of file and folder", path.display())
            }
            Error::NotAPath { given, meant: Some(meant) } => write!(
                f,
                "{:?} is taken for a path, and is not one: leave the prefix out ({meant:?}); a file of that \
                 name is ./{}",
                given.display().to_string(),
                given.display()
            ),
            Error::NotAPath { given, meant: None } => write!(
                f,
                "{:?} is taken for a path, and is not one: Forebay::in_memory() opens a database in memory; a \
                 file of that name is ./{}",
                given.display().to_string(),
                given.display()
            ),
            Error::NotAFile { path, .. } if path.as_os_str().is_empty() => {
                f.write_str("\"\" is an empty path and names no file: give it the path of one")
            }
            Error::NotAFile { path, kind } => {
                write!(f, "{} is {kind} and cannot hold a database: give it a file", path.display())
            }
            Error::PathTooLong { path, bytes, limit } => write!(
                f,
                "{}: {bytes} bytes are too long for a database's name, which takes {limit}: use a shorter one",
                path.display()
            ),
            Error::HardLinked { path, links } => write!(
                f,
                "{} is one of {links} names of the same file (hard links), and two processes that open it by two \
                 names lose each other's writes: remove the others, or give it a file of its own (copy it while \
                 it is closed, and put the copy in its place)",
                path.display()
            ),
            Error::OpenUnderAnotherName { path, open } => write!(
                f,
                "{} is already open in this process as {}: close that first",
                path.display(),
                open.display()
            ),
            Error::LockNotWritable { lock, source } => write!(
                f,
                "{} cannot be opened, which tells who has the database open: let this process write it, or \
                 remove it if nobody has the database open: {source}",
                lock.display()
            ),
            Error::OwnedByProcess { path, pid } => {
                write!(f, "{} is open in another process", path.display())?;
                match pid {
                    Some(pid) => write!(f, " (pid {pid}): stop it, or use its database through it"),
                    None => f.write_str(
                        " that did not say which (the one that opened it has ended, and a child holds its lock?): \
                         stop it, or use its database through it",
                    ),
                }
            }
            Error::Locked { path, source } => write!(
                f,
                "{} cannot be used, because another process (or another connection of this one) holds SQLite's lock on \
                 it: close it there, or try again: {source}",
                path.display()
            ),
            Error::OptionsDiffer { path, differences } => write!(
                f,
                "{} is already open in this process with other options ({differences}): \
                 open it with the same, or close it first",
                path.display()
            ),
            Error::NetworkFileSystem { path, kind } => write!(
                f,
                "{} is on a network file system ({kind}), where a write-ahead log can be corrupted: \
                 use a local disk",
                path.display()
            ),
            Error::SqliteTooOld { found, required } => write!(
                f,
                "SQLite {found} can lose acknowledged commits; {required} or newer is needed: \
                 build rusqlite with its `bundled` feature"
            ),
            Error::PragmaNotTaken { pragma, asked, found } => write!(
                f,
                "SQLite did not take `PRAGMA {pragma} = {asked}`: it reads back as {found}; \
                 durability cannot be promised, so the database was not opened"
            ),
            Error::InvalidOption { option, reason } => write!(f, "option `{option}`: {reason}"),
            Error::OnOpen { path, source } => {
                f.write_str("option `on_open`: what it was given has failed on a connection to ")?;
                match path {
                    Some(path) => write!(f, "{}", path.display())?,
                    None => f.write_str("a database in memory")?,
                }
                write!(f, ": {source}")?;
                if wrote(source) { f.write_str(" (`query_only` is on while it runs)") } else { Ok(()) }
            }
            Error::Gone { path, replaced: false } => write!(
                f,
                "{} was removed while it was open: everything in it is gone from that path; put the file back before \
                 opening it again, or opening makes an empty one",
                path.display()
            ),
            Error::Gone { path, replaced: true } => write!(
                f,
                "{} was replaced by another file while it was open: everything in it is gone from that path; put the file \
                 back before opening it again, or opening takes the one that is there now",
                path.display()
            ),
            Error::Io { doing, source } => write!(f, "{doing}: {source}"),
            Error::Full => f.write_str(
                "the buffer is full: try again, wait with the async form, or raise buffer_ops_max",
            ),
            Error::WouldDeadlock { what, instead } => write!(f, "{what} would wait for ever: {instead}"),
            Error::Closed => f.write_str("the engine is closed: open the database again"),
            Error::ReadInterrupted { ran } => write!(
                f,
                "the read was interrupted after {:.1} s, because the write-ahead log had reached its bound and \
                 cannot be reused while it runs: keep reads short, or raise wal_bytes_max",
                ran.as_secs_f64()
            ),
            Error::Forked { pid } => write!(
                f,
                "the database was opened by process {pid}, of which this one is a fork, and SQLite cannot be \
                 carried across: fork before it is opened, or start the child as a program of its own"
            ),
            Error::RecordTooLarge { what, bytes, limit } => write!(
                f,
                "{what} takes {bytes} bytes, the limit is {limit}: store it elsewhere and keep a reference, \
                 or raise record_bytes_max"
            ),
            Error::Corrupt { record, source } => write!(
                f,
                "{record} is damaged: {source}; everything else goes on. It stays in the file as it is: close the \
                 database and recover it with SQLite's shell (.recover), or restore a backup; or delete the instance"
            ),
            Error::Refused { reason } => f.write_str(reason),
            Error::Sqlite { source } => write!(f, "SQLite: {source}"),
            Error::Operation { source } => write!(f, "{source}"),
            Error::Panicked { message } => write!(f, "the operation panicked: {message}"),
            Error::RolledBack { source } => {
                write!(f, "the batch was rolled back, nothing of it happened, try again: {source}")
            }
            // A reopen cures nothing here, and what does is in the cause.
            Error::OutcomeUnknown { source } if is_gone(source) => {
                write!(f, "outcome unknown: the operation was not kept, or is gone with the file: {source}")
            }
            Error::Failed { source } if is_gone(source) => write!(f, "the engine failed earlier: {source}"),
            Error::OutcomeUnknown { source } => write!(
                f,
                "outcome unknown: the operation may or may not have happened; open the database again and look: {source}"
            ),
            Error::Failed { source } => {
                write!(f, "the engine failed earlier, reopen the database: {source}")
            }
        }
    }
}

/// Whether the database is not at its path any more.
fn is_gone(cause: &Cause) -> bool {
    matches!(cause.downcast_ref(), Some(Error::Gone { .. }))
}

/// Whether it is a write that `query_only` has refused.
fn wrote(cause: &Cause) -> bool {
    cause.downcast_ref().and_then(Error::sqlite_code) == Some(rusqlite::ErrorCode::ReadOnly)
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Error::Io { source, .. }
            | Error::LockNotWritable { source, .. }
            | Error::Locked { source, .. }
            | Error::OnOpen { source, .. }
            | Error::Corrupt { source, .. }
            | Error::Operation { source }
            | Error::RolledBack { source }
            | Error::OutcomeUnknown { source }
            | Error::Failed { source } => Some(source.as_ref()),
            Error::Sqlite { source } => Some(source.as_ref()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
