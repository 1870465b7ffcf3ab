//! The orchestration engine: the store that group commit drives for duroxide.
//!
//! ```text
//!   Op ──► apply ──► checks ──► rows of the instance (rows.rs, at once, in the batch's transaction)
//!                          └──► queue/ (memory) ──► net effect staged
//!   settle: match parked fetches with ready work ──► flush the staged rows (queued.rs) ──► COMMIT
//! ```
//!
//! Invariants:
//! - an operation makes all its checks before it touches a row or the queue, so one that is refused leaves
//!   no trace and needs no savepoint; an error of SQLite itself undoes the whole batch;
//! - a grant and its attempt count are in the same commit, and nobody sees the grant before it;
//! - memory changes first and is rebuilt from the rows if the batch is rolled back, with every lease that
//!   was out before the batch still standing.

mod apply;
mod deletion;
mod grants;
mod histories;
mod load;
mod op;
mod queued;
pub(crate) mod reads;
pub(crate) mod returns;
mod rows;
mod schema;
mod turn;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use duroxide::providers::{DispatcherCapabilityFilter, TagFilter};
use parking_lot::Mutex;

pub(crate) use apply::invalid_token;
pub(crate) use histories::Histories;
use histories::HistoryChange;
pub(crate) use op::{
    Abandon, FetchTurn, FetchWork, GrantBody, KvChange, NewMessage, NewWork, Op, Renew, Reply, Run, TurnAck,
    TurnGrant, Visible, WorkGrant,
};
pub(crate) use queued::{MessageRow, WorkRow};
use returns::{Return, Returns};
pub(crate) use rows::RUNNING;

use crate::buffer::{CommitError, Replies, Responder, Store};
use crate::clock::Clock;
use crate::database::{Held, Opening};
use crate::error::Error;
use crate::queue::{
    BodyBudget, Changes, InstanceNo, LeaseNo, Leases, Message, MessageId, Now, Parked, Turns, Work, WorkId,
};
use crate::sqlite::{self, Sync, WriteConnection};

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
    /// It was refused; it left no trace.
    Refused(Error),
    /// SQLite failed under it; the batch cannot go on.
    Batch(Error),
}

impl From<rusqlite::Error> for Stop {
    fn from(error: rusqlite::Error) -> Self {
        Stop::Batch(error.into())
    }
}

/// What an unfinished turn holds.
struct TurnLease {
    instance: InstanceNo,
    messages: BTreeMap<MessageId, Message>,
}

struct TurnFetch {
    lock_timeout: Duration,
    filter: Option<DispatcherCapabilityFilter>,
    responder: Responder<Reply>,
}

struct WorkFetch {
    lock_timeout: Duration,
    session: Option<(Arc<str>, Duration)>,
    tags: TagFilter,
    responder: Responder<Reply>,
}

/// What has to be undone in memory if the batch is rolled back: the rest is rebuilt from the rows.
#[derive(Default)]
struct Undo {
    granted_turns: Vec<LeaseNo>,
    granted_work: Vec<LeaseNo>,
    ended_turns: Vec<(LeaseNo, Duration, Arc<str>, Vec<MessageId>)>,
    ended_work: Vec<(LeaseNo, Duration, WorkId)>,
}

impl Undo {
    fn clear(&mut self) {
        self.granted_turns.clear();
        self.granted_work.clear();
        self.ended_turns.clear();
        self.ended_work.clear();
    }
}

/// See the module's documentation.
pub(crate) struct Engine {
    connection: WriteConnection,
    clock: Arc<dyn Clock>,
    now: Now,
    turns: Turns,
    turn_leases: Leases<TurnLease>,
    parked_turns: Parked<TurnFetch>,
    work: Work,
    work_leases: Leases<WorkId>,
    parked_work: Parked<WorkFetch>,
    /// Grants were rolled back: what they held is matched again without waiting for a reason.
    rematch: bool,
    /// Since when fetches are held for grants on their way.
    held_since: Option<Instant>,
    message_changes: Changes<MessageRow>,
    work_changes: Changes<WorkRow>,
    undo: Undo,
    histories: Arc<Histories>,
    history_changes: Vec<HistoryChange>,
    next_message: MessageId,
    next_work: WorkId,
    next_lease: LeaseNo,
    bodies: BodyBudget,
    returns: Arc<Returns>,
    /// Released last, when the connection is gone: dropping them lets the next open go ahead.
    _held: Held,
}

