//! What a file must come to by itself, whatever anybody was told: each thing that a turn set going is in exactly
//! one place. It waits in a queue, or its result does, or the result is in the history: were a turn there by
//! halves, something would be in none of these places or in two.

use duroxide::EventKind;
use duroxide::providers::WorkItem;

use crate::found::{Execution, Found, Instance};
use crate::orders::{self, LETTERS};
use crate::reporting::activity_of;

/// Something set going by an event of a history: instance, execution, event.
type Cause<'a> = (&'a str, u64, u64);

/// What is wrong with the file.
pub(crate) fn check(found: &Found) -> Vec<String> {
    let mut wrong = found.unsound.clone();
    for (id, instance) in &found.instances {
        values(id, instance, &mut wrong);
        for (number, execution) in &instance.executions {
            ends(id, *number, instance, execution, found, &mut wrong);
            let ids = execution.events.iter().map(|event| event.event_id);
            if !ids.eq(1..=execution.events.len() as u64) {
                wrong.push(format!("HOLE in execution {number} of {id}"));
            }
            for event in &execution.events {
                let cause = (id.as_str(), *number, event.event_id);
                let places = match &event.kind {
                    EventKind::ActivityScheduled { .. } => activity_places(found, execution, cause),
                    EventKind::TimerCreated { .. } => timer_places(found, execution, cause),
                    EventKind::SubOrchestrationScheduled { instance: child, .. } => {
                        child_places(found, execution, cause, &child_id(id, child))
                    }
                    _ => continue,
                };
                if places.len() != 1 {
                    wrong.push(format!("HALF: {:?} of {cause:?} is {places:?}", event.kind));
                }
            }
        }
        if orders::number(id).is_some() {
            for letter in LETTERS.iter().filter(|letter| found.letters(id, letter) > 1) {
                wrong.push(format!("TWICE: letter {letter} to {id}"));
            }
        }
    }
    for (item, _) in &found.work {
        let of = activity_of(item);
        let execution = found.instances.get(&of.instance).and_then(|it| it.executions.get(&of.execution));
        if execution.is_none_or(|it| !it.events.iter().any(|event| event.event_id == of.id)) {
            wrong.push(format!("HALF: nothing scheduled {item:?}"));
        }
    }
    wrong
}

/// The value and the status of an order come with the turns that set them.
fn values(id: &str, instance: &Instance, wrong: &mut Vec<String>) {
    let set = |event: &duroxide::Event| matches!(event.kind, EventKind::KeyValueSet { .. });
    let said = |event: &duroxide::Event| matches!(event.kind, EventKind::CustomStatusUpdated { .. });
    let expected = orders::number(id).filter(|_| instance.events().any(set)).map(orders::sum);
    if instance.values.get("sum") != expected.map(|sum| sum.to_string()).as_ref() {
        wrong.push(format!("HALF: the values of {id} are {:?}", instance.values));
    }
    if instance.status.as_deref() != instance.events().any(said).then_some(orders::STATUS) {
        wrong.push(format!("HALF: the status of {id} is {:?}", instance.status));
    }
}

/// The status of an execution says what its last event does, and one that continues has its next.
fn ends(id: &str, no: u64, instance: &Instance, it: &Execution, found: &Found, wrong: &mut Vec<String>) {
    let (status, output) = match it.events.last().map(|event| &event.kind) {
        Some(EventKind::OrchestrationCompleted { output }) => ("Completed", Some(output)),
        Some(EventKind::OrchestrationContinuedAsNew { input }) => ("ContinuedAsNew", Some(input)),
        Some(EventKind::OrchestrationFailed { .. }) => ("Failed", None),
        _ => ("Running", None),
    };
    if it.status != status || (status != "Failed" && it.output.as_ref() != output) {
        wrong.push(format!("HALF: execution {no} of {id} is {} {:?}", it.status, it.output));
    }
    let continues =
        |item: &&WorkItem| matches!(item, WorkItem::ContinueAsNew { instance, .. } if instance == id);
    let waits = found.messages().filter(continues).count();
    let follows = usize::from(instance.executions.contains_key(&(no + 1)));
    let expected = usize::from(status == "ContinuedAsNew");
    // The message of the newest execution is no business of an older one.
    let waits = if no == instance.current { waits } else { 0 };
    if waits + follows != expected {
        wrong.push(format!("HALF: execution {no} of {id} is {status}, {waits} next wait, {follows} follow"));
    }
    if no > instance.current {
        wrong.push(format!("HALF: {id} has execution {no} and is at {}", instance.current));
    }
}

fn recorded<'a>(
    it: &'a Execution,
    (_, _, id): Cause<'_>,
    kind: fn(&EventKind) -> bool,
) -> impl Iterator<Item = &'static str> + 'a {
    let answers =
        it.events.iter().filter(move |event| event.source_event_id == Some(id) && kind(&event.kind));
    answers.map(|_| "recorded")
}

fn activity_places(found: &Found, it: &Execution, cause: Cause<'_>) -> Vec<&'static str> {
    let waits = |(item, _): &&(WorkItem, u32)| {
        let of = activity_of(item);
        (of.instance.as_str(), of.execution, of.id) == cause
    };
    let answered = |item: &&WorkItem| match item {
        WorkItem::ActivityCompleted { instance, execution_id, id, .. } => {
            (instance.as_str(), *execution_id, *id) == cause
        }
        _ => false,
    };
    let waiting = found.work.iter().filter(waits).map(|_| "waiting");
    let answered = found.messages().filter(answered).map(|_| "answered");
    let recorded = recorded(it, cause, |kind| matches!(kind, EventKind::ActivityCompleted { .. }));
    waiting.chain(answered).chain(recorded).collect()
}

fn timer_places(found: &Found, it: &Execution, cause: Cause<'_>) -> Vec<&'static str> {
    let waits = |item: &&WorkItem| match item {
        WorkItem::TimerFired { instance, execution_id, id, .. } => {
            (instance.as_str(), *execution_id, *id) == cause
        }
        _ => false,
    };
    let waiting = found.messages().filter(waits).map(|_| "waiting");
    waiting.chain(recorded(it, cause, |kind| matches!(kind, EventKind::TimerFired { .. }))).collect()
}

fn child_places(found: &Found, it: &Execution, cause: Cause<'_>, child: &str) -> Vec<&'static str> {
    let answered = |item: &&WorkItem| match item {
        WorkItem::SubOrchCompleted { parent_instance, parent_execution_id, parent_id, .. } => {
            (parent_instance.as_str(), *parent_execution_id, *parent_id) == cause
        }
        _ => false,
    };
    let starts = found.start_waits(child).then_some("waiting");
    let runs = found.instances.contains_key(child) && found.output(child).is_none();
    let answered = found.messages().filter(answered).map(|_| "answered");
    let recorded = recorded(it, cause, |kind| matches!(kind, EventKind::SubOrchestrationCompleted { .. }));
    starts.into_iter().chain(runs.then_some("running")).chain(answered).chain(recorded).collect()
}

/// A child without a name of its own is recorded by what follows its parent's.
fn child_id(parent: &str, recorded: &str) -> String {
    if recorded.starts_with("sub::") { format!("{parent}::{recorded}") } else { recorded.to_owned() }
}
