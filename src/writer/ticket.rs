//! The result of a submitted closure, when its batch is committed and, at `Full`, on the disk.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread::ThreadId;

use parking_lot::Mutex;

use super::inside;
use crate::buffer::Pending;
use crate::error::Error;
use crate::fork::Origin;
use crate::sync::block_on;

/// Resolves once: when the batch that holds the closure is committed and, at [`Durability::Full`](crate::Durability::Full),
/// on the disk; or with the error that kept it from being so. A future for any runtime, or [`Ticket::wait`]. Dropping it
/// does not cancel the write.
///
/// A closure must not wait for a ticket of the writer that runs it, whose next commit waits for the closure to end:
/// it would wait for ever, and is told [`Error::WouldDeadlock`] instead. It may hand the ticket on, to be awaited
/// elsewhere.
#[must_use = "a write that nobody waits for may fail without anybody knowing"]
#[derive(Debug)]
pub struct Ticket<T> {
    pending: Result<Pending<()>, Option<Error>>,
    value: Arc<Mutex<Option<T>>>,
    /// The thread that answers, and the process it is in.
    writer: ThreadId,
    origin: Origin,
}

impl<T> Ticket<T> {
    pub(super) fn new(
        submitted: Result<Pending<()>, Error>,
        value: Arc<Mutex<Option<T>>>,
        writer: ThreadId,
    ) -> Self {
        Self { pending: submitted.map_err(Some), value, writer, origin: Origin::here() }
    }

    /// Blocks the calling thread until the closure's batch is committed and, at
    /// [`Durability::Full`](crate::Durability::Full), on the disk.
    ///
    /// # Errors
    /// The closure's own error, and those of batches and engines (see [`Error`]). Only
    /// [`Error::OutcomeUnknown`] leaves open whether the write happened. [`Error::WouldDeadlock`] inside a closure of
    /// the same writer; the write goes on.
    pub fn wait(self) -> Result<T, Error> {
        block_on(self)
    }
}

impl<T> Future for Ticket<T> {
    type Output = Result<T, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.origin.check()?;
        let committed = match &mut self.pending {
            Ok(pending) => match Pin::new(pending).poll(cx) {
                Poll::Ready(answer) => answer,
                // Whoever polls here may be about to block the thread that answers.
                Poll::Pending if inside::is_writer_thread(self.writer) => {
                    return Poll::Ready(Err(inside::would_deadlock(
                        "waiting for a ticket inside a closure of the same writer",
                        "return from the closure and wait afterwards, or do the work in this transaction",
                    )));
                }
                Poll::Pending => return Poll::Pending,
            },
            Err(refused) => Err(refused.take().unwrap_or(Error::Closed)),
        };
        Poll::Ready(committed.and_then(|()| self.value.lock().take().ok_or(Error::Closed)))
    }
}
