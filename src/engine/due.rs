//! Messages that fall due, and those that do not get to: memory keeps so little of a delayed message that its row
//! has to say whose it is.

use std::sync::Arc;

use super::Engine;
use super::undo::Undo;
use crate::error::Error;
use crate::queue::{Message, MessageId, Schedule, VISIBLE};
use crate::rows::{MessageHead, MessageRow};

/// How many messages that have fallen due one batch makes visible; the next one goes on at once.
const DUE_MAX: usize = 256;

/// After how many milliseconds one that could not be read is tried again, where that may help.
const RETRY_MS: u64 = 1_000;

impl Engine {
    /// Makes visible what has fallen due, as much of it as one batch should wait for.
    pub(super) fn promote_messages(&mut self) {
        let mut due = Vec::new();
        while due.len() < DUE_MAX
            && let Some(next) = self.turns.instances.pop_due(self.now)
        {
            due.push(next);
        }
        if due.is_empty() {
            return;
        }
        let ids: Vec<MessageId> = due.iter().map(|(_, id)| *id).collect();
        let heads = self.store.message_heads(&ids);
        for ((hash, id), head) in due.into_iter().zip(heads) {
            match head {
                Ok(Some(MessageHead { instance, kind, attempt })) => {
                    let no = self.turns.instances.instance(&instance);
                    let message = Message { visible_at_ms: VISIBLE, attempt, kind, body: None };
                    self.turns.instances.push(no, id, message, self.now);
                }
                Ok(None) => tracing::error!(message = id, "the row of a message that has fallen due is gone"),
                // The others are not held up by it.
                Err(damage) if damage.is_damage() => self.set_aside("messages", id, "", &damage),
                Err(error) => {
                    tracing::warn!(
                        message = id,
                        error = format_args!("{error:#}"),
                        "a message that has fallen due could not be read"
                    );
                    self.turns.instances.delay_all(&[(hash, id, self.now.wall_ms.saturating_add(RETRY_MS))]);
                }
            }
        }
    }

    /// Whether more has fallen due than was made visible.
    pub(super) fn more_is_due(&self) -> bool {
        self.turns.instances.next_due_ms().is_some_and(|due_ms| due_ms <= self.now.wall_ms)
    }

    /// Removes the delayed messages of an instance from memory; their rows are the caller's. Gives their ids.
    pub(super) fn take_delayed(&mut self, instance: &Arc<str>) -> Result<Vec<MessageId>, Error> {
        let mut found = self.turns.instances.delayed_of(instance);
        if found.is_empty() {
            return Ok(found);
        }
        let heads = self.store.message_heads(&found).into_iter().collect::<Result<Vec<_>, _>>()?;
        let mut heads = heads.into_iter();
        found.retain(|_| heads.next().flatten().is_some_and(|head| *head.instance == **instance));
        for id in &found {
            if let Some(due_ms) = self.turns.instances.take_delayed(instance, *id) {
                self.batch.undo.push(Undo::DroppedDelayed {
                    instance: Arc::clone(instance),
                    id: *id,
                    due_ms,
                });
            }
        }
        Ok(found)
    }

    /// Stages and schedules a message that waits for its time.
    pub(super) fn delay_message(&mut self, id: MessageId, row: MessageRow, due_ms: u64) {
        self.turns.instances.delay(&row.instance, id, due_ms);
        self.batch.undo.push(Undo::Delayed { instance: Arc::clone(&row.instance), id });
        let schedule = Schedule { visible_at_ms: due_ms, attempt: 0 };
        self.staged.messages.insert(id, row, schedule);
    }
}
