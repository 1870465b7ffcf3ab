//! What a closure may not do to the batch it shares with others, and how that is enforced.
//!
//! Three things of SQLite stand guard while a closure runs:
//! - the **authorizer** refuses statements by what they are, when they are prepared (`objections.rs`). What was
//!   prepared before cannot be refused; so nothing of ours that ends transactions is where a closure finds it
//!   (`sqlite/control.rs`).
//! - the **commit hook** turns every commit into a rollback. No closure may commit, and one whose transaction has
//!   ended under it (`ON CONFLICT ROLLBACK`, `RAISE(ROLLBACK)`) goes on without one, where every statement commits by
//!   itself: nothing of that reaches the file.
//! - the **rollback hook** remembers that the transaction ended, even if the closure has begun another.
//!
//! After the closure, what it could change besides rows is put back (`sqlite/settings.rs`), and the three are
//! looked at: up to rusqlite 0.40 a `&Connection` is enough to take them away. Whoever did that may have committed, so
//! the outcome of the batch is unknown, and the writer fails. rusqlite from 0.41 on does not let them.

use std::ffi::{c_int, c_void};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::{Connection, ErrorCode, Statement, ffi};

use super::objections::{objection, touches_temporary_schema};
use super::store::Failed;
use crate::buffer::CommitError;
use crate::error::Error;
use crate::sqlite::{self, SAVEPOINT, Settings};

/// The batch cannot be committed.
pub(super) enum Lost {
    /// Nothing of it is in the file, for certain.
    RolledBack(Error),
    /// The same, because of what the closure does: it would end the same way again.
    ByClosure(Error),
    /// Nobody can tell.
    Unknown(Error),
}

impl From<CommitError> for Lost {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::RolledBack(error) => Self::RolledBack(error),
            CommitError::Unknown(error) => Self::Unknown(error),
        }
    }
}

impl From<Error> for Lost {
    fn from(error: Error) -> Self {
        Self::RolledBack(error)
    }
}

/// See the module's documentation. IMPORTANT: it has to be dropped after the connection it was installed on.
pub(super) struct Guard {
    state: Arc<State>,
    settings: Settings,
}

#[derive(Default)]
struct State {
    armed: AtomicBool,
    /// Whether the transaction has ended since this was armed.
    ended: AtomicBool,
    /// How often the authorizer was asked.
    asked: AtomicU64,
    /// Whether any statement that changes temporary objects was ever prepared.
    temporary: AtomicBool,
    refused: Mutex<Option<String>>,
}

