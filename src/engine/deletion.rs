//! Deleting instances with all they own, and pruning executions. Each operation is one step of one batch, so
//! no child can be started between a look at the tree and the deletion.

use std::collections::HashSet;
use std::sync::Arc;

use duroxide::providers::{DeleteInstanceResult, InstanceFilter, PruneOptions, PruneResult};
use rusqlite::{Connection, OptionalExtension, params};

use super::rows::{self, SqlResult, time};
use super::undo::Undo;
use super::{Engine, HistoryChange, RUNNING, Stop, reads};
use crate::error::Error;

/// How many instances a bulk operation takes when its filter names no limit.
const BULK_LIMIT_DEFAULT: u32 = 1000;

impl Engine {
    pub(super) fn delete(&mut self, ids: &[String], force: bool) -> Result<DeleteInstanceResult, Stop> {
        let connection = self.connection.connection();
        let doomed: HashSet<&str> = ids.iter().map(String::as_str).collect();
        for id in ids {
            if !force && status(connection, id)?.as_deref() == Some(RUNNING) {
                let text = format!("instance {id} is still running: cancel it first, or delete with force");
                return Err(self.refused_about(ids, text));
            }
            let children = reads::list_children(connection, id)?;
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
            self.delete_one(id, &mut result)?;
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
            let removed = rows::delete_instance(connection, row.key)?;
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
        for root in self.matching(filter, Select::FinishedTrees)? {
            for id in reads::tree(self.connection.connection(), &root)? {
                self.delete_one(&id, &mut result)?;
            }
        }
        Ok(result)
    }

    pub(super) fn prune(&mut self, id: &str, options: &PruneOptions) -> Result<PruneResult, Stop> {
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
            let removed = rows::delete_execution(connection, row.key, execution)?;
            result.executions_deleted += removed.executions;
            result.events_deleted = result.events_deleted.saturating_add(removed.events);
        }
        Ok(result)
    }

    pub(super) fn prune_bulk(
        &mut self,
        filter: &InstanceFilter,
        options: &PruneOptions,
    ) -> Result<PruneResult, Stop> {
        let mut total = PruneResult::default();
        for id in self.matching(filter, Select::All)? {
            let one = self.prune(&id, options)?;
            total.instances_processed += one.instances_processed;
            total.executions_deleted += one.executions_deleted;
            total.events_deleted = total.events_deleted.saturating_add(one.events_deleted);
        }
        Ok(total)
    }

    fn matching(&self, filter: &InstanceFilter, select: Select) -> SqlResult<Vec<String>> {
        let connection = self.connection.connection();
        let limit = filter.limit.unwrap_or(BULK_LIMIT_DEFAULT);
        let Some(ids) = &filter.instance_ids else {
            return select.run(connection, None, filter.completed_before, limit);
        };
        let mut found = Vec::new();
        let mut seen = HashSet::new();
        for id in ids.iter().filter(|id| seen.insert(id.as_str())) {
            if found.len() >= limit as usize {
                break;
            }
            found.extend(select.run(connection, Some(id), filter.completed_before, 1)?);
        }
        Ok(found)
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
        limit: u32,
    ) -> SqlResult<Vec<String>> {
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
            "SELECT i.id FROM instances i
             LEFT JOIN executions e ON e.instance = i.key AND e.execution = i.execution
             WHERE i.name IS NOT NULL {} {}
               AND (?2 IS NULL OR e.completed_at_ms < ?2) ORDER BY i.key LIMIT ?3",
            if id.is_some() { "AND i.id = ?1" } else { "AND ?1 IS NULL" },
            if matches!(self, Select::FinishedTrees) { finished_trees } else { "" },
        );
        let mut statement = connection.prepare_cached(&sql)?;
        let rows = statement.query_map(params![id, completed_before.map(time), limit], |row| row.get(0))?;
        rows.collect()
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
