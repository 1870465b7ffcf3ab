//! A small database, as the engine leaves it, and what was written to it.
//!
//! Two kinds: one that was closed, and one whose process is gone, with its last turns in the log beside it.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;

use duroxide::providers::{ExecutionMetadata, Provider, TagFilter, WorkItem};
use duroxide::{AppErrorKind, ErrorDetails, Event, EventKind};
use forebay::clock::ManualClock;
use forebay::{Forebay, Options};
use pollster::block_on;
use rusqlite::Connection;

use crate::asked::{self, Answer, HOUR};

/// Where the clock stands when the database is written.
const WRITTEN_MS: u64 = 1_700_000_000_000;

/// A set of tables. An answer needs some; damage spoils some.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tables(u8);

impl Tables {
    pub const NONE: Self = Self(0);
    pub const INSTANCES: Self = Self(1);
    pub const EXECUTIONS: Self = Self(2);
    pub const HISTORY: Self = Self(4);
    pub const MESSAGES: Self = Self(8);
    pub const WORK: Self = Self(16);
    pub const KV: Self = Self(32);
    pub const ALL: Self = Self(63);

    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// By the name of a table or of one of its indexes. What is not known may be anything.
    fn named(name: &str) -> Self {
        match name {
            "executions" => Self::EXECUTIONS,
            "history" => Self::HISTORY,
            "messages" => Self::MESSAGES,
            "work" => Self::WORK,
            "kv" => Self::KV,
            name if name.contains("instances") => Self::INSTANCES,
            _ => Self::ALL,
        }
    }
}

pub struct Written {
    pub main: Vec<u8>,
    /// The log; empty if the database was closed.
    pub log: Vec<u8>,
    pub page_bytes: usize,
    /// Which table a page of `main` belongs to, by its number from 0.
    pub pages: Vec<Tables>,
    pub events: HashMap<(String, u64), Vec<Event>>,
    pub messages: Vec<WorkItem>,
    pub work: Vec<WorkItem>,
    /// Every answer of the database as it was written.
    pub answers: Vec<Answer>,
}