impl Engine {
    /// Opens the database and schedules everything in it.
    pub(crate) fn open(
        opening: Opening<'_>,
        returns: Arc<Returns>,
        histories: Arc<Histories>,
    ) -> Result<Self, Error> {
        let Opening { location, options, counters, held } = opening;
        let connection = sqlite::open_unchanged(location)?;
        let found = schema::recognise(&connection, location)?;
        schema::size_pages(&connection, found)?;
        sqlite::configure_writer(&connection, location, options)?;
        schema::prepare(&connection, found)?;
        let clock = options.clock_or_system();
        let mut engine = Self {
            connection: WriteConnection::new(connection, location, options, counters, held.owner())?,
            now: now(clock.as_ref()),
            clock,
            turns: Turns::default(),
            turn_leases: Leases::default(),
            parked_turns: Parked::default(),
            work: Work::default(),
            work_leases: Leases::default(),
            parked_work: Parked::default(),
            rematch: false,
            held_since: None,
            message_changes: Changes::default(),
            work_changes: Changes::default(),
            undo: Undo::default(),
            histories,
            history_changes: Vec::new(),
            next_message: 1,
            next_work: 1,
            next_lease: 1,
            bodies: BodyBudget::new(BODIES_BYTES_MAX),
            returns,
            _held: held,
        };
        engine.load()?;
        Ok(engine)
    }

    /// Writes the net effect of the batch on the queues. If that is nothing but attempt counts, and no
    /// operation has opened the transaction before, its commit has to survive a process crash only.
    fn flush(&mut self) -> Result<(), Error> {
        if self.message_changes.is_empty() && self.work_changes.is_empty() {
            return Ok(());
        }
        let attempts_only = self.message_changes.is_attempts_only() && self.work_changes.is_attempts_only();
        self.connection.begin(if attempts_only { Sync::ProcessCrash } else { Sync::AsPromised })?;
        queued::flush_messages(self.connection.connection(), &mut self.message_changes)?;
        queued::flush_work(self.connection.connection(), &mut self.work_changes)?;
        Ok(())
    }

    fn expire(&mut self) {
        while let Some((no, lease)) = self.turn_leases.pop_expired(self.now.monotonic) {
            tracing::debug!(lease = no, "turn lease expired");
            self.put_back_turn(no, lease, None, false);
        }
        while let Some((no, id)) = self.work_leases.pop_expired(self.now.monotonic) {
            tracing::debug!(lease = no, "work lease expired");
            self.work.release(id, None, false, self.now);
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
                        self.put_back_turn(no, lease, None, true);
                    }
                }
                Return::Work(no) => {
                    if let Some((_, id)) = self.work_leases.end(no)
                        && let Some(schedule) = self.work.take_back(id, no, self.now)
                    {
                        self.work_changes.set_attempt(id, schedule);
                    }
                }
            }
        }
    }

    /// Tells the fetches whose time is up that there was nothing, unless a grant that is on its way to
    /// somebody else may still come back.
    fn answer_unserved(&mut self, out: &mut Replies<Reply>) {
        let now = self.now.monotonic;
        let patient = self.held_since.is_none_or(|since| since.elapsed() < ON_ITS_WAY_MAX);
        let hold = patient && self.returns.turns_on_their_way();
        while let Some(fetch) = self.parked_turns.pop_unserved(now, hold) {
            out.push(fetch.responder, Ok(Reply::Turn(None)));
        }
        let hold = patient && self.returns.work_on_its_way();
        while let Some(fetch) = self.parked_work.pop_unserved(now, hold) {
            out.push(fetch.responder, Ok(Reply::Work(None)));
        }
        let holds = self.parked_turns.holds() || self.parked_work.holds();
        self.held_since = if holds { self.held_since.or_else(|| Some(Instant::now())) } else { None };
        self.returns.report_receipts(holds);
    }
}

