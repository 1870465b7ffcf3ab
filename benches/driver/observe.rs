//! Sees when an orchestration is submitted and when its end can be seen, and counts what the provider
//! refuses. [`super::observed`] calls it from around every call of a subject's provider.
//!
//! Cost: two short locks of a map, and one read of one row, an orchestration: the same for every subject, and what a client
//! that waits for an end does at least. Rejected: a last activity that rings a bell (its own result is not durable yet when it rings).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use duroxide::Event;
use duroxide::providers::ProviderError;
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// How an orchestration went.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended {
    pub(crate) at: Instant,
    /// From its submission until a reader was told after its last turn.
    pub(crate) latency: Duration,
    pub(crate) completed: bool,
}

struct Flight {
    submitted: Instant,
    done: Option<oneshot::Sender<Ended>>,
}

#[derive(Default)]
pub(crate) struct Observer {
    flights: Mutex<HashMap<String, Flight>>,
    ended: Mutex<Vec<Ended>>,
    /// When a turn was acknowledged, and the last event it wrote; only if asked for.
    turns: Option<Mutex<Vec<(Instant, u64)>>>,
    retryable: AtomicU64,
    permanent: AtomicU64,
}

impl Observer {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(crate) fn of_turns() -> Arc<Self> {
        Arc::new(Self { turns: Some(Mutex::default()), ..Self::default() })
    }

    /// Call just before submitting `instance`; the receiver hears of its end.
    pub(crate) fn follow(&self, instance: &str) -> oneshot::Receiver<Ended> {
        let (done, ended) = oneshot::channel();
        let flight = Flight { submitted: Instant::now(), done: Some(done) };
        self.flights.lock().insert(instance.into(), flight);
        ended
    }

    /// A submission nobody announced is observed too: those of duroxide's own tests.
    pub(super) fn submitting(&self, instance: &str) {
        let mut flights = self.flights.lock();
        // One that is tried again keeps the time of its first try.
        if !flights.contains_key(instance) {
            flights.insert(instance.into(), Flight { submitted: Instant::now(), done: None });
        }
    }

    pub(super) fn turn_is_acknowledged(&self, last_event: u64) {
        if let Some(turns) = &self.turns {
            turns.lock().push((Instant::now(), last_event));
        }
    }

    pub(super) fn end_is_seen(&self, instance: &str, completed: bool) {
        let at = Instant::now();
        // A child of another orchestration was not submitted by anyone.
        let Some(flight) = self.flights.lock().remove(instance) else { return };
        let ended = Ended { at, latency: at - flight.submitted, completed };
        self.ended.lock().push(ended);
        if let Some(done) = flight.done {
            // Nobody listens any more once the driver has stopped.
            let _ = done.send(ended);
        }
    }

    pub(super) fn count<T>(&self, result: Result<T, ProviderError>) -> Result<T, ProviderError> {
        if let Err(error) = &result {
            let counter = if error.is_retryable() { &self.retryable } else { &self.permanent };
            counter.fetch_add(1, Ordering::Relaxed);
        }
        result
    }

    pub(crate) fn ended(&self) -> Vec<Ended> {
        self.ended.lock().clone()
    }

    pub(crate) fn ended_count(&self) -> usize {
        self.ended.lock().len()
    }

    pub(crate) fn turns(&self) -> Vec<(Instant, u64)> {
        self.turns.as_ref().map(|turns| turns.lock().clone()).unwrap_or_default()
    }

    /// Errors so far: retryable, permanent.
    pub(crate) fn errors(&self) -> (u64, u64) {
        (self.retryable.load(Ordering::Relaxed), self.permanent.load(Ordering::Relaxed))
    }
}

/// What an acknowledgement is about, read off before its arguments are handed on.
pub(super) struct Turn {
    last_event: u64,
    /// The instance that ends with it, and whether it completed.
    ends: Option<(String, bool)>,
}

impl Turn {
    pub(super) fn new(written: &[Event], status: Option<&str>) -> Self {
        let last = written.last();
        let completed = match status {
            Some("Completed") => Some(true),
            Some("Failed") => Some(false),
            _ => None,
        };
        let ends = last.zip(completed).map(|(last, completed)| (last.instance_id.clone(), completed));
        Self { last_event: last.map_or(0, |event| event.event_id), ends }
    }

    /// The instance that ends with it.
    pub(super) fn ends(&self) -> Option<String> {
        self.ends.as_ref().map(|(instance, _completed)| instance.clone())
    }

    pub(super) fn announce(self, observer: &Observer) {
        observer.turn_is_acknowledged(self.last_event);
        if let Some((instance, completed)) = self.ends {
            observer.end_is_seen(&instance, completed);
        }
    }
}
