//! Memory from rows: at open, and after a batch that was rolled back.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::{Engine, TurnLease, queued};
use crate::error::Error;
use crate::queue::{Changes, LeaseNo, Message, MessageId, Turns, WorkEntry, WorkId};

/// Leases that outlive a rebuild.
#[derive(Default)]
struct Standing {
    turns: Vec<(LeaseNo, Duration, Arc<str>, Vec<MessageId>)>,
    work: HashMap<WorkId, (LeaseNo, Duration)>,
}

impl Engine {
    /// Schedules everything that waits in the file. Every lease is free.
    pub(super) fn load(&mut self) -> Result<(), Error> {
        self.load_around(Standing::default())
    }

    /// The batch was rolled back: leases it granted never existed, leases it ended stand again.
    pub(super) fn rebuild(&mut self) -> Result<(), Error> {
        let undo = std::mem::take(&mut self.undo);
        let mut standing = Standing { turns: undo.ended_turns, work: HashMap::new() };
        for (no, deadline, lease) in self.turn_leases.drain() {
            if !undo.granted_turns.contains(&no)
                && let Some(id) = self.turns.id(lease.instance)
            {
                standing.turns.push((no, deadline, Arc::clone(id), lease.messages.into_keys().collect()));
            }
        }
        let work = self.work_leases.drain().filter(|(no, ..)| !undo.granted_work.contains(no));
        let work = work.map(|(no, deadline, id)| (id, (no, deadline)));
        let ended = undo.ended_work.into_iter().map(|(no, deadline, id)| (id, (no, deadline)));
        standing.work = work.chain(ended).collect();
        // What was committed before is still true.
        self.history_changes.clear();
        self.message_changes = Changes::default();
        self.work_changes = Changes::default();
        self.load_around(standing)
    }

    fn load_around(&mut self, mut standing: Standing) -> Result<(), Error> {
        let now = self.now;
        self.turns = Turns::default();
        self.work = self.work.start_over();
        let connection = self.connection.connection();

        let (turns, next_message) = (&mut self.turns, &mut self.next_message);
        let mut delayed = Vec::new();
        queued::each_message(connection, |id, instance, kind, schedule| {
            let (visible_at_ms, attempt) = (schedule.visible_at_ms, schedule.attempt);
            if visible_at_ms > now.wall_ms {
                delayed.push((turns.hash(instance), id, visible_at_ms));
            } else {
                let no = turns.instance(instance);
                turns.push(no, id, Message { visible_at_ms, attempt, kind, body: None }, now);
            }
            *next_message = (*next_message).max(id.saturating_add(1));
        })?;

        turns.delay_all(&delayed);
        drop(delayed);
        // What was there before the first fetch is no reason to read more of it at once.
        turns.take_newly_unread();

        let (work, next_work, leases) = (&mut self.work, &mut self.next_work, &mut self.work_leases);
        queued::each_work(connection, |id, row, schedule| {
            let lease = standing.work.remove(&id).map(|(no, deadline)| {
                leases.grant(no, deadline, id);
                no
            });
            let item = WorkEntry {
                instance: row.instance,
                execution: row.execution,
                activity: row.activity,
                session: row.session,
                tag: row.tag,
                schedule,
                lease,
                body: None,
            };
            work.push(id, item, now);
            *next_work = (*next_work).max(id.saturating_add(1));
        })?;
        room_above("messages", self.next_message)?;
        room_above("work", self.next_work)?;

        for (no, deadline, id, messages) in standing.turns {
            let instance = self.turns.instance(&id);
            let messages = self.turns.lease_again(instance, no, &messages);
            self.turn_leases.grant(no, deadline, TurnLease { instance, messages });
        }
        Ok(())
    }
}

/// Row ids are given out in order of arrival, so a row with the last of them is damage: nothing could ever be
/// enqueued behind it.
fn room_above(queue: &str, next: i64) -> Result<(), Error> {
    if next < i64::MAX {
        return Ok(());
    }
    let source = Arc::new(Error::refused("its row id leaves none for those that come after it"));
    Err(Error::Corrupt { record: format!("the newest row of {queue}"), source })
}
