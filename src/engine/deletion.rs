//! Deleting instances with all they own, and pruning executions. Each operation is one step of one batch, and alone in
//! it, so no child can be started between a look at the tree and the deletion, and what it finds damaged is its own affair.

use std::collections::HashSet;
use std::sync::Arc;

use duroxide::EventKind;
use duroxide::providers::{DeleteInstanceResult, InstanceFilter, PruneOptions, PruneResult, WorkItem};

use super::undo::Undo;
use super::{Engine, HistoryChange, Stop};
use crate::codec;
use crate::error::Error;
use crate::queue::{MessageId, MessageKind};
use crate::rows::{BulkSelect, Damaged, InstanceKey, InstanceRows, Reads, Status, WriteError};

/// How many instances a bulk operation takes when its filter names no limit.
const BULK_LIMIT_DEFAULT: u32 = 1000;

/// How many instances a bulk operation looks at in one go.
const PAGE: u32 = 256;

/// An instance and all its descendants, the root first.
pub(super) struct Tree {
    pub(super) all: Vec<String>,
    /// Those of them that have not begun: their start waits in the queue.
    waiting: Vec<String>,
}

impl Engine {
    /// The tree that a deletion takes. Children are named by their own rows, and before they have any by their
    /// parent's history: what a deleted parent had begun must not come to life afterwards as a child that nobody
    /// can delete.
    pub(super) fn tree(&mut self, root: &str) -> Result<Tree, Stop> {
        let mut all = self.reads().tree(root)?;
        let mut waiting = Vec::new();
        for id in &all {
            waiting.extend(self.waiting_children(id)?);
        }
        all.extend(waiting.iter().cloned());
        Ok(Tree { all, waiting })
    }

    /// The same for a caller who deletes nothing yet. It only reads, and no transaction is open: whatever it meets
    /// concerns nobody else.
    pub(super) fn read_tree(&mut self, root: &str) -> Result<Vec<String>, Stop> {
        if let Some(known) = self.undeletable(root) {
            return Err(known);
        }
        let tree = self.tree(root);
        match self.note_undeletable(root, tree) {
            Ok(tree) => Ok(tree.all),
            Err(Stop::Batch(error)) if error.is_damage() => Err(Stop::Refused { error, stands: true }),
            Err(Stop::Batch(error)) => {
                Err(Stop::Refused { error: Error::RolledBack { source: Arc::new(error) }, stands: true })
            }
            Err(refused) => Err(refused),
        }
    }

    fn reads(&self) -> &dyn Reads {
        self.store.reads()
    }

    /// The rows of an instance, as they are stored.
    fn stored_rows(&mut self, id: &str) -> Result<Option<InstanceRows>, Stop> {
        let found = self.find_instance(&id.into()).map_err(|error| unread("instances", error, id))?;
        Ok(found.map(|found| found.rows))
    }

    fn waiting_children(&mut self, parent: &str) -> Result<Vec<String>, Stop> {
        if self.stored_rows(parent)?.is_none() {
            return Ok(Vec::new());
        }
        let (mut waiting, mut events) = (Vec::new(), Vec::new());
        for execution in self.reads().list_executions(parent)? {
            let history = self.reads().history(parent, Some(execution));
            let (_, history) = history.map_err(|error| unread("history", error, parent))?;
            for run in history {
                events.clear();
                // What does not decode names nobody; it has to be possible to delete it all the same.
                let _ = codec::decode_bound_events(&run.record, parent, execution, &mut events);
                for event in &events {
                    let EventKind::SubOrchestrationScheduled { instance, .. } = &event.kind else { continue };
                    let child = duroxide::build_child_instance_id(parent, instance);
                    if !waiting.contains(&child) && self.waits_for_its_start(&child, parent)? {
                        waiting.push(child);
                    }
                }
            }
        }
        Ok(waiting)
    }

    /// Whether an instance has yet to be started, and by this parent: the first start makes it what it is.
    fn waits_for_its_start(&mut self, id: &str, parent: &str) -> Result<bool, Stop> {
        let Some(no) = self.turns.instances.find(id) else { return Ok(false) };
        let leased = self.turns.instances.lease_of(no).and_then(|lease| self.turns.leases.get(lease));
        let leased = leased.into_iter().flat_map(|lease| &lease.messages).map(|(id, message)| (*id, message));
        let starts = self.turns.instances.messages(no).chain(leased);
        let starts = starts.filter(|(_, message)| message.kind == MessageKind::Start);
        let Some(first) = starts.map(|(message, _)| message).min() else { return Ok(false) };
        let named = self.stored_rows(id)?.is_some_and(|rows| rows.is_named());
        Ok(!named && self.is_started_by(first, parent)?)
    }

    fn is_started_by(&self, message: MessageId, parent: &str) -> Result<bool, Error> {
        let record = self.reads().message_record(message)?;
        Ok(matches!(codec::decode_work_item(&record),
            Ok(WorkItem::StartOrchestration { parent_instance: Some(by), .. }) if by == parent))
    }

