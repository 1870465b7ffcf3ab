//! What is in a file: everything that can be read and everything that can be taken, through the engine's own
//! interface; the rows of histories and the soundness of the file from SQLite.

use std::collections::BTreeMap;
use std::path::Path;

use duroxide::providers::{Provider, ProviderAdmin, WorkItem};
use duroxide::{Event, EventKind};
use forebay::clock::ManualClock;
use forebay::{Error, Forebay, Options};
use rusqlite::Connection;

use crate::engine_support::{bounded, bounded_thread, fetch, fetch_work};
use crate::report::Turn;

/// Later than any timer is due.
const FAR_MS: u64 = 4_000_000_000_000;

#[derive(Debug)]
pub(crate) struct Execution {
    pub(crate) status: String,
    pub(crate) output: Option<String>,
    pub(crate) events: Vec<Event>,
}

#[derive(Debug, Default)]
pub(crate) struct Instance {
    pub(crate) executions: BTreeMap<u64, Execution>,
    pub(crate) current: u64,
    pub(crate) values: BTreeMap<String, String>,
    pub(crate) status: Option<String>,
}

/// A turn as it is offered.
#[derive(Debug)]
pub(crate) struct Offered {
    pub(crate) instance: String,
    pub(crate) messages: Vec<WorkItem>,
    pub(crate) attempt: u32,
}

#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) instances: BTreeMap<String, Instance>,
    pub(crate) turns: Vec<Offered>,
    pub(crate) work: Vec<(WorkItem, u32)>,
    /// The rows of all histories; their hash is not known here.
    pub(crate) rows: Vec<Turn>,
    /// What SQLite finds wrong with the file, and rows without the row they belong to.
    pub(crate) unsound: Vec<String>,
}

impl Found {
    /// Opens the database and takes everything out of it; for a copy.
    pub(crate) async fn look(database: &Path) -> Result<Self, Error> {
        let (path, clock) = (database.to_owned(), ManualClock::new(FAR_MS));
        let options = Options::default().clock(clock);
        let forebay = bounded_thread(move || options.open(path))?;
        let (unsound, rows) =
            forebay.on_writer_connection(|connection| (unsound(connection), rows(connection)))?;
        let mut found = Self { rows: rows?, unsound: unsound?, ..Self::default() };
        for id in bounded(forebay.list_instances()).await.expect("they are listed") {
            let instance = Instance::look(&forebay, &id).await;
            found.instances.insert(id, instance);
        }
        while let Some(turn) = fetch(&forebay).await {
            let (instance, messages) = (turn.item.instance, turn.item.messages);
            found.turns.push(Offered { instance, messages, attempt: turn.attempt });
        }
        while let Some(activity) = fetch_work(&forebay).await {
            found.work.push((activity.item, activity.attempt));
        }
        bounded_thread(move || forebay.close())?;
        Ok(found)
    }

    pub(crate) fn messages(&self) -> impl Iterator<Item = &WorkItem> {
        self.turns.iter().flat_map(|turn| &turn.messages)
    }

    /// Whether the start of an instance is still to be taken.
    pub(crate) fn start_waits(&self, id: &str) -> bool {
        let starts =
            |item: &WorkItem| matches!(item, WorkItem::StartOrchestration { instance, .. } if instance == id);
        self.messages().any(starts)
    }

    /// How often a letter is there: waiting, or recorded. One that has not been taken yet is carried from one
    /// execution to the next and is recorded by both.
    pub(crate) fn letters(&self, id: &str, letter: &str) -> usize {
        let waits = |item: &&WorkItem| match item {
            WorkItem::QueueMessage { instance, data, .. } => instance == id && data == letter,
            _ => false,
        };
        let heard = |event: &&Event| match &event.kind {
            EventKind::QueueEventDelivered { data, .. } => data == letter,
            _ => false,
        };
        let executions = self.instances.get(id).into_iter().flat_map(|instance| instance.executions.values());
        let recorded = executions.map(|execution| execution.events.iter().filter(heard).count()).max();
        self.messages().filter(waits).count() + recorded.unwrap_or(0)
    }

