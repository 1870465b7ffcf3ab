//! What the errors say: each what went wrong, with its name, and the way out. The cause is said by whoever prints the chain,
//! or by `{:#}`.

use std::error::Error as _;
use std::fmt;

use super::{Cause, Error};

impl fmt::Display for Error {
    /// The error alone; with `{:#}` its causes as well.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.say(f)?;
        if f.alternate() { say_causes(self, f) } else { Ok(()) }
    }
}

/// Each cause once: some libraries say that of their cause as well.
fn say_causes(error: &Error, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let says = error.to_string();
        if !said.contains(&says) {
            write!(f, ": {says}")?;
        }
        said = says;
        cause = error.source();
    }
    Ok(())
}

impl Error {
    fn say(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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
            Error::LockNotWritable { lock, source: _ } => write!(
                f,
                "{} cannot be opened, which tells who has the database open: let this process write it, or \
                 remove it if nobody has the database open",
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
            Error::Locked { path, source: _ } => write!(
                f,
                "{} cannot be used, because another process (or another connection of this one) holds SQLite's lock on \
                 it: close it there, or try again",
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
            Error::Io { doing, source: _ } => write!(f, "{doing} failed"),
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
            Error::Corrupt { record, source: _ } => write!(
                f,
                "{record} is damaged; everything else goes on. It stays in the file as it is: close the \
                 database and recover it with SQLite's shell (.recover), or restore a backup; or delete the instance"
            ),
            Error::NotFound { what } => write!(f, "{what} not found"),
            Error::LeaseLost { reason }
            | Error::DuplicateEvent { reason }
            | Error::StillRunning { reason }
            | Error::InvalidInput { reason }
            | Error::NotAllowed { reason } => f.write_str(reason),
            Error::Internal { reason } => write!(f, "{reason} (this is a bug in forebay)"),
            Error::Sqlite { source } => write!(f, "SQLite: {source}"),
            Error::Operation { source } => write!(f, "{source}"),
            Error::Panicked { message } => write!(f, "the operation panicked: {message}"),
            Error::RolledBack { source: _ } => {
                f.write_str("the batch was rolled back, nothing of it happened, try again")
            }
            // A reopen cures nothing here, and what does is in the cause.
            Error::OutcomeUnknown { source } if is_gone(source) => {
                f.write_str("outcome unknown: the operation was not kept, or is gone with the file")
            }
            Error::Failed { source } if is_gone(source) => f.write_str("the engine failed earlier"),
            Error::OutcomeUnknown { source: _ } => f.write_str(
                "outcome unknown: the operation may or may not have happened; open the database again and look",
            ),
            Error::Failed { source: _ } => f.write_str("the engine failed earlier, reopen the database"),
        }
    }
}

/// Whether the database is not at its path any more.
fn is_gone(cause: &Cause) -> bool {
    matches!(cause.downcast_ref(), Some(Error::Gone { .. }))
}

/// Whether it is a write that `query_only` has refused.
fn wrote(cause: &Cause) -> bool {
    let code = match cause.downcast_ref::<rusqlite::Error>() {
        Some(error) => error.sqlite_error_code(),
        None => cause.downcast_ref().and_then(Error::sqlite_code),
    };
    code == Some(rusqlite::ErrorCode::ReadOnly)
}
