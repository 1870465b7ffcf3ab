//! Who owns a database file: one process, by an operating system lock on `<file>-lock` beside it, and on Linux by one on
//! the file itself as well (`held_file.rs`).
//!
//! The first tells who it is, and keeps older versions out; the second holds whatever becomes of the first and under
//! whatever name the file is opened. Both go away with their process however that ends. The `-lock` stays, like SQLite's own
//! `-wal`: removing it would let two processes lock two different files of the same name.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::held_file::{HeldFile, id_and_links, id_at};
use super::path::beside;
use crate::error::Error;

/// How often an open that waits for another process looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Holds the ownership of a database file until it is dropped.
#[derive(Debug)]
pub(crate) struct FileOwner {
    /// Let go of first, so that nobody who has it finds the file taken.
    file: Arc<HeldFile>,
    lock: Mutex<LockFile>,
    warned: AtomicBool,
}

impl FileOwner {
    /// Waits for up to `wait` until no other process owns the file; blocks the thread for as long.
    pub(crate) fn acquire(database: &Path, wait: Duration) -> Result<Self, Error> {
        let began = Instant::now();
        loop {
            let left = wait.saturating_sub(began.elapsed());
            match Self::try_acquire(database) {
                Err(Error::OwnedByProcess { .. }) if !left.is_zero() => {
                    std::thread::sleep(left.min(LOOK_AGAIN));
                }
                outcome => return outcome,
            }
        }
    }

    fn try_acquire(database: &Path) -> Result<Self, Error> {
        HeldFile::inspect(database)?;
        let owned = |pid| Error::OwnedByProcess { path: database.into(), pid };
        let mut lock = match LockFile::take(database)? {
            Taken::Ours(lock) => lock,
            Taken::Theirs(pid) => return Err(owned(pid)),
        };
        let file = HeldFile::open(database)?.ok_or_else(|| owned(lock.noted_pid()))?;
        lock.note_pid()?;
        Ok(Self { file: Arc::new(file), lock: Mutex::new(lock), warned: AtomicBool::new(false) })
    }

    pub(super) fn file(&self) -> &Arc<HeldFile> {
        &self.file
    }

    /// Looks whether the `-lock` is still the one that is locked, and locks a new one if it was removed: those who
    /// know of nothing else (older versions, systems where the file itself cannot be locked) would get in.
    pub(super) fn look_at_lock(&self) -> Result<(), Error> {
        let database = self.file.path();
        let mut lock = self.lock.lock();
        let found = id_at(&lock.path);
        if matches!(found, Ok(found) if found == lock.id()) {
            return Ok(());
        }
        match LockFile::take(database) {
            Ok(Taken::Ours(mut new)) => {
                tracing::warn!(lock = %new.path.display(), "it was removed while it was held; it is back");
                new.note_pid()?;
                *lock = new;
                Ok(())
            }
            // Somebody is about to find the file itself locked, and to let go of it.
            Ok(Taken::Theirs(_)) if self.file.is_locked() => Ok(()),
            Ok(Taken::Theirs(pid)) => Err(Error::OwnedByProcess { path: database.into(), pid }),
            // The privileges that it took to open it are gone, say.
            Err(error) => {
                if !self.warned.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, lock = %lock.path.display(), "it was removed while it was held");
                }
                Ok(())
            }
        }
    }
}

enum Taken {
    Ours(LockFile),
    /// And what its owner wrote into it.
    Theirs(Option<u32>),
}

/// The `-lock`, locked.
#[derive(Debug)]
struct LockFile {
    path: PathBuf,
    file: File,
}

impl Drop for LockFile {
    fn drop(&mut self) {
        // Closing is not enough: a process that is just being started holds a copy of the handle until it
        // runs its own program, and the lock with it.
        let _ = self.file.unlock();
    }
}

