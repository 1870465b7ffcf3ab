//! Who owns a database file: one process, by an operating system lock on `<file>-lock` beside it, and on Linux by one on
//! the file itself as well (`held_file.rs`).
//!
//! The first tells who it is, and keeps older versions out; the second holds whatever becomes of the first and under
//! whatever name the file is opened. Both go away with their process however that ends. The `-lock` stays, like SQLite's own
//! `-wal`; only an open that has made it and fails removes it again. Two processes might then lock two different files of
//! the same name, so whoever has locked one looks whether it still is the one that the name leads to.

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

/// How long an owner that has not said yet who it is is given to do so: it has the lock before it writes that down.
const SAYS_WHO: Duration = Duration::from_millis(200);

/// For how long a `-lock` is looked for that others make and remove all the time.
const COMES_AND_GOES: Duration = Duration::from_secs(1);

/// How often is looked meanwhile.
const LOOK_WHO: Duration = Duration::from_millis(1);

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
        let mut lock = match LockFile::take(database, SAYS_WHO)? {
            Taken::Ours(lock) => lock,
            Taken::Theirs(pid) => return Err(owned(pid)),
        };
        let opened = lock.note_pid().and_then(|()| HeldFile::open(database)?.ok_or_else(|| owned(None)));
        match opened {
            Ok(file) => {
                Ok(Self { file: Arc::new(file), lock: Mutex::new(lock), warned: AtomicBool::new(false) })
            }
            Err(error) => {
                lock.remove_if_made();
                Err(error)
            }
        }
    }

    /// Removes what opening has made, as far as nobody else may use it. To be called when the open has failed and
    /// every connection of it is closed.
    pub(crate) fn undo(&self) {
        self.file.undo();
        self.lock.lock().remove_if_made();
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
        match LockFile::take(database, Duration::ZERO) {
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
                    tracing::warn!(
                        error = format_args!("{error:#}"), lock = %lock.path.display(),
                        "it was removed while it was held"
                    );
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
    /// Whether there was none.
    made: bool,
}

impl Drop for LockFile {
    fn drop(&mut self) {
        // Whoever finds it locked next is not to be told of this process, which may live on.
        let _ = self.file.set_len(0);
        // Closing is not enough: a process that is just being started holds a copy of the handle until it
        // runs its own program, and the lock with it.
        let _ = self.file.unlock();
    }
}

impl LockFile {
    /// Takes the lock, or tells who has it; for that waits for up to `patience`.
    fn take(database: &Path, patience: Duration) -> Result<Taken, Error> {
        let path = beside(database, "-lock");
        let began = Instant::now();
        loop {
            let (mut file, made) = Self::open(&path, database)?;
            match file.try_lock() {
                Ok(()) => {
                    let lock = Self { path: path.clone(), file, made };
                    // The one who had it has failed to open, and has removed it before it let go: see `remove_if_made`.
                    if lock.is_where_it_was() {
                        return Ok(Taken::Ours(lock));
                    }
                    if began.elapsed() > COMES_AND_GOES {
                        return Ok(Taken::Theirs(None));
                    }
                }
                Err(TryLockError::WouldBlock) => {
                    let pid = read_pid(&mut file);
                    if pid.is_some() || began.elapsed() >= patience {
                        return Ok(Taken::Theirs(pid));
                    }
                    std::thread::sleep(LOOK_WHO);
                }
                Err(TryLockError::Error(error)) => {
                    return Err(Error::io(format!("locking {}", path.display()), error));
                }
            }
        }
    }

    /// Whether there was none.
    fn open(path: &Path, database: &Path) -> Result<(File, bool), Error> {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        let (opened, made) = match options.clone().create_new(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // It may have been removed since.
                (options.create(true).truncate(false).open(path), false)
            }
            made => (made, true),
        };
        let file = opened.map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem if !path.exists() => {
                Error::ReadOnly { path: database.into() }
            }
            io::ErrorKind::PermissionDenied => {
                Error::LockNotWritable { lock: path.into(), source: Arc::new(error) }
            }
            io::ErrorKind::ReadOnlyFilesystem => Error::ReadOnly { path: database.into() },
            _ => Error::io(format!("opening {}", path.display()), error),
        })?;
        Ok((file, made))
    }

    fn is_where_it_was(&self) -> bool {
        // Where the system does not say which file it is, nothing is ever removed.
        self.id().is_none() || matches!(id_at(&self.path), Ok(found) if found == self.id())
    }

    /// Removes it if there was none. IMPORTANT: while it is locked, so that whoever locks it next sees that it is gone.
    fn remove_if_made(&self) {
        if self.made && self.id().is_some() && self.is_where_it_was() {
            let _ = std::fs::remove_file(&self.path);
        }
    }

    fn id(&self) -> Option<super::held_file::FileId> {
        id_and_links(&self.file.metadata().ok()?).map(|(id, _links)| id)
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

    /// It has the lock before it has said who it is, and what the one before it wrote is not taken for that.
    #[test]
    fn an_owner_that_has_yet_to_say_who_it_is_is_given_the_time() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("app.db");
        drop(FileOwner::acquire(&database, Duration::ZERO).unwrap());
        let lock = beside(&database, "-lock");
        assert_eq!(
            std::fs::read_to_string(&lock).unwrap(),
            "",
            "the one before it lives on, and owns nothing"
        );
        let owner = File::options().read(true).write(true).open(&lock).unwrap();
        owner.lock().unwrap();
        let Ok(Taken::Theirs(None)) = LockFile::take(&database, Duration::ZERO) else { panic!("who?") };
        std::thread::scope(|scope| {
            let second = scope.spawn(|| LockFile::take(&database, Duration::from_secs(60)));
            (&owner).write_all(std::process::id().to_string().as_bytes()).unwrap();
            let told = second.join().unwrap().unwrap();
            assert!(matches!(told, Taken::Theirs(Some(pid)) if pid == std::process::id()));
        });
    }

    #[test]
    fn a_lock_is_removed_only_by_who_made_it_and_by_that_nobody_else_gets_in() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("app.db");
        let lock = beside(&database, "-lock");
        let owner = FileOwner::acquire(&database, Duration::ZERO).unwrap();
        // Opened by somebody before it is removed, locked after that.
        let late = File::open(&lock).unwrap();
        owner.undo();
        drop(owner);
        assert!(!lock.exists() && !database.exists());
        late.lock().unwrap();
        let next = FileOwner::acquire(&database, Duration::ZERO).expect("that lock has no name");
        drop(next);
        let owner = FileOwner::acquire(&database, Duration::ZERO).unwrap();
        owner.undo();
        assert!(lock.exists() && database.exists(), "it was there");
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
        assert!(matches!(LockFile::take(&database, Duration::ZERO), Ok(Taken::Theirs(_))));
    }

    #[test]
    fn a_lock_that_somebody_else_has_taken_meanwhile_is_an_error_only_where_the_file_itself_is_not_locked() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("app.db");
        let owner = FileOwner::acquire(&database, Duration::ZERO).unwrap();
        std::fs::remove_file(beside(&database, "-lock")).unwrap();
        let Taken::Ours(theirs) = LockFile::take(&database, Duration::ZERO).unwrap() else {
            panic!("it was removed")
        };
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
