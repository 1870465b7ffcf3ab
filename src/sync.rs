//! What `buffer/` waits with, in one place: `tests/interleavings` compiles the same `buffer/` against primitives
//! of a model checker instead, which decides who runs next.
//!
//! Names, but for [`block_on`]: nothing here may have a cost or a behaviour of its own.

pub(crate) use std::sync::OnceLock;
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64};
pub(crate) use std::thread;

pub(crate) use crossbeam_channel as channel;
pub(crate) use parking_lot::Mutex;
pub(crate) use tokio::sync::{Semaphore, TryAcquireError, oneshot};

/// Blocks the calling thread until the future is ready.
///
/// IMPORTANT: outside of tokio's budget. A task that has used its share is told "pending" by every channel of tokio's
/// until it yields, which a task that blocks its thread never does.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    pollster::block_on(tokio::task::unconstrained(future))
}