    /// What an instance has come to, if it has completed.
    pub(crate) fn output(&self, id: &str) -> Option<&String> {
        let instance = self.instances.get(id)?;
        let last = instance.executions.get(&instance.current)?;
        (last.status == "Completed").then_some(last.output.as_ref())?
    }

    /// The events that a turn wrote, or would have written.
    pub(crate) fn events(&self, turn: &Turn) -> &[Event] {
        let Some(instance) = self.instances.get(&turn.instance) else { return &[] };
        let Some(execution) = instance.executions.get(&turn.execution) else { return &[] };
        let events = &execution.events;
        let from = events.partition_point(|event| event.event_id < turn.first_event);
        let to = events.partition_point(|event| event.event_id <= turn.last_event);
        &events[from..to]
    }
}

impl Instance {
    async fn look(forebay: &Forebay, id: &str) -> Self {
        let info = bounded(forebay.get_instance_info(id)).await.expect("it is there");
        let mut found = Self {
            current: info.current_execution_id,
            values: bounded(forebay.get_kv_all_values(id)).await.expect("read").into_iter().collect(),
            status: bounded(forebay.get_custom_status(id, 0))
                .await
                .expect("read")
                .and_then(|(status, _)| status),
            ..Self::default()
        };
        for execution in bounded(forebay.list_executions(id)).await.expect("they are listed") {
            let info = bounded(forebay.get_execution_info(id, execution)).await.expect("it is there");
            let events = bounded(forebay.read_with_execution(id, execution)).await.expect("it decodes");
            found
                .executions
                .insert(execution, Execution { status: info.status, output: info.output, events });
        }
        found
    }

    pub(crate) fn events(&self) -> impl Iterator<Item = &Event> {
        self.executions.values().flat_map(|execution| &execution.events)
    }
}

fn unsound(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut unsound = strings(connection, "PRAGMA integrity_check")?;
    unsound.retain(|line| line != "ok");
    let orphans = "
        SELECT 'an execution without its instance' FROM executions WHERE instance NOT IN (SELECT key FROM instances)
        UNION ALL SELECT 'a value without its instance' FROM kv WHERE instance NOT IN (SELECT key FROM instances)
        UNION ALL SELECT 'a history without its execution' FROM history h
            WHERE NOT EXISTS (SELECT 1 FROM executions e WHERE e.instance = h.instance AND e.execution = h.execution)
        UNION ALL SELECT 'an execution without a history' FROM executions e
            WHERE NOT EXISTS (SELECT 1 FROM history h WHERE e.instance = h.instance AND e.execution = h.execution)
        UNION ALL SELECT 'an instance whose execution is not its last: ' || id FROM instances i
            WHERE execution IS NOT (SELECT max(execution) FROM executions e WHERE e.instance = i.key)";
    unsound.extend(strings(connection, orphans)?);
    Ok(unsound)
}

fn strings(connection: &Connection, sql: &str) -> rusqlite::Result<Vec<String>> {
    connection.prepare(sql)?.query_map([], |row| row.get(0))?.collect()
}

fn rows(connection: &Connection) -> rusqlite::Result<Vec<Turn>> {
    let sql = "SELECT i.id, h.execution, h.first_event, h.last_event
               FROM history h JOIN instances i ON i.key = h.instance";
    let mut statement = connection.prepare(sql)?;
    let number = |row: &rusqlite::Row<'_>, column| row.get::<_, i64>(column).map(i64::cast_unsigned);
    let rows = statement.query_map([], |row| {
        Ok(Turn {
            instance: row.get(0)?,
            execution: number(row, 1)?,
            first_event: number(row, 2)?,
            last_event: number(row, 3)?,
            hash: 0,
        })
    })?;
    rows.collect()
}
