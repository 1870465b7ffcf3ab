//! From stored records back to duroxide's values. What does not decode is never dropped in silence.

use std::sync::Arc;

use duroxide::providers::{OrchestrationItem, WorkItem};
use duroxide::{Event, EventKind, INITIAL_EXECUTION_ID};

use super::encode::destination;
use crate::codec;
use crate::engine::{GrantBody, TurnGrant};
use crate::error::{Cause, Error};
use crate::queue::Activity;
use crate::rows::{MessageRow, Run, UNKNOWN_VERSION, WorkRow};

/// The events of one execution, in order.
pub(super) fn events(instance: &str, execution: u64, rows: &[Arc<Run>]) -> Result<Vec<Event>, Error> {
    // What the rows say they hold, but no more than they can: an event takes more than a byte.
    let held = |row: &Arc<Run>| row.last_event.saturating_sub(row.first_event).saturating_add(1);
    let count = rows.iter().map(held).fold(0, u64::saturating_add);
    let bytes: usize = rows.iter().map(|row| row.record.len()).sum();
    let mut events = Vec::with_capacity(usize::try_from(count).unwrap_or(usize::MAX).min(bytes));
    let mut last = 0;
    for row in rows {
        let corrupt = |source: Cause| Error::Corrupt {
            record: format!(
                "history of instance {instance}, execution {execution}, events {}..={}",
                row.first_event, row.last_event
            ),
            source,
        };
        // A damaged b-tree gives rows in any order it likes, and the same one twice.
        if row.first_event <= last && !events.is_empty() {
            return Err(corrupt(Arc::new(Misplaced)));
        }
        last = row.last_event;
        let before = events.len();
        codec::decode_bound_events(&row.record, instance, execution, &mut events)
            .map_err(|source| corrupt(Arc::new(source)))?;
        // The columns beside a record have no checksum. IMPORTANT: only the ids can be held against them: events
        // may name another instance than the one they were written to (duroxide's own validations do that).
        if !events[before..].iter().map(Event::event_id).eq(row.first_event..=row.last_event) {
            return Err(corrupt(Arc::new(Misplaced)));
        }
    }
    Ok(events)
}

/// A record that is intact and does not belong to its row.
#[derive(Debug)]
struct Misplaced;

impl std::fmt::Display for Misplaced {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the record is intact, but belongs to another row: the columns beside it are damaged")
    }
}

impl std::error::Error for Misplaced {}

/// One item of either queue. What the columns beside its record say, the item has to say as well.
pub(super) fn item<R: Queued>(body: GrantBody<R>) -> Result<WorkItem, Error> {
    let (id, row) = match body {
        GrantBody::Item(item) => return Ok(*item),
        GrantBody::Row { id, row } => (id, row),
    };
    let corrupt = |source| Error::Corrupt { record: format!("{} row {id}", R::TABLE), source };
    let item = codec::decode_work_item(row.record()).map_err(|source| corrupt(Arc::new(source)))?;
    if row.is_of(&item) { Ok(item) } else { Err(corrupt(Arc::new(Misplaced))) }
}

/// A row of one of the two queues.
pub(super) trait Queued {
    const TABLE: &str;

    fn record(&self) -> &[u8];

    fn is_of(&self, item: &WorkItem) -> bool;
}

impl Queued for MessageRow {
    const TABLE: &str = "messages";

    fn record(&self) -> &[u8] {
        &self.record
    }

    fn is_of(&self, item: &WorkItem) -> bool {
        destination(item).is_ok_and(|to| to == (self.instance.as_ref(), self.kind))
    }
}

impl Queued for WorkRow {
    const TABLE: &str = "work";

    fn record(&self) -> &[u8] {
        &self.record
    }

    fn is_of(&self, item: &WorkItem) -> bool {
        let WorkItem::ActivityExecute { instance, execution_id, id, session_id, tag, .. } = item else {
            return false;
        };
        let Activity { instance: of, execution, id: activity, session, tag: needed } = &self.activity;
        (instance.as_str(), execution_id, id) == (of, execution, activity)
            && session_id.as_deref() == session.as_deref()
            && tag.as_deref() == needed.as_deref()
    }
}

/// A leased instance as the runtime wants it. A record that does not decode is reported in `history_error`,
/// which lets the runtime count attempts and end the instance instead of tripping over it for ever.
pub(super) fn turn(grant: TurnGrant) -> (OrchestrationItem, crate::queue::LeaseNo, u32) {
    let TurnGrant { instance, name, version, execution, history, messages, kv, attempt, guard } = grant;
    let mut history_error = None;
    let mut note = |error: Error| {
        let error = format!("{error:#}");
        tracing::warn!(%instance, error, "a turn is delivered with an error in place of its history");
        history_error.get_or_insert(error);
    };
    let history = history.and_then(|rows| events(&instance, execution, &rows)).unwrap_or_else(|error| {
        note(error);
        Vec::new()
    });
    let messages: Vec<WorkItem> =
        messages.into_iter().filter_map(|body| item(body).map_err(&mut note).ok()).collect();
    let failed = history_error.is_some();
    let (orchestration_name, version, execution_id) = match name {
        Some(name) => (name, version, execution),
        None => {
            let (name, version) = named_by(&history, &messages);
            (name, version, INITIAL_EXECUTION_ID)
        }
    };
    let item = OrchestrationItem {
        instance: instance.to_string(),
        orchestration_name,
        execution_id,
        version: version.unwrap_or_else(|| UNKNOWN_VERSION.into()),
        history: if failed { Vec::new() } else { history },
        messages,
        history_error,
        kv_snapshot: if failed { Default::default() } else { kv },
    };
    (item, guard.keep(), attempt)
}

/// Name and version of an instance that has no rows of its own yet.
fn named_by(history: &[Event], messages: &[WorkItem]) -> (String, Option<String>) {
    let started = history.iter().find_map(|event| match &event.kind {
        EventKind::OrchestrationStarted { name, version, .. } => Some((name.clone(), Some(version.clone()))),
        _ => None,
    });
    let starting = || {
        messages.iter().find_map(|message| match message {
            WorkItem::StartOrchestration { orchestration, version, .. }
            | WorkItem::ContinueAsNew { orchestration, version, .. } => {
                Some((orchestration.clone(), version.clone()))
            }
            _ => None,
        })
    };
    started.or_else(starting).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(ids: std::ops::RangeInclusive<u64>) -> Arc<Run> {
        let event = |id| Event::with_event_id(id, "a", 1, None, EventKind::KeyValuesCleared);
        let events: Vec<Event> = ids.clone().map(event).collect();
        let mut record = codec::encode_events(&events, usize::MAX).expect("it is small");
        codec::bind(&mut record, "a", 1);
        Arc::new(Run { first_event: *ids.start(), last_event: *ids.end(), record })
    }

    /// Found by `fuzz/` (mutated_file): a damaged page gave intact rows in another order, and they were served so.
    #[test]
    fn rows_out_of_order_are_damage() {
        let ids = |rows: &[Arc<Run>]| {
            events("a", 1, rows).map(|events| events.iter().map(Event::event_id).collect::<Vec<_>>())
        };
        assert_eq!(ids(&[run(0..=1), run(4..=5), run(6..=6)]).expect("in order"), [0, 1, 4, 5, 6]);
        for rows in [[run(3..=4), run(1..=2)], [run(1..=2), run(1..=2)], [run(1..=3), run(3..=4)]] {
            assert!(matches!(ids(&rows), Err(Error::Corrupt { .. })), "{rows:?}");
        }
    }
}
