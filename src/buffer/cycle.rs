//! The writer thread: collect → tick → prepare → apply → settle → commit → reply, for ever.
//!
//! Two triggers end a batch (operations, bytes), one optional delay holds it open, and there is one commit
//! point and one reply point: there an answer is given, or left to whoever makes what it waits for durable
//! (horizon.rs). It waits by deadline, never by sleeping and looking.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use super::horizon::Horizon;
use super::reply::{Replies, WriterPanicked, cause_of};
use super::shared::Shared;
use super::stats::Counters;
use super::store::{CommitError, Store};
use super::{Limits, Message, Submission};
use crate::error::Error;
use crate::sync::channel::{Receiver, RecvTimeoutError};

pub(super) struct Writer<S: Store> {
    store: S,
    receiver: Receiver<Message<S>>,
    shared: Arc<Shared>,
    limits: Limits,
    batch: Vec<Submission<S>>,
    /// Whether what is in the batch is to be alone in it.
    is_alone: bool,
    /// What is to be alone in the next one.
    next_alone: Option<Submission<S>>,
    /// Whether the channel has been found empty since the close.
    is_drained: bool,
    horizon: Arc<Horizon>,
    replies: Replies<S::Reply>,
    closing: bool,
    /// Until when batches that are rolled back are not warned of, and how many were not.
    quiet_until: Option<Instant>,
    unlogged: u64,
}

/// How often a batch that was rolled back is warned of.
const WARN_EVERY: Duration = Duration::from_secs(1);

impl<S: Store> Writer<S> {
    pub(super) fn new(
        store: S,
        receiver: Receiver<Message<S>>,
        shared: Arc<Shared>,
        horizon: Arc<Horizon>,
        limits: Limits,
    ) -> Self {
        Self {
            store,
            receiver,
            shared,
            limits,
            batch: Vec::new(),
            is_alone: false,
            next_alone: None,
            is_drained: false,
            horizon,
            replies: Replies::new(),
            closing: false,
            quiet_until: None,
            unlogged: 0,
        }
    }

    pub(super) fn run(mut self) {
        let failure = loop {
            match catch_unwind(AssertUnwindSafe(|| self.cycle())) {
                Ok(Ok(true)) => {}
                Ok(Ok(false)) => break None,
                Ok(Err(error)) => break Some(error),
                Err(_panic) => break Some(Error::OutcomeUnknown { source: Arc::new(WriterPanicked) }),
            }
        };
        match failure {
            None => self.close(),
            Some(error) => self.fail(error),
        }
    }

    /// One batch. `Ok(false)` when everything submitted before the close is done; an error latches.
    fn cycle(&mut self) -> Result<bool, Error> {
        self.collect();
        self.count();
        self.store.tick(&mut self.replies);
        self.answer_at_once()?;
        self.commit()?;
        self.store.maintain()?;
        Ok(!self.is_drained)
    }

    /// Answers what needs no commit, so that it neither waits for one nor shares its fate.
    fn answer_at_once(&mut self) -> Result<(), Error> {
        let needs_no_commit = |submission: &mut Submission<S>| self.store.needs_no_commit(&submission.op);
        let at_once: Vec<_> = self.batch.extract_if(.., needs_no_commit).collect();
        let applied = Self::apply(&mut self.store, at_once.into_iter(), &mut self.replies);
        self.deliver();
        applied
    }

    /// From operations to answers.
    fn commit(&mut self) -> Result<(), Error> {
        self.store.prepare(self.batch.iter().map(|submission| &submission.op));
        let applied = Self::apply(&mut self.store, self.batch.drain(..), &mut self.replies)
            .and_then(|()| self.store.settle(&mut self.replies));
        let committed = match applied {
            Ok(()) => self.shared.counters.time_commit(|| self.store.commit()),
            Err(error) => Err(CommitError::RolledBack(error)),
        };
        match committed {
            Ok(()) => self.deliver(),
            Err(CommitError::RolledBack(error)) => self.roll_back(error)?,
            Err(CommitError::Unknown(error)) => return Err(error),
        }
        Ok(())
    }

    /// Blocks for the first submission or the store's next deadline, then takes what is there.
    ///
    /// IMPORTANT: the store looks at its clock before the channel is emptied, so that what it takes to be over
    /// cannot be something whose renewal arrived in time and was still in the channel. It looks at everything else
    /// afterwards: a nudge that is taken here is not looked for again.
    fn collect(&mut self) {
        let mut bytes = 0;
        self.is_alone = false;
        match self.next_alone.take() {
            Some(submission) => self.push(submission, &mut bytes),
            None if self.closing => {}
            None => self.wait(&mut bytes),
        }
        let delay = self.limits.commit_delay;
        let hold = (!delay.is_zero() && !self.batch.is_empty()).then(|| Instant::now() + delay);
        if let Some(until) = hold {
            while !self.closing
                && !self.is_full(bytes)
                && let Ok(message) = self.receiver.recv_deadline(until)
            {
                self.take(message, &mut bytes);
            }
        }
        self.store.note_time();
        // Submitted before the close means done before the close: the batch limits give way.
        while !self.is_cut() && (self.closing || !self.is_full(bytes)) {
            match self.receiver.try_recv() {
                Ok(message) => self.take(message, &mut bytes),
                Err(_empty) => {
                    self.is_drained = self.closing;
                    break;
                }
            }
        }
        if self.is_cut() || (!self.closing && self.is_full(bytes)) {
            self.store.left_some_waiting();
        }
        let permits = self.batch.iter().map(|submission| submission.permits).sum();
        self.shared.permits.add_permits(permits);
    }

