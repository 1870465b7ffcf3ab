//! What a fetch is given: a turn with its messages, its history and its key-values, or an activity.
//!
//! Nearly all of it is in memory. What is not is loaded for all grants of a batch in one call, before anything of the batch
//! is written; what the batch itself has staged comes on top.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::contradictions::{self, NoHistory};
use super::matching::{Accepts, PairedTurn, PairedWork};
use super::op::{GrantBody, Reply, TurnGrant, WorkGrant};
use super::returns::{LeaseGuard, Return};
use super::undo::Undo;
use super::{Engine, HistoryChange, TurnFetch, TurnLease, WorkFetch};
use crate::buffer::{CommitNo, Replies};
use crate::error::Error;
use crate::queue::{InstanceNo, LeaseNo, Message, MessageId, RowCache, Schedule, Wants, WorkId};
use crate::rows::{
    Identity, InstanceRows, KvBase, KvWanted, MessageRow, Run, TurnFound, TurnWanted, WorkRow,
};

/// A grant of the batch at hand, and the fetch that is to be answered with it.
pub(super) enum Granted {
    Turn { accepts: Accepts, fetch: TurnFetch, after: CommitNo, grant: Box<TurnGrant> },
    Work { wants: Wants, fetch: WorkFetch, after: CommitNo, grant: Box<WorkGrant> },
}

/// What a turn is made of, as far as memory has it.
struct Draft {
    wanted: TurnWanted,
    rows: Option<Arc<InstanceRows>>,
    /// One for each message; `None` for one whose record is wanted.
    bodies: Vec<Option<GrantBody<MessageRow>>>,
    history: DraftHistory,
}

enum DraftHistory {
    Known(Vec<Arc<Run>>),
    /// It has been found damaged before.
    Damaged(Error),
    /// What is asked for, followed by what is staged.
    Wanted,
}

/// A turn without what was damaged among its messages.
struct Complete {
    bodies: Vec<GrantBody<MessageRow>>,
    rows: Option<Arc<InstanceRows>>,
    loaded: Loaded,
}

/// A history and the key-values that go with it; or what is damaged of them.
type Loaded = Result<(Vec<Arc<Run>>, KvBase), Error>;

impl Engine {
    /// Answers fetches with the turns they were paired with. True if one of them was parked again, and may have another.
    pub(super) fn grant_turns(&mut self, mut paired: Vec<PairedTurn>, out: &mut Replies<Reply>) -> bool {
        let mut drafts: Vec<Draft> = paired.iter_mut().map(|paired| self.draft(paired)).collect();
        let needed = drafts.iter_mut().enumerate().filter(|(_, draft)| !draft.wanted.is_empty());
        let (needed, wanted): (Vec<usize>, Vec<TurnWanted>) =
            needed.map(|(at, draft)| (at, std::mem::take(&mut draft.wanted))).unzip();
        let found = if wanted.is_empty() { Vec::new() } else { self.store.turns(&wanted) };
        let mut found: BTreeMap<usize, TurnFound> = needed.into_iter().zip(found).collect();
        let mut again = false;
        for (at, (paired, draft)) in paired.into_iter().zip(drafts).enumerate() {
            again |= self.grant_turn(paired, draft, found.remove(&at), out);
        }
        again
    }

    /// Gathers what memory has of a turn.
    fn draft(&mut self, paired: &mut PairedTurn) -> Draft {
        let id = self.turns.instances.id(paired.instance).cloned().unwrap_or_else(|| Arc::from(""));
        let mut wanted = TurnWanted::default();
        let mut bodies = Vec::with_capacity(paired.messages.len());
        for (message_id, message) in &mut paired.messages {
            let body = match (message.body.take(), self.staged.messages.inserted(*message_id)) {
                (Some(body), _) => Some(GrantBody::Item(body.into_item())),
                (None, Some(row)) => Some(GrantBody::Row { id: *message_id, row: row.clone() }),
                (None, None) => {
                    wanted.messages.push(*message_id);
                    None
                }
            };
            bodies.push(body);
        }
        let rows = match self.turns.instances.rows(paired.instance) {
            RowCache::Present(rows) => Some(Arc::clone(rows)),
            RowCache::Absent | RowCache::Unread => None,
        };
        let history = match &rows {
            None => DraftHistory::Known(Vec::new()),
            Some(rows) => match self.damaged_history(&id, rows.execution) {
                Some(error) => DraftHistory::Damaged(error),
                None => {
                    if rows.may_have_kv {
                        let all = self.staged.has_kv(rows.key);
                        let what = if all { KvWanted::All } else { KvWanted::Base };
                        wanted.kv = Some((rows.key, what));
                    }
                    match self.history_in_memory(&id, rows) {
                        Some(runs) => DraftHistory::Known(runs),
                        None => {
                            wanted.history = Some((rows.key, rows.execution));
                            DraftHistory::Wanted
                        }
                    }
                }
            },
        };
        Draft { wanted, rows, bodies, history }
    }

