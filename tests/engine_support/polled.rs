//! A future polled by hand, to see when it is woken and to drop it at any await.

use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use forebay::Forebay;

use super::{PATIENCE, settle, started};

/// A future in the hands of the test.
pub(crate) struct Polled<'a, T> {
    future: Pin<Box<dyn Future<Output = T> + Send + 'a>>,
    wakes: Arc<Wakes>,
}

#[derive(Default)]
struct Wakes {
    count: Mutex<usize>,
    changed: Condvar,
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        *self.count.lock().expect("not poisoned") += 1;
        self.changed.notify_all();
    }
}

impl<'a, T> Polled<'a, T> {
    pub(crate) fn new(future: impl Future<Output = T> + Send + 'a) -> Self {
        Self { future: Box::pin(future), wakes: Arc::default() }
    }

    /// The answer, if it is there.
    pub(crate) fn poll(&mut self) -> Option<T> {
        let waker = Waker::from(Arc::clone(&self.wakes));
        match self.future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(answer) => Some(answer),
            Poll::Pending => None,
        }
    }

    /// Polls once and expects nothing yet.
    pub(crate) fn submitted(future: impl Future<Output = T> + Send + 'a) -> Self {
        let mut polled = Self::new(future);
        assert!(polled.poll().is_none(), "the future was ready at its first poll");
        polled
    }

    pub(crate) fn wakes(&self) -> usize {
        *self.wakes.count.lock().expect("not poisoned")
    }

    /// Blocks until the future has been woken `times` times since it was made.
    pub(crate) fn wait_for_wake(&self, times: usize) {
        assert!(self.is_woken_within(PATIENCE, times), "woken {} times, not {times}", self.wakes());
    }

    /// Blocks until the future has been woken `times` times since it was made, or the time is up.
    pub(crate) fn is_woken_within(&self, patience: Duration, times: usize) -> bool {
        let count = self.wakes.count.lock().expect("not poisoned");
        let waited = self.wakes.changed.wait_timeout_while(count, patience, |count| *count < times);
        let (count, _) = waited.expect("not poisoned");
        *count >= times
    }

    /// Polls whenever it is woken until the answer is there.
    pub(crate) fn finish(mut self) -> T {
        loop {
            let before = self.wakes();
            if let Some(answer) = self.poll() {
                return answer;
            }
            self.wait_for_wake(before + 1);
        }
    }
}

/// Holds the writer in the middle of a batch until it is released.
pub(crate) struct Hold {
    release: mpsc::Sender<()>,
    over: mpsc::Receiver<()>,
}

impl Hold {
    pub(crate) fn on(forebay: &Forebay) -> Self {
        let (release, released) = mpsc::channel();
        let (enter, entered) = mpsc::channel();
        let forebay = forebay.clone();
        let over = started(move || {
            let hold = move || {
                enter.send(()).expect("the test waits");
                released.recv().expect("the test releases");
            };
            forebay.on_writer_thread(hold).expect("the engine runs");
        });
        entered.recv_timeout(PATIENCE).expect("the writer is held");
        Self { release, over }
    }

    pub(crate) fn release(self) {
        self.release.send(()).expect("the writer waits");
        self.over.recv_timeout(PATIENCE).expect("it goes on");
    }
}

/// A future that has been submitted and answered, and does not know it yet. The writer is held until the first
/// poll is over, or it might be answered within.
pub(crate) async fn uncollected<'a, T>(
    forebay: &Forebay,
    future: impl Future<Output = T> + Send + 'a,
) -> Polled<'a, T> {
    let hold = Hold::on(forebay);
    let polled = Polled::submitted(future);
    hold.release();
    settle(forebay).await;
    polled
}
