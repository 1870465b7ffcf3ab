//! A value over the limit ends what produced it, at the first refusal, with its size and the limit in the error;
//! whoever waits for it hears of it. A turn is never too large, however much is in it.

use std::fmt::Write as _;

use duroxide::runtime::registry::ActivityRegistry;
use duroxide::{
    AppErrorKind, ClientError, ErrorDetails, EventKind, OrchestrationContext, OrchestrationRegistry,
};

use crate::support::host::{Host, Node};
use crate::support::probe::{Tally, in_time, with};
use crate::support::{Place, SMALL_RECORD};

fn large() -> String {
    "x".repeat(2 * SMALL_RECORD)
}

fn node(tally: &Tally) -> Node {
    let activities = ActivityRegistry::builder()
        .register(
            "Produce",
            with(tally, async |tally, _, what: String| {
                tally.note(&what);
                match what.as_str() {
                    "result" => Ok(large()),
                    "error" => Err(large()),
                    _ => panic!("{}", large()),
                }
            }),
        )
        .register("Echo", async |_, text: String| Ok(text))
        .build();
    let orchestrations = OrchestrationRegistry::builder()
        .register("Produce", async |ctx: OrchestrationContext, what: String| {
            ctx.schedule_activity("Produce", what).await
        })
        .register("Compensate", async |ctx: OrchestrationContext, what: String| {
            let refused = ctx.schedule_activity("Produce", what).await.unwrap_err();
            ctx.schedule_activity("Echo", format!("instead of: {refused}")).await
        })
        .register("Do", |ctx: OrchestrationContext, what: String| async move {
            if let Some(later) = what.strip_prefix("later ") {
                ctx.schedule_activity("Echo", "").await?;
                return Do(later).what(&ctx).await;
            }
            Do(&what).what(&ctx).await
        })
        .register("Delegate", async |ctx: OrchestrationContext, what: String| {
            ctx.schedule_sub_orchestration_with_id("Do", "child", what).await
        })
        .register("Fan", async |ctx: OrchestrationContext, count: String| {
            let text = "y".repeat(SMALL_RECORD / 2);
            let all = (0..count.parse::<usize>().unwrap())
                .map(|_| ctx.schedule_activity("Echo", text.clone()))
                .collect::<Vec<_>>();
            let results = ctx.join(all).await;
            let same = results.iter().filter(|result| result.as_ref() == Ok(&text)).count();
            Ok(same.to_string())
        })
        .build();
    Node::new(orchestrations, activities)
}

struct Do<'a>(&'a str);

impl Do<'_> {
    async fn what(self, ctx: &OrchestrationContext) -> Result<String, String> {
        match self.0 {
            "output" => Ok(large()),
            "error" => Err(large()),
            "input of an activity" => ctx.schedule_activity("Echo", large()).await,
            "input of a child" => ctx.schedule_sub_orchestration("Do", large()).await,
            "input of itself" => ctx.continue_as_new(large()).await,
            "input of another" => {
                ctx.schedule_orchestration("Do", "another", large());
                Ok(String::new())
            }
            other => panic!("{other}"),
        }
    }
}

const WAYS: [&str; 6] =
    ["output", "error", "input of an activity", "input of a child", "input of itself", "input of another"];

/// It says how large it was and what was allowed.
fn assert_says_so(details: &ErrorDetails, kind: &AppErrorKind) {
    let ErrorDetails::Application { kind: found, message, retryable } = details else {
        panic!("{details:?}");
    };
    assert_eq!((found, *retryable), (kind, false), "{message}");
    let limit = format!("the limit is {SMALL_RECORD}");
    assert!(message.contains(&limit) && message.contains("record_bytes_max"), "{message}");
    assert!(message.contains(" takes 3") && message.len() < 4096, "{message}");
}

async fn an_activitys_result(place: Place) {
    let tally = Tally::default();
    let host = Host::new(place, node(&tally)).await;
    for what in ["result", "error", "panic"] {
        host.start(what, "Produce", what).await;
        let ErrorDetails::Application { message, .. } = host.failure(what).await else {
            panic!("an orchestration that gives the error back fails with it")
        };
        assert!(message.contains("of activity Produce (2)"), "{message}");
        assert!(message.contains(&format!("the limit is {SMALL_RECORD}")), "{message}");
        assert_eq!(tally.of(what), 1, "it runs once");
        let failed = host.history(what, 1).await.into_iter().find_map(|event| match event.kind {
            EventKind::ActivityFailed { details } => Some(details),
            _ => None,
        });
        assert_says_so(&failed.expect("it failed"), &AppErrorKind::ActivityFailed);
    }
    host.start("compensates", "Compensate", "result").await;
    assert!(host.output("compensates").await.starts_with("instead of: the result of activity Produce"));
    assert_eq!(host.depths().await.worker_queue, 0);
    host.end().await;
}

