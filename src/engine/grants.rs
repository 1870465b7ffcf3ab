//! Matching parked fetches with ready work: exactly as many fetches are woken as there is work for.

use std::collections::HashMap;
use std::sync::Arc;

use super::op::{FetchTurn, FetchWork, GrantBody, Reply, Run, TurnGrant, WorkGrant};
use super::queued::{self, MessageRow, WorkRow};
use super::returns::{LeaseGuard, Return};
use super::rows::{self, SqlResult};
use super::{Engine, HistoryChange, TurnFetch, TurnLease, WorkFetch};
use crate::buffer::{Replies, Responder};
use crate::error::Error;
use crate::queue::{FetchNo, InstanceNo, InstanceRow, LeaseNo, Message, MessageId, Schedule, Wants, WorkId};

impl Engine {
    pub(super) fn park_turn(&mut self, fetch: FetchTurn, responder: Responder<Reply>) {
        // A future dropped before its fetch got here has been on the list of returns already.
        if responder.is_abandoned() {
            return;
        }
        let deadline = self.now.monotonic.saturating_add(fetch.poll_timeout);
        let parked = TurnFetch { lock_timeout: fetch.lock_timeout, filter: fetch.filter, responder };
        self.parked_turns.park(fetch.no, deadline, parked);
    }

    pub(super) fn park_work(&mut self, fetch: FetchWork, responder: Responder<Reply>) {
        if responder.is_abandoned() {
            return;
        }
        let deadline = self.now.monotonic.saturating_add(fetch.poll_timeout);
        let FetchWork { no, lock_timeout, session, tags, .. } = fetch;
        let (owner, session_timeout) = session.unzip();
        let session_timeout = session_timeout.unwrap_or_default();
        let parked = WorkFetch { lock_timeout, session_timeout, responder };
        self.parked_work.park(no, deadline, Wants { owner, tags }, parked);
    }

    pub(super) fn match_turns(&mut self, out: &mut Replies<Reply>) -> Result<(), Error> {
        if self.parked_turns.is_empty() || !self.turns.has_candidates() {
            return Ok(());
        }
        if let Err(error) = self.classify() {
            // Nobody can tell what any of them may have.
            for fetch in self.parked_turns.drain() {
                out.push(fetch.responder, Err(error.clone()));
            }
            return Err(error);
        }
        let mut walked = None;
        while self.turns.has_candidates()
            && let Some((no, fetch)) = self.parked_turns.next_after(walked)
        {
            walked = Some(no);
            if fetch.responder.is_abandoned() {
                self.parked_turns.take(no);
                continue;
            }
            let picked = match &fetch.filter {
                None => self.turns.pick(|_| true),
                // Supporting nothing means nothing, not even what is pinned to nothing.
                Some(filter) if filter.supported_duroxide_versions.is_empty() => None,
                Some(filter) => {
                    self.turns.pick(|pinned| pinned.is_none_or(|pinned| filter.is_compatible(pinned)))
                }
            };
            if let Some(instance) = picked {
                self.grant_turn(no, instance, out)?;
            }
        }
        Ok(())
    }

    /// Looks at the rows of every instance with messages whose rows are unknown, and drops queued events
    /// that came before their instance started.
    fn classify(&mut self) -> Result<(), Error> {
        while let Some(no) = self.turns.next_unread() {
            self.standing(no)?;
        }
        while let Some((instance, messages)) = self.turns.take_orphans() {
            tracing::warn!(
                %instance,
                messages = messages.len(),
                "dropping queued events for an instance that has not started"
            );
            for id in messages {
                self.message_changes.delete(id);
            }
        }
        Ok(())
    }

    fn grant_turn(
        &mut self,
        fetch: FetchNo,
        instance: InstanceNo,
        out: &mut Replies<Reply>,
    ) -> Result<(), Error> {
        let Some(fetch) = self.parked_turns.take(fetch) else { return Ok(()) };
        let lease = self.new_lease();
        let mut messages = self.turns.lease(instance, lease);
        let grant = match self.turn_grant(instance, lease, &mut messages) {
            Ok(grant) => grant,
            Err(error) => return Err(unreadable(error, fetch.responder, out)),
        };
        self.undo.granted_turns.push(lease);
        let deadline = self.now.monotonic.saturating_add(fetch.lock_timeout);
        self.turn_leases.grant(lease, deadline, TurnLease { instance, messages });
        out.push(fetch.responder, Ok(Reply::Turn(Some(Box::new(grant)))));
        Ok(())
    }

