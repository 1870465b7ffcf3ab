//! Up to which commit everything is on the disk, and who waits to be told so.
//!
//! Commits are numbered in their order. Whoever may be seen from outside waits here for the number of the last commit
//! that they depend on; the log is recovered as a prefix, so a number that is durable has everything before it
//! durable too.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use super::stats::Timer;
use crate::error::Error;
use crate::sync::{AtomicU64, Mutex, OnceLock, oneshot};

/// The number of a commit; 0 is everything that was there when the database was opened.
pub(crate) type CommitNo = u64;

/// Hears when its number is durable, or why it never will be.
type Waiter = Box<dyn FnOnce(Result<(), Error>) + Send>;

/// See [`Horizon::on_failure`].
type Alarm = Box<dyn Fn(&Error) + Send + Sync>;

/// See [`Horizon::on_wait`].
type Hurry = Box<dyn Fn() + Send + Sync>;

/// See the module's documentation. Its methods may be called from any thread, and run waiters on it.
pub(crate) struct Horizon {
    durable: AtomicU64,
    /// The last number whose commit may be visible to readers.
    announced: AtomicU64,
    waiting: Mutex<Waiting>,
    alarm: OnceLock<Alarm>,
    hurry: OnceLock<Hurry>,
    /// How long each sync took.
    pub(crate) sync_times: Timer,
}

#[derive(Default)]
struct Waiting {
    waiters: BTreeMap<CommitNo, Vec<Waiter>>,
    failure: Option<Error>,
}

impl Default for Horizon {
    fn default() -> Self {
        Self {
            durable: AtomicU64::new(0),
            announced: AtomicU64::new(0),
            waiting: Mutex::new(Waiting::default()),
            alarm: OnceLock::new(),
            hurry: OnceLock::new(),
            sync_times: Timer::default(),
        }
    }
}

impl Horizon {
    /// Everything up to here is on the disk.
    pub(crate) fn durable(&self) -> CommitNo {
        self.durable.load(Ordering::Acquire)
    }

    /// To be called before the commit of this number begins: a reader that sees any of it must find the number.
    pub(crate) fn announce(&self, no: CommitNo) {
        self.announced.store(no, Ordering::SeqCst);
    }

    /// What a reader that has just read anything at all has to wait for.
    pub(crate) fn announced(&self) -> CommitNo {
        self.announced.load(Ordering::SeqCst)
    }

    /// Everything up to `no` is on the disk now; tells who waited for it.
    pub(crate) fn reach(&self, no: CommitNo) {
        let mut waiting = self.waiting.lock();
        if waiting.failure.is_some() {
            return;
        }
        // Under the lock: who has looked before waits in there by now.
        self.durable.fetch_max(no, Ordering::AcqRel);
        let later = waiting.waiters.split_off(&no.saturating_add(1));
        let reached = std::mem::replace(&mut waiting.waiters, later);
        drop(waiting);
        for waiter in reached.into_values().flatten() {
            waiter(Ok(()));
        }
    }

    /// Nothing more will ever be durable. The first reason stays.
    pub(crate) fn fail(&self, error: &Error) {
        let mut waiting = self.waiting.lock();
        waiting.failure.get_or_insert_with(|| error.clone());
        let waiters = std::mem::take(&mut waiting.waiters);
        drop(waiting);
        for waiter in waiters.into_values().flatten() {
            waiter(Err(error.clone()));
        }
    }

    /// What latches the engine, and makes the writer look at its store, when the disk has failed beside it.
    pub(super) fn on_failure(&self, alarm: impl Fn(&Error) + Send + Sync + 'static) {
        let _ = self.alarm.set(Box::new(alarm));
    }

    /// What makes whoever syncs do it now, because somebody has begun to wait.
    pub(crate) fn on_wait(&self, hurry: impl Fn() + Send + Sync + 'static) {
        let _ = self.hurry.set(Box::new(hurry));
    }

    /// Syncing has failed beside the writer: nobody knows what became of what is not durable.
    pub(crate) fn fail_beside_the_writer(&self, error: &Error) {
        // First: nobody who has heard of a failure may find the engine taking work.
        if let Some(alarm) = self.alarm.get() {
            alarm(error);
        }
        self.fail(&Error::OutcomeUnknown { source: super::cause_of(error) });
    }

    /// Runs `waiter` when `no` is durable: now, or on the thread that makes it so.
    pub(crate) fn when(&self, no: CommitNo, waiter: impl FnOnce(Result<(), Error>) + Send + 'static) {
        if no <= self.durable() {
            return waiter(Ok(()));
        }
        let mut waiting = self.waiting.lock();
        let outcome = match &waiting.failure {
            _ if no <= self.durable() => Ok(()),
            Some(error) => Err(error.clone()),
            None => {
                waiting.waiters.entry(no).or_default().push(Box::new(waiter));
                drop(waiting);
                if let Some(hurry) = self.hurry.get() {
                    hurry();
                }
                return;
            }
        };
        drop(waiting);
        waiter(outcome);
    }

    /// Waits until `no` is durable.
    ///
    /// # Errors
    /// It never will be.
    pub(crate) async fn reached(&self, no: CommitNo) -> Result<(), Error> {
        if no <= self.durable() {
            return Ok(());
        }
        let (sender, receiver) = oneshot::channel();
        self.when(no, move |outcome| drop(sender.send(outcome)));
        receiver.await.unwrap_or(Err(Error::Closed))
    }
}

impl std::fmt::Debug for Horizon {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Horizon")
            .field("durable", &self.durable())
            .field("announced", &self.announced())
            .finish()
    }
}
