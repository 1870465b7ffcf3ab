//! What duroxide's storage holds, as far as duroxide can see it: kept by the load from what it was told about
//! the operations, never from the engine's code, and read back through the engine's interface.

use std::collections::BTreeMap;
use std::time::Duration;

use duroxide::Event;
use duroxide::providers::{Provider, ProviderAdmin, WorkItem};
use forebay::Forebay;
use forebay::clock::ManualClock;

use super::Likeness;
use crate::engine_support::{Turn, bounded, fetch, fetch_work, id_of};

/// Longer than any delay a load uses.
const FAR: Duration = Duration::from_secs(86_400);

#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Execution {
    status: String,
    output: Option<String>,
    events: Vec<Event>,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Instance {
    parent: Option<String>,
    executions: BTreeMap<u64, Execution>,
    values: BTreeMap<String, String>,
    /// With its version; `None` before the first.
    status: Option<(Option<String>, u64)>,
}

/// When something is due that was not put off, or that has been delivered before: whatever the clock says.
pub(crate) const AT_ONCE: u64 = 0;

/// A message or an activity.
#[derive(Debug, Clone, PartialEq)]
struct Waiting {
    item: WorkItem,
    attempt: u32,
    due_ms: u64,
}

impl Waiting {
    fn new(item: WorkItem, due_ms: u64) -> Self {
        Self { item, attempt: 0, due_ms }
    }

    fn deliver(&mut self) {
        self.attempt += 1;
        self.due_ms = AT_ONCE;
    }
}

/// What is written into the file, in the load's own words.
#[derive(Debug, Clone, Default)]
pub(crate) struct Book {
    instances: BTreeMap<String, Instance>,
    messages: BTreeMap<u64, (String, Waiting)>,
    work: BTreeMap<u64, Waiting>,
    next: u64,
}

/// A turn as it is offered: its messages, and how often the most-tried of them was tried with this time.
type Offered = (Vec<WorkItem>, u32);

/// An activity as it is offered: its id, what it is, and as which attempt.
type Activity = (u64, String, u32);

/// What can be seen of a [`Book`] from outside.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Picture {
    instances: BTreeMap<String, Instance>,
    /// By instance: what is due at the time of looking, and what is due later.
    turns: BTreeMap<String, Offered>,
    later_turns: BTreeMap<String, Offered>,
    work: Vec<Activity>,
    later_work: Vec<Activity>,
}

impl Likeness for Picture {
    /// Of what had not been tried yet the first attempt may be counted ahead; never the other way round.
    fn allows(&self, found: &Self) -> bool {
        let counts = |said: u32, found: u32| found == said || (said == 1 && found == 2);
        let turns = |said: &BTreeMap<String, Offered>, found: &BTreeMap<String, Offered>| {
            said.len() == found.len()
                && said.iter().zip(found).all(|((of, (items, attempt)), (found_of, (found_items, tried)))| {
                    of == found_of && items == found_items && counts(*attempt, *tried)
                })
        };
        let work = |said: &[Activity], found: &[Activity]| {
            said.len() == found.len()
                && said.iter().zip(found).all(|((id, item, attempt), (found_id, found_item, tried))| {
                    id == found_id && item == found_item && counts(*attempt, *tried)
                })
        };
        self.instances == found.instances
            && turns(&self.turns, &found.turns)
            && turns(&self.later_turns, &found.later_turns)
            && work(&self.work, &found.work)
            && work(&self.later_work, &found.later_work)
    }
}

impl Book {
    pub(crate) fn message(&mut self, instance: &str, item: WorkItem, due_ms: u64) {
        self.next += 1;
        self.messages.insert(self.next, (instance.into(), Waiting::new(item, due_ms)));
    }

    pub(crate) fn work(&mut self, item: WorkItem) {
        self.next += 1;
        self.work.insert(self.next, Waiting::new(item, AT_ONCE));
    }

