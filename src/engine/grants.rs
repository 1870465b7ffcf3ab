//! Matching parked fetches with ready work: exactly as many fetches are woken as there is work for.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use duroxide::providers::{DispatcherCapabilityFilter, KvEntry};
use semver::Version;

use super::contradictions::{self, NoHistory};
use super::op::{FetchTurn, FetchWork, GrantBody, Reply, Run, TurnGrant, WorkGrant};
use super::queued::{self, MessageRow, WorkRow};
use super::returns::{LeaseGuard, Return};
use super::rows::{self, SqlResult};
use super::undo::Undo;
use super::{Engine, HistoryChange, TurnFetch, TurnLease, WorkFetch};
use crate::buffer::{Replies, Responder};
use crate::error::Error;
use crate::queue::{
    FetchNo, InstanceNo, InstanceRow, LeaseNo, Message, MessageId, Next, Schedule, Wants, WorkId,
};

/// How many instances one batch looks at for turns that fetches may not have in the end; the next one goes on at
/// once.
const LOOKS_MAX: usize = 256;

/// The pinned versions a fetch accepts: ranges, both ends included. `None` accepts everything.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Accepts(Option<Arc<[(Version, Version)]>>);

impl Accepts {
    fn new(filter: Option<&DispatcherCapabilityFilter>) -> Self {
        let ranges = |filter: &DispatcherCapabilityFilter| {
            let ranges = filter.supported_duroxide_versions.iter();
            ranges.map(|range| (range.min.clone(), range.max.clone())).collect()
        };
        Self(filter.map(ranges))
    }

    fn admits(&self, pinned: Option<&Version>) -> bool {
        match (&self.0, pinned) {
            (None, _) => true,
            // Supporting nothing means nothing, not even what is pinned to nothing.
            (Some(ranges), None) => !ranges.is_empty(),
            (Some(ranges), Some(pinned)) => ranges.iter().any(|(min, max)| min <= pinned && pinned <= max),
        }
    }

    /// Whether there is nothing it accepts.
    fn is_empty(&self) -> bool {
        self.0.as_ref().is_some_and(|ranges| ranges.is_empty())
    }
}

/// What executions before the running one left behind.
type KeyValues = HashMap<String, KvEntry>;

impl Engine {
    pub(super) fn park_turn(&mut self, fetch: FetchTurn, responder: Responder<Reply>) {
        // A future dropped before its fetch got here has been on the list of returns already.
        if responder.is_abandoned() {
            return;
        }
        let deadline = self.now.monotonic.saturating_add(fetch.poll_timeout);
        let parked = TurnFetch { lock_timeout: fetch.lock_timeout, responder };
        self.parked_turns.park(fetch.no, deadline, Accepts::new(fetch.filter.as_ref()), parked);
    }

    pub(super) fn park_work(&mut self, fetch: FetchWork, responder: Responder<Reply>) {
        if responder.is_abandoned() {
            return;
        }
        let deadline = self.now.monotonic.saturating_add(fetch.poll_timeout);
        let FetchWork { no, lock_timeout, session, tags, .. } = fetch;
        let (owner, session_timeout) = session.unzip();
        let session_timeout = session_timeout.unwrap_or_default();
        let parked = WorkFetch { no, deadline, lock_timeout, session_timeout, responder };
        self.parked_work.park(no, deadline, Wants { owner, tags }, parked);
    }

