//! What `buffer/` waits with, in one place: `tests/interleavings` compiles the same `buffer/` against primitives
//! of a model checker instead, which decides who runs next.
//!
//! Names, but for [`block_on`] and [`block_on_until`]: nothing here may have a cost or a behaviour of its own.

use std::pin::pin;
use std::sync::Arc;
pub(crate) use std::sync::OnceLock;
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64};
use std::task::{Context, Poll, Wake, Waker};
pub(crate) use std::thread;
use std::time::Instant;

pub(crate) use crossbeam_channel as channel;
use parking_lot::Condvar;
pub(crate) use parking_lot::Mutex;
pub(crate) use tokio::sync::{Semaphore, TryAcquireError, oneshot};

/// As [`block_on`], until `deadline` at most; the future can be gone on with.
pub(crate) fn block_on_until<F: Future + Unpin>(future: &mut F, deadline: Instant) -> Option<F::Output> {
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let mut future = pin!(tokio::task::unconstrained(future));
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Some(output);
        }
        let mut is_woken = woken.is_woken.lock();
        while !std::mem::take(&mut *is_woken) {
            if woken.changed.wait_until(&mut is_woken, deadline).timed_out() {
                return None;
            }
        }
    }
}

#[derive(Default)]
struct Woken {
    is_woken: Mutex<bool>,
    changed: Condvar,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        *self.is_woken.lock() = true;
        self.changed.notify_one();
    }
}

/// Blocks the calling thread until the future is ready.
///
/// IMPORTANT: outside of tokio's budget. A task that has used its share is told "pending" by every channel of tokio's
/// until it yields, which a task that blocks its thread never does.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    pollster::block_on(tokio::task::unconstrained(future))
}
