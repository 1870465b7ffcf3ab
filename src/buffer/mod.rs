//! Group commit: many threads submit, one thread writes.
//!
//! ```text
//!   Buffer::submit ──► bounded channel ──► writer thread (cycle.rs)
//!        │                                  collect → apply → settle → commit → reply
//!        └── Pending ◄── Responder ◄────────────────────────────────────────────┘
//! ```
//!
//! This layer knows nothing of orchestrations or of SQL: it drives a [`Store`]. Two stores keep it honest,
//! the orchestration engine (`provider/`) and the embedder's [`Writer`](crate::Writer).
//!
//! Invariants:
//! - nobody is answered before the commit of their batch, and nobody who could show it to the outside before
//!   that is on the disk (horizon.rs);
//! - every submission is answered exactly once, whatever happens to the writer;
//! - what is in the buffer is bounded: a permit is held for every waiting operation, more for a large one.
//!
//! Rejected: one channel per caller (no arrival order across callers); `tokio::sync::mpsc` (its sync side
//! cannot wait until a deadline, and the writer has timers to keep).

#[cfg(all(feature = "test-hooks", feature = "duroxide"))]
pub(crate) mod by_hand;
mod cycle;
mod horizon;
mod reply;
mod shared;
mod stats;
mod store;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

pub(crate) use horizon::{CommitNo, Horizon};
pub(crate) use reply::{Pending, Replies, Responder, cause_of};
use shared::Shared;
pub(crate) use stats::Counters;
pub use stats::{Stats, Times};
pub(crate) use store::{CommitError, Store};

use crate::error::Error;
use crate::options::Options;
use crate::sync::channel::{Receiver, Sender, TrySendError, bounded};
use crate::sync::{Mutex, TryAcquireError, block_on, thread};

/// An operation takes one permit for every so many bytes it carries, so the buffer is bounded in bytes too.
const PERMIT_BYTES: usize = 4096;

/// Room in the channel for what needs no permit: one nudge, one close.
const CONTROL_MESSAGES: usize = 2;

pub(crate) enum Message<S: Store> {
    Submit(Submission<S>),
    /// Look at the store again: something changed beside the channel.
    Nudge,
    Close,
}

pub(crate) struct Submission<S: Store> {
    op: S::Op,
    bytes: usize,
    permits: usize,
    responder: Responder<S::Reply>,
    /// Held until it is begun.
    _waiting: stats::Waiting,
}

/// The submitting side. Cheap to clone; the writer thread ends with [`Buffer::close`].
pub(crate) struct Buffer<S: Store> {
    sender: Arc<Sender<Message<S>>>,
    /// The writer's end of the channel, for what arrives after the writer. See [`Buffer::send`].
    receiver: Receiver<Message<S>>,
    shared: Arc<Shared>,
    thread: Arc<Mutex<Option<thread::JoinHandle<()>>>>,
    writer: thread::ThreadId,
    permits_max: usize,
    horizon: Arc<Horizon>,
}

impl<S: Store> Clone for Buffer<S> {
    fn clone(&self) -> Self {
        Self {
            sender: Arc::clone(&self.sender),
            receiver: self.receiver.clone(),
            shared: Arc::clone(&self.shared),
            thread: Arc::clone(&self.thread),
            writer: self.writer,
            permits_max: self.permits_max,
            horizon: Arc::clone(&self.horizon),
        }
    }
}

/// What the writer thread is told once, when it starts.
pub(crate) struct Limits {
    pub(crate) batch_ops_max: usize,
    pub(crate) batch_bytes_max: usize,
    pub(crate) commit_delay: Duration,
}

impl<S: Store> Buffer<S> {
    /// Starts the writer thread over `store`. `name` is what debuggers and `top -H` show.
    pub(crate) fn start(
        name: &str,
        options: &Options,
        counters: Arc<Counters>,
        horizon: Arc<Horizon>,
        store: S,
    ) -> Result<Self, Error> {
        let permits_max = options.buffer_ops_max;
        let (sender, receiver) = bounded(permits_max + CONTROL_MESSAGES);
        let shared = Arc::new(Shared::new(permits_max, counters));
        let limits = Limits {
            batch_ops_max: options.batch_ops_max,
            batch_bytes_max: options.batch_bytes_max,
            commit_delay: options.commit_delay,
        };
        let writer =
            cycle::Writer::new(store, receiver.clone(), Arc::clone(&shared), Arc::clone(&horizon), limits);
        let thread = thread::Builder::new()
            .name(name.into())
            .spawn(move || writer.run())
            .map_err(|source| Error::io("starting the writer thread", source))?;
        let writer = thread.thread().id();
        let thread = Arc::new(Mutex::new(Some(thread)));
        let sender = Arc::new(sender);
        // IMPORTANT: not a handle, which would keep the writer from ending with the last one.
        let (to_writer, latch) = (Arc::downgrade(&sender), Arc::clone(&shared));
        horizon.on_failure(move |error| {
            latch.latch(error);
            if let Some(sender) = to_writer.upgrade() {
                nudge(&latch, &sender);
            }
        });
        Ok(Self { sender, receiver, shared, thread, writer, permits_max, horizon })
    }

