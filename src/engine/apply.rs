//! The operations that are short: enqueue, abandon, renew, activities. Turns are in turn.rs.

use std::time::Duration;

use super::op::{Abandon, NewMessage, NewWork, Op, Renew, Reply, Visible};
use super::undo::{Undo, Was};
use super::{Engine, Stop, TurnLease};
use crate::clock::duration_ms;
use crate::error::Error;
use crate::queue::{LeaseNo, Message, Schedule, VISIBLE, WorkEntry, WorkId};

/// The one thing to say about a token that names no lease of this engine.
pub(crate) fn invalid_token() -> Error {
    Error::lease_lost("Invalid lock token: unknown, expired, already used, or from before a restart")
}

/// A lease that was held before the batch, or it had been refused at once: the batch has ended it.
pub(super) fn unknown_turn_lease() -> Stop {
    Stop::Refused { error: invalid_token(), stands: false }
}

/// See [`unknown_turn_lease`].
fn unknown_work_lease() -> Stop {
    let error = Error::lease_lost(
        "Invalid lock token: the activity was cancelled, its lock expired, or it was acknowledged before",
    );
    Stop::Refused { error, stands: false }
}

impl Engine {
    /// Everything but a fetch, which may have to wait.
    pub(super) fn execute(&mut self, op: Op) -> Result<Reply, Stop> {
        match op {
            Op::FetchTurn(_) | Op::FetchWork(_) => {
                Err(Stop::Refused { error: Error::internal("a fetch is parked, not executed"), stands: true })
            }
            Op::AckTurn(ack) => self.ack_turn(*ack),
            Op::AbandonTurn(abandon) => self.abandon_turn(&abandon),
            Op::RenewTurn(Renew { lease, extend_for }) => {
                let deadline = self.now.monotonic.saturating_add(extend_for);
                let renewed = self.turns.leases.is_held(lease, self.batch.at)
                    && self.turns.leases.renew(lease, deadline);
                if renewed { Ok(Reply::Done) } else { Err(unknown_turn_lease()) }
            }
            Op::AckWork { lease, completion } => self.ack_work(lease, completion),
            Op::AbandonWork(abandon) => self.abandon_work(&abandon),
            Op::RenewWork(renew) => self.renew_work(&renew),
            Op::RenewSessions { owners, extend_for, idle_timeout } => {
                Ok(Reply::Count(self.work.items.renew_sessions(&owners, extend_for, idle_timeout, self.now)))
            }
            Op::SweepSessions => Ok(Reply::Count(self.work.items.sweep_sessions())),
            Op::EnqueueMessage(message) => {
                self.enqueue_message(message);
                Ok(Reply::Done)
            }
            Op::EnqueueWork(work) => {
                self.enqueue_work(work);
                Ok(Reply::Done)
            }
            Op::AppendHistory { instance, execution, runs } => {
                self.append_history(&instance, execution, runs)
            }
            Op::Delete { ids, force } => self.delete(&ids, force).map(Reply::Deleted),
            Op::DeleteBulk(filter) => self.delete_bulk(&filter).map(Reply::Deleted),
            Op::Prune { id, options } => self.prune(&id, &options).map(Reply::Pruned),
            Op::PruneBulk { filter, options } => self.prune_bulk(&filter, &options).map(Reply::Pruned),
            Op::Tree { root } => self.read_tree(&root).map(Reply::Ids),
            Op::QueueDepths => Ok(Reply::Depths(self.queue_depths())),
            Op::Read(read) => {
                read(self.store.reads());
                Ok(Reply::Done)
            }
            #[cfg(feature = "test-hooks")]
            Op::OnStore(with) => {
                with(self.store.as_mut());
                Ok(Reply::Done)
            }
        }
    }