    /// Counts an attempt for everything a turn of the instance gets; returns what that is.
    pub(crate) fn try_turn(&mut self, instance: &str, now_ms: u64) -> Vec<u64> {
        let due = |(of, waiting): &(String, Waiting)| of == instance && waiting.due_ms <= now_ms;
        let due: Vec<u64> = self.messages.iter().filter(|(_, m)| due(m)).map(|(no, _)| *no).collect();
        for no in &due {
            self.messages.entry(*no).and_modify(|(_, waiting)| waiting.deliver());
        }
        due
    }

    /// Counts an attempt for an activity; returns which that is.
    pub(crate) fn try_work(&mut self, activity: &WorkItem) -> u64 {
        let found = self.work.iter_mut().find(|(_, waiting)| waiting.item == *activity);
        let (no, waiting) = found.expect("the load knows its activities");
        waiting.deliver();
        *no
    }

    pub(crate) fn put_off_turn(&mut self, messages: &[u64], due_ms: u64) {
        for no in messages {
            self.messages.entry(*no).and_modify(|(_, waiting)| waiting.due_ms = due_ms);
        }
    }

    pub(crate) fn put_off_work(&mut self, no: u64, due_ms: u64) {
        self.work.entry(no).and_modify(|waiting| waiting.due_ms = due_ms);
    }

    pub(crate) fn untry_work(&mut self, no: u64) {
        self.work.entry(no).and_modify(|waiting| waiting.attempt -= 1);
    }

    pub(crate) fn work_done(&mut self, no: u64) {
        self.work.remove(&no);
    }

    pub(crate) fn turn_done(&mut self, instance: &str, messages: &[u64], turn: &Turn) {
        for no in messages {
            self.messages.remove(no);
        }
        let kept = self.instances.entry(instance.into()).or_default();
        if let Some(parent) = &turn.metadata.parent_instance_id {
            kept.parent = Some(parent.clone());
        }
        let execution = kept.executions.entry(turn.execution).or_default();
        execution.events.extend(turn.history.iter().cloned());
        if execution.status.is_empty() {
            execution.status = "Running".into();
        }
        if let Some(status) = &turn.metadata.status {
            execution.status.clone_from(status);
            execution.output.clone_from(&turn.metadata.output);
        }
        for event in &turn.history {
            kept.note(event);
        }
        for cancelled in &turn.cancelled {
            self.work.retain(|_, waiting| {
                let WorkItem::ActivityExecute { instance, execution_id, id, .. } = &waiting.item else {
                    return true;
                };
                (instance, *execution_id, *id)
                    != (&cancelled.instance, cancelled.execution_id, cancelled.activity_id)
            });
        }
        for item in &turn.work {
            self.work(item.clone());
        }
        for item in &turn.messages {
            let (to, due_ms) = match item {
                WorkItem::TimerFired { instance, fire_at_ms, .. } => (instance, *fire_at_ms),
                WorkItem::StartOrchestration { instance, .. } | WorkItem::ContinueAsNew { instance, .. } => {
                    (instance, AT_ONCE)
                }
                other => panic!("this load sends no {other:?}"),
            };
            self.message(&to.clone(), item.clone(), due_ms);
        }
    }

    pub(crate) fn delete(&mut self, instance: &str) {
        self.instances.remove(instance);
        self.messages.retain(|_, (of, _)| of != instance);
        let of = |item: &WorkItem| match item {
            WorkItem::ActivityExecute { instance, .. } => instance.clone(),
            other => panic!("{other:?} is no activity"),
        };
        self.work.retain(|_, waiting| of(&waiting.item) != instance);
    }

    pub(crate) fn prune(&mut self, instance: &str, execution: u64) {
        self.instances.entry(instance.into()).and_modify(|kept| drop(kept.executions.remove(&execution)));
    }

