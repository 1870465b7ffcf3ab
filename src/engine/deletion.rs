//! Deleting instances with all they own, and pruning executions. Each operation is one step of one batch, so
//! no child can be started between a look at the tree and the deletion.

use std::collections::HashSet;
use std::sync::Arc;

use duroxide::EventKind;
use duroxide::providers::{DeleteInstanceResult, InstanceFilter, PruneOptions, PruneResult, WorkItem};
use rusqlite::{Connection, OptionalExtension, params};

use super::rows::{self, SqlResult, time};
use super::undo::Undo;
use super::{Engine, HistoryChange, RUNNING, Stop, queued, reads};
use crate::codec;
use crate::error::Error;
use crate::queue::{MessageId, MessageKind};

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
    pub(super) fn tree(&self, root: &str) -> Result<Tree, Stop> {
        let mut all = reads::tree(self.connection.connection(), root)?;
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

    fn waiting_children(&self, parent: &str) -> Result<Vec<String>, Stop> {
        let connection = self.connection.connection();
        let row = rows::instance(connection, parent).map_err(|error| unread("instances", error, parent))?;
        let Some(row) = row else { return Ok(Vec::new()) };
        let (mut waiting, mut events) = (Vec::new(), Vec::new());
        for execution in reads::list_executions(connection, parent)? {
            let history = rows::history(connection, row.key, parent, execution);
            for run in history.map_err(|error| unread("history", error, parent))? {
                events.clear();
                // What does not decode names nobody; it has to be possible to delete it all the same.
                let _ = codec::decode_events(&run.record, &mut events);
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
    fn waits_for_its_start(&self, id: &str, parent: &str) -> Result<bool, Stop> {
        let Some(no) = self.turns.find(id) else { return Ok(false) };
        let leased = self.turns.lease_of(no).and_then(|lease| self.turn_leases.get(lease));
        let leased = leased.into_iter().flat_map(|lease| &lease.messages).map(|(id, message)| (*id, message));
        let starts = self.turns.messages(no).chain(leased);
        let starts = starts.filter(|(_, message)| message.kind == MessageKind::Start);
        let Some(first) = starts.map(|(message, _)| message).min() else { return Ok(false) };
        let named = rows::instance(self.connection.connection(), id)?.is_some_and(|row| row.name.is_some());
        Ok(!named && self.is_started_by(first, parent)?)
    }

    fn is_started_by(&self, message: MessageId, parent: &str) -> SqlResult<bool> {
        let record = match self.message_changes.inserted(message) {
            Some(staged) => staged.record.clone(),
            None => queued::message_record(self.connection.connection(), message)?,
        };
        Ok(matches!(codec::decode_work_item(&record),
            Ok(WorkItem::StartOrchestration { parent_instance: Some(by), .. }) if by == parent))
    }

    pub(super) fn delete(&mut self, ids: &[String], force: bool) -> Result<DeleteInstanceResult, Stop> {
        let doomed: HashSet<&str> = ids.iter().map(String::as_str).collect();
        for id in ids {
            if let Some(known) = self.undeletable(id) {
                return Err(known);
            }
            if !force && status(self.connection.connection(), id)?.as_deref() == Some(RUNNING) {
                let text = format!("instance {id} is still running: cancel it first, or delete with force");
                return Err(self.refused_about(ids, text));
            }
            let waiting = self.waiting_children(id);
            let waiting = self.note_undeletable(id, waiting)?;
            if let Some(child) = waiting.iter().find(|child| !force && doomed.contains(child.as_str())) {
                let text = format!(
                    "instance {child} is still running (it waits to be started by {id}): let it end first, \
                     or delete with force"
                );
                return Err(self.refused_about(&[id.clone(), child.clone()], text));
            }
            let mut children = reads::list_children(self.connection.connection(), id)?;
            children.extend(waiting);
            if let Some(child) = children.iter().find(|child| !doomed.contains(child.as_str())) {
                let text = format!(
                    "instance {id} has the child {child}, which is not to be deleted: \
                     read the tree again and delete all of it"
                );
                return Err(self.refused_about(&[id.clone(), child.clone()], text));
            }
        }
        let mut result = DeleteInstanceResult::default();
        for id in doomed {
            let deleted = self.delete_one(id, &mut result);
            self.note_undeletable(id, deleted)?;
        }
        Ok(result)
    }

    /// A refusal, which stands if the batch has changed none of these instances.
    fn refused_about(&self, ids: &[String], reason: String) -> Stop {
        let stands = !ids.iter().any(|id| self.has_changed(id));
        Stop::Refused { error: Error::refused(reason), stands }
    }

    fn delete_one(&mut self, id: &str, result: &mut DeleteInstanceResult) -> Result<(), Stop> {
        let instance: Arc<str> = id.into();
        let mut messages = self.take_delayed(&instance)?;
        if let Some(no) = self.turns.find(id) {
            // Whoever works on a turn of it finds the token invalid and cannot bring it back.
            if let Some(lease_no) = self.turns.lease_of(no)
                && let Some((deadline, lease)) = self.turn_leases.end(lease_no)
            {
                messages.extend(lease.messages.keys().copied());
                self.remember_ended_turn(lease_no, deadline, lease);
            }
            let dropped = self.turns.remove(no);
            messages.extend(dropped.keys().copied());
            self.undo.push(Undo::Dropped { instance: no, id: Arc::clone(&instance), messages: dropped });
        }
        let work = self.work.of_instance(id);
        result.queue_messages_deleted += (messages.len() + work.len()) as u64;
        for message in messages {
            self.message_changes.delete(message);
        }
        for id in work {
            self.drop_work(id);
        }
        self.history_changes.push(HistoryChange::Forget { instance });
        self.damaged_histories.remove(id);
        let connection = self.begin()?;
        if let Some(row) = rows::instance(connection, id)? {
            let removed = rows::delete_instance(connection, row.key);
            let removed = removed.map_err(|(table, error)| unread(table, error, id))?;
            result.instances_deleted += u64::from(row.name.is_some());
            result.executions_deleted += removed.executions;
            result.events_deleted = result.events_deleted.saturating_add(removed.events);
        }
        Ok(())
    }

    /// Deletes the trees of finished roots that match. A tree with a member that still runs is left alone, and
    /// does not count against the limit: it would keep its place, and deletion in portions would get no further.
    pub(super) fn delete_bulk(&mut self, filter: &InstanceFilter) -> Result<DeleteInstanceResult, Stop> {
        let mut result = DeleteInstanceResult::default();
        self.each_matching(filter, Select::FinishedTrees, |engine, root| {
            if engine.undeletable(root).is_some() {
                return Ok(false);
            }
            let tree = engine.tree(root);
            let tree = engine.note_undeletable(root, tree).map_err(may_be_tried_again)?;
            if !tree.waiting.is_empty() || tree.all.iter().any(|id| engine.undeletable(id).is_some()) {
                return Ok(false);
            }
            for id in tree.all {
                let deleted = engine.delete_one(&id, &mut result);
                engine.note_undeletable(&id, deleted).map_err(may_be_tried_again)?;
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
        let connection = self.connection.connection();
        let row = rows::instance(connection, id)?.filter(|row| row.name.is_some());
        let Some(row) = row else {
            return Err(self.refused_about(&[id.to_owned()], format!("instance {id} not found")));
        };
        let prunable = prunable(connection, row.key, row.execution, options)?;
        let mut result = PruneResult { instances_processed: 1, ..PruneResult::default() };
        if prunable.is_empty() {
            return Ok(result);
        }
        let connection = self.begin()?;
        for execution in prunable {
            let removed = rows::delete_execution(connection, row.key, execution);
            let removed = removed.map_err(|(table, error)| unread(table, error, id))?;
            result.executions_deleted += removed.executions;
            result.events_deleted = result.events_deleted.saturating_add(removed.events);
        }
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
        self.each_matching(filter, Select::All, |engine, id| {
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
        select: Select,
        mut take: impl FnMut(&mut Self, &str) -> Result<bool, Stop>,
    ) -> Result<(), Stop> {
        let mut left = filter.limit.unwrap_or(BULK_LIMIT_DEFAULT);
        let before = filter.completed_before;
        if let Some(ids) = &filter.instance_ids {
            let mut seen = HashSet::new();
            for id in ids.iter().filter(|id| seen.insert(id.as_str())) {
                if left == 0 {
                    break;
                }
                let found = select.run(self.connection.connection(), Some(id), before, i64::MIN)?;
                if !found.is_empty() && take(self, id)? {
                    left -= 1;
                }
            }
            return Ok(());
        }
        let mut after = i64::MIN;
        while left > 0 {
            let page = select.run(self.connection.connection(), None, before, after)?;
            let Some((last, _)) = page.last() else { break };
            after = *last;
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
fn unread(table: &str, error: rusqlite::Error, id: &str) -> Stop {
    match Error::damage(error) {
        Ok(source) => {
            let record = format!("a row of {table} of instance {id}");
            Stop::Batch(Error::Corrupt { record, source: Arc::new(source) })
        }
        Err(error) => error.into(),
    }
}

/// The next time what is damaged is known, and passed by.
fn may_be_tried_again(stop: Stop) -> Stop {
    match stop {
        Stop::Batch(error) => Stop::Batch(Error::RolledBack { source: Arc::new(error) }),
        refused => refused,
    }
}

/// Which instances a bulk operation may take.
#[derive(Clone, Copy)]
enum Select {
    All,
    /// Roots of trees of which no member runs.
    FinishedTrees,
}

impl Select {
    fn run(
        self,
        connection: &Connection,
        id: Option<&str>,
        completed_before: Option<u64>,
        after: i64,
    ) -> SqlResult<Vec<(i64, Option<String>)>> {
        let finished_trees = "AND i.parent IS NULL AND e.status IN ('Completed', 'Failed', 'ContinuedAsNew')
            AND NOT EXISTS (
                WITH RECURSIVE tree (id) AS (
                    SELECT i.id UNION SELECT child.id FROM tree JOIN instances child ON child.parent = tree.id
                )
                SELECT 1 FROM tree JOIN instances member ON member.id = tree.id
                JOIN executions current
                    ON current.instance = member.key AND current.execution = member.execution
                WHERE current.status = 'Running')";
        let sql = format!(
            "SELECT i.key, i.id FROM instances i
             LEFT JOIN executions e ON e.instance = i.key AND e.execution = i.execution
             WHERE i.name IS NOT NULL {} {}
               AND (?2 IS NULL OR e.completed_at_ms < ?2) AND i.key > ?3 ORDER BY i.key LIMIT {PAGE}",
            if id.is_some() { "AND i.id = ?1" } else { "AND ?1 IS NULL" },
            if matches!(self, Select::FinishedTrees) { finished_trees } else { "" },
        );
        reads::keys_and_ids(connection, &sql, params![id, completed_before.map(time), after])
    }
}

fn status(connection: &Connection, id: &str) -> SqlResult<Option<String>> {
    let sql = "SELECT e.status FROM instances i
               JOIN executions e ON e.instance = i.key AND e.execution = i.execution WHERE i.id = ?1";
    connection.prepare_cached(sql)?.query_row([id], |row| row.get(0)).optional()
}

/// Executions that may go: never the current one, never one that runs, never the `keep_last` newest.
fn prunable(connection: &Connection, key: i64, current: u64, options: &PruneOptions) -> SqlResult<Vec<u64>> {
    let mut statement = connection.prepare_cached(
        "SELECT execution FROM executions
         WHERE instance = ?1 AND execution != ?2 AND status != 'Running'
           AND (?3 IS NULL OR completed_at_ms < ?3)
           AND execution NOT IN (SELECT execution FROM executions WHERE instance = ?1
                                 ORDER BY execution DESC LIMIT ?4)
         ORDER BY execution",
    )?;
    let values = params![
        key,
        current.cast_signed(),
        options.completed_before.map(time),
        options.keep_last.unwrap_or(0)
    ];
    let rows = statement.query_map(values, |row| Ok(row.get::<_, i64>(0)?.cast_unsigned()))?;
    rows.collect()
}
