//! Whether the files that are open are still the ones their paths name: somebody may have removed one, or put another
//! in its place (a backup restored under a running process). SQLite goes on writing to a file that nobody
//! can open any more and says nothing, so what is acknowledged would be gone with the process.
//!
//! Only what is really gone is gone. A path that cannot be looked at (the process has dropped its privileges, or changed its root)
//! or that names nothing (the folder was renamed) says nothing about the file, and the handle that is kept
//! of it does: a file that still has a name can be found again.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::held_file::{FileId, HeldFile, StandIn, id_and_links, id_at, links_of};
use super::owner::FileOwner;
use super::path::beside;
use crate::error::Error;

/// The files of a database as they were when it was opened.
#[derive(Debug)]
pub(super) struct Identity {
    owner: Arc<FileOwner>,
    log: Option<Log>,
    /// Said once: that the file is not where it was, that it has another name.
    said: [AtomicBool; 2],
}

/// The log that SQLite has open. It has no locks, so that a handle of it can be opened and closed at will.
#[derive(Debug)]
struct Log {
    path: PathBuf,
    file: File,
    id: FileId,
}

/// What is gone.
#[derive(Debug)]
pub(super) enum Lost {
    /// The log has no name any more; the database is where it was. What is in the log can still be moved into it.
    Log(Error),
    Other(Error),
}

impl Identity {
    /// To be made when SQLite has opened all of its files. `None` if the files are not owned.
    pub(super) fn of(owner: &Arc<FileOwner>) -> (Self, StandIn) {
        let stand_in = owner.file().stand_in();
        let path = beside(owner.file().path(), "-wal");
        let log = File::open(&path).ok().and_then(|file| {
            let id = id_and_links(&file.metadata().ok()?)?.0;
            Some(Log { path, file, id })
        });
        (Self { owner: Arc::clone(owner), log, said: Default::default() }, stand_in)
    }

    /// Looks at every file.
    pub(super) fn check(&self) -> Result<(), Lost> {
        let held = self.owner.file();
        let gone = |replaced| Lost::Other(Error::Gone { path: held.path().into(), replaced });
        match id_at(held.path()) {
            Ok(found) if found == held.id() => {
                self.owner.look_at_lock().map_err(Lost::Other)?;
            }
            Ok(_another) => return Err(gone(true)),
            Err(error) if held.links() == Some(0) || !cfg!(unix) => {
                tracing::debug!(%error, "the database has no name any more");
                return Err(gone(false));
            }
            Err(error) => self.say(0, || {
                tracing::warn!(
                    %error, path = %held.path().display(),
                    "the database cannot be found at its path, and still exists: was it renamed? Should the process \
                     die, its -wal has to be beside it under its new name"
                );
            }),
        }
        if held.links().is_some_and(|links| links > 1) {
            self.say(1, || {
                tracing::warn!(
                    path = %held.path().display(),
                    "the database has been given a second name (a hard link): it cannot be opened again while it has"
                );
            });
        }
        self.check_log(held)
    }

    fn check_log(&self, held: &HeldFile) -> Result<(), Lost> {
        if let Some(log) = &self.log {
            let name = log.path.to_string_lossy();
            let found = id_at(&log.path);
            if matches!(found, Ok(Some(found)) if found != log.id) {
                return Err(Lost::Other(lost(&name, "replaced by another file")));
            }
            if links_of(&log.file) == Some(0) {
                return Err(Lost::Log(lost(&name, "removed")));
            }
        }
        if held.shared_memory_is_gone() {
            let name = beside(held.path(), "-shm");
            return Err(Lost::Other(lost(&name.to_string_lossy(), "removed")));
        }
        Ok(())
    }

    fn say(&self, what: usize, say: impl FnOnce()) {
        if !self.said[what].swap(true, Ordering::Relaxed) {
            say();
        }
    }
}

fn lost(name: &str, what: &str) -> Error {
    let doing = format!("{name} was {what} while it was open");
    Error::io(doing, io::Error::other("nothing written from here on would be found again"))
}
