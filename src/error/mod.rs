//! The one error type, and what each error says about the data.
//!
//! Errors are `Clone`, because one failed commit is the answer to every caller of its batch; causes are kept
//! behind an `Arc` and stay reachable through [`std::error::Error::source`]. Nothing here is ever matched by
//! its text, which is in display.rs.

mod display;
#[cfg(test)]
mod tests;

use std::error::Error as StdError;
use std::fmt::Display;
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
/// # What it says
///
/// `{}` is the error alone, without its cause, which is the [`source`](std::error::Error::source): for whoever prints the
/// chain, as anyhow and eyre do. `{:#}` is the whole chain in one line, for a log:
///
/// ```
/// # use std::error::Error as _;
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("app.db");
/// # let options = forebay::WriterOptions::default().on_open(|_| Err(forebay::Error::operation("no such function")));
/// let error = options.open(path).unwrap_err();
/// assert!(!format!("{error}").contains("no such function"));
/// assert!(format!("{error:#}").ends_with(": no such function"));
/// assert_eq!(error.source().unwrap().to_string(), "no such function");
/// ```
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
    #[non_exhaustive]
    MissingFolder {
        /// The missing folder.
        folder: PathBuf,
    },
    /// What should be the folder of the database is something else.
    #[non_exhaustive]
    NotAFolder {
        /// What the path takes for a folder.
        folder: PathBuf,
    },
    /// The file is there but is not a SQLite database, or is too damaged to be read as one.
    #[non_exhaustive]
    NotADatabase {
        /// The file.
        path: PathBuf,
    },
    /// The file is a SQLite database that somebody else made.
    #[non_exhaustive]
    ForeignDatabase {
        /// The file.
        path: PathBuf,
        /// Who seems to have made it.
        made_by: String,
    },
    /// The file was written by a newer forebay.
    #[non_exhaustive]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// The format version found in the file.
        found: i64,
        /// The newest format version this build reads.
        supported: i64,
    },
    /// The file, or the folder it lives in, may not be written.
    #[non_exhaustive]
    ReadOnly {
        /// The file.
        path: PathBuf,
    },
    /// What was given is not a path but another library's way to name a database (`sqlite:app.db`,
    /// `:memory:`). A file of such a name is written `./sqlite:app.db`.
    #[non_exhaustive]
    NotAPath {
        /// What was given.
        given: PathBuf,
        /// The path that was probably meant; `None` for a database in memory.
        meant: Option<String>,
    },
    /// The path names something that cannot hold a database: a directory, a named pipe, a socket, a device, nothing at
    /// all.
    #[non_exhaustive]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// What it names.
        kind: &'static str,
    },
    /// The path, or its last part, is longer than SQLite and the file system take.
    #[non_exhaustive]
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
    #[non_exhaustive]
    HardLinked {
        /// The file, by the name that was given.
        path: PathBuf,
        /// How many names it has.
        links: u64,
    },
    /// This process has the file open under another path (a folder that was renamed since, a bind mount).
    #[non_exhaustive]
    OpenUnderAnotherName {
        /// The path that was given.
        path: PathBuf,
        /// The path it is open under.
        open: PathBuf,
    },
    /// The `-lock` file beside the database may not be written by this process.
    #[non_exhaustive]
    LockNotWritable {
        /// The `-lock` file.
        lock: PathBuf,
        /// The cause.
        source: Cause,
    },
    /// Another process has the database open.
    #[non_exhaustive]
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
    #[non_exhaustive]
    Locked {
        /// The database.
        path: PathBuf,
        /// SQLite's own error.
        source: Cause,
    },
    /// This process has the database open with other options, or as another kind of store.
    #[non_exhaustive]
    OptionsDiffer {
        /// The database.
        path: PathBuf,
        /// The options that differ, as `name: open with, asked for`.
        differences: String,
    },
    /// The path is on a network file system, where SQLite's write-ahead log is not safe.
    #[non_exhaustive]
    NetworkFileSystem {
        /// The database.
        path: PathBuf,
        /// The kind of file system.
        kind: String,
    },
    /// The linked SQLite can lose commits (the WAL-reset bug, fixed in 3.51.3).
    #[non_exhaustive]
    SqliteTooOld {
        /// The version that is linked.
        found: String,
        /// The oldest safe version.
        required: &'static str,
    },
    /// A setting was written to SQLite and did not take.
    #[non_exhaustive]
    PragmaNotTaken {
        /// The pragma.
        pragma: &'static str,
        /// The value asked for.
        asked: String,
        /// The value in force.
        found: String,
    },
    /// An option has a value that cannot work.
    #[non_exhaustive]
    InvalidOption {
        /// The option.
        option: &'static str,
        /// Why the value cannot work.
        reason: String,
    },
    /// What was given to [`Options::on_open`](crate::Options::on_open) has returned an error.
    #[non_exhaustive]
    OnOpen {
        /// The database it was called for; `None` in memory.
        path: Option<PathBuf>,
        /// What it returned.
        source: Cause,
    },
    /// The database was removed, or replaced by another file, while it was open. What is stored is gone from its path: it is
    /// in the file that was there, if that still has a name.
    #[non_exhaustive]
    Gone {
        /// The path.
        path: PathBuf,
        /// Whether another file is there now.
        replaced: bool,
    },
    /// An operating system call failed.
    #[non_exhaustive]
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
    #[non_exhaustive]
    Forked {
        /// The process that opened it.
        pid: u32,
    },
    /// The call would have waited for the very thing it was made inside of, and so for ever. It did nothing.
    #[non_exhaustive]
    WouldDeadlock {
        /// What was called, and where.
        what: &'static str,
        /// What to do instead.
        instead: &'static str,
    },
    /// The read was interrupted: the write-ahead log had reached its bound and cannot be reused while a read
    /// that began before is running. Keep reads short, or raise
    /// [`wal_bytes_max`](crate::Options::wal_bytes_max).
    #[non_exhaustive]
    ReadInterrupted {
        /// How long it had been running.
        ran: std::time::Duration,
    },
    /// One value is larger than the engine stores. Nothing was written of it; an acknowledgement stored the failure
    /// of what produced it instead (see [`record_bytes_max`](crate::Options::record_bytes_max)).
    #[non_exhaustive]
    RecordTooLarge {
        /// What was too large.
        what: String,
        /// Its size in bytes.
        bytes: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// A stored record does not decode. It is still in the file, untouched.
    #[non_exhaustive]
    Corrupt {
        /// Which record: instance, execution and events, or queue and row.
        record: String,
        /// What is wrong with it.
        source: Cause,
    },
    /// The lock token names no lease: it is unknown, its lock has expired, it was used before, or it is from before a
    /// restart.
    #[non_exhaustive]
    LeaseLost {
        /// Which of these, as far as that is known.
        reason: String,
    },
    /// What was asked about, or was to be changed, is not there.
    #[non_exhaustive]
    NotFound {
        /// What was looked for.
        what: String,
    },
    /// An event of this id is in the history already, or twice in what was handed in.
    #[non_exhaustive]
    DuplicateEvent {
        /// Which events of which execution.
        reason: String,
    },
    /// The instance is still running, and what was asked for needs one that has ended.
    #[non_exhaustive]
    StillRunning {
        /// Which instance, and what to do.
        reason: String,
    },
    /// What was handed in can never be accepted: an event id out of its range, a work item of the wrong kind.
    #[non_exhaustive]
    InvalidInput {
        /// What is wrong with it.
        reason: String,
    },
    /// A closure given to a [`Writer`](crate::Writer) did what would break its batch for the others: it tried to commit or
    /// to attach a file, set a pragma, left a temporary table behind, or had SQLite roll back the whole batch.
    /// [`writer`](crate::writer) says what a closure may do.
    #[non_exhaustive]
    NotAllowed {
        /// What it did, and what to do instead.
        reason: String,
    },
    /// Something that cannot happen has happened: a bug in forebay. The operation left no trace.
    #[non_exhaustive]
    Internal {
        /// What was found.
        reason: String,
    },
    /// SQLite refused the operation, which left no trace: a constraint, wrong SQL. Its text is that of the SQLite error, whose
    /// own cause is the [`source`](std::error::Error::source) of this.
    #[non_exhaustive]
    Sqlite {
        /// The cause.
        source: Arc<rusqlite::Error>,
    },

    /// A closure given to a [`Writer`](crate::Writer) returned this error of its own, by [`Error::operation`]. It left no
    /// trace. Its text is that of the closure's error, whose own cause is the [`source`](std::error::Error::source) of this.
    #[non_exhaustive]
    Operation {
        /// The closure's error.
        source: Cause,
    },
    /// A closure given to a [`Writer`](crate::Writer) panicked. It left no trace.
    #[non_exhaustive]
    Panicked {
        /// The panic's message.
        message: String,
    },

    /// The batch could not be written and was rolled back for certain. Nothing in it happened; try again.
    #[non_exhaustive]
    RolledBack {
        /// The cause.
        source: Cause,
    },
    /// Nobody can tell what became of the write: its commit failed, or the sync that was to bring it to the disk; or the
    /// file was removed or replaced, or the writer thread panicked. It may or may not be in the file. The engine refuses
    /// all further work with [`Error::Failed`]: open the database again and look. (To a read it says that what was read
    /// may not be on the disk.)
    #[non_exhaustive]
    OutcomeUnknown {
        /// The cause.
        source: Cause,
    },
    /// The engine failed earlier and refuses all work until the database is opened again. This operation was
    /// not attempted.
    #[non_exhaustive]
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

    /// Shown as "`doing` failed".
    pub(crate) fn io(doing: impl Into<String>, source: std::io::Error) -> Self {
        Error::Io { doing: doing.into(), source: Arc::new(source) }
    }
}

