//! Memory from rows, at open.

use super::{Engine, WorkRow, queued};
use crate::error::Error;
use crate::queue::{Message, Schedule, WorkEntry};

impl Engine {
    /// Schedules everything that waits in the file. Every lease is free.
    pub(super) fn load(&mut self) -> Result<(), Error> {
        let now = self.now;
        let connection = self.connection.connection();

        let (turns, next_message) = (&mut self.turns, &mut self.next_message);
        let (mut delayed, mut last_message, mut last_work) = (Vec::new(), 0, 0);
        let mut damaged: Vec<(&str, i64, Error)> = Vec::new();
        // No row is put on another one's place, readable or not; to where it cannot have been put, none ever comes.
        let behind = |next: i64, id: i64| if id <= queued::ID_MAX { next.max(id + 1) } else { next };
        let message = |id, instance: &str, kind, schedule: Schedule| {
            let (visible_at_ms, attempt) = (schedule.visible_at_ms, schedule.attempt);
            if visible_at_ms > now.wall_ms {
                delayed.push((turns.hash(instance), id, visible_at_ms));
            } else {
                let no = turns.instance(instance);
                turns.push(no, id, Message { visible_at_ms, attempt, kind, body: None }, now);
            }
            last_message = last_message.max(id);
        };
        queued::each_message(connection, message, |id, error| {
            *next_message = behind(*next_message, id);
            damaged.push(("messages", id, Error::damage(error)?));
            Ok(())
        })?;
        *next_message = behind(*next_message, last_message);

        turns.delay_all(&delayed);
        drop(delayed);
        // What was there before the first fetch is no reason to read more of it at once.
        turns.take_newly_unread();

        let (work, next_work) = (&mut self.work, &mut self.next_work);
        let activity = |id, row: WorkRow, schedule| {
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
            last_work = last_work.max(id);
        };
        queued::each_work(connection, activity, |id, error| {
            *next_work = behind(*next_work, id);
            damaged.push(("work", id, Error::damage(error)?));
            Ok(())
        })?;
        *next_work = behind(*next_work, last_work);
        for (table, id, error) in damaged {
            self.set_aside(table, id, "of which it cannot be told", &error);
        }
        Ok(())
    }
}
