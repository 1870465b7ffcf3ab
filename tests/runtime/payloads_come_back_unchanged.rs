//! Whatever text is put in, as input, result, event, key-value, status or name, comes out byte for byte, also
//! after a restart: empty, large, with NULs, or from beyond ASCII.

use std::time::Duration;

use duroxide::runtime::registry::ActivityRegistry;
use duroxide::{EventKind, OrchestrationContext, OrchestrationRegistry, OrchestrationStatus};

use crate::support::Place;
use crate::support::host::{Host, Node};
use crate::support::probe::PATIENCE;

everywhere!(texts_of_all_kinds, a_megabyte_each_way);
across_a_restart!(texts_read_back_after_a_restart);

const TEXTS: [&str; 7] = [
    "",
    "plain",
    "with 'quotes', \"more\" and \\ a backslash",
    "lines\nand\ttabs\r\n",
    "a NUL \0 inside",
    "größer, 日本語, 🌊, e\u{301}",
    r#"{"json": [1, null, "two"]}"#,
];

fn echoing() -> Node {
    let orchestrations = OrchestrationRegistry::builder()
        .register("Echo", |ctx: OrchestrationContext, text: String| async move {
            ctx.set_kv_value("text", text.clone());
            ctx.set_custom_status(text.clone());
            let event = ctx.dequeue_event("text").await;
            let result = ctx.schedule_activity("Echo", text.clone()).await?;
            let child = ctx.schedule_sub_orchestration("Return", text.clone()).await?;
            let error = ctx.schedule_activity("Fail", text.clone()).await.unwrap_err();
            let same = [event, result, child, error].iter().all(|other| *other == text);
            if same { Ok(text) } else { Err("a text has changed".to_string()) }
        })
        .register("Return", async |_: OrchestrationContext, text: String| Ok(text))
        .register("Large", |ctx: OrchestrationContext, text: String| async move {
            let result = ctx.schedule_activity("Echo", text.clone()).await?;
            if result == text { Ok(result) } else { Err("a text has changed".to_string()) }
        })
        .build();
    let activities = ActivityRegistry::builder()
        .register("Echo", async |_, text: String| Ok(text))
        .register("Fail", async |_, text: String| Err(text))
        .build();
    Node::new(orchestrations, activities)
}

/// Instance names are texts too.
fn instance(text: &str) -> String {
    format!("instance {text}")
}

async fn echo(host: &Host, text: &str) {
    let instance = instance(text);
    host.start(&instance, "Echo", text).await;
    let client = host.client();
    client.wait_for_status_change(&instance, 0, Duration::from_millis(5), PATIENCE).await.unwrap();
    host.enqueue(&instance, "text", text).await;
}

async fn assert_echoed(host: &Host, text: &str) {
    let instance = instance(text);
    assert_eq!(host.output(&instance).await, text);
    let value = host.client().get_kv_value(&instance, "text").await.unwrap();
    assert_eq!(value.as_deref(), Some(text));
    match host.status(&instance).await {
        OrchestrationStatus::Completed { custom_status, .. } => {
            assert_eq!(custom_status.as_deref(), Some(text))
        }
        other => panic!("{other:?}"),
    }
    let info = host.client().get_instance_info(&instance).await.unwrap();
    assert_eq!((info.instance_id, info.output.as_deref()), (instance.clone(), Some(text)));
    match &host.history(&instance, 1).await[0].kind {
        EventKind::OrchestrationStarted { input, .. } => assert_eq!(input, text),
        other => panic!("{other:?}"),
    }
}

async fn texts_of_all_kinds(place: Place) {
    let host = Host::new(place, echoing()).await;

    for text in TEXTS {
        echo(&host, text).await;
    }

    for text in TEXTS {
        assert_echoed(&host, text).await;
    }
    host.end().await;
}

async fn a_megabyte_each_way(place: Place) {
    let host = Host::new(place, echoing()).await;
    let text: String =
        (0..1 << 20).map(|n: u32| char::from(b' ' + (n.wrapping_mul(2_654_435_761) >> 26) as u8)).collect();

    host.start("large", "Large", &text).await;

    assert!(host.output("large").await == text, "a large text has changed");
    host.end().await;
}

async fn texts_read_back_after_a_restart(place: Place) {
    let mut host = Host::new(place, echoing()).await;

    for text in TEXTS {
        echo(&host, text).await;
    }
    host.restart().await;
    for text in TEXTS {
        host.output(&instance(text)).await;
    }
    host.restart().await;

    for text in TEXTS {
        assert_echoed(&host, text).await;
    }
    host.end().await;
}
