//! A fixed number of orchestrations in flight: fan-out of 5 activities that do nothing.
//!
//! Every slot submits, waits for the durable end, and submits again; nothing is polled, so the driver is
//! never the limit. What ends inside the window counts, whenever it was submitted.

use std::sync::Arc;
use std::time::{Duration, Instant};

use duroxide::Client;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::figures::{self, milliseconds};
use super::job::{Load, Outcome};
use super::observe::{Ended, Observer};
use super::observed::Observed;
use super::subject::{Counters, Problem, Store};
use super::{flows, process};

/// How often it is looked whether enough orchestrations have ended.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How long a slot waits after the subject refused a submission. Short, because a refusal is the subject's
/// failure, which shows in its errors, and not a pause it should gain from.
const REFUSED_PAUSE: Duration = Duration::from_millis(5);

/// How long, in milliseconds, dispatchers may finish what they hold after the window.
const SHUTDOWN_MS: u64 = 2000;

/// State at one edge of the window.
struct Edge {
    at: Instant,
    counters: Option<Counters>,
    cpu: Option<Duration>,
    ended: usize,
}

impl Edge {
    fn now(store: &dyn Store, observer: &Observer) -> Self {
        Self {
            at: Instant::now(),
            counters: store.counters(),
            cpu: process::cpu_time(),
            ended: observer.ended_count(),
        }
    }
}

pub(crate) async fn run(store: &dyn Store, load: &Load) -> Result<Outcome, Problem> {
    let observer = Observer::new();
    let provider = Observed::around(store.provider(), &observer);
    let runtime = flows::start(Arc::clone(&provider), load.dispatchers).await;
    let client = Arc::new(Client::new(provider));

    let mut slots = JoinSet::new();
    for slot in 0..load.in_flight {
        slots.spawn(keep_one_in_flight(Arc::clone(&client), Arc::clone(&observer), slot));
    }
    sleep(Duration::from_secs_f64(load.warm_up_s)).await;
    let open = Edge::now(store, &observer);
    let deadline = open.at + Duration::from_secs_f64(load.seconds);
    let completions_max = load.completions_max.unwrap_or(usize::MAX);
    while Instant::now() < deadline && observer.ended_count() - open.ended < completions_max {
        sleep(LOOK_EVERY.min(deadline.saturating_duration_since(Instant::now()))).await;
    }
    let close = Edge::now(store, &observer);
    slots.shutdown().await;
    runtime.shutdown(Some(SHUTDOWN_MS)).await;
    Ok(outcome(&observer, &open, &close))
}

async fn keep_one_in_flight(client: Arc<Client>, observer: Arc<Observer>, slot: usize) {
    // A file may have been measured before: an instance by the same name would be finished already.
    let process = std::process::id();
    for round in 0_u64.. {
        let instance = format!("load-{process}-{slot}-{round}");
        let ended = observer.follow(&instance);
        let submit = || client.start_orchestration(&instance, flows::FAN_OUT, flows::fan_out_input());
        while submit().await.is_err() {
            sleep(REFUSED_PAUSE).await;
        }
        // The observer lives as long as this task: it is never gone before it answers.
        if ended.await.is_err() {
            break;
        }
    }
}

fn outcome(observer: &Observer, open: &Edge, close: &Edge) -> Outcome {
    let inside = |ended: &Ended| ended.at >= open.at && ended.at < close.at;
    let ended: Vec<Ended> = observer.ended().into_iter().filter(inside).collect();
    let mut latencies: Vec<Duration> =
        ended.iter().filter(|ended| ended.completed).map(|ended| ended.latency).collect();
    let completed = latencies.len() as f64;
    let failed = ended.len() as f64 - completed;
    let elapsed = close.at - open.at;

    let mut outcome = Outcome::default();
    outcome.set(figures::COMPLETED, completed);
    outcome.set(figures::THROUGHPUT, completed / elapsed.as_secs_f64());
    let activities = completed * flows::TASKS as f64;
    outcome.set(figures::ACTIVITY_THROUGHPUT, activities / elapsed.as_secs_f64());
    outcome.set(figures::ELAPSED_OVER_COUNT_MS, milliseconds(elapsed) / completed);
    outcome.set(figures::SUCCESS_RATE, 100.0 * completed / (completed + failed));
    figures::set_latencies(&mut outcome, &mut latencies);
    set_errors(&mut outcome, observer);
    if let Some((open, close)) = open.counters.zip(close.counters) {
        let operations = (close.operations - open.operations) as f64;
        outcome.set(figures::OPERATIONS_A_BATCH, operations / (close.batches - open.batches) as f64);
        outcome.set(figures::COMMITS_AN_ORCHESTRATION, (close.commits - open.commits) as f64 / completed);
        let log_bytes = (close.log_bytes - open.log_bytes) as f64;
        outcome.set(figures::LOG_BYTES_AN_ORCHESTRATION, log_bytes / completed);
    }
    if let Some((open, close)) = open.cpu.zip(close.cpu) {
        outcome.set(figures::CPU_US_AN_ORCHESTRATION, (close - open).as_secs_f64() * 1e6 / completed);
    }
    outcome
}

/// What the provider refused from the first call to the last, warm-up and shutdown included.
pub(crate) fn set_errors(outcome: &mut Outcome, observer: &Observer) {
    let (retryable, permanent) = observer.errors();
    outcome.set(figures::RETRYABLE_ERRORS, retryable as f64);
    outcome.set(figures::PERMANENT_ERRORS, permanent as f64);
}
