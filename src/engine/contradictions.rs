//! Rows of an instance that are sound one by one, and contradict each other.
//!
//! What damage makes of the number of an execution hides a history rather than making it unreadable: the turn would
//! come with none, or without a part of it, as if that had never happened, and its messages would be lost. Only what
//! the engine never writes is a contradiction. A history may well be empty, have gaps, or be that of an execution to
//! come (`append_with_execution`); it is the checksum of a record that tells where its row belongs.

use std::sync::Arc;

use crate::codec;
use crate::error::{Cause, Error};
use crate::rows::{HistoryFound, InstanceRows, Reads, Run};

/// Why a history cannot be delivered.
pub(super) enum NoHistory {
    /// It cannot be read.
    Unread(Error),
    /// It can be read, and is not what was written.
    Contradicted(Contradiction),
}

impl From<Error> for NoHistory {
    fn from(error: Error) -> Self {
        NoHistory::Unread(error)
    }
}

impl NoHistory {
    /// What is damaged; or the error back, if nothing is.
    pub(super) fn damage(self) -> Result<Cause, Error> {
        match self {
            NoHistory::Unread(error) if !error.is_damage() => Err(error),
            NoHistory::Unread(damage) => Ok(Arc::new(damage)),
            NoHistory::Contradicted(contradiction) => Ok(Arc::new(contradiction)),
        }
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
    reads: &dyn Reads,
    id: &str,
    rows: &InstanceRows,
    found: &HistoryFound,
) -> Result<(), NoHistory> {
    let latest = rows.execution;
    if found.later_execution {
        return Err(NoHistory::Contradicted(Contradiction::LaterExecution { latest }));
    }
    // Only a turn names an instance, and writes the row of an execution with it.
    if rows.is_named() && !rows.latest.exists && found.runs.is_empty() {
        return Err(NoHistory::Contradicted(Contradiction::NoExecution { latest }));
    }
    // Every record there is has to be read for it, so there has to be a reason.
    let is_of_it = |record: &[u8]| codec::is_bound_to(record, id, latest);
    if (found.later_history || !is_whole(&found.runs))
        && let Some(to) = reads.strayed(rows.key, latest, &is_of_it)?
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