impl LockFile {
    fn take(database: &Path) -> Result<Taken, Error> {
        let path = beside(database, "-lock");
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = opened.map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem if !path.exists() => {
                Error::ReadOnly { path: database.into() }
            }
            io::ErrorKind::PermissionDenied => {
                Error::LockNotWritable { lock: path.clone(), source: Arc::new(error) }
            }
            io::ErrorKind::ReadOnlyFilesystem => Error::ReadOnly { path: database.into() },
            _ => Error::io(format!("opening {}", path.display()), error),
        })?;
        match file.try_lock() {
            Ok(()) => Ok(Taken::Ours(Self { path, file })),
            Err(TryLockError::WouldBlock) => Ok(Taken::Theirs(read_pid(&mut file))),
            Err(TryLockError::Error(error)) => Err(Error::io(format!("locking {}", path.display()), error)),
        }
    }

    fn id(&self) -> Option<super::held_file::FileId> {
        id_and_links(&self.file.metadata().ok()?).map(|(id, _links)| id)
    }

    fn noted_pid(&mut self) -> Option<u32> {
        read_pid(&mut self.file)
    }

    /// For the error message of whoever comes second; the lock itself does not depend on it.
    fn note_pid(&mut self) -> Result<(), Error> {
        let file = &mut self.file;
        let noted = file
            .set_len(0)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .and_then(|_| writeln!(file, "{}", std::process::id()));
        noted.map_err(|error| Error::io(format!("writing {}", self.path.display()), error))
    }
}

/// The process that noted itself, if it still lives: its children may have inherited the lock, and hold it after its
/// end.
fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.seek(SeekFrom::Start(0)).ok()?;
    file.take(32).read_to_string(&mut text).ok()?;
    let pid = text.trim().parse().ok()?;
    lives(pid).then_some(pid)
}

fn lives(pid: u32) -> bool {
    let processes = Path::new("/proc");
    // One that has ended and was not waited for is still there, and holds nothing any more.
    match std::fs::read_to_string(processes.join(pid.to_string()).join("stat")) {
        Ok(stat) => !stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with(['Z', 'X'])),
        // Where processes are not listed nobody knows.
        Err(_) => !processes.join("self").exists(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_owner_is_told_the_pid_of_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("app.db");
        let first = FileOwner::acquire(&database, Duration::ZERO).unwrap();
        let error = FileOwner::acquire(&database, Duration::ZERO).unwrap_err();
        let own_pid = std::process::id();
        assert!(matches!(error, Error::OwnedByProcess { pid: Some(pid), .. } if pid == own_pid), "{error}");
        drop(first);
        FileOwner::acquire(&database, Duration::ZERO).unwrap();
    }

    #[test]
    fn an_owner_that_has_ended_is_not_named() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        assert!(!lives(pid) && lives(std::process::id()));
    }

    #[test]
    fn a_lock_that_is_removed_is_put_back() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("app.db");
        let owner = FileOwner::acquire(&database, Duration::ZERO).unwrap();
        owner.look_at_lock().unwrap();
        std::fs::remove_file(beside(&database, "-lock")).unwrap();
        owner.look_at_lock().unwrap();
        let text = std::fs::read_to_string(beside(&database, "-lock")).unwrap();
        assert_eq!(text.trim(), std::process::id().to_string());
        assert!(matches!(LockFile::take(&database), Ok(Taken::Theirs(_))));
    }

    #[test]
    fn a_lock_that_somebody_else_has_taken_meanwhile_is_an_error_only_where_the_file_itself_is_not_locked() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("app.db");
        let owner = FileOwner::acquire(&database, Duration::ZERO).unwrap();
        std::fs::remove_file(beside(&database, "-lock")).unwrap();
        let Taken::Ours(theirs) = LockFile::take(&database).unwrap() else { panic!("it was removed") };
        let looked = owner.look_at_lock();
        assert_eq!(owner.file().is_locked(), cfg!(any(target_os = "linux", target_os = "android")));
        if !owner.file().is_locked() {
            assert!(matches!(looked, Err(Error::OwnedByProcess { .. })), "{looked:?}");
            return;
        }
        looked.unwrap();
        drop(theirs);
        owner.look_at_lock().unwrap();
        let text = std::fs::read_to_string(beside(&database, "-lock")).unwrap();
        assert_eq!(text.trim(), std::process::id().to_string(), "it is back");
    }
}
