//! Room on the volume: what is committed must also fit into the database, or nothing ever gets out of the log again.
//!
//! The log and the database grow on one volume. A log that takes the last of it leaves no room for its own pages in the
//! database: they cannot be moved, the log cannot be started over, and every write fails for good, deletions too. So while
//! little is free:
//! - a batch that makes the database larger has the file made as large *before* it commits, so that a checkpoint only
//!   writes where there is room already (a copy-on-write file system may still want more);
//! - one that would leave less than [`RESERVE_BYTES`] is refused as a full disk is, and what shrinks or only changes still
//!   has a log to be written to;
//! - the log is kept to a quarter of what there is, and cut to nothing each time it has been moved.

use std::ffi::c_int;
use std::fs::File;
use std::sync::Arc;

use rusqlite::{Connection, ffi};

use super::file_control;
use super::held_file::HeldFile;
use crate::error::Error;

/// What is left for the log of batches that do not make the database larger.
const RESERVE_BYTES: u64 = 512 << 10;

/// The volume of one database.
#[derive(Debug)]
pub(super) struct Room {
    held: Arc<HeldFile>,
    page_bytes: u64,
    frame_bytes: u64,
    wal_bytes_max: u64,
    /// Free when it was last looked at.
    free: u64,
    /// Written to the log since.
    written: u64,
    /// How many pages the database may have; `None` while there is room enough not to ask.
    pages_max: Option<u64>,
}

impl Room {
    /// `None` where the system does not say what is free.
    pub(super) fn of(
        held: &Arc<HeldFile>,
        page_bytes: u64,
        frame_bytes: u64,
        wal_bytes_max: u64,
    ) -> Option<Self> {
        let held = Arc::clone(held);
        let free = free_bytes(held.file()?)?;
        let mut room =
            Self { held, page_bytes, frame_bytes, wal_bytes_max, free, written: 0, pages_max: None };
        room.look();
        Some(room)
    }

    /// Asks the volume. To be called now and then: others use it too.
    pub(super) fn look(&mut self) {
        self.written = 0;
        let file = self.held.file();
        // What cannot be asked any more is as it was.
        self.free = file.and_then(free_bytes).unwrap_or(self.free);
        let is_low = self.free < self.wal_bytes_max.saturating_mul(2).max(4 * RESERVE_BYTES);
        self.pages_max = file.and_then(|file| file.metadata().ok()).filter(|_| is_low).map(|metadata| {
            // A page more is a frame in the log, too.
            let more = self.free.saturating_sub(RESERVE_BYTES) / (self.page_bytes + self.frame_bytes);
            metadata.len() / self.page_bytes + more
        });
    }

    /// To be called before each batch.
    pub(super) fn begin(&mut self) {
        if self.is_low() {
            self.look();
        }
    }

    /// Makes the database file large enough for what is about to be committed on `connection`. An error says that
    /// there is no room, and nothing has happened.
    pub(super) fn reserve(&self, connection: &Connection) -> rusqlite::Result<()> {
        let Some(pages_max) = self.pages_max else { return Ok(()) };
        let pages = pages(connection)?;
        if pages > pages_max {
            return Err(full());
        }
        let bytes = pages.saturating_mul(self.page_bytes);
        let has = self.held.file().and_then(|file| file.metadata().ok()).map(|metadata| metadata.len());
        if has.is_some_and(|has| has < bytes) {
            // Whatever keeps it from growing, this batch is better not committed.
            grow(connection, self.page_bytes, bytes).map_err(|_failed| full())?;
        }
        Ok(())
    }

    /// After a commit that wrote so much to the log.
    pub(super) fn wrote(&mut self, bytes: u64) {
        self.written += bytes;
        if self.written >= self.free / 8 {
            self.look();
        }
    }

    pub(super) fn is_low(&self) -> bool {
        self.pages_max.is_some()
    }

    /// How large a log that takes `log_bytes` now may become before it is started over.
    pub(super) fn log_bytes_max(&self, log_bytes: u64) -> u64 {
        if self.is_low() {
            (self.free.saturating_add(log_bytes) / 4).min(self.wal_bytes_max)
        } else {
            self.wal_bytes_max
        }
    }
}

/// As the open transaction would leave it.
fn pages(connection: &Connection) -> rusqlite::Result<u64> {
    let pages: i64 = connection.prepare_cached("PRAGMA page_count")?.query_row([], |row| row.get(0))?;
    Ok(u64::try_from(pages).unwrap_or(0))
}

fn full() -> rusqlite::Error {
    let message = "the volume is nearly full: what is left is kept for the log of what needs no more room (delete something, \
                   or make room on the volume)";
    rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_FULL), Some(message.into()))
}

/// Has SQLite extend the database file, with blocks of the volume behind all of it.
#[allow(unsafe_code)]
fn grow(connection: &Connection, page_bytes: u64, bytes: u64) -> Result<(), Error> {
    let mut chunk = c_int::try_from(page_bytes).unwrap_or(4096);
    let mut size = bytes.cast_signed();
    // Only with a chunk size is a hint more than a hint. One of a page changes nothing else.
    // SAFETY: SQLITE_FCNTL_CHUNK_SIZE reads an `int`, and SQLITE_FCNTL_SIZE_HINT an `sqlite3_int64`.
    let status = unsafe {
        match file_control::call(connection, ffi::SQLITE_FCNTL_CHUNK_SIZE, &mut chunk) {
            ffi::SQLITE_OK => file_control::call(connection, ffi::SQLITE_FCNTL_SIZE_HINT, &mut size),
            failed => failed,
        }
    };
    match status {
        // A VFS that knows neither grows its file when it is written.
        ffi::SQLITE_OK | ffi::SQLITE_NOTFOUND => Ok(()),
        failed => Err(rusqlite::Error::SqliteFailure(ffi::Error::new(failed), None).into()),
    }
}

/// What somebody without privileges may still write on the volume of `file`.
#[cfg(unix)]
#[allow(unsafe_code)]
fn free_bytes(file: &File) -> Option<u64> {
    use std::os::fd::AsRawFd;
    let mut volume = std::mem::MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: the descriptor is open for as long as `file` is borrowed, and the structure is written through a pointer
    // that lives until the call returns; all zeros are a valid value of it, should the call fail.
    let (status, volume) =
        unsafe { (libc::fstatvfs(file.as_raw_fd(), volume.as_mut_ptr()), volume.assume_init()) };
    #[allow(clippy::useless_conversion)] // The widths differ between systems.
    (status == 0).then(|| u64::from(volume.f_bavail).saturating_mul(u64::from(volume.f_frsize)))
}

#[cfg(not(unix))]
fn free_bytes(_file: &File) -> Option<u64> {
    None
}
