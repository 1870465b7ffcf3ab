//! The orchestration engine: the store that group commit drives for duroxide.
//!
//! ```text
//!   prepare ──► what memory does not know of the instances at hand is asked for    (lookup.rs)
//!   Op ──► apply ──► checks ──► memory (queue/) ──► rows staged                    (turn.rs, apply.rs)
//!   settle: match parked fetches with ready work, load what the grants need        (matching.rs, grants.rs)
//!           ──► RowStore::write: the whole batch ──► COMMIT
//! ```
//!
//! Invariants:
//! - an operation makes all its checks before it stages a row or touches the queue, so one that is refused leaves
//!   no trace; an error while the batch is written undoes all of it;
//! - rows are read before anything of the batch is written, many in one call;
//! - a grant and its attempt count are in the same commit, and nobody sees the grant before it;
//! - memory changes first, and is as it was before the batch if that is rolled back (undo.rs);
//! - an answer that is true whatever becomes of the batch is given whatever becomes of the batch.

mod apply;
mod changed;
mod contradictions;
mod cycle;
mod deletion;
mod due;
mod grants;
mod histories;
mod load;
mod lookup;
mod matching;
mod op;
pub(crate) mod returns;
mod state;
#[cfg(all(test, feature = "test-hooks"))]
mod tests;
mod tokens;
mod turn;
mod undo;
mod unreadable;

use std::time::{Duration, Instant};

pub(crate) use apply::invalid_token;
pub(crate) use changed::Changed;
pub(crate) use histories::Histories;
use histories::HistoryChange;
pub(crate) use op::{
    Abandon, FetchTurn, FetchWork, GrantBody, KvChange, NewMessage, NewWork, Op, Renew, Reply, Submitted,
    TurnAck, TurnGrant, Visible, WorkGrant,
};
use returns::Return;
pub(crate) use state::Shared;
use state::{Batch, Damage, TurnFetch, TurnLease, TurnQueue, WorkFetch, WorkQueue};
pub(crate) use tokens::Tokens;
use undo::Undo;

use crate::buffer::{CommitError, Replies, Store};
use crate::clock::Clock;
use crate::database::Opening;
use crate::error::Error;
use crate::queue::{BodyBudget, LeaseNo, Now, Schedule};
use crate::rows::sqlite::{SqliteRows, schema};
use crate::rows::{InstanceKey, RowStore, Staged, WriteError};
use crate::sqlite::{self, WriteConnection};

/// How much the decoded items of waiting messages may take in memory; the others are read when they are due.
const BODIES_BYTES_MAX: usize = 32 << 20;

/// While a timer is pending the wall clock is looked at this often, because nothing tells a sleeping thread
/// that an administrator has moved it.
const WALL_CLOCK_RECHECK: Duration = Duration::from_secs(1);

/// How long a fetch that found nothing is held for grants that are on their way to somebody else. Real time,
/// whatever the clock of the engine is: it bounds how slow an executor may be to poll a future.
const ON_ITS_WAY_MAX: Duration = Duration::from_millis(10);

/// Why an operation did not succeed.
enum Stop {
    /// It was refused; it left no trace. `stands` says that it would have been refused without the batch, too.
    Refused { error: Error, stands: bool },
    /// The store failed under it; the batch cannot go on.
    Batch(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Stop::Batch(error)
    }
}

/// See the module's documentation.
pub(crate) struct Engine {
    store: Box<dyn RowStore>,
    now: Now,
    batch: Batch,
    staged: Staged,
    turns: TurnQueue,
    work: WorkQueue,
    damage: Damage,
    bodies: BodyBudget,
    sync_acks: bool,
    /// A batch was rolled back: what it left parked is matched again without waiting for a reason.
    rematch: bool,
    /// Since when fetches are held for grants on their way.
    held_since: Option<Instant>,
    /// The key of the next instance; `None` before the first is needed.
    next_key: Option<InstanceKey>,
    next_lease: LeaseNo,
    /// IMPORTANT: dropped last, when the store is gone.
    shared: Shared,
}

impl Engine {
    /// Opens the database and schedules everything in it.
    pub(crate) fn open(opening: Opening<'_>, shared: Shared) -> Result<Self, Error> {
        let Opening { location, options, counters, readers, horizon, patience, held } = opening;
        let connection = sqlite::open_unchanged(location, patience)?;
        let found = schema::recognise(&connection, location)?;
        schema::size_pages(&connection, found)?;
        sqlite::configure_writer(&connection, location, options, readers.as_deref(), patience)?;
        schema::prepare(&connection, found)?;
        let owner = held.owner();
        let connection =
            WriteConnection::new(connection, location, options, counters, readers, horizon, owner)?;
        Self::over(Box::new(SqliteRows::new(connection)), options.sync_acks, shared)
    }

    /// An engine over rows that somebody else has opened; schedules everything in them.
    pub(crate) fn over(store: Box<dyn RowStore>, sync_acks: bool, shared: Shared) -> Result<Self, Error> {
        let mut engine = Self {
            store,
            now: now(shared.clock.as_ref()),
            batch: Batch::default(),
            staged: Staged::default(),
            turns: TurnQueue::default(),
            work: WorkQueue::default(),
            damage: Damage::default(),
            bodies: BodyBudget::new(BODIES_BYTES_MAX),
            sync_acks,
            rematch: false,
            held_since: None,
            next_key: None,
            next_lease: 1,
            shared,
        };
        engine.load()?;
        Ok(engine)
    }

