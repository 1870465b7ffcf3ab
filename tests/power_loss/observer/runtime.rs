//! The same with duroxide's own runtime: orchestrations that fan out, activities that say that they were started, and
//! a client.

use std::sync::Arc;
use std::time::Duration;

use duroxide::runtime::registry::ActivityRegistry;
use duroxide::runtime::{ObservabilityConfig, Runtime, RuntimeOptions};
use duroxide::{ActivityContext, Client, OrchestrationContext, OrchestrationRegistry};
use forebay::Forebay;

use super::facts::{Fact, Observer};
use super::readers::{Outside, Over};
use super::{PATIENCE, options};
use crate::disk::Disk;

const READ: [&str; 4] = ["a", "b", "c", "again"];

/// Runs until everything is done, or the power goes.
pub(crate) fn run(disk: &Disk, observer: &Arc<Observer>) {
    let Ok(forebay) = options().open(disk.path()) else { return };
    let executor = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let executor = executor.expect("a runtime");
    executor.block_on(async {
        let work = tokio::time::timeout(PATIENCE, hosted(forebay.clone(), disk, observer));
        work.await.expect("the load comes to an end");
    });
    executor.shutdown_timeout(PATIENCE);
    // After a loss of power it says so.
    let _ = forebay.close();
}

async fn hosted(forebay: Forebay, disk: &Disk, observer: &Arc<Observer>) {
    let provider = Arc::new(forebay.clone());
    let options = RuntimeOptions {
        dispatcher_min_poll_interval: Duration::from_millis(1),
        observability: ObservabilityConfig { log_level: "off,off".into(), ..Default::default() },
        ..Default::default()
    };
    let runtime =
        Runtime::start_with_options(provider.clone(), activities(observer), orchestrations(), options).await;
    let client = Client::new(provider);
    let outside = Outside::new(forebay, observer, disk);
    let clients = async {
        let done = tokio::join!(
            outside.order(&client, "a"),
            outside.order(&client, "b"),
            outside.order(&client, "c"),
            outside.again(&client),
        );
        // Late, so that much is seen before anything is excused.
        if let (Ok(()), Ok(()), Ok(()), Ok(())) = done {
            outside.delete_by(&client, "c").await;
        }
        outside.end();
    };
    tokio::join!(clients, outside.read_all(&READ));
    runtime.shutdown(Some(0)).await;
}

fn orchestrations() -> OrchestrationRegistry {
    OrchestrationRegistry::builder().register("Order", order).register("Again", again).build()
}

/// Fans out, waits to be told, and charges once more.
async fn order(ctx: OrchestrationContext, id: String) -> Result<String, String> {
    ctx.set_kv_value("count", "1");
    ctx.set_custom_status("fanned out");
    let branches = (0..3).map(|no| ctx.schedule_activity("Charge", format!("{id}, {no}"))).collect();
    ctx.join(branches).await;
    ctx.set_kv_value("count", "2");
    let told = ctx.schedule_wait("go");
    ctx.set_custom_status("waiting");
    told.await;
    ctx.set_kv_value("count", "3");
    ctx.schedule_activity("Charge", format!("{id}, last")).await?;
    Ok(format!("{id} is done"))
}

/// Goes on in another execution.
async fn again(ctx: OrchestrationContext, round: String) -> Result<String, String> {
    ctx.set_kv_value("count", &*round);
    ctx.set_custom_status(format!("round {round}"));
    ctx.schedule_activity("Charge", format!("round {round}")).await?;
    match round.as_str() {
        "1" => ctx.continue_as_new("2").await,
        _ => Ok("twice".into()),
    }
}

fn activities(observer: &Arc<Observer>) -> ActivityRegistry {
    let observer = Arc::clone(observer);
    let charge = move |ctx: ActivityContext, input: String| {
        let (instance, execution) = (ctx.instance_id().to_owned(), ctx.execution_id());
        observer.note(Fact::Started { instance, execution, id: None, input: input.clone() });
        async move { Ok(input) }
    };
    ActivityRegistry::builder().register("Charge", charge).build()
}

impl Outside<'_> {
    async fn order(&self, client: &Client, id: &str) -> Result<(), Over> {
        self.start_by(client, id, "Order", id).await?;
        self.until_waiting(id).await?;
        let data = format!("go, {id}");
        self.told(client.raise_event(id, "go", &*data).await)?;
        self.observer.note(Fact::RaiseTaken { instance: id.into(), data });
        self.until(id, |_, status| status == "Completed").await
    }

    async fn again(&self, client: &Client) -> Result<(), Over> {
        self.start_by(client, "again", "Again", "1").await?;
        self.until("again", |execution, status| execution == 2 && status == "Completed").await
    }

    async fn start_by(&self, client: &Client, id: &str, name: &str, input: &str) -> Result<(), Over> {
        self.told(client.start_orchestration(id, name, input).await)?;
        self.observer.note(Fact::StartTaken { instance: id.into() });
        Ok(())
    }

    async fn delete_by(&self, client: &Client, id: &str) {
        self.observer.deletes(id);
        if client.delete_instance(id, true).await.is_ok_and(|result| result.instances_deleted > 0) {
            self.observer.note(Fact::Gone { instance: id.into() });
        }
    }

    /// A client's call that only a loss of power makes fail.
    fn told<T, E>(&self, answer: Result<T, E>) -> Result<T, Over> {
        answer.map_err(|_error| {
            self.end();
            Over
        })
    }
}
