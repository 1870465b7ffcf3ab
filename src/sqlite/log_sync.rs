//! Moves the log to the disk while the writer goes on writing it, and says how far that has come.
//!
//! At `Full` it is asked after every commit. It syncs, publishes the number up to which all is durable, and goes on with
//! what was committed meanwhile: at once if somebody waits for that, or is about to, and otherwise within [`LAZY`], because each
//! sync costs processor time too. At `Normal` it is asked every few megabytes, so that a checkpoint, during which
//! nothing commits, finds little left to sync.
//!
//! The order that is kept:
//! - a number is published when a sync has returned that began after its commit. SQLite recovers its log as a prefix, so
//!   everything before it is durable too;
//! - the log starts over only after a checkpoint of all of it, which syncs the database: what was committed before is
//!   durable wherever it is. A sync that runs across that is one of the log as it is then, and true all the same;
//! - nothing is synced here while the writer checkpoints or closes: it waits for this thread first
//!   ([`LogSync::finish`]). So the failure of a sync is known before anything relies on the next one: the kernel may report that
//!   as good although the pages are gone. A sync that has failed is never tried again;
//! - the handle is opened when the connection is, and closed before it. The file stays the same for all that time.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::log_file::LogFile;
use crate::buffer::{CommitNo, Horizon};
use crate::error::Error;

/// How long a commit that nobody waits for may stay out of a sync.
const LAZY: Duration = Duration::from_millis(5);

/// How soon a commit is to be on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Soon {
    /// Within [`LAZY`], or when somebody begins to wait.
    Lazily,
    /// Somebody waits, or is about to.
    Now,
    /// Somebody waits, and there is nothing else to do: the writer syncs it itself, when it has answered the others
    /// ([`LogSync::sync_here`]). That saves a hand-over to another thread.
    Here,
}

/// Syncs the log of one database on a thread of its own, when it is asked to.
pub(super) struct LogSync {
    asked: Arc<Asked>,
    syncs: Arc<Syncs>,
    thread: Option<JoinHandle<()>>,
}

/// What is done when it is asked for, by one thread at a time: whoever has set `is_running`.
struct Syncs {
    sync: Mutex<Box<dyn FnMut() -> Result<(), Error> + Send>>,
    horizon: Arc<Horizon>,
}

impl Syncs {
    fn run(&self, asked: &Asked, no: CommitNo) {
        let outcome = {
            let mut sync = self.sync.lock();
            let _timing = self.horizon.sync_times.start();
            sync()
        };
        match outcome {
            // Whoever waits for the end of it finds everybody told.
            Ok(()) => {
                self.horizon.reach(no);
                asked.end(None);
            }
            // Whoever is told finds the failure noted: the writer that is to close would else find it itself, and
            // report it as its own.
            Err(error) => {
                asked.end(Some(error.clone()));
                self.horizon.fail_beside_the_writer(&error);
            }
        }
    }
}

#[derive(Default)]
struct Asked {
    state: Mutex<State>,
    /// There is something to do, or nothing more.
    wake: Condvar,
    /// Something was done.
    done: Condvar,
}

#[derive(Default)]
struct State {
    /// Of the last commit that is to be made durable.
    no: CommitNo,
    is_wanted: bool,
    /// When what is wanted is to be done; at once if there is none.
    not_before: Option<Instant>,
    is_running: bool,
    is_over: bool,
    failure: Option<Error>,
}

impl LogSync {
    pub(super) fn start(mut log: LogFile, horizon: Arc<Horizon>) -> Result<Self, Error> {
        Self::over(move || log.sync(), horizon)
    }

    fn over(
        sync: impl FnMut() -> Result<(), Error> + Send + 'static,
        horizon: Arc<Horizon>,
    ) -> Result<Self, Error> {
        let asked = Arc::new(Asked::default());
        let waited_for = Arc::downgrade(&asked);
        horizon.on_wait(move || {
            if let Some(asked) = waited_for.upgrade() {
                asked.hurry();
            }
        });
        let syncs = Arc::new(Syncs { sync: Mutex::new(Box::new(sync)), horizon });
        let (theirs, its_syncs) = (Arc::clone(&asked), Arc::clone(&syncs));
        let run = move || {
            while let Some(no) = theirs.next() {
                its_syncs.run(&theirs, no);
            }
        };
        let thread = thread::Builder::new()
            .name("forebay-log".into())
            .spawn(run)
            .map_err(|source| Error::io("starting the thread that syncs the log", source))?;
        Ok(Self { asked, syncs, thread: Some(thread) })
    }

