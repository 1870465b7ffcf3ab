//! The orchestrations and activities of every work but duroxide's own tests.
//!
//! Names, inputs and results are those of duroxide's stress test, so that every work writes the same rows.
//! Its activity cannot be used for "0 ms": tokio rounds a sleep of zero up to the next millisecond.

use std::sync::Arc;
use std::time::Duration;

use duroxide::provider_stress_tests::create_default_orchestrations;
use duroxide::providers::Provider;
use duroxide::runtime::registry::ActivityRegistry;
use duroxide::runtime::{Runtime, RuntimeOptions};
use duroxide::{ActivityContext, OrchestrationContext, OrchestrationRegistry};

/// Activities of one fan-out.
pub(crate) const TASKS: usize = 5;

pub(crate) const FAN_OUT: &str = "FanoutOrchestration";
pub(crate) const SEQUENCE: &str = "Sequence";
pub(crate) const SLEEPER: &str = "Sleeper";

const TASK: &str = "ProcessTask";

/// How long a pending timer of [`SLEEPER`] waits: longer than any run.
const SLEEP: Duration = Duration::from_secs(30 * 24 * 3600);

pub(crate) fn fan_out_input() -> String {
    format!("{{\"task_count\":{TASKS}}}")
}

fn activities() -> ActivityRegistry {
    let task = |_: ActivityContext, input: String| async move { Ok(format!("processed: {input}")) };
    ActivityRegistry::builder().register(TASK, task).build()
}

fn orchestrations() -> OrchestrationRegistry {
    OrchestrationRegistry::builder_from(&create_default_orchestrations())
        .register(SEQUENCE, sequence)
        .register(SLEEPER, sleeper)
        .build()
}

async fn sequence(ctx: OrchestrationContext, input: String) -> Result<String, String> {
    let steps: usize = input.parse().map_err(|error| format!("{input:?} is no number: {error}"))?;
    for step in 0..steps {
        ctx.schedule_activity(TASK, format!("task-{step}")).await?;
    }
    Ok(format!("{steps} done"))
}

async fn sleeper(ctx: OrchestrationContext, _input: String) -> Result<String, String> {
    ctx.schedule_timer(SLEEP).await;
    Ok("awake".into())
}

/// duroxide's runtime on `provider`, as many orchestration as activity dispatchers.
pub(crate) async fn start(provider: Arc<dyn Provider>, dispatchers: usize) -> Arc<Runtime> {
    let options = RuntimeOptions {
        // The default of 100 ms is how long a dispatcher sleeps after a fetch that came back empty-handed:
        // subjects that do not hold a fetch until there is work would mostly sleep.
        dispatcher_min_poll_interval: Duration::from_millis(1),
        orchestration_concurrency: dispatchers,
        worker_concurrency: dispatchers,
        ..RuntimeOptions::default()
    };
    Runtime::start_with_options(provider, activities(), orchestrations(), options).await
}