    /// Submits, waiting without blocking the executor while the buffer is full. Dropping the future before
    /// it is ready submits nothing; dropping the [`Pending`] it gives cancels nothing.
    pub(crate) async fn submit(&self, op: S::Op, bytes: usize) -> Result<Pending<S::Reply>, Error> {
        let permits = self.permits_for(bytes);
        match self.shared.permits.try_acquire_many(permits) {
            Ok(permit) => permit.forget(),
            Err(TryAcquireError::Closed) => return Err(self.shared.refusal()),
            Err(TryAcquireError::NoPermits) => {
                let _timing = self.shared.counters.room_waits.start();
                match self.shared.permits.acquire_many(permits).await {
                    Ok(permit) => permit.forget(),
                    Err(_closed) => return Err(self.shared.refusal()),
                }
            }
        }
        Ok(self.send(op, bytes, permits))
    }

    /// Submits, blocking the calling thread while the buffer is full.
    pub(crate) fn submit_blocking(&self, op: S::Op, bytes: usize) -> Result<Pending<S::Reply>, Error> {
        block_on(self.submit(op, bytes))
    }

    /// Submits only if there is room right now.
    pub(crate) fn try_submit(&self, op: S::Op, bytes: usize) -> Result<Pending<S::Reply>, Error> {
        self.try_submit_made(op, bytes, |op| op).map_err(|(_op, error)| error)
    }

    /// Submits what is made of `parts`, or gives them back.
    pub(crate) fn try_submit_made<P>(
        &self,
        parts: P,
        bytes: usize,
        make: impl FnOnce(P) -> S::Op,
    ) -> Result<Pending<S::Reply>, (P, Error)> {
        let permits = self.permits_for(bytes);
        match self.shared.permits.try_acquire_many(permits) {
            Ok(permit) => permit.forget(),
            Err(TryAcquireError::Closed) => return Err((parts, self.shared.refusal())),
            Err(TryAcquireError::NoPermits) => return Err((parts, Error::Full)),
        }
        Ok(self.send(make(parts), bytes, permits))
    }

    fn send(&self, op: S::Op, bytes: usize, permits: u32) -> Pending<S::Reply> {
        let (responder, pending) = reply::pair(&self.shared);
        let waiting = Counters::wait(&self.shared.counters);
        let submission = Submission { op, bytes, permits: permits as usize, responder, _waiting: waiting };
        // The permit is the room: this never waits.
        let _ = self.sender.send(Message::Submit(submission));
        // IMPORTANT: between the permit and here the engine may have ended, and the writer has looked into the
        // channel for the last time. crossbeam keeps what is in a bounded channel until the last sender goes,
        // and this caller is one. So first send, then look: either the writer still sees it, or it is seen here.
        fence(Ordering::SeqCst);
        if self.shared.has_ended() {
            cycle::answer_stragglers(&self.receiver);
        }
        pending
    }

    /// No operation may take more permits than there are, or it would wait for ever.
    fn permits_for(&self, bytes: usize) -> u32 {
        let permits = (1 + bytes / PERMIT_BYTES).min(self.permits_max);
        u32::try_from(permits).unwrap_or(u32::MAX)
    }

    /// Makes the writer look at its store again. Never waits; many nudges count as one.
    pub(crate) fn nudge(&self) {
        nudge(&self.shared, &self.sender);
    }

    /// Completes what was submitted, then stops the writer and closes its store. Blocks until that is
    /// done, whoever asked first. A second close answers as the first did. On the writer's own thread, where a
    /// store may end up calling it, it cannot wait for itself: it is done after the operation that called it.
    pub(crate) fn close(&self) -> Result<(), Error> {
        if self.shared.begin_close() {
            let _ = self.sender.send(Message::Close);
        }
        // IMPORTANT: before the lock, which is held by whoever waits for this thread; and the handle stays for
        // those who come later.
        if thread::current().id() == self.writer {
            return Ok(());
        }
        let mut thread = self.thread.lock();
        if let Some(handle) = thread.take() {
            // The loop catches every panic of its store; there is nothing left to learn from the join.
            let _ = handle.join();
        }
        drop(thread);
        self.shared.closing_result()
    }

    /// The thread that writes: nobody may wait on it for what only it can do.
    pub(crate) fn writer_thread(&self) -> thread::ThreadId {
        self.writer
    }

    /// The failure that latched, or that the engine is closed; `None` while it takes work.
    pub(crate) fn refusal(&self) -> Option<Error> {
        self.shared.is_stopped().then(|| self.shared.refusal())
    }

    pub(crate) fn stats(&self) -> Stats {
        self.shared.counters.read(&self.horizon)
    }
}

fn nudge<S: Store>(shared: &Shared, writer: &Sender<Message<S>>) {
    if shared.arm_nudge()
        && let Err(TrySendError::Full(_)) = writer.try_send(Message::Nudge)
    {
        // As many messages wait as fit: the writer is about to look anyway.
        shared.disarm_nudge();
    }
}
