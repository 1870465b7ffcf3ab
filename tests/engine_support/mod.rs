//! What the engine's scenario tests share: a database in a folder of its own, items and events, turns in one
//! call, futures polled by hand, and waits that end.
#![allow(dead_code)] // every test binary takes what it needs

pub(crate) mod calls;
pub(crate) mod other;
pub(crate) mod polled;

use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

use duroxide::providers::{
    ExecutionMetadata, OrchestrationItem, Provider, ProviderError, ScheduledActivityIdentifier,
    SessionFetchConfig, TagFilter, WorkItem,
};
use duroxide::{Event, EventKind};
use forebay::clock::ManualClock;
use forebay::{Error, Forebay, Options};
use tempfile::TempDir;

/// Where the hand-moved clocks start: 2023, so that both directions have room.
pub(crate) const START_MS: u64 = 1_700_000_000_000;

pub(crate) const LOCK: Duration = Duration::from_secs(30);
pub(crate) const HOUR: Duration = Duration::from_secs(3600);
pub(crate) const MILLISECOND: Duration = Duration::from_millis(1);

/// A test that would hang fails after this long instead.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Awaits, but not for ever.
pub(crate) async fn bounded<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("an answer in time")
}

/// Runs something that blocks on a thread of its own, but not for ever.
pub(crate) fn bounded_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    started(work).recv_timeout(PATIENCE).expect("it ends in time, without a panic")
}

/// Starts something that blocks; the receiver gets what it returns.
pub(crate) fn started<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> mpsc::Receiver<T> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let _ = sender.send(work());
    });
    receiver
}

/// A place for one database, removed with everything in it.
pub(crate) struct Place {
    pub(crate) folder: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder for the database") }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.file("app.db")
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn open(&self, options: Options) -> Forebay {
        options.open(self.path()).expect("the database opens")
    }

    pub(crate) fn wal_bytes(&self) -> u64 {
        std::fs::metadata(self.file("app.db-wal")).map_or(0, |metadata| metadata.len())
    }
}

/// An engine in memory on a clock that only the test moves.
pub(crate) fn on_manual_clock() -> (Forebay, ManualClock) {
    let clock = ManualClock::new(START_MS);
    let forebay = Options::default().clock(clock.clone()).in_memory().expect("memory opens");
    (forebay, clock)
}

pub(crate) fn start(instance: &str) -> WorkItem {
    WorkItem::StartOrchestration {
        instance: instance.into(),
        orchestration: "Orders".into(),
        input: "{}".into(),
        version: Some("1.0.0".into()),
        parent_instance: None,
        parent_id: None,
        parent_execution_id: None,
        execution_id: 1,
    }
}

pub(crate) fn raised(instance: &str, name: &str) -> WorkItem {
    WorkItem::ExternalRaised { instance: instance.into(), name: name.into(), data: String::new() }
}

pub(crate) fn timer(instance: &str, id: u64, fire_at_ms: u64) -> WorkItem {
    WorkItem::TimerFired { instance: instance.into(), execution_id: 1, id, fire_at_ms }
}

pub(crate) fn activity(instance: &str, id: u64) -> WorkItem {
    routed(instance, id, None, None)
}

pub(crate) fn routed(instance: &str, id: u64, session: Option<&str>, tag: Option<&str>) -> WorkItem {
    WorkItem::ActivityExecute {
        instance: instance.into(),
        execution_id: 1,
        id,
        name: "Charge".into(),
        input: "{}".into(),
        session_id: session.map(Into::into),
        tag: tag.map(Into::into),
    }
}

/// The next execution of an instance, from its own last turn.
pub(crate) fn continued(instance: &str, input: &str) -> WorkItem {
    WorkItem::ContinueAsNew {
        instance: instance.into(),
        orchestration: "Orders".into(),
        input: input.into(),
        version: Some("1.0.0".into()),
        parent_instance: None,
        parent_id: None,
        parent_execution_id: None,
        carry_forward_events: vec![],
        initial_custom_status: None,
    }
}

pub(crate) fn completed(instance: &str, id: u64) -> WorkItem {
    WorkItem::ActivityCompleted { instance: instance.into(), execution_id: 1, id, result: "done".into() }
}

/// The id of an activity, or of what an activity or a timer became.
pub(crate) fn id_of(item: &WorkItem) -> u64 {
    match item {
        WorkItem::ActivityExecute { id, .. }
        | WorkItem::ActivityCompleted { id, .. }
        | WorkItem::TimerFired { id, .. } => *id,
        other => panic!("{other:?} has no id"),
    }
}

pub(crate) fn event(instance: &str, execution: u64, id: u64, kind: EventKind) -> Event {
    Event::with_event_id(id, instance, execution, None, kind)
}

pub(crate) fn started_event(instance: &str, execution: u64) -> Event {
    let kind = EventKind::OrchestrationStarted {
        name: "Orders".into(),
        version: "1.0.0".into(),
        input: "{}".into(),
        parent_instance: None,
        parent_id: None,
        parent_execution_id: None,
        carry_forward_events: None,
        initial_custom_status: None,
    };
    event(instance, execution, 1, kind)
}

pub(crate) fn heard(instance: &str, id: u64, data: &str) -> Event {
    event(instance, 1, id, EventKind::ExternalEvent { name: "bell".into(), data: data.into() })
}

/// What a turn writes. `Turn::first` is the turn that makes an instance.
#[derive(Debug, Clone)]
pub(crate) struct Turn {
    pub(crate) execution: u64,
    pub(crate) history: Vec<Event>,
    pub(crate) work: Vec<WorkItem>,
    pub(crate) messages: Vec<WorkItem>,
    pub(crate) metadata: ExecutionMetadata,
    pub(crate) cancelled: Vec<ScheduledActivityIdentifier>,
}