    pub(super) fn match_turns(&mut self, out: &mut Replies<Reply>) -> Result<(), Error> {
        self.looks_left = false;
        // One look for each instance that came in with this batch, and some more, so that it comes to an end.
        let mut looks = LOOKS_MAX.saturating_add(self.turns.take_newly_unread());
        if self.turns.take_news() {
            self.parked_turns.news();
        }
        if self.parked_turns.is_empty() {
            return Ok(());
        }
        let mut walked = None;
        while self.turns.has_candidates()
            && let Some((no, accepts)) = self.parked_turns.next_hopeful(walked)
        {
            if accepts.is_empty() {
                self.parked_turns.found_nothing(no);
                continue;
            }
            match self.turns.next(|pinned| accepts.admits(pinned)) {
                Next::Nothing => self.parked_turns.found_nothing(no),
                Next::Ready(instance) => {
                    if self.parked_turns.get(no).is_some_and(|fetch| fetch.responder.is_abandoned()) {
                        self.parked_turns.take(no);
                    } else {
                        self.grant_turn(no, instance, out)?;
                    }
                }
                Next::Orphaned(instance) => self.drop_orphans(instance),
                Next::Unread(_) if looks == 0 => {
                    self.looks_left = true;
                    walked = Some(no);
                }
                Next::Unread(instance) => {
                    looks -= 1;
                    if let Err(error) = self.standing(instance)
                        && let Some(error) = self.hold_back_turn(instance, error)?
                    {
                        // Nobody can tell what any of them may have.
                        for fetch in self.parked_turns.drain() {
                            out.push_standing(fetch.responder, Err(error.clone()));
                        }
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// Drops queued events that came before their instance started and would be next.
    fn drop_orphans(&mut self, no: InstanceNo) {
        let Some(instance) = self.turns.id(no).cloned() else { return };
        let messages = self.turns.take_visible(no);
        tracing::warn!(
            %instance,
            messages = messages.len(),
            "dropping queued events for an instance that has not started"
        );
        for id in messages.keys() {
            self.message_changes.delete(*id);
        }
        self.undo.push(Undo::Dropped { instance: no, id: instance, messages });
    }

    /// False if it turned out that the instance has nothing that can be read, and the fetch still waits.
    fn grant_turn(
        &mut self,
        fetch: FetchNo,
        instance: InstanceNo,
        out: &mut Replies<Reply>,
    ) -> Result<bool, Error> {
        let lease = self.new_lease();
        let mut messages = self.turns.lease(instance, lease);
        let bodies = match self.bodies_of(instance, &mut messages) {
            Ok(bodies) if bodies.is_empty() => {
                self.turns.release(instance);
                return Ok(false);
            }
            bodies => bodies,
        };
        let grant = bodies.and_then(|bodies| self.turn_grant(instance, lease, bodies, &mut messages));
        let grant = match grant {
            Ok(grant) => grant,
            Err(error) => {
                self.turns.release(instance);
                for (id, message) in messages {
                    self.turns.push(instance, id, message, self.now);
                }
                let Some(error) = self.hold_back_turn(instance, error)? else { return Ok(false) };
                if let Some(fetch) = self.parked_turns.take(fetch) {
                    out.push_standing(fetch.responder, Err(error));
                }
                return Ok(true);
            }
        };
        // The fetch was found parked, and nobody has taken it since.
        let Some(fetch) = self.parked_turns.take(fetch) else { return Ok(true) };
        self.undo.push(Undo::TurnGranted(lease));
        let deadline = self.now.monotonic.saturating_add(fetch.lock_timeout);
        self.turn_leases.grant(lease, deadline, TurnLease { instance, messages });
        // An orchestrator's code acts through its acknowledgement alone, which comes later in the same log.
        let after = if self.sync_acks { self.connection.next_commit() } else { 0 };
        out.push_after(after, fetch.responder, Ok(Reply::Turn(Some(Box::new(grant)))));
        Ok(true)
    }

    /// The items of messages. One that is damaged is set aside, and not among `messages` any more.
    fn bodies_of(
        &mut self,
        instance: InstanceNo,
        messages: &mut BTreeMap<MessageId, Message>,
    ) -> SqlResult<Vec<GrantBody<MessageRow>>> {
        let id_shared = self.turns.id(instance).cloned().unwrap_or_else(|| Arc::from(""));
        let mut bodies = Vec::with_capacity(messages.len());
        let mut damaged = Vec::new();
        for (id, message) in messages.iter_mut() {
            match self.message_body(*id, &id_shared, message) {
                Ok(body) => bodies.push(body),
                Err(error) => damaged.push((*id, Error::damage(error)?)),
            }
        }
        self.met_damage |= !damaged.is_empty() && self.connection.is_in_transaction();
        for (id, error) in damaged {
            messages.remove(&id);
            self.set_aside("messages", id, &id_shared, &error);
        }
        Ok(bodies)
    }

    fn turn_grant(
        &mut self,
        instance: InstanceNo,
        lease: LeaseNo,
        bodies: Vec<GrantBody<MessageRow>>,
        messages: &mut BTreeMap<MessageId, Message>,
    ) -> SqlResult<TurnGrant> {
        let id_shared = self.turns.id(instance).cloned().unwrap_or_else(|| Arc::from(""));
        let row = self.standing(instance)?;
        let (history, kv) = match &row {
            None => (Ok(Vec::new()), HashMap::new()),
            Some(row) => match self.damaged_history(&id_shared, row.execution) {
                Some(error) => (Err(error), HashMap::new()),
                None => match self.history_and_kv(instance, row) {
                    Ok((history, kv)) => (Ok(history), kv),
                    Err(why) => {
                        self.met_damage |= why.is_unread() && self.connection.is_in_transaction();
                        let found = why.damage()?;
                        (Err(self.note_damaged_history(&id_shared, row.execution, found)), HashMap::new())
                    }
                },
            },
        };
        // Nothing below can fail.
        let mut attempt = 0;
        for (id, message) in messages {
            message.attempt = message.attempt.saturating_add(1);
            attempt = attempt.max(message.attempt);
            let schedule = Schedule { visible_at_ms: message.visible_at_ms, attempt: message.attempt };
            self.message_changes.set_attempt(*id, schedule);
        }
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

    fn history_and_kv(
        &mut self,
        no: InstanceNo,
        row: &InstanceRow,
    ) -> Result<(Vec<Arc<Run>>, KeyValues), NoHistory> {
        let connection = self.connection.connection();
        let kv = if row.has_kv { rows::kv_base(connection, row.key)? } else { HashMap::new() };
        Ok((self.history(no, row)?, kv))
    }

    /// From memory, or from the rows, in which case memory has it from the commit on. What this very batch
    /// did to the instance is in the rows already and not yet in memory.
    fn history(&mut self, no: InstanceNo, row: &InstanceRow) -> Result<Vec<Arc<Run>>, NoHistory> {
        let Some(instance) = self.turns.id(no) else { return Ok(Vec::new()) };
        let changed = |change: &HistoryChange| change.instance() == instance;
        if !self.history_changes.iter().any(changed)
            && let Some((_, runs)) = self.histories.get(instance, Some(row.execution))
        {
            return Ok(runs);
        }
        let connection = self.connection.connection();
        let runs = rows::history(connection, row.key, instance, row.execution)?;
        contradictions::check(connection, instance, row, &runs)?;
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
            self.grant_work(wants, fetch, id, out)?;
        }
        Ok(())
    }

    fn grant_work(
        &mut self,
        wants: Wants,
        fetch: WorkFetch,
        id: WorkId,
        out: &mut Replies<Reply>,
    ) -> Result<(), Error> {
        let is_in_memory = self.work.get(id).is_some_and(|entry| entry.body.is_some());
        let row = match (!is_in_memory).then(|| self.work_row(id)).transpose() {
            Ok(row) => row,
            Err(error) => {
                match self.hold_back_work(id, error)? {
                    Some(error) => out.push_standing(fetch.responder, Err(error)),
                    // It cannot be read; there may be something else for this fetch.
                    None => self.parked_work.park(fetch.no, fetch.deadline, wants, fetch),
                }
                return Ok(());
            }
        };
        let lease = self.new_lease();
        let session_until = self.now.monotonic.saturating_add(fetch.session_timeout);
        let session = wants.owner.as_ref().map(|owner| (owner, session_until));
        let scheduled_in = self.work.get(id).map_or(0, |entry| entry.scheduled_in);
        let Some((schedule, body)) = self.work.lease(id, lease, session, self.now) else { return Ok(()) };
        let body = match (body, row) {
            (Some(body), _) => GrantBody::Item(body.into_item()),
            (None, Some(row)) => GrantBody::Row { id, row },
            // One of both was there.
            (None, None) => return Ok(()),
        };
        self.work_changes.set_attempt(id, schedule);
        self.undo.push(Undo::WorkGranted { no: lease, id });
        self.work_leases.grant(lease, self.now.monotonic.saturating_add(fetch.lock_timeout), id);
        let guard = LeaseGuard::new(Return::Work(lease), Arc::clone(&self.returns));
        let grant = WorkGrant { body, attempt: schedule.attempt, guard };
        // An activity acts on the world: what had it run must not be gone afterwards.
        let after = if self.sync_acks { self.connection.next_commit() } else { scheduled_in };
        out.push_after(after, fetch.responder, Ok(Reply::Work(Some(Box::new(grant)))));
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

    pub(super) fn new_lease(&mut self) -> LeaseNo {
        let lease = self.next_lease;
        self.next_lease += 1;
        lease
    }
}
