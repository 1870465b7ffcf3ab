//! A handle of the database file beside SQLite's own, kept for as long as the file is open: it tells which file that
//! is whatever becomes of its name, and carries locks that do not depend on a name either.
//!
//! IMPORTANT: closing *any* handle of a file drops every POSIX lock that this process has on it, and those are the ones
//! SQLite uses. So this handle is opened before SQLite's and closed after it (and later still if somebody else in this
//! process has the file open, see [`close`]). For the same reason a plain copy of the file within this process, which opens and
//! closes it, takes SQLite's locks away without SQLite's knowing; a shell that is the last to close would then think itself alone and
//! remove the log. On Linux two locks of this handle's own, which nobody else's closing drops, stand in for SQLite's
//! ("open file description locks", at the bytes where SQLite looks for its own):
//! the shared lock on the database, without which nobody else can remove the log or change the journal mode, and the
//! one on `-shm` that says that somebody has it mapped.

use std::collections::HashMap;
use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, OnceLock};

use parking_lot::Mutex;

use super::path::{beside, not_a_file};
use super::undo::Before;
use crate::error::Error;
use crate::fork::Origin;

/// Which file it is, whatever its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
}

/// The file and how many names it has; `None` where the system does not say.
#[cfg(unix)]
pub(super) fn id_and_links(metadata: &Metadata) -> Option<(FileId, u64)> {
    use std::os::unix::fs::MetadataExt;
    Some((FileId { device: metadata.dev(), inode: metadata.ino() }, metadata.nlink()))
}

#[cfg(not(unix))]
pub(super) fn id_and_links(_metadata: &Metadata) -> Option<(FileId, u64)> {
    None
}

/// The same for what a path names now.
pub(super) fn id_at(path: &Path) -> io::Result<Option<FileId>> {
    Ok(id_and_links(&fs::metadata(path)?).map(|(id, _links)| id))
}

/// The files this process has open, under which path, and since which fork.
static HELD: LazyLock<Mutex<HashMap<FileId, (PathBuf, Origin)>>> = LazyLock::new(Mutex::default);

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct HeldFile {
    path: PathBuf,
    id: Option<FileId>,
    /// `None` only while it is being dropped.
    file: Option<File>,
    is_locked: bool,
    before: Before,
    /// `-shm`, once SQLite has made it.
    shared_memory: OnceLock<File>,
}

impl HeldFile {
    /// Checks what is at the path, without opening or making anything: that it has one name, and is not open here
    /// under another one.
    pub(super) fn inspect(path: &Path) -> Result<(), Error> {
        let Ok(metadata) = fs::metadata(path) else { return Ok(()) };
        let Some((id, links)) = id_and_links(&metadata) else { return Ok(()) };
        if let Some((open, origin)) = HELD.lock().get(&id) {
            origin.check()?;
            if open != path {
                return Err(Error::OpenUnderAnotherName { path: path.into(), open: open.clone() });
            }
        }
        if links > 1 {
            return Err(Error::HardLinked { path: path.into(), links });
        }
        Ok(())
    }

