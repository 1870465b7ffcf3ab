//! The store that group commit drives for closures: a savepoint for each, one transaction for all.
//!
//! Closures are gathered by `apply` and run by `settle`, because only there the batch's transaction can be
//! lent to them. Arrival order is kept. A closure runs at most once, so a batch that is lost as a whole is
//! not run again: its callers hear that it was rolled back.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, Transaction};

use super::guard::{Guard, Lost};
use crate::buffer::{CommitError, CommitNo, Counters, Replies, Responder, Store, cause_of};
use crate::clock::Clock;
use crate::database::{Held, Opening};
use crate::error::Error;
use crate::sqlite::{self, Control, Location, Soon, WriteConnection};

/// After how many batches of one closure each the writer syncs by itself.
const ALONE_MAX: u32 = 2;

/// For how many batches closures are committed one by one after one that found the disk full.
const ONE_BY_ONE_BATCHES: u32 = 64;

/// A closure without its result, which it leaves in a place of its own.
pub(crate) type Operation = Box<dyn FnOnce(&Transaction<'_>) -> Result<(), Failed> + Send>;

/// A closure has failed, and what it did is to be undone.
pub(crate) enum Failed {
    /// Its error is where its value would be.
    ByItself,
    /// Its caller is to be told this.
    With(Error),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::With(error)
    }
}

pub(crate) struct ClosureStore {
    connection: WriteConnection,
    /// IMPORTANT: after the connection, which calls it.
    guard: Guard,
    clock: Arc<dyn Clock>,
    counters: Arc<Counters>,
    gathered: Vec<(Operation, Responder<()>)>,
    /// Set when nobody can tell what became of the batch that is about to be rolled back.
    outcome_unknown: Option<Error>,
    /// For how many batches closures are still committed one by one.
    one_by_one: u32,
    /// How many batches of one closure alone have followed each other.
    alone: u32,
    /// Dropped last, when the connection is gone.
    _held: Held,
}

impl ClosureStore {
    pub(crate) fn open(opening: Opening<'_>) -> Result<Self, Error> {
        let Opening { location, options, counters, readers, horizon, patience, held } = opening;
        let mut connection = sqlite::open_unchanged(location, patience)?;
        refuse_engine_file(&connection, location)?;
        sqlite::configure_writer(&connection, location, options, readers.as_deref(), patience)?;
        let guard = Guard::install(&mut connection)?;
        let connection = WriteConnection::new(
            connection,
            location,
            options,
            Arc::clone(&counters),
            readers,
            horizon,
            held.owner(),
        )?;
        let clock = options.clock_or_system();
        let (gathered, outcome_unknown, one_by_one, alone) = (Vec::new(), None, 0, 0);
        Ok(Self {
            connection,
            guard,
            clock,
            counters,
            gathered,
            outcome_unknown,
            one_by_one,
            alone,
            _held: held,
        })
    }

    /// Runs one closure so that it leaves everything or nothing. The answer of one that has failed by itself is `Ok`: what
    /// it returned is its caller's, whatever it is.
    fn run(
        guard: &Guard,
        control: &Control,
        transaction: &Transaction<'_>,
        operation: Operation,
    ) -> Result<Result<(), Error>, Lost> {
        statement(transaction, &control.savepoint)?;
        let armed = guard.arm();
        let outcome = catch_unwind(AssertUnwindSafe(|| operation(transaction)));
        let outcome = match outcome {
            Ok(result) => result.map_err(|failed| guard.explain(failed)),
            Err(panic) => {
                let message = panic_message(panic.as_ref());
                drop_quietly(panic);
                Err(Failed::With(Error::Panicked { message }))
            }
        };
        let mut release = guard.inspect(armed, transaction)?;
        let outcome = outcome
            .and_then(|()| Ok(guard.check_temporary(transaction)?))
            .and_then(|()| Ok(check_foreign_keys(transaction)?));
        if outcome.is_err() {
            statement(transaction, &control.rollback_to)?;
        }
        release.execute([]).map_err(Error::from)?;
        Ok(match outcome {
            Ok(()) | Err(Failed::ByItself) => Ok(()),
            Err(Failed::With(error)) => Err(error),
        })
    }

    /// Runs everything that was gathered, up to the first closure that loses the batch.
    fn run_gathered(&mut self, out: &mut Replies<()>) -> Result<(), Lost> {
        let mut gathered = std::mem::take(&mut self.gathered).into_iter();
        let no = self.connection.next_commit();
        let result = match self.connection.transaction() {
            Ok((transaction, control)) => gathered.by_ref().try_for_each(|(operation, responder)| {
                match Self::run(&self.guard, control, &transaction, operation) {
                    Ok(outcome) => out.push_after(no, responder, outcome),
                    Err(Lost::ByClosure(error)) => {
                        // Its own answer; the others are told that the batch was rolled back.
                        out.push_standing(responder, Err(error.clone()));
                        return Err(Lost::RolledBack(error));
                    }
                    Err(lost) => {
                        // The buffer overwrites it.
                        out.push(responder, Err(Error::Closed));
                        return Err(lost);
                    }
                }
                Ok(())
            }),
            Err(error) => Err(error.into()),
        };
        leave_unrun(gathered, out);
        result
    }

