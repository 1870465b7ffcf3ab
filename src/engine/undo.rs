//! What a batch did to memory, to be undone if the batch is rolled back.
//!
//! A batch changes memory before it is committed. If its transaction is rolled back, memory has to be as if the
//! batch had not been: every lease it ended stands again, every grant it made never was. Each change leaves an
//! entry here, and a rollback goes through them backwards. That takes as long as the batch was, whatever waits
//! beside it, reads no rows, and cannot fail.
//!
//! What is true whatever becomes of the batch leaves no entry: leases that ran out, timers that fell due, and what
//! was done at once (see `Store::needs_no_commit`).
//!
//! Rejected: building memory anew from the rows. It took seconds where many waited, and read what the rows do not
//! say: that a timer had fallen due before the clock was set back, that an attempt had been taken back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::{Engine, TurnLease};
use crate::queue::{
    InstanceNo, LeaseNo, Message, MessageId, MessageKind, RowCache, Schedule, WorkEntry, WorkId,
};

/// One change of memory.
pub(super) enum Undo {
    Enqueued {
        instance: InstanceNo,
        id: MessageId,
    },
    /// A message was enqueued that waits for its time.
    Delayed {
        instance: Arc<str>,
        id: MessageId,
    },
    /// One of these was dropped.
    DroppedDelayed {
        instance: Arc<str>,
        id: MessageId,
        due_ms: u64,
    },
    /// What was known of an instance's rows was learned or written in this batch.
    Learned {
        instance: InstanceNo,
    },
    TurnGranted(LeaseNo),
    /// An acknowledgement, or a deletion: the messages went with the lease.
    TurnEnded {
        no: LeaseNo,
        deadline: Duration,
        id: Arc<str>,
        lease: TurnLease,
    },
    /// The messages went back into the queue, changed.
    TurnAbandoned {
        no: LeaseNo,
        deadline: Duration,
        instance: InstanceNo,
        id: Arc<str>,
        messages: Vec<(MessageId, Was)>,
    },
    /// Messages of an instance were dropped, or the instance with them.
    Dropped {
        instance: InstanceNo,
        id: Arc<str>,
        messages: BTreeMap<MessageId, Message>,
    },
    WorkEnqueued(WorkId),
    WorkGranted {
        no: LeaseNo,
        id: WorkId,
    },
    /// An activity is gone, with the lease that was on it.
    WorkEnded {
        id: WorkId,
        entry: WorkEntry,
        deadline: Option<Duration>,
    },
    WorkAbandoned {
        no: LeaseNo,
        deadline: Duration,
        id: WorkId,
        schedule: Schedule,
    },
    /// An attempt that never reached anybody was taken back. That stays true: the row has to learn it still.
    MessageTakenBack {
        id: MessageId,
        schedule: Schedule,
    },
    WorkTakenBack {
        id: WorkId,
        schedule: Schedule,
    },
}

/// A message as it was before it was put back.
pub(super) struct Was {
    schedule: Schedule,
    kind: MessageKind,
}

impl Was {
    pub(super) fn of(message: &Message) -> Self {
        Self {
            schedule: Schedule { visible_at_ms: message.visible_at_ms, attempt: message.attempt },
            kind: message.kind,
        }
    }
}

impl Engine {
    /// Memory is as it was before the batch.
    pub(super) fn undo_batch(&mut self) {
        // What was committed before is still true.
        self.batch.history_changes.clear();
        self.staged.rolled_back();
        for undo in std::mem::take(&mut self.batch.undo).into_iter().rev() {
            self.undo_one(undo);
        }
    }

    fn undo_one(&mut self, undo: Undo) {
        match undo {
            Undo::Enqueued { instance, id } => {
                if self.turns.instances.take_message(instance, id).is_none()
                    && let Some(no) = self.turns.instances.lease_of(instance)
                    && let Some(held_back) = self.turns.leases.get_mut(no)
                {
                    held_back.messages.remove(&id);
                }
            }
            Undo::Delayed { instance, id } => {
                self.turns.instances.take_delayed(&instance, id);
            }
            Undo::DroppedDelayed { instance, id, due_ms } => {
                self.turns.instances.delay(&instance, id, due_ms)
            }
            Undo::Learned { instance } => self.turns.instances.set_rows(instance, RowCache::Unread),
            Undo::TurnGranted(no) => {
                let Some((_, lease)) = self.turns.leases.end(no) else { return };
                self.turns.instances.release(lease.instance);
                for (id, mut message) in lease.messages {
                    message.attempt = message.attempt.saturating_sub(1);
                    self.turns.instances.push(lease.instance, id, message, self.now);
                }
            }
            Undo::TurnEnded { no, deadline, id, lease } => {
                self.turns.instances.reinstate(lease.instance, &id);
                self.turns.instances.lease_nothing(lease.instance, no);
                self.turns.leases.grant(no, deadline, lease);
            }
            Undo::TurnAbandoned { no, deadline, instance, id: name, messages } => {
                // With nothing but delayed messages it may have been forgotten.
                self.turns.instances.reinstate(instance, &name);
                let messages = messages.into_iter().map(|(id, was)| {
                    let body =
                        self.turns.instances.take_message(instance, id).and_then(|message| message.body);
                    self.turns.instances.take_delayed(&name, id);
                    let Was { schedule: Schedule { visible_at_ms, attempt }, kind } = was;
                    (id, Message { visible_at_ms, attempt, kind, body })
                });
                let messages = messages.collect();
                self.turns.instances.lease_nothing(instance, no);
                self.turns.leases.grant(no, deadline, TurnLease { instance, messages });
            }
            Undo::Dropped { instance, id, messages } => {
                self.turns.instances.reinstate(instance, &id);
                for (id, message) in messages {
                    self.turns.instances.push(instance, id, message, self.now);
                }
            }
            Undo::WorkEnqueued(id) => {
                self.work.items.remove(id);
            }
            Undo::WorkGranted { no, id } => {
                self.work.leases.end(no);
                self.work.items.take_back(id, no, self.now);
            }
            Undo::WorkEnded { id, entry, deadline } => {
                if let Some((no, deadline)) = entry.lease.zip(deadline) {
                    self.work.leases.grant(no, deadline, id);
                }
                self.work.items.push(id, entry, self.now);
            }
            Undo::WorkAbandoned { no, deadline, id, schedule } => {
                if let Some(entry) = self.work.items.remove(id) {
                    self.work.items.push(id, WorkEntry { schedule, lease: Some(no), ..entry }, self.now);
                    self.work.leases.grant(no, deadline, id);
                }
            }
            // Until it is committed.
            Undo::MessageTakenBack { id, schedule } => {
                self.staged.messages.set_attempt(id, schedule);
                self.batch.undo.push(Undo::MessageTakenBack { id, schedule });
            }
            Undo::WorkTakenBack { id, schedule } => {
                self.staged.work.set_attempt(id, schedule);
                self.batch.undo.push(Undo::WorkTakenBack { id, schedule });
            }
        }
    }
}
