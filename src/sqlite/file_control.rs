//! What SQLite lets be asked of the file behind a connection (`sqlite3_file_control`), and how its status becomes an error.

use std::ffi::c_int;
use std::ptr;

use rusqlite::{Connection, ffi};

/// Calls it for the main database; the status is SQLite's.
///
/// # Safety
/// `argument` must be of the type that the opcode reads or writes.
#[allow(unsafe_code)]
pub(super) unsafe fn call<T>(connection: &Connection, opcode: c_int, argument: &mut T) -> c_int {
    // SAFETY: the handle is valid for as long as the connection is borrowed, and used by this thread alone; the name is a C
    // string. The argument lives until the call returns, and no opcode used here keeps it; its type is the caller's promise.
    // rusqlite has no safe form of this call.
    unsafe {
        ffi::sqlite3_file_control(
            connection.handle(),
            c"main".as_ptr(),
            opcode,
            ptr::from_mut(argument).cast(),
        )
    }
}

/// SQLite's status as a result; `doing` goes into the error.
pub(super) fn check(status: c_int, doing: &str) -> rusqlite::Result<()> {
    match status {
        ffi::SQLITE_OK => Ok(()),
        failed => Err(rusqlite::Error::SqliteFailure(ffi::Error::new(failed), Some(doing.into()))),
    }
}