    /// Runs everything that was gathered, each closure in a transaction of its own.
    fn run_one_by_one(&mut self, out: &mut Replies<()>) -> Result<(), Lost> {
        let mut gathered = std::mem::take(&mut self.gathered).into_iter();
        let result = gathered.by_ref().try_for_each(|(operation, responder)| {
            let no = self.connection.next_commit();
            let ran = match self.connection.transaction() {
                Ok((transaction, control)) => Self::run(&self.guard, control, &transaction, operation),
                Err(error) => Err(error.into()),
            };
            let committed = ran.and_then(|outcome| {
                self.counters.time_commit(|| self.connection.commit(self.clock.monotonic(), Soon::Now))?;
                Ok(outcome)
            });
            match committed {
                Ok(outcome) => out.push_standing_after(no, responder, outcome),
                Err(Lost::RolledBack(error)) => {
                    Counters::add(&self.counters.rolled_back, 1);
                    out.push_standing(responder, Err(Error::RolledBack { source: cause_of(&error) }));
                    self.connection.rollback_at_once()?;
                }
                Err(Lost::ByClosure(error)) => {
                    Counters::add(&self.counters.rolled_back, 1);
                    out.push_standing(responder, Err(error));
                    self.connection.rollback_at_once()?;
                }
                Err(lost) => {
                    out.push(responder, Err(Error::Closed));
                    return Err(lost);
                }
            }
            Ok(())
        });
        leave_unrun(gathered, out);
        self.connection.wait_for_room();
        result
    }
}

/// Those that did not get to run share the fate of the batch.
fn leave_unrun(closures: impl Iterator<Item = (Operation, Responder<()>)>, out: &mut Replies<()>) {
    for (operation, responder) in closures {
        drop_quietly(operation);
        out.push(responder, Err(Error::Closed));
    }
}

/// Deferred foreign keys are checked by SQLite at COMMIT, where they would fail the whole batch.
fn check_foreign_keys(transaction: &Transaction<'_>) -> Result<(), Error> {
    if sqlite::has_unresolved_foreign_keys(transaction) {
        // What SQLite says of one that is not deferred.
        let failure = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CONSTRAINT_FOREIGNKEY);
        let message = "a deferred foreign key is violated at the end of the closure".to_owned();
        return Err(rusqlite::Error::SqliteFailure(failure, Some(message)).into());
    }
    Ok(())
}

fn refuse_engine_file(connection: &Connection, location: &Location) -> Result<(), Error> {
    let application_id: i64 = connection.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    match location {
        Location::File(path) if application_id == sqlite::ENGINE_APPLICATION_ID => {
            Err(Error::ForeignDatabase {
                path: path.clone(),
                made_by: "forebay's orchestration engine (Forebay::open opens it)".into(),
            })
        }
        _ => Ok(()),
    }
}

fn statement(connection: &Connection, sql: &str) -> Result<(), Error> {
    connection.prepare_cached(sql)?.execute([])?;
    Ok(())
}

/// Drops what a stranger made: a panic of its `Drop` ends here.
fn drop_quietly<T>(value: T) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(value))) {
        // Its own `Drop` may panic as well, and so on.
        std::mem::forget(panic);
    }
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(message), _) => (*message).to_owned(),
        (_, Some(message)) => message.clone(),
        _ => "a panic without a message".to_owned(),
    }
}

impl Store for ClosureStore {
    type Op = Operation;
    type Reply = ();

    fn tick(&mut self, _out: &mut Replies<()>) {}

    fn apply(
        &mut self,
        operation: Operation,
        responder: Responder<()>,
        _out: &mut Replies<()>,
    ) -> Result<(), Error> {
        self.gathered.push((operation, responder));
        Ok(())
    }

    fn settle(&mut self, out: &mut Replies<()>) -> Result<(), Error> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        self.alone = if self.gathered.len() == 1 { self.alone.saturating_add(1) } else { 0 };
        let ran = match self.one_by_one {
            0 => self.run_gathered(out),
            _ => self.run_one_by_one(out),
        };
        ran.map_err(|lost| match lost {
            Lost::RolledBack(error) | Lost::ByClosure(error) => error,
            Lost::Unknown(error) => {
                self.outcome_unknown = Some(error.clone());
                error
            }
        })
    }

    fn commit(&mut self) -> Result<(), CommitError> {
        // One thread that waits for each: nothing comes in while this one syncs.
        let soon = if self.alone > ALONE_MAX { Soon::Here } else { Soon::Now };
        self.connection.commit(self.clock.monotonic(), soon)
    }

    fn rollback(&mut self) -> Result<(), CommitError> {
        let rolled_back = self.connection.rollback();
        match self.outcome_unknown.take() {
            Some(error) => Err(CommitError::Unknown(error)),
            None => rolled_back.map_err(CommitError::Unknown),
        }
    }

    fn last_commit(&self) -> CommitNo {
        self.connection.last_commit()
    }

    fn maintain(&mut self) -> Result<(), Error> {
        self.one_by_one = match self.connection.is_short_of_room() {
            true => ONE_BY_ONE_BATCHES,
            false => self.one_by_one.saturating_sub(1),
        };
        self.connection.maintain(self.clock.monotonic())
    }

    fn wait(&self) -> Option<Duration> {
        self.connection.wait(self.clock.monotonic())
    }

    fn abandon(&mut self, error: &Error) {
        for (operation, responder) in self.gathered.drain(..) {
            drop_quietly(operation);
            let _ = responder.send(Err(error.clone()));
        }
    }

    fn close(&mut self) -> Result<(), Error> {
        self.connection.close()
    }

    fn let_go(&mut self) {
        self.connection.let_go();
    }
}
