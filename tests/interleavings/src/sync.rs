//! What stands in for `src/sync.rs`: the same names, scheduled by the model checker.
//!
//! - threads, mutexes and atomics are shuttle's;
//! - tokio's semaphore and oneshot, and `OnceLock`, are the real ones. None of them ever blocks a thread (they
//!   wake futures), so a call is one step as far as their users can tell, and the checker may switch before it;
//! - crossbeam's channel blocks, so it is written anew on shuttle's mutex and condition variable. Its promises
//!   are kept, and no more than those: first in, first out; what is queued when the last receiver goes stays where
//!   it is until the last sender goes too (a bounded channel of crossbeam does not drop it before).
//!
//! A deadline of less than an hour may pass at any moment; a longer one never does. So a wake-up that is lost
//! shows as a deadlock and cannot be made up for by a timer.

use std::ops::Deref;

pub(crate) use shuttle::future::block_on;
pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicU64};
pub(crate) use tokio::sync::TryAcquireError;

pub(crate) mod thread {
    pub(crate) use shuttle::thread::{Builder, JoinHandle, ThreadId, current};
}

/// Lets the checker run somebody else first.
fn point() {
    // Not while a panic unwinds: the others would be taken to be panicking too.
    if !std::thread::panicking() {
        shuttle::thread::sleep(std::time::Duration::ZERO);
    }
}

/// parking_lot's mutex, which knows no poison.
#[derive(Debug)]
pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(shuttle::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> shuttle::sync::MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// The real type behind a point at which to switch.
macro_rules! preemptible {
    ($Name:ident $(<$T:ident>)? = $real:ty) => {
        #[derive(Debug)]
        pub(crate) struct $Name $(<$T>)? ($real);

        impl $(<$T>)? Deref for $Name $(<$T>)? {
            type Target = $real;

            fn deref(&self) -> &$real {
                point();
                &self.0
            }
        }
    };
}

preemptible! { Semaphore = tokio::sync::Semaphore }
preemptible! { OnceLock<T> = std::sync::OnceLock<T> }

impl Semaphore {
    pub(crate) const MAX_PERMITS: usize = tokio::sync::Semaphore::MAX_PERMITS;

    pub(crate) fn new(permits: usize) -> Self {
        Self(tokio::sync::Semaphore::new(permits))
    }
}

impl<T> OnceLock<T> {
    pub(crate) fn new() -> Self {
        Self(std::sync::OnceLock::new())
    }
}

pub(crate) mod oneshot {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use tokio::sync::oneshot as real;

    use super::point;

    #[derive(Debug)]
    pub(crate) struct Sender<T>(real::Sender<T>);

    #[derive(Debug)]
    pub(crate) struct Receiver<T>(real::Receiver<T>);

    pub(crate) fn channel<T>() -> (Sender<T>, Receiver<T>) {
        let (sender, receiver) = real::channel();
        (Sender(sender), Receiver(receiver))
    }

    impl<T> Sender<T> {
        pub(crate) fn send(self, value: T) -> Result<(), T> {
            point();
            self.0.send(value)
        }

        pub(crate) fn is_closed(&self) -> bool {
            point();
            self.0.is_closed()
        }
    }

    impl<T> Receiver<T> {
        pub(crate) fn is_empty(&self) -> bool {
            point();
            self.0.is_empty()
        }
    }

    impl<T> Future for Receiver<T> {
        type Output = Result<T, real::error::RecvError>;

        fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
            point();
            Pin::new(&mut self.0).poll(context)
        }
    }
}

pub(crate) mod channel {
    use std::collections::VecDeque;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use shuttle::rand::{Rng, thread_rng};
    use shuttle::sync::Condvar;

    use super::Mutex;

    const HOUR: Duration = Duration::from_secs(3600);

    struct Channel<T> {
        state: Mutex<State<T>>,
        arrived: Condvar,
        capacity: usize,
    }

    struct State<T> {
        queue: VecDeque<T>,
        senders: usize,
        receivers: usize,
    }

