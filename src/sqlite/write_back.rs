//! Moves the log to the disk while the writer goes on writing it.
//!
//! At `Normal` no commit syncs the log; the next checkpoint does, and nothing commits until the disk has taken
//! all of it (50 ms and more for the default 32 MiB). A thread that syncs it every few megabytes leaves the checkpoint
//! little to wait for, and costs next to no processor time. It decides nothing: what a checkpoint relies on is
//! the checkpoint's own fsync. Syncing is all that happens beside the writer; it alone checkpoints.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Sender, bounded};

use super::path::beside;
use crate::error::Error;

/// Syncs the log of one database on a thread of its own, when it is asked to.
pub(super) struct WriteBack {
    /// `None` only while it is being dropped.
    requests: Option<Sender<()>>,
    failure: Arc<OnceLock<Arc<io::Error>>>,
    thread: Option<JoinHandle<()>>,
}

impl WriteBack {
    /// For the log of the database at `path`. `None` if there is no such file to be seen (a VFS of a test) or no
    /// thread to be had: everything works without, checkpoints only take longer.
    pub(super) fn start(path: &Path) -> Option<Self> {
        // Not the database file: closing any handle of that would drop SQLite's locks on it. The log has none.
        // For writing, which syncing takes on Windows.
        let log = File::options().write(true).open(beside(path, "-wal")).ok()?;
        Self::over(move || log.sync_data())
    }

    fn over(sync: impl Fn() -> io::Result<()> + Send + 'static) -> Option<Self> {
        let (requests, asked) = bounded(1);
        let failure = Arc::new(OnceLock::new());
        let told = Arc::clone(&failure);
        let run = move || {
            for () in asked {
                if let Err(error) = sync() {
                    // Never again: the next one might succeed, the pages being gone.
                    let _ = told.set(Arc::new(error));
                    return;
                }
            }
        };
        let thread = thread::Builder::new().name("forebay-log".into()).spawn(run).ok()?;
        Some(Self { requests: Some(requests), failure, thread: Some(thread) })
    }

    /// Asks for a sync of what is in the log by now. Never waits; while one is running, the next is asked for once.
    pub(super) fn request(&self) {
        if let Some(requests) = &self.requests {
            let _ = requests.try_send(());
        }
    }

    /// The failure of a sync, for good: what an earlier commit wrote may be lost from the page cache.
    pub(super) fn check(&self) -> Result<(), Error> {
        match self.failure.get() {
            None => Ok(()),
            Some(source) => {
                Err(Error::Io { doing: "syncing the write-ahead log".into(), source: source.clone() })
            }
        }
    }
}

impl Drop for WriteBack {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // It has nothing that could panic but `sync`, and nobody to tell.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn what_was_asked_for_is_done_before_it_is_dropped() {
        let done = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&done);
        let write_back = WriteBack::over(move || {
            count.fetch_add(1, Ordering::Relaxed);
            Ok(())
        });
        let write_back = write_back.expect("a thread");
        write_back.request();
        drop(write_back);
        assert_eq!(done.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_failure_is_told_for_good_and_not_tried_again() {
        let tries = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&tries);
        let write_back = WriteBack::over(move || {
            count.fetch_add(1, Ordering::Relaxed);
            Err(io::Error::other("the disk is gone"))
        });
        let mut write_back = write_back.expect("a thread");
        assert!(write_back.check().is_ok());
        write_back.request();
        write_back.thread.take().expect("it runs").join().expect("it ends by itself");
        write_back.request();
        let error = write_back.check().expect_err("it failed").to_string();
        assert!(error.contains("write-ahead log") && error.contains("the disk is gone"), "{error}");
        drop(write_back);
        assert_eq!(tries.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn the_log_beside_a_database_can_be_synced() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("app.db");
        std::fs::write(beside(&path, "-wal"), "frames").expect("it is written");
        let mut write_back = WriteBack::start(&path).expect("there is a log");
        write_back.request();
        write_back.requests = None;
        write_back.thread.take().expect("it runs").join().expect("it ends when nobody asks any more");
        write_back.check().expect("it was synced");
    }

    #[test]
    fn a_log_that_cannot_be_seen_is_left_alone() {
        assert!(WriteBack::start(Path::new("/nowhere/app.db")).is_none());
    }
}
