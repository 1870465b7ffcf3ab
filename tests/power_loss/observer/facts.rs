//! What was seen outside the engine, noted at the moment it was seen, and whether it is still true of what a loss of
//! power left.
//!
//! A fact is one that stays true once it is true: a history that was seen is a prefix of every later one. Only a
//! deletion or a pruning that somebody asked for, answered or not, takes it away.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard};

use duroxide::providers::WorkItem;
use duroxide::{Event, EventKind};

use super::found::{Found, FoundInstance};

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Fact {
    /// A client was told that its start is taken.
    StartTaken {
        instance: String,
    },
    /// A client was told that its event is taken; its data is unlike any other's.
    RaiseTaken {
        instance: String,
        data: String,
    },
    /// A client was told that an activity of no orchestration is taken.
    WorkTaken(WorkItem),
    /// An activity was started: it acts on the world.
    Started {
        instance: String,
        execution: u64,
        id: Option<u64>,
        input: String,
    },
    /// An activity was told that it is cancelled.
    Cancelled {
        instance: String,
        execution: u64,
        id: u64,
    },
    History {
        instance: String,
        execution: u64,
        events: Vec<Event>,
    },
    /// Custom status, which counts its own changes.
    Status {
        instance: String,
        version: u64,
        text: Option<String>,
    },
    /// The key-value `count`, which these loads only ever raise.
    Count {
        instance: String,
        count: u64,
    },
    Info {
        instance: String,
        execution: u64,
        status: String,
        output: Option<String>,
    },
    Latest {
        instance: String,
        execution: u64,
    },
    Listed(Vec<String>),
    Totals {
        instances: u64,
        executions: u64,
        completed: u64,
        events: u64,
    },
    /// Timers that wait; those of these loads are never due.
    Timers(usize),
    /// A client was told that it is deleted, or a reader no longer found what it had seen.
    Gone {
        instance: String,
    },
    /// A client was told that the executions before this one are pruned.
    Pruned {
        instance: String,
        below: u64,
    },
}

impl Fact {
    fn instance(&self) -> &str {
        match self {
            Fact::StartTaken { instance }
            | Fact::RaiseTaken { instance, .. }
            | Fact::Started { instance, .. }
            | Fact::Cancelled { instance, .. }
            | Fact::History { instance, .. }
            | Fact::Status { instance, .. }
            | Fact::Count { instance, .. }
            | Fact::Info { instance, .. }
            | Fact::Latest { instance, .. }
            | Fact::Gone { instance }
            | Fact::Pruned { instance, .. } => instance,
            Fact::WorkTaken(_) | Fact::Listed(_) | Fact::Totals { .. } | Fact::Timers(_) => "",
        }
    }
}

/// The observer. It is shared by everybody outside.
#[derive(Default)]
pub(crate) struct Observer {
    inner: Mutex<Seen>,
}

/// What an observer has seen.
#[derive(Default, Clone)]
pub(crate) struct Seen {
    pub(crate) facts: Vec<Fact>,
    /// Where the last of a kind about an instance is: what is seen again is not noted again.
    last: HashMap<(std::mem::Discriminant<Fact>, String), usize>,
    /// Deletions and prunings that were asked for.
    deletions: BTreeSet<String>,
    prunings: BTreeSet<String>,
    /// Activities that were handed out.
    ran: Vec<WorkItem>,
    /// Whatever was seen of these.
    known: BTreeSet<String>,
    /// What nobody should have been told.
    surprises: Vec<String>,
}

impl Observer {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(crate) fn note(&self, fact: Fact) {
        let mut seen = self.seen();
        let key = (std::mem::discriminant(&fact), fact.instance().to_owned());
        if seen.last.get(&key).is_some_and(|last| seen.facts[*last] == fact) {
            return;
        }
        if let Fact::Info { instance, .. } = &fact {
            seen.known.insert(instance.clone());
        }
        let place = seen.facts.len();
        seen.last.insert(key, place);
        seen.facts.push(fact);
    }

    pub(crate) fn ran(&self, item: &WorkItem) {
        self.seen().ran.push(item.clone());
    }

    pub(crate) fn surprised(&self, what: String) {
        self.seen().surprises.push(what);
    }

    /// To be called before it is asked for.
    pub(crate) fn deletes(&self, instance: &str) {
        self.seen().deletions.insert(instance.into());
    }

    /// To be called before it is asked for.
    pub(crate) fn prunes(&self, instance: &str) {
        self.seen().prunings.insert(instance.into());
    }

    /// Whether somebody has been told about the instance.
    pub(crate) fn knows(&self, instance: &str) -> bool {
        self.seen().known.contains(instance)
    }

    /// Everything until now.
    pub(crate) fn all(&self) -> Seen {
        self.seen().clone()
    }
}

