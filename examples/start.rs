//! A first durable flow: an order of three steps that goes on where it stopped, whatever stopped it. docs/start.md walks
//! through it.
//!
//! ```sh
//! cargo run --example start          # stop it with Ctrl-C between two steps, and run it again
//! ```

use std::sync::Arc;
use std::time::Duration;

use duroxide::runtime::Runtime;
use duroxide::runtime::registry::ActivityRegistry;
use duroxide::{ActivityContext, Client, OrchestrationContext, OrchestrationRegistry, OrchestrationStatus};
use forebay::Forebay;

const ORDER: &str = "order-1";

/// The steps that touch the world. Each may run more than once, so each says the same whenever it is asked.
fn activities() -> ActivityRegistry {
    ActivityRegistry::builder()
        .register("reserve", |_: ActivityContext, item: String| step("reserving", item, "in the shelf"))
        .register("charge", |_: ActivityContext, item: String| step("charging for", item, "paid"))
        .register("ship", |_: ActivityContext, item: String| step("shipping", item, "on its way"))
        .build()
}

async fn step(doing: &str, item: String, done: &str) -> Result<String, String> {
    println!("  {doing} {item} ..");
    tokio::time::sleep(Duration::from_secs(2)).await;
    Ok(format!("{item}: {done}"))
}

/// What is done, and in which order.
fn orchestrations() -> OrchestrationRegistry {
    OrchestrationRegistry::builder()
        .register("order", |context: OrchestrationContext, item: String| async move {
            context.schedule_activity("reserve", item.as_str()).await?;
            context.schedule_activity("charge", item.as_str()).await?;
            context.schedule_activity("ship", item.as_str()).await
        })
        .build()
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).unwrap_or_else(|| "start.db".to_owned());
    let store = Arc::new(Forebay::open(&path)?);
    let client = Client::new(store.clone());

    match client.get_orchestration_status(ORDER).await? {
        OrchestrationStatus::NotFound => {
            client.start_orchestration(ORDER, "order", "a lamp").await?;
            println!("{ORDER} is started, and on the disk");
        }
        OrchestrationStatus::Running { .. } => println!("{ORDER} goes on where it stopped"),
        _ => println!("{ORDER} had ended before"),
    }

    // From here on whatever waits in the file runs, also what an earlier process has left.
    let runtime = Runtime::start_with_store(store.clone(), activities(), orchestrations()).await;
    match client.wait_for_orchestration(ORDER, Duration::from_secs(60)).await? {
        OrchestrationStatus::Completed { output, .. } => println!("{ORDER} has ended: {output}"),
        other => println!("{ORDER}: {other:?}"),
    }
    println!("{} events are kept of it in {path}", client.read_execution_history(ORDER, 1).await?.len());

    runtime.shutdown(None).await; // first the runtime, then the file
    store.close()?;
    Ok(())
}
