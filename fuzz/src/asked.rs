//! Everything a database can be asked, and what makes an answer a wrong one.
//!
//! An error is never wrong. An answer that needs no table which the damage touched has to be the one the
//! undamaged database gives. Where its tables were touched, SQLite may have lost rows, and columns outside of
//! records may read as anything (SQLite's pages carry no checksum); but what comes out of a record has to be
//! what was once written:
//! - an event: one that was written, to that execution of that instance, under the id it was written with, in
//!   order, none twice;
//! - a message: one that was sent to the instance whose turn it comes with;
//! - an activity: one that was enqueued.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::time::Duration;

use duroxide::providers::{
    ExecutionMetadata, OrchestrationItem, Provider, ProviderAdmin, ProviderError, PruneOptions,
    SessionFetchConfig, TagFilter, WorkItem,
};
use duroxide::{Event, EventKind};
use forebay::Forebay;
use pollster::block_on;

use crate::written::{Tables, Written, folder, options};

pub const HOUR: Duration = Duration::from_secs(3600);

/// More than there is, and so the end of a queue that gives the same for ever.
const FETCHES_MAX: usize = 30;

/// Far more than the writer runs for all questions here. It would run them by the thousand if it were woken
/// for nothing.
const BATCHES_MAX: u64 = 1000;

#[derive(Debug, Clone)]
pub struct Answer {
    call: String,
    needs: Tables,
    pub said: Result<Said, String>,
}

#[derive(Debug, Clone)]
pub enum Said {
    Text(String),
    History {
        instance: String,
        execution: Option<u64>,
        events: Vec<Event>,
    },
    Turn(Box<OrchestrationItem>),
    Work(WorkItem),
    /// The queue had no more.
    Nothing,
}

impl Said {
    /// For comparison: maps in order.
    fn text(&self) -> String {
        match self {
            Self::Turn(item) => {
                let kv: BTreeMap<_, _> = item.kv_snapshot.iter().collect();
                let mut text = format!("{kv:?} ");
                let _ = write!(
                    text,
                    "{} {} {} {} {:?} {:?} {:?}",
                    item.instance,
                    item.orchestration_name,
                    item.version,
                    item.execution_id,
                    item.history,
                    item.messages,
                    item.history_error
                );
                text
            }
            other => format!("{other:?}"),
        }
    }
}

/// Panics if the answer is wrong, whatever it was that `touched` these tables.
pub fn check(written: &Written, touched: Tables, answers: &[Answer]) {
    for answer in answers {
        check_alone(written, answer);
    }
    for (right, answer) in written.answers.iter().zip(answers) {
        // An error in the middle of a queue moves what comes after it.
        if right.call != answer.call {
            break;
        }
        if let (Ok(right), Ok(said)) = (&right.said, &answer.said)
            && !answer.needs.meets(touched)
        {
            assert_eq!(said.text(), right.text(), "{}", answer.call);
        }
    }
}

/// Panics if no damage whatever excuses the answer.
pub fn check_alone(written: &Written, answer: &Answer) {
    match &answer.said {
        Err(_) | Ok(Said::Text(_) | Said::Nothing) => {}
        Ok(Said::History { instance, execution, events }) => {
            check_events(written, events, instance, *execution, &answer.call);
        }
        Ok(Said::Turn(item)) => {
            if item.history_error.is_some() {
                assert!(item.history.is_empty(), "an error in place of the history, not beside it");
                return;
            }
            check_events(written, &item.history, &item.instance, None, &answer.call);
            for message in &item.messages {
                assert!(written.messages.contains(message), "nobody sent {message:?}");
                assert_eq!(destination(message), item.instance, "{message:?} was sent to another instance");
            }
        }
        Ok(Said::Work(item)) => assert!(written.work.contains(item), "nobody enqueued {item:?}"),
    }
}

/// `execution` is the one that was asked for; otherwise it may be any, but all events are of one.
fn check_events(written: &Written, events: &[Event], instance: &str, execution: Option<u64>, call: &str) {
    let of_one = written.events.iter().any(|((of, number), known)| {
        let asked_for = of == instance && execution.is_none_or(|execution| execution == *number);
        asked_for && events.iter().all(|event| known.contains(event))
    });
    let none = events.is_empty();
    assert!(none || of_one, "{call}, {instance}, {execution:?}: nobody wrote {events:?}");
    let in_order = events.windows(2).all(|pair| pair[0].event_id < pair[1].event_id);
    assert!(in_order, "{call}: out of order");
}