/// In its first turn and in a later one.
async fn what_an_orchestration_produces(place: Place) {
    let host = Host::new(place, node(&Tally::default())).await;
    for way in WAYS.iter().flat_map(|way| [(*way).to_owned(), format!("later {way}")]) {
        host.start(&way, "Do", &way).await;
        assert_says_so(&host.failure(&way).await, &AppErrorKind::OrchestrationFailed);
        let info = host.client().get_instance_info(&way).await.expect("management sees it");
        assert_eq!((info.status.as_str(), info.orchestration_name.as_str()), ("Failed", "Do"));
    }
    assert_eq!((host.depths().await.orchestrator_queue, host.depths().await.worker_queue), (0, 0));
    host.end().await;
}

async fn a_parent_hears_of_it(place: Place) {
    let host = Host::new(place, node(&Tally::default())).await;
    for way in WAYS.iter().flat_map(|way| [(*way).to_owned(), format!("later {way}")]) {
        host.start("parent", "Delegate", &way).await;
        let ErrorDetails::Application { message, .. } = host.failure("parent").await else {
            panic!("{way}");
        };
        assert!(message.contains(&format!("the limit is {SMALL_RECORD}")), "{message}");
        host.failure("child").await;
        host.client().delete_instance("parent", false).await.unwrap();
    }
    host.end().await;
}

async fn a_turn_of_any_size(place: Place) {
    let host = Host::new(place, node(&Tally::default())).await;
    // Schedules half a megabyte in one turn, and gets it back in as many turns as it happens to take.
    host.start("fan", "Fan", "64").await;
    assert_eq!(host.output("fan").await, "64");
    host.end().await;
}

/// A client is told at once.
async fn what_a_client_sends(place: Place) {
    let host = Host::new(place, node(&Tally::default())).await;
    let client = host.client();
    let refusals = [
        client.start_orchestration("large", "Do", large()).await,
        client.raise_event("large", "event", large()).await,
        client.enqueue_event("large", "queue", large()).await,
    ];
    let mut said = String::new();
    for refusal in refusals {
        let Err(ClientError::Provider(error)) = refusal else { panic!("{refusal:?}") };
        assert!(!error.is_retryable());
        writeln!(said, "{error}").unwrap();
    }
    assert_eq!(said.matches(&format!("the limit is {SMALL_RECORD}")).count(), 3, "{said}");
    host.end().await;
}

/// What just fits as a message is not refused as the event it becomes.
async fn the_largest_that_is_taken_in(place: Place) {
    let host = Host::new(place, node(&Tally::default())).await;
    let mut size = SMALL_RECORD;
    let start = async |size: usize| {
        host.client().start_orchestration(format!("size {size}"), "Do", "z".repeat(size)).await
    };
    while start(size).await.is_err() {
        size -= 1;
    }
    // It panics at what it is told to do: it came that far.
    let ErrorDetails::Application { message, .. } = host.failure(&format!("size {size}")).await else {
        panic!("an orchestration that panics fails")
    };
    assert!(!message.contains("takes") || message.contains("its error"), "{message}");
    let first = host.history(&format!("size {size}"), 1).await.into_iter().next().unwrap();
    assert!(matches!(first.kind, EventKind::OrchestrationStarted { input, .. } if input.len() == size));
    host.end().await;
}

macro_rules! with_small_records {
    ($($scenario:ident),+ $(,)?) => {$(
        mod $scenario {
            #[tokio::test(flavor = "multi_thread")]
            async fn with_small_records() {
                super::in_time(super::$scenario(super::Place::SmallRecords)).await;
            }
        }
    )+};
}

with_small_records!(
    an_activitys_result,
    what_an_orchestration_produces,
    a_parent_hears_of_it,
    a_turn_of_any_size,
    what_a_client_sends,
    the_largest_that_is_taken_in,
);