    pub(super) fn delete(&mut self, ids: &[String], force: bool) -> Result<DeleteInstanceResult, Stop> {
        let doomed: HashSet<&str> = ids.iter().map(String::as_str).collect();
        for id in ids {
            if let Some(known) = self.undeletable(id) {
                return Err(known);
            }
            if !force && self.reads().status(id)? == Some(Status::Running) {
                let text = format!("instance {id} is still running: cancel it first, or delete with force");
                return Err(self.refused_about(ids, Error::still_running(text)));
            }
            let waiting = self.waiting_children(id);
            let waiting = self.note_undeletable(id, waiting)?;
            if let Some(child) = waiting.iter().find(|child| !force && doomed.contains(child.as_str())) {
                let text = format!(
                    "instance {child} is still running (it waits to be started by {id}): let it end first, \
                     or delete with force"
                );
                return Err(self.refused_about(&[id.clone(), child.clone()], Error::still_running(text)));
            }
            let mut children = self.reads().list_children(id)?;
            children.extend(waiting);
            if let Some(child) = children.iter().find(|child| !doomed.contains(child.as_str())) {
                let text = format!(
                    "instance {id} has the child {child}, which is not to be deleted: \
                     read the tree again and delete all of it"
                );
                return Err(self.refused_about(&[id.clone(), child.clone()], Error::invalid_input(text)));
            }
        }
        let mut result = DeleteInstanceResult::default();
        for id in doomed {
            self.delete_one(id, &mut result)?;
        }
        Ok(result)
    }

    /// A refusal, which stands if the batch has changed none of these instances.
    fn refused_about(&self, ids: &[String], error: Error) -> Stop {
        let stands = !ids.iter().any(|id| self.has_changed(id));
        Stop::Refused { error, stands }
    }

    fn delete_one(&mut self, id: &str, result: &mut DeleteInstanceResult) -> Result<(), Stop> {
        let deleted = self.stage_deletion(id, result);
        let deleted = deleted.and_then(|key| self.write_deletion(id, key));
        self.note_undeletable(id, deleted)
    }

    /// Removes an instance from memory, and stages that of its rows. Gives its key, if it has any.
    fn stage_deletion(
        &mut self,
        id: &str,
        result: &mut DeleteInstanceResult,
    ) -> Result<Option<InstanceKey>, Stop> {
        let instance: Arc<str> = id.into();
        let rows = self.stored_rows(id)?;
        let removed = match &rows {
            Some(rows) => {
                let removed = self.reads().removed_with(rows.key, None);
                removed.map_err(|error| unread("history", error, id))?
            }
            None => Default::default(),
        };
        let mut messages = self.take_delayed(&instance)?;
        if let Some(no) = self.turns.instances.find(id) {
            // Whoever works on a turn of it finds the token invalid and cannot bring it back.
            if let Some(lease_no) = self.turns.instances.lease_of(no)
                && let Some((deadline, lease)) = self.turns.leases.end(lease_no)
            {
                messages.extend(lease.messages.keys().copied());
                self.remember_ended_turn(lease_no, deadline, lease);
            }
            let dropped = self.turns.instances.remove(no);
            messages.extend(dropped.keys().copied());
            self.batch.undo.push(Undo::Dropped {
                instance: no,
                id: Arc::clone(&instance),
                messages: dropped,
            });
        }
        let work = self.work.items.of_instance(id);
        result.queue_messages_deleted += (messages.len() + work.len()) as u64;
        for message in messages {
            self.staged.messages.delete(message);
        }
        for id in work {
            self.drop_work(id);
        }
        self.batch.history_changes.push(HistoryChange::Forget { instance });
        self.damage.histories.remove(id);
        let Some(rows) = rows else { return Ok(None) };
        self.staged.deleted.push(rows.key);
        result.instances_deleted += u64::from(rows.is_named());
        result.executions_deleted += removed.executions;
        result.events_deleted = result.events_deleted.saturating_add(removed.events);
        Ok(Some(rows.key))
    }

    /// Writes what is staged about one instance, so that what is in the way is known to be its own.
    fn write_deletion(&mut self, id: &str, deleted: Option<InstanceKey>) -> Result<(), Stop> {
        match self.write() {
            Ok(()) => Ok(()),
            Err(WriteError { error, damaged: Some(Damaged::Instance { key, table }) })
                if deleted == Some(key) =>
            {
                Err(unread(table, error, id))
            }
            Err(WriteError { error, damaged: Some(_) }) => {
                // A queued row, which is known from now on.
                Err(may_be_tried_again(Stop::Batch(error)))
            }
            Err(WriteError { error, damaged: None }) => Err(Stop::Batch(error)),
        }
    }

