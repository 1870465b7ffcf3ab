//! What this thread is in the middle of: a closure, or a read. Whoever waits there for the very engine it is inside
//! of would wait for ever, so those who are about to wait look here first.
//!
//! A database is known by its writer thread, of which each has one and no other has the same.

use std::cell::RefCell;
use std::thread::ThreadId;

use crate::error::Error;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In a closure, on the writer thread.
    Closure,
    /// In [`Writer::read`](super::Writer::read), on any thread.
    Read,
}

thread_local! {
    static INSIDE: RefCell<Vec<(Place, ThreadId)>> = const { RefCell::new(Vec::new()) };
}

/// Until it is dropped, also by a panic.
pub(super) struct Entered;

pub(super) fn enter(place: Place, writer: ThreadId) -> Entered {
    INSIDE.with_borrow_mut(|inside| inside.push((place, writer)));
    Entered
}

impl Drop for Entered {
    fn drop(&mut self) {
        INSIDE.with_borrow_mut(|inside| inside.pop());
    }
}

/// Whether this thread is in such a place of the database that is written by `writer`.
pub(super) fn is(place: Place, writer: ThreadId) -> bool {
    INSIDE.with_borrow(|inside| inside.contains(&(place, writer)))
}

pub(super) fn would_deadlock(what: &'static str, instead: &'static str) -> Error {
    Error::WouldDeadlock { what, instead }
}
