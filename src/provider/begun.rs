//! Which tasks are about to run an activity: what the runtime's worker reads first is known to be its own.
//!
//! duroxide's worker fetches an activity and then, in the same task and as the next thing it asks of its storage, reads
//! the history of the activity's instance, for the name of the orchestration. That one read need not wait until
//! the newest turn of the instance is on the disk, as a client's has to: it is given what is. What scheduled the
//! activity is part of that, or the activity had not been given out.
//!
//! A task that has been given a turn, or has acknowledged one, may have seen more, and is no worker of duroxide's: it
//! waits, until all it can have seen is on the disk.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::task;

use crate::buffer::CommitNo;

/// Tasks that are remembered; with more all are forgotten, and what they read waits like any other read.
const TASKS_MAX: usize = 4096;

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Begun {
    tasks: Mutex<Tasks>,
}

#[derive(Default)]
struct Tasks {
    /// Of which instance they have been given an activity, and have asked for nothing since.
    begun: HashMap<task::Id, Arc<str>>,
    /// The last commit that those may have seen that work on turns.
    seen: HashMap<task::Id, CommitNo>,
}

impl Begun {
    /// The task that calls this has been given an activity of that instance.
    pub(super) fn note(&self, instance: &str) {
        let Some(task) = task::try_id() else { return };
        let begun = &mut self.tasks.lock().begun;
        if begun.len() >= TASKS_MAX {
            begun.clear();
        }
        begun.insert(task, instance.into());
    }

    /// The task that calls this has been told of a turn, which nobody waited for to be on the disk.
    pub(super) fn saw_turn(&self, no: CommitNo, durable: CommitNo) {
        let Some(task) = task::try_id().filter(|_| no > durable) else { return };
        let seen = &mut self.tasks.lock().seen;
        if seen.len() >= TASKS_MAX {
            seen.retain(|_, no| *no > durable);
        }
        seen.insert(task, no);
    }

    /// The task that calls this asks for something else than that history.
    pub(super) fn forget(&self) {
        if let Some(task) = task::try_id() {
            self.tasks.lock().begun.remove(&task);
        }
    }

    /// The task that calls this reads a history: whether it has been given an activity of that instance, has asked for
    /// nothing since, and has seen nothing but what is on the disk.
    pub(super) fn take(&self, instance: &str, durable: CommitNo) -> bool {
        let Some(task) = task::try_id() else { return false };
        let mut tasks = self.tasks.lock();
        let is_next = tasks.begun.remove(&task).is_some_and(|of| *of == *instance);
        is_next && tasks.seen.get(&task).is_none_or(|no| *no <= durable)
    }
}