    /// Opens the file at `path`, making it if it is missing, and takes the lock that says whose it is. `None` if
    /// another process has that.
    pub(super) fn open(path: &Path) -> Result<Option<Self>, Error> {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        #[cfg(unix)]
        {
            use std::os::unix::fs::OpenOptionsExt;
            // As SQLite makes its files.
            options.mode(0o644);
        }
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Error::ReadOnly { path: path.into() }
            }
            _ => Error::io(format!("opening {}", path.display()), error),
        };
        let (file, made) = match options.clone().create_new(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => (options.open(path), false),
            made => (made, true),
        };
        let file = file.map_err(failed)?;
        let looked = file.metadata().and_then(|found| Ok((found, Before::of(path, &file, made)?)));
        let (metadata, before) = match looked {
            Ok(looked) => looked,
            Err(error) => {
                close(file);
                return Err(failed(error));
            }
        };
        let identified = id_and_links(&metadata);
        let wrong = match identified {
            _ if !metadata.is_file() => Some(not_a_file(path, &metadata)),
            Some((_, links)) if links > 1 => Some(Error::HardLinked { path: path.into(), links }),
            Some((id, _)) => {
                let mut held = HELD.lock();
                let open = held.get(&id).map(|(open, _)| open.clone());
                if open.is_none() {
                    held.insert(id, (path.into(), Origin::here()));
                }
                open.map(|open| Error::OpenUnderAnotherName { path: path.into(), open })
            }
            None => None,
        };
        if let Some(error) = wrong {
            close(file);
            return Err(error);
        }
        let id = identified.map(|(id, _)| id);
        let shared_memory = OnceLock::new();
        let mut held =
            Self { path: path.into(), id, file: Some(file), is_locked: false, before, shared_memory };
        let Some(is_locked) = held.lock_for_this_process() else { return Ok(None) };
        held.is_locked = is_locked;
        Ok(Some(held))
    }

    /// The handle. IMPORTANT: not to be duplicated, as closing the duplicate drops SQLite's locks.
    pub(super) fn file(&self) -> Option<&File> {
        self.file.as_ref()
    }

    /// By the file itself, so that a second name of it, or a `-lock` that was removed, lets nobody in. On Linux alone:
    /// elsewhere such a lock and SQLite's are of one kind, and would exclude each other. Gives whether it is held;
    /// `None` if another process holds it.
    fn lock_for_this_process(&self) -> Option<bool> {
        if !cfg!(any(target_os = "linux", target_os = "android")) {
            return Some(false);
        }
        match self.file.as_ref().map(File::try_lock) {
            Some(Err(TryLockError::WouldBlock)) => None,
            Some(Err(TryLockError::Error(error))) => {
                tracing::debug!(%error, path = %self.path.display(), "this file system has no such locks");
                Some(false)
            }
            Some(Ok(())) => Some(true),
            None => Some(false),
        }
    }

    /// Whether the file itself is locked for this process, so that nobody else gets in whatever becomes of `-lock`.
    pub(super) fn is_locked(&self) -> bool {
        self.is_locked
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn id(&self) -> Option<FileId> {
        self.id
    }

    /// How many names the file has now: 0 once it was removed. `None` where the system does not say.
    pub(super) fn links(&self) -> Option<u64> {
        links_of(self.file.as_ref()?)
    }

    /// Whether the `-shm` that SQLite has open was removed, or replaced.
    pub(super) fn shared_memory_is_gone(&self) -> bool {
        self.shared_memory.get().is_some_and(|file| links_of(file) == Some(0))
    }

    /// Puts the files back as they were before they were opened: see undo.rs.
    pub(super) fn undo(&self) {
        self.before.restore(self);
    }

    /// Keeps everybody who uses SQLite out of the database, if nobody is in it. `None` where that cannot be done.
    pub(super) fn exclude_everybody(&self) -> Option<io::Result<Excluded<'_>>> {
        let file = self.file.as_ref().filter(|_| cfg!(any(target_os = "linux", target_os = "android")))?;
        Some(open_file_lock(file, LockKind::Exclusive, ALL_LOCKS).map(|()| Excluded(file)))
    }

    /// Takes the locks that stand in for SQLite's, once SQLite has its own. Where they cannot be had everything
    /// works without.
    pub(super) fn stand_in(self: &Arc<Self>) -> StandIn {
        let path = beside(&self.path, "-shm");
        if self.shared_memory.get().is_none()
            && let Ok(file) = File::open(path)
        {
            let _ = self.shared_memory.set(file);
        }
        for (file, range) in self.stood_in_for() {
            if let Err(error) = open_file_lock(file, LockKind::Shared, range) {
                tracing::debug!(%error, path = %self.path.display(), "no lock beside SQLite's own");
            }
        }
        StandIn { held: Arc::clone(self) }
    }

    fn stood_in_for(&self) -> impl Iterator<Item = (&File, (i64, i64))> {
        let database = self.file.iter().map(|file| (file, SHARED_LOCK));
        database.chain(self.shared_memory.get().map(|file| (file, SHARED_MEMORY_IN_USE)))
    }
}

