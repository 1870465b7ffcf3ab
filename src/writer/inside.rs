//! What this thread is in the middle of: the work of a writer, or a read. Whoever waits there for the very engine it is
//! inside of would wait for ever, so those who are about to wait look here first.
//!
//! A database is known by its writer thread, of which each has one and no other has the same. Whatever runs on that
//! thread is inside: a closure, and the `Drop` of anything that a closure left behind.

use std::cell::RefCell;
use std::thread::{self, ThreadId};

use crate::error::Error;

thread_local! {
    /// The databases this thread is reading, one for each level of reads inside of reads.
    static READING: RefCell<Vec<ThreadId>> = const { RefCell::new(Vec::new()) };
}

/// Until it is dropped, also by a panic.
pub(super) struct Reading;

pub(super) fn enter_read(writer: ThreadId) -> Reading {
    READING.with_borrow_mut(|reading| reading.push(writer));
    Reading
}

impl Drop for Reading {
    fn drop(&mut self) {
        READING.with_borrow_mut(|reading| reading.pop());
    }
}

/// Whether this thread is inside [`Writer::read`](super::Writer::read) of the database that is written by `writer`.
pub(super) fn is_reading(writer: ThreadId) -> bool {
    READING.with_borrow(|reading| reading.contains(&writer))
}

/// Whether this thread is the one that writes the database.
pub(super) fn is_writer_thread(writer: ThreadId) -> bool {
    thread::current().id() == writer
}

pub(super) fn would_deadlock(what: &'static str, instead: &'static str) -> Error {
    Error::WouldDeadlock { what, instead }
}
