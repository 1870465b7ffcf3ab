//! The proof: reads every order's history from the file and holds it against what must be there.
//!
//! For each order 1..=N there is one instance with one execution, one end, and in it the receipt that
//! follows from the number; each activity it scheduled completed once; and beside the orders there are
//! their shipments, the run, and nothing else.

use std::collections::{HashMap, HashSet};
use std::fmt;

use duroxide::{Client, Event, EventKind};
use indicatif::HumanCount;
use tokio::task::JoinSet;

use crate::Error;
use crate::flow;

/// Orders are independent, so a few tasks share them; more would only wait for the same file.
const READERS: u64 = 4;
/// Of a thousand wrong orders, the first few say what is wrong.
const SHOWN_MAX: usize = 10;

enum Fault {
    /// Not there, or not ended.
    Lost(String),
    /// Ended, but not with its receipt.
    Different(String),
    /// Something happened more than once.
    Repeated(String),
    /// An instance nobody asked for.
    Stranger,
}

pub struct Verdict {
    orders: u64,
    /// By instance.
    faults: Vec<(String, Fault)>,
}

impl Verdict {
    pub fn is_clean(&self) -> bool {
        self.faults.is_empty()
    }
}

pub async fn verify(client: &Client, orders: u64) -> Result<Verdict, Error> {
    let mut strangers: HashSet<String> = client.list_all_instances().await?.into_iter().collect();
    strangers.remove(flow::RUN_ID);
    let mut faults = Vec::new();
    let mut present = HashSet::new();
    for order in 1..=orders {
        for id in [flow::order_id(order), flow::shipment_id(order)] {
            if !strangers.remove(&id) {
                faults.push((id, Fault::Lost("is not in the store".into())));
            } else if flow::order_of(&id).is_some() {
                present.insert(order);
            }
        }
    }
    faults.extend(strangers.into_iter().map(|id| (id, Fault::Stranger)));

    let mut readers = JoinSet::new();
    for reader in 0..READERS {
        let share: Vec<u64> = present.iter().copied().filter(|order| order % READERS == reader).collect();
        let client = client.clone();
        readers.spawn(async move {
            let mut faults = Vec::new();
            for order in share {
                let id = flow::order_id(order);
                let executions = client.list_executions(&id).await?;
                let history = client.read_execution_history(&id, duroxide::INITIAL_EXECUTION_ID).await?;
                if let Err(fault) = judge(order, &executions, &history) {
                    faults.push((id, fault));
                }
            }
            Ok::<_, Error>(faults)
        });
    }
    while let Some(found) = readers.join_next().await {
        faults.extend(found??);
    }
    faults.sort_by_key(|(id, _)| flow::order_of(id));
    Ok(Verdict { orders, faults })
}

fn judge(order: u64, executions: &[u64], history: &[Event]) -> Result<(), Fault> {
    if executions.len() > 1 {
        return Err(Fault::Repeated(format!("has executions {executions:?}")));
    }
    let mut ends = 0;
    let mut shipments = 0;
    // How often each activity completed, by the event that scheduled it.
    let mut activities: HashMap<u64, usize> = HashMap::new();
    for event in history {
        match &event.kind {
            EventKind::OrchestrationCompleted { output } => {
                ends += 1;
                let expected = flow::receipt(order);
                if *output != expected {
                    return Err(Fault::Different(format!("ended with {output:?} instead of {expected:?}")));
                }
            }
            EventKind::OrchestrationFailed { details } => {
                return Err(Fault::Different(format!("failed: {}", details.display_message())));
            }
            EventKind::ActivityScheduled { .. } => {
                activities.entry(event.event_id).or_insert(0);
            }
            EventKind::ActivityCompleted { .. } => {
                *activities.entry(event.source_event_id.unwrap_or_default()).or_default() += 1;
            }
            EventKind::SubOrchestrationCompleted { .. } => shipments += 1,
            _ => {}
        }
    }
    match ends {
        0 => return Err(Fault::Lost("has not ended".into())),
        1 => {}
        _ => return Err(Fault::Repeated(format!("ended {ends} times"))),
    }
    // It ended with the right receipt, so no step is missing; what is left to exclude is one too many.
    if shipments != 1
        || activities.len() != flow::ORDER_ACTIVITIES
        || activities.values().any(|&times| times != 1)
    {
        return Err(Fault::Repeated(format!("has {shipments} shipments and activities {activities:?}")));
    }
    Ok(())
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count =
            |wanted: fn(&Fault) -> bool| self.faults.iter().filter(|(_, fault)| wanted(fault)).count();
        let tally = format!(
            "{} lost, {} with a different end, {} repeated, {} unknown instances",
            count(|fault| matches!(fault, Fault::Lost(_))),
            count(|fault| matches!(fault, Fault::Different(_))),
            count(|fault| matches!(fault, Fault::Repeated(_))),
            count(|fault| matches!(fault, Fault::Stranger)),
        );
        let orders = HumanCount(self.orders);
        if self.is_clean() {
            return writeln!(
                f,
                "verified: orders 1 to {orders} are each complete exactly once with the expected result; \
                 {tally}"
            );
        }
        writeln!(f, "NOT verified: of orders 1 to {orders}, {tally}")?;
        for (id, fault) in self.faults.iter().take(SHOWN_MAX) {
            match fault {
                Fault::Lost(what) | Fault::Different(what) | Fault::Repeated(what) => {
                    writeln!(f, "  {id} {what}")?
                }
                Fault::Stranger => writeln!(f, "  {id} belongs to no order")?,
            }
        }
        if self.faults.len() > SHOWN_MAX {
            writeln!(f, "  and {} more", self.faults.len() - SHOWN_MAX)?;
        }
        Ok(())
    }
}