    fn turn_grant(
        &mut self,
        instance: InstanceNo,
        lease: LeaseNo,
        messages: &mut std::collections::BTreeMap<MessageId, Message>,
    ) -> Result<TurnGrant, Error> {
        let mut attempt = 0;
        let mut bodies = Vec::with_capacity(messages.len());
        let id_shared = self.turns.id(instance).cloned().unwrap_or_else(|| Arc::from(""));
        for (id, message) in messages {
            message.attempt = message.attempt.saturating_add(1);
            attempt = attempt.max(message.attempt);
            let schedule = Schedule { visible_at_ms: message.visible_at_ms, attempt: message.attempt };
            bodies.push(self.message_body(*id, &id_shared, message)?);
            self.message_changes.set_attempt(*id, schedule);
        }
        let row = self.standing(instance)?;
        let (history, kv) = match &row {
            None => (Vec::new(), HashMap::new()),
            Some(row) => {
                let connection = self.connection.connection();
                let kv = if row.has_kv { rows::kv_base(connection, row.key)? } else { HashMap::new() };
                (self.history(instance, row)?, kv)
            }
        };
        let execution = row.as_ref().map_or(duroxide::INITIAL_EXECUTION_ID, |row| row.execution);
        let (name, version) = row.map_or((None, None), |row| (row.name.clone(), row.version.clone()));
        Ok(TurnGrant {
            instance: id_shared,
            name,
            version,
            execution,
            history,
            messages: bodies,
            kv,
            attempt,
            guard: LeaseGuard::new(Return::Turn(lease), Arc::clone(&self.returns)),
        })
    }

    /// From memory, or from the rows, in which case memory has it from the commit on. What this very batch
    /// did to the instance is in the rows already and not yet in memory.
    fn history(&mut self, no: InstanceNo, row: &InstanceRow) -> SqlResult<Vec<Arc<Run>>> {
        let Some(instance) = self.turns.id(no) else { return Ok(Vec::new()) };
        let changed = |change: &HistoryChange| change.instance() == instance;
        if !self.history_changes.iter().any(changed)
            && let Some((_, runs)) = self.histories.get(instance, Some(row.execution))
        {
            return Ok(runs);
        }
        let runs = rows::history(self.connection.connection(), row.key, instance, row.execution)?;
        let (instance, execution) = (Arc::clone(instance), row.execution);
        self.history_changes.push(HistoryChange::Fill { instance, execution, runs: runs.clone() });
        Ok(runs)
    }

    /// The item itself if memory still has it, or else its record: staged in this batch or in its row.
    fn message_body(
        &self,
        id: MessageId,
        instance: &Arc<str>,
        message: &mut Message,
    ) -> SqlResult<GrantBody<MessageRow>> {
        if let Some(body) = message.body.take() {
            return Ok(GrantBody::Item(body.into_item()));
        }
        let record = match self.message_changes.inserted(id) {
            Some(staged) => staged.record.clone(),
            None => queued::message_record(self.connection.connection(), id)?,
        };
        let row = MessageRow { instance: Arc::clone(instance), kind: message.kind, record };
        Ok(GrantBody::Row { id, row })
    }

    pub(super) fn match_work(&mut self, out: &mut Replies<Reply>) -> Result<(), Error> {
        let gone = |fetch: &WorkFetch| fetch.responder.is_abandoned();
        while let Some((wants, fetch, id)) =
            self.parked_work.next_match(&mut self.work, self.now.monotonic, gone)
        {
            self.grant_work(&wants, fetch, id, out)?;
        }
        Ok(())
    }

    fn grant_work(
        &mut self,
        wants: &Wants,
        fetch: WorkFetch,
        id: WorkId,
        out: &mut Replies<Reply>,
    ) -> Result<(), Error> {
        let lease = self.new_lease();
        let session_until = self.now.monotonic.saturating_add(fetch.session_timeout);
        let session = wants.owner.as_ref().map(|owner| (owner, session_until));
        let Some((schedule, body)) = self.work.lease(id, lease, session, self.now) else { return Ok(()) };
        let body = match body {
            Some(body) => GrantBody::Item(body.into_item()),
            None => match self.work_row(id) {
                Ok(row) => GrantBody::Row { id, row },
                Err(error) => return Err(unreadable(error.into(), fetch.responder, out)),
            },
        };
        self.work_changes.set_attempt(id, schedule);
        self.undo.granted_work.push(lease);
        self.work_leases.grant(lease, self.now.monotonic.saturating_add(fetch.lock_timeout), id);
        let guard = LeaseGuard::new(Return::Work(lease), Arc::clone(&self.returns));
        let grant = WorkGrant { body, attempt: schedule.attempt, guard };
        out.push(fetch.responder, Ok(Reply::Work(Some(Box::new(grant)))));
        Ok(())
    }

    fn work_row(&self, id: WorkId) -> SqlResult<WorkRow> {
        let entry = self.work.get(id).ok_or(rusqlite::Error::QueryReturnedNoRows)?;
        let record = match self.work_changes.inserted(id) {
            Some(staged) => staged.record.clone(),
            None => queued::work_record(self.connection.connection(), id)?,
        };
        Ok(WorkRow {
            instance: Arc::clone(&entry.instance),
            execution: entry.execution,
            activity: entry.activity,
            session: entry.session.clone(),
            tag: entry.tag.clone(),
            record,
        })
    }

    fn new_lease(&mut self) -> LeaseNo {
        let lease = self.next_lease;
        self.next_lease += 1;
        lease
    }
}

/// What a fetch was to be given cannot be read. It goes down with the batch: parked again it would be matched
/// again at once, for as long as the disk fails.
fn unreadable(error: Error, responder: Responder<Reply>, out: &mut Replies<Reply>) -> Error {
    out.push(responder, Err(error.clone()));
    error
}