    /// The history of the latest execution, with what is staged of it, if memory has it all.
    fn history_in_memory(&self, id: &Arc<str>, rows: &InstanceRows) -> Option<Vec<Arc<Run>>> {
        let is_new = matches!(self.staged.instances.get(&rows.key), Some((Some(_), _)));
        let of_it = |change: &&HistoryChange| change.instance() == id;
        let changed = |change: &HistoryChange| match change {
            HistoryChange::Add { execution, complete, .. } => *execution == rows.execution && *complete,
            HistoryChange::Fill { .. } | HistoryChange::Forget { .. } => false,
        };
        let is_forgotten = |change: &HistoryChange| matches!(change, HistoryChange::Forget { .. });
        let changes = || self.batch.history_changes.iter().filter(of_it);
        let mut runs = if is_new || changes().any(changed) {
            Vec::new()
        } else if changes().any(is_forgotten) {
            return None;
        } else {
            self.shared.histories.get(id, Some(rows.execution))?.1
        };
        let staged = self.staged.history_of(rows.key, rows.execution);
        merge(&mut runs, staged);
        Some(runs)
    }

    /// True if the fetch was parked again.
    fn grant_turn(
        &mut self,
        paired: PairedTurn,
        draft: Draft,
        found: Option<TurnFound>,
        out: &mut Replies<Reply>,
    ) -> bool {
        let PairedTurn { accepts, fetch, lease, instance, mut messages } = paired;
        let complete = self.complete(instance, &mut messages, draft, found);
        let Complete { bodies, rows, loaded } = match complete {
            Ok(complete) if complete.bodies.is_empty() => {
                // Everything in it was damaged, and is set aside.
                self.turns.instances.release(instance);
                self.park_turn_again(accepts, fetch);
                return true;
            }
            Ok(complete) => complete,
            Err(error) => {
                self.turns.instances.release(instance);
                for (id, message) in messages {
                    self.turns.instances.push(instance, id, message, self.now);
                }
                match self.hold_back_turn(instance, error) {
                    Some(error) => out.push_standing(fetch.responder, Err(error)),
                    None => self.park_turn_again(accepts, fetch),
                }
                return true;
            }
        };
        let grant = self.turn_grant(instance, lease, bodies, rows, loaded, &mut messages);
        self.batch.undo.push(Undo::TurnGranted(lease));
        let deadline = self.now.monotonic.saturating_add(fetch.lock_timeout);
        self.turns.leases.grant(lease, deadline, TurnLease { instance, messages });
        // An orchestrator's code acts through its acknowledgement alone, which comes later in the same log.
        let after = if self.sync_acks { self.store.next_commit() } else { 0 };
        self.batch.granted.push(Granted::Turn { accepts, fetch, after, grant: Box::new(grant) });
        false
    }