impl Guard {
    pub(super) fn install(connection: &mut Connection) -> Result<Self, Error> {
        let state = Arc::new(State::default());
        let authorizer = Arc::clone(&state);
        connection.authorizer(Some(move |context: AuthContext<'_>| authorizer.authorize(&context.action)))?;
        let guard = Self { state, settings: Settings::of(connection) };
        guard.set_hooks(connection);
        Ok(guard)
    }

    /// Guards until the returned value is dropped, also by a panic.
    pub(super) fn arm(&self) -> Armed<'_> {
        *self.state.refused.lock() = None;
        self.state.ended.store(false, Ordering::Relaxed);
        self.state.armed.store(true, Ordering::Relaxed);
        Armed { guard: self }
    }

    /// Looks at what a closure has left. Gives the statement that releases its savepoint.
    ///
    /// IMPORTANT: still armed while things are put back: a statement that was left unfinished commits when it is
    /// reset, if the transaction has ended before.
    pub(super) fn inspect<'c>(
        &self,
        armed: Armed<'_>,
        connection: &'c Connection,
    ) -> Result<Statement<'c>, Lost> {
        // Before anything else is asked of the connection.
        let ended_by_constraint = sqlite::last_failed_by_constraint(connection);
        self.settings.restore(connection);
        drop(armed);
        let asked = self.state.asked.load(Ordering::Relaxed);
        // Prepared anew every time: the authorizer is asked, or it is not there any more.
        let release = connection.prepare(&format!("RELEASE {SAVEPOINT}")).map_err(Error::from);
        // Interrupted, SQLite does not get to ask it.
        let is_interrupted =
            release.as_ref().is_err_and(|error| error.sqlite_code() == Some(ErrorCode::OperationInterrupted));
        let is_asked = self.state.asked.load(Ordering::Relaxed) != asked || is_interrupted;
        if !self.set_hooks(connection) || !is_asked {
            return Err(Lost::Unknown(Error::outcome_unknown(
                "a closure took away the hooks that keep it from ending the batch (authorizer, commit or rollback \
                 hook): it may have committed parts of it",
            )));
        }
        if self.state.ended.load(Ordering::Relaxed) || connection.is_autocommit() {
            return Err(if ended_by_constraint {
                Lost::ByClosure(Error::not_allowed(
                    "the closure made SQLite roll back the whole batch, what others wrote in it included: a constraint \
                     failed with ON CONFLICT ROLLBACK, INSERT OR ROLLBACK or RAISE(ROLLBACK); with ABORT it costs this \
                     closure alone",
                ))
            } else {
                Lost::RolledBack(Error::rolled_back(
                    "SQLite rolled back the whole batch while a closure ran (ON CONFLICT ROLLBACK, INSERT OR ROLLBACK or \
                     RAISE(ROLLBACK) in it, an interrupt, or a full disk)",
                ))
            });
        }
        Ok(release?)
    }

    /// Refuses temporary objects that outlive the closure: later ones would find them in place of the file's own.
    pub(super) fn check_temporary(&self, connection: &Connection) -> Result<(), Error> {
        if self.state.temporary.load(Ordering::Relaxed) && sqlite::has_temporary_objects(connection)? {
            return Err(Error::not_allowed(
                "a closure left temporary tables, views or triggers, which later closures would meet in place of the \
                 file's own: drop them before it ends",
            ));
        }
        Ok(())
    }

    /// The reason behind "not authorized", if that is what an error says.
    pub(super) fn explain(&self, failed: Failed) -> Failed {
        let Some(reason) = self.state.refused.lock().take() else { return failed };
        match failed {
            Failed::With(error) if is_denied(&error) => Failed::With(Error::not_allowed(reason)),
            Failed::With(error) => Failed::With(error),
            Failed::ByItself => {
                // An error of the caller's own, that SQLite's is in or not: it comes back as it is.
                tracing::warn!(reason, "a closure that has failed did what it may not");
                Failed::ByItself
            }
        }
    }

    /// Whether both hooks were there already.
    #[allow(unsafe_code)]
    fn set_hooks(&self, connection: &Connection) -> bool {
        let state = Arc::as_ptr(&self.state).cast_mut().cast::<c_void>();
        // SAFETY: the handle is valid while the connection is borrowed, and used by this thread alone. `state` is
        // what the callbacks expect, and lives as long as this guard, which is dropped after the connection (the
        // order of `ClosureStore`'s fields). What is found in their place was registered by rusqlite, which owns it.
        unsafe {
            let handle = connection.handle();
            let commit = ffi::sqlite3_commit_hook(handle, Some(on_commit), state);
            let rollback = ffi::sqlite3_rollback_hook(handle, Some(on_rollback), state);
            commit == state && rollback == state
        }
    }
}

/// Whether it is "not authorized", which says nothing more.
pub(super) fn is_denied(error: &Error) -> bool {
    error.sqlite_code() == Some(ErrorCode::AuthorizationForStatementDenied)
}

/// `state` is a `State`.
#[allow(unsafe_code)]
unsafe extern "C" fn on_commit(state: *mut c_void) -> c_int {
    // SAFETY: see `Guard::set_hooks`; only shared references to it are ever made.
    let state = unsafe { &*state.cast::<State>() };
    c_int::from(state.armed.load(Ordering::Relaxed))
}

/// `state` is a `State`.
#[allow(unsafe_code)]
unsafe extern "C" fn on_rollback(state: *mut c_void) {
    // SAFETY: as for `on_commit`.
    let state = unsafe { &*state.cast::<State>() };
    if state.armed.load(Ordering::Relaxed) {
        state.ended.store(true, Ordering::Relaxed);
    }
}

pub(super) struct Armed<'a> {
    guard: &'a Guard,
}

impl Drop for Armed<'_> {
    fn drop(&mut self) {
        self.guard.state.armed.store(false, Ordering::Relaxed);
    }
}

impl State {
    fn authorize(&self, action: &AuthAction<'_>) -> Authorization {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if !self.armed.load(Ordering::Relaxed) {
            return Authorization::Allow;
        }
        if touches_temporary_schema(action) {
            self.temporary.store(true, Ordering::Relaxed);
        }
        match objection(action) {
            None => Authorization::Allow,
            Some(reason) => {
                *self.refused.lock() = Some(reason);
                Authorization::Deny
            }
        }
    }
}
