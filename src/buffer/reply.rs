//! Answers: the two ends of one submission's reply, and the list a batch holds back until its commit.

use std::collections::BTreeMap;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::thread;

use super::horizon::{CommitNo, Horizon};
use super::shared::Shared;
use crate::error::{Cause, Error};
use crate::sync::oneshot;

/// The writer's end. Dropping it unanswered is itself an answer: the caller never hangs.
pub(crate) struct Responder<R> {
    sender: Option<oneshot::Sender<Result<R, Error>>>,
}

impl<R> Responder<R> {
    /// Answers. Gives the reply back if nobody is there to hear it.
    pub(crate) fn send(mut self, result: Result<R, Error>) -> Result<(), Option<R>> {
        match self.sender.take() {
            Some(sender) => sender.send(result).map_err(Result::ok),
            None => Ok(()),
        }
    }

    /// Whether the caller has dropped its end.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.sender.as_ref().is_none_or(oneshot::Sender::is_closed)
    }
}

impl<R> Drop for Responder<R> {
    fn drop(&mut self) {
        if let Some(sender) = self.sender.take() {
            // A panic that unwinds through the writer drops the responder of the operation it was in
            // before anything can latch; say so here rather than let the caller read "closed".
            let error = if thread::panicking() {
                Error::OutcomeUnknown { source: Arc::new(WriterPanicked) }
            } else {
                Error::Closed
            };
            let _ = sender.send(Err(error));
        }
    }
}

/// The caller's end, a future for any runtime. Dropping it cancels nothing.
#[derive(Debug)]
pub(crate) struct Pending<R> {
    receiver: oneshot::Receiver<Result<R, Error>>,
    shared: Arc<Shared>,
}

impl<R> Pending<R> {
    /// Whether it would be ready at once.
    pub(crate) fn is_answered(&self) -> bool {
        !self.receiver.is_empty()
    }
}

impl<R> Future for Pending<R> {
    type Output = Result<R, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = match ready!(Pin::new(&mut self.receiver).poll(cx)) {
            Ok(answer) => answer,
            Err(_gone) => Err(Error::Closed),
        };
        // "Closed" for a submission that crossed a failure on its way: name the failure instead.
        Poll::Ready(match answer {
            Err(Error::Closed) => Err(self.shared.refusal()),
            other => other,
        })
    }
}

pub(super) fn pair<R>(shared: &Arc<Shared>) -> (Responder<R>, Pending<R>) {
    let (sender, receiver) = oneshot::channel();
    (Responder { sender: Some(sender) }, Pending { receiver, shared: Arc::clone(shared) })
}

/// The answers of one batch, held back until its commit.
pub(crate) struct Replies<R> {
    held: Vec<Held<R>>,
}

struct Held<R> {
    responder: Responder<R>,
    result: Result<R, Error>,
    /// Whether the answer is true whatever becomes of the batch.
    stands: bool,
    /// The commit that has to be durable before anybody may hear it; one of the future stands for the last there is.
    after: CommitNo,
}

impl<R> Held<R> {
    /// The reply is dropped if its caller is gone. What is dropped may be a stranger's error, and what is woken a
    /// stranger's task: their panics end here.
    fn send(self, durable: Result<(), Error>) {
        let answer = || {
            let result = match durable {
                Ok(()) => self.result,
                Err(error) => Err(error),
            };
            let _ = self.responder.send(result);
        };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(answer)) {
            tracing::error!(
                "a panic while an answer was given: in the task that was woken, or in the drop of an error"
            );
            // Its own `Drop` may panic as well.
            std::mem::forget(panic);
        }
    }
}

impl<R> Replies<R> {
    pub(super) fn new() -> Self {
        Self { held: Vec::new() }
    }

    pub(crate) fn push(&mut self, responder: Responder<R>, result: Result<R, Error>) {
        self.push_after(0, responder, result);
    }

    /// An answer that nobody may hear before this commit is durable, which may be the one of the batch.
    pub(crate) fn push_after(&mut self, after: CommitNo, responder: Responder<R>, result: Result<R, Error>) {
        self.held.push(Held { responder, result, stands: false, after });
    }

    /// An answer of something that wrote nothing, and that is true also if the batch does not happen.
    pub(crate) fn push_standing(&mut self, responder: Responder<R>, result: Result<R, Error>) {
        self.push_standing_after(0, responder, result);
    }

    /// The two together.
    pub(crate) fn push_standing_after(
        &mut self,
        after: CommitNo,
        responder: Responder<R>,
        result: Result<R, Error>,
    ) {
        self.held.push(Held { responder, result, stands: true, after });
    }

    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    /// Answers everybody in order, each as soon as what it waits for is durable. `committed` is the last commit there is.
    pub(super) fn deliver(&mut self, horizon: &Horizon, committed: CommitNo)
    where
        R: Send + 'static,
    {
        let durable = horizon.durable();
        let mut later: BTreeMap<CommitNo, Vec<Held<R>>> = BTreeMap::new();
        for held in self.held.drain(..) {
            match held.after.min(committed) {
                after if after <= durable => held.send(Ok(())),
                after => later.entry(after).or_default().push(held),
            }
        }
        for (after, waiting) in later {
            horizon.when(after, move |outcome| {
                waiting.into_iter().for_each(|held| held.send(outcome.clone()));
            });
        }
    }

    /// Answers everybody with the same error, whatever their own result was going to be; those whose answer
    /// stands hear that, when it is time.
    pub(super) fn deliver_error(&mut self, error: &Error, horizon: &Horizon, committed: CommitNo)
    where
        R: Send + 'static,
    {
        let (standing, others) = self.held.drain(..).partition(|held| held.stands);
        self.held = standing;
        others.into_iter().for_each(|held: Held<R>| held.send(Err(error.clone())));
        self.deliver(horizon, committed);
    }
}

/// The cause behind an engine that failed because its writer thread panicked.
#[derive(Debug)]
pub(super) struct WriterPanicked;

impl std::fmt::Display for WriterPanicked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the writer thread panicked (this is a bug in forebay; the panic message is on stderr)")
    }
}

impl std::error::Error for WriterPanicked {}

/// The cause inside an error, for handing on in another one.
pub(crate) fn cause_of(error: &Error) -> Cause {
    match error {
        Error::OutcomeUnknown { source } | Error::Failed { source } | Error::RolledBack { source } => {
            Arc::clone(source)
        }
        other => Arc::new(other.clone()),
    }
}
