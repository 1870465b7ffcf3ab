//! Many orchestrations at once, on two runtimes, started and signalled by many clients: all finish, each
//! activity runs once, and a death in the middle of it all loses nothing.

use std::time::Duration;

use duroxide::runtime::registry::ActivityRegistry;
use duroxide::{EventKind, OrchestrationContext, OrchestrationRegistry};

use crate::support::Place;
use crate::support::host::{Host, Node};
use crate::support::probe::{Tally, until, with};

everywhere!(nothing_is_lost_or_run_twice);
across_a_restart!(nothing_is_lost_at_a_death);

const CLIENTS: usize = 4;
const EACH: usize = 8;

/// Each one fans out, naps, has a child and takes an event that was queued right behind its start.
fn node(tally: &Tally) -> Node {
    let orchestrations = OrchestrationRegistry::builder()
        .register("Mixed", |ctx: OrchestrationContext, name: String| async move {
            let work = (0..3).map(|n| ctx.schedule_activity("Work", format!("{name}/{n}"))).collect();
            let work: Result<Vec<String>, String> = ctx.join(work).await.into_iter().collect();
            ctx.schedule_timer(Duration::from_millis(10)).await;
            let child = ctx.schedule_sub_orchestration("Child", name.clone()).await?;
            let event = ctx.dequeue_event("letters").await;
            Ok(format!("{} {child} {event}", work?.len()))
        })
        .register("Child", |ctx: OrchestrationContext, name: String| async move {
            ctx.schedule_activity("Work", format!("{name}/child")).await
        })
        .build();
    let activities = ActivityRegistry::builder()
        .register(
            "Work",
            with(tally, async |tally, _, name| {
                tally.note(&name);
                Ok(name)
            }),
        )
        .build();
    Node::new(orchestrations, activities).with_workers(4)
}

fn instances() -> impl Iterator<Item = String> {
    (0..CLIENTS).flat_map(|client| (0..EACH).map(move |n| format!("{client}-{n}")))
}

async fn start_all(host: &Host) {
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let client = host.client();
            tokio::spawn(async move {
                for n in 0..EACH {
                    let instance = format!("{number}-{n}");
                    client.start_orchestration(&instance, "Mixed", &instance).await.unwrap();
                    client.enqueue_event(&instance, "letters", &instance).await.unwrap();
                }
            })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
}

async fn assert_all_finish(host: &Host) {
    for instance in instances() {
        assert_eq!(host.output(&instance).await, format!("3 {instance}/child {instance}"));
    }
    let counts = host.client().get_system_metrics().await.unwrap();
    let all = 2 * (CLIENTS * EACH) as u64;
    assert_eq!((counts.total_instances, counts.completed_instances), (all, all));
    until("empty queues", async || {
        let depths = host.depths().await;
        (depths.orchestrator_queue + depths.worker_queue == 0).then_some(())
    })
    .await;
}

async fn nothing_is_lost_or_run_twice(place: Place) {
    let tally = Tally::default();
    let host = Host::of(place, vec![node(&tally), node(&tally)]).await;

    start_all(&host).await;

    assert_all_finish(&host).await;
    assert!(tally.counts().values().all(|&runs| runs == 1), "{:?}", tally.counts());
    assert_eq!(tally.total(), CLIENTS * EACH * 4);
    host.end().await;
}

/// The activities whose completion is in a history.
async fn recorded(host: &Host) -> Vec<String> {
    let mut recorded = Vec::new();
    for instance in instances() {
        for event in host.history(&instance, 1).await {
            if let EventKind::ActivityCompleted { result } = event.kind {
                recorded.push(result);
            }
        }
    }
    recorded
}

/// Work cut off by the death may run again; work whose completion was recorded may not.
async fn nothing_is_lost_at_a_death(place: Place) {
    let tally = Tally::default();
    let mut host = Host::of(place, vec![node(&tally), node(&tally)]).await;

    start_all(&host).await;
    until("a quarter of the work recorded", async || {
        (recorded(&host).await.len() >= CLIENTS * EACH).then_some(())
    })
    .await;
    host.kill().await;
    let recorded = recorded(&host).await;
    let before = tally.counts();
    host.restart().await;

    assert_all_finish(&host).await;
    for name in recorded {
        assert_eq!(tally.of(&name), before[&name], "{name} was done, and yet run again");
    }
    assert_eq!(tally.counts().len(), CLIENTS * EACH * 4);
    host.end().await;
}