    /// What somebody sees who looks at `now_ms` and once more when everything is due.
    pub(crate) fn picture(&self, now_ms: u64) -> Picture {
        let turns = |later: bool| {
            let mut turns: BTreeMap<String, Offered> = BTreeMap::new();
            for (of, waiting) in self.messages.values().filter(|(_, m)| (m.due_ms > now_ms) == later) {
                let (items, attempt) = turns.entry(of.clone()).or_default();
                items.push(waiting.item.clone());
                *attempt = (*attempt).max(waiting.attempt + 1);
            }
            turns
        };
        let work = |later: bool| {
            let waiting = self.work.values().filter(|waiting| (waiting.due_ms > now_ms) == later);
            let mut work: Vec<_> = waiting.map(|waiting| seen(&waiting.item, waiting.attempt + 1)).collect();
            work.sort();
            work
        };
        Picture {
            instances: self.instances.clone(),
            turns: turns(false),
            later_turns: turns(true),
            work: work(false),
            later_work: work(true),
        }
    }
}

impl Instance {
    fn note(&mut self, event: &Event) {
        use duroxide::EventKind::{CustomStatusUpdated, KeyValueCleared, KeyValueSet};
        match &event.kind {
            KeyValueSet { key, value, .. } => {
                self.values.insert(key.clone(), value.clone());
            }
            KeyValueCleared { key } => {
                self.values.remove(key);
            }
            CustomStatusUpdated { status } => {
                let version = self.status.as_ref().map_or(0, |(_, version)| *version);
                self.status = Some((status.clone(), version + 1));
            }
            _ => {}
        }
    }
}

fn seen(item: &WorkItem, attempt: u32) -> Activity {
    (id_of(item), format!("{item:?}"), attempt)
}

/// Looks at everything through the engine's interface: reads what can be read, and takes what can be taken,
/// now and once more when everything is due.
pub(crate) async fn take(forebay: &Forebay, clock: &ManualClock) -> Picture {
    let mut picture = Picture::default();
    for id in bounded(forebay.list_instances()).await.expect("they are listed") {
        picture.instances.insert(id.clone(), instance(forebay, &id).await);
    }
    (picture.turns, picture.work) = drain(forebay).await;
    clock.advance(FAR);
    (picture.later_turns, picture.later_work) = drain(forebay).await;
    picture
}

async fn drain(forebay: &Forebay) -> (BTreeMap<String, Offered>, Vec<Activity>) {
    let (mut turns, mut work) = (BTreeMap::new(), Vec::new());
    while let Some(turn) = fetch(forebay).await {
        assert_eq!(turn.item.history_error, None);
        // Acknowledged, because a leased instance is not offered again when more of it falls due.
        let mut done = Turn::starting(&turn.item.instance, turn.item.execution_id);
        done.history.clear();
        bounded(done.ack(forebay, &turn.token)).await.expect("it is acknowledged");
        turns.insert(turn.item.instance, (turn.item.messages, turn.attempt));
    }
    while let Some(activity) = fetch_work(forebay).await {
        work.push(seen(&activity.item, activity.attempt));
        bounded(forebay.ack_work_item(&activity.token, None)).await.expect("it is acknowledged");
    }
    work.sort();
    (turns, work)
}

async fn instance(forebay: &Forebay, id: &str) -> Instance {
    let mut found = Instance {
        parent: bounded(forebay.get_parent_id(id)).await.expect("it is there"),
        values: bounded(forebay.get_kv_all_values(id)).await.expect("they are read").into_iter().collect(),
        status: bounded(forebay.get_custom_status(id, 0)).await.expect("it is read"),
        ..Instance::default()
    };
    for execution in bounded(forebay.list_executions(id)).await.expect("they are listed") {
        let info = bounded(forebay.get_execution_info(id, execution)).await.expect("it is there");
        let events = bounded(forebay.read_with_execution(id, execution)).await.expect("it decodes");
        assert_eq!(info.event_count, events.len(), "as many events as are counted");
        found.executions.insert(execution, Execution { status: info.status, output: info.output, events });
    }
    found
}
