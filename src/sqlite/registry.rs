//! The databases this process has open, so that a second open of a file joins the first.
//!
//! Drop-in users open a provider for the client and another for the worker; both get the same engine.
//! A slot stays taken until the file has been released, so an open that races with a close waits for it.

use std::any::Any;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Weak};
use std::thread::{self, ThreadId};

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::error::Error;
use crate::fork::Origin;

/// An engine of any kind, as the registry sees it.
pub(crate) type AnyEngine = dyn Any + Send + Sync;

static OPEN: LazyLock<Mutex<HashMap<PathBuf, Arc<Slot>>>> = LazyLock::new(Mutex::default);

/// What this process knows of one database file.
struct Slot {
    origin: Origin,
    state: Mutex<State>,
    changed: Condvar,
}

enum State {
    Free,
    /// By this thread.
    Opening(ThreadId),
    /// Until the file is released, even when no handle is left.
    Open(Weak<AnyEngine>),
}

/// Held by an engine for as long as it holds the file; dropping it lets the next open go ahead.
pub(crate) struct Registration {
    slot: Arc<Slot>,
    path: PathBuf,
}

/// Joins the engine that has the file at `path` (canonical) open in this process, or opens it.
///
/// `join` decides about the engine found; `None` means that it is closing, which is waited for. `open` must
/// keep the registration alive exactly as long as it holds the file.
pub(crate) fn join_or_open<T: Any + Send + Sync>(
    path: &Path,
    join: impl Fn(Arc<AnyEngine>) -> Option<Result<Arc<T>, Error>>,
    open: impl FnOnce(Registration) -> Result<Arc<T>, Error>,
) -> Result<Arc<T>, Error> {
    let free =
        || Arc::new(Slot { origin: Origin::here(), state: Mutex::new(State::Free), changed: Condvar::new() });
    let slot = Arc::clone(OPEN.lock().entry(path.into()).or_insert_with(free));
    // Of the process that this one is a fork of: nobody here would ever release it.
    slot.origin.check()?;
    let mut state = slot.state.lock();
    loop {
        if let State::Open(engine) = &*state {
            let engine = engine.upgrade();
            // Outside the lock: dropping what turns out to be the last handle closes the engine.
            let joined = MutexGuard::unlocked(&mut state, || engine.and_then(&join));
            if let Some(joined) = joined {
                return joined;
            }
        }
        match &*state {
            State::Free => break,
            // A function that is called while it is being opened, for its connections.
            State::Opening(thread) if *thread == thread::current().id() => {
                return Err(Error::WouldDeadlock {
                    what: "opening a database inside the opening of it",
                    instead: "open it when the first open has returned, or another file in Options::on_open",
                });
            }
            State::Opening(_) | State::Open(_) => {}
        }
        slot.changed.wait(&mut state);
    }
    *state = State::Opening(thread::current().id());
    drop(state);
    // If this fails it drops the registration, which frees the slot.
    let engine = open(Registration { slot: Arc::clone(&slot), path: path.into() })?;
    let any: Arc<AnyEngine> = Arc::<T>::clone(&engine);
    let mut state = slot.state.lock();
    // Unless it has failed already and has let go of the file: nobody would free the slot again.
    if matches!(&*state, State::Opening(opener) if *opener == thread::current().id()) {
        *state = State::Open(Arc::downgrade(&any));
    }
    drop(state);
    slot.changed.notify_all();
    Ok(engine)
}

impl Drop for Registration {
    fn drop(&mut self) {
        // IMPORTANT: the map before the slot, never the other way round.
        let mut open = OPEN.lock();
        *self.slot.state.lock() = State::Free;
        self.slot.changed.notify_all();
        // The map's and ours: nobody is waiting for the slot.
        if Arc::strong_count(&self.slot) <= 2 {
            open.remove(&self.path);
        }
    }
}
