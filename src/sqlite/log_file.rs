//! A second handle of the log, for syncing it on another thread while the writer goes on writing it.
//!
//! It is opened through the VFS that the writing connection uses, whatever that is: what it syncs is what that
//! connection wrote. SQLite keeps no locks on a log (they are on the database and on `-shm`), so a handle more, and
//! the closing of one, disturb nothing.
//!
//! On Linux, where that VFS is SQLite's own for local files, every sync but the first is `fdatasync`, on a descriptor of
//! ours: SQLite as it is bundled calls `fsync`, which writes the time of the last change as well, and with it, on most file
//! systems, a transaction of the journal. What a log is read by (its bytes, its size, where they are) `fdatasync`
//! writes too (fdatasync(2)). The first sync is the VFS's, because it is one of the folder at the same time.

use std::ffi::{CStr, c_int};
use std::fs::File;
use std::ptr;

use rusqlite::{Connection, ffi};

use super::file_control;
use crate::error::Error;

/// See the module's documentation. IMPORTANT: to be dropped before the connection it was made from, which owns the file name.
pub(super) struct LogFile {
    /// What the VFS keeps of an open file, in memory that it asked for.
    file: Box<[u64]>,
    /// The same file, once its folder has been synced; `None` where the VFS is to do it.
    plain: Option<File>,
    is_folder_synced: bool,
}

// SAFETY: an open file of a VFS may be used by any thread, one at a time (sqlite3.h: the methods are called without a
// lock of SQLite's only for different files); this one is used by whoever has the `LogFile` alone.
#[allow(unsafe_code)]
unsafe impl Send for LogFile {}

#[allow(unsafe_code)]
impl LogFile {
    /// Opens the log of a database in WAL mode, making it if it is not there yet: then the first sync is also one of
    /// the folder, as it is for SQLite's own handle.
    pub(super) fn open(connection: &Connection) -> Result<Self, Error> {
        let mut vfs: *mut ffi::sqlite3_vfs = ptr::null_mut();
        // SAFETY: this opcode stores one pointer to a VFS.
        let status = unsafe { file_control::call(connection, ffi::SQLITE_FCNTL_VFS_POINTER, &mut vfs) };
        check(status)?;
        // SAFETY: the name belongs to the connection, and is one that `sqlite3_filename_wal` takes: it came from
        // `sqlite3_db_filename`. Both live as long as the connection.
        let name = unsafe {
            let database = ffi::sqlite3_db_filename(connection.handle(), c"main".as_ptr());
            if database.is_null() { ptr::null() } else { ffi::sqlite3_filename_wal(database) }
        };
        // SAFETY: a pointer that is not null is to a VFS that SQLite keeps registered while a connection uses it, and to
        // a C string.
        let (Some(methods), false) = (unsafe { vfs.as_ref() }, name.is_null()) else {
            return Err(unusable());
        };
        debug_assert!(unsafe { CStr::from_ptr(name) }.to_bytes().ends_with(b"-wal"));
        let words = usize::try_from(methods.szOsFile).map_err(|_negative| unusable())?.div_ceil(8);
        let mut file = vec![0_u64; words].into_boxed_slice();
        let flags = ffi::SQLITE_OPEN_READWRITE | ffi::SQLITE_OPEN_CREATE | ffi::SQLITE_OPEN_WAL;
        let open = methods.xOpen.ok_or_else(unusable)?;
        // SAFETY: `file` has as many bytes as the VFS asks for, aligned for any of its fields, all zero, and stays where it is
        // on the heap. The name lives until the file is closed (see the type).
        let status = unsafe { open(vfs, name, file.as_mut_ptr().cast(), flags, ptr::null_mut()) };
        // SQLite's own rule: a file that has methods is open, and is to be closed, whatever the status says.
        let mut opened = Self { file, plain: None, is_folder_synced: false };
        check(status)?;
        if opened.methods().is_none() {
            return Err(unusable());
        }
        // SAFETY: the name of a registered VFS is a C string that lives as long as it does; the other name as above.
        let (vfs, log) = unsafe { (CStr::from_ptr(methods.zName), CStr::from_ptr(name)) };
        opened.plain = plain(vfs, log);
        Ok(opened)
    }

    fn methods(&self) -> Option<&ffi::sqlite3_io_methods> {
        // SAFETY: every file of a VFS begins with the pointer to its methods, which is null while it is not open; they
        // live as long as the VFS.
        unsafe { (*self.file.as_ptr().cast::<ffi::sqlite3_file>()).pMethods.as_ref() }
    }

    /// Returns when everything that was written to the log before the call is on the disk.
    pub(super) fn sync(&mut self) -> Result<(), Error> {
        if self.is_folder_synced
            && let Some(plain) = &self.plain
        {
            return plain.sync_data().map_err(|source| Error::io(SYNCING, source));
        }
        let sync = self.methods().and_then(|methods| methods.xSync).ok_or_else(unusable)?;
        // SAFETY: the file is open, and nobody else uses it: it is borrowed mutably.
        check(unsafe { sync(self.file.as_mut_ptr().cast(), ffi::SQLITE_SYNC_NORMAL) })?;
        self.is_folder_synced = true;
        Ok(())
    }
}

/// What `sync` does, in the words of an error.
const SYNCING: &str = "syncing the write-ahead log";

/// A descriptor for `fdatasync`, where nothing stands between SQLite and the file.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn plain(vfs: &CStr, log: &CStr) -> Option<File> {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    // Whoever else is registered may do something at a sync; one that does not open is the VFS's to sync.
    (vfs == c"unix").then(|| File::open(OsStr::from_bytes(log.to_bytes())).ok()).flatten()
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn plain(_vfs: &CStr, _log: &CStr) -> Option<File> {
    None
}

#[allow(unsafe_code)]
impl Drop for LogFile {
    fn drop(&mut self) {
        if let Some(close) = self.methods().and_then(|methods| methods.xClose) {
            // SAFETY: the file is open, and closed once.
            unsafe { close(self.file.as_mut_ptr().cast()) };
        }
    }
}

fn check(status: c_int) -> Result<(), Error> {
    Ok(file_control::check(status, SYNCING)?)
}

fn unusable() -> Error {
    let doing = "the file system layer gives no handle of the write-ahead log";
    rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_MISUSE), Some(doing.into())).into()
}
