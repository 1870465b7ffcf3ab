//! What is counted, and how it is read: [`Stats`].
//!
//! Nothing here is locked, or scheduled by the model checker: a figure may be a moment old.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::horizon::Horizon;

/// Counters kept by those who submit, the writer thread and the connection it writes on.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) batches: AtomicU64,
    pub(crate) operations: AtomicU64,
    pub(crate) commits: AtomicU64,
    pub(crate) bytes_written: AtomicU64,
    pub(crate) checkpoints: AtomicU64,
    pub(crate) set_aside: AtomicU64,
    pub(crate) rolled_back: AtomicU64,
    /// Operations in the buffer; each has a [`Waiting`].
    waiting: AtomicU64,
    pub(crate) room_waits: Timer,
    pub(crate) commit_times: Timer,
}

/// Counted as waiting, until it is dropped.
pub(super) struct Waiting(Arc<Counters>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How long something took, each time. No lock: the three may be read in the middle of a change.
#[derive(Debug, Default)]
pub(crate) struct Timer {
    count: AtomicU64,
    total_ns: AtomicU64,
    max_ns: AtomicU64,
}

impl Timer {
    pub(crate) fn add(&self, took: Duration) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.count.fetch_add(1, Ordering::Relaxed);
        self.total_ns.fetch_add(ns, Ordering::Relaxed);
        self.max_ns.fetch_max(ns, Ordering::Relaxed);
    }

    /// Adds what goes by until the result is dropped.
    pub(crate) fn start(&self) -> Timing<'_> {
        Timing { timer: self, began: Instant::now() }
    }

    fn read(&self) -> Times {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Times {
            count: read(&self.count),
            total: Duration::from_nanos(read(&self.total_ns)),
            max: Duration::from_nanos(read(&self.max_ns)),
        }
    }
}

/// See [`Timer::start`].
pub(crate) struct Timing<'a> {
    timer: &'a Timer,
    began: Instant,
}

impl Drop for Timing<'_> {
    fn drop(&mut self) {
        self.timer.add(self.began.elapsed());
    }
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64, amount: u64) {
        counter.fetch_add(amount, Ordering::Relaxed);
    }

    /// Runs what commits, and counts how long that took if it did.
    pub(crate) fn time_commit<T>(&self, commit: impl FnOnce() -> T) -> T {
        let commits = || self.commits.load(Ordering::Relaxed);
        let (before, began) = (commits(), Instant::now());
        let result = commit();
        if commits() != before {
            self.commit_times.add(began.elapsed());
        }
        result
    }

    /// One operation waits from here on.
    pub(super) fn wait(counters: &Arc<Self>) -> Waiting {
        counters.waiting.fetch_add(1, Ordering::Relaxed);
        Waiting(Arc::clone(counters))
    }

    pub(super) fn read(&self, horizon: &Horizon) -> Stats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            batches: read(&self.batches),
            operations: read(&self.operations),
            commits: read(&self.commits),
            bytes_written: read(&self.bytes_written),
            checkpoints: read(&self.checkpoints),
            set_aside: read(&self.set_aside),
            rolled_back: read(&self.rolled_back),
            waiting: read(&self.waiting),
            room_waits: self.room_waits.read(),
            commit_times: self.commit_times.read(),
            sync_times: horizon.sync_times.read(),
        }
    }
}

/// What an engine has done since it was opened, and how many operations wait for it now.
///
/// Each figure is read by itself: two of them may be of slightly different moments. They stay readable when the engine is
/// closed or has failed. All but [`waiting`](Self::waiting) only grow; two readings, subtracted, are what was done between them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Batches the writer ran, those that wrote nothing and those that were rolled back included.
    pub batches: u64,
    /// Operations in them.
    pub operations: u64,
    /// Transactions committed.
    pub commits: u64,
    /// Bytes appended to the write-ahead log.
    pub bytes_written: u64,
    /// Checkpoints run.
    pub checkpoints: u64,
    /// Queued rows, and instances, that could not be read and were therefore set aside: they stay in the file as
    /// they are, nobody is given them, everything else goes on. Each was logged as an error. They are tried
    /// again when the database is opened again.
    pub set_aside: u64,
    /// Transactions that were rolled back as a whole, their callers told
    /// [`RolledBack`](crate::Error::RolledBack).
    pub rolled_back: u64,
    /// Operations that wait in the buffer now: submitted, and not begun. An engine that is often close to
    /// [`buffer_ops_max`](crate::WriterOptions::buffer_ops_max) of them is asked for more than it can do.
    pub waiting: u64,
    /// The callers that found the buffer full and waited for room, and for how long; those that gave up while they waited
    /// included.
    pub room_waits: Times,
    /// How long commits took: from the moment at which everything in the batch was done until it was in the log, which is
    /// SQLite's `COMMIT` and a look at the files before it. None of it waits for the disk.
    pub commit_times: Times,
    /// How long it took to bring the log to the disk, each time; one such sync covers many commits. At
    /// [`Durability::Normal`](crate::Durability::Normal) it is done every few megabytes. Those that are part of a checkpoint are
    /// not counted.
    pub sync_times: Times,
}

/// How long something took, over all the times it was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Times {
    /// How often it was done.
    pub count: u64,
    /// How long that took in all.
    pub total: Duration,
    /// The longest that it took.
    pub max: Duration,
}

impl Times {
    /// The mean; zero if it was never done.
    pub fn mean(&self) -> Duration {
        let mean_ns = self.total.as_nanos().checked_div(u128::from(self.count)).unwrap_or(0);
        Duration::from_nanos(u64::try_from(mean_ns).unwrap_or(u64::MAX))
    }
}

/// `3 in 1.2ms, 700µs at most`.
impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {:?}, {:?} at most", self.count, self.total, self.max)
    }
}

/// One line, for a log.
impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            batches,
            operations,
            commits,
            bytes_written,
            checkpoints,
            set_aside,
            rolled_back,
            waiting,
            ..
        } = self;
        let Self { room_waits, commit_times, sync_times, .. } = self;
        write!(
            f,
            "{operations} operations in {batches} batches, {waiting} waiting; {commits} commits of {bytes_written} bytes \
             ({commit_times}), {rolled_back} rolled back; syncs: {sync_times}; waits for room: {room_waits}; {checkpoints} \
             checkpoints; {set_aside} set aside"
        )
    }
}