    /// Puts together what memory had and what was found. A message that is damaged is set aside, and not among `messages`
    /// any more. An error is one that may not come again.
    fn complete(
        &mut self,
        instance: InstanceNo,
        messages: &mut BTreeMap<MessageId, Message>,
        draft: Draft,
        found: Option<TurnFound>,
    ) -> Result<Complete, Error> {
        let id = self.turns.instances.id(instance).cloned().unwrap_or_else(|| Arc::from(""));
        let TurnFound { messages: records, history, kv } = found.unwrap_or_else(TurnFound::empty);
        let mut records = records.into_iter();
        let mut bodies = Vec::with_capacity(draft.bodies.len());
        let mut damaged = Vec::new();
        for ((message_id, message), body) in messages.iter().zip(draft.bodies) {
            let record = match body {
                Some(body) => {
                    bodies.push(body);
                    continue;
                }
                // One was asked for.
                None => records.next(),
            };
            match record {
                Some(Ok(record)) => {
                    let row = MessageRow { instance: Arc::clone(&id), kind: message.kind, record };
                    bodies.push(GrantBody::Row { id: *message_id, row });
                }
                Some(Err(error)) if error.is_damage() => damaged.push((*message_id, error)),
                Some(Err(error)) => return Err(error),
                None => {}
            }
        }
        for (message_id, error) in damaged {
            messages.remove(&message_id);
            self.set_aside("messages", message_id, &id, &error);
        }
        let Some(rows) = draft.rows else {
            return Ok(Complete { bodies, rows: None, loaded: Ok((Vec::new(), KvBase::new())) });
        };
        let history = match draft.history {
            DraftHistory::Damaged(error) => {
                return Ok(Complete { bodies, rows: Some(rows), loaded: Err(error) });
            }
            DraftHistory::Known(runs) => Ok(runs),
            DraftHistory::Wanted => self.found_history(&id, &rows, history),
        };
        let kv = kv.map(|mut kv| {
            for op in self.staged.kv.get(&rows.key).into_iter().flatten() {
                kv.apply(op);
            }
            kv.into_base()
        });
        let loaded = match (history, kv.map_err(NoHistory::Unread)) {
            (Ok(runs), Ok(kv)) => Ok((runs, kv)),
            (Err(why), _) | (_, Err(why)) => {
                Err(self.note_damaged_history(&id, rows.execution, why.damage()?))
            }
        };
        Ok(Complete { bodies, rows: Some(rows), loaded })
    }

    /// A history as it was found, with what is staged of it; memory keeps it from the commit on.
    fn found_history(
        &mut self,
        id: &Arc<str>,
        rows: &InstanceRows,
        found: Result<crate::rows::HistoryFound, Error>,
    ) -> Result<Vec<Arc<Run>>, NoHistory> {
        let mut found = found.map_err(NoHistory::Unread)?;
        merge(&mut found.runs, self.staged.history_of(rows.key, rows.execution));
        contradictions::check(self.store.reads(), id, rows, &found)?;
        let (instance, execution, runs) = (Arc::clone(id), rows.execution, found.runs.clone());
        self.batch.history_changes.push(HistoryChange::Fill { instance, execution, runs });
        Ok(found.runs)
    }

    /// Nothing of it can fail.
    fn turn_grant(
        &mut self,
        instance: InstanceNo,
        lease: LeaseNo,
        bodies: Vec<GrantBody<MessageRow>>,
        rows: Option<Arc<InstanceRows>>,
        loaded: Loaded,
        messages: &mut BTreeMap<MessageId, Message>,
    ) -> TurnGrant {
        let mut attempt = 0;
        for (id, message) in messages {
            message.attempt = message.attempt.saturating_add(1);
            attempt = attempt.max(message.attempt);
            let schedule = Schedule { visible_at_ms: message.visible_at_ms, attempt: message.attempt };
            self.staged.messages.set_attempt(*id, schedule);
        }
        let execution = rows.as_ref().map_or(duroxide::INITIAL_EXECUTION_ID, |rows| rows.execution);
        let (name, version) = match rows.map(|rows| rows.identity.clone()) {
            Some(Identity::Named { name, version }) => (Some(name), version),
            Some(Identity::Unnamed { .. }) | None => (None, None),
        };
        let (history, kv) = match loaded {
            Ok((history, kv)) => (Ok(history), kv),
            Err(error) => (Err(error), KvBase::new()),
        };
        TurnGrant {
            instance: self.turns.instances.id(instance).cloned().unwrap_or_else(|| Arc::from("")),
            name,
            version,
            execution,
            history,
            messages: bodies,
            kv,
            attempt,
            guard: LeaseGuard::new(Return::Turn(lease), Arc::clone(&self.shared.returns)),
        }
    }

