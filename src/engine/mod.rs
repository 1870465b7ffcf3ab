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
mod deletion;
mod due;
mod grants;
mod histories;
mod load;
mod lookup;
mod matching;
mod op;
pub(crate) mod returns;
#[cfg(all(test, feature = "test-hooks"))]
mod tests;
mod turn;
mod undo;
mod unreadable;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

pub(crate) use apply::invalid_token;
pub(crate) use changed::Changed;
pub(crate) use histories::Histories;
use grants::Granted;
use histories::HistoryChange;
use lookup::Prefetched;
use matching::Accepts;
pub(crate) use op::{
    Abandon, FetchTurn, FetchWork, GrantBody, KvChange, NewMessage, NewWork, Op, Renew, Reply, Submitted,
    TurnAck, TurnGrant, Visible, WorkGrant,
};
use returns::{Return, Returns};

use crate::buffer::{CommitError, CommitNo, Counters, Horizon, Replies, Responder, Store};
use crate::clock::Clock;
use crate::database::{Held, Opening};
use crate::error::Error;
use crate::queue::{
    BodyBudget, FetchNo, InstanceNo, LeaseNo, Leases, Message, MessageId, Now, ParkedAlike, Schedule, Turns,
    Work, WorkFetches, WorkId,
};
use crate::rows::sqlite::{SqliteRows, schema};
use crate::rows::{InstanceKey, InstanceRows, RowStore, Staged, WriteError};
use crate::sqlite::{self, WriteConnection};
use undo::Undo;
use unreadable::{Suspect, Undeletable};

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

/// What an unfinished turn holds.
struct TurnLease {
    instance: InstanceNo,
    messages: BTreeMap<MessageId, Message>,
}

struct TurnFetch {
    no: FetchNo,
    deadline: Duration,
    lock_timeout: Duration,
    responder: Responder<Reply>,
}

struct WorkFetch {
    no: FetchNo,
    deadline: Duration,
    lock_timeout: Duration,
    /// How long a session that comes with the grant is claimed for.
    session_timeout: Duration,
    responder: Responder<Reply>,
}

/// What the engine shares with its handles.
pub(crate) struct Kept {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) returns: Arc<Returns>,
    pub(crate) histories: Arc<Histories>,
    pub(crate) changed: Arc<Changed>,
    pub(crate) horizon: Arc<Horizon>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) held: Held,
}

/// See the module's documentation.
pub(crate) struct Engine {
    store: Box<dyn RowStore>,
    clock: Arc<dyn Clock>,
    now: Now,
    /// When the operation at hand was submitted.
    at: Duration,
    /// Whether the batch was full: then no lease is over that an operation still waiting could have renewed.
    is_behind: bool,
    turns: Turns<Arc<InstanceRows>>,
    turn_leases: Leases<TurnLease>,
    parked_turns: ParkedAlike<Accepts, TurnFetch>,
    /// Some instances have to be looked at before every parked fetch has what it may have, or has nothing.
    looks_left: bool,
    work: Work,
    work_leases: Leases<WorkId>,
    parked_work: WorkFetches<WorkFetch>,
    /// A batch was rolled back: what it left parked is matched again without waiting for a reason.
    rematch: bool,
    /// Whether the batch had operations.
    has_operations: bool,
    /// What was asked for before the operations of the batch.
    prefetched: Prefetched,
    staged: Staged,
    granted: Vec<Granted>,
    /// Whether a part of the batch has been written already.
    has_written: bool,
    /// Histories that were found damaged, with the execution: they are not read again.
    damaged_histories: HashMap<Arc<str>, (u64, Error)>,
    undeletable: Undeletable,
    /// Since when fetches are held for grants on their way.
    held_since: Option<Instant>,
    undo: Vec<Undo>,
    histories: Arc<Histories>,
    changed: Arc<Changed>,
    horizon: Arc<Horizon>,
    sync_acks: bool,
    history_changes: Vec<HistoryChange>,
    /// The key of the next instance; `None` before the first is needed.
    next_key: Option<InstanceKey>,
    next_message: MessageId,
    next_work: WorkId,
    next_lease: LeaseNo,
    bodies: BodyBudget,
    counters: Arc<Counters>,
    /// What could not be read when it was to be granted, and how often, but may be the next time.
    suspects: HashMap<Suspect, u32>,
    returns: Arc<Returns>,
    /// Released last, when the connection is gone: dropping them lets the next open go ahead.
    _held: Held,
}

