//! What is done with what cannot be read.
//!
//! A row that is damaged stops nobody but those that need it. A queued row is *set aside*: it stays in the file as it
//! is, untouched, nobody is given it, and it is logged and counted. A history is delivered as an error, so that the
//! runtime can end its instance. An instance whose own rows are damaged is held back. (What cannot be deleted is found when
//! the batch is written, which is then rolled back, once: what was found is remembered.)
//!
//! A read that fails for another reason (an I/O error) may work the next time. The fetch that needed it hears of it
//! and may try again; what fails again and again is held back for a while, so that one bad sector does not stop
//! everything behind it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::{Engine, Stop, TurnLease};
use crate::buffer::Counters;
use crate::error::{Cause, Error};
use crate::queue::{InstanceNo, MessageId, WorkId};
use crate::rows::Damaged;

/// How long something is held back whose reads fail without its being damaged.
const HELD_BACK: Duration = Duration::from_secs(10);

/// How many fetches hear of the same thing before it is held back: a disk that fails for a moment delays nothing.
const TRIES_MAX: u32 = 5;

/// How many of them are remembered: enough for a bad sector or two. A disk on which more fails has other troubles.
const SUSPECTS_MAX: usize = 64;

/// How many queued rows that cannot be deleted are remembered.
const UNDELETABLE_MAX: usize = 4096;

/// How many histories that were found damaged are remembered.
const DAMAGED_HISTORIES_MAX: usize = 1024;

/// What could not be deleted, because it is damaged.
#[derive(Default)]
pub(super) struct Undeletable {
    pub(super) messages: HashSet<MessageId>,
    pub(super) work: HashSet<WorkId>,
    /// Instances, with what was found.
    instances: HashMap<String, Error>,
}

impl Undeletable {
    /// Whether it is a queued row, of which it is known already.
    fn has(&self, table: &str, id: i64) -> bool {
        let rows = if table == "work" { &self.work } else { &self.messages };
        rows.contains(&id)
    }
}

/// Something that could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Suspect {
    Instance(InstanceNo),
    Work(WorkId),
}

impl Engine {
    /// The rows of an instance, or something else that its turn needs, cannot be read. An error is for the fetch that
    /// was to have it; `None` says that it is out of the way, and there may be something else for that fetch.
    pub(super) fn hold_back_turn(&mut self, instance: InstanceNo, error: Error) -> Option<Error> {
        let until = match self.verdict(Suspect::Instance(instance), error) {
            Verdict::Retry(error) => return Some(error),
            Verdict::HoldBack { until, error } => {
                if let Some(id) = self.turns.instances.id(instance).cloned() {
                    tracing::error!(instance = %id, error = format_args!("{error:#}"), "an instance is held back: it cannot be read");
                }
                until
            }
        };
        // A lease that nobody has.
        let lease = self.new_lease();
        let messages = self.turns.instances.lease(instance, lease);
        self.turns.leases.grant(lease, until, TurnLease { instance, messages });
        None
    }

    /// The same for an activity.
    pub(super) fn hold_back_work(&mut self, id: WorkId, error: Error) -> Option<Error> {
        let instance = self
            .work
            .items
            .get(id)
            .map_or_else(|| Arc::from(""), |entry| Arc::clone(&entry.activity.instance));
        match self.verdict(Suspect::Work(id), error) {
            Verdict::Retry(error) => return Some(error),
            Verdict::HoldBack { until: Duration::MAX, error } => {
                // Out of memory, so that nobody touches its row.
                self.work.items.remove(id);
                self.log_set_aside("work", id, &instance, &error);
            }
            Verdict::HoldBack { until, error } => {
                tracing::error!(id, %instance, error = format_args!("{error:#}"), "an activity is held back: it cannot be read");
                let lease = self.new_lease();
                self.work.items.lease(id, lease, None, self.now);
                self.work.leases.grant(lease, until, id);
            }
        }
        None
    }

    /// A queued row is damaged: whoever called has seen to it that nobody is given it any more.
    pub(super) fn set_aside(&self, table: &str, id: i64, instance: &str, error: &Error) {
        // One that could not be deleted has been counted.
        Counters::add(&self.shared.counters.set_aside, u64::from(!self.damage.undeletable.has(table, id)));
        self.log_set_aside(table, id, instance, error);
    }

    fn log_set_aside(&self, table: &str, id: i64, instance: &str, error: &Error) {
        tracing::error!(
            table,
            id,
            instance,
            error = format_args!("{error:#}"),
            "a row is set aside: it is damaged, and stays as it is"
        );
    }

