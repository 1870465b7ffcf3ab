//! Acknowledging a turn: everything it wrote, all or nothing.

use std::sync::Arc;

use duroxide::EventKind;
use rusqlite::Connection;

use super::apply::unknown_turn_lease;
use super::op::{KvChange, Reply, Run, TurnAck};
use super::rows::{self, ExecutionChange, SqlResult};
use super::undo::Undo;
use super::{Engine, HistoryChange, Stop};
use crate::codec;
use crate::error::Error;
use crate::queue::{InstanceNo, InstanceRow, Standing};

impl Engine {
    pub(super) fn ack_turn(&mut self, ack: TurnAck) -> Result<Reply, Stop> {
        // Checks first: nothing below them can be refused.
        let no = self.turn_leases.get(ack.lease).ok_or_else(unknown_turn_lease)?.instance;
        let before = self.standing_of(no)?;
        if let Some(row) = &before {
            // The runtime's last word about a history that it could not read has an id far from the others. It is written,
            // whatever a damaged row says of how far it reaches.
            let is_last_word = ack.status.as_deref() == Some("Failed");
            self.check_events(no, row, ack.execution, &ack.history, is_last_word)?;
        }

        let Some((deadline, lease)) = self.end_turn_lease(ack.lease) else {
            return Err(unknown_turn_lease());
        };
        for id in lease.messages.keys() {
            self.message_changes.delete(*id);
        }
        self.remember_ended_turn(ack.lease, deadline, lease);
        let (row, complete) = self.write_turn(no, before, &ack)?;
        if let Some(instance) = self.turns.id(no) {
            let (instance, execution, runs) = (Arc::clone(instance), ack.execution, ack.history);
            self.history_changes.push(HistoryChange::Add { instance, execution, runs, complete });
        }
        for work in ack.work {
            self.enqueue_work(work);
        }
        // After the enqueue: an activity that is scheduled and cancelled in one turn never runs.
        for (instance, execution, activity) in &ack.cancelled {
            for id in self.work.of_activity(instance, *execution, *activity) {
                self.drop_work(id);
            }
        }
        for message in ack.messages {
            self.enqueue_message(message);
        }
        self.learn(no, row.map_or(Standing::Absent, |row| Standing::Present(Arc::new(row))));
        self.turns.release(no);
        Ok(Reply::Done)
    }

    /// Removes an activity, whoever works on it: its lease is gone, so the worker learns at its next renewal.
    pub(super) fn drop_work(&mut self, id: crate::queue::WorkId) {
        let Some(entry) = self.work.remove(id) else { return };
        let deadline = entry.lease.and_then(|no| self.work_leases.end(no)).map(|(deadline, _)| deadline);
        self.undo.push(Undo::WorkEnded { id, entry, deadline });
        self.work_changes.delete(id);
    }

    /// Returns the row as it is now, and whether this turn is all that its execution has so far.
    fn write_turn(
        &mut self,
        no: InstanceNo,
        before: Option<Arc<InstanceRow>>,
        ack: &TurnAck,
    ) -> Result<(Option<InstanceRow>, bool), Stop> {
        let now_ms = self.now.wall_ms;
        let Some(id) = self.turns.id(no).cloned() else { return Ok((None, false)) };
        let connection = self.begin()?;
        let mut row = write_instance(connection, &id, before.as_deref(), ack, now_ms)?;
        let change = ExecutionChange {
            instance: row.key,
            execution: ack.execution,
            status: ack.status.as_deref(),
            output: ack.output.as_deref(),
            pinned: ack.pinned.as_ref(),
            now_ms,
        };
        let is_known = row.has_execution && ack.execution == row.execution;
        let complete = !is_known
            && match row.last_event_of(ack.execution) {
                Some(last) => last == 0,
                None => !rows::has_history(connection, row.key, ack.execution)?,
            };
        if is_known || !rows::insert_execution(connection, &change)? {
            rows::update_execution(connection, &change)?;
        }
        if ack.execution == row.execution {
            row.has_execution = true;
            row.pinned = ack.pinned.clone().or(row.pinned);
        }
        if complete && ack.execution == row.execution {
            row.last_event = Some(0);
        }
        insert_events(connection, &id, &mut row, ack.execution, &ack.history, now_ms)?;
        if let Some(status) = &ack.custom_status {
            rows::set_custom_status(connection, row.key, status.as_deref())?;
        }
        write_kv(connection, row.key, &ack.kv, now_ms)?;
        row.has_kv |= !ack.kv.is_empty();
        if row.has_kv && matches!(ack.status.as_deref(), Some("Completed" | "ContinuedAsNew" | "Failed")) {
            rows::kv_fold(connection, row.key)?;
        }
        if row.name.is_none() {
            row.runnable = started_by_hand(connection, &id, &row)?;
        }
        Ok((Some(row), complete))
    }