impl Engine {
    /// Opens the database and schedules everything in it.
    pub(crate) fn open(opening: Opening<'_>, kept: Kept) -> Result<Self, Error> {
        let Opening { location, options, counters, readers, horizon, patience, held } = opening;
        let connection = sqlite::open_unchanged(location, patience)?;
        let found = schema::recognise(&connection, location)?;
        schema::size_pages(&connection, found)?;
        sqlite::configure_writer(&connection, location, options, readers.as_deref(), patience)?;
        schema::prepare(&connection, found)?;
        let owner = held.owner();
        let connection =
            WriteConnection::new(connection, location, options, counters, readers, horizon, owner)?;
        Self::over(Box::new(SqliteRows::new(connection)), options.sync_acks, kept)
    }

    /// An engine over rows that somebody else has opened; schedules everything in them.
    pub(crate) fn over(store: Box<dyn RowStore>, sync_acks: bool, kept: Kept) -> Result<Self, Error> {
        let Kept { clock, returns, histories, changed, horizon, counters, held } = kept;
        let mut engine = Self {
            store,
            now: now(clock.as_ref()),
            clock,
            at: Duration::ZERO,
            is_behind: false,
            turns: Turns::default(),
            turn_leases: Leases::default(),
            parked_turns: ParkedAlike::default(),
            looks_left: false,
            work: Work::default(),
            work_leases: Leases::default(),
            parked_work: WorkFetches::default(),
            rematch: false,
            has_operations: false,
            prefetched: Prefetched::default(),
            staged: Staged::default(),
            granted: Vec::new(),
            has_written: false,
            damaged_histories: HashMap::new(),
            undeletable: Undeletable::default(),
            held_since: None,
            undo: Vec::new(),
            histories,
            changed,
            horizon,
            sync_acks,
            history_changes: Vec::new(),
            next_key: None,
            next_message: 1,
            next_work: 1,
            next_lease: 1,
            bodies: BodyBudget::new(BODIES_BYTES_MAX),
            counters,
            suspects: HashMap::new(),
            returns,
            _held: held,
        };
        engine.load()?;
        Ok(engine)
    }

    /// Whether the batch has changed the rows of an instance.
    fn has_changed(&self, instance: &str) -> bool {
        let changes = |change: &HistoryChange| change.writes() && **change.instance() == *instance;
        self.history_changes.iter().any(changes)
    }