/// Where databases are written, anew for every input. run.sh sees to it that it is in memory, and cleans up.
pub fn folder() -> PathBuf {
    let folder = std::env::temp_dir().join(format!("forebay-fuzz-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder for databases");
    folder
}

/// As it is opened a minute later.
pub fn options() -> Options {
    at(WRITTEN_MS + 60_000)
}

fn at(wall_ms: u64) -> Options {
    Options::default().readers(1).clock(ManualClock::new(wall_ms))
}

impl Written {
    pub fn closed() -> Self {
        let mut story = Story::begin("closed");
        story.first_half();
        story.second_half();
        story.forebay.close().expect("it closes");
        story.end()
    }

    pub fn with_a_log() -> Self {
        let mut story = Story::begin("log");
        story.first_half();
        story.forebay.close().expect("it closes");
        story.forebay = at(WRITTEN_MS).open(&story.path).expect("it opens again");
        story.second_half();
        story.end()
    }

    pub fn table_of(&self, byte: usize) -> Tables {
        match byte / self.page_bytes {
            // The schema and the header.
            0 => Tables::ALL,
            page => self.pages.get(page).copied().unwrap_or(Tables::ALL),
        }
    }
}

/// Writes the database turn by turn, and keeps what it wrote.
struct Story {
    path: PathBuf,
    forebay: Forebay,
    events: HashMap<(String, u64), Vec<Event>>,
    messages: Vec<WorkItem>,
    work: Vec<WorkItem>,
}

fn kept(text: &str) -> String {
    text.to_owned()
}

fn started(name: &str, parent: Option<&str>) -> EventKind {
    EventKind::OrchestrationStarted {
        name: kept(name),
        version: kept("1.0.0"),
        input: kept("{}"),
        parent_instance: parent.map(kept),
        parent_id: parent.map(|_| 2),
        parent_execution_id: parent.map(|_| 1),
        carry_forward_events: parent.map(|_| vec![(kept("bell"), kept("rang"))]),
        initial_custom_status: None,
    }
}

fn start(instance: &str) -> WorkItem {
    WorkItem::StartOrchestration {
        instance: kept(instance),
        orchestration: kept("Orders"),
        input: kept("{}"),
        version: Some(kept("1.0.0")),
        parent_instance: None,
        parent_id: None,
        parent_execution_id: None,
        execution_id: 1,
    }
}

fn activity(instance: &str, id: u64, session: Option<&str>, tag: Option<&str>) -> WorkItem {
    WorkItem::ActivityExecute {
        instance: kept(instance),
        execution_id: 1,
        id,
        name: kept("Charge"),
        input: format!("{{\"line\":{id}}}"),
        session_id: session.map(kept),
        tag: tag.map(kept),
    }
}

fn rang(instance: &str, data: &str) -> WorkItem {
    WorkItem::ExternalRaised { instance: kept(instance), name: kept("bell"), data: kept(data) }
}

impl Story {
    fn begin(name: &str) -> Self {
        let path = folder().join(format!("{name}.db"));
        let forebay = at(WRITTEN_MS).open(&path).expect("a new database opens");
        Self { path, forebay, events: HashMap::new(), messages: Vec::new(), work: Vec::new() }
    }

    /// One turn of whoever is next, which has to be `instance`.
    fn turn(&mut self, instance: &str, execution: u64, kinds: Vec<EventKind>, status: Option<&str>) {
        let fetched = block_on(self.forebay.fetch_orchestration_item(HOUR, std::time::Duration::ZERO, None));
        let (item, token, _) = fetched.expect("a fetch").expect("a turn");
        assert_eq!(item.instance, instance);
        let all = self.events.entry((kept(instance), execution)).or_default();
        let (mut work, mut messages) = (Vec::new(), Vec::new());
        let (mut metadata, mut delta) = (ExecutionMetadata::default(), Vec::new());
        for kind in kinds {
            let event_id = (all.len() + delta.len()) as u64 + 1;
            match &kind {
                EventKind::OrchestrationStarted { name, version, parent_instance, .. } => {
                    metadata.orchestration_name = Some(name.clone());
                    metadata.orchestration_version = Some(version.clone());
                    metadata.parent_instance_id = parent_instance.clone();
                }
                EventKind::ActivityScheduled { session_id, tag, .. } => {
                    work.push(activity(instance, event_id, session_id.as_deref(), tag.as_deref()));
                }
                EventKind::TimerCreated { fire_at_ms } => messages.push(WorkItem::TimerFired {
                    instance: kept(instance),
                    execution_id: execution,
                    id: event_id,
                    fire_at_ms: *fire_at_ms,
                }),
                _ => {}
            }
            delta.push(Event {
                event_id,
                source_event_id: None,
                instance_id: kept(instance),
                execution_id: execution,
                timestamp_ms: WRITTEN_MS + event_id,
                duroxide_version: kept("0.1.32"),
                kind,
            });
        }
        all.extend(delta.iter().cloned());
        self.work.extend(work.iter().cloned());
        self.messages.extend(messages.iter().cloned());
        metadata.status = status.map(kept);
        metadata.output = status.map(|status| format!("{instance} has {status}"));
        let none = Vec::new();
        let acked =
            self.forebay.ack_orchestration_item(&token, execution, delta, work, messages, metadata, none);
        block_on(acked).expect("the turn is taken");
    }

    fn send(&mut self, item: WorkItem) {
        block_on(self.forebay.enqueue_for_orchestrator(item.clone(), None)).expect("a message is taken");
        self.messages.push(item);
    }

    fn first_half(&mut self) {
        use EventKind::*;
        let scheduled = |session: Option<&str>, tag: Option<&str>| ActivityScheduled {
            name: kept("Charge"),
            input: kept("{}"),
            session_id: session.map(kept),
            tag: tag.map(kept),
        };
        self.send(start("ada"));
        let kv = |key: &str, value: &str| KeyValueSet {
            key: kept(key),
            value: kept(value),
            last_updated_at_ms: WRITTEN_MS,
        };
        let turn = vec![
            started("Orders", None),
            scheduled(None, None),
            scheduled(Some("session-1"), None),
            scheduled(None, Some("gpu")),
            TimerCreated { fire_at_ms: WRITTEN_MS + 10_000 },
            TimerCreated { fire_at_ms: WRITTEN_MS + 100_000_000 },
            kv("colour", "green"),
            kv("size", "large"),
            CustomStatusUpdated { status: Some(kept("paying")) },
        ];
        self.turn("ada", 1, turn, Some("Running"));
        self.send(start("bob"));
        // Larger than a page.
        let long = vec![started("Orders", None), OrchestrationCompleted { output: "long ".repeat(1500) }];
        self.turn("bob", 1, long, Some("Completed"));
        self.send(start("eve"));
        self.turn("eve", 1, vec![started("Child", Some("ada")), kv("turn", "1")], Some("Running"));
    }

    fn second_half(&mut self) {
        use EventKind::*;
        self.send(rang("eve", "first"));
        let again = vec![
            ExternalEvent { name: kept("bell"), data: kept("first") },
            OrchestrationContinuedAsNew { input: kept("2") },
        ];
        self.turn("eve", 1, again, Some("ContinuedAsNew"));
        self.send(rang("eve", "second"));
        self.turn("eve", 2, vec![started("Child", Some("ada"))], Some("Running"));
        self.send(rang("eve", "third"));
        let kind = AppErrorKind::OrchestrationFailed;
        let details = ErrorDetails::Application { kind, message: kept("no"), retryable: false };
        self.turn("eve", 2, vec![OrchestrationFailed { details }], Some("Failed"));
        // What is waiting when the database is opened.
        let fetched = block_on(self.forebay.fetch_work_item(
            HOUR,
            std::time::Duration::ZERO,
            None,
            &TagFilter::DefaultOnly,
        ));
        let (_, token, _) = fetched.expect("a fetch").expect("an activity");
        let done = WorkItem::ActivityCompleted {
            instance: kept("ada"),
            execution_id: 1,
            id: 2,
            result: "result ".repeat(20),
        };
        block_on(self.forebay.ack_work_item(&token, Some(done.clone()))).expect("it is taken");
        self.messages.push(done);
        self.send(rang("ada", "waiting"));
        self.send(start("dan"));
    }

    fn end(self) -> Written {
        let read = |path: &PathBuf| fs::read(path).unwrap_or_default();
        let log_path = PathBuf::from(format!("{}-wal", self.path.display()));
        let (main, log) = (read(&self.path), read(&log_path));
        let _ = self.forebay.close();
        let (page_bytes, pages) = pages(&self.path);
        let Self { events, messages, work, .. } = self;
        let mut written =
            Written { main, log, page_bytes, pages, events, messages, work, answers: Vec::new() };
        let asked = asked::ask(&written.main, &written.log).expect("what was just written opens");
        for answer in &asked {
            assert!(answer.said.is_ok(), "{answer:?}");
            asked::check_alone(&written, answer);
        }
        written.answers = asked;
        written
    }
}

/// Which table each page belongs to.
fn pages(path: &PathBuf) -> (usize, Vec<Tables>) {
    let connection = Connection::open(path).expect("it opens");
    let read = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).expect(sql);
    let count = usize::try_from(read("PRAGMA page_count")).expect("a count");
    let mut pages = vec![Tables::ALL; count];
    let mut statement = connection.prepare("SELECT pageno, name FROM dbstat").expect("SQLite has dbstat");
    let mut rows = statement.query([]).expect("it is read");
    while let Some(row) = rows.next().expect("a row") {
        let page = usize::try_from(row.get::<_, i64>(0).expect("a number")).expect("a page");
        pages[page - 1] = Tables::named(&row.get::<_, String>(1).expect("a name"));
    }
    (usize::try_from(read("PRAGMA page_size")).expect("a size"), pages)
}