fn destination(item: &WorkItem) -> &str {
    match item {
        WorkItem::SubOrchCompleted { parent_instance, .. }
        | WorkItem::SubOrchFailed { parent_instance, .. } => parent_instance,
        WorkItem::StartOrchestration { instance, .. }
        | WorkItem::ActivityExecute { instance, .. }
        | WorkItem::ActivityCompleted { instance, .. }
        | WorkItem::ActivityFailed { instance, .. }
        | WorkItem::TimerFired { instance, .. }
        | WorkItem::ExternalRaised { instance, .. }
        | WorkItem::CancelInstance { instance, .. }
        | WorkItem::ContinueAsNew { instance, .. }
        | WorkItem::QueueMessage { instance, .. } => instance,
    }
}

struct Asking<'a> {
    forebay: &'a Forebay,
    answers: Vec<Answer>,
}

/// Writes the database down, opens it, asks everything, lets every turn and activity go on, closes it. `None`
/// if it does not open.
pub fn ask(main: &[u8], log: &[u8]) -> Option<Vec<Answer>> {
    let path = folder().join("asked.db");
    for suffix in ["-wal", "-shm", "-journal"] {
        let _ = fs::remove_file(format!("{}{suffix}", path.display()));
    }
    fs::write(&path, main).expect("there is room");
    if !log.is_empty() {
        fs::write(format!("{}-wal", path.display()), log).expect("there is room");
    }
    let forebay = match options().open(&path) {
        Ok(forebay) => forebay,
        Err(error) => {
            let _ = format!("{error:#}");
            return None;
        }
    };
    let mut asking = Asking { forebay: &forebay, answers: Vec::new() };
    for instance in ["ada", "bob", "eve", "dan", "nobody"] {
        asking.about(instance);
    }
    asking.about_all();
    asking.queues();
    let answers = asking.answers;
    go_on(&forebay);
    let batches = forebay.stats().batches;
    assert!(batches < BATCHES_MAX, "the writer does not come to rest: {batches} batches");
    let _ = forebay.close();
    Some(answers)
}

const ROWS: Tables = Tables::INSTANCES.and(Tables::EXECUTIONS);
const LIVES: Tables = ROWS.and(Tables::HISTORY);

