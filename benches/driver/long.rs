//! One orchestration with a long history: what a turn costs as the history grows.
//!
//! A turn is the time from one durable acknowledgement of the orchestration to the next: the activity, its
//! completion, the fetch with the whole history, the replay, and the write. duroxide reads the history once
//! more for every activity, so even the runtime's own cost grows with it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use duroxide::Client;
use tokio::time::timeout;

use super::figures::{self, milliseconds};
use super::flows;
use super::job::{LongHistory, Outcome, rounded};
use super::load::set_errors;
use super::observe::Observer;
use super::observed::Observed;
use super::subject::{Problem, Store};

/// Points of the curve at most; each is the median of the turns between two.
const POINTS_MAX: usize = 100;

const SHUTDOWN_MS: u64 = 2000;

pub(crate) async fn run(store: &dyn Store, long: &LongHistory) -> Result<Outcome, Problem> {
    let observer = Observer::of_turns();
    let provider = Observed::around(store.provider(), &observer);
    let runtime = flows::start(Arc::clone(&provider), 1).await;
    let client = Client::new(provider);

    let begun = Instant::now();
    let ended = observer.follow("long");
    client.start_orchestration("long", flows::SEQUENCE, long.activities.to_string()).await?;
    // Cut off or not, the turns so far are the result.
    let completed = timeout(Duration::from_secs_f64(long.seconds_max), ended).await.is_ok();
    let elapsed = begun.elapsed();
    runtime.shutdown(Some(SHUTDOWN_MS)).await;

    let mut outcome = Outcome::default();
    outcome.set(figures::SECONDS, elapsed.as_secs_f64());
    outcome.set(figures::COMPLETED, if completed { 1.0 } else { 0.0 });
    set_errors(&mut outcome, &observer);
    set_turns(&mut outcome, &observer.turns());
    Ok(outcome)
}

fn set_turns(outcome: &mut Outcome, turns: &[(Instant, u64)]) {
    let costs: Vec<(u64, Duration)> =
        turns.windows(2).map(|pair| (pair[1].1, pair[1].0 - pair[0].0)).collect();
    outcome.set(figures::TURNS, turns.len() as f64);
    let tenth = costs.len().div_ceil(10);
    outcome.set(figures::FIRST_TURN_MS, median_ms(&costs[..tenth]));
    outcome.set(figures::LAST_TURN_MS, median_ms(&costs[costs.len() - tenth..]));
    let step = costs.len().div_ceil(POINTS_MAX).max(1);
    let point = |turns: &[(u64, Duration)]| Some((turns.last()?.0 as f64, median_ms(turns)));
    outcome.curves.insert(figures::TURN_CURVE.into(), costs.chunks(step).filter_map(point).collect());
}

fn median_ms(turns: &[(u64, Duration)]) -> f64 {
    let mut costs: Vec<Duration> = turns.iter().map(|(_, cost)| *cost).collect();
    costs.sort_unstable();
    costs.get(costs.len() / 2).map_or(f64::NAN, |cost| rounded(milliseconds(*cost)))
}
