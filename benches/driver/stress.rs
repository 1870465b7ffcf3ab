//! duroxide's own stress tests, run as they are.
//!
//! Their "latency" is elapsed time divided by completions. The real one, from submission to durable
//! completion, is observed beside it and stands in `results.json`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use duroxide::provider_stress_tests::large_payload::{
    LargePayloadConfig, run_large_payload_test_with_config,
};
use duroxide::provider_stress_tests::parallel_orchestrations::{
    ProviderStressFactory, run_parallel_orchestrations_test_with_config,
};
use duroxide::provider_stress_tests::{StressTestConfig, StressTestResult};
use duroxide::providers::Provider;

use super::figures;
use super::job::{LargePayload, Outcome, Stress};
use super::load::set_errors;
use super::observe::Observer;
use super::observed::Observed;
use super::subject::{Problem, Store};

/// Hands the tests the one provider that is measured.
struct Only(Arc<dyn Provider>);

#[async_trait]
impl ProviderStressFactory for Only {
    async fn create_provider(&self) -> Arc<dyn Provider> {
        Arc::clone(&self.0)
    }
}

/// Fan-out of 5 activities of 10 ms, 20 in flight: the defaults of the test, and the starting report's work.
pub(crate) async fn parallel(store: &dyn Store, stress: &Stress) -> Result<Outcome, Problem> {
    let config = StressTestConfig {
        duration_secs: stress.seconds,
        orch_concurrency: stress.dispatchers,
        worker_concurrency: stress.dispatchers,
        ..StressTestConfig::default()
    };
    let observer = Observer::new();
    let factory = Only(Observed::around(store.provider(), &observer));
    let result = run_parallel_orchestrations_test_with_config(&factory, config).await;
    Ok(outcome(&result.map_err(|error| format!("{error:#}"))?, &observer))
}

/// Payloads of 10 to 100 KB, 1/1, 5 in flight.
pub(crate) async fn large_payload(store: &dyn Store, payload: &LargePayload) -> Result<Outcome, Problem> {
    let mut config = LargePayloadConfig {
        activity_count: payload.activities,
        sub_orch_count: payload.sub_orchestrations,
        ..LargePayloadConfig::default()
    };
    config.base.duration_secs = payload.seconds;
    let observer = Observer::new();
    let factory = Only(Observed::around(store.provider(), &observer));
    let result = run_large_payload_test_with_config(&factory, config).await;
    let mut outcome = outcome(&result.map_err(|error| format!("{error:#}"))?, &observer);
    // It counts the tasks of the other test, which this one does not run.
    outcome.figures.remove(figures::ACTIVITY_THROUGHPUT);
    Ok(outcome)
}

fn outcome(result: &StressTestResult, observer: &Observer) -> Outcome {
    let mut outcome = Outcome::default();
    outcome.set(figures::COMPLETED, result.completed as f64);
    outcome.set(figures::SECONDS, result.total_time.as_secs_f64());
    outcome.set(figures::THROUGHPUT, result.orch_throughput);
    outcome.set(figures::ACTIVITY_THROUGHPUT, result.activity_throughput);
    outcome.set(figures::ELAPSED_OVER_COUNT_MS, result.avg_latency_ms);
    outcome.set(figures::SUCCESS_RATE, result.success_rate());
    outcome.set(figures::INFRASTRUCTURE_FAILURES, result.failed_infrastructure as f64);
    let ended = observer.ended();
    let mut latencies: Vec<Duration> =
        ended.iter().filter(|ended| ended.completed).map(|ended| ended.latency).collect();
    figures::set_latencies(&mut outcome, &mut latencies);
    set_errors(&mut outcome, observer);
    outcome
}
