//! One batch of the engine, step by step, as group commit drives it.

use std::time::Duration;

use super::op::{Abandon, Op, Reply, Submitted};
use super::undo::Undo;
use super::{Engine, HistoryChange, ON_ITS_WAY_MAX, Stop, WALL_CLOCK_RECHECK, now};
use crate::buffer::{CommitError, CommitNo, Replies, Responder, Store};
use crate::error::Error;

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

impl Store for Engine {
    type Op = Submitted;
    type Reply = Reply;

    fn note_time(&mut self) {
        self.now = now(self.shared.clock.as_ref());
        (self.batch.is_behind, self.batch.has_operations) = (false, false);
    }

    fn tick(&mut self, _out: &mut Replies<Reply>) {
        self.take_returns();
        self.promote_messages();
        self.work.items.promote(self.now);
    }

    fn left_some_waiting(&mut self) {
        self.batch.is_behind = true;
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
            Op::AbandonTurn(abandon) => !writes(abandon) || !self.turns.leases.is_held(abandon.lease, at),
            Op::AbandonWork(abandon) => !writes(abandon) || !self.work.leases.is_held(abandon.lease, at),
            Op::AckTurn(ack) => !self.turns.leases.is_held(ack.lease, at),
            Op::AckWork { lease, .. } => !self.work.leases.is_held(*lease, at),
            _ => false,
        }
    }

    fn goes_alone(&self, submitted: &Submitted) -> bool {
        matches!(
            submitted.op,
            Op::Delete { .. } | Op::DeleteBulk(_) | Op::Prune { .. } | Op::PruneBulk { .. }
        )
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
        self.batch.at = at;
        self.batch.has_operations = true;
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
            Err(Stop::Refused { error, stands: true }) => {
                out.push_standing_after(after, responder, Err(error))
            }
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
        if self.batch.has_written {
            // What is read now would be read inside of the transaction.
            self.rematch = true;
        } else {
            self.match_turns(out);
            self.match_work(out);
            self.answer_unserved(out);
        }
        self.put_attempts_right(false);
        let written = self.write();
        if written.is_err() && self.batch.has_operations {
            self.park_granted_again();
        }
        self.answer_granted(out);
        written.map_err(|unwritten| unwritten.error)
    }

    fn commit(&mut self) -> Result<(), CommitError> {
        let no = self.store.next_commit();
        // Nothing written is no commit: whoever waited for its number would wait for a stranger's.
        if no > 0 && self.batch.has_written && !self.batch.history_changes.is_empty() {
            let instances = self.batch.history_changes.iter().filter(|change| change.writes());
            self.shared.changed.note(
                no,
                instances.map(HistoryChange::instance),
                self.shared.horizon.durable(),
            );
        }
        self.store.commit(self.now.monotonic)?;
        self.batch.undo.clear();
        self.staged.committed();
        self.batch.prefetched.clear();
        self.batch.has_written = false;
        if !self.batch.history_changes.is_empty() {
            let changes = self.batch.history_changes.drain(..);
            self.shared.histories.apply(changes, self.store.last_commit(), self.shared.horizon.durable());
        }
        Ok(())
    }

    fn rollback(&mut self) -> Result<(), CommitError> {
        self.store.rollback().map_err(CommitError::Unknown)?;
        self.batch.prefetched.clear();
        self.batch.has_written = false;
        // What was granted is free again, and what came in with the batch has not been matched. Each such batch
        // had operations, or grants, whose fetches have been answered, so this comes to an end.
        let granted = |undo: &Undo| matches!(undo, Undo::TurnGranted(_) | Undo::WorkGranted { .. });
        self.rematch = self.batch.has_operations || self.batch.undo.iter().any(granted);
        self.undo_batch();
        self.turns.parked.news();
        Ok(())
    }

    fn last_commit(&self) -> CommitNo {
        self.store.last_commit()
    }

    fn maintain(&mut self) -> Result<(), Error> {
        self.store.maintain(self.now.monotonic)
    }

    fn wait(&self) -> Option<Duration> {
        if self.rematch || self.turns.looks_left || !self.shared.returns.is_empty() {
            return Some(Duration::ZERO);
        }
        let now = now(self.shared.clock.as_ref());
        let monotonic = [
            self.turns.leases.next_deadline(),
            self.work.leases.next_deadline(),
            self.work.items.next_session_deadline(),
            self.turns.parked.next_deadline(),
            self.work.parked.next_deadline(),
            self.staged.messages.next_deadline(),
            self.staged.work.next_deadline(),
        ];
        let monotonic =
            monotonic.into_iter().flatten().map(|deadline| deadline.saturating_sub(now.monotonic));
        let wall = [self.turns.instances.next_due_ms(), self.work.items.next_due_ms()];
        let wall = wall
            .into_iter()
            .flatten()
            .map(|due_ms| Duration::from_millis(due_ms.saturating_sub(now.wall_ms)).min(WALL_CLOCK_RECHECK));
        let held = self.held_since.map(|since| ON_ITS_WAY_MAX.saturating_sub(since.elapsed()));
        monotonic.chain(wall).chain(held).chain(self.store.wait(now.monotonic)).min()
    }

    fn abandon(&mut self, error: &Error) {
        let turns = self.turns.parked.drain().map(|fetch| fetch.responder);
        let work = self.work.parked.drain().map(|fetch| fetch.responder);
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