impl Turn {
    pub(crate) fn of(execution: u64, history: Vec<Event>) -> Self {
        let (work, messages, cancelled) = (Vec::new(), Vec::new(), Vec::new());
        Self { execution, history, work, messages, metadata: ExecutionMetadata::default(), cancelled }
    }

    pub(crate) fn first(instance: &str) -> Self {
        Self::starting(instance, 1)
    }

    /// The first turn of an execution.
    pub(crate) fn starting(instance: &str, execution: u64) -> Self {
        let mut turn = Self::of(execution, vec![started_event(instance, execution)]);
        turn.metadata.orchestration_name = Some("Orders".into());
        turn.metadata.orchestration_version = Some("1.0.0".into());
        turn
    }

    pub(crate) fn ending(mut self, status: &str) -> Self {
        self.metadata.status = Some(status.into());
        self.metadata.output = Some(status.to_lowercase());
        self
    }

    pub(crate) async fn ack(self, forebay: &Forebay, token: &str) -> Result<(), ProviderError> {
        let Self { execution, history, work, messages, metadata, cancelled } = self;
        forebay.ack_orchestration_item(token, execution, history, work, messages, metadata, cancelled).await
    }
}

/// A leased turn or activity.
#[derive(Debug)]
pub(crate) struct Fetched<T> {
    pub(crate) item: T,
    pub(crate) token: String,
    pub(crate) attempt: u32,
}

pub(crate) type Granted<T> = Result<Option<(T, String, u32)>, ProviderError>;

pub(crate) fn fetched<T>(granted: Granted<T>) -> Option<Fetched<T>> {
    granted.expect("a fetch that works").map(|(item, token, attempt)| Fetched { item, token, attempt })
}

/// A turn that is there now, leased for [`LOCK`].
pub(crate) async fn fetch(forebay: &Forebay) -> Option<Fetched<OrchestrationItem>> {
    fetched(bounded(forebay.fetch_orchestration_item(LOCK, Duration::ZERO, None)).await)
}

/// An activity that is there now, leased for [`LOCK`], by a worker outside all sessions.
pub(crate) async fn fetch_work(forebay: &Forebay) -> Option<Fetched<WorkItem>> {
    fetched(bounded(forebay.fetch_work_item(LOCK, Duration::ZERO, None, &TagFilter::Any)).await)
}

/// The same by a worker that takes part in sessions, which it holds for [`LOCK`].
pub(crate) async fn fetch_work_as(forebay: &Forebay, owner: &str) -> Option<Fetched<WorkItem>> {
    let session = session(owner, LOCK);
    fetched(bounded(forebay.fetch_work_item(LOCK, Duration::ZERO, Some(&session), &TagFilter::Any)).await)
}

pub(crate) fn session(owner: &str, lock_timeout: Duration) -> SessionFetchConfig {
    SessionFetchConfig { owner_id: owner.into(), lock_timeout }
}

pub(crate) async fn enqueue(forebay: &Forebay, item: WorkItem) {
    bounded(forebay.enqueue_for_orchestrator(item, None)).await.expect("a message is taken");
}

pub(crate) async fn enqueue_work(forebay: &Forebay, item: WorkItem) {
    bounded(forebay.enqueue_for_worker(item)).await.expect("an activity is taken");
}

/// Starts an instance and acknowledges `turn` as its first.
pub(crate) async fn begin(forebay: &Forebay, instance: &str, turn: Turn) {
    enqueue(forebay, start(instance)).await;
    let first = fetch(forebay).await.expect("the start is there");
    assert_eq!(first.item.instance, instance, "nothing else was waiting");
    bounded(turn.ack(forebay, &first.token)).await.expect("the first turn is taken");
}

/// Waits until the writer has done everything it was told so far, the answers of parked fetches included: the depths
/// are told before the batch they came in with is looked at, so the second time they are, that batch is over.
pub(crate) async fn settle(forebay: &Forebay) {
    for _ in 0..3 {
        depths(forebay).await;
    }
}

/// Unleased items: messages, activities.
pub(crate) async fn depths(forebay: &Forebay) -> (usize, usize) {
    let admin = forebay.as_management_capability().expect("it has one");
    let depths = bounded(admin.get_queue_depths()).await.expect("the depths are read");
    (depths.orchestrator_queue, depths.worker_queue)
}

/// The error's text has all of these in it.
pub(crate) fn assert_says(error: &Error, parts: &[&str]) {
    let text = format!("{error:#}");
    for part in parts {
        assert!(text.contains(part), "{text:?} should say {part:?}");
    }
}

/// Damages one row, in the file of a database that is closed.
pub(crate) fn damage(place: &Place, sql: &str) {
    let connection = rusqlite::Connection::open(place.path()).expect("it opens");
    assert_eq!(connection.execute(sql, []).expect(sql), 1, "{sql}");
}

/// Breaks the chain of overflow pages of the only long row of a table.
pub(crate) fn break_chain(place: &Place, table: &str) {
    let connection = rusqlite::Connection::open(place.path()).expect("it opens");
    let sql = "SELECT min(pageno), (SELECT * FROM pragma_page_size) FROM dbstat
               WHERE name = ?1 AND pagetype = 'overflow'";
    let (page, size): (u64, u64) = connection
        .query_row(sql, [table], |row| {
            Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get::<_, i64>(1)?.cast_unsigned()))
        })
        .expect("there is a long row");
    drop(connection);
    use std::io::{Seek, SeekFrom, Write};
    let mut file = std::fs::OpenOptions::new().write(true).open(place.path()).expect("it opens");
    file.seek(SeekFrom::Start((page - 1) * size)).expect("it is there");
    // A page that does not exist.
    file.write_all(&u32::MAX.to_be_bytes()).expect("it is written");
}
