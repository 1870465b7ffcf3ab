//! The statements that open and end transactions and savepoints, under a text that nobody else knows.
//!
//! SQLite asks its authorizer when a statement is prepared and not when it runs. `COMMIT` prepared by us, and kept
//! prepared for speed, would therefore be there for everyone who shares the connection's cache: a closure of a
//! [`Writer`](crate::Writer) that asks the cache for "COMMIT" must find nothing, so that it has to be prepared, and
//! is refused. Each text ends in a comment with a number drawn for this connection.

use std::hash::{BuildHasher, RandomState};

/// The savepoint each closure runs in.
pub(crate) const SAVEPOINT: &str = "forebay_operation";

/// See the module's documentation. To be run with `prepare_cached`.
pub(crate) struct Control {
    pub(crate) begin: String,
    pub(crate) commit: String,
    pub(crate) rollback: String,
    pub(crate) savepoint: String,
    pub(crate) rollback_to: String,
}

impl Control {
    pub(crate) fn new() -> Self {
        let number = RandomState::new().hash_one(std::process::id());
        let marked = |sql: &str| format!("{sql} /* {number:016x} */");
        Self {
            begin: marked("BEGIN IMMEDIATE"),
            commit: marked("COMMIT"),
            rollback: marked("ROLLBACK"),
            savepoint: marked(&format!("SAVEPOINT {SAVEPOINT}")),
            rollback_to: marked(&format!("ROLLBACK TO {SAVEPOINT}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_connections_share_their_texts() {
        let (one, other) = (Control::new(), Control::new());
        assert_ne!(one.commit, other.commit);
        assert!(one.commit.starts_with("COMMIT /*"), "{}", one.commit);
    }
}