fn now(clock: &dyn Clock) -> Now {
    Now { monotonic: clock.monotonic(), wall_ms: clock.wall_ms() }
}

impl Store for Engine {
    type Op = Op;
    type Reply = Reply;

    fn tick(&mut self, _out: &mut Replies<Reply>) {
        self.now = now(self.clock.as_ref());
        self.take_returns();
        self.expire();
        self.turns.promote(self.now);
        self.work.promote(self.now);
    }

    fn apply(&mut self, op: Op, responder: Responder<Reply>, out: &mut Replies<Reply>) -> Result<(), Error> {
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
            Ok(reply) => out.push(responder, Ok(reply)),
            Err(Stop::Refused(error)) => out.push(responder, Err(error)),
            Err(Stop::Batch(error)) => {
                out.push(responder, Err(error.clone()));
                return Err(error);
            }
        }
        Ok(())
    }

    /// A fetch, where the others are fsynced: what can be granted now is durable already, so its commit has to
    /// survive a process crash only.
    fn goes_ahead(&self, op: &Op) -> bool {
        matches!(op, Op::FetchTurn(_) | Op::FetchWork(_)) && self.connection.syncs()
    }

    /// Grants what there is. A fetch that finds nothing stays parked: the rest of the batch may bring it something.
    fn settle_ahead(&mut self, out: &mut Replies<Reply>) -> Result<(), Error> {
        self.match_turns(out)?;
        self.match_work(out)?;
        self.flush()
    }

    fn settle(&mut self, out: &mut Replies<Reply>) -> Result<(), Error> {
        self.rematch = false;
        self.match_turns(out)?;
        self.match_work(out)?;
        self.answer_unserved(out);
        self.flush()
    }

    fn commit(&mut self) -> Result<(), CommitError> {
        self.connection.commit(self.now.monotonic)?;
        self.undo.clear();
        if !self.history_changes.is_empty() {
            self.histories.apply(self.history_changes.drain(..));
        }
        Ok(())
    }

    fn rollback(&mut self) -> Result<(), CommitError> {
        self.connection.rollback().map_err(CommitError::Unknown)?;
        // Others may have what was granted. Each such batch has answered a fetch, so this comes to an end.
        self.rematch = !(self.undo.granted_turns.is_empty() && self.undo.granted_work.is_empty());
        self.rebuild().map_err(CommitError::RolledBack)
    }

    fn take_back(&mut self, reply: Reply) {
        // A grant's guard puts it on the list of returns.
        drop(reply);
    }

    fn maintain(&mut self) -> Result<(), Error> {
        self.connection.maintain(self.now.monotonic)
    }

    fn wait(&self) -> Option<Duration> {
        if self.rematch || !self.returns.is_empty() {
            return Some(Duration::ZERO);
        }
        let now = now(self.clock.as_ref());
        let monotonic = [
            self.turn_leases.next_deadline(),
            self.work_leases.next_deadline(),
            self.work.next_session_deadline(),
            self.parked_turns.next_deadline(),
            self.parked_work.next_deadline(),
        ];
        let monotonic =
            monotonic.into_iter().flatten().map(|deadline| deadline.saturating_sub(now.monotonic));
        let wall = [self.turns.next_due_ms(), self.work.next_due_ms()];
        let wall = wall
            .into_iter()
            .flatten()
            .map(|due_ms| Duration::from_millis(due_ms.saturating_sub(now.wall_ms)).min(WALL_CLOCK_RECHECK));
        let held = self.held_since.map(|since| ON_ITS_WAY_MAX.saturating_sub(since.elapsed()));
        monotonic.chain(wall).chain(held).chain(self.connection.wait(now.monotonic)).min()
    }

    fn abandon(&mut self, error: &Error) {
        let turns = self.parked_turns.drain().map(|fetch| fetch.responder);
        let work = self.parked_work.drain().map(|fetch| fetch.responder);
        for responder in turns.chain(work) {
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