    pub(super) fn enqueue_message(&mut self, message: NewMessage) {
        let NewMessage { row, visible, item } = message;
        let visible_at_ms = match visible {
            Visible::Now => VISIBLE,
            Visible::After(delay) => self.visible_after(delay),
            Visible::AtMs(at_ms) if at_ms <= self.now.wall_ms => VISIBLE,
            Visible::AtMs(at_ms) => at_ms,
        };
        let id = self.turns.next_id;
        self.turns.next_id += 1;
        if visible_at_ms > self.now.wall_ms {
            // Whatever is known of it would only sit in memory meanwhile.
            self.delay_message(id, row, visible_at_ms);
            return;
        }
        let no = self.turns.instances.instance(&row.instance);
        let (kind, body) = (row.kind, self.bodies.keep(item));
        let schedule = Schedule { visible_at_ms: VISIBLE, attempt: 0 };
        self.staged.messages.insert(id, row, schedule);
        let message = Message { visible_at_ms: VISIBLE, attempt: 0, kind, body };
        self.turns.instances.push(no, id, message, self.now);
        self.batch.undo.push(Undo::Enqueued { instance: no, id });
    }

    /// When something is visible that waits so long from now. No time at all is no delay, whatever the wall clock
    /// says afterwards.
    fn visible_after(&self, delay: Duration) -> u64 {
        match duration_ms(delay) {
            0 => VISIBLE,
            delay_ms => self.now.wall_ms.saturating_add(delay_ms),
        }
    }

    pub(super) fn enqueue_work(&mut self, work: NewWork) {
        let NewWork { row, item } = work;
        let id = self.work.next_id;
        self.work.next_id += 1;
        let schedule = Schedule { visible_at_ms: VISIBLE, attempt: 0 };
        let (activity, body) = (row.activity.clone(), self.bodies.keep(item));
        self.staged.work.insert(id, row, schedule);
        let scheduled_in = self.store.next_commit();
        let entry = WorkEntry { activity, schedule, lease: None, body, scheduled_in };
        self.work.items.push(id, entry, self.now);
        self.batch.undo.push(Undo::WorkEnqueued(id));
    }

    fn abandon_turn(&mut self, abandon: &Abandon) -> Result<Reply, Stop> {
        let Some((deadline, lease)) = self.end_turn_lease(abandon.lease) else {
            return Err(unknown_turn_lease());
        };
        let visible_at_ms = abandon.delay.map(|delay| self.visible_after(delay));
        if (visible_at_ms.is_some() || abandon.ignore_attempt)
            && let Some(id) = self.turns.instances.id(lease.instance).cloned()
        {
            let messages = lease.messages.iter().map(|(id, message)| (*id, Was::of(message))).collect();
            let (no, instance) = (abandon.lease, lease.instance);
            self.batch.undo.push(Undo::TurnAbandoned { no, deadline, instance, id, messages });
        }
        self.put_back_turn(abandon.lease, lease, visible_at_ms, abandon.ignore_attempt);
        Ok(Reply::Done)
    }

    /// Makes the messages of a lease that has ended available again, as they were but for what is asked.
    pub(super) fn put_back_turn(
        &mut self,
        no: LeaseNo,
        lease: TurnLease,
        visible_at_ms: Option<u64>,
        ignore_attempt: bool,
    ) {
        if self.turns.instances.lease_of(lease.instance) == Some(no) {
            self.turns.instances.release(lease.instance);
        }
        for (id, mut message) in lease.messages {
            if ignore_attempt {
                message.attempt = message.attempt.saturating_sub(1);
            }
            if let Some(visible_at_ms) = visible_at_ms {
                message.visible_at_ms = visible_at_ms;
            }
            let schedule = Schedule { visible_at_ms: message.visible_at_ms, attempt: message.attempt };
            match (visible_at_ms, ignore_attempt) {
                (Some(_), _) => self.staged.messages.reschedule(id, schedule),
                (None, true) => self.staged.messages.set_attempt(id, schedule),
                (None, false) => {}
            }
            self.turns.instances.push(lease.instance, id, message, self.now);
        }
    }

