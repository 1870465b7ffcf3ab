//! Which tasks are about to run an activity: what the runtime's worker reads first is known to be its own.
//!
//! duroxide's worker fetches an activity and then, in the same task and as the next thing it asks of its storage, reads
//! the history of the activity's instance, for the name of the orchestration. That one read need not wait until
//! the newest turn of the instance is on the disk, as a client's has to: it is given what is. What scheduled the
//! activity is part of that, or the activity had not been given out.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::task;

/// Tasks that are remembered; with more all are forgotten, and what they read waits like any other read.
const TASKS_MAX: usize = 4096;

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Begun {
    tasks: Mutex<HashMap<task::Id, Arc<str>>>,
}

impl Begun {
    /// The task that calls this has been given an activity of that instance.
    pub(super) fn note(&self, instance: &str) {
        let Some(task) = task::try_id() else { return };
        let mut tasks = self.tasks.lock();
        if tasks.len() >= TASKS_MAX {
            tasks.clear();
        }
        tasks.insert(task, instance.into());
    }

    /// The task that calls this asks for something: whether it has been given an activity of that instance, and
    /// has asked for nothing since.
    pub(super) fn take(&self, instance: Option<&str>) -> bool {
        let Some(task) = task::try_id() else { return false };
        let of = self.tasks.lock().remove(&task);
        of.is_some_and(|of| Some(&*of) == instance)
    }
}