impl Asking<'_> {
    fn heard(&mut self, call: String, needs: Tables, said: Result<Said, ProviderError>) {
        self.answers.push(Answer { call, needs, said: said.map_err(|error| format!("{error:#}")) });
    }

    fn text<T: std::fmt::Debug>(&mut self, call: String, needs: Tables, said: Result<T, ProviderError>) {
        self.heard(call, needs, said.map(|value| Said::Text(format!("{value:?}"))));
    }

    fn history(
        &mut self,
        instance: &str,
        execution: Option<u64>,
        needs: Tables,
        said: Result<Vec<Event>, ProviderError>,
    ) {
        let history = |events| Said::History { instance: instance.to_owned(), execution, events };
        self.heard(format!("history of {instance}, {execution:?}"), needs, said.map(history));
    }

    fn about(&mut self, instance: &str) {
        let forebay = self.forebay;
        self.history(instance, None, LIVES, block_on(forebay.read(instance)));
        self.history(instance, None, LIVES, block_on(forebay.read_history(instance)));
        for execution in [1, 2] {
            let needs = Tables::INSTANCES.and(Tables::HISTORY);
            let read = block_on(forebay.read_with_execution(instance, execution));
            self.history(instance, Some(execution), needs, read);
            let call = format!("execution {execution} of {instance}");
            let info = found(block_on(forebay.get_execution_info(instance, execution)));
            self.text(call, LIVES, info);
        }
        macro_rules! texts {
            ($($method:ident($($argument:expr),*) needs $needs:expr;)*) => { $(
                let said = block_on(forebay.$method(instance $(, $argument)*));
                self.text(format!("{} of {instance}", stringify!($method)), $needs, found(said));
            )* };
        }
        texts! {
            list_executions() needs ROWS;
            latest_execution_id() needs ROWS;
            get_instance_info() needs LIVES;
            list_children() needs Tables::INSTANCES;
            get_parent_id() needs Tables::INSTANCES;
            get_instance_tree() needs Tables::INSTANCES;
            get_custom_status(0) needs Tables::INSTANCES;
            get_kv_value("colour") needs Tables::INSTANCES.and(Tables::KV);
            get_instance_stats() needs LIVES.and(Tables::KV);
        }
        let kv = block_on(forebay.get_kv_all_values(instance));
        let kv = kv.map(|kv| kv.into_iter().collect::<BTreeMap<_, _>>());
        self.text(format!("key-values of {instance}"), Tables::INSTANCES.and(Tables::KV), kv);
    }

    fn about_all(&mut self) {
        let forebay = self.forebay;
        self.text("instances".into(), Tables::INSTANCES, block_on(forebay.list_instances()));
        for status in ["Running", "Completed", "Failed"] {
            self.text(status.into(), ROWS, block_on(forebay.list_instances_by_status(status)));
        }
        self.text("metrics".into(), LIVES, block_on(forebay.get_system_metrics()));
        let queues = Tables::MESSAGES.and(Tables::WORK);
        self.text("depths".into(), queues, block_on(forebay.get_queue_depths()));
    }

    fn queues(&mut self) {
        let forebay = self.forebay;
        for at in 0..FETCHES_MAX {
            let fetched = block_on(forebay.fetch_orchestration_item(HOUR, Duration::ZERO, None));
            let said = fetched
                .map(|turn| turn.map_or(Said::Nothing, |(item, _token, _)| Said::Turn(Box::new(item))));
            let over = matches!(said, Ok(Said::Nothing));
            self.heard(format!("turn {at}"), Tables::ALL, said);
            if over {
                break;
            }
        }
        let session = SessionFetchConfig { owner_id: "fuzz".into(), lock_timeout: HOUR };
        for at in 0..FETCHES_MAX {
            let fetched =
                block_on(forebay.fetch_work_item(HOUR, Duration::ZERO, Some(&session), &TagFilter::Any));
            let said = fetched.map(|work| work.map_or(Said::Nothing, |(item, ..)| Said::Work(item)));
            let over = matches!(said, Ok(Said::Nothing));
            self.heard(format!("work {at}"), Tables::ALL, said);
            if over {
                break;
            }
        }
    }
}

/// That there is no such thing is an answer, not an error.
fn found<T>(said: Result<T, ProviderError>) -> Result<Option<T>, ProviderError> {
    match said {
        Ok(value) => Ok(Some(value)),
        Err(error) if format!("{error:#}").contains("not found") => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes on top of whatever is there. It may fail, but has to come to an end.
fn go_on(forebay: &Forebay) {
    let start = WorkItem::StartOrchestration {
        instance: "new".into(),
        orchestration: "Orders".into(),
        input: String::new(),
        version: None,
        parent_instance: None,
        parent_id: None,
        parent_execution_id: None,
        execution_id: 1,
    };
    let _ = block_on(forebay.enqueue_for_orchestrator(start, None));
    for instance in ["ada", "eve"] {
        let rang =
            WorkItem::ExternalRaised { instance: instance.into(), name: "bell".into(), data: "x".into() };
        let _ = block_on(forebay.enqueue_for_orchestrator(rang, None));
    }
    for _ in 0..3 {
        let fetched = block_on(forebay.fetch_orchestration_item(HOUR, Duration::ZERO, None));
        let Ok(Some((item, token, _))) = fetched else { break };
        let event = Event::with_event_id(
            item.history.last().map_or(1, |event| event.event_id.saturating_add(1)),
            &item.instance,
            item.execution_id,
            None,
            EventKind::KeyValuesCleared,
        );
        let metadata = ExecutionMetadata { status: Some("Completed".into()), ..Default::default() };
        let (execution, none) = (item.execution_id, Vec::new());
        let _ = block_on(forebay.ack_orchestration_item(
            &token,
            execution,
            vec![event],
            none,
            Vec::new(),
            metadata,
            Vec::new(),
        ));
    }
    let _ = block_on(forebay.prune_executions("eve", PruneOptions::default()));
    let _ = block_on(forebay.delete_instance("ada", true));
    let _ = block_on(forebay.list_instances());
}
