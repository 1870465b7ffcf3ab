//! What a scenario watches and holds: a count of runs, a gate, and waiting for a condition.
//!
//! Nothing here sleeps to let something happen: a wait names its condition and fails after `PATIENCE`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use duroxide::ActivityContext;
use tokio::sync::Semaphore;

/// How long anything may take before its absence is a failure. Shorter than the runtime's long poll of
/// thirty seconds, so a wake-up that is lost and later made good by the poll's own end still fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a scenario; one that takes this long hangs.
pub(crate) async fn in_time(scenario: impl Future<Output = ()>) {
    tokio::time::timeout(Duration::from_secs(90), scenario).await.expect("it hangs");
}

/// Asks `condition` until it answers.
pub(crate) async fn until<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = condition().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until `condition` holds.
pub(crate) async fn holds(what: &str, mut condition: impl FnMut() -> bool) {
    until(what, async || condition().then_some(())).await;
}

/// Milliseconds since the epoch, the unit of duroxide's timers and time stamps.
pub(crate) fn now_ms() -> u64 {
    std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64
}

/// How often each thing ran, whichever runtime ran it.
#[derive(Clone, Default)]
pub(crate) struct Tally(Arc<Mutex<BTreeMap<String, usize>>>);

impl Tally {
    /// Counts one run and says which one it was, from 1.
    pub(crate) fn note(&self, what: &str) -> usize {
        let mut counts = self.0.lock().unwrap();
        let count = counts.entry(what.to_string()).or_default();
        *count += 1;
        *count
    }

    pub(crate) fn of(&self, what: &str) -> usize {
        self.0.lock().unwrap().get(what).copied().unwrap_or(0)
    }

    pub(crate) fn total(&self) -> usize {
        self.0.lock().unwrap().values().sum()
    }

    pub(crate) fn counts(&self) -> BTreeMap<String, usize> {
        self.0.lock().unwrap().clone()
    }
}

/// Shut until opened, then open for good.
#[derive(Clone)]
pub(crate) struct Gate(Arc<Semaphore>);

impl Gate {
    pub(crate) fn shut() -> Gate {
        Gate(Arc::new(Semaphore::new(0)))
    }

    pub(crate) fn open(&self) {
        self.0.close();
    }

    pub(crate) async fn pass(&self) {
        assert!(self.0.acquire().await.is_err(), "a gate holds no permits: it is shut or closed for good");
    }
}

/// An activity handler with something of the scenario's in its hands.
pub(crate) fn with<S, F, Fut>(
    state: &S,
    run: F,
) -> impl Fn(ActivityContext, String) -> Fut + Send + Sync + 'static
where
    S: Clone + Send + Sync + 'static,
    F: Fn(S, ActivityContext, String) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<String, String>> + Send + 'static,
{
    let state = state.clone();
    move |ctx, input| run(state.clone(), ctx, input)
}
