//! Acknowledging a turn: everything it wrote, all or nothing. And history that is appended by hand.

use std::sync::Arc;

use super::apply::unknown_turn_lease;
use super::lookup::{starts, unread, wanted};
use super::op::{KvChange, Reply, TurnAck};
use super::undo::Undo;
use super::{Engine, HistoryChange, Stop};
use crate::codec;
use crate::error::Error;
use crate::queue::{InstanceNo, RowCache, WorkId};
use crate::rows::{
    ExecutionChange, ExecutionFound, ExecutionRows, Identity, InstanceKey, InstanceRows, InstanceUpdate,
    KvOp, NewInstance, Run, Status,
};

impl Engine {
    pub(super) fn ack_turn(&mut self, mut ack: TurnAck) -> Result<Reply, Stop> {
        // Checks first: nothing below them can be refused.
        let no = self.turns.leases.get(ack.lease).ok_or_else(unknown_turn_lease)?.instance;
        let Some(id) = self.turns.instances.id(no).cloned() else { return Err(unknown_turn_lease()) };
        let before = self.rows_of(no)?;
        // The runtime's last word about a history that it could not read has an id far from the others. It is written,
        // whatever a damaged row says of how far it reaches.
        let is_last_word = ack.status == Some(Status::Failed);
        let (key, found) = match &before {
            Some(rows) => {
                let found = self.check_events(&id, rows, ack.execution, &ack.history, is_last_word)?;
                (rows.key, found)
            }
            None => (self.new_key()?, None),
        };
        let Some((deadline, lease)) = self.end_turn_lease(ack.lease) else {
            return Err(unknown_turn_lease());
        };

        for id in lease.messages.keys() {
            self.staged.messages.delete(*id);
        }
        self.remember_ended_turn(ack.lease, deadline, lease);
        self.stage_turn(no, &id, key, (before, found), &mut ack);
        for work in ack.work {
            self.enqueue_work(work);
        }
        // After the enqueue: an activity that is scheduled and cancelled in one turn never runs.
        for (instance, execution, activity) in &ack.cancelled {
            for id in self.work.items.of_activity(instance, *execution, *activity) {
                self.drop_work(id);
            }
        }
        for message in ack.messages {
            self.enqueue_message(message);
        }
        self.turns.instances.release(no);
        Ok(Reply::Done)
    }

    /// Removes an activity, whoever works on it: its lease is gone, so the worker learns at its next renewal.
    pub(super) fn drop_work(&mut self, id: WorkId) {
        let Some(entry) = self.work.items.remove(id) else { return };
        let deadline = entry.lease.and_then(|no| self.work.leases.end(no)).map(|(deadline, _)| deadline);
        self.batch.undo.push(Undo::WorkEnded { id, entry, deadline });
        self.staged.work.delete(id);
    }

    /// Stages the rows of the instance that a turn changes. `found` is what there is of its execution, where that is not
    /// known from the rows of the instance.
    fn stage_turn(
        &mut self,
        no: InstanceNo,
        id: &Arc<str>,
        key: InstanceKey,
        (before, found): (Option<Arc<InstanceRows>>, Option<ExecutionFound>),
        ack: &mut TurnAck,
    ) {
        let now_ms = self.now.wall_ms;
        let mut rows = match before {
            Some(before) => InstanceRows::clone(&before),
            None => self.stage_instance(id, key, ack.execution),
        };
        let mut update = InstanceUpdate::default();
        if let Some((name, version)) = ack.name.take() {
            let named = Identity::Named { name: name.clone(), version: Some(version.clone()) };
            if rows.identity != named {
                // Its parent is fixed with its name. Without one it stays invisible to management.
                update.parent =
                    ack.parent.take().filter(|_| matches!(rows.identity, Identity::Unnamed { .. }));
                update.named = Some((name, Some(version)));
                rows.identity = named;
            }
        }
        let mut execution = match found {
            Some(found) => found.rows,
            None if ack.execution == rows.execution => rows.latest.clone(),
            None => ExecutionRows::default(),
        };
        if ack.execution > rows.execution {
            update.execution = Some(ack.execution);
            rows.execution = ack.execution;
        }
        let is_latest = ack.execution == rows.execution;
        let change = ExecutionChange {
            exists: execution.exists,
            status: ack.status.clone(),
            output: ack.output.take(),
            pinned: ack.pinned.clone(),
            now_ms,
        };
        self.staged.put_execution(key, ack.execution, change);
        execution.exists = true;
        execution.pinned = ack.pinned.take().or(execution.pinned);
        let complete = is_latest && execution.last_event == 0;
        self.stage_events(id, key, ack.execution, &mut execution, &mut ack.history);
        if let Some(status) = ack.custom_status.take() {
            update.custom_status = Some(status);
            update.custom_status_versions = 1;
        }
        self.staged.update_instance(key, update);
        rows.may_have_kv |= !ack.kv.is_empty();
        self.stage_kv(key, std::mem::take(&mut ack.kv));
        if rows.may_have_kv && ack.status.as_ref().is_some_and(Status::is_end) {
            self.staged.kv.entry(key).or_default().push(KvOp::Fold);
        }
        if is_latest {
            if let Identity::Unnamed { is_started } = &mut rows.identity {
                *is_started |= starts(&ack.history, id, ack.execution);
            }
            rows.latest = execution;
        }
        let (instance, execution, runs) = (Arc::clone(id), ack.execution, std::mem::take(&mut ack.history));
        self.batch.history_changes.push(HistoryChange::Add { instance, execution, runs, complete });
        self.learn(no, RowCache::Present(Arc::new(rows)));
    }

