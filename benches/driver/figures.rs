//! The names of the numbers an [`Outcome`] holds, and how latencies become some of them.

use std::time::Duration;

use super::job::{Outcome, rounded};

/// Orchestrations a second; transactions a second for `Writer`.
pub(crate) const THROUGHPUT: &str = "throughput";
pub(crate) const ACTIVITY_THROUGHPUT: &str = "activity_throughput";
/// Elapsed time divided by the number of completions: what duroxide's stress test calls latency.
pub(crate) const ELAPSED_OVER_COUNT_MS: &str = "elapsed_over_count_ms";
/// Completed of all that were started, in percent.
pub(crate) const SUCCESS_RATE: &str = "success_rate";
/// Orchestrations that failed because the storage did.
pub(crate) const INFRASTRUCTURE_FAILURES: &str = "infrastructure_failures";
pub(crate) const COMPLETED: &str = "completed";
/// Calls of the provider that returned an error, by its kind.
pub(crate) const RETRYABLE_ERRORS: &str = "retryable_errors";
pub(crate) const PERMANENT_ERRORS: &str = "permanent_errors";
/// From submission to durable completion.
pub(crate) const P50_MS: &str = "p50_ms";
pub(crate) const P99_MS: &str = "p99_ms";
pub(crate) const P999_MS: &str = "p999_ms";
pub(crate) const MAX_MS: &str = "max_ms";
pub(crate) const OPERATIONS_A_BATCH: &str = "operations_a_batch";
pub(crate) const COMMITS_AN_ORCHESTRATION: &str = "commits_an_orchestration";
pub(crate) const LOG_BYTES_AN_ORCHESTRATION: &str = "log_bytes_an_orchestration";
/// Time of all threads of the process, driver and runtime included.
pub(crate) const CPU_US_AN_ORCHESTRATION: &str = "cpu_us_an_orchestration";
pub(crate) const PEAK_MEMORY_MB: &str = "peak_memory_mb";
/// Once the subject is open and idle.
pub(crate) const OPEN_MEMORY_MB: &str = "open_memory_mb";
pub(crate) const OPEN_MS: &str = "open_ms";
pub(crate) const FILE_MB: &str = "file_mb";
pub(crate) const TURNS: &str = "turns";
pub(crate) const SECONDS: &str = "seconds";
/// The median cost of a turn in the first and in the last tenth of the history.
pub(crate) const FIRST_TURN_MS: &str = "first_turn_ms";
pub(crate) const LAST_TURN_MS: &str = "last_turn_ms";

/// Points of (quantile, milliseconds).
pub(crate) const LATENCY_CURVE: &str = "latency";
/// Points of (events in the history, milliseconds a turn).
pub(crate) const TURN_CURVE: &str = "turn_cost";

/// Below so many samples a quantile is chance, and is left out.
const SAMPLES_FOR_P99: usize = 100;
const SAMPLES_FOR_P999: usize = 1000;

/// Percentiles and the curve of their distribution.
pub(crate) fn set_latencies(outcome: &mut Outcome, latencies: &mut [Duration]) {
    latencies.sort_unstable();
    let Some(longest) = latencies.last() else { return };
    outcome.set(MAX_MS, milliseconds(*longest));
    outcome.set(P50_MS, quantile_ms(latencies, 0.5));
    if latencies.len() >= SAMPLES_FOR_P99 {
        outcome.set(P99_MS, quantile_ms(latencies, 0.99));
    }
    if latencies.len() >= SAMPLES_FOR_P999 {
        outcome.set(P999_MS, quantile_ms(latencies, 0.999));
    }
    let upto = 1.0 - 1.0 / latencies.len() as f64;
    let curve = quantiles().filter(|q| *q <= upto).map(|q| (rounded(q), quantile_ms(latencies, q))).collect();
    outcome.curves.insert(LATENCY_CURVE.into(), curve);
}

/// Every two percent, then denser and denser towards the tail.
fn quantiles() -> impl Iterator<Item = f64> {
    let body = (0..=44).map(|step| f64::from(step) * 0.02);
    let tail = (4..=16).map(|step| 1.0 - 10f64.powf(-f64::from(step) / 4.0));
    body.chain(tail)
}

/// Of sorted durations; the nearest rank.
fn quantile_ms(sorted: &[Duration], quantile: f64) -> f64 {
    let rank = (quantile * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).map_or(f64::NAN, |at| rounded(milliseconds(*at)))
}

pub(crate) fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