impl Seen {
    /// Whether everything that was seen is true of what is found.
    pub(crate) fn judge(&self, found: &Found) -> Result<(), String> {
        let wrong = self.facts.iter().filter_map(|fact| {
            let what = self.check(fact, found).err()?;
            Some(format!("LOST: {what}; seen: {}", shortened(fact)))
        });
        let surprises = self.surprises.iter().map(|what| format!("SURPRISE: {what}"));
        let wrong: Vec<String> = wrong.chain(surprises).collect();
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n    ")) }
    }

    /// How many facts there are of each kind.
    pub(crate) fn kinds(&self) -> BTreeMap<String, usize> {
        let mut kinds = BTreeMap::new();
        for fact in &self.facts {
            let shown = format!("{fact:?}");
            let kind = shown.split([' ', '(']).next().unwrap_or_default();
            *kinds.entry(kind.to_owned()).or_default() += 1;
        }
        kinds
    }

    /// A child goes with its parent.
    fn may_be_gone(&self, instance: &str) -> bool {
        instance.split('/').next().is_some_and(|root| self.deletions.contains(root))
    }

    fn check(&self, fact: &Fact, found: &Found) -> Result<(), String> {
        match fact {
            Fact::WorkTaken(item) => {
                check(found.work.contains(item) || self.ran.contains(item), "the activity")
            }
            Fact::Listed(ids) => ids.iter().try_for_each(|id| {
                check(found.instances.contains_key(id) || self.may_be_gone(id), "a listed instance")
            }),
            Fact::Totals { instances, executions, completed, events } => {
                let is_less = *instances > found.totals.total_instances
                    || *executions > found.totals.total_executions
                    || *completed > found.totals.completed_instances
                    || *events > found.totals.total_events;
                let untouched = self.deletions.is_empty() && self.prunings.is_empty();
                check(!untouched || !is_less, "the totals are lower")
            }
            Fact::Timers(count) => {
                check(!self.deletions.is_empty() || *count <= found.timers, "fewer timers")
            }
            Fact::Gone { instance } => check(!found.instances.contains_key(instance), "it is there again"),
            Fact::StartTaken { instance } if found.has_start(instance) => Ok(()),
            Fact::RaiseTaken { instance, data } if found.has_raise(instance, data) => Ok(()),
            _ => match found.instances.get(fact.instance()) {
                Some(of) => self.check_instance(fact, of),
                None => check(self.may_be_gone(fact.instance()), "there is no such instance"),
            },
        }
    }

    fn check_instance(&self, fact: &Fact, of: &FoundInstance) -> Result<(), String> {
        let pruned = self.prunings.contains(fact.instance());
        match fact {
            Fact::RaiseTaken { data, .. } => {
                let takes = |kind: &EventKind| matches!(kind, EventKind::ExternalEvent { data: it, .. } if it == data);
                check(of.events().any(|event| takes(&event.kind)) || (pruned && of.is_pruned()), "the event")
            }
            Fact::Started { execution, id, input, .. } => {
                let scheduled = |event: &Event| {
                    matches!(&event.kind, EventKind::ActivityScheduled { input: it, .. }
                    if it == input && id.is_none_or(|id| id == event.event_id))
                };
                of.check_in(*execution, pruned, |events| {
                    check(events.iter().any(scheduled), "what scheduled it")
                })
            }
            Fact::Cancelled { execution, id, .. } => {
                let cancels = |event: &Event| {
                    event.source_event_id == Some(*id)
                        && matches!(event.kind, EventKind::ActivityCancelRequested { .. })
                };
                let deleted = self.may_be_gone(fact.instance());
                of.check_in(*execution, pruned, |events| {
                    check(deleted || events.iter().any(cancels), "what cancelled it")
                })
            }
            Fact::History { execution, events, .. } => of.check_in(*execution, pruned, |there| {
                check(there.starts_with(events), &format!("{} events of {}", there.len(), events.len()))
            }),
            Fact::Status { version, text, .. } => {
                let (there, now) = of.status.clone().map_or((None, 0), |(text, version)| (text, version));
                check(now > *version || (now == *version && there == *text), &format!("version {now}"))
            }
            Fact::Count { count, .. } => check(of.count >= *count, &format!("the count is {}", of.count)),
            Fact::Info { execution, status, output, .. } => {
                check(of.latest() >= *execution, "the execution")?;
                let Some(there) = of.executions.get(execution).filter(|_| status != "Running") else {
                    return Ok(());
                };
                check(there.status == *status && there.output == *output, &format!("it is {}", there.status))
            }
            Fact::Latest { execution, .. } => check(of.latest() >= *execution, "the execution"),
            Fact::Pruned { below, .. } => {
                check(!of.executions.keys().any(|no| no < below), "it is there again")
            }
            _ => Ok(()),
        }
    }
}

fn check(holds: bool, what: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what.into()) }
}

fn shortened(fact: &Fact) -> String {
    let shown = match fact {
        Fact::History { instance, execution, events } => {
            format!(
                "History of {instance}, execution {execution}, {} events, last {:?}",
                events.len(),
                events.last()
            )
        }
        other => format!("{other:?}"),
    };
    shown.chars().take(300).collect()
}
