//! duroxide's own runtime while somebody holds the write lock for longer than a batch waits. It takes any error of a
//! renewal for a cancellation, so a renewal must not hear of a batch that it shared with others.

use std::sync::Arc;
use std::time::Duration;

use duroxide::runtime::registry::ActivityRegistry;
use duroxide::runtime::{Runtime, RuntimeOptions};
use duroxide::{ActivityContext, Client, OrchestrationContext, OrchestrationRegistry, OrchestrationStatus};
use forebay::Options;
use rusqlite::Connection;

use crate::engine_support::{PATIENCE, Place};

/// Longer than a batch waits for the lock, and than two renewals.
const HELD: Duration = Duration::from_millis(3000);

const ACTIVITIES: usize = 4;

/// The first version dropped every activity, and its orchestration stayed "Running" for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn activities_outlive_a_lock_that_is_held_while_their_renewals_fall_due() {
    let place = Place::new();
    let forebay = place.open(Options::default());
    let activities = ActivityRegistry::builder()
        .register("Long", async |ctx: ActivityContext, input: String| {
            tokio::time::sleep(HELD + Duration::from_secs(2)).await;
            Ok(format!("{input} {}", ctx.is_cancelled()))
        })
        .register("Short", async |_ctx: ActivityContext, input: String| Ok(input))
        .build();
    let one = async |ctx: OrchestrationContext, what: String| ctx.schedule_activity(what, "cancelled:").await;
    let orchestrations = OrchestrationRegistry::builder().register("One", one).build();
    let options = RuntimeOptions {
        worker_concurrency: ACTIVITIES + 2,
        // Renewed every second.
        worker_lock_timeout: Duration::from_secs(6),
        worker_lock_renewal_buffer: Duration::from_secs(5),
        ..RuntimeOptions::default()
    };
    let store = Arc::new(forebay.clone());
    let runtime = Runtime::start_with_options(store.clone(), activities, orchestrations, options).await;
    let client = Client::new(store);
    for n in 0..ACTIVITIES {
        client.start_orchestration(format!("long {n}"), "One", "Long").await.expect("it starts");
    }
    tokio::time::sleep(Duration::from_millis(500)).await;

    let path = place.path();
    let locked = tokio::task::spawn_blocking(move || {
        let foreign = Connection::open(path).expect("it opens");
        foreign.busy_timeout(PATIENCE).expect("it is set");
        foreign.execute_batch("BEGIN IMMEDIATE").expect("the lock is free in time");
        std::thread::sleep(HELD);
        foreign.execute_batch("COMMIT").expect("it lets go");
    });
    // Other traffic, which makes batches that cannot be written.
    let traffic = tokio::spawn({
        let client = client.clone();
        async move {
            for n in 0..200 {
                let _ = client.start_orchestration(format!("short {n}"), "One", "Short").await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    });
    locked.await.expect("it held the lock");
    for n in 0..ACTIVITIES {
        let ended = client.wait_for_orchestration(&format!("long {n}"), PATIENCE).await.expect("it ends");
        let OrchestrationStatus::Completed { output, .. } = ended else { panic!("long {n}: {ended:?}") };
        assert_eq!(output, "cancelled: false");
    }
    traffic.await.expect("it ends");
    runtime.shutdown(None).await;
    forebay.close().expect("it closes");
}
