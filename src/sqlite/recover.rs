//! What is done to the file of the log beside SQLite: makes sure, before a database is used again, that the log it is read
//! from is on the disk, and cuts off what was rolled back where the volume has no room for it.
//!
//! After an fsync that failed, Linux takes the pages it could not write for clean: they can still be read, and no
//! later fsync writes them. A process that opens the database again would see those commits, add its own behind
//! them, and sync those; a power loss would then end the log at the first page that was lost, and everything
//! acknowledged since would be gone with it. So a log that is found is written again, as it reads, and synced.
//! (SQLite does not: its documents assume that an fsync can be tried again.)

use std::ffi::{c_int, c_void};
use std::ptr;

use rusqlite::{Connection, TransactionBehavior, ffi};

use super::file_control;
use crate::error::Error;

/// How much is read and written at a time: the most that SQLite itself ever does is a page. (Its unix VFS takes the
/// length modulo 128 KiB.)
const CHUNK_BYTES: usize = 64 << 10;

/// Writes the log again if there is one, and syncs it. Takes SQLite's write lock, so that nobody appends meanwhile.
pub(super) fn rewrite_log(connection: &Connection) -> Result<(), Error> {
    // Most have none: a database that was closed properly.
    if !has_log(connection)? {
        return Ok(());
    }
    let transaction = rusqlite::Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
    let bytes = with_log(connection, rewrite)?;
    transaction.rollback()?;
    tracing::info!(bytes, "a write-ahead log was found and has been written to the disk again");
    Ok(())
}

/// Bytes before the first frame of a log.
const LOG_HEADER_BYTES: u64 = 32;

/// Gives back to the volume what the log's file has beyond its committed frames: those of batches that were rolled back.
/// Takes SQLite's write lock, so that nobody appends meanwhile; without it, does nothing. Readers read no further.
pub(super) fn cut_log(connection: &Connection, frame_bytes: u64) -> Result<(), Error> {
    let version = || connection.query_row("PRAGMA data_version", [], |row| row.get::<_, i64>(0));
    let before = version()?;
    // IMPORTANT: what SQLite itself takes for committed. Does nothing but say so.
    let frames: i64 = connection.query_row("PRAGMA wal_checkpoint(NOOP)", [], |row| row.get(1))?;
    let Ok(transaction) = rusqlite::Transaction::new_unchecked(connection, TransactionBehavior::Immediate)
    else {
        return Ok(());
    };
    // Nobody else has committed since.
    if let Ok(frames @ 1..) = u64::try_from(frames)
        && version()? == before
    {
        let bytes = LOG_HEADER_BYTES + frames * frame_bytes;
        with_log(connection, |log| if log.size()? > bytes { log.truncate(bytes) } else { Ok(()) })?;
    }
    Ok(transaction.rollback()?)
}

/// Whether there is a log with anything in it.
pub(super) fn has_log(connection: &Connection) -> Result<bool, Error> {
    Ok(with_log(connection, |log| log.size())?.is_some_and(|size| size > 0))
}

fn rewrite(log: &Log) -> rusqlite::Result<u64> {
    let size = log.size()?;
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut at = 0;
    while at < size {
        let length = usize::try_from(size - at).map_or(CHUNK_BYTES, |rest| rest.min(CHUNK_BYTES));
        let chunk = &mut chunk[..length];
        log.read(chunk, at)?;
        log.write(chunk, at)?;
        at += length as u64;
    }
    log.sync()?;
    Ok(size)
}

/// SQLite's own file of the log: whatever VFS the database is on, this is where its pages come from.
struct Log {
    file: *mut ffi::sqlite3_file,
    methods: *const ffi::sqlite3_io_methods,
}

/// Lends the log of a database in WAL mode; `None` if SQLite has not opened one.
#[allow(unsafe_code)]
fn with_log<T>(
    connection: &Connection,
    with: impl FnOnce(&Log) -> rusqlite::Result<T>,
) -> rusqlite::Result<Option<T>> {
    let mut file: *mut ffi::sqlite3_file = ptr::null_mut();
    // SAFETY: this opcode stores one pointer to a file.
    let status = unsafe { file_control::call(connection, ffi::SQLITE_FCNTL_JOURNAL_POINTER, &mut file) };
    check(status)?;
    if file.is_null() {
        return Ok(None);
    }
    // SAFETY: SQLite gave a pointer to a file object of its own, which stays where it is for as long as the
    // connection keeps its log open: while it is borrowed here, nothing else is done with it. A file that is
    // not open has no methods.
    let methods = unsafe { (*file).pMethods };
    if methods.is_null() { Ok(None) } else { with(&Log { file, methods }).map(Some) }
}

fn check(status: c_int) -> rusqlite::Result<()> {
    file_control::check(status, "writing the write-ahead log again")
}

/// IMPORTANT: a `Log` does not outlive the closure of [`with_log`], which has the connection borrowed. SQLite's
/// contract for a VFS is that an open file has all the methods of version 1; a missing one is an error here.
#[allow(unsafe_code)]
impl Log {
    fn size(&self) -> rusqlite::Result<u64> {
        let mut size: ffi::sqlite3_int64 = 0;
        // SAFETY: see above; the size is stored through a pointer that lives until the call returns.
        let status = unsafe { (*self.methods).xFileSize.map(|call| call(self.file, &raw mut size)) };
        check(status.unwrap_or(ffi::SQLITE_MISUSE))?;
        Ok(u64::try_from(size).unwrap_or(0))
    }

    fn read(&self, into: &mut [u8], at: u64) -> rusqlite::Result<()> {
        let (pointer, length) = (into.as_mut_ptr().cast::<c_void>(), length_of(into)?);
        // SAFETY: see above; `length` bytes at `pointer` are borrowed for the call.
        let status =
            unsafe { (*self.methods).xRead.map(|call| call(self.file, pointer, length, at.cast_signed())) };
        check(status.unwrap_or(ffi::SQLITE_MISUSE))
    }

    fn write(&self, from: &[u8], at: u64) -> rusqlite::Result<()> {
        let (pointer, length) = (from.as_ptr().cast::<c_void>(), length_of(from)?);
        // SAFETY: see above; `length` bytes at `pointer` are borrowed for the call, which only reads them.
        let status =
            unsafe { (*self.methods).xWrite.map(|call| call(self.file, pointer, length, at.cast_signed())) };
        check(status.unwrap_or(ffi::SQLITE_MISUSE))
    }

    fn truncate(&self, to: u64) -> rusqlite::Result<()> {
        // SAFETY: see above.
        let status = unsafe { (*self.methods).xTruncate.map(|call| call(self.file, to.cast_signed())) };
        check(status.unwrap_or(ffi::SQLITE_MISUSE))
    }

    fn sync(&self) -> rusqlite::Result<()> {
        // SAFETY: see above.
        let status = unsafe { (*self.methods).xSync.map(|call| call(self.file, ffi::SQLITE_SYNC_FULL)) };
        check(status.unwrap_or(ffi::SQLITE_MISUSE))
    }
}

fn length_of(bytes: &[u8]) -> rusqlite::Result<c_int> {
    c_int::try_from(bytes.len()).map_err(|_too_long| rusqlite::Error::InvalidQuery)
}