    /// What became of deleting an instance, or of looking at what goes with it. Damage costs its batch, for SQLite writes
    /// nothing more in a transaction that has met any; it is remembered, and does so once. Whoever hears of it hears of
    /// the way out.
    pub(super) fn note_undeletable<T>(&mut self, id: &str, outcome: Result<T, Stop>) -> Result<T, Stop> {
        match outcome {
            Err(Stop::Batch(error)) if error.is_damage() => {
                tracing::error!(
                    instance = id,
                    error = format_args!("{error:#}"),
                    "an instance cannot be deleted: its rows are damaged"
                );
                let (record, found) = match error {
                    Error::Corrupt { record, source } => (record, source),
                    other => (format!("instance {id}"), Arc::new(other) as Cause),
                };
                let error = Error::Corrupt { record, source: Arc::new(WayOut(found)) };
                if self.damage.undeletable.instances.len() < DAMAGED_HISTORIES_MAX {
                    self.damage.undeletable.instances.insert(id.to_owned(), error.clone());
                }
                Err(Stop::Batch(error))
            }
            outcome => outcome,
        }
    }

    /// A queued row cannot be deleted. It stays where it is from now on.
    pub(super) fn note_undeletable_row(&mut self, row: Damaged, error: &Error) {
        let (table, id, rows) = match row {
            Damaged::Message(id) => ("messages", id, &mut self.damage.undeletable.messages),
            Damaged::Work(id) => ("work", id, &mut self.damage.undeletable.work),
            // Whoever deletes one says so.
            Damaged::Instance { .. } => return,
        };
        if rows.len() < UNDELETABLE_MAX && rows.insert(id) {
            tracing::error!(
                table,
                id,
                error = format_args!("{error:#}"),
                "a row cannot be deleted: it is damaged, and stays as it is"
            );
            Counters::add(&self.shared.counters.set_aside, 1);
        }
    }

    /// Why an instance cannot be deleted, if that is known.
    pub(super) fn undeletable(&self, id: &str) -> Option<Stop> {
        let error = self.damage.undeletable.instances.get(id)?.clone();
        Some(Stop::Refused { error, stands: true })
    }

    /// What was found when a history was last read, if that was damage.
    pub(super) fn damaged_history(&self, instance: &str, execution: u64) -> Option<Error> {
        let (of, error) = self.damage.histories.get(instance)?;
        (*of == execution).then(|| error.clone())
    }

    /// A history, or the key-values delivered with it, is damaged; the error names it.
    pub(super) fn note_damaged_history(
        &mut self,
        instance: &Arc<str>,
        execution: u64,
        found: Cause,
    ) -> Error {
        if self.damage.histories.len() >= DAMAGED_HISTORIES_MAX {
            self.damage.histories.clear();
        }
        let record = format!("the history of instance {instance}, execution {execution}");
        let error = Error::Corrupt { record, source: found };
        self.damage.histories.insert(Arc::clone(instance), (execution, error.clone()));
        error
    }

    fn verdict(&mut self, suspect: Suspect, error: Error) -> Verdict {
        if error.is_damage() {
            let counted = matches!(suspect, Suspect::Work(id) if self.damage.undeletable.has("work", id));
            Counters::add(&self.shared.counters.set_aside, u64::from(!counted));
            return Verdict::HoldBack { until: Duration::MAX, error };
        }
        if self.damage.suspects.len() >= SUSPECTS_MAX {
            self.damage.suspects.clear();
        }
        let tries = self.damage.suspects.entry(suspect).or_default();
        *tries += 1;
        if *tries > TRIES_MAX {
            *tries = 0;
            return Verdict::HoldBack { until: self.now.monotonic.saturating_add(HELD_BACK), error };
        }
        Verdict::Retry(Error::RolledBack { source: Arc::new(error) })
    }
}

enum Verdict {
    /// It may work the next time.
    Retry(Error),
    /// It is damaged (`Duration::MAX`), or has failed too often.
    HoldBack { until: Duration, error: Error },
}

/// Damage to an instance that was to be deleted, and what can be done about it.
#[derive(Debug)]
struct WayOut(Cause);

impl std::fmt::Display for WayOut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self(found) = self;
        write!(f, "{found}; its instance cannot be deleted")
    }
}

impl std::error::Error for WayOut {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(self.0.as_ref())
    }
}
