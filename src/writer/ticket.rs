//! The result of a submitted closure, when its batch is committed and, at `Full`, on the disk.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::inside;
use crate::buffer::Pending;
use crate::error::Error;
use crate::fork::Origin;
use crate::sync::{block_on, block_on_until};

/// Resolves once: when the batch that holds the closure is committed and, at [`Durability::Full`](crate::Durability::Full),
/// on the disk; or with the error that kept it from being so. A future for any runtime, or [`Ticket::wait`]. Dropping it
/// does not cancel the write.
///
/// `E` is the error it resolves with, forebay's own included: what the closure returns
/// ([`ClosureError::Returned`](crate::writer::ClosureError::Returned)).
///
/// A closure must not wait for a ticket of the writer that runs it, whose next commit waits for the closure to end:
/// it would wait for ever, and is told [`Error::WouldDeadlock`] instead. It may hand the ticket on, to be awaited
/// elsewhere.
#[must_use = "a write that nobody waits for may fail without anybody knowing"]
pub struct Ticket<T, E = Error> {
    /// What is waited for, or why nothing is; `Err(None)` once it has resolved.
    pending: Result<Pending<()>, Option<Error>>,
    result: Slot<T, E>,
    /// The thread that answers, and the process it is in.
    writer: ThreadId,
    origin: Origin,
}

/// Where a closure leaves what it returns.
pub(super) type Slot<T, E> = Arc<Mutex<Option<Result<T, E>>>>;

impl<T, E> Ticket<T, E> {
    pub(super) fn new(submitted: Result<Pending<()>, Error>, result: Slot<T, E>, writer: ThreadId) -> Self {
        Self { pending: submitted.map_err(Some), result, writer, origin: Origin::here() }
    }

    /// Whether it has resolved: awaiting it, or [`Self::wait`], would not have to wait. Never blocks.
    pub fn is_done(&self) -> bool {
        self.pending.as_ref().map_or(true, Pending::is_answered) || !self.origin.is_here()
    }
}

impl<T, E: From<Error>> Ticket<T, E> {
    /// Blocks the calling thread until the closure's batch is committed and, at
    /// [`Durability::Full`](crate::Durability::Full), on the disk.
    ///
    /// # Errors
    /// The closure's own error, and those of batches and engines (see [`Error`]). Only
    /// [`Error::OutcomeUnknown`] leaves open whether the write happened. [`Error::WouldDeadlock`] inside a closure of
    /// the same writer; the write goes on.
    pub fn wait(self) -> Result<T, E> {
        block_on(self)
    }

    /// As [`Self::wait`], for so long at most. `Err` is the ticket, if it has not resolved by then: nothing is lost, it can be
    /// waited for again. A timeout that is longer than the clock goes is none.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # fn main() -> Result<(), forebay::Error> {
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let writer = forebay::Writer::open(folder.path().join("app.db"))?;
    /// let mut ticket = writer.blocking_submit(|tx| tx.execute_batch("CREATE TABLE t (n INTEGER)"));
    /// let result = loop {
    ///     match ticket.wait_timeout(Duration::from_secs(1)) {
    ///         Ok(result) => break result,
    ///         Err(waiting) => ticket = waiting, // a moment to do something else
    ///     }
    /// };
    /// result
    /// # }
    /// ```
    ///
    /// # Errors
    /// The ticket. The result that it resolved with is inside of `Ok`.
    pub fn wait_timeout(mut self, timeout: Duration) -> Result<Result<T, E>, Self> {
        match Instant::now().checked_add(timeout) {
            Some(deadline) => block_on_until(&mut self, deadline).ok_or(self),
            None => Ok(self.wait()),
        }
    }
}

impl<T, E: From<Error>> Future for Ticket<T, E> {
    type Output = Result<T, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Err(forked) = self.origin.check() {
            return Poll::Ready(Err(forked.into()));
        }
        let committed = match &mut self.pending {
            Ok(pending) => match Pin::new(pending).poll(cx) {
                Poll::Ready(answer) => answer,
                // Whoever polls here may be about to block the thread that answers.
                Poll::Pending if inside::is_writer_thread(self.writer) => {
                    let error = inside::would_deadlock(
                        "waiting for a ticket inside a closure of the same writer",
                        "return from the closure and wait afterwards, or do the work in this transaction",
                    );
                    return Poll::Ready(Err(error.into()));
                }
                Poll::Pending => return Poll::Pending,
            },
            Err(refused) => {
                let again = || Error::invalid_input("this ticket has resolved before, and does so once");
                Err(refused.take().unwrap_or_else(again))
            }
        };
        self.pending = Err(None);
        Poll::Ready(match committed {
            Ok(()) => {
                let result = self.result.lock().take();
                result.unwrap_or_else(|| Err(Error::internal("a closure has left no result").into()))
            }
            Err(error) => Err(error.into()),
        })
    }
}

impl<T, E> fmt::Debug for Ticket<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").field("is_done", &self.is_done()).finish_non_exhaustive()
    }
}