    fn ack_work(&mut self, lease: LeaseNo, completion: Option<NewMessage>) -> Result<Reply, Stop> {
        let (deadline, id) = self.end_work_lease(lease)?;
        self.work.items.touch_session(id, self.now);
        if let Some(entry) = self.work.items.remove(id) {
            self.batch.undo.push(Undo::WorkEnded { id, entry, deadline: Some(deadline) });
        }
        self.staged.work.delete(id);
        if let Some(completion) = completion {
            self.enqueue_message(completion);
        }
        Ok(Reply::Done)
    }

    fn abandon_work(&mut self, abandon: &Abandon) -> Result<Reply, Stop> {
        let (deadline, id) = self.end_work_lease(abandon.lease)?;
        let visible_at_ms = abandon.delay.map(|delay| self.visible_after(delay));
        if (visible_at_ms.is_some() || abandon.ignore_attempt)
            && let Some(entry) = self.work.items.get(id)
        {
            let (no, schedule) = (abandon.lease, entry.schedule);
            self.batch.undo.push(Undo::WorkAbandoned { no, deadline, id, schedule });
        }
        self.release_work(id, visible_at_ms, abandon.ignore_attempt);
        Ok(Reply::Done)
    }

    /// Makes an activity whose lease has ended available again, as it was but for what is asked.
    pub(super) fn release_work(&mut self, id: WorkId, visible_at_ms: Option<u64>, ignore_attempt: bool) {
        let Some(schedule) = self.work.items.give_back(id, visible_at_ms, ignore_attempt, self.now) else {
            return;
        };
        match (visible_at_ms, ignore_attempt) {
            (Some(_), _) => self.staged.work.reschedule(id, schedule),
            (None, true) => self.staged.work.set_attempt(id, schedule),
            (None, false) => {}
        }
    }

    fn renew_work(&mut self, renew: &Renew) -> Result<Reply, Stop> {
        let held = self.work.leases.is_held(renew.lease, self.batch.at);
        let id = *self.work.leases.get(renew.lease).filter(|_| held).ok_or_else(unknown_work_lease)?;
        self.work.leases.renew(renew.lease, self.now.monotonic.saturating_add(renew.extend_for));
        self.work.items.touch_session(id, self.now);
        Ok(Reply::Done)
    }

    /// Ends the lease of a turn if it was held when the operation at hand was submitted.
    pub(super) fn end_turn_lease(&mut self, no: LeaseNo) -> Option<(Duration, TurnLease)> {
        if self.turns.leases.is_held(no, self.batch.at) { self.turns.leases.end(no) } else { None }
    }

    fn end_work_lease(&mut self, no: LeaseNo) -> Result<(Duration, WorkId), Stop> {
        let held = self.work.leases.is_held(no, self.batch.at);
        held.then(|| self.work.leases.end(no)).flatten().ok_or_else(unknown_work_lease)
    }

    /// A turn's lease has ended, and its messages are gone with it.
    pub(super) fn remember_ended_turn(&mut self, no: LeaseNo, deadline: Duration, lease: TurnLease) {
        if let Some(id) = self.turns.instances.id(lease.instance).cloned() {
            self.batch.undo.push(Undo::TurnEnded { no, deadline, id, lease });
        }
    }

    fn queue_depths(&self) -> duroxide::providers::QueueDepths {
        // Leases that are over, and end with the batch at hand.
        let now = self.now.monotonic;
        let freed: usize = self.turns.leases.expired(now).map(|lease| lease.messages.len()).sum();
        duroxide::providers::QueueDepths {
            orchestrator_queue: self.turns.instances.len() + freed,
            worker_queue: self.work.items.unleased() + self.work.leases.expired(now).count(),
            // Timers wait in the orchestrator queue.
            timer_queue: 0,
        }
    }
}
