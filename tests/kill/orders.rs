//! The work: orders that fan out, set a value and a status, wait for two letters and a timer, continue as new
//! and have a child. What each must come to follows from its number.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use duroxide::providers::Provider;
use duroxide::runtime::registry::ActivityRegistry;
use duroxide::runtime::{ObservabilityConfig, Runtime, RuntimeOptions};
use duroxide::{ActivityContext, Client, OrchestrationContext, OrchestrationRegistry, OrchestrationStatus};

use crate::report::Report;

/// Orders in flight.
const CLIENTS: usize = 16;

/// With a child that holds things, the turn of this order stays in hand. It is among the first, which are started
/// together; a dispatcher and a few workers less leave the others enough.
pub(crate) const HELD_TURN: u64 = 10;

/// And so do the activities of this one.
pub(crate) const HELD_WORK: u64 = 12;

/// Every order gets these, in this order.
pub(crate) const LETTERS: [&str; 2] = ["a", "b"];

/// What an order's status says once it has its sum.
pub(crate) const STATUS: &str = "summed";

pub(crate) fn id(order: u64) -> String {
    format!("order-{order}")
}

/// The number of an order; `None` for the child of one.
pub(crate) fn number(id: &str) -> Option<u64> {
    id.strip_prefix("order-")?.parse().ok()
}

/// The result of one activity.
fn part(order: u64, number: u64) -> u64 {
    order * 7 + number
}

/// What an order keeps under the key `sum`.
pub(crate) fn sum(order: u64) -> u64 {
    (0..3).map(|number| part(order, number)).sum()
}

pub(crate) fn output(order: u64) -> String {
    format!("{}{},{},{}", sum(order), LETTERS[0], part(order, 9), LETTERS[1])
}

/// What the child of an order comes to.
pub(crate) fn child_output(order: u64) -> String {
    part(order, 9).to_string()
}

/// The input of the first execution is the order's number, of the second what the first has come to as well.
async fn order(ctx: OrchestrationContext, input: String) -> Result<String, String> {
    let Some((order, so_far)) = input.split_once('+') else {
        let parts = (0..3).map(|number| ctx.schedule_activity("Part", format!("{input}/{number}"))).collect();
        let mut sum = 0;
        for part in ctx.join(parts).await {
            sum += part?.parse::<u64>().map_err(|error| format!("{error:#}"))?;
        }
        ctx.set_kv_value("sum", sum.to_string());
        ctx.set_custom_status(STATUS);
        let letter = ctx.dequeue_event("letters").await;
        return ctx.continue_as_new(format!("{input}+{sum}{letter}")).await;
    };
    ctx.schedule_timer(Duration::from_millis(10)).await;
    let child = ctx.schedule_sub_orchestration("Child", order).await?;
    let letter = ctx.dequeue_event("letters").await;
    Ok(format!("{so_far},{child},{letter}"))
}

async fn child(ctx: OrchestrationContext, order: String) -> Result<String, String> {
    ctx.schedule_activity("Part", format!("{order}/9")).await
}

async fn run_part(_ctx: ActivityContext, input: String) -> Result<String, String> {
    let (order, number) = input.split_once('/').ok_or("a part has two numbers")?;
    // So that some are always in hand.
    tokio::time::sleep(Duration::from_millis(2)).await;
    let parse = |text: &str| text.parse::<u64>().map_err(|error| format!("{error:#}"));
    Ok(part(parse(order)?, parse(number)?).to_string())
}

pub(crate) async fn start_runtime(provider: Arc<dyn Provider>) -> Arc<Runtime> {
    let orchestrations =
        OrchestrationRegistry::builder().register("Order", order).register("Child", child).build();
    let activities = ActivityRegistry::builder().register("Part", run_part).build();
    let options = RuntimeOptions {
        dispatcher_min_poll_interval: Duration::from_millis(5),
        orchestration_concurrency: 4,
        worker_concurrency: 8,
        // Each kill is a failed attempt of whatever was in hand, and that is no poison.
        max_attempts: 100_000,
        observability: ObservabilityConfig { log_level: "off,off".into(), ..Default::default() },
        ..Default::default()
    };
    Runtime::start_with_options(provider, activities, orchestrations, options).await
}

/// Starts orders from `first` on until the process is killed.
pub(crate) async fn order_for_ever(provider: Arc<dyn Provider>, first: u64) {
    let next = Arc::new(AtomicU64::new(first));
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..CLIENTS {
        let (client, next) = (Client::new(Arc::clone(&provider)), Arc::clone(&next));
        clients.spawn(async move {
            loop {
                let order = next.fetch_add(1, Ordering::Relaxed);
                let output = place(&client, order).await;
                Report::Seen(id(order), output).tell();
            }
        });
    }
    let ended = clients.join_next().await;
    panic!("a client gave up: {ended:?}");
}

/// Sees one order through.
async fn place(client: &Client, order: u64) -> String {
    let id = id(order);
    client.start_orchestration(&id, "Order", order.to_string()).await.expect("it is started");
    for letter in LETTERS {
        client.enqueue_event(&id, "letters", letter).await.expect("it is taken");
    }
    completed(client, &id).await.expect("it completes")
}

/// Waits for an order's output.
pub(crate) async fn completed(client: &Client, id: &str) -> Result<String, String> {
    match client.wait_for_orchestration(id, Duration::from_secs(20)).await {
        Ok(OrchestrationStatus::Completed { output, .. }) => Ok(output),
        other => Err(format!("{id} did not complete: {other:?}")),
    }
}
