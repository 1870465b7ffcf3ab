//! Memory from rows, at open.

use std::sync::Arc;

use super::{Engine, queued};
use crate::error::Error;
use crate::queue::{Message, WorkEntry};

impl Engine {
    /// Schedules everything that waits in the file. Every lease is free.
    pub(super) fn load(&mut self) -> Result<(), Error> {
        let now = self.now;
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

        let (work, next_work) = (&mut self.work, &mut self.next_work);
        queued::each_work(connection, |id, row, schedule| {
            let item = WorkEntry {
                instance: row.instance,
                execution: row.execution,
                activity: row.activity,
                session: row.session,
                tag: row.tag,
                schedule,
                lease: None,
                body: None,
                scheduled_in: 0,
            };
            work.push(id, item, now);
            *next_work = (*next_work).max(id.saturating_add(1));
        })?;
        room_above("messages", self.next_message)?;
        room_above("work", self.next_work)?;
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