    pub(crate) struct Sender<T>(Arc<Channel<T>>);
    pub(crate) struct Receiver<T>(Arc<Channel<T>>);

    #[derive(Debug)]
    pub(crate) enum TrySendError<T> {
        Full(T),
        Disconnected(T),
    }

    #[derive(Debug)]
    pub(crate) struct SendError<T>(pub(crate) T);

    #[derive(Debug)]
    pub(crate) enum RecvTimeoutError {
        Timeout,
        Disconnected,
    }

    #[derive(Debug)]
    pub(crate) struct Gone;

    pub(crate) fn bounded<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
        let state = State { queue: VecDeque::new(), senders: 1, receivers: 1 };
        let channel = Arc::new(Channel { state: Mutex::new(state), arrived: Condvar::new(), capacity });
        (Sender(Arc::clone(&channel)), Receiver(channel))
    }

    impl<T> Sender<T> {
        /// IMPORTANT: the real one waits for room. That nobody ever has to is a promise of the buffer, so here
        /// it is a failure.
        pub(crate) fn send(&self, message: T) -> Result<(), SendError<T>> {
            match self.try_send(message) {
                Ok(()) => Ok(()),
                Err(TrySendError::Disconnected(message)) => Err(SendError(message)),
                Err(TrySendError::Full(_)) => panic!("a send had to wait for room in the channel"),
            }
        }

        pub(crate) fn try_send(&self, message: T) -> Result<(), TrySendError<T>> {
            let mut state = self.0.state.lock();
            if state.receivers == 0 {
                return Err(TrySendError::Disconnected(message));
            }
            if state.queue.len() == self.0.capacity {
                return Err(TrySendError::Full(message));
            }
            state.queue.push_back(message);
            drop(state);
            self.0.arrived.notify_one();
            Ok(())
        }
    }

    impl<T> Clone for Sender<T> {
        fn clone(&self) -> Self {
            self.0.state.lock().senders += 1;
            Self(Arc::clone(&self.0))
        }
    }

    impl<T> Drop for Sender<T> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                return;
            }
            self.0.state.lock().senders -= 1;
            self.0.arrived.notify_one();
        }
    }

    impl<T> Receiver<T> {
        /// `Ok(None)`: nothing yet.
        fn next(state: &mut State<T>) -> Result<Option<T>, Gone> {
            match state.queue.pop_front() {
                None if state.senders == 0 => Err(Gone),
                next => Ok(next),
            }
        }

        pub(crate) fn recv(&self) -> Result<T, Gone> {
            let mut state = self.0.state.lock();
            loop {
                if let Some(message) = Self::next(&mut state)? {
                    return Ok(message);
                }
                state = self.0.arrived.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner);
            }
        }

        pub(crate) fn try_recv(&self) -> Result<T, Gone> {
            Self::next(&mut self.0.state.lock())?.ok_or(Gone)
        }

        pub(crate) fn recv_deadline(&self, deadline: Instant) -> Result<T, RecvTimeoutError> {
            if deadline.saturating_duration_since(Instant::now()) > HOUR {
                return self.recv().map_err(|Gone| RecvTimeoutError::Disconnected);
            }
            loop {
                let next = Self::next(&mut self.0.state.lock());
                match next {
                    Ok(Some(message)) => return Ok(message),
                    Err(Gone) => return Err(RecvTimeoutError::Disconnected),
                    Ok(None) if thread_rng().r#gen::<bool>() => return Err(RecvTimeoutError::Timeout),
                    Ok(None) => shuttle::thread::yield_now(),
                }
            }
        }
    }

    impl<T> Clone for Receiver<T> {
        fn clone(&self) -> Self {
            self.0.state.lock().receivers += 1;
            Self(Arc::clone(&self.0))
        }
    }

    impl<T> Drop for Receiver<T> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                return;
            }
            self.0.state.lock().receivers -= 1;
        }
    }
}
