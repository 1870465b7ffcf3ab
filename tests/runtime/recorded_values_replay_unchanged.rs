//! What an orchestration was once given, a GUID, the time, an activity's answer, it is given again on every
//! replay, in this process and in the next.

use std::time::UNIX_EPOCH;

use duroxide::runtime::registry::ActivityRegistry;
use duroxide::{EventKind, OrchestrationContext, OrchestrationRegistry};

use crate::support::Place;
use crate::support::host::{Host, Node};
use crate::support::probe::{PATIENCE, Tally, now_ms, with};

everywhere!(each_turn_is_given_the_same);
across_a_restart!(the_next_process_is_given_the_same);

fn node(tally: &Tally) -> Node {
    let orchestrations = OrchestrationRegistry::builder()
        .register("Remember", |ctx: OrchestrationContext, _: String| async move {
            let guid = ctx.new_guid().await?;
            let time = ctx.utc_now().await?.duration_since(UNIX_EPOCH).unwrap().as_millis();
            let answer = ctx.schedule_activity("Answer", "").await?;
            let given = format!("{guid} {time} {answer}");
            ctx.set_kv_value("given", given.clone());
            ctx.schedule_wait("go on").await;
            ctx.schedule_wait("go on").await;
            Ok(given)
        })
        .build();
    let activities = ActivityRegistry::builder()
        .register("Answer", with(tally, async |tally, _, _| Ok(format!("answer {}", tally.note("answer")))))
        .build();
    Node::new(orchestrations, activities)
}

/// Starts one and tells what it was given first.
async fn given(host: &Host) -> String {
    let before = now_ms();
    host.start("rememberer", "Remember", "").await;
    let given = host.client().wait_for_kv_value("rememberer", "given", PATIENCE).await.unwrap();
    let words: Vec<_> = given.split(' ').collect();
    assert_eq!(words[0].len(), 36);
    assert!((before..=now_ms()).contains(&words[1].parse().unwrap()), "{given}");
    assert_eq!(words[2..], ["answer", "1"]);
    given
}

async fn go_on(host: &Host, wait: usize) {
    host.until_recorded("rememberer", wait, |kind| matches!(kind, EventKind::ExternalSubscribed { .. }))
        .await;
    host.raise("rememberer", "go on", "").await;
}

async fn each_turn_is_given_the_same(place: Place) {
    let tally = Tally::default();
    let host = Host::new(place, node(&tally)).await;

    let given = given(&host).await;
    go_on(&host, 1).await;
    go_on(&host, 2).await;

    assert_eq!(host.output("rememberer").await, given);
    assert_eq!(tally.total(), 1);
    host.end().await;
}

async fn the_next_process_is_given_the_same(place: Place) {
    let tally = Tally::default();
    let mut host = Host::new(place, node(&tally)).await;

    let given = given(&host).await;
    host.restart().await;
    go_on(&host, 1).await;
    host.restart().await;
    go_on(&host, 2).await;

    assert_eq!(host.output("rememberer").await, given);
    assert_eq!(tally.total(), 1);
    host.end().await;
}
