//! What a closure may not do to the batch it shares with others, enforced by SQLite's authorizer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rusqlite::Connection;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};

use crate::error::Error;

/// The savepoint each closure runs in.
const NAME: &str = "forebay_operation";
// Whole statements, because they run for every closure.
pub(super) const SAVEPOINT: &str = "SAVEPOINT forebay_operation";
pub(super) const ROLLBACK_TO: &str = "ROLLBACK TO forebay_operation";
pub(super) const RELEASE: &str = "RELEASE forebay_operation";

/// Pragmas that set nothing, or nothing that reaches beyond the closure.
const PRAGMAS_ALLOWED: &[&str] = &[
    "application_id",
    "collation_list",
    "compile_options",
    "data_version",
    "database_list",
    "encoding",
    "foreign_key_check",
    "foreign_key_list",
    "freelist_count",
    "function_list",
    "index_info",
    "index_list",
    "index_xinfo",
    "integrity_check",
    "page_count",
    "quick_check",
    "schema_version",
    "table_info",
    "table_list",
    "table_xinfo",
    "user_version",
];

/// Switches the authorizer on while a closure runs, and remembers what it refused.
#[derive(Clone, Default)]
pub(super) struct Guard {
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    armed: AtomicBool,
    refused: Mutex<Option<String>>,
}

impl Guard {
    pub(super) fn install(connection: &mut Connection) -> Result<Self, Error> {
        let guard = Self::default();
        let state = Arc::clone(&guard.state);
        connection.authorizer(Some(move |context: AuthContext<'_>| state.authorize(&context.action)))?;
        Ok(guard)
    }

    /// Guards until the returned value is dropped, also by a panic.
    pub(super) fn arm(&self) -> Armed<'_> {
        *self.state.refused.lock() = None;
        self.state.armed.store(true, Ordering::Relaxed);
        Armed { guard: self }
    }

    /// The reason behind "not authorized", if that is what an error says.
    pub(super) fn explain(&self, error: Error) -> Error {
        let denied = matches!(&error, Error::Sqlite { source }
            if source.sqlite_error_code() == Some(rusqlite::ErrorCode::AuthorizationForStatementDenied));
        match self.state.refused.lock().take() {
            Some(reason) if denied => Error::Refused { reason },
            _ => error,
        }
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
        if !self.armed.load(Ordering::Relaxed) {
            return Authorization::Allow;
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

fn objection(action: &AuthAction<'_>) -> Option<String> {
    match action {
        AuthAction::Transaction { .. } => Some(
            "a closure shares its transaction with others: it can neither begin, commit nor roll back; \
             return an error to undo what it did, or use a savepoint of its own"
                .into(),
        ),
        AuthAction::Savepoint { savepoint_name, .. } if savepoint_name.eq_ignore_ascii_case(NAME) => {
            Some(format!("the savepoint {NAME} is the one a closure runs in: use another name"))
        }
        AuthAction::Attach { .. } | AuthAction::Detach { .. } => Some(
            "a closure cannot attach or detach a database: the batch it shares commits in one file".into(),
        ),
        AuthAction::Pragma { pragma_name, .. }
            if !PRAGMAS_ALLOWED.iter().any(|allowed| allowed.eq_ignore_ascii_case(pragma_name)) =>
        {
            Some(format!(
                "PRAGMA {pragma_name} inside a closure could change the durability or the meaning of the \
                 whole batch: use Options, or Writer::read for pragmas that only report"
            ))
        }
        _ => None,
    }
}