    /// Asks for everything up to this commit to be made durable. Never waits; while a sync is running, the next one
    /// is asked for once.
    pub(super) fn request(&self, no: CommitNo, soon: Soon) {
        let mut state = self.asked.state.lock();
        state.no = state.no.max(no);
        let was_wanted = std::mem::replace(&mut state.is_wanted, true);
        match soon {
            Soon::Now => state.not_before = None,
            Soon::Here => {
                state.not_before = None;
                return;
            }
            Soon::Lazily if !was_wanted => state.not_before = Instant::now().checked_add(LAZY),
            Soon::Lazily => return,
        }
        if !state.is_running {
            self.asked.wake.notify_one();
        }
    }

    /// Does what was asked for, on this thread, unless the other one has it in hand.
    pub(super) fn sync_here(&self) {
        // IMPORTANT: not locked while it is done.
        let taken = self.asked.take_up(&mut self.asked.state.lock());
        if let Some(no) = taken {
            self.syncs.run(&self.asked, no);
        }
    }

    /// The failure of a sync, for good: what an earlier commit wrote may be lost from the page cache.
    pub(super) fn check(&self) -> Result<(), Error> {
        self.asked.state.lock().failure.clone().map_or(Ok(()), Err)
    }

    /// Waits until everything that was asked for is done.
    pub(super) fn finish(&self) -> Result<(), Error> {
        self.asked.hurry();
        // What nobody else was told of.
        self.sync_here();
        let mut state = self.asked.state.lock();
        while state.failure.is_none() && (state.is_wanted || state.is_running) {
            self.asked.done.wait(&mut state);
        }
        state.failure.clone().map_or(Ok(()), Err)
    }
}

impl Asked {
    /// Whatever is wanted is wanted now.
    fn hurry(&self) {
        let mut state = self.state.lock();
        if state.not_before.take().is_some() && !state.is_running {
            self.wake.notify_one();
        }
    }

    /// What there is to do now, if anything, which is then under way.
    fn take_up(&self, state: &mut State) -> Option<CommitNo> {
        let is_time = state.is_over || state.not_before.is_none_or(|at| at <= Instant::now());
        if !(state.is_wanted && is_time) || state.is_running || state.failure.is_some() {
            return None;
        }
        (state.is_wanted, state.is_running, state.not_before) = (false, true, None);
        Some(state.no)
    }

    /// Waits for something to do; `None` at the end.
    fn next(&self) -> Option<CommitNo> {
        let mut state = self.state.lock();
        loop {
            if state.failure.is_some() {
                return None;
            }
            if let Some(no) = self.take_up(&mut state) {
                return Some(no);
            }
            match state.not_before {
                _ if state.is_over && !state.is_wanted => return None,
                Some(at) if state.is_wanted && !state.is_running => {
                    let _timed_out = self.wake.wait_until(&mut state, at);
                }
                _ => self.wake.wait(&mut state),
            }
        }
    }

    fn end(&self, failure: Option<Error>) {
        let mut state = self.state.lock();
        state.is_running = false;
        state.failure = failure;
        self.done.notify_all();
        // What was asked for while the writer synced by itself.
        self.wake.notify_one();
    }
}

