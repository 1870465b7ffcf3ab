//! Messages that fall due, and those that do not get to: memory keeps so little of a delayed message that its row
//! has to say whose it is.

use std::sync::Arc;

use super::rows::SqlResult;
use super::undo::Undo;
use super::{Engine, queued};
use crate::error::Error;
use crate::queue::{Message, MessageId, VISIBLE};

/// How many messages that have fallen due one batch makes visible; the next one goes on at once.
const DUE_MAX: usize = 256;

/// After how many milliseconds one that could not be read is tried again, where that may help.
const RETRY_MS: u64 = 1_000;

impl Engine {
    /// Makes visible what has fallen due, as much of it as one batch should wait for.
    pub(super) fn promote_messages(&mut self) {
        for _ in 0..DUE_MAX {
            let Some((hash, id)) = self.turns.pop_due(self.now) else { return };
            match queued::message_header(self.connection.connection(), id) {
                Ok(Some((instance, kind, attempt))) => {
                    let no = self.turns.instance(&instance);
                    let message = Message { visible_at_ms: VISIBLE, attempt, kind, body: None };
                    self.turns.push(no, id, message, self.now);
                }
                Ok(None) => tracing::error!(message = id, "the row of a message that has fallen due is gone"),
                // The others are not held up by it.
                Err(error) => match Error::damage(error) {
                    Ok(damage) => self.set_aside("messages", id, "", &damage),
                    Err(error) => {
                        tracing::warn!(message = id, %error, "a message that has fallen due could not be read");
                        self.turns.delay_all(&[(hash, id, self.now.wall_ms.saturating_add(RETRY_MS))]);
                    }
                },
            }
        }
    }

    /// Whether more has fallen due than was made visible.
    pub(super) fn more_is_due(&self) -> bool {
        self.turns.next_due_ms().is_some_and(|due_ms| due_ms <= self.now.wall_ms)
    }

    /// Removes the delayed messages of an instance from memory; their rows are the caller's. Gives their ids.
    pub(super) fn take_delayed(&mut self, instance: &Arc<str>) -> SqlResult<Vec<MessageId>> {
        let mut found = self.turns.delayed_of(instance);
        let mut error = None;
        found.retain(|id| {
            let is_its = match self.message_changes.inserted(*id) {
                Some(staged) => Ok(staged.instance == *instance),
                None => queued::message_header(self.connection.connection(), *id)
                    .map(|row| row.is_some_and(|(of, ..)| *of == **instance)),
            };
            is_its.unwrap_or_else(|failed| {
                error = Some(failed);
                false
            })
        });
        if let Some(error) = error {
            return Err(error);
        }
        for id in &found {
            if let Some(due_ms) = self.turns.take_delayed(instance, *id) {
                self.undo.push(Undo::DroppedDelayed { instance: Arc::clone(instance), id: *id, due_ms });
            }
        }
        Ok(found)
    }

    /// Stages and schedules a message that waits for its time.
    pub(super) fn delay_message(&mut self, id: MessageId, row: queued::MessageRow, due_ms: u64) {
        self.turns.delay(&row.instance, id, due_ms);
        self.undo.push(Undo::Delayed { instance: Arc::clone(&row.instance), id });
        let schedule = crate::queue::Schedule { visible_at_ms: due_ms, attempt: 0 };
        self.message_changes.insert(id, row, schedule);
    }
}