    /// What an instance's rows are from here on; forgotten if the batch is rolled back.
    fn learn(&mut self, instance: InstanceNo, standing: Standing) {
        self.turns.set_standing(instance, standing);
        self.undo.push(Undo::Learned { instance });
    }

    /// The rows of the instance that an operation is about.
    fn standing_of(&mut self, no: InstanceNo) -> Result<Option<Arc<InstanceRow>>, Stop> {
        let named = self.named(no);
        self.standing(no).map_err(|error| self.unread(error, || format!("the rows of {named}")))
    }

    /// The rows of an instance, read once and then kept up to date.
    pub(super) fn standing(&mut self, no: InstanceNo) -> SqlResult<Option<Arc<InstanceRow>>> {
        match self.turns.standing(no) {
            Standing::Present(row) => return Ok(Some(Arc::clone(row))),
            Standing::Absent => return Ok(None),
            Standing::Unread => {}
        }
        let Some(id) = self.turns.id(no).cloned() else { return Ok(None) };
        let connection = self.connection.connection();
        let mut row = rows::instance(connection, &id)?;
        if let Some(row) = row.as_mut().filter(|row| row.name.is_none()) {
            row.runnable = started_by_hand(connection, &id, row)?;
        }
        let row = row.map(Arc::new);
        self.learn(no, row.clone().map_or(Standing::Absent, Standing::Present));
        Ok(row)
    }

    pub(super) fn append_history(
        &mut self,
        id: &str,
        execution: u64,
        runs: &[Arc<Run>],
    ) -> Result<Reply, Stop> {
        let no = self.turns.instance(id);
        let before = self.standing_of(no)?;
        if let Some(row) = &before {
            self.check_events(no, row, execution, runs, false)?;
        }
        // Nothing of an instance that is not there is no row: one of an execution that has nothing is damage.
        if before.is_none() && runs.is_empty() {
            return Ok(Reply::Done);
        }
        let now_ms = self.now.wall_ms;
        let connection = self.begin()?;
        let mut row = match before {
            Some(row) => InstanceRow::clone(&row),
            None => {
                let key = rows::insert_instance(connection, id, None, execution, None, now_ms)?;
                unnamed(key, execution)
            }
        };
        insert_events(connection, id, &mut row, execution, runs, now_ms)?;
        if row.name.is_none() {
            row.runnable = started_by_hand(connection, id, &row)?;
        }
        self.learn(no, Standing::Present(Arc::new(row)));
        self.history_changes.push(HistoryChange::Forget { instance: id.into() });
        Ok(Reply::Done)
    }