    fn wait(&mut self, bytes: &mut usize) {
        let first = match self.store.wait() {
            None => self.receiver.recv().map_err(|_gone| RecvTimeoutError::Disconnected),
            Some(wait) => match Instant::now().checked_add(wait) {
                Some(deadline) => self.receiver.recv_deadline(deadline),
                None => self.receiver.recv().map_err(|_gone| RecvTimeoutError::Disconnected),
            },
        };
        match first {
            Ok(message) => self.take(message, bytes),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => self.closing = true,
        }
    }

    fn take(&mut self, message: Message<S>, bytes: &mut usize) {
        match message {
            Message::Submit(submission) => {
                if !self.batch.is_empty() && self.store.goes_alone(&submission.op) {
                    self.next_alone = Some(submission);
                } else {
                    self.push(submission, bytes);
                }
            }
            Message::Nudge => self.shared.disarm_nudge(),
            Message::Close => self.closing = true,
        }
    }

    fn push(&mut self, submission: Submission<S>, bytes: &mut usize) {
        *bytes += submission.bytes;
        self.is_alone = self.store.goes_alone(&submission.op);
        self.batch.push(submission);
    }

    /// Whether the batch ends here, because an operation is to be alone, in it or in the next one.
    fn is_cut(&self) -> bool {
        self.is_alone || self.next_alone.is_some()
    }

    fn is_full(&self, bytes: usize) -> bool {
        self.is_cut() || self.batch.len() >= self.limits.batch_ops_max || bytes >= self.limits.batch_bytes_max
    }

    fn count(&self) {
        if !self.batch.is_empty() {
            Counters::add(&self.shared.counters.batches, 1);
            Counters::add(&self.shared.counters.operations, self.batch.len() as u64);
        }
    }

    fn deliver(&mut self) {
        self.replies.deliver(&self.horizon, self.store.last_commit());
    }

    fn apply(
        store: &mut S,
        batch: impl Iterator<Item = Submission<S>>,
        replies: &mut Replies<S::Reply>,
    ) -> Result<(), Error> {
        // Those behind the one that stops the batch are applied too: they may have an answer of their own.
        let mut result = Ok(());
        for submission in batch {
            let applied = store.apply(submission.op, submission.responder, replies);
            result = result.and(applied);
        }
        result
    }

    /// Certain that nothing happened: say so to everyone in the batch, and go on if the store can.
    fn roll_back(&mut self, error: Error) -> Result<(), Error> {
        let cannot_go_on = match self.store.rollback() {
            Ok(()) => None,
            Err(CommitError::RolledBack(error)) => Some(error),
            Err(CommitError::Unknown(error)) => return Err(error),
        };
        Counters::add(&self.shared.counters.rolled_back, 1);
        let error = Error::RolledBack { source: cause_of(&error) };
        self.log_rolled_back(&error);
        self.replies.deliver_error(&error, &self.horizon, self.store.last_commit());
        cannot_go_on.map_or(Ok(()), Err)
    }

    /// A warning a second at most: whoever tries again at once would fill the log.
    fn log_rolled_back(&mut self, error: &Error) {
        let now = Instant::now();
        let operations = self.replies.len();
        if self.quiet_until.is_some_and(|until| now < until) {
            self.unlogged += 1;
            tracing::debug!(error = format_args!("{error:#}"), operations, "batch rolled back");
            return;
        }
        let unlogged = std::mem::take(&mut self.unlogged);
        self.quiet_until = now.checked_add(WARN_EVERY);
        tracing::warn!(error = format_args!("{error:#}"), operations, unlogged, "batch rolled back");
    }

    fn close(mut self) {
        self.store.abandon(&Error::Closed);
        let result = catch_unwind(AssertUnwindSafe(|| self.store.close()))
            .unwrap_or_else(|_panic| Err(Error::OutcomeUnknown { source: Arc::new(WriterPanicked) }));
        if let Err(error) = &result {
            tracing::error!(error = format_args!("{error:#}"), "closing the store failed");
            // What failed may have been an fsync: dropping the store must not try it again.
            let _ = catch_unwind(AssertUnwindSafe(|| self.store.let_go()));
        }
        self.end(result);
    }

    /// Latches first, so that nobody can be told "closed" for what was a failure; then answers everyone.
    fn fail(mut self, error: Error) {
        tracing::error!(
            error = format_args!("{error:#}"),
            "the engine has failed and refuses all further work until it is reopened"
        );
        self.shared.latch(&error);
        let unknown = Error::OutcomeUnknown { source: cause_of(&error) };
        self.replies.deliver_error(&unknown, &self.horizon, self.store.last_commit());
        for submission in std::mem::take(&mut self.batch).into_iter().chain(self.next_alone.take()) {
            let _ = submission.responder.send(Err(unknown.clone()));
        }
        let failed = self.shared.refusal();
        // The store may be what panicked: nothing it does from here on may take the thread down.
        let _ = catch_unwind(AssertUnwindSafe(|| self.store.abandon(&failed)));
        let _ = catch_unwind(AssertUnwindSafe(|| self.store.let_go()));
        // What was committed before and is not on the disk by now may or may not get there.
        self.horizon.fail(&unknown);
        self.end(Err(failed));
    }

    /// IMPORTANT: first says that it has ended, then looks for the last time: see [`Buffer::send`](super::Buffer).
    fn end(&self, result: Result<(), Error>) {
        // Closing has made everything durable that there was; nobody waits for more.
        self.horizon.fail(&self.shared.refusal());
        self.shared.set_closed(result);
        fence(Ordering::SeqCst);
        answer_stragglers(&self.receiver);
    }
}

/// Those that crossed the end of the engine on their way in: the responder of each answers when it is dropped.
pub(super) fn answer_stragglers<S: Store>(receiver: &Receiver<Message<S>>) {
    while receiver.try_recv().is_ok() {}
}