impl Drop for HeldFile {
    fn drop(&mut self) {
        if let Some(file) = self.file.take() {
            // A process that is just being started holds a copy of the handle, and the lock with it.
            let _ = file.unlock();
            // IMPORTANT: before it is closed: if it has no name any more, its number is the next file's from then on.
            if let Some(id) = self.id {
                HELD.lock().remove(&id);
            }
            close(file);
        }
        if let Some(file) = self.shared_memory.take() {
            close(file);
        }
    }
}

/// The locks of [`HeldFile::stand_in`]. IMPORTANT: dropped before the connection that writes, which needs the database
/// for itself to remove its log when it closes.
#[derive(Debug)]
pub(super) struct StandIn {
    held: Arc<HeldFile>,
}

impl Drop for StandIn {
    fn drop(&mut self) {
        for (file, range) in self.held.stood_in_for() {
            let _ = open_file_lock(file, LockKind::None, range);
        }
    }
}

/// Nobody uses the database while this lives.
pub(super) struct Excluded<'a>(&'a File);

impl Drop for Excluded<'_> {
    fn drop(&mut self) {
        let _ = open_file_lock(self.0, LockKind::None, ALL_LOCKS);
    }
}

pub(super) fn links_of(file: &File) -> Option<u64> {
    id_and_links(&file.metadata().ok()?).map(|(_id, links)| links)
}

/// Where SQLite's unix VFS has its shared lock on a database: start and length (`SHARED_FIRST`, `SHARED_SIZE`; part of
/// the file format).
const SHARED_LOCK: (i64, i64) = (0x4000_0002, 510);

/// Where all its locks on a database are (from `PENDING_BYTE` on).
const ALL_LOCKS: (i64, i64) = (0x4000_0000, 512);

/// Where it says that somebody has `-shm` mapped (`UNIX_SHM_DMS`).
const SHARED_MEMORY_IN_USE: (i64, i64) = (128, 1);

enum LockKind {
    Shared,
    Exclusive,
    None,
}

#[cfg(any(target_os = "linux", target_os = "android"))]
#[allow(unsafe_code)]
fn open_file_lock(file: &File, kind: LockKind, (start, length): (i64, i64)) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let kind = match kind {
        LockKind::Shared => libc::F_RDLCK,
        LockKind::Exclusive => libc::F_WRLCK,
        LockKind::None => libc::F_UNLCK,
    };
    fn too_large<E>(_error: E) -> io::Error {
        io::Error::from(io::ErrorKind::Unsupported)
    }
    // SAFETY: a plain C structure of integers, for which all zeroes is a value.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::c_short::try_from(kind).map_err(too_large)?;
    lock.l_whence = libc::c_short::try_from(libc::SEEK_SET).map_err(too_large)?;
    lock.l_start = libc::off_t::try_from(start).map_err(too_large)?;
    lock.l_len = libc::off_t::try_from(length).map_err(too_large)?;
    // SAFETY: the descriptor is open for as long as `file` is borrowed; the call reads one structure through the
    // pointer, which lives until it returns.
    let status = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn open_file_lock(_file: &File, _kind: LockKind, _range: (i64, i64)) -> io::Result<()> {
    Ok(())
}

/// Handles that could not be closed yet.
static LEFT_OPEN: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// Closes a handle of a database file, unless somebody else in this process has the file open: SQLite's locks of a connection of
/// the embedder's own would go with it. Then it stays open until the next one is closed that finds the file unused.
fn close(file: File) {
    let mut left_open = LEFT_OPEN.lock();
    left_open.push(file);
    let ours = |file: &File| id_and_links(&file.metadata().ok()?).map(|(id, _links)| id);
    let open = open_files();
    let kept: Vec<_> = left_open.iter().map(ours).collect();
    let mut at = 0;
    left_open.retain(|_file| {
        let id = kept[at];
        at += 1;
        let Some(id) = id else { return false };
        let handles = open.iter().filter(|open| **open == id).count();
        handles > kept.iter().filter(|kept| **kept == Some(id)).count()
    });
}

/// What every handle of this process names; nothing where the system does not say.
fn open_files() -> Vec<FileId> {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return Vec::new() };
    entries.flatten().filter_map(|entry| id_at(&entry.path()).ok().flatten()).collect()
}