    pub(super) fn append_history(
        &mut self,
        id: &str,
        execution: u64,
        mut runs: Vec<Arc<Run>>,
    ) -> Result<Reply, Stop> {
        let no = self.turns.instances.instance(id);
        let id: Arc<str> = id.into();
        let before = self.rows_of(no)?;
        let (key, found) = match &before {
            Some(rows) => (rows.key, self.check_events(&id, rows, execution, &runs, false)?),
            // Nothing of an instance that is not there is no row: one of an execution that has nothing is damage.
            None if runs.is_empty() => return Ok(Reply::Done),
            None => (self.new_key()?, None),
        };
        let mut rows = match before {
            Some(before) => InstanceRows::clone(&before),
            None => self.stage_instance(&id, key, execution),
        };
        if execution == rows.execution {
            let mut latest = found.map_or_else(|| rows.latest.clone(), |found| found.rows);
            self.stage_events(&id, key, execution, &mut latest, &mut runs);
            if let Identity::Unnamed { is_started } = &mut rows.identity {
                *is_started |= starts(&runs, &id, execution);
            }
            rows.latest = latest;
        } else {
            self.stage_events(&id, key, execution, &mut ExecutionRows::default(), &mut runs);
        }
        self.learn(no, RowCache::Present(Arc::new(rows)));
        self.batch.history_changes.push(HistoryChange::Forget { instance: id });
        Ok(Reply::Done)
    }

    /// An instance gets its first row. Without a name it stays invisible to management.
    fn stage_instance(&mut self, id: &Arc<str>, key: InstanceKey, execution: u64) -> InstanceRows {
        let new = NewInstance { id: Arc::clone(id), execution, created_at_ms: self.now.wall_ms };
        self.staged.insert_instance(key, new);
        InstanceRows {
            key,
            identity: Identity::Unnamed { is_started: false },
            execution,
            latest: ExecutionRows::default(),
            may_have_kv: false,
        }
    }

    fn stage_events(
        &mut self,
        id: &str,
        key: InstanceKey,
        execution: u64,
        rows: &mut ExecutionRows,
        runs: &mut [Arc<Run>],
    ) {
        for run in runs {
            // Nobody else has it yet, so nothing is copied.
            codec::bind(&mut Arc::make_mut(run).record, id, execution);
            rows.last_event = rows.last_event.max(run.last_event);
            self.staged.append(key, execution, Arc::clone(run), self.now.wall_ms);
        }
    }

    fn stage_kv(&mut self, key: InstanceKey, changes: Vec<KvChange>) {
        if changes.is_empty() {
            return;
        }
        let at_ms = self.now.wall_ms;
        let ops = changes.into_iter().map(|change| match change {
            KvChange::Set { key, value, at_ms } => KvOp::Set { key, value, at_ms },
            KvChange::Clear { key } => KvOp::Clear { key, at_ms },
            KvChange::ClearAll => KvOp::ClearAll { at_ms },
        });
        self.staged.kv.entry(key).or_default().extend(ops);
    }

    /// Refuses a run that would write an event id a second time. What comes after the last event there is, which
    /// is what the runtime writes, needs no look at the rows. Gives what was found, if there was a look.
    fn check_events(
        &mut self,
        id: &Arc<str>,
        rows: &InstanceRows,
        execution: u64,
        runs: &[Arc<Run>],
        is_last_word: bool,
    ) -> Result<Option<ExecutionFound>, Stop> {
        let Some(wanted) = wanted(rows, execution, runs) else { return Ok(None) };
        let before = wanted.before.clone();
        let found = self.execution_of(wanted);
        let found = found.map_err(|error| {
            unread(error, || format!("the history of instance {id}, execution {execution}"))
        })?;
        for run in runs {
            let asked = before.iter().position(|event| *event == run.last_event);
            let reaching = asked.and_then(|place| found.before.get(place).copied().flatten());
            let collides = |first| !(is_last_word && first != run.first_event && runs.len() == 1);
            if let Some((first, last)) = reaching
                && last >= run.first_event
                && collides(first)
            {
                let error = Error::duplicate_event(format!(
                    "duplicate event: events {}..={} of execution {execution} overlap with the stored {first}..={last}",
                    run.first_event, run.last_event
                ));
                return Err(Stop::Refused { error, stands: !self.has_changed(id) });
            }
        }
        Ok(Some(found))
    }
}