    /// Deletes the trees of finished roots that match. A tree with a member that still runs is left alone, and
    /// does not count against the limit: it would keep its place, and deletion in portions would get no further.
    pub(super) fn delete_bulk(&mut self, filter: &InstanceFilter) -> Result<DeleteInstanceResult, Stop> {
        let mut result = DeleteInstanceResult::default();
        self.each_matching(filter, true, |engine, root| {
            if engine.undeletable(root).is_some() {
                return Ok(false);
            }
            let tree = engine.tree(root);
            let tree = engine.note_undeletable(root, tree).map_err(may_be_tried_again)?;
            if !tree.waiting.is_empty() || tree.all.iter().any(|id| engine.undeletable(id).is_some()) {
                return Ok(false);
            }
            for id in tree.all {
                engine.delete_one(&id, &mut result).map_err(may_be_tried_again)?;
            }
            Ok(true)
        })?;
        Ok(result)
    }

    /// What cannot be deleted for damage cannot be pruned either: it is found once, and remembered.
    pub(super) fn prune(&mut self, id: &str, options: &PruneOptions) -> Result<PruneResult, Stop> {
        if let Some(known) = self.undeletable(id) {
            return Err(known);
        }
        let pruned = self.prune_one(id, options);
        self.note_undeletable(id, pruned)
    }

    fn prune_one(&mut self, id: &str, options: &PruneOptions) -> Result<PruneResult, Stop> {
        let Some(rows) = self.stored_rows(id)?.filter(InstanceRows::is_named) else {
            return Err(self.refused_about(&[id.to_owned()], Error::not_found(format_args!("instance {id}"))));
        };
        let prunable = self.reads().prunable(rows.key, rows.execution, options)?;
        let mut result = PruneResult { instances_processed: 1, ..PruneResult::default() };
        if prunable.is_empty() {
            return Ok(result);
        }
        for execution in prunable {
            let removed = self.reads().removed_with(rows.key, Some(execution));
            let removed = removed.map_err(|error| unread("history", error, id))?;
            self.staged.pruned.push((rows.key, execution));
            result.executions_deleted += removed.executions;
            result.events_deleted = result.events_deleted.saturating_add(removed.events);
        }
        self.write_deletion(id, Some(rows.key))?;
        Ok(result)
    }

    /// Prunes the instances that match. One that has nothing to prune is processed and counted as such, but does not
    /// count against the limit, as in [`Engine::delete_bulk`].
    pub(super) fn prune_bulk(
        &mut self,
        filter: &InstanceFilter,
        options: &PruneOptions,
    ) -> Result<PruneResult, Stop> {
        let mut total = PruneResult::default();
        self.each_matching(filter, false, |engine, id| {
            if engine.undeletable(id).is_some() {
                return Ok(false);
            }
            let one = engine.prune(id, options).map_err(may_be_tried_again)?;
            total.instances_processed += one.instances_processed;
            total.executions_deleted += one.executions_deleted;
            total.events_deleted = total.events_deleted.saturating_add(one.events_deleted);
            Ok(one.executions_deleted > 0)
        })?;
        Ok(total)
    }

    /// Offers the instances that match, until it took as many as the filter allows.
    fn each_matching(
        &mut self,
        filter: &InstanceFilter,
        finished_trees: bool,
        mut take: impl FnMut(&mut Self, &str) -> Result<bool, Stop>,
    ) -> Result<(), Stop> {
        let mut left = filter.limit.unwrap_or(BULK_LIMIT_DEFAULT);
        let completed_before_ms = filter.completed_before;
        let mut select = BulkSelect {
            finished_trees,
            id: None,
            completed_before_ms,
            after: InstanceKey::MIN,
            limit: PAGE,
        };
        if let Some(ids) = &filter.instance_ids {
            let mut seen = HashSet::new();
            for id in ids.iter().filter(|id| seen.insert(id.as_str())) {
                if left == 0 {
                    break;
                }
                let found = self.reads().select(BulkSelect { id: Some(id), ..select })?;
                if !found.is_empty() && take(self, id)? {
                    left -= 1;
                }
            }
            return Ok(());
        }
        while left > 0 {
            let page = self.reads().select(select)?;
            let Some((last, _)) = page.last() else { break };
            select.after = *last;
            for (_, id) in &page {
                if left > 0
                    && let Some(id) = id
                    && take(self, id)?
                {
                    left -= 1;
                }
            }
        }
        Ok(())
    }
}

/// Says which row it was that could not be read or deleted, if it is damaged.
fn unread(table: &str, error: Error, id: &str) -> Stop {
    if !error.is_damage() {
        return Stop::Batch(error);
    }
    let record = format!("a row of {table} of instance {id}");
    Stop::Batch(Error::Corrupt { record, source: Arc::new(error) })
}

/// The next time what is damaged is known, and passed by.
fn may_be_tried_again(stop: Stop) -> Stop {
    match stop {
        Stop::Batch(error) => Stop::Batch(Error::RolledBack { source: Arc::new(error) }),
        refused => refused,
    }
}