impl Drop for LogSync {
    fn drop(&mut self) {
        self.asked.state.lock().is_over = true;
        self.asked.wake.notify_one();
        if let Some(thread) = self.thread.take() {
            // Nothing in it can panic but `sync`, and there is nobody to tell.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::mpsc;

    use super::*;

    /// Hears when this commit is durable.
    fn wait_for(horizon: &Horizon, no: CommitNo) -> mpsc::Receiver<Result<(), Error>> {
        let (tell, told) = mpsc::channel();
        horizon.when(no, move |outcome| drop(tell.send(outcome)));
        told
    }

    #[test]
    fn what_was_asked_for_is_durable_when_it_is_finished_and_nothing_before() {
        let horizon = Arc::new(Horizon::default());
        let (go, wait) = mpsc::channel::<()>();
        let sync = move || {
            let _ = wait.recv();
            Ok(())
        };
        let syncs = LogSync::over(sync, Arc::clone(&horizon)).expect("a thread");
        let told = wait_for(&horizon, 2);
        syncs.request(1, Soon::Now);
        syncs.request(2, Soon::Now);
        assert_eq!(horizon.durable(), 0);
        assert!(told.try_recv().is_err(), "told before it is durable");
        go.send(()).expect("it waits");
        go.send(()).expect("it waits");
        syncs.finish().expect("it is done");
        assert_eq!(horizon.durable(), 2);
        told.try_recv().expect("told by then").expect("it is durable");
    }

    #[test]
    fn what_is_asked_for_here_is_done_by_whoever_asked() {
        let horizon = Arc::new(Horizon::default());
        let (tell, told) = mpsc::channel();
        let sync = move || {
            let _ = tell.send(thread::current().id());
            Ok(())
        };
        let syncs = LogSync::over(sync, Arc::clone(&horizon)).expect("a thread");
        syncs.request(1, Soon::Here);
        syncs.sync_here();
        assert_eq!((horizon.durable(), told.try_recv()), (1, Ok(thread::current().id())));
        // Whatever is asked for behind it is done too.
        syncs.request(2, Soon::Here);
        syncs.request(3, Soon::Now);
        wait_for(&horizon, 3).recv().expect("told").expect("it is durable");
        syncs.request(4, Soon::Here);
        syncs.finish().expect("it is done");
        assert_eq!(horizon.durable(), 4);
        syncs.request(5, Soon::Here);
        drop(syncs);
        assert_eq!(horizon.durable(), 5);
    }

    #[test]
    fn what_nobody_waits_for_is_synced_a_little_later_and_at_once_when_somebody_does() {
        let horizon = Arc::new(Horizon::default());
        let syncs = LogSync::over(|| Ok(()), Arc::clone(&horizon)).expect("a thread");
        syncs.request(1, Soon::Lazily);
        let told = wait_for(&horizon, 1);
        told.recv().expect("told").expect("it is durable");
        // Nobody waits for this one; it is done all the same.
        syncs.request(2, Soon::Lazily);
        while horizon.durable() < 2 {
            std::thread::yield_now();
        }
        syncs.request(3, Soon::Lazily);
        syncs.finish().expect("it is done");
        assert_eq!(horizon.durable(), 3);
    }

    #[test]
    fn what_was_asked_for_is_done_before_it_is_dropped() {
        let done = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&done);
        let sync = move || {
            count.fetch_add(1, Ordering::Relaxed);
            Ok(())
        };
        let syncs = LogSync::over(sync, Arc::default()).expect("a thread");
        syncs.request(1, Soon::Now);
        drop(syncs);
        assert_eq!(done.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn whoever_hears_of_a_failure_finds_it_noted() {
        let horizon = Arc::new(Horizon::default());
        let sync = || Err(Error::internal("the disk is gone"));
        let syncs = LogSync::over(sync, Arc::clone(&horizon)).expect("a thread");
        let (asked, (tell, told)) = (Arc::clone(&syncs.asked), mpsc::channel());
        horizon.when(1, move |_outcome| {
            let _ = tell.send(asked.state.lock().failure.is_some());
        });
        syncs.request(1, Soon::Now);
        assert!(
            told.recv().expect("told"),
            "a close that follows would take itself for the first to find it"
        );
    }

    #[test]
    fn a_failure_is_told_for_good_and_not_tried_again() {
        let tries = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&tries);
        let sync = move || {
            count.fetch_add(1, Ordering::Relaxed);
            Err(Error::internal("the disk is gone"))
        };
        let horizon = Arc::new(Horizon::default());
        let syncs = LogSync::over(sync, Arc::clone(&horizon)).expect("a thread");
        let told = wait_for(&horizon, 1);
        assert!(syncs.check().is_ok());
        syncs.request(1, Soon::Now);
        let error = syncs.finish().expect_err("it failed").to_string();
        assert!(error.contains("the disk is gone"), "{error}");
        assert!(matches!(told.recv(), Ok(Err(Error::OutcomeUnknown { .. }))));
        syncs.request(2, Soon::Now);
        assert!(syncs.check().is_err() && syncs.finish().is_err());
        drop(syncs);
        assert_eq!(tries.load(Ordering::Relaxed), 1);
        assert_eq!(horizon.durable(), 0);
        let told = wait_for(&horizon, 2);
        told.try_recv().expect("at once").expect_err("it never will be");
    }
}