    /// Writes what is staged.
    fn write(&mut self) -> Result<(), WriteError> {
        self.staged.messages.forget_deletes(&self.undeletable.messages);
        self.staged.work.forget_deletes(&self.undeletable.work);
        if self.staged.is_empty() {
            return Ok(());
        }
        self.has_written = true;
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
        let horizon = if self.is_behind { self.at.min(self.now.monotonic) } else { self.now.monotonic };
        while let Some((no, lease)) = self.turn_leases.pop_expired(horizon) {
            tracing::debug!(lease = no, "turn lease expired");
            self.put_back_turn(no, lease, None, false);
        }
        while let Some((no, id)) = self.work_leases.pop_expired(horizon) {
            tracing::debug!(lease = no, "work lease expired");
            self.work.release(id, None, false, self.now);
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
                tracing::warn!(%error, "attempts that were counted ahead could not be put right");
                self.store.rollback_at_once()
            }
            Err(CommitError::Unknown(error)) => Err(error),
        }
    }

    fn take_returns(&mut self) {
        for returned in self.returns.take() {
            match returned {
                Return::Fetch(no) => {
                    if self.parked_turns.take(no).is_none() {
                        self.parked_work.take(no);
                    }
                }
                Return::Turn(no) => {
                    if let Some((_, lease)) = self.turn_leases.end(no) {
                        for (id, message) in &lease.messages {
                            let attempt = message.attempt.saturating_sub(1);
                            let schedule = Schedule { visible_at_ms: message.visible_at_ms, attempt };
                            self.undo.push(Undo::MessageTakenBack { id: *id, schedule });
                        }
                        self.put_back_turn(no, lease, None, true);
                    }
                }
                Return::Work(no) => {
                    if let Some((_, id)) = self.work_leases.end(no)
                        && let Some(schedule) = self.work.take_back(id, no, self.now)
                    {
                        self.undo.push(Undo::WorkTakenBack { id, schedule });
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
        let unfinished = self.looks_left || self.more_is_due();
        let hold = unfinished || (patient && self.returns.turns_on_their_way());
        while let Some(fetch) = self.parked_turns.pop_unserved(now, hold) {
            out.push_standing(fetch.responder, Ok(Reply::Turn(None)));
        }
        let hold = patient && self.returns.work_on_its_way();
        while let Some(fetch) = self.parked_work.pop_unserved(now, hold) {
            out.push_standing(fetch.responder, Ok(Reply::Work(None)));
        }
        let holds = self.parked_turns.holds() || self.parked_work.holds();
        self.held_since = match (holds, unfinished) {
            (false, _) => None,
            // The time for grants on their way begins when nothing else is left to do.
            (true, true) => Some(Instant::now()),
            (true, false) => self.held_since.or_else(|| Some(Instant::now())),
        };
        self.returns.report_receipts(holds);
    }
}

/// Whether the success of an operation can be seen by nobody but the runtime's own loop. It is told of it when it is
/// committed; what depends on it shows outside after a later commit of the same log, or not at all. Everything
/// else is a client's, or shows something.
fn is_inside(op: &Op) -> bool {
    match op {
        Op::AckTurn(_)
        | Op::AbandonTurn(_)
        | Op::RenewTurn(_)
        | Op::AckWork { .. }
        | Op::AbandonWork(_)
        | Op::RenewWork(_)
        | Op::RenewSessions { .. }
        | Op::SweepSessions
        | Op::FetchTurn(_)
        | Op::FetchWork(_) => true,
        Op::EnqueueMessage(_)
        | Op::EnqueueWork(_)
        | Op::AppendHistory { .. }
        | Op::Delete { .. }
        | Op::DeleteBulk(_)
        | Op::Prune { .. }
        | Op::PruneBulk { .. }
        | Op::QueueDepths
        | Op::Tree { .. }
        | Op::Read(_) => false,
        #[cfg(feature = "test-hooks")]
        Op::OnStore(_) => false,
    }
}

fn now(clock: &dyn Clock) -> Now {
    Now { monotonic: clock.monotonic(), wall_ms: clock.wall_ms() }
}

impl Store for Engine {
    type Op = Submitted;
    type Reply = Reply;

    fn note_time(&mut self) {
        self.now = now(self.clock.as_ref());
        (self.is_behind, self.has_operations) = (false, false);
    }

    fn tick(&mut self, _out: &mut Replies<Reply>) {
        self.take_returns();
        self.promote_messages();
        self.work.promote(self.now);
    }

    fn left_some_waiting(&mut self) {
        self.is_behind = true;
    }

    /// What changes leases and sessions alone, what only reads, and what is refused because there is no such lease.
    fn needs_no_commit(&self, submitted: &Submitted) -> bool {
        let at = submitted.at;
        let writes = |abandon: &Abandon| abandon.delay.is_some() || abandon.ignore_attempt;
        match &submitted.op {
            Op::RenewTurn(_)
            | Op::RenewWork(_)
            | Op::RenewSessions { .. }
            | Op::SweepSessions
            | Op::Tree { .. }
            | Op::QueueDepths
            | Op::Read(_) => true,
            #[cfg(feature = "test-hooks")]
            Op::OnStore(_) => true,
            Op::AbandonTurn(abandon) => !writes(abandon) || !self.turn_leases.is_held(abandon.lease, at),
            Op::AbandonWork(abandon) => !writes(abandon) || !self.work_leases.is_held(abandon.lease, at),
            Op::AckTurn(ack) => !self.turn_leases.is_held(ack.lease, at),
            Op::AckWork { lease, .. } => !self.work_leases.is_held(*lease, at),
            _ => false,
        }
    }

    fn goes_alone(&self, submitted: &Submitted) -> bool {
        matches!(submitted.op, Op::Delete { .. } | Op::DeleteBulk(_) | Op::Prune { .. } | Op::PruneBulk { .. })
    }

    fn prepare<'a>(&mut self, batch: impl Iterator<Item = &'a Submitted> + Clone) {
        self.prefetch(batch.map(|submitted| &submitted.op));
    }

    fn apply(
        &mut self,
        submitted: Submitted,
        responder: Responder<Reply>,
        out: &mut Replies<Reply>,
    ) -> Result<(), Error> {
        let Submitted { at, op } = submitted;
        self.at = at;
        self.has_operations = true;
        // What an answer shows, or lets its hearer do, must not be gone after a power loss. See `is_inside`.
        let after = self.store.next_commit();
        let after_success = if is_inside(&op) && !self.sync_acks { 0 } else { after };
        let result = match op {
            Op::FetchTurn(fetch) => {
                self.park_turn(fetch, responder);
                return Ok(());
            }
            Op::FetchWork(fetch) => {
                self.park_work(fetch, responder);
                return Ok(());
            }
            other => self.execute(other),
        };
        match result {
            Ok(reply) => out.push_after(after_success, responder, Ok(reply)),
            // A refusal tells of what was done before: of a cancellation, for one.
            Err(Stop::Refused { error, stands: true }) => out.push_standing_after(after, responder, Err(error)),
            Err(Stop::Refused { error, stands: false }) => out.push_after(after, responder, Err(error)),
            Err(Stop::Batch(error)) => {
                if error.is_damage() {
                    // It is alone in its batch. "Try again" would not help.
                    out.push_standing(responder, Err(error.clone()));
                } else {
                    out.push(responder, Err(error.clone()));
                }
                return Err(error);
            }
        }
        Ok(())
    }

    fn settle(&mut self, out: &mut Replies<Reply>) -> Result<(), Error> {
        self.rematch = false;
        self.expire();
        if self.has_written {
            // What is read now would be read inside of the transaction.
            self.rematch = true;
        } else {
            self.match_turns(out);
            self.match_work(out);
            self.answer_unserved(out);
        }
        self.put_attempts_right(false);
        let written = self.write();
        if written.is_err() && self.has_operations {
            self.park_granted_again();
        }
        self.answer_granted(out);
        written.map_err(|unwritten| unwritten.error)
    }

    fn commit(&mut self) -> Result<(), CommitError> {
        let no = self.store.next_commit();
        if no > 0 && !self.history_changes.is_empty() {
            let instances = self.history_changes.iter().filter(|change| change.writes());
            self.changed.note(no, instances.map(HistoryChange::instance), self.horizon.durable());
        }
        self.store.commit(self.now.monotonic)?;
        self.undo.clear();
        self.staged.committed();
        self.prefetched.clear();
        self.has_written = false;
        if !self.history_changes.is_empty() {
            let changes = self.history_changes.drain(..);
            self.histories.apply(changes, self.store.last_commit(), self.horizon.durable());
        }
        Ok(())
    }

    fn rollback(&mut self) -> Result<(), CommitError> {
        self.store.rollback().map_err(CommitError::Unknown)?;
        self.prefetched.clear();
        self.has_written = false;
        // What was granted is free again, and what came in with the batch has not been matched. Each such batch
        // had operations, or grants, whose fetches have been answered, so this comes to an end.
        let granted = |undo: &Undo| matches!(undo, Undo::TurnGranted(_) | Undo::WorkGranted { .. });
        self.rematch = self.has_operations || self.undo.iter().any(granted);
        self.undo_batch();
        self.parked_turns.news();
        Ok(())
    }

    fn last_commit(&self) -> CommitNo {
        self.store.last_commit()
    }

    fn maintain(&mut self) -> Result<(), Error> {
        self.store.maintain(self.now.monotonic)
    }

    fn wait(&self) -> Option<Duration> {
        if self.rematch || self.looks_left || !self.returns.is_empty() {
            return Some(Duration::ZERO);
        }
        let now = now(self.clock.as_ref());
        let monotonic = [
            self.turn_leases.next_deadline(),
            self.work_leases.next_deadline(),
            self.work.next_session_deadline(),
            self.parked_turns.next_deadline(),
            self.parked_work.next_deadline(),
            self.staged.messages.next_deadline(),
            self.staged.work.next_deadline(),
        ];
        let monotonic =
            monotonic.into_iter().flatten().map(|deadline| deadline.saturating_sub(now.monotonic));
        let wall = [self.turns.next_due_ms(), self.work.next_due_ms()];
        let wall = wall
            .into_iter()
            .flatten()
            .map(|due_ms| Duration::from_millis(due_ms.saturating_sub(now.wall_ms)).min(WALL_CLOCK_RECHECK));
        let held = self.held_since.map(|since| ON_ITS_WAY_MAX.saturating_sub(since.elapsed()));
        monotonic.chain(wall).chain(held).chain(self.store.wait(now.monotonic)).min()
    }

    fn abandon(&mut self, error: &Error) {
        let turns = self.parked_turns.drain().map(|fetch| fetch.responder);
        let work = self.parked_work.drain().map(|fetch| fetch.responder);
        for responder in turns.chain(work) {
            let _ = responder.send(Err(error.clone()));
        }
    }

    fn close(&mut self) -> Result<(), Error> {
        self.put_all_attempts_right()?;
        self.store.close()
    }

    fn let_go(&mut self) {
        self.store.let_go();
    }
}

/// Lock tokens as callers see them: the engine's own random stamp, so that a token from before a restart
/// cannot name a lease of today, and the lease's number.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tokens {
    stamp: u64,
}

impl Tokens {
    pub(crate) fn new() -> Self {
        use std::hash::{BuildHasher, RandomState};
        static DISTINCT: Mutex<u64> = Mutex::new(0);
        let mut distinct = DISTINCT.lock();
        *distinct += 1;
        // RandomState is seeded by the operating system.
        Self {
            stamp: RandomState::new().hash_one((std::process::id(), *distinct, std::time::SystemTime::now())),
        }
    }

    pub(crate) fn write(self, lease: LeaseNo) -> String {
        format!("{:016x}-{lease:x}", self.stamp)
    }

    /// `None` for what this engine never wrote.
    pub(crate) fn read(self, token: &str) -> Option<LeaseNo> {
        let (stamp, lease) = token.split_once('-')?;
        let stamp = u64::from_str_radix(stamp, 16).ok()?;
        (stamp == self.stamp).then(|| LeaseNo::from_str_radix(lease, 16).ok())?
    }
}