    /// Whether the batch has changed the rows of an instance.
    fn has_changed(&self, instance: &str) -> bool {
        let changes = |change: &HistoryChange| change.writes() && **change.instance() == *instance;
        self.batch.history_changes.iter().any(changes)
    }

    /// Writes what is staged.
    fn write(&mut self) -> Result<(), WriteError> {
        self.staged.messages.forget_deletes(&self.damage.undeletable.messages);
        self.staged.work.forget_deletes(&self.damage.undeletable.work);
        if self.staged.is_empty() {
            return Ok(());
        }
        self.batch.has_written = true;
        let written = self.store.write(&mut self.staged, self.now.monotonic);
        if let Err(WriteError { error, damaged: Some(row) }) = &written {
            self.note_undeletable_row(*row, error);
        }
        written
    }

    /// Ends the leases that have run out. IMPORTANT: after the operations of the batch: those that arrived in
    /// time count, however long the writer was busy with something else.
    fn expire(&mut self) {
        // Operations come in the order in which they were submitted, so what still waits came after the last.
        let horizon =
            if self.batch.is_behind { self.batch.at.min(self.now.monotonic) } else { self.now.monotonic };
        while let Some((no, lease)) = self.turns.leases.pop_expired(horizon) {
            tracing::debug!(lease = no, "turn lease expired");
            self.put_back_turn(no, lease, None, false);
        }
        while let Some((no, id)) = self.work.leases.pop_expired(horizon) {
            tracing::debug!(lease = no, "work lease expired");
            self.work.items.release(id, None, false, self.now);
        }
    }

    /// Stages what makes rows say how often their items were tried.
    fn put_attempts_right(&mut self, all: bool) {
        self.staged.messages.put_attempts_right(self.now.monotonic, all);
        self.staged.work.put_attempts_right(self.now.monotonic, all);
    }

    /// Before the database is closed. Where it cannot be done the counts are one too high, which nobody has to hear of.
    fn put_all_attempts_right(&mut self) -> Result<(), Error> {
        self.take_returns();
        self.put_attempts_right(true);
        let written = self.write().map_err(|unwritten| CommitError::RolledBack(unwritten.error));
        match written.and_then(|()| Store::commit(self)) {
            Ok(()) => Ok(()),
            Err(CommitError::RolledBack(error)) => {
                tracing::warn!(
                    error = format_args!("{error:#}"),
                    "attempts that were counted ahead could not be put right"
                );
                self.store.rollback_at_once()
            }
            Err(CommitError::Unknown(error)) => Err(error),
        }
    }

    fn take_returns(&mut self) {
        for returned in self.shared.returns.take() {
            match returned {
                Return::Fetch(no) => {
                    if self.turns.parked.take(no).is_none() {
                        self.work.parked.take(no);
                    }
                }
                Return::Turn(no) => {
                    if let Some((_, lease)) = self.turns.leases.end(no) {
                        for (id, message) in &lease.messages {
                            let attempt = message.attempt.saturating_sub(1);
                            let schedule = Schedule { visible_at_ms: message.visible_at_ms, attempt };
                            self.batch.undo.push(Undo::MessageTakenBack { id: *id, schedule });
                        }
                        self.put_back_turn(no, lease, None, true);
                    }
                }
                Return::Work(no) => {
                    if let Some((_, id)) = self.work.leases.end(no)
                        && let Some(schedule) = self.work.items.take_back(id, no, self.now)
                    {
                        self.batch.undo.push(Undo::WorkTakenBack { id, schedule });
                        self.staged.work.set_attempt(id, schedule);
                    }
                }
            }
        }
    }

    /// Tells the fetches whose time is up that there was nothing, unless a grant that is on its way to
    /// somebody else may still come back, or the next batch goes on with what this one did not get to.
    fn answer_unserved(&mut self, out: &mut Replies<Reply>) {
        let now = self.now.monotonic;
        let patient = self.held_since.is_none_or(|since| since.elapsed() < ON_ITS_WAY_MAX);
        let unfinished = self.turns.looks_left || self.more_is_due();
        let hold = unfinished || (patient && self.shared.returns.turns_on_their_way());
        while let Some(fetch) = self.turns.parked.pop_unserved(now, hold) {
            out.push_standing(fetch.responder, Ok(Reply::Turn(None)));
        }
        let hold = patient && self.shared.returns.work_on_its_way();
        while let Some(fetch) = self.work.parked.pop_unserved(now, hold) {
            out.push_standing(fetch.responder, Ok(Reply::Work(None)));
        }
        let holds = self.turns.parked.holds() || self.work.parked.holds();
        self.held_since = match (holds, unfinished) {
            (false, _) => None,
            // The time for grants on their way begins when nothing else is left to do.
            (true, true) => Some(Instant::now()),
            (true, false) => self.held_since.or_else(|| Some(Instant::now())),
        };
        self.shared.returns.report_receipts(holds);
    }
}

fn now(clock: &dyn Clock) -> Now {
    Now { monotonic: clock.monotonic(), wall_ms: clock.wall_ms() }
}
