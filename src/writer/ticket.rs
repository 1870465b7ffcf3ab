//! The result of a submitted closure, when its batch is committed.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;

use crate::buffer::Pending;
use crate::error::Error;
use crate::fork::Origin;

/// Resolves once, when the batch that holds the closure is committed, or with the error that kept it from
/// being so. A future for any runtime, or [`Ticket::wait`]. Dropping it does not cancel the write.
#[must_use = "a write that nobody waits for may fail without anybody knowing"]
#[derive(Debug)]
pub struct Ticket<T> {
    pending: Result<Pending<()>, Option<Error>>,
    value: Arc<Mutex<Option<T>>>,
    /// Nobody would answer anywhere else.
    origin: Origin,
}

impl<T> Ticket<T> {
    pub(super) fn new(submitted: Result<Pending<()>, Error>, value: Arc<Mutex<Option<T>>>) -> Self {
        Self { pending: submitted.map_err(Some), value, origin: Origin::here() }
    }

    /// Blocks the calling thread until the closure's batch is committed.
    ///
    /// # Errors
    /// The closure's own error, and those of batches and engines (see [`Error`]). Only
    /// [`Error::OutcomeUnknown`] leaves open whether the write happened.
    pub fn wait(self) -> Result<T, Error> {
        pollster::block_on(self)
    }
}

impl<T> Future for Ticket<T> {
    type Output = Result<T, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.origin.check()?;
        let committed = match &mut self.pending {
            Ok(pending) => ready!(Pin::new(pending).poll(cx)),
            Err(refused) => Err(refused.take().unwrap_or(Error::Closed)),
        };
        Poll::Ready(committed.and_then(|()| self.value.lock().take().ok_or(Error::Closed)))
    }
}