    /// Answers fetches with the activities they were paired with. True if something could not be read: then there may be
    /// something else for a fetch, or another fetch for an activity.
    pub(super) fn grant_work(&mut self, paired: Vec<PairedWork>, out: &mut Replies<Reply>) -> bool {
        let is_wanted =
            |paired: &&PairedWork| paired.body.is_none() && self.staged.work.inserted(paired.id).is_none();
        let wanted: Vec<WorkId> = paired.iter().filter(is_wanted).map(|paired| paired.id).collect();
        let found = if wanted.is_empty() { Vec::new() } else { self.store.work_records(&wanted) };
        let mut found: BTreeMap<WorkId, Result<Vec<u8>, Error>> = wanted.into_iter().zip(found).collect();
        let mut again = false;
        for paired in paired {
            let PairedWork { wants, fetch, lease, id, schedule, body, scheduled_in } = paired;
            let body = match (body, found.remove(&id).transpose()) {
                (Some(body), _) => Ok(GrantBody::Item(body.into_item())),
                (None, Ok(record)) => self.work_row(id, record),
                (None, Err(error)) => Err(error),
            };
            let body = match body {
                Ok(body) => body,
                Err(error) => {
                    again = true;
                    self.work.items.take_back(id, lease, self.now);
                    match self.hold_back_work(id, error) {
                        Some(error) => out.push_standing(fetch.responder, Err(error)),
                        None => self.park_work_again(wants, fetch),
                    }
                    continue;
                }
            };
            self.staged.work.set_attempt(id, schedule);
            self.batch.undo.push(Undo::WorkGranted { no: lease, id });
            self.work.leases.grant(lease, self.now.monotonic.saturating_add(fetch.lock_timeout), id);
            let guard = LeaseGuard::new(Return::Work(lease), Arc::clone(&self.shared.returns));
            let grant = WorkGrant { body, attempt: schedule.attempt, guard };
            // An activity acts on the world: what had it run must not be gone afterwards.
            let after = if self.sync_acks { self.store.next_commit() } else { scheduled_in };
            self.batch.granted.push(Granted::Work { wants, fetch, after, grant: Box::new(grant) });
        }
        again
    }

    /// What was granted is written with its batch: the fetches are answered when that is committed.
    pub(super) fn answer_granted(&mut self, out: &mut Replies<Reply>) {
        for granted in self.batch.granted.drain(..) {
            match granted {
                Granted::Turn { fetch, after, grant, .. } => {
                    out.push_after(after, fetch.responder, Ok(Reply::Turn(Some(grant))));
                }
                Granted::Work { fetch, after, grant, .. } => {
                    out.push_after(after, fetch.responder, Ok(Reply::Work(Some(grant))));
                }
            }
        }
    }

    /// The batch could not be written, and it had operations: what was granted may have come from them. Whoever waited
    /// goes on waiting; should it fail without them, too, the fetches hear of it.
    pub(super) fn park_granted_again(&mut self) {
        for granted in std::mem::take(&mut self.batch.granted) {
            // Nobody has seen the grant, and the lease is undone with the batch.
            match granted {
                Granted::Turn { accepts, fetch, grant, .. } => {
                    grant.guard.keep();
                    self.park_turn_again(accepts, fetch);
                }
                Granted::Work { wants, fetch, grant, .. } => {
                    grant.guard.keep();
                    self.park_work_again(wants, fetch);
                }
            }
        }
    }

    /// An activity from its record, or as it is staged.
    fn work_row(&self, id: WorkId, record: Option<Vec<u8>>) -> Result<GrantBody<WorkRow>, Error> {
        let staged = || self.staged.work.inserted(id).map(|row| row.record.clone());
        let (Some(entry), Some(record)) = (self.work.items.get(id), record.or_else(staged)) else {
            return Err(Error::internal(format!("activity {id} has no record")));
        };
        let row = WorkRow { activity: entry.activity.clone(), record };
        Ok(GrantBody::Row { id, row })
    }
}

/// Adds what is staged of a history to what there is, in the order of events.
fn merge<'a>(runs: &mut Vec<Arc<Run>>, staged: impl Iterator<Item = &'a Arc<Run>>) {
    let before = runs.len();
    runs.extend(staged.cloned());
    let is_appended = match (runs.get(before.wrapping_sub(1)), runs.get(before)) {
        (Some(last), Some(first)) => last.first_event < first.first_event,
        _ => true,
    };
    if !is_appended {
        runs.sort_by_key(|run| run.first_event);
    }
}
