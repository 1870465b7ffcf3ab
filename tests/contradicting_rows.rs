//! Rows that contradict each other, as the runtime sees them: the orchestration ends, and says why.

#![cfg(feature = "duroxide")]

mod engine_support;

use std::sync::Arc;
use std::time::Duration;

use duroxide::runtime::registry::ActivityRegistry;
use duroxide::runtime::{OrchestrationStatus, Runtime, RuntimeOptions};
use duroxide::{Client, OrchestrationContext, OrchestrationRegistry};
use engine_support::{PATIENCE, Place};
use forebay::{Forebay, Options};

async fn run(forebay: &Forebay) -> Arc<Runtime> {
    let orchestrations = OrchestrationRegistry::builder()
        .register("Wait", async |ctx: OrchestrationContext, _: String| Ok(ctx.schedule_wait("bell").await))
        .build();
    let options = RuntimeOptions { max_attempts: 1, ..RuntimeOptions::default() };
    let activities = ActivityRegistry::builder().build();
    Runtime::start_with_options(Arc::new(forebay.clone()), activities, orchestrations, options).await
}

/// Formerly its event was dropped, and it ran for ever.
#[tokio::test(flavor = "multi_thread")]
async fn an_orchestration_whose_history_is_hidden_ends() {
    for damage in ["UPDATE history SET execution = 7", "UPDATE instances SET execution = 7"] {
        let place = Place::new();
        let forebay = place.open(Options::default());
        let runtime = run(&forebay).await;
        let client = Client::new(Arc::new(forebay.clone()));
        client.start_orchestration("a", "Wait", "").await.expect("it starts");
        let patience = std::time::Instant::now() + PATIENCE;
        while history(&client).await == 0 {
            assert!(std::time::Instant::now() < patience, "it has its first turn in time");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        runtime.shutdown(None).await;
        forebay.close().expect("it closes");
        let connection = rusqlite::Connection::open(place.path()).expect("it opens");
        assert_eq!(connection.execute(damage, []).expect("it is damaged"), 1, "{damage}");
        connection.close().expect("it closes");

        let forebay = place.open(Options::default());
        let client = Client::new(Arc::new(forebay.clone()));
        let runtime = run(&forebay).await;
        client.raise_event("a", "bell", "rings").await.expect("it is rung");
        let ended = client.wait_for_orchestration("a", Duration::from_secs(15)).await.expect(damage);
        let OrchestrationStatus::Failed { details, .. } = ended else { panic!("{damage}: {ended:?}") };
        assert!(details.display_message().contains("contradict"), "{damage}: {details:?}");
        runtime.shutdown(None).await;
        forebay.close().expect("it closes");
    }
}

/// How many events there are of the first execution.
async fn history(client: &Client) -> usize {
    client.read_execution_history("a", 1).await.map_or(0, |events| events.len())
}
