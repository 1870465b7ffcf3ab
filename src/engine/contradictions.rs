//! Rows of an instance that are sound one by one, and contradict each other.
//!
//! What damage makes of the number of an execution hides a history rather than making it unreadable: the turn would
//! come with none, or without a part of it, as if that had never happened, and its messages would be lost. Only what
//! the engine never writes is a contradiction. A history may well be empty, have gaps, or be that of an execution to
//! come (`append_with_execution`); it is the checksum of a record that tells where its row belongs.

use std::sync::Arc;

use rusqlite::Connection;

use super::op::Run;
use super::rows::{self, SqlResult};
use crate::error::{Cause, Error};
use crate::queue::InstanceRow;

/// Why a history cannot be delivered.
pub(super) enum NoHistory {
    /// SQLite cannot read it.
    Unread(rusqlite::Error),
    /// It can be read, and is not what was written.
    Contradicted(Contradiction),
}

impl From<rusqlite::Error> for NoHistory {
    fn from(error: rusqlite::Error) -> Self {
        NoHistory::Unread(error)
    }
}

impl NoHistory {
    pub(super) fn is_unread(&self) -> bool {
        matches!(self, NoHistory::Unread(_))
    }

    /// What is damaged; or SQLite's own error back, if nothing is.
    pub(super) fn damage(self) -> SqlResult<Cause> {
        Ok(match self {
            NoHistory::Unread(error) => Arc::new(Error::damage(error)?),
            NoHistory::Contradicted(contradiction) => Arc::new(contradiction),
        })
    }
}

/// What the rows of an instance say, and cannot both be true.
#[derive(Debug)]
pub(super) enum Contradiction {
    /// An execution comes after the latest.
    LaterExecution { latest: u64 },
    /// The latest has neither a row of its own nor a history.
    NoExecution { latest: u64 },
    /// A row of a history is found in that of another execution.
    Strayed { to: u64 },
}

impl std::fmt::Display for Contradiction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the rows of its instance contradict each other: ")?;
        match self {
            Contradiction::LaterExecution { latest } => {
                write!(f, "the latest execution is said to be {latest}, and there is one after it")
            }
            Contradiction::NoExecution { latest } => {
                write!(f, "the latest execution is said to be {latest}, of which there is nothing")
            }
            Contradiction::Strayed { to } => write!(f, "a part of it is found under execution {to}"),
        }
    }
}

impl std::error::Error for Contradiction {}

/// Looks for a contradiction around a history that was read from its rows.
pub(super) fn check(
    connection: &Connection,
    id: &str,
    row: &InstanceRow,
    history: &[Arc<Run>],
) -> Result<(), NoHistory> {
    let latest = row.execution;
    let (later_execution, later_history) = rows::later_than(connection, row.key, latest)?;
    if later_execution {
        return Err(NoHistory::Contradicted(Contradiction::LaterExecution { latest }));
    }
    // Only a turn names an instance, and writes the row of an execution with it.
    if row.name.is_some() && !row.has_execution && history.is_empty() {
        return Err(NoHistory::Contradicted(Contradiction::NoExecution { latest }));
    }
    // Every record there is has to be read for it, so there has to be a reason.
    if (later_history || !is_whole(history))
        && let Some(to) = rows::strayed(connection, row.key, id, latest)?
    {
        return Err(NoHistory::Contradicted(Contradiction::Strayed { to }));
    }
    Ok(())
}

/// Whether a history goes on without a gap from its first event, as the runtime's do.
fn is_whole(history: &[Arc<Run>]) -> bool {
    let mut next = 1;
    let in_turn = |run: &Arc<Run>| {
        let follows = run.first_event == next;
        next = run.last_event.saturating_add(1);
        follows
    };
    !history.is_empty() && history.iter().all(in_turn)
}