    /// Refuses a run that would write an event id a second time. What comes after the last event there is, which
    /// is what the runtime writes, needs no look at the rows.
    fn check_events(
        &mut self,
        no: InstanceNo,
        row: &InstanceRow,
        execution: u64,
        runs: &[Arc<Run>],
        is_last_word: bool,
    ) -> Result<(), Stop> {
        let last_event = row.last_event_of(execution);
        for run in runs {
            if last_event.is_some_and(|last| run.first_event > last) {
                continue;
            }
            let found = rows::overlapping(self.connection.connection(), row.key, execution, run);
            let named = self.named(no);
            let found = found.map_err(|error| {
                self.unread(error, || format!("the history of {named}, execution {execution}"))
            })?;
            let collides = |first| !(is_last_word && first != run.first_event && runs.len() == 1);
            if let Some((first, last)) = found.filter(|(first, _)| collides(*first)) {
                let error = Error::refused(format!(
                    "duplicate event: events {}..={} of execution {execution} overlap with the stored {first}..={last}",
                    run.first_event, run.last_event
                ));
                let stands = self.turns.id(no).is_some_and(|id| !self.has_changed(id));
                return Err(Stop::Refused { error, stands });
            }
        }
        Ok(())
    }

    fn named(&self, no: InstanceNo) -> String {
        self.turns.id(no).map_or_else(String::new, |id| format!("instance {id}"))
    }
}

fn unnamed(key: i64, execution: u64) -> InstanceRow {
    InstanceRow {
        key,
        name: None,
        version: None,
        execution,
        pinned: None,
        has_execution: false,
        has_kv: false,
        runnable: false,
        last_event: Some(0),
    }
}

fn insert_events(
    connection: &Connection,
    id: &str,
    row: &mut InstanceRow,
    execution: u64,
    runs: &[Arc<Run>],
    now_ms: u64,
) -> SqlResult<()> {
    for run in runs {
        rows::insert_history(connection, row.key, id, execution, run, now_ms)?;
        if execution == row.execution {
            row.last_event = row.last_event.map(|last| last.max(run.last_event));
        }
    }
    Ok(())
}

/// Creates the row of an instance at its first turn, or brings it up to date.
fn write_instance(
    connection: &Connection,
    id: &str,
    before: Option<&InstanceRow>,
    ack: &TurnAck,
    now_ms: u64,
) -> SqlResult<InstanceRow> {
    let Some(before) = before else {
        // Without a name it stays invisible to management, as an instance duroxide knows nothing of.
        let parent = ack.parent.as_deref().filter(|_| ack.name.is_some());
        let key = rows::insert_instance(connection, id, ack.name.as_ref(), ack.execution, parent, now_ms)?;
        let mut row = unnamed(key, ack.execution);
        if let Some((name, version)) = ack.name.clone() {
            row = InstanceRow { name: Some(name), version: Some(version), runnable: true, ..row };
        }
        return Ok(row);
    };
    let mut row = before.clone();
    if let Some((name, version)) = ack.name.clone() {
        row = InstanceRow { name: Some(name), version: Some(version), runnable: true, ..row };
    }
    if ack.execution > row.execution {
        row = InstanceRow {
            execution: ack.execution,
            pinned: None,
            has_execution: false,
            last_event: None,
            ..row
        };
    }
    if row != *before {
        rows::update_instance(connection, &row)?;
        if before.name.is_none()
            && let Some(parent) = ack.parent.as_deref()
        {
            rows::set_parent(connection, row.key, parent)?;
        }
    }
    Ok(row)
}

fn write_kv(connection: &Connection, key: i64, changes: &[KvChange], now_ms: u64) -> SqlResult<()> {
    for change in changes {
        match change {
            KvChange::Set { key: name, value, at_ms } => rows::kv_set(connection, key, name, value, *at_ms)?,
            KvChange::Clear { key: name } => rows::kv_clear(connection, key, Some(name), now_ms)?,
            KvChange::ClearAll => rows::kv_clear(connection, key, None, now_ms)?,
        }
    }
    Ok(())
}

/// Whether an instance without a name has a start in a history that was appended by hand: the one case in
/// which the writer decodes events. What does not decode starts nothing.
fn started_by_hand(connection: &Connection, id: &str, row: &InstanceRow) -> SqlResult<bool> {
    let mut events = Vec::new();
    for stored in rows::history(connection, row.key, id, row.execution)? {
        if codec::decode_events(&stored.record, &mut events).is_err() {
            return Ok(false);
        }
    }
    Ok(events.iter().any(|event| matches!(event.kind, EventKind::OrchestrationStarted { .. })))
}