/// What the operations are refused with.
#[allow(dead_code, reason = "some are the engine's")]
impl Error {
    pub(crate) fn lease_lost(reason: impl Into<String>) -> Self {
        Error::LeaseLost { reason: reason.into() }
    }

    /// `what` is the thing alone: "instance a".
    pub(crate) fn not_found(what: impl Display) -> Self {
        Error::NotFound { what: what.to_string() }
    }

    pub(crate) fn duplicate_event(reason: impl Into<String>) -> Self {
        Error::DuplicateEvent { reason: reason.into() }
    }

    pub(crate) fn still_running(reason: impl Into<String>) -> Self {
        Error::StillRunning { reason: reason.into() }
    }

    pub(crate) fn invalid_input(reason: impl Into<String>) -> Self {
        Error::InvalidInput { reason: reason.into() }
    }

    pub(crate) fn not_allowed(reason: impl Into<String>) -> Self {
        Error::NotAllowed { reason: reason.into() }
    }

    pub(crate) fn internal(reason: impl Into<String>) -> Self {
        Error::Internal { reason: reason.into() }
    }

    /// A batch that was rolled back for a reason that is no error of anybody else's.
    pub(crate) fn rolled_back(reason: impl Into<String>) -> Self {
        Error::RolledBack { source: Arc::from(Box::<dyn StdError + Send + Sync>::from(reason.into())) }
    }

    /// A batch of which nobody can tell what became of it, for a reason that is no error of anybody else's.
    pub(crate) fn outcome_unknown(reason: impl Into<String>) -> Self {
        Error::OutcomeUnknown { source: Arc::from(Box::<dyn StdError + Send + Sync>::from(reason.into())) }
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

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Error::Io { source, .. }
            | Error::LockNotWritable { source, .. }
            | Error::Locked { source, .. }
            | Error::OnOpen { source, .. }
            | Error::Corrupt { source, .. }
            | Error::RolledBack { source }
            | Error::OutcomeUnknown { source }
            | Error::Failed { source } => Some(source.as_ref()),
            // These say what their cause says.
            Error::Operation { source } => source.source(),
            Error::Sqlite { source } => source.source(),
            _ => None,
        }
    }
}
