//! Memory from rows, at open.

use super::Engine;
use crate::error::Error;
use crate::queue::{Message, WorkEntry};
use crate::rows::{ID_MAX, Waiting};

impl Engine {
    /// Schedules everything that waits. Every lease is free.
    pub(super) fn load(&mut self) -> Result<(), Error> {
        let now = self.now;
        let (turns, work) = (&mut self.turns.instances, &mut self.work.items);
        let (mut delayed, mut last_message, mut last_work) = (Vec::new(), 0, 0);
        let mut damaged: Vec<(&str, i64, Error)> = Vec::new();
        self.store.load(Waiting {
            message: &mut |id, instance, kind, schedule| {
                if schedule.visible_at_ms > now.wall_ms {
                    delayed.push((turns.hash(instance), id, schedule.visible_at_ms));
                } else {
                    let (visible_at_ms, attempt) = (schedule.visible_at_ms, schedule.attempt);
                    let no = turns.instance(instance);
                    turns.push(no, id, Message { visible_at_ms, attempt, kind, body: None }, now);
                }
                last_message = last_message.max(id);
            },
            work: &mut |id, row, schedule| {
                let activity = row.activity;
                work.push(
                    id,
                    WorkEntry { activity, schedule, lease: None, body: None, scheduled_in: 0 },
                    now,
                );
                last_work = last_work.max(id);
            },
            damaged: &mut |table, id, error| damaged.push((table, id, error)),
        })?;
        // No row is put on another one's place, readable or not; to where it cannot have been put, none ever comes.
        for (table, id, _) in damaged.iter().filter(|(_, id, _)| *id <= ID_MAX) {
            let last = if *table == "work" { &mut last_work } else { &mut last_message };
            *last = (*last).max(*id);
        }
        (self.turns.next_id, self.work.next_id) = (last_message + 1, last_work + 1);

        turns.delay_all(&delayed);
        drop(delayed);
        // What was there before the first fetch is no reason to read more of it at once.
        turns.take_newly_unread();
        for (table, id, error) in damaged {
            self.set_aside(table, id, "of which it cannot be told", &error);
        }
        Ok(())
    }
}
